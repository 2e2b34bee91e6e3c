//! Latches of many keys, taken one after the other.
//!
//! An operation on a few keys takes all its latches at once or none. Under load the chance that all of many are free at the
//! same moment vanishes, and with it the operation's turn. A [`Latching`] tries that a few times too, then keeps what it has
//! got and goes on from there, so that each latch need be free only once.
//!
//! Nothing deadlocks. Latches are taken in ascending order of their stripes; so of all who hold some and wait for others, the
//! one that waits for the highest waits for somebody who waits for none. And who has all that it needs, and keeps it while it
//! waits for the device, waits for no latch.

use std::sync::Arc;

use crate::index::Index;
use crate::latch::{LatchMode, Latches};
use crate::operation::{Held, KeyRef, Operation, Stripes, strongest_once};
use crate::reads::ColdReads;
use crate::store::Store;
use crate::sync::planted;
use crate::watch::Watch;

/// How often all are tried for at once, before what has been got is kept: others had better not wait for one that waits.
pub(crate) const TRIES_FOR_ALL: u32 = 8;

/// Latches on their way to an operation; dropping it lets go of those it has got. See [`Store::latching`].
pub struct Latching {
    latches: Arc<Latches>,
    /// Ascending, each stripe once.
    wanted: Stripes,
    /// How many of them are held: the first ones.
    taken: usize,
    tries: u32,
}

impl Latching {
    pub(crate) fn new(latches: &Arc<Latches>, mut wanted: Stripes) -> Latching {
        if !planted!("latches_in_any_order") {
            strongest_once(&mut wanted);
        }
        Latching {
            latches: Arc::clone(latches),
            wanted,
            taken: 0,
            tries: 0,
        }
    }

    /// Latches what is watched as well, so that it does not change while the operation runs.
    #[must_use]
    pub fn and_watched(mut self, watch: &Watch) -> Latching {
        assert_eq!(self.taken, 0, "latches are added before any is taken");
        let watched = watch.stripes().into_iter();
        self.wanted
            .extend(watched.map(|stripe| (stripe, LatchMode::Shared)));
        strongest_once(&mut self.wanted);
        self
    }

    /// Whether all are held now.
    pub(crate) fn try_rest(&mut self) -> bool {
        while let Some(&(stripe, mode)) = self.wanted.get(self.taken) {
            if !self.latches.try_acquire(stripe, mode) {
                self.tries += 1;
                if self.tries < TRIES_FOR_ALL {
                    self.let_go();
                }
                return false;
            }
            self.taken += 1;
        }
        true
    }

    fn let_go(&mut self) {
        for &(stripe, mode) in &self.wanted[..self.taken] {
            self.latches.release(stripe, mode);
        }
        self.taken = 0;
    }

    /// The latches, all of which are held.
    fn into_held<'s>(mut self, latches: &'s Arc<Latches>) -> Held<'s> {
        assert!(
            Arc::ptr_eq(latches, &self.latches),
            "latches of another store"
        );
        // They are the operation's from here on.
        self.taken = 0;
        Held::of_taken(latches, std::mem::take(&mut self.wanted))
    }
}

impl Drop for Latching {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl<I: Index> Store<I> {
    /// Prepares an operation on many keys, each latched as strongly as any of `keys` asks for. [`Self::start`] takes the
    /// latches. O(n log n) in the number of keys.
    pub fn latching<'k>(&self, keys: impl IntoIterator<Item = KeyRef<'k>>) -> Latching {
        let stripe = |key: KeyRef<'_>| {
            let hash = self.shared.hash(key.namespace, key.key);
            (Latches::stripe(hash), key.mode)
        };
        Latching::new(&self.shared.latches, keys.into_iter().map(stripe).collect())
    }

    /// Prepares an operation that latches every key there is as `mode` says, and `keys` besides, which may be latched more
    /// strongly.
    pub fn latching_everything<'k>(
        &self,
        mode: LatchMode,
        keys: impl IntoIterator<Item = KeyRef<'k>>,
    ) -> Latching {
        let mut latching = self.latching(keys);
        let all = (0..Latches::stripes()).map(|stripe| (stripe, mode));
        latching.wanted.extend(all);
        strongest_once(&mut latching.wanted);
        latching
    }

    /// Starts an operation once all its latches are held. Else gives `latching` back, perhaps with some of them: try again
    /// after letting others run, and soon, since they may wait for what it holds.
    ///
    /// # Errors
    ///
    /// `latching`, when a latch is held by another operation.
    pub fn start<'s>(
        &'s self,
        mut latching: Latching,
        reads: &'s ColdReads,
        now_ms: u64,
    ) -> Result<Operation<'s, I>, Latching> {
        if !latching.try_rest() {
            return Err(latching);
        }
        let held = latching.into_held(&self.shared.latches);
        Ok(Operation::new(&self.shared, held, reads, now_ms))
    }
}
