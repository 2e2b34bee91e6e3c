//! One operation: latched keys, a pinned epoch, the cold reads that were fetched for it.
#![allow(unsafe_code)] // Reads records where they lie and changes them in place, under the latches it holds.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::address::{Slot, SlotKind};
use crate::command_log::{Effect, Position};

use crate::disk_limit::DiskRoom;
use crate::effects::NotedEffects;
use crate::epoch::{self, Guard};
use crate::generation::{HeldGeneration, Parity};
use crate::index::{BucketIndex, Index};
use crate::latch::{LatchMode, Latches};
use crate::log::Urgency;
use crate::reads::{ColdReads, Known};
use crate::record::{Draft, NO_EXPIRY, RecordRef, flag};
use crate::segment::{Place, State};
use crate::shared::Shared;
use crate::stats::count;
use crate::store::LookedUp;
use crate::sys::prefetch;
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
    /// Unix time in milliseconds from which on the key no longer exists; `u64::MAX` is as good as `None`.
    pub expires_at_ms: Option<u64>,
}

impl Meta {
    /// As it comes back from a record, where the end of time means that there is no expiry.
    pub(crate) fn stored(self) -> Meta {
        Meta {
            expires_at_ms: self.expires_at_ms.filter(|&at| at != NO_EXPIRY),
            ..self
        }
    }
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
    /// Whether it may be changed in place: it lies in the mutable region of the operation's generation.
    pub(crate) mutable: bool,
}

impl Found<'_> {
    pub(crate) fn is_chunked(&self) -> bool {
        self.record.flags() & flag::CHUNKED != 0
    }

    pub(crate) fn is_tree(&self) -> bool {
        self.record.flags() & flag::TREE != 0
    }
}

pub(crate) type Stripes = SmallVec<[(u32, LatchMode); 2]>;

/// Leaves each stripe once, in its strongest mode, in ascending order.
pub(crate) fn strongest_once(stripes: &mut Stripes) {
    // Exclusive sorts after Shared.
    stripes.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    stripes.dedup_by_key(|stripe| stripe.0);
}

/// Latches of keys, held until dropped.
pub(crate) struct Held<'s> {
    latches: &'s Arc<Latches>,
    stripes: Stripes,
}

impl<'s> Held<'s> {
    /// No latch at all.
    pub(crate) fn none(latches: &'s Arc<Latches>) -> Held<'s> {
        Held {
            latches,
            stripes: SmallVec::new(),
        }
    }

    /// Latches one stripe: what nearly every operation does.
    #[inline]
    pub(crate) fn acquire_one(
        latches: &'s Arc<Latches>,
        stripe: u32,
        mode: LatchMode,
    ) -> Option<Held<'s>> {
        latches.try_acquire(stripe, mode).then(|| Held {
            latches,
            stripes: Stripes::from_buf_and_len([(stripe, mode); 2], 1),
        })
    }

