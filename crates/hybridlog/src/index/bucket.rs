//! The index made for cache misses: buckets of one cache line in huge pages, grown by linear hashing.
//!
//! **Growth.** The table is one reserved range of memory. Whenever the load passes [`LOAD_TENTHS`], the next bucket in
//! line is split into itself and a new one at the end (Litwin, "Linear hashing", VLDB 1980): growth never stalls, never
//! copies the table, never holds two. Each bucket knows its level, so a thread with an old idea of the table's size
//! re-addresses itself, split by split: bucket `i` of level `l` holds exactly the hashes whose low `l` bits are `i`.
//!
//! **Tags** tell most slots of other hashes apart and decide where a split sends a slot: see `tag`.
//!
//! **Concurrency.** Slots change only under the bucket's latch, held for a few instructions. Readers do not write: they
//! copy what matches and check that the control word is as it was before (a sequence lock; Boehm, MSPC 2012). The control
//! word is latch, level, version and the number of the first overflow node, so one comparison covers everything.

use std::ops::ControlFlow;

use crossbeam_utils::CachePadded;

use super::chain::{Bucket, CHAIN_NODES_MAX, HEAD_SLOTS, NODE_SLOTS, Nodes, Table, Words};
use super::sealed::Slots;
use super::tag::{TAG_BITS, matches, matching, tagged};
use super::{Candidates, Index, NextPosition};
use crate::address::{SLOT_BITS, SLOT_MASK, Slot, SlotKind};
use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};
use crate::sync::{Mutex, planted, spin_loop};
use crate::sys::prefetch;

/// Slots a bucket holds on average, in tenths, before the table grows. Linear hashing loads the buckets that are yet to
/// be split up to twice as much as those that have been; at 6.1 the table with its overflow nodes stays below 13 bytes a
/// slot wherever the split pointer stands.
const LOAD_TENTHS: u64 = 61;

/// log2 of the number of buckets at the start.
const LEVEL_MIN: u32 = 10;

/// Counters of slots, by the low bits of the hash, so that inserts do not share one; each sees 1/64 of all slots.
const COUNTERS: usize = 64;

/// The index on buckets of one cache line.
pub struct BucketIndex {
    table: Table,
    nodes: Nodes,
    /// Number of buckets: `2^level + split pointer`. Stored with Release after the new bucket is complete.
    buckets: AtomicU64,
    buckets_max: u64,
    growth: Mutex<()>,
    counters: Box<[CachePadded<AtomicI64>]>,
}

impl Index for BucketIndex {
    const NAME: &'static str = "bucket";
}

/// The control word of a bucket.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Control(u64);

impl Control {
    const LATCH: u64 = 1;
    const LEVEL_SHIFT: u32 = 1;
    const VERSION_SHIFT: u32 = 7;
    const VERSION_MASK: u64 = (1 << 25) - 1;

    fn latched(self) -> bool {
        self.0 & Self::LATCH != 0
    }

    /// Buckets start as zeroed memory, so levels are stored as distance from the lowest.
    fn level(self) -> u32 {
        (self.0 >> Self::LEVEL_SHIFT & 63) as u32 + LEVEL_MIN
    }

    fn overflow(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The unlatched successor: next version, with the given level and overflow node.
    fn next(self, level: u32, overflow: u32) -> Control {
        let version = (self.0 >> Self::VERSION_SHIFT).wrapping_add(1) & Self::VERSION_MASK;
        let level = u64::from(level - LEVEL_MIN) << Self::LEVEL_SHIFT;
        Control(level | version << Self::VERSION_SHIFT | u64::from(overflow) << 32)
    }
}

fn low_bits(hash: u64, bits: u32) -> u64 {
    hash & ((1 << bits) - 1)
}

/// Where to look for `hash` next, if bucket `address`, one that was home to it once, has given it away in a split since; its
/// level is `level` now. That is the bucket that was made in the split, which exists; where `level` bits of the hash point may
/// be beyond the end of the table, if it has grown far since `address` was found out.
#[inline]
fn moved_on(address: u64, hash: u64, level: u32) -> Option<u64> {
    let differs = low_bits(hash, level) ^ address;
    (differs != 0 && !planted!("splits_go_unnoticed"))
        .then(|| address | differs & differs.wrapping_neg())
}

/// A bucket whose latch is held.
struct Latched<'i> {
    index: &'i BucketIndex,
    bucket: &'i Bucket,
    control: Control,
}

