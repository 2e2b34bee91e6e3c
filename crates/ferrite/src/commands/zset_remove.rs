//! Removing members of sorted sets by their places and scores: ZPOPMIN, ZPOPMAX, ZMPOP, ZREMRANGEBYRANK, ZREMRANGEBYSCORE,
//! ZREMRANGEBYLEX.

use std::ops::Range;

use hybridlog::Direction;
use resp::Protocol;

use super::KIND_ZSET;
use super::collection::{check_room, remove_if_empty};
use super::parse::{SYNTAX_ERROR, strict_integer};
use super::string::WRITE_FAST;
use super::zset::{MEMBERS, SCORES, Shape, ZSET_ROW, Zset};
use super::zset_interval::{By, Interval};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

/// So many members are read, and then removed, together.
const REMOVED_TOGETHER: u64 = 1024;

const REMOVE_ROW: Row = Row {
    arity: 4,
    flags: Flags::WRITE,
    complexity: "O(log(N)+M), N being the number of members and M that of those removed",
    ..ZSET_ROW
};

const POP_ROW: Row = Row {
    arity: -2,
    flags: WRITE_FAST,
    since: "5.0.0",
    complexity: "O(M*log(N)), N being the number of members and M that of those popped",
    ..ZSET_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "zpopmin",
        summary: "Removes and returns the members of a sorted set with the lowest scores.",
        handler: Handler::Worker(zpopmin),
        ..POP_ROW
    },
    Row {
        name: "zpopmax",
        summary: "Removes and returns the members of a sorted set with the highest scores.",
        handler: Handler::Worker(zpopmax),
        ..POP_ROW
    },
    Row {
        name: "zmpop",
        arity: -4,
        flags: Flags::WRITE,
        keys: Keys::Counted { count: 1, step: 1 },
        since: "7.0.0",
        complexity: "O(K)+O(M*log(N)), K being the number of keys, N that of members and M that of those popped",
        summary: "Removes and returns the members with the lowest or highest scores of the first of several sorted sets that has any.",
        handler: Handler::Worker(zmpop),
        ..ZSET_ROW
    },
    Row {
        name: "zremrangebyrank",
        since: "2.0.0",
        summary: "Removes members of a sorted set by their places.",
        handler: Handler::Worker(zremrangebyrank),
        ..REMOVE_ROW
    },
    Row {
        name: "zremrangebyscore",
        summary: "Removes the members of a sorted set whose scores are in an interval.",
        handler: Handler::Worker(zremrangebyscore),
        ..REMOVE_ROW
    },
    Row {
        name: "zremrangebylex",
        since: "2.8.9",
        summary: "Removes the members of a sorted set that are in an interval of strings, all scores being the same.",
        handler: Handler::Worker(zremrangebylex),
        ..REMOVE_ROW
    },
];

/// Which end members are popped from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Min,
    Max,
}

impl End {
    /// Reads MIN or MAX.
    pub(super) fn parse(arg: &[u8]) -> Option<End> {
        if arg.eq_ignore_ascii_case(b"min") {
            Some(End::Min)
        } else if arg.eq_ignore_ascii_case(b"max") {
            Some(End::Max)
        } else {
            None
        }
    }
}

fn zpopmin(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    pop_one_key(cx, args, End::Min)
}

fn zpopmax(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    pop_one_key(cx, args, End::Max)
}

fn pop_one_key(cx: &mut Ctx<'_>, args: Args<'_>, end: End) -> Done {
    let count = match args.len() {
        2 => None,
        3 => {
            let count = strict_integer(&args[2]).and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or("ERR value is out of range, must be positive")?)
        }
        _ => return Err(SYNTAX_ERROR.into()),
    };
    let shape = match (count, cx.reply.protocol()) {
        (Some(_), Protocol::Resp3) => Shape::Nested,
        _ => Shape::Flat,
    };
    if !cx.progress.has_begun {
        let zset = Zset::find(&cx.op, cx.namespace, &args[1])?;
        let len = zset.map_or(0, |zset| zset.len());
        let popped = count.unwrap_or(1).min(len);
        cx.reply.array(shape.elements(popped));
    }
    pop(cx, &args[1], end, count.unwrap_or(1), shape)
}

fn zmpop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (keys, end, count) = parse_pop_of_several(args, 1)?;
    match first_with_members(cx, args, keys)? {
        Some((key, len)) => pop_and_name(cx, key, len, end, count),
        None => {
            cx.reply.null_array();
            Ok(())
        }
    }
}

/// Reads `numkeys key... MIN|MAX [COUNT count]` from argument `first` on: where the keys are, which end, and how many.
pub(super) fn parse_pop_of_several(
    args: Args<'_>,
    first: usize,
) -> Result<(Range<usize>, End, u64), Stop> {
    let positive = |at: usize, error: &'static str| -> Result<u64, Stop> {
        let number = args.get(at).and_then(strict_integer);
        let number = number.and_then(|number| u64::try_from(number).ok());
        number.filter(|number| *number > 0).ok_or(error.into())
    };
    let keys = positive(first, "ERR numkeys should be greater than 0")?;
    let keys = usize::try_from(keys).unwrap_or(usize::MAX);
    let end_at = (first + 1).saturating_add(keys);
    let end = args.get(end_at).and_then(End::parse).ok_or(SYNTAX_ERROR)?;
    let mut count = 1;
    let options = args.len() - end_at - 1;
    if options >= 2 && args.is(end_at + 1, "count") {
        count = positive(end_at + 2, "ERR count should be greater than 0")?;
    }
    match options {
        0 => {}
        2 if args.is(end_at + 1, "count") => {}
        _ => return Err(SYNTAX_ERROR.into()),
    }
    Ok((first + 1..end_at, end, count))
}

