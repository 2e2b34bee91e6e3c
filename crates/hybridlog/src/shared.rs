//! What all operations and the tiering thread share.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::address::Slot;
use crate::average_ttl::AverageTtls;
use crate::checkpoint::Checkpoints;
use crate::command_log::CommandLog;
use crate::compaction::Compaction;
use crate::disk::Disk;
use crate::disk_limit::DiskLimit;
use crate::expiry::Due;
use crate::generation::{Death, Generations};
use crate::graveyard::Graveyard;
use crate::index::Index;
use crate::io::{BlockingReader, IoStats};
use crate::key_cache::KeyCache;
use crate::latch::Latches;
use crate::log::{Log, NoRoom, Urgency};
use crate::open_files::OpenFiles;
use crate::operation::draft_of;
use crate::read_damage::ReadDamage;
use crate::record::{Draft, RecordRef};
use crate::recovery::Recovery;
use crate::residence::RecentColdReads;
use crate::room::Room;
use crate::segment::Segment;
use crate::shadows::Shadows;
use crate::stats::{Counters, KeyCounts};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, planted};
use crate::tiering::{SEGMENTS_IN_TRANSIT, SEGMENTS_KEPT, SEGMENTS_MIN};
use crate::watch::Watches;
use crate::{Namespace, Stop};

/// Keys found expired that wait to be removed; more are found again by the next reader.
const EXPIRED_MAX: usize = 4096;

pub(crate) struct Shared<I> {
    pub(crate) index: I,
    pub(crate) log: Log,
    pub(crate) latches: Arc<Latches>,
    pub(crate) recent_cold_reads: RecentColdReads,
    pub(crate) key_counts: KeyCounts,
    pub(crate) generations: Arc<Generations>,
    pub(crate) counters: Counters,
    pub(crate) room: Room,
    pub(crate) watches: Arc<Watches>,
    pub(crate) shadows: Shadows,
    pub(crate) next_object: AtomicU64,
    /// How often a collection has been searched for a number that no page has.
    pub(crate) page_searches: AtomicU64,
    pub(crate) command_log: CommandLog,
    /// What of it may wait in memory to be written.
    pub(crate) log_buffer_bytes: u64,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) compaction: Compaction,
    pub(crate) disk_limit: DiskLimit,
    pub(crate) graveyard: Graveyard,
    pub(crate) recovery: Recovery,
    pub(crate) blocking_reader: BlockingReader,
    pub(crate) blocking_stats: Arc<IoStats>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) open_files: Arc<OpenFiles>,
    pub(crate) key_cache: KeyCache,
    /// Bytes that everything together may take.
    pub(crate) memory_bytes: AtomicU64,
    /// The most that may become, for which address space is reserved.
    pub(crate) memory_max_bytes: u64,
    /// Bytes of it that are taken by what the engine does not see.
    pub(crate) reserved_bytes: AtomicU64,
    /// Held by whoever moves segments between tiers.
    pub(crate) tiering: Mutex<()>,
    pub(crate) expired: Mutex<Vec<(Namespace, Vec<u8>)>>,
    pub(crate) due: Mutex<Due>,
    pub(crate) expiry_position: AtomicU64,
    pub(crate) average_ttls: AverageTtls,
    pub(crate) read_damage: ReadDamage,
    pub(crate) seed: u64,
}

/// The hash of a key in a data directory with this seed.
#[inline]
pub(crate) fn key_hash(seed: u64, namespace: Namespace, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, seed.wrapping_add(u64::from(namespace.0) << 8))
}

/// The hash of a page of a large value.
#[inline]
pub(crate) fn page_hash(seed: u64, page_key: &[u8; 12]) -> u64 {
    xxh3_64_with_seed(page_key, !seed)
}

impl<I: Index> Shared<I> {
    #[inline]
    pub(crate) fn hash(&self, namespace: Namespace, key: &[u8]) -> u64 {
        key_hash(self.seed, namespace, key)
    }

    /// Pages hash apart from keys.
    #[inline]
    pub(crate) fn page_hash(&self, page_key: &[u8; 12]) -> u64 {
        self::page_hash(self.seed, page_key)
    }

    /// Appends a record; wakes the tiering thread when room gets scarce. The caller is pinned.
    pub(crate) fn append(
        &self,
        draft: &Draft<'_>,
        urgency: Urgency,
        generation: u64,
    ) -> Result<Slot, NoRoom> {
        let appended = self.log.append(draft, urgency, generation);
        let is_scarce = self.log.free_segments() < crate::tiering::FREE_SEGMENTS_LOW;
        if appended.is_err() || is_scarce || self.log.wants_frame() {
            self.room.wake_tiering();
        }
        appended
    }

    /// Copies an immutable record to the tail and lets its slot name the copy, which is returned; `None` if the slot has
    /// changed meanwhile, or there is no room.
    /// Needs no key latch: the record cannot change, and the slot is replaced only if it still names it. The caller is
    /// pinned and has been since it read the record and the generation.
    pub(crate) fn relocate(
        &self,
        hash: u64,
        slot: Slot,
        record: &RecordRef<'_>,
        urgency: Urgency,
        generation: u64,
    ) -> Option<Slot> {
        if !self.generations.may_relocate() {
            return None;
        }
        let copy = self.append(&draft_of(record), urgency, generation).ok()?;
        let mut replaced = self.index.replace(hash, slot, copy);
        if !replaced && planted!("relocated_in_front") {
            self.index.insert(hash, copy);
            replaced = true;
        }
        if replaced {
            self.died(generation, slot, record.record_bytes());
        } else {
            self.log.make_void(copy);
        }
        replaced.then_some(copy)
    }

