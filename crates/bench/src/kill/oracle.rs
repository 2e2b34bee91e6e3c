//! What the server must hold: for the keys of one connection, the state before and after every
//! step it has sent.
//!
//! A connection's steps reach the server in order, and the keys are its own. So after a crash the
//! keys must be as some number of its first steps have left them: no step is there without those
//! before it, and a transaction, which is one step, is whole or absent. [`Oracle::surviving`]
//! finds which numbers of steps explain what was found.

use std::fmt;
use std::ops::RangeInclusive;

use xxhash_rust::xxh3::xxh3_128;

use super::unix_us;

/// What clocks may differ by, in microseconds: the server counts in milliseconds.
const CLOCK_US: u64 = 2_000;

/// What expires within this time may be gone before anybody looks again, in microseconds.
const SOON_US: u64 = 60_000_000;

/// When a key expires.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expiry {
    Never,
    /// Some time between these two, Unix microseconds.
    Between(u64, u64),
    /// This long after the server ran the step, in milliseconds.
    After {
        step: usize,
        ttl_ms: u64,
    },
}

/// What a key holds.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) expiry: Expiry,
}

/// What a key held, told apart by a digest. None: there was no such key.
type State = Option<(u128, Expiry)>;

fn state_of(content: Option<&Content>) -> State {
    content.map(|content| (xxh3_128(&content.bytes), content.expiry))
}

/// What the server said about a key.
pub(crate) struct Found {
    /// None: there is no such key.
    pub(crate) bytes: Option<Vec<u8>>,
    /// What PTTL said.
    pub(crate) pttl: i64,
    /// When the question was sent and when the answer had come, Unix microseconds.
    pub(crate) asked_us: (u64, u64),
}

/// A command, or a transaction.
struct Step {
    sent_us: u64,
    acknowledged_us: Option<u64>,
    /// Its changes end here in [`Oracle::changes`]; they begin where those of the step before end.
    changes_end: usize,
}

/// What one connection knows about its keys.
pub(crate) struct Oracle {
    names: Vec<Vec<u8>>,
    /// The keys as the steps will leave them.
    contents: Vec<Option<Content>>,
    /// The keys before the first of `steps`.
    before: Vec<State>,
    steps: Vec<Step>,
    /// Every change of a key, with the state it leaves.
    changes: Vec<(usize, State)>,
}

impl Oracle {
    /// An oracle that knows that none of these keys exists.
    pub(crate) fn new(names: Vec<Vec<u8>>) -> Self {
        let contents = vec![None; names.len()];
        let before = vec![None; names.len()];
        Oracle {
            names,
            contents,
            before,
            steps: Vec::new(),
            changes: Vec::new(),
        }
    }

