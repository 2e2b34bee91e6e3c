//! Fields as numbers: HINCRBY, HINCRBYFLOAT. The new number keeps the expiry of the old.

use super::extended_float::{ExtendedFloat, TEXT_MAX_BYTES};
use super::hash::{Facts, HASH_ROW, Hash, put};
use super::parse::{INTEGER_MAX_BYTES, integer, strict_integer};
use super::string::GROW_FAST;
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "hincrby",
        arity: 4,
        flags: GROW_FAST,
        summary: "Adds to an integer in a field of a hash; a field that does not exist counts as 0.",
        handler: Handler::Worker(hincrby),
        ..HASH_ROW
    },
    Row {
        name: "hincrbyfloat",
        arity: 4,
        flags: GROW_FAST,
        since: "2.6.0",
        summary: "Adds to a floating-point number in a field of a hash; a field that does not exist counts as 0.",
        handler: Handler::Worker(hincrbyfloat),
        ..HASH_ROW
    },
];

fn hincrby(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let increment = integer(&args[3])?;
    let (before, expires_at_ms) = read_number(
        cx,
        args,
        INTEGER_MAX_BYTES,
        "ERR hash value is not an integer",
        strict_integer,
    )?;
    let sum = before
        .unwrap_or(0)
        .checked_add(increment)
        .ok_or("ERR increment or decrement would overflow")?;
    let mut text = Vec::with_capacity(INTEGER_MAX_BYTES);
    resp::append_integer(&mut text, sum);
    store_number(cx, args, &text, expires_at_ms)?;
    cx.reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let increment = ExtendedFloat::parse(&args[3]).ok_or("ERR value is not a valid float")?;
    if !increment.is_finite() {
        return Err("ERR value is NaN or Infinity".into());
    }
    let (before, expires_at_ms) = read_number(
        cx,
        args,
        TEXT_MAX_BYTES,
        "ERR hash value is not a float",
        ExtendedFloat::parse,
    )?;
    let text = before
        .unwrap_or(ExtendedFloat::ZERO)
        .checked_add(increment)
        .ok_or("ERR increment would produce NaN or Infinity")?
        .to_decimal();
    store_number(cx, args, &text, expires_at_ms)?;
    cx.reply.bulk(&text);
    Ok(())
}

/// The number in the field that the command names, if it is there, and when it expires. What is over `max_bytes` long is no
/// number.
fn read_number<T>(
    cx: &Ctx<'_>,
    args: Args<'_>,
    max_bytes: usize,
    error: &'static str,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<(Option<T>, Option<u64>), Stop> {
    let hash = Hash::find(&cx.op, cx.namespace, &args[1])?;
    let found = hash.map(|hash| hash.get(&args[2])).transpose()?.flatten();
    let Some(element) = found else {
        return Ok((None, None));
    };
    let number = Some(&element.value).filter(|value| value.len() <= max_bytes);
    let number = number.and_then(|value| parse(value)).ok_or(error)?;
    Ok((Some(number), element.expires_at_ms))
}

/// Stores the number. The one before has been read in the same run: had that changed anything, it would not have ended there.
fn store_number(
    cx: &mut Ctx<'_>,
    args: Args<'_>,
    text: &[u8],
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    let (key, field) = (&args[1], &args[2]);
    let mut facts = Facts::gather(cx, key)?;
    put(cx, key, &mut facts, (field, text), expires_at_ms)?;
    Ok(())
}
