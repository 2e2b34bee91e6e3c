//! Opening a store: options, checks, the lock on the directory, and the threads.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::address::Geometry;
use crate::average_ttl::AverageTtls;
use crate::checkpoint::Checkpoints;
use crate::command_log::{self, CommandLog, SyncPolicy};
use crate::compaction::Compaction;
use crate::disk::{Directory, Disk};
use crate::disk_limit::DiskLimit;
use crate::generation::Generations;
use crate::graveyard::Graveyard;
use crate::index::Index;
use crate::io::{Backend, BlockingReader, IoStats};
use crate::key_cache::KeyCache;
use crate::key_file;
use crate::latch::Latches;
use crate::log::Log;
use crate::manifest::Manifest;
use crate::open_files::OpenFiles;
use crate::read_damage::ReadDamage;
use crate::recovery::Recovery;
use crate::residence::RecentColdReads;
use crate::room::Room;
use crate::shadows::Shadows;
use crate::shared::Shared;
use crate::stats::{Counters, KeyCounts};
use crate::store::{SEGMENT_BYTES, Store};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;
use crate::sys;
use crate::tiering::{self, SEGMENTS_IN_TRANSIT, SEGMENTS_MIN};
use crate::watch::Watches;

/// More memory than this finds no address space beside the rest of a process.
const MEMORY_MAX_BYTES: u64 = 1 << 46;

/// This share of the memory is for what the command log has not written yet, within these bounds; it may take twice as much.
const LOG_BUFFER_SHARE: u64 = 128;
const LOG_BUFFER_BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=8 << 20;

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
    /// Whether every change goes to the command log, so that a restart finds it. Without, a restart finds the last checkpoint.
    pub command_log: bool,
    /// When the command log is synced.
    pub sync: SyncPolicy,
    /// So many bytes of command log, or of records appended, since the last checkpoint make the next one due.
    pub checkpoint_bytes: u64,
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
            command_log: true,
            sync: SyncPolicy::EverySecond,
            checkpoint_bytes: 1 << 30,
        }
    }

    /// Sets the memory.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Options {
        self.memory_bytes = bytes;
        self
    }

    /// Whether there is a command log.
    #[must_use]
    pub fn command_log(mut self, on: bool) -> Options {
        self.command_log = on;
        self
    }

    fn memory_max(&self) -> u64 {
        self.memory_bytes.max(self.memory_max_bytes)
    }

    /// The size of a new directory's segments.
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
    /// The memory is too little, or more than any store can have.
    Memory {
        /// What was given, in bytes.
        given: u64,
        /// What is needed, in bytes.
        least: u64,
        /// With segments of this size. A data directory keeps the size that it was made with.
        segment_bytes: usize,
    },
    /// Another process uses the directory.
    InUse(PathBuf),
    /// The directory holds this file of data, but no manifest that says what it is part of.
    NoManifest(PathBuf),
    /// The system refused something; the text says what.
    Io(String, io::Error),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Option(text) => write!(f, "{text}"),
            OpenError::Memory {
                given,
                least,
                segment_bytes,
            } => write!(
                f,
                "memory of {given} bytes: must be from {least} to {MEMORY_MAX_BYTES}, with segments of {segment_bytes} bytes"
            ),
            OpenError::InUse(path) => write!(
                f,
                "data directory {} is in use by another process",
                path.display()
            ),
            OpenError::NoManifest(path) => write!(
                f,
                "data directory has no MANIFEST but holds data ({}), which is left as it is: restore the manifest, or choose \
                 another directory",
                path.display()
            ),
            OpenError::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

pub(crate) fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let what = format!("{what} {}", path.display());
    move |error| OpenError::Io(what, error)
}

/// The threads of an open store, and what ends them.
pub(crate) struct Threads {
    stopping: Arc<AtomicBool>,
    tiering: Option<JoinHandle<()>>,
    checkpoints: Option<JoinHandle<()>>,
    compaction: Option<JoinHandle<()>>,
    disk_limit: Option<JoinHandle<()>>,
}

impl<I: Index> Store<I> {
    /// Opens a store in its directory, which no other process may be using, and recovers what it holds: what the last
    /// checkpoint has saved, then what the command log has of later changes. Takes about a tenth of a microsecond a record,
    /// and as long as the logged changes took, on one core.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. Nothing in the directory is changed then, but for the directory itself and its lock file.
    pub fn open(options: Options) -> Result<Arc<Store<I>>, OpenError> {
        let store = Store::open_unrecovered(options)?;
        store.recover()?;
        Ok(store)
    }

