//! MULTI, EXEC and DISCARD through the socket: what is queued, what is refused, and that nobody sees a part of it. WATCH is in
//! `watch`.

mod common;

use std::fmt::Write as _;

use common::{Connection, Server, encode};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// Sends commands one by one; each must have the reply beside it.
fn transcript(client: &mut Connection, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(client.command(&words), *expected, "{line}");
    }
}

#[test]
fn what_is_queued_is_executed_as_one() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    transcript(
        &mut client,
        &[
            ("EXEC", "-ERR EXEC without MULTI\r\n"),
            ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
            ("MULTI", "+OK\r\n"),
            ("SET a 1", "+QUEUED\r\n"),
            ("MULTI", "-ERR MULTI calls can not be nested\r\n"),
            ("INCR a", "+QUEUED\r\n"),
            ("APPEND a x", "+QUEUED\r\n"),
            ("INCR a", "+QUEUED\r\n"),
            ("GET a", "+QUEUED\r\n"),
        ],
    );
    assert_eq!(server.connect().command(&["GET", "a"]), "$-1\r\n");
    transcript(
        &mut client,
        &[
            (
                "EXEC",
                "*5\r\n+OK\r\n:2\r\n:2\r\n-ERR value is not an integer or out of range\r\n$2\r\n2x\r\n",
            ),
            ("EXEC", "-ERR EXEC without MULTI\r\n"),
            ("MULTI", "+OK\r\n"),
            ("EXEC", "*0\r\n"),
            ("MULTI", "+OK\r\n"),
            ("SET a 2", "+QUEUED\r\n"),
            ("DISCARD", "+OK\r\n"),
            ("GET a", "$2\r\n2x\r\n"),
        ],
    );
}

#[test]
fn a_refused_command_breaks_the_transaction() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    for (refused, error) in [
        (
            "GET",
            "-ERR wrong number of arguments for 'get' command\r\n",
        ),
        (
            "NOSUCH x",
            "-ERR unknown command 'NOSUCH', with args beginning with: 'x' \r\n",
        ),
        (
            "CLIENT NOSUCH",
            "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n",
        ),
        (
            "SHUTDOWN ABORT",
            "-ERR Command not allowed inside a transaction\r\n",
        ),
    ] {
        transcript(
            &mut client,
            &[
                ("MULTI", "+OK\r\n"),
                ("SET a 1", "+QUEUED\r\n"),
                (refused, error),
                ("SET b 1", "+QUEUED\r\n"),
                ("EXEC", aborted),
                ("EXISTS a b", ":0\r\n"),
            ],
        );
    }
    transcript(
        &mut client,
        &[
            ("MULTI", "+OK\r\n"),
            ("SET a 1", "+QUEUED\r\n"),
            (
                "EXEC now",
                "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
            ),
            ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ],
    );
}

#[test]
fn the_connection_changes_as_in_redis() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    transcript(
        &mut client,
        &[
            // Databases are those of the moment of execution.
            ("MULTI", "+OK\r\n"),
            ("SELECT 3", "+QUEUED\r\n"),
            ("SET in3 x", "+QUEUED\r\n"),
            ("SELECT 99", "+QUEUED\r\n"),
            ("COPY in3 in5 DB 5", "+QUEUED\r\n"),
            ("SWAPDB 3 5", "+QUEUED\r\n"),
            ("EXISTS in3 in5", "+QUEUED\r\n"),
            (
                "EXEC",
                "*6\r\n+OK\r\n+OK\r\n-ERR DB index is out of range\r\n:1\r\n+OK\r\n:1\r\n",
            ),
            ("EXISTS in5", ":1\r\n"),
            ("SELECT 0", "+OK\r\n"),
            ("DBSIZE", ":0\r\n"),
            // RESET ends the transaction, at once.
            ("MULTI", "+OK\r\n"),
            ("SET a 1", "+QUEUED\r\n"),
            ("RESET", "+RESET\r\n"),
            ("GET a", "$-1\r\n"),
            // The protocol changes within the reply.
            ("MULTI", "+OK\r\n"),
            ("GET a", "+QUEUED\r\n"),
            ("HELLO 3 SETNAME bad name", "+QUEUED\r\n"),
            ("HELLO 3", "+QUEUED\r\n"),
            ("GET a", "+QUEUED\r\n"),
        ],
    );
    let reply = client.command(&["EXEC"]);
    assert!(
        reply.starts_with("*4\r\n$-1\r\n-ERR Syntax error in HELLO option 'name'\r\n%7\r\n"),
        "{reply}"
    );
    assert!(reply.ends_with("*0\r\n_\r\n"), "{reply}");
    transcript(
        &mut client,
        &[
            ("MULTI", "+OK\r\n"),
            ("SET a 1", "+QUEUED\r\n"),
            ("QUIT", "+OK\r\n"),
        ],
    );
    assert_eq!(client.read_to_end(), "");
    assert_eq!(server.connect().command(&["GET", "a"]), "$-1\r\n");
}

