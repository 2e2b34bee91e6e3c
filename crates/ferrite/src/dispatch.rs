//! From the arguments of a command to its reply: may this client run it now ([`admit`]), one run of its handler
//! ([`run`]), and what is recorded when it has ended ([`Finished`]).
//!
//! A run never waits. What it would have to wait for is returned as a [`Wait`], with nothing changed and nothing
//! written; the connection waits and runs the command again.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hybridlog::{ColdReads, KeyRef, LatchMode, Namespace, Operation};
use smallvec::SmallVec;

use crate::args::Args;
use crate::blocking::{self, Serving};
use crate::client::{Client, HalfDone, client_flags};
use crate::command::{Done, Flags, Handler, Keys, Stop};
use crate::config::Settings;
use crate::ctx::{Ctx, Progress};
use crate::exec;
use crate::latency::Sample;
use crate::output::{Mark, Output};
use crate::pause::Paused;
use crate::server::{Server, unix_ms};
use crate::slowlog::{CommandLog, LogEntry, kept_args};
use crate::stats::WorkerStats;
use crate::sys::error_text;
use crate::table::{Command, CommandId, Lookup};
use crate::worker::Worker;

/// The longest part of an unknown command, and of its arguments, that is sent back, in bytes.
const QUOTED_MAX_BYTES: usize = 128;

pub(crate) const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

const DEBUG_NOT_ALLOWED: &[u8] = b"ERR DEBUG command not allowed. If the enable-debug-command \
    option is set to \"local\", you can run it from a local connection, otherwise you need to set this \
    option in the configuration file, and then restart the server.";

const LOADING: &[u8] = b"LOADING Redis is loading the dataset in memory";

/// What must happen before a command can be run (again).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// The cold records noted in the batch's reads must be fetched.
    ColdReads,
    /// The log must have room for this many bytes more.
    Room(u64),
    /// The command needs so many bytes of heap, which it may not take now.
    Memory(u64),
    /// Another operation holds a latch of its keys.
    Latch,
    /// CLIENT PAUSE is in force.
    Pause,
    /// Nothing: the command belongs on a slow-lane thread.
    SlowLane,
    /// Nothing: it has run long enough at a stretch.
    Turn,
}

/// Why a command is refused before it runs.
pub(crate) struct Refusal<'t> {
    /// The command, if it exists.
    pub(crate) command: Option<&'t Command>,
    pub(crate) error: Cow<'static, [u8]>,
}

/// Checks that this client may call the command this way; in Redis's order. `command` is what the command table has
/// under the name in `args`.
#[inline]
pub(crate) fn admit<'t>(
    server: &'t Server,
    client: &Client,
    args: Args<'_>,
    command: Option<CommandId>,
) -> Result<&'t Command, Refusal<'t>> {
    let Some(command) = command.map(|id| server.commands.get(id)) else {
        let is_container = matches!(server.commands.lookup(args), Lookup::NoSubcommand);
        let error = if is_container {
            unknown_subcommand(args)
        } else {
            unknown_command(args)
        };
        return Err(Refusal {
            command: None,
            error: error.into(),
        });
    };
    if !command.row.takes(args.len()) {
        let name = &command.full_name;
        let error = format!("ERR wrong number of arguments for '{name}' command").into_bytes();
        return Err(Refusal {
            command: Some(command),
            error: error.into(),
        });
    }
    if command.row.flags.has(Flags::PROTECTED) && !debug_allowed(server, client) {
        return Err(Refusal {
            command: Some(command),
            error: DEBUG_NOT_ALLOWED.into(),
        });
    }
    if !client.authenticated && !command.row.flags.has(Flags::NO_AUTH) {
        let error = b"NOAUTH Authentication required.".as_slice();
        return Err(Refusal {
            command: Some(command),
            error: error.into(),
        });
    }
    if client.transaction.is_some()
        && let Some(error) = refused_in_transaction(server, command)
    {
        return Err(Refusal {
            command: Some(command),
            error: error.into(),
        });
    }
    if (server.store.is_out_of_memory() || server.store.is_disk_full())
        && takes_memory(client, command)
    {
        return Err(Refusal {
            command: Some(command),
            error: OUT_OF_MEMORY.as_bytes().into(),
        });
    }
    if let Some(error) = refused_for_want_of_disk(server, client, command) {
        return Err(Refusal {
            command: Some(command),
            error: error.into(),
        });
    }
    if server.persistence.is_loading() && !may_run_while_loading(command) {
        return Err(Refusal {
            command: Some(command),
            error: LOADING.into(),
        });
    }
    Ok(command)
}

