//! EXEC: the commands of a transaction as one operation of the engine.
//!
//! The latches of all keys that any of the commands names are taken together and held to the end, so nobody sees a part of
//! it, and its frame in the command log is one. What it will need is foreseen: room for what it writes is waited for, and
//! its cold records are fetched, before anything is latched. What could not be foreseen (a record longer than its slot tells,
//! one that went cold meanwhile, pages of a large value) suspends the operation between two commands: a handler that stops has
//! changed nothing, so it runs again once it can.
//!
//! Once a command has run, an EXEC goes on to its end whatever becomes of its client.

use std::time::{Duration, Instant};

use hybridlog::{KeyRef, LatchMode, Latching, Operation, Suspended};

use crate::blocking::{self, Ready};
use crate::client::{After, Client, client_flags};
use crate::command::{Flags, Handler, Keys, Stop};
use crate::ctx::{Ctx, Progress};
use crate::dispatch::{Call, Ended, Runner, Scope, Wait, conclude};
use crate::finished::{Finished, RecordSettings};
use crate::output::{Mark, Output};
use crate::server::Server;
use crate::transaction::Transaction;
use crate::worker::Worker;

/// After so many commands other connections of the worker have their turn, and the epoch can go on.
const COMMANDS_PER_TURN: usize = 1024;

/// An EXEC on its way.
pub(crate) struct Exec {
    transaction: Box<Transaction>,
    stage: Stage,
    /// The command that runs next.
    next: usize,
    /// What the commands so far want to happen in the end.
    after: After,
    /// There will be no more room: the command that runs next may use the last of it.
    insists_on_room: bool,
    /// How far the command that runs next has come.
    progress: Progress,
    /// Keys that clients wait for, to be served in the end.
    ready: Ready,
    /// Where the reply starts in the output. Nothing is sent before the end.
    pub(crate) reply_start: Mark,
}

/// How one of its commands ended.
pub(crate) struct Outcome {
    pub(crate) ended: Ended,
    pub(crate) elapsed: Duration,
    /// Where its reply starts in the output.
    pub(crate) reply_start: Mark,
}

enum Stage {
    /// Nothing is latched. Its cold records are being fetched, or have been.
    Foreseeing { is_prefetched: bool },
    Latching {
        latching: Latching,
        /// [`Databases::version`](crate::server::Databases::version) that the keys were hashed by.
        databases_version: u64,
    },
    /// Half done.
    Suspended(Suspended),
}

/// Runs EXEC, or goes on with it, as far as it gets.
pub(crate) fn run(
    runner: &Runner<'_>,
    client: &mut Client,
    output: &mut Output,
) -> Result<Ended, Wait> {
    let mut exec = match client.exec.take() {
        Some(exec) => exec,
        None => match begin(runner, client, output) {
            Ok(exec) => Box::new(exec),
            Err(ended) => return Ok(ended),
        },
    };
    let result = exec.go_on(runner, client, output);
    if result.is_err() {
        client.exec = Some(exec);
    } else {
        client.end_transaction();
    }
    result
}

fn begin(runner: &Runner<'_>, client: &mut Client, output: &mut Output) -> Result<Exec, Ended> {
    let Some(transaction) = client.transaction.take() else {
        output.error("ERR EXEC without MULTI");
        return Err(Ended::Failed);
    };
    if transaction.is_broken {
        client.end_transaction();
        output.error("EXECABORT Transaction discarded because of previous errors.");
        return Err(Ended::Failed);
    }
    if client.has_lost_watch(runner.now_ms) {
        client.end_transaction();
        output.null_array();
        return Err(Ended::Replied);
    }
    Ok(Exec {
        transaction,
        stage: Stage::Foreseeing {
            is_prefetched: false,
        },
        next: 0,
        after: After::Continue,
        insists_on_room: false,
        progress: Progress::default(),
        ready: Ready::default(),
        reply_start: output.mark(),
    })
}

