//! Conditions on what a key holds, and the commands that are little else: DELEX, DELIFEQ, DIGEST.

use std::ops::ControlFlow;

use hybridlog::{Operation, Record};
use xxhash_rust::xxh3::Xxh3Default;

use super::string::{READ_FAST, STRING_ROW, WRITE_FAST, walk};
use super::{KIND_STRING, WRONG_TYPE, read_string};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "delifeq",
        arity: 3,
        flags: WRITE_FAST,
        since: "9.0.0",
        summary: "Deletes a key if it holds the given string.",
        handler: Handler::Worker(delifeq),
        ..STRING_ROW
    },
    Row {
        name: "delex",
        arity: -2,
        flags: WRITE_FAST,
        since: "8.4.0",
        complexity: "O(1), with IFDEQ or IFDNE O(N), N being the length of the string",
        summary: "Deletes a key if its string, or the digest of it, compares as asked.",
        handler: Handler::Worker(delex),
        ..STRING_ROW
    },
    Row {
        name: "digest",
        arity: 2,
        flags: READ_FAST,
        since: "8.4.0",
        complexity: "O(N), N being the length of the string",
        summary: "Returns the XXH3 hash of a string in hexadecimal.",
        handler: Handler::Worker(digest),
        ..STRING_ROW
    },
];

/// What must hold of a key for a command to change it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Condition<'a> {
    /// Nothing.
    Always,
    /// NX: the key does not exist.
    Absent,
    /// XX: the key exists.
    Present,
    /// IFEQ: it holds this string.
    Equal(&'a [u8]),
    /// IFNE: it does not exist, or holds another string.
    NotEqual(&'a [u8]),
    /// IFDEQ: it holds a string with this digest.
    DigestEqual(&'a [u8]),
    /// IFDNE: it does not exist, or holds a string with another digest.
    DigestNotEqual(&'a [u8]),
}

impl<'a> Condition<'a> {
    /// The condition that `option` (IFEQ, IFNE, IFDEQ or IFDNE, letter case aside) makes of its operand.
    pub(super) fn comparison(option: &[u8], operand: &'a [u8]) -> Option<Condition<'a>> {
        let is = |word: &[u8]| option.eq_ignore_ascii_case(word);
        match () {
            () if is(b"ifeq") => Some(Condition::Equal(operand)),
            () if is(b"ifne") => Some(Condition::NotEqual(operand)),
            () if is(b"ifdeq") => Some(Condition::DigestEqual(operand)),
            () if is(b"ifdne") => Some(Condition::DigestNotEqual(operand)),
            () => None,
        }
    }

    /// Whether it holds of what was found under the key. An error where a string is needed and found is something
    /// else, and where a digest is compared with what cannot be one.
    pub(super) fn holds(
        self,
        op: &Operation<'_>,
        found: Option<&Record<'_>>,
    ) -> Result<bool, Stop> {
        let Some(record) = found else {
            use Condition::{Absent, Always, DigestNotEqual, NotEqual};
            return Ok(matches!(
                self,
                Always | Absent | NotEqual(_) | DigestNotEqual(_)
            ));
        };
        match self {
            Condition::Always | Condition::Present => Ok(true),
            Condition::Absent => Ok(false),
            _ if record.meta().kind != KIND_STRING => Err(WRONG_TYPE.into()),
            Condition::Equal(value) => is_equal(op, record, value),
            Condition::NotEqual(value) => Ok(!is_equal(op, record, value)?),
            Condition::DigestEqual(digest) => has_digest(op, record, digest),
            Condition::DigestNotEqual(digest) => Ok(!has_digest(op, record, digest)?),
        }
    }
}

fn is_equal(op: &Operation<'_>, record: &Record<'_>, value: &[u8]) -> Result<bool, Stop> {
    if record.len() != value.len() as u64 {
        return Ok(false);
    }
    let differs = walk(op, record, 0..record.len(), |at, piece| {
        let at = at as usize;
        if value[at..at + piece.len()] == *piece {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(differs.is_none())
}

fn has_digest(op: &Operation<'_>, record: &Record<'_>, digest: &[u8]) -> Result<bool, Stop> {
    if digest.len() != 16 {
        return Err("ERR The digest must be exactly 16 hexadecimal characters".into());
    }
    Ok(digest_of(op, record)?
        .as_bytes()
        .eq_ignore_ascii_case(digest))
}

/// XXH3 of a string, as 16 hexadecimal digits.
fn digest_of(op: &Operation<'_>, record: &Record<'_>) -> Result<String, Stop> {
    let mut hash = Xxh3Default::new();
    walk(op, record, 0..record.len(), |_, piece| {
        hash.update(piece);
        ControlFlow::<()>::Continue(())
    })?;
    Ok(format!("{:016x}", hash.digest()))
}

fn delifeq(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let found = read_string(&cx.op, cx.namespace, &args[1])?;
    let delete = found.is_some() && Condition::Equal(&args[2]).holds(&cx.op, found.as_ref())?;
    if delete {
        cx.op.remove(cx.namespace, &args[1])?;
    }
    cx.reply.integer(i64::from(delete));
    Ok(())
}

fn delex(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if args.len() != 2 && args.len() != 4 {
        return Err("ERR wrong number of arguments for 'delex' command".into());
    }
    let delete = match cx.op.read(cx.namespace, &args[1])? {
        None => false,
        Some(_) if args.len() == 2 => true,
        Some(record) if record.meta().kind != KIND_STRING => {
            return Err("ERR Key should be of string type if conditions are specified".into());
        }
        Some(record) => Condition::comparison(&args[2], &args[3])
            .ok_or("ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE")?
            .holds(&cx.op, Some(&record))?,
    };
    if delete {
        cx.op.remove(cx.namespace, &args[1])?;
    }
    cx.reply.integer(i64::from(delete));
    Ok(())
}

fn digest(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    match read_string(&cx.op, cx.namespace, &args[1])? {
        Some(record) => {
            let digest = digest_of(&cx.op, &record)?;
            cx.reply.bulk(digest.as_bytes());
        }
        None => cx.reply.null(),
    }
    Ok(())
}