/// Whether a command that does not exist is a line of an HTTP request. A web page can make its reader's browser send one
/// here, whose body would be commands; so it is cut off before the body, at a line that such a request cannot do without.
pub(crate) fn is_http(args: Args<'_>) -> bool {
    args.is(0, "post") || args.is(0, "host:")
}

/// Whether the command may need memory, by its flags or those of what is queued for it.
fn takes_memory(client: &Client, command: &Command) -> bool {
    let row = command.row;
    row.flags.has(Flags::DENYOOM)
        || matches!(row.handler, Handler::Exec) && client.has_queued(Flags::DENYOOM)
}

/// Why nothing can be changed now, if the command might. As in Redis, PING tells whoever watches the server, too.
fn refused_for_want_of_disk(
    server: &Server,
    client: &Client,
    command: &Command,
) -> Option<Vec<u8>> {
    let row = command.row;
    let changes = row.flags.has(Flags::WRITE)
        || matches!(row.handler, Handler::Exec) && client.has_queued(Flags::WRITE)
        || row.name == "ping";
    let refusal = changes.then(|| server.persistence.refusal());
    refusal.flatten().map(String::into_bytes)
}

/// Whether the command needs no data. What walks all of it would find a part.
fn may_run_while_loading(command: &Command) -> bool {
    let is_walk = matches!(command.row.handler, Handler::Slow(_)) && command.row.name != "shutdown";
    command.row.flags.has(Flags::LOADING) && !is_walk
}

/// Why a command cannot be queued, or executed, between MULTI and EXEC.
fn refused_in_transaction(server: &Server, command: &Command) -> Option<&'static [u8]> {
    if command.row.flags.has(Flags::NO_MULTI) {
        return Some(b"ERR Command not allowed inside a transaction");
    }
    // What is queued takes memory, whatever it does; what ends the transaction gives it back.
    if !command.row.flags.has(Flags::AT_ONCE) && server.store.is_out_of_memory() {
        return Some(OUT_OF_MEMORY.as_bytes());
    }
    None
}

/// Whether `enable-debug-command` lets this client use DEBUG.
fn debug_allowed(server: &Server, client: &Client) -> bool {
    server
        .config
        .settings()
        .debug_command
        .admits(client.entry.origin())
}

fn unknown_command(args: Args<'_>) -> Vec<u8> {
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(quoted(&args[0], QUOTED_MAX_BYTES));
    text.extend_from_slice(b"', with args beginning with: ");
    let quoted_from = text.len();
    for arg in args.from(1) {
        let left = QUOTED_MAX_BYTES.saturating_sub(text.len() - quoted_from);
        if left == 0 {
            break;
        }
        text.push(b'\'');
        text.extend_from_slice(quoted(arg, left));
        text.extend_from_slice(b"' ");
    }
    text
}

fn unknown_subcommand(args: Args<'_>) -> Vec<u8> {
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend_from_slice(quoted(&args[1], QUOTED_MAX_BYTES));
    text.extend_from_slice(b"'. Try ");
    text.extend_from_slice(&args[0].to_ascii_uppercase());
    text.extend_from_slice(b" HELP.");
    text
}

/// The start of `arg` that an error text quotes: at most `max` bytes and, as in Redis, nothing from a NUL byte on.
fn quoted(arg: &[u8], max: usize) -> &[u8] {
    let arg = &arg[..arg.len().min(max)];
    arg.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether CLIENT PAUSE holds this command back.
#[inline]
pub(crate) fn is_paused(server: &Server, client: &Client, command: &Command) -> bool {
    match server.pause.now() {
        Paused::Nothing => false,
        Paused::Writes => {
            command.row.flags.has(Flags::WRITE)
                || matches!(command.row.handler, Handler::Exec) && client.has_queued(Flags::WRITE)
        }
        Paused::All => true,
    }
}

/// A command that has met cold records so often keeps its latches while they are fetched: only who wants the same keys
/// waits, and as nothing can change under it any more, it ends.
const COLD_RUNS_BEFORE_KEEPING_LATCHES: u32 = 2;

/// A command that is called.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) command: &'a Command,
    pub(crate) args: Args<'a>,
}

