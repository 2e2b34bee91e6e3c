//! Storing several strings at once: MSET, MSETNX, MSETEX.

use hybridlog::Meta;

use super::parse::SYNTAX_ERROR;
use super::read_each;
use super::string::{GROW, STRING_ROW};
use super::string_condition::Condition;
use super::string_write::{Lifetime, OptionSet, StoreOptions, store};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop, tip};
use crate::ctx::Ctx;

/// What pages of large values take that are not full.
const PAGES_BYTES: u64 = 128 << 10;

/// So much is always there for a command that has stored something.
const FEW_BYTES: u64 = PAGES_BYTES + (64 << 10);

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "mset",
        tips: tip::MULTI_SHARD_SUCCEED,
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
        tips: tip::MULTI_SHARD_MIN,
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
        tips: tip::MULTI_SHARD_SUCCEED,
        arity: -4,
        flags: GROW.and(Flags::MOVABLEKEYS).and(Flags::BLIND),
        keys: Keys::Counted { count: 1, step: 2 },
        since: "8.4.0",
        complexity: "O(N), N being the number of keys",
        summary: "Stores a string under each of several keys, with a condition and an expiry for all.",
        handler: Handler::Worker(msetex),
        ..STRING_ROW
    },
];

/// Makes sure that there is room for everything before the first string is stored: a command that has to wait after that
/// keeps its keys latched meanwhile.
fn check_room(cx: &Ctx<'_>, args: Args<'_>) -> Result<(), Stop> {
    let bytes = args.total_bytes() as u64;
    // Headers, and pages that are not full.
    let bytes = bytes + bytes / 8 + PAGES_BYTES;
    if bytes < FEW_BYTES || cx.server.store.has_room(bytes) {
        return Ok(());
    }
    Err(hybridlog::Stop::NoRoom { bytes }.into())
}

/// Reads what must be read before the first string is stored; all of it together.
fn check_overwritable<'a>(
    cx: &Ctx<'_>,
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<(), hybridlog::Stop> {
    keys.map(|key| cx.op.overwritable(cx.namespace, key))
        .fold(Ok(()), Result::and)
}

fn mset(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let pairs = pairs(args, "mset")?;
    check_room(cx, args)?;
    check_overwritable(cx, pairs.clone().map(|(key, _)| key))?;
    for (key, value) in pairs {
        store(cx, key, value, None)?;
    }
    cx.reply.ok();
    Ok(())
}

fn msetnx(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let pairs = pairs(args, "msetnx")?;
    // What it finds after it has begun is its own.
    let store_all =
        cx.progress.has_begun || read_all(cx, pairs.clone())?.iter().all(Option::is_none);
    if store_all {
        check_room(cx, args)?;
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

/// What is known of each key that exists.
fn read_all<'a>(
    cx: &Ctx<'_>,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Vec<Option<Meta>>, Stop> {
    read_each(pairs.map(|(key, _)| key), |key| {
        let record = cx.op.read(cx.namespace, key)?;
        Ok(record.map(|record| record.meta()))
    })
}

fn msetex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let count = resp::parse_integer(&args[1])
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
    let keep = options.lifetime == Lifetime::Kept;
    let found = if keep || options.condition != Condition::Always {
        read_all(cx, pairs.clone())?
    } else {
        Vec::new()
    };
    // What it finds after it has begun is its own.
    let store_all = cx.progress.has_begun
        || match options.condition {
            Condition::Absent => found.iter().all(Option::is_none),
            Condition::Present => found.iter().all(Option::is_some),
            _ => true,
        };
    if store_all {
        check_room(cx, args)?;
        check_overwritable(cx, pairs.clone().map(|(key, _)| key))?;
        for (i, (key, value)) in pairs.enumerate() {
            let kept = || found[i].and_then(|meta| meta.expires_at_ms);
            store(cx, key, value, if keep { kept() } else { expires_at_ms })?;
        }
    }
    cx.reply.integer(i64::from(store_all));
    Ok(())
}
