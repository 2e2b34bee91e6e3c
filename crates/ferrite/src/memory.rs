//! How the heap shares `maxmemory` with the engine: the engine gives way before the heap grows.
//!
//! What the heap may take is *granted*; the engine keeps to what the grant leaves. Whoever is about to take much memory
//! for a client asks first ([`Memory::take`]). Where the grant does not reach that far, it is extended, which means that
//! segments have to leave memory, and the client waits its turn ([`Memory::wait`]). Memory that nobody asked for is
//! covered by a margin, and by the next [`Memory::refresh`].
//!
//! The clients' share has three parts: large demands are met from the first (half of it, if they are for clients that do
//! not take the replies they have), small ones from the second too, so that ordinary requests go on while somebody waits
//! for much. The third is a reserve for one client at a time, the holder of
//! the *pass*, and large enough for any request: so somebody always gets on, however many hold half a request.
//!
//! Invariant: the heap in use and what is promised of it are granted, but for the margin.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hybridlog::Store;
use parking_lot::Mutex;

use crate::command::Stop;
use crate::config::Settings;
use crate::{heap, storage};

/// A demand up to this size is small.
const SMALL_BYTES: u64 = 64 * 1024;
/// By this share of `maxmemory`, within these bounds, the heap may grow before anybody looks.
const MARGIN_SHARE: u64 = 64;
const MARGIN_BYTES: RangeInclusive<u64> = 512 * 1024..=32 * 1024 * 1024;
/// So much memory clients have in any case, so that whoever set `maxmemory` too low can set it right.
const CLIENTS_LEAST_BYTES: u64 = 2 << 20;
/// This share of the heap is lost between blocks.
const LOST_SHARE: u64 = 16;
/// Beside the longest request, others have this share of what there is for clients, and so much at least.
const OTHERS_SHARE: u64 = 16;
const OTHERS_LEAST_BYTES: u64 = 1 << 20;
/// A request may take so much beside the longest value, and so much in any case.
const REQUEST_BYTES: u64 = 1 << 20;
/// Heap that is no client's is the least of so many samples: what is fetched or copied for a client for a moment makes some of
/// them too large.
const BASE_SAMPLES: usize = 30;
/// Writing key files, the command log and compaction take so much more for a while.
const BACKGROUND_BYTES: u64 = 1 << 20;
/// How often the first in the line looks whether there is memory for it, and how long before it gives up: the holder of
/// the pass, for whom those who do not move have been closed by then, and others.
const RETRY: Duration = Duration::from_millis(1);
const PASS_PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client takes beside its buffers.
const CLIENT_BYTES: u64 = 8 * 1024;
/// How often a worker looks whether there is memory for another client.
const CLIENT_RETRY: Duration = Duration::from_millis(10);

/// The heap's share of `maxmemory`.
pub(crate) struct Memory {
    store: Arc<Store>,
    state: Mutex<State>,
    /// Whose turn it is among those who wait.
    line: tokio::sync::Mutex<()>,
    /// How long the first in the line has been waiting, in milliseconds.
    waiting_ms: AtomicU64,
    /// What the longest request may take, in bytes.
    request_bytes: AtomicU64,
}

/// All in bytes.
struct State {
    /// Heap that is no client's: at the start, and now.
    base_at_start: u64,
    base: u64,
    base_samples: [u64; BASE_SAMPLES],
    next_sample: usize,
    /// What the engine was told to leave to the heap, and what it does leave.
    asked: u64,
    granted: u64,
    /// To those who are about to allocate it.
    promised: u64,
    bounds: Bounds,
    /// The client that may use the reserve, and the least that it holds.
    pass: Option<u64>,
    pass_since: Instant,
    pass_held: u64,
    /// Of what is promised, how much to those who had the pass.
    pass_promised: u64,
}

/// How far the heap may grow, by what it grows for, in bytes in use.
#[derive(Clone, Copy, Default, Debug)]
struct Bounds {
    spare: u64,
    large: u64,
    small: u64,
    reserve: u64,
    margin: u64,
    /// More takes from the engine what it cannot work without.
    engine_least: u64,
    /// Memory that is neither heap nor the engine's.
    fixed: u64,
}

/// Why memory cannot be had now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Short {
    /// Others have taken what there is for such a demand.
    Share,
    /// The engine has not yet given way.
    Engine,
}

/// More memory is wanted than there will be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooMuch;

