//! What an open store promises to keep, and how that is asked for: the command log, checkpoints, the embedding program's
//! own state.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::checkpoint::{CheckpointStatus, Checkpointed};
use crate::command_log::{Effect, Health, LogStats, Position, SyncPolicy};
use crate::compaction::Space;
use crate::index::Index;
use crate::operation::Operation;
use crate::recovery::RecoveryStats;
use crate::store::Store;
use crate::{Namespace, Stop};

impl<I: Index> Operation<'_, I> {
    /// Keeps `bytes` for the embedding program, in the place of what it kept before: they are found again after a restart
    /// ([`Store::state`]) exactly when the other changes of this operation are. Whoever may change them at the same time
    /// is kept away by a latch of the caller's choice, for example all of them.
    ///
    /// # Errors
    ///
    /// [`Stop::NoRoom`]; nothing has changed then.
    pub fn set_state(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.check_log()?;
        self.shared.checkpoints.set_state(self.generation, bytes);
        self.note(&Effect::State { bytes });
        Ok(())
    }

    /// Gives up a namespace that [`Store::clear`] is about to forget: a restart does that if it comes first. To be called
    /// after [`Self::set_state`] in the same operation, which has made sure that it can be logged.
    pub fn abandon(&mut self, namespace: Namespace) {
        self.note(&Effect::Clear { namespace });
    }
}

impl<I: Index> Store<I> {
    /// Saves everything up to now as a checkpoint, which a restart finds without the command log; blocks the thread, but no
    /// operation. If one is being made it is waited for first.
    ///
    /// # Errors
    ///
    /// One line that says what could not be written. The checkpoint before stays what a restart finds.
    pub fn checkpoint(&self) -> Result<Checkpointed, String> {
        self.shared.checkpoint()
    }

    /// Lets a checkpoint be made in the background, after the one that is being made if there is one.
    pub fn ask_for_checkpoint(&self) {
        self.shared.checkpoints.ask();
    }

    /// Gives up the checkpoint that was asked for, and the one that is being made unless it is nearly done; `false` if there
    /// is neither. Nothing is lost: the one before stays, and so does the command log.
    pub fn cancel_checkpoint(&self) -> bool {
        self.shared.checkpoints.cancel()
    }

    /// Has every checkpoint note what `count` returns when it begins, as [`Checkpointed::changes`]: how many changes the
    /// embedding program has made. To be called once.
    pub fn count_changes_with(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        self.shared
            .checkpoints
            .changes
            .get_or_init(|| Box::new(count));
    }

    /// How checkpoints are getting on.
    pub fn checkpoint_status(&self) -> CheckpointStatus {
        self.shared.checkpoints.status()
    }

    /// Whether a checkpoint has been asked for that has not begun.
    pub fn is_checkpoint_asked(&self) -> bool {
        self.shared.checkpoints.is_asked()
    }

    /// Changes [`Options::checkpoint_bytes`](crate::Options::checkpoint_bytes).
    pub fn set_checkpoint_bytes(&self, bytes: u64) {
        let bytes_max = &self.shared.checkpoints.bytes_max;
        bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Turns the command log on or off, by a checkpoint with which that begins; blocks the thread for it.
    ///
    /// # Errors
    ///
    /// As [`Self::checkpoint`]. It is as it was before then, or as it is to be: see [`Self::has_command_log`].
    pub fn set_command_log(&self, on: bool) -> Result<(), String> {
        self.shared.checkpoints.logged.store(on, Ordering::Relaxed);
        self.checkpoint().map(drop)
    }

    /// Whether what is changed now goes to the command log.
    pub fn has_command_log(&self) -> bool {
        let generation = self.shared.generations.current();
        self.shared.command_log.is_logged(generation)
    }

    /// Changes when the command log is synced.
    pub fn set_sync(&self, sync: SyncPolicy) {
        self.shared.command_log.set_sync(sync);
    }

    /// Whether the command log can be written.
    pub fn log_health(&self) -> Health {
        self.shared.command_log.health()
    }

    /// Figures of the command log.
    pub fn log_stats(&self) -> LogStats {
        self.shared.command_log.stats()
    }

    /// Up to where all changes would survive a power cut.
    pub fn durable(&self) -> Position {
        self.shared.command_log.durable()
    }

    /// Blocks the thread until all changes up to `position` would survive a power cut, whatever the [`SyncPolicy`].
    ///
    /// # Errors
    ///
    /// [`Stop::Io`]: why they will not.
    pub fn wait_durable(&self, position: Position) -> Result<(), Stop> {
        let waited = self.shared.command_log.wait_durable(position);
        waited.map_err(|why| Stop::Io(std::io::Error::other(why)))
    }

    /// As [`Self::wait_durable`], without blocking the thread.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn until_durable(&self, position: Position) -> Result<(), Stop> {
        let waited = self.shared.command_log.until_durable(position).await;
        waited.map_err(|why| Stop::Io(std::io::Error::other(why)))
    }

    /// Whether a change is to be called done only when it would survive a power cut.
    pub fn syncs_always(&self) -> bool {
        self.shared.command_log.syncs_always()
    }

    /// Gives back all the space of dead records that can be had for a reasonable effort; blocks the thread. `false` if that
    /// takes longer than `limit`; it goes on then.
    pub fn compact(&self, limit: Duration) -> bool {
        self.shared.compact_all(limit)
    }

    /// How the space on the device is used; O(number of segments).
    pub fn space(&self) -> Space {
        self.shared.space()
    }

    /// What the embedding program has last kept by [`Operation::set_state`]; empty if it never has.
    pub fn state(&self) -> Vec<u8> {
        self.shared.checkpoints.state()
    }

    /// How the recovery is getting on, and what it has found.
    pub fn recovery_stats(&self) -> RecoveryStats {
        self.shared.recovery.stats()
    }
}
