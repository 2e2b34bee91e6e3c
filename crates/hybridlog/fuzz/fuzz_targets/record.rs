//! The record decoder on any bytes: it must not panic, must read nothing behind them, and must find whatever was written.
//! The bytes are tried as they are, and again with a CRC that fits, which fuzzing would not find by itself.
//!
//! Run: `cargo +nightly fuzz run record` in `crates/hybridlog`.

#![no_main]

use hybridlog::fuzzing::{check_decoding, check_round_trip};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check_decoding(bytes);
    check_round_trip(bytes);
});
