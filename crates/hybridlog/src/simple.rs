//! Simple access to a store: each call is one operation and blocks the thread for what it has to wait for.

use crate::index::Index;
use crate::latch::LatchMode;
use crate::operation::{KeyRef, Meta};
use crate::reads::ColdReads;
use crate::store::Store;
use crate::{Namespace, Stop};

/// How many records [`Store::get_many`] has on their way from memory at once.
const GET_MANY_GROUP: usize = 32;

/// Keys of the simple interface live in one namespace.
const PLAIN: Namespace = Namespace(0);

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn plain(key: &[u8], mode: LatchMode) -> [KeyRef<'_>; 1] {
    [KeyRef {
        namespace: PLAIN,
        key,
        mode,
    }]
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
        self.blocking(&plain(key, LatchMode::Shared), now_ms(), |operation| {
            let Some(record) = operation.read(PLAIN, key)? else {
                return Ok(false);
            };
            buffer.extend_from_slice(&operation.value(&record)?);
            Ok(true)
        })
    }

    /// Calls `each` with the position and value of every key, in order. Loads what the lookups need ahead of them, and
    /// reads all cold records of a group in one submission.
    ///
    /// # Errors
    ///
    /// As [`Self::get`]; the values before the failed one have been handed out.
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Stop> {
        let now_ms = now_ms();
        let mut reads = ColdReads::default();
        for (group_number, group) in keys.chunks(GET_MANY_GROUP).enumerate() {
            reads.clear();
            self.prefetch(
                group.iter().map(|key| (PLAIN, key.as_ref())),
                &reads,
                u64::MAX,
            );
            if reads.is_wanting() {
                reads.fetch_blocking(&self.shared.blocking_reader);
            }
            let mut done = 0;
            while done < group.len() {
                match self.get_group(&group[done..], &reads, now_ms, |value| {
                    each(group_number * GET_MANY_GROUP + done, value);
                    done += 1;
                }) {
                    Err(Stop::Cold) => reads.fetch_blocking(&self.shared.blocking_reader),
                    Err(stop) => return Err(stop),
                    Ok(()) => std::thread::yield_now(),
                }
            }
        }
        Ok(())
    }

    /// Hands out values under one pin until all are done, a latch is taken, or something has to be fetched.
    fn get_group<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        reads: &ColdReads,
        now_ms: u64,
        mut each: impl FnMut(Option<&[u8]>),
    ) -> Result<(), Stop> {
        let _pin = self.pin();
        for key in keys {
            let key = key.as_ref();
            let Some(operation) = self.operation(&plain(key, LatchMode::Shared), reads, now_ms)
            else {
                return Ok(());
            };
            match operation.read(PLAIN, key)? {
                Some(record) => each(Some(&operation.value(&record)?)),
                None => each(None),
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
        self.blocking(&plain(key, LatchMode::Exclusive), 0, |operation| {
            operation.set(PLAIN, key, value, meta)
        })
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
        self.blocking(&plain(key, LatchMode::Exclusive), now_ms(), |operation| {
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
        })
    }

    /// Removes `key`; `false` if it did not exist.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn delete(&self, key: &[u8]) -> Result<bool, Stop> {
        self.blocking(&plain(key, LatchMode::Exclusive), now_ms(), |operation| {
            operation.remove(PLAIN, key)
        })
    }

    /// Calls `each` with every key. A key that exists throughout is visited at least once.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn for_each_key(&self, mut each: impl FnMut(&[u8])) -> Result<(), Stop> {
        let mut cursor = 0;
        loop {
            let scanned = self.blocking(&[], now_ms(), |operation| {
                operation.scan(PLAIN, cursor, 1024)
            })?;
            scanned.keys.iter().for_each(|(key, _)| each(key));
            cursor = scanned.cursor;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
