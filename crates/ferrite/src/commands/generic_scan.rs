//! Commands that walk the keys of a database: SCAN, KEYS, RANDOMKEY.

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop, tip};
use crate::commands::object::type_name;
use crate::commands::parse::{SYNTAX_ERROR, integer};
use crate::ctx::{Ctx, SlowCtx};
use crate::glob;

/// Index slots one SCAN visits unless COUNT says otherwise.
pub(super) const COUNT_DEFAULT: usize = 10;
/// Most index slots one SCAN visits, whatever COUNT says: no single command may hold a worker.
pub(super) const COUNT_MAX: usize = 16 * 1024;
/// Index slots one step of KEYS visits.
const KEYS_STEP: usize = 4 * 1024;

const ROW: Row = Row {
    name: "",
    arity: 0,
    flags: Flags::READONLY.and(Flags::KEYSPACE),
    keys: Keys::None,
    categories: &["keyspace"],
    group: "generic",
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    handler: Handler::Container,
    subcommands: &[],
    tips: &[],
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "scan",
        tips: tip::SPECIAL,
        arity: -2,
        since: "2.8.0",
        complexity: "O(1) a call, O(N) for a full iteration over N keys",
        summary: "Iterates over the keys of the database, some at a time.",
        handler: Handler::Worker(scan),
        ..ROW
    },
    Row {
        name: "keys",
        tips: tip::ALL_SHARDS_UNORDERED,
        arity: 2,
        categories: &["keyspace", "dangerous"],
        complexity: "O(N) for N keys in the database",
        summary: "Lists all keys that match a pattern.",
        handler: Handler::Slow(keys),
        ..ROW
    },
    Row {
        name: "randomkey",
        tips: tip::ALL_SHARDS,
        arity: 1,
        summary: "Picks a key at random.",
        handler: Handler::Worker(randomkey),
        ..ROW
    },
];

fn scan(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let cursor = cursor(&args[1])?;
    let mut count = COUNT_DEFAULT;
    let mut pattern = None;
    let mut only_type = None;
    let mut at = 2;
    while at < args.len() {
        let Some(value) = args.get(at + 1) else {
            return Err(SYNTAX_ERROR.into());
        };
        if args.is(at, "count") {
            count = match integer(value)? {
                ..1 => return Err(SYNTAX_ERROR.into()),
                wanted => usize::try_from(wanted).map_or(COUNT_MAX, |count| count.min(COUNT_MAX)),
            };
        } else if args.is(at, "match") {
            pattern = Some(value);
        } else if args.is(at, "type") {
            only_type = Some(value);
        } else {
            return Err(SYNTAX_ERROR.into());
        }
        at += 2;
    }
    let mut scanned = cx.op.scan(cx.namespace, cursor, count)?;
    scanned.keys.retain(|(key, meta)| {
        pattern.is_none_or(|pattern| key_matches(pattern, key))
            && only_type
                .is_none_or(|name| name.eq_ignore_ascii_case(type_name(meta.kind).as_bytes()))
    });
    cx.reply.array(2);
    cx.reply.bulk(scanned.cursor.to_string().as_bytes());
    cx.reply.array(scanned.keys.len());
    for (key, _) in &scanned.keys {
        cx.reply.bulk(key);
    }
    Ok(())
}

/// A cursor as the client wrote it: an unsigned decimal number. As in Redis, nothing is 0, and a sign is allowed.
pub(super) fn cursor(arg: &[u8]) -> Result<u64, Stop> {
    if arg.is_empty() {
        return Ok(0);
    }
    let digits = arg.strip_prefix(b"-").unwrap_or(arg);
    let number = str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    let number: u64 = number.ok_or("ERR invalid cursor")?;
    Ok(if digits.len() < arg.len() {
        number.wrapping_neg()
    } else {
        number
    })
}

/// `*` means all keys, even the empty one, which the pattern as such does not match.
pub(super) fn key_matches(pattern: &[u8], key: &[u8]) -> bool {
    pattern == b"*" || glob::matches(pattern, key)
}

fn keys(cx: &mut SlowCtx<'_>, args: Args<'_>) -> Done {
    let pattern = &args[1];
    let namespace = cx.namespace;
    let mut matching = resp::Encoder::default();
    let mut count = 0;
    let mut cursor = 0;
    loop {
        let scanned = cx.step(&[], |op| op.scan(namespace, cursor, KEYS_STEP))?;
        for (key, _) in &scanned.keys {
            if key_matches(pattern, key) {
                matching.bulk(key);
                count += 1;
            }
        }
        cursor = scanned.cursor;
        if cursor == 0 {
            break;
        }
    }
    cx.reply.array(count);
    cx.reply.raw(matching.as_bytes());
    Ok(())
}

fn randomkey(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    match cx.op.random_key(cx.namespace, cx.server.random())? {
        Some(key) => cx.reply.bulk(&key),
        None => cx.reply.null(),
    }
    Ok(())
}
