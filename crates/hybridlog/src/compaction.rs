//! Compaction: space that dead records take on the device is given back.
//!
//! What is dead when a checkpoint is due is cheapest given back just before it: most of what was overwritten since the last one
//! has died by then, and the files go with that checkpoint instead of waiting for another. Until then nothing is rewritten as
//! long as the files are not much larger than all that lives, be it in memory only.
//!
//! The segment with the most dead bytes is taken first. Its live records are those that the index still leads to; they are
//! copied into a segment that holds nothing else and goes straight to the device (those of a segment that is mapped anyway
//! go to the tail, and stay in memory). Dead, expired and shadowed ones are left behind. When no slot leads to the segment any
//! more it is gone, and its files go with the next checkpoint.
//!
//! What must hold:
//! * A record is moved without the latch of its key: it cannot change, and its slot is replaced only if it still leads to it.
//! * Whoever looked a slot up before its record was moved must be able to find the copy in memory: so the copies' segment
//!   leaves memory only after an epoch barrier that follows the last copy.
//! * The copies' segment belongs to one generation. The lock on it is held while records are moved and while a checkpoint
//!   begins a generation, which completes it first; so a segment is gone in a generation in which all its copies are complete.
//! * A segment without dead records is never rewritten.
#![allow(unsafe_code)] // Writes copies into a frame of its own.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, MutexGuard};

use crate::address::{CLASS_BYTES, Slot, SlotKind};
use crate::epoch;
use crate::index::Index;
use crate::io::ReadBuffer;
use crate::key_file::{KeyFile, RecoveryRecord};
use crate::latch::LatchMode;
use crate::log::Urgency;
use crate::open_files::FileKind;
use crate::operation::{draft_of, now_ms};
use crate::reads::ColdReads;
use crate::record::{Decoded, RecordRef, decode, write_filler};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, State};
use crate::shared::Shared;
use crate::stats::count;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, planted, sleep};

/// Disk space may be so many hundredths of that of the live records before anything is rewritten.
const SPACE_TARGET: u64 = 130;

/// Nor while no more than so many segments' worth is dead or unused: a checkpoint seals segments that are not full, and if
/// those were rewritten at once the next checkpoint would seal what they have become.
const SEGMENTS_UNUSED: u64 = 4;

/// From here on compaction does not pause.
const SPACE_URGENT: u64 = 150;

/// A segment is rewritten when this share of it is dead, at least: more than is lost at the end of a segment into which the
/// next of the largest records does not fit, so that what has been rewritten is not rewritten again.
const DEAD_SHARE_MIN: u64 = 8;

/// What is read of a segment at a time.
const WINDOW_BYTES: usize = 256 * 1024;

/// Records that are moved under one pin.
const RECORDS_PER_PIN: usize = 64;

/// So many records ahead the index is being loaded where a lookup finds out whether a record is live.
const PREFETCHED: usize = 16;

/// What had to wait is tried again so often before the segment is left alone.
const ROUNDS_MAX: usize = 1000;

/// Records that are read at once to find out whose shadows there are.
const READS_MAX: usize = 1024;

/// Bytes a second that are read while nothing is urgent.
const RATE: u64 = 128 << 20;

/// How often the thread looks whether there is something to do.
const LOOK: Duration = Duration::from_millis(100);

/// After an error nothing is compacted for so long.
const RETRY: Duration = Duration::from_secs(5);

/// How long a key that is latched by others is waited for at a time.
const LATCH_PAUSE: Duration = Duration::from_micros(100);

#[derive(Default)]
pub(crate) struct Compaction {
    /// The segment that copies go to. The lock is taken before the tiering lock.
    output: Mutex<Option<Output>>,
    asked: AtomicBool,
    /// What the next checkpoint writes counts as written.
    checkpoint_is_due: AtomicBool,
    /// Rounds that have found nothing to do, for those who wait for that.
    idle_rounds: Mutex<u64>,
    idle: Condvar,
    wake: Condvar,
    sleeper: Mutex<bool>,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) moved_bytes: AtomicU64,
    pub(crate) reclaimed_bytes: AtomicU64,
}

/// The lock that keeps compaction from moving records.
pub(crate) type Paused<'s> = MutexGuard<'s, Option<Output>>;

/// A segment that is being filled with copies.
pub(crate) struct Output {
    segment: Arc<Segment>,
    base: NonNull<u8>,
    at: usize,
}

