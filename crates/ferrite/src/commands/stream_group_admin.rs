//! XGROUP: making, changing and removing consumer groups and their consumers.

use super::help::{reply_help, unknown_or_wrong_number};
use super::parse::integer;
use super::stream::{GROUPS, STREAM_ROW, Stream};
use super::stream_group::{
    Consumer, Group, Prefix, consumer_key, group_key, ids_at, name_key, pending_key, put, shown,
    take, used_key,
};
use super::stream_id::Id;
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

/// Elements that are removed by one change.
const REMOVED_TOGETHER: u64 = 8 * 1024;
/// Pending entries of a consumer that are looked up together.
const LOOKED_UP_TOGETHER: u64 = 256;

const CREATE_ARGS: std::ops::RangeInclusive<usize> = 5..=8;

const SUBCOMMAND: Row = Row {
    flags: Flags::WRITE.and(Flags::WAKES_NOBODY),
    keys: Keys::Range {
        first: 2,
        last: 2,
        step: 1,
    },
    ..STREAM_ROW
};

pub(crate) const ROWS: &[Row] = &[Row {
    name: "xgroup",
    arity: -2,
    keys: Keys::None,
    categories: &[],
    complexity: "Depends on subcommand.",
    summary: "A container for commands on the consumer groups of streams.",
    subcommands: &[
        Row {
            name: "create",
            arity: -5,
            flags: Flags::WRITE.and(Flags::DENYOOM).and(Flags::WAKES_NOBODY),
            summary: "Makes a consumer group.",
            handler: Handler::Worker(create),
            ..SUBCOMMAND
        },
        Row {
            name: "createconsumer",
            arity: 5,
            flags: Flags::WRITE.and(Flags::DENYOOM).and(Flags::WAKES_NOBODY),
            since: "6.2.0",
            summary: "Makes a consumer of a group.",
            handler: Handler::Worker(create_consumer),
            ..SUBCOMMAND
        },
        Row {
            name: "delconsumer",
            arity: 5,
            complexity: "O(N), N being the number of entries pending with the consumer",
            summary: "Removes a consumer of a group, with what is pending with it.",
            handler: Handler::Worker(delete_consumer),
            ..SUBCOMMAND
        },
        Row {
            name: "destroy",
            arity: 4,
            // Who waits in the name of the group is told.
            flags: Flags::WRITE,
            complexity: "O(N), N being the number of entries pending in the group",
            summary: "Removes a consumer group.",
            handler: Handler::Worker(destroy),
            ..SUBCOMMAND
        },
        Row {
            name: "help",
            arity: 2,
            flags: Flags::LOADING.and(Flags::STALE),
            keys: Keys::None,
            summary: "Lists the subcommands.",
            handler: Handler::Worker(help),
            ..SUBCOMMAND
        },
        Row {
            name: "setid",
            arity: -5,
            summary: "Sets the ID behind which a group is given entries.",
            handler: Handler::Worker(set_id),
            ..SUBCOMMAND
        },
    ],
    ..STREAM_ROW
}];

/// The options of CREATE and SETID.
struct Options {
    makes_stream: bool,
    entries_read: Option<u64>,
}

impl Options {
    fn parse(args: Args<'_>, is_create: bool) -> Result<Options, Stop> {
        let mut options = Options {
            makes_stream: false,
            entries_read: None,
        };
        let mut at = 5;
        while at < args.len() {
            let value = args.get(at + 1);
            if is_create && args.is(at, "mkstream") {
                options.makes_stream = true;
                at += 1;
            } else if let Some(value) = value
                && args.is(at, "entriesread")
            {
                options.entries_read = match integer(value)? {
                    -1 => None,
                    count => Some(
                        u64::try_from(count)
                            .map_err(|_| "ERR value for ENTRIESREAD must be positive or -1")?,
                    ),
                };
                at += 2;
            } else {
                return Err(unknown_or_wrong_number("XGROUP", args));
            }
        }
        Ok(options)
    }
}

/// The stream that a subcommand requires.
fn required<'r>(cx: &'r Ctx<'_>, key: &[u8]) -> Result<Stream<'r>, Stop> {
    let found = Stream::find(&cx.op, cx.namespace, key)?;
    found.ok_or("ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.".into())
}

/// The group that a subcommand requires.
pub(super) fn required_group(stream: &Stream<'_>, key: &[u8], name: &[u8]) -> Result<Group, Stop> {
    Group::find(stream, name)?.ok_or_else(|| {
        let (group, key) = (shown(name), shown(key));
        format!("NOGROUP No such consumer group '{group}' for key name '{key}'").into()
    })
}

