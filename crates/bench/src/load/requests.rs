//! What to ask the server next.
//!
//! All connections share one `Phase`. They claim turns, `0..total`, from one counter, a batch at a
//! time, so that preloading and verifying visit each key exactly once whatever the number of
//! threads, and sequential keys are sequential over all of them.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::options::Options;
use crate::keys::{KeyChooser, KeyFormat};
use crate::random::{Permutation, Random};
use crate::values::ValueSizes;

/// One kind of operation, measured on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Set,
    ReadModifyWrite,
    Insert,
    Delete,
}

impl Operation {
    pub(crate) const ALL: [Operation; 5] = [
        Operation::Get,
        Operation::Set,
        Operation::ReadModifyWrite,
        Operation::Insert,
        Operation::Delete,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Set => "set",
            Operation::ReadModifyWrite => "rmw",
            Operation::Insert => "insert",
            Operation::Delete => "delete",
        }
    }
}

/// The shares of the operations in a mix, relative to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) get: u32,
    pub(crate) set: u32,
    pub(crate) read_modify_write: u32,
    pub(crate) insert: u32,
    pub(crate) delete: u32,
}

impl Mix {
    /// The sum of all shares.
    pub(crate) fn total(&self) -> u64 {
        self.shares().into_iter().map(u64::from).sum()
    }

    /// The shares, in the order of `Operation::ALL`.
    pub(crate) fn shares(&self) -> [u32; 5] {
        [
            self.get,
            self.set,
            self.read_modify_write,
            self.insert,
            self.delete,
        ]
    }

    #[inline]
    fn draw(&self, random: &mut Random) -> Operation {
        let mut at = random.below(self.total());
        for (operation, share) in Operation::ALL.into_iter().zip(self.shares()) {
            match at.checked_sub(u64::from(share)) {
                Some(rest) => at = rest,
                None => return operation,
            }
        }
        unreachable!("the draw is below the sum of the shares")
    }
}

/// What a phase does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Preload,
    Mix(Mix),
    Verify,
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Preload => "preload",
            Work::Mix(_) => "mix",
            Work::Verify => "verify",
        }
    }
}

/// The keys of a run and what is known about their values; lives through all phases.
pub(crate) struct KeySpace {
    pub(crate) format: KeyFormat,
    pub(crate) sizes: ValueSizes,
    keys: u64,
    /// The number of keys the mix has begun to insert after the first `keys`.
    inserts_begun: AtomicU64,
    /// The number of those that the server has acknowledged.
    inserts_done: AtomicU64,
    /// With `--verify`: for each of the first `keys` keys the newest version that the server has
    /// acknowledged. All accesses are Relaxed: a version seen too late only makes a check milder,
    /// and the phases are separated by joining the threads.
    acknowledged: Option<Vec<AtomicU32>>,
    value_version: u32,
    connections: u64,
}

impl KeySpace {
    pub(crate) fn new(options: &Options) -> Result<Self, String> {
        let spelled = options.keys + options.most_inserts()?;
        let format = KeyFormat::new(options.key_bytes as usize, spelled)?;
        let acknowledged = options.verify.then(|| {
            (0..options.keys)
                .map(|_| AtomicU32::new(options.value_version))
                .collect()
        });
        Ok(KeySpace {
            format,
            sizes: options.value_bytes,
            keys: options.keys,
            inserts_begun: AtomicU64::new(0),
            inserts_done: AtomicU64::new(0),
            acknowledged,
            value_version: options.value_version,
            connections: options.connections as u64,
        })
    }

    /// Whether every value that is read must be checked.
    pub(crate) fn is_checked(&self) -> bool {
        self.acknowledged.is_some()
    }

    /// Records that the server has acknowledged `version` of `key`, written by `operation`.
    #[inline]
    pub(crate) fn acknowledge(&self, operation: Operation, key: u64, version: u32) {
        if operation == Operation::Insert {
            self.inserts_done.fetch_add(1, Ordering::Relaxed);
        } else if let Some(versions) = &self.acknowledged
            && let Some(newest) = versions.get(key as usize)
        {
            newest.store(version, Ordering::Relaxed);
        }
    }

    /// The oldest version of `key` that a read sent now may return; 0 if it may find nothing.
    #[inline]
    fn oldest_right(&self, key: u64) -> u32 {
        let versions = self.acknowledged.as_ref();
        versions
            .and_then(|versions| versions.get(key as usize))
            .map_or(0, |version| version.load(Ordering::Relaxed))
    }

    /// The key that connection `connection` writes where `key` was drawn, and the version: while
    /// answers are checked, the closest key that belongs to the connection. A key that the mix
    /// inserted has one version, so it may be written by any connection.
    #[inline]
    fn writable(&self, key: u64, connection: u64, turn: u64) -> (u64, u32) {
        if key >= self.keys {
            return (key, 1);
        }
        let Some(versions) = &self.acknowledged else {
            return (key, turn as u32);
        };
        let mut own = key - key % self.connections + connection;
        if own >= self.keys {
            own -= self.connections;
        }
        (
            own,
            versions[own as usize]
                .load(Ordering::Relaxed)
                .saturating_add(1),
        )
    }

