//! One client connection: reads requests, runs them in batches, sends the replies.
//!
//! Everything that has arrived is parsed and run before the next wait; replies are sent once per batch. A batch is cut
//! into slices so that neither a long pipeline nor its replies take unbounded memory, and so that other connections of
//! the worker get their turn in between. A client that does not read its replies is served until its output reaches
//! the limit of its class, then it is closed; without a configured limit it is not read from any more until it has
//! caught up.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::ops::{Range, RangeInclusive};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hybridlog::ColdReads;
use resp::{Authentication, Limits, Parsed, Protocol, ProtocolError, RequestParser};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::args::{ArgRange, Args};
use crate::client::{After, Client, ClientEntry, client_flags};
use crate::command::Handler;
use crate::config::Settings;
use crate::ctx::SlowCtx;
use crate::dispatch::{self, Ended, Finished, RecordSettings, Wait, admit};
use crate::log;
use crate::output::Output;
use crate::server::{Server, unix_ms};
use crate::stats::WorkerStats;
use crate::table::Command;
use crate::worker::Worker;

/// The most commands, and about the most bytes of replies, between two attempts to send.
const SLICE_COMMANDS: usize = 1024;
const SLICE_REPLY_BYTES: usize = 1024 * 1024;
/// The least room offered to a read, and the most reserved because a request announced that it is that long.
const READ_MIN_BYTES: usize = 16 * 1024;
const READ_MAX_BYTES: usize = 1024 * 1024;
/// Slices given to one vectored write.
const WRITE_SLICES: usize = 64;
/// How long replies may take to be sent once the connection is to be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Unsent replies of a client without a configured limit: this share of `maxmemory`, within these bounds. Above it the
/// client is not read from any more until it has caught up.
const UNLIMITED_OUTPUT_SHARE: u64 = 8;
const UNLIMITED_OUTPUT_BYTES: RangeInclusive<u64> = 1024 * 1024..=256 * 1024 * 1024;

/// The settings that bound a connection, as of its current slice.
#[derive(Clone, Copy)]
struct Bounds {
    requires_password: bool,
    max_bulk_bytes: usize,
    query_bytes: usize,
    /// Above this the client is closed.
    output_hard_bytes: Option<usize>,
    /// Above this the client is not read from.
    output_bytes: usize,
    records: RecordSettings,
}

impl Bounds {
    fn new(settings: &Settings) -> Self {
        let hard_bytes = settings.output_buffer_limit.hard_bytes;
        let unlimited_bytes = settings.maxmemory_bytes / UNLIMITED_OUTPUT_SHARE;
        let unlimited_bytes = unlimited_bytes.clamp(*UNLIMITED_OUTPUT_BYTES.start(), *UNLIMITED_OUTPUT_BYTES.end());
        Bounds {
            requires_password: !settings.requirepass.is_empty(),
            max_bulk_bytes: settings.proto_max_bulk_bytes as usize,
            query_bytes: settings.client_query_buffer_bytes as usize,
            output_hard_bytes: (hard_bytes > 0).then_some(hard_bytes as usize),
            output_bytes: if hard_bytes > 0 { usize::MAX } else { unlimited_bytes as usize },
            records: RecordSettings::new(settings),
        }
    }
}

/// A stream socket.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Ready when a read may find something.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Socket for TcpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_read_ready(self, cx)
    }
}

impl Socket for UnixStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        UnixStream::poll_read_ready(self, cx)
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum Closed {
    /// The client left, or its socket failed.
    Gone,
    /// Once what is in the output has been sent.
    AfterReply,
    /// At once.
    Killed,
}

/// Requests that have been read.
#[derive(Default)]
struct Input {
    buffer: Vec<u8>,
    /// Where in the buffer the first command that has not been parsed starts.
    parsed: usize,
    parser: RequestParser,
    /// How many more bytes the unfinished command needs at least.
    need: usize,
    /// The parsed commands: their arguments as ranges of `ranges`.
    commands: Vec<Range<usize>>,
    ranges: Vec<ArgRange>,
}

/// A connection.
pub(crate) struct Connection<S> {
    socket: S,
    worker: Rc<Worker>,
    client: Client,
    input: Input,
    output: Output,
    bounds: Bounds,
}

impl<S: Socket> Connection<S> {
    pub(crate) fn new(socket: S, worker: Rc<Worker>, entry: Arc<ClientEntry>) -> Self {
        let bounds = worker.settings(Bounds::new);
        Connection {
            socket,
            worker,
            client: Client::new(entry, !bounds.requires_password),
            input: Input::default(),
            output: Output::new(Protocol::Resp2),
            bounds,
        }
    }

