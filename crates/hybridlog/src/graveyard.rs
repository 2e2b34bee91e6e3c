//! Large values and collections that have lost their root: their pages are dead, wherever they are.
//!
//! Pages of a value that are in memory lose their slots with the root. Those on the device would have to be read first, so the
//! object is buried, and the compaction thread looks after its pages: it reads them, some at a time, and takes their slots out.
//! A collection may have millions of pages: it is always buried, so that to remove it takes as long as to remove its root.
//! Object ids are never reused, so there is no hurry.
//!
//! Pages that cannot be read keep their slots and their grave: they are tried again, also after a restart.
//!
//! A burial belongs to the generation of the operation that removed the root, and its end to that of the last slot taken out:
//! a manifest names those that are buried in its generation and not over in it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::address::SlotKind;
use crate::index::Index;
use crate::large::page_key;
use crate::manifest::Buried;
use crate::operation::{Held, Operation};
use crate::reads::ColdReads;
use crate::record::RecordRef;
use crate::shared::Shared;

/// Pages that are read at once.
const PAGES_PER_STEP: u32 = 32;

/// Pages that could not be read are tried again after so long.
const RETRY: Duration = Duration::from_secs(10);

/// Memory of a grave: its entry in the map, of which a part is empty, and in the line.
const GRAVE_BYTES: u64 = 2 * size_of::<(u64, Grave)>() as u64 + 2 * size_of::<u64>() as u64;

#[derive(Default)]
pub(crate) struct Graveyard {
    graves: Mutex<Graves>,
    /// How many there are.
    count: AtomicU64,
}

#[derive(Default)]
struct Graves {
    by_object: HashMap<u64, Grave>,
    /// Objects with pages that have not been looked after. Those of a removal in progress wait for this lock, so whoever looks
    /// for one must not look through them all.
    open: VecDeque<u64>,
    /// Objects with pages that could not be read, and when they are tried again; ascending.
    put_off: VecDeque<(Instant, u64)>,
}

struct Grave {
    /// The numbers of its pages are below this.
    pages: u32,
    /// How many there are, if that is known.
    count: Option<u32>,
    /// The generation in which the root was removed.
    since: u64,
    /// The generation in which the last page lost its slot.
    over_in: Option<u64>,
}

impl Graveyard {
    /// The root of `object`, whose pages had numbers below `pages`, and of which there were `count` if that is known, has been
    /// removed in `generation`.
    pub(crate) fn bury(&self, object: u64, pages: u32, count: Option<u32>, generation: u64) {
        let Graves {
            by_object, open, ..
        } = &mut *self.graves.lock();
        by_object.entry(object).or_insert_with(|| {
            open.push_back(object);
            self.count.fetch_add(1, Ordering::Relaxed);
            Grave {
                pages,
                count,
                since: generation,
                over_in: None,
            }
        });
    }

