//! One log file being written: whole blocks behind each other. Whoever has it writes alone.
//!
//! A log that is synced often is filled with zeroes some way ahead of its end. A sync of blocks that overwrite those has no new
//! length and no new place in the file to make durable as well: it takes half the time, and half the processor time, of one
//! of blocks that make the file longer. What follows the end of a log is either zeroes or torn, so a replay can tell; and the
//! zeroes are cut off, durably, before the next generation's log is made, which says where this one ends.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, BlockKind, FILE_HEADER_BYTES, FileHeader, PIECE_HEADER_BYTES,
    log_name,
};
use super::gathered::BlockBuffer;
use super::{BlobId, Position};
use crate::disk::{Disk, DiskFile};

/// So much is written before it is pushed to the device and dropped from the page cache.
const CACHED_MAX_BYTES: u64 = 8 << 20;

/// A log of this length is filled ahead, by a quarter of its length within these bounds.
const FILLED_MIN_BYTES: u64 = 4 << 10;
const FILLING_BYTES: RangeInclusive<u64> = 4 << 10..=1 << 20;

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

pub(super) struct LogFile {
    file: Arc<dyn DiskFile>,
    generation: u64,
    log_id: u64,
    /// Up to here the file is sound: the next block goes there.
    end: u64,
    /// The length of the file: from `end` up to here it is filled with zeroes.
    filled: u64,
    /// Up to here it is known to be synced.
    durable: u64,
    /// A write has failed, and what it left behind `end` is still to be cut off.
    tail_is_dirty: bool,
    /// Something has been cut off. Whether a sync has covered that since is not known.
    was_cut: bool,
    blobs: u64,
    /// Up to here the page cache has been dropped.
    dropped: u64,
}

impl LogFile {
    /// Makes the log of `generation`, with its header, all of it durable. May be called again after an error.
    pub(super) fn create(
        disk: &dyn Disk,
        generation: u64,
        previous_end: Option<u64>,
    ) -> io::Result<LogFile> {
        let name = log_name(generation);
        let mut log_id = [0; 8];
        getrandom::fill(&mut log_id).map_err(|error| io::Error::other(error.to_string()))?;
        let header = FileHeader {
            generation,
            log_id: u64::from_le_bytes(log_id),
            previous_end,
        };
        let file: Arc<dyn DiskFile> = Arc::from(create_anew(disk, &name)?);
        let made = file
            .write_all_at(&header.encode(), 0)
            .and_then(|()| file.sync())
            .and_then(|()| disk.sync_directory());
        if let Err(error) = made {
            // Nothing has been promised about this file yet, so a failed sync is no more than a file that was not made.
            let _ = disk.remove(&name);
            return Err(error);
        }
        let end = FILE_HEADER_BYTES as u64;
        Ok(LogFile {
            file,
            generation,
            log_id: header.log_id,
            end,
            filled: end,
            durable: end,
            tail_is_dirty: false,
            was_cut: false,
            blobs: 0,
            dropped: 0,
        })
    }

    /// Bytes of the file, headers and all, without what it is filled with ahead.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The file, to be synced while others write to it.
    pub(super) fn handle(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }

    /// A sync that began when the file ended at `end` has succeeded.
    pub(super) fn synced(&mut self, end: u64) {
        self.durable = self.durable.max(end);
    }

    pub(super) fn is_synced(&self) -> bool {
        self.durable == self.end
    }

    /// Writes a block of frames. The file ends where it did before if this fails.
    pub(super) fn write_frames(&mut self, block: &mut BlockBuffer) -> io::Result<()> {
        block.pad(self.end);
        self.write_frames_of(block.as_mut())
    }

    /// Writes a block without frames, whose header says up to where the file is synced.
    pub(super) fn write_mark(&mut self) -> io::Result<()> {
        self.write_frames_of(&mut [0; BLOCK_HEADER_BYTES])
    }

