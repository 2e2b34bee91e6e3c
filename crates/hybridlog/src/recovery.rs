//! Recovery: from the files of a data directory to a store that answers.
//!
//! The index is built from the recovery columns of the key files of the segments that the manifest names, without those
//! records that the deaths files name: what is listed and not dead is live, one record a key, so no key is compared and no
//! value read. Then the command logs of later generations are replayed (`redo`). After that everything recovered is cold, and each
//! record is checked by its CRC when it is read.
//!
//! Nothing is removed before all of that has succeeded.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::address::{Slot, SlotKind};
use crate::command_log;
use crate::deaths::{self, DeathsReader, FileDeaths};
use crate::index::Index;
use crate::key_file::{self, KeyFile};
use crate::manifest::{Manifest, SegmentEntry, Unresolved};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::store::Store;
use crate::tiering::{self, segment_file_name};
use crate::{Damage, Namespace};

/// Threads that read key files or command logs, at most.
const THREADS_MAX: usize = 8;

/// How recovery is getting on, and what it has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryStats {
    /// Whether it is over.
    pub is_over: bool,
    /// Time since it began, or what it has taken.
    pub took: Duration,
    /// Segments that the manifest names.
    pub segments: u64,
    /// Segments whose key files have been read.
    pub segments_read: u64,
    /// Live records found in them.
    pub records: u64,
    /// Bytes of command logs to be replayed.
    pub log_bytes: u64,
    /// Bytes of them that have been replayed.
    pub log_bytes_read: u64,
    /// Frames of the command logs that have been replayed.
    pub frames: u64,
    /// Bytes at the end of the last command log that were torn off by a crash and have been cut.
    pub cut_bytes: u64,
}

/// The figures as they change.
#[derive(Default)]
pub(crate) struct Recovery {
    stats: Mutex<RecoveryStats>,
    begun: Mutex<Option<Instant>>,
    segments_read: AtomicU64,
    records: AtomicU64,
    pub(crate) log_bytes_read: AtomicU64,
    pub(crate) frames: AtomicU64,
}

impl Recovery {
    pub(crate) fn stats(&self) -> RecoveryStats {
        let mut stats = *self.stats.lock();
        if !stats.is_over {
            stats.took = self
                .begun
                .lock()
                .map_or(Duration::ZERO, |begun| begun.elapsed());
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RecoveryStats {
            segments_read: read(&self.segments_read),
            records: read(&self.records),
            log_bytes_read: read(&self.log_bytes_read),
            frames: read(&self.frames),
            ..stats
        }
    }
}

/// Ascending numbers that are asked for in ascending order.
struct InOrder<'a>(&'a [u32]);

impl InOrder<'_> {
    fn has(&mut self, number: u32) -> bool {
        while let [first, rest @ ..] = self.0 {
            if *first >= number {
                return *first == number;
            }
            self.0 = rest;
        }
        false
    }
}

/// So far ahead buckets of the index are loaded while it is filled.
const PREFETCHED: usize = 16;

/// A shadowed record: it goes behind all others of its hash.
struct Shadowed {
    hash: u64,
    slot: Slot,
    /// File id and offset: greater ones are of newer records.
    place: (u64, u32),
}

