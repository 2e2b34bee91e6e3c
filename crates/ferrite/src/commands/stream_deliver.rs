//! Reading streams as a consumer of a group: XREADGROUP.
//!
//! New entries are delivered some at a time: what is pending is stored for all of them, they are written to the reply, and
//! only then the group is noted to have got them. So what is cut off before that is done again, with the same result. In
//! `cx.progress`, `done` is how many streams are done with, and `count` one more than how many entries of the next one are
//! in the reply, or 0 while its name is not; `looked` is not 0 if there is nothing to be delivered.

use std::ops::{ControlFlow, Range};

use hybridlog::{Direction, Needed, WalkFrom};

use super::collection::{check_room, walk_range};
use super::read_each;
use super::stream::{ENTRIES, GROUPS, STREAM_ROW, Stream, reply_entry, reply_id};
use super::stream_block::wait_for_entries;
use super::stream_group::{
    Consumer, Edges, Group, Pending, Prefix, ids_at, owned_key, pending_key, shown,
};
use super::stream_id::Id;
use super::stream_pending::PendingList;
use super::stream_read::{ReadOptions, reply_key, reply_streams};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

/// Entries that are delivered together.
const DELIVERED_TOGETHER: u64 = 256;
/// What a reply has about an entry, besides its fields, takes so much at most; and so does what is stored of one that is pending.
const ENTRY_BYTES: usize = 128;

pub(crate) const ROWS: &[Row] = &[Row {
    name: "xreadgroup",
    arity: -7,
    flags: Flags::WRITE
        .and(Flags::BLOCKING)
        .and(Flags::COUNTS_HITS)
        .and(Flags::WAKES_NOBODY),
    keys: Keys::Streams { from: 4 },
    complexity: "O(N), N being the number of entries returned",
    summary: "Returns the entries of streams that a group has not been given yet, or what is pending with a consumer.",
    handler: Handler::Worker(xreadgroup),
    ..STREAM_ROW
}];

/// One of the streams that are read.
struct Source<'a> {
    key: &'a [u8],
    group_name: &'a [u8],
    consumer_name: &'a [u8],
    group: Group,
    consumer: Consumer,
    /// Behind which ID what is pending with the consumer is asked for; none: new entries.
    history: Option<Id>,
    /// What is to be returned: new entries in their tree, or what is pending in that of the groups.
    positions: Range<u64>,
}

impl<'a> Source<'a> {
    /// A stream as it is now, but for the `taken` new entries that another part of the command takes; `replied` of its entries
    /// are in the reply already.
    fn find(
        cx: &Ctx<'_>,
        options: &ReadOptions<'a>,
        args: Args<'a>,
        number: usize,
        taken: u64,
        replied: u64,
    ) -> Result<Self, Stop> {
        let (key, id) = options.stream(args, number);
        let (group_name, consumer_name) = options.group.unwrap_or_default();
        let stream = Stream::find(&cx.op, cx.namespace, key)?;
        let group = match &stream {
            Some(stream) => Group::find(stream, group_name)?,
            None => None,
        };
        let (Some(stream), Some(group)) = (stream, group) else {
            let (key, group) = (shown(key), shown(group_name));
            return Err(format!("NOGROUP No such key '{key}' or consumer group '{group}' in XREADGROUP with GROUP option").into());
        };
        let history = match id {
            b"$" => return Err("ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.".into()),
            b">" => None,
            // As in Redis, behind the greatest ID are the new entries.
            id => Some(Id::parse_strict(id, 0)?).filter(|id| *id != Id::MAX),
        };
        let now_ms = cx.now_ms() as i64;
        let mut consumer = Consumer::find_or_new(&stream, group.number, consumer_name, now_ms)?;
        let positions = match history {
            None => {
                let mut positions = match group.last_id.next() {
                    Some(from) => stream.positions(from, Id::MAX)?,
                    None => 0..0,
                };
                positions.start = (positions.start + taken).min(positions.end);
                let whole = positions.start.saturating_sub(replied)..positions.end;
                let end = options.limited(whole).end;
                positions.start..end.max(positions.start)
            }
            Some(behind) => {
                let list = PendingList {
                    group: group.number,
                    owner: Some(consumer.number),
                };
                let from = behind.next().unwrap_or(Id::MAX);
                options.limited(list.positions(&stream, from, Id::MAX)?)
            }
        };
        if history.is_none() && !positions.is_empty() && !options.no_ack {
            consumer.active_ms = now_ms;
        }
        Ok(Source {
            key,
            group_name,
            consumer_name,
            group,
            consumer,
            history,
            positions,
        })
    }

    /// Whether the reply has a part about it.
    fn is_served(&self) -> bool {
        self.history.is_some() || !self.positions.is_empty()
    }