#[test]
fn replies_are_left_out_as_in_redis() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let send = |client: &mut Connection, lines: &[&str]| {
        for line in lines {
            client.send(encode(&line.split(' ').collect::<Vec<_>>()));
        }
    };
    // The count comes before what is left out, so that clients lose step: that is how it is.
    send(
        &mut client,
        &[
            "MULTI",
            "CLIENT REPLY OFF",
            "PING",
            "EXEC",
            "PING",
            "CLIENT REPLY ON",
            "QUIT",
        ],
    );
    assert_eq!(
        client.read_to_end(),
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n"
    );
    let mut client = server.connect();
    send(
        &mut client,
        &[
            "CLIENT REPLY OFF",
            "MULTI",
            "PING",
            "CLIENT REPLY ON",
            "PING",
            "EXEC",
            "QUIT",
        ],
    );
    assert_eq!(client.read_to_end(), "+OK\r\n+PONG\r\n+OK\r\n");
    let mut client = server.connect();
    send(
        &mut client,
        &[
            "MULTI",
            "PING",
            "CLIENT REPLY SKIP",
            "PING",
            "EXEC",
            "PING",
            "ECHO x",
            "QUIT",
        ],
    );
    assert_eq!(
        client.read_to_end(),
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+PONG\r\n+PONG\r\n$1\r\nx\r\n+OK\r\n"
    );
    // Who kills himself gets the replies up to that.
    let mut client = server.connect();
    send(
        &mut client,
        &[
            "MULTI",
            "CLIENT KILL TYPE normal SKIPME no",
            "SET killed 1",
            "EXEC",
        ],
    );
    assert_eq!(
        client.read_to_end(),
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n"
    );
    assert_eq!(server.connect().command(&["GET", "killed"]), "$1\r\n1\r\n");
}

#[test]
fn commands_that_walk_everything_see_the_transaction_they_are_in() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    transcript(
        &mut client,
        &[
            ("SET k1 a", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("KEYS *", "+QUEUED\r\n"),
            ("SET k2 b", "+QUEUED\r\n"),
            ("DEBUG FORCE-COLD", "+QUEUED\r\n"),
            ("DEL k1", "+QUEUED\r\n"),
            ("KEYS *", "+QUEUED\r\n"),
            ("DBSIZE", "+QUEUED\r\n"),
            ("DEBUG DIGEST", "+QUEUED\r\n"),
            ("DEBUG POPULATE 2 k", "+QUEUED\r\n"),
            ("GET k:1", "+QUEUED\r\n"),
            ("FLUSHALL", "+QUEUED\r\n"),
            ("KEYS *", "+QUEUED\r\n"),
            ("SET k3 c", "+QUEUED\r\n"),
            ("RANDOMKEY", "+QUEUED\r\n"),
            (
                "EXEC",
                "*13\r\n*1\r\n$2\r\nk1\r\n+OK\r\n+OK\r\n:1\r\n*1\r\n$2\r\nk2\r\n:1\r\n\
                 +5f907e5261ddcccf98fb2192cd432fc98108c719\r\n+OK\r\n$7\r\nvalue:1\r\n+OK\r\n*0\r\n+OK\r\n$2\r\nk3\r\n",
            ),
            ("GET k3", "$1\r\nc\r\n"),
        ],
    );
}

#[test]
fn what_is_queued_counts_as_memory_of_the_client() {
    let server = Server::start(&["--client-query-buffer-limit", "1mb"]);
    let mut client = server.connect();
    let value = "v".repeat(100_000);
    assert_eq!(client.command(&["MULTI"]), "+OK\r\n");
    assert_eq!(client.command(&["SET", "key", &value]), "+QUEUED\r\n");
    let list = server.connect().command(&["CLIENT", "LIST", "FLAGS", "x"]);
    let field = |name: &str| {
        let at = list.find(name).expect(name) + name.len();
        let digits = list[at..].split(' ').next().unwrap();
        digits.parse::<i64>().expect(name)
    };
    assert_eq!(field(" multi="), 1);
    assert!(field(" multi-mem=") >= 100_000, "{list}");
    assert!(field(" tot-mem=") >= 100_000, "{list}");
    let more = encode(&["SET", "key", &value]).repeat(20);
    // The server may close it before all has been sent.
    let _ = client.try_send(more);
    let replies = client.read_to_end();
    assert!(replies.matches("+QUEUED").count() <= 20);
    assert_eq!(server.connect().command(&["EXISTS", "key"]), ":0\r\n");
    let stats = server.connect().command(&["INFO", "stats"]);
    assert!(stats.contains("client_query_buffer_limit_disconnections:1"));
}

