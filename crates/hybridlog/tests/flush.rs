//! Retiring everything: nothing comes back, the device is empty again, and what is written afterwards stays.

use hybridlog::{
    BucketIndex, ColdReads, DashIndex, Index, KeyRef, LatchMode, Meta, Namespace, Options, Store,
};

fn files(directory: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(directory).expect("the directory can be read");
    entries
        .filter(|entry| {
            let path = entry.as_ref().expect("the entry can be read").path();
            path.extension().is_some_and(|extension| extension == "seg")
        })
        .count()
}

fn flushes<I: Index>() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<I>::open(options).expect("a fresh directory opens");
    let key = |n: u32| format!("key:{n}").into_bytes();
    for round in 0..3 {
        let (last, next) = (Namespace(u16::from(round)), Namespace(u16::from(round) + 1));
        for n in 0..20_000 {
            store.set(&key(n), &[round; 100]).expect("set");
        }
        store.set(b"large", &vec![round; 300_000]).expect("set");
        match round {
            0 => store.force_cold().expect("segments can be written"),
            1 => store.seal_all().expect("segments can be written"),
            _ => {}
        }
        let reads = ColdReads::default();
        let retired = loop {
            let mut everything = store
                .operation_on_everything(&reads, 0)
                .expect("nobody else is here");
            if let Ok(retired) = everything.retire_everything() {
                // The first writes of the time after come before the sweep.
                let meta = Meta::default();
                everything.set(next, b"after", &[round], meta).expect("set");
                break retired;
            }
        };
        store.sweep(retired, &[Namespace(0), last]);
        assert_eq!((store.len(Namespace(0)), store.len(next)), (0, 1));
        assert_eq!(store.stats().index_slots, 1);
        store.checkpoint().expect("a checkpoint");
        assert_eq!(files(directory.path()), 1, "files after round {round}");
        for n in (0..20_000).step_by(997) {
            assert_eq!(store.get(&key(n)).expect("get"), None);
        }
        assert_eq!(store.get(b"large").expect("get"), None);
        let after_key = KeyRef {
            namespace: next,
            key: b"after",
            mode: LatchMode::Shared,
        };
        let after = store.blocking(&[after_key], 0, |op| {
            Ok(op
                .read(next, b"after")?
                .map(|record| op.value(&record).map(|value| value[0])))
        });
        assert_eq!(
            after.expect("read").expect("it is there").expect("value"),
            round
        );
        assert!(store.stats().mutable_segments <= 1);
    }
}

#[test]
fn everything_is_forgotten_at_once() {
    flushes::<BucketIndex>();
    flushes::<DashIndex>();
}
