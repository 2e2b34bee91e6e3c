//! Random operations on the store and on a plain map, with tier moves forced in between; on both indexes.

use std::collections::BTreeMap;
use std::sync::Arc;

use hybridlog::{
    BucketIndex, DashIndex, Index, KeyRef, LatchMode, Meta, Namespace, Options, Stop, Store, Tier,
};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    /// Mostly small, sometimes beyond one record or one page.
    fn value(&mut self) -> Vec<u8> {
        let len = match self.below(20) {
            0 => 0,
            1..=12 => self.below(200),
            13..=16 => self.below(5_000),
            17 => 60_000 + self.below(10_000),
            18 => 65_536 + self.below(3),
            _ => self.below(200_000),
        };
        let start = self.bytes(16);
        start.into_iter().cycle().take(len as usize).collect()
    }
}

fn open<I: Index>(directory: &tempfile::TempDir) -> Arc<Store<I>> {
    let options = Options {
        segment_bytes: Some(1 << 20),
        ..Options::new(directory.path()).memory_bytes(24 << 20)
    };
    Store::open(options).expect("a fresh directory opens")
}

const NAMESPACE: Namespace = Namespace(3);

struct Model {
    map: BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>,
    now_ms: u64,
}

impl Model {
    fn live(&self, key: &[u8]) -> Option<&(Vec<u8>, Option<u64>)> {
        self.map
            .get(key)
            .filter(|(_, expiry)| expiry.is_none_or(|at| at > self.now_ms))
    }
}

/// One random step on both sides; answers must agree.
fn step<I: Index>(
    store: &Store<I>,
    model: &mut Model,
    random: &mut Random,
    key: &[u8],
    other: &[u8],
) -> Result<(), Stop> {
    let now_ms = model.now_ms;
    let keys = [key, other].map(|key| KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Exclusive,
    });
    let expiry = |random: &mut Random| (random.below(4) == 0).then(|| now_ms + random.below(200));
    let old = model.live(key).cloned();
    match random.below(14) {
        0..=3 => {
            let (value, expires_at_ms) = (random.value(), expiry(random));
            store.blocking(&keys, now_ms, |op| {
                op.set(
                    NAMESPACE,
                    key,
                    &value,
                    Meta {
                        kind: 7,
                        expires_at_ms,
                    },
                )
            })?;
            model.map.insert(key.to_vec(), (value, expires_at_ms));
        }
        4 => {
            let removed = store.blocking(&keys, now_ms, |op| op.remove(NAMESPACE, key))?;
            assert_eq!(removed, old.is_some(), "remove");
            model.map.remove(key);
        }
        5 | 6 => {
            let at = random.below(
                old.as_ref()
                    .map_or(100, |(value, _)| value.len() as u64 + 100),
            );
            let len = if random.below(8) == 0 {
                70_000
            } else {
                random.below(300)
            };
            let bytes = random.bytes(len as usize);
            let len = store.blocking(&keys, now_ms, |op| {
                op.write_range(NAMESPACE, key, at, &bytes, 7)
            })?;
            let (mut value, expiry) = old.unwrap_or_default();
            value.resize(value.len().max(at as usize + bytes.len()), 0);
            value[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
            assert_eq!(len, value.len() as u64, "write_range");
            model.map.insert(key.to_vec(), (value, expiry));
        }
        7 => {
            let expires_at_ms = expiry(random);
            let there = store.blocking(&keys, now_ms, |op| {
                op.set_expiry(NAMESPACE, key, expires_at_ms)
            })?;
            assert_eq!(there, old.is_some(), "set_expiry");
            if let Some((value, _)) = old {
                model.map.insert(key.to_vec(), (value, expires_at_ms));
            }
        }
        8 => {
            let moved = store.blocking(&keys, now_ms, |op| {
                op.rename((NAMESPACE, key), (NAMESPACE, other))
            })?;
            assert_eq!(moved, old.is_some(), "rename");
            if let Some(value) = old.filter(|_| key != other) {
                model.map.remove(key);
                model.map.insert(other.to_vec(), value);
            }
        }
        9 => {
            let (from, len) = (random.below(200_000), random.below(100_000));
            let part = store.blocking(&keys, now_ms, |op| {
                let record = op.read(NAMESPACE, key)?;
                record
                    .map(|record| {
                        op.range(&record, from, len)
                            .map(std::borrow::Cow::into_owned)
                    })
                    .transpose()
            })?;
            let expected = old.map(|(value, _)| {
                let from = (from as usize).min(value.len());
                value[from..(from + len as usize).min(value.len())].to_vec()
            });
            assert_eq!(part, expected, "range");
        }
        _ => {
            let found = store.blocking(&keys, now_ms, |op| {
                let Some(record) = op.read(NAMESPACE, key)? else {
                    return Ok(None);
                };
                let pieces: Vec<u8> = op
                    .pieces(&record)?
                    .iter()
                    .flat_map(|piece| piece.to_vec())
                    .collect();
                assert_eq!(pieces, op.value(&record)?.as_ref(), "pieces");
                assert_eq!((record.len(), record.meta().kind), (pieces.len() as u64, 7));
                Ok(Some((pieces, record.meta().expires_at_ms)))
            })?;
            assert!(
                found == old,
                "read: {:?} instead of {:?} bytes",
                found.map(|f| f.0.len()),
                old.map(|o| o.0.len())
            );
        }
    }
    Ok(())
}

