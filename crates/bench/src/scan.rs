//! `bench scan`: walking over keys that are on the device.
//!
//! Writes all keys, makes them cold (`DEBUG FORCE-COLD`), and walks over all of them with SCAN, on one connection, each call
//! after the reply to the one before. The time includes what this client needs to read the replies and to check that every key
//! is returned. The median of the rounds counts.
//!
//! Then single calls with COUNT 10, each timed, from the cursors that the walk has seen, in random order: so each asks for parts of
//! key files that the one before has not read, of as many segments as it meets keys. The 99th percentile counts.

use std::time::Instant;

use clap::Args;
use resp::Reply;
use serde_json::json;

use crate::Verdict;
use crate::connection::Connection;
use crate::figure::{self, Figure, Goal, median};
use crate::info::Info;
use crate::keys::KeyFormat;
use crate::latency::Latencies;
use crate::random::Permutation;
use crate::testbed::{self, Data, KEY_BYTES, Testbed};

/// Keys a second of a walk over all with [`WALK_COUNT`].
const WALK_GOAL: f64 = 1_000_000.0;
const WALK_COUNT: u64 = 1000;

/// What a call with [`STEP_COUNT`] may take, in milliseconds.
const STEP_GOAL_MS: f64 = 20.0;
const STEP_COUNT: u64 = 10;

/// The most calls with [`STEP_COUNT`].
const STEPS_MAX: usize = 10_000;

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    testbed: testbed::Options,

    /// The server's maxmemory, in MiB; the size of segments follows from it
    #[arg(long, value_name = "MIB", default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(32..))]
    maxmemory: u64,

    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 4_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,

    /// Length of a value in bytes
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    value_bytes: u64,

    /// Walks over all keys
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,
}

/// Measures both and prints them.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    let arguments = format!(
        "--maxmemory {}mb --enable-debug-command yes",
        options.maxmemory
    );
    let data = Data {
        keys: options.keys,
        value_bytes: options.value_bytes,
    };
    let testbed = Testbed::new(&options.testbed, &arguments, data)?;
    let _server = testbed.start_full()?;
    let mut connection = testbed.connect()?;
    connection.order(&[b"DEBUG", b"FORCE-COLD"])?;
    let info = Info::ask(&mut connection)?;
    let cold: u64 = info.number("cold_segments")?;
    let in_memory = info.number::<u64>("warm_segments")? + info.number::<u64>("hot_segments")?;
    println!("{cold} segments on the device, {in_memory} in memory");
    let mut cursors = Vec::new();
    let mut per_second = Vec::new();
    for round in 1..=options.rounds {
        let begun = Instant::now();
        let replies = walk(&mut connection)?;
        let seconds = begun.elapsed().as_secs_f64();
        cursors = check(&replies, options.keys)?;
        per_second.push(options.keys as f64 / seconds);
        println!(
            "round {round}: {} calls with COUNT {WALK_COUNT} in {seconds:.2} s, {:.0} keys/s",
            replies.len(),
            options.keys as f64 / seconds
        );
    }
    let steps = step(&mut connection, &cursors)?;
    println!(
        "{} calls with COUNT {STEP_COUNT}: {}",
        steps.count(),
        steps.describe()
    );
    let figures = [
        Figure {
            name: "keys a second of SCAN with COUNT 1000, all cold",
            goal: Goal::AtLeast(WALK_GOAL),
            measured: median(per_second.iter().copied()),
            unit: "",
        },
        Figure {
            name: "p99 of SCAN with COUNT 10, all cold",
            goal: Goal::AtMost(STEP_GOAL_MS),
            measured: steps.micros_at(99.0) / 1e3,
            unit: " ms",
        },
    ];
    figure::print_table(&figures);
    options.testbed.write_json(&json!({
        "command": "scan",
        "keys": options.keys,
        "value_bytes": options.value_bytes,
        "cold_segments": cold,
        "in_memory_segments": in_memory,
        "keys_per_second": per_second,
        "steps": steps.to_json(),
        "figures": figure::to_json(&figures),
    }))?;
    Ok(Verdict::AllRight)
}

