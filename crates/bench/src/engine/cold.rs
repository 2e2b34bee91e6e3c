//! Cold GETs: many tasks on one thread, each waiting for the record of one key, as the connections
//! of a server do. So the queue depth is steady, and a latency is that of one GET.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hybridlog::io::{ColdReader, IoStats, ReaderOptions};
use hybridlog::{ColdReads, Index, KeyRef, LatchMode, Namespace, Stop, Store};

use super::calls::{check, key};
use super::subject::describe;
use crate::latency::Latencies;
use crate::random::Random;

/// GETs in flight.
pub(crate) const DEPTH: u32 = 128;

/// What one round measured.
pub(crate) struct ColdGets {
    pub(crate) elapsed: Duration,
    /// Of the GETs that had to wait for the device.
    pub(crate) latencies: Latencies,
    /// GETs that found their record in memory: promoted by an earlier one.
    pub(crate) hits: u64,
    pub(crate) device_reads: u64,
}

impl ColdGets {
    /// Device reads a second.
    pub(crate) fn reads_per_second(&self) -> f64 {
        self.device_reads as f64 / self.elapsed.as_secs_f64()
    }

    /// GETs that went to the device, a second.
    pub(crate) fn gets_per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.elapsed.as_secs_f64()
    }

    /// Device reads for each GET that went to the device.
    pub(crate) fn reads_per_get(&self) -> f64 {
        self.device_reads as f64 / self.latencies.count().max(1) as f64
    }
}

/// GETs random keys of `0..keys` for `length`.
pub(crate) fn get_cold<I: Index>(
    store: &Arc<Store<I>>,
    keys: u64,
    length: Duration,
    seed: u64,
) -> Result<ColdGets, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        let stats = Arc::<IoStats>::default();
        let options = ReaderOptions {
            depth: DEPTH,
            ..ReaderOptions::default()
        };
        let (reader, _) = ColdReader::new(&options, Arc::clone(&stats))
            .map_err(|error| format!("cannot open a cold reader: {error}"))?;
        let shared = Rc::new(Shared {
            store: Arc::clone(store),
            reader,
            keys,
            until: Instant::now() + length,
            hits: Cell::new(0),
        });
        let started = Instant::now();
        let mut tasks = Vec::new();
        for task in 0..u64::from(DEPTH) {
            let random = Random::new(seed * u64::from(DEPTH) + task);
            tasks.push(tokio::task::spawn_local(get_until_the_end(
                Rc::clone(&shared),
                random,
            )));
        }
        let mut latencies = Latencies::new();
        for task in tasks {
            let of_task = task.await.map_err(|error| error.to_string())??;
            for nanos in of_task {
                latencies.record(nanos);
            }
        }
        Ok(ColdGets {
            elapsed: started.elapsed(),
            latencies,
            hits: shared.hits.get(),
            device_reads: stats.reads.load(Ordering::Relaxed),
        })
    }))
}

/// What all tasks share.
struct Shared<I: Index> {
    store: Arc<Store<I>>,
    reader: ColdReader,
    keys: u64,
    until: Instant,
    hits: Cell<u64>,
}

/// One task: one GET after the other. Returns the latencies of those that waited for the device.
async fn get_until_the_end<I: Index>(
    shared: Rc<Shared<I>>,
    mut random: Random,
) -> Result<Vec<u64>, String> {
    let mut nanos = Vec::new();
    let mut reads = ColdReads::default();
    loop {
        let started = Instant::now();
        if started >= shared.until {
            return Ok(nanos);
        }
        let index = random.below(shared.keys);
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let mut waited = false;
        reads.clear();
        while !get_once(&shared.store, index, &reads, now_ms)? {
            waited = true;
            reads.fetch(&shared.reader).await;
        }
        if waited {
            nanos.push(started.elapsed().as_nanos() as u64);
        } else {
            shared.hits.set(shared.hits.get() + 1);
        }
    }
}

/// Checks the value of the key with index `index`; false if a record has to be fetched before.
pub(crate) fn get_once<I: Index>(
    store: &Store<I>,
    index: u64,
    reads: &ColdReads,
    now_ms: u64,
) -> Result<bool, String> {
    let namespace = Namespace(0);
    let key = key(index);
    let latch = KeyRef {
        namespace,
        key: &key,
        mode: LatchMode::Shared,
    };
    loop {
        let Some(operation) = store.operation(&[latch], reads, now_ms) else {
            // The engine's own thread holds the latch for a moment.
            std::thread::yield_now();
            continue;
        };
        return match operation.read(namespace, &key) {
            Ok(Some(record)) => {
                check(index, Some(&operation.value(&record).map_err(describe)?))?;
                Ok(true)
            }
            Ok(None) => Err(format!("key {index} is missing")),
            Err(Stop::Cold) => Ok(false),
            Err(stop) => Err(describe(stop)),
        };
    }
}
