//! `maxmemory` bounds the whole process, whatever clients do: deep pipelines, many connections, clients that do not read,
//! large values, an index that outgrows everything else.
//!
//! Each test starts a server with little memory, has clients take as much of it as they can, and then looks at the most
//! that ever was resident. `FERRITE_MEMORY_CAP=long` makes each of them some ten times longer.

mod common;

use std::thread;

use common::{Connection, Server, encode};

const MIB: u64 = 1 << 20;
const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";

#[test]
fn deep_pipelines_of_mid_size_values_through_io_uring() {
    if common::backends().contains(&"uring") {
        deep_pipelines(40, "uring");
    }
}

#[test]
fn deep_pipelines_of_mid_size_values_through_tokio() {
    deep_pipelines(40, "tokio");
}

#[test]
fn deep_pipelines_of_mid_size_values_with_more_memory() {
    deep_pipelines(64, "auto");
}

fn deep_pipelines(mib: u64, backend: &str) {
    const VALUE_BYTES: usize = 2048;
    const DEPTH: usize = 250;
    let keys = (mib * MIB) as usize * 3 * times() / VALUE_BYTES;
    let server = start(mib, &["--io-backend", backend]);
    in_parallel(4, |part| {
        let mut client = server.connect();
        let keys: Vec<usize> = (part..keys).step_by(4).collect();
        set_all(&mut client, &keys, VALUE_BYTES, DEPTH);
        get_all(&mut client, &keys, VALUE_BYTES, DEPTH);
    });
    common::check_peak_memory(&server, mib * MIB);
}

#[test]
fn many_connections_with_short_pipelines() {
    const VALUE_BYTES: usize = 4096;
    const KEYS: usize = 2000;
    const DEPTH: usize = 16;
    let connections = 300 * times();
    let server = start(40, &[]);
    set_all(
        &mut server.connect(),
        &(0..KEYS).collect::<Vec<_>>(),
        VALUE_BYTES,
        DEPTH,
    );
    in_parallel(4, |part| {
        let mut clients: Vec<_> = (part..connections)
            .step_by(4)
            .map(|_| server.connect())
            .collect();
        for round in 0..4 {
            let keys: Vec<usize> = (0..DEPTH)
                .map(|i| (part + round * DEPTH + i) % KEYS)
                .collect();
            for client in &mut clients {
                client.send(gets(&keys));
            }
            for client in &mut clients {
                keys.iter()
                    .for_each(|&key| expect_value(client, key, VALUE_BYTES));
            }
        }
    });
    common::check_peak_memory(&server, 40 * MIB);
}

