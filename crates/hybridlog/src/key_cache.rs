//! What iterations keep in memory of key files from one step to the next: where the keys are in them, and the keys that they are
//! about to come by.
//!
//! An iteration that goes on from where a step has ended gets a window of keys (`key_window`), several times as wide as what it
//! has walked over before, up to what there is memory for. One that looks at one place alone gets none.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::key_file::KeyDirectory;
use crate::key_window::KeyWindow;
use crate::reads::IdHasher;

/// Of the memory the cache takes at most this part.
const SHARE: u64 = 16;
/// The most that pays.
const BYTES_MAX: u64 = 64 << 20;
/// Of the cache, directories take at most this part.
const DIRECTORIES_SHARE: usize = 2;
/// However many iterations there are, a window may take this part of the cache.
const WINDOW_SHARE_MIN: usize = 8;
/// What a directory takes beside itself: in the map, in the list, and counted references.
const OVERHEAD_BYTES: usize = 96;
/// A window is so many times as wide as what was walked over before.
const GROWTH: u64 = 4;
/// Of each segment a window has about so many keys, which with short keys are half a block: more would hardly save reads, and
/// take the step that makes the window longer.
const KEYS_PER_SEGMENT: usize = 96;
/// So many iterations are remembered that have a window, and so many that have none.
const ITERATIONS: usize = 64;

pub(crate) struct KeyCache {
    bytes_max: AtomicUsize,
    directory_bytes: AtomicUsize,
    window_bytes: AtomicUsize,
    directories: Mutex<Directories>,
    windows: Mutex<Windows>,
}

#[derive(Default)]
struct Directories {
    /// Where in `list` a file is.
    places: HashMap<u64, usize, BuildHasherDefault<IdHasher>>,
    list: Vec<(u64, Arc<KeyDirectory>)>,
    random: u64,
}

#[derive(Default)]
struct Windows {
    /// The one that was used last at the end.
    list: Vec<Arc<KeyWindow>>,
    /// Those that have no window yet, the one that went on last at the end.
    walks: VecDeque<Walked>,
}

/// What an iteration has walked over, up to where it is now.
#[derive(Clone, Copy)]
pub(crate) struct Walked {
    /// Of the hashes, their bits reversed.
    first: u64,
    last: u64,
    keys: usize,
    /// What it takes to keep the keys in memory, about.
    bytes: usize,
}

impl Walked {
    /// A step over so many keys, whose hashes are these, their bits reversed.
    pub(crate) fn step(reversed_hashes: RangeInclusive<u64>, keys: usize) -> Walked {
        /// With a key of the usual length.
        const KEY_BYTES: usize = 64;
        Walked {
            first: *reversed_hashes.start(),
            last: *reversed_hashes.end(),
            keys,
            bytes: keys * KEY_BYTES,
        }
    }

    fn window(window: &KeyWindow) -> Walked {
        Walked {
            first: *window.reversed_hashes().start(),
            last: *window.reversed_hashes().end(),
            keys: window.keys(),
            bytes: window.bytes(),
        }
    }

    fn and(self, next: Walked) -> Walked {
        Walked {
            first: self.first,
            last: next.last,
            keys: self.keys + next.keys,
            bytes: self.bytes + next.bytes,
        }
    }

    fn is_before(&self, position: u64) -> bool {
        self.last.checked_add(1) == Some(position)
    }

    /// What follows, of so many keys that take so much memory.
    fn next(&self, keys_max: usize, bytes_max: usize) -> Option<RangeInclusive<u64>> {
        let first = self.last.checked_add(1)?;
        let width = (self.last - self.first).saturating_add(1);
        let part = |most: usize, of: usize| u128::from(width) * most as u128 / of.max(1) as u128;
        let fits = part(keys_max, self.keys).min(part(bytes_max, self.bytes));
        let wanted = fits.min(u128::from(width.saturating_mul(GROWTH))) as u64;
        let Some(end) = first.checked_add(wanted.max(1)) else {
            return Some(first..=u64::MAX);
        };
        // Buckets of the index begin at multiples of their width, a power of two, and what was walked over is at least one:
        // so none lies across the end, unless there is memory for less.
        let alignment = 1 << wanted.clamp(1, width).ilog2();
        let end = (end & !(alignment - 1)).max(first + 1);
        Some(first..=end - 1)
    }
}

