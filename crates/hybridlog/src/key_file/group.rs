//! Key blocks that were read by other means than [`KeyFile`](super::KeyFile): the header, and groups of blocks, each found
//! through its fence.

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};

use super::keys::{CONTINUED, ENTRIES_AT, KeyEntry, take_entry};
use super::{FORMAT, HEADER_AT, Header};
use crate::Namespace;
use crate::block::{BLOCK_BYTES, Fault, PAYLOAD_BYTES, check_blocks, check_header};
use crate::fields::Fields;
use crate::sys::prefetch;

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
    /// Where the entry that was found last begins: iterations ask for entries nearly in order, so the next is not far.
    last_found: AtomicU64,
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

    /// The high halves of the reversed hashes that are in this group and no other.
    pub(crate) fn only_in(&self, group: u32) -> Range<u32> {
        let fences = &self.header.fences;
        let fence = |at: u32| fences.get(at as usize).copied();
        // Keys with the high half of a fence may be before it as well, but none is before the first.
        let start = match group {
            0 => 0,
            _ => fence(group).map_or(u32::MAX, |fence| fence.saturating_add(1)),
        };
        start..fence(group + 1).unwrap_or(u32::MAX)
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
            last_found: AtomicU64::new(EntryPlace::first_of(0).pack()),
        })
    }

    /// Memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.header.fences)
    }
}

impl KeyGroup {
    /// Starts loading what [`Self::find`] will most likely look at.
    pub(crate) fn prefetch(&self) {
        let place = EntryPlace::unpack(self.last_found.load(Ordering::Relaxed));
        let at = usize::from(place.block) * BLOCK_BYTES + usize::from(place.at);
        prefetch(self.blocks.as_ptr().wrapping_add(at));
        prefetch(self.blocks.as_ptr().wrapping_add(at + 64));
    }

    /// The key of the record at `offset` of the segment; `None` if it is not in this group, or goes on behind it.
    pub(crate) fn find(&self, offset: u32) -> Option<KeyEntry<'_>> {
        let last_found = EntryPlace::unpack(self.last_found.load(Ordering::Relaxed));
        let mut behind = self.entries(last_found);
        let mut all = self.entries(EntryPlace::first_of(0));
        let is_it = |(_, entry): &(EntryPlace, KeyEntry<'_>)| entry.offset == offset;
        let (place, entry) = behind.find(is_it).or_else(|| all.find(is_it))?;
        self.last_found.store(place.pack(), Ordering::Relaxed);
        Some(entry)
    }

    /// Calls `each` with the offsets of the records whose keys [`Self::find`] finds.
    pub(crate) fn for_each_offset(&self, mut each: impl FnMut(u32)) {
        let entries = self.entries(EntryPlace::first_of(0));
        entries.for_each(|(_, entry)| each(entry.offset));
    }

    fn entries(&self, from: EntryPlace) -> Entries<'_> {
        Entries {
            blocks: &self.blocks,
            next_expiry_ms: self.next_expiry_ms,
            place: from,
        }
    }

    /// Memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.blocks.len()
    }
}

/// Where an entry begins, and what it takes to read it.
#[derive(Clone, Copy)]
struct EntryPlace {
    /// Block of the group.
    block: u8,
    /// Byte of the block.
    at: u16,
    /// How many entries of the block come before it.
    entry: u16,
    /// Namespace and kind of the one before it, if it is not the first of its block.
    before: (Namespace, u8),
}

impl EntryPlace {
    /// Where the first entry of a block is, if one begins in it.
    fn first_of(block: u8) -> EntryPlace {
        EntryPlace {
            block,
            at: ENTRIES_AT as u16,
            entry: 0,
            before: (Namespace(0), 0),
        }
    }

    fn pack(self) -> u64 {
        let (namespace, kind) = self.before;
        u64::from(self.at)
            | u64::from(self.entry) << 16
            | u64::from(namespace.0) << 32
            | u64::from(kind) << 48
            | u64::from(self.block) << 56
    }

    fn unpack(word: u64) -> EntryPlace {
        EntryPlace {
            at: word as u16,
            entry: (word >> 16) as u16,
            before: (Namespace((word >> 32) as u16), (word >> 48) as u8),
            block: (word >> 56) as u8,
        }
    }
}

/// The entries of a group that lie wholly in one block.
struct Entries<'g> {
    blocks: &'g [u8],
    next_expiry_ms: u64,
    place: EntryPlace,
}

impl<'g> Iterator for Entries<'g> {
    type Item = (EntryPlace, KeyEntry<'g>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = usize::from(self.place.block) * BLOCK_BYTES;
            let payload = self.blocks.get(start..start + PAYLOAD_BYTES)?;
            let entries = match u16::from_le_bytes([payload[0], payload[1]]) {
                CONTINUED => 0,
                entries => entries,
            };
            if self.place.entry < entries
                && let Some(entry) = self.take(payload)
            {
                return Some(entry);
            }
            self.place = EntryPlace::first_of(self.place.block.checked_add(1)?);
        }
    }
}

impl<'g> Entries<'g> {
    /// The entry at the current place, and goes on to the next; `None` if it does not end in this block.
    #[inline]
    fn take(&mut self, payload: &'g [u8]) -> Option<(EntryPlace, KeyEntry<'g>)> {
        let place = self.place;
        let mut fields = Fields::new(payload.get(usize::from(place.at)..)?);
        let before = (place.entry > 0).then_some(place.before);
        let entry = take_entry(&mut fields, before, self.next_expiry_ms).ok()?;
        self.place = EntryPlace {
            at: (payload.len() - fields.left()) as u16,
            entry: place.entry + 1,
            before: (entry.namespace, entry.meta.kind),
            ..place
        };
        Some((place, entry))
    }
}
