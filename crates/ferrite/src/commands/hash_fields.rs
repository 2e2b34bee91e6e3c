//! Fields of hashes with more than one thing done to them: HGETEX, HSETEX, HGETDEL.

use hybridlog::Needed;

use super::KIND_HASH;
use super::collection::{check_room, remove_if_empty, want_next};
use super::hash::{Facts, HASH_ROW, Hash, pairs, put, remove};
use super::hash_expiry::{
    BAD_NUMBER, LiveField, field_expiry, fields, live_field, want_next_to_change,
};
use super::parse::{ExpiryUnit, strict_integer};
use super::string::{GROW_FAST, WRITE_FAST};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, Stop};
use crate::ctx::Ctx;
use crate::output::Output;

const FIELDS_ROW: Row = Row {
    arity: -5,
    flags: WRITE_FAST.and(Flags::COUNTS_HITS),
    since: "8.0.0",
    complexity: "O(N), N being the number of fields",
    ..HASH_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "hgetex",
        summary: "Returns the values of fields of a hash and sets or removes their expiry.",
        handler: Handler::Worker(hgetex),
        ..FIELDS_ROW
    },
    Row {
        name: "hgetdel",
        flags: WRITE_FAST,
        summary: "Returns the values of fields of a hash and removes them.",
        handler: Handler::Worker(hgetdel),
        ..FIELDS_ROW
    },
    Row {
        name: "hsetex",
        arity: -6,
        flags: GROW_FAST,
        summary: "Stores values in fields of a hash, with a condition and an expiry for all.",
        handler: Handler::Worker(hsetex),
        ..FIELDS_ROW
    },
];

/// What becomes of the expiry of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// It never expires.
    Persist,
    /// It expires at this time, Unix milliseconds, which may be past.
    Until(u64),
    /// It goes.
    Remove,
}

fn hgetdel(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let exists = Hash::find(&cx.op, cx.namespace, &args[1])?.is_some();
    let first = fields(args, 2, BAD_NUMBER)?.start;
    get_and_change(cx, args, first, exists, Change::Remove)
}

fn hgetex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let exists = Hash::find(&cx.op, cx.namespace, &args[1])?.is_some();
    let (change, fields_at) = if args.is(2, "persist") {
        (Change::Persist, 3)
    } else if let Some(unit) = ExpiryUnit::from_option(&args[2]) {
        let at_ms = field_expiry(&args[3], unit, cx.now_ms(), "hgetex")?;
        (Change::Until(at_ms), 4)
    } else {
        (Change::None, 2)
    };
    let first = fields(args, fields_at, BAD_NUMBER)?.start;
    get_and_change(cx, args, first, exists, change)
}

/// Replies the values of the fields from argument `first` on, each once it has been changed.
fn get_and_change(
    cx: &mut Ctx<'_>,
    args: Args<'_>,
    first: usize,
    exists: bool,
    change: Change,
) -> Done {
    let (key, fields) = (&args[1], args.from(first));
    if !cx.progress.has_begun {
        cx.reply.array(fields.len());
        if !exists {
            fields.for_each(|_| cx.reply.null());
            return Ok(());
        }
    }
    let mut facts = Facts::gather(cx, key)?;
    let mut ready = cx.progress.done;
    for field in fields.skip(cx.progress.done) {
        if cx.progress.done == ready {
            ready += match change {
                Change::None | Change::Remove => {
                    let left = args.from(first + ready);
                    want_next(cx, key, KIND_HASH, left, Needed::Whole)?
                }
                Change::Persist | Change::Until(_) => want_next_to_change(cx, args, first)?,
            };
            ask_for_reply(cx, args, first, ready)?;
        }
        match live_field(cx, key, &facts, field)? {
            Some(found) => {
                change_field(cx, key, &mut facts, field, &found, change)?;
                cx.reply.bulk(&found.value);
            }
            None => cx.reply.null(),
        }
        cx.progress.done += 1;
    }
    if cx.op.changes() > 0 {
        remove_if_empty(cx, key, KIND_HASH)?;
    }
    Ok(())
}

/// Makes room in the reply for the values of the fields that are changed next, up to number `end` of those from argument
/// `first` on: once they are gone there is nobody else to tell of them.
fn ask_for_reply(cx: &mut Ctx<'_>, args: Args<'_>, first: usize, end: usize) -> Result<(), Stop> {
    let mut bytes = 0;
    if let Some(hash) = Hash::find(&cx.op, cx.namespace, &args[1])? {
        for field in args
            .from(first + cx.progress.done)
            .take(end - cx.progress.done)
        {
            let info = hash.info(field)?;
            bytes += Output::BULK_BYTES + info.map_or(0, |info| info.value_len as usize);
        }
    }
    cx.reply.make_room(&mut cx.client.allowance, bytes)
}

fn change_field(
    cx: &mut Ctx<'_>,
    key: &[u8],
    facts: &mut Facts,
    field: &[u8],
    found: &LiveField,
    change: Change,
) -> Result<(), Stop> {
    let value = found.value.as_slice();
    match change {
        Change::None => {}
        Change::Persist if found.expires_at_ms.is_none() => {}
        Change::Persist => {
            put(cx, key, facts, (field, value), None)?;
        }
        Change::Until(at_ms) if at_ms > cx.now_ms() => {
            put(cx, key, facts, (field, value), Some(at_ms))?;
        }
        Change::Until(_) | Change::Remove => {
            remove(cx, key, facts, field)?;
        }
    }
    Ok(())
}

