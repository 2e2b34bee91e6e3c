//! Clients that wait for keys: BLPOP and its kin, and whatever else waits until a key holds something.
//!
//! **For who writes a command that may wait.** Its row has `Flags::BLOCKING` and names the keys. Its handler does what can be
//! done at once, as the command that does not wait would. If there is nothing to be done, and [`may_block`] says so, it calls
//! [`block`] with a [`Request`], and returns without having replied; else it replies what a client gets whose time is over. That
//! is all: [`Request::serve`] is called, with a reply to be written, when one of the keys holds a value of the type that is waited
//! for, as a part of the operation that has stored it there.
//!
//! **How it goes on.** A command that changes keys has them latched exclusively. When its handler has ended, and before its
//! latches are free, dispatch asks here who waits for one of them ([`Ready::note`], [`serve`]), and does for those clients, in
//! the order in which they have begun to wait, what they wait for. EXEC does so at its end. So nobody comes in between: as in
//! Redis, who pushes to a list and asks for its length is told what is left of it. When the operation has ended its replies
//! are handed over ([`Ready::deliver`]), with the place in the command log that they have to wait for.
//!
//! **Why nobody sleeps for ever.** A client is entered here while its command holds the latches under which it has found
//! nothing. Whoever stores something latches the key exclusively: either before that, and then it was found; or after it, and
//! then, because the latch was handed on in between, he finds the client entered, and the number of those who wait not zero.
//! Who is found is served by one: [`Waiter::begin`] is a step under a lock, and whose time is over, who is unblocked or goes away
//! takes the same step. An operation that fails to go on half-way ([`Ready`] is dropped) has those whom it has not served look
//! for themselves.
//!
//! A request that changes another key than the one that is ready (BLMOVE) has that one latched as well, if it is free. If it is
//! not, the client runs its command again itself, and if that finds nothing any more, it waits in its old place.

mod request;
mod waiter;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use hybridlog::{Namespace, Position};
use parking_lot::Mutex;

pub(crate) use request::{Request, Served, block, may_block, timeout_argument};
pub(crate) use waiter::{Blocked, End, FormerWait, Waiter};

use crate::admission::OUT_OF_MEMORY;
use crate::command::{Done, Flags, Keys, Stop};
use crate::ctx::{Ctx, Progress};
use crate::dispatch::{Call, Scope, conclude};
use crate::output::Output;
use crate::server::Server;
use crate::table::Command;

const SHARDS: usize = 64;

/// Who waits for which keys.
pub(crate) struct Blocking {
    /// How many clients wait; the first thing that a write looks at.
    clients: AtomicUsize,
    last_ticket: AtomicU64,
    hasher: RandomState,
    shards: Box<[Shard]>,
}

/// Those who wait, by key.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<HashMap<Box<[u8]>, Vec<Queue>>>);

/// Those who wait for one type of value under one key, by their tickets: the first comes first.
struct Queue {
    namespace: Namespace,
    kind: u8,
    waiters: BTreeMap<u64, Arc<Waiter>>,
    /// How many of them want to know that the value has gone.
    on_removal: usize,
}

impl Default for Blocking {
    fn default() -> Self {
        Blocking {
            clients: AtomicUsize::new(0),
            last_ticket: AtomicU64::new(0),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }
}

impl Blocking {
    /// Whether anybody waits.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.clients.load(Relaxed) != 0
    }

    /// How many clients wait for keys.
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// How many keys are waited for, and for how many of them somebody waits who wants to know that they go.
    pub(crate) fn keys(&self) -> (usize, usize) {
        let (mut keys, mut on_removal) = (0, 0);
        for shard in &self.shards {
            for queues in shard.0.lock().values() {
                keys += 1;
                on_removal += usize::from(queues.iter().any(|queue| queue.on_removal > 0));
            }
        }
        (keys, on_removal)
    }

