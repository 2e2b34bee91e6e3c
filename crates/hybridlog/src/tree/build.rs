//! Making a collection of elements that are all there: full leaves, one after the other.

use std::io;

use smallvec::SmallVec;

use super::change::Target;
use super::find::damaged_root;
use super::grow::StructurePlan;
use super::inner::{Bound, Child, child_bytes};
use super::leaf::{Entries, NODE_HEADER_BYTES, put_entry};
use super::node::{NodeDraft, separator};
use super::overflow::{NewElement, is_long};
use super::plan::RootPlace;
use super::root::{HEADER_MAX_BYTES, Root, RootDraft};
use super::{Element, Layout, Order, PAGE_BYTES, TreeLayout};
use crate::command_log::{Effect, LoggedBytes, TreeEffect};
use crate::index::Index;
use crate::operation::Operation;
use crate::write::Over;
use crate::{Meta, Namespace, Stop};

/// What is stored of a collection beside its elements when it is made with all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewCollection<'a> {
    /// Its type and its trees.
    pub layout: &'a Layout,
    /// As in [`Operation::set_header`].
    pub header: &'a [u8],
    /// When it is due, Unix milliseconds, as in [`Operation::set_header_due`].
    pub due_at_ms: Option<u64>,
    /// As in [`Meta::expires_at_ms`].
    pub expires_at_ms: Option<u64>,
}

/// What an element of few bytes takes beside them, about.
const ENTRY_BESIDE_BYTES: usize = 4;

/// The elements of one tree: encoded one after the other, and where each begins and ends.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    /// By hash, with their hashes.
    places: Vec<(u64, std::ops::Range<usize>)>,
}

