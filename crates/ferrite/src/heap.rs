//! The heap: the C library's allocator, and a count of what it has given out.
//!
//! `maxmemory` bounds the whole process, so the engine has to know what everything else takes, at the moment it takes it.
//! Counting in the allocator forgets nothing: buffers, connections, logs and tables are all in it.
#![allow(unsafe_code)] // An allocator is unsafe by nature, and so is setting one up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

/// Threads count in different places, so that a count costs no shared cache line.
const COUNTERS: usize = 16;

/// Blocks of this size and more are mappings of their own, which are given back to the system when they are freed: buffers
/// for one page of a large value and up. The C library would raise it to the size of whatever such block is freed, and keep
/// everything below.
const MAPPED_BYTES: libc::c_int = 32 * 1024;

/// Freed memory at the end of an arena is given back once it is this much.
const TRIM_BYTES: libc::c_int = 256 * 1024;

/// Bytes given out less bytes taken back, by thread; one counter alone may be below zero (and wrap), the sum is not.
static COUNTS: [CachePadded<AtomicU64>; COUNTERS] =
    [const { CachePadded::new(AtomicU64::new(0)) }; COUNTERS];

/// The system's allocator, counted.
struct Counted;

#[global_allocator]
static HEAP: Counted = Counted;

/// Bytes of heap in use.
pub(crate) fn bytes() -> u64 {
    let sum = COUNTS
        .iter()
        .fold(0u64, |sum, count| sum.wrapping_add(count.load(Relaxed)));
    // The counters are read one after the other: a block may be seen freed and not yet given out.
    u64::try_from(sum as i64).unwrap_or(0)
}

/// Sets the allocator up for `threads` threads that allocate much. Must be called before they start.
pub(crate) fn set_up(threads: usize) {
    #[cfg(target_env = "gnu")]
    {
        let arenas = libc::c_int::try_from(threads).unwrap_or(libc::c_int::MAX);
        for (option, value) in [
            (libc::M_ARENA_MAX, arenas),
            (libc::M_MMAP_THRESHOLD, MAPPED_BYTES),
            (libc::M_TRIM_THRESHOLD, TRIM_BYTES),
        ] {
            // SAFETY: no pointers; a value that the library does not like is ignored.
            unsafe { libc::mallopt(option, value) };
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (threads, MAPPED_BYTES, TRIM_BYTES);
}

/// Gives free memory inside the arenas back to the system; takes some 10 microseconds a MiB.
pub(crate) fn give_back_free() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; safe from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[inline]
fn count(bytes: u64) {
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Neither initialised at run time nor dropped, so it can be used in an allocator, to the very end of a thread.
    let mine = MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed) % COUNTERS);
        }
        mine.get()
    });
    COUNTS[mine].fetch_add(bytes, Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches nothing but atomics.
unsafe impl GlobalAlloc for Counted {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            count(layout.size() as u64);
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same, and the block came from there.
        unsafe { System.dealloc(block, layout) }
        // Only now: giving a large block back takes milliseconds, in which others must not take its memory for free.
        count((layout.size() as u64).wrapping_neg());
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            count(layout.size() as u64);
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are the same, and the block came from there.
        let moved = unsafe { System.realloc(block, layout, size) };
        // Refused, the block stays as it is.
        if !moved.is_null() {
            count((size as u64).wrapping_sub(layout.size() as u64));
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_taken_and_given_back_is_counted() {
        // Other tests allocate meanwhile, but not as much.
        const BYTES: usize = 1 << 30;
        let before = super::bytes();
        let block: Vec<u8> = Vec::with_capacity(BYTES);
        let with_block = super::bytes();
        assert!(
            with_block > before + BYTES as u64 / 2,
            "{before}, then {with_block}"
        );
        drop(block);
        let after = super::bytes();
        assert!(
            after < with_block - BYTES as u64 / 2,
            "{with_block}, then {after}"
        );
    }

    #[test]
    fn what_is_refused_is_not_counted() {
        // More than there are addresses.
        const BYTES: usize = 1 << 60;
        let before = super::bytes();
        let mut block: Vec<u8> = Vec::new();
        assert!(block.try_reserve_exact(BYTES).is_err());
        block.push(1);
        assert!(block.try_reserve_exact(BYTES).is_err());
        let after = super::bytes();
        assert!(after < before + BYTES as u64 / 2, "{before}, then {after}");
    }
}
