//! Crashes: a store loses its power at any step of its disk, and what is found afterwards is what it held at one of its
//! moments.
//!
//! Each thread of a workload has keys of its own and remembers what they held after each of its operations. After a crash
//! they must hold what they held at one of those moments, all of them at the same one, and not before the last moment that
//! the store has called durable. So nothing durable is missing, nothing deleted is back, nothing is there that was never
//! written, and of an operation on several keys all is there or nothing.

use std::collections::BTreeMap;
use std::io;
use std::iter;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hybridlog::{
    BucketIndex, ColdReads, DashIndex, Index, LatchMode, Options, Stop, Store, SyncPolicy,
};

use crate::disk::{Action, SimulatedDisk};
use crate::random::{Random, seeds};
use crate::workload::{self, META, Model, NAMESPACE, Stored, keys};

/// One thread's part of a workload.
#[derive(Clone)]
struct Witness {
    random: Random,
    /// The last one is for [`Witness::wait_durable`] alone.
    keys: Vec<Arc<[u8]>>,
    /// What the keys held: first when the store was opened, then after each operation.
    moments: Vec<Model>,
    /// The last moment that was called durable.
    durable: usize,
}

/// How the store is opened.
#[derive(Clone, Copy, Debug)]
struct Setting {
    command_log: bool,
    sync: SyncPolicy,
    checkpoint_bytes: u64,
}

impl Setting {
    fn pick(random: &mut Random) -> Setting {
        let policies = [
            SyncPolicy::Always,
            SyncPolicy::EverySecond,
            SyncPolicy::Never,
        ];
        Setting {
            command_log: random.percent(80),
            sync: policies[random.below(3) as usize],
            // By itself, often or never.
            checkpoint_bytes: [200_000, 3_000_000, u64::MAX][random.below(3) as usize],
        }
    }
}

/// What a thread does between its operations.
#[derive(Clone, Copy)]
enum Chores {
    /// It waits until its own operations are durable.
    Own,
    /// It makes checkpoints and moves segments as well.
    Everything,
}

impl Witness {
    fn new(seed: u64, thread: u64) -> Witness {
        Witness {
            random: Random::new(seed ^ (thread + 1) << 40),
            keys: keys(thread)
                .into_iter()
                .chain([format!("last:{thread}").into_bytes().into()])
                .collect(),
            moments: vec![Model::new()],
            durable: 0,
        }
    }

    fn last(&self) -> usize {
        self.moments.len() - 1
    }

    fn now_ms(&self) -> u64 {
        self.moments[self.last()].now_ms
    }

    /// Works as long as there is power, but for no more than `steps` operations.
    fn work<I: Index>(
        &mut self,
        store: &Store<I>,
        disk: &SimulatedDisk,
        steps: u64,
        chores: Chores,
    ) {
        for _ in 0..steps {
            let done = self.step(store);
            let done = done.and_then(|()| self.do_chore(store, disk, chores));
            if !disk.has_power() {
                return;
            }
            done.unwrap_or_else(|stop| panic!("refused although there is power: {stop}"));
        }
    }

    fn step<I: Index>(&mut self, store: &Store<I>) -> Result<(), Stop> {
        let mut model = self.moments[self.last()].clone();
        let logged_before = store.has_command_log();
        let (_, keys) = self.keys.split_last().expect("there are keys");
        let done = workload::step(store, &mut model, &mut self.random, keys);
        model.now_ms += self.random.below(4);
        // When the power has gone meanwhile, it may have been done all the same.
        self.moments.push(model);
        done?;
        // Another thread may have turned it on meanwhile, too late for this operation.
        if logged_before && store.has_command_log() && store.syncs_always() {
            self.durable = self.last();
        }
        Ok(())
    }

