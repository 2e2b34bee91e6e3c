//! Members picked at random: SRANDMEMBER, SPOP.

use std::collections::HashSet;

use super::KIND_SET;
use super::collection::{
    ELEMENTS, Encoding, PackedLimits, check_room, find, remove_if_empty, walk,
};
use super::collection_random::{Picks, different, pick};
use super::parse::{SYNTAX_ERROR, strict_integer, symmetric_integer};
use super::set::{Growth, SET_ROW};
use super::set_algebra::{Members, StoredSet, store};
use super::string::{READ, WRITE_FAST};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, tip};
use crate::ctx::Ctx;

/// What stays of a set is stored anew if so many times as much is popped.
const MOST_OF_IT: u64 = 5;

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
        flags: WRITE_FAST.and(Flags::COUNTS_HITS),
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
    let set = find(&cx.op, cx.namespace, key, KIND_SET)?;
    let len = set.map_or(0, |set| set.len(ELEMENTS));
    if cx.progress.has_begun {
        return pop(cx, key, len, cx.progress.count as u64);
    }
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
        pop(cx, key, len, popped)
    }
}

/// Pops `count` of the `len` members one by one.
fn pop(cx: &mut Ctx<'_>, key: &[u8], len: u64, count: u64) -> Done {
    check_room(cx, count as usize, 0)?;
    let seed = cx.seed();
    let mut members = Vec::new();
    if let Some(set) = find(&cx.op, cx.namespace, key, KIND_SET)? {
        let picks = Picks::new(len, count as i64, seed);
        let memory = &mut cx.client.allowance;
        pick(
            &set,
            ELEMENTS,
            picks,
            |number| number,
            |member| {
                memory.ask(member.key.len() as u64)?;
                members.push(member.key.into_owned());
                Ok(())
            },
        )?;
        set.want(ELEMENTS, members.iter().map(Vec::as_slice))?;
    }
    for member in &members {
        let memory = &mut cx.client.allowance;
        cx.reply.ask_for_room(memory, member.len())?;
        cx.op.remove_element(cx.namespace, key, ELEMENTS, member)?;
        cx.reply.bulk(member);
        cx.progress.count -= 1;
    }
    remove_if_empty(cx, key, KIND_SET)
}

/// Pops all but `stay` of the `len` members: those are stored anew.
fn pop_most(cx: &mut Ctx<'_>, key: &[u8], len: u64, stay: u64) -> Done {
    let stays: HashSet<u64> = different(len, stay, cx.seed()).into_iter().collect();
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
            if stays.contains(&position) {
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