/// Walks over all keys; returns the replies as they came. Only what is needed to go on is looked at: it is the server's time
/// that counts.
fn walk(connection: &mut Connection) -> Result<Vec<Vec<u8>>, String> {
    let mut replies = Vec::new();
    let mut cursor = b"0".to_vec();
    loop {
        let count = WALK_COUNT.to_string();
        let reply = connection.call_undecoded(&[b"SCAN", &cursor, b"COUNT", count.as_bytes()])?;
        let next = reply.split(|byte| *byte == b'\n').nth(2);
        let next = next.and_then(|line| line.strip_suffix(b"\r"));
        cursor = next.ok_or("SCAN was answered without a cursor")?.to_vec();
        replies.push(reply);
        if cursor == b"0" {
            return Ok(replies);
        }
    }
}

/// Checks the replies of a walk over all keys; returns the cursors in them. A key that was not returned is an error.
fn check(replies: &[Vec<u8>], keys: u64) -> Result<Vec<u64>, String> {
    let format = KeyFormat::new(KEY_BYTES, keys)?;
    let mut is_returned = vec![false; keys as usize];
    let mut cursors = Vec::new();
    for reply in replies {
        let decoded = resp::decode(reply).map_err(|error| error.to_string())?;
        let (reply, _) = decoded.ok_or("a reply of SCAN ends too early")?;
        let (cursor, returned) = cursor_and_keys(reply)?;
        for key in returned {
            let is_key = |index: &u64| *index < keys;
            let Some(index) = key_index(&key, format).filter(is_key) else {
                return Err(format!("SCAN returned {key:?}, which nobody has written"));
            };
            is_returned[index as usize] = true;
        }
        cursors.push(cursor);
    }
    // The last one, which begins a walk anew.
    cursors.pop();
    let missed = is_returned.iter().filter(|is| !**is).count();
    match missed {
        0 => Ok(cursors),
        _ => Err(format!("SCAN did not return {missed} of {keys} keys")),
    }
}

/// Times single calls.
fn step(connection: &mut Connection, cursors: &[u64]) -> Result<Latencies, String> {
    let mut latencies = Latencies::new();
    if cursors.is_empty() {
        return Ok(latencies);
    }
    let order = Permutation::new(cursors.len() as u64, 1);
    for at in 0..cursors.len().min(STEPS_MAX) {
        let cursor = cursors[order.nth(at as u64) as usize];
        let begun = Instant::now();
        scan(connection, cursor, STEP_COUNT)?;
        latencies.record(begun.elapsed().as_nanos() as u64);
    }
    Ok(latencies)
}

/// One call, with its reply.
fn scan(connection: &mut Connection, cursor: u64, count: u64) -> Result<(u64, Vec<Reply>), String> {
    let (cursor, count) = (cursor.to_string(), count.to_string());
    cursor_and_keys(connection.call(&[b"SCAN", cursor.as_bytes(), b"COUNT", count.as_bytes()])?)
}

/// The next cursor, and keys.
fn cursor_and_keys(reply: Reply) -> Result<(u64, Vec<Reply>), String> {
    let wrong = "SCAN was answered with something else than a cursor and keys";
    let Reply::Array(parts) = reply else {
        return Err(wrong.into());
    };
    let Ok([Reply::Bulk(next), Reply::Array(keys)]) = <[Reply; 2]>::try_from(parts) else {
        return Err(wrong.into());
    };
    let next = std::str::from_utf8(&next)
        .ok()
        .and_then(|next| next.parse().ok());
    Ok((next.ok_or(wrong)?, keys))
}

/// The index of a key that [`KeyFormat`] has spelled.
fn key_index(key: &Reply, format: KeyFormat) -> Option<u64> {
    match key {
        Reply::Bulk(key) if key.len() == format.bytes() && key[0] == b'k' => {
            std::str::from_utf8(&key[1..]).ok()?.parse().ok()
        }
        _ => None,
    }
}
