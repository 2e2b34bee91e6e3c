//! Repairing a data directory: what is sound in it becomes a directory that opens.
//!
//! 1. Everything is read (`survey.rs`), and what is live is worked out from what is sound (`live.rs`).
//! 2. A segment with a damaged file is replaced by a new one that holds its live sound records (`rebuild.rs`). A new deaths
//!    file names what is not live any more. All of it is new files, synced.
//! 3. The new manifest is stored in the place of the old one.
//! 4. Command logs are cut at the first damage (`logs.rs`).
//! 5. What is no part of the data any more gets another name. Nothing is removed: of what is replaced or cut there is a copy,
//!    synced before that.
//!
//! So until step 3 nothing has changed for who looks at the directory, and from then on it is the repaired one; after an
//! interruption a second repair does the rest, and so it does where there is no manifest.
//!
//! Without a manifest all segments, deaths files and logs that are there are taken for the data. It cannot be known then what
//! was deleted since the last deaths file, and the seed of the hashes is lost, so all key files are
//! written anew, the old ones getting other names.

#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod live;
mod logs;
mod rebuild;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::address::SlotKind;
use crate::check::{Report, check_unlocked, manifest_or_guess, sound_deaths};
use crate::command_log::generation_of_log;
use crate::damage::Damage;
use crate::deaths::{self, FileDeaths};
use crate::disk::{Directory, Disk};
use crate::key_file::{self, KeyFile};
use crate::manifest::{self, Manifest, SegmentEntry};
use crate::open::{OpenError, io_error, lock_directory};
use crate::readable::ReadableDisk;
use crate::segment;
use crate::store::SEGMENT_BYTES;
use crate::survey::{Expected, Survey, hash_of, survey};
use crate::tiering::{self, segment_file_name};
use live::{Live, Place, Reason, has, marks_of};

/// Deaths files that repairs write have numbers from here on, which no generation has.
const DEATHS_NUMBERS_FROM: u64 = 1 << 32;

/// At the end of the names of files that are no part of the data any more.
const DROPPED: &str = ".dropped";

/// So much of a file is copied at once.
const COPIED_BYTES: usize = 1 << 20;

/// What a repair has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Whether there was anything to repair.
    pub was_damaged: bool,
    /// Keys that are there now; the command log may have more, or fewer.
    pub keys: u64,
    /// Live records that were dropped.
    pub records: u64,
    /// Bytes of command logs that were cut off.
    pub log_bytes: u64,
    /// Files that were kept under other names.
    pub files: u64,
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repaired {
            was_damaged,
            keys,
            records,
            log_bytes,
            files,
        } = self;
        if !was_damaged {
            return write!(f, "nothing to repair: {keys} live keys");
        }
        write!(
            f,
            "repaired: {keys} live keys beside what the command log has; dropped {records} records, {log_bytes} bytes of \
             command log; {files} files are kept with names that end with {DROPPED}"
        )
    }
}

/// Repairs the data directory, and tells `report` what is damaged and what is dropped. Takes memory for one segment and 4
/// bytes a dead record; if deaths are damaged, some 60 bytes a record; and on the device room for what is rebuilt.
///
/// # Errors
///
/// [`OpenError::InUse`] if a store is open in it; [`OpenError::Io`]: nothing has been lost then, and it can be tried again.
pub fn repair(directory: &Path, report: &mut dyn FnMut(Report)) -> Result<Repaired, OpenError> {
    repair_on(&Directory::new(directory.to_path_buf()), directory, report)
}

/// As [`repair`], through a [`Disk`] that works in the directory.
///
/// # Errors
///
/// As [`repair`].
pub fn repair_on(
    disk: &dyn Disk,
    directory: &Path,
    report: &mut dyn FnMut(Report),
) -> Result<Repaired, OpenError> {
    let names = disk.names().map(drop);
    names.map_err(io_error("cannot repair", directory))?;
    let _lock = lock_directory(directory)?;
    let failed = io_error("cannot repair", directory);
    let repaired = Repair::begin(disk, report).and_then(Repair::run);
    let repaired = repaired.map_err(failed)?;
    if repaired.was_damaged {
        let checked = check_unlocked(disk, directory, &mut |_| {})?;
        if checked.damages > 0 {
            let left = format!("{} damages are left: repair it again", checked.damages);
            let failed = io_error("cannot repair all of", directory);
            return Err(failed(io::Error::other(left)));
        }
    }
    Ok(repaired)
}

