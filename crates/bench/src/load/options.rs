//! The command line of `bench load`, and what it means.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use super::requests::{Mix, Work};
use crate::keys::Distribution;
use crate::values::{CHECKABLE_BYTES, ValueSizes};

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    /// The host the server listens on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,

    /// The TCP port the server listens on
    #[arg(long, short, default_value_t = 6379)]
    pub(crate) port: u16,

    /// The UNIX socket the server listens on, instead of a host and port
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"])]
    pub(crate) unix: Option<PathBuf>,

    /// Write every key once, in order, before anything else
    #[arg(long)]
    preload: bool,

    /// Run the mix for this many operations
    #[arg(long, value_name = "N", conflicts_with = "seconds",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000_000))]
    requests: Option<u64>,

    /// Run the mix for this long
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,

    /// Check every byte of every answer, and read each key once, in random order, at the end
    #[arg(long)]
    pub(crate) verify: bool,

    /// The version --preload writes; --verify takes it as the oldest right one
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) value_version: u32,

    /// The YCSB workload whose ratios and key distribution the mix has
    #[arg(long, value_enum, default_value_t = Workload::B)]
    workload: Workload,

    /// Share of GETs, relative to the other shares; any share given replaces the workload's ratios
    #[arg(long, value_name = "SHARE")]
    get: Option<u32>,

    /// Share of SETs
    #[arg(long, value_name = "SHARE")]
    set: Option<u32>,

    /// Share of operations that read a key and write it again (a GET and a SET in one batch)
    #[arg(long, value_name = "SHARE")]
    read_modify_write: Option<u32>,

    /// Share of SETs of new keys, numbered on from --keys
    #[arg(long, value_name = "SHARE")]
    insert: Option<u32>,

    /// Share of DELs
    #[arg(long, value_name = "SHARE")]
    delete: Option<u32>,

    /// How keys are chosen; by default as the workload says
    #[arg(long, value_enum)]
    distribution: Option<Distribution>,

    /// Skew of the zipfian distributions: more is more skewed; above 0 and below 1
    #[arg(long, default_value_t = 0.99, value_parser = parse_theta)]
    pub(crate) theta: f64,

    /// Number of keys
    #[arg(long, default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(crate) keys: u64,

    /// Length of a key in bytes
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    pub(crate) key_bytes: u32,

    /// Length of a value in bytes: N, or MIN-MAX
    #[arg(long, value_name = "SIZE", default_value = "100")]
    pub(crate) value_bytes: ValueSizes,

    /// Operations a connection sends before it reads the replies
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) pipeline: u32,

    /// Number of connections
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = parse_count)]
    pub(crate) connections: usize,

    /// Number of client threads; by default one for each processor, at most one a connection
    #[arg(long, value_name = "N", value_parser = parse_count)]
    threads: Option<usize>,

    /// Operations a second to start in all, however fast the answers come; a latency then counts
    /// from the time an operation was due. Without it, a batch waits for the one before it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    rate: Option<u32>,

    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Process id of the server: reports its processor time per operation and its peak memory
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,

    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write a chart of the latency percentiles to this file as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) chart: Option<PathBuf>,
}

/// The core workloads of YCSB that RESP strings can express. (E scans key ranges.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Half reads, half updates, zipfian
    A,
    /// 95% reads, 5% updates, zipfian
    B,
    /// Reads only, zipfian
    C,
    /// 95% reads of recent keys, 5% inserts
    D,
    /// Half reads, half read-modify-writes, zipfian
    F,
}

impl Workload {
    fn mix(self) -> Mix {
        let mix = Mix {
            get: 0,
            set: 0,
            read_modify_write: 0,
            insert: 0,
            delete: 0,
        };
        match self {
            Workload::A => Mix {
                get: 50,
                set: 50,
                ..mix
            },
            Workload::B => Mix {
                get: 95,
                set: 5,
                ..mix
            },
            Workload::C => Mix { get: 100, ..mix },
            Workload::D => Mix {
                get: 95,
                insert: 5,
                ..mix
            },
            Workload::F => Mix {
                get: 50,
                read_modify_write: 50,
                ..mix
            },
        }
    }
}

/// A command line of its own, for [`Options::parse`].
#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
}

