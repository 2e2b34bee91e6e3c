//! Seeded random numbers, and random orders that visit each item exactly once.
//!
//! Everything random in a run comes from its seed, so a run can be repeated. SplitMix64 is chosen
//! because it is a few instructions and any state, even zero, is a good one.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit of `x` over the whole result (the finaliser of SplitMix64; a bijection).
#[inline]
pub(crate) fn mix64(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The SplitMix64 generator.
#[derive(Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random { state: mix64(seed) }
    }

    #[inline]
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix64(self.state)
    }

    /// A number in `0..bound`. `bound` must not be 0.
    #[inline]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    #[inline]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A seeded permutation of `0..len` in constant memory: `nth(0), nth(1), ...` visits each number
/// exactly once, in an order that looks random.
///
/// Each step of `scramble` is a bijection on numbers of `bits` bits; results that fall outside
/// `0..len` are scrambled again until they fall inside (cycle walking), which keeps the whole a
/// bijection on `0..len` and takes less than two rounds on average.
#[derive(Clone)]
pub(crate) struct Permutation {
    len: u64,
    mask: u64,
    shift: u32,
    rounds: [(u64, u64); 4],
}

impl Permutation {
    /// `len` must be at least 1.
    pub(crate) fn new(len: u64, seed: u64) -> Self {
        assert!(len > 0, "a permutation of nothing");
        let bits = (64 - (len - 1).leading_zeros()).max(1);
        let mut random = Random::new(seed);
        Permutation {
            len,
            mask: u64::MAX >> (64 - bits),
            shift: bits.div_ceil(2),
            rounds: std::array::from_fn(|_| (random.next_u64(), random.next_u64() | 1)),
        }
    }

    /// The number at position `n`, which must be below `len`.
    #[inline]
    pub(crate) fn nth(&self, n: u64) -> u64 {
        debug_assert!(n < self.len);
        let mut x = self.scramble(n);
        while x >= self.len {
            x = self.scramble(x);
        }
        x
    }

    #[inline]
    fn scramble(&self, mut x: u64) -> u64 {
        for (offset, odd) in self.rounds {
            x = x.wrapping_add(offset).wrapping_mul(odd) & self.mask;
            x ^= x >> self.shift;
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_visits_every_number_once() {
        for len in [1, 2, 3, 7, 8, 9, 1_000, 65_537] {
            for seed in 0..4 {
                let order = Permutation::new(len, seed);
                let mut seen = vec![false; len as usize];
                for n in 0..len {
                    let at = order.nth(n) as usize;
                    assert!(!seen[at], "len {len} seed {seed}: {at} twice");
                    seen[at] = true;
                }
            }
        }
    }

    #[test]
    fn a_permutation_does_not_keep_neighbours_together() {
        let order = Permutation::new(100_000, 7);
        let near = (1..100_000)
            .filter(|&n| order.nth(n).abs_diff(order.nth(n - 1)) < 100)
            .count();
        assert!(
            near < 1_000,
            "{near} of 100000 steps are short; about 200 would be by chance"
        );
    }

    #[test]
    fn numbers_below_a_bound_cover_it_evenly() {
        let mut random = Random::new(3);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[random.below(10) as usize] += 1;
        }
        assert!(
            counts.iter().all(|&n| (9_500..10_500).contains(&n)),
            "{counts:?}"
        );
    }
}
