//! Glob patterns as Redis matches them (KEYS, SCAN MATCH, COMMAND LIST), over bytes.
//!
//! `*` any run, `?` one byte, `[abc]`, `[a-z]`, `[^a]` one byte of a class, `\x` the byte x.
//! Redis's corner cases are kept, for clients rely on all sorts of patterns: an unclosed class ends with
//! the pattern, a reversed range is swapped, bytes compare as signed numbers inside ranges, `*`
//! alone does not match the empty text.
//!
//! A pattern is hostile until proven otherwise: only the latest `*` is ever retried, so that a
//! match costs at most the product of both lengths, and never recurses.

/// More runs of `*` than this, with something behind them, match nothing; Redis's limit.
const STARS_MAX: usize = 1000;

/// Whether `text` matches `pattern`, letter case included.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    Matcher {
        pattern,
        text,
        fold: |byte| byte,
    }
    .run()
}

/// Whether `text` matches `pattern`, the case of ASCII letters aside.
pub(crate) fn matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    Matcher {
        pattern,
        text,
        fold: |byte| byte.to_ascii_lowercase(),
    }
    .run()
}

struct Matcher<'a> {
    pattern: &'a [u8],
    text: &'a [u8],
    /// Makes two bytes equal that count as equal.
    fold: fn(u8) -> u8,
}

impl Matcher<'_> {
    fn run(&self) -> bool {
        let (mut at, mut from) = (0, 0);
        // Behind the latest `*`: the rest of the pattern, and where in the text it is tried next.
        let mut retry: Option<(usize, usize)> = None;
        let mut stars = 0;
        while from < self.text.len() {
            if self.pattern.get(at) == Some(&b'*') {
                at += self.pattern[at..]
                    .iter()
                    .take_while(|&&byte| byte == b'*')
                    .count();
                stars += 1;
                if at == self.pattern.len() {
                    return true;
                }
                if stars > STARS_MAX {
                    return false;
                }
                retry = Some((at, from + 1));
            } else if let Some(next) = self.one(at, self.text[from]) {
                (at, from) = (next, from + 1);
            } else if let Some((star_at, star_from)) = retry {
                (at, from) = (star_at, star_from);
                retry = Some((star_at, star_from + 1));
            } else {
                return false;
            }
        }
        // The rest of the pattern takes a fixed number of bytes: trying it further on cannot help.
        let consumed_some = from > 0;
        at == self.pattern.len()
            || consumed_some && self.pattern[at..].iter().all(|&byte| byte == b'*')
    }

    /// Matches `byte` against the element of the pattern (no `*`) that starts at `at`; where the
    /// next one starts.
    fn one(&self, at: usize, byte: u8) -> Option<usize> {
        let fold = self.fold;
        match *self.pattern.get(at)? {
            b'?' => Some(at + 1),
            b'[' => self.class(at + 1, byte),
            b'\\' if at + 1 < self.pattern.len() => {
                (fold(self.pattern[at + 1]) == fold(byte)).then_some(at + 2)
            }
            literal => (fold(literal) == fold(byte)).then_some(at + 1),
        }
    }

    /// Matches `byte` against the class whose inside starts at `at`; where the pattern goes on.
    fn class(&self, mut at: usize, byte: u8) -> Option<usize> {
        let fold = self.fold;
        let inverted = self.pattern.get(at) == Some(&b'^');
        at += usize::from(inverted);
        let mut found = false;
        loop {
            match self.pattern[at..] {
                [b'\\', escaped, ..] => {
                    found |= escaped == byte;
                    at += 2;
                }
                [b']', ..] => {
                    at += 1;
                    break;
                }
                [] => break,
                [first, b'-', last, ..] => {
                    let (low, high) = if first as i8 <= last as i8 {
                        (first, last)
                    } else {
                        (last, first)
                    };
                    found |= (fold(low) as i8..=fold(high) as i8).contains(&(fold(byte) as i8));
                    at += 3;
                }
                [single, ..] => {
                    found |= fold(single) == fold(byte);
                    at += 1;
                }
            }
        }
        (found != inverted).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::{matches, matches_nocase};

    #[test]
    fn elements_match_as_in_redis() {
        let cases: &[(&str, &str, bool)] = &[
            ("", "", true),
            ("", "a", false),
            ("*", "", false),
            ("*", "abc", true),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "a", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyyd", false),
            ("*ab", "aab", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("[abc", "c", true),
            ("[", "a", false),
            ("[^", "a", true),
            ("[a-]", "]", true),
            ("[]-a]", "]", false),
            ("[\\]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                *expected,
                "{pattern:?} on {text:?}"
            );
        }
        assert!(matches(b"[\x80-\x90]", b"\x85"));
        assert!(
            !matches(b"[\x00-\x90]", b"\x05"),
            "bytes from 0x80 on count as negative"
        );
    }

    #[test]
    fn letter_case_is_set_aside_but_for_escapes_in_classes() {
        assert!(matches_nocase(b"MAX*", b"maxmemory"));
        assert!(!matches(b"MAX*", b"maxmemory"));
        assert!(matches_nocase(b"[A-C]x", b"bX"));
        assert!(matches_nocase(b"\\A", b"a"));
        assert!(!matches_nocase(b"[\\A]", b"a"));
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let text = vec![b'a'; 20_000];
        let pattern = [b"*a".repeat(900), b"b".to_vec()].concat();
        assert!(!matches(&pattern, &text));
        assert!(
            !matches(&b"*a".repeat(1001), &text),
            "more stars than Redis follows"
        );
        assert!(matches(&b"*a".repeat(1000), &text));
    }
}
