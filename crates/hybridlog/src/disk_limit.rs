//! A limit on the bytes of the data files, and what happens at it: keys are evicted, or writes are refused.
//!
//! A thread looks at the space that all segments take, those in memory included, for they will be written. Short of the limit
//! it gives back what can be given back: compaction rewrites segments with dead records, a checkpoint removes the files of
//! those that are gone. If that is not enough, keys are evicted, the segments that have been written for longest first: what is
//! read has left them for newer ones (second chance, promotion), and so has what is rewritten; so their keys are about the
//! least recently used. The key files list them, and no value is read. Beyond the limit writes wait meanwhile; when nothing
//! (more) can be evicted they are refused.
//!
//! What must hold:
//! * Removing keys is always possible: only who appends waits or is refused.
//! * Who has been suspended half-way goes on, for a checkpoint waits for him.
//! * An evicted key is removed under its latch, only while its newest record is the listed one, and its removal is logged:
//!   what the client writes under that key next must not be replayed on what was evicted.

mod evict;

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::index::Index;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::sync::atomic::{AtomicU64, Ordering};
use evict::Round;

/// How often the space is looked at while there is a limit, and when nothing could be done about it.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_WHEN_FULL: Duration = Duration::from_millis(500);
/// Space is given back from this share of the limit below it on, but at least from so many segments; and then three times as
/// much is made free.
const SLACK_SHARE: u64 = 16;
const SLACK_SEGMENTS: u64 = 4;
/// Attempts to get there before the setting is looked at again.
const ATTEMPTS: usize = 8;
/// So little is not given back before the limit.
const LITTLE_SEGMENTS: u64 = 2;
/// Compaction is waited for no longer than this at a time.
const COMPACTION_PATIENCE: Duration = Duration::from_secs(1);

/// Which keys are evicted when the data files reach their limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// None: writes are refused.
    #[default]
    Never,
    /// Any, those first that have been neither read nor written for longest, roughly.
    AllKeys,
    /// As [`Self::AllKeys`], but only keys that have an expiry.
    Expiring,
    /// Keys that have an expiry, beginning with the segment in which the first of them expires.
    SoonestExpiring,
}

/// Whether records may be appended, as far as the limit goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskRoom {
    Free = 0,
    /// Room is being made.
    Held = 1,
    /// There is none to be made.
    Full = 2,
}

#[derive(Default)]
pub(crate) struct DiskLimit {
    setting: Mutex<Setting>,
    changed: Condvar,
    /// A [`DiskRoom`].
    room: AtomicU8,
    /// When there are more segments than this, writes wait although the thread has not looked yet; 0: no limit.
    segments_max: AtomicU64,
    /// Bytes of deaths files and manifest, as of the last checkpoint.
    pub(crate) other_bytes: AtomicU64,
    pub(crate) evicted: AtomicU64,
    /// Tells those who wait for room.
    pub(crate) notify: Notify,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Setting {
    /// 0: no limit.
    bytes_max: u64,
    eviction: Eviction,
}

impl DiskLimit {
    pub(crate) fn set(&self, bytes_max: u64, eviction: Eviction) {
        let new = Setting {
            bytes_max,
            eviction,
        };
        let mut setting = self.setting.lock();
        if *setting != new {
            *setting = new;
            if self.room() == DiskRoom::Full {
                // There may be some now: that is found out before anybody else is refused.
                self.set_room(DiskRoom::Held);
            }
        }
        self.changed.notify_all();
    }

    /// As the thread has found it.
    #[inline]
    fn room(&self) -> DiskRoom {
        match self.room.load(Ordering::Relaxed) {
            0 => DiskRoom::Free,
            1 => DiskRoom::Held,
            _ => DiskRoom::Full,
        }
    }

    fn set_room(&self, room: DiskRoom) {
        self.room.store(room as u8, Ordering::Relaxed);
        self.notify.notify_waiters();
    }

    /// The thread looks again, because it is to end.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    /// The setting, after a moment.
    fn wait(&self) -> Setting {
        let mut setting = self.setting.lock();
        let time = match self.room() {
            DiskRoom::Full => LOOK_WHEN_FULL,
            DiskRoom::Free | DiskRoom::Held => LOOK,
        };
        self.changed.wait_for(&mut setting, time);
        *setting
    }
}

impl<I: Index> Shared<I> {
    /// Whether records may be appended, as far as the limit goes.
    #[inline]
    pub(crate) fn disk_room(&self) -> DiskRoom {
        let max = self.disk_limit.segments_max.load(Ordering::Relaxed);
        match self.disk_limit.room() {
            DiskRoom::Free if max != 0 && self.log.table.count() > max => DiskRoom::Held,
            room => room,
        }
    }

