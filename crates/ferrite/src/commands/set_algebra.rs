//! Several sets together: SINTER, SUNION, SDIFF, what stores their results, and SINTERCARD.
//!
//! Nothing is gathered to find out whether a member has been met before: the sets are asked. So the members of a union
//! are those of each set that none of the sets before it has, and what a command takes is its reply.

use std::ops::ControlFlow;

use hybridlog::{Collection, Namespace};

use super::KIND_SET;
use super::collection::{ELEMENTS, Encoding, PackedLimits, Reach, check_room, find, walk_until};
use super::parse::{SYNTAX_ERROR, strict_integer};
use super::set::{Growth, SET, SET_ROW};
use super::string::{GROW, READ};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop, tip};
use crate::ctx::Ctx;
use crate::memory::Allowance;

const ALL_KEYS: Keys = Keys::Range {
    first: 1,
    last: -1,
    step: 1,
};

const READ_ROW: Row = Row {
    arity: -2,
    flags: READ,
    keys: ALL_KEYS,
    ..SET_ROW
};

const STORE_ROW: Row = Row {
    arity: -3,
    // As in Redis, it counts whether the sets that it reads are there.
    flags: GROW.and(Flags::COUNTS_HITS),
    keys: ALL_KEYS,
    ..SET_ROW
};

const INTERSECTION_COST: &str =
    "O(N*M), N being the members of the smallest set and M the number of sets";
const UNION_COST: &str = "O(N*M), N being the members of all sets and M the number of sets";

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "sinter",
        tips: tip::UNORDERED,
        complexity: INTERSECTION_COST,
        summary: "Returns the members that all of several sets have.",
        handler: Handler::Worker(sinter),
        ..READ_ROW
    },
    Row {
        name: "sintercard",
        arity: -3,
        flags: READ.and(Flags::MOVABLEKEYS),
        keys: Keys::Counted { count: 1, step: 1 },
        since: "7.0.0",
        complexity: INTERSECTION_COST,
        summary: "Counts the members that all of several sets have.",
        handler: Handler::Worker(sintercard),
        ..SET_ROW
    },
    Row {
        name: "sinterstore",
        complexity: INTERSECTION_COST,
        summary: "Stores the members that all of several sets have as a set.",
        handler: Handler::Worker(sinterstore),
        ..STORE_ROW
    },
    Row {
        name: "sunion",
        tips: tip::UNORDERED,
        complexity: UNION_COST,
        summary: "Returns the members that any of several sets has.",
        handler: Handler::Worker(sunion),
        ..READ_ROW
    },
    Row {
        name: "sunionstore",
        complexity: UNION_COST,
        summary: "Stores the members that any of several sets has as a set.",
        handler: Handler::Worker(sunionstore),
        ..STORE_ROW
    },
    Row {
        name: "sdiff",
        tips: tip::UNORDERED,
        complexity: UNION_COST,
        summary: "Returns the members of a set that none of several others has.",
        handler: Handler::Worker(sdiff),
        ..READ_ROW
    },
    Row {
        name: "sdiffstore",
        complexity: UNION_COST,
        summary: "Stores the members of a set that none of several others has as a set.",
        handler: Handler::Worker(sdiffstore),
        ..STORE_ROW
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersection,
    Union,
    Difference,
}

/// A set that is to be stored.
pub(crate) struct StoredSet {
    pub(super) members: Members,
    pub(super) encoding: Encoding,
    pub(super) expires_at_ms: Option<u64>,
}

/// Its members.
#[derive(Default)]
pub(super) struct Members {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Members {
    pub(super) fn push(&mut self, member: &[u8], memory: &mut Allowance) -> Result<(), Stop> {
        let bytes = self.bytes.len() + member.len();
        if bytes > self.bytes.capacity() {
            memory.ask(bytes.max(2 * self.bytes.capacity()) as u64)?;
        }
        if self.ends.len() == self.ends.capacity() {
            memory.ask((2 * self.ends.len() * size_of::<usize>()) as u64)?;
        }
        self.bytes.extend_from_slice(member);
        self.ends.push(bytes);
        Ok(())
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.ends.len()).map(|i| self.get(i))
    }

