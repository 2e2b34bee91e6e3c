//! What one client may take: connections, idle time, memory for requests and replies.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Connection, Server, encode, eventually};

#[test]
fn clients_beyond_maxclients_are_turned_away() {
    let server = Server::start(&["--maxclients", "2"]);
    let mut first = server.connect();
    let mut second = server.connect();
    assert_eq!(first.command(&["DBSIZE"]), ":0\r\n");
    assert_eq!(second.command(&["DBSIZE"]), ":0\r\n");
    assert_eq!(
        server.connect().read_to_end(),
        "-ERR max number of clients reached\r\n"
    );
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut next = server.connect();
        next.send("DBSIZE\r\n");
        if next.reply() == ":0\r\n" {
            break;
        }
        assert!(Instant::now() < deadline, "a client that left still counts");
    }
}

#[test]
fn idle_clients_are_closed_after_the_timeout() {
    let server = Server::start(&["--timeout", "1"]);
    let mut client = server.connect();
    let begin = Instant::now();
    assert_eq!(client.command(&["DBSIZE"]), ":0\r\n");
    assert_eq!(client.read_to_end(), "");
    assert!(
        begin.elapsed() >= Duration::from_millis(900),
        "closed after {:?}",
        begin.elapsed()
    );
}

#[test]
fn keepalive_probes_are_sent_as_configured() {
    for (seconds, is_sent) in [("300", true), ("0", false)] {
        let server = Server::start(&["--tcp-keepalive", seconds]);
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        let port = stream.local_addr().unwrap().port();
        let mut client = Connection::new(stream);
        assert_eq!(client.command(&["PING"]), "+PONG\r\n");
        if std::fs::metadata("/proc/net/tcp").is_err() {
            println!("skipped: no /proc/net/tcp to tell the timers of sockets");
            return;
        }
        // No timer, or that of the probes; the one for a segment that has not been acknowledged passes.
        let centiseconds = eventually(|| match socket_timer(server.port, port) {
            (0, _) => Some(None),
            (2, centiseconds) => Some(Some(centiseconds)),
            _ => None,
        });
        match centiseconds {
            Some(centiseconds) => assert!(
                is_sent && (27_000..=30_000).contains(&centiseconds),
                "after {seconds} s: a probe in {centiseconds} cs"
            ),
            None => assert!(!is_sent, "after {seconds} s: no probe"),
        }
    }
}

/// The kind of timer that runs for a connection between two ports here, and in how many hundredths of a second it ends.
fn socket_timer(local_port: u16, remote_port: u16) -> (u8, u64) {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.split_once(':').unwrap().1, 16).unwrap();
    let timer = sockets.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (port(fields[1]) == local_port && port(fields[2]) == remote_port)
            .then(|| fields[5].to_owned())
    });
    let timer = timer.expect("the connection is open");
    let (kind, centiseconds) = timer.split_once(':').unwrap();
    let kind = u8::from_str_radix(kind, 16).unwrap();
    (kind, u64::from_str_radix(centiseconds, 16).unwrap())
}

#[test]
fn a_client_that_does_not_read_is_closed_at_the_hard_limit() {
    let server = Server::start(&["--client-output-buffer-limit", "normal", "200kb", "0", "0"]);
    let mut client = server.connect();
    let value = "v".repeat(100_000);
    assert_eq!(client.command(&["SET", "key", &value]), "+OK\r\n");
    let gets = 1000;
    client.send(encode(&["GET", "key"]).repeat(gets));
    let mut other = server.connect();
    eventually(|| {
        let info = other.command(&["INFO", "stats"]);
        info.contains("client_output_buffer_limit_disconnections:1\r")
            .then_some(())
    });
    let received = client.read_to_end().len();
    assert!(received < gets * value.len(), "all {gets} replies came");
    assert_eq!(other.command(&["STRLEN", "key"]), ":100000\r\n");
}

#[test]
fn a_client_that_does_not_read_is_closed_when_it_has_been_over_the_soft_limit_for_long() {
    let server = Server::start(&["--client-output-buffer-limit", "normal", "0", "200kb", "1"]);
    let mut client = server.connect();
    let value = "v".repeat(100_000);
    assert_eq!(client.command(&["SET", "key", &value]), "+OK\r\n");
    client.send(encode(&["GET", "key"]).repeat(200));
    let mut other = server.connect();
    eventually(|| {
        let info = other.command(&["INFO", "stats"]);
        info.contains("client_output_buffer_limit_disconnections:1\r")
            .then_some(())
    });
    assert!(client.read_to_end().len() < 200 * value.len());
}

