//! What clients wait for, and how they begin to.

use std::collections::HashSet;
use std::sync::Arc;

use hybridlog::Namespace;
use tokio::time::{Duration, Instant};

use super::{Blocked, Waiter};
use crate::args::Args;
use crate::client::{After, client_flags};
use crate::command::{Done, Stop};
use crate::commands::extended_float::ExtendedFloat;
use crate::ctx::Ctx;

/// What a key that is waited for takes beside its bytes, at most: in the list of its client's keys, and in the table.
const KEY_BYTES: usize = 512;

/// What a client waits to have done.
pub(crate) trait Request: Send + Sync {
    /// The type of value that it waits for under one of its keys.
    fn kind(&self) -> u8;

    /// Whether it is to be served as well when none of its keys' values has this type any more.
    fn on_removal(&self) -> bool {
        false
    }

    /// Does it, `key` being latched exclusively and holding a value of that type; writes the reply. As for a handler: it stops
    /// before it changes anything, or keeps its place in `cx.progress`. `cx.namespace` and `cx.reply` are those of the client
    /// that waits; `cx.client` is the one that has changed the key, and lends nothing but its `allowance`. Any other key may be
    /// touched only if [`hybridlog::Operation::try_latch`] says so.
    fn serve(&self, cx: &mut Ctx<'_>, key: &[u8]) -> Result<Served, Stop>;

    /// What its command is to be run again with, if not with what the client has sent.
    fn args(&self) -> Option<Args<'_>> {
        None
    }

    /// Another key that it changes, for which others may wait.
    fn changes(&self) -> Option<&[u8]> {
        None
    }
}

/// What has become of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    /// It is done, and the reply written.
    Yes,
    /// There is nothing for it to be done with; nothing has been written or changed.
    NotYet,
    /// The client has to run its command again, by itself.
    RunAgain,
}

/// Whether the command may wait; those of a transaction may not.
pub(crate) fn may_block(cx: &Ctx<'_>) -> bool {
    cx.client.may_wait
}

/// The client begins to wait for `keys` of its database, which the command has latched, and has found nothing under. The last
/// thing that a handler does. Without a deadline it waits for ever.
///
/// # Errors
///
/// There is no memory for that now: the command is to run again.
pub(crate) fn block<'k>(
    cx: &mut Ctx<'_>,
    request: Box<dyn Request>,
    keys: impl Iterator<Item = &'k [u8]>,
    deadline: Option<Instant>,
) -> Done {
    let mut own: HashSet<Box<[u8]>> = HashSet::new();
    for key in keys {
        cx.client.allowance.ask((key.len() + KEY_BYTES) as u64)?;
        own.insert(key.into());
    }
    let blocking = &cx.server.blocking;
    // Who has to wait again keeps his place, and his time.
    let (ticket, deadline) = match cx.client.waits_again.take() {
        Some(former) => former.place(),
        None => (blocking.next_ticket(), deadline),
    };
    let namespace: Namespace = cx.namespace;
    let keys = own.into_iter().collect();
    let waiter = Waiter::new(ticket, request, keys, namespace, cx.reply.protocol());
    let waiter = Arc::new(waiter);
    blocking.enter(&waiter);
    let entry = Arc::clone(&cx.client.entry);
    *entry.waiter.lock() = Some(Arc::clone(&waiter));
    entry.set_flag(client_flags::BLOCKED, true);
    cx.client.blocked = Some(Blocked {
        blocking: Arc::clone(blocking),
        waiter,
        entry,
        deadline,
        wants_reply: cx.client.reply_mode.sends(),
    });
    cx.client.after = After::Block;
    Ok(())
}

/// Argument `arg` as a timeout in seconds: when it is over. Zero is never.
pub(crate) fn timeout_argument(arg: &[u8]) -> Result<Option<Instant>, Stop> {
    const OUT_OF_RANGE: &str = "ERR timeout is out of range";
    let seconds = ExtendedFloat::parse(arg).ok_or("ERR timeout is not a float or out of range")?;
    let ms = (seconds.to_f64() * 1000.0).ceil();
    if ms > i64::MAX as f64 {
        return Err(OUT_OF_RANGE.into());
    }
    if ms < 0.0 {
        return Err("ERR timeout is negative".into());
    }
    if ms == 0.0 {
        return Ok(None);
    }
    let now_ms = crate::server::unix_ms();
    if ms as u64 > i64::MAX as u64 - now_ms {
        return Err(OUT_OF_RANGE.into());
    }
    // A time beyond what the clock can tell is never reached either.
    Ok(Instant::now().checked_add(Duration::from_millis(ms as u64)))
}
