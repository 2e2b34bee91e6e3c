//! Leaves: elements one after the other, searched from the front.
//!
//! ```text
//! node       level u8 (0 in a leaf), count u16, then a leaf's elements or an inner node's children
//! element    head varint: length << 2 | has expiry << 1 | outside; the length is that of the key, by position that of the value
//!            key (none by position), [expires_at_ms u64], [value length varint, value] if the tree has values
//! outside    a long element: of its key only the first 1014 bytes stand here; then [hash u64] by hash if there are more,
//!            first page u32, [expires_at_ms u64], [value length varint] if the tree has values (see `overflow.rs`)
//! ```
//!
//! A leaf in [`Order::Hash`] holds a range of hashes, but is not ordered inside: what is put comes last. To look through a
//! page from its front is to read a few dozen cache lines in order, which the processor loads ahead; and nothing is stored
//! to find elements by.

use std::cmp::Ordering;

use super::{ElementInfo, Order, PAGE_BYTES, TreeLayout};
use crate::Stop;
use crate::fields::put_varint;

/// Level and count.
pub(super) const NODE_HEADER_BYTES: usize = 3;

/// A longer element has its value outside of its leaf.
pub(super) const ELEMENT_MAX_BYTES: usize = PAGE_BYTES / 4;

/// So much of its key is in the leaf all the same.
pub(super) const KEY_PART_MAX_BYTES: usize = PAGE_BYTES / 4;

/// A leaf without elements.
pub(super) const EMPTY_LEAF: [u8; NODE_HEADER_BYTES] = [0; NODE_HEADER_BYTES];

const CUT: &str = "a leaf ends in the middle of an element";

/// How many elements or children a node has; 0 if it has not even a header.
pub(super) fn count_of(node: &[u8]) -> u16 {
    match node {
        [_, low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    }
}

/// An element as it is stored in a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// Where it begins in the node, and where it ends.
    pub(super) at: usize,
    pub(super) end: usize,
    /// If it is outside, the part of it that is not.
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) expires_at_ms: Option<u64>,
    pub(super) outside: Option<Outside>,
}

/// Where the rest of a long element is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outside {
    pub(super) page: u32,
    pub(super) key_len: u64,
    pub(super) value_len: u64,
    /// Of its key, if that is not whole in the leaf of a tree by hash.
    pub(super) hash: Option<u64>,
}

impl Outside {
    pub(super) fn is_key_whole(&self) -> bool {
        self.key_len <= KEY_PART_MAX_BYTES as u64
    }

    /// How much of what is outside is the key, which stands in front of the value.
    pub(super) fn key_bytes(&self) -> u64 {
        if self.is_key_whole() { 0 } else { self.key_len }
    }
}

impl Entry<'_> {
    pub(super) fn info(&self) -> ElementInfo {
        let value_len = self.value.len() as u64;
        ElementInfo {
            value_len: self.outside.map_or(value_len, |outside| outside.value_len),
            expires_at_ms: self.expires_at_ms,
        }
    }

    pub(super) fn is_key_whole(&self) -> bool {
        self.outside.is_none_or(|outside| outside.is_key_whole())
    }
}

/// The elements of a leaf, in order.
#[derive(Clone)]
pub(super) struct Entries<'a> {
    layout: TreeLayout,
    node: &'a [u8],
    at: usize,
    left: u16,
}

impl<'a> Entries<'a> {
    /// Of a node that must be a leaf.
    pub(super) fn of(node: &'a [u8], layout: TreeLayout) -> Result<Entries<'a>, &'static str> {
        match node {
            [0, _, _, ..] => Ok(Entries {
                layout,
                node,
                at: NODE_HEADER_BYTES,
                left: count_of(node),
            }),
            _ => Err("a node that should be a leaf is none"),
        }
    }

