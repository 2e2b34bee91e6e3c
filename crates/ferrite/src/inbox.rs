//! Where workers get their clients: whoever accepts one gives it to the worker that has the fewest.
//!
//! The system spreads the clients of a port over its sockets by chance, and those of the UNIX socket not at all: the worker that
//! wakes first gets nearly all. A client stays with its worker, so one worker may be busy while the others have nothing to do.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::client::ClientEntry;

/// A client that has been accepted, on its way to the worker that will serve it.
pub(crate) struct Accepted {
    pub(crate) socket: AcceptedSocket,
    pub(crate) entry: Arc<ClientEntry>,
}

/// A socket that no runtime looks after.
pub(crate) enum AcceptedSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The inboxes of all workers.
pub(crate) struct Inboxes {
    workers: Box<[Inbox]>,
}

struct Inbox {
    /// Clients that the worker serves, or is about to.
    clients: AtomicUsize,
    sender: UnboundedSender<Accepted>,
    /// Until the worker takes it.
    receiver: Mutex<Option<UnboundedReceiver<Accepted>>>,
}

impl Inboxes {
    pub(crate) fn new(workers: usize) -> Inboxes {
        let inbox = |_| {
            let (sender, receiver) = unbounded_channel();
            Inbox {
                clients: AtomicUsize::new(0),
                sender,
                receiver: Mutex::new(Some(receiver)),
            }
        };
        Inboxes {
            workers: (0..workers).map(inbox).collect(),
        }
    }

    /// What is given to `worker`; `None` the second time.
    pub(crate) fn of(&self, worker: usize) -> Option<UnboundedReceiver<Accepted>> {
        self.workers[worker].receiver.lock().take()
    }

    /// The worker that has the fewest clients, `own` if that is one of them; the client that it is to serve counts from now on.
    pub(crate) fn choose(&self, own: usize) -> usize {
        let clients = |worker: usize| self.workers[worker].clients.load(Relaxed);
        let others = (0..self.workers.len()).min_by_key(|worker| clients(*worker));
        let chosen = others.filter(|worker| clients(*worker) < clients(own));
        let chosen = chosen.unwrap_or(own);
        self.workers[chosen].clients.fetch_add(1, Relaxed);
        chosen
    }

    /// Gives a client to the worker it was chosen for; one that has ended closes it.
    pub(crate) fn give(&self, worker: usize, accepted: Accepted) {
        // No receiver: the server is being shut down.
        let _ = self.workers[worker].sender.send(accepted);
    }

    /// A client of `worker` has gone.
    pub(crate) fn has_gone(&self, worker: usize) {
        self.workers[worker].clients.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_evenly_whoever_accepts_them() {
        let inboxes = Inboxes::new(3);
        let chosen: Vec<usize> = (0..6).map(|_| inboxes.choose(1)).collect();
        // The acceptor keeps those it is as good a place for as any.
        assert_eq!(chosen[0], 1);
        for worker in 0..3 {
            assert_eq!(chosen.iter().filter(|one| **one == worker).count(), 2);
        }
        inboxes.has_gone(2);
        assert_eq!(inboxes.choose(1), 2);
        assert_eq!(inboxes.choose(0), 0);
    }
}
