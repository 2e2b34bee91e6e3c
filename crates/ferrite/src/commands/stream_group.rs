//! Consumer groups of streams: how they are stored, and finding them.
//!
//! All of them lie in one tree by key, in which the first byte of a key tells what it is:
//!
//! ```text
//! c  group u32, name          a consumer: its number u32, when it was seen and when active, i64 each, Unix milliseconds
//! g  name                     a group: its number u32, the last ID it was given, how many entries it has read i64 (-1: unknown)
//! n  group u32, consumer u32  the name of the consumer with this number
//! p  group u32, ID            an entry that is pending: whose u32, when it was delivered i64, how many times u64
//! q  group u32, consumer u32, ID   an entry that is pending with this consumer
//! u  group u32                the number is in use
//! ```
//!
//! Numbers in keys are big-endian, those in values little-endian. So what is pending in a group, and what is with one of its
//! consumers, are ranges in the order of IDs, and as the tree knows positions, to count them takes no walk. What is pending
//! is changed so that the element of `p` comes last: what was cut off before that is done again.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use hybridlog::{Collection, Direction, WalkFrom};

use super::stream::{GROUPS, STREAM, Stream};
use super::stream_id::Id;
use crate::command::Stop;
use crate::ctx::Ctx;

/// A consumer group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Group {
    pub(super) number: u32,
    /// The last entry that was delivered.
    pub(super) last_id: Id,
    /// How many of the entries ever added it has read, up to the last; none if that is not known.
    pub(super) entries_read: Option<u64>,
}

/// A consumer of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Consumer {
    pub(super) number: u32,
    /// When it last asked for something, Unix milliseconds.
    pub(super) seen_ms: i64,
    /// When it last got something; -1 if never.
    pub(super) active_ms: i64,
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pending {
    /// The number of the consumer that has it.
    pub(super) consumer: u32,
    /// When it was delivered, Unix milliseconds.
    pub(super) delivered_ms: i64,
    /// How many times.
    pub(super) deliveries: u64,
}

/// The error of a group that does not exist where it must.
pub(super) fn no_group(key: &[u8], group: &[u8]) -> Stop {
    format!(
        "NOGROUP No such key '{}' or consumer group '{}'",
        shown(key),
        shown(group)
    )
    .into()
}

