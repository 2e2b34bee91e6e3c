//! Adding members to sorted sets, changing their scores, and removing them by name: ZADD, ZINCRBY, ZREM.

use super::KIND_ZSET;
use super::collection::{check_room, remove_if_empty};
use super::parse::SYNTAX_ERROR;
use super::string::{GROW_FAST, WRITE_FAST};
use super::zset::{
    Growth, MEMBERS_TOGETHER, SCORE_BYTES, ScoreChange, ZSET_ROW, Zset, put, remove,
};
use super::zset_number::score;
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "zadd",
        arity: -4,
        flags: GROW_FAST,
        complexity: "O(log(N)) for each member added, N being the number of members",
        summary: "Adds members to a sorted set, or changes their scores.",
        handler: Handler::Worker(zadd),
        ..ZSET_ROW
    },
    Row {
        name: "zincrby",
        arity: 4,
        flags: GROW_FAST,
        summary: "Adds to the score of a member of a sorted set; one that does not exist has the score 0.",
        handler: Handler::Worker(zincrby),
        ..ZSET_ROW
    },
    Row {
        name: "zrem",
        arity: -3,
        flags: WRITE_FAST,
        complexity: "O(M*log(N)), M being the number of members removed and N that of all",
        summary: "Removes members of a sorted set, and the sorted set with its last member.",
        handler: Handler::Worker(zrem),
        ..ZSET_ROW
    },
];

/// The options of ZADD.
#[derive(Default)]
pub(super) struct Options {
    only_new: bool,
    only_existing: bool,
    only_greater: bool,
    only_less: bool,
    counts_changed: bool,
    increments: bool,
}

impl Options {
    /// Reads the options; returns them and the position of the first score.
    fn parse(args: Args<'_>) -> Result<(Options, usize), Stop> {
        let mut options = Options::default();
        let mut at = 2;
        while let Some(option) = args.get(at).and_then(|word| options.called(word)) {
            *option = true;
            at += 1;
        }
        let words = args.len() - at;
        if words == 0 || !words.is_multiple_of(2) {
            return Err(SYNTAX_ERROR.into());
        }
        if options.exclude_all() {
            return Err("ERR XX and NX options at the same time are not compatible".into());
        }
        let conditions = [options.only_new, options.only_greater, options.only_less];
        if conditions.iter().filter(|is_set| **is_set).count() > 1 {
            return Err("ERR GT, LT, and/or NX options at the same time are not compatible".into());
        }
        if options.increments && words > 2 {
            return Err("ERR INCR option supports a single increment-element pair".into());
        }
        Ok((options, at))
    }

    /// The option with this name.
    pub(super) fn called(&mut self, name: &[u8]) -> Option<&mut bool> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"nx" => &mut self.only_new,
            b"xx" => &mut self.only_existing,
            b"gt" => &mut self.only_greater,
            b"lt" => &mut self.only_less,
            b"ch" => &mut self.counts_changed,
            b"incr" => &mut self.increments,
            _ => return None,
        })
    }

    /// Whether no member can be both what is asked for.
    pub(super) fn exclude_all(&self) -> bool {
        self.only_new && self.only_existing
    }

    /// What becomes of a member whose score is `old`, given a score or an increment; nothing if a condition is not met.
    fn change(&self, old: Option<f64>, given: f64) -> Result<Option<ScoreChange>, Stop> {
        let Some(old) = old else {
            let new = given + 0.0;
            return Ok((!self.only_existing).then_some(ScoreChange { old: None, new }));
        };
        if self.only_new {
            return Ok(None);
        }
        let new = if self.increments { old + given } else { given };
        if new.is_nan() {
            return Err("ERR resulting score is not a number (NaN)".into());
        }
        if self.only_less && new >= old || self.only_greater && new <= old {
            return Ok(None);
        }
        Ok(Some(ScoreChange {
            old: Some(old),
            new: new + 0.0,
        }))
    }
}

fn zadd(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (options, first) = Options::parse(args)?;
    add_scored(cx, args, &options, first)
}

fn zincrby(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let options = Options {
        increments: true,
        ..Options::default()
    };
    add_scored(cx, args, &options, 2)
}

/// Adds the members from argument `first` on, each behind its score.
fn add_scored(cx: &mut Ctx<'_>, args: Args<'_>, options: &Options, first: usize) -> Done {
    let scores = args.from(first).step_by(2).map(score);
    let scores: Vec<f64> = scores.collect::<Result<_, _>>()?;
    let members = args.from(first + 1).step_by(2);
    add(cx, &args[1], options, &scores, members)
}

