//! Lists: waiting until there is an element: BLPOP, BRPOP, BLMOVE, BRPOPLPUSH, BLMPOP.

use tokio::time::Instant;

use super::KIND_LIST;
use super::collection::find;
use super::list::{LIST_ROW, Side, end_pop, reply_popped};
use super::list_move::{Move, PopMany, TWO_KEYS, move_element, pop_many};
use super::string::GROW;
use crate::args::Args;
use crate::blocking::{Request, Served, block, may_block, timeout_argument};
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

const ALL_BUT_LAST: Keys = Keys::Range {
    first: 1,
    last: -2,
    step: 1,
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "blpop",
        arity: -3,
        flags: Flags::WRITE.and(Flags::BLOCKING),
        keys: ALL_BUT_LAST,
        since: "2.0.0",
        complexity: "O(N), N being the number of keys given",
        summary: "Removes and returns the first element of the first list that has some, or waits for one.",
        handler: Handler::Worker(blpop),
        ..LIST_ROW
    },
    Row {
        name: "brpop",
        arity: -3,
        flags: Flags::WRITE.and(Flags::BLOCKING),
        keys: ALL_BUT_LAST,
        since: "2.0.0",
        complexity: "O(N), N being the number of keys given",
        summary: "Removes and returns the last element of the first list that has some, or waits for one.",
        handler: Handler::Worker(brpop),
        ..LIST_ROW
    },
    Row {
        name: "blmove",
        arity: 6,
        flags: GROW.and(Flags::BLOCKING),
        keys: TWO_KEYS,
        since: "6.2.0",
        summary: "Moves an element from an end of a list to an end of another, or waits for one, and returns it.",
        handler: Handler::Worker(blmove),
        ..LIST_ROW
    },
    Row {
        name: "brpoplpush",
        arity: 4,
        flags: GROW.and(Flags::BLOCKING),
        keys: TWO_KEYS,
        since: "2.2.0",
        summary: "Moves the last element of a list to the front of another, or waits for one, and returns it.",
        handler: Handler::Worker(brpoplpush),
        ..LIST_ROW
    },
    Row {
        name: "blmpop",
        arity: -5,
        flags: Flags::WRITE.and(Flags::BLOCKING),
        keys: Keys::Counted { count: 2, step: 1 },
        since: "7.0.0",
        complexity: "O(N + M), N being the number of keys given and M the number of elements returned",
        summary: "Removes and returns elements of the first list that has some, or waits for them.",
        handler: Handler::Worker(blmpop),
        ..LIST_ROW
    },
];

/// Elements that a client waits for.
#[derive(Clone, Copy)]
struct Pop {
    side: Side,
    /// So many at most, in an array; else one.
    count: Option<u64>,
}

impl Pop {
    /// Pops from list `key`, which is there, and is number `number` of those that are asked for.
    fn pop(self, cx: &mut Ctx<'_>, key: &[u8], number: usize) -> Result<(), Stop> {
        if cx.progress.has_begun {
            return end_pop(cx, key, self.side);
        }
        if let Some(count) = self.count {
            return pop_many(cx, key, self.side, count, number);
        }
        cx.reply.array(2);
        cx.reply.bulk_within(&mut cx.client.allowance, key)?;
        reply_popped(cx, key, self.side, 1)?;
        (cx.progress.done, cx.progress.count) = (number, 1);
        end_pop(cx, key, self.side)
    }
}

impl Request for Pop {
    fn kind(&self) -> u8 {
        KIND_LIST
    }

    fn serve(&self, cx: &mut Ctx<'_>, key: &[u8]) -> Result<Served, Stop> {
        self.pop(cx, key, 0)?;
        Ok(Served::Yes)
    }
}

fn blpop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    pop_one(cx, args, Side::Left)
}

fn brpop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    pop_one(cx, args, Side::Right)
}

fn pop_one(cx: &mut Ctx<'_>, args: Args<'_>, side: Side) -> Done {
    let last = args.len() - 1;
    let deadline = timeout_argument(&args[last])?;
    let keys = args.range(1..last);
    pop_or_wait(cx, Pop { side, count: None }, keys, deadline)
}

fn blmpop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let PopMany { keys, side, count } = PopMany::parse(args, 2)?;
    let deadline = timeout_argument(&args[1])?;
    let count = Some(count);
    pop_or_wait(cx, Pop { side, count }, keys, deadline)
}

fn pop_or_wait(cx: &mut Ctx<'_>, wanted: Pop, keys: Args<'_>, deadline: Option<Instant>) -> Done {
    for (number, key) in keys.from(0).enumerate().skip(cx.progress.done) {
        let goes_on = cx.progress.has_begun;
        if goes_on || find(&cx.op, cx.namespace, key, KIND_LIST)?.is_some() {
            return wanted.pop(cx, key, number);
        }
    }
    if may_block(cx) {
        return block(cx, Box::new(wanted), keys.from(0), deadline);
    }
    cx.reply.null_array();
    Ok(())
}

/// An element that a client waits for, to be moved elsewhere.
struct AwaitedMove {
    target: Box<[u8]>,
    from: Side,
    to: Side,
}

impl Request for AwaitedMove {
    fn kind(&self) -> u8 {
        KIND_LIST
    }

    fn serve(&self, cx: &mut Ctx<'_>, key: &[u8]) -> Result<Served, Stop> {
        if !cx.op.try_latch(cx.namespace, &self.target) {
            return Ok(Served::RunAgain);
        }
        let wanted = Move {
            source: key,
            target: &self.target,
            from: self.from,
            to: self.to,
        };
        let is_moved = move_element(cx, wanted)?;
        Ok(if is_moved {
            Served::Yes
        } else {
            Served::NotYet
        })
    }

    fn changes(&self) -> Option<&[u8]> {
        Some(&self.target)
    }
}

fn blmove(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let wanted = Move::between_sides(args)?;
    move_or_wait(cx, wanted, timeout_argument(&args[5])?)
}

fn brpoplpush(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let deadline = timeout_argument(&args[3])?;
    move_or_wait(cx, Move::to_front(args), deadline)
}

fn move_or_wait(cx: &mut Ctx<'_>, wanted: Move<'_>, deadline: Option<Instant>) -> Done {
    if move_element(cx, wanted)? {
        return Ok(());
    }
    if may_block(cx) {
        let awaited = AwaitedMove {
            target: wanted.target.into(),
            from: wanted.from,
            to: wanted.to,
        };
        let source = std::iter::once(wanted.source);
        return block(cx, Box::new(awaited), source, deadline);
    }
    cx.reply.null();
    Ok(())
}
