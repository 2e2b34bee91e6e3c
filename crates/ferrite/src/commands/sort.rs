//! SORT and SORT_RO: the elements of a list, a set or a sorted set in order, by themselves or by what other keys hold.
//!
//! First the elements are copied, as they are at one moment. Then what BY names for them is read, they are sorted, and what GET
//! names for those that are asked for is read. How far this has come is kept in the client ([`Sorting`]), and no latch while
//! something is waited for: so however much is cold, or in use by others, nobody waits for SORT. If there is no memory to go on,
//! all is let go of, and it begins anew with what it needs promised to it.

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use hybridlog::Direction;

use super::collection::{ELEMENTS, check_room, walk_range};
use super::list::{Side, push_in_parts};
use super::list_encoding::note_growth;
use super::parse::{SYNTAX_ERROR, integer};
use super::set_algebra::Members;
use super::sort_pattern::{Pattern, Round};
use super::string::{GROW, READ, STRING_ROW};
use super::zset::{SCORES, split_score};
use super::zset_number::sorted_double;
use super::{KIND_LIST, KIND_SET, KIND_ZSET, WRONG_TYPE};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;
use crate::memory::Allowance;

/// Memory that an element takes in the order, and while that is made.
const ORDER_BYTES: usize = 2 * size_of::<usize>();

const SORT_ROW: Row = Row {
    arity: -2,
    categories: &["set", "sortedset", "list", "dangerous"],
    group: "generic",
    complexity: "O(N + M * log(M)), N being the number of elements and M that of those returned",
    ..STRING_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "sort",
        // What it reads besides its keys does not change in a transaction.
        flags: GROW.and(Flags::KEYSPACE),
        keys: Keys::FirstAndStore,
        summary: "Sorts the elements of a list, a set or a sorted set, and returns or stores them or what belongs to them.",
        handler: Handler::Worker(sort),
        ..SORT_ROW
    },
    Row {
        name: "sort_ro",
        flags: READ.and(Flags::MOVABLEKEYS).and(Flags::KEYSPACE),
        since: "7.0.0",
        summary: "Sorts the elements of a list, a set or a sorted set, and returns them or what belongs to them.",
        handler: Handler::Worker(sort_ro),
        ..SORT_ROW
    },
];

/// What the elements are sorted by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By<'a> {
    Element,
    Value(Pattern<'a>),
    /// They stay as they are.
    Nothing,
}

struct Query<'a> {
    by: By<'a>,
    /// By bytes, not by numbers.
    is_alpha: bool,
    is_descending: bool,
    /// Of how many sorted elements it begins behind, and how many are asked for; negative: all.
    offset: i64,
    count: i64,
    /// What is returned for each of them; nothing is themselves.
    gets: Vec<Pattern<'a>>,
    target: Option<&'a [u8]>,
}

impl<'a> Query<'a> {
    fn parse(args: Args<'a>, may_store: bool) -> Result<Query<'a>, Stop> {
        let mut query = Query {
            by: By::Element,
            is_alpha: false,
            is_descending: false,
            offset: 0,
            count: -1,
            gets: Vec::new(),
            target: None,
        };
        let mut at = 2;
        while at < args.len() {
            let (one, two) = (args.get(at + 1), args.get(at + 2));
            if args.is(at, "asc") {
                query.is_descending = false;
            } else if args.is(at, "desc") {
                query.is_descending = true;
            } else if args.is(at, "alpha") {
                query.is_alpha = true;
            } else if let (Some(offset), Some(count)) = (one, two)
                && args.is(at, "limit")
            {
                (query.offset, query.count) = (integer(offset)?, integer(count)?);
                at += 2;
            } else if let Some(one) = one {
                if args.is(at, "store") && may_store {
                    query.target = Some(one);
                } else if args.is(at, "by") {
                    query.by = match Pattern::parse(one) {
                        Pattern::Element | Pattern::Nothing => By::Nothing,
                        pattern @ Pattern::Key { .. } => By::Value(pattern),
                    };
                } else if args.is(at, "get") {
                    query.gets.push(Pattern::parse(one));
                } else {
                    return Err(SYNTAX_ERROR.into());
                }
                at += 1;
            } else {
                return Err(SYNTAX_ERROR.into());
            }
            at += 1;
        }
        Ok(query)
    }

    /// As it is for a value of this type: the elements of a set have no order that they could be stored in.
    fn of_kind(mut self, kind: u8) -> Query<'a> {
        if kind == KIND_SET && self.by == By::Nothing && self.target.is_some() {
            (self.by, self.is_alpha) = (By::Element, true);
        }
        self
    }

    /// Which of `len` sorted elements are asked for.
    fn range(&self, len: usize) -> Range<usize> {
        let start = usize::try_from(self.offset).unwrap_or(0).min(len);
        let end = match usize::try_from(self.count) {
            Ok(count) => start.saturating_add(count).min(len),
            Err(_) => len,
        };
        start..end
    }

    /// Those of GET for which something has to be read.
    fn reads(&self) -> impl Iterator<Item = Pattern<'a>> {
        let gets = self.gets.iter().copied();
        gets.filter(|pattern| *pattern != Pattern::Element)
    }
}

