//! The calls that are timed: GETs, one and many at a time, and SETs, of random keys.
//!
//! Keys are 16 bytes and values 100 bytes. Each call makes its keys as it goes, which costs a few
//! nanoseconds and no memory traffic; every value read is checked to be its key's.

use super::measure::Call;
use super::subject::Subject;
use crate::random::{Random, mix64};

pub(crate) const KEY_BYTES: usize = 16;
pub(crate) const VALUE_BYTES: usize = 100;

/// The most keys asked for at once.
pub(crate) const MAX_BATCH: usize = 128;

/// The key with index `index`: spread over all bit patterns, and distinct.
#[inline]
pub(crate) fn key(index: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix64(index ^ 0x6b65_7973).to_le_bytes());
    key[8..].copy_from_slice(&index.to_le_bytes());
    key
}

/// The value of the key with index `index`.
#[inline]
pub(crate) fn value(index: u64) -> [u8; VALUE_BYTES] {
    let mut value = [b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&index.to_le_bytes());
    value
}

#[inline]
pub(crate) fn check(index: u64, value: Option<&[u8]>) -> Result<(), String> {
    match value {
        Some(value) if value.len() >= VALUE_BYTES && value[..8] == index.to_le_bytes() => Ok(()),
        Some(_) => Err(format!("the value of key {index} is wrong")),
        None => Err(format!("key {index} is missing")),
    }
}

/// Writes all `keys` keys.
pub(crate) fn write_all(subject: &impl Subject, keys: u64) -> Result<(), String> {
    (0..keys).try_for_each(|index| subject.set(&key(index), &value(index)))
}

/// GETs of one key that exists.
pub(crate) struct Get<'a, S> {
    pub(crate) subject: &'a S,
    pub(crate) keys: u64,
    pub(crate) random: Random,
    pub(crate) value: Vec<u8>,
}

impl<S: Subject> Call for Get<'_, S> {
    #[inline]
    fn call(&mut self) -> Result<u64, String> {
        let index = self.random.below(self.keys);
        let found = self.subject.get(&key(index), &mut self.value)?;
        check(index, found.then_some(&self.value))?;
        Ok(1)
    }
}

/// GETs of one key that does not exist: what a GET costs up to and with the index.
pub(crate) struct Miss<'a, S> {
    pub(crate) subject: &'a S,
    pub(crate) keys: u64,
    pub(crate) random: Random,
    pub(crate) value: Vec<u8>,
}

impl<S: Subject> Call for Miss<'_, S> {
    #[inline]
    fn call(&mut self) -> Result<u64, String> {
        let index = self.keys + self.random.below(self.keys);
        match self.subject.get(&key(index), &mut self.value)? {
            false => Ok(1),
            true => Err(format!("key {index} was found, and was never written")),
        }
    }
}

/// GETs of a batch of keys in one call.
pub(crate) struct GetMany<'a, S> {
    pub(crate) subject: &'a S,
    pub(crate) keys: u64,
    pub(crate) random: Random,
    pub(crate) batch: usize,
}

impl<S: Subject> Call for GetMany<'_, S> {
    #[inline]
    fn call(&mut self) -> Result<u64, String> {
        let mut indexes = [0; MAX_BATCH];
        let mut keys = [[0; KEY_BYTES]; MAX_BATCH];
        let mut asked: [&[u8]; MAX_BATCH] = [&[]; MAX_BATCH];
        for n in 0..self.batch {
            indexes[n] = self.random.below(self.keys);
            keys[n] = key(indexes[n]);
        }
        for (asked, key) in asked.iter_mut().zip(&keys[..self.batch]) {
            *asked = key;
        }
        let mut checked = Ok(());
        let mut answers = 0;
        self.subject.get_many(&asked[..self.batch], |n, value| {
            answers += 1;
            if let Err(wrong) = check(indexes[n], value) {
                checked = Err(wrong);
            }
        })?;
        checked?;
        match answers == self.batch {
            true => Ok(self.batch as u64),
            false => Err(format!("{answers} answers to {} keys", self.batch)),
        }
    }
}

/// SETs of one key that exists, to a value of the same length.
pub(crate) struct Set<'a, S> {
    pub(crate) subject: &'a S,
    pub(crate) keys: u64,
    pub(crate) random: Random,
}

impl<S: Subject> Call for Set<'_, S> {
    #[inline]
    fn call(&mut self) -> Result<u64, String> {
        let index = self.random.below(self.keys);
        self.subject.set(&key(index), &value(index))?;
        Ok(1)
    }
}
