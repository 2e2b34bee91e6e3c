//! The words of a configuration line, and the numbers and sizes among them.

use std::ascii;

/// Splits a line into words as Redis does: separated by blanks, in `"..."` with the escapes
/// `\n \r \t \b \a \xHH`, or in `'...'` where only `\'` is one. `None` when a quote is not closed or
/// is followed by anything but a blank.
pub(crate) fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let mut word = Vec::new();
        rest = match rest[0] {
            b'"' => take_double_quoted(&rest[1..], &mut word)?,
            b'\'' => take_single_quoted(&rest[1..], &mut word)?,
            _ => take_bare(rest, &mut word)?,
        };
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    Some(words)
}

/// A word without quotes in front; a quote inside of it starts a quoted part, which ends the word.
fn take_bare<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    while let [byte, after @ ..] = rest {
        match byte {
            b'"' => return take_double_quoted(after, word),
            b'\'' => return take_single_quoted(after, word),
            byte if byte.is_ascii_whitespace() => break,
            byte => word.push(*byte),
        }
        rest = after;
    }
    Some(rest)
}

fn take_double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [b'"', after @ ..] => return ends_word(after).then_some(after),
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [b'\'', after @ ..] => return ends_word(after).then_some(after),
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

fn ends_word(rest: &[u8]) -> bool {
    rest.first().is_none_or(u8::is_ascii_whitespace)
}

/// The value of a byte that is a hexadecimal digit.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// `text` in double quotes, escaped so that [`split_words`] gives it back.
pub(crate) fn quote(text: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in text {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', *byte]),
            b'\'' => quoted.push(b'\''),
            byte => quoted.extend(ascii::escape_default(*byte)),
        }
    }
    quoted.push(b'"');
    quoted
}

/// A whole number in its only decimal spelling: no `+`, no blanks, no leading zeros.
pub(crate) fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let redundant_zero = digits.len() > 1 && digits[0] == b'0' || text == b"-0";
    if redundant_zero {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

/// A size in bytes: digits and a unit in any letter case: `b`, `k` (1000), `kb` (1024), and so on to
/// `gb`. `None` for anything else, and for a size past 64 bits. Nothing at all is 0, as in Redis:
/// `--maxmemory "$LIMIT"` works with an unset variable.
pub(crate) fn parse_memory(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    let digits_len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, unit) = text.split_at(digits_len);
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    str::from_utf8(digits)
        .ok()?
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
}

/// A size as a configuration file says it best: `64mb`, or plain bytes where no unit divides it.
pub(crate) fn format_memory(bytes: u64) -> String {
    for (factor, unit) in [(1 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb")] {
        if bytes != 0 && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let words = split_words(line.as_bytes())?;
        Some(
            words
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        )
    }

    #[test]
    fn words_and_quotes() {
        let ok = |line: &str, expected: &[&str]| {
            assert_eq!(
                words(line).as_deref(),
                Some(expected.map_to_strings().as_slice()),
                "{line}"
            );
        };
        ok("", &[]);
        ok("  port \t 6379 ", &["port", "6379"]);
        ok("save \"\"", &["save", ""]);
        ok("a \"x y\" 'z w'", &["a", "x y", "z w"]);
        ok(r#"a "\x41\n\"\\" '\'\n'"#, &["a", "A\n\"\\", "'\\n"]);
        ok("a b\"c d\"", &["a", "bc d"]);
        for unbalanced in ["a \"b", "a 'b", "a \"b\"c", "a 'b'c", "a \"b\\\""] {
            assert_eq!(words(unbalanced), None, "{unbalanced}");
        }
    }

    trait MapToStrings {
        fn map_to_strings(&self) -> Vec<String>;
    }

    impl MapToStrings for [&str] {
        fn map_to_strings(&self) -> Vec<String> {
            self.iter().map(|word| (*word).to_owned()).collect()
        }
    }

    #[test]
    fn every_byte_survives_quoting() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(split_words(&quote(&all)), Some(vec![all]));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1b", Some(1)),
            ("1k", Some(1000)),
            ("1kb", Some(1024)),
            ("2M", Some(2_000_000)),
            ("2Mb", Some(2 << 20)),
            ("3g", Some(3_000_000_000)),
            ("3GB", Some(3 << 30)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999gb", None),
            ("", Some(0)),
            ("mb", None),
            ("-1", None),
            ("1tb", None),
            ("1.5gb", None),
            (" 1mb", None),
        ] {
            assert_eq!(parse_memory(text.as_bytes()), bytes, "{text}");
        }
        for bytes in [0, 1, 1000, 1024, 1536, 64 << 20, 3 << 30, u64::MAX] {
            assert_eq!(parse_memory(format_memory(bytes).as_bytes()), Some(bytes));
        }
    }

    #[test]
    fn integers_have_one_spelling() {
        assert_eq!(parse_integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_integer(b"0"), Some(0));
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            " 1",
            "1 ",
            "0x1",
            "1k",
            "9223372036854775808",
        ] {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
    }
}
