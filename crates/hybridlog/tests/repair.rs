//! Data directories with damage of every kind: a check names it, a repair makes a directory that opens, and what is in that
//! is what was stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use hybridlog::{
    BucketIndex, Checked, KeyRef, LatchMode, Meta, Namespace, OpenError, Options, Repaired, Report,
    Store, check, repair,
};

const MIB: u64 = 1 << 20;
const NAMESPACE: Namespace = Namespace(1);
const KEYS: usize = 3000;
const LARGE_KEYS: usize = 4;
/// The time of all operations: what expires does so later.
const NOW_MS: u64 = 4_000_000_000_000;

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// What was in the store when, and what is there in the end.
struct Fixture {
    directory: tempfile::TempDir,
    /// All values that a key has ever had.
    history: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    values: Values,
}

fn open(directory: &Path) -> Result<Arc<Store<BucketIndex>>, OpenError> {
    let mut options = Options::new(directory).memory_bytes(24 * MIB);
    options.segment_bytes = Some(1 << 20);
    Store::open(options)
}

fn key(n: usize) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

fn large_key(n: usize) -> Vec<u8> {
    format!("large:{n}").into_bytes()
}

fn value(n: usize, version: usize) -> Vec<u8> {
    format!("{n}:{version};").into_bytes().repeat(60 + n % 40)
}

impl Fixture {
    /// Three checkpoints and a command log behind them, with keys that were overwritten, read or not before that, removed, made
    /// to expire, and large ones.
    fn new() -> Fixture {
        let mut fixture = Fixture {
            directory: tempfile::tempdir().expect("a temporary directory"),
            history: BTreeMap::new(),
            values: BTreeMap::new(),
        };
        let store = open(fixture.directory.path()).expect("a fresh directory opens");
        for n in 0..KEYS {
            fixture.set(&store, key(n), value(n, 0), n);
        }
        for n in 0..LARGE_KEYS {
            fixture.set(&store, large_key(n), value(n, 0).repeat(300 + n), 1);
        }
        store.force_cold().expect("it goes cold");
        store.checkpoint().expect("a checkpoint");
        for n in (0..KEYS).step_by(5) {
            fixture.set(&store, key(n), value(n, 1), n);
        }
        for n in (1..KEYS).step_by(10) {
            fixture.remove(&store, &key(n));
        }
        store.checkpoint().expect("a checkpoint");
        for n in (0..KEYS).step_by(7) {
            fixture.set(&store, key(n), value(n, 2), n);
        }
        fixture.remove(&store, &large_key(0));
        store.force_cold().expect("it goes cold");
        store.checkpoint().expect("a checkpoint");
        for n in (0..KEYS).step_by(11) {
            fixture.set(&store, key(n), value(n, 3), n);
            // Each in a block of its own, so that a log can be cut anywhere.
            if n % 55 == 0 {
                store.wait_durable(store.durable()).expect("it is written");
            }
        }
        drop(store);
        fixture
    }

    fn set(&mut self, store: &Store, key: Vec<u8>, value: Vec<u8>, n: usize) {
        let meta = Meta {
            kind: 0,
            expires_at_ms: n.is_multiple_of(4).then_some(NOW_MS + 1 + n as u64),
        };
        let latched = [latched(&key)];
        store
            .blocking(&latched, NOW_MS, |op| op.set(NAMESPACE, &key, &value, meta))
            .expect("there is room");
        self.history
            .entry(key.clone())
            .or_default()
            .insert(value.clone());
        self.values.insert(key, value);
    }

    fn remove(&mut self, store: &Store, key: &[u8]) {
        store
            .blocking(&[latched(key)], NOW_MS, |op| op.remove(NAMESPACE, key))
            .expect("it can be removed");
        self.values.remove(key);
    }

