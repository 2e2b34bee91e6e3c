//! Lists: changes anywhere in them: LSET, LINSERT, LREM, LTRIM.

use std::ops::Range;

use hybridlog::Collection;

use super::KIND_LIST;
use super::collection::{ELEMENTS, Encoding, check_room, find, remove_if_empty};
use super::generic_keys::NO_SUCH_KEY;
use super::list::{LIST, LIST_ROW, Look, REMOVED_TOGETHER, Side, begin_push, search};
use super::list_encoding::{note_growth, note_replacement, note_shrinking};
use super::list_read::{position_of, range_of};
use super::parse::{SYNTAX_ERROR, integer};
use super::string::GROW;
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, Stop};
use crate::ctx::Ctx;

/// Runs of equal elements that LREM removes before it looks for more.
const RUNS_TOGETHER: usize = 1024;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "lset",
        arity: 4,
        flags: GROW,
        complexity: "O(log N), N being the length of the list",
        summary: "Replaces the element at a position of a list.",
        handler: Handler::Worker(lset),
        ..LIST_ROW
    },
    Row {
        name: "linsert",
        arity: 5,
        flags: GROW,
        since: "2.2.0",
        complexity: "O(N), N being the number of elements in front of the one that is looked for",
        summary: "Inserts an element before or after another.",
        handler: Handler::Worker(linsert),
        ..LIST_ROW
    },
    Row {
        name: "lrem",
        arity: 4,
        flags: Flags::WRITE,
        complexity: "O(N), N being the length of the list",
        summary: "Removes elements of a list that are equal to the given one.",
        handler: Handler::Worker(lrem),
        ..LIST_ROW
    },
    Row {
        name: "ltrim",
        arity: 4,
        flags: Flags::WRITE,
        complexity: "O(N), N being the number of elements removed",
        summary: "Removes all elements of a list but those between two positions.",
        handler: Handler::Worker(ltrim),
        ..LIST_ROW
    },
];

fn lset(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (key, value) = (&args[1], &args[3]);
    let Some(list) = find(&cx.op, cx.namespace, key, KIND_LIST)? else {
        return Err(NO_SUCH_KEY.into());
    };
    let index = integer(&args[2])?;
    let Some(position) = position_of(index, list.len(ELEMENTS)) else {
        return Err("ERR index out of range".into());
    };
    cx.op.check_element(key, value.len() as u64)?;
    check_room(cx, 1, value.len())?;
    if cx.progress.done == 0 {
        note_growth(cx, key, 1, value.len() as u64)?;
        cx.op
            .replace_at(cx.namespace, key, ELEMENTS, position, value)?;
        cx.progress.done = 1;
    }
    note_replacement(cx, key)?;
    cx.reply.ok();
    Ok(())
}

fn linsert(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (key, pivot, value) = (&args[1], &args[3], &args[4]);
    let behind = if args.is(2, "after") {
        1
    } else if args.is(2, "before") {
        0
    } else {
        return Err(SYNTAX_ERROR.into());
    };
    let Some(list) = find(&cx.op, cx.namespace, key, KIND_LIST)? else {
        cx.reply.integer(0);
        return Ok(());
    };
    let mut found = None;
    let passed = &mut cx.progress.looked;
    search(&list, Side::Left, passed, u64::MAX, |position, element| {
        if *element.value != *pivot {
            return Ok(Look::On);
        }
        found = Some(position);
        Ok(Look::End)
    })?;
    let Some(position) = found else {
        cx.reply.integer(-1);
        return Ok(());
    };
    begin_push(cx, key, std::iter::once(value))?;
    let position = position + behind;
    let len = cx
        .op
        .insert_at(cx.namespace, key, &LIST, ELEMENTS, position, value)?;
    cx.reply.integer(len as i64);
    Ok(())
}