impl Latched<'_> {
    /// All words of the chain that are not empty, in order.
    fn words(&self) -> Words {
        let mut words = Words::new();
        words.extend(
            self.bucket
                .slots
                .iter()
                .map(|slot| slot.load(Ordering::Relaxed))
                .filter(|&word| word != 0),
        );
        let mut node = self.control.overflow();
        while node != 0 {
            let overflow = self.index.nodes.node(node);
            words.extend(
                overflow
                    .slots
                    .iter()
                    .map(|slot| slot.load(Ordering::Relaxed))
                    .filter(|&word| word != 0),
            );
            node = overflow.next.load(Ordering::Relaxed);
        }
        words
    }

    /// Where `slot` of `hash` is held.
    fn find(&self, hash: u64, slot: Slot) -> Option<&AtomicU64> {
        let level = self.control.level();
        let is = |held: &&AtomicU64| {
            let word = held.load(Ordering::Relaxed);
            word & SLOT_MASK == slot.bits() && matches(word, hash, level)
        };
        if let Some(held) = self.bucket.slots.iter().find(is) {
            return Some(held);
        }
        let mut node = self.control.overflow();
        while node != 0 {
            let overflow = self.index.nodes.node(node);
            if let Some(held) = overflow.slots.iter().find(is) {
                return Some(held);
            }
            node = overflow.next.load(Ordering::Relaxed);
        }
        None
    }

    /// Makes the chain hold exactly `words` and lets go of the latch.
    fn rewrite(self, words: &[u64], level: u32) {
        let overflow = self
            .index
            .write_chain(self.bucket, words, self.control.overflow());
        self.release(level, overflow);
    }

    fn release(self, level: u32, overflow: u32) {
        // Release pairs with the Acquire load of the control word by readers and the next holder.
        self.bucket
            .control
            .store(self.control.next(level, overflow).0, Ordering::Release);
    }

    fn release_unchanged_shape(self) {
        let (level, overflow) = (self.control.level(), self.control.overflow());
        self.release(level, overflow);
    }
}

impl BucketIndex {
    fn address(&self, hash: u64) -> u64 {
        // Acquire pairs with the Release in `grow`: a bucket below the count is complete.
        let buckets = self.buckets.load(Ordering::Acquire);
        let level = buckets.ilog2();
        let address = low_bits(hash, level + 1);
        if address < buckets {
            address
        } else {
            low_bits(hash, level)
        }
    }

    /// Latches the bucket that holds `hash`.
    fn latch(&self, hash: u64) -> Latched<'_> {
        let mut address = self.address(hash);
        loop {
            let bucket = self.table.bucket(address);
            // Acquire pairs with the Release of the last holder: a bucket that this one sends us to is complete.
            let control = Control(bucket.control.load(Ordering::Acquire));
            if let Some(next) = moved_on(address, hash, control.level()) {
                address = next;
                continue;
            }
            let taken = control.0 | Control::LATCH;
            // Acquire pairs with the Release of the last holder. If it succeeds, the level read before is still true.
            let exchanged = bucket.control.compare_exchange_weak(
                control.0,
                taken,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if !control.latched() && exchanged.is_ok() {
                // Pairs with the Acquire fence of readers: one that sees a slot changed below sees the latch taken.
                fence(Ordering::Release);
                return Latched {
                    index: self,
                    bucket,
                    control,
                };
            }
            spin_loop();
        }
    }

