//! What a restart finds: after SHUTDOWN, after a kill, with and without a command log.

mod common;

use std::sync::Arc;

use common::{Connection, Server, eventually};
use tempfile::TempDir;

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];
/// Every acknowledged write survives.
const ALWAYS: [&str; 6] = [
    "--enable-debug-command",
    "yes",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
];
/// A restart finds the last checkpoint, and only these tests make one.
const NO_LOG: [&str; 6] = [
    "--enable-debug-command",
    "yes",
    "--appendonly",
    "no",
    "--save",
    "",
];

/// Writes data of all kinds to three databases.
fn fill(client: &mut Connection) {
    for database in ["0", "1", "2"] {
        assert_eq!(client.command(&["SELECT", database]), "+OK\r\n");
        for i in 0..200 {
            let (key, value) = (format!("key:{i}"), format!("value {i} of {database}"));
            assert_eq!(client.command(&["SET", &key, &value]), "+OK\r\n");
        }
        assert_eq!(client.command(&["MSET", "a", "1", "b", "2"]), "+OK\r\n");
        assert_eq!(client.command(&["INCRBY", "counter", "41"]), ":41\r\n");
        assert_eq!(client.command(&["INCR", "counter"]), ":42\r\n");
        assert_eq!(
            client.command(&["SETEX", "expires", "1000", "soon"]),
            "+OK\r\n"
        );
        assert_eq!(client.command(&["EXPIRE", "a", "2000"]), ":1\r\n");
        assert_eq!(client.command(&["APPEND", "key:1", " and more"]), ":21\r\n");
        assert_eq!(
            client.command(&["SETRANGE", "key:2", "3", "XYZ"]),
            ":12\r\n"
        );
        assert_eq!(client.command(&["RENAME", "key:3", "renamed"]), "+OK\r\n");
        assert_eq!(client.command(&["DEL", "key:4", "key:5"]), ":2\r\n");
        assert_eq!(
            client.command(&["GETDEL", "key:6"]),
            format!("$12\r\nvalue 6 of {database}\r\n")
        );
        let big = "big".repeat(100_000);
        assert_eq!(client.command(&["SET", "big", &big]), "+OK\r\n");
        assert_eq!(client.command(&["SETBIT", "big", "999", "1"]), ":1\r\n");
    }
    assert_eq!(client.command(&["SELECT", "0"]), "+OK\r\n");
}

/// A fingerprint of all data, the sizes of the databases, and when two keys expire.
fn state(client: &mut Connection) -> Vec<String> {
    let mut state = vec![client.command(&["DEBUG", "DIGEST"])];
    for database in ["0", "1", "2"] {
        assert_eq!(client.command(&["SELECT", database]), "+OK\r\n");
        for question in [
            &["DBSIZE"][..],
            &["PEXPIRETIME", "expires"],
            &["PEXPIRETIME", "a"],
        ] {
            state.push(client.command(question));
        }
    }
    assert_eq!(client.command(&["SELECT", "0"]), "+OK\r\n");
    state
}

/// The value of a field of INFO.
fn info(client: &mut Connection, field: &str) -> String {
    let text = client.command(&["INFO"]);
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| *name == field);
    found
        .unwrap_or_else(|| panic!("INFO has no {field}"))
        .1
        .trim_end()
        .to_owned()
}

fn restarted(dir: Arc<TempDir>, directives: &[&str]) -> (Server, Vec<String>) {
    let server = Server::start_in(dir, directives);
    let found = state(&mut server.connect());
    (server, found)
}

#[test]
fn after_shutdown_everything_is_there_and_nothing_is_replayed() {
    for directives in [&ALWAYS[..], &DEBUG] {
        let server = Server::start(directives);
        let mut client = server.connect();
        fill(&mut client);
        let before = state(&mut client);
        let (server, after) = restarted(server.shut_down(&[]), directives);
        assert_eq!(after, before);
        assert!(
            server.start_log.contains("and 0 changes ("),
            "{}",
            server.start_log
        );
        // And again, with nothing changed.
        let (_server, after) = restarted(server.shut_down(&[]), directives);
        assert_eq!(after, before);
    }
}

