//! What fuzzing needs of the inside; built for that only.
#![allow(unsafe_code)] // Writes records into memory of its own.

mod formats;

pub use crate::command_log::fuzzing::{check_effects, check_log};
pub use formats::check_formats;

/// Checks and repairs a data directory whose fields `bytes` have changed, all checksums being right.
///
/// # Panics
///
/// If that panics, or what has been repaired is damaged.
pub fn check_hostile_directory(bytes: &[u8]) {
    crate::repair::hostile::check_hostile_directory(bytes);
}

/// Reads `bytes` as the root of a collection, and as nodes of its trees.
///
/// # Panics
///
/// If something else is found than damage, or what is found does not agree with itself.
pub fn check_tree(bytes: &[u8]) {
    crate::tree::fuzzing::check_tree(bytes);
}

use crate::record::{Decoded, Draft, HEADER_BYTES, RecordRef, decode};
use crate::{Meta, Namespace};

/// The longest record that is looked for.
const LONGEST: usize = 1 << 20;

/// Decodes `bytes`, and again after setting the CRC to what the rest asks for.
///
/// # Panics
///
/// If what comes back lies outside `bytes`, or more is asked for than there can be.
pub fn check_decoding(bytes: &[u8]) {
    let mut buffer = Buffer::new(bytes.len());
    buffer.bytes_mut().copy_from_slice(bytes);
    check(buffer.bytes());
    if matches!(
        decode(buffer.bytes(), LONGEST),
        Decoded::Damaged("record CRC mismatch")
    ) {
        // SAFETY: all but the CRC is sound, so a whole record lies in the buffer, which is aligned and ours alone.
        unsafe { RecordRef::new(buffer.bytes_mut().as_ptr()).seal() };
        assert!(matches!(
            decode(buffer.bytes(), LONGEST),
            Decoded::Record(_)
        ));
        check(buffer.bytes());
    }
}

/// Bytes that begin at a multiple of 8.
struct Buffer {
    words: Vec<u64>,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Buffer {
        Buffer {
            words: vec![0; len.div_ceil(8)],
            len,
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: plain integers as bytes, no more than there are.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }
}

fn check(buffer: &[u8]) {
    match decode(buffer, LONGEST) {
        Decoded::Record(record) => {
            let inside = buffer.as_ptr_range();
            for part in [record.key(), record.value()] {
                let part = part.as_ptr_range();
                assert!(inside.start <= part.start && part.end <= inside.end);
            }
            assert!(record.record_bytes() <= LONGEST);
            let _ = (record.namespace(), record.meta(), record.flags());
        }
        Decoded::Longer(bytes) => assert!(buffer.len() < bytes && bytes <= LONGEST),
        Decoded::Damaged(why) => assert!(!why.is_empty()),
    }
}

/// Writes a record made of `bytes`, and reads it back, whole and cut short.
///
/// # Panics
///
/// If it is not what was written, or a part of it passes for the whole.
pub fn check_round_trip(bytes: &[u8]) {
    let (head, body) = bytes.split_at(bytes.len().min(8));
    let number = head
        .iter()
        .fold(0, |number, &byte| number << 8 | u64::from(byte));
    let (key, value) = body.split_at(number as usize % (body.len() + 1));
    let draft = Draft {
        namespace: Namespace((number >> 8) as u16),
        key,
        value,
        meta: Meta {
            kind: (number >> 24) as u8,
            expires_at_ms: (number & 1 == 1).then_some(number >> 2),
        },
        flags: 0,
        slack_bytes: number as usize >> 32 & 0xff,
    };
    let mut buffer = Buffer::new(draft.record_bytes());
    // SAFETY: aligned, as long as the record, and ours alone.
    unsafe {
        draft.write(buffer.bytes_mut().as_mut_ptr());
        RecordRef::new(buffer.bytes_mut().as_ptr()).seal();
    }
    let whole = buffer.bytes();
    let is_it = |record: RecordRef<'_>| {
        record.is(draft.namespace, key) && record.value() == value && record.meta() == draft.meta
    };
    assert!(matches!(decode(whole, LONGEST), Decoded::Record(record) if is_it(record)));
    let used = whole.len() - draft.slack_bytes / 8 * 8;
    let short = &whole[..number as usize % used];
    let enough = used.max(HEADER_BYTES + 8);
    assert!(matches!(decode(short, LONGEST), Decoded::Longer(bytes) if bytes <= enough));
}
