//! Changing a part of a string: APPEND, SETRANGE. Of a large value only the part is written.

use super::parse::integer;
use super::string::{GROW, GROW_FAST, STRING_ROW, check_length};
use super::string_write::store;
use super::{KIND_STRING, read_string};
use crate::args::Args;
use crate::command::{Done, Handler, Row};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "append",
        arity: 3,
        flags: GROW_FAST,
        since: "2.0.0",
        complexity: "O(N), N being the number of bytes added",
        summary: "Adds bytes to the end of a string, which is created if it does not exist.",
        handler: Handler::Worker(append),
        ..STRING_ROW
    },
    Row {
        name: "setrange",
        arity: 4,
        flags: GROW,
        since: "2.2.0",
        complexity: "O(N), N being the number of bytes written and the zeros before them",
        summary: "Overwrites a part of a string, which grows as needed.",
        handler: Handler::Worker(setrange),
        ..STRING_ROW
    },
];

fn append(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let added = &args[2];
    let len = match read_string(&cx.op, cx.namespace, &args[1])?.map(|record| record.len()) {
        None => {
            store(cx, &args[1], added, None)?;
            added.len() as u64
        }
        Some(len) => {
            // Nothing added is a change too, as in Redis.
            check_length(cx.server, len, added.len())?;
            cx.op
                .write_range(cx.namespace, &args[1], len, added, KIND_STRING)?
        }
    };
    cx.reply.integer(len as i64);
    Ok(())
}

fn setrange(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let offset = integer(&args[2])?;
    let offset = u64::try_from(offset).map_err(|_| "ERR offset is out of range")?;
    let bytes = &args[3];
    let len = read_string(&cx.op, cx.namespace, &args[1])?.map_or(0, |record| record.len());
    let len = if bytes.is_empty() {
        len
    } else {
        check_length(cx.server, offset, bytes.len())?;
        cx.op
            .write_range(cx.namespace, &args[1], offset, bytes, KIND_STRING)?
    };
    cx.reply.integer(len as i64);
    Ok(())
}