/// When HSETEX stores anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    /// FNX: none of the fields exists.
    NoneExists,
    /// FXX: all of them exist.
    AllExist,
}

/// When the fields that HSETEX stores expire.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Unlimited,
    Kept,
    Until(u64),
}

struct StoreOptions {
    condition: Condition,
    lifetime: Lifetime,
    /// The argument that the first field is.
    first: usize,
}

impl StoreOptions {
    fn parse(args: Args<'_>, now_ms: u64) -> Result<StoreOptions, Stop> {
        let mut options = StoreOptions {
            condition: Condition::Always,
            lifetime: Lifetime::Unlimited,
            first: 0,
        };
        let mut at = 2;
        while at < args.len() && !args.is(at, "fields") {
            let unit = ExpiryUnit::from_option(&args[at]);
            if args.is(at, "fnx") || args.is(at, "fxx") {
                if options.condition != Condition::Always {
                    return Err("ERR Only one of FXX or FNX arguments can be specified".into());
                }
                options.condition = if args.is(at, "fnx") {
                    Condition::NoneExists
                } else {
                    Condition::AllExist
                };
            } else if unit.is_some() || args.is(at, "keepttl") {
                if options.lifetime != Lifetime::Unlimited {
                    return Err(
                        "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified"
                            .into(),
                    );
                }
                options.lifetime = Lifetime::Kept;
                if let Some(unit) = unit {
                    at += 1;
                    let time = args.get(at).ok_or("ERR missing expire time")?;
                    let at_ms = field_expiry(time, unit, now_ms, "hsetex")?;
                    options.lifetime = Lifetime::Until(at_ms);
                }
            } else {
                let word = String::from_utf8_lossy(&args[at]);
                return Err(format!("ERR unknown argument: {word}").into());
            }
            at += 1;
        }
        options.first = at + 2;
        check_number(args, at)?;
        Ok(options)
    }
}

/// Checks the number of fields, which stands behind FIELDS at argument `at`.
fn check_number(args: Args<'_>, at: usize) -> Result<(), Stop> {
    const WRONG_NUMBER: &str = "ERR wrong number of arguments for 'hsetex' command";
    if at + 3 >= args.len() {
        return Err(WRONG_NUMBER.into());
    }
    let number = strict_integer(&args[at + 1])
        .filter(|number| (1..=i64::from(i32::MAX)).contains(number))
        .ok_or("ERR invalid number of fields")?;
    let left = args.len() - at - 2;
    if !left.is_multiple_of(2) || number as usize != left / 2 {
        return Err(WRONG_NUMBER.into());
    }
    Ok(())
}

fn hsetex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let now_ms = cx.now_ms();
    let options = StoreOptions::parse(args, now_ms)?;
    let (key, pairs) = (&args[1], pairs(args, options.first));
    let mut facts = Facts::gather(cx, key)?;
    // What it finds after it has begun is its own.
    let stores = cx.progress.has_begun || holds(cx, args, &options)?;
    if stores {
        for (field, value) in pairs.clone() {
            cx.op
                .check_element(key, (field.len() + value.len()) as u64)?;
        }
        facts.foresee(cx, pairs.len());
        check_room(cx, pairs.len(), args.total_bytes())?;
        let mut ready = cx.progress.done;
        for pair in pairs.clone().skip(cx.progress.done) {
            if cx.progress.done == ready {
                let left = pairs.clone().skip(ready).map(|(field, _)| field);
                ready += want_next(cx, key, KIND_HASH, left, Needed::Whole)?;
            }
            store(cx, key, &mut facts, pair, options.lifetime)?;
            cx.progress.done += 1;
        }
        remove_if_empty(cx, key, KIND_HASH)?;
    }
    cx.reply.integer(i64::from(stores));
    Ok(())
}

fn holds(cx: &Ctx<'_>, args: Args<'_>, options: &StoreOptions) -> Result<bool, Stop> {
    if options.condition == Condition::Always {
        return Ok(true);
    }
    let must_exist = options.condition == Condition::AllExist;
    let Some(hash) = Hash::find(&cx.op, cx.namespace, &args[1])? else {
        return Ok(!must_exist);
    };
    let mut cold = None;
    for (field, _) in pairs(args, options.first) {
        match hash.info(field) {
            Ok(found) if found.is_some() != must_exist => return Ok(false),
            Ok(_) => {}
            Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) => cold = Some(stop),
            Err(stop) => return Err(stop),
        }
    }
    cold.map_or(Ok(true), Err)
}

fn store(
    cx: &mut Ctx<'_>,
    key: &[u8],
    facts: &mut Facts,
    pair: (&[u8], &[u8]),
    lifetime: Lifetime,
) -> Result<(), Stop> {
    let expires_at_ms = match lifetime {
        Lifetime::Unlimited => None,
        Lifetime::Kept => {
            let field = live_field(cx, key, facts, pair.0)?;
            field.and_then(|field| field.expires_at_ms)
        }
        Lifetime::Until(at_ms) if at_ms > cx.now_ms() => Some(at_ms),
        Lifetime::Until(_) => {
            remove(cx, key, facts, pair.0)?;
            return Ok(());
        }
    };
    put(cx, key, facts, pair, expires_at_ms)?;
    Ok(())
}
