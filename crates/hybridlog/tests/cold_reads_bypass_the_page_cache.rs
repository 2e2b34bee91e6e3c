//! Cold reads come from the device although the page cache holds the file. The only test of its
//! process, because the kernel counts device reads by process.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use hybridlog::io::{Backend, BlockingReader, ColdReader, DataFile, ReadRequest, ReaderOptions};
use tempfile::NamedTempFile;

const BLOCKS: u64 = 100;
const BLOCK_BYTES: u32 = 4096;

#[test]
fn cold_reads_come_from_the_device() {
    let mut written = NamedTempFile::new().unwrap();
    for block in 0..BLOCKS {
        written
            .write_all(&[block as u8; BLOCK_BYTES as usize])
            .unwrap();
    }
    written.as_file().sync_all().unwrap();
    let file = DataFile::open(written.path()).unwrap();
    if libc::major(written.as_file().metadata().unwrap().dev()) == 0 || !file.is_direct() {
        println!(
            "skipped: no direct reads from a block device at {}",
            written.path().display()
        );
        return;
    }
    let requests: Vec<_> = (0..BLOCKS)
        .map(|block| ReadRequest {
            file: Arc::clone(&file),
            offset: block * u64::from(BLOCK_BYTES),
            len: BLOCK_BYTES,
        })
        .collect();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    for backend in [Backend::Uring, Backend::Tokio] {
        let is_refused = runtime.block_on(async {
            let options = ReaderOptions {
                backend,
                ..ReaderOptions::default()
            };
            let reader = match ColdReader::new(&options, Arc::default()) {
                Ok((reader, _)) => reader,
                Err(error) if backend == Backend::Uring => {
                    println!("skipped on io_uring: {error}");
                    return true;
                }
                Err(error) => panic!("{error}"),
            };
            let before = device_bytes_read();
            let results = reader.read_batch(requests.clone()).await;
            assert_read_from_device(before, reader.backend_name());
            for (block, result) in results.into_iter().enumerate() {
                assert!(result.unwrap().iter().all(|&byte| byte == block as u8));
            }
            false
        });
        if is_refused {
            continue;
        }
        let (reader, _) = BlockingReader::new(backend, Arc::default()).unwrap();
        let before = device_bytes_read();
        assert!(reader.read_batch(&requests).iter().all(Result::is_ok));
        assert_read_from_device(before, "the blocking reader");
    }
}

fn assert_read_from_device(before: u64, reader: &str) {
    let read = device_bytes_read() - before;
    let wanted = BLOCKS * u64::from(BLOCK_BYTES);
    assert!(
        read >= wanted,
        "{reader}: {read} of {wanted} bytes came from the device"
    );
}

fn device_bytes_read() -> u64 {
    let counters = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = counters
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "))
        .unwrap();
    line.parse().unwrap()
}