    fn shard(&self, key: &[u8]) -> &Shard {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn next_ticket(&self) -> u64 {
        self.last_ticket.fetch_add(1, Relaxed) + 1
    }

    /// Enters a waiter, whose keys are latched.
    fn enter(&self, waiter: &Arc<Waiter>) {
        self.clients.fetch_add(1, Relaxed);
        let namespace = waiter.namespace();
        waiter
            .keys
            .iter()
            .for_each(|key| self.add(waiter, namespace, key));
    }

    fn add(&self, waiter: &Arc<Waiter>, namespace: Namespace, key: &[u8]) {
        let mut shard = self.shard(key).0.lock();
        if !shard.contains_key(key) {
            shard.insert(key.into(), Vec::new());
        }
        let Some(queues) = shard.get_mut(key) else {
            return;
        };
        let kind = waiter.kind();
        let is_its = |queue: &Queue| queue.namespace == namespace && queue.kind == kind;
        let at = queues.iter().position(is_its).unwrap_or_else(|| {
            queues.push(Queue {
                namespace,
                kind,
                waiters: BTreeMap::new(),
                on_removal: 0,
            });
            queues.len() - 1
        });
        queues[at].waiters.insert(waiter.ticket, Arc::clone(waiter));
        queues[at].on_removal += usize::from(waiter.on_removal());
    }

    /// Takes a waiter out of the queue of a key; whether it was there.
    fn remove(&self, waiter: &Waiter, namespace: Namespace, key: &[u8]) -> bool {
        let mut shard = self.shard(key).0.lock();
        let Some(queues) = shard.get_mut(key) else {
            return false;
        };
        let mut was_there = false;
        for queue in queues.iter_mut() {
            let is_its = queue.namespace == namespace && queue.kind == waiter.kind();
            if is_its && queue.waiters.remove(&waiter.ticket).is_some() {
                queue.on_removal -= usize::from(waiter.on_removal());
                was_there = true;
            }
        }
        queues.retain(|queue| !queue.waiters.is_empty());
        if queues.is_empty() {
            shard.remove(key);
        }
        was_there
    }

    /// Forgets a waiter that waits no more.
    fn leave(&self, waiter: &Waiter) {
        // Under its lock, so that no database moves it meanwhile.
        let namespace = waiter.namespace.lock();
        for key in &waiter.keys {
            self.remove(waiter, *namespace, key);
        }
        self.clients.fetch_sub(1, Relaxed);
    }

    /// The first who waits for a key, with a ticket greater than `after`: for a value of type `kind`, or, if there is none of
    /// the type it waits for, to know that.
    fn next(
        &self,
        (namespace, key): (Namespace, &[u8]),
        kind: Option<u8>,
        after: u64,
    ) -> Option<Arc<Waiter>> {
        let shard = self.shard(key).0.lock();
        let queues = shard.get(key)?.iter();
        let queues = queues.filter(|queue| queue.namespace == namespace);
        let waiters = queues.filter_map(|queue| {
            let mut waiters = queue.waiters.range(after + 1..);
            if Some(queue.kind) == kind {
                return waiters.next();
            }
            if queue.on_removal == 0 {
                return None;
            }
            waiters.find(|(_, waiter)| waiter.on_removal())
        });
        let first = waiters.min_by_key(|(ticket, _)| **ticket);
        first.map(|(_, waiter)| Arc::clone(waiter))
    }

    /// All keys that are waited for, those first for which somebody has waited longest.
    fn all(&self) -> Vec<(Namespace, Box<[u8]>)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for (key, queues) in shard.0.lock().iter() {
                for queue in queues {
                    let first = queue.waiters.keys().next().copied();
                    all.push((first, queue.namespace, key.clone()));
                }
            }
        }
        all.sort();
        let keys = all.into_iter().map(|(_, namespace, key)| (namespace, key));
        keys.collect()
    }

    /// The databases have other namespaces from now on, the second of each two in the place of the first: clients wait for the
    /// keys of their databases. All latches are held.
    pub(crate) fn move_waiters(&self, moves: &[(Namespace, Namespace)]) {
        if !self.is_any() {
            return;
        }
        let mut waiters = BTreeMap::new();
        for shard in &self.shards {
            let shard = shard.0.lock();
            let queues = shard.values().flatten();
            for waiter in queues.flat_map(|queue| queue.waiters.values()) {
                waiters.insert(waiter.ticket, Arc::clone(waiter));
            }
        }
        for waiter in waiters.values() {
            let mut namespace = waiter.namespace.lock();
            let Some((from, to)) = moves.iter().find(|(from, _)| from == &*namespace) else {
                continue;
            };
            for key in &waiter.keys {
                // It may have left since its queues were looked at.
                if self.remove(waiter, *from, key) {
                    self.add(waiter, *to, key);
                }
            }
            *namespace = *to;
        }
    }
}

