//! How long keys that expire have left to live on average, in each namespace: estimated from those that active expiry comes by
//! in memory, the latest of them a little more than those before.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::Namespace;

/// The latest sample is so much of the estimate, as in Redis.
const SHARE: u64 = 50;

/// The estimates, in milliseconds.
#[derive(Default)]
pub(crate) struct AverageTtls(Mutex<BTreeMap<Namespace, u64>>);

/// Keys that have been come by.
#[derive(Default)]
pub(crate) struct Sample(BTreeMap<Namespace, Met>);

#[derive(Default)]
struct Met {
    keys: u64,
    ttl_ms: u64,
}

impl Sample {
    pub(crate) fn add(&mut self, namespace: Namespace, ttl_ms: u64) {
        let met = self.0.entry(namespace).or_default();
        met.keys += 1;
        met.ttl_ms = met.ttl_ms.saturating_add(ttl_ms);
    }
}

impl AverageTtls {
    /// Takes a sample into account, and forgets namespaces that have nothing more that `expires`.
    pub(crate) fn note(&self, sample: &Sample, expires: impl Fn(Namespace) -> bool) {
        let mut averages = self.0.lock();
        for (&namespace, met) in &sample.0 {
            let latest = met.ttl_ms / met.keys;
            let average = averages.entry(namespace).or_insert(latest);
            *average = *average - *average / SHARE + latest / SHARE;
        }
        averages.retain(|&namespace, _| expires(namespace));
    }

    pub(crate) fn of(&self, namespace: Namespace) -> u64 {
        self.0.lock().get(&namespace).copied().unwrap_or(0)
    }
}