    /// Serves the client until one side closes.
    pub(crate) async fn serve(mut self) {
        let closed = loop {
            if let Err(closed) = self.serve_once().await {
                break closed;
            }
        };
        if matches!(closed, Closed::AfterReply) {
            self.client.entry.set_flag(client_flags::CLOSE_AFTER_REPLY, true);
            // Whether it arrives is up to the client; either way the connection ends.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.send_rest()).await;
        }
        self.worker.server.clients.disconnect(self.client.id());
        self.worker.give_buffer(std::mem::take(&mut self.input.buffer));
    }

    /// Runs what has arrived, sends what can be sent, then waits for more.
    async fn serve_once(&mut self) -> Result<(), Closed> {
        loop {
            self.bounds = self.worker.settings(Bounds::new);
            if !self.bounds.requires_password {
                self.client.authenticated = true;
            }
            let more = self.input.parse(self.limits());
            self.run_batch().await?;
            self.send().await?;
            self.publish();
            self.check_output()?;
            match more {
                Ok(More::Yes) if self.output.pending_bytes() < self.bounds.output_bytes => {
                    tokio::task::yield_now().await;
                }
                Ok(_) => break,
                Err(error) => {
                    log::verbose(format_args!("Protocol error ({error}) from client: id={} addr={}", self.client.id(), self.client.entry.addr));
                    error.encode(&mut self.output);
                    self.stats().count_error(error.to_string().as_bytes());
                    return Err(Closed::AfterReply);
                }
            }
        }
        self.input.drop_run(&self.worker);
        self.check_input()?;
        self.wait().await
    }

    /// Closes the client if its unsent replies are over the hard limit.
    fn check_output(&self) -> Result<(), Closed> {
        if self.bounds.output_hard_bytes.is_none_or(|limit| self.output.pending_bytes() <= limit) {
            return Ok(());
        }
        self.stats().output_buffer_limit_disconnections.add(1);
        log::warning(format_args!(
            "Client id={} addr={} closed for overcoming of output buffer limits.",
            self.client.id(),
            self.client.entry.addr
        ));
        Err(Closed::Killed)
    }

    /// Closes the client if its unfinished request is over the limit.
    fn check_input(&self) -> Result<(), Closed> {
        if self.input.buffer.len() <= self.bounds.query_bytes {
            return Ok(());
        }
        self.stats().query_buffer_limit_disconnections.add(1);
        log::warning(format_args!(
            "Closing client that reached max query buffer length: id={} addr={}",
            self.client.id(),
            self.client.entry.addr
        ));
        Err(Closed::Killed)
    }

    fn stats(&self) -> &WorkerStats {
        self.worker.stats()
    }

    fn server(&self) -> &Arc<Server> {
        &self.worker.server
    }

    fn limits(&self) -> Limits {
        let pending = !self.client.authenticated;
        Limits {
            max_bulk_bytes: self.bounds.max_bulk_bytes,
            authentication: if pending { Authentication::Pending } else { Authentication::Done },
            ..Limits::default()
        }
    }

    /// Runs the parsed commands in order.
    async fn run_batch(&mut self) -> Result<(), Closed> {
        let count = self.input.commands.len();
        if count == 0 {
            return Ok(());
        }
        self.stats().reset_if_asked();
        let mut reads = ColdReads::default();
        let mut now_ms = unix_ms();
        let mut clock = Instant::now();
        for i in 0..count {
            let started = clock;
            if let Some(wait) = self.run_command(i, &reads, now_ms, started) {
                self.run_waiting(i, wait, &mut reads, started).await?;
                now_ms = unix_ms();
            }
            clock = Instant::now();
            match std::mem::take(&mut self.client.after) {
                After::Continue => {}
                After::Close => return Err(Closed::AfterReply),
                After::Sleep(duration) => {
                    self.send().await?;
                    self.interruptible(tokio::time::sleep(duration)).await?;
                    (now_ms, clock) = (unix_ms(), Instant::now());
                }
            }
            if self.output.pending_bytes() >= SLICE_REPLY_BYTES {
                self.send().await?;
                self.check_output()?;
                clock = Instant::now();
            }
            if self.client.entry.is_killed() {
                return Err(Closed::Killed);
            }
        }
        self.client.entry.commands.fetch_add(count as u64, Relaxed);
        Ok(())
    }

