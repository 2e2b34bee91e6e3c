//! Segments and the table that says, for every address, where its bytes are.
//!
//! ```text
//! Mutable -> Sealed -> Warm -> Cold
//! in a frame: written in place | immutable, being written to its file | mapped from the file | on the device only
//! ```
//!
//! The table has one entry a segment number: a word that packs the base pointer with the state, and a pointer to the
//! bitmap of records that were read. Both are read under an epoch pin, and memory is given back only after an epoch
//! barrier has passed since the entry stopped pointing to it.
#![allow(unsafe_code)] // Turns addresses into pointers.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::address::{Address, Geometry};
use crate::expiry::ExpiredSoFar;
use crate::generation::Parity;
use crate::record::{HEADER_BYTES, RecordRef, filler_bytes};
use crate::store::SEGMENT_BYTES;
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::sys::{FileMapping, Reservation, prefetch};

/// What every segment file begins with; also keeps address 0 unused.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"FERRITE\0";
/// Version of the segment file format.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Two records never start within the same 16 bytes, so one bit per 16 bytes marks a record exactly.
const MARK_GRAIN_BYTES: usize = HEADER_BYTES;

/// The life of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// No segment has this number.
    Free = 0,
    /// In a frame; records are appended and changed in place.
    Mutable = 1,
    /// In a frame, immutable: being written to its file.
    Sealed = 2,
    /// Mapped from its file.
    Warm = 3,
    /// On the device only.
    Cold = 4,
}

const STATE_MASK: u64 = 7;
const ODD: u64 = 8;
const TAG_MASK: u64 = STATE_MASK | ODD;

/// Where the bytes of an address are at this moment; good for as long as the caller's epoch pin.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Memory {
        base: NonNull<u8>,
        state: State,
        parity: Parity,
    },
    Cold,
}

/// A segment's things that are not needed to find a record in memory.
pub(crate) struct Segment {
    pub(crate) number: u32,
    /// Never reused, unlike the number.
    pub(crate) file_id: u64,
    /// The generation whose operations append to it.
    pub(crate) generation: u64,
    /// Whether it counts as one of the segments in memory while it is there; compaction's own does not.
    pub(crate) is_counted: AtomicBool,
    /// Which records were read; empty once the segment is cold.
    marks: Mutex<Box<[AtomicU64]>>,
    /// Whether a file of the segment may be there that is not complete.
    pub(crate) half_written: AtomicBool,
    /// Everything in it is dead: it is about to be discarded.
    pub(crate) retired: AtomicBool,
    /// Whether its files survive a power cut.
    pub(crate) synced: AtomicBool,
    /// How many records its key file lists; 0 until it has one.
    pub(crate) records: AtomicU32,
    /// Whether its files are complete.
    pub(crate) written: AtomicBool,
    /// What its file takes on the device: its end is a hole.
    pub(crate) used_bytes: AtomicU64,
    /// Size of its key file.
    pub(crate) key_bytes: AtomicU64,
    /// How far its expiry column has been dealt with.
    pub(crate) expired: Mutex<ExpiredSoFar>,
    /// Number of its frame in the arena, while it has one.
    pub(crate) frame: Mutex<Option<usize>>,
    pub(crate) mapping: Mutex<Option<Arc<FileMapping>>>,
}

/// One table entry.
struct Entry {
    /// Base pointer, at least 4 KiB aligned, with the state and the parity of the generation in its low bits.
    word: AtomicU64,
    marks: AtomicPtr<AtomicU64>,
    file_id: AtomicU64,
    /// Bytes of its records that are dead, as far as is known.
    dead_bytes: AtomicU64,
}

pub(crate) struct SegmentTable {
    geometry: Geometry,
    /// The geometry's, at hand.
    segments_max: usize,
    entries: Reservation,
    segments: RwLock<Vec<Option<Arc<Segment>>>>,
    /// How many there are.
    count: AtomicU64,
    /// Of each number, when the next key of its segment expires, as far as its key file lists it; Unix milliseconds. The lock
    /// is taken after that on `segments`.
    next_expiries_ms: Mutex<Vec<u64>>,
}

/// As the time of the next expiry: there is none.
const NEVER_MS: u64 = u64::MAX;