    /// Member `i`, which there is.
    pub(super) fn get(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }
}

fn sinter(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply(cx, args, Operation::Intersection)
}

fn sunion(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply(cx, args, Operation::Union)
}

fn sdiff(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply(cx, args, Operation::Difference)
}

fn reply(cx: &mut Ctx<'_>, args: Args<'_>, operation: Operation) -> Done {
    let sets = find_all(&cx.op, cx.namespace, args.from(1))?;
    let mark = cx.reply.mark();
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    let mut count = 0;
    combine(&sets, operation, Reach::Everything, &mut |member| {
        count += 1;
        reply.bulk_within(memory, member).map(ControlFlow::Continue)
    })?;
    reply.insert(mark, |encoder| encoder.set(count));
    Ok(())
}

fn sinterstore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    combine_and_store(cx, args, Operation::Intersection)
}

fn sunionstore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    combine_and_store(cx, args, Operation::Union)
}

fn sdiffstore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    combine_and_store(cx, args, Operation::Difference)
}

fn combine_and_store(cx: &mut Ctx<'_>, args: Args<'_>, operation: Operation) -> Done {
    let result = match cx.progress.result.take() {
        Some(result) => result,
        None => result_of(cx, args, operation)?,
    };
    let count = result.members.iter().len();
    store(cx, &args[1], result)?;
    cx.reply.integer(count as i64);
    Ok(())
}

fn result_of(cx: &mut Ctx<'_>, args: Args<'_>, operation: Operation) -> Result<StoredSet, Stop> {
    let mut members = Members::default();
    let mut growth = Growth::of_empty(PackedLimits::now(cx), Encoding::Intset);
    let sets = find_all(&cx.op, cx.namespace, args.from(2))?;
    let memory = &mut cx.client.allowance;
    combine(&sets, operation, Reach::Everything, &mut |member| {
        growth.add(member);
        members.push(member, memory).map(ControlFlow::Continue)
    })?;
    Ok(StoredSet {
        members,
        encoding: growth.encoding(),
        expires_at_ms: None,
    })
}

/// Stores a set, whatever the key holds; one without members is none.
pub(super) fn store(cx: &mut Ctx<'_>, key: &[u8], result: StoredSet) -> Result<(), Stop> {
    let done = store_step_by_step(cx, key, &result);
    if done.is_err() {
        // What it was made of may be gone by now.
        cx.progress.result = Some(result);
    }
    done
}

fn store_step_by_step(cx: &mut Ctx<'_>, key: &[u8], result: &StoredSet) -> Result<(), Stop> {
    let StoredSet {
        members,
        encoding,
        expires_at_ms,
    } = result;
    check_room(cx, members.ends.len(), members.bytes.len())?;
    if cx.progress.done == 0 {
        cx.op.remove(cx.namespace, key)?;
        cx.progress.done = 1;
    }
    if members.ends.is_empty() {
        return Ok(());
    }
    if cx.progress.done == 1 && *encoding != Encoding::Listpack {
        encoding.store(cx, key, &SET)?;
    }
    for member in members.iter().skip(cx.progress.done - 1) {
        cx.op
            .put_element(cx.namespace, key, &SET, ELEMENTS, member, b"", None)?;
        cx.progress.done += 1;
    }
    if expires_at_ms.is_some() {
        cx.op.set_expiry(cx.namespace, key, *expires_at_ms)?;
    }
    Ok(())
}

