//! The index on DashMap: hash to a list of slots. Obviously right, and the yardstick for [`BucketIndex`](super::BucketIndex).

use std::hash::{BuildHasherDefault, Hasher};

use dashmap::DashMap;
use smallvec::SmallVec;

use super::sealed::Slots;
use super::{Candidates, Index, NextPosition};
use crate::address::{Slot, SlotKind};

/// A concurrent map from hash to slots, newest first.
pub struct DashIndex {
    map: DashMap<u64, SmallVec<[Slot; 1]>, BuildHasherDefault<AlreadyHashed>>,
}

impl Index for DashIndex {
    const NAME: &'static str = "dashmap";
}

/// The keys of the map are hashes already.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Slots for DashIndex {
    fn with_limit(_bytes_max: usize) -> std::io::Result<Self> {
        Ok(DashIndex {
            map: DashMap::default(),
        })
    }

    fn candidates(&self, hash: u64, kind: SlotKind) -> Candidates {
        match self.map.get(&hash) {
            Some(slots) => slots
                .iter()
                .copied()
                .filter(|slot| slot.kind() == kind)
                .collect(),
            None => Candidates::new(),
        }
    }

    fn newest(&self, hash: u64, kind: SlotKind) -> Option<Slot> {
        let slots = self.map.get(&hash)?;
        slots.iter().copied().find(|slot| slot.kind() == kind)
    }

    fn version(&self, _hash: u64) -> Option<u64> {
        None
    }

    fn insert(&self, hash: u64, slot: Slot) {
        self.map.entry(hash).or_default().insert(0, slot);
    }

    fn insert_last(&self, hash: u64, slot: Slot) {
        self.map.entry(hash).or_default().push(slot);
    }

    fn replace(&self, hash: u64, old: Slot, new: Slot) -> bool {
        let Some(mut slots) = self.map.get_mut(&hash) else {
            return false;
        };
        let Some(place) = slots.iter_mut().find(|slot| **slot == old) else {
            return false;
        };
        *place = new;
        true
    }

    fn remove(&self, hash: u64, slot: Slot) -> bool {
        let Some(mut slots) = self.map.get_mut(&hash) else {
            return false;
        };
        let Some(at) = slots.iter().position(|held| *held == slot) else {
            return false;
        };
        slots.remove(at);
        let empty = slots.is_empty();
        drop(slots);
        if empty {
            self.map.remove_if(&hash, |_, slots| slots.is_empty());
        }
        true
    }

    fn grow_for(&self, _slots: u64) {}

    fn prefetch(&self, _hash: u64) {}

    fn slots(&self) -> u64 {
        self.map
            .iter()
            .map(|entry| entry.value().len() as u64)
            .sum()
    }

    fn bytes(&self) -> u64 {
        // One control byte and one (hash, list) pair a place of the table, at most 7/8 full.
        self.map.capacity() as u64 * (1 + size_of::<(u64, SmallVec<[Slot; 1]>)>() as u64)
    }

    /// A position is a hash: each step visits the entry with the smallest hash from there on. O(n) a step, which is what
    /// an unordered map can do; the walk of everything goes in one step instead.
    fn visit(&self, _position: u64, visit: &mut dyn FnMut(Slot)) -> NextPosition {
        for entry in &self.map {
            entry.value().iter().for_each(|&slot| visit(slot));
        }
        None
    }

    fn retain(&self, _position: u64, keep: &mut dyn FnMut(Slot) -> bool) -> NextPosition {
        self.map.retain(|_, slots| {
            slots.retain(|slot| keep(*slot));
            !slots.is_empty()
        });
        None
    }
}