#[test]
fn after_a_kill_every_acknowledged_write_is_there() {
    let server = Server::start(&ALWAYS);
    let mut client = server.connect();
    fill(&mut client);
    let before = state(&mut client);
    let (server, after) = restarted(server.kill(), &ALWAYS);
    assert_eq!(after, before);
    assert!(
        !server.start_log.contains("and 0 changes ("),
        "{}",
        server.start_log
    );
    // What is done to recovered data is there, too; some of it after a checkpoint.
    let mut client = server.connect();
    assert_eq!(client.command(&["APPEND", "key:1", "!"]), ":22\r\n");
    assert_eq!(client.command(&["SAVE"]), "+OK\r\n");
    assert_eq!(client.command(&["DEL", "key:7", "big"]), ":2\r\n");
    assert_eq!(client.command(&["PERSIST", "a"]), ":1\r\n");
    let before = state(&mut client);
    let (_server, after) = restarted(server.kill(), &ALWAYS);
    assert_eq!(after, before);
}

#[test]
fn without_a_command_log_a_restart_finds_the_last_checkpoint() {
    let server = Server::start(&NO_LOG);
    let mut client = server.connect();
    assert_eq!(info(&mut client, "aof_enabled"), "0");
    fill(&mut client);
    assert_eq!(client.command(&["SAVE"]), "+OK\r\n");
    let saved = state(&mut client);
    assert_eq!(client.command(&["SET", "later", "lost"]), "+OK\r\n");
    assert_eq!(client.command(&["DEL", "key:1"]), ":1\r\n");
    assert_eq!(client.command(&["SWAPDB", "0", "1"]), "+OK\r\n");
    let (server, found) = restarted(server.kill(), &NO_LOG);
    assert_eq!(found, saved);
    // SHUTDOWN saves if it is told to or if there are save rules.
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "later", "lost"]), "+OK\r\n");
    let (server, found) = restarted(server.shut_down(&[]), &NO_LOG);
    assert_eq!(found, saved);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "later", "kept"]), "+OK\r\n");
    let before = state(&mut client);
    let (server, found) = restarted(server.shut_down(&["SAVE"]), &NO_LOG);
    assert_eq!(found, before);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "later", "still"]), "+OK\r\n");
    assert_eq!(
        client.command(&["CONFIG", "SET", "save", "3600 1"]),
        "+OK\r\n"
    );
    let before = state(&mut client);
    let (server, found) = restarted(server.shut_down(&[]), &NO_LOG);
    assert_eq!(found, before);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["CONFIG", "SET", "save", "3600 1"]),
        "+OK\r\n"
    );
    assert_eq!(client.command(&["SET", "later", "lost"]), "+OK\r\n");
    let (_server, found) = restarted(server.shut_down(&["NOSAVE"]), &NO_LOG);
    assert_eq!(found, before);
}

#[test]
fn with_a_command_log_nosave_loses_nothing() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    fill(&mut client);
    let before = state(&mut client);
    let (server, after) = restarted(server.shut_down(&["NOSAVE"]), &DEBUG);
    assert_eq!(after, before);
    assert!(
        !server.start_log.contains("and 0 changes ("),
        "{}",
        server.start_log
    );
}

#[test]
fn databases_that_were_swapped_or_emptied_stay_so() {
    for save in [false, true] {
        let server = Server::start(&ALWAYS);
        let mut client = server.connect();
        fill(&mut client);
        assert_eq!(client.command(&["SWAPDB", "0", "1"]), "+OK\r\n");
        assert_eq!(client.command(&["SET", "only in 0", "x"]), "+OK\r\n");
        assert_eq!(client.command(&["SELECT", "2"]), "+OK\r\n");
        assert_eq!(client.command(&["FLUSHDB"]), "+OK\r\n");
        assert_eq!(client.command(&["SET", "after the flush", "y"]), "+OK\r\n");
        if save {
            assert_eq!(client.command(&["SAVE"]), "+OK\r\n");
        }
        let before = state(&mut client);
        let (server, after) = restarted(server.kill(), &ALWAYS);
        assert_eq!(after, before);
        let mut client = server.connect();
        assert_eq!(client.command(&["GET", "key:7"]), "$12\r\nvalue 7 of 1\r\n");
        assert_eq!(client.command(&["EXISTS", "only in 0"]), ":1\r\n");
        assert_eq!(client.command(&["FLUSHALL"]), "+OK\r\n");
        assert_eq!(client.command(&["SET", "after all", "z"]), "+OK\r\n");
        if save {
            assert_eq!(client.command(&["SAVE"]), "+OK\r\n");
        }
        let before = state(&mut client);
        let (server, after) = restarted(server.kill(), &ALWAYS);
        assert_eq!(after, before);
        let mut client = server.connect();
        assert_eq!(client.command(&["DBSIZE"]), ":1\r\n");
        assert_eq!(client.command(&["GET", "after all"]), "$1\r\nz\r\n");
    }
}

