//! The keys of cold records, from the key files of their segments: for iterations, which must not read the values.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::Stop;
use crate::address::Slot;
use crate::block::Fault;
use crate::index::Index;
use crate::key_cache::KeyGroups;
use crate::key_file::{DIRECTORY, KeyDirectory, KeyEntry, KeyGroup};
use crate::open_files::FileKind;
use crate::operation::Operation;
use crate::reads::KnownPart;
use crate::segment::Segment;
use crate::shared::Shared;

/// The key blocks that the key of a slot is in: one group, but where the range of hashes ends in another.
pub(crate) struct ColdKey {
    offset: u32,
    groups: KeyGroups,
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

/// Finds keys in the cache of key files, and in what was fetched of them: that is looked at once by an operation, whether it
/// stays in the cache or not.
pub(crate) struct ColdKeys<'o, 's, I: Index> {
    operation: &'o Operation<'s, I>,
    directories: HashMap<u64, Arc<KeyDirectory>>,
    groups: HashMap<(u64, u32), Arc<KeyGroup>>,
    /// Of segments that were asked for wide ranges, which group each offset is in; `None` if groups have to be fetched first.
    offsets: HashMap<u64, Option<HashMap<u32, u32>>>,
}

/// A range of hashes that spans more groups than this is wide: an index without an order gives no other.
const GROUPS_NARROW: usize = 4;

impl<'o, 's, I: Index> ColdKeys<'o, 's, I> {
    pub(crate) fn new(operation: &'o Operation<'s, I>) -> ColdKeys<'o, 's, I> {
        ColdKeys {
            operation,
            directories: HashMap::new(),
            groups: HashMap::new(),
            offsets: HashMap::new(),
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
        let Shared { log, key_cache, .. } = self.operation.shared;
        let offset = log.geometry.offset(slot.address()) as u32;
        let file_id = log.table.file_id(slot.address());
        if let Some(groups) = key_cache.groups(file_id, &reversed_hashes) {
            groups.iter().for_each(|group| group.prefetch());
            return Ok(Some(ColdKey { offset, groups }));
        }
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
        let (cache, file_id) = (&self.operation.shared.key_cache, segment.file_id);
        if let Some(group) = self.groups.get(&(file_id, number)) {
            return Ok(group.clone());
        }
        let group = match cache.group(file_id, number) {
            Some(group) => group,
            None => {
                let decode = |bytes: &[u8]| directory.decode_group(number, bytes);
                let group = Arc::new(self.read(segment, directory.place(number), decode)?);
                cache.keep_group(file_id, number, &group);
                group
            }
        };
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
        let files = &self.operation.shared.open_files;
        match self.operation.reads.part_of_keys(segment, place, files) {
            KnownPart::Bytes(buffer, at) => decode(&buffer[at..]).map_err(|fault| {
                Stop::Io(fault.in_file(files.path(segment.file_id, FileKind::Keys)))
            }),
            KnownPart::Failed(error) => Err(Stop::Io(error)),
            KnownPart::Wanted => Err(Stop::Cold),
        }
    }
}
