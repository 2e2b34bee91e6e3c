//! Walking over elements in order, both ways, and scanning them with a cursor.

use std::ops::{ControlFlow, Range};

use super::find::{BODIES_AT_ONCE_BYTES, Collection, NodeAt, damaged};
use super::inner::{Inner, Place, Sought};
use super::leaf::{Entries, Entry};
use super::root::Root;
use super::{Direction, Element, Order, WalkFrom};
use crate::Stop;
use crate::index::Index;
use crate::operation::Operation;

/// Cold pages that are asked for together.
const PAGES_AT_ONCE: usize = 1024;

/// So many pages a collection may have without a look at how many the store has.
const PAGES_BELIEVED: u64 = 64 * 1024;

const CHILD_WITHOUT_ELEMENTS: &str = "a child has no elements";

/// How many nodes a visit of a tree may meet: each page once. Nodes that name the same children again and again would have it
/// meet more and more from level to level.
pub(super) struct Visits {
    left: u64,
}

impl Visits {
    pub(super) fn new<I: Index>(op: &Operation<'_, I>, root: &Root<'_>) -> Visits {
        let counted = root.pages.map_or(0, |pages| u64::from(pages.count));
        let left = match counted {
            ..=PAGES_BELIEVED => counted,
            // Nor are there more than all pages of the store; what is being added and removed counts for either, or for both.
            _ => counted.min(2 * op.shared.index.slots() + PAGES_BELIEVED),
        };
        Visits { left }
    }

    /// Counts a child of the node with this number.
    pub(super) fn count(&mut self, root: &Root<'_>, number: Option<u32>) -> Result<(), Stop> {
        let left = self.left.checked_sub(1);
        self.left =
            left.ok_or_else(|| damaged(root, number, "there are more pages than it counts"))?;
        Ok(())
    }
}

/// A node, and the positions of the elements under it.
pub(super) struct Part<'r> {
    node: NodeAt<'r>,
    first: u64,
}

/// What a scan found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScannedElements<'r> {
    /// In no order that means anything.
    pub elements: Vec<Element<'r>>,
    /// Where to go on; 0 at the end.
    pub cursor: u64,
}

impl<'r, I: Index> Collection<'r, I> {
    /// Calls `each` with at most `at_most` elements from a place on, until it breaks. All pages that hold so many elements
    /// are there before the first call; cold ones are asked for together. So what a walk may read is bounded by `at_most`.
    ///
    /// # Errors
    ///
    /// As [`Self::get`]; `each` has not been called then, unless the collection is damaged and has fewer elements than it
    /// counts.
    pub fn walk(
        &self,
        tree: usize,
        from: WalkFrom<'_>,
        direction: Direction,
        at_most: u64,
        each: &mut dyn FnMut(Element<'r>) -> ControlFlow<()>,
    ) -> Result<(), Stop> {
        let range = self.positions(tree, from, direction, at_most)?;
        if range.is_empty() {
            return Ok(());
        }
        let leaves = self.leaves(tree, &range)?;
        self.bodies(tree, &leaves, &range)?;
        let (mut entries, mut left) = (Vec::new(), range.end - range.start);
        let forward = direction == Direction::Forward;
        for number in 0..leaves.len() {
            let number = if forward {
                number
            } else {
                leaves.len() - 1 - number
            };
            let leaf = &leaves[number];
            self.entries_of(tree, leaf, &range, &mut entries)?;
            if !forward {
                entries.reverse();
            }
            left = left.saturating_sub(entries.len() as u64);
            for entry in entries.drain(..) {
                if each(self.op.element(&self.root, entry)?).is_break() {
                    return Ok(());
                }
            }
        }
        match left {
            0 => Ok(()),
            _ => Err(damaged(
                &self.root,
                None,
                "it has fewer elements than it counts",
            )),
        }
    }

    /// The positions of the elements that a walk meets.
    fn positions(
        &self,
        tree: usize,
        from: WalkFrom<'_>,
        direction: Direction,
        at_most: u64,
    ) -> Result<Range<u64>, Stop> {
        let len = self.len(tree);
        // By key, backward: behind the last that is not greater.
        let (first, behind) = match from {
            WalkFrom::Start => (0, len.min(1)),
            WalkFrom::End => (len.saturating_sub(1), len),
            WalkFrom::Position(position) => (position.min(len), position.saturating_add(1)),
            WalkFrom::Key(key) => {
                let ordered = self.root.tree(tree).layout.order == Order::Key;
                assert!(ordered, "only a tree by key can be walked from a key");
                let (rank, is_there) = self.rank(tree, key)?;
                (rank, rank + u64::from(is_there))
            }
        };
        Ok(match direction {
            Direction::Forward => first..first.saturating_add(at_most).min(len),
            Direction::Backward if behind > len => 0..0,
            Direction::Backward => behind.saturating_sub(at_most)..behind,
        })
    }

    /// The leaves that hold the elements at these positions, of which there are some.
    pub(super) fn leaves(&self, tree: usize, range: &Range<u64>) -> Result<Vec<Part<'r>>, Stop> {
        let of_tree = self.root.tree(tree);
        let mut parts = vec![Part {
            node: self.root.top_node(tree),
            first: 0,
        }];
        let mut visits = Visits::new(self.op, &self.root);
        for level in (1..=of_tree.level).rev() {
            let (mut children, mut cold, mut stop) = (Vec::new(), 0, None);
            for part in &parts {
                let number = part.node.number();
                let inner = Inner::of(part.node.bytes, of_tree.layout.order, level)
                    .map_err(|why| damaged(&self.root, number, why))?;
                let mut first = part.first;
                for index in 0..inner.count() {
                    let Place { page, elements } = inner.place(index);
                    if elements == 0 {
                        return Err(damaged(&self.root, number, CHILD_WITHOUT_ELEMENTS));
                    }
                    let behind = first.saturating_add(elements);
                    if behind > range.start && first < range.end && cold < PAGES_AT_ONCE {
                        visits.count(&self.root, number)?;
                        match self.op.tree_page(&self.root, page) {
                            Ok(node) => children.push(Part { node, first }),
                            Err(reason) => {
                                stop = Some(reason);
                                cold += 1;
                            }
                        }
                    }
                    first = behind;
                }
            }
            if let Some(reason) = stop {
                return Err(reason);
            }
            parts = children;
        }
        Ok(parts)
    }

