//! `bench rawread`: random reads over one io_uring with `O_DIRECT`, and nothing else.
//!
//! It says what the disk and the kernel can do at a queue depth, with one ring and one thread:
//! the yardstick for the cold reads of a store. It does what such a loop can do to be fast
//! (registered files and buffers, one system call for all that is to be submitted and awaited), so
//! that coming close to it means something.
#![allow(unsafe_code)] // Buffers are lent to the kernel, which only raw pointers can express.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use io_uring::{IoUring, opcode, types};
use serde_json::{Value, json};

use crate::Verdict;
use crate::chart::BarChart;
use crate::latency::Latencies;
use crate::random::Random;

/// The options of one run.
#[derive(Args)]
pub(crate) struct Options {
    /// A directory: all files in it that hold at least one block are read
    #[arg(long, value_name = "DIR", required_unless_present = "file")]
    dir: Option<PathBuf>,

    /// A data file to read; may be given several times
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,

    /// Numbers of reads in flight, measured one after the other
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "128",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: Vec<u32>,

    /// Size of a block in bytes, a multiple of 512; reads are aligned to it
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = parse_block)]
    block: u32,

    /// How long to read at each depth
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Seed of the choice of blocks
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a chart of the reads a second to this file as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

fn parse_block(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(bytes) if (512..=1 << 20).contains(&bytes) && bytes % 512 == 0 => Ok(bytes),
        _ => Err("expected a multiple of 512, from 512 to 1048576".into()),
    }
}

/// Reads as asked, and prints what the disk did.
pub(crate) fn run(options: &Options) -> Result<Verdict, String> {
    let mut paths = options.file.clone();
    if let Some(dir) = &options.dir {
        paths.extend(files_in(dir)?);
    }
    let blocks = Blocks::open(&paths, options.block)?;
    let length = Duration::from_secs(options.seconds);
    let (files, block_count) = (blocks.files.len(), blocks.count());
    println!(
        "{files} files, {block_count} blocks of {} bytes",
        options.block
    );
    let mut reports = Vec::new();
    for &depth in &options.depth {
        let report = read_random(&blocks, depth, length, options.seed)?;
        let rate = report.reads_per_second();
        println!(
            "depth {depth:>4}: {rate:>9.0} reads/s  {:>7.1} MiB/s  {}",
            rate * f64::from(options.block) / (1024.0 * 1024.0),
            report.latencies.describe()
        );
        reports.push((depth, report));
    }
    if let Some(path) = &options.json {
        let document = json!({
            "command": "rawread",
            "files": files,
            "blocks": block_count,
            "block_bytes": options.block,
            "results": reports
                .iter()
                .map(|(depth, report)| report.to_json(*depth))
                .collect::<Vec<_>>(),
        });
        crate::write_file(path, &format!("{document:#}\n"))?;
    }
    if let Some(path) = &options.chart {
        let bar = |(depth, report): &(u32, Report)| {
            (
                format!("depth {depth}"),
                vec![Some(report.reads_per_second())],
            )
        };
        let chart = BarChart {
            title: "Random reads of the disk".into(),
            subtitle: format!("io_uring, O_DIRECT, one thread, {files} files"),
            unit: "reads a second".into(),
            series: vec![format!("{} bytes", options.block)],
            groups: reports.iter().map(bar).collect(),
        };
        crate::write_file(path, &chart.to_svg())?;
    }
    Ok(Verdict::AllRight)
}

