//! The store: opening it, simple blocking access, and starting operations.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::address::{Slot, SlotKind};
use crate::command_log::Health;
use crate::disk_limit::{DiskRoom, Eviction};
use crate::epoch::{self, Guard};
use crate::expiry::ExpiredSome;
use crate::flush::Retired;
use crate::index::{BucketIndex, Index};
use crate::io::IoStats;
use crate::latch::{LatchMode, Latches};
use crate::open::Threads;
use crate::operation::{Held, KeptLatches, KeyRef, Operation};
use crate::reads::ColdReads;
use crate::room::NoRoomReason;
use crate::segment::Place;
use crate::shared::Shared;
use crate::stats::{Stats, count};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sys::prefetch;
use crate::{Namespace, Stop};

/// Segments are between these sizes.
pub(crate) const SEGMENT_BYTES: std::ops::RangeInclusive<usize> = 1 << 20..=32 << 20;

/// Whoever waits for room looks again after so long, whatever he has been told.
const ROOM_LOOK: Duration = Duration::from_millis(100);
/// How often one who blocks looks whether the data files are back within their limit.
const DISK_LOOK: Duration = Duration::from_millis(5);

/// Hashes of the keys of one batch.
pub(crate) type Prefetched = SmallVec<[LookedUp; 64]>;

/// What was found out about a key ahead of its operation.
#[derive(Clone, Copy)]
pub(crate) struct LookedUp {
    pub(crate) hash: u64,
    /// The newest slot that may be the key's, and the index's version that says so.
    newest: Option<(Slot, u64)>,
}

/// A three-tier HybridLog store. See the [crate documentation](crate).
pub struct Store<I: Index = BucketIndex> {
    pub(crate) shared: Arc<Shared<I>>,
    pub(crate) threads: Threads,
    /// Holds the lock on the directory.
    pub(crate) _lock: File,
}

