//! Moves segments down the tiers: mutable, sealed, warm, cold. One at a time, by one thread.
//!
//! Invariants:
//! * A segment becomes immutable (`Sealed`) first; only when everyone who might still change it has unpinned is it
//!   written. A writer that finds its record sealed appends instead.
//! * What a table entry pointed to is given back only after an epoch barrier has passed since it stopped pointing there.
//! * Only the oldest segment of a tier moves, so the youngest data stays in place longest; records that were read are
//!   copied to the tail when their segment leaves memory (second chance, as in CLOCK).
#![allow(unsafe_code)] // Seals and writes out frames.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::address::{RECORD_ALIGN, SlotKind};
use crate::epoch;
use crate::index::Index;
use crate::log::{EMERGENCY_SEGMENTS, Urgency};
use crate::open_files::FileKind;
use crate::record::{RecordRef, flag, write_filler};
use crate::recount::Recount;
use crate::room::NoRoomReason;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, State};
use crate::shadows::CalmClock;
use crate::shared::Shared;
use crate::stats::count;
use crate::sync::planted;
use crate::sys::FileMapping;

/// Segments that exist beside the budget: the emergency reserve, one that is in its frame and in the page cache while it
/// is written, one free frame kept for the next, and the one that compaction fills.
pub(crate) const SEGMENTS_IN_TRANSIT: usize = EMERGENCY_SEGMENTS + 3;

/// Below so many free segments the oldest leave memory.
pub(crate) const FREE_SEGMENTS_LOW: usize = 3;

/// Segments that stay in memory whatever is wanted: the one that is appended to, and the one that leaves next.
pub(crate) const SEGMENTS_KEPT: usize = 2;

/// With fewer segments than this the log cannot work: one to append to, one to leave memory, and the free ones.
pub(crate) const SEGMENTS_MIN: usize = FREE_SEGMENTS_LOW + 3;

/// How long a segment that could not be written waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the thread sleeps if nobody wakes it.
const IDLE: Duration = Duration::from_millis(100);

/// Of a segment that leaves memory at most this share is copied back, in eighths, so that memory gets free whatever was
/// read.
const SECOND_CHANCE_EIGHTHS: usize = 6;

/// Of the segments in memory this share, in eighths, is sealed ahead, so that leaving memory need not wait for a write.
const WARM_EIGHTHS: usize = 1;

/// Files are written in multiples of this.
const PAGE_BYTES: usize = 4096;

/// Whether records that were read are copied back when their segment leaves memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecondChance {
    Give,
    Refuse,
}

impl<I: Index> Shared<I> {
    /// The tiering thread: makes room until `stop` says so.
    pub(crate) fn run_tiering(&self, stop: &dyn Fn() -> bool) {
        let (mut clock, mut recount) = (CalmClock::new(), Recount::default());
        while !stop() {
            if self.log.wants_frame() {
                self.log.prepare_frame();
            }
            let made_room = self.make_room();
            self.resolve_shadows(&mut clock, &mut recount);
            match made_room {
                // Those who want room meanwhile are refused; trying for each of them would do nothing but write.
                Err(NoRoomReason::CannotWrite(_)) => self.room.pause(RETRY, stop),
                _ => self.room.sleep(IDLE),
            }
        }
    }

    /// Whether somebody waits for this thread to make room, or will soon.
    pub(crate) fn is_room_wanted(&self) -> bool {
        self.log.free_segments() < FREE_SEGMENTS_LOW || self.room.wanted_bytes() > 0
    }

    /// Moves segments until enough are free.
    fn make_room(&self) -> Result<(), NoRoomReason> {
        let mut alone = self.tiering.lock();
        let result = self.make_room_alone(&mut alone);
        self.room
            .round_is_over(result.as_ref().err().cloned(), result.is_ok());
        result
    }

