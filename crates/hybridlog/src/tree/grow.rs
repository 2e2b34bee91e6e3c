//! Changing one leaf, and what follows from that for the nodes above it: counts, splits, merges, a top node that moves out of
//! the root or back into it.

use std::ops::Range;

use smallvec::SmallVec;

use super::find::{NodeAt, Path, damaged};
use super::inner::{Bound, Child, elements_bytes};
use super::leaf::{EMPTY_LEAF, Entry, count_of};
use super::node::{Growth, NodeDraft};
use super::plan::{Content, PageChange, PageContent, Patch, Patches, Plan};
use super::root::{FREE_PAGES_MAX, Pages, Root, RootDraft};
use super::{Order, PAGE_BYTES};
use crate::Stop;
use crate::index::Index;
use crate::log::Urgency;
use crate::operation::{Found, Operation};
use crate::sync::atomic::Ordering;

/// A page with less than this is merged with a neighbour, or takes some of what that has.
const PAGE_MIN_BYTES: usize = PAGE_BYTES / 3;

/// Two pages become one if that has room left.
pub(super) const MERGED_MAX_BYTES: usize = PAGE_BYTES / 8 * 7;

/// The longest page of a node.
const NODE_MAX_BYTES: usize = 32 * 1024;

/// However long its key is, a root may take so much.
const ROOT_MIN_BYTES: usize = PAGE_BYTES / 4;

/// A top node that is not longer leaves one that is no shorter behind when it moves out.
const TOP_MIN_BYTES: usize = 32;

/// How long the value of a root may be, so that its record fits in 4 KiB.
pub(super) fn root_max_bytes(key: &[u8]) -> usize {
    PAGE_BYTES.saturating_sub(key.len()).max(ROOT_MIN_BYTES)
}

/// What is changed in a leaf.
pub(super) struct LeafChange {
    pub(super) patch: Patch,
    /// How many elements there are more; negative if there are less.
    pub(super) elements: i64,
}

impl LeafChange {
    /// How much longer the leaf gets, or by how much shorter.
    fn apply_len(&self, len: usize) -> usize {
        len + self.patch.inserted.len() - self.patch.removed
    }

    fn count_of(&self, node: &[u8]) -> [u8; 2] {
        let count = i64::from(count_of(node)) + self.elements;
        (count as u16).to_le_bytes()
    }

    /// The whole leaf.
    fn leaf_of(&self, node: &[u8]) -> Vec<u8> {
        let Patch {
            at,
            removed,
            inserted,
        } = &self.patch;
        let mut leaf = Vec::with_capacity(self.apply_len(node.len()));
        leaf.extend_from_slice(&node[..*at]);
        leaf.extend_from_slice(inserted);
        leaf.extend_from_slice(&node[at + removed..]);
        leaf[1..3].copy_from_slice(&self.count_of(node));
        leaf
    }

    /// The parts of a record that change, in which the leaf begins at `base`.
    fn patches(&self, node: &[u8], base: usize) -> Patches {
        let mut patches = SmallVec::new();
        if self.elements != 0 {
            patches.push(Patch::over(base + 1, &self.count_of(node)));
        }
        let mut patch = self.patch.clone();
        patch.at += base;
        patches.push(patch);
        patches
    }
}

/// Adds to a count, which may be a wrong one if it comes from the device.
fn counted(count: u64, more: i64) -> u64 {
    count.saturating_add_signed(more)
}

impl<I: Index> Operation<'_, I> {
    /// Plans the change of one leaf.
    ///
    /// # Errors
    ///
    /// As reading a page.
    pub(super) fn plan_leaf<'o>(
        &'o self,
        key: &[u8],
        root: &Root<'o>,
        tree: usize,
        path: &Path<'o>,
        change: &LeafChange,
    ) -> Result<Plan<'o>, Stop> {
        let old_len = path.leaf.bytes.len();
        let len = change.apply_len(old_len);
        let stays = match path.leaf.page {
            None => root.value.len() - old_len + len <= root_max_bytes(key),
            Some(_) => len <= PAGE_BYTES && (len >= PAGE_MIN_BYTES || len >= old_len),
        };
        if stays {
            return Ok(plan_in_place(root, tree, path, change));
        }
        let mut plan = StructurePlan::new(self, root);
        plan.change_leaf(key, tree, path, change)?;
        plan.finish(key)
    }
}