impl<I: Index> Store<I> {
    /// Starts an operation on `keys`, latching each of them; what it reads it finds in memory or in `reads`. `None` when
    /// a latch is taken by another operation: try again after letting others run. `now_ms` is Unix time.
    #[inline]
    pub fn operation<'s>(
        &'s self,
        keys: &[KeyRef<'_>],
        reads: &'s ColdReads,
        now_ms: u64,
    ) -> Option<Operation<'s, I>> {
        self.shared.operation(keys, reads, now_ms)
    }

    /// Starts an operation that latches every key there is.
    pub fn operation_on_everything<'s>(
        &'s self,
        reads: &'s ColdReads,
        now_ms: u64,
    ) -> Option<Operation<'s, I>> {
        let all = (0..Latches::stripes())
            .map(|stripe| (stripe, LatchMode::Exclusive))
            .collect();
        let held = Held::acquire(&self.shared.latches, all)?;
        Some(Operation::new(&self.shared, held, reads, now_ms))
    }

    /// Goes on with latches that were kept from an earlier operation on this store.
    pub fn resume<'s>(
        &'s self,
        kept: KeptLatches,
        reads: &'s ColdReads,
        now_ms: u64,
    ) -> Operation<'s, I> {
        let held = Held::from_kept(&self.shared.latches, kept);
        Operation::new(&self.shared, held, reads, now_ms)
    }

    /// Pins the epoch for a batch of operations, so that each of them need not. Must not be held while waiting.
    pub fn pin(&self) -> Pin {
        Pin {
            _guard: epoch::pin(),
        }
    }

    /// Starts loading what operations on `keys` will touch, and notes the cold records among them in `reads`, until
    /// `cold_bytes_max` bytes are wanted. A record noted in vain costs a read, nothing else.
    pub fn prefetch<'k, K>(&self, keys: K, reads: &ColdReads, cold_bytes_max: u64)
    where
        K: Iterator<Item = (Namespace, &'k [u8])>,
    {
        self.prefetch_hashed(keys, reads, cold_bytes_max);
    }

    /// [`Self::prefetch`] for one who goes on with what it finds out.
    pub(crate) fn prefetch_hashed<'k, K>(
        &self,
        keys: K,
        reads: &ColdReads,
        cold_bytes_max: u64,
    ) -> Prefetched
    where
        K: Iterator<Item = (Namespace, &'k [u8])>,
    {
        let mut prefetched = Prefetched::new();
        for (namespace, key) in keys {
            let hash = self.shared.hash(namespace, key);
            self.shared.index.prefetch(hash);
            self.shared.latches.prefetch(Latches::stripe(hash));
            prefetched.push(LookedUp::of(hash));
        }
        let _pin = epoch::pin();
        for looked_up in &mut prefetched {
            self.prefetch_records(looked_up, reads, cold_bytes_max);
        }
        prefetched
    }

    #[inline]
    fn prefetch_records(&self, key: &mut LookedUp, reads: &ColdReads, cold_bytes_max: u64) {
        // Before the slot, see `Slots::version`.
        let version = self.shared.index.version(key.hash);
        let Some(slot) = self.shared.index.newest(key.hash, SlotKind::Root) else {
            return;
        };
        key.newest = version.map(|version| (slot, version));
        match self.shared.log.table.place(slot.address()) {
            Place::Memory { base, .. } => {
                prefetch(base.as_ptr());
                prefetch(base.as_ptr().wrapping_add(64));
                self.shared.log.table.prefetch_mark(slot.address());
            }
            Place::Cold => {
                if reads.wanted_bytes() < cold_bytes_max
                    && !reads.knows(slot.address())
                    && let Some(segment) = self.shared.log.table.segment(slot.address())
                {
                    let (files, geometry) = (&self.shared.open_files, self.shared.log.geometry);
                    reads.record(slot, &segment, files, geometry);
                    count(&self.shared.counters.cold_reads, 1);
                }
            }
        }
    }

    /// Whether `bytes` can be written without waiting for segments to leave memory.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.shared.has_room(bytes)
    }

    /// Whether the rest of the memory leaves the log too little, so that writes are refused.
    pub fn is_out_of_memory(&self) -> bool {
        self.shared.log.is_out_of_memory()
    }

    /// Whether the data files have reached their limit and nothing can be evicted, so that writes are refused.
    pub fn is_disk_full(&self) -> bool {
        self.shared.disk_room() == DiskRoom::Full
    }

    /// Limits the data files to about `bytes_max` bytes, 0 for no limit. Counted are segments (those that are still in memory
    /// as well), key files, deaths and the manifest, but not the command log. At the limit `eviction` says which keys are
    /// removed; writes wait for that, or are refused as for want of memory if there are none (any more). Before either, space
    /// that dead records take is given back. The files may pass the limit by some segments, and by what compaction writes
    /// before a checkpoint removes what it has read.
    pub fn set_disk_limit(&self, bytes_max: u64, eviction: Eviction) {
        self.shared.disk_limit.set(bytes_max, eviction);
    }

    /// Waits until `bytes` can be written, and the command log can take what is changed.
    ///
    /// # Errors
    ///
    /// Why there will be no room.
    pub async fn wait_for_room(&self, bytes: u64) -> Result<(), NoRoomReason> {
        loop {
            let progress = self.shared.command_log.progress();
            if let Some(done) = self.log_room() {
                done?;
                break;
            }
            let _ = tokio::time::timeout(ROOM_LOOK, progress).await;
        }
        loop {
            let notified = self.shared.disk_limit.notify.notified();
            if let Some(done) = self.disk_room(bytes) {
                done?;
                break;
            }
            let _ = tokio::time::timeout(ROOM_LOOK, notified).await;
        }
        self.wait_for_records(bytes).await
    }

    /// As [`Self::wait_for_room`], for an operation that is suspended: it does not wait for the command log, which may have to
    /// wait for its end.
    ///
    /// # Errors
    ///
    /// Why there will be no room.
    pub async fn wait_for_records(&self, bytes: u64) -> Result<(), NoRoomReason> {
        loop {
            let notified = self.shared.room.notify.notified();
            if let Some(done) = self.room_or_reason(bytes) {
                return done;
            }
            // The tiering thread notifies at the end of each round; the limit only guards against a lost wake-up.
            let _ = tokio::time::timeout(ROOM_LOOK, notified).await;
        }
    }

    pub(crate) fn wait_for_room_blocking(&self, bytes: u64) -> Result<(), NoRoomReason> {
        loop {
            if let Some(done) = self.log_room() {
                done?;
                break;
            }
            self.shared.command_log.wait_progress(ROOM_LOOK);
        }
        loop {
            if let Some(done) = self.disk_room(bytes) {
                done?;
                break;
            }
            std::thread::sleep(DISK_LOOK);
        }
        self.wait_for_records_blocking(bytes)
    }

    pub(crate) fn wait_for_records_blocking(&self, bytes: u64) -> Result<(), NoRoomReason> {
        loop {
            let round = self.shared.room.round();
            if let Some(done) = self.room_or_reason(bytes) {
                return done;
            }
            self.shared.room.wait_for_round_after(round, ROOM_LOOK);
        }
    }

    /// Whether `bytes` may be appended as far as the limit of the data files goes, or why not; `None` while room is being made.
    fn disk_room(&self, bytes: u64) -> Option<Result<(), NoRoomReason>> {
        match self.shared.disk_room() {
            _ if bytes == 0 => Some(Ok(())),
            DiskRoom::Free => Some(Ok(())),
            DiskRoom::Held => None,
            DiskRoom::Full => Some(Err(NoRoomReason::OutOfMemory)),
        }
    }

    /// Whether the command log can take more, or why it never will; `None` while it is busy.
    fn log_room(&self) -> Option<Result<(), NoRoomReason>> {
        let log = &self.shared.command_log;
        match log.health() {
            _ if log.has_room() => Some(Ok(())),
            Health::Ok => None,
            Health::CannotWrite(why) | Health::Poisoned(why) => {
                Some(Err(NoRoomReason::CannotWrite(why)))
            }
        }
    }

    fn room_or_reason(&self, bytes: u64) -> Option<Result<(), NoRoomReason>> {
        // What needs no room in the log of records has it, however full that is.
        if bytes == 0 || self.shared.has_room(bytes) {
            return Some(Ok(()));
        }
        self.shared.room.want(bytes);
        if self.shared.can_have_room(bytes) {
            // That memory is used up may have been true when it was said.
            let refused = self.shared.room.refused();
            refused
                .filter(|why| *why != NoRoomReason::OutOfMemory)
                .map(Err)
        } else {
            Some(Err(NoRoomReason::OutOfMemory))
        }
    }

    /// Number of keys in `namespace`; O(1). Exact, but that expired keys count until they are removed, and a blind write
    /// over a cold slot of another key with the same tag (about one in 15,000 such writes) counts as
    /// the same key, until half a second after the last of them.
    pub fn len(&self, namespace: Namespace) -> u64 {
        self.shared.key_counts.keys(namespace)
    }

    /// Whether `namespace` has no keys.
    pub fn is_empty(&self, namespace: Namespace) -> bool {
        self.len(namespace) == 0
    }

    /// Whether nothing is stored in any namespace.
    pub fn has_nothing(&self) -> bool {
        self.shared.index.slots() == 0
    }

    /// Number of keys in `namespace` that carry an expiry; O(1). A blind write over a cold record does not know whether
    /// that had one.
    pub fn expiring(&self, namespace: Namespace) -> u64 {
        self.shared.key_counts.expiring(namespace)
    }

    /// How many milliseconds the keys of `namespace` that expire have left to live on average, as far as those tell that
    /// [`Self::expire_some`] has met in memory; 0 if it has met none.
    pub fn average_ttl_ms(&self, namespace: Namespace) -> u64 {
        self.shared.average_ttls.of(namespace)
    }

    /// Where a read has last met a record that is not as it was written: the file, the offset, and what is wrong. How often
    /// that was is in [`Stats::damaged_reads`](crate::Stats::damaged_reads).
    pub fn last_damage(&self) -> Option<String> {
        self.shared.read_damage.last()
    }

    /// Forgets everything in `namespace`, blocking the thread while it sweeps the index. The caller has made sure that the
    /// namespace is not used any more, and may use it again afterwards.
    pub fn clear(&self, namespace: Namespace) {
        self.shared.sweep(namespace);
    }

    /// Discards what [`Operation::retire_everything`] has retired: slots, memory and files; blocks the thread, for well under
    /// a microsecond a slot. `namespaces` are those that were in use; they may be used again afterwards.
    pub fn sweep(&self, retired: Retired, namespaces: &[Namespace]) {
        self.shared.sweep_retired(&retired, namespaces);
    }

    /// Removes keys that have expired by `now_ms`: those in memory, looking at `buckets` more buckets of the index each time it
    /// is called, and some thousands of those on the device, as the key files list them, reading no values. Blocks the thread
    /// for the reads that takes.
    pub fn expire_some(&self, now_ms: u64, buckets: usize) -> ExpiredSome {
        self.shared.expire_some(now_ms, buckets)
    }

    /// The collections that [`Self::expire_some`] has found to be due ([`Operation::set_header_due`]) since this was called last; a
    /// few thousand at most, the others are found again. One may be named twice, or not be due any more.
    pub fn take_due(&self) -> Vec<(Namespace, Vec<u8>)> {
        self.shared.take_due()
    }

    /// Changes the memory that may be used, to no more than [`Options::memory_max_bytes`] (or what it was opened with, if
    /// that is more); segments leave memory as needed.
    pub fn set_memory_bytes(&self, bytes: u64) {
        self.shared.set_memory(bytes);
    }

    /// Changes how much of the memory is used outside the engine. What that leaves holds for the engine at once; segments
    /// that are too many leave memory as fast as they can, see [`Self::has_given_way`].
    pub fn set_reserved_bytes(&self, bytes: u64) {
        self.shared.set_reserved(bytes);
    }

    /// What the engine takes of the program's heap, as far as it counts as the engine's and need not be reserved.
    pub fn heap_bytes(&self) -> u64 {
        self.shared.heap_bytes()
    }

    /// Whether the engine takes no more memory than the rest leaves it.
    pub fn has_given_way(&self) -> bool {
        self.shared.log.in_memory() <= self.shared.log.budget()
    }

    /// The most that can be used outside the engine so that it still can work.
    pub fn reserved_max_bytes(&self) -> u64 {
        self.shared.reserved_max_bytes()
    }

    /// The longest value that can be stored.
    pub fn value_max_bytes(&self) -> u64 {
        self.shared.value_max_bytes()
    }

    /// The longest key that can be stored.
    pub fn key_max_bytes(&self) -> u64 {
        self.shared.key_max_bytes()
    }

    /// Seals all segments that are mutable now: writes them to their files and maps them.
    ///
    /// # Errors
    ///
    /// [`Stop::Io`]: which file cannot be written, and why.
    pub fn seal_all(&self) -> Result<(), Stop> {
        self.shared
            .seal_all()
            .map_err(|why| Stop::Io(io::Error::other(why)))
    }

    /// Moves everything that is in memory now to the device.
    ///
    /// # Errors
    ///
    /// [`Stop::Io`]: which file cannot be written, and why.
    pub fn force_cold(&self) -> Result<(), Stop> {
        self.shared
            .force_cold()
            .map_err(|why| Stop::Io(io::Error::other(why)))
    }

    /// Figures of the engine.
    pub fn stats(&self) -> Stats {
        let (shared, counters) = (&self.shared, &self.shared.counters);
        let [mutable_segments, warm_segments, cold_segments] = shared.tier_sizes();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            mutable_segments,
            warm_segments,
            cold_segments,
            segment_budget: shared.log.budget() as u64,
            segment_bytes: shared.log.geometry.segment_bytes() as u64,
            index_slots: shared.index.slots(),
            index_bytes: shared.index.bytes(),
            appended_bytes: read(&shared.log.appended_bytes),
            written_bytes: read(&counters.written_bytes),
            second_chances: read(&counters.second_chances),
            promotions: read(&counters.promotions),
            evicted: read(&self.shared.disk_limit.evicted),
            shadows: read(&counters.shadows),
            cold_reads: read(&counters.cold_reads),
            damaged_reads: self.shared.read_damage.met(),
            warm_copied_bytes: read(&counters.warm_copied_bytes),
            expired: read(&counters.expired),
            expiry_errors: read(&counters.expiry_errors),
            flush_errors: read(&counters.flush_errors),
            compaction_errors: read(&counters.compaction_errors),
            compaction_read_bytes: read(&shared.compaction.read_bytes),
            compaction_moved_bytes: read(&shared.compaction.moved_bytes),
            compaction_reclaimed_bytes: read(&shared.compaction.reclaimed_bytes),
        }
    }

    /// Counters of the reads made for blocking operations.
    pub fn blocking_io_stats(&self) -> &IoStats {
        &self.shared.blocking_stats
    }
}

