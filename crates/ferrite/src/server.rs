//! Everything the workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hybridlog::Store;
use hybridlog::io::IoStats;

use crate::blocking::Blocking;
use crate::client::{ClientEntry, Clients};
use crate::config::{ApplyError, Config, Settings};
use crate::databases::Databases;
use crate::field_expiry::FieldExpiry;
use crate::inbox::Inboxes;
use crate::latency::LatencyMonitor;
use crate::log;
use crate::memory::Memory;
use crate::pause::Pause;
use crate::persistence::{self, Persistence};
use crate::process;
use crate::shutdown::Shutdown;
use crate::slow_lane::SlowLane;
use crate::slowlog::CommandLog;
use crate::stats::Stats;
use crate::storage;
use crate::table::CommandTable;

/// HTTP requests are logged no more often, so that whoever sends them does not fill the log.
const HTTP_LOG_MS: u64 = 60_000;

/// The server.
pub(crate) struct Server {
    pub(crate) store: Arc<Store>,
    pub(crate) config: Arc<Config>,
    pub(crate) commands: CommandTable,
    pub(crate) databases: Databases,
    pub(crate) clients: Clients,
    pub(crate) inboxes: Inboxes,
    pub(crate) stats: Arc<Stats>,
    /// What each worker's reader of cold records has done.
    pub(crate) io_stats: Box<[Arc<IoStats>]>,
    /// Slow commands (SLOWLOG), and large requests and replies (COMMANDLOG).
    pub(crate) slowlog: CommandLog,
    pub(crate) large_requests: CommandLog,
    pub(crate) large_replies: CommandLog,
    pub(crate) latency: LatencyMonitor,
    pub(crate) pause: Pause,
    /// Clients that wait for keys.
    pub(crate) blocking: Arc<Blocking>,
    pub(crate) persistence: Persistence,
    pub(crate) shutdown: Shutdown,
    pub(crate) slow_lane: SlowLane,
    pub(crate) field_expiry: FieldExpiry,
    /// What of `maxmemory` clients take.
    pub(crate) memory: Arc<Memory>,
    /// 40 hexadecimal digits, different at every start.
    pub(crate) run_id: String,
    pub(crate) started: Instant,
    /// The TCP port that is listened on; 0 if none.
    pub(crate) port: u16,
    /// The most clients that the descriptor limit allows, whatever `maxclients` says.
    max_clients_possible: AtomicUsize,
    /// [`Self::uptime_ms`] from which on the next HTTP request is logged.
    logs_http_from_ms: AtomicU64,
    /// Whether expired keys are removed that nobody asks for (DEBUG SET-ACTIVE-EXPIRE).
    active_expire: AtomicBool,
    /// The most that `maxmemory` can be set to while the server runs.
    memory_max_bytes: u64,
    random: AtomicU64,
}

impl Server {
    /// A server on an open store. An error names the `rename-command` that cannot be.
    pub(crate) fn new(config: Arc<Config>, store: Arc<Store>, port: u16) -> Result<Self, String> {
        let settings = config.settings();
        let commands = CommandTable::new(crate::commands::FAMILIES, &settings.renamed_commands)?;
        let mut id = [0u8; 20];
        let mut seed = [0u8; 8];
        for bytes in [id.as_mut_slice(), seed.as_mut_slice()] {
            getrandom::fill(bytes)
                .map_err(|error| format!("no random numbers from the system: {error}"))?;
        }
        let stats = Arc::new(Stats::new(settings.workers, commands.all().len()));
        let counted = Arc::clone(&stats);
        store.count_changes_with(move || counted.changes());
        Ok(Server {
            memory: Memory::new(Arc::clone(&store), &settings),
            store,
            config,
            databases: Databases::new(settings.databases),
            clients: Clients::default(),
            inboxes: Inboxes::new(settings.workers),
            stats,
            io_stats: (0..settings.workers).map(|_| Arc::default()).collect(),
            commands,
            slowlog: CommandLog::default(),
            large_requests: CommandLog::default(),
            large_replies: CommandLog::default(),
            latency: LatencyMonitor::default(),
            pause: Pause::default(),
            blocking: Arc::default(),
            persistence: Persistence::new(),
            shutdown: Shutdown::default(),
            slow_lane: SlowLane::default(),
            field_expiry: FieldExpiry::default(),
            run_id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            started: Instant::now(),
            port,
            max_clients_possible: AtomicUsize::new(usize::MAX),
            logs_http_from_ms: AtomicU64::new(0),
            active_expire: AtomicBool::new(true),
            memory_max_bytes: storage::memory_max_bytes(&settings),
            random: AtomicU64::new(u64::from_le_bytes(seed)),
        })
    }

