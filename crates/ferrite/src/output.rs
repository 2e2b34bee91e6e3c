//! The replies of a connection that have not been sent yet: encoded bytes, with large values in between as pieces that
//! are written from where they lie.
//!
//! Positions are offsets into the encoded bytes. What has been sent is `written` encoded bytes and `piece_written`
//! bytes of the front piece; a piece is due once everything before its position has been sent.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::{Deref, DerefMut};

use hybridlog::Piece;
use resp::{Encoder, Protocol};

use crate::command::Stop;
use crate::memory::Allowance;

/// Sent bytes in front of those that are pending are dropped when they are more than this.
const DROP_BYTES: usize = 64 * 1024;
/// So many encoded bytes need no large buffer while they wait.
const FEW_BYTES: usize = 512;

/// A part of a bulk string's body.
enum Part {
    /// From the engine. If it lies there still, that cannot give its memory back meanwhile.
    Piece(Piece),
    /// A copy, made for a client that is slow to take it.
    Copy(Vec<u8>),
}

impl Part {
    fn is_lent(&self) -> bool {
        matches!(self, Part::Piece(piece) if piece.held_bytes() == 0)
    }
}

impl Deref for Part {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Part::Piece(piece) => piece,
            Part::Copy(bytes) => bytes,
        }
    }
}

/// Unsent replies.
pub(crate) struct Output {
    encoder: Encoder,
    /// (position before which the piece goes, piece), ascending.
    pieces: VecDeque<(usize, Part)>,
    /// How many of them are lent.
    lent: usize,
    /// Bytes of all `pieces`.
    piece_bytes: usize,
    written: usize,
    piece_written: usize,
}

/// A place in the output that it can be cut back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mark {
    encoded: usize,
    pieces: usize,
}

impl Output {
    /// From this length on a value is written from where it lies instead of being copied.
    pub(crate) const PIECE_MIN_BYTES: u64 = 16 * 1024;
    /// Bytes of a bulk string beside its body, at most.
    pub(crate) const BULK_BYTES: usize = 32;

    pub(crate) fn new(protocol: Protocol) -> Self {
        Output {
            encoder: Encoder::new(protocol),
            pieces: VecDeque::new(),
            lent: 0,
            piece_bytes: 0,
            written: 0,
            piece_written: 0,
        }
    }

    /// Takes a buffer to write to, if it has none.
    pub(crate) fn set_buffer(&mut self, buffer: impl FnOnce() -> Option<Vec<u8>>) {
        let own = self.encoder.buffer_mut();
        if own.capacity() == 0
            && let Some(buffer) = buffer()
        {
            *own = buffer;
        }
    }

    /// The buffer, if nothing is pending and it is no longer needed.
    pub(crate) fn take_buffer(&mut self) -> Option<Vec<u8>> {
        (!self.has_pending()).then(|| {
            self.written = 0;
            std::mem::take(self.encoder.buffer_mut())
        })
    }

    /// The buffer, if the encoded bytes are few; they go on in one of their size.
    pub(crate) fn take_large_buffer(&mut self) -> Option<Vec<u8>> {
        let buffer = self.encoder.buffer_mut();
        let is_large = buffer.len() <= FEW_BYTES && buffer.capacity() > 2 * FEW_BYTES;
        is_large.then(|| {
            let few = buffer.as_slice().to_vec();
            std::mem::replace(buffer, few)
        })
    }

    /// Asks for the memory that the buffer will take if a bulk string of `len` bytes makes it grow.
    pub(crate) fn ask_for_room(&mut self, memory: &mut Allowance, len: usize) -> Result<(), Stop> {
        let buffer = self.encoder.buffer_mut();
        let needed = buffer.len() + len + Self::BULK_BYTES;
        if needed <= buffer.capacity() {
            return Ok(());
        }
        memory.ask(needed.max(2 * buffer.capacity()) as u64)
    }

    /// Takes the memory that `bytes` more will need, and no more than that, now: for what must not fail later.
    pub(crate) fn make_room(&mut self, memory: &mut Allowance, bytes: usize) -> Result<(), Stop> {
        let buffer = self.encoder.buffer_mut();
        if buffer.capacity() - buffer.len() < bytes {
            memory.ask((buffer.len() + bytes) as u64)?;
            buffer.reserve_exact(bytes);
        }
        Ok(())
    }

    /// Writes a bulk string, one of many perhaps, once there is the memory for it.
    pub(crate) fn bulk_within(&mut self, memory: &mut Allowance, bytes: &[u8]) -> Result<(), Stop> {
        self.ask_for_room(memory, bytes.len())?;
        self.encoder.bulk(bytes);
        Ok(())
    }

    /// Writes what `write` writes in front of what was written after `mark`: the header of a reply whose length was not
    /// known before. There are no pieces behind the mark.
    pub(crate) fn insert(&mut self, mark: Mark, write: impl FnOnce(&mut Encoder)) {
        let end = self.encoder.len();
        write(&mut self.encoder);
        let inserted = self.encoder.len() - end;
        self.encoder.buffer_mut()[mark.encoded..].rotate_right(inserted);
    }

    /// Adds a part of a bulk string's body.
    pub(crate) fn piece(&mut self, piece: Piece) {
        self.piece_bytes += piece.len();
        let part = Part::Piece(piece);
        self.lent += usize::from(part.is_lent());
        self.pieces.push_back((self.encoder.len(), part));
    }

