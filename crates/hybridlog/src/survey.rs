//! What is left of a segment, record by record, and all that is wrong with its files: for those who check a data directory,
//! or rebuild one. Nothing is changed.
//!
//! A record is sound if it is whole, its CRC is right and the key file, where that is sound, says the same of it. The key file
//! tells where records begin. Where it is damaged they are found one behind the other, as far as each is sound; what lies
//! behind an unsound one is found again only where a sound part of the list names a place. Values are never searched for
//! something that looks like a record: they may hold anything.

use std::cmp::Ordering;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use crate::address::{RECORD_ALIGN, SlotKind, size_class};
use crate::damage::Damage;
use crate::disk::Disk;
use crate::key_file::{self, ExpiryPosition, KeyFile, RecoveryRecord};
use crate::large::owns_pages;
use crate::readable::read_readable;
use crate::record::{Decoded, HEADER_BYTES, RecordRef, decode, flag};
use crate::segment::{self, SEGMENT_HEADER_BYTES};
use crate::shared::{key_hash, page_hash};
use crate::store::SEGMENT_BYTES;
use crate::tiering::segment_file_name;
use crate::tree::look_at_ms;

/// Entries of an expiry column that are compared at a time.
const EXPIRING_AT_ONCE: usize = 64 * 1024;

/// What was to be found.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) file_id: u64,
    /// If the manifest tells it; else the file's header does.
    pub(crate) segment_bytes: Option<u32>,
    /// The hash seed, if it is known.
    pub(crate) seed: Option<u64>,
    /// How many records the manifest says there are.
    pub(crate) records: Option<u32>,
}

/// What is left of a segment.
pub(crate) struct Survey {
    bytes: Option<Aligned>,
    pub(crate) segment_bytes: usize,
    /// The sound records, in ascending order of their offsets; no fillers, no void ones.
    pub(crate) sound: Vec<RecoveryRecord>,
    /// Listed records that are not sound.
    pub(crate) lost: Vec<RecoveryRecord>,
    /// Whether every record that there was is in one of the lists.
    pub(crate) is_complete: bool,
    /// All that is wrong with the segment's files; nothing: it is as it was written.
    pub(crate) damages: Vec<Damage>,
}

/// Bytes that begin at a multiple of 8, as records do.
struct Aligned {
    bytes: Vec<u8>,
    skip: usize,
}

impl Aligned {
    fn zeroed(len: usize) -> Aligned {
        let bytes = vec![0; len + RECORD_ALIGN];
        let skip = bytes.as_ptr().align_offset(RECORD_ALIGN);
        let mut aligned = Aligned { bytes, skip };
        aligned.truncate(len);
        aligned
    }

    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.skip + len);
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.skip..]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.skip..]
    }
}

/// Hash and kind of the slot that a record has.
pub(crate) fn hash_of(seed: u64, record: &RecordRef<'_>) -> (u64, SlotKind) {
    if record.flags() & flag::PAGE != 0
        && let Ok(key) = record.key().try_into()
    {
        return (page_hash(seed, key), SlotKind::Page);
    }
    let hash = key_hash(seed, record.namespace(), record.key());
    (hash, SlotKind::Root)
}

/// Reads both files of a segment and compares them. Takes memory for the segment and 16 bytes a record.
pub(crate) fn survey(disk: &dyn Disk, expected: Expected) -> Survey {
    let mut survey = Survey {
        bytes: None,
        segment_bytes: expected.segment_bytes.unwrap_or(0) as usize,
        sound: Vec::new(),
        lost: Vec::new(),
        is_complete: false,
        damages: Vec::new(),
    };
    survey.read_segment(disk, &expected);
    match KeyFile::open(disk, expected.file_id) {
        Ok(file) => survey.compare(disk, &expected, &file),
        Err(error) => {
            let path = disk.path(&key_file::file_name(expected.file_id));
            survey.note(path, error);
            survey.walk(disk, &expected, &[]);
        }
    }
    survey
}