    /// Calls `each` with the slots of the bucket that holds `hash`, some at a time, and its level, until it wants no more,
    /// under the sequence lock: what `each` gathered is only good if this returns `true`; else it is called again from the
    /// start.
    #[inline(always)]
    fn try_read(
        &self,
        address: &mut u64,
        hash: u64,
        mut each: impl FnMut(&[AtomicU64], u32) -> ControlFlow<()>,
    ) -> bool {
        let bucket = self.table.bucket(*address);
        // Acquire pairs with the Release of the last holder of the latch.
        let control = Control(bucket.control.load(Ordering::Acquire));
        if control.latched() {
            spin_loop();
            return false;
        }
        let level = control.level();
        if let Some(next) = moved_on(*address, hash, level) {
            *address = next;
            return false;
        }
        let mut node = control.overflow();
        let mut more = each(&bucket.slots, level);
        for _ in 0..CHAIN_NODES_MAX {
            if more.is_break() || node == 0 || !self.nodes.exists(node) {
                break;
            }
            let overflow = self.nodes.node(node);
            more = each(&overflow.slots, level);
            node = overflow.next.load(Ordering::Relaxed);
        }
        // Keeps the loads above before the load below; pairs with the Release fence in `latch`.
        fence(Ordering::Acquire);
        bucket.control.load(Ordering::Relaxed) == control.0 || planted!("readers_do_not_look_again")
    }

    /// Writes `words` into the bucket and as many nodes as it takes, reusing the chain that starts at `node`. Returns the
    /// first node. The bucket's latch is held or the bucket is not reachable yet.
    fn write_chain(&self, bucket: &Bucket, words: &[u64], mut node: u32) -> u32 {
        let (head, rest) = words.split_at(words.len().min(HEAD_SLOTS));
        write_padded(&bucket.slots, head);
        let mut spare = Vec::new();
        while node != 0 {
            spare.push(node);
            node = self.nodes.node(node).next.load(Ordering::Relaxed);
        }
        let mut first = 0;
        for part in rest.chunks(NODE_SLOTS).rev() {
            let node = spare.pop().unwrap_or_else(|| self.nodes.allocate());
            let overflow = self.nodes.node(node);
            write_padded(&overflow.slots, part);
            overflow.next.store(first, Ordering::Relaxed);
            first = node;
        }
        spare.into_iter().for_each(|node| self.nodes.free(node));
        first
    }

    fn count(&self, hash: u64, change: i64) -> i64 {
        self.counters[hash as usize % COUNTERS].fetch_add(change, Ordering::Relaxed) + change
    }

    /// Counts a slot that has come in, and grows the table if it is time.
    fn count_new(&self, hash: u64) {
        let count = self.count(hash, 1) as u64;
        if count * COUNTERS as u64 * 10 > self.buckets.load(Ordering::Relaxed) * LOAD_TENTHS {
            self.grow();
        }
    }

    /// Splits the next bucket in line, unless another thread is at it or the table is as large as it may become.
    fn grow(&self) {
        let Some(_alone) = self.growth.try_lock() else {
            return;
        };
        let buckets = self.buckets.load(Ordering::Relaxed);
        if buckets >= self.buckets_max {
            return;
        }
        let level = buckets.ilog2();
        let source = self.latch(buckets - (1 << level));
        let (mut stay, mut go) = (Words::new(), Words::new());
        for word in source.words() {
            let slot = word & SLOT_MASK;
            let tag = word >> SLOT_BITS;
            if tag & 1 == 0 { &mut stay } else { &mut go }.push(tag >> 1 << SLOT_BITS | slot);
        }
        let target = self.table.bucket(buckets);
        let overflow = self.write_chain(target, &go, 0);
        // Nobody goes to the target before the source's new level, released below, or the new count sends them there.
        target
            .control
            .store(Control(0).next(level + 1, overflow).0, Ordering::Relaxed);
        source.rewrite(&stay, level + 1);
        // Release pairs with the Acquire in `address`.
        self.buckets.store(buckets + 1, Ordering::Release);
    }
}

fn write_padded(slots: &[AtomicU64], words: &[u64]) {
    for (at, slot) in slots.iter().enumerate() {
        slot.store(words.get(at).copied().unwrap_or(0), Ordering::Relaxed);
    }
}

