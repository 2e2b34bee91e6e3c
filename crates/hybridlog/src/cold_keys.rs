//! The keys of cold records, from the key files of their segments: for iterations, which must not read the values.
//!
//! A step that goes on where another has ended finds them in a window, for which they were read ahead. What is in none (a
//! segment has gone cold since, or the step is alone) is looked for in the key file of its segment.

use std::collections::{HashMap, HashSet};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::Stop;

use crate::address::Slot;
use crate::block::Fault;
use crate::index::Index;
use crate::key_file::{DIRECTORY, KeyDirectory, KeyEntry, KeyGroup};
use crate::key_window::KeyWindow;
use crate::open_files::FileKind;
use crate::operation::Operation;
use crate::reads::KnownPart;
use crate::segment::{Segment, State};
use crate::shared::Shared;

/// The key blocks that the key of a slot is in: one group, but where the range of hashes ends in another.
pub(crate) struct ColdKey {
    offset: u32,
    groups: SmallVec<[Arc<KeyGroup>; 1]>,
}

impl ColdKey {
    /// The key; `None` if it is so long that it is not in one block.
    pub(crate) fn entry(&self) -> Option<KeyEntry<'_>> {
        self.groups.iter().find_map(|group| group.find(self.offset))
    }
}

/// All results if there is no error among them, else the last error; every result is asked for, so that what has to be fetched
/// for any of them is fetched together.
pub(crate) fn all_or_stop<T, C: Default + Extend<T>>(
    results: impl Iterator<Item = Result<T, Stop>>,
) -> Result<C, Stop> {
    let mut all = C::default();
    let mut stop = None;
    for result in results {
        match result {
            Ok(one) => all.extend([one]),
            Err(reason) => stop = Some(reason),
        }
    }
    stop.map_or(Ok(all), Err)
}

/// What was fetched of a key file, on its way into a window.
struct Part {
    segment: Arc<Segment>,
    /// Neither is there of a file that cannot be read.
    directory: Option<Arc<KeyDirectory>>,
    groups: Range<u32>,
    known: Option<KnownPart>,
}

/// Finds keys in what was fetched of key files; that is looked at once by an operation.
pub(crate) struct ColdKeys<'o, 's, I: Index> {
    operation: &'o Operation<'s, I>,
    directories: HashMap<u64, Arc<KeyDirectory>>,
    groups: HashMap<(u64, u32), Arc<KeyGroup>>,
    /// Of segments that were asked for wide ranges, which group each offset is in; `None` if groups have to be fetched first.
    offsets: HashMap<u64, Option<HashMap<u32, u32>>>,
}

/// A range of hashes that spans more groups than this is wide: an index without an order gives no other.
const GROUPS_NARROW: usize = 4;

/// So many segments are added to a window at a time: it may be as many reads in one submission, and as many blocks in memory.
const SEGMENTS_PER_STEP: usize = 1024;

impl<'o, 's, I: Index> ColdKeys<'o, 's, I> {
    pub(crate) fn new(operation: &'o Operation<'s, I>) -> ColdKeys<'o, 's, I> {
        ColdKeys {
            operation,
            directories: HashMap::new(),
            groups: HashMap::new(),
            offsets: HashMap::new(),
        }
    }

    /// Adds the keys of more segments to a window, before all those of cold slots that a step has met; unless no other has been
    /// cold since the window began.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] if parts of the key files have to be fetched. A segment that cannot be read is not added.
    pub(crate) fn extend(
        &mut self,
        window: &mut Arc<KeyWindow>,
        slots: impl Iterator<Item = Slot>,
    ) -> Result<(), Stop> {
        if window.is_complete() {
            return Ok(());
        }
        let (segments, is_rest) = self.segments_to_add(window, slots);
        let parts = segments
            .into_iter()
            .map(|segment| self.part_for(window, segment));
        let parts: Vec<Part> = all_or_stop(parts)?;
        let extended = Arc::make_mut(window);
        for part in parts {
            self.add(extended, &part);
        }
        extended.sort();
        if is_rest {
            extended.complete();
        }
        self.operation.shared.key_cache.keep_window(window);
        Ok(())
    }

    /// Segments that are cold and not in the window yet, those of the slots first; and whether there is no other.
    fn segments_to_add(
        &self,
        window: &KeyWindow,
        slots: impl Iterator<Item = Slot>,
    ) -> (Vec<Arc<Segment>>, bool) {
        let table = &self.operation.shared.log.table;
        let all = table.all();
        let needed: HashSet<u64> = slots.map(|slot| table.file_id(slot.address())).collect();
        let is_missing = |segment: &Arc<Segment>| {
            !window.covers(segment.file_id) && table.state(segment.number) == State::Cold
        };
        let missing = all.into_iter().filter(is_missing);
        let (mut segments, others): (Vec<_>, Vec<_>) =
            missing.partition(|segment| needed.contains(&segment.file_id));
        segments.extend(others);
        let is_rest = segments.len() <= SEGMENTS_PER_STEP;
        segments.truncate(SEGMENTS_PER_STEP);
        (segments, is_rest)
    }

