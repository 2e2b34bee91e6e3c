//! Looking into HyperLogLogs, and trying them: PFDEBUG, PFSELFTEST.

use std::fmt::Write;

use super::hyperloglog::{Found, HYPERLOGLOG_ROW, find};
use super::string::GROW;
use super::string_write::store;
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::{Ctx, SlowCtx};
use crate::hyperloglog::{Encoding, REGISTERS, Registers, Run, Sketch};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "pfdebug",
        arity: 3,
        flags: GROW.and(Flags::ADMIN),
        keys: Keys::Range {
            first: 2,
            last: 2,
            step: 1,
        },
        complexity: "O(1)",
        summary: "Shows the registers, the runs or the encoding of a HyperLogLog, or makes it dense.",
        handler: Handler::Worker(pfdebug),
        ..HYPERLOGLOG_ROW
    },
    Row {
        name: "pfselftest",
        arity: 1,
        flags: Flags::ADMIN,
        keys: Keys::None,
        complexity: "O(1)",
        summary: "Tries whether HyperLogLogs count as they should.",
        handler: Handler::Slow(pfselftest),
        ..HYPERLOGLOG_ROW
    },
];

/// What an integer or a run takes in a reply, at most.
const SHOWN_BYTES: usize = 16;

fn pfdebug(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let found = find(&cx.op, cx.namespace, &args[2])?;
    let found = found.ok_or("ERR The specified key does not exist")?;
    let name = String::from_utf8_lossy(&args[1]);
    let is_known = ["getreg", "decode", "encoding", "todense"]
        .iter()
        .any(|known| args.is(1, known));
    if !is_known {
        return Err(format!("ERR Unknown PFDEBUG subcommand '{name}'").into());
    }
    if args.is(1, "encoding") {
        cx.reply.simple(match found.sketch.encoding() {
            Encoding::Dense => "dense",
            Encoding::Sparse => "sparse",
        });
        return Ok(());
    }
    if args.is(1, "decode") {
        let text = shown_runs(&found.sketch)?;
        return cx
            .reply
            .bulk_within(&mut cx.client.allowance, text.as_bytes());
    }
    let registers = args.is(1, "getreg").then(|| registers_of(&found.sketch));
    let registers = registers.transpose()?;
    if registers.is_some() {
        let bytes = SHOWN_BYTES * REGISTERS;
        cx.reply.ask_for_room(&mut cx.client.allowance, bytes)?;
    }
    let Found {
        mut sketch,
        expires_at_ms,
    } = found;
    let has_changed = sketch.make_dense()?;
    if has_changed {
        let bytes = sketch.into_bytes();
        store(cx, &args[2], &bytes, expires_at_ms)?;
    }
    match registers {
        Some(registers) => {
            cx.reply.array(REGISTERS);
            let values = registers.iter();
            values.for_each(|value| cx.reply.integer(i64::from(value)));
        }
        None => cx.reply.integer(i64::from(has_changed)),
    }
    Ok(())
}

fn registers_of(sketch: &Sketch<'_>) -> Result<Registers, Stop> {
    let mut registers = Registers::new();
    sketch.merge_into(&mut registers)?;
    Ok(registers)
}

/// The runs of a sparse sketch: `z` and their number (`Z` if that takes two bytes) for zeroes, `v`, value and number for others.
fn shown_runs(sketch: &Sketch<'_>) -> Result<String, Stop> {
    if sketch.encoding() == Encoding::Dense {
        return Err("ERR HLL encoding is not sparse".into());
    }
    let mut text = String::new();
    for run in sketch.runs() {
        let separator = if text.is_empty() { "" } else { " " };
        // Nothing fails that writes to a string.
        let _ = match run? {
            (Run::Zeroes(len), 1) => write!(text, "{separator}z:{len}"),
            (Run::Zeroes(len), _) => write!(text, "{separator}Z:{len}"),
            (Run::Values { value, len }, _) => write!(text, "{separator}v:{value},{len}"),
        };
    }
    Ok(text)
}

/// The number of elements that PFSELFTEST counts, at most, and how far from right it may be: five standard errors.
const TESTED_ELEMENTS: u64 = 200_000;
const ERROR_MAX: f64 = 5.0 * 0.0081;
/// Elements after which the dense sketch and the sparse one are compared, while that is sparse.
const COMPARED_EVERY: u64 = 64;
const SPARSE_MAX_BYTES: u64 = 3000;

fn pfselftest(cx: &mut SlowCtx<'_>, _args: Args<'_>) -> Done {
    let (mut sparse, mut dense) = (Sketch::new(), Sketch::new());
    dense.make_dense()?;
    let mut compared_at = 10;
    for count in 1..=TESTED_ELEMENTS {
        let element = (count ^ u64::from_be_bytes(*b"selftest")).to_le_bytes();
        let has_changed = dense.add(&element, 0)?;
        if sparse.encoding() == Encoding::Sparse {
            let is_same = sparse.add(&element, SPARSE_MAX_BYTES)? == has_changed;
            if !is_same || count % COMPARED_EVERY == 0 && sparse.count()? != dense.count()? {
                let error =
                    format!("ERR TESTFAILED Dense and sparse differ after {count} elements");
                return Err(error.into());
            }
        }
        if count == compared_at || count == TESTED_ELEMENTS {
            compared_at *= 10;
            let estimate = dense.count()?;
            let allowed = (count as f64 * ERROR_MAX).ceil() as u64;
            if estimate.abs_diff(count) > allowed {
                let error = format!("ERR TESTFAILED {count} elements are counted as {estimate}");
                return Err(error.into());
            }
        }
    }
    cx.reply.ok();
    Ok(())
}
