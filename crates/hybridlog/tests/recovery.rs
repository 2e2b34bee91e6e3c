//! What a restart finds: after a clean end, after a crash, with and without the command log.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use hybridlog::{
    BucketIndex, ColdReads, DashIndex, Index, KeyRef, LatchMode, Meta, Namespace, OpenError,
    Operation, Options, Stop, Store, SyncPolicy,
};

const NAMESPACE: Namespace = Namespace(3);

fn options(directory: &Path) -> Options {
    let mut options = Options::new(directory).memory_bytes(32 << 20);
    options.segment_bytes = Some(1 << 20);
    options.sync = SyncPolicy::Never;
    options
}

fn open<I: Index>(options: Options) -> Arc<Store<I>> {
    Store::open(options).expect("the store opens")
}

/// What a crash of the process leaves: all files as they are at this moment.
fn crash_image(directory: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(directory).expect("the data directory") {
        let entry = entry.expect("an entry");
        // A file may be removed meanwhile.
        let _ = fs::copy(entry.path(), image.path().join(entry.file_name()));
    }
    image
}

fn change<I: Index, T>(
    store: &Store<I>,
    key: &[u8],
    mut body: impl FnMut(&mut Operation<'_, I>) -> Result<T, Stop>,
) -> T {
    let keys = [KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Exclusive,
    }];
    store
        .blocking(&keys, 0, &mut body)
        .expect("the change is made")
}

fn put<I: Index>(store: &Store<I>, key: &[u8], value: &[u8]) {
    change(store, key, |op| {
        op.set(NAMESPACE, key, value, Meta::default())
    });
}

fn get<I: Index>(store: &Store<I>, key: &[u8]) -> Option<(Vec<u8>, Meta)> {
    change(store, key, |op| match op.read(NAMESPACE, key)? {
        None => Ok(None),
        Some(record) => Ok(Some((op.value(&record)?.into_owned(), record.meta()))),
    })
}

fn value_of(n: usize, version: usize) -> Vec<u8> {
    format!("value {version} of {n} {}", "x".repeat(n % 300)).into_bytes()
}

fn key_of(n: usize) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

fn assert_holds<I: Index>(store: &Store<I>, expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
    assert_eq!(store.len(NAMESPACE), expected.len() as u64);
    for (key, value) in expected {
        let found = get(store, key).map(|(value, _)| value);
        assert_eq!(
            found.as_ref(),
            Some(value),
            "{}",
            String::from_utf8_lossy(key)
        );
    }
}

/// Every kind of change, at different times before and after checkpoints.
fn every_change_is_found_again<I: Index>(checkpoints: bool, crash: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<I>(options(directory.path()));
    let save = || {
        if checkpoints {
            store.checkpoint().expect("a checkpoint");
        }
    };
    let mut expected = BTreeMap::new();
    let large: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    for n in 0..2000 {
        put(&store, &key_of(n), &value_of(n, 1));
        expected.insert(key_of(n), value_of(n, 1));
    }
    put(&store, b"large", &large);
    put(&store, b"large and gone", &large);
    save();
    store.force_cold().expect("everything goes cold");
    for n in (0..2000).step_by(3) {
        put(&store, &key_of(n), &value_of(n, 2));
        expected.insert(key_of(n), value_of(n, 2));
    }
    for n in (0..2000).step_by(7) {
        assert!(change(&store, &key_of(n), |op| op.remove(NAMESPACE, &key_of(n))));
        expected.remove(&key_of(n));
    }
    save();
    for n in (1..2000).step_by(7) {
        change(&store, &key_of(n), |op| {
            op.write_range(NAMESPACE, &key_of(n), 5, b"WRITTEN", 0)
        });
        expected.get_mut(&key_of(n)).expect("it is there")[5..12].copy_from_slice(b"WRITTEN");
    }
    for n in (2..2000).step_by(7) {
        change(&store, &key_of(n), |op| {
            op.set_expiry(NAMESPACE, &key_of(n), Some(1 << 50))
        });
    }
    let expiring = store.expiring(NAMESPACE);
    let both = [b"large".as_slice(), b"moved"].map(|key| KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Exclusive,
    });
    let renamed = store.blocking(&both, 0, |op| {
        op.rename((NAMESPACE, b"large"), (NAMESPACE, b"moved"))
    });
    assert!(renamed.expect("renamed"));
    change(&store, b"moved", |op| {
        op.write_range(NAMESPACE, b"moved", 100_000, &[7; 100_000], 0)
    });
    let mut moved = large.clone();
    moved[100_000..200_000].fill(7);
    expected.insert(b"moved".to_vec(), moved);
    assert!(change(&store, b"large and gone", |op| op
        .remove(NAMESPACE, b"large and gone")));
    save();
    put(&store, b"last", b"one");
    expected.insert(b"last".to_vec(), b"one".to_vec());
    change(&store, b"any", |op| op.set_state(b"the program's own"));

    let image;
    let again = if crash {
        change(&store, b"", |_| Ok(()));
        let written = store.wait_durable(position(&store));
        written.expect("the log is written");
        image = crash_image(directory.path());
        options(image.path())
    } else {
        drop(store);
        options(directory.path())
    };
    let store = open::<I>(again.clone());
    assert_holds(&store, &expected);
    assert_eq!(store.expiring(NAMESPACE), expiring);
    assert_eq!(store.state(), b"the program's own");
    let (_, meta) = get(&store, &key_of(2)).expect("it expires, but not yet");
    assert_eq!(meta.expires_at_ms, Some(1 << 50));
    assert_eq!(get(&store, b"large"), None);
    // And again, from what the recovery has made of it.
    put(&store, b"last", b"two");
    expected.insert(b"last".to_vec(), b"two".to_vec());
    drop(store);
    let store = open::<I>(again.clone());
    assert_holds(&store, &expected);
    store.checkpoint().expect("a checkpoint");
    drop(store);
    let store = open::<I>(again);
    assert_eq!(
        store.recovery_stats().frames,
        0,
        "after a checkpoint nothing is replayed"
    );
    assert_holds(&store, &expected);
}