/// A change that fits where it is: nothing but counts changes above the leaf.
fn plan_in_place<'o>(
    root: &Root<'o>,
    tree: usize,
    path: &Path<'o>,
    change: &LeafChange,
) -> Plan<'o> {
    let mut pages = SmallVec::new();
    let mut patches = Patches::new();
    if change.elements != 0 {
        let elements = counted(root.tree(tree).elements, change.elements);
        patches.push(Patch::over(
            Root::elements_at(tree),
            &elements.to_le_bytes(),
        ));
    }
    let old_len = path.leaf.bytes.len();
    let len = change.apply_len(old_len);
    match path.leaf.page {
        None => {
            if len != old_len {
                let top_len = (len as u16).to_le_bytes();
                patches.push(Patch::over(Root::top_len_at(tree), &top_len));
            }
            patches.extend(change.patches(path.leaf.bytes, root.top_at(tree)));
        }
        Some((number, found)) => {
            if let Some(of_root) = root.pages.filter(|_| len != old_len) {
                let bytes = (of_root.bytes + len as u64).saturating_sub(old_len as u64);
                patches.push(Patch::over(root.page_bytes_at(), &bytes.to_le_bytes()));
            }
            let content = Content::Patched(change.patches(path.leaf.bytes, 0));
            pages.push(page_becomes(number, Some(found), content));
        }
    }
    for step in path.steps.iter().filter(|_| change.elements != 0) {
        let elements = counted(step.inner.place(step.child).elements, change.elements);
        let at = step.inner.elements_at(step.child);
        let bytes = elements_bytes(elements);
        match step.node.page {
            None => patches.push(Patch::over(root.top_at(tree) + at, &bytes)),
            Some((number, found)) => {
                let content = Content::Patched(SmallVec::from_iter([Patch::over(at, &bytes)]));
                pages.push(page_becomes(number, Some(found), content));
            }
        }
    }
    // The number of elements stands behind the length of the top node.
    patches.sort_by_key(|patch| patch.at);
    Plan {
        object: root.pages.map_or(0, |pages| pages.object),
        pages,
        root: Content::Patched(patches),
    }
}

fn page_becomes<'o>(number: u32, previous: Option<Found<'o>>, content: Content) -> PageChange<'o> {
    PageChange {
        number,
        previous,
        content: PageContent::Becomes(content),
    }
}

/// Whether an element is put at an end of the tree.
fn growth_of(path: &Path<'_>, change: &LeafChange) -> Growth {
    let mut steps = path.steps.iter();
    let is_last = |step: &super::find::Step<'_>| step.child + 1 == step.inner.count();
    if change.elements > 0 && change.patch.at == path.leaf.bytes.len() && steps.clone().all(is_last)
    {
        Growth::AtEnd
    } else if change.elements > 0
        && change.patch.at == EMPTY_LEAF.len()
        && steps.all(|step| step.child == 0)
    {
        Growth::AtStart
    } else {
        Growth::Within
    }
}

/// A plan by which nodes come and go.
pub(super) struct StructurePlan<'p, 'o, I: Index> {
    pub(super) op: &'o Operation<'o, I>,
    pub(super) root: &'p Root<'o>,
    pub(super) draft: RootDraft,
    pages: SmallVec<[PageChange<'o>; 4]>,
    freed: SmallVec<[u32; 4]>,
}

impl<'p, 'o, I: Index> StructurePlan<'p, 'o, I> {
    pub(super) fn new(op: &'o Operation<'o, I>, root: &'p Root<'o>) -> Self {
        StructurePlan {
            op,
            root,
            draft: root.draft(),
            pages: SmallVec::new(),
            freed: SmallVec::new(),
        }
    }

    /// Changes one leaf, and whatever follows from that.
    pub(super) fn change_leaf(
        &mut self,
        key: &[u8],
        tree: usize,
        path: &Path<'o>,
        change: &LeafChange,
    ) -> Result<(), Stop> {
        let growth = growth_of(path, change);
        let mut node = NodeDraft::Leaf(change.leaf_of(path.leaf.bytes));
        let mut at = path.leaf;
        for step in path.steps.iter().rev() {
            let in_parent = |why| damaged(self.root, step.node.number(), why);
            let mut children = step.inner.children().map_err(in_parent)?;
            let (range, settled) = self.settle(tree, node, &at, &children, step.child, growth)?;
            children.splice(range, settled);
            let level = step.node.bytes.first().copied().unwrap_or_default();
            node = NodeDraft::Inner { level, children };
            at = step.node;
        }
        self.set_top(tree, node);
        let elements = &mut self.draft.trees[tree].elements;
        *elements = counted(*elements, change.elements);
        self.pull_up(tree, root_max_bytes(key))
    }

