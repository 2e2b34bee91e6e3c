//! An operation that waits half-way: for cold records, or for room, after it has changed something.
//!
//! Nobody may see the half of it, so its latches are kept; nobody may wait while pinned, so the pin is not. What it has done
//! so far is in place. It still belongs to the generation it began in, which it holds from now on: a checkpoint saves the
//! whole of it or nothing.
//!
//! Whoever holds a half-done operation may fail to go on with it. Then it ends where it stands: memory, command log and
//! checkpoint agree about it, nobody waits for its latches, and no checkpoint for its generation.

use crate::Stop;
use crate::command_log::Appender;
use crate::effects::NotedEffects;
use crate::generation::HeldGeneration;
use crate::index::Index;
use crate::log::Urgency;
use crate::operation::{Held, KeptLatches, Operation};
use crate::reads::ColdReads;
use crate::run::no_room;
use crate::store::Store;

/// A half-done operation: see [`Operation::suspend`].
///
/// To drop it ends the operation, as dropping one that runs does: what it has done so far stays and is in the command log,
/// and its latches are free.
#[must_use = "dropping it ends the operation"]
pub struct Suspended {
    /// There until the operation goes on.
    half: Option<Half>,
}

/// What a half-done operation holds.
struct Half {
    now_ms: u64,
    urgency: Urgency,
    effects: NotedEffects,
    log: Appender,
    latches: KeptLatches,
    /// Let go of last of all: nothing the operation has done may come after a checkpoint.
    generation: HeldGeneration,
}

impl Drop for Suspended {
    fn drop(&mut self) {
        if let Some(mut half) = self.half.take() {
            // Under the latches still, and before the generation can end.
            let (log, generation) = (&half.log, half.generation.generation);
            half.effects.take(|effects| log.append(generation, effects));
        }
    }
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
        let half = Half {
            now_ms: self.now_ms(),
            urgency: self.urgency.get(),
            effects: std::mem::take(&mut self.effects),
            log: self.shared.command_log.appender(),
            // Before the pin is let go of.
            generation: held.unwrap_or_else(|| self.shared.generations.hold(self.generation)),
            latches: self.keep_latches(),
        };
        Suspended { half: Some(half) }
    }
}

impl<I: Index> Store<I> {
    /// Goes on with an operation of this store that was suspended; what was cold then it finds in `reads`. The time that
    /// decides about expiry is still that of its start.
    pub fn resume_suspended<'s>(
        &'s self,
        mut suspended: Suspended,
        reads: &'s ColdReads,
    ) -> Operation<'s, I> {
        let half = suspended.half.take();
        let half = half.expect("it is there until this call, which has taken it from the caller");
        let held = Held::from_kept(&self.shared.latches, half.latches);
        let mut operation = Operation::new(&self.shared, held, reads, half.now_ms);
        operation.generation = half.generation.generation;
        operation.held_generation = Some(half.generation);
        operation.urgency.set(half.urgency);
        operation.effects = half.effects;
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
