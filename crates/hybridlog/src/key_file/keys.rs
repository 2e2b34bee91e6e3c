//! The key blocks: the keys of a segment, in the order of their reversed hashes.

use std::io;
use std::ops::Range;

use super::KeyFile;
use super::write::{put_place, take_place};
use crate::block::{BlockWriter, PAYLOAD_BYTES};
use crate::fields::{Fields, put_varint};
use crate::{Meta, Namespace};

/// Bytes of a block before its entries.
pub(super) const ENTRIES_AT: usize = 2;
/// As number of entries: the block goes on with a key that began before it.
pub(super) const CONTINUED: u16 = u16::MAX;

const EXPIRES: u8 = 1;
const HAS_TYPE: u8 = 2;

/// A key as a key block lists it. Its hash is not listed: it follows from the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyEntry<'k> {
    /// In bytes from the start of the segment.
    pub(crate) offset: u32,
    pub(crate) namespace: Namespace,
    pub(crate) meta: Meta,
    /// The value is in pages of its own, which the record tells.
    pub(crate) large: bool,
    pub(crate) key: &'k [u8],
}

impl KeyFile {
    /// The keys whose hash, its bits reversed, is `reversed_hash` or above, and some before those.
    pub(crate) fn keys_from(&self, reversed_hash: u64) -> KeyBlocks<'_> {
        let first = self.header.first_key_block(reversed_hash);
        KeyBlocks {
            file: self,
            blocks: first..self.header.key_blocks().end,
            buffer: Vec::new(),
            joined: Vec::new(),
        }
    }
}

/// Reads key blocks, one at a time.
pub(crate) struct KeyBlocks<'f> {
    file: &'f KeyFile,
    /// Yet to be read.
    blocks: Range<u32>,
    buffer: Vec<u8>,
    /// The payload of the block, or of all that its only key spans.
    joined: Vec<u8>,
}

impl KeyBlocks<'_> {
    /// Calls `each` with the keys of the next block; `false` if there is none.
    ///
    /// # Errors
    ///
    /// [`Damage`](crate::Damage), those of the disk. Some keys may have been given then.
    pub(crate) fn read(&mut self, mut each: impl FnMut(KeyEntry<'_>)) -> io::Result<bool> {
        // The first block that is read may be one in the middle of a key that is not wanted.
        while let Some(block) = self.blocks.next() {
            if self.read_block(block)? == CONTINUED {
                continue;
            }
            self.join_continued(block)?;
            let mut fields = Fields::new(&self.joined);
            decode_block(&mut fields, self.file.header.next_expiry_ms, &mut each)
                .map_err(|what| self.file.blocks.damage(block, fields.last(), what))?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads a block into `joined` and returns its number of entries.
    fn read_block(&mut self, block: u32) -> io::Result<u16> {
        self.file.blocks.read(block..block + 1, &mut self.buffer)?;
        self.joined.clear();
        self.joined.extend_from_slice(&self.buffer[..PAYLOAD_BYTES]);
        Ok(u16::from_le_bytes([self.joined[0], self.joined[1]]))
    }

    /// Appends the blocks that the only key of `block` spans, if it is longer than that.
    fn join_continued(&mut self, block: u32) -> io::Result<()> {
        let end = first_entry_end(&self.joined);
        while end > self.joined.len() as u64 {
            let damage = |at, what| Err(self.file.blocks.damage(at, 0, what));
            let Some(next) = self.blocks.next() else {
                return damage(block, "a key passes the end of the key blocks");
            };
            self.file.blocks.read(next..next + 1, &mut self.buffer)?;
            if self.buffer[..ENTRIES_AT] != CONTINUED.to_le_bytes() {
                return damage(next, "a key is not continued");
            }
            let rest = &self.buffer[ENTRIES_AT..PAYLOAD_BYTES];
            self.joined.extend_from_slice(rest);
        }
        Ok(())
    }
}

/// Where the first entry of a block ends, in the payloads of all blocks that it spans; 0 if that cannot be told.
fn first_entry_end(payload: &[u8]) -> u64 {
    let mut fields = Fields::new(payload);
    let mut end = || {
        fields.bytes(ENTRIES_AT)?;
        let head = EntryHead::take(&mut fields, None, 0)?;
        let at = payload.len() - fields.left();
        Ok::<_, &str>(head.key_len.saturating_add(at as u64))
    };
    end().unwrap_or(0)
}

/// Calls `each` with the entries of a block. Of an error [`Fields::last`] says where.
fn decode_block<'k>(
    fields: &mut Fields<'k>,
    next_expiry_ms: u64,
    mut each: impl FnMut(KeyEntry<'k>),
) -> Result<(), &'static str> {
    let mut before = None;
    for _ in 0..fields.u16()? {
        let entry = take_entry(fields, before, next_expiry_ms)?;
        before = Some((entry.namespace, entry.meta.kind));
        each(entry);
    }
    Ok(())
}

/// The next entry; `before` is namespace and kind of the one before it.
#[inline]
pub(super) fn take_entry<'k>(
    fields: &mut Fields<'k>,
    before: Option<(Namespace, u8)>,
    next_expiry_ms: u64,
) -> Result<KeyEntry<'k>, &'static str> {
    let head = EntryHead::take(fields, before, next_expiry_ms)?;
    let key_len = usize::try_from(head.key_len).map_err(|_| "key is too long")?;
    Ok(KeyEntry {
        offset: head.offset,
        namespace: head.namespace,
        meta: Meta {
            kind: head.kind,
            expires_at_ms: head.expires_at_ms,
        },
        large: head.large,
        key: fields.bytes(key_len)?,
    })
}