/// A name in an error, which as in Redis ends before a NUL byte.
pub(super) fn shown(name: &[u8]) -> String {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn key_of(kind: u8, numbers: &[u32], rest: &[u8]) -> Vec<u8> {
    let mut key = vec![kind];
    for number in numbers {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key.extend_from_slice(rest);
    key
}

pub(super) fn group_key(name: &[u8]) -> Vec<u8> {
    key_of(b'g', &[], name)
}

pub(super) fn used_key(group: u32) -> Vec<u8> {
    key_of(b'u', &[group], b"")
}

pub(super) fn consumer_key(group: u32, name: &[u8]) -> Vec<u8> {
    key_of(b'c', &[group], name)
}

pub(super) fn name_key(group: u32, consumer: u32) -> Vec<u8> {
    key_of(b'n', &[group, consumer], b"")
}

pub(super) fn pending_key(group: u32, id: Id) -> Vec<u8> {
    key_of(b'p', &[group], &id.to_bytes())
}

pub(super) fn owned_key(group: u32, consumer: u32, id: Id) -> Vec<u8> {
    key_of(b'q', &[group, consumer], &id.to_bytes())
}

/// What the keys of a range have in common.
#[derive(Clone, Copy)]
pub(super) enum Prefix {
    Groups,
    UsedNumbers,
    Consumers(u32),
    Names(u32),
    Pending(u32),
    /// Of all consumers of the group.
    Owned(u32),
    OwnedBy(u32, u32),
}

impl Prefix {
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Prefix::Groups => key_of(b'g', &[], b""),
            Prefix::UsedNumbers => key_of(b'u', &[], b""),
            Prefix::Consumers(group) => key_of(b'c', &[group], b""),
            Prefix::Names(group) => key_of(b'n', &[group], b""),
            Prefix::Pending(group) => key_of(b'p', &[group], b""),
            Prefix::Owned(group) => key_of(b'q', &[group], b""),
            Prefix::OwnedBy(group, consumer) => key_of(b'q', &[group, consumer], b""),
        }
    }

    /// The least bytes behind all that begin with the prefix.
    fn end(self) -> Vec<u8> {
        let mut end = self.bytes();
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                break;
            }
        }
        end
    }

    /// The positions of the elements whose keys begin so.
    pub(super) fn positions(self, collection: &Collection<'_>) -> Result<Range<u64>, Stop> {
        self.positions_from(collection, &self.bytes())
    }

    /// As [`Prefix::positions`], of those that are not less than `key`.
    pub(super) fn positions_from(
        self,
        collection: &Collection<'_>,
        key: &[u8],
    ) -> Result<Range<u64>, Stop> {
        let (start, _) = collection.rank(GROUPS, key)?;
        let (end, _) = collection.rank(GROUPS, &self.end())?;
        Ok(start..end.max(start))
    }

    pub(super) fn count(self, collection: &Collection<'_>) -> Result<u64, Stop> {
        let positions = self.positions(collection)?;
        Ok(positions.end - positions.start)
    }

    /// The least number that none of the elements has behind the prefix.
    pub(super) fn free_number(self, collection: &Collection<'_>) -> Result<u32, Stop> {
        let prefix = self.bytes();
        let positions = self.positions(collection)?;
        let (mut least, mut most) = (0, (positions.end - positions.start) as u32);
        // All below `least` are in use, and not all up to `most`.
        while least < most {
            let middle = least + (most - least) / 2;
            let behind = key_of(
                prefix[0],
                &[],
                &[&prefix[1..], &(middle + 1).to_be_bytes()].concat(),
            );
            let (rank, _) = collection.rank(GROUPS, &behind)?;
            if rank - positions.start > u64::from(middle) {
                least = middle + 1;
            } else {
                most = middle;
            }
        }
        Ok(least)
    }
}

fn number_at(value: &[u8], at: usize) -> u64 {
    let bytes = value
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

fn first_number(value: &[u8]) -> u32 {
    value
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

impl Group {
    pub(super) fn find(stream: &Stream<'_>, name: &[u8]) -> Result<Option<Group>, Stop> {
        let found = stream.collection.get(GROUPS, &group_key(name))?;
        Ok(found.map(|element| Group::of(&element.value)))
    }

    pub(super) fn of(value: &[u8]) -> Group {
        Group {
            number: first_number(value),
            last_id: Id::of_end(value.get(4..20).unwrap_or_default()),
            entries_read: u64::try_from(number_at(value, 20) as i64).ok(),
        }
    }

    /// What is stored of it.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut value = self.number.to_le_bytes().to_vec();
        value.extend_from_slice(&self.last_id.to_bytes());
        value.extend_from_slice(&self.entries_read.unwrap_or(u64::MAX).to_le_bytes());
        value
    }

    pub(super) fn store(&self, cx: &mut Ctx<'_>, key: &[u8], name: &[u8]) -> Result<(), Stop> {
        put(cx, key, &group_key(name), &self.to_bytes())
    }
}

impl Consumer {
    pub(super) fn find(
        stream: &Stream<'_>,
        group: u32,
        name: &[u8],
    ) -> Result<Option<Consumer>, Stop> {
        let found = stream.collection.get(GROUPS, &consumer_key(group, name))?;
        Ok(found.map(|element| Consumer::of(&element.value)))
    }

    pub(super) fn of(value: &[u8]) -> Consumer {
        Consumer {
            number: first_number(value),
            seen_ms: number_at(value, 4) as i64,
            active_ms: number_at(value, 12) as i64,
        }
    }

    /// What is stored of it.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut value = self.number.to_le_bytes().to_vec();
        value.extend_from_slice(&self.seen_ms.to_le_bytes());
        value.extend_from_slice(&self.active_ms.to_le_bytes());
        value
    }

    /// The consumer with this name, or a new one that is not stored yet; seen now.
    pub(super) fn find_or_new(
        stream: &Stream<'_>,
        group: u32,
        name: &[u8],
        now_ms: i64,
    ) -> Result<Consumer, Stop> {
        let found = Consumer::find(stream, group, name)?;
        let mut consumer = match found {
            Some(consumer) => consumer,
            None => Consumer {
                number: Prefix::Names(group).free_number(&stream.collection)?,
                seen_ms: now_ms,
                active_ms: -1,
            },
        };
        consumer.seen_ms = now_ms;
        Ok(consumer)
    }

    /// Stores it, with its number if that may be new.
    pub(super) fn store(
        &self,
        cx: &mut Ctx<'_>,
        key: &[u8],
        group: u32,
        name: &[u8],
    ) -> Result<(), Stop> {
        let has_number = match Stream::find(&cx.op, cx.namespace, key)? {
            Some(stream) => {
                let name_key = name_key(group, self.number);
                stream.collection.rank(GROUPS, &name_key)?.1
            }
            None => false,
        };
        put(cx, key, &consumer_key(group, name), &self.to_bytes())?;
        if !has_number {
            put(cx, key, &name_key(group, self.number), name)?;
        }
        Ok(())
    }
}

