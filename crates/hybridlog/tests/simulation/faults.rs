//! Faults: whatever the disk refuses, the store agrees with a plain map. An operation that is refused has changed nothing,
//! reads go on, and once the disk works again so do writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hybridlog::{BucketIndex, DashIndex, Index, Options, Stop, Store};

use crate::disk::{Action, Fault, SimulatedDisk, Step};
use crate::random::{Random, seeds};
use crate::workload::{self, Model, keys};

const STEPS: u64 = 300;

/// Every now and then something fails; for long stretches the disk is full.
fn judge(seed: u64) -> impl FnMut(&Step) -> Option<Fault> {
    let mut random = Random::new(!seed);
    let mut full_until = 0;
    move |step| {
        if random.percent(3) {
            full_until = step.number + 10;
        }
        if step.number < full_until {
            return Some(Fault::Full);
        }
        match random.below(20) {
            // A failed sync is for good, so it has tests of its own.
            0 | 1 if step.action != Action::Sync => Some(Fault::Refused),
            2 if step.action == Action::Write => Some(Fault::Short),
            3 => Some(Fault::Slow(Duration::from_micros(random.below(500)))),
            _ => None,
        }
    }
}

fn is_refusal(stop: &Stop) -> bool {
    matches!(stop, Stop::NoRoom { .. } | Stop::Io(_))
}

/// What a disk that fails refuses, it does once the disk works again.
fn settle(mut what: impl FnMut() -> Result<(), Stop>) {
    let begin = Instant::now();
    while let Err(stop) = what() {
        assert!(is_refusal(&stop), "{stop}");
        assert!(begin.elapsed() < Duration::from_secs(20), "still: {stop}");
        std::thread::yield_now();
    }
}

fn run<I: Index>(seed: u64) -> u64 {
    println!("seed {seed} on {}", I::NAME);
    let disk = SimulatedDisk::new(seed);
    let options = Options {
        segment_bytes: Some(1 << 20),
        disk: Some(Arc::new(disk.clone())),
        ..Options::new(disk.directory()).memory_bytes(12 << 20)
    };
    let store = Store::<I>::open(options).expect("an empty directory opens");
    let mut random = Random::new(seed);
    let mut model = Model::new();
    let keys = keys(0);
    disk.inject(judge(seed));
    let mut refused = 0;
    let mut tolerate = |result: Result<(), Stop>| {
        if let Err(stop) = result {
            assert!(is_refusal(&stop), "{stop}");
            refused += 1;
        }
    };
    for _ in 0..STEPS {
        let mut next = model.clone();
        let done = workload::step(&store, &mut next, &mut random, &keys);
        if done.is_ok() {
            model = next;
        }
        tolerate(done);
        model.now_ms += random.below(4);
        match random.below(10) {
            0 => tolerate(store.seal_all()),
            1 => tolerate(store.force_cold()),
            _ => {}
        }
    }
    disk.inject(|_| None);
    settle(|| store.force_cold());
    for _ in 0..20 {
        settle(|| {
            let mut next = model.clone();
            workload::step(&store, &mut next, &mut random, &keys)?;
            model = next;
            Ok(())
        });
    }
    workload::compare(&store, &model);
    refused
}

#[test]
fn what_is_refused_has_changed_nothing() {
    let mut refused = 0;
    for seed in seeds("FAULT_SEEDS", 30) {
        refused += run::<BucketIndex>(seed) + run::<DashIndex>(seed);
    }
    assert!(refused > 0);
}

/// While nothing can be written compaction fails, whatever it takes. No segment is to blame for that: afterwards their dead
/// records are given back, and at once.
#[test]
fn compaction_goes_on_when_its_copies_can_be_written_again() {
    let disk = SimulatedDisk::new(1);
    let options = Options {
        segment_bytes: Some(1 << 20),
        disk: Some(Arc::new(disk.clone())),
        ..Options::new(disk.directory())
            .memory_bytes(12 << 20)
            .command_log(false)
    };
    let store = Store::<BucketIndex>::open(options).expect("an empty directory opens");
    let keys = 0..40_000u32;
    for n in keys.clone() {
        store.set(&n.to_le_bytes(), &[1; 200]).expect("it is set");
    }
    store.force_cold().expect("it goes cold");
    disk.inject(|step| {
        let is_of_segment = step.action == Action::Create && step.name.ends_with(".seg");
        is_of_segment.then_some(Fault::Full)
    });
    for n in keys.step_by(4) {
        assert!(store.delete(&n.to_le_bytes()).expect("it can be removed"));
    }
    let is_done = store.compact(Duration::from_secs(1));
    assert!(!is_done, "the copies cannot be written");
    disk.inject(|_| None);
    assert!(store.compact(Duration::from_secs(20)));
    let stats = store.stats();
    assert!(stats.compaction_reclaimed_bytes > 5 << 20, "{stats:?}");
}
