//! Finding out, when things are calm, what blind writes went in front of.
//!
//! A blind write that meets a cold slot, alone with its tag, does not read it: most likely it is the key's own old record,
//! which becomes a shadow. Sometimes it is another key's with the same tag bits, and then the write has added a key that
//! nobody has counted. So such writes are counted as *unresolved* and noted, and once there have been none for a while, or
//! many are noted, the cold records are read: a shadow gives its slot back, a stranger corrects the count.
//!
//! What must hold:
//! * A blind write is unresolved until its shadow has lost its slot, whoever takes that, or a key has been counted for it; both
//!   in one generation.
//! * Notes may be lost: a restart loses them, so does want of memory, and so do records that cannot be read or have been moved.
//!   `recount` resolves what nobody has noted. Whoever loses a note, or moves a shadow, tells it (`Shadows::one_is_unnoted`).
//! * A noted slot is looked up in the index, under the latch of its key, before it is taken out; what it leads to is read under
//!   the tiering lock, while its segment is there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::address::{Slot, SlotKind};
use crate::epoch;
use crate::index::Index;
use crate::latch::LatchMode;
use crate::operation::{Held, Operation};
use crate::reads::ColdReads;
use crate::recount::Recount;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::stats::count;
use crate::sync::Mutex;
use crate::{Namespace, Stop};

/// This share of the memory may be taken by notes. A load of new keys notes one write in some ten thousand; overwriting cold
/// keys notes every write.
const NOTES_SHARE: u64 = 32;

/// How long there must have been no such write.
const CALM: Duration = Duration::from_millis(500);

/// Records read at once.
const BATCH: usize = 256;

/// Rounds of reads that it takes at most to look into a slot: a long key makes a record longer than its slot tells, and the
/// other records of its hash are asked for when it has been read.
const READS_MAX: usize = 4;

/// So long notes are looked into before others have a turn.
const SLICE: Duration = Duration::from_millis(50);

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
    /// How many shadows there may be, or have been, that no note names.
    unnoted: AtomicU64,
}

