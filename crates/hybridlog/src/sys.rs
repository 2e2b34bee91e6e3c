//! Memory from the operating system: reserved ranges, huge pages, file mappings.
#![allow(unsafe_code)] // System calls on raw memory; every pointer handed out stays inside its range.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

use crate::disk::error_at;

/// What huge pages are on the machines this is built for; ranges are aligned to it.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A range of zeroed anonymous memory that takes real memory only where it has been touched.
pub(crate) struct Reservation {
    base: NonNull<u8>,
    bytes: usize,
    mapped: NonNull<u8>,
    mapped_bytes: usize,
}

// SAFETY: the range is plain memory, valid until drop; what may be done with its bytes from which thread is decided by
// the modules that hand out pointers into it.
unsafe impl Send for Reservation {}
// SAFETY: as above; the methods here only read the two fields or call madvise, which is thread-safe.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `bytes` in huge pages, for what will be used densely.
    pub(crate) fn huge(bytes: usize) -> io::Result<Reservation> {
        Self::new(bytes, libc::MADV_HUGEPAGE)
    }

    /// Reserves `bytes` in small pages, for what is used here and there.
    pub(crate) fn sparse(bytes: usize) -> io::Result<Reservation> {
        Self::new(bytes, libc::MADV_NOHUGEPAGE)
    }

    fn new(bytes: usize, advice: libc::c_int) -> io::Result<Reservation> {
        let bytes = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let mapped_bytes = bytes + HUGE_PAGE_BYTES;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = NonNull::new(mapped.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let skip = mapped.align_offset(HUGE_PAGE_BYTES);
        // SAFETY: `skip` is under one huge page, by which the mapping is longer than `bytes`.
        let base = unsafe { mapped.add(skip) };
        advise(base, bytes, advice);
        Ok(Reservation {
            base,
            bytes,
            mapped,
            mapped_bytes,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it begins.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Pointer to `offset`; the caller stays within [`Self::bytes`].
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.bytes);
        // SAFETY: `offset` is inside the mapping, as just checked.
        unsafe { self.base.add(offset) }
    }

    /// Gets the memory of a part now, so that nobody waits for it when it is touched. What a kernel before 5.14 has not done, it
    /// does then.
    pub(crate) fn populate(&self, offset: usize, bytes: usize) {
        assert!(offset + bytes <= self.bytes);
        #[cfg(target_os = "linux")]
        advise(self.at(offset), bytes, libc::MADV_POPULATE_WRITE);
    }

    /// Gives the memory of a part back; it reads as zero when touched again.
    pub(crate) fn release(&self, offset: usize, bytes: usize) {
        assert!(offset + bytes <= self.bytes);
        advise(self.at(offset), bytes, libc::MADV_DONTNEED);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, once.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
    }
}

/// Advice is a wish: a kernel without huge pages ignores it, and nothing depends on the answer but speed.
fn advise(base: NonNull<u8>, bytes: usize, advice: libc::c_int) {
    // SAFETY: the range lies inside a mapping of ours; DONTNEED is only used on memory whose content is given up.
    unsafe { libc::madvise(base.as_ptr().cast(), bytes, advice) };
}

/// A whole file mapped read-only and populated, so that reading it does not fault.
pub(crate) struct FileMapping {
    base: NonNull<u8>,
    bytes: usize,
    file: File,
}

// SAFETY: the mapping is read-only memory over a file that is never written again once it has been mapped.
unsafe impl Send for FileMapping {}
// SAFETY: as above.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    pub(crate) fn new(path: &Path, bytes: usize) -> io::Result<FileMapping> {
        let file = File::open(path).map_err(error_at("open", path))?;
        // SAFETY: a fresh read-only mapping of a file that is `bytes` long; the kernel chooses the address.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED | populate_flag(),
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(error_at("map", path)(io::Error::last_os_error()));
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(FileMapping { base, bytes, file })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// A part of the file.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset <= self.bytes && len <= self.bytes - offset);
        // SAFETY: inside the mapping, as just checked; the file is never written while it is mapped.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) }
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, once; whoever holds a pointer into it holds the mapping or an epoch.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        drop_page_cache(&self.file);
    }
}

/// What is written back at once. A device takes long writes as fast as short ones, but what is read meanwhile waits for them:
/// of reads beside 20 MB written at once one in a thousand took over 2 ms, and beside the same in such parts 0.3 to 0.5.
#[cfg(target_os = "linux")]
const WRITE_BACK_BYTES: u64 = 128 << 10;

/// Writes the cached pages of a file to the device, part after part, and waits for that. The file's metadata may follow later.
pub(crate) fn write_back(file: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        let file_bytes = file.metadata()?.len();
        for at in (0..file_bytes).step_by(WRITE_BACK_BYTES as usize) {
            let (at, part) = (at as libc::off64_t, WRITE_BACK_BYTES as libc::off64_t);
            // SAFETY: no memory is passed.
            if unsafe { libc::sync_file_range(file.as_raw_fd(), at, part, all) } == 0 {
                continue;
            }
            let error = io::Error::last_os_error();
            // Some file systems cannot; they can sync.
            return match error.raw_os_error() {
                Some(libc::ENOSYS | libc::EINVAL) => file.sync_data(),
                _ => Err(error),
            };
        }
        Ok(())
    }
    #[cfg(not(target_os = "linux"))]
    file.sync_data()
}

/// Opens a file to be written past the page cache; `None` where that cannot be done.
pub(crate) fn open_uncached(path: &Path) -> Option<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_DIRECT);
        options.open(path).ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

/// How much less than others a thread that can wait gets of a processor that several want: with this a third.
#[cfg(target_os = "linux")]
const LOWER_PRIORITY: libc::c_int = 5;

/// Lets this thread have less of a processor than others that want it. A wish, without an answer.
pub(crate) fn lower_own_priority() {
    // Elsewhere it would be that of the whole process.
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is passed.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, LOWER_PRIORITY);
    }
}

/// How many files this process may have open.
pub(crate) fn open_files_max() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable and of the type that the call expects.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => limit.rlim_cur,
        _ => 0,
    }
}

/// Makes [`process_fence`] work for this process; `false` where the kernel has none.
pub(crate) fn register_process_fence() -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is passed.
    return unsafe {
        libc::syscall(
            libc::SYS_membarrier,
            libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
            0,
            0,
        ) == 0
    };
    #[cfg(not(target_os = "linux"))]
    false
}

/// Lets every processor that runs a thread of this process execute a full fence. It has been registered.
pub(crate) fn process_fence() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: no memory is passed.
        let done = unsafe {
            libc::syscall(
                libc::SYS_membarrier,
                libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED,
                0,
                0,
            )
        };
        assert!(done == 0, "membarrier: {}", io::Error::last_os_error());
    }
}

/// Asks the kernel to forget the cached pages of a file; they must be clean, else they stay.
pub(crate) fn drop_page_cache(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is passed.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

#[cfg(target_os = "linux")]
fn populate_flag() -> libc::c_int {
    libc::MAP_POPULATE
}

#[cfg(not(target_os = "linux"))]
fn populate_flag() -> libc::c_int {
    0
}

/// Starts loading the cache line at `pointer`; any address is allowed.
#[inline]
pub(crate) fn prefetch(pointer: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, whatever the address, and SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}
