//! WATCH through the socket: EXEC does nothing if a watched key has changed, and is never kept from running by anything else.

mod common;

use std::time::Duration;

use common::{Connection, Server, encode, eventually};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];
/// The least memory that two workers start with.
const SMALL_MEMORY: [&str; 4] = ["--enable-debug-command", "yes", "--maxmemory", "36mb"];

const RAN: &str = "*1\r\n+PONG\r\n";
const ABORTED: &str = "*-1\r\n";

/// Sends a command given as one line.
fn send(client: &mut Connection, line: &str) -> String {
    client.command(&line.split(' ').collect::<Vec<_>>())
}

/// What becomes of a transaction of a client.
fn transaction(client: &mut Connection) -> String {
    assert_eq!(send(client, "MULTI"), "+OK\r\n");
    assert_eq!(send(client, "PING"), "+QUEUED\r\n");
    send(client, "EXEC")
}

/// What becomes of the transaction of a client that watches `keys` while another sends `commands`.
fn watching(server: &Server, keys: &str, commands: &[&str]) -> String {
    let (mut client, mut other) = (server.connect(), server.connect());
    assert_eq!(send(&mut client, &format!("WATCH {keys}")), "+OK\r\n");
    for command in commands {
        let reply = send(&mut other, command);
        assert!(!reply.starts_with('-'), "{command}: {reply}");
    }
    transaction(&mut client)
}

#[test]
fn a_change_of_a_watched_key_aborts() {
    let server = Server::start(&DEBUG);
    // What is there before, what is done, and to which keys that is a change.
    for (before, commands, changed, unchanged) in [
        ("SET a 1", &["SET a 1"][..], "a", "b"),
        (
            "SET a 1",
            &["GET a", "SET a 2 NX", "EXPIRE b 9", "PERSIST a"],
            "",
            "a b",
        ),
        ("SET a 1", &["DEL a", "SET a 1"], "a", "b"),
        (
            "SET a 1",
            &["DEL b", "GETDEL b", "UNLINK b", "SETRANGE b 0 "],
            "",
            "a b",
        ),
        ("SET a 1", &["RENAME a b"], "a b", "c"),
        ("SET a 1", &["COPY a b"], "b", "a c"),
        ("SET a 1", &["MOVE a 3"], "a", "b"),
        ("SET a 1", &["SELECT 3", "SET b 1"], "", "a b"),
        ("SET a 1", &["EXPIRE a 100"], "a", "b"),
        ("SET a 1 EX 100", &["PERSIST a"], "a", "b"),
        ("SET a 1", &["GETEX a EX 100"], "a", "b"),
        (
            "SET a 1",
            &[
                "GETEX a",
                "TTL a",
                "TOUCH a",
                "OBJECT ENCODING a",
                "DEBUG OBJECT a",
            ],
            "",
            "a",
        ),
        ("SET a 1", &["EXPIRE a -1"], "a", "b"),
        ("SET a abc", &["SETBIT a 0 1"], "a", "b"),
        (
            "SET a abc",
            &["SETBIT a 0 0", "BITFIELD a SET u8 0 97"],
            "",
            "a",
        ),
        ("SET a abc", &["BITFIELD a SET u8 0 98"], "a", "b"),
        (
            "SET a abc",
            &["BITFIELD a OVERFLOW FAIL INCRBY u8 0 255 GET u8 0"],
            "",
            "a",
        ),
        ("SET a abc", &["APPEND a x"], "a", "b"),
        ("SET a abc", &["SETRANGE a 1 x"], "a", "b"),
        ("SET a 1", &["INCRBYFLOAT a 0"], "a", "b"),
        ("SET a abc", &["BITOP NOT b a"], "b", "a"),
        ("SET a abc", &["BITOP AND b none nothing"], "", "a b"),
        ("SET a 1", &["MSETNX a 2 b 2"], "", "a b"),
        ("SET a 1", &["MSETNX b 2 c 2"], "b c", "a"),
        ("SET a 1", &["FLUSHDB"], "a", "b"),
        ("SET a 1", &["FLUSHALL", "SET a 1"], "a", "b"),
        ("SET a 1", &["SELECT 3", "FLUSHDB"], "", "a b"),
        ("SET a 1", &["SWAPDB 0 3"], "a", "b"),
        ("SET a 1", &["SWAPDB 0 3", "SWAPDB 0 3"], "a", "b"),
        (
            "SET a 1",
            &["SELECT 3", "SET b 1", "SWAPDB 3 0"],
            "a b",
            "c",
        ),
        ("SET a 1", &["SWAPDB 0 0", "SWAPDB 4 5"], "", "a b"),
        (
            "SET a 1",
            &[
                "DEBUG FORCE-WARM",
                "GET a",
                "DEBUG FORCE-COLD",
                "GET a",
                "GET a",
                "GET a",
            ],
            "",
            "a b",
        ),
    ] {
        for key in changed.split_whitespace() {
            for (watched, what) in [
                (key.to_owned(), ABORTED),
                (format!("none {key} other"), ABORTED),
            ] {
                assert_eq!(send(&mut server.connect(), "FLUSHALL"), "+OK\r\n");
                assert_eq!(send(&mut server.connect(), before), "+OK\r\n");
                assert_eq!(
                    watching(&server, &watched, commands),
                    what,
                    "{watched}: {commands:?}"
                );
            }
        }
        if !unchanged.is_empty() {
            assert_eq!(send(&mut server.connect(), "FLUSHALL"), "+OK\r\n");
            assert_eq!(send(&mut server.connect(), before), "+OK\r\n");
            assert_eq!(
                watching(&server, unchanged, commands),
                RAN,
                "{unchanged}: {commands:?}"
            );
        }
    }
}

