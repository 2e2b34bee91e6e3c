//! Checkpoints: all that operations have done up to one moment becomes part of the manifest, and the command log begins
//! anew.
//!
//! A checkpoint copies nothing and stops nobody. It begins the next generation (see `generation`); the segments of the one
//! before change no more, are sealed like any others, synced, and named by a new manifest, together with the deaths of that
//! generation. Until the new manifest is durable the old one and its command logs are what a restart finds.
//!
//! What must hold:
//! * A manifest names only files that have been synced, and whose directory entries have.
//! * Nothing that the durable manifest names is removed, and no segment number that it leads to is used again, before a
//!   manifest that no longer names it is durable.
//! * When a checkpoint fails, the deaths it took to save go back, to be saved by the next; nothing else has been taken.

mod due;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::command_log;
use crate::deaths::{self, DeathEntry, DeathsWriter, Mark};
use crate::generation::{Death, Parity};
use crate::index::Index;
use crate::key_file;
use crate::manifest::{self, Manifest, NamespaceKeys, SegmentEntry, Unresolved};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::stats::KeyCount;
use crate::tiering::segment_file_name;

/// So many files of deaths are merged into one.
const DEATHS_FILES_MAX: usize = 8;

/// Also once they take this share of what the segments take.
const DEATHS_FILES_SHARE: u64 = 16;

/// Deaths that are sorted at a time.
const DEATHS_PER_RUN: usize = 64 * 1024;

/// A checkpoint that has been made.
#[derive(Clone, Copy, Debug)]
pub struct Checkpointed {
    /// The generation that was saved.
    pub generation: u64,
    /// What the embedding program's counter of changes said when it began: those are saved.
    pub changes: u64,
    /// When it was durable, Unix milliseconds.
    pub at_ms: u64,
    /// How long it all took.
    pub took: Duration,
    /// How long it took from the begin of the next generation until no operation of the old one ran any more.
    pub change: Duration,
}

/// How checkpoints are getting on.
#[derive(Clone, Debug, Default)]
pub struct CheckpointStatus {
    /// Since when one has been running.
    pub running_since: Option<Instant>,
    /// The last one that succeeded since the store was opened.
    pub last: Option<Checkpointed>,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
    /// How many have succeeded since the store was opened.
    pub made: u64,
}

/// What is kept about checkpoints between them.
pub(crate) struct Checkpoints {
    /// Held by whoever makes one, or must not meet one. What the durable manifest says.
    pub(crate) manifest: Mutex<Manifest>,
    status: Mutex<CheckpointStatus>,
    asked: Mutex<bool>,
    wake: Condvar,
    cancelled: AtomicBool,
    gone: Mutex<Vec<Gone>>,
    state: Mutex<State>,
    /// How many changes the embedding program has counted.
    pub(crate) changes: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
    /// Whether the next generation is to be written to the command log.
    pub(crate) logged: AtomicBool,
    /// So many bytes of command log, or of appended records, make it time for a checkpoint.
    pub(crate) bytes_max: AtomicU64,
    /// [`Log::appended_bytes`](crate::log::Log) at the last one.
    appended_before: AtomicU64,
    /// Bytes that were logged while the last one was made of those that nobody had asked for, from the moment it was due.
    logged_meanwhile: AtomicU64,
}

/// A segment whose records are all dead or moved. Its files go, and its number is free, once a manifest of the generation in
/// which that became so is durable.
struct Gone {
    generation: u64,
    since: Instant,
    segment: Arc<Segment>,
}

/// What the embedding program wants to find again, as set in a generation, and before it.
#[derive(Default)]
struct State {
    generation: u64,
    bytes: Vec<u8>,
    before: Vec<u8>,
}

/// Where one generation ends and the next begins.
struct Cut {
    generation: u64,
    log_follows: bool,
    key_counts: Vec<NamespaceKeys>,
    unresolved: Vec<Unresolved>,
    change: Duration,
}

impl Checkpoints {
    pub(crate) fn new(manifest: Manifest, logged: bool, bytes_max: u64) -> Checkpoints {
        let state = State {
            generation: manifest.generation,
            bytes: manifest.state.clone(),
            before: Vec::new(),
        };
        Checkpoints {
            manifest: Mutex::new(manifest),
            status: Mutex::default(),
            asked: Mutex::new(false),
            wake: Condvar::new(),
            cancelled: AtomicBool::new(false),
            gone: Mutex::default(),
            state: Mutex::new(state),
            changes: OnceLock::new(),
            logged: AtomicBool::new(logged),
            bytes_max: AtomicU64::new(bytes_max),
            appended_before: AtomicU64::new(0),
            logged_meanwhile: AtomicU64::new(0),
        }
    }

