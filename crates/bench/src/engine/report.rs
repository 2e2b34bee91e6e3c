//! The table, the JSON and the chart of `bench engine`.

use serde_json::{Value, json};

use super::What;
use super::cold::{self, ColdGets};
use super::larger::{Overwrites, Skewed};
use super::measure::Measured;
use crate::chart::BarChart;
use crate::rawread;

/// One measurement: the median of its rounds.
pub(crate) struct Row {
    pub(crate) index: &'static str,
    pub(crate) tier: &'static str,
    pub(crate) what: What,
    pub(crate) keys: u64,
    pub(crate) threads: usize,
    pub(crate) measured: Measured,
}

/// Cold GETs, and the raw loop that took turns with them.
pub(crate) struct ColdRound {
    pub(crate) raw: rawread::Report,
    pub(crate) gets: ColdGets,
}

impl ColdRound {
    /// Reads of the device a second that the engine made, as a share of the raw loop's.
    fn share_of_raw(&self) -> f64 {
        self.gets.reads_per_second() / self.raw.reads_per_second()
    }

    /// The 99th percentile of the latencies, as a multiple of the raw loop's.
    fn p99_to_raw(&self) -> f64 {
        self.gets.latencies.micros_at(99.0) / self.raw.latencies.micros_at(99.0)
    }
}

/// All rounds of one index.
struct Cold {
    index: &'static str,
    keys: u64,
    rounds: Vec<ColdRound>,
}

impl Cold {
    fn median(&self, of: impl Fn(&ColdRound) -> f64) -> f64 {
        let mut all: Vec<f64> = self.rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }
}

/// The results of a run.
pub(crate) struct Report {
    clock_nanos: u64,
    rows: Vec<Row>,
    cold: Vec<Cold>,
    overwrites: Option<Overwrites>,
    skewed: Option<Skewed>,
    /// Numbers of keys, and bytes of the index for each key.
    index_bytes: Vec<(u64, f64)>,
    /// What the codec's steps of a GET take, in nanoseconds.
    codec: Vec<(&'static str, f64)>,
}

impl Report {
    /// An empty report; `clock_nanos` is what the clock adds to each latency. Prints the heading.
    pub(crate) fn new(clock_nanos: u64) -> Self {
        println!("latencies are of calls, in ns, and contain {clock_nanos} ns for the clock");
        println!(
            "{:<8} {:<5} {:<10} {:>9} {:>7} {:>5} {:>12} {:>12} {:>9} {:>9}",
            "index",
            "tier",
            "operation",
            "keys",
            "threads",
            "batch",
            "per second",
            "per CPU s",
            "p50",
            "p99"
        );
        Report {
            clock_nanos,
            rows: Vec::new(),
            cold: Vec::new(),
            overwrites: None,
            skewed: None,
            index_bytes: Vec::new(),
            codec: Vec::new(),
        }
    }

    /// Adds a row and prints it.
    pub(crate) fn add(&mut self, row: Row) {
        println!(
            "{:<8} {:<5} {:<10} {:>9} {:>7} {:>5} {:>12.0} {:>12.0} {:>9.0} {:>9.0}",
            row.index,
            row.tier,
            row.what.name(),
            row.keys,
            row.threads,
            row.what.batch(),
            row.measured.operations_per_second,
            row.measured.operations_per_cpu_second,
            row.measured.latencies.micros_at(50.0) * 1e3,
            row.measured.latencies.micros_at(99.0) * 1e3,
        );
        self.rows.push(row);
    }

