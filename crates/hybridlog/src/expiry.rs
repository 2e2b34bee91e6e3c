//! Active expiry: keys that have expired are removed although nobody asks for them, wherever they are.
//!
//! Keys in memory are found in the index, a part of it at a time. Those on the device are found through the key files: each
//! lists the keys of its segment that expire, by time, and the segment table knows when the next of them does. A key that is
//! listed as expired loses its slot if that still leads to the very record that was listed, which has not changed since; so
//! no value is read. Only where that does not tell all are records read: a large value has its pages to be freed, and another
//! slot with the same tag may be the key's as well.
//!
//! Collections that are due, because the embedding program wants to look at them at a certain time, are found in the same two
//! ways; they are noted, for the program to take ([`Shared::take_due`]), and met again if there is no room for the note.
//!
//! What must hold:
//! * A slot is taken out under the latch of its key, and only if it leads to the listed record.
//! * No latch is held while something is read, and what is done at a time is bounded.
//! * Whatever could not be removed is met again, and holds up nothing behind it: it is kept to be tried again, or else the place
//!   is where its list is to be read again.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::address::{Slot, SlotKind};
use crate::average_ttl::Sample;
use crate::epoch;
use crate::index::Index;
use crate::key_file::{Expiring, ExpiryPosition, KeyFile};
use crate::latch::LatchMode;
use crate::operation::{KeyRef, Operation};
use crate::reads::ColdReads;
use crate::record::{RecordRef, flag};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::stats::count;
use crate::tree::due_at_ms;
use crate::{Namespace, Stop};

/// Expired keys that readers met and that are removed in one go: they may need as many cold reads.
const MET_PER_STEP: usize = 256;

/// Listed keys that are looked at in one go, and segments whose key files are.
const LISTED_PER_STEP: usize = 16 * 1024;
const SEGMENTS_PER_STEP: usize = 32;

/// Records of listed keys that are read at once.
const READ_AT_ONCE: usize = 64;

/// So many keys of a segment are kept to be tried again; if there are more, its expiry column is read again.
const LEFT_MAX: usize = 256;

/// How often what is in the way of a removal is waited for, and how long at a time.
const ROUNDS_MAX: usize = 10;
const LATCH_PAUSE: Duration = Duration::from_micros(100);

/// Collections that are noted as due until the program takes them, and the bytes of their keys, or there is only one.
const DUE_MAX: usize = 4096;
const DUE_KEYS_MAX_BYTES: usize = 1 << 20;

/// After so long a segment is looked at again in which something was still in the way, or something could not be read.
const BUSY_RETRY_MS: u64 = 100;
const ERROR_RETRY_MS: u64 = 5000;

/// What a step of active expiry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiredSome {
    /// Keys that were removed.
    pub removed: u64,
    /// Whether more keys on the device have expired than one step looks at.
    pub is_behind: bool,
}

/// How far a step has got with listed keys.
struct Step {
    /// So many more may be looked at.
    left: usize,
    removed: u64,
}

/// How far the expiry column of a segment has been dealt with.
#[derive(Default)]
pub(crate) struct ExpiredSoFar {
    up_to: ExpiryPosition,
    /// Keys before that which are to be tried again.
    left: Vec<Expiring>,
    /// If there were more of those than are kept: where to begin once more when all that has expired has been listed, and after
    /// how long.
    begin_again: Option<(ExpiryPosition, u64)>,
}

/// What is to be tried again.
#[derive(Default)]
struct Left {
    keys: Vec<Expiring>,
    /// Whether there are keys among them that cannot be read.
    has_unreadable: bool,
}

/// What became of a listed key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Removed,
    /// There was nothing to remove (any more).
    Nothing,
    /// Its record has to be read first, or those of others.
    Unread,
    /// One of those cannot be read.
    Unreadable,
    Latched,
}

/// Collections that have been found to be due.
#[derive(Default)]
pub(crate) struct Due {
    keys: Vec<(Namespace, Vec<u8>)>,
    /// Bytes of the keys.
    bytes: usize,
}

impl Due {
    /// Whether there was room for it.
    fn note(&mut self, namespace: Namespace, key: &[u8]) -> bool {
        let bytes = self.bytes + key.len();
        let has_room = self.keys.len() < DUE_MAX && bytes <= DUE_KEYS_MAX_BYTES;
        if has_room || self.keys.is_empty() {
            self.keys.push((namespace, key.to_vec()));
            self.bytes = bytes;
            return true;
        }
        false
    }
}

