//! The records of a sealed segment, where they lie in memory.
#![allow(unsafe_code)] // Reads records by their offsets.

use std::io;
use std::ptr::NonNull;

use super::write::{Listed, SegmentRecords, WrittenKeyFile, write};
use crate::address::{SlotKind, size_class};
use crate::index::Index;
use crate::large::owns_pages;
use crate::record::{RecordRef, flag};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::sys::prefetch;
use crate::tree::look_at_ms;

impl<I: Index> Shared<I> {
    /// Writes the key file of a sealed segment whose bytes are at `base`: nobody changes it any more, and its memory stays
    /// until this returns.
    ///
    /// # Errors
    ///
    /// Those of the disk; it can be tried again.
    pub(crate) fn write_key_file(
        &self,
        segment: &Segment,
        base: NonNull<u8>,
    ) -> io::Result<WrittenKeyFile> {
        let records = SealedRecords { shared: self, base };
        write(&*self.disk, segment.file_id, &records)
    }
}

struct SealedRecords<'s, I> {
    shared: &'s Shared<I>,
    base: NonNull<u8>,
}

impl<I: Index> SealedRecords<'_, I> {
    fn listed<'r>(&self, offset: u32, record: &RecordRef<'r>) -> Listed<'r> {
        Listed {
            offset,
            size_class: size_class(record.flags(), record.record_bytes()),
            kind: match record.flags() & flag::PAGE {
                0 => SlotKind::Root,
                _ => SlotKind::Page,
            },
            namespace: record.namespace(),
            meta: record.meta(),
            large: owns_pages(record),
            look_at_ms: look_at_ms(record),
            key: record.key(),
        }
    }
}

impl<I: Index> SegmentRecords for SealedRecords<'_, I> {
    fn for_each(&self, each: &mut dyn FnMut(Listed<'_>)) {
        self.shared.log.table.walk(self.base, |offset, record| {
            if record.flags() & flag::VOID == 0 {
                each(self.listed(offset as u32, &record));
            }
        });
    }

    fn at(&self, offset: u32) -> Listed<'_> {
        // SAFETY: `for_each` has given this offset, so a record begins there in a segment that is sealed and stays in memory
        // while this exists.
        let record = unsafe { RecordRef::new(self.base.as_ptr().add(offset as usize)) };
        self.listed(offset, &record)
    }

    fn prefetch(&self, offset: u32) {
        let record = self.base.as_ptr().wrapping_add(offset as usize);
        prefetch(record);
        // A key that is not too long ends in the second line.
        prefetch(record.wrapping_add(63));
    }

    fn hash(&self, record: &Listed<'_>) -> u64 {
        match (record.kind, record.key.try_into()) {
            (SlotKind::Page, Ok(page_key)) => self.shared.page_hash(page_key),
            _ => self.shared.hash(record.namespace, record.key),
        }
    }
}
