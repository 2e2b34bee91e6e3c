//! Key files: what is in a sealed segment, for those who must not read the segment.
//!
//! Every segment file has one beside it, written when the segment is sealed. It lists the records in three ways:
//!
//! * the *recovery column*, all records in the order of the segment: what a start needs to build the index;
//! * the *key blocks*, all keys in the order of SCAN's cursor, which is that of the hash with its bits reversed: what an
//!   iteration needs;
//! * the *expiry column*, all keys that expire, by time: what it takes to remove them without reading them.
//!
//! Fillers and void records are in none of them, pages of large values only in the first. A key file does not say which
//! records are live: the index does, and before there is one, the deaths files.
//!
//! The name is `<file id of the segment, 16 hex digits>.keys`. The file is made of blocks (`block.rs`), so whatever is read of
//! it has been checked:
//!
//! ```text
//! header, from 24
//!     24  records              u32   in the recovery column
//!     28  keys                 u32   in the key blocks
//!     32  expiring keys        u32   in the expiry column
//!     36  recovery blocks      u32   from block 1
//!     40  key blocks           u32   after those
//!     44  expiry blocks        u32   after those
//!     48  next expiry          u64   the first time in the expiry column, Unix milliseconds; 2^64 - 1 if there is none
//!     56  key blocks a fence   u32   0 if there is none
//!     60  fences               u32   at most 1000
//!     64  fences               u32 each: the high half of the reversed hash of the first key that begins in the first of the
//!                              fence's blocks, or after it; 2^32 - 1 if none does
//!
//! recovery block: 341 records, of 12 bytes each; the last one may have fewer
//!     hash             u64
//!     place            u32   bits 0..24: offset in the segment in units of 8 bytes; 24..27: size class of the slot;
//!                            27: it is a page of a large value; the others are 0
//!
//! key block
//!     0   entries      u16   0xffff: the block goes on with a key that began before it
//!     2   entries
//!         flags        u8    bit 0: the key expires; bit 1: namespace and kind follow, else they are those of the entry before
//!         place        u24   bits 0..22: offset in units of 8 bytes; 23: the value is in pages of its own; the other is 0
//!         key length   varint
//!         namespace    u16, kind u8    if flagged; always of the first entry of a block
//!         expiry       varint          if flagged: milliseconds after the header's next expiry
//!         key
//!
//! expiry block
//!     0   entries      u16
//!     2   first time   u64   Unix milliseconds
//!     10  entries
//!         time         varint   milliseconds after the entry before, or the first time
//!         hash         u64
//!         place        u24      as in a key block
//!         namespace    u16
//! ```
//!
//! An entry of the key blocks that fits into what is left of a block begins there, else in a new one; one longer than a block
//! has as many blocks as it needs for itself. A varint has 7 bits a byte, lowest first, and the high bit on all bytes but the
//! last. Entries of equal hash or time are in the order of their offsets.
//!
//! A record takes 12 bytes, a key 5 and its bytes more, one that expires some 20 more.

mod expiry;
mod group;
mod keys;
mod recovery;
mod sealed;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use expiry::{Expiring, ExpiryPosition};
pub(crate) use group::{DIRECTORY, KeyDirectory, KeyGroup};
pub(crate) use keys::KeyEntry;
pub(crate) use recovery::RecoveryRecord;
pub(crate) use write::{Listed, SegmentRecords, write};

use std::io;
use std::ops::Range;

use crate::block::{BlockFile, Format};
use crate::disk::Disk;
use crate::fields::Fields;

pub(crate) static FORMAT: Format = Format {
    what: "a key file",
    magic: b"FRTKEYS\0",
    version: 1,
    extension: "keys",
};

/// Where the format's own part of the header begins.
const HEADER_AT: usize = 24;
const FENCES_MAX: usize = 1000;
/// As next expiry: nothing expires.
const NEVER: u64 = u64::MAX;

/// The name of the key file of a segment.
pub(crate) fn file_name(file_id: u64) -> String {
    FORMAT.file_name(file_id)
}

/// The file id in the name of a key file; `None` for other names.
pub(crate) fn file_id_of(name: &str) -> Option<u64> {
    FORMAT.number_of(name)
}

/// A key file, open for reading. Takes at most 5 KiB of memory.
pub(crate) struct KeyFile {
    blocks: BlockFile,
    header: Header,
}

impl KeyFile {
    /// Opens the key file of a segment and reads its header.
    ///
    /// # Errors
    ///
    /// [`Damage`](crate::Damage), those of the disk.
    pub(crate) fn open(disk: &dyn Disk, file_id: u64) -> io::Result<KeyFile> {
        let (blocks, header) = BlockFile::open(disk, &FORMAT, file_id)?;
        let mut fields = Fields::new(&header);
        let header = Header::decode(&mut fields, blocks.blocks())
            .map_err(|what| blocks.damage(0, HEADER_AT + fields.last(), what))?;
        Ok(KeyFile { blocks, header })
    }

