//! Streams as DUMP writes them: entries in nodes as those of Redis, then what the stream remembers, then its groups with
//! what is pending in them and with their consumers. When a consumer last got something is lost: the form that Redis 7.0
//! reads has no place for it.

use std::borrow::Cow;
use std::ops::ControlFlow;

use hybridlog::{Direction, Element};

use super::collection::walk_range;
use super::dump::{Body, Head};
use super::stream::{ENTRIES, GROUPS, Stream, Strings};
use super::stream_group::{Consumer, Group, Pending, Prefix};
use super::stream_id::Id;
use crate::command::Stop;
use crate::rdb::kind;
use crate::rdb::stream::Node;
use crate::rdb::write::Sink;

/// A node has so many entries, or so many bytes and an entry, at most: as of Redis's defaults.
const NODE_ENTRIES: usize = 100;
const NODE_BYTES: usize = 4096;
/// What a name takes beside its own bytes while it is held.
const NAME_BYTES: usize = 64;

/// What is cold ends a dump only after all has been looked at, so that one fetch gets it.
#[derive(Default)]
struct Cold(Option<Stop>);

impl Cold {
    /// What `read` returns, or the default if it has met something cold.
    fn pass<T: Default>(&mut self, read: Result<T, Stop>) -> Result<T, Stop> {
        match read {
            Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) => {
                self.0 = Some(stop);
                Ok(T::default())
            }
            done => done,
        }
    }

    fn end(self) -> Result<(), Stop> {
        self.0.map_or(Ok(()), Err)
    }
}

pub(super) fn put_stream(stream: &Stream<'_>, body: &mut Body<'_>) -> Result<Head, Stop> {
    let mut cold = Cold::default();
    let nodes = put_entries(stream, body);
    let nodes = cold.pass(nodes)?;
    let edges = [
        cold.pass(stream.last_id())?,
        cold.pass(stream.first_id())?,
        stream.header.max_deleted_id,
    ];
    body.put_length(stream.len())?;
    for id in edges {
        put_id(body, id)?;
    }
    body.put_length(stream.entries_added())?;
    let groups = elements(stream, Prefix::Groups, body);
    let groups = cold.pass(groups)?;
    body.put_length(groups.len() as u64)?;
    for (key, value) in &groups {
        put_group(stream, &key[1..], Group::of(value), body, &mut cold)?;
    }
    cold.end()?;
    Ok(Head::new(kind::STREAM_LISTPACKS_2, nodes))
}

/// Writes the nodes; how many there are.
fn put_entries(stream: &Stream<'_>, body: &mut Body<'_>) -> Result<u64, Stop> {
    let mut nodes = 0;
    let mut put = |node: Node, body: &mut Body<'_>| {
        nodes += 1;
        let (first, listpack) = node.finish();
        body.put_length(first.len() as u64)?;
        body.put(&first)?;
        body.put_length(listpack.len() as u64)?;
        body.put(&listpack)
    };
    let mut node: Option<Node> = None;
    let all = 0..stream.len();
    walk_range(
        &stream.collection,
        ENTRIES,
        all,
        Direction::Forward,
        |entry| {
            let id = raw(Id::of_end(&entry.key));
            let strings = Strings::of(&entry.value);
            let full =
                node.take_if(|node| node.entries() >= NODE_ENTRIES || node.len() >= NODE_BYTES);
            if let Some(full) = full {
                put(full, body)?;
            }
            // The node is held twice for a moment.
            body.memory.ask(2 * entry.value.len() as u64)?;
            node.get_or_insert_with(|| Node::new(id, strings.clone().step_by(2)))
                .add(id, strings);
            Ok(ControlFlow::Continue(()))
        },
    )?;
    if let Some(last) = node {
        put(last, body)?;
    }
    Ok(nodes)
}

fn put_group(
    stream: &Stream<'_>,
    name: &[u8],
    group: Group,
    body: &mut Body<'_>,
    cold: &mut Cold,
) -> Result<(), Stop> {
    body.put_string(name)?;
    put_id(body, group.last_id)?;
    body.put_length(group.entries_read.unwrap_or(u64::MAX))?;
    let pending = put_pending(stream, group.number, body);
    cold.pass(pending)?;
    let consumers = elements(stream, Prefix::Consumers(group.number), body);
    let consumers = cold.pass(consumers)?;
    body.put_length(consumers.len() as u64)?;
    for (key, value) in &consumers {
        let consumer = Consumer::of(value);
        body.put_string(&key[1 + size_of::<u32>()..])?;
        body.put(&consumer.seen_ms.to_le_bytes())?;
        let owned = put_owned(stream, Prefix::OwnedBy(group.number, consumer.number), body);
        cold.pass(owned)?;
    }
    Ok(())
}

fn put_pending(stream: &Stream<'_>, group: u32, body: &mut Body<'_>) -> Result<(), Stop> {
    let positions = Prefix::Pending(group).positions(&stream.collection)?;
    body.put_length(positions.end - positions.start)?;
    walk_range(
        &stream.collection,
        GROUPS,
        positions,
        Direction::Forward,
        |element| {
            let pending = Pending::of(&element.value);
            body.put(&Id::of_end(&element.key).to_bytes())?;
            body.put(&pending.delivered_ms.to_le_bytes())?;
            body.put_length(pending.deliveries)?;
            Ok(ControlFlow::Continue(()))
        },
    )
}

fn put_owned(stream: &Stream<'_>, owned: Prefix, body: &mut Body<'_>) -> Result<(), Stop> {
    let positions = owned.positions(&stream.collection)?;
    body.put_length(positions.end - positions.start)?;
    walk_range(
        &stream.collection,
        GROUPS,
        positions,
        Direction::Forward,
        |element| {
            body.put(&Id::of_end(&element.key).to_bytes())?;
            Ok(ControlFlow::Continue(()))
        },
    )
}

type KeyAndValue<'r> = (Cow<'r, [u8]>, Cow<'r, [u8]>);

/// The elements of a range, which are names of groups or consumers with what is known of each.
fn elements<'r>(
    stream: &Stream<'r>,
    prefix: Prefix,
    body: &mut Body<'_>,
) -> Result<Vec<KeyAndValue<'r>>, Stop> {
    let mut found = Vec::new();
    let positions = prefix.positions(&stream.collection)?;
    let collection = &stream.collection;
    walk_range(
        collection,
        GROUPS,
        positions,
        Direction::Forward,
        |element: Element<'r>| {
            body.memory.ask((element.key.len() + NAME_BYTES) as u64)?;
            found.push((element.key, element.value));
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(found)
}

fn put_id(body: &mut Body<'_>, id: Id) -> Result<(), Stop> {
    body.put_length(id.ms)?;
    body.put_length(id.sequence)
}

fn raw(id: Id) -> u128 {
    u128::from_be_bytes(id.to_bytes())
}
