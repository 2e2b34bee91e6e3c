//! One operation: latched keys, a pinned epoch, the cold reads that were fetched for it.
#![allow(unsafe_code)] // Reads records where they lie and changes them in place, under the latches it holds.

use std::borrow::Cow;
use std::cell::Cell;

use smallvec::SmallVec;

use crate::address::{Slot, SlotKind};
use crate::epoch::{self, Guard};
use crate::index::{BucketIndex, Index};
use crate::latch::{LatchMode, Latches};
use crate::log::Urgency;
use crate::reads::{ColdReads, Known};
use crate::record::{Draft, RecordRef, flag};
use crate::segment::{Place, State};
use crate::shared::Shared;
use crate::stats::count;
use crate::{Namespace, Stop};

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

/// Where a record lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// In the mutable region.
    Hot,
    /// In a sealed segment, mapped from its file.
    Warm,
    /// On the device only.
    Cold,
}

/// A record found by [`Operation::read`].
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub(crate) found: Found<'a>,
    len: u64,
}

impl Record<'_> {
    /// Type and expiry.
    pub fn meta(&self) -> Meta {
        self.found.record.meta()
    }

    /// Length of the value in bytes; known without reading the value even if that is large and cold.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Where the record lies. Pages of a large value may lie elsewhere.
    pub fn tier(&self) -> Tier {
        self.found.tier
    }
}

/// A record and where it was found.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) slot: Slot,
    pub(crate) record: RecordRef<'a>,
    pub(crate) tier: Tier,
    /// Whether it may be changed in place.
    pub(crate) mutable: bool,
}

impl Found<'_> {
    pub(crate) fn is_chunked(&self) -> bool {
        self.record.flags() & flag::CHUNKED != 0
    }
}

/// What becomes of the pages of a large value that loses its root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldPages {
    Free,
    /// Another root has them now.
    Keep,
}

/// What a blind write finds under its key.
enum Previous<'a> {
    Absent,
    Found(Found<'a>),
    /// A slot with the right tag whose cold record nobody has read: it becomes a shadow.
    Unread,
}

/// Latches of keys, held until dropped.
pub struct Held<'s> {
    latches: &'s Latches,
    stripes: SmallVec<[(u32, LatchMode); 2]>,
}

impl<'s> Held<'s> {
    /// No latch at all.
    pub(crate) fn none(latches: &'s Latches) -> Held<'s> {
        Held {
            latches,
            stripes: SmallVec::new(),
        }
    }

    /// Latches all of `wanted` or nothing.
    pub(crate) fn acquire(
        latches: &'s Latches,
        mut wanted: SmallVec<[(u32, LatchMode); 2]>,
    ) -> Option<Held<'s>> {
        if wanted.len() > 1 {
            // Each stripe once, in its strongest mode: Exclusive sorts after Shared.
            wanted.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            wanted.dedup_by_key(|stripe| stripe.0);
        }
        let mut held = Held {
            latches,
            stripes: SmallVec::new(),
        };
        for (stripe, mode) in wanted {
            if !latches.try_acquire(stripe, mode) {
                return None;
            }
            held.stripes.push((stripe, mode));
        }
        Some(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for &(stripe, mode) in &self.stripes {
            self.latches.release(stripe, mode);
        }
    }
}

/// A running operation. The latched keys change only through it until it is dropped.
///
/// Everything it is asked about must have been latched when it was started, in [`LatchMode::Exclusive`] for what changes.
pub struct Operation<'s, I: Index = BucketIndex> {
    pub(crate) shared: &'s Shared<I>,
    pub(crate) reads: &'s ColdReads,
    now_ms: u64,
    held: Held<'s>,
    _pin: Guard,
    /// Once it has changed something it may use the emergency reserve, so that it is not left half done.
    pub(crate) urgency: Cell<Urgency>,
}

impl<'s, I: Index> Operation<'s, I> {
    pub(crate) fn new(
        shared: &'s Shared<I>,
        held: Held<'s>,
        reads: &'s ColdReads,
        now_ms: u64,
    ) -> Self {
        Operation {
            shared,
            reads,
            now_ms,
            held,
            _pin: epoch::pin(),
            urgency: Cell::new(Urgency::Normal),
        }
    }

