//! Many threads on few keys while segments move between tiers all the time; on both indexes.
//!
//! Every value is a function of its key and a version. Versions of a key follow each other under its latch in a fixed
//! cycle: two blind sets, three overwritten ranges, an expiry, a removal. A writer notes in shared memory which version it
//! begins and which it has completed, so a reader knows which versions it may see: none that was overwritten before it
//! began, none twice in the wrong order, and nothing that is not exactly one version.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hybridlog::{
    BucketIndex, DashIndex, Index, KeyRef, LatchMode, Meta, Namespace, Operation, Options, Stop,
    Store,
};

const RUN: Duration = Duration::from_millis(1500);
const RUN_MAX: Duration = Duration::from_secs(60);
const KEYS: u64 = 200;
const COUNTERS: u64 = 30;
const CYCLE: u64 = 7;
const NAMESPACE: Namespace = Namespace(0);
/// After this the tests do not run any more.
const FAR: u64 = 1 << 60;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// A number that depends on the key, the version and what it is for.
fn chosen(key: u64, version: u64, purpose: u64, bound: u64) -> u64 {
    let mut random = Random(key << 40 ^ version << 8 ^ purpose);
    random.below(2);
    random.below(bound)
}

fn content(key: u64, version: u64, range: Range<u64>) -> Vec<u8> {
    let word = |at: u64| (key << 48 ^ version << 24 ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    range
        .map(|at| word(at / 8).to_le_bytes()[at as usize % 8])
        .collect()
}

/// One key in sixteen holds values in pages.
fn is_large(key: u64) -> bool {
    key.is_multiple_of(16)
}

/// The length of what a version sets.
fn length(key: u64, version: u64) -> u64 {
    if is_large(key) {
        60_000 + chosen(key, version, 0, 90_000)
    } else {
        chosen(key, version, 0, 3000)
    }
}

/// What a version overwrites, sometimes beyond the end.
fn overwritten(key: u64, version: u64) -> Range<u64> {
    let (offsets, lengths) = if is_large(key) {
        (180_000, 70_000)
    } else {
        (3300, 500)
    };
    let offset = chosen(key, version, 1, offsets);
    offset..offset + chosen(key, version, 2, lengths)
}

/// The value of a version; `None` where the key is removed, or has never been written.
fn value(key: u64, version: u64) -> Option<Vec<u8>> {
    let (begin, step) = (version - version % CYCLE, version % CYCLE);
    let set = match step {
        0 => return None,
        1 => begin + 1,
        _ => begin + 2,
    };
    let mut value = content(key, set, 0..length(key, set));
    for version in begin + 3..=version.min(begin + 5) {
        let range = overwritten(key, version);
        let at = range.start as usize..range.end as usize;
        value.resize(value.len().max(at.end), 0);
        value[at].copy_from_slice(&content(key, version, range));
    }
    Some(value)
}

fn name(key: u64) -> Vec<u8> {
    format!("key:{key}").into()
}

fn counter_name(counter: u64) -> Vec<u8> {
    format!("counter:{counter}").into()
}

/// What the threads share.
struct Race<'s, I: Index> {
    store: &'s Store<I>,
    begun: Vec<AtomicU64>,
    completed: Vec<AtomicU64>,
    over: AtomicBool,
}

