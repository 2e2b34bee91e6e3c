//! Blind writes over cold slots: no device read, and an exact count of keys once things are calm.

use std::time::{Duration, Instant};

use hybridlog::{BucketIndex, Namespace, Options, Store};

const PLAIN: Namespace = Namespace(0);

/// Waits for what the store does in the background within half a second or so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "still not so: {what}"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_blind_write_reads_nothing_and_its_shadow_goes_when_things_are_calm() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options).expect("a fresh directory opens");
    let key = |n: u32| format!("key:{n}").into_bytes();
    for n in 0..1000 {
        store.set(&key(n), b"old").expect("set");
    }
    store.force_cold().expect("segments can be written");
    for n in 0..1000 {
        store.set(&key(n), b"new").expect("set");
    }
    let stats = store.stats();
    assert_eq!((stats.cold_reads, stats.shadows), (0, 1000));
    assert_eq!(store.len(PLAIN), 1000);
    eventually("all shadows are gone", || store.stats().index_slots == 1000);
    assert_eq!(store.len(PLAIN), 1000);
    for n in 0..1000 {
        assert_eq!(
            store.get(&key(n)).expect("get").as_deref(),
            Some(&b"new"[..])
        );
        assert!(store.delete(&key(n)).expect("delete"));
        assert_eq!(store.get(&key(n)).expect("get"), None);
    }
    assert_eq!(store.stats().index_slots, 0);
}

#[test]
fn keys_whose_tags_collide_with_cold_ones_are_counted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options).expect("a fresh directory opens");
    let keys = 400_000;
    for part in 0..4 {
        for n in part * keys / 4..(part + 1) * keys / 4 {
            store.set(format!("key:{n}").as_bytes(), b"").expect("set");
        }
        store.force_cold().expect("segments can be written");
    }
    assert!(
        store.stats().shadows > 0,
        "among so many keys some tags collide"
    );
    eventually("all keys are counted", || store.len(PLAIN) == keys);
}
