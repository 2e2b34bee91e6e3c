//! XINFO: what is known of streams, their consumer groups and the consumers of those.

use std::ops::ControlFlow;

use hybridlog::Direction;

use super::collection::walk_range;
use super::help::{reply_help, unknown_or_wrong_number};
use super::parse::integer;
use super::stream::{GROUPS, STREAM_ROW, Stream, reply_id};
use super::stream_group::{Edges, Group, Names, Prefix};
use super::stream_group_admin::required_group;
use super::stream_id::Id;
use super::stream_pending::{PendingList, walk_consumers};
use super::stream_trim::node_entries_of;
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop, tip};
use crate::config::Settings;
use crate::ctx::Ctx;
use crate::memory::Allowance;
use crate::output::Output;

/// So many entries of each list XINFO STREAM FULL shows, if it is not told how many.
const COUNT_DEFAULT: u64 = 10;
/// What is said of a group, a consumer or a pending entry takes so much at most, besides names.
const ITEM_BYTES: usize = 320;

const SUBCOMMAND: Row = Row {
    flags: Flags::READONLY,
    keys: Keys::Range {
        first: 2,
        last: 2,
        step: 1,
    },
    ..STREAM_ROW
};

pub(crate) const ROWS: &[Row] = &[Row {
    name: "xinfo",
    arity: -2,
    keys: Keys::None,
    categories: &[],
    complexity: "Depends on subcommand.",
    summary: "A container for commands that tell about streams.",
    subcommands: &[
        Row {
            name: "consumers",
            tips: tip::NONDETERMINISTIC,
            arity: 4,
            complexity: "O(N), N being the number of consumers",
            summary: "Tells about the consumers of a group.",
            handler: Handler::Worker(consumers),
            ..SUBCOMMAND
        },
        Row {
            name: "groups",
            arity: 3,
            complexity: "O(N), N being the number of groups",
            summary: "Tells about the consumer groups of a stream.",
            handler: Handler::Worker(groups),
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
            name: "stream",
            arity: -3,
            summary: "Tells about a stream.",
            handler: Handler::Worker(stream),
            ..SUBCOMMAND
        },
    ],
    ..STREAM_ROW
}];

fn consumers(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let now_ms = cx.now_ms() as i64;
    let stream = Stream::find(&cx.op, cx.namespace, &args[2])?.ok_or("ERR no such key")?;
    let group = required_group(&stream, &args[2], &args[3])?.number;
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    let count = Prefix::Consumers(group).count(&stream.collection)?;
    reply.array(count as usize);
    walk_consumers(&stream, group, |name, consumer| {
        let pending = Prefix::OwnedBy(group, consumer.number).count(&stream.collection)?;
        reply.ask_for_room(memory, name.len() + ITEM_BYTES)?;
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(name);
        let inactive_ms = match consumer.active_ms {
            -1 => -1,
            active_ms => now_ms.wrapping_sub(active_ms),
        };
        let idle_ms = now_ms.wrapping_sub(consumer.seen_ms).max(0);
        let figures = [
            ("pending", pending as i64),
            ("idle", idle_ms),
            ("inactive", inactive_ms),
        ];
        for (what, figure) in figures {
            reply_figure(reply, what, figure);
        }
        Ok(())
    })
}

fn groups(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let stream = Stream::find(&cx.op, cx.namespace, &args[2])?.ok_or("ERR no such key")?;
    let edges = Edges::of(&stream)?;
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    reply.array(Prefix::Groups.count(&stream.collection)? as usize);
    walk_groups(&stream, |name, group| {
        let consumers = Prefix::Consumers(group.number).count(&stream.collection)?;
        let pending = Prefix::Pending(group.number).count(&stream.collection)?;
        reply.ask_for_room(memory, name.len() + ITEM_BYTES)?;
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        reply_figure(reply, "consumers", consumers as i64);
        reply_figure(reply, "pending", pending as i64);
        reply_progress(&stream, &group, &edges, reply);
        Ok(())
    })
}

/// Hands all groups of a stream to `each`, ordered by their names.
fn walk_groups(
    stream: &Stream<'_>,
    mut each: impl FnMut(&[u8], Group) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let positions = Prefix::Groups.positions(&stream.collection)?;
    let forward = Direction::Forward;
    walk_range(&stream.collection, GROUPS, positions, forward, |element| {
        let name = element.key.get(1..).unwrap_or_default();
        each(name, Group::of(&element.value)).map(ControlFlow::Continue)
    })
}

fn reply_figure(reply: &mut Output, what: &str, figure: i64) {
    reply.bulk(what.as_bytes());
    reply.integer(figure);
}

fn reply_figure_if_known(reply: &mut Output, what: &str, figure: Option<i64>) {
    match figure {
        Some(figure) => reply_figure(reply, what, figure),
        None => {
            reply.bulk(what.as_bytes());
            reply.null();
        }
    }
}

fn reply_id_of(reply: &mut Output, what: &str, id: Id) {
    reply.bulk(what.as_bytes());
    reply_id(reply, id);
}

/// How far a group has come.
fn reply_progress(stream: &Stream<'_>, group: &Group, edges: &Edges, reply: &mut Output) {
    reply_id_of(reply, "last-delivered-id", group.last_id);
    let read = group.entries_read.map(|read| read as i64);
    reply_figure_if_known(reply, "entries-read", read);
    reply_figure_if_known(reply, "lag", stream.lag(group, edges));
}

