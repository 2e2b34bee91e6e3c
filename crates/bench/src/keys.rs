//! Which key comes next, and how a key is spelled.
//!
//! Inside the tool a key is its index, `0..keys`. On the wire it is `k` and the index in decimal,
//! padded with zeros to the asked number of bytes.

use clap::ValueEnum;

use crate::random::{Permutation, Random};

/// How the keys of a run are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// Every key is as likely as any other
    Uniform,
    /// A few keys are popular, and lie scattered over the key space
    Zipfian,
    /// 0, 1, 2, ... and round again
    Sequential,
    /// As zipfian, and the newest key is the most popular
    Latest,
}

/// How keys are spelled: all of one length.
#[derive(Clone, Copy)]
pub(crate) struct KeyFormat {
    bytes: usize,
}

impl KeyFormat {
    /// Keys of `bytes` bytes for the indexes `0..keys`, or the reason why they do not fit.
    pub(crate) fn new(bytes: usize, keys: u64) -> Result<Self, String> {
        let needed = keys.saturating_sub(1).to_string().len() + 1;
        if bytes < needed {
            return Err(format!(
                "--key-bytes {bytes} cannot spell {keys} keys: at least {needed} are needed"
            ));
        }
        Ok(KeyFormat { bytes })
    }

    /// The length of every key.
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }

    /// Appends the key with index `index` to `out`.
    #[inline]
    pub(crate) fn append(self, out: &mut Vec<u8>, mut index: u64) {
        let start = out.len();
        out.resize(start + self.bytes, b'0');
        out[start] = b'k';
        let mut at = out.len();
        while index > 0 && at > start + 1 {
            at -= 1;
            out[at] = b'0' + (index % 10) as u8;
            index /= 10;
        }
    }
}

/// Chooses keys by one distribution. Cheap to clone; each thread has its own.
#[derive(Clone)]
pub(crate) enum KeyChooser {
    Uniform {
        keys: u64,
    },
    Zipfian {
        ranks: Zipfian,
        scatter: Permutation,
    },
    Sequential {
        keys: u64,
    },
    Latest {
        ranks: Zipfian,
    },
}

impl KeyChooser {
    /// A chooser over `keys` keys (at least 1); `theta` is the skew of the zipfian ones.
    pub(crate) fn new(distribution: Distribution, keys: u64, theta: f64, seed: u64) -> Self {
        match distribution {
            Distribution::Uniform => KeyChooser::Uniform { keys },
            Distribution::Sequential => KeyChooser::Sequential { keys },
            Distribution::Latest => KeyChooser::Latest {
                ranks: Zipfian::new(keys, theta),
            },
            Distribution::Zipfian => KeyChooser::Zipfian {
                ranks: Zipfian::new(keys, theta),
                scatter: Permutation::new(keys, seed),
            },
        }
    }

    /// The key of the `turn`th request; `newest` is the highest index written so far.
    #[inline]
    pub(crate) fn choose(&self, random: &mut Random, turn: u64, newest: u64) -> u64 {
        match self {
            KeyChooser::Uniform { keys } => random.below(*keys),
            KeyChooser::Zipfian { ranks, scatter } => scatter.nth(ranks.next(random)),
            KeyChooser::Sequential { keys } => turn % keys,
            KeyChooser::Latest { ranks } => newest.saturating_sub(ranks.next(random)),
        }
    }
}

/// Ranks `0..items` where rank r has probability proportional to 1 / (r + 1)^theta, in constant
/// time a draw: the method of Gray et al., "Quickly Generating Billion-Record Synthetic
/// Databases" (SIGMOD 1994), which YCSB uses too.
#[derive(Clone)]
pub(crate) struct Zipfian {
    items: f64,
    zeta: f64,
    first_two: f64,
    alpha: f64,
    eta: f64,
}

impl Zipfian {
    /// `theta` must lie strictly between 0 and 1.
    pub(crate) fn new(items: u64, theta: f64) -> Self {
        assert!(
            items > 0 && theta > 0.0 && theta < 1.0,
            "items {items}, theta {theta}"
        );
        let zeta = zeta(items, theta);
        let first_two = 1.0 + 0.5f64.powf(theta);
        Zipfian {
            items: items as f64,
            zeta,
            first_two,
            alpha: 1.0 / (1.0 - theta),
            eta: (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - first_two / zeta),
        }
    }

