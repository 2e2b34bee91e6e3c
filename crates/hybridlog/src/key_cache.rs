//! Parts of key files in memory, for iterations that come back for the next keys.
//!
//! An iteration needs of every cold segment the group of key blocks that its cursor is in, and goes round all segments before
//! it needs the next group of any. So what was used longest ago is not what will be needed last, and replacement is random: it
//! keeps its share of hits however much larger than the cache the round is.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};

use crate::key_file::{KeyDirectory, KeyGroup};
use crate::reads::IdHasher;

/// Of the memory the cache takes at most this part.
const SHARE: u64 = 32;
/// The most that pays.
const BYTES_MAX: u64 = 64 << 20;
/// Groups of one file: as many as iterations may have their cursors in different places.
const GROUPS_PER_FILE: usize = 4;
/// What a file takes beside its parts: in the map, in the list, and counted references.
const OVERHEAD_BYTES: usize = 160;

/// Groups of key blocks, most often one.
pub(crate) type KeyGroups = SmallVec<[Arc<KeyGroup>; 1]>;

pub(crate) struct KeyCache {
    bytes_max: AtomicUsize,
    bytes: AtomicUsize,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// Where in `list` a file is.
    places: HashMap<u64, usize, BuildHasherDefault<IdHasher>>,
    list: Vec<CachedFile>,
    random: u64,
}

struct CachedFile {
    file_id: u64,
    directory: Arc<KeyDirectory>,
    /// The youngest last.
    groups: SmallVec<[CachedGroup; 1]>,
}

struct CachedGroup {
    number: u32,
    /// High halves of reversed hashes that are in no other group.
    only_here: Range<u32>,
    group: Arc<KeyGroup>,
}

impl KeyCache {
    /// A cache for a store with so much memory.
    pub(crate) fn new(memory_bytes: u64) -> KeyCache {
        let cache = KeyCache {
            bytes_max: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            files: Mutex::default(),
        };
        cache.set_memory(memory_bytes);
        cache
    }

    /// The store has so much memory from now on.
    pub(crate) fn set_memory(&self, memory_bytes: u64) {
        let bytes_max = (memory_bytes / SHARE).min(BYTES_MAX) as usize;
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.shrink(&mut self.files.lock());
    }

    /// Memory it takes now.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) as u64
    }

    /// The groups of a file that keys with these reversed hashes are in, if the cache has them all.
    pub(crate) fn groups(
        &self,
        file_id: u64,
        reversed_hashes: &RangeInclusive<u64>,
    ) -> Option<KeyGroups> {
        let files = self.files.lock();
        let file = &files.list[*files.places.get(&file_id)?];
        let high = |hash: &u64| (hash >> 32) as u32;
        let (first, last) = (high(reversed_hashes.start()), high(reversed_hashes.end()));
        let is_only = |cached: &&CachedGroup| {
            cached.only_here.contains(&first) && cached.only_here.contains(&last)
        };
        // Nearly always: then nothing else has to be looked at.
        if let Some(only) = file.groups.iter().find(is_only) {
            return Some(smallvec![only.group.clone()]);
        }
        let mut numbers = file.directory.groups(reversed_hashes);
        numbers.try_fold(KeyGroups::new(), |mut groups, number| {
            groups.push(file.group(number)?.clone());
            Some(groups)
        })
    }

    pub(crate) fn directory(&self, file_id: u64) -> Option<Arc<KeyDirectory>> {
        let files = self.files.lock();
        let file = &files.list[*files.places.get(&file_id)?];
        Some(file.directory.clone())
    }

    pub(crate) fn group(&self, file_id: u64, number: u32) -> Option<Arc<KeyGroup>> {
        let files = self.files.lock();
        let file = &files.list[*files.places.get(&file_id)?];
        file.group(number).cloned()
    }

    pub(crate) fn keep_directory(&self, file_id: u64, directory: &Arc<KeyDirectory>) {
        let mut files = self.files.lock();
        if files.places.contains_key(&file_id) {
            return;
        }
        let file = CachedFile {
            file_id,
            directory: directory.clone(),
            groups: SmallVec::new(),
        };
        self.bytes.fetch_add(file.bytes(), Ordering::Relaxed);
        let place = files.list.len();
        files.list.push(file);
        files.places.insert(file_id, place);
        self.shrink(&mut files);
    }

    /// Keeps a group of a file whose directory is kept. The one before it is not: the iteration that asks for this one has it
    /// behind it.
    pub(crate) fn keep_group(&self, file_id: u64, number: u32, group: &Arc<KeyGroup>) {
        let mut files = self.files.lock();
        let Some(&place) = files.places.get(&file_id) else {
            return;
        };
        let file = &mut files.list[place];
        let before = file.bytes();
        file.groups
            .retain(|other| other.number != number && other.number + 1 != number);
        if file.groups.len() == GROUPS_PER_FILE {
            file.groups.remove(0);
        }
        file.groups.push(CachedGroup {
            number,
            only_here: file.directory.only_in(number),
            group: group.clone(),
        });
        let after = file.bytes();
        self.bytes.fetch_add(after, Ordering::Relaxed);
        self.bytes.fetch_sub(before, Ordering::Relaxed);
        self.shrink(&mut files);
    }

    fn shrink(&self, files: &mut Files) {
        while self.bytes.load(Ordering::Relaxed) > self.bytes_max.load(Ordering::Relaxed) {
            let Some(file) = files.remove_any() else {
                break;
            };
            self.bytes.fetch_sub(file.bytes(), Ordering::Relaxed);
        }
    }
}

