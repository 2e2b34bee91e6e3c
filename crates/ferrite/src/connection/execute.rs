//! Running the commands of a slice, in order: first what they will read is prefetched, with cold records, up to a bound of
//! bytes for each worker, in one submission, then each is run; one that has to wait holds up those behind it, and no other connection.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hybridlog::{ColdReads, Namespace, NoRoomReason, Suspended};

use super::{Closed, Connection, Socket};
use crate::client::{After, ClientEntry, HalfDone, client_flags};
use crate::command::{Flags, Handler, Row, Stop};
use crate::ctx::SlowCtx;
use crate::dispatch::{self, Call, Ended, Finished, OUT_OF_MEMORY, Runner, Wait};
use crate::exec::{Exec, Outcome};
use crate::memory::{Lease, TooMuch};
use crate::output::{Mark, Output};
use crate::server::unix_ms;
use crate::sys::error_text;
use crate::worker::Worker;

/// Commands run under one pin of the epoch and with one reading of the time.
const PIN_COMMANDS: usize = 64;
/// Cold reads that take no more use the memory that each worker has for them.
const COLD_SMALL_BYTES: u64 = 64 << 10;
/// Fetched records that take more are let go of when the command that wanted them has ended.
const COLD_KEPT_BYTES: u64 = 4 << 20;
/// How often a taken latch is tried again after letting others run, before it is left alone for a moment.
const LATCH_TRIES: usize = 64;
/// For how long something is left alone that nobody tells of.
const PAUSE: Duration = Duration::from_millis(1);

/// Why running commands stopped before the end.
enum Stopped {
    /// The command has to wait.
    Waits(Wait),
    /// The command has ended, and something is to be done before the next.
    Attend,
}

/// What was refused for want of room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The command, which has ended.
    Command,
    /// A part of it, or a command of its transaction; it goes on.
    Part,
}

/// What a command on the slow lane comes back with.
struct Slow {
    /// What it waits for instead, if it has to run again.
    ended: Result<Ended, Wait>,
    reply: Output,
    /// The transaction that it is part of.
    transaction: Option<Suspended>,
}

/// Memory of cold reads that a slice holds, accounted to its worker and its client until the slice ends.
pub(super) struct ColdLease {
    worker: Rc<Worker>,
    client: Arc<ClientEntry>,
    bytes: u64,
}

impl ColdLease {
    fn extend(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.worker.hold_cold_bytes(bytes);
        self.client.fetched_bytes.store(self.bytes, Relaxed);
    }

    /// Before what was fetched is let go of.
    pub(super) fn release(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let memory = &self.worker.server.memory;
        memory.note_freed(self.client.id, bytes);
        self.worker.release_cold_bytes(bytes);
        self.client.fetched_bytes.store(0, Relaxed);
    }
}

impl Drop for ColdLease {
    fn drop(&mut self) {
        self.release();
    }
}

impl<S: Socket> Connection<S> {
    /// Runs the parsed commands in order.
    pub(super) async fn run_slice(&mut self) -> Result<(), Closed> {
        let count = self.input.command_count();
        if count == 0 {
            return Ok(());
        }
        self.stats().reset_if_asked();
        let (worker, id) = (&self.worker, self.client.id());
        self.output.set_buffer(|| worker.take_buffer(id));
        let mut reads = ColdReads::default();
        let mut lease = ColdLease {
            worker: Rc::clone(&self.worker),
            client: Arc::clone(&self.client.entry),
            bytes: 0,
        };
        self.prefetch_slice(&mut reads, &mut lease).await;
        let mut next = 0;
        while next < count {
            let end = (next + PIN_COMMANDS).min(count);
            match self.run_pinned(&mut next, end, &reads) {
                None => {}
                Some(Stopped::Attend) => {
                    self.wait_for_keys(next - 1, &mut reads, &mut lease).await?;
                    self.attend().await?;
                }
                Some(Stopped::Waits(wait)) => {
                    self.run_waiting(next, wait, &mut reads, &mut lease).await?;
                    self.wait_for_keys(next, &mut reads, &mut lease).await?;
                    next += 1;
                    if lease.bytes > COLD_KEPT_BYTES {
                        // So much is not held for what the commands behind might need of it.
                        lease.release();
                        reads.clear();
                    }
                    self.attend().await?;
                }
            }
        }
        self.client.entry.commands.fetch_add(count as u64, Relaxed);
        Ok(())
    }