    /// `block` is room for a block header, and the payload.
    fn write_frames_of(&mut self, block: &mut [u8]) -> io::Result<()> {
        let payload = &block[BLOCK_HEADER_BYTES..];
        let header = self.header(BlockKind::Frames, payload.len(), crc32c::crc32c(payload));
        block[..BLOCK_HEADER_BYTES].copy_from_slice(&header.encode());
        self.write(&[block])
    }

    /// A number for the next blob.
    pub(super) fn next_blob(&mut self) -> BlobId {
        self.blobs += 1;
        BlobId(Position::new(self.generation, self.blobs).0)
    }

    /// Writes a piece of a blob, without copying it. The file ends where it did before if this fails.
    pub(super) fn write_piece(&mut self, blob: BlobId, bytes: &[u8]) -> io::Result<()> {
        let blob = blob.0.to_le_bytes();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&blob), bytes);
        let header = self.header(BlockKind::Piece, PIECE_HEADER_BYTES + bytes.len(), crc);
        let head = [&header.encode()[..], &blob].concat();
        self.write(&[&head, bytes])
    }

    fn header(&self, kind: BlockKind, payload_bytes: usize, payload_crc: u32) -> BlockHeader {
        BlockHeader {
            kind,
            log_id: self.log_id,
            offset: self.end,
            payload_bytes: payload_bytes as u64,
            durable: self.durable,
            payload_crc,
        }
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.cut_dirty_tail()?;
        let mut end = self.end;
        for part in parts {
            if let Err(error) = self.file.write_uncached(part, end) {
                self.tail_is_dirty = true;
                // Gives back what the device has little of. If it fails, it is tried again before the next write.
                let _ = self.cut_dirty_tail();
                return Err(error);
            }
            end += part.len() as u64;
        }
        self.end = end;
        self.filled = self.filled.max(end);
        Ok(())
    }

    fn cut_dirty_tail(&mut self) -> io::Result<()> {
        if self.tail_is_dirty {
            self.file.truncate(self.end)?;
            self.filled = self.end;
            self.tail_is_dirty = false;
            self.was_cut = true;
        }
        Ok(())
    }

    /// Fills the file ahead of its end, if the last block has made it longer: the next sync has that to make durable anyway.
    pub(super) fn fill_ahead(&mut self) {
        if self.end < FILLED_MIN_BYTES || self.end < self.filled {
            return;
        }
        let bytes = (self.end / 4).clamp(*FILLING_BYTES.start(), *FILLING_BYTES.end());
        let until = self.end + bytes;
        while self.filled < until {
            let zeroes = &ZEROES[..ZEROES.len().min((until - self.filled) as usize)];
            if self.file.write_all_at(zeroes, self.filled).is_err() {
                // It can do without, and will say so itself if there is no space for blocks either.
                self.tail_is_dirty = true;
                return;
            }
            self.filled += zeroes.len() as u64;
        }
    }

    /// Cuts off what the file is filled with ahead.
    pub(super) fn cut_filling(&mut self) -> io::Result<()> {
        self.tail_is_dirty |= self.filled > self.end;
        self.cut_dirty_tail()
    }

    /// Whether the file may be longer after a power cut than it is now, although all blocks are synced.
    pub(super) fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// The file, if so much of it is in the page cache that it should be written back and dropped from there.
    pub(super) fn due_for_write_back(&mut self) -> Option<Arc<dyn DiskFile>> {
        if self.end - self.dropped < CACHED_MAX_BYTES {
            return None;
        }
        self.dropped = self.end;
        Some(self.file.clone())
    }
}

/// Makes the file. One that an earlier try has left, with a header at most, is removed.
fn create_anew(disk: &dyn Disk, name: &str) -> io::Result<Box<dyn DiskFile>> {
    match disk.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if disk.open(name)?.len()? > FILE_HEADER_BYTES as u64 {
                return Err(error);
            }
            disk.remove(name)?;
            disk.create(name)
        }
        made => made,
    }
}
