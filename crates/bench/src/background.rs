//! `bench background`: what GETs notice of compaction and checkpoints.
//!
//! The same load throughout: SETs of random keys at a fixed rate, and GETs of random keys at fixed times, measured from when
//! they were due. There is more data than memory, so most GETs read the device. Two windows are compared:
//!
//! * the calm one begins when COMPACT has just given back all that was dead and SAVE has made a checkpoint, so that there is
//!   nothing to compact yet, and none is made in it;
//! * the busy one begins when so much has been overwritten since that compaction has begun by itself, and a checkpoint is made
//!   at its beginning and each [`CHECKPOINT_INTERVAL`].
//!
//! What the windows are said to be is checked in INFO, and a window that was not so is an error. Each round is both windows;
//! the median of the rounds' ratios of the 99.9th percentiles counts.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::Verdict;
use crate::connection::Connection;
use crate::figure::{self, Figure, Goal, median};
use crate::info::Info;
use crate::latency::Latencies;
use crate::pressure::{Pressure, Shape};
use crate::testbed::{self, Data, Testbed};

/// The 99.9th percentile of GETs in a busy window, against that in a calm one.
const GOAL: f64 = 3.0;

const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// Connections that ask, in turns.
const PROBES: u64 = 4;

/// Compaction that has not begun by then does not.
const PATIENCE: Duration = Duration::from_secs(300);

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    testbed: testbed::Options,

    /// Pairs of windows
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,

    /// How long one window is
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// The server's maxmemory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(32..))]
    maxmemory: u64,

    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,

    /// Length of a value in bytes
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(16..=60_000))]
    value_bytes: u64,

    /// SETs a second
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    sets: u32,

    /// GETs a second
    #[arg(long, value_name = "N", default_value_t = 4_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    gets: u32,
}

/// What was seen in one window.
struct Window {
    latencies: Latencies,
    sets: u64,
    /// Read by compaction.
    compacted_bytes: u64,
    checkpoints: u64,
}

/// Measures all rounds and prints them.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    let arguments = format!(
        "--maxmemory {}mb --auto-aof-rewrite-percentage 0 --save ''",
        options.maxmemory
    );
    let data = Data {
        keys: options.keys,
        value_bytes: options.value_bytes,
    };
    let testbed = Testbed::new(&options.testbed, &arguments, data)?;
    let _server = testbed.start_full()?;
    let shape = Shape {
        keys: options.keys,
        writers: 2,
        sets_per_second: Some(f64::from(options.sets)),
        probes: PROBES,
        interval: Duration::from_secs_f64(PROBES as f64 / f64::from(options.gets)),
        set_one_in: u64::MAX,
    };
    let length = Duration::from_secs(options.seconds);
    let mut pairs = Vec::new();
    for round in 1..=options.rounds {
        let mut connection = testbed.connect()?;
        connection.order(&[b"COMPACT"])?;
        connection.order(&[b"SAVE"])?;
        let pair = Pressure::during(&testbed, shape, |pressure| {
            let calm = calm_window(pressure, &mut connection, length)?;
            wait_for_compaction(&mut connection)?;
            Ok((calm, busy_window(pressure, &mut connection, length)?))
        });
        let (calm, busy) =
            pair.map_err(|error| format!("{error}\n{}", testbed.launch.log_end()))?;
        println!("round {round}");
        calm.print("calm");
        busy.print("busy");
        pairs.push((calm, busy));
    }
    let ratios = pairs.iter();
    let ratios =
        ratios.map(|(calm, busy)| busy.latencies.micros_at(99.9) / calm.latencies.micros_at(99.9));
    let figures = [Figure {
        name: "p99.9 of GET while compaction and checkpoints run, against the same load without them",
        goal: Goal::AtMost(GOAL),
        measured: median(ratios),
        unit: "x",
    }];
    figure::print_table(&figures);
    let rounds: Vec<_> = pairs
        .iter()
        .map(|(calm, busy)| json!({ "calm": calm.to_json(), "busy": busy.to_json() }))
        .collect();
    options.testbed.write_json(&json!({
        "command": "background",
        "keys": options.keys,
        "value_bytes": options.value_bytes,
        "maxmemory_mib": options.maxmemory,
        "sets_per_second": options.sets,
        "gets_per_second": options.gets,
        "seconds": options.seconds,
        "rounds": rounds,
        "figures": figure::to_json(&figures),
    }))?;
    Ok(Verdict::AllRight)
}

/// Nothing beside the load.
fn calm_window(
    pressure: &Pressure<'_>,
    connection: &mut Connection,
    length: Duration,
) -> Result<Window, String> {
    let window = window(pressure, connection, |_| {
        thread::sleep(length);
        Ok(())
    })?;
    if window.compacted_bytes > 0 || window.checkpoints > 0 {
        return Err(format!(
            "in a window that is to be calm compaction read {} bytes, and {} checkpoints were made",
            window.compacted_bytes, window.checkpoints
        ));
    }
    Ok(window)
}

/// Waits until compaction has begun by itself.
fn wait_for_compaction(connection: &mut Connection) -> Result<(), String> {
    let before = compacted_bytes(&Info::ask(connection)?)?;
    let begun = Instant::now();
    while compacted_bytes(&Info::ask(connection)?)? == before {
        if begun.elapsed() > PATIENCE {
            return Err(format!("no compaction in {PATIENCE:?} of overwriting"));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Compaction and checkpoints beside the load.
fn busy_window(
    pressure: &Pressure<'_>,
    connection: &mut Connection,
    length: Duration,
) -> Result<Window, String> {
    let window = window(pressure, connection, |connection| {
        let end = Instant::now() + length;
        let left = || end.saturating_duration_since(Instant::now());
        while !left().is_zero() {
            // One that is still being made is not waited for.
            connection.call(&[b"BGREWRITEAOF"])?;
            thread::sleep(CHECKPOINT_INTERVAL.min(left()));
        }
        Ok(())
    })?;
    if window.compacted_bytes == 0 || window.checkpoints == 0 {
        return Err(format!(
            "in a window that is to be busy compaction read {} bytes, and {} checkpoints were made",
            window.compacted_bytes, window.checkpoints
        ));
    }
    Ok(window)
}

/// What is seen while `what` runs.
fn window(
    pressure: &Pressure<'_>,
    connection: &mut Connection,
    what: impl FnOnce(&mut Connection) -> Result<(), String>,
) -> Result<Window, String> {
    let before = Info::ask(connection)?;
    pressure.take();
    what(connection)?;
    let seen = pressure.take();
    let after = Info::ask(connection)?;
    let checkpoints = |info: &Info| info.number::<u64>("last_checkpoint_generation");
    Ok(Window {
        latencies: seen.latencies,
        sets: seen.sets,
        compacted_bytes: compacted_bytes(&after)? - compacted_bytes(&before)?,
        checkpoints: checkpoints(&after)? - checkpoints(&before)?,
    })
}

fn compacted_bytes(info: &Info) -> Result<u64, String> {
    info.number("compaction_read_bytes")
}

impl Window {
    fn print(&self, name: &str) {
        println!(
            "{name}: {} SETs; compaction read {:.0} MB; {} checkpoints; {} GETs: {}",
            self.sets,
            self.compacted_bytes as f64 / 1e6,
            self.checkpoints,
            self.latencies.count(),
            self.latencies.describe()
        );
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "sets": self.sets,
            "compaction_read_bytes": self.compacted_bytes,
            "checkpoints": self.checkpoints,
            "get": self.latencies.to_json(),
        })
    }
}
