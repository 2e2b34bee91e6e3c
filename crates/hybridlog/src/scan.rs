//! Iteration over keys, random keys, and sweeping a namespace.

use std::ops::RangeInclusive;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::address::{Slot, SlotKind};
use crate::cold_keys::{ColdKey, ColdKeys, all_or_stop};
use crate::epoch;
use crate::index::Index;
use crate::key_cache::Walked;
use crate::key_window::KeyWindow;
use crate::operation::{Held, Meta, Operation};
use crate::reads::ColdReads;
use crate::record::RecordRef;
use crate::segment::Place;
use crate::shared::Shared;
use crate::{Namespace, Stop};

/// Cursors are positions of the index without the low bits, which are always zero: they stay below 2^40, so that clients
/// that keep numbers as doubles keep them exactly.
const CURSOR_SHIFT: u32 = 24;

/// A random key is one of so many that follow each other where there are few keys.
const RANDOM_AMONG: usize = 16;
const FEW_KEYS: u64 = 4096;

/// A step of an iteration looks at no more cold records than this, so that the memory it takes is bounded.
const COLD_PER_STEP: usize = 1024;

/// So many buckets ahead are being loaded.
const PREFETCHED_BUCKETS: u64 = 8;

/// What one step of [`Operation::scan`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Where to go on; 0 when the iteration is complete.
    pub cursor: u64,
    /// The keys with their type and expiry.
    pub keys: Vec<(Vec<u8>, Meta)>,
}

/// What was in a bucket of the index at one moment.
struct Bucket {
    /// Those of keys, the newest first.
    slots: SmallVec<[Slot; 16]>,
    /// What the hashes of its keys are, their bits reversed.
    reversed_hashes: RangeInclusive<u64>,
}

/// Where the key of a slot is found.
enum Source {
    /// At this place of the window.
    Window(usize),
    KeyFile(ColdKey),
    Record,
}

/// Where the keys of some buckets are found.
struct Sources {
    window: Option<Arc<KeyWindow>>,
    /// Of one slot after the other.
    list: Vec<Source>,
}

/// A bucket, and where the keys of its slots are found.
struct Found<'k> {
    bucket: &'k Bucket,
    window: Option<&'k KeyWindow>,
    sources: &'k [Source],
}

/// A key with what stands beside it.
struct ListedKey<'k> {
    namespace: Namespace,
    meta: Meta,
    key: &'k [u8],
}

impl ListedKey<'_> {
    fn is(&self, namespace: Namespace, key: &[u8]) -> bool {
        self.namespace == namespace && self.key == key
    }
}

