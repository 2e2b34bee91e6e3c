//! The memory of the bucket index: the table of buckets and the pool of overflow nodes, both zeroed ranges of atomics.
#![allow(unsafe_code)] // Views reserved memory as arrays of atomics.

use smallvec::SmallVec;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sys::Reservation;

pub(crate) const HEAD_SLOTS: usize = 7;
pub(crate) const NODE_SLOTS: usize = 3;

/// A reader that has followed so many nodes has been misled by a concurrent change and starts again. Chains are a few
/// nodes long; even a table that may not grow any more stays far below.
pub(crate) const CHAIN_NODES_MAX: usize = 100_000;

/// The words of one chain.
pub(crate) type Words = SmallVec<[u64; 16]>;

/// One cache line.
#[repr(C, align(64))]
pub(crate) struct Bucket {
    pub(crate) control: AtomicU64,
    pub(crate) slots: [AtomicU64; HEAD_SLOTS],
}

/// Half a cache line of overflow.
#[repr(C, align(32))]
pub(crate) struct Node {
    pub(crate) slots: [AtomicU64; NODE_SLOTS],
    pub(crate) next: AtomicU32,
}

pub(crate) struct Table {
    memory: Reservation,
    buckets: u64,
}

impl Table {
    pub(crate) fn new(buckets: u64) -> std::io::Result<Table> {
        Ok(Table {
            memory: Reservation::huge(buckets as usize * size_of::<Bucket>())?,
            buckets,
        })
    }

    #[inline]
    pub(crate) fn bucket(&self, number: u64) -> &Bucket {
        assert!(number < self.buckets);
        // SAFETY: inside the reservation, which is huge-page aligned, zeroed and outlives `self`'s borrow; a bucket is all
        // atomics, for which any bit pattern is a value and shared access from all threads is allowed.
        unsafe {
            &*self
                .memory
                .base()
                .as_ptr()
                .cast::<Bucket>()
                .add(number as usize)
        }
    }
}

/// Overflow nodes, numbered from 1.
pub(crate) struct Nodes {
    memory: Reservation,
    capacity: u32,
    /// Nodes handed out so far, free ones included.
    used: AtomicU32,
    free: Mutex<Vec<u32>>,
}

impl Nodes {
    pub(crate) fn new(buckets: u64) -> std::io::Result<Nodes> {
        // Far more than chains at the intended load need; a reservation costs nothing until it is touched.
        let capacity = u32::try_from(buckets * 4).unwrap_or(u32::MAX - 1);
        let memory = Reservation::huge((capacity as usize + 1) * size_of::<Node>())?;
        Ok(Nodes {
            memory,
            capacity,
            used: AtomicU32::new(0),
            free: Mutex::new(Vec::new()),
        })
    }

    pub(crate) fn exists(&self, number: u32) -> bool {
        number <= self.capacity
    }

    pub(crate) fn node(&self, number: u32) -> &Node {
        assert!(self.exists(number));
        // SAFETY: inside the reservation as just checked; all atomics, as for buckets. A node that has been freed may be
        // read by a reader that is late: it sees other slots, and the version of its bucket tells it so.
        unsafe {
            &*self
                .memory
                .base()
                .as_ptr()
                .cast::<Node>()
                .add(number as usize)
        }
    }

    pub(crate) fn allocate(&self) -> u32 {
        if let Some(number) = self.free.lock().pop() {
            return number;
        }
        let number = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(
            number <= self.capacity,
            "{number} overflow nodes: the index is far beyond its limit of memory"
        );
        number
    }

    pub(crate) fn free(&self, number: u32) {
        self.free.lock().push(number);
    }

    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.used.load(Ordering::Relaxed)) * size_of::<Node>() as u64
    }
}