    pub(crate) fn key_count(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn name(&self, key: usize) -> &[u8] {
        &self.names[key]
    }

    pub(crate) fn content(&self, key: usize) -> Option<&Content> {
        self.contents[key].as_ref()
    }

    /// The keys that exist, as far as time has not removed them.
    pub(crate) fn existing(&self) -> impl Iterator<Item = usize> {
        (0..self.contents.len()).filter(|&key| self.contents[key].is_some())
    }

    /// How many of them may expire any moment.
    pub(crate) fn expiring_soon(&self) -> usize {
        let soon_us = unix_us() + SOON_US;
        let expires_soon = |content: &&Content| matches!(content.expiry, Expiry::Between(at_us, _) if at_us < soon_us);
        self.contents.iter().flatten().filter(expires_soon).count()
    }

    /// Begins a step; returns its number.
    pub(crate) fn begin_step(&mut self) -> usize {
        self.steps.push(Step {
            sent_us: unix_us(),
            acknowledged_us: None,
            changes_end: self.changes.len(),
        });
        self.steps.len() - 1
    }

    /// The step last begun changes a key.
    pub(crate) fn change(&mut self, key: usize, content: Option<Content>) {
        self.changes.push((key, state_of(content.as_ref())));
        self.contents[key] = content;
        if let Some(step) = self.steps.last_mut() {
            step.changes_end = self.changes.len();
        }
    }

    /// The server has acknowledged a step.
    pub(crate) fn acknowledge(&mut self, step: usize) {
        self.steps[step].acknowledged_us = Some(unix_us());
    }

    /// Whether what a read found is what the steps so far leave.
    pub(crate) fn is_current(&self, key: usize, found: &Found) -> bool {
        self.is_state(&state_of(self.content(key)), found)
    }

    fn is_state(&self, state: &State, found: &Found) -> bool {
        let (asked_from_us, asked_to_us) = found.asked_us;
        let Some((digest, expiry)) = state else {
            return found.bytes.is_none();
        };
        let (from_us, to_us) = match *expiry {
            Expiry::Never => (u64::MAX, u64::MAX),
            Expiry::Between(from_us, to_us) => (from_us, to_us),
            Expiry::After { step, ttl_ms } => {
                let step = &self.steps[step];
                let done_us = step.acknowledged_us.unwrap_or(asked_from_us);
                (step.sent_us + ttl_ms * 1000, done_us + ttl_ms * 1000)
            }
        };
        let may_be_expired = asked_to_us.saturating_add(CLOCK_US) >= from_us;
        let Some(bytes) = &found.bytes else {
            return may_be_expired;
        };
        let expires_as_it_should = match u64::try_from(found.pttl) {
            Ok(pttl_ms) => {
                let (left_us, right_us) =
                    (asked_from_us + pttl_ms * 1000, asked_to_us + pttl_ms * 1000);
                left_us <= to_us.saturating_add(CLOCK_US) && right_us + CLOCK_US >= from_us
            }
            Err(_) if found.pttl == -1 => matches!(expiry, Expiry::Never),
            // It expired between two questions.
            Err(_) => may_be_expired,
        };
        expires_as_it_should && xxh3_128(bytes) == *digest
    }

    /// Which numbers of steps, counted from the first, leave the keys as they were found: the
    /// smallest and the largest. The error says what nothing explains.
    pub(crate) fn surviving(
        &self,
        found: &[Found],
        killed_us: u64,
    ) -> Result<RangeInclusive<usize>, String> {
        let mut fits: Vec<bool> = (self.before.iter().zip(found))
            .map(|(state, found)| self.is_state(state, found))
            .collect();
        let mut fits_last: Vec<Option<usize>> = fits.iter().map(|fit| fit.then_some(0)).collect();
        let mut misfits = fits.iter().filter(|fit| !**fit).count();
        let (mut explained, mut nearest) = (None, (misfits, 0));
        let mut changes_start = 0;
        for count in 0..=self.steps.len() {
            if count > 0 {
                let changes_end = self.steps[count - 1].changes_end;
                for (key, state) in &self.changes[changes_start..changes_end] {
                    let fit = self.is_state(state, &found[*key]);
                    misfits = misfits + usize::from(!fit) - usize::from(!fits[*key]);
                    fits[*key] = fit;
                    if fit {
                        fits_last[*key] = Some(count);
                    }
                }
                changes_start = changes_end;
            }
            if misfits == 0 {
                let (smallest, _) = *explained.get_or_insert((count, count));
                explained = Some((smallest, count));
            }
            nearest = nearest.min((misfits, count));
        }
        explained
            .map(|(smallest, largest)| smallest..=largest)
            .ok_or_else(|| self.explain(found, &fits_last, nearest.1, killed_us))
    }

    /// Says which keys do not fit the number of steps that fits best.
    fn explain(
        &self,
        found: &[Found],
        fits_last: &[Option<usize>],
        count: usize,
        killed_us: u64,
    ) -> String {
        let mut states = self.before.clone();
        let changes_end = count
            .checked_sub(1)
            .map_or(0, |last| self.steps[last].changes_end);
        for (key, state) in &self.changes[..changes_end] {
            states[*key] = *state;
        }
        let mut text = format!(
            "no number of steps explains what is there; nearest is {count} of {}, {}:",
            self.steps.len(),
            self.when(count, killed_us)
        );
        let misfits = (0..found.len()).filter(|&key| !self.is_state(&states[key], &found[key]));
        for key in misfits.take(8) {
            let name = self.names[key].escape_ascii();
            let bytes = found[key].bytes.as_ref().map(Vec::len);
            let what = bytes.map_or("nothing".into(), |bytes| format!("{bytes} bytes"));
            let pttl = found[key].pttl;
            let known = match fits_last[key] {
                Some(0) => "what was there at the start".into(),
                Some(step) => format!(
                    "its state after step {step}, {}",
                    self.when(step, killed_us)
                ),
                None => "a state it never had".into(),
            };
            text.push_str(&format!("\n  {name} holds {what} (PTTL {pttl}): {known}"));
        }
        text + &self.describe(count)
    }

    /// What step `at` changes, for people.
    fn describe(&self, at: usize) -> String {
        let Some(step) = self.steps.get(at) else {
            return String::new();
        };
        let begin = at.checked_sub(1).map_or(0, |at| self.steps[at].changes_end);
        let changes = self.changes[begin..step.changes_end].iter();
        let changes: Vec<String> = changes
            .map(|(key, state)| {
                let name = self.names[*key].escape_ascii();
                let leaves = if state.is_some() {
                    "a value"
                } else {
                    "nothing"
                };
                format!("{leaves} under {name}")
            })
            .collect();
        format!("\nthe next step leaves {}", changes.join(", "))
    }

    /// When a step was acknowledged, for people; `count` counts from 1.
    fn when(&self, count: usize, killed_us: u64) -> impl fmt::Display {
        let step = count.checked_sub(1).map(|at| &self.steps[at]);
        match step.map(|step| step.acknowledged_us) {
            None => "the start".into(),
            Some(None) => "not acknowledged".into(),
            Some(Some(at_us)) => format!(
                "acknowledged {} ms before the kill",
                killed_us.saturating_sub(at_us) / 1000
            ),
        }
    }

    pub(crate) fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// How many steps were acknowledged; they are the first ones.
    pub(crate) fn acknowledged_count(&self) -> usize {
        self.steps
            .partition_point(|step| step.acknowledged_us.is_some())
    }

    /// When step `at` was sent, Unix microseconds.
    pub(crate) fn sent_us(&self, at: usize) -> u64 {
        self.steps[at].sent_us
    }

    /// When step `at` was acknowledged, Unix microseconds.
    pub(crate) fn acknowledged_us(&self, at: usize) -> Option<u64> {
        self.steps.get(at).and_then(|step| step.acknowledged_us)
    }

    /// Goes on from what was found.
    pub(crate) fn adopt(&mut self, found: Vec<Found>) {
        let contents = found.into_iter().map(|found| {
            let (from_us, to_us) = found.asked_us;
            let expiry = match u64::try_from(found.pttl) {
                Ok(pttl_ms) => Expiry::Between(from_us + pttl_ms * 1000, to_us + pttl_ms * 1000),
                Err(_) if found.pttl == -1 => Expiry::Never,
                Err(_) => return None,
            };
            found.bytes.map(|bytes| Content { bytes, expiry })
        });
        self.contents = contents.collect();
        self.before = (self.contents.iter())
            .map(|content| state_of(content.as_ref()))
            .collect();
        self.steps.clear();
        self.changes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: Option<&[u8]>) -> Found {
        Found {
            bytes: bytes.map(<[u8]>::to_vec),
            pttl: if bytes.is_some() { -1 } else { -2 },
            asked_us: (unix_us(), unix_us()),
        }
    }

    fn plain(bytes: &[u8]) -> Option<Content> {
        Some(Content {
            bytes: bytes.to_vec(),
            expiry: Expiry::Never,
        })
    }

    /// Two keys; steps: a=1, b=1, then a=2 and b=2 at once, then a is gone.
    fn oracle() -> Oracle {
        let mut oracle = Oracle::new(vec![b"a".to_vec(), b"b".to_vec()]);
        oracle.begin_step();
        oracle.change(0, plain(b"a1"));
        oracle.begin_step();
        oracle.change(1, plain(b"b1"));
        oracle.begin_step();
        oracle.change(0, plain(b"a2"));
        oracle.change(1, plain(b"b2"));
        oracle.begin_step();
        oracle.change(0, None);
        oracle
    }

    fn surviving(a: Option<&[u8]>, b: Option<&[u8]>) -> Option<RangeInclusive<usize>> {
        oracle().surviving(&[found(a), found(b)], unix_us()).ok()
    }

    #[test]
    fn what_is_found_names_the_steps_that_survived() {
        assert_eq!(surviving(None, None), Some(0..=0));
        assert_eq!(surviving(Some(b"a1"), None), Some(1..=1));
        assert_eq!(surviving(Some(b"a1"), Some(b"b1")), Some(2..=2));
        assert_eq!(surviving(Some(b"a2"), Some(b"b2")), Some(3..=3));
        assert_eq!(surviving(None, Some(b"b2")), Some(4..=4));
    }

    #[test]
    fn a_hole_half_a_transaction_and_a_strange_value_are_no_survival() {
        assert_eq!(surviving(None, Some(b"b1")), None, "b came after a");
        assert_eq!(surviving(Some(b"a2"), Some(b"b1")), None, "half of step 3");
        assert_eq!(surviving(Some(b"a1"), Some(b"b2")), None, "half of step 3");
        assert_eq!(surviving(Some(b"a3"), Some(b"b2")), None, "never written");
    }

    #[test]
    fn a_step_that_changes_nothing_visible_may_have_survived_or_not() {
        let mut oracle = oracle();
        oracle.begin_step();
        oracle.change(0, None);
        let found = [found(None), found(Some(b"b2"))];
        assert_eq!(oracle.surviving(&found, unix_us()), Ok(4..=5));
    }

    #[test]
    fn expiry_is_part_of_the_state() {
        let mut oracle = Oracle::new(vec![b"a".to_vec()]);
        let step = oracle.begin_step();
        let expiry = Expiry::After {
            step,
            ttl_ms: 60_000,
        };
        let bytes = b"a1".to_vec();
        oracle.change(0, Some(Content { bytes, expiry }));
        oracle.acknowledge(step);
        let with_pttl = |pttl| Found {
            pttl,
            ..found(Some(b"a1"))
        };
        assert!(oracle.is_current(0, &with_pttl(60_000)));
        assert!(!oracle.is_current(0, &with_pttl(-1)), "it never expires");
        assert!(!oracle.is_current(0, &with_pttl(59_000)), "too soon");
        assert!(!oracle.is_current(0, &with_pttl(61_000)), "too late");
        assert!(!oracle.is_current(0, &found(None)), "gone before its time");
    }
}
