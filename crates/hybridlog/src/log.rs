//! The tail of the log: where records are appended.
//!
//! Threads append from chunks of the open segment that are theirs alone, so appending touches no shared cache line but
//! every 64 KiB. A segment is covered by records and fillers without gaps once no chunk of it is open any more.
#![allow(unsafe_code)] // Hands out and fills parts of frames.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::address::{Geometry, Slot};
use crate::generation::Parity;
use crate::record::{Draft, RecordRef, write_filler};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentTable, State, header};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, global, thread_local};
use crate::sys::{HUGE_PAGE_BYTES, Reservation};
use crate::tiering::SEGMENTS_IN_TRANSIT;

/// What a thread takes from the open segment at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Longer records take a part of the segment of their own: ending a chunk for one would waste up to as much again.
const CHUNK_RECORD_MAX_BYTES: usize = CHUNK_BYTES / 8;

/// Threads share these, so that a handful of threads have one each.
const APPENDERS: usize = 16;

/// Segments beyond the budget that appends may open when they must not fail: second chances, and the later steps of a
/// command that has already changed something. They are part of the fixed share of the memory budget.
pub(crate) const EMERGENCY_SEGMENTS: usize = 1;

/// Whether an append may fail for lack of room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Fails when the budget is used up.
    Normal,
    /// May use the emergency reserve.
    Emergency,
}

/// There is no room for the record now.
#[derive(Debug)]
pub(crate) struct NoRoom;

/// Part of the open segment that belongs to one appender: `at..end` are offsets of unused bytes.
struct Chunk {
    segment: u32,
    base: NonNull<u8>,
    at: usize,
    end: usize,
}

// SAFETY: the pointer is into a frame that stays until the chunk has been detached (see `detach`), and the bytes
// `at..end` are reachable through this chunk alone.
unsafe impl Send for Chunk {}

/// The open segment and how far it has been given out.
struct Open {
    segment: Arc<Segment>,
    base: NonNull<u8>,
    at: usize,
}

// SAFETY: as for `Chunk`.
unsafe impl Send for Open {}

/// Where the operations of one generation append.
struct Tail {
    appenders: Box<[CachePadded<Mutex<Option<Chunk>>>]>,
    open: Mutex<Option<Open>>,
}

impl Tail {
    fn new() -> Tail {
        Tail {
            appenders: (0..APPENDERS).map(|_| CachePadded::default()).collect(),
            open: Mutex::new(None),
        }
    }
}

/// Segments in memory, oldest first.
#[derive(Default)]
pub(crate) struct Ages {
    pub(crate) mutable: VecDeque<Arc<Segment>>,
    pub(crate) warm: VecDeque<Arc<Segment>>,
}

impl Ages {
    /// Takes a segment out, wherever it is.
    pub(crate) fn forget(&mut self, segment: &Arc<Segment>) {
        self.mutable.retain(|other| !Arc::ptr_eq(other, segment));
        self.warm.retain(|other| !Arc::ptr_eq(other, segment));
    }
}

pub(crate) struct Log {
    pub(crate) geometry: Geometry,
    pub(crate) table: SegmentTable,
    frames: Frames,
    /// Where the operations of an even and of an odd generation append: two generations are alive while a checkpoint
    /// waits for the older one's operations to end.
    tails: [Tail; 2],
    pub(crate) ages: Mutex<Ages>,
    /// Segments in memory, mutable and warm.
    in_memory: AtomicUsize,
    /// How many may be; shrinks as the index grows.
    budget: AtomicUsize,
    /// Whether the rest of the memory leaves the log too little: then only what must not fail opens a segment.
    out_of_memory: AtomicBool,
    /// Whether the open segment is half full since the last frame was prepared.
    wants_frame: AtomicBool,
    next_file_id: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
}