    #[inline]
    pub(crate) fn next(&self, random: &mut Random) -> u64 {
        let u = random.unit();
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.first_two {
            return 1;
        }
        let rank = self.items * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.items as u64 - 1)
    }
}

/// The sum of 1 / i^theta for i in `1..=items`. Terms beyond the first million are summed by the
/// Euler-Maclaurin formula, whose error there is below 1e-7.
fn zeta(items: u64, theta: f64) -> f64 {
    const SUMMED: u64 = 1_000_000;
    let summed = items.min(SUMMED);
    let head: f64 = (1..=summed).map(|i| (i as f64).powf(-theta)).sum();
    let (from, to) = (summed as f64, items as f64);
    let area = (to.powf(1.0 - theta) - from.powf(1.0 - theta)) / (1.0 - theta);
    head + area + (to.powf(-theta) - from.powf(-theta)) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_padded_and_distinct() {
        let format = KeyFormat::new(16, 10_000_000).unwrap();
        let mut out = Vec::new();
        format.append(&mut out, 0);
        format.append(&mut out, 9_999_999);
        assert_eq!(out, b"k000000000000000k000000009999999");
        assert!(KeyFormat::new(4, 1_000).is_ok());
        assert!(KeyFormat::new(4, 1_001).is_err());
    }

    #[test]
    fn zeta_beyond_the_summed_terms_is_exact_enough() {
        let exact: f64 = (1..=3_000_000u64).map(|i| (i as f64).powf(-0.99)).sum();
        assert!((zeta(3_000_000, 0.99) - exact).abs() < 1e-6);
    }

    #[test]
    fn popular_ranks_have_their_zipfian_share() {
        let (items, theta, draws) = (1_000, 0.99, 2_000_000);
        let zipfian = Zipfian::new(items, theta);
        let mut random = Random::new(11);
        let mut counts = vec![0u32; items as usize];
        for _ in 0..draws {
            counts[zipfian.next(&mut random) as usize] += 1;
        }
        let total = zeta(items, theta);
        // The method is exact for the first two ranks and an approximation after them.
        for (rank, tolerance) in [(0usize, 0.02), (1, 0.02), (99, 0.15), (499, 0.15)] {
            let expected = draws as f64 * ((rank + 1) as f64).powf(-theta) / total;
            let seen: f64 = counts[rank.saturating_sub(5)..=rank + 5]
                .iter()
                .map(|&n| f64::from(n))
                .sum::<f64>()
                / 11.0;
            let seen = if rank < 2 {
                f64::from(counts[rank])
            } else {
                seen
            };
            assert!(
                (seen / expected - 1.0).abs() < tolerance,
                "rank {rank}: {seen} {expected}"
            );
        }
    }

    #[test]
    fn zipfian_keys_are_scattered_but_as_skewed() {
        let keys = 10_000;
        let chooser = KeyChooser::new(Distribution::Zipfian, keys, 0.99, 5);
        let mut random = Random::new(5);
        let mut counts = vec![0u32; keys as usize];
        for turn in 0..1_000_000 {
            counts[chooser.choose(&mut random, turn, keys - 1) as usize] += 1;
        }
        let hottest = counts
            .iter()
            .enumerate()
            .max_by_key(|(_, n)| **n)
            .unwrap()
            .0;
        assert_ne!(hottest, 0, "the most popular key is not simply the first");
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let top: u32 = counts[..100].iter().sum();
        let share = zeta(100, 0.99) / zeta(keys, 0.99);
        assert!(
            (f64::from(top) / 1e6 / share - 1.0).abs() < 0.03,
            "{top} against {share}"
        );
    }

    #[test]
    fn tiny_key_spaces_work() {
        for keys in 1..5 {
            let zipfian = Zipfian::new(keys, 0.99);
            let mut random = Random::new(keys);
            assert!((0..1_000).all(|_| zipfian.next(&mut random) < keys));
        }
    }
}
