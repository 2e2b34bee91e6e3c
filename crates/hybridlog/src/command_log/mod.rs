//! The command log: the effects of every operation since the last checkpoint, in the order in which they became visible, so
//! that a restart can do them again.
//!
//! An operation appends one *frame*, its effects encoded ([`Effect`]), under the latches of its keys: into a buffer, which
//! never fails and takes well under a microsecond. The *commit thread* writes what has gathered as one block, and syncs it as
//! the [`SyncPolicy`] says, so that one sync serves all that wait for it. There is one log file a generation:
//!
//! ```text
//! append ──> buffer of the generation ──> block ──> file of the generation
//! append ──> buffer of the next one (kept until the old one is complete)
//! append_blob ─────────────────────────> pieces ──> the same file
//! file ──> replay ──> frames, and blobs when a frame asks for them
//! ```
//!
//! A change of generation takes two calls: [`CommandLog::begin_generation`], from which on frames of the next generation may
//! come, and [`CommandLog::end_generation`], when those of the old one cannot come any more.
//!
//! Invariants:
//! * Frames of a generation are in its file in the order of their [`Position`]s, and none is written twice or left out.
//! * [`CommandLog::durable`] never goes back, and covers only what a replay would find after a power cut: what a sync has
//!   covered, the frame, and every frame and blob before it; and, after a generation that was not logged, nothing before a
//!   checkpoint of that one is durable.
//! * A file of a generation exists only when that of the generation before is complete and synced.
//! * After a failed sync nothing is written or reported durable any more.
//!
//! Effects are encoded in `effect.rs`, gather in `gathered.rs`, are written by `commit` through
//! `log_file.rs`, in the format of `format.rs`, and read back by `replay.rs`.
//!
//! Locks, in the order in which they are taken: the writer (whoever writes to the file), then what has gathered (held for
//! some ten nanoseconds).

mod commit;
mod effect;
mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod gathered;
mod log_file;
mod replay;
#[cfg(test)]
mod test_disk;
#[cfg(test)]
mod tests;
mod tree_effect;
mod varint;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::futures::Notified;

use crate::disk::Disk;
use crate::generation::Parity;
use commit::Committer;
pub(crate) use effect::{Effect, Effects};
pub(crate) use format::{generation_of_log, log_name};
pub(crate) use replay::{
    Blobs, Frame, Logs, Refused, Replayed, last_generation, replay, replay_batches, sound_end,
};
pub(crate) use tree_effect::{LoggedBytes, TreeEffect};

/// Where a frame ends: the generation, and how many bytes of frames that generation's log has up to there. Later is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position(u64);

impl Position {
    const BYTES_BITS: u32 = 40;

    /// Before everything: durable from the start. Frames of generations that are not logged have it.
    pub(crate) const START: Position = Position(0);

    /// Behind everything.
    const NEVER: Position = Position(u64::MAX);

    /// The longest log that positions can tell, in bytes of frames.
    pub(crate) const BYTES_MAX: u64 = (1 << Self::BYTES_BITS) - 1;

    fn new(generation: u64, bytes: u64) -> Position {
        debug_assert!(bytes <= Self::BYTES_MAX && generation >> (64 - Self::BYTES_BITS) == 0);
        Position(generation << Self::BYTES_BITS | bytes)
    }
}

/// A large value that has gone ahead of the frame that names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BlobId(u64);

impl BlobId {
    /// What stands for all blobs of a generation that is not logged.
    fn unlogged(generation: u64) -> BlobId {
        BlobId(Position::new(generation, 0).0)
    }
}

/// When what has been appended is synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncPolicy {
    /// At once; what is appended while a sync runs shares the next one.
    Always,
    /// Once a second.
    EverySecond,
    /// When somebody waits for it ([`CommandLog::wait_durable`]), and when a generation ends.
    Never,
}

/// Whether the log can be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// It can.
    Ok,
    /// A write has failed; it is tried again, several times a second. Nothing is lost yet.
    CannotWrite(String),
    /// A sync has failed: nobody knows what the device has. For good.
    Poisoned(String),
}

