//! Expiry: when it is set, what it hides, and how expired keys go.

mod common;

use std::time::{Duration, Instant};

use common::{Connection, Server};

/// Sets `key` to expire at once, and waits until it has.
fn let_expire(client: &mut Connection, key: &str) {
    client.command(&["PEXPIRE", key, "1"]);
    wait_for(client, &["PTTL", key], ":-2\r\n");
}

/// Asks until the reply is `expected`.
fn wait_for(client: &mut Connection, command: &[&str], expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.command(command) != expected {
        assert!(
            Instant::now() < deadline,
            "{command:?} never replied {expected:?}"
        );
        std::thread::yield_now();
    }
}

#[test]
fn an_expired_key_is_no_key_for_any_command() {
    for cold in [false, true] {
        let server = Server::start(&["--enable-debug-command", "yes"]);
        let mut client = server.connect();
        client.command(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
        client.command(&["SET", "k", "5"]);
        if cold {
            client.command(&["PEXPIRE", "k", "200"]);
            assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
            wait_for(&mut client, &["EXISTS", "k"], ":0\r\n");
        } else {
            let_expire(&mut client, "k");
        }
        for (command, reply) in [
            (vec!["GET", "k"], "$-1\r\n"),
            (vec!["MGET", "k", "k"], "*2\r\n$-1\r\n$-1\r\n"),
            (vec!["STRLEN", "k"], ":0\r\n"),
            (vec!["EXISTS", "k"], ":0\r\n"),
            (vec!["TOUCH", "k"], ":0\r\n"),
            (vec!["TYPE", "k"], "+none\r\n"),
            (vec!["TTL", "k"], ":-2\r\n"),
            (vec!["PEXPIRETIME", "k"], ":-2\r\n"),
            (vec!["PERSIST", "k"], ":0\r\n"),
            (vec!["EXPIRE", "k", "100"], ":0\r\n"),
            (vec!["OBJECT", "ENCODING", "k"], "$-1\r\n"),
            (vec!["KEYS", "*"], "*0\r\n"),
            (vec!["RANDOMKEY"], "$-1\r\n"),
            (vec!["RENAME", "k", "j"], "-ERR no such key\r\n"),
            (vec!["COPY", "k", "j"], ":0\r\n"),
            (vec!["MOVE", "k", "1"], ":0\r\n"),
            (vec!["DEBUG", "TIER", "k"], "$-1\r\n"),
            (
                vec!["DEBUG", "DIGEST"],
                "+0000000000000000000000000000000000000000\r\n",
            ),
            (
                vec!["SCAN", "0", "COUNT", "1000"],
                "*2\r\n$1\r\n0\r\n*0\r\n",
            ),
            (vec!["DEL", "k"], ":0\r\n"),
            (vec!["INCR", "k"], ":1\r\n"),
            (vec!["TTL", "k"], ":-1\r\n"),
        ] {
            assert_eq!(client.command(&command), reply, "{command:?}, cold: {cold}");
        }
    }
}

#[test]
fn a_time_in_the_past_removes_the_key() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for past in [
        ["EXPIRE", "k", "0"],
        ["EXPIRE", "k", "-9223372036854775"],
        ["PEXPIRE", "k", "-9223372036854775808"],
        ["EXPIREAT", "k", "1"],
        ["PEXPIREAT", "k", "-1"],
    ] {
        client.command(&["SET", "k", "v"]);
        assert_eq!(client.command(&past), ":1\r\n", "{past:?}");
        assert_eq!(client.command(&["DBSIZE"]), ":0\r\n", "{past:?}");
    }
}