fn lrem(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (key, value) = (&args[1], &args[3]);
    let count = integer(&args[2])?;
    let from = if count < 0 { Side::Right } else { Side::Left };
    let most = match count.unsigned_abs() {
        0 => u64::MAX,
        count => count,
    };
    while let Some(list) = find(&cx.op, cx.namespace, key, KIND_LIST)? {
        let left = most - cx.progress.count as u64;
        let (runs, looked) = runs_of(&list, from, &mut cx.progress.looked, value, left)?;
        let is_all = looked == list.len(ELEMENTS);
        remove_runs(cx, key, from, &runs)?;
        let removed: u64 = runs.iter().map(|run| run.end - run.start).sum();
        cx.progress.looked = looked - removed;
        if is_all || removed == left {
            break;
        }
    }
    let removed = cx.progress.count;
    if removed > 0 {
        remove_if_empty(cx, key, KIND_LIST)?;
        note_shrinking(cx, key)?;
    }
    cx.reply.integer(removed);
    Ok(())
}

/// The next elements that are equal to `value`, as runs of neighbours, in the order of the search; they are `most` at most, in
/// few runs. And how many elements have been passed then, these among them.
fn runs_of(
    list: &Collection<'_>,
    from: Side,
    passed: &mut u64,
    value: &[u8],
    most: u64,
) -> Result<(Vec<Range<u64>>, u64), Stop> {
    let (mut runs, mut found) = (Vec::<Range<u64>>::new(), 0);
    let mut looked = *passed;
    search(list, from, passed, u64::MAX, |position, element| {
        let is_equal = *element.value == *value;
        let is_neighbour = is_equal
            && match (runs.last_mut(), from) {
                (Some(run), Side::Left) if run.end == position => {
                    run.end += 1;
                    true
                }
                (Some(run), Side::Right) if run.start == position + 1 => {
                    run.start -= 1;
                    true
                }
                _ => false,
            };
        if is_equal && !is_neighbour {
            if runs.len() == RUNS_TOGETHER {
                return Ok(Look::End);
            }
            runs.push(position..position + 1);
        }
        looked += 1;
        found += u64::from(is_equal);
        Ok(match is_equal {
            true if found == most => Look::End,
            true => Look::OnWithThis,
            false => Look::On,
        })
    })?;
    Ok((runs, looked))
}

/// Removes runs of elements that LREM has found. When it stops half-way those that are left are found again: they are the
/// next ones still.
fn remove_runs(cx: &mut Ctx<'_>, key: &[u8], from: Side, runs: &[Range<u64>]) -> Result<(), Stop> {
    // From the right, so that the positions of the others stay as they are.
    let mut rightmost_first = runs.to_vec();
    if from == Side::Left {
        rightmost_first.reverse();
    }
    for run in rightmost_first {
        let mut end = run.end;
        while end > run.start {
            let count = REMOVED_TOGETHER.min(end - run.start);
            end -= count;
            cx.op
                .remove_range(cx.namespace, key, ELEMENTS, end, count)?;
            cx.progress.count += count as i64;
        }
    }
    Ok(())
}

fn ltrim(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    while let Some(list) = find(&cx.op, cx.namespace, key, KIND_LIST)? {
        // What an earlier run has removed counts.
        let (len, done) = (list.len(ELEMENTS), cx.progress.done as u64);
        let Some(stay) = range_of(start, end, len + done) else {
            cx.op.remove(cx.namespace, key)?;
            break;
        };
        // First what is behind them.
        let behind = len + done - stay.end;
        let (position, count) = match behind.checked_sub(done) {
            Some(left @ 1..) => {
                let count = left.min(REMOVED_TOGETHER);
                (len - count, count)
            }
            _ => (0, (behind + stay.start - done).min(REMOVED_TOGETHER)),
        };
        if count == 0 {
            if done == 0 {
                // Those who watch the list are told of this too.
                Encoding::of(&list).store(cx, key, &LIST)?;
            }
            break;
        }
        cx.op
            .remove_range(cx.namespace, key, ELEMENTS, position, count)?;
        cx.progress.done += count as usize;
    }
    note_shrinking(cx, key)?;
    cx.reply.ok();
    Ok(())
}