    /// Notes that the consumer was seen.
    fn note_seen(&self, cx: &mut Ctx<'_>) -> Result<(), Stop> {
        let (group, name) = (self.group.number, self.consumer_name);
        self.consumer.store(cx, self.key, group, name)
    }

    /// Notes that the consumer was seen, and writes the name of the stream and the header of its entries.
    fn begin(&self, cx: &mut Ctx<'_>) -> Result<(), Stop> {
        self.note_seen(cx)?;
        if self.is_served() {
            reply_key(cx, self.key);
            cx.reply
                .array((self.positions.end - self.positions.start) as usize);
        }
        cx.progress.count = 1;
        Ok(())
    }

    /// Delivers new entries.
    fn deliver(&mut self, cx: &mut Ctx<'_>, no_ack: bool) -> Result<(), Stop> {
        while !self.positions.is_empty() {
            let end = self.positions.start + DELIVERED_TOGETHER;
            let some = self.positions.start..end.min(self.positions.end);
            let mark = cx.reply.mark();
            if let Err(stop) = self.deliver_some(cx, some.clone(), no_ack) {
                cx.reply.rewind(mark);
                return Err(stop);
            }
            cx.progress.count += (some.end - some.start) as i64;
            self.positions.start = some.end;
        }
        Ok(())
    }

    fn deliver_some(
        &mut self,
        cx: &mut Ctx<'_>,
        some: Range<u64>,
        no_ack: bool,
    ) -> Result<(), Stop> {
        let Some(stream) = Stream::find(&cx.op, cx.namespace, self.key)? else {
            return Ok(());
        };
        let (edges, mut group) = (Edges::of(&stream)?, self.group);
        let (mut ids, mut bytes) = (Vec::new(), 0);
        let (from, count) = (WalkFrom::Position(some.start), some.end - some.start);
        let collection = &stream.collection;
        collection.walk(ENTRIES, from, Direction::Forward, count, &mut |entry| {
            ids.push(Id::of_end(&entry.key));
            bytes += entry.value.len() + ENTRY_BYTES;
            ControlFlow::Continue(())
        })?;
        for &id in &ids {
            stream.note_delivery(&mut group, id, &edges);
        }
        let memory = &mut cx.client.allowance;
        cx.reply.ask_for_room(memory, bytes)?;
        if !no_ack {
            let former = self.former(&stream, &ids)?;
            check_room(cx, ids.len(), ids.len() * ENTRY_BYTES)?;
            let pending = Pending {
                consumer: self.consumer.number,
                delivered_ms: self.consumer.seen_ms,
                deliveries: 1,
            };
            for (&id, former) in ids.iter().zip(former) {
                pending.store(cx, self.key, group.number, id, former)?;
            }
        }
        if let Some(stream) = Stream::find(&cx.op, cx.namespace, self.key)? {
            let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
            let forward = Direction::Forward;
            walk_range(&stream.collection, ENTRIES, some, forward, |entry| {
                reply_entry(&entry, memory, reply).map(ControlFlow::Continue)
            })?;
        }
        group.store(cx, self.key, self.group_name)?;
        self.group = group;
        Ok(())
    }

    /// Who has the entries with these IDs now: some may, if the group has been set back.
    fn former(&self, stream: &Stream<'_>, ids: &[Id]) -> Result<Vec<Option<u32>>, Stop> {
        let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else {
            return Ok(Vec::new());
        };
        let (group, consumer) = (self.group.number, self.consumer.number);
        let ends = [
            pending_key(group, first),
            pending_key(group, last),
            owned_key(group, consumer, first),
            owned_key(group, consumer, last),
        ];
        let collection = &stream.collection;
        collection.want(GROUPS, ends.iter().map(Vec::as_slice))?;
        if Prefix::Pending(group)
            .positions_from(collection, &ends[0])?
            .is_empty()
        {
            return Ok(vec![None; ids.len()]);
        }
        read_each(ids.iter(), |&id| {
            let pending = Pending::find(stream, group, id)?;
            Ok(pending.map(|pending| pending.consumer))
        })
    }

    /// Delivers what is pending with the consumer once more.
    fn deliver_again(&self, cx: &mut Ctx<'_>) -> Result<(), Stop> {
        let mut next = self.positions.start + (cx.progress.count - 1) as u64;
        while next < self.positions.end {
            let ids = match Stream::find(&cx.op, cx.namespace, self.key)? {
                Some(stream) => {
                    let left = next..self.positions.end;
                    let ids = ids_at(&stream.collection, &left, DELIVERED_TOGETHER)?;
                    let keys: Vec<_> = ids.iter().map(|id| id.to_bytes()).collect();
                    let keys = keys.iter().map(<[u8; Id::BYTES]>::as_slice);
                    stream.collection.want_next(ENTRIES, keys, Needed::Keys)?;
                    ids
                }
                None => return Ok(()),
            };
            for &id in &ids {
                let mark = cx.reply.mark();
                if let Err(stop) = self.deliver_one_again(cx, id) {
                    cx.reply.rewind(mark);
                    return Err(stop);
                }
                cx.progress.count += 1;
            }
            next += ids.len() as u64;
        }
        Ok(())
    }

