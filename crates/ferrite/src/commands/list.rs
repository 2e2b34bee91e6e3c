//! Lists: pushing and popping at either end, and what all commands on them share. A list is a collection with one tree by
//! position.

use std::ops::{ControlFlow, Range, RangeInclusive};

use hybridlog::{
    Collection, Direction, Element, INSERTED_BESIDE_BYTES, INSERTED_TOGETHER_BYTES, Layout, Order,
    TreeLayout, WalkFrom,
};
use smallvec::SmallVec;

use super::KIND_LIST;
use super::collection::{ELEMENTS, check_room, find, walk_range};
use super::list_encoding::{note_growth, note_shrinking};
use super::parse::{SYNTAX_ERROR, strict_integer};
use super::string::{GROW_FAST, READ_FAST, STRING_ROW, WRITE_FAST};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;

pub(super) static LIST: Layout = Layout {
    kind: KIND_LIST,
    trees: &[TreeLayout {
        order: Order::Position,
        has_values: false,
    }],
};

/// What most rows of list commands have in common.
pub(super) const LIST_ROW: Row = Row {
    categories: &["list"],
    group: "list",
    ..STRING_ROW
};

/// Elements that are removed in one change.
pub(super) const REMOVED_TOGETHER: u64 = 4 * 1024;
/// Bytes of elements that a search looks at, and whose pages are fetched, together.
const SEARCHED_TOGETHER_BYTES: u64 = 256 * 1024;
/// So many elements are looked at together, however long they are, and no more, however short.
const SEARCHED_TOGETHER: RangeInclusive<u64> = 16..=64 * 1024;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "lpush",
        arity: -3,
        flags: GROW_FAST,
        complexity: "O(N), N being the number of elements given",
        summary: "Puts elements in front of a list, one after the other.",
        handler: Handler::Worker(lpush),
        ..LIST_ROW
    },
    Row {
        name: "rpush",
        arity: -3,
        flags: GROW_FAST,
        complexity: "O(N), N being the number of elements given",
        summary: "Appends elements to a list.",
        handler: Handler::Worker(rpush),
        ..LIST_ROW
    },
    Row {
        name: "lpushx",
        arity: -3,
        flags: GROW_FAST,
        since: "2.2.0",
        complexity: "O(N), N being the number of elements given",
        summary: "Puts elements in front of a list if it exists.",
        handler: Handler::Worker(lpushx),
        ..LIST_ROW
    },
    Row {
        name: "rpushx",
        arity: -3,
        flags: GROW_FAST,
        since: "2.2.0",
        complexity: "O(N), N being the number of elements given",
        summary: "Appends elements to a list if it exists.",
        handler: Handler::Worker(rpushx),
        ..LIST_ROW
    },
    Row {
        name: "lpop",
        arity: -2,
        flags: WRITE_FAST,
        complexity: "O(N), N being the number of elements returned",
        summary: "Removes and returns the first elements of a list.",
        handler: Handler::Worker(lpop),
        ..LIST_ROW
    },
    Row {
        name: "rpop",
        arity: -2,
        flags: WRITE_FAST,
        complexity: "O(N), N being the number of elements returned",
        summary: "Removes and returns the last elements of a list, the last one first.",
        handler: Handler::Worker(rpop),
        ..LIST_ROW
    },
    Row {
        name: "llen",
        arity: 2,
        flags: READ_FAST,
        summary: "Counts the elements of a list.",
        handler: Handler::Worker(llen),
        ..LIST_ROW
    },
];

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    /// LEFT or RIGHT.
    pub(super) fn argument(args: Args<'_>, at: usize) -> Result<Side, Stop> {
        if args.is(at, "left") {
            Ok(Side::Left)
        } else if args.is(at, "right") {
            Ok(Side::Right)
        } else {
            Err(SYNTAX_ERROR.into())
        }
    }

    /// The positions of the `count` elements at this end of `len`, which has so many.
    fn positions(self, len: u64, count: u64) -> Range<u64> {
        match self {
            Side::Left => 0..count,
            Side::Right => len - count..len,
        }
    }

    /// Of the last of `len` elements, seen from the other end.
    pub(super) fn position(self, len: u64) -> u64 {
        match self {
            Side::Left => 0,
            Side::Right => len - 1,
        }
    }
}

