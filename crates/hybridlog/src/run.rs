//! Running an operation to its end: fetching what is cold, waiting for room and latches, and running it again.

use crate::command_log::Position;
use crate::index::Index;
use crate::io::ColdReader;
use crate::operation::{KeptLatches, KeyRef, Operation};
use crate::reads::ColdReads;
use crate::store::Store;
use crate::sync::give_way;
use crate::{NoRoomReason, Stop};

/// An operation that has met cold records so often keeps its latches while they are fetched: others must then wait, and
/// nothing can change under it any more, so it ends.
const COLD_BEFORE_KEEPING_LATCHES: u32 = 2;

/// What an operation needs before it can run again, or its result.
enum Turn<T> {
    /// And where its frame ends in the command log, if it has changed something.
    Ended(Result<T, Stop>, Option<Position>),
    Cold,
    Room(u64),
    Latched,
}

/// Latches kept between turns, and how often the operation has met cold records.
#[derive(Default)]
struct Progress {
    kept: Option<KeptLatches>,
    colds: u32,
}

impl<I: Index> Store<I> {
    /// Runs `body` as an operation on `keys`, again until it meets no cold record, blocking the thread for reads, room
    /// and latches. `body` must do all its reading before it changes anything.
    ///
    /// # Errors
    ///
    /// What `body` returns, but for [`Stop::Cold`] and a [`Stop::NoRoom`] that passes.
    pub fn blocking<T>(
        &self,
        keys: &[KeyRef<'_>],
        now_ms: u64,
        mut body: impl FnMut(&mut Operation<'_, I>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let mut reads = ColdReads::default();
        let mut progress = Progress::default();
        loop {
            match self.turn(keys, &reads, now_ms, &mut progress, &mut body) {
                Turn::Ended(result, position) => {
                    if let Some(position) = position.filter(|_| self.syncs_always()) {
                        self.wait_durable(position)?;
                    }
                    return result;
                }
                Turn::Cold => reads.fetch_blocking(&self.shared.blocking_reader),
                Turn::Room(bytes) => no_room(bytes, self.wait_for_room_blocking(bytes))?,
                Turn::Latched => give_way(),
            }
        }
    }

    /// As [`Self::blocking`], on a tokio runtime: cold records are fetched by `reader`, and the task waits, not the thread.
    ///
    /// # Errors
    ///
    /// As [`Self::blocking`].
    pub async fn asynchronous<T>(
        &self,
        reader: &ColdReader,
        keys: &[KeyRef<'_>],
        now_ms: u64,
        mut body: impl FnMut(&mut Operation<'_, I>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let mut reads = ColdReads::default();
        let mut progress = Progress::default();
        loop {
            match self.turn(keys, &reads, now_ms, &mut progress, &mut body) {
                Turn::Ended(result, position) => {
                    if let Some(position) = position.filter(|_| self.syncs_always()) {
                        self.until_durable(position).await?;
                    }
                    return result;
                }
                Turn::Cold => reads.fetch(reader).await,
                Turn::Room(bytes) => no_room(bytes, self.wait_for_room(bytes).await)?,
                Turn::Latched => tokio::task::yield_now().await,
            }
        }
    }

    fn turn<T>(
        &self,
        keys: &[KeyRef<'_>],
        reads: &ColdReads,
        now_ms: u64,
        progress: &mut Progress,
        body: &mut impl FnMut(&mut Operation<'_, I>) -> Result<T, Stop>,
    ) -> Turn<T> {
        let operation = match progress.kept.take() {
            Some(kept) => Some(self.resume(kept, reads, now_ms)),
            None => self.operation(keys, reads, now_ms),
        };
        let Some(mut operation) = operation else {
            return Turn::Latched;
        };
        match body(&mut operation) {
            Err(Stop::Cold) => {
                progress.colds += 1;
                if progress.colds > COLD_BEFORE_KEEPING_LATCHES {
                    progress.kept = Some(operation.keep_latches());
                }
                Turn::Cold
            }
            Err(Stop::NoRoom { bytes }) => Turn::Room(bytes),
            result => Turn::Ended(result, operation.finish()),
        }
    }
}

pub(crate) fn no_room(bytes: u64, waited: Result<(), NoRoomReason>) -> Result<(), Stop> {
    waited.map_err(|_| Stop::NoRoom { bytes })
}