    /// The part of a segment's key file that has the keys of a window.
    fn part_for(&mut self, window: &KeyWindow, segment: Arc<Segment>) -> Result<Part, Stop> {
        let directory = match self.directory(&segment) {
            Ok(directory) => Some(directory),
            Err(Stop::Cold) => return Err(Stop::Cold),
            Err(_) => None,
        };
        let groups = directory
            .as_ref()
            .map_or(0..0, |directory| directory.groups(window.reversed_hashes()));
        let known = directory
            .as_ref()
            .filter(|_| !groups.is_empty())
            .map(|directory| self.part(&segment, directory.place(&groups)));
        match known {
            Some(KnownPart::Wanted) => Err(Stop::Cold),
            known => Ok(Part {
                segment,
                directory,
                groups,
                known,
            }),
        }
    }

    /// What cannot be read or is damaged is left out: the iteration is told when it comes by one of its keys.
    fn add(&self, window: &mut KeyWindow, part: &Part) {
        let file_id = part.segment.file_id;
        let Some(directory) = &part.directory else {
            return;
        };
        let keys = match &part.known {
            Some(KnownPart::Bytes(buffer, at)) => directory.keys_in(&part.groups, &buffer[*at..]),
            Some(_) => return,
            None => return window.begin_segment(file_id),
        };
        let Ok(keys) = keys else { return };
        window.begin_segment(file_id);
        for entry in keys {
            let hash = self.operation.shared.hash(entry.namespace, entry.key);
            window.push(hash, &entry);
        }
    }

    /// Where the key of a cold slot is, whose hash is one of those, its bits reversed; `None` if the segment has gone.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] if parts of the key file have to be fetched, [`Stop::Io`].
    pub(crate) fn find(
        &mut self,
        slot: Slot,
        reversed_hashes: RangeInclusive<u64>,
    ) -> Result<Option<ColdKey>, Stop> {
        let Shared { log, .. } = self.operation.shared;
        let offset = log.geometry.offset(slot.address()) as u32;
        let Some(segment) = log.table.segment(slot.address()) else {
            return Ok(None);
        };
        let directory = self.directory(&segment)?;
        let mut groups = directory.groups(&reversed_hashes);
        if groups.len() > GROUPS_NARROW {
            let group = self.group_of(&segment, &directory, groups, offset)?;
            groups = group.map_or(0..0, |group| group..group + 1);
        }
        let groups = groups.map(|group| self.group(&segment, &directory, group));
        let groups = all_or_stop(groups)?;
        Ok(Some(ColdKey { offset, groups }))
    }

    /// Which of many groups has the key of the record at `offset`.
    fn group_of(
        &mut self,
        segment: &Arc<Segment>,
        directory: &KeyDirectory,
        groups: Range<u32>,
        offset: u32,
    ) -> Result<Option<u32>, Stop> {
        if let Some(offsets) = self.offsets.get(&segment.file_id) {
            let offsets = offsets.as_ref().ok_or(Stop::Cold)?;
            return Ok(offsets.get(&offset).copied());
        }
        self.offsets.insert(segment.file_id, None);
        let all = groups
            .clone()
            .map(|group| self.group(segment, directory, group));
        let all: Vec<_> = all_or_stop(all)?;
        let mut offsets = HashMap::new();
        for (number, group) in groups.zip(all) {
            group.for_each_offset(|offset| {
                offsets.insert(offset, number);
            });
        }
        let group = offsets.get(&offset).copied();
        self.offsets.insert(segment.file_id, Some(offsets));
        Ok(group)
    }

    fn directory(&mut self, segment: &Arc<Segment>) -> Result<Arc<KeyDirectory>, Stop> {
        let (cache, file_id) = (&self.operation.shared.key_cache, segment.file_id);
        if let Some(directory) = self.directories.get(&file_id) {
            return Ok(directory.clone());
        }
        let directory = match cache.directory(file_id) {
            Some(directory) => directory,
            None => {
                let decode = |bytes: &[u8]| KeyDirectory::decode(file_id, bytes);
                let directory = Arc::new(self.read(segment, DIRECTORY, decode)?);
                cache.keep_directory(file_id, &directory);
                directory
            }
        };
        self.directories.insert(file_id, directory.clone());
        Ok(directory)
    }

    fn group(
        &mut self,
        segment: &Arc<Segment>,
        directory: &KeyDirectory,
        number: u32,
    ) -> Result<Arc<KeyGroup>, Stop> {
        let file_id = segment.file_id;
        if let Some(group) = self.groups.get(&(file_id, number)) {
            return Ok(group.clone());
        }
        let decode = |bytes: &[u8]| directory.decode_group(number, bytes);
        let place = directory.place(&(number..number + 1));
        let group = Arc::new(self.read(segment, place, decode)?);
        self.groups.insert((file_id, number), group.clone());
        Ok(group)
    }

    /// What was fetched of a key file.
    fn read<T>(
        &self,
        segment: &Arc<Segment>,
        place: Range<u64>,
        decode: impl FnOnce(&[u8]) -> Result<T, Fault>,
    ) -> Result<T, Stop> {
        match self.part(segment, place) {
            KnownPart::Bytes(buffer, at) => decode(&buffer[at..]).map_err(|fault| {
                let files = &self.operation.shared.open_files;
                Stop::Io(fault.in_file(files.path(segment.file_id, FileKind::Keys)))
            }),
            KnownPart::Failed(error) => Err(Stop::Io(error)),
            KnownPart::Wanted => Err(Stop::Cold),
        }
    }

    fn part(&self, segment: &Arc<Segment>, place: Range<u64>) -> KnownPart {
        let files = &self.operation.shared.open_files;
        self.operation.reads.part_of_keys(segment, place, files)
    }
}
