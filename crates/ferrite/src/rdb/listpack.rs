//! Listpacks: elements one behind the other, each an integer or a string, in one piece of memory of Redis.
//!
//! In front stand the length of all in bytes, u32, and the number of elements, u16, which is 65535 where it does not fit;
//! at the end a byte of ones. The first bits of an element tell what it is; behind it stands its length, 7 bits a byte, so
//! that it can be read from its end.

use std::borrow::Cow;

use resp::parse_integer;

use super::Error;

const HEADER_BYTES: usize = 6;
const END: u8 = 0xff;
/// The number of elements that says that it is not known.
const UNKNOWN: u16 = u16::MAX;

/// An element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry<'a> {
    Bytes(&'a [u8]),
    Integer(i64),
}

impl<'a> Entry<'a> {
    /// The element as a string.
    pub(super) fn text(self) -> Cow<'a, [u8]> {
        match self {
            Entry::Bytes(bytes) => Cow::Borrowed(bytes),
            Entry::Integer(number) => Cow::Owned(number.to_string().into_bytes()),
        }
    }

    /// The element as an integer, if it is one, however it lies there.
    pub(super) fn integer(self) -> Result<i64, Error> {
        match self {
            Entry::Integer(number) => Ok(number),
            Entry::Bytes(bytes) => parse_integer(bytes).ok_or(Error::Malformed),
        }
    }
}

/// A listpack that is being read.
pub(super) struct Listpack<'a> {
    rest: &'a [u8],
    announced: u16,
    read: usize,
}

impl<'a> Listpack<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Listpack<'a>, Error> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Error::Malformed)?;
        let [a, b, c, d, e, f] = *header;
        if u32::from_le_bytes([a, b, c, d]) as usize != bytes.len() {
            return Err(Error::Malformed);
        }
        Ok(Listpack {
            rest,
            announced: u16::from_le_bytes([e, f]),
            read: 0,
        })
    }

    /// The next element; `None` behind the last, where everything has been checked.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'a>>, Error> {
        if let [END, behind @ ..] = self.rest {
            let is_right = self.announced == UNKNOWN || usize::from(self.announced) == self.read;
            return match behind {
                [] if is_right => Ok(None),
                _ => Err(Error::Malformed),
            };
        }
        let (entry, len) = decode(self.rest).ok_or(Error::Malformed)?;
        let (behind, behind_len) = length_behind(len);
        let rest = self.rest[len..].strip_prefix(&behind[..behind_len]);
        self.rest = rest.ok_or(Error::Malformed)?;
        self.read += 1;
        Ok(Some(entry))
    }

    /// As [`Self::next`], where there must be one.
    pub(super) fn required(&mut self) -> Result<Entry<'a>, Error> {
        self.next()?.ok_or(Error::Malformed)
    }

    /// The next element, which is an integer.
    pub(super) fn integer(&mut self) -> Result<i64, Error> {
        self.required()?.integer()
    }
}

/// The element that `bytes` begin with, and its length without what stands behind it.
fn decode(bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let string = |header: usize, len: usize| {
        let string = bytes.get(header..header.checked_add(len)?)?;
        Some((Entry::Bytes(string), header + len))
    };
    // The highest byte of what is shorter than an integer of ours is repeated above it.
    let integer = |len: usize| {
        let mut wide = [0; 8];
        wide[8 - len..].copy_from_slice(rest.get(..len)?);
        let number = i64::from_le_bytes(wide) >> (64 - 8 * len);
        Some((Entry::Integer(number), 1 + len))
    };
    match first {
        0x00..=0x7f => Some((Entry::Integer(i64::from(first)), 1)),
        0x80..=0xbf => string(1, usize::from(first & 0x3f)),
        0xc0..=0xdf => {
            let number = i16::from_be_bytes([first & 0x1f, *rest.first()?]);
            Some((Entry::Integer(i64::from(number << 3 >> 3)), 2))
        }
        0xe0..=0xef => string(
            2,
            usize::from(first & 0x0f) << 8 | usize::from(*rest.first()?),
        ),
        0xf0 => string(5, u32::from_le_bytes(*rest.first_chunk()?) as usize),
        0xf1 => integer(2),
        0xf2 => integer(3),
        0xf3 => integer(4),
        0xf4 => integer(8),
        0xf5.. => None,
    }
}