impl<I: Index> Shared<I> {
    /// Removes keys that have expired by `now_ms`: some of those that readers met, reading the cold ones again, then those
    /// found in memory in the next `buckets` buckets, then those that key files list.
    pub(crate) fn expire_some(&self, now_ms: u64, buckets: usize) -> ExpiredSome {
        // A replay expires nothing: it may be about to make a key persist.
        if !self.recovery.stats().is_over {
            return ExpiredSome::default();
        }
        let mut expired = self.expire_listed(now_ms);
        expired.removed += self.expire_met(now_ms) + self.expire_in_memory(now_ms, buckets);
        expired
    }

    fn expire_met(&self, now_ms: u64) -> u64 {
        let mut met: Vec<_> = {
            let mut expired = self.expired.lock();
            let kept = expired.len().saturating_sub(MET_PER_STEP);
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
        let (mut expired, mut due, mut others) = (Vec::new(), Vec::new(), Sample::default());
        let pin = epoch::pin();
        let mut position = Some(self.expiry_position.load(Ordering::Relaxed));
        for _ in 0..buckets {
            let Some(at) = position else { break };
            position = self.index.visit(at, &mut |slot| {
                let Some(record) = self.in_memory(slot) else {
                    return;
                };
                let at = record.expires_at_ms();
                if at.is_some_and(|at| at <= now_ms) {
                    expired.push((record.namespace(), record.key().to_vec()));
                    return;
                }
                if let Some(at) = at {
                    others.add(record.namespace(), at - now_ms);
                }
                if record.flags() & flag::DUE != 0 {
                    // At what time says the value, which may be changing.
                    due.push((record.namespace(), record.key().to_vec()));
                }
            });
        }
        self.expiry_position
            .store(position.unwrap_or(0), Ordering::Relaxed);
        drop(pin);
        let expires = |namespace| self.key_counts.expiring(namespace) > 0;
        self.average_ttls.note(&others, expires);
        let reads = ColdReads::default();
        for (namespace, key) in due {
            self.note_if_due(namespace, &key, &reads, now_ms);
        }
        let mut removed = 0;
        for (namespace, key) in expired {
            match self.remove_expired(namespace, &key, &reads, now_ms) {
                Ok(was_removed) => removed += u64::from(was_removed),
                // It may have a shadow on the device, which has to be read.
                Err(_) => self.note_expired(namespace, &key),
            }
        }
        removed
    }

    /// Notes the key if its collection is due; not one that is latched, or has gone cold, which are met again.
    fn note_if_due(&self, namespace: Namespace, key: &[u8], reads: &ColdReads, now_ms: u64) {
        let latch = KeyRef {
            namespace,
            key,
            mode: LatchMode::Shared,
        };
        let Some(operation) = self.operation(&[latch], reads, now_ms) else {
            return;
        };
        let found = operation.find(self.hash(namespace, key), namespace, key);
        if let Ok(Some(found)) = found
            && is_due(&found.record, now_ms)
        {
            self.note_due(namespace, key);
        }
    }

    /// Whether there was room for it.
    fn note_due(&self, namespace: Namespace, key: &[u8]) -> bool {
        self.due.lock().note(namespace, key)
    }

    /// The collections that have been found to be due; some may be named twice.
    pub(crate) fn take_due(&self) -> Vec<(Namespace, Vec<u8>)> {
        std::mem::take(&mut *self.due.lock()).keys
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

    /// Removes keys that key files list as expired.
    fn expire_listed(&self, now_ms: u64) -> ExpiredSome {
        let mut step = Step {
            left: LISTED_PER_STEP,
            removed: 0,
        };
        let (mut segments, mut is_behind) = (0, false);
        while let Some(segment) = self.log.table.next_to_expire(now_ms) {
            is_behind = step.left == 0 || segments == SEGMENTS_PER_STEP;
            if is_behind {
                break;
            }
            segments += 1;
            if self.expire_in_segment(&segment, now_ms, &mut step).is_err() {
                // Whoever reads its keys is told what is wrong with them, and so is the next start.
                count(&self.counters.expiry_errors, 1);
                let again_ms = now_ms.saturating_add(ERROR_RETRY_MS);
                self.log.table.set_next_expiry(&segment, Some(again_ms));
            }
        }
        ExpiredSome {
            removed: step.removed,
            is_behind,
        }
    }

    /// Removes expired keys of one segment, and notes when to look at it again.
    fn expire_in_segment(&self, segment: &Segment, now_ms: u64, step: &mut Step) -> io::Result<()> {
        let table = &self.log.table;
        if segment.retired.load(Ordering::Relaxed) {
            table.set_next_expiry(segment, None);
            return Ok(());
        }
        let mut so_far = segment.expired.lock();
        let again = std::mem::take(&mut so_far.left);
        let again = self.remove_listed(segment, again, now_ms, step);
        so_far.left = again.keys;
        let file = KeyFile::open(&*self.disk, segment.file_id)?;
        let mut listed = Vec::new();
        let read = file.expiries(so_far.up_to, now_ms, step.left, |key| listed.push(key));
        file.drop_cached();
        step.left -= listed.len();
        // Also those before a damaged block.
        let left = self.remove_listed(segment, listed, now_ms, step);
        let (behind, next_ms) = read?;
        let has_unreadable = again.has_unreadable || left.has_unreadable;
        let pause_ms = match has_unreadable {
            true => ERROR_RETRY_MS,
            false => BUSY_RETRY_MS,
        };
        if so_far.left.len() + left.keys.len() <= LEFT_MAX {
            so_far.left.extend(left.keys);
        } else {
            let (from, before_ms) = so_far.begin_again.unwrap_or((so_far.up_to, 0));
            so_far.begin_again = Some((from, pause_ms.max(before_ms)));
        }
        so_far.up_to = behind;
        let again_ms = now_ms.saturating_add(pause_ms);
        let again_ms = (!so_far.left.is_empty()).then_some(again_ms);
        let has_more = next_ms.is_some_and(|next_ms| next_ms <= now_ms);
        let next_ms = match so_far.begin_again.take_if(|_| !has_more) {
            // What expires before that is listed then, too.
            Some((from, pause_ms)) => {
                so_far.up_to = from;
                Some(now_ms.saturating_add(pause_ms))
            }
            None => next_ms.into_iter().chain(again_ms).min(),
        };
        table.set_next_expiry(segment, next_ms);
        if has_unreadable {
            count(&self.counters.expiry_errors, 1);
        }
        Ok(())
    }

    /// Removes the listed keys; returns those of them that others keep latched, and those that cannot be read.
    fn remove_listed(
        &self,
        segment: &Segment,
        mut listed: Vec<Expiring>,
        now_ms: u64,
        step: &mut Step,
    ) -> Left {
        let mut unread = Vec::new();
        let no_reads = ColdReads::default();
        for round in 0..ROUNDS_MAX {
            listed.retain(|key| match self.remove_as_listed(segment, key, &no_reads) {
                Outcome::Latched => true,
                outcome => {
                    step.removed += u64::from(outcome == Outcome::Removed);
                    if outcome == Outcome::Unread {
                        unread.push(*key);
                    }
                    false
                }
            });
            if listed.is_empty() || round + 1 == ROUNDS_MAX {
                break;
            }
            std::thread::sleep(LATCH_PAUSE);
        }
        let mut left = Left {
            keys: listed,
            has_unreadable: false,
        };
        for some in unread.chunks(READ_AT_ONCE) {
            step.removed += self.remove_reading(segment, some.to_vec(), &mut left, now_ms);
        }
        left
    }

    /// Removes a listed key whose record need not be read for that.
    fn remove_as_listed(&self, segment: &Segment, key: &Expiring, reads: &ColdReads) -> Outcome {
        let mode = LatchMode::Exclusive;
        let Some(operation) = self.operation_on_hash(key.hash, mode, reads, key.expires_at_ms)
        else {
            return Outcome::Latched;
        };
        let Some(slot) = operation.listed_slot(segment, key) else {
            return Outcome::Nothing;
        };
        if key.large || self.index.candidates(key.hash, SlotKind::Root).len() > 1 {
            return Outcome::Unread;
        }
        // A relocation may have moved it to memory meanwhile, where it is found as well.
        if !self.index.remove(key.hash, slot) {
            return Outcome::Nothing;
        }
        count(&self.counters.expired, 1);
        operation.count_keys(key.namespace, -1, -1);
        let bytes = self.likely_bytes(segment, slot);
        self.died(operation.generation, slot, bytes);
        Outcome::Removed
    }

    /// Removes some listed keys, reading what has to be read. Adds those that cannot be removed now to `left`.
    fn remove_reading(
        &self,
        segment: &Segment,
        mut keys: Vec<Expiring>,
        left: &mut Left,
        now_ms: u64,
    ) -> u64 {
        let (mut removed, mut reads) = (0, ColdReads::default());
        for _ in 0..ROUNDS_MAX {
            keys.retain(
                |key| match self.remove_as_read(segment, key, &reads, now_ms) {
                    Outcome::Unread | Outcome::Latched => true,
                    Outcome::Unreadable => {
                        left.keys.push(*key);
                        left.has_unreadable = true;
                        false
                    }
                    outcome => {
                        removed += u64::from(outcome == Outcome::Removed);
                        false
                    }
                },
            );
            if keys.is_empty() {
                break;
            }
            if reads.is_wanting() {
                reads.fetch_blocking(&self.blocking_reader);
            } else {
                std::thread::sleep(LATCH_PAUSE);
            }
        }
        left.keys.append(&mut keys);
        removed
    }

    /// Removes a listed key whose record has been read, with its shadows, or as the shadow that it is.
    fn remove_as_read(
        &self,
        segment: &Segment,
        key: &Expiring,
        reads: &ColdReads,
        now_ms: u64,
    ) -> Outcome {
        let mode = LatchMode::Exclusive;
        let Some(mut operation) = self.operation_on_hash(key.hash, mode, reads, now_ms) else {
            return Outcome::Latched;
        };
        let Some(slot) = operation.listed_slot(segment, key) else {
            return Outcome::Nothing;
        };
        // All together, so that what is missing is fetched together.
        let candidates = self.index.candidates(key.hash, SlotKind::Root);
        let (mut is_cold, mut is_unreadable) = (false, false);
        for other in candidates {
            match operation.found(other) {
                Ok(_) => {}
                Err(Stop::Cold) => is_cold = true,
                Err(_) => is_unreadable = true,
            }
        }
        if is_cold || is_unreadable {
            return match is_cold {
                true => Outcome::Unread,
                false => Outcome::Unreadable,
            };
        }
        let Ok(Some(found)) = operation.found(slot) else {
            return Outcome::Nothing;
        };
        let (namespace, bytes) = (found.record.namespace(), found.record.key().to_vec());
        match operation.remove_expired(namespace, &bytes) {
            Ok(true) => return Outcome::Removed,
            Ok(false) => {}
            Err(Stop::Cold) => return Outcome::Unread,
            Err(_) => return Outcome::Unreadable,
        }
        // The newest record of the key has not expired: this one is due, or a shadow of it.
        if let Ok(Some(found)) = operation.found(slot) {
            let dropped = operation.drop_if_dead(key.hash, &found.record, slot);
            if matches!(dropped, Ok(false))
                && is_due(&found.record, now_ms)
                && !self.note_due(namespace, &bytes)
            {
                return Outcome::Latched;
            }
        }
        Outcome::Nothing
    }
}

fn is_due(record: &RecordRef<'_>, now_ms: u64) -> bool {
    due_at_ms(record).is_some_and(|at| at <= now_ms)
}

impl<I: Index> Operation<'_, I> {
    /// The slot that leads to the listed record, if one does. The key is latched.
    fn listed_slot(&self, segment: &Segment, key: &Expiring) -> Option<Slot> {
        let (log, index) = (&self.shared.log, &self.shared.index);
        let address = log.geometry.address(segment.number, key.offset as usize);
        let candidates = index.candidates(key.hash, SlotKind::Root);
        let slot = candidates
            .into_iter()
            .find(|slot| slot.address() == address)?;
        // The number may be another segment's by now; and what has been forgotten at once, which is marked under all latches,
        // is not counted any more.
        let is_same = log.table.file_id(address) == segment.file_id
            && !segment.retired.load(Ordering::Relaxed);
        is_same.then_some(slot)
    }
}
