//! Numbers in as few bytes as they need: seven bits a byte, the lowest first; the top bit says that more follow (LEB128).

/// Appends `number`: one byte below 128, ten at most.
#[inline]
pub(super) fn put(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Takes a number off the front of `bytes`; `None` if they end before it does, or if it does not fit.
#[inline]
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_nothing_else_passes_for_one() {
        for shift in 0..64 {
            for number in [1 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put(number, &mut bytes);
                assert_eq!(take(&mut &bytes[..]), Some(number));
                assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None);
            }
        }
        let beyond = [[0xff; 9].as_slice(), &[2]].concat();
        assert_eq!(take(&mut &beyond[..]), None);
        assert_eq!(take(&mut &[0x80; 11][..]), None);
    }
}
