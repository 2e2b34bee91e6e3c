//! Several sorted sets together: ZUNION, ZINTER, ZDIFF, what stores their results, and ZINTERCARD. Plain sets are taken as well:
//! their members have the score 1.
//!
//! As with sets nothing is gathered to find out whether a member has been met before: the inputs are asked. The result is in
//! memory all the same, for it has to be put in order.

use std::ops::ControlFlow;

use hybridlog::{Direction, Namespace, Operation as EngineOperation};

use super::collection::{ELEMENTS, walk_range};
use super::parse::{SYNTAX_ERROR, integer, strict_integer};
use super::string::{GROW, READ};
use super::zset::{SCORES, Shape, ZSET_ROW, Zset, scored};
use super::zset_number::double;
use super::zset_result::{ScoredMembers, store};
use super::{KIND_SET, KIND_ZSET, WRONG_TYPE, read_each};
use crate::args::Args;
use crate::command::{Done, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;

const READ_ROW: Row = Row {
    arity: -3,
    flags: READ,
    keys: Keys::Counted { count: 1, step: 1 },
    since: "6.2.0",
    ..ZSET_ROW
};

const STORE_ROW: Row = Row {
    arity: -4,
    flags: GROW,
    keys: Keys::TargetAndCounted,
    since: "2.0.0",
    ..ZSET_ROW
};

const UNION_COST: &str = "O(N*K)+O(M*log(M)), N being the number of all members, K of sorted sets and M of members of the result";
const INTERSECTION_COST: &str = "O(N*K)+O(M*log(M)), N being the number of members of the smallest, K of sorted sets and M of members of the result";

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "zunion",
        complexity: UNION_COST,
        summary: "Returns the members that any of several sorted sets has, with their scores added up.",
        handler: Handler::Worker(zunion),
        ..READ_ROW
    },
    Row {
        name: "zunionstore",
        complexity: UNION_COST,
        summary: "Stores the members that any of several sorted sets has, with their scores added up, as a sorted set.",
        handler: Handler::Worker(zunionstore),
        ..STORE_ROW
    },
    Row {
        name: "zinter",
        complexity: INTERSECTION_COST,
        summary: "Returns the members that all of several sorted sets have, with their scores added up.",
        handler: Handler::Worker(zinter),
        ..READ_ROW
    },
    Row {
        name: "zinterstore",
        complexity: INTERSECTION_COST,
        summary: "Stores the members that all of several sorted sets have, with their scores added up, as a sorted set.",
        handler: Handler::Worker(zinterstore),
        ..STORE_ROW
    },
    Row {
        name: "zintercard",
        since: "7.0.0",
        complexity: INTERSECTION_COST,
        summary: "Counts the members that all of several sorted sets have.",
        handler: Handler::Worker(zintercard),
        ..READ_ROW
    },
    Row {
        name: "zdiff",
        complexity: UNION_COST,
        summary: "Returns the members of a sorted set that none of several others has.",
        handler: Handler::Worker(zdiff),
        ..READ_ROW
    },
    Row {
        name: "zdiffstore",
        since: "6.2.0",
        complexity: UNION_COST,
        summary: "Stores the members of a sorted set that none of several others has as a sorted set.",
        handler: Handler::Worker(zdiffstore),
        ..STORE_ROW
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersection,
    Union,
    Difference,
}

/// What becomes of the scores of a member of several inputs.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn parse(arg: &[u8]) -> Option<Aggregate> {
        match arg.to_ascii_lowercase().as_slice() {
            b"sum" => Some(Aggregate::Sum),
            b"min" => Some(Aggregate::Min),
            b"max" => Some(Aggregate::Max),
            _ => None,
        }
    }

    /// Opposite infinities add up to 0.
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            Aggregate::Sum => number_or_zero(one + other),
            Aggregate::Min if other < one => other,
            Aggregate::Max if other > one => other,
            Aggregate::Min | Aggregate::Max => one,
        }
    }
}

fn number_or_zero(number: f64) -> f64 {
    if number.is_nan() { 0.0 } else { number }
}

/// What a command is to do, besides its inputs.
struct Query {
    operation: Operation,
    aggregate: Aggregate,
    /// One for each input.
    weights: Vec<f64>,
    with_scores: bool,
    /// As many members of the result are counted at most; all if it is 0.
    limit: u64,
}

/// What a command does with the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Reply,
    Store,
    Count,
}