/// What has become of a slot that was looked into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// If it led to a shadow, it is no more.
    Over,
    /// The slot is not there any more: it has been taken out, or leads elsewhere.
    Gone,
    /// Records have to be read first, or others keep the key latched.
    Later,
    /// The record cannot be read.
    Unreadable,
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
    /// Bytes of memory that the notes may take, about: a list that grows has room for twice what is in it.
    pub(crate) fn bytes(&self) -> u64 {
        (self.len.load(Ordering::Relaxed) * 2 * size_of::<Noted>()) as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// How often [`Self::one_is_unnoted`] has been told since the store was opened.
    pub(crate) fn unnoted(&self) -> u64 {
        // Acquire pairs with the Release in `one_is_unnoted`.
        self.unnoted.load(Ordering::Acquire)
    }

    /// No note names what a blind write has gone in front of. It is marked as shadowed in the deaths of the current generation
    /// or of an earlier one.
    pub(crate) fn one_is_unnoted(&self) {
        // Release pairs with the Acquire in `unnoted`: who sees it sees a generation that is not older.
        self.unnoted.fetch_add(1, Ordering::Release);
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
        self.forget_those(|noted| gone(noted.unread))
    }

    /// Takes away what has been noted about writes to keys of the namespace. The tiering lock is held.
    pub(crate) fn forget_all_of(&self, namespace: Namespace) {
        drop(self.forget_those(|noted| noted.namespace == namespace));
    }

    fn forget_those(&self, is_gone: impl Fn(&Noted) -> bool) -> Vec<Namespace> {
        let (mut all, mut of) = (self.noted.lock(), Vec::new());
        for noted in all.values_mut() {
            let forgotten = noted.extract_if(.., |noted| is_gone(noted));
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
        noted.shrink_to(noted.len() * 2);
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
    /// A blind write of `generation` is about to put a slot in front of `unread`, which is `alone` with the tag unless the
    /// write could not be held up.
    pub(crate) fn note_shadow(
        &self,
        generation: u64,
        (namespace, hash): (Namespace, u64),
        unread: Slot,
        alone: bool,
    ) {
        // In this order, see `recount`.
        count(&self.counters.shadows, 1);
        self.key_counts.add_unresolved(generation, namespace, 1);
        let memory_bytes = self.memory_bytes.load(Ordering::Relaxed);
        if !alone || self.shadows.is_full(memory_bytes) {
            return self.shadows.one_is_unnoted();
        }
        self.note(Noted {
            namespace,
            hash,
            unread,
        });
    }

    fn note(&self, noted: Noted) {
        let segment = self.log.geometry.segment(noted.unread.address());
        self.shadows.note(segment, noted);
    }

    /// If things are calm, or many writes are noted, looks into some of them; if none is, into what nobody has noted.
    pub(crate) fn resolve_shadows(&self, clock: &mut CalmClock, recount: &mut Recount) {
        let is_calm = clock.is_calm(self.counters.shadows.load(Ordering::Relaxed));
        let begin = Instant::now();
        loop {
            let memory_bytes = self.memory_bytes.load(Ordering::Relaxed);
            if !is_calm && !self.shadows.is_half_full(memory_bytes) {
                return;
            }
            let is_more_left = match self.shadows.is_empty() {
                true => self.recount(recount),
                // What is noted names segments, and only under this lock do those stay what they are.
                false => {
                    let _alone = self.tiering.lock();
                    self.resolve_all(self.shadows.take_some())
                }
            };
            if !is_more_left || begin.elapsed() >= SLICE || self.is_room_wanted() {
                return;
            }
        }
    }

    /// Looks into the noted writes over records of one segment, before that is no more.
    /// `false` if some are left, of keys that others keep latched.
    pub(crate) fn resolve_shadows_in(&self, segment: &Segment) -> bool {
        let _alone = self.tiering.lock();
        let mut noted = self.shadows.take_all_of(segment.number);
        while !noted.is_empty() {
            let some = noted.split_off(noted.len().saturating_sub(BATCH));
            self.resolve_all(some);
        }
        !self.shadows.noted.lock().contains_key(&segment.number)
    }

    /// Looks into a batch of noted writes; notes those again that have to wait, and returns `false` if there are any.
    fn resolve_all(&self, batch: Vec<Noted>) -> bool {
        let left = self.look_into(batch, |noted, reads| {
            let looked = self.resolve(noted, reads);
            if matches!(looked, Looked::Gone | Looked::Unreadable) {
                // If it is a shadow, it may be one elsewhere by now.
                self.shadows.one_is_unnoted();
            }
            looked
        });
        let is_over = left.is_empty();
        left.into_iter().for_each(|noted| self.note(noted));
        is_over
    }

    /// Looks into all of `batch`, reading what has to be read. Returns those that have to wait.
    pub(crate) fn look_into<T>(
        &self,
        mut batch: Vec<T>,
        mut look: impl FnMut(&T, &ColdReads) -> Looked,
    ) -> Vec<T> {
        let mut reads = ColdReads::default();
        for _ in 0..=READS_MAX {
            batch.retain(|one| look(one, &reads) == Looked::Later);
            if batch.is_empty() || !reads.is_wanting() {
                break;
            }
            reads.fetch_blocking(&self.blocking_reader);
        }
        batch
    }

    /// The tiering lock is held.
    fn resolve(&self, noted: &Noted, reads: &ColdReads) -> Looked {
        let operation = Operation::new(self, Held::none(&self.latches), reads, 0);
        // The slot may have been taken out since. The segment has not: before it goes, or its number leads to another, what is
        // noted about it is looked into, or forgotten, under this lock.
        let hash = match operation.found(noted.unread) {
            Ok(Some(found)) => self.hash_of(&found.record).0,
            other => return not_found(other.err()),
        };
        drop(operation);
        if hash != noted.hash {
            // Another key's, and it was the only one with the tag.
            self.count_stranger(noted.namespace);
            return Looked::Over;
        }
        // The key's own old record. It has lost its slot already if the key was removed since.
        self.drop_shadow(hash, noted.unread, reads)
    }

    /// Takes a slot of the hash out of the index if it is still there and leads to a shadow.
    pub(crate) fn drop_shadow(&self, hash: u64, slot: Slot, reads: &ColdReads) -> Looked {
        let Some(operation) = self.operation_on_hash(hash, LatchMode::Exclusive, reads, 0) else {
            return Looked::Later;
        };
        // What was remembered may lead into the middle of another segment's record by now; what the index holds does not, and
        // the operation is pinned.
        if !self.index.candidates(hash, SlotKind::Root).contains(&slot) {
            return Looked::Gone;
        }
        let found = match operation.found(slot) {
            Ok(Some(found)) => found,
            other => return not_found(other.err()),
        };
        if self.hash_of(&found.record) != (hash, SlotKind::Root) {
            // Another key's, with the same tag.
            return Looked::Over;
        }
        match operation.drop_if_dead(hash, &found.record, slot) {
            Err(Stop::Cold) => Looked::Later,
            Err(_) => Looked::Unreadable,
            Ok(_) => Looked::Over,
        }
    }

    /// A blind write has added a key that was not counted.
    pub(crate) fn count_stranger(&self, namespace: Namespace) {
        let _pin = epoch::pin();
        self.count_strangers(namespace, 1);
    }

    /// So many have. The caller is pinned.
    pub(crate) fn count_strangers(&self, namespace: Namespace, keys: i64) {
        let generation = self.generations.current();
        self.key_counts.add(generation, namespace, keys, 0);
        self.key_counts.add_unresolved(generation, namespace, -keys);
    }
}

/// What it means that a record was not found.
fn not_found(why: Option<Stop>) -> Looked {
    match why {
        None => Looked::Gone,
        Some(Stop::Cold) => Looked::Later,
        Some(_) => Looked::Unreadable,
    }
}

#[cfg(test)]
mod tests;
