//! Waiting for room in the log, and waking the thread that makes it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// Why there will be no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoomReason {
    /// What is not the log (index, connections) takes so much of the memory that too little is left; or the data files have
    /// reached their limit.
    OutOfMemory,
    /// A segment file cannot be written; the text says which and why. It is tried again from time to time.
    CannotWrite(String),
}

impl std::fmt::Display for NoRoomReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoRoomReason::OutOfMemory => write!(f, "the memory left for the log is too small"),
            NoRoomReason::CannotWrite(why) => write!(f, "{why}"),
        }
    }
}

#[derive(Default)]
pub(crate) struct Room {
    /// The most that anybody waits for, in bytes.
    wanted_bytes: AtomicU64,
    refused: Mutex<Option<NoRoomReason>>,
    /// Counts what the tiering thread has told, for blocking waiters.
    rounds: Mutex<u64>,
    round_over: Condvar,
    pub(crate) notify: Notify,
    /// Whether the tiering thread has been woken since it last looked.
    woken: AtomicBool,
    sleeper: Mutex<bool>,
    wake: Condvar,
}

impl Room {
    /// Notes that `bytes` are wanted and wakes the tiering thread.
    pub(crate) fn want(&self, bytes: u64) {
        self.wanted_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.wake_tiering();
    }

    pub(crate) fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> Option<NoRoomReason> {
        self.refused.lock().clone()
    }

    /// The tiering thread has made what room it could.
    pub(crate) fn round_is_over(&self, refused: Option<NoRoomReason>, satisfied: bool) {
        if satisfied {
            self.wanted_bytes.store(0, Ordering::Relaxed);
        }
        self.tell(refused);
    }

    /// The tiering thread has made some room, and goes on. What it could not do before it can do again.
    pub(crate) fn some_was_made(&self) {
        self.tell(None);
    }

    fn tell(&self, refused: Option<NoRoomReason>) {
        *self.refused.lock() = refused;
        *self.rounds.lock() += 1;
        self.round_over.notify_all();
        self.notify.notify_waiters();
    }

    /// How often the tiering thread has told how it is getting on.
    pub(crate) fn round(&self) -> u64 {
        *self.rounds.lock()
    }

    /// Waits until the tiering thread tells something after `round`, or for `limit`.
    pub(crate) fn wait_for_round_after(&self, round: u64, limit: Duration) {
        let mut rounds = self.rounds.lock();
        self.round_over
            .wait_while_for(&mut rounds, |rounds| *rounds == round, limit);
    }

    pub(crate) fn wake_tiering(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            *self.sleeper.lock() = true;
            self.wake.notify_one();
        }
    }

    /// The tiering thread sleeps until it is woken, or for `limit`.
    pub(crate) fn sleep(&self, limit: Duration) {
        let mut woken = self.sleeper.lock();
        self.wake.wait_while_for(&mut woken, |woken| !*woken, limit);
        *woken = false;
        // Acquire pairs with the Release of whoever woke the thread: it sees what was wanted before.
        self.woken.swap(false, Ordering::AcqRel);
    }

    /// The tiering thread sleeps for `time`, whoever wakes it, unless `stop` says that it has to end.
    pub(crate) fn pause(&self, time: Duration, stop: &dyn Fn() -> bool) {
        let begin = Instant::now();
        while let Some(left) = time.checked_sub(begin.elapsed()).filter(|_| !stop()) {
            self.sleep(left);
        }
    }
}
