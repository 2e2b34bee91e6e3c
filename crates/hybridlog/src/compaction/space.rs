//! How the space on the device is used, and which segments are worth being rewritten for it.
//!
//! What is unused at the end of a segment is a hole in its file, and takes no space on the device; but the segment takes a
//! number, a place in memory for what is known of it, and reads of its key file. So while much is written, dead and unused bytes
//! count alike, and a few segments' worth of them is nothing. Once all is calm, or when the files have reached their limit, what
//! counts is what dead records take on the device, however little data there is: rewriting that comes to an end, since it
//! leaves none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LeftAlone;
use crate::disk_limit::DiskRoom;
use crate::index::Index;
use crate::segment::{Segment, State};
use crate::shared::Shared;
use crate::sync::atomic::Ordering;

/// Disk space may be so many hundredths of that of the live records before anything is rewritten.
const SPACE_TARGET: u64 = 130;

/// Nor while no more than so many segments' worth is dead or unused: a checkpoint seals segments that are not full, and if
/// those were rewritten at once the next checkpoint would seal what they have become.
const SEGMENTS_UNUSED: u64 = 4;

/// A segment is rewritten when this share of it is dead or unused, at least: more than is lost at the end of a segment into
/// which the next of the largest records does not fit, so that what has been rewritten is not rewritten again.
const DEAD_SHARE_MIN: u64 = 8;

/// When all is calm, and when nothing can be written for want of space, this share of what its file takes.
const DEAD_SHARE_CALM: u64 = 16;
const DEAD_SHARE_FULL: u64 = 32;

/// All is calm when nothing has been written or removed for so long.
const CALM_AFTER: Duration = Duration::from_secs(2);

/// Bytes on the device, and what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Of the files of all segments, key files included; without what is a hole.
    pub disk_bytes: u64,
    /// Of the records in these files that are live.
    pub live_bytes: u64,
    /// Of dead records, as far as is known, and of what is lost between records.
    pub dead_bytes: u64,
    /// Of `disk_bytes`, what goes with the next checkpoint.
    pub gone_bytes: u64,
    /// Holes at the ends of segments.
    pub hole_bytes: u64,
    /// Of segments that are in memory only: the next checkpoint writes them.
    pub unwritten_bytes: u64,
    /// Of `unwritten_bytes`, what records that are live take, at most.
    pub unwritten_live_bytes: u64,
}

/// Since when nothing has been written or removed.
#[derive(Default)]
pub(super) struct Calm {
    activity: u64,
    since: Option<Instant>,
}

impl<I: Index> Shared<I> {
    /// How the space on the device is used.
    pub(crate) fn space(&self) -> Space {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let mut space = Space::default();
        for segment in self.log.table.all() {
            let is_retired = segment.retired.load(Ordering::Relaxed);
            if !segment.written.load(Ordering::Relaxed) {
                if !is_retired {
                    let dead = self.log.table.dead_bytes(&segment).min(segment_bytes);
                    space.unwritten_bytes += segment_bytes;
                    space.unwritten_live_bytes += segment_bytes - dead;
                }
                continue;
            }
            let used = segment.used_bytes.load(Ordering::Relaxed);
            let bytes = used + segment.key_bytes.load(Ordering::Relaxed);
            space.disk_bytes += bytes;
            if is_retired {
                space.gone_bytes += bytes;
                continue;
            }
            let dead = self.dead_on_device(&segment);
            space.hole_bytes += segment_bytes - used;
            space.dead_bytes += dead;
            space.live_bytes += used - dead;
        }
        space
    }

    /// Bytes that dead records of a written segment take in its file.
    fn dead_on_device(&self, segment: &Segment) -> u64 {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let used = segment.used_bytes.load(Ordering::Relaxed);
        let dead_or_unused = self.log.table.dead_bytes(segment).min(segment_bytes);
        dead_or_unused.saturating_sub(segment_bytes - used)
    }

    /// The segment that gives back most.
    pub(super) fn candidate(&self) -> Option<Arc<Segment>> {
        let is_enough =
            self.compaction.asked.load(Ordering::Relaxed) || self.is_much_dead_or_unused();
        let mut segments = if is_enough {
            self.worth_rewriting()
        } else if self.is_calm() && self.is_much_dead() {
            let mut segments = self.complete_segments();
            segments.retain(|segment| self.has_dead(segment, DEAD_SHARE_CALM));
            segments
        } else {
            return None;
        };
        {
            let left_alone = self.compaction.left_alone.lock();
            let is_due = |left: &LeftAlone| left.until <= Instant::now();
            segments.retain(|segment| left_alone.get(&segment.file_id).is_none_or(is_due));
        }
        segments
            .into_iter()
            .max_by_key(|segment| self.log.table.dead_bytes(segment))
    }