    fn make_room_alone(&self, alone: &mut MutexGuard<'_, ()>) -> Result<(), NoRoomReason> {
        loop {
            // Under constant writes a round does not end; whoever else wants to move segments has a turn in between.
            MutexGuard::bump(alone);
            let fit = self.update_budget();
            let out_of_memory = self.log.is_out_of_memory();
            let budget = self.log.budget();
            let wanted =
                self.room
                    .wanted_bytes()
                    .div_ceil(self.log.geometry.segment_bytes() as u64) as usize;
            let target = if out_of_memory {
                budget.saturating_sub(fit)
            } else {
                FREE_SEGMENTS_LOW + wanted
            };
            let target = target.min(budget - SEGMENTS_KEPT);
            let (mutable, warm) = {
                let ages = self.log.ages.lock();
                (ages.mutable.len(), ages.warm.len())
            };
            let short_of_room = self.log.free_segments() < target;
            // Sealing ahead costs in-place updates, so it begins only when memory is nearly full.
            let nearly_full = mutable + warm + target + 1 >= budget;
            let warm_target = (budget * WARM_EIGHTHS / 8).max(1);
            let moved = if short_of_room && warm > 0 {
                self.cool_oldest(SecondChance::Give)
            } else if nearly_full && warm < warm_target && mutable > 1 {
                self.seal_oldest().map_err(NoRoomReason::CannotWrite)?
            } else {
                false
            };
            if !moved {
                return if out_of_memory {
                    Err(NoRoomReason::OutOfMemory)
                } else {
                    Ok(())
                };
            }
            if short_of_room {
                // Those who wait need not wait for all of it.
                self.room.some_was_made();
            }
        }
    }

    /// Gives the log what the rest leaves of the memory, and says how many segments that is.
    fn update_budget(&self) -> usize {
        let fit = self.segments_that_fit();
        self.log.set_budget(fit.max(SEGMENTS_MIN));
        self.log.set_out_of_memory(fit < SEGMENTS_MIN);
        fit
    }

    /// Writes the oldest mutable segment to its file and maps it. `false` if there is none.
    pub(crate) fn seal_oldest(&self) -> Result<bool, String> {
        let Some(segment) = self.log.ages.lock().mutable.front().cloned() else {
            return Ok(false);
        };
        self.seal(&segment).map(|()| true)
    }

    /// Takes segments out of memory that would have to leave while another is being sealed: that one is in memory twice for a
    /// moment, and those who append begin others. So a checkpoint takes no memory that was free before. The tiering lock is
    /// held.
    pub(crate) fn make_room_to_seal(&self) {
        let target = FREE_SEGMENTS_LOW + 2;
        let target = target.min(self.log.budget() - SEGMENTS_KEPT);
        while self.log.free_segments() < target && self.cool_oldest(SecondChance::Give) {}
    }

    /// Writes a mutable segment to its file and maps it. The tiering lock is held.
    pub(crate) fn seal(&self, segment: &Arc<Segment>) -> Result<(), String> {
        let Some(base) = self.log.table.base(segment.number) else {
            return Ok(());
        };
        if self.log.table.state(segment.number) == State::Mutable {
            self.log.table.publish(segment, Some(base), State::Sealed);
            self.log.detach(segment);
            // From here on nobody appends to the segment or changes it in place.
            if !planted!("sealed_without_barrier") {
                epoch::barrier();
            }
            self.log.table.walk(base, |_, record| {
                // SAFETY: sealed, and the barrier has passed; frames are writable.
                unsafe { record.seal() };
            });
        }
        self.write_segment(segment, base)?;
        let path = self.disk.path(&segment_file_name(segment.file_id));
        let mapping = FileMapping::new(&path, self.log.geometry.segment_bytes())
            .map_err(|error| error.to_string())?;
        let base = mapping.base();
        // First this: whoever finds a record in a warm segment finds the mapping.
        *segment.mapping.lock() = Some(Arc::new(mapping));
        self.log.table.publish(segment, Some(base), State::Warm);
        {
            let mut ages = self.log.ages.lock();
            ages.mutable.retain(|other| !Arc::ptr_eq(other, segment));
            ages.warm.push_back(segment.clone());
        }
        // Readers of the frame are gone after this.
        epoch::barrier();
        self.log.free_frame(segment);
        Ok(())
    }

