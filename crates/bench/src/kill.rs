//! `bench kill`: does an acknowledged write survive `kill -9`?
//!
//! Starts any RESP server with an append-only file, loads it over many connections, kills it at
//! random moments, starts it again on the same directory and compares every key with what the
//! connections know ([`oracle`]). What must hold follows from the server's own `appendfsync`:
//!
//! * `always`: every acknowledged write is there;
//! * `everysec`: what is missing was acknowledged in the last second before the kill, and is the
//!   end of what was done: no later write is there without the earlier ones;
//! * both: transactions are whole or absent, nothing is there that was never written or was
//!   deleted, expiries are as set, and DBSIZE is right.
//!
//! Some kills fall into a checkpoint (BGREWRITEAOF) or into the start after an earlier kill.

mod find;
mod oracle;
mod work;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use resp::Reply;

use self::find::find;
use self::oracle::{Found, Oracle};
use self::work::{Abilities, Work};
use crate::Verdict;
use crate::connection::Connection;
use crate::random::Random;
use crate::server::{self, Launch, Server};

/// What `everysec` may lose: a second, and what a busy machine needs to get the next one going.
const EVERYSEC_US: u64 = 1_250_000;

/// The first connections have a database each, which they may flush; the others share database 0.
const OWN_DATABASES: usize = 2;

/// One in this many reads what it has written, before it writes on.
const READ_ONE_IN: u64 = 8;

/// One kill in this many falls into the start after another one.
const KILL_START_ONE_IN: u64 = 4;

/// For so long a server may count keys that have expired before it has removed them.
const EXPIRED_PATIENCE: Duration = Duration::from_secs(5);

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    /// The server's command line, as for a shell; --port, --unixsocket and --dir are added to it
    #[arg(long, value_name = "COMMAND")]
    server: String,

    /// How often it is killed
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,

    /// Connections, each with keys of its own
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    connections: u64,

    /// Keys of each connection
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u64).range(8..=1_000_000))]
    keys: u64,

    /// The longest time from a start to the next kill, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_500,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    run_ms: u64,

    /// The directory under which the server's directory is made
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Repeats the choices of an earlier run, though not its timing
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs all cycles; stops at the first that finds something wrong.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    let seed = options.seed.unwrap_or_else(unix_us);
    println!("seed {seed}");
    let scratch = server::scratch(options.dir.as_deref())?;
    let path = scratch.path().canonicalize();
    let path = path.map_err(|error| format!("{}: {error}", scratch.path().display()))?;
    let launch = Launch::new(&options.server, &path)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let (server, _) = launch.start()?;
    let promise = Promise::ask(&launch)?;
    let outcome = Run::new(options, seed, &launch, promise).cycles(server);
    match outcome {
        Ok(totals) => {
            totals.print();
            Ok(Verdict::AllRight)
        }
        Err(wrong) => {
            eprintln!("WRONG: {wrong}");
            eprintln!(
                "seed {seed}; the server's files are in {}",
                scratch.keep().display()
            );
            Ok(Verdict::Wrong)
        }
    }
}

/// The time, Unix microseconds.
fn unix_us() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since_epoch.as_micros() as u64
}

/// What all cycles found.
#[derive(Default)]
struct Totals {
    cycles: u64,
    acknowledged: usize,
    lost: usize,
    restarts: Vec<Duration>,
}

impl Totals {
    fn print(mut self) {
        self.restarts.sort_unstable();
        let restart_ms = |at: usize| self.restarts.get(at).map_or(0, Duration::as_millis);
        println!(
            "{} cycles: {} writes acknowledged, {} lost; restart median {} ms, longest {} ms",
            self.cycles,
            self.acknowledged,
            self.lost,
            restart_ms(self.restarts.len() / 2),
            restart_ms(self.restarts.len() - 1),
        );
    }
}

/// What the server says about itself.
struct Promise {
    /// Acknowledged no longer than this before the kill, a write may be lost, in microseconds.
    may_lose_us: u64,
    transactions: bool,
}

