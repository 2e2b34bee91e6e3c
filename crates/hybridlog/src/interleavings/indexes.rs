//! A bucket that is split while it is read and written.

use std::sync::Arc;

use super::explore;
use crate::address::{Geometry, Slot, SlotKind};
use crate::index::BucketIndex;
use crate::index::sealed::Slots;
use crate::sync::calmly;

/// The first bucket is the first to be split; it holds this many slots, more than fit into its cache line.
const SLOTS: u64 = 9;
/// So many slots whose hashes end like the first bucket's make the index grow with the next of them.
const SLOTS_BEFORE_GROWTH: u64 = 97;
/// Buckets at the start.
const BUCKETS: u64 = 1024;

/// A hash of the first bucket: the odd ones leave it in the split.
fn hash(n: u64) -> u64 {
    n * BUCKETS
}

fn slot(n: u64) -> Slot {
    let address = Geometry::new(1 << 20).address(0, 64 + 8 * n as usize);
    Slot::of_class(address, SlotKind::Root, 1)
}

/// An index that is about to split its first bucket.
fn nearly_grown() -> Arc<BucketIndex> {
    calmly(|| {
        let index = BucketIndex::with_limit(1 << 20).expect("memory for the index");
        (0..SLOTS).for_each(|n| index.insert(hash(n), slot(n)));
        for n in SLOTS..SLOTS_BEFORE_GROWTH {
            // Not of the first bucket, but counted with it.
            index.insert(hash(n) + 64, slot(n));
        }
        Arc::new(index)
    })
}

fn has(index: &BucketIndex, hash: u64, slot: Slot) -> bool {
    index.candidates(hash, SlotKind::Root).contains(&slot)
}

#[test]
fn nothing_is_lost_in_a_split() {
    explore(2000, || {
        let index = nearly_grown();
        let on = |body: fn(&BucketIndex)| {
            let index = Arc::clone(&index);
            shuttle::thread::spawn(move || body(&index))
        };
        let threads = [
            on(|index| {
                for n in SLOTS_BEFORE_GROWTH..SLOTS_BEFORE_GROWTH + 2 {
                    index.insert(hash(n) + 64, slot(n));
                }
            }),
            on(|index| {
                for n in [4, 5, 6, 7] {
                    assert!(has(index, hash(n), slot(n)), "slot {n} is lost");
                }
            }),
            on(|index| {
                assert!(index.replace(hash(1), slot(1), slot(101)), "slot 1 is lost");
                assert!(has(index, hash(1), slot(101)), "what replaced it is lost");
                assert!(index.remove(hash(2), slot(2)), "slot 2 is lost");
                index.insert(hash(3), slot(103));
                let found = index.candidates(hash(3), SlotKind::Root);
                assert_eq!(found[..], [slot(103), slot(3)], "slot 3 or 103 is lost");
            }),
            on(|index| {
                // The part of an iteration that is the first bucket's, however often that is split.
                let (mut seen, mut position) = (Vec::new(), Some(0));
                while let Some(at) = position.filter(|&at| at < u64::MAX / BUCKETS) {
                    position = index.visit(at, &mut |slot| seen.push(slot));
                }
                for n in [0, 4, 5, 6, 7, 8] {
                    assert!(seen.contains(&slot(n)), "slot {n} is lost to an iteration");
                }
            }),
        ];
        for thread in threads {
            thread.join().expect("no thread fails");
        }
        calmly(|| {
            assert!(index.bytes() > BUCKETS * 64, "the index has grown");
            assert!(!has(&index, hash(1), slot(1)) && !has(&index, hash(2), slot(2)));
            for n in [0, 3, 4, 5, 6, 7, 8] {
                assert!(has(&index, hash(n), slot(n)), "slot {n} is lost");
            }
        });
    });
}
