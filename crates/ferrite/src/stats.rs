//! Statistics of the server. Every worker counts into a [`WorkerStats`] of its own, so counting is a plain load and
//! store on a line no other core writes; INFO adds the workers up.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::table::CommandId;

/// The most different error codes that are counted; as in Redis, a flood of invented ones stops being counted.
const MAX_ERROR_CODES: usize = 128;

/// A counter with one writer and any readers.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// What one worker has counted.
// Aligned so that no two workers' counters share a cache line (or a pair that is prefetched together).
#[repr(align(128))]
pub(crate) struct WorkerStats {
    pub(crate) commands: Counter,
    pub(crate) connections: Counter,
    pub(crate) rejected_connections: Counter,
    pub(crate) net_input_bytes: Counter,
    pub(crate) net_output_bytes: Counter,
    pub(crate) reads_processed: Counter,
    pub(crate) writes_processed: Counter,
    pub(crate) error_replies: Counter,
    pub(crate) keyspace_hits: Counter,
    pub(crate) keyspace_misses: Counter,
    pub(crate) query_buffer_limit_disconnections: Counter,
    pub(crate) output_buffer_limit_disconnections: Counter,
    /// Changes of data since the server started.
    pub(crate) changes: Counter,
    per_command: Box<[CommandStats]>,
    /// Error replies by code. Only errors take this lock, and only INFO contends for it.
    errors: Mutex<BTreeMap<String, u64>>,
    /// CONFIG RESETSTAT was called: the worker zeroes its counters itself, and until then they count as zero.
    reset: AtomicBool,
}

impl WorkerStats {
    fn new(commands: usize) -> Self {
        WorkerStats {
            commands: Counter::default(),
            connections: Counter::default(),
            rejected_connections: Counter::default(),
            net_input_bytes: Counter::default(),
            net_output_bytes: Counter::default(),
            reads_processed: Counter::default(),
            writes_processed: Counter::default(),
            error_replies: Counter::default(),
            keyspace_hits: Counter::default(),
            keyspace_misses: Counter::default(),
            query_buffer_limit_disconnections: Counter::default(),
            output_buffer_limit_disconnections: Counter::default(),
            changes: Counter::default(),
            per_command: (0..commands).map(|_| CommandStats::default()).collect(),
            errors: Mutex::default(),
            reset: AtomicBool::new(false),
        }
    }

    pub(crate) fn command(&self, id: CommandId) -> &CommandStats {
        &self.per_command[id.0 as usize]
    }

    /// Counts an error reply by its code: the text up to the first space.
    pub(crate) fn count_error(&self, text: &[u8]) {
        self.error_replies.add(1);
        let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        let code = String::from_utf8_lossy(code);
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code.as_ref()) {
            *count += 1;
        } else if errors.len() < MAX_ERROR_CODES {
            errors.insert(code.into_owned(), 1);
        }
    }

    /// Zeroes the counters if that was asked for. Called by the worker itself, so no count is lost or comes back.
    #[inline]
    pub(crate) fn reset_if_asked(&self) {
        if self.reset.load(Relaxed) {
            self.reset_now();
        }
    }

    #[cold]
    fn reset_now(&self) {
        for counter in [
            &self.commands,
            &self.connections,
            &self.rejected_connections,
            &self.net_input_bytes,
            &self.net_output_bytes,
            &self.reads_processed,
            &self.writes_processed,
            &self.error_replies,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.query_buffer_limit_disconnections,
            &self.output_buffer_limit_disconnections,
        ] {
            counter.reset();
        }
        self.per_command.iter().for_each(CommandStats::reset);
        self.errors.lock().clear();
        self.reset.store(false, Relaxed);
    }
}

/// What one worker has counted of one command.
#[derive(Default)]
pub(crate) struct CommandStats {
    calls: Counter,
    nanos: Counter,
    rejected: Counter,
    failed: Counter,
    latency: OnceLock<Box<Histogram>>,
}

impl CommandStats {
    /// Counts a call that took `elapsed`; `track_latency`: in the histogram too.
    #[inline]
    pub(crate) fn record(&self, elapsed: Duration, track_latency: bool) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.calls.add(1);
        self.nanos.add(nanos);
        if track_latency {
            self.latency.get_or_init(Box::default).record(nanos);
        }
    }

    /// Counts a call that was refused before it ran.
    pub(crate) fn reject(&self) {
        self.rejected.add(1);
    }

    /// Counts that a recorded call ended with an error.
    pub(crate) fn fail(&self) {
        self.failed.add(1);
    }

    fn reset(&self) {
        for counter in [&self.calls, &self.nanos, &self.rejected, &self.failed] {
            counter.reset();
        }
        if let Some(latency) = self.latency.get() {
            latency.buckets.iter().for_each(Counter::reset);
        }
    }
}

/// Sub-buckets per power of two, as a power of two: a recorded time is off by at most 1/32.
const SUB_BITS: u32 = 5;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Times from 2^31 ns (about 2 s) on share the last bucket.
const MAX_BITS: u32 = 31;
const BUCKETS: usize = (MAX_BITS - SUB_BITS + 1) as usize * SUB_BUCKETS;

/// Counts of times in log-linear buckets.
struct Histogram {
    buckets: [Counter; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: [const { Counter(AtomicU64::new(0)) }; BUCKETS],
        }
    }
}

impl Histogram {
    #[inline]
    fn record(&self, nanos: u64) {
        self.buckets[bucket_of(nanos)].add(1);
    }
}

fn bucket_of(nanos: u64) -> usize {
    if nanos < SUB_BUCKETS as u64 {
        return nanos as usize;
    }
    let top_bit = nanos.ilog2();
    let row = (top_bit - SUB_BITS + 1) as usize;
    let column = (nanos >> (top_bit - SUB_BITS)) as usize - SUB_BUCKETS;
    (row * SUB_BUCKETS + column).min(BUCKETS - 1)
}

