//! Reading hashes: HGET, HMGET, HGETALL, HKEYS, HVALS, HLEN, HEXISTS, HSTRLEN, HSCAN, HRANDFIELD.

use hybridlog::{Element, ElementInfo, Namespace, Needed, Operation};
use resp::Protocol;

use super::collection::{ELEMENTS, walk, want_next_of};
use super::collection_random::{Picks, pick};
use super::collection_scan::{ScanOptions, Values, cursor_of, scan};
use super::hash::{HASH_ROW, Hash};
use super::parse::{SYNTAX_ERROR, symmetric_integer};
use super::string::{READ, READ_FAST};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop, tip};
use crate::ctx::Ctx;
use crate::memory::Allowance;
use crate::output::Output;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "hget",
        arity: 3,
        flags: READ_FAST,
        summary: "Returns the value of a field of a hash.",
        handler: Handler::Worker(hget),
        ..HASH_ROW
    },
    Row {
        name: "hmget",
        arity: -3,
        flags: READ_FAST,
        complexity: "O(N), N being the number of fields asked for",
        summary: "Returns the values of several fields of a hash.",
        handler: Handler::Worker(hmget),
        ..HASH_ROW
    },
    Row {
        name: "hgetall",
        tips: tip::UNORDERED,
        arity: 2,
        flags: READ,
        complexity: "O(N), N being the number of fields",
        summary: "Returns all fields of a hash with their values.",
        handler: Handler::Worker(hgetall),
        ..HASH_ROW
    },
    Row {
        name: "hkeys",
        tips: tip::UNORDERED,
        arity: 2,
        flags: READ,
        complexity: "O(N), N being the number of fields",
        summary: "Returns all fields of a hash.",
        handler: Handler::Worker(hkeys),
        ..HASH_ROW
    },
    Row {
        name: "hvals",
        tips: tip::UNORDERED,
        arity: 2,
        flags: READ,
        complexity: "O(N), N being the number of fields",
        summary: "Returns the values of all fields of a hash.",
        handler: Handler::Worker(hvals),
        ..HASH_ROW
    },
    Row {
        name: "hlen",
        arity: 2,
        flags: READ_FAST,
        summary: "Counts the fields of a hash.",
        handler: Handler::Worker(hlen),
        ..HASH_ROW
    },
    Row {
        name: "hexists",
        arity: 3,
        flags: READ_FAST,
        summary: "Tells whether a hash has a field.",
        handler: Handler::Worker(hexists),
        ..HASH_ROW
    },
    Row {
        name: "hstrlen",
        arity: 3,
        flags: READ_FAST,
        since: "3.2.0",
        summary: "Returns the length of a field's value in bytes.",
        handler: Handler::Worker(hstrlen),
        ..HASH_ROW
    },
    Row {
        name: "hrandfield",
        tips: tip::NONDETERMINISTIC,
        arity: -2,
        flags: READ,
        since: "6.2.0",
        complexity: "O(N), N being the number of fields returned",
        summary: "Returns fields of a hash that are picked at random.",
        handler: Handler::Worker(hrandfield),
        ..HASH_ROW
    },
    Row {
        name: "hscan",
        tips: tip::NONDETERMINISTIC,
        arity: -3,
        flags: READ,
        since: "2.8.0",
        complexity: "O(1) a call, O(N) for a full iteration over N fields",
        summary: "Iterates over the fields of a hash, some at a time.",
        handler: Handler::Worker(hscan),
        ..HASH_ROW
    },
];

fn hget(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let found = match Hash::find(&cx.op, cx.namespace, &args[1])? {
        Some(hash) => hash.get(&args[2])?,
        None => None,
    };
    match found {
        Some(element) => {
            let memory = &mut cx.client.allowance;
            cx.reply.bulk_within(memory, &element.value)?;
        }
        None => cx.reply.null(),
    }
    Ok(())
}

fn hmget(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let hash = Hash::find(&cx.op, cx.namespace, &args[1])?;
    if !cx.progress.has_begun {
        cx.reply.array(args.len() - 2);
    }
    let Some(hash) = hash else {
        args.from(2).for_each(|_| cx.reply.null());
        return Ok(());
    };
    let mut ready = cx.progress.done;
    for field in args.from(2).skip(cx.progress.done) {
        if cx.progress.done == ready {
            ready += want_next_of(&hash.collection, args.from(2 + ready), Needed::Whole)?;
        }
        match hash.get(field)? {
            Some(element) => {
                let memory = &mut cx.client.allowance;
                cx.reply.bulk_within(memory, &element.value)?;
            }
            None => cx.reply.null(),
        }
        cx.progress.done += 1;
    }
    Ok(())
}

fn hexists(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let is_there = info(&cx.op, cx.namespace, args)?.is_some();
    cx.reply.integer(i64::from(is_there));
    Ok(())
}

fn hstrlen(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let len = info(&cx.op, cx.namespace, args)?.map_or(0, |info| info.value_len);
    cx.reply.integer(len as i64);
    Ok(())
}

/// What is known of the field that a command on one names, without its value.
fn info(
    op: &Operation<'_>,
    namespace: Namespace,
    args: Args<'_>,
) -> Result<Option<ElementInfo>, Stop> {
    match Hash::find(op, namespace, &args[1])? {
        Some(hash) => hash.info(&args[2]),
        None => Ok(None),
    }
}

