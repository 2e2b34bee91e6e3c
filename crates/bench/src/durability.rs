//! `bench durability`: what it costs a server that its changes survive.
//!
//! Starts the server with `appendonly no`, and with `appendfsync everysec` and `always`, each time
//! anew on an empty directory and otherwise with the same settings, and drives it over loopback TCP
//! with the same load: SETs of random keys that exist. Rounds of the settings take turns, and
//! medians are compared: what else the machine does falls on all alike.
//!
//! * Pipelines: processor time of the server's process a SET, all its threads, user and system.
//!   What it costs to keep the log is that of `everysec` against that of `appendonly no`.
//! * Single SETs on many connections: how many a second. Those of `always` wait for the device, as
//!   many together as have come meanwhile, so the time that one sync takes is measured beside them.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use tempfile::TempDir;

use crate::Verdict;
use crate::load;
use crate::server::Launch;

/// The most processor time a SET may take with `everysec`, against `appendonly no`.
const COST_TARGET: f64 = 1.15;

/// The least throughput that `always` is to have, against `everysec`.
const ALWAYS_TARGET: f64 = 0.5;

/// Syncs that are timed.
const SYNCS: usize = 101;

/// What is written before each of them.
const SYNCED_BYTES: usize = 8192;

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    /// The server's command line, as for a shell; --appendonly, --appendfsync, --port and --dir are
    /// added to it
    #[arg(long, value_name = "COMMAND")]
    server: String,

    /// How often each setting is measured
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,

    /// How long one measurement takes
    #[arg(long, value_name = "S", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Number of keys, all written before the measurement
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,

    /// Length of a value in bytes
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    value_bytes: u64,

    /// The directory under which the servers' directories are made
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How the server keeps its log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    Off,
    EverySecond,
    Always,
}

impl Setting {
    fn name(self) -> &'static str {
        match self {
            Setting::Off => "appendonly no",
            Setting::EverySecond => "everysec",
            Setting::Always => "always",
        }
    }

    fn arguments(self) -> &'static str {
        match self {
            Setting::Off => "--appendonly no",
            Setting::EverySecond => "--appendonly yes --appendfsync everysec",
            Setting::Always => "--appendonly yes --appendfsync always",
        }
    }
}

/// Connections, and SETs that each has under way at once.
#[derive(Clone, Copy)]
struct Shape {
    connections: u32,
    pipeline: u32,
}

const PIPELINES: Shape = Shape {
    connections: 16,
    pipeline: 16,
};
const SINGLES: Shape = Shape {
    connections: 64,
    pipeline: 1,
};

/// What one measurement has found.
struct Measured {
    cpu_micros: f64,
    per_second: f64,
}

/// All rounds of one setting under one load.
struct Row {
    setting: Setting,
    shape: Shape,
    rounds: Vec<Measured>,
}

impl Row {
    fn new(setting: Setting, shape: Shape) -> Row {
        Row {
            setting,
            shape,
            rounds: Vec::new(),
        }
    }

    fn cpu_micros(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.cpu_micros))
    }

    fn per_second(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.per_second))
    }

    fn print(&self) {
        let Shape {
            connections,
            pipeline,
        } = self.shape;
        println!(
            "{:<14} {connections:>3} connections, pipeline {pipeline:>2}: {:>6.2} us of processor time a SET, {:>9.0}/s",
            self.setting.name(),
            self.cpu_micros(),
            self.per_second()
        );
    }
}

/// Measures all rows, prints them, and says which targets are reached.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    let mut rows = [
        Row::new(Setting::Off, PIPELINES),
        Row::new(Setting::EverySecond, PIPELINES),
        Row::new(Setting::EverySecond, SINGLES),
        Row::new(Setting::Always, SINGLES),
    ];
    let mut sync_micros = Vec::new();
    for round in 1..=options.rounds {
        sync_micros.push(time_syncs(options)?);
        for row in &mut rows {
            let measured = measure(options, row.setting, row.shape)?;
            eprintln!(
                "round {round}: {:<14} pipeline {:>2}: {:.2} us, {:.0}/s",
                row.setting.name(),
                row.shape.pipeline,
                measured.cpu_micros,
                measured.per_second
            );
            row.rounds.push(measured);
        }
    }
    rows.iter().for_each(Row::print);
    let sync_micros = median(sync_micros.into_iter());
    println!("fdatasync of {SYNCED_BYTES} bytes: {sync_micros:.0} us");
    let [off, logged, every_second, always] = &rows;
    let cost = logged.cpu_micros() / off.cpu_micros();
    let share = always.per_second() / every_second.per_second();
    let verdict = |reached| if reached { "reached" } else { "missed" };
    println!(
        "everysec against appendonly no: {cost:.3}x the processor time (target: at most {COST_TARGET}): {}",
        verdict(cost <= COST_TARGET)
    );
    println!(
        "always against everysec: {share:.2}x as many a second (target: at least {ALWAYS_TARGET}): {}",
        verdict(share >= ALWAYS_TARGET)
    );
    if let Some(path) = &options.json {
        let document = json!({
            "command": "durability",
            "keys": options.keys,
            "value_bytes": options.value_bytes,
            "seconds": options.seconds,
            "rows": rows.iter().map(to_json).collect::<Vec<_>>(),
            "fdatasync_us": sync_micros,
            "everysec_cpu_ratio": cost,
            "always_throughput_ratio": share,
        });
        crate::write_file(path, &format!("{document:#}\n"))?;
    }
    Ok(Verdict::AllRight)
}

