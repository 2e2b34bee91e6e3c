//! Simple access to a store: each call is one operation in namespace 0. [`Store`] itself has the blocking forms,
//! [`AsyncStore`] the same ones for tasks.

use crate::index::Index;
use crate::io::ColdReader;
use crate::latch::LatchMode;
use crate::operation::{KeyRef, Meta, Operation, WHEN_ASKED};
use crate::reads::ColdReads;
use crate::store::{LookedUp, Prefetched, Store};
use crate::{Namespace, Scanned, Stop};

/// How many records [`Store::get_many`] has on their way from memory or the device at once.
const GET_MANY_GROUP: usize = 32;

/// Slots of the index that one step of [`Store::for_each_key`] looks at.
const KEYS_PER_STEP: usize = 1024;

/// Keys of the simple interface live in one namespace.
const PLAIN: Namespace = Namespace(0);

fn plain(key: &[u8], mode: LatchMode) -> [KeyRef<'_>; 1] {
    [KeyRef {
        namespace: PLAIN,
        key,
        mode,
    }]
}

fn get_step<I: Index>(
    operation: &Operation<'_, I>,
    key: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<bool, Stop> {
    let Some(record) = operation.read(PLAIN, key)? else {
        return Ok(false);
    };
    buffer.extend_from_slice(&operation.value(&record)?);
    Ok(true)
}

fn update_step<I: Index>(
    operation: &mut Operation<'_, I>,
    key: &[u8],
    change: &mut impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
) -> Result<bool, Stop> {
    let record = operation.read(PLAIN, key)?;
    let meta = record.map(|record| record.meta()).unwrap_or_default();
    let new = match &record {
        Some(record) => change(Some(&operation.value(record)?)),
        None => change(None),
    };
    match new {
        Some(new) => operation.set(PLAIN, key, &new, meta).map(|()| true),
        None => operation.remove(PLAIN, key).map(|_| false),
    }
}

fn scan_step<I: Index>(operation: &Operation<'_, I>, cursor: u64) -> Result<Scanned, Stop> {
    operation.scan(PLAIN, cursor, KEYS_PER_STEP)
}

/// Why a group of lookups stopped before its end.
enum Pause {
    Cold,
    Latched,
}

impl<I: Index> Store<I> {
    /// Hands out values of `keys` under one pin until all are done, a latch is taken, or something has to be fetched.
    fn get_group<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        prefetched: &[LookedUp],
        reads: &ColdReads,
        mut each: impl FnMut(Option<&[u8]>),
    ) -> Result<Option<Pause>, Stop> {
        let _pin = self.pin();
        let mut copy = Vec::new();
        for (key, looked_up) in keys.iter().map(AsRef::as_ref).zip(prefetched) {
            copy.clear();
            if let Some(found) = self.shared.read_unlatched(looked_up, PLAIN, key, &mut copy) {
                each(found.then_some(&copy[..]));
                continue;
            }
            let latch = LatchMode::Shared;
            let operation = self
                .shared
                .operation_on_hash(looked_up.hash, latch, reads, WHEN_ASKED);
            let Some(operation) = operation else {
                return Ok(Some(Pause::Latched));
            };
            let value = match operation.read_looked_up(looked_up, PLAIN, key) {
                Ok(None) => {
                    each(None);
                    continue;
                }
                Ok(Some(record)) => operation.value(&record),
                Err(stop) => Err(stop),
            };
            match value {
                Ok(value) => each(Some(&value)),
                Err(Stop::Cold) => return Ok(Some(Pause::Cold)),
                Err(stop) => return Err(stop),
            }
        }
        Ok(None)
    }

    /// Prefetches a group and returns what that found out.
    fn prefetch_group<K: AsRef<[u8]>>(&self, group: &[K], reads: &ColdReads) -> Prefetched {
        let keys = group.iter().map(|key| (PLAIN, key.as_ref()));
        self.prefetch_hashed(keys, reads, u64::MAX)
    }
}

