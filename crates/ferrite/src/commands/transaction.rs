//! MULTI, EXEC, DISCARD, WATCH and UNWATCH. What is queued in between is in [`transaction`](crate::transaction), how it is executed in
//! [`exec`](crate::exec).

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row};
use crate::ctx::Ctx;
use crate::transaction::Transaction;

const FLAGS: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);
const FAST: Flags = FLAGS.and(Flags::FAST).and(Flags::ALLOW_BUSY);

const ROW: Row = Row {
    name: "",
    arity: 1,
    flags: FAST.and(Flags::AT_ONCE),
    keys: Keys::None,
    categories: &["transaction"],
    group: "transactions",
    since: "2.0.0",
    complexity: "O(1)",
    summary: "",
    handler: Handler::Container,
    subcommands: &[],
    tips: &[],
};

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "multi",
        since: "1.2.0",
        summary: "Starts a transaction: the commands that follow are queued.",
        handler: Handler::Worker(multi),
        ..ROW
    },
    Row {
        name: "exec",
        flags: FLAGS.and(Flags::SKIP_SLOWLOG).and(Flags::AT_ONCE),
        since: "1.2.0",
        complexity: "Depends on the commands in the transaction",
        summary: "Executes the commands of a transaction, as one.",
        handler: Handler::Exec,
        ..ROW
    },
    Row {
        name: "discard",
        complexity: "O(N) for N queued commands",
        summary: "Forgets the commands of a transaction.",
        handler: Handler::Worker(discard),
        ..ROW
    },
    Row {
        name: "watch",
        arity: -2,
        keys: Keys::Range {
            first: 1,
            last: -1,
            step: 1,
        },
        since: "2.2.0",
        complexity: "O(1) a key",
        summary: "Watches keys: if one of them changes, the next EXEC does nothing.",
        handler: Handler::Worker(watch),
        ..ROW
    },
    Row {
        name: "unwatch",
        flags: FAST,
        since: "2.2.0",
        complexity: "O(N) for N watched keys",
        summary: "Forgets all watched keys.",
        handler: Handler::Worker(unwatch),
        ..ROW
    },
];

fn multi(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    if cx.client.transaction.is_some() {
        return Err("ERR MULTI calls can not be nested".into());
    }
    cx.client.begin_transaction(Transaction::default());
    cx.reply.ok();
    Ok(())
}

fn discard(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    if cx.client.transaction.is_none() {
        return Err("ERR DISCARD without MULTI".into());
    }
    cx.client.end_transaction();
    cx.reply.ok();
    Ok(())
}

fn watch(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if cx.client.transaction.is_some() {
        return Err("ERR WATCH inside MULTI is not allowed".into());
    }
    let watch = cx
        .client
        .entry
        .watch
        .get_or_init(|| cx.server.store.watch());
    // The next EXEC does nothing anyway.
    if !watch.has_changed(cx.op.now_ms()) {
        let keys = args.from(1).map(|key| (cx.namespace, key));
        cx.op.watch(watch, keys)?;
    }
    cx.reply.ok();
    Ok(())
}

fn unwatch(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.client.unwatch();
    cx.reply.ok();
    Ok(())
}
