//! Keys that have expired are removed although nobody asks for them: those on the device as the key files list them, without
//! reading a value.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hybridlog::{
    BucketIndex, DashIndex, Index, KeyRef, LatchMode, Meta, Namespace, Operation, Options, Stop,
    Store,
};

const MIB: u64 = 1 << 20;
const NAMESPACE: Namespace = Namespace(2);
/// The time of all operations, in the future: what works in the background goes by the real one, and removes nothing.
const NOW_MS: u64 = 4_000_000_000_000;
const SOON_MS: u64 = NOW_MS + 1000;
const LATER_MS: u64 = NOW_MS + 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);

fn open<I: Index>(directory: &Path) -> Arc<Store<I>> {
    let mut options = Options::new(directory).memory_bytes(24 * MIB);
    options.segment_bytes = Some(1 << 20);
    Store::open(options).expect("the directory opens")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn change<I: Index, T>(
    store: &Store<I>,
    key: &[u8],
    body: impl FnMut(&mut Operation<'_, I>) -> Result<T, Stop>,
) -> T {
    let latched = KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Exclusive,
    };
    store
        .blocking(&[latched], NOW_MS, body)
        .expect("there is room")
}

fn set<I: Index>(store: &Store<I>, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) {
    let meta = Meta {
        kind: 1,
        expires_at_ms,
    };
    change(store, key, |operation| {
        operation.set(NAMESPACE, key, value, meta)
    });
}

fn is_there<I: Index>(store: &Store<I>, key: &[u8]) -> bool {
    change(store, key, |operation| {
        operation
            .read(NAMESPACE, key)
            .map(|record| record.is_some())
    })
}

fn key(n: u64) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

/// Of every three keys the first expires soon, the second later, the third never.
fn expiry_of(n: u64) -> Option<u64> {
    [Some(SOON_MS), Some(LATER_MS), None][n as usize % 3]
}

fn fill<I: Index>(store: &Store<I>, keys: u64) {
    for n in 0..keys {
        set(store, &key(n), &[b'v'; 700], expiry_of(n));
    }
}

/// Expires what key files list, and nothing that is found in the index, until there is no more.
fn expire_listed<I: Index>(store: &Store<I>, now_ms: u64) -> u64 {
    let mut removed = 0;
    loop {
        let expired = store.expire_some(now_ms, 0);
        removed += expired.removed;
        if !expired.is_behind {
            return removed;
        }
    }
}

fn eventually(mut holds: impl FnMut() -> bool, what: &str) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LIMIT, "{what}");
        std::thread::yield_now();
    }
}

fn cold_keys_go_without_being_read<I: Index>() {
    let directory = directory();
    let store = open::<I>(directory.path());
    let keys = 6000;
    fill(&store, keys);
    store.force_cold().expect("it goes cold");
    assert_eq!(expire_listed(&store, SOON_MS - 1), 0);
    assert_eq!(
        (store.len(NAMESPACE), store.expiring(NAMESPACE)),
        (6000, 4000)
    );
    assert_eq!(expire_listed(&store, SOON_MS), 2000);
    assert_eq!(
        (store.len(NAMESPACE), store.expiring(NAMESPACE)),
        (4000, 2000)
    );
    assert_eq!(expire_listed(&store, SOON_MS), 0);
    // Another key may have the same tag, which only the record tells; there are few.
    let stats = store.stats();
    assert!(stats.cold_reads < keys / 100, "{stats:?}");
    assert_eq!(stats.expired, 2000);
    for n in 0..keys {
        assert_eq!(is_there(&store, &key(n)), n % 3 != 0, "key {n}");
    }
    store.checkpoint().expect("a checkpoint");
    drop(store);
    // The keys that expire later are found again after a restart, and those that are gone stay so.
    let store = open::<I>(directory.path());
    assert_eq!(
        (store.len(NAMESPACE), store.expiring(NAMESPACE)),
        (4000, 2000)
    );
    assert_eq!(expire_listed(&store, LATER_MS), 2000);
    assert_eq!((store.len(NAMESPACE), store.expiring(NAMESPACE)), (2000, 0));
    assert!(store.stats().cold_reads < keys / 100);
}

#[test]
fn keys_on_the_device_go_without_being_read() {
    cold_keys_go_without_being_read::<BucketIndex>();
    cold_keys_go_without_being_read::<DashIndex>();
}

