//! From one generation's log to the next.

use std::io;
use std::mem;
use std::sync::atomic::Ordering;

use super::{Committer, NOT_HELD, Writer, check_open};
use crate::command_log::format::{generation_of_log, log_name};
use crate::command_log::gathered::{Buffer, Intake};
use crate::command_log::log_file::LogFile;
use crate::command_log::{Health, LogEnd, Position};
use crate::disk::Disk;

impl Committer {
    pub(in crate::command_log) fn start(
        &self,
        generation: u64,
        logged: bool,
        previous: Option<LogEnd>,
    ) -> io::Result<()> {
        assert!(previous.is_none_or(|previous| previous.generation + 1 == generation));
        remove_logs_from(&*self.disk, generation)?;
        if let Some(previous) = previous {
            cut(&*self.disk, previous)?;
        }
        self.writer.lock().replayed_end = previous.map(|previous| previous.bytes);
        {
            let mut gathered = self.gathered.lock();
            assert_eq!(gathered.current.generation, 0, "the log has been started");
            gathered.next = Some(Buffer::new(generation, logged));
        }
        self.end_generation()
    }

    pub(in crate::command_log) fn begin_generation(&self, generation: u64, logged: bool) {
        let mut gathered = self.gathered.lock();
        assert!(gathered.next.is_none() && generation > gathered.current.generation);
        if logged && !gathered.current.logged {
            // Until a checkpoint has saved the generation that is not logged, no replay gets past it. An earlier hold stays.
            let begin = Position::new(generation, 0).0;
            self.held.fetch_min(begin, Ordering::Relaxed);
        }
        gathered.next = Some(Buffer::new(generation, logged));
    }

    pub(in crate::command_log) fn checkpointed(&self, generation: u64) {
        let begin_of_next = Position::new(generation + 1, 0).0;
        if self.held.load(Ordering::Relaxed) <= begin_of_next {
            // Pairs with the load in `durable`.
            self.held.store(NOT_HELD, Ordering::Release);
            self.tell_progress();
        }
    }

    pub(in crate::command_log) fn end_generation(&self) -> io::Result<()> {
        let mut writer = self.writer.lock();
        let (generation, logged) = {
            let gathered = self.gathered.lock();
            let Some(next) = &gathered.next else {
                return Ok(());
            };
            check_open(&gathered)?;
            (next.generation, next.logged)
        };
        let next_log = self.next_log(&mut writer, generation, logged);
        let file = next_log.map_err(|error| {
            self.gathered.lock().ending = true;
            self.cannot_write(error)
        })?;
        self.count_written(0, file.as_ref().map_or(0, LogFile::end));
        if let Some(old) = mem::replace(&mut writer.file, file) {
            old.handle().drop_cached();
        }
        (writer.generation, writer.replayed_end) = (generation, None);
        {
            let mut gathered = self.gathered.lock();
            if let Some(next) = gathered.next.take() {
                gathered.current = next;
            }
            if mem::take(&mut gathered.ending) && gathered.intake == Intake::Open {
                gathered.health = Health::Ok;
            }
            let begin = Position::new(generation, 0).0;
            self.written.store(begin, Ordering::Relaxed);
            // Pairs with the load in `synced`.
            self.synced.fetch_max(begin, Ordering::AcqRel);
            self.update_room(&gathered);
            self.wake(&mut gathered);
        }
        self.tell_progress();
        Ok(())
    }

    /// Completes the current log, and makes the one of `generation` if it is to have one.
    fn next_log(
        &self,
        writer: &mut Writer,
        generation: u64,
        logged: bool,
    ) -> io::Result<Option<LogFile>> {
        self.complete(writer)?;
        if !logged {
            return Ok(None);
        }
        let end = writer.file.as_ref().map(LogFile::end);
        let previous_end = end.or(writer.replayed_end);
        LogFile::create(&*self.disk, generation, previous_end).map(Some)
    }

    /// Writes and syncs everything, and takes no more.
    pub(in crate::command_log) fn close(&self) -> io::Result<()> {
        let mut writer = self.writer.lock();
        self.complete(&mut writer)?;
        self.write_mark(&mut writer)?;
        if let Some(file) = &writer.file {
            let written = Position(self.written.load(Ordering::Relaxed));
            self.sync_file(&*file.handle(), written)?;
            writer.file = None;
        }
        let health = self.health();
        self.shut(health);
        Ok(())
    }
}

/// Removes logs that a generation which was never begun properly has left.
fn remove_logs_from(disk: &dyn Disk, first: u64) -> io::Result<()> {
    let mut removed = false;
    for name in disk.names()? {
        if generation_of_log(&name).is_some_and(|generation| generation >= first) {
            disk.remove(&name)?;
            removed = true;
        }
    }
    if removed {
        disk.sync_directory()?;
    }
    Ok(())
}

/// Cuts a log off where it ends, and makes sure that it survives a power cut like that.
fn cut(disk: &dyn Disk, log: LogEnd) -> io::Result<()> {
    let file = disk.open(&log_name(log.generation))?;
    if file.len()? > log.bytes {
        file.truncate(log.bytes)?;
    }
    file.sync()
}
