//! Taking LZF apart, the compression of strings.
//!
//! It is a sequence of literal runs, `000lllll` and l + 1 bytes, and of copies of what came before: `lllooooo` (from l = 1 to
//! 6) or `111ooooo` and a byte that is added to l = 7, then a byte for the lower part of the offset; l + 2 bytes are copied
//! from o + 1 bytes back.

/// Most bytes that a copy of three bytes stands for.
const COPY_MAX_BYTES: usize = 264;

/// The string of `len` bytes that `input` was made of; `None` if it is not made of one. No memory is taken for a length
/// that cannot be right: that is for the caller to see to, by [`may_hold`].
pub(super) fn decompress(input: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(len);
    let mut rest = input;
    let mut next = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    while let Some(control) = next(1) {
        let control = usize::from(control[0]);
        let (mut copied, offset) = (control >> 5, control & 0x1f);
        if copied == 0 {
            let literal = next(control + 1)?;
            if literal.len() > len - output.len() {
                return None;
            }
            output.extend_from_slice(literal);
            continue;
        }
        if copied == 7 {
            copied += usize::from(next(1)?[0]);
        }
        copied += 2;
        let back = (offset << 8 | usize::from(next(1)?[0])) + 1;
        let start = output.len().checked_sub(back)?;
        if copied > len - output.len() {
            return None;
        }
        copy_within(&mut output, start, copied);
    }
    (output.len() == len).then_some(output)
}

/// Appends `count` bytes from `start` on, which may reach into what is appended.
fn copy_within(output: &mut Vec<u8>, start: usize, count: usize) {
    let mut left = count;
    while left > 0 {
        // What is there repeats itself, so each round may copy twice as much.
        let now = left.min(output.len() - start);
        output.extend_from_within(start..start + now);
        left -= now;
    }
}

/// Whether so many compressed bytes may stand for a string of `len` bytes.
pub(super) fn may_hold(compressed: usize, len: u64) -> bool {
    len <= (compressed as u64 / 3 + 1).saturating_mul(COPY_MAX_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_copies_are_taken_apart() {
        // 70 x, as redis-server writes them.
        let seventy = b"\x01xx\xe0\x39\x00\x01xx";
        assert_eq!(decompress(seventy, 70).as_deref(), Some(&[b'x'; 70][..]));
        assert_eq!(decompress(b"\x02abc\x20\x02", 6).unwrap(), b"abcabc");
        assert_eq!(decompress(b"\x01ab\x80\x01", 8).unwrap(), b"abababab");
        assert_eq!(decompress(b"", 0).as_deref(), Some(&[][..]));
        for len in [0, 69, 71] {
            assert_eq!(decompress(seventy, len), None, "{len}");
        }
        for wrong in [
            &b"\x02ab"[..],
            b"\x20\x00",
            b"\x00a\x20\x01",
            b"\x00a\xe0",
            b"\x00a\x20",
        ] {
            for len in 0..20 {
                assert_eq!(decompress(wrong, len), None, "{wrong:?}");
            }
        }
    }

    #[test]
    fn lengths_beyond_any_compression_are_told() {
        assert!(may_hold(9, 70) && may_hold(3, 264));
        assert!(!may_hold(9, 1 << 20) && !may_hold(0, u64::MAX));
    }
}