    fn deliver_one_again(&self, cx: &mut Ctx<'_>, id: Id) -> Result<(), Stop> {
        let group = self.group.number;
        let mut pending = None;
        if let Some(stream) = Stream::find(&cx.op, cx.namespace, self.key)? {
            if stream.reply_one(id, &mut cx.client.allowance, cx.reply)? {
                pending = Pending::find(&stream, group, id)?;
            } else {
                // It has been removed from the stream.
                let memory = &mut cx.client.allowance;
                cx.reply.ask_for_room(memory, ENTRY_BYTES)?;
                cx.reply.array(2);
                reply_id(cx.reply, id);
                cx.reply.null_array();
            }
        }
        let Some(mut pending) = pending else {
            return Ok(());
        };
        pending.delivered_ms = self.consumer.seen_ms;
        pending.deliveries = pending.deliveries.wrapping_add(1);
        pending.store(cx, self.key, group, id, Some(pending.consumer))
    }
}

fn xreadgroup(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let options = ReadOptions::parse(args, true, cx.now_ms())?;
    let streams = options.numbers();
    let sources = find_all(cx, &options, args, &streams)?;
    if !cx.progress.has_begun && !sources.iter().any(Source::is_served) {
        cx.progress.looked = 1;
    }
    if cx.progress.looked == 0 {
        return deliver_all(cx, &options, args, &streams, sources);
    }
    for source in sources {
        source.note_seen(cx)?;
        cx.progress.done += 1;
    }
    wait_for_entries(cx, &options, args)
}

/// Delivers new entries of the streams with these numbers to a consumer that waits for some; `false` if there are none.
pub(super) fn deliver_new(
    cx: &mut Ctx<'_>,
    options: &ReadOptions<'_>,
    args: Args<'_>,
    streams: &[usize],
) -> Result<bool, Stop> {
    let sources = find_all(cx, options, args, streams)?;
    if !cx.progress.has_begun && !sources.iter().any(Source::is_served) {
        return Ok(false);
    }
    deliver_all(cx, options, args, streams, sources)?;
    Ok(true)
}

/// What is to be read of those of `streams` that are not done with.
fn find_all<'a>(
    cx: &Ctx<'_>,
    options: &ReadOptions<'a>,
    args: Args<'a>,
    streams: &[usize],
) -> Result<Vec<Source<'a>>, Stop> {
    let mut sources: Vec<Source<'_>> = Vec::new();
    read_each(cx.progress.done..streams.len(), |at| {
        let number = streams[at];
        let (key, _) = options.stream(args, number);
        let before = sources.iter();
        let before = before.filter(|source| source.key == key && source.history.is_none());
        let taken = before.map(|source| source.positions.end - source.positions.start);
        let taken = taken.sum();
        let replied = replied(cx, at);
        sources.push(Source::find(cx, options, args, number, taken, replied)?);
        Ok(())
    })?;
    Ok(sources)
}

/// How many entries of the stream that comes `at` this place are in the reply already.
fn replied(cx: &Ctx<'_>, at: usize) -> u64 {
    match at == cx.progress.done {
        true => (cx.progress.count - 1).max(0) as u64,
        false => 0,
    }
}

/// Writes and notes what the sources, of those of `streams` that are not done with, have.
fn deliver_all<'a>(
    cx: &mut Ctx<'_>,
    options: &ReadOptions<'a>,
    args: Args<'a>,
    streams: &[usize],
    mut sources: Vec<Source<'a>>,
) -> Result<(), Stop> {
    if !cx.progress.has_begun {
        let served = sources.iter().filter(|source| source.is_served()).count();
        reply_streams(cx, served);
    }
    while let Some(&number) = streams.get(cx.progress.done) {
        let mut source = match sources.pop() {
            Some(source) if streams.len() == 1 => source,
            // Of the same stream, others before may have got something.
            _ => {
                let replied = replied(cx, cx.progress.done);
                Source::find(cx, options, args, number, 0, replied)?
            }
        };
        if cx.progress.count == 0 {
            source.begin(cx)?;
        }
        match source.history {
            None => source.deliver(cx, options.no_ack)?,
            Some(_) => source.deliver_again(cx)?,
        }
        cx.progress.done += 1;
        cx.progress.count = 0;
    }
    Ok(())
}
