//! The commit thread: when what has gathered is written and synced.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Committer;
use crate::command_log::gathered::{Gathered, Intake, Phase};
use crate::command_log::log_file::LogFile;
use crate::command_log::{Health, Position, SyncPolicy};

/// How long frames gather before they are written, if nobody waits for them.
const GATHER: Duration = Duration::from_millis(8);

/// What [`SyncPolicy::EverySecond`] means.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A log that has been synced and that nothing is written to for so long gets a mark that says so.
const MARK_AFTER: Duration = Duration::from_secs(1);

/// How long a write that has failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// What the thread wakes up for.
enum Work {
    /// Frames are to be written, or written ones to be synced.
    Commit,
    /// The end of a generation is to be tried again.
    EndGeneration,
    /// Something could not be written, and nothing is left to show that it can now.
    Probe,
    Mark,
}

impl Committer {
    /// Runs until [`Committer::stop`].
    pub(in crate::command_log) fn run(&self) {
        let mut last_sync = Instant::now();
        let mut mark_at = None;
        while let Some(work) = self.wait_for_work(last_sync, mark_at) {
            mark_at = None;
            let written = match work {
                Work::Commit => self.write_round(),
                Work::EndGeneration => self.end_generation(),
                Work::Probe => {
                    self.pause();
                    self.probe();
                    continue;
                }
                Work::Mark => {
                    self.mark();
                    continue;
                }
            };
            let now = Instant::now();
            let sync_at = self.sync_at(&self.gathered.lock(), last_sync, now);
            if sync_at.is_some_and(|at| at <= now) {
                last_sync = now;
                self.sync();
                mark_at = Some(now + MARK_AFTER);
            }
            if written.is_err() {
                self.pause();
            }
        }
    }

    /// Sleeps until there is something to do; `None` if the thread is to end.
    fn wait_for_work(&self, last_sync: Instant, mark_at: Option<Instant>) -> Option<Work> {
        let mut gathered = self.gathered.lock();
        let mut gathering_since = None;
        while !gathered.stopping {
            if gathered.ending && gathered.intake == Intake::Open {
                gathered.phase = Phase::Busy;
                return Some(Work::EndGeneration);
            }
            let bytes = gathered.current.pending_bytes() + gathered.in_flight_bytes;
            if bytes == 0 && matches!(gathered.health, Health::CannotWrite(_)) {
                gathered.phase = Phase::Busy;
                return Some(Work::Probe);
            }
            let now = Instant::now();
            let write_at = if bytes == 0 {
                None
            } else if bytes >= self.gather_bytes || self.is_urgent(&gathered) {
                Some(now)
            } else {
                Some(*gathering_since.get_or_insert(now) + GATHER)
            };
            let sync_at = self.sync_at(&gathered, last_sync, now);
            let commit_at = write_at.into_iter().chain(sync_at).min();
            let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if due(commit_at) || due(mark_at) {
                gathered.phase = Phase::Busy;
                return Some(if due(commit_at) {
                    Work::Commit
                } else {
                    Work::Mark
                });
            }
            gathered.phase = if write_at.is_some() {
                Phase::Gathering
            } else {
                Phase::Idle
            };
            match commit_at.into_iter().chain(mark_at).min() {
                Some(at) => {
                    self.work.wait_until(&mut gathered, at);
                }
                None => self.work.wait(&mut gathered),
            }
        }
        None
    }

    /// Whether what has gathered, or has been written, is to be synced at once.
    fn is_urgent(&self, gathered: &Gathered) -> bool {
        gathered.sync == SyncPolicy::Always || gathered.wanted > self.synced()
    }

    /// When what has been written is to be synced, if there is anything.
    fn sync_at(&self, gathered: &Gathered, last_sync: Instant, now: Instant) -> Option<Instant> {
        let written = Position(self.written.load(Ordering::Relaxed));
        if gathered.intake == Intake::Shut || written <= self.synced() {
            return None;
        }
        if self.is_urgent(gathered) {
            return Some(now);
        }
        (gathered.sync == SyncPolicy::EverySecond).then(|| last_sync + SYNC_INTERVAL)
    }

    fn write_round(&self) -> io::Result<()> {
        let cached = {
            let mut writer = self.writer.lock();
            self.write_gathered(&mut writer)?;
            writer.file.as_mut().and_then(LogFile::due_for_write_back)
        };
        let Some(file) = cached else { return Ok(()) };
        let _alone = self.syncing.lock();
        // Who hears of a failed write-back takes it away from the next sync.
        file.write_back().map_err(|error| self.poison(&error))?;
        file.drop_cached();
        Ok(())
    }

    /// Syncs what has been written, without the writer.
    fn sync(&self) {
        let (generation, file, end, position) = {
            let writer = self.writer.lock();
            let Some(file) = &writer.file else { return };
            let written = Position(self.written.load(Ordering::Relaxed));
            (writer.generation, file.handle(), file.end(), written)
        };
        if self.sync_file(&*file, position).is_err() {
            return;
        }
        let mut writer = self.writer.lock();
        if writer.generation == generation
            && let Some(file) = &mut writer.file
        {
            file.synced(end);
        }
    }

    /// Writes an empty block, whose header says up to where the file is synced: without it nobody could tell damage to the
    /// last block from a torn tail.
    fn mark(&self) {
        let mut writer = self.writer.lock();
        if writer.file.as_ref().is_some_and(LogFile::is_synced) {
            // It can be left out: what cannot be written now may be damaged later, but that is as it was.
            let _ = self.write_mark(&mut writer);
        }
    }

    /// Finds out whether the log can be written again.
    fn probe(&self) {
        let written = self.write_mark(&mut self.writer.lock());
        {
            let mut gathered = self.gathered.lock();
            if written.is_err() || gathered.intake == Intake::Shut {
                return;
            }
            gathered.health = Health::Ok;
            self.update_room(&gathered);
        }
        self.tell_progress();
    }

    /// Sleeps for a while after a failed write, or until the thread is to end.
    fn pause(&self) {
        let until = Instant::now() + RETRY;
        let mut gathered = self.gathered.lock();
        while !gathered.stopping && !self.work.wait_until(&mut gathered, until).timed_out() {}
    }
}
