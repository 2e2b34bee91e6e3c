//! The portable backend: each read is one `pread` on a blocking thread of tokio's.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use super::buffer::{BufferPool, ReadBuffer};
use super::{IoStats, ReadBackend, ReadRequest, ReadResults, ReaderOptions};

/// Direct reads on threads, at most `depth` of them at a time.
pub(super) struct ThreadsBackend {
    runtime: Handle,
    /// One permit a read in flight. Fair, so batches are served in order.
    places: Arc<Semaphore>,
    pool: Arc<BufferPool>,
    stats: Arc<IoStats>,
}

impl ThreadsBackend {
    pub(super) fn new(
        options: &ReaderOptions,
        runtime: Handle,
        stats: Arc<IoStats>,
    ) -> ThreadsBackend {
        let places = Arc::new(Semaphore::new(options.depth.max(1) as usize));
        ThreadsBackend {
            runtime,
            places,
            pool: BufferPool::new(options.buffer_bytes),
            stats,
        }
    }
}

impl ReadBackend for ThreadsBackend {
    fn name(&self) -> &'static str {
        "tokio"
    }

    fn submit(&self, requests: Vec<ReadRequest>) -> oneshot::Receiver<ReadResults> {
        let (sender, receiver) = oneshot::channel();
        let (places, pool, stats) = (
            Arc::clone(&self.places),
            Arc::clone(&self.pool),
            Arc::clone(&self.stats),
        );
        stats.count_submission();
        self.runtime.spawn(async move {
            let mut reads = Vec::with_capacity(requests.len());
            for request in requests {
                let place = Arc::clone(&places).acquire_owned().await;
                let (pool, stats) = (Arc::clone(&pool), Arc::clone(&stats));
                reads.push(tokio::task::spawn_blocking(move || {
                    let _place = place;
                    read(&request, &pool, &stats)
                }));
            }
            let mut results = Vec::with_capacity(reads.len());
            for read in reads {
                results.push(
                    read.await
                        .unwrap_or_else(|error| Err(io::Error::other(error))),
                );
            }
            // Fails when nobody waits any more: the result is then not wanted.
            let _ = sender.send(results);
        });
        receiver
    }

    fn memory_bytes(&self) -> usize {
        self.pool.memory_bytes()
    }

    fn failure(&self) -> Option<String> {
        None
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
