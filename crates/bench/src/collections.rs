//! `bench collections`: hashes, lists, sets, sorted sets and streams, beside other servers.
//!
//! Every server runs on one core, the client on another. Three parts:
//!
//! * speed: each command on one key with very many elements, and on many keys with ten, all in memory. Before each round the
//!   data is written anew; rounds of the servers take turns, and medians are compared.
//! * memory: how much resident memory grows by when the same data is written to each.
//! * cold: how many reads of the device commands take on one element of a key that is wholly there; Ferrite only.

mod cold;
mod data;
mod memory;
mod speed;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::Verdict;
use crate::contender::{self, Contender, Cores, Running};
use data::Shape;

/// The least throughput against Redis.
const SPEED_GOAL: f64 = 1.0;

/// Submissions to the device that one command may take.
const ROUNDS_GOAL: u64 = 3;

/// Elements of a small key.
const SMALL_ELEMENTS: u64 = 10;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Speed,
    Memory,
    Cold,
}

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    contenders: contender::Options,

    /// What to measure: all parts if none is given
    #[arg(long = "part", value_name = "PART")]
    parts: Vec<Part>,

    /// Elements of a large key, and the number of small keys whose memory is measured
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(100..=50_000_000))]
    elements: u64,

    /// Number of small keys that commands go to
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    small_keys: u64,

    /// Commands of one round
    #[arg(long, value_name = "N", default_value_t = 500_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    commands: u64,

    /// How often each command is measured
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,

    /// Measure only these commands
    #[arg(long = "command", value_name = "NAME")]
    only: Vec<String>,

    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures the parts and prints them.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    let contenders = options.contenders.contenders();
    let cores = Cores::find()?;
    cores.pin_client()?;
    let mut document = serde_json::Map::new();
    document.insert("command".into(), "collections".into());
    document.insert("elements".into(), options.elements.into());
    document.insert("small_keys".into(), options.small_keys.into());
    let parts: [(Part, &str, Measure); 3] = [
        (Part::Speed, "speed", speed),
        (Part::Memory, "memory", memory),
        (Part::Cold, "cold", cold),
    ];
    for (part, name, measure) in parts {
        if options.parts.is_empty() || options.parts.contains(&part) {
            document.insert(name.into(), measure(options, &contenders, cores)?);
        }
    }
    if let Some(path) = &options.json {
        crate::write_file(path, &format!("{:#}\n", Value::Object(document)))?;
    }
    Ok(Verdict::AllRight)
}

/// Measures a part, prints it, and returns it for programs.
type Measure = fn(&Options, &[Contender], Cores) -> Result<Value, String>;

impl Options {
    fn wants(&self, command: &str) -> bool {
        let is_it = |name: &String| name.eq_ignore_ascii_case(command);
        self.only.is_empty() || self.only.iter().any(is_it)
    }
}

fn speed(options: &Options, contenders: &[Contender], cores: Cores) -> Result<Value, String> {
    let servers = contenders.iter().map(|one| one.start(cores, "", None));
    let servers = servers.collect::<Result<Vec<Running>, _>>()?;
    let names: Vec<&str> = contenders.iter().map(|one| one.name.as_str()).collect();
    println!(
        "\nCommands a second (in parentheses the server's processor time of one in microseconds)\n"
    );
    println!(
        "| | {} | against redis | against the best |  |",
        names.join(" | ")
    );
    println!("|---{}|---|---|---|", "|---".repeat(names.len()));
    let large = Shape {
        keys: 1,
        elements: options.elements,
    };
    let small = Shape {
        keys: options.small_keys,
        elements: SMALL_ELEMENTS,
    };
    let mut rows = Vec::new();
    for shape in [large, small] {
        for row in speed::ROWS
            .iter()
            .filter(|row| options.wants(row.command()))
        {
            let outcome = row.measure(&servers, shape, options.rounds, options.commands)?;
            rows.push(print_speed(&outcome, &names));
        }
    }
    Ok(rows.into())
}

