//! SAVE, BGSAVE, LASTSAVE, BGREWRITEAOF, WAIT, WAITAOF, SHUTDOWN, and what INFO and CONFIG say: replies as Redis 7.0 and
//! (of what is newer) Valkey 9 give them.

mod common;

use std::time::{Duration, Instant};

use common::{Connection, Server, eventually};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

fn info(client: &mut Connection, field: &str) -> String {
    let text = client.command(&["INFO", "persistence"]);
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| *name == field);
    found
        .unwrap_or_else(|| panic!("INFO has no {field}"))
        .1
        .trim_end()
        .to_owned()
}

fn expect(client: &mut Connection, table: &[(&[&str], &str)]) {
    for (words, reply) in table {
        assert_eq!(client.command(words), format!("{reply}\r\n"), "{words:?}");
    }
}

#[test]
fn wrong_arguments_are_answered_as_redis_does() {
    let server = Server::start(&DEBUG);
    expect(
        &mut server.connect(),
        &[
            (
                &["SAVE", "x"],
                "-ERR wrong number of arguments for 'save' command",
            ),
            (&["BGSAVE", "x"], "-ERR syntax error"),
            (&["BGSAVE", "SCHEDULE", "x"], "-ERR syntax error"),
            (
                &["BGSAVE", "CANCEL"],
                "-ERR Background saving is currently not in progress or scheduled",
            ),
            (
                &["LASTSAVE", "x"],
                "-ERR wrong number of arguments for 'lastsave' command",
            ),
            (
                &["BGREWRITEAOF", "x"],
                "-ERR wrong number of arguments for 'bgrewriteaof' command",
            ),
            (
                &["WAITAOF", "2", "0", "100"],
                "-ERR value is out of range, value must between 0 and 1",
            ),
            (
                &["WAITAOF", "-1", "0", "100"],
                "-ERR value is out of range, value must between 0 and 1",
            ),
            (
                &["WAITAOF", "a", "1", "1"],
                "-ERR value is not an integer or out of range",
            ),
            (
                &["WAITAOF", "1", "a", "1"],
                "-ERR value is out of range, must be positive",
            ),
            (
                &["WAITAOF", "1", "1", "a"],
                "-ERR timeout is not an integer or out of range",
            ),
            (&["WAITAOF", "0", "1", "-5"], "-ERR timeout is negative"),
            (
                &["WAIT", "a", "100"],
                "-ERR value is not an integer or out of range",
            ),
            (
                &["WAIT", "1", "a"],
                "-ERR timeout is not an integer or out of range",
            ),
            (&["WAIT", "1", "-1"], "-ERR timeout is negative"),
            (
                &["DEBUG", "RELOAD", "foo"],
                "-ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ),
            (
                &["CONFIG", "SET", "appendfsync", "foo"],
                "-ERR CONFIG SET failed (possibly related to argument 'appendfsync') - argument(s) must be one of \
                 the following: everysec, always, no",
            ),
            (
                &["CONFIG", "SET", "appendonly", "foo"],
                "-ERR CONFIG SET failed (possibly related to argument 'appendonly') - argument must be 'yes' or 'no'",
            ),
            (
                &["CONFIG", "SET", "save", "3600 1 60"],
                "-ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters",
            ),
        ],
    );
}

#[test]
fn checkpoints_are_made_when_asked_for() {
    let server = Server::start(&["--save", ""]);
    let mut client = server.connect();
    assert_eq!(info(&mut client, "rdb_changes_since_last_save"), "0");
    expect(
        &mut client,
        &[
            (&["MSET", "a", "1", "b", "2", "c", "3"], "+OK"),
            (&["DEL", "a", "missing"], ":1"),
            (&["DEL", "missing"], ":0"),
            (&["GET", "b"], "$1\r\n2"),
            (&["EXPIRE", "b", "100"], ":1"),
        ],
    );
    assert_eq!(info(&mut client, "rdb_changes_since_last_save"), "5");
    expect(&mut client, &[(&["SAVE"], "+OK")]);
    assert_eq!(info(&mut client, "rdb_changes_since_last_save"), "0");
    assert_eq!(info(&mut client, "rdb_saves"), "1");
    expect(&mut client, &[(&["BGSAVE"], "+Background saving started")]);
    eventually(|| (info(&mut client, "rdb_saves") == "2").then_some(()));
    expect(
        &mut client,
        &[(&["BGSAVE", "SCHEDULE"], "+Background saving started")],
    );
    eventually(|| (info(&mut client, "rdb_saves") == "3").then_some(()));
    expect(
        &mut client,
        &[(
            &["BGREWRITEAOF"],
            "+Background append only file rewriting started",
        )],
    );
    eventually(|| (info(&mut client, "aof_rewrites") == "1").then_some(()));
    for (field, value) in [
        ("rdb_bgsave_in_progress", "0"),
        ("rdb_last_bgsave_status", "ok"),
        ("rdb_last_bgsave_time_sec", "0"),
        ("rdb_current_bgsave_time_sec", "-1"),
        ("aof_enabled", "1"),
        ("aof_rewrite_in_progress", "0"),
        ("aof_last_bgrewrite_status", "ok"),
        ("aof_last_write_status", "ok"),
        ("loading", "0"),
    ] {
        assert_eq!(info(&mut client, field), value, "{field}");
    }
    let lastsave = client.command(&["LASTSAVE"]);
    assert_eq!(
        lastsave,
        format!(":{}\r\n", info(&mut client, "rdb_last_save_time"))
    );
}

#[test]
fn save_rules_make_checkpoints() {
    let server = Server::start(&["--appendonly", "no", "--save", "1 2"]);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["CONFIG", "GET", "save"]),
        "*2\r\n$4\r\nsave\r\n$3\r\n1 2\r\n"
    );
    expect(
        &mut client,
        &[(&["SET", "a", "1"], "+OK"), (&["SET", "b", "2"], "+OK")],
    );
    eventually(|| (info(&mut client, "rdb_saves") == "1").then_some(()));
    let server = Server::start_in(server.kill(), &["--save", ""]);
    let mut client = server.connect();
    assert_eq!(client.command(&["DBSIZE"]), ":2\r\n");
    // A rule that is set while the server runs.
    expect(
        &mut client,
        &[
            (&["CONFIG", "SET", "save", "1 1"], "+OK"),
            (&["SET", "c", "3"], "+OK"),
        ],
    );
    eventually(|| (info(&mut client, "rdb_saves") == "1").then_some(()));
}

