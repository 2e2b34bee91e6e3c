//! Strings as numbers: INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT. The new number keeps the expiry of the old.

use hybridlog::Meta;

use super::extended_float::{ExtendedFloat, TEXT_MAX_BYTES};
use super::parse::{INTEGER_MAX_BYTES, NOT_AN_INTEGER, integer};
use super::string::{GROW_FAST, STRING_ROW};
use super::{KIND_STRING, read_string};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "incr",
        arity: 2,
        flags: GROW_FAST,
        summary: "Adds one to an integer; a key that does not exist counts as 0.",
        handler: Handler::Worker(incr),
        ..STRING_ROW
    },
    Row {
        name: "decr",
        arity: 2,
        flags: GROW_FAST,
        summary: "Subtracts one from an integer; a key that does not exist counts as 0.",
        handler: Handler::Worker(decr),
        ..STRING_ROW
    },
    Row {
        name: "incrby",
        arity: 3,
        flags: GROW_FAST,
        summary: "Adds to an integer; a key that does not exist counts as 0.",
        handler: Handler::Worker(incrby),
        ..STRING_ROW
    },
    Row {
        name: "decrby",
        arity: 3,
        flags: GROW_FAST,
        summary: "Subtracts from an integer; a key that does not exist counts as 0.",
        handler: Handler::Worker(decrby),
        ..STRING_ROW
    },
    Row {
        name: "incrbyfloat",
        arity: 3,
        flags: GROW_FAST,
        since: "2.6.0",
        summary: "Adds to a floating-point number; a key that does not exist counts as 0.",
        handler: Handler::Worker(incrbyfloat),
        ..STRING_ROW
    },
];

const NOT_A_FLOAT: &str = "ERR value is not a valid float";

fn incr(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    add_integer(cx, &args[1], 1)
}

fn decr(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    add_integer(cx, &args[1], -1)
}

fn incrby(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    add_integer(cx, &args[1], integer(&args[2])?)
}

fn decrby(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let decrement = integer(&args[2])?;
    let increment = decrement
        .checked_neg()
        .ok_or("ERR decrement would overflow")?;
    add_integer(cx, &args[1], increment)
}

fn add_integer(cx: &mut Ctx<'_>, key: &[u8], increment: i64) -> Done {
    let (before, meta) = read_number(cx, key, INTEGER_MAX_BYTES, NOT_AN_INTEGER, |text| {
        integer(text).ok()
    })?;
    let sum = before
        .unwrap_or(0)
        .checked_add(increment)
        .ok_or("ERR increment or decrement would overflow")?;
    let mut text = Vec::with_capacity(INTEGER_MAX_BYTES);
    resp::append_integer(&mut text, sum);
    cx.op.set(cx.namespace, key, &text, meta)?;
    cx.reply.integer(sum);
    Ok(())
}

fn incrbyfloat(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (before, meta) = read_number(
        cx,
        &args[1],
        TEXT_MAX_BYTES,
        NOT_A_FLOAT,
        ExtendedFloat::parse,
    )?;
    let increment = ExtendedFloat::parse(&args[2]).ok_or(NOT_A_FLOAT)?;
    let text = before
        .unwrap_or(ExtendedFloat::ZERO)
        .checked_add(increment)
        .ok_or("ERR increment would produce NaN or Infinity")?
        .to_decimal();
    cx.op.set(cx.namespace, &args[1], &text, meta)?;
    cx.reply.bulk(&text);
    Ok(())
}

/// The number stored under `key`, if the key exists, and with what to store its successor. A string that is over
/// `max_bytes` long is no number, and is not read.
fn read_number<T>(
    cx: &Ctx<'_>,
    key: &[u8],
    max_bytes: usize,
    error: &'static str,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<(Option<T>, Meta), Stop> {
    match read_string(&cx.op, cx.namespace, key)? {
        None => Ok((
            None,
            Meta {
                kind: KIND_STRING,
                expires_at_ms: None,
            },
        )),
        Some(record) if record.len() > max_bytes as u64 => Err(error.into()),
        Some(record) => {
            let number = parse(&cx.op.value(&record)?).ok_or(error)?;
            Ok((Some(number), record.meta()))
        }
    }
}