/// Where a log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogEnd {
    pub(crate) generation: u64,
    /// Bytes of the file up to the end of its last sound block.
    pub(crate) bytes: u64,
}

/// Figures of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogStats {
    /// Bytes in the current generation's file.
    pub file_bytes: u64,
    /// Bytes of frames that are in memory only.
    pub pending_bytes: u64,
    /// Bytes written to log files since the start.
    pub written_bytes: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// How long the last sync took.
    pub last_sync: Duration,
}

/// What appends to a log, and outlives it: what is appended after the log has gone is dropped.
pub(crate) struct Appender(Arc<Committer>);

impl Appender {
    /// As [`CommandLog::append`].
    pub(crate) fn append(&self, generation: u64, effects: &[u8]) -> Position {
        self.0.append(generation, effects)
    }
}

/// The log of a data directory. All methods may be called from any thread.
pub(crate) struct CommandLog {
    committer: Arc<Committer>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Whether even and odd generations are logged.
    logged: [AtomicBool; 2],
    syncs_always: AtomicBool,
}

impl CommandLog {
    /// A log that writes to nothing yet: see [`Self::start`]. From `buffer_bytes` on that are not written yet,
    /// [`Self::has_room`] says no; with what is in the making the log holds up to twice as much.
    pub(crate) fn new(disk: Arc<dyn Disk>, sync: SyncPolicy, buffer_bytes: usize) -> CommandLog {
        CommandLog {
            committer: Arc::new(Committer::new(disk, sync, buffer_bytes)),
            thread: Mutex::default(),
            logged: Default::default(),
            syncs_always: AtomicBool::new(sync == SyncPolicy::Always),
        }
    }

