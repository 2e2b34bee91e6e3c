//! Evicting keys: segment by segment, those first that have been written for longest.
//!
//! A segment in which nothing (more) can be evicted is *exhausted*, and looked at again only after a while, or when there are
//! other keys than before.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Eviction;
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
use crate::sync::atomic::Ordering;

/// Where nothing could be evicted it is tried again after so long, and while nothing has changed, after twice as long each
/// time.
const EVICT_AGAIN: Duration = Duration::from_millis(500);
const EVICT_AGAIN_MAX: Duration = Duration::from_secs(8);
/// How often a key that is latched by others is tried, or read for, and how long it is waited for at a time.
const TRIES: usize = 10;
const LATCH_PAUSE: Duration = Duration::from_micros(100);

/// How long the command log is waited for at a time.
const LOG_PATIENCE: Duration = Duration::from_millis(50);

/// What the thread remembers between its rounds.
#[derive(Default)]
pub(super) struct Round {
    pub(super) eviction: Eviction,
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
    pub(super) fn new(eviction: Eviction) -> Round {
        Round {
            eviction,
            ..Round::default()
        }
    }

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

impl<I: Index> Shared<I> {
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
    pub(super) fn evict_some(
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
                        self.command_log.wait_progress(LOG_PATIENCE);
                        continue;
                    }
                    Ok(true) => {
                        count(&self.disk_limit.evicted, 1);
                        return Outcome::Evicted;
                    }
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
