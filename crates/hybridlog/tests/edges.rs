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
        assert_eq!(value, Some(&b""[..]), "key {n}");
    });
    all.expect("every record can be read");
}

/// The budget of segments never fell below the least that the log works with, so an index that outgrew the memory went on
/// growing beside it until it met its own limit and panicked with a bucket latched.
#[test]
fn writes_stop_when_the_index_has_taken_the_memory() {
    let directory = directory();
    let store = open(&directory, |options| options.memory_bytes = 11 * MIB);
    let mut refused = None;
    for n in 0..2_000_000u64 {
        if let Err(stop) = store.set(&n.to_be_bytes(), b"") {
            refused = Some((n, stop));
            break;
        }
    }
    let (written, stop) = refused.expect("memory is used up at some point");
    assert!(matches!(stop, Stop::NoRoom { .. }), "{stop}");
    let stats = store.stats();
    assert!(stats.index_bytes < 11 * MIB, "{stats:?}");
    // What is there can be read, changed where it lies, and removed.
    for n in (0..written).step_by(997) {
        assert!(store.get(&n.to_be_bytes()).expect("readable").is_some());
    }
    assert!(store.delete(&0u64.to_be_bytes()).expect("removable"));
    // More memory, as far as was said when it was opened, lets writes go on; beyond that the index could not grow.
    store.set_memory_bytes(1 << 40);
    assert!(
        store.set(b"key", b"value").is_err(),
        "no more than memory_max_bytes"
    );
}

#[test]
fn writes_go_on_when_memory_is_raised() {
    let directory = directory();
    let store = open(&directory, |options| {
        options.memory_bytes = 11 * MIB;
        options.memory_max_bytes = 64 * MIB;
    });
    let refused = (0..2_000_000u64).find(|n| store.set(&n.to_be_bytes(), b"").is_err());
    assert!(refused.is_some(), "memory is used up at some point");
    store.set_memory_bytes(32 * MIB);
    store.set(b"key", b"value").expect("there is room again");
}

/// A value that is not over the limit, but longer than what memory can ever hold free at once, was waited for forever.
#[test]
fn a_value_that_never_fits_is_refused() {
    let directory = directory();
    let store = open(&directory, |options| options.reserved_bytes = 13 * MIB);
    let result = within(Duration::from_secs(20), {
        let store = store.clone();
        move || store.set(b"large", &vec![1; 6 * MIB as usize - 1])
    });
    assert!(matches!(result, Err(Stop::NoRoom { .. })), "{result:?}");
    assert_eq!(store.get(b"large").expect("readable"), None);
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
    let value: Vec<u8> = (0..6 * MIB).map(|n| (n * n % 251) as u8).collect();
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

/// The sweep fetched what was cold once, but a record with a long key takes a second, longer read.
#[test]
fn clearing_a_namespace_finds_cold_records_with_long_keys() {
    let directory = directory();
    let store = open(&directory, |_| {});
    let (namespace, key) = (Namespace(5), vec![b'k'; 100_000]);
    let key_ref = |mode| KeyRef {
        namespace,
        key: &key,
        mode,
    };
    let set = store.blocking(&[key_ref(LatchMode::Exclusive)], 0, |op| {
        op.set(namespace, &key, b"value", Meta::default())
    });
    set.expect("there is room");
    store.force_cold().expect("segments can be written");
    store.clear(namespace);
    let found = store.blocking(&[key_ref(LatchMode::Shared)], 0, |op| {
        Ok(op.read(namespace, &key)?.is_some())
    });
    assert!(!found.expect("readable"), "cleared");
    assert_eq!(store.stats().index_slots, 0);
}

/// The end of time means "no expiry" on the device, but was counted as one.
#[test]
fn an_expiry_at_the_end_of_time_is_none() {
    let directory = directory();
    let store = open(&directory, |_| {});
    let meta = Meta {
        kind: 0,
        expires_at_ms: Some(u64::MAX),
    };
    store
        .set_with(b"key", b"value", meta)
        .expect("there is room");
    assert_eq!(store.expiring(Namespace(0)), 0);
    store.delete(b"key").expect("removable");
    assert_eq!(store.expiring(Namespace(0)), 0);
}

#[test]
fn options_out_of_any_range_are_refused() {
    let directory = directory();
    for (memory_bytes, reserved_bytes) in
        [(u64::MAX, 0), (64 * MIB, u64::MAX), (0, 0), (1 << 60, 0)]
    {
        let options = Options {
            reserved_bytes,
            ..Options::new(directory.path()).memory_bytes(memory_bytes)
        };
        let opened = Store::<BucketIndex>::open(options);
        assert!(opened.is_err(), "{memory_bytes} {reserved_bytes}");
    }
}

/// An operation is only safe on keys it has latched; asking it about others must not go unnoticed.
#[test]
fn an_operation_refuses_keys_that_it_has_not_latched() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options).expect("a fresh directory opens");
    let key = |key, mode| KeyRef {
        namespace: Namespace(0),
        key,
        mode,
    };
    let refused = |keys: &[KeyRef<'_>], body: &dyn Fn(&mut hybridlog::Operation<'_>)| {
        let reads = hybridlog::ColdReads::default();
        let mut operation = store
            .operation(keys, &reads, 0)
            .expect("nobody else is here");
        let body = std::panic::AssertUnwindSafe(|| body(&mut operation));
        std::panic::catch_unwind(body).is_err()
    };
    let shared = [key(b"a", LatchMode::Shared), key(b"b", LatchMode::Shared)];
    let exclusive = [key(b"a", LatchMode::Exclusive)];
    let set = |operation: &mut hybridlog::Operation<'_>| {
        operation
            .set(Namespace(0), b"a", b"value", Meta::default())
            .expect("set");
    };
    let read = |operation: &mut hybridlog::Operation<'_>| {
        operation.read(Namespace(0), b"a").expect("read");
    };
    assert!(!refused(&exclusive, &set) && !refused(&exclusive, &read));
    assert!(!refused(&shared, &read) && refused(&shared, &set));
    assert!(refused(&[], &read) && refused(&[], &set));
}