    /// A copy of the directory.
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().expect("a temporary directory");
        for name in names(self.directory.path()) {
            let from = self.directory.path().join(&name);
            fs::copy(from, copy.path().join(&name)).expect("a copy");
        }
        copy
    }

    /// The names of files that end so, in order.
    fn files(&self, extension: &str) -> Vec<String> {
        let mut names = names(self.directory.path());
        names.retain(|name| name.ends_with(extension));
        assert!(!names.is_empty(), "no file {extension}");
        names
    }
}

fn latched(key: &[u8]) -> KeyRef<'_> {
    KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Exclusive,
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the directory");
    let files = entries.map(|entry| entry.expect("an entry"));
    let files = files.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut names: Vec<_> = files
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = names(directory).into_iter();
    names
        .map(|name| {
            let bytes = fs::read(directory.join(&name)).expect("a file");
            (name, bytes)
        })
        .collect()
}

fn flip(directory: &Path, name: &str, at: usize) {
    let path = directory.join(name);
    let mut bytes = fs::read(&path).expect("a file");
    bytes[at] ^= 0x40;
    fs::write(path, bytes).expect("it can be written");
}

fn cut(directory: &Path, name: &str, len: u64) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(directory.join(name));
    file.and_then(|file| file.set_len(len))
        .expect("it can be cut");
}

fn len(directory: &Path, name: &str) -> u64 {
    fs::metadata(directory.join(name)).expect("a file").len()
}

fn checked(directory: &Path) -> (Checked, Vec<Report>) {
    let before = contents(directory);
    let mut reports = Vec::new();
    let checked = check(directory, &mut |report| reports.push(report)).expect("it can be checked");
    assert!(
        contents(directory) == before,
        "a check has changed something"
    );
    (checked, reports)
}

/// Makes sure that the check says that `name` is damaged.
fn assert_damaged(directory: &Path, name: &str) {
    let (checked, reports) = checked(directory);
    let is_named = |report: &Report| match report {
        Report::Damage(damage) => damage.file.ends_with(name),
        _ => false,
    };
    assert!(
        checked.damages > 0 && reports.iter().any(is_named),
        "{name}: {reports:?}"
    );
}

fn repaired(directory: &Path) -> (Repaired, Vec<String>) {
    let mut reports = Vec::new();
    let repaired = repair(directory, &mut |report| reports.push(report.to_string()));
    let repaired = repaired.unwrap_or_else(|error| panic!("{error}: {reports:#?}"));
    (repaired, reports)
}

/// All keys with their values, each as SCAN finds it and a reader reads it.
fn values(store: &Store) -> Values {
    let mut values = Values::new();
    let mut cursor = 0;
    loop {
        let scanned = store
            .blocking(&[], NOW_MS, |op| op.scan(NAMESPACE, cursor, 1000))
            .expect("it can be iterated");
        for (key, _) in scanned.keys {
            let value = store
                .blocking(&[latched(&key)], NOW_MS, |op| {
                    let record = op.read(NAMESPACE, &key)?.expect("SCAN has found it");
                    Ok(op.value(&record)?.into_owned())
                })
                .expect("it can be read");
            values.insert(key, value);
        }
        cursor = scanned.cursor;
        if cursor == 0 {
            break;
        }
    }
    values
}

/// Repairs, and opens what has become of it: sound, the second time nothing to repair, counted right, and every value one that
/// its key has had.
fn repaired_values(fixture: &Fixture, directory: &Path) -> (Values, Repaired, Vec<String>) {
    let (done, reports) = repaired(directory);
    assert!(done.was_damaged, "{reports:#?}");
    let (sound, damages) = checked(directory);
    assert_eq!(sound.damages, 0, "{damages:?}");
    assert!(!repaired(directory).0.was_damaged);
    let store = open(directory).unwrap_or_else(|error| panic!("{error}: {reports:#?}"));
    let values = values(&store);
    for (key, value) in &values {
        let name = key.escape_ascii();
        let had = fixture
            .history
            .get(key)
            .is_some_and(|had| had.contains(value));
        assert!(had, "{name} has a value it never had: {reports:#?}");
    }
    let (len, found) = (store.len(NAMESPACE), values.len() as u64);
    assert_eq!(len, found, "counted: {}", shown(&reports));
    (values, done, reports)
}

