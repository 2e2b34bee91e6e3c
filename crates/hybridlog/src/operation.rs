//! One operation: latched keys, a pinned epoch, cold reads that were fetched for it.

use std::borrow::Cow;
use std::ops::Deref;

use parking_lot::MutexGuard;

use crate::store::{Counts, Map, Tier};
use crate::{Namespace, Stop};

/// How an operation latches a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LatchMode {
    /// The key is only read.
    Shared,
    /// The key may be changed.
    Exclusive,
}

/// A key that an operation will touch.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'k> {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its bytes.
    pub key: &'k [u8],
    /// How to latch it.
    pub mode: LatchMode,
}

/// What is stored beside a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Type of the value; the engine only stores it.
    pub kind: u8,
    /// Unix time in milliseconds from which on the key no longer exists.
    pub expires_at_ms: Option<u64>,
}

#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) value: Vec<u8>,
    pub(crate) meta: Meta,
}

/// Cold reads wanted by, and fetched for, one batch of operations.
#[derive(Default)]
pub struct ColdReads {}

/// A record found by [`Operation::read`].
#[derive(Clone, Copy)]
pub struct Record<'a> {
    meta: Meta,
    value: &'a [u8],
}

impl Record<'_> {
    /// Type and expiry.
    pub fn meta(&self) -> Meta {
        self.meta
    }
    /// Length of the value in bytes; needs no further read even if the value is large and cold.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.value.len() as u64
    }
    /// Where the record lies.
    pub fn tier(&self) -> Tier {
        Tier::Hot
    }
}

/// Bytes of a value that stay valid after the operation has ended: a borrowed part of a mapped segment (which
/// it keeps mapped), a fetched buffer, or a copy.
pub struct Piece(Vec<u8>);

impl Deref for Piece {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What one step of [`Operation::scan`] found.
pub struct Scanned {
    /// Where to go on; 0 when the iteration is complete.
    pub cursor: u64,
    /// The keys with their type and expiry.
    pub keys: Vec<(Vec<u8>, Meta)>,
}

/// A running operation. Reads see a consistent state of the latched keys until it is dropped.
pub struct Operation<'s> {
    map: MutexGuard<'s, Map>,
    counts: &'s Counts,
    now_ms: u64,
}

impl<'s> Operation<'s> {
    pub(crate) fn new(map: MutexGuard<'s, Map>, counts: &'s Counts, _reads: &'s ColdReads, now_ms: u64) -> Self {
        Operation { map, counts, now_ms }
    }

    fn insert(&mut self, key: (Namespace, Vec<u8>), stored: Stored) {
        self.counts.add(key.0, &stored.meta, 1);
        let namespace = key.0;
        if let Some(old) = self.map.insert(key, stored) {
            self.counts.add(namespace, &old.meta, -1);
        }
    }

    fn take(&mut self, key: &(Namespace, Vec<u8>)) -> Option<Stored> {
        let old = self.map.remove(key)?;
        self.counts.add(key.0, &old.meta, -1);
        Some(old)
    }

