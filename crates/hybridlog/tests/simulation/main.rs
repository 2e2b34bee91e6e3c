//! Random tests: the store against a plain map, and durability on a simulated disk, which fails, fills up and loses its power
//! as it is told.
//!
//! Everything here follows from seeds, and a test that fails has printed the one it failed with.

mod collection;
mod crash;
mod disk;
mod disk_tests;
mod faults;
mod image;
mod model;
mod random;
mod repair;
mod workload;
