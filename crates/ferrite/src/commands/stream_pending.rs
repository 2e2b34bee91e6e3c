//! What is pending in consumer groups: XACK, XPENDING.

use std::ops::{ControlFlow, Range};

use hybridlog::{Direction, WalkFrom};

use super::collection::walk_range;
use super::parse::{SYNTAX_ERROR, integer};
use super::read_each;
use super::stream::{GROUPS, STREAM_ROW, Stream, parse_ids, reply_id};
use super::stream_group::{
    Consumer, Group, Names, Pending, Prefix, no_group, owned_key, pending_key,
};
use super::stream_id::Id;
use super::string::{READ, WRITE_FAST};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, Stop, tip};
use crate::ctx::Ctx;
use crate::memory::Allowance;
use crate::output::Output;

/// Pending entries that are read together while the idle ones among them are looked for, and how many such parts are asked
/// for together if they are cold.
const WALKED_TOGETHER: u64 = 8 * 1024;
const PARTS_AHEAD: usize = 16;
/// What XPENDING tells of an entry takes so much at most, beside the name of the consumer.
const ITEM_BYTES: usize = 160;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "xack",
        arity: -4,
        flags: WRITE_FAST.and(Flags::COUNTS_HITS).and(Flags::WAKES_NOBODY),
        complexity: "O(N), N being the number of IDs given",
        summary: "Acknowledges entries that are pending in a consumer group.",
        handler: Handler::Worker(xack),
        ..STREAM_ROW
    },
    Row {
        name: "xpending",
        tips: tip::NONDETERMINISTIC,
        arity: -3,
        flags: READ,
        complexity: "O(N), N being the number of entries returned, or of consumers",
        summary: "Tells what is pending in a consumer group.",
        handler: Handler::Worker(xpending),
        ..STREAM_ROW
    },
];

fn xack(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let group = match Stream::find(&cx.op, cx.namespace, key)? {
        Some(stream) => Group::find(&stream, &args[2])?,
        None => None,
    };
    let Some(group) = group else {
        cx.reply.integer(0);
        return Ok(());
    };
    let ids = parse_ids(args, 3)?;
    for &id in ids.iter().skip(cx.progress.done) {
        if let Some(stream) = Stream::find(&cx.op, cx.namespace, key)?
            && let Some(pending) = Pending::find(&stream, group.number, id)?
        {
            let owned = owned_key(group.number, pending.consumer, id);
            stream.collection.want(GROUPS, [owned.as_slice()])?;
            pending.remove(cx, key, group.number, id)?;
            cx.progress.count += 1;
        }
        cx.progress.done += 1;
    }
    let acknowledged = cx.progress.count;
    cx.reply.integer(acknowledged);
    Ok(())
}

fn xpending(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if args.len() != 3 && !(6..=9).contains(&args.len()) {
        return Err(SYNTAX_ERROR.into());
    }
    let options = match args.len() {
        3 => None,
        _ => Some(Options::parse(args)?),
    };
    let stream = Stream::find(&cx.op, cx.namespace, &args[1])?;
    let group = match &stream {
        Some(stream) => Group::find(stream, &args[2])?,
        None => None,
    };
    let (Some(stream), Some(group)) = (stream, group) else {
        return Err(no_group(&args[1], &args[2]));
    };
    let Some(options) = options else {
        return summary(&stream, group.number, cx.reply);
    };
    let now_ms = cx.now_ms() as i64;
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    extended(&stream, group.number, &options, now_ms, memory, reply)
}

fn summary(stream: &Stream<'_>, group: u32, reply: &mut Output) -> Done {
    let collection = &stream.collection;
    let pending = Prefix::Pending(group).positions(collection)?;
    reply.array(4);
    reply.integer((pending.end - pending.start) as i64);
    if pending.is_empty() {
        reply.null();
        reply.null();
        reply.null_array();
        return Ok(());
    }
    for position in [pending.start, pending.end - 1] {
        let key = collection.key_at(GROUPS, position)?.unwrap_or_default();
        reply_id(reply, Id::of_end(&key));
    }
    let mut consumers = Vec::new();
    walk_consumers(stream, group, |name, consumer| {
        let owned = Prefix::OwnedBy(group, consumer.number).count(collection)?;
        if owned > 0 {
            consumers.push((name.to_vec(), owned));
        }
        Ok(())
    })?;
    reply.array(consumers.len());
    for (name, owned) in consumers {
        reply.array(2);
        reply.bulk(&name);
        reply.bulk(owned.to_string().as_bytes());
    }
    Ok(())
}

/// Hands all consumers of a group to `each`, ordered by their names.
pub(super) fn walk_consumers(
    stream: &Stream<'_>,
    group: u32,
    mut each: impl FnMut(&[u8], Consumer) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let prefix = Prefix::Consumers(group);
    let (skip, positions) = (prefix.bytes().len(), prefix.positions(&stream.collection)?);
    let forward = Direction::Forward;
    walk_range(&stream.collection, GROUPS, positions, forward, |element| {
        let name = element.key.get(skip..).unwrap_or_default();
        each(name, Consumer::of(&element.value)).map(ControlFlow::Continue)
    })
}

