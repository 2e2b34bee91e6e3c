//! Commands on whole keys: what they do to values, expiries and other databases, hot and cold.

mod common;

use common::{Connection, Server};

const DEBUG: &[&str] = &["--enable-debug-command", "yes"];
/// Longer than what is kept in one record.
const LARGE_BYTES: usize = 300_000;

/// Runs `test` with everything in memory, and once more with everything on disk before each step.
fn hot_and_cold(test: impl Fn(&mut dyn FnMut(&[&str]) -> String)) {
    for cold in [false, true] {
        let server = Server::start(DEBUG);
        let mut client = server.connect();
        test(&mut |command| {
            if cold {
                assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
            }
            client.command(command)
        });
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[test]
fn each_naming_of_a_key_counts_but_removes_once() {
    hot_and_cold(|run| {
        run(&["MSET", "a", "1", "b", "2"]);
        assert_eq!(run(&["EXISTS", "a", "b", "a", "none"]), ":3\r\n");
        assert_eq!(run(&["TOUCH", "a", "none", "a"]), ":2\r\n");
        assert_eq!(run(&["DEL", "a", "a", "none", "b"]), ":2\r\n");
        assert_eq!(run(&["UNLINK", "a", "b"]), ":0\r\n");
        assert_eq!(run(&["TYPE", "a"]), "+none\r\n");
        assert_eq!(run(&["DBSIZE"]), ":0\r\n");
    });
}

#[test]
fn a_key_written_over_while_cold_is_gone_after_one_del() {
    hot_and_cold(|run| {
        for round in 0..4 {
            for key in ["a", "b", "c"] {
                run(&["SET", key, &round.to_string()]);
            }
        }
        assert_eq!(run(&["DEL", "a", "b", "c"]), ":3\r\n");
        assert_eq!(run(&["EXISTS", "a", "b", "c"]), ":0\r\n");
        assert_eq!(run(&["DEL", "a", "b", "c"]), ":0\r\n");
    });
}

#[test]
fn rename_takes_value_and_expiry_along() {
    hot_and_cold(|run| {
        let large = "x".repeat(LARGE_BYTES);
        run(&["SET", "from", &large, "PXAT", "4000000000000"]);
        run(&["SET", "to", "old"]);
        assert_eq!(run(&["RENAMENX", "from", "to"]), ":0\r\n");
        assert_eq!(run(&["RENAME", "from", "to"]), "+OK\r\n");
        assert_eq!(run(&["GET", "to"]), bulk(&large));
        assert_eq!(run(&["PEXPIRETIME", "to"]), ":4000000000000\r\n");
        assert_eq!(run(&["EXISTS", "from"]), ":0\r\n");
        assert_eq!(run(&["RENAMENX", "to", "from"]), ":1\r\n");
        assert_eq!(run(&["STRLEN", "from"]), format!(":{LARGE_BYTES}\r\n"));
        assert_eq!(run(&["RENAME", "to", "from"]), "-ERR no such key\r\n");
        assert_eq!(run(&["RENAME", "from", "from"]), "+OK\r\n");
        assert_eq!(run(&["RENAMENX", "from", "from"]), ":0\r\n");
    });
}

#[test]
fn a_copy_is_a_value_of_its_own() {
    hot_and_cold(|run| {
        let large = "y".repeat(LARGE_BYTES);
        run(&["SET", "from", &large, "PXAT", "4000000000000"]);
        assert_eq!(run(&["COPY", "from", "to"]), ":1\r\n");
        assert_eq!(run(&["COPY", "from", "to"]), ":0\r\n");
        run(&["SET", "from", "changed"]);
        assert_eq!(run(&["GET", "to"]), bulk(&large));
        assert_eq!(run(&["PEXPIRETIME", "to"]), ":4000000000000\r\n");
        assert_eq!(run(&["COPY", "from", "to", "REPLACE"]), ":1\r\n");
        assert_eq!(run(&["GET", "to"]), bulk("changed"));
        assert_eq!(run(&["PEXPIRETIME", "to"]), ":-1\r\n");
        assert_eq!(run(&["COPY", "none", "to", "REPLACE"]), ":0\r\n");
        assert_eq!(run(&["GET", "to"]), bulk("changed"));
    });
}

#[test]
fn keys_go_to_other_databases() {
    hot_and_cold(|run| {
        run(&["SET", "k", "zero", "PXAT", "4000000000000"]);
        assert_eq!(run(&["COPY", "k", "k", "DB", "3"]), ":1\r\n");
        assert_eq!(run(&["MOVE", "k", "3"]), ":0\r\n");
        assert_eq!(run(&["MOVE", "k", "4"]), ":1\r\n");
        assert_eq!(run(&["EXISTS", "k"]), ":0\r\n");
        for database in ["3", "4"] {
            run(&["SELECT", database]);
            assert_eq!(run(&["GET", "k"]), bulk("zero"));
            assert_eq!(run(&["PEXPIRETIME", "k"]), ":4000000000000\r\n");
            assert_eq!(run(&["DBSIZE"]), ":1\r\n");
        }
    });
}

#[test]
fn clients_that_move_a_key_back_and_forth_never_lose_it() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut client = server.connect();
    client.command(&["SET", "k", "v"]);
    let moves = |from: &'static str, to: &'static str| {
        let mut client = server.connect();
        client.command(&["SELECT", from]);
        std::thread::spawn(move || {
            (0..2000)
                .filter(|_| client.command(&["MOVE", "k", to]) == ":1\r\n")
                .count()
        })
    };
    let (forth, back) = (moves("0", "1"), moves("1", "0"));
    let (forth, back) = (forth.join().unwrap(), back.join().unwrap());
    assert!(
        forth == back || forth == back + 1,
        "{forth} times forth, {back} times back"
    );
    let in_first = client.command(&["EXISTS", "k"]);
    client.command(&["SELECT", "1"]);
    let in_second = client.command(&["EXISTS", "k"]);
    assert_eq!(
        (in_first, in_second),
        if forth == back { yes_no() } else { no_yes() }
    );
}

fn yes_no() -> (String, String) {
    (":1\r\n".to_owned(), ":0\r\n".to_owned())
}

fn no_yes() -> (String, String) {
    (":0\r\n".to_owned(), ":1\r\n".to_owned())
}

#[test]
fn encodings_are_told_by_the_value() {
    hot_and_cold(|run| {
        for (value, encoding) in [
            ("0", "int"),
            ("-9223372036854775808", "int"),
            ("9223372036854775808", "embstr"),
            ("007", "embstr"),
            ("", "embstr"),
            (&"a".repeat(44), "embstr"),
            (&"a".repeat(45), "raw"),
        ] {
            run(&["SET", "k", value]);
            assert_eq!(run(&["OBJECT", "ENCODING", "k"]), bulk(encoding), "{value}");
        }
        assert_eq!(run(&["OBJECT", "ENCODING", "none"]), "$-1\r\n");
        assert_eq!(run(&["OBJECT", "REFCOUNT", "k"]), ":1\r\n");
        assert_eq!(run(&["OBJECT", "IDLETIME", "k"]), ":0\r\n");
    });
}

#[test]
fn wrong_arguments_are_named() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let out_of_range =
        "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n";
    for (command, error) in [
        (
            vec!["COPY", "a", "a"],
            "-ERR source and destination objects are the same\r\n",
        ),
        (vec!["COPY", "a", "b", "DB"], "-ERR syntax error\r\n"),
        (
            vec!["COPY", "a", "b", "DB", "16"],
            "-ERR DB index is out of range\r\n",
        ),
        (vec!["COPY", "a", "b", "DB", "99999999999"], out_of_range),
        (vec!["MOVE", "a", "-1"], "-ERR DB index is out of range\r\n"),
        (
            vec!["MOVE", "a", "x"],
            "-ERR value is not an integer or out of range\r\n",
        ),
        (
            vec!["MOVE", "a", "0"],
            "-ERR source and destination objects are the same\r\n",
        ),
        (
            vec!["OBJECT", "FREQUENCY", "a"],
            "-ERR unknown subcommand 'FREQUENCY'. Try OBJECT HELP.\r\n",
        ),
        (
            vec!["OBJECT", "FREQ"],
            "-ERR wrong number of arguments for 'object|freq' command\r\n",
        ),
    ] {
        assert_eq!(client.command(&command), error, "{command:?}");
    }
}

#[test]
fn a_pipeline_of_removals_finds_what_it_wrote_before() {
    let server = Server::start(DEBUG);
    let mut client: Connection = server.connect();
    client.send(
        "SET a 1\r\nDEBUG FORCE-COLD\r\nSET a 2\r\nDEL a\r\nEXISTS a\r\nSET a 3\r\nGET a\r\n",
    );
    let replies: Vec<_> = (0..7).map(|_| client.reply()).collect();
    assert_eq!(
        replies,
        [
            "+OK\r\n",
            "+OK\r\n",
            "+OK\r\n",
            ":1\r\n",
            ":0\r\n",
            "+OK\r\n",
            "$1\r\n3\r\n"
        ]
    );
}
