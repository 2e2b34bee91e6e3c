//! Large values and collections that have lost their root: their pages are dead, wherever they are.
//!
//! Pages of a value that are in memory lose their slots with the root. Those on the device would have to be read first, so the
//! object is buried, and the compaction thread looks after its pages: it reads them, some at a time, and takes their slots out.
//! A collection may have millions of pages: it is always buried, so that to remove it takes as long as to remove its root.
//! Object ids are never reused, so there is no hurry.
//!
//! A burial belongs to the generation of the operation that removed the root, and its end to that of the last slot taken out:
//! a manifest names those that are buried in its generation and not over in it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

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

#[derive(Default)]
pub(crate) struct Graveyard {
    graves: Mutex<Graves>,
}

#[derive(Default)]
struct Graves {
    by_object: HashMap<u64, Grave>,
    /// Objects with pages that have not been looked after. Those of a removal in progress wait for this lock, so whoever looks
    /// for one must not look through them all.
    open: VecDeque<u64>,
}

struct Grave {
    pages: u32,
    /// The generation in which the root was removed.
    since: u64,
    /// The generation in which the last page lost its slot.
    over_in: Option<u64>,
}

impl Graveyard {
    /// The root of `object`, which had `pages` pages at most, has been removed in `generation`.
    pub(crate) fn bury(&self, object: u64, pages: u32, generation: u64) {
        let Graves { by_object, open } = &mut *self.graves.lock();
        by_object.entry(object).or_insert_with(|| {
            open.push_back(object);
            Grave {
                pages,
                since: generation,
                over_in: None,
            }
        });
    }

    fn holds(&self, object: u64) -> bool {
        self.graves.lock().by_object.contains_key(&object)
    }

    /// The oldest that has pages left.
    fn next(&self) -> Option<Buried> {
        let Graves { by_object, open } = &*self.graves.lock();
        let &object = open.front()?;
        let pages = by_object.get(&object)?.pages;
        Some(Buried { object, pages })
    }

    /// The one that is [`next`](Self::next) has no pages left as of `generation`.
    fn is_over(&self, object: u64, generation: u64) {
        let Graves { by_object, open } = &mut *self.graves.lock();
        if open.front() == Some(&object) {
            open.pop_front();
        }
        if let Some(grave) = by_object.get_mut(&object) {
            grave.over_in = Some(generation);
        }
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
    }
}

impl<I: Index> Shared<I> {
    /// Whether a page belongs to a buried object.
    pub(crate) fn is_buried(&self, page: &RecordRef<'_>) -> bool {
        let object = page.key().first_chunk().map(|id| u64::from_le_bytes(*id));
        object.is_some_and(|object| self.graveyard.holds(object))
    }

    /// Takes the pages of one buried object out of the index, reading them as needed; returns `false` if there is none.
    pub(crate) fn free_buried_pages(&self, stop: &dyn Fn() -> bool) -> bool {
        let Some(Buried { object, pages }) = self.graveyard.next() else {
            return false;
        };
        for first in (0..pages).step_by(PAGES_PER_STEP as usize) {
            if stop() {
                return false;
            }
            self.free_some_pages(object, first..pages.min(first + PAGES_PER_STEP));
        }
        let _pin = crate::epoch::pin();
        self.graveyard.is_over(object, self.generations.current());
        true
    }

    fn free_some_pages(&self, object: u64, pages: std::ops::Range<u32>) {
        let mut reads = ColdReads::default();
        // What was cold has been read the second time, and what was longer than told the third.
        for _ in 0..3 {
            let operation = Operation::new(self, Held::none(&self.latches), &reads, 0);
            for page in pages.clone() {
                let key = page_key(object, page);
                let hash = self.page_hash(&key);
                for slot in self.index.candidates(hash, SlotKind::Page) {
                    // Of one that cannot be read only the space is lost.
                    if let Ok(Some(found)) = operation.found(slot)
                        && found.record.key() == key
                    {
                        operation.remove_page(object, page, &found);
                    }
                }
            }
            drop(operation);
            if !reads.is_wanting() {
                return;
            }
            reads.fetch_blocking(&self.blocking_reader);
        }
    }

    /// Buried objects of a manifest.
    pub(crate) fn bury_again(&self, buried: &[Buried], generation: u64) {
        for grave in buried {
            self.graveyard.bury(grave.object, grave.pages, generation);
        }
        let next = buried.iter().map(|grave| grave.object + 1).max();
        self.next_object
            .fetch_max(next.unwrap_or(0), Ordering::Relaxed);
    }
}
