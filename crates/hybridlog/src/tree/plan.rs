//! A change of a collection that is being planned, and making it.
//!
//! A plan says for the root and for every page that changes what becomes of it. To make it, everything is appended that
//! cannot be changed where it lies; that is all that can fail. Only then is anything changed that others can see.
#![allow(unsafe_code)] // Changes records in place, under the exclusive latch of the collection's key.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::PAGE_BYTES;
use super::root::{bytes_beside_elements, record_flags};
use crate::address::{RECORD_ALIGN, Slot};
use crate::index::Index;
use crate::large::INLINE_MAX_BYTES;
use crate::log::Urgency;
use crate::operation::{Found, Operation};
use crate::record::{Draft, flag};
use crate::write::{Content as Logged, Over};
use crate::{Meta, Namespace, Stop};

/// Header, key and rounding of a page's record.
const RECORD_OVERHEAD_BYTES: usize = 40;

/// How much room to grow a page gets that is copied because it has grown.
const GROWTH_BYTES: usize = 512;

/// A root that has grown gets room for a quarter more, and for so much at least, but never for more than it holds.
const ROOT_GROWTH_LEAST_BYTES: usize = 64;

/// What an element takes beside its key and its value, at most, if these are short.
const ELEMENT_BESIDE_BYTES: usize = 3;

/// Bytes that take the place of others.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    pub(super) at: usize,
    pub(super) removed: usize,
    pub(super) inserted: SmallVec<[u8; 16]>,
}

impl Patch {
    /// Bytes over as many others.
    pub(super) fn over(at: usize, bytes: &[u8]) -> Patch {
        Patch {
            at,
            removed: bytes.len(),
            inserted: SmallVec::from_slice(bytes),
        }
    }
}

/// Few enough that they are rarely allocated.
pub(super) type Patches = SmallVec<[Patch; 3]>;

/// What becomes of a record's value.
pub(super) enum Content {
    /// These parts of it change; ascending, apart from each other, and one of them at most changes the length.
    Patched(Patches),
    /// It becomes this.
    New(Vec<u8>),
}

/// What becomes of a page.
pub(super) enum PageContent {
    Becomes(Content),
    Gone,
}

pub(super) struct PageChange<'o> {
    pub(super) number: u32,
    /// Its record, if it is not a new page.
    pub(super) previous: Option<Found<'o>>,
    pub(super) content: PageContent,
}

/// What becomes of a collection.
pub(super) struct Plan<'o> {
    /// The object of its pages, if it has any.
    pub(super) object: u64,
    pub(super) pages: SmallVec<[PageChange<'o>; 4]>,
    pub(super) root: Content,
}

/// The root record that a plan is about.
pub(super) enum RootPlace<'o> {
    /// There is one.
    At(Found<'o>),
    /// One is to be made, in the place of what is there.
    New(Meta, Over<'o>),
}

impl Content {
    fn len(&self, old: usize) -> usize {
        match self {
            Content::New(value) => value.len(),
            Content::Patched(patches) => {
                let inserted: usize = patches.iter().map(|patch| patch.inserted.len()).sum();
                let removed: usize = patches.iter().map(|patch| patch.removed).sum();
                old + inserted - removed
            }
        }
    }

    /// The whole value, where the record had `old` before.
    pub(super) fn whole(&self, old: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Content::New(value) => Cow::Borrowed(value),
            Content::Patched(patches) => {
                let mut value = Vec::with_capacity(self.len(old.len()));
                let mut at = 0;
                for patch in patches {
                    value.extend_from_slice(&old[at..patch.at]);
                    value.extend_from_slice(&patch.inserted);
                    at = patch.at + patch.removed;
                }
                value.extend_from_slice(&old[at..]);
                Cow::Owned(value)
            }
        }
    }

    /// Whether it can be changed where it lies.
    fn fits(&self, found: &Found<'_>) -> bool {
        found.mutable && self.len(found.record.value().len()) <= found.record.value_capacity()
    }

    /// Whether it can be changed where it lies, being a root.
    fn fits_root(&self, found: &Found<'_>) -> bool {
        let same_flags = match self {
            Content::New(value) => {
                let flags = flag::TREE | flag::DUE;
                record_flags(value) == found.record.flags() & flags
            }
            Content::Patched(_) => true,
        };
        same_flags && self.fits(found)
    }

    /// Room to grow for a page that is appended.
    fn slack_bytes(&self, old: Option<&Found<'_>>) -> usize {
        let old_len = old.map_or(0, |found| found.record.value().len());
        let len = self.len(old_len);
        let most = match self {
            // Made by a split or a merge: it is about to grow.
            Content::New(_) => PAGE_BYTES,
            Content::Patched(_) if len > old_len => GROWTH_BYTES,
            Content::Patched(_) => 0,
        };
        // A record has room for whole words.
        PAGE_BYTES
            .saturating_sub(len)
            .min(most)
            .next_multiple_of(RECORD_ALIGN)
    }

    /// Changes the record where it lies.
    ///
    /// # Safety
    /// [`Self::fits`], and the caller holds the exclusive latch of the collection's key; no slice of the value is alive.
    unsafe fn write_in_place(&self, found: &Found<'_>) {
        let (mut record, kind) = (found.record, found.record.meta().kind);
        match self {
            // SAFETY: by contract; all of the value is covered.
            Content::New(value) => unsafe { record.write_in_place(0, value, value.len(), kind) },
            Content::Patched(patches) => {
                // From the last to the first: so the places of those that are to come stay what they are.
                for patch in patches.iter().rev() {
                    // SAFETY: by contract; after each patch the value has its old length or its new one.
                    unsafe {
                        record.splice_in_place(patch.at, patch.removed, &patch.inserted);
                    }
                }
            }
        }
    }
}

