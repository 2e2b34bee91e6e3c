//! Key blocks that were read by other means than [`KeyFile`](super::KeyFile): the header, and groups of blocks, each found
//! through its fence.

use std::ops::{Range, RangeInclusive};

use super::keys::{CONTINUED, ENTRIES_AT, KeyEntry, take_entry};
use super::{FORMAT, HEADER_AT, Header};
use crate::Namespace;
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
    pub(crate) fn groups(&self, reversed_hashes: &RangeInclusive<u64>) -> Range<u32> {
        let high = |hash: &u64| (hash >> 32) as u32;
        let (first, last) = (high(reversed_hashes.start()), high(reversed_hashes.end()));
        let fences = &self.header.fences;
        // Keys whose hash has the same high half as a fence may begin before it.
        let start = fences.partition_point(|&fence| fence < first);
        let end = fences.partition_point(|&fence| fence <= last);
        start.saturating_sub(1) as u32..end as u32
    }

    fn blocks(&self, groups: &Range<u32>) -> Range<u32> {
        let (all, each) = (self.header.key_blocks(), self.header.blocks_per_fence);
        all.start + groups.start * each..all.end.min(all.start + groups.end * each)
    }

    /// Where groups that follow each other are in the file, in bytes.
    pub(crate) fn place(&self, groups: &Range<u32>) -> Range<u64> {
        let blocks = self.blocks(groups);
        u64::from(blocks.start) * BLOCK_BYTES as u64..u64::from(blocks.end) * BLOCK_BYTES as u64
    }

    /// From what lies at [`Self::place`] of a group.
    pub(crate) fn decode_group(&self, group: u32, bytes: &[u8]) -> Result<KeyGroup, Fault> {
        Ok(KeyGroup {
            next_expiry_ms: self.header.next_expiry_ms,
            blocks: self.checked(&(group..group + 1), bytes)?.into(),
        })
    }

    /// The keys in what lies at [`Self::place`] of groups, but for those longer than a block.
    pub(crate) fn keys_in<'g>(
        &self,
        groups: &Range<u32>,
        bytes: &'g [u8],
    ) -> Result<impl Iterator<Item = KeyEntry<'g>>, Fault> {
        Ok(Entries::new(
            self.checked(groups, bytes)?,
            self.header.next_expiry_ms,
        ))
    }

    fn checked<'g>(&self, groups: &Range<u32>, bytes: &'g [u8]) -> Result<&'g [u8], Fault> {
        let blocks = self.blocks(groups);
        let bytes = &bytes[..blocks.len() * BLOCK_BYTES];
        check_blocks(self.file_id, blocks.start, bytes)?;
        Ok(bytes)
    }

    /// Memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.header.fences)
    }
}

impl KeyGroup {
    /// The key of the record at `offset` of the segment; `None` if it is not in this group, or goes on behind it.
    pub(crate) fn find(&self, offset: u32) -> Option<KeyEntry<'_>> {
        self.entries().find(|entry| entry.offset == offset)
    }

    /// Calls `each` with the offsets of the records whose keys [`Self::find`] finds.
    pub(crate) fn for_each_offset(&self, mut each: impl FnMut(u32)) {
        self.entries().for_each(|entry| each(entry.offset));
    }

    fn entries(&self) -> Entries<'_> {
        Entries::new(&self.blocks, self.next_expiry_ms)
    }
}

/// The entries that lie wholly in one of some blocks.
struct Entries<'g> {
    blocks: std::slice::ChunksExact<'g, u8>,
    next_expiry_ms: u64,
    /// What is left of the current block, and how many entries that are.
    fields: Fields<'g>,
    left: u16,
    /// Namespace and kind of the entry before, if it is of the same block.
    before: Option<(Namespace, u8)>,
}

impl<'g> Entries<'g> {
    fn new(blocks: &'g [u8], next_expiry_ms: u64) -> Entries<'g> {
        Entries {
            blocks: blocks.chunks_exact(BLOCK_BYTES),
            next_expiry_ms,
            fields: Fields::new(&[]),
            left: 0,
            before: None,
        }
    }

    fn next_block(&mut self) -> Option<()> {
        let payload = &self.blocks.next()?[..PAYLOAD_BYTES];
        self.left = match u16::from_le_bytes([payload[0], payload[1]]) {
            CONTINUED => 0,
            entries => entries,
        };
        self.fields = Fields::new(&payload[ENTRIES_AT..]);
        self.before = None;
        Some(())
    }
}

impl<'g> Iterator for Entries<'g> {
    type Item = KeyEntry<'g>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.left > 0 {
                self.left -= 1;
                if let Ok(entry) = take_entry(&mut self.fields, self.before, self.next_expiry_ms) {
                    self.before = Some((entry.namespace, entry.meta.kind));
                    return Some(entry);
                }
                // It goes on in the next block: there is no other in this one.
                self.left = 0;
            }
            self.next_block()?;
        }
    }
}
