//! The expiry column: the keys of a segment that expire, or hold a collection that is due at some time, by time.

use std::io;

use super::KeyFile;
use super::write::{put_place, take_place};
use crate::Namespace;
use crate::block::{BlockWriter, PAYLOAD_BYTES};
use crate::fields::{Fields, put_varint};

/// The most an entry takes.
const ENTRY_MAX_BYTES: usize = 10 + 8 + 3 + 2;

/// A key that expires, or holds a collection that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiring {
    pub(crate) expires_at_ms: u64,
    pub(crate) hash: u64,
    /// In bytes from the start of the segment.
    pub(crate) offset: u32,
    pub(crate) namespace: Namespace,
    /// The value is in pages of its own, which the record tells; or it may not expire at all, but be due.
    pub(crate) large: bool,
}

/// How much of an expiry column has been seen; the default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ExpiryPosition {
    /// From the first of the column.
    block: u32,
    /// Entries of the block.
    entries: u16,
}

impl KeyFile {
    /// Calls `each` with the keys that expire at `until_ms` or before, beginning at `from`, but with no more than `most` of
    /// them, and returns where to go on and when the next one after those expires. Reads no more blocks than those keys are
    /// in, and one.
    ///
    /// # Errors
    ///
    /// [`Damage`](crate::Damage), those of the disk.
    pub(crate) fn expiries(
        &self,
        from: ExpiryPosition,
        until_ms: u64,
        most: usize,
        mut each: impl FnMut(Expiring),
    ) -> io::Result<(ExpiryPosition, Option<u64>)> {
        let blocks = self.header.expiry();
        let (mut buffer, mut position, mut left) = (Vec::new(), from, most);
        let mut take = |expiring: &Expiring| {
            let is_taken = expiring.expires_at_ms <= until_ms && left > 0;
            if is_taken {
                left -= 1;
                each(*expiring);
            }
            is_taken
        };
        for block in blocks.start.saturating_add(from.block)..blocks.end {
            self.blocks.read(block..block + 1, &mut buffer)?;
            let mut fields = Fields::new(&buffer[..PAYLOAD_BYTES]);
            let next = read_block(&mut fields, &mut position, &mut take)
                .map_err(|what| self.blocks.damage(block, fields.last(), what))?;
            if next.is_some() {
                return Ok((position, next));
            }
            position = ExpiryPosition {
                block: position.block + 1,
                entries: 0,
            };
        }
        Ok((position, None))
    }
}

/// Returns the time of the first entry that is not taken, at which `position` is then.
fn read_block(
    fields: &mut Fields<'_>,
    position: &mut ExpiryPosition,
    take: &mut impl FnMut(&Expiring) -> bool,
) -> Result<Option<u64>, &'static str> {
    let entries = fields.u16()?;
    let mut expires_at_ms = fields.u64()?;
    for entry in 0..entries {
        expires_at_ms = expires_at_ms
            .checked_add(fields.varint()?)
            .ok_or("time is out of range")?;
        let hash = fields.u64()?;
        let (offset, large) = take_place(fields)?;
        let expiring = Expiring {
            expires_at_ms,
            hash,
            offset,
            namespace: Namespace(fields.u16()?),
            large,
        };
        if entry < position.entries {
            continue;
        }
        if !take(&expiring) {
            return Ok(Some(expires_at_ms));
        }
        position.entries = entry + 1;
    }
    Ok(None)
}

/// Writes an expiry column.
pub(super) struct ExpiryWriter<'w> {
    blocks: &'w mut BlockWriter,
    payload: Vec<u8>,
    entries: u16,
    last_ms: u64,
}

impl<'w> ExpiryWriter<'w> {
    pub(super) fn new(blocks: &'w mut BlockWriter) -> ExpiryWriter<'w> {
        ExpiryWriter {
            blocks,
            payload: Vec::with_capacity(PAYLOAD_BYTES),
            entries: 0,
            last_ms: 0,
        }
    }

    /// Adds an entry; they come in ascending order of their times.
    pub(super) fn push(&mut self, expiring: &Expiring) -> io::Result<()> {
        if self.payload.len() + ENTRY_MAX_BYTES > PAYLOAD_BYTES {
            self.end_block()?;
        }
        if self.entries == 0 {
            self.payload.resize(2, 0);
            self.payload
                .extend_from_slice(&expiring.expires_at_ms.to_le_bytes());
            self.last_ms = expiring.expires_at_ms;
        }
        put_varint(&mut self.payload, expiring.expires_at_ms - self.last_ms);
        self.payload.extend_from_slice(&expiring.hash.to_le_bytes());
        put_place(&mut self.payload, expiring.offset, expiring.large);
        self.payload
            .extend_from_slice(&expiring.namespace.0.to_le_bytes());
        self.last_ms = expiring.expires_at_ms;
        self.entries += 1;
        Ok(())
    }

    /// Ends the last block; to be called at the end.
    pub(super) fn end_block(&mut self) -> io::Result<()> {
        if self.entries > 0 {
            self.payload[..2].copy_from_slice(&self.entries.to_le_bytes());
            self.blocks.push(&self.payload)?;
        }
        self.payload.clear();
        self.entries = 0;
        Ok(())
    }
}
