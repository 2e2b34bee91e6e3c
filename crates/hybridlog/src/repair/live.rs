//! Which records of a damaged directory are live, and what goes with those that are lost.
//!
//! A record is live unless a deaths file says that it is dead. What cannot be read any more takes with it:
//!
//! * the large value that a lost page belongs to, since a page that is not there reads as zeroes, and the collection, which
//!   cannot be searched without it;
//! * older values of a lost key that a blind write has left behind, or they would come back.
//!
//! Where deaths are unknown, of several records of a key the one in the segment with the highest number is taken for the
//! newest. Keys are told apart by their hashes of 64 bits then.

use std::collections::{HashMap, HashSet};

use crate::Namespace;
use crate::address::SlotKind;
use crate::deaths::FileDeaths;
use crate::key_file::RecoveryRecord;
use crate::large::{OwnedPages, page_key};
use crate::manifest::{Buried, NamespaceKeys, Unresolved};
use crate::record::RecordRef;
use crate::shared::page_hash;

/// Where a record is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place {
    pub(super) file_id: u64,
    pub(super) offset: u32,
}

/// What the counts must know of a key's record.
#[derive(Clone, Copy)]
struct Counted {
    place: Place,
    hash: u64,
    namespace: Namespace,
    expires: bool,
}

/// A value or a collection with pages.
struct Large {
    root: Counted,
    pages: OwnedPages,
}

/// Pages of an object that are there.
#[derive(Default)]
struct Present {
    /// Their numbers are below this.
    below: u32,
    count: u32,
}

/// Keys, keys that expire, and shadows of a namespace.
#[derive(Default)]
struct Keys {
    keys: i64,
    expiring: i64,
    shadows: u64,
}

pub(super) struct Live {
    seed: u64,
    /// If not all deaths are known: the newest record of each hash.
    newest: Option<HashMap<(u64, SlotKind), Counted>>,
    counts: HashMap<Namespace, Keys>,
    large: HashMap<Place, Large>,
    /// Hashes of the pages that are there, and which each object has.
    pages: HashSet<u64>,
    pages_of: HashMap<u64, Present>,
    shadows: Vec<Counted>,
    /// Hashes that a shadow has and a newer record as well.
    fronts: HashSet<u64>,
    lost_keys: HashSet<u64>,
    lost_pages: HashSet<u64>,
    /// Whether records are lost whose hashes nobody knows.
    some_lost_are_unknown: bool,
    /// Records that are not live although no deaths file says so.
    dead: Vec<Place>,
}

/// What a record that is not live any more was.
pub(super) enum Reason {
    /// A page of its value is lost.
    PageLost,
    /// A newer value of its key is lost.
    NewerLost,
}

impl Live {
    pub(super) fn new(seed: u64, knows_deaths: bool) -> Live {
        Live {
            seed,
            newest: (!knows_deaths).then(HashMap::new),
            counts: HashMap::new(),
            large: HashMap::new(),
            pages: HashSet::new(),
            pages_of: HashMap::new(),
            shadows: Vec::new(),
            fronts: HashSet::new(),
            lost_keys: HashSet::new(),
            lost_pages: HashSet::new(),
            some_lost_are_unknown: false,
            dead: Vec::new(),
        }
    }

    /// A sound record that no deaths file calls dead. Segments come in ascending order of their numbers.
    pub(super) fn add(
        &mut self,
        file_id: u64,
        listed: &RecoveryRecord,
        record: &RecordRef<'_>,
        is_shadowed: bool,
    ) {
        let counted = Counted {
            place: Place {
                file_id,
                offset: listed.offset,
            },
            hash: listed.hash,
            namespace: record.namespace(),
            expires: record.expires_at_ms().is_some(),
        };
        if listed.kind == SlotKind::Page {
            self.supersede(counted, SlotKind::Page);
            self.add_page(listed.hash, record);
            return;
        }
        if let Some(pages) = OwnedPages::of(record) {
            let root = counted;
            self.large.insert(counted.place, Large { root, pages });
        }
        if is_shadowed {
            self.shadows.push(counted);
            return;
        }
        self.supersede(counted, SlotKind::Root);
        self.count(&counted, 1);
    }

