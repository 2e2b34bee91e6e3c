//! Leaves: elements one after the other, searched from the front.
//!
//! ```text
//! node       level u8 (0 in a leaf), count u16, then a leaf's elements or an inner node's children
//! element    head varint: length << 2 | has expiry << 1 | out of line; the length is that of the key, by position that of the value
//!            key (none by position), [expires_at_ms u64], [value length varint, value] if the tree has values
//! ```
//!
//! A leaf in [`Order::Hash`] holds a range of hashes, but is not ordered inside: what is put comes last. To look through a
//! page from its front is to read a few dozen cache lines in order, which the processor loads ahead; and nothing is stored
//! to find elements by.

use super::{Order, TreeLayout};
use crate::fields::put_varint;

/// Level and count.
pub(super) const NODE_HEADER_BYTES: usize = 3;

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
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) expires_at_ms: Option<u64>,
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
        if head & 1 != 0 {
            return Err("a leaf names an element out of line, which this program does not know");
        }
        let length = head >> 2;
        let key = match self.layout.order {
            Order::Position => &[][..],
            _ => self.bytes(length)?,
        };
        let mut expires_at_ms = None;
        if head & 2 != 0 {
            let field = self.bytes(8)?.try_into().map_err(|_| CUT)?;
            expires_at_ms = Some(u64::from_le_bytes(field));
        }
        let value = match (self.layout.order, self.layout.has_values) {
            (Order::Position, _) => self.bytes(length)?,
            (_, true) => {
                let len = self.varint()?;
                self.bytes(len)?
            }
            (_, false) => &[],
        };
        let end = self.at;
        Ok(Some(Entry {
            at,
            end,
            key,
            value,
            expires_at_ms,
        }))
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
) -> Result<Spot<'a>, &'static str> {
    let mut entries = Entries::of(node, layout)?;
    let mut index = 0;
    while let Some(entry) = entries.read()? {
        if entry.key == key {
            return Ok(Spot {
                index,
                at: entry.at,
                entry: Some(entry),
            });
        }
        if layout.order == Order::Key && entry.key > key {
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

/// The element with so many in front of it; at the end there is none.
pub(super) fn find_index(
    node: &[u8],
    layout: TreeLayout,
    index: u64,
) -> Result<Spot<'_>, &'static str> {
    let mut entries = Entries::of(node, layout)?;
    let mut before = 0;
    loop {
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