impl Exec {
    /// Whether it has begun to run commands, so that it must go on to its end.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self.stage, Stage::Suspended(_))
    }

    /// How many steps of the command that is due are done.
    pub(crate) fn steps_done(&self) -> usize {
        self.progress.steps()
    }

    /// Whether all its commands have run, and only those are left who wait for what they have stored. There will be no room for
    /// them: they have to look for themselves.
    pub(crate) fn give_up_serving(&mut self) -> bool {
        let serves = self.is_suspended() && self.next == self.transaction.len();
        if serves {
            self.ready.give_up();
        }
        serves
    }

    /// There will be no room for the command that is due. Whether it is worth trying it once more, with the last there is.
    pub(crate) fn may_insist_on_room(&mut self) -> bool {
        !std::mem::replace(&mut self.insists_on_room, true)
    }

    /// The operation, for a command that is run elsewhere; to be put back.
    pub(crate) fn take_suspended(&mut self) -> Option<Suspended> {
        let stage = Stage::Foreseeing {
            is_prefetched: true,
        };
        match std::mem::replace(&mut self.stage, stage) {
            Stage::Suspended(suspended) => Some(suspended),
            other => {
                self.stage = other;
                None
            }
        }
    }

    pub(crate) fn put_back(&mut self, suspended: Suspended) {
        self.stage = Stage::Suspended(suspended);
    }

    /// The command that runs next.
    pub(crate) fn due<'e>(&'e self, server: &'e Server) -> Call<'e> {
        self.transaction.call(server, self.next)
    }

    /// The command that was due has ended, with its reply from `reply_start` of the output on.
    pub(crate) fn end_due(
        &mut self,
        worker: &Worker,
        client: &mut Client,
        output: &mut Output,
        records: &RecordSettings,
        outcome: Outcome,
    ) {
        let Outcome {
            ended,
            elapsed,
            reply_start,
        } = outcome;
        let Call { command, args } = self.due(&worker.server);
        let finished = Finished {
            command,
            args,
            ended,
            elapsed,
            reply_start,
        };
        finished.record(worker, client, output, records);
        // As in Redis, each reply is sent or not as CLIENT REPLY says at that moment.
        if !client.reply_mode.sends() || self.after == After::Close {
            output.rewind(reply_start);
        }
        client.note_no_lookups();
        client.seed = None;
        client.sorting = None;
        self.after = self.after.and(std::mem::take(&mut client.after));
        self.insists_on_room = false;
        self.progress = Progress::default();
        self.next += 1;
    }

    fn go_on(
        &mut self,
        runner: &Runner<'_>,
        client: &mut Client,
        output: &mut Output,
    ) -> Result<Ended, Wait> {
        let stage = Stage::Foreseeing {
            is_prefetched: true,
        };
        let store = &runner.server.store;
        let started = match std::mem::replace(&mut self.stage, stage) {
            Stage::Suspended(suspended) => Some(store.resume_suspended(suspended, runner.reads)),
            Stage::Foreseeing { is_prefetched } => {
                self.foresee(runner, client, is_prefetched)?;
                let databases_version = runner.server.databases.version();
                let latching = self.latching(runner, client);
                self.start(runner, client, output, latching, databases_version)?
            }
            Stage::Latching {
                latching,
                databases_version,
            } => self.start(runner, client, output, latching, databases_version)?,
        };
        match started {
            Some(op) => self.run_commands(runner, op, client, output),
            None => Ok(Ended::Replied),
        }
    }

    /// Makes sure of the room and the cold records that will be needed, as far as that can be told.
    fn foresee(
        &mut self,
        runner: &Runner<'_>,
        client: &Client,
        is_prefetched: bool,
    ) -> Result<(), Wait> {
        self.stage = Stage::Foreseeing { is_prefetched };
        let store = &runner.server.store;
        let bytes = self.transaction.written_bytes();
        if bytes > 0 && !store.has_room(bytes) {
            return Err(Wait::Room(bytes));
        }
        if !is_prefetched {
            self.stage = Stage::Foreseeing {
                is_prefetched: true,
            };
            self.prefetch(runner, client);
            if runner.reads.is_wanting() {
                return Err(Wait::ColdReads);
            }
        }
        Ok(())
    }

    /// Loads what the commands will read, and notes the cold records among it as wanted. What is overwritten unread is
    /// worth having in the caches, but not worth reading from the device.
    fn prefetch(&self, runner: &Runner<'_>, client: &Client) {
        for (is_blind, cold_bytes) in [(false, runner.worker.prefetch_cold_bytes()), (true, 0)] {
            let calls = self
                .transaction
                .calls(runner.server, client.database())
                .filter(|(call, _)| call.command.row.flags.has(Flags::BLIND) == is_blind);
            let keys = calls.flat_map(|(call, database)| keys_of(runner, call, database));
            let keys = keys.map(|key| (key.namespace, key.key));
            runner.server.store.prefetch(keys, runner.reads, cold_bytes);
        }
    }

    /// The latches of all keys of all commands.
    fn latching(&self, runner: &Runner<'_>, client: &Client) -> Latching {
        let store = &runner.server.store;
        let calls = self.transaction.calls(runner.server, client.database());
        let everything = calls
            .clone()
            .filter_map(|(call, _)| latches_everything(call));
        let everything = everything.max();
        let keys = calls.flat_map(|(call, database)| keys_of(runner, call, database));
        let latching = match everything {
            Some(mode) => store.latching_everything(mode, keys),
            None => store.latching(keys),
        };
        match client.entry.watch.get() {
            Some(watch) => latching.and_watched(watch),
            None => latching,
        }
    }

    /// Starts the operation, and the reply; no operation if something that is watched has changed.
    fn start<'s>(
        &mut self,
        runner: &Runner<'s>,
        client: &mut Client,
        output: &mut Output,
        latching: Latching,
        databases_version: u64,
    ) -> Result<Option<Operation<'s>>, Wait> {
        let server = runner.server;
        let started = server.store.start(latching, runner.reads, runner.now_ms);
        let op = started.map_err(|latching| {
            self.stage = Stage::Latching {
                latching,
                databases_version,
            };
            Wait::Latch
        })?;
        if databases_version != server.databases.version() {
            // SWAPDB or FLUSHDB came in between: the latches are those of another database's keys.
            return Err(Wait::Latch);
        }
        // What is watched is latched: it does not change between here and the end.
        if client.has_lost_watch(op.now_ms()) {
            output.null_array();
            return Ok(None);
        }
        client.unwatch();
        output.array(self.transaction.len());
        if !client.reply_mode.sends() {
            output.rewind(self.reply_start);
        }
        Ok(Some(op))
    }

    fn run_commands(
        &mut self,
        runner: &Runner<'_>,
        mut op: Operation<'_>,
        client: &mut Client,
        output: &mut Output,
    ) -> Result<Ended, Wait> {
        if client.entry.has_flag(client_flags::NO_TOUCH) {
            op.leave_reads_unnoted();
        }
        let mut cx = Ctx {
            op,
            namespace: runner.server.databases.namespace(client.database()),
            reply: output,
            client,
            server: runner.server,
            worker: runner.worker,
            progress: Progress::default(),
        };
        let mut clock = Instant::now();
        let turn_end = self.next + COMMANDS_PER_TURN;
        cx.client.may_wait = false;
        while self.next < self.transaction.len() {
            cx.progress = std::mem::take(&mut self.progress);
            let ran = if self.next < turn_end {
                self.run_next(runner, &mut cx, &mut clock)
            } else {
                Err(Wait::Turn)
            };
            if let Err(wait) = ran {
                self.progress = std::mem::take(&mut cx.progress);
                self.stage = Stage::Suspended(cx.op.suspend());
                return Err(wait);
            }
        }
        if self.ready.is_any()
            && let Err(stop) = blocking::serve(&mut cx, &mut self.ready)
        {
            let mark = cx.reply.mark();
            self.stage = Stage::Suspended(cx.op.suspend());
            return conclude(Err(stop), cx.reply, mark);
        }
        let Ctx { op, client, .. } = cx;
        client.may_wait = true;
        client.after = self.after;
        client.note_changes(op);
        std::mem::take(&mut self.ready).deliver(client.written);
        Ok(Ended::Executed)
    }

    fn run_next(
        &mut self,
        runner: &Runner<'_>,
        cx: &mut Ctx<'_>,
        clock: &mut Instant,
    ) -> Result<(), Wait> {
        let call = self.transaction.call(runner.server, self.next);
        let handler = match call.command.row.handler {
            Handler::Worker(handler) => handler,
            Handler::Slow(_) => return Err(Wait::SlowLane),
            Handler::Exec | Handler::Container => {
                unreachable!("EXEC is not queued, and a container's arity asks for a subcommand")
            }
        };
        cx.namespace = runner.server.databases.namespace(cx.client.database());
        cx.op.begin_step();
        if self.insists_on_room {
            cx.op.insist_on_room();
        }
        let reply_start = cx.reply.mark();
        let changes_before = cx.op.changes();
        cx.progress.resume(cx.reply);
        let done = handler(cx, call.args);
        cx.client.allowance.end();
        let progress = std::mem::take(&mut cx.progress);
        let has_begun =
            progress.has_begun || progress.steps() > 0 || cx.op.changes() > changes_before;
        if has_begun && done.as_ref().is_err_and(Stop::is_wait) {
            cx.progress = progress.suspend(cx.reply, reply_start);
        }
        let ended = conclude(done, cx.reply, reply_start)?;
        if blocking::may_wake(cx, call.command) {
            let scope = Scope::of(runner.server, call, cx.client.database());
            self.ready.note(runner.server, call, scope);
        }
        let lookups = cx.op.lookups();
        cx.client.note_lookups(call, lookups);
        let started = std::mem::replace(clock, Instant::now());
        let outcome = Outcome {
            ended,
            elapsed: clock.duration_since(started),
            reply_start,
        };
        self.end_due(runner.worker, cx.client, cx.reply, runner.records, outcome);
        Ok(())
    }
}

/// The keys that a command names.
fn keys_of<'a>(
    runner: &Runner<'_>,
    call: Call<'a>,
    database: usize,
) -> impl Iterator<Item = KeyRef<'a>> {
    Scope::of(runner.server, call, database).keys(call)
}

/// How everything is to be latched for a command that looks at, or changes, keys that it does not name.
fn latches_everything(call: Call<'_>) -> Option<LatchMode> {
    let row = call.command.row;
    if row.keys == Keys::Everything || matches!(row.handler, Handler::Slow(_)) {
        Some(LatchMode::Exclusive)
    } else if row.flags.has(Flags::KEYSPACE) {
        Some(LatchMode::Shared)
    } else {
        None
    }
}
