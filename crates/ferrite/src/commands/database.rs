//! Commands on whole databases: DBSIZE, FLUSHDB, FLUSHALL, SWAPDB.
//!
//! A database number stands for a namespace of the engine. To empty a database is to give it a
//! fresh namespace, to swap two is to swap theirs: both are O(1) while every key is latched. What
//! was in the old one is swept in the background, which is why ASYNC and SYNC do the same.

use std::sync::Arc;

use hybridlog::Namespace;

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop, tip};
use crate::commands::generic_keys::DATABASE_OUT_OF_RANGE;
use crate::commands::parse::{SYNTAX_ERROR, integer};
use crate::ctx::Ctx;
use crate::server::Server;

const SWEEPS_PENDING: &str =
    "ERR too many databases that were emptied are still being swept, try again later";

const FLUSH: Row = Row {
    name: "",
    arity: -1,
    flags: Flags::WRITE,
    keys: Keys::Everything,
    categories: &["keyspace", "dangerous"],
    group: "server",
    since: "1.0.0",
    complexity: "O(1); the keys are removed in the background",
    summary: "",
    handler: Handler::Container,
    subcommands: &[],
    tips: &[],
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "dbsize",
        tips: tip::ALL_SHARDS_SUM,
        arity: 1,
        flags: Flags::READONLY.and(Flags::FAST).and(Flags::KEYSPACE),
        keys: Keys::None,
        categories: &["keyspace"],
        complexity: "O(1)",
        summary: "Counts the keys of the database.",
        handler: Handler::Worker(dbsize),
        ..FLUSH
    },
    Row {
        name: "flushdb",
        tips: tip::ALL_SHARDS_SUCCEED,
        summary: "Removes all keys of the database.",
        handler: Handler::Worker(flushdb),
        ..FLUSH
    },
    Row {
        name: "flushall",
        tips: tip::ALL_SHARDS_SUCCEED,
        summary: "Removes all keys of all databases.",
        handler: Handler::Worker(flushall),
        ..FLUSH
    },
    Row {
        name: "swapdb",
        arity: 3,
        flags: Flags::WRITE.and(Flags::FAST),
        since: "4.0.0",
        complexity: "O(1)",
        summary: "Swaps two databases.",
        handler: Handler::Worker(swapdb),
        ..FLUSH
    },
];

fn dbsize(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let keys = cx.server.store.len(cx.namespace);
    cx.reply.integer(keys as i64);
    Ok(())
}

fn flushdb(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_flush_mode(args)?;
    let databases = &cx.server.databases;
    let Some(renewed) = databases.renewed([cx.client.database()]) else {
        return Err(SWEEPS_PENDING.into());
    };
    let moves = databases.moves(&renewed);
    let watched = cx.op.watched(moves.clone())?;
    cx.op.set_state(&renewed.encode())?;
    cx.op.abandon(cx.namespace);
    cx.op.move_watched(&watched);
    cx.server.blocking.move_waiters(&moves);
    for old in databases.assign(&renewed) {
        clear(cx.server, old);
    }
    cx.reply.ok();
    Ok(())
}

/// Clears a namespace that no database is any more, in the background.
pub(crate) fn clear(server: &Arc<Server>, old: Namespace) {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || {
        server.store.clear(old);
        server.databases.release(old);
    });
}

fn flushall(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_flush_mode(args)?;
    if cx.server.store.has_nothing() {
        cx.reply.ok();
        return Ok(());
    }
    let databases = &cx.server.databases;
    // All latches are held: nobody else takes a namespace in between.
    let Some(renewed) = databases.renewed(0..databases.count()) else {
        return Err(SWEEPS_PENDING.into());
    };
    let moves = databases.moves(&renewed);
    let watched = cx.op.watched(moves.clone())?;
    let retired = cx.op.retire_everything()?;
    cx.op.set_state(&renewed.encode())?;
    cx.op.move_watched(&watched);
    cx.server.blocking.move_waiters(&moves);
    let old = databases.assign(&renewed);
    let server = Arc::clone(cx.server);
    tokio::task::spawn_blocking(move || {
        server.store.sweep(retired, &old);
        old.into_iter()
            .for_each(|namespace| server.databases.release(namespace));
    });
    cx.reply.ok();
    Ok(())
}

fn check_flush_mode(args: Args<'_>) -> Result<(), Stop> {
    match args.len() {
        1 => Ok(()),
        2 if args.is(1, "sync") || args.is(1, "async") => Ok(()),
        _ => Err(SYNTAX_ERROR.into()),
    }
}

fn swapdb(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let first = database_number(&args[1], "ERR invalid first DB index")?;
    let second = database_number(&args[2], "ERR invalid second DB index")?;
    let exists = |number: i32| {
        usize::try_from(number)
            .ok()
            .filter(|&number| number < cx.server.databases.count())
    };
    let (Some(first), Some(second)) = (exists(first), exists(second)) else {
        return Err(DATABASE_OUT_OF_RANGE.into());
    };
    let databases = &cx.server.databases;
    let swapped = databases.swapped(first, second);
    let moves = databases.moves(&swapped);
    let watched = cx.op.watched(moves.clone())?;
    cx.op.set_state(&swapped.encode())?;
    cx.op.move_watched(&watched);
    cx.server.blocking.move_waiters(&moves);
    databases.assign(&swapped);
    cx.reply.ok();
    Ok(())
}

fn database_number(arg: &[u8], error: &'static str) -> Result<i32, Stop> {
    integer(arg)
        .ok()
        .and_then(|number| i32::try_from(number).ok())
        .ok_or(error.into())
}
