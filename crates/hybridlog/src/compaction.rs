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
//!   Only one that is not the newest of its hash is looked into under the latch, to find out whether it is a shadow.
//! * Whoever looked a slot up before its record was moved must be able to find the copy in memory: so the copies' segment
//!   leaves memory only after an epoch barrier that follows the last copy.
//! * The copies' segment belongs to one generation. The lock on it is held while records are moved and while a checkpoint
//!   begins a generation, which completes it first; so a segment is gone in a generation in which all its copies are complete.
//! * A segment without dead records is never rewritten.
#![allow(unsafe_code)] // Fills and seals a frame of its own.

mod moving;
mod space;
mod window;

use std::collections::{HashMap, HashSet};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, MutexGuard};

use crate::address::{CLASS_BYTES, Slot};
use crate::epoch;
use crate::index::Index;
use crate::key_file::{KeyFile, RecoveryRecord};
use crate::reads::ColdReads;
use crate::record::write_filler;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, State};
use crate::shared::Shared;
use crate::stats::count;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, sleep};
use space::Calm;
pub use space::Space;

/// So many records ahead the index is being loaded where a lookup finds out whether a record is live.
const PREFETCHED: usize = 16;

/// What had to wait is tried again so often before the segment is left alone.
const ROUNDS_MAX: usize = 100;

/// So many buried objects are looked after for each segment that is rewritten.
const GRAVES_PER_SEGMENT: u32 = 64;

/// How often the thread looks whether there is something to do.
const LOOK: Duration = Duration::from_millis(100);

/// After an error a segment is left alone for so long, and for so long if something was in the way that passes.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_BUSY: Duration = Duration::from_millis(500);

/// How long keys that others keep latched are waited for, then for twice as long, and so on.
const LATCH_PAUSE: Duration = Duration::from_micros(100);
const LATCH_PAUSE_MAX: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(crate) struct Compaction {
    /// The segment that copies go to. The lock is taken before the tiering lock.
    output: Mutex<Option<Output>>,
    asked: AtomicBool,
    /// What the next checkpoint writes counts as written.
    checkpoint_is_due: AtomicBool,
    /// Segments that could not be rewritten, by their file ids.
    left_alone: Mutex<HashMap<u64, LeftAlone>>,
    /// Rounds that have found nothing to do, for those who wait for that.
    idle_rounds: Mutex<u64>,
    idle: Condvar,
    calm: Mutex<Calm>,
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

/// A segment that could not be rewritten.
#[derive(Clone, Copy)]
struct LeftAlone {
    until: Instant,
    /// What failed may fail again: its space must not be counted on.
    has_failed: bool,
}

/// A live record, and where it ends at the latest.
#[derive(Clone, Copy)]
struct Live {
    record: RecoveryRecord,
    end: usize,
}

/// How long to wait each time before what is in the way is tried again.
fn pauses() -> impl Iterator<Item = Duration> {
    let longer = |pause: &Duration| Some((*pause * 2).min(LATCH_PAUSE_MAX));
    std::iter::successors(Some(LATCH_PAUSE), longer).take(ROUNDS_MAX)
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
                // The copies could not be written. They stay in memory.
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

    /// Rewrites one segment, or finds that it cannot be done now; `false` if none is worth it.
    pub(crate) fn compact_one(&self, stop: &dyn Fn() -> bool) -> io::Result<bool> {
        let are_more_buried = (0..GRAVES_PER_SEGMENT).all(|_| self.free_buried_pages(stop));
        let Some(segment) = self.candidate() else {
            let mut output = self.compaction.pause();
            self.complete_output(&mut output)?;
            return Ok(are_more_buried);
        };
        let result = self.compact_segment(&segment, stop);
        let has_failed = result.is_err();
        if has_failed {
            // If it is the copies that cannot be written, they stay in memory, and the segment is not to blame.
            self.complete_output(&mut self.compaction.pause())?;
            // Else nothing is lost; whoever reads the records is told what is wrong with them. Others can be compacted.
            count(&self.counters.compaction_errors, 1);
        }
        let mut left_alone = self.compaction.left_alone.lock();
        if result.is_ok_and(|is_done| is_done) {
            left_alone.remove(&segment.file_id);
            self.stay_calm();
            return Ok(true);
        }
        let time = match has_failed {
            true => RETRY,
            false => RETRY_BUSY,
        };
        let until = Instant::now() + time;
        left_alone.insert(segment.file_id, LeftAlone { until, has_failed });
        drop(left_alone);
        self.forget_left_alone();
        Ok(!stop())
    }

    /// Forgets what is known about segments that are gone.
    fn forget_left_alone(&self) {
        let there: HashSet<u64> = self
            .log
            .table
            .all()
            .iter()
            .map(|segment| segment.file_id)
            .collect();
        let mut left_alone = self.compaction.left_alone.lock();
        left_alone.retain(|file_id, _| there.contains(file_id));
    }

    /// Rewrites a segment; `false` if something is in the way that will pass.
    fn compact_segment(&self, segment: &Arc<Segment>, stop: &dyn Fn() -> bool) -> io::Result<bool> {
        self.resolve_shadows_in(segment);
        let mut left = self.live_records(segment)?;
        // What was latched, or had no room, is tried again; others may make it dead meanwhile.
        let mut reads = ColdReads::default();
        for pause in pauses() {
            left = self.move_records(segment, left, &reads, stop)?;
            if left.is_empty() || stop() {
                break;
            }
            reads.clear_fetched();
            if reads.is_wanting() {
                reads.fetch_blocking(&self.blocking_reader);
            } else {
                sleep(pause);
            }
        }
        if !left.is_empty() {
            return Ok(false);
        }
        // Those noted since name it as well. Who found a slot of it before its record was moved has noted that after this.
        epoch::barrier();
        for pause in pauses() {
            if self.resolve_shadows_in(segment) {
                self.forget_segment(segment);
                return Ok(true);
            }
            if stop() {
                break;
            }
            sleep(pause);
        }
        Ok(false)
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

    /// The slot that leads to a listed record, if one does.
    pub(crate) fn slot_of(&self, segment: &Segment, record: &RecoveryRecord) -> Option<Slot> {
        let geometry = self.log.geometry;
        let address = geometry.address(segment.number, record.offset as usize);
        let candidates = self.index.candidates(record.hash, record.kind);
        candidates
            .into_iter()
            .find(|slot| slot.address() == address)
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