    /// The first part of [`Self::open`]: everything but the recovery. Until [`Self::recover`] has returned `Ok` the store must
    /// not be used for anything but its [`recovery_stats`](Self::recovery_stats).
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_unrecovered(options: Options) -> Result<Arc<Store<I>>, OpenError> {
        let directory = &options.directory;
        fs::create_dir_all(directory).map_err(io_error("cannot make data directory", directory))?;
        let lock = lock_directory(directory)?;
        let disk: Arc<dyn Disk> = match &options.disk {
            Some(disk) => disk.clone(),
            None => Arc::new(Directory::new(directory.clone())),
        };
        let found = load_manifest(&*disk, directory)?;
        let is_new = found.is_none();
        let manifest = match found {
            Some(manifest) => manifest,
            None => new_manifest(&options)?,
        };
        check_options(&options, &manifest)?;
        let set_up = |error| OpenError::Io("cannot set up the store".to_string(), error);
        let shared = Arc::new(new_shared(&options, disk.clone(), &manifest).map_err(set_up)?);
        if is_new {
            manifest
                .store(&*disk)
                .map_err(|error| OpenError::Io("cannot write the manifest".to_string(), error))?;
        }
        let threads = Threads::start(&shared).map_err(set_up)?;
        Ok(Arc::new(Store {
            shared,
            threads,
            _lock: lock,
        }))
    }

    /// The second part of [`Self::open`]; blocks the thread. To be called once.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`]: what is missing or damaged, or cannot be read. The store is of no use then, and nothing in the
    /// directory has been changed.
    pub fn recover(&self) -> Result<(), OpenError> {
        self.recover_files()
            .map_err(|error| OpenError::Io("cannot recover".to_string(), error))
    }
}

impl Threads {
    fn start<I: Index>(shared: &Arc<Shared<I>>) -> io::Result<Threads> {
        let stopping = Arc::new(AtomicBool::new(false));
        let spawn = |name: &str, run: fn(&Shared<I>, &dyn Fn() -> bool)| {
            // What these would do, the threads of an interleaving do.
            if cfg!(shuttle) {
                return Ok(None);
            }
            let (shared, stopping) = (shared.clone(), stopping.clone());
            std::thread::Builder::new()
                .name(name.to_string())
                .spawn(move || run(&shared, &|| stopping.load(Ordering::Acquire)))
                .map(Some)
        };
        Ok(Threads {
            tiering: spawn("tiering", Shared::run_tiering)?,
            checkpoints: spawn("checkpoint", Shared::run_checkpoints)?,
            compaction: spawn("compaction", |shared, stop| {
                sys::lower_own_priority();
                shared.run_compaction(stop);
            })?,
            disk_limit: spawn("disk-limit", Shared::run_disk_limit)?,
            stopping,
        })
    }
}

impl<I: Index> Drop for Store<I> {
    fn drop(&mut self) {
        let (shared, threads) = (&self.shared, &mut self.threads);
        threads.stopping.store(true, Ordering::Release);
        shared.checkpoints.cancel();
        shared.checkpoints.wake();
        shared.room.wake_tiering();
        shared.compaction.wake();
        shared.disk_limit.wake();
        for thread in [
            threads.disk_limit.take(),
            threads.compaction.take(),
            threads.checkpoints.take(),
            threads.tiering.take(),
        ] {
            // A panic of a thread has been reported when it happened.
            let _ = thread.map(JoinHandle::join);
        }
        if shared.recovery.stats().is_over {
            // What cannot be written now is lost as in a crash; nobody has been told that it is durable.
            let _ = shared.command_log.shutdown();
        }
    }
}

/// The manifest, if the directory has one; it must if it has anything else of ours.
fn load_manifest(disk: &dyn Disk, directory: &Path) -> Result<Option<Manifest>, OpenError> {
    let failed = |error| OpenError::Io(format!("cannot open {}", directory.display()), error);
    let manifest = Manifest::load(disk).map_err(failed)?;
    if manifest.is_none() {
        let names = disk.names().map_err(failed)?;
        let is_data = |name: &&String| {
            tiering::file_id_of(name).is_some()
                || key_file::file_id_of(name).is_some()
                || command_log::generation_of_log(name).is_some()
        };
        if let Some(name) = names.iter().find(is_data) {
            return Err(OpenError::NoManifest(directory.join(name)));
        }
    }
    Ok(manifest)
}

/// The manifest of a new directory.
fn new_manifest(options: &Options) -> Result<Manifest, OpenError> {
    let segment_bytes = options.segment_size();
    if !segment_bytes.is_power_of_two() || !SEGMENT_BYTES.contains(&segment_bytes) {
        return Err(OpenError::Option(format!(
            "segment size {segment_bytes}: must be a power of two from {} to {}",
            SEGMENT_BYTES.start(),
            SEGMENT_BYTES.end()
        )));
    }
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)
        .map_err(|error| OpenError::Io("no random seed".to_string(), io::Error::other(error)))?;
    Ok(Manifest {
        segment_bytes: segment_bytes as u32,
        hash_seed: u64::from_le_bytes(seed),
        next_file_id: 1,
        next_object_id: 1,
        ..Manifest::default()
    })
}

