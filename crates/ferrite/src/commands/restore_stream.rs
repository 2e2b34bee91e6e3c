//! Storing a stream that RESTORE has read, with its consumer groups: the elements of both trees in their order.

use hybridlog::NewCollection;

use super::restore::{element, prepare};
use super::stream::{ENTRIES, GROUPS, Header, STREAM, Strings as Fields};
use super::stream_group::{
    Consumer, Group, Pending, consumer_key, group_key, name_key, owned_key, pending_key, used_key,
};
use super::stream_id::Id;
use crate::command::Stop;
use crate::ctx::Ctx;
use crate::memory::Allowance;
use crate::rdb::Strings;
use crate::rdb::stream::{GroupValue, StreamValue};

/// Stores a stream in one change, whatever the key holds.
pub(super) fn store_stream(
    cx: &mut Ctx<'_>,
    key: &[u8],
    stream: StreamValue,
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    let memory = &mut cx.client.allowance;
    let entries = entries(&stream, memory)?;
    let groups = groups(&stream.groups, memory)?;
    let header = Header {
        last_id: id_of(stream.last_id),
        max_deleted_id: id_of(stream.max_deleted_id),
        removed: stream.entries_added - stream.entries.len() as u64,
    };
    drop(stream);
    let mut order: Vec<usize> = (0..groups.len()).step_by(2).collect();
    order.sort_unstable_by_key(|at| groups.get(*at));
    prepare(
        cx,
        (entries.len() + groups.len()) / 2,
        entries.total_bytes() + groups.total_bytes(),
    )?;
    let pair = |strings, at| element(Strings::get(strings, at), strings.get(at + 1), None);
    let in_order = (0..entries.len()).step_by(2);
    let entries = in_order.map(|at| (ENTRIES, pair(&entries, at)));
    let groups = order.into_iter().map(|at| (GROUPS, pair(&groups, at)));
    let new = NewCollection {
        layout: &STREAM,
        header: &header.to_bytes(),
        due_at_ms: None,
        expires_at_ms,
    };
    let elements = &mut entries.chain(groups);
    Ok(cx.op.build_collection(cx.namespace, key, new, elements)?)
}

/// The elements of the first tree: IDs, each followed by what is stored of its entry.
fn entries(stream: &StreamValue, memory: &mut Allowance) -> Result<Strings, Stop> {
    let mut elements = Strings::default();
    let mut start = 0;
    for (id, end) in &stream.entries {
        let strings: Vec<_> = (start..*end).map(|at| stream.strings.get(at)).collect();
        let value = Fields::store(strings.iter().copied());
        put(&mut elements, &id.to_be_bytes(), &value, memory)?;
        start = *end;
    }
    Ok(elements)
}

/// The elements of the second tree, in any order: keys, each followed by its value.
fn groups(groups: &[GroupValue], memory: &mut Allowance) -> Result<Strings, Stop> {
    let elements = &mut Strings::default();
    for (number, group) in (0..).zip(groups) {
        let stored = Group {
            number,
            last_id: id_of(group.last_id),
            entries_read: group.entries_read,
        };
        put(
            elements,
            &group_key(&group.name),
            &stored.to_bytes(),
            memory,
        )?;
        put(elements, &used_key(number), b"", memory)?;
        for (consumer_number, consumer) in (0..).zip(&group.consumers) {
            let stored = Consumer {
                number: consumer_number,
                seen_ms: consumer.seen_ms,
                active_ms: consumer.active_ms,
            };
            let name = &consumer.name;
            put(
                elements,
                &consumer_key(number, name),
                &stored.to_bytes(),
                memory,
            )?;
            put(elements, &name_key(number, consumer_number), name, memory)?;
        }
        for pending in &group.pending {
            let consumer = pending.consumer as u32;
            let stored = Pending {
                consumer,
                delivered_ms: pending.delivered_ms,
                deliveries: pending.deliveries,
            };
            let id = id_of(pending.id);
            put(
                elements,
                &pending_key(number, id),
                &stored.to_bytes(),
                memory,
            )?;
            put(elements, &owned_key(number, consumer, id), b"", memory)?;
        }
    }
    Ok(std::mem::take(elements))
}

fn put(
    elements: &mut Strings,
    key: &[u8],
    value: &[u8],
    memory: &mut Allowance,
) -> Result<(), Stop> {
    elements.push(key, &mut |bytes| memory.ask(bytes))?;
    elements.push(value, &mut |bytes| memory.ask(bytes))
}

fn id_of(id: u128) -> Id {
    Id::of_end(&id.to_be_bytes())
}
