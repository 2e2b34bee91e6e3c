//! What the commands on sorted sets share: how one is held, finding members and places in it, and changing scores.
//!
//! A sorted set is a collection of two trees: one by score, whose keys are scores with the members behind them, and an index
//! from members to their scores. While it is small it has the first alone, and members are looked for in all of it: the second
//! byte of its header says whether there is the index, the first is its encoding.
//!
//! What must hold:
//!
//! * The tree by score holds every member once; and the index, if there is one, the same members with the same scores.
//! * A change of both trees that is begun is ended by the same command, in one run or in several. The index is changed last: it
//!   tells a run that goes on what was there before. Where there is none, [`Progress`](crate::ctx::Progress) does.

use std::io;
use std::ops::{ControlFlow, Range};

use hybridlog::{Collection, Direction, Element, Layout, Namespace, Operation, Order, TreeLayout};
use resp::Protocol;

use super::KIND_ZSET;
use super::collection::{Encoding, PackedLimits, find, walk_range};
use super::string::STRING_ROW;
use crate::command::{Row, Stop};
use crate::ctx::Ctx;
use crate::memory::Allowance;
use crate::output::Output;

/// The tree that tells the score of a member.
pub(super) const MEMBERS: usize = 0;
/// The tree in which the members are in order.
pub(super) const SCORES: usize = 1;

pub(super) static ZSET: Layout = Layout {
    kind: KIND_ZSET,
    trees: &[
        TreeLayout {
            order: Order::Hash,
            has_values: true,
        },
        TreeLayout {
            order: Order::Key,
            has_values: false,
        },
    ],
};

/// What most rows of sorted set commands have in common.
pub(super) const ZSET_ROW: Row = Row {
    categories: &["sortedset"],
    group: "sorted-set",
    since: "1.2.0",
    complexity: "O(log(N)), N being the number of members",
    ..STRING_ROW
};

/// From so many bytes on a sorted set has the index: few enough to be looked through for a member, and to lie in the root
/// record with every member in one piece.
const SMALL_MAX_BYTES: u64 = 1000;
/// What a member takes in the tree by score, beside its own bytes.
const SCORED_BYTES: u64 = SCORE_BYTES as u64 + 2;

/// A command on very many members takes so many at a time, and fetches what is cold of those together.
pub(super) const MEMBERS_TOGETHER: usize = 256;

pub(super) const SCORE_BYTES: usize = 8;
const SIGN: u64 = 1 << 63;

/// A score as bytes that compare as scores do. Nothing tells 0 and -0 apart.
fn score_bytes(score: f64) -> [u8; SCORE_BYTES] {
    ordered(score).to_be_bytes()
}

/// A score as a number that compares as scores do.
pub(super) fn ordered(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// The key of a member in the tree by score.
pub(super) fn score_key(score: f64, member: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(SCORE_BYTES + member.len());
    key.extend_from_slice(&score_bytes(score));
    key.extend_from_slice(member);
    key
}

/// The score at the start of `bytes`, and what is behind it.
pub(super) fn split_score(bytes: &[u8]) -> Result<(f64, &[u8]), hybridlog::Stop> {
    let Some((score, rest)) = bytes.split_first_chunk() else {
        let text = "an element of a sorted set is damaged: it is shorter than a score";
        return Err(hybridlog::Stop::Io(io::Error::new(
            io::ErrorKind::InvalidData,
            text,
        )));
    };
    let ordered = u64::from_be_bytes(*score);
    let bits = if ordered & SIGN == 0 {
        !ordered
    } else {
        ordered & !SIGN
    };
    Ok((f64::from_bits(bits), rest))
}

/// A sorted set that is being read.
pub(super) struct Zset<'r> {
    pub(super) collection: Collection<'r>,
    has_index: bool,
}

impl<'r> Zset<'r> {
    /// Finds the sorted set stored under `key`; an error if the key holds something else.
    pub(super) fn find(
        op: &'r Operation<'_>,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Zset<'r>>, Stop> {
        Ok(find(op, namespace, key, KIND_ZSET)?.map(Zset::of))
    }

    /// As [`Self::find`], of one that is in pages, so that a part of it may be cold.
    pub(super) fn find_paged(
        op: &'r Operation<'_>,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Zset<'r>>, Stop> {
        let found = Zset::find(op, namespace, key)?;
        Ok(found.filter(|zset| zset.collection.is_paged()))
    }

