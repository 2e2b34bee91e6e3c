//! The replay of a command log on any bytes: it must not panic, must give no more than there is, and must say where damage is.
//! The bytes are tried as they are, and again with headers and CRCs that fit, which fuzzing would not find by itself.
//!
//! Run: `cargo +nightly fuzz run command_log` in `crates/hybridlog`.

#![no_main]

use hybridlog::fuzzing::check_log;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| check_log(bytes));
