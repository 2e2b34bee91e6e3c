//! Requests and replies as bytes: pipelines, inline commands, errors of the protocol and of dispatch.

mod common;

use common::{Server, encode};

#[test]
fn a_pipeline_is_answered_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(
        [
            encode(&["SET", "a", "1"]),
            encode(&["GET", "a"]),
            encode(&["nope"]),
            encode(&["INCR", "a"]),
        ]
        .concat(),
    );
    assert_eq!(client.reply(), "+OK\r\n");
    assert_eq!(client.reply(), "$1\r\n1\r\n");
    assert_eq!(
        client.reply(),
        "-ERR unknown command 'nope', with args beginning with: \r\n"
    );
    assert_eq!(client.reply(), ":2\r\n");
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for byte in encode(&["SET", "key", "value"]) {
        client.send([byte]);
    }
    assert_eq!(client.reply(), "+OK\r\n");
    assert_eq!(client.command(&["GET", "key"]), "$5\r\nvalue\r\n");
}

#[test]
fn a_pipeline_of_100_000_commands_is_answered() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let count = 50_000;
    let sets: Vec<u8> = (0..count)
        .flat_map(|i| encode(&["SET", &format!("key{i}"), &format!("value{i}")]))
        .collect();
    let gets: Vec<u8> = (0..count)
        .flat_map(|i| encode(&["GET", &format!("key{i}")]))
        .collect();
    client.send([sets, gets].concat());
    for _ in 0..count {
        assert_eq!(client.reply(), "+OK\r\n");
    }
    for i in 0..count {
        let value = format!("value{i}");
        assert_eq!(client.reply(), format!("${}\r\n{value}\r\n", value.len()));
    }
}

#[test]
fn large_values_come_back_whole() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let value: String = (0..3_000_000)
        .map(|i: u32| char::from(b'a' + (i.wrapping_mul(i) % 23) as u8))
        .collect();
    assert_eq!(client.command(&["SET", "large", &value]), "+OK\r\n");
    let expected = format!("${}\r\n{value}\r\n", value.len());
    // Replies of other commands in between must keep their place.
    client.send(
        [
            encode(&["STRLEN", "large"]),
            encode(&["GET", "large"]),
            encode(&["GET", "large"]),
            encode(&["STRLEN", "large"]),
        ]
        .concat(),
    );
    assert_eq!(client.reply(), ":3000000\r\n");
    assert!(client.reply() == expected);
    assert!(client.reply() == expected);
    assert_eq!(client.reply(), ":3000000\r\n");
}

#[test]
fn inline_commands() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("SET key \"two words\"\r\n\r\nGET key\n");
    assert_eq!(client.reply(), "+OK\r\n");
    assert_eq!(client.reply(), "$9\r\ntwo words\r\n");
}

#[test]
fn resp3_is_chosen_by_hello() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.command(&["GET", "absent"]), "$-1\r\n");
    let hello = client.command(&["HELLO", "3"]);
    assert!(
        hello.starts_with('%') && hello.contains("\r\nproto\r\n:3\r\n"),
        "{hello}"
    );
    assert_eq!(client.command(&["GET", "absent"]), "_\r\n");
    assert!(client.command(&["HELLO", "2"]).starts_with('*'));
    assert_eq!(client.command(&["GET", "absent"]), "$-1\r\n");
}

#[test]
fn a_protocol_error_is_answered_and_closes() {
    let server = Server::start(&[]);
    for (request, error) in [
        ("*1\r\n$-5\r\n", "invalid bulk length"),
        ("*1\r\n$99999999999\r\n", "invalid bulk length"),
        ("*99999999999\r\n", "invalid multibulk length"),
        ("*1\r\n:5\r\n", "expected '$', got ':'"),
        ("SET \"unbalanced\r\n", "unbalanced quotes in request"),
    ] {
        let mut client = server.connect();
        client.send(
            [
                encode(&["SET", "before", "it"]),
                request.as_bytes().to_vec(),
            ]
            .concat(),
        );
        assert_eq!(
            client.read_to_end(),
            format!("+OK\r\n-ERR Protocol error: {error}\r\n"),
            "{request:?}"
        );
    }
}

#[test]
fn an_http_request_is_cut_off_before_its_body() {
    let mut server = Server::start(&[]);
    for request in [
        "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET planted 1\r\n",
        "GET / HTTP/1.1\r\nhOST: localhost\r\n\r\nSET planted 1\r\n",
    ] {
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.read_to_end(), "", "{request}");
    }
    let mut client = server.connect();
    assert_eq!(client.command(&["EXISTS", "planted"]), ":0\r\n");
    // As arguments these words are like any other.
    assert_eq!(client.command(&["SET", "Host:", "POST"]), "+OK\r\n");
    client.send(encode(&["SHUTDOWN", "NOSAVE"]));
    let (_, log) = server.wait();
    assert_eq!(log.matches("Possible SECURITY ATTACK").count(), 1, "{log}");
}

#[test]
fn unknown_commands_are_quoted_as_redis_does() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let long = "x".repeat(200);
    let unknown = client.command(&["nosuch", "one", "two"]);
    assert_eq!(
        unknown,
        "-ERR unknown command 'nosuch', with args beginning with: 'one' 'two' \r\n"
    );
    let quoted = &long[..128];
    assert_eq!(
        client.command(&[&long, &long, "unseen"]),
        format!("-ERR unknown command '{quoted}', with args beginning with: '{quoted}' \r\n")
    );
    let first = &long[..100];
    assert_eq!(
        client.command(&["nosuch", first, &long]),
        format!(
            "-ERR unknown command 'nosuch', with args beginning with: '{first}' '{}' \r\n",
            &long[..25]
        )
    );
    assert_eq!(
        client.command(&["GET"]),
        "-ERR wrong number of arguments for 'get' command\r\n"
    );
    assert_eq!(
        client.command(&["OBJECT"]),
        "-ERR wrong number of arguments for 'object' command\r\n"
    );
    assert_eq!(
        client.command(&["OBJECT", "nosuch"]),
        "-ERR unknown subcommand 'nosuch'. Try OBJECT HELP.\r\n"
    );
    assert_eq!(
        client.command(&["object", "encoding"]),
        "-ERR wrong number of arguments for 'object|encoding' command\r\n"
    );
}

#[test]
fn commands_of_other_clients_go_on_while_one_sleeps() {
    let server = Server::start(&["--enable-debug-command", "yes", "--io-threads", "1"]);
    let (mut sleeper, mut other) = (server.connect(), server.connect());
    sleeper.send(
        [
            encode(&["SET", "order", "first"]),
            encode(&["DEBUG", "SLEEP", "0.5"]),
            encode(&["GET", "order"]),
        ]
        .concat(),
    );
    assert_eq!(sleeper.reply(), "+OK\r\n");
    assert_eq!(other.command(&["SET", "order", "second"]), "+OK\r\n");
    assert_eq!(sleeper.reply(), "+OK\r\n");
    assert_eq!(sleeper.reply(), "$6\r\nsecond\r\n");
}
