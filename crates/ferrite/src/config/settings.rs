//! The typed view of the directives that work: what the rest of the server reads.
//!
//! Every directive that works has a field here, except those that the configuration itself obeys
//! (`include`, `enable-protected-configs`, `user`, `aclfile`). Values that stand for something automatic are resolved.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use hybridlog::{Eviction, SyncPolicy};

use super::table;
use super::value::{BufferLimit, Line, SaveRule, Value};

/// One consistent state of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) bind: Vec<BindAddress>,
    /// 0: no TCP listener.
    pub(crate) port: u16,
    /// Connections that may wait to be accepted.
    pub(crate) tcp_backlog: i32,
    pub(crate) unixsocket: Option<PathBuf>,
    /// `None`: as the umask has it.
    pub(crate) unixsocket_mode: Option<u32>,
    pub(crate) protected_mode: bool,
    /// Idle time after which a client is disconnected.
    pub(crate) client_timeout: Option<Duration>,
    pub(crate) tcp_keepalive: Option<Duration>,
    pub(crate) maxclients: usize,
    pub(crate) proto_max_bulk_bytes: u64,
    pub(crate) client_query_buffer_bytes: u64,
    /// For ordinary clients.
    pub(crate) output_buffer_limit: BufferLimit,
    /// For the buffers of all clients; `None` is no limit.
    pub(crate) maxmemory_clients_bytes: Option<u64>,
    /// Empty: no password.
    pub(crate) requirepass: Vec<u8>,
    pub(crate) debug_command: Permission,
    pub(crate) renamed_commands: Vec<RenamedCommand>,

    pub(crate) daemonize: bool,
    pub(crate) pidfile: Option<PathBuf>,
    pub(crate) loglevel: LogLevel,
    /// `None`: standard output.
    pub(crate) logfile: Option<PathBuf>,
    pub(crate) syslog: Option<Syslog>,
    /// What to write for the kernel's out-of-memory killer.
    pub(crate) oom_score: OomScore,
    pub(crate) shutdown_timeout: Duration,

    /// Threads that execute commands, at least 1.
    pub(crate) workers: usize,
    /// For everything; the automatic value if none is configured.
    pub(crate) maxmemory_bytes: u64,
    /// For the data files; 0 is no limit.
    pub(crate) maxdisk_bytes: u64,
    /// What happens when they reach it.
    pub(crate) eviction: Eviction,
    pub(crate) databases: usize,
    /// Directory of the data files, absolute.
    pub(crate) dir: PathBuf,
    pub(crate) appendonly: bool,
    pub(crate) appendfsync: SyncPolicy,
    /// Any of them makes a checkpoint due.
    pub(crate) save: Vec<SaveRule>,
    /// The length of the command log that makes a checkpoint due is at least this, and this share of the data.
    pub(crate) rewrite_min_bytes: u64,
    pub(crate) rewrite_percentage: u64,
    pub(crate) stop_writes_on_save_error: bool,
    pub(crate) shutdown_on_sigint: ShutdownOptions,
    pub(crate) shutdown_on_sigterm: ShutdownOptions,
    /// Rounds of background work a second, 1 to 500.
    pub(crate) hz: u32,
    pub(crate) io_backend: IoBackend,
    pub(crate) io_sqpoll: bool,
    pub(crate) io_iopoll: bool,
    /// A power of two; `None` is automatic.
    pub(crate) segment_bytes: Option<u64>,
    /// `None`: keep no slow commands.
    pub(crate) slowlog_log_slower_than: Option<Duration>,
    pub(crate) slowlog_max_len: usize,
    /// Bytes; `None`: keep no large requests.
    pub(crate) commandlog_request_larger_than: Option<u64>,
    pub(crate) commandlog_large_request_max_len: usize,
    /// Bytes; `None`: keep no large replies.
    pub(crate) commandlog_reply_larger_than: Option<u64>,
    pub(crate) commandlog_large_reply_max_len: usize,
    /// `None`: keep no latency events.
    pub(crate) latency_monitor_threshold: Option<Duration>,
    pub(crate) latency_tracking: bool,
    /// Larger ones have other encodings.
    pub(crate) hash_max_listpack_entries: u64,
    pub(crate) hash_max_listpack_value_bytes: u64,
    /// Entries if positive, else -1 to -5 for 4 to 64 KiB.
    pub(crate) list_max_listpack_size: i64,
    pub(crate) set_max_intset_entries: u64,
    pub(crate) set_max_listpack_entries: u64,
    pub(crate) set_max_listpack_value_bytes: u64,
    pub(crate) zset_max_listpack_entries: u64,
    pub(crate) zset_max_listpack_value_bytes: u64,
    /// Longer HyperLogLogs are dense.
    pub(crate) hll_sparse_max_bytes: u64,
    /// What is trimmed approximately of a stream at a time; 0: not limited.
    pub(crate) stream_node_max_bytes: u64,
    pub(crate) stream_node_max_entries: u64,
    pub(crate) latency_tracking_info_percentiles: Vec<f64>,
}

