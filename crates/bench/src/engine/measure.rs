//! How operations on an engine are timed.
//!
//! Each row is measured twice: once for its throughput, with no clock between the operations, and
//! once for its latencies, with two readings of the cheap clock around every call. What a pair of
//! readings costs by itself is contained in the latencies, and is printed with them.
//!
//! Throughput is told by two clocks: that on the wall, and the thread's own, which stands still while
//! something else has the processor. None of the calls measured here waits for anything, so where the
//! two differ the machine was busy with other things, and the second is the truer one.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::clock::Clock;
use crate::latency::Latencies;

/// One kind of call, made again and again by one thread.
pub(crate) trait Call {
    /// Makes the call once; returns how many operations it was.
    fn call(&mut self) -> Result<u64, String>;
}

/// How long and by how many threads something is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) threads: usize,
    /// How long one measurement takes.
    pub(crate) length: Duration,
    /// Calls between two looks at the system's clock.
    pub(crate) calls_at_once: u32,
}

/// What one row of the report shows.
#[derive(Clone)]
pub(crate) struct Measured {
    pub(crate) operations_per_second: f64,
    /// By the clocks of the threads, added up.
    pub(crate) operations_per_cpu_second: f64,
    /// Of calls: of a batch as a whole, where a call is a batch.
    pub(crate) latencies: Latencies,
}

/// Measures the calls that `start` makes ready for each thread.
pub(crate) fn measure<C: Call>(
    effort: Effort,
    clock: Clock,
    start: impl Fn(usize) -> C + Sync,
) -> Result<Measured, String> {
    let rates = on_threads(effort.threads, |thread, barrier| {
        let mut call = start(thread);
        barrier.wait();
        throughput(&mut call, effort)
    })?;
    let timings = on_threads(effort.threads, |thread, barrier| {
        let mut call = start(thread);
        barrier.wait();
        time_calls(&mut call, effort, clock)
    })?;
    let mut latencies = Latencies::new();
    timings
        .iter()
        .for_each(|of_thread| latencies.add(of_thread));
    Ok(Measured {
        operations_per_second: rates.iter().map(|rate| rate.by_wall).sum(),
        operations_per_cpu_second: rates.iter().map(|rate| rate.by_thread).sum(),
        latencies,
    })
}

/// Operations a second of one thread, by two clocks.
struct Rate {
    by_wall: f64,
    by_thread: f64,
}

fn throughput(call: &mut impl Call, effort: Effort) -> Result<Rate, String> {
    let (started, used_before) = (Instant::now(), thread_seconds());
    let mut operations = 0;
    loop {
        for _ in 0..effort.calls_at_once {
            operations += call.call()?;
        }
        let elapsed = started.elapsed();
        if elapsed >= effort.length {
            return Ok(Rate {
                by_wall: operations as f64 / elapsed.as_secs_f64(),
                by_thread: operations as f64 / (thread_seconds() - used_before),
            });
        }
    }
}

/// How long this thread has had a processor, in seconds.
fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The latencies of one thread's calls.
fn time_calls(call: &mut impl Call, effort: Effort, clock: Clock) -> Result<Latencies, String> {
    let mut latencies = Latencies::new();
    let started = Instant::now();
    while started.elapsed() < effort.length {
        for _ in 0..effort.calls_at_once {
            let from = Clock::ticks();
            call.call()?;
            latencies.record(clock.nanos_between(from, Clock::ticks()));
        }
    }
    Ok(latencies)
}

/// Runs `body` on `threads` threads that meet at a barrier once they are ready.
fn on_threads<T: Send>(
    threads: usize,
    body: impl Fn(usize, &Barrier) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let (body, barrier) = (&body, &barrier);
        let running: Vec<_> = (0..threads)
            .map(|n| scope.spawn(move || body(n, barrier)))
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("a thread panicked".into()))
            })
            .collect()
    })
}
