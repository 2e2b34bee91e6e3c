//! Iteration over keys: SCAN, KEYS and RANDOMKEY.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Connection, Server};

/// A SCAN's or KEYS's reply as lines: of the arrays and strings in it, only the strings.
fn strings(reply: &str) -> Vec<String> {
    let mut lines = reply.split("\r\n");
    let mut strings = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('$') {
            strings.extend(lines.next().map(str::to_owned));
        }
    }
    strings
}

/// All keys that a full iteration returns, each with how often.
fn scan_all(client: &mut Connection, options: &[&str]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut reply = strings(&client.command(&[&["SCAN", &cursor], options].concat()));
        cursor = reply.remove(0);
        for key in reply {
            *found.entry(key).or_default() += 1;
        }
        if cursor == "0" {
            return found;
        }
    }
}

#[test]
fn an_iteration_returns_every_key_once_whatever_the_count() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    assert_eq!(client.command(&["DEBUG", "POPULATE", "3000"]), "+OK\r\n");
    let expected: BTreeMap<_, _> = (0..3000)
        .map(|number| (format!("key:{number}"), 1))
        .collect();
    for count in ["1", "10", "777", "9223372036854775807"] {
        assert_eq!(
            scan_all(&mut client, &["COUNT", count]),
            expected,
            "COUNT {count}"
        );
    }
    client.command(&["DEBUG", "FORCE-COLD"]);
    assert_eq!(scan_all(&mut client, &["COUNT", "100"]), expected);
    let matching: BTreeMap<_, _> = expected
        .into_iter()
        .filter(|(key, _)| key.ends_with("17"))
        .collect();
    assert_eq!(
        scan_all(&mut client, &["MATCH", "key:*17", "COUNT", "50"]),
        matching
    );
    assert_eq!(
        scan_all(&mut client, &["TYPE", "STRING", "MATCH", "key:*17"]),
        matching
    );
    assert_eq!(scan_all(&mut client, &["TYPE", "list"]), BTreeMap::new());
    let listed: BTreeSet<_> = strings(&client.command(&["KEYS", "key:*17"]))
        .into_iter()
        .collect();
    assert_eq!(listed, matching.into_keys().collect());
}

#[test]
fn an_iteration_returns_what_stays_while_other_keys_come_and_go() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.command(&["DEBUG", "POPULATE", "500", "stays"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writer = server.connect();
        let stop = &stop;
        scope.spawn(move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                writer.command(&["SET", &format!("comes:{number}"), "v"]);
                writer.command(&["DEL", &format!("comes:{}", number / 2)]);
            }
        });
        for _ in 0..20 {
            let found = scan_all(&mut client, &["COUNT", "20", "MATCH", "stays:*"]);
            let missing: Vec<_> = (0..500)
                .map(|number| format!("stays:{number}"))
                .filter(|key| !found.contains_key(key))
                .collect();
            if !missing.is_empty() {
                stop.store(true, Ordering::Relaxed);
                panic!("the iteration missed {missing:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn cursors_and_options_are_checked() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (command, error) in [
        (vec!["SCAN", "x"], "-ERR invalid cursor\r\n"),
        (
            vec!["SCAN", "18446744073709551616"],
            "-ERR invalid cursor\r\n",
        ),
        (vec!["SCAN", "0", "COUNT", "0"], "-ERR syntax error\r\n"),
        (
            vec!["SCAN", "0", "COUNT", "x"],
            "-ERR value is not an integer or out of range\r\n",
        ),
        (vec!["SCAN", "0", "COUNT"], "-ERR syntax error\r\n"),
        (vec!["SCAN", "0", "LIMIT", "5"], "-ERR syntax error\r\n"),
    ] {
        assert_eq!(client.command(&command), error, "{command:?}");
    }
    // A cursor that no SCAN has given is as good as any other.
    let reply = client.command(&["SCAN", "18446744073709551615"]);
    assert!(reply.starts_with("*2\r\n$"), "{reply}");
}

#[test]
fn a_hostile_pattern_takes_no_longer_than_the_key_is_long() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.command(&["SET", &"a".repeat(20_000), "v"]);
    let started = Instant::now();
    assert_eq!(
        client.command(&["KEYS", &format!("{}b", "*a".repeat(900))]),
        "*0\r\n"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn random_keys_come_from_everywhere() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    assert_eq!(client.command(&["RANDOMKEY"]), "$-1\r\n");
    client.command(&["DEBUG", "POPULATE", "20"]);
    let mut seen = BTreeSet::new();
    // To miss one of 20 in 2000 draws is next to impossible, were they only roughly uniform.
    for _ in 0..2000 {
        seen.extend(strings(&client.command(&["RANDOMKEY"])));
    }
    assert_eq!(
        seen,
        (0..20).map(|number| format!("key:{number}")).collect()
    );
}
