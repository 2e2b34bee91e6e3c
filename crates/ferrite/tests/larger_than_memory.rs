//! Ten times more data than the server may use memory, through the socket: nothing is refused, every value comes back
//! right whatever tier it is in and whatever was done to it since, and memory stays within its limit.
//!
//! Values are functions of key and version, so no copy of the data is needed to check it.

mod common;

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Connection, Server, encode};

const MAXMEMORY_BYTES: u64 = 40 << 20;
const VALUE_BYTES: usize = 1024;
const KEYS: usize = (MAXMEMORY_BYTES as usize * 10) / VALUE_BYTES;
/// Commands sent before their replies are read.
const PIPELINE: usize = 250;
const CONNECTIONS: usize = 4;
/// Longer than anything waited for here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn ten_times_memory_through_io_uring() {
    if common::backends().contains(&"uring") {
        ten_times_memory("uring");
    }
}

#[test]
fn ten_times_memory_through_tokio() {
    ten_times_memory("tokio");
}

fn ten_times_memory(backend: &str) {
    let seed = seed();
    println!("FERRITE_TEST_SEED={seed}, backend {backend}");
    let mut random = Random(seed);
    let maxmemory = MAXMEMORY_BYTES.to_string();
    let server = Server::start(&["--maxmemory", &maxmemory, "--io-backend", backend]);
    let mut client = server.connect();
    let mut model = Model {
        versions: vec![Some(1); KEYS],
    };

    model.write(&mut client, 0..KEYS);
    assert!(
        has_size(&mut client, KEYS),
        "{}",
        client.command(&["DBSIZE"])
    );
    let order = random.order(KEYS);
    thread::scope(|scope| {
        for part in order.chunks(KEYS.div_ceil(CONNECTIONS)) {
            let (server, model) = (&server, &model);
            scope.spawn(move || model.check(&mut server.connect(), part));
        }
    });

    let order = random.order(KEYS);
    let (overwritten, rest) = order.split_at(KEYS / 4);
    let (deleted, rest) = rest.split_at(KEYS / 10);
    let (expired, rest) = rest.split_at(KEYS / 20);
    let (expiring, _) = rest.split_at(KEYS / 20);
    overwritten
        .iter()
        .for_each(|&key| model.versions[key] = Some(2));
    model.write(&mut client, overwritten.iter().copied());
    let one = |_: usize, reply: &str| assert_eq!(reply, ":1\r\n");
    pipeline(
        &mut client,
        deleted,
        |key| encode(&["DEL", &name(key)]),
        one,
    );
    pipeline(
        &mut client,
        expired,
        |key| encode(&["PEXPIRE", &name(key), "1"]),
        one,
    );
    pipeline(
        &mut client,
        expiring,
        |key| encode(&["EXPIRE", &name(key), "1000"]),
        one,
    );
    deleted
        .iter()
        .chain(expired)
        .for_each(|&key| model.versions[key] = None);

    model.check(&mut client, &random.order(KEYS));
    pipeline(
        &mut client,
        expiring,
        |key| encode(&["TTL", &name(key)]),
        |key, reply| {
            let seconds: u64 = reply[1..].trim_end().parse().unwrap();
            assert!(
                (1..=1000).contains(&seconds),
                "key {key} lives for {seconds} s more, not 1000"
            );
        },
    );
    let left = KEYS - deleted.len() - expired.len();
    let deadline = Instant::now() + PATIENCE;
    while !has_size(&mut client, left) {
        // Expired keys count until they have been removed, which goes on in the background: at once those in memory, and
        // on the device those that somebody asked for.
        model.check(&mut client, expired);
        let told = client.command(&["DBSIZE"]);
        assert!(
            Instant::now() < deadline,
            "DBSIZE stays at {told}, not {left}"
        );
    }
    common::check_peak_memory(&server, MAXMEMORY_BYTES);
}

/// What every key should hold: the value of a version, or nothing.
struct Model {
    versions: Vec<Option<u64>>,
}

impl Model {
    /// Sets `keys` to their versions.
    fn write(&self, client: &mut Connection, keys: impl IntoIterator<Item = usize>) {
        let keys: Vec<usize> = keys.into_iter().collect();
        let set = |key: usize| encode(&["SET", &name(key), &self.value(key).unwrap()]);
        pipeline(client, &keys, set, |key, reply| {
            assert_eq!(reply, "+OK\r\n", "SET of key {key}");
        });
    }

    /// Reads `keys` in their order.
    fn check(&self, client: &mut Connection, keys: &[usize]) {
        pipeline(
            client,
            keys,
            |key| encode(&["GET", &name(key)]),
            |key, reply| {
                let want = match self.value(key) {
                    Some(value) => format!("${}\r\n{value}\r\n", value.len()),
                    None => "$-1\r\n".to_owned(),
                };
                let version = self.versions[key];
                assert_eq!(
                    reply, want,
                    "key {key}, which should have version {version:?}"
                );
            },
        );
    }

    fn value(&self, key: usize) -> Option<String> {
        self.versions[key].map(|version| value(key, version))
    }
}

fn name(key: usize) -> String {
    format!("key:{key}")
}

/// Text that no other key and no other version has.
fn value(key: usize, version: u64) -> String {
    let mut random = Random((key as u64) << 8 | version);
    let words = (0..VALUE_BYTES / 8).map(|_| random.next());
    words
        .flat_map(u64::to_le_bytes)
        .map(|byte| char::from(b'0' + byte % 64))
        .collect()
}

/// Sends the command of every key, many at a time, and checks the replies.
fn pipeline(
    client: &mut Connection,
    keys: &[usize],
    command: impl Fn(usize) -> Vec<u8>,
    check: impl Fn(usize, &str),
) {
    for keys in keys.chunks(PIPELINE) {
        client.send(
            keys.iter()
                .flat_map(|&key| command(key))
                .collect::<Vec<u8>>(),
        );
        keys.iter().for_each(|&key| check(key, &client.reply()));
    }
}

/// Whether DBSIZE tells this number of keys. Overwriting a key that is on the device does not read the device, so what
/// it overwrites is known by its hash alone: wrongly less than once in 5,000 times.
fn has_size(client: &mut Connection, keys: usize) -> bool {
    let told: usize = client.command(&["DBSIZE"])[1..].trim_end().parse().unwrap();
    told.abs_diff(keys) <= keys / 5000
}

fn seed() -> u64 {
    if let Ok(seed) = std::env::var("FERRITE_TEST_SEED") {
        return seed.parse().expect("FERRITE_TEST_SEED is a number");
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The numbers below `end` in random order.
    fn order(&mut self, end: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..end).collect();
        for last in (1..end).rev() {
            order.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
        order
    }
}
