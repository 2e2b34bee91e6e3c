//! Which namespace of the store each database is. SWAPDB swaps two, FLUSHDB takes a fresh one.
//!
//! A change is made in three steps, with every key latched: work out the new [`Assignment`], let the engine keep it with
//! the data ([`hybridlog::Operation::set_state`]), so that a restart finds both or neither, and put it in force. Until
//! there has been one, database `n` is namespace `n`, and nothing is kept.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

use hybridlog::Namespace;
use parking_lot::Mutex;

/// The first byte of what is kept.
const FORMAT_VERSION: u8 = 1;

/// The databases.
pub(crate) struct Databases {
    namespaces: Box<[AtomicU16]>,
    /// Namespaces that no database uses and no sweep is busy with. The last is taken first.
    free: Mutex<Vec<Namespace>>,
    /// How often a database has changed its namespace.
    version: AtomicU64,
}

/// The namespace of each database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Assignment(Vec<u16>);

impl Databases {
    /// `count` empty databases.
    pub(crate) fn new(count: usize) -> Self {
        let count = count.min(usize::from(u16::MAX) / 2);
        Databases {
            namespaces: (0..count as u16).map(AtomicU16::new).collect(),
            free: Mutex::new((count as u16..u16::MAX).rev().map(Namespace).collect()),
            version: AtomicU64::new(0),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.namespaces.len()
    }

    /// The namespace of a database that exists.
    #[inline]
    pub(crate) fn namespace(&self, database: usize) -> Namespace {
        // Relaxed: a command looks again under its latches, which SWAPDB and FLUSHDB take all of.
        Namespace(self.namespaces[database].load(Relaxed))
    }

    /// Changes whenever a database changes its namespace. Relaxed, like [`Self::namespace`].
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    fn current(&self) -> Assignment {
        let namespaces = self.namespaces.iter();
        Assignment(
            namespaces
                .map(|namespace| namespace.load(Relaxed))
                .collect(),
        )
    }

    /// What SWAPDB leads to.
    pub(crate) fn swapped(&self, a: usize, b: usize) -> Assignment {
        let mut assignment = self.current();
        assignment.0.swap(a, b);
        assignment
    }

    /// These databases with fresh namespaces, which empties them; `None` while too many old ones are still being
    /// cleared.
    pub(crate) fn renewed(&self, databases: impl IntoIterator<Item = usize>) -> Option<Assignment> {
        let mut assignment = self.current();
        let free = self.free.lock();
        let mut fresh = free.iter().rev();
        for database in databases {
            assignment.0[database] = fresh.next()?.0;
        }
        Some(assignment)
    }

    /// From which namespace to which a database goes with an assignment, of each that goes.
    pub(crate) fn moves(&self, assignment: &Assignment) -> Vec<(Namespace, Namespace)> {
        let before = self.current().0.into_iter().map(Namespace);
        let moves = before.zip(assignment.0.iter().copied().map(Namespace));
        moves.filter(|(from, to)| from != to).collect()
    }

    /// Puts an assignment in force that has been worked out since the caller holds all latches. Returns the namespaces
    /// that no database is any more, to be cleared in the store and then given back with [`Self::release`].
    pub(crate) fn assign(&self, assignment: &Assignment) -> Vec<Namespace> {
        let before = self.current();
        self.version.fetch_add(1, Relaxed);
        for (namespace, &assigned) in self.namespaces.iter().zip(&assignment.0) {
            namespace.store(assigned, Relaxed);
        }
        let is_fresh = |namespace: &Namespace| assignment.0.contains(&namespace.0);
        self.free.lock().retain(|namespace| !is_fresh(namespace));
        let mut dropped = before.0;
        dropped.retain(|namespace| !assignment.0.contains(namespace));
        dropped.into_iter().map(Namespace).collect()
    }

    /// Makes a namespace that has been cleared available again.
    pub(crate) fn release(&self, cleared: Namespace) {
        self.free.lock().insert(0, cleared);
    }

    /// Puts the assignment in force that the engine has kept; `keys` says how many keys a namespace has. Returns the
    /// namespaces that have keys and belong to no database: a crash has come before they were cleared.
    ///
    /// # Errors
    ///
    /// One line: it is none, or there are keys in a database that does not exist any more.
    pub(crate) fn restore(
        &self,
        kept: &[u8],
        keys: impl Fn(Namespace) -> u64,
    ) -> Result<Vec<Namespace>, String> {
        let mut assignment = if kept.is_empty() {
            self.current()
        } else {
            Assignment::decode(kept)?
        };
        let count = self.count();
        for database in count..assignment.0.len() {
            if keys(Namespace(assignment.0[database])) > 0 {
                return Err(format!(
                    "databases {count}: there are keys in database {database}, so it must be {} at least",
                    assignment.0.len()
                ));
            }
        }
        assignment.0.truncate(count);
        let is_used = |assignment: &Assignment, namespace| assignment.0.contains(&namespace);
        let mut unused = (0..u16::MAX).filter(|&namespace| keys(Namespace(namespace)) == 0);
        while assignment.0.len() < count {
            let fresh = unused.find(|&namespace| !is_used(&assignment, namespace));
            assignment.0.push(fresh.ok_or("no namespace is free")?);
        }
        let others = (0..u16::MAX).filter(|&namespace| !is_used(&assignment, namespace));
        let (leftover, free): (Vec<_>, Vec<_>) = others
            .map(Namespace)
            .partition(|&namespace| keys(namespace) > 0);
        *self.free.lock() = free.into_iter().rev().collect();
        for (namespace, &assigned) in self.namespaces.iter().zip(&assignment.0) {
            namespace.store(assigned, Relaxed);
        }
        Ok(leftover)
    }
}

impl Assignment {
    /// What the engine keeps: a version, then the namespaces, little-endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let namespaces = self.0.iter().flat_map(|namespace| namespace.to_le_bytes());
        std::iter::once(FORMAT_VERSION).chain(namespaces).collect()
    }