    pub(super) fn of(collection: Collection<'r>) -> Zset<'r> {
        let has_index = collection.header().get(1) == Some(&1);
        Zset {
            collection,
            has_index,
        }
    }

    /// How many members it has.
    pub(super) fn len(&self) -> u64 {
        self.collection.len(SCORES)
    }

    pub(super) fn has_index(&self) -> bool {
        self.has_index
    }

    /// The score of a member.
    pub(super) fn score(&self, member: &[u8]) -> Result<Option<f64>, Stop> {
        if self.has_index {
            let found = self.collection.get(MEMBERS, member)?;
            let score = found.map(|element| split_score(&element.value).map(|(score, _)| score));
            return Ok(score.transpose()?);
        }
        let mut found = None;
        let all = 0..self.len();
        walk_range(
            &self.collection,
            SCORES,
            all,
            Direction::Forward,
            |element| {
                if element.key.get(SCORE_BYTES..) != Some(member) {
                    return Ok(ControlFlow::Continue(()));
                }
                found = Some(split_score(&element.key)?.0);
                Ok(ControlFlow::Break(()))
            },
        )?;
        Ok(found)
    }

    /// How many members are in front of a member that has this score.
    pub(super) fn rank(&self, score: f64, member: &[u8]) -> Result<u64, Stop> {
        let (rank, _) = self.collection.rank(SCORES, &score_key(score, member))?;
        Ok(rank)
    }

    /// Asks for what looking up `members` will need: together where it is cold.
    pub(super) fn want<'k>(&self, members: impl Iterator<Item = &'k [u8]>) -> Result<(), Stop> {
        if self.has_index {
            self.collection.want(MEMBERS, members)?;
        }
        Ok(())
    }

    /// Asks for what these members with these scores will need in the tree by score.
    pub(super) fn want_scored<'k>(
        &self,
        members: impl Iterator<Item = (f64, &'k [u8])>,
    ) -> Result<(), Stop> {
        let mut stop = None;
        for (score, member) in members {
            let key = score_key(score, member);
            if let Err(reason) = self.collection.want(SCORES, [key.as_slice()]) {
                stop = Some(reason);
            }
        }
        stop.map_or(Ok(()), |stop| Err(stop.into()))
    }

    /// Hands the members at these positions, with their scores, to `each`: from the first on, or from the last back.
    pub(super) fn walk(
        &self,
        range: Range<u64>,
        direction: Direction,
        mut each: impl FnMut(&[u8], f64) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        walk_range(&self.collection, SCORES, range, direction, |element| {
            let (score, member) = scored(&element)?;
            each(member, score).map(ControlFlow::Continue)
        })
    }
}

/// The score and the member of an element of the tree by score.
pub(super) fn scored<'e>(element: &'e Element<'_>) -> Result<(f64, &'e [u8]), Stop> {
    Ok(split_score(&element.key)?)
}

/// What becomes of the score of a member.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct ScoreChange {
    /// What it is so far, if it is a member.
    pub(super) old: Option<f64>,
    pub(super) new: f64,
}

/// What has to be known of a sorted set while members are added.
pub(super) struct Growth {
    encoding: Encoding,
    has_index: bool,
    len: u64,
    /// Of the root and all pages.
    bytes: u64,
}

impl Growth {
    pub(super) fn of(zset: &Zset<'_>) -> Growth {
        Growth {
            encoding: Encoding::of(&zset.collection),
            has_index: zset.has_index,
            len: zset.len(),
            bytes: zset.collection.bytes(),
        }
    }

    /// Makes a sorted set for `count` members, the longest of which has so many bytes.
    pub(super) fn create(
        cx: &mut Ctx<'_>,
        key: &[u8],
        count: usize,
        longest_bytes: usize,
    ) -> Result<Growth, Stop> {
        let mut growth = Growth {
            encoding: Encoding::Listpack,
            has_index: false,
            len: 0,
            bytes: 0,
        };
        if !is_packed(cx, count as u64, longest_bytes as u64) {
            growth.encoding = Encoding::Skiplist;
            growth.store_header(cx, key)?;
        }
        Ok(growth)
    }

    fn store_header(&self, cx: &mut Ctx<'_>, key: &[u8]) -> Result<(), Stop> {
        let header = header(self.encoding, self.has_index);
        Ok(cx.op.set_header(cx.namespace, key, &ZSET, &header)?)
    }

    /// Gets the sorted set ready for a new member.
    fn grow(&mut self, cx: &mut Ctx<'_>, key: &[u8], member: &[u8]) -> Result<(), Stop> {
        let bytes = member.len() as u64;
        if self.encoding.is_packed() && !is_packed(cx, self.len + 1, bytes) {
            self.encoding = Encoding::Skiplist;
            self.store_header(cx, key)?;
        }
        if !self.has_index && self.bytes + bytes + SCORED_BYTES > SMALL_MAX_BYTES {
            self.index(cx, key)?;
        }
        self.len += 1;
        self.bytes += bytes + SCORED_BYTES;
        Ok(())
    }

    /// Makes the index. The header says that it is there once it is complete.
    fn index(&mut self, cx: &mut Ctx<'_>, key: &[u8]) -> Result<(), Stop> {
        let mut members = Vec::new();
        if let Some(zset) = Zset::find(&cx.op, cx.namespace, key)? {
            zset.walk(0..zset.len(), Direction::Forward, |member, score| {
                members.push((member.to_vec(), score_bytes(score)));
                Ok(())
            })?;
        }
        for (member, score) in &members {
            cx.op
                .put_element(cx.namespace, key, &ZSET, MEMBERS, member, score, None)?;
        }
        self.has_index = true;
        self.store_header(cx, key)
    }
}

