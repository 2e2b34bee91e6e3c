//! Writes ten times more data than the store has memory, reads it all back, and shows where it lies.
//!
//! `cargo run --release -p hybridlog --example ten_times_memory`

use std::time::Instant;

use hybridlog::{BucketIndex, Namespace, Options, Store};

const MEMORY_BYTES: u64 = 64 << 20;
const VALUE_BYTES: usize = 1024;

/// Every value follows from its key, so that it can be checked without a copy.
fn value(n: u64) -> Vec<u8> {
    n.to_le_bytes()
        .into_iter()
        .cycle()
        .take(VALUE_BYTES)
        .collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let options = Options::new(directory.path()).memory_bytes(MEMORY_BYTES);
    let store = Store::<BucketIndex>::open(options)?;
    let count = 10 * MEMORY_BYTES / VALUE_BYTES as u64;

    let started = Instant::now();
    for n in 0..count {
        store.set(format!("key:{n}").as_bytes(), &value(n))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let mib = (count as usize * VALUE_BYTES) as f64 / (1 << 20) as f64;
    println!("wrote {count} keys, {:.0} MiB/s", mib / seconds);

    let started = Instant::now();
    let keys: Vec<String> = (0..count)
        .map(|n| format!("key:{}", n * 7919 % count))
        .collect();
    let mut wrong = 0;
    store.get_many(&keys, |at, found| {
        let n = at as u64 * 7919 % count;
        wrong += u64::from(found != Some(&value(n)[..]));
    })?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "read them in another order, {:.0} a second, {wrong} wrong",
        count as f64 / seconds
    );

    let stats = store.stats();
    println!(
        "{} keys; segments of {} MiB: {} hot, {} warm, {} cold; index: {:.1} bytes a key",
        store.len(Namespace::default()),
        stats.segment_bytes >> 20,
        stats.mutable_segments,
        stats.warm_segments,
        stats.cold_segments,
        stats.index_bytes as f64 / count as f64
    );
    Ok(())
}
