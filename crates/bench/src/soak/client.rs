//! Connections with keys of their own: what they write, and what they must find.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use resp::Reply;

use super::Shared;
use crate::connection::{Connection, append_command};
use crate::random::Random;
use crate::server::Launch;
use crate::values::{self, ValueSizes};

/// Commands sent at once.
const PIPELINE: usize = 16;

/// How long keys that expire live, in milliseconds.
const TTL_MS: (u64, u64) = (500, 20_000);

/// What clocks may differ by, in milliseconds: the server counts in those.
const CLOCK_MS: u64 = 2;

/// So long after a key has expired it may still be counted.
const COUNT_PATIENCE: Duration = Duration::from_secs(20 + 20);

/// Which keys there are.
pub(super) struct Data {
    pub(super) connections: u64,
    pub(super) small_keys: u64,
    pub(super) big_keys: u64,
    pub(super) expiring_keys: u64,
    pub(super) small_sizes: ValueSizes,
    pub(super) big_sizes: ValueSizes,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Small,
    Big,
    Expiring,
}

impl Kind {
    pub(super) fn name(self, number: u64) -> Vec<u8> {
        let letter = match self {
            Kind::Small => 's',
            Kind::Big => 'b',
            Kind::Expiring => 'e',
        };
        format!("{letter}:{number}").into_bytes()
    }

    /// What the values of a key are made from.
    pub(super) fn seed(self, number: u64) -> u64 {
        (self as u64) << 56 | number
    }
}

/// Keys of one kind and connection: `first`, `first + step` and so on.
struct Keys<T> {
    kind: Kind,
    sizes: ValueSizes,
    first: u64,
    step: u64,
    held: Vec<T>,
}

impl<T: Clone + Default> Keys<T> {
    fn new(kind: Kind, keys: u64, sizes: ValueSizes, (first, step): (u64, u64)) -> Keys<T> {
        let own = keys.saturating_sub(first).div_ceil(step);
        Keys {
            kind,
            sizes,
            first,
            step,
            held: vec![T::default(); own as usize],
        }
    }

    fn number(&self, at: usize) -> u64 {
        self.first + at as u64 * self.step
    }

    fn name(&self, at: usize) -> Vec<u8> {
        self.kind.name(self.number(at))
    }

    fn value(&self, at: usize, version: u32) -> Vec<u8> {
        let seed = self.kind.seed(self.number(at));
        let mut value = Vec::new();
        values::append(&mut value, seed, version, self.sizes.of(seed, version));
        value
    }

    /// Bytes of key and value.
    fn bytes(&self, at: usize, version: u32) -> i64 {
        let seed = self.kind.seed(self.number(at));
        (self.name(at).len() + self.sizes.of(seed, version)) as i64
    }

    fn is_right(&self, value: &[u8], at: usize, version: u32) -> bool {
        let seed = self.kind.seed(self.number(at));
        value.len() == self.sizes.of(seed, version) && values::check(value, seed) == Some(version)
    }
}

/// What a key holds that does not expire.
#[derive(Clone, Copy, Default)]
struct Held {
    /// The last one written.
    version: u32,
    is_there: bool,
}

/// What a key holds that expires between two moments, Unix milliseconds.
#[derive(Clone, Copy, Default)]
struct Expiring {
    version: u32,
    from_ms: u64,
    until_ms: u64,
}

/// What a reply must be.
enum Expected {
    Ok,
    /// Of SET with this time to live.
    OkExpiring {
        at: usize,
        ttl_ms: u64,
    },
    Removed(bool),
    /// Of GET.
    Held {
        big: bool,
        at: usize,
        held: Held,
    },
    Expiring {
        at: usize,
    },
}

