//! The store: opening it, simple blocking access, and starting operations.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use smallvec::SmallVec;

use crate::address::{Geometry, Slot, SlotKind};
use crate::disk::{Directory, Disk};
use crate::epoch::{self, Guard};
use crate::flush::Retired;
use crate::generation::{FIRST_GENERATION, Generations};
use crate::index::{BucketIndex, Index};
use crate::io::{Backend, BlockingReader, IoStats};
use crate::latch::{LatchMode, Latches};
use crate::log::Log;
use crate::open_files::OpenFiles;
use crate::operation::{Held, KeptLatches, KeyRef, Operation};
use crate::reads::ColdReads;
use crate::residence::RecentColdReads;
use crate::room::{NoRoomReason, Room};
use crate::segment::Place;
use crate::shadows::Shadows;
use crate::shared::Shared;
use crate::stats::{Counters, KeyCounts, Stats, count};
use crate::sys::prefetch;
use crate::tiering::{SEGMENTS_IN_TRANSIT, SEGMENTS_MIN};
use crate::{Namespace, Stop};

/// Segments are between these sizes.
pub(crate) const SEGMENT_BYTES: std::ops::RangeInclusive<usize> = 1 << 20..=32 << 20;

/// More memory than this finds no address space beside the rest of a process.
const MEMORY_MAX_BYTES: u64 = 1 << 46;

/// Hashes of the keys of one batch.
pub(crate) type Prefetched = SmallVec<[LookedUp; 64]>;

/// What was found out about a key ahead of its operation.
#[derive(Clone, Copy)]
pub(crate) struct LookedUp {
    pub(crate) hash: u64,
    /// The only slot that may be the key's, and the index's version that says so.
    only: Option<(Slot, u64)>,
}

/// How to open a [`Store`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if it does not exist.
    pub directory: PathBuf,
    /// What index, segments in memory and `reserved_bytes` may take together.
    pub memory_bytes: u64,
    /// The most that `memory_bytes` can be raised to later; address space is reserved for it.
    pub memory_max_bytes: u64,
    /// Memory that the embedding program needs beside the engine, counted in `memory_bytes`.
    pub reserved_bytes: u64,
    /// Size of a segment: a power of two from 1 to 32 MiB; `None`: a 64th of `memory_bytes`.
    pub segment_bytes: Option<usize>,
    /// How blocking reads reach the device.
    pub backend: Backend,
    /// What everything is written to, in place of the directory itself; its files must be found in `directory`.
    pub disk: Option<Arc<dyn Disk>>,
}

impl Options {
    /// A store in `directory` with 256 MiB of memory.
    pub fn new(directory: impl Into<PathBuf>) -> Options {
        Options {
            directory: directory.into(),
            memory_bytes: 256 << 20,
            memory_max_bytes: 0,
            reserved_bytes: 0,
            segment_bytes: None,
            backend: Backend::Auto,
            disk: None,
        }
    }

    /// Sets the memory.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Options {
        self.memory_bytes = bytes;
        self
    }

    fn memory_max(&self) -> u64 {
        self.memory_bytes.max(self.memory_max_bytes)
    }

    fn segment_size(&self) -> usize {
        let automatic = (self.memory_bytes / 64).next_power_of_two();
        self.segment_bytes.unwrap_or(
            automatic.clamp(*SEGMENT_BYTES.start() as u64, *SEGMENT_BYTES.end() as u64) as usize,
        )
    }
}

/// Why a store cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// An option is out of range; the text names it, its value and what is allowed.
    Option(String),
    /// Another process uses the directory.
    InUse(PathBuf),
    /// The directory holds the data of an earlier run, which this version cannot read back and does not touch.
    HasData(PathBuf),
    /// The system refused something; the text says what.
    Io(String, io::Error),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Option(text) => write!(f, "{text}"),
            OpenError::InUse(path) => write!(
                f,
                "data directory {} is in use by another process",
                path.display()
            ),
            OpenError::HasData(path) => write!(
                f,
                "data directory holds segment files of an earlier run ({}): this version cannot read them back and does \
                 not touch them; choose another directory, or move them away",
                path.display()
            ),
            OpenError::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let what = format!("{what} {}", path.display());
    move |error| OpenError::Io(what, error)
}

