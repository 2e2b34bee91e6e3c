//! Cold I/O: reads of records that live only in the data files.
//!
//! A worker owns one [`ColdReader`]. It hands over a batch of [`ReadRequest`]s, which go to the
//! device in one submission, and awaits their [`ReadBuffer`]s. Two backends stand behind the
//! [`ReadBackend`] trait: io_uring, and tokio's blocking threads where the kernel has no io_uring
//! or forbids it. Code without a runtime reads through a [`BlockingReader`].
//!
//! What must hold:
//!
//! * Reads bypass the page cache (O_DIRECT). A file system that refuses O_DIRECT is read through
//!   the page cache, and the pages are dropped after each read, so cold data never takes memory
//!   outside the cap.
//! * A buffer belongs to its backend from submission to completion, never to the future that waits
//!   for it: dropping the future discards the result and nothing else.
//! * Memory is bounded: reads that find no room wait in the queue of the backend, in order.

mod blocking;
mod buffer;
mod file;
mod threads;

#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod uring;

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::oneshot;

pub use blocking::BlockingReader;
pub use buffer::ReadBuffer;
pub use file::{DIRECT_ALIGN, DataFile};

/// The results of a batch, in the order of its requests.
pub type ReadResults = Vec<io::Result<ReadBuffer>>;

/// One read: `len` bytes from `offset` of `file`, both multiples of [`DataFile::alignment`].
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// The file, kept open until the read has completed.
    pub file: Arc<DataFile>,
    /// First byte.
    pub offset: u64,
    /// Number of bytes, at least one alignment unit; all of them must lie inside the file.
    pub len: u32,
}

impl ReadRequest {
    /// The smallest valid request that covers `len` bytes (at least one) from any `offset`, and how
    /// many bytes of its result to skip to reach `offset`.
    ///
    /// # Panics
    ///
    /// When the widened length does not fit into 32 bits, far beyond the largest segment.
    pub fn covering(file: Arc<DataFile>, offset: u64, len: u32) -> (ReadRequest, usize) {
        let alignment = u64::from(file.alignment());
        let start = offset - offset % alignment;
        let end = (offset + u64::from(len)).next_multiple_of(alignment);
        let widened = u32::try_from(end - start).expect("a record fits into its segment");
        let skip = (offset - start) as usize;
        (
            ReadRequest {
                file,
                offset: start,
                len: widened,
            },
            skip,
        )
    }

    /// Refuses what the device would refuse, with an error that says why.
    fn check(&self) -> io::Result<()> {
        let alignment = self.file.alignment();
        let aligned =
            self.offset.is_multiple_of(u64::from(alignment)) && self.len.is_multiple_of(alignment);
        if aligned && self.len > 0 {
            return Ok(());
        }
        let reason = format!(
            "offset and length must be multiples of {alignment}, the length at least {alignment}"
        );
        Err(self.error(&io::Error::new(io::ErrorKind::InvalidInput, reason)))
    }

    /// `cause`, with the file, offset and length it happened at.
    fn error(&self, cause: &io::Error) -> io::Error {
        self.file.read_error(self.offset, self.len as usize, cause)
    }
}

/// Which backend reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring where the kernel allows it, else tokio.
    Auto,
    /// io_uring, or an error where it is refused.
    Uring,
    /// Direct reads on tokio's blocking threads.
    Tokio,
}

/// How a [`ColdReader`] reads.
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    /// Which backend reads.
    pub backend: Backend,
    /// Let a kernel thread pick up submissions, so that submitting costs no system call (io_uring
    /// only). It takes most of a core while there is traffic.
    pub sqpoll: bool,
    /// Poll the device for completions instead of taking interrupts (io_uring only, and only on
    /// devices with polling queues). The worker spins while reads are in flight.
    pub iopoll: bool,
    /// The most reads in flight; further ones wait.
    pub depth: u32,
    /// Bytes of buffers held (and, with io_uring, registered) for as long as the reader lives.
    /// Reads in flight never take more than twice this.
    pub buffer_bytes: usize,
    /// Where the data files are: polled reads are probed on this file system.
    pub directory: PathBuf,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        ReaderOptions {
            backend: Backend::Auto,
            sqpoll: false,
            iopoll: false,
            depth: 128,
            buffer_bytes: 1 << 20,
            directory: PathBuf::from("."),
        }
    }
}

/// What a reader has done since it was created. Updated by one reader, read by anyone.
#[derive(Debug, Default)]
pub struct IoStats {
    /// Hand-overs of reads to the kernel (io_uring) or to the threads (tokio), whatever the number
    /// of reads in each.
    pub submissions: AtomicU64,
    /// Reads that succeeded.
    pub reads: AtomicU64,
    /// Bytes of those reads.
    pub bytes: AtomicU64,
    /// Reads that failed.
    pub errors: AtomicU64,
    /// Those of `reads` that went through the page cache, because the file system refuses O_DIRECT.
    pub buffered_reads: AtomicU64,
    /// Those of `reads` that the kernel did into registered buffers (io_uring only).
    pub registered_reads: AtomicU64,
}