impl Options {
    /// What `bench load` with these arguments means.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self, String> {
        let all = std::iter::once(&"load").chain(arguments);
        let parsed = CommandLine::try_parse_from(all).map_err(|error| error.to_string())?;
        Ok(parsed.options)
    }

    /// The phases to run, in order; an error where the options contradict each other.
    pub(crate) fn phases(&self) -> Result<Vec<Work>, String> {
        let mix = self.mix()?;
        let run_mix = self.requests.is_some() || self.seconds.is_some();
        if self.rate.is_some() && !run_mix {
            return Err("--rate is the rate of the mix: give --requests or --seconds too".into());
        }
        if self.verify {
            self.check_verifiable(&mix, run_mix)?;
        }
        let asked = [
            (self.preload, Work::Preload),
            (run_mix, Work::Mix(mix)),
            (self.verify, Work::Verify),
        ];
        let phases: Vec<Work> = asked
            .into_iter()
            .filter_map(|(run, work)| run.then_some(work))
            .collect();
        if phases.is_empty() {
            return Err("nothing to do: give --preload, --requests, --seconds or --verify".into());
        }
        Ok(phases)
    }

    fn check_verifiable(&self, mix: &Mix, run_mix: bool) -> Result<(), String> {
        if self.value_bytes.min < CHECKABLE_BYTES {
            return Err(format!(
                "--verify needs --value-bytes of at least {CHECKABLE_BYTES}: \
                 shorter values cannot say which key and version they are"
            ));
        }
        if run_mix && mix.delete > 0 {
            return Err("--verify cannot go with --delete: \
                        a deleted key cannot be told from a lost one"
                .into());
        }
        if run_mix && self.keys < self.connections as u64 {
            return Err("--verify needs at least as many --keys as --connections: \
                        each key is written by one connection"
                .into());
        }
        Ok(())
    }

    fn mix(&self) -> Result<Mix, String> {
        let shares = [
            self.get,
            self.set,
            self.read_modify_write,
            self.insert,
            self.delete,
        ];
        if shares.iter().all(Option::is_none) {
            return Ok(self.workload.mix());
        }
        let [get, set, read_modify_write, insert, delete] = shares.map(|s| s.unwrap_or(0));
        let mix = Mix {
            get,
            set,
            read_modify_write,
            insert,
            delete,
        };
        if mix.total() == 0 {
            return Err("all shares of the mix are 0".into());
        }
        Ok(mix)
    }

    /// How the mix chooses keys.
    pub(crate) fn distribution(&self) -> Distribution {
        self.distribution.unwrap_or(match self.workload {
            Workload::D => Distribution::Latest,
            _ => Distribution::Zipfian,
        })
    }

    /// An upper bound of the number of keys that the mix inserts.
    pub(crate) fn most_inserts(&self) -> Result<u64, String> {
        const MOST_PER_SECOND: u64 = 100_000_000;
        if self.mix()?.insert == 0 {
            return Ok(0);
        }
        Ok(self
            .requests
            .unwrap_or(self.seconds.unwrap_or(0) * MOST_PER_SECOND))
    }

    /// How many operations the mix has, if it is not bounded by time.
    pub(crate) fn requests(&self) -> Option<u64> {
        self.requests
    }

    /// How long the mix runs, if it is bounded by time.
    pub(crate) fn run_time(&self) -> Option<Duration> {
        self.seconds.map(Duration::from_secs)
    }

    /// Operations a second the mix starts, if it is an open loop.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.rate.map(f64::from)
    }

    /// The number of client threads.
    pub(crate) fn threads(&self) -> Result<usize, String> {
        match self.threads {
            Some(threads) if threads > self.connections => Err(format!(
                "--threads {threads} is more than --connections {}: some would have nothing to do",
                self.connections
            )),
            Some(threads) => Ok(threads),
            None => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                Ok(processors.min(self.connections))
            }
        }
    }

    /// The server's address, for people.
    pub(crate) fn target(&self) -> String {
        match &self.unix {
            Some(path) => path.display().to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }
}

fn parse_theta(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(theta) if theta > 0.0 && theta < 1.0 => Ok(theta),
        _ => Err("expected a number above 0 and below 1".into()),
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(count) if (1..=100_000).contains(&count) => Ok(count),
        _ => Err("expected a number from 1 to 100000".into()),
    }
}