impl<I: Index> Operation<'_, I> {
    /// Says that so many elements, of so many bytes together, are about to be put into the collection under `key`. If its root
    /// has to be written anew meanwhile it gets room for them, so that they do not leave a record behind for each.
    pub fn foresee_growth(&self, namespace: Namespace, key: &[u8], elements: usize, bytes: usize) {
        let hash = self.shared.hash(namespace, key);
        let all_bytes = bytes + elements * ELEMENT_BESIDE_BYTES;
        self.foreseen.set((hash, all_bytes));
    }

    /// Room to grow for a root of `len` bytes that is appended, and had `before` bytes: for elements that are foreseen, and
    /// since what has grown once grows again.
    fn root_slack_bytes(
        &self,
        hash: u64,
        place: &RootPlace<'_>,
        before: usize,
        len: usize,
    ) -> usize {
        let slack_bytes = match place {
            RootPlace::At(_) if len > before => (len / 4).max(ROOT_GROWTH_LEAST_BYTES.min(len)),
            _ => 0,
        };
        let foreseen = match self.foreseen.get() {
            (of, bytes) if of == hash && before + bytes <= PAGE_BYTES => before + bytes,
            _ => 0,
        };
        slack_bytes
            .max(foreseen.saturating_sub(len))
            .min(PAGE_BYTES.saturating_sub(len))
    }

    /// As [`Self::make`], of a change that stores `value`, which goes to the command log ahead if it is long: not before there
    /// is room for what it changes.
    pub(super) fn make_logged<'v>(
        &self,
        (namespace, key): (Namespace, &[u8]),
        place: RootPlace<'_>,
        plan: Plan<'_>,
        value: &'v [u8],
    ) -> Result<Logged<'v>, Stop> {
        if value.len() > INLINE_MAX_BYTES && self.urgency.get() == Urgency::Normal {
            let needed = self.needed_bytes((namespace, key), &place, &plan);
            self.shared.check_room(needed)?;
        }
        let content = self.log_ahead(value)?;
        self.make((namespace, key), place, plan)?;
        Ok(content)
    }

    /// Makes a change of the collection under `key`.
    ///
    /// # Errors
    ///
    /// [`Stop::NoRoom`]; nothing has changed then.
    pub(super) fn make(
        &self,
        (namespace, key): (Namespace, &[u8]),
        place: RootPlace<'_>,
        plan: Plan<'_>,
    ) -> Result<(), Stop> {
        let needed = self.needed_bytes((namespace, key), &place, &plan);
        if needed > 0 && self.urgency.get() == Urgency::Normal {
            self.shared.check_room(needed)?;
        }
        let urgency = self.urgency.get();
        let mut appended = SmallVec::<[Slot; 4]>::new();
        let all = self.append_all((namespace, key), &place, &plan, &mut appended);
        if let Err(stop) = all {
            appended
                .iter()
                .for_each(|&slot| self.shared.log.make_void(slot));
            self.urgency.set(urgency);
            return Err(match stop {
                Stop::NoRoom { .. } => Stop::NoRoom { bytes: needed },
                other => other,
            });
        }
        self.urgency.set(Urgency::Emergency);
        let mut appended = appended.into_iter();
        for page in plan.pages {
            match (page.content, page.previous) {
                (PageContent::Gone, Some(found)) => {
                    self.remove_page(plan.object, page.number, &found);
                }
                (PageContent::Gone, None) => {}
                (PageContent::Becomes(content), Some(found)) if content.fits(&found) => {
                    // SAFETY: it fits; the latch is held (contract of `Operation`); a plan borrows no value.
                    unsafe { content.write_in_place(&found) };
                }
                (PageContent::Becomes(_), previous) => {
                    if let Some(new) = appended.next() {
                        self.publish_page(plan.object, page.number, previous, new);
                    }
                }
            }
        }
        let hash = self.shared.hash(namespace, key);
        match (place, appended.next()) {
            (RootPlace::At(found), Some(new)) => {
                let meta = found.record.meta();
                self.publish(hash, namespace, key, new, meta, Over::SamePages(found));
            }
            (RootPlace::New(meta, over), Some(new)) => {
                self.publish(hash, namespace, key, new, meta, over);
            }
            (RootPlace::At(found), None) => {
                // SAFETY: as above; it has not been appended because it fits.
                unsafe { plan.root.write_in_place(&found) };
            }
            (RootPlace::New(..), None) => {}
        }
        Ok(())
    }

    /// Appends what is not changed in place: pages in the order of the plan, then the root.
    fn append_all(
        &self,
        (namespace, key): (Namespace, &[u8]),
        place: &RootPlace<'_>,
        plan: &Plan<'_>,
        appended: &mut SmallVec<[Slot; 4]>,
    ) -> Result<(), Stop> {
        for page in &plan.pages {
            let PageContent::Becomes(content) = &page.content else {
                continue;
            };
            let previous = page.previous.as_ref();
            if previous.is_some_and(|found| content.fits(found)) {
                continue;
            }
            let old = previous.map_or(&[][..], |found| found.record.value());
            let slack_bytes = content.slack_bytes(previous);
            let whole = content.whole(old);
            appended.push(self.append_page(plan.object, page.number, &whole, slack_bytes)?);
        }
        let (meta, old) = match place {
            RootPlace::At(found) if plan.root.fits_root(found) => return Ok(()),
            RootPlace::At(found) => (found.record.meta(), found.record.value()),
            RootPlace::New(meta, _) => (*meta, &[][..]),
        };
        let value = plan.root.whole(old);
        let before = match place {
            RootPlace::At(_) => old.len(),
            RootPlace::New(..) => bytes_beside_elements(&value),
        };
        let hash = self.shared.hash(namespace, key);
        let slack_bytes = self.root_slack_bytes(hash, place, before, value.len());
        let draft = Draft {
            namespace,
            key,
            value: &value,
            meta,
            flags: record_flags(&value),
            slack_bytes,
        };
        appended.push(self.append(&draft)?);
        Ok(())
    }

    /// Bytes of the log that a plan needs at most.
    fn needed_bytes(
        &self,
        (namespace, key): (Namespace, &[u8]),
        place: &RootPlace<'_>,
        plan: &Plan<'_>,
    ) -> u64 {
        let mut needed = 0;
        for page in &plan.pages {
            let PageContent::Becomes(content) = &page.content else {
                continue;
            };
            let previous = page.previous.as_ref();
            if !previous.is_some_and(|found| content.fits(found)) {
                let old = previous.map_or(0, |found| found.record.value().len());
                needed += content.len(old).max(PAGE_BYTES) + RECORD_OVERHEAD_BYTES;
            }
        }
        let (before, len) = match place {
            RootPlace::At(found) if plan.root.fits_root(found) => return needed as u64,
            RootPlace::At(found) => {
                let before = found.record.value().len();
                (before, plan.root.len(before))
            }
            RootPlace::New(..) => match &plan.root {
                Content::New(value) => (bytes_beside_elements(value), value.len()),
                Content::Patched(_) => (0, plan.root.len(0)),
            },
        };
        let hash = self.shared.hash(namespace, key);
        let slack_bytes = self.root_slack_bytes(hash, place, before, len);
        needed += len + slack_bytes + key.len() + RECORD_OVERHEAD_BYTES;
        needed as u64
    }
}
