//! Long elements: their values, and keys that are too long for a leaf, in pages of their own.
//!
//! What is outside of the leaf is the whole key, if it is longer than the part that stands in the leaf, and then the value; in
//! pages of up to 32 KiB, numbered one after the other. So a leaf always has room for three elements, and to look for a key
//! reads no long values.

use std::borrow::Cow;
use std::cmp::Ordering;

use smallvec::SmallVec;

use super::find::{Path, damaged};
use super::grow::{LeafChange, StructurePlan};
use super::leaf::{ELEMENT_MAX_BYTES, Entry, KEY_PART_MAX_BYTES, Outside, put_entry, put_outside};
use super::plan::{Patch, Plan};
use super::root::Root;
use super::{Element, Order, PAGE_BYTES, TreeLayout};
use crate::Stop;
use crate::index::Index;
use crate::operation::{Found, Operation};

/// Bytes of a long element in one page.
pub(super) const BODY_PAGE_BYTES: usize = PAGE_BYTES * 8;

/// An element that is to be stored.
#[derive(Clone, Copy)]
pub(super) struct NewElement<'e> {
    pub(super) key: &'e [u8],
    pub(super) value: &'e [u8],
    pub(super) expires_at_ms: Option<u64>,
}

impl Outside {
    pub(super) fn bytes(&self) -> u64 {
        self.key_bytes().saturating_add(self.value_len)
    }
}

impl<I: Index> Operation<'_, I> {
    /// The pages of a long element that hold the first `bytes` of it. Asks for all that are cold together.
    pub(super) fn body_pages<'o>(
        &'o self,
        root: &Root<'o>,
        outside: &Outside,
        bytes: u64,
    ) -> Result<Vec<(u32, Found<'o>)>, Stop> {
        let (mut pages, mut cold) = (Vec::new(), false);
        for number in 0..bytes.div_ceil(BODY_PAGE_BYTES as u64) {
            let number = u32::try_from(number).ok();
            let number = number.and_then(|number| outside.page.checked_add(number));
            let Some(number) = number else {
                let why = "an element is longer than there are pages";
                return Err(damaged(root, Some(outside.page), why));
            };
            match self.tree_page(root, number) {
                Ok(node) => pages.extend(node.page),
                Err(Stop::Cold) => cold = true,
                Err(stop) => return Err(stop),
            }
        }
        if cold { Err(Stop::Cold) } else { Ok(pages) }
    }

    /// The first `bytes` of what is outside.
    fn body(&self, root: &Root<'_>, outside: &Outside, bytes: u64) -> Result<Vec<u8>, Stop> {
        let mut body = Vec::new();
        for (_, found) in self.body_pages(root, outside, bytes)? {
            body.extend_from_slice(found.record.value());
        }
        if (body.len() as u64) < bytes {
            let why = "a page of a long element is shorter than it should be";
            return Err(damaged(root, Some(outside.page), why));
        }
        body.truncate(bytes as usize);
        Ok(body)
    }

    /// Compares the key of a long element, of which a part is outside, with another.
    pub(super) fn compare_outside(
        &self,
        root: &Root<'_>,
        outside: &Outside,
        key: &[u8],
    ) -> Result<Ordering, Stop> {
        let stored = self.body(root, outside, outside.key_bytes())?;
        Ok(stored[..].cmp(key))
    }

    /// The whole of an element.
    pub(super) fn element<'o>(
        &'o self,
        root: &Root<'o>,
        entry: Entry<'o>,
    ) -> Result<Element<'o>, Stop> {
        let (mut key, mut value) = (Cow::Borrowed(entry.key), Cow::Borrowed(entry.value));
        if let Some(outside) = &entry.outside {
            let mut body = self.body(root, outside, outside.bytes())?;
            // No longer than the body, which is in memory.
            let of_value = body.split_off(outside.key_bytes() as usize);
            if !outside.is_key_whole() {
                key = Cow::Owned(body);
            }
            value = Cow::Owned(of_value);
        }
        Ok(Element {
            key,
            value,
            expires_at_ms: entry.expires_at_ms,
        })
    }

    /// The hash by which an element is found.
    pub(super) fn entry_hash(&self, root: &Root<'_>, entry: &Entry<'_>) -> u64 {
        match entry.outside.and_then(|outside| outside.hash) {
            Some(hash) => hash,
            None => self.element_hash(root, entry.key),
        }
    }

    /// Plans to put `new` in the place of `old`, at `at` of a leaf; either may be nothing.
    ///
    /// # Errors
    ///
    /// As reading pages, and [`Stop::TooLarge`].
    #[allow(clippy::too_many_arguments)] // What is changed, where it is, and by what.
    pub(super) fn plan_element<'o>(
        &'o self,
        key: &[u8],
        root: &Root<'o>,
        tree: usize,
        path: &Path<'o>,
        at: usize,
        old: Option<Entry<'o>>,
        new: Option<NewElement<'_>>,
    ) -> Result<Plan<'o>, Stop> {
        let layout = root.tree(tree).layout;
        let old_outside = old.and_then(|old| old.outside);
        let elements = i64::from(new.is_some()) - i64::from(old.is_some());
        let change = |bytes: Vec<u8>| LeafChange {
            patch: Patch {
                at,
                removed: old.map_or(0, |old| old.end - old.at),
                inserted: SmallVec::from_vec(bytes),
            },
            elements,
        };
        let is_long = new.is_some_and(|new| is_long(layout, &new));
        if old_outside.is_none() && !is_long {
            let mut bytes = Vec::new();
            if let Some(new) = new {
                put_entry(&mut bytes, layout, new.key, new.value, new.expires_at_ms);
            }
            return self.plan_leaf(key, root, tree, path, &change(bytes));
        }
        let mut plan = StructurePlan::new(self, root);
        if let Some(outside) = old_outside {
            plan.free_body(&outside)?;
        }
        let bytes = match new {
            Some(new) if is_long => plan.add_outside(layout, &new)?,
            Some(new) => {
                let mut bytes = Vec::new();
                put_entry(&mut bytes, layout, new.key, new.value, new.expires_at_ms);
                bytes
            }
            None => Vec::new(),
        };
        plan.change_leaf(key, tree, path, &change(bytes))?;
        plan.finish(key)
    }
}