    /// Asks the checkpoint thread for one.
    pub(crate) fn ask(&self) {
        *self.asked.lock() = true;
        self.wake.notify_all();
    }

    /// Takes back what was asked for, and ends the one that runs as soon as it can be ended; `false` if there is neither.
    pub(crate) fn cancel(&self) -> bool {
        let asked = std::mem::take(&mut *self.asked.lock());
        let runs = self.status.lock().running_since.is_some();
        self.cancelled.store(runs, Ordering::Relaxed);
        asked || runs
    }

    pub(crate) fn status(&self) -> CheckpointStatus {
        self.status.lock().clone()
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.lock()
    }

    /// The thread looks again, because it is to end.
    pub(crate) fn wake(&self) {
        self.wake.notify_all();
    }

    /// The segment has no live records as of `generation`, and no slot names it.
    pub(crate) fn is_gone(&self, generation: u64, segment: Arc<Segment>) {
        self.gone.lock().push(Gone {
            generation,
            since: Instant::now(),
            segment,
        });
    }

    pub(crate) fn set_state(&self, generation: u64, bytes: &[u8]) {
        let mut state = self.state.lock();
        if state.generation < generation {
            state.before = std::mem::take(&mut state.bytes);
            state.generation = generation;
        }
        state.bytes = bytes.to_vec();
    }

    pub(crate) fn state(&self) -> Vec<u8> {
        self.state.lock().bytes.clone()
    }

    fn state_of(&self, generation: u64) -> Vec<u8> {
        let state = self.state.lock();
        if state.generation <= generation {
            state.bytes.clone()
        } else {
            state.before.clone()
        }
    }

    fn check_cancelled(&self) -> Result<(), String> {
        match self.cancelled.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err("cancelled".to_string()),
        }
    }
}

