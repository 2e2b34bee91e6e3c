//! The value of a root record.
//!
//! ```text
//! 0   format u8      1
//! 1   trees u8       how many; plus 0x80 if there are, or have been, pages; plus 0x40 if it is due at some time
//! 2   header u8      its length
//! 3   free pages u8  how many are listed
//! 4   of each tree   order u8 (0 hash, 1 key, 2 position; plus 0x80 if it has values), level of the top node u8,
//!                    length of the top node u16, elements u64
//!     if paged       object id u64, seed of the hashes u64, bytes in pages u64, next page u32, pages u32, free pages u32 each
//!     if due         at what time, u64, Unix milliseconds
//!     header         the embedding program's own
//!     top nodes      one after the other
//! ```
//!
//! The counts stand in front and have a fixed length, so that they are changed in place. Of the numbers of pages that are free
//! some are listed; the others are found by looking (`numbers.rs`). The seed is the store's when the first page was made: hashes
//! that are stored stay what they are if a repair has to give the store another.

use smallvec::SmallVec;

use super::leaf::EMPTY_LEAF;
use super::{Order, TREES_MAX, TreeLayout};
use crate::record::{RecordRef, flag};

const FORMAT: u8 = 1;
const PAGED: u8 = 0x80;
const DUE: u8 = 0x40;
const HAS_VALUES: u8 = 0x80;
const HEAD_BYTES: usize = 4;
const TREE_BYTES: usize = 12;
const TREE_TOP_LEN_AT: usize = 2;
const TREE_ELEMENTS_AT: usize = 4;
const PAGED_BYTES: usize = 32;
const PAGED_BYTES_AT: usize = 16;
const DUE_BYTES: usize = 8;

/// Of a tree deeper than this something is wrong: with two children a node, it would hold more than there can be.
const LEVELS_MAX: u8 = 48;

/// The longest header of a collection.
pub(crate) const HEADER_MAX_BYTES: usize = 200;

/// So many numbers of free pages are remembered.
pub(super) const FREE_PAGES_MAX: usize = 32;

const CUT: &str = "the root of a collection is shorter than what it says it holds";

/// What a root says of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    pub(super) layout: TreeLayout,
    /// Level of its top node: 0 if that is a leaf.
    pub(super) level: u8,
    pub(super) elements: u64,
    top_at: usize,
    top_len: usize,
}

/// What a root says of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    pub(super) object: u64,
    pub(super) hash_seed: u64,
    /// Content of all pages together.
    pub(super) bytes: u64,
    /// Above all numbers of pages that have been used.
    pub(super) next: u32,
    /// How many pages there are.
    pub(super) count: u32,
}

/// A root that is being read.
#[derive(Clone, Debug)]
pub(super) struct Root<'a> {
    pub(super) value: &'a [u8],
    pub(super) trees: SmallVec<[Tree; 2]>,
    pub(super) pages: Option<Pages>,
    pub(super) due_at_ms: Option<u64>,
    pub(super) header: &'a [u8],
    free: &'a [u8],
}

pub(super) fn layout_of(byte: u8) -> Result<TreeLayout, &'static str> {
    let order = match byte & !HAS_VALUES {
        0 => Order::Hash,
        1 => Order::Key,
        2 => Order::Position,
        _ => return Err("a tree has an order that this program does not know"),
    };
    Ok(TreeLayout {
        order,
        has_values: byte & HAS_VALUES != 0,
    })
}

pub(super) fn layout_byte(layout: TreeLayout) -> u8 {
    let order = match layout.order {
        Order::Hash => 0,
        Order::Key => 1,
        Order::Position => 2,
    };
    let has_values = if layout.has_values { HAS_VALUES } else { 0 };
    order | has_values
}

/// How much of the value of a root without pages is not elements.
pub(super) fn bytes_beside_elements(value: &[u8]) -> usize {
    let field = |at: usize| usize::from(value.get(at).copied().unwrap_or_default());
    let (trees, header) = (field(1) & usize::from(!(PAGED | DUE)), field(2));
    HEAD_BYTES + trees * (TREE_BYTES + EMPTY_LEAF.len()) + header
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(field))
}

/// The pages that the root of a collection owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TreePages {
    pub(crate) object: u64,
    /// Their numbers are below this.
    pub(crate) below: u32,
    /// How many there are.
    pub(crate) count: u32,
}

