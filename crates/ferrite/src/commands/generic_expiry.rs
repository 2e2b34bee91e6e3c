//! When keys expire: setting, reading and removing that time.
//!
//! Time is Unix time in milliseconds. A key whose time has come no longer exists for any command,
//! whether or not its record has been removed yet; a time in the past removes the key at once.

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop, tip};
use crate::commands::parse::{ExpiryUnit, expiry_or_past};
use crate::ctx::Ctx;

const NX_WITH_OTHERS: &str = "ERR NX and XX, GT or LT options at the same time are not compatible";
const GT_WITH_LT: &str = "ERR GT and LT options at the same time are not compatible";

const READ: Row = Row {
    name: "",
    arity: 2,
    flags: Flags::READONLY.and(Flags::FAST),
    keys: Keys::Range {
        first: 1,
        last: 1,
        step: 1,
    },
    categories: &["keyspace"],
    group: "generic",
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    handler: Handler::Container,
    subcommands: &[],
    tips: &[],
};
const WRITE: Row = Row {
    arity: -3,
    flags: Flags::WRITE.and(Flags::FAST),
    ..READ
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "expire",
        summary: "Lets a key expire after some seconds.",
        handler: Handler::Worker(expire),
        ..WRITE
    },
    Row {
        name: "pexpire",
        since: "2.6.0",
        summary: "Lets a key expire after some milliseconds.",
        handler: Handler::Worker(pexpire),
        ..WRITE
    },
    Row {
        name: "expireat",
        since: "1.2.0",
        summary: "Lets a key expire at a Unix time in seconds.",
        handler: Handler::Worker(expireat),
        ..WRITE
    },
    Row {
        name: "pexpireat",
        since: "2.6.0",
        summary: "Lets a key expire at a Unix time in milliseconds.",
        handler: Handler::Worker(pexpireat),
        ..WRITE
    },
    Row {
        name: "persist",
        arity: 2,
        since: "2.2.0",
        summary: "Lets a key no longer expire.",
        handler: Handler::Worker(persist),
        ..WRITE
    },
    Row {
        name: "ttl",
        tips: tip::NONDETERMINISTIC,
        summary: "Tells in how many seconds a key expires.",
        handler: Handler::Worker(ttl),
        ..READ
    },
    Row {
        name: "pttl",
        tips: tip::NONDETERMINISTIC,
        since: "2.6.0",
        summary: "Tells in how many milliseconds a key expires.",
        handler: Handler::Worker(pttl),
        ..READ
    },
    Row {
        name: "expiretime",
        since: "7.0.0",
        summary: "Tells the Unix time in seconds at which a key expires.",
        handler: Handler::Worker(expiretime),
        ..READ
    },
    Row {
        name: "pexpiretime",
        since: "7.0.0",
        summary: "Tells the Unix time in milliseconds at which a key expires.",
        handler: Handler::Worker(pexpiretime),
        ..READ
    },
];

fn expire(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    set_expiry(cx, args, ExpiryUnit::Seconds, "expire")
}

fn pexpire(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    set_expiry(cx, args, ExpiryUnit::Milliseconds, "pexpire")
}

fn expireat(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    set_expiry(cx, args, ExpiryUnit::UnixSeconds, "expireat")
}

fn pexpireat(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    set_expiry(cx, args, ExpiryUnit::UnixMilliseconds, "pexpireat")
}

fn set_expiry(cx: &mut Ctx<'_>, args: Args<'_>, unit: ExpiryUnit, command: &str) -> Done {
    let condition = Condition::parse(args)?;
    let now_ms = cx.now_ms();
    let at_ms = expiry_or_past(&args[2], unit, now_ms, command)?;
    let Some(record) = cx.op.read(cx.namespace, &args[1])? else {
        cx.reply.integer(0);
        return Ok(());
    };
    if !condition.allows(record.meta().expires_at_ms, at_ms) {
        cx.reply.integer(0);
        return Ok(());
    }
    match u64::try_from(at_ms) {
        Ok(at_ms) if at_ms > now_ms => cx.op.set_expiry(cx.namespace, &args[1], Some(at_ms))?,
        _ => cx.op.remove(cx.namespace, &args[1])?,
    };
    cx.reply.integer(1);
    Ok(())
}

/// The options of EXPIRE and its kin: when the new time may replace the one a key has.
#[derive(Default)]
struct Condition {
    /// NX: only if it has none.
    unset: bool,
    /// XX: only if it has one.
    set: bool,
    /// GT: only if the new one is later; none counts as infinitely late.
    later: bool,
    /// LT: only if the new one is earlier.
    earlier: bool,
}

impl Condition {
    fn parse(args: Args<'_>) -> Result<Condition, Stop> {
        let mut condition = Condition::default();
        for option in args.from(3) {
            match option.to_ascii_lowercase().as_slice() {
                b"nx" => condition.unset = true,
                b"xx" => condition.set = true,
                b"gt" => condition.later = true,
                b"lt" => condition.earlier = true,
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return Err(format!("ERR Unsupported option {option}").into());
                }
            }
        }
        if condition.unset && (condition.set || condition.later || condition.earlier) {
            return Err(NX_WITH_OTHERS.into());
        }
        if condition.later && condition.earlier {
            return Err(GT_WITH_LT.into());
        }
        Ok(condition)
    }

    fn allows(&self, current_ms: Option<u64>, new_ms: i64) -> bool {
        let Some(current_ms) = current_ms else {
            return !self.set && !self.later;
        };
        let new_ms = i128::from(new_ms);
        let current_ms = i128::from(current_ms);
        !self.unset
            && (!self.later || new_ms > current_ms)
            && (!self.earlier || new_ms < current_ms)
    }
}

fn persist(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let record = cx.op.read(cx.namespace, &args[1])?;
    let expires = record.is_some_and(|record| record.meta().expires_at_ms.is_some());
    if expires {
        cx.op.set_expiry(cx.namespace, &args[1], None)?;
    }
    cx.reply.integer(i64::from(expires));
    Ok(())
}

fn ttl(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let now_ms = cx.now_ms();
    reply_expiry(cx, args, |at_ms| seconds(at_ms.saturating_sub(now_ms)))
}

fn pttl(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let now_ms = cx.now_ms();
    reply_expiry(cx, args, |at_ms| at_ms.saturating_sub(now_ms))
}

fn expiretime(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_expiry(cx, args, seconds)
}

fn pexpiretime(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_expiry(cx, args, |at_ms| at_ms)
}

/// Replies -2 for an absent key, -1 for one that does not expire, else its time as `shown`.
fn reply_expiry(cx: &mut Ctx<'_>, args: Args<'_>, shown: impl Fn(u64) -> u64) -> Done {
    let record = cx.op.read(cx.namespace, &args[1])?;
    cx.reply
        .integer(match record.map(|record| record.meta().expires_at_ms) {
            None => -2,
            Some(None) => -1,
            Some(Some(at_ms)) => i64::try_from(shown(at_ms)).unwrap_or(i64::MAX),
        });
    Ok(())
}

/// Milliseconds as seconds, rounded to the nearest as Redis does.
fn seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1000
}
