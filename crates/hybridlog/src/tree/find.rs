//! Finding elements: from the root down to one leaf.

use std::borrow::Cow;
use std::io;

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::inner::{Inner, Sought};
use super::leaf::{Outside, Spot, Trouble, find_index, find_key};
use super::root::{Root, Tree};
use super::{Element, ElementInfo, Order};
use crate::Stop;
use crate::index::{BucketIndex, Index};
use crate::operation::{Found, Operation, Record};
use crate::record::flag;
use crate::sys::prefetch;

/// Elements that are made sure of together, each of which may need a page of its own.
const ELEMENTS_AT_ONCE: usize = 256;

/// The bodies of long ones among them take so much together, or there is only one.
pub(super) const BODIES_AT_ONCE_BYTES: u64 = 1 << 20;

const CACHE_LINE_BYTES: usize = 64;

/// So many lines of a leaf are fetched ahead; what follows them the processor foresees.
const SEARCHED_LINES: usize = 16;

/// What is needed of elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needed {
    /// Their keys, to find them.
    Keys,
    /// All of them, to read or to change them.
    Whole,
}

/// Told apart from the hashes of keys and pages, which take the same seed.
const ELEMENT_SEED: u64 = 0x656c_656d_656e_7473;

/// A collection that has been found by [`Operation::read`], and is being read.
///
/// # Panics
///
/// Its functions do if they are asked for a tree that the collection does not have, or for something that the order of the
/// tree does not allow, such as a key in a tree by [`Order::Position`].
pub struct Collection<'r, I: Index = BucketIndex> {
    pub(super) op: &'r Operation<'r, I>,
    pub(super) root: Root<'r>,
}

/// A node that has been found: the top of a tree, or a page.
#[derive(Clone, Copy)]
pub(super) struct NodeAt<'o> {
    pub(super) page: Option<(u32, Found<'o>)>,
    pub(super) bytes: &'o [u8],
}

/// An inner node on the way to a leaf, and which of its children the way goes on with.
#[derive(Clone, Copy)]
pub(super) struct Step<'o> {
    pub(super) node: NodeAt<'o>,
    pub(super) inner: Inner<'o>,
    pub(super) child: usize,
}

/// The way from the top of a tree to a leaf.
pub(super) struct Path<'o> {
    pub(super) steps: SmallVec<[Step<'o>; 3]>,
    pub(super) leaf: NodeAt<'o>,
    /// By position: how many elements are in front of the leaf.
    pub(super) before: u64,
}

impl Path<'_> {
    /// How many elements are in front of the leaf.
    pub(super) fn elements_before(&self) -> u64 {
        let steps = self.steps.iter();
        let before = steps.map(|step| step.inner.elements_before(step.child));
        before.fold(0, u64::saturating_add)
    }
}

/// An error that names the page, or the root, which is not what it should be.
pub(super) fn damaged(root: &Root<'_>, page: Option<u32>, why: &str) -> Stop {
    let object = root.pages.map_or(0, |pages| pages.object);
    let place = match page {
        Some(page) => format!("page {page} of the collection with object id {object}"),
        None => return damaged_root(why),
    };
    let text = format!("{place} is damaged: {why}");
    Stop::Io(io::Error::new(io::ErrorKind::InvalidData, text))
}

pub(super) fn damaged_root(why: &str) -> Stop {
    let text = format!("the root of a collection is damaged: {why}");
    Stop::Io(io::Error::new(io::ErrorKind::InvalidData, text))
}

impl NodeAt<'_> {
    pub(super) fn number(&self) -> Option<u32> {
        self.page.map(|(number, _)| number)
    }
}

impl<'o> Root<'o> {
    pub(super) fn of_found(found: &Found<'o>) -> Result<Root<'o>, Stop> {
        if found.record.flags() & flag::TREE == 0 {
            let text = "the key holds a value, not a collection";
            return Err(Stop::Io(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        Root::of(found.record.value()).map_err(damaged_root)
    }

    pub(super) fn top_node(&self, tree: usize) -> NodeAt<'o> {
        NodeAt {
            page: None,
            bytes: self.top(tree),
        }
    }
}

impl<I: Index> Operation<'_, I> {
    /// Opens a collection to read it. The record's kind has been checked by the caller.
    ///
    /// # Errors
    ///
    /// [`Stop::Io`] if the record is not that of a collection, or damaged.
    pub fn open_collection<'r>(&'r self, record: &Record<'r>) -> Result<Collection<'r, I>, Stop> {
        let root = Root::of_found(&record.found)?;
        Ok(Collection { op: self, root })
    }

    /// The hash by which an element is found.
    pub(super) fn element_hash(&self, root: &Root<'_>, key: &[u8]) -> u64 {
        let seed = root.pages.map_or(self.shared.seed, |pages| pages.hash_seed);
        xxh3_64_with_seed(key, seed ^ ELEMENT_SEED)
    }

    /// A page of a tree. One that is not there is damage: all that a node names exist.
    pub(super) fn tree_page<'o>(
        &'o self,
        root: &Root<'o>,
        number: u32,
    ) -> Result<NodeAt<'o>, Stop> {
        let Some(pages) = root.pages else {
            return Err(damaged(root, None, "it has no pages, but names one"));
        };
        match self.page(pages.object, number)? {
            Some(found) => Ok(NodeAt {
                page: Some((number, found)),
                bytes: found.record.value(),
            }),
            None => Err(damaged(root, Some(number), "it is not there")),
        }
    }

