//! Compaction: space comes back, and nothing that is live is lost, whatever happens at the same time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hybridlog::{
    BucketIndex, DashIndex, Index, KeyRef, LatchMode, Meta, Namespace, Options, Store,
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);

fn open<I: Index>(directory: &Path) -> Arc<Store<I>> {
    let options = Options {
        segment_bytes: Some(1 << 20),
        ..Options::new(directory).memory_bytes(16 * MIB)
    };
    Store::open(options).expect("the directory opens")
}

/// What the files of segments take on the device.
fn disk_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory)
        .expect("the directory")
        .map(|entry| entry.expect("an entry"));
    let files = entries.filter(|entry| !entry.file_name().to_string_lossy().ends_with(".log"));
    files
        .map(|file| {
            file.metadata()
                .map_or(0, |metadata| metadata.blocks() * 512)
        })
        .sum()
}

fn key(n: u64) -> Vec<u8> {
    format!("key:{n:08}").into_bytes()
}

fn value(n: u64, version: u64) -> Vec<u8> {
    let seed = (n * 31 + version).to_le_bytes();
    seed.repeat(20 + (n % 40) as usize)
}

fn assert_holds<I: Index>(store: &Store<I>, expected: &BTreeMap<u64, u64>, keys: u64) {
    for n in 0..keys {
        let found = store.get(&key(n)).expect("it can be read");
        let version = expected.get(&n);
        assert_eq!(
            found,
            version.map(|&version| value(n, version)),
            "key {n}, version {version:?}"
        );
    }
    // A key whose tag a cold one has is counted once things are calm.
    let started = Instant::now();
    while store.len(Namespace(0)) != expected.len() as u64 {
        assert!(
            started.elapsed() < LIMIT,
            "{} keys are counted, not {}",
            store.len(Namespace(0)),
            expected.len()
        );
        std::thread::yield_now();
    }
}

fn space_comes_back<I: Index>() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<I>(directory.path());
    let mut expected = BTreeMap::new();
    let keys = 60_000;
    for version in 1..=3 {
        for n in 0..keys {
            // A third of the keys is written once, a third twice, a third three times.
            if n % 3 + 1 >= version {
                store
                    .set(&key(n), &value(n, version))
                    .expect("there is room");
                expected.insert(n, version);
            }
        }
    }
    for n in (0..keys).step_by(4) {
        assert!(store.delete(&key(n)).expect("it can be removed"));
        expected.remove(&n);
    }
    let live: u64 = expected
        .iter()
        .map(|(&n, &version)| 16 + 12 + value(n, version).len() as u64)
        .sum();
    store.force_cold().expect("it goes cold");
    assert!(store.compact(LIMIT), "{:?}", store.space());
    store.checkpoint().expect("a checkpoint");
    let used = disk_bytes(directory.path());
    assert!(
        used < live * 3 / 2,
        "{used} bytes on the device for {live}: {:?}",
        store.space()
    );
    assert!(store.stats().compaction_moved_bytes > 0);
    assert_holds(&store, &expected, keys);
    drop(store);
    let store = open::<I>(directory.path());
    assert_holds(&store, &expected, keys);
}

