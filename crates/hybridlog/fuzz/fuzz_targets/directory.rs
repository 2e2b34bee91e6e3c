//! Data directories in which fields say what they should not and all checksums are right: checking one and repairing it must not
//! panic, and what has been repaired must be sound.
//!
//! Run: `cargo +nightly fuzz run directory` in `crates/hybridlog`.

#![no_main]

use hybridlog::fuzzing::check_hostile_directory;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| check_hostile_directory(bytes));
