//! The record format, to the byte.
//!
//! ```text
//! 0   value length     u32   in a filler: bytes after the header
//! 4   slack            u16   unused bytes after the value, in units of 8
//! 6   flags            u8
//! 7   type             u8    the caller's
//! 8   CRC32C           u32   over bytes 0..8, 12..16 and the body without slack; set when the segment is sealed
//! 12  key length       u16   0xffff: the length stands in the body as u64
//! 14  namespace        u16
//! 16  body: [key length u64 if flagged] [expiry u64, Unix milliseconds, if flagged] key, value,
//!     zeroes to a multiple of 8, slack
//! ```
//!
//! Everything is little-endian and starts at a multiple of 8. The first 8 bytes are published as one atomic word, so
//! that whoever walks a segment can parse it while a value is being updated in place.
#![allow(unsafe_code)] // Records are parsed where they lie; `RecordRef` is the one place that reads raw record memory.

mod in_place;

use std::marker::PhantomData;

use crate::address::RECORD_ALIGN;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::{Meta, Namespace};

pub(crate) const HEADER_BYTES: usize = 16;
const LONG_KEY: u16 = u16::MAX;
const SLACK_MAX_UNITS: usize = u16::MAX as usize;

/// An expiry field with this value means "none": the field was there and has been cleared in place.
pub(crate) const NO_EXPIRY: u64 = u64::MAX;

/// Flag bits of a record.
pub(crate) mod flag {
    /// The body has an expiry field.
    pub(crate) const EXPIRY: u8 = 1;
    /// A page of a large value; the key is (object id, page number).
    pub(crate) const PAGE: u8 = 2;
    /// The value is the root of a large value, not the value itself.
    pub(crate) const CHUNKED: u8 = 4;
    /// Not a record: space to be skipped.
    pub(crate) const FILLER: u8 = 8;
    /// A relocated copy that lost the race for its slot; never live.
    pub(crate) const VOID: u8 = 16;
    /// The value is the root of a collection.
    pub(crate) const TREE: u8 = 32;
    /// The collection is to be looked at when its root says.
    pub(crate) const DUE: u8 = 64;
}

/// What a new record is made of.
#[derive(Clone, Copy)]
pub(crate) struct Draft<'a> {
    pub(crate) namespace: Namespace,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) meta: Meta,
    /// PAGE, CHUNKED, TREE, TREE and DUE, or none.
    pub(crate) flags: u8,
    /// Room for the value to grow in place, in bytes.
    pub(crate) slack_bytes: usize,
}

impl Draft<'_> {
    fn key_offset(&self) -> usize {
        let long = if self.key.len() >= LONG_KEY as usize {
            8
        } else {
            0
        };
        let expiry = if self.meta.expires_at_ms.is_some() {
            8
        } else {
            0
        };
        HEADER_BYTES + long + expiry
    }

    fn slack_units(&self) -> usize {
        (self.slack_bytes / RECORD_ALIGN).min(SLACK_MAX_UNITS)
    }

    /// Bytes the record takes in the log.
    pub(crate) fn record_bytes(&self) -> usize {
        let used = self.key_offset() + self.key.len() + self.value.len();
        used.next_multiple_of(RECORD_ALIGN) + self.slack_units() * RECORD_ALIGN
    }

    /// Writes the record at `target`.
    ///
    /// # Safety
    /// `target` is aligned to 8, has room for [`Self::record_bytes`], and nobody else can reach those bytes yet.
    pub(crate) unsafe fn write(&self, target: *mut u8) {
        let mut flags = self.flags;
        let mut at = HEADER_BYTES;
        let key_len = if self.key.len() >= LONG_KEY as usize {
            LONG_KEY
        } else {
            self.key.len() as u16
        };
        // SAFETY: all offsets stay below `record_bytes`, which is computed from the same lengths.
        unsafe {
            if key_len == LONG_KEY {
                target
                    .add(at)
                    .cast::<u64>()
                    .write((self.key.len() as u64).to_le());
                at += 8;
            }
            if let Some(expires_at_ms) = self.meta.expires_at_ms {
                flags |= flag::EXPIRY;
                target.add(at).cast::<u64>().write(expires_at_ms.to_le());
                at += 8;
            }
            target
                .add(at)
                .copy_from_nonoverlapping(self.key.as_ptr(), self.key.len());
            at += self.key.len();
            target
                .add(at)
                .copy_from_nonoverlapping(self.value.as_ptr(), self.value.len());
            at += self.value.len();
            let pad = at.next_multiple_of(RECORD_ALIGN) - at;
            target
                .add(at)
                .write_bytes(0, pad + self.slack_units() * RECORD_ALIGN);
            let word1 = u64::from(key_len) << 32 | u64::from(self.namespace.0) << 48;
            target.add(8).cast::<u64>().write(word1.to_le());
            let word0 = word0(
                self.value.len() as u32,
                self.slack_units() as u16,
                flags,
                self.meta.kind,
            );
            target.cast::<u64>().write(word0.to_le());
        }
    }
}

