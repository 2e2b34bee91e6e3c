//! A disk that works in a scratch directory, so that what is written can be read, and that knows at every moment what would
//! be left of it if the power went now.
//!
//! Every call is a *step*. Who tests looks at each of them, and may let it fail. [`SimulatedDisk::crash`] then makes a new
//! disk of what has survived; the old one never does anything again, however long its users go on: writes to it go nowhere,
//! as into a page cache that will never reach the device, and everything else fails, so that nobody waits for better times.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hybridlog::disk::{Disk, DiskFile};
use parking_lot::{Mutex, MutexGuard};
use tempfile::TempDir;

use crate::image::{Image, SECTOR_BYTES, Survival};
use crate::random::Random;

/// What is written past the page cache begins and ends at multiples of this, in memory and in the file.
const UNCACHED_ALIGN_BYTES: usize = 4096;

/// What a step does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Create,
    Open,
    Rename,
    Remove,
    Names,
    SyncDirectory,
    Write,
    /// Past the page cache.
    WriteUncached,
    Read,
    Len,
    Truncate,
    WriteBack,
    Sync,
}

impl Action {
    /// Whether a power cut after it may leave something else than one before it.
    pub(crate) fn matters(self) -> bool {
        !matches!(
            self,
            Action::Open | Action::Names | Action::Read | Action::Len | Action::WriteBack
        )
    }
}

/// One call of the disk.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// From 0.
    pub(crate) number: usize,
    pub(crate) action: Action,
    /// The file's name when it was opened.
    pub(crate) name: String,
}

/// What goes wrong at a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The device refuses (EIO). Nothing is written; of what a failed sync was to write, some.
    Refused,
    /// As much is written as the device likes, then it refuses.
    Short,
    /// There is no space: as [`Fault::Short`] where space is needed, and no fault where it is not.
    Full,
    /// It takes this long.
    Slow(Duration),
    /// The power goes before the step.
    PowerCut,
}

/// Decides about every step.
type Judge = Box<dyn FnMut(&Step) -> Option<Fault> + Send>;

/// A directory that goes when it is dropped: in memory, if there is a place, since nothing in it has to last.
pub(crate) fn scratch_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_path_buf()
    } else {
        std::env::temp_dir()
    };
    tempfile::tempdir_in(parent).expect("a scratch directory")
}

/// The disk; clones are the same one.
#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Machine>);

struct Machine {
    directory: TempDir,
    state: Mutex<State>,
}

