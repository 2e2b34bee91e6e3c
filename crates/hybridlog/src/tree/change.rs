//! Changing a collection: every call is one change of one collection, whole or not at all, with its effect noted.

use std::io;

use smallvec::SmallVec;

use super::find::{Path, damaged, damaged_root};
use super::grow::{LeafChange, StructurePlan};
use super::leaf::{ELEMENT_MAX_BYTES, Entries, Spot, put_entry};
use super::overflow::NewElement;
use super::plan::{Content, Patch, Plan, RootPlace};
use super::root::{HEADER_MAX_BYTES, Root, RootDraft, layout_byte, layout_of};
use super::{Layout, Order, Put, TREES_MAX, TreeLayout};
use crate::command_log::{Effect, LoggedBytes, TreeEffect};
use crate::index::Index;
use crate::latch::LatchMode;
use crate::operation::{Found, Operation};
use crate::write::{Content as Logged, Over};
use crate::{Meta, Namespace, Stop};

/// Elements that are inserted in one change are no longer together, if they are several.
pub const INSERTED_TOGETHER_BYTES: usize = ELEMENT_MAX_BYTES;

/// What each of them counts beside its own bytes.
pub const INSERTED_BESIDE_BYTES: usize = 4;

/// A collection that is to be changed.
pub(super) enum Target<'o> {
    /// It is there.
    There(Found<'o>),
    /// It is to be made: in the place of a record that has expired, or of nothing.
    Absent(Over<'o>),
}

impl<I: Index> Operation<'_, I> {
    /// Stores an element under its key in a tree by [`Order::Hash`] or [`Order::Key`]. The collection is created, with an
    /// empty header, if its key is absent or has expired. O(log n): it reads a page a level, and writes those that change.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`], [`Stop::Io`], [`Stop::TooLarge`], [`Stop::NoRoom`]; nothing has changed then.
    ///
    /// # Panics
    ///
    /// If the collection has no such tree, or that has no keys.
    #[allow(clippy::too_many_arguments)] // An element has a key, a value and an expiry, in a tree, of a collection.
    pub fn put_element(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        layout: &Layout,
        tree: usize,
        element_key: &[u8],
        value: &[u8],
        expires_at_ms: Option<u64>,
    ) -> Result<Put, Stop> {
        let target = self.target((namespace, key), element_key.len() + value.len())?;
        let new = NewElement {
            key: element_key,
            value,
            expires_at_ms,
        };
        let mut put = Put::Added;
        let content;
        match target {
            Target::There(found) => {
                let root = Root::of_found(&found)?;
                let (path, spot) = self.find_element(&root, tree, element_key)?;
                let old = spot.entry;
                if old.is_some() {
                    put = Put::Replaced;
                }
                let has_values = root.tree(tree).layout.has_values;
                let is_same = old.is_some_and(|old| {
                    let same_value = old.outside.is_none() && old.value == value;
                    old.expires_at_ms == expires_at_ms && (!has_values || same_value)
                });
                if is_same {
                    // Nothing to do; but who puts a value has changed it, even if it was the same.
                    if !has_values {
                        return Ok(put);
                    }
                    content = self.log_ahead(value)?;
                } else {
                    let plan =
                        self.plan_element(key, &root, tree, &path, spot.at, old, Some(new))?;
                    let place = RootPlace::At(found);
                    content = self.make_logged((namespace, key), place, plan, value)?;
                }
            }
            Target::Absent(over) => {
                let empty = RootDraft::new(layout.trees, &[]).encode();
                let root = Root::of(&empty).map_err(damaged_root)?;
                let (path, spot) = self.find_element(&root, tree, element_key)?;
                let plan = self.plan_element(key, &root, tree, &path, spot.at, None, Some(new))?;
                content = self.create((namespace, key), layout, over, &empty, plan, value)?;
            }
        }
        let effect = TreeEffect::Put {
            tree: tree as u8,
            key: element_key,
            value: logged(&content),
            expires_at_ms,
        };
        self.note_tree(namespace, key, effect);
        Ok(put)
    }

    /// Whether an element of so many bytes, key and value together, may be put: for commands that put several.
    ///
    /// # Errors
    ///
    /// [`Stop::TooLarge`].
    pub fn check_element(&self, key: &[u8], element_bytes: u64) -> Result<(), Stop> {
        self.shared.check_lengths(key, element_bytes)
    }

    /// Removes the element with this key; `false` if there is none. The collection stays, be it empty.
    ///
    /// # Errors
    ///
    /// As [`Self::put_element`].
    ///
    /// # Panics
    ///
    /// As [`Self::put_element`].
    pub fn remove_element(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        tree: usize,
        element_key: &[u8],
    ) -> Result<bool, Stop> {
        let Target::There(found) = self.target((namespace, key), 0)? else {
            return Ok(false);
        };
        let root = Root::of_found(&found)?;
        let (path, spot) = self.find_element(&root, tree, element_key)?;
        if spot.entry.is_none() {
            return Ok(false);
        }
        let plan = self.plan_element(key, &root, tree, &path, spot.at, spot.entry, None)?;
        self.make((namespace, key), RootPlace::At(found), plan)?;
        let effect = TreeEffect::Take {
            tree: tree as u8,
            key: element_key,
        };
        self.note_tree(namespace, key, effect);
        Ok(true)
    }

    /// Inserts an element in a tree by [`Order::Position`], so that it has this position: 0 to put it first, anything from the
    /// number of elements on to put it last. The collection is created if its key is absent or has expired. Returns how many
    /// elements the tree has then. O(log n).
    ///
    /// # Errors
    ///
    /// As [`Self::put_element`].
    ///
    /// # Panics
    ///
    /// If the collection has no such tree, or that has another order.
    pub fn insert_at(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        layout: &Layout,
        tree: usize,
        position: u64,
        value: &[u8],
    ) -> Result<u64, Stop> {
        self.insert_together(namespace, key, layout, tree, position, &[value])
    }

    /// As [`Self::insert_at`], of several elements, one behind the other, of which the first gets this position: one change of
    /// one leaf. So they are few: one, or together not longer than [`INSERTED_TOGETHER_BYTES`], each with
    /// [`INSERTED_BESIDE_BYTES`].
    ///
    /// # Errors
    ///
    /// As [`Self::put_element`].
    ///
    /// # Panics
    ///
    /// As [`Self::insert_at`]; if there are none, or too many.
    pub fn insert_together(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        layout: &Layout,
        tree: usize,
        position: u64,
        values: &[&[u8]],
    ) -> Result<u64, Stop> {
        let bytes: usize = values.iter().map(|value| value.len()).sum();
        let all_bytes = bytes + values.len() * INSERTED_BESIDE_BYTES;
        assert!(
            values.len() == 1 || !values.is_empty() && all_bytes <= INSERTED_TOGETHER_BYTES,
            "{} elements of {bytes} bytes are inserted together",
            values.len()
        );
        let target = self.target((namespace, key), bytes)?;
        let (mut before, mut resolved) = (0, 0);
        // One alone may be long.
        let alone = match *values {
            [value] => value,
            _ => &[],
        };
        let content = match target {
            Target::There(found) => {
                let root = Root::of_found(&found)?;
                assert_by_position(&root, tree);
                before = root.tree(tree).elements;
                resolved = position.min(before);
                let (path, spot) = self.find_position(&root, tree, resolved)?;
                let plan = self.plan_inserted(key, &root, tree, &path, spot.at, values)?;
                let place = RootPlace::At(found);
                self.make_logged((namespace, key), place, plan, alone)?
            }
            Target::Absent(over) => {
                let empty = RootDraft::new(layout.trees, &[]).encode();
                let root = Root::of(&empty).map_err(damaged_root)?;
                assert_by_position(&root, tree);
                let (path, spot) = self.find_position(&root, tree, 0)?;
                let plan = self.plan_inserted(key, &root, tree, &path, spot.at, values)?;
                self.create((namespace, key), layout, over, &empty, plan, alone)?
            }
        };
        for (position, value) in (resolved..).zip(values) {
            let effect = TreeEffect::InsertAt {
                tree: tree as u8,
                position,
                value: match values {
                    [_] => logged(&content),
                    _ => LoggedBytes::Here(value),
                },
            };
            self.note_tree(namespace, key, effect);
        }
        Ok(before + values.len() as u64)
    }

    /// Plans to insert `values` at `at` of a leaf.
    fn plan_inserted<'o>(
        &'o self,
        key: &[u8],
        root: &Root<'o>,
        tree: usize,
        path: &Path<'o>,
        at: usize,
        values: &[&[u8]],
    ) -> Result<Plan<'o>, Stop> {
        let layout = root.tree(tree).layout;
        if let [value] = *values {
            let new = NewElement {
                key: &[],
                value,
                expires_at_ms: None,
            };
            return self.plan_element(key, root, tree, path, at, None, Some(new));
        }
        let mut inserted = Vec::new();
        for value in values {
            put_entry(&mut inserted, layout, &[], value, None);
        }
        let change = LeafChange {
            patch: Patch {
                at,
                removed: 0,
                inserted: SmallVec::from_vec(inserted),
            },
            elements: values.len() as i64,
        };
        self.plan_leaf(key, root, tree, path, &change)
    }

    /// Replaces the element at a position of a tree by [`Order::Position`]; `false` if there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::put_element`].
    ///
    /// # Panics
    ///
    /// As [`Self::insert_at`].
    pub fn replace_at(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        tree: usize,
        position: u64,
        value: &[u8],
    ) -> Result<bool, Stop> {
        let Target::There(found) = self.target((namespace, key), value.len())? else {
            return Ok(false);
        };
        let root = Root::of_found(&found)?;
        assert_by_position(&root, tree);
        if position >= root.tree(tree).elements {
            return Ok(false);
        }
        let new = NewElement {
            key: &[],
            value,
            expires_at_ms: None,
        };
        let (path, spot) = self.find_position(&root, tree, position)?;
        let plan = self.plan_element(key, &root, tree, &path, spot.at, spot.entry, Some(new))?;
        let content = self.make_logged((namespace, key), RootPlace::At(found), plan, value)?;
        let effect = TreeEffect::ReplaceAt {
            tree: tree as u8,
            position,
            value: logged(&content),
        };
        self.note_tree(namespace, key, effect);
        Ok(true)
    }

    /// Removes `count` elements from a position on, of a tree by [`Order::Key`] or [`Order::Position`]; returns how many there
    /// were. O(log n) and the pages that hold them, which are read.
    ///
    /// # Errors
    ///
    /// As [`Self::put_element`]; [`Stop::Io`] if the tree is by [`Order::Hash`]: positions mean nothing there, a replay may find
    /// others.
    ///
    /// # Panics
    ///
    /// If the collection has no such tree.
    pub fn remove_range(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        tree: usize,
        position: u64,
        count: u64,
    ) -> Result<u64, Stop> {
        let Target::There(found) = self.target((namespace, key), 0)? else {
            return Ok(0);
        };
        let root = Root::of_found(&found)?;
        if root.tree(tree).layout.order == Order::Hash {
            let text = "elements of a tree by hash are not removed by position";
            return Err(Stop::Io(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let elements = root.tree(tree).elements;
        let range = position.min(elements)..position.saturating_add(count).min(elements);
        let count = range.end - range.start;
        if count == 0 {
            return Ok(0);
        }
        let (path, spot) = self.find_position(&root, tree, range.start)?;
        let layout = root.tree(tree).layout;
        let end = end_of(path.leaf.bytes, layout, &spot, count)
            .map_err(|why| damaged(&root, path.leaf.number(), why))?;
        let plan = match end {
            Some(end) => {
                let change = LeafChange {
                    patch: Patch {
                        at: spot.at,
                        removed: end - spot.at,
                        inserted: SmallVec::new(),
                    },
                    elements: -(count as i64),
                };
                self.plan_leaf(key, &root, tree, &path, &change)?
            }
            None => self.plan_cut(key, &root, tree, range)?,
        };
        self.make((namespace, key), RootPlace::At(found), plan)?;
        let effect = TreeEffect::RemoveRange {
            tree: tree as u8,
            position,
            count,
        };
        self.note_tree(namespace, key, effect);
        Ok(count)
    }

    /// Stores the header of a collection, [`HEADER_MAX_BYTES`] at most; the collection is created if its key is absent or has
    /// expired.
    ///
    /// # Errors
    ///
    /// As [`Self::put_element`].
    pub fn set_header(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        layout: &Layout,
        header: &[u8],
    ) -> Result<(), Stop> {
        self.put_header((namespace, key), layout, header, None)
    }

    /// As [`Self::set_header`], and stores when the collection is due, Unix milliseconds: from then on
    /// [`Store::take_due`](crate::Store::take_due) names it, wherever it is, until another time has been stored. It is copied
    /// and renamed with the collection.
    ///
    /// # Errors
    ///
    /// As [`Self::put_element`].
    pub fn set_header_due(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        layout: &Layout,
        header: &[u8],
        due_at_ms: Option<u64>,
    ) -> Result<(), Stop> {
        self.put_header((namespace, key), layout, header, Some(due_at_ms))
    }

    /// Without a `due` that stays as it is.
    fn put_header(
        &mut self,
        (namespace, key): (Namespace, &[u8]),
        layout: &Layout,
        header: &[u8],
        due: Option<Option<u64>>,
    ) -> Result<(), Stop> {
        if header.len() > HEADER_MAX_BYTES {
            return Err(Stop::TooLarge {
                len: header.len() as u64,
                limit: HEADER_MAX_BYTES as u64,
            });
        }
        let due_at_ms;
        match self.target((namespace, key), 0)? {
            Target::There(found) => {
                let root = Root::of_found(&found)?;
                due_at_ms = due.unwrap_or(root.due_at_ms);
                let mut plan = StructurePlan::new(self, &root);
                plan.draft.header = header.to_vec();
                plan.draft.due_at_ms = due_at_ms;
                let plan = plan.finish(key)?;
                self.make((namespace, key), RootPlace::At(found), plan)?;
            }
            Target::Absent(over) => {
                due_at_ms = due.flatten();
                let empty = RootDraft::new(layout.trees, &[]).encode();
                let mut draft = RootDraft::new(layout.trees, header);
                draft.due_at_ms = due_at_ms;
                let plan = Plan {
                    object: 0,
                    pages: SmallVec::new(),
                    root: Content::New(draft.encode()),
                };
                self.create((namespace, key), layout, over, &empty, plan, &[])?;
            }
        }
        let effect = TreeEffect::Header {
            bytes: header,
            due_at_ms,
        };
        self.note_tree(namespace, key, effect);
        Ok(())
    }

    /// What is under the key. Whatever may be changed after this has been asked for is checked here.
    pub(super) fn target(
        &self,
        (namespace, key): (Namespace, &[u8]),
        element: usize,
    ) -> Result<Target<'_>, Stop> {
        self.shared.check_lengths(key, element as u64)?;
        self.check_log()?;
        let hash = self.shared.hash(namespace, key);
        self.assert_latched(hash, LatchMode::Exclusive);
        Ok(match self.find(hash, namespace, key)? {
            None => Target::Absent(Over::Unknown),
            Some(found) if self.is_expired(&found.record) => Target::Absent(Over::Found(found)),
            Some(found) => Target::There(found),
        })
    }

    /// Makes a new collection by a plan for an empty one, which stores `value`.
    fn create<'v>(
        &self,
        (namespace, key): (Namespace, &[u8]),
        layout: &Layout,
        over: Over<'_>,
        empty: &[u8],
        plan: Plan<'_>,
        value: &'v [u8],
    ) -> Result<Logged<'v>, Stop> {
        let meta = Meta {
            kind: layout.kind,
            expires_at_ms: None,
        };
        let root = Content::New(plan.root.whole(empty).into_owned());
        let plan = Plan { root, ..plan };
        let content =
            self.make_logged((namespace, key), RootPlace::New(meta, over), plan, value)?;
        self.note_created(namespace, key, layout, &[]);
        Ok(content)
    }

    pub(super) fn note_created(
        &self,
        namespace: Namespace,
        key: &[u8],
        layout: &Layout,
        header: &[u8],
    ) {
        let trees: SmallVec<[u8; TREES_MAX]> =
            layout.trees.iter().map(|&tree| layout_byte(tree)).collect();
        let effect = TreeEffect::Create {
            kind: layout.kind,
            trees: &trees,
            header,
        };
        self.note_tree(namespace, key, effect);
    }

    pub(super) fn note_tree(&self, namespace: Namespace, key: &[u8], effect: TreeEffect<'_>) {
        self.note(&Effect::Collection {
            namespace,
            key,
            effect,
        });
    }

    /// Does again what has become of a collection. What concerns one that is not there, because a repair has dropped it, is
    /// left. `blob` is what the effect names, if it names one.
    pub(crate) fn redo_tree(
        &mut self,
        namespace: Namespace,
        key: &[u8],
        effect: &TreeEffect<'_>,
        blob: &[u8],
    ) -> Result<(), Stop> {
        // Only `Create` makes one.
        let none = Layout {
            kind: 0,
            trees: &[],
        };
        if let TreeEffect::Create {
            kind,
            trees,
            header,
        } = *effect
        {
            return self.redo_create((namespace, key), kind, trees, header);
        }
        let tree = match *effect {
            TreeEffect::Put { tree, .. }
            | TreeEffect::Take { tree, .. }
            | TreeEffect::InsertAt { tree, .. }
            | TreeEffect::ReplaceAt { tree, .. }
            | TreeEffect::RemoveRange { tree, .. } => Some(usize::from(tree)),
            TreeEffect::Create { .. } | TreeEffect::Header { .. } => None,
        };
        let Target::There(found) = self.target((namespace, key), 0)? else {
            return Ok(());
        };
        if !found.is_tree() {
            return Ok(());
        }
        let root = Root::of_found(&found)?;
        if tree.is_some_and(|tree| tree >= root.trees.len()) {
            return Ok(());
        }
        let tree = tree.unwrap_or(0);
        // Nor is what concerns another collection, of which a repair has brought an older one back.
        let fits = match *effect {
            TreeEffect::Put { .. } | TreeEffect::Take { .. } => !is_by_position(&root, tree),
            TreeEffect::InsertAt { .. } | TreeEffect::ReplaceAt { .. } => {
                is_by_position(&root, tree)
            }
            TreeEffect::RemoveRange { .. } => root.tree(tree).layout.order != Order::Hash,
            _ => true,
        };
        if !fits {
            return Ok(());
        }
        match *effect {
            TreeEffect::Put {
                key: element,
                value,
                expires_at_ms,
                ..
            } => self
                .put_element(
                    namespace,
                    key,
                    &none,
                    tree,
                    element,
                    value.or(blob),
                    expires_at_ms,
                )
                .map(drop),
            TreeEffect::Take { key: element, .. } => {
                self.remove_element(namespace, key, tree, element).map(drop)
            }
            TreeEffect::InsertAt {
                position, value, ..
            } => self
                .insert_at(namespace, key, &none, tree, position, value.or(blob))
                .map(drop),
            TreeEffect::ReplaceAt {
                position, value, ..
            } => self
                .replace_at(namespace, key, tree, position, value.or(blob))
                .map(drop),
            TreeEffect::RemoveRange {
                position, count, ..
            } => self
                .remove_range(namespace, key, tree, position, count)
                .map(drop),
            TreeEffect::Header { bytes, due_at_ms } => {
                self.set_header_due(namespace, key, &none, bytes, due_at_ms)
            }
            TreeEffect::Create { .. } => Ok(()),
        }
    }

    fn redo_create(
        &mut self,
        (namespace, key): (Namespace, &[u8]),
        kind: u8,
        trees: &[u8],
        header: &[u8],
    ) -> Result<(), Stop> {
        let layouts: Result<SmallVec<[TreeLayout; TREES_MAX]>, _> =
            trees.iter().map(|&byte| layout_of(byte)).collect();
        let layouts = layouts.map_err(damaged_root)?;
        if layouts.len() > TREES_MAX || header.len() > HEADER_MAX_BYTES {
            return Err(damaged_root("it is created larger than one can be"));
        }
        let over = match self.target((namespace, key), 0)? {
            Target::There(found) => Over::Found(found),
            Target::Absent(over) => over,
        };
        let meta = Meta {
            kind,
            expires_at_ms: None,
        };
        let plan = Plan {
            object: 0,
            pages: SmallVec::new(),
            root: Content::New(RootDraft::new(&layouts, header).encode()),
        };
        self.make((namespace, key), RootPlace::New(meta, over), plan)
    }
}

fn is_by_position(root: &Root<'_>, tree: usize) -> bool {
    root.tree(tree).layout.order == Order::Position
}

fn assert_by_position(root: &Root<'_>, tree: usize) {
    let order = root.tree(tree).layout.order;
    assert!(order == Order::Position, "tree {tree} is not by position");
}

/// A value as an effect names it.
fn logged<'v>(content: &Logged<'v>) -> LoggedBytes<'v> {
    match *content {
        Logged::Bytes(bytes) => LoggedBytes::Here(bytes),
        Logged::Blob(blob) => LoggedBytes::Blob(blob),
    }
}

/// Where in a leaf the last of `count` elements from a spot on ends; `None` if it has fewer, or if one is outside.
fn end_of(
    node: &[u8],
    layout: TreeLayout,
    spot: &Spot<'_>,
    count: u64,
) -> Result<Option<usize>, &'static str> {
    let mut entries = Entries::of(node, layout)?;
    let (mut index, behind) = (0, spot.index + count);
    while index < behind {
        let entry = entries.read()?;
        let is_here = entry.is_some_and(|entry| index < spot.index || entry.outside.is_none());
        if !is_here {
            return Ok(None);
        }
        index += 1;
    }
    Ok(Some(entries.at()))
}
