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

/// A piece, or what is to be copied to make one.
enum Part<'o> {
    Piece(Piece),
    ToCopy(&'o [u8]),
}

impl<I: Index> Operation<'_, I> {
    /// The whole value as pieces, for a reply that is written without a copy wherever the value cannot change: in mapped
    /// segments and fetched buffers. What lies in the mutable region is copied, once `may_copy` has been asked whether so
    /// many bytes may be.
    ///
    /// # Errors
    ///
    /// As [`Self::value`], and that of `may_copy`.
    pub fn pieces<E: From<Stop>>(
        &self,
        record: &Record<'_>,
        may_copy: impl FnOnce(u64) -> Result<(), E>,
    ) -> Result<Vec<Piece>, E> {
        let found = &record.found;
        let mut parts = Vec::new();
        if found.is_chunked() {
            self.for_parts(&found.record, 0, record.len(), |part, page| {
                let have = page
                    .as_ref()
                    .map_or(0, |found| found.record.value().len().min(part.len()));
                if let Some(found) = page.filter(|_| have > 0) {
                    parts.push(self.part(&found, have));
                }
                if have < part.len() {
                    parts.push(Part::Piece(Piece(Bytes::Zeroes(part.len() - have))));
                }
            })?;
        } else {
            parts.push(self.part(found, found.record.value().len()));
        }
        // Only now is it certain: a page that was cold may have come back to memory when it was looked up.
        let to_copy = parts.iter().map(|part| match part {
            Part::Piece(_) => 0,
            Part::ToCopy(bytes) => bytes.len() as u64,
        });
        may_copy(to_copy.sum())?;
        let pieces = parts.into_iter().map(|part| match part {
            Part::Piece(piece) => piece,
            Part::ToCopy(bytes) => Piece(Bytes::Copied(bytes.to_vec())),
        });
        Ok(pieces.collect())
    }

    /// The first `len` bytes of the record's value.
    fn part<'o>(&self, found: &Found<'o>, len: usize) -> Part<'o> {
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
        if found.tier == Tier::Warm && lent.is_none() {
            count(&self.shared.counters.warm_copied_bytes, len as u64);
        }
        match lent {
            Some(bytes) => Part::Piece(Piece(bytes)),
            None => Part::ToCopy(&found.record.value()[..len]),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyRef, LatchMode, Namespace, Options, Store};

    /// Bytes of the pieces that are copies.
    fn copied(pieces: &[Piece]) -> u64 {
        let copies = pieces.iter().map(|piece| match &piece.0 {
            Bytes::Copied(bytes) => bytes.len() as u64,
            _ => 0,
        });
        copies.sum()
    }

    #[test]
    fn what_is_copied_has_been_asked_for() {
        const BYTES: usize = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<Store> = Store::open(Options::new(dir.path())).unwrap();
        let namespace = Namespace(0);
        let value: Vec<u8> = (0..BYTES).map(|at| (at / 8) as u8).collect();
        store.set(b"key", &value).unwrap();
        store.force_cold().unwrap();
        let latched = [KeyRef {
            namespace,
            key: b"key",
            mode: LatchMode::Shared,
        }];
        // Cold; then read a second time, which brings it back to memory; then in memory.
        let mut copies = 0;
        for read in 1..=3 {
            let mut asked = 0;
            let pieces = store
                .blocking(&latched, 1, |op| {
                    let record = op.read(namespace, b"key")?.expect("the key");
                    op.pieces(&record, |bytes| {
                        asked = bytes;
                        Ok(())
                    })
                })
                .unwrap();
            assert_eq!(copied(&pieces), asked, "read {read}");
            copies += asked;
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            assert!(bytes == value, "read {read}");
        }
        assert!(copies > 0, "nothing came back to memory");
    }
}