impl<I: Index> Store<I> {
    /// Recovers what the directory holds; to be called once, before anything else.
    pub(crate) fn recover_files(&self) -> io::Result<()> {
        let (shared, recovery) = (&*self.shared, &self.shared.recovery);
        let manifest = &shared.checkpoints.manifest.lock().clone();
        *recovery.begun.lock() = Some(Instant::now());
        recovery.stats.lock().segments = manifest.segments.len() as u64;
        let log_bytes = log_bytes(shared, manifest.generation)?;
        recovery.stats.lock().log_bytes = log_bytes;
        let leftovers = leftovers(shared, manifest)?;
        let segments = shared.register_segments(manifest)?;
        let deaths = read_deaths(shared, manifest)?;
        let roots = shared.build_index(&segments, &deaths)?;
        let generation = shared.generations.current();
        for counts in &manifest.key_counts {
            let (keys, expiring) = (counts.keys as i64, counts.expiring as i64);
            shared
                .key_counts
                .add(generation, counts.namespace, keys, expiring);
        }
        let unresolved = match &manifest.unresolved {
            Some(unresolved) => unresolved.clone(),
            None => shared.find_unresolved(manifest, roots, &deaths)?,
        };
        for &Unresolved { namespace, writes } in &unresolved {
            let writes = i64::try_from(writes).unwrap_or(i64::MAX);
            shared
                .key_counts
                .add_unresolved(generation, namespace, writes);
        }
        shared.bury_again(&manifest.graveyard, manifest.generation);
        let replayed = self.redo(manifest.logs())?;
        recovery.stats.lock().cut_bytes = replayed.cut_bytes;
        for name in leftovers {
            shared.disk.remove(&name)?;
        }
        let logged = shared.checkpoints.logged.load(Ordering::Relaxed);
        let generation = shared.generations.current();
        shared
            .command_log
            .start(generation, logged, replayed.last)?;
        if logged {
            // Before anything goes to the new log: then it is missed if it is not there.
            let mut saved = shared.checkpoints.manifest.lock();
            let named = Manifest {
                last_log: generation,
                unresolved: Some(unresolved),
                ..saved.clone()
            };
            named.store(&*shared.disk)?;
            *saved = named;
        }
        let mut stats = recovery.stats.lock();
        stats.took = recovery
            .begun
            .lock()
            .map_or(Duration::ZERO, |begun| begun.elapsed());
        stats.is_over = true;
        Ok(())
    }
}

/// How many threads recover.
pub(crate) fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.min(THREADS_MAX)
}

/// Runs `part` on as many threads as recover. If one cannot be started, `call_off` is called, so that the others end soon.
///
/// # Errors
///
/// That a thread could not be started or has panicked; what a part returned.
fn on_threads(
    builder: impl Fn(usize) -> thread::Builder,
    call_off: &dyn Fn(),
    part: &(impl Fn() -> io::Result<()> + Sync),
) -> io::Result<()> {
    thread::scope(|scope| {
        let mut started = Vec::new();
        let mut result = Ok(());
        for number in 0..threads() {
            match builder(number).spawn_scoped(scope, part) {
                Ok(thread) => started.push(thread),
                Err(error) => {
                    call_off();
                    let what = format!("cannot start a thread: {error}");
                    result = Err(io::Error::new(error.kind(), what));
                    break;
                }
            }
        }
        for thread in started {
            let panicked = |_| Err(io::Error::other("a thread has panicked"));
            result = result.and(thread.join().unwrap_or_else(panicked));
        }
        result
    })
}

/// Bytes of the command logs that are to be replayed.
fn log_bytes<I: Index>(shared: &Shared<I>, checkpoint: u64) -> io::Result<u64> {
    let mut bytes = 0;
    for name in shared.disk.names()? {
        if command_log::generation_of_log(&name).is_some_and(|of| of > checkpoint) {
            bytes += shared.disk.open(&name)?.len()?;
        }
    }
    Ok(bytes)
}

/// The files that the manifest does not name and no log replays.
fn leftovers<I: Index>(shared: &Shared<I>, manifest: &Manifest) -> io::Result<Vec<String>> {
    let mut names = shared.disk.names()?;
    let is_named = |id| {
        manifest
            .segments
            .binary_search_by_key(&id, |segment| segment.file_id)
            .is_ok()
    };
    names.retain(|name| {
        let of_segment = tiering::file_id_of(name).or_else(|| key_file::file_id_of(name));
        let is_old_segment = of_segment.is_some_and(|id| !is_named(id));
        let is_old_deaths =
            deaths::generation_of(name).is_some_and(|of| !manifest.deaths.contains(&of));
        let is_old_log =
            command_log::generation_of_log(name).is_some_and(|of| of <= manifest.generation);
        is_old_segment || is_old_deaths || is_old_log
    });
    Ok(names)
}