fn lpush(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    push_all(cx, args, Side::Left)
}

fn rpush(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    push_all(cx, args, Side::Right)
}

fn lpushx(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    push_if_exists(cx, args, Side::Left)
}

fn rpushx(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    push_if_exists(cx, args, Side::Right)
}

fn push_if_exists(cx: &mut Ctx<'_>, args: Args<'_>, side: Side) -> Done {
    if find(&cx.op, cx.namespace, &args[1], KIND_LIST)?.is_none() {
        cx.reply.integer(0);
        return Ok(());
    }
    push_all(cx, args, side)
}

fn push_all(cx: &mut Ctx<'_>, args: Args<'_>, side: Side) -> Done {
    let key = &args[1];
    let values = args.from(2).skip(cx.progress.done);
    begin_push(cx, key, values.clone())?;
    let len = push_in_parts(cx, key, side, values)?;
    cx.reply.integer(len as i64);
    Ok(())
}

/// Pushes any number of `values`, one after the other, and counts them as done. Returns how many elements the list has then.
pub(super) fn push_in_parts<'a>(
    cx: &mut Ctx<'_>,
    key: &[u8],
    side: Side,
    mut values: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<u64, Stop> {
    let mut len = 0;
    while let Some(first) = values.next() {
        let mut together: SmallVec<[&[u8]; 8]> = SmallVec::new();
        together.push(first);
        let mut bytes = first.len() + INSERTED_BESIDE_BYTES;
        while let Some(next) = values.clone().next() {
            bytes += next.len() + INSERTED_BESIDE_BYTES;
            if bytes > INSERTED_TOGETHER_BYTES {
                break;
            }
            together.push(next);
            values.next();
        }
        len = push(cx, key, side, &mut together)?;
        cx.progress.done += together.len();
    }
    Ok(len)
}

/// Makes sure that `values` may be pushed to a list, which need not exist.
pub(super) fn begin_push<'a>(
    cx: &mut Ctx<'_>,
    key: &[u8],
    values: impl Iterator<Item = &'a [u8]>,
) -> Result<(), Stop> {
    let (mut count, mut bytes) = (0, 0);
    for value in values {
        cx.op.check_element(key, value.len() as u64)?;
        count += 1;
        bytes += value.len();
    }
    check_room(cx, count, bytes)?;
    note_growth(cx, key, count as u64, bytes as u64)
}

/// Pushes `values`, one after the other, in one change; so they are few. Returns how many elements the list has then.
pub(super) fn push(
    cx: &mut Ctx<'_>,
    key: &[u8],
    side: Side,
    values: &mut [&[u8]],
) -> Result<u64, Stop> {
    let position = match side {
        Side::Left => 0,
        Side::Right => u64::MAX,
    };
    if side == Side::Left {
        values.reverse();
    }
    Ok(cx
        .op
        .insert_together(cx.namespace, key, &LIST, ELEMENTS, position, values)?)
}

fn lpop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    pop_some(cx, args, Side::Left)
}

fn rpop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    pop_some(cx, args, Side::Right)
}

fn pop_some(cx: &mut Ctx<'_>, args: Args<'_>, side: Side) -> Done {
    let key = &args[1];
    let count = match args.len() {
        2 => None,
        3 => {
            let count = strict_integer(&args[2]).and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or("ERR value is out of range, must be positive")?)
        }
        _ => {
            let name = match side {
                Side::Left => "lpop",
                Side::Right => "rpop",
            };
            return Err(format!("ERR wrong number of arguments for '{name}' command").into());
        }
    };
    if cx.progress.has_begun {
        return end_pop(cx, key, side);
    }
    let list = find(&cx.op, cx.namespace, key, KIND_LIST)?;
    match (list, count) {
        (None, None) => cx.reply.null(),
        (None, Some(_)) => cx.reply.null_array(),
        (Some(_), Some(0)) => cx.reply.array(0),
        (Some(_), None) => pop(cx, key, side, 1)?,
        (Some(list), Some(count)) => {
            let count = count.min(list.len(ELEMENTS));
            cx.reply.array(count as usize);
            pop(cx, key, side, count)?;
        }
    }
    Ok(())
}

