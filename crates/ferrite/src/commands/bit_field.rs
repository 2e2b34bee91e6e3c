//! BITFIELD: integers of 1 to 64 bits anywhere in a string, read, set and added to.
//!
//! All the bytes that the fields touch are read first, then the operations run on them in order, then what they
//! changed is written: a value of any size costs only those bytes.

use std::ops::Range;

use hybridlog::{Operation, Record};

use super::bit::allowed_bit_offset;
use super::parse::{SYNTAX_ERROR, integer};
use super::string::{BITMAP_ROW, GROW, READ_FAST};
use super::{KIND_STRING, read_string};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;
use crate::output::Output;
use crate::server::Server;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bitfield",
        arity: -2,
        flags: GROW,
        since: "3.2.0",
        complexity: "O(1) for each operation",
        summary: "Reads, sets and adds to integers of any width within a string.",
        handler: Handler::Worker(bitfield),
        ..BITMAP_ROW
    },
    Row {
        name: "bitfield_ro",
        arity: -2,
        flags: READ_FAST,
        since: "6.0.0",
        complexity: "O(1) for each operation",
        summary: "Reads integers of any width within a string.",
        handler: Handler::Worker(bitfield_ro),
        ..BITMAP_ROW
    },
];

/// What becomes of a number that its field has no room for.
#[derive(Clone, Copy)]
enum Overflow {
    /// Its low bits are kept.
    Wrap,
    /// It becomes the nearest number there is room for.
    Saturate,
    /// The field stays as it is.
    Fail,
}

/// Where an integer is, and how it is written.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    /// 1 to 64, unsigned at most 63.
    bits: u32,
    /// Of its highest bit, from the start of the string.
    bit_offset: u64,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

struct Step {
    field: Field,
    action: Action,
}

fn bitfield(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let steps = parse_steps(args, cx.server)?;
    run(cx, &args[1], &steps)
}

fn bitfield_ro(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let steps = parse_steps(args, cx.server)?;
    if steps.iter().any(Step::writes) {
        return Err("ERR BITFIELD_RO only supports the GET subcommand".into());
    }
    run(cx, &args[1], &steps)
}

fn parse_steps(args: Args<'_>, server: &Server) -> Result<Vec<Step>, Stop> {
    let mut steps = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let is = |name: &[u8], operands: usize| {
            word.eq_ignore_ascii_case(name) && at + operands < args.len()
        };
        if is(b"overflow", 1) {
            overflow = Overflow::parse(&args[at + 1])?;
            at += 2;
            continue;
        }
        let (get, set, add) = (is(b"get", 2), is(b"set", 3), is(b"incrby", 3));
        if !(get || set || add) {
            return Err(SYNTAX_ERROR.into());
        }
        let field = Field::parse(&args[at + 1], &args[at + 2], server)?;
        let action = if get {
            Action::Get
        } else if set {
            Action::Set(integer(&args[at + 3])?, overflow)
        } else {
            Action::Add(integer(&args[at + 3])?, overflow)
        };
        steps.push(Step { field, action });
        at += if get { 3 } else { 4 };
    }
    Ok(steps)
}

impl Overflow {
    fn parse(word: &[u8]) -> Result<Overflow, Stop> {
        match word {
            _ if word.eq_ignore_ascii_case(b"wrap") => Ok(Overflow::Wrap),
            _ if word.eq_ignore_ascii_case(b"sat") => Ok(Overflow::Saturate),
            _ if word.eq_ignore_ascii_case(b"fail") => Ok(Overflow::Fail),
            _ => Err("ERR Invalid OVERFLOW type specified".into()),
        }
    }
}

