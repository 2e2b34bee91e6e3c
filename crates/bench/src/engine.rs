//! `bench engine`: the storage engine itself, without a server around it, on both of its indexes.
//!
//! For every number of keys, each tier is measured with GETs, one at a time and in batches, by one
//! thread and by all, and with SETs. Both indexes are measured in the same run, in rounds that take
//! turns, and a row shows its median round: what else the machine does falls on both alike. Cold
//! reads take turns with a raw io_uring loop that reads the same files at the same depth. Then come
//! blind writes and skewed reads of ten times as much data as there is memory for, and the memory
//! of the index.

mod calls;
mod cold;
mod larger;
mod measure;
mod report;
mod steps;
mod subject;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hybridlog::{BucketIndex, DashIndex, Index};

use self::calls::{Get, GetMany, Miss, Set};
use self::measure::{Effort, Measured, measure};
use self::report::{ColdRound, Report, Row};
use self::subject::{Opened, Subject, describe};
use crate::Verdict;
use crate::clock::Clock;
use crate::random::Random;
use crate::rawread::{self, Blocks};

/// What the raw loop reads at a time: the unit of most devices.
const RAW_BLOCK_BYTES: u32 = 4096;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Hot and warm GETs and SETs on both indexes
    Memory,
    /// Cold GETs beside a raw loop that reads the same files
    Cold,
    /// Blind SETs of cold keys, ten times as much data as memory for it
    Overwrite,
    /// Zipfian GETs, ten times as much data as memory for it
    Skewed,
    /// Bytes of the index for each key
    Index,
}

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    /// The directory under which the stores put their files; its disk is what cold reads measure
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// What to measure; everything, if not given
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    only: Vec<Part>,

    /// Numbers of keys that hot and warm rows have; the largest is measured cold
    #[arg(long, value_name = "N,...", value_delimiter = ',',
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: Vec<u64>,

    /// A short run: fewer keys, one short round
    #[arg(long)]
    quick: bool,

    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a chart of the operations a second to this file as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

/// Measures both indexes, prints the table as it grows, and writes what was asked for.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    let clock = Clock::calibrate();
    let mut run = Run {
        plan: Plan::new(options),
        dir: options.dir.clone(),
        clock,
        report: Report::new(clock.overhead_nanos()),
    };
    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    if wants(Part::Memory) {
        for keys in run.plan.keys.clone() {
            run.measure_memory(keys)?;
        }
        run.measure_codec()?;
        run.report.print_steps();
    }
    if wants(Part::Cold) {
        run.measure_cold()?;
    }
    if wants(Part::Overwrite) {
        let overwrites = larger::overwrite_cold(&run.dir, run.plan.larger_memory_bytes)?;
        run.report.add_overwrites(overwrites);
    }
    if wants(Part::Skewed) {
        let skewed = larger::read_skewed(&run.dir, run.plan.larger_memory_bytes, SKEWED_WARM_UP)?;
        run.report.add_skewed(skewed);
    }
    if wants(Part::Index) {
        let bytes = larger::index_bytes_per_key(&run.dir, run.plan.index_keys)?;
        run.report.add_index_bytes(bytes);
    }
    if let Some(path) = &options.json {
        crate::write_file(path, &run.report.to_json())?;
    }
    if let Some(path) = &options.chart {
        crate::write_file(path, &run.report.to_chart())?;
    }
    Ok(Verdict::AllRight)
}

/// Skewed reads before those that count, for each key.
const SKEWED_WARM_UP: u64 = 4;

/// How much is measured.
struct Plan {
    /// Numbers of keys. The largest is measured cold too.
    keys: Vec<u64>,
    rounds: usize,
    /// How long one measurement of memory takes.
    length: Duration,
    /// How long one measurement of the disk takes.
    cold_length: Duration,
    /// The number of threads that "all" is.
    all_threads: usize,
    /// The memory for what is larger than memory.
    larger_memory_bytes: u64,
    index_keys: &'static [u64],
}

impl Plan {
    fn new(options: &Options) -> Self {
        let all_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut plan = Plan {
            keys: vec![1_000, 1_000_000, 10_000_000],
            rounds: 5,
            length: Duration::from_millis(500),
            cold_length: Duration::from_secs(10),
            all_threads,
            larger_memory_bytes: 128 << 20,
            index_keys: &[7_000_000, 10_000_000, 14_000_000],
        };
        if options.quick {
            plan = Plan {
                keys: vec![1_000, 100_000],
                rounds: 1,
                length: Duration::from_millis(100),
                cold_length: Duration::from_millis(500),
                larger_memory_bytes: 32 << 20,
                index_keys: &[700_000, 1_000_000, 1_400_000],
                ..plan
            };
        }
        if !options.keys.is_empty() {
            plan.keys.clone_from(&options.keys);
        }
        plan
    }
}

/// What one row measures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Get,
    Miss,
    GetMany(usize),
    Set,
}

