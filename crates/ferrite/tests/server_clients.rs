//! What clients can do to each other and to themselves: PAUSE, KILL, REPLY; and cold records in between.

mod common;

use common::{Connection, Server, backends, encode};

#[test]
fn paused_writes_wait_and_reads_do_not() {
    let server = Server::start(&[]);
    let (mut admin, mut writer, mut reader) =
        (server.connect(), server.connect(), server.connect());
    assert_eq!(
        admin.command(&["CLIENT", "PAUSE", "60000", "WRITE"]),
        "+OK\r\n"
    );
    writer.send(encode(&["SET", "key", "value"]));
    await_listed(&mut admin, "flags=b");
    assert_eq!(reader.command(&["GET", "key"]), "$-1\r\n");
    assert_eq!(admin.command(&["CLIENT", "UNPAUSE"]), "+OK\r\n");
    assert_eq!(writer.reply(), "+OK\r\n");
    assert_eq!(reader.command(&["GET", "key"]), "$5\r\nvalue\r\n");
}

#[test]
fn a_pause_ends_by_itself() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.command(&["CLIENT", "PAUSE", "50", "ALL"]), "+OK\r\n");
    assert_eq!(client.command(&["SET", "key", "value"]), "+OK\r\n");
}

#[test]
fn killed_clients_are_closed_whatever_they_wait_for() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut admin = server.connect();
    let mut idle = server.connect();
    let mut sleeping = server.connect();
    let id = |client: &mut Connection| client.command(&["CLIENT", "ID"]).trim()[1..].to_owned();
    let (idle_id, sleeping_id) = (id(&mut idle), id(&mut sleeping));
    sleeping.send(encode(&["DEBUG", "SLEEP", "600"]));
    await_listed(&mut admin, "cmd=debug|sleep");
    for (client, id) in [(&mut idle, idle_id), (&mut sleeping, sleeping_id)] {
        assert_eq!(admin.command(&["CLIENT", "KILL", "ID", &id]), ":1\r\n");
        assert_eq!(client.read_to_end(), "");
    }
    assert_eq!(admin.command(&["CLIENT", "KILL", "ID", "999999"]), ":0\r\n");
}

#[test]
fn replies_can_be_switched_off_and_skipped() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (requests, replies) in [
        (
            "CLIENT REPLY OFF\r\nPING\r\nnosuch\r\nCLIENT REPLY ON\r\nPING\r\n",
            "+OK\r\n+PONG\r\n",
        ),
        (
            "CLIENT REPLY SKIP\r\nPING one\r\nPING two\r\n",
            "$3\r\ntwo\r\n",
        ),
        (
            "CLIENT REPLY SKIP\r\nnosuch\r\nPING two\r\n",
            "$3\r\ntwo\r\n",
        ),
        (
            "CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nPING\r\nPING two\r\n",
            "$3\r\ntwo\r\n",
        ),
        ("CLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\n", "+OK\r\n"),
        (
            "CLIENT REPLY OFF\r\nCLIENT REPLY SKIP\r\nPING\r\nCLIENT REPLY ON\r\n",
            "+OK\r\n",
        ),
    ] {
        client.send(requests);
        let mut received = String::new();
        while received.len() < replies.len() {
            received.push_str(&client.reply());
        }
        assert_eq!(received, replies, "{requests:?}");
    }
}

#[test]
fn cold_records_come_back_in_order() {
    for &backend in backends() {
        let server = Server::start(&["--enable-debug-command", "yes", "--io-backend", backend]);
        let mut client = server.connect();
        let keys: Vec<String> = (0..300).map(|i| format!("key{i}")).collect();
        for key in &keys {
            assert_eq!(client.command(&["SET", key, &key.repeat(20)]), "+OK\r\n");
        }
        assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
        let mget: Vec<&str> = std::iter::once("MGET")
            .chain(keys.iter().map(String::as_str))
            .collect();
        let pipeline: Vec<u8> = keys
            .iter()
            .flat_map(|key| [encode(&["GET", key]), encode(&["STRLEN", key])].concat())
            .collect();
        client.send(
            [
                pipeline,
                encode(&mget),
                encode(&["SET", "key0", "new"]),
                encode(&["GET", "key0"]),
            ]
            .concat(),
        );
        let bulk = |key: &String| format!("${}\r\n{}\r\n", key.len() * 20, key.repeat(20));
        for key in &keys {
            assert_eq!(client.reply(), bulk(key));
            assert_eq!(client.reply(), format!(":{}\r\n", key.len() * 20));
        }
        assert_eq!(
            client.reply(),
            format!("*300\r\n{}", keys.iter().map(bulk).collect::<String>())
        );
        assert_eq!(client.reply(), "+OK\r\n");
        assert_eq!(client.reply(), "$3\r\nnew\r\n");
    }
}

#[test]
fn whole_data_set_commands_run_beside_others() {
    let server = Server::start(&["--io-threads", "1"]);
    let mut client = server.connect();
    let sets: Vec<u8> = (0..1000)
        .flat_map(|i| encode(&["SET", &format!("key{i}"), "value"]))
        .collect();
    client.send([sets, encode(&["KEYS", "key1"]), encode(&["PING"])].concat());
    for _ in 0..1000 {
        assert_eq!(client.reply(), "+OK\r\n");
    }
    assert_eq!(client.reply(), "*1\r\n$4\r\nkey1\r\n");
    assert_eq!(client.reply(), "+PONG\r\n");
}

#[test]
fn passwords_do_not_get_into_the_slow_log() {
    let server = Server::start(&["--slowlog-log-slower-than", "0"]);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["CONFIG", "SET", "requirepass", "s3cret"]),
        "+OK\r\n"
    );
    assert_eq!(client.command(&["AUTH", "s3cret"]), "+OK\r\n");
    assert!(
        client
            .command(&["HELLO", "2", "AUTH", "default", "s3cret"])
            .starts_with('*')
    );
    let log = client.command(&["SLOWLOG", "GET"]);
    assert!(
        log.contains("requirepass") && log.contains("(redacted)"),
        "{log}"
    );
    assert!(!log.contains("s3cret"), "{log}");
}

/// Waits until CLIENT LIST shows `what` of some client.
fn await_listed(admin: &mut Connection, what: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let list = admin.command(&["CLIENT", "LIST"]);
        if list.contains(what) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "no {what} in {list}");
    }
}

#[test]
fn a_damaged_record_fails_its_command_alone() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "damaged", "value"]), "+OK\r\n");
    assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
    for entry in server.dir.path().read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            let len = path.metadata().unwrap().len();
            std::fs::write(&path, vec![0xa5; len as usize]).unwrap();
        }
    }
    assert_eq!(client.command(&["SET", "whole", "value"]), "+OK\r\n");
    client.send([encode(&["GET", "damaged"]), encode(&["GET", "whole"])].concat());
    let damaged = client.reply();
    assert!(
        damaged.starts_with("-IOERR ") && damaged.contains(".seg"),
        "{damaged}"
    );
    assert_eq!(client.reply(), "$5\r\nvalue\r\n");
    // What does not read it works.
    assert_eq!(client.command(&["SET", "damaged", "new"]), "+OK\r\n");
    assert_eq!(client.command(&["GET", "damaged"]), "$3\r\nnew\r\n");
}