struct State {
    has_power: bool,
    random: Random,
    judge: Judge,
    steps: Vec<Step>,
    /// Which file each name stands for, now and after a power cut that loses all of `renamings`.
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    renamings: Vec<Renaming>,
    images: HashMap<FileId, Image>,
    files_made: u64,
    /// Bytes that the device cannot read.
    unreadable: Vec<(FileId, Range<u64>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct FileId(u64);

/// A change of the directory. It survives whole or not at all.
struct Renaming {
    gone: Option<String>,
    there: Option<(String, FileId)>,
}

impl SimulatedDisk {
    /// An empty disk. What it leaves open, such as how much a short write writes, `seed` decides.
    pub(crate) fn new(seed: u64) -> SimulatedDisk {
        SimulatedDisk::with_files(seed, BTreeMap::new())
    }

    fn with_files(seed: u64, files: BTreeMap<String, Vec<u8>>) -> SimulatedDisk {
        let directory = scratch_directory();
        let (mut names, mut images) = (BTreeMap::new(), HashMap::new());
        for (at, (name, bytes)) in files.into_iter().enumerate() {
            fs::write(directory.path().join(&name), &bytes).expect("scratch space");
            names.insert(name, FileId(at as u64));
            images.insert(FileId(at as u64), Image::of_durable(bytes));
        }
        let state = State {
            has_power: true,
            random: Random::new(seed),
            judge: Box::new(|_| None),
            steps: Vec::new(),
            durable_names: names.clone(),
            files_made: names.len() as u64,
            names,
            renamings: Vec::new(),
            images,
            unreadable: Vec::new(),
        };
        SimulatedDisk(Arc::new(Machine {
            directory,
            state: Mutex::new(state),
        }))
    }

    /// The scratch directory.
    pub(crate) fn directory(&self) -> &Path {
        self.0.directory.path()
    }

    /// Lets `judge` decide from now on what goes wrong. It must not use the disk itself.
    pub(crate) fn inject(&self, judge: impl FnMut(&Step) -> Option<Fault> + Send + 'static) {
        self.0.state.lock().judge = Box::new(judge);
    }

    /// Lets the power go after so many steps that matter.
    pub(crate) fn cut_power_after(&self, steps: u64) {
        let mut left = steps;
        self.inject(move |step| match step.action.matters() {
            true if left == 0 => Some(Fault::PowerCut),
            true => {
                left -= 1;
                None
            }
            false => None,
        });
    }

    pub(crate) fn has_power(&self) -> bool {
        self.0.state.lock().has_power
    }

    /// All steps up to now.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.0.state.lock().steps.clone()
    }

    /// From now on the device cannot read these bytes of a file.
    pub(crate) fn make_unreadable(&self, name: &str, bytes: Range<u64>) {
        let state = &mut *self.0.state.lock();
        let file = state.id_of(name).expect("a file");
        state.unreadable.push((file, bytes));
    }

    /// Flips a bit of what is durable of a file.
    pub(crate) fn flip_bit(&self, name: &str, bit: u64) {
        let state = &mut *self.0.state.lock();
        let image = state
            .names
            .get(name)
            .and_then(|file| state.images.get_mut(file))
            .expect("a file");
        image.flip_bit(bit);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(self.path(name));
        let file = file.expect("scratch space");
        let mut byte = [0];
        file.read_exact_at(&mut byte, bit / 8).expect("the bit");
        byte[0] ^= 1 << (bit % 8);
        file.write_all_at(&byte, bit / 8).expect("scratch space");
    }

    /// Cuts the power, if it is still there, and returns a disk with what has survived, which depends on `seed`.
    pub(crate) fn crash(&self, seed: u64) -> SimulatedDisk {
        let mut random = Random::new(seed);
        let mut state = self.0.state.lock();
        state.has_power = false;
        let files = match random.below(8) {
            0 => state.survivors(&mut |_, _| Survival::Nothing, &mut random),
            1 => state.survivors(&mut |_, _| Survival::Everything, &mut random),
            _ => state.survivors(&mut Survival::pick, &mut random),
        };
        SimulatedDisk::with_files(random.next(), files)
    }

    fn disk_file(&self, name: &str, id: FileId, file: File) -> Box<dyn DiskFile> {
        Box::new(SimulatedFile {
            machine: self.0.clone(),
            name: name.to_string(),
            id,
            file,
        })
    }
}

impl State {
    fn survivors(
        &self,
        pick: &mut dyn FnMut(&mut Random, usize) -> Survival,
        random: &mut Random,
    ) -> BTreeMap<String, Vec<u8>> {
        let mut names = self.durable_names.clone();
        let survival = pick(random, self.renamings.len());
        for (at, renaming) in self.renamings.iter().enumerate() {
            if survival.keeps(at, random) {
                renaming.apply(&mut names);
            }
        }
        let mut survivor = |id: FileId| {
            let image = &self.images[&id];
            let survival = pick(random, image.changes());
            image.survivor(survival, random)
        };
        names
            .into_iter()
            .map(|(name, id)| (name, survivor(id)))
            .collect()
    }

