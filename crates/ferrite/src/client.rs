//! The state of one client connection: [`Client`] belongs to the connection and is what handlers see; [`ClientEntry`]
//! is the part that other connections may look at (CLIENT LIST) or act on (CLIENT KILL), kept in [`Clients`].

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed,
};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use hybridlog::{KeptLatches, Lookups, Operation, Position, Suspended, Watch};

use crate::args::Args;
use crate::blocking::{Blocked, FormerWait, Waiter};
use crate::command::{Flags, Stop};
use crate::commands::Sorting;
use crate::config::Origin;
use crate::ctx::Progress;
use crate::dispatch::Call;
use crate::exec::Exec;
use crate::log;
use crate::memory::{Allowance, Memory};
use crate::table::Command;
use crate::transaction::Transaction;

/// What the connection does once the current command's reply has been written to the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum After {
    /// Goes on with the next command.
    #[default]
    Continue,
    /// Sends what is in the output, then closes (QUIT).
    Close,
    /// Closes at once, and sends nothing any more.
    Abort,
    /// Leaves this client alone for a while; the worker serves others (DEBUG SLEEP).
    Sleep(Duration),
    /// Waits for something, and then answers the command, which has not been answered yet.
    Await(Awaited),
    /// Waits for keys: the command is answered then, see [`blocking`](crate::blocking).
    Block,
}

/// What WAIT and WAITAOF wait for. No timeout is for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    /// More replicas than there are, which is none.
    Replicas { timeout: Option<Duration> },
    /// That the client's changes would survive a power cut: here, if `local`, and on replicas.
    Sync {
        local: bool,
        replicas: bool,
        timeout: Option<Duration>,
    },
}

impl After {
    /// For how long the client is left alone; statistics count it as time of the command.
    pub(crate) fn pause(self) -> Duration {
        match self {
            After::Sleep(pause) => pause,
            After::Continue | After::Close | After::Abort | After::Await(_) | After::Block => {
                Duration::ZERO
            }
        }
    }

    /// Both: closing comes before all else, pauses add up.
    pub(crate) fn and(self, other: After) -> After {
        match (self, other) {
            (After::Abort, _) | (_, After::Abort) => After::Abort,
            (After::Close, _) | (_, After::Close) => After::Close,
            (After::Sleep(one), After::Sleep(other)) => After::Sleep(one + other),
            // No command of a transaction waits, see `Client::may_wait`.
            (After::Await(_) | After::Block, after) | (after, After::Await(_) | After::Block) => {
                after
            }
            (After::Continue, after) | (after, After::Continue) => after,
        }
    }
}

/// CLIENT REPLY.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReplyMode {
    /// No command is answered.
    pub(crate) off: bool,
    /// This command is not answered.
    pub(crate) skip: bool,
    /// The next command is not answered.
    pub(crate) skip_next: bool,
}

impl ReplyMode {
    /// Whether what is replied now is sent.
    #[inline]
    pub(crate) fn sends(self) -> bool {
        !self.off && !self.skip
    }
}

/// A command that waits half-way.
pub(crate) struct HalfDone {
    pub(crate) suspended: Suspended,
    pub(crate) progress: Progress,
}

impl HalfDone {
    /// There will be no room for it. If its handler has ended, and only others are left who wait for what it has stored, they
    /// have to look for themselves, and it can go on: whether that is so.
    pub(crate) fn give_up_serving(&mut self) -> bool {
        match &mut self.progress.serving {
            Some(serving) => {
                serving.give_up();
                true
            }
            None => false,
        }
    }
}

