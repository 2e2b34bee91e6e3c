//! Fields of hashes that expire while nobody asks for them.
//!
//! The root of a hash says before when none of its fields expires, and the engine names those of which that time has come
//! ([`hybridlog::Store::take_due`]): it goes with the hash when that is renamed, copied or moved, to the disk, and over a restart.
//! Who lets a field expire earlier than any other of its hash notes when, so that the hash is looked through at once and not when
//! the engine comes by; there is room for some of these notes, and those that are due first are kept.
//!
//! A thread of its own looks through the hashes that are due, some fields of each in turn, with the hash latched for no longer
//! than these take. A hash that has taken long is left alone for nine times as long, so however many of its fields expire one
//! after the other, that costs a tenth of a processor at most. Until a field is removed nobody sees it any more, but HLEN counts
//! it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hybridlog::{KeyRef, LatchMode, Namespace, Stop};
use parking_lot::Mutex;

use crate::commands::{Look, Looked};
use crate::server::{Server, unix_ms};

/// Most hashes that are noted, and the longest of their keys. The engine finds the others.
const NOTED_MAX: usize = 64 * 1024;
const KEY_MAX_BYTES: usize = 256;
/// Hashes that are looked through at a time.
const LOOKS_AT_ONCE: usize = 64;
/// A hash that could not be looked at is not looked at again for so long.
const RETRY_MS: u64 = 1000;
/// A hash that has changed while it was looked through is looked through again after so long.
const AGAIN_MS: u64 = 100;
/// A look that has taken longer is followed by a rest, of so many times as long.
const LONG: Duration = Duration::from_millis(10);
const REST: u32 = 9;
/// Hashes that are left alone at a time.
const RESTING_MAX: usize = 1024;

type HashKey = (Namespace, Vec<u8>);

/// When fields of which hashes expire.
#[derive(Default)]
pub(crate) struct FieldExpiry {
    /// Unix time in milliseconds, and the hash.
    due: Mutex<BTreeSet<(u64, Namespace, Vec<u8>)>>,
    /// Hashes that are left alone, and until when.
    resting: Mutex<BTreeMap<HashKey, u64>>,
    is_running: AtomicBool,
    removed: AtomicU64,
}

impl FieldExpiry {
    /// A field of this hash expires at `at_ms`, Unix milliseconds.
    pub(crate) fn note(&self, namespace: Namespace, key: &[u8], at_ms: u64) {
        let mut due = self.due.lock();
        if key.len() > KEY_MAX_BYTES {
            return;
        }
        if due.len() >= NOTED_MAX {
            if due.last().is_some_and(|(last_ms, ..)| *last_ms <= at_ms) {
                return;
            }
            due.pop_last();
        }
        due.insert((at_ms, namespace, key.to_vec()));
    }

    /// How many fields have been removed because they had expired.
    pub(crate) fn removed(&self) -> u64 {
        self.removed.load(Relaxed)
    }

    pub(crate) fn count_removed(&self, fields: u64) {
        self.removed.fetch_add(fields, Relaxed);
    }

    fn pop_due(&self, now_ms: u64) -> Option<HashKey> {
        let mut due = self.due.lock();
        let is_due = due.first().is_some_and(|(at_ms, ..)| *at_ms <= now_ms);
        let (_, namespace, key) = is_due.then(|| due.pop_first()).flatten()?;
        Some((namespace, key))
    }

    fn is_due(&self, now_ms: u64) -> bool {
        let due = self.due.lock();
        due.first().is_some_and(|(at_ms, ..)| *at_ms <= now_ms)
    }

    fn rests(&self, hash: &HashKey, now_ms: u64) -> bool {
        let mut resting = self.resting.lock();
        resting.retain(|_, until_ms| *until_ms > now_ms);
        resting.contains_key(hash)
    }
}

/// Removes what has expired by now, on a thread of its own, unless that is being done.
pub(crate) fn run(server: &Arc<Server>) {
    let expiry = &server.field_expiry;
    if expiry.is_running.swap(true, Relaxed) {
        return;
    }
    let mut found: VecDeque<HashKey> = server.store.take_due().into();
    if found.is_empty() && !expiry.is_due(unix_ms()) {
        expiry.is_running.store(false, Relaxed);
        return;
    }
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || {
        look_at_all(&server, &mut found);
        server.field_expiry.is_running.store(false, Relaxed);
    });
}

/// Looks through those that have been found to be due and those that are noted, until none is left.
fn look_at_all(server: &Server, found: &mut VecDeque<HashKey>) {
    let expiry = &server.field_expiry;
    let mut looks = VecDeque::new();
    while server.active_expire() {
        let now_ms = unix_ms();
        while looks.len() < LOOKS_AT_ONCE
            && let Some(hash) = expiry.pop_due(now_ms).or_else(|| found.pop_front())
        {
            let is_under_way =
                |(look, _): &(Look, Duration)| (look.namespace, &look.key) == (hash.0, &hash.1);
            if !expiry.rests(&hash, now_ms) && !looks.iter().any(is_under_way) {
                looks.push_back((Look::new(hash.0, hash.1), Duration::ZERO));
            }
        }
        let Some((mut look, taken)) = looks.pop_front() else {
            return;
        };
        let begin = Instant::now();
        let looked = go_on(server, &mut look);
        let taken = taken + begin.elapsed();
        match looked {
            Ok(Looked::GoesOn { .. }) => looks.push_back((look, taken)),
            Ok(Looked::Over { next_ms, .. }) => {
                let rest_ms = if taken > LONG {
                    (taken * REST).as_millis() as u64
                } else {
                    0
                };
                end(expiry, look, next_ms, rest_ms);
            }
            Err(_) => end(expiry, look, Some(0), RETRY_MS),
        }
    }
}

/// Notes when the hash is to be looked through again, after it has rested.
fn end(expiry: &FieldExpiry, look: Look, next_ms: Option<u64>, rest_ms: u64) {
    let now_ms = unix_ms();
    let is_due_again = next_ms.is_some_and(|next_ms| next_ms <= now_ms);
    let rest_ms = if is_due_again {
        rest_ms.max(AGAIN_MS)
    } else {
        rest_ms
    };
    let until_ms = now_ms + rest_ms;
    if let Some(next_ms) = next_ms {
        expiry.note(look.namespace, &look.key, next_ms.max(until_ms));
    }
    let mut resting = expiry.resting.lock();
    if rest_ms > 0 && resting.len() < RESTING_MAX {
        resting.insert((look.namespace, look.key), until_ms);
    }
}

fn go_on(server: &Server, look: &mut Look) -> Result<Looked, Stop> {
    let (namespace, key) = (look.namespace, look.key.clone());
    let latch = KeyRef {
        namespace,
        key: &key,
        mode: LatchMode::Exclusive,
    };
    server.store.blocking(&[latch], unix_ms(), |op| {
        let looked = look.go_on(op)?;
        // While the hash is latched: nobody sees that they are gone before they are counted.
        let (Looked::GoesOn { removed } | Looked::Over { removed, .. }) = looked;
        server.field_expiry.count_removed(removed);
        Ok(looked)
    })
}