impl Log {
    /// `segments_max` bounds how many segments the budget can ever allow; file ids below `next_file_id` are taken.
    pub(crate) fn new(
        geometry: Geometry,
        budget: usize,
        segments_max: usize,
        next_file_id: u64,
    ) -> io::Result<Log> {
        Ok(Log {
            geometry,
            table: SegmentTable::new(geometry)?,
            frames: Frames::new(geometry.segment_bytes(), segments_max + SEGMENTS_IN_TRANSIT)?,
            tails: [Tail::new(), Tail::new()],
            ages: Mutex::new(Ages::default()),
            in_memory: AtomicUsize::new(0),
            budget: AtomicUsize::new(budget),
            out_of_memory: AtomicBool::new(false),
            wants_frame: AtomicBool::new(false),
            next_file_id: AtomicU64::new(next_file_id),
            appended_bytes: AtomicU64::new(0),
        })
    }

    pub(crate) fn set_budget(&self, segments: usize) {
        self.budget.store(
            segments.min(self.frames.count - SEGMENTS_IN_TRANSIT),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    pub(crate) fn set_out_of_memory(&self, is: bool) {
        self.out_of_memory.store(is, Ordering::Relaxed);
    }

    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.out_of_memory.load(Ordering::Relaxed)
    }

    pub(crate) fn in_memory(&self) -> usize {
        self.in_memory.load(Ordering::Relaxed)
    }

    /// Segments that can be opened before the budget is used up.
    pub(crate) fn free_segments(&self) -> usize {
        self.budget().saturating_sub(self.in_memory())
    }

    /// A segment has left memory.
    pub(crate) fn left_memory(&self) {
        self.in_memory.fetch_sub(1, Ordering::Relaxed);
    }

    /// Above all file ids given out.
    pub(crate) fn next_file_id(&self) -> u64 {
        self.next_file_id.load(Ordering::Relaxed)
    }

    /// A file id for a segment, never given out before.
    pub(crate) fn new_file_id(&self) -> u64 {
        self.next_file_id.fetch_add(1, Ordering::Relaxed)
    }

    fn tail(&self, generation: u64) -> &Tail {
        &self.tails[Parity::of(generation) as usize]
    }

    /// Appends a record of `generation`. The caller is pinned, and publishes the slot before it unpins. No room: nothing
    /// has happened.
    pub(crate) fn append(
        &self,
        draft: &Draft<'_>,
        urgency: Urgency,
        generation: u64,
    ) -> Result<Slot, NoRoom> {
        let bytes = draft.record_bytes();
        let mut chunk = self.tail(generation).appenders[thread_number() % APPENDERS].lock();
        match &mut *chunk {
            Some(chunk) if chunk.end - chunk.at >= bytes => Ok(self.write(chunk, draft, bytes)),
            _ if bytes > CHUNK_RECORD_MAX_BYTES => {
                let mut own = self.take_chunk(bytes, bytes, urgency, generation)?;
                Ok(self.write(&mut own, draft, bytes))
            }
            spent => {
                let mut fresh = self.take_chunk(bytes, CHUNK_BYTES, urgency, generation)?;
                let slot = self.write(&mut fresh, draft, bytes);
                if let Some(spent) = spent.replace(fresh) {
                    fill(&spent);
                }
                Ok(slot)
            }
        }
    }

    /// Writes a record at the beginning of a chunk that has the room.
    fn write(&self, chunk: &mut Chunk, draft: &Draft<'_>, bytes: usize) -> Slot {
        let address = self.geometry.address(chunk.segment, chunk.at);
        let slot = Slot::new(address, draft.flags, bytes);
        assert!(bytes <= chunk.end - chunk.at);
        // SAFETY: `bytes` at `at` are the chunk's, unused, aligned; the frame outlives the pin of whoever appends.
        unsafe { draft.write(chunk.base.as_ptr().add(chunk.at)) };
        chunk.at += bytes;
        slot
    }

    /// Marks a copy that lost the race for its slot. The caller appended it under its current pin.
    pub(crate) fn make_void(&self, slot: Slot) {
        if let crate::segment::Place::Memory { base, .. } = self.table.place(slot.address()) {
            // SAFETY: appended by the caller under its current pin and named by no slot; its segment cannot be flushed
            // before that pin ends.
            unsafe { RecordRef::new(base.as_ptr()).make_void() };
        }
    }

    /// `wanted` bytes of the open segment, or the `bytes` at least that it has left; opens another if those do not fit.
    fn take_chunk(
        &self,
        bytes: usize,
        wanted: usize,
        urgency: Urgency,
        generation: u64,
    ) -> Result<Chunk, NoRoom> {
        let segment_bytes = self.geometry.segment_bytes();
        assert!(
            bytes <= segment_bytes - SEGMENT_HEADER_BYTES,
            "a record of {bytes} bytes fits no segment"
        );
        let mut open = self.tail(generation).open.lock();
        let fits = open
            .as_ref()
            .is_some_and(|open| segment_bytes - open.at >= bytes);
        if !fits {
            let fresh = self.open_segment(urgency, generation)?;
            if let Some(full) = open.replace(fresh) {
                fill_rest(&full, segment_bytes);
            }
        }
        let open = open.as_mut().ok_or(NoRoom)?;
        let take = bytes.max(wanted).min(segment_bytes - open.at);
        let chunk = Chunk {
            segment: open.segment.number,
            base: open.base,
            at: open.at,
            end: open.at + take,
        };
        let half = segment_bytes / 2;
        if (open.at..open.at + take).contains(&half) {
            self.wants_frame.store(true, Ordering::Relaxed);
        }
        open.at += take;
        self.appended_bytes
            .fetch_add(take as u64, Ordering::Relaxed);
        Ok(chunk)
    }

    /// Whether the segment after the open one will soon be begun, and its frame should be prepared.
    #[inline]
    pub(crate) fn wants_frame(&self) -> bool {
        self.wants_frame.load(Ordering::Relaxed)
    }

    /// Gets memory for the next segment. The kernel may take ten milliseconds for a huge page, which whoever touches it first
    /// would wait for: pinned, with his latches, and a generation that cannot end.
    pub(crate) fn prepare_frame(&self) {
        self.wants_frame.store(false, Ordering::Relaxed);
        self.frames.prepare();
    }

    /// Whether a segment is open for operations of `generation`.
    pub(crate) fn has_open_segment(&self, generation: u64) -> bool {
        self.tail(generation).open.lock().is_some()
    }

    fn open_segment(&self, urgency: Urgency, generation: u64) -> Result<Open, NoRoom> {
        let limit = self.budget()
            + if urgency == Urgency::Emergency {
                EMERGENCY_SEGMENTS
            } else {
                0
            };
        let refused = urgency == Urgency::Normal && self.is_out_of_memory();
        if refused || !self.enter_memory(limit) {
            return Err(NoRoom);
        }
        let opened = self.open_frame(generation);
        if opened.is_err() {
            self.left_memory();
        }
        opened
    }

    /// Counts one more segment in memory, unless there are `limit` already.
    fn enter_memory(&self, limit: usize) -> bool {
        let grown = |segments| (segments < limit).then_some(segments + 1);
        self.in_memory
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .is_ok()
    }

    /// A frame for records that are copied and do not change any more; one may be open at a time. It is part of the fixed
    /// share of the memory budget.
    pub(crate) fn open_for_copies(&self, generation: u64) -> Option<(Arc<Segment>, NonNull<u8>)> {
        let (frame, base) = self.frames.take()?;
        let file_id = self.new_file_id();
        let Some(segment) = self.table.add(base, frame, file_id, generation) else {
            self.frames.give_back(frame);
            return None;
        };
        segment.is_counted.store(false, Ordering::Relaxed);
        self.table.publish(&segment, Some(base), State::Sealed);
        self.write_header(base, file_id);
        Some((segment, base))
    }

    fn write_header(&self, base: NonNull<u8>, file_id: u64) {
        let header = header(self.geometry.segment_bytes(), file_id);
        // SAFETY: a frame that has just been taken: `segment_bytes` long and nobody else's.
        unsafe {
            base.as_ptr()
                .copy_from_nonoverlapping(header.as_ptr(), header.len());
        };
    }

    fn open_frame(&self, generation: u64) -> Result<Open, NoRoom> {
        let (frame, base) = self.frames.take().ok_or(NoRoom)?;
        let file_id = self.new_file_id();
        let Some(segment) = self.table.add(base, frame, file_id, generation) else {
            self.frames.give_back(frame);
            return Err(NoRoom);
        };
        self.write_header(base, file_id);
        self.ages.lock().mutable.push_back(segment.clone());
        Ok(Open {
            segment,
            base,
            at: SEGMENT_HEADER_BYTES,
        })
    }

    /// Ends appending to `segment`: after this and an epoch barrier it is covered by records and fillers, all written.
    pub(crate) fn detach(&self, segment: &Segment) {
        let tail = self.tail(segment.generation);
        {
            let mut open = tail.open.lock();
            if open
                .as_ref()
                .is_some_and(|open| open.segment.number == segment.number)
                && let Some(open) = open.take()
            {
                fill_rest(&open, self.geometry.segment_bytes());
            }
        }
        for appender in &tail.appenders {
            let mut chunk = appender.lock();
            if chunk
                .as_ref()
                .is_some_and(|chunk| chunk.segment == segment.number)
                && let Some(chunk) = chunk.take()
            {
                fill(&chunk);
            }
        }
    }

    /// Gives a segment's frame back; the table no longer points to it and an epoch barrier has passed.
    pub(crate) fn free_frame(&self, segment: &Segment) {
        if let Some(frame) = segment.frame.lock().take() {
            self.frames.give_back(frame);
        }
    }
}

/// Covers what a chunk has left.
fn fill(chunk: &Chunk) {
    if chunk.at < chunk.end {
        // SAFETY: `at..end` of the frame belong to the chunk; both are multiples of 8.
        unsafe { write_filler(chunk.base.as_ptr().add(chunk.at), chunk.end - chunk.at) };
    }
}

fn fill_rest(open: &Open, segment_bytes: usize) {
    fill(&Chunk {
        segment: open.segment.number,
        base: open.base,
        at: open.at,
        end: segment_bytes,
    });
}

/// A small number of this thread's own, given out in the order in which threads ask first.
pub(crate) fn thread_number() -> usize {
    global! {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
    }
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        mine.get()
    })
}

