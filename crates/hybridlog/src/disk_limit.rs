//! A limit on the bytes of the data files, and what happens at it: keys are evicted, or writes are refused.
//!
//! A thread looks at the space that all segments take, those in memory included, for they will be written. Short of the limit
//! it gives back what can be given back: compaction rewrites segments with dead records, a checkpoint removes the files of
//! those that are gone. If that is not enough, keys are evicted, the segments that have been written for longest first: what is
//! read has left them for newer ones (second chance, promotion), and so has what is rewritten; so their keys are about the
//! least recently used. The key files list them, and no value is read. Beyond the limit writes wait meanwhile; when nothing
//! (more) can be evicted they are refused.
//!
//! What must hold:
//! * Removing keys is always possible: only who appends waits or is refused.
//! * Who has been suspended half-way goes on, for a checkpoint waits for him.
//! * An evicted key is removed under its latch, only while its newest record is the listed one, and its removal is logged:
//!   what the client writes under that key next must not be replayed on what was evicted.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::Stop;
use crate::address::SlotKind;
use crate::command_log::Effect;
use crate::index::Index;
use crate::key_file::{KeyEntry, KeyFile};
use crate::latch::LatchMode;
use crate::operation::{KeyRef, Operation, now_ms};
use crate::reads::ColdReads;
use crate::segment::{Segment, State};
use crate::shared::Shared;
use crate::stats::count;
use crate::sync::atomic::{AtomicU64, Ordering};

/// How often the space is looked at while there is a limit, and when nothing could be done about it.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_WHEN_FULL: Duration = Duration::from_millis(500);
/// Where nothing could be evicted it is tried again after so long, and while nothing has changed, after twice as long each
/// time.
const EVICT_AGAIN: Duration = Duration::from_millis(500);
const EVICT_AGAIN_MAX: Duration = Duration::from_secs(8);
/// Space is given back from this share of the limit below it on, but at least from so many segments; and then three times as
/// much is made free.
const SLACK_SHARE: u64 = 16;
const SLACK_SEGMENTS: u64 = 4;
/// Attempts to get there before the setting is looked at again.
const ATTEMPTS: usize = 8;
/// Once writes have been refused there must be so many segments' room before they are taken again.
const FREE_AGAIN_SEGMENTS: u64 = 2;
/// Compaction is waited for no longer than this at a time.
const COMPACTION_PATIENCE: Duration = Duration::from_secs(1);
/// How often a key that is latched by others is tried, or read for, and how long it is waited for at a time.
const TRIES: usize = 10;
const LATCH_PAUSE: Duration = Duration::from_micros(100);

/// Which keys are evicted when the data files reach their limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// None: writes are refused.
    #[default]
    Never,
    /// Any, those first that have been neither read nor written for longest, roughly.
    AllKeys,
    /// As [`Self::AllKeys`], but only keys that have an expiry.
    Expiring,
    /// Keys that have an expiry, beginning with the segment in which the first of them expires.
    SoonestExpiring,
}

/// Whether records may be appended, as far as the limit goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskRoom {
    Free = 0,
    /// Room is being made.
    Held = 1,
    /// There is none to be made.
    Full = 2,
}

#[derive(Default)]
pub(crate) struct DiskLimit {
    setting: Mutex<Setting>,
    changed: Condvar,
    /// A [`DiskRoom`].
    room: AtomicU8,
    /// When there are more segments than this, writes wait although the thread has not looked yet; 0: no limit.
    segments_max: AtomicU64,
    /// Bytes of deaths files and manifest, as of the last checkpoint.
    pub(crate) other_bytes: AtomicU64,
    pub(crate) evicted: AtomicU64,
    /// Tells those who wait for room.
    pub(crate) notify: Notify,
}

#[derive(Clone, Copy, Default)]
struct Setting {
    /// 0: no limit.
    bytes_max: u64,
    eviction: Eviction,
}

/// What the thread remembers between its rounds.
#[derive(Default)]
struct Round {
    eviction: Eviction,
    /// File ids of segments in which nothing (more) can be evicted.
    exhausted: HashSet<u64>,
    /// Since those have been looked at without evicting anything.
    in_vain: Option<InVain>,
}

