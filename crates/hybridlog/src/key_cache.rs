//! Parts of key files in memory: directories, and groups of key blocks, for iterations that come back for the next keys.
//!
//! An iteration needs of every cold segment the one group that its cursor is in, and goes round all segments before it needs
//! the next of any. So what was used longest ago is not what will be needed last, and replacement is random: it keeps its
//! share of hits however much larger than the cache the round is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::key_file::{KeyDirectory, KeyGroup};

/// Of the memory the cache takes at most this part.
const SHARE: u64 = 32;
/// The most that pays.
const BYTES_MAX: u64 = 64 << 20;
/// What a part takes beside its own bytes: in the map, in the list, and counted references.
const OVERHEAD_BYTES: usize = 128;

/// Which part of which key file.
type PartId = (u64, u32);
/// As number of a group: the directory.
const DIRECTORY: u32 = u32::MAX;

#[derive(Clone)]
enum Part {
    Directory(Arc<KeyDirectory>),
    Group(Arc<KeyGroup>),
}

impl Part {
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                Part::Directory(directory) => directory.bytes(),
                Part::Group(group) => group.bytes(),
            }
    }
}

pub(crate) struct KeyCache {
    bytes_max: AtomicUsize,
    bytes: AtomicUsize,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    /// Where in `list` a part is.
    places: HashMap<PartId, usize>,
    list: Vec<(PartId, Part)>,
    random: u64,
}

impl KeyCache {
    /// A cache for a store with so much memory.
    pub(crate) fn new(memory_bytes: u64) -> KeyCache {
        let cache = KeyCache {
            bytes_max: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            parts: Mutex::default(),
        };
        cache.set_memory(memory_bytes);
        cache
    }

    /// The store has so much memory from now on.
    pub(crate) fn set_memory(&self, memory_bytes: u64) {
        let bytes_max = (memory_bytes / SHARE).min(BYTES_MAX) as usize;
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.evict(&mut self.parts.lock());
    }

    /// Memory it takes now.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) as u64
    }

    pub(crate) fn directory(&self, file_id: u64) -> Option<Arc<KeyDirectory>> {
        match self.parts.lock().get((file_id, DIRECTORY))? {
            Part::Directory(directory) => Some(directory.clone()),
            Part::Group(_) => None,
        }
    }

    pub(crate) fn group(&self, file_id: u64, group: u32) -> Option<Arc<KeyGroup>> {
        match self.parts.lock().get((file_id, group))? {
            Part::Group(group) => Some(group.clone()),
            Part::Directory(_) => None,
        }
    }

    pub(crate) fn keep_directory(&self, file_id: u64, directory: &Arc<KeyDirectory>) {
        self.keep((file_id, DIRECTORY), Part::Directory(directory.clone()));
    }

    pub(crate) fn keep_group(&self, file_id: u64, group: u32, blocks: &Arc<KeyGroup>) {
        self.keep((file_id, group), Part::Group(blocks.clone()));
    }

    fn keep(&self, id: PartId, part: Part) {
        let mut parts = self.parts.lock();
        if parts.places.contains_key(&id) {
            return;
        }
        self.bytes.fetch_add(part.bytes(), Ordering::Relaxed);
        let place = parts.list.len();
        parts.list.push((id, part));
        parts.places.insert(id, place);
        self.evict(&mut parts);
    }

    fn evict(&self, parts: &mut Parts) {
        while self.bytes.load(Ordering::Relaxed) > self.bytes_max.load(Ordering::Relaxed) {
            let Some(part) = parts.remove_one() else {
                break;
            };
            self.bytes.fetch_sub(part.bytes(), Ordering::Relaxed);
        }
    }
}

impl Parts {
    fn get(&self, id: PartId) -> Option<&Part> {
        self.places.get(&id).map(|&place| &self.list[place].1)
    }

    /// Takes out any part.
    fn remove_one(&mut self) -> Option<Part> {
        if self.list.is_empty() {
            return None;
        }
        // Any sequence that has nothing to do with the order of use will do: Knuth's MMIX constants.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let place = (self.random >> 33) as usize % self.list.len();
        let (id, part) = self.list.swap_remove(place);
        self.places.remove(&id);
        if let Some((moved, _)) = self.list.get(place) {
            self.places.insert(*moved, place);
        }
        Some(part)
    }
}
