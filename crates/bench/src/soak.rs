//! `bench soak`: hours in some minutes. Many times more data than memory, all kinds of changes at once, and after each of
//! them a check.
//!
//! Connections with keys of their own read, overwrite, delete and let expire; some values are big, and readers of those
//! are slow: those may be disconnected, nobody else. Beside them probes ask for one small key at fixed times, and measure from the moment at which they meant to
//! ask: a stall of the server shows in them. When the load stops the server has half a minute to give the disk back what
//! is dead. Then everything is read and counted, the server is stopped and started again, and everything is read once more.
//!
//! What must hold: no wrong value and no wrong count, no memory above 1.1 times `maxmemory`, and no more bytes on the disk
//! than [`LOADED_SPACE_MAX`] times those that live under load and [`CALM_SPACE_MAX`] times afterwards.

mod client;
mod memory_group;
mod probe;
mod report;
mod slow_reader;
mod watch;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use self::client::{Client, Data};
use self::memory_group::MemoryGroup;
use self::report::Report;
use self::slow_reader::{SlowReads, read_slowly};
use self::watch::Watch;
use crate::Verdict;
use crate::latency::Latencies;
use crate::server::{self, Launch, Server};
use crate::values::ValueSizes;

/// Bytes of files (without the command log) for each that lives, under load.
const LOADED_SPACE_MAX: f64 = 2.0;

/// The same, [`CALM`] after the load has stopped.
const CALM_SPACE_MAX: f64 = 1.5;

const CALM: Duration = Duration::from_secs(30);

/// Resident bytes for each byte of `maxmemory`.
const MEMORY_MAX: f64 = 1.1;

/// The share of the data that is in big values, in percent.
const BIG_PERCENT: u64 = 10;

const BIG_SIZES: ValueSizes = ValueSizes {
    min: 100_000,
    max: 1_900_000,
};

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    /// The server's command line, as for a shell; --maxmemory, --port, --unixsocket and --dir are added to it
    #[arg(long, value_name = "COMMAND")]
    server: String,

    /// How long the load takes after everything has been written once, in minutes
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    minutes: f64,

    /// The server's maxmemory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(32..))]
    maxmemory: u64,

    /// How many times more data there is
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    times: u64,

    /// Connections, each with keys of its own
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    connections: u64,

    /// Commands a second, of all connections together
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,

    /// Connections that read big values at a tenth of a MiB a second
    #[arg(long, value_name = "N", default_value_t = 4)]
    slow_readers: u64,

    /// The length of values that are not big, in bytes: N or MIN-MAX
    #[arg(long, value_name = "BYTES", default_value = "100-1900")]
    value_bytes: ValueSizes,

    /// The directory under which the server's directory is made
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Where a chart of each second's latencies is written, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Repeats the choices of an earlier run, though not its timing
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What all threads of a run share.
struct Shared {
    launch: Launch,
    /// The load is over.
    stop: AtomicBool,
    /// Bytes of keys and values that live, without what expires soon.
    live_bytes: AtomicI64,
    commands: AtomicU64,
    /// What the probes have measured since it was last taken.
    probed: Mutex<Latencies>,
    slow_reads: SlowReads,
}

/// Runs everything; prints what it finds as it goes.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    if options.value_bytes.min < crate::values::CHECKABLE_BYTES {
        return Err(format!(
            "values of {} bytes cannot be checked: at least {}",
            options.value_bytes.min,
            crate::values::CHECKABLE_BYTES
        ));
    }
    let scratch = server::scratch(options.dir.as_deref())?;
    let maxmemory_bytes = options.maxmemory << 20;
    let command_line = format!("{} --maxmemory {maxmemory_bytes}", options.server);
    let group = MemoryGroup::make((maxmemory_bytes as f64 * MEMORY_MAX) as u64);
    match &group {
        Some(group) => println!("memory control group: {}", group.path().display()),
        None => println!("memory control group: none can be made here"),
    }
    let launch = Launch::new(&command_line, scratch.path())
        .map_err(|error| format!("{}: {error}", scratch.path().display()))?
        .in_group(group.as_ref().map(MemoryGroup::path));
    let shared = Shared {
        launch,
        stop: AtomicBool::new(false),
        live_bytes: AtomicI64::new(0),
        commands: AtomicU64::new(0),
        probed: Mutex::new(Latencies::new()),
        slow_reads: SlowReads::default(),
    };
    let mut report = Report::new(maxmemory_bytes);
    let outcome = Run {
        options,
        shared: &shared,
        group: group.as_ref(),
    }
    .run(&mut report);
    if let Some(path) = &options.svg {
        let written = std::fs::write(path, report.to_svg());
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let wrong = outcome.err().into_iter().chain(report.judge());
    let wrong: Vec<String> = wrong.collect();
    report.print();
    println!("slow readers: {}", shared.slow_reads.describe());
    if wrong.is_empty() {
        return Ok(Verdict::AllRight);
    }
    for what in &wrong {
        eprintln!("WRONG: {what}");
    }
    eprintln!(
        "{}\nseed {}; the server's files are in {}",
        shared.launch.log_end(),
        options.seed,
        scratch.keep().display()
    );
    Ok(Verdict::Wrong)
}

struct Run<'a> {
    options: &'a Options,
    shared: &'a Shared,
    group: Option<&'a MemoryGroup>,
}