/// The first and the last of many lines.
fn shown(lines: &[String]) -> String {
    let (first, rest) = lines.split_at(lines.len().min(20));
    let last = &rest[rest.len() - rest.len().min(5)..];
    format!("{first:#?} ... {last:#?}")
}

/// Those keys of `expected` that have another value, or none.
fn missing(expected: &Values, found: &Values) -> Vec<String> {
    let is_missing = |entry: &(&Vec<u8>, &Vec<u8>)| found.get(entry.0) != Some(entry.1);
    let missing = expected.iter().filter(is_missing);
    missing
        .map(|(key, _)| key.escape_ascii().to_string())
        .collect()
}

#[test]
fn a_sound_directory_is_left_as_it_is() {
    let fixture = Fixture::new();
    let directory = fixture.copy();
    let (found, reports) = checked(directory.path());
    assert_eq!(
        (found.damages, found.unsound_records),
        (0, 0),
        "{reports:?}"
    );
    assert!(
        found.keys > 0 && found.deaths > 0 && found.log_frames > 0,
        "{found}"
    );
    let before = contents(directory.path());
    assert!(!repaired(directory.path()).0.was_damaged);
    assert!(contents(directory.path()) == before);
    let store = open(directory.path()).expect("it opens");
    assert_eq!(values(&store), fixture.values);
    let refused = check(directory.path(), &mut |_| {});
    assert!(matches!(refused, Err(OpenError::InUse(_))), "{refused:?}");
    let refused = repair(directory.path(), &mut |_| {});
    assert!(matches!(refused, Err(OpenError::InUse(_))), "{refused:?}");
}

#[test]
fn an_empty_or_missing_directory_is_told_of() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(checked(directory.path()).0, Checked::default());
    assert!(names(directory.path()).is_empty());
    let missing = directory.path().join("missing");
    assert!(check(&missing, &mut |_| {}).is_err());
    assert!(repair(&missing, &mut |_| {}).is_err() && !missing.exists());
}

/// A record that is damaged is lost, and its key is told; nothing else is, and nothing comes back.
#[test]
fn of_a_damaged_segment_only_the_damaged_records_are_lost() {
    let fixture = Fixture::new();
    for (round, name) in fixture.files(".seg").iter().enumerate() {
        let directory = fixture.copy();
        let places = [70_000 + round * 1000, 300_000, 301_000];
        for at in places {
            flip(directory.path(), name, at);
        }
        assert_damaged(directory.path(), name);
        let (values, done, reports) = repaired_values(&fixture, directory.path());
        let missing = missing(&fixture.values, &values);
        assert!(
            missing.len() <= places.len(),
            "{name}: {missing:?}, {reports:#?}"
        );
        for key in &missing {
            let is_told = |line: &String| {
                line.starts_with("dropped: ")
                    && (line.contains(&format!("\"{key}\"")) || line.contains("large value"))
            };
            assert!(reports.iter().any(is_told), "{key}: {reports:#?}");
        }
        assert_eq!(
            values.len() + missing.len(),
            fixture.values.len(),
            "{reports:#?}"
        );
        assert!(done.files >= 2);
        // What was damaged is still there, elsewhere.
        let dropped = directory.path().join(format!("{name}.dropped"));
        assert!(dropped.exists(), "{}", dropped.display());
    }
}

