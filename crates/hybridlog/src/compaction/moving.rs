//! Moving the live records of a segment, and dropping dead ones.
//!
//! What must hold: no record is in front of a newer one of its key, nor unmarked behind one. A record that is the newest of its
//! hash is moved without a latch, and looked at again afterwards; any other is looked into under the latch of its key first.
#![allow(unsafe_code)] // Writes copies into the frame of the output.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::{Slot, SlotKind};
use crate::epoch;
use crate::index::Index;
use crate::key_file::RecoveryRecord;
use crate::latch::LatchMode;
use crate::log::Urgency;
use crate::operation::{draft_of, now_ms};
use crate::reads::ColdReads;
use crate::record::RecordRef;
use crate::segment::{Segment, State};
use crate::shared::Shared;
use crate::stats::count;
use crate::sync::atomic::Ordering;
use crate::sync::planted;

use super::window::Window;
use super::{Live, Output};
use crate::Stop;

/// From here on compaction does not pause.
const SPACE_URGENT: u64 = 150;

/// What is read of a segment at a time.
const WINDOW_BYTES: usize = 128 * 1024;

/// Records that are moved under one pin.
const RECORDS_PER_PIN: usize = 64;

/// Records that are read at once to find out whose shadows there are.
const READS_MAX: usize = 1024;

/// Bytes a second that are read while nothing is urgent.
const RATE: u64 = 128 << 20;

/// What became of a record that was to be moved.
enum Outcome {
    Done,
    /// Something is in its way that will pass.
    Later,
    /// There is no room for a copy.
    Full,
}