/// A connected client, as the handler of its command sees it.
pub(crate) struct Client {
    /// What others can see.
    pub(crate) entry: Arc<ClientEntry>,
    /// Whether commands that need AUTH are allowed.
    pub(crate) authenticated: bool,
    pub(crate) reply_mode: ReplyMode,
    /// What its command may allocate beyond small change.
    pub(crate) allowance: Allowance,
    /// Set by a handler, obeyed and reset by the connection.
    pub(crate) after: After,
    /// Keys found and not found by the command that runs; dispatch adds them to the statistics when it has ended, so
    /// that a run that is repeated does not count twice.
    pub(crate) keyspace_hits: u32,
    pub(crate) keyspace_misses: u32,
    /// How often the command that runs has met cold records, and its latches once that is too often.
    pub(crate) cold_runs: u32,
    pub(crate) kept_latches: Option<KeptLatches>,
    /// What has been queued since MULTI.
    pub(crate) transaction: Option<Box<Transaction>>,
    /// An EXEC that waits for something.
    pub(crate) exec: Option<Box<Exec>>,
    /// A command that had to wait after it had changed something, or done a step. It goes on to its end, whatever becomes of the client.
    pub(crate) half_done: Option<HalfDone>,
    /// What the command that runs picks by, if it picks at random.
    pub(crate) seed: Option<u64>,
    /// How far the SORT that runs has come: it is run again without the latches it had.
    pub(crate) sorting: Option<Box<Sorting>>,
    /// Changes that the command which runs has made, to be added to the statistics when it has ended.
    pub(crate) changes: u64,
    /// Where the client's last change ends in the command log.
    pub(crate) written: Option<Position>,
    /// Its command waits for keys.
    pub(crate) blocked: Option<Blocked>,
    /// How the command that runs has waited before.
    pub(crate) waits_again: Option<FormerWait>,
    /// Whether the command that runs may leave its reply to be waited for; those of a transaction may not.
    pub(crate) may_wait: bool,
    database: usize,
}

impl Client {
    pub(crate) fn new(entry: Arc<ClientEntry>, authenticated: bool, memory: Arc<Memory>) -> Self {
        Client {
            allowance: Allowance::new(memory, entry.id),
            entry,
            authenticated,
            reply_mode: ReplyMode::default(),
            after: After::Continue,
            keyspace_hits: 0,
            keyspace_misses: 0,
            cold_runs: 0,
            kept_latches: None,
            transaction: None,
            exec: None,
            half_done: None,
            seed: None,
            sorting: None,
            changes: 0,
            written: None,
            blocked: None,
            waits_again: None,
            may_wait: true,
            database: 0,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.entry.id
    }

    /// A command begins.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.note_no_lookups();
        self.changes = 0;
    }

    /// A command ends: whether its reply is sent.
    #[inline]
    pub(crate) fn wants_reply(&mut self) -> bool {
        self.sorting = None;
        let wants = self.reply_mode.sends();
        self.reply_mode.skip = std::mem::take(&mut self.reply_mode.skip_next);
        wants
    }

    /// MULTI.
    pub(crate) fn begin_transaction(&mut self, transaction: Transaction) {
        self.transaction = Some(Box::new(transaction));
        self.publish_transaction();
    }

    /// Queues a command if there is a transaction, and says whether there is.
    #[inline]
    pub(crate) fn queue(&mut self, command: &Command, args: Args<'_>) -> bool {
        let Some(transaction) = &mut self.transaction else {
            return false;
        };
        transaction.push(command, args);
        self.publish_transaction();
        true
    }

    /// Asks for the memory that it will take if a command is queued, if a transaction is open.
    pub(crate) fn ask_to_queue(&mut self, args: Args<'_>) -> Result<(), Stop> {
        match &self.transaction {
            Some(transaction) => self.allowance.ask(transaction.growth_for(args) as u64),
            None => Ok(()),
        }
    }

    /// Whether a queued command has this flag.
    pub(crate) fn has_queued(&self, flag: Flags) -> bool {
        let transaction = self.transaction.as_ref();
        transaction.is_some_and(|transaction| transaction.has(flag))
    }