impl Field {
    /// `kind` is `i` or `u` and the number of bits; an `offset` that starts with `#` counts fields of that width.
    fn parse(kind: &[u8], offset: &[u8], server: &Server) -> Result<Field, Stop> {
        let (signed, bits) = match kind {
            [b'i', bits @ ..] => (true, resp::parse_integer(bits)),
            [b'u', bits @ ..] => (false, resp::parse_integer(bits)),
            _ => (false, None),
        };
        let bits = bits.filter(|bits| (1..=63 + i64::from(signed)).contains(bits)).ok_or(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        )?;
        let bit_offset = match offset {
            [b'#', index @ ..] => {
                resp::parse_integer(index).and_then(|index| index.checked_mul(bits))
            }
            _ => resp::parse_integer(offset),
        };
        let bit_offset = allowed_bit_offset(bit_offset, server)?;
        Ok(Field {
            signed,
            bits: bits as u32,
            bit_offset,
        })
    }

    /// The bytes it lies in: at most 9.
    fn bytes(&self) -> Range<u64> {
        self.bit_offset / 8..(self.bit_offset + u64::from(self.bits)).div_ceil(8)
    }

    /// How far its lowest bit is from the lowest bit of [`Field::bytes`].
    fn shift(&self) -> u32 {
        (self.bytes().end * 8 - self.bit_offset) as u32 - self.bits
    }

    fn get(&self, bytes: &[u8]) -> i64 {
        let word = bytes
            .iter()
            .fold(0u128, |word, byte| word << 8 | u128::from(*byte));
        self.wrapped((word >> self.shift()) as i128)
    }

    fn set(&self, bytes: &mut [u8], value: i64) {
        let mask = (u128::MAX >> (128 - self.bits)) << self.shift();
        let mut word = bytes
            .iter()
            .fold(0u128, |word, byte| word << 8 | u128::from(*byte));
        word = word & !mask | ((value as u128) << self.shift()) & mask;
        for byte in bytes.iter_mut().rev() {
            *byte = word as u8;
            word >>= 8;
        }
    }

    /// What the low bits of `value` mean in this field.
    fn wrapped(&self, value: i128) -> i64 {
        let unused = 128 - self.bits;
        let top = value << unused;
        (if self.signed {
            top >> unused
        } else {
            (top as u128 >> unused) as i128
        }) as i64
    }

    /// `value` for a signed field. So far below the field that its distance to the field's largest number takes more
    /// than 64 bits, Redis saturates it to that largest number.
    fn as_redis_compares(&self, value: i64, overflow: Overflow) -> i128 {
        let max = i64::MAX >> (64 - self.bits);
        let far_below = self.bits < 64 && max.checked_sub(value).is_none();
        i128::from(match overflow {
            Overflow::Saturate if far_below => max,
            _ => value,
        })
    }

    /// The number to store for `value`; `None` if nothing is to be stored.
    fn fit(&self, value: i128, overflow: Overflow) -> Option<i64> {
        let (min, max) = if self.signed {
            (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1)
        } else {
            (0, (1i128 << self.bits) - 1)
        };
        match overflow {
            Overflow::Wrap => Some(self.wrapped(value)),
            Overflow::Saturate => Some(value.clamp(min, max) as i64),
            Overflow::Fail => (min..=max).contains(&value).then_some(value as i64),
        }
    }
}

impl Step {
    fn writes(&self) -> bool {
        !matches!(self.action, Action::Get)
    }

    /// Does it on the bytes of its field. Result: the reply, `None` where overflow made it fail.
    fn run(&self, bytes: &mut [u8]) -> Option<i64> {
        let before = self.field.get(bytes);
        match self.action {
            Action::Get => Some(before),
            Action::Set(value, overflow) => {
                // A negative number for an unsigned field counts as the large one with the same bits.
                let value = if self.field.signed {
                    self.field.as_redis_compares(value, overflow)
                } else {
                    i128::from(value as u64)
                };
                self.field.set(bytes, self.field.fit(value, overflow)?);
                Some(before)
            }
            Action::Add(increment, overflow) => {
                let sum = i128::from(before) + i128::from(increment);
                let after = self.field.fit(sum, overflow)?;
                self.field.set(bytes, after);
                Some(after)
            }
        }
    }
}