#[test]
fn a_segment_that_is_cut_short_or_missing_loses_what_it_had() {
    let fixture = Fixture::new();
    for name in fixture.files(".seg") {
        for keeps in [Some(400_000), Some(0), None] {
            let directory = fixture.copy();
            match keeps {
                Some(len) => cut(directory.path(), &name, len),
                None => fs::remove_file(directory.path().join(&name)).expect("it is there"),
            }
            assert_damaged(directory.path(), &name);
            let (values, _, reports) = repaired_values(&fixture, directory.path());
            let missing = missing(&fixture.values, &values);
            let is_new = |key: &&Vec<u8>| !fixture.values.contains_key(*key);
            let back: Vec<_> = values.keys().filter(is_new).collect();
            assert!(back.is_empty(), "{name}, {keeps:?}: {back:?} are back");
            assert!(missing.len() < fixture.values.len(), "{reports:#?}");
        }
    }
}

/// Everything in a key file can be made again from its segment.
#[test]
fn a_damaged_key_file_costs_nothing() {
    let fixture = Fixture::new();
    for (round, name) in fixture.files(".keys").iter().enumerate() {
        let directory = fixture.copy();
        let len = len(directory.path(), name) as usize;
        match round % 4 {
            // The header; a recovery block; the last block; nothing is left.
            0 => flip(directory.path(), name, 30),
            1 => flip(directory.path(), name, 5000),
            2 => flip(directory.path(), name, len - 2000),
            _ => fs::remove_file(directory.path().join(name)).expect("it is there"),
        }
        assert_damaged(directory.path(), name);
        let (values, done, reports) = repaired_values(&fixture, directory.path());
        assert_eq!(
            missing(&fixture.values, &values),
            Vec::<String>::new(),
            "{reports:#?}"
        );
        assert_eq!(values.len(), fixture.values.len(), "{reports:#?}");
        assert_eq!(done.records, 0, "{reports:#?}");
    }
}

/// Both files of a segment are damaged: what the key file still lists is found.
#[test]
fn records_behind_a_damaged_one_are_found_by_what_is_left_of_the_list() {
    let fixture = Fixture::new();
    let directory = fixture.copy();
    let (segment, keys) = (&fixture.files(".seg")[0], &fixture.files(".keys")[0]);
    flip(directory.path(), keys, 4096 + 100);
    flip(directory.path(), segment, 20_000);
    assert_damaged(directory.path(), keys);
    let (values, _, reports) = repaired_values(&fixture, directory.path());
    let missing = missing(&fixture.values, &values);
    // A block of the list names 341 records.
    assert!(
        missing.len() <= 341,
        "{} are missing: {reports:#?}",
        missing.len()
    );
}

/// Without deaths the newest record of a key is kept; those that were deleted may come back, and the log is what it was.
#[test]
fn damaged_deaths_lose_no_key() {
    let fixture = Fixture::new();
    for name in fixture.files(".deaths") {
        for removed in [false, true] {
            let directory = fixture.copy();
            match removed {
                false => flip(directory.path(), &name, 4100),
                true => fs::remove_file(directory.path().join(&name)).expect("it is there"),
            }
            assert_damaged(directory.path(), &name);
            let (values, _, reports) = repaired_values(&fixture, directory.path());
            assert_eq!(
                missing(&fixture.values, &values),
                Vec::<String>::new(),
                "{reports:#?}"
            );
        }
    }
}

/// What a repair writes takes no name of what it drops, which until its end is what the manifest names.
#[test]
fn deaths_that_a_repair_has_written_can_be_repaired() {
    let fixture = Fixture::new();
    let name = fixture.files(".deaths").remove(0);
    let directory = fixture.copy();
    fs::remove_file(directory.path().join(&name)).expect("it is there");
    repaired(directory.path());
    let before = names(directory.path());
    let deaths = before.iter().filter(|name| name.ends_with(".deaths"));
    let written = deaths.max().expect("the repair has written deaths");
    assert!(fixture.files(".deaths").iter().all(|name| name < written));
    flip(directory.path(), written, 4100);
    assert_damaged(directory.path(), written);
    let (values, _, reports) = repaired_values(&fixture, directory.path());
    assert_eq!(
        missing(&fixture.values, &values),
        Vec::<String>::new(),
        "{reports:#?}"
    );
}

