//! Commands on whole databases.

mod common;

use common::Server;

const DEBUG: &[&str] = &["--enable-debug-command", "yes"];

#[test]
fn flushdb_empties_one_database_and_flushall_all() {
    for cold in [false, true] {
        let server = Server::start(DEBUG);
        let mut client = server.connect();
        let mut run = |command: &[&str]| {
            if cold {
                client.command(&["DEBUG", "FORCE-COLD"]);
            }
            client.command(command)
        };
        run(&["DEBUG", "POPULATE", "100"]);
        run(&["SELECT", "1"]);
        run(&["DEBUG", "POPULATE", "100"]);
        assert_eq!(run(&["FLUSHDB"]), "+OK\r\n");
        assert_eq!(run(&["DBSIZE"]), ":0\r\n");
        assert_eq!(run(&["KEYS", "*"]), "*0\r\n");
        run(&["SET", "k", "v"]);
        run(&["SELECT", "0"]);
        assert_eq!(run(&["DBSIZE"]), ":100\r\n");
        assert_eq!(run(&["GET", "key:7"]), "$7\r\nvalue:7\r\n");
        assert_eq!(run(&["FLUSHALL", "SYNC"]), "+OK\r\n");
        assert_eq!(run(&["DBSIZE"]), ":0\r\n");
        assert_eq!(run(&["GET", "key:7"]), "$-1\r\n");
        assert_eq!(run(&["SET", "key:7", "again"]), "+OK\r\n");
        assert_eq!(run(&["GET", "key:7"]), "$5\r\nagain\r\n");
        run(&["SELECT", "1"]);
        assert_eq!(run(&["EXISTS", "k"]), ":0\r\n");
    }
}

#[test]
fn a_database_is_emptied_again_and_again() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for round in 0..500 {
        let command = if round % 2 == 0 {
            "FLUSHDB"
        } else {
            "FLUSHALL"
        };
        client.send(format!(
            "SET k {round}\r\n{command} ASYNC\r\nGET k\r\nDBSIZE\r\n"
        ));
        let replies: Vec<_> = (0..4).map(|_| client.reply()).collect();
        assert_eq!(
            replies,
            ["+OK\r\n", "+OK\r\n", "$-1\r\n", ":0\r\n"],
            "round {round}"
        );
    }
}

#[test]
fn other_clients_see_databases_swapped() {
    let server = Server::start(&[]);
    let (mut one, mut two) = (server.connect(), server.connect());
    one.command(&["SET", "k", "zero"]);
    two.command(&["SELECT", "1"]);
    two.command(&["SET", "k", "one"]);
    assert_eq!(one.command(&["SWAPDB", "0", "1"]), "+OK\r\n");
    assert_eq!(one.command(&["GET", "k"]), "$3\r\none\r\n");
    assert_eq!(two.command(&["GET", "k"]), "$4\r\nzero\r\n");
    assert_eq!(one.command(&["SWAPDB", "0", "0"]), "+OK\r\n");
    assert_eq!(one.command(&["GET", "k"]), "$3\r\none\r\n");
}

#[test]
fn swaps_are_atomic_for_writers() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let writer = {
        let mut client = server.connect();
        std::thread::spawn(move || {
            for _ in 0..2000 {
                assert!(client.command(&["INCR", "n"]).starts_with(':'));
            }
        })
    };
    while !writer.is_finished() {
        assert_eq!(client.command(&["SWAPDB", "0", "1"]), "+OK\r\n");
    }
    writer.join().unwrap();
    let mut total = 0;
    for database in ["0", "1"] {
        client.command(&["SELECT", database]);
        let reply = client.command(&["INCRBY", "n", "0"]);
        total += reply.trim_end()[1..].parse::<u64>().unwrap();
    }
    assert_eq!(
        total, 2000,
        "an increment went to a database that had just been swapped"
    );
}

#[test]
fn wrong_arguments_are_named() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (command, error) in [
        (vec!["FLUSHDB", "now"], "-ERR syntax error\r\n"),
        (vec!["FLUSHALL", "SYNC", "ASYNC"], "-ERR syntax error\r\n"),
        (vec!["SWAPDB", "x", "1"], "-ERR invalid first DB index\r\n"),
        (vec!["SWAPDB", "1", "x"], "-ERR invalid second DB index\r\n"),
        (
            vec!["SWAPDB", "0", "16"],
            "-ERR DB index is out of range\r\n",
        ),
    ] {
        assert_eq!(client.command(&command), error, "{command:?}");
    }
}
