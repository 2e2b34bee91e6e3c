//! BITOP: strings combined bit by bit into another.
//!
//! The result is as long as the longest source; shorter ones, and keys that do not exist, count as followed by zeros.
//! Sources are read block by block, so only the result is held whole.

use std::borrow::Cow;

use hybridlog::{Operation, Record};

use super::parse::SYNTAX_ERROR;
use super::string::{BITMAP_ROW, GROW, WALK_BYTES, want};
use super::string_write::store;
use super::{read_each, read_string};
use crate::args::Args;
use crate::command::{Done, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[Row {
    name: "bitop",
    arity: -4,
    flags: GROW,
    keys: Keys::Range {
        first: 2,
        last: -1,
        step: 1,
    },
    complexity: "O(N), N being the bytes of all sources",
    summary: "Combines strings bit by bit and stores the result.",
    handler: Handler::Worker(bitop),
    ..BITMAP_ROW
}];

/// How the bits of the sources, X first and then Y1, Y2, ..., are combined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BitOperation {
    And,
    Or,
    Xor,
    Not,
    /// X and no Y.
    Diff,
    /// Some Y and not X.
    Diff1,
    /// X and some Y.
    AndOr,
    /// Exactly one source.
    One,
}

impl BitOperation {
    /// The operation called `name`, and its name in the form errors give it.
    fn parse(name: &[u8]) -> Option<(BitOperation, &'static str)> {
        const NAMES: [(&str, BitOperation); 8] = [
            ("AND", BitOperation::And),
            ("OR", BitOperation::Or),
            ("XOR", BitOperation::Xor),
            ("NOT", BitOperation::Not),
            ("DIFF", BitOperation::Diff),
            ("DIFF1", BitOperation::Diff1),
            ("ANDOR", BitOperation::AndOr),
            ("ONE", BitOperation::One),
        ];
        let found = NAMES
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))?;
        Some((found.1, found.0))
    }

    /// Writes the combination of `count` sources, of which `read` gives one after the other and none longer than
    /// it, over the zeros of `result`.
    fn combine<'r>(
        self,
        count: usize,
        result: &mut [u8],
        read: impl Fn(usize) -> Result<Cow<'r, [u8]>, hybridlog::Stop>,
    ) -> Result<(), hybridlog::Stop> {
        match self {
            BitOperation::And | BitOperation::Or | BitOperation::Xor => {
                or_into(result, &read(0)?);
                for y in 1..count {
                    match self {
                        BitOperation::And => and_into(result, &read(y)?),
                        BitOperation::Or => or_into(result, &read(y)?),
                        _ => xor_into(result, &read(y)?),
                    }
                }
            }
            BitOperation::Not => {
                result.fill(0xFF);
                xor_into(result, &read(0)?);
            }
            BitOperation::Diff | BitOperation::Diff1 | BitOperation::AndOr => {
                for y in 1..count {
                    or_into(result, &read(y)?);
                }
                if self == BitOperation::Diff {
                    result.iter_mut().for_each(|byte| *byte = !*byte);
                }
                if self == BitOperation::Diff1 {
                    clear_in(result, &read(0)?);
                } else {
                    and_into(result, &read(0)?);
                }
            }
            BitOperation::One => {
                let mut repeated = vec![0; result.len()];
                for source in 0..count {
                    add_to_seen(result, &mut repeated, &read(source)?);
                }
                clear_in(result, &repeated);
            }
        }
        Ok(())
    }
}

/// Notes the bits of `source` as seen, those that had been seen before as repeated.
fn add_to_seen(seen: &mut [u8], repeated: &mut [u8], source: &[u8]) {
    for ((seen, repeated), byte) in seen.iter_mut().zip(repeated).zip(source) {
        *repeated |= *seen & byte;
        *seen |= byte;
    }
}

fn and_into(result: &mut [u8], source: &[u8]) {
    result
        .iter_mut()
        .zip(source)
        .for_each(|(byte, other)| *byte &= other);
    result[source.len()..].fill(0);
}

fn or_into(result: &mut [u8], source: &[u8]) {
    result
        .iter_mut()
        .zip(source)
        .for_each(|(byte, other)| *byte |= other);
}

fn xor_into(result: &mut [u8], source: &[u8]) {
    result
        .iter_mut()
        .zip(source)
        .for_each(|(byte, other)| *byte ^= other);
}

fn clear_in(result: &mut [u8], source: &[u8]) {
    result
        .iter_mut()
        .zip(source)
        .for_each(|(byte, other)| *byte &= !other);
}

fn bitop(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    use BitOperation::{AndOr, Diff, Diff1, Not};
    let (operation, name) = BitOperation::parse(&args[1]).ok_or(SYNTAX_ERROR)?;
    if operation == Not && args.len() != 4 {
        return Err("ERR BITOP NOT must be called with a single source key.".into());
    }
    if matches!(operation, Diff | Diff1 | AndOr) && args.len() < 5 {
        let error = format!("ERR BITOP {name} must be called with at least two source keys.");
        return Err(error.into());
    }
    let sources: Vec<Option<Record<'_>>> =
        read_each(args.from(3), |key| read_string(&cx.op, cx.namespace, key))?;
    let result = combine_all(&cx.op, operation, &sources)?;
    if result.is_empty() {
        cx.op.remove(cx.namespace, &args[2])?;
    } else {
        store(cx, &args[2], &result, None)?;
    }
    cx.reply.integer(result.len() as i64);
    Ok(())
}

fn combine_all(
    op: &Operation<'_>,
    operation: BitOperation,
    sources: &[Option<Record<'_>>],
) -> Result<Vec<u8>, Stop> {
    let len = sources.iter().flatten().map(Record::len).max().unwrap_or(0);
    let mut result = vec![0; len as usize];
    for (i, block) in result.chunks_mut(WALK_BYTES).enumerate() {
        let (at, block_len) = ((i * WALK_BYTES) as u64, block.len() as u64);
        let read = |source: usize| match &sources[source] {
            Some(record) => op.range(record, at, block_len),
            None => Ok(Cow::Borrowed(&[][..])),
        };
        operation
            .combine(sources.len(), block, read)
            .inspect_err(|_| {
                let sources = sources.iter().flatten();
                sources.for_each(|record| want(op, record, at..record.len().max(at)));
            })?;
    }
    Ok(result)
}
