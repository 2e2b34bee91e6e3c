//! What has been appended and not been written yet, under one lock that is held for as long as a copy takes.

use super::format::BLOCK_HEADER_BYTES;
use super::{Health, Position, SyncPolicy, varint};

/// Frames of one generation, as the payload of the block that they will be.
pub(super) struct Buffer {
    pub(super) generation: u64,
    /// Whether the generation has a log; if not, nothing is stored.
    pub(super) logged: bool,
    /// Bytes of frames that the generation has.
    end: u64,
    /// Room for a block header, and the frames.
    block: Vec<u8>,
}

impl Buffer {
    pub(super) fn new(generation: u64, logged: bool) -> Buffer {
        Buffer {
            generation,
            logged,
            end: 0,
            block: empty_block(),
        }
    }

    /// Where the last frame ends.
    pub(super) fn end(&self) -> Position {
        Position::new(self.generation, self.end)
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.block.len() - BLOCK_HEADER_BYTES
    }

    fn push(&mut self, effects: &[u8]) {
        let before = self.block.len();
        varint::put(effects.len() as u64, &mut self.block);
        self.block.extend_from_slice(effects);
        self.end += (self.block.len() - before) as u64;
    }

    /// Gives the block away for an empty one.
    pub(super) fn take(&mut self, empty: &mut Vec<u8>) {
        debug_assert_eq!(empty.len(), BLOCK_HEADER_BYTES);
        std::mem::swap(&mut self.block, empty);
    }
}

/// A block without frames.
pub(super) fn empty_block() -> Vec<u8> {
    vec![0; BLOCK_HEADER_BYTES]
}

/// What the commit thread is doing, as far as those who append have to know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Sleeping: to be woken for anything.
    Idle,
    /// Letting frames gather: to be woken when there are many.
    Gathering,
    /// Looks for more work by itself before it sleeps.
    Busy,
}

/// Whether frames are still taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Intake {
    Open,
    /// Frames are dropped: the log is poisoned or closed.
    Shut,
}

pub(super) struct Gathered {
    pub(super) current: Buffer,
    /// The generation that has begun, if the current one has not ended.
    pub(super) next: Option<Buffer>,
    /// The current generation was to end and could not: the commit thread tries again.
    pub(super) ending: bool,
    /// Bytes of frames that have been taken out to be written and are not yet.
    pub(super) in_flight_bytes: usize,
    pub(super) intake: Intake,
    pub(super) phase: Phase,
    pub(super) sync: SyncPolicy,
    /// Up to here somebody waits.
    pub(super) wanted: Position,
    pub(super) health: Health,
    /// The commit thread is to end.
    pub(super) stopping: bool,
}

impl Gathered {
    pub(super) fn new(sync: SyncPolicy) -> Gathered {
        Gathered {
            current: Buffer::new(0, false),
            next: None,
            ending: false,
            in_flight_bytes: 0,
            intake: Intake::Open,
            phase: Phase::Busy,
            sync,
            wanted: Position::START,
            health: Health::Ok,
            stopping: false,
        }
    }

    /// Stores a frame and says where it ends.
    pub(super) fn push(&mut self, generation: u64, effects: &[u8]) -> Position {
        let buffer = match &mut self.next {
            Some(next) if next.generation == generation => next,
            _ => &mut self.current,
        };
        assert_eq!(
            buffer.generation, generation,
            "a frame of a generation that has ended or has not begun"
        );
        if !buffer.logged {
            return Position::START;
        }
        if self.intake == Intake::Open {
            buffer.push(effects);
            return buffer.end();
        }
        // Never durable, so that nobody takes it for written.
        Position::new(generation, Position::BYTES_MAX)
    }

    /// Bytes of frames that are in memory only.
    pub(super) fn pending_bytes(&self) -> usize {
        let next = self.next.as_ref().map_or(0, Buffer::pending_bytes);
        self.current.pending_bytes() + next + self.in_flight_bytes
    }

    /// Drops all frames, and all that come.
    pub(super) fn shut(&mut self) {
        self.intake = Intake::Shut;
        self.in_flight_bytes = 0;
        self.current.block = empty_block();
        if let Some(next) = &mut self.next {
            next.block = empty_block();
        }
    }
}
