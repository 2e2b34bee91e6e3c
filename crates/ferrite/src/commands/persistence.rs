//! Commands about what a restart finds: SAVE, BGSAVE, LASTSAVE, BGREWRITEAOF, WAIT, WAITAOF, SHUTDOWN. What they lead
//! to is in [`persistence`](crate::persistence).

use std::time::Duration;

use hybridlog::Position;

use crate::args::Args;
use crate::client::{After, Awaited};
use crate::command::{Done, Flags, Handler, Row, Stop, tip};
use crate::commands::parse::{SYNTAX_ERROR, integer, strict_integer};
use crate::config::ShutdownOptions;
use crate::ctx::{Ctx, SlowCtx};
use crate::output::Output;
use crate::persistence::{self, Begun, Cancelled, Purpose};
use crate::server::Server;
use crate::shutdown;

const CHECKPOINT: Flags = Flags::ADMIN
    .and(Flags::NOSCRIPT)
    .and(Flags::NO_ASYNC_LOADING);
const SHUTDOWN: Flags = Flags::ADMIN
    .and(Flags::NOSCRIPT)
    .and(Flags::LOADING)
    .and(Flags::STALE)
    .and(Flags::NO_MULTI)
    .and(Flags::ALLOW_BUSY);

const SAVE_IN_PROGRESS: &str = "ERR Background save already in progress";

const WAIT: Row = Row {
    flags: Flags::BLOCKING,
    categories: &["connection"],
    group: "generic",
    ..Row::SERVER
};

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bgrewriteaof",
        arity: 1,
        flags: CHECKPOINT,
        since: "1.0.0",
        summary: "Begins a checkpoint in the background, with which the command log begins anew.",
        handler: Handler::Worker(bgrewriteaof),
        ..Row::SERVER
    },
    Row {
        name: "bgsave",
        arity: -1,
        flags: CHECKPOINT,
        since: "1.0.0",
        summary: "Begins a checkpoint in the background.",
        handler: Handler::Worker(bgsave),
        ..Row::SERVER
    },
    Row {
        name: "lastsave",
        tips: tip::NONDETERMINISTIC,
        arity: 1,
        flags: Flags::LOADING.and(Flags::STALE).and(Flags::FAST),
        categories: &["admin", "dangerous"],
        since: "1.0.0",
        summary: "Returns when the last checkpoint was made.",
        handler: Handler::Worker(lastsave),
        ..Row::SERVER
    },
    Row {
        name: "save",
        arity: 1,
        flags: CHECKPOINT.and(Flags::NO_MULTI),
        since: "1.0.0",
        complexity: "O(N) for N bytes in the hot tier",
        summary: "Makes a checkpoint.",
        handler: Handler::Slow(save),
        ..Row::SERVER
    },
    Row {
        name: "shutdown",
        arity: -1,
        flags: SHUTDOWN,
        since: "1.0.0",
        complexity: "O(N) for N bytes in the hot tier, if they are saved",
        summary: "Ends the server.",
        handler: Handler::Slow(shutdown),
        ..Row::SERVER
    },
    Row {
        name: "wait",
        tips: tip::ALL_SHARDS_MIN,
        arity: 3,
        since: "3.0.0",
        summary: "Waits until so many replicas have the client's writes; there are none.",
        handler: Handler::Worker(wait),
        ..WAIT
    },
    Row {
        name: "waitaof",
        tips: tip::ALL_SHARDS_MIN,
        arity: 4,
        since: "7.2.0",
        summary: "Waits until the client's writes would survive a power cut.",
        handler: Handler::Worker(waitaof),
        ..WAIT
    },
];

fn save(cx: &mut SlowCtx<'_>, _args: Args<'_>) -> Done {
    match persistence::save(cx.server) {
        Some(Ok(())) => cx.reply.ok(),
        None => return Err(SAVE_IN_PROGRESS.into()),
        Some(Err(why)) => return Err(cannot_save(&why)),
    }
    Ok(())
}

/// The error of a command that could not save. Redis says only `ERR`.
pub(crate) fn cannot_save(why: &str) -> Stop {
    format!("ERR Errors saving the data: {}", persistence::reason(why)).into()
}

fn bgsave(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let may_schedule = match args.len() {
        1 => false,
        2 if args.is(1, "schedule") => true,
        2 if args.is(1, "cancel") => return cancel(cx),
        _ => return Err(SYNTAX_ERROR.into()),
    };
    match persistence::begin(cx.server, Purpose::Snapshot) {
        // As Redis has it, which forks only after a transaction.
        Begun::Started if !cx.client.may_wait => cx.reply.simple("Background saving scheduled"),
        Begun::Started => cx.reply.simple("Background saving started"),
        Begun::Running(Purpose::Snapshot) => return Err(SAVE_IN_PROGRESS.into()),
        Begun::Running(Purpose::Rewrite) if may_schedule => {
            persistence::schedule(cx.server, Purpose::Snapshot);
            cx.reply.simple("Background saving scheduled");
        }
        Begun::Running(Purpose::Rewrite) => {
            return Err("ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in \
                order to schedule a BGSAVE whenever possible."
                .into());
        }
    }
    Ok(())
}

