//! `maxdisk` bounds the data files, through the socket: writes are refused, or keys are evicted, as `maxmemory-policy` says.

mod common;

use common::{Connection, Server, encode, eventually};

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
const MIB: u64 = 1 << 20;
const MAXDISK: u64 = 48 * MIB;
const VALUE_BYTES: usize = 4096;
/// Twice what fits.
const KEYS: usize = 2 * MAXDISK as usize / VALUE_BYTES;

#[test]
fn without_eviction_writes_are_refused_until_keys_are_deleted() {
    let server = start("noeviction");
    let mut client = server.connect();
    let stored = (0..KEYS).find(|&key| !set(&mut client, key, &[]));
    let stored = stored.expect("writes are refused");
    assert!(
        (stored * VALUE_BYTES) as u64 > MAXDISK / 2,
        "refused after {stored} keys"
    );
    assert_eq!(client.command(&["APPEND", "new", "value"]), OOM);
    for key in (0..stored).step_by(7) {
        assert_eq!(client.command(&["GET", &name(key)]), reply(key));
    }
    for key in 0..stored / 2 {
        assert_eq!(client.command(&["DEL", &name(key)]), ":1\r\n");
    }
    eventually(|| set(&mut client, 0, &[]).then_some(()));
    assert_eq!(client.command(&["GET", &name(0)]), reply(0));
    assert_eq!(evicted(&mut client), 0);
    // Without a limit the rest fits, too.
    assert_eq!(
        client.command(&["CONFIG", "SET", "maxdisk", "0"]),
        "+OK\r\n"
    );
    (0..KEYS).for_each(|key| assert!(eventually(|| set(&mut client, key, &[]).then_some(true))));
}

/// Of every segment a little is dead: less than what is worth being rewritten usually.
#[test]
fn when_a_segments_worth_has_been_deleted_writes_are_taken_again() {
    let server = start("noeviction");
    let mut client = server.connect();
    let stored = (0..KEYS).find(|&key| !set(&mut client, key, &[]));
    let stored = stored.expect("writes are refused");
    let deleted: Vec<usize> = (0..stored).step_by(20).collect();
    assert!((deleted.len() * VALUE_BYTES) as u64 > 2 * MIB);
    for &key in &deleted {
        assert_eq!(client.command(&["DEL", &name(key)]), ":1\r\n");
    }
    eventually(|| set(&mut client, 0, &[]).then_some(()));
    for key in 1..20 {
        assert_eq!(client.command(&["GET", &name(key)]), reply(key));
    }
}

#[test]
fn a_policy_that_is_set_when_the_disk_is_full_makes_room_before_anything_else_is_refused() {
    let server = start("noeviction");
    let mut client = server.connect();
    let stored = (0..KEYS).find(|&key| !set(&mut client, key, &[]));
    let stored = stored.expect("writes are refused");
    let policy = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"];
    assert_eq!(client.command(&policy), "+OK\r\n");
    for key in stored..stored + 2000 {
        assert!(set(&mut client, key, &[]), "key {key}");
    }
    assert!(evicted(&mut client) > 0);
}

