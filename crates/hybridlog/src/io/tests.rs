//! Both backends against real files.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Waker};

use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use super::*;

const FILE_BYTES: u64 = 4 << 20;

/// The word at each 8-byte unit of the test file: a function of its position.
fn word(unit: u64) -> [u8; 8] {
    unit.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

fn expected(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64)
        .map(|at| word(at / 8)[(at % 8) as usize])
        .collect()
}

fn test_file() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&expected(0, FILE_BYTES as usize)).unwrap();
    file.as_file().sync_all().unwrap();
    file
}

/// Small steps of a generator good enough to pick places (xorshift).
struct Random(u64);

impl Random {
    fn new() -> Random {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).unwrap();
        let seed = u64::from_le_bytes(seed) | 1;
        println!("seed {seed}");
        Random(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap()
}

/// The backends that this kernel allows.
fn backends() -> Vec<Backend> {
    let rt = runtime();
    let options = ReaderOptions {
        backend: Backend::Uring,
        ..ReaderOptions::default()
    };
    match rt.block_on(async { ColdReader::new(&options, Arc::default()) }) {
        Ok(_) => vec![Backend::Uring, Backend::Tokio],
        Err(error) => {
            println!("skipped on io_uring: {error}");
            vec![Backend::Tokio]
        }
    }
}

struct Setup {
    reader: ColdReader,
    stats: Arc<IoStats>,
    file: Arc<DataFile>,
    _file_on_disk: NamedTempFile,
}

/// Runs `test` on each backend, each time on a runtime of its own.
fn on_each_backend(options: &ReaderOptions, test: impl AsyncFn(Setup)) {
    for backend in backends() {
        let options = ReaderOptions {
            backend,
            ..options.clone()
        };
        runtime().block_on(async {
            let file_on_disk = test_file();
            let file = DataFile::open(file_on_disk.path()).unwrap();
            let stats = Arc::new(IoStats::default());
            let (reader, _) = ColdReader::new(&options, Arc::clone(&stats)).unwrap();
            test(Setup {
                reader,
                stats,
                file,
                _file_on_disk: file_on_disk,
            })
            .await;
        });
    }
}

fn blocks(file: &Arc<DataFile>, count: u64) -> Vec<ReadRequest> {
    let block = |i: u64| ReadRequest {
        file: Arc::clone(file),
        offset: i * 4096,
        len: 4096,
    };
    (0..count).map(block).collect()
}

fn assert_blocks(results: ReadResults, count: u64) {
    assert_eq!(results.len() as u64, count);
    for (i, result) in results.into_iter().enumerate() {
        assert!(
            *result.unwrap() == expected(i as u64 * 4096, 4096),
            "block {i}"
        );
    }
}

/// `None` where reads of the file's file system do not show up as reads of a block device.
fn device_bytes_read_by_this_thread(path: &Path) -> Option<u64> {
    if libc::major(std::fs::metadata(path).unwrap().dev()) == 0 {
        println!("skipped: {} is not on a block device", path.display());
        return None;
    }
    let counters = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    let line = counters
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "))?;
    Some(line.parse().unwrap())
}

#[test]
fn random_reads_return_what_the_file_holds() {
    on_each_backend(&ReaderOptions::default(), async |setup| {
        let mut random = Random::new();
        for _ in 0..50 {
            let mut requests = Vec::new();
            let mut wanted = Vec::new();
            for _ in 0..1 + random.below(40) {
                let longest = [100, 4096, 20_000, 200_000][random.below(4) as usize];
                let len = 1 + random.below(longest);
                let offset = random.below(FILE_BYTES - len);
                let (request, skip) =
                    ReadRequest::covering(Arc::clone(&setup.file), offset, len as u32);
                requests.push(request);
                wanted.push((offset, len as usize, skip));
            }
            let results = setup.reader.read_batch(requests).await;
            assert_eq!(results.len(), wanted.len());
            for (result, (offset, len, skip)) in results.into_iter().zip(wanted) {
                let buffer = result.unwrap();
                assert!(
                    buffer[skip..skip + len] == expected(offset, len),
                    "{len} bytes at {offset} differ"
                );
            }
        }
    });
}

#[test]
fn a_batch_is_one_submission() {
    on_each_backend(&ReaderOptions::default(), async |setup| {
        for batch in 1..=3 {
            assert_blocks(setup.reader.read_batch(blocks(&setup.file, 64)).await, 64);
            assert_eq!(setup.stats.submissions.load(Relaxed), batch);
            assert_eq!(setup.stats.reads.load(Relaxed), 64 * batch);
            assert_eq!(setup.stats.bytes.load(Relaxed), 64 * 4096 * batch);
        }
        assert_eq!(setup.reader.read_batch(Vec::new()).await.len(), 0);
        assert_eq!(setup.stats.submissions.load(Relaxed), 3);
        assert_eq!(setup.stats.errors.load(Relaxed), 0);
    });
}

/// Larger ones have memory of their own, which is not registered.
#[test]
fn small_reads_go_into_registered_buffers() {
    if !backends().contains(&Backend::Uring) {
        return;
    }
    runtime().block_on(async {
        let file_on_disk = test_file();
        let file = DataFile::open(file_on_disk.path()).unwrap();
        let options = ReaderOptions {
            backend: Backend::Uring,
            ..ReaderOptions::default()
        };
        let stats = Arc::new(IoStats::default());
        let (reader, notice) = ColdReader::new(&options, Arc::clone(&stats)).unwrap();
        assert_blocks(reader.read_batch(blocks(&file, 64)).await, 64);
        let large = ReadRequest {
            file,
            offset: 0,
            len: 1 << 20,
        };
        assert!(reader.read_batch(vec![large]).await[0].is_ok());
        let wanted = match notice {
            None => 64,
            Some(notice) => {
                assert!(
                    notice.contains("registered buffers are refused"),
                    "{notice}"
                );
                0
            }
        };
        assert_eq!(stats.registered_reads.load(Relaxed), wanted);
    });
}

#[test]
fn batches_of_concurrent_tasks_share_a_submission() {
    let options = ReaderOptions {
        backend: Backend::Uring,
        ..ReaderOptions::default()
    };
    if !backends().contains(&Backend::Uring) {
        return;
    }
    runtime().block_on(async {
        let file_on_disk = test_file();
        let file = DataFile::open(file_on_disk.path()).unwrap();
        let stats = Arc::new(IoStats::default());
        let (reader, _) = ColdReader::new(&options, Arc::clone(&stats)).unwrap();
        let reader = Arc::new(reader);
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (reader, requests) = (Arc::clone(&reader), blocks(&file, 2));
                tokio::spawn(async move { assert_blocks(reader.read_batch(requests).await, 2) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(stats.reads.load(Relaxed), 32);
        assert_eq!(stats.submissions.load(Relaxed), 1);
    });
}

#[test]
fn a_batch_larger_than_the_depth_is_read_in_turns() {
    let options = ReaderOptions {
        depth: 8,
        ..ReaderOptions::default()
    };
    on_each_backend(&options, async |setup| {
        assert_blocks(setup.reader.read_batch(blocks(&setup.file, 500)).await, 500);
        assert_eq!(setup.stats.reads.load(Relaxed), 500);
    });
}

#[test]
fn large_reads_keep_to_the_memory_bound() {
    let options = ReaderOptions {
        buffer_bytes: 64 << 10,
        ..ReaderOptions::default()
    };
    on_each_backend(&options, async |setup| {
        let before = setup.reader.memory_bytes();
        let whole = |_| ReadRequest {
            file: Arc::clone(&setup.file),
            offset: 0,
            len: 1 << 20,
        };
        let results = setup.reader.read_batch((0..8).map(whole).collect()).await;
        for result in &results {
            assert!(**result.as_ref().unwrap() == expected(0, 1 << 20));
        }
        assert_eq!(setup.reader.memory_bytes(), before + (8 << 20));
        drop(results);
        assert_eq!(setup.reader.memory_bytes(), before);
    });
}

#[test]
fn a_dropped_future_gives_its_buffers_back_and_disturbs_nobody() {
    on_each_backend(&ReaderOptions::default(), async |setup| {
        let before = setup.reader.memory_bytes();
        for _ in 0..20 {
            // Reads of this size have memory of their own, which shows in `memory_bytes`.
            let large = |i: u64| ReadRequest {
                file: Arc::clone(&setup.file),
                offset: i << 16,
                len: 1 << 16,
            };
            let requests = (0..20u64).map(large).collect();
            let mut dropped = Box::pin(setup.reader.read_batch(requests));
            let mut context = Context::from_waker(Waker::noop());
            assert!(dropped.as_mut().poll(&mut context).is_pending());
            // Lets the backend start the reads.
            tokio::task::yield_now().await;
            drop(dropped);
            assert_blocks(setup.reader.read_batch(blocks(&setup.file, 10)).await, 10);
        }
        let all_reads = 20 * (20 + 10);
        while setup.stats.reads.load(Relaxed) < all_reads || setup.reader.memory_bytes() > before {
            assert_blocks(setup.reader.read_batch(blocks(&setup.file, 1)).await, 1);
        }
        assert_eq!(setup.reader.memory_bytes(), before);
    });
}

#[test]
fn reads_in_flight_end_before_their_runtime() {
    for backend in backends() {
        let file_on_disk = test_file();
        let file = DataFile::open(file_on_disk.path()).unwrap();
        for _ in 0..20 {
            let rt = runtime();
            rt.block_on(async {
                let options = ReaderOptions {
                    backend,
                    ..ReaderOptions::default()
                };
                let (reader, _) = ColdReader::new(&options, Arc::default()).unwrap();
                let mut results = pin!(reader.read_batch(blocks(&file, 300)));
                let mut context = Context::from_waker(Waker::noop());
                assert!(results.as_mut().poll(&mut context).is_pending());
                tokio::task::yield_now().await;
            });
            drop(rt);
            assert_eq!(Arc::strong_count(&file), 1, "a read still holds its file");
        }
    }
}

#[test]
fn the_end_of_the_file_is_an_error_of_its_request_alone() {
    on_each_backend(&ReaderOptions::default(), async |setup| {
        let at = |offset, len| ReadRequest {
            file: Arc::clone(&setup.file),
            offset,
            len,
        };
        let requests = vec![
            at(0, 4096),
            at(FILE_BYTES - 4096, 8192),
            at(FILE_BYTES + 512, 512),
            at(FILE_BYTES - 512, 512),
        ];
        let mut results = setup.reader.read_batch(requests).await.into_iter();
        assert!(*results.next().unwrap().unwrap() == expected(0, 4096));
        for (offset, len) in [(FILE_BYTES - 4096, 8192), (FILE_BYTES + 512, 512)] {
            let error = results.next().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            let path = setup.file.path().display();
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot read {len} bytes at offset {offset} of {path}: the file ends there"
                )
            );
        }
        assert!(*results.next().unwrap().unwrap() == expected(FILE_BYTES - 512, 512));
        assert_eq!(setup.stats.errors.load(Relaxed), 2);
    });
}

#[test]
fn a_file_that_ends_inside_a_block_is_an_error() {
    on_each_backend(&ReaderOptions::default(), async |setup| {
        let mut short = NamedTempFile::new().unwrap();
        short.write_all(&[7; 1000]).unwrap();
        short.as_file().sync_all().unwrap();
        let file = DataFile::open(short.path()).unwrap();
        let results = setup
            .reader
            .read_batch(vec![ReadRequest {
                file,
                offset: 0,
                len: 4096,
            }])
            .await;
        assert_eq!(
            results[0].as_ref().unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
    });
}

#[test]
fn a_misaligned_or_empty_request_is_refused() {
    on_each_backend(&ReaderOptions::default(), async |setup| {
        let at = |offset, len| ReadRequest {
            file: Arc::clone(&setup.file),
            offset,
            len,
        };
        let requests = vec![at(1, 512), at(0, 100), at(0, 0), at(512, 512)];
        let results = setup.reader.read_batch(requests).await;
        for refused in &results[..3] {
            let error = refused.as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("multiples of 512"), "{error}");
        }
        assert!(**results[3].as_ref().unwrap() == expected(512, 512));
    });
}

#[test]
fn a_read_that_the_system_refuses_fails_alone() {
    on_each_backend(&ReaderOptions::default(), async |setup| {
        let unreadable = NamedTempFile::new().unwrap();
        let write_only = std::fs::OpenOptions::new()
            .write(true)
            .open(unreadable.path())
            .unwrap();
        let broken = DataFile::new(write_only, unreadable.path(), Some(DIRECT_ALIGN));
        let mut requests = blocks(&setup.file, 3);
        requests[1].file = broken;
        let results = setup.reader.read_batch(requests).await;
        let error = results[1].as_ref().unwrap_err().to_string();
        assert!(
            error.contains(&unreadable.path().display().to_string()),
            "{error}"
        );
        assert!(error.contains("Bad file descriptor"), "{error}");
        assert!(**results[0].as_ref().unwrap() == expected(0, 4096));
        assert!(**results[2].as_ref().unwrap() == expected(8192, 4096));
    });
}

#[test]
fn only_regular_files_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    let error = DataFile::open(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let missing = directory.path().join("missing");
    let error = DataFile::open(&missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains(&missing.display().to_string()),
        "{error}"
    );
}

#[test]
fn a_buffered_file_leaves_nothing_in_the_page_cache() {
    on_each_backend(&ReaderOptions::default(), async |setup| {
        let file = std::fs::File::open(setup.file.path()).unwrap();
        let buffered = DataFile::new(file, setup.file.path(), None);
        for _ in 0..2 {
            assert_blocks(setup.reader.read_batch(blocks(&buffered, 50)).await, 50);
        }
        assert_eq!(setup.stats.buffered_reads.load(Relaxed), 100);
        // The batches have dropped the pages that they brought in, and this read drops its own.
        for _ in 0..2 {
            let Some(before) = device_bytes_read_by_this_thread(buffered.path()) else {
                return;
            };
            buffered.read_at_blocking(0, 50 * 4096).unwrap();
            let after = device_bytes_read_by_this_thread(buffered.path()).unwrap();
            assert!(after - before >= 50 * 4096, "only {} bytes", after - before);
        }
    });
}

#[test]
fn polling_is_used_or_refused_with_a_notice() {
    for (sqpoll, iopoll) in [(true, false), (false, true), (true, true)] {
        for backend in backends() {
            runtime().block_on(async {
                let file_on_disk = test_file();
                let file = DataFile::open(file_on_disk.path()).unwrap();
                let directory = file_on_disk.path().parent().unwrap().to_path_buf();
                let options = ReaderOptions {
                    backend,
                    sqpoll,
                    iopoll,
                    directory,
                    ..ReaderOptions::default()
                };
                let (reader, notice) = ColdReader::new(&options, Arc::default()).unwrap();
                println!("{backend:?} sqpoll {sqpoll} iopoll {iopoll}: {notice:?}");
                let notice = notice.unwrap_or_default();
                assert!(backend == Backend::Uring || notice.contains("io_uring"));
                assert_blocks(reader.read_batch(blocks(&file, 300)).await, 300);
                if backend == Backend::Uring && sqpoll {
                    let is_refused = notice.contains("submission polling is refused");
                    assert_ne!(has_submission_thread(), is_refused, "{notice}");
                }
            });
        }
    }
}

/// Whether the kernel polls for submissions of this process: its thread shows among ours.
fn has_submission_thread() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok())
        .any(|name| name.starts_with("iou-sqp"))
}

