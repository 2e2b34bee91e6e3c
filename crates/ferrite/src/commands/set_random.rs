//! Members picked at random: SRANDMEMBER, SPOP.

use super::KIND_SET;
use super::collection::{
    ELEMENTS, Encoding, PackedLimits, check_room, find, remove_if_empty, walk,
};
use super::collection_random::{Picks, Shuffle, pick, random};
use super::parse::{SYNTAX_ERROR, strict_integer, symmetric_integer};
use super::set::{Growth, SET_ROW};
use super::set_algebra::{Members, StoredSet, store};
use super::string::{READ, WRITE_FAST};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop, tip};
use crate::ctx::Ctx;
use crate::output::Output;

/// What stays of a set is stored anew if so many times as much is popped.
const MOST_OF_IT: u64 = 5;

/// Members that are popped together: so many at most, and of so many bytes unless there is only one.
const POPPED_TOGETHER: u64 = 256;
const POPPED_TOGETHER_BYTES: usize = 1 << 20;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "srandmember",
        tips: tip::NONDETERMINISTIC,
        arity: -2,
        flags: READ,
        complexity: "O(N), N being the number of members returned",
        summary: "Returns members of a set that are picked at random.",
        handler: Handler::Worker(srandmember),
        ..SET_ROW
    },
    Row {
        name: "spop",
        tips: tip::NONDETERMINISTIC,
        arity: -2,
        flags: WRITE_FAST,
        complexity: "O(N), N being the number of members returned",
        summary: "Removes and returns members of a set that are picked at random.",
        handler: Handler::Worker(spop),
        ..SET_ROW
    },
];

fn srandmember(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let count = match args.len() {
        2 => None,
        3 => Some(symmetric_integer(&args[2])?),
        _ => return Err(SYNTAX_ERROR.into()),
    };
    let seed = cx.seed();
    let set = find(&cx.op, cx.namespace, &args[1], KIND_SET)?;
    let Some(set) = set else {
        match count {
            Some(_) => cx.reply.array(0),
            None => cx.reply.null(),
        }
        return Ok(());
    };
    let picks = Picks::new(set.len(ELEMENTS), count.unwrap_or(1), seed);
    if count.is_some() {
        cx.reply.array(picks.len() as usize);
    }
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    pick(
        &set,
        ELEMENTS,
        picks,
        |number| number,
        |member| reply.bulk_within(memory, &member.key),
    )
}

fn spop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let count = match args.len() {
        2 => None,
        3 => {
            let count = strict_integer(&args[2]).and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or("ERR value is out of range, must be positive")?)
        }
        _ => return Err(SYNTAX_ERROR.into()),
    };
    let key = &args[1];
    if let Some(result) = cx.progress.result.take() {
        return store(cx, key, result);
    }
    if cx.progress.has_begun {
        return pop(cx, key, cx.progress.count as u64);
    }
    let set = find(&cx.op, cx.namespace, key, KIND_SET)?;
    let len = set.map_or(0, |set| set.len(ELEMENTS));
    let popped = count.unwrap_or(1).min(len);
    match count {
        Some(_) => cx.reply.set(popped as usize),
        None if popped == 0 => cx.reply.null(),
        None => {}
    }
    // How many are still to be popped.
    cx.progress.count = popped as i64;
    let stay = len - popped;
    if popped == 0 {
        Ok(())
    } else if stay == 0 {
        let set = find(&cx.op, cx.namespace, key, KIND_SET)?;
        if let Some(set) = set {
            let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
            walk(&set, |member| reply.bulk_within(memory, &member.key))?;
        }
        cx.op.remove(cx.namespace, key)?;
        Ok(())
    } else if stay * MOST_OF_IT <= popped {
        pop_most(cx, key, len, stay)
    } else {
        pop(cx, key, popped)
    }
}

/// Pops the `count` members that are still to be popped, some at a time.
fn pop(cx: &mut Ctx<'_>, key: &[u8], count: u64) -> Done {
    let mut left = count;
    if left > POPPED_TOGETHER && !cx.progress.has_begun {
        // So much the reply will take, if those that are popped are like the others.
        let set = find(&cx.op, cx.namespace, key, KIND_SET)?;
        let all_bytes = set.map_or(0, |set| set.bytes() / set.len(ELEMENTS).max(1) * left);
        let bytes = all_bytes as usize + left as usize * Output::BULK_BYTES;
        cx.reply.make_room(&mut cx.client.allowance, bytes)?;
        check_room(cx, left as usize, 0)?;
    }
    while left > 0 {
        let members = picked_members(cx, key, left)?;
        let bytes: usize = members.iter().map(Vec::len).sum();
        let bytes = bytes + members.len() * Output::BULK_BYTES;
        cx.reply.make_room(&mut cx.client.allowance, bytes)?;
        if left <= POPPED_TOGETHER {
            check_room(cx, members.len(), 0)?;
        }
        for member in &members {
            cx.op.remove_element(cx.namespace, key, ELEMENTS, member)?;
            cx.reply.bulk(member);
            cx.progress.count -= 1;
            cx.progress.done += 1;
        }
        left -= members.len() as u64;
    }
    remove_if_empty(cx, key, KIND_SET)
}

/// Some of the members that are popped next, one at least of `left`; all of them are there to be removed.
fn picked_members(cx: &mut Ctx<'_>, key: &[u8], left: u64) -> Result<Vec<Vec<u8>>, Stop> {
    // Whoever runs again picks the same.
    let seed = random(cx.seed(), cx.progress.done as u64);
    let Some(set) = find(&cx.op, cx.namespace, key, KIND_SET)? else {
        return Err("ERR the set has fewer members than it counts".into());
    };
    let order = Shuffle::new(set.len(ELEMENTS), seed);
    let (mut members, mut bytes, mut cold) = (Vec::new(), 0, None);
    for place in 0..left.min(POPPED_TOGETHER) {
        match set.at(ELEMENTS, order.at(place)) {
            Ok(member) => {
                let member = member.map_or(Vec::new(), |member| member.key.into_owned());
                bytes += member.len();
                if bytes > POPPED_TOGETHER_BYTES && !members.is_empty() {
                    break;
                }
                members.push(member);
            }
            Err(stop @ hybridlog::Stop::Cold) => cold = Some(stop),
            Err(stop) => return Err(stop.into()),
        }
    }
    cold.map_or(Ok(members), |stop| Err(stop.into()))
}

/// Pops all but `stay` of the `len` members: those are stored anew.
fn pop_most(cx: &mut Ctx<'_>, key: &[u8], len: u64, stay: u64) -> Done {
    let order = Shuffle::new(len, cx.seed());
    let expires_at_ms = match cx.op.read(cx.namespace, key)? {
        Some(record) => record.meta().expires_at_ms,
        None => None,
    };
    let limits = PackedLimits::now(cx);
    let mut growth = Growth::of_empty(limits, Encoding::Listpack);
    let mut left = Members::default();
    if let Some(set) = find(&cx.op, cx.namespace, key, KIND_SET)? {
        let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
        if Encoding::of(&set) == Encoding::Intset {
            growth = Growth::of_empty(limits, Encoding::Intset);
        }
        let mut position = 0;
        walk(&set, |member| {
            if order.place_of(position) < stay {
                left.push(&member.key, memory)?;
            } else {
                reply.bulk_within(memory, &member.key)?;
            }
            position += 1;
            Ok(())
        })?;
    }
    left.iter().for_each(|member| growth.add(member));
    let result = StoredSet {
        members: left,
        encoding: growth.encoding(),
        expires_at_ms,
    };
    store(cx, key, result)
}
