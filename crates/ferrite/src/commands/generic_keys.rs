//! Commands on whole keys, whatever they hold: removing, counting, naming, copying and moving them.

use hybridlog::{Meta, Namespace};

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, OtherDatabase, Row, Stop, tip};
use crate::commands::KIND_STRING;
use crate::commands::object::type_name;
use crate::commands::parse::{SYNTAX_ERROR, integer_32};
use crate::ctx::{Ctx, STEP_COLD_BYTES};

/// The error of a command that needs its first key.
pub(crate) const NO_SUCH_KEY: &str = "ERR no such key";
const SAME_OBJECT: &str = "ERR source and destination objects are the same";
/// The error of a database number that is not configured.
pub(crate) const DATABASE_OUT_OF_RANGE: &str = "ERR DB index is out of range";

const GENERIC: Row = Row {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::None,
    categories: &["keyspace"],
    group: "generic",
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    handler: Handler::Container,
    subcommands: &[],
    tips: &[],
};
const ONE_KEY: Keys = Keys::Range {
    first: 1,
    last: 1,
    step: 1,
};
const TWO_KEYS: Keys = Keys::Range {
    first: 1,
    last: 2,
    step: 1,
};
const ALL_KEYS: Keys = Keys::Range {
    first: 1,
    last: -1,
    step: 1,
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "del",
        tips: tip::MULTI_SHARD_SUM,
        arity: -2,
        flags: Flags::WRITE,
        keys: ALL_KEYS,
        complexity: "O(N) for N keys",
        summary: "Removes keys.",
        handler: Handler::Worker(del),
        ..GENERIC
    },
    Row {
        name: "unlink",
        tips: tip::MULTI_SHARD_SUM,
        arity: -2,
        flags: Flags::WRITE.and(Flags::FAST),
        keys: ALL_KEYS,
        since: "4.0.0",
        complexity: "O(N) for N keys",
        summary: "Removes keys; their memory is given back in the background.",
        handler: Handler::Worker(del),
        ..GENERIC
    },
    Row {
        name: "exists",
        tips: tip::MULTI_SHARD_SUM,
        arity: -2,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: ALL_KEYS,
        complexity: "O(N) for N keys",
        summary: "Counts which of the keys exist, each as often as it is named.",
        handler: Handler::Worker(exists),
        ..GENERIC
    },
    Row {
        name: "touch",
        tips: tip::MULTI_SHARD_SUM,
        arity: -2,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: ALL_KEYS,
        since: "3.2.1",
        complexity: "O(N) for N keys",
        summary: "Counts which of the keys exist, and marks them as recently used.",
        handler: Handler::Worker(exists),
        ..GENERIC
    },
    Row {
        name: "type",
        arity: 2,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: ONE_KEY,
        summary: "Tells the type of a key's value.",
        handler: Handler::Worker(type_),
        ..GENERIC
    },
    Row {
        name: "rename",
        arity: 3,
        flags: Flags::WRITE,
        keys: TWO_KEYS,
        summary: "Renames a key, replacing the new name's value.",
        handler: Handler::Worker(rename),
        ..GENERIC
    },
    Row {
        name: "renamenx",
        arity: 3,
        flags: Flags::WRITE.and(Flags::FAST),
        keys: TWO_KEYS,
        summary: "Renames a key unless the new name exists.",
        handler: Handler::Worker(renamenx),
        ..GENERIC
    },
    Row {
        name: "copy",
        arity: -3,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        keys: Keys::TwoDatabases {
            first: 1,
            last: 2,
            other: OtherDatabase::After("db"),
        },
        since: "6.2.0",
        complexity: "O(N) for a value of N bytes",
        summary: "Copies a value with its expiry to another key or database.",
        handler: Handler::Worker(copy),
        ..GENERIC
    },
    Row {
        name: "move",
        arity: 3,
        flags: Flags::WRITE.and(Flags::FAST),
        keys: Keys::TwoDatabases {
            first: 1,
            last: 1,
            other: OtherDatabase::At(2),
        },
        summary: "Moves a key to another database unless it exists there.",
        handler: Handler::Worker(move_),
        ..GENERIC
    },
];

fn del(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    while cx.progress.done < args.len() - 1 {
        for _ in 0..removable(cx, args.from(1 + cx.progress.done))? {
            let key = &args[1 + cx.progress.done];
            let is_removed = cx.op.remove(cx.namespace, key)?;
            cx.progress.done += 1;
            cx.progress.count += i64::from(is_removed);
        }
    }
    let removed = cx.progress.count;
    cx.reply.integer(removed);
    Ok(())
}