impl<I: Index> Operation<'_, I> {
    /// One step of an iteration over the keys of `namespace`: looks at no fewer than `count` slots of the index unless it
    /// reaches the end, that of the keys which have been read ahead, or has met a thousand cold records. Starts at cursor 0.
    ///
    /// A key that exists from the first step to the last is returned at least once; one that comes or goes meanwhile may be.
    /// Keys need not be latched for this. Of cold records the keys are read from the key files, never the values.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] if parts of key files have to be fetched (all of the step's are asked for together), [`Stop::Io`].
    pub fn scan(&self, namespace: Namespace, cursor: u64, count: usize) -> Result<Scanned, Stop> {
        let mut buckets = Vec::new();
        let (mut looked_at, mut cold) = (0, 0);
        let first = cursor << CURSOR_SHIFT;
        let key_cache = &self.shared.key_cache;
        let window = key_cache.window(first, self.shared.log.table.count() as usize);
        let end = window
            .as_ref()
            .map_or(u64::MAX, |window| *window.reversed_hashes().end());
        let mut position = Some(first);
        while let Some(at) =
            position.filter(|at| looked_at < count.max(1) && cold < COLD_PER_STEP && *at <= end)
        {
            let bucket;
            (bucket, position) = self.bucket(at);
            if let Some(next) = position {
                let ahead = next.saturating_add((next - at).saturating_mul(PREFETCHED_BUCKETS));
                self.shared.index.prefetch(ahead.reverse_bits());
            }
            looked_at += bucket.slots.len();
            cold += bucket
                .slots
                .iter()
                .filter(|slot| self.is_cold(**slot))
                .count();
            buckets.push(bucket);
        }
        let mut scanned = Scanned {
            cursor: position.map_or(0, |position| position >> CURSOR_SHIFT),
            keys: Vec::new(),
        };
        let sources = self.sources(&buckets, window.filter(|_| cold > 0))?;
        self.live_keys(&buckets, &sources, namespace, |key, meta| {
            scanned.keys.push((key.to_vec(), meta));
        })?;
        match (position, &sources.window) {
            (None, Some(window)) => key_cache.drop_window(window),
            (Some(next), None) => key_cache.walked(Walked::step(first..=next - 1, looked_at)),
            _ => {}
        }
        Ok(scanned)
    }

    fn is_cold(&self, slot: Slot) -> bool {
        let place = self.shared.log.table.place(slot.address());
        matches!(place, Place::Cold)
    }

    fn bucket(&self, position: u64) -> (Bucket, Option<u64>) {
        let mut slots = SmallVec::new();
        let next = self.shared.index.visit(position, &mut |slot| {
            if slot.kind() == SlotKind::Root {
                slots.push(slot);
            }
        });
        let last = next.map_or(u64::MAX, |next| next - 1);
        let reversed_hashes = position..=last;
        let bucket = Bucket {
            slots,
            reversed_hashes,
        };
        (bucket, next)
    }

    /// Where the keys of all slots are found, and the window that some of them are in.
    ///
    /// # Errors
    ///
    /// As [`Self::scan`].
    fn sources(
        &self,
        buckets: &[Bucket],
        mut window: Option<Arc<KeyWindow>>,
    ) -> Result<Sources, Stop> {
        let mut cold_keys = ColdKeys::new(self);
        if let Some(window) = &mut window {
            let slots = buckets
                .iter()
                .flat_map(|bucket| bucket.slots.iter().copied());
            cold_keys.extend(window, slots.filter(|slot| self.is_cold(*slot)))?;
        }
        let mut near = 0;
        let list = buckets.iter().flat_map(|bucket| {
            let window = window.as_deref();
            let places = window.map_or(0..0, |window| window.places(&bucket.reversed_hashes, near));
            near = places.end;
            bucket.slots.iter().map(move |slot| {
                let places = places.clone();
                (bucket, *slot, window.map(|window| (window, places)))
            })
        });
        let list = list.map(|(bucket, slot, window)| {
            if !self.is_cold(slot) {
                return Ok(Source::Record);
            }
            let in_window = window.and_then(|(window, places)| {
                let log = &self.shared.log;
                let offset = log.geometry.offset(slot.address()) as u32;
                window.find(places, log.table.file_id(slot.address()), offset)
            });
            if let Some(place) = in_window {
                return Ok(Source::Window(place));
            }
            let found = cold_keys.find(slot, bucket.reversed_hashes.clone())?;
            Ok(found.map_or(Source::Record, Source::KeyFile))
        });
        let list = all_or_stop(list)?;
        Ok(Sources { window, list })
    }

    /// Calls `each` with the live keys of `namespace` in the buckets: neither expired nor shadows.
    ///
    /// # Errors
    ///
    /// As [`Self::scan`]; some keys may have been given then.
    fn live_keys(
        &self,
        buckets: &[Bucket],
        sources: &Sources,
        namespace: Namespace,
        mut each: impl FnMut(&[u8], Meta),
    ) -> Result<(), Stop> {
        let mut list = sources.list.as_slice();
        let mut stop = None;
        for bucket in buckets {
            let of_bucket;
            (of_bucket, list) = list.split_at(bucket.slots.len());
            let found = Found {
                bucket,
                window: sources.window.as_deref(),
                sources: of_bucket,
            };
            for at in 0..of_bucket.len() {
                match self.live_key(&found, at, namespace) {
                    Ok(Some(listed)) => each(listed.key, listed.meta),
                    Ok(None) => {}
                    Err(reason) => stop = Some(reason),
                }
            }
        }
        stop.map_or(Ok(()), Err)
    }

    fn listed<'k>(&'k self, found: &Found<'k>, at: usize) -> Result<Option<ListedKey<'k>>, Stop> {
        match (&found.sources[at], found.window) {
            (Source::Window(place), Some(window)) => {
                let key = window.key(*place);
                return Ok(Some(ListedKey {
                    namespace: key.namespace,
                    meta: key.meta,
                    key: key.key,
                }));
            }
            (Source::KeyFile(cold), _) => {
                if let Some(entry) = cold.entry() {
                    return Ok(Some(ListedKey {
                        namespace: entry.namespace,
                        meta: entry.meta,
                        key: entry.key,
                    }));
                }
            }
            _ => {}
        }
        let found = self.found(found.bucket.slots[at])?;
        Ok(found.map(|found| ListedKey {
            namespace: found.record.namespace(),
            meta: found.record.meta(),
            key: found.record.key(),
        }))
    }

    /// The key of slot `at` of a bucket if it is a live one of `namespace`, rather than expired, or a shadow. It is a shadow if a
    /// newer record of the key was in its bucket too: one that has taken its place since is not in there, and the key would be
    /// missed if neither counted.
    fn live_key<'k>(
        &'k self,
        found: &Found<'k>,
        at: usize,
        namespace: Namespace,
    ) -> Result<Option<ListedKey<'k>>, Stop> {
        let Some(listed) = self.listed(found, at)? else {
            return Ok(None);
        };
        if listed.namespace != namespace || self.is_past(listed.meta.expires_at_ms) {
            return Ok(None);
        }
        let hash = self.shared.hash(namespace, listed.key);
        let candidates = self.shared.index.candidates(hash, SlotKind::Root);
        if candidates.as_slice() != [found.bucket.slots[at]] {
            // The newer one comes first in a bucket. Either may have been moved or taken out meanwhile.
            for newer in 0..at {
                let newer = self.listed(found, newer)?;
                if newer.is_some_and(|newer| newer.is(namespace, listed.key)) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(listed))
    }

    /// A key of `namespace`, from about the place in the index that `random` names; `None` if there is none.
    ///
    /// Few keys lie far apart, and those behind a wide gap would come too often: so it is one of the next
    /// [`RANDOM_AMONG`] then.
    ///
    /// # Errors
    ///
    /// As [`Self::scan`].
    pub fn random_key(&self, namespace: Namespace, random: u64) -> Result<Option<Vec<u8>>, Stop> {
        let among = match self.shared.key_counts.keys(namespace) {
            0 => return Ok(None),
            1..=FEW_KEYS => RANDOM_AMONG,
            _ => 1,
        };
        let mut keys = Vec::new();
        // From the random place to the end, then from the beginning.
        for start in [random >> CURSOR_SHIFT << CURSOR_SHIFT, 0] {
            let mut position = Some(start);
            while let Some(at) = position {
                if keys.len() >= among {
                    break;
                }
                let bucket;
                (bucket, position) = self.bucket(at);
                let buckets = [bucket];
                let sources = self.sources(&buckets, None)?;
                self.live_keys(&buckets, &sources, namespace, |key, _| {
                    keys.push(key.to_vec());
                })?;
            }
        }
        // The low bits, which have not chosen the place.
        let at = (random % (1 << CURSOR_SHIFT)) as usize % keys.len().max(1);
        Ok((!keys.is_empty()).then(|| keys.swap_remove(at)))
    }
}

