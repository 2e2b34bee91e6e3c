//! Finding out, when things are calm, what blind writes went in front of.
//!
//! A blind write that meets a cold slot, alone with its tag, does not read it: most likely it is the key's own old record,
//! which becomes a shadow. Sometimes it is another key's with the same tag bits, and then the write has added a key that
//! nobody has counted. So such writes are noted, and once there have been none for a while, or many are noted, the cold
//! records are read: a shadow gives its slot back, a stranger corrects the count. Where more are noted than the memory for
//! notes takes, the rest is left to compaction, which drops shadows, but cannot tell whether a stranger has been counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Namespace;
use crate::address::{Slot, SlotKind};
use crate::epoch;
use crate::index::Index;
use crate::latch::LatchMode;
use crate::operation::{Held, KeyRef, Operation};
use crate::reads::ColdReads;
use crate::segment::{Place, Segment};
use crate::shared::Shared;
use crate::sync::Mutex;

/// This share of the memory may be taken by notes. A load of new keys notes one write in some ten thousand; overwriting cold
/// keys notes every write.
const NOTES_SHARE: u64 = 64;

/// How long there must have been no such write.
const CALM: Duration = Duration::from_millis(500);

/// Records read at once.
const BATCH: usize = 256;

/// Reads that a record takes at most: a long key makes it longer than its slot tells.
const READS_MAX: usize = 3;

/// A blind write in front of an unread slot.
struct Noted {
    namespace: Namespace,
    hash: u64,
    unread: Slot,
}

/// All such writes.
#[derive(Default)]
pub(crate) struct Shadows {
    /// By the number of the segment of the unread slot.
    noted: Mutex<HashMap<u32, Vec<Noted>>>,
    /// How many there are.
    len: AtomicUsize,
}

/// Tells when there has been no blind write over an unread slot for a while.
pub(crate) struct CalmClock {
    shadows: u64,
    since: Instant,
}

impl CalmClock {
    pub(crate) fn new() -> CalmClock {
        CalmClock {
            shadows: 0,
            since: Instant::now(),
        }
    }

    fn is_calm(&mut self, shadows: u64) -> bool {
        if shadows != self.shadows {
            self.shadows = shadows;
            self.since = Instant::now();
        }
        self.since.elapsed() >= CALM
    }
}

impl Shadows {
    /// Bytes of memory that the notes take, about.
    pub(crate) fn bytes(&self) -> u64 {
        (self.len.load(Ordering::Relaxed) * size_of::<Noted>()) as u64
    }

    /// Whether as many writes are noted as may be.
    fn is_full(&self, memory_bytes: u64) -> bool {
        self.bytes() >= memory_bytes / NOTES_SHARE
    }

    fn is_half_full(&self, memory_bytes: u64) -> bool {
        self.bytes() >= memory_bytes / NOTES_SHARE / 2
    }

    /// Takes away what has been noted about the slots that `gone` names; returns the namespaces of the keys that were written.
    /// The tiering lock is held, so nobody is looking into them.
    pub(crate) fn forget(&self, gone: impl Fn(Slot) -> bool) -> Vec<Namespace> {
        let (mut all, mut of) = (self.noted.lock(), Vec::new());
        for noted in all.values_mut() {
            let forgotten = noted.extract_if(.., |noted| gone(noted.unread));
            of.extend(forgotten.map(|noted| noted.namespace));
        }
        all.retain(|_, noted| !noted.is_empty());
        let len = all.values().map(Vec::len).sum();
        self.len.store(len, Ordering::Relaxed);
        of
    }

    fn note(&self, segment: u32, noted: Noted) {
        let mut all = self.noted.lock();
        all.entry(segment).or_default().push(noted);
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes some notes, all of one segment.
    fn take_some(&self) -> Vec<Noted> {
        let mut all = self.noted.lock();
        let Some((&segment, noted)) = all.iter_mut().next() else {
            return Vec::new();
        };
        let some = noted.split_off(noted.len().saturating_sub(BATCH));
        if noted.is_empty() {
            all.remove(&segment);
        }
        self.len.fetch_sub(some.len(), Ordering::Relaxed);
        some
    }

    fn take_all_of(&self, segment: u32) -> Vec<Noted> {
        let mut all = self.noted.lock();
        let noted = all.remove(&segment).unwrap_or_default();
        self.len.fetch_sub(noted.len(), Ordering::Relaxed);
        noted
    }
}

impl<I: Index> Shared<I> {
    /// A blind write has put a slot in front of `unread`.
    pub(crate) fn note_shadow(&self, namespace: Namespace, hash: u64, unread: Slot) {
        if self
            .shadows
            .is_full(self.memory_bytes.load(Ordering::Relaxed))
        {
            return;
        }
        let segment = self.log.geometry.segment(unread.address());
        let noted = Noted {
            namespace,
            hash,
            unread,
        };
        self.shadows.note(segment, noted);
    }