impl Memory {
    pub(crate) fn new(store: Arc<Store>, settings: &Settings) -> Arc<Memory> {
        let base = heap_bytes(&store);
        let memory = Memory {
            state: Mutex::new(State {
                base_at_start: base,
                base,
                base_samples: [base; BASE_SAMPLES],
                next_sample: 0,
                asked: 0,
                granted: 0,
                promised: 0,
                bounds: Bounds::default(),
                pass: None,
                pass_since: Instant::now(),
                pass_held: 0,
                pass_promised: 0,
            }),
            line: tokio::sync::Mutex::default(),
            waiting_ms: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            store,
        };
        memory.refresh(settings);
        Arc::new(memory)
    }

    /// What is in use now is no client's.
    pub(crate) fn note_base(&self, settings: &Settings) {
        {
            let mut state = self.state.lock();
            let base = heap_bytes(&self.store);
            state.base_at_start = base;
            state.base = base;
            state.base_samples.fill(base);
        }
        self.refresh(settings);
    }

    /// Takes note of what clients hold; the rest of the heap is not theirs, or held for a moment. About once a second.
    pub(crate) fn note_clients(&self, bytes: u64) {
        let mut state = self.state.lock();
        let sample = state.next_sample;
        state.base_samples[sample] = heap_bytes(&self.store).saturating_sub(bytes);
        state.next_sample = (sample + 1) % BASE_SAMPLES;
        let least = state.base_samples.iter().min();
        state.base = least.map_or(state.base_at_start, |&least| least.max(state.base_at_start));
    }

    /// Takes note of what has changed: the settings, the index, the heap. Several times a second.
    pub(crate) fn refresh(&self, settings: &Settings) {
        let mut state = self.state.lock();
        state.bounds = Bounds::new(settings, &self.store, &state);
        self.request_bytes.store(state.bounds.request(), Relaxed);
        state.asked = state.asked.max(state.ask_for(self.in_use(&state)));
        self.tell_engine(&mut state);
    }

    /// Lets the engine have back what the heap does not need any more. About once a second: it takes a moment.
    pub(crate) fn settle(&self) {
        let is_much = |state: &State| state.asked > self.in_use(state) + 2 * state.bounds.margin;
        if !is_much(&self.state.lock()) {
            return;
        }
        // Freed blocks are the engine's only when the allocator has given them back.
        heap::give_back_free();
        let mut state = self.state.lock();
        if is_much(&state) {
            state.asked = state.ask_for(self.in_use(&state));
            self.tell_engine(&mut state);
        }
    }

    /// Heap that is not the engine's, in use and promised.
    fn in_use(&self, state: &State) -> u64 {
        heap_bytes(&self.store) + state.promised
    }

    fn tell_engine(&self, state: &mut State) {
        let reserved = state.bounds.fixed + state.asked + state.asked / LOST_SHARE;
        self.store.set_reserved_bytes(reserved);
        if self.store.has_given_way() {
            state.granted = state.asked;
        }
    }

    /// `bytes` of memory for a client, if there are so many right now.
    pub(crate) fn take(self: &Arc<Self>, client: u64, bytes: u64) -> Option<Lease> {
        self.try_take(&mut self.state.lock(), client, bytes).ok()
    }

    fn try_take(
        self: &Arc<Self>,
        state: &mut State,
        client: u64,
        bytes: u64,
    ) -> Result<Lease, Short> {
        let bounds = state.bounds;
        if state.pass == Some(client) {
            let mut lease = self.take_up_to(state, bytes, bounds.reserve)?;
            lease.of_pass = true;
            state.pass_promised += bytes;
            return Ok(lease);
        }
        let bound = match bytes {
            ..=SMALL_BYTES => bounds.small,
            _ => bounds.large,
        };
        self.take_up_to(state, bytes, state.with_pass(bound))
    }

    fn take_up_to(
        self: &Arc<Self>,
        state: &mut State,
        bytes: u64,
        bound: u64,
    ) -> Result<Lease, Short> {
        let margin = state.bounds.margin;
        let wanted = self.in_use(state) + bytes;
        if wanted > bound {
            return Err(Short::Share);
        }
        if wanted > state.granted {
            state.asked = state.asked.max(state.ask_for(wanted));
            self.tell_engine(state);
        }
        // The engine may be unable to write and give way; small requests go on for a while.
        let overdraft = if bytes <= SMALL_BYTES { margin } else { 0 };
        if wanted > state.granted + overdraft {
            return Err(Short::Engine);
        }
        state.promised += bytes;
        Ok(Lease {
            memory: Arc::clone(self),
            bytes,
            of_pass: false,
        })
    }

