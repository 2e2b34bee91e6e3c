//! The engine as the settings want it: memory, directory, how cold records are read, what a restart finds.

use std::sync::Arc;

use hybridlog::io::{Backend, ReaderOptions};
use hybridlog::{OpenError, Options, Store};

use crate::config::machine::Machine;
use crate::config::{IoBackend, Settings};

/// Memory that is neither heap nor the engine's: code and libraries (4.5 MiB resident), stacks, tables that are mostly
/// untouched; and the index's two regions each end somewhere in a huge page, in the middle of one by and large.
const PROCESS_BYTES: u64 = 6 << 20;
const INDEX_ENDS_BYTES: u64 = 2 << 20;
/// Stack and ring of a worker.
const WORKER_BYTES: u64 = 256 << 10;
/// Stacks of the threads of a worker that reads without a ring.
const WORKER_THREADS_BYTES: u64 = 1 << 20;
/// This share of `maxmemory` is for cold records on their way to a reply.
const COLD_SHARE: u64 = 32;

/// The command log may grow to so many times the data by default: by then most of what a checkpoint has to write anew has been
/// overwritten more than once, however small the data set is.
const LOG_PER_DATA: u64 = 4;

/// A start replays the log and reads the keys of the data. To read the keys of so many bytes takes it as long as to replay one
/// byte of the log.
const DATA_PER_LOG: u64 = 7;

/// A log of so many bytes takes as long to replay as a start may take, but for reading the keys.
const LOG_MAX_BYTES: u64 = 448 << 20;

/// However much data there is, the log may grow so long by default.
const LOG_LARGE_DATA_BYTES: u64 = 256 << 20;

/// Opens the directory of the settings; what it holds is still to be recovered. The error is one line.
pub(crate) fn start(settings: &Settings) -> Result<Arc<Store>, String> {
    let options = Options {
        memory_bytes: settings.maxmemory_bytes,
        memory_max_bytes: memory_max_bytes(settings),
        reserved_bytes: fixed_bytes(settings),
        segment_bytes: settings.segment_bytes.map(|bytes| bytes as usize),
        backend: backend(settings),
        command_log: settings.appendonly,
        sync: settings.appendfsync,
        checkpoint_bytes: checkpoint_bytes(settings, 0),
        ..Options::new(&settings.dir)
    };
    let store = Store::open_unrecovered(options).map_err(|error| refusal(settings, &error))?;
    store.set_disk_limit(settings.maxdisk_bytes, settings.eviction);
    Ok(store)
}

/// Why the directory cannot be opened, in the words of the settings.
fn refusal(settings: &Settings, error: &OpenError) -> String {
    match error {
        OpenError::Memory {
            given,
            least,
            segment_bytes,
        } if given < least => format!(
            "maxmemory {} is too small for the data in {}, whose segments have {} bytes since it was made with more memory or a \
             segment-size (allowed: {} or more)",
            settings.maxmemory_bytes,
            settings.dir.display(),
            segment_bytes,
            settings.maxmemory_bytes + (least - given),
        ),
        error => error.to_string(),
    }
}

/// The length of the command log that makes a checkpoint due, with so many bytes of data.
pub(crate) fn checkpoint_bytes(settings: &Settings, data_bytes: u64) -> u64 {
    if !settings.appendonly || settings.rewrite_percentage == 0 {
        return u64::MAX;
    }
    let start_bytes = LOG_MAX_BYTES.saturating_sub(data_bytes / DATA_PER_LOG);
    let base_bytes = start_bytes
        .max(LOG_LARGE_DATA_BYTES)
        .min(data_bytes.saturating_mul(LOG_PER_DATA));
    let share = u128::from(base_bytes) * u128::from(settings.rewrite_percentage) / 100;
    settings.rewrite_min_bytes.max(share as u64)
}

/// How far `maxmemory` can be raised while the server runs: to all of the machine's memory.
pub(crate) fn memory_max_bytes(settings: &Settings) -> u64 {
    Machine::detect()
        .memory_bytes
        .unwrap_or(0)
        .max(settings.maxmemory_bytes)
}

/// Cold records that one worker fetches ahead of the commands that need them, in bytes.
pub(crate) fn worker_cold_bytes(settings: &Settings) -> u64 {
    settings.maxmemory_bytes / COLD_SHARE / settings.workers as u64
}

/// What of `maxmemory` is neither heap nor the engine's.
pub(crate) fn fixed_bytes(settings: &Settings) -> u64 {
    let threads_bytes = match settings.io_backend {
        IoBackend::Tokio => WORKER_THREADS_BYTES,
        IoBackend::Auto | IoBackend::Uring => 0,
    };
    let worker_bytes = WORKER_BYTES + threads_bytes;
    PROCESS_BYTES + INDEX_ENDS_BYTES + worker_bytes * settings.workers as u64
}

/// How a worker reads cold records.
pub(crate) fn reader_options(settings: &Settings) -> ReaderOptions {
    ReaderOptions {
        backend: backend(settings),
        sqpoll: settings.io_sqpoll,
        iopoll: settings.io_iopoll,
        directory: settings.dir.clone(),
        ..ReaderOptions::default()
    }
}

fn backend(settings: &Settings) -> Backend {
    match settings.io_backend {
        IoBackend::Auto => Backend::Auto,
        IoBackend::Uring => Backend::Uring,
        IoBackend::Tokio => Backend::Tokio,
    }
}
