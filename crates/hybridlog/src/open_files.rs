//! Files of cold segments, their records' and their keys', that are open for reading: a bounded cache, since a process may have more segments on the device
//! than descriptors.
//!
//! Replacement is a clock: a file that was asked for since the hand last passed it stays. A read in flight holds its file
//! itself, so that taking one out of the cache never disturbs a read.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::RwLock;

use crate::disk::Disk;
use crate::io::{DIRECT_ALIGN, DataFile};
use crate::key_file;
use crate::segment::Segment;
use crate::sys;
use crate::tiering::segment_file_name;

/// Of the descriptors that the process may have, the cache takes this part; the rest is for connections.
const SHARE: u64 = 4;

/// Where the limit of the process says nothing useful: enough for a batch of reads, and no more than pays.
const FILES: std::ops::RangeInclusive<u64> = 8..=4096;

/// Which of a segment's files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum FileKind {
    /// That of its records.
    Records,
    /// Its key file.
    Keys,
}

type FileKey = (u64, FileKind);

pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    limit: usize,
    /// Of the last file that was opened.
    alignment: AtomicU32,
    clock: RwLock<Clock>,
}

#[derive(Default)]
struct Clock {
    files: HashMap<FileKey, Entry>,
    /// The keys of `files`; the hand is at the front.
    ring: VecDeque<FileKey>,
}

struct Entry {
    file: Arc<DataFile>,
    /// Since the hand last passed.
    used: AtomicBool,
}

impl OpenFiles {
    /// A cache for the segments on `disk`, as large as the process's limit of open files allows.
    pub(crate) fn new(disk: Arc<dyn Disk>) -> OpenFiles {
        let limit = (sys::open_files_max() / SHARE).clamp(*FILES.start(), *FILES.end());
        OpenFiles::with_limit(disk, limit as usize)
    }

    fn with_limit(disk: Arc<dyn Disk>, limit: usize) -> OpenFiles {
        OpenFiles {
            disk,
            limit,
            alignment: AtomicU32::new(DIRECT_ALIGN),
            clock: RwLock::default(),
        }
    }

    /// Where a file of a segment is.
    pub(crate) fn path(&self, file_id: u64, kind: FileKind) -> PathBuf {
        self.disk.path(&match kind {
            FileKind::Records => segment_file_name(file_id),
            FileKind::Keys => key_file::file_name(file_id),
        })
    }

    /// The most files that are open beside those that reads hold.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How much has to be read to have `len` bytes at `offset` of a file, as far as is known from files opened before.
    pub(crate) fn read_bytes(&self, offset: usize, len: usize) -> u64 {
        let alignment = self.alignment.load(Ordering::Relaxed) as usize;
        ((offset % alignment + len).next_multiple_of(alignment)) as u64
    }

    /// A file of the segment; opened, which blocks for some ten microseconds, if it is not in the cache.
    pub(crate) fn get(&self, segment: &Segment, kind: FileKind) -> io::Result<Arc<DataFile>> {
        let key = (segment.file_id, kind);
        if let Some(entry) = self.clock.read().files.get(&key) {
            entry.used.store(true, Ordering::Relaxed);
            return Ok(entry.file.clone());
        }
        // Files are opened, and closed, outside the lock. If another thread opens this one too, the later is kept.
        let file = DataFile::open(&self.path(segment.file_id, kind))?;
        self.alignment.store(file.alignment(), Ordering::Relaxed);
        let mut clock = self.clock.write();
        // What is retired has been forgotten or will be, under the same lock: it must not come back.
        if !segment.retired.load(Ordering::Relaxed) {
            let replaced = clock.add(key, file.clone(), self.limit);
            drop(clock);
            drop(replaced);
        }
        Ok(file)
    }

    /// Closes the segment's files once no read has them any more.
    pub(crate) fn forget(&self, file_id: u64) {
        let mut clock = self.clock.write();
        for kind in [FileKind::Records, FileKind::Keys] {
            if clock.files.remove(&(file_id, kind)).is_some() {
                clock.ring.retain(|other| *other != (file_id, kind));
            }
        }
    }
}

