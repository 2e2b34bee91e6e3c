//! Checking a data directory: everything in it is read and compared with everything else that tells of it. Nothing is
//! changed, the lock file included.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::address::SlotKind;
use crate::command_log::{self, Blobs, Effect, Effects, Logs, generation_of_log};
use crate::damage::Damage;
use crate::deaths::{self, DeathsReader, FileDeaths};
use crate::disk::{Directory, Disk};
use crate::key_file;
use crate::manifest::{self, Manifest};
use crate::open::{OpenError, io_error};
use crate::readable;
use crate::repair;
use crate::survey::{Expected, survey};
use crate::tiering;

/// Between two reports of progress so many segments are read.
const SEGMENTS_PER_REPORT: u64 = 64;

/// What is told while a directory is checked or repaired, one line each.
#[derive(Clone, Debug)]
pub enum Report {
    /// Something is not as it was written.
    Damage(Damage),
    /// Something that is no damage and worth to be known.
    Note(String),
    /// Something that a repair has left out.
    Dropped(String),
    /// So many segments have been read.
    Progress {
        /// Those that have been read.
        segments: u64,
        /// All that there are.
        of: u64,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Damage(damage) => write!(f, "damage: {damage}"),
            Report::Note(text) => write!(f, "note: {text}"),
            Report::Dropped(text) => write!(f, "dropped: {text}"),
            Report::Progress { segments, of } => write!(f, "{segments} of {of} segments"),
        }
    }
}

/// What a check has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How often something was not as it was written; 0: the directory is sound.
    pub damages: u64,
    /// Segments.
    pub segments: u64,
    /// Sound records in them, dead ones included.
    pub records: u64,
    /// Those of them that are live, and keys.
    pub keys: u64,
    /// Records that are listed and not sound.
    pub unsound_records: u64,
    /// Records known to be dead.
    pub deaths: u64,
    /// Frames of the command logs that a start replays.
    pub log_frames: u64,
    /// Bytes of those logs.
    pub log_bytes: u64,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked {
            damages,
            segments,
            records,
            keys,
            unsound_records,
            deaths,
            log_frames,
            log_bytes,
        } = self;
        write!(
            f,
            "{segments} segments, {records} sound records, {unsound_records} unsound, {deaths} deaths, {keys} live keys; \
             command log: {log_frames} frames, {log_bytes} bytes; damages: {damages}"
        )
    }
}

/// Checks the data directory that a store has made, and tells `report` what it finds. Reads all of it, and takes memory for
/// one segment and 4 bytes a dead record.
///
/// # Errors
///
/// [`OpenError::InUse`] if a store is open in it, [`OpenError::Io`] if it cannot be looked into.
pub fn check(directory: &Path, report: &mut dyn FnMut(Report)) -> Result<Checked, OpenError> {
    let _lock = lock_shared(directory)?;
    let disk = Directory::read_only(directory.to_path_buf());
    check_unlocked(&disk, directory, report)
}

/// [`check`] for one who has the lock.
pub(crate) fn check_unlocked(
    disk: &dyn Disk,
    directory: &Path,
    report: &mut dyn FnMut(Report),
) -> Result<Checked, OpenError> {
    let names = disk.names();
    let mut check = Check {
        names: names.map_err(io_error("cannot check", directory))?,
        disk,
        report,
        checked: Checked::default(),
    };
    check.run();
    Ok(check.checked)
}

/// Keeps a store from being opened in the directory meanwhile, without changing anything.
fn lock_shared(directory: &Path) -> Result<Option<File>, OpenError> {
    let path = directory.join("LOCK");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("cannot open lock file", &path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(io_error("cannot lock", &path)(error)),
    }
}

/// The damage that an error is, or one that says it of a file.
pub(crate) fn damage_of(disk: &dyn Disk, name: &str, error: &io::Error) -> Damage {
    Damage::of(error).cloned().unwrap_or_else(|| Damage {
        file: disk.path(name),
        offset: 0,
        what: match error.kind() {
            ErrorKind::NotFound => "the file is missing".to_string(),
            _ => error.to_string(),
        },
    })
}

/// The manifest, and whether it was found; else what the names of the files tell.
pub(crate) fn manifest_or_guess(
    disk: &dyn Disk,
    names: &[String],
    loaded: io::Result<Option<Manifest>>,
) -> (Manifest, Result<(), Damage>) {
    match loaded {
        Ok(Some(manifest)) => (manifest, Ok(())),
        Ok(None) => {
            let missing = io::Error::from(ErrorKind::NotFound);
            let damage = damage_of(disk, manifest::NAME, &missing);
            (repair::guessed(disk, names), Err(damage))
        }
        Err(error) => {
            let damage = damage_of(disk, manifest::NAME, &error);
            (repair::guessed(disk, names), Err(damage))
        }
    }
}

/// The deaths that can be read, by segment; the numbers of their files; and what is wrong with the other files.
pub(crate) fn sound_deaths(
    disk: &dyn Disk,
    numbers: &[u64],
) -> (HashMap<u64, FileDeaths>, Vec<u64>, Vec<Damage>) {
    let (mut sound, mut damages) = (Vec::new(), Vec::new());
    for &number in numbers {
        match read_deaths(disk, &[number], &mut |_| {}) {
            Ok(()) => sound.push(number),
            Err(error) => {
                damages.push(damage_of(disk, &deaths::FORMAT.file_name(number), &error));
            }
        }
    }
    let mut deaths = HashMap::new();
    let merged = read_deaths(disk, &sound, &mut |of_file| {
        deaths.insert(of_file.file_id, of_file);
    });
    if let Err(error) = merged {
        // It has just been read: the device does not return the same twice.
        damages.push(damage_of(disk, &deaths::FORMAT.file_name(0), &error));
    }
    (deaths, sound, damages)
}

