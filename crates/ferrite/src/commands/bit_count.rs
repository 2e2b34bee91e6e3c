//! Looking through the bits of a string: BITCOUNT, BITPOS. A large value is read piece by piece.

use std::ops::{ControlFlow, Range};

use hybridlog::{Operation, Record};

use super::parse::{SYNTAX_ERROR, integer};
use super::read_string;
use super::string::{BITMAP_ROW, READ, clamp_range, resolve_range, walk};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bitcount",
        arity: -2,
        flags: READ,
        complexity: "O(N), N being the number of bytes looked at",
        summary: "Counts the bits that are set in a string or a part of it.",
        handler: Handler::Worker(bitcount),
        ..BITMAP_ROW
    },
    Row {
        name: "bitpos",
        arity: -3,
        flags: READ,
        since: "2.8.7",
        complexity: "O(N), N being the number of bytes looked at",
        summary: "Finds the first bit that is set, or clear, in a string or a part of it.",
        handler: Handler::Worker(bitpos),
        ..BITMAP_ROW
    },
];

/// What the indexes of a range count.
#[derive(Clone, Copy)]
enum Unit {
    Byte,
    Bit,
}

impl Unit {
    fn parse(word: Option<&[u8]>) -> Result<Unit, Stop> {
        match word {
            None => Ok(Unit::Byte),
            Some(word) if word.eq_ignore_ascii_case(b"byte") => Ok(Unit::Byte),
            Some(word) if word.eq_ignore_ascii_case(b"bit") => Ok(Unit::Bit),
            Some(_) => Err(SYNTAX_ERROR.into()),
        }
    }

    fn bits(self) -> u64 {
        match self {
            Unit::Byte => 8,
            Unit::Bit => 1,
        }
    }

    /// Resolves a range of this unit in a value of `len` bytes by `resolve`, into bits.
    fn resolve(
        self,
        resolve: fn(i64, i64, u64) -> Option<Range<u64>>,
        (start, end): (i64, i64),
        len: u64,
    ) -> Option<Range<u64>> {
        let range = resolve(start, end, len * 8 / self.bits())?;
        Some(range.start * self.bits()..range.end * self.bits())
    }
}

fn bitcount(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (range, unit) = match args.len() {
        2 => ((0, -1), Unit::Byte),
        4 | 5 => (
            (integer(&args[2])?, integer(&args[3])?),
            Unit::parse(args.get(4))?,
        ),
        _ => return Err(SYNTAX_ERROR.into()),
    };
    let count = match read_string(&cx.op, cx.namespace, &args[1])? {
        Some(record) => match unit.resolve(resolve_range, range, record.len()) {
            Some(bits) => count_ones(&cx.op, &record, bits)?,
            None => 0,
        },
        None => 0,
    };
    cx.reply.integer(count as i64);
    Ok(())
}

/// The bytes that `bits` lie in.
fn bytes_around(bits: &Range<u64>) -> Range<u64> {
    bits.start / 8..bits.end.div_ceil(8)
}

/// The bits of the byte at `at` that lie in `bits`.
fn mask(at: u64, bits: &Range<u64>) -> u8 {
    let after_start = 0xFF >> bits.start.saturating_sub(at * 8).min(7);
    let before_end = match bits.end - at * 8 {
        0..8 => !(0xFF >> (bits.end % 8)),
        _ => 0xFF,
    };
    after_start & before_end
}

fn count_ones(op: &Operation<'_>, record: &Record<'_>, bits: Range<u64>) -> Result<u64, Stop> {
    let bytes = bytes_around(&bits);
    let mut count = 0;
    walk(op, record, bytes.clone(), |at, piece| {
        count += count_all_ones(piece);
        // Only the first and the last byte can lie partly outside.
        let last = bytes.end - 1;
        for edge in [bytes.start, last]
            .iter()
            .take(if bytes.start == last { 1 } else { 2 })
        {
            if let Some(byte) = edge.checked_sub(at).and_then(|at| piece.get(at as usize)) {
                count -= u64::from((byte & !mask(*edge, &bits)).count_ones());
            }
        }
        ControlFlow::<()>::Continue(())
    })?;
    Ok(count)
}

fn count_all_ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let in_words: u64 = words
        .iter()
        .map(|word| u64::from(u64::from_ne_bytes(*word).count_ones()))
        .sum();
    in_words
        + rest
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum::<u64>()
}

fn bitpos(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    // What a byte without the wanted bit looks like.
    let skip = match integer(&args[2])? {
        0 => 0xFF,
        1 => 0x00,
        _ => return Err("ERR The bit argument must be 1 or 0.".into()),
    };
    if args.len() > 6 {
        return Err(SYNTAX_ERROR.into());
    }
    let start = args.get(3).map_or(Ok(0), integer)?;
    let unit = Unit::parse(args.get(5))?;
    let end = args.get(4).map(integer).transpose()?;
    let position = match read_string(&cx.op, cx.namespace, &args[1])? {
        None if skip == 0xFF => 0,
        None => -1,
        Some(record) => {
            match unit.resolve(clamp_range, (start, end.unwrap_or(-1)), record.len()) {
                None => -1,
                Some(bits) => match find_first(&cx.op, &record, bits, skip)? {
                    Some(at) => at as i64,
                    // Behind the end of a string all bits count as clear, unless an end was asked for.
                    None if skip == 0xFF && end.is_none() => record.len() as i64 * 8,
                    None => -1,
                },
            }
        }
    };
    cx.reply.integer(position);
    Ok(())
}

/// Position of the first bit in `bits` that is not as in `skip`, which is all zeros or all ones.
fn find_first(
    op: &Operation<'_>,
    record: &Record<'_>,
    bits: Range<u64>,
    skip: u8,
) -> Result<Option<u64>, Stop> {
    walk(op, record, bytes_around(&bits), |at, piece| {
        let mut from = 0;
        while let Some(i) = position_of_other(&piece[from..], skip).map(|i| from + i) {
            let at = at + i as u64;
            let wanted = (piece[i] ^ skip) & mask(at, &bits);
            if wanted != 0 {
                return ControlFlow::Break(at * 8 + u64::from(wanted.leading_zeros()));
            }
            from = i + 1;
        }
        ControlFlow::Continue(())
    })
}

/// Index of the first byte that is not `skip`.
fn position_of_other(bytes: &[u8], skip: u8) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let same = words.iter().take_while(|word| **word == [skip; 8]).count() * 8;
    bytes[same..]
        .iter()
        .position(|byte| *byte != skip)
        .map(|i| same + i)
}
