//! Repairs on a disk that loses its power at every single step, or that cannot read everything: what was not damaged is there
//! afterwards, as it was last, and of every file that there was the bytes are still there.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use hybridlog::{
    BucketIndex, KeyRef, LatchMode, OpenError, Options, Repaired, Store, SyncPolicy, check,
    repair_on,
};

use crate::disk::{Action, Fault, SimulatedDisk};
use crate::workload::{META, NAMESPACE};

const KEYS: usize = 100;
/// How often the power is cut at each step, each time with something else left of what was not synced.
const CRASHES_PER_STEP: u64 = 2;
const NOW_MS: u64 = 1 << 42;

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(disk: &SimulatedDisk) -> Result<Arc<Store<BucketIndex>>, OpenError> {
    Store::open(Options {
        segment_bytes: Some(1 << 20),
        disk: Some(Arc::new(disk.clone())),
        // Each change is in a block of its own in the command log.
        sync: SyncPolicy::Always,
        ..Options::new(disk.directory()).memory_bytes(12 << 20)
    })
}

fn latched(key: &[u8]) -> KeyRef<'_> {
    KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Exclusive,
    }
}

fn key(n: usize) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

fn value(n: usize, version: usize) -> Vec<u8> {
    format!("{n}:{version};").into_bytes().repeat(400)
}

fn set(store: &Store, n: usize, version: usize) {
    let (key, value) = (key(n), value(n, version));
    store
        .blocking(&[latched(&key)], NOW_MS, |op| {
            op.set(NAMESPACE, &key, &value, META)
        })
        .expect("there is room");
}

/// What the store holds of the keys that there may be.
fn values(store: &Store) -> Values {
    let mut values = Values::new();
    for key in (0..KEYS).map(key) {
        let value = store.blocking(&[latched(&key)], NOW_MS, |op| {
            let record = op.read(NAMESPACE, &key)?;
            record
                .map(|record| Ok(op.value(&record)?.into_owned()))
                .transpose()
        });
        let value = value.expect("it can be read");
        values.extend(value.map(|value| (key, value)));
    }
    values
}

/// A directory of a store that is closed: all keys in a segment, half of them overwritten blindly in a second, and every fifth
/// once more, after the checkpoint.
fn closed_store() -> (SimulatedDisk, Values) {
    let disk = SimulatedDisk::new(0);
    let store = open(&disk).expect("an empty directory opens");
    (0..KEYS).for_each(|n| set(&store, n, 0));
    store.force_cold().expect("it goes cold");
    (0..KEYS / 2).for_each(|n| set(&store, n, 1));
    // At once, before anybody has looked into what was overwritten.
    store.checkpoint().expect("a checkpoint");
    assert!(store.stats().shadows > 0, "{:?}", store.stats());
    for n in (0..KEYS).step_by(5) {
        set(&store, n, 2);
    }
    let values = values(&store);
    drop(store);
    // All that is there is durable now.
    (disk.crash(0), values)
}

fn first_file(disk: &SimulatedDisk, extension: &str) -> String {
    let files = contents(disk).into_keys();
    let mut files = files.filter(|name| name.ends_with(extension));
    files.next().expect("there is one")
}

fn remove(disk: &SimulatedDisk, name: &str) {
    use hybridlog::disk::Disk;
    disk.remove(name).expect("it is there");
    disk.sync_directory().expect("it is synced");
}

fn contents(disk: &SimulatedDisk) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(disk.directory()).expect("the directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("a name of ours"));
    names
        .filter(|name| name != "LOCK")
        .map(|name| {
            let bytes = fs::read(disk.directory().join(&name)).expect("a file");
            (name, bytes)
        })
        .collect()
}

fn repaired(disk: &SimulatedDisk) -> (Result<Repaired, OpenError>, Vec<String>) {
    let mut reports = Vec::new();
    let repaired = repair_on(disk, disk.directory(), &mut |report| {
        reports.push(report.to_string());
    });
    (repaired, reports)
}

/// Makes sure that each file of `before` is there as it was, under its name or one for what is kept.
fn assert_nothing_is_lost(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in before {
        let is_it = |(other, found): (&String, &Vec<u8>)| {
            (other == name || other.starts_with(name) && other.ends_with(".dropped"))
                && found == bytes
        };
        let names: Vec<_> = after.keys().collect();
        assert!(after.iter().any(is_it), "{name} is lost: {names:?}");
    }
}

/// Cuts the power at every step of a repair, and lets a second one do the rest. `is_right` is to look at what there is then.
fn interrupt_everywhere(damaged: &SimulatedDisk, is_right: impl Fn(&Values)) {
    let before = contents(damaged);
    for steps in 0.. {
        let mut is_over = false;
        for seed in 0..CRASHES_PER_STEP {
            println!("the power goes after {steps} steps, seed {seed}");
            let disk = damaged.crash(seed);
            disk.cut_power_after(steps);
            let (first, _) = repaired(&disk);
            is_over = disk.has_power();
            assert_eq!(is_over, first.is_ok(), "{first:?}");
            let disk = disk.crash(steps * CRASHES_PER_STEP + seed);
            assert_nothing_is_lost(&before, &contents(&disk));
            let (second, reports) = repaired(&disk);
            second.unwrap_or_else(|error| panic!("{error}: {reports:#?}"));
            assert_nothing_is_lost(&before, &contents(&disk));
            is_right(&values(&open(&disk).expect("it opens")));
        }
        if is_over {
            assert!(steps > 10, "a repair has more than {steps} steps");
            return;
        }
    }
}

