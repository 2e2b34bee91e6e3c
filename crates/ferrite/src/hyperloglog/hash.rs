//! Which register an element concerns, and what it would make of that.

use super::INDEX_BITS;

/// Redis's seed.
const SEED: u64 = 0xadc8_3b19;

/// The register, and the place of the lowest bit that is set in the rest of the hash, counted from 1; one more than there are if
/// none is.
pub(super) fn register_and_rank(element: &[u8]) -> (usize, u8) {
    let hash = murmur_64a(element, SEED);
    let register = hash & ((1 << INDEX_BITS) - 1);
    let end = 1 << (u64::BITS - INDEX_BITS);
    let rest = hash >> INDEX_BITS | end;
    (register as usize, rest.trailing_zeros() as u8 + 1)
}

/// MurmurHash64A, as on a little-endian machine.
fn murmur_64a(bytes: &[u8], seed: u64) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}
