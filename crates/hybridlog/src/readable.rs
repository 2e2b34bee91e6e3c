//! A disk as far as it can be read: for those who check a data directory, or repair one. What the device does not give reads
//! as zeroes, which are no record and no block of a log, and the first such place is remembered.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::command_log::{self, Blobs, Logs, Replayed};
use crate::damage::Damage;
use crate::disk::{Disk, DiskFile};

/// Of what the device cannot read no more than this is lost.
const PIECE_BYTES: usize = 4096;

/// What each frame is given to, as [`command_log::replay`] has it.
type Each<'a> = dyn FnMut(u64, &[u8], &mut Blobs<'_>) -> Result<(), String> + 'a;

/// Replays the command logs as far as they are sound and can be read; `Err` inside: the first place where
/// they are not.
///
/// # Errors
///
/// Those of the disk that are not about one place of a file.
pub(crate) fn replay(
    disk: &dyn Disk,
    logs: Logs,
    each: &mut Each<'_>,
) -> io::Result<Result<Replayed, Damage>> {
    let readable = ReadableDisk::new(disk);
    let replayed = match command_log::replay(&readable, logs, each) {
        Ok(replayed) => Ok(replayed),
        Err(error) => match Damage::of(&error) {
            Some(damage) => Err(damage.clone()),
            None => return Err(error),
        },
    };
    let unreadable = readable.unreadable.lock().take();
    let damages = replayed
        .as_ref()
        .err()
        .cloned()
        .into_iter()
        .chain(unreadable);
    // The names of logs are in the order of their generations.
    match damages.min_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset))) {
        Some(first) => Ok(Err(first)),
        None => Ok(replayed),
    }
}

/// Fills `bytes` from `offset` of the file with what can be read, and zeroes; tells `unreadable` where those are, and why.
pub(crate) fn read_readable(
    file: &dyn DiskFile,
    bytes: &mut [u8],
    offset: u64,
    unreadable: &mut dyn FnMut(u64, io::Error),
) {
    if file.read_exact_at(bytes, offset).is_ok() {
        return;
    }
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let to_boundary = PIECE_BYTES - (at % PIECE_BYTES as u64) as usize;
        let (piece, others) = rest.split_at_mut(to_boundary.min(rest.len()));
        if let Err(error) = file.read_exact_at(piece, at) {
            piece.fill(0);
            unreadable(at, error);
        }
        at += piece.len() as u64;
        rest = others;
    }
}

/// Everything but reading is as on the disk itself.
#[derive(Debug)]
pub(crate) struct ReadableDisk<'d> {
    disk: &'d dyn Disk,
    /// The first place that could not be read, of the file whose name comes first.
    unreadable: Arc<Mutex<Option<Damage>>>,
}

impl ReadableDisk<'_> {
    pub(crate) fn new(disk: &dyn Disk) -> ReadableDisk<'_> {
        ReadableDisk {
            disk,
            unreadable: Arc::default(),
        }
    }

    fn readable(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(ReadableFile {
            file,
            path: self.disk.path(name),
            unreadable: self.unreadable.clone(),
        })
    }
}

impl Disk for ReadableDisk<'_> {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.readable(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.readable(name, self.disk.open(name)?))
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

struct ReadableFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    unreadable: Arc<Mutex<Option<Damage>>>,
}

impl DiskFile for ReadableFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        read_readable(&*self.file, bytes, offset, &mut |offset, error| {
            let mut first = self.unreadable.lock();
            let is_first = first
                .as_ref()
                .is_none_or(|first| (&self.path, offset) < (&first.file, first.offset));
            if is_first {
                *first = Some(Damage {
                    file: self.path.clone(),
                    offset,
                    what: error.to_string(),
                });
            }
        });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn write_back(&self) -> io::Result<()> {
        self.file.write_back()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn drop_cached(&self) {
        self.file.drop_cached();
    }
}
