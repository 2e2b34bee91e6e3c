//! `bench checkpoint`: what clients notice of a checkpoint while they write as fast as they can.
//!
//! There is more data than memory, so that all memory is in use. Writers overwrite random ones of some of the keys in pipelines
//! without a pause, all the time. Probes beside them ask for one of these keys each 20 milliseconds (one question in four is a
//! SET), and measure from when they were due. Windows of one length take turns: in one BGREWRITEAOF makes a checkpoint at its
//! beginning, in the next none is made. Where that was not so (a checkpoint took longer than the window, or the server made one
//! by itself) the pair does not count, and another one is measured. The server makes one when the notes about dead records take a
//! 32nd of `maxmemory`, or when more than eight segments hold nothing that lives: so the keys that are overwritten must be few
//! enough that neither happens within two windows though all of them are.
//!
//! * The generation change is what the server says a checkpoint's took (`last_checkpoint_change_usec`); the longest counts.
//! * The longest latency of a window with a checkpoint is compared with that of the window after it; of all differences the
//!   median counts, since any window of a busy machine may have a stall of its own. All pairs are printed.
//! * Memory is the most the process had resident in a window; the median of the ratios of the pairs counts.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use resp::Reply;
use serde_json::json;

use crate::Verdict;
use crate::connection::Connection;
use crate::figure::{self, Figure, Goal, largest, median};
use crate::info::Info;
use crate::pressure::{Pressure, Shape};
use crate::server::Server;
use crate::server_process::{ProcessUsage, forget_peak};
use crate::testbed::{self, Data, Testbed};

/// The longest generation change, in milliseconds.
const CHANGE_GOAL_MS: f64 = 2.0;

/// What a checkpoint may add to the longest latency, in milliseconds.
const LATENCY_GOAL_MS: f64 = 10.0;

/// What it may add to the memory, in percent.
const MEMORY_GOAL_PERCENT: f64 = 5.0;

/// So many pairs are measured at most for each that is wanted.
const ATTEMPTS: usize = 3;

/// A checkpoint is waited for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    testbed: testbed::Options,

    /// Pairs of windows
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,

    /// How long one window is; a few seconds after a checkpoint the server may make the next one by itself
    #[arg(long, value_name = "MS", default_value_t = 2000,
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    window_ms: u64,

    /// The server's maxmemory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(32..))]
    maxmemory: u64,

    /// Keys that are overwritten; more than the default want a greater maxmemory
    #[arg(long, value_name = "N", default_value_t = 500_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    written_keys: u64,

    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 10_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,

    /// Length of a value in bytes
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(16..=60_000))]
    value_bytes: u64,

    /// Connections that write
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    writers: u64,
}

/// What was seen in one window.
struct Window {
    max_ms: f64,
    peak_rss_bytes: u64,
    sets: u64,
}

/// A window with a checkpoint and one without.
struct Pair {
    without: Window,
    with: Window,
    made: Made,
}

/// What the server says of its last checkpoint.
struct Made {
    generation: u64,
    change_ms: f64,
    all_ms: f64,
}

/// Runs all windows and prints what they have shown.
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
    let server = testbed.start_full()?;
    let shape = Shape {
        keys: options.written_keys.min(options.keys),
        writers: options.writers,
        sets_per_second: None,
        probes: 8,
        interval: Duration::from_millis(20),
        set_one_in: 4,
    };
    let pairs = Pressure::during(&testbed, shape, |pressure| {
        let mut windows = Windows {
            pressure,
            server: &server,
            connection: testbed.connect()?,
            length: Duration::from_millis(options.window_ms),
        };
        windows.pairs(options.rounds as usize)
    });
    let pairs = pairs.map_err(|error| format!("{error}\n{}", testbed.launch.log_end()))?;
    let figures = figures(&pairs);
    figure::print_table(&figures);
    options.testbed.write_json(&json!({
        "command": "checkpoint",
        "keys": options.keys,
        "written_keys": options.written_keys,
        "maxmemory_mib": options.maxmemory,
        "value_bytes": options.value_bytes,
        "window_ms": options.window_ms,
        "pairs": pairs.iter().map(Pair::to_json).collect::<Vec<_>>(),
        "figures": figure::to_json(&figures),
    }))?;
    Ok(Verdict::AllRight)
}