fn run(cx: &mut Ctx<'_>, key: &[u8], steps: &[Step]) -> Done {
    let record = read_string(&cx.op, cx.namespace, key)?;
    let mut spans = Span::around(steps);
    for span in &mut spans {
        span.load(&cx.op, record.as_ref())?;
    }
    // The string grows to hold all fields that are written, even where overflow then leaves one as it is.
    let len = record.map_or(0, |record| record.len());
    let written_end = steps
        .iter()
        .filter(|step| step.writes())
        .map(|step| step.field.bytes().end);
    if let Some(end) = written_end.max().filter(|end| *end > len) {
        Span::holding(&mut spans, &(end - 1..end)).change(end - 1..end);
    }
    cx.reply.array(steps.len());
    for step in steps {
        let bytes = step.field.bytes();
        let span = Span::holding(&mut spans, &bytes);
        let field = span.bytes_mut(&bytes);
        let before = step.field.get(field);
        let result = step.run(field);
        // To store the number that is there is no change, as in Redis, and whoever watches the key is not told of any.
        if step.field.get(field) != before {
            span.change(bytes);
        }
        reply_result(cx.reply, result);
    }
    for span in &spans {
        if let Some((at, bytes)) = span.changed_bytes() {
            cx.op
                .write_range(cx.namespace, key, at, bytes, KIND_STRING)?;
        }
    }
    Ok(())
}

fn reply_result(reply: &mut Output, result: Option<i64>) {
    match result {
        Some(number) => reply.integer(number),
        None => reply.null(),
    }
}

/// Neighbouring bytes that fields touch.
struct Span {
    start: u64,
    /// Zeros where the string is shorter.
    bytes: Vec<u8>,
    /// The part that has to be written.
    changed: Option<Range<u64>>,
}

impl Span {
    /// Fields that are this close share a span.
    const GAP_MAX_BYTES: u64 = 64;

    /// Spans for the fields of `steps`, ascending.
    fn around(steps: &[Step]) -> Vec<Span> {
        let mut touched: Vec<Range<u64>> = steps.iter().map(|step| step.field.bytes()).collect();
        touched.sort_unstable_by_key(|bytes| bytes.start);
        let mut spans: Vec<Span> = Vec::new();
        for bytes in touched {
            match spans.last_mut() {
                Some(span) if bytes.start <= span.end() + Self::GAP_MAX_BYTES => {
                    let len = span.bytes.len().max((bytes.end - span.start) as usize);
                    span.bytes.resize(len, 0);
                }
                _ => {
                    let len = (bytes.end - bytes.start) as usize;
                    spans.push(Span {
                        start: bytes.start,
                        bytes: vec![0; len],
                        changed: None,
                    });
                }
            }
        }
        spans
    }

    /// The span that has `bytes`, which belong to one of the fields the spans were made for.
    fn holding<'a>(spans: &'a mut [Span], bytes: &Range<u64>) -> &'a mut Span {
        let after = spans.partition_point(|span| span.start <= bytes.start);
        &mut spans[after - 1]
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn load(&mut self, op: &Operation<'_>, record: Option<&Record<'_>>) -> Result<(), Stop> {
        if let Some(record) = record {
            let stored = op.range(record, self.start, self.bytes.len() as u64)?;
            self.bytes[..stored.len()].copy_from_slice(&stored);
        }
        Ok(())
    }

    fn bytes_mut(&mut self, bytes: &Range<u64>) -> &mut [u8] {
        let start = self.start;
        &mut self.bytes[(bytes.start - start) as usize..(bytes.end - start) as usize]
    }

    fn change(&mut self, bytes: Range<u64>) {
        self.changed = Some(match self.changed.take() {
            Some(changed) => changed.start.min(bytes.start)..changed.end.max(bytes.end),
            None => bytes,
        });
    }

    fn changed_bytes(&self) -> Option<(u64, &[u8])> {
        let changed = self.changed.as_ref()?;
        let part = (changed.start - self.start) as usize..(changed.end - self.start) as usize;
        Some((changed.start, &self.bytes[part]))
    }
}
