//! Looking at members of sorted sets and counting them: ZCARD, ZSCORE, ZMSCORE, ZRANK, ZREVRANK, ZCOUNT, ZLEXCOUNT, ZSCAN,
//! ZRANDMEMBER.

use hybridlog::Direction;

use super::collection::Encoding;
use super::collection_random::{Picks, pick};
use super::collection_scan::{ScanOptions, Values, cursor_of, scan};
use super::parse::{SYNTAX_ERROR, symmetric_integer};
use super::string::{READ, READ_FAST};
use super::zset::{MEMBERS_TOGETHER, SCORES, Shape, ZSET_ROW, Zset, scored, split_score};
use super::zset_interval::{By, Interval};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop, tip};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "zcard",
        arity: 2,
        flags: READ_FAST,
        complexity: "O(1)",
        summary: "Counts the members of a sorted set.",
        handler: Handler::Worker(zcard),
        ..ZSET_ROW
    },
    Row {
        name: "zscore",
        arity: 3,
        flags: READ_FAST,
        summary: "Returns the score of a member of a sorted set.",
        handler: Handler::Worker(zscore),
        ..ZSET_ROW
    },
    Row {
        name: "zmscore",
        arity: -3,
        flags: READ_FAST,
        since: "6.2.0",
        complexity: "O(M*log(N)), M being the number of members asked for and N that of all",
        summary: "Returns the scores of several members of a sorted set.",
        handler: Handler::Worker(zmscore),
        ..ZSET_ROW
    },
    Row {
        name: "zrank",
        arity: -3,
        flags: READ_FAST,
        since: "2.0.0",
        summary: "Tells how many members of a sorted set are in front of a member, from the lowest score on.",
        handler: Handler::Worker(zrank),
        ..ZSET_ROW
    },
    Row {
        name: "zrevrank",
        arity: -3,
        flags: READ_FAST,
        since: "2.0.0",
        summary: "Tells how many members of a sorted set are behind a member, up to the highest score.",
        handler: Handler::Worker(zrevrank),
        ..ZSET_ROW
    },
    Row {
        name: "zcount",
        arity: 4,
        flags: READ_FAST,
        since: "2.0.0",
        summary: "Counts the members of a sorted set whose scores are in an interval.",
        handler: Handler::Worker(zcount),
        ..ZSET_ROW
    },
    Row {
        name: "zlexcount",
        arity: 4,
        flags: READ_FAST,
        since: "2.8.9",
        summary: "Counts the members of a sorted set that are in an interval of strings, all scores being the same.",
        handler: Handler::Worker(zlexcount),
        ..ZSET_ROW
    },
    Row {
        name: "zscan",
        tips: tip::NONDETERMINISTIC,
        arity: -3,
        flags: READ,
        since: "2.8.0",
        complexity: "O(1) a call, O(N) for a full iteration over N members",
        summary: "Iterates over the members of a sorted set and their scores, some at a time.",
        handler: Handler::Worker(zscan),
        ..ZSET_ROW
    },
    Row {
        name: "zrandmember",
        tips: tip::NONDETERMINISTIC,
        arity: -2,
        flags: READ,
        since: "6.2.0",
        complexity: "O(N), N being the number of members returned",
        summary: "Returns members of a sorted set that are picked at random.",
        handler: Handler::Worker(zrandmember),
        ..ZSET_ROW
    },
];

fn zcard(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let zset = Zset::find(&cx.op, cx.namespace, &args[1])?;
    let count = zset.map_or(0, |zset| zset.len());
    cx.reply.integer(count as i64);
    Ok(())
}

fn zscore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let zset = Zset::find(&cx.op, cx.namespace, &args[1])?;
    let score = zset.map(|zset| zset.score(&args[2])).transpose()?;
    match score.flatten() {
        Some(score) => cx.reply.double(score),
        None => cx.reply.null(),
    }
    Ok(())
}

fn zmscore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let zset = Zset::find(&cx.op, cx.namespace, &args[1])?;
    if !cx.progress.has_begun {
        cx.reply.array(args.len() - 2);
    }
    let mut ready = cx.progress.done;
    for member in args.from(2).skip(cx.progress.done) {
        if let Some(zset) = &zset
            && cx.progress.done == ready
        {
            zset.want(args.from(2 + ready).take(MEMBERS_TOGETHER))?;
            ready += MEMBERS_TOGETHER;
        }
        let score = zset
            .as_ref()
            .map(|zset| zset.score(member))
            .transpose()?
            .flatten();
        match score {
            Some(score) => cx.reply.double(score),
            None => cx.reply.null(),
        }
        cx.progress.done += 1;
    }
    Ok(())
}

