//! Counters of the engine, and the figures it reports.

use crossbeam_utils::CachePadded;

use crate::Namespace;
use crate::generation::Parity;
use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use crate::sys::Reservation;

/// Keys and expiries of a namespace are counted in so many places, each thread using one, and added up when asked.
const SHARDS: usize = 8;

/// What the engine has done and holds. All counters are since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments in the mutable region.
    pub mutable_segments: u64,
    /// Sealed segments mapped from their files.
    pub warm_segments: u64,
    /// Segments on the device only.
    pub cold_segments: u64,
    /// Segments that may be in memory at once now.
    pub segment_budget: u64,
    /// Size of a segment in bytes.
    pub segment_bytes: u64,
    /// Slots in the index: one a key, one a page of a large value, one a shadow.
    pub index_slots: u64,
    /// Memory of the index in bytes.
    pub index_bytes: u64,
    /// Bytes given out by the log for records.
    pub appended_bytes: u64,
    /// Bytes written to segment files.
    pub written_bytes: u64,
    /// Records copied back into memory because they were read while their segment was there.
    pub second_chances: u64,
    /// Cold records copied back into memory on their second read.
    pub promotions: u64,
    /// Blind writes over a slot whose record was cold.
    pub shadows: u64,
    /// Cold records that an operation had to ask the device for.
    pub cold_reads: u64,
    /// Reads of cold records that were not as they had been written.
    pub damaged_reads: u64,
    /// Bytes of large values in mapped segments that were copied instead of being lent out.
    pub warm_copied_bytes: u64,
    /// Expired records removed.
    pub expired: u64,
    /// Keys that were evicted because the data files had reached their limit.
    pub evicted: u64,
    /// How often expired keys of a segment could not be looked up in its key file, or their records not be read; that is tried
    /// again.
    pub expiry_errors: u64,
    /// Segment files that could not be written; each is tried again.
    pub flush_errors: u64,
    /// Segments that could not be compacted because of an error; each is tried again.
    pub compaction_errors: u64,
    /// Bytes that compaction has read.
    pub compaction_read_bytes: u64,
    /// Bytes of live records that compaction has copied.
    pub compaction_moved_bytes: u64,
    /// Bytes of segments that compaction has given back.
    pub compaction_reclaimed_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) written_bytes: AtomicU64,
    pub(crate) second_chances: AtomicU64,
    pub(crate) promotions: AtomicU64,
    pub(crate) shadows: AtomicU64,
    pub(crate) cold_reads: AtomicU64,
    pub(crate) warm_copied_bytes: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) expiry_errors: AtomicU64,
    pub(crate) flush_errors: AtomicU64,
    pub(crate) compaction_errors: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Number of keys, of keys with an expiry, and of unresolved blind writes, of every namespace.
pub(crate) struct KeyCounts {
    memory: Reservation,
    /// Which namespaces have ever been counted: a bit each.
    used: Box<[AtomicU64]>,
}

/// How many keys a namespace has, how many of them expire, and how many more there may be: blind writes of which nobody knows
/// what they went in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyCount {
    pub(crate) namespace: Namespace,
    pub(crate) keys: i64,
    pub(crate) expiring: i64,
    pub(crate) unresolved: i64,
}

/// What is counted, as the place of the count in a shard.
const KEYS: usize = 0;
const EXPIRING: usize = 1;
const UNRESOLVED: usize = 2;

/// One shard's counts of one namespace, as even and as odd generations have changed them. A cache line, so that threads do
/// not share one.
type Shard = CachePadded<[[AtomicI64; 3]; 2]>;

