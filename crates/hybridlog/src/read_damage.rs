//! Damage that reads have met: how often, and where last.

use std::io;

use parking_lot::Mutex;

use crate::stats::count;
use crate::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(crate) struct ReadDamage {
    met: AtomicU64,
    last: Mutex<Option<String>>,
}

impl ReadDamage {
    /// Notes the error of a read, if it says that something is not what was written.
    pub(crate) fn note(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData {
            count(&self.met, 1);
            *self.last.lock() = Some(error.to_string());
        }
    }

    pub(crate) fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }
}