#[test]
fn a_damaged_log_is_cut_and_what_was_before_that_stays() {
    let fixture = Fixture::new();
    let name = fixture.files(".log").pop().expect("a log");
    let whole = len(fixture.directory.path(), &name) as usize;
    for at in [0, 100, whole / 3, whole / 2, whole * 3 / 4] {
        let directory = fixture.copy();
        flip(directory.path(), &name, at);
        let (found, reports) = checked(directory.path());
        if found.damages == 0 {
            // Nothing says that the end of the last block was durable: it is taken for torn.
            assert!(
                reports
                    .iter()
                    .any(|report| matches!(report, Report::Note(_)))
            );
            continue;
        }
        let (values, done, reports) = repaired_values(&fixture, directory.path());
        assert!(done.log_bytes > 0, "{reports:#?}");
        let of_checkpoint: Values = (0..KEYS)
            .filter(|n| n % 11 != 0)
            .filter_map(|n| fixture.values.get_key_value(&key(n)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(missing(&of_checkpoint, &values), Vec::<String>::new());
        // What is not as it was last is as it was at the checkpoint, and of two changes the later is lost first.
        let changed: Vec<usize> = (0..KEYS).step_by(11).filter(|n| n % 10 != 1).collect();
        let is_last = |n: &usize| values.get(&key(*n)) == fixture.values.get(&key(*n));
        let kept = changed.iter().take_while(|n| is_last(n)).count();
        assert!(!changed[kept..].iter().any(is_last), "{reports:#?}");
    }
}

/// Without the log that the manifest names, what was acknowledged would be gone silently.
#[test]
fn a_log_that_is_missing_or_has_no_header_refuses_the_start() {
    let fixture = Fixture::new();
    let name = fixture.files(".log").pop().expect("a log");
    let losses: [fn(&Path); 3] = [
        |path| fs::remove_file(path).expect("it was there"),
        |path| fs::write(path, b"").expect("it can be written"),
        |path| fs::write(path, b"FRT").expect("it can be written"),
    ];
    for lose in losses {
        let directory = fixture.copy();
        lose(&directory.path().join(&name));
        assert_damaged(directory.path(), &name);
        let error = open(directory.path()).err().expect("a refusal").to_string();
        assert!(error.contains(&name), "{error}");
        let (values, _, reports) = repaired_values(&fixture, directory.path());
        assert!(
            reports.iter().any(|report| report.contains(&name)),
            "{reports:#?}"
        );
        let of_checkpoint = (0..KEYS).filter(|n| n % 11 != 0).map(key);
        let lost = of_checkpoint.filter(|key| values.get(key) != fixture.values.get(key));
        assert_eq!(lost.collect::<Vec<_>>(), Vec::<Vec<u8>>::new());
        assert!(checked(directory.path()).0.damages == 0, "after a start");
    }
}

#[test]
fn a_torn_log_is_no_damage() {
    let fixture = Fixture::new();
    let directory = fixture.copy();
    let name = fixture.files(".log").pop().expect("a log");
    let path = directory.path().join(&name);
    let mut bytes = fs::read(&path).expect("a log");
    bytes.extend_from_slice(&[0x5a; 777]);
    fs::write(&path, bytes).expect("it can be written");
    let (found, reports) = checked(directory.path());
    assert_eq!(found.damages, 0, "{reports:?}");
    let tells = |report: &Report| report.to_string().contains("777 bytes were torn off");
    assert!(reports.iter().any(tells), "{reports:?}");
}

/// All that is known is what is in the other files.
#[test]
fn without_a_manifest_everything_is_found_by_the_other_files() {
    let fixture = Fixture::new();
    // The version, what is in it, nothing is left.
    for flipped in [Some(8), Some(30), None] {
        let directory = fixture.copy();
        match flipped {
            Some(at) => flip(directory.path(), "MANIFEST", at),
            None => fs::remove_file(directory.path().join("MANIFEST")).expect("it is there"),
        }
        assert_damaged(directory.path(), "MANIFEST");
        assert!(open(directory.path()).is_err());
        let (values, _, reports) = repaired_values(&fixture, directory.path());
        assert_eq!(
            missing(&fixture.values, &values),
            Vec::<String>::new(),
            "{reports:#?}"
        );
        assert!(
            reports
                .iter()
                .any(|line| line.contains("without a manifest"))
        );
    }
}

/// The newer value is lost with its segment; the older one, which a blind write has left behind, must not come back.
#[test]
fn an_older_value_does_not_come_back_when_the_newer_one_is_lost() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path()).expect("a fresh directory opens");
    let set = |n: usize, version| {
        let (key, value) = (key(n), value(n, version));
        let meta = Meta::default();
        store
            .blocking(&[latched(&key)], NOW_MS, |op| {
                op.set(NAMESPACE, &key, &value, meta)
            })
            .expect("there is room");
    };
    for n in 0..100 {
        set(n, 0);
    }
    store.force_cold().expect("it goes cold");
    let before = names(directory.path());
    for n in 0..50 {
        set(n, 1);
    }
    // At once, before anybody has looked into what was overwritten.
    store.checkpoint().expect("a checkpoint");
    assert!(store.stats().shadows >= 50);
    drop(store);
    let is_new = |name: &&String| name.ends_with(".seg") && !before.contains(name);
    let new: Vec<_> = names(directory.path())
        .iter()
        .filter(is_new)
        .cloned()
        .collect();
    for name in &new {
        fs::remove_file(directory.path().join(name)).expect("it is there");
    }
    assert_eq!(new.len(), 1);
    let (done, reports) = repaired(directory.path());
    assert!(done.records >= 50, "{reports:#?}");
    let store = open(directory.path()).expect("it opens");
    let found = values(&store);
    assert_eq!(found.len(), 50, "{reports:#?}");
    assert!((50..100).all(|n| found.get(&key(n)) == Some(&value(n, 0))));
    assert_eq!(store.len(NAMESPACE), 50);
}