    /// Where the next element begins, or the elements end.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.node.get(self.at).ok_or(CUT)?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a leaf holds a number that is longer than 64 bits")
    }

    #[inline]
    fn bytes(&mut self, len: u64) -> Result<&'a [u8], &'static str> {
        let len = usize::try_from(len).map_err(|_| CUT)?;
        let bytes = self.node[self.at..].get(..len).ok_or(CUT)?;
        self.at += len;
        Ok(bytes)
    }

    /// The next element; `None` at the end, where the node must end as well.
    #[inline]
    pub(super) fn read(&mut self) -> Result<Option<Entry<'a>>, &'static str> {
        if self.left == 0 {
            return match self.at == self.node.len() {
                true => Ok(None),
                false => Err("a leaf has bytes behind its last element"),
            };
        }
        self.left -= 1;
        let at = self.at;
        let head = self.varint()?;
        let length = head >> 2;
        if head & 1 != 0 {
            return self.read_outside(at, head).map(Some);
        }
        let key = match self.layout.order {
            Order::Position => &[][..],
            _ => self.bytes(length)?,
        };
        let expires_at_ms = self.expiry(head)?;
        let value = match (self.layout.order, self.layout.has_values) {
            (Order::Position, _) => self.bytes(length)?,
            (_, true) => {
                let len = self.varint()?;
                self.bytes(len)?
            }
            (_, false) => &[],
        };
        Ok(Some(Entry {
            at,
            end: self.at,
            key,
            value,
            expires_at_ms,
            outside: None,
        }))
    }

    /// The head at `at` and where it ends, if it is short.
    #[inline]
    fn short_head(&self, at: usize) -> Option<(usize, usize)> {
        match (*self.node.get(at)?, self.node.get(at + 1)) {
            (head @ 0..0x80, _) => Some((usize::from(head), at + 1)),
            (low, Some(&high @ 0..0x80)) => {
                Some((usize::from(low & 0x7f) | usize::from(high) << 7, at + 2))
            }
            _ => None,
        }
    }

    /// Skips elements that have other keys than `key`, as far as a glance at their lengths and at the last eight bytes of their
    /// keys tells: those differ more often than the first. Returns how many.
    #[inline]
    fn skip_others(&mut self, key: &[u8]) -> u64 {
        let left = self.left;
        let suffix = key.last_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
        while self.left > 0
            && let Some((head, key_at)) = self.short_head(self.at)
            && head & 3 == 0
        {
            let key_end = key_at + (head >> 2);
            if head >> 2 == key.len() {
                let of_element = self.node.get(key_at..key_end);
                let other = of_element.and_then(<[u8]>::last_chunk);
                let other = other.map(|bytes| u64::from_ne_bytes(*bytes));
                // Short keys are compared as they are.
                if other == suffix && (suffix.is_some() || of_element == Some(key)) {
                    break;
                }
            }
            let Some(end) = self.short_end(key_end) else {
                break;
            };
            (self.at, self.left) = (end, self.left - 1);
        }
        u64::from(left - self.left)
    }

    /// Skips elements of a tree by key whose keys are less than `key`, as far as a glance at their first eight bytes tells.
    /// Returns how many.
    #[inline]
    fn skip_less(&mut self, key: &[u8]) -> u64 {
        let Some(prefix) = key.first_chunk() else {
            return 0;
        };
        let prefix = u64::from_be_bytes(*prefix);
        let left = self.left;
        while self.left > 0
            && let Some((head, key_at)) = self.short_head(self.at)
            && head & 3 == 0
            && head >> 2 >= size_of_val(&prefix)
            && let Some(first) = self.node.get(key_at..).and_then(<[u8]>::first_chunk)
            && u64::from_be_bytes(*first) < prefix
            && let Some(end) = self.short_end(key_at + (head >> 2))
        {
            (self.at, self.left) = (end, self.left - 1);
        }
        u64::from(left - self.left)
    }

    /// Where an element ends whose key (by position: whose value) ends at `key_end` and which does not expire, if its value is
    /// short.
    #[inline]
    fn short_end(&self, key_end: usize) -> Option<usize> {
        let end = match self.layout.has_values && self.layout.order != Order::Position {
            true => {
                let (value_len, value_at) = self.short_head(key_end)?;
                value_at + value_len
            }
            false => key_end,
        };
        (end <= self.node.len()).then_some(end)
    }

    /// Skips elements, as many as `count` at most, as far as they are in the leaf and do not expire. Returns how many.
    #[inline]
    pub(super) fn skip(&mut self, count: u64) -> u64 {
        let left = self.left;
        while u64::from(left - self.left) < count
            && self.left > 0
            && let Some((head, start)) = self.short_head(self.at)
            && head & 3 == 0
            && let Some(end) = self.short_end(start + (head >> 2))
        {
            (self.at, self.left) = (end, self.left - 1);
        }
        u64::from(left - self.left)
    }

    #[cold]
    fn read_outside(&mut self, at: usize, head: u64) -> Result<Entry<'a>, &'static str> {
        let length = head >> 2;
        let by_position = self.layout.order == Order::Position;
        let key_len = if by_position { 0 } else { length };
        let key = self.bytes(key_len.min(KEY_PART_MAX_BYTES as u64))?;
        let has_hash = self.layout.order == Order::Hash && key_len > key.len() as u64;
        let hash = match has_hash {
            true => Some(u64::from_le_bytes(self.array()?)),
            false => None,
        };
        let page = u32::from_le_bytes(self.array()?);
        let expires_at_ms = self.expiry(head)?;
        let value_len = match (by_position, self.layout.has_values) {
            (true, _) => length,
            (false, true) => self.varint()?,
            (false, false) => 0,
        };
        Ok(Entry {
            at,
            end: self.at,
            key,
            value: &[],
            expires_at_ms,
            outside: Some(Outside {
                page,
                key_len,
                value_len,
                hash,
            }),
        })
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], &'static str> {
        self.bytes(LEN as u64)?.try_into().map_err(|_| CUT)
    }

    #[inline]
    fn expiry(&mut self, head: u64) -> Result<Option<u64>, &'static str> {
        if head & 2 == 0 {
            return Ok(None);
        }
        Ok(Some(u64::from_le_bytes(self.array()?)))
    }
}

