//! Writing what has gathered: the commit thread, and those who need it done before they go on.
//!
//! Everyone who writes holds the writer. Syncs run without it, so that blobs go on meanwhile, and frames gather for the next
//! round.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use super::format::{BLOCK_HEADER_BYTES, generation_of_log, log_name};
use super::gathered::{Buffer, Gathered, Intake, Phase, empty_block};
use super::log_file::LogFile;
use super::{BlobId, Health, LogEnd, LogStats, Position, SyncPolicy};
use crate::disk::{Disk, DiskFile};

/// How long frames gather before they are written, if nobody waits for them.
const GATHER: Duration = Duration::from_millis(8);

/// So many bytes of frames are written without gathering longer.
const GATHER_BYTES: usize = 256 << 10;

/// What [`SyncPolicy::EverySecond`] means.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How long a write that has failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// A blob is written in pieces of at most this, so that frames need not wait for all of it.
pub(super) const PIECE_MAX_BYTES: usize = 1 << 20;

/// A log is not to grow beyond this: far below what positions can tell.
const LOG_MAX_BYTES: u64 = Position::BYTES_MAX / 2;

/// An empty block keeps up to this whatever was in it.
const BLOCK_KEPT_BYTES: usize = 1 << 20;

/// What those who append, those who wait and the commit thread share.
pub(super) struct Committer {
    disk: Arc<dyn Disk>,
    buffer_bytes: usize,
    gathered: Mutex<Gathered>,
    /// With `gathered`: there is something for the commit thread.
    work: Condvar,
    writer: Mutex<Writer>,
    /// Held while something is synced and until it is known what came of it. The system tells a failed write-back once: a
    /// second sync beside the one that hears of it would succeed. Nobody waits for the writer with it.
    syncing: Mutex<()>,
    /// With `gathered`: more is durable or a generation has ended, or nothing of that will happen any more.
    progress: Condvar,
    progress_async: Notify,
    has_room: AtomicBool,
    /// Up to here frames are in the file.
    written: AtomicU64,
    durable: AtomicU64,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    file_bytes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
    last_sync_nanos: AtomicU64,
}

/// The right to write, and what is being written.
struct Writer {
    /// The generation whose frames are written; that of the current buffer.
    generation: u64,
    /// Its log, if it has one.
    file: Option<LogFile>,
    /// Where the log that was replayed last ends, before the first generation of this process.
    replayed_end: Option<u64>,
    /// What has been taken from the buffer and not been written: without frames it is a block header's room.
    block: Vec<u8>,
    /// Where its last frame ends.
    block_end: Position,
}

