//! Operations on collections, as steps of a workload: several elements at once, so that collections get pages soon.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use hybridlog::{
    Direction, Index, LatchMode, Layout, Operation, Order, Record, Stop, Store, TreeLayout,
    WalkFrom,
};

use crate::random::Random;
use crate::workload::{Model, NAMESPACE, Stored, latched};

/// The type of every collection.
pub(crate) const KIND: u8 = 8;

const MAP: usize = 0;
const LIST: usize = 1;

static LAYOUT: Layout = Layout {
    kind: KIND,
    trees: &[
        TreeLayout {
            order: Order::Hash,
            has_values: true,
        },
        TreeLayout {
            order: Order::Position,
            has_values: true,
        },
    ],
};

/// What a collection holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Elements {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    list: Vec<Vec<u8>>,
}

/// The whole of a collection.
pub(crate) fn read<I: Index>(op: &Operation<'_, I>, record: &Record<'_>) -> Result<Elements, Stop> {
    let collection = op.open_collection(record)?;
    let mut elements = Elements::default();
    let (start, forward) = (WalkFrom::Start, Direction::Forward);
    collection.walk(MAP, start, forward, u64::MAX, &mut |element| {
        let (key, value) = (element.key.into_owned(), element.value.into_owned());
        elements.map.insert(key, value);
        ControlFlow::Continue(())
    })?;
    collection.walk(LIST, start, forward, u64::MAX, &mut |element| {
        elements.list.push(element.value.into_owned());
        ControlFlow::Continue(())
    })?;
    let lens = (collection.len(MAP), collection.len(LIST));
    let (map, list) = (elements.map.len() as u64, elements.list.len() as u64);
    assert_eq!(lens, (map, list), "how many elements there are");
    Ok(elements)
}

/// A change of a collection.
enum Change {
    Put(Vec<(Vec<u8>, Vec<u8>)>),
    Remove(Vec<Vec<u8>>),
    Insert(u64, Vec<u8>),
    RemoveRange(u64, u64),
}

impl Change {
    fn pick(random: &mut Random, old: &Elements) -> Change {
        let element = |random: &mut Random| format!("element {}", random.below(300)).into_bytes();
        match random.below(8) {
            0..=3 => {
                let count = 1 + random.below(80);
                let mut pair = |_| {
                    let len_max = if random.percent(50) { 20 } else { 500 };
                    let len = random.below(len_max) as usize;
                    (element(random), vec![random.next() as u8; len])
                };
                Change::Put((0..count).map(&mut pair).collect())
            }
            4 | 5 => {
                let count = 1 + random.below(60);
                Change::Remove((0..count).map(|_| element(random)).collect())
            }
            6 => {
                let len = random.below(3000) as usize;
                let position = random.below(old.list.len() as u64 + 1);
                Change::Insert(position, vec![random.next() as u8; len])
            }
            _ => {
                let len = old.list.len() as u64;
                Change::RemoveRange(random.below(len + 1), random.below(5))
            }
        }
    }

    fn make(&self, elements: &mut Elements) {
        match self {
            Change::Put(pairs) => elements.map.extend(pairs.iter().cloned()),
            Change::Remove(keys) => elements.map.retain(|key, _| !keys.contains(key)),
            Change::Insert(position, value) => {
                elements.list.insert(*position as usize, value.clone());
            }
            Change::RemoveRange(position, count) => {
                let end = (position + count).min(elements.list.len() as u64);
                elements.list.drain(*position as usize..end as usize);
            }
        }
    }

    fn make_in<I: Index>(&self, op: &mut Operation<'_, I>, key: &[u8]) -> Result<(), Stop> {
        match self {
            Change::Put(pairs) => {
                want(op, key, pairs.iter().map(|(key, _)| &key[..]))?;
                pairs.iter().try_for_each(|(element, value)| {
                    op.put_element(NAMESPACE, key, &LAYOUT, MAP, element, value, None)
                        .map(drop)
                })
            }
            Change::Remove(keys) => {
                want(op, key, keys.iter().map(|key| &key[..]))?;
                keys.iter().try_for_each(|element| {
                    op.remove_element(NAMESPACE, key, MAP, element).map(drop)
                })
            }
            Change::Insert(position, value) => op
                .insert_at(NAMESPACE, key, &LAYOUT, LIST, *position, value)
                .map(drop),
            Change::RemoveRange(position, count) => op
                .remove_range(NAMESPACE, key, LIST, *position, *count)
                .map(drop),
        }
    }
}

/// Reads what the changes of these elements need, so that only the first of them may stop.
fn want<'k, I: Index>(
    op: &Operation<'_, I>,
    key: &[u8],
    elements: impl Iterator<Item = &'k [u8]>,
) -> Result<(), Stop> {
    match op.read(NAMESPACE, key)? {
        Some(record) => op.open_collection(&record)?.want(MAP, elements),
        None => Ok(()),
    }
}

/// Changes a collection, in the place of a value if that is what the key holds.
pub(crate) fn change<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    random: &mut Random,
    key: &Arc<[u8]>,
) -> Result<(), Stop> {
    let old = model.stored(key).cloned();
    let is_value = old.as_ref().is_some_and(|old| old.elements.is_none());
    let old = old.filter(|_| !is_value);
    let expires_at_ms = old.as_ref().and_then(|old| old.expires_at_ms);
    let elements = old.and_then(|old| old.elements);
    let mut elements = elements.map_or(Elements::default(), |old| Elements::clone(&old));
    let change = Change::pick(random, &elements);
    let creates = matches!(change, Change::Put(_) | Change::Insert(..));
    let latched = latched(&[key], LatchMode::Exclusive);
    let done = store.blocking(&latched, model.now_ms, |op| {
        if is_value {
            op.remove(NAMESPACE, key)?;
        }
        change.make_in(op, key)
    });
    let was_there = model.stored(key).is_some() && !is_value;
    change.make(&mut elements);
    if is_value {
        model.remove(key);
    }
    if creates || was_there {
        let stored = Stored {
            value: Arc::default(),
            elements: Some(Arc::new(elements)),
            expires_at_ms,
        };
        model.store(key, stored);
    }
    done
}

/// Copies what one key holds to another, if it is a collection.
pub(crate) fn copy<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    from: &Arc<[u8]>,
    to: &Arc<[u8]>,
) -> Result<(), Stop> {
    let latched = latched(&[from, to], LatchMode::Exclusive);
    let copied = store.blocking(&latched, model.now_ms, |op| {
        op.copy_collection((NAMESPACE, from), (NAMESPACE, to))
    });
    let stored = model.stored(from).cloned();
    let stored = stored.filter(|stored| stored.elements.is_some());
    let was_there = stored.is_some();
    if let Some(stored) = stored {
        model.store(to, stored);
    }
    assert_eq!(copied?, was_there, "copy");
    Ok(())
}
