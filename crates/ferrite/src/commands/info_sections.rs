//! The sections of INFO: Redis's fields in Redis's order where they have a meaning here or clients read them, then
//! our own.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hybridlog::io::IoStats;

use crate::commands::connection::REDIS_VERSION;
use crate::commands::memory::Figures;
use crate::server::{Server, unix_ms};
use crate::usage::{self, CpuTime};

/// Text of `name:value` lines.
#[derive(Default)]
pub(crate) struct Lines(String);

impl Lines {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Begins a section, a blank line after the one before.
    pub(crate) fn heading(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push_str("\r\n");
        }
        let _ = write!(self.0, "# {name}\r\n");
    }

    pub(crate) fn field(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// A field in bytes and another one that people can read.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), human(bytes));
    }

    pub(crate) fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.field(name, 0));
    }
}

/// Bytes as Redis writes them for people: "1.50K", "0B".
fn human(bytes: u64) -> String {
    const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let unit = (bytes.ilog2() / 10).min(UNITS.len() as u32);
    format!(
        "{:.2}{}",
        bytes as f64 / (1u64 << (10 * unit)) as f64,
        UNITS[unit as usize - 1]
    )
}

pub(crate) fn server(text: &mut Lines, server: &Server) {
    let uptime_seconds = server.uptime_ms() / 1000;
    let settings = server.config.settings();
    let executable = std::env::current_exe().unwrap_or_default();
    let port = server.port;
    text.field("redis_version", REDIS_VERSION);
    text.field("ferrite_version", env!("CARGO_PKG_VERSION"));
    text.field("redis_git_sha1", "00000000");
    text.field("redis_git_dirty", 0);
    text.field("redis_build_id", "0");
    text.field("redis_mode", "standalone");
    text.field("os", usage::system_name());
    text.field("arch_bits", usize::BITS);
    text.field("monotonic_clock", "POSIX clock_gettime");
    text.field("multiplexing_api", "epoll");
    text.field("atomicvar_api", "c11-builtin");
    // Not built with one, as Redis has it then.
    text.field("gcc_version", "0.0.0");
    text.field("process_id", std::process::id());
    text.field("process_supervised", "no");
    text.field("run_id", &server.run_id);
    text.field("tcp_port", port);
    text.field("server_time_usec", unix_ms() * 1000);
    text.field("uptime_in_seconds", uptime_seconds);
    text.field("uptime_in_days", uptime_seconds / 86_400);
    text.field("hz", settings.hz);
    text.field("configured_hz", settings.hz);
    text.field("lru_clock", (unix_ms() / 1000) & 0xff_ffff);
    text.field("executable", executable.display());
    text.field(
        "config_file",
        server.config.file().unwrap_or("".as_ref()).display(),
    );
    text.field("io_threads_active", u8::from(settings.workers > 1));
    let mut listeners = 0;
    if port != 0 {
        let binds: String = settings
            .bind
            .iter()
            .map(|bind| format!(",bind={}", bind.address))
            .collect();
        text.field("listener0", format!("name=tcp{binds},port={port}"));
        listeners += 1;
    }
    if let Some(path) = &settings.unixsocket {
        let listener = format!("name=unix,bind={}", path.display());
        text.field(&format!("listener{listeners}"), listener);
    }
}

pub(crate) fn clients(text: &mut Lines, server: &Server) {
    let clients = server.clients.all();
    let largest = |bytes: fn(&crate::client::ClientEntry) -> u64| {
        clients.iter().map(|entry| bytes(entry)).max().unwrap_or(0)
    };
    text.field("connected_clients", clients.len());
    text.field("cluster_connections", 0);
    text.field("maxclients", server.config.settings().maxclients);
    text.field(
        "client_recent_max_input_buffer",
        largest(|entry| entry.query_bytes.load(Relaxed)),
    );
    text.field(
        "client_recent_max_output_buffer",
        largest(|entry| entry.output_bytes.load(Relaxed)),
    );
    let watching = clients.iter().filter(|entry| entry.watched_keys() > 0);
    text.field("blocked_clients", server.blocking.clients());
    text.zeros(&["tracking_clients", "pubsub_clients"]);
    text.field("watching_clients", watching.count());
    text.zeros(&["clients_in_timeout_table"]);
    text.field("total_watched_keys", server.store.watched_keys());
    let (keys, on_removal) = server.blocking.keys();
    text.field("total_blocking_keys", keys);
    text.field("total_blocking_keys_on_nokey", on_removal);
}

