//! LCS: the longest common subsequence of two strings.
//!
//! The classic table, of lengths for each pair of prefixes, is filled row by row and only its last row is kept. The
//! way back through it, which finds the subsequence itself, needs one bit of each cell: which neighbour it came from
//! where the bytes differ. That is 1/32 of the memory of the table of lengths, whose size is what limits the inputs.

use std::borrow::Cow;
use std::ops::Range;

use hybridlog::{Namespace, Operation, Record};

use super::parse::{SYNTAX_ERROR, integer};
use super::string::{READ, STRING_ROW, is_allowed_length};
use super::{WRONG_TYPE, read_string};
use crate::args::Args;
use crate::command::{Done, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;
use crate::output::Output;

pub(crate) const ROWS: &[Row] = &[Row {
    name: "lcs",
    arity: -3,
    flags: READ,
    keys: Keys::Range {
        first: 1,
        last: 2,
        step: 1,
    },
    since: "7.0.0",
    complexity: "O(N*M), N and M being the lengths of the two strings",
    summary: "Finds the longest common subsequence of two strings.",
    handler: Handler::Worker(lcs),
    ..STRING_ROW
}];

#[derive(Default)]
struct Options {
    len: bool,
    idx: bool,
    min_match_len: u64,
    with_match_len: bool,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Options, Stop> {
        let mut options = Options::default();
        let mut words = args.from(3);
        while let Some(word) = words.next() {
            let is = |option: &[u8]| word.eq_ignore_ascii_case(option);
            if is(b"idx") {
                options.idx = true;
            } else if is(b"len") {
                options.len = true;
            } else if is(b"withmatchlen") {
                options.with_match_len = true;
            } else if is(b"minmatchlen") {
                let len = integer(words.next().ok_or(SYNTAX_ERROR)?)?;
                options.min_match_len = u64::try_from(len).unwrap_or(0);
            } else {
                return Err(SYNTAX_ERROR.into());
            }
        }
        if options.idx && options.len {
            return Err("ERR If you want both the length and indexes, please just use IDX.".into());
        }
        Ok(options)
    }
}

fn lcs(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let a = find(&cx.op, cx.namespace, &args[1])?;
    let b = find(&cx.op, cx.namespace, &args[2])?;
    let options = Options::parse(args)?;
    let len = |record: &Option<Record<'_>>| record.as_ref().map_or(0, Record::len);
    let cells = (len(&a) + 1).saturating_mul(len(&b) + 1);
    if !is_allowed_length(cx.server, cells.saturating_mul(size_of::<u32>() as u64)) {
        return Err(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len".into(),
        );
    }
    let (a, b) = (value(&cx.op, a)?, value(&cx.op, b)?);
    if options.len {
        cx.reply.integer(i64::from(fill(&a, &b, |_, _| {})));
        return Ok(());
    }
    let mut table = Table::new(a.len(), b.len());
    let len = fill(&a, &b, |row, column| table.set_upward(row, column));
    let matches = table.matches(&a, &b);
    if options.idx {
        reply_matches(cx.reply, &matches, len, &options);
    } else {
        let parts: Vec<&[u8]> = matches
            .iter()
            .rev()
            .map(|found| &a[found.in_a.clone()])
            .collect();
        cx.reply.bulk(&parts.concat());
    }
    Ok(())
}

fn find<'r>(
    op: &'r Operation<'_>,
    namespace: Namespace,
    key: &[u8],
) -> Result<Option<Record<'r>>, Stop> {
    read_string(op, namespace, key).map_err(|stop| match stop {
        Stop::Reply(text) if text == WRONG_TYPE => {
            "ERR The specified keys must contain string values".into()
        }
        other => other,
    })
}

fn value<'r>(
    op: &'r Operation<'_>,
    record: Option<Record<'r>>,
) -> Result<Cow<'r, [u8]>, hybridlog::Stop> {
    record.map_or(Ok(Cow::Borrowed(&[])), |record| op.value(&record))
}

/// Computes the length of the longest common subsequence. Calls `upward` with each row and column whose cell, the
/// bytes there being different, has a longer one above it than to its left.
fn fill(a: &[u8], b: &[u8], mut upward: impl FnMut(usize, usize)) -> u32 {
    // lengths[j + 1]: of the prefix of `a` so far and the first j + 1 bytes of `b`.
    let mut lengths = vec![0u32; b.len() + 1];
    for (row, &byte_a) in a.iter().enumerate() {
        let (mut above_left, mut left) = (0, 0);
        for (column, &byte_b) in b.iter().enumerate() {
            let above = lengths[column + 1];
            if byte_a == byte_b {
                left = above_left + 1;
            } else if above > left {
                left = above;
                upward(row, column);
            }
            lengths[column + 1] = left;
            above_left = above;
        }
    }
    lengths[b.len()]
}

/// A run of bytes that both strings have, and the subsequence too.
struct Match {
    in_a: Range<usize>,
    in_b: Range<usize>,
}

/// For each row (byte of `a`) and column (byte of `b`): whether the way back goes up where the bytes differ.
struct Table {
    columns: usize,
    upward: Vec<u64>,
}

impl Table {
    fn new(rows: usize, columns: usize) -> Table {
        Table {
            columns,
            upward: vec![0; (rows * columns).div_ceil(64)],
        }
    }

    fn set_upward(&mut self, row: usize, column: usize) {
        let bit = row * self.columns + column;
        self.upward[bit / 64] |= 1 << (bit % 64);
    }

    fn is_upward(&self, row: usize, column: usize) -> bool {
        let bit = row * self.columns + column;
        self.upward[bit / 64] >> (bit % 64) & 1 == 1
    }

    /// The matches that make up the subsequence, the last first.
    fn matches(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let mut matches = Vec::new();
        let (mut row, mut column) = (a.len(), b.len());
        while row > 0 && column > 0 {
            let (end_a, end_b) = (row, column);
            while row > 0 && column > 0 && a[row - 1] == b[column - 1] {
                row -= 1;
                column -= 1;
            }
            if row < end_a {
                matches.push(Match {
                    in_a: row..end_a,
                    in_b: column..end_b,
                });
            } else if self.is_upward(row - 1, column - 1) {
                row -= 1;
            } else {
                column -= 1;
            }
        }
        matches
    }
}

fn reply_matches(reply: &mut Output, matches: &[Match], len: u32, options: &Options) {
    let is_long_enough = |found: &&Match| found.in_a.len() as u64 >= options.min_match_len;
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(matches.iter().filter(is_long_enough).count());
    for found in matches.iter().filter(is_long_enough) {
        reply.array(2 + usize::from(options.with_match_len));
        for range in [&found.in_a, &found.in_b] {
            reply.array(2);
            reply.integer(range.start as i64);
            reply.integer(range.end as i64 - 1);
        }
        if options.with_match_len {
            reply.integer(found.in_a.len() as i64);
        }
    }
    reply.bulk(b"len");
    reply.integer(i64::from(len));
}
