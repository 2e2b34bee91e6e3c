//! From the arguments of a command to its reply: one run of its handler ([`run`]), once it has been
//! [admitted](crate::admission); what is recorded when it has ended is [elsewhere](crate::finished).
//!
//! A run never waits. What it would have to wait for is returned as a [`Wait`], with nothing changed and nothing
//! written; the connection waits and runs the command again.

use std::sync::Arc;

use hybridlog::{ColdReads, KeyRef, LatchMode, Namespace, Operation};
use smallvec::SmallVec;

use crate::args::Args;
use crate::blocking::{self, Serving};
use crate::client::{Client, HalfDone, client_flags};
use crate::command::{Done, Flags, Handler, Keys, Stop};
use crate::ctx::{Ctx, Progress};
use crate::exec;
use crate::finished::RecordSettings;
use crate::output::{Mark, Output};
use crate::server::Server;
use crate::sys::error_text;
use crate::table::Command;
use crate::worker::Worker;

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
            cx.client.note_lookups(call, lookups);
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
        let mode = if row.flags.has(Flags::WRITE) || row.flags.has(Flags::NOTES) {
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
        Stop::Latched => return Err(Wait::Latch),
        Stop::Turn => return Err(Wait::Turn),
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