    /// A command was refused: what has been queued will not be executed.
    pub(crate) fn break_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.is_broken = true;
        }
    }

    /// Forgets what has been queued, and watches nothing any more.
    pub(crate) fn end_transaction(&mut self) {
        self.transaction = None;
        self.publish_transaction();
        self.unwatch();
    }

    /// Whether a key that it watches has changed, or expired by `now_ms`.
    pub(crate) fn has_lost_watch(&self, now_ms: u64) -> bool {
        let watch = self.entry.watch.get();
        watch.is_some_and(|watch| watch.has_changed(now_ms))
    }

    /// Watches nothing any more.
    pub(crate) fn unwatch(&self) {
        if let Some(watch) = self.entry.watch.get() {
            watch.clear();
        }
    }

    fn publish_transaction(&self) {
        let transaction = self.transaction.as_ref();
        let queued = transaction.map_or(-1, |transaction| transaction.len() as i64);
        self.entry.queued.store(queued, Relaxed);
        self.entry
            .queued_bytes
            .store(self.queued_bytes() as u64, Relaxed);
    }

    /// Whether a command, or a transaction, has changed something and not ended.
    pub(crate) fn is_half_done(&self) -> bool {
        let exec = self.exec.as_ref();
        self.half_done.is_some() || exec.is_some_and(|exec| exec.is_suspended())
    }

    /// How many steps of the command that runs are done, if it waits half-way.
    pub(crate) fn steps_done(&self) -> usize {
        let sorted = self.sorting.as_ref().map_or(0, |sorting| sorting.steps());
        let steps = match (&self.half_done, &self.exec) {
            (Some(half_done), _) => half_done.progress.steps(),
            (None, Some(exec)) => exec.steps_done(),
            (None, None) => 0,
        };
        steps + sorted
    }

    /// Memory of what has been queued.
    pub(crate) fn queued_bytes(&self) -> usize {
        let transaction = self.transaction.as_ref();
        transaction.map_or(0, |transaction| transaction.memory_bytes())
    }

    /// Notes which keys the command has found; of few commands it counts. Each key counts once, though a command that does
    /// several things looks it up for each.
    #[inline]
    pub(crate) fn note_lookups(&mut self, call: Call<'_>, lookups: Lookups) {
        if !call.command.counts_hits {
            return;
        }
        let Lookups {
            mut found,
            mut absent,
        } = lookups;
        if found + absent > 1 {
            let keys = call.command.row.keys.positions(call.args).count() as u32;
            found = found.min(keys);
            absent = absent.min(keys - found);
        }
        (self.keyspace_hits, self.keyspace_misses) = (found, absent);
    }

    /// Notes what the operation has changed, which ends with this.
    #[inline]
    pub(crate) fn note_changes(&mut self, op: Operation<'_>) {
        self.changes = op.element_changes();
        self.written = op.finish().or(self.written);
    }

    pub(crate) fn note_no_lookups(&mut self) {
        self.keyspace_hits = 0;
        self.keyspace_misses = 0;
    }

    /// Number of the selected database.
    pub(crate) fn database(&self) -> usize {
        self.database
    }

    /// Selects a database; the caller has checked that it exists.
    pub(crate) fn select(&mut self, database: usize) {
        self.database = database;
        self.entry.database.store(database as u32, Relaxed);
    }
}

/// Bits of [`ClientEntry::flags`].
pub(crate) mod client_flags {
    /// CLIENT NO-EVICT ON.
    pub(crate) const NO_EVICT: u32 = 1 << 0;
    /// CLIENT NO-TOUCH ON: its reads do not count for who stays in memory.
    pub(crate) const NO_TOUCH: u32 = 1 << 1;
    /// Connected through the UNIX socket.
    pub(crate) const UNIX_SOCKET: u32 = 1 << 2;
    /// Closes once its output has been sent.
    pub(crate) const CLOSE_AFTER_REPLY: u32 = 1 << 3;
    /// Waits for CLIENT PAUSE to end.
    pub(crate) const PAUSED: u32 = 1 << 4;
    /// Has to take replies before more of its requests are run.
    pub(crate) const BEHIND: u32 = 1 << 5;
    /// Waits for keys.
    pub(crate) const BLOCKED: u32 = 1 << 6;
}

