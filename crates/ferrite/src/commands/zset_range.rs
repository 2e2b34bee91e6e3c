//! Members of a sorted set in order: ZRANGE and its kin, and ZRANGESTORE.

use std::ops::Range;

use hybridlog::Direction;

use super::parse::{SYNTAX_ERROR, integer};
use super::string::{GROW, READ};
use super::zset::{Shape, ZSET_ROW, Zset};
use super::zset_interval::{By, Interval};
use super::zset_result::{ScoredMembers, store};
use crate::args::Args;
use crate::command::{Done, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

const RANGE_ROW: Row = Row {
    arity: -4,
    flags: READ,
    complexity: "O(log(N)+M), N being the number of members and M that of those returned",
    ..ZSET_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "zrange",
        summary: "Returns the members of a sorted set that are in an interval of places, scores or strings.",
        handler: Handler::Worker(zrange),
        ..RANGE_ROW
    },
    Row {
        name: "zrevrange",
        summary: "Returns members of a sorted set by their places, counted from the highest score on.",
        handler: Handler::Worker(zrevrange),
        ..RANGE_ROW
    },
    Row {
        name: "zrangebyscore",
        since: "1.0.5",
        summary: "Returns the members of a sorted set whose scores are in an interval.",
        handler: Handler::Worker(zrangebyscore),
        ..RANGE_ROW
    },
    Row {
        name: "zrevrangebyscore",
        since: "2.2.0",
        summary: "Returns the members of a sorted set whose scores are in an interval, the highest first.",
        handler: Handler::Worker(zrevrangebyscore),
        ..RANGE_ROW
    },
    Row {
        name: "zrangebylex",
        since: "2.8.9",
        summary: "Returns the members of a sorted set that are in an interval of strings, all scores being the same.",
        handler: Handler::Worker(zrangebylex),
        ..RANGE_ROW
    },
    Row {
        name: "zrevrangebylex",
        since: "2.8.9",
        summary: "Returns the members of a sorted set that are in an interval of strings, all scores being the same, the last first.",
        handler: Handler::Worker(zrevrangebylex),
        ..RANGE_ROW
    },
    Row {
        name: "zrangestore",
        arity: -5,
        flags: GROW,
        keys: Keys::Range {
            first: 1,
            last: 2,
            step: 1,
        },
        since: "6.2.0",
        complexity: "O(log(N)+M), N being the number of members and M that of those stored",
        summary: "Stores the members of a sorted set that are in an interval of places, scores or strings as a sorted set.",
        handler: Handler::Worker(zrangestore),
        ..ZSET_ROW
    },
];

/// What the name of a command says already.
#[derive(Clone, Copy, Default)]
struct Fixed {
    by: Option<By>,
    direction: Option<Direction>,
}

/// What a command asks for.
struct Query<'a> {
    interval: Interval<'a>,
    direction: Direction,
    with_scores: bool,
    /// So many of the members in the interval are passed over; all if it is negative.
    offset: i64,
    /// At most so many are returned; all if it is negative.
    limit: i64,
}

impl<'a> Query<'a> {
    /// Reads what is behind the key: two ends, and options.
    fn parse(args: Args<'a>, key_at: usize, fixed: Fixed) -> Result<Query<'a>, Stop> {
        let is_stored = key_at == 2;
        let Fixed {
            mut by,
            mut direction,
        } = fixed;
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        let mut at = key_at + 3;
        while at < args.len() {
            if !is_stored && args.is(at, "withscores") {
                with_scores = true;
            } else if args.is(at, "limit") && args.len() - at > 2 {
                (offset, limit) = (integer(&args[at + 1])?, integer(&args[at + 2])?);
                at += 2;
            } else if direction.is_none() && args.is(at, "rev") {
                direction = Some(Direction::Backward);
            } else if by.is_none() && args.is(at, "bylex") {
                by = Some(By::Lex);
            } else if by.is_none() && args.is(at, "byscore") {
                by = Some(By::Score);
            } else {
                return Err(SYNTAX_ERROR.into());
            }
            at += 1;
        }
        let by = by.unwrap_or(By::Rank);
        let direction = direction.unwrap_or(Direction::Forward);
        if limit != -1 && by == By::Rank {
            return Err("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX".into());
        }
        if with_scores && by == By::Lex {
            return Err(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX".into(),
            );
        }
        let (from, to) = match (by, direction) {
            (By::Score | By::Lex, Direction::Backward) => (key_at + 2, key_at + 1),
            _ => (key_at + 1, key_at + 2),
        };
        let end = |at: usize| args.get(at).unwrap_or_default();
        Ok(Query {
            interval: Interval::parse(by, end(from), end(to))?,
            direction,
            with_scores,
            offset,
            limit,
        })
    }

    /// The places of the members that are asked for.
    fn positions(&self, zset: &Zset<'_>) -> Result<Range<u64>, Stop> {
        let Range { start, end } = self.interval.positions(zset, self.direction, 0)?;
        if matches!(self.interval, Interval::Rank(..)) {
            return Ok(start..end);
        }
        let len = end.saturating_sub(start);
        let passed = u64::try_from(self.offset).map_or(len, |offset| offset.min(len));
        let left = len - passed;
        let count = u64::try_from(self.limit).map_or(left, |limit| limit.min(left));
        Ok(match self.direction {
            Direction::Forward => start + passed..start + passed + count,
            Direction::Backward => end - passed - count..end - passed,
        })
    }
}

fn zrange(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply(cx, args, Fixed::default())
}

fn zrevrange(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_by(cx, args, By::Rank, Direction::Backward)
}

fn zrangebyscore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_by(cx, args, By::Score, Direction::Forward)
}

fn zrevrangebyscore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_by(cx, args, By::Score, Direction::Backward)
}

fn zrangebylex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_by(cx, args, By::Lex, Direction::Forward)
}

fn zrevrangebylex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_by(cx, args, By::Lex, Direction::Backward)
}

fn reply_by(cx: &mut Ctx<'_>, args: Args<'_>, by: By, direction: Direction) -> Done {
    let fixed = Fixed {
        by: Some(by),
        direction: Some(direction),
    };
    reply(cx, args, fixed)
}

fn reply(cx: &mut Ctx<'_>, args: Args<'_>, fixed: Fixed) -> Done {
    let query = Query::parse(args, 1, fixed)?;
    let Some(zset) = Zset::find(&cx.op, cx.namespace, &args[1])? else {
        cx.reply.array(0);
        return Ok(());
    };
    let positions = query.positions(&zset)?;
    let shape = Shape::new(cx.reply.protocol(), query.with_scores);
    let count = positions.end - positions.start;
    cx.reply.array(shape.elements(count));
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    zset.walk(positions, query.direction, |member, score| {
        shape.reply(memory, reply, member, score)
    })
}

fn zrangestore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let result = match cx.progress.scored.take() {
        Some(result) => result,
        None => result_of(cx, args)?,
    };
    let count = result.len();
    store(cx, &args[1], result)?;
    cx.reply.integer(count as i64);
    Ok(())
}

fn result_of(cx: &mut Ctx<'_>, args: Args<'_>) -> Result<ScoredMembers, Stop> {
    let query = Query::parse(args, 2, Fixed::default())?;
    let mut result = ScoredMembers::default();
    if let Some(zset) = Zset::find(&cx.op, cx.namespace, &args[2])? {
        let positions = query.positions(&zset)?;
        let memory = &mut cx.client.allowance;
        zset.walk(positions, Direction::Forward, |member, score| {
            result.push(member, score, memory)
        })?;
    }
    Ok(result)
}