/// Simple access: each call is one operation in namespace 0 and blocks the thread for cold reads.
impl<I: Index> Store<I> {
    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// [`Stop::Io`] if its cold record cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Stop> {
        let mut value = Vec::new();
        Ok(self.get_into(key, &mut value)?.then_some(value))
    }

    /// Appends the value of `key` to `buffer`; `false` if the key does not exist.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    #[inline]
    pub fn get_into(&self, key: &[u8], buffer: &mut Vec<u8>) -> Result<bool, Stop> {
        match self.get_unlatched(key, buffer) {
            Some(found) => Ok(found),
            None => self.get_latched(key, buffer),
        }
    }

    #[inline]
    fn get_unlatched(&self, key: &[u8], buffer: &mut Vec<u8>) -> Option<bool> {
        let looked_up = LookedUp::of(self.shared.hash(PLAIN, key));
        self.shared.read_unlatched(&looked_up, PLAIN, key, buffer)
    }

    #[cold]
    fn get_latched(&self, key: &[u8], buffer: &mut Vec<u8>) -> Result<bool, Stop> {
        let keys = plain(key, LatchMode::Shared);
        self.blocking(&keys, WHEN_ASKED, |operation| {
            get_step(operation, key, buffer)
        })
    }

    /// Calls `each` with the position and value of every key, in order. Loads what the lookups need ahead of them, and
    /// reads all cold records of a group of keys in one submission.
    ///
    /// # Errors
    ///
    /// As [`Self::get`]; the values before the failed one have been handed out.
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Stop> {
        let mut reads = ColdReads::default();
        let mut done = 0;
        for group in keys.chunks(GET_MANY_GROUP) {
            reads.clear();
            let prefetched = self.prefetch_group(group, &reads);
            if reads.is_wanting() {
                reads.fetch_blocking(&self.shared.blocking_reader);
            }
            let begin = done;
            let end = begin + group.len();
            while done < end {
                let pause = self.get_group(
                    &keys[done..end],
                    &prefetched[done - begin..],
                    &reads,
                    |value| {
                        each(done, value);
                        done += 1;
                    },
                )?;
                match pause {
                    None => {}
                    Some(Pause::Cold) => reads.fetch_blocking(&self.shared.blocking_reader),
                    Some(Pause::Latched) => std::thread::yield_now(),
                }
            }
        }
        Ok(())
    }

    /// Stores `value` under `key` without reading what was there.
    ///
    /// # Errors
    ///
    /// [`Stop::TooLarge`]; [`Stop::NoRoom`] if the device cannot be written or memory is exhausted.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), Stop> {
        self.set_with(key, value, Meta::default())
    }

    /// As [`Self::set`], with type and expiry.
    ///
    /// # Errors
    ///
    /// As [`Self::set`].
    pub fn set_with(&self, key: &[u8], value: &[u8], meta: Meta) -> Result<(), Stop> {
        let keys = plain(key, LatchMode::Exclusive);
        self.blocking(&keys, 0, |operation| operation.set(PLAIN, key, value, meta))
    }

    /// Reads the value of `key`, lets `change` make the new one of it (`None`: removes the key), and stores that; nobody
    /// else changes the key in between. If the new value has to wait for room, the old one is read, and `change` called,
    /// again. Returns whether the key exists afterwards.
    ///
    /// # Errors
    ///
    /// As [`Self::get`] and [`Self::set`].
    pub fn update(
        &self,
        key: &[u8],
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<bool, Stop> {
        let keys = plain(key, LatchMode::Exclusive);
        self.blocking(&keys, WHEN_ASKED, |operation| {
            update_step(operation, key, &mut change)
        })
    }

    /// Removes `key`; `false` if it did not exist.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn delete(&self, key: &[u8]) -> Result<bool, Stop> {
        let keys = plain(key, LatchMode::Exclusive);
        self.blocking(&keys, WHEN_ASKED, |operation| operation.remove(PLAIN, key))
    }

    /// Calls `each` with every key, in no order. A key that exists throughout is visited at least once.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn for_each_key(&self, mut each: impl FnMut(&[u8])) -> Result<(), Stop> {
        let mut cursor = 0;
        loop {
            let scanned =
                self.blocking(&[], WHEN_ASKED, |operation| scan_step(operation, cursor))?;
            scanned.keys.iter().for_each(|(key, _)| each(key));
            cursor = scanned.cursor;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// The same calls for tasks, with cold records fetched by `reader`.
    pub fn with_reader<'s>(&'s self, reader: &'s ColdReader) -> AsyncStore<'s, I> {
        AsyncStore {
            store: self,
            reader,
        }
    }
}