    /// Loads what the slice will read, and fetches the cold records among it.
    async fn prefetch_slice(&mut self, reads: &mut ColdReads, lease: &mut ColdLease) {
        self.input.resolve(&self.worker.server.commands);
        // A command with one key alone finds out by itself what it needs.
        if self.input.command_count() == 1 {
            return;
        }
        let store = &self.server().store;
        // What is overwritten unread is worth having in the caches, but not worth reading from the device.
        store.prefetch(
            self.keys(|row| !row.flags.has(Flags::BLIND)),
            reads,
            self.worker.prefetch_cold_bytes(),
        );
        store.prefetch(self.keys(|row| row.flags.has(Flags::BLIND)), reads, 0);
        let bytes = reads.wanted_bytes();
        if bytes <= COLD_SMALL_BYTES {
            self.fetch(reads, lease).await;
        } else if let Some(_lease) = self.server().memory.take(self.client.id(), bytes) {
            self.fetch(reads, lease).await;
        } else {
            // Each command finds out by itself what it needs, and waits for that.
            reads.clear();
        }
    }

    async fn fetch(&self, reads: &mut ColdReads, lease: &mut ColdLease) {
        if reads.is_wanting() {
            lease.extend(reads.wanted_bytes());
            reads.fetch(self.worker.reader()).await;
        }
    }

