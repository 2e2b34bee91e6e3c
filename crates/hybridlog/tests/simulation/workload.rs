//! Random operations on a store and on a plain map; their answers must agree at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hybridlog::{Index, KeyRef, LatchMode, Meta, Namespace, Stop, Store};

use crate::collection::{self, Elements};
use crate::random::Random;

pub(crate) const NAMESPACE: Namespace = Namespace(3);

/// The type of every value.
const KIND: u8 = 7;

pub(crate) const META: Meta = Meta {
    kind: KIND,
    expires_at_ms: None,
};

/// How many different keys there are.
const KEYS: u64 = 60;

/// What a key holds. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Empty if it is a collection.
    pub(crate) value: Arc<Vec<u8>>,
    pub(crate) elements: Option<Arc<Elements>>,
    pub(crate) expires_at_ms: Option<u64>,
}

/// What the store must hold. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Model {
    map: BTreeMap<Arc<[u8]>, Stored>,
    pub(crate) now_ms: u64,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            map: BTreeMap::new(),
            // Far in the future, so that nothing expires by the real time.
            now_ms: 1 << 42,
        }
    }

    pub(crate) fn stored(&self, key: &[u8]) -> Option<&Stored> {
        let is_live = |stored: &&Stored| stored.expires_at_ms.is_none_or(|at| at > self.now_ms);
        self.map.get(key).filter(is_live)
    }

    /// The same when it is later.
    pub(crate) fn at(&self, now_ms: u64) -> Model {
        Model {
            now_ms,
            ..self.clone()
        }
    }

    /// What has not expired by now.
    pub(crate) fn live(&self) -> BTreeMap<Arc<[u8]>, Stored> {
        let live = |key: &Arc<[u8]>| Some((key.clone(), self.stored(key)?.clone()));
        self.map.keys().filter_map(live).collect()
    }

    pub(crate) fn insert(&mut self, key: &Arc<[u8]>, value: Vec<u8>, expires_at_ms: Option<u64>) {
        let stored = Stored {
            value: Arc::new(value),
            elements: None,
            expires_at_ms,
        };
        self.store(key, stored);
    }

    pub(crate) fn store(&mut self, key: &Arc<[u8]>, stored: Stored) {
        self.map.insert(key.clone(), stored);
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.map.remove(key);
    }

    fn expiry(&self, random: &mut Random) -> Option<u64> {
        random.percent(25).then(|| self.now_ms + random.below(200))
    }
}

/// The keys of a thread of the workload; one of them is long.
pub(crate) fn keys(thread: u64) -> Vec<Arc<[u8]>> {
    let key = |n| match n {
        7 => [b'k', thread as u8].repeat(35_000).into(),
        _ => format!("key:{thread}:{n}").into_bytes().into(),
    };
    (0..KEYS).map(key).collect()
}

/// Mostly small, sometimes beyond one record or one page.
fn value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(20) {
        0 => 0,
        1..=12 => random.below(200),
        13..=16 => random.below(5_000),
        17 => 60_000 + random.below(10_000),
        18 => 65_536 + random.below(3),
        _ => random.below(200_000),
    };
    bytes(random, len)
}

fn bytes(random: &mut Random, len: u64) -> Vec<u8> {
    let start = [random.next(), random.next()].map(u64::to_le_bytes);
    start
        .concat()
        .into_iter()
        .cycle()
        .take(len as usize)
        .collect()
}

pub(crate) fn latched<'k>(keys: &[&'k [u8]], mode: LatchMode) -> Vec<KeyRef<'k>> {
    let latched = |&key| KeyRef {
        namespace: NAMESPACE,
        key,
        mode,
    };
    keys.iter().map(latched).collect()
}

/// One random operation on both sides. If the store refuses it, the model is as if it had not.
pub(crate) fn step<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    random: &mut Random,
    keys: &[Arc<[u8]>],
) -> Result<(), Stop> {
    let pick = |random: &mut Random| keys[random.below(keys.len() as u64) as usize].clone();
    let key = pick(random);
    let is_collection = |model: &Model| {
        let stored = model.stored(&key);
        stored.is_some_and(|stored| stored.elements.is_some())
    };
    match random.below(20) {
        15..=18 => collection::change(store, model, random, &key),
        19 => collection::copy(store, model, &key, &pick(random)),
        5 | 6 | 10 if is_collection(model) => collection::change(store, model, random, &key),
        0..=3 => set(store, model, &key, value(random), model.expiry(random)),
        4 => remove(store, model, &key),
        5 | 6 => write_range(store, model, random, &key),
        7 => set_expiry(store, model, &key, model.expiry(random)),
        8 => rename(store, model, &key, &pick(random)),
        9 => {
            let several = [pick(random), pick(random), key];
            change_several(store, model, random, &several)
        }
        10 => read_range(store, model, random, &key),
        _ => read_whole(store, model, &key),
    }
}

