//! Probes: connections that ask for a key that is in memory at fixed times, and notice every stall.

use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use resp::Reply;

use super::Shared;
use crate::connection::Connection;
use crate::latency::Latencies;

const PROBES: usize = 2;

/// The time from one question of a probe to its next.
const INTERVAL: Duration = Duration::from_millis(1);

/// One in this many questions is a write.
const WRITE_ONE_IN: u64 = 4;

/// All probes of a run.
pub(super) struct Probes<'scope> {
    threads: Vec<ScopedJoinHandle<'scope, Result<(), String>>>,
    latencies: &'scope Mutex<Latencies>,
}

/// Starts them; they end with the load.
pub(super) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Shared,
) -> Probes<'scope> {
    let latencies = &shared.probed;
    let threads = (0..PROBES)
        .map(|number| scope.spawn(move || probe(shared, latencies, number)))
        .collect();
    Probes { threads, latencies }
}

impl Probes<'_> {
    /// What has been measured since the last call.
    pub(super) fn take(&self) -> Latencies {
        let mut latencies = self.latencies.lock().expect("no probe panics");
        std::mem::replace(&mut latencies, Latencies::new())
    }

    /// Waits until all have ended.
    pub(super) fn join(self) -> Result<(), String> {
        self.threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a probe panicked")?)
    }
}

fn probe(shared: &Shared, latencies: &Mutex<Latencies>, number: usize) -> Result<(), String> {
    let mut connection = Connection::open(shared.launch.socket())?;
    let (key, value) = (format!("probe:{number}").into_bytes(), [b'p'; 64]);
    let mut due = Instant::now();
    for question in 0u64.. {
        if shared.stop.load(Relaxed) {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let (arguments, expected): (&[&[u8]], _) = if question % WRITE_ONE_IN == 0 {
            (&[b"SET", &key, &value], Reply::Simple(b"OK".to_vec()))
        } else {
            (&[b"GET", &key], Reply::Bulk(value.to_vec()))
        };
        let reply = connection.call(arguments)?;
        if reply != expected {
            return Err(format!("a probe was answered {reply:?}"));
        }
        // From when it was due: a question that waited behind one that stalled has stalled too.
        let nanos = due.elapsed().as_nanos() as u64;
        latencies.lock().expect("no probe panics").record(nanos);
        due += INTERVAL;
    }
    match connection.call(&[b"DEL", &key])? {
        Reply::Integer(1) => Ok(()),
        other => Err(format!("DEL of a probe's key was answered {other:?}")),
    }
}
