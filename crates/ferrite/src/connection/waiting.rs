//! A command that cannot go on: waiting for what it needs, and running it again, until it has ended; or ending it with an error
//! when it will not get that.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hybridlog::{ColdReads, NoRoomReason};

use super::execute::COLD_KEPT_BYTES;
use super::{Closed, Connection, Socket};
use crate::admission::{self, OUT_OF_MEMORY};
use crate::client::{ClientEntry, HalfDone, client_flags};
use crate::command::Flags;
use crate::dispatch::{Ended, Wait};
use crate::finished::Finished;
use crate::memory::{Lease, TooMuch};
use crate::output::Output;
use crate::server::unix_ms;
use crate::sys::error_text;
use crate::worker::Worker;

/// Cold reads that take no more use the memory that each worker has for them.
pub(super) const COLD_SMALL_BYTES: u64 = 64 << 10;
/// How often a taken latch is tried again after letting others run, before it is left alone for a moment.
const LATCH_TRIES: usize = 64;
/// For how long something is left alone that nobody tells of.
const PAUSE: Duration = Duration::from_millis(1);

/// What was refused for want of room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The command, which has ended.
    Command,
    /// A part of it, or a command of its transaction; it goes on.
    Part,
}

/// Memory of cold reads that a slice holds, accounted to its worker and its client until the slice ends.
pub(super) struct ColdLease {
    worker: Rc<Worker>,
    client: Arc<ClientEntry>,
    bytes: u64,
}

impl ColdLease {
    pub(super) fn new(worker: &Rc<Worker>, client: &Arc<ClientEntry>) -> ColdLease {
        ColdLease {
            worker: Rc::clone(worker),
            client: Arc::clone(client),
            bytes: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn extend(&mut self, bytes: u64) {
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

    pub(super) async fn fetch(&self, reads: &mut ColdReads, lease: &mut ColdLease) {
        if reads.is_wanting() {
            lease.extend(reads.wanted_bytes());
            reads.fetch(self.worker.reader()).await;
        }
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
            error = admission::aborted(&error);
        }
        // One that was to be queued breaks its transaction.
        self.client.break_transaction();
        reply.error_bytes(&error);
        self.finish(i, Ended::Failed, reply);
        Refused::Command
    }

    /// Ends command `i` with a reply that was made elsewhere.
    pub(super) fn finish(&mut self, i: usize, ended: Ended, reply: Output) {
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
}