fn set<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    key: &Arc<[u8]>,
    value: Vec<u8>,
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    let meta = Meta {
        expires_at_ms,
        ..META
    };
    let latched = latched(&[key], LatchMode::Exclusive);
    let done = store.blocking(&latched, model.now_ms, |op| {
        op.set(NAMESPACE, key, &value, meta)
    });
    model.insert(key, value, expires_at_ms);
    done
}

pub(crate) fn remove<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    key: &Arc<[u8]>,
) -> Result<(), Stop> {
    let latched = latched(&[key], LatchMode::Exclusive);
    let removed = store.blocking(&latched, model.now_ms, |op| op.remove(NAMESPACE, key));
    let was_there = model.stored(key).is_some();
    model.map.remove(key);
    assert_eq!(removed?, was_there, "remove");
    Ok(())
}

fn write_range<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    random: &mut Random,
    key: &Arc<[u8]>,
) -> Result<(), Stop> {
    let old = model.stored(key).cloned();
    let old_len = old.as_ref().map_or(0, |old| old.value.len());
    let at = random.below(old_len as u64 + 100);
    let len = match random.below(8) {
        0 => 70_000,
        _ => random.below(300),
    };
    let bytes = bytes(random, len);
    let latched = latched(&[key], LatchMode::Exclusive);
    let written = store.blocking(&latched, model.now_ms, |op| {
        op.write_range(NAMESPACE, key, at, &bytes, KIND)
    });
    let expires_at_ms = old.as_ref().and_then(|old| old.expires_at_ms);
    let mut value = old.map_or(Vec::new(), |old| old.value.to_vec());
    let end = at as usize + bytes.len();
    value.resize(value.len().max(end), 0);
    value[at as usize..end].copy_from_slice(&bytes);
    let len = value.len() as u64;
    model.insert(key, value, expires_at_ms);
    assert_eq!(written?, len, "write_range");
    Ok(())
}

fn set_expiry<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    key: &Arc<[u8]>,
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    let latched = latched(&[key], LatchMode::Exclusive);
    let there = store.blocking(&latched, model.now_ms, |op| {
        op.set_expiry(NAMESPACE, key, expires_at_ms)
    });
    let old = model.stored(key).cloned();
    let was_there = old.is_some();
    if let Some(old) = old {
        let changed = Stored {
            expires_at_ms,
            ..old
        };
        model.map.insert(key.clone(), changed);
    }
    assert_eq!(there?, was_there, "set_expiry");
    Ok(())
}

fn rename<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    from: &Arc<[u8]>,
    to: &Arc<[u8]>,
) -> Result<(), Stop> {
    let latched = latched(&[from, to], LatchMode::Exclusive);
    let moved = store.blocking(&latched, model.now_ms, |op| {
        op.rename((NAMESPACE, from), (NAMESPACE, to))
    });
    let old = model.stored(from).cloned();
    let was_there = old.is_some();
    if let Some(old) = old {
        model.map.remove(from);
        model.map.insert(to.clone(), old);
    }
    assert_eq!(moved?, was_there, "rename");
    Ok(())
}

/// Removes one key and sets two others in one operation, which is done whole or not at all.
fn change_several<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    random: &mut Random,
    keys: &[Arc<[u8]>; 3],
) -> Result<(), Stop> {
    let [gone, first, second] = keys;
    let (value, expires_at_ms) = (value(random), model.expiry(random));
    let meta = Meta {
        expires_at_ms,
        ..META
    };
    let latched = latched(&[gone, first, second], LatchMode::Exclusive);
    let done = store.blocking(&latched, model.now_ms, |op| {
        // Only the first change of an operation may find that a record must be fetched or that there is no room.
        op.remove(NAMESPACE, gone)?;
        op.set(NAMESPACE, first, &value, meta)?;
        op.set(NAMESPACE, second, &value, meta)
    });
    model.map.remove(gone);
    model.insert(first, value.clone(), expires_at_ms);
    model.insert(second, value, expires_at_ms);
    done
}

