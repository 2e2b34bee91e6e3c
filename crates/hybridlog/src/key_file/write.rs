//! Writing the key file of a segment that has been sealed.
//!
//! The records are walked once, and listed in the recovery column as they come. The keys are sorted, and so are those that
//! expire: not their entries, but 8 bytes for each, the high bits of what it is sorted by and its offset. So beside 70 KiB this
//! takes 8 bytes of memory a record, and another 8 if it expires: without those a sixteenth of the segment for records of 128
//! bytes, and a third for the smallest there are. And some 100 ns a record.

use std::io;

use super::expiry::{Expiring, ExpiryWriter};
use super::keys::{KeyBlockWriter, KeyEntry};
use super::recovery::{RECORDS_PER_BLOCK, RecoveryRecord};
use super::{FENCES_MAX, FORMAT, Header, NEVER};
use crate::address::{RECORD_ALIGN, SlotKind};
use crate::block::{BlockWriter, PAYLOAD_BYTES};
use crate::disk::{Disk, DiskFile};
use crate::fields::Fields;
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::store::SEGMENT_BYTES;
use crate::{Meta, Namespace};

/// A record of a segment, as it is listed in the key file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed<'r> {
    /// In bytes from the start of the segment.
    pub(crate) offset: u32,
    pub(crate) size_class: u8,
    pub(crate) kind: SlotKind,
    pub(crate) namespace: Namespace,
    pub(crate) meta: Meta,
    /// The value is in pages of its own.
    pub(crate) large: bool,
    /// When to look at it though nobody asks for it: when it expires, or before.
    pub(crate) look_at_ms: Option<u64>,
    pub(crate) key: &'r [u8],
}

