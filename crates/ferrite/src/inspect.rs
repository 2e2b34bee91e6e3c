//! `--check` and `--repair`: what there is to be said of a data directory, one line each.
//!
//! Findings go to standard output, progress to standard error. The exit code is 0 for a directory that is sound, or has been
//! repaired; 1 for one that is damaged; 2 if that could not be found out.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use hybridlog::{OpenError, Report};

const DAMAGED: u8 = 1;
const FAILED: u8 = 2;

/// `--check DIR`.
pub(crate) fn check(directory: &Path) -> ExitCode {
    match hybridlog::check(directory, &mut tell) {
        Ok(checked) => {
            let verdict = if checked.damages == 0 {
                "sound"
            } else {
                "damaged"
            };
            say(format_args!("{verdict}: {checked}"));
            match checked.damages {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::from(DAMAGED),
            }
        }
        Err(error) => failed(&error),
    }
}

/// `--repair DIR`.
pub(crate) fn repair(directory: &Path) -> ExitCode {
    match hybridlog::repair(directory, &mut tell) {
        Ok(repaired) => {
            say(repaired);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn tell(report: Report) {
    match report {
        Report::Progress { .. } => eprintln!("{report}"),
        Report::Damage(_) | Report::Note(_) | Report::Dropped(_) => say(report),
    }
}

/// Prints a line; whoever reads it may have gone.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn failed(error: &OpenError) -> ExitCode {
    eprintln!("ferrite: {error}");
    ExitCode::from(FAILED)
}