    /// Ends the operation but keeps its latches, for a caller that must not lose them while it fetches cold records.
    pub fn into_held(self) -> Held<'s> {
        self.held
    }

    /// The time that decides about expiry in this operation, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Finds `key`; expired records count as absent.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] if the record (or one that might be it) has to be fetched, [`Stop::Io`] if fetching it failed.
    #[inline]
    pub fn read(&self, namespace: Namespace, key: &[u8]) -> Result<Option<Record<'_>>, Stop> {
        let hash = self.shared.hash(namespace, key);
        let Some(found) = self.find(hash, namespace, key)? else {
            return Ok(None);
        };
        if self.is_expired(&found.record) {
            self.shared.note_expired(namespace, key);
            return Ok(None);
        }
        self.note_read(hash, &found);
        let len = match found.is_chunked() {
            false => found.record.value().len() as u64,
            true => crate::large::Root::of(&found.record)?.len,
        };
        Ok(Some(Record { found, len }))
    }

    pub(crate) fn is_expired(&self, record: &RecordRef<'_>) -> bool {
        record.expires_at_ms().is_some_and(|at| at <= self.now_ms)
    }

    /// The newest record of the key.
    #[inline]
    pub(crate) fn find(
        &self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Found<'_>>, Stop> {
        for slot in self.shared.index.candidates(hash, SlotKind::Root) {
            if let Some(found) = self
                .found(slot)?
                .filter(|found| found.record.is(namespace, key))
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The record of a slot; `None` if the slot has been taken out since it was looked up.
    #[inline]
    pub(crate) fn found(&self, slot: Slot) -> Result<Option<Found<'_>>, Stop> {
        match self.shared.log.table.place(slot.address()) {
            Place::Memory { base, state } => {
                let mutable = state == State::Mutable;
                let tier = if state == State::Warm {
                    Tier::Warm
                } else {
                    Tier::Hot
                };
                // SAFETY: a slot's address is the start of a record; this operation is pinned, so the memory stays; the
                // caller holds the latch of the key, or looks at what never changes.
                let record = unsafe { RecordRef::new(base.as_ptr()) };
                Ok(Some(Found {
                    slot,
                    record,
                    tier,
                    mutable,
                }))
            }
            Place::Cold => self.found_cold(slot),
        }
    }

    fn found_cold(&self, slot: Slot) -> Result<Option<Found<'_>>, Stop> {
        let Some(segment) = self.shared.log.table.segment(slot.address()) else {
            return Ok(None);
        };
        match self.reads.record(slot, &segment, self.shared.log.geometry) {
            Known::Record(record) => Ok(Some(Found {
                slot,
                record,
                tier: Tier::Cold,
                mutable: false,
            })),
            Known::Failed(error) => Err(Stop::Io(error)),
            Known::Wanted => {
                count(&self.shared.counters.cold_reads, 1);
                Err(Stop::Cold)
            }
        }
    }

    /// Lets a read count towards staying in memory or coming back to it.
    #[inline]
    pub(crate) fn note_read(&self, hash: u64, found: &Found<'_>) {
        if found.tier != Tier::Cold {
            self.shared.log.table.mark_read(found.slot.address());
        } else if self.reads.first_use(found.slot.address())
            && self.shared.recent_cold_reads.second_read(hash)
            && self
                .shared
                .relocate(hash, found.slot, &found.record, Urgency::Normal)
        {
            count(&self.shared.counters.promotions, 1);
        }
    }

    /// The whole value of a record: borrowed where it lies in one piece, else put together.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] if pages of a large value have to be fetched, [`Stop::Io`] if fetching one failed.
    #[inline]
    pub fn value<'r>(&'r self, record: &Record<'r>) -> Result<Cow<'r, [u8]>, Stop> {
        if record.found.is_chunked() {
            return self
                .large_range(&record.found.record, 0, record.len)
                .map(Cow::Owned);
        }
        Ok(Cow::Borrowed(record.found.record.value()))
    }

    /// `len` bytes of the value from `offset` on, clamped to its end; of a large value only the pages it needs are read.
    ///
    /// # Errors
    ///
    /// As [`Self::value`].
    pub fn range<'r>(
        &'r self,
        record: &Record<'r>,
        offset: u64,
        len: u64,
    ) -> Result<Cow<'r, [u8]>, Stop> {
        let from = offset.min(record.len);
        let to = offset.saturating_add(len).min(record.len);
        if record.found.is_chunked() {
            return self
                .large_range(&record.found.record, from, to)
                .map(Cow::Owned);
        }
        Ok(Cow::Borrowed(
            &record.found.record.value()[from as usize..to as usize],
        ))
    }

    /// Stores `value` under `key`, replacing whatever was there. Never reads the device: a cold slot that might be the
    /// key's becomes a shadow.
    ///
    /// # Errors
    ///
    /// [`Stop::TooLarge`], [`Stop::NoRoom`]; nothing has changed then.
    #[inline]
    pub fn set(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        value: &[u8],
        meta: Meta,
    ) -> Result<(), Stop> {
        self.shared.check_lengths(key, value.len() as u64)?;
        if value.len() > crate::large::INLINE_MAX_BYTES {
            return self.set_large(namespace, key, value, meta);
        }
        self.put(namespace, key, value, meta)
    }

    /// Stores one record under `key`, in place if possible.
    fn put(&self, namespace: Namespace, key: &[u8], value: &[u8], meta: Meta) -> Result<(), Stop> {
        let hash = self.shared.hash(namespace, key);
        let mut slack_bytes = 0;
        if let Previous::Found(found) = self.previous(hash, namespace, key) {
            if self.put_in_place(&found, value, meta) {
                self.urgency.set(Urgency::Emergency);
                return Ok(());
            }
            // What has grown once may grow again.
            slack_bytes = if found.mutable { value.len() / 8 } else { 0 };
        }
        let new = self.append(&Draft {
            namespace,
            key,
            value,
            meta,
            flags: 0,
            slack_bytes,
        })?;
        self.publish(hash, namespace, key, new, meta, OldPages::Free);
        Ok(())
    }

    fn put_in_place(&self, found: &Found<'_>, value: &[u8], meta: Meta) -> bool {
        let record = &found.record;
        let capacity = record.value_capacity();
        let wasteful = capacity > 256 && value.len() < capacity / 4;
        let has_expiry_field = record.flags() & flag::EXPIRY != 0;
        let fits = value.len() <= capacity
            && !wasteful
            && (has_expiry_field || meta.expires_at_ms.is_none());
        if !found.mutable || found.is_chunked() || !fits {
            return false;
        }
        let had = record.expires_at_ms().is_some();
        // SAFETY: the record is mutable and the caller holds its key's exclusive latch (contract of `Operation`); the value
        // fits, `value` covers all of it, and no slice of the old one is alive here.
        unsafe {
            record.set_expiry_in_place(meta.expires_at_ms);
            record.write_in_place(0, value, value.len(), meta.kind);
        }
        self.count_expiry(record.namespace(), had, meta.expires_at_ms.is_some());
        true
    }

    fn count_expiry(&self, namespace: Namespace, had: bool, has: bool) {
        if had != has {
            self.shared
                .key_counts
                .add(namespace, 0, i64::from(has) - i64::from(had));
        }
    }

    /// What a blind write finds: looks at memory and at what has been fetched, never asks for more.
    fn previous(&self, hash: u64, namespace: Namespace, key: &[u8]) -> Previous<'_> {
        for slot in self.shared.index.candidates(hash, SlotKind::Root) {
            let in_memory = matches!(
                self.shared.log.table.place(slot.address()),
                Place::Memory { .. }
            );
            if !in_memory && !self.reads.knows(slot.address()) {
                return Previous::Unread;
            }
            match self.found(slot) {
                Ok(Some(found)) if found.record.is(namespace, key) => {
                    return Previous::Found(found);
                }
                Ok(_) => {}
                // Fetched, but in vain or not enough: as good as unread.
                Err(_) => return Previous::Unread,
            }
        }
        Previous::Absent
    }

    pub(crate) fn append(&self, draft: &Draft<'_>) -> Result<Slot, Stop> {
        let appended = self.shared.append(draft, self.urgency.get());
        let slot = appended.map_err(|_| Stop::NoRoom {
            bytes: draft.record_bytes() as u64,
        })?;
        self.urgency.set(Urgency::Emergency);
        Ok(slot)
    }

    /// Makes `new` the key's slot: in the place of the previous one, in front of one that nobody has read, or alone.
    pub(crate) fn publish(
        &self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
        new: Slot,
        meta: Meta,
        pages: OldPages,
    ) {
        let has = meta.expires_at_ms.is_some();
        loop {
            match self.previous(hash, namespace, key) {
                Previous::Found(found) => {
                    let had = found.record.expires_at_ms().is_some();
                    let old = self.pages_of(&found).filter(|_| pages == OldPages::Free);
                    // A relocation may have moved it since it was looked up: then look again.
                    if self.shared.index.replace(hash, found.slot, new) {
                        self.count_expiry(namespace, had, has);
                        self.free_pages(old);
                        return;
                    }
                }
                Previous::Unread => {
                    count(&self.shared.counters.shadows, 1);
                    self.shared.key_counts.add(namespace, 0, i64::from(has));
                    return self.shared.index.insert(hash, new);
                }
                Previous::Absent => {
                    self.shared.key_counts.add(namespace, 1, i64::from(has));
                    return self.shared.index.insert(hash, new);
                }
            }
        }
    }

    /// Overwrites the value from `offset` on with `bytes`, with zeroes up to `offset` where it was shorter; an absent key
    /// is created with type `kind`. Type and expiry of an existing one stay. Returns the new length.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`], [`Stop::Io`], [`Stop::TooLarge`], [`Stop::NoRoom`]; nothing has changed then.
    pub fn write_range(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        offset: u64,
        bytes: &[u8],
        kind: u8,
    ) -> Result<u64, Stop> {
        let end = offset.saturating_add(bytes.len() as u64);
        self.shared.check_lengths(key, end)?;
        let hash = self.shared.hash(namespace, key);
        let found = self
            .find(hash, namespace, key)?
            .filter(|found| !self.is_expired(&found.record));
        let Some(found) = found else {
            if end > crate::large::INLINE_MAX_BYTES as u64 {
                let meta = Meta {
                    kind,
                    expires_at_ms: None,
                };
                return self.create_large(namespace, key, &[], meta, offset, bytes);
            }
            let mut value = vec![0; offset as usize];
            value.extend_from_slice(bytes);
            self.put(
                namespace,
                key,
                &value,
                Meta {
                    kind,
                    expires_at_ms: None,
                },
            )?;
            return Ok(end);
        };
        if found.is_chunked() {
            return self.write_large_range(namespace, key, offset, bytes);
        }
        let record = found.record;
        let len = (record.value().len() as u64).max(end);
        if len > crate::large::INLINE_MAX_BYTES as u64 {
            let old = record.value().to_vec();
            return self.create_large(namespace, key, &old, record.meta(), offset, bytes);
        }
        if found.mutable && len as usize <= record.value_capacity() {
            let kind = record.meta().kind;
            // SAFETY: mutable, exclusively latched (contract of `Operation`), within the capacity; what lies between the
            // old value's end and `offset` is slack, which is zero.
            unsafe { record.write_in_place(offset as usize, bytes, len as usize, kind) };
            self.urgency.set(Urgency::Emergency);
            return Ok(len);
        }
        let (meta, mut value) = (record.meta(), record.value().to_vec());
        value.resize(len as usize, 0);
        value[offset as usize..end as usize].copy_from_slice(bytes);
        // What grows once grows again: a quarter more lets appends happen in place.
        let slack_bytes = value.len() / 4;
        let new = self.append(&Draft {
            namespace,
            key,
            value: &value,
            meta,
            flags: 0,
            slack_bytes,
        })?;
        self.publish(hash, namespace, key, new, meta, OldPages::Free);
        Ok(len)
    }

    /// Sets or clears the expiry; `false` if the key does not exist.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`], [`Stop::Io`], [`Stop::NoRoom`]; nothing has changed then.
    pub fn set_expiry(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        expires_at_ms: Option<u64>,
    ) -> Result<bool, Stop> {
        let hash = self.shared.hash(namespace, key);
        let found = self
            .find(hash, namespace, key)?
            .filter(|found| !self.is_expired(&found.record));
        let Some(found) = found else { return Ok(false) };
        let record = found.record;
        let had = record.expires_at_ms().is_some();
        // SAFETY: mutable and exclusively latched (contract of `Operation`).
        if found.mutable && unsafe { record.set_expiry_in_place(expires_at_ms) } {
            self.count_expiry(namespace, had, expires_at_ms.is_some());
            self.urgency.set(Urgency::Emergency);
            return Ok(true);
        }
        let meta = Meta {
            expires_at_ms,
            ..record.meta()
        };
        let new = self.append(&Draft {
            namespace,
            key,
            meta,
            ..found.draft()
        })?;
        self.publish(hash, namespace, key, new, meta, OldPages::Keep);
        Ok(true)
    }

    /// Removes the key and its shadows; `false` if it did not exist (or had expired).
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] or [`Stop::Io`] for any record that might be the key's; nothing has changed then.
    pub fn remove(&mut self, namespace: Namespace, key: &[u8]) -> Result<bool, Stop> {
        let hash = self.shared.hash(namespace, key);
        let mine = self.all_of(hash, namespace, key)?;
        let existed = mine
            .first()
            .is_some_and(|newest| !self.is_expired(&newest.record));
        self.remove_all(hash, namespace, key, mine, OldPages::Free);
        Ok(existed)
    }

    /// Removes the key if it has expired.
    pub(crate) fn remove_expired(
        &mut self,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<bool, Stop> {
        let hash = self.shared.hash(namespace, key);
        let mine = self.all_of(hash, namespace, key)?;
        let expired = mine
            .first()
            .is_some_and(|newest| self.is_expired(&newest.record));
        if expired {
            self.remove_all(hash, namespace, key, mine, OldPages::Free);
        }
        Ok(expired)
    }

    /// Every record of the key, newest first: the live one and its shadows.
    fn all_of(
        &self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<SmallVec<[Found<'_>; 2]>, Stop> {
        let mut mine = SmallVec::new();
        let mut stop = None;
        for slot in self.shared.index.candidates(hash, SlotKind::Root) {
            match self.found(slot) {
                Ok(Some(found)) if found.record.is(namespace, key) => mine.push(found),
                Ok(_) => {}
                // Goes on, so that all that is missing is fetched together.
                Err(reason) => stop = Some(reason),
            }
        }
        stop.map_or(Ok(mine), Err)
    }

    fn remove_all(
        &self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
        mine: SmallVec<[Found<'_>; 2]>,
        pages: OldPages,
    ) {
        if mine.is_empty() {
            return;
        }
        // A shadow was not seen when it was shadowed: its expiry still counts.
        let expiring = mine
            .iter()
            .filter(|found| found.record.expires_at_ms().is_some())
            .count();
        self.shared
            .key_counts
            .add(namespace, -1, -(expiring as i64));
        self.urgency.set(Urgency::Emergency);
        for found in mine {
            let mut slot = found.slot;
            // A relocation may have moved the record meanwhile, which only ever moves it into memory: find it there.
            while !self.shared.index.remove(hash, slot) {
                match self.moved(hash, namespace, key) {
                    Some(there) => slot = there,
                    None => break,
                }
            }
            if pages == OldPages::Free {
                self.free_pages(self.pages_of(&found));
            }
        }
    }

    /// The slot of a record of the key that is in memory.
    fn moved(&self, hash: u64, namespace: Namespace, key: &[u8]) -> Option<Slot> {
        self.shared
            .index
            .candidates(hash, SlotKind::Root)
            .into_iter()
            .find(|&slot| {
                matches!(
                    self.shared.log.table.place(slot.address()),
                    Place::Memory { .. }
                ) && matches!(self.found(slot), Ok(Some(found)) if found.record.is(namespace, key))
            })
    }

    /// Moves a value with its type and expiry to another key, replacing what is there; `false` if `from` does not exist.
    /// A large value keeps its pages: O(1) in its size.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`], [`Stop::Io`], [`Stop::NoRoom`], [`Stop::TooLarge`]; nothing has changed then.
    pub fn rename(
        &mut self,
        from: (Namespace, &[u8]),
        to: (Namespace, &[u8]),
    ) -> Result<bool, Stop> {
        self.shared.check_lengths(to.1, 0)?;
        let hash = self.shared.hash(from.0, from.1);
        let mine = self.all_of(hash, from.0, from.1)?;
        let Some(newest) = mine
            .first()
            .copied()
            .filter(|newest| !self.is_expired(&newest.record))
        else {
            return Ok(false);
        };
        if from == to {
            return Ok(true);
        }
        let meta = newest.record.meta();
        let new = self.append(&Draft {
            namespace: to.0,
            key: to.1,
            meta,
            ..newest.draft()
        })?;
        self.publish(
            self.shared.hash(to.0, to.1),
            to.0,
            to.1,
            new,
            meta,
            OldPages::Free,
        );
        self.remove_all(hash, from.0, from.1, mine, OldPages::Keep);
        Ok(true)
    }
}

impl<'a> Found<'a> {
    /// What a copy of the record is made of.
    pub(crate) fn draft(&self) -> Draft<'a> {
        draft_of(&self.record)
    }
}

/// What a copy of a record is made of.
pub(crate) fn draft_of<'a>(record: &RecordRef<'a>) -> Draft<'a> {
    Draft {
        namespace: record.namespace(),
        key: record.key(),
        value: record.value(),
        meta: record.meta(),
        flags: record.flags() & (flag::CHUNKED | flag::PAGE),
        slack_bytes: 0,
    }
}