// SAFETY: the pointer is into a frame that stays until the output has been completed, and only who holds the lock on the
// output writes through it.
unsafe impl Send for Output {}

/// Bytes on the device, and what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Of the files of all segments, key files included.
    pub disk_bytes: u64,
    /// Of the records in these files that are live.
    pub live_bytes: u64,
    /// Of dead records, as far as is known, and of what is unused.
    pub dead_bytes: u64,
    /// Of `disk_bytes`, what goes with the next checkpoint.
    pub gone_bytes: u64,
    /// Of segments that are in memory only: the next checkpoint writes them.
    pub unwritten_bytes: u64,
    /// Of `unwritten_bytes`, what records that are live take, at most.
    pub unwritten_live_bytes: u64,
}

/// A live record, and where it ends at the latest.
#[derive(Clone, Copy)]
struct Live {
    record: RecoveryRecord,
    end: usize,
}

/// What became of a record that was to be moved.
enum Outcome {
    Done,
    /// Something is in its way that will pass.
    Later,
    /// There is no room for a copy.
    Full,
}

impl Compaction {
    /// As [`Self::pause`], unless records are being moved just now.
    pub(crate) fn try_pause(&self) -> Option<Paused<'_>> {
        self.output.try_lock()
    }

    /// Keeps compaction from moving records until the result is dropped.
    pub(crate) fn pause(&self) -> Paused<'_> {
        self.output.lock()
    }

    /// Whatever gives back more than a little is worth it from now on, until nothing is left of that.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    pub(crate) fn wake(&self) {
        *self.sleeper.lock() = true;
        self.wake.notify_all();
    }

    fn sleep(&self, time: Duration) {
        let mut woken = self.sleeper.lock();
        self.wake.wait_while_for(&mut woken, |woken| !*woken, time);
        *woken = false;
    }
}

impl<I: Index> Shared<I> {
    /// The compaction thread: works until `stop` says so.
    pub(crate) fn run_compaction(&self, stop: &dyn Fn() -> bool) {
        while !stop() {
            if !self.recovery.stats().is_over {
                self.compaction.sleep(LOOK);
                continue;
            }
            let was_asked = self.compaction.asked.load(Ordering::Relaxed);
            match self.compact_one(stop) {
                Ok(true) => {}
                Ok(false) => {
                    if was_asked {
                        self.compaction.asked.store(false, Ordering::Relaxed);
                    }
                    *self.compaction.idle_rounds.lock() += 1;
                    self.compaction.idle.notify_all();
                    self.compaction.sleep(LOOK);
                }
                // Nothing is lost; whoever reads the records is told what is wrong with them.
                Err(_) => {
                    count(&self.counters.compaction_errors, 1);
                    self.compaction.sleep(RETRY);
                }
            }
        }
    }

    /// Compacts until nothing is left that would give back more than a little; blocks the thread. Gives up after `limit`.
    pub(crate) fn compact_all(&self, limit: Duration) -> bool {
        self.compaction.ask();
        self.wait_for_compaction(limit, &|| false)
    }

    /// Compacts until the checkpoint that follows leaves no more than usual on the device, or for `limit`, or
    /// until `stop` says so; blocks the thread.
    pub(crate) fn compact_for_checkpoint(&self, limit: Duration, stop: &dyn Fn() -> bool) {
        let is_due = &self.compaction.checkpoint_is_due;
        is_due.store(true, Ordering::Relaxed);
        if !stop() && self.candidate().is_some() {
            self.wait_for_compaction(limit, stop);
        }
        is_due.store(false, Ordering::Relaxed);
    }

    /// Waits until nothing is left to be compacted, at most for `limit`, and until `stop` says so; whether that is so.
    fn wait_for_compaction(&self, limit: Duration, stop: &dyn Fn() -> bool) -> bool {
        let begin = Instant::now();
        let mut rounds = self.compaction.idle_rounds.lock();
        let before = *rounds;
        self.compaction.wake();
        // The round under way may not have seen what is wanted.
        while *rounds < before + 2 {
            let left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() || stop() {
                return false;
            }
            self.compaction.idle.wait_for(&mut rounds, left.min(LOOK));
        }
        true
    }