/// How far a SORT has come.
#[derive(Default)]
pub(crate) struct Sorting {
    is_loaded: bool,
    /// The type of what is sorted.
    kind: u8,
    elements: Members,
    /// What they are sorted by, where that is not themselves.
    numbers: Vec<f64>,
    texts: Values,
    is_ordered: bool,
    /// Which elements are asked for, in their order.
    order: Vec<usize>,
    /// What GET names for each of them.
    values: Values,
    /// Memory that former runs have asked for.
    asked_bytes: u64,
}

/// Strings, some of which are missing.
#[derive(Default)]
struct Values {
    strings: Members,
    is_there: Vec<bool>,
}

impl Values {
    fn push(&mut self, value: Option<&[u8]>, memory: &mut Allowance) -> Result<(), Stop> {
        if self.is_there.len() == self.is_there.capacity() {
            memory.ask(2 * self.is_there.len() as u64)?;
        }
        self.strings.push(value.unwrap_or_default(), memory)?;
        self.is_there.push(value.is_some());
        Ok(())
    }

    fn len(&self) -> usize {
        self.is_there.len()
    }

    fn get(&self, i: usize) -> Option<&[u8]> {
        self.is_there[i].then(|| self.strings.get(i))
    }
}

fn sort(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    run(cx, &args[1], Query::parse(args, true)?)
}

fn sort_ro(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    run(cx, &args[1], Query::parse(args, false)?)
}

fn run(cx: &mut Ctx<'_>, key: &[u8], query: Query<'_>) -> Done {
    let mut sorting = cx.client.sorting.take().unwrap_or_default();
    let steps = sorting.steps();
    let done = sorting.go_on(cx, key, query);
    let Err(stop) = &done else {
        return done;
    };
    let stores = cx.op.changes() > 0 || cx.progress.has_begun;
    if !stores && matches!(stop, Stop::Memory(_)) {
        return Err(Stop::Memory(
            sorting.asked_bytes + cx.client.allowance.asked(),
        ));
    }
    if stop.is_wait() {
        if sorting.steps() > steps {
            // It comes to its end without keeping latches.
            cx.client.cold_runs = 0;
        }
        sorting.asked_bytes += cx.client.allowance.asked();
        cx.client.sorting = Some(sorting);
    }
    done
}

impl Sorting {
    /// How many values have been read so far.
    pub(crate) fn steps(&self) -> usize {
        self.texts.len() + self.numbers.len() + self.values.len()
    }

    fn go_on(&mut self, cx: &mut Ctx<'_>, key: &[u8], query: Query<'_>) -> Done {
        if !self.is_loaded {
            let loaded = self.load(cx, key, &query);
            if loaded.is_err() {
                self.elements = Members::default();
            }
            loaded?;
            self.is_loaded = true;
        }
        let query = query.of_kind(self.kind);
        if !self.is_ordered {
            self.weigh(cx, &query)?;
            self.put_in_order(&mut cx.client.allowance, &query)?;
            self.is_ordered = true;
        }
        self.read_values(cx, &query)?;
        match query.target {
            Some(target) => self.store(cx, target, &query),
            None => self.reply(cx, &query),
        }
    }

