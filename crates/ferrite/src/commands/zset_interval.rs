//! Which members of a sorted set a command means: by their places, their scores, or (where all scores are the same) by the
//! bytes of the members.

use std::ops::Range;

use hybridlog::Direction;

use super::parse::integer;
use super::zset::{SCORES, Zset, ordered, score_key, scored};
use super::zset_number::lenient_double;
use crate::command::Stop;

/// What an [`Interval`] is read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    Rank,
    Score,
    Lex,
}

/// An interval of members, as a command was given it.
pub(super) enum Interval<'a> {
    /// From one place to another, both included; negative ones count from the end.
    Rank(i64, i64),
    Score(ScoreBound, ScoreBound),
    Lex(LexBound<'a>, LexBound<'a>),
}

/// An end of an interval of scores.
#[derive(Clone, Copy)]
pub(super) struct ScoreBound {
    score: f64,
    is_exclusive: bool,
}

/// An end of an interval of members.
#[derive(Clone, Copy)]
pub(super) enum LexBound<'a> {
    /// In front of all members.
    Lowest,
    /// Behind all members.
    Highest,
    Member {
        member: &'a [u8],
        is_exclusive: bool,
    },
}

impl<'a> Interval<'a> {
    /// Reads the lower and the upper end of an interval.
    pub(super) fn parse(by: By, from: &'a [u8], to: &'a [u8]) -> Result<Interval<'a>, Stop> {
        Ok(match by {
            By::Rank => Interval::Rank(integer(from)?, integer(to)?),
            By::Score => Interval::Score(ScoreBound::parse(from)?, ScoreBound::parse(to)?),
            By::Lex => Interval::Lex(LexBound::parse(from)?, LexBound::parse(to)?),
        })
    }

    /// The places of the members in it. Ranks are counted in the given direction; and the first `removed` of the members that
    /// they meant are gone by now, so that those behind them have moved up.
    pub(super) fn positions(
        &self,
        zset: &Zset<'_>,
        direction: Direction,
        removed: u64,
    ) -> Result<Range<u64>, Stop> {
        match *self {
            Interval::Rank(first, last) => {
                let len = zset.len() + removed;
                let range = ranks(first, last, len);
                let range = match direction {
                    Direction::Forward => range,
                    Direction::Backward => len - range.end..len - range.start,
                };
                Ok(range.start..range.end.saturating_sub(removed))
            }
            Interval::Score(from, to) => by_score(zset, from, to),
            Interval::Lex(from, to) => by_member(zset, from, to),
        }
    }
}

impl ScoreBound {
    fn parse(arg: &[u8]) -> Result<ScoreBound, Stop> {
        let (is_exclusive, text) = match arg {
            [b'(', rest @ ..] => (true, rest),
            _ => (false, arg),
        };
        let score = lenient_double(text).ok_or("ERR min or max is not a float")?;
        Ok(ScoreBound {
            score,
            is_exclusive,
        })
    }
}

impl<'a> LexBound<'a> {
    fn parse(arg: &'a [u8]) -> Result<LexBound<'a>, Stop> {
        match arg {
            // What is behind a zero byte does not count.
            [b'-'] | [b'-', 0, ..] => Ok(LexBound::Lowest),
            [b'+'] | [b'+', 0, ..] => Ok(LexBound::Highest),
            [b'(', member @ ..] => Ok(LexBound::Member {
                member,
                is_exclusive: true,
            }),
            [b'[', member @ ..] => Ok(LexBound::Member {
                member,
                is_exclusive: false,
            }),
            _ => Err("ERR min or max not valid string range item".into()),
        }
    }
}

/// The places from `first` to `last`, both included; negative ones count from the end.
fn ranks(first: i64, last: i64, len: u64) -> Range<u64> {
    let from_start = |place: i64| match place {
        ..0 => (len as i64).saturating_add(place),
        _ => place,
    };
    // One past the last; nothing if that is in front of the first.
    let behind = from_start(last).saturating_add(1).clamp(0, len as i64);
    let first = from_start(first).clamp(0, behind);
    first as u64..behind as u64
}

fn by_score(zset: &Zset<'_>, from: ScoreBound, to: ScoreBound) -> Result<Range<u64>, Stop> {
    // No two scores are so near that another fits between them, so what is behind one is at the next.
    let edge = |bound: ScoreBound, is_behind: bool| {
        (ordered(bound.score) + u64::from(is_behind)).to_be_bytes()
    };
    let (first, behind) = (edge(from, from.is_exclusive), edge(to, !to.is_exclusive));
    zset.collection
        .want(SCORES, [first.as_slice(), behind.as_slice()])?;
    let (first, _) = zset.collection.rank(SCORES, &first)?;
    let (behind, _) = zset.collection.rank(SCORES, &behind)?;
    Ok(first..behind.max(first))
}

/// Where not all scores are the same, the interval is from where its lower end belongs among the members with the lowest score
/// to where its upper end belongs among those with the highest.
fn by_member(zset: &Zset<'_>, from: LexBound<'_>, to: LexBound<'_>) -> Result<Range<u64>, Stop> {
    let len = zset.len();
    let score_at = |position: u64| -> Result<f64, Stop> {
        let element = zset.collection.at(SCORES, position)?;
        element.map_or(Ok(0.0), |element| Ok(scored(&element)?.0))
    };
    let (lowest, highest) = (score_at(0), score_at(len.saturating_sub(1)));
    let (lowest, highest) = (lowest?, highest?);
    let first = place(zset, lowest, from, false);
    let behind = place(zset, highest, to, true);
    let (first, behind) = (first?, behind?);
    Ok(first..behind.max(first))
}

/// How many members are in front of an end of an interval; its own member is if it is an upper end that includes it, or a
/// lower end that does not.
fn place(zset: &Zset<'_>, score: f64, bound: LexBound<'_>, is_upper: bool) -> Result<u64, Stop> {
    match bound {
        LexBound::Lowest => Ok(0),
        LexBound::Highest => Ok(zset.len()),
        LexBound::Member {
            member,
            is_exclusive,
        } => {
            let (rank, is_there) = zset.collection.rank(SCORES, &score_key(score, member))?;
            Ok(rank + u64::from(is_there && is_upper != is_exclusive))
        }
    }
}
