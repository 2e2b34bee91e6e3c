//! Iteration over keys, random keys, expiry by sampling, and sweeping a namespace.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use crate::address::{Slot, SlotKind};
use crate::epoch;
use crate::index::Index;
use crate::latch::LatchMode;
use crate::operation::{Found, Held, KeyRef, Meta, Operation};
use crate::reads::ColdReads;
use crate::record::RecordRef;
use crate::segment::Place;
use crate::shared::Shared;
use crate::stats::count;
use crate::{Namespace, Stop};

/// Cursors are positions of the index without the low bits, which are always zero: they stay below 2^40, so that clients
/// that keep numbers as doubles keep them exactly.
const CURSOR_SHIFT: u32 = 24;

/// A step of an iteration looks at no more cold records than this, so that the memory it takes is bounded.
const COLD_PER_STEP: usize = 1024;

/// Expired keys that readers met and that are removed in one go: they may need as many cold reads.
const EXPIRED_PER_STEP: usize = 256;

/// What one step of [`Operation::scan`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Where to go on; 0 when the iteration is complete.
    pub cursor: u64,
    /// The keys with their type and expiry.
    pub keys: Vec<(Vec<u8>, Meta)>,
}

impl<I: Index> Operation<'_, I> {
    /// One step of an iteration over the keys of `namespace`: looks at no fewer than `count` slots of the index unless it
    /// reaches the end, or has met a thousand cold records. Starts at cursor 0.
    ///
    /// A key that exists from the first step to the last is returned at least once; one that comes or goes meanwhile may be.
    /// Keys need not be latched for this.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] if cold records have to be fetched (all of the step's are asked for together), [`Stop::Io`].
    pub fn scan(&self, namespace: Namespace, cursor: u64, count: usize) -> Result<Scanned, Stop> {
        let mut scanned = Scanned::default();
        let mut stop = None;
        let (mut looked_at, mut cold) = (0, 0);
        let mut position = Some(cursor << CURSOR_SHIFT);
        while let Some(at) = position.filter(|_| looked_at < count.max(1) && cold < COLD_PER_STEP) {
            let slots;
            (slots, position) = self.bucket(at);
            for &slot in &slots {
                looked_at += 1;
                cold += usize::from(matches!(
                    self.shared.log.table.place(slot.address()),
                    Place::Cold
                ));
                match self.live_key(slot, &slots, namespace) {
                    Ok(Some(found)) => scanned
                        .keys
                        .push((found.record.key().to_vec(), found.record.meta())),
                    Ok(None) => {}
                    Err(reason) => stop = Some(reason),
                }
            }
        }
        scanned.cursor = position.map_or(0, |position| position >> CURSOR_SHIFT);
        stop.map_or(Ok(scanned), Err)
    }

    fn bucket(&self, position: u64) -> (SmallVec<[Slot; 16]>, Option<u64>) {
        let mut slots = SmallVec::new();
        let next = self.shared.index.visit(position, &mut |slot| {
            if slot.kind() == SlotKind::Root {
                slots.push(slot);
            }
        });
        (slots, next)
    }

    /// The record of a slot if it is the live record of a key of `namespace`, rather than expired, or a shadow. It is a
    /// shadow if a newer record of the key was in its `bucket` too: one that has taken its place since is not in there, and
    /// the key would be missed if neither counted.
    fn live_key(
        &self,
        slot: Slot,
        bucket: &[Slot],
        namespace: Namespace,
    ) -> Result<Option<Found<'_>>, Stop> {
        let Some(found) = self.found(slot)? else {
            return Ok(None);
        };
        let record = &found.record;
        if record.namespace() != namespace || self.is_expired(record) {
            return Ok(None);
        }
        let hash = self.shared.hash(namespace, record.key());
        let candidates = self.shared.index.candidates(hash, SlotKind::Root);
        for newer in candidates
            .into_iter()
            .take_while(|candidate| candidate.address() != slot.address())
            .filter(|candidate| bucket.contains(candidate))
        {
            if self
                .found(newer)?
                .is_some_and(|newer| newer.record.is(namespace, record.key()))
            {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// A key of `namespace`, from the place in the index that `random` names; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::scan`].
    pub fn random_key(&self, namespace: Namespace, random: u64) -> Result<Option<Vec<u8>>, Stop> {
        if self.shared.key_counts.keys(namespace) == 0 {
            return Ok(None);
        }
        // From the random place to the end, then from the beginning.
        for start in [random >> CURSOR_SHIFT << CURSOR_SHIFT, 0] {
            let mut position = Some(start);
            while let Some(at) = position {
                let slots;
                (slots, position) = self.bucket(at);
                let mut keys = SmallVec::<[Found<'_>; 16]>::new();
                for &slot in &slots {
                    keys.extend(self.live_key(slot, &slots, namespace)?);
                }
                if !keys.is_empty() {
                    let chosen = (random as usize) % keys.len();
                    return Ok(Some(keys[chosen].record.key().to_vec()));
                }
            }
        }
        Ok(None)
    }
}

impl<I: Index> Shared<I> {
    /// Removes keys that have expired: some of those that readers met, reading the cold ones again, then those found in
    /// memory in the next `buckets` buckets. Returns how many were removed.
    pub(crate) fn expire_some(&self, now_ms: u64, buckets: usize) -> u64 {
        let removed = self.expire_met(now_ms) + self.expire_in_memory(now_ms, buckets);
        count(&self.counters.expired, removed);
        removed
    }

    fn expire_met(&self, now_ms: u64) -> u64 {
        let mut met: Vec<_> = {
            let mut expired = self.expired.lock();
            let kept = expired.len().saturating_sub(EXPIRED_PER_STEP);
            expired.drain(kept..).collect()
        };
        let mut reads = ColdReads::default();
        let mut removed = 0;
        // A record longer than its size class told is known after the second read; what is still missing then has moved
        // meanwhile, and is left to its next reader.
        for _ in 0..3 {
            met.retain(|(namespace, key)| {
                match self.remove_expired(*namespace, key, &reads, now_ms) {
                    Err(Stop::Cold) => return true,
                    result => removed += u64::from(result.unwrap_or(false)),
                }
                false
            });
            if met.is_empty() {
                break;
            }
            reads.fetch_blocking(&self.blocking_reader);
        }
        removed
    }

    fn expire_in_memory(&self, now_ms: u64, buckets: usize) -> u64 {
        let mut expired = Vec::new();
        let pin = epoch::pin();
        let mut position = Some(self.expiry_position.load(Ordering::Relaxed));
        for _ in 0..buckets {
            let Some(at) = position else { break };
            position = self.index.visit(at, &mut |slot| {
                let Some(record) = self.in_memory(slot) else {
                    return;
                };
                if record.expires_at_ms().is_some_and(|at| at <= now_ms) {
                    expired.push((record.namespace(), record.key().to_vec()));
                }
            });
        }
        self.expiry_position
            .store(position.unwrap_or(0), Ordering::Relaxed);
        drop(pin);
        // One that has a cold shadow is left to its next reader.
        let reads = ColdReads::default();
        let remove = |(namespace, key): &(_, Vec<u8>)| {
            let result = self.remove_expired(*namespace, key, &reads, now_ms);
            result.unwrap_or(false)
        };
        expired.iter().filter(|&expired| remove(expired)).count() as u64
    }

    #[allow(unsafe_code)] // Reads a record's immutable parts without its latch.
    pub(crate) fn in_memory(&self, slot: Slot) -> Option<RecordRef<'_>> {
        if slot.kind() != SlotKind::Root {
            return None;
        }
        let Place::Memory { base, .. } = self.log.table.place(slot.address()) else {
            return None;
        };
        // SAFETY: a slot names a record; the callers are pinned while they use it, and look only at what never changes
        // (key, namespace) or is read atomically (expiry).
        Some(unsafe { RecordRef::new(base.as_ptr()) })
    }

    /// Removes the key if it has expired; not one that is latched, which is left to a later round or its next reader.
    fn remove_expired(
        &self,
        namespace: Namespace,
        key: &[u8],
        reads: &ColdReads,
        now_ms: u64,
    ) -> Result<bool, Stop> {
        let key = KeyRef {
            namespace,
            key,
            mode: LatchMode::Exclusive,
        };
        match self.operation(&[key], reads, now_ms) {
            Some(mut operation) => operation.remove_expired(namespace, key.key),
            None => Ok(false),
        }
    }

    /// Takes every key of `namespace` out of the index, reading cold records as needed. The namespace must not be in use.
    pub(crate) fn sweep(&self, namespace: Namespace) {
        self.key_counts.reset(namespace);
        let mut position = Some(0);
        while let Some(at) = position {
            let mut reads = ColdReads::default();
            // Ends: what was cold has been fetched then. What cannot be read stays, and is never found again.
            loop {
                let operation = Operation::new(self, Held::none(&self.latches), &reads, 0);
                position = operation.sweep_some(namespace, at);
                drop(operation);
                if !reads.is_wanting() {
                    break;
                }
                reads.fetch_blocking(&self.blocking_reader);
            }
        }
        self.key_counts.reset(namespace);
    }
}

impl<I: Index> Operation<'_, I> {
    /// Sweeps some buckets from `position` on; asks for the cold records among them.
    fn sweep_some(&self, namespace: Namespace, position: u64) -> Option<u64> {
        let mut next = Some(position);
        for _ in 0..64 {
            let Some(at) = next else { break };
            let slots;
            (slots, next) = self.bucket(at);
            for slot in slots {
                let Ok(Some(found)) = self.found(slot) else {
                    continue;
                };
                if found.record.namespace() == namespace {
                    let key = found.record.key();
                    let hash = self.shared.hash(namespace, key);
                    self.remove_slot(hash, namespace, key, &found);
                    self.free_pages(self.pages_of(&found));
                }
            }
        }
        next
    }
}