#[test]
fn a_reader_works_on_a_runtime_of_many_threads() {
    for backend in backends() {
        let rt = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_io()
            .build()
            .unwrap();
        rt.block_on(async {
            let file_on_disk = test_file();
            let file = DataFile::open(file_on_disk.path()).unwrap();
            let options = ReaderOptions {
                backend,
                ..ReaderOptions::default()
            };
            let (reader, _) = ColdReader::new(&options, Arc::default()).unwrap();
            let reader = Arc::new(reader);
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let (reader, requests) = (Arc::clone(&reader), blocks(&file, 40));
                    tokio::spawn(
                        async move { assert_blocks(reader.read_batch(requests).await, 40) },
                    )
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

#[test]
fn a_reader_needs_a_runtime() {
    let options = ReaderOptions::default();
    assert!(ColdReader::new(&options, Arc::default()).is_err());
}

#[test]
fn the_failure_of_a_backend_reaches_every_request() {
    struct Broken;
    impl ReadBackend for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }
        fn submit(&self, _requests: Vec<ReadRequest>) -> oneshot::Receiver<ReadResults> {
            oneshot::channel().1
        }
        fn memory_bytes(&self) -> usize {
            0
        }
        fn failure(&self) -> Option<String> {
            Some("the disk is gone".to_string())
        }
    }
    let file_on_disk = test_file();
    let file = DataFile::open(file_on_disk.path()).unwrap();
    let reader = ColdReader::with_backend(Box::new(Broken));
    let results = runtime().block_on(reader.read_batch(blocks(&file, 2)));
    assert_eq!(results.len(), 2);
    for result in results {
        let error = result.unwrap_err().to_string();
        assert_eq!(error, "the cold reader has stopped: the disk is gone");
    }
}

#[test]
fn blocking_reads_work_from_any_number_of_threads() {
    let file_on_disk = test_file();
    let file = DataFile::open(file_on_disk.path()).unwrap();
    for backend in backends() {
        let stats = Arc::new(IoStats::default());
        let (reader, _) = BlockingReader::new(backend, Arc::clone(&stats)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for count in [0, 1, 2, 50, 200] {
                        assert_blocks(reader.read_batch(&blocks(&file, count)), count);
                    }
                });
            }
        });
        assert_eq!(stats.reads.load(Relaxed), 8 * (1 + 2 + 50 + 200));
        let past_the_end = ReadRequest {
            file: Arc::clone(&file),
            offset: FILE_BYTES,
            len: 512,
        };
        let mut requests = blocks(&file, 2);
        requests.push(past_the_end);
        let results = reader.read_batch(&requests);
        assert!(results[0].is_ok() && results[1].is_ok());
        assert_eq!(
            results[2].as_ref().unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
        assert_eq!(stats.errors.load(Relaxed), 1);
    }
    let whole = file.read_at_blocking(0, FILE_BYTES as usize).unwrap();
    assert!(*whole == expected(0, FILE_BYTES as usize));
    let error = file.read_at_blocking(FILE_BYTES - 512, 1024).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}