/// Its limit is more than there is memory for.
#[test]
fn a_client_that_does_not_read_is_closed_though_it_cannot_reach_its_limit() {
    let limit = ["--client-output-buffer-limit", "normal", "4mb", "0", "0"];
    let server = Server::start(&[&["--maxmemory", "40mb"], &limit[..]].concat());
    let mut client = server.connect();
    let value = "v".repeat(100_000);
    assert_eq!(client.command(&["SET", "key", &value]), "+OK\r\n");
    client.send(encode(&["GET", "key"]).repeat(1000));
    let mut other = server.connect();
    eventually(|| {
        let info = other.command(&["INFO", "clients"]);
        info.contains("connected_clients:1\r").then_some(())
    });
}

/// Without a reset, although the server has not read all of it.
#[test]
fn a_client_that_has_sent_more_than_is_read_gets_to_the_end_of_what_it_is_told() {
    // Which makes the server read 16 KiB at a time.
    let server = Server::start(&["--maxmemory", "64mb"]);
    let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut bytes = b"*1\r\n$y\r\n".to_vec();
    bytes.resize(60_000, b'x');
    client.write_all(&bytes).unwrap();
    let mut told = String::new();
    client.read_to_string(&mut told).unwrap();
    assert_eq!(told, "-ERR Protocol error: invalid bulk length\r\n");
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    let value = "v".repeat(100_000);
    assert_eq!(client.command(&["SET", "key", &value]), "+OK\r\n");
    assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
    let gets = 500;
    client.send(encode(&["GET", "key"]).repeat(gets));
    // The server runs into full socket buffers, and after a while copies what it would send from where it lies; another
    // client is served meanwhile.
    assert_eq!(
        server.connect().command(&["DEBUG", "SLEEP", "0.3"]),
        "+OK\r\n"
    );
    let expected = format!("$100000\r\n{value}\r\n");
    for _ in 0..gets {
        assert!(client.reply() == expected);
    }
}

#[test]
fn requests_over_the_query_buffer_limit_close_the_connection() {
    let server = Server::start(&["--client-query-buffer-limit", "1mb"]);
    let mut client = server.connect();
    client.send("*2\r\n$4\r\nECHO\r\n$2000000\r\n");
    // It may be closed before all of that is sent.
    let _ = client.try_send("x".repeat(1_200_000));
    assert_eq!(client.read_to_end(), "");
}

#[test]
fn large_requests_need_a_password_first() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["GET", "key"]),
        "-NOAUTH Authentication required.\r\n"
    );
    client.send("*11\r\n");
    assert_eq!(
        client.read_to_end(),
        "-ERR Protocol error: unauthenticated multibulk length\r\n"
    );
    let mut client = server.connect();
    client.send("*2\r\n$3\r\nGET\r\n$16385\r\n");
    assert_eq!(
        client.read_to_end(),
        "-ERR Protocol error: unauthenticated bulk length\r\n"
    );
    // AUTH and what follows it may come in one go.
    let mut client = server.connect();
    let many: Vec<String> = (0..20).map(|i| format!("key{i}")).collect();
    let exists: Vec<&str> = std::iter::once("EXISTS")
        .chain(many.iter().map(String::as_str))
        .collect();
    client.send([encode(&["AUTH", "secret"]), encode(&exists)].concat());
    assert_eq!(client.reply(), "+OK\r\n");
    assert_eq!(client.reply(), ":0\r\n");
}

#[test]
fn values_larger_than_the_store_takes_change_nothing() {
    let server = Server::start(&["--maxmemory", "64mb"]);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "key", "old"]), "+OK\r\n");
    let too_large = "x".repeat(17_000_000);
    let refused = client.command(&["SET", "key", &too_large]);
    assert!(refused.starts_with("-ERR "), "{refused}");
    assert_eq!(client.command(&["GET", "key"]), "$3\r\nold\r\n");
    // Much larger ones are refused when they are announced.
    client.send("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$40000000\r\n");
    assert_eq!(
        client.read_to_end(),
        "-ERR Protocol error: invalid bulk length\r\n"
    );
    assert_eq!(server.connect().command(&["GET", "key"]), "$3\r\nold\r\n");
}

#[test]
fn the_buffers_of_all_clients_together_are_bounded() {
    let server = Server::start(&["--maxmemory", "64mb"]);
    let part = "x".repeat(12_000_000);
    let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    for client in &mut clients {
        // Those that are closed on the way do not take it all.
        let _ = client.try_send(format!("*2\r\n$4\r\nECHO\r\n${}\r\n{part}", part.len()));
    }
    let whole = clients
        .iter_mut()
        .filter_map(|client| client.try_send("\r\n").ok()?.try_reply())
        .count();
    assert!(
        (1..=2).contains(&whole),
        "{whole} of 6 requests of 12 MB were taken with 64 MB of memory"
    );
    assert_eq!(server.connect().command(&["PING"]), "+PONG\r\n");
}