impl What {
    pub(crate) fn name(self) -> &'static str {
        match self {
            What::Get | What::GetMany(_) => "get",
            What::Miss => "get absent",
            What::Set => "set",
        }
    }

    pub(crate) fn batch(self) -> usize {
        match self {
            What::Get | What::Miss | What::Set => 1,
            What::GetMany(batch) => batch,
        }
    }

    fn measure(
        self,
        subject: &impl Subject,
        keys: u64,
        effort: Effort,
        clock: Clock,
    ) -> Result<Measured, String> {
        let random = |thread: usize| Random::new(thread as u64 + 1);
        let value = Vec::new;
        match self {
            What::Get => measure(effort, clock, |thread| Get {
                subject,
                keys,
                random: random(thread),
                value: value(),
            }),
            What::Miss => measure(effort, clock, |thread| Miss {
                subject,
                keys,
                random: random(thread),
                value: value(),
            }),
            What::GetMany(batch) => measure(effort, clock, |thread| GetMany {
                subject,
                keys,
                random: random(thread),
                batch,
            }),
            What::Set => measure(effort, clock, |thread| Set {
                subject,
                keys,
                random: random(thread),
            }),
        }
    }
}

/// A run under way.
struct Run {
    plan: Plan,
    dir: PathBuf,
    clock: Clock,
    report: Report,
}

impl Run {
    fn measure_memory(&mut self, keys: u64) -> Result<(), String> {
        let (buckets, dash) = subject::open_both(&self.dir, keys)?;
        let (buckets, dash) = (buckets.store.as_ref(), dash.store.as_ref());
        calls::write_all(buckets, keys)?;
        calls::write_all(dash, keys)?;
        let effort = |threads, calls_at_once| Effort {
            threads,
            length: self.plan.length,
            calls_at_once,
        };
        let (one, all) = (effort(1, 256), effort(self.plan.all_threads, 256));
        let (one_batch, all_batches) = (effort(1, 16), effort(self.plan.all_threads, 16));
        let gets = [
            (What::Get, one),
            (What::GetMany(16), one_batch),
            (What::GetMany(64), one_batch),
            (What::Get, all),
            (What::GetMany(64), all_batches),
        ];
        for (what, effort) in gets {
            self.row("hot", what, keys, effort, buckets, dash)?;
        }
        self.row("hot", What::Miss, keys, one, buckets, dash)?;
        self.row("hot", What::Set, keys, one, buckets, dash)?;
        self.row("hot", What::Set, keys, all, buckets, dash)?;
        buckets.seal_all().map_err(describe)?;
        dash.seal_all().map_err(describe)?;
        for (what, effort) in gets {
            self.row("warm", what, keys, effort, buckets, dash)?;
        }
        self.row("warm", What::Set, keys, one, buckets, dash)
    }

    /// Measures one row of both indexes: in turns, round after round; the median round counts.
    fn row(
        &mut self,
        tier: &'static str,
        what: What,
        keys: u64,
        effort: Effort,
        buckets: &impl Subject,
        dash: &impl Subject,
    ) -> Result<(), String> {
        let (mut of_buckets, mut of_dash) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.rounds {
            of_buckets.push(what.measure(buckets, keys, effort, self.clock)?);
            of_dash.push(what.measure(dash, keys, effort, self.clock)?);
        }
        for (index, rounds) in [("bucket", of_buckets), ("dashmap", of_dash)] {
            let measured = median(rounds, |measured| measured.operations_per_cpu_second);
            self.report.add(Row {
                index,
                tier,
                what,
                keys,
                threads: effort.threads,
                measured,
            });
        }
        Ok(())
    }

    /// Cold GETs in turns with the raw loop on the same files, on each index.
    fn measure_cold(&mut self) -> Result<(), String> {
        let keys = self.plan.keys.iter().copied().max().unwrap_or(1);
        let opened = Opened::<BucketIndex>::with_room_for(&self.dir, keys)?;
        self.cold_rows(keys, &opened)?;
        drop(opened);
        let opened = Opened::<DashIndex>::with_room_for(&self.dir, keys)?;
        self.cold_rows(keys, &opened)
    }

    fn cold_rows<I: Index>(&mut self, keys: u64, opened: &Opened<I>) -> Result<(), String> {
        calls::write_all(opened.store.as_ref(), keys)?;
        let length = self.plan.cold_length;
        let mut rounds = Vec::new();
        for round in 0..self.plan.rounds as u64 {
            opened.store.force_cold().map_err(describe)?;
            let files = rawread::files_in(opened.dir.path())?;
            let blocks = Blocks::open(&files, RAW_BLOCK_BYTES)?;
            let raw = rawread::read_random(&blocks, cold::DEPTH, length, round)?;
            let gets = cold::get_cold(&opened.store, keys, length, round)?;
            rounds.push(ColdRound { raw, gets });
        }
        self.report.add_cold(I::NAME, keys, rounds);
        Ok(())
    }

    /// The two steps of a GET that are the codec's.
    fn measure_codec(&mut self) -> Result<(), String> {
        let effort = Effort {
            threads: 1,
            length: self.plan.length,
            calls_at_once: 1024,
        };
        let parse = measure(effort, self.clock, |_| steps::Parse::new())?;
        let encode = measure(effort, self.clock, |_| steps::Encode::new())?;
        self.report
            .add_codec_step("parse", parse.operations_per_cpu_second);
        self.report
            .add_codec_step("encode", encode.operations_per_cpu_second);
        Ok(())
    }
}

/// The element whose number is in the middle.
fn median<T>(mut all: Vec<T>, number: impl Fn(&T) -> f64) -> T {
    all.sort_by(|a, b| number(a).total_cmp(&number(b)));
    all.swap_remove(all.len() / 2)
}
