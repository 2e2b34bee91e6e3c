//! Copying a collection, with all its pages.

use smallvec::SmallVec;

use super::find::{NodeAt, damaged};
use super::inner::Inner;
use super::leaf::Entries;
use super::plan::{Content, PageChange, PageContent, Plan, RootPlace};
use super::root::Root;
use super::walk::Visits;
use crate::command_log::Effect;
use crate::index::Index;
use crate::latch::LatchMode;
use crate::operation::Operation;
use crate::sync::atomic::Ordering;
use crate::write::Over;
use crate::{Namespace, Stop};

/// Cold pages that are asked for together.
const PAGES_AT_ONCE: usize = 1024;

impl<I: Index> Operation<'_, I> {
    /// Stores a copy of a collection, with its type and expiry, under another key, replacing what is there; `false` if `from`
    /// does not exist or is no collection. O(n): all its pages are read, and written again, and have to fit in memory.
    ///
    /// # Errors
    ///
    /// [`Stop::Cold`], [`Stop::Io`], [`Stop::TooLarge`], [`Stop::NoRoom`]; nothing has changed then.
    pub fn copy_collection(
        &mut self,
        from: (Namespace, &[u8]),
        to: (Namespace, &[u8]),
    ) -> Result<bool, Stop> {
        self.shared.check_lengths(to.1, 0)?;
        self.check_log()?;
        let hash = self.shared.hash(from.0, from.1);
        self.assert_latched(hash, LatchMode::Shared);
        let found = self.find(hash, from.0, from.1)?;
        let found = found.filter(|found| found.is_tree() && !self.is_expired(&found.record));
        let Some(found) = found else { return Ok(false) };
        if from == to {
            return Ok(true);
        }
        self.overwritable(to.0, to.1)?;
        let root = Root::of_found(&found)?;
        let mut pages = SmallVec::new();
        for node in self.all_pages(&root)? {
            let Some((number, _)) = node.page else {
                continue;
            };
            pages.push(PageChange {
                number,
                previous: None,
                content: PageContent::Becomes(Content::New(node.bytes.to_vec())),
            });
        }
        let mut draft = root.draft();
        let mut object = 0;
        if let Some(pages) = &mut draft.pages {
            pages.object = self.shared.next_object.fetch_add(1, Ordering::Relaxed);
            object = pages.object;
        }
        let plan = Plan {
            object,
            pages,
            root: Content::New(draft.encode()),
        };
        self.make(to, RootPlace::New(found.record.meta(), Over::Unknown), plan)?;
        self.note(&Effect::CopyCollection { from, to });
        Ok(true)
    }

    /// All pages of a collection.
    fn all_pages<'o>(&'o self, root: &Root<'o>) -> Result<Vec<NodeAt<'o>>, Stop> {
        let mut all = Vec::new();
        let mut visits = Visits::new(self, root);
        for (tree, of_tree) in root.trees.iter().enumerate() {
            let mut nodes = vec![root.top_node(tree)];
            for level in (1..=of_tree.level).rev() {
                let (mut children, mut cold, mut stop) = (Vec::new(), 0, None);
                for node in &nodes {
                    let inner = Inner::of(node.bytes, of_tree.layout.order, level)
                        .map_err(|why| damaged(root, node.number(), why))?;
                    for index in 0..inner.count() {
                        visits.count(root, node.number())?;
                        match self.tree_page(root, inner.place(index).page) {
                            Ok(child) => children.push(child),
                            Err(reason) => {
                                stop = Some(reason);
                                cold += 1;
                            }
                        }
                        if cold == PAGES_AT_ONCE {
                            break;
                        }
                    }
                }
                if let Some(reason) = stop {
                    return Err(reason);
                }
                all.extend_from_slice(&children);
                nodes = children;
            }
            self.add_bodies(root, tree, &nodes, &mut all)?;
        }
        Ok(all)
    }

    /// Adds the pages of long elements in these leaves.
    fn add_bodies<'o>(
        &'o self,
        root: &Root<'o>,
        tree: usize,
        leaves: &[NodeAt<'o>],
        to: &mut Vec<NodeAt<'o>>,
    ) -> Result<(), Stop> {
        let (mut cold, mut stop) = (0, None);
        for leaf in leaves {
            let in_leaf = |why| damaged(root, leaf.number(), why);
            let layout = root.tree(tree).layout;
            let mut entries = Entries::of(leaf.bytes, layout).map_err(in_leaf)?;
            while let Some(entry) = entries.read().map_err(in_leaf)? {
                let Some(outside) = entry.outside.filter(|_| cold < PAGES_AT_ONCE) else {
                    continue;
                };
                match self.body_pages(root, &outside, outside.bytes()) {
                    Ok(pages) => to.extend(pages.into_iter().map(|page| NodeAt {
                        page: Some(page),
                        bytes: page.1.record.value(),
                    })),
                    Err(reason) => {
                        stop = Some(reason);
                        cold += 1;
                    }
                }
            }
        }
        stop.map_or(Ok(()), Err)
    }
}