    /// Writes the frame of a sealed segment to its files on the device, unless that has been done.
    pub(crate) fn write_segment(&self, segment: &Segment, base: NonNull<u8>) -> Result<(), String> {
        if segment.written.load(Ordering::Relaxed) {
            return Ok(());
        }
        let size = self.size_of(base);
        let unused = self.log.geometry.segment_bytes() - size.end;
        if unused > 0 {
            // One filler to the end of the segment in the place of several: what follows its header is a hole in the file, in
            // which nobody must look for another.
            // SAFETY: behind the last record of a sealed segment, up to the end of its frame; both are multiples of 8.
            unsafe { write_filler(base.as_ptr().add(size.end), unused) };
        }
        self.write_files(segment, base, &size).map_err(|error| {
            count(&self.counters.flush_errors, 1);
            error.to_string()
        })?;
        segment.written.store(true, Ordering::Relaxed);
        segment.records.store(size.records, Ordering::Relaxed);
        // What is no record is as good as dead.
        let unused = self.log.geometry.segment_bytes() - size.record_bytes;
        self.log.table.add_dead_bytes_of(segment, unused as u64);
        Ok(())
    }

    /// A file left half-written is removed.
    fn write_files(&self, segment: &Segment, base: NonNull<u8>, size: &Size) -> io::Result<()> {
        let name = segment_file_name(segment.file_id);
        let bytes = self.log.geometry.segment_bytes();
        // SAFETY: the frame of a sealed segment: `bytes` long and unchanged until it is given back.
        let frame = unsafe { std::slice::from_raw_parts(base.as_ptr(), bytes) };
        self.remove_half_written(segment, &name)?;
        // A file that is there all the same is not ours: it stays as it is.
        let file = self.disk.create(&name)?;
        segment.half_written.store(true, Ordering::Relaxed);
        let written = (|| {
            // Up to the header of the filler at the end; the rest is a hole.
            let used = (size.end + RECORD_ALIGN * 2).next_multiple_of(PAGE_BYTES);
            let used = used.min(bytes);
            segment.used_bytes.store(used as u64, Ordering::Relaxed);
            file.write_all_at(&frame[..used], 0)?;
            file.truncate(bytes as u64)?;
            // Only clean pages can be dropped from the page cache when the segment goes cold. Nothing depends on the file
            // being there after a crash before a checkpoint names it, so it is not synced yet: that would wait for the file
            // system's journal as well.
            file.write_back()?;
            let keys = self.write_key_file(segment, base)?;
            keys.file.write_back()?;
            keys.file.drop_cached();
            let key_bytes = keys.file.len()?;
            segment.key_bytes.store(key_bytes, Ordering::Relaxed);
            count(&self.counters.written_bytes, used as u64 + key_bytes);
            // That it can be opened is found out now, and as long as it stays open it is read even if the directory vanishes.
            self.open_files.get(segment, FileKind::Records)?;
            Ok(keys.next_expiry_ms)
        })();
        match written {
            Ok(next_expiry_ms) => {
                self.log.table.set_next_expiry(segment, next_expiry_ms);
                segment.half_written.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.open_files.forget(segment.file_id);
                // If the file cannot be removed now, the next try does it.
                let _ = self.remove_half_written(segment, &name);
                Err(error)
            }
        }
    }

    /// What is in the frame of a sealed segment.
    fn size_of(&self, base: NonNull<u8>) -> Size {
        let mut size = Size {
            records: 0,
            record_bytes: 0,
            end: SEGMENT_HEADER_BYTES,
        };
        self.log.table.walk(base, |offset, record| {
            size.end = offset + record.record_bytes();
            if record.flags() & flag::VOID == 0 {
                size.records += 1;
                size.record_bytes += record.record_bytes();
            }
        });
        size
    }

