//! The store agrees with a plain map, whatever moves between the tiers in between, and however often it is saved, closed and
//! opened again; on both indexes.

use std::path::Path;
use std::sync::Arc;

use hybridlog::{BucketIndex, DashIndex, Index, LatchMode, Options, Store, Tier};

use crate::disk::scratch_directory;
use crate::random::{Random, seeds};
use crate::workload::{Model, NAMESPACE, compare, keys, latched, step};

const STEPS: u64 = 400;

fn open<I: Index>(directory: &Path, command_log: bool) -> Arc<Store<I>> {
    let options = Options {
        segment_bytes: Some(1 << 20),
        command_log,
        ..Options::new(directory).memory_bytes(24 << 20)
    };
    Store::open(options).expect("it opens")
}

fn run<I: Index>(seed: u64) {
    println!("seed {seed} on {}", I::NAME);
    let directory = scratch_directory();
    let mut random = Random::new(seed);
    let mut store = open::<I>(directory.path(), random.percent(50));
    let mut model = Model::new();
    let keys = keys(0);
    for n in 0..STEPS {
        step(&store, &mut model, &mut random, &keys)
            .unwrap_or_else(|stop| panic!("seed {seed} step {n}: {stop}"));
        model.now_ms += random.below(4);
        match random.below(25) {
            0 => store.seal_all().expect("segments can be written"),
            1 => store.force_cold().expect("segments can be written"),
            2 => {
                store.expire_some(model.now_ms, 4000);
            }
            3 => {
                store.checkpoint().expect("a checkpoint can be made");
            }
            4 => {
                if !store.has_command_log() {
                    store.checkpoint().expect("a checkpoint can be made");
                }
                drop(store);
                store = open(directory.path(), random.percent(50));
            }
            _ => {}
        }
    }
    compare(&store, &model);
    for key in &keys {
        let latched = latched(&[key], LatchMode::Shared);
        let tier = store.blocking(&latched, model.now_ms, |op| {
            Ok(op.read(NAMESPACE, key)?.map(|record| record.tier()))
        });
        assert!(matches!(
            tier,
            Ok(None | Some(Tier::Hot | Tier::Warm | Tier::Cold))
        ));
    }
    for key in &keys {
        let latched = latched(&[key], LatchMode::Exclusive);
        let removed = store.blocking(&latched, model.now_ms, |op| op.remove(NAMESPACE, key));
        removed.expect("remove");
    }
    let counts = (store.len(NAMESPACE), store.expiring(NAMESPACE));
    assert_eq!(counts, (0, 0), "counts after removing everything");
}

#[test]
fn the_store_agrees_with_a_map() {
    for seed in seeds("MODEL_SEEDS", 20) {
        run::<BucketIndex>(seed);
        run::<DashIndex>(seed);
    }
}