fn word0(value_len: u32, slack_units: u16, flags: u8, kind: u8) -> u64 {
    u64::from(value_len)
        | u64::from(slack_units) << 32
        | u64::from(flags) << 48
        | u64::from(kind) << 56
}

/// Marks `bytes` (a multiple of 8, at least 16, or exactly 8) of unused log as skippable.
///
/// # Safety
/// `target` is aligned to 8 and the caller owns the `bytes` after it.
pub(crate) unsafe fn write_filler(target: *mut u8, bytes: usize) {
    // SAFETY: at least 8 bytes at an aligned address, by contract.
    unsafe { target.cast::<[u8; 8]>().write(filler_header(bytes)) };
}

/// What `bytes` of unused log begin with.
pub(crate) fn filler_header(bytes: usize) -> [u8; 8] {
    debug_assert!(bytes.is_multiple_of(RECORD_ALIGN) && bytes >= RECORD_ALIGN);
    // A filler of 8 bytes has no second header word; walkers know it by its length.
    let after_header = bytes.saturating_sub(HEADER_BYTES) as u32;
    let kind = if bytes == RECORD_ALIGN { 1 } else { 0 };
    word0(after_header, 0, flag::FILLER, kind).to_le_bytes()
}

/// The length of the filler at `base`; `None` if a record begins there.
///
/// # Safety
/// A record or a filler begins at `base`.
pub(crate) unsafe fn filler_bytes(base: *const u8) -> Option<usize> {
    // SAFETY: records and fillers are at least one aligned word long. Nothing is read behind it: a filler of 8 bytes may
    // be the last thing in a mapping.
    let word0 = u64::from_le(unsafe { (*base.cast::<AtomicU64>()).load(Ordering::Acquire) });
    if (word0 >> 48) as u8 & flag::FILLER == 0 {
        return None;
    }
    match (word0 >> 56) as u8 {
        1 => Some(RECORD_ALIGN),
        _ => Some(HEADER_BYTES + word0 as u32 as usize),
    }
}

/// Where the parts of a record are, from its header.
#[derive(Clone, Copy)]
struct Layout {
    flags: u8,
    kind: u8,
    expiry_at: usize,
    key_at: usize,
    key_len: usize,
    value_len: usize,
    slack_bytes: usize,
}

impl Layout {
    fn value_at(&self) -> usize {
        self.key_at + self.key_len
    }

    fn record_bytes(&self) -> usize {
        (self.value_at() + self.value_len).next_multiple_of(RECORD_ALIGN) + self.slack_bytes
    }
}

/// A record in memory: in a frame, a mapping or a read buffer.
#[derive(Clone, Copy)]
pub(crate) struct RecordRef<'a> {
    base: *const u8,
    layout: Layout,
    lives: PhantomData<&'a [u8]>,
}

