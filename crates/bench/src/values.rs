//! Values that prove themselves: each is a pure function of its key and version.
//!
//! A value starts with a header of 16 bytes, little-endian: key index u64, version u32, length
//! u32. The rest is a stream of pseudo-random words seeded by key and version. A reader that knows
//! the key it asked for can therefore check every byte, without knowing who wrote it or when, and
//! learns the version. A value shorter than the header is the header cut short: it can be written
//! but not checked.

use std::str::FromStr;

use crate::random::mix64;

/// The shortest value that can be checked.
pub(crate) const CHECKABLE_BYTES: usize = 16;

/// The longest value a RESP server takes.
const MAX_BYTES: usize = 512 << 20;

/// How long values are: all of one length, or spread evenly over a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueSizes {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

impl ValueSizes {
    /// The length in bytes of version `version` of key `key`.
    #[inline]
    pub(crate) fn of(self, key: u64, version: u32) -> usize {
        if self.min == self.max {
            return self.min;
        }
        let spread = (self.max - self.min + 1) as u64;
        self.min + (stream_seed(key, version) % spread) as usize
    }
}

impl FromStr for ValueSizes {
    type Err = String;

    /// `N`, or `MIN-MAX`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        let number = |digits: &str| digits.trim().parse::<usize>().ok();
        match (number(min), number(max)) {
            (Some(min), Some(max)) if min <= max && max <= MAX_BYTES => Ok(ValueSizes { min, max }),
            _ => Err(format!(
                "expected N or MIN-MAX, in bytes, up to {MAX_BYTES}"
            )),
        }
    }
}

/// Appends the value of `bytes` bytes of version `version` of key `key` to `out`.
pub(crate) fn append(out: &mut Vec<u8>, key: u64, version: u32, bytes: usize) {
    let end = out.len() + bytes;
    out.reserve(bytes + CHECKABLE_BYTES);
    out.extend_from_slice(&header(key, version, bytes));
    let seed = stream_seed(key, version);
    for n in 0..bytes.saturating_sub(CHECKABLE_BYTES).div_ceil(8) as u64 {
        out.extend_from_slice(&stream_word(seed, n));
    }
    out.truncate(end);
}

/// The version of `value` if it is, to the byte, a value of key `key`.
pub(crate) fn check(value: &[u8], key: u64) -> Option<u32> {
    let (head, stream) = value.split_at_checked(CHECKABLE_BYTES)?;
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if head != header(key, version, value.len()) {
        return None;
    }
    let seed = stream_seed(key, version);
    let mut words = stream.chunks_exact(8);
    let mut n = 0;
    for word in words.by_ref() {
        if word != stream_word(seed, n) {
            return None;
        }
        n += 1;
    }
    let rest = words.remainder();
    (rest == &stream_word(seed, n)[..rest.len()]).then_some(version)
}

fn header(key: u64, version: u32, bytes: usize) -> [u8; CHECKABLE_BYTES] {
    let mut header = [0; CHECKABLE_BYTES];
    header[..8].copy_from_slice(&key.to_le_bytes());
    header[8..12].copy_from_slice(&version.to_le_bytes());
    header[12..].copy_from_slice(&(bytes as u32).to_le_bytes());
    header
}

fn stream_seed(key: u64, version: u32) -> u64 {
    mix64(key.wrapping_add(mix64(u64::from(version) + 1)))
}

/// Word `n` of a stream. Words do not depend on each other, so that the processor makes several at
/// a time: values are made as fast as memory is written.
#[inline]
fn stream_word(seed: u64, n: u64) -> [u8; 8] {
    mix64(seed ^ (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_recognised_and_names_its_version() {
        for bytes in [16, 17, 23, 24, 25, 100, 4_096] {
            let mut value = Vec::new();
            append(&mut value, 42, 7, bytes);
            assert_eq!(value.len(), bytes);
            assert_eq!(check(&value, 42), Some(7));
            assert_eq!(check(&value, 43), None, "another key's value is wrong");
            assert_eq!(check(&value[..bytes - 1], 42), None, "a cut value is wrong");
        }
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        let mut value = Vec::new();
        append(&mut value, 1, 1, 61);
        for bit in 0..61 * 8 {
            value[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&value, 1), None, "bit {bit}");
            value[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn short_values_can_be_written() {
        for bytes in 0..CHECKABLE_BYTES {
            let mut value = vec![9];
            append(&mut value, 5, 5, bytes);
            assert_eq!(value.len(), bytes + 1);
            assert_eq!(check(&value[1..], 5), None);
        }
    }

    #[test]
    fn sizes_are_parsed_and_cover_their_range() {
        assert!("12-".parse::<ValueSizes>().is_err());
        assert!("9-8".parse::<ValueSizes>().is_err());
        assert!("536870913".parse::<ValueSizes>().is_err());
        let sizes: ValueSizes = "10-12".parse().unwrap();
        let mut seen = [0; 3];
        for key in 0..300 {
            seen[sizes.of(key, 1) - 10] += 1;
        }
        assert!(seen.iter().all(|&n| n > 60), "{seen:?}");
    }
}
