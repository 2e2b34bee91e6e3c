//! Storing and taking out whole strings: SET and its kin, GETSET, GETDEL, GETEX.
//!
//! A store that needs to know nothing of what is there (SET without conditions, SETEX) reads nothing: a cold key is
//! overwritten without touching the device.

use hybridlog::Meta;

use super::parse::{ExpiryUnit, SYNTAX_ERROR, expiry};
use super::string::{GROW, GROW_FAST, STRING_ROW, WRITE_FAST};
use super::string_condition::Condition;
use super::{KIND_STRING, read_string};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, Stop};
use crate::ctx::{Ctx, reply_value};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "set",
        arity: -3,
        flags: GROW.and(Flags::BLIND),
        summary: "Stores a string under a key, whatever it held.",
        handler: Handler::Worker(set),
        ..STRING_ROW
    },
    Row {
        name: "setnx",
        arity: 3,
        flags: GROW_FAST,
        summary: "Stores a string under a key that does not exist yet.",
        handler: Handler::Worker(setnx),
        ..STRING_ROW
    },
    Row {
        name: "setex",
        arity: 4,
        flags: GROW.and(Flags::BLIND),
        since: "2.0.0",
        summary: "Stores a string under a key that expires after some seconds.",
        handler: Handler::Worker(setex),
        ..STRING_ROW
    },
    Row {
        name: "psetex",
        arity: 4,
        flags: GROW.and(Flags::BLIND),
        since: "2.6.0",
        summary: "Stores a string under a key that expires after some milliseconds.",
        handler: Handler::Worker(psetex),
        ..STRING_ROW
    },
    Row {
        name: "getset",
        arity: 3,
        flags: GROW_FAST.and(Flags::COUNTS_HITS),
        summary: "Stores a string under a key and returns the one it held.",
        handler: Handler::Worker(getset),
        ..STRING_ROW
    },
    Row {
        name: "getdel",
        arity: 2,
        flags: WRITE_FAST.and(Flags::COUNTS_HITS),
        since: "6.2.0",
        summary: "Returns the string stored under a key and deletes the key.",
        handler: Handler::Worker(getdel),
        ..STRING_ROW
    },
    Row {
        name: "getex",
        arity: -2,
        flags: WRITE_FAST.and(Flags::COUNTS_HITS),
        since: "6.2.0",
        summary: "Returns the string stored under a key and sets or removes its expiry.",
        handler: Handler::Worker(getex),
        ..STRING_ROW
    },
];

/// When a stored string expires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lifetime<'a> {
    /// Never.
    Unlimited,
    /// KEEPTTL: when the value it replaces would have.
    Kept,
    /// EX, PX, EXAT, PXAT: at a time given in this unit.
    Until(ExpiryUnit, &'a [u8]),
}

/// The options of SET and MSETEX.
pub(super) struct StoreOptions<'a> {
    pub(super) condition: Condition<'a>,
    pub(super) lifetime: Lifetime<'a>,
    /// GET: reply with what the key held.
    get: bool,
}

/// Which options a command takes beyond NX, XX and those about expiry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OptionSet {
    /// GET and comparisons.
    Set,
    /// No more.
    Msetex,
}

impl<'a> StoreOptions<'a> {
    /// Reads the options from argument `first` on. Options may repeat; those of different kinds exclude each other.
    pub(super) fn parse(
        args: Args<'a>,
        first: usize,
        set: OptionSet,
    ) -> Result<StoreOptions<'a>, Stop> {
        let mut options = StoreOptions {
            condition: Condition::Always,
            lifetime: Lifetime::Unlimited,
            get: false,
        };
        let mut words = args.from(first);
        while let Some(word) = words.next() {
            let is = |option: &[u8]| word.eq_ignore_ascii_case(option);
            if is(b"nx") {
                options.require(Condition::Absent)?;
            } else if is(b"xx") {
                options.require(Condition::Present)?;
            } else if is(b"keepttl") {
                options.live(Lifetime::Kept)?;
            } else if is(b"get") && set == OptionSet::Set {
                options.get = true;
            } else if let Some(unit) = ExpiryUnit::from_option(word) {
                options.live(Lifetime::Until(unit, words.next().ok_or(SYNTAX_ERROR)?))?;
            } else if set == OptionSet::Set {
                let operand = words.next().ok_or(SYNTAX_ERROR)?;
                options.require(Condition::comparison(word, operand).ok_or(SYNTAX_ERROR)?)?;
            } else {
                return Err(SYNTAX_ERROR.into());
            }
        }
        Ok(options)
    }

    fn require(&mut self, condition: Condition<'a>) -> Result<(), Stop> {
        let repeats_flag = condition == self.condition
            && matches!(condition, Condition::Absent | Condition::Present);
        if self.condition != Condition::Always && !repeats_flag {
            return Err(SYNTAX_ERROR.into());
        }
        self.condition = condition;
        Ok(())
    }

    fn live(&mut self, lifetime: Lifetime<'a>) -> Result<(), Stop> {
        match (self.lifetime, lifetime) {
            (Lifetime::Unlimited, _) | (Lifetime::Kept, Lifetime::Kept) => {}
            (Lifetime::Until(before, _), Lifetime::Until(now, _)) if before == now => {}
            _ => return Err(SYNTAX_ERROR.into()),
        }
        self.lifetime = lifetime;
        Ok(())
    }
}