impl Promise {
    fn ask(launch: &Launch) -> Result<Self, String> {
        let mut connection = Connection::open(launch.socket())?;
        let mut setting =
            |name: &str| match connection.call(&[b"CONFIG", b"GET", name.as_bytes()])? {
                Reply::Array(words) => match words.as_slice() {
                    [_, Reply::Bulk(value)] => Ok(String::from_utf8_lossy(value).into_owned()),
                    other => Err(format!("CONFIG GET {name} was answered {other:?}")),
                },
                other => Err(format!("CONFIG GET {name} was answered {other:?}")),
            };
        let (appendonly, appendfsync) = (setting("appendonly")?, setting("appendfsync")?);
        let may_lose_us = match (appendonly.as_str(), appendfsync.as_str()) {
            ("yes", "always") => 0,
            ("yes", "everysec") => EVERYSEC_US,
            _ => {
                return Err(format!(
                    "with appendonly {appendonly} and appendfsync {appendfsync} the server promises \
                     nothing that could be checked: start it with appendonly yes and appendfsync \
                     always or everysec"
                ));
            }
        };
        let transactions = matches!(connection.call(&[b"MULTI"])?, Reply::Simple(_));
        if !transactions {
            println!("the server has no MULTI: no transactions are sent");
        }
        println!("appendfsync {appendfsync}");
        Ok(Promise {
            may_lose_us,
            transactions,
        })
    }
}

/// One connection's part: its keys and what it knows of them.
struct Owner {
    number: usize,
    oracle: Oracle,
    random: Random,
}

impl Owner {
    fn database(&self) -> usize {
        if self.number < OWN_DATABASES {
            self.number + 1
        } else {
            0
        }
    }
}

