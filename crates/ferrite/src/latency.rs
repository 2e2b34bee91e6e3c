//! The latency monitor: for each kind of event, the latest times that were over the threshold.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use parking_lot::Mutex;

/// Samples kept of each event.
const SAMPLES_MAX: usize = 160;

/// One time over the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) unix_seconds: u64,
    pub(crate) latency_ms: u64,
}

/// What is kept of one event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    /// The oldest first; at most one for each second, the largest in it.
    pub(crate) samples: VecDeque<Sample>,
    /// The largest ever, in milliseconds.
    pub(crate) max_ms: u64,
}

/// All events over the threshold.
#[derive(Default)]
pub(crate) struct LatencyMonitor {
    events: Mutex<BTreeMap<&'static str, Event>>,
}

impl LatencyMonitor {
    /// Adds a sample of `event`. The caller has compared it with the threshold.
    #[cold]
    pub(crate) fn add(&self, event: &'static str, sample: Sample) {
        let mut events = self.events.lock();
        let event = events.entry(event).or_default();
        event.max_ms = event.max_ms.max(sample.latency_ms);
        match event.samples.back_mut() {
            Some(last) if last.unix_seconds == sample.unix_seconds => {
                last.latency_ms = last.latency_ms.max(sample.latency_ms);
            }
            _ => {
                if event.samples.len() == SAMPLES_MAX {
                    event.samples.pop_front();
                }
                event.samples.push_back(sample);
            }
        }
    }

    /// The event called `name`, if it ever was over the threshold.
    pub(crate) fn event(&self, name: &[u8]) -> Option<Event> {
        self.events
            .lock()
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map(|(_, event)| event.clone())
    }

    /// All events, by name.
    pub(crate) fn events(&self) -> BTreeMap<&'static str, Event> {
        self.events.lock().clone()
    }

    /// Forgets the events that `forget` chooses; returns how many.
    pub(crate) fn reset(&self, forget: impl Fn(&str) -> bool) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|name, _| !forget(name));
        before - events.len()
    }
}