/// What was listed once as expiring may have been written anew, made persistent, given another time or removed since, and lie
/// in memory or on the device now.
fn what_has_changed_stays<I: Index>() {
    let directory = directory();
    let store = open::<I>(directory.path());
    let keys = 3000;
    for n in 0..keys {
        set(&store, &key(n), &[b'v'; 700], Some(SOON_MS));
    }
    store.force_cold().expect("it goes cold");
    for n in 0..keys {
        let (key, expiry) = (key(n), |at| {
            let key = &key(n);
            let was_there = change(&store, key, |op| op.set_expiry(NAMESPACE, key, at));
            assert!(was_there);
        });
        match n % 6 {
            0 => set(&store, &key, b"without an expiry", None),
            1 => set(&store, &key, b"another expiry", Some(LATER_MS)),
            2 => expiry(None),
            3 => expiry(Some(LATER_MS)),
            4 => assert!(change(&store, &key, |op| op.remove(NAMESPACE, &key))),
            _ => {}
        }
        if n == keys / 2 {
            store.force_cold().expect("it goes cold");
        }
    }
    assert_eq!(expire_listed(&store, SOON_MS), 500);
    for n in 0..keys {
        assert_eq!(is_there(&store, &key(n)), n % 6 < 4, "key {n}");
    }
    assert_eq!(store.len(NAMESPACE), 2000);
    assert_eq!(store.expiring(NAMESPACE), 1000);
    store.checkpoint().expect("a checkpoint");
    drop(store);
    let store = open::<I>(directory.path());
    assert_eq!(expire_listed(&store, LATER_MS), 1000);
    for n in 0..keys {
        assert_eq!(
            is_there(&store, &key(n)),
            n % 6 % 2 == 0 && n % 6 < 4,
            "key {n}"
        );
    }
}

#[test]
fn what_was_written_or_made_persistent_since_it_was_listed_stays() {
    what_has_changed_stays::<BucketIndex>();
    what_has_changed_stays::<DashIndex>();
}

/// Sealed segments that stay in memory, and those that compaction writes, have key files like any others.
#[test]
fn sealed_and_compacted_segments_are_not_missed() {
    let directory = directory();
    let store = open::<BucketIndex>(directory.path());
    fill(&store, 6000);
    store.seal_all().expect("it is sealed");
    assert_eq!(expire_listed(&store, SOON_MS), 2000);
    store.force_cold().expect("it goes cold");
    for n in (0..6000).filter(|n| n % 6 == 2) {
        let key = key(n);
        assert!(change(&store, &key, |op| op.remove(NAMESPACE, &key)));
    }
    assert!(store.compact(LIMIT), "{:?}", store.space());
    assert!(store.stats().compaction_moved_bytes > 0);
    assert_eq!(expire_listed(&store, LATER_MS), 2000);
    assert_eq!((store.len(NAMESPACE), store.expiring(NAMESPACE)), (1000, 0));
}

/// A large value has a root on the device, which is read to find its pages; those go as well.
#[test]
fn large_values_go_with_their_pages() {
    let directory = directory();
    let store = open::<BucketIndex>(directory.path());
    for n in 0..20 {
        set(&store, &key(n), &vec![b'v'; 300_000], Some(SOON_MS));
    }
    store.force_cold().expect("it goes cold");
    assert_eq!(expire_listed(&store, SOON_MS), 20);
    assert_eq!((store.len(NAMESPACE), store.expiring(NAMESPACE)), (0, 0));
    eventually(|| store.stats().index_slots == 0, "pages keep their slots");
}

/// The key was overwritten while it was on the device: the old record is still there, behind the new one.
#[test]
fn a_shadow_does_not_come_back_when_its_key_expires() {
    for is_cold in [false, true] {
        let directory = directory();
        let store = open::<BucketIndex>(directory.path());
        for n in 0..500 {
            set(&store, &key(n), &[b'o'; 700], None);
        }
        store.force_cold().expect("it goes cold");
        for n in 0..500 {
            set(&store, &key(n), b"new", Some(SOON_MS));
        }
        if is_cold {
            store.force_cold().expect("it goes cold");
        }
        let mut removed = 0;
        eventually(
            || {
                removed += store.expire_some(SOON_MS, 1024).removed;
                removed == 500
            },
            "expired keys stay",
        );
        assert_eq!((store.len(NAMESPACE), store.expiring(NAMESPACE)), (0, 0));
        for n in 0..500 {
            assert!(!is_there(&store, &key(n)), "key {n} is back");
        }
    }
}

