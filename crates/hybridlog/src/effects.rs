//! What an operation has changed, on its way to the command log.
//!
//! Every change of data notes its effect here, before the operation lets go of its latches; when the operation ends, all of
//! them become one frame of the log, so that a replay does all of it or nothing. The effects of one key stand in the log in
//! the order of the changes, since frames are appended under the latch.

use std::cell::{Cell, RefCell};

use crate::command_log::Effect;

/// A buffer that has grown larger than this is not kept for the thread's next operation.
const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    /// The buffer of the thread's last operation, so that steady writing allocates nothing.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encoded effects of one operation, in order.
#[derive(Default)]
pub(crate) struct NotedEffects {
    encoded: RefCell<Vec<u8>>,
    /// How many changes there were, those among them that are not logged.
    changes: Cell<u64>,
    /// How many of them only prepare others.
    preparations: Cell<u64>,
}

impl NotedEffects {
    /// Counts a change.
    pub(crate) fn count(&self, effect: &Effect<'_>) {
        self.changes.set(self.changes.get() + 1);
        if effect.is_preparation() {
            self.preparations.set(self.preparations.get() + 1);
        }
    }

    /// How many changes have been counted.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// How many of them only prepare others.
    pub(crate) fn preparations(&self) -> u64 {
        self.preparations.get()
    }

    pub(crate) fn note(&self, effect: &Effect<'_>) {
        let mut encoded = self.encoded.borrow_mut();
        if encoded.capacity() == 0 {
            *encoded = SPARE.take();
        }
        effect.encode(&mut encoded);
    }

    /// Gives `each` the encoded effects if there are any, and forgets them.
    pub(crate) fn take<T>(&mut self, each: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let mut encoded = std::mem::take(self.encoded.get_mut());
        if encoded.is_empty() {
            return None;
        }
        let result = each(&encoded);
        if encoded.capacity() <= KEPT_BYTES {
            encoded.clear();
            SPARE.set(encoded);
        }
        Some(result)
    }
}