pub(crate) fn memory(text: &mut Lines, server: &Server) {
    let figures = Figures::now(server);
    text.bytes("used_memory", figures.used_bytes);
    text.bytes("used_memory_rss", figures.system.resident_bytes);
    text.bytes("used_memory_peak", figures.peak_bytes);
    text.field(
        "used_memory_peak_perc",
        format!("{:.2}%", figures.peak_percent()),
    );
    text.field("used_memory_overhead", figures.overhead_bytes());
    text.field("used_memory_startup", 0);
    text.field("used_memory_dataset", figures.dataset_bytes());
    text.field(
        "used_memory_dataset_perc",
        format!("{:.2}%", figures.dataset_percent()),
    );
    text.field("allocator_allocated", figures.used_bytes);
    text.field("allocator_active", figures.system.resident_bytes);
    text.field("allocator_resident", figures.system.resident_bytes);
    text.bytes("total_system_memory", figures.system.machine_bytes);
    text.zeros(&["used_memory_lua", "used_memory_vm_eval"]);
    text.field("used_memory_lua_human", human(0));
    text.zeros(&[
        "used_memory_scripts_eval",
        "number_of_cached_scripts",
        "number_of_functions",
        "number_of_libraries",
        "used_memory_vm_functions",
    ]);
    text.bytes("used_memory_vm_total", 0);
    text.zeros(&["used_memory_functions"]);
    text.bytes("used_memory_scripts", 0);
    text.bytes("maxmemory", server.config.settings().maxmemory_bytes);
    text.field("maxmemory_policy", maxmemory_policy(server));
    text.field("allocator_frag_ratio", "1.00");
    text.field("allocator_frag_bytes", 0);
    text.field("allocator_rss_ratio", "1.00");
    text.field("allocator_rss_bytes", 0);
    text.field("rss_overhead_ratio", "1.00");
    text.field("rss_overhead_bytes", 0);
    text.field(
        "mem_fragmentation_ratio",
        format!("{:.2}", figures.fragmentation_ratio()),
    );
    text.field("mem_fragmentation_bytes", figures.fragmentation_bytes());
    text.zeros(&[
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
    ]);
    text.field("mem_clients_normal", figures.clients_bytes);
    text.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    text.field("mem_allocator", "libc");
    text.zeros(&[
        "active_defrag_running",
        "lazyfree_pending_objects",
        "lazyfreed_objects",
    ]);
}

fn maxmemory_policy(server: &Server) -> String {
    let found = server.config.get(&[b"maxmemory-policy"]);
    found.first().map_or(String::new(), |(_, value)| {
        String::from_utf8_lossy(value).into_owned()
    })
}

