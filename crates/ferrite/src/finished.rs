//! A command that has ended, for the records: statistics, slow log, latency events.

use std::time::Duration;

use crate::args::Args;
use crate::client::Client;
use crate::command::Flags;
use crate::config::Settings;
use crate::dispatch::Ended;
use crate::latency::Sample;
use crate::output::{Mark, Output};
use crate::server::{Server, unix_ms};
use crate::slowlog::{CommandLog, LogEntry, kept_args};
use crate::table::Command;
use crate::worker::Worker;

/// The settings that say what is recorded.
#[derive(Clone, Copy)]
pub(crate) struct RecordSettings {
    slow: Option<Duration>,
    slow_entries: usize,
    /// Bytes.
    large_request: Option<u64>,
    large_request_entries: usize,
    /// Bytes.
    large_reply: Option<u64>,
    large_reply_entries: usize,
    latency_event: Option<Duration>,
    latency_tracking: bool,
}

impl RecordSettings {
    pub(crate) fn new(settings: &Settings) -> Self {
        RecordSettings {
            slow: settings.slowlog_log_slower_than,
            slow_entries: settings.slowlog_max_len,
            large_request: settings.commandlog_request_larger_than,
            large_request_entries: settings.commandlog_large_request_max_len,
            large_reply: settings.commandlog_reply_larger_than,
            large_reply_entries: settings.commandlog_large_reply_max_len,
            latency_event: settings.latency_monitor_threshold,
            latency_tracking: settings.latency_tracking,
        }
    }
}

/// A command that has ended, for the records.
pub(crate) struct Finished<'a> {
    pub(crate) command: &'a Command,
    pub(crate) args: Args<'a>,
    pub(crate) ended: Ended,
    pub(crate) elapsed: Duration,
    /// Where its reply starts in the output.
    pub(crate) reply_start: Mark,
}

impl Finished<'_> {
    /// Counts the command and, if it was remarkable, logs it.
    #[inline]
    pub(crate) fn record(
        &self,
        worker: &Worker,
        client: &Client,
        output: &Output,
        settings: &RecordSettings,
    ) {
        let (server, stats) = (&worker.server, worker.stats());
        stats.commands.add(1);
        let command = stats.command(self.command.id);
        let elapsed = self.elapsed + client.after.pause();
        command.record(elapsed, settings.latency_tracking);
        if self.ended == Ended::Failed {
            command.fail();
            stats.count_error(output.error_text_since(self.reply_start));
        }
        if client.changes != 0 {
            stats.changes.add(client.changes);
        }
        if client.keyspace_hits | client.keyspace_misses != 0 {
            stats.keyspace_hits.add(u64::from(client.keyspace_hits));
            stats.keyspace_misses.add(u64::from(client.keyspace_misses));
        }
        if settings.slow.is_some_and(|threshold| elapsed >= threshold) {
            let micros = elapsed.as_micros() as u64;
            self.log(client, micros, &server.slowlog, settings.slow_entries);
        }
        let request_bytes = self.args.total_bytes() as u64;
        if settings
            .large_request
            .is_some_and(|threshold| request_bytes >= threshold)
        {
            let entries = settings.large_request_entries;
            self.log(client, request_bytes, &server.large_requests, entries);
        }
        let reply_bytes = output.bytes_since(self.reply_start) as u64;
        if settings
            .large_reply
            .is_some_and(|threshold| reply_bytes >= threshold)
        {
            let entries = settings.large_reply_entries;
            self.log(client, reply_bytes, &server.large_replies, entries);
        }
        if settings
            .latency_event
            .is_some_and(|threshold| elapsed >= threshold)
        {
            self.note_latency(server, elapsed);
        }
    }

    /// The reply is complete: drops it if CLIENT REPLY says so.
    #[inline]
    pub(crate) fn end_reply(&self, client: &mut Client, output: &mut Output) {
        if !client.wants_reply() && self.ended != Ended::Executed {
            output.rewind(self.reply_start);
        }
    }

    /// Enters the command into one of the logs; `amount` is what makes it remarkable.
    #[cold]
    fn log(&self, client: &Client, amount: u64, log: &CommandLog, entries_max: usize) {
        if self.command.row.flags.has(Flags::SKIP_SLOWLOG) {
            return;
        }
        let entry = LogEntry {
            id: 0,
            unix_seconds: unix_ms() / 1000,
            amount,
            args: kept_args(&self.command.full_name, self.args),
            client_addr: client.entry.addr.clone(),
            client_name: client.entry.details.lock().name.clone(),
        };
        log.push(entry, entries_max);
    }

    #[cold]
    fn note_latency(&self, server: &Server, elapsed: Duration) {
        let event = if self.command.row.flags.has(Flags::FAST) {
            "fast-command"
        } else {
            "command"
        };
        let sample = Sample {
            unix_seconds: unix_ms() / 1000,
            latency_ms: elapsed.as_millis() as u64,
        };
        server.latency.add(event, sample);
    }
}