impl Pending {
    pub(super) fn find(stream: &Stream<'_>, group: u32, id: Id) -> Result<Option<Pending>, Stop> {
        let found = stream.collection.get(GROUPS, &pending_key(group, id))?;
        Ok(found.map(|element| Pending::of(&element.value)))
    }

    pub(super) fn of(value: &[u8]) -> Pending {
        Pending {
            consumer: first_number(value),
            delivered_ms: number_at(value, 4) as i64,
            deliveries: number_at(value, 12),
        }
    }

    /// What is stored of it.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut value = self.consumer.to_le_bytes().to_vec();
        value.extend_from_slice(&self.delivered_ms.to_le_bytes());
        value.extend_from_slice(&self.deliveries.to_le_bytes());
        value
    }

    /// Stores it as what is pending of this entry, which `former` has had.
    pub(super) fn store(
        &self,
        cx: &mut Ctx<'_>,
        key: &[u8],
        group: u32,
        id: Id,
        former: Option<u32>,
    ) -> Result<(), Stop> {
        if former != Some(self.consumer) {
            put(cx, key, &owned_key(group, self.consumer, id), b"")?;
            if let Some(former) = former {
                take(cx, key, &owned_key(group, former, id))?;
            }
        }
        put(cx, key, &pending_key(group, id), &self.to_bytes())
    }

    /// The entry is not pending any more.
    pub(super) fn remove(
        &self,
        cx: &mut Ctx<'_>,
        key: &[u8],
        group: u32,
        id: Id,
    ) -> Result<(), Stop> {
        take(cx, key, &owned_key(group, self.consumer, id))?;
        take(cx, key, &pending_key(group, id))
    }
}

pub(super) fn put(cx: &mut Ctx<'_>, key: &[u8], element: &[u8], value: &[u8]) -> Result<(), Stop> {
    cx.op
        .put_element(cx.namespace, key, &STREAM, GROUPS, element, value, None)?;
    Ok(())
}

pub(super) fn take(cx: &mut Ctx<'_>, key: &[u8], element: &[u8]) -> Result<(), Stop> {
    cx.op.remove_element(cx.namespace, key, GROUPS, element)?;
    Ok(())
}

/// The names of consumers by their numbers, each looked up once.
pub(super) struct Names<'r> {
    group: u32,
    known: HashMap<u32, std::borrow::Cow<'r, [u8]>>,
}

