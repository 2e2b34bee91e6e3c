//! CLIENT PAUSE: commands wait until a deadline or CLIENT UNPAUSE.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::server::unix_ms;

/// What is paused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Paused {
    Nothing = 0,
    /// Commands that may change data.
    Writes = 1,
    /// All commands.
    All = 2,
}

/// The pause in force, if any.
pub(crate) struct Pause {
    /// A [`Paused`], looked at before every command.
    paused: AtomicU8,
    state: Mutex<State>,
    ended: Notify,
}

struct State {
    paused: Paused,
    until_ms: u64,
}

impl Default for Pause {
    fn default() -> Self {
        Pause {
            paused: AtomicU8::new(0),
            state: Mutex::new(State {
                paused: Paused::Nothing,
                until_ms: 0,
            }),
            ended: Notify::new(),
        }
    }
}

impl Pause {
    /// Pauses until `until_ms` (Unix milliseconds). As in Redis, a pause in force is only ever extended and widened.
    pub(crate) fn start(&self, paused: Paused, until_ms: u64) {
        let mut state = self.state.lock();
        let in_force = state.until_ms > unix_ms();
        if in_force {
            state.paused = state.paused.max(paused);
            state.until_ms = state.until_ms.max(until_ms);
        } else {
            *state = State { paused, until_ms };
        }
        self.paused.store(state.paused as u8, Relaxed);
    }

    /// Ends the pause.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        *state = State {
            paused: Paused::Nothing,
            until_ms: 0,
        };
        self.paused.store(0, Relaxed);
        self.ended.notify_waiters();
    }

    /// What is paused now.
    #[inline]
    pub(crate) fn now(&self) -> Paused {
        match self.paused.load(Relaxed) {
            0 => Paused::Nothing,
            1 => Paused::Writes,
            _ => Paused::All,
        }
    }

    /// Waits until the pause is over.
    pub(crate) async fn wait(&self) {
        loop {
            let ended = self.ended.notified();
            let left_ms = {
                let state = self.state.lock();
                state.until_ms.saturating_sub(unix_ms())
            };
            if left_ms == 0 {
                self.end_if_due();
                return;
            }
            tokio::select! {
                () = ended => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(left_ms)) => {}
            }
        }
    }

    fn end_if_due(&self) {
        let due = self.state.lock().until_ms <= unix_ms();
        if due {
            self.end();
        }
    }
}
