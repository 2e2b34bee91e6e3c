//! The sparse encoding: runs of registers that are equal, in one byte or two.
//!
//! | bits | registers |
//! |---|---|
//! | `00xxxxxx` | x + 1 that are 0 |
//! | `01xxxxxx yyyyyyyy` | x * 256 + y + 1 that are 0 |
//! | `1vvvvvxx` | x + 1 that are v + 1 |
//!
//! A register is raised by replacing its run by up to three. Then runs of equal values near by are joined where they fit in
//! one: only those that Redis would join, so that the same elements make the same bytes.

use std::borrow::Cow;

use super::{Corrupted, HEADER_BYTES};

/// The longest run of zeroes in one byte.
const SHORT_ZEROES_MAX: usize = 64;
/// The longest run, and the largest value, of registers that are not 0.
const VALUES_MAX: usize = 4;
const VALUE_MAX: u8 = 32;

/// So many runs, from the one in front of what was changed on, are looked at for equals.
const LOOKED_AT: usize = 5;

/// Registers that are equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Run {
    Zeroes(usize),
    Values { value: u8, len: usize },
}

impl Run {
    /// What one takes at most.
    pub(super) const MAX_BYTES: usize = 2;

    /// The run at the start of `bytes`, and how many of them it takes; `None` if they end in front of its end.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Run, usize)> {
        let (&first, rest) = bytes.split_first()?;
        let low = usize::from(first & 0x3f);
        Some(match first >> 6 {
            0 => (Run::Zeroes(low + 1), 1),
            1 => (Run::Zeroes((low << 8 | usize::from(*rest.first()?)) + 1), 2),
            _ => {
                let (value, len) = ((first >> 2 & 0x1f) + 1, usize::from(first & 3) + 1);
                (Run::Values { value, len }, 1)
            }
        })
    }

    /// Appends the run; one of zeroes is at most as long as all registers are many.
    pub(super) fn encode(self, bytes: &mut Vec<u8>) {
        match self {
            Run::Zeroes(len) if len <= SHORT_ZEROES_MAX => bytes.push((len - 1) as u8),
            Run::Zeroes(len) => {
                let [high, low] = ((len - 1) as u16).to_be_bytes();
                bytes.extend([0x40 | high, low]);
            }
            Run::Values { value, len } => bytes.push(0x80 | (value - 1) << 2 | (len - 1) as u8),
        }
    }

    /// How many registers it has.
    pub(crate) fn len(self) -> usize {
        match self {
            Run::Zeroes(len) | Run::Values { len, .. } => len,
        }
    }

    /// What is in them.
    pub(crate) fn value(self) -> u8 {
        match self {
            Run::Zeroes(_) => 0,
            Run::Values { value, .. } => value,
        }
    }

    /// So many registers with the same value.
    fn with_len(self, len: usize) -> Run {
        match self {
            Run::Zeroes(_) => Run::Zeroes(len),
            Run::Values { value, .. } => Run::Values { value, len },
        }
    }
}

/// Whether a register was raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Raised {
    Yes,
    /// It had as much.
    No,
    /// That cannot be said in so few bytes; nothing was changed.
    TooLong,
}

/// Gives a register of a sparse sketch this value unless it has as much.
pub(super) fn raise(
    bytes: &mut Cow<'_, [u8]>,
    register: usize,
    value: u8,
    max_bytes: u64,
) -> Result<Raised, Corrupted> {
    if value > VALUE_MAX {
        return Ok(Raised::TooLong);
    }
    let place = Place::find(bytes, register)?;
    if place.run.value() >= value {
        return Ok(Raised::No);
    }
    let (before, after) = (register - place.first, place.end() - register - 1);
    let mut runs = Vec::with_capacity(3 * Run::MAX_BYTES);
    if before > 0 {
        place.run.with_len(before).encode(&mut runs);
    }
    Run::Values { value, len: 1 }.encode(&mut runs);
    if after > 0 {
        place.run.with_len(after).encode(&mut runs);
    }
    let len = bytes.len() - place.run_bytes + runs.len();
    if len > bytes.len() && len as u64 > max_bytes {
        return Ok(Raised::TooLong);
    }
    let bytes = bytes.to_mut();
    bytes.splice(place.at..place.at + place.run_bytes, runs);
    join(bytes, place.previous_at);
    Ok(Raised::Yes)
}

/// Where a register is.
struct Place {
    /// Where its run is, and the one in front of that (or itself).
    at: usize,
    previous_at: usize,
    run: Run,
    run_bytes: usize,
    /// The first register of the run.
    first: usize,
}

impl Place {
    fn find(bytes: &[u8], register: usize) -> Result<Place, Corrupted> {
        let (mut at, mut previous_at, mut first) = (HEADER_BYTES, HEADER_BYTES, 0);
        loop {
            let (run, run_bytes) = Run::decode(&bytes[at..]).ok_or(Corrupted)?;
            let place = Place {
                at,
                previous_at,
                run,
                run_bytes,
                first,
            };
            if register < place.end() {
                return Ok(place);
            }
            (previous_at, at) = (at, at + run_bytes);
            first = place.end();
        }
    }

    /// The register behind its run.
    fn end(&self) -> usize {
        self.first + self.run.len()
    }
}

/// Joins neighbours with the same value, where both fit in one, among the first few runs from `at` on.
fn join(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..LOOKED_AT {
        let Some((run, run_bytes)) = Run::decode(&bytes[at..]) else {
            return;
        };
        let next = Run::decode(&bytes[at + run_bytes..]);
        let joined = match (run, next) {
            (
                Run::Values { value, len },
                Some((
                    Run::Values {
                        value: other,
                        len: more,
                    },
                    _,
                )),
            ) if value == other && len + more <= VALUES_MAX => Run::Values {
                value,
                len: len + more,
            },
            _ => {
                at += run_bytes;
                continue;
            }
        };
        let mut one = Vec::with_capacity(Run::MAX_BYTES);
        joined.encode(&mut one);
        bytes.splice(at..at + 2, one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_as_they_were_written() {
        let values = (1..=VALUE_MAX).flat_map(|value| {
            let lens = 1..=VALUES_MAX;
            lens.map(move |len| Run::Values { value, len })
        });
        for run in (1..=super::super::REGISTERS).map(Run::Zeroes).chain(values) {
            let mut bytes = Vec::new();
            run.encode(&mut bytes);
            assert_eq!(Run::decode(&bytes), Some((run, bytes.len())));
            let rest = &bytes[..bytes.len() - 1];
            assert_eq!(Run::decode(rest), None);
        }
    }

    #[test]
    fn a_raised_register_splits_its_run_and_joins_its_equals() {
        let mut bytes = vec![0; HEADER_BYTES];
        Run::Zeroes(100).encode(&mut bytes);
        let mut bytes = Cow::Owned(bytes);
        let mut raise = |register, value| raise(&mut bytes, register, value, 1000).unwrap();
        for register in [10, 12, 11, 13, 14] {
            assert_eq!(raise(register, 5), Raised::Yes);
        }
        assert_eq!(raise(12, 4), Raised::No);
        assert_eq!(raise(12, 33), Raised::TooLong);
        assert_eq!(raise(12, 6), Raised::Yes);
        let mut runs = Vec::new();
        let mut rest = &bytes[HEADER_BYTES..];
        while let Some((run, len)) = Run::decode(rest) {
            runs.push((run.value(), run.len()));
            rest = &rest[len..];
        }
        assert_eq!(runs, [(0, 10), (5, 2), (6, 1), (5, 2), (0, 85)]);
    }
}