impl<I: Index> Shared<I> {
    /// Makes a checkpoint, after the one that is running if there is one.
    pub(crate) fn checkpoint(&self) -> Result<Checkpointed, String> {
        let checkpoints = &self.checkpoints;
        let mut manifest = checkpoints.manifest.lock();
        let begin = Instant::now();
        checkpoints.cancelled.store(false, Ordering::Relaxed);
        checkpoints.status.lock().running_since = Some(begin);
        let changes = checkpoints.changes.get().map_or(0, |count| count());
        let result = self.checkpoint_alone(&mut manifest);
        let mut status = checkpoints.status.lock();
        status.running_since = None;
        match result {
            Ok(cut) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                let made = Checkpointed {
                    generation: cut.generation,
                    changes,
                    at_ms: since.map_or(0, |since| since.as_millis() as u64),
                    took: begin.elapsed(),
                    change: cut.change,
                };
                status.last = Some(made);
                status.made += 1;
                status.error = None;
                Ok(made)
            }
            Err(error) => {
                status.error = Some(error.clone());
                Err(error)
            }
        }
    }

    fn checkpoint_alone(&self, manifest: &mut MutexGuard<'_, Manifest>) -> Result<Cut, String> {
        // What an earlier checkpoint could not seal: of each parity only one generation may be in the mutable region.
        self.seal_up_to(self.generations.current() - 1)?;
        // And the log that could not be begun.
        self.end_log_generation()?;
        let cut = self.begin_generation().map_err(|error| error.to_string())?;
        // None of its operations runs any more, so these are all. Whatever fails from here on, the next checkpoint has to
        // write them: the generation it saves follows upon this one.
        let deaths = self.generations.take_deaths(cut.generation);
        match self.complete(&cut, &deaths, manifest) {
            Ok(saved) => {
                **manifest = saved;
                self.command_log.checkpointed(cut.generation);
                self.remove_what_is_gone(cut.generation, manifest);
                Ok(cut)
            }
            Err(error) => {
                let current = self.generations.current();
                self.generations.give_back_deaths(current, deaths);
                Err(error)
            }
        }
    }

    fn complete(
        &self,
        cut: &Cut,
        deaths: &[Death],
        manifest: &Manifest,
    ) -> Result<Manifest, String> {
        self.end_log_generation()?;
        self.seal_up_to(cut.generation)?;
        self.save(cut, deaths, manifest)
            .map_err(|error| error.to_string())
    }

    fn end_log_generation(&self) -> Result<(), String> {
        self.command_log
            .end_generation()
            .map_err(|error| error.to_string())
    }

    fn begin_generation(&self) -> io::Result<Cut> {
        // The first operation of the new generation that appends begins a segment: while it waited for memory, those of the old
        // one could not be told to have ended.
        if self.log.has_open_segment(self.generations.current()) {
            self.log.prepare_frame();
        }
        // Nobody relocates meanwhile.
        let mut compaction = self.compaction.pause();
        self.complete_output(&mut compaction)?;
        let mut alone = self.tiering.lock();
        let appended = self.log.appended_bytes.load(Ordering::Relaxed);
        self.checkpoints
            .appended_before
            .store(appended, Ordering::Relaxed);
        let log_follows = self.checkpoints.logged.load(Ordering::Relaxed);
        let begin = Instant::now();
        let generation = self.generations.current();
        // No operation of the other parity runs, so these stand still; and the others will once the generation has drained.
        let before = self.key_counts.of(Parity::of(generation + 1));
        self.generations.advance(
            |next| self.command_log.begin_generation(next, log_follows),
            // A half-done operation may wait for room, which nobody makes while this lock is held.
            |pause| MutexGuard::unlocked(&mut alone, || std::thread::sleep(pause)),
        );
        let change = begin.elapsed();
        let (mut key_counts, mut unresolved) = (Vec::new(), Vec::new());
        for count in self.key_counts.of(Parity::of(generation)) {
            let namespace = count.namespace;
            let other = before.iter().find(|before| before.namespace == namespace);
            let sum = |of: fn(&KeyCount) -> i64| of(&count) + other.map_or(0, of);
            let keys = sum(|count| count.keys);
            key_counts.push(NamespaceKeys {
                namespace,
                keys: keys.max(0) as u64,
                expiring: sum(|count| count.expiring).max(0) as u64,
            });
            // Keys that were removed and had not been counted have been added by as many of these writes.
            let writes = sum(|count| count.unresolved) + keys.min(0);
            unresolved.push(Unresolved {
                namespace,
                writes: writes.max(0) as u64,
            });
        }
        unresolved.retain(|unresolved| unresolved.writes != 0);
        Ok(Cut {
            generation,
            log_follows,
            key_counts,
            unresolved,
            change,
        })
    }

    /// Seals all segments of generations up to `last`.
    fn seal_up_to(&self, last: u64) -> Result<(), String> {
        loop {
            self.checkpoints.check_cancelled()?;
            // One at a time, so that whoever needs room has a turn in between.
            let _alone = self.tiering.lock();
            self.make_room_to_seal();
            let next = {
                let ages = self.log.ages.lock();
                let mut mutable = ages.mutable.iter();
                mutable.find(|segment| segment.generation <= last).cloned()
            };
            match next {
                Some(segment) => self.seal(&segment)?,
                None => return Ok(()),
            }
        }
    }

    /// Writes all that makes the generation durable, the manifest last.
    fn save(&self, cut: &Cut, deaths: &[Death], manifest: &Manifest) -> io::Result<Manifest> {
        let mut segments = self.log.table.all();
        {
            let gone = self.checkpoints.gone.lock();
            let is_gone = |segment: &Arc<Segment>| {
                gone.iter().any(|gone| {
                    gone.generation <= cut.generation && Arc::ptr_eq(&gone.segment, segment)
                })
            };
            segments.retain(|segment| segment.generation <= cut.generation && !is_gone(segment));
        }
        segments.sort_unstable_by_key(|segment| segment.file_id);
        for segment in &segments {
            self.checkpoints
                .check_cancelled()
                .map_err(io::Error::other)?;
            self.sync_segment(segment)?;
        }
        let entry = |segment: &Arc<Segment>| SegmentEntry {
            file_id: segment.file_id,
            used_bytes: segment.used_bytes.load(Ordering::Relaxed) as u32,
            records: segment.records.load(Ordering::Relaxed),
            dead_bytes: self.log.table.dead_bytes(segment).min(u64::from(u32::MAX)) as u32,
        };
        let saved = Manifest {
            segment_bytes: self.log.geometry.segment_bytes() as u32,
            hash_seed: self.seed,
            generation: cut.generation,
            last_log: match cut.log_follows {
                true => cut.generation + 1,
                false => 0,
            },
            next_file_id: self.log.next_file_id(),
            next_object_id: self.next_object.load(Ordering::Relaxed),
            segments: segments.iter().map(entry).collect(),
            deaths: self.save_deaths(cut.generation, deaths, &segments, manifest)?,
            graveyard: self.graveyard.of(cut.generation),
            key_counts: cut.key_counts.clone(),
            state: self.checkpoints.state_of(cut.generation),
            unresolved: Some(cut.unresolved.clone()),
        };
        self.disk.sync_directory()?;
        saved.store(&*self.disk)?;
        Ok(saved)
    }

    /// Makes the segment's files survive a power cut.
    fn sync_segment(&self, segment: &Segment) -> io::Result<()> {
        if !segment.synced.load(Ordering::Relaxed) {
            for name in [
                segment_file_name(segment.file_id),
                key_file::file_name(segment.file_id),
            ] {
                self.disk.open(&name)?.sync()?;
            }
            segment.synced.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes the deaths of the generation to a file, and once there are many files, all into one. Returns the numbers of
    /// the files.
    fn save_deaths(
        &self,
        generation: u64,
        deaths: &[Death],
        segments: &[Arc<Segment>],
        manifest: &Manifest,
    ) -> io::Result<Vec<u64>> {
        let mut files = manifest.deaths.clone();
        let file_ids: HashMap<u32, u64> = segments
            .iter()
            .map(|segment| (segment.number, segment.file_id))
            .collect();
        let entry = |death: &Death| {
            let address = death.address();
            // Of a segment that is gone nothing needs to be said any more.
            let file_id = *file_ids.get(&self.log.geometry.segment(address))?;
            Some(DeathEntry {
                file_id,
                offset: self.log.geometry.offset(address) as u32,
                mark: if death.is_shadowed() {
                    Mark::Shadowed
                } else {
                    Mark::Dead
                },
            })
        };
        let mut run = Vec::with_capacity(DEATHS_PER_RUN.min(deaths.len()));
        let mut writer = None;
        for some in deaths.chunks(DEATHS_PER_RUN) {
            run.clear();
            run.extend(some.iter().filter_map(entry));
            if run.is_empty() {
                continue;
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(DeathsWriter::create(&*self.disk, generation)?),
            };
            writer.write_run(&mut run)?;
        }
        let are_merged = files.len() >= DEATHS_FILES_MAX || self.do_files_of_deaths_take_much();
        let mut writer = match writer {
            Some(writer) => writer,
            None if are_merged && !files.is_empty() => {
                DeathsWriter::create(&*self.disk, generation)?
            }
            None => return Ok(files),
        };
        if are_merged {
            let is_kept = |file_id| {
                segments
                    .binary_search_by_key(&file_id, |segment| segment.file_id)
                    .is_ok()
            };
            writer.merge(&*self.disk, &files, is_kept)?;
            files.clear();
        }
        writer.finish()?.sync()?;
        files.push(generation);
        Ok(files)
    }

    /// Whether the deaths files are so large, beside the segments, that most of what they tell must be of segments that are
    /// gone.
    fn do_files_of_deaths_take_much(&self) -> bool {
        let other_bytes = self.disk_limit.other_bytes.load(Ordering::Relaxed);
        other_bytes > self.space().disk_bytes / DEATHS_FILES_SHARE
    }

    /// Removes the files that the durable manifest no longer names. One that cannot be removed now is at the next start.
    fn remove_what_is_gone(&self, generation: u64, manifest: &Manifest) {
        self.graveyard.forget(generation);
        let gone = {
            let mut all = self.checkpoints.gone.lock();
            let (gone, stay) = std::mem::take(&mut *all)
                .into_iter()
                .partition::<Vec<_>, _>(|gone| gone.generation <= generation);
            *all = stay;
            gone
        };
        for Gone { segment, .. } in gone {
            self.log.table.remove(&segment);
            for name in [
                segment_file_name(segment.file_id),
                key_file::file_name(segment.file_id),
            ] {
                let _ = self.disk.remove(&name);
            }
        }
        let Ok(names) = self.disk.names() else { return };
        let mut other_bytes = 0;
        for name in names {
            let is_old_log =
                command_log::generation_of_log(&name).is_some_and(|of| of <= generation);
            let is_old_deaths =
                deaths::generation_of(&name).is_some_and(|of| !manifest.deaths.contains(&of));
            if is_old_log || is_old_deaths {
                let _ = self.disk.remove(&name);
            } else if name == manifest::NAME || deaths::generation_of(&name).is_some() {
                let file = self.disk.open(&name);
                other_bytes += file.and_then(|file| file.len()).unwrap_or(0);
            }
        }
        let limit = &self.disk_limit;
        limit.other_bytes.store(other_bytes, Ordering::Relaxed);
    }
}
