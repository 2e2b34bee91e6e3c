//! When fields of hashes expire: HEXPIRE, HPEXPIRE, HEXPIREAT, HPEXPIREAT, HPERSIST, and asking for it: HTTL, HPTTL,
//! HEXPIRETIME, HPEXPIRETIME.

use std::ops::Range;

use hybridlog::Needed;

use super::KIND_HASH;
use super::collection::{ELEMENTS, check_room, remove_if_empty, want_next, want_next_of};
use super::hash::{Facts, HASH_ROW, Hash, put, remove};
use super::parse::{ExpiryUnit, NOT_AN_INTEGER, strict_integer};
use super::string::{GROW_FAST, READ_FAST, WRITE_FAST};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;

const EXPIRE_ROW: Row = Row {
    arity: -6,
    flags: GROW_FAST,
    since: "7.4.0",
    complexity: "O(N), N being the number of fields",
    ..HASH_ROW
};

const ASK_ROW: Row = Row {
    arity: -5,
    flags: READ_FAST,
    ..EXPIRE_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "hexpire",
        summary: "Lets fields of a hash expire after some seconds.",
        handler: Handler::Worker(hexpire),
        ..EXPIRE_ROW
    },
    Row {
        name: "hpexpire",
        summary: "Lets fields of a hash expire after some milliseconds.",
        handler: Handler::Worker(hpexpire),
        ..EXPIRE_ROW
    },
    Row {
        name: "hexpireat",
        summary: "Lets fields of a hash expire at a Unix time in seconds.",
        handler: Handler::Worker(hexpireat),
        ..EXPIRE_ROW
    },
    Row {
        name: "hpexpireat",
        summary: "Lets fields of a hash expire at a Unix time in milliseconds.",
        handler: Handler::Worker(hpexpireat),
        ..EXPIRE_ROW
    },
    Row {
        name: "hpersist",
        arity: -5,
        flags: WRITE_FAST,
        summary: "Lets fields of a hash never expire.",
        handler: Handler::Worker(hpersist),
        ..EXPIRE_ROW
    },
    Row {
        name: "httl",
        summary: "Returns after how many seconds fields of a hash expire.",
        handler: Handler::Worker(httl),
        ..ASK_ROW
    },
    Row {
        name: "hpttl",
        summary: "Returns after how many milliseconds fields of a hash expire.",
        handler: Handler::Worker(hpttl),
        ..ASK_ROW
    },
    Row {
        name: "hexpiretime",
        summary: "Returns the Unix times in seconds at which fields of a hash expire.",
        handler: Handler::Worker(hexpiretime),
        ..ASK_ROW
    },
    Row {
        name: "hpexpiretime",
        summary: "Returns the Unix times in milliseconds at which fields of a hash expire.",
        handler: Handler::Worker(hpexpiretime),
        ..ASK_ROW
    },
];

/// What is replied of a field.
const NO_FIELD: i64 = -2;
const NO_EXPIRY: i64 = -1;
const NOT_MET: i64 = 0;
const DONE: i64 = 1;
const REMOVED: i64 = 2;

/// The latest time at which a field may expire, Unix milliseconds; as in Redis.
const LATEST_MS: i64 = (1 << 46) - 1;

/// The error of a number of fields that is none.
pub(super) const BAD_NUMBER: &str = "ERR Number of fields must be a positive integer";

/// The time that an argument gives to fields, Unix milliseconds; it may be past. `command` is named by the error for what
/// is too late.
pub(super) fn field_expiry(
    arg: &[u8],
    unit: ExpiryUnit,
    now_ms: u64,
    command: &str,
) -> Result<u64, Stop> {
    let number = strict_integer(arg).ok_or(NOT_AN_INTEGER)?;
    if number < 0 {
        return Err("ERR invalid expire time, must be >= 0".into());
    }
    unit.unix_ms(number, now_ms)
        .filter(|at_ms| *at_ms <= LATEST_MS)
        .map(i64::unsigned_abs)
        .ok_or_else(|| format!("ERR invalid expire time in '{command}' command").into())
}

/// The positions of the fields behind FIELDS and their number, which are expected at argument `at`. `bad_number` is the
/// error of a number that is none.
pub(super) fn fields(
    args: Args<'_>,
    at: usize,
    bad_number: &'static str,
) -> Result<Range<usize>, Stop> {
    if !args.is(at, "fields") {
        return Err("ERR Mandatory argument FIELDS is missing or not at the right position".into());
    }
    let number = args.get(at + 1).and_then(strict_integer);
    let number = number.filter(|number| *number > 0).ok_or(bad_number)?;
    let fields = at + 2..args.len();
    if usize::try_from(number) != Ok(fields.len()) {
        return Err("ERR The `numfields` parameter must match the number of arguments".into());
    }
    Ok(fields)
}