impl TreePages {
    /// `None` if the record is no collection's, or its collection has never had pages, or cannot be read.
    pub(crate) fn of(record: &RecordRef<'_>) -> Option<TreePages> {
        if record.flags() & flag::TREE == 0 {
            return None;
        }
        let pages = Root::of(record.value()).ok()?.pages?;
        Some(TreePages {
            object: pages.object,
            below: pages.next,
            count: pages.count,
        })
    }
}

/// The flags of the record of a root.
pub(super) fn record_flags(root: &[u8]) -> u8 {
    match root.get(1) {
        Some(trees) if trees & DUE != 0 => flag::TREE | flag::DUE,
        _ => flag::TREE,
    }
}

/// When the collection of a record is due, if it is one that is at some time.
pub(crate) fn due_at_ms(record: &RecordRef<'_>) -> Option<u64> {
    if record.flags() & flag::DUE == 0 {
        return None;
    }
    Root::of(record.value()).ok()?.due_at_ms
}

/// When a record is to be looked at though nobody asks for it: when it expires, or its collection is due.
pub(crate) fn look_at_ms(record: &RecordRef<'_>) -> Option<u64> {
    let times = record.expires_at_ms().into_iter().chain(due_at_ms(record));
    times.min()
}

impl<'a> Root<'a> {
    pub(super) fn of(value: &'a [u8]) -> Result<Root<'a>, &'static str> {
        let &[format, trees, header_len, free, ..] = value else {
            return Err(CUT);
        };
        if format != FORMAT {
            return Err("the root of a collection has a format that this program does not know");
        }
        let count = usize::from(trees & !(PAGED | DUE));
        if count > TREES_MAX {
            return Err("a collection has more trees than there can be");
        }
        let mut at = HEAD_BYTES;
        let mut list = SmallVec::<[Tree; 2]>::new();
        for _ in 0..count {
            let head = value.get(at..at + TREE_BYTES).ok_or(CUT)?;
            let layout = layout_of(head[0])?;
            if head[1] > LEVELS_MAX {
                return Err("a tree is deeper than there can be elements for");
            }
            list.push(Tree {
                layout,
                level: head[1],
                elements: u64_at(head, TREE_ELEMENTS_AT).ok_or(CUT)?,
                top_at: 0,
                top_len: usize::from(u16::from_le_bytes([head[2], head[3]])),
            });
            at += TREE_BYTES;
        }
        let (mut pages, mut free_pages) = (None, &[][..]);
        if trees & PAGED != 0 {
            let head = value.get(at..at + PAGED_BYTES).ok_or(CUT)?;
            pages = Some(Pages {
                object: u64_at(head, 0).ok_or(CUT)?,
                hash_seed: u64_at(head, 8).ok_or(CUT)?,
                bytes: u64_at(head, PAGED_BYTES_AT).ok_or(CUT)?,
                next: u32_at(head, 24).ok_or(CUT)?,
                count: u32_at(head, 28).ok_or(CUT)?,
            });
            at += PAGED_BYTES;
            free_pages = value.get(at..at + usize::from(free) * 4).ok_or(CUT)?;
            at += free_pages.len();
        }
        let mut due_at_ms = None;
        if trees & DUE != 0 {
            due_at_ms = Some(u64_at(value, at).ok_or(CUT)?);
            at += DUE_BYTES;
        }
        let header = value.get(at..at + usize::from(header_len)).ok_or(CUT)?;
        at += header.len();
        for tree in &mut list {
            tree.top_at = at;
            at += tree.top_len;
        }
        if at != value.len() {
            return Err("the root of a collection is not as long as what it says it holds");
        }
        Ok(Root {
            value,
            trees: list,
            pages,
            due_at_ms,
            header,
            free: free_pages,
        })
    }

    /// What is said of one tree.
    ///
    /// # Panics
    ///
    /// If the collection has no such tree.
    pub(super) fn tree(&self, tree: usize) -> &Tree {
        let trees = self.trees.len();
        assert!(tree < trees, "tree {tree} of a collection of {trees}");
        &self.trees[tree]
    }

