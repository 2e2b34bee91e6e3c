//! A worker: one thread with a runtime and listeners of its own, which accepts clients and serves them to their end.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime;
use tokio::task::LocalSet;

use crate::client::Peer;
use crate::connection::{Connection, Socket};
use crate::server::Server;
use crate::stats::WorkerStats;

/// The size of a fresh read buffer, and how many are kept for the next connection that has something to read.
const BUFFER_BYTES: usize = 64 * 1024;
const BUFFERS_KEPT: usize = 16;

/// What the connections of one worker share.
pub(crate) struct Worker {
    pub(crate) server: Arc<Server>,
    pub(crate) index: usize,
    buffers: RefCell<Vec<Vec<u8>>>,
}

impl Worker {
    pub(crate) fn stats(&self) -> &WorkerStats {
        self.server.stats.worker(self.index)
    }

    /// An empty buffer to read into.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back that is done with; one that grew large is freed.
    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if (1..=BUFFER_BYTES).contains(&buffer.capacity()) && buffers.len() < BUFFERS_KEPT {
            buffer.clear();
            buffers.push(buffer);
        }
    }
}

/// The listening sockets of one worker.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) tcp: Vec<std::net::TcpListener>,
    pub(crate) unix: Option<std::os::unix::net::UnixListener>,
}

/// Starts worker `index`.
pub(crate) fn start(server: Arc<Server>, index: usize, listeners: Listeners) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = Rc::new(Worker { server, index, buffers: RefCell::default() });
        LocalSet::new().block_on(&runtime, run(worker, listeners))
    })
}

async fn run(worker: Rc<Worker>, listeners: Listeners) -> io::Result<()> {
    for listener in listeners.tcp {
        let listener = TcpListener::from_std(listener)?;
        tokio::task::spawn_local(accept_tcp(Rc::clone(&worker), listener));
    }
    if let Some(listener) = listeners.unix {
        let listener = UnixListener::from_std(listener)?;
        tokio::task::spawn_local(accept_unix(Rc::clone(&worker), listener));
    }
    worker.server.shutdown.asked().await;
    Ok(())
}

async fn accept_tcp(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                // Only a latency optimisation: a connection that refuses it works all the same.
                let _ = socket.set_nodelay(true);
                let laddr = socket.local_addr().map(|addr| addr.to_string()).unwrap_or_default();
                welcome(&worker, socket, |socket: &TcpStream| Peer {
                    addr: peer.to_string(),
                    laddr,
                    fd: std::os::fd::AsRawFd::as_raw_fd(socket),
                    unix: false,
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn accept_unix(worker: Rc<Worker>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => welcome(&worker, socket, |socket: &UnixStream| Peer {
                addr: String::new(),
                laddr: String::new(),
                fd: std::os::fd::AsRawFd::as_raw_fd(socket),
                unix: true,
            }),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Serves a new client, unless there are too many.
fn welcome<S: Socket>(worker: &Rc<Worker>, mut socket: S, peer: impl FnOnce(&S) -> Peer) {
    let server = &worker.server;
    let peer = peer(&socket);
    match server.clients.connect(worker.index, peer, server.uptime_ms(), server.max_clients()) {
        Some(entry) => {
            worker.stats().connections.add(1);
            tokio::task::spawn_local(Connection::new(socket, Rc::clone(worker), entry).serve());
        }
        None => {
            worker.stats().rejected_connections.add(1);
            tokio::task::spawn_local(async move {
                let _ = socket.write_all(b"-ERR max number of clients reached\r\n").await;
            });
        }
    }
}