/// The regular files directly in `dir`, in the order of their names.
pub(crate) fn files_in(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: io::Error| format!("cannot list {}: {error}", dir.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// What one run measured.
pub(crate) struct Report {
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Latencies,
}

impl Report {
    pub(crate) fn reads_per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn to_json(&self, depth: u32) -> Value {
        json!({
            "depth": depth,
            "seconds": self.elapsed.as_secs_f64(),
            "reads_per_second": self.reads_per_second(),
            "latency": self.latencies.to_json(),
        })
    }
}

/// The aligned blocks of a set of files, each as likely to be drawn as any other.
pub(crate) struct Blocks {
    files: Vec<File>,
    /// The number of blocks up to and including each file.
    block_counts: Vec<u64>,
    block_bytes: u32,
}

impl Blocks {
    /// Opens those of `paths` that hold at least one block of `block_bytes`, with `O_DIRECT`.
    pub(crate) fn open(paths: &[PathBuf], block_bytes: u32) -> Result<Self, String> {
        let mut blocks = Blocks {
            files: Vec::new(),
            block_counts: Vec::new(),
            block_bytes,
        };
        let mut total = 0;
        for path in paths {
            let failed =
                |error: io::Error| format!("cannot open {} with O_DIRECT: {error}", path.display());
            let length = path.metadata().map_err(failed)?.len();
            if length < u64::from(block_bytes) {
                continue;
            }
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECT)
                .open(path)
                .map_err(failed)?;
            total += length / u64::from(block_bytes);
            blocks.files.push(file);
            blocks.block_counts.push(total);
        }
        match blocks.files.len() {
            0 => Err(format!(
                "there is no file of at least {block_bytes} bytes to read"
            )),
            1..=MAX_FILES => Ok(blocks),
            more => Err(format!(
                "{more} files are more than the {MAX_FILES} a ring can hold"
            )),
        }
    }

    fn count(&self) -> u64 {
        self.block_counts.last().copied().unwrap_or(0)
    }

    /// A random block: the number of its file, and its offset there in bytes.
    #[inline]
    fn draw(&self, random: &mut Random) -> (u32, u64) {
        let block = random.below(self.count());
        let file = self.block_counts.partition_point(|&count| count <= block);
        let before = if file == 0 {
            0
        } else {
            self.block_counts[file - 1]
        };
        (file as u32, (block - before) * u64::from(self.block_bytes))
    }
}

/// The most files registered with a ring.
const MAX_FILES: usize = 32_768;

/// Reads random blocks for `length`, keeping `depth` reads in flight.
pub(crate) fn read_random(
    blocks: &Blocks,
    depth: u32,
    length: Duration,
    seed: u64,
) -> Result<Report, String> {
    // Given back only when every read has ended; after an error the kernel may still write there.
    let buffers = ManuallyDrop::new(Buffers::new(depth as usize, blocks.block_bytes as usize));
    let mut ring = open_ring(depth)?;
    let refused = |error: io::Error| format!("io_uring refuses the files or buffers: {error}");
    let descriptors: Vec<RawFd> = blocks.files.iter().map(AsRawFd::as_raw_fd).collect();
    ring.submitter()
        .register_files(&descriptors)
        .map_err(refused)?;
    // SAFETY: the memory described is given back only at the end, when no read is in flight.
    unsafe { ring.submitter().register_buffers(&buffers.descriptions()) }.map_err(refused)?;

    let mut random = Random::new(seed);
    let mut latencies = Latencies::new();
    let mut idle: Vec<usize> = (0..depth as usize).collect();
    let started = Instant::now();
    let mut sent = vec![started; depth as usize];
    let mut elapsed = Duration::ZERO;
    while elapsed < length || idle.len() < depth as usize {
        if elapsed < length {
            let now = Instant::now();
            let mut submissions = ring.submission();
            for slot in idle.drain(..) {
                let (file, offset) = blocks.draw(&mut random);
                let buffer = buffers.slot(slot);
                let read = opcode::ReadFixed::new(
                    types::Fixed(file),
                    buffer,
                    blocks.block_bytes,
                    slot as u16,
                )
                .offset(offset)
                .build()
                .user_data(slot as u64);
                // SAFETY: `buffer` is `block_bytes` of registered memory that is not given back
                // while a read is in flight, and `slot` was idle: no other read writes there.
                unsafe { submissions.push(&read) }
                    .map_err(|_| "the submission queue is full".to_owned())?;
                sent[slot] = now;
            }
        }
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("io_uring failed: {error}")),
        }
        let now = Instant::now();
        elapsed = now - started;
        for completion in ring.completion() {
            let slot = completion.user_data() as usize;
            if completion.result() != blocks.block_bytes as i32 {
                return Err(failed_read(completion.result(), blocks.block_bytes));
            }
            latencies.record((now - sent[slot]).as_nanos() as u64);
            idle.push(slot);
        }
    }
    drop(ring);
    drop(ManuallyDrop::into_inner(buffers));
    Ok(Report { elapsed, latencies })
}

/// A ring for one thread; the options of newer kernels are left out where they are refused.
fn open_ring(depth: u32) -> Result<IoUring, String> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    builder
        .build(depth)
        .or_else(|_| IoUring::new(depth))
        .map_err(|error| format!("cannot open an io_uring: {error}"))
}

#[cold]
fn failed_read(result: i32, block_bytes: u32) -> String {
    if result < 0 {
        format!("a read failed: {}", io::Error::from_raw_os_error(-result))
    } else {
        format!("a read of {block_bytes} bytes returned {result}: a file has shrunk")
    }
}

/// One aligned piece of memory, cut into buffers of one size.
struct Buffers {
    memory: *mut u8,
    layout: Layout,
    count: usize,
    bytes_each: usize,
}

impl Buffers {
    fn new(count: usize, bytes_each: usize) -> Self {
        const PAGE_BYTES: usize = 4096;
        let layout = Layout::from_size_align(count * bytes_each, PAGE_BYTES)
            .expect("depth and block are bounded");
        // SAFETY: the layout has a size above 0: both factors are at least 1.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        Buffers {
            memory,
            layout,
            count,
            bytes_each,
        }
    }

    fn slot(&self, n: usize) -> *mut u8 {
        assert!(n < self.count);
        // SAFETY: `n` is below `count`, so the result lies within the allocation.
        unsafe { self.memory.add(n * self.bytes_each) }
    }

    fn descriptions(&self) -> Vec<libc::iovec> {
        (0..self.count)
            .map(|n| libc::iovec {
                iov_base: self.slot(n).cast(),
                iov_len: self.bytes_each,
            })
            .collect()
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: `memory` came from `alloc_zeroed` with this very layout and is freed only here.
        unsafe { dealloc(self.memory, self.layout) }
    }
}