    /// What is looked for in a tree that has keys.
    pub(super) fn sought<'k>(&self, root: &Root<'_>, tree: &Tree, key: &'k [u8]) -> Sought<'k> {
        match tree.layout.order {
            // A tree that is one leaf is not asked for hashes.
            Order::Hash if tree.level == 0 => Sought::Hash(0),
            Order::Hash => Sought::Hash(self.element_hash(root, key)),
            Order::Key => Sought::Key(key),
            Order::Position => panic!("a tree by position has no keys"),
        }
    }

    /// Goes down to the leaf to which what is sought belongs.
    pub(super) fn descend<'o>(
        &'o self,
        root: &Root<'o>,
        tree: usize,
        sought: Sought<'_>,
    ) -> Result<Path<'o>, Stop> {
        let &Tree { layout, level, .. } = root.tree(tree);
        let mut path = Path {
            steps: SmallVec::new(),
            leaf: root.top_node(tree),
            before: 0,
        };
        let mut sought = sought;
        for level in (1..=level).rev() {
            let node = path.leaf;
            let damaged = |why| damaged(root, node.number(), why);
            let inner = Inner::of(node.bytes, layout.order, level).map_err(damaged)?;
            let (child, before) = inner.find(sought).map_err(damaged)?;
            if let Sought::Position(position) = &mut sought {
                *position -= before.min(*position);
                path.before = path.before.saturating_add(before);
            }
            path.steps.push(Step { node, inner, child });
            path.leaf = self.tree_page(root, inner.place(child).page)?;
        }
        // A leaf is searched from its beginning on: its lines are fetched together rather than one after the other.
        let lines = path.leaf.bytes.chunks(CACHE_LINE_BYTES);
        for line in lines.take(SEARCHED_LINES) {
            prefetch(line.as_ptr());
        }
        Ok(path)
    }

    /// The leaf of `key`, and where in it the element is or belongs.
    pub(super) fn find_element<'o>(
        &'o self,
        root: &Root<'o>,
        tree: usize,
        key: &[u8],
    ) -> Result<(Path<'o>, Spot<'o>), Stop> {
        let of_tree = root.tree(tree);
        let path = self.descend(root, tree, self.sought(root, of_tree, key))?;
        let compare = |outside: &Outside, key: &[u8]| self.compare_outside(root, outside, key);
        let spot = find_key(path.leaf.bytes, of_tree.layout, key, &compare);
        let spot = spot.map_err(|trouble| match trouble {
            Trouble::Damaged(why) => damaged(root, path.leaf.number(), why),
            Trouble::Stop(stop) => stop,
        })?;
        Ok((path, spot))
    }

    /// The leaf of `position`, and where in it the element is; behind all elements, the end of the last leaf.
    pub(super) fn find_position<'o>(
        &'o self,
        root: &Root<'o>,
        tree: usize,
        position: u64,
    ) -> Result<(Path<'o>, Spot<'o>), Stop> {
        let path = self.descend(root, tree, Sought::Position(position))?;
        let index = position - path.before.min(position);
        let spot = find_index(path.leaf.bytes, root.tree(tree).layout, index)
            .map_err(|why| damaged(root, path.leaf.number(), why))?;
        Ok((path, spot))
    }
}

