//! When a checkpoint is due: the thread that makes those that somebody has asked for, and those that nobody has.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::index::Index;
use crate::shared::Shared;

/// How often the checkpoint thread looks whether it is time.
const LOOK: Duration = Duration::from_millis(100);

/// After a failure the next automatic checkpoint waits so long.
const RETRY: Duration = Duration::from_secs(5);

/// A checkpoint that nobody has asked for waits so long for what is worth being compacted before it.
const COMPACTION_MAX: Duration = Duration::from_secs(2);

/// Segments without live records keep their files no longer than this for want of a checkpoint.
const GONE_MAX: Duration = Duration::from_secs(5);

/// And while nothing is written or removed: there is little to save then.
const GONE_MAX_CALM: Duration = Duration::from_secs(1);

/// Nor while their files are more than this share of all.
const GONE_SHARE: u64 = 16;

/// So many may be, however small the data set is: a checkpoint is not for a few segments.
const GONE_SEGMENTS: u64 = 8;

/// This share of the memory may be taken by deaths that wait for a checkpoint.
const DEATHS_SHARE: u64 = 32;

/// From this share on the checkpoint does not wait for compaction either.
const DEATHS_URGENT_SHARE: u64 = 24;

impl<I: Index> Shared<I> {
    /// The checkpoint thread: makes one when asked to, or when it is time, until `stop` says so.
    pub(crate) fn run_checkpoints(&self, stop: &dyn Fn() -> bool) {
        let mut not_before = Instant::now();
        while !stop() {
            let asked = {
                let mut asked = self.checkpoints.asked.lock();
                if !*asked {
                    self.checkpoints.wake.wait_for(&mut asked, LOOK);
                }
                // What is being replayed is not saved half-way.
                if !self.recovery.stats().is_over {
                    continue;
                }
                std::mem::take(&mut *asked)
            };
            let is_time = || Instant::now() >= not_before && self.is_time_for_checkpoint();
            if !asked && !is_time() {
                continue;
            }
            let logged_before = self.logged_bytes();
            if !asked && (self.is_log_long() || self.do_deaths_take(DEATHS_SHARE)) {
                // Memory for more deaths may be what others wait for.
                let is_asked = || *self.checkpoints.asked.lock();
                let is_urgent = || stop() || self.do_deaths_take(DEATHS_URGENT_SHARE) || is_asked();
                self.compact_for_checkpoint(COMPACTION_MAX, &is_urgent);
                // Whoever has asked meanwhile gets this one.
                *self.checkpoints.asked.lock() = false;
            }
            if self.checkpoint().is_err() {
                not_before = Instant::now() + RETRY;
            } else if !asked {
                let meanwhile = self.logged_bytes() - logged_before;
                let logged = &self.checkpoints.logged_meanwhile;
                logged.store(meanwhile, Ordering::Relaxed);
            }
        }
    }

    fn is_time_for_checkpoint(&self) -> bool {
        self.is_log_long()
            || self.do_deaths_take(DEATHS_SHARE)
            || self.is_time_to_remove()
            // One that has failed is tried again. Those who write may wait for it, and for the space that it gives back.
            || self.checkpoints.status.lock().error.is_some()
    }

    /// Whether so much has been written since the last checkpoint began that the next is due: until it is made a start has to
    /// replay what is logged meanwhile as well, and that is likely to be as much as it was the last time.
    fn is_log_long(&self) -> bool {
        let checkpoints = &self.checkpoints;
        let bytes_max = checkpoints.bytes_max.load(Ordering::Relaxed);
        let appended = self.log.appended_bytes.load(Ordering::Relaxed)
            - checkpoints.appended_before.load(Ordering::Relaxed);
        // A slow device is no reason to do nothing but checkpoints.
        let meanwhile = checkpoints.logged_meanwhile.load(Ordering::Relaxed);
        let log_max = bytes_max - meanwhile.min(bytes_max / 2);
        self.command_log.stats().file_bytes >= log_max || appended >= bytes_max
    }

    /// Bytes that have been logged since the start.
    fn logged_bytes(&self) -> u64 {
        let stats = self.command_log.stats();
        stats.written_bytes + stats.pending_bytes
    }

    /// Whether deaths that wait for a checkpoint take this share of the memory.
    fn do_deaths_take(&self, share: u64) -> bool {
        self.generations.bytes() >= self.memory_bytes.load(Ordering::Relaxed) / share
    }

    /// Whether the files of segments without live records have been kept long enough, or are too many.
    fn is_time_to_remove(&self) -> bool {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let patience = match self.is_calm() {
            true => GONE_MAX_CALM,
            false => GONE_MAX,
        };
        let gone_bytes = {
            let gone = self.checkpoints.gone.lock();
            if gone.iter().any(|gone| gone.since.elapsed() >= patience) {
                return true;
            }
            gone.len() as u64 * segment_bytes
        };
        gone_bytes > GONE_SEGMENTS * segment_bytes
            && gone_bytes > self.space().disk_bytes / GONE_SHARE
    }
}
