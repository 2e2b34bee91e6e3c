//! What has been appended and not been written yet, under one lock that is held for as long as a copy takes.

use super::commit::Waiting;
use super::format::BLOCK_HEADER_BYTES;
use super::{Health, Position, SyncPolicy, varint};

/// What is written past the page cache begins and ends with such a page, in memory and in the file.
const PAGE_BYTES: usize = 4096;

/// Shorter blocks are not padded: a log that little is appended to would be zeroes for the most part.
const PADDED_MIN_BYTES: usize = 64 << 10;

/// An empty block keeps up to this whatever was in it.
const BLOCK_KEPT_BYTES: usize = 1 << 20;

/// Frames of one generation, as the payload of the block that they will be.
pub(super) struct Buffer {
    pub(super) generation: u64,
    /// Whether the generation has a log; if not, nothing is stored.
    pub(super) logged: bool,
    /// Bytes of frames that the generation has.
    end: u64,
    block: BlockBuffer,
}

impl Buffer {
    pub(super) fn new(generation: u64, logged: bool) -> Buffer {
        Buffer {
            generation,
            logged,
            end: 0,
            block: BlockBuffer::new(),
        }
    }

    /// Where the last frame ends.
    pub(super) fn end(&self) -> Position {
        Position::new(self.generation, self.end)
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.block.payload_bytes()
    }

    fn push(&mut self, effects: &[u8]) {
        self.end += self.block.push(effects);
    }

    /// Gives the block away for an empty one.
    pub(super) fn take(&mut self, empty: &mut BlockBuffer) {
        debug_assert!(empty.payload_bytes() == 0);
        std::mem::swap(&mut self.block, empty);
    }
}

/// A block in the making: room for its header, and frames. In memory it begins where a page does, so that it can be written
/// past the page cache; but for one that has outgrown the memory it began in.
pub(super) struct BlockBuffer {
    bytes: Vec<u8>,
    /// Where in `bytes` the block begins.
    start: usize,
}

impl BlockBuffer {
    /// A block without frames.
    pub(super) fn new() -> BlockBuffer {
        let mut block = BlockBuffer {
            bytes: Vec::new(),
            start: 0,
        };
        block.begin();
        block
    }

    fn begin(&mut self) {
        self.bytes.clear();
        self.start = self.bytes.as_ptr().align_offset(PAGE_BYTES) % PAGE_BYTES;
        self.bytes.resize(self.start + BLOCK_HEADER_BYTES, 0);
    }

    /// Appends a frame, and says how many bytes it takes.
    fn push(&mut self, effects: &[u8]) -> u64 {
        debug_assert!(!effects.is_empty(), "an empty frame is padding");
        let before = self.bytes.len();
        varint::put(effects.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(effects);
        (self.bytes.len() - before) as u64
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.len() - BLOCK_HEADER_BYTES
    }

    /// Bytes of the block, its header included.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Fills the block up with zeroes so that it ends with a page of its file, in which it begins at `offset`; if it is so long
    /// that this does not matter.
    pub(super) fn pad(&mut self, offset: u64) {
        if self.len() >= PADDED_MIN_BYTES {
            let end = offset as usize + self.len();
            let padding = end.next_multiple_of(PAGE_BYTES) - end;
            self.bytes.resize(self.bytes.len() + padding, 0);
        }
    }

    /// The room for its header, and its payload.
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Empties it, and gives memory back that the last ones have not needed.
    pub(super) fn clear(&mut self) {
        let (used, capacity) = (self.bytes.len(), self.bytes.capacity());
        self.bytes.clear();
        if used < capacity / 4 {
            self.bytes.shrink_to((capacity / 2).max(BLOCK_KEPT_BYTES));
        }
        self.begin();
    }
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
    /// The tasks among those who wait.
    pub(super) waiting: Waiting,
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
            waiting: Waiting::default(),
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
        self.current.block = BlockBuffer::new();
        if let Some(next) = &mut self.next {
            next.block = BlockBuffer::new();
        }
    }
}