fn check_options(options: &Options, manifest: &Manifest) -> Result<(), OpenError> {
    let segment_bytes = manifest.segment_bytes as usize;
    if let Some(wanted) = options
        .segment_bytes
        .filter(|&wanted| wanted != segment_bytes)
    {
        return Err(OpenError::Option(format!(
            "segment size {wanted}: the data directory has segments of {segment_bytes} bytes, which cannot be changed"
        )));
    }
    let log_least = (SEGMENTS_MIN + SEGMENTS_IN_TRANSIT + 1) * segment_bytes;
    let least = options.reserved_bytes.saturating_add(log_least as u64);
    for given in [options.memory_bytes, options.memory_max()] {
        if !(least..=MEMORY_MAX_BYTES).contains(&given) {
            return Err(OpenError::Memory {
                given,
                least,
                segment_bytes,
            });
        }
    }
    Ok(())
}

fn new_shared<I: Index>(
    options: &Options,
    disk: Arc<dyn Disk>,
    manifest: &Manifest,
) -> io::Result<Shared<I>> {
    let segment_bytes = manifest.segment_bytes as usize;
    let memory_max = options.memory_max();
    let segments_max = (memory_max / segment_bytes as u64) as usize;
    let blocking_stats = Arc::<IoStats>::default();
    let (blocking_reader, _) = BlockingReader::new(options.backend, blocking_stats.clone())?;
    let last_log = command_log::last_generation(&*disk, manifest.logs())?;
    let generation = last_log.unwrap_or(manifest.generation) + 1;
    let next_file_id = next_file_id(&*disk, manifest)?;
    let buffer_bytes = (options.memory_bytes / LOG_BUFFER_SHARE)
        .clamp(*LOG_BUFFER_BYTES.start(), *LOG_BUFFER_BYTES.end());
    let shared = Shared {
        index: I::with_limit(memory_max as usize)?,
        log: Log::new(
            Geometry::new(segment_bytes),
            SEGMENTS_MIN,
            segments_max,
            next_file_id,
        )?,
        latches: Arc::new(Latches::new()),
        // About as many places as there are records of half a KiB in memory.
        recent_cold_reads: RecentColdReads::new(
            (options.memory_bytes / 512).clamp(4096, 4 << 20) as usize
        ),
        key_counts: KeyCounts::new()?,
        generations: Arc::new(Generations::new(generation)),
        counters: Counters::default(),
        room: Room::default(),
        watches: Arc::new(Watches::new()),
        shadows: Shadows::default(),
        next_object: AtomicU64::new(manifest.next_object_id),
        page_searches: AtomicU64::new(0),
        command_log: CommandLog::new(disk.clone(), options.sync, buffer_bytes as usize),
        log_buffer_bytes: buffer_bytes,
        checkpoints: Checkpoints::new(
            manifest.clone(),
            options.command_log,
            options.checkpoint_bytes,
        ),
        recovery: Recovery::default(),
        compaction: Compaction::default(),
        disk_limit: DiskLimit::default(),
        graveyard: Graveyard::default(),
        blocking_reader,
        blocking_stats,
        open_files: Arc::new(OpenFiles::new(disk.clone())),
        key_cache: KeyCache::new(options.memory_bytes),
        disk,
        memory_bytes: AtomicU64::new(options.memory_bytes),
        memory_max_bytes: memory_max,
        reserved_bytes: AtomicU64::new(options.reserved_bytes),
        tiering: Mutex::new(()),
        expired: Mutex::default(),
        due: Mutex::default(),
        expiry_position: AtomicU64::new(0),
        average_ttls: AverageTtls::default(),
        read_damage: ReadDamage::default(),
        seed: manifest.hash_seed,
    };
    shared
        .log
        .set_budget(shared.segments_that_fit().max(SEGMENTS_MIN));
    Ok(shared)
}

/// Above the ids of all files that are there: leftovers of a crash are not removed before the recovery has succeeded.
fn next_file_id(disk: &dyn Disk, manifest: &Manifest) -> io::Result<u64> {
    let names = disk.names()?;
    let ids = names
        .iter()
        .filter_map(|name| tiering::file_id_of(name).or_else(|| key_file::file_id_of(name)));
    Ok(ids
        .map(|id| id.saturating_add(1))
        .fold(manifest.next_file_id, u64::max))
}

/// Takes the lock on the directory; the kernel lets go of it when the process ends, however it ends.
pub(crate) fn lock_directory(directory: &Path) -> Result<File, OpenError> {
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