    /// Latches all of `wanted` or nothing.
    pub(crate) fn acquire(latches: &'s Arc<Latches>, mut wanted: Stripes) -> Option<Held<'s>> {
        if wanted.len() > 1 {
            strongest_once(&mut wanted);
        }
        let mut held = Held::none(latches);
        for (stripe, mode) in wanted {
            if !latches.try_acquire(stripe, mode) {
                return None;
            }
            held.stripes.push((stripe, mode));
        }
        Some(held)
    }

    /// Of `stripes`, which are latched; each once, ascending.
    pub(crate) fn of_taken(latches: &'s Arc<Latches>, stripes: Stripes) -> Held<'s> {
        Held { latches, stripes }
    }

    /// Latches one stripe more if that can be done at once and is not done yet.
    fn try_add(&mut self, stripe: u32, mode: LatchMode) -> bool {
        match self.stripes.binary_search_by_key(&stripe, |held| held.0) {
            Ok(at) => self.stripes[at].1 >= mode,
            Err(at) => {
                let latched = self.latches.try_acquire(stripe, mode);
                if latched {
                    self.stripes.insert(at, (stripe, mode));
                }
                latched
            }
        }
    }

    /// Lets go of a stripe that has been added.
    fn let_go(&mut self, stripe: u32) {
        if let Ok(at) = self.stripes.binary_search_by_key(&stripe, |held| held.0) {
            let (stripe, mode) = self.stripes.remove(at);
            self.latches.release(stripe, mode);
        }
    }

    /// In which mode a stripe is latched, if it is.
    #[inline]
    fn mode(&self, stripe: u32) -> Option<LatchMode> {
        match self.stripes.as_slice() {
            [only] => (only.0 == stripe).then_some(only.1),
            // In ascending order, see `acquire`.
            all => all
                .binary_search_by_key(&stripe, |held| held.0)
                .ok()
                .map(|at| all[at].1),
        }
    }

    /// Makes sure that a stripe is latched in the mode that is needed: to go on without would be a data race.
    #[inline]
    fn assert_covers(&self, stripe: u32, needed: LatchMode) {
        let mode = self.mode(stripe);
        assert!(
            mode >= Some(needed),
            "the operation was not started with this key latched for it: {mode:?} instead of {needed:?}"
        );
    }

    pub(crate) fn from_kept(latches: &'s Arc<Latches>, mut kept: KeptLatches) -> Held<'s> {
        assert!(
            Arc::ptr_eq(latches, &kept.latches),
            "latches of another store"
        );
        Held {
            latches,
            stripes: std::mem::take(&mut kept.stripes),
        }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        release(self.latches, &self.stripes);
    }
}

/// Latches that outlive the operation that took them, for a caller that must not lose them while it waits. Dropping
/// them lets go of the keys.
pub struct KeptLatches {
    latches: Arc<Latches>,
    stripes: Stripes,
}

impl Drop for KeptLatches {
    fn drop(&mut self) {
        release(&self.latches, &self.stripes);
    }
}

#[inline]
fn release(latches: &Latches, stripes: &[(u32, LatchMode)]) {
    for &(stripe, mode) in stripes {
        latches.release(stripe, mode);
    }
}

/// As the time of an operation: the clock is read when a record with an expiry is met. Most records have none, and reading
/// the clock takes as long as reading a record.
pub(crate) const WHEN_ASKED: u64 = u64::MAX;

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// A running operation. The latched keys change only through it until it is dropped.
///
/// Everything it is asked about must have been latched when it was started, in [`LatchMode::Exclusive`] for what changes;
/// else it panics. Only iteration ([`Self::scan`], [`Self::random_key`]) needs no latches.
pub struct Operation<'s, I: Index = BucketIndex> {
    pub(crate) shared: &'s Shared<I>,
    pub(crate) reads: &'s ColdReads,
    /// [`WHEN_ASKED`] until somebody asks.
    now_ms: Cell<u64>,
    held: Held<'s>,
    _pin: Guard,
    /// What the operation does belongs to this generation.
    pub(crate) generation: u64,
    /// Once it has changed something it may use the emergency reserve, so that it is not left half done.
    pub(crate) urgency: Cell<Urgency>,
    /// By how many bytes the collection under the key with this hash is about to grow.
    pub(crate) foreseen: Cell<(u64, usize)>,
    pub(crate) effects: NotedEffects,
    notes_reads: bool,
    lookups: Cell<Lookups>,
    /// Once it has been suspended. Let go of last of all: nothing it has done may come after a checkpoint.
    pub(crate) held_generation: Option<HeldGeneration>,
}

/// How often an operation was asked for a key that was there, and for one that was not.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Lookups {
    /// It was there.
    pub found: u32,
    /// It was absent, or had expired.
    pub absent: u32,
}

impl<'s, I: Index> Operation<'s, I> {
    #[inline]
    pub(crate) fn new(
        shared: &'s Shared<I>,
        held: Held<'s>,
        reads: &'s ColdReads,
        now_ms: u64,
    ) -> Self {
        // The generation is read under the latches and the pin, see `generation`.
        let pin = epoch::pin();
        Operation {
            shared,
            reads,
            now_ms: Cell::new(now_ms),
            held,
            _pin: pin,
            generation: shared.generations.current(),
            urgency: Cell::new(Urgency::Normal),
            foreseen: Cell::default(),
            effects: NotedEffects::default(),
            notes_reads: true,
            lookups: Cell::default(),
            held_generation: None,
        }
    }