fn sintercard(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let count = strict_integer(&args[1])
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| *count > 0)
        .ok_or("ERR numkeys should be greater than 0")?;
    if count > args.len() - 2 {
        return Err("ERR Number of keys can't be greater than number of args".into());
    }
    let mut limit = 0;
    let mut at = 2 + count;
    while at < args.len() {
        let Some(value) = args.get(at + 1).filter(|_| args.is(at, "limit")) else {
            return Err(SYNTAX_ERROR.into());
        };
        limit = strict_integer(value)
            .and_then(|limit| u64::try_from(limit).ok())
            .ok_or("ERR LIMIT can't be negative")?;
        at += 2;
    }
    let sets = find_all(&cx.op, cx.namespace, args.from(2).take(count))?;
    let mut found = 0;
    let reach = match limit {
        0 => Reach::Everything,
        limit => Reach::Growing(limit),
    };
    combine(&sets, Operation::Intersection, reach, &mut |_| {
        found += 1;
        Ok(if found == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    cx.reply.integer(found as i64);
    Ok(())
}

/// The sets stored under `keys`, where there are any. All of them are looked up before what is cold ends the run.
fn find_all<'r, 'a>(
    op: &'r hybridlog::Operation<'_>,
    namespace: Namespace,
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Option<Collection<'r>>>, Stop> {
    let mut sets = Vec::new();
    let mut cold = None;
    for key in keys {
        match find(op, namespace, key, KIND_SET) {
            Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) => cold = Some(stop),
            found => sets.push(found?),
        }
    }
    cold.map_or(Ok(sets), Err)
}

/// The one with the fewest members; none if there is none under one of the keys.
fn smallest<'s, 'r>(sets: &'s [Option<Collection<'r>>]) -> Option<&'s Collection<'r>> {
    let sets: Option<Vec<_>> = sets.iter().map(Option::as_ref).collect();
    sets?.into_iter().min_by_key(|set| set.len(ELEMENTS))
}

/// So many members more are looked at once something has been found to be cold, if the walk may end early.
const LOOKED_AHEAD: u32 = 256;

/// What is to be done with a member of the result.
type Each<'e> = dyn FnMut(&[u8]) -> Result<ControlFlow<()>, Stop> + 'e;

/// Hands the members of the result to `each`, until it breaks.
fn combine(
    sets: &[Option<Collection<'_>>],
    operation: Operation,
    reach: Reach,
    each: &mut Each<'_>,
) -> Result<(), Stop> {
    match operation {
        Operation::Intersection => {
            let Some(smallest) = smallest(sets) else {
                return Ok(());
            };
            let others: Vec<_> = sets.iter().flatten().collect();
            members_in(smallest, &others, true, reach, each)
        }
        Operation::Union => {
            let sets: Vec<_> = sets.iter().flatten().collect();
            (0..sets.len()).try_for_each(|i| members_in(sets[i], &sets[..i], false, reach, each))
        }
        Operation::Difference => {
            let Some((Some(first), others)) = sets.split_first() else {
                return Ok(());
            };
            let others: Vec<_> = others.iter().flatten().collect();
            members_in(first, &others, false, reach, each)
        }
    }
}

/// Hands those members of `set` to `each` that all of `others` have, or none of them. What is cold does not end the run
/// at once: other members are asked for too, so that one fetch gets them all, or many if it may end early.
fn members_in(
    set: &Collection<'_>,
    others: &[&Collection<'_>],
    all_have: bool,
    reach: Reach,
    each: &mut Each<'_>,
) -> Result<(), Stop> {
    let (mut cold, mut ahead) = (None, 0);
    walk_until(set, reach, |member| {
        if cold.is_some() && reach != Reach::Everything {
            ahead += 1;
            if ahead == LOOKED_AHEAD {
                return Ok(ControlFlow::Break(()));
            }
        }
        for other in others.iter().filter(|other| !std::ptr::eq(**other, set)) {
            match other.info(ELEMENTS, &member.key) {
                Ok(found) if found.is_some() == all_have => {}
                Ok(_) => return Ok(ControlFlow::Continue(())),
                Err(stop @ hybridlog::Stop::Cold) => cold = Some(stop),
                Err(stop) => return Err(stop.into()),
            }
        }
        if cold.is_some() {
            return Ok(ControlFlow::Continue(()));
        }
        each(&member.key)
    })?;
    cold.map_or(Ok(()), |stop| Err(stop.into()))
}
