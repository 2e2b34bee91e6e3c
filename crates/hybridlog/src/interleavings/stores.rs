//! Whole stores: what moves records between tiers, against who reads and writes them.
//!
//! Each scenario has one key whose values get longer and longer. Whoever reads it never sees an older value than before, or a
//! mixture of two; in the end it has the last one, in memory and on the device.

use std::sync::Arc;

use tempfile::TempDir;

use super::explore;
use crate::sync::calmly;
use crate::{Options, Store};

const KEY: &[u8] = b"key";

/// A store of whose background threads none runs. What they do is done by the threads of the scenario.
fn store() -> (TempDir, Arc<Store>) {
    calmly(|| {
        let directory = match tempfile::tempdir_in("/dev/shm") {
            Ok(directory) => directory,
            Err(_) => tempfile::tempdir().expect("a directory"),
        };
        let mut options = Options::new(directory.path()).memory_bytes(16 << 20);
        options.segment_bytes = Some(1 << 20);
        options.command_log = false;
        let store = Store::open(options).expect("the store opens");
        (directory, store)
    })
}

/// One byte long at first, then one longer each time, all of them the same.
fn value(version: usize) -> Vec<u8> {
    vec![b'0' + version as u8; version]
}

fn write(store: &Store, version: usize) {
    store.set(KEY, &value(version)).expect("there is room");
}

/// As [`write`], but reads what was there, so that the new value takes its place.
fn overwrite(store: &Store, version: usize) {
    let stored = store.update(KEY, |_| Some(value(version)));
    assert!(stored.expect("nothing fails"));
}

/// Which version the key has.
fn read(store: &Store) -> usize {
    let found = store.get(KEY).expect("nothing fails").expect("it is there");
    assert_eq!(found, value(found.len()), "a mixture, not the last value");
    found.len()
}

/// Reads a few times; the versions must not go back.
fn watch(store: &Store) {
    let mut newest = 1;
    for _ in 0..3 {
        let version = read(store);
        assert!(
            version >= newest,
            "not the last value: {version} after {newest}"
        );
        newest = version;
    }
}

/// Moves the record and then, since nothing is left to do, completes the segment that it is in now.
fn compact(store: &Store) {
    for _ in 0..2 {
        let compacted = store.shared.compact_one(&|| false);
        compacted.expect("the disk is there");
    }
}

/// Starts a thread.
fn on(
    store: &Arc<Store>,
    body: impl FnOnce(&Store) + Send + 'static,
) -> shuttle::thread::JoinHandle<()> {
    let store = Arc::clone(store);
    shuttle::thread::spawn(move || body(&store))
}

/// Waits for the threads; then the key must have the version, wherever it is.
fn ends_with<const N: usize>(
    store: &Store,
    threads: [shuttle::thread::JoinHandle<()>; N],
    version: usize,
) {
    for thread in threads {
        thread.join().expect("no thread fails");
    }
    calmly(|| {
        assert_eq!(read(store), version, "not the last value");
        store.force_cold().expect("the disk is there");
        assert_eq!(read(store), version, "not the last value on the device");
    });
}

#[test]
fn what_is_written_in_place_is_sealed() {
    explore(300, || {
        let (_directory, store) = store();
        calmly(|| write(&store, 1));
        let threads = [
            on(&store, |store| {
                for version in [2, 3, 4] {
                    write(store, version);
                    assert_eq!(read(store), version, "not the last value");
                }
            }),
            on(&store, |store| {
                store.seal_all().expect("the disk is there");
                store.force_cold().expect("the disk is there");
            }),
            on(&store, watch),
        ];
        ends_with(&store, threads, 4);
    });
}

#[test]
fn a_second_chance_never_brings_back_an_old_value() {
    explore(300, || {
        let (_directory, store) = store();
        calmly(|| {
            write(&store, 1);
            store.seal_all().expect("the disk is there");
            // Who was read has a second chance.
            read(&store);
        });
        let threads = [
            on(&store, |store| write(store, 2)),
            on(&store, |store| {
                let _alone = store.shared.tiering.lock();
                store.shared.cool_oldest(crate::tiering::SecondChance::Give);
            }),
            on(&store, watch),
        ];
        ends_with(&store, threads, 2);
    });
}

#[test]
fn compaction_never_brings_back_an_old_value() {
    explore(300, || {
        let (_directory, store) = store();
        calmly(|| {
            write(&store, 1);
            // Most of the segment is unused, which is as good as dead.
            store.force_cold().expect("the disk is there");
            store.shared.compaction.ask();
        });
        let threads = [
            on(&store, |store| overwrite(store, 2)),
            on(&store, compact),
            on(&store, watch),
        ];
        ends_with(&store, threads, 2);
    });
}

/// A promotion holds its key's latch, but who compacts does not.
#[test]
fn a_promotion_and_compaction_leave_one_slot() {
    explore(300, || {
        let (_directory, store) = store();
        calmly(|| {
            write(&store, 1);
            store.force_cold().expect("the disk is there");
            store.shared.compaction.ask();
            // The second read brings it back.
            read(&store);
        });
        let threads = [on(&store, compact), on(&store, watch), on(&store, watch)];
        ends_with(&store, threads, 1);
        calmly(|| assert_eq!(store.stats().index_slots, 1, "slots of one record"));
    });
}
