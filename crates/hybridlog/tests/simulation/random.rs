//! Random numbers from a seed.

use std::ops::Range;

/// The seeds to test from: so many, or as many as this variable of the environment says (`1000`), or those (`53..54`).
pub(crate) fn seeds(variable: &str, default: u64) -> Range<u64> {
    let Ok(wanted) = std::env::var(variable) else {
        return 0..default;
    };
    let (first, end) = wanted.split_once("..").unwrap_or(("0", &wanted));
    let number = |text: &str| {
        text.parse()
            .expect("a number of seeds, or two with `..` between")
    };
    number(first)..number(end)
}

/// Steele, Lea and Flood's SplitMix64: good from the first number, whatever the seed.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, which is at least 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// `true` this many times in a hundred.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