/// What can be seen of a client from everywhere. Counters and sizes are as of its latest batch of commands.
pub(crate) struct ClientEntry {
    pub(crate) id: u64,
    /// "ip:port", "[ip6]:port", or "/path:0" of a UNIX socket.
    pub(crate) addr: String,
    pub(crate) laddr: String,
    pub(crate) fd: i32,
    local: bool,
    pub(crate) connected_at: Instant,
    /// See [`client_flags`].
    pub(crate) flags: AtomicU32,
    pub(crate) database: AtomicU32,
    /// 2 or 3.
    pub(crate) protocol: AtomicU32,
    /// Index of the latest command in the command table, `u16::MAX` before the first.
    pub(crate) last_command: AtomicU16,
    /// When it last sent something: milliseconds since the server's start.
    pub(crate) last_interaction_ms: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) net_input_bytes: AtomicU64,
    pub(crate) net_output_bytes: AtomicU64,
    /// Bytes in the query buffer, and its free space.
    pub(crate) query_bytes: AtomicU64,
    pub(crate) query_free_bytes: AtomicU64,
    /// Bytes of the arguments of the command being received or executed.
    pub(crate) args_bytes: AtomicU64,
    /// Commands queued since MULTI, -1 without a transaction, and the memory they take.
    pub(crate) queued: AtomicI64,
    pub(crate) queued_bytes: AtomicU64,
    /// What it watches, since its first WATCH.
    pub(crate) watch: OnceLock<Watch>,
    /// Set while it waits for keys.
    pub(crate) waiter: Mutex<Option<Arc<Waiter>>>,
    /// Replies not sent yet, and the capacity of their buffer.
    pub(crate) output_bytes: AtomicU64,
    pub(crate) output_pieces: AtomicU64,
    pub(crate) output_capacity_bytes: AtomicU64,
    /// Cold records fetched for the commands that are being run.
    pub(crate) fetched_bytes: AtomicU64,
    /// Since when it has been the client's turn to send or to take something, milliseconds since the server's start;
    /// 0: it is the server's.
    pub(crate) awaited_since_ms: AtomicU64,
    /// The client is to be closed if it still has not moved when its connection looks.
    is_suspect: AtomicBool,
    /// Since when the output has been over the soft limit, milliseconds since the server's start; 0: it is not.
    pub(crate) over_soft_limit_since_ms: AtomicU64,
    pub(crate) details: Mutex<ClientDetails>,
    killed: AtomicBool,
    /// Why: too many replies wait for it.
    is_over_output_limit: AtomicBool,
    /// Wakes the connection: it was killed.
    pub(crate) wake: Notify,
}

/// The texts of a client.
#[derive(Clone, Debug)]
pub(crate) struct ClientDetails {
    /// CLIENT SETNAME; empty if not set.
    pub(crate) name: Vec<u8>,
    /// CLIENT SETINFO.
    pub(crate) lib_name: Vec<u8>,
    pub(crate) lib_ver: Vec<u8>,
    /// The user it authenticated as.
    pub(crate) user: String,
}

impl Default for ClientDetails {
    fn default() -> Self {
        ClientDetails {
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            user: "default".to_owned(),
        }
    }
}

