//! Picking elements of a collection at random.
//!
//! What is picked follows from a seed that a command keeps when it is run again: else it would meet other cold elements
//! in every run.

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
    /// The first of all in another order.
    Different { order: Shuffle, count: u64 },
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
        let order = Shuffle::new(len, seed);
        Picks::Different {
            order,
            count: times,
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Picks::All { len } => *len,
            Picks::Different { count, .. } | Picks::Any { count, .. } => *count,
        }
    }
}

/// The numbers below a length in another order, any as likely as another: a Feistel network over as many bits as the length
/// has, gone through again while what comes out is no number below it. So it takes no memory, however many there are, and
/// tells for each place which number is there and for each number at which place it is.
#[derive(Clone, Copy)]
pub(super) struct Shuffle {
    len: u64,
    seed: u64,
    /// Bits of each of the two halves of a number.
    half_bits: u32,
}

/// Rounds of a shuffle: with four it cannot be told from chance.
const SHUFFLE_ROUNDS: u64 = 6;

impl Shuffle {
    /// Of the numbers below `len`, which is more than 0.
    pub(super) fn new(len: u64, seed: u64) -> Shuffle {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let half_bits = bits.div_ceil(2).max(1);
        Shuffle {
            len,
            seed,
            half_bits,
        }
    }

    /// The number at a place below the length.
    pub(super) fn at(&self, place: u64) -> u64 {
        let rounds = |(left, right), round| (right, left ^ self.mixed(right, round));
        self.walk(place, |halves| (0..SHUFFLE_ROUNDS).fold(halves, rounds))
    }

    /// The place of a number below the length.
    pub(super) fn place_of(&self, number: u64) -> u64 {
        let rounds = |(left, right), round| (right ^ self.mixed(left, round), left);
        self.walk(number, |halves| {
            (0..SHUFFLE_ROUNDS).rev().fold(halves, rounds)
        })
    }

    fn walk(&self, start: u64, through: impl Fn((u64, u64)) -> (u64, u64)) -> u64 {
        let mut number = start;
        loop {
            let (left, right) = through((number >> self.half_bits, number & self.half_mask()));
            number = left << self.half_bits | right;
            if number < self.len {
                return number;
            }
        }
    }

    fn half_mask(&self) -> u64 {
        (1 << self.half_bits) - 1
    }

    fn mixed(&self, half: u64, round: u64) -> u64 {
        random(self.seed ^ half << 3, round) & self.half_mask()
    }
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
        Picks::Different { order, count } => {
            let numbers = (0..count).map(|place| order.at(place));
            at_all(collection, tree, numbers.map(position), &mut each)
        }
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
    fn a_shuffle_has_each_number_once_and_knows_where() {
        for len in [1, 2, 3, 5, 16, 17, 1000, 4097] {
            let order = Shuffle::new(len, len ^ 7);
            let mut numbers: Vec<u64> = (0..len).map(|place| order.at(place)).collect();
            for (place, &number) in (0..).zip(&numbers) {
                assert_eq!(order.place_of(number), place, "{number} of {len}");
            }
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..len), "{len}");
        }
        // The longest there can be.
        let order = Shuffle::new(u64::MAX, 1);
        assert_eq!(order.place_of(order.at(12_345)), 12_345);
    }

    /// By how much each number comes first more or less often than the others: chi-squared, 4 degrees of freedom, below what
    /// chance passes once in ten thousand times.
    #[test]
    fn each_number_is_as_likely_as_any_other() {
        const SEEDS: u64 = 20_000;
        let mut first = [0u64; 5];
        for seed in 0..SEEDS {
            first[Shuffle::new(5, random(seed, 0)).at(0) as usize] += 1;
        }
        let expected = SEEDS as f64 / 5.0;
        let squares = first.map(|count| (count as f64 - expected).powi(2) / expected);
        let chi_squared: f64 = squares.iter().sum();
        assert!(chi_squared < 23.5, "{first:?}");
    }

    #[test]
    fn counts_say_how_elements_are_picked() {
        assert!(matches!(Picks::new(3, 3, 0), Picks::All { len: 3 }));
        assert!(matches!(
            Picks::new(3, 2, 0),
            Picks::Different { count: 2, .. }
        ));
        assert_eq!(Picks::new(3, -7, 0).len(), 7);
        assert_eq!(Picks::new(0, -7, 0).len(), 0);
        assert_eq!(Picks::new(3, 0, 0).len(), 0);
    }
}
