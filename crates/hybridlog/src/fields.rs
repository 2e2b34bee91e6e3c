//! Reading the fields of a format from bytes that nobody vouches for.

/// What every read past the end says.
const TOO_SHORT: &str = "ends in the middle of a field";

/// Little-endian fields, one after the other, never past the end of the bytes.
#[derive(Clone)]
pub(crate) struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
    last: usize,
}

impl<'b> Fields<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Fields<'b> {
        Fields {
            bytes,
            at: 0,
            last: 0,
        }
    }

    /// Where the field begins that was asked for last, in bytes from the start.
    pub(crate) fn last(&self) -> usize {
        self.last
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'b [u8], &'static str> {
        self.last = self.at;
        let field = self.bytes[self.at..].get(..len).ok_or(TOO_SHORT)?;
        self.at += len;
        Ok(field)
    }

    #[inline]
    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], &'static str> {
        self.last = self.at;
        let field = self.bytes[self.at..].first_chunk().ok_or(TOO_SHORT)?;
        self.at += LEN;
        Ok(*field)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, &'static str> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, &'static str> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u24(&mut self) -> Result<u32, &'static str> {
        let [low, middle, high] = self.array()?;
        Ok(u32::from_le_bytes([low, middle, high, 0]))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, &'static str> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number as [`put_varint`] writes it.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, &'static str> {
        let first = self.at;
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            self.last = first;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("number is longer than 64 bits")
    }

    /// How many entries of at least `entry_bytes` follow; refused if there cannot be as many, so that it can be allocated for.
    pub(crate) fn count(&mut self, entry_bytes: usize) -> Result<usize, &'static str> {
        let count = self.u64()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / entry_bytes => Ok(count),
            _ => Err("counts more entries than there is room for"),
        }
    }
}

/// Appends a number in 1 to 10 bytes of 7 bits, lowest first, the high bit on all but the last (LEB128).
pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