    /// How many records the segment has, dead ones and pages included.
    pub(crate) fn records(&self) -> u32 {
        self.header.records
    }

    /// How many of them are keys.
    pub(crate) fn keys(&self) -> u32 {
        self.header.keys
    }

    /// How many of those expire.
    pub(crate) fn expiring(&self) -> u32 {
        self.header.expiring
    }

    /// That `list` has something else of the record at `offset` than the segment.
    pub(crate) fn contradicts(&self, list: &str, offset: u32) -> io::Error {
        let what = format!("{list} and the record at offset {offset} of the segment differ");
        self.blocks.damage(0, 0, what)
    }

    /// That there are `found` of what the header counts `counted`.
    pub(crate) fn miscounts(&self, what: &str, found: u32, counted: u32) -> io::Error {
        let what = format!("lists {found} {what} and counts {counted}");
        self.blocks.damage(0, HEADER_AT, what)
    }

    /// When the first key of the segment expires, in Unix milliseconds, whether it is live or not.
    pub(crate) fn next_expiry_ms(&self) -> Option<u64> {
        self.header.next_expiry_ms()
    }

    /// Drops what the page cache holds of the file.
    pub(crate) fn drop_cached(&self) {
        self.blocks.drop_cached();
    }
}

/// What the header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Header {
    records: u32,
    keys: u32,
    expiring: u32,
    recovery_blocks: u32,
    key_blocks: u32,
    expiry_blocks: u32,
    next_expiry_ms: u64,
    blocks_per_fence: u32,
    fences: Vec<u32>,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [
            self.records,
            self.keys,
            self.expiring,
            self.recovery_blocks,
            self.key_blocks,
            self.expiry_blocks,
        ] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(self.next_expiry_ms.to_le_bytes());
        bytes.extend(self.blocks_per_fence.to_le_bytes());
        bytes.extend((self.fences.len() as u32).to_le_bytes());
        bytes.extend(self.fences.iter().flat_map(|fence| fence.to_le_bytes()));
        bytes
    }

    /// `blocks` is how many the whole file has. Of an error [`Fields::last`] says where.
    fn decode(fields: &mut Fields<'_>, blocks: u32) -> Result<Header, String> {
        let mut header = Header {
            records: fields.u32()?,
            keys: fields.u32()?,
            expiring: fields.u32()?,
            recovery_blocks: fields.u32()?,
            key_blocks: fields.u32()?,
            expiry_blocks: fields.u32()?,
            ..Header::default()
        };
        let counted = [
            1,
            header.recovery_blocks,
            header.key_blocks,
            header.expiry_blocks,
        ];
        let counted: u64 = counted.into_iter().map(u64::from).sum();
        if counted != u64::from(blocks) {
            return Err(format!("counts {counted} blocks in a file of {blocks}"));
        }
        let recovery_blocks = header.records.div_ceil(recovery::RECORDS_PER_BLOCK);
        if recovery_blocks != header.recovery_blocks {
            let (records, blocks) = (header.records, header.recovery_blocks);
            return Err(format!("{records} records in {blocks} recovery blocks"));
        }
        header.next_expiry_ms = fields.u64()?;
        header.blocks_per_fence = fields.u32()?;
        let fences = fields.u32()?;
        let fits = fences as usize <= FENCES_MAX
            && match header.blocks_per_fence {
                0 => fences == 0 && header.key_blocks == 0,
                each => fences == header.key_blocks.div_ceil(each),
            };
        if !fits {
            let (blocks, each) = (header.key_blocks, header.blocks_per_fence);
            return Err(format!(
                "{fences} fences, each for {each} of {blocks} key blocks"
            ));
        }
        for _ in 0..fences {
            header.fences.push(fields.u32()?);
        }
        if !header.fences.is_sorted() {
            return Err("fences are not in order".to_string());
        }
        Ok(header)
    }

    fn next_expiry_ms(&self) -> Option<u64> {
        Some(self.next_expiry_ms).filter(|&at| at != NEVER)
    }

    fn recovery(&self) -> Range<u32> {
        1..1 + self.recovery_blocks
    }

    fn key_blocks(&self) -> Range<u32> {
        let start = self.recovery().end;
        start..start + self.key_blocks
    }

    fn expiry(&self) -> Range<u32> {
        let start = self.key_blocks().end;
        start..start + self.expiry_blocks
    }

    /// The first key block that can hold a key whose reversed hash is not below `reversed_hash`.
    fn first_key_block(&self, reversed_hash: u64) -> u32 {
        // Keys whose hash has the same high half as a fence may begin before it.
        let high = (reversed_hash >> 32) as u32;
        let behind = self.fences.partition_point(|&fence| fence < high) as u32;
        self.key_blocks().start + behind.saturating_sub(1) * self.blocks_per_fence
    }
}