impl<'r> Names<'r> {
    pub(super) fn of(group: u32) -> Names<'r> {
        Names {
            group,
            known: HashMap::new(),
        }
    }

    pub(super) fn get(&mut self, stream: &Stream<'r>, consumer: u32) -> Result<&[u8], Stop> {
        use std::collections::hash_map::Entry;
        let name = match self.known.entry(consumer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let found = stream
                    .collection
                    .get(GROUPS, &name_key(self.group, consumer))?;
                unknown.insert(found.map_or_else(Default::default, |element| element.value))
            }
        };
        Ok(name)
    }
}

impl Stream<'_> {
    /// Whether XDEL may have removed an entry with an ID from this one on.
    fn has_tombstones_from(&self, id: Id) -> bool {
        let deleted = self.header.max_deleted_id;
        self.len() > 0 && deleted != Id::MIN && id <= deleted
    }

    /// How many entries had been added with the one that has this ID; none if that cannot be told.
    pub(super) fn entries_up_to(&self, id: Id, edges: &Edges) -> Option<u64> {
        let (added, deleted) = (self.entries_added(), self.header.max_deleted_id);
        if added == 0 {
            return Some(0);
        }
        if self.len() == 0 && id <= edges.last_id {
            return Some(added);
        }
        if id != Id::MIN && id < deleted {
            return None;
        }
        if id >= edges.last_id {
            return (id == edges.last_id).then_some(added);
        }
        if deleted != Id::MIN && deleted >= edges.first_id || id > edges.first_id {
            return None;
        }
        Some(added - self.len() + u64::from(id == edges.first_id))
    }

    /// How many entries a group has still to be given; none if that cannot be told.
    pub(super) fn lag(&self, group: &Group, edges: &Edges) -> Option<i64> {
        let (added, deleted) = (self.entries_added(), self.header.max_deleted_id);
        if added == 0 || self.len() == 0 {
            return Some(0);
        }
        if group.last_id < edges.first_id && deleted < edges.first_id {
            return Some(self.len() as i64);
        }
        let read = match group.entries_read {
            Some(read) if !self.has_tombstones_from(group.last_id) => Some(read),
            _ => self.entries_up_to(group.last_id, edges),
        };
        read.map(|read| added.wrapping_sub(read) as i64)
    }

    /// Notes that a group is given the entry with this ID.
    pub(super) fn note_delivery(&self, group: &mut Group, id: Id, edges: &Edges) {
        if id <= group.last_id {
            return;
        }
        group.entries_read = match group.entries_read {
            Some(read)
                if group.last_id >= edges.first_id && !self.has_tombstones_from(group.last_id) =>
            {
                Some(read + 1)
            }
            _ => self.entries_up_to(id, edges),
        };
        group.last_id = id;
    }
}

/// The ends of a stream.
#[derive(Clone, Copy)]
pub(super) struct Edges {
    /// Of its first entry.
    pub(super) first_id: Id,
    /// The greatest that it has had.
    pub(super) last_id: Id,
}

impl Edges {
    pub(super) fn of(stream: &Stream<'_>) -> Result<Edges, Stop> {
        Ok(Edges {
            first_id: stream.first_id()?,
            last_id: stream.last_id()?,
        })
    }
}

/// The IDs that the keys of the elements at the start of `positions` end with, `at_most` of them.
pub(super) fn ids_at(
    collection: &Collection<'_>,
    positions: &Range<u64>,
    at_most: u64,
) -> Result<Vec<Id>, Stop> {
    let mut ids = Vec::new();
    let count = at_most.min(positions.end - positions.start);
    let from = WalkFrom::Position(positions.start);
    collection.walk(GROUPS, from, Direction::Forward, count, &mut |element| {
        ids.push(Id::of_end(&element.key));
        ControlFlow::Continue(())
    })?;
    Ok(ids)
}