    /// The keys of all commands of the slice whose row is `wanted`.
    fn keys<'a>(
        &'a self,
        wanted: impl Fn(&Row) -> bool + 'a,
    ) -> impl Iterator<Item = (Namespace, &'a [u8])> {
        let server = self.server();
        let namespace = server.databases.namespace(self.client.database());
        let calls = (0..self.input.command_count()).filter_map(move |i| {
            let row = server.commands.get(self.input.command(i)?).row;
            wanted(row).then(|| (row, self.input.args(i)))
        });
        calls.flat_map(move |(row, args)| {
            let positions = row.keys.positions(args);
            positions.filter_map(move |position| Some((namespace, args.get(position)?)))
        })
    }

    /// Runs commands from `next` on, up to `end`, for as long as none waits.
    fn run_pinned(&mut self, next: &mut usize, end: usize, reads: &ColdReads) -> Option<Stopped> {
        let _pin = self.worker.server.store.pin();
        let now_ms = unix_ms();
        self.clock = Instant::now();
        while *next < end {
            if let Some(wait) = self.run_command(*next, reads, now_ms) {
                return Some(Stopped::Waits(wait));
            }
            *next += 1;
            if self.needs_attention() {
                return Some(Stopped::Attend);
            }
        }
        None
    }

    #[inline]
    fn needs_attention(&self) -> bool {
        self.client.after != After::Continue
            || self.output.pending_bytes() >= self.worker.slice_reply_bytes()
            || self.client.entry.is_killed()
    }

    /// Does what the command that has just ended asked for, and keeps the output bounded.
    async fn attend(&mut self) -> Result<(), Closed> {
        match std::mem::take(&mut self.client.after) {
            // Who has waited for keys has been answered.
            After::Continue | After::Block => {}
            After::Close => return Err(Closed::AfterReply),
            After::Abort => return Err(Closed::Killed),
            After::Sleep(duration) => {
                // Its own reply comes after the sleep, those before it at once.
                let reply = self.output.split_off(self.latest_reply);
                self.send().await?;
                self.interruptible(tokio::time::sleep(duration)).await?;
                self.output.append(reply);
            }
            After::Await(awaited) => self.wait_and_answer(awaited).await?,
        }
        if self.output.pending_bytes() >= self.worker.slice_reply_bytes() {
            self.send().await?;
            self.check_output()?;
            self.catch_up().await?;
        }
        if self.client.entry.is_killed() {
            return Err(Closed::Killed);
        }
        Ok(())
    }

    /// Runs command `i` once and records it if it ended; else says what it waits for.
    #[inline]
    pub(super) fn run_command(&mut self, i: usize, reads: &ColdReads, now_ms: u64) -> Option<Wait> {
        let Connection {
            worker,
            client,
            input,
            output,
            bounds,
            clock,
            latest_reply,
            ..
        } = self;
        let server = &worker.server;
        let args = input.args(i);
        client.begin();
        // What is half done goes on, whatever has changed since it began.
        let goes_on = client.half_done.is_some() || client.exec.is_some();
        let command = match input.command(i) {
            Some(id) if goes_on => server.commands.get(id),
            None if dispatch::is_http(args) => {
                server.log_http(&client.entry);
                client.after = After::Abort;
                return None;
            }
            id => match dispatch::admit(server, client, args, id) {
                Ok(command) => command,
                Err(refusal) => {
                    dispatch::refuse(&refusal, worker.stats(), client, output);
                    return None;
                }
            },
        };
        let reply_start = match &client.exec {
            Some(exec) => exec.reply_start,
            None if !goes_on && dispatch::is_paused(server, client, command) => {
                return Some(Wait::Pause);
            }
            None => output.mark(),
        };
        *latest_reply = reply_start;
        client.entry.last_command.store(command.id.0, Relaxed);
        if let Err(Stop::Memory(bytes)) = client.ask_to_queue(args) {
            client.allowance.end();
            return Some(Wait::Memory(bytes));
        }
        if !command.row.flags.has(Flags::AT_ONCE) && client.queue(command, args) {
            client.allowance.end();
            output.simple("QUEUED");
            if !client.wants_reply() {
                output.rewind(reply_start);
            }
            *clock = Instant::now();
            return None;
        }
        if !command.row.flags.has(Flags::FAST) {
            // A fast one is over before anybody could look.
            client
                .entry
                .args_bytes
                .store(args.total_bytes() as u64, Relaxed);
        }
        let runner = Runner {
            worker,
            server,
            records: &bounds.records,
            reads,
            now_ms,
        };
        let ended = dispatch::run(&runner, Call { command, args }, client, output);
        client.allowance.end();
        let ended = match ended {
            Ok(ended) => ended,
            Err(wait) => return Some(wait),
        };
        let started = std::mem::replace(clock, Instant::now());
        let elapsed = clock.duration_since(started);
        let finished = Finished {
            command,
            args,
            ended,
            elapsed,
            reply_start,
        };
        finished.record(worker, client, output, &bounds.records);
        finished.end_reply(client, output);
        None
    }

    /// Waits and runs command `i` again until it has ended.
    pub(super) async fn run_waiting(
        &mut self,
        i: usize,
        first: Wait,
        reads: &mut ColdReads,
        lease: &mut ColdLease,
    ) -> Result<(), Closed> {
        let mut wait = first;
        let mut latch_tries = 0;
        let mut promised = None;
        let mut steps_done = 0;
        loop {
            match wait {
                Wait::ColdReads => {
                    if steps_done != self.client.steps_done() && lease.bytes > COLD_KEPT_BYTES {
                        // What the steps before needed; what the next one needs has been asked for.
                        steps_done = self.client.steps_done();
                        lease.release();
                        reads.clear_fetched();
                    }
                    let fetched = self.fetch_for(i, reads, lease, &mut promised).await?;
                    if fetched.is_err()
                        && self.refuse_room(i, &NoRoomReason::OutOfMemory) == Refused::Command
                    {
                        return Ok(());
                    }
                }
                Wait::Memory(bytes) => {
                    if lease.bytes + bytes > self.server().memory.request_bytes() {
                        // What was fetched has come back to memory meanwhile, or is fetched again.
                        lease.release();
                        reads.clear();
                    }
                    let memory = self.memory_beside(bytes, reads, lease, &mut promised);
                    match memory.await? {
                        Ok(Some(memory)) => self.client.allowance.begin(memory),
                        Ok(None) => {}
                        Err(TooMuch)
                            if self.refuse_room(i, &NoRoomReason::OutOfMemory)
                                == Refused::Command =>
                        {
                            return Ok(());
                        }
                        Err(TooMuch) => {}
                    }
                }
                Wait::Latch => {
                    if !self.client.is_half_done() {
                        self.check_killed()?;
                    }
                    latch_tries += 1;
                    if latch_tries < LATCH_TRIES {
                        tokio::task::yield_now().await;
                    } else {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Wait::Room(bytes) => {
                    if let Err(reason) = self.wait_for_room(bytes).await?
                        && self.refuse_room(i, &reason) == Refused::Command
                    {
                        return Ok(());
                    }
                }
                Wait::Pause => {
                    self.client.kept_latches = None;
                    self.wait_for_pause().await?;
                }
                Wait::SlowLane if self.client.exec.is_some() => {
                    if let Some(again) = self.run_slow_in_exec().await {
                        wait = again;
                        continue;
                    }
                }
                Wait::SlowLane => {
                    self.send().await?;
                    match self.run_slow(i).await {
                        Some(again) => {
                            wait = again;
                            continue;
                        }
                        None => return Ok(()),
                    }
                }
                Wait::Turn => tokio::task::yield_now().await,
            }
            match self.run_command(i, reads, unix_ms()) {
                Some(again) => wait = again,
                None => return Ok(()),
            }
        }
    }

    /// Fetches what command `i` met, and with it whatever else its keys need.
    async fn fetch_for(
        &mut self,
        i: usize,
        reads: &mut ColdReads,
        lease: &mut ColdLease,
        promised: &mut Option<Lease>,
    ) -> Result<Result<(), TooMuch>, Closed> {
        let server = self.server();
        // What is half done asks for what it needs itself, and not for all of it at once.
        if let Some(command) = self.input.command(i)
            && !self.client.is_half_done()
        {
            let row = server.commands.get(command).row;
            let namespace = server.databases.namespace(self.client.database());
            let args = self.input.args(i);
            let keys = row
                .keys
                .positions(args)
                .map(|position| (namespace, &args[position]));
            let is_blind = row.flags.has(Flags::BLIND);
            let cold_bytes = if is_blind {
                0
            } else {
                self.worker.prefetch_cold_bytes()
            };
            server.store.prefetch(keys, reads, cold_bytes);
        }
        let bytes = reads.wanted_bytes();
        if bytes <= COLD_SMALL_BYTES {
            self.fetch(reads, lease).await;
            return Ok(Ok(()));
        }
        match self.memory_beside(bytes, reads, lease, promised).await? {
            Ok(Some(_memory)) => self.fetch(reads, lease).await,
            Ok(None) => {}
            Err(TooMuch) => return Ok(Err(TooMuch)),
        }
        Ok(Ok(()))
    }

    /// `bytes` of memory for a command, beside what it has fetched. Nobody waits in line with fetched records, which
    /// those before him may be waiting for: the command lets go of them instead (`None`) and, with what it needs in all
    /// `promised` to it, runs from the beginning.
    async fn memory_beside(
        &mut self,
        bytes: u64,
        reads: &mut ColdReads,
        lease: &mut ColdLease,
        promised: &mut Option<Lease>,
    ) -> Result<Result<Option<Lease>, TooMuch>, Closed> {
        if let Some(part) = promised.as_mut().and_then(|lease| lease.split(bytes)) {
            return Ok(Ok(Some(part)));
        }
        *promised = None;
        let (memory, id) = (&self.server().memory, self.client.id());
        if let Some(lease) = memory.take(id, bytes) {
            return Ok(Ok(Some(lease)));
        }
        let goes_on = self.client.exec.is_some() || self.client.is_half_done();
        if lease.bytes == 0 || goes_on || memory.has_pass(id) {
            return Ok(self.have_memory(bytes).await?.map(Some));
        }
        let all_bytes = lease.bytes + bytes;
        lease.release();
        reads.clear();
        let memory = self.have_memory(all_bytes).await?;
        Ok(memory.map(|lease| {
            *promised = Some(lease);
            None
        }))
    }

    async fn wait_for_room(&mut self, bytes: u64) -> Result<Result<(), NoRoomReason>, Closed> {
        let server = Arc::clone(self.server());
        if bytes == 0 {
            // Somebody else has to get on first, who may be on this thread.
            tokio::time::sleep(PAUSE).await;
        }
        if self.client.is_half_done() {
            return Ok(server.store.wait_for_records(bytes).await);
        }
        // A transaction sends nothing before its end: where its reply starts would move.
        if self.client.exec.is_none() {
            self.send().await?;
        }
        self.interruptible(server.store.wait_for_room(bytes)).await
    }

    async fn wait_for_pause(&mut self) -> Result<(), Closed> {
        self.send().await?;
        let server = Arc::clone(self.server());
        self.client.entry.set_flag(client_flags::PAUSED, true);
        let waited = self.interruptible(server.pause.wait()).await;
        self.client.entry.set_flag(client_flags::PAUSED, false);
        // The pause is not the command's own time.
        self.clock = Instant::now();
        waited
    }

    /// Runs command `i`, which is a [`Handler::Slow`], on the slow lane; says what it waits for if it has not ended.
    async fn run_slow(&mut self, i: usize) -> Option<Wait> {
        let server = Arc::clone(self.server());
        let command = self.input.command(i).map(|id| server.commands.get(id))?;
        let call = Call {
            command,
            args: self.input.args(i),
        };
        let slow = self.start_slow(call, None).await;
        match slow.ended {
            Ok(ended) => self.finish(i, ended, slow.reply),
            Err(wait) => return Some(wait),
        }
        None
    }

    /// Runs the command that is due in a transaction on the slow lane; says what it waits for if it has not ended.
    async fn run_slow_in_exec(&mut self) -> Option<Wait> {
        let mut exec = self.client.exec.take()?;
        let server = Arc::clone(self.server());
        let started = Instant::now();
        let suspended = exec.take_suspended();
        let slow = self.start_slow(exec.due(&server), suspended).await;
        if let Some(suspended) = slow.transaction {
            exec.put_back(suspended);
        }
        let wait = match slow.ended {
            Ok(ended) => {
                self.end_due(&mut exec, ended, slow.reply, started.elapsed());
                None
            }
            Err(wait) => Some(wait),
        };
        self.client.exec = Some(exec);
        wait
    }

    /// Ends the command that is due in a transaction, with a reply that was made elsewhere.
    fn end_due(&mut self, exec: &mut Exec, ended: Ended, reply: Output, elapsed: Duration) {
        let Connection {
            worker,
            client,
            output,
            bounds,
            ..
        } = self;
        let reply_start = output.mark();
        output.append(reply);
        let outcome = Outcome {
            ended,
            elapsed,
            reply_start,
        };
        exec.end_due(worker, client, output, &bounds.records, outcome);
    }

    /// Runs a command that is a [`Handler::Slow`] on the slow lane.
    async fn start_slow(&self, call: Call<'_>, transaction: Option<Suspended>) -> Slow {
        let server = Arc::clone(self.server());
        let Handler::Slow(handler) = call.command.row.handler else {
            unreachable!("only slow handlers ask for the slow lane")
        };
        let namespace = server.databases.namespace(self.client.database());
        let mut reply = Output::new(self.output.protocol());
        let args = call.args.to_owned();
        let slow_server = Arc::clone(&server);
        let work = move || {
            let server = &slow_server;
            let mut cx = SlowCtx {
                store: &server.store,
                transaction,
                namespace,
                reply: &mut reply,
                server,
                now_ms: unix_ms(),
            };
            let done = handler(&mut cx, args.as_args());
            let transaction = cx.transaction.take();
            // A slow handler's steps wait for reads and room themselves. It asks to be run again if there was no room, for a
            // reason that whoever waits for it finds out.
            Slow {
                ended: dispatch::conclude(done, &mut reply, Mark::default()),
                reply,
                transaction,
            }
        };
        server.slow_lane.run(work).await
    }

    /// There will be no room for command `i`, or for the one that is due in its transaction: that ends with an error.
    fn refuse_room(&mut self, i: usize, reason: &NoRoomReason) -> Refused {
        let mut error = match reason {
            NoRoomReason::OutOfMemory => OUT_OF_MEMORY.as_bytes().to_vec(),
            NoRoomReason::CannotWrite(why) => format!(
                "MISCONF Errors writing to the data files: {}",
                error_text(why)
            )
            .into_bytes(),
        };
        let half_done = self.client.half_done.as_mut();
        if half_done.is_some_and(HalfDone::give_up_serving) {
            return Refused::Part;
        }
        let mut reply = Output::new(self.output.protocol());
        if let Some(half_done) = self.client.half_done.take() {
            // What it has done so far stays, and is logged.
            let reads = ColdReads::default();
            let server = Arc::clone(self.server());
            let op = server.store.resume_suspended(half_done.suspended, &reads);
            self.client.note_changes(op);
        }
        if let Some(mut exec) = self.client.exec.take() {
            if exec.is_suspended() {
                if !exec.give_up_serving() && !exec.may_insist_on_room() {
                    reply.error_bytes(&error);
                    self.end_due(&mut exec, Ended::Failed, reply, Duration::ZERO);
                }
                self.client.exec = Some(exec);
                return Refused::Part;
            }
            self.client.end_transaction();
            error = dispatch::aborted(&error);
        }
        // One that was to be queued breaks its transaction.
        self.client.break_transaction();
        reply.error_bytes(&error);
        self.finish(i, Ended::Failed, reply);
        Refused::Command
    }

    /// Ends command `i` with a reply that was made elsewhere.
    fn finish(&mut self, i: usize, ended: Ended, reply: Output) {
        let worker = Rc::clone(&self.worker);
        let Some(id) = self.input.command(i) else {
            return;
        };
        let started = std::mem::replace(&mut self.clock, Instant::now());
        let elapsed = self.clock.duration_since(started);
        let Connection {
            client,
            input,
            output,
            bounds,
            ..
        } = self;
        let reply_start = output.mark();
        output.append(reply);
        let finished = Finished {
            command: worker.server.commands.get(id),
            args: input.args(i),
            ended,
            elapsed,
            reply_start,
        };
        finished.record(&worker, client, output, &bounds.records);
        finished.end_reply(client, output);
    }

    /// Awaits `future` unless the client is killed, or the server stops, meanwhile.
    pub(super) async fn interruptible<T>(
        &self,
        future: impl Future<Output = T>,
    ) -> Result<T, Closed> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                done = &mut future => return Ok(done),
                () = self.client.entry.wake.notified() => self.check_killed()?,
            }
        }
    }
}
