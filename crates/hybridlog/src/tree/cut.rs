//! Removing a range of elements that lie in several leaves: leaves that hold nothing else go whole.

use std::ops::Range;

use super::find::{Collection, NodeAt, damaged};
use super::grow::{StructurePlan, root_max_bytes};
use super::inner::{Child, Inner};
use super::leaf::{Entries, NODE_HEADER_BYTES, Outside};
use super::node::NodeDraft;
use super::plan::Plan;
use super::root::Root;
use crate::Stop;
use crate::index::Index;
use crate::operation::{Found, Operation};

/// A child of a node, and what it has become if it has changed.
struct CutChild<'o> {
    child: Child,
    changed: Option<((u32, Found<'o>), NodeDraft)>,
}

impl<I: Index> Operation<'_, I> {
    /// Plans to remove the elements at these positions.
    ///
    /// # Errors
    ///
    /// As reading the pages that hold them.
    pub(super) fn plan_cut<'o>(
        &'o self,
        key: &[u8],
        root: &Root<'o>,
        tree: usize,
        range: Range<u64>,
    ) -> Result<Plan<'o>, Stop> {
        let collection = Collection {
            op: self,
            root: root.clone(),
        };
        // All of them together.
        let leaves = collection.leaves(tree, &range)?;
        collection.bodies(tree, &leaves, &range)?;
        let mut plan = StructurePlan::new(self, root);
        let (top, level) = (root.top_node(tree), root.tree(tree).level);
        let left = plan.cut(tree, &top, level, 0, &range)?;
        plan.set_top(tree, left);
        let elements = &mut plan.draft.trees[tree].elements;
        *elements = elements.saturating_sub(range.end - range.start);
        plan.pull_up(tree, root_max_bytes(key))?;
        plan.finish(key)
    }
}

impl<'o, I: Index> StructurePlan<'_, 'o, I> {
    /// What is left of a node whose first element has position `first`. Pages under it are dealt with.
    fn cut(
        &mut self,
        tree: usize,
        at: &NodeAt<'o>,
        level: u8,
        first: u64,
        range: &Range<u64>,
    ) -> Result<NodeDraft, Stop> {
        let layout = self.draft.trees[tree].layout;
        let root = self.root;
        let in_node = |why| damaged(root, at.number(), why);
        if level == 0 {
            let entries = Entries::of(at.bytes, layout).map_err(in_node)?;
            let mut outside = Vec::new();
            let left = cut_leaf(at.bytes, entries, first, range, &mut outside).map_err(in_node)?;
            outside
                .iter()
                .try_for_each(|outside| self.free_body(outside))?;
            return Ok(left);
        }
        let inner = Inner::of(at.bytes, layout.order, level).map_err(in_node)?;
        let mut children: Vec<CutChild<'o>> = Vec::new();
        let mut first = first;
        for child in inner.children().map_err(in_node)? {
            let behind = first.saturating_add(child.elements);
            if behind <= range.start || first >= range.end {
                let changed = None;
                children.push(CutChild { child, changed });
            } else {
                let node = self.op.tree_page(root, child.page)?;
                let left = self.cut(tree, &node, level - 1, first, range)?;
                if let Some(page) = node.page {
                    match left.elements() {
                        0 => self.free_page(page),
                        _ => {
                            let changed = Some((page, left));
                            children.push(CutChild { child, changed });
                        }
                    }
                }
            }
            first = behind;
        }
        let children = self.write_cut(tree, children)?;
        Ok(NodeDraft::Inner { level, children })
    }

    /// Writes the children that have changed: those at the two ends of the range as one, if they are neighbours and small.
    fn write_cut(&mut self, tree: usize, children: Vec<CutChild<'o>>) -> Result<Vec<Child>, Stop> {
        let order = self.draft.trees[tree].layout.order;
        let mut written: Vec<Child> = Vec::with_capacity(children.len());
        let mut waiting: Option<((u32, Found<'o>), NodeDraft, Child)> = None;
        for CutChild { child, changed } in children {
            let Some((page, node)) = changed else {
                if let Some((page, node, child)) = waiting.take() {
                    written.push(self.write_page(tree, page, node, child.bound)?);
                }
                written.push(child);
                continue;
            };
            waiting = match waiting.take() {
                None => Some((page, node, child)),
                Some((left_page, left, left_child)) => {
                    if left.bytes(order) + node.bytes(order) + child.bound.len()
                        <= super::grow::MERGED_MAX_BYTES
                    {
                        self.free_page(page);
                        Some((left_page, left.merge(node, &child.bound), left_child))
                    } else {
                        written.push(self.write_page(tree, left_page, left, left_child.bound)?);
                        Some((page, node, child))
                    }
                }
            };
        }
        if let Some((page, node, child)) = waiting {
            written.push(self.write_page(tree, page, node, child.bound)?);
        }
        Ok(written)
    }
}

/// A leaf without the elements at these positions; adds those of them that are outside to `outside`.
fn cut_leaf(
    node: &[u8],
    mut entries: Entries<'_>,
    first: u64,
    range: &Range<u64>,
    outside: &mut Vec<Outside>,
) -> Result<NodeDraft, &'static str> {
    let (mut left, mut count, mut position) = (vec![0; NODE_HEADER_BYTES], 0u16, first);
    while let Some(entry) = entries.read()? {
        if range.contains(&position) {
            outside.extend(entry.outside);
        } else {
            left.extend_from_slice(&node[entry.at..entry.end]);
            count += 1;
        }
        position += 1;
    }
    left[1..NODE_HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
    Ok(NodeDraft::Leaf(left))
}
