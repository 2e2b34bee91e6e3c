//! OBJECT: what is known about a key besides its value; and the names of types.

use std::borrow::Cow;

use hybridlog::{Operation, Record};

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, tip};
use crate::commands::collection::Encoding;
use crate::commands::help::reply_help;
use crate::commands::parse::{INTEGER_MAX_BYTES, strict_integer};
use crate::commands::{KIND_STREAM, KIND_STRING};
use crate::ctx::Ctx;

/// Names of the types as TYPE and SCAN TYPE show them, by the engine's type number.
const TYPE_NAMES: &[&str] = &["string", "hash", "list", "set", "zset", "stream"];
/// Longest string that Redis keeps in one allocation with its header.
const EMBSTR_MAX_BYTES: u64 = 44;

const FREQUENCY_NOT_TRACKED: &str = "ERR An LFU maxmemory policy is not selected, access \
    frequency not tracked. Please note that when switching between policies at runtime LRU and \
    LFU data will take some time to adjust.";

/// The name of type number `kind`.
pub(crate) fn type_name(kind: u8) -> &'static str {
    TYPE_NAMES
        .get(usize::from(kind))
        .copied()
        .unwrap_or("unknown")
}

/// How Redis would hold the value of `record`, reading no more of it than it takes to tell.
pub(crate) fn encoding(
    op: &Operation<'_>,
    record: &Record<'_>,
) -> Result<&'static str, hybridlog::Stop> {
    match record.meta().kind {
        KIND_STRING => {}
        KIND_STREAM => return Ok("stream"),
        _ => return Ok(Encoding::of(&op.open_collection(record)?).name()),
    }
    if record.len() > EMBSTR_MAX_BYTES {
        return Ok("raw");
    }
    if record.len() > INTEGER_MAX_BYTES as u64 {
        return Ok("embstr");
    }
    let value: Cow<'_, [u8]> = op.value(record)?;
    Ok(strict_integer(&value).map_or("embstr", |_| "int"))
}

/// Bytes that the value of `record` takes, without headers of records.
pub(crate) fn value_bytes(op: &Operation<'_>, record: &Record<'_>) -> Result<u64, hybridlog::Stop> {
    if record.meta().kind == KIND_STRING {
        return Ok(record.len());
    }
    Ok(op.open_collection(record)?.bytes())
}

const SUBCOMMAND: Row = Row {
    name: "",
    arity: 3,
    flags: Flags::READONLY,
    keys: Keys::Range {
        first: 2,
        last: 2,
        step: 1,
    },
    categories: &["keyspace"],
    group: "generic",
    since: "2.2.3",
    complexity: "O(1)",
    summary: "",
    handler: Handler::Container,
    subcommands: &[],
    tips: &[],
};

pub(crate) const ROWS: &[Row] = &[Row {
    name: "object",
    arity: -2,
    flags: Flags::NONE,
    keys: Keys::None,
    categories: &[],
    complexity: "Depends on subcommand.",
    summary: "A container for commands about keys besides their values.",
    subcommands: &[
        Row {
            name: "encoding",
            tips: tip::NONDETERMINISTIC,
            summary: "Tells how a value would be held by Redis.",
            handler: Handler::Worker(object_encoding),
            ..SUBCOMMAND
        },
        Row {
            name: "freq",
            tips: tip::NONDETERMINISTIC,
            since: "4.0.0",
            summary: "Tells how often a key is used, under an LFU policy.",
            handler: Handler::Worker(object_freq),
            ..SUBCOMMAND
        },
        Row {
            name: "help",
            arity: 2,
            flags: Flags::LOADING.and(Flags::STALE),
            keys: Keys::None,
            since: "6.2.0",
            summary: "Lists the subcommands.",
            handler: Handler::Worker(object_help),
            ..SUBCOMMAND
        },
        Row {
            name: "idletime",
            tips: tip::NONDETERMINISTIC,
            summary: "Tells for how many seconds a key has not been used.",
            handler: Handler::Worker(object_idletime),
            ..SUBCOMMAND
        },
        Row {
            name: "refcount",
            tips: tip::NONDETERMINISTIC,
            summary: "Tells how many references there are to a value.",
            handler: Handler::Worker(object_refcount),
            ..SUBCOMMAND
        },
    ],
    ..SUBCOMMAND
}];

fn object_encoding(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    match cx.op.read(cx.namespace, &args[2])? {
        Some(record) => {
            let name = encoding(&cx.op, &record)?;
            cx.reply.bulk(name.as_bytes());
        }
        None => cx.reply.null(),
    }
    Ok(())
}

/// Who stays in memory is decided by one mark per record, not by frequencies: there are none.
fn object_freq(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if cx.op.read(cx.namespace, &args[2])?.is_some() {
        return Err(FREQUENCY_NOT_TRACKED.into());
    }
    cx.reply.null();
    Ok(())
}

/// No time of use is stored beside a record; a key that was found has just been used.
fn object_idletime(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_if_exists(cx, args, 0)
}

/// No two keys share a value.
fn object_refcount(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_if_exists(cx, args, 1)
}

fn reply_if_exists(cx: &mut Ctx<'_>, args: Args<'_>, number: i64) -> Done {
    match cx.op.read(cx.namespace, &args[2])? {
        Some(_) => cx.reply.integer(number),
        None => cx.reply.null(),
    }
    Ok(())
}

fn object_help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "OBJECT",
        &[
            "ENCODING <key>",
            "    Tell how the value of <key> would be held by Redis, such as raw or listpack.",
            "FREQ <key>",
            "    Tell how often <key> is used, if an LFU policy tracks it.",
            "IDLETIME <key>",
            "    Tell for how many seconds <key> has not been used.",
            "REFCOUNT <key>",
            "    Tell how many references there are to the value of <key>.",
        ],
    );
    Ok(())
}
