//! Running the commands of a slice, in order: first what they will read is prefetched, with cold records, up to a bound of
//! bytes for each worker, in one submission, then each is run; one that has to wait holds up those behind it, and no other connection.

use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use hybridlog::{ColdReads, Namespace};

use super::waiting::{COLD_SMALL_BYTES, ColdLease};
use super::{Closed, Connection, Socket};
use crate::admission;
use crate::client::After;
use crate::command::{Flags, Row, Stop};
use crate::dispatch::{self, Call, Runner, Wait};
use crate::finished::Finished;
use crate::server::unix_ms;

/// Commands run under one pin of the epoch and with one reading of the time.
const PIN_COMMANDS: usize = 64;
/// Fetched records that take more are let go of when the command that wanted them has ended.
pub(super) const COLD_KEPT_BYTES: u64 = 4 << 20;
/// Why running commands stopped before the end.
enum Stopped {
    /// The command has to wait.
    Waits(Wait),
    /// The command has ended, and something is to be done before the next.
    Attend,
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
        let mut lease = ColdLease::new(&self.worker, &self.client.entry);
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
                    if lease.bytes() > COLD_KEPT_BYTES {
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
            None if admission::is_http(args) => {
                server.log_http(&client.entry);
                client.after = After::Abort;
                return None;
            }
            id => match admission::admit(server, client, args, id) {
                Ok(command) => command,
                Err(refusal) => {
                    admission::refuse(&refusal, worker.stats(), client, output);
                    return None;
                }
            },
        };
        let reply_start = match &client.exec {
            Some(exec) => exec.reply_start,
            None if !goes_on && admission::is_paused(server, client, command) => {
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