    /// Copies the elements; if they stay as they are, those that are asked for.
    fn load(&mut self, cx: &mut Ctx<'_>, key: &[u8], query: &Query<'_>) -> Result<(), Stop> {
        let Some(record) = cx.op.read(cx.namespace, key)? else {
            return Ok(());
        };
        self.kind = record.meta().kind;
        let tree = match self.kind {
            KIND_LIST | KIND_SET => ELEMENTS,
            KIND_ZSET => SCORES,
            _ => return Err(WRONG_TYPE.into()),
        };
        let collection = cx.op.open_collection(&record)?;
        let len = collection.len(tree);
        let (mut range, mut direction) = (0..len, Direction::Forward);
        if query.by == By::Nothing && self.kind != KIND_SET {
            let wanted = query.range(len as usize);
            range = wanted.start as u64..wanted.end as u64;
            if query.is_descending {
                direction = Direction::Backward;
                range = len - range.end..len - range.start;
            }
        }
        let memory = &mut cx.client.allowance;
        walk_range(&collection, tree, range, direction, |element| {
            let element = match self.kind {
                KIND_LIST => &element.value,
                KIND_SET => &*element.key,
                _ => split_score(&element.key)?.1,
            };
            self.elements.push(element, memory)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Finds out what the elements are sorted by.
    fn weigh(&mut self, cx: &mut Ctx<'_>, query: &Query<'_>) -> Result<(), Stop> {
        let len = self.elements.iter().len();
        let memory = &mut cx.client.allowance;
        let is_numeric = query.by != By::Nothing && !query.is_alpha;
        if is_numeric && self.numbers.capacity() < len {
            memory.ask((len * size_of::<f64>()) as u64)?;
            self.numbers.reserve_exact(len);
        }
        let By::Value(pattern) = query.by else {
            if is_numeric {
                let elements = self.elements.iter();
                let numbers: Result<_, Stop> = elements.map(number).collect();
                self.numbers = numbers?;
            }
            return Ok(());
        };
        let mut round = Round::default();
        for i in self.numbers.len() + self.texts.len()..len {
            if round.is_over() {
                break;
            }
            let value = pattern.value(cx, self.elements.get(i));
            match round.take(value)? {
                None => {}
                Some(value) if query.is_alpha => {
                    self.texts
                        .push(value.as_deref(), &mut cx.client.allowance)?;
                }
                // As in Redis, what is missing is 0.
                Some(value) => self
                    .numbers
                    .push(value.map_or(Ok(0.0), |value| number(&value))?),
            }
        }
        round.end(self.numbers.len() + self.texts.len(), len)
    }

    fn put_in_order(&mut self, memory: &mut Allowance, query: &Query<'_>) -> Result<(), Stop> {
        let len = self.elements.iter().len();
        memory.ask((len * ORDER_BYTES) as u64)?;
        let mut order: Vec<usize> = (0..len).collect();
        if query.by != By::Nothing {
            order.sort_by(|&one, &other| {
                let ordering = self.compare(query, one, other);
                if query.is_descending {
                    ordering.reverse()
                } else {
                    ordering
                }
            });
        }
        if query.by != By::Nothing || self.kind == KIND_SET {
            let range = query.range(len);
            order.truncate(range.end);
            order.drain(..range.start);
        }
        self.order = order;
        Ok(())
    }

    fn compare(&self, query: &Query<'_>, one: usize, other: usize) -> Ordering {
        let by_element = || self.elements.get(one).cmp(self.elements.get(other));
        match query.by {
            By::Value(_) if query.is_alpha => self.texts.get(one).cmp(&self.texts.get(other)),
            By::Element if query.is_alpha => by_element(),
            _ => {
                let (one, other) = (self.numbers[one], self.numbers[other]);
                let by_number = one.partial_cmp(&other).unwrap_or(Ordering::Equal);
                by_number.then_with(by_element)
            }
        }
    }

    /// Reads what GET names for those that are asked for.
    fn read_values(&mut self, cx: &mut Ctx<'_>, query: &Query<'_>) -> Result<(), Stop> {
        let patterns: Vec<_> = query.reads().collect();
        let all = patterns.len() * self.order.len();
        let mut round = Round::default();
        for i in self.values.len()..all {
            if round.is_over() {
                break;
            }
            let element = self.order[i / patterns.len()];
            let value = patterns[i % patterns.len()].value(cx, self.elements.get(element));
            if let Some(value) = round.take(value)? {
                let memory = &mut cx.client.allowance;
                self.values.push(value.as_deref(), memory)?;
            }
        }
        round.end(self.values.len(), all)
    }

    /// What is returned or stored.
    fn output<'s>(
        &'s self,
        memory: &mut Allowance,
        query: &Query<'_>,
    ) -> Result<Vec<Option<&'s [u8]>>, Stop> {
        let len = self.order.len() * query.gets.len().max(1);
        memory.ask((len * size_of::<Option<&[u8]>>()) as u64)?;
        let mut output = Vec::with_capacity(len);
        let mut values = (0..self.values.len()).map(|i| self.values.get(i));
        for &element in &self.order {
            let element = self.elements.get(element);
            if query.gets.is_empty() {
                output.push(Some(element));
            }
            for pattern in &query.gets {
                output.push(match pattern {
                    Pattern::Element => Some(element),
                    _ => values.next().flatten(),
                });
            }
        }
        Ok(output)
    }

    fn reply(&self, cx: &mut Ctx<'_>, query: &Query<'_>) -> Done {
        let output = self.output(&mut cx.client.allowance, query)?;
        cx.reply.array(output.len());
        for value in output {
            match value {
                Some(value) => cx.reply.bulk_within(&mut cx.client.allowance, value)?,
                None => cx.reply.null(),
            }
        }
        Ok(())
    }

    /// Stores a list under `target`, whatever that holds; one without elements is none. `cx.progress.count` is 1 once the target
    /// has made way, and `done` is how many elements are in the list.
    fn store(&self, cx: &mut Ctx<'_>, target: &[u8], query: &Query<'_>) -> Done {
        let output = self.output(&mut cx.client.allowance, query)?;
        let values = output.iter().map(|value| value.unwrap_or_default());
        let (count, bytes) = (output.len(), values.clone().map(<[u8]>::len).sum());
        if cx.progress.count == 0 {
            for value in values.clone() {
                cx.op.check_element(target, value.len() as u64)?;
            }
            check_room(cx, count, bytes)?;
            cx.op.remove(cx.namespace, target)?;
            cx.progress.count = 1;
        }
        if count > 0 {
            if cx.progress.done == 0 {
                note_growth(cx, target, count as u64, bytes as u64)?;
            }
            let values = values.skip(cx.progress.done);
            push_in_parts(cx, target, Side::Right, values)?;
        }
        cx.reply.integer(count as i64);
        Ok(())
    }
}

fn number(text: &[u8]) -> Result<f64, Stop> {
    sorted_double(text).ok_or("ERR One or more scores can't be converted into double".into())
}