/// A segment as it was found.
struct Found {
    file_id: u64,
    is_sound: bool,
    records: u32,
    live_bytes: u64,
}

struct Repair<'r> {
    disk: &'r dyn Disk,
    report: &'r mut dyn FnMut(Report),
    names: Vec<String>,
    /// Those of them that are kept, and those that have been given since.
    kept: HashSet<String>,
    /// What the directory consists of: at first as it was found, then as it is to be.
    manifest: Manifest,
    /// Whether the manifest was lost, and this one is a guess; its hash seed is a new one then.
    is_guessed: bool,
    deaths: HashMap<u64, FileDeaths>,
    live: Live,
    repaired: Repaired,
    /// Files that are to get other names at the end.
    dropped: Vec<String>,
}

impl<'r> Repair<'r> {
    fn begin(disk: &'r dyn Disk, report: &'r mut dyn FnMut(Report)) -> io::Result<Repair<'r>> {
        let names = disk.names()?;
        check_access(disk, &names)?;
        let loaded = load_manifest(disk)?;
        let (mut manifest, found) = manifest_or_guess(disk, &names, loaded);
        // Leftovers of a crash, or of a repair that was interrupted, have ids as well.
        let used = segment_ids(&names).last().copied();
        manifest.next_file_id = manifest
            .next_file_id
            .max(used.map_or(1, |id| id.saturating_add(1)));
        let mut repaired = Repaired::default();
        let mut dropped = Vec::new();
        let is_guessed = found.is_err();
        if let Err(damage) = found {
            report(Report::Damage(damage));
            report(Report::Note(
                "without a manifest everything that is there is taken for the data: keys that were deleted lately may come \
                 back, older values may have won, and databases that were swapped or flushed may have got mixed up"
                    .to_string(),
            ));
            repaired.was_damaged = true;
        }
        let (deaths, sound, damages) = sound_deaths(disk, &manifest.deaths);
        let knows_deaths = damages.is_empty() && !is_guessed;
        if !damages.is_empty() {
            repaired.was_damaged = true;
            damages
                .into_iter()
                .for_each(|damage| report(Report::Damage(damage)));
            report(Report::Note(
                "which records are dead is known in part: of several records of a key the newest segment's is kept; keys \
                 that were deleted may come back"
                    .to_string(),
            ));
            let is_lost = |number: &&u64| !sound.contains(number);
            let lost = manifest.deaths.iter().filter(is_lost);
            dropped.extend(lost.map(|&number| deaths::FORMAT.file_name(number)));
            manifest.deaths = sound;
        }
        let live = Live::new(manifest.hash_seed, knows_deaths);
        let kept = names.iter().filter(|name| name.ends_with(DROPPED));
        Ok(Repair {
            disk,
            report,
            kept: kept.cloned().collect(),
            names,
            manifest,
            is_guessed,
            deaths,
            live,
            repaired,
            dropped,
        })
    }

    fn run(mut self) -> io::Result<Repaired> {
        let found = self.survey_all();
        self.find_fronts(&found);
        self.settle();
        let logs = self.damage_of_logs()?;
        if logs.is_some() {
            // Which of them are left is found out when they are cut.
            self.manifest.last_log = 0;
        }
        self.repaired.was_damaged |= logs.is_some() || found.iter().any(|found| !found.is_sound);
        let counts = self.live.key_counts();
        self.repaired.keys = counts.iter().map(|counts| counts.keys).sum();
        if !self.repaired.was_damaged {
            return Ok(self.repaired);
        }
        self.note_leftovers();
        self.rebuild(&found)?;
        self.store_manifest()?;
        self.cut_logs(logs)?;
        self.move_dropped()?;
        Ok(self.repaired)
    }

    fn damage(&mut self, damage: Damage) {
        (self.report)(Report::Damage(damage));
    }

    fn note(&mut self, text: String) {
        (self.report)(Report::Note(text));
    }

    fn dropped(&mut self, text: String) {
        (self.report)(Report::Dropped(text));
    }

    fn survey_of(&self, entry: &SegmentEntry) -> Survey {
        let known = |value| (!self.is_guessed).then_some(value);
        let mut survey = survey(
            self.disk,
            Expected {
                file_id: entry.file_id,
                segment_bytes: Some(self.manifest.segment_bytes),
                seed: (!self.is_guessed).then_some(self.manifest.hash_seed),
                records: known(entry.records),
            },
        );
        if self.is_guessed {
            // The hashes are of another seed.
            let mut sound = std::mem::take(&mut survey.sound);
            for listed in &mut sound {
                if let Some(record) = survey.record(listed.offset) {
                    (listed.hash, listed.kind) = hash_of(self.manifest.hash_seed, &record);
                }
            }
            survey.sound = sound;
        }
        survey
    }

    /// Reads all segments and finds out what is live.
    fn survey_all(&mut self) -> Vec<Found> {
        let entries = self.manifest.segments.clone();
        let of = entries.len() as u64;
        let mut found = Vec::new();
        for (segments, entry) in (1..).zip(&entries) {
            let survey = self.survey_of(entry);
            found.push(self.take_in(entry.file_id, &survey));
            for damage in survey.damages {
                self.damage(damage);
            }
            if segments % 64 == 0 || segments == of {
                (self.report)(Report::Progress { segments, of });
            }
        }
        found
    }

    fn take_in(&mut self, file_id: u64, survey: &Survey) -> Found {
        let (dead, shadowed) = marks_of(&self.deaths, file_id);
        let mut live_bytes = 0;
        for listed in &survey.sound {
            if let Some(record) = survey.record(listed.offset)
                && !has(dead, listed.offset)
            {
                live_bytes += record.record_bytes() as u64;
                let is_shadowed = has(shadowed, listed.offset);
                self.live.add(file_id, listed, &record, is_shadowed);
            }
        }
        let lost = survey.lost.iter().filter(|lost| !has(dead, lost.offset));
        let lost: Vec<_> = lost.copied().collect();
        let name = segment_file_name(file_id);
        let keys = self.lost_keys(
            file_id,
            &lost.iter().map(|lost| lost.offset).collect::<Vec<_>>(),
        );
        for record in &lost {
            // With a lost seed its hash tells nothing.
            match self.is_guessed {
                true => self.live.lost_unknown(),
                false => self.live.lost(record),
            }
            self.repaired.records += 1;
            let key = keys.get(&record.offset).map_or("a record", |key| key);
            self.dropped(format!("{name} at offset {}: {key}", record.offset));
        }
        if !survey.is_complete {
            self.live.lost_unknown();
            self.dropped(format!("{name}: records that no sound list names"));
        }
        Found {
            file_id,
            is_sound: survey.damages.is_empty(),
            records: survey.sound.len() as u32,
            live_bytes,
        }
    }

    /// The keys of records, as far as the key blocks tell.
    fn lost_keys(&self, file_id: u64, offsets: &[u32]) -> HashMap<u32, String> {
        let mut keys = HashMap::new();
        if offsets.is_empty() {
            return keys;
        }
        let Ok(file) = KeyFile::open(self.disk, file_id) else {
            return keys;
        };
        let mut blocks = file.keys_from(0);
        // A damaged block ends it: its keys remain unnamed.
        while let Ok(true) = blocks.read(|entry| {
            if has(offsets, entry.offset) {
                let (key, namespace) = (entry.key.escape_ascii(), entry.namespace.0);
                keys.insert(
                    entry.offset,
                    format!("key \"{key}\" of namespace {namespace}"),
                );
            }
        }) {}
        keys
    }

    /// Finds out which shadows have a newer record in front.
    fn find_fronts(&mut self, found: &[Found]) {
        let shadows = self.live.shadow_hashes();
        if shadows.is_empty() {
            return;
        }
        for (found, entry) in found.iter().zip(self.manifest.segments.clone()) {
            let file = KeyFile::open(self.disk, found.file_id);
            let listed = match file {
                Ok(file) if found.is_sound && !self.is_guessed => file.sound_recovery().0,
                _ => self.survey_of(&entry).sound,
            };
            let (dead, shadowed) = marks_of(&self.deaths, found.file_id);
            for record in listed {
                if record.kind == SlotKind::Root
                    && shadows.contains(&record.hash)
                    && !has(dead, record.offset)
                    && !has(shadowed, record.offset)
                {
                    self.live.has_front(record.hash);
                }
            }
        }
    }

    /// Finds out what is dropped together with what is lost.
    fn settle(&mut self) {
        let mut dropped: BTreeMap<u64, BTreeMap<u32, Reason>> = BTreeMap::new();
        self.live.settle(&mut |Place { file_id, offset }, reason| {
            dropped.entry(file_id).or_default().insert(offset, reason);
        });
        for (file_id, dropped) in dropped {
            let name = segment_file_name(file_id);
            let offsets: Vec<u32> = dropped.keys().copied().collect();
            let keys = self.lost_keys(file_id, &offsets);
            for (offset, reason) in dropped {
                let why = match reason {
                    Reason::PageLost => "a large value, a part of which is lost",
                    Reason::NewerLost => "an older value, the newer one of whose key is lost",
                };
                self.repaired.records += 1;
                let key = keys.get(&offset).map_or("a record", |key| key);
                self.dropped(format!("{name} at offset {offset}: {key}: {why}"));
            }
        }
    }

    /// Files of ours that are no part of the data: a start would remove them.
    fn note_leftovers(&mut self) {
        let segments = &self.manifest.segments;
        let is_named = |id: u64| {
            segments
                .binary_search_by_key(&id, |entry| entry.file_id)
                .is_ok()
        };
        let is_leftover = |name: &&String| {
            let of_segment = tiering::file_id_of(name).or_else(|| key_file::file_id_of(name));
            of_segment.is_some_and(|id| !is_named(id))
                || generation_of_log(name).is_some_and(|of| of <= self.manifest.generation)
        };
        let leftovers: Vec<_> = self.names.iter().filter(is_leftover).cloned().collect();
        self.dropped.extend(leftovers);
    }

    fn store_manifest(&mut self) -> io::Result<()> {
        self.manifest.key_counts = self.live.key_counts();
        self.manifest.unresolved = Some(self.live.unresolved());
        self.manifest.graveyard = self.live.graveyard(&self.manifest.graveyard);
        let next_object_id = self.live.next_object_id();
        self.manifest.next_object_id = self.manifest.next_object_id.max(next_object_id);
        // A copy of the old one, which may tell somebody more than it tells us.
        match self.keep_copy(manifest::NAME) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => self.disk.sync_directory()?,
        }
        self.manifest.store(self.disk)
    }

    /// A name for what is kept of a file. Nobody else gives such names meanwhile: the directory is locked.
    fn kept_name(&mut self, name: &str) -> String {
        let numbered = (1u64..).map(|number| format!("{name}.{number}{DROPPED}"));
        let mut kept = std::iter::once(format!("{name}{DROPPED}")).chain(numbered);
        let free = kept.find(|kept| self.kept.insert(kept.clone()));
        free.expect("no directory has as many files as there are numbers")
    }

    /// Keeps a copy of a file that is about to be changed, as far as it can be read. It survives a power cut when this returns.
    fn keep_copy(&mut self, name: &str) -> io::Result<()> {
        let from = ReadableDisk::new(self.disk).open(name)?;
        let to = self.disk.create(&self.kept_name(name))?;
        let (len, mut offset) = (from.len()?, 0);
        let mut piece = vec![0; COPIED_BYTES];
        while offset < len {
            piece.truncate((len - offset).min(COPIED_BYTES as u64) as usize);
            from.read_exact_at(&mut piece, offset)?;
            to.write_all_at(&piece, offset)?;
            offset += piece.len() as u64;
        }
        to.sync()?;
        self.disk.sync_directory()
    }

    fn move_dropped(&mut self) -> io::Result<()> {
        for name in std::mem::take(&mut self.dropped) {
            self.set_aside(&name)?;
        }
        self.disk.sync_directory()
    }

    /// Gives a file another name, if it is there.
    fn set_aside(&mut self, name: &str) -> io::Result<()> {
        let kept = self.kept_name(name);
        match self.disk.rename(name, &kept) {
            Ok(()) => {
                self.repaired.files += 1;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What there is of a manifest. The outer error: it may be sound, and so must not be done without.
fn load_manifest(disk: &dyn Disk) -> io::Result<io::Result<Option<Manifest>>> {
    let cannot_read = |error: io::Error| {
        let name = manifest::NAME;
        let text = format!(
            "{name} cannot be read: {error}: repair again; if it stays so, move {name} away before, and the repair does without it"
        );
        io::Error::new(error.kind(), text)
    };
    let is_newer = manifest::is_newer(disk).map_err(cannot_read)?;
    match Manifest::load(disk) {
        // All of it may be sound.
        Err(error) if is_newer => Err(error),
        Err(error) if Damage::of(&error).is_none() => Err(cannot_read(error)),
        loaded => Ok(loaded),
    }
}

/// Makes sure that what is there may be read and written: what somebody else has forbidden is not damaged.
fn check_access(disk: &dyn Disk, names: &[String]) -> io::Result<()> {
    let is_ours = |name: &&String| {
        *name == manifest::NAME
            || deaths::generation_of(name).is_some()
            || generation_of_log(name).is_some()
            || tiering::file_id_of(name).is_some()
            || key_file::file_id_of(name).is_some()
    };
    let mut ours = names.iter().filter(is_ours);
    ours.try_for_each(|name| disk.open(name).map(drop))
}

/// Ids of the segments of which there is a file, ascending.
fn segment_ids(names: &[String]) -> BTreeSet<u64> {
    let id = |name: &String| tiering::file_id_of(name).or_else(|| key_file::file_id_of(name));
    let ids = names.iter().filter_map(id);
    // The last number is never given: there has to be a next one.
    ids.filter(|&id| id < u64::MAX).collect()
}

/// A manifest in the place of one that is lost: all files that are there are the data. Its hash seed is a new one.
pub(crate) fn guessed(disk: &dyn Disk, names: &[String]) -> Manifest {
    let ids = segment_ids(names);
    let logs = names.iter().filter_map(|name| generation_of_log(name));
    let deaths: Vec<u64> = names
        .iter()
        .filter_map(|name| deaths::generation_of(name))
        .collect();
    let is_generation = |number: &u64| *number < DEATHS_NUMBERS_FROM;
    let first_log = logs.min();
    let mut seed = [0; 8];
    // Without random numbers any will do: they keep others from choosing keys that collide.
    let _ = getrandom::fill(&mut seed);
    Manifest {
        segment_bytes: ids
            .iter()
            .find_map(|&id| segment_bytes_of(disk, id))
            .unwrap_or(*SEGMENT_BYTES.start()) as u32,
        hash_seed: u64::from_le_bytes(seed),
        generation: match first_log {
            Some(first) => first.saturating_sub(1),
            None => deaths
                .iter()
                .copied()
                .filter(is_generation)
                .max()
                .unwrap_or(1),
        },
        next_file_id: ids.last().map_or(1, |id| id.saturating_add(1)),
        next_object_id: 1,
        segments: ids
            .iter()
            .map(|&file_id| SegmentEntry {
                file_id,
                used_bytes: 0,
                records: 0,
                dead_bytes: 0,
            })
            .collect(),
        deaths,
        ..Manifest::default()
    }
}

/// The size of segments, as the header of this one tells it.
fn segment_bytes_of(disk: &dyn Disk, file_id: u64) -> Option<usize> {
    let mut header = [0; segment::SEGMENT_HEADER_BYTES];
    let file = disk.open(&segment_file_name(file_id)).ok()?;
    file.read_exact_at(&mut header, 0).ok()?;
    segment::bytes_of_header(&header)
}
