//! How the server is asked to stop: by a signal or by SHUTDOWN.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use tokio::sync::Notify;

const RUNNING: u8 = 0;
const ASKED: u8 = 1;

/// The request to stop.
#[derive(Default)]
pub(crate) struct Shutdown {
    state: AtomicU8,
    asked: Notify,
}

impl Shutdown {
    /// Asks the server to stop: workers accept no more clients, finish the commands that run, send their replies and
    /// close; then the process ends with status 0. Idempotent.
    pub(crate) fn begin(&self) {
        self.state.store(ASKED, Relaxed);
        self.asked.notify_waiters();
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.state.load(Relaxed) != RUNNING
    }

    /// Waits until the server is asked to stop.
    pub(crate) async fn asked(&self) {
        let notified = self.asked.notified();
        if !self.is_asked() {
            notified.await;
        }
    }
}