/// Where a run is.
struct Run<'a> {
    options: &'a Options,
    launch: &'a Launch,
    promise: Promise,
    owners: Vec<Owner>,
    random: Random,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options, seed: u64, launch: &'a Launch, promise: Promise) -> Self {
        let owner = |number: u64| {
            let name = |key| format!("{number}:{key}").into_bytes();
            Owner {
                number: number as usize,
                oracle: Oracle::new((0..options.keys).map(name).collect()),
                random: Random::new(seed ^ ((number + 1) << 32)),
            }
        };
        Run {
            options,
            launch,
            promise,
            owners: (0..options.connections).map(owner).collect(),
            random: Random::new(seed),
        }
    }

    /// Kills and restarts the server as often as asked. The error says what is wrong.
    fn cycles(&mut self, mut server: Server) -> Result<Totals, String> {
        let mut totals = Totals::default();
        for cycle in 1..=self.options.cycles {
            let log = self.launch;
            let wrong = |what: String| format!("cycle {cycle}: {what}\n{}", log.log_end());
            let (run_for, killed_us) = self.load_and_kill(&mut server).map_err(wrong)?;
            let restarted;
            (server, restarted) = self.restart().map_err(wrong)?;
            let found = self.check(killed_us).map_err(wrong)?;
            println!(
                "cycle {cycle}: killed after {} ms, {} writes acknowledged, {} of {} in flight are \
                 there, {} lost; restart {} ms",
                run_for.as_millis(),
                found.acknowledged,
                found.in_flight_there,
                found.in_flight,
                found.lost,
                restarted.as_millis(),
            );
            totals.cycles = cycle;
            totals.acknowledged += found.acknowledged;
            totals.lost += found.lost;
            totals.restarts.push(restarted);
        }
        Ok(totals)
    }

    /// Loads the server for a random time and kills it; returns the time and the moment.
    fn load_and_kill(&mut self, server: &mut Server) -> Result<(Duration, u64), String> {
        let run_for = Duration::from_millis(1 + self.random.below(self.options.run_ms));
        // Sometimes just before the kill, sometimes long before, sometimes not at all.
        let checkpoint_after = run_for.mul_f64((self.random.unit() * 1.5).min(1.0));
        let killing = AtomicBool::new(false);
        let (launch, transactions) = (self.launch, self.promise.transactions);
        let owners = &mut self.owners;
        thread::scope(|scope| {
            let loads: Vec<_> = owners
                .iter_mut()
                .map(|owner| scope.spawn(|| load(owner, launch, transactions, &killing)))
                .collect();
            thread::sleep(checkpoint_after);
            if checkpoint_after < run_for {
                // It may be refused: another one is running.
                let control = Connection::open(launch.socket());
                let _ = control.and_then(|mut control| control.call(&[b"BGREWRITEAOF"]));
            }
            thread::sleep(run_for - checkpoint_after);
            let ended = server.has_ended();
            killing.store(true, SeqCst);
            let killed_us = unix_us();
            server.kill()?;
            for load in loads {
                load.join().map_err(|_| "a client thread panicked")??;
            }
            if ended {
                return Err("the server has ended by itself".into());
            }
            Ok((run_for, killed_us))
        })
    }

    /// Starts the server again, sometimes after killing another one while it starts.
    fn restart(&mut self) -> Result<(Server, Duration), String> {
        if self.random.below(KILL_START_ONE_IN) == 0 {
            let mut starting = self.launch.spawn()?;
            thread::sleep(Duration::from_micros(self.random.below(60_000)));
            starting.kill()?;
        }
        self.launch.start()
    }

    /// Compares everything the server holds with what the connections know, and goes on from it.
    fn check(&mut self, killed_us: u64) -> Result<Survey, String> {
        let mut survey = Survey::default();
        let mut connection = Connection::open(self.launch.socket())?;
        let mut existing = vec![0i64; OWN_DATABASES + 1];
        let mut found_by_owner: Vec<Vec<Found>> = Vec::new();
        for owner in &self.owners {
            connection.select(owner.database())?;
            let oracle = &owner.oracle;
            let names: Vec<&[u8]> = (0..oracle.key_count())
                .map(|key| oracle.name(key))
                .collect();
            let found = find(&mut connection, &names)?;
            let there = oracle
                .surviving(&found, killed_us)
                .map_err(|what| format!("connection {}: {what}", owner.number))?;
            survey.add(oracle, there);
            found_by_owner.push(found);
        }
        survey.judge(&self.promise, killed_us)?;
        for (owner, found) in self.owners.iter_mut().zip(found_by_owner) {
            owner.oracle.adopt(found);
            existing[owner.database()] += owner.oracle.existing().count() as i64;
        }
        self.check_sizes(&mut connection, &existing)?;
        Ok(survey)
    }

    /// DBSIZE of each database. What expires meanwhile may or may not be counted, and what has expired is counted for
    /// a while.
    fn check_sizes(&self, connection: &mut Connection, existing: &[i64]) -> Result<(), String> {
        for (database, &existing) in existing.iter().enumerate() {
            connection.select(database)?;
            let owners = self
                .owners
                .iter()
                .filter(|owner| owner.database() == database);
            let expiring: i64 = owners
                .map(|owner| owner.oracle.expiring_soon() as i64)
                .sum();
            let begin = Instant::now();
            loop {
                match connection.call(&[b"DBSIZE"])? {
                    Reply::Integer(size) if (existing - expiring..=existing).contains(&size) => {
                        break;
                    }
                    Reply::Integer(size)
                        if size > existing && begin.elapsed() < EXPIRED_PATIENCE =>
                    {
                        thread::sleep(Duration::from_millis(20));
                    }
                    other => {
                        return Err(format!(
                            "DBSIZE of database {database} was answered {other:?}; it has {existing} \
                             keys, of which {expiring} expire soon"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a check has found about all connections' steps.
#[derive(Default)]
struct Survey {
    acknowledged: usize,
    in_flight: usize,
    in_flight_there: usize,
    lost: usize,
    /// When the earliest lost step was acknowledged, Unix microseconds.
    first_lost_us: Option<u64>,
    /// When the latest step that is there was sent, Unix microseconds.
    last_there_us: Option<u64>,
}

impl Survey {
    /// Adds a connection of whose steps some number in `there` has survived.
    fn add(&mut self, oracle: &Oracle, there: RangeInclusive<usize>) {
        let acknowledged = oracle.acknowledged_count();
        self.acknowledged += acknowledged;
        self.in_flight += oracle.step_count() - acknowledged;
        self.in_flight_there += there.end().saturating_sub(acknowledged);
        self.lost += acknowledged.saturating_sub(*there.end());
        let first_lost_us = oracle.acknowledged_us(*there.end());
        self.first_lost_us = [self.first_lost_us, first_lost_us]
            .into_iter()
            .flatten()
            .min();
        let last_there_us = there
            .start()
            .checked_sub(1)
            .map(|last| oracle.sent_us(last));
        self.last_there_us = self.last_there_us.max(last_there_us);
    }

    /// Whether the server may have lost what it lost.
    fn judge(&self, promise: &Promise, killed_us: u64) -> Result<(), String> {
        let Some(first_lost_us) = self.first_lost_us else {
            return Ok(());
        };
        let (lost, before_us) = (self.lost, killed_us.saturating_sub(first_lost_us));
        if before_us > promise.may_lose_us || promise.may_lose_us == 0 {
            return Err(format!(
                "{lost} acknowledged writes are lost, the first acknowledged {} ms before the kill",
                before_us / 1000
            ));
        }
        if self
            .last_there_us
            .is_some_and(|sent_us| sent_us > first_lost_us)
        {
            return Err(format!(
                "of {lost} lost writes the first was acknowledged {} ms before the kill, and yet a \
                 write is there that was sent later",
                before_us / 1000
            ));
        }
        Ok(())
    }
}

/// Sends batch after batch until the server is killed.
fn load(
    owner: &mut Owner,
    launch: &Launch,
    transactions: bool,
    killing: &AtomicBool,
) -> Result<(), String> {
    let connection = Connection::open(launch.socket()).and_then(|mut connection| {
        connection.select(owner.database())?;
        Ok(connection)
    });
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(_) if killing.load(SeqCst) => return Ok(()),
        Err(error) => return Err(error),
    };
    loop {
        match load_batch(owner, &mut connection, transactions)? {
            Ok(()) => {}
            Err(_) if killing.load(SeqCst) => return Ok(()),
            Err(lost) => return Err(format!("before the kill: {lost}")),
        }
    }
}

/// Sends one batch and reads its replies, each of which acknowledges a step. The outer error is a
/// wrong reply, the inner one a lost connection.
fn load_batch(
    owner: &mut Owner,
    connection: &mut Connection,
    transactions: bool,
) -> Result<Result<(), String>, String> {
    let flushes = owner.number < OWN_DATABASES;
    let Owner {
        number,
        oracle,
        random,
    } = owner;
    if random.below(READ_ONE_IN) == 0 {
        let key = random.below(oracle.key_count() as u64) as usize;
        let found = match find(connection, &[oracle.name(key)]) {
            Ok(found) => found,
            Err(lost) => return Ok(Err(lost)),
        };
        if !found.iter().all(|found| oracle.is_current(key, found)) {
            let (key, steps) = (oracle.name(key).escape_ascii(), oracle.step_count());
            return Err(format!(
                "connection {number}, after {steps} steps: GET {key} returned what was not written last"
            ));
        }
    }
    let abilities = Abilities {
        transactions,
        flushes,
    };
    let batch = Work {
        oracle,
        random,
        abilities,
    }
    .batch();
    if let Err(lost) = connection.send(&batch.bytes) {
        return Ok(Err(lost));
    }
    for at in 0..batch.len() {
        let reply = match connection.reply() {
            Ok(reply) => reply,
            Err(lost) => return Ok(Err(lost)),
        };
        let acknowledged = batch.acknowledged(at, &reply);
        if let Some(step) = acknowledged.map_err(|wrong| format!("connection {number}, {wrong}"))? {
            oracle.acknowledge(step);
        }
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(may_lose_us: u64, lost_us: u64, there_us: u64) -> Result<(), String> {
        let promise = Promise {
            may_lose_us,
            transactions: true,
        };
        let survey = Survey {
            lost: 1,
            first_lost_us: Some(lost_us),
            last_there_us: Some(there_us),
            ..Survey::default()
        };
        survey.judge(&promise, 10_000_000)
    }

    #[test]
    fn a_loss_is_judged_by_its_age_and_by_what_came_later() {
        assert!(
            judge(0, 10_000_001, 9_000_000).is_err(),
            "always loses nothing"
        );
        assert!(judge(EVERYSEC_US, 9_500_000, 9_499_999).is_ok());
        assert!(
            judge(EVERYSEC_US, 8_500_000, 8_400_000).is_err(),
            "too long ago"
        );
        assert!(judge(EVERYSEC_US, 9_500_000, 9_500_001).is_err(), "a hole");
    }
}
