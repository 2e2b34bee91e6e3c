//! The disk that everything durable is written to: a data directory, behind a trait.
//!
//! Whatever has to survive a power cut is written through [`Disk`] and [`DiskFile`], and nothing is written any other way.
//! So a simulated disk can take the place of the real one and show what a crash, a full disk or a failed write leaves
//! behind. What the traits promise is what a POSIX file system promises, and no more:
//!
//! * What is written can be read back at once, and survives the end of the process.
//! * It survives a power cut once [`DiskFile::sync`] has returned. Before that any part of it may have, in any order, down to
//!   single sectors.
//! * That a file exists, is gone, or has another name survives once [`Disk::sync_directory`] has returned. Before that each of
//!   these changes may have or not.
//! * After a failed sync nobody knows what has been written, and a second sync that succeeds proves nothing.
//!
//! Cold and warm records are not read through these traits, but by their own ways from [`Disk::path`].

use std::fmt::{self, Debug};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::sys;

/// What is written past the page cache begins and ends at multiples of this: enough for any device.
const UNCACHED_ALIGN_BYTES: usize = 4096;

/// A data directory. Names are those of files directly in it; errors name the file.
pub trait Disk: Send + Sync + Debug {
    /// Makes an empty file, to be read and written.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if there is one, which stays as it is; those of the system.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file to be read and written.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; those of the system.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name; in one step it takes the place of what had that name before.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Whoever has it open can go on using it.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; those of the system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in no order. Names that are not UTF-8 are left out: nobody here made them.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes all creations, removals and renames up to now survive a power cut.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn sync_directory(&self) -> io::Result<()>;

    /// Where a file is found by those who read it by their own means.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file of a [`Disk`]. Several threads may use it at once; errors name it.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length of a file is asked from the system and can fail"
)]
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`; the file grows as needed.
    ///
    /// # Errors
    ///
    /// Those of the system; a part may have been written then.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// As [`Self::write_all_at`], for what nobody is about to read: past the page cache, if the file system allows that and
    /// `bytes`, in memory and in the file, begin and end at multiples of 4 KiB.
    ///
    /// # Errors
    ///
    /// As there.
    fn write_uncached(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    /// Fills `bytes` from `offset`.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file ends before that; those of the system.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file to `len` bytes, or fills it up with zeroes.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Writes what is cached to the device and waits for that, so that [`Self::drop_cached`] can drop it. Cheaper than
    /// [`Self::sync`], and without a promise for after a power cut.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn write_back(&self) -> io::Result<()>;

    /// Makes all that was written up to now, and the length, survive a power cut (`fdatasync`). That the file itself does is
    /// for [`Disk::sync_directory`].
    ///
    /// # Errors
    ///
    /// Those of the system; see [the module](self) on what a failure means.
    fn sync(&self) -> io::Result<()>;

    /// Drops what the page cache holds of the file, as far as it has been written back. A wish, without an answer.
    fn drop_cached(&self);
}

/// The real disk: a directory of the file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    is_read_only: bool,
}

impl Directory {
    /// The directory at `path`, which exists when the first file is made in it.
    pub fn new(path: PathBuf) -> Directory {
        Directory {
            path,
            is_read_only: false,
        }
    }

    /// The directory at `path`, in which nothing is changed: files are opened for reading, and all else is refused.
    pub(crate) fn read_only(path: PathBuf) -> Directory {
        Directory {
            path,
            is_read_only: true,
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.is_read_only {
            true => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        }
    }

    fn opened(&self, name: &str, options: &OpenOptions, doing: &str) -> io::Result<RealFile> {
        let path = self.path(name);
        match options.open(&path) {
            Ok(file) => Ok(RealFile {
                file,
                path,
                uncached: OnceLock::new(),
            }),
            Err(error) => Err(error_at(doing, &path)(error)),
        }
    }
}

impl Disk for Directory {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        self.check_writable()?;
        options.read(true).write(true).create_new(true);
        Ok(Box::new(self.opened(name, &options, "create")?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(!self.is_read_only);
        Ok(Box::new(self.opened(name, &options, "open")?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_writable()?;
        let (from, to) = (self.path(from), self.path(to));
        fs::rename(&from, &to).map_err(|error| {
            let (from, to) = (from.display(), to.display());
            io::Error::new(
                error.kind(),
                format!("cannot rename {from} to {to}: {error}"),
            )
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check_writable()?;
        let path = self.path(name);
        fs::remove_file(&path).map_err(error_at("remove", &path))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let failed = || error_at("list", &self.path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            names.extend(entry.map_err(failed())?.file_name().into_string());
        }
        Ok(names)
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(error_at("sync", &self.path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

struct RealFile {
    file: File,
    path: PathBuf,
    /// The file for writing past the page cache, once that was wanted; `None` if it cannot be had.
    uncached: OnceLock<Option<File>>,
}

impl RealFile {
    fn error(&self, doing: impl fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
        error_at(doing, &self.path)
    }
}

impl DiskFile for RealFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(self.error(format_args!(
            "write {} bytes at offset {offset} of",
            bytes.len()
        )))
    }

    fn write_uncached(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let is_aligned = |at: usize| at.is_multiple_of(UNCACHED_ALIGN_BYTES);
        if [bytes.as_ptr().addr(), bytes.len(), offset as usize]
            .into_iter()
            .all(is_aligned)
            && let Some(file) = self.uncached.get_or_init(|| sys::open_uncached(&self.path))
        {
            match file.write_all_at(bytes, offset) {
                // So this file system does not allow it after all.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                    ) => {}
                written => {
                    let doing = format_args!("write {} bytes at offset {offset} of", bytes.len());
                    return written.map_err(self.error(doing));
                }
            }
        }
        self.write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let len = bytes.len();
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(self.error(format_args!("read {len} bytes at offset {offset} of")))
    }

    fn len(&self) -> io::Result<u64> {
        let metadata = self.file.metadata().map_err(self.error("examine"))?;
        Ok(metadata.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let cut = self.file.set_len(len);
        cut.map_err(self.error(format_args!("set the length to {len} of")))
    }

    fn write_back(&self) -> io::Result<()> {
        sys::write_back(&self.file).map_err(self.error("write back"))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(self.error("sync"))
    }

    fn drop_cached(&self) {
        sys::drop_page_cache(&self.file);
    }
}

/// `cannot <doing> <path>: <the cause>`, of the same kind as the cause.
pub(crate) fn error_at(
    doing: impl fmt::Display,
    path: &Path,
) -> impl FnOnce(io::Error) -> io::Error {
    move |error| {
        let path = path.display();
        io::Error::new(error.kind(), format!("cannot {doing} {path}: {error}"))
    }
}
