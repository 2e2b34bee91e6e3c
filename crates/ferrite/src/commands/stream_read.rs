//! Reading streams: XRANGE, XREVRANGE, XREAD.

use std::ops::Range;

use hybridlog::Direction;
use resp::Protocol;

use super::parse::{SYNTAX_ERROR, integer};
use super::read_each;
use super::stream::{STREAM_ROW, Stream};
use super::stream_block::wait_for_entries;
use super::stream_id::Id;
use super::string::READ;
use crate::args::Args;
use crate::blocking::FormerWait;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "xrange",
        arity: -4,
        flags: READ,
        complexity: "O(log N + M), N being the number of entries and M that of those returned",
        summary: "Returns the entries of a stream between two IDs.",
        handler: Handler::Worker(xrange),
        ..STREAM_ROW
    },
    Row {
        name: "xrevrange",
        arity: -4,
        flags: READ,
        complexity: "O(log N + M), N being the number of entries and M that of those returned",
        summary: "Returns the entries of a stream between two IDs, the last first.",
        handler: Handler::Worker(xrevrange),
        ..STREAM_ROW
    },
    Row {
        name: "xread",
        arity: -4,
        flags: READ.and(Flags::BLOCKING),
        keys: Keys::Streams { from: 1 },
        complexity: "O(N), N being the number of entries returned",
        summary: "Returns the entries of several streams behind an ID each.",
        handler: Handler::Worker(xread),
        ..STREAM_ROW
    },
];

fn xrange(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    range(cx, args, Direction::Forward)
}

fn xrevrange(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    range(cx, args, Direction::Backward)
}

fn range(cx: &mut Ctx<'_>, args: Args<'_>, direction: Direction) -> Done {
    let (start, end) = match direction {
        Direction::Forward => (&args[2], &args[3]),
        Direction::Backward => (&args[3], &args[2]),
    };
    let (start, end) = (Id::interval_start(start)?, Id::interval_end(end)?);
    let mut count = None;
    for at in (4..args.len()).step_by(2) {
        match args.get(at + 1) {
            Some(value) if args.is(at, "count") => count = Some(integer(value)?.max(0) as u64),
            _ => return Err(SYNTAX_ERROR.into()),
        }
    }
    let Some(stream) = Stream::find(&cx.op, cx.namespace, &args[1])? else {
        cx.reply.array(0);
        return Ok(());
    };
    if count == Some(0) {
        cx.reply.null_array();
        return Ok(());
    }
    let mut positions = stream.positions(start, end)?;
    let count = count.unwrap_or(u64::MAX);
    match direction {
        Direction::Forward => {
            positions.end = positions.end.min(positions.start.saturating_add(count));
        }
        Direction::Backward => {
            positions.start = positions.start.max(positions.end.saturating_sub(count));
        }
    }
    stream.reply_range(positions, direction, &mut cx.client.allowance, cx.reply)
}

/// The options of XREAD and XREADGROUP.
pub(super) struct ReadOptions<'a> {
    /// The most entries of each stream; 0: all.
    pub(super) count: u64,
    /// The group and the consumer.
    pub(super) group: Option<(&'a [u8], &'a [u8])>,
    pub(super) no_ack: bool,
    /// If there are no entries it waits for some, so many milliseconds, or for ever if 0.
    pub(super) block_ms: Option<u64>,
    /// The first key, and how many there are; their IDs follow.
    pub(super) first: usize,
    pub(super) streams: usize,
}

impl<'a> ReadOptions<'a> {
    pub(super) fn parse(args: Args<'a>, of_group: bool, now_ms: u64) -> Result<Self, Stop> {
        let mut options = ReadOptions {
            count: 0,
            group: None,
            no_ack: false,
            block_ms: None,
            first: 0,
            streams: 0,
        };
        let mut at = 1;
        while at < args.len() && options.first == 0 {
            let value = args.get(at + 1);
            if let Some(value) = value
                && args.is(at, "block")
            {
                options.block_ms = Some(timeout(value, now_ms)?);
                at += 2;
            } else if let Some(value) = value
                && args.is(at, "count")
            {
                options.count = integer(value)?.max(0) as u64;
                at += 2;
            } else if args.is(at, "streams") && value.is_some() {
                options.first = at + 1;
            } else if let (Some(group), Some(consumer)) = (value, args.get(at + 2))
                && args.is(at, "group")
            {
                if !of_group {
                    return Err("ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.".into());
                }
                options.group = Some((group, consumer));
                at += 3;
            } else if args.is(at, "noack") {
                if !of_group {
                    return Err("ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.".into());
                }
                options.no_ack = true;
                at += 1;
            } else {
                return Err(SYNTAX_ERROR.into());
            }
        }
        if options.first == 0 {
            return Err(SYNTAX_ERROR.into());
        }
        let named = args.len() - options.first;
        if !named.is_multiple_of(2) {
            let (command, id) = if of_group {
                ("xreadgroup", '>')
            } else {
                ("xread", '$')
            };
            return Err(format!("ERR Unbalanced '{command}' list of streams: for each stream key an ID or '{id}' must be specified.").into());
        }
        if of_group && options.group.is_none() {
            return Err("ERR Missing GROUP option for XREADGROUP".into());
        }
        options.streams = named / 2;
        Ok(options)
    }