#[test]
fn a_transaction_survives_whole() {
    let server = Server::start(&ALWAYS);
    let mut client = server.connect();
    for words in [
        &["MULTI"][..],
        &["SET", "a", "1"],
        &["SELECT", "3"],
        &["SET", "a", "2"],
        &["INCR", "a"],
    ] {
        client.command(words);
    }
    assert_eq!(
        client.command(&["EXEC"]),
        "*4\r\n+OK\r\n+OK\r\n+OK\r\n:3\r\n"
    );
    let server = Server::start_in(server.kill(), &ALWAYS);
    let mut client = server.connect();
    assert_eq!(client.command(&["GET", "a"]), "$1\r\n1\r\n");
    assert_eq!(client.command(&["SELECT", "3"]), "+OK\r\n");
    assert_eq!(client.command(&["GET", "a"]), "$1\r\n3\r\n");
}

#[test]
fn expired_keys_do_not_come_back() {
    let server = Server::start(&ALWAYS);
    let mut client = server.connect();
    assert_eq!(client.command(&["PSETEX", "short", "1", "x"]), "+OK\r\n");
    assert_eq!(
        client.command(&["PSETEX", "overwritten", "1", "x"]),
        "+OK\r\n"
    );
    assert_eq!(
        client.command(&["SET", "overwritten", "for good"]),
        "+OK\r\n"
    );
    eventually(|| (client.command(&["EXISTS", "short"]) == ":0\r\n").then_some(()));
    let server = Server::start_in(server.kill(), &ALWAYS);
    let mut client = server.connect();
    assert_eq!(client.command(&["EXISTS", "short"]), ":0\r\n");
    assert_eq!(
        client.command(&["GET", "overwritten"]),
        "$8\r\nfor good\r\n"
    );
    eventually(|| (client.command(&["DBSIZE"]) == ":1\r\n").then_some(()));
}

#[test]
fn the_command_log_is_switched_on_and_off_while_the_server_runs() {
    let server = Server::start(&NO_LOG);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "before", "1"]), "+OK\r\n");
    for (name, value) in [("appendfsync", "always"), ("appendonly", "yes")] {
        assert_eq!(client.command(&["CONFIG", "SET", name, value]), "+OK\r\n");
    }
    eventually(|| (info(&mut client, "aof_rewrites") == "1").then_some(()));
    assert_eq!(info(&mut client, "aof_enabled"), "1");
    assert_eq!(client.command(&["SET", "logged", "2"]), "+OK\r\n");
    let before = state(&mut client);
    let (server, after) = restarted(server.kill(), &NO_LOG);
    assert_eq!(after, before);
    // It was started without again.
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "lost", "3"]), "+OK\r\n");
    let (server, after) = restarted(server.kill(), &ALWAYS);
    assert_eq!(after, before);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "kept", "4"]), "+OK\r\n");
    let before = state(&mut client);
    assert_eq!(
        client.command(&["CONFIG", "SET", "appendonly", "no"]),
        "+OK\r\n"
    );
    eventually(|| (info(&mut client, "aof_rewrites") == "1").then_some(()));
    assert_eq!(info(&mut client, "aof_enabled"), "0");
    assert_eq!(client.command(&["SET", "lost", "5"]), "+OK\r\n");
    let (_server, after) = restarted(server.kill(), &NO_LOG);
    assert_eq!(after, before);
}

#[test]
fn fewer_databases_than_the_data_has_are_refused() {
    let server = Server::start(&ALWAYS);
    let mut client = server.connect();
    assert_eq!(client.command(&["SELECT", "9"]), "+OK\r\n");
    assert_eq!(client.command(&["SET", "key", "value"]), "+OK\r\n");
    assert_eq!(client.command(&["SWAPDB", "8", "9"]), "+OK\r\n");
    let dir = server.shut_down(&[]);
    let output = Server::refused_in(&dir, &["--databases", "8"]);
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8_lossy(&output.stderr);
    assert!(
        line.contains("databases 8: there are keys in database 8, so it must be 16 at least"),
        "{line}"
    );
    let server = Server::start_in(dir, &["--databases", "20"]);
    let mut client = server.connect();
    assert_eq!(client.command(&["SELECT", "8"]), "+OK\r\n");
    assert_eq!(client.command(&["GET", "key"]), "$5\r\nvalue\r\n");
    assert_eq!(client.command(&["SELECT", "19"]), "+OK\r\n");
    assert_eq!(client.command(&["DBSIZE"]), ":0\r\n");
}