/// How many of `keys` can be removed now, beginning with the first. Those that have to be read first are asked for together
/// before any is removed; unless they are very many, which go step by step.
fn removable<'a>(cx: &Ctx<'_>, keys: impl Iterator<Item = &'a [u8]>) -> Result<usize, Stop> {
    let reads = cx.op.cold_reads();
    let mut removable = 0;
    let mut stop = None;
    for key in keys {
        match cx.op.removable(cx.namespace, key) {
            Ok(_) => removable += usize::from(stop.is_none()),
            Err(_) if removable > 0 && reads.fetched_bytes() >= STEP_COLD_BYTES => {
                return Ok(removable);
            }
            Err(reason) => stop = Some(reason),
        }
        if reads.wanted_bytes() >= STEP_COLD_BYTES {
            break;
        }
    }
    stop.map_or(Ok(removable), |reason| Err(reason.into()))
}

fn exists(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let mut found = cx.progress.count;
    for at in 1 + cx.progress.done..args.len() {
        match cx.op.read(cx.namespace, &args[at]) {
            Ok(record) => found += i64::from(record.is_some()),
            Err(stop) => {
                // Those behind it that are cold are asked for as well.
                let asked = removable(cx, args.from(at));
                if cx.op.cold_reads().wanted_bytes() >= STEP_COLD_BYTES {
                    cx.progress.done = at - 1;
                    cx.progress.count = found;
                }
                return asked.and(Err(stop.into()));
            }
        }
    }
    cx.reply.integer(found);
    Ok(())
}

fn type_(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let record = cx.op.read(cx.namespace, &args[1])?;
    cx.reply
        .simple(record.map_or("none", |record| type_name(record.meta().kind)));
    Ok(())
}

fn rename(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if cx.op.read(cx.namespace, &args[1])?.is_none() {
        return Err(NO_SUCH_KEY.into());
    }
    if args[1] != args[2] {
        cx.op
            .rename((cx.namespace, &args[1]), (cx.namespace, &args[2]))?;
    }
    cx.reply.ok();
    Ok(())
}

fn renamenx(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if cx.op.read(cx.namespace, &args[1])?.is_none() {
        return Err(NO_SUCH_KEY.into());
    }
    // The same name twice is an existing new name too.
    let renamed = cx.op.read(cx.namespace, &args[2])?.is_none();
    if renamed {
        cx.op
            .rename((cx.namespace, &args[1]), (cx.namespace, &args[2]))?;
    }
    cx.reply.integer(i64::from(renamed));
    Ok(())
}

fn copy(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let mut target = cx.namespace;
    let mut replace = false;
    let mut at = 3;
    while at < args.len() {
        if args.is(at, "replace") {
            replace = true;
            at += 1;
        } else if args.is(at, "db") && at + 1 < args.len() {
            target = namespace_argument(cx, &args[at + 1])?;
            at += 2;
        } else {
            return Err(SYNTAX_ERROR.into());
        }
    }
    if target == cx.namespace && args[1] == args[2] {
        return Err(SAME_OBJECT.into());
    }
    let Some(source) = cx.op.read(cx.namespace, &args[1])? else {
        cx.reply.integer(0);
        return Ok(());
    };
    if !replace && cx.op.read(target, &args[2])?.is_some() {
        cx.reply.integer(0);
        return Ok(());
    }
    let meta: Meta = source.meta();
    if meta.kind == KIND_STRING {
        let value = cx.op.value(&source)?.into_owned();
        cx.op.set(target, &args[2], &value, meta)?;
    } else {
        cx.op
            .copy_collection((cx.namespace, &args[1]), (target, &args[2]))?;
    }
    cx.reply.integer(1);
    Ok(())
}

fn move_(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let target = namespace_argument(cx, &args[2])?;
    if target == cx.namespace {
        return Err(SAME_OBJECT.into());
    }
    let moved = cx.op.read(cx.namespace, &args[1])?.is_some()
        && cx.op.read(target, &args[1])?.is_none()
        && cx.op.rename((cx.namespace, &args[1]), (target, &args[1]))?;
    cx.reply.integer(i64::from(moved));
    Ok(())
}

/// The namespace of the database whose number is `arg`.
fn namespace_argument(cx: &Ctx<'_>, arg: &[u8]) -> Result<Namespace, Stop> {
    let number = integer_32(arg)?;
    usize::try_from(number)
        .ok()
        .filter(|&number| number < cx.server.databases.count())
        .map(|number| cx.server.databases.namespace(number))
        .ok_or(DATABASE_OUT_OF_RANGE.into())
}
