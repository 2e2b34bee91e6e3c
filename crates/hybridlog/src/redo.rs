//! Doing again what the command logs say, on several threads.
//!
//! Every thread reads the logs from their beginning to their end and does what concerns its *part* of the keys: those whose
//! latches are its. So the changes of a key are done in order, by one thread, and nobody hands anything to anybody. An effect
//! on keys of several parts, or on all, is met by all threads at the same place of the log: they wait there for each other,
//! the first of them does it, and all go on. Reading twice costs little beside what is done: changing a key whose bucket has
//! to come from memory takes ten times as long as reading what has become of it.
//!
//! A frame may so be done by several threads, each its own effects. That it is done as a whole is as it was: either all of the
//! logs is done again, or the start fails.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;

use crate::command_log::{self, Blobs, Effect, Effects, Frame, Logs, Refused, Replayed};
use crate::index::Index;
use crate::latch::{LatchMode, Latches};
use crate::operation::{KeyRef, Operation};
use crate::recovery;
use crate::store::Store;
use crate::{Namespace, Stop};

/// How long a thread looks by itself whether the others have come: longer than what most of them are about takes.
const SPINS: u32 = 2000;

/// Where the threads wait for each other.
struct Meeting {
    threads: usize,
    arrived: AtomicUsize,
    /// How often all have met.
    met: AtomicU64,
    /// One has failed and comes no more.
    is_off: AtomicBool,
    sleeping: Mutex<()>,
    woken: Condvar,
}

impl Meeting {
    fn new(threads: usize) -> Meeting {
        Meeting {
            threads,
            arrived: AtomicUsize::new(0),
            met: AtomicU64::new(0),
            is_off: AtomicBool::new(false),
            sleeping: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    /// Waits until all threads are here; what each has done before is then seen by all. `false` if one comes no more.
    fn wait(&self) -> bool {
        let met = self.met.load(Ordering::Relaxed);
        // AcqRel: the last to arrive sees what all have done, and hands it on through `met`.
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            // Release pairs with the Acquire below.
            self.met.store(met + 1, Ordering::Release);
            self.wake();
            return true;
        }
        let goes_on = || self.met.load(Ordering::Acquire) != met;
        let is_over = || goes_on() || self.is_off.load(Ordering::Acquire);
        for _ in 0..SPINS {
            if is_over() {
                return goes_on();
            }
            std::hint::spin_loop();
        }
        let mut sleeping = self.sleeping.lock();
        while !is_over() {
            self.woken.wait(&mut sleeping);
        }
        goes_on()
    }

    fn call_off(&self) {
        self.is_off.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // Whoever has looked and is about to sleep holds the lock until it sleeps.
        drop(self.sleeping.lock());
        self.woken.notify_all();
    }
}

/// Calls the meeting off when a thread ends, however it does: one that ends well has been at every meeting.
struct CallsOff<'m>(&'m Meeting);

impl Drop for CallsOff<'_> {
    fn drop(&mut self) {
        self.0.call_off();
    }
}

/// What one thread does.
struct Part<'s, I: Index> {
    store: &'s Store<I>,
    number: usize,
    meeting: &'s Meeting,
    /// Held by the thread that has a blob in memory: it may be large, and the store has been given all the memory there is.
    blob_in_memory: &'s Mutex<()>,
}

/// Who does an effect.
enum Whose {
    Mine,
    AnotherPart,
    /// All threads have to be there.
    AllMeet,
}

/// Effects of a few frames that are this part's, each with the place of its frame.
type Mine<'b> = SmallVec<[(u64, Effect<'b>); 64]>;