impl<I: Index> Operation<'_, I> {
    /// Stores a collection made of these elements, each with the tree it belongs to, replacing whatever was there. In a tree by
    /// [`Order::Key`] they come in ascending order, by [`Order::Position`] in theirs, by [`Order::Hash`] in any; no key comes
    /// twice. Its pages are full, and it takes one record if it is small: so it is better than putting the elements of a new
    /// collection one by one. All of it has to fit in memory.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`], [`Stop::Io`], [`Stop::TooLarge`], [`Stop::NoRoom`]; nothing has changed then.
    ///
    /// # Panics
    ///
    /// If an element belongs to a tree that the layout does not have.
    pub fn build_collection<'e>(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        new: NewCollection<'_>,
        elements: &mut dyn Iterator<Item = (usize, Element<'e>)>,
    ) -> Result<(), Stop> {
        let NewCollection { layout, header, .. } = new;
        if header.len() > HEADER_MAX_BYTES {
            return Err(Stop::TooLarge {
                len: header.len() as u64,
                limit: HEADER_MAX_BYTES as u64,
            });
        }
        let over = match self.target((namespace, key), 0)? {
            Target::There(found) => Over::Found(found),
            Target::Absent(over) => over,
        };
        let empty = RootDraft::new(layout.trees, header).encode();
        let root = Root::of(&empty).map_err(damaged_root)?;
        let mut plan = StructurePlan::new(self, &root);
        plan.draft.due_at_ms = new.due_at_ms;
        let mut all: SmallVec<[Encoded; 4]> =
            layout.trees.iter().map(|_| Encoded::default()).collect();
        let elements: Vec<_> = elements.collect();
        reserve(&mut all, &elements);
        for (tree, element) in &elements {
            let element = NewElement {
                key: &element.key,
                value: &element.value,
                expires_at_ms: element.expires_at_ms,
            };
            self.shared
                .check_lengths(key, (element.key.len() + element.value.len()) as u64)?;
            plan.encode(layout.trees[*tree], &element, &mut all[*tree])?;
        }
        for (tree, encoded) in all.into_iter().enumerate() {
            plan.fill(tree, encoded)?;
        }
        let plan = plan.finish(key)?;
        let meta = Meta {
            kind: layout.kind,
            expires_at_ms: new.expires_at_ms,
        };
        let meta = meta.stored();
        self.make((namespace, key), RootPlace::New(meta, over), plan)?;
        self.note_built((namespace, key), new, &elements);
        if meta.expires_at_ms.is_some() {
            self.note(&Effect::SetExpiry {
                namespace,
                key,
                expires_at_ms: meta.expires_at_ms,
            });
        }
        Ok(())
    }

    fn note_built(
        &self,
        (namespace, key): (Namespace, &[u8]),
        new: NewCollection<'_>,
        elements: &[(usize, Element<'_>)],
    ) {
        let NewCollection {
            layout,
            header,
            due_at_ms,
            ..
        } = new;
        self.note_created(namespace, key, layout, header);
        if due_at_ms.is_some() {
            let effect = TreeEffect::Header {
                bytes: header,
                due_at_ms,
            };
            self.note_tree(namespace, key, effect);
        }
        let mut positions = [0; super::TREES_MAX];
        for (tree, element) in elements {
            let value = LoggedBytes::Here(&element.value);
            let effect = match layout.trees[*tree].order {
                Order::Position => TreeEffect::InsertAt {
                    tree: *tree as u8,
                    position: positions[*tree],
                    value,
                },
                _ => TreeEffect::Put {
                    tree: *tree as u8,
                    key: &element.key,
                    value,
                    expires_at_ms: element.expires_at_ms,
                },
            };
            positions[*tree] += 1;
            self.note_tree(namespace, key, effect);
        }
    }
}

/// Takes the memory for the encoded elements at once: what has to grow takes more on the way.
fn reserve(all: &mut [Encoded], elements: &[(usize, Element<'_>)]) {
    let mut sizes: SmallVec<[(usize, usize); 4]> = all.iter().map(|_| (0, 0)).collect();
    for (tree, element) in elements {
        let (count, bytes) = &mut sizes[*tree];
        *count += 1;
        *bytes += ENTRY_BESIDE_BYTES + element.key.len() + element.value.len();
    }
    for (encoded, (count, bytes)) in all.iter_mut().zip(sizes) {
        encoded.places.reserve_exact(count);
        encoded.bytes.reserve_exact(bytes);
    }
}

impl<I: Index> StructurePlan<'_, '_, I> {
    fn encode(
        &mut self,
        layout: TreeLayout,
        new: &NewElement<'_>,
        to: &mut Encoded,
    ) -> Result<(), Stop> {
        let at = to.bytes.len();
        if is_long(layout, new) {
            let bytes = self.add_outside(layout, new)?;
            to.bytes.extend_from_slice(&bytes);
        } else {
            put_entry(&mut to.bytes, layout, new.key, new.value, new.expires_at_ms);
        }
        let hash = match layout.order {
            Order::Hash => self.op.element_hash(self.root, new.key),
            _ => 0,
        };
        to.places.push((hash, at..to.bytes.len()));
        Ok(())
    }

    /// Makes a tree of its elements.
    fn fill(&mut self, tree: usize, encoded: Encoded) -> Result<(), Stop> {
        let Encoded { bytes, mut places } = encoded;
        let layout = self.draft.trees[tree].layout;
        self.draft.trees[tree].elements = places.len() as u64;
        if bytes.len() + NODE_HEADER_BYTES <= PAGE_BYTES {
            // In the order in which they came; should there be no room, it moves out as any other.
            let leaf = leaf_of(&bytes, &places);
            self.set_top(tree, NodeDraft::Leaf(leaf));
            return Ok(());
        }
        if layout.order == Order::Hash {
            places.sort_by_key(|(hash, _)| *hash);
        }
        let mut children: Vec<Child> = Vec::new();
        let mut rest = &places[..];
        let mut last: Option<Vec<u8>> = None;
        while !rest.is_empty() {
            let count = fitting(rest, layout.order);
            let (now, later) = rest.split_at(count);
            let leaf = leaf_of(&bytes, now);
            let bound = match (layout.order, &last) {
                (Order::Hash, None) => Bound::from_slice(&[0; 8]),
                (Order::Hash, Some(_)) => Bound::from_slice(&now[0].0.to_be_bytes()),
                (Order::Key, Some(before)) => {
                    between(before, &leaf, layout).map_err(wrong_input)?
                }
                (Order::Key, None) | (Order::Position, _) => Bound::new(),
            };
            children.push(self.add_page(tree, NodeDraft::Leaf(leaf.clone()), bound)?);
            (rest, last) = (later, Some(leaf));
        }
        let mut level = 1;
        while inner_bytes(layout.order, &children) > PAGE_BYTES {
            children = self.fill_level(tree, level, children)?;
            level += 1;
        }
        self.set_top(tree, NodeDraft::Inner { level, children });
        Ok(())
    }

    /// Makes full nodes of children; returns them as children of the next level.
    fn fill_level(
        &mut self,
        tree: usize,
        level: u8,
        children: Vec<Child>,
    ) -> Result<Vec<Child>, Stop> {
        let order = self.draft.trees[tree].layout.order;
        let (mut nodes, mut now, mut bytes) = (Vec::new(), Vec::new(), NODE_HEADER_BYTES);
        for child in children {
            bytes += child_bytes(order, &child);
            if bytes > PAGE_BYTES {
                bytes = NODE_HEADER_BYTES + child_bytes(order, &child);
                nodes.push(std::mem::take(&mut now));
            }
            now.push(child);
        }
        nodes.push(now);
        let nodes = nodes.into_iter().filter(|children| !children.is_empty());
        nodes
            .map(|children| {
                let bound = children[0].bound.clone();
                self.add_page(tree, NodeDraft::Inner { level, children }, bound)
            })
            .collect()
    }
}

fn wrong_input(why: &'static str) -> Stop {
    Stop::Io(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// How many elements the next leaf takes: those of one hash stay together.
fn fitting(places: &[(u64, std::ops::Range<usize>)], order: Order) -> usize {
    let mut bytes = NODE_HEADER_BYTES;
    let fits = places.iter().take_while(|(_, place)| {
        bytes += place.len();
        bytes <= PAGE_BYTES
    });
    let count = fits.count().max(1);
    if order != Order::Hash {
        return count;
    }
    let is_boundary = |at: &usize| {
        places
            .get(*at)
            .is_none_or(|next| next.0 != places[at - 1].0)
    };
    let before = (1..=count).rev().find(is_boundary);
    before
        .or_else(|| (count + 1..=places.len()).find(is_boundary))
        .unwrap_or(places.len())
}

fn inner_bytes(order: Order, children: &[Child]) -> usize {
    let bytes = children.iter().map(|child| child_bytes(order, child));
    NODE_HEADER_BYTES + bytes.sum::<usize>()
}

fn leaf_of(bytes: &[u8], places: &[(u64, std::ops::Range<usize>)]) -> Vec<u8> {
    let mut leaf = vec![0];
    leaf.extend_from_slice(&(places.len() as u16).to_le_bytes());
    for (_, place) in places {
        leaf.extend_from_slice(&bytes[place.clone()]);
    }
    leaf
}

/// The bound between the last element of a leaf and the first of the next.
fn between(before: &[u8], next: &[u8], layout: TreeLayout) -> Result<Bound, &'static str> {
    let mut entries = Entries::of(before, layout)?;
    let mut last = None;
    while let Some(entry) = entries.read()? {
        last = Some(entry);
    }
    let first = Entries::of(next, layout)?.read()?;
    let bound = last
        .zip(first)
        .and_then(|(last, first)| separator(&last, &first));
    bound.ok_or("two long keys begin with the same bytes, or keys do not ascend")
}