impl<I: Index> Shared<I> {
    /// Moves the records, which are in the order of the segment. Returns those that are still there.
    pub(super) fn move_records(
        &self,
        segment: &Arc<Segment>,
        records: Vec<Live>,
        reads: &ColdReads,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Vec<Live>> {
        let mut left = Vec::new();
        let mut at = 0;
        while at < records.len() && !stop() {
            let begin = Instant::now();
            let window_end = records[at].record.offset as usize + WINDOW_BYTES;
            let some = records[at..]
                .iter()
                .take_while(|live| live.end <= window_end)
                .count();
            let some = &records[at..at + some.max(1)];
            at += some.len();
            let window = Window::read(self, segment, some)?;
            for some in some.chunks(RECORDS_PER_PIN) {
                self.move_some(segment, &window, some, reads, &mut left)?;
            }
            let read = window.bytes();
            count(&self.compaction.read_bytes, read);
            self.keep_to_the_rate(read, begin.elapsed());
        }
        left.extend_from_slice(&records[at..]);
        Ok(left)
    }

    fn keep_to_the_rate(&self, bytes: u64, took: Duration) {
        let space = self.space();
        let live = space.live_bytes + space.unwritten_live_bytes;
        let is_urgent = (space.disk_bytes - space.gone_bytes) * 100 > live * SPACE_URGENT
            || self.compaction.asked.load(Ordering::Relaxed);
        let time = Duration::from_nanos(bytes * 1_000_000_000 / RATE);
        if let Some(rest) = time.checked_sub(took).filter(|_| !is_urgent) {
            std::thread::sleep(rest);
        }
    }

    /// Moves some records under one pin.
    fn move_some(
        &self,
        segment: &Arc<Segment>,
        window: &Window,
        records: &[Live],
        reads: &ColdReads,
        left: &mut Vec<Live>,
    ) -> io::Result<()> {
        let mut at = 0;
        while at < records.len() {
            let mut output = self.compaction.pause();
            if segment.retired.load(Ordering::Relaxed) {
                // Everything has been forgotten at once: a copy would bring it back. That is done under this lock.
                return Ok(());
            }
            // While the lock is held no generation begins.
            let generation = self.generations.current();
            let is_fit = |output: &Output| output.segment.generation == generation;
            if !output.as_ref().is_some_and(is_fit) {
                self.complete_output(&mut output)?;
                *output = self.open_output(generation);
            }
            let Some(current) = &mut *output else {
                left.extend_from_slice(&records[at..]);
                return Ok(());
            };
            let pin = epoch::pin();
            let mut is_full = false;
            for live in &records[at..] {
                match self.move_one(segment, window, &live.record, reads, current)? {
                    Outcome::Done => {}
                    Outcome::Later => left.push(*live),
                    Outcome::Full => {
                        is_full = true;
                        break;
                    }
                }
                at += 1;
            }
            drop(pin);
            if is_full {
                self.complete_output(&mut output)?;
            }
        }
        Ok(())
    }

    /// Moves one record if it is still live. The caller is pinned.
    fn move_one(
        &self,
        segment: &Segment,
        window: &Window,
        listed: &RecoveryRecord,
        reads: &ColdReads,
        output: &mut Output,
    ) -> io::Result<Outcome> {
        let Some(slot) = self.slot_of(segment, listed) else {
            return Ok(Outcome::Done);
        };
        let Some(record) = window.record(self, segment, listed)? else {
            return Ok(Outcome::Later);
        };
        let hash = listed.hash;
        if listed.kind == SlotKind::Page && self.is_buried(&record) {
            if self.index.remove(hash, slot) {
                self.died(output.segment.generation, slot, record.record_bytes());
            }
            return Ok(Outcome::Done);
        }
        if listed.kind == SlotKind::Root {
            let has_expired = record.expires_at_ms().is_some_and(|at| at <= now_ms());
            if has_expired || self.index.newest(hash, SlotKind::Root) != Some(slot) {
                return Ok(self.move_latched(segment, (hash, slot), &record, reads, output));
            }
        }
        let (outcome, copy) = self.move_live(segment, (hash, slot), &record, output);
        if let Some(copy) = copy.filter(|copy| copy.kind() == SlotKind::Root) {
            self.mark_if_overtaken(output.segment.generation, hash, copy, &record);
        }
        Ok(outcome)
    }

    /// Moves a record that has expired, or is not the newest of its hash, under the latch of its key; drops it if it is dead.
    /// What is moved is the newest record of its key, and stays that meanwhile: it is not marked as shadowed, whatever other
    /// keys' are in front of it.
    fn move_latched(
        &self,
        segment: &Segment,
        (hash, slot): (u64, Slot),
        record: &RecordRef<'_>,
        reads: &ColdReads,
        output: &mut Output,
    ) -> Outcome {
        if reads.wanted() >= READS_MAX {
            return Outcome::Later;
        }
        let Some(operation) = self.operation_on_hash(hash, LatchMode::Exclusive, reads, now_ms())
        else {
            return Outcome::Later;
        };
        let may_be_shadow = match operation.drop_if_dead(hash, record, slot) {
            Ok(true) => return Outcome::Done,
            Ok(false) => false,
            Err(Stop::Cold) => return Outcome::Later,
            // Of what is in front and cannot be read.
            Err(_) => true,
        };
        let (outcome, copy) = self.move_live(segment, (hash, slot), record, output);
        if let Some(copy) = copy.filter(|_| may_be_shadow) {
            self.mark_copy(output.segment.generation, copy);
        }
        outcome
    }

    /// Lets the slot lead to a copy of its record: at the tail if that is in memory, else in the output. Returns the copy's
    /// slot, if it has been made.
    fn move_live(
        &self,
        segment: &Segment,
        (hash, slot): (u64, Slot),
        record: &RecordRef<'_>,
        output: &mut Output,
    ) -> (Outcome, Option<Slot>) {
        if self.log.table.state(segment.number) != State::Warm {
            return self.copy(hash, slot, record, output);
        }
        let generation = output.segment.generation;
        let copy = self.relocate(hash, slot, record, Urgency::Normal, generation);
        let is_there = || {
            let mut candidates = self.index.candidates(hash, slot.kind()).into_iter();
            candidates.any(|other| other == slot)
        };
        match copy.is_none() && is_there() {
            true => (Outcome::Later, None),
            false => (Outcome::Done, copy),
        }
    }

    /// A record that was the newest of its hash has been copied, its key not latched. If a blind write of the key has gone in
    /// front of it meanwhile, the copy is a shadow: that write marks what it finds behind itself, which was the copy or the
    /// old slot, and in the latter case it is seen here. Both look after they have changed the bucket.
    fn mark_if_overtaken(&self, generation: u64, hash: u64, copy: Slot, record: &RecordRef<'_>) {
        let candidates = self.index.candidates(hash, SlotKind::Root);
        let mut in_front = candidates.into_iter().take_while(|slot| *slot != copy);
        let may_be_of_key = |slot| {
            let other = self.in_memory(slot);
            other.is_none_or(|other| other.is(record.namespace(), record.key()))
        };
        if in_front.any(may_be_of_key) {
            self.mark_copy(generation, copy);
        }
    }

    /// What has been copied may be a shadow, and what is known about the record names the place that it has left.
    fn mark_copy(&self, generation: u64, copy: Slot) {
        self.shadowed(generation, copy);
        self.shadows.one_is_unnoted();
    }

    /// Copies a record to the output and lets its slot lead there. The caller is pinned and holds the output.
    fn copy(
        &self,
        hash: u64,
        slot: Slot,
        record: &RecordRef<'_>,
        output: &mut Output,
    ) -> (Outcome, Option<Slot>) {
        let draft = draft_of(record);
        let bytes = draft.record_bytes();
        if self.log.geometry.segment_bytes() - output.at < bytes {
            return (Outcome::Full, None);
        }
        let address = self.log.geometry.address(output.segment.number, output.at);
        // SAFETY: `bytes` at `at` are inside the frame, as just checked, and nobody else's: no slot leads there yet.
        unsafe { draft.write(output.base.as_ptr().add(output.at)) };
        let copy = Slot::new(address, draft.flags, bytes);
        // If the slot has changed, the next copy takes the place.
        let mut replaced = self.index.replace(hash, slot, copy);
        if !replaced && planted!("compacted_in_front") {
            self.index.insert(hash, copy);
            replaced = true;
        }
        if !replaced {
            return (Outcome::Done, None);
        }
        output.at += bytes;
        self.died(output.segment.generation, slot, record.record_bytes());
        count(&self.compaction.moved_bytes, bytes as u64);
        (Outcome::Done, Some(copy))
    }
}