/// Replies with the `count` elements at an end of a list, which has so many, and removes them. Run again half-way, it is
/// [`end_pop`] that goes on.
fn pop(cx: &mut Ctx<'_>, key: &[u8], side: Side, count: u64) -> Result<(), Stop> {
    reply_popped(cx, key, side, count)?;
    cx.progress.count = count as i64;
    end_pop(cx, key, side)
}

/// Replies with the `count` elements at an end of a list, which has so many, each as a bulk string.
pub(super) fn reply_popped(
    cx: &mut Ctx<'_>,
    key: &[u8],
    side: Side,
    count: u64,
) -> Result<(), Stop> {
    let Some(list) = find(&cx.op, cx.namespace, key, KIND_LIST)? else {
        return Ok(());
    };
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    let positions = side.positions(list.len(ELEMENTS), count);
    let direction = match side {
        Side::Left => Direction::Forward,
        Side::Right => Direction::Backward,
    };
    walk_range(&list, ELEMENTS, positions, direction, |element| {
        reply.bulk_within(memory, &element.value)?;
        Ok(ControlFlow::Continue(()))
    })
}

/// Removes the elements that have been replied with: `cx.progress.count` of them.
pub(super) fn end_pop(cx: &mut Ctx<'_>, key: &[u8], side: Side) -> Result<(), Stop> {
    let mut left = cx.progress.count as u64;
    while left > 0 {
        let len = find(&cx.op, cx.namespace, key, KIND_LIST)?.map_or(0, |list| list.len(ELEMENTS));
        let count = left.min(REMOVED_TOGETHER);
        if left >= len {
            cx.op.remove(cx.namespace, key)?;
            left = 0;
        } else {
            let first = side.positions(len, count).start;
            cx.op
                .remove_range(cx.namespace, key, ELEMENTS, first, count)?;
            left -= count;
        }
        cx.progress.count = left as i64;
    }
    note_shrinking(cx, key)
}

fn llen(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let list = find(&cx.op, cx.namespace, &args[1], KIND_LIST)?;
    cx.reply
        .integer(list.map_or(0, |list| list.len(ELEMENTS) as i64));
    Ok(())
}

/// What a search makes of an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// It goes on.
    On,
    /// It goes on, and will need this element again when it is run again.
    OnWithThis,
    /// It ends.
    End,
}

/// Hands the elements from one end on to `each`, with their positions from the left: `at_most` of them, without the first
/// `passed`. What is cold ends the search at once, so that no more is read than it takes; what has been looked at for nothing
/// is added to `passed`, and need not be looked at again when the command is run again with its latches kept.
pub(super) fn search<'r>(
    list: &Collection<'r>,
    from: Side,
    passed: &mut u64,
    at_most: u64,
    mut each: impl FnMut(u64, Element<'r>) -> Result<Look, Stop>,
) -> Result<(), Stop> {
    let len = list.len(ELEMENTS);
    let (mut seen, at_most) = (*passed, at_most.min(len));
    let mut is_fruitless = true;
    let bytes_each = (list.bytes() / len.max(1)).max(1);
    let together = (SEARCHED_TOGETHER_BYTES / bytes_each)
        .clamp(*SEARCHED_TOGETHER.start(), *SEARCHED_TOGETHER.end());
    while seen < at_most {
        let count = together.min(at_most - seen);
        let direction = match from {
            Side::Left => Direction::Forward,
            Side::Right => Direction::Backward,
        };
        let mut ended = None;
        let mut number = seen;
        let position = |number| match from {
            Side::Left => number,
            Side::Right => len - 1 - number,
        };
        let start = WalkFrom::Position(position(seen));
        list.walk(ELEMENTS, start, direction, count, &mut |element| {
            match each(position(number), element) {
                Ok(Look::End) => ended = Some(Ok(())),
                Ok(look) => {
                    is_fruitless &= look == Look::On;
                    number += 1;
                    return ControlFlow::Continue(());
                }
                Err(stop) => ended = Some(Err(stop)),
            }
            ControlFlow::Break(())
        })?;
        if let Some(end) = ended {
            return end;
        }
        seen += count;
        if is_fruitless {
            *passed = seen;
        }
    }
    Ok(())
}