/// Adds members with these scores.
pub(super) fn add<'k>(
    cx: &mut Ctx<'_>,
    key: &[u8],
    options: &Options,
    scores: &[f64],
    members: impl ExactSizeIterator<Item = &'k [u8]> + Clone,
) -> Done {
    let pairs = scores.iter().copied().zip(members.clone());

    let found = Zset::find(&cx.op, cx.namespace, key)?;
    let found = match found {
        Some(zset) => Some(Growth::of(&zset)),
        None if options.only_existing => {
            match options.increments {
                true => cx.reply.null(),
                false => cx.reply.integer(0),
            }
            return Ok(());
        }
        None => None,
    };
    let (mut longest_bytes, mut bytes) = (0, 0);
    for member in members.clone() {
        longest_bytes = longest_bytes.max(member.len());
        bytes += member.len() + SCORE_BYTES;
        cx.op
            .check_element(key, (member.len() + SCORE_BYTES) as u64)?;
    }
    check_room(cx, 2 * scores.len(), 2 * bytes)?;
    // A small one has no index by member.
    cx.op.foresee_growth(cx.namespace, key, scores.len(), bytes);
    let mut growth = match found {
        Some(growth) => growth,
        None => Growth::create(cx, key, scores.len(), longest_bytes)?,
    };

    let (mut latest, mut ready) = (None, cx.progress.done);
    for (given, member) in pairs.clone().skip(cx.progress.done) {
        if cx.progress.done == ready && pairs.len() > 1 {
            let next = pairs.clone().skip(ready).take(MEMBERS_TOGETHER);
            want_changes(cx, key, options, next)?;
            ready += MEMBERS_TOGETHER;
        }
        let change = match cx.progress.score_change {
            Some(change) => Some(change),
            None => change_of(cx, key, options, given, member)?,
        };
        latest = change.map(|change| change.new);
        if let Some(change) = change {
            put(cx, key, &mut growth, member, change)?;
            let is_counted = match change.old {
                Some(old) => options.counts_changed && old != change.new,
                None => true,
            };
            cx.progress.count += i64::from(is_counted);
        }
        cx.progress.done += 1;
    }
    let count = cx.progress.count;
    match (options.increments, latest) {
        (true, Some(score)) => cx.reply.double(score),
        (true, None) => cx.reply.null(),
        (false, _) => cx.reply.integer(count),
    }
    Ok(())
}

/// What becomes of a member, given a score or an increment. All that the change needs of the tree by score is there, or is asked
/// for together with the member.
fn change_of(
    cx: &Ctx<'_>,
    key: &[u8],
    options: &Options,
    given: f64,
    member: &[u8],
) -> Result<Option<ScoreChange>, Stop> {
    let Some(zset) = Zset::find(&cx.op, cx.namespace, key)? else {
        return options.change(None, given);
    };
    let old = match zset.score(member) {
        Err(cold @ Stop::Engine(hybridlog::Stop::Cold)) if !options.increments => {
            return Err(zset
                .want_scored(std::iter::once((given, member)))
                .err()
                .unwrap_or(cold));
        }
        old => old?,
    };
    let change = options.change(old, given)?;
    if let Some(ScoreChange {
        old: Some(old),
        new,
    }) = change
        && old != new
        && zset.collection.is_paged()
    {
        zset.want_scored([(old, member), (new, member)].into_iter())?;
    }
    Ok(change)
}

/// Asks for all pages that giving the members these scores will need: those of both trees together where they are cold, and
/// then those that hold the old scores.
fn want_changes<'k>(
    cx: &Ctx<'_>,
    key: &[u8],
    options: &Options,
    pairs: impl Iterator<Item = (f64, &'k [u8])> + Clone,
) -> Result<(), Stop> {
    let Some(zset) = Zset::find_paged(&cx.op, cx.namespace, key)? else {
        return Ok(());
    };
    let members = zset.want(pairs.clone().map(|(_, member)| member));
    let new_scores = match options.increments {
        true => Ok(()),
        false => zset.want_scored(pairs.clone()),
    };
    members.and(new_scores)?;
    let (mut scores, mut cold) = (Vec::new(), None);
    for (given, member) in pairs {
        match zset.score(member) {
            Ok(Some(old)) => {
                scores.push((old, member));
                if options.increments {
                    scores.push((old + given, member));
                }
            }
            Ok(None) if options.increments => scores.push((given, member)),
            Ok(None) => {}
            Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) => cold = Some(stop),
            Err(stop) => return Err(stop),
        }
    }
    cold.map_or(Ok(()), Err)?;
    zset.want_scored(scores.into_iter())
}

fn zrem(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let mut ready = cx.progress.done;
    for member in args.from(2).skip(cx.progress.done) {
        if cx.progress.done == ready {
            let next = args.from(2 + ready).take(MEMBERS_TOGETHER);
            want_removals(cx, key, next)?;
            ready += MEMBERS_TOGETHER;
        }
        let Some(zset) = Zset::find(&cx.op, cx.namespace, key)? else {
            break;
        };
        let has_index = zset.has_index();
        if let Some(score) = zset.score(member)? {
            remove(cx, key, has_index, member, score)?;
            cx.progress.count += 1;
        }
        cx.progress.done += 1;
    }
    if cx.progress.count > 0 {
        remove_if_empty(cx, key, KIND_ZSET)?;
    }
    let removed = cx.progress.count;
    cx.reply.integer(removed);
    Ok(())
}

/// Asks for all pages that removing the members will need.
fn want_removals<'k>(
    cx: &Ctx<'_>,
    key: &[u8],
    members: impl Iterator<Item = &'k [u8]> + Clone,
) -> Result<(), Stop> {
    let Some(zset) = Zset::find_paged(&cx.op, cx.namespace, key)? else {
        return Ok(());
    };
    zset.want(members.clone())?;
    let mut scores = Vec::new();
    for member in members {
        if let Some(score) = zset.score(member)? {
            scores.push((score, member));
        }
    }
    zset.want_scored(scores.into_iter())
}
