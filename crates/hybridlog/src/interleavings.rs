//! Tests that try the engine's threads in thousands of orders: the modules as they are shipped, under Shuttle.
//!
//! Built with `--cfg shuttle` (`scripts/interleavings.sh` does it), every step of an atomic or a lock is a point at which the
//! scheduler may let another thread run, see [`sync`](crate::sync). All threads of a test are one thread of the system, so an
//! execution is a sequence of such decisions: it is random, and a failure prints the sequence, with which
//! `shuttle::replay` repeats it. Half of the executions choose any thread at any point, half prefer one thread and interrupt
//! it at few points (PCT; Burckhardt et al., ASPLOS 2010), which finds other bugs.
//!
//! Shuttle and not Loom: Loom's atomics cannot lie in reserved memory, in which buckets, segments and records do; it tries
//! *all* orders, and what is tested here has hundreds of steps. What Shuttle does not see is weak memory: every atomic step is
//! as if sequentially consistent. Missing fences are for tests on real processors (see `epoch`), and for reading.
//!
//! A test that cannot fail proves nothing. So every scenario has a bug that can be planted into the shipped module, and
//! [`planted_bugs_are_caught`] sees to it that the scenario finds it.

mod epochs;
mod indexes;
mod latches;
mod stores;

use std::process::Command;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};

use crate::sync::PLANTED;

/// Executions of each kind, unless this variable of the environment says how many.
const EXECUTIONS: &str = "FERRITE_INTERLEAVINGS";
/// Points at which PCT interrupts the thread that it prefers.
const INTERRUPTIONS: usize = 3;
/// What takes longer does not end.
const STEPS_MAX: usize = 300_000;
const STACK_BYTES: usize = 1 << 20;

/// Runs `scenario` again and again, each time in another order.
fn explore(executions: usize, scenario: fn()) {
    let asked = std::env::var(EXECUTIONS).ok();
    let asked = asked.map(|text| text.parse().expect("a number of executions"));
    let executions = asked.unwrap_or(executions);
    // With a bug it ends with the first execution that fails, and there must be one.
    let rounds = std::env::var(PLANTED).map_or(1, |_| 20);
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    for _ in 0..rounds {
        Runner::new(RandomScheduler::new(executions), config.clone()).run(scenario);
        let scheduler = PctScheduler::new(INTERRUPTIONS, executions);
        Runner::new(scheduler, config.clone()).run(scenario);
    }
}

/// A bug, the scenario that must find it, and what that says then.
const BUGS: &[(&str, &str, &str)] = &[
    (
        "writers_overlook_readers",
        "latches::writers_exclude_all_others",
        "a writer beside a reader",
    ),
    (
        "latches_in_any_order",
        "latches::whoever_waits_has_his_turn",
        "exceeded",
    ),
    (
        "inner_guard_unpins",
        "epochs::a_barrier_waits_for_all_pins",
        "withdrawn while pinned",
    ),
    (
        "half_done_is_overlooked",
        "epochs::a_generation_ends_with_its_operations",
        "still runs",
    ),
    (
        "readers_do_not_look_again",
        "indexes::nothing_is_lost_in_a_split",
        "lost",
    ),
    (
        "splits_go_unnoticed",
        "indexes::nothing_is_lost_in_a_split",
        "lost",
    ),
    (
        "sealed_without_barrier",
        "stores::what_is_written_in_place_is_sealed",
        "the last value",
    ),
    (
        "torn_reads",
        "stores::what_is_written_in_place_is_sealed",
        "the last value",
    ),
    (
        "relocated_in_front",
        "stores::a_second_chance_never_brings_back_an_old_value",
        "the last value",
    ),
    (
        "writers_do_not_look_again",
        "stores::a_second_chance_never_brings_back_an_old_value",
        "the last value",
    ),
    (
        "relocated_in_front",
        "stores::a_promotion_and_compaction_leave_one_slot",
        "slots of one record",
    ),
    (
        "compacted_in_front",
        "stores::compaction_never_brings_back_an_old_value",
        "the last value",
    ),
];

#[test]
fn planted_bugs_are_caught() {
    let this = std::env::current_exe().expect("the path of this program");
    for (bug, scenario, says) in BUGS {
        // In a process of its own: threads of an execution that has failed are left where they are.
        let mut run = Command::new(&this);
        run.args([&format!("interleavings::{scenario}"), "--exact"]);
        let output = run.env(PLANTED, bug).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("running 1 test"),
            "there is no scenario {scenario}"
        );
        assert!(!output.status.success(), "{scenario} does not see {bug}");
        assert!(
            text.contains(says),
            "{scenario} fails with {bug}, but not by saying {says:?}:\n{text}"
        );
    }
}
