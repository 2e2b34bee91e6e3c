//! More cold segments than the process may have files open.
#![cfg(target_os = "linux")]

use std::fs;

use hybridlog::{BucketIndex, Options, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that this process may have open: with what a test has open anyway, far fewer than there are segments.
const OPEN_FILES_MAX: u64 = 64;
const SEGMENTS: u64 = 100;
const VALUE_BYTES: usize = 30_000;

fn value(n: u64) -> Vec<u8> {
    let mut value = vec![n as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&n.to_be_bytes());
    value
}

fn open_files() -> usize {
    let files = fs::read_dir("/proc/self/fd").expect("a list of open files");
    files.count()
}

#[test]
fn cold_segments_are_read_with_few_files_open() {
    let limit = Rlimit {
        current: Some(OPEN_FILES_MAX),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options {
        segment_bytes: Some(1 << 20),
        ..Options::new(directory.path()).memory_bytes(12 << 20)
    };
    let store = Store::<BucketIndex>::open(options).expect("a store");

    let keys = SEGMENTS * (1 << 20) / VALUE_BYTES as u64;
    for n in 0..keys {
        store.set(&n.to_be_bytes(), &value(n)).expect("room");
    }
    store.force_cold().expect("written");
    assert!(store.stats().cold_segments >= SEGMENTS - 2);

    // Each key lies in another segment than the one before; then a batch whose keys lie in all of them.
    let spread: Vec<_> = (0..keys).map(|n| (n * 41 % keys).to_be_bytes()).collect();
    for key in &spread {
        let n = u64::from_be_bytes(*key);
        let read = store.get(key).expect("a read");
        assert!(read == Some(value(n)), "key {n}");
    }
    store.force_cold().expect("written");
    let mut read = 0;
    let all = store.get_many(&spread, |at, found| {
        let n = u64::from_be_bytes(spread[at]);
        assert!(found == Some(&value(n)[..]), "key {n}");
        read += 1;
    });
    all.expect("reads");
    assert_eq!(read, keys);
    assert!(open_files() < OPEN_FILES_MAX as usize);
}
