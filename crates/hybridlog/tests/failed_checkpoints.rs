//! Checkpoints that fail half-way: nothing is lost, nothing comes back, and the next one makes up for them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hybridlog::disk::{Directory, Disk, DiskFile};
use hybridlog::{BucketIndex, Health, Namespace, Options, Store, SyncPolicy};
use parking_lot::Mutex;

/// The real disk, on which no file can be made whose name ends so.
#[derive(Debug)]
struct Refusing {
    disk: Directory,
    suffix: Mutex<Option<&'static str>>,
}

impl Refusing {
    fn new(directory: &Path) -> Arc<Refusing> {
        Arc::new(Refusing {
            disk: Directory::new(directory.to_owned()),
            suffix: Mutex::default(),
        })
    }

    fn refuse(&self, suffix: Option<&'static str>) {
        *self.suffix.lock() = suffix;
    }
}

impl Disk for Refusing {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        if self.suffix.lock().is_some_and(|end| name.ends_with(end)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

fn options(directory: &Path, disk: &Arc<Refusing>) -> Options {
    let mut options = Options::new(directory).memory_bytes(32 << 20);
    options.segment_bytes = Some(1 << 20);
    options.sync = SyncPolicy::Never;
    options.disk = Some(disk.clone());
    options
}

#[test]
fn what_was_deleted_before_a_failed_checkpoint_stays_deleted() {
    for (suffix, logged) in [
        (".log", true),
        (".seg", true),
        (".seg", false),
        (".keys", false),
        (".deaths", true),
        ("MANIFEST.new", true),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = Refusing::new(directory.path());
        let mut options = options(directory.path(), &disk);
        options.command_log = logged;
        let store = Store::<BucketIndex>::open(options.clone()).expect("the store opens");
        for key in [&b"kept"[..], b"deleted", b"changed"] {
            store.set(key, b"old").unwrap();
        }
        store.checkpoint().unwrap();
        assert!(store.delete(b"deleted").unwrap());
        store.set(b"changed", b"new").unwrap();
        disk.refuse(Some(suffix));
        for _ in 0..3 {
            store.checkpoint().expect_err(suffix);
        }
        disk.refuse(None);
        store.checkpoint().expect(suffix);
        drop(store);
        let store = Store::<BucketIndex>::open(options).expect("the store opens again");
        assert_eq!(store.get(b"kept").unwrap().as_deref(), Some(&b"old"[..]));
        assert_eq!(store.get(b"deleted").unwrap(), None, "{suffix}");
        assert_eq!(store.get(b"changed").unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(store.len(Namespace::default()), 2, "{suffix}");
    }
}

#[test]
fn a_log_that_could_not_begin_begins_when_it_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Refusing::new(directory.path());
    let options = options(directory.path(), &disk);
    let store = Store::<BucketIndex>::open(options.clone()).expect("the store opens");
    store.set(b"key", b"old").unwrap();
    disk.refuse(Some(".log"));
    store.checkpoint().expect_err("there is no room for a log");
    assert!(matches!(store.log_health(), Health::CannotWrite(_)));
    assert!(store.set(b"key", b"refused").is_err());
    disk.refuse(None);
    while store.log_health() != Health::Ok {
        std::thread::yield_now();
    }
    store.set(b"key", b"new").unwrap();
    drop(store);
    let store = Store::<BucketIndex>::open(options).expect("the store opens again");
    assert_eq!(store.get(b"key").unwrap().as_deref(), Some(&b"new"[..]));
}