fn create(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let options = Options::parse(args, true)?;
    let (key, name) = (&args[2], &args[3]);
    let stream = match options.makes_stream {
        true => Stream::find(&cx.op, cx.namespace, key)?,
        false => Some(required(cx, key)?),
    };
    if !CREATE_ARGS.contains(&args.len()) {
        return Err(unknown_or_wrong_number("XGROUP", args));
    }
    let last_id = match &args[4] {
        b"$" => stream.as_ref().map_or(Ok(Id::MIN), Stream::last_id)?,
        id => Id::parse_strict(id, 0)?,
    };
    let mut number = 0;
    if let Some(stream) = &stream {
        // What it finds after it has begun is its own.
        match Group::find(stream, name)? {
            Some(found) if cx.progress.has_begun => number = found.number,
            Some(_) => {
                return Err("BUSYGROUP Consumer Group name already exists".into());
            }
            None => number = Prefix::UsedNumbers.free_number(&stream.collection)?,
        }
    }
    let group = Group {
        number,
        last_id,
        entries_read: options.entries_read,
    };
    group.store(cx, key, name)?;
    put(cx, key, &used_key(number), b"")?;
    cx.reply.ok();
    Ok(())
}

fn set_id(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let options = Options::parse(args, false)?;
    let (key, name) = (&args[2], &args[3]);
    let stream = required(cx, key)?;
    let mut group = required_group(&stream, key, name)?;
    if args.len() != 5 && args.len() != 7 {
        return Err(unknown_or_wrong_number("XGROUP", args));
    }
    group.last_id = match &args[4] {
        b"$" => stream.last_id()?,
        id => Id::parse(id, 0)?,
    };
    group.entries_read = options.entries_read;
    group.store(cx, key, name)?;
    cx.reply.ok();
    Ok(())
}

fn create_consumer(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (key, name) = (&args[2], &args[4]);
    let stream = required(cx, key)?;
    let group = required_group(&stream, key, &args[3])?.number;
    let is_there = Consumer::find(&stream, group, name)?.is_some();
    let creates = cx.progress.has_begun || !is_there;
    if creates {
        let now_ms = cx.now_ms() as i64;
        let consumer = Consumer::find_or_new(&stream, group, name, now_ms)?;
        consumer.store(cx, key, group, name)?;
    }
    cx.reply.integer(i64::from(creates));
    Ok(())
}

fn delete_consumer(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (key, name) = (&args[2], &args[4]);
    let stream = required(cx, key)?;
    let group = required_group(&stream, key, &args[3])?.number;
    let Some(consumer) = Consumer::find(&stream, group, name)? else {
        cx.reply.integer(0);
        return Ok(());
    };
    let owned = Prefix::OwnedBy(group, consumer.number);
    if !cx.progress.has_begun {
        cx.progress.count = owned.count(&stream.collection)? as i64;
    }
    // First what the group knows of some entries, then those with the consumer: so a step can be made again.
    while let Some(stream) = Stream::find(&cx.op, cx.namespace, key)? {
        let positions = owned.positions(&stream.collection)?;
        let ids = ids_at(&stream.collection, &positions, LOOKED_UP_TOGETHER)?;
        if ids.is_empty() {
            break;
        }
        let keys: Vec<_> = ids.iter().map(|id| pending_key(group, *id)).collect();
        stream
            .collection
            .want(GROUPS, keys.iter().map(Vec::as_slice))?;
        for pending in &keys {
            take(cx, key, pending)?;
        }
        // They were in front of those with the consumer.
        let Some(stream) = Stream::find(&cx.op, cx.namespace, key)? else {
            break;
        };
        let start = owned.positions(&stream.collection)?.start;
        let count = ids.len() as u64;
        cx.op
            .remove_range(cx.namespace, key, GROUPS, start, count)?;
    }
    take(cx, key, &name_key(group, consumer.number))?;
    take(cx, key, &consumer_key(group, name))?;
    let pending = cx.progress.count;
    cx.reply.integer(pending);
    Ok(())
}

fn destroy(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (key, name) = (&args[2], &args[3]);
    let stream = required(cx, key)?;
    let Some(group) = Group::find(&stream, name)? else {
        cx.reply.integer(0);
        return Ok(());
    };
    let number = group.number;
    for prefix in [
        Prefix::Pending(number),
        Prefix::Owned(number),
        Prefix::Consumers(number),
        Prefix::Names(number),
    ] {
        while let Some(stream) = Stream::find(&cx.op, cx.namespace, key)? {
            let positions = prefix.positions(&stream.collection)?;
            let count = (positions.end - positions.start).min(REMOVED_TOGETHER);
            if count == 0 {
                break;
            }
            cx.op
                .remove_range(cx.namespace, key, GROUPS, positions.start, count)?;
        }
    }
    take(cx, key, &used_key(number))?;
    take(cx, key, &group_key(name))?;
    cx.reply.integer(1);
    Ok(())
}

fn help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "XGROUP",
        &[
            "CREATE <key> <groupname> <id|$> [MKSTREAM] [ENTRIESREAD <count>]",
            "    Make a group that is given the entries behind <id>, or behind the last one.",
            "    With MKSTREAM the stream is made if there is none; ENTRIESREAD sets how many",
            "    entries the group counts as read.",
            "CREATECONSUMER <key> <groupname> <consumer>",
            "    Make a consumer of a group.",
            "DELCONSUMER <key> <groupname> <consumer>",
            "    Remove a consumer of a group.",
            "DESTROY <key> <groupname>",
            "    Remove a group.",
            "SETID <key> <groupname> <id|$> [ENTRIESREAD <count>]",
            "    Set the ID behind which a group is given entries.",
        ],
    );
    Ok(())
}