    /// Latches a key besides, exclusively, if nobody else holds it; whether it is latched. Nothing is waited for, so it does not
    /// matter which keys are latched already.
    pub fn try_latch(&mut self, namespace: Namespace, key: &[u8]) -> bool {
        let stripe = Latches::stripe(self.shared.hash(namespace, key));
        let held_before = self.held.stripes.len();
        if !self.held.try_add(stripe, LatchMode::Exclusive) {
            return false;
        }
        if self.held.stripes.len() == held_before {
            return true;
        }
        // Whoever had the key before belongs to a generation that is read here at the latest: if that is a later one, what is
        // changed here would be logged as if it came first.
        let is_latest = self.shared.generations.current() == self.generation;
        if !is_latest {
            self.held.let_go(stripe);
        }
        is_latest
    }

    /// What `read` finds under a key that the operation need not have latched: it is latched for so long, in shared mode. `None`
    /// if another has it exclusively; nothing is waited for.
    pub fn read_beside<T>(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        read: impl FnOnce(&Self) -> T,
    ) -> Option<T> {
        let stripe = Latches::stripe(self.shared.hash(namespace, key));
        if self.held.mode(stripe).is_some() {
            return Some(read(self));
        }
        if !self.held.try_add(stripe, LatchMode::Shared) {
            return None;
        }
        let found = read(self);
        self.held.let_go(stripe);
        Some(found)
    }

    /// Whether the operation has a key latched exclusively. One that it has not, it has not changed.
    pub fn is_latched_exclusively(&self, namespace: Namespace, key: &[u8]) -> bool {
        let stripe = Latches::stripe(self.shared.hash(namespace, key));
        self.held.mode(stripe) == Some(LatchMode::Exclusive)
    }

    /// Ends the operation: what it has changed is in the command log from now on, up to the position that is returned, and
    /// its latches are free. To drop an operation does the same.
    pub fn finish(mut self) -> Option<Position> {
        self.commit()
    }

    fn commit(&mut self) -> Option<Position> {
        let (log, generation) = (&self.shared.command_log, self.generation);
        self.effects.take(|effects| log.append(generation, effects))
    }

    /// How many changes the operation has made so far: values and expiries written, keys removed or renamed.
    pub fn changes(&self) -> u64 {
        self.effects.changes()
    }

    /// As [`Self::changes`], without those that only prepare others: a collection that is made without elements, or a header.
    pub fn element_changes(&self) -> u64 {
        self.effects.changes() - self.effects.preparations()
    }

    /// Notes what has been changed, for the command log and for those who watch. The latches are still held.
    #[inline]
    pub(crate) fn note(&self, effect: &Effect<'_>) {
        if self.shared.watches.is_any() {
            self.tell_changed(effect);
        }
        self.note_unwatched(effect);
    }

    /// [`Self::note`] of what nobody can see: that an expired record was removed.
    #[inline]
    pub(crate) fn note_unwatched(&self, effect: &Effect<'_>) {
        self.effects.count(effect);
        if self.shared.command_log.is_logged(self.generation) {
            self.effects.note(effect);
        }
    }

    /// Whether something may be changed: asked for before the first change.
    #[inline]
    pub(crate) fn check_log(&self) -> Result<(), Stop> {
        if self.goes_through() || self.shared.command_log.has_room() {
            return Ok(());
        }
        Err(Stop::NoRoom { bytes: 0 })
    }