    /// How the space on the device is used.
    pub(crate) fn space(&self) -> Space {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let mut space = Space::default();
        for segment in self.log.table.all() {
            let dead = self.log.table.dead_bytes(&segment).min(segment_bytes);
            if !segment.written.load(Ordering::Relaxed) {
                if !segment.retired.load(Ordering::Relaxed) {
                    space.unwritten_bytes += segment_bytes;
                    space.unwritten_live_bytes += segment_bytes - dead;
                }
                continue;
            }
            let bytes = segment_bytes + segment.key_bytes.load(Ordering::Relaxed);
            space.disk_bytes += bytes;
            if segment.retired.load(Ordering::Relaxed) {
                space.gone_bytes += bytes;
                continue;
            }
            space.dead_bytes += dead;
            space.live_bytes += segment_bytes - dead;
        }
        space
    }

    /// The segment that gives back most.
    fn candidate(&self) -> Option<Arc<Segment>> {
        let asked = self.compaction.asked.load(Ordering::Relaxed);
        let space = self.space();
        let live = space.live_bytes + space.unwritten_live_bytes;
        let mut used = space.disk_bytes - space.gone_bytes;
        if self.compaction.checkpoint_is_due.load(Ordering::Relaxed) {
            used += space.unwritten_bytes;
        }
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let is_enough =
            used * 100 > live * SPACE_TARGET && used > live + SEGMENTS_UNUSED * segment_bytes;
        if !asked && !is_enough {
            return None;
        }
        self.compactable()
            .into_iter()
            .max_by_key(|segment| self.log.table.dead_bytes(segment))
    }

    /// Bytes of dead records that compaction would give back if it were asked.
    pub(crate) fn compactable_bytes(&self) -> u64 {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let dead = |segment: &Arc<Segment>| self.log.table.dead_bytes(segment).min(segment_bytes);
        self.compactable().iter().map(dead).sum()
    }

    /// The segments that are worth being rewritten.
    fn compactable(&self) -> Vec<Arc<Segment>> {
        let least = self.log.geometry.segment_bytes() as u64 / DEAD_SHARE_MIN;
        let mut segments = self.log.table.all();
        segments.retain(|segment| {
            let state = self.log.table.state(segment.number);
            let is_complete = matches!(state, State::Cold | State::Warm)
                && segment.written.load(Ordering::Relaxed)
                && !segment.retired.load(Ordering::Relaxed);
            is_complete && self.log.table.dead_bytes(segment) >= least
        });
        segments
    }

    /// Rewrites one segment; `false` if none is worth it.
    pub(crate) fn compact_one(&self, stop: &dyn Fn() -> bool) -> io::Result<bool> {
        while self.free_buried_pages(stop) {}
        let Some(segment) = self.candidate() else {
            let mut output = self.compaction.pause();
            self.complete_output(&mut output)?;
            return Ok(false);
        };
        self.resolve_shadows_in(&segment);
        let mut left = self.live_records(&segment)?;
        // What was latched, or had no room, is tried again; others may make it dead meanwhile.
        let mut reads = ColdReads::default();
        for _ in 0..ROUNDS_MAX {
            left = self.move_records(&segment, left, &reads, stop)?;
            if left.is_empty() || stop() {
                break;
            }
            reads.clear_fetched();
            if reads.is_wanting() {
                reads.fetch_blocking(&self.blocking_reader);
            } else {
                sleep(LATCH_PAUSE);
            }
        }
        if !left.is_empty() {
            return Ok(false);
        }
        // Those noted since name it as well. Who found a slot of it before its record was moved has noted that after this.
        epoch::barrier();
        while !self.resolve_shadows_in(&segment) {
            if stop() {
                return Ok(false);
            }
            std::thread::sleep(LATCH_PAUSE);
        }
        self.forget_segment(&segment);
        Ok(true)
    }

    /// The records of the segment that slots lead to.
    fn live_records(&self, segment: &Segment) -> io::Result<Vec<Live>> {
        let file = KeyFile::open(&*self.disk, segment.file_id)?;
        let (mut column, mut some, mut live) = (file.recovery(), Vec::new(), Vec::<Live>::new());
        let end_max = |record: &RecoveryRecord| {
            let longest = match usize::from(record.size_class) {
                class if (1..CLASS_BYTES.len() - 1).contains(&class) => CLASS_BYTES[class] as usize,
                // The root of a large value, or of the longest: longer only by the length of its key.
                class => CLASS_BYTES[class] as usize + self.key_max_bytes() as usize,
            };
            (record.offset as usize + longest).min(self.log.geometry.segment_bytes())
        };
        loop {
            column.read(&mut some)?;
            if some.is_empty() {
                break;
            }
            for (at, record) in some.iter().enumerate() {
                if let Some(ahead) = some.get(at + PREFETCHED) {
                    self.index.prefetch(ahead.hash);
                }
                if let Some(before) = live.last_mut() {
                    before.end = before.end.min(record.offset as usize);
                }
                if self.slot_of(segment, record).is_some() {
                    let (record, end) = (*record, end_max(record));
                    live.push(Live { record, end });
                }
            }
        }
        file.drop_cached();
        Ok(live)
    }

