//! The one table of directives: a row says how a directive is written, what it is by default, when
//! it may change, and what it does here or why it does nothing. The file parser, the command line,
//! `CONFIG GET`, `SET` and `REWRITE`, the notices at start and the documentation follow from it.
//!
//! It has every directive of Redis 7.2 (and those 7.4 added), so that a configuration written for
//! Redis starts this server, and a few of our own in a section at the end.

use super::value::{INT_MAX, Kind, SIGNED_MAX, Value};

/// One directive.
#[derive(Debug)]
pub(crate) struct Directive {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) kind: Kind,
    /// The default as a line of a file would say it, without quotes.
    default: &'static str,
    pub(crate) access: Access,
    pub(crate) effect: Effect,
    /// The value is a secret: commands that carry it must not be shown.
    pub(crate) sensitive: bool,
    /// No pattern of `CONFIG GET` finds it, only its name.
    pub(crate) hidden: bool,
}

/// Who may change a directive, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// `CONFIG SET` changes it while the server runs.
    Mutable,
    /// As `Mutable`, for clients that `enable-protected-configs` admits.
    Protected,
    /// Fixed at start.
    Immutable,
    /// No setting but an instruction of a file; `CONFIG` does not know it.
    FileOnly,
}

/// What a directive does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It works; one phrase says what it is.
    Works(&'static str),
    /// It is accepted and shown but does nothing; one phrase says why.
    NoMeaning(&'static str),
}

impl Directive {
    /// The value without any configuration.
    pub(crate) fn default_value(&self) -> Value {
        if matches!(self.kind, Kind::Lines { .. }) {
            return Value::Lines(Vec::new());
        }
        let words: Vec<Vec<u8>> = if self.kind.takes_many_words() {
            self.default
                .split_whitespace()
                .map(|word| word.as_bytes().to_vec())
                .collect()
        } else {
            vec![self.default.as_bytes().to_vec()]
        };
        // Nothing precedes a default: the kinds that build on a previous value start from empty.
        match self.kind.parse(&words, &Value::Words(Vec::new())) {
            Ok(value) => value,
            Err(reason) => unreachable!("default of {}: {reason}", self.name),
        }
    }

    /// The default as the documentation shows it.
    #[cfg(test)]
    pub(crate) fn default_text(&self) -> &'static str {
        self.default
    }
}

/// The row called `name`, letter case aside, and the name or alias it was found by.
pub(crate) fn find(name: &[u8]) -> Option<(usize, &'static str)> {
    DIRECTIVES.iter().enumerate().find_map(|(row, directive)| {
        let mut names = directive.names();
        let found = names.find(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
        Some((row, found))
    })
}

impl Directive {
    /// The name and the aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    const fn alias(self, aliases: &'static [&'static str]) -> Directive {
        Directive { aliases, ..self }
    }

    const fn immutable(self) -> Directive {
        Directive {
            access: Access::Immutable,
            ..self
        }
    }

    const fn protected(self) -> Directive {
        Directive {
            access: Access::Protected,
            ..self
        }
    }

    const fn sensitive(self) -> Directive {
        Directive {
            sensitive: true,
            ..self
        }
    }

    const fn hidden(self) -> Directive {
        Directive {
            hidden: true,
            ..self
        }
    }

    const fn works(self, what: &'static str) -> Directive {
        Directive {
            effect: Effect::Works(what),
            ..self
        }
    }

    const fn inert(self, why: &'static str) -> Directive {
        Directive {
            effect: Effect::NoMeaning(why),
            ..self
        }
    }
}

/// A mutable directive; what it does is still to be said.
const fn row(name: &'static str, kind: Kind, default: &'static str) -> Directive {
    let (access, effect) = (Access::Mutable, Effect::NoMeaning(""));
    Directive {
        name,
        aliases: &[],
        kind,
        default,
        access,
        effect,
        sensitive: false,
        hidden: false,
    }
}