/// Every segment has been looked at, and nothing has been evicted since.
struct InVain {
    at: Instant,
    /// After how long that is done again.
    pause: Duration,
    /// How many keys there were that the policy lets go of.
    keys: u64,
    /// What was in the way of some key will pass.
    will_pass: bool,
}

impl Round {
    /// Every segment is exhausted: whether they are to be looked at again now that the policy lets go of `keys`.
    fn is_again(&mut self, keys: u64) -> bool {
        let pause = match &self.in_vain {
            None => EVICT_AGAIN,
            Some(before) => {
                let is_new = before.will_pass || before.keys != keys;
                let wait = if is_new { EVICT_AGAIN } else { before.pause };
                if before.at.elapsed() < wait {
                    return false;
                }
                match is_new {
                    true => EVICT_AGAIN,
                    false => (before.pause * 2).min(EVICT_AGAIN_MAX),
                }
            }
        };
        self.in_vain = Some(InVain {
            at: Instant::now(),
            pause,
            keys,
            will_pass: false,
        });
        self.exhausted.clear();
        true
    }

    /// What the look at a segment has come to.
    fn note(&mut self, segment: &Segment, evicted: &Evicted) {
        if evicted.keys > 0 {
            self.in_vain = None;
            return;
        }
        self.exhausted.insert(segment.file_id);
        if let Some(in_vain) = &mut self.in_vain {
            in_vain.will_pass |= evicted.will_pass;
        }
    }
}

/// What became of a key that was to be evicted.
enum Outcome {
    Evicted,
    /// It has changed, or cannot be read.
    Left,
    /// Others are using it.
    Busy,
    /// The command log takes nothing.
    Unlogged,
}

/// What became of the keys of a segment.
#[derive(Default)]
struct Evicted {
    keys: u64,
    /// What was in the way of some will pass.
    will_pass: bool,
}

impl DiskLimit {
    pub(crate) fn set(&self, bytes_max: u64, eviction: Eviction) {
        *self.setting.lock() = Setting {
            bytes_max,
            eviction,
        };
        self.changed.notify_all();
    }

    /// As the thread has found it.
    #[inline]
    fn room(&self) -> DiskRoom {
        match self.room.load(Ordering::Relaxed) {
            0 => DiskRoom::Free,
            1 => DiskRoom::Held,
            _ => DiskRoom::Full,
        }
    }

    fn set_room(&self, room: DiskRoom) {
        self.room.store(room as u8, Ordering::Relaxed);
        self.notify.notify_waiters();
    }

    /// The thread looks again, because it is to end.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    /// The setting, after a moment.
    fn wait(&self) -> Setting {
        let mut setting = self.setting.lock();
        let time = match self.room() {
            DiskRoom::Full => LOOK_WHEN_FULL,
            DiskRoom::Free | DiskRoom::Held => LOOK,
        };
        self.changed.wait_for(&mut setting, time);
        *setting
    }
}

impl<I: Index> Shared<I> {
    /// Whether records may be appended, as far as the limit goes.
    #[inline]
    pub(crate) fn disk_room(&self) -> DiskRoom {
        let max = self.disk_limit.segments_max.load(Ordering::Relaxed);
        match self.disk_limit.room() {
            DiskRoom::Free if max != 0 && self.log.table.count() > max => DiskRoom::Held,
            room => room,
        }
    }

    /// Notes how many segments there may be until the thread looks again.
    fn limit_segments(&self, bytes_max: u64) {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let more = bytes_max.saturating_sub(self.data_bytes()) / segment_bytes;
        let max = (self.log.table.count() + more).max(1);
        self.disk_limit.segments_max.store(max, Ordering::Relaxed);
    }

    /// The thread that keeps the data files within their limit, until `stop` says so.
    pub(crate) fn run_disk_limit(&self, stop: &dyn Fn() -> bool) {
        let mut round = Round::default();
        while !stop() {
            let setting = self.disk_limit.wait();
            if setting.bytes_max == 0 || !self.recovery.stats().is_over {
                self.disk_limit.segments_max.store(0, Ordering::Relaxed);
                self.disk_limit.set_room(DiskRoom::Free);
                continue;
            }
            self.limit_segments(setting.bytes_max);
            self.keep_within(setting, &mut round, stop);
        }
    }