    fn is_much_dead_or_unused(&self) -> bool {
        let space = self.space();
        let live = space.live_bytes + space.unwritten_live_bytes;
        let mut used = space.disk_bytes + space.hole_bytes - space.gone_bytes;
        if self.compaction.checkpoint_is_due.load(Ordering::Relaxed) {
            used += space.unwritten_bytes;
        }
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        used * 100 > live * SPACE_TARGET && used > live + SEGMENTS_UNUSED * segment_bytes
    }

    fn is_much_dead(&self) -> bool {
        let space = self.space();
        (space.disk_bytes - space.gone_bytes) * 100 > space.live_bytes * SPACE_TARGET
    }

    /// Bytes of dead records that compaction would give back if it were asked, now or when what is in its way has passed.
    pub(crate) fn compactable_bytes(&self) -> u64 {
        let mut segments = self.worth_rewriting();
        {
            let left_alone = self.compaction.left_alone.lock();
            let has_failed = |left: &LeftAlone| left.has_failed;
            segments.retain(|segment| !left_alone.get(&segment.file_id).is_some_and(has_failed));
        }
        let dead = |segment: &Arc<Segment>| self.dead_on_device(segment);
        segments.iter().map(dead).sum()
    }

    /// The segments that can be rewritten.
    fn complete_segments(&self) -> Vec<Arc<Segment>> {
        let mut segments = self.log.table.all();
        segments.retain(|segment| {
            matches!(
                self.log.table.state(segment.number),
                State::Cold | State::Warm
            ) && segment.written.load(Ordering::Relaxed)
                && !segment.retired.load(Ordering::Relaxed)
        });
        segments
    }

    /// The segments of whose files so much is dead, and, if it is worth making one of several, those of which so much is dead or
    /// unused.
    fn worth_rewriting(&self) -> Vec<Arc<Segment>> {
        let share_min = match self.disk_room() {
            DiskRoom::Full => DEAD_SHARE_FULL,
            DiskRoom::Free | DiskRoom::Held => DEAD_SHARE_MIN,
        };
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let are_merged = self.compaction.asked.load(Ordering::Relaxed)
            || self.space().hole_bytes > SEGMENTS_UNUSED * segment_bytes;
        let least = match are_merged {
            true => segment_bytes / DEAD_SHARE_MIN,
            false => segment_bytes,
        };
        let mut segments = self.complete_segments();
        segments.retain(|segment| {
            self.log.table.dead_bytes(segment) >= least || self.has_dead(segment, share_min)
        });
        segments
    }

    /// Whether dead records take this share of what the segment's file takes.
    fn has_dead(&self, segment: &Segment, share_min: u64) -> bool {
        let used = segment.used_bytes.load(Ordering::Relaxed);
        self.dead_on_device(segment) * share_min >= used.max(1)
    }

    /// Whether nothing has been written or removed for a while, but by compaction itself.
    pub(crate) fn is_calm(&self) -> bool {
        let activity = self.activity();
        let mut calm = self.compaction.calm.lock();
        if calm.since.is_none() || calm.activity != activity {
            *calm = Calm {
                activity,
                since: Some(Instant::now()),
            };
        }
        calm.since
            .is_some_and(|since| since.elapsed() >= CALM_AFTER)
    }

    /// What has changed since the last look was compaction's own work.
    pub(super) fn stay_calm(&self) {
        self.compaction.calm.lock().activity = self.activity();
    }

    /// Changes when something is written or removed.
    fn activity(&self) -> u64 {
        let appended = self.log.appended_bytes.load(Ordering::Relaxed);
        appended.wrapping_add(self.generations.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BucketIndex, Options, Store};

    /// What cannot be given back for the moment is not made up for by evicting keys; what cannot be given back at all is.
    #[test]
    fn dead_bytes_are_counted_on_unless_compaction_has_failed() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = Options::new(directory.path()).memory_bytes(64 << 20);
        let store = Store::<BucketIndex>::open(options).expect("the directory opens");
        store.set(b"key", b"value").expect("it is set");
        store.set(b"other", &[0; 10_000]).expect("it is set");
        store.force_cold().expect("it goes cold");
        let shared = &store.shared;
        assert!(store.delete(b"other").expect("it can be removed"));
        let bytes = shared.compactable_bytes();
        assert!(bytes >= 10_000, "{bytes}");
        let until = Instant::now() + Duration::from_secs(5);
        for (has_failed, expected) in [(false, bytes), (true, 0)] {
            let left = LeftAlone { until, has_failed };
            let file_id = shared.log.table.all()[0].file_id;
            shared.compaction.left_alone.lock().insert(file_id, left);
            assert_eq!(shared.compactable_bytes(), expected);
            shared.compaction.ask();
            assert!(shared.candidate().is_none(), "it is left alone");
        }
    }
}
