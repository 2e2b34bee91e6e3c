//! Lengths, numbers and strings as they follow each other in a value.

use std::borrow::Cow;

use super::{Ask, Error, lzf};

/// What is left of a value to be read.
pub(super) struct Reader<'p> {
    rest: &'p [u8],
}

/// A length, or what stands in place of a string's.
enum Length {
    Of(u64),
    /// The string is a number, or compressed.
    Special(u8),
}

const INTEGER_8: u8 = 0;
const INTEGER_16: u8 = 1;
const INTEGER_32: u8 = 2;
const COMPRESSED: u8 = 3;

impl<'p> Reader<'p> {
    pub(super) fn new(bytes: &'p [u8]) -> Reader<'p> {
        Reader { rest: bytes }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, len: u64) -> Result<&'p [u8], Error> {
        let len = usize::try_from(len).map_err(|_| Error::Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Error::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Error::Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A time of eight bytes, Unix milliseconds.
    pub(super) fn milliseconds(&mut self) -> Result<i64, Error> {
        self.array().map(i64::from_le_bytes)
    }

    /// A length, which may be any number.
    pub(super) fn length(&mut self) -> Result<u64, Error> {
        match self.length_or_special()? {
            Length::Of(length) => Ok(length),
            Length::Special(_) => Err(Error::Malformed),
        }
    }

    /// How many of something follow, of which each takes a byte at least.
    pub(super) fn count(&mut self) -> Result<usize, Error> {
        let count = self.length()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(Error::Malformed),
        }
    }

    /// As [`Self::count`], of the elements of a value, which has one at least.
    pub(super) fn elements(&mut self) -> Result<usize, Error> {
        match self.count()? {
            0 => Err(Error::Malformed),
            count => Ok(count),
        }
    }

    fn length_or_special(&mut self) -> Result<Length, Error> {
        let first = self.byte()?;
        Ok(match first {
            0x00..=0x3f => Length::Of(u64::from(first)),
            0x40..=0x7f => Length::Of(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            0x80 => Length::Of(u64::from(u32::from_be_bytes(self.array()?))),
            0x81 => Length::Of(u64::from_be_bytes(self.array()?)),
            0x82..=0xbf => return Err(Error::Malformed),
            0xc0.. => Length::Special(first & 0x3f),
        })
    }

    /// A string; without a copy if it lies there as it is.
    pub(super) fn string(&mut self, ask: &mut Ask<'_>) -> Result<Cow<'p, [u8]>, Error> {
        let number = match self.length_or_special()? {
            Length::Of(len) => return self.take(len).map(Cow::Borrowed),
            Length::Special(INTEGER_8) => i64::from(i8::from_le_bytes(self.array()?)),
            Length::Special(INTEGER_16) => i64::from(i16::from_le_bytes(self.array()?)),
            Length::Special(INTEGER_32) => i64::from(i32::from_le_bytes(self.array()?)),
            Length::Special(COMPRESSED) => return self.compressed(ask).map(Cow::Owned),
            Length::Special(_) => return Err(Error::Malformed),
        };
        Ok(Cow::Owned(number.to_string().into_bytes()))
    }

    fn compressed(&mut self, ask: &mut Ask<'_>) -> Result<Vec<u8>, Error> {
        let (compressed, len) = (self.length()?, self.length()?);
        let input = self.take(compressed)?;
        if !lzf::may_hold(input.len(), len) {
            return Err(Error::Malformed);
        }
        ask(len)?;
        lzf::decompress(input, len as usize).ok_or(Error::Malformed)
    }

    /// A double of eight bytes.
    pub(super) fn double(&mut self) -> Result<f64, Error> {
        self.array().map(f64::from_le_bytes)
    }

    /// A double as text behind its length, which for some has a meaning of its own.
    pub(super) fn text_double(&mut self) -> Result<f64, Error> {
        match self.byte()? {
            255 => Ok(f64::NEG_INFINITY),
            254 => Ok(f64::INFINITY),
            253 => Ok(f64::NAN),
            len => parse_double(self.take(u64::from(len))?),
        }
    }
}

/// A double as text. It may be no number.
pub(super) fn parse_double(text: &[u8]) -> Result<f64, Error> {
    let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or(Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut reader = Reader::new(bytes);
        let read = reader.string(&mut |_| Ok(())).ok()?.into_owned();
        reader.is_at_end().then_some(read)
    }

    #[test]
    fn strings_have_several_forms() {
        assert_eq!(string(b"\x02ab").unwrap(), b"ab");
        assert_eq!(string(b"\x40\x02ab").unwrap(), b"ab");
        assert_eq!(string(b"\x80\0\0\0\x02ab").unwrap(), b"ab");
        assert_eq!(string(b"\x81\0\0\0\0\0\0\0\x02ab").unwrap(), b"ab");
        assert_eq!(string(b"\xc0\xff").unwrap(), b"-1");
        assert_eq!(string(b"\xc1\x00\x80").unwrap(), b"-32768");
        assert_eq!(string(b"\xc2\xff\xff\xff\x7f").unwrap(), b"2147483647");
        assert_eq!(string(b"\xc3\x06\x06\x02abc\x20\x02").unwrap(), b"abcabc");
    }

    #[test]
    fn no_length_is_believed() {
        for wrong in [
            &b""[..],
            b"\x03ab",
            b"\x80\xff\xff\xff\xffab",
            b"\x81\xff\xff\xff\xff\xff\xff\xff\xffab",
            b"\x82ab",
            b"\xc4ab",
            b"\xc2ab",
            b"\xc3\x01\x81\xff\xff\xff\xff\xff\xff\xff\xff\x00",
            b"\xc3\x81\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
        ] {
            assert_eq!(string(wrong), None, "{wrong:?}");
        }
        assert!(Reader::new(b"\x80\xff\xff\xff\xffab").count().is_err());
        assert!(Reader::new(b"\x00").elements().is_err());
        assert!(Reader::new(b"\xc0\x01").length().is_err());
    }

    #[test]
    fn doubles_may_be_text() {
        let double = |bytes: &[u8]| Reader::new(bytes).text_double().ok();
        assert_eq!(double(b"\x031.5"), Some(1.5));
        assert_eq!(double(b"\xff"), Some(f64::NEG_INFINITY));
        assert_eq!(double(b"\xfe"), Some(f64::INFINITY));
        assert!(double(b"\xfd").is_some_and(f64::is_nan));
        assert_eq!(double(b"\x031.x"), None);
        assert_eq!(double(b"\x051.5"), None);
    }
}
