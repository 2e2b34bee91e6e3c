//! A disk in memory that fails when it is told to, and knows what a power cut would leave.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::disk::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// What all files of a disk share. Clones are the same disk.
#[derive(Clone, Default, Debug)]
pub(crate) struct TestDisk {
    files: Arc<Mutex<BTreeMap<String, TestFile>>>,
    faults: Arc<Faults>,
}

#[derive(Default, Debug)]
struct Faults {
    state: Mutex<FaultState>,
    changed: Condvar,
}

#[derive(Default, Debug)]
struct FaultState {
    /// Bytes by which files may still grow.
    room: Option<usize>,
    syncs_fail: bool,
    syncs_held: bool,
    syncs_waiting: usize,
    syncs: usize,
}

#[derive(Clone, Debug)]
struct TestFile {
    content: Arc<Mutex<Content>>,
    /// Whether the directory has been synced since the file was made.
    entry_is_durable: bool,
    faults: Arc<Faults>,
}

#[derive(Clone, Default, Debug)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

impl TestDisk {
    /// From now on files can grow by so many bytes in all; `None`: as they like.
    pub(crate) fn set_room(&self, bytes: Option<usize>) {
        self.faults.state.lock().room = bytes;
    }

    pub(crate) fn fail_syncs(&self) {
        self.faults.state.lock().syncs_fail = true;
    }

    /// Syncs wait until [`Self::release_syncs`].
    pub(crate) fn hold_syncs(&self) {
        self.faults.state.lock().syncs_held = true;
    }

    pub(crate) fn release_syncs(&self) {
        self.faults.state.lock().syncs_held = false;
        self.faults.changed.notify_all();
    }

    /// Waits until a sync is being held.
    pub(crate) fn wait_for_held_sync(&self) {
        let mut state = self.faults.state.lock();
        while state.syncs_waiting == 0 {
            self.faults.changed.wait(&mut state);
        }
    }

    /// How many syncs have been asked for.
    pub(crate) fn syncs(&self) -> usize {
        self.faults.state.lock().syncs
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.files.lock()[name].content.lock().bytes.clone()
    }

    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let content = Content {
            synced: bytes.clone(),
            bytes,
        };
        self.files.lock().insert(
            name.to_owned(),
            TestFile {
                content: Arc::new(Mutex::new(content)),
                entry_is_durable: true,
                faults: self.faults.clone(),
            },
        );
    }

    /// Another disk with what is there after a power cut now: of what was not synced, what `survives` says.
    pub(crate) fn after_power_cut(&self, mut survives: impl FnMut() -> bool) -> TestDisk {
        let after = TestDisk::default();
        for (name, file) in self.files.lock().iter() {
            if !file.entry_is_durable && !survives() {
                continue;
            }
            let Content { bytes, synced } = file.content.lock().clone();
            let longer = if survives() { &bytes } else { &synced };
            let mut left = vec![0; longer.len()];
            for (at, sector) in left.chunks_mut(SECTOR_BYTES).enumerate() {
                let from = if survives() { &bytes } else { &synced };
                let begin = (at * SECTOR_BYTES).min(from.len());
                let end = (begin + sector.len()).min(from.len());
                sector[..end - begin].copy_from_slice(&from[begin..end]);
            }
            after.put(name, left);
        }
        after
    }
}

impl Disk for TestDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut files = self.files.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = TestFile {
            content: Arc::default(),
            entry_is_durable: false,
            faults: self.faults.clone(),
        };
        files.insert(name.to_owned(), file.clone());
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.files.lock().get(name).cloned();
        Ok(Box::new(file.ok_or(io::ErrorKind::NotFound)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.files.lock().remove(name);
        removed.map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        files
            .values_mut()
            .for_each(|file| file.entry_is_durable = true);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}

impl DiskFile for TestFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        let mut faults = self.faults.state.lock();
        let (offset, len) = (offset as usize, content.bytes.len());
        let growth = (offset + bytes.len()).saturating_sub(len);
        let granted = growth.min(faults.room.unwrap_or(growth));
        faults.room = faults.room.map(|room| room - granted);
        let written = bytes.len() - (growth - granted);
        if content.bytes.len() < offset + written {
            content.bytes.resize(offset + written, 0);
        }
        content.bytes[offset..offset + written].copy_from_slice(&bytes[..written]);
        if written < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.content.lock();
        let offset = offset as usize;
        let read = content.bytes.get(offset..offset + bytes.len());
        bytes.copy_from_slice(read.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        let freed = content.bytes.len().saturating_sub(len as usize);
        content.bytes.resize(len as usize, 0);
        let mut faults = self.faults.state.lock();
        faults.room = faults.room.map(|room| room + freed);
        Ok(())
    }

    fn write_back(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        {
            let mut faults = self.faults.state.lock();
            faults.syncs += 1;
            faults.syncs_waiting += 1;
            self.faults.changed.notify_all();
            while faults.syncs_held {
                self.faults.changed.wait(&mut faults);
            }
            faults.syncs_waiting -= 1;
            if faults.syncs_fail {
                return Err(io::Error::other("the device has failed"));
            }
        }
        let mut content = self.content.lock();
        content.synced = content.bytes.clone();
        Ok(())
    }

    fn drop_cached(&self) {}
}