impl Query {
    /// Reads the options behind the keys, from argument `at` on.
    fn parse(
        args: Args<'_>,
        at: usize,
        keys: usize,
        operation: Operation,
        purpose: Purpose,
    ) -> Result<Query, Stop> {
        let mut query = Query {
            operation,
            aggregate: Aggregate::Sum,
            weights: vec![1.0; keys],
            with_scores: false,
            limit: 0,
        };
        let combines = operation != Operation::Difference && purpose != Purpose::Count;
        let mut at = at;
        while at < args.len() {
            let behind = args.len() - at - 1;
            if combines && behind >= keys && args.is(at, "weights") {
                for (weight, arg) in query.weights.iter_mut().zip(args.from(at + 1)) {
                    *weight = double(arg).ok_or("ERR weight value is not a float")?;
                }
                at += keys;
            } else if combines && behind >= 1 && args.is(at, "aggregate") {
                query.aggregate = Aggregate::parse(&args[at + 1]).ok_or(SYNTAX_ERROR)?;
                at += 1;
            } else if purpose == Purpose::Reply && args.is(at, "withscores") {
                query.with_scores = true;
            } else if purpose == Purpose::Count && behind >= 1 && args.is(at, "limit") {
                query.limit = strict_integer(&args[at + 1])
                    .and_then(|limit| u64::try_from(limit).ok())
                    .ok_or("ERR LIMIT can't be negative")?;
                at += 1;
            } else {
                return Err(SYNTAX_ERROR.into());
            }
            at += 1;
        }
        Ok(query)
    }
}

/// A sorted set or a plain one.
enum Source<'r> {
    Zset(Zset<'r>),
    Set(hybridlog::Collection<'r>),
}

impl<'r> Source<'r> {
    fn find(
        op: &'r EngineOperation<'_>,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Source<'r>>, Stop> {
        let Some(record) = op.read(namespace, key)? else {
            return Ok(None);
        };
        match record.meta().kind {
            KIND_ZSET => Ok(Some(Source::Zset(Zset::of(op.open_collection(&record)?)))),
            KIND_SET => Ok(Some(Source::Set(op.open_collection(&record)?))),
            _ => Err(WRONG_TYPE.into()),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Source::Zset(zset) => zset.len(),
            Source::Set(set) => set.len(ELEMENTS),
        }
    }

    fn score(&self, member: &[u8]) -> Result<Option<f64>, Stop> {
        match self {
            Source::Zset(zset) => zset.score(member),
            Source::Set(set) => Ok(set.get(ELEMENTS, member)?.map(|_| 1.0)),
        }
    }

    /// Hands all members, with their scores, to `each`, until it breaks.
    fn walk(
        &self,
        mut each: impl FnMut(&[u8], f64) -> Result<ControlFlow<()>, Stop>,
    ) -> Result<(), Stop> {
        let all = 0..self.len();
        let forward = Direction::Forward;
        match self {
            Source::Zset(zset) => walk_range(&zset.collection, SCORES, all, forward, |element| {
                let (score, member) = scored(&element)?;
                each(member, score)
            }),
            Source::Set(set) => walk_range(set, ELEMENTS, all, forward, |element| {
                each(&element.key, 1.0)
            }),
        }
    }
}

/// What a command combines.
struct Input<'r> {
    /// None if there is nothing under its key.
    source: Option<Source<'r>>,
    weight: f64,
}

impl Input<'_> {
    fn len(&self) -> u64 {
        self.source.as_ref().map_or(0, Source::len)
    }

    /// The score of a member, by its weight; that of infinity may be no number.
    fn score(&self, member: &[u8]) -> Result<Option<f64>, Stop> {
        let score = self.source.as_ref().map(|source| source.score(member));
        let score = score.transpose()?.flatten();
        Ok(score.map(|score| score * self.weight))
    }
}

fn zunion(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply(cx, args, Operation::Union)
}

fn zinter(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply(cx, args, Operation::Intersection)
}

fn zdiff(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply(cx, args, Operation::Difference)
}

fn reply(cx: &mut Ctx<'_>, args: Args<'_>, operation: Operation) -> Done {
    let (result, query) = result_of(cx, args, 1, operation, Purpose::Reply)?;
    let shape = Shape::new(cx.reply.protocol(), query.with_scores);
    cx.reply.array(shape.elements(result.len() as u64));
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    for member in result.iter() {
        let (member, score) = member?;
        shape.reply(memory, reply, member, score)?;
    }
    Ok(())
}

fn zunionstore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    combine_and_store(cx, args, Operation::Union)
}

fn zinterstore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    combine_and_store(cx, args, Operation::Intersection)
}

fn zdiffstore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    combine_and_store(cx, args, Operation::Difference)
}

fn combine_and_store(cx: &mut Ctx<'_>, args: Args<'_>, operation: Operation) -> Done {
    let result = match cx.progress.scored.take() {
        Some(result) => result,
        None => result_of(cx, args, 2, operation, Purpose::Store)?.0,
    };
    let count = result.len();
    store(cx, &args[1], result)?;
    cx.reply.integer(count as i64);
    Ok(())
}