impl<'a> RecordRef<'a> {
    /// The record at `base`.
    ///
    /// # Safety
    /// `base` is the start of a record written by [`Draft::write`] in memory that stays valid for `'a`. Its
    /// key and expiry field never move; value and first word change only under the exclusive latch of its key.
    #[inline]
    pub(crate) unsafe fn new(base: *const u8) -> RecordRef<'a> {
        // SAFETY: the header is 16 readable bytes, aligned to 8. The first word is accessed atomically because a writer
        // under another key's view (a walk of the segment) may publish it meanwhile; bytes 12..16 never change.
        let (word0, key_len) = unsafe {
            let word0 = u64::from_le((*base.cast::<AtomicU64>()).load(Ordering::Acquire));
            (word0, u16::from_le(base.add(12).cast::<u16>().read()))
        };
        let long = key_len == LONG_KEY;
        let expiry_at = HEADER_BYTES + if long { 8 } else { 0 };
        let flags = (word0 >> 48) as u8;
        let layout = Layout {
            flags,
            kind: (word0 >> 56) as u8,
            expiry_at,
            key_at: expiry_at + if flags & flag::EXPIRY != 0 { 8 } else { 0 },
            key_len: if long {
                // SAFETY: a long key's record has the length right after the header.
                u64::from_le(unsafe { base.add(HEADER_BYTES).cast::<u64>().read() }) as usize
            } else {
                key_len as usize
            },
            value_len: word0 as u32 as usize,
            slack_bytes: (word0 >> 32) as u16 as usize * RECORD_ALIGN,
        };
        RecordRef {
            base,
            layout,
            lives: PhantomData,
        }
    }

    /// The record at `base` if it is the key's and has neither an expiry field nor a value in pages, nor a long key. What
    /// [`Self::new`] reads out of the header follows here from what was asked for. So the processor knows at once where
    /// the parts are, and loads them with the header, not after it.
    ///
    /// # Safety
    /// As [`Self::new`].
    #[inline(always)]
    pub(crate) unsafe fn plain(
        base: *const u8,
        namespace: Namespace,
        key: &[u8],
    ) -> Option<RecordRef<'a>> {
        // SAFETY: as in `new`; namespace and length of the key are at 12 and never change.
        let (word0, key_word) = unsafe {
            let word0 = u64::from_le((*base.cast::<AtomicU64>()).load(Ordering::Acquire));
            (word0, u32::from_le(base.add(12).cast::<u32>().read()))
        };
        let record = RecordRef {
            base,
            layout: Layout {
                flags: 0,
                kind: (word0 >> 56) as u8,
                expiry_at: HEADER_BYTES,
                key_at: HEADER_BYTES,
                key_len: key.len(),
                value_len: word0 as u32 as usize,
                slack_bytes: (word0 >> 32) as u16 as usize * RECORD_ALIGN,
            },
            lives: PhantomData,
        };
        let is_so = key.len() < LONG_KEY as usize
            && key_word == key.len() as u32 | u32::from(namespace.0) << 16
            && (word0 >> 48) as u8 == 0
            && record.key() == key;
        is_so.then_some(record)
    }

    #[inline]
    fn slice(&self, at: usize, len: usize) -> &'a [u8] {
        // SAFETY: parts of a record as its own header says, inside memory valid for 'a; the constructor's contract rules
        // out concurrent changes of these bytes while a latch is held or the segment is sealed.
        unsafe { std::slice::from_raw_parts(self.base.add(at), len) }
    }

    pub(crate) fn flags(&self) -> u8 {
        self.layout.flags
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        self.slice(self.layout.key_at, self.layout.key_len)
    }

    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        self.slice(self.layout.value_at(), self.layout.value_len)
    }

    /// Offset of the value from the start of the record.
    pub(crate) fn value_at(&self) -> usize {
        self.layout.value_at()
    }

    pub(crate) fn namespace(&self) -> Namespace {
        // SAFETY: bytes 14..16 of the header, which never change.
        Namespace(u16::from_le(unsafe {
            self.base.add(14).cast::<u16>().read()
        }))
    }

    #[inline]
    pub(crate) fn meta(&self) -> Meta {
        Meta {
            kind: self.layout.kind,
            expires_at_ms: self.expires_at_ms(),
        }
    }

    #[inline]
    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        if self.layout.flags & flag::EXPIRY == 0 {
            return None;
        }
        // SAFETY: flagged, so the field is there, aligned to 8; accessed atomically since it is changed in place.
        let field = unsafe {
            (*self.base.add(self.layout.expiry_at).cast::<AtomicU64>()).load(Ordering::Relaxed)
        };
        Some(u64::from_le(field)).filter(|&at| at != NO_EXPIRY)
    }

    #[inline]
    pub(crate) fn is(&self, namespace: Namespace, key: &[u8]) -> bool {
        self.layout.key_len == key.len() && self.namespace() == namespace && self.key() == key
    }

    /// Bytes the record takes in the log.
    pub(crate) fn record_bytes(&self) -> usize {
        self.layout.record_bytes()
    }

    /// How long the value may grow in place.
    pub(crate) fn value_capacity(&self) -> usize {
        self.record_bytes() - self.layout.value_at()
    }

    /// Marks a relocated copy as never live.
    ///
    /// # Safety
    /// The caller wrote the record, no index slot names it, and its segment cannot be flushed yet.
    pub(crate) unsafe fn make_void(&self) {
        // SAFETY: the first word of a record in writable memory, by contract.
        unsafe {
            (*self.base.cast::<AtomicU64>())
                .fetch_or(u64::from(flag::VOID) << 48, Ordering::Relaxed)
        };
    }

    fn crc(&self) -> u32 {
        let crc = crc32c::crc32c(self.slice(0, 8));
        let crc = crc32c::crc32c_append(crc, self.slice(12, 4));
        let body = self.layout.value_at() + self.layout.value_len - HEADER_BYTES;
        crc32c::crc32c_append(crc, self.slice(HEADER_BYTES, body))
    }

    /// Computes and stores the CRC.
    ///
    /// # Safety
    /// The segment is sealed and the epoch has passed: nobody changes the record any more. The memory is writable.
    pub(crate) unsafe fn seal(&self) {
        let crc = self.crc();
        // SAFETY: bytes 8..12 are the CRC field, aligned to 4; only the sealing thread accesses them.
        unsafe { (*self.base.add(8).cast::<AtomicU32>()).store(crc.to_le(), Ordering::Relaxed) };
    }
}

