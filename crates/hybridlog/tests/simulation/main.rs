//! Durability on a simulated disk, which fails, fills up and loses its power as it is told, from a seed.
//!
//! Everything here is repeatable: a test that fails has printed the seed it failed with.

mod disk;
mod disk_tests;
mod image;
mod random;