    /// Asks for the pages of all long elements at these positions.
    pub(super) fn bodies(
        &self,
        tree: usize,
        leaves: &[Part<'r>],
        range: &Range<u64>,
    ) -> Result<(), Stop> {
        if !self.is_paged() {
            return Ok(());
        }
        let (mut entries, mut cold, mut stop) = (Vec::new(), 0, None);
        for leaf in leaves {
            self.entries_of(tree, leaf, range, &mut entries)?;
            for outside in entries.drain(..).filter_map(|entry| entry.outside) {
                if cold == PAGES_AT_ONCE {
                    break;
                }
                if let Err(reason) = self.op.body_pages(&self.root, &outside, outside.bytes()) {
                    stop = Some(reason);
                    cold += 1;
                }
            }
        }
        stop.map_or(Ok(()), Err)
    }

    /// Adds the elements of a leaf that are at these positions.
    fn entries_of(
        &self,
        tree: usize,
        leaf: &Part<'r>,
        range: &Range<u64>,
        to: &mut Vec<Entry<'r>>,
    ) -> Result<(), Stop> {
        let damaged = |why| damaged(&self.root, leaf.node.number(), why);
        let layout = self.root.tree(tree).layout;
        let mut entries = Entries::of(leaf.node.bytes, layout).map_err(damaged)?;
        let mut position = leaf.first;
        loop {
            position += entries.skip(range.start.saturating_sub(position));
            if position >= range.end {
                return Ok(());
            }
            let Some(entry) = entries.read().map_err(damaged)? else {
                return Ok(());
            };
            if position >= range.start {
                to.push(entry);
            }
            position += 1;
        }
    }

    /// Some elements of a tree by [`Order::Hash`]: at least `count`, if so many are left, and whole leaves; fewer if they are
    /// long. `cursor` is 0 at first and then what was returned. An element that is there from the first call to the last is
    /// returned at least once, whatever is put or removed meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn scan(&self, tree: usize, cursor: u64, count: u64) -> Result<ScannedElements<'r>, Stop> {
        let of_tree = self.root.tree(tree);
        assert!(
            of_tree.layout.order == Order::Hash,
            "only a tree by hash can be scanned"
        );
        let mut scanned = ScannedElements {
            elements: Vec::new(),
            cursor,
        };
        let (mut stop, mut from, mut least) = (None, cursor, cursor);
        let mut to_come = count;
        loop {
            // Where a leaf is cold the scan goes on with the next, so that all that is needed is fetched together.
            let (leaf, behind, elements) = match self.leaf_of_hash(tree, from)? {
                (Ok(leaf), behind, elements) => (Some(leaf), behind, elements),
                (Err(reason), behind, elements) => {
                    stop = Some(reason);
                    (None, behind, elements)
                }
            };
            let mut goes_on_at = None;
            if let Some(leaf) = leaf {
                match self.scan_leaf(tree, &leaf, least, &mut scanned) {
                    Ok(at) => goes_on_at = at,
                    Err(reason) => stop = Some(reason),
                }
            }
            if let Some(at) = goes_on_at {
                scanned.cursor = at;
                return stop.map_or(Ok(scanned), Err);
            }
            to_come = to_come.saturating_sub(elements);
            scanned.cursor = behind;
            if behind == 0 || to_come == 0 {
                return stop.map_or(Ok(scanned), Err);
            }
            // Nothing in the next leaf is less.
            (from, least) = (behind, 0);
        }
    }