#[test]
fn clients_that_do_not_read() {
    const VALUE_BYTES: usize = 100_000;
    const KEYS: usize = 100;
    let readers = 40 * times();
    let server = start(40, &["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    let keys: Vec<usize> = (0..KEYS).collect();
    set_all(&mut client, &keys, VALUE_BYTES, 10);
    // This one holds memory as well and does not move for seconds, but that is the server's doing.
    let mut patient = server.connect();
    patient.send(encode(&["DEBUG", "SLEEP", "4"]));
    patient.send(encode(&["SET", "patient", &value(0, VALUE_BYTES)]));
    let slow: Vec<_> = (0..readers)
        .map(|_| {
            let mut slow = server.connect();
            // The server may have closed it by the time the last of it is sent.
            let _ = slow.try_send(gets(&keys));
            slow
        })
        .collect();
    // Another client is served meanwhile.
    for _ in 0..3 * times() {
        get_all(&mut client, &keys, VALUE_BYTES, 1);
    }
    assert_eq!(patient.reply(), "+OK\r\n");
    assert_eq!(patient.reply(), "+OK\r\n");
    drop(slow);
    get_all(&mut client, &keys, VALUE_BYTES, 10);
    common::check_peak_memory(&server, 40 * MIB);
}

#[test]
fn large_values_of_several_clients_at_once() {
    const VALUE_BYTES: usize = 16 << 20;
    let server = start(96, &["--enable-debug-command", "yes"]);
    in_parallel(4, |part| {
        let mut client = server.connect();
        let keys: Vec<usize> = (0..2).map(|i| part * 2 + i).collect();
        for _ in 0..times() {
            set_all(&mut client, &keys, VALUE_BYTES, 1);
            get_all(&mut client, &keys, VALUE_BYTES, 1);
        }
    });
    let mut client = server.connect();
    assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
    in_parallel(4, |part| {
        get_all(&mut server.connect(), &[part, 7 - part], VALUE_BYTES, 2);
    });
    common::check_peak_memory(&server, 96 * MIB);
}

#[test]
fn a_value_of_512_mib() {
    const VALUE_MIB: usize = 512;
    const MAXMEMORY_MIB: u64 = 2200;
    if available_memory_mib().is_some_and(|mib| mib < MAXMEMORY_MIB * 3 / 2) {
        println!("skipped: too little memory for a value of {VALUE_MIB} MiB");
        return;
    }
    let server = start(MAXMEMORY_MIB, &["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    let mib = |number: usize| value(number, MIB as usize).into_bytes();
    let value_bytes = VALUE_MIB * MIB as usize;
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${value_bytes}\r\n"));
    (0..VALUE_MIB).for_each(|number| client.send(mib(number)));
    client.send("\r\n");
    assert_eq!(client.reply(), "+OK\r\n");
    assert_eq!(
        client.command(&["STRLEN", "k"]),
        format!(":{value_bytes}\r\n")
    );
    for tier in ["in memory", "cold"] {
        client.send(encode(&["GET", "k"]));
        let header = format!("${value_bytes}\r\n").into_bytes();
        let mut bytes = vec![0; header.len()];
        client.read_exact(&mut bytes);
        assert_eq!(bytes, header);
        bytes.resize(MIB as usize, 0);
        for number in 0..VALUE_MIB {
            client.read_exact(&mut bytes);
            assert!(bytes == mib(number), "MiB {number} of the value {tier}");
        }
        client.read_exact(&mut bytes[..2]);
        assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
    }
    assert_eq!(client.command(&["DEL", "k"]), ":1\r\n");
    assert_eq!(client.command(&["GET", "k"]), "$-1\r\n");
    common::check_peak_memory(&server, MAXMEMORY_MIB * MIB);
}

#[test]
fn below_the_floor_writes_are_refused_and_reads_go_on() {
    const VALUE_BYTES: usize = 1024;
    let server = start(64, &[]);
    let mut client = server.connect();
    let keys: Vec<usize> = (0..20_000).collect();
    set_all(&mut client, &keys, VALUE_BYTES, 100);
    assert_eq!(
        client.command(&["CONFIG", "SET", "maxmemory", "12mb"]),
        "+OK\r\n"
    );
    assert_eq!(client.command(&["SET", "new", "value"]), OOM);
    assert_eq!(client.command(&["APPEND", &name(1), "value"]), OOM);
    get_all(&mut client, &keys, VALUE_BYTES, 10);
    assert_eq!(client.command(&["DEL", &name(0)]), ":1\r\n");
    assert_eq!(
        client.command(&["CONFIG", "SET", "maxmemory", "64mb"]),
        "+OK\r\n"
    );
    assert_eq!(client.command(&["SET", "new", "value"]), "+OK\r\n");
    get_all(&mut client, &keys[1..], VALUE_BYTES, 100);
}

#[test]
fn keys_until_the_index_leaves_no_memory() {
    const DEPTH: usize = 1000;
    let server = start(40, &[]);
    let mut client = server.connect();
    let mut stored = 0;
    let refused = 'load: loop {
        let keys = stored..stored + DEPTH;
        let sets = keys.clone().map(|key| encode(&["SET", &name(key), ""]));
        client.send(sets.collect::<Vec<_>>().concat());
        let mut refused = None;
        for key in keys {
            match client.reply().as_str() {
                "+OK\r\n" if refused.is_none() => stored = key + 1,
                "+OK\r\n" => {}
                error => {
                    assert_eq!(error, OOM, "key {key}");
                    refused = Some(key);
                }
            }
        }
        if let Some(key) = refused {
            break 'load key;
        }
    };
    println!("refused at key {refused}");
    assert!(stored > 100_000, "only {stored} keys fit");
    // Reads go on.
    for key in (0..stored).step_by(stored / 1000) {
        assert_eq!(client.command(&["GET", &name(key)]), "$0\r\n\r\n");
    }
    common::check_peak_memory(&server, 40 * MIB);
}

/// What has to be read to tell them apart takes more memory than a command may have.
#[test]
fn very_many_cold_keys_in_one_command() {
    const VALUE_BYTES: usize = 2048;
    const KEYS: usize = 45_000;
    const REMOVED: usize = 15_000;
    let server = start(40, &[]);
    let mut client = server.connect();
    set_all(
        &mut client,
        &(0..KEYS).collect::<Vec<_>>(),
        VALUE_BYTES,
        250,
    );
    let names: Vec<String> = (0..2 * REMOVED).map(name).collect();
    let mut run = |command: &str, names: &[String], expected: &str| {
        let words: Vec<&str> = names.iter().map(String::as_str).collect();
        let reply = client.command(&[&[command], words.as_slice()].concat());
        assert_eq!(reply, expected, "{command}");
    };
    run("EXISTS", &names[REMOVED..], &format!(":{REMOVED}\r\n"));
    run("DEL", &names[..REMOVED], &format!(":{REMOVED}\r\n"));
    // The first half of these is gone, one is named twice.
    let twice = [&names[REMOVED / 2..], &names[REMOVED..][..1]].concat();
    run("MULTI", &[], "+OK\r\n");
    run("UNLINK", &twice, "+QUEUED\r\n");
    run("EXEC", &[], &format!("*1\r\n:{REMOVED}\r\n"));
    let left = KEYS - 2 * REMOVED;
    assert_eq!(client.command(&["DBSIZE"]), format!(":{left}\r\n"));
    let kept: Vec<usize> = (2 * REMOVED..KEYS).collect();
    get_all(&mut client, &kept, VALUE_BYTES, 250);
    common::check_peak_memory(&server, 40 * MIB);
}

/// A server with `mib` MiB of memory.
fn start(mib: u64, directives: &[&str]) -> Server {
    let maxmemory = (mib * MIB).to_string();
    Server::start(&[&["--maxmemory", maxmemory.as_str()], directives].concat())
}

/// By how much the long form of a test is longer.
fn times() -> usize {
    if std::env::var("FERRITE_MEMORY_CAP").is_ok_and(|form| form == "long") {
        10
    } else {
        1
    }
}

/// Runs `part` for the numbers below `parts`, each on a thread of its own.
fn in_parallel(parts: usize, part: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for number in 0..parts {
            let part = &part;
            scope.spawn(move || part(number));
        }
    });
}

fn set_all(client: &mut Connection, keys: &[usize], value_bytes: usize, depth: usize) {
    for keys in keys.chunks(depth) {
        let sets = keys
            .iter()
            .map(|&key| encode(&["SET", &name(key), &value(key, value_bytes)]));
        client.send(sets.collect::<Vec<_>>().concat());
        for key in keys {
            assert_eq!(client.reply(), "+OK\r\n", "SET of key {key}");
        }
    }
}

fn get_all(client: &mut Connection, keys: &[usize], value_bytes: usize, depth: usize) {
    for keys in keys.chunks(depth) {
        client.send(gets(keys));
        keys.iter()
            .for_each(|&key| expect_value(client, key, value_bytes));
    }
}

fn gets(keys: &[usize]) -> Vec<u8> {
    keys.iter()
        .flat_map(|&key| encode(&["GET", &name(key)]))
        .collect()
}

fn expect_value(client: &mut Connection, key: usize, value_bytes: usize) {
    let reply = client.reply();
    let expected = format!("${value_bytes}\r\n{}\r\n", value(key, value_bytes));
    // Without printing megabytes.
    assert!(reply == expected, "GET of key {key}: {:.80}", reply);
}

fn name(key: usize) -> String {
    format!("key:{key}")
}

/// Text that no other key has.
fn value(key: usize, bytes: usize) -> String {
    let line = format!("{key:016}");
    line.repeat(bytes.div_ceil(16))[..bytes].to_owned()
}

/// Memory that a server may take on this machine; `None` if it does not tell.
fn available_memory_mib() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}
