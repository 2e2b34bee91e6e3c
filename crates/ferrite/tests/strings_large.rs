//! Parts of large strings, and strings that would be too large.

mod common;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};

use common::Server;

const TOO_LARGE: &str = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n";

#[test]
fn parts_of_a_large_string_are_read_and_written_in_place() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    let mut expected: Vec<u8> = (0..3_000_000u32)
        .map(|i| b'a' + (i * 7 / 64 % 26) as u8)
        .collect();
    let value = String::from_utf8(expected.clone()).unwrap();
    assert_eq!(client.command(&["SET", "k", &value]), "+OK\r\n");
    assert_eq!(client.command(&["STRLEN", "k"]), ":3000000\r\n");

    for (offset, text) in [
        (0, "start"),
        (65_534, "boundary"),
        (2_999_990, "longer than the rest"),
    ] {
        let end = (offset + text.len()).max(expected.len());
        expected.resize(end, 0);
        expected[offset..offset + text.len()].copy_from_slice(text.as_bytes());
        let reply = client.command(&["SETRANGE", "k", &offset.to_string(), text]);
        assert_eq!(reply, format!(":{end}\r\n"));
    }
    expected.extend_from_slice(b"tail");
    assert_eq!(
        client.command(&["APPEND", "k", "tail"]),
        format!(":{}\r\n", expected.len())
    );

    // From here on every part comes from the device.
    assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
    for (start, end) in [
        (0, 9),
        (65_500, 65_600),
        (1_000_000, 1_200_000),
        (2_999_980, 3_000_013),
    ] {
        let part = std::str::from_utf8(&expected[start..=end]).unwrap();
        let reply = client.command(&["GETRANGE", "k", &start.to_string(), &end.to_string()]);
        assert!(
            reply == format!("${}\r\n{part}\r\n", part.len()),
            "{start} to {end}"
        );
    }
    let whole = std::str::from_utf8(&expected).unwrap();
    assert!(client.command(&["GET", "k"]) == format!("${}\r\n{whole}\r\n", whole.len()));
    assert!(client.command(&["GETDEL", "k"]) == format!("${}\r\n{whole}\r\n", whole.len()));
    assert_eq!(client.command(&["GET", "k"]), "$-1\r\n");
}

#[test]
fn what_would_be_too_large_is_refused_and_changes_nothing() {
    let server = Server::start(&["--proto-max-bulk-len", "2mb"]);
    let mut client = server.connect();
    let limit = 2 * 1024 * 1024;
    assert_eq!(
        client.command(&["SETRANGE", "k", &(limit - 1).to_string(), "ab"]),
        TOO_LARGE
    );
    assert_eq!(client.command(&["EXISTS", "k"]), ":0\r\n");
    assert_eq!(
        client.command(&["SETRANGE", "k", &(limit - 1).to_string(), "a"]),
        format!(":{limit}\r\n")
    );
    assert_eq!(client.command(&["APPEND", "k", "b"]), TOO_LARGE);
    assert_eq!(client.command(&["STRLEN", "k"]), format!(":{limit}\r\n"));
    assert_eq!(
        client.command(&["SETRANGE", "k", "-1", "a"]),
        "-ERR offset is out of range\r\n"
    );

    let out_of_range = "-ERR bit offset is not an integer or out of range\r\n";
    let past = (limit * 8).to_string();
    assert_eq!(
        client.command(&["SETBIT", "bits", &past, "1"]),
        out_of_range
    );
    assert_eq!(client.command(&["GETBIT", "k", &past]), out_of_range);
    assert_eq!(
        client.command(&["BITFIELD", "bits", "SET", "u8", &past, "1"]),
        out_of_range
    );
    assert_eq!(
        client.command(&["GETBIT", "k", &(limit * 8 - 1).to_string()]),
        ":1\r\n"
    );

    client.command(&["SET", "a", &"a".repeat(1000)]);
    client.command(&["SET", "b", &"b".repeat(1000)]);
    assert_eq!(
        client.command(&["LCS", "a", "b", "LEN"]),
        "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len\r\n"
    );
    assert_eq!(
        client.command(&["CONFIG", "SET", "proto-max-bulk-len", "512mb"]),
        "+OK\r\n"
    );
    assert_eq!(client.command(&["LCS", "a", "b", "LEN"]), ":0\r\n");
}

/// Commands that store several large strings wait for room now and then, and nobody may see the half of one.
#[test]
fn several_large_strings_are_stored_at_once_or_not_at_all() {
    // Room for what the four send at a time, and for little of what they store.
    let server = Server::start(&["--maxmemory", "48mb", "--appendonly", "no"]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let mut client = server.connect();
                scope.spawn(move || {
                    let keys = ["a", "b", "c"].map(|name| format!("{name}{writer}"));
                    for version in 0..30 {
                        let value = format!("{version:02}").repeat(300_000);
                        let mut words = vec!["MSET"];
                        keys.iter()
                            .for_each(|key| words.extend([key.as_str(), &value]));
                        assert_eq!(client.command(&words), "+OK\r\n");
                    }
                })
            })
            .collect();
        let mut client = server.connect();
        let is_over = &is_over;
        scope.spawn(move || {
            while !is_over.load(Relaxed) {
                for writer in 0..4 {
                    let starts = ["a", "b", "c"].map(|name| format!("{name}{writer}"));
                    // One command that looks at all three.
                    client.send("MULTI\r\n");
                    starts
                        .iter()
                        .for_each(|key| client.send(format!("GETRANGE {key} 0 1\r\n")));
                    client.send("EXEC\r\n");
                    let replies: Vec<String> = (0..5).map(|_| client.reply()).collect();
                    let versions: Vec<&str> = replies[4].split("\r\n").skip(2).step_by(2).collect();
                    assert!(
                        versions[..3].iter().all(|version| *version == versions[0]),
                        "{versions:?}"
                    );
                }
            }
        });
        let written: Vec<_> = writers.into_iter().map(ScopedJoinHandle::join).collect();
        // Also if a writer has failed: the reader must end.
        is_over.store(true, Relaxed);
        written.into_iter().for_each(|written| written.unwrap());
    });
}

#[test]
fn lcs_finds_matches_in_the_order_and_form_of_redis() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.command(&["MSET", "a", "ohmytext", "b", "mynewtext"]);
    assert_eq!(client.command(&["LCS", "a", "b"]), "$6\r\nmytext\r\n");
    assert_eq!(client.command(&["LCS", "a", "b", "len"]), ":6\r\n");
    assert_eq!(client.command(&["LCS", "a", "absent"]), "$0\r\n\r\n");
    let text = "*2\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n";
    let my = "*2\r\n*2\r\n:2\r\n:3\r\n*2\r\n:0\r\n:1\r\n";
    let all = format!("*4\r\n$7\r\nmatches\r\n*2\r\n{text}{my}$3\r\nlen\r\n:6\r\n");
    assert_eq!(client.command(&["LCS", "a", "b", "IDX"]), all);
    let long = "*3\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n:4\r\n";
    let filtered = format!("*4\r\n$7\r\nmatches\r\n*1\r\n{long}$3\r\nlen\r\n:6\r\n");
    let options = ["LCS", "a", "b", "IDX", "MINMATCHLEN", "4", "WITHMATCHLEN"];
    assert_eq!(client.command(&options), filtered);
    client.command(&["HELLO", "3"]);
    assert!(
        client
            .command(&["LCS", "a", "b", "IDX"])
            .starts_with("%2\r\n$7\r\nmatches\r\n")
    );
}
