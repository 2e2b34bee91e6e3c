//! Roots of collections and nodes of their trees, of any content: reading and splitting them must not panic, and what comes of a
//! split must be nodes again.
//!
//! Run: `cargo +nightly fuzz run tree` in `crates/hybridlog`.

#![no_main]

use hybridlog::fuzzing::check_tree;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| check_tree(bytes));