impl KeyCache {
    /// A cache for a store with so much memory.
    pub(crate) fn new(memory_bytes: u64) -> KeyCache {
        let cache = KeyCache {
            bytes_max: AtomicUsize::new(0),
            directory_bytes: AtomicUsize::new(0),
            window_bytes: AtomicUsize::new(0),
            directories: Mutex::default(),
            windows: Mutex::default(),
        };
        cache.set_memory(memory_bytes);
        cache
    }

    /// The store has so much memory from now on.
    pub(crate) fn set_memory(&self, memory_bytes: u64) {
        let bytes_max = (memory_bytes / SHARE).min(BYTES_MAX) as usize;
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.shrink_directories(&mut self.directories.lock());
        self.shrink_windows(&mut self.windows.lock());
    }

    /// Memory it takes now.
    pub(crate) fn bytes(&self) -> u64 {
        (self.directory_bytes.load(Ordering::Relaxed) + self.window_bytes.load(Ordering::Relaxed))
            as u64
    }

    pub(crate) fn directory(&self, file_id: u64) -> Option<Arc<KeyDirectory>> {
        let directories = self.directories.lock();
        let (_, directory) = &directories.list[*directories.places.get(&file_id)?];
        Some(directory.clone())
    }

    pub(crate) fn keep_directory(&self, file_id: u64, directory: &Arc<KeyDirectory>) {
        let mut directories = self.directories.lock();
        if directories.places.contains_key(&file_id) {
            return;
        }
        let place = directories.list.len();
        directories.list.push((file_id, directory.clone()));
        directories.places.insert(file_id, place);
        self.directory_bytes
            .fetch_add(OVERHEAD_BYTES + directory.bytes(), Ordering::Relaxed);
        self.shrink_directories(&mut directories);
        drop(directories);
        // What directories take is not there for windows.
        self.shrink_windows(&mut self.windows.lock());
    }

