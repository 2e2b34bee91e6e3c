//! A worker: one thread with a runtime and listeners of its own, which accepts clients and serves them to their end.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use hybridlog::io::ColdReader;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::LocalSet;

use crate::client::{ClientEntry, Peer};
use crate::config::{Settings, SettingsReader};
use crate::connection::{Connection, Socket, linger};
use crate::inbox::{Accepted, AcceptedSocket};
use crate::listener::Listeners;
use crate::log;
use crate::server::Server;
use crate::stats::WorkerStats;
use crate::storage;
use crate::sys;

/// The size of a fresh buffer: this share of `maxmemory`, within these bounds.
const BUFFER_SHARE: u64 = 4096;
const BUFFER_BYTES: RangeInclusive<u64> = 16 * 1024..=64 * 1024;
/// How many are kept for the next connection that has something to read or to send.
const BUFFERS_KEPT: usize = 16;
/// How long accepting pauses after it failed for want of descriptors or memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Threads on which a worker reads cold records where there is no io_uring: as many reads as a device gains from, and
/// few enough that their stacks take little memory.
const BLOCKING_THREADS: usize = 32;

/// Memory that the cold reads of one prefetch may take, if the worker's connections together leave it so much.
const PREFETCH_COLD_BYTES: u64 = 4 << 20;

/// What a client gets that comes from another machine while protected mode is on.
const DENIED: &str = concat!(
    "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the ",
    "default user. In this mode connections are only accepted from the loopback interface. If you want to connect ",
    "from external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode ",
    "sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the ",
    "same host the server is running, however MAKE SURE Redis is not publicly accessible from internet if you do so. ",
    "Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode by ",
    "editing the Redis configuration file, and setting the protected mode option to 'no', and then restarting the ",
    "server. 3) If you started the server manually just for testing, restart it with the '--protected-mode no' ",
    "option. 4) Setup a an authentication password for the default user. NOTE: You only need to do one of the above ",
    "things in order for the server to start accepting connections from the outside.\r\n",
);
const TOO_MANY_CLIENTS: &str = "-ERR max number of clients reached\r\n";

/// What the connections of one worker share.
pub(crate) struct Worker {
    pub(crate) server: Arc<Server>,
    pub(crate) index: usize,
    reader: ColdReader,
    settings: RefCell<SettingsReader>,
    buffers: RefCell<Vec<Vec<u8>>>,
    pub(crate) buffer_bytes: usize,
    /// Memory of the cold records that connections have fetched and are not done with.
    cold_bytes: Cell<u64>,
    connections: Cell<usize>,
    /// Connections that are over but for what their clients still send.
    pub(crate) lingering: Cell<usize>,
    connection_ended: Notify,
}

impl Worker {
    pub(crate) fn stats(&self) -> &WorkerStats {
        self.server.stats.worker(self.index)
    }

    /// Where cold records are read.
    pub(crate) fn reader(&self) -> &ColdReader {
        &self.reader
    }

    /// What `read` takes out of the current settings.
    pub(crate) fn settings<T>(&self, read: impl FnOnce(&Settings) -> T) -> T {
        read(self.settings.borrow_mut().get())
    }

    /// What further cold records may take that nobody waits for yet. A command that waits reads what it needs whatever
    /// this says.
    pub(crate) fn cold_bytes_left(&self) -> u64 {
        self.settings(storage::worker_cold_bytes)
            .saturating_sub(self.cold_bytes.get())
    }

    /// Memory that the cold reads of one prefetch may take.
    pub(crate) fn prefetch_cold_bytes(&self) -> u64 {
        PREFETCH_COLD_BYTES.min(self.cold_bytes_left())
    }

    pub(crate) fn hold_cold_bytes(&self, bytes: u64) {
        self.cold_bytes.set(self.cold_bytes.get() + bytes);
    }

    pub(crate) fn release_cold_bytes(&self, bytes: u64) {
        self.cold_bytes.set(self.cold_bytes.get() - bytes);
    }

    /// From so many bytes of replies on they are sent before the next command is run.
    pub(crate) fn slice_reply_bytes(&self) -> usize {
        self.buffer_bytes / 4 * 3
    }

