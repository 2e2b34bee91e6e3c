//! What a handler works with.

use std::sync::Arc;

use hybridlog::{KeyRef, Namespace, Operation, Record, Store, Suspended};

use crate::client::Client;
use crate::command::Stop;
use crate::memory::Allowance;
use crate::output::Output;
use crate::server::Server;

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
    /// An earlier run of the command has changed something, and then had to wait.
    pub(crate) has_begun: bool,
}

impl Ctx<'_> {
    /// The time that decides about expiry in this command, Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.op.now_ms()
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