    /// Adds the rounds of cold GETs of one index and prints them beside the raw loop's.
    pub(crate) fn add_cold(&mut self, index: &'static str, keys: u64, rounds: Vec<ColdRound>) {
        let row = Cold {
            index,
            keys,
            rounds,
        };
        println!(
            "{index:<8} cold  get        {keys:>9} keys, depth {}",
            cold::DEPTH
        );
        for round in &row.rounds {
            let (raw, gets) = (&round.raw, &round.gets);
            println!(
                "    raw {:>8.0} reads/s  {}",
                raw.reads_per_second(),
                raw.latencies.describe()
            );
            println!(
                "    get {:>8.0} reads/s  {}  {} hits",
                gets.reads_per_second(),
                gets.latencies.describe(),
                gets.hits
            );
        }
        println!(
            "    medians: {:.0} cold GETs/s, {:.0}% of the raw reads, {:.3} reads each, p99 {:.2} \
             of the raw loop's",
            row.median(|round| round.gets.gets_per_second()),
            row.median(ColdRound::share_of_raw) * 100.0,
            row.median(|round| round.gets.reads_per_get()),
            row.median(ColdRound::p99_to_raw)
        );
        self.cold.push(row);
    }

    /// Adds blind SETs of cold keys and prints them.
    pub(crate) fn add_overwrites(&mut self, row: Overwrites) {
        let bytes = |bytes: Option<u64>| {
            bytes.map_or("an unknown number of".into(), |bytes| bytes.to_string())
        };
        println!(
            "bucket   cold  set        {:>9} keys, {:.1} times memory: {:.0}/s, {} device reads of {} \
             bytes, {} bytes of them by SETs, the others in the background",
            row.keys,
            row.times_memory,
            row.sets_per_second,
            row.device_reads,
            bytes(row.process_read_bytes),
            bytes(row.thread_read_bytes)
        );
        self.overwrites = Some(row);
    }

    /// Adds skewed reads and prints them.
    pub(crate) fn add_skewed(&mut self, row: Skewed) {
        println!(
            "bucket   mixed get zipfian {:>8} keys, {:.1} times memory: {:.2}% in memory, best static \
             set {:.2}%: {:.1}% of it",
            row.keys,
            row.times_memory,
            row.hits * 100.0,
            row.best_static * 100.0,
            row.hits / row.best_static * 100.0
        );
        self.skewed = Some(row);
    }

    /// Adds what the index takes and prints it.
    pub(crate) fn add_index_bytes(&mut self, rows: Vec<(u64, f64)>) {
        for (keys, bytes) in &rows {
            println!("bucket   index             {keys:>8} keys: {bytes:.2} bytes each");
        }
        self.index_bytes = rows;
    }

    /// Adds what one of the codec's steps takes.
    pub(crate) fn add_codec_step(&mut self, name: &'static str, operations_per_second: f64) {
        self.codec.push((name, 1e9 / operations_per_second));
    }

    /// Prints the steps of one GET, for each index and number of keys.
    pub(crate) fn print_steps(&self) {
        println!("steps of one hot GET, ns:");
        for (name, nanos) in &self.codec {
            println!("    {name:<8} {nanos:>7.1}");
        }
        for (index, keys, slot, fetch) in self.engine_steps() {
            println!("    {index:<8} {keys:>9} keys: index {slot:>7.1}  fetch {fetch:>7.1}");
        }
    }

    /// Index, keys, and the nanoseconds that finding the slot and fetching the value take.
    fn engine_steps(&self) -> Vec<(&'static str, u64, f64, f64)> {
        let nanos = |of: &Row, what| {
            let same = |row: &&Row| {
                (row.index, row.tier, row.keys, row.threads) == (of.index, "hot", of.keys, 1)
                    && row.what == what
            };
            self.rows
                .iter()
                .find(same)
                .map(|row| 1e9 / row.measured.operations_per_cpu_second)
        };
        let absent = self.rows.iter().filter(|row| row.what == What::Miss);
        absent
            .filter_map(|row| {
                let (slot, whole) = (nanos(row, What::Miss)?, nanos(row, What::Get)?);
                Some((row.index, row.keys, slot, whole - slot))
            })
            .collect()
    }