    /// Whether a checkpoint is waiting for the operation to end; then that stays so.
    pub(crate) fn is_waited_for(&self) -> bool {
        let generations = &self.shared.generations;
        self.held_generation.is_some() && self.generation != generations.current()
    }

    /// Whether it does not wait for the command log any more. One that has changed something goes through with it. One that
    /// was suspended holds its generation, and the log may have to wait for that.
    #[inline]
    pub(crate) fn goes_through(&self) -> bool {
        self.urgency.get() == Urgency::Emergency || self.held_generation.is_some()
    }

    /// What [`read`](Self::read) was asked for so far.
    pub fn lookups(&self) -> Lookups {
        self.lookups.get()
    }

    pub(crate) fn forget_lookups(&self) {
        self.lookups.set(Lookups::default());
    }

    fn count_absent(&self) {
        let Lookups { found, absent } = self.lookups.get();
        self.lookups.set(Lookups {
            found,
            absent: absent + 1,
        });
    }

    fn count_found(&self) {
        let Lookups { found, absent } = self.lookups.get();
        self.lookups.set(Lookups {
            found: found + 1,
            absent,
        });
    }

    /// The cold reads it was started with.
    pub fn cold_reads(&self) -> &ColdReads {
        self.reads
    }

    /// From now on what it reads does not count for staying in memory or coming back to it.
    pub fn leave_reads_unnoted(&mut self) {
        self.notes_reads = false;
    }

    /// Panics unless the key with this hash was latched when the operation was started.
    #[inline]
    pub(crate) fn assert_latched(&self, hash: u64, needed: LatchMode) {
        self.held.assert_covers(Latches::stripe(hash), needed);
    }

    /// Ends the operation but keeps its latches, for a caller that must not lose them while it fetches cold records.
    pub fn keep_latches(mut self) -> KeptLatches {
        KeptLatches {
            latches: Arc::clone(self.held.latches),
            stripes: std::mem::take(&mut self.held.stripes),
        }
    }

