//! The section Persistence of INFO. A checkpoint that SAVE, BGSAVE or a rule asked for is Redis's RDB file, any other
//! one, whoever asked for it, a rewrite of its append-only file.

use std::time::{Duration, Instant};

use hybridlog::{CheckpointStatus, Health, RecoveryStats};

use crate::commands::info_sections::Lines;
use crate::persistence::{self, Snapshots};
use crate::server::{Server, unix_ms};

pub(crate) fn persistence(text: &mut Lines, server: &Server) {
    let is_loading = server.persistence.is_loading();
    let checkpoints = server.store.checkpoint_status();
    let snapshots = server.persistence.snapshots();
    text.field("loading", u8::from(is_loading));
    text.zeros(&[
        "async_loading",
        "current_cow_peak",
        "current_cow_size",
        "current_cow_size_age",
    ]);
    text.field("current_fork_perc", "0.00");
    text.zeros(&["current_save_keys_processed", "current_save_keys_total"]);
    let unsaved = persistence::unsaved_changes(server);
    text.field("rdb_changes_since_last_save", unsaved);
    let last_saved_ms = persistence::last_saved_ms(server);
    snapshot_fields(text, &snapshots, last_saved_ms);
    let recovery = server.store.recovery_stats();
    text.field("rdb_last_load_keys_expired", 0);
    text.field("rdb_last_load_keys_loaded", recovery.records);
    let is_logged = server.config.settings().appendonly;
    text.field("aof_enabled", u8::from(is_logged));
    rewrite_fields(text, &checkpoints, &snapshots);
    let is_writable = matches!(server.store.log_health(), Health::Ok);
    text.field("aof_last_write_status", status(is_writable));
    text.zeros(&[
        "aof_last_cow_size",
        "module_fork_in_progress",
        "module_fork_last_cow_size",
    ]);
    if is_logged {
        log_fields(text, server);
    }
    if is_loading {
        loading_fields(text, &recovery, server.persistence.loading_since_ms);
    }
    checkpoint_fields(text, &checkpoints);
}

fn snapshot_fields(text: &mut Lines, snapshots: &Snapshots, last_saved_ms: u64) {
    let is_running = snapshots.running_since.is_some();
    text.field("rdb_bgsave_in_progress", u8::from(is_running));
    text.field("rdb_last_save_time", last_saved_ms / 1000);
    text.field("rdb_last_bgsave_status", status(!snapshots.has_failed));
    text.field("rdb_last_bgsave_time_sec", seconds(snapshots.last_took));
    let running_for = snapshots.running_since.map(|since| since.elapsed());
    text.field("rdb_current_bgsave_time_sec", seconds(running_for));
    text.field("rdb_saves", snapshots.made);
    text.field("rdb_last_cow_size", 0);
}

fn rewrite_fields(text: &mut Lines, checkpoints: &CheckpointStatus, snapshots: &Snapshots) {
    let running_since = checkpoints
        .running_since
        .filter(|_| snapshots.running_since.is_none());
    text.field("aof_rewrite_in_progress", u8::from(running_since.is_some()));
    text.field(
        "aof_rewrite_scheduled",
        u8::from(snapshots.rewrite_is_scheduled),
    );
    let took = checkpoints.last.map(|made| made.took);
    text.field("aof_last_rewrite_time_sec", seconds(took));
    let running_for = running_since.map(|since: Instant| since.elapsed());
    text.field("aof_current_rewrite_time_sec", seconds(running_for));
    text.field(
        "aof_last_bgrewrite_status",
        status(checkpoints.error.is_none()),
    );
    text.field(
        "aof_rewrites",
        checkpoints.made.saturating_sub(snapshots.made),
    );
    text.field(
        "aof_rewrites_consecutive_failures",
        u8::from(checkpoints.error.is_some()),
    );
}

fn log_fields(text: &mut Lines, server: &Server) {
    let log = server.store.log_stats();
    text.field("aof_current_size", log.file_bytes);
    // Everything in the log came after the last checkpoint.
    text.field("aof_base_size", 0);
    text.field("aof_pending_rewrite", 0);
    text.field("aof_buffer_length", log.pending_bytes);
    text.zeros(&["aof_pending_bio_fsync", "aof_delayed_fsync"]);
    text.field("aof_written_bytes", log.written_bytes);
    text.field("aof_fsyncs", log.syncs);
    text.field("aof_last_fsync_usec", log.last_sync.as_micros());
}

fn loading_fields(text: &mut Lines, recovery: &RecoveryStats, since_ms: u64) {
    // Segments are of one size, and what they are loaded from is a small part of it: each counts as much as a change.
    let total = recovery.log_bytes + recovery.segments;
    let loaded = recovery.log_bytes_read + recovery.segments_read;
    let share = loaded as f64 / total.max(1) as f64;
    let elapsed_ms = unix_ms().saturating_sub(since_ms);
    text.field("loading_start_time", since_ms / 1000);
    text.field("loading_total_bytes", total);
    text.field("loading_rdb_used_mem", 0);
    text.field("loading_loaded_bytes", loaded);
    text.field("loading_loaded_perc", format!("{:.2}", share * 100.0));
    let left_seconds = elapsed_ms as f64 / 1000.0 * (1.0 - share) / share.max(0.001);
    text.field("loading_eta_seconds", left_seconds.ceil() as u64);
}

/// Our own.
fn checkpoint_fields(text: &mut Lines, checkpoints: &CheckpointStatus) {
    let Some(last) = checkpoints.last else { return };
    text.field("last_checkpoint_generation", last.generation);
    text.field("last_checkpoint_msec", last.took.as_millis());
    text.field("last_checkpoint_change_usec", last.change.as_micros());
}

fn status(is_right: bool) -> &'static str {
    if is_right { "ok" } else { "err" }
}

/// Whole seconds; -1 for none, as in Redis.
fn seconds(time: Option<Duration>) -> i64 {
    time.map_or(-1, |time| time.as_secs() as i64)
}