fn stream(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let stream = Stream::find(&cx.op, cx.namespace, &args[2])?.ok_or("ERR no such key")?;
    let count = match args.len() {
        3 => None,
        4 if args.is(3, "full") => Some(COUNT_DEFAULT),
        6 if args.is(3, "full") && args.is(4, "count") => {
            Some(u64::try_from(integer(&args[5])?).unwrap_or(COUNT_DEFAULT))
        }
        _ => return Err(unknown_or_wrong_number("XINFO", args)),
    };
    let edges = Edges::of(&stream)?;
    let node_entries = cx
        .worker
        .settings(|settings: &Settings| node_entries_of(settings, &stream));
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    reply.map(if count.is_some() { 9 } else { 10 });
    reply_figure(reply, "length", stream.len() as i64);
    // There is no such tree; these are what one would have.
    let nodes = stream.len().div_ceil(node_entries) as i64;
    reply_figure(reply, "radix-tree-keys", nodes);
    reply_figure(reply, "radix-tree-nodes", nodes + 1);
    reply_id_of(reply, "last-generated-id", edges.last_id);
    reply_id_of(reply, "max-deleted-entry-id", stream.header.max_deleted_id);
    reply_figure(reply, "entries-added", stream.entries_added() as i64);
    reply_id_of(reply, "recorded-first-entry-id", edges.first_id);
    match count {
        Some(0) => reply_full(&stream, &edges, u64::MAX, memory, reply),
        Some(count) => reply_full(&stream, &edges, count, memory, reply),
        None => reply_ends(&stream, memory, reply),
    }
}

fn reply_ends(stream: &Stream<'_>, memory: &mut Allowance, reply: &mut Output) -> Done {
    let groups = Prefix::Groups.count(&stream.collection)?;
    reply_figure(reply, "groups", groups as i64);
    for (what, id) in [
        ("first-entry", stream.first_id()?),
        ("last-entry", stream.top_id()?),
    ] {
        reply.bulk(what.as_bytes());
        if !stream.reply_one(id, memory, reply)? {
            reply.null();
        }
    }
    Ok(())
}

fn reply_full(
    stream: &Stream<'_>,
    edges: &Edges,
    count: u64,
    memory: &mut Allowance,
    reply: &mut Output,
) -> Done {
    reply.bulk(b"entries");
    stream.reply_range(
        0..stream.len().min(count),
        Direction::Forward,
        memory,
        reply,
    )?;
    reply.bulk(b"groups");
    reply.array(Prefix::Groups.count(&stream.collection)? as usize);
    walk_groups(stream, |name, group| {
        let consumers = Prefix::Consumers(group.number).count(&stream.collection)?;
        reply.ask_for_room(memory, name.len() + ITEM_BYTES)?;
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        reply_progress(stream, &group, edges, reply);
        let list = PendingList {
            group: group.number,
            owner: None,
        };
        reply_pending(stream, list, count, memory, reply)?;
        reply.bulk(b"consumers");
        reply.array(consumers as usize);
        walk_consumers(stream, group.number, |name, consumer| {
            reply.ask_for_room(memory, name.len() + ITEM_BYTES)?;
            reply.map(5);
            reply.bulk(b"name");
            reply.bulk(name);
            reply_figure(reply, "seen-time", consumer.seen_ms);
            reply_figure(reply, "active-time", consumer.active_ms);
            let owner = Some(consumer.number);
            reply_pending(stream, PendingList { owner, ..list }, count, memory, reply)
        })
    })
}

/// Writes how much is pending, and the first of it; whose it is unless that is said by the list.
fn reply_pending(
    stream: &Stream<'_>,
    list: PendingList,
    count: u64,
    memory: &mut Allowance,
    reply: &mut Output,
) -> Done {
    let mut positions = list.positions(stream, Id::MIN, Id::MAX)?;
    let all = positions.end - positions.start;
    positions.end = positions.start + all.min(count);
    reply_figure(reply, "pel-count", all as i64);
    reply.bulk(b"pending");
    reply.array((positions.end - positions.start) as usize);
    let mut names = Names::of(list.group);
    list.walk(stream, positions, &mut |id, pending| {
        let name = match list.owner {
            None => Some(names.get(stream, pending.consumer)?),
            Some(_) => None,
        };
        reply.ask_for_room(memory, name.map_or(0, <[u8]>::len) + ITEM_BYTES)?;
        reply.array(3 + usize::from(name.is_some()));
        reply_id(reply, id);
        if let Some(name) = name {
            reply.bulk(name);
        }
        reply.integer(pending.delivered_ms);
        reply.integer(pending.deliveries as i64);
        Ok(ControlFlow::Continue(()))
    })
}

fn help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "XINFO",
        &[
            "CONSUMERS <key> <groupname>",
            "    Tell about the consumers of a group.",
            "GROUPS <key>",
            "    Tell about the groups of a stream.",
            "STREAM <key> [FULL [COUNT <count>]]",
            "    Tell about a stream; with FULL about its groups and consumers, too.",
        ],
    );
    Ok(())
}