    /// Where the next reply starts. Valid until something is sent.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            encoded: self.encoder.len(),
            pieces: self.pieces.len(),
        }
    }

    /// Drops what was written after `mark`.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.encoder.truncate(mark.encoded);
        for (_, piece) in self.pieces.drain(mark.pieces..) {
            self.piece_bytes -= piece.len();
            self.lent -= usize::from(piece.is_lent());
        }
    }

    /// The text of the error reply that starts at `mark`, without its dash.
    pub(crate) fn error_text_since(&self, mark: Mark) -> &[u8] {
        self.encoder
            .as_bytes()
            .get(mark.encoded + 1..)
            .unwrap_or_default()
    }

    /// What was written after `mark`, without pieces.
    pub(crate) fn encoded_since(&self, mark: Mark) -> &[u8] {
        &self.encoder.as_bytes()[mark.encoded..]
    }

    /// Bytes of what was written after `mark`.
    pub(crate) fn bytes_since(&self, mark: Mark) -> usize {
        let pieces = self.pieces.iter().skip(mark.pieces);
        self.encoder.len() - mark.encoded + pieces.map(|(_, piece)| piece.len()).sum::<usize>()
    }

    /// Takes out what was written after `mark`.
    pub(crate) fn split_off(&mut self, mark: Mark) -> Output {
        let mut rest = Output::new(self.encoder.protocol());
        let buffer = self.encoder.buffer_mut();
        *rest.encoder.buffer_mut() = match mark.encoded {
            // With the room that has been made in it.
            0 => std::mem::take(buffer),
            encoded => buffer.split_off(encoded),
        };
        for (position, piece) in self.pieces.drain(mark.pieces..) {
            let lent = usize::from(piece.is_lent());
            self.piece_bytes -= piece.len();
            self.lent -= lent;
            rest.piece_bytes += piece.len();
            rest.lent += lent;
            rest.pieces.push_back((position - mark.encoded, piece));
        }
        rest
    }

    /// Appends the replies of `other`, which nothing has been sent of.
    pub(crate) fn append(&mut self, mut other: Output) {
        let offset = self.encoder.len();
        match offset {
            0 => std::mem::swap(self.encoder.buffer_mut(), other.encoder.buffer_mut()),
            _ => self.encoder.raw(other.encoder.as_bytes()),
        }
        self.piece_bytes += other.piece_bytes;
        self.lent += other.lent;
        self.pieces.extend(
            other
                .pieces
                .into_iter()
                .map(|(position, piece)| (position + offset, piece)),
        );
    }

    /// Bytes that have not been sent yet.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.encoder.len() - self.written + self.piece_bytes - self.piece_written
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.encoder.len() > self.written || !self.pieces.is_empty()
    }

    /// Whether there are unsent pieces that lie in the engine.
    pub(crate) fn has_lent(&self) -> bool {
        self.lent > 0
    }

    /// Copies what lies in the engine, so that a client that is slow to take it does not keep the engine's memory.
    pub(crate) fn give_back(&mut self) {
        for (_, part) in &mut self.pieces {
            if part.is_lent() {
                *part = Part::Copy(part.to_vec());
            }
        }
        self.lent = 0;
    }

    /// Bytes of the unsent pieces that lie in the engine.
    pub(crate) fn lent_bytes(&self) -> usize {
        let lent = self.pieces.iter().filter(|(_, part)| part.is_lent());
        lent.map(|(_, part)| part.len()).sum()
    }

    /// Number of pieces not sent yet.
    pub(crate) fn pending_pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Memory taken by the encoded bytes.
    pub(crate) fn capacity_bytes(&mut self) -> usize {
        self.encoder.buffer_mut().capacity()
    }

    /// The unsent bytes, in order, as many slices of them as fit; returns how many.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let encoded = self.encoder.as_bytes();
        let mut position = self.written;
        let mut skip = self.piece_written;
        let mut count = 0;
        let mut pieces = self.pieces.iter();
        while count < slices.len() {
            let piece = pieces.next();
            let gap_end = piece.map_or(encoded.len(), |(at, _)| *at);
            if gap_end > position {
                slices[count] = IoSlice::new(&encoded[position..gap_end]);
                count += 1;
                position = gap_end;
            }
            let Some((_, piece)) = piece else { break };
            if count < slices.len() && piece.len() > skip {
                slices[count] = IoSlice::new(&piece[skip..]);
                count += 1;
            }
            skip = 0;
        }
        count
    }

    /// Takes note that the first `sent` of the pending bytes have been sent.
    pub(crate) fn advance(&mut self, mut sent: usize) {
        while let Some((position, piece)) = self.pieces.front() {
            let gap = position - self.written;
            if sent < gap {
                break;
            }
            self.written = *position;
            sent -= gap;
            let left = piece.len() - self.piece_written;
            if sent < left {
                self.piece_written += sent;
                return;
            }
            sent -= left;
            self.piece_bytes -= piece.len();
            self.lent -= usize::from(piece.is_lent());
            self.piece_written = 0;
            self.pieces.pop_front();
        }
        self.written += sent;
        self.drop_sent();
    }

    /// Gives back the room of sent bytes: all at once when nothing is pending, else when they are the larger half,
    /// which keeps the cost of moving the rest constant per byte.
    fn drop_sent(&mut self) {
        if !self.has_pending() {
            self.encoder.truncate(0);
            self.written = 0;
        } else if self.written > DROP_BYTES && self.written > self.encoder.len() / 2 {
            self.encoder.buffer_mut().drain(..self.written);
            for (position, _) in &mut self.pieces {
                *position -= self.written;
            }
            self.written = 0;
        }
    }
}

impl Deref for Output {
    type Target = Encoder;
    fn deref(&self) -> &Encoder {
        &self.encoder
    }
}

impl DerefMut for Output {
    fn deref_mut(&mut self) -> &mut Encoder {
        &mut self.encoder
    }
}