    fn decode(kept: &[u8]) -> Result<Assignment, String> {
        let [version, namespaces @ ..] = kept else {
            return Err("the assignment of databases is empty".to_owned());
        };
        if *version != FORMAT_VERSION {
            return Err(format!(
                "the assignment of databases has version {version}: this program reads version {FORMAT_VERSION}"
            ));
        }
        let (namespaces, rest) = namespaces.as_chunks::<2>();
        let namespaces: Vec<u16> = namespaces.iter().copied().map(u16::from_le_bytes).collect();
        let mut distinct = namespaces.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if !rest.is_empty() || distinct.len() != namespaces.len() {
            return Err("the assignment of databases is damaged".to_owned());
        }
        Ok(Assignment(namespaces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(databases: &Databases) -> Vec<u16> {
        databases.current().0
    }

    #[test]
    fn what_is_kept_is_restored() {
        let databases = Databases::new(4);
        assert_eq!(databases.assign(&databases.swapped(0, 3)), []);
        let renewed = databases.renewed([0, 1]).unwrap();
        assert_eq!(databases.assign(&renewed), [Namespace(3), Namespace(1)]);
        let kept = databases.current().encode();

        let restored = Databases::new(4);
        assert_eq!(restored.restore(&kept, |_| 0), Ok(vec![]));
        assert_eq!(namespaces(&restored), namespaces(&databases));
        let fresh = restored.renewed(0..4).unwrap();
        assert!(
            fresh
                .0
                .iter()
                .all(|new| !namespaces(&databases).contains(new))
        );
    }

    #[test]
    fn without_anything_kept_they_are_in_order() {
        let databases = Databases::new(3);
        assert_eq!(databases.restore(b"", |_| 0), Ok(vec![]));
        assert_eq!(namespaces(&databases), [0, 1, 2]);
    }

    #[test]
    fn namespaces_with_keys_of_no_database_are_to_be_cleared() {
        let databases = Databases::new(2);
        let kept = Assignment(vec![7, 1]).encode();
        let keys = |namespace: Namespace| u64::from([0, 1, 7].contains(&namespace.0));
        assert_eq!(databases.restore(&kept, keys), Ok(vec![Namespace(0)]));
        let renewed = databases.renewed([0]).unwrap();
        assert!(![0, 1, 7].contains(&renewed.0[0]), "{renewed:?}");
        databases.release(Namespace(0));
    }

    #[test]
    fn the_number_of_databases_can_change_but_no_key_is_left_out() {
        let kept = Assignment(vec![5, 4, 3]).encode();
        let more = Databases::new(5);
        more.restore(&kept, |_| 0).unwrap();
        assert_eq!(namespaces(&more), [5, 4, 3, 0, 1]);
        let fewer = Databases::new(2);
        let in_the_last = |namespace| u64::from(namespace == Namespace(3));
        assert_eq!(
            fewer.restore(&kept, in_the_last).unwrap_err(),
            "databases 2: there are keys in database 2, so it must be 3 at least"
        );
        fewer.restore(&kept, |_| 0).unwrap();
        assert_eq!(namespaces(&fewer), [5, 4]);
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        let databases = Databases::new(2);
        for kept in [&[9, 1, 0][..], &[1, 0], &[1, 1, 0, 1, 0]] {
            assert!(databases.restore(kept, |_| 0).is_err(), "{kept:?}");
        }
    }
}
