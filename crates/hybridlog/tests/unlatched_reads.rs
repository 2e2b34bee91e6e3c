//! Readers without latches beside writers that change values in place, to other lengths, and beside everything else that
//! moves records about.
//!
//! Built with `--cfg planted="torn_reads"`, which takes what was read for true without looking at the version again, it fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use hybridlog::{BucketIndex, DashIndex, Index, Options, Store};

const KEYS: usize = 4;
const ROUNDS: u64 = 150_000;

/// What is known of a key: versions up to `stored` have been stored, none above `begun` has been begun.
#[derive(Default)]
struct Known {
    stored: AtomicU64,
    begun: AtomicU64,
}

/// Keys of several lengths, so that values begin at different places in a word.
fn key(n: usize) -> Vec<u8> {
    vec![b'k'; n + 5]
}

/// The value of a version: its number, then bytes that belong to it alone, of a length that belongs to it too. Some are
/// longer than what is copied without the latch.
fn value(version: u64) -> Vec<u8> {
    let len = match version % 1000 {
        999 => 2000,
        _ => version.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 200,
    };
    let mut value = version.to_le_bytes().to_vec();
    value.resize(8 + len as usize, version as u8);
    value
}

/// Every eighth version of a key is its removal.
fn is_removal(version: u64) -> bool {
    version % 8 == 7
}

fn write<I: Index>(store: &Store<I>, known: &[Known]) {
    for version in 1..=ROUNDS {
        let n = version as usize % KEYS;
        known[n].begun.store(version, Ordering::SeqCst);
        if is_removal(version / KEYS as u64) {
            store.delete(&key(n)).expect("removed");
        } else {
            store.set(&key(n), &value(version)).expect("room");
        }
        known[n].stored.store(version, Ordering::SeqCst);
    }
}

/// Asserts that what was read was there at a time between the two looks at what is known.
fn check(found: Option<&[u8]>, stored_before: u64, begun_after: u64) {
    let Some(found) = found else {
        let possible = (stored_before..=begun_after)
            .any(|version| version == 0 || is_removal(version / KEYS as u64));
        assert!(possible, "absent from {stored_before} to {begun_after}");
        return;
    };
    let version = u64::from_le_bytes(found[..8].try_into().expect("8 bytes"));
    assert!(found == value(version), "torn: {found:?}");
    assert!(
        (stored_before..=begun_after).contains(&version),
        "{version} was read, not one of {stored_before}..={begun_after}"
    );
}

fn read_one_by_one<I: Index>(store: &Store<I>, known: &[Known], is_over: &AtomicBool) {
    let mut buffer = Vec::new();
    for n in (0..KEYS).cycle() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let stored_before = known[n].stored.load(Ordering::SeqCst);
        buffer.clear();
        let found = store.get_into(&key(n), &mut buffer).expect("a read");
        let begun_after = known[n].begun.load(Ordering::SeqCst);
        check(found.then_some(&buffer), stored_before, begun_after);
    }
}

fn read_together<I: Index>(store: &Store<I>, known: &[Known], is_over: &AtomicBool) {
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    while !is_over.load(Ordering::Relaxed) {
        let before: Vec<_> = known
            .iter()
            .map(|known| known.stored.load(Ordering::SeqCst))
            .collect();
        let read = store.get_many(&keys, |n, found| {
            check(found, before[n], known[n].begun.load(Ordering::SeqCst));
        });
        read.expect("reads");
    }
}

fn run<I: Index>() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options {
        segment_bytes: Some(1 << 20),
        ..Options::new(directory.path()).memory_bytes(32 << 20)
    };
    let store = Store::<I>::open(options).expect("a store");
    let known: [Known; KEYS] = Default::default();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (store, known, is_over) = (&*store, &known, &is_over);
        let writer = scope.spawn(|| write(store, known));
        let readers = [
            scope.spawn(|| read_one_by_one(store, known, is_over)),
            scope.spawn(|| read_together(store, known, is_over)),
        ];
        for moves in 0u64.. {
            if writer.is_finished() || readers.iter().any(ScopedJoinHandle::is_finished) {
                break;
            }
            thread::yield_now();
            match moves % 512 {
                0 => store.force_cold().expect("written"),
                256 => store.seal_all().expect("written"),
                _ => {}
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_read_was_there_on_buckets() {
    run::<BucketIndex>();
}

#[test]
fn what_is_read_was_there_on_dashmap() {
    run::<DashIndex>();
}