#[test]
fn each_command_is_counted_and_so_is_exec() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    transcript(
        &mut client,
        &[
            ("MULTI", "+OK\r\n"),
            ("SET a x", "+QUEUED\r\n"),
            ("GET a", "+QUEUED\r\n"),
            ("GET b", "+QUEUED\r\n"),
            ("INCR a", "+QUEUED\r\n"),
            (
                "EXEC",
                "*4\r\n+OK\r\n$1\r\nx\r\n$-1\r\n-ERR value is not an integer or out of range\r\n",
            ),
            ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ],
    );
    let info = client.command(&["INFO", "commandstats"]);
    for (command, calls, failed) in [
        ("multi", 1, 0),
        ("set", 1, 0),
        ("get", 2, 0),
        ("incr", 1, 1),
        ("exec", 2, 1),
    ] {
        let line = info
            .lines()
            .find(|line| line.starts_with(&format!("cmdstat_{command}:")))
            .expect(command);
        assert!(line.contains(&format!("calls={calls},")), "{line}");
        assert!(line.ends_with(&format!("failed_calls={failed}")), "{line}");
    }
    let stats = client.command(&["INFO", "stats"]);
    for figure in [
        "total_commands_processed:8",
        "keyspace_hits:1",
        "keyspace_misses:1",
        "total_error_replies:2",
    ] {
        assert!(stats.contains(figure), "{figure}: {stats}");
    }
}

/// Sums up the integers of the bulk strings in a reply.
fn sum(reply: &str) -> i64 {
    let lines = reply.split("\r\n").skip(1);
    lines.filter_map(|line| line.parse::<i64>().ok()).sum()
}

#[test]
fn nobody_sees_a_part_of_a_transaction() {
    const ACCOUNTS: usize = 50;
    const WRITERS: u64 = 4;
    const TRANSFERS: u64 = 400;
    let server = Server::start(&DEBUG);
    let names: Vec<String> = (0..ACCOUNTS).map(|i| format!("account:{i}")).collect();
    for name in &names {
        assert_eq!(server.connect().command(&["SET", name, "100"]), "+OK\r\n");
    }
    let mut all = vec!["MGET"];
    all.extend(names.iter().map(String::as_str));
    let reader = |commands: &[&[&str]]| {
        // A reader in a transaction, or with a command of many keys, sees the same sum at any time.
        let mut client = server.connect();
        for _ in 0..200 {
            for command in commands {
                client.send(encode(command));
            }
            for _ in 1..commands.len() {
                client.reply();
            }
            let reply = client.reply();
            assert_eq!(sum(&reply), 100 * ACCOUNTS as i64, "{reply}");
        }
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (server, names) = (&server, &names);
            scope.spawn(move || {
                let mut client = server.connect();
                let mut random = writer + 1;
                let mut next = || {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (random >> 33) as usize
                };
                for _ in 0..TRANSFERS {
                    let mut request = encode(&["MULTI"]);
                    let transfers = 1 + next() % 8;
                    for _ in 0..transfers {
                        let (from, to) = (&names[next() % ACCOUNTS], &names[next() % ACCOUNTS]);
                        request.extend(encode(&["DECRBY", from, "7"]));
                        request.extend(encode(&["INCRBY", to, "7"]));
                    }
                    request.extend(encode(&["EXEC"]));
                    client.send(request);
                    for _ in 0..=2 * transfers {
                        client.reply();
                    }
                    assert!(
                        client
                            .reply()
                            .starts_with(&format!("*{}\r\n", 2 * transfers))
                    );
                }
            });
        }
        scope.spawn(|| reader(&[&all]));
        scope.spawn(|| {
            let gets: Vec<[&str; 2]> = names.iter().map(|name| ["GET", name.as_str()]).collect();
            let mut commands: Vec<&[&str]> = vec![&["MULTI"]];
            commands.extend(gets.iter().map(<[&str; 2]>::as_slice));
            commands.push(&["EXEC"]);
            reader(&commands);
        });
        scope.spawn(|| {
            // What goes cold in between changes nothing.
            let mut client = server.connect();
            for _ in 0..20 {
                assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
            }
        });
    });
    let reply = server.connect().command(&all);
    assert_eq!(sum(&reply), 100 * ACCOUNTS as i64);
}

#[test]
fn a_transaction_on_very_many_keys_has_its_turn() {
    const KEYS: usize = 2000;
    let server = Server::start(&[]);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // Writes that leave hardly a moment in which no key is latched.
                let mut client = server.connect();
                let mut request = Vec::new();
                for key in 0..KEYS {
                    request.extend(encode(&["INCR", &format!("key:{key}")]));
                }
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    client.send(&request);
                    (0..KEYS).for_each(|_| drop(client.reply()));
                }
            });
        }
        let mut client = server.connect();
        for round in 0..20 {
            let mut request = encode(&["MULTI"]);
            for key in 0..KEYS {
                request.extend(encode(&["SET", &format!("key:{key}"), "0"]));
            }
            request.extend(encode(&["DBSIZE"]));
            request.extend(encode(&["EXEC"]));
            client.send(request);
            (0..KEYS + 2).for_each(|_| drop(client.reply()));
            let mut expected = format!("*{}\r\n", KEYS + 1);
            (0..KEYS).for_each(|_| expected.push_str("+OK\r\n"));
            write!(expected, ":{KEYS}\r\n").unwrap();
            assert_eq!(client.reply(), expected, "round {round}");
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