    /// Makes the collection's object on first use.
    pub(super) fn pages_of_root(&mut self) -> &mut Pages {
        let shared = self.op.shared;
        self.draft.pages.get_or_insert_with(|| Pages {
            object: shared.next_object.fetch_add(1, Ordering::Relaxed),
            hash_seed: shared.seed,
            bytes: 0,
            next: 0,
            count: 0,
        })
    }

    fn hash(&self, entry: &Entry<'_>) -> u64 {
        self.op.entry_hash(self.root, entry)
    }

    fn order(&self, tree: usize) -> Order {
        self.draft.trees[tree].layout.order
    }

    /// Gives a node a page of its own.
    pub(super) fn add_page(
        &mut self,
        tree: usize,
        node: NodeDraft,
        bound: Bound,
    ) -> Result<Child, Stop> {
        let elements = node.elements();
        let content = node_content(node, self.order(tree))?;
        let page = self.new_pages(1)?;
        self.add_numbered(page, content);
        Ok(Child {
            page,
            elements,
            bound,
        })
    }

    /// Whether the plan changes or makes the page with this number.
    pub(super) fn has_planned(&self, page: u32) -> bool {
        self.pages.iter().any(|change| change.number == page)
    }

    /// Makes a page with a new number.
    pub(super) fn add_numbered(&mut self, page: u32, content: Vec<u8>) {
        let pages = self.pages_of_root();
        pages.bytes += content.len() as u64;
        pages.count += 1;
        self.pages
            .push(page_becomes(page, None, Content::New(content)));
    }