/// A three-tier HybridLog store. See the [crate documentation](crate).
pub struct Store<I: Index = BucketIndex> {
    pub(crate) shared: Arc<Shared<I>>,
    stopping: Arc<AtomicBool>,
    tiering: Option<JoinHandle<()>>,
    /// Holds the lock on the directory.
    _lock: File,
}

impl<I: Index> Store<I> {
    /// Opens a store in its directory, which no other process may be using.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. Nothing in the directory is changed then, but for the directory itself and its lock file.
    pub fn open(options: Options) -> Result<Arc<Store<I>>, OpenError> {
        let segment_bytes = options.segment_size();
        if !segment_bytes.is_power_of_two() || !SEGMENT_BYTES.contains(&segment_bytes) {
            return Err(OpenError::Option(format!(
                "segment size {segment_bytes}: must be a power of two from {} to {}",
                SEGMENT_BYTES.start(),
                SEGMENT_BYTES.end()
            )));
        }
        let log_least = (SEGMENTS_MIN + SEGMENTS_IN_TRANSIT + 1) * segment_bytes;
        let least = options.reserved_bytes.saturating_add(log_least as u64);
        for given in [options.memory_bytes, options.memory_max()] {
            if !(least..=MEMORY_MAX_BYTES).contains(&given) {
                return Err(OpenError::Option(format!(
                    "memory of {given} bytes: must be from {least} to {MEMORY_MAX_BYTES}"
                )));
            }
        }
        let directory = &options.directory;
        fs::create_dir_all(directory).map_err(io_error("cannot make data directory", directory))?;
        let lock = lock_directory(directory)?;
        refuse_existing_data(directory)?;
        let shared = new_shared(&options, segment_bytes)
            .map_err(|error| OpenError::Io("cannot set up the store".to_string(), error))?;
        let shared = Arc::new(shared);
        let stopping = Arc::new(AtomicBool::new(false));
        let tiering = std::thread::Builder::new()
            .name("tiering".to_string())
            .spawn({
                let (shared, stopping) = (shared.clone(), stopping.clone());
                move || shared.run_tiering(&|| stopping.load(Ordering::Acquire))
            });
        let tiering = tiering
            .map_err(|error| OpenError::Io("cannot start the tiering thread".to_string(), error))?;
        Ok(Arc::new(Store {
            shared,
            stopping,
            tiering: Some(tiering),
            _lock: lock,
        }))
    }

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
            prefetched.push(LookedUp { hash, only: None });
        }
        let _pin = epoch::pin();
        for looked_up in &mut prefetched {
            self.prefetch_records(looked_up, reads, cold_bytes_max);
        }
        prefetched
    }

    #[inline]
    fn prefetch_records(&self, key: &mut LookedUp, reads: &ColdReads, cold_bytes_max: u64) {
        // Before the candidates, see `Slots::version`.
        let version = self.shared.index.version(key.hash);
        let candidates = self.shared.index.candidates(key.hash, SlotKind::Root);
        let Some(slot) = candidates.first() else {
            return;
        };
        if let (1, Some(version)) = (candidates.len(), version) {
            key.only = Some((*slot, version));
        }
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
                    reads.record(*slot, &segment, files, geometry);
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

    /// Waits until `bytes` can be written.
    ///
    /// # Errors
    ///
    /// Why there will be no room.
    pub async fn wait_for_room(&self, bytes: u64) -> Result<(), NoRoomReason> {
        loop {
            let notified = self.shared.room.notify.notified();
            if let Some(done) = self.room_or_reason(bytes) {
                return done;
            }
            // The tiering thread notifies at the end of each round; the limit only guards against a lost wake-up.
            let _ = tokio::time::timeout(Duration::from_millis(100), notified).await;
        }
    }

    pub(crate) fn wait_for_room_blocking(&self, bytes: u64) -> Result<(), NoRoomReason> {
        loop {
            let round = self.shared.room.round();
            if let Some(done) = self.room_or_reason(bytes) {
                return done;
            }
            let limit = Duration::from_millis(100);
            self.shared.room.wait_for_round_after(round, limit);
        }
    }

    fn room_or_reason(&self, bytes: u64) -> Option<Result<(), NoRoomReason>> {
        if self.shared.has_room(bytes) {
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

    /// Removes keys that have expired by `now_ms`, looking at `buckets` more buckets of the index each time it is called.
    /// Returns how many it removed.
    pub fn expire_some(&self, now_ms: u64, buckets: usize) -> u64 {
        self.shared.expire_some(now_ms, buckets)
    }

    /// Changes the memory that may be used, to no more than [`Options::memory_max_bytes`] (or what it was opened with, if
    /// that is more); segments leave memory as needed.
    pub fn set_memory_bytes(&self, bytes: u64) {
        self.shared.set_memory(bytes);
    }

    /// Changes how much of the memory is used outside the engine.
    pub fn set_reserved_bytes(&self, bytes: u64) {
        self.shared.reserved_bytes.store(bytes, Ordering::Relaxed);
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
            shadows: read(&counters.shadows),
            cold_reads: read(&counters.cold_reads),
            warm_copied_bytes: read(&counters.warm_copied_bytes),
            expired: read(&counters.expired),
            flush_errors: read(&counters.flush_errors),
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
    /// The only slot that may be the key's, if that is still known. The caller holds the key's latch.
    #[inline]
    pub(crate) fn only_slot<I: Index>(&self, index: &I) -> Option<Slot> {
        let (slot, version) = self.only?;
        (index.version(self.hash) == Some(version)).then_some(slot)
    }
}

impl<I: Index> Drop for Store<I> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.shared.room.wake_tiering();
        if let Some(thread) = self.tiering.take() {
            // A panic of the thread has been reported when it happened.
            let _ = thread.join();
        }
    }
}

fn new_shared<I: Index>(options: &Options, segment_bytes: usize) -> io::Result<Shared<I>> {
    let memory_max = options.memory_max();
    let segments_max = (memory_max / segment_bytes as u64) as usize;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let blocking_stats = Arc::<IoStats>::default();
    let (blocking_reader, _) = BlockingReader::new(options.backend, blocking_stats.clone())?;
    let disk = match &options.disk {
        Some(disk) => disk.clone(),
        None => Arc::new(Directory::new(options.directory.clone())),
    };
    let shared = Shared {
        index: I::with_limit(memory_max as usize)?,
        log: Log::new(Geometry::new(segment_bytes), SEGMENTS_MIN, segments_max)?,
        latches: Arc::new(Latches::new()),
        // About as many places as there are records of half a KiB in memory.
        recent_cold_reads: RecentColdReads::new(
            (options.memory_bytes / 512).clamp(4096, 4 << 20) as usize
        ),
        key_counts: KeyCounts::new()?,
        generations: Arc::new(Generations::new(FIRST_GENERATION)),
        counters: Counters::default(),
        room: Room::default(),
        shadows: Shadows::default(),
        next_object: AtomicU64::new(1),
        blocking_reader,
        blocking_stats,
        open_files: Arc::new(OpenFiles::new(disk.clone())),
        disk,
        memory_bytes: AtomicU64::new(options.memory_bytes),
        memory_max_bytes: memory_max,
        reserved_bytes: AtomicU64::new(options.reserved_bytes),
        tiering: parking_lot::Mutex::new(()),
        expired: parking_lot::Mutex::default(),
        expiry_position: AtomicU64::new(0),
        seed: u64::from_le_bytes(seed),
    };
    shared
        .log
        .set_budget(shared.segments_that_fit().max(SEGMENTS_MIN));
    Ok(shared)
}

/// Takes the lock on the directory; the kernel lets go of it when the process ends, however it ends.
fn lock_directory(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("LOCK");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(io_error("cannot open lock file", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_path_buf())),
        Err(fs::TryLockError::Error(error)) => Err(io_error("cannot lock", &path)(error)),
    }
}

fn refuse_existing_data(directory: &Path) -> Result<(), OpenError> {
    let failed = || io_error("cannot read data directory", directory);
    for entry in fs::read_dir(directory).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            return Err(OpenError::HasData(path));
        }
    }
    Ok(())
}
