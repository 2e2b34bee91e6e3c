//! Commands on HyperLogLogs: PFADD, PFCOUNT, PFMERGE.
//!
//! One is a string, with the bytes that Redis gives it, so every string command can be used on it. A dense one is changed in
//! place: what is written, and logged, is from the first to the last byte that has changed.

use std::ops::Range;

use hybridlog::{Namespace, Operation};

use super::string::{GROW, GROW_FAST, STRING_ROW};
use super::string_write::store;
use super::{KIND_STRING, read_each, read_string};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;
use crate::hyperloglog::{Corrupted, Encoding, HEADER_BYTES, MAX_BYTES, Registers, Sketch};

/// What rows of HyperLogLog commands have in common.
pub(super) const HYPERLOGLOG_ROW: Row = Row {
    categories: &["hyperloglog"],
    group: "hyperloglog",
    since: "2.8.9",
    ..STRING_ROW
};

const ALL_ARGUMENTS: Keys = Keys::Range {
    first: 1,
    last: -1,
    step: 1,
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "pfadd",
        arity: -2,
        flags: GROW_FAST,
        complexity: "O(1) for each element",
        summary: "Counts elements in a HyperLogLog, which is created if it does not exist.",
        handler: Handler::Worker(pfadd),
        ..HYPERLOGLOG_ROW
    },
    Row {
        name: "pfcount",
        arity: -2,
        flags: Flags::READONLY.and(Flags::NOTES),
        keys: ALL_ARGUMENTS,
        complexity: "O(1) for one key whose count is known, else O(N), N being the number of keys",
        summary: "Estimates how many different elements HyperLogLogs have seen together.",
        handler: Handler::Worker(pfcount),
        ..HYPERLOGLOG_ROW
    },
    Row {
        name: "pfmerge",
        arity: -2,
        flags: GROW,
        keys: ALL_ARGUMENTS,
        complexity: "O(N), N being the number of keys",
        summary: "Merges HyperLogLogs into one, which is created if it does not exist.",
        handler: Handler::Worker(pfmerge),
        ..HYPERLOGLOG_ROW
    },
];

const NOT_ONE: &str = "WRONGTYPE Key is not a valid HyperLogLog string value.";
const CORRUPTED: &str = "INVALIDOBJ Corrupted HLL object detected";

impl From<Corrupted> for Stop {
    fn from(_: Corrupted) -> Self {
        CORRUPTED.into()
    }
}

/// A HyperLogLog that was found under a key.
pub(super) struct Found<'r> {
    pub(super) sketch: Sketch<'r>,
    pub(super) expires_at_ms: Option<u64>,
}

/// Finds the HyperLogLog stored under `key`; an error if the key holds something else.
pub(super) fn find<'r>(
    op: &'r Operation<'_>,
    namespace: Namespace,
    key: &[u8],
) -> Result<Option<Found<'r>>, Stop> {
    let Some(record) = read_string(op, namespace, key)? else {
        return Ok(None);
    };
    if record.len() > MAX_BYTES as u64 {
        let header = op.range(&record, 0, HEADER_BYTES as u64)?;
        let has_header = Sketch::parse(header).is_some();
        return Err(if has_header { CORRUPTED } else { NOT_ONE }.into());
    }
    let sketch = Sketch::parse(op.value(&record)?).ok_or(NOT_ONE)?;
    Ok(Some(Found {
        sketch,
        expires_at_ms: record.meta().expires_at_ms,
    }))
}

pub(super) fn sparse_max_bytes(cx: &Ctx<'_>) -> u64 {
    cx.worker.settings(|settings| settings.hll_sparse_max_bytes)
}

fn pfadd(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let most = sparse_max_bytes(cx);
    let found = find(&cx.op, cx.namespace, key)?;
    let mut has_changed = found.is_none();
    let (mut sketch, expires_at_ms) = match found {
        Some(found) => (found.sketch, found.expires_at_ms),
        None => (Sketch::new(), None),
    };
    let was_dense = sketch.encoding() == Encoding::Dense;
    for element in args.from(2) {
        has_changed |= sketch.add(element, most)?;
    }
    if has_changed {
        sketch.forget_count();
        let changed = sketch.changed_bytes();
        let bytes = sketch.into_bytes();
        match was_dense {
            true => overwrite(cx, key, &bytes, changed)?,
            false => store(cx, key, &bytes, expires_at_ms)?,
        }
    }
    cx.reply.integer(i64::from(has_changed));
    Ok(())
}

/// Writes those of the bytes under a key that have changed.
fn overwrite(cx: &mut Ctx<'_>, key: &[u8], bytes: &[u8], changed: Range<usize>) -> Done {
    let start = changed.start as u64;
    cx.op
        .write_range(cx.namespace, key, start, &bytes[changed], KIND_STRING)?;
    Ok(())
}

fn pfcount(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let count = match args.len() {
        2 => count_one(cx, &args[1])?,
        _ => merged(cx, args)?.registers.count(),
    };
    cx.reply.integer(count as i64);
    Ok(())
}

/// What is counted under a key; the count is noted there.
fn count_one(cx: &mut Ctx<'_>, key: &[u8]) -> Result<u64, Stop> {
    let Some(Found { mut sketch, .. }) = find(&cx.op, cx.namespace, key)? else {
        return Ok(0);
    };
    if let Some(count) = sketch.known_count() {
        return Ok(count);
    }
    let count = sketch.count()?;
    if may_change(cx) {
        sketch.note_count(count);
        let changed = sketch.changed_bytes();
        let bytes = sketch.into_bytes();
        overwrite(cx, key, &bytes, changed)?;
    }
    Ok(count)
}

/// Whether a command that only reads may note what it has found out, and does not wait for something that may never be.
fn may_change(cx: &Ctx<'_>) -> bool {
    let store = &cx.server.store;
    !store.is_out_of_memory() && !store.is_disk_full() && cx.server.persistence.refusal().is_none()
}

/// Several HyperLogLogs together.
struct Merged {
    registers: Registers,
    /// Whether one of them is dense.
    is_dense: bool,
}

/// Merges those under all keys.
fn merged(cx: &Ctx<'_>, args: Args<'_>) -> Result<Merged, Stop> {
    let mut merged = Merged {
        registers: Registers::new(),
        is_dense: false,
    };
    read_each(args.from(1), |key| {
        if let Some(Found { sketch, .. }) = find(&cx.op, cx.namespace, key)? {
            sketch.merge_into(&mut merged.registers)?;
            merged.is_dense |= sketch.encoding() == Encoding::Dense;
        }
        Ok(())
    })?;
    Ok(merged)
}

fn pfmerge(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let most = sparse_max_bytes(cx);
    let Merged {
        registers,
        is_dense,
    } = merged(cx, args)?;
    let (mut sketch, expires_at_ms) = match find(&cx.op, cx.namespace, key)? {
        Some(found) => (found.sketch, found.expires_at_ms),
        None => (Sketch::new(), None),
    };
    if is_dense {
        sketch.make_dense()?;
    }
    let values = registers.iter().enumerate();
    for (register, value) in values.filter(|&(_, value)| value > 0) {
        sketch.raise(register, value, most)?;
    }
    sketch.forget_count();
    let bytes = sketch.into_bytes();
    store(cx, key, &bytes, expires_at_ms)?;
    cx.reply.ok();
    Ok(())
}
