//! Load from several threads for as long as something else is being looked at.
//!
//! Writers overwrite random keys, as fast as they can or at a fixed rate. Probes have a question for one key at fixed moments, and
//! count from the moment at which it was due. Questions that were due while a probe waited are not asked any more, and count as if
//! they had been answered when that one was: so a stall counts for all that it would have held up, and ends when it ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use resp::Reply;

use crate::connection::append_command;
use crate::keys::KeyFormat;
use crate::latency::Latencies;
use crate::random::Random;
use crate::testbed::{KEY_BYTES, Testbed};
use crate::values;

/// SETs that a writer sends at once.
const PIPELINE: u64 = 16;

/// The version that writers write; at first keys have version 1.
const VERSION: u32 = 2;

/// How much load there is.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Those that are written and asked for are the first so many.
    pub(crate) keys: u64,
    pub(crate) writers: u64,
    /// SETs a second of all writers together; as many as can be if there is none.
    pub(crate) sets_per_second: Option<f64>,
    pub(crate) probes: u64,
    /// Between two questions of a probe.
    pub(crate) interval: Duration,
    /// One in so many questions is a SET, the others are GETs.
    pub(crate) set_one_in: u64,
}

/// The load on one server while it lasts.
pub(crate) struct Pressure<'a> {
    testbed: &'a Testbed,
    shape: Shape,
    format: KeyFormat,
    stop: AtomicBool,
    sets: AtomicU64,
    probed: Mutex<Latencies>,
}

/// What was seen in some stretch of time.
pub(crate) struct Seen {
    pub(crate) latencies: Latencies,
    pub(crate) sets: u64,
}

impl<'a> Pressure<'a> {
    /// Does `what` under load.
    pub(crate) fn during<T>(
        testbed: &'a Testbed,
        shape: Shape,
        what: impl FnOnce(&Pressure<'a>) -> Result<T, String>,
    ) -> Result<T, String> {
        let pressure = Pressure {
            testbed,
            shape,
            format: KeyFormat::new(KEY_BYTES, testbed.data.keys)?,
            stop: AtomicBool::new(false),
            sets: AtomicU64::new(0),
            probed: Mutex::new(Latencies::new()),
        };
        let pressure = &pressure;
        thread::scope(|scope| {
            let writers = (0..shape.writers)
                .map(|number| scope.spawn(move || pressure.until_stopped(number, Self::write)));
            let probes = (0..shape.probes)
                .map(|number| scope.spawn(move || pressure.until_stopped(!number, Self::probe)));
            let threads: Vec<_> = writers.chain(probes).collect();
            let outcome = what(pressure);
            pressure.stop.store(true, Relaxed);
            for thread in threads {
                thread.join().map_err(|_| "a client thread panicked")??;
            }
            outcome
        })
    }

    /// Waits so long, unless the load has ended for an error; what was seen before is forgotten.
    pub(crate) fn watch(&self, time: Duration) -> Seen {
        let begun = Instant::now();
        self.take();
        while begun.elapsed() < time && !self.stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(10).min(time - begun.elapsed().min(time)));
        }
        self.take()
    }

    /// What was seen since the last call.
    pub(crate) fn take(&self) -> Seen {
        let mut latencies = self.probed.lock().expect("no probe panics");
        Seen {
            latencies: std::mem::replace(&mut latencies, Latencies::new()),
            sets: self.sets.swap(0, Relaxed),
        }
    }

    /// If something is wrong the load is over for all.
    fn until_stopped(
        &self,
        number: u64,
        work: impl FnOnce(&Self, Random) -> Result<(), String>,
    ) -> Result<(), String> {
        let worked = work(self, Random::new(number));
        if worked.is_err() {
            self.stop.store(true, Relaxed);
        }
        worked
    }

    fn write(&self, mut random: Random) -> Result<(), String> {
        let mut connection = self.testbed.connect()?;
        let rate = self.shape.sets_per_second;
        let interval = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64((PIPELINE * self.shape.writers) as f64 / rate)
        });
        let mut due = Instant::now();
        let mut requests = Vec::new();
        while !self.stop.load(Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += interval;
            requests.clear();
            for _ in 0..PIPELINE {
                self.append_set(&mut requests, &mut random);
            }
            connection.send(&requests)?;
            for _ in 0..PIPELINE {
                expect_ok(&connection.reply()?)?;
            }
            self.sets.fetch_add(PIPELINE, Relaxed);
        }
        Ok(())
    }

    fn probe(&self, mut random: Random) -> Result<(), String> {
        let mut connection = self.testbed.connect()?;
        let mut due = Instant::now();
        let mut request = Vec::new();
        for question in 1u64.. {
            if self.stop.load(Relaxed) {
                break;
            }
            request.clear();
            let asked = if question % self.shape.set_one_in == 0 {
                self.append_set(&mut request, &mut random);
                None
            } else {
                let (index, key) = self.key(&mut random);
                append_command(&mut request, &[b"GET", &key]);
                Some(index)
            };
            thread::sleep(due.saturating_duration_since(Instant::now()));
            connection.send(&request)?;
            let reply = connection.reply()?;
            let answered = Instant::now();
            match (asked, &reply) {
                (None, reply) => expect_ok(reply)?,
                (Some(index), Reply::Bulk(value)) if values::check(value, index).is_some() => {}
                (Some(index), _) => return Err(format!("GET of key {index} has a wrong answer")),
            }
            let mut latencies = self.probed.lock().expect("no probe panics");
            while due <= answered {
                latencies.record((answered - due).as_nanos() as u64);
                due += self.shape.interval;
            }
        }
        Ok(())
    }

    fn key(&self, random: &mut Random) -> (u64, Vec<u8>) {
        let index = random.below(self.shape.keys);
        let mut key = Vec::with_capacity(KEY_BYTES);
        self.format.append(&mut key, index);
        (index, key)
    }

    fn append_set(&self, requests: &mut Vec<u8>, random: &mut Random) {
        let (index, key) = self.key(random);
        let mut value = Vec::new();
        let bytes = self.testbed.data.value_bytes as usize;
        values::append(&mut value, index, VERSION, bytes);
        append_command(requests, &[b"SET", &key, &value]);
    }
}

fn expect_ok(reply: &Reply) -> Result<(), String> {
    match reply {
        Reply::Simple(_) => Ok(()),
        other => Err(format!("SET was answered {other:?}")),
    }
}