impl SegmentTable {
    pub(crate) fn new(geometry: Geometry) -> io::Result<SegmentTable> {
        let segments_max = geometry.segments_max();
        let entries = Reservation::sparse(segments_max * size_of::<Entry>())?;
        Ok(SegmentTable {
            geometry,
            segments_max,
            entries,
            segments: RwLock::new(Vec::new()),
            count: AtomicU64::new(0),
            next_expiries_ms: Mutex::new(Vec::new()),
        })
    }

    #[inline]
    fn entry(&self, number: u32) -> &Entry {
        assert!((number as usize) < self.segments_max);
        // SAFETY: inside the reservation, which has room for so many; zeroed memory is a valid entry (Free, no marks) and all fields are atomics.
        unsafe {
            &*self
                .entries
                .base()
                .as_ptr()
                .cast::<Entry>()
                .add(number as usize)
        }
    }

    /// Adds a mutable segment whose frame is at `base`. `None` when all numbers are in use.
    pub(crate) fn add(
        &self,
        base: NonNull<u8>,
        frame: usize,
        file_id: u64,
        generation: u64,
    ) -> Option<Arc<Segment>> {
        let words = self.geometry.segment_bytes() / MARK_GRAIN_BYTES / 64;
        let marks: Box<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
        self.enter(|number| {
            let segment = Segment::new(number, file_id, generation, marks);
            *segment.frame.lock() = Some(frame);
            let entry = self.entry(number);
            entry
                .marks
                .store(segment.marks.lock().as_ptr().cast_mut(), Ordering::Release);
            self.publish(&segment, Some(base), State::Mutable);
            segment
        })
    }

    /// Adds a cold segment, whose file is on the device. `None` when all numbers are in use.
    pub(crate) fn add_cold(&self, file_id: u64, generation: u64) -> Option<Arc<Segment>> {
        self.enter(|number| {
            let segment = Segment::new(number, file_id, generation, Box::default());
            self.publish(&segment, None, State::Cold);
            segment
        })
    }