/// Which pending entries XPENDING is asked for.
struct Options<'a> {
    min_idle_ms: i64,
    start: Id,
    end: Id,
    count: u64,
    consumer: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(args: Args<'a>) -> Result<Self, Stop> {
        let (mut min_idle_ms, mut first) = (0, 3);
        if args.is(3, "idle") {
            min_idle_ms = integer(&args[4])?;
            if args.len() < 8 {
                return Err(SYNTAX_ERROR.into());
            }
            first = 5;
        }
        let count = integer(&args[first + 2])?.max(0) as u64;
        Ok(Options {
            min_idle_ms,
            start: Id::interval_start(&args[first])?,
            end: Id::interval_end(&args[first + 1])?,
            count,
            consumer: args.get(first + 3),
        })
    }
}

fn extended(
    stream: &Stream<'_>,
    group: u32,
    options: &Options<'_>,
    now_ms: i64,
    memory: &mut Allowance,
    reply: &mut Output,
) -> Done {
    let owner = match options.consumer {
        None => None,
        Some(name) => match Consumer::find(stream, group, name)? {
            Some(consumer) => Some(consumer.number),
            None => {
                reply.array(0);
                return Ok(());
            }
        },
    };
    let list = PendingList { group, owner };
    let mut positions = list.positions(stream, options.start, options.end)?;
    if options.min_idle_ms == 0 {
        positions.end = positions
            .end
            .min(positions.start.saturating_add(options.count));
    }
    let mut names = Names::of(group);
    let header = reply.mark();
    let mut replied = 0;
    list.walk(stream, positions, &mut |id, pending| {
        if replied == options.count {
            return Ok(ControlFlow::Break(()));
        }
        let idle_ms = now_ms.wrapping_sub(pending.delivered_ms);
        if options.min_idle_ms != 0 && idle_ms < options.min_idle_ms {
            return Ok(ControlFlow::Continue(()));
        }
        let name = names.get(stream, pending.consumer)?;
        reply.ask_for_room(memory, name.len() + ITEM_BYTES)?;
        reply.array(4);
        reply_id(reply, id);
        reply.bulk(name);
        reply.integer(idle_ms.max(0));
        reply.integer(pending.deliveries as i64);
        replied += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    reply.insert(header, |reply| reply.array(replied as usize));
    Ok(())
}

/// What is pending in a group, or with one of its consumers.
#[derive(Clone, Copy)]
pub(super) struct PendingList {
    pub(super) group: u32,
    /// The number of the consumer.
    pub(super) owner: Option<u32>,
}

impl PendingList {
    fn key(self, id: Id) -> Vec<u8> {
        match self.owner {
            None => pending_key(self.group, id),
            Some(owner) => owned_key(self.group, owner, id),
        }
    }

    /// The positions of the entries from one ID to another, both included.
    pub(super) fn positions(
        self,
        stream: &Stream<'_>,
        from: Id,
        to: Id,
    ) -> Result<Range<u64>, Stop> {
        let (start, _) = stream.collection.rank(GROUPS, &self.key(from))?;
        let (end, is_there) = stream.collection.rank(GROUPS, &self.key(to))?;
        Ok(start..(end + u64::from(is_there)).max(start))
    }

    /// Hands what is at `positions` to `each`, until it breaks. What is cold is asked for some parts ahead.
    pub(super) fn walk(
        self,
        stream: &Stream<'_>,
        positions: Range<u64>,
        each: &mut dyn FnMut(Id, Pending) -> Result<ControlFlow<()>, Stop>,
    ) -> Result<(), Stop> {
        let (mut cold, mut ahead) = (None, 0);
        for start in positions.clone().step_by(WALKED_TOGETHER as usize) {
            if ahead == PARTS_AHEAD {
                break;
            }
            match self.read(stream, start..positions.end) {
                Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) => cold = Some(stop),
                Err(stop) => return Err(stop),
                Ok(part) if cold.is_none() => {
                    for (id, pending) in part {
                        if each(id, pending)?.is_break() {
                            return Ok(());
                        }
                    }
                }
                Ok(_) => {}
            }
            ahead += usize::from(cold.is_some());
        }
        cold.map_or(Ok(()), Err)
    }

    /// What is at the first of `positions`.
    fn read(self, stream: &Stream<'_>, positions: Range<u64>) -> Result<Vec<(Id, Pending)>, Stop> {
        let count = WALKED_TOGETHER.min(positions.end - positions.start);
        let mut read = Vec::with_capacity(count as usize);
        let from = WalkFrom::Position(positions.start);
        let collection = &stream.collection;
        collection.walk(GROUPS, from, Direction::Forward, count, &mut |element| {
            read.push((Id::of_end(&element.key), Pending::of(&element.value)));
            ControlFlow::Continue(())
        })?;
        if self.owner.is_some() {
            // The rest of it is what the group knows.
            let found = read_each(read.iter(), |(id, _)| {
                let pending = Pending::find(stream, self.group, *id)?;
                Ok(pending.map(|pending| (*id, pending)))
            })?;
            read = found.into_iter().flatten().collect();
        }
        Ok(read)
    }
}
