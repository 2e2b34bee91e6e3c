//! Tags of slots: bits of their hashes.
//!
//! A slot's tag holds the hash bits next to those that the bucket's level uses up, below a marker bit. A split
//! shifts the tag right by one: the bit that falls out decides which half the slot goes to, so a split reads no record.
//! A slot that has seen `n` splits has `19 - n` tag bits left; half of all slots have seen none, a quarter one, so on
//! average some 60 in a million lookups meet a wrong candidate. Whoever replaces a slot knows the hash and renews the tag.

use crate::address::{SLOT_BITS, Slot};
use crate::sync::atomic::{AtomicU64, Ordering};

/// Splits that a tag survives: its bits below the marker.
pub(super) const TAG_BITS: u32 = 19;

/// An index word: the slot below, above it the tag of a bucket of `level`.
pub(super) fn tagged(slot: Slot, hash: u64, level: u32) -> u64 {
    slot.bits() | (1 << TAG_BITS | hash >> level & ((1 << TAG_BITS) - 1)) << SLOT_BITS
}

/// Whether the tag bits that `word` still has are those of `hash`; never for an empty word. Without a branch, since which
/// of a bucket's slots are empty, and which matches, is as good as random.
#[inline]
pub(super) fn matches(word: u64, hash: u64, level: u32) -> bool {
    let tag = (word >> SLOT_BITS) as u32;
    let differs = tag ^ ((hash >> level) as u32 | 2 << TAG_BITS);
    // The marker is the tag's highest set bit. No bit below it differs if and only if the lowest that differs is not below
    // it, which is if the tag is not above the mask of the bits up to that one. The subtraction sends the empty word above
    // everything.
    let up_to_lowest = differs ^ (differs - 1);
    tag.wrapping_sub(1) < up_to_lowest
}

/// Those of `slots` that may be `hash`'s, in order.
#[inline(always)]
pub(super) fn matching(slots: &[AtomicU64], hash: u64, level: u32) -> impl Iterator<Item = Slot> {
    let mut matching = 0u32;
    for slot in slots.iter().rev() {
        let word = slot.load(Ordering::Relaxed);
        matching = matching * 2 + u32::from(matches(word, hash, level));
    }
    std::iter::from_fn(move || {
        if matching == 0 {
            return None;
        }
        let at = matching.trailing_zeros() as usize;
        matching &= matching - 1;
        Some(Slot::from_bits(slots[at].load(Ordering::Relaxed)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::SLOT_MASK;

    #[test]
    fn a_tag_decides_every_split_and_fits_its_hash() {
        let hash = 0x9e37_79b9_7f4a_7c15;
        let slot = Slot::from_bits(0x123_4567);
        let mut word = tagged(slot, hash, 10);
        for level in 10..10 + TAG_BITS {
            assert!(matches(word, hash, level));
            assert!(!matches(word, hash ^ 1 << level, level));
            assert_eq!(word >> SLOT_BITS & 1, hash >> level & 1);
            word = word >> SLOT_BITS >> 1 << SLOT_BITS | word & SLOT_MASK;
        }
        assert!(
            matches(word, !hash, 10 + TAG_BITS),
            "no bits left: fits any hash"
        );
    }
}
