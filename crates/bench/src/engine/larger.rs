//! Data ten times as large as the memory for it: blind writes over cold keys, and skewed reads.

use std::path::Path;
use std::time::Instant;

use hybridlog::io::BlockingReader;
use hybridlog::{BucketIndex, ColdReads, Index, Store};

use super::calls::{self, KEY_BYTES, VALUE_BYTES, key};
use super::cold::get_once;
use super::subject::{Opened, Subject};
use crate::keys::{Distribution, KeyChooser};
use crate::random::{Permutation, Random};

/// How many times the memory for it the data is.
const TIMES_MEMORY: u64 = 10;

/// Bytes of a record before its key.
const RECORD_HEADER_BYTES: usize = 16;

/// The most bytes the index takes for a slot.
const INDEX_BYTES: u64 = 13;

/// Blind SETs of cold keys.
pub(crate) struct Overwrites {
    pub(crate) keys: u64,
    /// Bytes of records for each byte of segments in memory.
    pub(crate) times_memory: f64,
    pub(crate) sets_per_second: f64,
    /// Of the engine: by SETs, and in the background to find out which of them were of keys that had been there.
    pub(crate) device_reads: u64,
    /// Bytes that the whole process read from the device, if the system tells.
    pub(crate) process_read_bytes: Option<u64>,
    /// Those of them that the SETs waited for: what their thread read.
    pub(crate) thread_read_bytes: Option<u64>,
}

/// As many keys as make the records ten times as large as the segments that fit into memory beside
/// an index that takes `index_bytes` for each.
fn keys_for<I: Index>(store: &Store<I>, record_bytes: u64, index_bytes: u64) -> u64 {
    let stats = store.stats();
    let memory = stats.segment_budget * stats.segment_bytes;
    memory * TIMES_MEMORY / (record_bytes + index_bytes * TIMES_MEMORY)
}

/// How many times the segments that fit into memory now the records of `keys` keys are.
fn times_memory<I: Index>(store: &Store<I>, keys: u64, record_bytes: u64) -> f64 {
    let stats = store.stats();
    (keys * record_bytes) as f64 / (stats.segment_budget * stats.segment_bytes) as f64
}

/// Writes all keys and makes them cold; then writes all again in random order.
pub(crate) fn overwrite_cold(dir: &Path, memory_bytes: u64) -> Result<Overwrites, String> {
    let record_bytes = ((RECORD_HEADER_BYTES + KEY_BYTES + VALUE_BYTES) as u64).next_multiple_of(8);
    let opened = Opened::<BucketIndex>::new(dir, memory_bytes)?;
    let store = &opened.store;
    // A key and its shadow have a slot each.
    let keys = keys_for(store, record_bytes, 2 * INDEX_BYTES);
    calls::write_all(store.as_ref(), keys)?;
    store.force_cold().map_err(super::subject::describe)?;
    let order = Permutation::new(keys, 1);
    let before = (read_bytes(OF_PROCESS), read_bytes(OF_THREAD));
    let reads_before = device_reads(store.blocking_io_stats());
    let started = Instant::now();
    for n in 0..keys {
        let index = order.nth(n);
        Subject::set(store.as_ref(), &key(index), &calls::value(index))?;
    }
    let elapsed = started.elapsed();
    let device_reads = device_reads(store.blocking_io_stats()) - reads_before;
    let (process, thread) = (read_bytes(OF_PROCESS), read_bytes(OF_THREAD));
    let since =
        |after: Option<u64>, before| after.zip(before).map(|(after, before)| after - before);
    Ok(Overwrites {
        keys,
        times_memory: times_memory(store, keys, record_bytes),
        sets_per_second: keys as f64 / elapsed.as_secs_f64(),
        device_reads,
        process_read_bytes: since(process, before.0),
        thread_read_bytes: since(thread, before.1),
    })
}