    /// The leaf of a hash, the least hash that belongs behind it (0 if none does), and how many elements it has. The leaf
    /// itself may be cold.
    #[allow(clippy::type_complexity)]
    fn leaf_of_hash(
        &self,
        tree: usize,
        hash: u64,
    ) -> Result<(Result<NodeAt<'r>, Stop>, u64, u64), Stop> {
        let of_tree = self.root.tree(tree);
        let mut node = self.root.top_node(tree);
        let (mut behind, mut elements) = (0, of_tree.elements);
        for level in (1..=of_tree.level).rev() {
            let damaged = |why| damaged(&self.root, node.number(), why);
            let inner = Inner::of(node.bytes, Order::Hash, level).map_err(damaged)?;
            let (child, _) = inner.find(Sought::Hash(hash)).map_err(damaged)?;
            if child + 1 < inner.count() {
                let bound = inner.bound(child + 1).map_err(damaged)?;
                let bound = bound.try_into().map(u64::from_be_bytes).unwrap_or(0);
                if bound <= hash {
                    return Err(damaged("its bounds do not ascend"));
                }
                behind = bound;
            }
            let place = inner.place(child);
            if place.elements == 0 {
                return Err(damaged(CHILD_WITHOUT_ELEMENTS));
            }
            elements = place.elements;
            match self.op.tree_page(&self.root, place.page) {
                Ok(child) => node = child,
                Err(reason) if level == 1 => return Ok((Err(reason), behind, elements)),
                Err(reason) => return Err(reason),
            }
        }
        Ok((Ok(node), behind, elements))
    }

    /// Adds the elements of a leaf whose hashes are not less than `least`. If long ones among them take too much together, only
    /// those of the least hashes: returns with which hash to go on then.
    fn scan_leaf(
        &self,
        tree: usize,
        leaf: &NodeAt<'r>,
        least: u64,
        scanned: &mut ScannedElements<'r>,
    ) -> Result<Option<u64>, Stop> {
        let damaged = |why| damaged(&self.root, leaf.number(), why);
        let layout = self.root.tree(tree).layout;
        let mut entries = Entries::of(leaf.bytes, layout).map_err(damaged)?;
        let (mut all, mut bodies_bytes) = (Vec::new(), 0u64);
        while let Some(entry) = entries.read().map_err(damaged)? {
            if least == 0 || self.op.entry_hash(&self.root, &entry) >= least {
                let body = entry.outside.map_or(0, |outside| outside.bytes());
                bodies_bytes = bodies_bytes.saturating_add(body);
                all.push(entry);
            }
        }
        let goes_on_at = match bodies_bytes > BODIES_AT_ONCE_BYTES {
            true => self.cut_at_hash(&mut all),
            false => None,
        };
        let mut stop = None;
        for entry in all {
            match self.op.element(&self.root, entry) {
                Ok(element) => scanned.elements.push(element),
                Err(reason) => stop = Some(reason),
            }
        }
        stop.map_or(Ok(goes_on_at), Err)
    }

    /// Leaves those of the least hashes whose long ones do not take too much together, and those of one hash at least. Returns
    /// the least hash of the others.
    fn cut_at_hash(&self, entries: &mut Vec<Entry<'r>>) -> Option<u64> {
        let hash = |entry: &Entry<'_>| self.op.entry_hash(&self.root, entry);
        entries.sort_by_cached_key(hash);
        let mut bytes = 0u64;
        for at in 0..entries.len() {
            let body = entries[at].outside.map_or(0, |outside| outside.bytes());
            bytes = bytes.saturating_add(body);
            let is_boundary = at > 0 && hash(&entries[at - 1]) != hash(&entries[at]);
            if is_boundary && bytes > BODIES_AT_ONCE_BYTES {
                let goes_on_at = hash(&entries[at]);
                entries.truncate(at);
                return Some(goes_on_at);
            }
        }
        None
    }
}