    /// Everything, for programs.
    pub(crate) fn to_json(&self) -> String {
        let row = |row: &Row| {
            json!({
                "index": row.index,
                "tier": row.tier,
                "operation": row.what.name(),
                "keys": row.keys,
                "threads": row.threads,
                "batch": row.what.batch(),
                "operations_per_second": row.measured.operations_per_second,
                "operations_per_cpu_second": row.measured.operations_per_cpu_second,
                "call_latency": row.measured.latencies.to_json(),
            })
        };
        let cold = |row: &Cold| {
            json!({
                "index": row.index,
                "keys": row.keys,
                "depth": cold::DEPTH,
                "share_of_raw": row.median(ColdRound::share_of_raw),
                "p99_to_raw": row.median(ColdRound::p99_to_raw),
                "device_reads_per_get": row.median(|round| round.gets.reads_per_get()),
                "rounds": row.rounds.iter().map(|round| json!({
                    "raw": round.raw.to_json(cold::DEPTH),
                    "gets_per_second": round.gets.gets_per_second(),
                    "reads_per_second": round.gets.reads_per_second(),
                    "latency": round.gets.latencies.to_json(),
                    "memory_hits": round.gets.hits,
                })).collect::<Vec<_>>(),
            })
        };
        let overwrites = |row: &Overwrites| {
            json!({
                "keys": row.keys,
                "times_memory": row.times_memory,
                "sets_per_second": row.sets_per_second,
                "device_reads": row.device_reads,
                "process_read_bytes": row.process_read_bytes,
                "thread_read_bytes": row.thread_read_bytes,
            })
        };
        let skewed = |row: &Skewed| {
            json!({
                "keys": row.keys,
                "times_memory": row.times_memory,
                "hits": row.hits,
                "best_static": row.best_static,
            })
        };
        let index_bytes = |(keys, bytes): &(u64, f64)| json!({ "keys": keys, "bytes": bytes });
        let steps: Vec<Value> = self
            .engine_steps()
            .into_iter()
            .map(|(index, keys, slot, fetch)| {
                json!({ "index": index, "keys": keys, "index_ns": slot, "fetch_ns": fetch })
            })
            .collect();
        let codec: serde_json::Map<String, Value> = self
            .codec
            .iter()
            .map(|(name, nanos)| (format!("{name}_ns"), json!(nanos)))
            .collect();
        let document = json!({
            "command": "engine",
            "clock_ns": self.clock_nanos,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "cold": self.cold.iter().map(cold).collect::<Vec<_>>(),
            "overwrites": self.overwrites.as_ref().map(overwrites),
            "skewed": self.skewed.as_ref().map(skewed),
            "index_bytes_per_key": self.index_bytes.iter().map(index_bytes).collect::<Vec<_>>(),
            "engine_steps": steps,
            "codec_steps": codec,
        });
        format!("{document:#}\n")
    }

    /// The operations a second of one thread, both indexes side by side.
    pub(crate) fn to_chart(&self) -> String {
        let mut indexes: Vec<&str> = Vec::new();
        let mut groups: Vec<(String, Vec<Option<f64>>)> = Vec::new();
        for row in self.rows.iter().filter(|row| row.threads == 1) {
            let (name, batch) = (row.what.name(), row.what.batch());
            let batch = if batch > 1 {
                format!(", batches of {batch}")
            } else {
                String::new()
            };
            let label = format!("{} keys, {} {name}{batch}", row.keys, row.tier);
            let series = indexes
                .iter()
                .position(|index| *index == row.index)
                .unwrap_or_else(|| {
                    indexes.push(row.index);
                    indexes.len() - 1
                });
            let group = groups
                .iter()
                .position(|group| group.0 == label)
                .unwrap_or_else(|| {
                    groups.push((label, Vec::new()));
                    groups.len() - 1
                });
            let bars = &mut groups[group].1;
            bars.resize(bars.len().max(series + 1), None);
            bars[series] = Some(row.measured.operations_per_cpu_second);
        }
        BarChart {
            title: "The engine, one thread".into(),
            subtitle: "keys of 16 bytes, values of 100 bytes, uniform".into(),
            unit: "operations a second of processor time".into(),
            series: indexes.into_iter().map(str::to_owned).collect(),
            groups,
        }
        .to_svg()
    }
}
