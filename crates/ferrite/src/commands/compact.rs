//! COMPACT: gives back the space of dead records.

use std::time::Duration;

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row};
use crate::ctx::SlowCtx;

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "compact",
    arity: 1,
    flags: Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::NO_MULTI),
    complexity: "O(N) where N is the number of records in segments that are worth it",
    summary: "Gives back all the disk space of dead records that can be had, then replies.",
    handler: Handler::Slow(compact),
    ..Row::SERVER
}];

/// Longer than this it is not waited for.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

fn compact(cx: &mut SlowCtx<'_>, _args: Args<'_>) -> Done {
    if !cx.store.compact(LIMIT) {
        return Err("ERR compaction still goes on".into());
    }
    // The files go with it.
    cx.store.checkpoint().map_err(|why| {
        format!("ERR compacted, but the checkpoint that removes the files failed: {why}")
    })?;
    cx.reply.simple("OK");
    Ok(())
}