    /// Notes how many segments there may be until the thread looks again.
    fn limit_segments(&self, bytes_max: u64) {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let more = bytes_max.saturating_sub(self.data_bytes()) / segment_bytes;
        let max = (self.log.table.count() + more).max(1);
        self.disk_limit.segments_max.store(max, Ordering::Relaxed);
    }

    /// The thread that keeps the data files within their limit, until `stop` says so.
    pub(crate) fn run_disk_limit(&self, stop: &dyn Fn() -> bool) {
        let mut round = Round::default();
        while !stop() {
            let setting = self.disk_limit.wait();
            if setting.bytes_max == 0 || !self.recovery.stats().is_over {
                self.disk_limit.segments_max.store(0, Ordering::Relaxed);
                self.disk_limit.set_room(DiskRoom::Free);
                continue;
            }
            self.limit_segments(setting.bytes_max);
            self.keep_within(setting, &mut round, stop);
        }
    }

    fn keep_within(&self, setting: Setting, round: &mut Round, stop: &dyn Fn() -> bool) {
        let max = setting.bytes_max;
        let was_full = self.disk_limit.room() == DiskRoom::Full;
        if setting.eviction == Eviction::Never {
            self.refuse_above(max, was_full);
            return;
        }
        if round.eviction != setting.eviction {
            *round = Round::new(setting.eviction);
        }
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let slack = (max / SLACK_SHARE).max(SLACK_SEGMENTS * segment_bytes);
        if self.data_bytes() > max - slack.min(max) {
            if self.data_bytes() > max && !was_full {
                self.disk_limit.set_room(DiskRoom::Held);
            }
            self.evict_down_to(max.saturating_sub(3 * slack), setting, round, stop);
        }
        if !self.is_within(max) {
            self.disk_limit.set_room(DiskRoom::Full);
        }
    }

    /// Whether the files keep to `max`: if so records may be appended.
    fn is_within(&self, max: u64) -> bool {
        self.limit_segments(max);
        let is_within = self.data_bytes() <= max;
        if is_within {
            self.disk_limit.set_room(DiskRoom::Free);
        }
        is_within
    }

    /// Refuses writes while the files take more than `max` and nothing is left to be given back.
    fn refuse_above(&self, max: u64, was_full: bool) {
        if self.data_bytes() > max && !was_full {
            self.disk_limit.set_room(DiskRoom::Held);
            // Records that died in memory are given back when they have been written.
            let _ = self.checkpoint();
        }
        let excess = self.data_bytes().saturating_sub(max);
        if excess > 0 && self.dead_bytes() >= excess {
            self.give_space_back(0);
        }
        if !self.is_within(max) {
            self.disk_limit.set_room(DiskRoom::Full);
        }
    }

    fn evict_down_to(
        &self,
        goal: u64,
        setting: Setting,
        round: &mut Round,
        stop: &dyn Fn() -> bool,
    ) {
        let little = LITTLE_SEGMENTS * self.log.geometry.segment_bytes() as u64;
        self.give_space_back(little);
        for _ in 0..ATTEMPTS {
            // Those who write are not kept waiting for the rest.
            self.is_within(setting.bytes_max);
            if self.data_bytes() <= goal
                || stop()
                || !self.evict_some(setting.eviction, goal, round, stop)
            {
                return;
            }
            self.give_space_back(little);
        }
    }

    /// Bytes of the data files, with those of segments that will be written.
    fn data_bytes(&self) -> u64 {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let segments = self.log.table.all();
        let bytes = |segment: &Arc<Segment>| match segment.written.load(Ordering::Relaxed) {
            true => {
                let used_bytes = segment.used_bytes.load(Ordering::Relaxed);
                used_bytes + segment.key_bytes.load(Ordering::Relaxed)
            }
            false => segment_bytes,
        };
        let other_bytes = self.disk_limit.other_bytes.load(Ordering::Relaxed);
        segments.iter().map(bytes).sum::<u64>() + other_bytes
    }

    /// Bytes of all that can be given back.
    fn dead_bytes(&self) -> u64 {
        self.unwritten_dead_bytes() + self.compactable_bytes() + self.space().gone_bytes
    }

    /// Has dead records compacted if that frees more than `little`, and removes the files of what is gone.
    fn give_space_back(&self, little: u64) {
        if self.unwritten_dead_bytes() > little {
            // Which writes them. One that fails says so to those who ask for that; it is tried again.
            let _ = self.checkpoint();
        }
        if self.compactable_bytes() > little {
            self.compact_all(COMPACTION_PATIENCE);
        }
        if self.space().gone_bytes > 0 {
            let _ = self.checkpoint();
        }
    }

    /// Bytes of dead records in segments that have not been written yet.
    fn unwritten_dead_bytes(&self) -> u64 {
        let mut segments = self.log.table.all();
        segments.retain(|segment| !segment.written.load(Ordering::Relaxed));
        let dead = |segment: &Arc<Segment>| self.log.table.dead_bytes(segment);
        segments.iter().map(dead).sum()
    }
}
