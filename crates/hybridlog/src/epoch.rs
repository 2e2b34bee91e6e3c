//! Epochs: when memory that readers may still see can be given back.
//!
//! A thin layer over crossbeam-epoch. Every operation runs pinned; whoever withdraws memory (a frame, a mapping, a
//! segment number) first makes it unreachable and then waits for [`barrier`]. Crossbeam runs deferred work only when
//! somebody flushes, so the barrier drives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use crossbeam_epoch::Guard;

/// Pins the current thread: memory reachable now stays valid until the guard is dropped. Nested pins are cheap.
#[inline]
pub(crate) fn pin() -> Guard {
    crossbeam_epoch::pin()
}

/// Waits until every thread that was pinned when the call began has unpinned. Must not be called while pinned.
pub(crate) fn barrier() {
    assert!(
        !crossbeam_epoch::is_pinned(),
        "an epoch barrier inside a pin would wait for itself"
    );
    let passed = Arc::new(AtomicBool::new(false));
    let signal = passed.clone();
    // Release pairs with the Acquire below: what the unpinned threads did happens before what follows the barrier.
    pin().defer(move || signal.store(true, Ordering::Release));
    let mut pause_us = 1;
    loop {
        pin().flush();
        if passed.load(Ordering::Acquire) {
            return;
        }
        std::thread::sleep(Duration::from_micros(pause_us));
        pause_us = (pause_us * 2).min(200);
    }
}