/// A page that is not there reads as zeroes: a value that has lost one is dropped as a whole, and its other pages are freed.
#[test]
fn a_large_value_is_whole_or_dropped() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path()).expect("a fresh directory opens");
    for n in 0..3 {
        let (key, value) = (large_key(n), value(n, 0).repeat(1000));
        assert!(value.len() > 200_000);
        let meta = Meta::default();
        store
            .blocking(&[latched(&key)], NOW_MS, |op| {
                op.set(NAMESPACE, &key, &value, meta)
            })
            .expect("there is room");
    }
    store.checkpoint().expect("a checkpoint");
    drop(store);
    let segments: Vec<_> = names(directory.path())
        .into_iter()
        .filter(|name| name.ends_with(".seg"))
        .collect();
    flip(directory.path(), &segments[0], 50_000);
    let (_, reports) = repaired(directory.path());
    let store = open(directory.path()).expect("it opens");
    let found = values(&store);
    assert_eq!(found.len(), 2, "{reports:#?}");
    for (key, found) in found {
        let is_whole = (0..3).any(|n| key == large_key(n) && found == value(n, 0).repeat(1000));
        assert!(is_whole, "{}", key.escape_ascii());
    }
}

/// The log changes a part of a value that is lost: what was before that cannot be known, and the key is named.
#[test]
fn a_lost_key_that_the_log_changes_in_part_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path()).expect("a fresh directory opens");
    let change = |part: bool| {
        store
            .blocking(&[latched(b"key")], NOW_MS, |op| match part {
                false => op.set(NAMESPACE, b"key", &[b'v'; 900], Meta::default()),
                true => op.write_range(NAMESPACE, b"key", 900, b"end", 0).map(drop),
            })
            .expect("there is room");
    };
    change(false);
    store.checkpoint().expect("a checkpoint");
    change(true);
    drop(store);
    let is_segment = |name: &&String| name.ends_with(".seg");
    let segment = names(directory.path()).iter().find(is_segment).cloned();
    flip(directory.path(), &segment.expect("a segment"), 500);
    let (_, reports) = repaired(directory.path());
    let is_named = |line: &String| line.starts_with("note: key \"key\"");
    assert!(reports.iter().any(is_named), "{reports:#?}");
    assert!(open(directory.path()).is_ok());
}