#[test]
fn options_compare_the_new_time_with_the_old_one() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.command(&["SET", "k", "v"]);
    for (options, changes, expires_at) in [
        (&["4000000000", "XX"][..], false, -1),
        (&["4000000000", "GT"], false, -1),
        (&["4000000000", "LT"], true, 4_000_000_000_i64),
        (&["4000000001", "NX"], false, 4_000_000_000),
        (&["4000000000", "gt"], false, 4_000_000_000),
        (&["4000000001", "gt"], true, 4_000_000_001),
        (&["4000000002", "XX", "LT"], false, 4_000_000_001),
        (&["4000000000", "XX", "lt"], true, 4_000_000_000),
        (&["3999999999", "XX"], true, 3_999_999_999),
        (&["1", "GT"], false, 3_999_999_999),
    ] {
        let command = [&["EXPIREAT", "k"], options].concat();
        let reply = format!(":{}\r\n", i32::from(changes));
        assert_eq!(client.command(&command), reply, "{command:?}");
        assert_eq!(
            client.command(&["EXPIRETIME", "k"]),
            format!(":{expires_at}\r\n"),
            "{command:?}"
        );
    }
    client.command(&["PERSIST", "k"]);
    assert_eq!(client.command(&["EXPIREAT", "k", "1", "NX"]), ":1\r\n");
    assert_eq!(client.command(&["EXISTS", "k"]), ":0\r\n");
}

#[test]
fn impossible_times_and_options_are_errors() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let not_compatible = "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n";
    for (command, error) in [
        (
            vec!["EXPIRE", "k", "x"],
            "-ERR value is not an integer or out of range\r\n",
        ),
        (
            vec!["EXPIRE", "k", "9223372036854775"],
            "-ERR invalid expire time in 'expire' command\r\n",
        ),
        (
            vec!["PEXPIRE", "k", "9223372036854775807"],
            "-ERR invalid expire time in 'pexpire' command\r\n",
        ),
        (
            vec!["EXPIREAT", "k", "9223372036854776"],
            "-ERR invalid expire time in 'expireat' command\r\n",
        ),
        (vec!["EXPIRE", "k", "1", "NX", "GT"], not_compatible),
        (vec!["EXPIRE", "k", "x", "XX", "NX"], not_compatible),
        (
            vec!["EXPIRE", "k", "1", "GT", "LT"],
            "-ERR GT and LT options at the same time are not compatible\r\n",
        ),
        (
            vec!["EXPIRE", "k", "1", "soon"],
            "-ERR Unsupported option soon\r\n",
        ),
    ] {
        assert_eq!(client.command(&command), error, "{command:?}");
    }
    client.command(&["SET", "k", "v"]);
    assert_eq!(
        client.command(&["PEXPIREAT", "k", "9223372036854775807"]),
        ":1\r\n"
    );
    assert_eq!(
        client.command(&["PEXPIRETIME", "k"]),
        ":9223372036854775807\r\n"
    );
    assert_eq!(
        client.command(&["EXPIRETIME", "k"]),
        ":9223372036854776\r\n"
    );
}

#[test]
fn expired_keys_go_without_being_asked_for() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for number in 0..1000 {
        client.command(&["SET", &format!("k{number}"), "v", "PX", "1"]);
    }
    client.command(&["SET", "stays", "v"]);
    wait_for(&mut client, &["DBSIZE"], ":1\r\n");
    assert_eq!(client.command(&["GET", "stays"]), "$1\r\nv\r\n");
}

/// Nobody asks for them, and none of their values is read: the key files tell.
#[test]
fn expired_keys_on_the_device_go_without_being_asked_for() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.command(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    for number in 0..2000 {
        client.command(&["SET", &format!("k{number}"), "v", "PX", "1"]);
    }
    client.command(&["SET", "stays", "v", "EX", "1000"]);
    client.command(&["DEBUG", "FORCE-COLD"]);
    assert_eq!(client.command(&["DBSIZE"]), ":2001\r\n");
    client.command(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
    wait_for(&mut client, &["DBSIZE"], ":1\r\n");
    let stats = client.command(&["INFO", "stats"]);
    assert!(stats.contains("\r\nexpired_keys:2000\r\n"), "{stats}");
    let keyspace = client.command(&["INFO", "keyspace"]);
    assert!(keyspace.contains("db0:keys=1,expires=1,"), "{keyspace}");
    // Only where two keys have the same tag a record tells which of them it is.
    let tiers = client.command(&["INFO", "tiers"]);
    let mut fields = tiers.lines().filter_map(|line| line.split_once(':'));
    let cold_reads = fields.find(|(name, _)| *name == "cold_reads");
    let (_, cold_reads) = cold_reads.expect("a field of INFO");
    assert!(
        cold_reads.parse::<u64>().is_ok_and(|reads| reads < 20),
        "{tiers}"
    );
    assert_eq!(client.command(&["GET", "stays"]), "$1\r\nv\r\n");
}