/// When an expiry is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Condition {
    Always,
    /// NX: the field does not expire.
    DoesNot,
    /// XX: it does.
    Does,
    /// GT: it does, but earlier.
    Later,
    /// LT: it does not, or later.
    Earlier,
}

impl Condition {
    fn parse(arg: &[u8]) -> Condition {
        let is = |word: &[u8]| arg.eq_ignore_ascii_case(word);
        match () {
            () if is(b"nx") => Condition::DoesNot,
            () if is(b"xx") => Condition::Does,
            () if is(b"gt") => Condition::Later,
            () if is(b"lt") => Condition::Earlier,
            () => Condition::Always,
        }
    }

    /// Whether a field that expires at `before`, or never, is to expire at `at_ms`.
    fn holds(self, before: Option<u64>, at_ms: u64) -> bool {
        match self {
            Condition::Always => true,
            Condition::DoesNot => before.is_none(),
            Condition::Does => before.is_some(),
            Condition::Later => before.is_some_and(|before| before < at_ms),
            Condition::Earlier => before.is_none_or(|before| before > at_ms),
        }
    }
}

fn hexpire(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    expire(cx, args, ExpiryUnit::Seconds, "hexpire")
}

fn hpexpire(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    expire(cx, args, ExpiryUnit::Milliseconds, "hpexpire")
}

fn hexpireat(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    expire(cx, args, ExpiryUnit::UnixSeconds, "hexpireat")
}

fn hpexpireat(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    expire(cx, args, ExpiryUnit::UnixMilliseconds, "hpexpireat")
}

fn expire(cx: &mut Ctx<'_>, args: Args<'_>, unit: ExpiryUnit, command: &str) -> Done {
    let key = &args[1];
    // The type is looked at first, as in Redis.
    let exists = Hash::find(&cx.op, cx.namespace, key)?.is_some();
    let at_ms = field_expiry(&args[2], unit, cx.now_ms(), command)?;
    let condition = Condition::parse(&args[3]);
    let fields_at = if condition == Condition::Always { 3 } else { 4 };
    let bad_number = "ERR Parameter `numFields` should be greater than 0";
    let fields = fields(args, fields_at, bad_number)?;
    for_each_field(cx, args, fields, exists, |cx, facts, field| {
        set_expiry(cx, key, facts, field, condition, at_ms)
    })
}