/// What stands behind an element of `len` bytes: so many of these bytes.
fn length_behind(len: usize) -> ([u8; 5], usize) {
    let count = match len {
        0..128 => 1,
        128..16383 => 2,
        16383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    let mut bytes = [0; 5];
    for (at, byte) in bytes[..count].iter_mut().enumerate() {
        let bits = (len >> (7 * (count - 1 - at)) & 0x7f) as u8;
        *byte = if at == 0 { bits } else { bits | 0x80 };
    }
    (bytes, count)
}

/// A listpack that is being made.
pub(crate) struct Builder {
    bytes: Vec<u8>,
    count: usize,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            bytes: vec![0; HEADER_BYTES],
            count: 0,
        }
    }

    /// How many elements it has.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How long it is, bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + 1
    }

    /// Appends a string, which lies there as an integer if it is one.
    pub(crate) fn push(&mut self, string: &[u8]) {
        if let Some(number) = parse_integer(string) {
            return self.push_integer(number);
        }
        let start = self.bytes.len();
        let len = string.len();
        match len {
            0..64 => self.bytes.push(0x80 | len as u8),
            64..4096 => self.bytes.extend([0xe0 | (len >> 8) as u8, len as u8]),
            _ => {
                self.bytes.push(0xf0);
                self.bytes.extend((len as u32).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(string);
        self.end(start);
    }

    pub(crate) fn push_integer(&mut self, number: i64) {
        let start = self.bytes.len();
        let bytes = number.to_le_bytes();
        match number {
            0..=127 => self.bytes.push(number as u8),
            -4096..=4095 => self
                .bytes
                .extend([0xc0 | (number >> 8 & 0x1f) as u8, number as u8]),
            -0x8000..=0x7fff => self.put_integer(0xf1, &bytes[..2]),
            -0x80_0000..=0x7f_ffff => self.put_integer(0xf2, &bytes[..3]),
            -0x8000_0000..=0x7fff_ffff => self.put_integer(0xf3, &bytes[..4]),
            _ => self.put_integer(0xf4, &bytes),
        }
        self.end(start);
    }

    fn put_integer(&mut self, first: u8, bytes: &[u8]) {
        self.bytes.push(first);
        self.bytes.extend_from_slice(bytes);
    }

    fn end(&mut self, start: usize) {
        let (behind, len) = length_behind(self.bytes.len() - start);
        self.bytes.extend_from_slice(&behind[..len]);
        self.count += 1;
    }

    /// Appends the elements of another.
    pub(crate) fn append(&mut self, other: Builder) {
        self.bytes.extend_from_slice(&other.bytes[HEADER_BYTES..]);
        self.count += other.count;
    }

    /// The listpack.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let len = self.bytes.len() as u32;
        let count = u16::try_from(self.count).unwrap_or(UNKNOWN);
        self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        self.bytes[4..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut listpack = Listpack::open(bytes).ok()?;
        let mut entries = Vec::new();
        while let Some(entry) = listpack.next().ok()? {
            entries.push(entry.text().into_owned());
        }
        Some(entries)
    }

    #[test]
    fn what_is_built_is_read() {
        let mut expected = Vec::new();
        for shift in 0..63 {
            for number in [(1 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                expected.extend([number, -number].map(|number: i64| number.to_string()));
            }
        }
        expected.extend([i64::MIN, i64::MAX].map(|number| number.to_string()));
        for len in [
            0, 1, 63, 64, 126, 127, 128, 4095, 4096, 16_380, 70_000, 2_200_000,
        ] {
            expected.push("x".repeat(len));
        }
        let mut builder = Builder::new();
        expected
            .iter()
            .for_each(|text| builder.push(text.as_bytes()));
        assert_eq!(builder.count(), expected.len());
        let len = builder.len();
        let built = builder.finish();
        assert_eq!(built.len(), len);
        let expected: Vec<_> = expected.into_iter().map(String::into_bytes).collect();
        assert_eq!(read(&built), Some(expected));
    }

    #[test]
    fn listpacks_of_redis_are_read_and_built() {
        let redis = b"\x0f\0\0\0\x03\0\x81a\x02\x01\x01\xdf\xfb\x02\xff";
        assert_eq!(read(redis).unwrap(), [&b"a"[..], b"1", b"-5"]);
        let mut builder = Builder::new();
        [&b"a"[..], b"1", b"-5"]
            .iter()
            .for_each(|text| builder.push(text));
        assert_eq!(builder.finish(), redis);
        assert_eq!(Builder::new().finish(), b"\x07\0\0\0\0\0\xff");
    }

    #[test]
    fn what_is_cut_or_changed_is_not_read() {
        let redis = b"\x0f\0\0\0\x03\0\x81a\x02\x01\x01\xdf\xfb\x02\xff";
        for len in 0..redis.len() {
            assert_eq!(read(&redis[..len]), None, "{len}");
        }
        for (at, byte) in [
            (0, 0x10),
            (4, 2),
            (6, 0x82),
            (8, 1),
            (9, 0xff),
            (11, 0xf5),
            (14, 0),
        ] {
            let mut changed = redis.to_vec();
            changed[at] = byte;
            assert_eq!(read(&changed), None, "{at}");
        }
    }
}