    /// Gives a page another node.
    pub(super) fn write_page(
        &mut self,
        tree: usize,
        (page, found): (u32, Found<'o>),
        node: NodeDraft,
        bound: Bound,
    ) -> Result<Child, Stop> {
        let elements = node.elements();
        let content = node_content(node, self.order(tree))?;
        let old_len = found.record.value().len() as u64;
        let pages = self.pages_of_root();
        pages.bytes = (pages.bytes + content.len() as u64).saturating_sub(old_len);
        self.pages
            .push(page_becomes(page, Some(found), Content::New(content)));
        Ok(Child {
            page,
            elements,
            bound,
        })
    }

    /// Takes a page away. Its number is used again, but not by this plan.
    pub(super) fn free_page(&mut self, (page, found): (u32, Found<'o>)) {
        let old_len = found.record.value().len() as u64;
        let pages = self.pages_of_root();
        pages.bytes = pages.bytes.saturating_sub(old_len);
        pages.count = pages.count.saturating_sub(1);
        self.freed.push(page);
        self.pages.push(PageChange {
            number: page,
            previous: Some(found),
            content: PageContent::Gone,
        });
    }

    /// Finds pages for a node that was at `at`, the child `index` of its parent. Returns which children of the parent become
    /// which others.
    fn settle(
        &mut self,
        tree: usize,
        node: NodeDraft,
        at: &NodeAt<'o>,
        siblings: &[Child],
        index: usize,
        growth: Growth,
    ) -> Result<(Range<usize>, SmallVec<[Child; 3]>), Stop> {
        let layout = self.draft.trees[tree].layout;
        let Some(page) = at.page else {
            return Err(damaged(self.root, None, "a top node has a parent"));
        };
        let bound = siblings[index].bound.clone();
        let len = node.bytes(layout.order);
        let only = index..index + 1;
        if node.elements() == 0 {
            self.free_page(page);
            return Ok((only, SmallVec::new()));
        }
        if len > PAGE_BYTES {
            let parts = node.split(layout, growth, &|entry| self.hash(entry));
            let parts = parts.map_err(|why| damaged(self.root, at.number(), why))?;
            // The page goes on with the largest part, of which the least is new.
            let sizes = parts.iter().map(|part| part.node.bytes(layout.order));
            let largest = sizes.enumerate().max_by_key(|&(_, bytes)| bytes);
            let largest = largest.map_or(0, |(number, _)| number);
            let mut children = SmallVec::new();
            for (number, part) in parts.into_iter().enumerate() {
                let bound = if number == 0 {
                    bound.clone()
                } else {
                    part.bound
                };
                children.push(match number == largest {
                    true => self.write_page(tree, page, part.node, bound)?,
                    false => self.add_page(tree, part.node, bound)?,
                });
            }
            return Ok((only, children));
        }
        if len < PAGE_MIN_BYTES && siblings.len() > 1 {
            return self.merge(tree, node, page, siblings, index);
        }
        let child = self.write_page(tree, page, node, bound)?;
        Ok((only, SmallVec::from_iter([child])))
    }

    /// Merges a node with a neighbour, or evens them out.
    fn merge(
        &mut self,
        tree: usize,
        node: NodeDraft,
        page: (u32, Found<'o>),
        siblings: &[Child],
        index: usize,
    ) -> Result<(Range<usize>, SmallVec<[Child; 3]>), Stop> {
        let layout = self.draft.trees[tree].layout;
        let left = if index + 1 < siblings.len() {
            index
        } else {
            index - 1
        };
        let other = if left == index { index + 1 } else { left };
        let sibling = self.sibling(siblings[other].page)?;
        let Some(sibling) = sibling else {
            let child = self.write_page(tree, page, node, siblings[index].bound.clone())?;
            return Ok((index..index + 1, SmallVec::from_iter([child])));
        };
        let (other_page, level) = (siblings[other].page, node.level());
        let in_sibling = |why| damaged(self.root, Some(other_page), why);
        let of_sibling =
            NodeDraft::of(sibling.record.value(), layout, level).map_err(in_sibling)?;
        let sibling = (other_page, sibling);
        let (left_bound, bound) = (siblings[left].bound.clone(), &siblings[left + 1].bound);
        let (left_page, right_page, merged) = match left == index {
            true => (page, sibling, node.merge(of_sibling, bound)),
            false => (sibling, page, of_sibling.merge(node, bound)),
        };
        let range = left..left + 2;
        if merged.bytes(layout.order) <= MERGED_MAX_BYTES {
            let child = self.write_page(tree, left_page, merged, left_bound)?;
            self.free_page(right_page);
            return Ok((range, SmallVec::from_iter([child])));
        }
        let halves = merged.halve(layout, Growth::Within, &|entry| self.hash(entry));
        let (first, second) = halves.map_err(|why| damaged(self.root, Some(left_page.0), why))?;
        let mut children =
            SmallVec::from_iter([self.write_page(tree, left_page, first, left_bound)?]);
        match second {
            Some(second) => {
                children.push(self.write_page(tree, right_page, second.node, second.bound)?);
            }
            None => self.free_page(right_page),
        }
        Ok((range, children))
    }

    /// A page to merge with. Where it cannot be had, the tree is as good without the merge: an operation that has changed
    /// something does not stop for it, nor does one for which it is damaged.
    fn sibling(&self, page: u32) -> Result<Option<Found<'o>>, Stop> {
        match self.op.tree_page(self.root, page) {
            Ok(node) => Ok(node.page.map(|(_, found)| found)),
            Err(Stop::Cold) if self.op.urgency.get() == Urgency::Normal => Err(Stop::Cold),
            Err(_) => Ok(None),
        }
    }

    pub(super) fn set_top(&mut self, tree: usize, node: NodeDraft) {
        let order = self.order(tree);
        let of_tree = &mut self.draft.trees[tree];
        let is_empty = matches!(&node, NodeDraft::Inner { children, .. } if children.is_empty());
        (of_tree.level, of_tree.top) = match is_empty {
            true => (0, EMPTY_LEAF.to_vec()),
            false => (node.level(), node.encode(order)),
        };
    }

    /// While the top node has only one child, and the root has the room, that takes its place.
    pub(super) fn pull_up(&mut self, tree: usize, max_bytes: usize) -> Result<(), Stop> {
        loop {
            let of_tree = &self.draft.trees[tree];
            let (layout, level) = (of_tree.layout, of_tree.level);
            let top = NodeDraft::of(&of_tree.top, layout, level);
            let top = top.map_err(|why| damaged(self.root, None, why))?;
            let NodeDraft::Inner { children, .. } = &top else {
                return Ok(());
            };
            let [Child { page, .. }] = children[..] else {
                return Ok(());
            };
            let planned = self.pages.iter().position(|change| change.number == page);
            let (node, found) = match planned.map(|at| (at, &self.pages[at])) {
                Some((_, change)) => match &change.content {
                    PageContent::Becomes(Content::New(node)) => (node.clone(), change.previous),
                    _ => return Ok(()),
                },
                None => match self.sibling(page)? {
                    Some(found) => (found.record.value().to_vec(), Some(found)),
                    None => return Ok(()),
                },
            };
            // Half of the room is left, so that it does not move out again at once.
            if self.draft.value_bytes() + node.len() > max_bytes / 2 {
                return Ok(());
            }
            let node_len = node.len() as u64;
            let node = NodeDraft::of(&node, layout, level - 1);
            let node = node.map_err(|why| damaged(self.root, Some(page), why))?;
            self.set_top(tree, node);
            if let Some(at) = planned {
                let old_len = found.map_or(0, |found| found.record.value().len() as u64);
                self.pages.remove(at);
                let pages = self.pages_of_root();
                pages.bytes = (pages.bytes + old_len).saturating_sub(node_len);
            }
            match found {
                Some(found) => self.free_page((page, found)),
                None => {
                    // A page that was to be made will not be.
                    self.pages_of_root().count -= 1;
                    self.freed.push(page);
                }
            }
        }
    }

    /// Moves top nodes out of the root, the largest first, until it has room for the rest.
    fn make_room(&mut self, max_bytes: usize) -> Result<(), Stop> {
        while self.draft.value_bytes() > max_bytes {
            let tops = self.draft.trees.iter().enumerate();
            let movable = tops.filter(|(_, tree)| {
                let is_chain = tree.level > 0 && count_of(&tree.top) == 1;
                tree.top.len() > TOP_MIN_BYTES && !is_chain
            });
            let Some((tree, _)) = movable.max_by_key(|(_, tree)| tree.top.len()) else {
                return Ok(());
            };
            let of_tree = &self.draft.trees[tree];
            let (layout, level) = (of_tree.layout, of_tree.level);
            let top = NodeDraft::of(&of_tree.top, layout, level);
            let top = top.map_err(|why| damaged(self.root, None, why))?;
            let parts = match top.bytes(layout.order) > PAGE_BYTES {
                true => top.split(layout, Growth::Within, &|entry| self.hash(entry)),
                false => Ok(vec![super::node::SplitPart {
                    bound: Bound::new(),
                    node: top,
                }]),
            };
            let parts = parts.map_err(|why| damaged(self.root, None, why))?;
            let mut children = Vec::with_capacity(parts.len());
            for part in parts {
                let bound = match (layout.order, part.bound.is_empty()) {
                    (Order::Hash, true) => Bound::from_slice(&[0; 8]),
                    _ => part.bound,
                };
                children.push(self.add_page(tree, part.node, bound)?);
            }
            let level = level + 1;
            self.set_top(tree, NodeDraft::Inner { level, children });
        }
        Ok(())
    }

    pub(super) fn finish(mut self, key: &[u8]) -> Result<Plan<'o>, Stop> {
        let max_bytes = root_max_bytes(key);
        self.make_room(max_bytes)?;
        let left_bytes = max_bytes.saturating_sub(self.draft.value_bytes());
        let room = FREE_PAGES_MAX.saturating_sub(self.draft.free.len());
        let room = room.min(left_bytes / size_of::<u32>());
        self.draft.free.extend(self.freed.iter().take(room));
        Ok(Plan {
            object: self.draft.pages.map_or(0, |pages| pages.object),
            pages: self.pages,
            root: Content::New(self.draft.encode()),
        })
    }
}

/// What a page of a node holds. A leaf that cannot be split, as the keys in it do not tell where, may only become so long.
fn node_content(node: NodeDraft, order: Order) -> Result<Vec<u8>, Stop> {
    let content = node.encode(order);
    if content.len() > NODE_MAX_BYTES {
        return Err(Stop::TooLarge {
            len: content.len() as u64,
            limit: NODE_MAX_BYTES as u64,
        });
    }
    Ok(content)
}