fn scan_all<I: Index>(store: &Store<I>, model: &Model) {
    let mut found = Vec::new();
    let mut cursor = 0;
    loop {
        let scanned = store
            .blocking(&[], model.now_ms, |op| op.scan(NAMESPACE, cursor, 50))
            .expect("scan");
        found.extend(scanned.keys.into_iter().map(|(key, _)| key));
        cursor = scanned.cursor;
        if cursor == 0 {
            break;
        }
    }
    found.sort();
    let expected: Vec<_> = model
        .map
        .keys()
        .filter(|key| model.live(key).is_some())
        .cloned()
        .collect();
    assert_eq!(found, expected, "scan");
}

fn run<I: Index>(seed: u64) {
    println!("seed {seed} on {}", I::NAME);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open::<I>(&directory);
    let mut random = Random(seed);
    let mut model = Model {
        map: BTreeMap::new(),
        now_ms: 1_000_000,
    };
    let keys: Vec<Vec<u8>> = (0..60)
        .map(|n| {
            if n == 7 {
                vec![b'k'; 70_000]
            } else {
                format!("key:{n}").into()
            }
        })
        .collect();
    for n in 0..400 {
        let (key, other) = (
            &keys[random.below(60) as usize],
            &keys[random.below(60) as usize],
        );
        step(&store, &mut model, &mut random, key, other)
            .unwrap_or_else(|stop| panic!("seed {seed} step {n}: {stop}"));
        model.now_ms += random.below(4);
        match random.below(25) {
            0 => store.seal_all().expect("segments can be written"),
            1 => store.force_cold().expect("segments can be written"),
            2 => {
                store.expire_some(model.now_ms, 4000);
            }
            _ => {}
        }
    }
    scan_all(&store, &model);
    for key in &keys {
        let key = KeyRef {
            namespace: NAMESPACE,
            key,
            mode: LatchMode::Shared,
        };
        let tier = store.blocking(&[key], model.now_ms, |op| {
            Ok(op.read(NAMESPACE, key.key)?.map(|record| record.tier()))
        });
        assert!(matches!(
            tier,
            Ok(None | Some(Tier::Hot | Tier::Warm | Tier::Cold))
        ));
    }
    // Every expired key that is still there counts, and so does every other one.
    assert!(
        store.len(NAMESPACE) as usize
            >= model
                .map
                .keys()
                .filter(|key| model.live(key).is_some())
                .count()
    );
    for key in &keys {
        let latched = KeyRef {
            namespace: NAMESPACE,
            key,
            mode: LatchMode::Exclusive,
        };
        store
            .blocking(&[latched], model.now_ms, |op| op.remove(NAMESPACE, key))
            .expect("remove");
    }
    assert_eq!(
        (store.len(NAMESPACE), store.expiring(NAMESPACE)),
        (0, 0),
        "seed {seed}: counts after removing everything"
    );
}

#[test]
fn the_store_agrees_with_a_map() {
    let seeds = std::env::var("MODEL_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(20);
    for seed in 0..seeds {
        run::<BucketIndex>(seed);
        run::<DashIndex>(seed);
    }
}
