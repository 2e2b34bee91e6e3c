//! Who watches which keys, and whether one of them has changed since.
//!
//! The table is exact: a watch is told of changes of its very keys, and of nothing else. A write that finds nobody watching,
//! which is nearly every write, pays for one relaxed load; while anybody watches anything, for a hash and another load.
//!
//! A key is watched while its latch is held, and changes under its exclusive latch. So a write either comes before the watch,
//! or finds it: the latch orders the two, which is why all counters here are relaxed. Whoever asks whether a watched key has
//! changed, and acts on the answer, must hold the latches of all watched keys while he acts; it is not enough to look when he
//! begins. (Two who each watch what the other writes would otherwise both find nothing changed, and both go on.)
//!
//! Only what a client can see is a change. Moving a record to another place is none; that a key expires is one if it was
//! there when it was watched; that an expired record is taken out of the index is none in itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::command_log::Effect;
use crate::index::Index;
use crate::latch::{LatchMode, Latches};
use crate::operation::Operation;
use crate::record::NO_EXPIRY;
use crate::store::Store;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::{Namespace, Stop};

const SHARDS: usize = 64;

/// What an operation has done to a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Stored, changed or removed it.
    Changed,
    /// Removed it because it had expired.
    Expired,
}

/// Which keys are watched.
pub(crate) struct Watches {
    /// Number of watched keys, each counted as often as it is watched; the first thing that a write looks at.
    total: AtomicUsize,
    /// The same by latch stripe.
    by_stripe: Box<[AtomicU32]>,
    /// Watched keys by their hashes.
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<u64, SmallVec<[Entry; 1]>>;

/// That somebody watches a key.
#[derive(Clone)]
struct Entry {
    key: Arc<WatchedKey>,
    watcher: Arc<Watcher>,
}

struct WatchedKey {
    namespace: Namespace,
    key: Box<[u8]>,
    hash: u64,
    /// Whether the key existed when it was watched.
    was_there: bool,
}

/// One who watches.
struct Watcher {
    has_changed: AtomicBool,
    /// When the first of the keys expires, Unix milliseconds.
    expires_at_ms: AtomicU64,
    /// Memory that the keys take, about.
    bytes: AtomicUsize,
    /// Locked before any shard.
    keys: Mutex<Vec<Arc<WatchedKey>>>,
}

/// A set of watched keys: see [`Store::watch`]. Ends when it is dropped.
pub struct Watch {
    watches: Arc<Watches>,
    watcher: Arc<Watcher>,
}

impl Watches {
    pub(crate) fn new() -> Watches {
        Watches {
            total: AtomicUsize::new(0),
            by_stripe: (0..Latches::stripes()).map(|_| AtomicU32::new(0)).collect(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Whether anybody watches anything.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.total.load(Relaxed) != 0
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[hash as usize % SHARDS]
    }

    fn count(&self, hash: u64) -> &AtomicU32 {
        &self.by_stripe[Latches::stripe(hash) as usize]
    }

    /// Tells those who watch the key that it has changed.
    pub(crate) fn tell(&self, hash: u64, namespace: Namespace, key: &[u8], change: Change) {
        if self.count(hash).load(Relaxed) == 0 {
            return;
        }
        let mut shard = self.shard(hash).lock();
        let Some(entries) = shard.get_mut(&hash) else {
            return;
        };
        let before = entries.len();
        entries.retain(
            |Entry {
                 key: watched,
                 watcher,
             }| {
                let concerns =
                    watched.is(namespace, key) && (change == Change::Changed || watched.was_there);
                if concerns {
                    watcher.has_changed.store(true, Relaxed);
                }
                // Once is enough.
                !concerns
            },
        );
        let told = before - entries.len();
        if entries.is_empty() {
            shard.remove(&hash);
        }
        self.uncount(hash, told);
    }

    fn add(&self, entry: Entry) {
        let hash = entry.key.hash;
        self.total.fetch_add(1, Relaxed);
        self.count(hash).fetch_add(1, Relaxed);
        self.shard(hash).lock().entry(hash).or_default().push(entry);
    }

    fn uncount(&self, hash: u64, entries: usize) {
        if entries > 0 {
            self.total.fetch_sub(entries, Relaxed);
            self.count(hash).fetch_sub(entries as u32, Relaxed);
        }
    }

    /// Forgets that `watcher` watches `key`, unless it has been told of a change already.
    fn remove(&self, watcher: &Arc<Watcher>, key: &WatchedKey) {
        let mut shard = self.shard(key.hash).lock();
        let Some(entries) = shard.get_mut(&key.hash) else {
            return;
        };
        let before = entries.len();
        entries.retain(|entry| !entry.is_of(watcher, key));
        let removed = before - entries.len();
        if entries.is_empty() {
            shard.remove(&key.hash);
        }
        self.uncount(key.hash, removed);
    }

    /// Whether `watcher` watches the key and has not been told of a change.
    fn is_watching(&self, watcher: &Arc<Watcher>, key: &WatchedKey) -> bool {
        let shard = self.shard(key.hash).lock();
        let entries = shard.get(&key.hash);
        entries.is_some_and(|entries| entries.iter().any(|entry| entry.is_of(watcher, key)))
    }

    /// Everybody who watches a key of a namespace that moves.
    fn watchers_of(&self, moves: &[(Namespace, Namespace)]) -> Vec<Arc<Watcher>> {
        let mut known = HashSet::new();
        let mut watchers = Vec::new();
        if !self.is_any() {
            return watchers;
        }
        for shard in &self.shards {
            for Entry { key, watcher } in shard.lock().values().flatten() {
                let moves = moves.iter().any(|(from, _)| *from == key.namespace);
                if moves && known.insert(Arc::as_ptr(watcher)) {
                    watchers.push(Arc::clone(watcher));
                }
            }
        }
        watchers
    }
}

impl Entry {
    fn is_of(&self, watcher: &Arc<Watcher>, key: &WatchedKey) -> bool {
        Arc::ptr_eq(&self.watcher, watcher) && self.key.is(key.namespace, &key.key)
    }
}

impl WatchedKey {
    fn is(&self, namespace: Namespace, key: &[u8]) -> bool {
        self.namespace == namespace && *self.key == *key
    }

    /// Memory of a watched key: this, its entry, and what the table takes beside.
    fn bytes(&self) -> usize {
        self.key.len() + size_of::<WatchedKey>() + 2 * size_of::<Entry>() + 64
    }
}

impl Watch {
    /// Whether one of the keys has changed since it was watched, or has expired by `now_ms`, Unix milliseconds. For certain
    /// only while the latches of all the keys are held, see [`Latching::and_watched`](crate::Latching::and_watched); but what
    /// has changed stays so.
    pub fn has_changed(&self, now_ms: u64) -> bool {
        self.watcher.has_changed.load(Relaxed) || self.watcher.expires_at_ms.load(Relaxed) <= now_ms
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.watcher.keys.lock().len()
    }

    /// Whether no key is watched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory it takes, about.
    pub fn memory_bytes(&self) -> usize {
        self.watcher.bytes.load(Relaxed)
    }

    /// Watches nothing any more; what has changed is forgotten.
    pub fn clear(&self) {
        let mut keys = self.watcher.keys.lock();
        for key in keys.drain(..) {
            self.watches.remove(&self.watcher, &key);
        }
        // Nobody finds the watcher any more, so nobody says again that something has changed.
        self.watcher.has_changed.store(false, Relaxed);
        self.watcher.expires_at_ms.store(NO_EXPIRY, Relaxed);
        self.watcher.bytes.store(0, Relaxed);
    }

    /// Watches a key, whose latch is held, unless it does already.
    fn add(&self, key: WatchedKey, expires_at_ms: u64) {
        let watcher = &self.watcher;
        let mut keys = watcher.keys.lock();
        if self.watches.is_watching(watcher, &key) {
            return;
        }
        watcher.expires_at_ms.fetch_min(expires_at_ms, Relaxed);
        watcher.bytes.fetch_add(key.bytes(), Relaxed);
        let key = Arc::new(key);
        keys.push(Arc::clone(&key));
        self.watches.add(Entry {
            key,
            watcher: Arc::clone(watcher),
        });
    }

    /// Latch stripes of the keys.
    pub(crate) fn stripes(&self) -> Vec<u32> {
        let keys = self.watcher.keys.lock();
        keys.iter().map(|key| Latches::stripe(key.hash)).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<I: Index> Store<I> {
    /// A watch of no keys yet: see [`Operation::watch`].
    pub fn watch(&self) -> Watch {
        Watch {
            watches: Arc::clone(&self.shared.watches),
            watcher: Arc::new(Watcher {
                has_changed: AtomicBool::new(false),
                expires_at_ms: AtomicU64::new(NO_EXPIRY),
                bytes: AtomicUsize::new(0),
                keys: Mutex::default(),
            }),
        }
    }

    /// Number of watched keys, each counted as often as it is watched.
    pub fn watched_keys(&self) -> usize {
        self.shared.watches.total.load(Relaxed)
    }
}

impl<I: Index> Operation<'_, I> {
    /// Tells those who watch what has changed.
    #[cold]
    pub(crate) fn tell_changed(&self, effect: &Effect<'_>) {
        // A copy changes nothing in what it is made of.
        let unchanged = match effect {
            Effect::CopyCollection { from, .. } => Some(*from),
            _ => None,
        };
        for (namespace, key) in effect.keys() {
            if Some((namespace, key)) == unchanged {
                continue;
            }
            let hash = self.shared.hash(namespace, key);
            self.shared
                .watches
                .tell(hash, namespace, key, Change::Changed);
        }
    }

    /// Tells those who watch the key, and found it there, that it has expired.
    pub(crate) fn tell_expired(&self, namespace: Namespace, key: &[u8]) {
        if self.shared.watches.is_any() {
            let hash = self.shared.hash(namespace, key);
            self.shared
                .watches
                .tell(hash, namespace, key, Change::Expired);
        }
    }

    /// From now on `watch` is told when one of the keys changes; of a key that it watches already nothing changes.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`], [`Stop::Io`]: whether the keys exist must be known. None is watched then.
    pub fn watch<'k>(
        &self,
        watch: &Watch,
        keys: impl Iterator<Item = (Namespace, &'k [u8])>,
    ) -> Result<(), Stop> {
        let mut found = Vec::new();
        let mut stop = None;
        for (namespace, key) in keys {
            let hash = self.shared.hash(namespace, key);
            self.assert_latched(hash, LatchMode::Shared);
            match self.find(hash, namespace, key) {
                Ok(record) => found.push((hash, namespace, key, record)),
                // Goes on, so that all that is missing is fetched together.
                Err(reason) => stop = Some(reason),
            }
        }
        if let Some(reason) = stop {
            return Err(reason);
        }
        for (hash, namespace, key, record) in found {
            let there = record.filter(|found| !self.is_expired(&found.record));
            let key = WatchedKey {
                namespace,
                key: key.into(),
                hash,
                was_there: there.is_some(),
            };
            let expires_at_ms = there.and_then(|found| found.record.expires_at_ms());
            watch.add(key, expires_at_ms.unwrap_or(NO_EXPIRY));
        }
        Ok(())
    }

    /// What it means for those who watch that, from a moment on, the embedding program uses the second of each two
    /// namespaces in the place of the first: it changes what is in either, and they watch the second from then on. The
    /// operation holds all latches, and [`Self::move_watched`] brings it about. O(number of watched keys).
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`], [`Stop::Io`]: whether the keys exist must be known.
    pub fn watched(&self, moves: Vec<(Namespace, Namespace)>) -> Result<MovedWatches, Stop> {
        let mut moved = MovedWatches {
            moves,
            appearing: HashMap::new(),
        };
        let mut stop = None;
        for watcher in self.shared.watches.watchers_of(&moved.moves) {
            for key in watcher.keys.lock().iter() {
                let Some(to) = moved.of(key.namespace).filter(|_| !key.was_there) else {
                    continue;
                };
                match self.exists(to, &key.key) {
                    Ok(false) => {}
                    Ok(true) => {
                        moved.appearing.insert(Arc::as_ptr(key), Arc::clone(key));
                    }
                    // Goes on, so that all that is missing is fetched together.
                    Err(reason) => stop = Some(reason),
                }
            }
        }
        stop.map_or(Ok(moved), Err)
    }

    fn exists(&self, namespace: Namespace, key: &[u8]) -> Result<bool, Stop> {
        let found = self.find(self.shared.hash(namespace, key), namespace, key)?;
        Ok(found.is_some_and(|found| !self.is_expired(&found.record)))
    }

    /// The moment has come for what [`Self::watched`] has found out in this operation.
    pub fn move_watched(&self, moved: &MovedWatches) {
        let watches = &self.shared.watches;
        for watcher in watches.watchers_of(&moved.moves) {
            for key in watcher.keys.lock().iter_mut() {
                let Some(to) = moved.of(key.namespace) else {
                    continue;
                };
                if key.was_there || moved.appearing.contains_key(&Arc::as_ptr(key)) {
                    watcher.has_changed.store(true, Relaxed);
                }
                watches.remove(&watcher, key);
                *key = Arc::new(WatchedKey {
                    namespace: to,
                    key: key.key.clone(),
                    hash: self.shared.hash(to, &key.key),
                    was_there: false,
                });
                watches.add(Entry {
                    key: Arc::clone(key),
                    watcher: Arc::clone(&watcher),
                });
            }
        }
    }
}

/// What [`Operation::watched`] has found out.
pub struct MovedWatches {
    moves: Vec<(Namespace, Namespace)>,
    /// Watched keys that were not there, and will be.
    appearing: HashMap<*const WatchedKey, Arc<WatchedKey>>,
}

impl MovedWatches {
    /// Where `namespace` moves, if it does.
    fn of(&self, namespace: Namespace) -> Option<Namespace> {
        let found = self.moves.iter().find(|(from, _)| *from == namespace);
        found.map(|(_, to)| *to)
    }
}
