//! Numbers of pages: those that are free are used again.
//!
//! The root remembers a few numbers that have become free. All the others are found again by looking: once a collection has
//! used twice as many numbers as it has pages, most of its numbers are free, and the index tells of each whether a page may have
//! it. So the numbers of a collection stay below twice the most pages that it has ever had, and some, whatever comes and goes;
//! and so does the time that it takes to free them all.
//!
//! A number that the index may know is never given to a page, be it listed as free: a repair may have brought a page back that
//! was gone.

use super::grow::StructurePlan;
use crate::Stop;
use crate::address::SlotKind;
use crate::index::Index;
use crate::large::page_key;
use crate::sync::atomic::Ordering;

/// So many numbers more than twice its pages a collection may have used before they are looked through.
const UNUSED_FEW: u64 = 64;

/// So many numbers are looked at for one, and so many more for each of several that follow each other.
const LOOKED_AT: u32 = 32;
const LOOKED_AT_EACH: u32 = 4;

/// From search to search the place where it begins moves by this share of all (the golden ratio), so that no two begin near
/// each other.
const SEARCH_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl<I: Index> StructurePlan<'_, '_, I> {
    /// The first of so many numbers that follow each other.
    pub(super) fn new_pages(&mut self, count: u32) -> Result<u32, Stop> {
        while count == 1
            && let Some(page) = self.draft.free.pop()
        {
            if self.is_free(page) {
                return Ok(page);
            }
        }
        if let Some(first) = self.unused(count) {
            return Ok(first);
        }
        let pages = self.pages_of_root();
        let next = pages.next.checked_add(count).ok_or(Stop::TooLarge {
            len: u64::from(pages.next) + u64::from(count),
            limit: u64::from(u32::MAX),
        })?;
        Ok(std::mem::replace(&mut pages.next, next))
    }

    /// Whether certainly no page has this number, neither one that is stored nor one of this plan.
    fn is_free(&self, page: u32) -> bool {
        let Some(pages) = self.draft.pages else {
            return true;
        };
        let shared = self.op.shared;
        let hash = shared.page_hash(&page_key(pages.object, page));
        page < pages.next
            && shared.index.newest(hash, SlotKind::Page).is_none()
            && !self.has_planned(page)
    }

    /// The first of so many numbers that were used before and are free, if they are found quickly.
    fn unused(&self, count: u32) -> Option<u32> {
        let pages = self.draft.pages?;
        let in_use = u64::from(pages.count) + u64::from(count);
        if u64::from(pages.next) <= 2 * in_use + UNUSED_FEW {
            return None;
        }
        let searches = self.op.shared.page_searches.fetch_add(1, Ordering::Relaxed);
        let place = searches.wrapping_mul(SEARCH_STEP);
        let start = ((u128::from(place) * u128::from(pages.next)) >> 64) as u32;
        let looked_at = LOOKED_AT.saturating_add(count.saturating_mul(LOOKED_AT_EACH));
        let mut free = 0;
        for page in start..pages.next.min(start.saturating_add(looked_at)) {
            free = if self.is_free(page) { free + 1 } else { 0 };
            if free == count {
                return Some(page + 1 - count);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use crate::tree::root::TreePages;
    use crate::tree::{Layout, Order, TreeLayout};
    use crate::{BucketIndex, KeyRef, LatchMode, Namespace, Operation, Options, Stop, Store};

    const NAMESPACE: Namespace = Namespace(0);
    const KEY: &[u8] = b"list";

    static LIST: Layout = Layout {
        kind: 1,
        trees: &[TreeLayout {
            order: Order::Position,
            has_values: true,
        }],
    };

    fn on<T>(
        store: &Store,
        body: impl FnMut(&mut Operation<'_, BucketIndex>) -> Result<T, Stop>,
    ) -> T {
        let latched = [KeyRef {
            namespace: NAMESPACE,
            key: KEY,
            mode: LatchMode::Exclusive,
        }];
        store.blocking(&latched, 1, body).expect("it is done")
    }

    /// How many pages the list has, and below what their numbers are.
    fn pages(store: &Store) -> (u32, u32) {
        on(store, |op| {
            let record = op.read(NAMESPACE, KEY)?.expect("it is there");
            let pages = TreePages::of(&record.found.record);
            Ok(pages.map_or((0, 0), |pages| (pages.count, pages.below)))
        })
    }

    /// A list through which far more long elements go than it ever holds.
    #[test]
    fn numbers_of_pages_are_used_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = Options::new(directory.path()).memory_bytes(64 << 20);
        let store = Store::<BucketIndex>::open(options).expect("it opens");
        let (mut model, mut most) = (VecDeque::new(), 0);
        for n in 0..6000u64 {
            // One to four pages, and some that are short.
            let len = n.wrapping_mul(0x9e37_79b9) % 14_000;
            let value = vec![n as u8; len as usize];
            on(&store, |op| {
                op.insert_at(NAMESPACE, KEY, &LIST, 0, u64::MAX, &value)
            });
            model.push_back(value);
            if n % 1000 == 999 {
                store.force_cold().expect("it goes cold");
            }
            most = most.max(pages(&store).0);
            if model.len() > 100 {
                let removed = on(&store, |op| op.remove_range(NAMESPACE, KEY, 0, 0, 1));
                assert_eq!(removed, 1);
                model.pop_front();
            }
        }
        for (position, value) in model.iter().enumerate() {
            let found = on(&store, |op| {
                let record = op.read(NAMESPACE, KEY)?.expect("it is there");
                let list = op.open_collection(&record)?;
                let element = list.at(0, position as u64)?.expect("it is there");
                Ok(element.value.into_owned())
            });
            assert!(found == *value, "{position}");
        }
        let (_, below) = pages(&store);
        assert!(below <= 4 * most + 200, "{below} numbers of {most} pages");
        on(&store, |op| op.remove(NAMESPACE, KEY));
        while store.stats().index_slots > 0 {
            assert!(store.compact(Duration::from_secs(20)), "pages are left");
        }
    }
}
