//! Finding out, when things are calm, what blind writes went in front of.
//!
//! A blind write that meets a cold slot with its tag does not read it: most likely the slot is the key's own old record,
//! which becomes a shadow. Sometimes it is another key's with the same tag bits, and then the write has added a key that
//! nobody has counted. So such writes are noted (as far as the list goes), and once there have been none for a while the
//! cold records are read: a shadow gives its slot back, a stranger corrects the count.

use std::sync::atomic::Ordering;
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

/// Writes noted at most. A load of new keys notes one in some ten thousand; overwriting cold keys notes every write, and
/// what does not fit is left to compaction.
const NOTED_MAX: usize = 64 * 1024;

/// How long there must have been no such write.
const CALM: Duration = Duration::from_millis(500);

/// Records read at once.
const BATCH: usize = 256;

/// A blind write in front of an unread slot.
struct Noted {
    namespace: Namespace,
    hash: u64,
    unread: Slot,
}

/// The list of such writes.
#[derive(Default)]
pub(crate) struct Shadows {
    noted: Mutex<Vec<Noted>>,
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
    /// Forgets what has been noted about the slots that `gone` names. The tiering lock is held, so nobody is looking into
    /// them.
    pub(crate) fn forget(&self, gone: impl Fn(Slot) -> bool) {
        self.noted.lock().retain(|noted| !gone(noted.unread));
    }

    /// The key's own old record has been found: its blind write was over that, so that nobody is left uncounted.
    pub(crate) fn settle(&self, hash: u64) {
        self.noted.lock().retain(|noted| noted.hash != hash);
    }

    pub(crate) fn note(&self, namespace: Namespace, hash: u64, unread: Slot) {
        let mut noted = self.noted.lock();
        if noted.len() < NOTED_MAX {
            noted.push(Noted {
                namespace,
                hash,
                unread,
            });
        }
    }
}

impl<I: Index> Shared<I> {
    /// If things are calm, looks into some of the noted writes.
    pub(crate) fn resolve_shadows(&self, clock: &mut CalmClock) {
        if !clock.is_calm(self.counters.shadows.load(Ordering::Relaxed)) {
            return;
        }
        // What is noted names segments, and only under this lock do those stay what they are.
        let _alone = self.tiering.lock();
        let batch: Vec<Noted> = {
            let mut noted = self.shadows.noted.lock();
            let from = noted.len().saturating_sub(BATCH);
            noted.drain(from..).collect()
        };
        self.resolve_all(batch);
    }

    /// Looks into the noted writes over records of one segment, before that is no more.
    pub(crate) fn resolve_shadows_in(&self, segment: &Segment) {
        let _alone = self.tiering.lock();
        let geometry = self.log.geometry;
        let is_there =
            |noted: &mut Noted| geometry.segment(noted.unread.address()) == segment.number;
        let batch: Vec<Noted> = self.shadows.noted.lock().extract_if(.., is_there).collect();
        self.resolve_all(batch);
    }

    fn resolve_all(&self, batch: Vec<Noted>) {
        if batch.is_empty() {
            return;
        }
        let mut reads = ColdReads::default();
        {
            let operation = Operation::new(self, Held::none(&self.latches), &reads, 0);
            for noted in &batch {
                // Cold ones are noted as wanted, which is all that matters here.
                let _ = operation.found(noted.unread);
            }
        }
        reads.fetch_blocking(&self.blocking_reader);
        for noted in batch {
            self.resolve(&noted, &reads);
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
            // Another key's. The key's own old record may lie behind it.
            match self.behind(noted) {
                Some(next) => self.shadows.note(noted.namespace, noted.hash, next),
                None => self.count_stranger(noted.namespace),
            }
            return;
        }
        // The key's own old record. It has lost its slot already if the key was removed since.
        let latched = KeyRef {
            namespace,
            key: &key,
            mode: LatchMode::Exclusive,
        };
        let Some(operation) = self.operation(&[latched], reads, 0) else {
            self.shadows.note(noted.namespace, noted.hash, noted.unread);
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
    fn count_stranger(&self, namespace: Namespace) {
        let _pin = epoch::pin();
        self.key_counts
            .add(self.generations.current(), namespace, 1, 0);
    }

    /// The slot with the same tag that comes after the noted one.
    fn behind(&self, noted: &Noted) -> Option<Slot> {
        let candidates = self.index.candidates(noted.hash, SlotKind::Root);
        let mut older = candidates
            .into_iter()
            .skip_while(|slot| slot.address() != noted.unread.address());
        older.nth(1)
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