    /// Gives the segment that `make` makes a free number.
    fn enter(&self, make: impl FnOnce(u32) -> Segment) -> Option<Arc<Segment>> {
        let mut segments = self.segments.write();
        let number = match segments.iter().position(Option::is_none) {
            Some(number) => number,
            None if segments.len() < self.segments_max => {
                segments.push(None);
                segments.len() - 1
            }
            None => return None,
        };
        self.entry(number as u32)
            .dead_bytes
            .store(0, Ordering::Relaxed);
        let segment = Arc::new(make(number as u32));
        segments[number] = Some(segment.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(segment)
    }

    /// Makes the segment's bytes be found at `base` in `state` from now on. The caller passes an epoch barrier before it
    /// takes away what was found before.
    pub(crate) fn publish(&self, segment: &Segment, base: Option<NonNull<u8>>, state: State) {
        let entry = self.entry(segment.number);
        if base.is_none() {
            entry.marks.store(std::ptr::null_mut(), Ordering::Relaxed);
        }
        let base = base.map_or(0, |base| base.as_ptr().expose_provenance() as u64);
        debug_assert!(base & TAG_MASK == 0);
        let odd = match Parity::of(segment.generation) {
            Parity::Even => 0,
            Parity::Odd => ODD,
        };
        entry.file_id.store(segment.file_id, Ordering::Relaxed);
        // Release pairs with the Acquire in `place`: who sees the pointer sees the bytes behind it, and the file id.
        entry
            .word
            .store(base | odd | state as u64, Ordering::Release);
    }

    /// Forgets a segment; its number may be given to another.
    pub(crate) fn remove(&self, segment: &Segment) {
        let mut segments = self.segments.write();
        self.publish(segment, None, State::Free);
        if segments[segment.number as usize].take().is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(next_ms) = self
            .next_expiries_ms
            .lock()
            .get_mut(segment.number as usize)
        {
            *next_ms = NEVER_MS;
        }
    }

    /// Notes when the next key that the segment's key file lists expires, unless the segment has gone.
    pub(crate) fn set_next_expiry(&self, segment: &Segment, at_ms: Option<u64>) {
        let segments = self.segments.read();
        let number = segment.number as usize;
        let current = segments.get(number).and_then(Option::as_ref);
        if current.is_none_or(|current| current.file_id != segment.file_id) {
            return;
        }
        let mut next_ms = self.next_expiries_ms.lock();
        if next_ms.len() < segments.len() {
            next_ms.resize(segments.len(), NEVER_MS);
        }
        next_ms[number] = at_ms.unwrap_or(NEVER_MS);
    }

    /// When the next key that the segment's key file lists expires, Unix milliseconds; `u64::MAX` if none does.
    pub(crate) fn next_expiry_ms(&self, segment: &Segment) -> u64 {
        let next_ms = self.next_expiries_ms.lock();
        let number = segment.number as usize;
        next_ms.get(number).copied().unwrap_or(NEVER_MS)
    }

    /// The segment in which keys have expired by `now_ms` for the longest time, if there is one. O(number of segments).
    pub(crate) fn next_to_expire(&self, now_ms: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let number = {
            let next_ms = self.next_expiries_ms.lock();
            let due = next_ms
                .iter()
                .enumerate()
                .filter(|(_, at)| **at <= now_ms && **at != NEVER_MS);
            due.min_by_key(|(_, at)| **at)?.0
        };
        segments.get(number)?.clone()
    }

    #[inline]
    fn word(&self, number: u32) -> (Option<NonNull<u8>>, State, Parity) {
        // Acquire pairs with the Release in `publish`.
        let word = self.entry(number).word.load(Ordering::Acquire);
        let state = match word & STATE_MASK {
            0 => State::Free,
            1 => State::Mutable,
            2 => State::Sealed,
            3 => State::Warm,
            _ => State::Cold,
        };
        let parity = if word & ODD == 0 {
            Parity::Even
        } else {
            Parity::Odd
        };
        (
            NonNull::new(std::ptr::with_exposed_provenance_mut(
                (word & !TAG_MASK) as usize,
            )),
            state,
            parity,
        )
    }

    /// Where `address` lies. The caller is pinned.
    #[inline]
    pub(crate) fn place(&self, address: Address) -> Place {
        match self.word(self.geometry.segment(address)) {
            (Some(base), state, parity) => {
                // SAFETY: an address is inside its segment, whose memory of `segment_bytes` starts at `base`.
                let base = unsafe { base.add(self.geometry.offset(address)) };
                Place::Memory {
                    base,
                    state,
                    parity,
                }
            }
            (None, ..) => Place::Cold,
        }
    }

    pub(crate) fn state(&self, number: u32) -> State {
        self.word(number).1
    }

    /// Notes that `bytes` at `address` are dead.
    pub(crate) fn add_dead_bytes(&self, address: Address, bytes: u64) {
        let entry = self.entry(self.geometry.segment(address));
        entry.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that `bytes` of a segment's records are dead.
    pub(crate) fn add_dead_bytes_of(&self, segment: &Segment, bytes: u64) {
        let entry = self.entry(segment.number);
        entry.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn dead_bytes(&self, segment: &Segment) -> u64 {
        self.entry(segment.number)
            .dead_bytes
            .load(Ordering::Relaxed)
    }

    /// The segment of `address`, if it exists (still).
    pub(crate) fn segment(&self, address: Address) -> Option<Arc<Segment>> {
        self.segments
            .read()
            .get(self.geometry.segment(address) as usize)?
            .clone()
    }

    /// The file id of the segment of `address`, which the caller has found in the index and asked for its place since it is
    /// pinned.
    #[inline]
    pub(crate) fn file_id(&self, address: Address) -> u64 {
        let entry = self.entry(self.geometry.segment(address));
        entry.file_id.load(Ordering::Relaxed)
    }

    /// How many segments there are.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// All segments there are.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.segments.read().iter().flatten().cloned().collect()
    }

    /// Starts loading what [`Self::mark_read`] will look at. The caller is pinned.
    #[inline]
    pub(crate) fn prefetch_mark(&self, address: Address) {
        let entry = self.entry(self.geometry.segment(address));
        let marks = entry.marks.load(Ordering::Relaxed);
        let bit = self.geometry.offset(address) / MARK_GRAIN_BYTES;
        prefetch(marks.wrapping_add(bit / 64).cast_const().cast());
    }

    /// Notes that the record at `address` was read. Writes only if it was not noted before. The caller is pinned.
    #[inline(always)]
    pub(crate) fn mark_read(&self, address: Address) {
        // Acquire pairs with the Release in `add`.
        let marks = self
            .entry(self.geometry.segment(address))
            .marks
            .load(Ordering::Acquire);
        if marks.is_null() {
            return;
        }
        let bit = self.geometry.offset(address) / MARK_GRAIN_BYTES;
        // SAFETY: the bitmap has a bit for every grain of a segment; it is freed with the segment's memory, after an epoch
        // barrier, and the caller is pinned.
        let word = unsafe { &*marks.add(bit / 64) };
        let (marked, mask) = (word.load(Ordering::Relaxed), 1 << (bit % 64));
        if marked & mask == 0 {
            // A mark that another thread sets in the same word at the same time may get lost; the next read sets it. A locked
            // instruction would hold up all loads that follow.
            word.store(marked | mask, Ordering::Relaxed);
        }
    }

    /// Calls `each` with the offset of every record (fillers aside) of a segment in memory, in order. The caller
    /// is pinned, or is the one who moves segments between tiers; nobody appends to the segment any more.
    pub(crate) fn walk<'a>(&self, base: NonNull<u8>, mut each: impl FnMut(usize, RecordRef<'a>)) {
        let mut offset = SEGMENT_HEADER_BYTES;
        while offset < self.geometry.segment_bytes() {
            // SAFETY: inside the segment, as just checked, whose memory stays for as long as the caller's pin or its right
            // to move the segment.
            let at = unsafe { base.as_ptr().add(offset) };
            // SAFETY: the segment is covered by records and fillers without gaps from its header to its end.
            offset += match unsafe { filler_bytes(at) } {
                Some(bytes) => bytes,
                None => {
                    // SAFETY: not a filler, so a record.
                    let record = unsafe { RecordRef::new(at) };
                    each(offset, record);
                    record.record_bytes()
                }
            };
        }
    }

