//! The hash index: key hash to slots.
//!
//! The index holds no keys. It answers a hash with the slots that may belong to it, newest first, and whoever asks
//! compares the key in the record. Two implementations stand behind one trait: [`BucketIndex`], made for cache misses
//! and memory, and [`DashIndex`], made to be obviously right. Tests and benchmarks run on both.

mod bucket;
mod chain;
mod dash;
mod tag;

pub use bucket::BucketIndex;
pub use dash::DashIndex;

use smallvec::SmallVec;

use crate::address::{Slot, SlotKind};

/// Slots that may belong to a hash, newest first. More than one is rare: a tag collision or a shadow.
pub(crate) type Candidates = SmallVec<[Slot; 4]>;

/// One step of an iteration: where to go on, `None` at the end.
pub(crate) type NextPosition = Option<u64>;

pub(crate) mod sealed {
    use super::{Candidates, NextPosition, Slot, SlotKind};

    /// What the engine needs of an index. Every method may be called from any thread at any time; of two slots of one
    /// key the later inserted comes first in every answer.
    pub trait Slots: Send + Sync + Sized + 'static {
        /// An empty index that can grow until it takes `bytes_max` of memory.
        fn with_limit(bytes_max: usize) -> std::io::Result<Self>;

        /// Slots of `kind` that may belong to `hash`, newest first.
        fn candidates(&self, hash: u64, kind: SlotKind) -> Candidates;

        /// The newest slot of `kind` that may belong to `hash`: the first of [`Self::candidates`], found sooner.
        fn newest(&self, hash: u64, kind: SlotKind) -> Option<Slot>;

        /// A number that changes whenever the candidates of `hash` may have changed; `None` if it cannot be told. Asked for
        /// before [`Self::candidates`] or [`Self::newest`] and again later, equal answers mean that theirs is still the same.
        fn version(&self, hash: u64) -> Option<u64>;

        /// Adds a slot in front of all others of its hash.
        fn insert(&self, hash: u64, slot: Slot);

        /// Adds a slot behind all others of its hash.
        fn insert_last(&self, hash: u64, slot: Slot);

        /// Puts `new` in the place of `old`; `false` if `old` is not there (any more).
        fn replace(&self, hash: u64, old: Slot, new: Slot) -> bool;

        /// Takes a slot out; `false` if it is not there.
        fn remove(&self, hash: u64, slot: Slot) -> bool;

        /// Makes room for so many slots before they come, if that costs less than growing with them. The index is empty.
        fn grow_for(&self, slots: u64);

        /// Starts loading what a lookup of `hash` will touch.
        fn prefetch(&self, hash: u64);

        /// Slots in the index.
        fn slots(&self) -> u64;

        /// Memory taken, in bytes.
        fn bytes(&self) -> u64;

        /// Visits the slots of one bucket, beginning at `position` (0 first), and says where the next begins. A slot
        /// that is in the index from the first step to the last is visited at least once, however the index grows.
        fn visit(&self, position: u64, visit: &mut dyn FnMut(Slot)) -> NextPosition;

        /// As `visit`, and takes out the slots that are not to be kept.
        fn retain(&self, position: u64, keep: &mut dyn FnMut(Slot) -> bool) -> NextPosition;
    }
}

/// An index that a [`Store`](crate::Store) can stand on: [`BucketIndex`] or [`DashIndex`].
pub trait Index: sealed::Slots {
    /// Its name in figures and configuration.
    const NAME: &'static str;
}

#[cfg(test)]
mod tests {
    use super::sealed::Slots;
    use super::*;
    use crate::address::Geometry;
    use std::collections::{BTreeMap, BTreeSet};

    fn slot(n: usize, kind: SlotKind) -> Slot {
        let address = Geometry::new(1 << 20).address((n / 1000) as u32, 64 + n % 1000 * 8);
        Slot::of_class(address, kind, 1)
    }

    fn hash(n: usize) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes())
    }

    /// Random operations against a map of lists, checked after every step through the same questions the engine asks.
    fn agrees_with_a_map<I: Slots>(seed: u64) {
        let index = I::with_limit(64 << 20).expect("memory for the index");
        let mut model: BTreeMap<u64, Vec<Slot>> = BTreeMap::new();
        let mut state = seed;
        let mut random = move |below: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        for n in 0..30_000 {
            let key = hash(random(6000));
            let slots = model.entry(key).or_default();
            match random(5) {
                0..=2 if slots.len() < 12 => {
                    let new = slot(n, SlotKind::Root);
                    index.insert(key, new);
                    slots.insert(0, new);
                }
                3 if !slots.is_empty() => {
                    let (at, new) = (random(slots.len()), slot(n, SlotKind::Root));
                    assert!(index.replace(key, slots[at], new), "seed {seed} step {n}");
                    slots[at] = new;
                }
                _ if !slots.is_empty() => {
                    let gone = slots.remove(random(slots.len()));
                    assert!(index.remove(key, gone), "seed {seed} step {n}");
                    assert!(!index.remove(key, gone) && !index.replace(key, gone, gone));
                }
                _ => {}
            }
            let mut found = index.candidates(key, SlotKind::Root);
            found.retain(|slot| slots.contains(slot));
            assert_eq!(found.as_slice(), slots.as_slice(), "seed {seed} step {n}");
            assert!(index.candidates(key, SlotKind::Page).is_empty());
        }
        let mut seen = BTreeSet::new();
        let mut position = Some(0);
        while let Some(at) = position {
            position = index.visit(at, &mut |slot| {
                seen.insert(slot.bits());
            });
        }
        let expected: BTreeSet<u64> = model.values().flatten().map(|slot| slot.bits()).collect();
        assert_eq!(seen, expected, "seed {seed}");
        assert_eq!(index.slots(), expected.len() as u64);
    }

    #[test]
    fn both_indexes_agree_with_a_map() {
        for seed in 0..3 {
            agrees_with_a_map::<BucketIndex>(seed);
            agrees_with_a_map::<DashIndex>(seed);
        }
    }

    fn finds_everything_while_growing<I: Slots>() {
        let index = I::with_limit(256 << 20).expect("memory for the index");
        let keys_per_thread = 60_000;
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let index = &index;
                scope.spawn(move || {
                    for n in thread * keys_per_thread..(thread + 1) * keys_per_thread {
                        index.insert(hash(n), slot(n, SlotKind::Root));
                        let earlier =
                            thread * keys_per_thread + n % 977 % (n - thread * keys_per_thread + 1);
                        let found = index.candidates(hash(earlier), SlotKind::Root);
                        assert!(
                            found.contains(&slot(earlier, SlotKind::Root)),
                            "key {earlier} lost at {n}"
                        );
                    }
                });
            }
            // An iteration during the growth must see everything that was there before it began.
            scope.spawn(|| {
                for n in 1_000_000..1_002_000 {
                    index.insert(hash(n), slot(n, SlotKind::Root));
                }
                let mut seen = BTreeSet::new();
                let mut position = Some(0);
                while let Some(at) = position {
                    position = index.visit(at, &mut |slot| {
                        seen.insert(slot.bits());
                    });
                }
                assert!(
                    (1_000_000..1_002_000).all(|n| seen.contains(&slot(n, SlotKind::Root).bits()))
                );
            });
        });
        assert_eq!(index.slots(), 3 * keys_per_thread as u64 + 2000);
    }

    #[test]
    fn nothing_is_lost_while_the_index_grows() {
        finds_everything_while_growing::<BucketIndex>();
        finds_everything_while_growing::<DashIndex>();
    }
}
