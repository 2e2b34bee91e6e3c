//! Generations: which checkpoint an operation belongs to.
//!
//! The number of the current generation is read by every operation once it holds its latches and is pinned; what it
//! appends, what it makes dead and its frame in the command log belong to that generation. A checkpoint increments the
//! number and waits until no operation of the old generation runs any more; then nothing changes what it saves.
//!
//! Why that is a consistent cut (Prasaad et al., "Concurrent Prefix Recovery", SIGMOD 2019): of two operations on one key
//! the later one latched it after the earlier one had let go, so it reads a generation that is not older. A client that
//! has its reply and goes on elsewhere reads one that is not older either, since there is but one number.
//!
//! Who moves a record without the latch of its key (promotion, second chance, compaction) must not do so with the new
//! generation while operations of the old one run: one of those might find the moved record and make it dead in a
//! generation in which it does not exist. So nobody relocates while a checkpoint drains.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::address::Address;
use crate::epoch;
use crate::log::thread_number;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, planted};

/// Threads that note deaths share so many lists.
const SHARDS: usize = 16;

/// Between two looks at whether a held generation has been let go of.
const HELD_PAUSE: Duration = Duration::from_micros(50);

/// Of two generations that follow each other one is even and one odd, and never are there more at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parity {
    Even = 0,
    Odd = 1,
}

impl Parity {
    #[inline]
    pub(crate) fn of(generation: u64) -> Parity {
        if generation.is_multiple_of(2) {
            Parity::Even
        } else {
            Parity::Odd
        }
    }
}

/// What became of a record that is listed in a key file, or will be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Death(u64);

impl Death {
    /// The record was replaced, removed or moved.
    pub(crate) fn dead(address: Address) -> Death {
        Death(address.bits())
    }

    /// A blind write went in front of it without knowing whether it is the same key's.
    pub(crate) fn shadowed(address: Address) -> Death {
        Death(address.bits() | Self::SHADOWED)
    }

    const SHADOWED: u64 = 1 << 63;

    pub(crate) fn address(self) -> Address {
        Address::from_bits(self.0 & !Self::SHADOWED)
    }

    pub(crate) fn is_shadowed(self) -> bool {
        self.0 & Self::SHADOWED != 0
    }
}

type Deaths = Box<[CachePadded<Mutex<Vec<Death>>>]>;

pub(crate) struct Generations {
    current: AtomicU64,
    draining: AtomicBool,
    /// Operations that are not pinned all the time until they end: half done, they wait for something.
    held: [AtomicUsize; 2],
    deaths: [Deaths; 2],
    deaths_noted: AtomicU64,
}

impl Generations {
    pub(crate) fn new(current: u64) -> Generations {
        let deaths = || (0..SHARDS).map(|_| CachePadded::default()).collect();
        Generations {
            current: AtomicU64::new(current),
            draining: AtomicBool::new(false),
            held: [AtomicUsize::new(0), AtomicUsize::new(0)],
            deaths: [deaths(), deaths()],
            deaths_noted: AtomicU64::new(0),
        }
    }

    /// The current generation. Whoever acts on it is pinned.
    #[inline]
    pub(crate) fn current(&self) -> u64 {
        // Acquire pairs with the Release in `advance`: who reads the new number knows that it drains.
        self.current.load(Ordering::Acquire)
    }

    /// Whether records may be moved now. The caller is pinned and has read the number before.
    pub(crate) fn may_relocate(&self) -> bool {
        !self.draining.load(Ordering::Acquire)
    }

    /// Begins the next generation, and returns it when no operation of the one before runs any more. The caller is alone.
    /// `let_others` gives half-done operations the chance to go on: what they wait for may be what the caller holds.
    pub(crate) fn advance(
        &self,
        begun: impl FnOnce(u64),
        mut let_others: impl FnMut(Duration),
    ) -> u64 {
        let old = self.current.load(Ordering::Relaxed);
        self.draining.store(true, Ordering::Release);
        begun(old + 1);
        // Release pairs with the Acquire in `current`. Everybody who has read the old number is pinned, and was before the
        // barrier below began, or else has read the new one: pinning and the barrier order these accesses, see `epoch`.
        self.current.store(old + 1, Ordering::Release);
        epoch::barrier();
        // Whoever still runs holds the generation since before that. Acquire pairs with the Release of `HeldGeneration`.
        let held = &self.held[Parity::of(old) as usize];
        while held.load(Ordering::Acquire) > 0 && !planted!("half_done_is_overlooked") {
            let_others(HELD_PAUSE);
        }
        self.draining.store(false, Ordering::Release);
        old + 1
    }

    /// Keeps `generation` from being saved as long as the result is there, for an operation of it that will unpin before it
    /// ends. It is pinned now, so that a checkpoint sees either the pin or this.
    pub(crate) fn hold(self: &Arc<Self>, generation: u64) -> HeldGeneration {
        self.held[Parity::of(generation) as usize].fetch_add(1, Ordering::Relaxed);
        HeldGeneration {
            generations: Arc::clone(self),
            generation,
        }
    }

    pub(crate) fn note(&self, generation: u64, death: Death) {
        let shards = &self.deaths[Parity::of(generation) as usize];
        shards[thread_number() % SHARDS].lock().push(death);
        self.deaths_noted.fetch_add(1, Ordering::Relaxed);
    }

    /// How many deaths wait for a checkpoint.
    pub(crate) fn deaths_noted(&self) -> u64 {
        self.deaths_noted.load(Ordering::Relaxed)
    }

    /// Memory that they take, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.deaths_noted() * 2 * size_of::<Death>() as u64
    }

    /// The deaths of a generation whose operations have all ended.
    pub(crate) fn take_deaths(&self, generation: u64) -> Vec<Death> {
        let mut deaths = Vec::new();
        for shard in &self.deaths[Parity::of(generation) as usize] {
            deaths.append(&mut std::mem::take(&mut *shard.lock()));
        }
        self.deaths_noted
            .fetch_sub(deaths.len() as u64, Ordering::Relaxed);
        deaths
    }

    /// Puts deaths back that could not be written: they are written with the next generation's.
    pub(crate) fn give_back_deaths(&self, generation: u64, mut deaths: Vec<Death>) {
        self.deaths_noted
            .fetch_add(deaths.len() as u64, Ordering::Relaxed);
        self.deaths[Parity::of(generation) as usize][0]
            .lock()
            .append(&mut deaths);
    }
}

/// A generation that is not saved yet: an operation of it has stopped half-way.
pub(crate) struct HeldGeneration {
    generations: Arc<Generations>,
    pub(crate) generation: u64,
}

impl Drop for HeldGeneration {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `advance`: what the operation did comes before what is saved.
        self.generations.held[Parity::of(self.generation) as usize].fetch_sub(1, Ordering::Release);
    }
}
