//! A disk in memory, for tests that open thousands of damaged files.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

type Content = Arc<Mutex<Vec<u8>>>;

/// Files by name. Everything written is durable at once.
#[derive(Debug, Default)]
pub(crate) struct MemoryDisk {
    files: Mutex<BTreeMap<String, Content>>,
}

impl MemoryDisk {
    /// The bytes of a file, which must be there.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        self.files.lock()[name].lock().clone()
    }

    /// Makes a file hold exactly `bytes`.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let content = Arc::new(Mutex::new(bytes.to_vec()));
        self.files.lock().insert(name.to_string(), content);
    }

    fn find(&self, name: &str) -> io::Result<Content> {
        let found = self.files.lock().get(name).cloned();
        found.ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("{name} is not there")))
    }
}

impl Disk for MemoryDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        if self.find(name).is_ok() {
            let text = format!("{name} exists");
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        self.put(name, &[]);
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(MemoryFile(self.find(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let content = self.find(from)?;
        let mut files = self.files.lock();
        files.remove(from);
        files.insert(to.to_string(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.find(name)?;
        self.files.lock().remove(name);
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/memory").join(name)
    }
}

struct MemoryFile(Content);

impl DiskFile for MemoryFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.0.lock();
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.0.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = content.get(from..).and_then(|rest| rest.get(..bytes.len()));
        let rest = rest.ok_or_else(|| io::Error::from(ErrorKind::UnexpectedEof))?;
        bytes.copy_from_slice(rest);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(len as usize, 0);
        Ok(())
    }

    fn write_back(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cached(&self) {}
}
