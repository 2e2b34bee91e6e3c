//! The writing half of an operation: storing, changing in place, expiry, removing, renaming.
//!
//! A write looks its key up, changes the record in place if it lies in the mutable region and has the room, and else
//! appends a new record and swings the slot to it. A relocation may swing the slot at the same time, which is why every
//! swing names the slot it expects and looks again when it has moved.
#![allow(unsafe_code)] // Changes records in place, under the exclusive latches the operation holds.

use std::io::ErrorKind;

use smallvec::SmallVec;

use crate::address::{Slot, SlotKind};
use crate::command_log::{BlobId, Effect};
use crate::disk_limit::DiskRoom;
use crate::index::Index;
use crate::large::OwnedPages;
use crate::latch::LatchMode;
use crate::log::Urgency;
use crate::operation::{Found, Meta, Operation};
use crate::record::{Draft, NO_EXPIRY, RecordRef, flag};
use crate::segment::Place;
use crate::stats::count;
use crate::sync::planted;
use crate::{Namespace, Stop};

/// What becomes of the pages of a large value that loses its root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldPages {
    Free,
    /// Another root has them now; those of the key's shadows are free.
    Keep,
}

/// What a new record takes the place of.
pub(crate) enum Over<'a> {
    /// Whatever is there.
    Unknown,
    /// This record of the key; its pages are freed.
    Found(Found<'a>),
    /// This record of the key; the new one has its pages.
    SamePages(Found<'a>),
}

/// Bytes of a value for the command log.
pub(crate) enum Content<'v> {
    /// They go into the frame.
    Bytes(&'v [u8]),
    /// They are in the log already.
    Blob(BlobId),
}

/// What a blind write finds under its key.
enum Previous<'a> {
    Absent,
    Found(Found<'a>),
    /// A slot with the right tag whose cold record nobody has read: it becomes a shadow.
    Unread(Slot),
}

impl<I: Index> Operation<'_, I> {
    /// Stores `value` under `key`, replacing whatever was there. Does not read the device: a cold slot that might be the
    /// key's becomes a shadow, unless it is that of a large value or one of several.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`], only as the first change of the operation; [`Stop::TooLarge`], [`Stop::NoRoom`]. Nothing has changed
    /// then.
    #[inline]
    pub fn set(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        value: &[u8],
        meta: Meta,
    ) -> Result<(), Stop> {
        self.shared.check_lengths(key, value.len() as u64)?;
        self.check_log()?;
        let meta = meta.stored();
        let is_large = value.len() > crate::large::INLINE_MAX_BYTES;
        if is_large {
            // What has to be read first is read before the value goes to the command log.
            self.overwritable(namespace, key)?;
        }
        let content = self.log_ahead(value)?;
        if is_large {
            self.set_large(namespace, key, value, meta)?;
        } else {
            self.put(namespace, key, value, meta)?;
        }
        self.note(&match content {
            Content::Bytes(value) => Effect::Set {
                namespace,
                key,
                meta,
                value,
            },
            Content::Blob(blob) => Effect::SetBlob {
                namespace,
                key,
                meta,
                blob,
            },
        });
        Ok(())
    }

    /// Writes a large value to the command log ahead of the frame that will name it.
    pub(crate) fn log_ahead<'v>(&self, bytes: &'v [u8]) -> Result<Content<'v>, Stop> {
        let log = &self.shared.command_log;
        if bytes.len() <= crate::large::INLINE_MAX_BYTES || !log.is_logged(self.generation) {
            return Ok(Content::Bytes(bytes));
        }
        match log.append_blob(self.generation, bytes) {
            Ok(blob) => Ok(Content::Blob(blob)),
            // Then its frame takes the memory.
            Err(_) if self.goes_through() => Ok(Content::Bytes(bytes)),
            Err(error) => Err(match error.kind() {
                // The log of the operation's generation is about to begin, or the disk is full: both may pass.
                ErrorKind::WouldBlock | ErrorKind::StorageFull => Stop::NoRoom { bytes: 0 },
                _ => Stop::Io(error),
            }),
        }
    }

    /// Stores one record under `key`, in place if possible.
    fn put(&self, namespace: Namespace, key: &[u8], value: &[u8], meta: Meta) -> Result<(), Stop> {
        let hash = self.shared.hash(namespace, key);
        self.assert_latched(hash, LatchMode::Exclusive);
        let mut slack_bytes = 0;
        let mut over = Over::Unknown;
        match self.previous(hash, namespace, key) {
            Previous::Found(found) => {
                if self.put_in_place(&found, value, meta) {
                    self.urgency.set(Urgency::Emergency);
                    return Ok(());
                }
                // What has grown once may grow again.
                slack_bytes = if found.mutable { value.len() / 8 } else { 0 };
                over = Over::Found(found);
            }
            Previous::Unread(slot) => self.check_blind(hash, slot)?,
            Previous::Absent => {}
        }
        let new = self.append(&Draft {
            namespace,
            key,
            value,
            meta,
            flags: 0,
            slack_bytes,
        })?;
        self.publish(hash, namespace, key, new, meta, over);
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
        if !found.mutable || found.is_chunked() || found.is_tree() || !fits {
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

    pub(crate) fn count_keys(&self, namespace: Namespace, keys: i64, expiring: i64) {
        self.shared
            .key_counts
            .add(self.generation, namespace, keys, expiring);
    }

    fn count_expiry(&self, namespace: Namespace, had: bool, has: bool) {
        if had != has {
            self.count_keys(namespace, 0, i64::from(has) - i64::from(had));
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
                return Previous::Unread(slot);
            }
            match self.found(slot) {
                Ok(Some(found)) if found.record.is(namespace, key) => {
                    return Previous::Found(found);
                }
                Ok(_) => {}
                // Fetched, but in vain or not enough: as good as unread.
                Err(_) => return Previous::Unread(slot),
            }
        }
        Previous::Absent
    }

    /// Reads what [`Self::set`] would have to read, so that the `set` that follows in the same operation does not stop: for
    /// commands that store several keys.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`]; nothing has changed.
    pub fn overwritable(&self, namespace: Namespace, key: &[u8]) -> Result<(), Stop> {
        let hash = self.shared.hash(namespace, key);
        self.assert_latched(hash, LatchMode::Exclusive);
        match self.previous(hash, namespace, key) {
            Previous::Unread(slot) => self.check_blind(hash, slot),
            Previous::Found(_) | Previous::Absent => Ok(()),
        }
    }

    /// Whether a slot may be put in front of an unread one. Not if that is the root of a large value, whose pages would stay
    /// until compaction meets it. And only if it is the only one with the tag: so a key has one shadow at most, behind its
    /// live record, and what is marked as shadowed is never a live record and its own shadow, whose order no restart could
    /// tell. An operation that has changed something goes through with it all the same.
    fn check_blind(&self, hash: u64, unread: Slot) -> Result<(), Stop> {
        if self.urgency.get() == Urgency::Emergency {
            return Ok(());
        }
        let candidates = self.shared.index.candidates(hash, SlotKind::Root);
        let must_read = unread.is_large_root() || candidates.len() > 1;
        match must_read.then(|| self.found(unread)) {
            Some(Err(Stop::Cold)) => Err(Stop::Cold),
            // One that cannot be read is as good as unread.
            _ => Ok(()),
        }
    }

    pub(crate) fn append(&self, draft: &Draft<'_>) -> Result<Slot, Stop> {
        if self.shared.disk_room() != DiskRoom::Free && !self.goes_through() {
            return Err(Stop::NoRoom {
                bytes: draft.record_bytes() as u64,
            });
        }
        let appended = self
            .shared
            .append(draft, self.urgency.get(), self.generation);
        let slot = appended.map_err(|_| Stop::NoRoom {
            bytes: draft.record_bytes() as u64,
        })?;
        self.urgency.set(Urgency::Emergency);
        Ok(slot)
    }

    /// Makes `new` the key's slot: in the place of the previous one, in front of one that nobody has read, or alone. A
    /// record that the caller has found is replaced even if it has gone cold since: as a shadow it would have its pages
    /// freed one day, which are the new record's by then.
    pub(crate) fn publish(
        &self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
        new: Slot,
        meta: Meta,
        over: Over<'_>,
    ) {
        self.assert_latched(hash, LatchMode::Exclusive);
        let has = meta.expires_at_ms.is_some();
        let (mut known, same_pages) = match over {
            Over::Unknown => (None, false),
            Over::Found(found) => (Some(found), false),
            Over::SamePages(found) => (Some(found), true),
        };
        loop {
            let previous = match known.take() {
                Some(found) => Previous::Found(found),
                None => self.previous(hash, namespace, key),
            };
            match previous {
                Previous::Found(found) => {
                    let had = found.record.expires_at_ms().is_some();
                    let old = self.pages_of(&found).filter(|_| !same_pages);
                    // A relocation may have moved it since it was looked up: then look again.
                    if self.shared.index.replace(hash, found.slot, new)
                        || planted!("writers_do_not_look_again")
                    {
                        self.died(&found);
                        self.count_expiry(namespace, had, has);
                        self.free_pages(old);
                        return;
                    }
                }
                Previous::Unread(unread) => {
                    let alone = self.shared.index.candidates(hash, SlotKind::Root).len() == 1;
                    self.shared
                        .note_shadow(self.generation, (namespace, hash), unread, alone);
                    self.count_keys(namespace, 0, i64::from(has));
                    self.shared.index.insert(hash, new);
                    // Looked up again: compaction may have moved the record meanwhile.
                    let candidates = self.shared.index.candidates(hash, SlotKind::Root);
                    let behind = candidates
                        .into_iter()
                        .skip_while(|slot| *slot != new)
                        .skip(1);
                    // Another key's that is in memory is no shadow.
                    let unread = behind.filter(|slot| {
                        let record = self.shared.in_memory(*slot);
                        record.is_none_or(|record| record.is(namespace, key))
                    });
                    unread.for_each(|slot| self.shared.shadowed(self.generation, slot));
                    return;
                }
                Previous::Absent => {
                    self.count_keys(namespace, 1, i64::from(has));
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
        self.check_log()?;
        let hash = self.shared.hash(namespace, key);
        self.assert_latched(hash, LatchMode::Exclusive);
        let found = self.find(hash, namespace, key)?;
        let content = self.log_ahead(bytes)?;
        let found = found.filter(|found| !self.is_expired(&found.record));
        if found.is_some_and(|found| found.is_tree()) {
            let text = "the key holds a collection, not a value";
            return Err(Stop::Io(std::io::Error::new(ErrorKind::InvalidInput, text)));
        }
        let len = self.write_range_over(found, (namespace, key), offset, bytes, kind)?;
        if found.is_none() {
            // A replay expires nothing: it may find an old value that has expired, here or in a checkpoint, and would change
            // that one.
            self.note(&Effect::Remove { namespace, key });
        }
        self.note(&match content {
            Content::Bytes(bytes) => Effect::WriteRange {
                namespace,
                key,
                offset,
                bytes,
                kind,
            },
            Content::Blob(blob) => Effect::WriteRangeBlob {
                namespace,
                key,
                offset,
                blob,
                kind,
            },
        });
        Ok(len)
    }

    /// [`Self::write_range`] over a record that has not expired, or over nothing.
    fn write_range_over(
        &self,
        found: Option<Found<'_>>,
        (namespace, key): (Namespace, &[u8]),
        offset: u64,
        bytes: &[u8],
        kind: u8,
    ) -> Result<u64, Stop> {
        let end = offset + bytes.len() as u64;
        let hash = self.shared.hash(namespace, key);
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
        self.publish(hash, namespace, key, new, meta, Over::Found(found));
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
        self.check_log()?;
        let hash = self.shared.hash(namespace, key);
        self.assert_latched(hash, LatchMode::Exclusive);
        let expires_at_ms = expires_at_ms.filter(|&at| at != NO_EXPIRY);
        let found = self
            .find(hash, namespace, key)?
            .filter(|found| !self.is_expired(&found.record));
        let Some(found) = found else { return Ok(false) };
        self.expire_record(found, (namespace, key), expires_at_ms)?;
        self.note(&Effect::SetExpiry {
            namespace,
            key,
            expires_at_ms,
        });
        Ok(true)
    }

    fn expire_record(
        &self,
        found: Found<'_>,
        (namespace, key): (Namespace, &[u8]),
        expires_at_ms: Option<u64>,
    ) -> Result<(), Stop> {
        let hash = self.shared.hash(namespace, key);
        let record = found.record;
        let had = record.expires_at_ms().is_some();
        // SAFETY: mutable and exclusively latched (contract of `Operation`).
        if found.mutable && unsafe { record.set_expiry_in_place(expires_at_ms) } {
            self.count_expiry(namespace, had, expires_at_ms.is_some());
            self.urgency.set(Urgency::Emergency);
            return Ok(());
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
        self.publish(hash, namespace, key, new, meta, Over::SamePages(found));
        Ok(())
    }

    /// Removes the key and its shadows; `false` if it did not exist (or had expired).
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] or [`Stop::Io`] for any record that might be the key's; nothing has changed then.
    pub fn remove(&mut self, namespace: Namespace, key: &[u8]) -> Result<bool, Stop> {
        self.check_log()?;
        let hash = self.shared.hash(namespace, key);
        let mine = self.all_of(hash, namespace, key)?;
        let existed = mine
            .first()
            .is_some_and(|newest| !self.is_expired(&newest.record));
        if !mine.is_empty() {
            self.remove_all(hash, namespace, key, mine, OldPages::Free);
            let effect = Effect::Remove { namespace, key };
            if existed {
                self.note(&effect);
            } else {
                self.tell_expired(namespace, key);
                self.note_unwatched(&effect);
            }
        }
        Ok(existed)
    }

    /// Whether [`remove`](Self::remove) would find the key. It reads every record that might be the key's, so that
    /// the `remove` that follows in the same operation does not stop: for commands that remove several keys.
    ///
    /// # Errors
    ///
    /// As `remove`.
    pub fn removable(&self, namespace: Namespace, key: &[u8]) -> Result<bool, Stop> {
        let hash = self.shared.hash(namespace, key);
        let mine = self.all_of(hash, namespace, key)?;
        Ok(mine
            .first()
            .is_some_and(|newest| !self.is_expired(&newest.record)))
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
            // First of all, so that who finds the number of keys changed finds the reason, too.
            count(&self.shared.counters.expired, 1);
            self.remove_all(hash, namespace, key, mine, OldPages::Free);
            self.tell_expired(namespace, key);
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
        self.assert_latched(hash, LatchMode::Shared);
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
        self.assert_latched(hash, LatchMode::Exclusive);
        // A shadow was not seen when it was shadowed: its expiry still counts.
        let expiring = mine
            .iter()
            .filter(|found| found.record.expires_at_ms().is_some())
            .count();
        self.count_keys(namespace, -1, -(expiring as i64));
        self.shadows_are_gone(namespace, mine.len() - 1);
        self.urgency.set(Urgency::Emergency);
        for (at, found) in mine.into_iter().enumerate() {
            self.remove_slot(hash, namespace, key, &found);
            let is_shadow = at > 0;
            if pages == OldPages::Free || is_shadow {
                self.free_pages(self.pages_of(&found));
            }
        }
    }

    /// Removes the record of `slot` if it is a shadow, or has expired; says whether it was.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] if other records must be read to tell; [`Stop::Io`] if one in front of it cannot be, so that nobody
    /// knows whether it is a shadow.
    pub(crate) fn drop_if_dead(
        &self,
        hash: u64,
        record: &RecordRef<'_>,
        slot: Slot,
    ) -> Result<bool, Stop> {
        self.assert_latched(hash, LatchMode::Exclusive);
        let (namespace, key) = (record.namespace(), record.key());
        let (mut is_shadow, mut is_last, mut is_cold) = (false, true, false);
        let mut unreadable = None;
        let candidates = self.shared.index.candidates(hash, SlotKind::Root);
        let Some(place) = candidates.iter().position(|other| *other == slot) else {
            return Ok(false);
        };
        for (at, &other) in candidates.iter().enumerate().filter(|&(at, _)| at != place) {
            match self.found(other) {
                Ok(Some(found)) if found.record.is(namespace, key) => {
                    is_shadow |= at < place;
                    is_last &= at < place;
                }
                // Goes on, so that all that is missing is fetched together.
                Err(Stop::Cold) => is_cold = true,
                // One that cannot be read may be anybody's.
                Err(stop) if at < place => unreadable = Some(stop),
                Err(_) => is_last = false,
                Ok(_) => {}
            }
        }
        match unreadable.filter(|_| !is_shadow) {
            _ if is_cold => return Err(Stop::Cold),
            Some(stop) => return Err(stop),
            None => {}
        }
        let keys = match (is_shadow, self.is_expired(record)) {
            (true, _) => 0,
            (false, true) if is_last => -1,
            _ => return Ok(false),
        };
        if !self.shared.index.remove(hash, slot) {
            return Ok(false);
        }
        let expiring = i64::from(record.expires_at_ms().is_some());
        count(&self.shared.counters.expired, u64::from(!is_shadow));
        self.count_keys(namespace, keys, -expiring);
        match is_shadow {
            true => {
                self.shadows_are_gone(namespace, 1);
                self.shared.shadow_died(self.generation, slot);
            }
            false => self
                .shared
                .died(self.generation, slot, record.record_bytes()),
        }
        self.free_pages(OwnedPages::of(record));
        Ok(true)
    }

    /// So many blind writes of a key are resolved by it: their shadows lose their slots.
    fn shadows_are_gone(&self, namespace: Namespace, shadows: usize) {
        self.shared
            .key_counts
            .add_unresolved(self.generation, namespace, -(shadows as i64));
    }

    /// Takes a slot of the key out of the index, wherever a relocation may have moved its record meanwhile.
    pub(crate) fn remove_slot(
        &self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
        found: &Found<'_>,
    ) {
        let mut slot = found.slot;
        while !self.shared.index.remove(hash, slot) {
            // A relocation only ever moves a record into memory: find it there.
            match self.moved(hash, namespace, key) {
                Some(there) => slot = there,
                None => return,
            }
        }
        self.shared
            .died(self.generation, slot, found.record.record_bytes());
    }

    /// The record has lost its slot through this operation.
    pub(crate) fn died(&self, found: &Found<'_>) {
        self.shared
            .died(self.generation, found.slot, found.record.record_bytes());
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
        self.check_log()?;
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
        // Over several slots a write is not blind: a restart could take a shadow among them for its live record.
        self.overwritable(to.0, to.1)?;
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
            Over::Unknown,
        );
        self.remove_all(hash, from.0, from.1, mine, OldPages::Keep);
        self.note(&Effect::Rename { from, to });
        Ok(true)
    }
}
