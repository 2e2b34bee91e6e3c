//! Scores and weights as arguments: doubles, as C's `strtod` reads them.

use super::extended_float::ExtendedFloat;
use crate::command::Stop;

/// Argument `arg` as a score or increment.
pub(super) fn score(arg: &[u8]) -> Result<f64, Stop> {
    double(arg).ok_or("ERR value is not a valid float".into())
}

/// `arg` as a double; `None` for NaN, for what overflows, and for what is too small not to be zero.
pub(super) fn double(arg: &[u8]) -> Option<f64> {
    let number = read(arg)?;
    let mantissa = arg.split(|byte| matches!(byte, b'e' | b'E')).next()?;
    let is_written_zero = !mantissa.iter().any(|byte| matches!(byte, b'1'..=b'9'));
    let is_written_infinite = arg.iter().any(|byte| matches!(byte, b'i' | b'I'));
    let fits = number.is_infinite() == is_written_infinite && (number != 0.0 || is_written_zero);
    (fits || is_hexadecimal(arg)).then_some(number)
}

/// `arg` as the end of a range: what overflows is infinite, white space in front is skipped, nothing at all is 0, and what is
/// behind a zero byte does not count.
pub(super) fn lenient_double(arg: &[u8]) -> Option<f64> {
    let text = arg.split(|byte| *byte == 0).next()?;
    if text.is_empty() {
        return Some(0.0);
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_space(byte))?;
    read(&text[start..])
}

/// `text` as SORT reads a number: as the end of a range, but it must fit.
pub(super) fn sorted_double(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next()?;
    if text.is_empty() {
        return Some(0.0);
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_space(byte))?;
    double(&text[start..])
}

fn is_hexadecimal(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+"));
    matches!(digits.unwrap_or(text), [b'0', b'x' | b'X', ..])
}

/// Decimal or (after `0x`) hexadecimal digits with an optional point and exponent, or `inf`.
fn read(text: &[u8]) -> Option<f64> {
    if is_hexadecimal(text) {
        return Some(ExtendedFloat::parse(text)?.to_double());
    }
    let number: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_read_as_in_c() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("-1.5e3", Some(-1500.0)),
            ("+.5", Some(0.5)),
            ("5.", Some(5.0)),
            ("inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("0x1F", Some(31.0)),
            ("-0x1.8p1", Some(-3.0)),
            ("0", Some(0.0)),
            ("0e999", Some(0.0)),
            ("1e-310", Some(1e-310)),
            ("1.7976931348623157e308", Some(f64::MAX)),
            ("1e309", None),
            ("1e-400", None),
            ("nan", None),
            ("", None),
            (".", None),
            ("1e", None),
            (" 1", None),
            ("1 ", None),
            ("1\0", None),
            ("infinit", None),
            ("0x", None),
        ] {
            assert_eq!(double(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn ends_of_ranges_are_read_leniently() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("", Some(0.0)),
            (" \t-2", Some(-2.0)),
            (" ", None),
            ("3\0x", Some(3.0)),
            ("1e309", Some(f64::INFINITY)),
            ("1e-400", Some(0.0)),
            ("nan", None),
            ("1 ", None),
        ] {
            assert_eq!(lenient_double(text.as_bytes()), expected, "{text:?}");
        }
    }
}