/// What a command runs in.
#[derive(Clone, Copy)]
pub(crate) struct Runner<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) server: &'a Arc<Server>,
    pub(crate) records: &'a RecordSettings,
    /// The cold records that have been fetched.
    pub(crate) reads: &'a ColdReads,
    /// The time that decides about expiry, Unix milliseconds.
    pub(crate) now_ms: u64,
}

/// Runs the handler once. Ends with the reply in `output`, or with what to wait for.
#[inline]
pub(crate) fn run(
    runner: &Runner<'_>,
    call: Call<'_>,
    client: &mut Client,
    output: &mut Output,
) -> Result<Ended, Wait> {
    let Runner {
        worker,
        server,
        reads,
        now_ms,
        ..
    } = *runner;
    let handler = match call.command.row.handler {
        Handler::Worker(handler) => handler,
        Handler::Slow(_) => return Err(Wait::SlowLane),
        Handler::Exec => return exec::run(runner, client, output),
        // Too few arguments for a subcommand; its row's arity says so.
        Handler::Container => return Ok(Ended::Replied),
    };
    let scope = Scope::of(server, call, client.database());
    let mut progress = Progress::default();
    let mut op = match (client.half_done.take(), client.kept_latches.take()) {
        (Some(half_done), _) => {
            progress = half_done.progress;
            server.store.resume_suspended(half_done.suspended, reads)
        }
        (None, Some(kept)) => server.store.resume(kept, reads, now_ms),
        (None, None) => scope
            .latch(server, call, reads, now_ms)
            .ok_or(Wait::Latch)?,
    };
    if client.entry.has_flag(client_flags::NO_TOUCH) {
        op.leave_reads_unnoted();
    }
    if scope != Scope::of(server, call, client.database()) {
        // SWAPDB or FLUSHDB came in between: the latches are those of another database's keys.
        return Err(Wait::Latch);
    }
    let mark = output.mark();
    progress.resume(output);
    let namespace = scope.namespace;
    let mut cx = Ctx {
        op,
        namespace,
        reply: output,
        client,
        server,
        worker,
        progress,
    };
    let (done, served) = match cx.progress.serving.take() {
        Some(serving) => serving.go_on(&mut cx),
        None => {
            let done = handler(&mut cx, call.args);
            let lookups = cx.op.lookups();
            cx.client.note_lookups(call.command, lookups);
            let has_ended = !done.as_ref().is_err_and(Stop::is_wait);
            let may_wake = has_ended && blocking::may_wake(&cx, call.command);
            if may_wake {
                Serving::new(server, call, scope, done).go_on(&mut cx)
            } else {
                (done, None)
            }
        }
    };
    let Ctx {
        op,
        client,
        reply,
        progress,
        ..
    } = cx;
    let waits = done.as_ref().is_err_and(Stop::is_wait);
    if !waits {
        client.seed = None;
    }
    if waits && (op.changes() > 0 || progress.steps() > 0) {
        // Nobody may see the half of it, and the command log gets the whole; and what it has read so far is of one moment.
        client.half_done = Some(HalfDone {
            suspended: op.suspend(),
            progress: progress.suspend(reply, mark),
        });
    } else if let Err(Stop::Engine(hybridlog::Stop::Cold)) = done {
        client.cold_runs += 1;
        if client.cold_runs > COLD_RUNS_BEFORE_KEEPING_LATCHES {
            client.kept_latches = Some(op.keep_latches());
        }
    } else {
        client.cold_runs = 0;
        client.note_changes(op);
        if let Some(served) = served {
            served.deliver(client.written);
        }
    }
    conclude(done, reply, mark)
}

