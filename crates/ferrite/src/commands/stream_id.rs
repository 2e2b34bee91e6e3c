//! IDs of stream entries: two numbers, of which the first mostly is the time, as clients write them.

use std::fmt;

use crate::command::Stop;

const INVALID: &str = "ERR Invalid stream ID specified as stream command argument";
/// As in Redis, nothing longer is an ID, however it is written.
const TEXT_MAX_BYTES: usize = 127;

/// The ID of an entry. Entries are ordered by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Id {
    pub(super) ms: u64,
    pub(super) sequence: u64,
}

/// An ID for an entry to come, as XADD is given it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NewId {
    /// `*`: what follows from the time.
    Auto,
    /// `ms-*`: the next in this millisecond.
    AutoSequence(u64),
    Given(Id),
}

impl Id {
    pub(super) const BYTES: usize = 16;
    pub(super) const MIN: Id = Id { ms: 0, sequence: 0 };
    pub(super) const MAX: Id = Id {
        ms: u64::MAX,
        sequence: u64::MAX,
    };

    /// An ID as it is given to most commands: `ms-sequence`, or `ms`, which has `sequence` then.
    pub(super) fn parse_strict(text: &[u8], sequence: u64) -> Result<Id, Stop> {
        Id::parse_if(text, sequence).ok_or(INVALID.into())
    }

    /// As [`Id::parse_strict`]; `-` is the least, `+` the greatest.
    pub(super) fn parse(text: &[u8], sequence: u64) -> Result<Id, Stop> {
        match text {
            b"-" => Ok(Id::MIN),
            b"+" => Ok(Id::MAX),
            _ => Id::parse_strict(text, sequence),
        }
    }

    /// As [`Id::parse_strict`]; none if it is not an ID.
    pub(super) fn parse_if(text: &[u8], sequence: u64) -> Option<Id> {
        let (ms, given) = parts(text)?;
        let sequence = given.map_or(Some(sequence), number)?;
        Some(Id { ms, sequence })
    }

    /// The least ID of an interval that begins with `text`, where `(` excludes what follows it.
    pub(super) fn interval_start(text: &[u8]) -> Result<Id, Stop> {
        match text {
            [b'(', rest @ ..] if !rest.is_empty() => Id::parse_strict(rest, 0)?
                .next()
                .ok_or("ERR invalid start ID for the interval".into()),
            _ => Id::parse(text, 0),
        }
    }

    /// The greatest ID of an interval that ends with `text`.
    pub(super) fn interval_end(text: &[u8]) -> Result<Id, Stop> {
        match text {
            [b'(', rest @ ..] if !rest.is_empty() => Id::parse_strict(rest, u64::MAX)?
                .previous()
                .ok_or("ERR invalid end ID for the interval".into()),
            _ => Id::parse(text, u64::MAX),
        }
    }

    /// The next ID; none after the greatest.
    pub(super) fn next(self) -> Option<Id> {
        match self.sequence.checked_add(1) {
            Some(sequence) => Some(Id { sequence, ..self }),
            None => self.ms.checked_add(1).map(|ms| Id { ms, sequence: 0 }),
        }
    }

    /// The ID before; none before the least.
    pub(super) fn previous(self) -> Option<Id> {
        match self.sequence.checked_sub(1) {
            Some(sequence) => Some(Id { sequence, ..self }),
            None => self.ms.checked_sub(1).map(|ms| Id {
                ms,
                sequence: u64::MAX,
            }),
        }
    }

    /// Bytes that are ordered as the IDs are.
    pub(super) fn to_bytes(self) -> [u8; Id::BYTES] {
        let number = u128::from(self.ms) << 64 | u128::from(self.sequence);
        number.to_be_bytes()
    }

    /// The ID that the last 16 of `bytes` are; the least if there are fewer.
    pub(super) fn of_end(bytes: &[u8]) -> Id {
        let number = bytes
            .last_chunk()
            .map_or(0, |end| u128::from_be_bytes(*end));
        Id {
            ms: (number >> 64) as u64,
            sequence: number as u64,
        }
    }
}

impl NewId {
    pub(super) fn parse(text: &[u8]) -> Result<NewId, Stop> {
        match parts(text) {
            Some((ms, Some(b"*"))) => Ok(NewId::AutoSequence(ms)),
            _ => Id::parse_strict(text, 0).map(NewId::Given),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

/// The milliseconds, and what stands behind the dash if there is one. As in Redis, a NUL byte ends the text.
fn parts(text: &[u8]) -> Option<(u64, Option<&[u8]>)> {
    if text.len() > TEXT_MAX_BYTES {
        return None;
    }
    let text = text.split(|byte| *byte == 0).next()?;
    match text.iter().position(|byte| *byte == b'-') {
        Some(dash) => Some((number(&text[..dash])?, Some(&text[dash + 1..]))),
        None => Some((number(text)?, None)),
    }
}

/// A number as C's `strtoull` takes it, with blanks and a sign in front, for that is how Redis reads what is not written as
/// an integer usually is; but what is written so must not be negative.
fn number(text: &[u8]) -> Option<u64> {
    if let Some(number) = resp::parse_integer(text) {
        return u64::try_from(number).ok();
    }
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    let (is_negative, digits) = match &text[blanks..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if is_negative {
        number.wrapping_neg()
    } else {
        number
    })
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, sequence: u64) -> Option<Id> {
        Some(Id { ms, sequence })
    }

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        let parse = |text: &str| Id::parse_if(text.as_bytes(), 7);
        assert_eq!(parse("5"), id(5, 7));
        assert_eq!(parse("5-0"), id(5, 0));
        assert_eq!(parse("005-+1"), id(5, 1));
        assert_eq!(parse(" 5- 1"), id(5, 1));
        assert_eq!(parse("5-1\0x"), id(5, 1));
        assert_eq!(parse("18446744073709551615"), id(u64::MAX, 7));
        for wrong in [
            "",
            "-",
            "+",
            "*",
            "5-",
            "-5",
            "5-*",
            "5-1-1",
            "5-x",
            "5--1",
            "18446744073709551616",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(Id::parse_if(&[b'0'; 128], 0), None);
    }

    #[test]
    fn ids_have_neighbours_but_at_the_ends() {
        let at = |ms, sequence| Id { ms, sequence };
        assert_eq!(at(1, u64::MAX).next(), id(2, 0));
        assert_eq!(at(2, 0).previous(), id(1, u64::MAX));
        assert_eq!(Id::MAX.next(), None);
        assert_eq!(Id::MIN.previous(), None);
        assert!(at(1, u64::MAX).to_bytes() < at(2, 0).to_bytes());
        assert_eq!(Id::of_end(&at(3, 4).to_bytes()), at(3, 4));
    }
}
