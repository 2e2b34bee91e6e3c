//! Large values: a root record that holds length and object id, and pages of 32 KiB that are records of their own.
//!
//! So a part of a large value can be cold while another is hot, and changing a byte writes a page. A page that was never
//! written does not exist and reads as zeroes; the last page is as long as it needs to be. Object ids are never reused,
//! so a page that outlives its root (a cold one, whose slot stays until compaction meets it) can never be taken for
//! another's.
//!
//! ```text
//! root value:  length u64, object id u64, page size u32, zero u32
//! page key:    object id u64, page number u32
//! ```
#![allow(unsafe_code)] // Changes pages in place, under the latch of their key.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::address::{Slot, SlotKind};
use crate::index::Index;
use crate::log::Urgency;
use crate::operation::{Found, Operation, Tier};
use crate::record::{Draft, RecordRef, flag};
use crate::segment::Place;
use crate::stats::count;
use crate::tree::TreePages;
use crate::write::Over;
use crate::{Meta, Namespace, Stop};

/// Longer values are stored in pages.
pub(crate) const INLINE_MAX_BYTES: usize = 64 * 1024;

/// Bytes of the value in one page.
pub(crate) const PAGE_BYTES: u64 = 32 * 1024;

/// No value is longer, whatever a file says.
pub(crate) const VALUE_MAX_BYTES: u64 = u32::MAX as u64;

const ROOT_BYTES: usize = 24;

/// The value of a root record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) len: u64,
    pub(crate) object: u64,
}

impl Root {
    pub(crate) fn of(record: &RecordRef<'_>) -> Result<Root, Stop> {
        let value = record.value();
        let field = |at: usize| {
            value
                .get(at..at + 8)?
                .try_into()
                .ok()
                .map(u64::from_le_bytes)
        };
        let why = match (field(0), field(8)) {
            (Some(len), Some(object)) if value.len() == ROOT_BYTES => {
                if len <= VALUE_MAX_BYTES {
                    return Ok(Root { len, object });
                }
                format!("says that it has {len} bytes, more than {VALUE_MAX_BYTES}")
            }
            _ => format!("is {} bytes long, not {ROOT_BYTES}", value.len()),
        };
        let what = format!("root of a large value {why}");
        Err(Stop::Io(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            what,
        )))
    }

    fn encode(self) -> [u8; ROOT_BYTES] {
        let mut value = [0; ROOT_BYTES];
        value[0..8].copy_from_slice(&self.len.to_le_bytes());
        value[8..16].copy_from_slice(&self.object.to_le_bytes());
        value[16..20].copy_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        value
    }

    pub(crate) fn pages(self) -> u32 {
        self.len.div_ceil(PAGE_BYTES) as u32
    }
}

/// The pages that a root record owns.
#[derive(Clone, Copy)]
pub(crate) enum OwnedPages {
    OfValue(Root),
    OfCollection(TreePages),
}

impl OwnedPages {
    /// `None` if the record owns no pages, or does not say which.
    pub(crate) fn of(record: &RecordRef<'_>) -> Option<OwnedPages> {
        if record.flags() & flag::CHUNKED != 0 {
            return Root::of(record).ok().map(OwnedPages::OfValue);
        }
        TreePages::of(record).map(OwnedPages::OfCollection)
    }

    pub(crate) fn object(self) -> u64 {
        match self {
            OwnedPages::OfValue(root) => root.object,
            OwnedPages::OfCollection(pages) => pages.object,
        }
    }

    /// The numbers of the pages are below this.
    pub(crate) fn below(self) -> u32 {
        match self {
            OwnedPages::OfValue(root) => root.pages(),
            OwnedPages::OfCollection(pages) => pages.below,
        }
    }
}

/// Whether a root record owns pages, as far as it can be read.
pub(crate) fn owns_pages(record: &RecordRef<'_>) -> bool {
    record.flags() & flag::CHUNKED != 0 || TreePages::of(record).is_some()
}

pub(crate) fn page_key(object: u64, page: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&object.to_le_bytes());
    key[8..].copy_from_slice(&page.to_le_bytes());
    key
}

/// The pages that `from..to` of a value touches, each with the part of it that it holds, relative to the page.
fn parts(from: u64, to: u64) -> impl Iterator<Item = (u32, Range<usize>)> {
    (from / PAGE_BYTES..to.div_ceil(PAGE_BYTES)).map(move |page| {
        let start = page * PAGE_BYTES;
        let part = from.saturating_sub(start) as usize..(to - start).min(PAGE_BYTES) as usize;
        (page as u32, part)
    })
}

