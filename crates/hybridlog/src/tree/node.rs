//! Nodes that are being made: taken apart, split, merged.

use super::Order;
use super::inner::{Bound, Child, Inner, child_bytes, inner_node};
use super::leaf::{Entries, Entry, NODE_HEADER_BYTES, count_of};
use super::{PAGE_BYTES, TreeLayout};

/// Where in the tree a node grows: at an end of it, one of two nodes that come from a split is left full, since what is put
/// there next goes to the other one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Growth {
    AtStart,
    AtEnd,
    Within,
}

/// The hash of an element's key.
pub(super) type HashOf<'h> = dyn Fn(&Entry<'_>) -> u64 + 'h;

/// A node that is being made.
#[derive(Clone, Debug)]
pub(super) enum NodeDraft {
    /// As it is stored.
    Leaf(Vec<u8>),
    Inner {
        level: u8,
        children: Vec<Child>,
    },
}

/// One of the nodes that another has been split into, and the least that belongs to it (nothing for the first).
pub(super) struct SplitPart {
    pub(super) bound: Bound,
    pub(super) node: NodeDraft,
}

impl NodeDraft {
    pub(super) fn of(
        node: &[u8],
        layout: TreeLayout,
        level: u8,
    ) -> Result<NodeDraft, &'static str> {
        match level {
            0 => {
                Entries::of(node, layout)?;
                Ok(NodeDraft::Leaf(node.to_vec()))
            }
            level => Ok(NodeDraft::Inner {
                level,
                children: Inner::of(node, layout.order, level)?.children()?,
            }),
        }
    }

    pub(super) fn level(&self) -> u8 {
        match self {
            NodeDraft::Leaf(_) => 0,
            NodeDraft::Inner { level, .. } => *level,
        }
    }

    /// How long it is in a page.
    pub(super) fn bytes(&self, order: Order) -> usize {
        match self {
            NodeDraft::Leaf(node) => node.len(),
            NodeDraft::Inner { children, .. } => {
                let children = children.iter().map(|child| child_bytes(order, child));
                NODE_HEADER_BYTES + children.sum::<usize>()
            }
        }
    }

    /// How many elements are under it.
    pub(super) fn elements(&self) -> u64 {
        match self {
            NodeDraft::Leaf(node) => u64::from(count_of(node)),
            NodeDraft::Inner { children, .. } => {
                let counts = children.iter().map(|child| child.elements);
                counts.fold(0, u64::saturating_add)
            }
        }
    }

    pub(super) fn encode(self, order: Order) -> Vec<u8> {
        match self {
            NodeDraft::Leaf(node) => node,
            NodeDraft::Inner { level, children } => inner_node(order, level, &children),
        }
    }

    /// One node of two neighbours of one level; `bound` is what the parent says of the second.
    pub(super) fn merge(self, second: NodeDraft, bound: &Bound) -> NodeDraft {
        match (self, second) {
            (NodeDraft::Leaf(mut first), NodeDraft::Leaf(second)) => {
                let count = count_of(&first) + count_of(&second);
                first[1..NODE_HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
                first.extend_from_slice(&second[NODE_HEADER_BYTES..]);
                NodeDraft::Leaf(first)
            }
            (
                NodeDraft::Inner {
                    level,
                    mut children,
                },
                NodeDraft::Inner {
                    children: mut second,
                    ..
                },
            ) => {
                if let Some(child) = second.first_mut() {
                    child.bound = bound.clone();
                }
                children.append(&mut second);
                NodeDraft::Inner { level, children }
            }
            (first, _) => first,
        }
    }

    /// Splits a node into as few as fit into pages, if it can be split so far. `hash` is asked for in trees by hash.
    pub(super) fn split(
        self,
        layout: TreeLayout,
        growth: Growth,
        hash: &HashOf<'_>,
    ) -> Result<Vec<SplitPart>, &'static str> {
        let mut done = Vec::new();
        let mut to_do = vec![SplitPart {
            bound: Bound::new(),
            node: self,
        }];
        let mut growth = growth;
        while let Some(SplitPart { bound, node }) = to_do.pop() {
            if node.bytes(layout.order) <= PAGE_BYTES {
                done.push(SplitPart { bound, node });
                continue;
            }
            match node.halve(layout, growth, hash)? {
                (node, None) => done.push(SplitPart { bound, node }),
                (node, Some(second)) => {
                    to_do.push(second);
                    to_do.push(SplitPart { bound, node });
                }
            }
            growth = Growth::Within;
        }
        Ok(done)
    }

    /// Splits a node in two. A leaf whose elements all have one hash, or that has only one, stays as it is.
    pub(super) fn halve(
        self,
        layout: TreeLayout,
        growth: Growth,
        hash: &HashOf<'_>,
    ) -> Result<(NodeDraft, Option<SplitPart>), &'static str> {
        match self {
            NodeDraft::Leaf(node) if layout.order == Order::Hash => {
                halve_by_hash(node, layout, hash)
            }
            NodeDraft::Leaf(node) => halve_leaf(node, layout, growth),
            NodeDraft::Inner {
                level,
                mut children,
            } => {
                let bytes = children
                    .iter()
                    .map(|child| child_bytes(layout.order, child));
                let at = middle(bytes, growth);
                if at == 0 || at >= children.len() {
                    return Ok((NodeDraft::Inner { level, children }, None));
                }
                let second = children.split_off(at);
                let bound = second[0].bound.clone();
                let second = NodeDraft::Inner {
                    level,
                    children: second,
                };
                let first = NodeDraft::Inner { level, children };
                let second = SplitPart {
                    bound,
                    node: second,
                };
                Ok((first, Some(second)))
            }
        }
    }
}