/// Whether the operation of a command that has ended may have made ready what somebody waits for.
#[inline]
pub(crate) fn may_wake(cx: &Ctx<'_>, command: &Command) -> bool {
    cx.op.changes() > 0
        && cx.server.blocking.is_any()
        && !command.row.flags.has(Flags::WAKES_NOBODY)
}

type Key = (Namespace, Arc<[u8]>);

/// The keys that an operation has changed and that somebody waits for, and how far those who do have been served.
#[derive(Default)]
pub(crate) struct Ready {
    keys: VecDeque<Key>,
    /// The same.
    known: HashSet<Key>,
    /// The ticket of who was the last one to be looked at for the first of the keys.
    after: u64,
    /// Who is being served, and how far that has come.
    current: Option<(Arc<Waiter>, Progress)>,
    served: Vec<(Arc<Waiter>, Output)>,
    blocking: Option<Arc<Blocking>>,
}

impl Ready {
    /// A command has changed something: notes which of its keys somebody waits for.
    pub(crate) fn note(&mut self, server: &Server, call: Call<'_>, scope: Scope) {
        if call.command.row.keys == Keys::Everything {
            for (namespace, key) in server.blocking.all() {
                self.add(&server.blocking, (namespace, key.into()));
            }
        } else {
            for key in scope.keys(call) {
                self.note_key(&server.blocking, key.namespace, key.key);
            }
        }
    }

    fn note_key(&mut self, blocking: &Arc<Blocking>, namespace: Namespace, key: &[u8]) {
        let is_awaited = blocking.shard(key).0.lock().contains_key(key);
        if is_awaited {
            self.add(blocking, (namespace, key.into()));
        }
    }

    fn add(&mut self, blocking: &Arc<Blocking>, key: Key) {
        self.blocking.get_or_insert_with(|| Arc::clone(blocking));
        if self.known.insert(key.clone()) {
            self.keys.push_back(key);
        }
    }