    fn add_page(&mut self, hash: u64, page: &RecordRef<'_>) {
        let Ok::<[u8; 12], _>(key) = page.key().try_into() else {
            return;
        };
        let [object @ .., a, b, c, d] = key;
        let present = self.pages_of.entry(u64::from_le_bytes(object)).or_default();
        let number = u32::from_le_bytes([a, b, c, d]);
        present.below = present.below.max(number.saturating_add(1));
        present.count += u32::from(self.pages.insert(hash));
    }

    /// The record takes the place of an older one, if deaths are unknown.
    fn supersede(&mut self, newer: Counted, kind: SlotKind) {
        let Some(newest) = &mut self.newest else {
            return;
        };
        if let Some(older) = newest.insert((newer.hash, kind), newer) {
            self.dead.push(older.place);
            if kind == SlotKind::Root {
                self.large.remove(&older.place);
                self.count(&older, -1);
            }
        }
    }

    fn count(&mut self, counted: &Counted, by: i64) {
        let count = self.counts.entry(counted.namespace).or_default();
        count.keys += by;
        count.expiring += if counted.expires { by } else { 0 };
    }

    /// A listed record that is not dead and cannot be read.
    pub(super) fn lost(&mut self, record: &RecoveryRecord) {
        match record.kind {
            SlotKind::Root => self.lost_keys.insert(record.hash),
            SlotKind::Page => self.lost_pages.insert(record.hash),
        };
    }

    /// There were records that no list names any more.
    pub(super) fn lost_unknown(&mut self) {
        self.some_lost_are_unknown = true;
    }

    pub(super) fn is_lost(&self, hash: u64) -> bool {
        self.lost_keys.contains(&hash)
    }

    /// Hashes of shadows: [`Self::has_front`] is to be told which of them a newer record has as well.
    pub(super) fn shadow_hashes(&self) -> HashSet<u64> {
        self.shadows.iter().map(|shadow| shadow.hash).collect()
    }

    pub(super) fn has_front(&mut self, hash: u64) {
        self.fronts.insert(hash);
    }

    /// To be called when all records have been added: finds what goes with what is lost, and tells `dropped`.
    pub(super) fn settle(&mut self, dropped: &mut dyn FnMut(Place, Reason)) {
        for root in self.without_all_pages() {
            self.drop_large(&root);
            dropped(root.place, Reason::PageLost);
        }
        for shadow in std::mem::take(&mut self.shadows) {
            let has_newer = match &self.newest {
                Some(newest) => newest.contains_key(&(shadow.hash, SlotKind::Root)),
                None => self.fronts.contains(&shadow.hash),
            };
            if has_newer && self.newest.is_some() {
                // Of one hash, so it is the same key here; and if it were kept, nothing but the new deaths file would tell that
                // it is the older one, which a repair after an interruption may not find.
                self.large.remove(&shadow.place);
                self.dead.push(shadow.place);
            } else if has_newer {
                // Its expiry counts as long as nobody has looked into it.
                let count = self.counts.entry(shadow.namespace).or_default();
                count.expiring += i64::from(shadow.expires);
                count.shadows += 1;
            } else if self.is_lost(shadow.hash) {
                self.large.remove(&shadow.place);
                self.dead.push(shadow.place);
                dropped(shadow.place, Reason::NewerLost);
            } else {
                self.count(&shadow, 1);
            }
        }
    }

    /// The roots of values that have lost a page.
    fn without_all_pages(&self) -> Vec<Counted> {
        // Of a collection that had been removed pages may be gone, if it is not known that it was.
        let some_may_be_gone = self.some_lost_are_unknown || self.newest.is_some();
        if self.lost_pages.is_empty() && !some_may_be_gone {
            return Vec::new();
        }
        let is_broken = |large: &&Large| {
            let object = large.pages.object();
            let mut pages = (0..large.pages.below()).map(|page| self.page(object, page));
            let is_lost = |page: u64| self.lost_pages.contains(&page);
            match large.pages {
                OwnedPages::OfValue(_) => pages.any(|page| {
                    is_lost(page) || self.some_lost_are_unknown && !self.pages.contains(&page)
                }),
                // Of its numbers some are free: where nobody knows which records are gone, there are too few.
                OwnedPages::OfCollection(of_root) => {
                    let present = self.pages_of.get(&object);
                    let present = present.map_or(0, |present| present.count);
                    some_may_be_gone && present < of_root.count
                        || !self.lost_pages.is_empty() && pages.any(is_lost)
                }
            }
        };
        let broken = self.large.values().filter(is_broken);
        broken.map(|large| large.root).collect()
    }

