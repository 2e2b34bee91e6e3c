//! What the world does to a store: full disks, directories that vanish, damaged files, other processes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hybridlog::{BucketIndex, Health, OpenError, Options, Stop, Store};

const MIB: u64 = 1 << 20;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn options(directory: &Path) -> Options {
    Options {
        segment_bytes: Some(1 << 20),
        ..Options::new(directory).memory_bytes(12 * MIB)
    }
}

fn open(directory: &Path) -> Result<Arc<Store>, OpenError> {
    Store::<BucketIndex>::open(options(directory))
}

fn segment_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    files.sort();
    files
}

fn value(n: u64) -> Vec<u8> {
    let mut value = n.to_be_bytes().repeat(64);
    value.extend_from_slice(b"end");
    value
}

fn set(store: &Store, n: u64) -> Result<(), Stop> {
    store.set(&n.to_be_bytes(), &value(n))
}

fn assert_readable(store: &Store, numbers: std::ops::Range<u64>) {
    let keys: Vec<_> = numbers.map(u64::to_be_bytes).collect();
    let read = store.get_many(&keys, |at, found| {
        let n = u64::from_be_bytes(keys[at]);
        assert!(found == Some(&value(n)[..]), "key {n}: {found:?}");
    });
    read.expect("reads go on");
}

/// Writes until the store refuses, which it must once nothing leaves memory any more; then lets the world be repaired, and
/// writes again.
fn writes_stop_and_recover(store: &Store, before: u64, repair: impl FnOnce()) {
    let refused = (before..200_000).find_map(|n| set(store, n).err().map(|stop| (n, stop)));
    let (written, stop) = refused.expect("writes are refused when memory is full");
    assert!(matches!(stop, Stop::NoRoom { .. }), "{stop}");
    assert!(store.stats().flush_errors > 0 || store.log_health() != Health::Ok);
    assert_readable(store, 0..written);
    assert_eq!(store.get(&written.to_be_bytes()).expect("a read"), None);
    // What needs no room is done, unless the command log cannot be written either.
    match store.delete(&0u64.to_be_bytes()) {
        Ok(existed) => assert!(existed),
        Err(stop) => assert!(
            matches!(store.log_health(), Health::CannotWrite(_)),
            "{stop}"
        ),
    }

    let flushed = store.stats().written_bytes;
    repair();
    // The first segment that can be written ends the refusal, so it is over when there is a second one.
    let begin = Instant::now();
    while store.stats().written_bytes < flushed + 2 * MIB {
        let set = set(store, 0);
        let waited = begin.elapsed();
        assert!(waited < Duration::from_secs(20), "still refused: {set:?}");
    }
    // It has been deleted, and perhaps it was not written again: what was sealed before may have been enough.
    set(store, 0).expect("key 0 after the repair");
    for n in written..written + 30_000 {
        set(store, n).unwrap_or_else(|stop| panic!("key {n} after the repair: {stop}"));
    }
    assert_readable(store, 0..written + 30_000);
}

#[test]
fn a_directory_that_vanishes_for_a_while_stops_writes_only() {
    let parent = directory();
    let (here, away) = (parent.path().join("data"), parent.path().join("away"));
    let store = open(&here).expect("a fresh directory opens");
    let before = 40_000;
    (0..before).for_each(|n| set(&store, n).expect("there is room"));
    assert!(store.stats().cold_segments > 0, "{:?}", store.stats());
    fs::rename(&here, &away).expect("renamed");
    writes_stop_and_recover(&store, before, || {
        fs::rename(&away, &here).expect("renamed");
    });
}

