//! Conditional stores and deletions: NX, XX, IFEQ, IFNE, IFDEQ, IFDNE in SET, DELEX, DELIFEQ, MSETEX, and DIGEST.

mod common;

use common::{Connection, Server};

const OK: &str = "+OK\r\n";
const NULL: &str = "$-1\r\n";
const YES: &str = ":1\r\n";
const NO: &str = ":0\r\n";
const SYNTAX_ERROR: &str = "-ERR syntax error\r\n";

/// Sends `command`, words separated by spaces, and compares the reply.
fn check(client: &mut Connection, command: &str, expected: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(client.command(&words), expected, "{command}");
}

#[test]
fn set_compares_with_what_the_key_holds() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    // An absent key differs from every value.
    check(&mut client, "SET k new IFEQ old", NULL);
    check(&mut client, "SET k new IFDEQ 9555e8555c62dcfd", NULL);
    check(&mut client, "SET k hello IFNE old", OK);
    check(&mut client, "SET k hello IFNE hello", NULL);
    check(&mut client, "SET k world ifeq hell", NULL);
    check(&mut client, "SET k world ifeq hello GET", "$5\r\nhello\r\n");
    check(&mut client, "SET k hello GET IFEQ other", "$5\r\nworld\r\n");
    check(&mut client, "GET k", "$5\r\nworld\r\n");
    check(&mut client, "SET absent x GET IFEQ y", NULL);
    check(&mut client, "EXISTS absent", NO);

    check(&mut client, "SET k hello", OK);
    check(&mut client, "SET k again IFDNE 9555e8555c62dcfd", NULL);
    check(&mut client, "SET k again IFDEQ 9555E8555C62DCFD EX 100", OK);
    check(&mut client, "TTL k", ":100\r\n");
    check(&mut client, "SET k kept IFEQ again KEEPTTL", OK);
    check(&mut client, "TTL k", ":100\r\n");
    check(&mut client, "SET k unlimited IFEQ kept", OK);
    check(&mut client, "TTL k", ":-1\r\n");
}

#[test]
fn conditions_exclude_each_other() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for options in [
        "NX XX",
        "NX IFEQ a",
        "IFEQ a XX",
        "IFEQ a IFEQ a",
        "IFNE a IFDNE 0000000000000000",
        "IFEQ",
        "EX 10 PX 10",
        "KEEPTTL EXAT 99999999999",
        "PERSIST",
    ] {
        check(&mut client, &format!("SET k v {options}"), SYNTAX_ERROR);
    }
    check(&mut client, "SET k v NX NX", OK);
    check(&mut client, "SET k v EX 10 EX 20", OK);
    check(&mut client, "TTL k", ":20\r\n");
    let digest_error = "-ERR The digest must be exactly 16 hexadecimal characters\r\n";
    check(&mut client, "SET k v IFDEQ 123", digest_error);
    check(&mut client, "DELEX k IFDNE 0123456789abcdef0", digest_error);
}

#[test]
fn delex_and_delifeq_delete_what_matches() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(&mut client, "DELEX k IFEQ a", NO);
    check(&mut client, "DELIFEQ k a", NO);
    for (condition, deletes) in [
        ("", true),
        (" IFEQ hello", true),
        (" IFEQ hell", false),
        (" IFEQ hellx", false),
        (" IFNE hello", false),
        (" ifne other", true),
        (" IFDEQ 9555e8555c62dcfd", true),
        (" IFDEQ 0000000000000000", false),
        (" IFDNE 9555e8555c62dcfd", false),
        (" IFDNE 0000000000000000", true),
    ] {
        check(&mut client, "SET k hello", OK);
        check(
            &mut client,
            &format!("DELEX k{condition}"),
            if deletes { YES } else { NO },
        );
        check(&mut client, "EXISTS k", if deletes { NO } else { YES });
    }
    check(&mut client, "SET k hello", OK);
    check(&mut client, "DELIFEQ k hell", NO);
    check(&mut client, "DELIFEQ k hello", YES);
    check(&mut client, "SET k hello", OK);
    let invalid = "-ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE\r\n";
    check(&mut client, "DELEX k NX a", invalid);
    let arguments = "-ERR wrong number of arguments for 'delex' command\r\n";
    check(&mut client, "DELEX k IFEQ", arguments);
    check(&mut client, "DELEX k IFEQ a b", arguments);
}

#[test]
fn digest_is_xxh3_with_leading_zeros() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(&mut client, "DIGEST k", NULL);
    for (value, digest) in [
        ("hello", "9555e8555c62dcfd"),
        ("", "2d06800538d394c2"),
        ("123", "404a763b3f4c8c9a"),
        ("v8", "0cc76dbb41381419"),
    ] {
        client.command(&["SET", "k", value]);
        check(&mut client, "DIGEST k", &format!("$16\r\n{digest}\r\n"));
    }
}

#[test]
fn msetex_stores_all_or_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(&mut client, "MSETEX 2 a 1 b 2 XX", NO);
    check(&mut client, "MSETEX 2 a 1 b 2 NX EX 100", YES);
    check(&mut client, "MGET a b", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    check(&mut client, "TTL b", ":100\r\n");
    check(&mut client, "MSETEX 2 c 1 b 3 NX", NO);
    check(&mut client, "EXISTS c", NO);
    check(&mut client, "MSETEX 2 a 5 b 6 keepttl xx", YES);
    check(&mut client, "TTL a", ":100\r\n");
    check(&mut client, "MSETEX 1 a 7", YES);
    check(&mut client, "TTL a", ":-1\r\n");
    check(&mut client, "GET b", "$1\r\n6\r\n");

    let count_error = "-ERR invalid numkeys value or out of range\r\n";
    for count in ["0", "-1", "x", "9999999999", "01"] {
        check(&mut client, &format!("MSETEX {count} a 1"), count_error);
    }
    for wrong in [
        "2 a 1",
        "2 a 1 b",
        "1 a 1 b",
        "1 a 1 EX",
        "1 a 1 NX XX",
        "1 a 1 GET",
    ] {
        check(&mut client, &format!("MSETEX {wrong}"), SYNTAX_ERROR);
    }
    let expiry_error = "-ERR invalid expire time in 'msetex' command\r\n";
    check(&mut client, "MSETEX 1 a 1 EX 0", expiry_error);
    check(&mut client, "GET a", "$1\r\n7\r\n");
}
