//! The estimate: algorithm 6 of "New cardinality estimation algorithms for HyperLogLog sketches" (Otmar Ertl, arXiv 1702.01284).
//! It needs no correction for small or large counts, and no tables.
//!
//! The operations are in the order that Redis has them in, so that the last bit is the same as well.

use super::{RANK_MAX, REGISTER_VALUES, REGISTERS};

/// 1 / (2 ln 2).
const ALPHA: f64 = 0.721_347_520_444_481_7;

/// How many different elements there have been, if so many registers have each of the values.
pub(super) fn count(histogram: &[usize; REGISTER_VALUES]) -> u64 {
    let registers = REGISTERS as f64;
    let full = histogram[RANK_MAX] as f64;
    let mut sum = registers * tau((registers - full) / registers);
    for &some in histogram[1..RANK_MAX].iter().rev() {
        sum += some as f64;
        sum *= 0.5;
    }
    sum += registers * sigma(histogram[0] as f64 / registers);
    (ALPHA * registers * registers / sum).round() as u64
}

/// The part of registers that are 0: x + the sum of x^(2^k) 2^(k-1) over all k from 1 on.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut factor, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * factor;
        factor += factor;
        if sum == before {
            return sum;
        }
    }
}

/// The part of registers that have all they can: a third of 1 - x - the sum of (1 - x^(2^-k))^2 2^-k over all k from 1 on.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut factor, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        factor *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * factor;
        if sum == before {
            return sum / 3.0;
        }
    }
}