    fn shrink_directories(&self, directories: &mut Directories) {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed) / DIRECTORIES_SHARE;
        while self.directory_bytes.load(Ordering::Relaxed) > bytes_max
            && let Some(directory) = directories.remove_any()
        {
            self.directory_bytes
                .fetch_sub(OVERHEAD_BYTES + directory.bytes(), Ordering::Relaxed);
        }
    }

    /// The window for a step that begins at `position`, with `segments` on the device: one that is kept; or the next, of no
    /// segment yet, if the step goes on where others have ended that were worth a read of each segment.
    pub(crate) fn window(&self, position: u64, segments: usize) -> Option<Arc<KeyWindow>> {
        let mut windows = self.windows.lock();
        let is_in = |window: &Arc<KeyWindow>| window.reversed_hashes().contains(&position);
        if let Some(at) = windows.list.iter().position(is_in) {
            let window = windows.list.remove(at);
            windows.list.push(window.clone());
            return Some(window);
        }
        let walked = windows.walked_before(position)?;
        if walked.keys.saturating_mul(GROWTH as usize) < segments {
            return None;
        }
        let bytes_max = self.windows_max();
        let others = windows
            .list
            .iter()
            .map(|window| match window.is_before(position) {
                true => 0,
                false => window.bytes(),
            });
        let left = bytes_max.saturating_sub(others.sum());
        let range = walked.next(
            segments.saturating_mul(KEYS_PER_SEGMENT),
            left.max(bytes_max / WINDOW_SHARE_MIN),
        )?;
        Some(Arc::new(KeyWindow::new(range)))
    }

    fn windows_max(&self) -> usize {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        bytes_max.saturating_sub(self.directory_bytes.load(Ordering::Relaxed))
    }

    /// Keeps a window, in the place of the one before it: the iteration has that behind it.
    pub(crate) fn keep_window(&self, window: &Arc<KeyWindow>) {
        let mut windows = self.windows.lock();
        let first = *window.reversed_hashes().start();
        windows.list.retain(|other| {
            !other.is_before(first) && other.reversed_hashes() != window.reversed_hashes()
        });
        windows.list.push(window.clone());
        self.shrink_windows(&mut windows);
    }

    /// A step has been taken for which there was no window.
    pub(crate) fn walked(&self, step: Walked) {
        let mut windows = self.windows.lock();
        let walk = windows
            .walks
            .iter()
            .position(|walk| walk.is_before(step.first));
        let before = walk.and_then(|walk| windows.walks.remove(walk));
        if windows.walks.len() == ITERATIONS {
            windows.walks.pop_front();
        }
        windows
            .walks
            .push_back(before.map_or(step, |before| before.and(step)));
    }

    /// The iteration that needed the window has reached the end.
    pub(crate) fn drop_window(&self, window: &KeyWindow) {
        let mut windows = self.windows.lock();
        let is_other = |other: &Arc<KeyWindow>| other.reversed_hashes() != window.reversed_hashes();
        windows.list.retain(is_other);
        self.shrink_windows(&mut windows);
    }

    fn shrink_windows(&self, windows: &mut Windows) {
        let bytes_max = self.windows_max();
        let mut bytes: usize = windows.list.iter().map(|window| window.bytes()).sum();
        while bytes > bytes_max || windows.list.len() > ITERATIONS {
            bytes -= windows.list.remove(0).bytes();
        }
        self.window_bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Directories {
    /// What was used longest ago is not what will be needed last, since an iteration goes round all files: any will do.
    fn remove_any(&mut self) -> Option<Arc<KeyDirectory>> {
        if self.list.is_empty() {
            return None;
        }
        // Any sequence that has nothing to do with the order of use: Knuth's MMIX constants.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let place = (self.random >> 33) as usize % self.list.len();
        let (file_id, directory) = self.list.swap_remove(place);
        self.places.remove(&file_id);
        if let Some((moved, _)) = self.list.get(place) {
            self.places.insert(*moved, place);
        }
        Some(directory)
    }
}

impl Windows {
    /// What was walked over before `position`, up to it.
    fn walked_before(&self, position: u64) -> Option<Walked> {
        if let Some(window) = self.list.iter().find(|window| window.is_before(position)) {
            return Some(Walked::window(window));
        }
        let mut walks = self.walks.iter().rev();
        walks.find(|walk| walk.is_before(position)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::SlotKind;
    use crate::disk::Disk;
    use crate::key_file::{self, DIRECTORY, KeyEntry, Listed, SegmentRecords};
    use crate::memory_disk::MemoryDisk;
    use crate::{Meta, Namespace};

    /// A segment of keys with the hashes that follow from their numbers.
    struct Keys;

    impl SegmentRecords for Keys {
        fn for_each(&self, each: &mut dyn FnMut(Listed<'_>)) {
            (0..2000).for_each(|n| each(self.at(64 + n * 64)));
        }

        fn at(&self, offset: u32) -> Listed<'_> {
            Listed {
                offset,
                size_class: 0,
                kind: SlotKind::Root,
                namespace: Namespace(0),
                meta: Meta::default(),
                large: false,
                look_at_ms: None,
                key: b"a key of some length",
            }
        }

        fn prefetch(&self, _offset: u32) {}

        fn hash(&self, record: &Listed<'_>) -> u64 {
            u64::from(record.offset).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        }
    }

    fn directory(disk: &MemoryDisk, file_id: u64) -> Arc<KeyDirectory> {
        key_file::write(disk, file_id, &Keys).expect("a disk in memory has room");
        let bytes = disk.content(&key_file::file_name(file_id));
        disk.remove(&key_file::file_name(file_id))
            .expect("it is there");
        let header = &bytes[DIRECTORY.start as usize..DIRECTORY.end as usize];
        Arc::new(KeyDirectory::decode(file_id, header).ok().expect("sound"))
    }

    /// `window` with as many keys as its part of all hashes, of `all`.
    fn filled(window: &KeyWindow, all: usize) -> Arc<KeyWindow> {
        let mut window = window.clone();
        window.begin_segment(1);
        let range = window.reversed_hashes().clone();
        let gap = u64::MAX / all as u64;
        for at in (range.start().next_multiple_of(gap)..=*range.end()).step_by(gap as usize) {
            let entry = KeyEntry {
                offset: 64,
                namespace: Namespace(0),
                meta: Meta::default(),
                large: false,
                key: b"0123456789abcdef",
            };
            window.push(at.reverse_bits(), &entry);
        }
        window.sort();
        window.complete();
        Arc::new(window)
    }

    #[test]
    fn it_never_takes_more_than_its_share() {
        let disk = MemoryDisk::default();
        let memory = 4 << 20;
        let cache = KeyCache::new(memory);
        let mut position = 1 << 54;
        for file_id in 0..2000 {
            cache.keep_directory(file_id, &directory(&disk, file_id));
            assert!(cache.bytes() <= memory / SHARE);
            if file_id % 50 == 0 {
                // The window before it may have had to make place for directories.
                cache.walked(Walked::step(position - (1 << 54)..=position - 1, 1000));
                let window = cache.window(position, 100).expect("it goes on");
                cache.keep_window(&filled(&window, 1 << 20));
                assert!(cache.bytes() <= memory / SHARE);
                position = window.reversed_hashes().end() + 1;
            }
        }
        assert!(cache.bytes() > memory / SHARE / 2);
        cache.set_memory(0);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn an_iteration_that_goes_on_gets_wider_windows_and_holds_one() {
        const KEYS: usize = 1 << 20;
        let cache = KeyCache::new(1 << 30);
        let width = 1 << 50;
        assert!(cache.window(0, 100).is_none(), "nothing was walked over");
        // Steps of 64 keys each. With so many segments four of them are not worth a read of each.
        for step in 0..4 {
            assert!(cache.window(step * width, 1000).is_none());
            cache.walked(Walked::step(step * width..=(step + 1) * width - 1, 64));
        }
        let mut position = 4 * width;
        assert!(
            cache.window(position + 1, 1000).is_none(),
            "that is elsewhere"
        );
        let mut walked = 4 * width;
        for _ in 0..3 {
            let window = cache.window(position, 1000).expect("it goes on");
            assert_eq!(*window.reversed_hashes().start(), position);
            let window_width = window.reversed_hashes().end() - position + 1;
            // The end is rounded to where buckets begin.
            let widths = walked * (GROWTH - 1) + 1..=walked * GROWTH;
            assert!(widths.contains(&window_width), "{window_width}");
            let window = filled(&window, KEYS);
            cache.keep_window(&window);
            assert_eq!(cache.bytes(), window.bytes() as u64, "it holds one");
            let again = cache.window(position + window_width / 2, 1000);
            assert!(Arc::ptr_eq(&again.expect("it is kept"), &window));
            (position, walked) = (position + window_width, window_width);
        }
        // No wider than what pays.
        let window = cache.window(position, 10).expect("it goes on");
        let keys = filled(&window, KEYS).keys();
        assert!((1..=10 * KEYS_PER_SEGMENT).contains(&keys), "{keys} keys");
    }

    #[test]
    fn an_iteration_at_its_end_gives_the_memory_back() {
        let cache = KeyCache::new(1 << 30);
        cache.walked(Walked::step(0..=u64::MAX / 2, 1000));
        let window = cache.window(1 << 63, 100).expect("it goes on");
        assert_eq!(*window.reversed_hashes().end(), u64::MAX);
        cache.keep_window(&filled(&window, 1 << 16));
        assert!(cache.bytes() > 0);
        cache.drop_window(&window);
        assert_eq!(cache.bytes(), 0);
    }
}