#[test]
fn watching_ends_with_the_transaction() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    for end in ["EXEC", "DISCARD", "RESET", "EXEC too many words"] {
        assert_eq!(send(&mut client, "WATCH a"), "+OK\r\n");
        assert_eq!(send(&mut other, "SET a 1"), "+OK\r\n");
        assert_eq!(send(&mut client, "MULTI"), "+OK\r\n");
        send(&mut client, end);
        assert_eq!(transaction(&mut client), RAN, "{end}");
    }
    assert_eq!(send(&mut client, "WATCH a"), "+OK\r\n");
    assert_eq!(send(&mut other, "SET a 1"), "+OK\r\n");
    assert_eq!(send(&mut client, "UNWATCH"), "+OK\r\n");
    assert_eq!(transaction(&mut client), RAN);
    // The client's own change is one too; and inside MULTI it is too late to watch, or to stop watching.
    assert_eq!(send(&mut client, "WATCH a"), "+OK\r\n");
    assert_eq!(send(&mut client, "SET a 2"), "+OK\r\n");
    assert_eq!(send(&mut client, "MULTI"), "+OK\r\n");
    assert_eq!(
        send(&mut client, "WATCH b"),
        "-ERR WATCH inside MULTI is not allowed\r\n"
    );
    assert_eq!(send(&mut client, "UNWATCH"), "+QUEUED\r\n");
    assert_eq!(send(&mut client, "EXEC"), ABORTED);
    // A refused command counts for more than a change.
    assert_eq!(send(&mut client, "WATCH a"), "+OK\r\n");
    assert_eq!(send(&mut other, "SET a 1"), "+OK\r\n");
    assert_eq!(send(&mut client, "MULTI"), "+OK\r\n");
    send(&mut client, "GET");
    assert!(send(&mut client, "EXEC").starts_with("-EXECABORT"));
    // Nothing is left behind, by those who stay nor by those who leave.
    assert_eq!(send(&mut client, "WATCH a b c"), "+OK\r\n");
    let watched = |other: &mut Connection| {
        let info = send(other, "INFO clients");
        let figure = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.expect(name).to_owned()
        };
        (figure("watching_clients:"), figure("total_watched_keys:"))
    };
    assert_eq!(watched(&mut other), ("1".to_owned(), "3".to_owned()));
    let list = send(&mut other, "CLIENT LIST");
    assert!(list.contains(" watch=3 "), "{list}");
    drop(client);
    eventually(|| (watched(&mut other) == ("0".to_owned(), "0".to_owned())).then_some(()));
}