pub(crate) fn stats(text: &mut Lines, server: &Server) {
    let stats = &server.stats;
    let [commands_per_second, input_per_second, output_per_second] = stats.rates.per_second();
    let kib = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    text.field(
        "total_connections_received",
        stats.total(|worker| &worker.connections),
    );
    text.field(
        "total_commands_processed",
        stats.total(|worker| &worker.commands),
    );
    text.field("instantaneous_ops_per_sec", commands_per_second);
    text.field(
        "total_net_input_bytes",
        stats.total(|worker| &worker.net_input_bytes),
    );
    text.field(
        "total_net_output_bytes",
        stats.total(|worker| &worker.net_output_bytes),
    );
    text.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    text.field("instantaneous_input_kbps", kib(input_per_second));
    text.field("instantaneous_output_kbps", kib(output_per_second));
    text.field("instantaneous_input_repl_kbps", "0.00");
    text.field("instantaneous_output_repl_kbps", "0.00");
    text.field(
        "rejected_connections",
        stats.total(|worker| &worker.rejected_connections),
    );
    text.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    text.field("expired_keys", server.store.stats().expired);
    text.field("expired_subkeys", server.field_expiry.removed());
    text.field("expired_stale_perc", "0.00");
    text.zeros(&[
        "expired_time_cap_reached_count",
        "expire_cycle_cpu_milliseconds",
    ]);
    text.field("evicted_keys", server.store.stats().evicted);
    text.zeros(&[
        "evicted_clients",
        "evicted_scripts",
        "total_eviction_exceeded_time",
        "current_eviction_exceeded_time",
    ]);
    text.field("keyspace_hits", stats.total(|worker| &worker.keyspace_hits));
    text.field(
        "keyspace_misses",
        stats.total(|worker| &worker.keyspace_misses),
    );
    text.zeros(&[
        "pubsub_channels",
        "pubsub_patterns",
        "pubsubshard_channels",
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
        "tracking_total_keys",
        "tracking_total_items",
        "tracking_total_prefixes",
        "unexpected_error_replies",
    ]);
    text.field(
        "total_error_replies",
        stats.total(|worker| &worker.error_replies),
    );
    text.field("dump_payload_sanitizations", 0);
    text.field(
        "total_reads_processed",
        stats.total(|worker| &worker.reads_processed),
    );
    text.field(
        "total_writes_processed",
        stats.total(|worker| &worker.writes_processed),
    );
    text.zeros(&[
        "io_threaded_reads_processed",
        "io_threaded_writes_processed",
    ]);
    text.field(
        "client_query_buffer_limit_disconnections",
        stats.total(|worker| &worker.query_buffer_limit_disconnections),
    );
    text.field(
        "client_output_buffer_limit_disconnections",
        stats.total(|worker| &worker.output_buffer_limit_disconnections),
    );
    text.zeros(&[
        "reply_buffer_shrinks",
        "reply_buffer_expands",
        "acl_access_denied_auth",
        "acl_access_denied_cmd",
        "acl_access_denied_key",
        "acl_access_denied_channel",
    ]);
}

pub(crate) fn replication(text: &mut Lines, server: &Server) {
    text.field("role", "master");
    text.field("connected_slaves", 0);
    text.field("master_failover_state", "no-failover");
    text.field("master_replid", &server.run_id);
    text.field("master_replid2", "0".repeat(40));
    text.field("master_repl_offset", 0);
    text.field("second_repl_offset", -1);
    text.zeros(&[
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
    ]);
}

pub(crate) fn cpu(text: &mut Lines, _server: &Server) {
    let all = CpuTime::of_process();
    let main = CpuTime::of_main_thread();
    for (name, seconds) in [
        ("used_cpu_sys", all.system_seconds),
        ("used_cpu_user", all.user_seconds),
        ("used_cpu_sys_children", 0.0),
        ("used_cpu_user_children", 0.0),
        ("used_cpu_sys_main_thread", main.system_seconds),
        ("used_cpu_user_main_thread", main.user_seconds),
    ] {
        text.field(name, format!("{seconds:.6}"));
    }
}

/// There are no modules.
pub(crate) fn modules(_text: &mut Lines, _server: &Server) {}

pub(crate) fn commandstats(text: &mut Lines, server: &Server) {
    for command in server.commands.all() {
        let totals = server.stats.command(command.id);
        if totals.calls + totals.rejected == 0 {
            continue;
        }
        let micros = totals.nanos / 1000;
        let per_call = micros as f64 / totals.calls.max(1) as f64;
        text.field(
            &format!("cmdstat_{}", command.full_name),
            format!(
                "calls={},usec={micros},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
                totals.calls, totals.rejected, totals.failed
            ),
        );
    }
}

pub(crate) fn errorstats(text: &mut Lines, server: &Server) {
    for (code, count) in server.stats.errors() {
        text.field(&format!("errorstat_{code}"), format!("count={count}"));
    }
}