    fn slot_of(&self, segment: &Segment, record: &RecoveryRecord) -> Option<Slot> {
        let geometry = self.log.geometry;
        let address = geometry.address(segment.number, record.offset as usize);
        let candidates = self.index.candidates(record.hash, record.kind);
        candidates
            .into_iter()
            .find(|slot| slot.address() == address)
    }

    /// Moves the records, which are in the order of the segment. Returns those that are still there.
    fn move_records(
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
            let first = self
                .index
                .candidates(hash, SlotKind::Root)
                .into_iter()
                .next();
            if (has_expired || first != Some(slot))
                && let Some(outcome) = self.drop_dead(hash, &record, slot, reads)
            {
                return Ok(outcome);
            }
        }
        if self.log.table.state(segment.number) == State::Warm {
            let generation = output.segment.generation;
            let moved = self.relocate(hash, slot, &record, Urgency::Normal, generation);
            return Ok(match moved || self.slot_of(segment, listed).is_none() {
                true => Outcome::Done,
                false => Outcome::Later,
            });
        }
        Ok(self.copy(hash, slot, &record, output))
    }

    /// Copies a record to the output and lets its slot lead there. The caller is pinned and holds the output.
    fn copy(&self, hash: u64, slot: Slot, record: &RecordRef<'_>, output: &mut Output) -> Outcome {
        let draft = draft_of(record);
        let bytes = draft.record_bytes();
        if self.log.geometry.segment_bytes() - output.at < bytes {
            return Outcome::Full;
        }
        let address = self.log.geometry.address(output.segment.number, output.at);
        let kind = slot.kind();
        // SAFETY: `bytes` at `at` are inside the frame, as just checked, and nobody else's: no slot leads there yet.
        unsafe { draft.write(output.base.as_ptr().add(output.at)) };
        let copy = Slot::new(address, draft.flags, bytes);
        // If the slot has changed, the next copy takes the place.
        let mut replaced = self.index.replace(hash, slot, copy);
        if !replaced && planted!("compacted_in_front") {
            self.index.insert(hash, copy);
            replaced = true;
        }
        if replaced {
            output.at += bytes;
            let generation = output.segment.generation;
            self.died(generation, slot, record.record_bytes());
            // A blind write may have gone in front of it: it marks what it finds behind itself, which was the copy or the old
            // slot; in the latter case it is seen here. Both look after they have changed the bucket.
            let first = self.index.candidates(hash, kind).into_iter().next();
            if kind == SlotKind::Root && first != Some(copy) {
                self.shadowed(generation, copy);
            }
            count(&self.compaction.moved_bytes, bytes as u64);
        }
        Outcome::Done
    }

    /// Removes the slot of an expired or shadowed record, under the latch of its key. `None` if it is neither.
    fn drop_dead(
        &self,
        hash: u64,
        record: &RecordRef<'_>,
        slot: Slot,
        reads: &ColdReads,
    ) -> Option<Outcome> {
        if reads.wanted() >= READS_MAX {
            return Some(Outcome::Later);
        }
        let Some(operation) = self.operation_on_hash(hash, LatchMode::Exclusive, reads, now_ms())
        else {
            return Some(Outcome::Later);
        };
        match operation.drop_if_dead(hash, record, slot) {
            Ok(false) => None,
            Ok(true) => Some(Outcome::Done),
            Err(_) => Some(Outcome::Later),
        }
    }

    /// The slot leads nowhere any more: the segment's files go with the next checkpoint.
    fn forget_segment(&self, segment: &Arc<Segment>) {
        let _output = self.compaction.pause();
        let _alone = self.tiering.lock();
        let generation = self.generations.current();
        if segment.retired.swap(true, Ordering::Relaxed) {
            // Whoever has forgotten everything at once sweeps it.
            return;
        }
        let was_warm = self.log.table.state(segment.number) == State::Warm;
        self.log.ages.lock().forget(segment);
        self.log.table.publish(segment, None, State::Cold);
        // Readers that found a slot before its record was moved are gone after this.
        epoch::barrier();
        self.open_files.forget(segment.file_id);
        segment.mapping.lock().take();
        segment.forget_marks();
        if was_warm {
            self.log.left_memory();
        }
        let bytes = self.log.geometry.segment_bytes() as u64;
        count(&self.compaction.reclaimed_bytes, bytes);
        self.checkpoints.is_gone(generation, segment.clone());
    }

    fn open_output(&self, generation: u64) -> Option<Output> {
        let (segment, base) = self.log.open_for_copies(generation)?;
        Some(Output {
            segment,
            base,
            at: SEGMENT_HEADER_BYTES,
        })
    }

    /// Writes the output to its files and takes it out of memory.
    pub(crate) fn complete_output(&self, output: &mut Paused<'_>) -> io::Result<()> {
        let Some(open) = output.as_ref() else {
            return Ok(());
        };
        let _alone = self.tiering.lock();
        let (segment, base, at) = (open.segment.clone(), open.base, open.at);
        let bytes = self.log.geometry.segment_bytes();
        if at == SEGMENT_HEADER_BYTES {
            self.log.table.publish(&segment, None, State::Cold);
            epoch::barrier();
            self.log.table.remove(&segment);
        } else {
            if at < bytes {
                // SAFETY: the rest of the frame, which is this output's alone; both are multiples of 8.
                unsafe { write_filler(base.as_ptr().add(at), bytes - at) };
            }
            // Whoever looked up a slot before its record was copied finds the copy in memory until here.
            epoch::barrier();
            self.log.table.walk(base, |_, record| {
                // SAFETY: nobody changes the records, and nobody reads their CRC but from the file.
                unsafe { record.seal() };
            });
            self.write_segment(&segment, base)
                .map_err(io::Error::other)?;
            self.log.table.publish(&segment, None, State::Cold);
            epoch::barrier();
        }
        segment.forget_marks();
        self.log.free_frame(&segment);
        **output = None;
        Ok(())
    }
}