#[test]
fn keys_that_expire() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    for active in ["0", "1"] {
        assert_eq!(
            client.command(&["DEBUG", "SET-ACTIVE-EXPIRE", active]),
            "+OK\r\n"
        );
        for tier in ["PING", "DEBUG FORCE-WARM", "DEBUG FORCE-COLD"] {
            // Keys watched while they are there, and after they have expired; what then comes across them.
            let notices = ["PING", "GET", "DEL", "APPEND"];
            let mut before: Vec<Connection> = notices.iter().map(|_| server.connect()).collect();
            let mut after: Vec<Connection> = notices.iter().map(|_| server.connect()).collect();
            let is_in_time = |client: &mut Connection, before: &mut [Connection]| {
                for i in 0..notices.len() {
                    for key in [format!("before:{i}"), format!("after:{i}")] {
                        client.command(&["SET", &key, "1", "PX", "300"]);
                    }
                }
                send(client, tier);
                for (i, watcher) in before.iter_mut().enumerate() {
                    send(watcher, "UNWATCH");
                    assert_eq!(send(watcher, &format!("WATCH before:{i}")), "+OK\r\n");
                }
                send(client, "EXISTS before:0 before:1 before:2 before:3") == ":4\r\n"
            };
            eventually(|| is_in_time(&mut client, &mut before).then_some(()));
            std::thread::sleep(Duration::from_millis(320));
            for (i, watcher) in after.iter_mut().enumerate() {
                assert_eq!(send(watcher, &format!("WATCH after:{i}")), "+OK\r\n");
            }
            for (i, notice) in notices.iter().enumerate() {
                for key in [format!("before:{i}"), format!("after:{i}")] {
                    match *notice {
                        "PING" => {}
                        "APPEND" => assert_eq!(client.command(&["APPEND", &key, "1"]), ":1\r\n"),
                        notice => drop(client.command(&[notice, &key])),
                    }
                }
            }
            // Time for those who look for expired keys.
            std::thread::sleep(Duration::from_millis(if active == "1" { 250 } else { 0 }));
            for (i, notice) in notices.iter().enumerate() {
                let what = format!("active expiry {active}, {tier}, {notice}");
                // To expire is a change; that the rest of an expired record goes is none; that the key comes back is one.
                assert_eq!(transaction(&mut before[i]), ABORTED, "{what}");
                let expected = if *notice == "APPEND" { ABORTED } else { RAN };
                assert_eq!(transaction(&mut after[i]), expected, "{what}");
            }
        }
    }
}

#[test]
fn nothing_but_the_watched_key_aborts() {
    const NEIGHBOURS: usize = 40_000;
    let server = Server::start(&SMALL_MEMORY);
    let mut watchers: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    let mut client = server.connect();
    for round in 0..4 {
        // Keys that share latches with others: there are more keys than latches.
        for (i, watcher) in watchers.iter_mut().enumerate() {
            let key = format!("watched:{round}:{i}");
            if i % 2 == 0 {
                assert_eq!(client.command(&["SET", &key, "value"]), "+OK\r\n");
            }
            assert_eq!(watcher.command(&["WATCH", &key]), "+OK\r\n");
        }
        // Every kind of write, and enough of them that segments leave memory and records move.
        let mut request = Vec::new();
        for key in 0..NEIGHBOURS {
            let name = format!("neighbour:{key}");
            let value = "v".repeat(400 + key % 7 * 100);
            let command: &[&str] = match key % 5 {
                0 | 1 => &["SET", &name, &value],
                2 => &["APPEND", &name, &value],
                3 => &["SETEX", &name, "1000", &value],
                _ => &["DEL", &name],
            };
            request.extend(encode(command));
        }
        for part in request.chunks(1 << 20) {
            client.send(part);
        }
        for _ in 0..NEIGHBOURS {
            assert!(!client.reply().starts_with('-'));
        }
        for i in 0..watchers.len() {
            let key = format!("watched:{round}:{i}");
            let there = ["$5\r\nvalue\r\n", "$-1\r\n"][i % 2];
            assert_eq!(client.command(&["GET", &key]), there);
        }
        // Only some of the watched keys change.
        assert_eq!(
            client.command(&["SET", &format!("watched:{round}:4"), "new"]),
            "+OK\r\n"
        );
        assert_eq!(
            client.command(&["SET", &format!("watched:{round}:5"), "new"]),
            "+OK\r\n"
        );
        for (i, watcher) in watchers.iter_mut().enumerate() {
            let expected = if i == 4 || i == 5 { ABORTED } else { RAN };
            assert_eq!(transaction(watcher), expected, "round {round}, watcher {i}");
        }
    }
}