/// Up to where this thread has written, by one more change.
fn position<I: Index>(store: &Store<I>) -> hybridlog::Position {
    let keys = [KeyRef {
        namespace: NAMESPACE,
        key: b"last",
        mode: LatchMode::Exclusive,
    }];
    let reads = ColdReads::default();
    let mut operation = store
        .operation(&keys, &reads, 0)
        .expect("nobody else is here");
    operation
        .set(NAMESPACE, b"last", b"one", Meta::default())
        .expect("it is set");
    operation.finish().expect("it is logged")
}

/// Values that wander from key to key, while both keys change as well: a replay that does not keep the order of what happens
/// to several keys ends with other values.
fn renames_are_found_again_in_their_place<I: Index>() {
    const KEYS: usize = 50;
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<I>(options(directory.path()));
    let mut expected = BTreeMap::new();
    for step in 0..20_000 {
        let (from, to) = (step * 7 % KEYS, (step * 11 + step / 3) % KEYS);
        let (from, to) = (key_of(from), key_of(to));
        match step % 4 {
            0 => {
                let both = [&from, &to].map(|key| KeyRef {
                    namespace: NAMESPACE,
                    key,
                    mode: LatchMode::Exclusive,
                });
                let renamed = store.blocking(&both, 0, |op| {
                    op.rename((NAMESPACE, &from), (NAMESPACE, &to))
                });
                assert_eq!(renamed.expect("no error"), expected.contains_key(&from));
                if let Some(value) = expected.remove(&from) {
                    expected.insert(to, value);
                }
            }
            1 if step % 5 == 0 => {
                change(&store, &from, |op| op.remove(NAMESPACE, &from));
                expected.remove(&from);
            }
            _ => {
                put(&store, &to, &value_of(step, 0));
                expected.insert(to, value_of(step, 0));
            }
        }
    }
    drop(store);
    let store = open::<I>(options(directory.path()));
    assert!(
        store.recovery_stats().frames > 10_000,
        "it was all replayed"
    );
    assert_holds(&store, &expected);
}

#[test]
fn renames_survive_the_end_of_the_process() {
    renames_are_found_again_in_their_place::<BucketIndex>();
    renames_are_found_again_in_their_place::<DashIndex>();
}

#[test]
fn changes_survive_the_end_of_the_process() {
    every_change_is_found_again::<BucketIndex>(false, false);
    every_change_is_found_again::<DashIndex>(false, false);
}

#[test]
fn changes_survive_a_crash_of_the_process() {
    every_change_is_found_again::<BucketIndex>(false, true);
    every_change_is_found_again::<DashIndex>(false, true);
}

#[test]
fn changes_survive_checkpoints_and_the_end_of_the_process() {
    every_change_is_found_again::<BucketIndex>(true, false);
    every_change_is_found_again::<DashIndex>(true, false);
}

#[test]
fn changes_survive_checkpoints_and_a_crash_of_the_process() {
    every_change_is_found_again::<BucketIndex>(true, true);
    every_change_is_found_again::<DashIndex>(true, true);
}

#[test]
fn without_a_command_log_a_restart_finds_exactly_the_last_checkpoint() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = || options(directory.path()).command_log(false);
    let store = open::<BucketIndex>(options());
    let mut expected = BTreeMap::new();
    for n in 0..500 {
        put(&store, &key_of(n), &value_of(n, 1));
        expected.insert(key_of(n), value_of(n, 1));
    }
    store.checkpoint().expect("a checkpoint");
    for n in 250..1000 {
        put(&store, &key_of(n), &value_of(n, 2));
    }
    for n in 0..100 {
        change(&store, &key_of(n), |op| op.remove(NAMESPACE, &key_of(n)));
    }
    drop(store);
    assert_holds(&open::<BucketIndex>(options()), &expected);
}

