//! Single bits of a string: SETBIT, GETBIT. Bit 0 is the highest of the first byte.

use super::string::{BITMAP_ROW, GROW, READ_FAST, is_allowed_length};
use super::{KIND_STRING, read_string};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;
use crate::server::Server;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "setbit",
        arity: 4,
        flags: GROW,
        since: "2.2.0",
        summary: "Sets or clears one bit of a string, which grows as needed; returns what it was.",
        handler: Handler::Worker(setbit),
        ..BITMAP_ROW
    },
    Row {
        name: "getbit",
        arity: 3,
        flags: READ_FAST,
        since: "2.2.0",
        summary: "Returns one bit of a string.",
        handler: Handler::Worker(getbit),
        ..BITMAP_ROW
    },
];

const OFFSET_ERROR: &str = "ERR bit offset is not an integer or out of range";

/// Argument `arg` as the position of a bit in a string of allowed length.
pub(super) fn bit_offset(arg: &[u8], server: &Server) -> Result<u64, Stop> {
    let offset = resp::parse_integer(arg).ok_or(OFFSET_ERROR)?;
    allowed_bit_offset(Some(offset), server)
}

/// `offset`, if a string of allowed length has that bit.
pub(super) fn allowed_bit_offset(offset: Option<i64>, server: &Server) -> Result<u64, Stop> {
    offset
        .and_then(|offset| u64::try_from(offset).ok())
        .filter(|offset| is_allowed_length(server, offset / 8 + 1))
        .ok_or(OFFSET_ERROR.into())
}

fn setbit(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let offset = bit_offset(&args[2], cx.server)?;
    let bit = match &args[3] {
        b"0" => 0,
        b"1" => 1,
        _ => return Err("ERR bit is not an integer or out of range".into()),
    };
    let before = byte_at(cx, &args[1], offset / 8)?;
    let shift = 7 - offset % 8;
    let byte = before.unwrap_or(0);
    let changed = byte & !(1 << shift) | bit << shift;
    if before != Some(changed) {
        cx.op
            .write_range(cx.namespace, &args[1], offset / 8, &[changed], KIND_STRING)?;
    }
    cx.reply.integer(i64::from(byte >> shift & 1));
    Ok(())
}

fn getbit(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let offset = bit_offset(&args[2], cx.server)?;
    let byte = byte_at(cx, &args[1], offset / 8)?.unwrap_or(0);
    cx.reply.integer(i64::from(byte >> (7 - offset % 8) & 1));
    Ok(())
}

/// Byte `at` of the string under `key`; `None` if there is none that long.
fn byte_at(cx: &Ctx<'_>, key: &[u8], at: u64) -> Result<Option<u8>, Stop> {
    match read_string(&cx.op, cx.namespace, key)? {
        Some(record) => Ok(cx.op.range(&record, at, 1)?.first().copied()),
        None => Ok(None),
    }
}