/// Appends an element as it is stored.
pub(super) fn put_entry(
    to: &mut Vec<u8>,
    layout: TreeLayout,
    key: &[u8],
    value: &[u8],
    expires_at_ms: Option<u64>,
) {
    let has_expiry = u64::from(expires_at_ms.is_some()) << 1;
    if layout.order == Order::Position {
        put_varint(to, (value.len() as u64) << 2);
        to.extend_from_slice(value);
        return;
    }
    put_varint(to, (key.len() as u64) << 2 | has_expiry);
    to.extend_from_slice(key);
    if let Some(at) = expires_at_ms {
        to.extend_from_slice(&at.to_le_bytes());
    }
    if layout.has_values {
        put_varint(to, value.len() as u64);
        to.extend_from_slice(value);
    }
}

/// Appends an element that is outside. `outside` has a hash if the key is not whole.
pub(super) fn put_outside(
    to: &mut Vec<u8>,
    layout: TreeLayout,
    key: &[u8],
    outside: &Outside,
    expires_at_ms: Option<u64>,
) {
    let by_position = layout.order == Order::Position;
    let length = if by_position {
        outside.value_len
    } else {
        outside.key_len
    };
    put_varint(
        to,
        length << 2 | u64::from(expires_at_ms.is_some()) << 1 | 1,
    );
    to.extend_from_slice(&key[..key.len().min(KEY_PART_MAX_BYTES)]);
    if let Some(hash) = outside.hash {
        to.extend_from_slice(&hash.to_le_bytes());
    }
    to.extend_from_slice(&outside.page.to_le_bytes());
    if let Some(at) = expires_at_ms {
        to.extend_from_slice(&at.to_le_bytes());
    }
    if layout.has_values && !by_position {
        put_varint(to, outside.value_len);
    }
}

/// Why a leaf could not be searched.
pub(super) enum Trouble {
    Damaged(&'static str),
    /// A key that is not whole in the leaf could not be read.
    Stop(Stop),
}

impl From<&'static str> for Trouble {
    fn from(why: &'static str) -> Trouble {
        Trouble::Damaged(why)
    }
}

/// Compares the whole key of an element, of which a part is outside, with another.
pub(super) type CompareOutside<'c> = dyn Fn(&Outside, &[u8]) -> Result<Ordering, Stop> + 'c;

/// Where in a leaf an element is, or would be put.
pub(super) struct Spot<'a> {
    /// How many elements are in front of it.
    pub(super) index: u64,
    /// Where its bytes begin, or are to be inserted.
    pub(super) at: usize,
    /// The element, if it is there.
    pub(super) entry: Option<Entry<'a>>,
}

/// Looks for `key`. Where it is not, the spot is where it belongs.
pub(super) fn find_key<'a>(
    node: &'a [u8],
    layout: TreeLayout,
    key: &[u8],
    compare: &CompareOutside<'_>,
) -> Result<Spot<'a>, Trouble> {
    let mut entries = Entries::of(node, layout)?;
    let mut index = 0;
    let is_ordered = layout.order == Order::Key;
    loop {
        index += match is_ordered {
            true => entries.skip_less(key),
            false => entries.skip_others(key),
        };
        let Some(entry) = entries.read()? else {
            break;
        };
        let order = match entry.is_key_whole() {
            true if is_ordered => entry.key.cmp(key),
            true if entry.key == key => Ordering::Equal,
            true => Ordering::Less,
            false => compare_part(&entry, key, is_ordered, compare)?,
        };
        if order == Ordering::Equal {
            return Ok(Spot {
                index,
                at: entry.at,
                entry: Some(entry),
            });
        }
        if is_ordered && order == Ordering::Greater {
            return Ok(Spot {
                index,
                at: entry.at,
                entry: None,
            });
        }
        index += 1;
    }
    Ok(Spot {
        index,
        at: entries.at(),
        entry: None,
    })
}

/// Compares an element whose key is not whole in the leaf, reading the rest only if it matters.
#[cold]
fn compare_part(
    entry: &Entry<'_>,
    key: &[u8],
    is_ordered: bool,
    compare: &CompareOutside<'_>,
) -> Result<Ordering, Trouble> {
    let Some(outside) = &entry.outside else {
        return Ok(entry.key.cmp(key));
    };
    let part = entry.key.cmp(&key[..key.len().min(entry.key.len())]);
    if part != Ordering::Equal || !is_ordered && outside.key_len != key.len() as u64 {
        return Ok(part.then(Ordering::Less));
    }
    if key.len() <= entry.key.len() {
        // It begins with what is sought, and is longer.
        return Ok(Ordering::Greater);
    }
    compare(outside, key).map_err(Trouble::Stop)
}

/// The element with so many in front of it; at the end there is none.
pub(super) fn find_index(
    node: &[u8],
    layout: TreeLayout,
    index: u64,
) -> Result<Spot<'_>, &'static str> {
    let mut entries = Entries::of(node, layout)?;
    let mut before = 0;
    loop {
        before += entries.skip(index - before);
        let at = entries.at();
        let entry = entries.read()?;
        if before == index || entry.is_none() {
            return Ok(Spot {
                index: before,
                at,
                entry,
            });
        }
        before += 1;
    }
}
