//! Lists: what only reads them: LINDEX, LRANGE, LPOS.

use std::ops::{ControlFlow, Range};

use hybridlog::Direction;

use super::KIND_LIST;
use super::collection::{ELEMENTS, find, walk_range};
use super::list::{LIST_ROW, Look, Side, search};
use super::parse::{SYNTAX_ERROR, integer, symmetric_integer};
use super::string::READ;
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "lindex",
        arity: 3,
        flags: READ,
        complexity: "O(log N), N being the length of the list",
        summary: "Returns the element at a position of a list.",
        handler: Handler::Worker(lindex),
        ..LIST_ROW
    },
    Row {
        name: "lrange",
        arity: 4,
        flags: READ,
        complexity: "O(log N + M), N being the length of the list and M the number of elements returned",
        summary: "Returns the elements of a list between two positions.",
        handler: Handler::Worker(lrange),
        ..LIST_ROW
    },
    Row {
        name: "lpos",
        arity: -3,
        flags: READ,
        since: "6.0.6",
        complexity: "O(N), N being the length of the list",
        summary: "Returns the positions of elements of a list that are equal to the given one.",
        handler: Handler::Worker(lpos),
        ..LIST_ROW
    },
];

/// The position that an index means among `len`, if there is one.
pub(super) fn position_of(index: i64, len: u64) -> Option<u64> {
    match u64::try_from(index) {
        Ok(index) => (index < len).then_some(index),
        Err(_) => len.checked_sub(index.unsigned_abs()),
    }
}

/// The positions from index `start` to index `end`, both included, among `len`, if there are any.
pub(super) fn range_of(start: i64, end: i64, len: u64) -> Option<Range<u64>> {
    let first = position_of(start, len).or((start < 0).then_some(0))?;
    let last = position_of(end, len).or((end >= 0 && len > 0).then(|| len - 1))?;
    (first <= last).then_some(first..last + 1)
}

fn lindex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let Some(list) = find(&cx.op, cx.namespace, &args[1], KIND_LIST)? else {
        cx.reply.null();
        return Ok(());
    };
    let element = match position_of(integer(&args[2])?, list.len(ELEMENTS)) {
        Some(position) => list.at(ELEMENTS, position)?,
        None => None,
    };
    match element {
        Some(element) => cx
            .reply
            .bulk_within(&mut cx.client.allowance, &element.value)?,
        None => cx.reply.null(),
    }
    Ok(())
}

fn lrange(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    let Some(list) = find(&cx.op, cx.namespace, &args[1], KIND_LIST)? else {
        cx.reply.array(0);
        return Ok(());
    };
    let Some(positions) = range_of(start, end, list.len(ELEMENTS)) else {
        cx.reply.array(0);
        return Ok(());
    };
    cx.reply.array((positions.end - positions.start) as usize);
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    walk_range(&list, ELEMENTS, positions, Direction::Forward, |element| {
        reply.bulk_within(memory, &element.value)?;
        Ok(ControlFlow::Continue(()))
    })
}

/// What LPOS is asked for.
struct Wanted {
    from: Side,
    /// The first match that counts, from 1.
    rank: u64,
    /// How many of them; 0 for all.
    count: Option<u64>,
    /// How many elements are looked at.
    at_most: u64,
}

impl Wanted {
    fn parse(args: Args<'_>) -> Result<Wanted, Stop> {
        let mut wanted = Wanted {
            from: Side::Left,
            rank: 1,
            count: None,
            at_most: u64::MAX,
        };
        for at in (3..args.len()).step_by(2) {
            let value = args.get(at + 1).ok_or(SYNTAX_ERROR)?;
            if args.is(at, "rank") {
                let rank = rank(value)?;
                wanted.rank = rank.unsigned_abs();
                wanted.from = if rank < 0 { Side::Right } else { Side::Left };
            } else if args.is(at, "count") {
                wanted.count = Some(positive(value, "ERR COUNT can't be negative")?);
            } else if args.is(at, "maxlen") {
                wanted.at_most = match positive(value, "ERR MAXLEN can't be negative")? {
                    0 => u64::MAX,
                    most => most,
                };
            } else {
                return Err(SYNTAX_ERROR.into());
            }
        }
        Ok(wanted)
    }
}

fn rank(value: &[u8]) -> Result<i64, Stop> {
    match symmetric_integer(value)? {
        0 => Err(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
             negative to start from the end of the list"
                .into(),
        ),
        rank => Ok(rank),
    }
}

fn positive(value: &[u8], error: &'static str) -> Result<u64, Stop> {
    let number = resp::parse_integer(value).and_then(|number| u64::try_from(number).ok());
    number.ok_or(error.into())
}

fn lpos(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let wanted = Wanted::parse(args)?;
    let list = find(&cx.op, cx.namespace, &args[1], KIND_LIST)?;
    let (mut matches, mut positions) = (0, Vec::new());
    if let Some(list) = list {
        let most = match wanted.count {
            None => 1,
            Some(0) => u64::MAX,
            Some(count) => count,
        };
        let memory = &mut cx.client.allowance;
        let passed = &mut cx.progress.looked;
        search(
            &list,
            wanted.from,
            passed,
            wanted.at_most,
            |position, element| {
                if *element.value != args[2] {
                    return Ok(Look::On);
                }
                matches += 1;
                if matches >= wanted.rank {
                    if positions.len() == positions.capacity() {
                        memory.ask(16 * positions.len() as u64)?;
                    }
                    positions.push(position);
                }
                if positions.len() as u64 == most {
                    return Ok(Look::End);
                }
                Ok(Look::OnWithThis)
            },
        )?;
    }
    if wanted.count.is_some() {
        cx.reply.array(positions.len());
    } else if positions.is_empty() {
        cx.reply.null();
    }
    for position in positions {
        cx.reply.ask_for_room(&mut cx.client.allowance, 0)?;
        cx.reply.integer(position as i64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{position_of, range_of};

    #[test]
    fn indexes_count_from_both_ends() {
        for (index, len, expected) in [
            (0, 3, Some(0)),
            (2, 3, Some(2)),
            (3, 3, None),
            (-1, 3, Some(2)),
            (-3, 3, Some(0)),
            (-4, 3, None),
            (i64::MAX, 3, None),
            (i64::MIN, 3, None),
        ] {
            assert_eq!(position_of(index, len), expected, "{index} of {len}");
        }
    }
    #[test]
    fn ranges_leave_out_what_is_outside() {
        for (start, end, len, expected) in [
            (0, -1, 5, Some(0..5)),
            (-100, 100, 5, Some(0..5)),
            (-3, -2, 5, Some(2..4)),
            (3, 1, 5, None),
            (0, -6, 5, None),
            (-9, -5, 5, Some(0..1)),
            (5, 9, 5, None),
            (0, 0, 0, None),
            (-1, -1, 0, None),
            (i64::MIN, i64::MAX, 2, Some(0..2)),
        ] {
            assert_eq!(range_of(start, end, len), expected, "{start} {end} {len}");
        }
    }
}