    /// An empty buffer to read into or to write to, if there is memory for one.
    pub(crate) fn take_buffer(&self, client: u64) -> Option<Vec<u8>> {
        self.buffers.borrow_mut().pop().or_else(|| {
            let _lease = self.server.memory.take(client, self.buffer_bytes as u64)?;
            Some(Vec::with_capacity(self.buffer_bytes))
        })
    }

    /// Takes a buffer back that is done with; one that grew, or began small, is freed.
    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffer.capacity() == self.buffer_bytes && buffers.len() < BUFFERS_KEPT {
            buffer.clear();
            buffers.push(buffer);
        }
    }
}

/// A worker's thread; its result says why it ended before its time.
pub(crate) type WorkerThread = JoinHandle<io::Result<()>>;

/// Starts worker `index` and returns once it can serve. It ends when the server is asked to stop and its clients have
/// been served.
pub(crate) fn start(
    server: Arc<Server>,
    index: usize,
    listeners: Listeners,
) -> io::Result<WorkerThread> {
    let (started, is_started) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    let thread = thread.spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let reader = {
            let _runtime = runtime.enter();
            open_reader(&server, index)?
        };
        let mut settings = SettingsReader::new(Arc::clone(&server.config));
        let buffer_bytes = (settings.get().maxmemory_bytes / BUFFER_SHARE)
            .clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end()) as usize;
        let worker = Rc::new(Worker {
            server,
            index,
            reader,
            settings: RefCell::new(settings),
            buffers: RefCell::default(),
            buffer_bytes,
            cold_bytes: Cell::new(0),
            connections: Cell::new(0),
            lingering: Cell::new(0),
            connection_ended: Notify::new(),
        });
        LocalSet::new().block_on(&runtime, run(worker, listeners, started))
    })?;
    match is_started.recv() {
        Ok(()) => Ok(thread),
        // The thread has ended without a word.
        Err(_) => Err(match thread.join().expect("a panic ends the process") {
            Ok(()) => io::Error::other("it has ended"),
            Err(error) => error,
        }),
    }
}

fn open_reader(server: &Server, index: usize) -> io::Result<ColdReader> {
    let options = storage::reader_options(&server.config.settings());
    let (reader, notice) = ColdReader::new(&options, Arc::clone(&server.io_stats[index]))?;
    if index == 0 {
        log::notice(format_args!(
            "Cold records are read with {}",
            reader.backend_name()
        ));
        notice.iter().for_each(log::warning);
    }
    Ok(reader)
}

async fn run(
    worker: Rc<Worker>,
    listeners: Listeners,
    started: mpsc::SyncSender<()>,
) -> io::Result<()> {
    let mut accepting = Vec::new();
    for listener in listeners.tcp {
        let listener = TcpListener::from_std(listener)?;
        accepting.push(tokio::task::spawn_local(accept_tcp(
            Rc::clone(&worker),
            listener,
        )));
    }
    if let Some(listener) = listeners.unix {
        let listener = UnixListener::from_std(listener)?;
        accepting.push(tokio::task::spawn_local(accept_unix(
            Rc::clone(&worker),
            listener,
        )));
    }
    if let Some(inbox) = worker.server.inboxes.of(worker.index) {
        accepting.push(tokio::task::spawn_local(take_in(Rc::clone(&worker), inbox)));
    }
    // Nobody waits any more: then there is nothing to serve for.
    started.send(()).map_err(io::Error::other)?;
    worker.server.shutdown.asked().await;
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    for client in worker.server.clients.all() {
        client.wake.notify_one();
    }
    while worker.connections.get() > 0 {
        worker.connection_ended.notified().await;
    }
    Ok(())
}

async fn accept_tcp(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        // While there is no memory for another, clients stay in the backlog.
        let _lease = worker.server.memory.wait_for_client().await;
        match listener.accept().await {
            Ok((socket, peer)) => {
                let local = is_loopback(peer.ip());
                let peer = Peer {
                    addr: peer.to_string(),
                    laddr: socket
                        .local_addr()
                        .map(|addr| addr.to_string())
                        .unwrap_or_default(),
                    fd: socket.as_raw_fd(),
                    unix: false,
                    local,
                };
                set_tcp_options(&worker, &socket);
                let is_protected = worker.settings(|settings| {
                    settings.protected_mode && settings.requirepass.is_empty()
                });
                if is_protected && !local {
                    turn_away(&worker, socket, DENIED);
                } else {
                    welcome(&worker, socket, peer);
                }
            }
            Err(error) => pause_accepting(&error).await,
        }
    }
}