    fn rename(&mut self, renaming: Renaming) {
        renaming.apply(&mut self.names);
        self.renamings.push(renaming);
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((name, id)) = &self.there {
            names.insert(name.clone(), *id);
        }
    }
}

impl Machine {
    /// Takes a step: the state, and the fault that the step must act out, or why it fails without an effect.
    fn step(
        &self,
        action: Action,
        name: &str,
    ) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.state.lock();
        check_power(&state, action, name)?;
        let step = Step {
            number: state.steps.len(),
            action,
            name: name.to_string(),
        };
        let fault = (state.judge)(&step);
        state.steps.push(step);
        let writes = matches!(action, Action::Write | Action::WriteUncached | Action::Sync);
        let takes_space = matches!(
            action,
            Action::Write | Action::WriteUncached | Action::Create | Action::Rename
        );
        match fault {
            Some(Fault::PowerCut) => state.has_power = false,
            Some(Fault::Slow(time)) => {
                drop(state);
                std::thread::sleep(time);
                state = self.state.lock();
            }
            Some(Fault::Full) if !takes_space => return Ok((state, None)),
            Some(fault) if !writes => return Err(fault.error(action, name)),
            Some(fault) => return Ok((state, Some(fault))),
            None => {}
        }
        check_power(&state, action, name)?;
        Ok((state, None))
    }
}

fn check_power(state: &State, action: Action, name: &str) -> io::Result<()> {
    if state.has_power {
        return Ok(());
    }
    let text = format!("{action:?} {name}: the power is cut (simulated)");
    // That is not tried again.
    Err(io::Error::new(ErrorKind::ReadOnlyFilesystem, text))
}