    /// Removes what an earlier try to write the segment may have left.
    fn remove_half_written(&self, segment: &Segment, name: &str) -> io::Result<()> {
        if !segment.half_written.load(Ordering::Relaxed) {
            return Ok(());
        }
        // It may be gone, or its whole directory may be, and come back.
        match self.disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the oldest warm segment out of memory. `false` if there is none.
    pub(crate) fn cool_oldest(&self, second_chance: SecondChance) -> bool {
        let Some(segment) = self.log.ages.lock().warm.pop_front() else {
            return false;
        };
        if second_chance == SecondChance::Give && !segment.retired.load(Ordering::Relaxed) {
            self.give_second_chances(&segment);
        }
        self.log.table.publish(&segment, None, State::Cold);
        // Readers of the mapping are gone after this; pieces on their way to a socket hold the mapping themselves.
        epoch::barrier();
        segment.mapping.lock().take();
        segment.forget_marks();
        self.log.left_memory();
        true
    }

    /// Copies the live records of the segment that were read since they were written to the tail.
    fn give_second_chances(&self, segment: &Segment) {
        let Some(base) = self.log.table.base(segment.number) else {
            return;
        };
        let pin = epoch::pin();
        let generation = self.generations.current();
        let limit = self.log.geometry.segment_bytes() / 8 * SECOND_CHANCE_EIGHTHS;
        let (mut copied, mut moved) = (0, 0);
        self.log.table.walk(base, |offset, record| {
            if copied >= limit || !segment.was_read(offset) || record.flags() & flag::VOID != 0 {
                return;
            }
            let (hash, kind) = self.hash_of(&record);
            let address = self.log.geometry.address(segment.number, offset);
            // A record that no slot names is dead. And one behind another may be a shadow, of which no unmarked copy must be
            // made. The newest is none, nor does it become one: no write is blind over what is in memory.
            let slot = match kind {
                SlotKind::Root => self.index.newest(hash, kind),
                SlotKind::Page => {
                    let mut candidates = self.index.candidates(hash, kind).into_iter();
                    candidates.find(|slot| slot.address() == address)
                }
            };
            let slot = slot.filter(|slot| slot.address() == address);
            let copy = slot.and_then(|slot| {
                self.relocate(hash, slot, &record, Urgency::Emergency, generation)
            });
            if copy.is_some() {
                copied += record.record_bytes();
                moved += 1;
            }
        });
        drop(pin);
        count(&self.counters.second_chances, moved);
    }

    /// Hash and kind of the slot that a record has.
    pub(crate) fn hash_of(&self, record: &RecordRef<'_>) -> (u64, SlotKind) {
        if record.flags() & flag::PAGE != 0
            && let Ok(key) = record.key().try_into()
        {
            return (self.page_hash(key), SlotKind::Page);
        }
        (self.hash(record.namespace(), record.key()), SlotKind::Root)
    }

    /// Seals everything that is mutable.
    pub(crate) fn seal_all(&self) -> Result<(), String> {
        let _alone = self.tiering.lock();
        self.seal_all_alone()
    }

    fn seal_all_alone(&self) -> Result<(), String> {
        let last = self
            .log
            .ages
            .lock()
            .mutable
            .back()
            .map(|segment| segment.file_id);
        let Some(last) = last else { return Ok(()) };
        // What is opened from now on is left alone, so that this ends under constant writes.
        while self
            .log
            .ages
            .lock()
            .mutable
            .front()
            .is_some_and(|segment| segment.file_id <= last)
        {
            self.seal_oldest()?;
        }
        Ok(())
    }

    /// Moves everything that is in memory now to the device.
    pub(crate) fn force_cold(&self) -> Result<(), String> {
        let _alone = self.tiering.lock();
        self.seal_all_alone()?;
        while self.cool_oldest(SecondChance::Refuse) {}
        Ok(())
    }

    /// How many segments are in each tier: mutable, warm, cold.
    pub(crate) fn tier_sizes(&self) -> [u64; 3] {
        let (mutable, warm) = {
            let ages = self.log.ages.lock();
            (ages.mutable.len() as u64, ages.warm.len() as u64)
        };
        let all = self.log.table.all();
        let cold = all
            .iter()
            .filter(|segment| {
                self.log.table.state(segment.number) == State::Cold
                    && !segment.retired.load(Ordering::Relaxed)
            })
            .count();
        [mutable, warm, cold as u64]
    }

    pub(crate) fn set_reserved(&self, bytes: u64) {
        self.reserved_bytes.store(bytes, Ordering::Relaxed);
        self.update_budget();
        if self.log.in_memory() > self.log.budget() {
            self.room.wake_tiering();
        }
    }

    pub(crate) fn set_memory(&self, bytes: u64) {
        self.memory_bytes
            .store(bytes.min(self.memory_max_bytes), Ordering::Relaxed);
        self.key_cache
            .set_memory(self.memory_bytes.load(Ordering::Relaxed));
        self.update_budget();
        self.room.wake_tiering();
    }
}

/// What a segment consists of.
struct Size {
    records: u32,
    /// Of all records together.
    record_bytes: usize,
    /// Where the last record ends.
    end: usize,
}

/// The name of a segment's file.
pub(crate) fn segment_file_name(file_id: u64) -> String {
    format!("{file_id:016x}.seg")
}

/// The id in the name of a segment's file; `None` for other names.
pub(crate) fn file_id_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (segment_file_name(id) == name).then_some(id)
}