impl Clock {
    /// Adds a file and returns the one that has to go for it.
    fn add(&mut self, key: FileKey, file: Arc<DataFile>, limit: usize) -> Option<Entry> {
        let used = AtomicBool::new(false);
        if let Some(earlier) = self.files.insert(key, Entry { file, used }) {
            return Some(earlier);
        }
        let evicted = (self.ring.len() >= limit).then(|| self.evict()).flatten();
        self.ring.push_back(key);
        evicted
    }

    /// Takes out the first file that was not used since the hand last passed; ends within two rounds.
    fn evict(&mut self) -> Option<Entry> {
        while let Some(key) = self.ring.pop_front() {
            let entry = self.files.get_mut(&key)?;
            if !std::mem::take(entry.used.get_mut()) {
                return self.files.remove(&key);
            }
            self.ring.push_back(key);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Geometry;
    use crate::disk::Directory;
    use crate::segment::SegmentTable;
    use std::fs;
    use std::ptr::NonNull;

    /// Where the segments would lie, if they were in memory.
    static NOWHERE: u128 = 0;

    struct Files {
        cache: OpenFiles,
        segments: Vec<Arc<Segment>>,
        _directory: tempfile::TempDir,
    }

    impl Files {
        /// A cache of `limit` files over eight segments.
        fn new(limit: usize) -> Files {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let disk = Arc::new(Directory::new(directory.path().to_path_buf()));
            let cache = OpenFiles::with_limit(disk, limit);
            let table = SegmentTable::new(Geometry::new(1 << 20)).expect("a table");
            let add = |file_id| {
                fs::write(
                    cache.path(file_id, FileKind::Records),
                    [file_id as u8; 4096],
                )
                .expect("a file");
                let segment = table.add(NonNull::from(&NOWHERE).cast(), 0, file_id, 1);
                segment.expect("a number")
            };
            let segments = (0..8).map(add).collect();
            Files {
                cache,
                segments,
                _directory: directory,
            }
        }

        fn get(&self, file_id: u64) -> io::Result<Arc<DataFile>> {
            let segment = &self.segments[file_id as usize];
            self.cache.get(segment, FileKind::Records)
        }

        /// Whether the cache has `file_id` open.
        fn holds(&self, file_id: u64) -> bool {
            let key = (file_id, FileKind::Records);
            self.cache.clock.read().files.contains_key(&key)
        }
    }

    #[test]
    fn never_more_than_the_limit_and_what_is_used_stays() {
        let files = Files::new(3);
        for _ in 0..4 {
            files.get(0).expect("a file");
            for file_id in 1..8 {
                let file = files.get(file_id).expect("a file");
                let read = file.read_at_blocking(0, 512).expect("a read");
                assert_eq!(read[..], [file_id as u8; 512]);
                assert!(files.holds(0), "in use between all others");
                files.get(0).expect("a file");
                let clock = files.cache.clock.read();
                assert!(clock.files.len() <= 3 && clock.ring.len() == clock.files.len());
            }
        }
    }

    #[test]
    fn a_read_keeps_its_file_and_a_forgotten_one_is_closed() {
        let files = Files::new(1);
        let in_flight = files.get(1).expect("a file");
        let held = files.get(2).expect("a file");
        assert!(!files.holds(1));
        fs::remove_file(files.cache.path(1, FileKind::Records)).expect("removed");
        assert_eq!(in_flight.read_at_blocking(0, 512).expect("a read")[0], 1);

        files.segments[2].retired.store(true, Ordering::Relaxed);
        files.cache.forget(2);
        files.cache.forget(2);
        assert_eq!(Arc::strong_count(&held), 1);
        files.get(2).expect("still there");
        assert!(!files.holds(2), "a retired segment does not come back");
        assert!(files.cache.clock.read().ring.is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
        let files = Files::new(2);
        fs::remove_file(files.cache.path(5, FileKind::Records)).expect("removed");
        let error = files.get(5).expect_err("no such file");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let text = error.to_string();
        assert!(text.contains("0000000000000005.seg"), "{text}");
        assert!(!files.holds(5));
    }
}