impl<I: Index> Store<I> {
    /// Does again what the logs say.
    ///
    /// # Errors
    ///
    /// As [`command_log::replay`].
    pub(crate) fn redo(&self, logs: Logs) -> io::Result<Replayed> {
        let meeting = &Meeting::new(recovery::threads());
        let blob_in_memory = &Mutex::new(());
        let parts = on_threads(meeting, |_| thread::Builder::new(), &|number| {
            let part = Part {
                store: self,
                number,
                meeting,
                blob_in_memory,
            };
            let mut each = |frames: &[Frame<'_>], blobs: &mut Blobs<'_>| part.redo(frames, blobs);
            command_log::replay_batches(&*self.shared.disk, logs, &mut each)
        })?;
        // All have read the same.
        Ok(parts.into_iter().next().unwrap_or_default())
    }
}

/// Does each part on a thread of its own, and returns what they return.
///
/// # Errors
///
/// That a thread has panicked or could not be started; else what the first part that failed returned.
fn on_threads<T: Send>(
    meeting: &Meeting,
    builder: impl Fn(usize) -> thread::Builder,
    part: &(impl Fn(usize) -> io::Result<T> + Sync),
) -> io::Result<Vec<T>> {
    // Those who waited for one that has failed fail after it.
    let first_error = &Mutex::new(None);
    let failed = |error| {
        first_error.lock().get_or_insert(error);
    };
    let run = |number| {
        let _end = CallsOff(meeting);
        part(number).map_err(failed)
    };
    let run = &run;
    let ended: Vec<_> = thread::scope(|scope| {
        let mut started = Vec::new();
        for number in 0..meeting.threads {
            match builder(number).spawn_scoped(scope, move || run(number)) {
                Ok(thread) => started.push(thread),
                Err(error) => {
                    let what = format!("cannot start a thread: {error}");
                    failed(io::Error::new(error.kind(), what));
                    meeting.call_off();
                    break;
                }
            }
        }
        let joined = started.into_iter().map(thread::ScopedJoinHandle::join);
        joined.collect()
    });
    if ended.iter().any(Result::is_err) {
        return Err(io::Error::other("a thread has panicked"));
    }
    match first_error.lock().take() {
        Some(error) => Err(error),
        None => Ok(ended.into_iter().flatten().flatten().collect()),
    }
}

impl<I: Index> Part<'_, I> {
    fn redo(&self, frames: &[Frame<'_>], blobs: &mut Blobs<'_>) -> Result<(), Refused> {
        if self.number == 0 {
            self.count(frames);
        }
        let mut mine = Mine::new();
        for frame in frames {
            for effect in Effects::new(frame.effects) {
                let effect = effect.map_err(|what| (frame.at, what.to_owned()))?;
                match self.whose(&effect) {
                    Whose::Mine => mine.push((frame.at, effect)),
                    Whose::AnotherPart => forget_blob(&effect, blobs),
                    Whose::AllMeet => {
                        self.apply_all(&mut mine, blobs)?;
                        self.meet(frame.at)?;
                        if self.number == 0 {
                            self.apply(&effect, frame.at, blobs)?;
                        }
                        self.meet(frame.at)?;
                    }
                }
            }
        }
        self.apply_all(&mut mine, blobs)
    }

    fn count(&self, frames: &[Frame<'_>]) {
        let recovery = &self.store.shared.recovery;
        let bytes: usize = frames.iter().map(|frame| frame.effects.len()).sum();
        recovery
            .frames
            .fetch_add(frames.len() as u64, Ordering::Relaxed);
        recovery
            .log_bytes_read
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whose the effect is; starts loading what it needs if it is this part's.
    fn whose(&self, effect: &Effect<'_>) -> Whose {
        let shared = &self.store.shared;
        let mut part = match effect {
            // Only the order among themselves counts.
            Effect::State { .. } => Some(0),
            _ => None,
        };
        for (namespace, key) in effect.keys() {
            let hash = shared.hash(namespace, key);
            let stripe = Latches::stripe(hash);
            let of_key = stripe as usize % self.meeting.threads;
            if *part.get_or_insert(of_key) != of_key {
                return Whose::AllMeet;
            }
            if of_key == self.number {
                shared.index.prefetch(hash);
                shared.latches.prefetch(stripe);
            }
        }
        match part {
            None => Whose::AllMeet,
            Some(part) if part == self.number => Whose::Mine,
            Some(_) => Whose::AnotherPart,
        }
    }

    fn apply_all(&self, mine: &mut Mine<'_>, blobs: &mut Blobs<'_>) -> Result<(), Refused> {
        mine.drain(..)
            .try_for_each(|(at, effect)| self.apply(&effect, at, blobs))
    }

    fn apply(&self, effect: &Effect<'_>, at: u64, blobs: &mut Blobs<'_>) -> Result<(), Refused> {
        let _alone = effect.blob().map(|_| self.blob_in_memory.lock());
        self.store.apply(effect, blobs).map_err(|what| (at, what))
    }

    fn meet(&self, at: u64) -> Result<(), Refused> {
        match self.meeting.wait() {
            true => Ok(()),
            false => Err((at, "another thread has failed".to_owned())),
        }
    }
}

/// A blob that another part reads.
fn forget_blob(effect: &Effect<'_>, blobs: &mut Blobs<'_>) {
    if let Some(blob) = effect.blob() {
        blobs.forget(blob);
    }
}

impl<I: Index> Store<I> {
    /// Does again what an operation has done.
    fn apply(&self, effect: &Effect<'_>, blobs: &mut Blobs<'_>) -> Result<(), String> {
        let done = match *effect {
            Effect::RetireEverything => self.retire_all(),
            Effect::Clear { namespace } => {
                self.shared.sweep(namespace);
                Ok(())
            }
            Effect::State { bytes } => {
                let generation = self.shared.generations.current();
                self.shared.checkpoints.set_state(generation, bytes);
                Ok(())
            }
            _ => {
                let blob = effect.blob().map(|blob| blobs.read(blob));
                let blob = blob.transpose()?.unwrap_or_default();
                let keys: SmallVec<[KeyRef<'_>; 2]> = effect.keys().map(latched).collect();
                // At the beginning of time, when nothing has expired.
                self.blocking(&keys, 0, |op| change_keys(op, effect, &blob))
            }
        };
        done.map_err(|stop| stop.to_string())
    }

    fn retire_all(&self) -> Result<(), Stop> {
        let reads = crate::ColdReads::default();
        let retired = loop {
            // Nobody else runs operations yet, but the tiering thread may be busy.
            let Some(mut operation) = self.operation_on_everything(&reads, 0) else {
                continue;
            };
            match operation.retire_everything() {
                Err(Stop::NoRoom { .. }) => std::thread::yield_now(),
                retired => break retired?,
            }
        };
        let namespaces = self.shared.key_counts.used();
        self.shared.sweep_retired(&retired, &namespaces);
        Ok(())
    }
}

fn latched<'k>((namespace, key): (Namespace, &'k [u8])) -> KeyRef<'k> {
    KeyRef {
        namespace,
        key,
        mode: LatchMode::Exclusive,
    }
}

/// Does an effect on one or two keys again, which are latched; `blob` is what it names, if it names one.
fn change_keys<I: Index>(
    op: &mut Operation<'_, I>,
    effect: &Effect<'_>,
    blob: &[u8],
) -> Result<(), Stop> {
    match *effect {
        Effect::Set {
            namespace,
            key,
            meta,
            value,
        } => op.set(namespace, key, value, meta),
        Effect::SetBlob {
            namespace,
            key,
            meta,
            ..
        } => op.set(namespace, key, blob, meta),
        Effect::WriteRange {
            namespace,
            key,
            offset,
            bytes,
            kind,
        } => op
            .write_range(namespace, key, offset, bytes, kind)
            .map(drop),
        Effect::WriteRangeBlob {
            namespace,
            key,
            offset,
            kind,
            ..
        } => op.write_range(namespace, key, offset, blob, kind).map(drop),
        Effect::SetExpiry {
            namespace,
            key,
            expires_at_ms,
        } => op.set_expiry(namespace, key, expires_at_ms).map(drop),
        Effect::Remove { namespace, key } => op.remove(namespace, key).map(drop),
        Effect::Rename { from, to } => op.rename(from, to).map(drop),
        Effect::Collection {
            namespace,
            key,
            effect,
        } => op.redo_tree(namespace, key, &effect, blob),
        Effect::CopyCollection { from, to } => op.copy_collection(from, to).map(drop),
        Effect::RetireEverything | Effect::Clear { .. } | Effect::State { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damage::Damage;

    /// A part that meets the others, and calls it a damage when one comes no more, as a replay does.
    fn meets(meeting: &Meeting) -> io::Result<()> {
        match meeting.wait() {
            true => Ok(()),
            false => Err(Damage {
                file: "a log".into(),
                offset: 0,
                what: "another thread has failed".to_string(),
            }
            .into()),
        }
    }

    #[test]
    fn a_thread_that_cannot_be_started_ends_it() {
        let meeting = Meeting::new(3);
        // The second one asks for more memory than there is.
        let builder = |number| match number {
            1 => thread::Builder::new().stack_size(1 << 60),
            _ => thread::Builder::new(),
        };
        let failed = on_threads(&meeting, builder, &|_| meets(&meeting)).unwrap_err();
        assert!(failed.to_string().starts_with("cannot start a thread: "));
    }

    #[test]
    fn a_thread_that_panics_is_no_damage_of_a_file() {
        let meeting = Meeting::new(3);
        let failed = on_threads(&meeting, |_| thread::Builder::new(), &|number| {
            assert!(number != 1, "the panic is part of the test");
            meets(&meeting)
        });
        let failed = failed.unwrap_err();
        assert_eq!(failed.to_string(), "a thread has panicked");
        assert!(Damage::of(&failed).is_none());
    }

    #[test]
    fn all_meet_again_and_again_and_see_what_the_others_did() {
        const THREADS: usize = 3;
        let meeting = Meeting::new(THREADS);
        let done = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let _end = CallsOff(&meeting);
                    for round in 1..=2000 {
                        done.fetch_add(1, Ordering::Relaxed);
                        assert!(meeting.wait());
                        assert_eq!(done.load(Ordering::Relaxed), round * THREADS as u64);
                        assert!(meeting.wait());
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_one_who_comes_no_more() {
        let meeting = Meeting::new(2);
        thread::scope(|scope| {
            scope.spawn(|| assert!(!meeting.wait()));
            while meeting.arrived.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            drop(CallsOff(&meeting));
        });
    }
}