fn cancel(cx: &mut Ctx<'_>) -> Done {
    match persistence::cancel(cx.server) {
        Cancelled::Running => cx.reply.simple("Background saving cancelled"),
        Cancelled::Scheduled => cx.reply.simple("Scheduled background saving cancelled"),
        Cancelled::Nothing => {
            return Err("ERR Background saving is currently not in progress or scheduled".into());
        }
    }
    Ok(())
}

fn bgrewriteaof(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    const SCHEDULED: &str = "Background append only file rewriting scheduled";
    match persistence::begin(cx.server, Purpose::Rewrite) {
        // As for BGSAVE.
        Begun::Started if !cx.client.may_wait => cx.reply.simple(SCHEDULED),
        Begun::Started => cx
            .reply
            .simple("Background append only file rewriting started"),
        Begun::Running(Purpose::Rewrite) => {
            return Err("ERR Background append only file rewriting already in progress".into());
        }
        Begun::Running(Purpose::Snapshot) => {
            persistence::schedule(cx.server, Purpose::Rewrite);
            cx.reply
                .simple("Background append only file rewriting scheduled");
        }
    }
    Ok(())
}

fn lastsave(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let seconds = persistence::last_saved_ms(cx.server) / 1000;
    cx.reply.integer(seconds as i64);
    Ok(())
}

fn wait(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let replicas = integer(&args[1])?;
    let timeout = timeout(&args[2])?;
    if replicas > 0 && cx.client.may_wait {
        cx.client.after = After::Await(Awaited::Replicas { timeout });
    } else {
        cx.reply.integer(0);
    }
    Ok(())
}

fn waitaof(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let local = integer(&args[1])?;
    if !(0..=1).contains(&local) {
        return Err("ERR value is out of range, value must between 0 and 1".into());
    }
    let replicas = strict_integer(&args[2])
        .filter(|&replicas| replicas >= 0)
        .ok_or("ERR value is out of range, must be positive")?;
    let timeout = timeout(&args[3])?;
    if local > 0 && !cx.server.config.settings().appendonly {
        return Err(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.".into(),
        );
    }
    if cx.client.may_wait {
        cx.client.after = After::Await(Awaited::Sync {
            local: local > 0,
            replicas: replicas > 0,
            timeout,
        });
    } else {
        reply_synced(cx.server, cx.client.written, cx.reply);
    }
    Ok(())
}

/// WAITAOF's reply: on how many servers the changes up to `written` are synced, here and on replicas.
pub(crate) fn reply_synced(server: &Server, written: Option<Position>, reply: &mut Output) {
    let is_logged = server.config.settings().appendonly;
    let is_synced = written.is_none_or(|position| server.store.durable() >= position);
    reply.array(2);
    reply.integer(i64::from(is_logged && is_synced));
    reply.integer(0);
}

/// A timeout in milliseconds; `None` for 0, which is for ever.
fn timeout(arg: &[u8]) -> Result<Option<Duration>, Stop> {
    let ms = strict_integer(arg).ok_or("ERR timeout is not an integer or out of range")?;
    let ms = u64::try_from(ms).map_err(|_| Stop::from("ERR timeout is negative"))?;
    Ok((ms > 0).then_some(Duration::from_millis(ms)))
}

/// The reply is the closed connection.
fn shutdown(cx: &mut SlowCtx<'_>, args: Args<'_>) -> Done {
    let mut options = ShutdownOptions::default();
    let mut abort = false;
    for i in 1..args.len() {
        match args[i].to_ascii_lowercase().as_slice() {
            b"save" if options.save != Some(false) => options.save = Some(true),
            b"nosave" if options.save != Some(true) => options.save = Some(false),
            b"force" => options.force = true,
            // Does not wait for replicas, of which there are none.
            b"now" => {}
            b"abort" => abort = true,
            _ => return Err(SYNTAX_ERROR.into()),
        }
    }
    if abort && args.len() > 2 {
        return Err(SYNTAX_ERROR.into());
    }
    if abort {
        return Err("ERR No shutdown in progress.".into());
    }
    crate::log::notice("User requested shutdown...");
    shutdown::prepare(cx.server, options)
        .map_err(|_| "ERR Errors trying to SHUTDOWN. Check logs.".into())
}