async fn accept_unix(worker: Rc<Worker>, listener: UnixListener) {
    let path = worker
        .settings(|settings| settings.unixsocket.clone())
        .unwrap_or_default();
    let addr = format!("{}:0", path.display());
    loop {
        // While there is no memory for another, clients stay in the backlog.
        let _lease = worker.server.memory.wait_for_client().await;
        match listener.accept().await {
            Ok((socket, _)) => {
                let peer = Peer {
                    addr: addr.clone(),
                    laddr: addr.clone(),
                    fd: socket.as_raw_fd(),
                    unix: true,
                    local: true,
                };
                welcome(&worker, socket, peer);
            }
            Err(error) => pause_accepting(&error).await,
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Latency and liveness options; a connection without them works all the same.
fn set_tcp_options(worker: &Worker, socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    if let Some(interval) = worker.settings(|settings| settings.tcp_keepalive) {
        // As Redis does it: three probes at a third of the interval.
        let probe = (interval / 3).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new()
            .with_time(interval)
            .with_interval(probe)
            .with_retries(3);
        let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
    }
}

/// Out of descriptors or memory, most likely: the client stays in the backlog.
async fn pause_accepting(error: &io::Error) {
    log::warning(format_args!(
        "Accepting client connection: {}",
        sys::error_text(error)
    ));
    tokio::time::sleep(ACCEPT_RETRY).await;
}

/// Has a new client served by the worker with the fewest, unless there are too many.
fn welcome<S: Socket>(worker: &Rc<Worker>, socket: S, peer: Peer) {
    let server = &worker.server;
    let most = worker
        .settings(|settings| settings.maxclients)
        .min(server.max_clients_possible());
    let Some(entry) = server.clients.connect(peer, server.uptime_ms(), most) else {
        turn_away(worker, socket, TOO_MANY_CLIENTS);
        return;
    };
    worker.stats().connections.add(1);
    let chosen = server.inboxes.choose(worker.index);
    if chosen == worker.index {
        serve(worker, socket, entry);
        return;
    }
    match socket.into_accepted() {
        Ok(socket) => server.inboxes.give(chosen, Accepted { socket, entry }),
        Err(error) => forget(server, chosen, &entry, &error),
    }
}

/// Serves the clients that others have accepted for this worker.
async fn take_in(worker: Rc<Worker>, mut inbox: UnboundedReceiver<Accepted>) {
    while let Some(Accepted { socket, entry }) = inbox.recv().await {
        let taken = match socket {
            AcceptedSocket::Tcp(socket) => {
                TcpStream::from_std(socket).map(|socket| serve(&worker, socket, Arc::clone(&entry)))
            }
            AcceptedSocket::Unix(socket) => UnixStream::from_std(socket)
                .map(|socket| serve(&worker, socket, Arc::clone(&entry))),
        };
        if let Err(error) = taken {
            forget(&worker.server, worker.index, &entry, &error);
        }
    }
}

/// Of a client whose socket cannot be had: it has been closed.
fn forget(server: &Server, chosen: usize, entry: &ClientEntry, error: &io::Error) {
    log::warning(format_args!(
        "Accepting client connection: {}",
        sys::error_text(error)
    ));
    server.inboxes.has_gone(chosen);
    server.clients.disconnect(entry.id);
}

/// Serves a client to its end.
fn serve<S: Socket>(worker: &Rc<Worker>, socket: S, entry: Arc<ClientEntry>) {
    worker.connections.set(worker.connections.get() + 1);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        Connection::new(socket, Rc::clone(&worker), entry)
            .serve()
            .await;
        worker.server.inboxes.has_gone(worker.index);
        worker.connections.set(worker.connections.get() - 1);
        worker.connection_ended.notify_one();
    });
}

/// Tells a client why it is not served, if its socket takes that at once, and closes.
fn turn_away<S: Socket>(worker: &Rc<Worker>, mut socket: S, reason: &'static str) {
    worker.stats().rejected_connections.add(1);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let told = tokio::time::timeout(ACCEPT_RETRY, socket.write_all(reason.as_bytes())).await;
        if matches!(told, Ok(Ok(()))) {
            linger(&worker, &mut socket).await;
        }
    });
}