impl Files {
    fn remove_any(&mut self) -> Option<CachedFile> {
        if self.list.is_empty() {
            return None;
        }
        // Any sequence that has nothing to do with the order of use will do: Knuth's MMIX constants.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let place = (self.random >> 33) as usize % self.list.len();
        let file = self.list.swap_remove(place);
        self.places.remove(&file.file_id);
        if let Some(moved) = self.list.get(place) {
            self.places.insert(moved.file_id, place);
        }
        Some(file)
    }
}

impl CachedFile {
    fn group(&self, number: u32) -> Option<&Arc<KeyGroup>> {
        let mut groups = self.groups.iter();
        groups.find_map(|cached| (cached.number == number).then_some(&cached.group))
    }

    fn bytes(&self) -> usize {
        let groups = self.groups.iter().map(|cached| cached.group.bytes());
        OVERHEAD_BYTES + self.directory.bytes() + groups.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::SlotKind;
    use crate::disk::Disk;
    use crate::key_file::{self, DIRECTORY, Listed, SegmentRecords};
    use crate::memory_disk::MemoryDisk;
    use crate::{Meta, Namespace};

    /// A segment of keys with the hashes that follow from their numbers.
    struct Keys;

    const KEYS: u32 = 2000;

    impl SegmentRecords for Keys {
        fn for_each(&self, each: &mut dyn FnMut(Listed<'_>)) {
            (0..KEYS).for_each(|n| each(self.at(64 + n * 64)));
        }

        fn at(&self, offset: u32) -> Listed<'_> {
            Listed {
                offset,
                size_class: 0,
                kind: SlotKind::Root,
                namespace: Namespace(0),
                meta: Meta::default(),
                large: false,
                key: b"a key of some length",
            }
        }

        fn prefetch(&self, _offset: u32) {}

        fn hash(&self, record: &Listed<'_>) -> u64 {
            u64::from(record.offset).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        }
    }

    /// The directory and all groups of a key file.
    fn parts(disk: &MemoryDisk, file_id: u64) -> (Arc<KeyDirectory>, Vec<Arc<KeyGroup>>) {
        key_file::write(disk, file_id, &Keys).expect("a disk in memory has room");
        let bytes = disk.content(&key_file::file_name(file_id));
        disk.remove(&key_file::file_name(file_id))
            .expect("it is there");
        let part = |place: Range<u64>| &bytes[place.start as usize..place.end as usize];
        let directory = KeyDirectory::decode(file_id, part(DIRECTORY)).ok();
        let directory = directory.expect("it is sound");
        let groups = directory.groups(&(0..=u64::MAX)).map(|group| {
            let group = directory.decode_group(group, part(directory.place(group)));
            Arc::new(group.ok().expect("it is sound"))
        });
        let groups = groups.collect();
        (Arc::new(directory), groups)
    }

    #[test]
    fn it_never_takes_more_than_its_share_and_has_what_was_kept_last() {
        let disk = MemoryDisk::default();
        let (directory, groups) = parts(&disk, 7);
        assert!(groups.len() > GROUPS_PER_FILE + 2);
        let memory = 4 << 20;
        let cache = KeyCache::new(memory);
        for file_id in 0..100 {
            cache.keep_directory(file_id, &directory);
            for (number, group) in (0..).zip(&groups) {
                cache.keep_group(file_id, number, group);
                assert!(cache.bytes() <= memory / SHARE);
            }
        }
        let files = cache.files.lock();
        let bytes: usize = files.list.iter().map(CachedFile::bytes).sum();
        assert_eq!(bytes as u64, cache.bytes());
        assert!(files.list.len() > 10 && files.places.len() == files.list.len());
        drop(files);
        cache.set_memory(0);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn it_answers_only_with_all_groups_of_a_range() {
        let disk = MemoryDisk::default();
        let (directory, groups) = parts(&disk, 7);
        let cache = KeyCache::new(1 << 30);
        let all = 0..=u64::MAX;
        assert!(cache.groups(7, &all).is_none());
        cache.keep_directory(7, &directory);
        assert!(cache.groups(7, &all).is_none());
        cache.keep_group(7, 3, &groups[3]);
        let only = directory.only_in(3);
        let inside = u64::from(only.start) << 32..=(u64::from(only.end) << 32) - 1;
        let found = cache.groups(7, &inside).expect("it is kept");
        assert!(found.len() == 1 && Arc::ptr_eq(&found[0], &groups[3]));
        let beyond = u64::from(only.start) << 32..=u64::from(only.end) << 32;
        assert!(cache.groups(7, &beyond).is_none());
        // Two iterations may have their cursors in neighbouring groups, if the one in front came first.
        cache.keep_group(7, 4, &groups[4]);
        cache.keep_group(7, 3, &groups[3]);
        let found = cache.groups(7, &beyond).expect("both are kept");
        assert!(Arc::ptr_eq(&found[0], &groups[3]) && Arc::ptr_eq(&found[1], &groups[4]));
    }
}