impl<I: Index> Race<'_, I> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Whether records have gone cold, come back, and been written over unread.
    fn has_moved_enough(&self) -> bool {
        // Of what only grows, since it is asked again at the end. A promoted record was cold.
        let stats = self.store.stats();
        stats.promotions > 0 && stats.shadows > 0
    }

    /// Brings one key to its next version.
    fn write(&self, key: u64) -> Result<(), Stop> {
        let name = name(key);
        let latched = [KeyRef {
            namespace: NAMESPACE,
            key: &name,
            mode: LatchMode::Exclusive,
        }];
        self.store.blocking(&latched, 1, |operation| {
            // Only whoever holds the latch changes these.
            let version = self.completed[key as usize].load(Ordering::Relaxed) + 1;
            self.begun[key as usize].store(version, Ordering::SeqCst);
            change(operation, key, version)?;
            self.completed[key as usize].store(version, Ordering::SeqCst);
            Ok(())
        })
    }

    /// Reads one key and checks that it is a version it may be. Returns that version.
    fn read(&self, key: u64, last_seen: u64, how: u64) -> Result<u64, Stop> {
        let earliest = self.completed[key as usize].load(Ordering::SeqCst);
        let name = name(key);
        let latched = [KeyRef {
            namespace: NAMESPACE,
            key: &name,
            mode: LatchMode::Shared,
        }];
        let found = match how {
            0 => self.store.get(&name)?,
            1 => {
                let mut found = None;
                self.store
                    .get_many(&[&name], |_, value| found = value.map(<[u8]>::to_vec))?;
                found
            }
            _ => {
                let pieces = self.store.blocking(&latched, 1, |operation| {
                    let record = operation.read(NAMESPACE, &name)?;
                    record
                        .map(|record| operation.pieces(&record, |_| Ok(())))
                        .transpose()
                })?;
                // They stay good after the operation, whatever moves.
                pieces.map(|pieces| pieces.iter().flat_map(|piece| piece.to_vec()).collect())
            }
        };
        let latest = self.begun[key as usize].load(Ordering::SeqCst);
        let mut allowed = earliest.max(last_seen)..=latest;
        let seen = allowed.find(|&version| value(key, version) == found);
        Ok(seen.unwrap_or_else(|| {
            let any = (0..=latest).rev().find(|&version| value(key, version) == found);
            panic!(
                "key {key} ({how}): {:?} bytes are no version from {earliest} or {last_seen} to {latest}, but {any:?}",
                found.map(|found| found.len())
            )
        }))
    }
}

fn change<I: Index>(operation: &mut Operation<'_, I>, key: u64, version: u64) -> Result<(), Stop> {
    let name = name(key);
    match version % CYCLE {
        1 | 2 => {
            let value = content(key, version, 0..length(key, version));
            operation.set(NAMESPACE, &name, &value, Meta::default())
        }
        3..=5 => {
            let range = overwritten(key, version);
            let bytes = content(key, version, range.clone());
            let len = operation.write_range(NAMESPACE, &name, range.start, &bytes, 0)?;
            assert!(len >= range.end, "key {key} version {version}");
            Ok(())
        }
        6 => {
            let there = operation.set_expiry(NAMESPACE, &name, Some(FAR))?;
            assert!(there, "key {key} version {version}");
            Ok(())
        }
        _ => {
            let removed = operation.remove(NAMESPACE, &name)?;
            assert!(removed, "key {key} version {version}");
            Ok(())
        }
    }
}

fn increment<I: Index>(store: &Store<I>, counter: u64) -> Result<bool, Stop> {
    store.update(&counter_name(counter), |old| {
        let old = old.map_or(0, |old| {
            u64::from_le_bytes(old.try_into().expect("a counter has 8 bytes"))
        });
        Some((old + 1).to_le_bytes().to_vec())
    })
}

