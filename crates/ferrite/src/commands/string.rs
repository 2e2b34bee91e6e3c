//! What the commands on strings share: the base of their rows, the length limit, ranges with negative indexes, and
//! walking a value in pieces of bounded size.

use std::ops::{ControlFlow, Range};

use hybridlog::{Operation, Record};

use crate::command::{Flags, Handler, Keys, Row, Stop};
use crate::server::Server;

/// Keys of a command that takes one key, as its first argument.
const FIRST_ARGUMENT: Keys = Keys::Range {
    first: 1,
    last: 1,
    step: 1,
};

/// What most rows of string commands have in common.
pub(super) const STRING_ROW: Row = Row {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: FIRST_ARGUMENT,
    categories: &["string"],
    group: "string",
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    handler: Handler::Container,
    subcommands: &[],
    tips: &[],
};

/// What most rows of bit commands have in common.
pub(super) const BITMAP_ROW: Row = Row {
    categories: &["bitmap"],
    group: "bitmap",
    since: "2.6.0",
    ..STRING_ROW
};

pub(super) const READ: Flags = Flags::READONLY;
pub(super) const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
pub(super) const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
/// Refused when memory is exhausted, as a write that may need more of it is.
pub(super) const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
pub(super) const GROW_FAST: Flags = GROW.and(Flags::FAST);

/// A value that is walked through is read this many bytes at a time.
pub(super) const WALK_BYTES: usize = 64 * 1024;

/// The least that `proto-max-bulk-len` can be set to.
const ALWAYS_ALLOWED_BYTES: u64 = 1024 * 1024;

/// Whether a command may make a string of this length.
pub(super) fn is_allowed_length(server: &Server, bytes: u64) -> bool {
    // The settings are shared between workers: not asked without need.
    bytes <= ALWAYS_ALLOWED_BYTES || bytes <= server.config.settings().proto_max_bulk_bytes
}

/// An error unless a string may be `offset + added` bytes long.
pub(super) fn check_length(server: &Server, offset: u64, added: usize) -> Result<(), Stop> {
    if !is_allowed_length(server, offset.saturating_add(added as u64)) {
        return Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".into());
    }
    Ok(())
}

/// As [`clamp_range`], but two negative indexes in the wrong order mean no positions, wherever they point.
pub(super) fn resolve_range(start: i64, end: i64, len: u64) -> Option<Range<u64>> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    clamp_range(start, end, len)
}

/// The positions from `start` to `end`, both included, among `len`; negative ones count from the end, those outside
/// are moved to the nearest inside. `None` if there are none.
pub(super) fn clamp_range(start: i64, end: i64, len: u64) -> Option<Range<u64>> {
    let from_end = |index: i64| {
        if index < 0 {
            len.saturating_sub(index.unsigned_abs())
        } else {
            index as u64
        }
    };
    let (start, end) = (from_end(start), from_end(end).min(len.saturating_sub(1)));
    (start <= end && len > 0).then_some(start..end + 1)
}

/// Hands `bytes` of the value to `visit`, in order, piece by piece with the position of each, until it breaks.
pub(super) fn walk<B>(
    op: &Operation<'_>,
    record: &Record<'_>,
    bytes: Range<u64>,
    mut visit: impl FnMut(u64, &[u8]) -> ControlFlow<B>,
) -> Result<Option<B>, Stop> {
    for at in bytes.clone().step_by(WALK_BYTES) {
        let piece = op
            .range(record, at, (bytes.end - at).min(WALK_BYTES as u64))
            .inspect_err(|_| want(op, record, at..bytes.end))?;
        if let ControlFlow::Break(found) = visit(at, &piece) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Notes all cold parts of `bytes` as wanted, so that one fetch gets them all: called when one is met, or every part
/// would cost a run of the command.
pub(super) fn want(op: &Operation<'_>, record: &Record<'_>, bytes: Range<u64>) {
    for at in bytes.clone().step_by(WALK_BYTES) {
        // Whatever it is that stops this part will stop the next run where it counts.
        let _ = op.range(record, at, (bytes.end - at).min(WALK_BYTES as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::resolve_range;

    #[test]
    fn ranges_count_from_both_ends() {
        for (start, end, len, expected) in [
            (0, -1, 5, Some(0..5)),
            (1, 3, 5, Some(1..4)),
            (-3, -2, 5, Some(2..4)),
            (-100, 100, 5, Some(0..5)),
            (0, -100, 5, Some(0..1)),
            (1, -100, 5, None),
            (-1, -2, 5, None),
            (-100, -101, 5, None),
            (-100, -99, 5, Some(0..1)),
            (5, 9, 5, None),
            (0, 0, 0, None),
            (i64::MIN, i64::MAX, 5, Some(0..5)),
        ] {
            assert_eq!(
                resolve_range(start, end, len),
                expected,
                "{start} {end} of {len}"
            );
        }
    }
}
