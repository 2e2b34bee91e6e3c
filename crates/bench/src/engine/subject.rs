//! The engine as the measurements see it, so that they are written once for all indexes.

use std::path::Path;
use std::sync::Arc;

use hybridlog::{BucketIndex, DashIndex, Index, Store};
use tempfile::TempDir;

use super::calls::{KEY_BYTES, VALUE_BYTES};

/// A store, and the directory it keeps its files in.
pub(crate) struct Opened<I: Index> {
    pub(crate) store: Arc<Store<I>>,
    pub(crate) dir: TempDir,
}

impl<I: Index> Opened<I> {
    /// A store in a new directory under `dir`, which is removed with it.
    pub(crate) fn new(dir: &Path, memory_bytes: u64) -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix("bench-engine-")
            .tempdir_in(dir)
            .map_err(|error| format!("cannot make a directory in {}: {error}", dir.display()))?;
        let options = hybridlog::Options::new(dir.path())
            .memory_bytes(memory_bytes)
            .command_log(false);
        let store = Store::open(options).map_err(|error| error.to_string())?;
        Ok(Opened { store, dir })
    }

    /// A store with so much memory that `keys` keys stay in the mutable region.
    pub(crate) fn with_room_for(dir: &Path, keys: u64) -> Result<Self, String> {
        // Record header, index, and what segments in transit and unused ends of chunks take.
        let bytes_per_key = (KEY_BYTES + VALUE_BYTES) as u64 + 16 + 64;
        Self::new(dir, (keys * bytes_per_key * 3 / 2).max(256 << 20))
    }
}

/// A store under measurement.
pub(crate) trait Subject: Sync {
    /// Reads `key` into `value`; false if it does not exist.
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, String>;

    /// Reads all `keys` as one batch; calls `found` once for each with its number.
    fn get_many(
        &self,
        keys: &[&[u8]],
        found: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), String>;

    /// Writes `value` under `key`.
    fn set(&self, key: &[u8], value: &[u8]) -> Result<(), String>;
}

impl<I: Index> Subject for Store<I> {
    #[inline]
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, String> {
        value.clear();
        self.get_into(key, value).map_err(describe)
    }

    #[inline]
    fn get_many(
        &self,
        keys: &[&[u8]],
        found: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), String> {
        Store::get_many(self, keys, found).map_err(describe)
    }

    #[inline]
    fn set(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        Store::set(self, key, value).map_err(describe)
    }
}

/// What stopped an operation, in words.
#[cold]
pub(crate) fn describe(stop: hybridlog::Stop) -> String {
    format!("the engine stopped an operation: {stop:?}")
}

/// Both indexes, each under a store of its own.
pub(crate) fn open_both(
    dir: &Path,
    keys: u64,
) -> Result<(Opened<BucketIndex>, Opened<DashIndex>), String> {
    Ok((
        Opened::with_room_for(dir, keys)?,
        Opened::with_room_for(dir, keys)?,
    ))
}
