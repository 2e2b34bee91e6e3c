//! The store (a map in memory for now).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Stop;
use crate::operation::{ColdReads, KeyRef, Meta, Operation, Stored};

/// Separates key spaces that share one log and one index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Namespace(pub u16);

/// Where a record lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// In the mutable region.
    Hot,
    /// In a sealed segment that is mapped from its file.
    Warm,
    /// On the device only.
    Cold,
}

pub(crate) type Map = BTreeMap<(Namespace, Vec<u8>), Stored>;

/// Number of keys in each namespace, and how many of them carry an expiry.
#[derive(Default)]
pub(crate) struct Counts(Mutex<BTreeMap<Namespace, (i64, i64)>>);

impl Counts {
    pub(crate) fn add(&self, namespace: Namespace, meta: &Meta, sign: i64) {
        let mut counts = self.0.lock();
        let (keys, expiring) = counts.entry(namespace).or_default();
        *keys += sign;
        *expiring += if meta.expires_at_ms.is_some() { sign } else { 0 };
    }

    fn of(&self, namespace: Namespace) -> (i64, i64) {
        self.0.lock().get(&namespace).copied().unwrap_or_default()
    }
}

/// The store.
#[derive(Default)]
pub struct Store {
    pub(crate) map: Mutex<Map>,
    counts: Counts,
}

impl Store {
    /// A store in memory.
    pub fn in_memory() -> Arc<Store> {
        Arc::default()
    }

    /// Starts an operation on `keys`, latching each of them. `None` when a latch is taken by another
    /// operation: try again after letting others run.
    pub fn operation<'s>(&'s self, keys: &[KeyRef<'_>], reads: &'s ColdReads, now_ms: u64) -> Option<Operation<'s>> {
        let _ = keys;
        Some(Operation::new(self.map.lock(), &self.counts, reads, now_ms))
    }

    /// Runs `body` as an operation on `keys`, again and again until it meets no cold record, blocking for reads, room
    /// and latches.
    pub fn blocking<T>(&self, keys: &[KeyRef<'_>], now_ms: u64, mut body: impl FnMut(&mut Operation<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        let reads = ColdReads::default();
        loop {
            if let Some(mut operation) = self.operation(keys, &reads, now_ms) {
                return body(&mut operation);
            }
        }
    }

    /// Number of keys in `namespace`.
    pub fn len(&self, namespace: Namespace) -> u64 {
        self.counts.of(namespace).0.max(0) as u64
    }

    /// Number of keys in `namespace` that carry an expiry.
    pub fn expiring(&self, namespace: Namespace) -> u64 {
        self.counts.of(namespace).1.max(0) as u64
    }

    /// Forgets everything in `namespace`; the caller must not use this namespace id until the sweep is over.
    pub fn clear(&self, namespace: Namespace) {
        self.map.lock().retain(|k, _| k.0 != namespace);
        self.counts.0.lock().remove(&namespace);
    }

    /// Moves everything in memory to the cold tier, and returns when it is there.
    pub fn force_cold(&self) -> Result<(), Stop> {
        Ok(())
    }
}
