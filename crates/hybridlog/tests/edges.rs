//! Corners of the engine: records at the very end of a segment, memory that is used up, values as large as can be.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use hybridlog::{BucketIndex, KeyRef, LatchMode, Meta, Namespace, Options, Stop, Store};

const MIB: u64 = 1 << 20;

fn open(directory: &tempfile::TempDir, options: impl FnOnce(&mut Options)) -> Arc<Store> {
    let mut all = Options {
        segment_bytes: Some(1 << 20),
        ..Options::new(directory.path()).memory_bytes(24 * MIB)
    };
    options(&mut all);
    Store::<BucketIndex>::open(all).expect("a fresh directory opens")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// What `body` returns, in a thread of its own: a wait that never ends fails the test instead of hanging it.
fn within<T: Send + 'static>(limit: Duration, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(body()));
    receiver.recv_timeout(limit).expect("it ends")
}

/// A record of 24 bytes can be the last one of its segment. Reading it back cold asked for the 32 bytes that the longest
/// header takes, found the segment's end before that, and called the record damaged.
#[test]
fn a_tiny_record_at_the_end_of_its_segment_is_read_back() {
    let directory = directory();
    let store = open(&directory, |_| {});
    // Records of 24 bytes fill segments of 1 MiB to the last byte.
    let keys: Vec<_> = (0..45_000u64).map(u64::to_be_bytes).collect();
    for key in &keys {
        store.set(key, b"").expect("there is room");
    }
    store.force_cold().expect("segments can be written");
    let all = store.get_many(&keys, |n, value| {
        assert_eq!(value, Some(&b""[..]), "key {n}")
    });
    all.expect("every record can be read");
}

/// Pages of 32 KiB and their headers did not fit twice into a chunk of 64 KiB: half of the log was lost, so that a large
/// value found less room than it had been promised, half-way, again and again.
#[test]
fn the_largest_value_is_stored_whatever_was_there() {
    let directory = directory();
    let store = open(&directory, |_| {});
    for n in 0..40_000u64 {
        store
            .set(&n.to_be_bytes(), &[7; 1000])
            .expect("there is room");
    }
    let value: Vec<u8> = (0..6 * MIB).map(|n| (n * n >> 7) as u8).collect();
    for round in 0..3 {
        let appended = store.stats().appended_bytes;
        let value = within(Duration::from_secs(20), {
            let (store, value) = (store.clone(), value.clone());
            move || store.set(b"large", &value).map(|()| value)
        })
        .unwrap_or_else(|stop| panic!("round {round}: {stop}"));
        assert_eq!(store.get(b"large").expect("readable"), Some(value));
        let appended = store.stats().appended_bytes - appended;
        assert!(appended < 7 * MIB, "{appended} bytes of log for 6 MiB");
    }
}
