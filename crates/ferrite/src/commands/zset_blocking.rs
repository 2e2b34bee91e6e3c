//! Sorted sets: waiting until there is a member: BZPOPMIN, BZPOPMAX, BZMPOP.

use tokio::time::Instant;

use super::KIND_ZSET;
use super::zset::{Shape, ZSET_ROW, Zset};
use super::zset_remove::{End, first_with_members, parse_pop_of_several, pop, pop_and_name};
use crate::args::Args;
use crate::blocking::{Request, Served, block, may_block, timeout_argument};
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

const POP_ROW: Row = Row {
    arity: -3,
    flags: Flags::WRITE.and(Flags::BLOCKING).and(Flags::FAST),
    keys: Keys::Range {
        first: 1,
        last: -2,
        step: 1,
    },
    since: "5.0.0",
    complexity: "O(log N), N being the number of members of the sorted set",
    ..ZSET_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bzpopmin",
        summary: "Removes and returns the member with the lowest score of the first sorted set that has some, or waits for one.",
        handler: Handler::Worker(bzpopmin),
        ..POP_ROW
    },
    Row {
        name: "bzpopmax",
        summary: "Removes and returns the member with the highest score of the first sorted set that has some, or waits for one.",
        handler: Handler::Worker(bzpopmax),
        ..POP_ROW
    },
    Row {
        name: "bzmpop",
        arity: -5,
        flags: Flags::WRITE.and(Flags::BLOCKING),
        keys: Keys::Counted { count: 2, step: 1 },
        since: "7.0.0",
        complexity: "O(K + M log N), K being the number of keys given, N that of members of the sorted set, M that of those returned",
        summary: "Removes and returns members from an end of the first sorted set that has some, or waits for them.",
        handler: Handler::Worker(bzmpop),
        ..ZSET_ROW
    },
];

/// Members that a client waits for.
#[derive(Clone, Copy)]
struct Pop {
    end: End,
    /// So many at most, in an array; else one.
    count: Option<u64>,
}

impl Pop {
    fn pop(self, cx: &mut Ctx<'_>, key: &[u8], len: u64) -> Done {
        if let Some(count) = self.count {
            return pop_and_name(cx, key, len, self.end, count);
        }
        if !cx.progress.has_begun {
            cx.reply.array(3);
            cx.reply.bulk_within(&mut cx.client.allowance, key)?;
        }
        pop(cx, key, self.end, 1, Shape::Flat)
    }
}

impl Request for Pop {
    fn kind(&self) -> u8 {
        KIND_ZSET
    }

    fn serve(&self, cx: &mut Ctx<'_>, key: &[u8]) -> Result<Served, Stop> {
        let zset = Zset::find(&cx.op, cx.namespace, key)?;
        let len = zset.map_or(0, |zset| zset.len());
        self.pop(cx, key, len)?;
        Ok(Served::Yes)
    }
}

fn bzpopmin(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    pop_one(cx, args, End::Min)
}

fn bzpopmax(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    pop_one(cx, args, End::Max)
}

fn pop_one(cx: &mut Ctx<'_>, args: Args<'_>, end: End) -> Done {
    let last = args.len() - 1;
    let deadline = timeout_argument(&args[last])?;
    let keys = args.range(1..last);
    pop_or_wait(cx, Pop { end, count: None }, keys, deadline)
}

fn bzmpop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (keys, end, count) = parse_pop_of_several(args, 2)?;
    let deadline = timeout_argument(&args[1])?;
    let count = Some(count);
    pop_or_wait(cx, Pop { end, count }, args.range(keys), deadline)
}

fn pop_or_wait(cx: &mut Ctx<'_>, wanted: Pop, keys: Args<'_>, deadline: Option<Instant>) -> Done {
    if let Some((key, len)) = first_with_members(cx, keys, 0..keys.len())? {
        return wanted.pop(cx, key, len);
    }
    if may_block(cx) {
        return block(cx, Box::new(wanted), keys.from(0), deadline);
    }
    cx.reply.null_array();
    Ok(())
}