fn figures(pairs: &[Pair]) -> [Figure; 3] {
    let added_percent = |pair: &Pair| {
        (pair.with.peak_rss_bytes as f64 / pair.without.peak_rss_bytes as f64 - 1.0) * 100.0
    };
    [
        Figure {
            name: "generation change of a checkpoint under full write load, the longest",
            goal: Goal::AtMost(CHANGE_GOAL_MS),
            measured: largest(pairs.iter().map(|pair| pair.made.change_ms)),
            unit: " ms",
        },
        Figure {
            name: "longest latency in a window with a checkpoint, above that of one without",
            goal: Goal::AtMost(LATENCY_GOAL_MS),
            measured: median(
                pairs
                    .iter()
                    .map(|pair| pair.with.max_ms - pair.without.max_ms),
            ),
            unit: " ms",
        },
        Figure {
            name: "memory during a checkpoint, above that without one",
            goal: Goal::AtMost(MEMORY_GOAL_PERCENT),
            measured: median(pairs.iter().map(added_percent)),
            unit: " %",
        },
    ]
}

struct Windows<'a> {
    pressure: &'a Pressure<'a>,
    server: &'a Server,
    connection: Connection,
    length: Duration,
}

impl Windows<'_> {
    /// So many pairs that count.
    fn pairs(&mut self, wanted: usize) -> Result<Vec<Pair>, String> {
        let mut pairs = Vec::new();
        for _ in 0..wanted * ATTEMPTS {
            if let Some(pair) = self.pair()? {
                pair.print();
                pairs.push(pair);
            }
            if pairs.len() == wanted {
                return Ok(pairs);
            }
        }
        Err(format!(
            "only {} of {} pairs of windows had a checkpoint in the first of them alone",
            pairs.len(),
            wanted * ATTEMPTS
        ))
    }

    /// A window with a checkpoint, and one without; nothing if there were others.
    fn pair(&mut self) -> Result<Option<Pair>, String> {
        // So each checkpoint has to save what was written in one window.
        self.save()?;
        thread::sleep(self.length);
        let before = self.last_checkpoint()?;
        self.connection.order(&[b"BGREWRITEAOF"])?;
        let with = self.window()?;
        let made = self.last_checkpoint()?;
        let is_over = !self.is_making_checkpoint()?;
        let without = self.window()?;
        let after = self.last_checkpoint()?;
        let is_pair = is_over
            && !self.is_making_checkpoint()?
            && made.generation == before.generation + 1
            && after.generation == made.generation;
        if !is_pair {
            println!(
                "not counted: checkpoints up to {} before both windows, {} after the first{}, {} after the second",
                before.generation,
                made.generation,
                if is_over { "" } else { " and one being made" },
                after.generation
            );
            return Ok(None);
        }
        Ok(Some(Pair {
            without,
            with,
            made,
        }))
    }

    /// Makes a checkpoint, after the one that BGREWRITEAOF is still making.
    fn save(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            match self.connection.call(&[b"SAVE"])? {
                Reply::Simple(_) => return Ok(()),
                Reply::Error(error)
                    if error.ends_with(b"already in progress") && begun.elapsed() < PATIENCE =>
                {
                    thread::sleep(Duration::from_millis(10));
                }
                other => return Err(format!("SAVE was answered {other:?}")),
            }
        }
    }

    fn window(&mut self) -> Result<Window, String> {
        forget_peak(self.server.pid())?;
        let seen = self.pressure.watch(self.length);
        Ok(Window {
            max_ms: seen.latencies.max_micros() / 1e3,
            peak_rss_bytes: ProcessUsage::of(self.server.pid())?.peak_rss_bytes,
            sets: seen.sets,
        })
    }

    fn last_checkpoint(&mut self) -> Result<Made, String> {
        let info = Info::ask(&mut self.connection)?;
        Ok(Made {
            generation: info.number("last_checkpoint_generation")?,
            change_ms: info.number::<f64>("last_checkpoint_change_usec")? / 1e3,
            all_ms: info.number("last_checkpoint_msec")?,
        })
    }

    fn is_making_checkpoint(&mut self) -> Result<bool, String> {
        let running: u8 = Info::ask(&mut self.connection)?.number("aof_rewrite_in_progress")?;
        Ok(running == 1)
    }
}

impl Pair {
    fn print(&self) {
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let (without, with) = (&self.without, &self.with);
        println!(
            "change {:.3} ms, all of it {:.0} ms; longest latency {:.2} ms, without {:.2} ms; memory {:.1} MiB, without {:.1} MiB; {} SETs, without {}",
            self.made.change_ms,
            self.made.all_ms,
            with.max_ms,
            without.max_ms,
            mib(with.peak_rss_bytes),
            mib(without.peak_rss_bytes),
            with.sets,
            without.sets,
        );
    }

    fn to_json(&self) -> serde_json::Value {
        let window = |window: &Window| {
            json!({
                "max_ms": window.max_ms,
                "peak_rss_bytes": window.peak_rss_bytes,
                "sets": window.sets,
            })
        };
        json!({
            "change_ms": self.made.change_ms,
            "checkpoint_ms": self.made.all_ms,
            "with": window(&self.with),
            "without": window(&self.without),
        })
    }
}