/// Several damages at once, anywhere.
#[test]
fn whatever_is_damaged_the_rest_opens_with_values_that_were_stored() {
    let seed = std::env::var("REPAIR_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut state: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919);
    println!("REPAIR_SEED={state}");
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let fixture = Fixture::new();
    for round in 0..30 {
        let directory = fixture.copy();
        let mut done = Vec::new();
        for _ in 0..1 + random(4) {
            let names = names(directory.path());
            let name = &names[random(names.len() as u64) as usize];
            let len = len(directory.path(), name);
            if len == 0 {
                continue;
            }
            let at = random(len);
            match random(8) {
                0 => fs::remove_file(directory.path().join(name)).expect("it is there"),
                1 => cut(directory.path(), name, at),
                _ => flip(directory.path(), name, at as usize),
            }
            done.push((name.clone(), at));
        }
        println!("round {round}: {done:?}");
        let (found, _) = checked(directory.path());
        if found.damages > 0 {
            repaired_values(&fixture, directory.path());
            continue;
        }
        // It was in what nobody reads, or may have been torn off the log.
        let store = open(directory.path()).expect("it is sound");
        for (key, value) in values(&store) {
            assert!(
                fixture.history[&key].contains(&value),
                "{}",
                key.escape_ascii()
            );
        }
    }
}

/// All of it may be sound, for those who can read it.
#[test]
fn a_directory_of_a_later_version_is_not_repaired() {
    let fixture = Fixture::new();
    let directory = fixture.copy();
    let path = directory.path().join("MANIFEST");
    let mut bytes = fs::read(&path).expect("a manifest");
    bytes[8] = 3;
    bytes.extend_from_slice(b"something new");
    fs::write(&path, bytes).expect("it can be written");
    let before = contents(directory.path());
    let refused = repair(directory.path(), &mut |_| {}).expect_err("it is refused");
    assert!(
        refused.to_string().contains("format version 3"),
        "{refused}"
    );
    assert!(contents(directory.path()) == before);
}

/// Until all is there that takes the place of what is damaged, nothing has changed.
#[test]
fn a_repair_that_fails_has_changed_nothing_and_can_be_tried_again() {
    let fixture = Fixture::new();
    let directory = fixture.copy();
    let (segment, keys) = (&fixture.files(".seg")[0], &fixture.files(".keys")[1]);
    flip(directory.path(), segment, 70_000);
    flip(directory.path(), keys, 5000);
    let before = contents(directory.path());
    // New files have been made, but the manifest cannot be replaced.
    let in_the_way = directory.path().join("MANIFEST.new");
    fs::create_dir(&in_the_way).expect("it can be made");
    repair(directory.path(), &mut |_| {}).expect_err("it fails");
    let after = contents(directory.path());
    assert!(
        before
            .iter()
            .all(|(name, bytes)| after.get(name) == Some(bytes))
    );
    assert!(after.len() > before.len());
    fs::remove_dir(&in_the_way).expect("it is there");
    let (values, _, reports) = repaired_values(&fixture, directory.path());
    let missing = missing(&fixture.values, &values);
    assert!(missing.len() <= 1, "{missing:?}: {reports:#?}");
    // Neither is anything left of the first try.
    let is_segment = |name: &String| name.ends_with(".seg") || name.ends_with(".keys");
    let new = |name: &String| !before.contains_key(name) && is_segment(name);
    assert_eq!(names(directory.path()).into_iter().filter(new).count(), 4);
}