    fn keep_within(&self, setting: Setting, round: &mut Round, stop: &dyn Fn() -> bool) {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let max = setting.bytes_max;
        let was_full = self.disk_limit.room() == DiskRoom::Full;
        if setting.eviction == Eviction::Never {
            let enough = match was_full {
                true => max.saturating_sub(FREE_AGAIN_SEGMENTS * segment_bytes),
                false => max,
            };
            self.refuse_above(enough, was_full);
            return;
        }
        if round.eviction != setting.eviction {
            *round = Round {
                eviction: setting.eviction,
                ..Round::default()
            };
        }
        let slack = (max / SLACK_SHARE).max(SLACK_SEGMENTS * segment_bytes);
        if self.data_bytes() > max - slack.min(max) {
            if self.data_bytes() > max && !was_full {
                self.disk_limit.set_room(DiskRoom::Held);
            }
            self.evict_down_to(max.saturating_sub(3 * slack), setting.eviction, round, stop);
        }
        self.limit_segments(max);
        self.disk_limit.set_room(match self.data_bytes() <= max {
            true => DiskRoom::Free,
            false => DiskRoom::Full,
        });
    }

    /// Refuses writes while the files take more than `max` and nothing is left to be given back.
    fn refuse_above(&self, max: u64, was_full: bool) {
        if self.data_bytes() > max {
            if !was_full {
                self.disk_limit.set_room(DiskRoom::Held);
                // Records that died in memory are given back when they have been written.
                let _ = self.checkpoint();
            }
            self.give_space_back();
        }
        self.limit_segments(max);
        self.disk_limit.set_room(match self.data_bytes() <= max {
            true => DiskRoom::Free,
            false => DiskRoom::Full,
        });
    }

    fn evict_down_to(
        &self,
        goal: u64,
        eviction: Eviction,
        round: &mut Round,
        stop: &dyn Fn() -> bool,
    ) {
        self.give_space_back();
        for _ in 0..ATTEMPTS {
            if self.data_bytes() <= goal || stop() || !self.evict_some(eviction, goal, round, stop)
            {
                return;
            }
            self.give_space_back();
        }
    }

    /// Bytes of the data files, with those of segments that will be written.
    fn data_bytes(&self) -> u64 {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        let segments = self.log.table.all();
        let bytes =
            |segment: &Arc<Segment>| segment_bytes + segment.key_bytes.load(Ordering::Relaxed);
        let other_bytes = self.disk_limit.other_bytes.load(Ordering::Relaxed);
        segments.iter().map(bytes).sum::<u64>() + other_bytes
    }

    /// Has dead records compacted if that frees more than a little, and removes the files of what is gone.
    fn give_space_back(&self) {
        let little = 2 * self.log.geometry.segment_bytes() as u64;
        if self.unwritten_dead_bytes() >= little {
            // Which writes them. One that fails says so to those who ask for that; it is tried again.
            let _ = self.checkpoint();
        }
        if self.compactable_bytes() >= little {
            self.compact_all(COMPACTION_PATIENCE);
        }
        if self.space().gone_bytes > 0 {
            let _ = self.checkpoint();
        }
    }

    /// Bytes of dead records in segments that have not been written yet.
    fn unwritten_dead_bytes(&self) -> u64 {
        let mut segments = self.log.table.all();
        segments.retain(|segment| !segment.written.load(Ordering::Relaxed));
        let dead = |segment: &Arc<Segment>| self.log.table.dead_bytes(segment);
        segments.iter().map(dead).sum()
    }

    /// Segments that keys are evicted from, in that order.
    fn victims(&self, eviction: Eviction) -> Vec<Arc<Segment>> {
        let mut segments = self.log.table.all();
        segments.retain(|segment| {
            let state = self.log.table.state(segment.number);
            matches!(state, State::Cold | State::Warm)
                && segment.written.load(Ordering::Relaxed)
                && !segment.retired.load(Ordering::Relaxed)
        });
        segments.sort_unstable_by_key(|segment| segment.file_id);
        if eviction == Eviction::SoonestExpiring {
            // Stable: the older one of two first.
            segments.sort_by_cached_key(|segment| self.log.table.next_expiry_ms(segment));
        }
        segments
    }