impl Slots for BucketIndex {
    fn with_limit(bytes_max: usize) -> std::io::Result<Self> {
        let buckets_max = (bytes_max / size_of::<Bucket>())
            .clamp(1 << LEVEL_MIN, 1 << (LEVEL_MIN + TAG_BITS)) as u64;
        Ok(BucketIndex {
            table: Table::new(buckets_max)?,
            nodes: Nodes::new(buckets_max)?,
            buckets: AtomicU64::new(1 << LEVEL_MIN),
            buckets_max,
            growth: Mutex::new(()),
            counters: (0..COUNTERS)
                .map(|_| CachePadded::new(AtomicI64::new(0)))
                .collect(),
        })
    }

    #[inline]
    fn candidates(&self, hash: u64, kind: SlotKind) -> Candidates {
        let mut address = self.address(hash);
        loop {
            let mut found = Candidates::new();
            let consistent = self.try_read(&mut address, hash, |slots, level| {
                found.extend(matching(slots, hash, level).filter(|slot| slot.kind() == kind));
                ControlFlow::Continue(())
            });
            if consistent {
                return found;
            }
        }
    }

    #[inline(always)]
    fn newest(&self, hash: u64, kind: SlotKind) -> Option<Slot> {
        let mut address = self.address(hash);
        loop {
            let mut found = None;
            let consistent = self.try_read(&mut address, hash, |slots, level| {
                found = matching(slots, hash, level).find(|slot| slot.kind() == kind);
                match found {
                    // What is behind it is older, and in another cache line.
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            });
            if consistent {
                return found;
            }
        }
    }

    /// The control word: its version counts all changes of the bucket. (It wraps after 33 million of them; the question is
    /// asked again within microseconds.)
    #[inline]
    fn version(&self, hash: u64) -> Option<u64> {
        let address = self.address(hash);
        // Acquire pairs with the Release of the last holder of the latch.
        let control = Control(self.table.bucket(address).control.load(Ordering::Acquire));
        let is_home = low_bits(hash, control.level()) == address;
        (is_home && !control.latched()).then_some(control.0)
    }

    fn insert(&self, hash: u64, slot: Slot) {
        let latched = self.latch(hash);
        let level = latched.control.level();
        let word = tagged(slot, hash, level);
        let mut free = None;
        let mut in_front_of_others = latched.control.overflow() != 0;
        for held in &latched.bucket.slots {
            let other = held.load(Ordering::Relaxed);
            if other == 0 {
                free = free.or(Some(held));
            }
            in_front_of_others |= matches(other, hash, level);
        }
        match free {
            Some(held) if !in_front_of_others => {
                held.store(word, Ordering::Relaxed);
                latched.release_unchanged_shape();
            }
            // Order matters, or the head is full: newest first, everything else keeps its order.
            _ => {
                let mut words = latched.words();
                words.insert(0, word);
                latched.rewrite(&words, level);
            }
        }
        self.count_new(hash);
    }

    fn insert_last(&self, hash: u64, slot: Slot) {
        let latched = self.latch(hash);
        let level = latched.control.level();
        let mut words = latched.words();
        words.push(tagged(slot, hash, level));
        latched.rewrite(&words, level);
        self.count_new(hash);
    }

    fn replace(&self, hash: u64, old: Slot, new: Slot) -> bool {
        let latched = self.latch(hash);
        let held = latched.find(hash, old);
        if let Some(held) = held {
            held.store(
                tagged(new, hash, latched.control.level()),
                Ordering::Relaxed,
            );
        }
        let found = held.is_some();
        latched.release_unchanged_shape();
        found
    }

    fn remove(&self, hash: u64, slot: Slot) -> bool {
        let latched = self.latch(hash);
        let Some(held) = latched.find(hash, slot) else {
            latched.release_unchanged_shape();
            return false;
        };
        held.store(0, Ordering::Relaxed);
        if latched.control.overflow() == 0 {
            latched.release_unchanged_shape();
        } else {
            // Moves what is behind forward, so that overflow nodes come free.
            let (words, level) = (latched.words(), latched.control.level());
            latched.rewrite(&words, level);
        }
        self.count(hash, -1);
        true
    }

    fn grow_for(&self, slots: u64) {
        let buckets = (slots * 10 / LOAD_TENTHS).min(self.buckets_max);
        while self.buckets.load(Ordering::Relaxed) < buckets {
            self.grow();
        }
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        prefetch(std::ptr::from_ref(self.table.bucket(self.address(hash))).cast());
    }

    fn slots(&self) -> u64 {
        self.counters
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum::<i64>()
            .max(0) as u64
    }

    fn bytes(&self) -> u64 {
        self.buckets.load(Ordering::Relaxed) * size_of::<Bucket>() as u64 + self.nodes.bytes()
    }

    /// A position is a hash with its bits reversed: a bucket of level `l` is then one interval of length `2^(64 - l)`,
    /// and a split cuts the interval in two without moving anything across the position of an iteration.
    fn visit(&self, position: u64, visit: &mut dyn FnMut(Slot)) -> NextPosition {
        let hash = position.reverse_bits();
        let mut address = self.address(hash);
        loop {
            let (mut words, mut level_read) = (Words::new(), LEVEL_MIN);
            let consistent = self.try_read(&mut address, hash, |slots, level| {
                level_read = level;
                let loaded = slots.iter().map(|slot| slot.load(Ordering::Relaxed));
                words.extend(loaded.filter(|&word| word != 0));
                ControlFlow::Continue(())
            });
            if consistent {
                words.iter().for_each(|&word| visit(Slot::from_bits(word)));
                return address.reverse_bits().checked_add(1 << (64 - level_read));
            }
        }
    }

    fn retain(&self, position: u64, keep: &mut dyn FnMut(Slot) -> bool) -> NextPosition {
        let hash = position.reverse_bits();
        let latched = self.latch(hash);
        let level = latched.control.level();
        let words = latched.words();
        let mut kept = words.clone();
        kept.retain(|word| keep(Slot::from_bits(*word)));
        if kept.len() == words.len() {
            latched.release_unchanged_shape();
        } else {
            latched.rewrite(&kept, level);
        }
        // A bucket's hashes agree in their low bits, and those choose the counter.
        self.count(hash, kept.len() as i64 - words.len() as i64);
        low_bits(hash, level)
            .reverse_bits()
            .checked_add(1 << (64 - level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_below_13_bytes_a_slot() {
        let index = BucketIndex::with_limit(1 << 30).expect("memory for the index");
        let geometry = crate::address::Geometry::new(1 << 20);
        for n in 1..=1_400_000u64 {
            let address = geometry.address((n >> 15) as u32, (n & 0x7fff) as usize * 8 + 64);
            index.insert(
                xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()),
                Slot::of_class(address, SlotKind::Root, 1),
            );
            if n % 100_000 == 0 && n >= 200_000 {
                let per_slot = index.bytes() as f64 / n as f64;
                assert!(per_slot < 13.0, "{per_slot:.2} bytes a slot at {n}");
            }
        }
    }

    /// A thread may be interrupted between reading the number of buckets and reading the bucket.
    #[test]
    fn an_old_idea_of_the_size_leads_to_the_right_bucket() {
        let index = BucketIndex::with_limit(64 << 20).expect("memory for the index");
        let geometry = crate::address::Geometry::new(1 << 20);
        for n in 0..70_000u64 {
            let address = geometry.address(0, n as usize * 8 + 64);
            let slot = Slot::of_class(address, SlotKind::Root, 1);
            index.insert(xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()), slot);
        }
        let buckets = index.buckets.load(Ordering::Relaxed);
        for n in 0..70_000u64 {
            let hash = xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
            for old_level in LEVEL_MIN..=buckets.ilog2() {
                let mut address = low_bits(hash, old_level);
                let steps = (0..64).take_while(|_| {
                    !index.try_read(&mut address, hash, |_, _| ControlFlow::Continue(()))
                });
                assert!(
                    steps.count() < 64,
                    "{hash:x} from level {old_level}: {address}"
                );
                assert_eq!(address, index.address(hash));
            }
        }
    }
}