#[test]
fn one_client_may_watch_thousands_of_keys() {
    const KEYS: usize = 5000;
    let server = Server::start(&DEBUG);
    let (mut client, mut other) = (server.connect(), server.connect());
    let keys: Vec<String> = (0..KEYS).map(|i| format!("key:{i}")).collect();
    let mut watch = vec!["WATCH"];
    watch.extend(keys.iter().map(String::as_str));
    for tier in ["FORCE-WARM", "FORCE-COLD"] {
        for changed in [None, Some(KEYS / 2)] {
            assert_eq!(
                other.command(&["DEBUG", "POPULATE", &KEYS.to_string(), "key"]),
                "+OK\r\n"
            );
            assert_eq!(other.command(&["DEBUG", tier]), "+OK\r\n");
            assert_eq!(client.command(&watch), "+OK\r\n");
            // Once more makes no difference.
            assert_eq!(client.command(&watch[..100]), "+OK\r\n");
            for neighbour in 0..100 {
                let key = format!("neighbour:{neighbour}");
                assert_eq!(other.command(&["SET", &key, "x"]), "+OK\r\n");
            }
            if let Some(changed) = changed {
                assert_eq!(other.command(&["APPEND", &keys[changed], "x"])[..1], *":");
            }
            let expected = if changed.is_some() { ABORTED } else { RAN };
            assert_eq!(transaction(&mut client), expected);
        }
    }
}

/// Every client increments by reading, and writing what it makes of that, if nobody else has written meanwhile.
#[test]
fn no_increment_is_lost() {
    const CLIENTS: i64 = 6;
    const INCREMENTS: i64 = 150;
    let server = Server::start(&DEBUG);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || {
                let mut connection = server.connect();
                let mut done = 0;
                while done < INCREMENTS {
                    // Two counters, and each client watches the one that it does not write as well.
                    let (mine, other) = if client % 2 == 0 {
                        ("a", "b")
                    } else {
                        ("b", "a")
                    };
                    assert_eq!(connection.command(&["WATCH", mine, other]), "+OK\r\n");
                    let reply = connection.command(&["MGET", mine, other]);
                    let numbers = reply
                        .split("\r\n")
                        .filter_map(|line| line.parse::<i64>().ok());
                    let sum: i64 = numbers.sum();
                    assert_eq!(connection.command(&["MULTI"]), "+OK\r\n");
                    let sum_then = (sum + 1).to_string();
                    connection.command(&["INCR", mine]);
                    connection.command(&["SET", "sum", &sum_then]);
                    let reply = connection.command(&["EXEC"]);
                    done += i64::from(reply != ABORTED);
                }
            });
        }
        scope.spawn(|| {
            let mut connection = server.connect();
            for _ in 0..30 {
                assert_eq!(connection.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
            }
        });
    });
    let total = (CLIENTS * INCREMENTS).to_string();
    let mut client = server.connect();
    assert_eq!(
        client.command(&["GET", "sum"]),
        format!("${}\r\n{total}\r\n", total.len())
    );
    let half = (CLIENTS * INCREMENTS / 2).to_string();
    assert_eq!(
        client.command(&["GET", "a"]),
        format!("${}\r\n{half}\r\n", half.len())
    );
}