    /// An operation of `generation` has taken `slot` out of the index, or put another in its place: its record of
    /// `record_bytes` is dead.
    pub(crate) fn died(&self, generation: u64, slot: Slot, record_bytes: usize) {
        let address = slot.address();
        self.log.table.add_dead_bytes(address, record_bytes as u64);
        self.generations.note(generation, Death::dead(address));
    }

    /// As [`Self::died`], for a shadow, whose bytes count as dead since it was shadowed.
    pub(crate) fn shadow_died(&self, generation: u64, slot: Slot) {
        self.generations
            .note(generation, Death::dead(slot.address()));
    }

    /// An operation of `generation` has put a slot in front of `unread` without knowing whether it is the same key's.
    pub(crate) fn shadowed(&self, generation: u64, unread: Slot) {
        // Nearly always it is, and the old record is as good as dead; how long that is nobody has seen.
        if let Some(segment) = self.log.table.segment(unread.address()) {
            let bytes = self.likely_bytes(&segment, unread) as u64;
            self.log.table.add_dead_bytes_of(&segment, bytes);
        }
        self.generations
            .note(generation, Death::shadowed(unread.address()));
    }

    /// How long a record in a segment on the device probably is, which nobody has read.
    pub(crate) fn likely_bytes(&self, segment: &Segment, slot: Slot) -> usize {
        let records = segment.records.load(Ordering::Relaxed).max(1) as usize;
        slot.likely_bytes(self.log.geometry.segment_bytes() / records)
    }

    pub(crate) fn note_expired(&self, namespace: Namespace, key: &[u8]) {
        let mut expired = self.expired.lock();
        if expired.len() < EXPIRED_MAX {
            expired.push((namespace, key.to_vec()));
        }
    }

    /// The longest value that can be served: a quarter of the memory, and what a length field holds.
    pub(crate) fn value_max_bytes(&self) -> u64 {
        (self.memory_bytes.load(Ordering::Relaxed) / 4).min(crate::large::VALUE_MAX_BYTES)
    }

    /// The longest key: it must fit into a segment several times.
    pub(crate) fn key_max_bytes(&self) -> u64 {
        self.log.geometry.segment_bytes() as u64 / 8
    }

    pub(crate) fn check_lengths(&self, key: &[u8], value_len: u64) -> Result<(), Stop> {
        let (key_len, key_max) = (key.len() as u64, self.key_max_bytes());
        if key_len > key_max {
            return Err(Stop::TooLarge {
                len: key_len,
                limit: key_max,
            });
        }
        let limit = self.value_max_bytes();
        if value_len > limit {
            return Err(Stop::TooLarge {
                len: value_len,
                limit,
            });
        }
        Ok(())
    }

    /// Whether `bytes` can be appended without waiting. Others may take the room meanwhile.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let segments = self.segments_for(bytes);
        !self.log.is_out_of_memory() && self.log.free_segments() as u64 > segments
    }

    /// Whether there can be room for `bytes` once all that can leave memory has left it.
    pub(crate) fn can_have_room(&self, bytes: u64) -> bool {
        let free_max = self.log.budget().saturating_sub(SEGMENTS_KEPT) as u64;
        !self.log.is_out_of_memory() && free_max > self.segments_for(bytes)
    }

    fn segments_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.log.geometry.segment_bytes() as u64)
    }

    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), Stop> {
        if self.has_room(bytes) {
            return Ok(());
        }
        Err(Stop::NoRoom { bytes })
    }

    /// Segments that fit into the memory budget beside the index and what is fixed.
    pub(crate) fn segments_that_fit(&self) -> usize {
        let left = self
            .segments_memory_bytes()
            .saturating_sub(self.reserved_bytes.load(Ordering::Relaxed));
        (left / self.segment_memory_bytes()) as usize
    }

    /// What can be reserved so that the fewest segments still fit that the log can work with.
    pub(crate) fn reserved_max_bytes(&self) -> u64 {
        self.segments_memory_bytes()
            .saturating_sub(SEGMENTS_MIN as u64 * self.segment_memory_bytes())
    }

    /// What of the memory that is accounted for here comes from the program's allocator.
    pub(crate) fn heap_bytes(&self) -> u64 {
        let marks_bytes = self.segment_memory_bytes() - self.log.geometry.segment_bytes() as u64;
        self.tables_bytes() + self.log.in_memory() as u64 * marks_bytes
    }

    fn tables_bytes(&self) -> u64 {
        self.recent_cold_reads.bytes() as u64
            + self.generations.bytes()
            + self.shadows.bytes()
            + self.graveyard.bytes()
            + self.key_cache.bytes()
    }

    /// What is left of the memory for segments if nothing is reserved.
    fn segments_memory_bytes(&self) -> u64 {
        let other = self.index.bytes()
            + self.tables_bytes()
            + 2 * self.log_buffer_bytes
            + SEGMENTS_IN_TRANSIT as u64 * self.log.geometry.segment_bytes() as u64;
        let memory_bytes = self.memory_bytes.load(Ordering::Relaxed);
        memory_bytes.saturating_sub(other)
    }

    /// Memory of a segment: a 128th of it are the bitmaps of read marks.
    fn segment_memory_bytes(&self) -> u64 {
        let segment_bytes = self.log.geometry.segment_bytes() as u64;
        segment_bytes + segment_bytes / 128
    }
}