#[test]
fn a_cache_evicts_the_oldest_keys_and_has_the_newest() {
    let server = start("allkeys-lru");
    let mut client = server.connect();
    let mut peak_bytes = 0;
    for key in 0..2 * KEYS {
        assert!(set(&mut client, key, &[]), "key {key}");
        if key % 256 == 0 {
            peak_bytes = peak_bytes.max(data_bytes(&server));
        }
    }
    let limit = MAXDISK / 10 * 11 + 4 * MIB;
    assert!(peak_bytes <= limit, "{peak_bytes} bytes, limit {limit}");
    for key in 2 * KEYS - 2000..2 * KEYS {
        assert_eq!(client.command(&["GET", &name(key)]), reply(key));
    }
    // Nearly all of the oldest are gone; compaction may have copied some to newer segments.
    let gone: Vec<usize> = (0..1000)
        .filter(|&key| client.command(&["EXISTS", &name(key)]) == ":0\r\n")
        .collect();
    assert!(gone.len() > 500, "only {} are gone", gone.len());
    // Eviction may still be going on.
    let left = eventually(|| {
        let left: u64 = client.command(&["DBSIZE"]).trim()[1..].parse().unwrap();
        (left + evicted(&mut client) == 2 * KEYS as u64).then_some(left)
    });
    // What was evicted is not back after a crash, not even under what a client has written since.
    assert_eq!(client.command(&["APPEND", &name(gone[0]), "new"]), ":3\r\n");
    assert_eq!(
        client.command(&["CONFIG", "SET", "appendfsync", "always"]),
        "+OK\r\n"
    );
    assert_eq!(client.command(&["SET", "last", "x"]), "+OK\r\n");
    let server = Server::start_in(server.kill(), &[]);
    let mut client = server.connect();
    assert_eq!(client.command(&["GET", &name(gone[0])]), "$3\r\nnew\r\n");
    let found: u64 = client.command(&["DBSIZE"]).trim()[1..].parse().unwrap();
    assert!(found <= left + 2, "{found} keys, {left} were left");
    for key in 2 * KEYS - 2000..2 * KEYS {
        assert_eq!(client.command(&["GET", &name(key)]), reply(key));
    }
}

#[test]
fn volatile_policies_leave_keys_without_an_expiry() {
    for policy in ["volatile-lru", "volatile-ttl"] {
        let server = start(policy);
        let mut client = server.connect();
        let kept = KEYS / 8;
        for key in 0..kept {
            assert!(set(&mut client, key, &[]));
            assert!(set(&mut client, kept + key, &["EX", "10000"]));
        }
        for key in 2 * kept..KEYS + KEYS / 2 {
            assert!(set(&mut client, key, &["EX", "20000"]), "{policy}: {key}");
        }
        assert!(evicted(&mut client) > 0);
        for key in 0..kept {
            assert_eq!(client.command(&["GET", &name(key)]), reply(key), "{policy}");
        }
        // When there is nothing left to be evicted, writes are refused.
        let refused = (KEYS..4 * KEYS).any(|key| !set(&mut client, key, &[]));
        assert!(refused, "{policy}");
        for key in 0..kept {
            assert_eq!(client.command(&["GET", &name(key)]), reply(key), "{policy}");
        }
    }
}

fn start(policy: &str) -> Server {
    let maxdisk = MAXDISK.to_string();
    Server::start(&[
        "--maxmemory",
        "40mb",
        "--maxdisk",
        &maxdisk,
        "--maxmemory-policy",
        policy,
    ])
}

/// Whether the key was set, rather than refused for want of room.
fn set(client: &mut Connection, key: usize, options: &[&str]) -> bool {
    let value = value(key);
    client.send(encode(&[&["SET", &name(key), &value], options].concat()));
    let reply = client.reply();
    assert!(reply == "+OK\r\n" || reply == OOM, "{reply}");
    reply == "+OK\r\n"
}

fn name(key: usize) -> String {
    format!("key:{key}")
}

/// Text that no other key has.
fn value(key: usize) -> String {
    format!("{key:016}").repeat(VALUE_BYTES / 16)
}

fn reply(key: usize) -> String {
    format!("${VALUE_BYTES}\r\n{}\r\n", value(key))
}

fn evicted(client: &mut Connection) -> u64 {
    let info = client.command(&["INFO", "stats"]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("evicted_keys:"));
    line.expect("evicted_keys").parse().unwrap()
}

/// Bytes of the data files, the command log not counted.
fn data_bytes(server: &Server) -> u64 {
    let files = std::fs::read_dir(server.dir.path()).unwrap();
    let files = files.filter_map(|file| {
        let file = file.ok()?;
        let is_log = file.file_name().to_string_lossy().ends_with(".log");
        // It may be gone by now.
        (!is_log).then(|| file.metadata().map_or(0, |data| data.len()))
    });
    files.sum()
}