pub(crate) fn latencystats(text: &mut Lines, server: &Server) {
    let percents = &server.config.settings().latency_tracking_info_percentiles;
    for command in server.commands.all() {
        let totals = server.stats.command(command.id);
        if totals.latency.is_empty() {
            continue;
        }
        let percentile = |percent: &f64| {
            let micros = totals.percentile_nanos(*percent) as f64 / 1000.0;
            format!("p{percent}={micros:.3}")
        };
        let percentiles: Vec<_> = percents.iter().map(percentile).collect();
        text.field(
            &format!("latency_percentiles_usec_{}", command.full_name),
            percentiles.join(","),
        );
    }
}

pub(crate) fn cluster(text: &mut Lines, _server: &Server) {
    text.field("cluster_enabled", 0);
}

pub(crate) fn keyspace(text: &mut Lines, server: &Server) {
    for database in 0..server.databases.count() {
        let namespace = server.databases.namespace(database);
        let keys = server.store.len(namespace);
        if keys > 0 {
            let expires = server.store.expiring(namespace);
            let ttl_ms = match expires {
                0 => 0,
                _ => server.store.average_ttl_ms(namespace),
            };
            text.field(
                &format!("db{database}"),
                format!("keys={keys},expires={expires},avg_ttl={ttl_ms}"),
            );
        }
    }
}

/// Where the data lies, and what moved between the tiers.
pub(crate) fn tiers(text: &mut Lines, server: &Server) {
    let store = server.store.stats();
    text.field("segment_bytes", store.segment_bytes);
    text.field("segment_budget", store.segment_budget);
    for (tier, segments) in [
        ("hot", store.mutable_segments),
        ("warm", store.warm_segments),
        ("cold", store.cold_segments),
    ] {
        text.field(&format!("{tier}_segments"), segments);
        text.field(&format!("{tier}_bytes"), segments * store.segment_bytes);
    }
    text.field("index_slots", store.index_slots);
    text.field("index_bytes", store.index_bytes);
    text.field("appended_bytes", store.appended_bytes);
    text.field("written_bytes", store.written_bytes);
    text.field("flush_errors", store.flush_errors);
    text.field("expiry_errors", store.expiry_errors);
    text.field("cold_reads", store.cold_reads);
    text.field("damaged_reads", store.damaged_reads);
    device_reads(text, server);
    text.field("warm_copied_bytes", store.warm_copied_bytes);
    text.field("promotions", store.promotions);
    text.field("second_chances", store.second_chances);
    text.field("shadows", store.shadows);
    let space = server.store.space();
    text.field("disk_bytes", space.disk_bytes);
    text.field("live_bytes", space.live_bytes);
    text.field("dead_bytes", space.dead_bytes);
    text.field("gone_bytes", space.gone_bytes);
    text.field("compaction_read_bytes", store.compaction_read_bytes);
    text.field("compaction_moved_bytes", store.compaction_moved_bytes);
    text.field(
        "compaction_reclaimed_bytes",
        store.compaction_reclaimed_bytes,
    );
    text.field("compaction_errors", store.compaction_errors);
    let amplification = store.written_bytes as f64 / store.appended_bytes.max(1) as f64;
    text.field("write_amplification", format!("{amplification:.2}"));
}

/// What the workers' rings and the blocking readers have asked of the device.
fn device_reads(text: &mut Lines, server: &Server) {
    let blocking = server.store.blocking_io_stats();
    let readers = || server.io_stats.iter().map(AsRef::as_ref).chain([blocking]);
    let sum = |counter: fn(&IoStats) -> &AtomicU64| -> u64 {
        readers().map(|stats| counter(stats).load(Relaxed)).sum()
    };
    let (submissions, reads) = (sum(|stats| &stats.submissions), sum(|stats| &stats.reads));
    text.field("device_submissions", submissions);
    text.field("device_reads", reads);
    let errors = sum(|stats| &stats.errors);
    let reads_per_submission = (reads + errors) as f64 / submissions.max(1) as f64;
    text.field(
        "device_reads_per_submission",
        format!("{reads_per_submission:.2}"),
    );
    text.field("device_read_bytes", sum(|stats| &stats.bytes));
    text.field("device_read_errors", errors);
    text.field("device_buffered_reads", sum(|stats| &stats.buffered_reads));
    text.field(
        "device_registered_reads",
        sum(|stats| &stats.registered_reads),
    );
}
