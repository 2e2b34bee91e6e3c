//! Epochs: when memory that readers may still see can be given back.
//!
//! Every operation runs pinned; whoever withdraws memory (a frame, a mapping, a segment number) first makes it unreachable
//! and then waits for [`barrier`], which returns when every thread that was pinned when it began has unpinned.
//!
//! Pins are taken by the million a second and barriers passed a few times, so the barrier bears the cost. Both sides have to
//! solve the problem of Dekker's algorithm: a reader writes that it is pinned and then reads pointers, whoever withdraws
//! memory changes pointers and then reads who is pinned, and one of the two must see the other. Processors let a read pass
//! an earlier write unless a fence stands between the two. A pin has none: it is a plain store to a line of the thread's own.
//! Instead the barrier makes the kernel execute one on every processor that runs a thread of this process (membarrier(2);
//! the idea: Desnoyers et al., "User-Level Implementations of Read-Copy Update", TPDS 2012). In the reader's program it
//! falls
//!
//! * after the write: then the barrier sees the pin, and waits for it; or
//! * before the write: then all reads that follow come after the fence, and see the pointers as they were changed.
//!
//! Where the kernel has no such call, every pin executes a fence itself.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::LazyLock;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
use crate::sync::{Mutex, global, planted, sleep, spin_loop, thread_local};
use crate::sys;

/// How often a barrier looks at a pinned thread before it lets others run: most pins end within a microsecond.
const SPINS: u32 = 100;

/// What others see of a thread. Written by that thread alone.
struct State {
    /// How often it has pinned and unpinned: odd while it is pinned.
    changes: AtomicU64,
    /// Pins that it holds, one inside the other.
    depth: AtomicU32,
    /// Whether its pins execute a fence.
    fences: bool,
}

type Pinnable = &'static CachePadded<State>;

/// The states of all threads; those of ended ones are used again.
struct Threads {
    all: Vec<Pinnable>,
    free: Vec<Pinnable>,
}

global! {
    static THREADS: Mutex<Threads> = Mutex::new(Threads {
        all: Vec::new(),
        free: Vec::new(),
    });
}

/// Whether the kernel fences all threads for [`barrier`].
static KERNEL_FENCES: LazyLock<bool> = LazyLock::new(sys::register_process_fence);

thread_local! {
    /// The thread's own state, once it has one. Needs no drop, so that reading it is one instruction.
    static MINE: Cell<Option<Pinnable>> = const { Cell::new(None) };
    /// Gives the state back when the thread ends.
    static RETURN: ReturnState = const { ReturnState };
}

struct ReturnState;

impl Drop for ReturnState {
    fn drop(&mut self) {
        if let Ok(Some(state)) = MINE.try_with(Cell::take) {
            THREADS.lock().free.push(state);
        }
    }
}

#[cold]
fn register() -> Pinnable {
    let mut threads = THREADS.lock();
    let state = threads.free.pop().unwrap_or_else(|| {
        let state: Pinnable = Box::leak(Box::new(CachePadded::new(State {
            changes: AtomicU64::new(0),
            depth: AtomicU32::new(0),
            fences: !*KERNEL_FENCES,
        })));
        threads.all.push(state);
        state
    });
    MINE.with(|mine| mine.set(Some(state)));
    // A thread that pins while its thread-locals are being dropped takes a state with it.
    let _ = RETURN.try_with(|_| ());
    state
}

/// Keeps the thread that made it pinned until it is dropped.
pub(crate) struct Guard {
    state: Pinnable,
    /// Not to be sent to another thread.
    _own: PhantomData<*const ()>,
}

/// Pins the current thread: memory reachable now stays valid until the guard is dropped. Nested pins are cheap.
#[inline]
pub(crate) fn pin() -> Guard {
    let state = MINE.with(Cell::get).unwrap_or_else(register);
    let depth = state.depth.load(Ordering::Relaxed);
    state.depth.store(depth + 1, Ordering::Relaxed);
    if depth == 0 {
        let changes = state.changes.load(Ordering::Relaxed);
        state.changes.store(changes + 1, Ordering::Relaxed);
        // Keeps this store before the reads that follow; pairs with the fences in `barrier`.
        if state.fences {
            fence(Ordering::SeqCst);
        } else {
            compiler_fence(Ordering::SeqCst);
        }
    }
    Guard {
        state,
        _own: PhantomData,
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        let depth = self.state.depth.load(Ordering::Relaxed) - 1;
        self.state.depth.store(depth, Ordering::Relaxed);
        if depth == 0 || planted!("inner_guard_unpins") {
            let changes = self.state.changes.load(Ordering::Relaxed);
            // Release pairs with the Acquire in `barrier`: what this thread did comes before what follows the barrier.
            self.state.changes.store(changes + 1, Ordering::Release);
        }
    }
}

