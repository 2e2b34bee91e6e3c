//! SLOWLOG and COMMANDLOG: the commands that stood out (see [`slowlog`](crate::slowlog)).

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop, tip};
use crate::commands::help::{reply_help, unknown_or_wrong_number};
use crate::commands::parse::strict_integer;
use crate::ctx::Ctx;
use crate::output::Output;
use crate::server::Server;
use crate::slowlog::CommandLog;

/// Entries that SLOWLOG GET shows unless told otherwise.
const SHOWN: usize = 10;

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "slowlog",
        arity: -2,
        flags: Flags::NONE,
        keys: Keys::None,
        categories: &[],
        group: "server",
        since: "2.2.12",
        complexity: "Depends on subcommand.",
        summary: "A container for slow log commands.",
        handler: Handler::Container,
        tips: &[],
        subcommands: &[
            admin(
                "get",
                -2,
                "2.2.12",
                "O(N) where N is the number of entries returned",
                "Returns the slow log's entries.",
                slowlog_get,
            )
            .with_tips(tip::ALL_NODES),
            plain(
                "help",
                "6.2.0",
                "Returns helpful text about the different subcommands.",
                slowlog_help,
            ),
            admin(
                "len",
                2,
                "2.2.12",
                "O(1)",
                "Returns the number of entries in the slow log.",
                slowlog_len,
            )
            .with_tips(tip::ALL_NODES_SUM_NOW),
            admin(
                "reset",
                2,
                "2.2.12",
                "O(N) where N is the number of entries in the slow log",
                "Clears all entries from the slow log.",
                slowlog_reset,
            )
            .with_tips(tip::ALL_NODES_SUCCEED),
        ],
    },
    Row {
        name: "commandlog",
        arity: -2,
        flags: Flags::NONE,
        keys: Keys::None,
        categories: &[],
        group: "server",
        since: "8.1.0",
        complexity: "Depends on subcommand.",
        summary: "A container for commands about the logs of slow commands, large requests and large replies.",
        handler: Handler::Container,
        tips: &[],
        subcommands: &[
            admin(
                "get",
                4,
                "8.1.0",
                "O(N) where N is the number of entries returned",
                "Returns entries of one log.",
                get,
            )
            .with_tips(tip::ALL_NODES),
            plain(
                "help",
                "8.1.0",
                "Returns helpful text about the different subcommands.",
                help,
            ),
            admin(
                "len",
                3,
                "8.1.0",
                "O(1)",
                "Returns the number of entries in one log.",
                len,
            )
            .with_tips(tip::ALL_NODES_SUM_NOW),
            admin(
                "reset",
                3,
                "8.1.0",
                "O(N) where N is the number of entries in the log",
                "Clears all entries from one log.",
                reset,
            )
            .with_tips(tip::ALL_NODES_SUCCEED),
        ],
    },
];

const fn admin(
    name: &'static str,
    arity: i32,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
    handler: fn(&mut Ctx<'_>, Args<'_>) -> Done,
) -> Row {
    let flags = Flags::ADMIN.and(Flags::LOADING).and(Flags::STALE);
    Row {
        name,
        arity,
        flags,
        keys: Keys::None,
        categories: &[],
        group: "server",
        since,
        complexity,
        summary,
        handler: Handler::Worker(handler),
        subcommands: &[],
        tips: &[],
    }
}

const fn plain(
    name: &'static str,
    since: &'static str,
    summary: &'static str,
    handler: fn(&mut Ctx<'_>, Args<'_>) -> Done,
) -> Row {
    Row {
        flags: Flags::LOADING.and(Flags::STALE),
        ..admin(name, 2, since, "O(1)", summary, handler)
    }
}

fn slowlog_get(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let count = match args.len() {
        2 => SHOWN,
        3 => entry_count(&args[2])?,
        _ => return Err(unknown_or_wrong_number("SLOWLOG", args)),
    };
    reply_entries(cx.reply, &cx.server.slowlog, count);
    Ok(())
}

fn slowlog_len(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply.integer(cx.server.slowlog.len() as i64);
    Ok(())
}

fn slowlog_reset(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.server.slowlog.clear();
    cx.reply.ok();
    Ok(())
}

fn slowlog_help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Return the newest <count> entries of the slow log (default 10, -1: all).",
            "    Each has: id, Unix time, execution time in microseconds, arguments,",
            "    client address and port, client name.",
            "LEN",
            "    Return the number of entries in the slow log.",
            "RESET",
            "    Clear the slow log.",
        ],
    );
    Ok(())
}

fn get(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let count = entry_count(&args[2])?;
    let log = log_of(cx.server, &args[3])?;
    reply_entries(cx.reply, log, count);
    Ok(())
}

fn len(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let log = log_of(cx.server, &args[2])?;
    cx.reply.integer(log.len() as i64);
    Ok(())
}

fn reset(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    log_of(cx.server, &args[2])?.clear();
    cx.reply.ok();
    Ok(())
}

fn help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "COMMANDLOG",
        &[
            "GET <count> <type>",
            "    Return the newest <count> entries of one log (-1: all).",
            "    Each has: id, Unix time, execution time in microseconds (slow) or size in",
            "    bytes (large-request, large-reply), arguments, client address and port,",
            "    client name.",
            "LEN <type>",
            "    Return the number of entries in one log.",
            "RESET <type>",
            "    Clear one log.",
        ],
    );
    Ok(())
}

/// The log of the type called `name`.
fn log_of<'s>(server: &'s Server, name: &[u8]) -> Result<&'s CommandLog, Stop> {
    match name.to_ascii_lowercase().as_slice() {
        b"slow" => Ok(&server.slowlog),
        b"large-request" => Ok(&server.large_requests),
        b"large-reply" => Ok(&server.large_replies),
        _ => {
            Err("ERR type should be one of the following: slow, large-request, large-reply".into())
        }
    }
}

/// How many entries are asked for; -1 means all.
fn entry_count(arg: &[u8]) -> Result<usize, Stop> {
    match strict_integer(arg) {
        Some(-1) => Ok(usize::MAX),
        Some(count @ 0..) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        _ => Err("ERR count should be greater than or equal to -1".into()),
    }
}

fn reply_entries(reply: &mut Output, log: &CommandLog, count: usize) {
    let entries = log.latest(count);
    reply.array(entries.len());
    for entry in &entries {
        reply.array(6);
        reply.integer(entry.id as i64);
        reply.integer(entry.unix_seconds as i64);
        reply.integer(entry.amount as i64);
        reply.array(entry.args.len());
        entry.args.iter().for_each(|arg| reply.bulk(arg));
        reply.bulk(entry.client_addr.as_bytes());
        reply.bulk(&entry.client_name);
    }
}
