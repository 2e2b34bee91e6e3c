//! Key latches: striped reader-writer latches with a version each.
//!
//! A command holds the latches of its keys while it runs and lets go of them before it waits for anything. Latches are
//! only ever tried, never waited for inside the engine, so no order of acquisition can deadlock.
//!
//! A latch is one word: reader count in bits 0..32, writer in bit 32, version above. Releasing a write latch adds
//! `1 << 32`: the carry out of the set writer bit clears it and increments the version in one step.

use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{planted, spin_loop};
use crate::sys::prefetch;

const STRIPES: usize = 16 * 1024;
const READER: u64 = 1;
const WRITER: u64 = 1 << 32;
const READERS: u64 = WRITER - 1;

/// About a microsecond of spinning: what a latch is held for by a command on hot data.
const SPINS: u32 = 64;

/// How an operation latches a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LatchMode {
    /// The key is only read.
    Shared,
    /// The key may be changed.
    Exclusive,
}

/// Tells whether a stripe has been latched exclusively in between: see [`Latches::version`].
#[derive(Clone, Copy)]
pub(crate) struct Version(u64);

pub(crate) struct Latches {
    stripes: Box<[AtomicU64]>,
}

impl Latches {
    pub(crate) fn new() -> Latches {
        Latches {
            stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The stripe of a key hash. Uses other bits than the index takes first, so that one bucket's keys spread.
    #[inline]
    pub(crate) fn stripe(hash: u64) -> u32 {
        (hash >> 50) as u32 & (STRIPES as u32 - 1)
    }

    /// Starts loading a stripe.
    #[inline]
    pub(crate) fn prefetch(&self, stripe: u32) {
        prefetch(std::ptr::from_ref(&self.stripes[stripe as usize]).cast());
    }

    pub(crate) fn stripes() -> u32 {
        STRIPES as u32
    }

    /// Takes the latch, spinning for about a microsecond at most.
    #[inline]
    pub(crate) fn try_acquire(&self, stripe: u32, mode: LatchMode) -> bool {
        let latch = &self.stripes[stripe as usize];
        try_once(latch, mode) || spin(latch, mode)
    }

    /// How often the stripe has been latched exclusively; `None` while it is.
    #[inline]
    pub(crate) fn version(&self, stripe: u32) -> Option<Version> {
        // Acquire pairs with the Release of the last writer: who knows the version sees all that led to it.
        let latch = self.stripes[stripe as usize].load(Ordering::Acquire);
        (latch & WRITER == 0).then_some(Version(latch & !READERS))
    }

    /// Whether no writer has latched the stripe since it had `version`. `false` is also the answer if anything that was
    /// read before this call was stored by one who has.
    #[inline]
    pub(crate) fn is_unchanged(&self, stripe: u32, version: Version) -> bool {
        // Keeps all earlier loads before the one below; pairs with the fence in `try_exclusive`.
        fence(Ordering::Acquire);
        let latch = self.stripes[stripe as usize].load(Ordering::Relaxed);
        latch & !READERS == version.0
    }

    /// Lets go of a latch taken in `mode`.
    #[inline]
    pub(crate) fn release(&self, stripe: u32, mode: LatchMode) {
        let latch = &self.stripes[stripe as usize];
        match mode {
            // Release pairs with the Acquire of the next writer: what was read stays before what it writes.
            LatchMode::Shared => latch.fetch_sub(READER, Ordering::Release),
            // Release pairs with the Acquire of the next holder, which sees all that was written.
            LatchMode::Exclusive => latch.fetch_add(WRITER, Ordering::Release),
        };
    }
}

#[inline]
fn try_once(latch: &AtomicU64, mode: LatchMode) -> bool {
    match mode {
        LatchMode::Shared => try_shared(latch),
        LatchMode::Exclusive => try_exclusive(latch),
    }
}

#[cold]
fn spin(latch: &AtomicU64, mode: LatchMode) -> bool {
    (0..SPINS).any(|_| {
        spin_loop();
        try_once(latch, mode)
    })
}

#[inline]
fn try_shared(latch: &AtomicU64) -> bool {
    if latch.load(Ordering::Relaxed) & WRITER != 0 {
        return false;
    }
    // Acquire pairs with a writer's Release.
    if latch.fetch_add(READER, Ordering::Acquire) & WRITER == 0 {
        return true;
    }
    latch.fetch_sub(READER, Ordering::Relaxed);
    false
}

#[inline]
fn try_exclusive(latch: &AtomicU64) -> bool {
    let seen = latch.load(Ordering::Relaxed);
    let others = if planted!("writers_overlook_readers") {
        WRITER
    } else {
        WRITER | READERS
    };
    // Acquire pairs with the Release of readers and of the last writer.
    let is_taken = seen & others == 0
        && latch
            .compare_exchange(seen, seen | WRITER, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
    // Keeps the latch before what is stored under it; pairs with the fence in `is_unchanged`.
    fence(Ordering::Release);
    is_taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_writers_exclude() {
        let latches = Latches::new();
        assert!(latches.try_acquire(7, LatchMode::Shared));
        assert!(latches.try_acquire(7, LatchMode::Shared));
        assert!(!latches.try_acquire(7, LatchMode::Exclusive));
        latches.release(7, LatchMode::Shared);
        latches.release(7, LatchMode::Shared);
        assert!(latches.try_acquire(7, LatchMode::Exclusive));
        assert!(!latches.try_acquire(7, LatchMode::Shared));
        assert!(latches.try_acquire(8, LatchMode::Exclusive));
        latches.release(7, LatchMode::Exclusive);
        assert!(latches.try_acquire(7, LatchMode::Shared));
    }

    #[test]
    fn increments_under_the_exclusive_latch_are_not_lost() {
        let latches = Latches::new();
        let counter = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        while !latches.try_acquire(0, LatchMode::Exclusive) {
                            std::thread::yield_now();
                        }
                        // Two separate relaxed steps: only the latch makes them one.
                        let seen = counter.load(Ordering::Relaxed);
                        counter.store(seen + 1, Ordering::Relaxed);
                        latches.release(0, LatchMode::Exclusive);
                    }
                });
            }
        });
        assert_eq!(counter.into_inner(), 80_000);
    }
}