    /// Evicts from segments that are not exhausted until what is not dead yet keeps to `goal`; `false` if nothing could be
    /// evicted.
    fn evict_some(
        &self,
        eviction: Eviction,
        goal: u64,
        round: &mut Round,
        stop: &dyn Fn() -> bool,
    ) -> bool {
        let mut victims = self.victims(eviction);
        let is_there = |id: &u64| victims.iter().any(|segment| segment.file_id == *id);
        round.exhausted.retain(is_there);
        victims.retain(|segment| !round.exhausted.contains(&segment.file_id));
        if victims.is_empty() {
            if !round.is_again(self.evictable_keys(eviction)) {
                return false;
            }
            // What could not be evicted may be possible now. And what is only in memory yet can be once it is written.
            let _ = self.seal_all();
            victims = self.victims(eviction);
        }
        let given_back = self.space().gone_bytes + self.compactable_bytes();
        let mut excess = self.data_bytes().saturating_sub(goal + given_back);
        let mut evicted_some = excess == 0;
        for segment in victims {
            if excess == 0 || stop() {
                break;
            }
            let dead_before = self.log.table.dead_bytes(&segment);
            let evicted = self
                .evict_from(&segment, eviction, stop)
                .unwrap_or_else(|_| {
                    // Whoever compacts it is told what is wrong with its key file.
                    count(&self.counters.compaction_errors, 1);
                    Evicted::default()
                });
            round.note(&segment, &evicted);
            count(&self.disk_limit.evicted, evicted.keys);
            evicted_some |= evicted.keys > 0;
            let died = self
                .log
                .table
                .dead_bytes(&segment)
                .saturating_sub(dead_before);
            excess = excess.saturating_sub(died);
        }
        evicted_some
    }

    /// How many keys the policy lets go of, wherever they are.
    fn evictable_keys(&self, eviction: Eviction) -> u64 {
        let all = self.key_counts.used().into_iter();
        all.map(|namespace| match eviction {
            Eviction::Never => 0,
            Eviction::AllKeys => self.key_counts.keys(namespace),
            Eviction::Expiring | Eviction::SoonestExpiring => self.key_counts.expiring(namespace),
        })
        .sum()
    }

    /// Evicts keys of one segment. Leaves the rest when the command log takes nothing, or `stop` says so.
    fn evict_from(
        &self,
        segment: &Segment,
        eviction: Eviction,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Evicted> {
        let file = KeyFile::open(&*self.disk, segment.file_id)?;
        let mut evicted = Evicted::default();
        if eviction != Eviction::AllKeys && file.expiring() == 0 {
            return Ok(evicted);
        }
        let mut blocks = file.keys_from(0);
        let mut is_over = false;
        while blocks.read(|entry| {
            let may_go = eviction == Eviction::AllKeys || entry.meta.expires_at_ms.is_some();
            if is_over || !may_go {
                return;
            }
            match self.evict(segment, &entry) {
                Outcome::Evicted => evicted.keys += 1,
                Outcome::Left => {}
                Outcome::Busy => evicted.will_pass = true,
                Outcome::Unlogged => is_over = true,
            }
            is_over |= stop();
        })? && !is_over
        {}
        evicted.will_pass |= is_over;
        file.drop_cached();
        Ok(evicted)
    }

    fn evict(&self, segment: &Segment, entry: &KeyEntry<'_>) -> Outcome {
        let key = KeyRef {
            namespace: entry.namespace,
            key: entry.key,
            mode: LatchMode::Exclusive,
        };
        let mut reads = ColdReads::default();
        let mut left = Outcome::Busy;
        for _ in 0..TRIES {
            left = Outcome::Busy;
            if let Some(mut operation) = self.operation(&[key], &reads, now_ms()) {
                match operation.evict(segment, entry) {
                    Err(Stop::Cold) => {}
                    Err(Stop::NoRoom { .. }) => {
                        // The command log is busy.
                        drop(operation);
                        left = Outcome::Unlogged;
                        self.command_log.wait_progress(LOOK);
                        continue;
                    }
                    Ok(true) => return Outcome::Evicted,
                    _ => return Outcome::Left,
                }
            }
            if reads.is_wanting() {
                reads.fetch_blocking(&self.blocking_reader);
            } else {
                std::thread::sleep(LATCH_PAUSE);
            }
        }
        left
    }
}

impl<I: Index> Operation<'_, I> {
    /// Removes the key if its newest record is the listed one; `false` if it is not.
    fn evict(&mut self, segment: &Segment, entry: &KeyEntry<'_>) -> Result<bool, Stop> {
        self.check_log()?;
        let (shared, namespace, key) = (self.shared, entry.namespace, entry.key);
        let hash = shared.hash(namespace, key);
        let address = shared
            .log
            .geometry
            .address(segment.number, entry.offset as usize);
        // The number may be another segment's by now, and what has been forgotten at once is not counted any more.
        if shared.log.table.file_id(address) != segment.file_id
            || segment.retired.load(Ordering::Relaxed)
        {
            return Ok(false);
        }
        let candidates = shared.index.candidates(hash, SlotKind::Root);
        let Some(slot) = candidates.iter().find(|slot| slot.address() == address) else {
            return Ok(false);
        };
        if entry.large || candidates.len() > 1 {
            // It has pages, or shadows, or is one.
            let newest = self.find(hash, namespace, key)?;
            let is_newest = newest.is_some_and(|newest| newest.slot.address() == address);
            return Ok(is_newest && self.remove(namespace, key)?);
        }
        // A relocation may have moved it to memory meanwhile: somebody reads it.
        if !shared.index.remove(hash, *slot) {
            return Ok(false);
        }
        let expiring = i64::from(entry.meta.expires_at_ms.is_some());
        self.count_keys(namespace, -1, -expiring);
        let bytes = shared.likely_bytes(segment, *slot);
        shared.died(self.generation, *slot, bytes);
        self.note(&Effect::Remove { namespace, key });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BucketIndex, Meta, Namespace, Options, Store};