#[test]
fn a_repair_without_a_manifest_finds_the_newest_values_wherever_it_was_interrupted() {
    let (disk, expected) = closed_store();
    remove(&disk, "MANIFEST");
    // So the segment of the oldest values becomes the newest.
    remove(&disk, &first_file(&disk, ".keys"));
    interrupt_everywhere(&disk, |found| assert_eq!(found, &expected));
}

#[test]
fn a_cut_log_and_a_replaced_manifest_are_kept_wherever_the_repair_was_interrupted() {
    let (disk, expected) = closed_store();
    let log = first_file(&disk, ".log");
    let middle = contents(&disk)[&log].len() as u64 / 2;
    disk.flip_bit(&log, middle * 8);
    interrupt_everywhere(&disk, |found| {
        assert_eq!(found.len(), KEYS);
        let is_last = |n: &usize| found[&key(*n)] == expected[&key(*n)];
        let changed: Vec<_> = (0..KEYS).step_by(5).collect();
        let kept = changed.iter().take_while(|n| is_last(n)).count();
        assert!(kept > 0 && !changed[kept..].iter().any(is_last), "{kept}");
        assert!((0..KEYS).filter(|n| n % 5 > 0).all(|n| is_last(&n)));
    });
}

#[test]
fn a_log_that_cannot_be_read_to_its_end_is_cut_where_that_begins() {
    let (disk, expected) = closed_store();
    let log = first_file(&disk, ".log");
    let len = contents(&disk)[&log].len() as u64;
    let bad = len / 2;
    disk.make_unreadable(&log, bad..bad + 1);
    assert!(open(&disk).is_err());
    let (done, reports) = repaired(&disk);
    let done = done.unwrap_or_else(|error| panic!("{error}: {reports:#?}"));
    assert!(done.was_damaged && done.log_bytes < len, "{done}");
    let told = |what: &str| {
        reports
            .iter()
            .any(|line| line.contains(what) && line.contains(&log))
    };
    assert!(told("damage: ") && told("dropped: "), "{reports:#?}");
    assert_eq!(
        check(disk.directory(), &mut |_| {})
            .expect("a check")
            .damages,
        0
    );
    let found = values(&open(&disk).expect("it opens"));
    let changed: Vec<_> = (0..KEYS).step_by(5).collect();
    let is_last = |n: &usize| found[&key(*n)] == expected[&key(*n)];
    let kept = changed.iter().take_while(|n| is_last(n)).count();
    // Of what is read in pieces of 4 KiB, those before the bad one.
    assert!(
        kept > 0 && kept < changed.len(),
        "{kept} kept: {reports:#?}"
    );
    assert!((0..KEYS).filter(|n| n % 5 > 0).all(|n| is_last(&n)));
}

#[test]
fn a_manifest_that_cannot_be_read_for_a_moment_is_not_taken_for_lost() {
    // In each of the reads of it that a repair begins with.
    for failing in 0..2 {
        let (disk, expected) = closed_store();
        let log = first_file(&disk, ".log");
        let middle = contents(&disk)[&log].len() as u64 / 2;
        disk.flip_bit(&log, middle * 8);
        let before = contents(&disk);
        let mut reads = 0;
        disk.inject(move |step| {
            let is_read = step.action == Action::Read && step.name == "MANIFEST";
            reads += usize::from(is_read);
            (is_read && reads == failing + 1).then_some(Fault::Refused)
        });
        let (failed, reports) = repaired(&disk);
        let error = failed.expect_err("the manifest was not read").to_string();
        assert!(error.contains("MANIFEST cannot be read"), "{error}");
        assert_eq!(reports, [""; 0]);
        assert_eq!(contents(&disk), before, "nothing is changed");
        let (done, reports) = repaired(&disk);
        assert!(done.is_ok_and(|done| done.was_damaged), "{reports:#?}");
        let found = values(&open(&disk).expect("it opens"));
        assert_eq!(found.len(), expected.len());
    }
}

#[test]
fn many_files_are_set_aside_without_listing_the_directory_for_each() {
    const FILES: usize = 500;
    let (disk, _) = closed_store();
    let log = first_file(&disk, ".log");
    disk.flip_bit(&log, contents(&disk)[&log].len() as u64 / 2 * 8);
    // Leftovers, as of a crash while many segments were written.
    for n in 0..FILES {
        use hybridlog::disk::Disk;
        let name = format!("{:016x}.seg", 1000 + n);
        disk.create(&name).expect("a file");
    }
    let steps_before = disk.steps().len();
    let done = repaired(&disk).0.expect("it can be repaired");
    assert!(done.files >= FILES as u64, "{done}");
    let steps = disk.steps();
    let listed = steps[steps_before..]
        .iter()
        .filter(|step| step.action == Action::Names);
    let listed = listed.count();
    assert!(listed < 20, "the directory was listed {listed} times");
}