impl Fault {
    fn error(self, action: Action, name: &str) -> io::Error {
        const EIO: i32 = 5;
        let kind = match self {
            Fault::Full => ErrorKind::StorageFull,
            _ => io::Error::from_raw_os_error(EIO).kind(),
        };
        io::Error::new(kind, format!("{action:?} {name}: {self:?} (simulated)"))
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedDisk({})", self.directory().display())
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let (mut state, _) = self.0.step(Action::Create, name)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        let file = options.open(self.path(name)).map_err(named(name))?;
        let id = FileId(state.files_made);
        state.files_made += 1;
        state.images.insert(id, Image::default());
        state.rename(Renaming {
            gone: None,
            there: Some((name.to_string(), id)),
        });
        Ok(self.disk_file(name, id, file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let (state, _) = self.0.step(Action::Open, name)?;
        let id = state.id_of(name)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true);
        let file = options.open(self.path(name)).map_err(named(name))?;
        Ok(self.disk_file(name, id, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut state, _) = self.0.step(Action::Rename, from)?;
        let id = state.id_of(from)?;
        fs::rename(self.path(from), self.path(to)).map_err(named(from))?;
        state.rename(Renaming {
            gone: Some(from.to_string()),
            there: Some((to.to_string(), id)),
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (mut state, _) = self.0.step(Action::Remove, name)?;
        state.id_of(name)?;
        fs::remove_file(self.path(name)).map_err(named(name))?;
        state.rename(Renaming {
            gone: Some(name.to_string()),
            there: None,
        });
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let (state, _) = self.0.step(Action::Names, "")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let (mut state, _) = self.0.step(Action::SyncDirectory, "")?;
        let state = &mut *state;
        state.renamings.clear();
        state.durable_names = state.names.clone();
        let named: Vec<FileId> = state.names.values().copied().collect();
        state.images.retain(|id, _| named.contains(id));
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }
}

impl State {
    fn id_of(&self, name: &str) -> io::Result<FileId> {
        let not_found = || named(name)(ErrorKind::NotFound.into());
        self.names.get(name).copied().ok_or_else(not_found)
    }
}

fn named(name: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{name}: {error}"))
}

struct SimulatedFile {
    machine: Arc<Machine>,
    name: String,
    id: FileId,
    file: File,
}

impl SimulatedFile {
    fn step(&self, action: Action) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        self.machine.step(action, &self.name)
    }

    fn has_power(&self) -> bool {
        self.machine.state.lock().has_power
    }

    fn current_len(&self) -> u64 {
        self.file.metadata().expect("scratch space").len()
    }

    /// What the file holds from the sector of `offset` to that of `end`, and where that starts.
    fn sectors(&self, offset: u64, end: u64) -> (u64, Vec<u8>) {
        let start = offset / SECTOR_BYTES * SECTOR_BYTES;
        let end = end.next_multiple_of(SECTOR_BYTES).min(self.current_len());
        let mut bytes = vec![0; (end - start) as usize];
        self.file
            .read_exact_at(&mut bytes, start)
            .expect("scratch space");
        (start, bytes)
    }

    fn write(&self, state: &mut State, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        self.file
            .write_all_at(bytes, offset)
            .expect("scratch space");
        // A file without a name does not survive anyway.
        if let Some(image) = state.images.get_mut(&self.id) {
            let (start, sectors) = self.sectors(offset, offset + bytes.len() as u64);
            image.written(start, sectors, self.current_len());
        }
    }
}

impl DiskFile for SimulatedFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.has_power() {
            return Ok(());
        }
        let (mut state, fault) = self.step(Action::Write)?;
        let written = match fault {
            None => bytes.len(),
            Some(Fault::Refused) => 0,
            Some(_) => state.random.below(bytes.len() as u64 + 1) as usize,
        };
        self.write(&mut state, &bytes[..written], offset);
        fault.map_or(Ok(()), |fault| Err(fault.error(Action::Write, &self.name)))
    }

    fn write_uncached(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let is_aligned = |at: usize| at.is_multiple_of(UNCACHED_ALIGN_BYTES);
        let places = [bytes.as_ptr().addr(), bytes.len(), offset as usize];
        if !places.into_iter().all(is_aligned) {
            return self.write_all_at(bytes, offset);
        }
        if !self.has_power() {
            return Ok(());
        }
        let (mut state, fault) = self.step(Action::WriteUncached)?;
        let sectors = bytes.len() as u64 / SECTOR_BYTES;
        let written = match fault {
            None => sectors,
            Some(Fault::Refused) => 0,
            Some(_) => state.random.below(sectors + 1),
        };
        let written = (written * SECTOR_BYTES) as usize;
        self.write(&mut state, &bytes[..written], offset);
        fault.map_or(Ok(()), |fault| {
            Err(fault.error(Action::WriteUncached, &self.name))
        })
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let (state, _) = self.step(Action::Read)?;
        let end = offset + bytes.len() as u64;
        let is_unreadable = |(file, bad): &(FileId, Range<u64>)| {
            *file == self.id && offset < bad.end && bad.start < end
        };
        if state.unreadable.iter().any(is_unreadable) {
            return Err(Fault::Refused.error(Action::Read, &self.name));
        }
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(named(&self.name))
    }

    fn len(&self) -> io::Result<u64> {
        let (_state, _) = self.step(Action::Len)?;
        Ok(self.current_len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if !self.has_power() {
            return Ok(());
        }
        let (mut state, _) = self.step(Action::Truncate)?;
        let old_len = self.current_len();
        self.file.set_len(len).map_err(named(&self.name))?;
        if let Some(image) = state.images.get_mut(&self.id) {
            let (_, last) = self.sectors(len, len);
            image.truncated(old_len, len, last);
        }
        Ok(())
    }

    fn write_back(&self) -> io::Result<()> {
        self.step(Action::WriteBack).map(drop)
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fault) = self.step(Action::Sync)?;
        let State { images, random, .. } = &mut *state;
        let image = images.get_mut(&self.id);
        let Some(fault) = fault else {
            image.into_iter().for_each(Image::synced);
            return Ok(());
        };
        image
            .into_iter()
            .for_each(|image| image.sync_failed(random));
        Err(fault.error(Action::Sync, &self.name))
    }

    fn drop_cached(&self) {}
}
