//! The io_uring backend: a ring that lives in a task of the worker's runtime.
//!
//! The task owns the ring; readers only send it batches. It takes all batches that arrived since it
//! last ran, those of other connections included, and submits them with one system call, so
//! concurrent readers share submissions. It wakes when a batch arrives or the ring's descriptor
//! becomes readable.
#![allow(unsafe_code)] // Registering the ring's descriptor with the runtime.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};

use super::buffer::BufferPool;
use super::ring::{Batch, Issuer, Ring, RingOptions};
use super::{IoStats, ReadBackend, ReadRequest, ReadResults, ReaderOptions};

/// The sending end of the task that owns the ring.
pub(super) struct UringBackend {
    /// Holds no more batches than there are commands waiting for one.
    batches: mpsc::UnboundedSender<Batch>,
    pool: Arc<BufferPool>,
    queue_bytes: usize,
    /// Why the task has ended, if it has.
    failure: Arc<OnceLock<String>>,
}

impl UringBackend {
    /// Sets up a ring and its task. The text names options that the kernel refused.
    pub(super) fn new(
        options: &ReaderOptions,
        runtime: &Handle,
        stats: &Arc<IoStats>,
    ) -> io::Result<(UringBackend, Option<String>)> {
        let pool = BufferPool::new(options.buffer_bytes);
        let issuer = match runtime.runtime_flavor() {
            RuntimeFlavor::CurrentThread => Issuer::OneThread,
            _ => Issuer::AnyThread,
        };
        let plain = RingOptions {
            depth: options.depth.clamp(1, 4096),
            in_flight_bytes: options.buffer_bytes.saturating_mul(2),
            issuer,
            sqpoll: false,
            iopoll: false,
            register: true,
        };
        let mut notices = Vec::new();
        let ring = open_ring(options, plain, &pool, stats, &mut notices)?;
        let queue_bytes = ring.queue_bytes();
        // SAFETY: a ring keeps the one descriptor it was set up with open until it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE)? };
        let (sender, receiver) = mpsc::unbounded_channel();
        let failure = Arc::new(OnceLock::new());
        runtime.spawn(drive(ring, receiver, Arc::clone(&failure)));
        let backend = UringBackend {
            batches: sender,
            pool,
            queue_bytes,
            failure,
        };
        Ok((backend, (!notices.is_empty()).then(|| notices.join("; "))))
    }
}

impl ReadBackend for UringBackend {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn submit(&self, requests: Vec<ReadRequest>) -> oneshot::Receiver<ReadResults> {
        let (batch, results) = Batch::new(requests);
        // Fails when the task has ended; the batch is then dropped, and `results` reports it.
        let _ = self.batches.send(batch);
        results
    }

    fn memory_bytes(&self) -> usize {
        self.pool.memory_bytes() + self.queue_bytes
    }

    fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }
}

/// Sets up the ring that was asked for, leaving out what the kernel refuses.
fn open_ring(
    asked: &ReaderOptions,
    plain: RingOptions,
    pool: &Arc<BufferPool>,
    stats: &Arc<IoStats>,
    notices: &mut Vec<String>,
) -> io::Result<Ring> {
    let mut options = plain;
    if asked.sqpoll {
        options.sqpoll = true;
        if let Err(error) = Ring::new(&options, pool, stats) {
            notices.push(format!(
                "submission polling is refused ({error}), reading without"
            ));
            options.sqpoll = false;
        }
    }
    if asked.iopoll {
        options.iopoll = true;
        if let Err(error) = probe_iopoll(&options, asked, pool) {
            notices.push(format!(
                "completion polling is refused ({error}), reading without"
            ));
            options.iopoll = false;
        }
    }
    let ring = Ring::new(&options, pool, stats)?;
    if let Some(error) = ring.registration_refusal() {
        notices.push(format!(
            "registered buffers are refused ({error}), reading without"
        ));
    }
    Ok(ring)
}

/// Finds out whether polled reads work by doing one: only the device behind a file knows whether it
/// can be polled.
fn probe_iopoll(
    options: &RingOptions,
    asked: &ReaderOptions,
    pool: &Arc<BufferPool>,
) -> io::Result<()> {
    let file = super::file::create_probe_file(&asked.directory)?;
    let len = file.alignment();
    let mut ring = Ring::new(options, pool, &Arc::default())?;
    let (batch, mut results) = Batch::new(vec![ReadRequest {
        file,
        offset: 0,
        len,
    }]);
    ring.push(batch);
    loop {
        ring.turn(1)?;
        if let Ok(mut results) = results.try_recv() {
            return results.remove(0).map(drop);
        }
    }
}

/// Owns the ring until the backend is dropped and nothing is in flight, or the ring fails.
async fn drive(
    mut ring: AsyncFd<Ring>,
    mut batches: mpsc::UnboundedReceiver<Batch>,
    failure: Arc<OnceLock<String>>,
) {
    let mut arrived = Vec::new();
    let mut open = true;
    while open || !ring.get_ref().is_idle() {
        if ring.get_mut().must_turn() {
            tokio::task::yield_now().await;
        } else {
            let wait = poll_fn(|context| {
                poll_event(context, &mut ring, &mut batches, &mut arrived, &mut open)
            });
            if let Err(error) = wait.await {
                return fail(&failure, &error);
            }
        }
        while let Ok(batch) = batches.try_recv() {
            arrived.push(batch);
        }
        for batch in arrived.drain(..) {
            ring.get_mut().push(batch);
        }
        if let Err(error) = ring.get_mut().turn(0) {
            return fail(&failure, &error);
        }
    }
}

/// Ready when batches have arrived (then in `arrived`), the ring has completions, or `open` has
/// become false.
fn poll_event(
    context: &mut Context<'_>,
    ring: &mut AsyncFd<Ring>,
    batches: &mut mpsc::UnboundedReceiver<Batch>,
    arrived: &mut Vec<Batch>,
    open: &mut bool,
) -> Poll<io::Result<()>> {
    if *open {
        match batches.poll_recv(context) {
            Poll::Ready(Some(batch)) => {
                arrived.push(batch);
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(None) => {
                *open = false;
                return Poll::Ready(Ok(()));
            }
            Poll::Pending => {}
        }
    }
    // Cleared before the completions are taken, so one that arrives meanwhile sets it again.
    ring.poll_read_ready_mut(context)
        .map_ok(|mut ready| ready.clear_ready())
}

/// Batches without an answer are dropped with the ring, which tells those who wait.
fn fail(failure: &OnceLock<String>, error: &io::Error) {
    // Set once: the task ends here.
    let _ = failure.set(format!("its ring failed: {error}"));
}
