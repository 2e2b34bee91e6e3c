//! `bench load`: drives any server that speaks RESP.
//!
//! A run is up to three phases, in this order, each reported on its own:
//!
//! * `preload` writes every key once, in order;
//! * `mix` draws operations and keys by the asked ratios and distribution;
//! * `verify` reads every key exactly once, in a random order, and checks every byte.
//!
//! With `--verify` the mix is checked as well. Each key is then written by one connection only, so
//! that its versions reach the server in order, and a table of the versions the server has
//! acknowledged says how old an answer may be: an older one is reported as stale.

mod client;
mod connection;
mod options;
mod reply;
mod report;
mod requests;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use self::options::Options;
pub(crate) use self::report::PhaseReport;

use self::client::{Client, Tally};
use self::requests::{KeySpace, Phase, Work};
use crate::Verdict;
use crate::server_process::ProcessUsage;

/// Runs the asked phases, prints what they found, and says whether every answer was right.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    let reports = measure(options, PhaseReport::print)?;
    if let Some(path) = &options.json {
        report::write_json(path, options, &reports)?;
    }
    if let Some(path) = &options.chart {
        report::write_chart(path, options, &reports)?;
    }
    let right = reports.iter().all(|report| report.tally.is_right());
    Ok(if right {
        Verdict::AllRight
    } else {
        Verdict::Wrong
    })
}

/// Runs the asked phases one after the other, and calls `each` with what each has found.
pub(crate) fn measure(
    options: &Options,
    each: impl Fn(&PhaseReport),
) -> Result<Vec<PhaseReport>, String> {
    let phases = options.phases()?;
    let key_space = KeySpace::new(options)?;
    let mut clients = connect(options)?;
    let mut reports = Vec::new();
    for work in phases {
        let report = run_phase(work, options, &key_space, &mut clients)?;
        each(&report);
        reports.push(report);
    }
    Ok(reports)
}

/// Opens all connections, dealt out evenly over the threads.
fn connect(options: &Options) -> Result<Vec<Client>, String> {
    let threads = options.threads()?;
    let mut clients: Vec<Client> = Vec::new();
    for thread in 0..threads {
        let numbers = (thread..options.connections).step_by(threads);
        clients.push(Client::connect(options, numbers)?);
    }
    Ok(clients)
}

fn run_phase(
    work: Work,
    options: &Options,
    key_space: &KeySpace,
    clients: &mut [Client],
) -> Result<PhaseReport, String> {
    let usage = |pid: Option<u32>| pid.map(ProcessUsage::of).transpose();
    let usage_before = usage(options.server_pid)?;
    let phase = Phase::new(work, options, key_space);
    let finished = AtomicBool::new(false);
    let outcomes: Vec<Result<Tally, String>> = thread::scope(|scope| {
        let progress = scope.spawn(|| show_progress(&phase, &finished));
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| client.run(&phase)))
            .collect();
        let outcomes = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("a client thread panicked".into()))
            })
            .collect();
        finished.store(true, Ordering::Relaxed);
        progress.thread().unpark();
        outcomes
    });
    let elapsed = phase.started.elapsed();
    let mut tally = Tally::default();
    for outcome in outcomes {
        tally.add(&outcome?);
    }
    Ok(PhaseReport {
        work,
        elapsed,
        tally,
        usage: usage_before.zip(usage(options.server_pid)?),
        rate: phase.rate,
    })
}

/// Draws a progress bar on stderr until `finished`, if stderr is a terminal.
fn show_progress(phase: &Phase<'_>, finished: &AtomicBool) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let length = match phase.deadline {
        None => phase.total,
        Some(deadline) => deadline.as_millis() as u64,
    };
    let style = ProgressStyle::with_template("{prefix:8} {wide_bar} {percent}%  {msg}")
        .expect("the template is valid");
    let bar = ProgressBar::new(length)
        .with_style(style)
        .with_prefix(phase.work.name());
    let mut last = (Instant::now(), 0);
    while !finished.load(Ordering::Relaxed) {
        thread::park_timeout(Duration::from_millis(200));
        let done = phase.done.load(Ordering::Relaxed);
        let per_second = (done - last.1) as f64 / last.0.elapsed().as_secs_f64();
        last = (Instant::now(), done);
        bar.set_message(format!("{per_second:.0}/s"));
        bar.set_position(match phase.deadline {
            None => done,
            Some(_) => (phase.started.elapsed().as_millis() as u64).min(length),
        });
    }
    bar.finish_and_clear();
}
