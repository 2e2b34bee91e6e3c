//! What older versions held many elements in, in one piece each: ziplists, zipmaps, and the integers of sets.

use super::listpack::{Entry, Listpack};
use super::{Error, Strings};
use crate::rdb::Ask;

const END: u8 = 0xff;
/// In front of a length of four bytes.
const LONG: u8 = 0xfe;

/// The elements of a listpack or a ziplist.
pub(super) enum Entries<'a> {
    Listpack(Listpack<'a>),
    Ziplist(Ziplist<'a>),
}

impl<'a> Entries<'a> {
    /// The next element; `None` behind the last, where everything has been checked.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'a>>, Error> {
        match self {
            Entries::Listpack(listpack) => listpack.next(),
            Entries::Ziplist(ziplist) => ziplist.next(),
        }
    }

    /// As [`Self::next`], where there must be one.
    pub(super) fn required(&mut self) -> Result<Entry<'a>, Error> {
        self.next()?.ok_or(Error::Malformed)
    }

    /// Appends all elements to `to`; how many.
    pub(super) fn append_to(mut self, to: &mut Strings, ask: &mut Ask<'_>) -> Result<usize, Error> {
        let before = to.len();
        while let Some(entry) = self.next()? {
            to.push(&entry.text(), ask)?;
        }
        Ok(to.len() - before)
    }
}

/// A ziplist that is being read: the length of all in bytes, u32, the offset of the last element, u32, how many there are,
/// u16, and the elements, each behind the length of the one before it; at the end a byte of ones.
pub(super) struct Ziplist<'a> {
    bytes: &'a [u8],
    at: usize,
    last_at: usize,
    announced: u16,
    read: usize,
    /// The length of the element before, bytes.
    before: usize,
}

impl<'a> Ziplist<'a> {
    const HEADER_BYTES: usize = 10;

    pub(super) fn open(bytes: &'a [u8]) -> Result<Ziplist<'a>, Error> {
        let header = bytes.first_chunk::<{ Ziplist::HEADER_BYTES }>();
        let [a, b, c, d, e, f, g, h, i, j] = *header.ok_or(Error::Malformed)?;
        if u32::from_le_bytes([a, b, c, d]) as usize != bytes.len() {
            return Err(Error::Malformed);
        }
        Ok(Ziplist {
            bytes,
            at: Ziplist::HEADER_BYTES,
            last_at: u32::from_le_bytes([e, f, g, h]) as usize,
            announced: u16::from_le_bytes([i, j]),
            read: 0,
            before: 0,
        })
    }

    fn next(&mut self) -> Result<Option<Entry<'a>>, Error> {
        let rest = &self.bytes[self.at..];
        if let [END, behind @ ..] = rest {
            let counts = self.announced == u16::MAX || usize::from(self.announced) == self.read;
            let ends = self.read == 0 || self.at - self.before == self.last_at;
            return match behind {
                [] if counts && ends => Ok(None),
                _ => Err(Error::Malformed),
            };
        }
        let (entry, len) = self.decode(rest).ok_or(Error::Malformed)?;
        (self.at, self.before) = (self.at + len, len);
        self.read += 1;
        Ok(Some(entry))
    }

    /// The element that `bytes` begin with, and its length; `None` if it is none or does not fit the one before.
    fn decode(&self, bytes: &'a [u8]) -> Option<(Entry<'a>, usize)> {
        let (before, header) = match *bytes.first()? {
            LONG => (u32::from_le_bytes(*bytes[1..].first_chunk()?) as usize, 5),
            short => (usize::from(short), 1),
        };
        if before != self.before {
            return None;
        }
        let (&first, rest) = bytes.get(header..)?.split_first()?;
        let string = |more: usize, len: usize| {
            let start = header + 1 + more;
            let string = bytes.get(start..start.checked_add(len)?)?;
            Some((Entry::Bytes(string), start + len))
        };
        let integer = |len: usize| {
            let mut wide = [0; 8];
            wide[8 - len..].copy_from_slice(rest.get(..len)?);
            let number = i64::from_le_bytes(wide) >> (64 - 8 * len);
            Some((Entry::Integer(number), header + 1 + len))
        };
        match first {
            0x00..=0x3f => string(0, usize::from(first)),
            0x40..=0x7f => string(
                1,
                usize::from(first & 0x3f) << 8 | usize::from(*rest.first()?),
            ),
            0x80 => string(4, u32::from_be_bytes(*rest.first_chunk()?) as usize),
            0xc0 => integer(2),
            0xd0 => integer(4),
            0xe0 => integer(8),
            0xf0 => integer(3),
            0xfe => integer(1),
            0xf1..=0xfd => Some((Entry::Integer(i64::from(first) - 0xf1), header + 1)),
            _ => None,
        }
    }
}