/// As in Redis, fields count that have expired and have not been removed yet.
fn hlen(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let hash = Hash::find(&cx.op, cx.namespace, &args[1])?;
    cx.reply.integer(hash.map_or(0, |hash| hash.len() as i64));
    Ok(())
}

/// What is replied of each field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Field,
    Value,
    Both,
}

impl Part {
    fn reply(
        self,
        element: &Element<'_>,
        memory: &mut Allowance,
        reply: &mut Output,
    ) -> Result<(), Stop> {
        if self != Part::Value {
            reply.bulk_within(memory, &element.key)?;
        }
        if self != Part::Field {
            reply.bulk_within(memory, &element.value)?;
        }
        Ok(())
    }
}

fn hgetall(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_all(cx, args, Part::Both)
}

fn hkeys(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_all(cx, args, Part::Field)
}

fn hvals(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_all(cx, args, Part::Value)
}

fn reply_all(cx: &mut Ctx<'_>, args: Args<'_>, part: Part) -> Done {
    let hash = Hash::find(&cx.op, cx.namespace, &args[1])?;
    if hash.as_ref().is_some_and(Hash::has_expired) {
        let now_ms = cx.now_ms();
        cx.server.field_expiry.note(cx.namespace, &args[1], now_ms);
    }
    let len = hash.as_ref().map_or(Ok(0), live_len)? as usize;
    match part {
        Part::Both => cx.reply.map(len),
        Part::Field | Part::Value => cx.reply.array(len),
    }
    let Some(hash) = hash else { return Ok(()) };
    let memory = &mut cx.client.allowance;
    walk(&hash.collection, |element| {
        if !hash.is_live(&element) {
            return Ok(());
        }
        part.reply(&element, memory, cx.reply)
    })
}

/// How many fields have not expired.
fn live_len(hash: &Hash<'_>) -> Result<u64, Stop> {
    if !hash.has_expired() {
        return Ok(hash.len());
    }
    let mut len = 0;
    walk(&hash.collection, |element| {
        len += u64::from(hash.is_live(&element));
        Ok(())
    })?;
    Ok(len)
}

fn hscan(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let cursor = cursor_of(&args[2])?;
    let Some(hash) = Hash::find(&cx.op, cx.namespace, &args[1])? else {
        cx.reply.array(2);
        cx.reply.bulk(b"0");
        cx.reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(args, 3, Values::MayBeLeftOut)?;
    let part = if options.no_values {
        Part::Field
    } else {
        Part::Both
    };
    let (elements, cursor) = scan(&hash.collection, cursor, &options)?;
    let elements = elements.iter().filter(|element| hash.is_live(element));
    cx.reply.array(2);
    cx.reply.bulk(cursor.to_string().as_bytes());
    let bulks = if options.no_values { 1 } else { 2 };
    cx.reply.array(elements.clone().count() * bulks);
    for element in elements {
        part.reply(element, &mut cx.client.allowance, cx.reply)?;
    }
    Ok(())
}

fn hrandfield(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if args.len() == 2 {
        return hrandfield_one(cx, args);
    }
    let count = symmetric_integer(&args[2])?;
    let part = match args.len() {
        3 => Part::Field,
        4 if args.is(3, "withvalues") => Part::Both,
        _ => return Err(SYNTAX_ERROR.into()),
    };
    if part == Part::Both && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err("ERR value is out of range".into());
    }
    let seed = cx.seed();
    let picked = match Hash::find(&cx.op, cx.namespace, &args[1])? {
        Some(hash) => Some((live_positions(&hash, &mut cx.client.allowance)?, hash)),
        None => None,
    };
    let Some((live, hash)) = picked else {
        cx.reply.array(0);
        return Ok(());
    };
    let len = live.as_ref().map_or(hash.len(), |live| live.len() as u64);
    let picks = Picks::new(len, count, seed);
    let is_flat = cx.reply.protocol() == Protocol::Resp2;
    let bulks = if part == Part::Both && is_flat { 2 } else { 1 };
    cx.reply.array(picks.len() as usize * bulks);
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    let position = |pick: u64| live.as_ref().map_or(pick, |live| live[pick as usize]);
    pick(&hash.collection, ELEMENTS, picks, position, |element| {
        if part == Part::Both && !is_flat {
            reply.array(2);
        }
        part.reply(&element, memory, reply)
    })
}

fn hrandfield_one(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let seed = cx.seed();
    if let Some(hash) = Hash::find(&cx.op, cx.namespace, &args[1])? {
        let live = live_positions(&hash, &mut cx.client.allowance)?;
        let len = live.as_ref().map_or(hash.len(), |live| live.len() as u64);
        if len > 0 {
            let position = |pick: u64| live.as_ref().map_or(pick, |live| live[pick as usize]);
            let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
            return pick(
                &hash.collection,
                ELEMENTS,
                Picks::new(len, 1, seed),
                position,
                |element| reply.bulk_within(memory, &element.key),
            );
        }
    }
    cx.reply.null();
    Ok(())
}

/// The positions of the fields that have not expired; none if that is so of all of them.
fn live_positions(hash: &Hash<'_>, memory: &mut Allowance) -> Result<Option<Vec<u64>>, Stop> {
    if !hash.has_expired() {
        return Ok(None);
    }
    let mut position = 0;
    memory.ask(hash.len() * size_of::<u64>() as u64)?;
    let mut live = Vec::with_capacity(hash.len() as usize);
    walk(&hash.collection, |element| {
        if hash.is_live(&element) {
            live.push(position);
        }
        position += 1;
        Ok(())
    })?;
    Ok(Some(live))
}