#[test]
fn a_long_command_log_makes_a_checkpoint() {
    let server = Server::start(&["--save", "", "--auto-aof-rewrite-min-size", "64kb"]);
    let mut client = server.connect();
    for i in 0..100 {
        expect(
            &mut client,
            &[(&["SET", &format!("key:{i}"), &"x".repeat(1000)], "+OK")],
        );
    }
    eventually(|| (info(&mut client, "aof_rewrites") != "0").then_some(()));
    let without = ["CONFIG", "SET", "auto-aof-rewrite-percentage", "0"];
    expect(&mut client, &[(&without, "+OK")]);
}

#[test]
fn wait_waits_for_replicas_that_do_not_exist() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    expect(
        &mut client,
        &[
            (&["SET", "a", "1"], "+OK"),
            (&["WAIT", "0", "0"], ":0"),
            (&["WAIT", "-1", "0"], ":0"),
        ],
    );
    let begin = Instant::now();
    expect(&mut client, &[(&["WAIT", "1", "50"], ":0")]);
    assert!(begin.elapsed() >= Duration::from_millis(50));
    // For ever, but for others the server goes on, and the client can be killed.
    let mut waiting = server.connect();
    let id = waiting.command(&["CLIENT", "ID"]);
    waiting.send(common::encode(&["WAIT", "1", "0"]));
    let id = id.trim_start_matches(':').trim_end();
    eventually(|| (client.command(&["CLIENT", "KILL", "ID", id]) == ":1\r\n").then_some(()));
    assert_eq!(waiting.read_to_end(), "");
}

#[test]
fn waitaof_waits_for_the_sync() {
    for appendfsync in ["everysec", "always", "no"] {
        let server = Server::start(&["--appendfsync", appendfsync]);
        let mut client = server.connect();
        expect(
            &mut client,
            &[
                (&["WAITAOF", "1", "0", "0"], "*2\r\n:1\r\n:0"),
                (&["SET", "a", "1"], "+OK"),
                (&["WAITAOF", "1", "0", "0"], "*2\r\n:1\r\n:0"),
                (&["WAITAOF", "0", "1", "10"], "*2\r\n:1\r\n:0"),
            ],
        );
    }
    let server = Server::start(&["--appendonly", "no"]);
    expect(
        &mut server.connect(),
        &[
            (
                &["WAITAOF", "1", "0", "0"],
                "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
            ),
            (&["WAITAOF", "0", "0", "100"], "*2\r\n:0\r\n:0"),
        ],
    );
}

