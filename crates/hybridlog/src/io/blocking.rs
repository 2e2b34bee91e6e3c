//! Batches of reads for code without a runtime: submit all, wait for all, on the calling thread.

use std::io;
use std::sync::Arc;

#[cfg(target_os = "linux")]
use parking_lot::Mutex;

use super::buffer::BufferPool;
#[cfg(target_os = "linux")]
use super::ring::{Batch, Issuer, Ring, RingOptions};
use super::threads::read;
use super::{Backend, IoStats, ReadRequest, ReadResults};

/// The most reads of one batch in flight.
#[cfg(target_os = "linux")]
const DEPTH: u32 = 64;
/// Rings kept for the next caller; more exist only while more threads read at once.
#[cfg(target_os = "linux")]
const IDLE_RINGS: usize = 4;
/// Touched only as far as it is used.
const POOL_BYTES: usize = 512 << 10;

/// Reads batches from any thread, blocking it. Shared by reference.
///
/// A batch of several reads is one io_uring submission where the kernel allows that, else the reads
/// follow each other.
pub struct BlockingReader {
    pool: Arc<BufferPool>,
    stats: Arc<IoStats>,
    /// Rings not in use. `None` if reads do without.
    #[cfg(target_os = "linux")]
    idle: Option<Mutex<Vec<Ring>>>,
}

impl BlockingReader {
    /// Opens a reader. The text says why io_uring is not used although it was asked for.
    ///
    /// # Errors
    ///
    /// When [`Backend::Uring`] is asked for and the kernel refuses it.
    pub fn new(
        backend: Backend,
        stats: Arc<IoStats>,
    ) -> io::Result<(BlockingReader, Option<String>)> {
        let pool = BufferPool::new(POOL_BYTES);
        let probe = match backend {
            Backend::Tokio => None,
            Backend::Auto | Backend::Uring => Some(probe_ring(&pool, &stats)),
        };
        let notice = match &probe {
            Some(Err(error)) if backend == Backend::Uring => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("io_uring is not available: {error}"),
                ));
            }
            Some(Err(error)) => Some(format!(
                "io_uring is not available ({error}), reading one by one"
            )),
            _ => None,
        };
        let reader = BlockingReader {
            pool,
            stats,
            #[cfg(target_os = "linux")]
            idle: probe
                .and_then(Result::ok)
                .map(|ring| Mutex::new(vec![ring])),
        };
        Ok((reader, notice))
    }

    /// Reads a batch. Results as of [`ColdReader::read_batch`](super::ColdReader::read_batch).
    pub fn read_batch(&self, requests: &[ReadRequest]) -> ReadResults {
        // One read is one system call either way, and the ring's is the longer one.
        #[cfg(target_os = "linux")]
        if requests.len() > 1
            && let Some(idle) = &self.idle
            && let Ok(results) = self.read_with_ring(idle, requests)
        {
            return results;
        }
        if !requests.is_empty() {
            self.stats.count_submission();
        }
        requests
            .iter()
            .map(|request| read(request, &self.pool, &self.stats))
            .collect()
    }

    /// Bytes of memory held: buffers, those lent to callers among them, and the queues of idle
    /// rings.
    pub fn memory_bytes(&self) -> usize {
        #[cfg(target_os = "linux")]
        let queues = self
            .idle
            .as_ref()
            .map_or(0, |idle| idle.lock().iter().map(Ring::queue_bytes).sum());
        #[cfg(not(target_os = "linux"))]
        let queues = 0;
        self.pool.memory_bytes() + queues
    }

    /// An error means that the ring has failed, or could not be had, and has given no answers.
    #[cfg(target_os = "linux")]
    fn read_with_ring(
        &self,
        idle: &Mutex<Vec<Ring>>,
        requests: &[ReadRequest],
    ) -> io::Result<ReadResults> {
        let kept = idle.lock().pop();
        let mut ring = match kept {
            Some(ring) => ring,
            None => probe_ring(&self.pool, &self.stats)?,
        };
        let (batch, mut results) = Batch::new(requests.to_vec());
        ring.push(batch);
        let results = loop {
            ring.turn(1)?;
            if let Ok(results) = results.try_recv() {
                break results;
            }
        };
        let mut idle = idle.lock();
        if idle.len() < IDLE_RINGS {
            idle.push(ring);
        }
        Ok(results)
    }
}

#[cfg(target_os = "linux")]
fn probe_ring(pool: &Arc<BufferPool>, stats: &Arc<IoStats>) -> io::Result<Ring> {
    // Not registered: the rings share the pool, and each would pin all of it.
    let options = RingOptions {
        depth: DEPTH,
        in_flight_bytes: 2 * POOL_BYTES,
        issuer: Issuer::AnyThread,
        sqpoll: false,
        iopoll: false,
        register: false,
    };
    Ring::new(&options, pool, stats)
}

#[cfg(not(target_os = "linux"))]
fn probe_ring(_pool: &Arc<BufferPool>, _stats: &Arc<IoStats>) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
