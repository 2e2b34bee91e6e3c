//! Everything the workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hybridlog::{Namespace, Store};
use parking_lot::Mutex;

use crate::client::Clients;
use crate::pause::Pause;
use crate::shutdown::Shutdown;
use crate::slow_lane::SlowLane;
use crate::slowlog::CommandLog;
use crate::stats::Stats;
use crate::table::CommandTable;

/// The server.
pub(crate) struct Server {
    pub(crate) store: Arc<Store>,
    pub(crate) commands: CommandTable,
    pub(crate) databases: Databases,
    pub(crate) clients: Clients,
    pub(crate) stats: Stats,
    /// Slow commands (SLOWLOG), and large requests and replies (COMMANDLOG).
    pub(crate) slowlog: CommandLog,
    pub(crate) large_requests: CommandLog,
    pub(crate) large_replies: CommandLog,
    pub(crate) pause: Pause,
    pub(crate) shutdown: Shutdown,
    pub(crate) slow_lane: SlowLane,
    /// 40 hexadecimal digits, different at every start.
    pub(crate) run_id: String,
    pub(crate) started: Instant,
    /// The TCP port that is listened on; 0 if none.
    pub(crate) port: AtomicU16,
}

impl Server {
    pub(crate) fn new() -> Self {
        let commands = CommandTable::new(crate::commands::FAMILIES, &[]).expect("no renames");
        Server {
            store: Store::in_memory(),
            databases: Databases::new(16),
            clients: Clients::default(),
            stats: Stats::new(1, commands.all().len()),
            commands,
            slowlog: CommandLog::default(),
            large_requests: CommandLog::default(),
            large_replies: CommandLog::default(),
            pause: Pause::default(),
            shutdown: Shutdown::default(),
            slow_lane: SlowLane::default(),
            run_id: String::new(),
            started: Instant::now(),
            port: AtomicU16::new(0),
        }
    }

    pub(crate) fn requires_password(&self) -> bool {
        false
    }

    pub(crate) fn max_bulk_bytes(&self) -> usize {
        512 * 1024 * 1024
    }

    pub(crate) fn max_clients(&self) -> usize {
        10_000
    }

    /// Milliseconds since the server started; never runs backwards.
    pub(crate) fn slowlog_threshold_micros(&self) -> u64 {
        10_000
    }

    pub(crate) fn slowlog_max_len(&self) -> usize {
        128
    }

    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The time, Unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Which namespace of the store each database is. SWAPDB swaps two, FLUSHDB takes a fresh one.
pub(crate) struct Databases {
    namespaces: Box<[AtomicU16]>,
    /// Namespaces that no database uses and no sweep is busy with.
    free: Mutex<Vec<Namespace>>,
}

impl Databases {
    /// `count` empty databases.
    pub(crate) fn new(count: usize) -> Self {
        let count = count.min(usize::from(u16::MAX) / 2);
        Databases {
            namespaces: (0..count as u16).map(AtomicU16::new).collect(),
            free: Mutex::new((count as u16..u16::MAX).rev().map(Namespace).collect()),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.namespaces.len()
    }

    /// The namespace of a database that exists.
    #[inline]
    pub(crate) fn namespace(&self, database: usize) -> Namespace {
        // Relaxed: a command looks again under its latches, which SWAPDB and FLUSHDB take all of.
        Namespace(self.namespaces[database].load(Relaxed))
    }

    /// SWAPDB. The caller holds all latches.
    pub(crate) fn swap(&self, a: usize, b: usize) {
        let namespace_a = self.namespaces[a].load(Relaxed);
        let namespace_b = self.namespaces[b].swap(namespace_a, Relaxed);
        self.namespaces[a].store(namespace_b, Relaxed);
    }

    /// Empties a database by giving it a fresh namespace; returns the old one, to be cleared in the store and then
    /// given back with [`Databases::release`]. `None` while too many old ones are still being cleared.
    pub(crate) fn renew(&self, database: usize) -> Option<Namespace> {
        let fresh = self.free.lock().pop()?;
        Some(Namespace(self.namespaces[database].swap(fresh.0, Relaxed)))
    }

    /// Makes a namespace that has been cleared available again.
    pub(crate) fn release(&self, cleared: Namespace) {
        self.free.lock().insert(0, cleared);
    }
}