    fn do_chore<I: Index>(
        &mut self,
        store: &Store<I>,
        disk: &SimulatedDisk,
        chores: Chores,
    ) -> Result<(), Stop> {
        match (self.random.below(40), chores) {
            (0..=4, _) if store.has_command_log() => match self.wait_durable(store, disk) {
                // Others have taken the room: then not now.
                Err(Stop::NoRoom { .. }) => {}
                done => done?,
            },
            (5 | 6, Chores::Everything) => {
                store.checkpoint().map_err(failed)?;
                self.durable = self.last();
            }
            (7, Chores::Everything) => store.seal_all()?,
            (8, Chores::Everything) => store.force_cold()?,
            (9, Chores::Everything) => {
                // Who waits for every sync would wait for this too, and forever if the power goes.
                let on = self.random.percent(70) && !store.syncs_always();
                store.set_command_log(on).map_err(failed)?;
                self.durable = self.last();
            }
            (10, Chores::Everything) => {
                // By the time at which all threads began.
                store.expire_some(self.moments[0].now_ms, 4000);
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes one more change, and waits until that and everything before it is durable.
    fn wait_durable<I: Index>(
        &mut self,
        store: &Store<I>,
        disk: &SimulatedDisk,
    ) -> Result<(), Stop> {
        let key = self.keys.last().expect("there are keys").clone();
        let value = self.random.next().to_le_bytes();
        let mut model = self.moments[self.last()].clone();
        // Nothing of it is cold then, which would have to be read first.
        let removed = workload::remove(store, &mut model, &key);
        self.moments.push(model.clone());
        removed?;
        let latched = workload::latched(&[&key], LatchMode::Exclusive);
        let reads = ColdReads::default();
        let mut operation = loop {
            match store.operation(&latched, &reads, model.now_ms) {
                Some(operation) => break operation,
                None => thread::yield_now(),
            }
        };
        operation.set(NAMESPACE, &key, &value, META)?;
        let position = operation.finish();
        model.insert(&key, value.to_vec(), None);
        self.moments.push(model);
        // Without a position it is not in the command log.
        let Some(position) = position else {
            return Ok(());
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.expect("a runtime").block_on(async {
            let limit = Duration::from_millis(100);
            // Without power it may wait for a checkpoint that will never be.
            while disk.has_power() {
                let waited = tokio::time::timeout(limit, store.until_durable(position)).await;
                if let Ok(done) = waited {
                    done?;
                    self.durable = self.last();
                    break;
                }
            }
            Ok(())
        })
    }

    /// The store must hold what it held at a moment that may have survived; returns what it is.
    fn check<I: Index>(
        &mut self,
        store: &Store<I>,
        now_ms: u64,
    ) -> Result<BTreeMap<Arc<[u8]>, Stored>, Stop> {
        let mut found = BTreeMap::new();
        for key in &self.keys {
            let stored = workload::read(store, now_ms, key)?;
            found.extend(stored.map(|stored| (key.clone(), stored)));
        }
        let surviving = self.moments[self.durable..].iter().rev();
        let mut surviving = surviving.map(|moment| moment.at(now_ms));
        let Some(moment) = surviving.find(|moment| moment.live() == found) else {
            panic!("{}", self.difference(&found, now_ms));
        };
        self.moments = vec![moment];
        self.durable = 0;
        Ok(found)
    }

    /// Key by key, at which moments the store held what is found.
    fn difference(&self, found: &BTreeMap<Arc<[u8]>, Stored>, now_ms: u64) -> String {
        let moments = self.moments.iter();
        let lives: Vec<_> = moments.map(|moment| moment.at(now_ms).live()).collect();
        let mut text = format!(
            "not what it was at any moment from {} to {}:",
            self.durable,
            self.last()
        );
        for key in &self.keys {
            let held = |&at: &usize| lives[at].get(key) == found.get(key);
            let moments: Vec<usize> = (0..lives.len()).filter(held).collect();
            if !moments.contains(&self.durable) || !moments.contains(&self.last()) {
                let name = String::from_utf8_lossy(&key[..key.len().min(12)]);
                let len = found.get(key).map(|stored| stored.value.len());
                text += &format!("\n{name} (found: {len:?} bytes) was so at {moments:?}");
            }
        }
        text
    }
}

fn failed(why: String) -> Stop {
    Stop::Io(io::Error::other(why))
}

fn open<I: Index>(disk: &SimulatedDisk, setting: Setting) -> Option<Arc<Store<I>>> {
    let options = Options {
        segment_bytes: Some(1 << 20),
        disk: Some(Arc::new(disk.clone())),
        command_log: setting.command_log,
        sync: setting.sync,
        checkpoint_bytes: setting.checkpoint_bytes,
        ..Options::new(disk.directory()).memory_bytes(24 << 20)
    };
    match Store::open(options) {
        Ok(store) => Some(store),
        Err(_) if !disk.has_power() => None,
        Err(error) => panic!("cannot be opened: {error}"),
    }
}

/// The store must hold what each witness has seen, and nothing else.
fn check<I: Index>(store: &Store<I>, witnesses: &mut [Witness]) -> Result<(), Stop> {
    let now_ms = witnesses.iter().map(Witness::now_ms).max().unwrap_or(0);
    let mut keys = Vec::new();
    for witness in witnesses {
        let found = witness.check(store, now_ms)?;
        keys.extend(found.into_keys());
    }
    workload::check_scan(store, now_ms, keys.iter().map(AsRef::as_ref))?;
    let counted = store.len(NAMESPACE);
    assert!(counted >= keys.len() as u64, "{counted} keys are counted");
    Ok(())
}

/// Opens the store, looks at what it holds, and works on it until the power goes or each has done its `steps`; then closes
/// it.
fn live<I: Index>(disk: &SimulatedDisk, setting: Setting, witnesses: &mut [Witness], steps: u64) {
    let Some(store) = open::<I>(disk, setting) else {
        return;
    };
    if let Err(stop) = check(&store, witnesses) {
        assert!(!disk.has_power(), "what was found cannot be read: {stop}");
        return;
    }
    thread::scope(|scope| {
        let chores = iter::once(Chores::Everything).chain(iter::repeat(Chores::Own));
        for (witness, chores) in witnesses.iter_mut().zip(chores) {
            let store = &store;
            scope.spawn(move || witness.work(store, disk, steps, chores));
        }
    });
    let logged = store.has_command_log();
    drop(store);
    if disk.has_power() && logged {
        // To close the command log makes everything durable.
        for witness in witnesses {
            witness.durable = witness.last();
        }
    }
}

fn witnesses(seed: u64, threads: u64) -> Vec<Witness> {
    (0..threads)
        .map(|thread| Witness::new(seed, thread))
        .collect()
}

/// Lives twice on what a crash has left, so that what the first life finds must be found by the second.
fn live_on<I: Index>(disk: &SimulatedDisk, setting: Setting, witnesses: &mut [Witness]) {
    live::<I>(disk, setting, witnesses, 10);
    live::<I>(disk, setting, witnesses, 0);
    assert!(disk.has_power());
}

/// One workload again and again, with the power cut one step later each time.
fn crash_at_every_step<I: Index>(seed: u64, setting: Setting) {
    for cut_after in 0.. {
        println!(
            "seed {seed} on {}, power cut after {cut_after} steps",
            I::NAME
        );
        let disk = SimulatedDisk::new(seed);
        let mut before = witnesses(seed, 1);
        disk.cut_power_after(cut_after);
        live::<I>(&disk, setting, &mut before, 40);
        let was_cut = !disk.has_power();
        for crash in 0..3 {
            let left = disk.crash(cut_after << 2 | crash);
            live_on::<I>(&left, setting, &mut before.clone());
        }
        if !was_cut {
            return;
        }
    }
}

/// Workloads of several threads, that lose their power again and again, also while they recover from a loss of power.
fn crash_at_random_steps<I: Index>(seed: u64) {
    println!("seed {seed} on {}", I::NAME);
    let mut random = Random::new(seed);
    let mut witnesses = witnesses(seed, 1 + random.below(3));
    let mut disk = SimulatedDisk::new(seed);
    for _ in 0..1 + random.below(4) {
        let steps_max = [5, 30, 200][random.below(3) as usize];
        let (cut_after, setting) = (random.below(steps_max), Setting::pick(&mut random));
        println!("  power cut after {cut_after} steps, {setting:?}");
        disk.cut_power_after(cut_after);
        live::<I>(&disk, setting, &mut witnesses, 60);
        disk = disk.crash(random.next());
    }
    let setting = Setting::pick(&mut random);
    println!("  no power cut, {setting:?}");
    live_on::<I>(&disk, setting, &mut witnesses);
}

#[test]
fn a_crash_at_any_step_loses_nothing_durable() {
    let setting = Setting {
        command_log: true,
        sync: SyncPolicy::Never,
        checkpoint_bytes: u64::MAX,
    };
    crash_at_every_step::<BucketIndex>(1, setting);
    crash_at_every_step::<DashIndex>(2, setting);
}

#[test]
fn a_crash_at_any_step_without_a_command_log_loses_no_checkpoint() {
    let setting = Setting {
        command_log: false,
        sync: SyncPolicy::Never,
        checkpoint_bytes: u64::MAX,
    };
    crash_at_every_step::<BucketIndex>(3, setting);
}

#[test]
fn crashes_at_random_steps_lose_nothing_durable() {
    for seed in seeds("CRASH_SEEDS", 150) {
        crash_at_random_steps::<BucketIndex>(seed);
        crash_at_random_steps::<DashIndex>(seed);
    }
}

/// Of the keys of a burst, what version they hold: all the same one, or none of them anything.
fn burst_version<I: Index>(store: &Store<I>, keys: &[Vec<u8>]) -> u64 {
    let held = |key: &Vec<u8>| {
        let found = workload::read(store, Model::new().now_ms, key).expect("it can be read");
        found.map_or(0, |stored| {
            let (version, _) = stored.value.split_first_chunk().expect("a version");
            u64::from_le_bytes(*version)
        })
    };
    let versions: Vec<u64> = keys.iter().map(held).collect();
    assert!(
        versions.iter().all(|version| *version == versions[0]),
        "half of a burst: {versions:?}"
    );
    versions[0]
}

/// Operations with so much to log that each is a long block, which is written past the page cache: of each all is there or
/// nothing, whenever the power goes.
#[test]
fn long_blocks_of_the_log_survive_whole_or_not_at_all() {
    const BURSTS: u64 = 6;
    let setting = Setting {
        command_log: true,
        sync: SyncPolicy::Always,
        checkpoint_bytes: u64::MAX,
    };
    let keys: Vec<Vec<u8>> = (0..4).map(|n| format!("burst:{n}").into_bytes()).collect();
    let names: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let latched = workload::latched(&names, LatchMode::Exclusive);
    for cut_after in 0.. {
        println!("power cut after {cut_after} steps");
        let disk = SimulatedDisk::new(cut_after);
        disk.cut_power_after(cut_after);
        let (mut begun, mut durable) = (0, 0);
        if let Some(store) = open::<BucketIndex>(&disk, setting) {
            for version in (1..=BURSTS).take_while(|_| disk.has_power()) {
                begun = version;
                let value = version.to_le_bytes().repeat(5000);
                let done = store.blocking(&latched, Model::new().now_ms, |op| {
                    names
                        .iter()
                        .try_for_each(|key| op.set(NAMESPACE, key, &value, META))
                });
                if disk.has_power() {
                    done.expect("there is power");
                    durable = version;
                }
            }
        }
        let was_cut = !disk.has_power();
        for seed in 0..3 {
            let left = disk.crash(cut_after << 2 | seed);
            let store = open::<BucketIndex>(&left, setting).expect("there is power");
            let found = burst_version(&store, &keys);
            assert!(
                (durable..=begun).contains(&found),
                "{found}, not {durable} to {begun}"
            );
        }
        if !was_cut {
            let steps = disk.steps();
            let long = steps
                .iter()
                .filter(|step| step.action == Action::WriteUncached);
            assert!(
                long.count() as u64 >= BURSTS / 2,
                "blocks go through the cache"
            );
            return;
        }
    }
}