fn zrank(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    rank(cx, args, Direction::Forward)
}

fn zrevrank(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    rank(cx, args, Direction::Backward)
}

/// The place of a member, counted in this direction.
fn rank(cx: &mut Ctx<'_>, args: Args<'_>, direction: Direction) -> Done {
    let with_score = match args.len() {
        3 => false,
        4 if args.is(3, "withscore") => true,
        4 => return Err(SYNTAX_ERROR.into()),
        _ => {
            let name = String::from_utf8_lossy(&args[0]).to_ascii_lowercase();
            return Err(format!("ERR wrong number of arguments for '{name}' command").into());
        }
    };
    let zset = Zset::find(&cx.op, cx.namespace, &args[1])?;
    let found = match &zset {
        Some(zset) => zset.score(&args[2])?.map(|score| (zset, score)),
        None => None,
    };
    let Some((zset, score)) = found else {
        match with_score {
            true => cx.reply.null_array(),
            false => cx.reply.null(),
        }
        return Ok(());
    };
    let rank = zset.rank(score, &args[2])?;
    let rank = match direction {
        Direction::Forward => rank,
        Direction::Backward => zset.len().saturating_sub(rank + 1),
    };
    if with_score {
        cx.reply.array(2);
    }
    cx.reply.integer(rank as i64);
    if with_score {
        cx.reply.double(score);
    }
    Ok(())
}

fn zcount(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    count(cx, args, By::Score)
}

fn zlexcount(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    count(cx, args, By::Lex)
}

fn count(cx: &mut Ctx<'_>, args: Args<'_>, by: By) -> Done {
    let interval = Interval::parse(by, &args[2], &args[3])?;
    let count = match Zset::find(&cx.op, cx.namespace, &args[1])? {
        Some(zset) => {
            let positions = interval.positions(&zset, Direction::Forward, 0)?;
            positions.end.saturating_sub(positions.start)
        }
        None => 0,
    };
    cx.reply.integer(count as i64);
    Ok(())
}

fn zscan(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let cursor = cursor_of(&args[2])?;
    let Some(zset) = Zset::find(&cx.op, cx.namespace, &args[1])? else {
        cx.reply.array(2);
        cx.reply.bulk(b"0");
        cx.reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(args, 3, Values::AreNone)?;
    let mark = cx.reply.mark();
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    let mut count = 0;
    // RESP3 knows scores, but here they are strings, too.
    let mut add = |member: &[u8], score: f64| {
        let mut text = Vec::with_capacity(32);
        resp::append_double(&mut text, score);
        reply.bulk_within(memory, member)?;
        reply.bulk_within(memory, &text)?;
        count += 2;
        Ok::<(), Stop>(())
    };
    let mut next = 0;
    if zset.has_index() && !Encoding::of(&zset.collection).is_packed() {
        let (elements, cursor) = scan(&zset.collection, cursor, &options)?;
        for element in &elements {
            add(&element.key, split_score(&element.value)?.0)?;
        }
        next = cursor;
    } else {
        zset.walk(
            0..zset.len(),
            Direction::Forward,
            |member, score| match options.matches(member) {
                true => add(member, score),
                false => Ok(()),
            },
        )?;
    }
    reply.insert(mark, |encoder| {
        encoder.array(2);
        encoder.bulk(next.to_string().as_bytes());
        encoder.array(count);
    });
    Ok(())
}

fn zrandmember(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let count = args.get(2).map(symmetric_integer).transpose()?;
    let with_scores = match args.len() {
        ..=3 => false,
        4 if args.is(3, "withscores") => true,
        _ => return Err(SYNTAX_ERROR.into()),
    };
    if with_scores && count.is_some_and(|count| count.unsigned_abs() > i64::MAX as u64 / 2) {
        return Err("ERR value is out of range".into());
    }
    let seed = cx.seed();
    let Some(zset) = Zset::find(&cx.op, cx.namespace, &args[1])? else {
        match count {
            Some(_) => cx.reply.array(0),
            None => cx.reply.null(),
        }
        return Ok(());
    };
    let picks = Picks::new(zset.len(), count.unwrap_or(1), seed);
    let shape = Shape::new(cx.reply.protocol(), with_scores);
    if count.is_some() {
        cx.reply.array(shape.elements(picks.len()));
    }
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    pick(
        &zset.collection,
        SCORES,
        picks,
        |number| number,
        |element| {
            let (score, member) = scored(&element)?;
            shape.reply(memory, reply, member, score)
        },
    )
}