/// An entry without its key.
struct EntryHead {
    offset: u32,
    large: bool,
    key_len: u64,
    namespace: Namespace,
    kind: u8,
    expires_at_ms: Option<u64>,
}

impl EntryHead {
    /// `before` is namespace and kind of the entry before it.
    #[inline]
    fn take(
        fields: &mut Fields<'_>,
        before: Option<(Namespace, u8)>,
        next_expiry_ms: u64,
    ) -> Result<EntryHead, &'static str> {
        let flags = fields.u8()?;
        if flags & !(EXPIRES | HAS_TYPE) != 0 {
            return Err("unknown flags");
        }
        let (offset, large) = take_place(fields)?;
        let key_len = fields.varint()?;
        let (namespace, kind) = match before {
            _ if flags & HAS_TYPE != 0 => (Namespace(fields.u16()?), fields.u8()?),
            Some(before) => before,
            None => return Err("namespace and kind are missing"),
        };
        let expires_at_ms = match flags & EXPIRES {
            0 => None,
            _ => {
                let at = next_expiry_ms.checked_add(fields.varint()?);
                Some(at.ok_or("time is out of range")?)
            }
        };
        Ok(EntryHead {
            offset,
            large,
            key_len,
            namespace,
            kind,
            expires_at_ms,
        })
    }
}

/// Writes key blocks.
pub(super) struct KeyBlockWriter<'w> {
    blocks: &'w mut BlockWriter,
    first_block: u32,
    next_expiry_ms: u64,
    payload: Vec<u8>,
    entries: u16,
    before: Option<(Namespace, u8)>,
    entry: Vec<u8>,
    /// For every block the high half of the first reversed hash in it or after it.
    fences: Vec<u32>,
}

impl<'w> KeyBlockWriter<'w> {
    pub(super) fn new(blocks: &'w mut BlockWriter, next_expiry_ms: u64) -> KeyBlockWriter<'w> {
        KeyBlockWriter {
            first_block: blocks.next_block(),
            blocks,
            next_expiry_ms,
            payload: Vec::with_capacity(PAYLOAD_BYTES),
            entries: 0,
            before: None,
            entry: Vec::new(),
            fences: Vec::new(),
        }
    }

    /// Adds an entry; they come in ascending order of their reversed hashes, of which `fence` is the high half.
    pub(super) fn push(&mut self, fence: u32, entry: &KeyEntry<'_>) -> io::Result<()> {
        self.encode(entry);
        if self.payload.len() + self.entry.len() > PAYLOAD_BYTES {
            self.end_block()?;
            self.encode(entry);
        }
        if self.entries == 0 {
            self.payload.resize(ENTRIES_AT, 0);
            // Blocks in the middle of a long key before this one have the same fence.
            let blocks = self.blocks.next_block() - self.first_block + 1;
            self.fences.resize(blocks as usize, fence);
        }
        self.payload.extend_from_slice(&self.entry);
        self.entries += 1;
        self.before = Some((entry.namespace, entry.meta.kind));
        Ok(())
    }

    fn encode(&mut self, entry: &KeyEntry<'_>) {
        let (namespace, kind) = (entry.namespace, entry.meta.kind);
        let same_type = self.before == Some((namespace, kind));
        let expires_at_ms = entry.meta.expires_at_ms;
        let flags = u8::from(expires_at_ms.is_some()) * EXPIRES + u8::from(!same_type) * HAS_TYPE;
        self.entry.clear();
        self.entry.push(flags);
        put_place(&mut self.entry, entry.offset, entry.large);
        put_varint(&mut self.entry, entry.key.len() as u64);
        if !same_type {
            self.entry.extend_from_slice(&namespace.0.to_le_bytes());
            self.entry.push(kind);
        }
        if let Some(at) = expires_at_ms {
            put_varint(&mut self.entry, at - self.next_expiry_ms);
        }
        self.entry.extend_from_slice(entry.key);
    }

    /// Ends the block, and adds those that it spans if it is a key longer than a block.
    fn end_block(&mut self) -> io::Result<()> {
        if self.entries > 0 {
            self.payload[..ENTRIES_AT].copy_from_slice(&self.entries.to_le_bytes());
            let first_bytes = self.payload.len().min(PAYLOAD_BYTES);
            let (first, rest) = self.payload.split_at(first_bytes);
            self.blocks.push(first)?;
            for part in rest.chunks(PAYLOAD_BYTES - ENTRIES_AT) {
                self.blocks
                    .push(&[&CONTINUED.to_le_bytes()[..], part].concat())?;
            }
        }
        self.payload.clear();
        self.entries = 0;
        self.before = None;
        Ok(())
    }

    /// Ends the last block, and returns the fence of every block.
    pub(super) fn finish(mut self) -> io::Result<Vec<u32>> {
        self.end_block()?;
        let blocks = self.blocks.next_block() - self.first_block;
        self.fences.resize(blocks as usize, u32::MAX);
        Ok(self.fences)
    }
}