/// What a buffer that was read from the device holds at a record's place.
pub(crate) enum Decoded<'a> {
    Record(RecordRef<'a>),
    /// The record is longer than the buffer: so many bytes are needed.
    Longer(usize),
    /// Not a sound record; the text says what is wrong.
    Damaged(&'static str),
}

/// Parses bytes from the device, trusting nothing: a record comes back only if it lies wholly inside `buffer` and its
/// CRC is right. `buffer` begins at the record and is aligned to 8; `longest` bounds how long a record can be.
pub(crate) fn decode(buffer: &[u8], longest: usize) -> Decoded<'_> {
    if buffer.len() < HEADER_BYTES {
        return Decoded::Longer(HEADER_BYTES);
    }
    if !buffer.as_ptr().cast::<u64>().is_aligned() {
        return Decoded::Damaged("record is not aligned");
    }
    // Only a long key has its length behind the header; the shortest records, at the end of a segment, have nothing there.
    let has_long_key = u16::from_le_bytes([buffer[12], buffer[13]]) == LONG_KEY;
    if has_long_key && buffer.len() < HEADER_BYTES + 8 {
        return Decoded::Longer(HEADER_BYTES + 8);
    }
    // SAFETY: aligned, and long enough for the header and for the length of a long key. Nothing further is read before
    // the lengths in it have been checked against the buffer.
    let record = unsafe { RecordRef::new(buffer.as_ptr()) };
    if record.flags() & flag::FILLER != 0 {
        return Decoded::Damaged("no record at this place");
    }
    let layout = &record.layout;
    let fits = layout
        .key_len
        .checked_add(layout.value_len)
        .is_some_and(|body| body <= longest);
    if !fits || layout.record_bytes() > longest {
        return Decoded::Damaged("record length is out of range");
    }
    if layout.record_bytes() - layout.slack_bytes > buffer.len() {
        return Decoded::Longer(layout.record_bytes() - layout.slack_bytes);
    }
    let stored = u32::from_le_bytes([buffer[8], buffer[9], buffer[10], buffer[11]]);
    if record.crc() != stored {
        return Decoded::Damaged("record CRC mismatch");
    }
    Decoded::Record(record)
}

