//! One client connection: reads requests, runs them in batches, sends the replies.
//!
//! Everything that has arrived is parsed and run before the next wait; replies are sent once per batch. A batch is cut
//! into slices so that neither a long pipeline nor its replies take unbounded memory, and so that other connections of
//! the worker get their turn in between. A client that does not read its replies is served until its output reaches
//! the limit of its class, then it is closed; without a configured limit it is not read from any more until it has
//! caught up.

mod backpressure;
mod blocked;
mod close_watch;
mod closing;
mod durable;
mod execute;
mod input;
mod slow;
mod waiting;

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hybridlog::SyncPolicy;
use resp::{Authentication, Limits, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::client::{Client, ClientEntry, client_flags};
use crate::config::Settings;
use crate::finished::RecordSettings;
use crate::inbox::AcceptedSocket;
use crate::log;
use crate::output::{Mark, Output};
use crate::server::Server;
use crate::stats::WorkerStats;
use crate::worker::Worker;
pub(crate) use closing::linger;
use input::{Input, More};

/// The most commands between two attempts to send.
const SLICE_COMMANDS: usize = 1024;
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
    /// Whether replies wait until the changes they tell of are durable.
    holds_replies: bool,
    records: RecordSettings,
}

impl Bounds {
    fn new(settings: &Settings) -> Self {
        let hard_bytes = settings.output_buffer_limit.hard_bytes;
        Bounds {
            requires_password: !settings.requirepass.is_empty(),
            max_bulk_bytes: settings.proto_max_bulk_bytes as usize,
            query_bytes: settings.client_query_buffer_bytes as usize,
            output_hard_bytes: (hard_bytes > 0).then_some(hard_bytes as usize),
            output_bytes: if hard_bytes > 0 {
                usize::MAX
            } else {
                unlimited_output_bytes(settings) as usize
            },
            holds_replies: settings.appendonly && settings.appendfsync == SyncPolicy::Always,
            records: RecordSettings::new(settings),
        }
    }
}

/// Unsent bytes from which on a client without a configured limit is not read from any more.
pub(crate) fn unlimited_output_bytes(settings: &Settings) -> u64 {
    let share = settings.maxmemory_bytes / UNLIMITED_OUTPUT_SHARE;
    share.clamp(
        *UNLIMITED_OUTPUT_BYTES.start(),
        *UNLIMITED_OUTPUT_BYTES.end(),
    )
}

/// How long unsent replies may keep the engine's memory before they are copied.
const LENT_FOR: Duration = Duration::from_millis(100);

/// For each argument of a command the server takes so many bytes beside those of the argument, at most.
const ARGUMENT_BYTES: u64 = 128;
/// By so much a value may be longer than the store takes before its request is a protocol error.
const OVERSIZE_BYTES: u64 = 1024 * 1024;

/// A stream socket.
pub(crate) trait Socket: AsyncRead + AsyncWrite + AsFd + Unpin + 'static {
    /// Ready when a read may find something.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Takes it from this thread's runtime, for another to look after it.
    fn into_accepted(self) -> io::Result<AcceptedSocket>;
}

impl Socket for TcpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_read_ready(self, cx)
    }

    fn into_accepted(self) -> io::Result<AcceptedSocket> {
        self.into_std().map(AcceptedSocket::Tcp)
    }
}

