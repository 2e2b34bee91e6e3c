//! An operation that waits half-way: for cold records, or for room, after it has changed something.
//!
//! Nobody may see the half of it, so its latches are kept; nobody may wait while pinned, so the pin is not. What it has done
//! so far is in place. It still belongs to the generation it began in, which it holds from now on: a checkpoint saves the
//! whole of it or nothing.

use crate::Stop;
use crate::effects::NotedEffects;
use crate::generation::HeldGeneration;
use crate::index::Index;
use crate::log::Urgency;
use crate::operation::{Held, KeptLatches, Operation};
use crate::reads::ColdReads;
use crate::run::no_room;
use crate::store::Store;

/// A half-done operation: see [`Operation::suspend`].
#[must_use = "dropping it leaves the operation half done"]
pub struct Suspended {
    latches: KeptLatches,
    generation: HeldGeneration,
    now_ms: u64,
    urgency: Urgency,
    effects: NotedEffects,
}

impl<I: Index> Operation<'_, I> {
    /// A step of its own begins, of an operation of several: until it has changed something it may be refused room, and
    /// [`Self::lookups`] are its own.
    pub fn begin_step(&mut self) {
        self.urgency.set(Urgency::Normal);
        self.forget_lookups();
    }

    /// From now on the step may use the reserve that is there for operations half done.
    pub fn insist_on_room(&mut self) {
        self.urgency.set(Urgency::Emergency);
    }

    /// Stops half-way, with the latches kept, so that the caller can wait; [`Store::resume_suspended`] goes on. Meanwhile
    /// whoever wants one of its keys waits too, and so does a checkpoint.
    pub fn suspend(mut self) -> Suspended {
        let held = self.held_generation.take();
        Suspended {
            now_ms: self.now_ms(),
            urgency: self.urgency.get(),
            effects: std::mem::take(&mut self.effects),
            // Before the pin is let go of.
            generation: held.unwrap_or_else(|| self.shared.generations.hold(self.generation)),
            latches: self.keep_latches(),
        }
    }
}

impl<I: Index> Store<I> {
    /// Goes on with an operation of this store that was suspended; what was cold then it finds in `reads`. The time that
    /// decides about expiry is still that of its start.
    pub fn resume_suspended<'s>(
        &'s self,
        suspended: Suspended,
        reads: &'s ColdReads,
    ) -> Operation<'s, I> {
        let held = Held::from_kept(&self.shared.latches, suspended.latches);
        let mut operation = Operation::new(&self.shared, held, reads, suspended.now_ms);
        operation.generation = suspended.generation.generation;
        operation.held_generation = Some(suspended.generation);
        operation.urgency.set(suspended.urgency);
        operation.effects = suspended.effects;
        operation
    }

    /// Runs `body` as a step of a suspended operation, again until it meets no cold record, blocking the thread for reads
    /// and room. Returns the operation, suspended, with what `body` returned.
    pub fn blocking_suspended<T>(
        &self,
        mut suspended: Suspended,
        mut body: impl FnMut(&mut Operation<'_, I>) -> Result<T, Stop>,
    ) -> (Result<T, Stop>, Suspended) {
        let mut reads = ColdReads::default();
        loop {
            let mut operation = self.resume_suspended(suspended, &reads);
            let result = body(&mut operation);
            suspended = operation.suspend();
            match result {
                Err(Stop::Cold) => reads.fetch_blocking(&self.shared.blocking_reader),
                Err(Stop::NoRoom { bytes }) => {
                    if let Err(stop) = no_room(bytes, self.wait_for_records_blocking(bytes)) {
                        return (Err(stop), suspended);
                    }
                }
                result => return (result, suspended),
            }
        }
    }
}
