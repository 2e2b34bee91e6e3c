//! Changing a record in place, and copying its value while that may happen.
//!
//! A value changes under the exclusive latch of its key. Who holds the latch in either mode sees no change and borrows the
//! value; [`RecordRef::copy_value`] is for who holds none. Its copy may be a mixture of what was there before and after,
//! which the caller finds out (see `unlatched`). What must hold here is that a copy may be made at any time:
//!
//! * It stays inside the record. Where the value begins, and how much room it has there, never changes, and every first word
//!   that a record ever has holds a length within that room.
//! * It is no data race. Both sides access the value through relaxed atomics of the same size at the same place: single
//!   bytes up to the first multiple of 8, words from there to the end of the record.
//! * Values with more room than [`COPY_MAX_BYTES`] are excepted on both sides: they are changed through plain copies, which
//!   are faster for long values, and not copied without the latch.

use super::{NO_EXPIRY, RecordRef, flag, word0};
use crate::address::RECORD_ALIGN;
use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Beyond so much room a latch costs less than copying by words.
pub(super) const COPY_MAX_BYTES: usize = 1024;

const WORD_BYTES: usize = size_of::<u64>();

static ZEROES: [u8; COPY_MAX_BYTES] = [0; COPY_MAX_BYTES];

/// Copies one word.
///
/// # Safety
/// `from` is aligned and readable, `to` writable.
#[inline(always)]
unsafe fn copy_word(from: *const AtomicU64, to: *mut u64) {
    // SAFETY: by contract.
    unsafe { to.write_unaligned((*from).load(Ordering::Relaxed)) };
}