    /// `bytes` of memory for a client that can do without, if there is plenty.
    pub(crate) fn take_spare(self: &Arc<Self>, bytes: u64) -> Option<Lease> {
        let mut state = self.state.lock();
        let bound = state.with_pass(state.bounds.spare);
        self.take_up_to(&mut state, bytes, bound).ok()
    }

    /// Waits in line for `bytes` of memory. A client that has waited may have become the holder of the pass, and tells
    /// what it holds from then on ([`Self::note_held`]).
    ///
    /// # Errors
    ///
    /// There will not be so much.
    pub(crate) async fn wait(self: &Arc<Self>, client: u64, bytes: u64) -> Result<Lease, TooMuch> {
        let has_pass = self.state.lock().pass == Some(client);
        let _turn = if has_pass {
            None
        } else {
            Some(self.line.lock().await)
        };
        let _waiting = Waiting(&self.waiting_ms);
        let begin = Instant::now();
        loop {
            let waited = begin.elapsed();
            if let Some(done) = self.take_first(client, bytes, waited) {
                return done;
            }
            self.waiting_ms
                .store(waited.as_millis() as u64 + 1, Relaxed);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Memory for another client, once there is some.
    pub(crate) async fn wait_for_client(self: &Arc<Self>) -> Lease {
        loop {
            let taken = {
                let mut state = self.state.lock();
                let bound = state.bounds.reserve;
                self.take_up_to(&mut state, CLIENT_BYTES, bound)
            };
            match taken {
                Ok(lease) => return lease,
                Err(_) => tokio::time::sleep(CLIENT_RETRY).await,
            }
        }
    }

    /// One attempt of a client that is first in the line, or has the pass; `None`: not yet.
    fn take_first(
        self: &Arc<Self>,
        client: u64,
        bytes: u64,
        waited: Duration,
    ) -> Option<Result<Lease, TooMuch>> {
        let mut state = self.state.lock();
        let mut taken = self.try_take(&mut state, client, bytes);
        if matches!(taken, Err(Short::Share)) && state.pass.is_none() {
            state.pass = Some(client);
            state.pass_since = Instant::now();
            taken = self.try_take(&mut state, client, bytes);
        }
        let has_waited = match state.pass == Some(client) {
            true => waited.min(state.pass_since.elapsed()) > PASS_PATIENCE,
            false => waited > PATIENCE,
        };
        let never = bytes > state.bounds.request() || has_waited;
        match taken {
            Ok(lease) => Some(Ok(lease)),
            Err(_) if never => Some(Err(TooMuch)),
            Err(_) => None,
        }
    }

    pub(crate) fn has_pass(&self, client: u64) -> bool {
        self.state.lock().pass == Some(client)
    }

    /// The client, which may have the pass, is about to free `bytes`.
    pub(crate) fn note_freed(&self, client: u64, bytes: u64) {
        let mut state = self.state.lock();
        if state.pass == Some(client) {
            state.pass_held = state.pass_held.saturating_sub(bytes);
        }
    }

    /// The client, which may have the pass, holds `bytes` now, of which `heap_bytes` at least are heap, also when it has
    /// freed what it is about to free. Who holds little gives the pass back.
    pub(crate) fn note_held(&self, client: u64, bytes: u64, heap_bytes: u64) {
        let mut state = self.state.lock();
        if state.pass != Some(client) {
            return;
        }
        state.pass_held = heap_bytes;
        if bytes <= SMALL_BYTES {
            state.pass = None;
            state.pass_held = 0;
        }
    }

    /// For how long somebody has been waiting for memory.
    pub(crate) fn waiting(&self) -> Duration {
        Duration::from_millis(self.waiting_ms.load(Relaxed))
    }

    /// What clients may take together.
    pub(crate) fn clients_bytes(&self) -> u64 {
        let state = self.state.lock();
        state
            .bounds
            .reserve
            .saturating_sub(state.base + BACKGROUND_BYTES)
    }

    /// What the longest request may take.
    pub(crate) fn request_bytes(&self) -> u64 {
        self.request_bytes.load(Relaxed)
    }
}

fn heap_bytes(store: &Store) -> u64 {
    heap::bytes().saturating_sub(store.heap_bytes())
}

impl State {
    /// A bound for others than the holder of the pass, beside what that has. Too much here, if only for a moment, and
    /// others would hold what it waits for: so it is told before it frees something, and counts what it has allocated
    /// late.
    fn with_pass(&self, bound: u64) -> u64 {
        (bound + self.pass_held + self.pass_promised).min(self.bounds.reserve)
    }

    /// Asks for `bytes` and the margin, which must not take from the engine what it needs.
    fn ask_for(&self, bytes: u64) -> u64 {
        (bytes + self.bounds.margin)
            .min(self.bounds.engine_least)
            .max(bytes)
    }
}

impl Bounds {
    fn new(settings: &Settings, store: &Store, state: &State) -> Bounds {
        let fixed = storage::fixed_bytes(settings);
        let left = store.reserved_max_bytes().saturating_sub(fixed);
        let left = left - left / (LOST_SHARE + 1);
        let margin = (settings.maxmemory_bytes / MARGIN_SHARE)
            .clamp(*MARGIN_BYTES.start(), *MARGIN_BYTES.end());
        let room = |base: u64| left.saturating_sub(base + BACKGROUND_BYTES + margin);
        // The longest request has room in the heap and once more, in pages, in the log, beside what is for others.
        let for_one = room(state.base_at_start);
        let for_one = for_one.saturating_sub((for_one / OTHERS_SHARE).max(OTHERS_LEAST_BYTES));
        let request = (store.value_max_bytes() / 16 * 17 + REQUEST_BYTES).min(for_one / 33 * 16);
        let share = settings
            .maxmemory_clients_bytes
            .unwrap_or(settings.maxmemory_bytes / 2);
        let clients = room(state.base)
            .saturating_sub(request / 16 * 17)
            .min(share)
            .max(CLIENTS_LEAST_BYTES);
        let small = clients - request.min(clients / 16 * 15);
        let base = state.base + BACKGROUND_BYTES;
        Bounds {
            spare: base + small / 2,
            large: base + small / 4 * 3,
            small: base + small,
            reserve: base + clients,
            margin,
            engine_least: left.max(base + CLIENTS_LEAST_BYTES),
            fixed,
        }
    }

    /// What one request may take.
    fn request(&self) -> u64 {
        (self.reserve - self.small).max(REQUEST_BYTES)
    }
}

/// Somebody is the first in the line.
struct Waiting<'m>(&'m AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.store(0, Relaxed);
    }
}

