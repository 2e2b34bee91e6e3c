//! One client that waits, seen by those who may serve it.

use std::sync::Arc;

use hybridlog::{Namespace, Position};
use parking_lot::Mutex;
use resp::Protocol;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Blocking, Request};
use crate::args::Args;
use crate::client::{ClientEntry, client_flags};
use crate::output::Output;

/// A client that waits.
pub(crate) struct Waiter {
    /// Greater than those of all who have begun to wait for one of its keys before.
    pub(super) ticket: u64,
    pub(super) request: Box<dyn Request>,
    /// Each of them once.
    pub(super) keys: Vec<Box<[u8]>>,
    /// Of the client's database. Locked before the keys of [`Blocking`] are.
    pub(super) namespace: Mutex<Namespace>,
    pub(super) protocol: Protocol,
    state: Mutex<State>,
    changed: Notify,
}

enum State {
    Waiting,
    /// Somebody does what it waits for, or has found out that it waits no more.
    Claimed {
        /// Somebody else could have served it, or wanted to end its waiting, meanwhile.
        is_passed_over: bool,
    },
    Ended(Option<End>),
}

/// How the waiting ends.
pub(crate) enum End {
    /// With a reply, and where the changes that it tells of end in the command log.
    Served {
        reply: Output,
        written: Option<Position>,
    },
    /// The client is to run its command again.
    RunAgain,
    /// Its time is over, or CLIENT UNBLOCK.
    TimedOut,
    /// CLIENT UNBLOCK ERROR.
    Unblocked,
}

impl Waiter {
    pub(super) fn new(
        ticket: u64,
        request: Box<dyn Request>,
        keys: Vec<Box<[u8]>>,
        namespace: Namespace,
        protocol: Protocol,
    ) -> Waiter {
        Waiter {
            ticket,
            request,
            keys,
            namespace: Mutex::new(namespace),
            protocol,
            state: Mutex::new(State::Waiting),
            changed: Notify::new(),
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.request.kind()
    }

    pub(super) fn on_removal(&self) -> bool {
        self.request.on_removal()
    }

    pub(super) fn namespace(&self) -> Namespace {
        *self.namespace.lock()
    }

    /// Whether it waits still: the caller is then the only one to end that.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        match &mut *state {
            State::Waiting => {
                *state = State::Claimed {
                    is_passed_over: false,
                };
                true
            }
            State::Claimed { is_passed_over } => {
                *is_passed_over = true;
                false
            }
            State::Ended(_) => false,
        }
    }

    /// Whether somebody else has come to it since the caller has begun, or its client has gone.
    pub(super) fn is_passed_over(&self) -> bool {
        let state = self.state.lock();
        matches!(
            *state,
            State::Claimed {
                is_passed_over: true
            }
        )
    }

    /// Ends the waiting, by who has begun to.
    pub(super) fn end(&self, end: End) {
        *self.state.lock() = State::Ended(Some(end));
        self.changed.notify_one();
    }

    /// It could not be served after all. If somebody else came to it meanwhile, it has to look for itself.
    pub(super) fn go_on_waiting(&self) {
        let mut state = self.state.lock();
        let is_passed_over = matches!(
            *state,
            State::Claimed {
                is_passed_over: true
            }
        );
        if !is_passed_over {
            *state = State::Waiting;
            return;
        }
        *state = State::Ended(Some(End::RunAgain));
        drop(state);
        self.changed.notify_one();
    }

    /// Ends the waiting unless somebody else does; whether it has.
    pub(crate) fn try_end(&self, end: End) -> bool {
        let begun = self.begin();
        if begun {
            self.end(end);
        }
        begun
    }
}

/// What the client's connection holds while it waits; dropping it ends that.
pub(crate) struct Blocked {
    pub(super) blocking: Arc<Blocking>,
    pub(super) waiter: Arc<Waiter>,
    pub(super) entry: Arc<ClientEntry>,
    /// None is for ever.
    pub(crate) deadline: Option<Instant>,
    /// What CLIENT REPLY says of the reply.
    pub(crate) wants_reply: bool,
}

impl Blocked {
    /// Waits for the end.
    pub(crate) async fn ended(&self) -> End {
        let waiter = &self.waiter;
        loop {
            if let State::Ended(end) = &mut *waiter.state.lock()
                && let Some(end) = end.take()
            {
                return end;
            }
            let is_over = self.deadline.is_some_and(|at| at <= Instant::now());
            if is_over && waiter.try_end(End::TimedOut) {
                continue;
            }
            match self.deadline.filter(|_| !is_over) {
                // That it is over shows above.
                Some(at) => drop(tokio::time::timeout_at(at, waiter.changed.notified()).await),
                None => waiter.changed.notified().await,
            }
        }
    }

    /// What is to be known of it when the client runs its command again.
    pub(crate) fn former(&self) -> FormerWait {
        FormerWait {
            waiter: Arc::clone(&self.waiter),
            deadline: self.deadline,
        }
    }
}

/// How a client has waited whose command runs again.
#[derive(Clone)]
pub(crate) struct FormerWait {
    waiter: Arc<Waiter>,
    deadline: Option<Instant>,
}

impl FormerWait {
    /// Its place among those who wait, and until when it does, if it has to wait again.
    pub(super) fn place(&self) -> (u64, Option<Instant>) {
        (self.waiter.ticket, self.deadline)
    }

    /// What its command runs again with, if not with what the client has sent.
    pub(crate) fn args(&self) -> Option<Args<'_>> {
        self.waiter.request.args()
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // Nobody serves it from here on; who is at it serves nobody.
        self.waiter.begin();
        self.blocking.leave(&self.waiter);
        *self.entry.waiter.lock() = None;
        self.entry.set_flag(client_flags::BLOCKED, false);
    }
}