    /// Runs command `i` once and records it if it ended; else says what it waits for.
    #[inline]
    fn run_command(&mut self, i: usize, reads: &ColdReads, now_ms: u64, started: Instant) -> Option<Wait> {
        let Connection { worker, client, input, output, bounds, .. } = self;
        let server = &worker.server;
        let args = Args::new(&input.buffer, &input.ranges[input.commands[i].clone()]);
        let command = match admit(server, client, args) {
            Ok(command) => command,
            Err(refusal) => {
                dispatch::refuse(&refusal, worker.stats(), client, output);
                return None;
            }
        };
        if dispatch::is_paused(server, command) {
            return Some(Wait::Pause);
        }
        client.entry.last_command.store(command.id.0, Relaxed);
        let reply_start = output.mark();
        let reply_before = client.reply_mode;
        let ended = match dispatch::run(server, command, args, client, output, reads, now_ms) {
            Ok(ended) => ended,
            Err(wait) => return Some(wait),
        };
        let finished = Finished { command, args, ended, elapsed: started.elapsed(), reply_start };
        finished.record(server, worker.stats(), client, output, reply_before, &bounds.records);
        None
    }

    /// Waits and runs command `i` again until it has ended.
    async fn run_waiting(&mut self, i: usize, first: Wait, reads: &mut ColdReads, started: Instant) -> Result<(), Closed> {
        let mut wait = first;
        let mut started = started;
        loop {
            match wait {
                Wait::ColdReads | Wait::Latch | Wait::Room(_) => tokio::task::yield_now().await,
                Wait::Pause => {
                    self.send().await?;
                    self.client.entry.set_flag(client_flags::PAUSED, true);
                    let server = Arc::clone(self.server());
                    let waited = self.interruptible(server.pause.wait()).await;
                    self.client.entry.set_flag(client_flags::PAUSED, false);
                    waited?;
                    started = Instant::now();
                }
                Wait::SlowLane => {
                    self.send().await?;
                    self.run_slow(i, started).await;
                    return Ok(());
                }
            }
            match self.run_command(i, reads, unix_ms(), started) {
                Some(again) => wait = again,
                None => return Ok(()),
            }
        }
    }

    /// Runs command `i`, which is a [`Handler::Slow`], on the slow lane.
    async fn run_slow(&mut self, i: usize, started: Instant) {
        let worker = Rc::clone(&self.worker);
        let args = Args::new(&self.input.buffer, &self.input.ranges[self.input.commands[i].clone()]);
        let Ok(command) = admit(&worker.server, &self.client, args) else { return };
        let Handler::Slow(handler) = command.row.handler else { return };
        let server = Arc::clone(&worker.server);
        let namespace = server.databases.namespace(self.client.database());
        let mut reply = Output::new(self.output.protocol());
        let owned = args.to_owned();
        let (done, mut reply) = worker
            .server
            .slow_lane
            .run(move || {
                let mut cx = SlowCtx { store: &server.store, namespace, reply: &mut reply, server: &server, now_ms: unix_ms() };
                (handler(&mut cx, owned.as_args()), reply)
            })
            .await;
        let start = Output::new(Protocol::Resp2).mark();
        // A slow handler's steps wait for reads and room themselves, so it never asks to be run again.
        let ended = dispatch::conclude(done, &mut reply, start).unwrap_or(Ended::Failed);
        self.finish_slow(command, i, ended, reply, started);
    }

    fn finish_slow(&mut self, command: &Command, i: usize, ended: Ended, reply: Output, started: Instant) {
        let Connection { worker, client, input, output, bounds, .. } = self;
        let args = Args::new(&input.buffer, &input.ranges[input.commands[i].clone()]);
        let reply_start = output.mark();
        output.append(reply);
        let finished = Finished { command, args, ended, elapsed: started.elapsed(), reply_start };
        let reply_before = client.reply_mode;
        finished.record(&worker.server, worker.stats(), client, output, reply_before, &bounds.records);
    }

