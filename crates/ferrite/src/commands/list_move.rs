//! Lists: moving an element from one to another, and popping from the first of several: LMOVE, RPOPLPUSH, LMPOP.

use super::KIND_LIST;
use super::collection::{ELEMENTS, find};
use super::list::{LIST_ROW, Side, begin_push, end_pop, push, reply_popped};
use super::list_encoding::note_shrinking;
use super::parse::{SYNTAX_ERROR, strict_integer};
use super::string::GROW;
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "lmove",
        arity: 5,
        flags: GROW,
        keys: TWO_KEYS,
        since: "6.2.0",
        summary: "Moves an element from an end of a list to an end of another, and returns it.",
        handler: Handler::Worker(lmove),
        ..LIST_ROW
    },
    Row {
        name: "rpoplpush",
        arity: 3,
        flags: GROW,
        keys: TWO_KEYS,
        since: "1.2.0",
        summary: "Moves the last element of a list to the front of another, and returns it.",
        handler: Handler::Worker(rpoplpush),
        ..LIST_ROW
    },
    Row {
        name: "lmpop",
        arity: -4,
        flags: Flags::WRITE,
        keys: Keys::Counted { count: 1, step: 1 },
        since: "7.0.0",
        complexity: "O(N + M), N being the number of keys given and M the number of elements returned",
        summary: "Removes and returns elements of the first list that has some.",
        handler: Handler::Worker(lmpop),
        ..LIST_ROW
    },
];

pub(super) const TWO_KEYS: Keys = Keys::Range {
    first: 1,
    last: 2,
    step: 1,
};

/// A move from one list to another.
#[derive(Clone, Copy)]
pub(super) struct Move<'a> {
    pub(super) source: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) from: Side,
    pub(super) to: Side,
}

impl<'a> Move<'a> {
    /// Of RPOPLPUSH and BRPOPLPUSH.
    pub(super) fn to_front(args: Args<'a>) -> Move<'a> {
        Move {
            source: args.get(1).unwrap_or_default(),
            target: args.get(2).unwrap_or_default(),
            from: Side::Right,
            to: Side::Left,
        }
    }

    /// Of LMOVE and BLMOVE.
    pub(super) fn between_sides(args: Args<'a>) -> Result<Move<'a>, Stop> {
        Ok(Move {
            from: Side::argument(args, 3)?,
            to: Side::argument(args, 4)?,
            ..Move::to_front(args)
        })
    }
}

fn lmove(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let wanted = Move::between_sides(args)?;
    move_or_null(cx, wanted)
}

fn rpoplpush(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    move_or_null(cx, Move::to_front(args))
}

fn move_or_null(cx: &mut Ctx<'_>, wanted: Move<'_>) -> Done {
    if !move_element(cx, wanted)? {
        cx.reply.null();
    }
    Ok(())
}

/// Moves an element and replies with it; `false` if there is none.
pub(super) fn move_element(cx: &mut Ctx<'_>, wanted: Move<'_>) -> Result<bool, Stop> {
    let Move {
        source,
        target,
        from,
        to,
    } = wanted;
    let namespace = cx.namespace;
    if cx.progress.done == 0 {
        let Some(list) = find(&cx.op, namespace, source, KIND_LIST)? else {
            return Ok(false);
        };
        find(&cx.op, namespace, target, KIND_LIST)?;
        let position = from.position(list.len(ELEMENTS));
        let Some(element) = list.at(ELEMENTS, position)? else {
            return Ok(false);
        };
        cx.client.allowance.ask(element.value.len() as u64)?;
        let value = element.value.into_owned();
        if !cx.progress.has_begun {
            cx.reply.bulk_within(&mut cx.client.allowance, &value)?;
        }
        if source == target && from == to {
            cx.op
                .replace_at(namespace, source, ELEMENTS, position, &value)?;
            return Ok(true);
        }
        if source != target {
            begin_push(cx, target, std::iter::once(&value[..]))?;
        }
        // It stays where it is until it is at the other place too: so it can be read again if this has to wait.
        push(cx, target, to, &mut [&value])?;
        cx.progress.done = 1;
    }
    if cx.progress.done == 1 {
        let list = find(&cx.op, namespace, source, KIND_LIST)?;
        let len = list.map_or(0, |list| list.len(ELEMENTS));
        if len == 1 {
            cx.op.remove(namespace, source)?;
        } else if len > 1 {
            let position = from.position(len);
            cx.op
                .remove_range(namespace, source, ELEMENTS, position, 1)?;
        }
        cx.progress.done = 2;
    }
    note_shrinking(cx, source)?;
    Ok(true)
}

/// What LMPOP and BLMPOP ask for.
pub(super) struct PopMany<'a> {
    pub(super) keys: Args<'a>,
    pub(super) side: Side,
    pub(super) count: u64,
}

impl<'a> PopMany<'a> {
    /// Reads the arguments from `at` on, where the number of keys stands.
    pub(super) fn parse(args: Args<'a>, at: usize) -> Result<PopMany<'a>, Stop> {
        let args = args.tail(at);
        let count = positive(&args[0], "ERR numkeys should be greater than 0")?;
        let rest = usize::try_from(count).unwrap_or(usize::MAX);
        let rest = rest.saturating_add(1);
        if rest >= args.len() {
            return Err(SYNTAX_ERROR.into());
        }
        let side = Side::argument(args, rest)?;
        let mut count = None;
        for at in (rest + 1..args.len()).step_by(2) {
            let value = args.get(at + 1);
            let value = value.filter(|_| count.is_none() && args.is(at, "count"));
            let value = value.ok_or(SYNTAX_ERROR)?;
            count = Some(positive(value, "ERR count should be greater than 0")?);
        }
        Ok(PopMany {
            keys: args.range(1..rest),
            side,
            count: count.unwrap_or(1),
        })
    }
}

fn positive(arg: &[u8], error: &'static str) -> Result<u64, Stop> {
    let number = strict_integer(arg).and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or(error.into())
}

fn lmpop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let wanted = PopMany::parse(args, 1)?;
    if !pop_first(cx, &wanted)? {
        cx.reply.null_array();
    }
    Ok(())
}

/// Pops from the first of the lists that exists, and replies with its key and the elements; `false` if none does.
pub(super) fn pop_first(cx: &mut Ctx<'_>, wanted: &PopMany<'_>) -> Result<bool, Stop> {
    for (number, key) in wanted.keys.from(0).enumerate().skip(cx.progress.done) {
        if cx.progress.has_begun {
            end_pop(cx, key, wanted.side)?;
            return Ok(true);
        }
        if find(&cx.op, cx.namespace, key, KIND_LIST)?.is_some() {
            pop_many(cx, key, wanted.side, wanted.count, number)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Pops `count` elements, or as many as there are, of a list, which is number `number` of those that are asked for; replies
/// with its key and the elements.
pub(super) fn pop_many(
    cx: &mut Ctx<'_>,
    key: &[u8],
    side: Side,
    count: u64,
    number: usize,
) -> Result<(), Stop> {
    let list = find(&cx.op, cx.namespace, key, KIND_LIST)?;
    let count = count.min(list.map_or(0, |list| list.len(ELEMENTS)));
    cx.reply.array(2);
    cx.reply.bulk_within(&mut cx.client.allowance, key)?;
    cx.reply.array(count as usize);
    reply_popped(cx, key, side, count)?;
    (cx.progress.done, cx.progress.count) = (number, count as i64);
    end_pop(cx, key, side)
}