/// Changes fields one after the other, and replies what `change` returns for each of them.
fn for_each_field(
    cx: &mut Ctx<'_>,
    args: Args<'_>,
    fields: Range<usize>,
    exists: bool,
    change: impl Fn(&mut Ctx<'_>, &mut Facts, &[u8]) -> Result<i64, Stop>,
) -> Done {
    let key = &args[1];
    if !cx.progress.has_begun {
        cx.reply.array(fields.len());
        if !exists {
            fields.for_each(|_| cx.reply.integer(NO_FIELD));
            return Ok(());
        }
    }
    let mut facts = Facts::gather(cx, key)?;
    let mut ready = cx.progress.done;
    for field in args.from(fields.start).skip(cx.progress.done) {
        if cx.progress.done == ready {
            ready += want_next_to_change(cx, args, fields.start)?;
        }
        let outcome = change(cx, &mut facts, field)?;
        cx.reply.integer(outcome);
        cx.progress.done += 1;
    }
    if cx.op.changes() > 0 {
        remove_if_empty(cx, key, KIND_HASH)?;
    }
    Ok(())
}

/// As [`want_next`], for the fields from argument `first` on that are left. There is room to store what they hold again.
pub(super) fn want_next_to_change(
    cx: &Ctx<'_>,
    args: Args<'_>,
    first: usize,
) -> Result<usize, Stop> {
    let (key, left) = (&args[1], args.from(first + cx.progress.done));
    let count = want_next(cx, key, KIND_HASH, left.clone(), Needed::Whole)?;
    if let Some(hash) = Hash::find(&cx.op, cx.namespace, key)? {
        let mut bytes = 0;
        for field in left.take(count) {
            let info = hash.collection.info(ELEMENTS, field)?;
            bytes += info.map_or(0, |info| field.len() + info.value_len as usize);
        }
        check_room(cx, count, bytes)?;
    }
    Ok(count)
}

fn set_expiry(
    cx: &mut Ctx<'_>,
    key: &[u8],
    facts: &mut Facts,
    field: &[u8],
    condition: Condition,
    at_ms: u64,
) -> Result<i64, Stop> {
    let Some(found) = live_field(cx, key, facts, field)? else {
        return Ok(NO_FIELD);
    };
    if !condition.holds(found.expires_at_ms, at_ms) {
        return Ok(NOT_MET);
    }
    if at_ms <= cx.now_ms() {
        remove(cx, key, facts, field)?;
        return Ok(REMOVED);
    }
    put(cx, key, facts, (field, &found.value), Some(at_ms))?;
    Ok(DONE)
}

/// A field that has not expired, with a value of its own.
pub(super) struct LiveField {
    pub(super) value: Vec<u8>,
    pub(super) expires_at_ms: Option<u64>,
}

/// The field, if it is there; one that has expired is removed.
pub(super) fn live_field(
    cx: &mut Ctx<'_>,
    key: &[u8],
    facts: &Facts,
    field: &[u8],
) -> Result<Option<LiveField>, Stop> {
    let hash = Hash::find(&cx.op, cx.namespace, key)?;
    let found = hash.map(|hash| hash.get(field)).transpose()?.flatten();
    if let Some(element) = found {
        return Ok(Some(LiveField {
            value: element.value.into_owned(),
            expires_at_ms: element.expires_at_ms,
        }));
    }
    if facts.has_expired() {
        remove(cx, key, facts, field)?;
    }
    Ok(None)
}

fn hpersist(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let exists = Hash::find(&cx.op, cx.namespace, key)?.is_some();
    let fields = fields(args, 2, BAD_NUMBER)?;
    for_each_field(
        cx,
        args,
        fields,
        exists,
        |cx, facts, field| match live_field(cx, key, facts, field)? {
            None => Ok(NO_FIELD),
            Some(found) if found.expires_at_ms.is_none() => Ok(NO_EXPIRY),
            Some(found) => {
                put(cx, key, facts, (field, &found.value), None)?;
                Ok(DONE)
            }
        },
    )
}

fn httl(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let now_ms = cx.now_ms();
    reply_expiries(cx, args, |at_ms| (at_ms + 999 - now_ms) / 1000)
}

fn hpttl(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let now_ms = cx.now_ms();
    reply_expiries(cx, args, |at_ms| at_ms - now_ms)
}

fn hexpiretime(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_expiries(cx, args, |at_ms| at_ms.div_ceil(1000))
}

fn hpexpiretime(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_expiries(cx, args, |at_ms| at_ms)
}

/// Replies what `shown` makes of the time at which each field expires, which is not past.
fn reply_expiries(cx: &mut Ctx<'_>, args: Args<'_>, shown: impl Fn(u64) -> u64) -> Done {
    let hash = Hash::find(&cx.op, cx.namespace, &args[1])?;
    let first = fields(args, 2, BAD_NUMBER)?.start;
    if !cx.progress.has_begun {
        cx.reply.array(args.len() - first);
    }
    let Some(hash) = hash else {
        args.from(first).for_each(|_| cx.reply.integer(NO_FIELD));
        return Ok(());
    };
    let mut ready = cx.progress.done;
    for field in args.from(first).skip(cx.progress.done) {
        if cx.progress.done == ready {
            let left = args.from(first + ready);
            ready += want_next_of(&hash.collection, left, Needed::Keys)?;
        }
        cx.reply.integer(match hash.info(field)? {
            None => NO_FIELD,
            Some(info) => info
                .expires_at_ms
                .map_or(NO_EXPIRY, |at_ms| shown(at_ms) as i64),
        });
        cx.progress.done += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_with_never_as_the_latest_time() {
        for (condition, of_never, of_earlier, of_same, of_later) in [
            (Condition::Always, true, true, true, true),
            (Condition::DoesNot, true, false, false, false),
            (Condition::Does, false, true, true, true),
            (Condition::Later, false, true, false, false),
            (Condition::Earlier, true, false, false, true),
        ] {
            let holds = [None, Some(9), Some(10), Some(11)].map(|at| condition.holds(at, 10));
            assert_eq!(
                holds,
                [of_never, of_earlier, of_same, of_later],
                "{condition:?}"
            );
        }
    }
}
