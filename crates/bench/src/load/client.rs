//! One client thread: drives its connections from one epoll loop.
//!
//! In a closed loop a connection sends a batch, waits for all its replies, and sends the next; a
//! latency counts from the moment the batch was sent. In an open loop (`--rate`) every operation is
//! due at a time fixed in advance, and its latency counts from that time, however late the server
//! or this client was to take it: an answer that comes slowly cannot hide the ones queued behind
//! it.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use super::connection::{Answers, Connection, Expected};
use super::options::Options;
use super::reply::Reply;
use super::requests::{KeySpace, Operation, Phase, RequestSource};
use crate::latency::Latencies;
use crate::values;

/// How long the server may stay silent while replies are due.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// What the replies of one phase were.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// By operation, in the order of `Operation::ALL`; empty where none was finished.
    latencies: [Option<Latencies>; Operation::ALL.len()],
    pub(crate) value_bytes_written: u64,
    pub(crate) value_bytes_read: u64,
    /// Reads that found nothing, and might.
    pub(crate) misses: u64,
    /// Checked reads that found nothing where a value must be.
    pub(crate) missing: u64,
    /// Checked reads whose bytes are no value of their key.
    pub(crate) wrong: u64,
    /// Checked reads of a version older than one the server had acknowledged.
    pub(crate) stale: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Tally {
    /// Whether nothing was wrong, stale, missing or an error.
    pub(crate) fn is_right(&self) -> bool {
        self.wrong + self.stale + self.missing + self.errors == 0
    }

    /// The finished operations of all kinds.
    pub(crate) fn operations(&self) -> u64 {
        self.by_operation()
            .map(|(_, latencies)| latencies.count())
            .sum()
    }

    /// The latencies of the operations of which any was finished.
    pub(crate) fn by_operation(&self) -> impl Iterator<Item = (Operation, &Latencies)> {
        Operation::ALL
            .into_iter()
            .zip(&self.latencies)
            .filter_map(|(operation, latencies)| Some((operation, latencies.as_ref()?)))
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        for (operation, latencies) in other.by_operation() {
            self.latencies[operation as usize]
                .get_or_insert_with(Latencies::new)
                .add(latencies);
        }
        self.value_bytes_written += other.value_bytes_written;
        self.value_bytes_read += other.value_bytes_read;
        self.misses += other.misses;
        self.missing += other.missing;
        self.wrong += other.wrong;
        self.stale += other.stale;
        self.errors += other.errors;
        self.first_error = self
            .first_error
            .take()
            .or_else(|| other.first_error.clone());
    }

    /// Counts one reply.
    #[inline]
    fn count(&mut self, expected: &Expected, reply: &Reply<'_>, keys: &KeySpace, now_nanos: u64) {
        let request = &expected.request;
        match (expected.answers, reply) {
            (Answers::Get, Reply::Bulk(value)) => {
                self.value_bytes_read += value.len() as u64;
                if keys.is_checked() {
                    match values::check(value, request.key) {
                        None => self.wrong += 1,
                        Some(version) if version < request.oldest_right => self.stale += 1,
                        Some(_) => {}
                    }
                }
            }
            (Answers::Get, Reply::Null) if request.oldest_right > 0 => self.missing += 1,
            (Answers::Get, Reply::Null) => self.misses += 1,
            (Answers::Set, Reply::Status(b"OK")) => {
                self.value_bytes_written += keys.sizes.of(request.key, request.version) as u64;
                keys.acknowledge(request.operation, request.key, request.version);
            }
            (Answers::Delete, Reply::Integer) => {}
            (_, Reply::Error(text)) => self.count_error(text.escape_ascii().to_string()),
            (_, other) => self.count_error(format!("a reply of the wrong kind: {other:?}")),
        }
        if let Some(operation) = expected.finishes {
            self.latencies[operation as usize]
                .get_or_insert_with(Latencies::new)
                .record(now_nanos.saturating_sub(expected.began_nanos));
        }
    }

    #[cold]
    fn count_error(&mut self, text: String) {
        self.errors += 1;
        self.first_error.get_or_insert(text);
    }
}

/// The connections of one thread.
pub(crate) struct Client {
    connections: Vec<Connection>,
    epoll: OwnedFd,
    pipeline: usize,
    all_connections: usize,
}