fn read_range<I: Index>(
    store: &Store<I>,
    model: &Model,
    random: &mut Random,
    key: &Arc<[u8]>,
) -> Result<(), Stop> {
    let (from, len) = (random.below(200_000), random.below(100_000));
    let latched = latched(&[key], LatchMode::Shared);
    let part = store.blocking(&latched, model.now_ms, |op| {
        let Some(record) = op.read(NAMESPACE, key)? else {
            return Ok(None);
        };
        Ok(Some(op.range(&record, from, len)?.into_owned()))
    })?;
    let expected = model.stored(key).map(|stored| {
        let end = (from + len).min(stored.value.len() as u64);
        stored.value[from.min(end) as usize..end as usize].to_vec()
    });
    assert_eq!(part, expected, "range");
    Ok(())
}

fn read_whole<I: Index>(store: &Store<I>, model: &Model, key: &Arc<[u8]>) -> Result<(), Stop> {
    let found = read(store, model.now_ms, key)?;
    let expected = model.stored(key);
    let len = |stored: Option<&Stored>| stored.map(|stored| stored.value.len());
    assert!(
        found.as_ref() == expected,
        "read: {:?} instead of {:?} bytes",
        len(found.as_ref()),
        len(expected)
    );
    Ok(())
}

/// What the store holds under `key`, read in every way there is.
pub(crate) fn read<I: Index>(
    store: &Store<I>,
    now_ms: u64,
    key: &[u8],
) -> Result<Option<Stored>, Stop> {
    let latched = latched(&[key], LatchMode::Shared);
    store.blocking(&latched, now_ms, |op| {
        let Some(record) = op.read(NAMESPACE, key)? else {
            return Ok(None);
        };
        let meta = record.meta();
        if meta.kind == collection::KIND {
            let elements = collection::read(op, &record)?;
            return Ok(Some(Stored {
                value: Arc::default(),
                elements: Some(Arc::new(elements)),
                expires_at_ms: meta.expires_at_ms,
            }));
        }
        let pieces = op.pieces(&record, |_| Ok::<(), Stop>(()))?;
        let pieces: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        assert_eq!(pieces, op.value(&record)?.as_ref(), "pieces");
        assert_eq!((record.len(), meta.kind), (pieces.len() as u64, KIND));
        Ok(Some(Stored {
            value: Arc::new(pieces),
            elements: None,
            expires_at_ms: meta.expires_at_ms,
        }))
    })
}

/// A scan must find all of `keys`, and no others. It may find one more than once.
pub(crate) fn check_scan<'k, I: Index>(
    store: &Store<I>,
    now_ms: u64,
    keys: impl Iterator<Item = &'k [u8]>,
) -> Result<(), Stop> {
    let mut found = BTreeSet::new();
    let mut cursor = 0;
    loop {
        let scanned = store.blocking(&[], now_ms, |op| op.scan(NAMESPACE, cursor, 50))?;
        found.extend(scanned.keys.into_iter().map(|(key, _)| key));
        cursor = scanned.cursor;
        if cursor == 0 {
            break;
        }
    }
    let expected: BTreeSet<Vec<u8>> = keys.map(<[u8]>::to_vec).collect();
    let names = |keys: &mut dyn Iterator<Item = &Vec<u8>>| {
        let name = |key: &Vec<u8>| String::from_utf8_lossy(&key[..key.len().min(12)]).into_owned();
        keys.map(name).collect::<Vec<_>>()
    };
    assert!(
        found == expected,
        "a scan finds {:?} too much, and misses {:?}",
        names(&mut found.difference(&expected)),
        names(&mut expected.difference(&found)),
    );
    Ok(())
}

/// The store holds what the map holds, and nothing else.
pub(crate) fn compare<I: Index>(store: &Store<I>, model: &Model) {
    let live = model.live();
    for (key, stored) in &live {
        let found = read(store, model.now_ms, key).expect("it can be read");
        assert!(found.as_ref() == Some(stored), "read");
    }
    let scanned = check_scan(store, model.now_ms, live.keys().map(AsRef::as_ref));
    scanned.expect("a scan");
    // Every expired key that is still there counts, and so does every other one.
    assert!(store.len(NAMESPACE) >= live.len() as u64, "count");
}