    /// Begins with `generation`, the first one of this process; `previous` is where the last log that has been replayed ends,
    /// which is that of the generation before. That log is cut there and synced; logs of `generation` or later are removed:
    /// nothing leads to them. To be called once; after an error again.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn start(
        &self,
        generation: u64,
        logged: bool,
        previous: Option<LogEnd>,
    ) -> io::Result<()> {
        self.committer.start(generation, logged, previous)?;
        self.set_logged(generation, logged);
        self.start_thread()
    }

    /// Appends a frame of `generation`, which is the current one or one that has begun: `effects` is what
    /// [`Effect::encode`] has made. Copies it, and never fails or waits: [`Self::has_room`] is asked before. What is
    /// appended by one thread, or one after the other, is in the log in that order.
    #[inline]
    pub(crate) fn append(&self, generation: u64, effects: &[u8]) -> Position {
        self.committer.append(generation, effects)
    }

    /// What can append when the log is out of reach.
    pub(crate) fn appender(&self) -> Appender {
        Appender(Arc::clone(&self.committer))
    }

    /// Writes a large value to the log of `generation`, ahead of the frame that will name it; takes no memory for it. A blob
    /// that no frame names is forgotten at replay. It is durable when that frame is.
    ///
    /// Waits for the disk. The caller is an operation of the generation, so that it does not end meanwhile.
    ///
    /// # Errors
    ///
    /// `WouldBlock` while `generation` has begun and the one before has not ended yet: to be tried again by an operation that
    /// does not keep it from ending. Those of the disk. What has been written is forgotten then.
    pub(crate) fn append_blob(&self, generation: u64, bytes: &[u8]) -> io::Result<BlobId> {
        self.committer.append_blob(generation, bytes)
    }

    /// Whether an operation may begin that will append: the buffer is below its bound and the log can be written.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.committer.has_room()
    }

    /// From here on frames of `generation` may come, the one after the current. They are kept until
    /// [`Self::end_generation`].
    ///
    /// # Panics
    ///
    /// If it is not a later generation, or if another has begun already.
    pub(crate) fn begin_generation(&self, generation: u64, logged: bool) {
        self.committer.begin_generation(generation, logged);
        self.set_logged(generation, logged);
    }

    /// Completes the log of the old generation, when none of its frames can come any more, and goes on with the one that has
    /// begun. When this is over everything of the old generation is durable. Does nothing if no generation has begun.
    ///
    /// # Errors
    ///
    /// Those of the disk. Frames of both generations are kept then, [`Self::has_room`] says no, and the commit thread tries
    /// again; before another generation can begin the call has to be repeated until it succeeds.
    pub(crate) fn end_generation(&self) -> io::Result<()> {
        self.committer.end_generation()?;
        self.start_thread()
    }

    /// A checkpoint has made `generation` and everything before it durable without the log. Frames that follow a generation
    /// which was not logged are durable only from here on.
    pub(crate) fn checkpointed(&self, generation: u64) {
        self.committer.checkpointed(generation);
    }

    /// Whether frames wait for such a checkpoint.
    #[cfg(test)]
    pub(crate) fn is_held(&self) -> bool {
        self.committer.is_held()
    }

    /// Up to where everything is durable.
    #[inline]
    pub(crate) fn durable(&self) -> Position {
        self.committer.durable()
    }

    /// Blocks the thread until everything up to `position` is durable; asks for a sync at once, whatever the policy.
    ///
    /// # Errors
    ///
    /// One line that says why that will not happen: a sync has failed, or the log has been shut down.
    pub(crate) fn wait_durable(&self, position: Position) -> Result<(), String> {
        self.committer.wait_durable(position)
    }

    /// As [`Self::wait_durable`], without blocking the thread.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) async fn until_durable(&self, position: Position) -> Result<(), String> {
        self.committer.until_durable(position).await
    }

    /// Waits until the log has made some progress, or for `limit`.
    pub(crate) fn wait_progress(&self, limit: Duration) {
        self.committer.wait_progress(limit);
    }

    /// Ready when the log has made some progress since this was called.
    pub(crate) fn progress(&self) -> Notified<'_> {
        self.committer.progress()
    }

    pub(crate) fn set_sync(&self, sync: SyncPolicy) {
        self.committer.set_sync(sync);
        let always = sync == SyncPolicy::Always;
        self.syncs_always.store(always, Ordering::Relaxed);
    }

    /// Whether the policy is [`SyncPolicy::Always`].
    #[inline]
    pub(crate) fn syncs_always(&self) -> bool {
        self.syncs_always.load(Ordering::Relaxed)
    }

    /// Whether frames of the generation, the current one or one that has begun, are logged.
    #[inline]
    pub(crate) fn is_logged(&self, generation: u64) -> bool {
        self.logged[Parity::of(generation) as usize].load(Ordering::Relaxed)
    }

    fn set_logged(&self, generation: u64, logged: bool) {
        // Relaxed: whoever learns of the generation learns of this too (`Generations::advance`), or is not running yet.
        self.logged[Parity::of(generation) as usize].store(logged, Ordering::Relaxed);
    }

    pub(crate) fn health(&self) -> Health {
        self.committer.health()
    }

    pub(crate) fn stats(&self) -> LogStats {
        self.committer.stats()
    }

    /// Writes and syncs everything and ends the commit thread. What is appended afterwards is dropped.
    ///
    /// # Errors
    ///
    /// Those of the disk; what could not be written is kept then, and the call can be repeated.
    pub(crate) fn shutdown(&self) -> io::Result<()> {
        self.committer.end_generation()?;
        self.stop_thread();
        self.committer.close()
    }

    fn start_thread(&self) -> io::Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() && self.committer.is_logged() {
            let committer = self.committer.clone();
            let started = thread::Builder::new()
                .name("command-log".to_owned())
                .spawn(move || committer.run())?;
            *thread = Some(started);
        }
        Ok(())
    }

    fn stop_thread(&self) {
        let thread = self.thread.lock().take();
        self.committer.stop();
        if let Some(thread) = thread {
            // It ends when it has been told to; had it panicked, its message has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for CommandLog {
    /// Ends the commit thread. What it has not written is lost, as in a crash: see [`Self::shutdown`].
    fn drop(&mut self) {
        self.stop_thread();
    }
}