    /// Whether there is somebody to be served.
    pub(crate) fn is_any(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The operation has ended, and what it has changed ends at `written` of the command log.
    pub(crate) fn deliver(mut self, written: Option<Position>) {
        for (waiter, reply) in self.served.drain(..) {
            waiter.end(End::Served { reply, written });
        }
    }

    /// Nobody else is served in this operation: those who wait have to look for themselves.
    pub(crate) fn give_up(&mut self) {
        match self.current.take() {
            Some((waiter, progress)) if progress.has_begun => {
                // What has been done for it stays, as of any command.
                let mut reply = Output::new(waiter.protocol);
                reply.error(OUT_OF_MEMORY);
                self.served.push((waiter, reply));
            }
            Some((waiter, _)) => waiter.end(End::RunAgain),
            None => {}
        }
        let Some(blocking) = self.blocking.take() else {
            return;
        };
        self.known.clear();
        for (namespace, key) in std::mem::take(&mut self.keys) {
            let mut shard = blocking.shard(&key).0.lock();
            let queues = shard.get_mut(&*key).into_iter().flatten();
            let queues = queues.filter(|queue| queue.namespace == namespace);
            for waiter in queues.flat_map(|queue| queue.waiters.values()) {
                if waiter.begin() {
                    waiter.end(End::RunAgain);
                }
            }
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.give_up();
        for (waiter, reply) in self.served.drain(..) {
            // The operation was cut off, but what it has done stays.
            let written = None;
            waiter.end(End::Served { reply, written });
        }
    }
}

/// What is left to do when a command's handler has ended, if others wait for keys that it has changed: serving them.
pub(crate) struct Serving {
    ready: Ready,
    /// How the handler has ended.
    done: Done,
}

impl Serving {
    /// The handler of `call` has ended, and changed something.
    #[cold]
    pub(crate) fn new(server: &Server, call: Call<'_>, scope: Scope, done: Done) -> Box<Serving> {
        let mut ready = Ready::default();
        ready.note(server, call, scope);
        Box::new(Serving { ready, done })
    }

    /// Serves as many as it can. Returns how the command ends, and who is to be told when its operation has; if it has to
    /// wait, this is called again when it goes on.
    pub(crate) fn go_on(mut self: Box<Self>, cx: &mut Ctx<'_>) -> (Done, Option<Ready>) {
        match serve(cx, &mut self.ready) {
            Ok(()) => (self.done, Some(self.ready)),
            Err(stop) => {
                cx.progress.serving = Some(self);
                (Err(stop), None)
            }
        }
    }

    /// There is no room to go on.
    pub(crate) fn give_up(&mut self) {
        self.ready.give_up();
    }
}

/// Serves those who wait for the keys of `ready`. A part of the operation that has made them ready: if it stops, to wait for
/// something, the operation is suspended, and this is called again when it goes on.
pub(crate) fn serve(cx: &mut Ctx<'_>, ready: &mut Ready) -> Result<(), Stop> {
    loop {
        if let Some((waiter, progress)) = ready.current.take() {
            serve_one(cx, ready, waiter, progress)?;
            continue;
        }
        let Some((namespace, key)) = ready.keys.front() else {
            return Ok(());
        };
        let kind = match cx.op.read(*namespace, key) {
            Ok(record) => record.map(|record| record.meta().kind),
            Err(hybridlog::Stop::Io(_)) => {
                // Each of them will find out by itself, and be told.
                ready.give_up();
                return Ok(());
            }
            Err(stop) => return Err(stop.into()),
        };
        let blocking = &cx.server.blocking;
        match blocking.next((*namespace, key), kind, ready.after) {
            Some(waiter) => {
                ready.after = waiter.ticket;
                if waiter.begin() {
                    ready.current = Some((waiter, Progress::default()));
                }
            }
            None => {
                if let Some(key) = ready.keys.pop_front() {
                    ready.known.remove(&key);
                }
                ready.after = 0;
            }
        }
    }
}

/// Does for a client what it waits for, if that can be done.
fn serve_one(
    cx: &mut Ctx<'_>,
    ready: &mut Ready,
    waiter: Arc<Waiter>,
    progress: Progress,
) -> Result<(), Stop> {
    let Some((namespace, key)) = ready.keys.front().cloned() else {
        return Ok(());
    };
    if !progress.has_begun && waiter.is_passed_over() {
        // Its client may have gone while this operation waited for memory.
        waiter.go_on_waiting();
        return Ok(());
    }
    let of_command = (
        cx.namespace,
        std::mem::take(&mut cx.progress),
        cx.reply.protocol(),
    );
    (cx.namespace, cx.progress) = (namespace, progress);
    cx.reply.set_protocol(waiter.protocol);
    let (mark, changes) = (cx.reply.mark(), cx.op.changes());
    if !cx.progress.has_begun {
        cx.op.begin_step();
    }
    cx.progress.resume(cx.reply);
    let served = waiter.request.serve(cx, &key);
    cx.client.allowance.end();
    let progress = std::mem::take(&mut cx.progress);
    let waits = served.as_ref().is_err_and(Stop::is_wait);
    if waits {
        let has_begun = progress.has_begun || progress.steps() > 0 || cx.op.changes() > changes;
        let progress = if has_begun {
            progress.suspend(cx.reply, mark)
        } else {
            Progress::default()
        };
        ready.current = Some((Arc::clone(&waiter), progress));
    }
    let outcome = match served {
        Err(stop) if waits => Err(stop),
        Err(stop) => {
            // An error ends its waiting as well, and is its reply.
            let _ = conclude(Err(stop), cx.reply, mark);
            Ok(Served::Yes)
        }
        Ok(served) => Ok(served),
    };
    let reply = cx.reply.split_off(mark);
    (cx.namespace, cx.progress) = (of_command.0, of_command.1);
    cx.reply.set_protocol(of_command.2);
    match outcome? {
        Served::Yes => {
            if let Some(changed) = waiter.request.changes() {
                ready.note_key(&cx.server.blocking, namespace, changed);
            }
            ready.served.push((waiter, reply));
        }
        Served::NotYet => waiter.go_on_waiting(),
        Served::RunAgain => waiter.end(End::RunAgain),
    }
    Ok(())
}
