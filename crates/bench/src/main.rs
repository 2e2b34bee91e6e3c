//! Ferrite's measuring tools, one command each:
//!
//! * `load` drives any server that speaks RESP, measures it, and checks every byte it returns;
//! * `engine` measures the storage engine itself, without a server around it;
//! * `durability` measures what the command log costs a server;
//! * `checkpoint`, `background` and `restart` measure what clients notice of checkpoints, of compaction, and of a restart;
//! * `scan` walks over keys that are on the device;
//! * `collections` measures commands on collections, and their memory, beside other servers;
//! * `kill` kills a server again and again and checks that no acknowledged write is lost;
//! * `soak` loads a server with many times more data than memory, and watches memory, disk and stalls;
//! * `rawread` is the yardstick for cold reads: random `O_DIRECT` reads and nothing else.
//!
//! Every command prints a table, and writes JSON and an SVG chart when asked to. A command exits
//! with 1 when it could not run, or when an answer it got was wrong.

mod background;
mod chart;
mod checkpoint;
mod clock;
mod collections;
mod connection;
mod contender;
mod durability;
mod engine;
mod figure;
mod info;
mod keys;
mod kill;
mod latency;
mod load;
mod pipelines;
mod pressure;
mod random;
mod rawread;
mod restart;
mod scan;
mod server;
mod server_process;
mod soak;
mod testbed;
mod values;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "bench",
    version,
    about = "Measures Ferrite, and any other RESP server"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drive a RESP server with a mix of reads and writes, and check what it returns
    Load(Box<load::Options>),
    /// Measure the storage engine itself, in memory and on disk
    Engine(engine::Options),
    /// What the command log costs a server, and how fast it is when every change is synced
    Durability(durability::Options),
    /// What clients notice of a checkpoint while they write as fast as they can
    Checkpoint(checkpoint::Options),
    /// What GETs notice of compaction and checkpoints
    Background(background::Options),
    /// How long a server takes from its start to its first answer
    Restart(restart::Options),
    /// Walk over keys that are on the device with SCAN
    Scan(scan::Options),
    /// Commands on collections beside other servers, their memory, and their reads of the device
    Collections(collections::Options),
    /// Kill a server at random moments and check what is there after its restart
    Kill(kill::Options),
    /// Load a server with much more data than memory for long, and check everything
    Soak(soak::Options),
    /// Random O_DIRECT reads of data files over one io_uring: what the disk itself can do
    Rawread(rawread::Options),
}

/// What a command that ran found out.
enum Verdict {
    AllRight,
    /// Some answer was wrong; the command has said which.
    Wrong,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Load(options) => load::run(&options),
        Command::Engine(options) => engine::run(&options),
        Command::Durability(options) => durability::run(&options),
        Command::Checkpoint(options) => checkpoint::run(&options),
        Command::Background(options) => background::run(&options),
        Command::Restart(options) => restart::run(&options),
        Command::Scan(options) => scan::run(&options),
        Command::Collections(options) => collections::run(&options),
        Command::Kill(options) => kill::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Rawread(options) => rawread::run(&options),
    };
    match outcome {
        Ok(Verdict::AllRight) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("bench: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a result file.
fn write_file(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
