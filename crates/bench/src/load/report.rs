//! What a run found: for people on stdout, for programs as JSON, and as a chart.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Tally;
use super::options::Options;
use super::requests::{Operation, Work};
use crate::chart::{LineChart, Scale};
use crate::server_process::ProcessUsage;

const MIB: f64 = 1024.0 * 1024.0;

/// What one phase found.
pub(crate) struct PhaseReport {
    pub(crate) work: Work,
    pub(crate) elapsed: Duration,
    pub(crate) tally: Tally,
    /// The server's use of the machine before and after.
    pub(crate) usage: Option<(ProcessUsage, ProcessUsage)>,
    pub(crate) rate: Option<f64>,
}

impl PhaseReport {
    pub(crate) fn operations_per_second(&self) -> f64 {
        self.tally.operations() as f64 / self.elapsed.as_secs_f64()
    }

    fn mib_per_second(&self, bytes: u64) -> f64 {
        bytes as f64 / MIB / self.elapsed.as_secs_f64()
    }

    /// The server's processor time per operation, in microseconds.
    pub(crate) fn cpu_micros_per_operation(&self) -> Option<f64> {
        let (before, after) = self.usage?;
        Some((after.cpu_micros - before.cpu_micros) / self.tally.operations().max(1) as f64)
    }

    /// Prints the phase as a few lines.
    pub(crate) fn print(&self) {
        let tally = &self.tally;
        println!(
            "{:<8} {} operations in {:.2} s: {:.0}/s",
            self.work.name(),
            tally.operations(),
            self.elapsed.as_secs_f64(),
            self.operations_per_second()
        );
        if let Some(rate) = self.rate {
            println!("         {rate:.0}/s were asked for");
        }
        println!(
            "         values: {:.1} MiB/s written, {:.1} MiB/s read",
            self.mib_per_second(tally.value_bytes_written),
            self.mib_per_second(tally.value_bytes_read)
        );
        for (operation, latencies) in tally.by_operation() {
            println!(
                "         {:<6} {:>12}  {}",
                operation.name(),
                latencies.count(),
                latencies.describe()
            );
        }
        if let (Some(micros), Some((_, after))) = (self.cpu_micros_per_operation(), self.usage) {
            println!(
                "         server: {micros:.2} us of processor time an operation, peak {:.1} MiB",
                after.peak_rss_bytes as f64 / MIB
            );
        }
        let found = [
            ("misses", tally.misses),
            ("wrong", tally.wrong),
            ("stale", tally.stale),
            ("missing", tally.missing),
            ("errors", tally.errors),
        ];
        let found: Vec<String> = found
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        println!("         {}", found.join("  "));
        if let Some(error) = &tally.first_error {
            println!("         first error: {error}");
        }
    }

    fn to_json(&self) -> Value {
        let tally = &self.tally;
        let latencies: serde_json::Map<String, Value> = tally
            .by_operation()
            .map(|(operation, latencies)| (operation.name().to_owned(), latencies.to_json()))
            .collect();
        json!({
            "phase": self.work.name(),
            "seconds": self.elapsed.as_secs_f64(),
            "operations": tally.operations(),
            "operations_per_second": self.operations_per_second(),
            "asked_operations_per_second": self.rate,
            "value_mib_written_per_second": self.mib_per_second(tally.value_bytes_written),
            "value_mib_read_per_second": self.mib_per_second(tally.value_bytes_read),
            "latency": latencies,
            "misses": tally.misses,
            "wrong": tally.wrong,
            "stale": tally.stale,
            "missing": tally.missing,
            "errors": tally.errors,
            "first_error": tally.first_error,
            "server_cpu_us_per_operation": self.cpu_micros_per_operation(),
            "server_peak_rss_bytes": self.usage.map(|(_, after)| after.peak_rss_bytes),
        })
    }
}

/// Writes all phases, and the options that made them, to `path`.
pub(crate) fn write_json(
    path: &Path,
    options: &Options,
    reports: &[PhaseReport],
) -> Result<(), String> {
    let shares = reports.iter().find_map(|report| match report.work {
        Work::Mix(mix) => Some(mix.shares()),
        Work::Preload | Work::Verify => None,
    });
    let mix: Option<Value> = shares.map(|shares| {
        let named = Operation::ALL.into_iter().zip(shares);
        named
            .map(|(operation, share)| (operation.name().to_owned(), Value::from(share)))
            .collect()
    });
    let document = json!({
        "command": "load",
        "target": options.target(),
        "options": {
            "mix": mix,
            "distribution": format!("{:?}", options.distribution()).to_lowercase(),
            "theta": options.theta,
            "keys": options.keys,
            "key_bytes": options.key_bytes,
            "value_bytes_min": options.value_bytes.min,
            "value_bytes_max": options.value_bytes.max,
            "pipeline": options.pipeline,
            "connections": options.connections,
            "threads": options.threads()?,
            "verify": options.verify,
            "seed": options.seed,
        },
        "phases": reports.iter().map(PhaseReport::to_json).collect::<Vec<_>>(),
    });
    crate::write_file(path, &format!("{document:#}\n"))
}

/// Writes a chart of the latencies of all phases to `path`.
pub(crate) fn write_chart(
    path: &Path,
    options: &Options,
    reports: &[PhaseReport],
) -> Result<(), String> {
    /// From the median to one in 100,000, evenly spaced by the number of nines.
    const PERCENTILES: [f64; 9] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 99.999];
    let mut chart = LineChart {
        title: format!("Latency of {}", options.target()),
        subtitle: format!(
            "{} connections, pipeline {}, values of {} to {} bytes",
            options.connections, options.pipeline, options.value_bytes.min, options.value_bytes.max
        ),
        x_label: "percent of operations that were as fast".into(),
        x_ticks: PERCENTILES
            .iter()
            .map(|&p| (nines(p), format!("{p}")))
            .collect(),
        y_label: "latency, microseconds".into(),
        y_scale: Scale::Logarithmic,
        series: Vec::new(),
    };
    for report in reports {
        for (operation, latencies) in report.tally.by_operation() {
            let points = PERCENTILES
                .iter()
                .map(|&p| (nines(p), latencies.micros_at(p)))
                .collect();
            chart.series.push((
                format!("{} {}", report.work.name(), operation.name()),
                points,
            ));
        }
    }
    crate::write_file(path, &chart.to_svg())
}

/// 90% is 1, 99% is 2, 99.9% is 3.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}