/// How many of things so long belong in front of where they are split; 0 if there are less than two.
fn middle(bytes: impl Iterator<Item = usize> + Clone, growth: Growth) -> usize {
    let count = bytes.clone().count();
    if count < 2 {
        return 0;
    }
    let all: usize = bytes.clone().sum();
    // What does not fit into a page beside the others.
    let mut over = all.saturating_sub(PAGE_BYTES - NODE_HEADER_BYTES);
    let mut goes = |bytes: usize| {
        let goes = over > 0;
        over = over.saturating_sub(bytes);
        goes
    };
    match growth {
        Growth::AtStart => {
            let going = bytes.take_while(|&bytes| goes(bytes)).count();
            return going.clamp(1, count - 1);
        }
        Growth::AtEnd => {
            let lengths: Vec<usize> = bytes.collect();
            let going = lengths.iter().rev().take_while(|&&bytes| goes(bytes));
            return count - going.count().clamp(1, count - 1);
        }
        Growth::Within => {}
    }
    let mut before = 0;
    for (index, bytes) in bytes.enumerate() {
        // The one that lies over the middle goes to the side on which more of it lies.
        if before * 2 + bytes > all {
            return index.clamp(1, count - 1);
        }
        before += bytes;
    }
    count - 1
}

/// A leaf of elements as they are stored.
fn leaf_of<'e>(elements: impl Iterator<Item = &'e [u8]>) -> NodeDraft {
    let (mut node, mut count) = (vec![0; NODE_HEADER_BYTES], 0u16);
    for element in elements {
        node.extend_from_slice(element);
        count += 1;
    }
    node[1..NODE_HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
    NodeDraft::Leaf(node)
}

fn halve_leaf(
    node: Vec<u8>,
    layout: TreeLayout,
    growth: Growth,
) -> Result<(NodeDraft, Option<SplitPart>), &'static str> {
    let mut entries = Entries::of(&node, layout)?;
    let mut all = Vec::with_capacity(usize::from(count_of(&node)));
    while let Some(entry) = entries.read()? {
        all.push(entry);
    }
    let wanted = middle(all.iter().map(|entry| entry.end - entry.at), growth);
    let is_by_key = layout.order == Order::Key;
    let bound_at = |at: usize| separator(&all[at - 1], &all[at]);
    let at = nearest(wanted, all.len(), |at| !is_by_key || bound_at(at).is_some());
    let Some(at) = at else {
        return Ok((NodeDraft::Leaf(node), None));
    };
    let bound = match is_by_key {
        true => bound_at(at).unwrap_or_default(),
        false => Bound::new(),
    };
    let (first, second) = all.split_at(at);
    let second = leaf_of(second.iter().map(|entry| &node[entry.at..entry.end]));
    let first = leaf_of(first.iter().map(|entry| &node[entry.at..entry.end]));
    let second = SplitPart {
        bound,
        node: second,
    };
    Ok((first, Some(second)))
}

/// The place nearest to `wanted` among `count` things where they can be split; `None` if they cannot be.
fn nearest(wanted: usize, count: usize, can_be: impl Fn(usize) -> bool) -> Option<usize> {
    if wanted == 0 {
        return None;
    }
    let before = (1..=wanted).rev().find(|&at| can_be(at));
    let behind = (wanted + 1..count).find(|&at| can_be(at));
    match (before, behind) {
        (Some(before), Some(behind)) if wanted - before > behind - wanted => Some(behind),
        (before, behind) => before.or(behind),
    }
}

/// The shortest that is greater than the key of `first` and not greater than that of `second`, which follows it. `None` if the
/// parts of them that are in the leaf do not tell.
pub(super) fn separator(first: &Entry<'_>, second: &Entry<'_>) -> Option<Bound> {
    let pairs = first.key.iter().zip(second.key);
    let same = pairs.take_while(|(a, b)| a == b).count();
    let tells = same < first.key.len() || first.is_key_whole();
    let bound = second.key.get(..same + 1).filter(|_| tells);
    bound.map(Bound::from_slice)
}

fn halve_by_hash(
    node: Vec<u8>,
    layout: TreeLayout,
    hash: &HashOf<'_>,
) -> Result<(NodeDraft, Option<SplitPart>), &'static str> {
    let mut entries = Entries::of(&node, layout)?;
    let mut all = Vec::with_capacity(usize::from(count_of(&node)));
    while let Some(entry) = entries.read()? {
        all.push((hash(&entry), entry.at..entry.end));
    }
    // Stable: in each of the leaves they stay in the order in which they were put, among those of one hash at least.
    all.sort_by_key(|(hash, _)| *hash);
    let wanted = middle(all.iter().map(|(_, bytes)| bytes.len()), Growth::Within);
    let at = nearest(wanted, all.len(), |at| all[at - 1].0 != all[at].0);
    let Some(at) = at else {
        return Ok((NodeDraft::Leaf(node), None));
    };
    let (first, second) = all.split_at(at);
    let bound = Bound::from_slice(&second[0].0.to_be_bytes());
    let second = leaf_of(second.iter().map(|(_, bytes)| &node[bytes.clone()]));
    let first = leaf_of(first.iter().map(|(_, bytes)| &node[bytes.clone()]));
    let second = SplitPart {
        bound,
        node: second,
    };
    Ok((first, Some(second)))
}