fn read_deaths(
    disk: &dyn Disk,
    numbers: &[u64],
    each: &mut dyn FnMut(FileDeaths),
) -> io::Result<()> {
    let mut reader = DeathsReader::open(disk, numbers)?;
    while let Some(of_file) = reader.next_file()? {
        each(of_file);
    }
    Ok(())
}

/// Whether all effects of a frame can be read, with the blobs that they name; calls `each` with them.
pub(crate) fn check_frame(
    frame: &[u8],
    blobs: &mut Blobs<'_>,
    each: &mut dyn FnMut(&Effect<'_>),
) -> Result<(), String> {
    for effect in Effects::new(frame) {
        let effect = effect?;
        if let Some(blob) = effect.blob() {
            blobs.read(blob)?;
        }
        each(&effect);
    }
    Ok(())
}

struct Check<'c> {
    disk: &'c dyn Disk,
    names: Vec<String>,
    report: &'c mut dyn FnMut(Report),
    checked: Checked,
}

impl Check<'_> {
    fn run(&mut self) {
        let is_data = |name: &String| {
            tiering::file_id_of(name).is_some() || generation_of_log(name).is_some()
        };
        let has_manifest = self.names.iter().any(|name| name == manifest::NAME);
        if !has_manifest && !self.names.iter().any(is_data) {
            self.note("the directory holds no data");
            return;
        }
        let (manifest, found) =
            manifest_or_guess(self.disk, &self.names, Manifest::load(self.disk));
        let is_guessed = found.is_err();
        if let Err(damage) = found {
            self.damage(damage);
            self.note("without a manifest all files are taken for part of the data");
        }
        let (deaths, _, damages) = sound_deaths(self.disk, &manifest.deaths);
        damages.into_iter().for_each(|damage| self.damage(damage));
        self.check_segments(&manifest, is_guessed, &deaths);
        self.check_logs(manifest.logs());
        self.look_at_names(&manifest);
    }

    fn damage(&mut self, damage: Damage) {
        self.checked.damages += 1;
        (self.report)(Report::Damage(damage));
    }

    fn note(&mut self, text: impl Into<String>) {
        (self.report)(Report::Note(text.into()));
    }

    fn check_segments(
        &mut self,
        manifest: &Manifest,
        is_guessed: bool,
        deaths: &HashMap<u64, FileDeaths>,
    ) {
        let of = manifest.segments.len() as u64;
        for (segments, entry) in (1..).zip(&manifest.segments) {
            let known = |value| (!is_guessed).then_some(value);
            let expected = Expected {
                file_id: entry.file_id,
                segment_bytes: known(manifest.segment_bytes),
                seed: (!is_guessed).then_some(manifest.hash_seed),
                records: known(entry.records),
            };
            let survey = survey(self.disk, expected);
            let dead = deaths.get(&entry.file_id);
            let dead = dead.map_or(&[][..], |deaths| &deaths.dead[..]);
            let live_keys = survey.sound.iter().filter(|record| {
                record.kind == SlotKind::Root && dead.binary_search(&record.offset).is_err()
            });
            self.checked.keys += live_keys.count() as u64;
            self.checked.segments += 1;
            self.checked.deaths += dead.len() as u64;
            self.checked.records += survey.sound.len() as u64;
            self.checked.unsound_records += survey.lost.len() as u64;
            for damage in survey.damages {
                self.damage(damage);
            }
            if segments % SEGMENTS_PER_REPORT == 0 || segments == of {
                (self.report)(Report::Progress { segments, of });
            }
        }
    }

    fn check_logs(&mut self, logs: Logs) {
        let mut each =
            |_: u64, frame: &[u8], blobs: &mut Blobs<'_>| check_frame(frame, blobs, &mut |_| {});
        let replayed = match readable::replay(self.disk, logs, &mut each) {
            Ok(Ok(replayed)) => replayed,
            Ok(Err(damage)) => return self.damage(damage),
            Err(error) => return self.damage(damage_of(self.disk, "", &error)),
        };
        self.checked.log_frames = replayed.frames;
        self.checked.log_bytes = replayed.bytes;
        if let (1.., Some(last)) = (replayed.cut_bytes, replayed.last) {
            let name = command_log::log_name(last.generation);
            self.note(format!(
                "{name} at offset {}: {} bytes were torn off by a crash, none of them promised to survive; the next start \
                 cuts them",
                last.bytes, replayed.cut_bytes
            ));
        }
        if let Some(generation) = replayed.unreachable_from {
            let name = command_log::log_name(generation);
            self.note(format!(
                "{name}: begun when no checkpoint led to it; not replayed"
            ));
        }
    }

    /// Tells what the other files are.
    fn look_at_names(&mut self, manifest: &Manifest) {
        let named: BTreeSet<u64> = manifest
            .segments
            .iter()
            .map(|entry| entry.file_id)
            .collect();
        let mut notes = Vec::new();
        for name in &self.names {
            let of_segment = tiering::file_id_of(name).or_else(|| key_file::file_id_of(name));
            let is_part = match (
                of_segment,
                deaths::generation_of(name),
                generation_of_log(name),
            ) {
                (Some(id), ..) => named.contains(&id),
                (_, Some(number), _) => manifest.deaths.contains(&number),
                (.., Some(generation)) => generation > manifest.generation,
                _ if name == manifest::NAME || name == "LOCK" => true,
                _ if name == manifest::NEW_NAME => false,
                _ => {
                    notes.push(format!("{name}: not a file of the store; left alone"));
                    continue;
                }
            };
            if !is_part {
                notes.push(format!(
                    "{name}: not part of the data; the next start removes it"
                ));
            }
        }
        notes.sort();
        notes.into_iter().for_each(|note| self.note(note));
    }
}
