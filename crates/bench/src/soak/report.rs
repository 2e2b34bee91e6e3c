//! What a soak has found.

use super::watch::{Memory, Seen};
use super::{CALM_SPACE_MAX, LOADED_SPACE_MAX, MEMORY_MAX};
use crate::chart::{LineChart, Scale};
use crate::latency::Latencies;

const MIB: f64 = (1 << 20) as f64;

/// Seconds at the beginning in which the disk may have more: what the first writing has left is still being cleaned up.
const SETTLING_SECONDS: usize = 60;

/// Everything that was seen.
pub(super) struct Report {
    maxmemory_bytes: u64,
    peak: Memory,
    seconds: Vec<Second>,
    all: Latencies,
    /// Bytes on the disk for each that lives, after the load.
    pub(super) calm: Option<f64>,
}

struct Second {
    seen: Seen,
    latencies: Latencies,
}

impl Report {
    pub(super) fn new(maxmemory_bytes: u64) -> Report {
        Report {
            maxmemory_bytes,
            peak: Memory {
                peak_rss_bytes: 0,
                peak_charged_bytes: None,
            },
            seconds: Vec::new(),
            all: Latencies::new(),
            calm: None,
        }
    }

    pub(super) fn memory(&mut self, memory: Memory) {
        let peak = &mut self.peak;
        peak.peak_rss_bytes = peak.peak_rss_bytes.max(memory.peak_rss_bytes);
        peak.peak_charged_bytes = peak.peak_charged_bytes.max(memory.peak_charged_bytes);
    }

    pub(super) fn second(&mut self, seen: Seen, latencies: Latencies) {
        self.memory(seen.memory);
        self.all.add(&latencies);
        self.seconds.push(Second { seen, latencies });
    }

    /// One line about the last second.
    pub(super) fn print_last(&self) {
        let Some(Second { seen, latencies }) = self.seconds.last() else {
            return;
        };
        println!(
            "{:5} s  {:6} commands/s  peak memory {:.1} MiB  disk {:.0} MiB, {:.2} for each byte that lives  p99.9 {:.2} ms  max {:.2} ms",
            self.seconds.len(),
            seen.commands,
            self.peak.peak_rss_bytes as f64 / MIB,
            seen.disk_bytes as f64 / MIB,
            seen.space_ratio,
            latencies.micros_at(99.9) / 1e3,
            latencies.max_micros() / 1e3,
        );
    }

    /// The most bytes on the disk for each that lives, once the load had settled.
    fn loaded_space(&self) -> f64 {
        let settled = self.seconds.iter().skip(SETTLING_SECONDS);
        settled
            .map(|second| second.seen.space_ratio)
            .fold(0.0, f64::max)
    }

    fn memory_max_bytes(&self) -> f64 {
        self.maxmemory_bytes as f64 * MEMORY_MAX
    }

    /// What is not as it must be.
    pub(super) fn judge(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (peak, max) = (self.peak.peak_rss_bytes as f64, self.memory_max_bytes());
        if peak > max {
            let (peak, max) = (peak / MIB, max / MIB);
            wrong.push(format!("peak memory was {peak:.1} MiB, over {max:.1} MiB"));
        }
        let loaded = self.loaded_space();
        if loaded > LOADED_SPACE_MAX {
            wrong.push(format!(
                "under load the disk had {loaded:.2} bytes for each that lives, over {LOADED_SPACE_MAX}"
            ));
        }
        if let Some(calm) = self.calm.filter(|calm| *calm > CALM_SPACE_MAX) {
            wrong.push(format!(
                "after the load the disk had {calm:.2} bytes for each that lives, over {CALM_SPACE_MAX}"
            ));
        }
        wrong
    }

    pub(super) fn print(&self) {
        let commands: u64 = self.seconds.iter().map(|second| second.seen.commands).sum();
        println!(
            "{} s of load: {commands} commands; peak memory {:.1} MiB of {:.1} MiB{}",
            self.seconds.len(),
            self.peak.peak_rss_bytes as f64 / MIB,
            self.maxmemory_bytes as f64 / MIB,
            self.peak
                .peak_charged_bytes
                .map_or(String::new(), |bytes| format!(
                    ", charged to its control group {:.1} MiB of {:.1} MiB",
                    bytes as f64 / MIB,
                    self.memory_max_bytes() / MIB
                )),
        );
        println!(
            "disk for each byte that lives: at most {:.2} under load{}",
            self.loaded_space(),
            self.calm
                .map_or(String::new(), |calm| format!(", {calm:.2} after it"))
        );
        println!("probes, from when they were due: {}", self.all.describe());
    }

    /// Each second's latencies.
    pub(super) fn to_svg(&self) -> String {
        let line = |name: &str, micros: &dyn Fn(&Latencies) -> f64| {
            let points = self.seconds.iter().enumerate();
            let points = points.map(|(at, second)| (at as f64, micros(&second.latencies) / 1e3));
            (name.to_owned(), points.collect())
        };
        let seconds = self.seconds.len();
        let step = (seconds / 10).max(1);
        let ticks = (0..=seconds).step_by(step);
        let chart = LineChart {
            title: "Latency of a key in memory under a soak".to_owned(),
            subtitle: format!(
                "each second's 99.9th percentile and maximum of {} questions, from when they were due",
                self.all.count()
            ),
            x_label: "seconds".to_owned(),
            x_ticks: ticks.map(|at| (at as f64, at.to_string())).collect(),
            y_label: "milliseconds".to_owned(),
            y_scale: Scale::Logarithmic,
            series: vec![
                line("p99.9", &|latencies| latencies.micros_at(99.9)),
                line("maximum", &Latencies::max_micros),
            ],
        };
        chart.to_svg()
    }
}
