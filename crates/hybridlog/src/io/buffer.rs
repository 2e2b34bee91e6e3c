//! Page-aligned buffers that the kernel reads into, and the bounded pool they come from.
//!
//! A pool is one region of memory, fixed for its life so that a ring can register it, cut into
//! slots of two sizes. Reads that are larger, or that find no slot free, get memory of their own
//! for as long as their buffer lives.
#![allow(unsafe_code)] // Memory that the kernel fills, with an alignment and a lifetime of its own.

use std::alloc::{self, Layout};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// Buffers start on a page, which satisfies every device.
const BUFFER_ALIGN: usize = 4096;
/// Slot size for single records; half of the region.
const SMALL_SLOT_BYTES: usize = 4096;
/// Slot size for pages with their neighbours; the other half.
const LARGE_SLOT_BYTES: usize = 16384;

/// The bytes of one read. Gives its memory back to the reader's pool when dropped.
pub struct ReadBuffer {
    start: NonNull<u8>,
    /// How many bytes the read asks for. The memory at `start` is at least as long.
    capacity: usize,
    /// How many bytes from `start` have been written. Nobody but the kernel touches the memory
    /// behind them.
    filled: usize,
    home: Home,
}

/// Where the memory of a buffer goes when the buffer is dropped.
enum Home {
    Slot {
        pool: Arc<BufferPool>,
        offset: u32,
    },
    Own {
        _memory: PageMemory,
        counted_by: Option<Arc<BufferPool>>,
    },
}

// SAFETY: a buffer is the only owner of its slot or memory, and shared access only reads it.
unsafe impl Send for ReadBuffer {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for ReadBuffer {}

impl ReadBuffer {
    /// An empty buffer for `capacity` bytes, with memory of its own.
    pub(super) fn allocate(capacity: usize) -> ReadBuffer {
        let memory = PageMemory::allocate(capacity);
        ReadBuffer {
            start: memory.start,
            capacity,
            filled: 0,
            home: Home::Own {
                _memory: memory,
                counted_by: None,
            },
        }
    }

    /// How many bytes the read asks for.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where the next byte of the read goes, and how many are missing.
    pub(super) fn unfilled(&mut self) -> (*mut u8, usize) {
        // SAFETY: `filled <= capacity`, and the memory at `start` is `capacity` bytes long.
        let next = unsafe { self.start.as_ptr().add(self.filled) };
        (next, self.capacity - self.filled)
    }

    /// Whether the memory lies in the region that a ring may have registered.
    #[cfg(target_os = "linux")]
    pub(super) fn is_slot(&self) -> bool {
        matches!(self.home, Home::Slot { .. })
    }

    /// Takes note that `count` more bytes have been written.
    ///
    /// # Safety
    ///
    /// The first `count` bytes of [`unfilled`](Self::unfilled) have been written, and whoever wrote
    /// them is done with the memory.
    pub(super) unsafe fn advance(&mut self, count: usize) {
        assert!(
            count <= self.capacity - self.filled,
            "a read returned more than it was asked for"
        );
        self.filled += count;
    }

    /// One `pread` of the missing bytes. Returns how many came, 0 at the end of the file.
    pub(super) fn read_more(&mut self, file: &File, offset: u64) -> io::Result<usize> {
        let offset = libc::off_t::try_from(offset)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (next, missing) = self.unfilled();
        // SAFETY: `next` points to `missing` bytes that only this buffer owns.
        let count = unsafe { libc::pread(file.as_raw_fd(), next.cast(), missing, offset) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the call has returned, having written `count` bytes.
        unsafe { self.advance(count) };
        Ok(count)
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `filled` bytes have been written, and nobody writes there while the
        // buffer lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.filled) }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        match &self.home {
            Home::Slot { pool, offset } => pool.give_back(*offset),
            Home::Own {
                counted_by: Some(pool),
                ..
            } => {
                pool.own_bytes.fetch_sub(self.capacity, Relaxed);
            }
            Home::Own {
                counted_by: None, ..
            } => {}
        }
    }
}

impl fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBuffer")
            .field("len", &self.filled)
            .finish_non_exhaustive()
    }
}