/// An epoch pin for a batch of operations.
pub struct Pin {
    _guard: Guard,
}

impl<I: Index> Shared<I> {
    /// An operation on the one key that has this hash.
    #[inline]
    pub(crate) fn operation_on_hash<'s>(
        &'s self,
        hash: u64,
        mode: LatchMode,
        reads: &'s ColdReads,
        now_ms: u64,
    ) -> Option<Operation<'s, I>> {
        let held = Held::acquire_one(&self.latches, Latches::stripe(hash), mode)?;
        Some(Operation::new(self, held, reads, now_ms))
    }

    #[inline]
    pub(crate) fn operation<'s>(
        &'s self,
        keys: &[KeyRef<'_>],
        reads: &'s ColdReads,
        now_ms: u64,
    ) -> Option<Operation<'s, I>> {
        if let [key] = keys {
            let hash = self.hash(key.namespace, key.key);
            // On its way while the latch is taken and the epoch pinned, which no load passes.
            self.index.prefetch(hash);
            return self.operation_on_hash(hash, key.mode, reads, now_ms);
        }
        let stripe = |key: &KeyRef<'_>| Latches::stripe(self.hash(key.namespace, key.key));
        let stripes = keys.iter().map(|key| (stripe(key), key.mode)).collect();
        let held = Held::acquire(&self.latches, stripes)?;
        Some(Operation::new(self, held, reads, now_ms))
    }
}

impl LookedUp {
    /// Nothing but the hash.
    #[inline]
    pub(crate) fn of(hash: u64) -> LookedUp {
        LookedUp { hash, newest: None }
    }

    /// The newest slot that may be the key's, if that is still known.
    #[inline]
    pub(crate) fn newest_slot<I: Index>(&self, index: &I) -> Option<Slot> {
        let (slot, version) = self.newest?;
        (index.version(self.hash) == Some(version)).then_some(slot)
    }
}
