//! Bytes of a value that outlive the operation that found them, so that a large reply is written from where it lies.

use std::ops::Deref;
use std::sync::Arc;

use crate::Stop;
use crate::index::Index;
use crate::io::ReadBuffer;
use crate::operation::{Found, Operation, Record, Tier};
use crate::stats::count;
use crate::sys::FileMapping;

/// Bytes of a value that stay valid after the operation has ended: a part of a mapped segment, which stays mapped until
/// the piece is dropped; a part of a fetched buffer; or a copy.
pub struct Piece(Bytes);

enum Bytes {
    Mapped {
        mapping: Arc<FileMapping>,
        offset: usize,
        len: usize,
    },
    Fetched {
        buffer: Arc<ReadBuffer>,
        offset: usize,
        len: usize,
    },
    Copied(Vec<u8>),
    Zeroes(usize),
}

/// Where zeroes come from.
static ZEROES: [u8; crate::large::PAGE_BYTES as usize] = [0; crate::large::PAGE_BYTES as usize];

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped {
                mapping,
                offset,
                len,
            } => mapping.slice(*offset, *len),
            Bytes::Fetched {
                buffer,
                offset,
                len,
            } => &buffer[*offset..*offset + *len],
            Bytes::Copied(bytes) => bytes,
            Bytes::Zeroes(len) => &ZEROES[..*len],
        }
    }
}

impl Piece {
    /// Bytes of memory the piece holds that nothing else accounts for.
    pub fn held_bytes(&self) -> usize {
        match &self.0 {
            Bytes::Mapped { .. } | Bytes::Zeroes(_) => 0,
            Bytes::Fetched { buffer, .. } => buffer.len(),
            Bytes::Copied(bytes) => bytes.capacity(),
        }
    }
}

impl<I: Index> Operation<'_, I> {
    /// The whole value as pieces, for a reply that is written without a copy wherever the value cannot change: in mapped
    /// segments and fetched buffers. What lies in the mutable region is copied.
    ///
    /// # Errors
    ///
    /// As [`Self::value`].
    pub fn pieces(&self, record: &Record<'_>) -> Result<Vec<Piece>, Stop> {
        let found = &record.found;
        if !found.is_chunked() {
            return Ok(vec![self.piece(found, found.record.value().len())]);
        }
        let mut pieces = Vec::new();
        self.for_parts(&found.record, 0, record.len(), |part, page| {
            let have = page
                .as_ref()
                .map_or(0, |found| found.record.value().len().min(part.len()));
            if let Some(found) = page.filter(|_| have > 0) {
                pieces.push(self.piece(&found, have));
            }
            if have < part.len() {
                pieces.push(Piece(Bytes::Zeroes(part.len() - have)));
            }
        })?;
        Ok(pieces)
    }

    /// Bytes of the value that [`Self::pieces`] copies: those that lie in the mutable region.
    ///
    /// # Errors
    ///
    /// As [`Self::value`].
    pub fn bytes_to_copy(&self, record: &Record<'_>) -> Result<u64, Stop> {
        let copied = |tier, len| if tier == Tier::Hot { len as u64 } else { 0 };
        let found = &record.found;
        if !found.is_chunked() {
            return Ok(copied(found.tier, found.record.value().len()));
        }
        let mut bytes = 0;
        self.for_parts(&found.record, 0, record.len(), |part, page| {
            bytes += page.map_or(0, |page| copied(page.tier, part.len()));
        })?;
        Ok(bytes)
    }

    /// The first `len` bytes of the record's value.
    fn piece(&self, found: &Found<'_>, len: usize) -> Piece {
        let lent = match found.tier {
            Tier::Hot => None,
            Tier::Warm => self.mapped(found, len),
            Tier::Cold => self
                .reads
                .buffer(found.slot.address())
                .map(|(buffer, record_at)| {
                    let offset = record_at + found.record.value_at();
                    Bytes::Fetched {
                        buffer,
                        offset,
                        len,
                    }
                }),
        };
        Piece(lent.unwrap_or_else(|| {
            if found.tier == Tier::Warm {
                count(&self.shared.counters.warm_copied_bytes, len as u64);
            }
            Bytes::Copied(found.record.value()[..len].to_vec())
        }))
    }

    fn mapped(&self, found: &Found<'_>, len: usize) -> Option<Bytes> {
        let address = found.slot.address();
        let mapping = self
            .shared
            .log
            .table
            .segment(address)?
            .mapping
            .lock()
            .clone()?;
        let offset = self.shared.log.geometry.offset(address) + found.record.value_at();
        Some(Bytes::Mapped {
            mapping,
            offset,
            len,
        })
    }
}
