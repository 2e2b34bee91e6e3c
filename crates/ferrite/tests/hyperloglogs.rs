//! HyperLogLogs beyond what the differential tests compare.

mod common;

use common::{Server, encode};

fn encoding(client: &mut common::Connection, key: &str) -> String {
    client.command(&["PFDEBUG", "ENCODING", key])
}

#[test]
fn a_hyperloglog_is_sparse_up_to_the_length_that_is_configured() {
    let server = Server::start(&["--hll-sparse-max-bytes", "40"]);
    let mut client = server.connect();
    client.command(&["PFADD", "key", "a", "b", "c"]);
    assert_eq!(encoding(&mut client, "key"), "+sparse\r\n");
    let many: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    for element in &many {
        client.command(&["PFADD", "key", element]);
    }
    assert_eq!(encoding(&mut client, "key"), "+dense\r\n");
    assert_eq!(client.command(&["PFCOUNT", "key"]), ":23\r\n");
    assert_eq!(client.command(&["STRLEN", "key"]), ":12304\r\n");
    client.command(&["CONFIG", "SET", "hll-sparse-max-bytes", "3000"]);
    let words: Vec<&str> = many.iter().map(String::as_str).collect();
    client.command(&[&["PFADD", "other"], words.as_slice()].concat());
    assert_eq!(encoding(&mut client, "other"), "+sparse\r\n");
    assert_eq!(client.command(&["PFDEBUG", "TODENSE", "other"]), ":1\r\n");
    assert_eq!(client.command(&["PFDEBUG", "TODENSE", "other"]), ":0\r\n");
    assert_eq!(client.command(&["PFCOUNT", "other"]), ":20\r\n");
}

#[test]
fn counting_keeps_the_expiry_and_survives_a_kill() {
    let directives = ["--appendfsync", "always"];
    let server = Server::start(&directives);
    let mut client = server.connect();
    client.command(&["PFADD", "dense", "a"]);
    client.command(&["PFDEBUG", "TODENSE", "dense"]);
    client.command(&["PFADD", "sparse", "a"]);
    for key in ["dense", "sparse"] {
        assert_eq!(client.command(&["EXPIRE", key, "100000"]), ":1\r\n");
        assert_eq!(client.command(&["PFADD", key, "b", "c"]), ":1\r\n");
        assert_eq!(client.command(&["PFADD", key, "c", "a"]), ":0\r\n");
        assert_eq!(client.command(&["PFCOUNT", key]), ":3\r\n");
        assert_eq!(client.command(&["PFADD", key, "d"]), ":1\r\n");
        assert_eq!(client.command(&["PFMERGE", key, "dense"]), "+OK\r\n");
        assert_ne!(client.command(&["TTL", key]), ":-1\r\n");
    }
    let values = ["dense", "sparse"].map(|key| client.command(&["GET", key]));
    let server = Server::start_in(server.kill(), &directives);
    let mut client = server.connect();
    assert_eq!(
        ["dense", "sparse"].map(|key| client.command(&["GET", key])),
        values
    );
    assert_eq!(client.command(&["PFCOUNT", "dense", "sparse"]), ":4\r\n");
    assert_ne!(client.command(&["TTL", "dense"]), ":-1\r\n");
}

#[test]
fn the_self_test_passes() {
    let server = Server::start(&[]);
    assert_eq!(server.connect().command(&["PFSELFTEST"]), "+OK\r\n");
}

/// Whatever is stored, it is counted or refused; long values are not looked through.
#[test]
fn any_bytes_are_counted_or_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..300 {
        let mut value = b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80".to_vec();
        let len = match round % 10 {
            0 => 12_288,
            1 => 100_000,
            _ => next() % 300,
        };
        value.extend((0..len).map(|_| next() as u8));
        if round % 10 == 0 {
            value[4] = 0;
        }
        let mut set = format!("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n${}\r\n", value.len()).into_bytes();
        set.extend(value);
        set.extend(b"\r\n");
        client.send(set);
        assert_eq!(client.reply(), "+OK\r\n");
        for command in [
            ["PFCOUNT", "key"].as_slice(),
            &["PFADD", "key", "a", "b", "c"],
            &["PFCOUNT", "key", "other"],
            &["PFMERGE", "other", "key"],
            &["PFDEBUG", "DECODE", "key"],
            &["PFDEBUG", "GETREG", "key"],
        ] {
            client.send(encode(command));
            let reply = client.reply();
            let is_right = match reply.strip_prefix('-') {
                Some(error) => [
                    "INVALIDOBJ Corrupted HLL object detected\r\n",
                    "ERR HLL encoding is not sparse\r\n",
                ]
                .contains(&error),
                None => true,
            };
            assert!(is_right, "round {round}, {command:?}: {reply}");
        }
        client.command(&["DEL", "other"]);
    }
    assert_eq!(client.command(&["PING"]), "+PONG\r\n");
}