/// Memory promised to somebody until this is dropped. By then it has been allocated, and counts as heap in use.
pub(crate) struct Lease {
    memory: Arc<Memory>,
    bytes: u64,
    /// Whether whom it was promised had the pass.
    of_pass: bool,
}

impl Lease {
    /// `bytes` of it, if it has so many.
    pub(crate) fn split(&mut self, bytes: u64) -> Option<Lease> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(Lease {
            memory: Arc::clone(&self.memory),
            bytes,
            of_pass: self.of_pass,
        })
    }

    /// Lets go of `bytes` of it.
    fn shrink_by(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let mut state = self.memory.state.lock();
        state.promised -= bytes;
        if self.of_pass {
            state.pass_promised -= bytes;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink_by(self.bytes);
    }
}

/// What the command that a client runs may allocate.
pub(crate) struct Allowance {
    memory: Arc<Memory>,
    client: u64,
    lease: Option<Lease>,
    /// What the command has asked for so far, in all and with its latest demand.
    asked: u64,
    latest: u64,
}

impl Allowance {
    pub(crate) fn new(memory: Arc<Memory>, client: u64) -> Self {
        Allowance {
            memory,
            client,
            lease: None,
            asked: 0,
            latest: 0,
        }
    }

    /// The command is about to allocate `bytes`; what it asked for before it has allocated.
    ///
    /// # Errors
    ///
    /// There is not so much memory now: the command is to wait for all it has asked for, and run again.
    pub(crate) fn ask(&mut self, bytes: u64) -> Result<(), Stop> {
        if bytes == 0 {
            return Ok(());
        }
        self.asked += bytes;
        if let Some(lease) = &mut self.lease {
            lease.shrink_by(self.latest);
        }
        self.latest = bytes;
        if self
            .lease
            .as_ref()
            .is_some_and(|lease| lease.bytes >= bytes)
        {
            return Ok(());
        }
        // Less than was waited for is of no use.
        self.lease = None;
        self.lease = self.memory.take(self.client, bytes);
        match self.lease {
            Some(_) => Ok(()),
            None => Err(Stop::Memory(self.asked)),
        }
    }

    /// What the command has asked for in this run, bytes.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// A command is to be run again, with what it has waited for.
    pub(crate) fn begin(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// The run of a command is over.
    #[inline]
    pub(crate) fn end(&mut self) {
        if self.asked > 0 || self.lease.is_some() {
            self.lease = None;
            self.asked = 0;
            self.latest = 0;
        }
    }
}
