//! The decoder of a frame's effects on any bytes: it must not panic, and what it makes of them must come back when it is
//! encoded and decoded again.
//!
//! Run: `cargo +nightly fuzz run effects` in `crates/hybridlog`.

#![no_main]

use hybridlog::fuzzing::check_effects;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| check_effects(bytes));