fn is_pinned() -> bool {
    MINE.with(Cell::get)
        .is_some_and(|state| state.depth.load(Ordering::Relaxed) > 0)
}

/// Waits until every thread that was pinned when the call began has unpinned. Must not be called while pinned.
pub(crate) fn barrier() {
    assert!(
        !is_pinned(),
        "an epoch barrier inside a pin would wait for itself"
    );
    // Pair with those of `pin`: they stand between what the caller has changed and the looks at who is pinned.
    fence(Ordering::SeqCst);
    if *KERNEL_FENCES && !planted!("barrier_without_fence") {
        sys::process_fence();
    }
    // A thread that is not among these takes the lock later to become one, and sees after it what the caller has changed.
    let all = THREADS.lock().all.clone();
    for state in all {
        wait_for(state);
    }
}

/// Waits until a thread is not pinned, or has been unpinned in between.
fn wait_for(state: Pinnable) {
    // Acquire, here and below, pairs with the Release of the thread's last unpin.
    let seen = state.changes.load(Ordering::Acquire);
    let still_pinned = || seen % 2 == 1 && state.changes.load(Ordering::Acquire) == seen;
    for _ in 0..SPINS {
        if !still_pinned() {
            return;
        }
        spin_loop();
    }
    let mut pause_us = 1;
    while still_pinned() {
        sleep(Duration::from_micros(pause_us));
        pause_us = (pause_us * 2).min(200);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::thread;

    #[test]
    fn a_barrier_waits_for_who_is_pinned_to_the_last_guard() {
        let [pin_taken, begun, passed] = [const { AtomicBool::new(false) }; 3];
        thread::scope(|scope| {
            scope.spawn(|| {
                let outer = pin();
                let inner = pin();
                pin_taken.store(true, Ordering::SeqCst);
                while !begun.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                drop(outer);
                for _ in 0..1000 {
                    assert!(!passed.load(Ordering::SeqCst), "a guard is left");
                    thread::yield_now();
                }
                drop(inner);
            });
            scope.spawn(|| {
                while !pin_taken.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                begun.store(true, Ordering::SeqCst);
                barrier();
                passed.store(true, Ordering::SeqCst);
            });
        });
        assert!(passed.into_inner());
    }

    /// Two places take turns: one is current, the other is closed after a barrier. Nobody may meet a closed one. Built with
    /// `--cfg planted="barrier_without_fence"` it fails in nearly every run, given two processors.
    #[test]
    fn nobody_finds_what_was_withdrawn_before_a_barrier() {
        let open = [AtomicBool::new(true), AtomicBool::new(false)];
        let (current, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let far_apart: Vec<AtomicU64> = (0..1 << 22).map(AtomicU64::new).collect();
        let look = |n: u64| {
            // Writes that miss the cache hold up the one of the pin, which follows them, and not the reads that follow it.
            for at in 0..8 {
                let place = (n * 8 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 42;
                far_apart[place as usize].store(n, Ordering::Relaxed);
            }
            let _pin = pin();
            // Acquire pairs with the Release below: who finds a place current sees it open.
            let found = current.load(Ordering::Acquire);
            (0..50).all(|_| open[found].load(Ordering::Relaxed))
        };
        let read = || {
            let closed = (0..500_000).filter(|&n| !look(n)).count();
            is_over.store(true, Ordering::Relaxed);
            closed
        };
        thread::scope(|scope| {
            let reader = scope.spawn(read);
            while !is_over.load(Ordering::Relaxed) {
                let old = current.load(Ordering::Relaxed);
                open[1 - old].store(true, Ordering::Relaxed);
                current.store(1 - old, Ordering::Release);
                barrier();
                open[old].store(false, Ordering::Relaxed);
            }
            assert_eq!(reader.join().expect("a reader"), 0, "closed places met");
        });
    }

    #[test]
    fn ended_threads_leave_their_state_to_others() {
        let threads = || THREADS.lock().all.len();
        let before = threads();
        for _ in 0..200 {
            thread::spawn(|| drop(pin())).join().expect("a pin");
        }
        // Other tests may have started some at the same time.
        assert!(threads() < before + 100);
    }
}
