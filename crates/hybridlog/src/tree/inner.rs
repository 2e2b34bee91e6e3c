//! Inner nodes: for each child its page, how many elements are under it, and the least that belongs there.
//!
//! ```text
//! level u8, count u16, then of each child
//!     page u32, elements u48, and
//!     by hash: the least hash, u64, big-endian    by key: where its separator ends among them, u16    by position: nothing
//! by key: the separators, one after the other
//! ```
//!
//! What has a fixed length stands together, so that counts are changed in place and children found by bisection. The first
//! child's bound says nothing: whatever is less than the second one's belongs to the first child.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::Order;
use super::leaf::{NODE_HEADER_BYTES, count_of};

/// Bytes of page and elements.
const PLACE_BYTES: usize = 10;
const ELEMENTS_AT: usize = 4;
/// Bytes of a count of elements.
pub(super) const ELEMENTS_BYTES: usize = 6;

const TOO_SHORT: &str = "an inner node is shorter than its children";

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) enum Sought<'k> {
    Hash(u64),
    Key(&'k [u8]),
    Position(u64),
}

/// A child without its bound.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) page: u32,
    pub(super) elements: u64,
}

/// The least that belongs to a child, as it is compared: a hash big-endian, a separator, or nothing.
pub(super) type Bound = SmallVec<[u8; 24]>;

/// A child of a node that is being made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Child {
    pub(super) page: u32,
    pub(super) elements: u64,
    pub(super) bound: Bound,
}

/// An inner node that is being read.
#[derive(Clone, Copy)]
pub(super) struct Inner<'a> {
    order: Order,
    count: usize,
    fixed: &'a [u8],
    separators: &'a [u8],
}

fn stride(order: Order) -> usize {
    PLACE_BYTES
        + match order {
            Order::Hash => 8,
            Order::Key => 2,
            Order::Position => 0,
        }
}

pub(super) fn elements_bytes(elements: u64) -> [u8; ELEMENTS_BYTES] {
    let [bytes @ .., _, _] = elements.to_le_bytes();
    bytes
}

impl<'a> Inner<'a> {
    /// Of a node that must be an inner one of this level.
    pub(super) fn of(node: &'a [u8], order: Order, level: u8) -> Result<Inner<'a>, &'static str> {
        if node.first() != Some(&level) || level == 0 {
            return Err("an inner node has another level than its parent says");
        }
        let count = usize::from(count_of(node));
        let (fixed, separators) = node
            .get(NODE_HEADER_BYTES..)
            .and_then(|rest| rest.split_at_checked(count * stride(order)))
            .ok_or(TOO_SHORT)?;
        if count == 0 {
            return Err("an inner node has no children");
        }
        Ok(Inner {
            order,
            count,
            fixed,
            separators,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn entry(&self, index: usize) -> &'a [u8] {
        let stride = stride(self.order);
        &self.fixed[index * stride..(index + 1) * stride]
    }

    pub(super) fn place(&self, index: usize) -> Place {
        let mut elements = [0; 8];
        let entry = self.entry(index);
        elements[..ELEMENTS_BYTES].copy_from_slice(&entry[ELEMENTS_AT..PLACE_BYTES]);
        Place {
            page: u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]),
            elements: u64::from_le_bytes(elements),
        }
    }

    /// Where in the node the count of a child's elements stands.
    pub(super) fn elements_at(&self, index: usize) -> usize {
        NODE_HEADER_BYTES + index * stride(self.order) + ELEMENTS_AT
    }

    pub(super) fn bound(&self, index: usize) -> Result<&'a [u8], &'static str> {
        match self.order {
            Order::Position => Ok(&[]),
            Order::Hash => Ok(&self.entry(index)[PLACE_BYTES..]),
            Order::Key => {
                let end = |index: usize| {
                    let entry = self.entry(index);
                    usize::from(u16::from_le_bytes([
                        entry[PLACE_BYTES],
                        entry[PLACE_BYTES + 1],
                    ]))
                };
                let start = index.checked_sub(1).map_or(0, end);
                let bound = self.separators.get(start..end(index));
                bound.ok_or("an inner node's separators end before they begin, or behind it")
            }
        }
    }

    /// The child to which what is sought belongs, and for a position how many elements are in front of the child. A position
    /// behind all elements belongs to the last child.
    pub(super) fn find(&self, sought: Sought<'_>) -> Result<(usize, u64), &'static str> {
        match sought {
            Sought::Hash(hash) => self.find_bound(&hash.to_be_bytes()).map(|child| (child, 0)),
            Sought::Key(key) => self.find_bound(key).map(|child| (child, 0)),
            Sought::Position(position) => Ok(self.find_position(position)),
        }
    }

    /// The last child whose bound is not greater.
    fn find_bound(&self, sought: &[u8]) -> Result<usize, &'static str> {
        let (mut low, mut high) = (1, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.bound(middle)?.cmp(sought) {
                Ordering::Greater => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(low - 1)
    }

    fn find_position(&self, position: u64) -> (usize, u64) {
        let mut before = 0u64;
        for index in 0..self.count - 1 {
            let behind = before.saturating_add(self.place(index).elements);
            if position < behind {
                return (index, before);
            }
            before = behind;
        }
        (self.count - 1, before)
    }

    /// How many elements are under the children in front of `index`.
    pub(super) fn elements_before(&self, index: usize) -> u64 {
        let places = (0..index).map(|index| self.place(index).elements);
        places.fold(0, u64::saturating_add)
    }

    /// All children, to make another node of.
    pub(super) fn children(&self) -> Result<Vec<Child>, &'static str> {
        (0..self.count)
            .map(|index| {
                let Place { page, elements } = self.place(index);
                let bound = Bound::from_slice(self.bound(index)?);
                Ok(Child {
                    page,
                    elements,
                    bound,
                })
            })
            .collect()
    }
}

/// Bytes that a child takes in a node.
pub(super) fn child_bytes(order: Order, child: &Child) -> usize {
    let separator = match order {
        Order::Key => child.bound.len(),
        _ => 0,
    };
    stride(order) + separator
}

/// Makes a node of children, of which there are 65,535 at most.
pub(super) fn inner_node(order: Order, level: u8, children: &[Child]) -> Vec<u8> {
    let bytes: usize = children.iter().map(|child| child_bytes(order, child)).sum();
    let mut node = Vec::with_capacity(NODE_HEADER_BYTES + bytes);
    node.push(level);
    node.extend_from_slice(&(children.len() as u16).to_le_bytes());
    let mut separators_end = 0;
    for child in children {
        node.extend_from_slice(&child.page.to_le_bytes());
        node.extend_from_slice(&elements_bytes(child.elements));
        match order {
            Order::Position => {}
            Order::Hash => node.extend_from_slice(&child.bound),
            Order::Key => {
                separators_end += child.bound.len();
                node.extend_from_slice(&(separators_end as u16).to_le_bytes());
            }
        }
    }
    if order == Order::Key {
        children
            .iter()
            .for_each(|child| node.extend_from_slice(&child.bound));
    }
    node
}