    /// The base of a segment that is in memory.
    pub(crate) fn base(&self, number: u32) -> Option<NonNull<u8>> {
        self.word(number).0
    }
}

impl Segment {
    fn new(number: u32, file_id: u64, generation: u64, marks: Box<[AtomicU64]>) -> Segment {
        Segment {
            number,
            file_id,
            generation,
            is_counted: AtomicBool::new(true),
            marks: Mutex::new(marks),
            half_written: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            synced: AtomicBool::new(false),
            records: AtomicU32::new(0),
            written: AtomicBool::new(false),
            used_bytes: AtomicU64::new(0),
            key_bytes: AtomicU64::new(0),
            expired: Mutex::default(),
            frame: Mutex::new(None),
            mapping: Mutex::new(None),
        }
    }

    /// Whether the record at `offset` was read since it was written.
    pub(crate) fn was_read(&self, offset: usize) -> bool {
        let bit = offset / MARK_GRAIN_BYTES;
        self.marks
            .lock()
            .get(bit / 64)
            .is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (bit % 64) != 0)
    }

    /// Gives the memory of the read marks back; nobody in the table points to it, and an epoch barrier has passed.
    pub(crate) fn forget_marks(&self) {
        *self.marks.lock() = Box::default();
    }
}

/// The size of the segments of a directory, from the header of one of them; `None` if that is no header.
pub(crate) fn bytes_of_header(bytes: &[u8]) -> Option<usize> {
    let shift = u32::from_le_bytes(*bytes.get(12..16)?.first_chunk()?);
    let file_id = u64::from_le_bytes(*bytes.get(16..24)?.first_chunk()?);
    let segment_bytes = 1usize.checked_shl(shift)?;
    let is_sound = SEGMENT_BYTES.contains(&segment_bytes)
        && bytes.starts_with(&header(segment_bytes, file_id));
    is_sound.then_some(segment_bytes)
}

/// The first bytes of a segment file: magic, format version, segment size as a power of two, file id, CRC32C of what
/// comes before it, zeroes.
pub(crate) fn header(segment_bytes: usize, file_id: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[0..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&segment_bytes.trailing_zeros().to_le_bytes());
    header[16..24].copy_from_slice(&file_id.to_le_bytes());
    let crc = crc32c::crc32c(&header[..24]);
    header[24..28].copy_from_slice(&crc.to_le_bytes());
    header
}