/// Nothing else is written, so nothing but the deletions themselves makes a checkpoint due; and without one their files stay.
#[test]
fn space_of_what_has_expired_is_given_back_without_a_command_log() {
    let directory = directory();
    let mut options = Options::new(directory.path())
        .memory_bytes(24 * MIB)
        .command_log(false);
    options.segment_bytes = Some(1 << 20);
    let store: Arc<Store> = Store::open(options).expect("the directory opens");
    for n in 0..20_000 {
        set(&store, &key(n), &[b'v'; 700], Some(SOON_MS));
    }
    store.force_cold().expect("it goes cold");
    let files = || {
        let entries = std::fs::read_dir(directory.path()).expect("the directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .filter(|name| name.to_string_lossy().ends_with(".seg"))
            .count()
    };
    assert!(files() >= 14, "{} segments", files());
    assert_eq!(expire_listed(&store, SOON_MS), 20_000);
    eventually(|| files() <= 4, "files stay");
}

/// The expired keys of a segment whose list is damaged stay until somebody meets them; those of others go.
#[test]
fn a_damaged_list_is_counted_and_holds_up_no_other() {
    let directory = directory();
    let store = open::<BucketIndex>(directory.path());
    fill(&store, 6000);
    store.force_cold().expect("it goes cold");
    let entries = std::fs::read_dir(directory.path()).expect("the directory");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "keys")
    });
    paths.sort();
    let mut bytes = std::fs::read(&paths[0]).expect("a key file");
    let last_block = bytes.len() - 4096;
    bytes[last_block + 20] ^= 1;
    std::fs::write(&paths[0], bytes).expect("it can be written");
    let removed = expire_listed(&store, LATER_MS);
    assert!((1000..3999).contains(&removed), "{removed}");
    assert!(store.stats().expiry_errors > 0);
    assert_eq!(store.len(NAMESPACE), 6000 - removed);
    assert!((0..6000).all(|n| n % 3 == 2 || !is_there_at(&store, &key(n), LATER_MS)));
}

fn is_there_at<I: Index>(store: &Store<I>, key: &[u8], now_ms: u64) -> bool {
    let latched = KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Shared,
    };
    let read = store.blocking(&[latched], now_ms, |op| {
        op.read(NAMESPACE, key).map(|record| record.is_some())
    });
    read.expect("it can be read")
}

/// Fills all segments with nonsense; returns what they held.
fn damage_segments(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("the directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let paths = paths.filter(|path| path.extension().is_some_and(|of| of == "seg"));
    let damage = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("a segment");
        std::fs::write(&path, vec![0xff; bytes.len()]).expect("it can be written");
        (path, bytes)
    };
    paths.map(damage).collect()
}

/// The device does not give what it holds for a while; few keys are remembered, and many are listed again.
#[test]
fn what_could_not_be_read_is_removed_when_it_can_be() {
    for keys in [20, 300] {
        let directory = directory();
        let store = open::<BucketIndex>(directory.path());
        for n in 0..keys {
            set(&store, &key(n), &vec![b'v'; 70_000], Some(SOON_MS));
        }
        store.force_cold().expect("it goes cold");
        let segments = damage_segments(directory.path());
        assert_eq!(expire_listed(&store, SOON_MS), 0);
        assert_eq!(store.len(NAMESPACE), keys);
        assert!(store.stats().expiry_errors > 0);
        for (path, bytes) in &segments {
            std::fs::write(path, bytes).expect("it can be written");
        }
        assert_eq!(expire_listed(&store, SOON_MS + 60_000), keys);
        assert_eq!(store.len(NAMESPACE), 0);
        eventually(|| store.stats().index_slots == 0, "pages keep their slots");
    }
}

/// More keys than are remembered cannot be read; they expire first, and those behind them can be.
#[test]
fn keys_that_cannot_be_read_hold_up_no_others() {
    const UNREADABLE: u64 = 300;
    const OTHERS: u64 = 50;
    let directory = directory();
    let store = open::<BucketIndex>(directory.path());
    for n in 0..UNREADABLE {
        set(&store, &key(n), &vec![b'v'; 65_537], None);
    }
    store.force_cold().expect("it goes cold");
    // Their roots are written anew, without their pages: into one segment.
    for n in 0..UNREADABLE {
        let key = key(n);
        let found = change(&store, &key, |op| {
            op.set_expiry(NAMESPACE, &key, Some(SOON_MS))
        });
        assert!(found);
    }
    for n in UNREADABLE..UNREADABLE + OTHERS {
        set(&store, &key(n), b"small", Some(SOON_MS + 1));
    }
    store.force_cold().expect("it goes cold");
    let damaged = damage_segments(directory.path());
    assert_eq!(expire_listed(&store, SOON_MS + 1), OTHERS);
    assert_eq!(store.len(NAMESPACE), UNREADABLE);
    for (path, bytes) in &damaged {
        std::fs::write(path, bytes).expect("it can be written");
    }
    assert_eq!(expire_listed(&store, SOON_MS + 60_000), UNREADABLE);
}
