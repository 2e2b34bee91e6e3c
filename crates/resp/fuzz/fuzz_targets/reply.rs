//! The reply decoder on any bytes: it must not panic, and `skip_reply` must agree with `decode`
//! unless the reply is nested too deeply for the latter.
//!
//! Run: `cargo +nightly fuzz run reply` in `crates/resp`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use resp::{DecodeError, decode, skip_reply};

fuzz_target!(|bytes: &[u8]| {
    let skipped = skip_reply(bytes);
    match decode(bytes) {
        Err(DecodeError::TooDeep) => {}
        decoded => assert_eq!(decoded.map(|found| found.map(|(_, size)| size)), skipped),
    }
});