/// An address to listen on: an IP address or host name, `*` (any IPv4) or `::*` (any IPv6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BindAddress {
    pub(crate) address: String,
    /// Going on without it is no error.
    pub(crate) optional: bool,
}

/// Who may do something that is dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    Nobody,
    Everybody,
    LocalClients,
}

/// Where a client is connected from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The UNIX socket or a loopback address.
    Local,
    Remote,
}

impl Permission {
    pub(crate) fn admits(self, origin: Origin) -> bool {
        match self {
            Permission::Nobody => false,
            Permission::Everybody => true,
            Permission::LocalClients => origin == Origin::Local,
        }
    }
}

/// A `rename-command` line. An empty `to` takes the command away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenamedCommand {
    /// Where it is written, for messages.
    pub(crate) place: String,
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

/// Importance of log messages, rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    Debug,
    Verbose,
    Notice,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Syslog {
    pub(crate) ident: Vec<u8>,
    /// `user` or `local0` to `local7`.
    pub(crate) facility: &'static str,
}

/// The process's score for the kernel's out-of-memory killer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OomScore {
    /// Leave it (or put back the one the process started with).
    Inherited,
    /// Added to the one the process started with.
    Relative(i32),
    Absolute(i32),
}

/// How the server is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShutdownOptions {
    /// Whether data is saved first; `None`: as it is configured.
    pub(crate) save: Option<bool>,
    /// Ends even if data cannot be saved.
    pub(crate) force: bool,
}

/// How cold records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoBackend {
    /// io_uring, or tokio where the kernel refuses it.
    Auto,
    Uring,
    Tokio,
}