/// Whether an element has to be outside of its leaf.
pub(super) fn is_long(layout: TreeLayout, new: &NewElement<'_>) -> bool {
    let value = match layout.has_values || layout.order == Order::Position {
        true => new.value.len(),
        false => 0,
    };
    new.key.len() + value > ELEMENT_MAX_BYTES
}

impl<'o, I: Index> StructurePlan<'_, 'o, I> {
    /// Stores what of a long element is outside; returns what stands in the leaf.
    pub(super) fn add_outside(
        &mut self,
        layout: TreeLayout,
        new: &NewElement<'_>,
    ) -> Result<Vec<u8>, Stop> {
        let has_value = layout.has_values || layout.order == Order::Position;
        let value = if has_value { new.value } else { &[] };
        let is_key_whole = new.key.len() <= KEY_PART_MAX_BYTES;
        let by_hash = layout.order == Order::Hash && !is_key_whole;
        let key_part = if is_key_whole { &[][..] } else { new.key };
        let outside = Outside {
            page: self.add_body(key_part, value)?,
            key_len: new.key.len() as u64,
            value_len: value.len() as u64,
            hash: by_hash.then(|| self.op.element_hash(self.root, new.key)),
        };
        let mut bytes = Vec::new();
        put_outside(&mut bytes, layout, new.key, &outside, new.expires_at_ms);
        Ok(bytes)
    }

    /// Stores a key, or nothing, and the value behind it.
    fn add_body(&mut self, key: &[u8], value: &[u8]) -> Result<u32, Stop> {
        let len = key.len() + value.len();
        let first = self.new_pages(len.div_ceil(BODY_PAGE_BYTES) as u32)?;
        for (number, start) in (first..).zip((0..len).step_by(BODY_PAGE_BYTES)) {
            let end = len.min(start + BODY_PAGE_BYTES);
            let of_key = &key[start.min(key.len())..end.min(key.len())];
            let of_value = start.saturating_sub(key.len())..end.saturating_sub(key.len());
            self.add_numbered(number, [of_key, &value[of_value]].concat());
        }
        Ok(first)
    }

    /// Takes the pages of a long element away.
    pub(super) fn free_body(&mut self, outside: &Outside) -> Result<(), Stop> {
        let pages = self.op.body_pages(self.root, outside, outside.bytes())?;
        pages.into_iter().for_each(|page| self.free_page(page));
        Ok(())
    }
}