fn to_json(row: &Row) -> serde_json::Value {
    let rounds = row.rounds.iter();
    let (cpu_micros, per_second): (Vec<_>, Vec<_>) = rounds
        .map(|round| (round.cpu_micros, round.per_second))
        .unzip();
    json!({
        "setting": row.setting.name(),
        "connections": row.shape.connections,
        "pipeline": row.shape.pipeline,
        "server_cpu_us_per_set": cpu_micros,
        "sets_per_second": per_second,
    })
}

/// One round of one row: a server of its own, which has all the keys before it counts.
fn measure(options: &Options, setting: Setting, shape: Shape) -> Result<Measured, String> {
    let scratch = scratch(options)?;
    let port = free_port()?;
    let command_line = format!("{} {}", options.server, setting.arguments());
    let launch = Launch::new(&command_line, scratch.path()).map_err(|error| error.to_string())?;
    let launch = launch.on_port(port);
    let (server, _) = launch.start()?;
    let numbers = [
        u64::from(port),
        u64::from(server.pid()),
        options.keys,
        options.value_bytes,
        u64::from(shape.connections),
        u64::from(shape.pipeline),
        options.seconds,
    ]
    .map(|number| number.to_string());
    let [port, pid, keys, value_bytes, connections, pipeline, seconds] = &numbers;
    let common = [
        "--port",
        port,
        "--server-pid",
        pid,
        "--keys",
        keys,
        "--value-bytes",
        value_bytes,
        "--distribution",
        "uniform",
        "--set",
        "1",
    ];
    drive(&[&common[..], &["--preload", "--pipeline", "64"]].concat())?;
    let mix = ["--connections", connections, "--pipeline", pipeline];
    let report = drive(&[&common[..], &mix, &["--seconds", seconds]].concat())
        .map_err(|error| format!("{error}\n{}", launch.log_end()))?;
    let cpu_micros = report
        .cpu_micros_per_operation()
        .ok_or("the server's processor time was not measured")?;
    Ok(Measured {
        cpu_micros,
        per_second: report.operations_per_second(),
    })
}

/// Runs one phase of load; an answer that is wrong is an error.
fn drive(arguments: &[&str]) -> Result<load::PhaseReport, String> {
    let options = load::Options::parse(arguments)?;
    let mut reports = load::measure(&options, |_| ())?;
    let report = reports.pop().ok_or("no load was asked for")?;
    match report.tally.is_right() {
        true => Ok(report),
        false => Err(format!(
            "the server's answers were wrong: {}",
            report.tally.first_error.as_deref().unwrap_or("see above")
        )),
    }
}

/// The time that the directory's device needs to sync a little that has been appended, microseconds.
fn time_syncs(options: &Options) -> Result<f64, String> {
    let scratch = scratch(options)?;
    let timed = |path: &Path| -> std::io::Result<f64> {
        let file = File::create_new(path)?;
        let bytes = [0x5a; SYNCED_BYTES];
        let mut micros = Vec::with_capacity(SYNCS);
        for n in 0..SYNCS {
            file.write_all_at(&bytes, (n * SYNCED_BYTES) as u64)?;
            let begun = Instant::now();
            file.sync_data()?;
            micros.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(median(micros.into_iter()))
    };
    timed(&scratch.path().join("synced")).map_err(|error| format!("cannot time syncs: {error}"))
}

fn scratch(options: &Options) -> Result<TempDir, String> {
    let scratch = match &options.dir {
        Some(parent) => TempDir::with_prefix_in("durability-", parent),
        None => TempDir::with_prefix("durability-"),
    };
    scratch.map_err(|error| format!("cannot make a directory: {error}"))
}

/// A port of the loopback interface that nobody listens on.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr());
    let address = listener.map_err(|error| format!("cannot find a free port: {error}"))?;
    Ok(address.port())
}

/// The one in the middle; of an even number the upper of the two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert!(median([].into_iter()).is_nan());
    }
}