    /// The key of a stream, and what is said of where to begin.
    pub(super) fn stream(&self, args: Args<'a>, stream: usize) -> (&'a [u8], &'a [u8]) {
        let at = |at| args.get(at).unwrap_or_default();
        let key = self.first + stream;
        (at(key), at(key + self.streams))
    }

    /// The numbers of the streams.
    pub(super) fn numbers(&self) -> Vec<usize> {
        (0..self.streams).collect()
    }

    /// As many of the first positions as are wanted.
    pub(super) fn limited(&self, positions: Range<u64>) -> Range<u64> {
        match self.count {
            0 => positions,
            count => positions.start..positions.end.min(positions.start.saturating_add(count)),
        }
    }
}

/// How long to block, in milliseconds; from now on, it is a time that can be told.
fn timeout(arg: &[u8], now_ms: u64) -> Result<u64, Stop> {
    let Ok(timeout_ms) = integer(arg) else {
        return Err("ERR timeout is not an integer or out of range".into());
    };
    match u64::try_from(timeout_ms) {
        Err(_) => Err("ERR timeout is negative".into()),
        Ok(timeout_ms) if timeout_ms + now_ms > i64::MAX as u64 => {
            Err("ERR timeout is out of range".into())
        }
        Ok(timeout_ms) => Ok(timeout_ms),
    }
}

/// Writes the header of a reply with `streams` streams.
pub(super) fn reply_streams(cx: &mut Ctx<'_>, streams: usize) {
    match cx.reply.protocol() {
        Protocol::Resp2 => cx.reply.array(streams),
        Protocol::Resp3 => cx.reply.map(streams),
    }
}

/// Writes the name of a stream, behind which its entries follow.
pub(super) fn reply_key(cx: &mut Ctx<'_>, key: &[u8]) {
    if cx.reply.protocol() == Protocol::Resp2 {
        cx.reply.array(2);
    }
    cx.reply.bulk(key);
}

fn xread(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    // Who has waited for what comes behind the last entry of that time does so still.
    let former = cx.client.waits_again.clone();
    let args = former.as_ref().and_then(FormerWait::args).unwrap_or(args);
    let options = ReadOptions::parse(args, false, cx.now_ms())?;
    if read(cx, &options, args, &options.numbers())? {
        return Ok(());
    }
    wait_for_entries(cx, &options, args)
}

/// Writes the entries that are asked for of the streams with these numbers; `false` if there are none.
pub(super) fn read(
    cx: &mut Ctx<'_>,
    options: &ReadOptions<'_>,
    args: Args<'_>,
    streams: &[usize],
) -> Result<bool, Stop> {
    let mut found: Vec<(&[u8], Range<u64>)> = Vec::new();
    read_each(streams.iter(), |stream| {
        let (key, positions) = behind(cx, options, args, *stream)?;
        if !positions.is_empty() {
            found.push((key, positions));
        }
        Ok(())
    })?;
    if found.is_empty() {
        return Ok(false);
    }
    reply_streams(cx, found.len());
    read_each(found.into_iter(), |(key, positions)| {
        reply_key(cx, key);
        match Stream::find(&cx.op, cx.namespace, key)? {
            Some(stream) => {
                let memory = &mut cx.client.allowance;
                stream.reply_range(positions, Direction::Forward, memory, cx.reply)
            }
            None => Ok(()),
        }
    })?;
    Ok(true)
}

/// The key of a stream that XREAD names, and the positions of its entries that are asked for.
fn behind<'a>(
    cx: &Ctx<'_>,
    options: &ReadOptions<'a>,
    args: Args<'a>,
    stream: usize,
) -> Result<(&'a [u8], Range<u64>), Stop> {
    let (key, id) = options.stream(args, stream);
    let stream = Stream::find(&cx.op, cx.namespace, key)?;
    let id = match id {
        // What is there now is not asked for.
        b"$" => Id::MAX,
        b"+" => {
            let len = stream.map_or(0, |stream| stream.len());
            return Ok((key, len.saturating_sub(1)..len));
        }
        b">" => return Err("ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.".into()),
        id => Id::parse_strict(id, 0)?,
    };
    let (Some(stream), Some(from)) = (stream, id.next()) else {
        return Ok((key, 0..0));
    };
    Ok((key, options.limited(stream.positions(from, Id::MAX)?)))
}