    /// If things are calm, or many writes are noted, looks into some of them.
    pub(crate) fn resolve_shadows(&self, clock: &mut CalmClock) {
        let is_calm = clock.is_calm(self.counters.shadows.load(Ordering::Relaxed));
        let memory_bytes = self.memory_bytes.load(Ordering::Relaxed);
        if !is_calm && !self.shadows.is_half_full(memory_bytes) {
            return;
        }
        // What is noted names segments, and only under this lock do those stay what they are.
        let _alone = self.tiering.lock();
        self.resolve_all(&self.shadows.take_some());
    }

    /// Looks into the noted writes over records of one segment, before that is no more.
    /// `false` if keys that others keep latched are left.
    pub(crate) fn resolve_shadows_in(&self, segment: &Segment) -> bool {
        let _alone = self.tiering.lock();
        let noted = self.shadows.take_all_of(segment.number);
        noted.chunks(BATCH).for_each(|some| self.resolve_all(some));
        !self.shadows.noted.lock().contains_key(&segment.number)
    }

    fn resolve_all(&self, batch: &[Noted]) {
        if batch.is_empty() {
            return;
        }
        let mut reads = ColdReads::default();
        for _ in 0..READS_MAX {
            let operation = Operation::new(self, Held::none(&self.latches), &reads, 0);
            for noted in batch {
                // Cold ones are noted as wanted, which is all that matters here.
                let _ = operation.found(noted.unread);
            }
            drop(operation);
            if !reads.is_wanting() {
                break;
            }
            reads.fetch_blocking(&self.blocking_reader);
        }
        for noted in batch {
            self.resolve(noted, &reads);
        }
    }

    fn resolve(&self, noted: &Noted, reads: &ColdReads) {
        let (namespace, key) = {
            let operation = Operation::new(self, Held::none(&self.latches), reads, 0);
            // What cannot be read is left as it is.
            let Ok(Some(found)) = operation.found(noted.unread) else {
                return;
            };
            (found.record.namespace(), found.record.key().to_vec())
        };
        if self.hash(namespace, &key) != noted.hash {
            // Another key's, and it was the only one with the tag.
            self.count_stranger(noted.namespace);
            return;
        }
        // The key's own old record. It has lost its slot already if the key was removed since.
        let latched = KeyRef {
            namespace,
            key: &key,
            mode: LatchMode::Exclusive,
        };
        let Some(operation) = self.operation(&[latched], reads, 0) else {
            self.note_shadow(noted.namespace, noted.hash, noted.unread);
            return;
        };
        let Ok(Some(found)) = operation.found(noted.unread) else {
            return;
        };
        if self.is_shadowed(noted, namespace, &key) && self.index.remove(noted.hash, noted.unread) {
            let had_expiry = found.record.expires_at_ms().is_some();
            self.shadow_died(operation.generation, noted.unread);
            operation.count_keys(namespace, 0, -i64::from(had_expiry));
            operation.free_pages(operation.pages_of(&found));
        }
    }

    /// A blind write has added a key that was not counted.
    pub(crate) fn count_stranger(&self, namespace: Namespace) {
        let _pin = epoch::pin();
        self.key_counts
            .add(self.generations.current(), namespace, 1, 0);
    }

    /// Whether a newer record of the key lies in memory, in front of the noted slot.
    fn is_shadowed(&self, noted: &Noted, namespace: Namespace, key: &[u8]) -> bool {
        let candidates = self.index.candidates(noted.hash, SlotKind::Root);
        let newer = candidates
            .into_iter()
            .take_while(|slot| slot.address() != noted.unread.address());
        newer.into_iter().any(|slot| {
            matches!(self.log.table.place(slot.address()), Place::Memory { .. })
                && self
                    .in_memory(slot)
                    .is_some_and(|record| record.is(namespace, key))
        })
    }
}

#[cfg(test)]
mod tests;
