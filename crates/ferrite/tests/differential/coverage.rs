//! Which commands ran, how often, and how often with success.

use std::collections::BTreeMap;

/// The least number of runs of each command.
pub(crate) const RUNS_MIN: usize = 100;
/// The least share of commands that must succeed, in percent.
const SUCCESSES_MIN_PERCENT: usize = 60;

/// Runs and successes by command.
#[derive(Default)]
pub(crate) struct Coverage {
    by_command: BTreeMap<&'static str, (usize, usize)>,
}

impl Coverage {
    pub(crate) fn count(&mut self, name: &'static str, succeeded: bool) {
        let (runs, successes) = self.by_command.entry(name).or_default();
        *runs += 1;
        *successes += usize::from(succeeded);
    }

    fn totals(&self) -> (usize, usize) {
        let counts = self.by_command.values();
        counts.fold((0, 0), |(runs, successes), count| {
            (runs + count.0, successes + count.1)
        })
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        for (name, (runs, successes)) in &self.by_command {
            println!("{name:28} {runs:6} runs {successes:6} successes");
        }
        let (runs, successes) = self.totals();
        println!("{:28} {runs:6} runs {successes:6} successes", "all");
    }

    /// Every command ran often enough, with success now and then, and most of all succeeded.
    pub(crate) fn check(&self) {
        for (name, (runs, _)) in &self.by_command {
            assert!(*runs >= RUNS_MIN, "{name} ran {runs} times, not {RUNS_MIN}");
        }
        let (runs, successes) = self.totals();
        assert!(
            successes * 100 >= runs * SUCCESSES_MIN_PERCENT,
            "{successes} of {runs} commands succeeded, less than {SUCCESSES_MIN_PERCENT}%"
        );
    }
}
