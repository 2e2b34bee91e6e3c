//! Inline commands: a line of words, as typed into a terminal, with Redis's quoting rules.
//!
//! Words are unescaped where they stand. That is safe because an unescaped word is never longer
//! than its source: the write position never passes the read position.

use std::ops::Range;

use crate::parse::ArgRange;

/// Splits `buf[line]` into words, unescapes them in place and appends their ranges in `buf` to
/// `args`. Returns false if a quote is not closed, or its end is not followed by a space; `args`
/// may then hold words already.
///
/// Within double quotes `\n`, `\r`, `\t`, `\b`, `\a` and `\xHH` stand for bytes and a backslash
/// before any other byte stands for that byte; within single quotes only `\'` is special.
pub(crate) fn split_inline(buf: &mut [u8], line: Range<usize>, args: &mut Vec<ArgRange>) -> bool {
    let mut read = line.start;
    while let Some(spaces) = buf[read..line.end].iter().position(|&byte| !is_space(byte)) {
        let start = read + spaces;
        match unescape_word(&mut buf[start..line.end]) {
            Some(word) => {
                args.push(ArgRange {
                    start,
                    len: word.len,
                });
                read = start + word.source_len;
            }
            None => return false,
        }
    }
    true
}

/// A word at the start of a line: its length once unescaped, and in the source.
struct Word {
    len: usize,
    source_len: usize,
}

/// Unescapes the word at the start of `line` in place; none if its quotes are unbalanced.
fn unescape_word(line: &mut [u8]) -> Option<Word> {
    let mut len = 0;
    while let Some(&byte) = line.get(len) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => break,
            b'"' | b'\'' => return unescape_quoted(line, len),
            _ => len += 1,
        }
    }
    Some(Word {
        len,
        source_len: len,
    })
}

/// Unescapes the rest of a word, from its opening quote at `line[quote_at]` on. The closing quote
/// must be the end of the word.
fn unescape_quoted(line: &mut [u8], quote_at: usize) -> Option<Word> {
    let quote = line[quote_at];
    let mut read = quote_at + 1;
    let mut write = quote_at;
    loop {
        let (byte, source_len) = match line[read..] {
            [] => return None,
            [first, ..] if first == quote => break,
            [b'\\', b'\'', ..] if quote == b'\'' => (b'\'', 2),
            [b'\\', b'x', high, low, ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(high) << 4 | hex_digit(low), 4)
            }
            [b'\\', escaped, ..] if quote == b'"' => (unescape_byte(escaped), 2),
            [first, ..] => (first, 1),
        };
        line[write] = byte;
        write += 1;
        read += source_len;
    }
    match line.get(read + 1) {
        Some(&next) if !is_space(next) => None,
        _ => Some(Word {
            len: write,
            source_len: read + 1,
        }),
    }
}

/// What a backslash and this byte stand for within double quotes.
fn unescape_byte(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// C's `isspace`, which, unlike Rust's, counts the vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
