//! Forgetting everything at once: the segments that exist are retired as they are, without reading a record.
//!
//! [`Operation::retire_everything`] runs with all latches held, so nobody is between looking a record up and using it. It
//! marks every segment and closes the open one, so that what is written afterwards lies in other segments. The sweep can
//! then go by segment: it takes out all slots that name a retired one, waits for the epoch, and deletes the files.
//! Nothing can escape it: relocation skips retired segments, and nothing else writes old records anew.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command_log::Effect;
use crate::epoch;
use crate::index::Index;
use crate::log::Urgency;
use crate::operation::Operation;
use crate::segment::{Segment, State};
use crate::shared::Shared;
use crate::{Namespace, Stop};

/// Segments that hold nothing any more; to be given to [`Store::sweep`](crate::Store::sweep).
#[must_use = "the segments stay until they are swept"]
pub struct Retired {
    segments: Vec<Arc<Segment>>,
    generation: u64,
}

impl<I: Index> Operation<'_, I> {
    /// Retires everything there is, in all namespaces: O(number of segments). The operation must hold all latches, and the
    /// caller must not use the old namespaces again until the sweep is over.
    ///
    /// # Errors
    ///
    /// [`Stop::NoRoom`] while a segment is on its way to another tier; nothing has changed then.
    pub fn retire_everything(&mut self) -> Result<Retired, Stop> {
        // Whoever moves a segment has looked at its mark already: let it finish. A checkpoint that waits for this operation
        // has paused compaction, and its segment is complete.
        let mut output = self.shared.compaction.try_pause();
        if output.is_none() && !self.is_waited_for() {
            return Err(Stop::NoRoom { bytes: 0 });
        }
        let Some(_alone) = self.shared.tiering.try_lock() else {
            return Err(Stop::NoRoom { bytes: 0 });
        };
        // One that an earlier call has retired, and whose sweep is still to come, is that sweep's to discard.
        self.check_log()?;
        let mut segments = self.shared.log.table.all();
        segments.retain(|segment| !segment.retired.swap(true, Ordering::Relaxed));
        for segment in &segments {
            self.shared.log.detach(segment);
        }
        // What compaction has copied is retired with the rest; it goes on in another segment.
        if let Some(output) = &mut output {
            **output = None;
        }
        drop(self.shared.shadows.forget(|_| true));
        self.urgency.set(Urgency::Emergency);
        self.note(&Effect::RetireEverything);
        let generation = self.generation;
        Ok(Retired {
            segments,
            generation,
        })
    }
}

impl<I: Index> Shared<I> {
    /// Takes what is retired out of the index, and its segments out of memory and off the device.
    pub(crate) fn sweep_retired(&self, retired: &Retired, namespaces: &[Namespace]) {
        let numbers: HashSet<u32> = retired
            .segments
            .iter()
            .map(|segment| segment.number)
            .collect();
        let is_retired = |slot| numbers.contains(&self.log.geometry.segment(slot));
        let mut position = Some(0);
        while let Some(at) = position {
            position = self
                .index
                .retain(at, &mut |slot| !is_retired(slot.address()));
        }
        // A checkpoint that is being made may need them yet.
        let _no_checkpoint = self.checkpoints.manifest.lock();
        // Nobody holds a slot of a retired segment after this, so that their numbers can be used again.
        epoch::barrier();
        // Nor does anybody resolve blind writes under this lock, who would count keys of what is no more.
        let _alone = self.tiering.lock();
        for &namespace in namespaces {
            self.key_counts.reset(namespace);
        }
        // Writes since the retirement may have been over slots that the walk above has taken out by now: those of other keys,
        // so that their own are new.
        for namespace in self.shadows.forget(|slot| is_retired(slot.address())) {
            self.count_stranger(namespace);
        }
        for segment in &retired.segments {
            self.release_memory(segment);
            self.checkpoints
                .is_gone(retired.generation, segment.clone());
        }
    }

    /// Gives a segment's memory back. No slot names it, and no reader is left that found one. Its number and its files stay
    /// until a checkpoint.
    fn release_memory(&self, segment: &Arc<Segment>) {
        let in_memory = self.log.table.state(segment.number) != State::Cold;
        self.log.ages.lock().forget(segment);
        self.log.table.publish(segment, None, State::Cold);
        self.log.free_frame(segment);
        segment.mapping.lock().take();
        segment.forget_marks();
        if in_memory && segment.is_counted.load(Ordering::Relaxed) {
            self.log.left_memory();
        }
        self.open_files.forget(segment.file_id);
    }
}
