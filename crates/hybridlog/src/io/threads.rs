//! The portable backend: each read is one `pread` on a blocking thread of tokio's.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::buffer::{BufferPool, ReadBuffer};
use super::{IoStats, ReadBackend, ReadRequest, ReadResults, ReaderOptions};

/// Direct reads on threads, bounded in number and in bytes.
pub(super) struct ThreadsBackend {
    runtime: Handle,
    shared: Arc<Shared>,
}

/// What the reads of all batches share. The semaphores are fair, so batches are served in order.
struct Shared {
    /// One permit a read in flight.
    places: Arc<Semaphore>,
    /// One permit a byte in flight; a read larger than `bytes_max` takes all of them.
    bytes: Arc<Semaphore>,
    bytes_max: u32,
    pool: Arc<BufferPool>,
    stats: Arc<IoStats>,
}

impl ThreadsBackend {
    pub(super) fn new(
        options: &ReaderOptions,
        runtime: Handle,
        stats: Arc<IoStats>,
    ) -> ThreadsBackend {
        let bytes_max = u32::try_from(options.buffer_bytes.saturating_mul(2))
            .unwrap_or(u32::MAX)
            .max(1);
        let shared = Arc::new(Shared {
            places: Arc::new(Semaphore::new(options.depth.max(1) as usize)),
            bytes: Arc::new(Semaphore::new(bytes_max as usize)),
            bytes_max,
            pool: BufferPool::new(options.buffer_bytes),
            stats,
        });
        ThreadsBackend { runtime, shared }
    }
}

impl ReadBackend for ThreadsBackend {
    fn name(&self) -> &'static str {
        "tokio"
    }

    fn submit(&self, requests: Vec<ReadRequest>) -> oneshot::Receiver<ReadResults> {
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        shared.stats.count_submission();
        self.runtime.spawn(async move {
            let mut reads = Vec::with_capacity(requests.len());
            for request in requests {
                reads.push(shared.start(request).await);
            }
            let mut results = Vec::with_capacity(reads.len());
            for read in reads {
                results.push(
                    read.await
                        .unwrap_or_else(|error| Err(io::Error::other(error))),
                );
            }
            // Fails when nobody waits any more: the buffers then go straight back to the pool.
            let _ = sender.send(results);
        });
        receiver
    }

    fn memory_bytes(&self) -> usize {
        self.shared.pool.memory_bytes()
    }

    fn failure(&self) -> Option<String> {
        None
    }
}

impl Shared {
    /// Hands one read to a thread, as soon as there is room for it.
    async fn start(self: &Arc<Self>, request: ReadRequest) -> JoinHandle<io::Result<ReadBuffer>> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let bytes = request.len.min(self.bytes_max);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            // Given back when the read has ended, wanted or not.
            let _room = (place, bytes);
            read(&request, &shared.pool, &shared.stats)
        })
    }
}

/// Does one read on the calling thread.
pub(super) fn read(
    request: &ReadRequest,
    pool: &Arc<BufferPool>,
    stats: &IoStats,
) -> io::Result<ReadBuffer> {
    let result = request.check().and_then(|()| {
        let mut buffer = pool.take(request.len as usize);
        request.file.read_into(&mut buffer, request.offset)?;
        Ok(buffer)
    });
    stats.count_read(request, &result);
    result
}