impl<I: Index> Shared<I> {
    #[allow(unsafe_code)] // Reads a record's immutable parts without its latch.
    pub(crate) fn in_memory(&self, slot: Slot) -> Option<RecordRef<'_>> {
        if slot.kind() != SlotKind::Root {
            return None;
        }
        let Place::Memory { base, .. } = self.log.table.place(slot.address()) else {
            return None;
        };
        // SAFETY: a slot names a record; the callers are pinned while they use it, and look only at what never changes
        // (key, namespace) or is read atomically (expiry).
        Some(unsafe { RecordRef::new(base.as_ptr()) })
    }

    /// Takes every key of `namespace` out of the index, reading cold records as needed. The namespace must not be in use.
    pub(crate) fn sweep(&self, namespace: Namespace) {
        let mut position = Some(0);
        while let Some(at) = position {
            let mut reads = ColdReads::default();
            // Ends: what was cold has been fetched then. What cannot be read stays, and is never found again.
            loop {
                let operation = Operation::new(self, Held::none(&self.latches), &reads, 0);
                position = operation.sweep_some(namespace, at);
                drop(operation);
                if !reads.is_wanting() {
                    break;
                }
                reads.fetch_blocking(&self.blocking_reader);
            }
        }
        // Not before, and while no checkpoint is being made: a manifest that counts no key tells a restart that none is left
        // to be swept, and the namespace may be used again.
        let _no_checkpoint = self.checkpoints.manifest.lock();
        // Whoever has taken out a slot, or noted a write, has counted that after this.
        epoch::barrier();
        // Nobody resolves blind writes meanwhile, who would count keys after all.
        let _alone = self.tiering.lock();
        self.shadows.forget_all_of(namespace);
        self.key_counts.reset(namespace);
    }
}