/// Records of a segment, read from the device in one piece.
struct Window {
    /// What was read, from this offset of the segment on; `None` if the segment is mapped.
    read: Option<(usize, ReadBuffer)>,
}

impl Window {
    fn read<I: Index>(
        shared: &Shared<I>,
        segment: &Segment,
        records: &[Live],
    ) -> io::Result<Window> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(Window { read: None });
        };
        if shared.log.table.state(segment.number) == State::Warm {
            return Ok(Window { read: None });
        }
        let read = read_part(shared, segment, first.record.offset as usize, last.end)?;
        Ok(Window { read: Some(read) })
    }

    fn bytes(&self) -> u64 {
        self.read
            .as_ref()
            .map_or(0, |(_, buffer)| buffer.len() as u64)
    }

    /// A record that was asked for; `None` if it was in memory and is not any more. The caller is pinned.
    fn record<'w, I: Index>(
        &'w self,
        shared: &'w Shared<I>,
        segment: &Segment,
        listed: &RecoveryRecord,
    ) -> io::Result<Option<RecordRef<'w>>> {
        let offset = listed.offset as usize;
        let Some((start, buffer)) = &self.read else {
            let Some(base) = shared.log.table.base(segment.number) else {
                return Ok(None);
            };
            // SAFETY: a key file lists where records begin; the segment is sealed, and the caller pinned.
            return Ok(Some(unsafe { RecordRef::new(base.as_ptr().add(offset)) }));
        };
        let longest = shared.log.geometry.segment_bytes() - offset;
        let why = match decode(&buffer[offset - start..], longest) {
            Decoded::Record(record) => return Ok(Some(record)),
            Decoded::Longer(_) => "the record is longer than its place",
            Decoded::Damaged(why) => why,
        };
        let path = shared.open_files.path(segment.file_id, FileKind::Records);
        let what = format!("{} at offset {offset}: {why}", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

/// Reads at least `from..to` of a segment's file, past the page cache. Returns where what was read begins.
fn read_part<I: Index>(
    shared: &Shared<I>,
    segment: &Segment,
    from: usize,
    to: usize,
) -> io::Result<(usize, ReadBuffer)> {
    let file = shared.open_files.get(segment, FileKind::Records)?;
    let alignment = file.alignment() as usize;
    let start = from - from % alignment;
    let end = to.next_multiple_of(alignment);
    let buffer = file.read_at_blocking(start as u64, end - start)?;
    Ok((start, buffer))
}