fn zintercard(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let data = (&cx.op, cx.namespace);
    let (inputs, query) = find_all(data, args, 1, Operation::Intersection, Purpose::Count)?;
    let mut found = 0;
    combine(&inputs, &query, &mut |_, _| {
        found += 1;
        Ok(match found == query.limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    })?;
    cx.reply.integer(found as i64);
    Ok(())
}

/// The members of the result, in order.
fn result_of(
    cx: &mut Ctx<'_>,
    args: Args<'_>,
    count_at: usize,
    operation: Operation,
    purpose: Purpose,
) -> Result<(ScoredMembers, Query), Stop> {
    let data = (&cx.op, cx.namespace);
    let (inputs, query) = find_all(data, args, count_at, operation, purpose)?;
    let mut result = ScoredMembers::default();
    let memory = &mut cx.client.allowance;
    combine(&inputs, &query, &mut |member, score| {
        result
            .push(member, score, memory)
            .map(ControlFlow::Continue)
    })?;
    result.sort();
    Ok((result, query))
}

/// Reads the number of keys at argument `count_at` and what is behind it, and finds the inputs. All of them are looked up before
/// what is cold ends the run.
fn find_all<'r>(
    (op, namespace): (&'r EngineOperation<'_>, Namespace),
    args: Args<'_>,
    count_at: usize,
    operation: Operation,
    purpose: Purpose,
) -> Result<(Vec<Input<'r>>, Query), Stop> {
    let count = integer(&args[count_at])?;
    let count = usize::try_from(count).unwrap_or(0);
    if count == 0 {
        let name = String::from_utf8_lossy(&args[0]).to_ascii_lowercase();
        return Err(format!("ERR at least 1 input key is needed for '{name}' command").into());
    }
    let first = count_at + 1;
    if count > args.len() - first {
        return Err(SYNTAX_ERROR.into());
    }
    let keys = args.from(first).take(count);
    let sources = read_each(keys, |key| Source::find(op, namespace, key))?;
    let query = Query::parse(args, first + count, count, operation, purpose)?;
    let weights = query.weights.iter();
    let inputs = sources.into_iter().zip(weights);
    let mut inputs: Vec<_> = inputs
        .map(|(source, &weight)| Input { source, weight })
        .collect();
    if operation != Operation::Difference {
        // In this order infinities meet each other.
        inputs.sort_by_key(Input::len);
    }
    Ok((inputs, query))
}

/// What is to be done with a member of the result.
type Each<'e> = dyn FnMut(&[u8], f64) -> Result<ControlFlow<()>, Stop> + 'e;

/// Hands the members of the result, with their scores, to `each`, until it breaks.
fn combine(inputs: &[Input<'_>], query: &Query, each: &mut Each<'_>) -> Result<(), Stop> {
    match query.operation {
        Operation::Intersection => {
            let score = |member: &[u8], score: f64| -> Result<Option<f64>, Stop> {
                let first = number_or_zero(score * inputs[0].weight);
                all_of(&inputs[1..], query.aggregate, member, first)
            };
            members(&inputs[0], score, each)
        }
        Operation::Union => (0..inputs.len()).try_for_each(|i| {
            let score = |member: &[u8], score: f64| -> Result<Option<f64>, Stop> {
                if has_any(&inputs[..i], member)? {
                    return Ok(None);
                }
                let first = number_or_zero(score * inputs[i].weight);
                any_of(&inputs[i + 1..], query.aggregate, member, first).map(Some)
            };
            members(&inputs[i], score, each)
        }),
        Operation::Difference => {
            let score = |member: &[u8], score: f64| -> Result<Option<f64>, Stop> {
                Ok((!has_any(&inputs[1..], member)?).then_some(score))
            };
            members(&inputs[0], score, each)
        }
    }
}

/// Hands those members of an input to `each` that have a score in the result. What is cold does not end the run at once: the
/// other members are asked for too, so that one fetch gets them all.
fn members(
    input: &Input<'_>,
    score_of: impl Fn(&[u8], f64) -> Result<Option<f64>, Stop>,
    each: &mut Each<'_>,
) -> Result<(), Stop> {
    let Some(source) = &input.source else {
        return Ok(());
    };
    let mut cold = None;
    source.walk(|member, score| {
        match score_of(member, score) {
            Ok(Some(score)) if cold.is_none() => return each(member, score),
            Ok(_) => {}
            Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) => cold = Some(stop),
            Err(stop) => return Err(stop),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    cold.map_or(Ok(()), Err)
}

fn has_any(inputs: &[Input<'_>], member: &[u8]) -> Result<bool, Stop> {
    for input in inputs {
        if input.score(member)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The score of a member that is `first` in another input, if all of `inputs` have it.
fn all_of(
    inputs: &[Input<'_>],
    aggregate: Aggregate,
    member: &[u8],
    first: f64,
) -> Result<Option<f64>, Stop> {
    let mut total = first;
    for input in inputs {
        match input.score(member)? {
            Some(score) => total = aggregate.of(total, score),
            None => return Ok(None),
        }
    }
    Ok(Some(total))
}

/// The score of a member that is `first` in another input, with those of `inputs` that have it.
fn any_of(
    inputs: &[Input<'_>],
    aggregate: Aggregate,
    member: &[u8],
    first: f64,
) -> Result<f64, Stop> {
    let mut total = first;
    for input in inputs {
        if let Some(score) = input.score(member)? {
            total = aggregate.of(total, number_or_zero(score));
        }
    }
    Ok(total)
}