#[test]
fn in_a_transaction_nobody_waits() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    expect(
        &mut client,
        &[
            (&["MULTI"], "+OK"),
            (&["SAVE"], "-ERR Command not allowed inside a transaction"),
            (
                &["SHUTDOWN"],
                "-ERR Command not allowed inside a transaction",
            ),
            (&["DISCARD"], "+OK"),
            (&["MULTI"], "+OK"),
            (&["SET", "a", "1"], "+QUEUED"),
            (&["WAIT", "1", "0"], "+QUEUED"),
            (&["BGSAVE"], "+QUEUED"),
            (&["EXEC"], "*3\r\n+OK\r\n:0\r\n+Background saving scheduled"),
        ],
    );
    eventually(|| (info(&mut client, "rdb_saves") == "1").then_some(()));
}

#[test]
fn debug_reload_reads_everything_back_from_the_files() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    expect(&mut client, &[(&["MSET", "a", "1", "b", "2"], "+OK")]);
    let digest = client.command(&["DEBUG", "DIGEST"]);
    for words in [&["DEBUG", "RELOAD"][..], &["DEBUG", "LOADAOF"]] {
        expect(&mut client, &[(words, "+OK")]);
        assert_eq!(client.command(&["DEBUG", "TIER", "a"]), "+cold\r\n");
        assert_eq!(client.command(&["DEBUG", "DIGEST"]), digest);
    }
}

#[test]
fn sigterm_does_what_it_is_told_to() {
    for (value, is_saved) in [
        ("default", true),
        ("save", true),
        ("nosave", false),
        ("nosave force", false),
    ] {
        let mut server = Server::start(&["--save", "", "--shutdown-on-sigterm", value]);
        expect(&mut server.connect(), &[(&["SET", "a", "1"], "+OK")]);
        server.signal("TERM");
        let (status, log) = server.wait();
        assert!(status.success(), "{status}: {log}");
        assert_eq!(
            log.contains("Saving the data before exiting."),
            is_saved,
            "{value}: {log}"
        );
        let server = Server::start_in(std::sync::Arc::clone(&server.dir), &[]);
        assert_eq!(
            server.connect().command(&["GET", "a"]),
            "$1\r\n1\r\n",
            "{value}"
        );
    }
}

/// Whoever has asked for the checkpoint that saved them.
#[test]
fn changes_that_are_saved_are_not_counted_any_more() {
    let server = Server::start(&["--maxmemory", "64mb", "--save", ""]);
    let mut client = server.connect();
    let mut unsaved = |words: &[&str]| {
        assert_eq!(client.command(&["SET", "key", "value"]), "+OK\r\n");
        assert!(client.command(words).starts_with('+'), "{words:?}");
        common::eventually(|| {
            let info = client.command(&["INFO", "persistence"]);
            info.contains("rdb_changes_since_last_save:0\r")
                .then_some(())
        });
    };
    unsaved(&["SAVE"]);
    unsaved(&["BGREWRITEAOF"]);
    unsaved(&["COMPACT"]);
    // Which makes a checkpoint by itself.
    unsaved(&["CONFIG", "SET", "appendonly", "no"]);
    unsaved(&["CONFIG", "SET", "appendonly", "yes"]);
}

#[test]
fn compact_gives_disk_space_back() {
    let server = Server::start(&["--maxmemory", "64mb"]);
    let mut client = server.connect();
    let value = "x".repeat(1000);
    for n in 0..8000 {
        client.command(&["SET", &format!("key:{n}"), &value]);
    }
    assert_eq!(client.command(&["SAVE"]), "+OK\r\n");
    for n in (0..8000).filter(|n| n % 8 != 0) {
        assert_eq!(client.command(&["DEL", &format!("key:{n}")]), ":1\r\n");
    }
    assert_eq!(client.command(&["COMPACT"]), "+OK\r\n");
    let info = client.command(&["INFO", "tiers"]);
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let (_, text) = lines
            .find(|(found, _)| *found == name)
            .expect("INFO has it");
        text.trim_end().parse::<u64>().expect("a number")
    };
    let (disk, live) = (field("disk_bytes"), field("live_bytes"));
    assert!(disk < 4 << 20, "{disk} bytes on the device for {live}");
    for n in (0..8000).step_by(8) {
        let reply = client.command(&["GET", &format!("key:{n}")]);
        assert_eq!(reply, format!("$1000\r\n{value}\r\n"), "key {n}");
    }
}