/// Memory for segments, in one range.
struct Frames {
    memory: Reservation,
    frame_bytes: usize,
    count: usize,
    state: Mutex<FrameState>,
}

#[derive(Default)]
struct FrameState {
    /// Frames below this have been used.
    used: usize,
    /// Free frames that hold no memory.
    released: Vec<usize>,
    /// One free frame that still holds its memory: the next to be taken, so that steady turnover touches no new pages.
    warm: Option<usize>,
}

impl FrameState {
    /// A frame below `count` that holds no memory.
    fn take_without_memory(&mut self, count: usize) -> Option<usize> {
        if let Some(frame) = self.released.pop() {
            return Some(frame);
        }
        let unused = (self.used < count).then_some(self.used)?;
        self.used += 1;
        Some(unused)
    }
}

impl Frames {
    fn new(frame_bytes: usize, count: usize) -> io::Result<Frames> {
        Ok(Frames {
            // Frames that are smaller than a huge page would share one: the memory of those that are free could not be
            // given back.
            memory: if frame_bytes < HUGE_PAGE_BYTES {
                Reservation::sparse(frame_bytes * count)?
            } else {
                Reservation::huge(frame_bytes * count)?
            },
            frame_bytes,
            count,
            state: Mutex::default(),
        })
    }

    fn take(&self) -> Option<(usize, NonNull<u8>)> {
        let mut state = self.state.lock();
        let frame = match state.warm.take() {
            Some(frame) => frame,
            None => state.take_without_memory(self.count)?,
        };
        Some((frame, self.memory.at(frame * self.frame_bytes)))
    }

    /// Sees to it that the next frame that is taken has its memory.
    fn prepare(&self) {
        let frame = {
            let mut state = self.state.lock();
            match state.warm {
                Some(_) => None,
                None => state.take_without_memory(self.count),
            }
        };
        if let Some(frame) = frame {
            self.memory
                .populate(frame * self.frame_bytes, self.frame_bytes);
            self.give_back(frame);
        }
    }

    fn give_back(&self, frame: usize) {
        let mut state = self.state.lock();
        if state.warm.is_none() {
            state.warm = Some(frame);
        } else {
            self.memory
                .release(frame * self.frame_bytes, self.frame_bytes);
            state.released.push(frame);
        }
    }
}