/// The checkpoint holds the key's old value; the log begins after that has expired and been forgotten.
#[test]
fn what_is_written_after_a_key_expired_does_not_expire_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(options(directory.path()));
    let (keys, old, expires_at_ms) = (300, 1000, 1_000_000);
    let meta = Meta {
        expires_at_ms: Some(expires_at_ms),
        ..Meta::default()
    };
    for n in 0..keys {
        change(&store, &key_of(n), |op| {
            op.set(NAMESPACE, &key_of(n), &vec![b'o'; old], meta)
        });
    }
    store.checkpoint().expect("a checkpoint");
    let mut removed = 0;
    while removed < keys as u64 {
        removed += store.expire_some(expires_at_ms, usize::MAX).removed;
    }
    let mut expected = BTreeMap::new();
    for n in 0..keys {
        // Sometimes shorter than the old value, sometimes longer than what fits into one record.
        let value = vec![b'n'; [10, 2000, 100_000][n % 3]];
        change(&store, &key_of(n), |op| {
            op.write_range(NAMESPACE, &key_of(n), 0, &value, 0)
        });
        expected.insert(key_of(n), value);
    }
    drop(store);
    let store = open::<BucketIndex>(options(directory.path()));
    assert_holds(&store, &expected);
    for n in 0..keys {
        let (_, meta) = get(&store, &key_of(n)).expect("it is there");
        assert_eq!(meta.expires_at_ms, None, "key {n}");
    }
}

#[test]
fn deaths_of_many_checkpoints_are_found_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut expected = BTreeMap::new();
    let store = open::<BucketIndex>(options(directory.path()));
    for version in 0..20 {
        for n in 0..50 {
            put(&store, &key_of(n), &value_of(n, version));
            expected.insert(key_of(n), value_of(n, version));
        }
        store.checkpoint().expect("a checkpoint");
    }
    drop(store);
    assert_holds(&open::<BucketIndex>(options(directory.path())), &expected);
}

#[test]
fn a_checkpoint_waits_until_the_log_is_replayed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut expected = BTreeMap::new();
    let store = open::<BucketIndex>(options(directory.path()));
    for n in 0..3000 {
        put(&store, &key_of(n), &value_of(n, 1));
        expected.insert(key_of(n), value_of(n, 1));
    }
    drop(store);
    let store = Store::<BucketIndex>::open_unrecovered(options(directory.path())).expect("a store");
    store.ask_for_checkpoint();
    store.recover().expect("the data is there");
    assert_holds(&store, &expected);
    drop(store);
    assert_holds(&open::<BucketIndex>(options(directory.path())), &expected);
}

#[test]
fn everything_retired_is_gone_and_what_came_after_is_there() {
    for checkpoint in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open::<BucketIndex>(options(directory.path()));
        for n in 0..3000 {
            put(&store, &key_of(n), &value_of(n, 1));
        }
        store.checkpoint().expect("a checkpoint");
        let reads = ColdReads::default();
        let mut operation = store
            .operation_on_everything(&reads, 0)
            .expect("nobody else is here");
        let retired = operation
            .retire_everything()
            .expect("nothing is in transit");
        drop(operation);
        store.sweep(retired, &[NAMESPACE]);
        put(&store, b"after", b"all");
        if checkpoint {
            store.checkpoint().expect("a checkpoint");
            let segments = fs::read_dir(directory.path())
                .expect("the directory")
                .filter(|entry| {
                    let name = entry.as_ref().expect("an entry").file_name();
                    name.to_string_lossy().ends_with(".seg")
                });
            assert_eq!(segments.count(), 1, "the retired segments' files are gone");
        }
        drop(store);
        let expected = BTreeMap::from([(b"after".to_vec(), b"all".to_vec())]);
        assert_holds(&open::<BucketIndex>(options(directory.path())), &expected);
    }
}

#[test]
fn a_missing_segment_is_named_and_nothing_is_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(options(directory.path()));
    put(&store, b"key", b"value");
    store.checkpoint().expect("a checkpoint");
    drop(store);
    let names = |directory: &Path| {
        let mut names: Vec<_> = fs::read_dir(directory)
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        names
    };
    let segment = names(directory.path())
        .into_iter()
        .find(|name| name.to_string_lossy().ends_with(".seg"));
    let segment = segment.expect("a segment");
    fs::remove_file(directory.path().join(&segment)).expect("removed");
    let before = names(directory.path());
    match Store::<BucketIndex>::open(options(directory.path())).map(drop) {
        Err(error @ OpenError::Io(..)) => {
            assert!(
                error.to_string().contains(&*segment.to_string_lossy()),
                "{error}"
            );
        }
        other => panic!("opened: {other:?}"),
    }
    assert_eq!(names(directory.path()), before);
}
