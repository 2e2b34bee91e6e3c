//! A data file opened for reads past the page cache.
#![allow(unsafe_code)] // fadvise and statx have no safe form in std.

use std::fs::{File, OpenOptions};
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::buffer::ReadBuffer;

/// The alignment of direct reads, in bytes: that of every device with 512-byte logical blocks.
pub const DIRECT_ALIGN: u32 = 512;

/// A file opened for direct reads, shared with every read in flight on it.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    path: PathBuf,
    /// The alignment of direct reads; `None` where the file system refuses them.
    direct: Option<u32>,
}

impl DataFile {
    /// Opens `path` for direct reads, or for buffered ones where its file system refuses direct
    /// reads; see [`is_direct`](Self::is_direct).
    ///
    /// # Errors
    ///
    /// Those of the system, and `InvalidInput` for what is not a regular file; both name the path.
    pub fn open(path: &Path) -> io::Result<Arc<DataFile>> {
        let at_path = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("cannot open {}: {error}", path.display()),
            )
        };
        let (file, direct) = open_direct(path).map_err(at_path)?;
        if !file.metadata().map_err(at_path)?.is_file() {
            return Err(at_path(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            )));
        }
        Ok(DataFile::new(file, path, direct))
    }

    /// An opened file, whose reads need the alignment `direct` if they are direct.
    pub(super) fn new(file: File, path: &Path, direct: Option<u32>) -> Arc<DataFile> {
        let data_file = DataFile {
            file,
            path: path.to_path_buf(),
            direct,
        };
        if !data_file.is_direct() {
            data_file.keep_uncached();
        }
        Arc::new(data_file)
    }

    /// Whether reads bypass the page cache. If not, each read drops the pages it has brought in. On
    /// systems other than Linux, reads are never direct and the page cache is left to itself.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// What offsets and lengths of reads must be multiples of: [`DIRECT_ALIGN`], or more on a
    /// device with larger blocks.
    pub fn alignment(&self) -> u32 {
        self.direct.unwrap_or(DIRECT_ALIGN)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads `len` bytes from `offset`, both multiples of [`alignment`](Self::alignment), into
    /// memory of their own.
    ///
    /// # Errors
    ///
    /// Those of the system; `UnexpectedEof` when the file ends before `offset + len`.
    pub fn read_at_blocking(&self, offset: u64, len: usize) -> io::Result<ReadBuffer> {
        let mut buffer = ReadBuffer::allocate(len);
        self.read_into(&mut buffer, offset)?;
        Ok(buffer)
    }

    /// Fills the empty `buffer` from `offset`.
    pub(super) fn read_into(&self, buffer: &mut ReadBuffer, offset: u64) -> io::Result<()> {
        let len = buffer.capacity();
        while buffer.len() < len {
            match buffer.read_more(&self.file, offset + buffer.len() as u64) {
                Ok(count) if self.ends_after(count) && buffer.len() < len => {
                    return Err(self.read_error(offset, len, &end_of_file()));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(offset, len, &error)),
            }
        }
        self.after_read(offset, len);
        Ok(())
    }

    /// Whether a read that returned fewer bytes than it was asked for, namely `count`, has met the
    /// end of the file. A direct read stops inside a block nowhere else, and could not be continued
    /// from there.
    pub(super) fn ends_after(&self, count: usize) -> bool {
        count == 0 || self.is_direct() && !count.is_multiple_of(DIRECT_ALIGN as usize)
    }

    /// To be called after every read: a buffered file gives back the pages that the read has
    /// brought in.
    pub(super) fn after_read(&self, offset: u64, len: usize) {
        if !self.is_direct() {
            self.drop_cached(offset, len);
        }
    }

    /// `cause`, with the place it happened at.
    pub(super) fn read_error(&self, offset: u64, len: usize, cause: &io::Error) -> io::Error {
        let path = self.path.display();
        io::Error::new(
            cause.kind(),
            format!("cannot read {len} bytes at offset {offset} of {path}: {cause}"),
        )
    }

    #[cfg(target_os = "linux")]
    pub(super) fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }

    /// Drops all pages that are cached, now, because single reads cannot drop their part of a large
    /// one, and makes reads bring in no more pages than they need.
    #[cfg(target_os = "linux")]
    fn keep_uncached(&self) {
        self.advise(0, 0, libc::POSIX_FADV_DONTNEED);
        self.advise(0, 0, libc::POSIX_FADV_RANDOM);
    }

    #[cfg(target_os = "linux")]
    fn drop_cached(&self, offset: u64, len: usize) {
        // Only pages that lie whole inside the range are dropped, so the range is widened to pages.
        const PAGE_BYTES: u64 = 4096;
        let start = offset - offset % PAGE_BYTES;
        let end = (offset + len as u64).next_multiple_of(PAGE_BYTES);
        self.advise(start, end - start, libc::POSIX_FADV_DONTNEED);
    }

    /// Advice only: the kernel may refuse it, and nothing depends on it but memory use.
    #[cfg(target_os = "linux")]
    fn advise(&self, start: u64, len: u64, advice: libc::c_int) {
        // SAFETY: the descriptor is open, and the call touches no memory of ours.
        unsafe {
            libc::posix_fadvise(
                self.file.as_raw_fd(),
                start as libc::off_t,
                len as libc::off_t,
                advice,
            )
        };
    }

    #[cfg(not(target_os = "linux"))]
    fn keep_uncached(&self) {}

    #[cfg(not(target_os = "linux"))]
    fn drop_cached(&self, _offset: u64, _len: usize) {}
}

/// A file of one block that vanishes when closed, to try direct reads in `directory`.
#[cfg(target_os = "linux")]
pub(super) fn create_probe_file(directory: &Path) -> io::Result<Arc<DataFile>> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE);
    let mut file = options.open(directory)?;
    file.write_all(&[0; 4096])?;
    file.sync_data()?;
    let (file, direct) = open_direct(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
    Ok(DataFile::new(file, directory, direct))
}

/// The cause when a file is shorter than what is asked of it.
pub(super) fn end_of_file() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends there")
}

/// Opens for direct reads and says what alignment they need, or, with `None`, for buffered ones.
#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> io::Result<(File, Option<u32>)> {
    use std::os::unix::fs::OpenOptionsExt;
    match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
    {
        Ok(file) => match direct_alignment(&file) {
            Some(alignment) => Ok((file, Some(alignment))),
            None => Ok((OpenOptions::new().read(true).open(path)?, None)),
        },
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok((OpenOptions::new().read(true).open(path)?, None))
        }
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_direct(path: &Path) -> io::Result<(File, Option<u32>)> {
    Ok((OpenOptions::new().read(true).open(path)?, None))
}

/// The alignment of direct reads of `file`, `None` when they do not work although the open allowed
/// them. Where the kernel (before 6.1) or the file system does not tell, [`DIRECT_ALIGN`].
#[cfg(target_os = "linux")]
fn direct_alignment(file: &File) -> Option<u32> {
    // SAFETY: statx is plain integers, for which zero bytes are valid.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the empty path is a C string that outlives the call, and
    // `status` is writable.
    let answer = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut status,
        )
    };
    if answer != 0 || status.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Some(DIRECT_ALIGN);
    }
    (status.stx_dio_offset_align != 0).then(|| status.stx_dio_offset_align.max(DIRECT_ALIGN))
}