/// The largest time that falls into a bucket, in nanoseconds.
fn bucket_end_nanos(bucket: usize) -> u64 {
    let (row, column) = (bucket / SUB_BUCKETS, (bucket % SUB_BUCKETS) as u64);
    if row == 0 {
        return column;
    }
    ((column + SUB_BUCKETS as u64 + 1) << (row - 1)) - 1
}

/// One command's figures, all workers together.
#[derive(Clone, Debug)]
pub(crate) struct CommandTotals {
    pub(crate) calls: u64,
    pub(crate) nanos: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
    /// (largest time of the bucket in nanoseconds, count), ascending, without empty buckets.
    pub(crate) latency: Vec<(u64, u64)>,
}

impl CommandTotals {
    /// The time that `percent` of the calls did not exceed, in nanoseconds.
    pub(crate) fn percentile_nanos(&self, percent: f64) -> u64 {
        let total: u64 = self.latency.iter().map(|(_, count)| count).sum();
        let wanted = (total as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (nanos, count) in &self.latency {
            seen += count;
            if seen >= wanted {
                return *nanos;
            }
        }
        0
    }
}

/// The statistics of all workers.
pub(crate) struct Stats {
    workers: Box<[WorkerStats]>,
    /// Operations per second and bytes per second lately, sampled in the background.
    pub(crate) rates: Rates,
}

impl Stats {
    pub(crate) fn new(workers: usize, commands: usize) -> Self {
        Stats {
            workers: (0..workers).map(|_| WorkerStats::new(commands)).collect(),
            rates: Rates::default(),
        }
    }

    /// Where worker `worker` counts.
    pub(crate) fn worker(&self, worker: usize) -> &WorkerStats {
        &self.workers[worker]
    }

    /// The sum of one counter: `stats.total(|worker| &worker.commands)`.
    pub(crate) fn total(&self, counter: impl Fn(&WorkerStats) -> &Counter) -> u64 {
        self.live().map(|worker| counter(worker).get()).sum()
    }

    /// Changes of data since the server started, whatever CONFIG RESETSTAT does.
    pub(crate) fn changes(&self) -> u64 {
        self.workers.iter().map(|worker| worker.changes.get()).sum()
    }

    /// One command's figures.
    pub(crate) fn command(&self, id: CommandId) -> CommandTotals {
        let mut totals = CommandTotals {
            calls: 0,
            nanos: 0,
            rejected: 0,
            failed: 0,
            latency: Vec::new(),
        };
        let mut buckets = [0u64; BUCKETS];
        for worker in self.live() {
            let stats = worker.command(id);
            totals.calls += stats.calls.get();
            totals.nanos += stats.nanos.get();
            totals.rejected += stats.rejected.get();
            totals.failed += stats.failed.get();
            if let Some(latency) = stats.latency.get() {
                buckets
                    .iter_mut()
                    .zip(&latency.buckets)
                    .for_each(|(sum, bucket)| *sum += bucket.get());
            }
        }
        let used = buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        totals.latency = used
            .map(|(bucket, count)| (bucket_end_nanos(bucket), *count))
            .collect();
        totals
    }

    /// Error replies by code.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for worker in self.live() {
            for (code, count) in worker.errors.lock().iter() {
                *all.entry(code.clone()).or_insert(0) += count;
            }
        }
        all
    }

    /// CONFIG RESETSTAT.
    pub(crate) fn reset(&self) {
        self.workers
            .iter()
            .for_each(|worker| worker.reset.store(true, Relaxed));
        self.rates.reset();
    }

    fn live(&self) -> impl Iterator<Item = &WorkerStats> {
        self.workers
            .iter()
            .filter(|worker| !worker.reset.load(Relaxed))
    }
}

/// Samples kept per rate: with ten samples a second, 1.6 seconds.
const SAMPLES: usize = 16;

/// Rates of commands and traffic, averaged over the latest samples.
#[derive(Default)]
pub(crate) struct Rates {
    inner: Mutex<RateSamples>,
}

#[derive(Default)]
struct RateSamples {
    /// Milliseconds since the server's start, and the totals of commands, input and output bytes at that time.
    samples: std::collections::VecDeque<(u64, [u64; 3])>,
}

impl Rates {
    /// Adds a sample of the totals.
    pub(crate) fn sample(
        &self,
        now_ms: u64,
        commands: u64,
        net_input_bytes: u64,
        net_output_bytes: u64,
    ) {
        let mut inner = self.inner.lock();
        if inner.samples.len() == SAMPLES {
            inner.samples.pop_front();
        }
        inner
            .samples
            .push_back((now_ms, [commands, net_input_bytes, net_output_bytes]));
    }

    /// Commands, input bytes and output bytes per second.
    pub(crate) fn per_second(&self) -> [u64; 3] {
        let inner = self.inner.lock();
        let (Some((from_ms, from)), Some((to_ms, to))) =
            (inner.samples.front(), inner.samples.back())
        else {
            return [0; 3];
        };
        let elapsed_ms = (to_ms - from_ms).max(1);
        std::array::from_fn(|i| to[i].saturating_sub(from[i]) * 1000 / elapsed_ms)
    }

    fn reset(&self) {
        self.inner.lock().samples.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_their_times() {
        let mut last = None;
        for nanos in (0..5000).chain((5000..3_000_000_000).step_by(7_654_321)) {
            let bucket = bucket_of(nanos);
            assert!(
                bucket_end_nanos(bucket) >= nanos || bucket == BUCKETS - 1,
                "{nanos}"
            );
            assert!(last.is_none_or(|last| last <= bucket));
            last = Some(bucket);
        }
    }
}
