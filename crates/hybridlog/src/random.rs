//! Random numbers for tests, from a seed that is printed when a test fails.

use std::fmt;

/// A random sequence (splitmix64: Steele, Lea and Flood, OOPSLA 2014) that shows its seed.
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// From the environment's `SEED`, else from a seed of its own.
    pub(crate) fn new() -> Random {
        let given = std::env::var("SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let mut seed = [0; 8];
            getrandom::fill(&mut seed).expect("random bytes of the system");
            u64::from_le_bytes(seed)
        });
        Random::from_seed(seed)
    }

    /// Always the same sequence.
    pub(crate) fn from_seed(seed: u64) -> Random {
        Random { seed, state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

impl fmt::Display for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SEED={}", self.seed)
    }
}
