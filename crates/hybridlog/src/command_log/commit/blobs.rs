//! Large values, written ahead of the frames that name them, by those who have them.

use std::io;

use parking_lot::MutexGuard;

use super::{Committer, Writer, check_open};
use crate::command_log::BlobId;

/// A blob is written in pieces of at most this, so that frames need not wait for all of it.
pub(in crate::command_log) const PIECE_MAX_BYTES: usize = 1 << 20;

impl Committer {
    pub(in crate::command_log) fn append_blob(
        &self,
        generation: u64,
        bytes: &[u8],
    ) -> io::Result<BlobId> {
        let mut blob = None;
        let pieces = bytes.chunks(PIECE_MAX_BYTES);
        for piece in pieces.chain(bytes.is_empty().then_some(bytes)) {
            let mut writer = self.writer_of(generation)?;
            let Some(file) = &mut writer.file else {
                break;
            };
            let blob = *blob.get_or_insert_with(|| file.next_blob());
            let before = file.end();
            file.write_piece(blob, piece)
                .map_err(|error| self.cannot_write(error))?;
            self.count_written((file.end() - before) as usize, file.end());
            // Frames that wait have their turn.
            MutexGuard::unlock_fair(writer);
        }
        Ok(blob.unwrap_or(BlobId::unlogged(generation)))
    }

    /// The writer, when `generation` is the one that is written.
    fn writer_of(&self, generation: u64) -> io::Result<MutexGuard<'_, Writer>> {
        {
            let gathered = self.gathered.lock();
            check_open(&gathered)?;
            if gathered.current.generation < generation {
                let why = format!("the log of generation {generation} has not begun");
                return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
            }
        }
        let writer = self.writer.lock();
        if writer.generation > generation {
            let why = format!("generation {generation} has ended");
            return Err(io::Error::new(io::ErrorKind::Interrupted, why));
        }
        Ok(writer)
    }
}