/// An instruction of a file.
const fn line(name: &'static str, min_words: usize, max_words: usize) -> Directive {
    let kind = Kind::Lines {
        min_words,
        max_words,
    };
    Directive {
        access: Access::FileOnly,
        ..row(name, kind, "")
    }
}

use Kind::{
    Bind, BufferLimits, Choice, Choices, Clamped, Directory, FileName, Hostname, KeyspaceEvents,
    MemoryOrPercent, Octal, OomScores, Percentiles, ReplicaOf, Save, SegmentSize, Text,
    TitleTemplate, YesNo,
};

/// An integer from `min` to the largest `int`.
const fn int(min: i64) -> Kind {
    Kind::Integer { min, max: INT_MAX }
}

/// An integer from `min` to the largest `long`.
const fn long(min: i64) -> Kind {
    Kind::Integer { min, max: i64::MAX }
}

const fn between(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

/// A size from `min` bytes up.
const fn size(min: u64) -> Kind {
    Kind::Memory {
        min,
        max: SIGNED_MAX,
    }
}

const PORT: Kind = between(0, 65535);
const MIB: u64 = 1 << 20;
const PERMISSION: Kind = Choice(&["no", "yes", "local"]);
const SHUTDOWN: Kind = Choices(&["default", "save", "nosave", "now", "force"]);
const POLICIES: Kind = Choice(&[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
]);
const FACILITIES: Kind = Choice(&[
    "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
]);

const ACL: &str = "there are no users beside the default one";
const BACKGROUND: &str = "memory is always given back in the background";
const CLUSTER: &str = "cluster mode is not supported";
const DATA_FILES: &str = "data files have a format and names of their own";
const DEFRAG: &str = "the log does not fragment memory";
const EVICTION: &str = "what is evicted is chosen by the age of segments, not by samples of keys";
const MODULES: &str = "modules are not supported";
const PINNING: &str = "threads are not pinned; limit them from outside, with taskset or a cgroup";
const PUBSUB: &str = "keyspace notifications are not supported";
const REDIS_TESTS: &str = "it is for tests of Redis itself";
const REMOVED: &str = "Redis removed it as well";
const REPLICATION: &str = "replication is not supported";
const SCRIPTS: &str = "scripts are not supported";
const TITLE: &str = "the name in the list of processes stays as it is";
const TLS: &str = "TLS is not supported";

/// Every directive, by subject.
#[rustfmt::skip]
pub(crate) static DIRECTIVES: &[Directive] = &[
    // Files and commands.
    line("include", 1, 1).works("reads another file, or all that match a pattern, at this place"),
    line("rename-command", 2, 2).works("gives a command another name; \"\" takes it away"),
    line("loadmodule", 1, usize::MAX).inert(MODULES),
    line("user", 1, usize::MAX).works("gives the default user, the only one, a password as requirepass does: default on ~* +@all, with nopass or one >password"),

    // Network.
    row("bind", Bind, "* -::*").immutable().works("addresses to listen on; one that begins with - may be missing on this machine"),
    row("bind-source-addr", Text, "").inert("the server makes no outgoing connections"),
    row("port", PORT, "6379").immutable().works("TCP port; 0 listens on none if there is a UNIX socket, else on a free port"),
    row("tcp-backlog", int(0), "511").immutable().works("connections that may wait to be accepted"),
    row("unixsocket", Text, "").immutable().works("path of a UNIX socket to listen on"),
    row("unixsocketperm", Octal { max: 0o777 }, "0").immutable().works("mode of the UNIX socket; 0 leaves what the umask gives"),
    row("protected-mode", YesNo, "yes").works("refuses clients of other machines while there is no password"),
    row("timeout", int(0), "0").works("seconds after which an idle client is disconnected; 0 is never"),
    row("tcp-keepalive", int(0), "300").works("seconds between keepalive probes; 0 sends none"),
    row("socket-mark-id", between(0, u32::MAX as i64), "0").immutable().inert("sockets are not marked"),
    row("maxclients", between(1, u32::MAX as i64), "10000").works("clients connected at the same time"),
    row("max-new-connections-per-cycle", between(1, 1000), "10").inert("workers accept connections as they come"),
    row("max-new-tls-connections-per-cycle", between(1, 1000), "1").inert(TLS),
    row("proto-max-bulk-len", size(MIB), "512mb").works("longest argument of a command"),
    row("client-query-buffer-limit", size(MIB), "1gb").works("bytes of unfinished commands that a client may have sent"),
    row("client-output-buffer-limit", BufferLimits, "normal 0 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60").works("bytes of replies that may wait for a client, by class"),

    // TLS.
    row("tls-port", PORT, "0").inert(TLS),
    row("tls-auth-clients", Choice(&["no", "yes", "optional"]), "yes").inert(TLS),
    row("tls-ca-cert-dir", Text, "").inert(TLS),
    row("tls-ca-cert-file", Text, "").inert(TLS),
    row("tls-cert-file", Text, "").inert(TLS),
    row("tls-ciphers", Text, "").inert(TLS),
    row("tls-ciphersuites", Text, "").inert(TLS),
    row("tls-client-cert-file", Text, "").inert(TLS),
    row("tls-client-key-file", Text, "").inert(TLS),
    row("tls-client-key-file-pass", Text, "").sensitive().inert(TLS),
    row("tls-cluster", YesNo, "no").inert(TLS),
    row("tls-dh-params-file", Text, "").inert(TLS),
    row("tls-key-file", Text, "").inert(TLS),
    row("tls-key-file-pass", Text, "").sensitive().inert(TLS),
    row("tls-prefer-server-ciphers", YesNo, "no").inert(TLS),
    row("tls-protocols", Text, "").inert(TLS),
    row("tls-replication", YesNo, "no").inert(TLS),
    row("tls-session-cache-size", int(0), "20480").inert(TLS),
    row("tls-session-cache-timeout", int(0), "300").inert(TLS),
    row("tls-session-caching", YesNo, "yes").inert(TLS),

    // Process, log messages.
    row("daemonize", YesNo, "no").immutable().works("runs in the background"),
    row("supervised", Choice(&["upstart", "systemd", "auto", "no"]), "no").immutable().inert("the server does not signal its readiness to a supervisor"),
    row("pidfile", Text, "").immutable().works("file that holds the process id while the server runs"),
    row("loglevel", Choice(&["debug", "verbose", "notice", "warning"]), "notice").works("least important message that is logged"),
    row("logfile", Text, "").immutable().works("file for log messages; empty is standard output"),
    row("syslog-enabled", YesNo, "no").immutable().works("sends log messages to the system's log too"),
    row("syslog-ident", Text, "ferrite").immutable().works("name in the system's log"),
    row("syslog-facility", FACILITIES, "local0").immutable().works("facility in the system's log"),
    row("hide-user-data-from-log", YesNo, "no").inert("log messages never carry keys or values"),
    row("crash-log-enabled", YesNo, "yes").inert("a crash is reported by the Rust runtime"),
    row("crash-memcheck-enabled", YesNo, "yes").inert("a crash is reported by the Rust runtime"),
    row("always-show-logo", YesNo, "no").immutable().inert("no logo is shown"),
    row("set-proc-title", YesNo, "yes").immutable().inert(TITLE),
    row("proc-title-template", TitleTemplate, "{title} {listen-addr} {server-mode}").inert(TITLE),
    row("locale-collate", Text, "").inert("text is compared byte by byte"),
    row("ignore-warnings", Text, "").inert("no warning stops the start"),
    row("disable-thp", YesNo, "yes").immutable().inert("the engine asks for huge pages where they help"),
    row("oom-score-adj", Choice(&["no", "yes", "relative", "absolute"]), "no").works("whether oom-score-adj-values is applied to the process"),
    row("oom-score-adj-values", OomScores, "0 200 800").works("scores for the kernel's out-of-memory killer; the first one counts"),
    row("shutdown-timeout", int(0), "10").works("seconds that a shutdown waits for running commands"),
    row("shutdown-on-sigint", SHUTDOWN, "default").works("what SIGINT does: the options of SHUTDOWN, or default"),
    row("shutdown-on-sigterm", SHUTDOWN, "default").works("what SIGTERM does: the options of SHUTDOWN, or default"),

    // Permissions.
    row("requirepass", Text, "").sensitive().works("password that clients must give; empty is none"),
    row("enable-protected-configs", PERMISSION, "no").immutable().works("who may CONFIG SET protected directives"),
    row("enable-debug-command", PERMISSION, "no").immutable().works("who may use DEBUG"),
    row("enable-module-command", PERMISSION, "no").immutable().inert(MODULES),
    row("aclfile", Text, "").immutable().works("must be empty: there are no users beside the default one"),
    row("acllog-max-len", long(0), "128").inert(ACL),
    row("acl-pubsub-default", Choice(&["allchannels", "resetchannels"]), "resetchannels").inert(ACL),

    // Memory, threads, background work.
    row("maxmemory", Kind::Memory { min: 0, max: u64::MAX }, "0").works("memory for everything; 0 is 60% of RAM or of the cgroup's limit"),
    row("maxmemory-policy", POLICIES, "noeviction").works("which keys are evicted when the data files reach maxdisk; noeviction refuses writes then"),
    row("maxmemory-samples", int(1), "5").inert(EVICTION),
    row("maxmemory-eviction-tenacity", between(0, 100), "10").inert(EVICTION),
    row("maxmemory-clients", MemoryOrPercent, "0").works("memory for buffers of all clients, of which the largest are disconnected above it; 0 is no limit"),
    row("io-threads", between(1, 1024), "1").immutable().works("workers that execute commands; by default one for each CPU this process may use"),
    row("io-threads-do-reads", YesNo, "no").immutable().inert("every worker reads, executes and writes"),
    row("server-cpulist", Text, "").alias(&["server_cpulist"]).immutable().inert(PINNING),
    row("bio-cpulist", Text, "").alias(&["bio_cpulist"]).immutable().inert(PINNING),
    row("aof-rewrite-cpulist", Text, "").alias(&["aof_rewrite_cpulist"]).immutable().inert(PINNING),
    row("bgsave-cpulist", Text, "").alias(&["bgsave_cpulist"]).immutable().inert(PINNING),
    row("hz", Clamped { lowest: 1, highest: 500 }, "10").works("how often a second background work runs"),
    row("dynamic-hz", YesNo, "yes").inert("background work does not grow with the number of clients"),
    row("activerehashing", YesNo, "yes").inert("the index grows in place, without rehashing"),
    row("active-expire-effort", between(1, 10), "1").inert("expired keys are found without sampling"),
    row("jemalloc-bg-thread", YesNo, "yes").inert("data is not held by an allocator"),
    row("activedefrag", YesNo, "no").inert(DEFRAG),
    row("active-defrag-cycle-min", between(1, 99), "1").inert(DEFRAG),
    row("active-defrag-cycle-max", between(1, 99), "25").inert(DEFRAG),
    row("active-defrag-ignore-bytes", size(1), "100mb").inert(DEFRAG),
    row("active-defrag-max-scan-fields", long(1), "1000").inert(DEFRAG),
    row("active-defrag-threshold-lower", between(0, 1000), "10").inert(DEFRAG),
    row("active-defrag-threshold-upper", between(0, 1000), "100").inert(DEFRAG),
    row("lfu-log-factor", int(0), "10").inert(EVICTION),
    row("lfu-decay-time", int(0), "1").inert(EVICTION),
    row("lazyfree-lazy-eviction", YesNo, "no").inert(BACKGROUND),
    row("lazyfree-lazy-expire", YesNo, "no").inert(BACKGROUND),
    row("lazyfree-lazy-server-del", YesNo, "no").inert(BACKGROUND),
    row("lazyfree-lazy-user-del", YesNo, "no").inert(BACKGROUND),
    row("lazyfree-lazy-user-flush", YesNo, "no").inert(BACKGROUND),

    // Data.
    row("databases", int(1), "16").immutable().works("number of databases"),
    row("dir", Directory, ".").immutable().works("directory of the data files"),
    row("hash-max-listpack-entries", long(0), "512").alias(&["hash-max-ziplist-entries"]).works("fields of a hash that OBJECT ENCODING calls a listpack, at most"),
    row("hash-max-listpack-value", size(0), "64").alias(&["hash-max-ziplist-value"]).works("bytes of a field or value of such a hash, at most"),
    row("list-max-listpack-size", between(i32::MIN as i64, INT_MAX), "-2").alias(&["list-max-ziplist-size"]).works("how long a list may be that OBJECT ENCODING calls a listpack: so many elements or, if negative, -1 to -5 for 4, 8, 16, 32 or 64 KiB"),
    row("list-compress-depth", int(0), "0").inert("elements in memory are not compressed"),
    row("set-max-intset-entries", long(0), "512").works("members of a set of integers that OBJECT ENCODING calls an intset, at most"),
    row("set-max-listpack-entries", long(0), "128").works("members of a set that OBJECT ENCODING calls a listpack, at most"),
    row("set-max-listpack-value", size(0), "64").works("bytes of a member of such a set, at most"),
    row("zset-max-listpack-entries", long(0), "128").alias(&["zset-max-ziplist-entries"]).works("members of a sorted set that OBJECT ENCODING calls a listpack, at most"),
    row("zset-max-listpack-value", size(0), "64").alias(&["zset-max-ziplist-value"]).works("bytes of a member of such a sorted set, at most"),
    row("hll-sparse-max-bytes", size(0), "3000").works("bytes up to which a HyperLogLog is sparse"),
    row("stream-node-max-bytes", size(0), "4096").works("bytes that a node of a stream holds; XTRIM and XADD with `~` remove so many entries at a time as a node would hold of the average entry, 0: whatever their size"),
    row("stream-node-max-entries", long(0), "100").works("entries of a node of a stream at most, 0: as many as its bytes allow; 100 times as many go with `~` at most"),
    line("list-max-ziplist-entries", 1, 1).inert(REMOVED),
    line("list-max-ziplist-value", 1, 1).inert(REMOVED),
    row("notify-keyspace-events", KeyspaceEvents, "").inert(PUBSUB),
    row("tracking-table-max-keys", long(0), "1000000").inert("client tracking is not supported"),
    row("busy-reply-threshold", long(0), "5000").alias(&["lua-time-limit"]).inert(SCRIPTS),
    line("lua-replicate-commands", 1, 1).inert(REMOVED),

    // Observation.
    row("slowlog-log-slower-than", long(-1), "10000").alias(&["commandlog-execution-slower-than"]).works("microseconds from which SLOWLOG keeps a command; -1 keeps none"),
    row("slowlog-max-len", long(0), "128").alias(&["commandlog-slow-execution-max-len"]).works("commands that SLOWLOG keeps"),
    row("commandlog-request-larger-than", long(-1), "1048576").works("bytes from which COMMANDLOG keeps a command for its request; -1 keeps none"),
    row("commandlog-large-request-max-len", long(0), "128").works("large requests that COMMANDLOG keeps"),
    row("commandlog-reply-larger-than", long(-1), "1048576").works("bytes from which COMMANDLOG keeps a command for its reply; -1 keeps none"),
    row("commandlog-large-reply-max-len", long(0), "128").works("large replies that COMMANDLOG keeps"),
    row("latency-monitor-threshold", long(0), "0").works("milliseconds from which LATENCY keeps an event; 0 keeps none"),
    row("latency-tracking", YesNo, "yes").works("whether histograms are kept of what commands take, for LATENCY HISTOGRAM and INFO"),
    row("latency-tracking-info-percentiles", Percentiles, "50 99 99.9").works("percentiles of those histograms that INFO shows"),

    // Checkpoints and the command log.
    row("save", Save, "3600 1 300 100 60 10000").works("a checkpoint is made after so many seconds with so many changes; nothing is no such rule"),
    row("appendonly", YesNo, "yes").works("whether every change goes to the command log; without, a restart finds the last checkpoint"),
    row("appendfsync", Choice(&["everysec", "always", "no"]), "everysec").works("when the command log is synced: before a change is acknowledged, once a second, or when the system does"),
    row("auto-aof-rewrite-min-size", size(0), "64mb").works("a command log shorter than this makes no checkpoint due"),
    row("auto-aof-rewrite-percentage", int(0), "100").works("makes a checkpoint due when the command log is longer than this share of its usual limit, which is four times the data and 256 to 448 MiB at most, the less the more data there is; 0: its length does not matter"),
    row("stop-writes-on-bgsave-error", YesNo, "yes").works("whether changes are refused while the last BGSAVE has failed and there are save rules"),
    row("no-appendfsync-on-rewrite", YesNo, "no").inert("the command log is synced while checkpoints are made, too"),
    row("dbfilename", FileName, "dump.rdb").protected().inert(DATA_FILES),
    row("rdbchecksum", YesNo, "yes").immutable().inert("all files have checksums"),
    row("rdbcompression", YesNo, "yes").inert("data files have a format of their own, and DUMP does not compress"),
    row("rdb-del-sync-files", YesNo, "no").inert(DATA_FILES),
    row("rdb-save-incremental-fsync", YesNo, "yes").inert(DATA_FILES),
    row("sanitize-dump-payload", Choice(&["no", "yes", "clients"]), "no").inert("RESTORE always checks all of a payload"),
    row("appendfilename", FileName, "appendonly.aof").immutable().inert(DATA_FILES),
    row("appenddirname", FileName, "appendonlydir").immutable().inert(DATA_FILES),
    row("aof-disable-auto-gc", YesNo, "no").inert(DATA_FILES),
    row("aof-load-truncated", YesNo, "yes").inert("a command log whose end a crash has torn off is loaded up to there, and the log says so"),
    row("aof-rewrite-incremental-fsync", YesNo, "yes").inert(DATA_FILES),
    row("aof-timestamp-enabled", YesNo, "no").inert(DATA_FILES),
    row("aof-use-rdb-preamble", YesNo, "yes").inert(DATA_FILES),

    // Replication.
    row("replicaof", ReplicaOf, "").alias(&["slaveof"]).immutable().inert(REPLICATION),
    row("masterauth", Text, "").sensitive().inert(REPLICATION),
    row("masteruser", Text, "").sensitive().inert(REPLICATION),
    row("min-replicas-max-lag", int(0), "10").alias(&["min-slaves-max-lag"]).inert(REPLICATION),
    row("min-replicas-to-write", int(0), "0").alias(&["min-slaves-to-write"]).inert(REPLICATION),
    row("propagation-error-behavior", Choice(&["ignore", "panic", "panic-on-replicas"]), "ignore").inert(REPLICATION),
    row("repl-backlog-size", size(1), "1mb").inert(REPLICATION),
    row("repl-backlog-ttl", long(0), "3600").inert(REPLICATION),
    row("repl-disable-tcp-nodelay", YesNo, "no").inert(REPLICATION),
    row("repl-diskless-load", Choice(&["disabled", "on-empty-db", "swapdb"]), "disabled").inert(REPLICATION),
    row("repl-diskless-sync", YesNo, "yes").inert(REPLICATION),
    row("repl-diskless-sync-delay", int(0), "5").inert(REPLICATION),
    row("repl-diskless-sync-max-replicas", int(0), "0").inert(REPLICATION),
    row("repl-ping-replica-period", int(1), "10").alias(&["repl-ping-slave-period"]).inert(REPLICATION),
    row("repl-timeout", int(1), "60").inert(REPLICATION),
    row("replica-announce-ip", Text, "").alias(&["slave-announce-ip"]).inert(REPLICATION),
    row("replica-announce-port", PORT, "0").alias(&["slave-announce-port"]).inert(REPLICATION),
    row("replica-announced", YesNo, "yes").inert(REPLICATION),
    row("replica-ignore-disk-write-errors", YesNo, "no").inert(REPLICATION),
    row("replica-ignore-maxmemory", YesNo, "yes").alias(&["slave-ignore-maxmemory"]).inert(REPLICATION),
    row("replica-lazy-flush", YesNo, "no").alias(&["slave-lazy-flush"]).inert(REPLICATION),
    row("replica-priority", int(0), "100").alias(&["slave-priority"]).inert(REPLICATION),
    row("replica-read-only", YesNo, "yes").alias(&["slave-read-only"]).inert(REPLICATION),
    row("replica-serve-stale-data", YesNo, "yes").alias(&["slave-serve-stale-data"]).inert(REPLICATION),

    // Cluster.
    row("cluster-enabled", YesNo, "no").immutable().inert(CLUSTER),
    row("cluster-config-file", Text, "nodes.conf").immutable().inert(CLUSTER),
    row("cluster-node-timeout", long(0), "15000").inert(CLUSTER),
    row("cluster-port", PORT, "0").immutable().inert(CLUSTER),
    row("cluster-allow-pubsubshard-when-down", YesNo, "yes").inert(CLUSTER),
    row("cluster-allow-reads-when-down", YesNo, "no").inert(CLUSTER),
    row("cluster-allow-replica-migration", YesNo, "yes").inert(CLUSTER),
    row("cluster-announce-bus-port", PORT, "0").inert(CLUSTER),
    row("cluster-announce-hostname", Hostname, "").inert(CLUSTER),
    row("cluster-announce-human-nodename", Text, "").inert(CLUSTER),
    row("cluster-announce-ip", Text, "").inert(CLUSTER),
    row("cluster-announce-port", PORT, "0").inert(CLUSTER),
    row("cluster-announce-tls-port", PORT, "0").inert(CLUSTER),
    row("cluster-link-sendbuf-limit", Kind::Memory { min: 0, max: u64::MAX }, "0").inert(CLUSTER),
    row("cluster-migration-barrier", int(0), "1").inert(CLUSTER),
    row("cluster-preferred-endpoint-type", Choice(&["ip", "hostname", "unknown-endpoint"]), "ip").inert(CLUSTER),
    row("cluster-replica-no-failover", YesNo, "no").alias(&["cluster-slave-no-failover"]).inert(CLUSTER),
    row("cluster-replica-validity-factor", int(0), "10").alias(&["cluster-slave-validity-factor"]).inert(CLUSTER),
    row("cluster-require-full-coverage", YesNo, "yes").inert(CLUSTER),

    // What Redis has for its own tests.
    row("watchdog-period", int(0), "0").hidden().inert(REDIS_TESTS),
    row("rdb-key-save-delay", between(i32::MIN as i64, INT_MAX), "0").hidden().inert(REDIS_TESTS),
    row("key-load-delay", between(i32::MIN as i64, INT_MAX), "0").hidden().inert(REDIS_TESTS),
    row("loading-process-events-interval-bytes", int(1024), "2097152").hidden().inert(REDIS_TESTS),
    row("use-exit-on-panic", YesNo, "no").hidden().inert(REDIS_TESTS),

    // Our own.
    row("io-backend", Choice(&["auto", "uring", "tokio"]), "auto").immutable().works("how cold records are read: io_uring, tokio's file I/O, or the first where the kernel allows it"),
    row("io-sqpoll", YesNo, "no").immutable().works("io_uring: a kernel thread submits the reads"),
    row("io-iopoll", YesNo, "no").immutable().works("io_uring: completions are polled for; needs a device with poll queues"),
    row("maxdisk", Kind::Memory { min: 0, max: u64::MAX }, "0").works("bytes of data files under dir, the command log not counted, at which maxmemory-policy applies; 0 is no limit"),
    row("segment-size", SegmentSize, "0").immutable().works("size of the log's segments in a new data directory; 0 follows from maxmemory"),
];