fn read_deaths<I: Index>(
    shared: &Shared<I>,
    manifest: &Manifest,
) -> io::Result<HashMap<u64, FileDeaths>> {
    let mut reader = DeathsReader::open(&*shared.disk, &manifest.deaths)?;
    let mut deaths = HashMap::new();
    while let Some(of_file) = reader.next_file()? {
        deaths.insert(of_file.file_id, of_file);
    }
    Ok(deaths)
}

impl<I: Index> Shared<I> {
    /// Enters the manifest's segments into the table, all of them cold.
    fn register_segments(&self, manifest: &Manifest) -> io::Result<Vec<Arc<Segment>>> {
        let register = |entry: &SegmentEntry| {
            let name = segment_file_name(entry.file_id);
            let (len, expected) = (
                self.disk.open(&name)?.len()?,
                self.log.geometry.segment_bytes() as u64,
            );
            if len != expected {
                let what = format!("the segment has {len} bytes, not {expected}");
                return Err(Damage {
                    file: self.disk.path(&name),
                    offset: len.min(expected),
                    what,
                }
                .into());
            }
            let segment = self.log.table.add_cold(entry.file_id, manifest.generation);
            let segment =
                segment.ok_or_else(|| io::Error::other("more segments than addresses reach"))?;
            segment.records.store(entry.records, Ordering::Relaxed);
            // More than what the file takes, if it was written by an earlier version.
            let used_bytes = u64::from(entry.used_bytes);
            segment.used_bytes.store(used_bytes, Ordering::Relaxed);
            segment.synced.store(true, Ordering::Relaxed);
            segment.written.store(true, Ordering::Relaxed);
            let key_bytes = self.disk.open(&key_file::file_name(entry.file_id))?.len()?;
            segment.key_bytes.store(key_bytes, Ordering::Relaxed);
            let dead_bytes = u64::from(entry.dead_bytes);
            self.log.table.add_dead_bytes_of(&segment, dead_bytes);
            Ok(segment)
        };
        manifest.segments.iter().map(register).collect()
    }