impl Committer {
    pub(super) fn new(disk: Arc<dyn Disk>, sync: SyncPolicy, buffer_bytes: usize) -> Committer {
        Committer {
            disk,
            buffer_bytes,
            gathered: Mutex::new(Gathered::new(sync)),
            work: Condvar::new(),
            writer: Mutex::new(Writer {
                generation: 0,
                file: None,
                replayed_end: None,
                block: empty_block(),
                block_end: Position::START,
            }),
            syncing: Mutex::new(()),
            progress: Condvar::new(),
            progress_async: Notify::new(),
            has_room: AtomicBool::new(true),
            written: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    #[inline]
    pub(super) fn append(&self, generation: u64, effects: &[u8]) -> Position {
        let mut gathered = self.gathered.lock();
        let position = gathered.push(generation, effects);
        if gathered.pending_bytes() >= self.buffer_bytes {
            self.has_room.store(false, Ordering::Relaxed);
        }
        let wake = match gathered.phase {
            Phase::Busy => false,
            Phase::Idle => gathered.current.pending_bytes() > 0,
            Phase::Gathering => gathered.current.pending_bytes() >= GATHER_BYTES,
        };
        if wake {
            gathered.phase = Phase::Busy;
            drop(gathered);
            self.work.notify_one();
        }
        position
    }

    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn durable(&self) -> Position {
        // Pairs with the store that follows the sync: who sees the position may rely on what was done before it.
        Position(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn health(&self) -> Health {
        self.gathered.lock().health.clone()
    }

    pub(super) fn is_logged(&self) -> bool {
        self.gathered.lock().current.logged
    }

    pub(super) fn set_sync(&self, sync: SyncPolicy) {
        let mut gathered = self.gathered.lock();
        gathered.sync = sync;
        self.wake(&mut gathered);
    }

    pub(super) fn stop(&self) {
        let mut gathered = self.gathered.lock();
        gathered.stopping = true;
        self.wake(&mut gathered);
    }

    fn wake(&self, gathered: &mut Gathered) {
        gathered.phase = Phase::Busy;
        self.work.notify_one();
    }

    pub(super) fn stats(&self) -> LogStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            file_bytes: count(&self.counters.file_bytes),
            pending_bytes: self.gathered.lock().pending_bytes() as u64,
            written_bytes: count(&self.counters.written_bytes),
            syncs: count(&self.counters.syncs),
            last_sync: Duration::from_nanos(count(&self.counters.last_sync_nanos)),
        }
    }
}

/// Waiting for what has been appended to be durable.
impl Committer {
    pub(super) fn wait_durable(&self, position: Position) -> Result<(), String> {
        if self.durable() >= position {
            return Ok(());
        }
        let mut gathered = self.gathered.lock();
        loop {
            if let Some(settled) = self.settled(position, &gathered) {
                return settled;
            }
            self.want(position, &mut gathered);
            self.progress.wait(&mut gathered);
        }
    }

    pub(super) async fn until_durable(&self, position: Position) -> Result<(), String> {
        loop {
            // Made before the check, it also hears what happens between the check and the wait.
            let progress = self.progress_async.notified();
            if self.durable() >= position {
                return Ok(());
            }
            {
                let mut gathered = self.gathered.lock();
                if let Some(settled) = self.settled(position, &gathered) {
                    return settled;
                }
                self.want(position, &mut gathered);
            }
            progress.await;
        }
    }

    fn settled(&self, position: Position, gathered: &Gathered) -> Option<Result<(), String>> {
        if self.durable() >= position {
            return Some(Ok(()));
        }
        (gathered.intake == Intake::Shut).then(|| Err(why_shut(gathered)))
    }

    fn want(&self, position: Position, gathered: &mut Gathered) {
        if position > gathered.wanted {
            gathered.wanted = position;
            if gathered.phase != Phase::Busy {
                self.wake(gathered);
            }
        }
    }

    fn tell_progress(&self) {
        // Whoever has looked and is about to wait holds the lock until it waits.
        drop(self.gathered.lock());
        self.progress.notify_all();
        self.progress_async.notify_waiters();
    }
}

/// The commit thread.
impl Committer {
    pub(super) fn run(&self) {
        let mut last_sync = Instant::now();
        while self.wait_for_work(last_sync) {
            let written = self.write_round();
            let now = Instant::now();
            if self
                .sync_at(&self.gathered.lock(), last_sync, now)
                .is_some_and(|at| at <= now)
            {
                last_sync = now;
                self.sync();
            }
            if written.is_err() {
                self.pause();
            }
        }
    }

    /// Sleeps until there is something to do; `false` if the thread is to end.
    fn wait_for_work(&self, last_sync: Instant) -> bool {
        let mut gathered = self.gathered.lock();
        let mut gathering_since = None;
        loop {
            if gathered.stopping {
                return false;
            }
            let now = Instant::now();
            let bytes = gathered.current.pending_bytes() + gathered.in_flight_bytes;
            let write_at = if bytes == 0 {
                None
            } else if bytes >= GATHER_BYTES || self.is_urgent(&gathered) {
                Some(now)
            } else {
                Some(*gathering_since.get_or_insert(now) + GATHER)
            };
            let sync_at = self.sync_at(&gathered, last_sync, now);
            match write_at.into_iter().chain(sync_at).min() {
                Some(at) if at <= now => {
                    gathered.phase = Phase::Busy;
                    return true;
                }
                Some(at) => {
                    gathered.phase = if write_at.is_some() {
                        Phase::Gathering
                    } else {
                        Phase::Idle
                    };
                    self.work.wait_until(&mut gathered, at);
                }
                None => {
                    gathered.phase = Phase::Idle;
                    self.work.wait(&mut gathered);
                }
            }
        }
    }

    /// Whether what has gathered, or has been written, is to be synced at once.
    fn is_urgent(&self, gathered: &Gathered) -> bool {
        gathered.sync == SyncPolicy::Always || gathered.wanted > self.durable()
    }

    /// When what has been written is to be synced, if there is anything.
    fn sync_at(&self, gathered: &Gathered, last_sync: Instant, now: Instant) -> Option<Instant> {
        let written = Position(self.written.load(Ordering::Relaxed));
        if gathered.intake == Intake::Shut || written <= self.durable() {
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

    /// Sleeps for a while after a failed write, or until the thread is to end.
    fn pause(&self) {
        let until = Instant::now() + RETRY;
        let mut gathered = self.gathered.lock();
        while !gathered.stopping && !self.work.wait_until(&mut gathered, until).timed_out() {}
    }
}

/// Writing and syncing.
impl Committer {
    /// Writes what has gathered as one block, or what an earlier try has left; `false` if there is nothing.
    fn write_gathered(&self, writer: &mut Writer) -> io::Result<bool> {
        let Some(file) = &mut writer.file else {
            return Ok(false);
        };
        {
            let mut gathered = self.gathered.lock();
            check_open(&gathered)?;
            if writer.block.len() == BLOCK_HEADER_BYTES {
                let bytes = gathered.current.pending_bytes();
                if bytes == 0 {
                    return Ok(false);
                }
                gathered.in_flight_bytes = bytes;
                gathered.current.take(&mut writer.block);
                writer.block_end = gathered.current.end();
            }
        }
        let written = file.write_frames(&mut writer.block);
        let mut gathered = self.gathered.lock();
        check_open(&gathered)?;
        if let Err(error) = written {
            gathered.health = Health::CannotWrite(error.to_string());
            self.update_room(&gathered);
            // Whoever has tried, the commit thread tries again.
            self.wake(&mut gathered);
            return Err(error);
        }
        gathered.health = Health::Ok;
        gathered.in_flight_bytes = 0;
        self.update_room(&gathered);
        self.written.store(writer.block_end.0, Ordering::Relaxed);
        drop(gathered);
        self.count_written(writer.block.len(), file.end());
        empty(&mut writer.block);
        Ok(true)
    }

    /// Syncs the file; everything up to `position` was in it before.
    fn sync_file(&self, file: &dyn DiskFile, position: Position) -> io::Result<()> {
        let _alone = self.syncing.lock();
        check_open(&self.gathered.lock())?;
        let begun = Instant::now();
        file.sync().map_err(|error| self.poison(&error))?;
        let nanos = begun.elapsed().as_nanos() as u64;
        self.counters
            .last_sync_nanos
            .store(nanos, Ordering::Relaxed);
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        // Pairs with the load in `durable`.
        self.durable.fetch_max(position.0, Ordering::AcqRel);
        self.tell_progress();
        Ok(())
    }

    /// Writes and syncs everything there is of the current generation.
    fn complete(&self, writer: &mut Writer) -> io::Result<()> {
        while self.write_gathered(writer)? {}
        let Some(file) = &mut writer.file else {
            return Ok(());
        };
        if !file.is_synced() {
            let written = Position(self.written.load(Ordering::Relaxed));
            self.sync_file(&*file.handle(), written)?;
            file.synced(file.end());
        }
        Ok(())
    }

    /// A sync has failed: nothing is written or acknowledged any more. Returns the error with what it means.
    fn poison(&self, error: &io::Error) -> io::Error {
        let why = format!("the command log has failed for good: {error}");
        self.shut(Health::Poisoned(why.clone()));
        io::Error::new(error.kind(), why)
    }

    fn shut(&self, health: Health) {
        {
            let mut gathered = self.gathered.lock();
            gathered.health = health;
            gathered.shut();
            self.update_room(&gathered);
        }
        self.tell_progress();
    }

    fn update_room(&self, gathered: &Gathered) {
        let has_room = gathered.intake == Intake::Open
            && gathered.health == Health::Ok
            && gathered.pending_bytes() < self.buffer_bytes
            && gathered.current.end() < Position::new(gathered.current.generation, LOG_MAX_BYTES);
        self.has_room.store(has_room, Ordering::Relaxed);
    }

    fn count_written(&self, bytes: usize, file_bytes: u64) {
        self.counters
            .written_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.counters
            .file_bytes
            .store(file_bytes, Ordering::Relaxed);
    }
}

fn check_open(gathered: &Gathered) -> io::Result<()> {
    match gathered.intake {
        Intake::Open => Ok(()),
        Intake::Shut => Err(io::Error::other(why_shut(gathered))),
    }
}

fn why_shut(gathered: &Gathered) -> String {
    match &gathered.health {
        Health::Poisoned(why) => why.clone(),
        _ => "the command log has been shut down".to_owned(),
    }
}

/// Empties a block, and gives memory back that the last ones have not needed.
fn empty(block: &mut Vec<u8>) {
    let used = block.len();
    block.truncate(BLOCK_HEADER_BYTES);
    if used < block.capacity() / 4 {
        block.shrink_to((block.capacity() / 2).max(BLOCK_KEPT_BYTES));
    }
}

/// Blobs.
impl Committer {
    pub(super) fn append_blob(&self, generation: u64, bytes: &[u8]) -> io::Result<BlobId> {
        let mut blob = None;
        let pieces = bytes.chunks(PIECE_MAX_BYTES);
        for piece in pieces.chain(bytes.is_empty().then_some(bytes)) {
            let mut writer = self.writer_of(generation)?;
            let Some(file) = &mut writer.file else {
                break;
            };
            let blob = *blob.get_or_insert_with(|| file.next_blob());
            let before = file.end();
            file.write_piece(blob, piece)?;
            self.count_written((file.end() - before) as usize, file.end());
            // Frames that wait have their turn.
            MutexGuard::unlock_fair(writer);
        }
        Ok(blob.unwrap_or(BlobId::unlogged(generation)))
    }

    /// The writer, when `generation` is the one that is written.
    fn writer_of(&self, generation: u64) -> io::Result<MutexGuard<'_, Writer>> {
        {
            let mut gathered = self.gathered.lock();
            check_open(&gathered)?;
            while gathered.current.generation < generation {
                self.progress.wait(&mut gathered);
                check_open(&gathered)?;
            }
        }
        let writer = self.writer.lock();
        if writer.generation > generation {
            let why = format!("generation {generation} has ended");
            return Err(io::Error::new(io::ErrorKind::Interrupted, why));
        }
        Ok(writer)
    }
}

/// Generations.
impl Committer {
    pub(super) fn start(
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

    pub(super) fn begin_generation(&self, generation: u64, logged: bool) {
        let mut gathered = self.gathered.lock();
        assert!(gathered.next.is_none() && generation > gathered.current.generation);
        gathered.next = Some(Buffer::new(generation, logged));
    }

    pub(super) fn end_generation(&self) -> io::Result<()> {
        let mut writer = self.writer.lock();
        let next = {
            let gathered = self.gathered.lock();
            let next = gathered
                .next
                .as_ref()
                .map(|next| (next.generation, next.logged));
            if next.is_some() {
                check_open(&gathered)?;
            }
            next
        };
        let Some((generation, logged)) = next else {
            return Ok(());
        };
        self.complete(&mut writer)?;
        let previous_end = writer
            .file
            .as_ref()
            .map(LogFile::end)
            .or(writer.replayed_end);
        let file = if logged {
            Some(LogFile::create(&*self.disk, generation, previous_end)?)
        } else {
            None
        };
        self.count_written(0, file.as_ref().map_or(0, LogFile::end));
        if let Some(old) = std::mem::replace(&mut writer.file, file) {
            old.handle().drop_cached();
        }
        (writer.generation, writer.replayed_end) = (generation, None);
        {
            let mut gathered = self.gathered.lock();
            if let Some(next) = gathered.next.take() {
                gathered.current = next;
            }
            let begin = Position::new(generation, 0).0;
            self.written.store(begin, Ordering::Relaxed);
            // Pairs with the load in `durable`.
            self.durable.fetch_max(begin, Ordering::AcqRel);
            self.update_room(&gathered);
            self.wake(&mut gathered);
        }
        self.tell_progress();
        Ok(())
    }

    /// Writes and syncs everything, and takes no more.
    pub(super) fn close(&self) -> io::Result<()> {
        let mut writer = self.writer.lock();
        self.complete(&mut writer)?;
        if let Some(file) = &mut writer.file {
            // Says that everything before it is durable, so that damage to it is told from a torn tail.
            file.write_frames(&mut empty_block())?;
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