fn little_data_takes_little_space_once_all_is_calm(is_logged: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options {
        segment_bytes: Some(1 << 20),
        command_log: is_logged,
        ..Options::new(directory.path()).memory_bytes(48 * MIB)
    };
    let store = Store::<BucketIndex>::open(options).expect("the directory opens");
    let keys = 50_000;
    for n in 0..keys {
        store.set(&key(n), &[1; 100]).expect("there is room");
    }
    store.checkpoint().expect("a checkpoint");
    let stays = |n: &u64| n.is_multiple_of(10);
    for n in (0..keys).filter(|n| !stays(n)) {
        assert!(store.delete(&key(n)).expect("it can be removed"));
    }
    let live = (0..keys).filter(stays).count() as u64 * (16 + 12 + 100);
    // Nobody asks for anything.
    let started = Instant::now();
    while disk_bytes(directory.path()) > live * 3 / 2 {
        let used = disk_bytes(directory.path());
        assert!(
            started.elapsed() < LIMIT,
            "{used} bytes on the device for {live}: {:?}",
            store.space()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(store);
    let store = open::<BucketIndex>(directory.path());
    for n in 0..keys {
        let found = store.get(&key(n)).expect("it can be read");
        assert_eq!(found, stays(&n).then(|| vec![1; 100]), "key {n}");
    }
}

#[test]
fn little_data_takes_little_space_once_all_is_calm_with_a_command_log() {
    little_data_takes_little_space_once_all_is_calm(true);
}

#[test]
fn little_data_takes_little_space_once_all_is_calm_without_a_command_log() {
    little_data_takes_little_space_once_all_is_calm(false);
}

#[test]
fn space_comes_back_and_everything_live_stays() {
    space_comes_back::<BucketIndex>();
    space_comes_back::<DashIndex>();
}

/// Overwriting in pieces whose segments stay in memory, with a checkpoint every now and then: without compaction of mapped
/// segments the directory would grow for ever.
#[test]
fn constant_overwriting_of_what_is_in_memory_takes_bounded_space() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    let mut expected = BTreeMap::new();
    for version in 1..=40 {
        for n in 0..5_000 {
            store
                .set(&key(n), &value(n, version))
                .expect("there is room");
            expected.insert(n, version);
        }
        store.checkpoint().expect("a checkpoint");
    }
    assert!(store.compact(LIMIT), "{:?}", store.space());
    store.checkpoint().expect("a checkpoint");
    let used = disk_bytes(directory.path());
    assert!(
        used < 5 * MIB,
        "{used} bytes on the device: {:?}",
        store.space()
    );
    assert_holds(&store, &expected, 5_000);
}

#[test]
fn pages_of_removed_large_values_are_freed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    for n in 0..20 {
        store
            .set(&key(n), &vec![n as u8; 2 << 20])
            .expect("there is room");
    }
    store.force_cold().expect("it goes cold");
    for n in 0..18 {
        assert!(store.delete(&key(n)).expect("it can be removed"));
    }
    assert!(store.delete(&key(18)).expect("it can be removed"));
    store.set(&key(18), b"small now").expect("there is room");
    store.checkpoint().expect("a checkpoint");
    drop(store);
    // What is buried is known after a restart.
    let store = open::<BucketIndex>(directory.path());
    let begin = Instant::now();
    while store.stats().index_slots > 2 + 64 {
        assert!(begin.elapsed() < LIMIT, "{:?}", store.stats());
        store.compact(LIMIT);
    }
    assert!(store.compact(LIMIT), "{:?}", store.space());
    store.checkpoint().expect("a checkpoint");
    let used = disk_bytes(directory.path());
    assert!(
        used < 6 * MIB,
        "{used} bytes on the device: {:?}",
        store.space()
    );
    assert_eq!(
        store.get(&key(18)).expect("readable").as_deref(),
        Some(&b"small now"[..])
    );
    assert_eq!(
        store.get(&key(19)).expect("readable"),
        Some(vec![19; 2 << 20])
    );
}

fn nothing_is_lost_under_writes<I: Index>(seed: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<I>(directory.path());
    let stop = AtomicBool::new(false);
    let keys_per_thread = 10_000u64;
    let all: Vec<BTreeMap<u64, u64>> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u64)
            .map(|thread| {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || {
                    let mut state = seed * 2 + thread + 1;
                    let mut expected = BTreeMap::new();
                    let mut version = 0;
                    while !stop.load(Ordering::Relaxed) {
                        state = state
                            .wrapping_mul(6364136223846793005)
                            .wrapping_add(1442695040888963407);
                        let n = thread * keys_per_thread + (state >> 33) % keys_per_thread;
                        version += 1;
                        match state >> 60 {
                            0 => {
                                let existed = store.delete(&key(n)).expect("it can be removed");
                                assert_eq!(
                                    existed,
                                    expected.remove(&n).is_some(),
                                    "key {n}, seed {seed}"
                                );
                            }
                            1..=3 => {
                                let found = store.get(&key(n)).expect("it can be read");
                                let version = expected.get(&n);
                                let value = version.map(|&version| value(n, version));
                                assert_eq!(
                                    found, value,
                                    "key {n}, version {version:?}, seed {seed}"
                                );
                            }
                            _ => {
                                store
                                    .set(&key(n), &value(n, version))
                                    .expect("there is room");
                                expected.insert(n, version);
                            }
                        }
                    }
                    expected
                })
            })
            .collect();
        for round in 0..12 {
            match round % 3 {
                0 => store.force_cold().expect("it goes cold"),
                1 => store.checkpoint().map(drop).expect("a checkpoint"),
                _ => assert!(store.compact(LIMIT), "{:?}", store.space()),
            }
        }
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().expect("no panic"))
            .collect()
    });
    assert!(
        store.stats().compaction_reclaimed_bytes > 0,
        "{:?}",
        store.stats()
    );
    let expected: BTreeMap<u64, u64> = all.into_iter().flatten().collect();
    let keys = 2 * keys_per_thread;
    for n in 0..keys {
        let version = expected.get(&n);
        let found = store.get(&key(n)).expect("it can be read");
        assert_eq!(
            found,
            version.map(|&version| value(n, version)),
            "key {n}, {version:?}, seed {seed}"
        );
    }
    drop(store);
    let store = open::<I>(directory.path());
    for n in 0..keys {
        let version = expected.get(&n);
        let found = store.get(&key(n)).expect("it can be read");
        assert_eq!(
            found,
            version.map(|&version| value(n, version)),
            "after the restart: key {n}, {version:?}, seed {seed}"
        );
    }
}

