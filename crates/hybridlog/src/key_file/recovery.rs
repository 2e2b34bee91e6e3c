//! The recovery column: all records of a segment, as the index knows them.

use std::io;
use std::ops::Range;

use super::KeyFile;
use crate::address::{RECORD_ALIGN, SlotKind};
use crate::block::{BLOCK_BYTES, PAYLOAD_BYTES};
use crate::damage::Damage;
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::store::SEGMENT_BYTES;

const RECORD_BYTES: usize = 12;
pub(super) const RECORDS_PER_BLOCK: u32 = (PAYLOAD_BYTES / RECORD_BYTES) as u32;
/// Blocks that are read at once: 256 KiB.
const BLOCKS_PER_READ: u32 = 64;

const OFFSET_BITS: u32 = 24;
const PAGE_BIT: u32 = 1 << 27;
const PLACE_BITS: u32 = 28;

/// A record as the recovery column lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecoveryRecord {
    pub(crate) hash: u64,
    /// In bytes from the start of the segment.
    pub(crate) offset: u32,
    pub(crate) size_class: u8,
    pub(crate) kind: SlotKind,
}

impl RecoveryRecord {
    pub(super) fn encode(&self) -> [u8; RECORD_BYTES] {
        let page = match self.kind {
            SlotKind::Root => 0,
            SlotKind::Page => PAGE_BIT,
        };
        let units = self.offset / RECORD_ALIGN as u32;
        let place = units | u32::from(self.size_class) << OFFSET_BITS | page;
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.hash.to_le_bytes());
        bytes[8..].copy_from_slice(&place.to_le_bytes());
        bytes
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Option<RecoveryRecord> {
        let hash = u64::from_le_bytes(*bytes.first_chunk()?);
        let place = u32::from_le_bytes(*bytes.last_chunk()?);
        let offset = (place & ((1 << OFFSET_BITS) - 1)) * RECORD_ALIGN as u32;
        let is_sound = place >> PLACE_BITS == 0
            && (SEGMENT_HEADER_BYTES..*SEGMENT_BYTES.end()).contains(&(offset as usize));
        is_sound.then_some(RecoveryRecord {
            hash,
            offset,
            size_class: (place >> OFFSET_BITS & 7) as u8,
            kind: match place & PAGE_BIT {
                0 => SlotKind::Root,
                _ => SlotKind::Page,
            },
        })
    }
}

impl KeyFile {
    /// All records of the segment, in ascending order of their offsets.
    pub(crate) fn recovery(&self) -> RecoveryColumn<'_> {
        self.recovery_behind(0)
    }

    /// As [`Self::recovery`], for one who has read so many records of it before.
    pub(crate) fn recovery_behind(&self, records: u32) -> RecoveryColumn<'_> {
        debug_assert!(records == self.header.records || records.is_multiple_of(RECORDS_PER_BLOCK));
        let mut blocks = self.header.recovery();
        blocks.start += records.div_ceil(RECORDS_PER_BLOCK);
        RecoveryColumn {
            file: self,
            blocks,
            left: self.header.records - records,
            offset: 0,
            buffer: Vec::new(),
        }
    }
}

impl KeyFile {
    /// What the sound blocks of the recovery column list, in ascending order of the offsets, and what is wrong with the others.
    pub(crate) fn sound_recovery(&self) -> (Vec<RecoveryRecord>, Vec<Damage>) {
        let (mut records, mut damages) = (Vec::new(), Vec::new());
        for block in self.header.recovery() {
            let before = (block - self.header.recovery().start) * RECORDS_PER_BLOCK;
            let mut column = RecoveryColumn {
                blocks: block..block + 1,
                left: self.header.records - before,
                offset: records
                    .last()
                    .map_or(0, |last: &RecoveryRecord| last.offset),
                ..self.recovery()
            };
            let mut listed = Vec::new();
            match column.read(&mut listed) {
                Ok(()) => records.append(&mut listed),
                Err(error) => damages.push(Damage::of(&error).cloned().unwrap_or_else(|| {
                    let offset = u64::from(block) * BLOCK_BYTES as u64;
                    self.blocks.damage_at(offset, error.to_string())
                })),
            }
        }
        (records, damages)
    }
}

/// Reads a recovery column. Takes 256 KiB of memory.
pub(crate) struct RecoveryColumn<'f> {
    file: &'f KeyFile,
    /// Yet to be read.
    blocks: Range<u32>,
    /// Records in those.
    left: u32,
    /// Of the record before.
    offset: u32,
    buffer: Vec<u8>,
}

impl RecoveryColumn<'_> {
    /// Puts the next records, some 20 thousand, into `records` in place of what is there; none after the last.
    ///
    /// # Errors
    ///
    /// [`Damage`](crate::Damage), those of the disk.
    pub(crate) fn read(&mut self, records: &mut Vec<RecoveryRecord>) -> io::Result<()> {
        records.clear();
        let first = self.blocks.start;
        let end = self.blocks.end.min(first + BLOCKS_PER_READ);
        self.file.blocks.read(first..end, &mut self.buffer)?;
        self.blocks.start = end;
        for (block, bytes) in (first..end).zip(self.buffer.chunks_exact(BLOCK_BYTES)) {
            let count = self.left.min(RECORDS_PER_BLOCK);
            self.left -= count;
            let listed = bytes.chunks_exact(RECORD_BYTES).take(count as usize);
            for (at, bytes) in listed.enumerate() {
                match RecoveryRecord::decode(bytes) {
                    Some(record) if record.offset > self.offset => {
                        self.offset = record.offset;
                        records.push(record);
                    }
                    _ => {
                        let at = at * RECORD_BYTES + 8;
                        let what = "not the place of a record behind the one before";
                        return Err(self.file.blocks.damage(block, at, what));
                    }
                }
            }
        }
        Ok(())
    }
}