    fn drop_large(&mut self, root: &Counted) {
        self.large.remove(&root.place);
        self.dead.push(root.place);
        let shadows = self.shadows.len();
        self.shadows.retain(|shadow| shadow.place != root.place);
        if self.shadows.len() < shadows {
            return;
        }
        self.count(root, -1);
        self.lost_keys.insert(root.hash);
        self.fronts.remove(&root.hash);
        if let Some(newest) = &mut self.newest {
            newest.remove(&(root.hash, SlotKind::Root));
        }
    }

    fn page(&self, object: u64, page: u32) -> u64 {
        page_hash(self.seed, &page_key(object, page))
    }

    /// Records that are dead beside those that the deaths files name, by segment; offsets ascending.
    pub(super) fn dead(&self) -> HashMap<u64, Vec<u32>> {
        let mut dead: HashMap<u64, Vec<u32>> = HashMap::new();
        for place in &self.dead {
            dead.entry(place.file_id).or_default().push(place.offset);
        }
        dead.values_mut()
            .for_each(|offsets| offsets.sort_unstable());
        dead
    }

    pub(super) fn key_counts(&self) -> Vec<NamespaceKeys> {
        let mut counts: Vec<_> = self
            .counts
            .iter()
            .map(|(&namespace, count)| NamespaceKeys {
                namespace,
                keys: count.keys.max(0) as u64,
                expiring: count.expiring.max(0) as u64,
            })
            .collect();
        counts.sort_unstable_by_key(|counts| counts.namespace.0);
        counts
    }

    /// Blind writes whose shadows nobody has looked into.
    pub(super) fn unresolved(&self) -> Vec<Unresolved> {
        let mut unresolved: Vec<_> = self
            .counts
            .iter()
            .map(|(&namespace, count)| Unresolved {
                namespace,
                writes: count.shadows,
            })
            .collect();
        unresolved.retain(|unresolved| unresolved.writes > 0);
        unresolved.sort_unstable_by_key(|unresolved| unresolved.namespace.0);
        unresolved
    }

    /// Objects whose pages have no root: those of `buried`, and those that have lost it.
    pub(super) fn graveyard(&self, buried: &[Buried]) -> Vec<Buried> {
        let rooted: HashSet<u64> = self
            .large
            .values()
            .map(|large| large.pages.object())
            .collect();
        let mut graves: HashMap<u64, u32> = HashMap::new();
        let orphans = self
            .pages_of
            .iter()
            .map(|(&object, present)| (object, present.below));
        let all = buried.iter().map(|grave| (grave.object, grave.pages));
        for (object, pages) in orphans.chain(all) {
            if !rooted.contains(&object) {
                let most = graves.entry(object).or_default();
                *most = (*most).max(pages);
            }
        }
        let mut graves: Vec<_> = graves
            .into_iter()
            .map(|(object, pages)| Buried { object, pages })
            .collect();
        graves.sort_unstable_by_key(|grave| grave.object);
        graves
    }

    /// Above all object ids that there are.
    pub(super) fn next_object_id(&self) -> u64 {
        let rooted = self.large.values().map(|large| large.pages.object());
        let ids = self.pages_of.keys().copied().chain(rooted);
        ids.max().map_or(1, |id| id.saturating_add(1))
    }
}

/// Whether an offset is in a sorted list.
pub(super) fn has(offsets: &[u32], offset: u32) -> bool {
    offsets.binary_search(&offset).is_ok()
}

/// What is known to be dead in a segment, and what to be shadowed.
pub(super) fn marks_of(deaths: &HashMap<u64, FileDeaths>, file_id: u64) -> (&[u32], &[u32]) {
    deaths.get(&file_id).map_or((&[], &[]), |deaths| {
        (&deaths.dead[..], &deaths.shadowed[..])
    })
}