impl<'r, I: Index> Collection<'r, I> {
    /// The header that was stored with [`Operation::set_header`]; empty before.
    pub fn header(&self) -> &'r [u8] {
        self.root.header
    }

    /// The time that was stored with [`Operation::set_header_due`].
    pub fn due_at_ms(&self) -> Option<u64> {
        self.root.due_at_ms
    }

    /// How many trees it has.
    pub fn trees(&self) -> usize {
        self.root.trees.len()
    }

    /// How many elements a tree has; O(1).
    pub fn len(&self, tree: usize) -> u64 {
        self.root.tree(tree).elements
    }

    /// Whether none of the trees has an element.
    pub fn is_empty(&self) -> bool {
        self.root.trees.iter().all(|tree| tree.elements == 0)
    }

    /// Whether a part of it lies in pages.
    pub fn is_paged(&self) -> bool {
        self.pages() > 0
    }

    /// How many pages it has.
    pub fn pages(&self) -> u64 {
        self.root.pages.map_or(0, |pages| u64::from(pages.count))
    }

    /// Bytes of its root and pages, without headers of records and room for growth; O(1).
    pub fn bytes(&self) -> u64 {
        let pages = self.root.pages.map_or(0, |pages| pages.bytes);
        self.root.value.len() as u64 + pages
    }

    /// The element with this key; O(log n): one page a level.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`] if a page has to be fetched, [`Stop::Io`] if fetching one failed or it is damaged.
    pub fn get(&self, tree: usize, key: &[u8]) -> Result<Option<Element<'r>>, Stop> {
        let (_, spot) = self.op.find_element(&self.root, tree, key)?;
        let entry = spot.entry;
        entry
            .map(|entry| self.op.element(&self.root, entry))
            .transpose()
    }

    /// What is known of the element with this key without reading its value; O(log n).
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn info(&self, tree: usize, key: &[u8]) -> Result<Option<ElementInfo>, Stop> {
        let (_, spot) = self.op.find_element(&self.root, tree, key)?;
        Ok(spot.entry.map(|entry| entry.info()))
    }

    /// Asks for all pages that [`Self::get`], or putting or removing these elements, will need. It goes on where one is cold,
    /// so that what is missing is fetched together, a level at a time. For as many as there may be memory for:
    /// [`Self::want_next`] is for more.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn want<'k>(
        &self,
        tree: usize,
        keys: impl IntoIterator<Item = &'k [u8]>,
    ) -> Result<(), Stop> {
        self.want_some(tree, keys, Needed::Whole, u64::MAX)
            .map(drop)
    }

    /// As [`Self::want`], for the first of these elements: 256 at most, and fewer if they are long. Returns of how many all
    /// that is needed is there, at least one unless there are no keys. So a command on very many elements takes
    /// them in steps, and no more memory than one of them needs.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn want_next<'k>(
        &self,
        tree: usize,
        keys: impl IntoIterator<Item = &'k [u8]>,
        needed: Needed,
    ) -> Result<usize, Stop> {
        let keys = keys.into_iter().take(ELEMENTS_AT_ONCE);
        self.want_some(tree, keys, needed, BODIES_AT_ONCE_BYTES)
    }

    fn want_some<'k>(
        &self,
        tree: usize,
        keys: impl IntoIterator<Item = &'k [u8]>,
        needed: Needed,
        bodies_max_bytes: u64,
    ) -> Result<usize, Stop> {
        let keys = keys.into_iter();
        if self.root.tree(tree).level == 0 && !self.is_paged() {
            return Ok(keys.count());
        }
        let (mut count, mut bodies_bytes, mut stop) = (0, 0u64, None);
        for key in keys {
            let found = self.op.find_element(&self.root, tree, key);
            let entry = match found {
                Ok((_, spot)) => spot.entry,
                Err(reason) => {
                    stop = Some(reason);
                    None
                }
            };
            let outside = entry.and_then(|entry| entry.outside);
            if let Some(outside) = outside.filter(|_| needed == Needed::Whole) {
                bodies_bytes = bodies_bytes.saturating_add(outside.bytes());
                if bodies_bytes > bodies_max_bytes && count > 0 {
                    break;
                }
                let body = self.op.body_pages(&self.root, &outside, outside.bytes());
                stop = body.err().or(stop);
            }
            count += 1;
        }
        stop.map_or(Ok(count), Err)
    }

    /// The element at a position, counted from 0 in the order of the tree.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn at(&self, tree: usize, position: u64) -> Result<Option<Element<'r>>, Stop> {
        if position >= self.len(tree) {
            return Ok(None);
        }
        let (_, spot) = self.op.find_position(&self.root, tree, position)?;
        let entry = spot.entry;
        entry
            .map(|entry| self.op.element(&self.root, entry))
            .transpose()
    }

    /// The key of the element at a position, as [`Self::at`], without reading its value, however long that is.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn key_at(&self, tree: usize, position: u64) -> Result<Option<Cow<'r, [u8]>>, Stop> {
        if position >= self.len(tree) {
            return Ok(None);
        }
        let (_, spot) = self.op.find_position(&self.root, tree, position)?;
        match spot.entry {
            Some(entry) if !entry.is_key_whole() => {
                Ok(Some(self.op.element(&self.root, entry)?.key))
            }
            entry => Ok(entry.map(|entry| Cow::Borrowed(entry.key))),
        }
    }

    /// How many elements of a tree by [`Order::Key`] have keys less than `key`, and whether one has that key. In a tree by
    /// [`Order::Hash`] the position of an element that is there.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn rank(&self, tree: usize, key: &[u8]) -> Result<(u64, bool), Stop> {
        let (path, spot) = self.op.find_element(&self.root, tree, key)?;
        let position = path.elements_before().saturating_add(spot.index);
        Ok((position, spot.entry.is_some()))
    }
}
