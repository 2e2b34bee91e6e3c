//! Iteration over keys that are not in memory: they come from the key files, all of them, and no value is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hybridlog::{
    BucketIndex, DashIndex, Index, KeyRef, LatchMode, Meta, Namespace, Options, Scanned, Stop,
    Store,
};

const MIB: u64 = 1 << 20;
const NAMESPACE: Namespace = Namespace(3);
/// The time of all operations, in the future: what works in the background goes by the real one, and removes nothing.
const NOW_MS: u64 = 4_000_000_000_000;

fn open<I: Index>(directory: &tempfile::TempDir) -> Arc<Store<I>> {
    let mut options = Options::new(directory.path()).memory_bytes(24 * MIB);
    options.segment_bytes = Some(1 << 20);
    Store::open(options).expect("a fresh directory opens")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn set<I: Index>(store: &Store<I>, namespace: Namespace, key: &[u8], value: &[u8], meta: Meta) {
    let key_ref = KeyRef {
        namespace,
        key,
        mode: LatchMode::Exclusive,
    };
    store
        .blocking(&[key_ref], NOW_MS, |operation| {
            operation.set(namespace, key, value, meta)
        })
        .expect("there is room");
}

fn step<I: Index>(store: &Store<I>, cursor: u64, count: usize) -> Result<Scanned, Stop> {
    store.blocking(&[], NOW_MS, |operation| {
        operation.scan(NAMESPACE, cursor, count)
    })
}

/// All keys that an iteration returns.
fn scan<I: Index>(store: &Store<I>, count: usize) -> Vec<(Vec<u8>, Meta)> {
    let mut keys = Vec::new();
    let mut cursor = 0;
    loop {
        let mut scanned = step(store, cursor, count).expect("everything can be read");
        keys.append(&mut scanned.keys);
        cursor = scanned.cursor;
        if cursor == 0 {
            return keys;
        }
    }
}

fn key(n: usize) -> Vec<u8> {
    format!("key:{n:08}").into_bytes()
}

fn all_keys_come_back_with_what_stands_beside_them<I: Index>() {
    let directory = directory();
    let store = open::<I>(&directory);
    let mut expected = BTreeMap::new();
    for n in 0..12_000 {
        let expires_at_ms = match n % 5 {
            // These have expired.
            0 => Some(NOW_MS - n as u64),
            1 => Some(NOW_MS + 1 + n as u64),
            _ => None,
        };
        let meta = Meta {
            kind: (n % 3) as u8,
            expires_at_ms,
        };
        // A few keys are longer than a block of a key file, and a few values have pages of their own.
        let mut key = key(n);
        if n % 1000 == 7 {
            key.resize(3000 + n / 10, b'k');
        }
        let value = vec![b'v'; if n % 5000 == 3 { 200_000 } else { 100 }];
        set(&store, NAMESPACE, &key, &value, meta);
        if n % 3 == 0 {
            set(&store, Namespace(4), &key, b"of another", Meta::default());
        }
        if n % 5 != 0 {
            expected.insert(key, meta);
        }
    }
    store.force_cold().expect("segments can be written");
    // Some are overwritten without looking at the old ones, which are shadows then.
    for n in (1..12_000).step_by(50) {
        let meta = Meta {
            kind: 9,
            expires_at_ms: None,
        };
        set(&store, NAMESPACE, &key(n), b"newer", meta);
        expected.insert(key(n), meta);
    }
    for round in ["half cold", "cold"] {
        let found = scan(&store, 100);
        let count = found.len();
        let found: BTreeMap<_, _> = found.into_iter().collect();
        assert_eq!(
            count,
            found.len(),
            "{round}: nothing changes, so nothing comes twice"
        );
        assert!(
            found == expected,
            "{round}: {count} keys, not {}",
            expected.len()
        );
        store.force_cold().expect("segments can be written");
    }
}

#[test]
fn all_keys_come_back_with_what_stands_beside_them_on_both_indexes() {
    all_keys_come_back_with_what_stands_beside_them::<BucketIndex>();
    all_keys_come_back_with_what_stands_beside_them::<DashIndex>();
}

#[test]
fn no_value_is_read() {
    let directory = directory();
    let store = open::<BucketIndex>(&directory);
    let keys = 10_000;
    for n in 0..keys {
        set(&store, NAMESPACE, &key(n), &[7; 4000], Meta::default());
    }
    store.force_cold().expect("segments can be written");
    let read_bytes = || store.blocking_io_stats().bytes.load(Ordering::Relaxed);
    let before = read_bytes();
    assert_eq!(scan(&store, 100).len(), keys);
    let read = read_bytes() - before;
    // Of every segment the header of its key file, and its 250 keys, which are in two blocks, in four parts.
    let segments = store.stats().cold_segments;
    assert!(segments >= 40, "{segments} segments");
    assert!(
        read <= segments * 10 * 4096,
        "{read} bytes of {segments} segments"
    );

    let random_key = || {
        let key = store.blocking(&[], NOW_MS, |operation| {
            operation.random_key(NAMESPACE, 0x1234_5678_9abc_def0)
        });
        key.expect("everything can be read").expect("a key")
    };
    let first = random_key();
    let before = read_bytes();
    assert_eq!(random_key(), first);
    // Of each key that is in the bucket a block or two.
    let read = read_bytes() - before;
    assert!(read <= 20 * 2 * 4096, "{read} bytes for one bucket");
}

/// What is there from the first step to the last is returned, whatever happens to the rest and wherever the records go
/// meanwhile.
fn what_stays_is_returned<I: Index>() {
    let directory = directory();
    let store = open::<I>(&directory);
    for n in 0..20_000 {
        set(&store, NAMESPACE, &key(n), &[1; 100], Meta::default());
    }
    store.force_cold().expect("segments can be written");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Even keys stay, and are overwritten or read; odd ones come and go; new ones let the index grow.
        let churn = |start: usize| {
            let (store, stop) = (&store, &stop);
            move || {
                let mut n = start;
                while !stop.load(Ordering::Relaxed) {
                    n = (n * 5 + 12_345) % 20_000;
                    match n % 4 {
                        0 => set(store, NAMESPACE, &key(n), &[2; 120], Meta::default()),
                        1 => {
                            let key = key(n);
                            let key_ref = KeyRef {
                                namespace: NAMESPACE,
                                key: &key,
                                mode: LatchMode::Exclusive,
                            };
                            let removed = store.blocking(&[key_ref], NOW_MS, |operation| {
                                operation.remove(NAMESPACE, &key)
                            });
                            removed.expect("everything can be read");
                        }
                        2 => {
                            let key = key(n);
                            let key_ref = KeyRef {
                                namespace: NAMESPACE,
                                key: &key,
                                mode: LatchMode::Shared,
                            };
                            let found = store.blocking(&[key_ref], NOW_MS, |operation| {
                                Ok(operation.read(NAMESPACE, &key)?.is_some())
                            });
                            assert!(found.expect("everything can be read"), "it stays");
                        }
                        _ => {
                            let key = key(20_000 + start * 1_000_000 + n);
                            set(store, NAMESPACE, &key, &[3; 100], Meta::default());
                        }
                    }
                }
            }
        };
        scope.spawn(churn(1));
        scope.spawn(churn(2));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store.force_cold().expect("segments can be written");
            }
        });
        for round in 0..4 {
            let found: BTreeSet<_> = scan(&store, 500).into_iter().map(|(key, _)| key).collect();
            for n in (0..20_000).step_by(2) {
                if !found.contains(&key(n)) {
                    stop.store(true, Ordering::Relaxed);
                    panic!("round {round}: key {n} was there all the time and is missing");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_stays_is_returned_on_both_indexes() {
    what_stays_is_returned::<BucketIndex>();
    what_stays_is_returned::<DashIndex>();
}

#[test]
fn a_damaged_key_file_is_an_error_that_says_where() {
    let directory = directory();
    let store = open::<BucketIndex>(&directory);
    for n in 0..5000 {
        set(&store, NAMESPACE, &key(n), &[7; 100], Meta::default());
    }
    store.force_cold().expect("segments can be written");
    let entries = std::fs::read_dir(directory.path()).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let path = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "keys")
        })
        .min()
        .expect("a key file");
    let sound = std::fs::read(&path).expect("a file");
    // One byte in the middle of every block: the cursor comes by each of them.
    let damaged: Vec<u8> = (0..sound.len())
        .map(|at| sound[at] ^ u8::from(at % 4096 == 2000 && at > 4096))
        .collect();
    std::fs::write(&path, damaged).expect("written");
    let error = step(&store, 0, 10_000).expect_err("a block is damaged");
    let text = format!("{error:?}");
    let file = path.file_name().expect("a name").to_string_lossy();
    assert!(
        text.contains(&*file) && text.contains("CRC mismatch"),
        "{text}"
    );
    std::fs::write(&path, sound).expect("written");
    assert_eq!(scan(&store, 1000).len(), 5000);
}