fn print_speed(outcome: &speed::Outcome, names: &[&str]) -> Value {
    let measured = &outcome.measured;
    let ours = measured[0].per_second();
    let rivals = names.iter().zip(measured).skip(1);
    let redis = rivals.clone().find(|(name, _)| **name == "redis");
    let best = rivals.map(|(_, rival)| rival.per_second()).reduce(f64::max);
    let against = |rival: Option<f64>| match rival {
        Some(rival) => format!("{:.2}x", ours / rival),
        None => "-".to_owned(),
    };
    let redis = redis.map(|(_, redis)| redis.per_second());
    let cells: Vec<String> = measured
        .iter()
        .map(|one| format!("{:.0} ({:.2})", one.per_second(), one.cpu_micros()))
        .collect();
    let verdict = match redis {
        Some(redis) if ours >= SPEED_GOAL * redis => "reached",
        Some(_) => "**missed**",
        None => "",
    };
    let Shape { keys, elements } = outcome.shape;
    println!(
        "| {}, {keys} x {elements} | {} | {} | {} | {verdict} |",
        outcome.command,
        cells.join(" | "),
        against(redis),
        against(best)
    );
    let servers: serde_json::Map<String, Value> = names
        .iter()
        .zip(measured)
        .map(|(name, one)| ((*name).to_owned(), one.to_json()))
        .collect();
    json!({ "row": outcome.command, "keys": keys, "elements": elements, "servers": servers })
}

fn memory(options: &Options, contenders: &[Contender], cores: Cores) -> Result<Value, String> {
    println!("\nBytes of resident memory an element\n");
    let names: Vec<&str> = contenders.iter().map(|one| one.name.as_str()).collect();
    println!("| | {} | against redis | target | |", names.join(" | "));
    println!("|---{}|---|---|---|", "|---".repeat(names.len()));
    let mut rows = Vec::new();
    for case in memory::cases(options.elements) {
        let bytes = contenders.iter().map(|one| case.measure(one, cores));
        let bytes = bytes.collect::<Result<Vec<u64>, _>>()?;
        let Shape { keys, elements } = case.shape;
        let each = |bytes: u64| bytes as f64 / (keys * elements) as f64;
        let cells: Vec<String> = bytes.iter().map(|it| format!("{:.1}", each(*it))).collect();
        let redis = names.iter().position(|name| *name == "redis");
        let ratio = redis.map(|redis| bytes[0] as f64 / bytes[redis] as f64);
        let (shown, verdict) = match ratio {
            Some(ratio) if ratio <= case.goal => (format!("{ratio:.2}x"), "reached"),
            Some(ratio) => (format!("{ratio:.2}x"), "**missed**"),
            None => ("-".into(), ""),
        };
        let (kind, goal) = (case.kind.name(), case.goal);
        println!(
            "| {kind}, {keys} x {elements} | {} | {shown} | {goal}x | {verdict} |",
            cells.join(" | ")
        );
        let bytes: serde_json::Map<String, Value> = names
            .iter()
            .zip(&bytes)
            .map(|(name, bytes)| ((*name).to_owned(), (*bytes).into()))
            .collect();
        rows.push(json!({ "kind": kind, "keys": keys, "elements": elements, "bytes": bytes }));
    }
    Ok(rows.into())
}

fn cold(options: &Options, contenders: &[Contender], cores: Cores) -> Result<Value, String> {
    println!(
        "\nThe most that one command on a wholly cold key of {} elements asks of the device\n",
        options.elements
    );
    println!("| | reads | target | rounds | bytes | |\n|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    for case in cold::CASES
        .iter()
        .filter(|case| options.wants(case.command))
    {
        let most = case.measure(&contenders[0], cores, options.elements)?;
        let verdict = match most.reads <= case.goal && most.rounds <= ROUNDS_GOAL {
            true => "reached",
            false => "**missed**",
        };
        let (command, goal) = (case.command, case.goal);
        println!(
            "| {command} | {} | {goal} | {} | {} | {verdict} |",
            most.reads, most.rounds, most.bytes
        );
        rows.push(json!({
            "row": command,
            "reads": most.reads,
            "rounds": most.rounds,
            "bytes": most.bytes,
        }));
    }
    Ok(rows.into())
}
