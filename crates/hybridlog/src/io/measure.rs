//! What a read costs beyond the device: random 4 KiB reads by a raw io_uring loop and by each
//! reader.
//!
//! `cargo test --release -p hybridlog io::measure -- --ignored --nocapture`
#![cfg(target_os = "linux")]
#![allow(unsafe_code)] // The raw loop.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use tempfile::NamedTempFile;

use super::*;

const FILE_BYTES: u64 = 1 << 30;
const READ_BYTES: u32 = 4096;
const ROUND: Duration = Duration::from_secs(1);
const ROUNDS: usize = 3;

#[test]
#[ignore = "a measurement, for a quiet machine"]
fn measure_random_reads() {
    let mut on_disk = NamedTempFile::new().unwrap();
    let mut random = Random(88_172_645_463_325_252);
    for _ in 0..FILE_BYTES >> 20 {
        let block: Vec<u8> = (0..1 << 17)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        on_disk.write_all(&block).unwrap();
    }
    on_disk.as_file().sync_all().unwrap();
    let file = DataFile::open(on_disk.path()).unwrap();
    for depth in [1, 16, 128] {
        for _ in 0..ROUNDS {
            print("raw loop", depth, || raw_loop(on_disk.path(), depth));
            for backend in [Backend::Uring, Backend::Tokio] {
                let name = format!("{backend:?}, {depth} tasks of 1 read");
                print(&name, depth, || tasks(&file, backend, depth, 1));
            }
            print("Uring, 1 task", depth, || {
                tasks(&file, Backend::Uring, 1, depth)
            });
            print("blocking batches", depth, || blocking(&file, depth));
        }
    }
}

fn print(name: &str, depth: usize, measure: impl FnOnce() -> (u64, u64)) {
    let (start, cpu_before) = (Instant::now(), cpu_seconds());
    let (reads, submissions) = measure();
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);
    println!(
        "depth {depth:3} {name:28} {:7.0} reads/s  {:5.2} us CPU/read  {:6.1} reads/submission",
        reads as f64 / elapsed,
        cpu * 1e6 / reads as f64,
        reads as f64 / submissions as f64,
    );
}

/// Reads with `count` tasks at a time that each read batches of `batch`, for a round.
fn tasks(file: &Arc<DataFile>, backend: Backend, count: usize, batch: usize) -> (u64, u64) {
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let stats = Arc::new(IoStats::default());
    let options = ReaderOptions {
        backend,
        ..ReaderOptions::default()
    };
    rt.block_on(async {
        let (reader, _) = ColdReader::new(&options, Arc::clone(&stats)).unwrap();
        let reader = Arc::new(reader);
        let end = Instant::now() + ROUND;
        let tasks: Vec<_> = (0..count)
            .map(|task| {
                let (reader, file) = (Arc::clone(&reader), Arc::clone(file));
                tokio::spawn(async move {
                    let mut random = Random::seeded(task as u64);
                    while Instant::now() < end {
                        let requests = (0..batch).map(|_| random.request(&file)).collect();
                        for result in reader.read_batch(requests).await {
                            result.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    (stats.reads.load(Relaxed), stats.submissions.load(Relaxed))
}

fn blocking(file: &Arc<DataFile>, batch: usize) -> (u64, u64) {
    let stats = Arc::new(IoStats::default());
    let (reader, _) = BlockingReader::new(Backend::Auto, Arc::clone(&stats)).unwrap();
    let mut random = Random::seeded(0);
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        let requests: Vec<_> = (0..batch).map(|_| random.request(file)).collect();
        for result in reader.read_batch(&requests) {
            result.unwrap();
        }
    }
    (stats.reads.load(Relaxed), stats.submissions.load(Relaxed))
}

/// The least that can be done: registered buffers, one entry replaced by the next as soon as it
/// completes.
fn raw_loop(path: &std::path::Path, depth: usize) -> (u64, u64) {
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .unwrap();
    let fd = types::Fd(std::os::fd::AsRawFd::as_raw_fd(&file));
    let mut ring = IoUring::new(128).unwrap();
    let pool = buffer::BufferPool::new(1 << 20);
    let mut buffers: Vec<_> = (0..depth).map(|_| pool.take(READ_BYTES as usize)).collect();
    let (start, len) = pool.region();
    let region = libc::iovec {
        iov_base: start.cast(),
        iov_len: len,
    };
    // SAFETY: the pool outlives the ring's last use.
    unsafe { ring.submitter().register_buffers(&[region]).unwrap() };
    let mut random = Random::seeded(0);
    let mut queue = |ring: &mut IoUring, slot: usize| {
        let start = buffers[slot].unfilled().0;
        let read = opcode::ReadFixed::new(fd, start, READ_BYTES, 0)
            .offset(random.offset())
            .build();
        // SAFETY: the buffer has no other read in flight and outlives the loop that waits for this
        // one.
        let queued = unsafe { ring.submission().push(&read.user_data(slot as u64)) };
        queued.unwrap();
    };
    (0..depth).for_each(|slot| queue(&mut ring, slot));
    let (mut reads, mut submissions, end) = (0, 0, Instant::now() + ROUND);
    while Instant::now() < end {
        ring.submit_and_wait(1).unwrap();
        submissions += 1;
        let completed: Vec<_> = ring
            .completion()
            .map(|entry| (entry.user_data(), entry.result()))
            .collect();
        reads += completed.len() as u64;
        for (slot, result) in completed {
            assert_eq!(result, READ_BYTES as i32);
            queue(&mut ring, slot as usize);
        }
    }
    // The entries queued last are never submitted; the others complete here.
    let in_flight = depth - ring.submission().len();
    while ring.completion().len() < in_flight {
        // SAFETY: submits nothing and passes no argument.
        unsafe {
            ring.submitter()
                .enter::<libc::sigset_t>(0, in_flight as u32, 1, None)
                .unwrap()
        };
    }
    (reads, submissions)
}

fn cpu_seconds() -> f64 {
    // SAFETY: rusage is plain integers, for which zero bytes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Random {
        Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn offset(&mut self) -> u64 {
        self.next() % (FILE_BYTES / u64::from(READ_BYTES)) * u64::from(READ_BYTES)
    }

    fn request(&mut self, file: &Arc<DataFile>) -> ReadRequest {
        ReadRequest {
            file: Arc::clone(file),
            offset: self.offset(),
            len: READ_BYTES,
        }
    }
}