impl Lifetime<'_> {
    /// The expiry that is given by itself, Unix milliseconds. `command` is named by errors.
    pub(super) fn fixed(self, now_ms: u64, command: &str) -> Result<Option<u64>, Stop> {
        match self {
            Lifetime::Unlimited | Lifetime::Kept => Ok(None),
            Lifetime::Until(unit, time) => expiry(time, unit, now_ms, command).map(Some),
        }
    }
}

fn set(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let options = StoreOptions::parse(args, 3, OptionSet::Set)?;
    let mut expires_at_ms = options.lifetime.fixed(cx.now_ms(), "set")?;
    let must_read =
        options.get || options.condition != Condition::Always || options.lifetime == Lifetime::Kept;
    if must_read {
        let found = if options.get {
            read_string(&cx.op, cx.namespace, &args[1])?
        } else {
            cx.op.read(cx.namespace, &args[1])?
        };
        let holds = options.condition.holds(&cx.op, found.as_ref())?;
        match &found {
            Some(record) if options.get => {
                reply_value(&cx.op, &mut cx.client.allowance, cx.reply, record)?;
            }
            _ if options.get || !holds => cx.reply.null(),
            _ => {}
        }
        if !holds {
            return Ok(());
        }
        if options.lifetime == Lifetime::Kept {
            expires_at_ms = found.and_then(|record| record.meta().expires_at_ms);
        }
    }
    store(cx, &args[1], &args[2], expires_at_ms)?;
    if !options.get {
        cx.reply.ok();
    }
    Ok(())
}

/// Stores a string, whatever the key holds.
pub(super) fn store(
    cx: &mut Ctx<'_>,
    key: &[u8],
    value: &[u8],
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    Ok(cx.op.set(
        cx.namespace,
        key,
        value,
        Meta {
            kind: KIND_STRING,
            expires_at_ms,
        },
    )?)
}

fn setnx(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let absent = cx.op.read(cx.namespace, &args[1])?.is_none();
    if absent {
        store(cx, &args[1], &args[2], None)?;
    }
    cx.reply.integer(i64::from(absent));
    Ok(())
}

fn setex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let expires_at_ms = expiry(&args[2], ExpiryUnit::Seconds, cx.now_ms(), "setex")?;
    store(cx, &args[1], &args[3], Some(expires_at_ms))?;
    cx.reply.ok();
    Ok(())
}

fn psetex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let expires_at_ms = expiry(&args[2], ExpiryUnit::Milliseconds, cx.now_ms(), "psetex")?;
    store(cx, &args[1], &args[3], Some(expires_at_ms))?;
    cx.reply.ok();
    Ok(())
}

fn getset(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    match read_string(&cx.op, cx.namespace, &args[1])? {
        Some(record) => reply_value(&cx.op, &mut cx.client.allowance, cx.reply, &record)?,
        None => cx.reply.null(),
    }
    store(cx, &args[1], &args[2], None)
}

fn getdel(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    match read_string(&cx.op, cx.namespace, &args[1])? {
        Some(record) => reply_value(&cx.op, &mut cx.client.allowance, cx.reply, &record)?,
        None => {
            cx.reply.null();
            return Ok(());
        }
    }
    cx.op.remove(cx.namespace, &args[1])?;
    Ok(())
}

/// What GETEX does with the expiry of the key.
enum ExpiryChange<'a> {
    None,
    Persist,
    Set(ExpiryUnit, &'a [u8]),
}

impl<'a> ExpiryChange<'a> {
    fn parse(args: Args<'a>) -> Result<ExpiryChange<'a>, Stop> {
        let mut change = ExpiryChange::None;
        let mut words = args.from(2);
        while let Some(word) = words.next() {
            let unit = ExpiryUnit::from_option(word);
            change = match (change, unit) {
                (ExpiryChange::None | ExpiryChange::Persist, None)
                    if word.eq_ignore_ascii_case(b"persist") =>
                {
                    ExpiryChange::Persist
                }
                (ExpiryChange::None, Some(unit)) => {
                    ExpiryChange::Set(unit, words.next().ok_or(SYNTAX_ERROR)?)
                }
                (ExpiryChange::Set(before, _), Some(unit)) if before == unit => {
                    ExpiryChange::Set(unit, words.next().ok_or(SYNTAX_ERROR)?)
                }
                _ => return Err(SYNTAX_ERROR.into()),
            };
        }
        Ok(change)
    }
}

fn getex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let change = ExpiryChange::parse(args)?;
    let Some(record) = read_string(&cx.op, cx.namespace, &args[1])? else {
        cx.reply.null();
        return Ok(());
    };
    let expires_at_ms = match change {
        ExpiryChange::None => record.meta().expires_at_ms,
        ExpiryChange::Persist => None,
        ExpiryChange::Set(unit, time) => Some(expiry(time, unit, cx.now_ms(), "getex")?),
    };
    reply_value(&cx.op, &mut cx.client.allowance, cx.reply, &record)?;
    if expires_at_ms == record.meta().expires_at_ms {
        return Ok(());
    }
    if expires_at_ms.is_some_and(|at_ms| at_ms <= cx.now_ms()) {
        cx.op.remove(cx.namespace, &args[1])?;
    } else {
        cx.op.set_expiry(cx.namespace, &args[1], expires_at_ms)?;
    }
    Ok(())
}
