//! Numbers as Redis prints them, appended to a byte buffer without intermediate allocation.
//!
//! Integers are on the path of every reply (lengths, counters), so their digits are written in
//! place, two at a time. Doubles follow Redis 7.2 and later: the shortest decimal that reads back
//! as the same double. (Redis 7.0 and older print all 17 digits: `0.10000000000000001`.)

use std::io::Write;

/// The decimal digits of 0 to 99, two bytes each.
const DIGIT_PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut value = 0;
    while value < 100 {
        pairs[value * 2] = b'0' + (value / 10) as u8;
        pairs[value * 2 + 1] = b'0' + (value % 10) as u8;
        value += 1;
    }
    pairs
};

/// The digits of the largest `u64`.
const MAX_DIGITS: usize = 20;

/// Whole numbers up to this magnitude, 2^62, are printed as integers, as Redis does.
const WHOLE_NUMBER_LIMIT: f64 = 4_611_686_018_427_387_904.0;

/// Appends `value` in decimal, with a leading `-` if negative.
///
/// ```
/// let mut buffer = Vec::new();
/// resp::append_integer(&mut buffer, -1205);
/// assert_eq!(buffer, b"-1205");
/// ```
#[inline]
pub fn append_integer(buffer: &mut Vec<u8>, value: i64) {
    if value < 0 {
        buffer.push(b'-');
    }
    append_unsigned(buffer, value.unsigned_abs());
}

/// Appends `value` in decimal.
#[inline]
pub(crate) fn append_unsigned(buffer: &mut Vec<u8>, mut value: u64) {
    if value < 10 {
        buffer.push(b'0' + value as u8);
        return;
    }
    let mut digits = [0; MAX_DIGITS];
    let mut start = MAX_DIGITS;
    while value >= 10 {
        let pair = (value % 100) as usize * 2;
        value /= 100;
        start -= 2;
        digits[start..start + 2].copy_from_slice(&DIGIT_PAIRS[pair..pair + 2]);
    }
    if value > 0 {
        start -= 1;
        digits[start] = b'0' + value as u8;
    }
    buffer.extend_from_slice(&digits[start..]);
}

/// Reads an integer as strictly as Redis does: nothing but an optional `-` and digits, no leading
/// zero, within `i64`.
///
/// ```
/// assert_eq!(resp::parse_integer(b"-120"), Some(-120));
/// for text in [&b""[..], b"+1", b"01", b"-0", b" 1", b"1.0", b"9223372036854775808"] {
///     assert_eq!(resp::parse_integer(text), None);
/// }
/// ```
#[inline]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    if text == b"0" {
        return Some(0);
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // Nineteen digits fit u64, so nothing overflows before the range check.
    if digits.len() > 19 || !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    let mut magnitude = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Appends `value` as Redis 7.2 prints a double: a whole number without a fraction, otherwise the
/// shortest decimal that reads back as the same double, in scientific notation when it would be
/// long; `inf`, `-inf` and `nan` for what is no number.
///
/// ```
/// let mut buffer = Vec::new();
/// resp::append_double(&mut buffer, 0.1);
/// buffer.push(b' ');
/// resp::append_double(&mut buffer, 3.0);
/// buffer.push(b' ');
/// resp::append_double(&mut buffer, 1e300);
/// assert_eq!(buffer, b"0.1 3 1e+300");
/// ```
pub fn append_double(buffer: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        buffer.extend_from_slice(b"nan");
        return;
    }
    if value.is_sign_negative() {
        buffer.push(b'-');
    }
    let magnitude = value.abs();
    if magnitude.is_infinite() {
        buffer.extend_from_slice(b"inf");
    } else if magnitude <= WHOLE_NUMBER_LIMIT && magnitude.fract() == 0.0 {
        append_unsigned(buffer, magnitude as u64);
    } else {
        append_shortest(buffer, magnitude);
    }
}

/// Appends the shortest decimal of a finite positive number, in the notation Redis chooses for it.
fn append_shortest(buffer: &mut Vec<u8>, magnitude: f64) {
    // `{:e}` gives the shortest digits as `d.ddde-7`: at most 17 digits and 7 other bytes.
    let mut text = [0u8; 32];
    let mut unused = &mut text[..];
    let written = match write!(unused, "{magnitude:e}") {
        Ok(()) => 32 - unused.len(),
        Err(_) => unreachable!("a double in scientific notation fits 32 bytes"),
    };
    let (mantissa, exponent) = split_scientific(&text[..written]);
    let mut digits = [0u8; 32];
    let mut count = 0;
    for &byte in mantissa.iter().filter(|&&byte| byte != b'.') {
        digits[count] = byte;
        count += 1;
    }
    append_digits(buffer, &digits[..count], exponent);
}

/// Splits `d.ddde-7` into `d.ddd` and -7.
fn split_scientific(text: &[u8]) -> (&[u8], i32) {
    let mark = text
        .iter()
        .position(|&byte| byte == b'e')
        .unwrap_or(text.len());
    let exponent = &text[(mark + 1).min(text.len())..];
    let (negative, exponent) = match exponent.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, exponent),
    };
    let magnitude = exponent
        .iter()
        .fold(0, |sum, &byte| sum * 10 + i32::from(byte - b'0'));
    (&text[..mark], if negative { -magnitude } else { magnitude })
}

/// Appends `d.ddd * 10^exponent`, the digits given without the point.
fn append_digits(buffer: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    let count = digits.len() as i32;
    // The power of ten that the last digit stands for.
    let last_power = exponent - count + 1;
    if last_power >= 0 && exponent < count + 7 {
        buffer.extend_from_slice(digits);
        buffer.resize(buffer.len() + last_power as usize, b'0');
    } else if last_power < 0 && (last_power > -7 || exponent.abs() < 4) {
        if exponent < 0 {
            buffer.extend_from_slice(b"0.");
            buffer.resize(buffer.len() + (-exponent - 1) as usize, b'0');
            buffer.extend_from_slice(digits);
        } else {
            let (whole, fraction) = digits.split_at(exponent as usize + 1);
            buffer.extend_from_slice(whole);
            buffer.push(b'.');
            buffer.extend_from_slice(fraction);
        }
    } else {
        buffer.push(digits[0]);
        if digits.len() > 1 {
            buffer.push(b'.');
            buffer.extend_from_slice(&digits[1..]);
        }
        buffer.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        append_unsigned(buffer, u64::from(exponent.unsigned_abs()));
    }
}