/// The buffers of one reader.
pub(super) struct BufferPool {
    region: PageMemory,
    /// Where the small slots end and the large ones begin.
    small_bytes: usize,
    /// Offsets of the free slots, the one used last on top: its cache lines are warm.
    free_small: Mutex<Vec<u32>>,
    free_large: Mutex<Vec<u32>>,
    /// Bytes of buffers that are not slots and have not been dropped.
    own_bytes: AtomicUsize,
}

impl BufferPool {
    /// A pool with a region of `region_bytes`, rounded up to two large slots and at most 1 GiB, the
    /// most that can be registered as one buffer.
    pub(super) fn new(region_bytes: usize) -> Arc<BufferPool> {
        let region_bytes = region_bytes
            .clamp(1, 1 << 30)
            .next_multiple_of(2 * LARGE_SLOT_BYTES);
        let small_bytes = region_bytes / 2;
        let offsets = |from: usize, to: usize, step: usize| {
            (from..to)
                .step_by(step)
                .map(|offset| offset as u32)
                .collect()
        };
        Arc::new(BufferPool {
            region: PageMemory::allocate(region_bytes),
            small_bytes,
            free_small: Mutex::new(offsets(0, small_bytes, SMALL_SLOT_BYTES)),
            free_large: Mutex::new(offsets(small_bytes, region_bytes, LARGE_SLOT_BYTES)),
            own_bytes: AtomicUsize::new(0),
        })
    }

    /// An empty buffer for `capacity` bytes. Never fails and never waits: whoever takes buffers
    /// bounds how many.
    pub(super) fn take(self: &Arc<Self>, capacity: usize) -> ReadBuffer {
        let slot = if capacity <= SMALL_SLOT_BYTES {
            self.free_small.lock().pop()
        } else if capacity <= LARGE_SLOT_BYTES {
            self.free_large.lock().pop()
        } else {
            None
        };
        let Some(offset) = slot else {
            let mut buffer = ReadBuffer::allocate(capacity);
            self.own_bytes.fetch_add(capacity, Relaxed);
            if let Home::Own { counted_by, .. } = &mut buffer.home {
                *counted_by = Some(Arc::clone(self));
            }
            return buffer;
        };
        // SAFETY: the offsets in the free lists lie inside the region, a slot's length before its
        // end.
        let start = unsafe { self.region.start.add(offset as usize) };
        ReadBuffer {
            start,
            capacity,
            filled: 0,
            home: Home::Slot {
                pool: Arc::clone(self),
                offset,
            },
        }
    }

    /// Start and length of the region that all slots lie in. It moves and shrinks never.
    #[cfg(target_os = "linux")]
    pub(super) fn region(&self) -> (*mut u8, usize) {
        (self.region.start.as_ptr(), self.region.layout.size())
    }

    /// Bytes held: the region, and every buffer beside it.
    pub(super) fn memory_bytes(&self) -> usize {
        self.region.layout.size() + self.own_bytes.load(Relaxed)
    }

    fn give_back(&self, offset: u32) {
        let list = if (offset as usize) < self.small_bytes {
            &self.free_small
        } else {
            &self.free_large
        };
        list.lock().push(offset);
    }
}

/// Memory that starts on a page. Its content is undefined until written.
struct PageMemory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory with one owner; who may touch which part is decided by the types above.
unsafe impl Send for PageMemory {}
// SAFETY: as above.
unsafe impl Sync for PageMemory {}

impl PageMemory {
    fn allocate(bytes: usize) -> PageMemory {
        let layout = Layout::from_size_align(bytes.max(1), BUFFER_ALIGN)
            .expect("a buffer is smaller than the address space");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc::alloc(layout) };
        let Some(start) = NonNull::new(start) else {
            alloc::handle_alloc_error(layout)
        };
        PageMemory { start, layout }
    }
}

impl Drop for PageMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `allocate` with this layout, and dropped once.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}