impl KeyCounts {
    pub(crate) fn new() -> std::io::Result<KeyCounts> {
        Ok(KeyCounts {
            memory: Reservation::sparse((usize::from(u16::MAX) + 1) * SHARDS * size_of::<Shard>())?,
            used: (0..=u16::MAX / 64).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    fn shards(&self, namespace: Namespace) -> &[Shard] {
        let first = usize::from(namespace.0) * SHARDS * size_of::<Shard>();
        shards_at(&self.memory, first)
    }

    pub(crate) fn add(&self, generation: u64, namespace: Namespace, keys: i64, expiring: i64) {
        self.add_to(generation, namespace, [(KEYS, keys), (EXPIRING, expiring)]);
    }

    /// So many more blind writes of the namespace are unresolved.
    pub(crate) fn add_unresolved(&self, generation: u64, namespace: Namespace, writes: i64) {
        self.add_to(generation, namespace, [(UNRESOLVED, writes)]);
    }

    #[inline]
    fn add_to<const N: usize>(
        &self,
        generation: u64,
        namespace: Namespace,
        changes: [(usize, i64); N],
    ) {
        let used = &self.used[usize::from(namespace.0 / 64)];
        let bit = 1 << (namespace.0 % 64);
        if used.load(Ordering::Relaxed) & bit == 0 {
            used.fetch_or(bit, Ordering::Relaxed);
        }
        let shard = &self.shards(namespace)[crate::log::thread_number() % SHARDS];
        let shard = &shard[Parity::of(generation) as usize];
        for (which, change) in changes {
            if change != 0 {
                shard[which].fetch_add(change, Ordering::Relaxed);
            }
        }
    }

    fn sum(&self, namespace: Namespace, which: usize) -> i64 {
        self.shards(namespace)
            .iter()
            .flat_map(|shard| shard.iter())
            .map(|counts| counts[which].load(Ordering::Relaxed))
            .sum()
    }

    /// Every namespace that was ever used.
    pub(crate) fn used(&self) -> Vec<Namespace> {
        let is_used = |namespace: &u16| {
            let used = self.used[usize::from(namespace / 64)].load(Ordering::Relaxed);
            used & 1 << (namespace % 64) != 0
        };
        (0..=u16::MAX).filter(is_used).map(Namespace).collect()
    }

    /// What the generations of one parity have added up to, in every namespace that was ever used.
    pub(crate) fn of(&self, parity: Parity) -> Vec<KeyCount> {
        let count = |namespace| {
            let shards = self.shards(namespace);
            let sum = |which: usize| {
                let counts = shards.iter().map(|shard| &shard[parity as usize][which]);
                counts.map(|count| count.load(Ordering::Relaxed)).sum()
            };
            KeyCount {
                namespace,
                keys: sum(KEYS),
                expiring: sum(EXPIRING),
                unresolved: sum(UNRESOLVED),
            }
        };
        self.used().into_iter().map(count).collect()
    }

    pub(crate) fn keys(&self, namespace: Namespace) -> u64 {
        self.sum(namespace, KEYS).max(0) as u64
    }

    pub(crate) fn expiring(&self, namespace: Namespace) -> u64 {
        self.sum(namespace, EXPIRING).max(0) as u64
    }

    /// The namespaces of which blind writes are unresolved, and how many.
    pub(crate) fn unresolved(&self) -> Vec<(Namespace, i64)> {
        let count = |namespace| (namespace, self.sum(namespace, UNRESOLVED));
        let all = self.used().into_iter().map(count);
        all.filter(|&(_, writes)| writes != 0).collect()
    }

    pub(crate) fn reset(&self, namespace: Namespace) {
        let shards = self.shards(namespace).iter();
        for count in shards.flat_map(|shard| shard.iter().flatten()) {
            count.store(0, Ordering::Relaxed);
        }
    }
}

#[allow(unsafe_code)] // Views zeroed memory as counters.
fn shards_at(memory: &Reservation, first: usize) -> &[Shard] {
    assert!(first + SHARDS * size_of::<Shard>() <= memory.bytes());
    // SAFETY: inside the reservation as just checked and aligned to it; zeroed memory is a valid array of atomics.
    unsafe { std::slice::from_raw_parts(memory.at(first).as_ptr().cast::<Shard>(), SHARDS) }
}
