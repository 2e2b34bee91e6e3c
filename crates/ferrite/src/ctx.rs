//! What a handler works with.

use std::sync::Arc;

use hybridlog::{KeyRef, Namespace, Operation, Record, Store, Suspended};

use crate::blocking::Serving;
use crate::client::Client;
use crate::command::Stop;
use crate::commands::{Claims, ScoreChange, ScoredMembers, StoredSet};
use crate::memory::Allowance;
use crate::output::{Mark, Output};
use crate::server::Server;
use crate::worker::Worker;

/// A command that goes on step by step asks for about so many bytes of cold records at a time.
pub(crate) const STEP_COLD_BYTES: u64 = 1 << 20;

/// One run of one command on a worker. The fields are disjoint so that a record borrowed from `op` can be written to
/// `reply`.
pub(crate) struct Ctx<'a> {
    /// The data; the keys of the command's row are latched.
    pub(crate) op: Operation<'a>,
    /// The namespace of the client's selected database.
    pub(crate) namespace: Namespace,
    /// Where the reply goes; derefs to `resp::Encoder`.
    pub(crate) reply: &'a mut Output,
    /// The client that sent the command.
    pub(crate) client: &'a mut Client,
    /// Everything shared between workers.
    pub(crate) server: &'a Arc<Server>,
    /// The worker that runs the command.
    pub(crate) worker: &'a Worker,
    /// How far an earlier run has come.
    pub(crate) progress: Progress,
}

/// How far a command has come that had to wait after it had changed something, or after the first of its steps. It is run
/// again from the start then, with its latches kept, and nothing left of the run before but this and what it had replied: so a
/// handler that changes, or reads, one element after the other goes on at `done`, and replies about an element only after it
/// has changed it.
#[derive(Default)]
pub(crate) struct Progress {
    /// An earlier run has changed something, or done a step.
    pub(crate) has_begun: bool,
    /// How many of its steps are done, in an order that is the same in every run.
    pub(crate) done: usize,
    /// How many elements a search has looked at for nothing, and need not look at again. They count as steps.
    pub(crate) looked: u64,
    /// What its reply counts so far.
    pub(crate) count: i64,
    /// What it stores under a key, made of what may be gone by now.
    pub(crate) result: Option<StoredSet>,
    /// As `result`, of a sorted set.
    pub(crate) scored: Option<ScoredMembers>,
    /// What its current step makes of a member of a sorted set, which cannot be told by what is there half-way.
    pub(crate) score_change: Option<ScoreChange>,
    /// Which pending entries of a stream are to change, and how.
    pub(crate) claims: Option<Claims>,
    /// Its handler has ended: what is left to do is to serve those who wait for its keys.
    pub(crate) serving: Option<Box<Serving>>,
    /// What it has replied so far.
    reply: Option<Output>,
}

impl Progress {
    /// How many steps are done.
    pub(crate) fn steps(&self) -> usize {
        self.done + self.looked as usize
    }

    /// A run goes on: puts what has been replied so far behind what `output` holds.
    pub(crate) fn resume(&mut self, output: &mut Output) {
        if let Some(reply) = self.reply.take() {
            output.append(reply);
        }
    }

    /// The run has to wait half-way: takes out what it has replied, from `mark` on.
    pub(crate) fn suspend(mut self, output: &mut Output, mark: Mark) -> Progress {
        self.has_begun = true;
        self.reply = (output.bytes_since(mark) > 0).then(|| output.split_off(mark));
        self
    }
}

impl Ctx<'_> {
    /// The time that decides about expiry in this command, Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.op.now_ms()
    }

    /// A random number that is the same in every run of the command: what is picked by it is fetched only once.
    pub(crate) fn seed(&mut self) -> u64 {
        let random = || self.server.random();
        *self.client.seed.get_or_insert_with(random)
    }
}

/// Writes the value of `record` as one bulk string; a large one as pieces, of which only what may change is copied.
pub(crate) fn reply_value(
    op: &Operation<'_>,
    memory: &mut Allowance,
    reply: &mut Output,
    record: &Record<'_>,
) -> Result<(), Stop> {
    if record.len() < Output::PIECE_MIN_BYTES {
        let value = op.value(record)?;
        reply.ask_for_room(memory, value.len())?;
        reply.bulk(&value);
        return Ok(());
    }
    let pieces = op.pieces(record, |bytes| memory.ask(bytes))?;
    reply.bulk_header(record.len() as usize);
    for piece in pieces {
        reply.piece(piece);
    }
    reply.bulk_end();
    Ok(())
}

/// One run of a command on a slow-lane thread.
pub(crate) struct SlowCtx<'a> {
    pub(crate) store: &'a Arc<Store>,
    /// The transaction that the command is part of: half done, with everything latched.
    pub(crate) transaction: Option<Suspended>,
    pub(crate) namespace: Namespace,
    pub(crate) reply: &'a mut Output,
    pub(crate) server: &'a Arc<Server>,
    pub(crate) now_ms: u64,
}

impl SlowCtx<'_> {
    /// Runs `step` on `keys` as an operation of its own, or as part of the transaction, until it does not meet a cold
    /// record, blocking for the reads.
    pub(crate) fn step<T>(
        &mut self,
        keys: &[KeyRef<'_>],
        step: impl FnMut(&mut Operation<'_>) -> Result<T, hybridlog::Stop>,
    ) -> Result<T, hybridlog::Stop> {
        let Some(suspended) = self.transaction.take() else {
            return self.store.blocking(keys, self.now_ms, step);
        };
        let (result, suspended) = self.store.blocking_suspended(suspended, step);
        self.transaction = Some(suspended);
        result
    }
}
