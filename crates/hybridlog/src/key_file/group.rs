//! Key blocks that were read by other means than [`KeyFile`](super::KeyFile): the header, and groups of blocks, each found
//! through its fence.

use std::ops::{Range, RangeInclusive};

use super::keys::{KeyEntry, find_in_block};
use super::{FORMAT, HEADER_AT, Header};
use crate::block::{BLOCK_BYTES, Fault, PAYLOAD_BYTES, check_blocks, check_header};
use crate::fields::Fields;

/// Where the header is in a key file.
pub(crate) const DIRECTORY: Range<u64> = 0..BLOCK_BYTES as u64;

/// Tells where the keys of a segment are in its key file.
pub(crate) struct KeyDirectory {
    file_id: u64,
    header: Header,
}

/// The key blocks of one fence.
pub(crate) struct KeyGroup {
    next_expiry_ms: u64,
    blocks: Box<[u8]>,
}

impl KeyDirectory {
    /// From what lies at [`DIRECTORY`] in the key file of a segment.
    pub(crate) fn decode(file_id: u64, bytes: &[u8]) -> Result<KeyDirectory, Fault> {
        let (blocks, rest) = check_header(&FORMAT, file_id, bytes)?;
        let mut fields = Fields::new(rest);
        let header = Header::decode(&mut fields, blocks)
            .map_err(|what| Fault::new(0, HEADER_AT + fields.last(), what))?;
        Ok(KeyDirectory { file_id, header })
    }

    /// The groups that the keys with these reversed hashes are in.
    pub(crate) fn groups(&self, reversed_hashes: RangeInclusive<u64>) -> Range<u32> {
        let high = |hash: &u64| (hash >> 32) as u32;
        let (first, last) = (high(reversed_hashes.start()), high(reversed_hashes.end()));
        let fences = &self.header.fences;
        // Keys whose hash has the same high half as a fence may begin before it.
        let start = fences.partition_point(|&fence| fence < first);
        let end = fences.partition_point(|&fence| fence <= last);
        start.saturating_sub(1) as u32..end as u32
    }

    fn blocks(&self, group: u32) -> Range<u32> {
        let (all, each) = (self.header.key_blocks(), self.header.blocks_per_fence);
        let start = all.start + group * each;
        start..all.end.min(start + each)
    }

    /// Where a group is in the file, in bytes.
    pub(crate) fn place(&self, group: u32) -> Range<u64> {
        let blocks = self.blocks(group);
        u64::from(blocks.start) * BLOCK_BYTES as u64..u64::from(blocks.end) * BLOCK_BYTES as u64
    }

    /// From what lies at [`Self::place`] of a group.
    pub(crate) fn decode_group(&self, group: u32, bytes: &[u8]) -> Result<KeyGroup, Fault> {
        let blocks = self.blocks(group);
        let bytes = &bytes[..blocks.len() * BLOCK_BYTES];
        check_blocks(self.file_id, blocks.start, bytes)?;
        Ok(KeyGroup {
            next_expiry_ms: self.header.next_expiry_ms,
            blocks: bytes.into(),
        })
    }

    /// Memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.header.fences)
    }
}

impl KeyGroup {
    /// The key of the record at `offset` of the segment; `None` if it is not in this group, or goes on behind it.
    pub(crate) fn find(&self, offset: u32) -> Option<KeyEntry<'_>> {
        self.find_map(|entry| (entry.offset == offset).then_some(entry))
    }

    /// Calls `each` with the offsets of the records whose keys [`Self::find`] finds.
    pub(crate) fn for_each_offset(&self, mut each: impl FnMut(u32)) {
        self.find_map(|entry| {
            each(entry.offset);
            None::<()>
        });
    }

    fn find_map<'k, T>(&'k self, mut ask: impl FnMut(KeyEntry<'k>) -> Option<T>) -> Option<T> {
        let blocks = self.blocks.chunks_exact(BLOCK_BYTES);
        let mut payloads = blocks.map(|block| &block[..PAYLOAD_BYTES]);
        payloads.find_map(|payload| find_in_block(payload, self.next_expiry_ms, &mut ask))
    }

    /// Memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.blocks.len()
    }
}