/// Copies what `source` (which lies at `at` of the value) has of the page's bytes into `page`.
fn overlay(page: &mut [u8], page_start: u64, source: &[u8], at: u64) {
    let from = at.max(page_start);
    let to = (at + source.len() as u64).min(page_start + page.len() as u64);
    if from < to {
        page[(from - page_start) as usize..(to - page_start) as usize]
            .copy_from_slice(&source[(from - at) as usize..(to - at) as usize]);
    }
}

/// Room for pages that hold `bytes`: two of them may be nearly empty, and each has a header and may end a segment early.
fn pages_bytes(bytes: u64) -> u64 {
    bytes + bytes / 16 + 2 * PAGE_BYTES
}

/// A lack of room met half-way is one of all that the write needs.
fn with_need(stop: Stop, bytes: u64) -> Stop {
    match stop {
        Stop::NoRoom { .. } => Stop::NoRoom { bytes },
        other => other,
    }
}

/// Whether a page can be changed where it lies so that it ends at `end` or behind.
fn changes_in_place(page: Option<&Found<'_>>, end: usize) -> bool {
    page.is_some_and(|found| found.mutable && end <= found.record.value_capacity())
}

/// What of `bytes`, which go to `offset` of the value, goes to `part` of page `number`.
fn page_part<'b>(bytes: &'b [u8], offset: u64, number: u32, part: &Range<usize>) -> &'b [u8] {
    let from = (u64::from(number) * PAGE_BYTES + part.start as u64 - offset) as usize;
    &bytes[from..from + part.len()]
}