/// A file system of its own, unmounted in the end.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None` where that is not allowed.
    fn with_bytes(bytes: u64) -> Option<Mounted> {
        let directory = directory();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
        let done = mount.arg(directory.path()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
            .then(|| Mounted(directory))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_full_disk_stops_writes_only() {
    let Some(disk) = Mounted::with_bytes(80 * MIB) else {
        println!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 60 * MIB as usize]).expect("there is space");
    // A command log would take the space before the segments do, and never give it back to them.
    let options = options(disk.0.path()).command_log(false);
    let store = Store::<BucketIndex>::open(options).expect("a fresh directory opens");
    writes_stop_and_recover(&store, 0, || {
        fs::remove_file(&ballast).expect("removed");
    });
    drop(store);
    // A file left half-written by a full disk would be refused or, worse, read one day.
    for file in segment_files(disk.0.path()) {
        assert_eq!(fs::metadata(&file).expect("a file").len(), MIB, "{file:?}");
    }
}

/// The file and the offset at which the record with this value lies.
fn find_record(directory: &Path, key: &[u8], value: &[u8]) -> (PathBuf, usize) {
    let record = [key, value].concat();
    for path in segment_files(directory) {
        let bytes = fs::read(&path).expect("a segment file");
        let found = bytes.windows(record.len()).position(|part| part == record);
        if let Some(at) = found {
            return (path, at - 16);
        }
    }
    panic!("no file has the record");
}

#[test]
fn a_damaged_record_is_an_error_of_its_own_that_says_where() {
    let directory = directory();
    let store = open(directory.path()).expect("a fresh directory opens");
    (0..1000).for_each(|n| set(&store, n).expect("there is room"));
    store.force_cold().expect("segments can be written");
    let key = 500u64.to_be_bytes();
    let (path, at) = find_record(directory.path(), &key, &value(500));
    let sound = fs::read(&path).expect("a segment file");
    // Header, key, value: whatever is hit.
    for damaged_at in [at, at + 6, at + 12, at + 16, at + 30, at + 16 + 8 + 500] {
        let mut damaged = sound.clone();
        damaged[damaged_at] ^= 0x10;
        fs::write(&path, &damaged).expect("written");
        let Err(Stop::Io(error)) = store.get(&key) else {
            panic!("damage at {damaged_at} was not noticed");
        };
        let text = error.to_string();
        let place = format!("{} at offset {at}", path.display());
        assert!(text.contains(&place), "{text:?} does not name {place:?}");
        assert_readable(&store, 0..500);
        assert_readable(&store, 501..1000);
    }
    fs::write(&path, &sound).expect("written");
    assert_readable(&store, 0..1000);
}

#[test]
fn a_file_cut_short_is_an_error_that_names_it() {
    let directory = directory();
    let store = open(directory.path()).expect("a fresh directory opens");
    (0..1000).for_each(|n| set(&store, n).expect("there is room"));
    store.force_cold().expect("segments can be written");
    let (path, at) = find_record(directory.path(), &999u64.to_be_bytes(), &value(999));
    let file = fs::OpenOptions::new().write(true).open(&path);
    file.and_then(|file| file.set_len(at as u64 / 4096 * 4096))
        .expect("cut");
    let Err(Stop::Io(error)) = store.get(&999u64.to_be_bytes()) else {
        panic!("what is not there was read");
    };
    assert!(
        error.to_string().contains(&*path.to_string_lossy()),
        "{error}"
    );
    assert_readable(&store, 0..500);
    // A blind write needs nothing of it.
    set(&store, 999).expect("there is room");
    assert_readable(&store, 999..1000);
}

#[test]
fn a_place_where_no_directory_can_be_is_refused_by_name() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, b"not a directory").expect("written");
    for path in [&file.join("data"), &file, Path::new("/proc/no/data")] {
        match open(path) {
            Err(OpenError::Io(what, _)) => {
                assert!(what.contains(&*path.to_string_lossy()), "{what}");
            }
            other => panic!("{}: {:?}", path.display(), other.map(|_| ())),
        }
    }
    assert_eq!(fs::read(&file).expect("a file"), b"not a directory");
}

#[test]
#[cfg(unix)]
fn a_directory_without_permission_is_refused_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    let mode = |mode| fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode));
    mode(0o555).expect("changed");
    if fs::write(directory.path().join("probe"), b"").is_ok() {
        println!("skipped: permissions do not bind this user");
        return;
    }
    let Err(OpenError::Io(what, _)) = open(directory.path()) else {
        panic!("opened");
    };
    assert!(
        what.contains(&*directory.path().to_string_lossy()),
        "{what}"
    );
    mode(0o755).expect("changed");
}

#[test]
fn data_without_a_manifest_is_refused_and_not_touched() {
    let directory = directory();
    let store = open(directory.path()).expect("a fresh directory opens");
    set(&store, 1).expect("there is room");
    store.seal_all().expect("segments can be written");
    drop(store);
    fs::remove_file(directory.path().join("MANIFEST")).expect("there is one");
    let files = segment_files(directory.path());
    let before: Vec<_> = files
        .iter()
        .map(|file| fs::read(file).expect("a file"))
        .collect();
    for _ in 0..2 {
        match open(directory.path()) {
            Err(OpenError::NoManifest(path)) => assert_eq!(path.parent(), Some(directory.path())),
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
    let after: Vec<_> = files
        .iter()
        .map(|file| fs::read(file).expect("a file"))
        .collect();
    assert!(before == after && segment_files(directory.path()) == files);
}

/// Set for the process that [`a_directory_is_used_by_one_process_at_a_time`] starts.
const CHILD: &str = "HYBRIDLOG_TEST_OPENS";

/// Not a test of its own: what the other process does.
#[test]
fn other_process() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let store = open(Path::new(&directory)).expect("a fresh directory opens");
    set(&store, 1).expect("there is room");
    println!("\nopen");
    std::thread::sleep(Duration::from_secs(60));
}

fn start_other_process(directory: &Path) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["--exact", "other_process", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let is_open = |line: std::io::Result<String>| line.is_ok_and(|line| line == "open");
    assert!(output.lines().any(is_open), "the process ended early");
    child
}

#[test]
fn a_directory_is_used_by_one_process_at_a_time() {
    let directory = directory();
    let refused = || match open(directory.path()) {
        Err(OpenError::InUse(path)) => assert_eq!(path, directory.path()),
        other => panic!("{:?}", other.map(|_| ())),
    };
    let mut child = start_other_process(directory.path());
    refused();
    // A process that is killed takes its lock with it.
    child.kill().expect("killed");
    child.wait().expect("ended");
    let store = open(directory.path()).expect("the lock is gone");
    refused();
    set(&store, 1).expect("there is room");
    drop(store);
    open(directory.path()).expect("nothing was written, and the lock is gone");
}
