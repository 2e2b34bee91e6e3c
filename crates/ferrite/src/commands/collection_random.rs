//! Picking elements of a collection at random.
//!
//! What is picked follows from a seed that a command keeps when it is run again: else it would meet other cold elements
//! in every run.

use std::collections::HashSet;
use std::ops::ControlFlow;

use hybridlog::{Collection, Direction, Element};

use super::collection::walk_range;
use crate::command::Stop;

/// A number between 0 and `end`, `end` not included.
fn below(end: u64, random: u64) -> u64 {
    ((u128::from(random) * u128::from(end)) >> 64) as u64
}

/// SplitMix64: number `i` of the sequence that begins with `seed`.
pub(super) fn random(seed: u64, i: u64) -> u64 {
    let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Which of the elements are picked, by their numbers.
pub(super) enum Picks {
    /// Each of them once.
    All { len: u64 },
    /// These, all of them different.
    Different(Vec<u64>),
    /// So many times one of all.
    Any { len: u64, count: u64, seed: u64 },
}

impl Picks {
    /// `count` of `len` elements: different ones, or as many as there are; if it is negative, so many of which some may be
    /// the same.
    pub(super) fn new(len: u64, count: i64, seed: u64) -> Picks {
        let times = count.unsigned_abs();
        if count < 0 && len > 0 {
            let count = times;
            return Picks::Any { len, count, seed };
        }
        if count < 0 || times >= len {
            return Picks::All { len };
        }
        Picks::Different(different(len, times, seed))
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Picks::All { len } => *len,
            Picks::Different(numbers) => numbers.len() as u64,
            Picks::Any { count, .. } => *count,
        }
    }
}

/// `count` different numbers below `len`, which is more than that, every choice as likely as any other (Floyd's method).
pub(super) fn different(len: u64, count: u64, seed: u64) -> Vec<u64> {
    let mut chosen = HashSet::with_capacity(count as usize);
    let mut numbers = Vec::with_capacity(count as usize);
    for (i, end) in (len - count..len).enumerate() {
        let number = below(end + 1, random(seed, i as u64));
        let number = if chosen.insert(number) {
            number
        } else {
            chosen.insert(end);
            end
        };
        numbers.push(number);
    }
    numbers
}

/// Hands the elements of a tree that are picked to `each`; `position` says where an element is by its number.
pub(super) fn pick<'r>(
    collection: &Collection<'r>,
    tree: usize,
    picks: Picks,
    position: impl Fn(u64) -> u64,
    mut each: impl FnMut(Element<'r>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    match picks {
        Picks::All { len } if len == collection.len(tree) => {
            walk_range(collection, tree, 0..len, Direction::Forward, |element| {
                each(element).map(ControlFlow::Continue)
            })
        }
        Picks::All { len } => at_all(collection, tree, (0..len).map(position), &mut each),
        Picks::Different(numbers) => at_all(
            collection,
            tree,
            numbers.into_iter().map(position),
            &mut each,
        ),
        Picks::Any { len, count, seed } => {
            let numbers = (0..count).map(|i| below(len, random(seed, i)));
            at_all(collection, tree, numbers.map(position), &mut each)
        }
    }
}

/// So many elements more are looked at once one has been found to be cold: each may be picked again and again.
const LOOKED_AHEAD: u32 = 1024;

/// Hands the elements at these positions to `each`. A cold one does not end the run at once: some of the others are asked
/// for too, so that one fetch gets many.
fn at_all<'r>(
    collection: &Collection<'r>,
    tree: usize,
    positions: impl Iterator<Item = u64>,
    each: &mut impl FnMut(Element<'r>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let (mut cold, mut ahead) = (None, LOOKED_AHEAD);
    for position in positions {
        if cold.is_some() {
            ahead -= 1;
            if ahead == 0 {
                break;
            }
        }
        match collection.at(tree, position) {
            Ok(Some(element)) if cold.is_none() => each(element)?,
            Ok(_) => {}
            Err(stop @ hybridlog::Stop::Cold) => cold = Some(stop),
            Err(stop) => return Err(stop.into()),
        }
    }
    cold.map_or(Ok(()), |stop| Err(stop.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_different_and_all_come_up() {
        for (len, count) in [(1, 0), (5, 1), (5, 4), (1000, 10), (1000, 999)] {
            let mut seen = HashSet::new();
            for seed in 0..200 {
                let numbers = different(len, count, seed);
                let once: HashSet<_> = numbers.iter().copied().collect();
                assert_eq!(once.len() as u64, count, "{count} of {len}, seed {seed}");
                assert!(numbers.iter().all(|number| *number < len));
                seen.extend(once);
            }
            if count > 0 && len <= 5 || count == 999 {
                assert_eq!(seen.len() as u64, len, "{count} of {len}");
            }
        }
    }

    #[test]
    fn counts_say_how_elements_are_picked() {
        assert!(matches!(Picks::new(3, 3, 0), Picks::All { len: 3 }));
        assert!(matches!(Picks::new(3, 2, 0), Picks::Different(_)));
        assert_eq!(Picks::new(3, -7, 0).len(), 7);
        assert_eq!(Picks::new(0, -7, 0).len(), 0);
        assert_eq!(Picks::new(3, 0, 0).len(), 0);
    }
}