#[test]
fn nothing_is_lost_under_constant_writes() {
    nothing_is_lost_under_writes::<BucketIndex>(1);
    nothing_is_lost_under_writes::<DashIndex>(2);
}

#[test]
fn what_has_expired_is_left_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    let namespace = Namespace(0);
    for n in 0..20_000 {
        let (key, value) = (key(n), value(n, 1));
        let latched = [KeyRef {
            namespace,
            key: &key,
            mode: LatchMode::Exclusive,
        }];
        let meta = Meta {
            kind: 0,
            expires_at_ms: (n % 2 != 0).then_some(1),
        };
        store
            .blocking(&latched, 0, |op| op.set(namespace, &key, &value, meta))
            .expect("there is room");
    }
    store.force_cold().expect("it goes cold");
    // A quarter is removed, so that every segment is worth it.
    for n in (0..20_000).step_by(4) {
        assert!(store.delete(&key(n)).expect("it can be removed"));
    }
    assert!(store.compact(LIMIT), "{:?}", store.space());
    assert_eq!(
        (store.len(namespace), store.expiring(namespace)),
        (5_000, 0),
        "{:?}",
        store.space()
    );
    assert_eq!(store.stats().expired, 10_000);
}

/// Behind the last record of a segment there may be several fillers, one of each chunk that was not filled. Only the header of
/// the first one was written to the file, the rest being a hole; who walked the mapped segment found records in the zeroes,
/// and the last of them, in the last 8 bytes, behind the end of the mapping.
#[test]
fn a_mapped_segment_is_walked_to_its_end_and_not_further() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    for round in 0..40u64 {
        // Threads have chunks of their own; records of these lengths end at every multiple of 8 in turn.
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let store = &store;
                scope.spawn(move || {
                    let n = round * 3 + thread;
                    store
                        .set(&key(n), &vec![7; 8 * n as usize % 72 + 1])
                        .expect("there is room");
                });
            }
        });
        store.seal_all().expect("it is sealed");
        for n in 0..round * 3 {
            assert!(
                store.get(&key(n)).expect("it can be read").is_some(),
                "key {n}"
            );
        }
    }
    // Leaving memory walks each segment for what was read.
    for n in 0..60_000 {
        store
            .set(&key(1000 + n), &value(n, 1))
            .expect("there is room");
    }
    for n in 0..120 {
        let found = store.get(&key(n)).expect("it can be read");
        assert_eq!(found, Some(vec![7; 8 * n as usize % 72 + 1]), "key {n}");
    }
}

/// Compaction's own segment was retired like those of the log, and its memory given back while it was being filled; and what
/// had not been copied yet was copied afterwards, and so came back.
#[test]
fn forgetting_everything_while_compaction_is_at_work_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    let namespace = Namespace(0);
    for round in 0..15u64 {
        for version in 0..2 {
            for n in (0..20_000).filter(|n| version == 0 || n % 2 == 0) {
                store
                    .set(&key(n), &value(n, version))
                    .expect("there is room");
            }
            store.force_cold().expect("it goes cold");
        }
        std::thread::scope(|scope| {
            scope.spawn(|| store.compact(LIMIT));
            std::thread::sleep(Duration::from_millis(3 * round));
            let reads = hybridlog::ColdReads::default();
            let retired = loop {
                let everything = store.operation_on_everything(&reads, 0);
                if let Some(Ok(retired)) =
                    everything.map(|mut operation| operation.retire_everything())
                {
                    break retired;
                }
                std::thread::yield_now();
            };
            store.sweep(retired, &[namespace]);
        });
        assert!(store.compact(LIMIT), "{:?}", store.space());
        assert_eq!(
            (store.len(namespace), store.stats().index_slots),
            (0, 0),
            "round {round}"
        );
    }
    store.set(b"after", b"all").expect("there is room");
    assert_eq!(
        store.get(b"after").expect("readable").as_deref(),
        Some(&b"all"[..])
    );
}

/// The segment that would give back most cannot be rewritten. The others can.
#[test]
fn a_damaged_segment_does_not_keep_others_from_being_compacted() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    let keys = 20_000;
    for version in 1..=2 {
        for n in 0..keys {
            store
                .set(&key(n), &value(n, version))
                .expect("there is room");
        }
        store.force_cold().expect("it goes cold");
    }
    let mut lists: Vec<_> = fs::read_dir(directory.path())
        .expect("the directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "keys")
        })
        .collect();
    lists.sort();
    fs::write(&lists[0], b"no list of keys").expect("it is overwritten");
    let begin = Instant::now();
    while store.stats().compaction_reclaimed_bytes < 4 * MIB {
        assert!(begin.elapsed() < LIMIT, "{:?}", store.stats());
        store.compact(LIMIT);
    }
    assert!(store.stats().compaction_errors > 0, "{:?}", store.stats());
    for n in 0..keys {
        let found = store.get(&key(n)).expect("it can be read");
        assert_eq!(found, Some(value(n, 2)), "key {n}");
    }
}