fn device_reads(stats: &hybridlog::io::IoStats) -> u64 {
    stats.reads.load(std::sync::atomic::Ordering::Relaxed)
}

const OF_PROCESS: &str = "/proc/self/io";
const OF_THREAD: &str = "/proc/thread-self/io";

/// `read_bytes` of one of these: what was read from devices, not from the page cache.
fn read_bytes(of: &str) -> Option<u64> {
    let io = std::fs::read_to_string(of).ok()?;
    let line = io.lines().find(|line| line.starts_with("read_bytes:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Zipfian reads, and what the best possible choice of records in memory would have found there.
pub(crate) struct Skewed {
    pub(crate) keys: u64,
    pub(crate) times_memory: f64,
    /// Share of the reads that found their record in memory.
    pub(crate) hits: f64,
    /// The same, had the records read most in these very reads, as many as fit, been there always.
    pub(crate) best_static: f64,
}

/// Bytes of a value here: as in a cache, and so many that the index is small beside them.
const SKEWED_VALUE_BYTES: usize = 1024;

/// The skew of YCSB.
const THETA: f64 = 0.99;

/// Reads keys with zipfian popularity: `warm_up` times as many reads as there are keys, and
/// then as many again that count.
pub(crate) fn read_skewed(dir: &Path, memory_bytes: u64, warm_up: u64) -> Result<Skewed, String> {
    let record_bytes = (RECORD_HEADER_BYTES + KEY_BYTES + SKEWED_VALUE_BYTES) as u64;
    let opened = Opened::<BucketIndex>::new(dir, memory_bytes)?;
    let store = &opened.store;
    let keys = keys_for(store, record_bytes, INDEX_BYTES);
    let mut value = vec![b'v'; SKEWED_VALUE_BYTES];
    for n in 0..keys {
        value[..8].copy_from_slice(&n.to_le_bytes());
        Subject::set(store.as_ref(), &key(n), &value)?;
    }
    let chooser = KeyChooser::new(Distribution::Zipfian, keys, THETA, 7);
    let mut random = Random::new(11);
    let (reader, _) = BlockingReader::new(hybridlog::io::Backend::Auto, std::sync::Arc::default())
        .map_err(|error| format!("cannot open a reader: {error}"))?;
    let mut reads = ColdReads::default();
    let mut counts = vec![0u32; keys as usize];
    let mut hits = 0u64;
    for turn in 0..keys * (warm_up + 1) {
        let index = chooser.choose(&mut random, turn, 0);
        reads.clear();
        let mut hit = true;
        while !get_once(store, index, &reads, 1)? {
            hit = false;
            reads.fetch_blocking(&reader);
        }
        if turn >= keys * warm_up {
            counts[index as usize] += 1;
            hits += u64::from(hit);
        }
    }
    let stats = store.stats();
    let memory = stats.segment_budget * stats.segment_bytes;
    let resident = (memory / record_bytes).min(keys) as usize;
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let best: u64 = counts[..resident]
        .iter()
        .map(|&count| u64::from(count))
        .sum();
    Ok(Skewed {
        keys,
        times_memory: times_memory(store, keys, record_bytes),
        hits: hits as f64 / keys as f64,
        best_static: best as f64 / keys as f64,
    })
}

/// Bytes of the index for each key at each of the given numbers of keys, which ascend.
pub(crate) fn index_bytes_per_key(dir: &Path, at: &[u64]) -> Result<Vec<(u64, f64)>, String> {
    let most = at.last().copied().unwrap_or(0);
    let opened = Opened::<BucketIndex>::new(dir, (most * 64).max(64 << 20))?;
    let mut written = 0;
    let mut measured = Vec::new();
    for &keys in at {
        for index in written..keys {
            Subject::set(opened.store.as_ref(), &key(index), b"")?;
        }
        written = keys;
        let bytes = opened.store.stats().index_bytes;
        measured.push((keys, bytes as f64 / keys as f64));
    }
    Ok(measured)
}