impl Settings {
    /// The settings that `values`, one for each row of the table, amount to.
    /// `automatic_maxmemory_bytes` is what `maxmemory 0` stands for.
    pub(super) fn new(values: &[Value], automatic_maxmemory_bytes: u64) -> Settings {
        let values = Values(values);
        let maxmemory_bytes =
            non_zero(values.bytes("maxmemory")).unwrap_or(automatic_maxmemory_bytes);
        Settings {
            bind: bind_addresses(values.words("bind")),
            port: values.number("port"),
            tcp_backlog: values.number("tcp-backlog"),
            unixsocket: values.path("unixsocket"),
            unixsocket_mode: non_zero(values.octal("unixsocketperm")),
            protected_mode: values.yes("protected-mode"),
            client_timeout: non_zero(values.number("timeout")).map(Duration::from_secs),
            tcp_keepalive: non_zero(values.number("tcp-keepalive")).map(Duration::from_secs),
            maxclients: values.number("maxclients"),
            proto_max_bulk_bytes: values.bytes("proto-max-bulk-len"),
            client_query_buffer_bytes: values.bytes("client-query-buffer-limit"),
            output_buffer_limit: values.normal_buffer_limit("client-output-buffer-limit"),
            maxmemory_clients_bytes: maxmemory_clients(&values, maxmemory_bytes),
            requirepass: values.text("requirepass").to_vec(),
            debug_command: permission(values.choice("enable-debug-command")),
            renamed_commands: renamed_commands(values.lines("rename-command")),
            daemonize: values.yes("daemonize"),
            pidfile: values.path("pidfile"),
            loglevel: match values.choice("loglevel") {
                "debug" => LogLevel::Debug,
                "verbose" => LogLevel::Verbose,
                "warning" => LogLevel::Warning,
                _ => LogLevel::Notice,
            },
            logfile: values.path("logfile"),
            syslog: values.yes("syslog-enabled").then(|| Syslog {
                ident: values.text("syslog-ident").to_vec(),
                facility: values.choice("syslog-facility"),
            }),
            oom_score: oom_score(&values),
            shutdown_timeout: Duration::from_secs(values.number("shutdown-timeout")),
            workers: values.number("io-threads"),
            maxmemory_bytes,
            maxdisk_bytes: values.bytes("maxdisk"),
            eviction: match values.choice("maxmemory-policy") {
                "allkeys-lru" | "allkeys-lfu" | "allkeys-random" => Eviction::AllKeys,
                "volatile-lru" | "volatile-lfu" | "volatile-random" => Eviction::Expiring,
                "volatile-ttl" => Eviction::SoonestExpiring,
                _ => Eviction::Never,
            },
            databases: values.number("databases"),
            dir: path(values.text("dir")),
            appendonly: values.yes("appendonly"),
            appendfsync: match values.choice("appendfsync") {
                "always" => SyncPolicy::Always,
                "no" => SyncPolicy::Never,
                _ => SyncPolicy::EverySecond,
            },
            save: values.save_rules("save").to_vec(),
            rewrite_min_bytes: values.bytes("auto-aof-rewrite-min-size"),
            rewrite_percentage: values.number("auto-aof-rewrite-percentage"),
            stop_writes_on_save_error: values.yes("stop-writes-on-bgsave-error"),
            shutdown_on_sigint: values.shutdown_options("shutdown-on-sigint"),
            shutdown_on_sigterm: values.shutdown_options("shutdown-on-sigterm"),
            hz: values.number("hz"),
            io_backend: match values.choice("io-backend") {
                "uring" => IoBackend::Uring,
                "tokio" => IoBackend::Tokio,
                _ => IoBackend::Auto,
            },
            io_sqpoll: values.yes("io-sqpoll"),
            io_iopoll: values.yes("io-iopoll"),
            segment_bytes: non_zero(values.bytes("segment-size")),
            slowlog_log_slower_than: microseconds(values.integer("slowlog-log-slower-than")),
            slowlog_max_len: values.number("slowlog-max-len"),
            commandlog_request_larger_than: u64::try_from(
                values.integer("commandlog-request-larger-than"),
            )
            .ok(),
            commandlog_large_request_max_len: values.number("commandlog-large-request-max-len"),
            commandlog_reply_larger_than: u64::try_from(
                values.integer("commandlog-reply-larger-than"),
            )
            .ok(),
            commandlog_large_reply_max_len: values.number("commandlog-large-reply-max-len"),
            latency_tracking: values.yes("latency-tracking"),
            hash_max_listpack_entries: values.number("hash-max-listpack-entries"),
            hash_max_listpack_value_bytes: values.bytes("hash-max-listpack-value"),
            list_max_listpack_size: values.integer("list-max-listpack-size"),
            set_max_intset_entries: values.number("set-max-intset-entries"),
            set_max_listpack_entries: values.number("set-max-listpack-entries"),
            set_max_listpack_value_bytes: values.bytes("set-max-listpack-value"),
            zset_max_listpack_entries: values.number("zset-max-listpack-entries"),
            zset_max_listpack_value_bytes: values.bytes("zset-max-listpack-value"),
            hll_sparse_max_bytes: values.bytes("hll-sparse-max-bytes"),
            stream_node_max_bytes: values.bytes("stream-node-max-bytes"),
            stream_node_max_entries: values.number("stream-node-max-entries"),
            latency_tracking_info_percentiles: values
                .percentiles("latency-tracking-info-percentiles")
                .to_vec(),
            latency_monitor_threshold: non_zero(values.number("latency-monitor-threshold"))
                .map(Duration::from_millis),
        }
    }
}

/// Who may `CONFIG SET` protected directives.
pub(super) fn protected_configs(values: &[Value]) -> Permission {
    permission(Values(values).choice("enable-protected-configs"))
}

fn permission(name: &str) -> Permission {
    match name {
        "yes" => Permission::Everybody,
        "local" => Permission::LocalClients,
        _ => Permission::Nobody,
    }
}

fn bind_addresses(words: &[Vec<u8>]) -> Vec<BindAddress> {
    let address = |word: &Vec<u8>| {
        let name = word.strip_prefix(b"-");
        BindAddress {
            address: String::from_utf8_lossy(name.unwrap_or(word)).into_owned(),
            optional: name.is_some(),
        }
    };
    words.iter().map(address).collect()
}

