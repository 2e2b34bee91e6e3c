//! A sorted set that a command makes of others, and stores: its members with their scores, held in memory.

use std::borrow::Cow;
use std::ops::Range;

use hybridlog::{Element, NewCollection};

use super::collection::{Encoding, check_room};
use super::zset::split_score;
use super::zset::{MEMBERS, SCORE_BYTES, SCORES, ZSET, header, is_packed, is_small, score_key};
use crate::command::Stop;
use crate::ctx::Ctx;
use crate::memory::Allowance;

/// So many members are stored at once: the rest is put one by one, for what is stored at once is planned as a whole.
const STORED_TOGETHER: usize = 4096;
/// A member that is stored at once takes so many times its own bytes, in both trees and in the plan.
const PLAN_FACTOR: u64 = 6;

/// Members with scores.
#[derive(Default)]
pub(crate) struct ScoredMembers {
    /// Each member behind its score, as the tree by score has them.
    bytes: Vec<u8>,
    /// Where each is.
    places: Vec<Range<usize>>,
    longest_bytes: usize,
}

impl ScoredMembers {
    /// With room for `count` members that have so many bytes together: what has to grow takes more on the way.
    pub(super) fn with_room(
        count: usize,
        bytes: usize,
        memory: &mut Allowance,
    ) -> Result<ScoredMembers, Stop> {
        let bytes = bytes + SCORE_BYTES * count;
        memory.ask((bytes + count * size_of::<Range<usize>>()) as u64)?;
        Ok(ScoredMembers {
            bytes: Vec::with_capacity(bytes),
            places: Vec::with_capacity(count),
            longest_bytes: 0,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn push(
        &mut self,
        member: &[u8],
        score: f64,
        memory: &mut Allowance,
    ) -> Result<(), Stop> {
        let start = self.bytes.len();
        let end = start + SCORE_BYTES + member.len();
        if end > self.bytes.capacity() {
            memory.ask(end.max(2 * self.bytes.capacity()) as u64)?;
        }
        if self.places.len() == self.places.capacity() {
            memory.ask((2 * self.places.len() * size_of::<Range<usize>>()) as u64)?;
        }
        self.bytes.extend_from_slice(&score_key(score, member));
        self.places.push(start..end);
        self.longest_bytes = self.longest_bytes.max(member.len());
        Ok(())
    }

    /// Puts them in the order of their scores, those with the same in that of their bytes.
    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.places
            .sort_unstable_by(|a, b| bytes[a.clone()].cmp(&bytes[b.clone()]));
    }

    /// Each member with its score.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<(&[u8], f64), Stop>> {
        self.places.iter().map(|place| {
            let (score, member) = split_score(&self.bytes[place.clone()])?;
            Ok((member, score))
        })
    }
}

/// Stores a sorted set, whatever the key holds; one without members is none. Its members are in order.
pub(super) fn store(cx: &mut Ctx<'_>, key: &[u8], result: ScoredMembers) -> Result<(), Stop> {
    let done = store_step_by_step(cx, key, &result);
    if done.is_err() {
        // What it was made of may be gone by now.
        cx.progress.scored = Some(result);
    }
    done
}

fn store_step_by_step(cx: &mut Ctx<'_>, key: &[u8], result: &ScoredMembers) -> Result<(), Stop> {
    if result.places.is_empty() {
        cx.op.remove(cx.namespace, key)?;
        return Ok(());
    }
    check_room(cx, 2 * result.len(), 2 * result.bytes.len())?;
    if cx.progress.done == 0 {
        let encoding = match is_packed(cx, result.len() as u64, result.longest_bytes as u64) {
            true => Encoding::Listpack,
            false => Encoding::Skiplist,
        };
        let count = result.len().min(STORED_TOGETHER);
        build(cx, key, (result, count), encoding, None)?;
        cx.progress.done = count;
    }
    for place in &result.places[cx.progress.done..] {
        let scored = &result.bytes[place.clone()];
        let (score, member) = scored.split_at(SCORE_BYTES);
        cx.op
            .put_element(cx.namespace, key, &ZSET, SCORES, scored, b"", None)?;
        cx.op
            .put_element(cx.namespace, key, &ZSET, MEMBERS, member, score, None)?;
        cx.progress.done += 1;
    }
    Ok(())
}

/// Stores the first `count` of the members at once, whatever the key holds. They are in order, and the others follow.
pub(super) fn build(
    cx: &mut Ctx<'_>,
    key: &[u8],
    (result, count): (&ScoredMembers, usize),
    encoding: Encoding,
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    let has_index = !is_small(
        result.len(),
        result.bytes.len() - SCORE_BYTES * result.len(),
    );
    let places = &result.places[..count];
    let bytes: usize = places.iter().map(Range::len).sum();
    cx.client.allowance.ask(bytes as u64 * PLAN_FACTOR)?;
    let elements = places.iter().map(|place| &result.bytes[place.clone()]);
    let scored = elements.clone().map(|key| (SCORES, element(key, b"")));
    let members = elements.filter(|_| has_index).map(|key| {
        let (score, member) = key.split_at(SCORE_BYTES);
        (MEMBERS, element(member, score))
    });
    let new = NewCollection {
        layout: &ZSET,
        header: &header(encoding, has_index),
        due_at_ms: None,
        expires_at_ms,
    };
    let elements = &mut scored.chain(members);
    Ok(cx.op.build_collection(cx.namespace, key, new, elements)?)
}

fn element<'e>(key: &'e [u8], value: &'e [u8]) -> Element<'e> {
    Element {
        key: Cow::Borrowed(key),
        value: Cow::Borrowed(value),
        expires_at_ms: None,
    }
}
