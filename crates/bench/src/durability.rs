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
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use crate::Verdict;
use crate::figure::{self, Figure, Goal, median};
use crate::server;
use crate::testbed::{self, Data, Testbed};

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
    #[command(flatten)]
    testbed: testbed::Options,

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
    let sync_micros = median(sync_micros);
    println!("fdatasync of {SYNCED_BYTES} bytes: {sync_micros:.0} us");
    let [off, logged, every_second, always] = &rows;
    let figures = [
        Figure {
            name: "processor time a SET, pipeline 16: `everysec` against `appendonly no`",
            goal: Goal::AtMost(COST_TARGET),
            measured: logged.cpu_micros() / off.cpu_micros(),
            unit: "x",
        },
        Figure {
            name: "SETs a second, 64 connections: `always` against `everysec`",
            goal: Goal::AtLeast(ALWAYS_TARGET),
            measured: always.per_second() / every_second.per_second(),
            unit: "x",
        },
    ];
    figure::print_table(&figures);
    options.testbed.write_json(&json!({
        "command": "durability",
        "keys": options.keys,
        "value_bytes": options.value_bytes,
        "seconds": options.seconds,
        "rows": rows.iter().map(to_json).collect::<Vec<_>>(),
        "fdatasync_us": sync_micros,
        "figures": figure::to_json(&figures),
    }))?;
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
    let data = Data {
        keys: options.keys,
        value_bytes: options.value_bytes,
    };
    let testbed = Testbed::new(&options.testbed, setting.arguments(), data)?;
    let server = testbed.start_full()?;
    let numbers = [
        u64::from(server.pid()),
        u64::from(shape.connections),
        u64::from(shape.pipeline),
        options.seconds,
    ]
    .map(|number| number.to_string());
    let [pid, connections, pipeline, seconds] = &numbers;
    let report = testbed.drive(&[
        "--server-pid",
        pid,
        "--connections",
        connections,
        "--pipeline",
        pipeline,
        "--seconds",
        seconds,
    ])?;
    let cpu_micros = report
        .cpu_micros_per_operation()
        .ok_or("the server's processor time was not measured")?;
    Ok(Measured {
        cpu_micros,
        per_second: report.operations_per_second(),
    })
}

/// The time that the directory's device needs to sync a little that has been appended, microseconds.
fn time_syncs(options: &Options) -> Result<f64, String> {
    let scratch = server::scratch(options.testbed.dir.as_deref())?;
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
        Ok(median(micros))
    };
    timed(&scratch.path().join("synced")).map_err(|error| format!("cannot time syncs: {error}"))
}