impl IoStats {
    fn count_submission(&self) {
        self.submissions.fetch_add(1, Relaxed);
    }

    fn count_registered_read(&self) {
        self.registered_reads.fetch_add(1, Relaxed);
    }

    fn count_read(&self, request: &ReadRequest, result: &io::Result<ReadBuffer>) {
        if result.is_err() {
            self.errors.fetch_add(1, Relaxed);
            return;
        }
        self.reads.fetch_add(1, Relaxed);
        self.bytes.fetch_add(u64::from(request.len), Relaxed);
        if !request.file.is_direct() {
            self.buffered_reads.fetch_add(1, Relaxed);
        }
    }
}

/// A way to read batches. Reads begin when they are submitted, whether or not anybody waits for
/// them.
pub trait ReadBackend: Send + Sync {
    /// The name users know it by.
    fn name(&self) -> &'static str;

    /// Starts the reads of one batch. The receiver gets one result for each request, in order, when
    /// the last has completed; it may be dropped before. A receiver whose sender is gone means that
    /// the backend has failed.
    fn submit(&self, requests: Vec<ReadRequest>) -> oneshot::Receiver<ReadResults>;

    /// Bytes of memory held: buffers, lent ones among them, and queues.
    fn memory_bytes(&self) -> usize;

    /// Why the backend no longer reads, once it has failed.
    fn failure(&self) -> Option<String>;
}

/// A worker's access to cold records. It does its work on the tokio runtime that it was created in.
///
/// When the reader is dropped, what is in flight completes first: in the background, or, if the
/// runtime ends, while the runtime is dropped.
pub struct ColdReader {
    backend: Box<dyn ReadBackend>,
}

impl ColdReader {
    /// Opens a reader. The text says what was asked for and is not used, and why; it is meant for
    /// the log.
    ///
    /// # Errors
    ///
    /// Outside a tokio runtime; when [`Backend::Uring`] is asked for and the kernel refuses it.
    ///
    /// # Panics
    ///
    /// On a tokio runtime without its I/O driver (`enable_io`).
    pub fn new(
        options: &ReaderOptions,
        stats: Arc<IoStats>,
    ) -> io::Result<(ColdReader, Option<String>)> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let refused = match options.backend {
            Backend::Tokio => None,
            Backend::Auto | Backend::Uring => match open_uring(options, &runtime, &stats) {
                Ok((backend, notice)) => return Ok((ColdReader { backend }, notice)),
                Err(error) => Some(error),
            },
        };
        let notice = match refused {
            Some(error) if options.backend == Backend::Uring => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("io_uring is not available: {error}"),
                ));
            }
            Some(error) => Some(format!(
                "io_uring is not available ({error}), reading with threads"
            )),
            None if options.sqpoll || options.iopoll => {
                Some("submission and completion polling need io_uring, reading without".to_string())
            }
            None => None,
        };
        let backend = Box::new(threads::ThreadsBackend::new(options, runtime, stats));
        Ok((ColdReader { backend }, notice))
    }

    /// Reads on a backend of the caller's own, a simulated disk for example.
    pub fn with_backend(backend: Box<dyn ReadBackend>) -> ColdReader {
        ColdReader { backend }
    }

    /// Starts the reads of one batch at once and returns a future of its results, one for each
    /// request, in order.
    ///
    /// The batch is one submission, as far as it fits into the depth; the rest follows as places
    /// become free. Every result is of the full length asked for or an error that names file,
    /// offset and length: the end of the file inside a request is [`io::ErrorKind::UnexpectedEof`].
    /// The future may be dropped at any time.
    pub fn read_batch(&self, requests: Vec<ReadRequest>) -> impl Future<Output = ReadResults> {
        let count = requests.len();
        let results = (count > 0).then(|| self.backend.submit(requests));
        async move {
            let Some(results) = results else {
                return Vec::new();
            };
            match results.await {
                Ok(results) => results,
                Err(_) => {
                    let reason = self
                        .backend
                        .failure()
                        .unwrap_or_else(|| "its task has ended".to_string());
                    let error =
                        || io::Error::other(format!("the cold reader has stopped: {reason}"));
                    (0..count).map(|_| Err(error())).collect()
                }
            }
        }
    }

    /// `"io_uring"` or `"tokio"`.
    pub fn backend_name(&self) -> &'static str {
        self.backend.name()
    }

    /// Bytes of memory held: buffers, those lent to callers among them, and queues.
    pub fn memory_bytes(&self) -> usize {
        self.backend.memory_bytes()
    }
}

#[cfg(target_os = "linux")]
fn open_uring(
    options: &ReaderOptions,
    runtime: &tokio::runtime::Handle,
    stats: &Arc<IoStats>,
) -> io::Result<(Box<dyn ReadBackend>, Option<String>)> {
    let (backend, notice) = uring::UringBackend::new(options, runtime, stats)?;
    Ok((Box::new(backend), notice))
}

#[cfg(not(target_os = "linux"))]
fn open_uring(
    _options: &ReaderOptions,
    _runtime: &tokio::runtime::Handle,
    _stats: &Arc<IoStats>,
) -> io::Result<(Box<dyn ReadBackend>, Option<String>)> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
