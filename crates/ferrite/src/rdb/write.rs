//! Lengths, numbers and strings as they follow each other in a value that is being written.

use resp::parse_integer;

use crate::command::Stop;

/// Longest text of an integer of 32 bits: a sign and 10 digits.
const INTEGER_32_MAX_BYTES: usize = 11;

/// Where a value goes.
pub(crate) trait Sink {
    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// There is no memory for them now.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop>;

    fn put_length(&mut self, len: u64) -> Result<(), Stop> {
        let mut bytes = Vec::with_capacity(9);
        append_length(&mut bytes, len);
        self.put(&bytes)
    }

    /// Appends a string, as a number if it is one.
    fn put_string(&mut self, string: &[u8]) -> Result<(), Stop> {
        let number = match string.len() {
            ..=INTEGER_32_MAX_BYTES => parse_integer(string),
            _ => None,
        };
        if let Some(number) = number {
            if let Ok(number) = i8::try_from(number) {
                return self.put(&[0xc0, number as u8]);
            }
            if let Ok(number) = i16::try_from(number) {
                let [a, b] = number.to_le_bytes();
                return self.put(&[0xc1, a, b]);
            }
            if let Ok(number) = i32::try_from(number) {
                let [a, b, c, d] = number.to_le_bytes();
                return self.put(&[0xc2, a, b, c, d]);
            }
        }
        self.put_length(string.len() as u64)?;
        self.put(string)
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends a length.
pub(crate) fn append_length(bytes: &mut Vec<u8>, len: u64) {
    match len {
        0..0x40 => bytes.push(len as u8),
        0x40..0x4000 => bytes.extend([0x40 | (len >> 8) as u8, len as u8]),
        0x4000..0x1_0000_0000 => {
            bytes.push(0x80);
            bytes.extend((len as u32).to_be_bytes());
        }
        _ => {
            bytes.push(0x81);
            bytes.extend(len.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::Reader;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut lengths = vec![0, u64::MAX];
        for shift in 0..64 {
            lengths.extend([(1 << shift) - 1, 1 << shift]);
        }
        let mut strings: Vec<Vec<u8>> =
            vec![b"".into(), b"abc".into(), b"-0".into(), vec![b'x'; 20_000]];
        for number in &lengths {
            let number = *number as i64;
            strings.extend([number, number.wrapping_neg()].map(|number| number.to_string().into()));
        }
        let mut bytes = Vec::new();
        for len in &lengths {
            bytes.put_length(*len).unwrap();
        }
        for string in &strings {
            bytes.put_string(string).unwrap();
        }
        let mut reader = Reader::new(&bytes);
        for len in &lengths {
            assert_eq!(reader.length().unwrap(), *len);
        }
        for string in &strings {
            assert_eq!(reader.string(&mut |_| Ok(())).unwrap(), *string);
        }
        assert!(reader.is_at_end());
    }
}
