//! The replies of a connection that have not been sent yet: encoded bytes, with large values in between as pieces that
//! are written from where they lie.

use std::ops::{Deref, DerefMut};

use hybridlog::Piece;
use resp::{Encoder, Protocol};

/// Unsent replies.
pub(crate) struct Output {
    encoder: Encoder,
    /// (position in the encoded bytes before which the piece goes, piece), ascending.
    pieces: Vec<(usize, Piece)>,
}

impl Output {
    /// From this length on a value is written from where it lies instead of being copied.
    pub(crate) const PIECE_MIN_BYTES: u64 = 16 * 1024;

    pub(crate) fn new(protocol: Protocol) -> Self {
        Output { encoder: Encoder::new(protocol), pieces: Vec::new() }
    }

    /// Adds a part of a bulk string's body.
    pub(crate) fn piece(&mut self, piece: Piece) {
        self.pieces.push((self.encoder.len(), piece));
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