/// Sets the race going and stops it; returns how often each counter was incremented.
fn run<I: Index>(race: &Race<'_, I>, seed: u64) -> Vec<AtomicU64> {
    let increments: Vec<_> = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
    let increment_one = |counter: u64| {
        increment(race.store, counter).expect("an increment");
        increments[counter as usize].fetch_add(1, Ordering::Relaxed);
    };
    (0..COUNTERS).for_each(increment_one);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                let mut random = Random(seed << 8 | thread);
                while race.goes_on() {
                    race.write(random.below(KEYS)).expect("a write");
                }
            });
            scope.spawn(move || {
                let mut random = Random(seed << 8 | thread | 128);
                let mut seen = vec![0; KEYS as usize];
                while race.goes_on() {
                    let key = random.below(KEYS);
                    let read = race.read(key, seen[key as usize], random.below(3));
                    seen[key as usize] = read.expect("a read");
                }
            });
            scope.spawn(move || {
                let mut random = Random(seed << 8 | thread | 64);
                while race.goes_on() {
                    increment_one(random.below(COUNTERS));
                }
            });
        }
        scope.spawn(|| {
            while race.goes_on() {
                let mut seen = vec![false; COUNTERS as usize];
                let scanned = race.store.for_each_key(|key| {
                    if let Some(counter) = key.strip_prefix(b"counter:") {
                        let counter = String::from_utf8_lossy(counter).parse::<usize>();
                        seen[counter.expect("a number")] = true;
                    }
                });
                scanned.expect("a scan");
                // They are there all the time, only overwritten and moved.
                assert!(seen.iter().all(|&seen| seen), "a scan missed {seen:?}");
            }
        });
        scope.spawn(|| {
            let mut random = Random(seed << 8 | 32);
            while race.goes_on() {
                match random.below(3) {
                    0 => race.store.force_cold().expect("segments can be written"),
                    _ => race.store.seal_all().expect("segments can be written"),
                }
                std::thread::sleep(Duration::from_millis(random.below(10)));
            }
        });
        let begin = Instant::now();
        // A busy machine takes longer until everything that can happen to a record has happened.
        while begin.elapsed() < RUN || !race.has_moved_enough() && begin.elapsed() < RUN_MAX {
            std::thread::sleep(Duration::from_millis(20));
        }
        race.over.store(true, Ordering::Relaxed);
    });
    increments
}

fn nothing_is_lost_or_torn<I: Index>(seed: u64) {
    println!("seed {seed} on {}", I::NAME);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options {
        segment_bytes: Some(1 << 20),
        ..Options::new(directory.path()).memory_bytes(13 << 20)
    };
    let store = Store::<I>::open(options).expect("a fresh directory opens");
    let versions = || (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let race = Race {
        store: &store,
        begun: versions(),
        completed: versions(),
        over: AtomicBool::new(false),
    };
    let increments = run(&race, seed);

    for (counter, expected) in increments.iter().enumerate() {
        let found = store.get(&counter_name(counter as u64)).expect("a read");
        let expected = expected.load(Ordering::Relaxed).to_le_bytes();
        assert_eq!(found.as_deref(), Some(&expected[..]), "counter {counter}");
    }
    let (mut keys, mut expiring) = (COUNTERS, 0);
    for key in 0..KEYS {
        let version = race.read(key, 0, 0).expect("a read");
        let last = race.completed[key as usize].load(Ordering::Relaxed);
        assert!(value(key, version) == value(key, last), "key {key}");
        keys += u64::from(!last.is_multiple_of(CYCLE));
        expiring += u64::from(last % CYCLE == 6);
    }
    let counts = (store.len(NAMESPACE), store.expiring(NAMESPACE));
    assert_eq!(counts, (keys, expiring), "counts of keys");

    let stats = store.stats();
    let writes: u64 = race
        .completed
        .iter()
        .map(|completed| completed.load(Ordering::Relaxed))
        .sum();
    println!("{writes} writes; {stats:?}");
    assert!(race.has_moved_enough(), "records have not been everywhere");
}

#[test]
fn nothing_is_lost_or_torn_on_buckets() {
    nothing_is_lost_or_torn::<BucketIndex>(random_seed());
}

#[test]
fn nothing_is_lost_or_torn_on_dashmap() {
    nothing_is_lost_or_torn::<DashIndex>(random_seed());
}

/// That of `CONCURRENCY_SEED`, or a new one every time.
fn random_seed() -> u64 {
    let given = std::env::var("CONCURRENCY_SEED");
    given
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(1, |since| u64::from(since.subsec_nanos()))
        })
}
