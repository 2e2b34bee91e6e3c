//! An operation that stops half-way and is dropped there: it ends where it stands, and nobody waits for it any more.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use hybridlog::{
    ColdReads, KeyRef, LatchMode, Meta, Namespace, Options, Store, Suspended, SyncPolicy,
};

/// Where [`Store::set`] and [`Store::get`] keep their keys.
const NAMESPACE: Namespace = Namespace(0);
/// What hangs fails after this.
const LIMIT: Duration = Duration::from_secs(60);
/// In which a checkpoint would end that did not wait.
const MOMENT: Duration = Duration::from_millis(100);

fn open(directory: &Path) -> Arc<Store> {
    let mut options = Options::new(directory).memory_bytes(32 << 20);
    options.sync = SyncPolicy::Never;
    Store::open(options).expect("the store opens")
}

/// Has stored `one` and is about to store `two`.
fn half_done(store: &Store) -> Suspended {
    let reads = ColdReads::default();
    let keys = [b"one", b"two"].map(|key| KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Exclusive,
    });
    let Ok(mut op) = store.start(store.latching(keys), &reads, 0) else {
        panic!("nobody else has the latches");
    };
    let done = op.set(NAMESPACE, b"one", b"new", Meta::default());
    done.expect("there is room");
    op.suspend()
}

fn is_free(store: &Store, key: &[u8]) -> bool {
    let reads = ColdReads::default();
    let key = KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Exclusive,
    };
    store.operation(&[key], &reads, 0).is_some()
}

fn value(store: &Store, key: &str) -> Option<Vec<u8>> {
    store.get(key.as_bytes()).expect("nothing fails")
}

/// A store on what a crash of the process at this moment would leave.
fn after_crash(directory: &Path) -> (tempfile::TempDir, Arc<Store>) {
    let image = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(directory).expect("the data directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), image.path().join(entry.file_name())).expect("a copy");
    }
    let store = open(image.path());
    (image, store)
}

#[test]
fn what_it_has_done_is_in_the_command_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    store.set(b"one", b"old").expect("there is room");
    store.set(b"two", b"old").expect("there is room");
    let suspended = half_done(&store);
    assert!(!is_free(&store, b"one") && !is_free(&store, b"two"));

    drop(suspended);
    assert!(is_free(&store, b"one") && is_free(&store, b"two"));
    assert_eq!(value(&store, "one").as_deref(), Some(&b"new"[..]));

    // Everything that is in the log by now.
    store.set(b"last", b"there").expect("there is room");
    let reads = ColdReads::default();
    let mut op = store
        .operation(&[], &reads, 0)
        .expect("no latch is asked for");
    op.set_state(b"any").expect("there is room");
    let position = op.finish().expect("it is logged");
    store.wait_durable(position).expect("the log is written");
    let (_image, again) = after_crash(directory.path());
    assert_eq!(value(&again, "one").as_deref(), Some(&b"new"[..]));
    assert_eq!(value(&again, "two").as_deref(), Some(&b"old"[..]));
    assert_eq!(value(&again, "last").as_deref(), Some(&b"there"[..]));
}

#[test]
fn a_checkpoint_waits_for_it_and_not_for_what_has_been_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let suspended = half_done(&store);
    let (saved, is_saved) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let result = store.checkpoint().map(drop);
            saved.send(result).expect("received");
        });
        let early = is_saved.recv_timeout(MOMENT);
        assert_eq!(early, Err(RecvTimeoutError::Timeout));

        drop(suspended);
        let result = is_saved.recv_timeout(LIMIT);
        result
            .expect("the checkpoint ends")
            .expect("and has succeeded");
    });
    // By the checkpoint alone: what it covers is not replayed.
    let (_image, again) = after_crash(directory.path());
    assert_eq!(value(&again, "one").as_deref(), Some(&b"new"[..]));
    assert_eq!(value(&again, "two"), None);
}

#[test]
fn it_may_outlive_its_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let suspended = half_done(&store);
    drop(store);
    drop(suspended);
    // A frame that is appended after the log has ended is lost, as in a crash.
    let store = open(directory.path());
    assert_eq!(value(&store, "two"), None);
    assert!(is_free(&store, b"one"));
}