    /// Awaits `future` unless the client is killed meanwhile.
    async fn interruptible(&self, future: impl Future<Output = ()>) -> Result<(), Closed> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                () = &mut future => return Ok(()),
                () = self.client.entry.wake.notified() => self.check_killed()?,
            }
        }
    }

    fn check_killed(&self) -> Result<(), Closed> {
        if self.client.entry.is_killed() {
            return Err(Closed::Killed);
        }
        if self.server().shutdown.is_asked() {
            return Err(Closed::AfterReply);
        }
        Ok(())
    }

    /// Sends as much of the output as the socket takes now.
    async fn send(&mut self) -> Result<(), Closed> {
        if !self.output.has_pending() {
            return Ok(());
        }
        poll_fn(|cx| {
            while self.output.has_pending() {
                match self.poll_send(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(closed)) => return Poll::Ready(Err(closed)),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Sends the whole output.
    async fn send_rest(&mut self) -> Result<(), Closed> {
        poll_fn(|cx| {
            while self.output.has_pending() {
                std::task::ready!(self.poll_send(cx))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Sends some of the output, which is not empty.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let count = self.output.slices(&mut slices);
        let sent = std::task::ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]));
        let sent = sent.map_err(|_| Closed::Gone)?;
        if sent == 0 {
            return Poll::Ready(Err(Closed::Gone));
        }
        self.output.advance(sent);
        self.stats().net_output_bytes.add(sent as u64);
        self.stats().writes_processed.add(1);
        self.client.entry.net_output_bytes.fetch_add(sent as u64, Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Waits until something has been read, sent, or the connection is to end.
    async fn wait(&mut self) -> Result<(), Closed> {
        let entry = Arc::clone(&self.client.entry);
        let mut wake = pin!(entry.wake.notified());
        let may_read = self.output.pending_bytes() < self.bounds.output_bytes;
        poll_fn(|cx| {
            if wake.as_mut().poll(cx).is_ready() {
                return Poll::Ready(self.check_killed());
            }
            let mut progress = false;
            if self.output.has_pending() && let Poll::Ready(sent) = self.poll_send(cx) {
                sent?;
                progress = true;
            }
            if may_read && let Poll::Ready(read) = self.poll_read(cx) {
                read?;
                progress = true;
            }
            if progress { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    /// Reads once. The buffer is taken from the worker only when there is something to read, so that idle connections
    /// hold none.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        std::task::ready!(self.socket.poll_read_ready(cx)).map_err(|_| Closed::Gone)?;
        let input = &mut self.input;
        if input.buffer.capacity() == 0 {
            input.buffer = self.worker.take_buffer();
        }
        input.buffer.reserve(input.need.clamp(READ_MIN_BYTES, READ_MAX_BYTES));
        let read = std::task::ready!(pin!(self.socket.read_buf(&mut input.buffer)).poll(cx));
        let read = read.map_err(|_| Closed::Gone)?;
        if read == 0 {
            return Poll::Ready(Err(Closed::Gone));
        }
        let stats = self.worker.stats();
        stats.net_input_bytes.add(read as u64);
        stats.reads_processed.add(1);
        let entry = &self.client.entry;
        entry.net_input_bytes.fetch_add(read as u64, Relaxed);
        entry.last_interaction_ms.store(self.worker.server.uptime_ms(), Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Makes this client's figures visible to others.
    fn publish(&mut self) {
        let entry = &self.client.entry;
        let unread = self.input.buffer.len();
        entry.query_bytes.store(unread as u64, Relaxed);
        entry.query_free_bytes.store((self.input.buffer.capacity() - unread) as u64, Relaxed);
        entry.output_bytes.store(self.output.pending_bytes() as u64, Relaxed);
        entry.output_pieces.store(self.output.pending_pieces() as u64, Relaxed);
        entry.output_capacity_bytes.store(self.output.capacity_bytes() as u64, Relaxed);
    }
}

/// Whether the input may hold more whole commands than were parsed.
enum More {
    Yes,
    No,
}

impl Input {
    /// Parses commands up to the size of a slice. Those of the previous slice are done with.
    fn parse(&mut self, limits: Limits) -> Result<More, ProtocolError> {
        self.commands.clear();
        self.ranges.clear();
        if self.parsed == self.buffer.len() {
            return Ok(More::No);
        }
        self.parser.set_limits(limits);
        let most = match limits.authentication {
            // The first command may be the one that authenticates.
            Authentication::Pending => 1,
            Authentication::Done => SLICE_COMMANDS,
        };
        while self.commands.len() < most {
            match self.parser.parse(&mut self.buffer, self.parsed, &mut self.ranges)? {
                Parsed::Complete { end, args } => {
                    self.commands.push(args);
                    self.parsed = end;
                }
                Parsed::Incomplete { keep_from, need } => {
                    self.parsed = keep_from;
                    self.need = need;
                    return Ok(More::No);
                }
            }
        }
        Ok(More::Yes)
    }

    /// Drops the bytes of commands that have been run, and the buffer if none are left.
    fn drop_run(&mut self, worker: &Worker) {
        if self.parsed == self.buffer.len() {
            worker.give_buffer(std::mem::take(&mut self.buffer));
        } else {
            self.buffer.drain(..self.parsed);
        }
        self.parsed = 0;
    }
}
