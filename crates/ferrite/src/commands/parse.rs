//! Arguments as numbers and expiry times, by the rules every command shares: strict integers, and expiry options
//! whose overflow, zero and negative cases end with Redis's own error texts.

pub(crate) use resp::parse_integer as strict_integer;

use crate::command::Stop;

/// The error of an argument or stored value that should be an integer and is not.
pub(crate) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
/// The error of options that do not fit together or are unknown.
pub(crate) const SYNTAX_ERROR: &str = "ERR syntax error";

/// Longest decimal text of an `i64`: a sign and 19 digits.
pub(crate) const INTEGER_MAX_BYTES: usize = 20;

/// Argument `arg` as an integer.
pub(crate) fn integer(arg: &[u8]) -> Result<i64, Stop> {
    strict_integer(arg).ok_or(NOT_AN_INTEGER.into())
}

/// Argument `arg` as an integer whose negation is one too.
pub(crate) fn symmetric_integer(arg: &[u8]) -> Result<i64, Stop> {
    let number = integer(arg)?;
    if number == i64::MIN {
        let most = i64::MAX;
        return Err(
            format!("ERR value is out of range, value must between -{most} and {most}").into(),
        );
    }
    Ok(number)
}

/// Argument `arg` as an integer of 32 bits, as Redis reads the numbers of databases.
pub(crate) fn integer_32(arg: &[u8]) -> Result<i32, Stop> {
    let (least, most) = (i32::MIN, i32::MAX);
    i32::try_from(integer(arg)?).map_err(|_| {
        format!("ERR value is out of range, value must between {least} and {most}").into()
    })
}

/// How an expiry argument is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExpiryUnit {
    /// EX: seconds from now.
    Seconds,
    /// PX: milliseconds from now.
    Milliseconds,
    /// EXAT: Unix time in seconds.
    UnixSeconds,
    /// PXAT: Unix time in milliseconds.
    UnixMilliseconds,
}

impl ExpiryUnit {
    /// The unit that the option `word` (EX, PX, EXAT or PXAT, letter case aside) announces.
    pub(crate) fn from_option(word: &[u8]) -> Option<ExpiryUnit> {
        const OPTIONS: [(&[u8], ExpiryUnit); 4] = [
            (b"ex", ExpiryUnit::Seconds),
            (b"px", ExpiryUnit::Milliseconds),
            (b"exat", ExpiryUnit::UnixSeconds),
            (b"pxat", ExpiryUnit::UnixMilliseconds),
        ];
        OPTIONS
            .iter()
            .find(|(option, _)| word.eq_ignore_ascii_case(option))
            .map(|(_, unit)| *unit)
    }

    /// `number` of this unit as Unix time in milliseconds; `None` if that overflows.
    pub(super) fn unix_ms(self, number: i64, now_ms: u64) -> Option<i64> {
        let now_ms = i64::try_from(now_ms).ok()?;
        match self {
            ExpiryUnit::Seconds => number.checked_mul(1000)?.checked_add(now_ms),
            ExpiryUnit::Milliseconds => number.checked_add(now_ms),
            ExpiryUnit::UnixSeconds => number.checked_mul(1000),
            ExpiryUnit::UnixMilliseconds => Some(number),
        }
    }
}

/// Argument `arg` as an expiry, which may lie in the past or before 1970 (EXPIRE and its kin delete the key then).
/// Result: Unix time in milliseconds. `command` is named by the error for what overflows.
pub(crate) fn expiry_or_past(
    arg: &[u8],
    unit: ExpiryUnit,
    now_ms: u64,
    command: &str,
) -> Result<i64, Stop> {
    unit.unix_ms(integer(arg)?, now_ms)
        .ok_or_else(|| invalid_expiry(command))
}

/// Argument `arg` as the expiry of a value that is being stored: zero and negative numbers are errors too.
/// Result: Unix time in milliseconds.
pub(crate) fn expiry(
    arg: &[u8],
    unit: ExpiryUnit,
    now_ms: u64,
    command: &str,
) -> Result<u64, Stop> {
    let number = integer(arg)?;
    unit.unix_ms(number, now_ms)
        .filter(|_| number > 0)
        .and_then(|at_ms| u64::try_from(at_ms).ok())
        .ok_or_else(|| invalid_expiry(command))
}

fn invalid_expiry(command: &str) -> Stop {
    format!("ERR invalid expire time in '{command}' command").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_rejects_what_is_not_a_time_to_come() {
        let at = |text: &str, unit| match expiry(text.as_bytes(), unit, 1_000, "set") {
            Ok(at_ms) => Ok(at_ms),
            Err(Stop::Reply(text)) => Err(text.into_owned()),
            Err(other) => panic!("{other:?}"),
        };
        let invalid = Err("ERR invalid expire time in 'set' command".to_owned());
        assert_eq!(at("2", ExpiryUnit::Seconds), Ok(3_000));
        assert_eq!(at("2", ExpiryUnit::Milliseconds), Ok(1_002));
        assert_eq!(at("2", ExpiryUnit::UnixSeconds), Ok(2_000));
        assert_eq!(at("2", ExpiryUnit::UnixMilliseconds), Ok(2));
        assert_eq!(at("0", ExpiryUnit::Seconds), invalid);
        assert_eq!(at("-1", ExpiryUnit::UnixSeconds), invalid);
        assert_eq!(at("9223372036854776", ExpiryUnit::UnixSeconds), invalid);
        assert_eq!(at("9223372036854775", ExpiryUnit::Seconds), invalid);
        assert_eq!(at("9223372036854775807", ExpiryUnit::Milliseconds), invalid);
        assert_eq!(
            at("1.5", ExpiryUnit::Seconds),
            Err(NOT_AN_INTEGER.to_owned())
        );
    }

    #[test]
    fn expiry_of_existing_keys_may_lie_in_the_past() {
        let at = |text: &str, unit| expiry_or_past(text.as_bytes(), unit, 5_000, "expire").ok();
        assert_eq!(at("-3", ExpiryUnit::Seconds), Some(2_000));
        assert_eq!(at("-9", ExpiryUnit::Seconds), Some(-4_000));
        assert_eq!(at("0", ExpiryUnit::UnixSeconds), Some(0));
        assert_eq!(at("-9223372036854776", ExpiryUnit::Seconds), None);
    }
}
