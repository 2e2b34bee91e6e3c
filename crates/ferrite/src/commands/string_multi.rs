//! Storing several strings at once: MSET, MSETNX, MSETEX.

use super::parse::{SYNTAX_ERROR, strict_integer};
use super::string::{GROW, STRING_ROW};
use super::string_condition::Condition;
use super::string_write::{Lifetime, OptionSet, StoreOptions, store};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "mset",
        arity: -3,
        flags: GROW.and(Flags::BLIND),
        keys: Keys::Range {
            first: 1,
            last: -1,
            step: 2,
        },
        since: "1.0.1",
        complexity: "O(N), N being the number of keys",
        summary: "Stores a string under each of several keys, whatever they held.",
        handler: Handler::Worker(mset),
        ..STRING_ROW
    },
    Row {
        name: "msetnx",
        arity: -3,
        flags: GROW,
        keys: Keys::Range {
            first: 1,
            last: -1,
            step: 2,
        },
        since: "1.0.1",
        complexity: "O(N), N being the number of keys",
        summary: "Stores a string under each of several keys if none of them exists yet.",
        handler: Handler::Worker(msetnx),
        ..STRING_ROW
    },
    Row {
        name: "msetex",
        arity: -4,
        flags: GROW.and(Flags::MOVABLEKEYS),
        keys: Keys::Counted { count: 1, step: 2 },
        since: "8.4.0",
        complexity: "O(N), N being the number of keys",
        summary: "Stores a string under each of several keys, with a condition and an expiry for all.",
        handler: Handler::Worker(msetex),
        ..STRING_ROW
    },
];

fn mset(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let pairs = pairs(args, "mset")?;
    for (key, value) in pairs {
        store(cx, key, value, None)?;
    }
    cx.reply.ok();
    Ok(())
}

fn msetnx(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let pairs = pairs(args, "msetnx")?;
    let store_all = all_are(cx, pairs.clone(), Condition::Absent)?;
    if store_all {
        for (key, value) in pairs {
            store(cx, key, value, None)?;
        }
    }
    cx.reply.integer(i64::from(store_all));
    Ok(())
}

/// All arguments as keys with their values.
fn pairs<'a>(
    args: Args<'a>,
    command: &str,
) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a>, Stop> {
    if args.len().is_multiple_of(2) {
        return Err(format!("ERR wrong number of arguments for '{command}' command").into());
    }
    Ok(in_pairs(args.from(1)))
}

fn in_pairs<'a>(
    mut args: impl Iterator<Item = &'a [u8]> + Clone,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
    std::iter::from_fn(move || Some((args.next()?, args.next()?)))
}

/// Whether `condition`, Absent or Present, holds of every key.
fn all_are<'a>(
    cx: &Ctx<'_>,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    condition: Condition<'_>,
) -> Result<bool, Stop> {
    for (key, _) in pairs {
        let found = cx.op.read(cx.namespace, key)?;
        if !condition.holds(&cx.op, found.as_ref())? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn msetex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let count = strict_integer(&args[1])
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| (1..=i32::MAX as usize).contains(count))
        .ok_or("ERR invalid numkeys value or out of range")?;
    let options_at = 2 + 2 * count;
    if options_at > args.len() {
        return Err(SYNTAX_ERROR.into());
    }
    let options = StoreOptions::parse(args, options_at, OptionSet::Msetex)?;
    let expires_at_ms = options.lifetime.fixed(cx.now_ms(), "msetex")?;
    let pairs = in_pairs(args.from(2).take(2 * count));
    let store_all =
        options.condition == Condition::Always || all_are(cx, pairs.clone(), options.condition)?;
    if store_all {
        let expiries = expiries(cx, pairs.clone(), options.lifetime, expires_at_ms)?;
        for ((key, value), expires_at_ms) in pairs.zip(expiries) {
            store(cx, key, value, expires_at_ms)?;
        }
    }
    cx.reply.integer(i64::from(store_all));
    Ok(())
}

/// The expiry of each key: read of all of them before the first is changed where they keep theirs.
fn expiries<'a>(
    cx: &Ctx<'_>,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    lifetime: Lifetime<'_>,
    fixed: Option<u64>,
) -> Result<Vec<Option<u64>>, Stop> {
    pairs
        .map(|(key, _)| match lifetime {
            Lifetime::Unlimited | Lifetime::Until(..) => Ok(fixed),
            Lifetime::Kept => {
                let found = cx.op.read(cx.namespace, key)?;
                Ok(found.and_then(|record| record.meta().expires_at_ms))
            }
        })
        .collect()
}