    fn store() -> (tempfile::TempDir, Arc<Store<BucketIndex>>) {
        let directory = tempfile::tempdir().expect("a directory");
        let options = Options::new(directory.path()).memory_bytes(64 << 20);
        let store = Store::open(options).expect("the directory opens");
        (directory, store)
    }

    /// Whether anything could be evicted, and how many segments are in memory then.
    fn evict_expiring(store: &Store<BucketIndex>, round: &mut Round) -> (bool, u64) {
        let shared = &store.shared;
        let evicted = shared.evict_some(Eviction::Expiring, 0, round, &|| false);
        (evicted, store.stats().mutable_segments)
    }

    #[test]
    fn where_nothing_can_be_evicted_it_is_not_tried_again_and_again() {
        let (_directory, store) = store();
        let mut round = Round::default();
        let found = [(); 2].map(|()| {
            store.set(b"for ever", b"stays").expect("it is set");
            evict_expiring(&store, &mut round)
        });
        // Only the first time all that is in memory was written so that it could be evicted.
        assert_eq!(found, [(false, 0), (false, 1)]);
    }

    /// The pause has become long meanwhile.
    #[test]
    fn where_nothing_could_be_evicted_it_is_tried_as_soon_as_there_are_other_keys() {
        let (_directory, store) = store();
        let mut round = Round::default();
        store.set(b"for ever", b"stays").expect("it is set");
        assert_eq!(evict_expiring(&store, &mut round), (false, 0));
        let in_vain = round.in_vain.as_mut().expect("nothing was evicted");
        in_vain.pause = EVICT_AGAIN_MAX;
        in_vain.at -= EVICT_AGAIN;
        assert_eq!(evict_expiring(&store, &mut round), (false, 0));
        let meta = Meta {
            kind: 0,
            expires_at_ms: Some(now_ms() + 1_000_000),
        };
        store
            .set_with(b"for a while", b"goes", meta)
            .expect("it is set");
        assert_eq!(evict_expiring(&store, &mut round), (true, 0));
        assert_eq!(store.len(Namespace::default()), 1);
    }

    /// What others keep latched is let go of one day.
    #[test]
    fn what_was_in_use_is_tried_again_soon() {
        let mut round = Round::default();
        assert!(round.is_again(7));
        let in_vain = round.in_vain.as_mut().expect("it has been noted");
        in_vain.pause = EVICT_AGAIN_MAX;
        in_vain.at -= EVICT_AGAIN;
        assert!(!round.is_again(7), "nothing has changed");
        let in_vain = round.in_vain.as_mut().expect("it has been noted");
        in_vain.will_pass = true;
        assert!(round.is_again(7));
        assert!(!round.is_again(7), "not at once");
    }
}