/// The first of the keys that holds a sorted set, and how many members that has.
pub(super) fn first_with_members<'a>(
    cx: &Ctx<'_>,
    args: Args<'a>,
    keys: Range<usize>,
) -> Result<Option<(&'a [u8], u64)>, Stop> {
    for key in args.from(keys.start).take(keys.len()) {
        if let Some(zset) = Zset::find(&cx.op, cx.namespace, key)? {
            return Ok(Some((key, zset.len())));
        }
    }
    Ok(None)
}

/// Pops `count` of `len` members, and replies the key and an array of them.
pub(super) fn pop_and_name(cx: &mut Ctx<'_>, key: &[u8], len: u64, end: End, count: u64) -> Done {
    if !cx.progress.has_begun {
        cx.reply.array(2);
        cx.reply.bulk(key);
        cx.reply.array(count.min(len) as usize);
    }
    pop(cx, key, end, count, Shape::Nested)
}

/// Pops `count` members, or all there are, and replies them; how many is the caller's to reply, before the command has begun.
pub(super) fn pop(cx: &mut Ctx<'_>, key: &[u8], end: End, count: u64, shape: Shape) -> Done {
    let Some(zset) = Zset::find(&cx.op, cx.namespace, key)? else {
        return Ok(());
    };
    let len = zset.len();
    let count = count.saturating_sub(cx.progress.done as u64).min(len);
    let (range, direction) = match end {
        End::Min => (0..count, Direction::Forward),
        End::Max => (len - count..len, Direction::Backward),
    };
    remove_positions(cx, key, range, direction, Some(shape))
}

fn zremrangebyrank(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    remove_interval(cx, args, By::Rank)
}

fn zremrangebyscore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    remove_interval(cx, args, By::Score)
}

fn zremrangebylex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    remove_interval(cx, args, By::Lex)
}

fn remove_interval(cx: &mut Ctx<'_>, args: Args<'_>, by: By) -> Done {
    let interval = Interval::parse(by, &args[2], &args[3])?;
    let removed = cx.progress.done as u64;
    let range = match Zset::find(&cx.op, cx.namespace, &args[1])? {
        Some(zset) => interval.positions(&zset, Direction::Forward, removed)?,
        None => 0..0,
    };
    remove_positions(cx, &args[1], range, Direction::Forward, None)?;
    let removed = cx.progress.done;
    cx.reply.integer(removed as i64);
    Ok(())
}

/// Removes the members at these positions, from the first on or from the last back, and counts them as done. They are replied,
/// if they are to be, once they are gone.
fn remove_positions(
    cx: &mut Ctx<'_>,
    key: &[u8],
    range: Range<u64>,
    direction: Direction,
    replied: Option<Shape>,
) -> Result<(), Stop> {
    if range.is_empty() || remove_all(cx, key, &range, direction, replied)? {
        return Ok(());
    }
    let Range { start, mut end } = range;
    while start < end {
        let count = (end - start).min(REMOVED_TOGETHER);
        let part = match direction {
            Direction::Forward => start..start + count,
            Direction::Backward => end - count..end,
        };
        remove_part(cx, key, part, direction, replied)?;
        // Those that were behind the first ones have moved up.
        end -= count;
    }
    remove_if_empty(cx, key, KIND_ZSET)
}

/// Removes the sorted set if all its members are meant: whatever their number, that is one change.
fn remove_all(
    cx: &mut Ctx<'_>,
    key: &[u8],
    range: &Range<u64>,
    direction: Direction,
    replied: Option<Shape>,
) -> Result<bool, Stop> {
    let Some(zset) = Zset::find(&cx.op, cx.namespace, key)? else {
        return Ok(false);
    };
    let len = zset.len();
    if *range != (0..len) {
        return Ok(false);
    }
    if let Some(shape) = replied {
        let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
        zset.walk(range.clone(), direction, |member, score| {
            shape.reply(memory, reply, member, score)
        })?;
    }
    cx.op.remove(cx.namespace, key)?;
    cx.progress.done += len as usize;
    Ok(true)
}

/// Removes some members: first from the index, so that a run that goes on finds them all in the tree by score.
fn remove_part(
    cx: &mut Ctx<'_>,
    key: &[u8],
    part: Range<u64>,
    direction: Direction,
    replied: Option<Shape>,
) -> Result<(), Stop> {
    let Some(zset) = Zset::find(&cx.op, cx.namespace, key)? else {
        return Ok(());
    };
    let has_index = zset.has_index();
    let mut members = Vec::new();
    let memory = &mut cx.client.allowance;
    zset.walk(part.clone(), direction, |member, score| {
        memory.ask(member.len() as u64)?;
        members.push((member.to_vec(), score));
        Ok(())
    })?;
    zset.want(members.iter().map(|(member, _)| member.as_slice()))?;
    let bytes: usize = members
        .iter()
        .map(|(member, _)| member.len() + Shape::BESIDE_BYTES)
        .sum();
    if replied.is_some() {
        cx.reply.make_room(memory, bytes)?;
    }
    check_room(cx, 2 * members.len(), 0)?;
    if has_index {
        for (member, _) in &members {
            cx.op.remove_element(cx.namespace, key, MEMBERS, member)?;
        }
    }
    let count = part.end - part.start;
    cx.op
        .remove_range(cx.namespace, key, SCORES, part.start, count)?;
    cx.progress.done += members.len();
    if let Some(shape) = replied {
        for (member, score) in &members {
            shape.write(cx.reply, member, *score);
        }
    }
    Ok(())
}
