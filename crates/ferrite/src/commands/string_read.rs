//! Reading strings, whole or in part: GET, MGET, STRLEN, GETRANGE, SUBSTR.

use super::parse::integer;
use super::string::{READ, READ_FAST, STRING_ROW, resolve_range};
use super::{KIND_STRING, read_each, read_string};
use crate::args::Args;
use crate::command::{Done, Handler, Keys, Row, tip};
use crate::ctx::{Ctx, reply_value};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "get",
        arity: 2,
        flags: READ_FAST,
        summary: "Returns the string stored under a key.",
        handler: Handler::Worker(get),
        ..STRING_ROW
    },
    Row {
        name: "mget",
        tips: tip::MULTI_SHARD,
        arity: -2,
        flags: READ_FAST,
        keys: Keys::Range {
            first: 1,
            last: -1,
            step: 1,
        },
        complexity: "O(N), N being the number of keys",
        summary: "Returns the strings stored under several keys.",
        handler: Handler::Worker(mget),
        ..STRING_ROW
    },
    Row {
        name: "strlen",
        arity: 2,
        flags: READ_FAST,
        since: "2.2.0",
        summary: "Returns the length of a string in bytes.",
        handler: Handler::Worker(strlen),
        ..STRING_ROW
    },
    Row {
        name: "getrange",
        arity: 4,
        flags: READ,
        since: "2.4.0",
        complexity: "O(N), N being the number of bytes returned",
        summary: "Returns a part of a string.",
        handler: Handler::Worker(getrange),
        ..STRING_ROW
    },
    Row {
        name: "substr",
        arity: 4,
        flags: READ,
        complexity: "O(N), N being the number of bytes returned",
        summary: "Returns a part of a string; the former name of GETRANGE.",
        handler: Handler::Worker(getrange),
        ..STRING_ROW
    },
];

fn get(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    match read_string(&cx.op, cx.namespace, &args[1])? {
        Some(record) => reply_value(&cx.op, &mut cx.client.allowance, cx.reply, &record)?,
        None => cx.reply.null(),
    }
    Ok(())
}

/// Keys that hold something else than a string count as absent.
fn mget(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let keys = args.from(1);
    cx.reply.array(keys.len());
    read_each(keys, |key| reply_string(cx, key))?;
    Ok(())
}

fn reply_string(cx: &mut Ctx<'_>, key: &[u8]) -> Done {
    match cx.op.read(cx.namespace, key)? {
        Some(record) if record.meta().kind == KIND_STRING => {
            reply_value(&cx.op, &mut cx.client.allowance, cx.reply, &record)?;
        }
        _ => cx.reply.null(),
    }
    Ok(())
}

fn strlen(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let len = read_string(&cx.op, cx.namespace, &args[1])?.map_or(0, |record| record.len());
    cx.reply.integer(len as i64);
    Ok(())
}

fn getrange(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    let Some(record) = read_string(&cx.op, cx.namespace, &args[1])? else {
        cx.reply.bulk(b"");
        return Ok(());
    };
    match resolve_range(start, end, record.len()) {
        Some(range) => {
            let part = cx.op.range(&record, range.start, range.end - range.start)?;
            cx.reply.bulk(&part);
        }
        None => cx.reply.bulk(b""),
    }
    Ok(())
}