    /// Memory that they take, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.count.load(Ordering::Relaxed) * GRAVE_BYTES
    }

    fn holds(&self, object: u64) -> bool {
        self.graves.lock().by_object.contains_key(&object)
    }

    /// The oldest that has pages left, and how many those are if that is known.
    fn next(&self) -> Option<(Buried, Option<u32>)> {
        let Graves {
            by_object,
            open,
            put_off,
        } = &mut *self.graves.lock();
        let now = Instant::now();
        while let Some((_, object)) = put_off.pop_front_if(|(again, _)| *again <= now) {
            open.push_back(object);
        }
        let &object = open.front()?;
        let Grave { pages, count, .. } = *by_object.get(&object)?;
        Some((Buried { object, pages }, count))
    }

    /// The one that is [`next`](Self::next) has no pages left as of `generation`.
    fn is_over(&self, object: u64, generation: u64) {
        let Graves {
            by_object, open, ..
        } = &mut *self.graves.lock();
        open.pop_front_if(|first| *first == object);
        if let Some(grave) = by_object.get_mut(&object) {
            grave.over_in = Some(generation);
        }
    }

    /// Of the one that is [`next`](Self::next) some pages could not be read.
    fn put_off(&self, object: u64) {
        let Graves { open, put_off, .. } = &mut *self.graves.lock();
        open.pop_front_if(|first| *first == object);
        put_off.push_back((Instant::now() + RETRY, object));
    }

    /// Those that the manifest of `generation` names.
    pub(crate) fn of(&self, generation: u64) -> Vec<Buried> {
        let graves = self.graves.lock();
        let named = graves.by_object.iter().filter(|(_, grave)| {
            grave.since <= generation && grave.over_in.is_none_or(|over| over > generation)
        });
        let mut buried: Vec<_> = named
            .map(|(&object, grave)| Buried {
                object,
                pages: grave.pages,
            })
            .collect();
        buried.sort_unstable_by_key(|buried| buried.object);
        buried
    }

    /// Forgets those that are over as of a durable manifest of `generation`.
    pub(crate) fn forget(&self, generation: u64) {
        let is_over = |grave: &Grave| grave.over_in.is_some_and(|over| over <= generation);
        let by_object = &mut self.graves.lock().by_object;
        by_object.retain(|_, grave| !is_over(grave));
        if by_object.len() < by_object.capacity() / 4 {
            by_object.shrink_to_fit();
        }
        self.count.store(by_object.len() as u64, Ordering::Relaxed);
    }
}

/// What has become of some pages of a buried object.
#[derive(Default)]
struct FreedSome {
    freed: u32,
    /// Whether none is left.
    is_complete: bool,
}

impl<I: Index> Shared<I> {
    /// Whether a page belongs to a buried object.
    pub(crate) fn is_buried(&self, page: &RecordRef<'_>) -> bool {
        let object = page.key().first_chunk().map(|id| u64::from_le_bytes(*id));
        object.is_some_and(|object| self.graveyard.holds(object))
    }

    /// Takes the pages of one buried object out of the index, reading them as needed; returns `false` if there is none that can
    /// be seen to now.
    pub(crate) fn free_buried_pages(&self, stop: &dyn Fn() -> bool) -> bool {
        let Some((Buried { object, pages }, count)) = self.graveyard.next() else {
            return false;
        };
        let (mut freed, mut is_complete) = (0, true);
        for first in (0..pages).step_by(PAGES_PER_STEP as usize) {
            if stop() {
                return false;
            }
            let some = self.free_some_pages(object, first..pages.min(first + PAGES_PER_STEP));
            freed += some.freed;
            is_complete &= some.is_complete;
            if count.is_some_and(|count| freed >= count) {
                break;
            }
        }
        if !is_complete {
            self.graveyard.put_off(object);
            return true;
        }
        let _pin = crate::epoch::pin();
        self.graveyard.is_over(object, self.generations.current());
        true
    }

    fn free_some_pages(&self, object: u64, pages: std::ops::Range<u32>) -> FreedSome {
        let mut reads = ColdReads::default();
        let mut some = FreedSome::default();
        // What was cold has been read the second time, and what was longer than told the third.
        for _ in 0..3 {
            let operation = Operation::new(self, Held::none(&self.latches), &reads, 0);
            some.is_complete = true;
            for page in pages.clone() {
                let key = page_key(object, page);
                let hash = self.page_hash(&key);
                for slot in self.index.candidates(hash, SlotKind::Page) {
                    match operation.found(slot) {
                        Ok(Some(found)) if found.record.key() == key => {
                            operation.remove_page(object, page, &found);
                            some.freed += 1;
                        }
                        Ok(_) => {}
                        Err(_) => some.is_complete = false,
                    }
                }
            }
            drop(operation);
            if !reads.is_wanting() {
                break;
            }
            reads.fetch_blocking(&self.blocking_reader);
        }
        some
    }

    /// Buried objects of a manifest.
    pub(crate) fn bury_again(&self, buried: &[Buried], generation: u64) {
        for grave in buried {
            self.graveyard
                .bury(grave.object, grave.pages, None, generation);
        }
        let next = buried.iter().map(|grave| grave.object + 1).max();
        self.next_object
            .fetch_max(next.unwrap_or(0), Ordering::Relaxed);
    }
}