impl<I: Index> Operation<'_, I> {
    /// The record of a page; `None` if it was never written.
    pub(crate) fn page(&self, object: u64, page: u32) -> Result<Option<Found<'_>>, Stop> {
        let key = page_key(object, page);
        let hash = self.shared.page_hash(&key);
        for slot in self.shared.index.candidates(hash, SlotKind::Page) {
            if let Some(found) = self.found(slot)?.filter(|found| found.record.key() == key) {
                self.note_read(hash, &found);
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Calls `each` with the bytes of every page that `from..to` touches (`None`: zeroes), in order. Asks for all cold
    /// ones together before it calls anything.
    pub(crate) fn for_parts<'o>(
        &'o self,
        record: &RecordRef<'_>,
        from: u64,
        to: u64,
        mut each: impl FnMut(Range<usize>, Option<Found<'o>>),
    ) -> Result<(), Stop> {
        let root = Root::of(record)?;
        let mut stop = None;
        let mut found = Vec::new();
        for (page, part) in parts(from, to) {
            match self.page(root.object, page) {
                Ok(page) => found.push((part, page)),
                Err(reason) => stop = Some(reason),
            }
        }
        if let Some(reason) = stop {
            return Err(reason);
        }
        found.into_iter().for_each(|(part, page)| each(part, page));
        Ok(())
    }

    pub(crate) fn large_range(
        &self,
        record: &RecordRef<'_>,
        from: u64,
        to: u64,
    ) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::with_capacity((to - from) as usize);
        let mut warm_bytes = 0;
        self.for_parts(record, from, to, |part, page| {
            let end = bytes.len() + part.len();
            if let Some(found) = page {
                let value = found.record.value();
                bytes.extend_from_slice(
                    &value[part.start.min(value.len())..part.end.min(value.len())],
                );
                warm_bytes += if found.tier == Tier::Warm {
                    part.len() as u64
                } else {
                    0
                };
            }
            bytes.resize(end, 0);
        })?;
        count(&self.shared.counters.warm_copied_bytes, warm_bytes);
        Ok(bytes)
    }

    pub(crate) fn set_large(
        &self,
        namespace: Namespace,
        key: &[u8],
        value: &[u8],
        meta: Meta,
    ) -> Result<(), Stop> {
        self.create_large(namespace, key, value, meta, 0, &[])
            .map(|_| ())
    }

    /// Stores a new large value under `key`: `old` with `bytes` laid over it at `offset`. Returns its length.
    pub(crate) fn create_large(
        &self,
        namespace: Namespace,
        key: &[u8],
        old: &[u8],
        meta: Meta,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, Stop> {
        let len = (old.len() as u64).max(offset + bytes.len() as u64);
        let needed = pages_bytes((old.len() + bytes.len()) as u64);
        self.shared.check_room(needed)?;
        let urgency = self.urgency.get();
        let root = Root {
            len,
            object: self.shared.next_object.fetch_add(1, Ordering::Relaxed),
        };
        let written = self
            .write_new_pages(root, old, offset, bytes)
            .and_then(|()| {
                let draft = Draft {
                    namespace,
                    key,
                    value: &root.encode(),
                    meta,
                    flags: flag::CHUNKED,
                    slack_bytes: 0,
                };
                self.append(&draft)
            });
        match written {
            Ok(slot) => {
                let hash = self.shared.hash(namespace, key);
                self.publish(hash, namespace, key, slot, meta, Over::Unknown);
                Ok(len)
            }
            Err(stop) => {
                self.free_value_pages(root);
                self.urgency.set(urgency);
                Err(with_need(stop, needed))
            }
        }
    }

    fn write_new_pages(
        &self,
        root: Root,
        old: &[u8],
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Stop> {
        let mut content = Vec::with_capacity(PAGE_BYTES as usize);
        for (page, part) in parts(0, root.len) {
            let start = u64::from(page) * PAGE_BYTES;
            let end = start + part.len() as u64;
            let touches = |at: u64, len: usize| at < end && at + len as u64 > start;
            if !touches(0, old.len()) && !touches(offset, bytes.len()) {
                continue;
            }
            content.clear();
            content.resize(part.len(), 0);
            overlay(&mut content, start, old, 0);
            overlay(&mut content, start, bytes, offset);
            let new = self.append_page(root.object, page, &content, 0)?;
            self.publish_page(root.object, page, None, new);
        }
        Ok(())
    }

    pub(crate) fn append_page(
        &self,
        object: u64,
        page: u32,
        content: &[u8],
        slack_bytes: usize,
    ) -> Result<Slot, Stop> {
        let key = page_key(object, page);
        let draft = Draft {
            namespace: Namespace::default(),
            key: &key,
            value: content,
            meta: Meta::default(),
            flags: flag::PAGE,
            slack_bytes,
        };
        self.append(&draft)
    }

    /// Makes `new` the slot of a page that is at `previous`, or was not there.
    pub(crate) fn publish_page<'o>(
        &'o self,
        object: u64,
        page: u32,
        mut previous: Option<Found<'o>>,
        new: Slot,
    ) {
        let key = page_key(object, page);
        let hash = self.shared.page_hash(&key);
        while let Some(found) = previous {
            if self.shared.index.replace(hash, found.slot, new) {
                return self.died(&found);
            }
            // Moved by a relocation since, which only ever moves a record into memory.
            let candidates = self.shared.index.candidates(hash, SlotKind::Page);
            previous = candidates
                .into_iter()
                .find_map(|slot| self.page_in_memory(slot, &key));
        }
        self.shared.index.insert(hash, new);
    }

    fn page_in_memory(&self, slot: Slot, key: &[u8; 12]) -> Option<Found<'_>> {
        let place = self.shared.log.table.place(slot.address());
        if !matches!(place, Place::Memory { .. }) {
            return None;
        }
        self.found(slot)
            .ok()
            .flatten()
            .filter(|found| found.record.key() == key)
    }

    /// Overwrites a part of a large value, lengthening it if need be. Returns its length.
    pub(crate) fn write_large_range(
        &self,
        namespace: Namespace,
        key: &[u8],
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, Stop> {
        let hash = self.shared.hash(namespace, key);
        let Some(found) = self.find(hash, namespace, key)? else {
            return Ok(0);
        };
        let root = Root::of(&found.record)?;
        let end = offset + bytes.len() as u64;
        let mut pages = Vec::new();
        self.for_parts(&found.record, offset, end, |part, page| {
            pages.push((part, page));
        })?;
        let needed = pages_bytes(pages.len() as u64 * PAGE_BYTES);
        self.shared.check_room(needed)?;
        let meta = found.record.meta();
        let value = Root { len: end, ..root }.encode();
        let new_root = (end > root.len && !found.mutable).then_some(Draft {
            namespace,
            key,
            value: &value,
            meta,
            flags: flag::CHUNKED,
            slack_bytes: 0,
        });
        // All that may fail comes first: nothing is half done behind an error.
        let (urgency, mut appended) = (self.urgency.get(), Vec::new());
        let all = pages
            .iter()
            .zip(parts(offset, end))
            .filter(|((part, page), _)| !changes_in_place(page.as_ref(), part.end))
            .try_for_each(|((part, page), (number, _))| {
                let bytes = page_part(bytes, offset, number, part);
                let new = self.append_changed_page(root.object, number, part, bytes, page.as_ref());
                appended.push(new?);
                Ok(())
            })
            .and_then(|()| new_root.map(|draft| self.append(&draft)).transpose());
        let new_root = all.map_err(|stop| {
            let void = |&slot| self.shared.log.make_void(slot);
            appended.iter().for_each(void);
            self.urgency.set(urgency);
            with_need(stop, needed)
        })?;
        let mut appended = appended.into_iter();
        for ((part, page), (number, _)) in pages.into_iter().zip(parts(offset, end)) {
            match page.filter(|page| changes_in_place(Some(page), part.end)) {
                Some(page) => {
                    let bytes = page_part(bytes, offset, number, &part);
                    let len = page.record.value().len().max(part.end);
                    // SAFETY: mutable, covered by the exclusive latch of its key (contract of `Operation`), within the
                    // capacity; what lies between the old end and the part is slack, which is zero.
                    unsafe { page.record.write_in_place(part.start, bytes, len, 0) };
                }
                None => {
                    if let Some(new) = appended.next() {
                        self.publish_page(root.object, number, page, new);
                    }
                }
            }
        }
        self.urgency.set(Urgency::Emergency);
        if let Some(new) = new_root {
            self.publish(hash, namespace, key, new, meta, Over::SamePages(found));
        } else if end > root.len {
            // SAFETY: mutable, exclusively latched (contract of `Operation`), of the same length.
            unsafe {
                found
                    .record
                    .write_in_place(0, &value, ROOT_BYTES, meta.kind);
            };
        }
        Ok(end.max(root.len))
    }

    /// Appends a page's new content: `bytes` at `part` of it, the rest as it was.
    fn append_changed_page(
        &self,
        object: u64,
        number: u32,
        part: &Range<usize>,
        bytes: &[u8],
        page: Option<&Found<'_>>,
    ) -> Result<Slot, Stop> {
        let old = page.map_or(&[][..], |found| found.record.value());
        let len = old.len().max(part.end);
        let mut content = old.to_vec();
        content.resize(len, 0);
        content[part.clone()].copy_from_slice(bytes);
        // A page that is being extended will be extended again.
        let slack_bytes = if old.len() < len {
            PAGE_BYTES as usize - len
        } else {
            0
        };
        self.append_page(object, number, &content, slack_bytes)
    }

    pub(crate) fn pages_of(&self, found: &Found<'_>) -> Option<OwnedPages> {
        OwnedPages::of(&found.record)
    }

    /// Frees the pages of a root that has gone. Those of a collection may be very many: they are buried. Those of a value that
    /// are in memory are taken out of the index; cold ones are dead too, and are looked after later.
    pub(crate) fn free_pages(&self, owned: Option<OwnedPages>) {
        match owned {
            None => {}
            Some(OwnedPages::OfValue(root)) => self.free_value_pages(root),
            Some(OwnedPages::OfCollection(pages)) => {
                let graveyard = &self.shared.graveyard;
                let count = Some(pages.count);
                graveyard.bury(pages.object, pages.below, count, self.generation);
            }
        }
    }

    /// Takes a page that a collection no longer needs out of the index, wherever a relocation may have moved it meanwhile.
    pub(crate) fn remove_page(&self, object: u64, page: u32, found: &Found<'_>) {
        let key = page_key(object, page);
        let hash = self.shared.page_hash(&key);
        let mut slot = found.slot;
        while !self.shared.index.remove(hash, slot) {
            // A relocation only ever moves a record into memory: find it there.
            let candidates = self.shared.index.candidates(hash, SlotKind::Page);
            let moved = candidates
                .into_iter()
                .find_map(|slot| self.page_in_memory(slot, &key));
            match moved {
                Some(found) => slot = found.slot,
                None => return,
            }
        }
        let bytes = found.record.record_bytes();
        self.shared.died(self.generation, slot, bytes);
    }

    fn free_value_pages(&self, root: Root) {
        let mut has_cold = false;
        for page in 0..root.pages() {
            let key = page_key(root.object, page);
            let hash = self.shared.page_hash(&key);
            for slot in self.shared.index.candidates(hash, SlotKind::Page) {
                if let Some(found) = self.page_in_memory(slot, &key)
                    && self.shared.index.remove(hash, slot)
                {
                    self.died(&found);
                } else {
                    has_cold = true;
                }
            }
        }
        if has_cold {
            let graveyard = &self.shared.graveyard;
            graveyard.bury(root.object, root.pages(), None, self.generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_range_exactly() {
        for (from, to) in [
            (0, 0),
            (0, 1),
            (5, PAGE_BYTES),
            (PAGE_BYTES - 1, PAGE_BYTES + 1),
            (7, 5 * PAGE_BYTES + 3),
        ] {
            let mut at = from;
            for (page, part) in parts(from, to) {
                assert_eq!(u64::from(page) * PAGE_BYTES + part.start as u64, at);
                at += part.len() as u64;
            }
            assert_eq!(at, to.max(from));
        }
    }
}
