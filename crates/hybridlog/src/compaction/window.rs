//! Reading the records of a segment that is compacted, many with one read.

use std::io;

use crate::index::Index;
use crate::io::ReadBuffer;
use crate::key_file::RecoveryRecord;
use crate::open_files::FileKind;
use crate::record::{Decoded, RecordRef, decode};
use crate::segment::{Segment, State};
use crate::shared::Shared;

use super::Live;

/// Records of a segment, read from the device in one piece.
pub(super) struct Window {
    /// What was read, from this offset of the segment on; `None` if the segment is mapped.
    read: Option<(usize, ReadBuffer)>,
}

impl Window {
    pub(super) fn read<I: Index>(
        shared: &Shared<I>,
        segment: &Segment,
        records: &[Live],
    ) -> io::Result<Window> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(Window { read: None });
        };
        if shared.log.table.state(segment.number) == State::Warm {
            return Ok(Window { read: None });
        }
        let read = read_part(shared, segment, first.record.offset as usize, last.end)?;
        Ok(Window { read: Some(read) })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.read
            .as_ref()
            .map_or(0, |(_, buffer)| buffer.len() as u64)
    }

    /// A record that was asked for; `None` if it was in memory and is not any more. The caller is pinned.
    pub(super) fn record<'w, I: Index>(
        &'w self,
        shared: &'w Shared<I>,
        segment: &Segment,
        listed: &RecoveryRecord,
    ) -> io::Result<Option<RecordRef<'w>>> {
        let offset = listed.offset as usize;
        let Some((start, buffer)) = &self.read else {
            let Some(base) = shared.log.table.base(segment.number) else {
                return Ok(None);
            };
            // SAFETY: a key file lists where records begin; the segment is sealed, and the caller pinned.
            return Ok(Some(unsafe { RecordRef::new(base.as_ptr().add(offset)) }));
        };
        let longest = shared.log.geometry.segment_bytes() - offset;
        let why = match decode(&buffer[offset - start..], longest) {
            Decoded::Record(record) => return Ok(Some(record)),
            Decoded::Longer(_) => "the record is longer than its place",
            Decoded::Damaged(why) => why,
        };
        let path = shared.open_files.path(segment.file_id, FileKind::Records);
        let what = format!("{} at offset {offset}: {why}", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

/// Reads at least `from..to` of a segment's file, past the page cache. Returns where what was read begins.
fn read_part<I: Index>(
    shared: &Shared<I>,
    segment: &Segment,
    from: usize,
    to: usize,
) -> io::Result<(usize, ReadBuffer)> {
    let file = shared.open_files.get(segment, FileKind::Records)?;
    let alignment = file.alignment() as usize;
    let start = from - from % alignment;
    let end = to.next_multiple_of(alignment);
    let buffer = file.read_at_blocking(start as u64, end - start)?;
    Ok((start, buffer))
}