    /// The time that decides about expiry in this operation, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Finds `key`; expired records count as absent.
    pub fn read(&self, namespace: Namespace, key: &[u8]) -> Result<Option<Record<'_>>, Stop> {
        Ok(self
            .map
            .get(&(namespace, key.to_vec()))
            .filter(|s| s.meta.expires_at_ms.is_none_or(|at| at > self.now_ms))
            .map(|s| Record { meta: s.meta, value: &s.value }))
    }

    /// The whole value of a record: borrowed where it lies in one piece, else put together.
    pub fn value<'r>(&'r self, record: &Record<'r>) -> Result<Cow<'r, [u8]>, Stop> {
        Ok(Cow::Borrowed(record.value))
    }

    /// `len` bytes of the value from `offset` on (clamped to its end); reads only the parts it needs.
    pub fn range<'r>(&'r self, record: &Record<'r>, offset: u64, len: u64) -> Result<Cow<'r, [u8]>, Stop> {
        let from = offset.min(record.len()) as usize;
        let to = offset.saturating_add(len).min(record.len()) as usize;
        Ok(Cow::Borrowed(&record.value[from..to]))
    }

    /// The whole value as pieces that outlive the operation, for replies that are written without a copy.
    pub fn pieces(&self, record: &Record<'_>) -> Result<Vec<Piece>, Stop> {
        Ok(vec![Piece(record.value.to_vec())])
    }

    /// Stores `value` under `key`, replacing whatever was there; never reads the device.
    pub fn set(&mut self, namespace: Namespace, key: &[u8], value: &[u8], meta: Meta) -> Result<(), Stop> {
        self.insert((namespace, key.to_vec()), Stored { value: value.to_vec(), meta });
        Ok(())
    }

    /// Overwrites the value from `offset` on with `bytes`, zero-filling up to `offset` where it is shorter; an
    /// absent key is created with `kind`. Type and expiry of an existing one stay. Returns the new length.
    pub fn write_range(&mut self, namespace: Namespace, key: &[u8], offset: u64, bytes: &[u8], kind: u8) -> Result<u64, Stop> {
        let live = self.read(namespace, key)?.map(|r| (r.value.to_vec(), r.meta));
        let (mut value, meta) = live.unwrap_or((Vec::new(), Meta { kind, expires_at_ms: None }));
        let offset = offset as usize;
        if value.len() < offset + bytes.len() {
            value.resize(offset + bytes.len(), 0);
        }
        value[offset..offset + bytes.len()].copy_from_slice(bytes);
        let len = value.len() as u64;
        self.insert((namespace, key.to_vec()), Stored { value, meta });
        Ok(len)
    }

    /// Sets or clears the expiry; `false` if the key does not exist.
    pub fn set_expiry(&mut self, namespace: Namespace, key: &[u8], expires_at_ms: Option<u64>) -> Result<bool, Stop> {
        if self.read(namespace, key)?.is_none() {
            return Ok(false);
        }
        let key = (namespace, key.to_vec());
        if let Some(mut stored) = self.take(&key) {
            stored.meta.expires_at_ms = expires_at_ms;
            self.insert(key, stored);
        }
        Ok(true)
    }

    /// Removes the key; `false` if it did not exist (or had expired).
    pub fn remove(&mut self, namespace: Namespace, key: &[u8]) -> Result<bool, Stop> {
        let live = self.read(namespace, key)?.is_some();
        self.take(&(namespace, key.to_vec()));
        Ok(live)
    }

    /// Moves a value with its type and expiry to another key, replacing what is there; `false` if `from` does
    /// not exist. O(1) in the size of a large value.
    pub fn rename(&mut self, from: (Namespace, &[u8]), to: (Namespace, &[u8])) -> Result<bool, Stop> {
        if self.read(from.0, from.1)?.is_none() {
            return Ok(false);
        }
        if let Some(stored) = self.take(&(from.0, from.1.to_vec())) {
            self.insert((to.0, to.1.to_vec()), stored);
        }
        Ok(true)
    }

    /// One step of an iteration over the keys of `namespace`: visits at least `count` slots of the index (fewer at
    /// the end). A key present from the first step to the last is returned at least once. Starts at cursor 0.
    pub fn scan(&self, namespace: Namespace, cursor: u64, count: usize) -> Result<Scanned, Stop> {
        let live = |s: &Stored| s.meta.expires_at_ms.is_none_or(|at| at > self.now_ms);
        let all: Vec<_> = self.map.iter().filter(|(k, _)| k.0 == namespace).collect();
        let end = (cursor as usize).saturating_add(count).min(all.len());
        let keys = all[(cursor as usize).min(end)..end].iter().filter(|(_, s)| live(s)).map(|(k, s)| (k.1.clone(), s.meta)).collect();
        Ok(Scanned { cursor: if end == all.len() { 0 } else { end as u64 }, keys })
    }

    /// A random key of `namespace`, or `None` if it is empty; expired records count as absent.
    pub fn random_key(&self, namespace: Namespace, random: u64) -> Result<Option<Vec<u8>>, Stop> {
        let live = |s: &Stored| s.meta.expires_at_ms.is_none_or(|at| at > self.now_ms);
        let all: Vec<_> = self.map.iter().filter(|(k, s)| k.0 == namespace && live(s)).map(|(k, _)| k).collect();
        Ok(if all.is_empty() { None } else { Some(all[random as usize % all.len()].1.clone()) })
    }
}