    /// Whether expired keys are removed that nobody asks for.
    pub(crate) fn active_expire(&self) -> bool {
        self.active_expire.load(Relaxed)
    }

    /// DEBUG SET-ACTIVE-EXPIRE.
    pub(crate) fn set_active_expire(&self, on: bool) {
        self.active_expire.store(on, Relaxed);
    }

    /// Milliseconds since the server started; never runs backwards.
    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The password clients have to give, if one is set.
    pub(crate) fn password(&self) -> Option<Vec<u8>> {
        let settings = self.config.settings();
        (!settings.requirepass.is_empty()).then(|| settings.requirepass.clone())
    }

    /// A number nobody can foresee without having seen others.
    pub(crate) fn random(&self) -> u64 {
        // SplitMix64: a Weyl sequence, of which concurrent callers take different members, and a mixer.
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Logs that a client is cut off because it has sent an HTTP request.
    pub(crate) fn log_http(&self, client: &ClientEntry) {
        let now_ms = self.uptime_ms();
        let from_ms = self.logs_http_from_ms.load(Relaxed);
        // Of several at the same time one logs.
        let next_ms = now_ms + HTTP_LOG_MS;
        if now_ms >= from_ms
            && self
                .logs_http_from_ms
                .compare_exchange(from_ms, next_ms, Relaxed, Relaxed)
                .is_ok()
        {
            log::warning(format_args!(
                "Possible SECURITY ATTACK: id={} addr={} sent a line of an HTTP request (POST or Host:), perhaps a web \
                 page that makes a browser send commands. The connection has been closed; more of them are not logged \
                 for a minute.",
                client.id, client.addr
            ));
        }
    }

    /// The most clients that the descriptor limit allows, whatever `maxclients` says.
    pub(crate) fn max_clients_possible(&self) -> usize {
        self.max_clients_possible.load(Relaxed)
    }

    /// Puts changed settings into effect where nobody reads them again by himself.
    pub(crate) fn apply(
        self: &Arc<Self>,
        settings: &Settings,
        changed: &[&'static str],
    ) -> Result<(), ApplyError> {
        for &directive in changed {
            let applied = match directive {
                "loglevel" => {
                    log::set_level(settings.loglevel);
                    Ok(())
                }
                "maxmemory" => self.set_memory(settings),
                "maxclients" => self.allow_clients(settings.maxclients),
                "appendonly" => {
                    self.set_checkpoint_bytes(settings);
                    persistence::set_command_log(self, settings.appendonly);
                    Ok(())
                }
                "maxdisk" | "maxmemory-policy" => {
                    self.store
                        .set_disk_limit(settings.maxdisk_bytes, settings.eviction);
                    Ok(())
                }
                "appendfsync" => {
                    self.store.set_sync(settings.appendfsync);
                    Ok(())
                }
                "auto-aof-rewrite-min-size" | "auto-aof-rewrite-percentage" => {
                    self.set_checkpoint_bytes(settings);
                    Ok(())
                }
                "oom-score-adj" | "oom-score-adj-values" => {
                    process::set_oom_score(settings.oom_score)
                }
                _ => Ok(()),
            };
            applied.map_err(|reason| ApplyError { directive, reason })?;
        }
        Ok(())
    }

    /// Tells the engine how long the command log may grow.
    pub(crate) fn set_checkpoint_bytes(&self, settings: &Settings) {
        let stats = self.store.stats();
        // Mutable segments may be nearly empty.
        let segments = stats.warm_segments + stats.cold_segments;
        let bytes = storage::checkpoint_bytes(settings, segments * stats.segment_bytes);
        self.store.set_checkpoint_bytes(bytes);
    }

    fn set_memory(&self, settings: &Settings) -> Result<(), String> {
        if settings.maxmemory_bytes > self.memory_max_bytes {
            return Err(format!(
                "can be raised to {} at most without a restart",
                self.memory_max_bytes
            ));
        }
        self.store.set_memory_bytes(settings.maxmemory_bytes);
        self.memory.refresh(settings);
        Ok(())
    }

    /// Raises the descriptor limit so that `clients` can connect; an error if it cannot be.
    pub(crate) fn allow_clients(&self, clients: usize) -> Result<(), String> {
        let possible = process::raise_client_limit(clients);
        self.max_clients_possible.store(possible, Relaxed);
        if possible < clients {
            return Err(format!(
                "The operating system is not able to handle the specified number of clients, try with {possible}"
            ));
        }
        Ok(())
    }
}

/// The time, Unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