impl Client {
    /// Opens the connections with the given numbers.
    pub(crate) fn connect(
        options: &Options,
        numbers: impl Iterator<Item = usize>,
    ) -> Result<Self, String> {
        let connections = numbers
            .map(|n| Connection::open(options, n))
            .collect::<Result<Vec<_>, _>>()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(epoll_error)?;
        for (at, connection) in connections.iter().enumerate() {
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&epoll, connection, data, epoll::EventFlags::IN).map_err(epoll_error)?;
        }
        Ok(Client {
            connections,
            epoll,
            pipeline: options.pipeline as usize,
            all_connections: options.connections,
        })
    }

    /// Runs one phase to its end.
    pub(crate) fn run(&mut self, phase: &Phase<'_>) -> Result<Tally, String> {
        // Sleep as precisely as the clock allows: a send that is due must not wait for a slack.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        for connection in &mut self.connections {
            connection.source = Some(RequestSource::new(connection.number as u64, phase));
            connection.started = 0;
        }
        let mut tally = Tally::default();
        let mut events = Vec::with_capacity(self.connections.len().min(1024));
        let mut last_heard = phase.started.elapsed();
        for at in 0..self.connections.len() {
            self.advance(at, phase)?;
        }
        while self.connections.iter().any(Connection::is_busy) {
            events.clear();
            self.wait(&mut events, phase)?;
            let now = phase.started.elapsed();
            if !events.is_empty() || !self.connections.iter().any(Connection::awaits_reply) {
                last_heard = now;
            } else if now - last_heard > MAX_SILENCE {
                return Err(format!(
                    "the server has not answered for {} s",
                    MAX_SILENCE.as_secs()
                ));
            }
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                let at = data.u64() as usize;
                if flags != epoll::EventFlags::OUT {
                    self.take_replies(at, phase, &mut tally)?;
                }
                self.advance(at, phase)?;
            }
            if phase.rate.is_some() {
                for at in 0..self.connections.len() {
                    self.advance(at, phase)?;
                }
            }
        }
        Ok(tally)
    }

    /// Receives what has come for connection `at` and counts its whole replies.
    fn take_replies(
        &mut self,
        at: usize,
        phase: &Phase<'_>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let connection = &mut self.connections[at];
        connection
            .receive()
            .map_err(|error| format!("cannot read from the server: {error}"))?;
        let now_nanos = phase.started.elapsed().as_nanos() as u64;
        let mut finished = 0;
        while let Some((expected, reply)) = connection.next_reply()? {
            tally.count(&expected, &reply, phase.key_space, now_nanos);
            finished += u64::from(expected.finishes.is_some());
        }
        phase.done.fetch_add(finished, Ordering::Relaxed);
        Ok(())
    }

    /// Queues what connection `at` should send by now, and sends what the socket takes.
    fn advance(&mut self, at: usize, phase: &Phase<'_>) -> Result<(), String> {
        let connection = &mut self.connections[at];
        let now_nanos = phase.started.elapsed().as_nanos() as u64;
        match phase.rate {
            None if connection.expected.is_empty() => {
                for _ in 0..self.pipeline {
                    connection.start_next(phase, now_nanos, now_nanos);
                }
            }
            None => {}
            Some(rate) => {
                while connection.source.is_some() && connection.expected.len() < self.pipeline {
                    let due = connection.due_nanos(rate, self.all_connections);
                    if phase.starts_nothing_at(due) {
                        connection.source = None;
                    } else if due > now_nanos {
                        break;
                    } else {
                        connection.start_next(phase, now_nanos, due);
                    }
                }
            }
        }
        connection
            .send()
            .map_err(|error| format!("cannot write to the server: {error}"))?;
        if connection.has_unsent() != connection.watches_writes {
            connection.watches_writes = connection.has_unsent();
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, connection.watches_writes);
            epoll::modify(
                &self.epoll,
                &*connection,
                epoll::EventData::new_u64(at as u64),
                flags,
            )
            .map_err(epoll_error)?;
        }
        Ok(())
    }

    /// Waits until a connection is ready, an operation is due, or a second has passed.
    fn wait(&self, events: &mut Vec<epoll::Event>, phase: &Phase<'_>) -> Result<(), String> {
        let mut patience = Duration::from_secs(1);
        if let Some(rate) = phase.rate {
            let now = phase.started.elapsed();
            for connection in &self.connections {
                if connection.source.is_some() && connection.expected.len() < self.pipeline {
                    let due = connection.due_nanos(rate, self.all_connections);
                    patience = patience.min(Duration::from_nanos(due).saturating_sub(now));
                }
            }
        }
        let timeout = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(events),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(epoll_error(error)),
        }
    }
}

impl Connection {
    /// Queues the next operation, or drops the source once it has no more.
    fn start_next(&mut self, phase: &Phase<'_>, now_nanos: u64, began_nanos: u64) {
        match self
            .source
            .as_mut()
            .and_then(|source| source.next(phase, now_nanos))
        {
            Some(request) => {
                self.push(request, phase.key_space, began_nanos);
                self.started += 1;
            }
            None => self.source = None,
        }
    }

    /// When its next operation is due in an open loop of `rate` operations a second over
    /// `connections` connections, in nanoseconds of the phase.
    fn due_nanos(&self, rate: f64, connections: usize) -> u64 {
        let turn = self.started * connections as u64 + self.number as u64;
        (turn as f64 * 1e9 / rate) as u64
    }

    fn awaits_reply(&self) -> bool {
        !self.expected.is_empty()
    }

    fn is_busy(&self) -> bool {
        self.awaits_reply() || self.source.is_some()
    }
}

fn epoll_error(error: rustix::io::Errno) -> String {
    format!("epoll failed: {error}")
}