/// A connection with its keys.
pub(super) struct Client<'a> {
    shared: &'a Shared,
    connection: Connection,
    random: Random,
    small: Keys<Held>,
    big: Keys<Held>,
    expiring: Keys<Expiring>,
    requests: Vec<u8>,
    expected: VecDeque<Expected>,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        data: &Data,
        number: u64,
        seed: u64,
    ) -> Result<Client<'a>, String> {
        let own = (number, data.connections);
        Ok(Client {
            shared,
            connection: Connection::open(shared.launch.socket())?,
            random: Random::new(seed ^ ((number + 1) << 32)),
            small: Keys::new(Kind::Small, data.small_keys, data.small_sizes, own),
            big: Keys::new(Kind::Big, data.big_keys, data.big_sizes, own),
            expiring: Keys::new(Kind::Expiring, data.expiring_keys, data.small_sizes, own),
            requests: Vec::new(),
            expected: VecDeque::new(),
        })
    }

    /// Connects anew.
    pub(super) fn connect(&mut self) -> Result<(), String> {
        self.connection = Connection::open(self.shared.launch.socket())?;
        Ok(())
    }

    /// Keys that do not expire.
    pub(super) fn keys(&self) -> u64 {
        let held = self.small.held.iter().chain(&self.big.held);
        held.filter(|held| held.is_there).count() as u64
    }

    /// Writes every key that does not expire.
    pub(super) fn write_all(&mut self) -> Result<(), String> {
        for at in 0..self.small.held.len() {
            self.set(false, at);
            if self.expected.len() >= PIPELINE {
                self.exchange()?;
            }
        }
        for at in 0..self.big.held.len() {
            self.set(true, at);
            self.exchange()?;
        }
        self.exchange()
    }

    /// Reads every key that does not expire.
    pub(super) fn check_all(&mut self) -> Result<(), String> {
        for at in 0..self.small.held.len() {
            self.get(false, at);
            if self.expected.len() >= PIPELINE {
                self.exchange()?;
            }
        }
        for at in 0..self.big.held.len() {
            self.get(true, at);
            self.exchange()?;
        }
        self.exchange()
    }

    /// Works with so many commands a second until the load is over. If something is wrong the load is over for all.
    pub(super) fn work(&mut self, rate: f64) -> Result<(), String> {
        let worked = self.work_until_stopped(rate);
        if worked.is_err() {
            self.shared.stop.store(true, Relaxed);
        }
        worked
    }

    fn work_until_stopped(&mut self, rate: f64) -> Result<(), String> {
        let interval = Duration::from_secs_f64(PIPELINE as f64 / rate);
        let mut due = Instant::now();
        while !self.shared.stop.load(Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // What a slow server has made it miss is not made up for.
            due = (due + interval).max(Instant::now() - interval);
            let mut used = Vec::new();
            for _ in 0..PIPELINE {
                self.step(&mut used);
            }
            self.exchange()?;
            self.shared.commands.fetch_add(PIPELINE as u64, Relaxed);
        }
        Ok(())
    }

    /// Adds one command to the pipeline; of the keys that expire it takes one that is not in it yet.
    fn step(&mut self, used: &mut Vec<usize>) {
        match self.random.below(10_000) {
            0..4_500 => {
                let at = self.often_the_same();
                self.get(false, at);
            }
            4_500..5_900 => {
                let at = self.often_the_same();
                self.set(false, at);
            }
            5_900..7_200 => {
                let at = self.any(self.small.held.len());
                self.set(false, at);
            }
            7_200..7_700 => {
                let at = self.any(self.small.held.len());
                self.remove(at);
            }
            7_700..9_990 => {
                let at = self.any(self.expiring.held.len());
                if !used.contains(&at) {
                    used.push(at);
                    self.expiring_step(at);
                }
            }
            9_990..9_995 => {
                let at = self.any(self.big.held.len());
                self.get(true, at);
            }
            _ => {
                let at = self.any(self.big.held.len());
                self.set(true, at);
            }
        }
    }

    fn any(&mut self, keys: usize) -> usize {
        self.random.below(keys.max(1) as u64) as usize
    }

    /// A small key; a few of them come again and again.
    fn often_the_same(&mut self) -> usize {
        let share = self.random.unit().powi(4);
        (share * self.small.held.len() as f64) as usize
    }

    fn keys_of(&mut self, big: bool) -> &mut Keys<Held> {
        if big { &mut self.big } else { &mut self.small }
    }

    fn get(&mut self, big: bool, at: usize) {
        let keys = self.keys_of(big);
        let (name, held) = (keys.name(at), keys.held[at]);
        append_command(&mut self.requests, &[b"GET", &name]);
        self.expected.push_back(Expected::Held { big, at, held });
    }

    fn set(&mut self, big: bool, at: usize) {
        let keys = self.keys_of(big);
        let old = keys.held[at];
        let version = old.version + 1;
        keys.held[at] = Held {
            version,
            is_there: true,
        };
        let (name, value) = (keys.name(at), keys.value(at, version));
        let gone = if old.is_there {
            keys.bytes(at, old.version)
        } else {
            0
        };
        let bytes = keys.bytes(at, version) - gone;
        self.shared.live_bytes.fetch_add(bytes, Relaxed);
        append_command(&mut self.requests, &[b"SET", &name, &value]);
        self.expected.push_back(Expected::Ok);
    }

    fn remove(&mut self, at: usize) {
        let old = self.small.held[at];
        self.small.held[at].is_there = false;
        append_command(&mut self.requests, &[b"DEL", &self.small.name(at)]);
        self.expected.push_back(Expected::Removed(old.is_there));
        if old.is_there {
            let bytes = self.small.bytes(at, old.version);
            self.shared.live_bytes.fetch_sub(bytes, Relaxed);
        }
    }

    fn expiring_step(&mut self, at: usize) {
        let name = self.expiring.name(at);
        if self.random.below(5) < 2 {
            append_command(&mut self.requests, &[b"GET", &name]);
            self.expected.push_back(Expected::Expiring { at });
            return;
        }
        let ttl_ms = TTL_MS.0 + self.random.below(TTL_MS.1 - TTL_MS.0);
        let version = self.expiring.held[at].version + 1;
        self.expiring.held[at].version = version;
        let value = self.expiring.value(at, version);
        let ttl = ttl_ms.to_string();
        append_command(
            &mut self.requests,
            &[b"SET", &name, &value, b"PX", ttl.as_bytes()],
        );
        self.expected.push_back(Expected::OkExpiring { at, ttl_ms });
    }

    /// Sends what has been gathered and checks the replies.
    fn exchange(&mut self) -> Result<(), String> {
        let sent_ms = unix_ms();
        self.connection.send(&self.requests)?;
        self.requests.clear();
        while let Some(expected) = self.expected.pop_front() {
            let reply = self.connection.reply()?;
            self.check(&expected, &reply, sent_ms)?;
        }
        Ok(())
    }

    fn check(&mut self, expected: &Expected, reply: &Reply, sent_ms: u64) -> Result<(), String> {
        match *expected {
            Expected::Ok if matches!(reply, Reply::Simple(_)) => Ok(()),
            Expected::OkExpiring { at, ttl_ms } if matches!(reply, Reply::Simple(_)) => {
                let held = &mut self.expiring.held[at];
                held.from_ms = sent_ms + ttl_ms;
                held.until_ms = unix_ms() + ttl_ms;
                Ok(())
            }
            Expected::Ok | Expected::OkExpiring { .. } => {
                Err(format!("SET was answered {}", shown(reply)))
            }
            Expected::Removed(was_there) => match reply {
                Reply::Integer(removed) if *removed == i64::from(was_there) => Ok(()),
                other => Err(format!(
                    "DEL was answered {}, not {was_there}",
                    shown(other)
                )),
            },
            Expected::Held { big, at, held } => {
                let keys = self.keys_of(big);
                let is_right = match reply {
                    Reply::Bulk(value) => held.is_there && keys.is_right(value, at, held.version),
                    Reply::Null => !held.is_there,
                    _ => false,
                };
                wrong_unless(is_right, &keys.name(at), reply, &held.version)
            }
            Expected::Expiring { at } => {
                let keys = &self.expiring;
                let held = keys.held[at];
                let is_right = match reply {
                    Reply::Bulk(value) => {
                        keys.is_right(value, at, held.version)
                            && sent_ms <= held.until_ms + CLOCK_MS
                    }
                    Reply::Null => unix_ms() + CLOCK_MS >= held.from_ms,
                    _ => false,
                };
                wrong_unless(is_right, &keys.name(at), reply, &held.version)
            }
        }
    }
}

fn wrong_unless(is_right: bool, name: &[u8], reply: &Reply, version: &u32) -> Result<(), String> {
    if is_right {
        return Ok(());
    }
    let (name, reply) = (name.escape_ascii(), shown(reply));
    Err(format!(
        "GET {name} was answered {reply}; version {version} was written last"
    ))
}

/// A reply without the bytes of a long value.
pub(super) fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => format!("{} bytes", bytes.len()),
        other => format!("{other:?}"),
    }
}

fn unix_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_millis() as u64
}

/// Waits until the server counts so many keys.
pub(super) fn wait_for_size(launch: &Launch, keys: u64) -> Result<(), String> {
    let mut connection = Connection::open(launch.socket())?;
    let begun = Instant::now();
    loop {
        match connection.call(&[b"DBSIZE"])? {
            Reply::Integer(size) if size == keys as i64 => return Ok(()),
            Reply::Integer(size) if begun.elapsed() > COUNT_PATIENCE => {
                return Err(format!("DBSIZE is {size}, not {keys}"));
            }
            Reply::Integer(_) => thread::sleep(Duration::from_millis(100)),
            other => return Err(format!("DBSIZE was answered {}", shown(&other))),
        }
    }
}