    /// The time that decides about expiry in this operation, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        if self.now_ms.get() == WHEN_ASKED {
            self.now_ms.set(now_ms());
        }
        self.now_ms.get()
    }

    /// Finds `key`; expired records count as absent.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] if the record (or one that might be it) has to be fetched, [`Stop::Io`] if fetching it failed.
    #[inline]
    pub fn read(&self, namespace: Namespace, key: &[u8]) -> Result<Option<Record<'_>>, Stop> {
        self.read_hashed(self.shared.hash(namespace, key), namespace, key)
    }

    /// [`Self::read`] for one who has the key's hash already.
    #[inline]
    pub(crate) fn read_hashed(
        &self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Record<'_>>, Stop> {
        self.assert_latched(hash, LatchMode::Shared);
        let found = self.find(hash, namespace, key)?;
        self.finish_read(hash, namespace, key, found)
    }

    /// [`Self::read`] for one who has looked the key up ahead.
    #[inline]
    pub(crate) fn read_looked_up(
        &self,
        looked_up: &LookedUp,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Record<'_>>, Stop> {
        let hash = looked_up.hash;
        self.assert_latched(hash, LatchMode::Shared);
        let found = match looked_up.newest_slot(&self.shared.index) {
            Some(slot) => self.find_from(slot, hash, namespace, key)?,
            None => self.find(hash, namespace, key)?,
        };
        self.finish_read(hash, namespace, key, found)
    }

    #[inline]
    fn finish_read<'r>(
        &'r self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
        found: Option<Found<'r>>,
    ) -> Result<Option<Record<'r>>, Stop> {
        let Some(found) = found else {
            self.count_absent();
            return Ok(None);
        };
        if self.is_expired(&found.record) {
            self.shared.note_expired(namespace, key);
            self.count_absent();
            return Ok(None);
        }
        self.note_read(hash, &found);
        self.count_found();
        let len = match found.is_chunked() {
            false => found.record.value().len() as u64,
            true => crate::large::Root::of(&found.record)?.len,
        };
        Ok(Some(Record { found, len }))
    }

    pub(crate) fn is_expired(&self, record: &RecordRef<'_>) -> bool {
        self.is_past(record.expires_at_ms())
    }

    pub(crate) fn is_past(&self, expires_at_ms: Option<u64>) -> bool {
        expires_at_ms.is_some_and(|at| at <= self.now_ms())
    }

    /// The newest record of the key.
    #[inline]
    pub(crate) fn find(
        &self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Found<'_>>, Stop> {
        match self.shared.index.newest(hash, SlotKind::Root) {
            Some(slot) => self.find_from(slot, hash, namespace, key),
            None => Ok(None),
        }
    }

    /// [`Self::find`] for one who knows the newest slot that may be the key's; it nearly always is.
    #[inline]
    fn find_from(
        &self,
        newest: Slot,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Found<'_>>, Stop> {
        let found = self.found(newest)?;
        match found.filter(|found| found.record.is(namespace, key)) {
            None => self.find_among_all(hash, namespace, key),
            found => Ok(found),
        }
    }

    #[cold]
    fn find_among_all(
        &self,
        hash: u64,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Found<'_>>, Stop> {
        for &slot in &self.shared.index.candidates(hash, SlotKind::Root) {
            let found = self.found(slot)?;
            if let Some(found) = found.filter(|found| found.record.is(namespace, key)) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The record of a slot; `None` if the slot has been taken out since it was looked up.
    #[inline]
    pub(crate) fn found(&self, slot: Slot) -> Result<Option<Found<'_>>, Stop> {
        match self.shared.log.table.place(slot.address()) {
            Place::Memory {
                base,
                state,
                parity,
            } => {
                // The rest of a short record is on its way while the key is compared.
                prefetch(base.as_ptr().wrapping_add(64));
                prefetch(base.as_ptr().wrapping_add(128));
                let mutable = state == State::Mutable && parity == Parity::of(self.generation);
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

    #[cold]
    fn found_cold(&self, slot: Slot) -> Result<Option<Found<'_>>, Stop> {
        let Some(segment) = self.shared.log.table.segment(slot.address()) else {
            return Ok(None);
        };
        let (files, geometry) = (&self.shared.open_files, self.shared.log.geometry);
        match self.reads.record(slot, &segment, files, geometry) {
            Known::Record(record) => Ok(Some(Found {
                slot,
                record,
                tier: Tier::Cold,
                mutable: false,
            })),
            Known::Failed(error) => {
                self.shared.read_damage.note(&error);
                Err(Stop::Io(error))
            }
            Known::Wanted => {
                count(&self.shared.counters.cold_reads, 1);
                Err(Stop::Cold)
            }
        }
    }

    /// Lets a read count towards staying in memory or coming back to it.
    #[inline]
    pub(crate) fn note_read(&self, hash: u64, found: &Found<'_>) {
        if !self.notes_reads {
            return;
        }
        if found.tier != Tier::Cold {
            self.shared.log.table.mark_read(found.slot.address());
        } else if self.reads.first_use(found.slot.address())
            && self.shared.disk_room() == DiskRoom::Free
            && self.shared.recent_cold_reads.second_read(hash)
            && self
                .shared
                .relocate(
                    hash,
                    found.slot,
                    &found.record,
                    Urgency::Normal,
                    self.generation,
                )
                .is_some()
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
}

impl<I: Index> Drop for Operation<'_, I> {
    #[inline]
    fn drop(&mut self) {
        self.commit();
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
        flags: record.flags() & (flag::CHUNKED | flag::PAGE | flag::TREE | flag::DUE),
        slack_bytes: 0,
    }
}