    fn newest(&self) -> u64 {
        self.keys - 1 + self.inserts_done.load(Ordering::Relaxed)
    }
}

/// One operation on one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) key: u64,
    /// Of a write: the version to write.
    pub(crate) version: u32,
    /// Of a read: the oldest version that is right, 0 if finding nothing is right too.
    pub(crate) oldest_right: u32,
}

/// One phase of a run, shared by all client threads.
pub(crate) struct Phase<'a> {
    pub(crate) work: Work,
    pub(crate) key_space: &'a KeySpace,
    pub(crate) started: Instant,
    /// The number of turns; unlimited where the phase ends by its deadline.
    pub(crate) total: u64,
    /// When to stop starting operations, from `started`.
    pub(crate) deadline: Option<Duration>,
    /// Operations a second to start, over all connections.
    pub(crate) rate: Option<f64>,
    /// The number of operations finished, for the progress bar.
    pub(crate) done: AtomicU64,
    chooser: KeyChooser,
    read_order: Permutation,
    claimed: AtomicU64,
    claim_size: u64,
    seed: u64,
}

impl<'a> Phase<'a> {
    pub(crate) fn new(work: Work, options: &Options, key_space: &'a KeySpace) -> Self {
        let all_keys = options.keys + key_space.inserts_begun.load(Ordering::Relaxed);
        let (total, deadline, rate) = match work {
            Work::Preload => (options.keys, None, None),
            Work::Mix(_) => (
                options.requests().unwrap_or(u64::MAX / 2),
                options.run_time(),
                options.rate(),
            ),
            Work::Verify => (all_keys, None, None),
        };
        let chooser = KeyChooser::new(
            options.distribution(),
            options.keys,
            options.theta,
            options.seed,
        );
        Phase {
            work,
            key_space,
            total,
            deadline,
            rate,
            done: AtomicU64::new(0),
            chooser,
            read_order: Permutation::new(all_keys, options.seed ^ 0x5eed),
            claimed: AtomicU64::new(0),
            // In an open loop each connection has its own clock and takes one turn at a time.
            claim_size: if rate.is_some() {
                1
            } else {
                u64::from(options.pipeline)
            },
            seed: options.seed,
            started: Instant::now(),
        }
    }

    /// Whether an operation that is due at `due_nanos` will not be started: the phase ends before
    /// that, or all its turns are taken.
    pub(crate) fn starts_nothing_at(&self, due_nanos: u64) -> bool {
        self.deadline
            .is_some_and(|deadline| due_nanos >= deadline.as_nanos() as u64)
            || self.claimed.load(Ordering::Relaxed) >= self.total
    }
}

/// Makes the requests of one connection.
pub(crate) struct RequestSource {
    connection: u64,
    turns: Range<u64>,
    random: Random,
}

impl RequestSource {
    pub(crate) fn new(connection: u64, phase: &Phase<'_>) -> Self {
        let seed = phase.seed.wrapping_add((connection + 1) << 32);
        RequestSource {
            connection,
            turns: 0..0,
            random: Random::new(seed),
        }
    }

    /// The next request, at the time `now_nanos` of the phase; None once the phase is over.
    #[inline]
    pub(crate) fn next(&mut self, phase: &Phase<'_>, now_nanos: u64) -> Option<Request> {
        if phase
            .deadline
            .is_some_and(|deadline| now_nanos >= deadline.as_nanos() as u64)
        {
            return None;
        }
        if self.turns.is_empty() {
            let first = phase.claimed.fetch_add(phase.claim_size, Ordering::Relaxed);
            self.turns = first.min(phase.total)..(first + phase.claim_size).min(phase.total);
        }
        let turn = self.turns.next()?;
        let keys = phase.key_space;
        Some(match phase.work {
            Work::Preload => Request {
                operation: Operation::Set,
                key: turn,
                version: keys.value_version,
                oldest_right: 0,
            },
            Work::Verify => self.verify(phase.read_order.nth(turn), keys),
            Work::Mix(mix) => self.draw(&mix, turn, phase),
        })
    }

    fn verify(&self, key: u64, keys: &KeySpace) -> Request {
        // Every key must be there, also those that the mix inserted.
        let oldest_right = keys.oldest_right(key).max(1);
        Request {
            operation: Operation::Get,
            key,
            version: 0,
            oldest_right,
        }
    }

    fn draw(&mut self, mix: &Mix, turn: u64, phase: &Phase<'_>) -> Request {
        let keys = phase.key_space;
        let operation = mix.draw(&mut self.random);
        let (key, version) = match operation {
            Operation::Insert => (
                keys.keys + keys.inserts_begun.fetch_add(1, Ordering::Relaxed),
                1,
            ),
            Operation::Get | Operation::Delete => (
                phase.chooser.choose(&mut self.random, turn, keys.newest()),
                0,
            ),
            Operation::Set | Operation::ReadModifyWrite => {
                let drawn = phase.chooser.choose(&mut self.random, turn, keys.newest());
                keys.writable(drawn, self.connection, turn)
            }
        };
        Request {
            operation,
            key,
            version,
            oldest_right: keys.oldest_right(key),
        }
    }
}