impl RecordRef<'_> {
    /// Appends the value to `buffer`, or what it is found to be while somebody changes it. `false`, and nothing is appended,
    /// if it has too much room for that.
    #[inline(always)]
    pub(crate) fn copy_value(&self, buffer: &mut Vec<u8>) -> bool {
        if self.value_capacity() > COPY_MAX_BYTES {
            return false;
        }
        let (value_at, len) = (self.value_at(), self.layout.value_len);
        let in_bytes = (self.first_word_at() - value_at).min(len);
        let start = buffer.len();
        // The last word is stored whole.
        buffer.reserve(len + WORD_BYTES);
        // SAFETY: all loads are from the value and the rest of its last word, which are in the record; words are aligned, as
        // the record is. Stores go to the reserved bytes: `in_bytes` of them, then whole words, of which the last begins
        // before `len`. Then `len` bytes of `buffer` more are initialised.
        unsafe {
            let mut from = self.base.add(value_at);
            let mut to = buffer.as_mut_ptr().add(start);
            for _ in 0..in_bytes {
                *to = (*from.cast::<AtomicU8>()).load(Ordering::Relaxed);
                (from, to) = (from.add(1), to.add(1));
            }
            let words = (len - in_bytes).div_ceil(WORD_BYTES);
            let (from, to) = (from.cast::<AtomicU64>(), to.cast::<u64>());
            let mut at = 0;
            // Four at a time, which halves the number of instructions.
            while at + 4 <= words {
                copy_word(from.add(at), to.add(at));
                copy_word(from.add(at + 1), to.add(at + 1));
                copy_word(from.add(at + 2), to.add(at + 2));
                copy_word(from.add(at + 3), to.add(at + 3));
                at += 4;
            }
            while at < words {
                copy_word(from.add(at), to.add(at));
                at += 1;
            }
            buffer.set_len(start + len);
        }
        true
    }

    /// From where on the value is accessed by words.
    #[inline]
    fn first_word_at(&self) -> usize {
        self.value_at().next_multiple_of(WORD_BYTES)
    }

    /// Changes the value in place: `bytes` at `offset`, the value then being `value_len` long.
    ///
    /// # Safety
    /// The caller holds the exclusive latch of the key; the record is in the mutable region of the caller's generation;
    /// `offset + bytes.len() <= value_len <= value_capacity()`; every byte of the new value up to `value_len` that `bytes`
    /// does not cover was part of the old value or is slack, which is zero; no slice of the value is alive.
    pub(crate) unsafe fn write_in_place(
        &self,
        offset: usize,
        bytes: &[u8],
        value_len: usize,
        kind: u8,
    ) {
        let value_at = self.value_at();
        let end = (value_at + value_len).next_multiple_of(RECORD_ALIGN);
        let slack_units = (self.record_bytes() - end) / RECORD_ALIGN;
        let word0 = word0(
            value_len as u32,
            slack_units as u16,
            self.layout.flags,
            kind,
        );
        // What the value no longer covers becomes slack, and slack is zero.
        let unused = self.layout.value_len.saturating_sub(value_len);
        // SAFETY: within the value's room by contract; the latch excludes other writers, and readers but for `copy_value`.
        unsafe {
            if self.value_capacity() <= COPY_MAX_BYTES {
                self.store(value_at + offset, bytes);
                self.store(value_at + value_len, &ZEROES[..unused]);
            } else {
                let value = self.base.cast_mut().add(value_at);
                value
                    .add(offset)
                    .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                value.add(value_len).write_bytes(0, unused);
            }
            (*self.base.cast::<AtomicU64>()).store(word0.to_le(), Ordering::Release);
        }
    }

    /// Replaces `removed` bytes of the value at `offset` by `inserted`.
    ///
    /// # Safety
    /// As [`Self::write_in_place`], of the length that the value has afterwards; the record is a page or the root of a
    /// collection, which nobody copies without the latch.
    pub(crate) unsafe fn splice_in_place(
        &mut self,
        offset: usize,
        removed: usize,
        inserted: &[u8],
    ) {
        let (value_at, old_len) = (self.value_at(), self.layout.value_len);
        let len = old_len + inserted.len() - removed;
        let kind = self.layout.kind;
        // SAFETY: what is moved ends within the value's room, as its new length is within it. Then `inserted` covers all of
        // the new value that is neither old nor slack: moved bytes are old ones.
        unsafe {
            if removed != inserted.len() {
                let from = self.base.cast_mut().add(value_at + offset + removed);
                let to = self.base.cast_mut().add(value_at + offset + inserted.len());
                to.copy_from(from, old_len - offset - removed);
            }
            self.write_in_place(offset, inserted, len, kind);
        }
        let room = self.value_capacity();
        self.layout.value_len = len;
        let end = (value_at + len).next_multiple_of(RECORD_ALIGN);
        self.layout.slack_bytes = value_at + room - end;
    }

    /// Stores `bytes` at `at` so that they may be copied at the same time.
    ///
    /// # Safety
    /// The bytes lie in the value's room, and nobody else stores there.
    unsafe fn store(&self, mut at: usize, mut bytes: &[u8]) {
        let byte = |at: usize| {
            // SAFETY: in the record, by contract.
            unsafe { &*self.base.add(at).cast::<AtomicU8>() }
        };
        let word = |at: usize| {
            // SAFETY: as above, aligned, and records are as long as whole words.
            unsafe { &*self.base.add(at).cast::<AtomicU64>() }
        };
        while at < self.first_word_at()
            && let Some((&first, rest)) = bytes.split_first()
        {
            byte(at).store(first, Ordering::Relaxed);
            (at, bytes) = (at + 1, rest);
        }
        while !bytes.is_empty() {
            let within = at % WORD_BYTES;
            let len = (WORD_BYTES - within).min(bytes.len());
            let (here, rest) = bytes.split_at(len);
            let word = word(at - within);
            // Nobody else stores, so what is around the bytes is still the same when it is stored again.
            let mut whole = word.load(Ordering::Relaxed).to_ne_bytes();
            whole[within..within + len].copy_from_slice(here);
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
            (at, bytes) = (at + len, rest);
        }
    }

    /// Changes the expiry in place; `false` if the record has no expiry field.
    ///
    /// # Safety
    /// As [`Self::write_in_place`].
    pub(crate) unsafe fn set_expiry_in_place(&self, expires_at_ms: Option<u64>) -> bool {
        if self.layout.flags & flag::EXPIRY == 0 {
            return expires_at_ms.is_none();
        }
        let field = expires_at_ms.unwrap_or(NO_EXPIRY).to_le();
        // SAFETY: flagged, so the field is there, aligned to 8.
        unsafe {
            (*self.base.add(self.layout.expiry_at).cast::<AtomicU64>())
                .store(field, Ordering::Relaxed);
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Draft;
    use crate::{Meta, Namespace};

    /// A record of its own, followed by a word that must stay as it is.
    fn record(key: &[u8], value: &[u8], slack_bytes: usize) -> Vec<u64> {
        let draft = Draft {
            namespace: Namespace(9),
            key,
            value,
            meta: Meta::default(),
            flags: 0,
            slack_bytes,
        };
        let mut words = vec![0; draft.record_bytes() / 8 + 1];
        // SAFETY: long enough and this test's alone.
        unsafe { draft.write(words.as_mut_ptr().cast()) };
        *words.last_mut().expect("a word") = u64::MAX;
        words
    }

    fn at(words: &[u64]) -> RecordRef<'_> {
        // SAFETY: begins with a record.
        unsafe { RecordRef::new(words.as_ptr().cast()) }
    }

    fn copy(record: &RecordRef<'_>) -> Vec<u8> {
        let mut copy = b"in front".to_vec();
        assert!(record.copy_value(&mut copy));
        copy.split_off(8)
    }

    #[test]
    fn a_value_changes_in_place_within_its_slack() {
        let words = record(b"key", b"0123456789", 24);
        assert_eq!(at(&words).value_capacity(), 37);
        // SAFETY: the record is this test's alone.
        unsafe { at(&words).write_in_place(0, b"ab", 2, 3) };
        assert_eq!(at(&words).value(), b"ab");
        assert_eq!(at(&words).value_capacity(), 37);
        // SAFETY: as above; what is between was slack.
        unsafe { at(&words).write_in_place(10, b"z", 11, 4) };
        assert_eq!(at(&words).value(), b"ab\0\0\0\0\0\0\0\0z");
        assert_eq!(at(&words).meta().kind, 4);
    }

    /// Keys of all lengths modulo 8, so that values begin anywhere in a word; changes of all offsets and lengths.
    #[test]
    fn every_change_does_what_it_does_to_a_vector() {
        for key_len in 0..8 {
            let words = record(&b"keykeyke"[..key_len], b"0123456789abcdef", 16);
            let mut model = b"0123456789abcdef".to_vec();
            let room = at(&words).value_capacity();
            for step in 0..2000 {
                let offset = step * 7 % (model.len() + 1);
                let new = [step as u8; 40];
                let new = &new[..step * 11 % (room - offset + 1)];
                let len = match step % 3 {
                    0 => offset + new.len(),
                    _ => model.len().max(offset + new.len()),
                };
                model.resize(len, 0);
                model[offset..offset + new.len()].copy_from_slice(new);
                // SAFETY: this test's alone; what `new` does not cover is the old value's or was slack.
                unsafe { at(&words).write_in_place(offset, new, len, 0) };
                let record = at(&words);
                assert_eq!(record.value(), model, "key of {key_len}, step {step}");
                assert_eq!(copy(&record), model, "key of {key_len}, step {step}");
                assert_eq!(
                    (record.value_capacity(), record.key().len()),
                    (room, key_len)
                );
                let slack = record.slice(record.value_at() + len, room - len);
                assert!(slack.iter().all(|&byte| byte == 0));
            }
            assert_eq!(words.last(), Some(&u64::MAX));
        }
    }

    #[test]
    fn a_value_with_much_room_is_not_copied() {
        let words = record(b"key", &[1; COPY_MAX_BYTES], 8);
        assert!(!at(&words).copy_value(&mut Vec::new()));
        // SAFETY: this test's alone.
        unsafe { at(&words).write_in_place(0, b"x", 1, 0) };
        assert_eq!(at(&words).value(), b"x");
        assert!(
            !at(&words).copy_value(&mut Vec::new()),
            "it has as much room"
        );
        let words = record(b"12345678", &[1; COPY_MAX_BYTES], 0);
        assert_eq!(copy(&at(&words)), [1; COPY_MAX_BYTES]);
    }
}
