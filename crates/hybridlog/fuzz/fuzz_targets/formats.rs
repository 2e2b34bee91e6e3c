//! Manifest, deaths files and key files of any content: reading them must not panic, and must say what is wrong. The bytes are
//! tried as they are, and again with CRCs that fit, which fuzzing would not find by itself.
//!
//! Run: `cargo +nightly fuzz run formats` in `crates/hybridlog`.

#![no_main]

use hybridlog::fuzzing::check_formats;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| check_formats(bytes));