impl Survey {
    /// A record that is sound.
    pub(crate) fn record(&self, offset: u32) -> Option<RecordRef<'_>> {
        self.decoded(offset as usize).ok()
    }

    /// Bytes that a sound record takes.
    pub(crate) fn record_bytes(&self, offset: u32) -> Option<&[u8]> {
        let bytes = self.record(offset)?.record_bytes();
        self.bytes
            .as_ref()?
            .get(offset as usize..offset as usize + bytes)
    }

    fn decoded(&self, offset: usize) -> Result<RecordRef<'_>, &'static str> {
        let bytes = self.bytes.as_deref().unwrap_or(&[]);
        let rest = bytes.get(offset..).unwrap_or(&[]);
        if rest.len() < HEADER_BYTES {
            return Err("the file ends before the record");
        }
        match decode(rest, self.segment_bytes.saturating_sub(offset)) {
            Decoded::Record(record) => Ok(record),
            Decoded::Longer(_) => Err("the file ends within the record"),
            Decoded::Damaged(why) => Err(why),
        }
    }

    /// Length of the filler at `offset`, if one is there.
    fn filler_bytes(&self, offset: usize) -> Option<usize> {
        let header = self.bytes.as_deref()?.get(offset..offset + RECORD_ALIGN)?;
        if header[6] & flag::FILLER == 0 {
            return None;
        }
        let after = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        Some(match header[7] {
            1 => RECORD_ALIGN,
            _ => HEADER_BYTES + after as usize,
        })
    }

    fn damaged(&mut self, file: PathBuf, offset: u64, what: impl Into<String>) {
        let what = what.into();
        self.damages.push(Damage { file, offset, what });
    }

    fn note(&mut self, file: PathBuf, error: io::Error) {
        match Damage::of(&error) {
            Some(damage) => self.damages.push(damage.clone()),
            None if error.kind() == io::ErrorKind::NotFound => {
                self.damaged(file, 0, "the file is missing");
            }
            None => self.damaged(file, 0, error.to_string()),
        }
    }

    /// Reads the segment's file, as much of it as there is and the device gives.
    fn read_segment(&mut self, disk: &dyn Disk, expected: &Expected) {
        let name = segment_file_name(expected.file_id);
        let path = disk.path(&name);
        let opened = disk.open(&name).and_then(|file| Ok((file.len()?, file)));
        let (len, file) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.note(path, error),
        };
        let most = expected
            .segment_bytes
            .map_or(*SEGMENT_BYTES.end(), |bytes| bytes as usize);
        let mut bytes = Aligned::zeroed(len.min(most as u64) as usize);
        read_readable(&*file, &mut bytes, 0, &mut |offset, error| {
            self.damaged(path.clone(), offset, error.to_string());
        });
        file.drop_cached();
        if expected.segment_bytes.is_none() {
            self.segment_bytes = segment::bytes_of_header(&bytes).unwrap_or(bytes.len());
            // Whatever lies behind the segment is no part of it.
            bytes.truncate(self.segment_bytes);
        }
        let size = self.segment_bytes as u64;
        if len != size {
            let what = format!("the segment has {len} bytes, not {size}");
            self.damaged(path.clone(), len.min(size), what);
        }
        let is_sound = self.segment_bytes.is_power_of_two()
            && bytes.get(..SEGMENT_HEADER_BYTES)
                == Some(&segment::header(self.segment_bytes, expected.file_id)[..]);
        if !is_sound {
            self.damaged(path, 0, "the header of the segment is not what was written");
        }
        self.bytes = Some(bytes);
    }

    /// Compares the segment with its key file.
    fn compare(&mut self, disk: &dyn Disk, expected: &Expected, file: &KeyFile) {
        let (listed, damages) = file.sound_recovery();
        let path = disk.path(&key_file::file_name(expected.file_id));
        if !damages.is_empty() {
            self.damages.extend(damages);
            return self.walk(disk, expected, &listed);
        }
        self.is_complete = true;
        if let Some(records) = expected
            .records
            .filter(|&records| records != file.records())
        {
            let what = format!("lists {} records, the manifest {records}", file.records());
            self.damaged(path.clone(), 24, what);
        }
        let segment_path = disk.path(&segment_file_name(expected.file_id));
        // What lies behind the end of the file has been told of.
        let end = self.bytes.as_deref().map_or(0, <[u8]>::len);
        // Where the last sound record ends.
        let mut free_from = SEGMENT_HEADER_BYTES;
        for record in listed {
            match self.check_record(expected.seed, &record, free_from) {
                Ok(bytes) => {
                    free_from = record.offset as usize + bytes;
                    self.sound.push(record);
                }
                Err(what) => {
                    if (record.offset as usize) < end {
                        self.damaged(segment_path.clone(), u64::from(record.offset), what);
                    }
                    self.lost.push(record);
                }
            }
        }
        if let Err(error) = self.compare_keys(file) {
            self.note(path.clone(), error);
        }
        if let Err(error) = self.compare_expiries(file) {
            self.note(path, error);
        }
        file.drop_cached();
    }

    /// The length of a listed record, if it is what the list says; it must not begin before `free_from`.
    fn check_record(
        &self,
        seed: Option<u64>,
        listed: &RecoveryRecord,
        free_from: usize,
    ) -> Result<usize, &'static str> {
        let record = self.decoded(listed.offset as usize)?;
        let bytes = record.record_bytes();
        if (listed.offset as usize) < free_from {
            return Err("the record begins within the one before it");
        }
        if record.flags() & flag::VOID != 0 {
            return Err("the record is void, and its key file lists it");
        }
        if listed.size_class != size_class(record.flags(), bytes) {
            return Err("the record has another length than its key file lists");
        }
        match seed {
            Some(seed) if hash_of(seed, &record) != (listed.hash, listed.kind) => {
                Err("the record has another key than its key file lists")
            }
            _ => Ok(bytes),
        }
    }

    /// Compares the key blocks with the sound records.
    fn compare_keys(&self, file: &KeyFile) -> io::Result<()> {
        let (mut blocks, mut keys, mut wrong) = (file.keys_from(0), 0, None);
        while blocks.read(|entry| {
            keys += 1;
            let is_same = |record: RecordRef<'_>| {
                record.is(entry.namespace, entry.key)
                    && record.meta() == entry.meta
                    && owns_pages(&record) == entry.large
            };
            if self
                .sound_at(entry.offset)
                .is_some_and(|record| !is_same(record))
            {
                wrong = Some(entry.offset);
            }
        })? {}
        match wrong {
            Some(offset) => Err(file.contradicts("the key blocks", offset)),
            None if keys != file.keys() => Err(file.miscounts("keys", keys, file.keys())),
            None => Ok(()),
        }
    }

    /// Compares the expiry column with the sound records.
    fn compare_expiries(&self, file: &KeyFile) -> io::Result<()> {
        let (mut position, mut next) = (ExpiryPosition::default(), file.next_expiry_ms());
        let (mut expiring, mut wrong) = (0, None);
        while next.is_some() {
            (position, next) = file.expiries(position, u64::MAX, EXPIRING_AT_ONCE, |entry| {
                expiring += 1;
                let at = |record: RecordRef<'_>| look_at_ms(&record);
                let found = self.sound_at(entry.offset).map(at);
                if found.is_some_and(|at| at != Some(entry.expires_at_ms)) {
                    wrong = Some(entry.offset);
                }
            })?;
        }
        match wrong {
            Some(offset) => Err(file.contradicts("the expiry column", offset)),
            None if expiring != file.expiring() => {
                Err(file.miscounts("keys that expire", expiring, file.expiring()))
            }
            None => Ok(()),
        }
    }

    fn sound_at(&self, offset: u32) -> Option<RecordRef<'_>> {
        let found = self
            .sound
            .binary_search_by_key(&offset, |sound| sound.offset);
        found.ok().and_then(|_| self.record(offset))
    }

    /// Finds the records one behind the other; `listed` are places of some, in order.
    fn walk(&mut self, disk: &dyn Disk, expected: &Expected, listed: &[RecoveryRecord]) {
        let path = disk.path(&segment_file_name(expected.file_id));
        let mut places = listed
            .iter()
            .map(|record| record.offset as usize)
            .peekable();
        let mut offset = SEGMENT_HEADER_BYTES;
        self.is_complete = self.bytes.is_some();
        while self.bytes.is_some() && offset < self.segment_bytes {
            while places.next_if(|place| *place <= offset).is_some() {}
            if let Some(bytes) = self.filler_bytes(offset) {
                let next = places.peek().copied().unwrap_or(usize::MAX);
                // What the filler covers is nothing, or it is no filler.
                offset = match (offset + bytes).cmp(&next) {
                    Ordering::Greater if next != usize::MAX => next,
                    _ => offset + bytes,
                };
                continue;
            }
            match self.walked(expected.seed, offset) {
                Ok((record, bytes)) => {
                    self.sound.extend(record);
                    offset += bytes;
                }
                Err(what) => {
                    self.is_complete = false;
                    self.damaged(path.clone(), offset as u64, what);
                    // Whatever is there, the next place that is known is the next that is looked at.
                    offset = places.next().unwrap_or(self.segment_bytes);
                }
            }
        }
        let found = |place: u32| {
            self.sound
                .binary_search_by_key(&place, |sound| sound.offset)
                .is_ok()
        };
        let lost = listed.iter().filter(|record| !found(record.offset));
        self.lost = lost.copied().collect();
    }

    /// The record at `offset`, `None` if it is void, and its length.
    fn walked(
        &self,
        seed: Option<u64>,
        offset: usize,
    ) -> Result<(Option<RecoveryRecord>, usize), &'static str> {
        let record = self.decoded(offset)?;
        let bytes = record.record_bytes();
        let (hash, kind) = hash_of(seed.unwrap_or(0), &record);
        let found = RecoveryRecord {
            hash,
            offset: offset as u32,
            size_class: size_class(record.flags(), bytes),
            kind,
        };
        let is_void = record.flags() & flag::VOID != 0;
        Ok(((!is_void).then_some(found), bytes))
    }
}

/// The last part of a path.
pub(crate) fn name_of(path: &std::path::Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