impl<I: Index> Operation<'_, I> {
    /// Sweeps some buckets from `position` on; asks for the cold records among them.
    fn sweep_some(&self, namespace: Namespace, position: u64) -> Option<u64> {
        let mut next = Some(position);
        for _ in 0..64 {
            let Some(at) = next else { break };
            let bucket;
            (bucket, next) = self.bucket(at);
            for slot in bucket.slots {
                let Ok(Some(found)) = self.found(slot) else {
                    continue;
                };
                if found.record.namespace() == namespace {
                    let key = found.record.key();
                    let hash = self.shared.hash(namespace, key);
                    self.remove_slot(hash, namespace, key, &found);
                    self.free_pages(self.pages_of(&found));
                }
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use crate::address::SlotKind;
    use crate::index::sealed::Slots;
    use crate::{BucketIndex, Namespace, Options, Store};

    /// While a checkpoint is being made, which may count the keys of a namespace at any moment, those of one that is being
    /// cleared are not counted as gone: after a restart its records may be there again.
    #[test]
    fn a_namespace_is_empty_only_when_no_checkpoint_can_tell_otherwise() {
        const KEYS: u32 = 1000;
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new(directory.path());
        let store: Arc<Store<BucketIndex>> = Store::open(options).unwrap();
        let namespace = Namespace::default();
        for n in 0..KEYS {
            store.set(&n.to_le_bytes(), b"value").unwrap();
        }
        store.force_cold().unwrap();
        let checkpoint = store.shared.checkpoints.manifest.lock();
        thread::scope(|scope| {
            let sweep = scope.spawn(|| store.clear(namespace));
            let is_left = |n: u32| {
                let hash = store.shared.hash(namespace, &n.to_le_bytes());
                !store
                    .shared
                    .index
                    .candidates(hash, SlotKind::Root)
                    .is_empty()
            };
            while (0..KEYS).any(is_left) {
                assert_eq!(store.shared.key_counts.keys(namespace), u64::from(KEYS));
                thread::yield_now();
            }
            assert_eq!(store.shared.key_counts.keys(namespace), u64::from(KEYS));
            drop(checkpoint);
            sweep.join().unwrap();
        });
        assert_eq!(store.shared.key_counts.keys(namespace), 0);
    }
}