    pub(super) fn top(&self, tree: usize) -> &'a [u8] {
        let Tree {
            top_at, top_len, ..
        } = *self.tree(tree);
        &self.value[top_at..top_at + top_len]
    }

    /// Where in the value a tree's top node begins.
    pub(super) fn top_at(&self, tree: usize) -> usize {
        self.tree(tree).top_at
    }

    /// Where in the value the length of a tree's top node stands, a u16.
    pub(super) fn top_len_at(tree: usize) -> usize {
        HEAD_BYTES + tree * TREE_BYTES + TREE_TOP_LEN_AT
    }

    /// Where in the value the number of a tree's elements stands, a u64.
    pub(super) fn elements_at(tree: usize) -> usize {
        HEAD_BYTES + tree * TREE_BYTES + TREE_ELEMENTS_AT
    }

    /// Where in the value of a root with pages the bytes in them stand, a u64.
    pub(super) fn page_bytes_at(&self) -> usize {
        HEAD_BYTES + self.trees.len() * TREE_BYTES + PAGED_BYTES_AT
    }

    /// All of it, to be changed and encoded again.
    pub(super) fn draft(&self) -> RootDraft {
        RootDraft {
            header: self.header.to_vec(),
            trees: (0..self.trees.len())
                .map(|tree| TreeDraft {
                    layout: self.trees[tree].layout,
                    level: self.trees[tree].level,
                    elements: self.trees[tree].elements,
                    top: self.top(tree).to_vec(),
                })
                .collect(),
            pages: self.pages,
            due_at_ms: self.due_at_ms,
            free: self
                .free
                .chunks_exact(4)
                .filter_map(|page| u32_at(page, 0))
                .collect(),
        }
    }
}

/// A tree of a root that is being made.
#[derive(Clone, Debug)]
pub(super) struct TreeDraft {
    pub(super) layout: TreeLayout,
    pub(super) level: u8,
    pub(super) elements: u64,
    pub(super) top: Vec<u8>,
}

/// A root that is being made.
#[derive(Clone, Debug)]
pub(super) struct RootDraft {
    pub(super) header: Vec<u8>,
    pub(super) trees: SmallVec<[TreeDraft; 2]>,
    pub(super) pages: Option<Pages>,
    pub(super) due_at_ms: Option<u64>,
    pub(super) free: Vec<u32>,
}

impl RootDraft {
    /// A collection without elements.
    pub(super) fn new(trees: &[TreeLayout], header: &[u8]) -> RootDraft {
        RootDraft {
            header: header.to_vec(),
            trees: trees
                .iter()
                .map(|&layout| TreeDraft {
                    layout,
                    level: 0,
                    elements: 0,
                    top: EMPTY_LEAF.to_vec(),
                })
                .collect(),
            pages: None,
            due_at_ms: None,
            free: Vec::new(),
        }
    }

    /// How long the value will be.
    pub(super) fn value_bytes(&self) -> usize {
        let tops: usize = self.trees.iter().map(|tree| tree.top.len()).sum();
        let pages = match self.pages {
            Some(_) => PAGED_BYTES + self.free.len() * 4,
            None => 0,
        };
        let due = if self.due_at_ms.is_some() {
            DUE_BYTES
        } else {
            0
        };
        HEAD_BYTES + self.trees.len() * TREE_BYTES + pages + due + self.header.len() + tops
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.value_bytes());
        let paged = if self.pages.is_some() { PAGED } else { 0 };
        let due = if self.due_at_ms.is_some() { DUE } else { 0 };
        value.extend_from_slice(&[
            FORMAT,
            self.trees.len() as u8 | paged | due,
            self.header.len() as u8,
            self.free.len() as u8,
        ]);
        for tree in &self.trees {
            value.extend_from_slice(&[layout_byte(tree.layout), tree.level]);
            value.extend_from_slice(&(tree.top.len() as u16).to_le_bytes());
            value.extend_from_slice(&tree.elements.to_le_bytes());
        }
        if let Some(pages) = self.pages {
            value.extend_from_slice(&pages.object.to_le_bytes());
            value.extend_from_slice(&pages.hash_seed.to_le_bytes());
            value.extend_from_slice(&pages.bytes.to_le_bytes());
            value.extend_from_slice(&pages.next.to_le_bytes());
            value.extend_from_slice(&pages.count.to_le_bytes());
            for page in &self.free {
                value.extend_from_slice(&page.to_le_bytes());
            }
        }
        value.extend(self.due_at_ms.into_iter().flat_map(u64::to_le_bytes));
        value.extend_from_slice(&self.header);
        self.trees
            .iter()
            .for_each(|tree| value.extend_from_slice(&tree.top));
        value
    }
}