/// Appends the fields and values of a zipmap to `to`: how many fields there are, a byte that says nothing from 254 on; then
/// each field and value behind its length, between which a byte says how many bytes behind the value are unused.
pub(super) fn read_zipmap(bytes: &[u8], to: &mut Strings, ask: &mut Ask<'_>) -> Result<(), Error> {
    let (&announced, mut rest) = bytes.split_first().ok_or(Error::Malformed)?;
    let mut read = 0;
    loop {
        if let [END, behind @ ..] = rest {
            let is_right = announced >= LONG || usize::from(announced) == read;
            return match behind {
                [] if is_right => Ok(()),
                _ => Err(Error::Malformed),
            };
        }
        let len = zipmap_length(&mut rest).ok_or(Error::Malformed)?;
        let (field, behind) = rest.split_at_checked(len).ok_or(Error::Malformed)?;
        rest = behind;
        let len = zipmap_length(&mut rest).ok_or(Error::Malformed)?;
        let (&unused, behind) = rest.split_first().ok_or(Error::Malformed)?;
        let (value, behind) = behind.split_at_checked(len).ok_or(Error::Malformed)?;
        rest = behind.get(usize::from(unused)..).ok_or(Error::Malformed)?;
        to.push(field, ask)?;
        to.push(value, ask)?;
        read += 1;
    }
}

fn zipmap_length(rest: &mut &[u8]) -> Option<usize> {
    let (&first, behind) = rest.split_first()?;
    *rest = behind;
    match first {
        END => None,
        LONG => {
            let (len, behind) = behind.split_first_chunk()?;
            *rest = behind;
            Some(u32::from_le_bytes(*len) as usize)
        }
        len => Some(usize::from(len)),
    }
}

/// Appends the integers of a set to `to`: how many bytes each has, u32, how many there are, u32, and they themselves, in
/// ascending order.
pub(super) fn read_intset(bytes: &[u8], to: &mut Strings, ask: &mut Ask<'_>) -> Result<(), Error> {
    let (header, body) = bytes.split_first_chunk().ok_or(Error::Malformed)?;
    let [a, b, c, d, e, f, g, h] = *header;
    let each = match u32::from_le_bytes([a, b, c, d]) {
        each @ (2 | 4 | 8) => each as usize,
        _ => return Err(Error::Malformed),
    };
    let count = u32::from_le_bytes([e, f, g, h]) as usize;
    if count == 0 || count.checked_mul(each) != Some(body.len()) {
        return Err(Error::Malformed);
    }
    let mut last = None;
    for bytes in body.chunks_exact(each) {
        let mut wide = [0; 8];
        wide[8 - each..].copy_from_slice(bytes);
        let number = i64::from_le_bytes(wide) >> (64 - 8 * each);
        if last.is_some_and(|last| last >= number) {
            return Err(Error::Malformed);
        }
        last = Some(number);
        to.push(number.to_string().as_bytes(), ask)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = fn(&[u8], &mut Strings) -> Result<(), Error>;

    fn ziplist(bytes: &[u8], to: &mut Strings) -> Result<(), Error> {
        Entries::Ziplist(Ziplist::open(bytes)?)
            .append_to(to, &mut |_| Ok(()))
            .map(drop)
    }

    fn zipmap(bytes: &[u8], to: &mut Strings) -> Result<(), Error> {
        read_zipmap(bytes, to, &mut |_| Ok(()))
    }

    fn intset(bytes: &[u8], to: &mut Strings) -> Result<(), Error> {
        read_intset(bytes, to, &mut |_| Ok(()))
    }

    fn read(how: Read, bytes: &[u8]) -> Option<Vec<String>> {
        let mut strings = Strings::default();
        how(bytes, &mut strings).ok()?;
        let texts = strings.iter().map(|text| String::from_utf8_lossy(text));
        Some(texts.map(std::borrow::Cow::into_owned).collect())
    }

    const ZIPLIST: &[u8] = b"\x1d\0\0\0\x17\0\0\0\x05\0\x00\x02ab\x04\xc0\x00\x80\x04\xfe\xff\x03\xf3\x02\xf0\x00\x00\x80\xff";
    const ZIPMAP: &[u8] = b"\x02\x01a\x02\x00bc\x01d\x01\x03e...\xff";
    const INTSET: &[u8] = b"\x02\0\0\0\x03\0\0\0\x00\x80\xff\xff\x05\x00";

    #[test]
    fn what_older_versions_wrote_is_read() {
        let expected = ["ab", "-32768", "-1", "2", "-8388608"];
        assert_eq!(read(ziplist, ZIPLIST).unwrap(), expected);
        assert_eq!(read(zipmap, ZIPMAP).unwrap(), ["a", "bc", "d", "e"]);
        assert_eq!(read(intset, INTSET).unwrap(), ["-32768", "-1", "5"]);
    }

    #[test]
    fn what_is_cut_or_changed_is_not_read() {
        for (how, whole) in [
            (ziplist as Read, ZIPLIST),
            (zipmap, ZIPMAP),
            (intset, INTSET),
        ] {
            for len in 0..whole.len() {
                assert_eq!(read(how, &whole[..len]), None, "{len} of {whole:?}");
            }
            assert_eq!(read(how, &[whole, b"\xff"].concat()), None);
        }
        for at in [0, 4, 8, 10, 14, 18] {
            let mut changed = ZIPLIST.to_vec();
            changed[at] ^= 1;
            assert_eq!(read(ziplist, &changed), None, "{at}");
        }
        assert_eq!(read(intset, b"\x03\0\0\0\x01\0\0\0\0\0\0"), None);
        assert_eq!(read(intset, b"\x02\0\0\0\x02\0\0\0\x05\0\x05\0"), None);
        assert_eq!(read(intset, b"\x02\0\0\0\0\0\0\0"), None);
    }
}