/// What the header of a sorted set says.
pub(super) fn header(encoding: Encoding, has_index: bool) -> [u8; 2] {
    [encoding as u8, u8::from(has_index)]
}

/// Whether so many members with so many bytes each fit in what Redis would call a listpack.
pub(super) fn is_packed(cx: &Ctx<'_>, count: u64, longest_bytes: u64) -> bool {
    let limit = PackedLimits::now(cx).zset;
    count <= limit.entries && longest_bytes <= limit.element_bytes
}

/// Whether a sorted set of `count` members with so many bytes together is without the index.
pub(super) fn is_small(count: usize, bytes: usize) -> bool {
    bytes as u64 + count as u64 * SCORED_BYTES <= SMALL_MAX_BYTES
}

/// Gives a member a score.
pub(super) fn put(
    cx: &mut Ctx<'_>,
    key: &[u8],
    growth: &mut Growth,
    member: &[u8],
    change: ScoreChange,
) -> Result<(), Stop> {
    if change.old == Some(change.new) {
        return Ok(());
    }
    cx.progress.score_change = Some(change);
    if change.old.is_none() {
        growth.grow(cx, key, member)?;
    }
    let new = score_key(change.new, member);
    cx.op
        .put_element(cx.namespace, key, &ZSET, SCORES, &new, b"", None)?;
    if let Some(old) = change.old {
        let old = score_key(old, member);
        if let Err(stop) = cx.op.remove_element(cx.namespace, key, SCORES, &old) {
            let stop = Stop::from(stop);
            if !stop.is_wait() {
                // Nobody may find it twice.
                cx.op.remove_element(cx.namespace, key, SCORES, &new)?;
            }
            return Err(stop);
        }
    }
    if growth.has_index {
        let score = score_bytes(change.new);
        cx.op
            .put_element(cx.namespace, key, &ZSET, MEMBERS, member, &score, None)?;
    }
    cx.progress.score_change = None;
    Ok(())
}

/// Removes a member that has this score.
pub(super) fn remove(
    cx: &mut Ctx<'_>,
    key: &[u8],
    has_index: bool,
    member: &[u8],
    score: f64,
) -> Result<(), Stop> {
    let scored = score_key(score, member);
    cx.op.remove_element(cx.namespace, key, SCORES, &scored)?;
    if has_index {
        cx.op.remove_element(cx.namespace, key, MEMBERS, member)?;
    }
    Ok(())
}

/// How members are replied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Members,
    /// Each followed by its score.
    Flat,
    /// Each with its score as an array of two.
    Nested,
}

impl Shape {
    /// As most commands with WITHSCORES reply.
    pub(super) fn new(protocol: Protocol, with_scores: bool) -> Shape {
        match protocol {
            _ if !with_scores => Shape::Members,
            Protocol::Resp2 => Shape::Flat,
            Protocol::Resp3 => Shape::Nested,
        }
    }

    /// Elements of the array with so many members.
    pub(super) fn elements(self, members: u64) -> usize {
        let each = if self == Shape::Flat { 2 } else { 1 };
        members as usize * each
    }

    /// Bytes of the reply about a member, beside those of its own, at most.
    pub(super) const BESIDE_BYTES: usize = 80;

    pub(super) fn reply(
        self,
        memory: &mut Allowance,
        reply: &mut Output,
        member: &[u8],
        score: f64,
    ) -> Result<(), Stop> {
        reply.ask_for_room(memory, member.len() + Shape::BESIDE_BYTES)?;
        self.write(reply, member, score);
        Ok(())
    }

    /// As [`Self::reply`], with memory that has been asked for.
    pub(super) fn write(self, reply: &mut Output, member: &[u8], score: f64) {
        if self == Shape::Nested {
            reply.array(2);
        }
        reply.bulk(member);
        if self != Shape::Members {
            reply.double(score);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_compare_as_scores_do() {
        let ascending = [
            f64::NEG_INFINITY,
            f64::MIN,
            -1.5,
            -f64::MIN_POSITIVE,
            -5e-324,
            0.0,
            5e-324,
            1.0,
            1.5,
            f64::MAX,
            f64::INFINITY,
        ];
        for pair in ascending.windows(2) {
            assert!(
                score_key(pair[0], b"b") < score_key(pair[1], b"a"),
                "{pair:?}"
            );
        }
        for score in ascending {
            let key = score_key(score, b"m");
            assert_eq!(split_score(&key).ok(), Some((score, &b"m"[..])));
        }
        assert_eq!(score_key(-0.0, b"m"), score_key(0.0, b"m"));
        assert!(split_score(b"1234567").is_err());
    }
}
