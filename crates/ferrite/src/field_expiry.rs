//! Fields of hashes that expire while nobody asks for them.
//!
//! Whoever lets a field expire earlier than any other of its hash notes when; and so does whoever meets a hash with fields
//! that have expired. When the time has come a thread of its own looks the hash through, some fields at a time. What is not
//! noted, for want of room or because the server has started since, goes when somebody meets it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use hybridlog::{KeyRef, LatchMode, Namespace, Stop};
use parking_lot::Mutex;

use crate::commands::{ExpiredFields, remove_expired_fields};
use crate::server::{Server, unix_ms};

/// Most hashes that are noted, and the longest of their keys.
const NOTED_MAX: usize = 64 * 1024;
const KEY_MAX_BYTES: usize = 256;
/// Fields of a hash that are looked at while it is latched.
const FIELDS_TOGETHER: u64 = 1024;
/// A hash that could not be looked at is not looked at again for so long.
const RETRY_MS: u64 = 1000;

/// When fields of which hashes expire.
#[derive(Default)]
pub(crate) struct FieldExpiry {
    /// Unix time in milliseconds, and the hash.
    due: Mutex<BTreeSet<(u64, Namespace, Vec<u8>)>>,
    is_running: AtomicBool,
}

impl FieldExpiry {
    /// A field of this hash expires at `at_ms`, Unix milliseconds.
    pub(crate) fn note(&self, namespace: Namespace, key: &[u8], at_ms: u64) {
        let mut due = self.due.lock();
        if due.len() < NOTED_MAX && key.len() <= KEY_MAX_BYTES {
            due.insert((at_ms, namespace, key.to_vec()));
        }
    }

    fn pop_due(&self, now_ms: u64) -> Option<(Namespace, Vec<u8>)> {
        let mut due = self.due.lock();
        let is_due = due.first().is_some_and(|(at_ms, ..)| *at_ms <= now_ms);
        let (_, namespace, key) = is_due.then(|| due.pop_first()).flatten()?;
        Some((namespace, key))
    }

    fn is_due(&self, now_ms: u64) -> bool {
        let due = self.due.lock();
        due.first().is_some_and(|(at_ms, ..)| *at_ms <= now_ms)
    }
}

/// Removes what has expired by now, on a thread of its own, unless that is being done.
pub(crate) fn run(server: &Arc<Server>) {
    let expiry = &server.field_expiry;
    if !expiry.is_due(unix_ms()) || expiry.is_running.swap(true, Relaxed) {
        return;
    }
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || {
        let expiry = &server.field_expiry;
        while let Some((namespace, key)) = expiry.pop_due(unix_ms()) {
            let next_ms = match look_through(&server, namespace, &key) {
                Ok(next_ms) => next_ms,
                Err(_) => Some(unix_ms() + RETRY_MS),
            };
            if let Some(at_ms) = next_ms {
                expiry.note(namespace, &key, at_ms);
            }
            if !server.active_expire() {
                break;
            }
        }
        expiry.is_running.store(false, Relaxed);
    });
}

/// Looks a whole hash through. Result: when its next field expires.
fn look_through(server: &Server, namespace: Namespace, key: &[u8]) -> Result<Option<u64>, Stop> {
    let latch = KeyRef {
        namespace,
        key,
        mode: LatchMode::Exclusive,
    };
    let (mut position, mut next_ms) = (0, None);
    loop {
        let part = server.store.blocking(&[latch], unix_ms(), |op| {
            remove_expired_fields(op, namespace, key, position, FIELDS_TOGETHER)
        })?;
        let ExpiredFields {
            live,
            earliest_ms,
            is_last,
        } = part;
        next_ms = next_ms.into_iter().chain(earliest_ms).min();
        position += live;
        if is_last {
            return Ok(next_ms);
        }
    }
}
