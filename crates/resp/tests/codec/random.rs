//! Random input for tests, reproducible from a seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of this run: `RESP_SEED` if it is set, otherwise a new one. It is printed, so a failed
/// test shows it.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("RESP_SEED") {
        Ok(text) => text.parse().expect("RESP_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("after 1970");
            now.as_nanos() as u64
        }
    };
    println!("seed {seed}: to repeat this run, set RESP_SEED={seed}");
    seed
}

/// The splitmix64 generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