impl ClientEntry {
    pub(crate) fn new(id: u64, peer: Peer, now_ms: u64) -> Self {
        ClientEntry {
            id,
            addr: peer.addr,
            laddr: peer.laddr,
            fd: peer.fd,
            local: peer.local,
            connected_at: Instant::now(),
            flags: AtomicU32::new(if peer.unix {
                client_flags::UNIX_SOCKET
            } else {
                0
            }),
            database: AtomicU32::new(0),
            protocol: AtomicU32::new(2),
            last_command: AtomicU16::new(u16::MAX),
            last_interaction_ms: AtomicU64::new(now_ms),
            commands: AtomicU64::new(0),
            net_input_bytes: AtomicU64::new(0),
            net_output_bytes: AtomicU64::new(0),
            query_bytes: AtomicU64::new(0),
            query_free_bytes: AtomicU64::new(0),
            args_bytes: AtomicU64::new(0),
            queued: AtomicI64::new(-1),
            queued_bytes: AtomicU64::new(0),
            watch: OnceLock::new(),
            waiter: Mutex::default(),
            output_bytes: AtomicU64::new(0),
            output_pieces: AtomicU64::new(0),
            output_capacity_bytes: AtomicU64::new(0),
            fetched_bytes: AtomicU64::new(0),
            awaited_since_ms: AtomicU64::new(0),
            is_suspect: AtomicBool::new(false),
            over_soft_limit_since_ms: AtomicU64::new(0),
            details: Mutex::new(ClientDetails::default()),
            killed: AtomicBool::new(false),
            is_over_output_limit: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Closes the connection as soon as its current command has ended; output that was not sent is dropped.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// As [`Self::kill`], because too many replies wait for the client.
    pub(crate) fn close_for_output_limit(&self) {
        log::warning(format_args!(
            "Client id={} addr={} closed for overcoming of output buffer limits.",
            self.id, self.addr
        ));
        self.is_over_output_limit.store(true, Relaxed);
        self.kill();
    }

    pub(crate) fn is_over_output_limit(&self) -> bool {
        self.is_over_output_limit.load(Relaxed)
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Relaxed)
    }

    /// It is the client's turn now, if it was not before.
    pub(crate) fn begin_to_await(&self, now_ms: u64) {
        if self.awaited_since_ms.load(Relaxed) == 0 {
            self.awaited_since_ms.store(now_ms.max(1), Relaxed);
            self.is_suspect.store(false, Relaxed);
        }
    }

    /// The client has moved, or it is the server's turn.
    pub(crate) fn end_to_await(&self) {
        self.awaited_since_ms.store(0, Relaxed);
    }

    /// Whether it has been the client's turn for so long.
    pub(crate) fn is_awaited_for(&self, duration: Duration, now_ms: u64) -> bool {
        match self.awaited_since_ms.load(Relaxed) {
            0 => false,
            since_ms => u128::from(now_ms.saturating_sub(since_ms)) >= duration.as_millis(),
        }
    }

    /// Has the connection look whether the client has moved meanwhile, and close it if not.
    pub(crate) fn suspect(&self) {
        self.is_suspect.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// Whether the connection is to close the client, which has not moved. It may have had no time to look before.
    pub(crate) fn is_found_stalled(&self) -> bool {
        self.is_suspect.swap(false, Relaxed) && self.awaited_since_ms.load(Relaxed) != 0
    }

    /// Bytes of memory held for this client's buffers.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.query_bytes.load(Relaxed)
            + self.query_free_bytes.load(Relaxed)
            + self.queued_bytes.load(Relaxed)
            + self.watch_bytes()
            + self
                .output_capacity_bytes
                .load(Relaxed)
                .max(self.output_bytes.load(Relaxed))
            + self.fetched_bytes.load(Relaxed)
            + size_of::<ClientEntry>() as u64
    }

    /// Memory of the keys it watches.
    pub(crate) fn watch_bytes(&self) -> u64 {
        let watch = self.watch.get();
        watch.map_or(0, |watch| watch.memory_bytes() as u64)
    }

    /// Number of the keys it watches.
    pub(crate) fn watched_keys(&self) -> usize {
        self.watch.get().map_or(0, Watch::len)
    }

    /// Whether the client is on this machine.
    pub(crate) fn origin(&self) -> Origin {
        if self.local {
            Origin::Local
        } else {
            Origin::Remote
        }
    }

    pub(crate) fn has_flag(&self, flag: u32) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    pub(crate) fn set_flag(&self, flag: u32, on: bool) {
        if on {
            self.flags.fetch_or(flag, Relaxed);
        } else {
            self.flags.fetch_and(!flag, Relaxed);
        }
    }
}

/// The two ends of a connection.
pub(crate) struct Peer {
    pub(crate) addr: String,
    pub(crate) laddr: String,
    pub(crate) fd: i32,
    pub(crate) unix: bool,
    /// Connected through the UNIX socket or from a loopback address.
    pub(crate) local: bool,
}

/// All connected clients.
#[derive(Default)]
pub(crate) struct Clients {
    by_id: Mutex<BTreeMap<u64, Arc<ClientEntry>>>,
    last_id: AtomicU64,
}

impl Clients {
    /// Registers a client unless `max` are connected already.
    pub(crate) fn connect(&self, peer: Peer, now_ms: u64, max: usize) -> Option<Arc<ClientEntry>> {
        let mut by_id = self.by_id.lock();
        if by_id.len() >= max {
            return None;
        }
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let entry = Arc::new(ClientEntry::new(id, peer, now_ms));
        by_id.insert(id, Arc::clone(&entry));
        Some(entry)
    }

    pub(crate) fn disconnect(&self, id: u64) {
        self.by_id.lock().remove(&id);
    }

    /// The client with this number.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<ClientEntry>> {
        self.by_id.lock().get(&id).cloned()
    }

    /// All clients, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<ClientEntry>> {
        self.by_id.lock().values().cloned().collect()
    }
}