impl Socket for UnixStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        UnixStream::poll_read_ready(self, cx)
    }

    fn into_accepted(self) -> io::Result<AcceptedSocket> {
        self.into_std().map(AcceptedSocket::Unix)
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

/// A connection.
pub(crate) struct Connection<S> {
    socket: S,
    worker: Rc<Worker>,
    client: Client,
    input: Input,
    output: Output,
    bounds: Bounds,
    /// Where the reply of the latest command starts in the output.
    latest_reply: Mark,
    /// When the latest command ended, which is when the next one starts.
    clock: Instant,
    /// Since when the output has held memory of the engine that the client is slow to take.
    lent_since: Option<Instant>,
    /// For so much more memory the next read waits.
    short_bytes: usize,
    /// Something has been read since the input was parsed.
    has_read_ahead: bool,
    /// Whether the client may be the one that others wait for.
    waited_for_memory: bool,
}

impl<S: Socket> Connection<S> {
    pub(crate) fn new(socket: S, worker: Rc<Worker>, entry: Arc<ClientEntry>) -> Self {
        let bounds = worker.settings(Bounds::new);
        let memory = Arc::clone(&worker.server.memory);
        Connection {
            socket,
            worker,
            client: Client::new(entry, !bounds.requires_password, memory),
            input: Input::default(),
            output: Output::new(Protocol::Resp2),
            bounds,
            latest_reply: Mark::default(),
            clock: Instant::now(),
            lent_since: None,
            short_bytes: 0,
            has_read_ahead: false,
            waited_for_memory: false,
        }
    }

    /// Serves the client until one side closes.
    pub(crate) async fn serve(mut self) {
        let closed = loop {
            if let Err(closed) = self.serve_once().await {
                break closed;
            }
        };
        let mut is_told = false;
        if matches!(closed, Closed::AfterReply) {
            self.client
                .entry
                .set_flag(client_flags::CLOSE_AFTER_REPLY, true);
            // Whether it arrives is up to the client; either way the connection ends.
            let sent = tokio::time::timeout(CLOSE_TIMEOUT, self.send_rest()).await;
            is_told = matches!(sent, Ok(Ok(()))) && !self.server().shutdown.is_asked();
        }
        if self.client.entry.is_over_output_limit() {
            self.stats().output_buffer_limit_disconnections.add(1);
        }
        self.client.unwatch();
        self.server().clients.disconnect(self.client.id());
        self.server().memory.note_held(self.client.id(), 0, 0);
        self.worker
            .give_buffer(std::mem::take(&mut self.input.buffer));
        if is_told {
            linger(&self.worker, &mut self.socket).await;
        }
    }

    /// Runs what has arrived, sends what can be sent, then waits for more.
    async fn serve_once(&mut self) -> Result<(), Closed> {
        if self.short_bytes > 0 {
            let bytes = std::mem::take(&mut self.short_bytes);
            self.make_room_to_read(bytes).await?;
        }
        loop {
            self.bounds = self.worker.settings(Bounds::new);
            if !self.bounds.requires_password {
                self.client.authenticated = true;
            }
            let more = self.input.parse(self.limits());
            self.client
                .entry
                .query_bytes
                .store(self.input.buffer.len() as u64, Relaxed);
            self.run_slice().await?;
            if matches!(more, Ok(More::No)) {
                // Sending may have to wait until a sync: not with a buffer in hand.
                self.drop_run();
            }
            self.send().await?;
            self.check_output()?;
            match more {
                Ok(More::Yes) if self.output.pending_bytes() < self.bounds.output_bytes => {
                    tokio::task::yield_now().await;
                }
                // What has come while a command waited for keys.
                Ok(_) if std::mem::take(&mut self.has_read_ahead) => {}
                Ok(_) => break,
                Err(error) => {
                    log::verbose(format_args!(
                        "Protocol error ({error}) from client: id={} addr={}",
                        self.client.id(),
                        self.client.entry.addr
                    ));
                    error.encode(&mut self.output);
                    self.stats().count_error(b"ERR");
                    return Err(Closed::AfterReply);
                }
            }
        }
        self.drop_run();
        self.check_input()?;
        if let Some(buffer) = self.output.take_buffer() {
            self.worker.give_buffer(buffer);
        }
        self.publish();
        self.note_held();
        self.wait().await
    }

    /// Lets go of what has been run of the input.
    fn drop_run(&mut self) {
        self.note_held_without(self.input.run_bytes());
        self.input.drop_run(&self.worker);
    }

    /// Closes the client if its unsent replies are over the hard limit.
    fn check_output(&self) -> Result<(), Closed> {
        if self
            .bounds
            .output_hard_bytes
            .is_none_or(|limit| self.output.pending_bytes() <= limit)
        {
            return Ok(());
        }
        self.client.entry.close_for_output_limit();
        Err(Closed::Killed)
    }

    /// Closes the client if its unfinished request is over the limit.
    fn check_input(&self) -> Result<(), Closed> {
        // What is queued has not been executed yet, and counts like what has not been parsed.
        if self.input.buffer.len() + self.client.queued_bytes() <= self.bounds.query_bytes {
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
        // What could never be stored is refused before it takes memory; a little more gets as far as its command, whose
        // error reply does not close the connection.
        let storable = (self.server().store.value_max_bytes() + OVERSIZE_BYTES)
            .min(self.server().memory.request_bytes());
        Limits {
            max_bulk_bytes: self.bounds.max_bulk_bytes.min(storable as usize),
            max_args: (storable / ARGUMENT_BYTES).min(i32::MAX as u64) as usize,
            authentication: if pending {
                Authentication::Pending
            } else {
                Authentication::Done
            },
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

    /// Closes a client that others wait for and that has not moved; its socket has just been tried.
    fn check_stalled(&self) -> Result<(), Closed> {
        let entry = &self.client.entry;
        if !entry.is_found_stalled() {
            return Ok(());
        }
        log::warning(format_args!(
            "Client id={} addr={} closed: it holds {} bytes of memory that others wait for, and does not go on.",
            entry.id,
            entry.addr,
            entry.memory_bytes()
        ));
        Err(Closed::Killed)
    }

    /// Sends as much of the output as the socket takes now.
    async fn send(&mut self) -> Result<(), Closed> {
        if !self.output.has_pending() {
            return Ok(());
        }
        self.hold_replies().await?;
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
        self.hold_replies().await?;
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
        let sent =
            std::task::ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]));
        let sent = sent.map_err(|_| Closed::Gone)?;
        if sent == 0 {
            return Poll::Ready(Err(Closed::Gone));
        }
        self.note_held_without(sent);
        self.output.advance(sent);
        self.client.entry.end_to_await();
        self.stats().net_output_bytes.add(sent as u64);
        self.stats().writes_processed.add(1);
        let entry = &self.client.entry;
        entry.net_output_bytes.fetch_add(sent as u64, Relaxed);
        entry
            .last_interaction_ms
            .store(self.server().uptime_ms(), Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Waits until something has been read, sent, or the connection is to end.
    async fn wait(&mut self) -> Result<(), Closed> {
        if !self.output.has_lent() {
            self.lent_since = None;
            return self.wait_for_socket().await;
        }
        let until = *self.lent_since.get_or_insert_with(Instant::now) + LENT_FOR;
        match tokio::time::timeout_at(until.into(), self.wait_for_socket()).await {
            Ok(done) => done,
            Err(_) => {
                self.lent_since = None;
                let bytes = self.output.lent_bytes() as u64;
                let memory = &self.server().memory;
                if let Some(_lease) = memory.take(self.client.id(), bytes) {
                    self.output.give_back();
                }
                Ok(())
            }
        }
    }

    async fn wait_for_socket(&mut self) -> Result<(), Closed> {
        let entry = Arc::clone(&self.client.entry);
        let mut wake = pin!(entry.wake.notified());
        let may_read = self.output.pending_bytes() < self.bounds.output_bytes;
        entry.begin_to_await(self.server().uptime_ms());
        poll_fn(|cx| {
            let is_woken = wake.as_mut().poll(cx).is_ready();
            if is_woken {
                self.check_killed()?;
            }
            let mut progress = false;
            if self.output.has_pending()
                && let Poll::Ready(sent) = self.poll_send(cx)
            {
                sent?;
                progress = true;
            }
            if may_read && let Poll::Ready(read) = self.poll_read(cx) {
                read?;
                progress = true;
            }
            if is_woken && !progress {
                self.check_stalled()?;
            }
            if is_woken || progress {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Reads once. The buffer is taken from the worker only when there is something to read, so that idle connections
    /// hold none.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let read = self.poll_fill(cx);
        if read.is_pending() && self.input.buffer.capacity() > 0 {
            self.input.drop_run(&self.worker);
        }
        read
    }

    /// As [`Self::poll_read`], with commands in the buffer that have not been run yet.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        std::task::ready!(self.socket.poll_read_ready(cx)).map_err(|_| Closed::Gone)?;
        self.client.entry.end_to_await();
        if !self.may_read() {
            return Poll::Ready(Ok(()));
        }
        let read = pin!(self.socket.read_buf(&mut self.input.buffer)).poll(cx);
        let read = std::task::ready!(read).map_err(|_| Closed::Gone)?;
        if read == 0 {
            return Poll::Ready(Err(Closed::Gone));
        }
        let stats = self.worker.stats();
        stats.net_input_bytes.add(read as u64);
        stats.reads_processed.add(1);
        let entry = &self.client.entry;
        entry.net_input_bytes.fetch_add(read as u64, Relaxed);
        entry
            .last_interaction_ms
            .store(self.worker.server.uptime_ms(), Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Makes room for a read; notes how much memory that waits for if there is too little now.
    fn may_read(&mut self) -> bool {
        let id = self.client.id();
        if self.input.buffer.capacity() == 0 {
            let Some(buffer) = self.worker.take_buffer(id) else {
                self.short_bytes = self.worker.buffer_bytes;
                return false;
            };
            self.input.buffer = buffer;
        }
        let growth = self.input.growth();
        if growth > 0 {
            let Some(_lease) = self.server().memory.take(id, growth as u64) else {
                self.short_bytes = growth;
                return false;
            };
            self.input.grow();
        }
        true
    }

    /// Makes this client's figures visible to others.
    fn publish(&mut self) {
        let entry = &self.client.entry;
        let unread = self.input.buffer.len();
        entry.args_bytes.store(0, Relaxed);
        entry.query_bytes.store(unread as u64, Relaxed);
        entry
            .query_free_bytes
            .store((self.input.buffer.capacity() - unread) as u64, Relaxed);
        entry
            .output_bytes
            .store(self.output.pending_bytes() as u64, Relaxed);
        entry
            .output_pieces
            .store(self.output.pending_pieces() as u64, Relaxed);
        entry
            .output_capacity_bytes
            .store(self.output.capacity_bytes() as u64, Relaxed);
    }
}
