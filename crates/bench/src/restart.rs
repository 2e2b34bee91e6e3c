//! `bench restart`: how long a server takes from its start to its first answer.
//!
//! A round begins on an empty directory, so that what one leaves behind (dead records, which the server would compact and make a checkpoint
//! for) is not part of the next. All keys are written, a checkpoint is made, and a share of the keys overwritten, at random. Then the
//! server is killed with SIGKILL and started again, and asked for a key until it is answered: the time is from the start of the process to
//! that answer, which must be the key's value. So the checkpoint and that much of the command log are what it starts from. Then the server is stopped as SHUTDOWN does
//! it, and started again: there is nothing to replay. Medians of the rounds count. Processor time, all threads together, until the
//! answer is told beside: a busy machine does not change it.
//!
//! The page cache is as the server leaves it; it drops what it has written.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use resp::Reply;
use serde_json::json;

use crate::Verdict;
use crate::connection::Connection;
use crate::figure::{self, Figure, Goal, median};
use crate::info::Info;
use crate::keys::KeyFormat;
use crate::server::Server;
use crate::server_process::ProcessUsage;
use crate::testbed::{self, Data, KEY_BYTES, Testbed};
use crate::values;

/// Seconds to the first answer after a kill.
const KILLED_GOAL: f64 = 4.0;

/// The same after an orderly end.
const STOPPED_GOAL: f64 = 2.0;

/// It is asked so often whether it is there.
const PAUSE: Duration = Duration::from_millis(1);

/// A server that takes longer does not start.
const PATIENCE: Duration = Duration::from_secs(300);

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    testbed: testbed::Options,

    /// How often both are measured
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,

    /// The server's maxmemory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048,
          value_parser = clap::value_parser!(u64).range(32..))]
    maxmemory: u64,

    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 10_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,

    /// Length of a value in bytes
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(16..=60_000))]
    value_bytes: u64,

    /// SETs since the last checkpoint, for each hundred keys
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(0..=1000))]
    overwritten_percent: u64,
}

/// One start.
#[derive(Clone, Copy)]
struct Start {
    seconds: f64,
    cpu_seconds: f64,
}

/// Measures all rounds and prints them.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    let arguments = format!(
        "--maxmemory {}mb --appendonly yes --auto-aof-rewrite-percentage 0 --save ''",
        options.maxmemory
    );
    let data = Data {
        keys: options.keys,
        value_bytes: options.value_bytes,
    };
    let (mut killed, mut stopped) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let testbed = Testbed::new(&options.testbed, &arguments, data)?;
        let mut server = testbed.start_full()?;
        let log_bytes = overwrite(&testbed, options.overwritten_percent)?;
        server.kill()?;
        let (server, after_kill) = start(&testbed)?;
        server.terminate()?;
        let (_server, after_stop) = start(&testbed)?;
        println!(
            "round {round}: after a kill, with {:.0} MB of command log, {:.2} s ({:.2} s of processor time); after SHUTDOWN {:.2} s ({:.2} s)",
            log_bytes as f64 / 1e6,
            after_kill.seconds,
            after_kill.cpu_seconds,
            after_stop.seconds,
            after_stop.cpu_seconds,
        );
        killed.push(after_kill);
        stopped.push(after_stop);
    }
    let seconds = |starts: &[Start]| median(starts.iter().map(|start| start.seconds));
    let figures = [
        Figure {
            name: "from the start of the process to the first GET, after a kill",
            goal: Goal::AtMost(KILLED_GOAL),
            measured: seconds(&killed),
            unit: " s",
        },
        Figure {
            name: "the same after SHUTDOWN",
            goal: Goal::AtMost(STOPPED_GOAL),
            measured: seconds(&stopped),
            unit: " s",
        },
    ];
    figure::print_table(&figures);
    options.testbed.write_json(&json!({
        "command": "restart",
        "keys": options.keys,
        "value_bytes": options.value_bytes,
        "overwritten_percent": options.overwritten_percent,
        "after_kill": starts_to_json(&killed),
        "after_shutdown": starts_to_json(&stopped),
        "figures": figure::to_json(&figures),
    }))?;
    Ok(Verdict::AllRight)
}

/// Makes a checkpoint and writes what a kill leaves to the command log; returns how long that is.
fn overwrite(testbed: &Testbed, percent: u64) -> Result<u64, String> {
    let mut connection = testbed.connect()?;
    connection.order(&[b"SAVE"])?;
    let generation = |connection: &mut Connection| {
        Info::ask(connection)?.number::<u64>("last_checkpoint_generation")
    };
    let saved = generation(&mut connection)?;
    let sets = testbed.data.keys * percent / 100;
    if sets > 0 {
        testbed.drive(&["--requests", &sets.to_string(), "--pipeline", "64"])?;
    }
    if !matches!(
        connection.call(&[b"WAITAOF", b"1", b"0", b"0"])?,
        Reply::Array(_)
    ) {
        return Err("WAITAOF has failed".into());
    }
    if generation(&mut connection)? != saved {
        return Err(
            "the server made a checkpoint while keys were overwritten: the command log holds only what came after it".into(),
        );
    }
    Info::ask(&mut connection)?.number("aof_current_size")
}

/// Starts the server and asks for a key until it is there.
fn start(testbed: &Testbed) -> Result<(Server, Start), String> {
    let mut key = Vec::new();
    KeyFormat::new(KEY_BYTES, testbed.data.keys)?.append(&mut key, 0);
    let begun = Instant::now();
    let mut server = testbed.launch.spawn()?;
    loop {
        let answer = testbed.connect();
        let answer = answer.and_then(|mut connection| connection.call(&[b"GET", &key]));
        match answer {
            Ok(Reply::Bulk(value)) if values::check(&value, 0).is_some() => break,
            // It loads, or does not listen yet.
            Ok(Reply::Error(_)) | Err(_) => {}
            Ok(_) => return Err("the first GET has a wrong answer".into()),
        }
        if server.has_ended() || begun.elapsed() > PATIENCE {
            let log = testbed.launch.log_end();
            return Err(format!("the server does not start\n{log}"));
        }
        thread::sleep(PAUSE);
    }
    let start = Start {
        seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: ProcessUsage::of(server.pid())?.cpu_micros / 1e6,
    };
    Ok((server, start))
}

fn starts_to_json(starts: &[Start]) -> serde_json::Value {
    let starts = starts.iter();
    starts
        .map(|start| json!({ "seconds": start.seconds, "cpu_seconds": start.cpu_seconds }))
        .collect()
}
