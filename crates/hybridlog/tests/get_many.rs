//! `get_many` looks keys up ahead of reading them: it must see what single reads see, and nothing older.

use std::sync::atomic::{AtomicBool, Ordering};

use hybridlog::{BucketIndex, DashIndex, Index, Options, Store};

fn open<I: Index>(directory: &tempfile::TempDir) -> std::sync::Arc<Store<I>> {
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    Store::open(options).expect("a fresh directory opens")
}

fn key(n: u64) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

fn agrees_with_get<I: Index>() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open::<I>(&directory);
    for n in 0..3000 {
        let len = if n % 500 == 0 {
            100_000
        } else {
            n as usize % 300
        };
        store.set(&key(n), &vec![n as u8; len]).expect("set");
        match n {
            1000 => store.force_cold().expect("segments can be written"),
            2000 => store.seal_all().expect("segments can be written"),
            _ => {}
        }
    }
    for n in (0..3000).step_by(7) {
        store.delete(&key(n)).expect("delete");
    }
    // Each key several times in a group too, in an order that mixes the tiers.
    let keys: Vec<_> = (0..6000).map(|n| key(n * 1117 % 3100)).collect();
    let mut at = 0;
    store
        .get_many(&keys, |position, value| {
            assert_eq!(position, at);
            at += 1;
            let single = store.get(&keys[position]).expect("get");
            assert!(value == single.as_deref(), "key {position} on {}", I::NAME);
        })
        .expect("get_many");
    assert_eq!(at, keys.len());
}

#[test]
fn get_many_finds_what_get_finds() {
    agrees_with_get::<BucketIndex>();
    agrees_with_get::<DashIndex>();
}

/// A writer raises the version of a few keys that share buckets with keys that come and go; no batch may see a version
/// fall behind what an earlier one has seen.
fn never_goes_back<I: Index>() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open::<I>(&directory);
    let watched: Vec<_> = (0..8).map(key).collect();
    for key in &watched {
        store.set(key, &0u64.to_le_bytes()).expect("set");
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1..40_000u64 {
                // Another length now and then, so that the record moves and its slot changes.
                let mut value = version.to_le_bytes().to_vec();
                value.resize(8 + version as usize % 3 * 40, 0);
                store
                    .set(&watched[version as usize % 8], &value)
                    .expect("set");
                store
                    .set(&key(100 + version % 5000), b"other")
                    .expect("set");
                store
                    .delete(&key(100 + version * 7 % 5000))
                    .expect("delete");
            }
            done.store(true, Ordering::Release);
        });
        let mut seen = [0u64; 8];
        while !done.load(Ordering::Acquire) {
            store
                .get_many(&watched, |at, value| {
                    let value = value.expect("watched keys are never deleted");
                    let version = u64::from_le_bytes(value[..8].try_into().expect("8 bytes"));
                    assert!(version >= seen[at], "{version} after {}", seen[at]);
                    seen[at] = version;
                })
                .expect("get_many");
        }
    });
}

#[test]
fn get_many_never_sees_an_older_version() {
    never_goes_back::<BucketIndex>();
    never_goes_back::<DashIndex>();
}