    /// Fills the index from the recovery columns. Returns how many records of keys it leads to.
    fn build_index(
        &self,
        segments: &[Arc<Segment>],
        deaths: &HashMap<u64, FileDeaths>,
    ) -> io::Result<u64> {
        let listed: u64 = segments
            .iter()
            .map(|segment| u64::from(segment.records.load(Ordering::Relaxed)))
            .sum();
        let dead: usize = deaths.values().map(|of_file| of_file.dead.len()).sum();
        self.index.grow_for(listed.saturating_sub(dead as u64));
        let next = AtomicUsize::new(0);
        let shadowed = Mutex::new(Vec::new());
        let roots = AtomicU64::new(0);
        let read_some = || {
            while let Some(segment) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
                let of_file = deaths.get(&segment.file_id);
                let found = self.index_segment(segment, of_file, &shadowed)?;
                roots.fetch_add(found, Ordering::Relaxed);
                self.recovery.segments_read.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        on_threads(
            |_| thread::Builder::new(),
            &|| next.store(segments.len(), Ordering::Relaxed),
            &read_some,
        )?;
        let mut shadowed = shadowed.into_inner();
        // One of them is its key's newest only if it is the key's only one. Where that could not be kept, its place tells most
        // likely whether it is.
        shadowed.sort_unstable_by_key(|shadowed| std::cmp::Reverse(shadowed.place));
        for Shadowed { hash, slot, .. } in shadowed {
            self.index.insert_last(hash, slot);
        }
        Ok(roots.into_inner())
    }

    /// What a manifest that does not tell it leaves unresolved: records of keys that are listed, not dead, and not counted are
    /// shadows, or keys that blind writes have added. `roots` is how many records of keys there are.
    fn find_unresolved(
        &self,
        manifest: &Manifest,
        roots: u64,
        deaths: &HashMap<u64, FileDeaths>,
    ) -> io::Result<Vec<Unresolved>> {
        let counts = manifest.key_counts.iter();
        if roots == counts.fold(0, |sum, counts| counts.keys.saturating_add(sum)) {
            return Ok(Vec::new());
        }
        // Which namespaces they are in only the lists of keys tell.
        let mut uncounted: HashMap<Namespace, u64> = HashMap::new();
        for segment in &manifest.segments {
            let file = KeyFile::open(&*self.disk, segment.file_id)?;
            let dead = deaths.get(&segment.file_id).map(|deaths| &deaths.dead[..]);
            let is_dead = |offset| dead.is_some_and(|dead| dead.binary_search(&offset).is_ok());
            let mut blocks = file.keys_from(0);
            while blocks.read(|entry| {
                if !is_dead(entry.offset) {
                    *uncounted.entry(entry.namespace).or_default() += 1;
                }
            })? {}
            file.drop_cached();
        }
        for counts in &manifest.key_counts {
            let keys = uncounted.entry(counts.namespace).or_default();
            *keys = keys.saturating_sub(counts.keys);
        }
        let unresolved = uncounted.into_iter().filter(|(_, writes)| *writes > 0);
        Ok(unresolved
            .map(|(namespace, writes)| Unresolved { namespace, writes })
            .collect())
    }

    fn index_segment(
        &self,
        segment: &Segment,
        deaths: Option<&FileDeaths>,
        shadowed: &Mutex<Vec<Shadowed>>,
    ) -> io::Result<u64> {
        let (dead, in_shadow) = deaths.map_or((&[][..], &[][..]), |deaths| {
            (&deaths.dead[..], &deaths.shadowed[..])
        });
        let (mut records, mut roots) = (0, 0);
        let file = KeyFile::open(&*self.disk, segment.file_id)?;
        self.log
            .table
            .set_next_expiry(segment, file.next_expiry_ms());
        let (mut column, mut listed) = (file.recovery(), Vec::new());
        // Both are in the order of the offsets.
        let (mut dead, mut in_shadow) = (InOrder(dead), InOrder(in_shadow));
        loop {
            column.read(&mut listed)?;
            if listed.is_empty() {
                break;
            }
            for (at, record) in listed.iter().enumerate() {
                if let Some(later) = listed.get(at + PREFETCHED) {
                    self.index.prefetch(later.hash);
                }
                if dead.has(record.offset) {
                    continue;
                }
                records += 1;
                roots += u64::from(record.kind == SlotKind::Root);
                let geometry = self.log.geometry;
                let address = geometry.address(segment.number, record.offset as usize);
                let slot = Slot::of_class(address, record.kind, record.size_class);
                let hash = record.hash;
                if in_shadow.has(record.offset) {
                    let place = (segment.file_id, record.offset);
                    shadowed.lock().push(Shadowed { hash, slot, place });
                } else {
                    self.index.insert(hash, slot);
                }
            }
        }
        file.drop_cached();
        self.recovery.records.fetch_add(records, Ordering::Relaxed);
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_cannot_be_started_is_an_error_and_ends_the_others() {
        let is_off = AtomicUsize::new(0);
        let part = || {
            while is_off.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            Ok(())
        };
        // The last one has a stack that nobody has the addresses for.
        let builder = |number| match number + 1 == threads() {
            true => thread::Builder::new().stack_size(1 << 60),
            false => thread::Builder::new(),
        };
        let call_off = || is_off.store(1, Ordering::Relaxed);
        let error = on_threads(builder, &call_off, &part).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot start a thread: "),
            "{error}"
        );
    }
}