fn renamed_commands(lines: &[Line]) -> Vec<RenamedCommand> {
    let renamed = |line: &Line| match line.words.as_slice() {
        [from, to] => RenamedCommand {
            place: line.place.clone(),
            from: from.clone(),
            to: to.clone(),
        },
        other => unreachable!("rename-command takes two words, not {}", other.len()),
    };
    lines.iter().map(renamed).collect()
}

fn maxmemory_clients(values: &Values<'_>, maxmemory_bytes: u64) -> Option<u64> {
    match values.get("maxmemory-clients") {
        Value::Percent(percent) => non_zero(maxmemory_bytes / 100 * u64::from(*percent)),
        _ => non_zero(values.bytes("maxmemory-clients")),
    }
}

fn oom_score(values: &Values<'_>) -> OomScore {
    let score = match values.get("oom-score-adj-values") {
        Value::OomScores([score, _, _]) => *score,
        other => unreachable!("oom-score-adj-values is {other:?}"),
    };
    match values.choice("oom-score-adj") {
        "no" => OomScore::Inherited,
        "absolute" => OomScore::Absolute(score),
        _ => OomScore::Relative(score),
    }
}

/// `None` for a negative number.
fn microseconds(number: i64) -> Option<Duration> {
    u64::try_from(number).ok().map(Duration::from_micros)
}

fn non_zero<N: Default + PartialEq>(number: N) -> Option<N> {
    (number != N::default()).then_some(number)
}

fn path(text: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(text))
}

/// The values of all directives, by name. A name or a type that the table does not have is a
/// mistake in this file; every test that loads a configuration meets it.
struct Values<'a>(&'a [Value]);

impl<'a> Values<'a> {
    fn get(&self, name: &str) -> &'a Value {
        let Some((row, _)) = table::find(name.as_bytes()) else {
            unreachable!("no directive is called {name}")
        };
        &self.0[row]
    }

    fn yes(&self, name: &str) -> bool {
        matches!(self.get(name), Value::YesNo(true))
    }

    fn integer(&self, name: &str) -> i64 {
        match self.get(name) {
            Value::Integer(number) => *number,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    /// An integer whose bounds in the table fit in `N`.
    fn number<N: TryFrom<i64>>(&self, name: &str) -> N {
        let number = self.integer(name);
        N::try_from(number).unwrap_or_else(|_| unreachable!("{name} is {number}"))
    }

    fn octal(&self, name: &str) -> u32 {
        match self.get(name) {
            Value::Octal(mode) => *mode,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn bytes(&self, name: &str) -> u64 {
        match self.get(name) {
            Value::Bytes(bytes) => *bytes,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn choice(&self, name: &str) -> &'static str {
        match self.get(name) {
            Value::Choice(choice) => choice,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn text(&self, name: &str) -> &'a [u8] {
        match self.get(name) {
            Value::Text(text) => text,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name))
            .filter(|text| !text.is_empty())
            .map(path)
    }

    fn words(&self, name: &str) -> &'a [Vec<u8>] {
        match self.get(name) {
            Value::Words(words) => words,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn lines(&self, name: &str) -> &'a [Line] {
        match self.get(name) {
            Value::Lines(lines) => lines,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn percentiles(&self, name: &str) -> &'a [f64] {
        match self.get(name) {
            Value::Percentiles(percentiles) => percentiles,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn save_rules(&self, name: &str) -> &'a [SaveRule] {
        match self.get(name) {
            Value::Save(rules) => rules,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn shutdown_options(&self, name: &str) -> ShutdownOptions {
        let Value::Choices(names) = self.get(name) else {
            unreachable!("{name} is {:?}", self.get(name))
        };
        ShutdownOptions {
            save: if names.contains(&"save") {
                Some(true)
            } else {
                names.contains(&"nosave").then_some(false)
            },
            force: names.contains(&"force"),
        }
    }

    fn normal_buffer_limit(&self, name: &str) -> BufferLimit {
        match self.get(name) {
            Value::BufferLimits([normal, _, _]) => *normal,
            other => unreachable!("{name} is {other:?}"),
        }
    }
}