impl Run<'_> {
    fn run(&self, report: &mut Report) -> Result<(), String> {
        let (shared, options) = (self.shared, self.options);
        let (server, _) = shared.launch.start()?;
        let data = self.data();
        println!(
            "{} keys with small values, {} with big ones, {} that expire",
            data.small_keys, data.big_keys, data.expiring_keys
        );
        let mut clients = (0..options.connections)
            .map(|number| Client::new(shared, &data, number, options.seed))
            .collect::<Result<Vec<_>, String>>()?;
        let begun = Instant::now();
        Self::each(&mut clients, Client::write_all)?;
        let took = begun.elapsed().as_secs_f64();
        let mib = shared.live_bytes.load(Relaxed) as f64 / (1 << 20) as f64;
        println!(
            "written once: {mib:.0} MiB in {took:.1} s, {:.0} MiB/s",
            mib / took
        );
        self.load(&mut clients, &data, &server, report)?;
        report.calm = Some(self.calm_down(&server)?);
        self.check(&mut clients, "after the load")?;
        report.memory(Watch::new(&server, shared, self.group).memory()?);
        let stopped = Instant::now();
        server.terminate()?;
        println!("stopped in {:.2} s", stopped.elapsed().as_secs_f64());
        let (server, restarted) = shared.launch.start()?;
        println!("started again in {:.2} s", restarted.as_secs_f64());
        for client in &mut clients {
            client.connect()?;
        }
        self.check(&mut clients, "after the restart")?;
        report.memory(Watch::new(&server, shared, self.group).memory()?);
        Ok(())
    }

    fn data(&self) -> Data {
        let (options, sizes) = (self.options, self.options.value_bytes);
        let bytes = (options.maxmemory << 20) * options.times;
        let average = |sizes: ValueSizes| (sizes.min + sizes.max) as u64 / 2;
        let small_keys = bytes / 100 * (100 - BIG_PERCENT) / average(sizes);
        Data {
            connections: options.connections,
            small_keys,
            big_keys: bytes / 100 * BIG_PERCENT / average(BIG_SIZES),
            expiring_keys: small_keys / 10,
            small_sizes: sizes,
            big_sizes: BIG_SIZES,
        }
    }

    /// Does something on all connections at the same time.
    fn each<'c>(
        clients: &mut [Client<'c>],
        what: impl Fn(&mut Client<'c>) -> Result<(), String> + Sync,
    ) -> Result<(), String> {
        let what = &what;
        thread::scope(|scope| {
            let threads: Vec<_> = clients
                .iter_mut()
                .map(|client| scope.spawn(move || what(client)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a client thread panicked")?)
        })
    }

    /// The load, and what is seen meanwhile.
    fn load(
        &self,
        clients: &mut [Client<'_>],
        data: &Data,
        server: &Server,
        report: &mut Report,
    ) -> Result<(), String> {
        let (shared, options) = (self.shared, self.options);
        let rate = options.rate as f64 / options.connections as f64;
        thread::scope(|scope| {
            let mut threads: Vec<_> = clients
                .iter_mut()
                .map(|client| scope.spawn(move || client.work(rate)))
                .collect();
            for number in 0..options.slow_readers {
                let seed = options.seed ^ (number << 48);
                threads.push(scope.spawn(move || read_slowly(shared, data, seed)));
            }
            let probes = probe::start(scope, shared);
            let watched = self.watch(server, &probes, report);
            // Whatever has gone wrong, all must end.
            shared.stop.store(true, Relaxed);
            let mut outcome = watched.and(probes.join());
            for thread in threads {
                let ended = thread.join().map_err(|_| "a client thread panicked".into());
                outcome = outcome.and(ended.and_then(|ended: Result<(), String>| ended));
            }
            outcome
        })
    }

    /// Looks once a second until the time is over, or a client has ended.
    fn watch(
        &self,
        server: &Server,
        probes: &probe::Probes<'_>,
        report: &mut Report,
    ) -> Result<(), String> {
        let mut watch = Watch::new(server, self.shared, self.group);
        let begun = Instant::now();
        let length = Duration::from_secs_f64(self.options.minutes * 60.0);
        for second in 1.. {
            let next = begun + Duration::from_secs(second);
            thread::sleep(next.saturating_duration_since(Instant::now()));
            let seen = watch.look()?;
            report.second(seen, probes.take());
            if second % 10 == 0 {
                report.print_last();
            }
            if begun.elapsed() >= length || self.shared.stop.load(Relaxed) {
                break;
            }
        }
        Ok(())
    }

    /// Waits until the disk holds little that is dead, for [`CALM`] at most; returns the last figure.
    fn calm_down(&self, server: &Server) -> Result<f64, String> {
        let begun = Instant::now();
        let mut watch = Watch::new(server, self.shared, self.group);
        loop {
            let ratio = watch.look()?.space_ratio;
            if ratio <= CALM_SPACE_MAX || begun.elapsed() > CALM {
                println!(
                    "{:.1} s after the load the files have {ratio:.2} bytes for each that lives",
                    begun.elapsed().as_secs_f64()
                );
                return Ok(ratio);
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Reads and counts everything.
    fn check(&self, clients: &mut [Client<'_>], when: &str) -> Result<(), String> {
        let begun = Instant::now();
        let at = |what: String| format!("{when}: {what}");
        Self::each(clients, Client::check_all).map_err(at)?;
        let keys: u64 = clients.iter().map(Client::keys).sum();
        client::wait_for_size(&self.shared.launch, keys).map_err(at)?;
        println!(
            "{when}: {keys} keys are right, read in {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        Ok(())
    }
}
