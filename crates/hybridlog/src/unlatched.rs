//! Reading a key without its latch.
//!
//! A latch costs two locked instructions, and no later load passes one: the next lookup cannot begin before the record of
//! the last one has come from memory. A read without them overlaps with those around it.
//!
//! **Why it is right.** It is a sequence lock (Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?",
//! MSPC 2012), whose sequence is the version of the key's latch. The reader takes the version (W0), looks the key up and
//! copies the value (R), and looks at the version again (W1). If both are the same and nobody held the latch exclusively,
//! then no writer changed the key between W0 and W1: one that did so would have latched it between the two, or held it
//! since before. So the answer is the one that there was at W0, and at W1 still. In detail:
//!
//! * *What the writers before W0 did is seen.* W0 is an Acquire load, which pairs with the Release of the last writer.
//! * *What a writer after W0 does is not taken for true.* If R reads anything that such a writer stored, then W1 finds the
//!   latch taken or a later version: the writer's fence after latching pairs with the reader's before W1
//!   ([`Latches::is_unchanged`]).
//! * *What R reads is safe to read, true or not.* The pin keeps in place whatever a slot named at any time since it was taken
//!   (`epoch`); slots always name the start of a record, and its header and key never change; the value is copied so that it may
//!   change meanwhile (`record/in_place.rs`).
//! * *Relocations* take no latch and change nothing but the place: the record that R finds is the same.
//!
//! Whatever is not this simple is left to an operation: a key being changed now, a record that is cold, expired, large, or
//! whose slot only looks like the key's.
#![allow(unsafe_code)] // Reads records where they lie, as argued above.

use std::ptr::NonNull;

use crate::address::SlotKind;
use crate::index::Index;
use crate::latch::Latches;
use crate::operation::now_ms;
use crate::record::{RecordRef, flag};
use crate::segment::Place;
use crate::shared::Shared;
use crate::store::LookedUp;
use crate::sync::planted;
use crate::sys::prefetch;
use crate::{Namespace, epoch};

/// Appends the value of a record that is not plain; `false` if an operation has to do it.
#[cold]
fn copy_other(base: NonNull<u8>, namespace: Namespace, key: &[u8], buffer: &mut Vec<u8>) -> bool {
    // SAFETY: as in `copy_newest`.
    let record = unsafe { RecordRef::new(base.as_ptr()) };
    record.is(namespace, key)
        && record.flags() & (flag::CHUNKED | flag::TREE) == 0
        && record.expires_at_ms().is_none_or(|at| at > now_ms())
        && record.copy_value(buffer)
}

impl<I: Index> Shared<I> {
    /// Appends the value of the key to `buffer`; `false` if the key does not exist. `None`, and nothing is appended, if an
    /// operation has to find out.
    #[inline]
    pub(crate) fn read_unlatched(
        &self,
        looked_up: &LookedUp,
        namespace: Namespace,
        key: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Option<bool> {
        let _pin = epoch::pin();
        let stripe = Latches::stripe(looked_up.hash);
        let version = self.latches.version(stripe)?;
        let start = buffer.len();
        let found = self.copy_newest(looked_up, namespace, key, buffer)?;
        if !self.latches.is_unchanged(stripe, version) && !planted!("torn_reads") {
            buffer.truncate(start);
            return None;
        }
        Some(found)
    }

    /// Reads as described, but for the versions: what it returns and appends may be neither old nor new.
    #[inline(always)]
    fn copy_newest(
        &self,
        looked_up: &LookedUp,
        namespace: Namespace,
        key: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Option<bool> {
        let newest = looked_up
            .newest_slot(&self.index)
            .or_else(|| self.index.newest(looked_up.hash, SlotKind::Root));
        let Some(slot) = newest else {
            return Some(false);
        };
        let Place::Memory { base, .. } = self.log.table.place(slot.address()) else {
            return None;
        };
        // The rest of a short record is on its way while the key is compared. The mark is set now and not when the record
        // turns out to be the key's, as it nearly always does: instructions that wait for the record keep those behind them
        // from being begun.
        prefetch(base.as_ptr().wrapping_add(64));
        prefetch(base.as_ptr().wrapping_add(128));
        self.log.table.mark_read(slot.address());
        // SAFETY: a slot's address is the start of a record, whose memory stays while the caller is pinned. Only what never
        // changes is borrowed from it.
        match unsafe { RecordRef::plain(base.as_ptr(), namespace, key) } {
            Some(record) => record.copy_value(buffer).then_some(true),
            None => copy_other(base, namespace, key, buffer).then_some(true),
        }
    }
}