/// The namespaces of the databases that a command works in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    namespace: Namespace,
    /// Of the database that COPY and MOVE name.
    other: Option<Namespace>,
}

impl Scope {
    #[inline]
    pub(crate) fn of(server: &Server, call: Call<'_>, database: usize) -> Scope {
        let other = call.command.row.keys.other_database(call.args);
        let other = other.filter(|other| *other < server.databases.count());
        Scope {
            namespace: server.databases.namespace(database),
            other: other.map(|other| server.databases.namespace(other)),
        }
    }

    /// Starts an operation on the command's keys; `None` if one of them is latched by another.
    #[inline]
    fn latch<'s>(
        &self,
        server: &'s Server,
        call: Call<'_>,
        reads: &'s ColdReads,
        now_ms: u64,
    ) -> Option<Operation<'s>> {
        let row = call.command.row;
        if row.keys == Keys::Everything {
            return server.store.operation_on_everything(reads, now_ms);
        }
        let keys: SmallVec<[KeyRef<'_>; 4]> = self.keys(call).collect();
        server.store.operation(&keys, reads, now_ms)
    }

    /// The keys that the command names, in each of the databases.
    #[inline]
    pub(crate) fn keys<'a>(self, call: Call<'a>) -> impl Iterator<Item = KeyRef<'a>> {
        let row = call.command.row;
        let mode = if row.flags.has(Flags::WRITE) {
            LatchMode::Exclusive
        } else {
            LatchMode::Shared
        };
        let args = call.args;
        let namespaces = std::iter::once(self.namespace).chain(self.other);
        namespaces.flat_map(move |namespace| {
            let key_at = move |position| {
                Some(KeyRef {
                    namespace,
                    key: args.get(position)?,
                    mode,
                })
            };
            row.keys.positions(args).filter_map(key_at)
        })
    }
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Replied,
    /// With an error reply.
    Failed,
    /// It was EXEC and has run its commands, each of which was recorded, and its reply dropped if it was not wanted.
    Executed,
}

/// Makes an error reply of an error, or says what to wait for; what the handler wrote before is dropped then.
pub(crate) fn conclude(done: Done, output: &mut Output, mark: Mark) -> Result<Ended, Wait> {
    let Err(stop) = done else {
        return Ok(Ended::Replied);
    };
    output.rewind(mark);
    match stop {
        Stop::Engine(hybridlog::Stop::Cold) => return Err(Wait::ColdReads),
        Stop::Engine(hybridlog::Stop::NoRoom { bytes }) => return Err(Wait::Room(bytes)),
        Stop::Memory(bytes) => return Err(Wait::Memory(bytes)),
        Stop::Engine(error @ hybridlog::Stop::TooLarge { .. }) => {
            output.error(&format!("ERR {error}"));
        }
        Stop::Engine(hybridlog::Stop::Io(error)) => {
            output.error(&format!("IOERR {}", error_text(&error)));
        }
        Stop::Reply(text) => output.error(&text),
    }
    Ok(Ended::Failed)
}

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

/// The error of an EXEC that is refused for the reason that `error` gives.
pub(crate) fn aborted(error: &[u8]) -> Vec<u8> {
    let reason = error.strip_prefix(b"ERR ").unwrap_or(error);
    [
        b"EXECABORT Transaction discarded because of: ".as_slice(),
        reason,
    ]
    .concat()
}

/// Writes the error reply of a refused command and counts it.
pub(crate) fn refuse(
    refusal: &Refusal<'_>,
    stats: &WorkerStats,
    client: &mut Client,
    output: &mut Output,
) {
    if let Some(command) = refusal.command {
        stats.command(command.id).reject();
    }
    let is_exec = refusal
        .command
        .is_some_and(|command| matches!(command.row.handler, Handler::Exec));
    let error = if is_exec {
        client.end_transaction();
        Cow::Owned(aborted(&refusal.error))
    } else {
        client.break_transaction();
        Cow::Borrowed(&*refusal.error)
    };
    stats.count_error(&error);
    let reply_start = output.mark();
    output.error_bytes(&error);
    if !client.wants_reply() {
        output.rewind(reply_start);
    }
    client.entry.last_command.store(u16::MAX, Relaxed);
}