/// Gives the record at the start of `bytes` the CRC that the rest asks for, if there is a whole record: for tests with records
/// whose fields say what they should not.
#[cfg(any(test, fuzzing))]
pub(crate) fn reseal(bytes: &mut [u8]) {
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|word| u64::from_ne_bytes(*word.first_chunk().expect("8 bytes")))
        .collect();
    // SAFETY: plain integers as bytes, as many as there are.
    let copy = unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 8) };
    if matches!(
        decode(copy, copy.len()),
        Decoded::Damaged("record CRC mismatch")
    ) {
        // SAFETY: all but the CRC is sound, so a whole record lies in the copy, which is aligned and ours alone.
        let crc = unsafe { RecordRef::new(copy.as_ptr()) }.crc();
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(bytes: usize) -> Vec<u64> {
        vec![0; bytes.div_ceil(8)]
    }

    fn as_bytes(words: &[u64]) -> &[u8] {
        // SAFETY: plain integers as bytes.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 8) }
    }

    fn sealed(draft: &Draft<'_>) -> Vec<u64> {
        let mut words = aligned(draft.record_bytes().max(64));
        // SAFETY: the buffer is large enough and ours alone.
        unsafe {
            draft.write(words.as_mut_ptr().cast());
            RecordRef::new(words.as_ptr().cast()).seal();
        }
        words
    }

    fn draft<'a>(key: &'a [u8], value: &'a [u8], expires_at_ms: Option<u64>) -> Draft<'a> {
        let meta = Meta {
            kind: 3,
            expires_at_ms,
        };
        Draft {
            namespace: Namespace(9),
            key,
            value,
            meta,
            flags: 0,
            slack_bytes: 24,
        }
    }

    #[test]
    fn a_record_decodes_to_what_was_written() {
        let long_key = vec![7u8; 70_000];
        for (key, value, expiry) in [
            (&b""[..], &b""[..], None),
            (b"key", b"value", Some(5)),
            (&long_key, b"v", Some(u64::MAX - 1)),
        ] {
            let words = sealed(&draft(key, value, expiry));
            let Decoded::Record(record) = decode(as_bytes(&words), 1 << 20) else {
                panic!("not decoded")
            };
            assert!(record.is(Namespace(9), key) && !record.is(Namespace(8), key));
            assert_eq!(
                (record.value(), record.meta()),
                (
                    value,
                    Meta {
                        kind: 3,
                        expires_at_ms: expiry
                    }
                )
            );
            assert_eq!(
                record.record_bytes(),
                draft(key, value, expiry).record_bytes()
            );
        }
    }

    /// CRC32C from its definition (reflected polynomial 0x82f63b78), independent of the crate.
    fn crc32c_bit_by_bit<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
        !bytes.fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
            })
        })
    }

    #[test]
    fn the_format_is_this_to_the_byte() {
        let words = sealed(&Draft {
            slack_bytes: 8,
            ..draft(b"k", b"value", Some(0x0102))
        });
        let head = [5, 0, 0, 0, 1, 0, 1, 3];
        let rest = [
            1, 0, 9, 0, 2, 1, 0, 0, 0, 0, 0, 0, b'k', b'v', b'a', b'l', b'u', b'e',
        ];
        let crc = crc32c_bit_by_bit(head.iter().chain(&rest));
        let unused = [0; 2 + 8];
        let expected = [&head[..], &crc.to_le_bytes(), &rest, &unused].concat();
        assert_eq!(as_bytes(&words)[..expected.len()], expected);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let words = sealed(&draft(b"key", b"some value", Some(77)));
        let used = draft(b"key", b"some value", Some(77)).record_bytes() - 24 - 3;
        for bit in 0..used * 8 {
            let mut damaged = words.clone();
            damaged[bit / 64] ^= 1 << (bit % 64);
            assert!(
                !matches!(decode(as_bytes(&damaged), 1 << 20), Decoded::Record(_)),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_buffer_of_any_length_is_decoded_or_asks_for_more() {
        let long_key = vec![7u8; 70_000];
        for (key, value) in [(&b""[..], &b""[..]), (b"12345678", b""), (&long_key, b"v")] {
            let draft = Draft {
                slack_bytes: 0,
                ..draft(key, value, None)
            };
            let words = sealed(&draft);
            let whole = &as_bytes(&words)[..draft.record_bytes()];
            for len in (0..whole.len())
                .rev()
                .take(64)
                .chain(0..whole.len().min(64))
            {
                match decode(&whole[..len], whole.len()) {
                    Decoded::Longer(need) => assert!(len < need && need <= whole.len()),
                    Decoded::Record(record) => assert!(record.value_at() + value.len() <= len),
                    Decoded::Damaged(why) => panic!("{len} of {}: {why}", whole.len()),
                }
            }
            assert!(matches!(decode(whole, whole.len()), Decoded::Record(_)));
        }
    }

    #[test]
    fn fillers_of_every_length_are_skipped_without_reading_behind_them() {
        for bytes in (8..200).step_by(8) {
            // Exactly as long as the filler, so that a checker of memory accesses sees a read past it.
            let mut words = vec![u64::MAX; bytes / 8];
            // SAFETY: the buffer is as long as the filler.
            let found = unsafe {
                write_filler(words.as_mut_ptr().cast(), bytes);
                filler_bytes(words.as_ptr().cast())
            };
            assert_eq!(found, Some(bytes));
        }
        // SAFETY: a whole record.
        let found = unsafe { filler_bytes(sealed(&draft(b"k", b"v", None)).as_ptr().cast()) };
        assert_eq!(found, None);
    }
}
