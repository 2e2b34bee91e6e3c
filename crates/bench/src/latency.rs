//! Latencies: recorded in HDR histograms of nanoseconds, reported in microseconds.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The percentiles that every report shows, with their names.
pub(crate) const PERCENTILES: [(&str, f64); 4] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// The longest latency told apart from longer ones.
const MAX_NANOS: u64 = 3_600_000_000_000;

/// Latencies in nanoseconds, to three significant digits.
#[derive(Clone)]
pub(crate) struct Latencies {
    nanos: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let nanos = Histogram::new_with_bounds(1, MAX_NANOS, 3).expect("the bounds are valid");
        Latencies { nanos }
    }

    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        self.nanos.saturating_record(nanos);
    }

    pub(crate) fn add(&mut self, other: &Latencies) {
        self.nanos
            .add(&other.nanos)
            .expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.nanos.len()
    }

    /// The latency that `percentile` percent of the requests stayed within, in microseconds.
    pub(crate) fn micros_at(&self, percentile: f64) -> f64 {
        self.nanos.value_at_percentile(percentile) as f64 / 1e3
    }

    /// The longest latency, in microseconds.
    pub(crate) fn max_micros(&self) -> f64 {
        self.nanos.max() as f64 / 1e3
    }

    /// The percentiles and the maximum in microseconds, for people.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (name, percentile) in PERCENTILES {
            text += &format!("{name} {:.1}  ", self.micros_at(percentile));
        }
        text + &format!("max {:.1} us", self.max_micros())
    }

    /// The count, the percentiles and the maximum, for programs.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = json!({ "count": self.count(), "max_us": self.max_micros() });
        for (name, percentile) in PERCENTILES {
            object[format!("{name}_us")] = self.micros_at(percentile).into();
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut latencies = Latencies::new();
        (1..=1_000).for_each(|micros| latencies.record(micros * 1_000));
        assert!((latencies.micros_at(50.0) - 500.0).abs() < 1.0);
        assert!((latencies.micros_at(99.0) - 990.0).abs() < 1.0);
        assert_eq!(latencies.to_json()["count"], 1_000);
        latencies.record(u64::MAX);
        assert_eq!(
            latencies.count(),
            1_001,
            "a latency beyond the range is counted, not lost"
        );
    }
}