/// Simple access for tasks: while a cold record is fetched, the task waits and the thread goes on. See
/// [`Store::with_reader`]; every method does what the one of [`Store`] with the same name does.
pub struct AsyncStore<'s, I: Index> {
    store: &'s Store<I>,
    reader: &'s ColdReader,
}

impl<I: Index> AsyncStore<'_, I> {
    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Stop> {
        let mut value = Vec::new();
        if let Some(found) = self.store.get_unlatched(key, &mut value) {
            return Ok(found.then_some(value));
        }
        let keys = plain(key, LatchMode::Shared);
        let body = |operation: &mut Operation<'_, I>| get_step(operation, key, &mut value);
        let found = self
            .store
            .asynchronous(self.reader, &keys, WHEN_ASKED, body)
            .await?;
        Ok(found.then_some(value))
    }

    /// Calls `each` with the position and value of every key, in order; the cold records of a group of keys are one
    /// submission.
    ///
    /// # Errors
    ///
    /// As [`Store::get_many`].
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Stop> {
        let mut reads = ColdReads::default();
        let mut done = 0;
        for group in keys.chunks(GET_MANY_GROUP) {
            reads.clear();
            let prefetched = self.store.prefetch_group(group, &reads);
            if reads.is_wanting() {
                reads.fetch(self.reader).await;
            }
            let begin = done;
            let end = begin + group.len();
            while done < end {
                let pause = self.store.get_group(
                    &keys[done..end],
                    &prefetched[done - begin..],
                    &reads,
                    |value| {
                        each(done, value);
                        done += 1;
                    },
                )?;
                match pause {
                    None => {}
                    Some(Pause::Cold) => reads.fetch(self.reader).await,
                    Some(Pause::Latched) => tokio::task::yield_now().await,
                }
            }
        }
        Ok(())
    }

    /// Stores `value` under `key` without reading what was there.
    ///
    /// # Errors
    ///
    /// As [`Store::set`].
    pub async fn set(&self, key: &[u8], value: &[u8]) -> Result<(), Stop> {
        let keys = plain(key, LatchMode::Exclusive);
        let body =
            |operation: &mut Operation<'_, I>| operation.set(PLAIN, key, value, Meta::default());
        self.store.asynchronous(self.reader, &keys, 0, body).await
    }

    /// Reads the value of `key`, lets `change` make the new one of it, and stores that.
    ///
    /// # Errors
    ///
    /// As [`Store::update`].
    pub async fn update(
        &self,
        key: &[u8],
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<bool, Stop> {
        let keys = plain(key, LatchMode::Exclusive);
        let body = |operation: &mut Operation<'_, I>| update_step(operation, key, &mut change);
        self.store
            .asynchronous(self.reader, &keys, WHEN_ASKED, body)
            .await
    }

    /// Removes `key`; `false` if it did not exist.
    ///
    /// # Errors
    ///
    /// As [`Store::delete`].
    pub async fn delete(&self, key: &[u8]) -> Result<bool, Stop> {
        let keys = plain(key, LatchMode::Exclusive);
        let body = |operation: &mut Operation<'_, I>| operation.remove(PLAIN, key);
        self.store
            .asynchronous(self.reader, &keys, WHEN_ASKED, body)
            .await
    }

    /// Calls `each` with every key, in no order.
    ///
    /// # Errors
    ///
    /// As [`Store::for_each_key`].
    pub async fn for_each_key(&self, mut each: impl FnMut(&[u8])) -> Result<(), Stop> {
        let mut cursor = 0;
        loop {
            let body = |operation: &mut Operation<'_, I>| scan_step(operation, cursor);
            let scanned = self
                .store
                .asynchronous(self.reader, &[], WHEN_ASKED, body)
                .await?;
            scanned.keys.iter().for_each(|(key, _)| each(key));
            cursor = scanned.cursor;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