/// The records of a segment that nobody changes any more, without its fillers and void records.
pub(crate) trait SegmentRecords {
    /// Calls `each` with every record, in ascending order of the offsets.
    fn for_each(&self, each: &mut dyn FnMut(Listed<'_>));

    /// The record at an offset that `for_each` gave.
    fn at(&self, offset: u32) -> Listed<'_>;

    /// Starts loading what [`Self::at`] will look at.
    fn prefetch(&self, offset: u32);

    /// The hash under which the index has the record.
    fn hash(&self, record: &Listed<'_>) -> u64;
}

/// A key file that is complete but not synced.
pub(crate) struct WrittenKeyFile {
    pub(crate) file: Box<dyn DiskFile>,
    /// When the first key of the segment expires, in Unix milliseconds.
    pub(crate) next_expiry_ms: Option<u64>,
}

/// Writes the key file of segment `file_id`, in the place of one that an earlier try may have left. O(n log n) in
/// the number of records.
///
/// # Errors
///
/// Those of the disk; remove the file then, or write it anew.
pub(crate) fn write(
    disk: &dyn Disk,
    file_id: u64,
    records: &dyn SegmentRecords,
) -> io::Result<WrittenKeyFile> {
    let mut blocks = BlockWriter::create(disk, &FORMAT, file_id)?;
    let mut header = Header {
        next_expiry_ms: NEVER,
        ..Header::default()
    };
    let (keys, expiring) = write_recovery(&mut blocks, &mut header, records)?;
    write_keys(&mut blocks, &mut header, records, keys)?;
    write_expiry(&mut blocks, &mut header, records, expiring)?;
    let file = blocks.finish(&header.encode())?;
    let next_expiry_ms = header.next_expiry_ms();
    Ok(WrittenKeyFile {
        file,
        next_expiry_ms,
    })
}

/// Records to be sorted.
#[derive(Default)]
struct Sorting {
    /// Of each the rank, up to [`RANK_MAX`], above the offset in units of 8 bytes.
    words: Vec<u64>,
}

const OFFSET_BITS: u32 = 24;
const RANK_MAX: u64 = u64::MAX >> OFFSET_BITS;
/// So many records ahead are being loaded.
const PREFETCHED: usize = 8;

impl Sorting {
    fn push(&mut self, rank: u64, offset: u32) {
        let units = u64::from(offset / RECORD_ALIGN as u32);
        self.words.push(rank << OFFSET_BITS | units);
    }

    /// Calls `each` with the records in the order of `sort_by`, which their ranks follow but for some that are equal, and of
    /// equal ones in that of their offsets.
    fn for_each(
        mut self,
        records: &dyn SegmentRecords,
        sort_by: &dyn Fn(&Listed<'_>) -> u64,
        each: &mut dyn FnMut(u64, &Listed<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.words.sort_unstable();
        let offset = |word: u64| (word & !(RANK_MAX << OFFSET_BITS)) as u32 * RECORD_ALIGN as u32;
        let mut at = 0;
        while let Some(&first) = self.words.get(at) {
            let rank = first >> OFFSET_BITS;
            let is_equal = |word: &&u64| **word >> OFFSET_BITS == rank;
            let equal = self.words[at..].iter().take_while(is_equal).count();
            if equal > 1 {
                let equal = &mut self.words[at..at + equal];
                equal.sort_by_cached_key(|&word| sort_by(&records.at(offset(word))));
            }
            for at in at..at + equal {
                if let Some(&ahead) = self.words.get(at + PREFETCHED) {
                    records.prefetch(offset(ahead));
                }
                each(rank, &records.at(offset(self.words[at])))?;
            }
            at += equal;
        }
        Ok(())
    }
}

fn rank_of_hash(hash: u64) -> u64 {
    hash.reverse_bits() >> OFFSET_BITS
}

/// In units of 16 milliseconds: equal for all times from the year 2527 on.
fn rank_of_time(expires_at_ms: u64) -> u64 {
    (expires_at_ms / 16).min(RANK_MAX)
}

/// Returns the keys and those that expire.
fn write_recovery(
    blocks: &mut BlockWriter,
    header: &mut Header,
    records: &dyn SegmentRecords,
) -> io::Result<(Sorting, Sorting)> {
    let first = blocks.next_block();
    let (mut keys, mut expiring) = (Sorting::default(), Sorting::default());
    let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
    let mut pushed = Ok(());
    records.for_each(&mut |record| {
        let hash = records.hash(&record);
        if record.kind == SlotKind::Root {
            keys.push(rank_of_hash(hash), record.offset);
            if let Some(at) = record.look_at_ms {
                expiring.push(rank_of_time(at), record.offset);
                header.next_expiry_ms = header.next_expiry_ms.min(at);
            }
        }
        let listed = RecoveryRecord {
            hash,
            offset: record.offset,
            size_class: record.size_class,
            kind: record.kind,
        };
        payload.extend_from_slice(&listed.encode());
        header.records += 1;
        if header.records.is_multiple_of(RECORDS_PER_BLOCK) {
            if pushed.is_ok() {
                pushed = blocks.push(&payload);
            }
            payload.clear();
        }
    });
    pushed?;
    if !payload.is_empty() {
        blocks.push(&payload)?;
    }
    header.recovery_blocks = blocks.next_block() - first;
    header.keys = keys.words.len() as u32;
    header.expiring = expiring.words.len() as u32;
    Ok((keys, expiring))
}

fn write_keys(
    blocks: &mut BlockWriter,
    header: &mut Header,
    records: &dyn SegmentRecords,
    keys: Sorting,
) -> io::Result<()> {
    let mut writer = KeyBlockWriter::new(blocks, header.next_expiry_ms);
    let reversed_hash = |record: &Listed<'_>| records.hash(record).reverse_bits();
    keys.for_each(records, &reversed_hash, &mut |rank, record| {
        let entry = KeyEntry {
            offset: record.offset,
            namespace: record.namespace,
            meta: record.meta,
            large: record.large,
            key: record.key,
        };
        let fence = rank >> (32 - OFFSET_BITS);
        writer.push(fence as u32, &entry)
    })?;
    let fences = writer.finish()?;
    header.key_blocks = fences.len() as u32;
    let blocks_per_fence = fences.len().div_ceil(FENCES_MAX);
    header.blocks_per_fence = blocks_per_fence as u32;
    header.fences = fences
        .into_iter()
        .step_by(blocks_per_fence.max(1))
        .collect();
    Ok(())
}

fn write_expiry(
    blocks: &mut BlockWriter,
    header: &mut Header,
    records: &dyn SegmentRecords,
    expiring: Sorting,
) -> io::Result<()> {
    let first = blocks.next_block();
    let mut writer = ExpiryWriter::new(blocks);
    let look_at_ms = |record: &Listed<'_>| record.look_at_ms.unwrap_or(NEVER);
    expiring.for_each(records, &look_at_ms, &mut |_, record| {
        writer.push(&Expiring {
            expires_at_ms: look_at_ms(record),
            hash: records.hash(record),
            offset: record.offset,
            namespace: record.namespace,
            // What does not expire then has to be read as well.
            large: record.large || record.look_at_ms != record.meta.expires_at_ms,
        })
    })?;
    writer.end_block()?;
    header.expiry_blocks = blocks.next_block() - first;
    Ok(())
}

const LARGE_BIT: u32 = 1 << 23;

/// Appends the place of a record in 3 bytes: its offset, a multiple of 8, and whether its value is in pages of its own.
pub(super) fn put_place(bytes: &mut Vec<u8>, offset: u32, large: bool) {
    let units = offset / RECORD_ALIGN as u32;
    let place = units | if large { LARGE_BIT } else { 0 };
    bytes.extend_from_slice(&place.to_le_bytes()[..3]);
}

/// What [`put_place`] has appended, if there can be a record.
#[inline]
pub(super) fn take_place(fields: &mut Fields<'_>) -> Result<(u32, bool), &'static str> {
    let place = fields.u24()?;
    let offset = (place & !LARGE_BIT) as usize * RECORD_ALIGN;
    if !(SEGMENT_HEADER_BYTES..*SEGMENT_BYTES.end()).contains(&offset) {
        return Err("no record can be at this offset");
    }
    Ok((offset as u32, place & LARGE_BIT != 0))
}
