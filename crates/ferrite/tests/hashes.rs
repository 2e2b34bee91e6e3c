//! Hashes: what is not compared with a real server elsewhere: encodings, fields that expire, restarts, transactions, and all
//! of it from the disk.

mod common;

use common::{Connection, Server, check, check_peak_memory, eventually};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];
const OK: &str = "+OK\r\n";
const NULL: &str = "$-1\r\n";

/// As [`check`], with everything moved to the disk before.
fn check_cold(client: &mut Connection, command: &str, expected: &str) {
    assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), OK);
    check(client, command, expected);
}

/// HSET of the fields `f0`, `f1` and so on, whose values are their numbers.
fn fill(client: &mut Connection, key: &str, count: usize) {
    for from in (0..count).step_by(500) {
        let mut words = vec!["HSET".to_owned(), key.to_owned()];
        for i in from..count.min(from + 500) {
            words.extend([format!("f{i}"), i.to_string()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        client.command(&words);
    }
}

#[test]
fn encodings_follow_the_limits_and_never_go_back() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let encoding = |client: &mut Connection, expected: &str| {
        let shown = format!("${} {expected}", expected.len());
        check(client, "OBJECT ENCODING h", &shown);
    };
    fill(&mut client, "h", 512);
    encoding(&mut client, "listpack");
    check(&mut client, "HSET h f1 again", ":0");
    encoding(&mut client, "listpack");
    check(&mut client, "HSETNX h more 1", ":1");
    encoding(&mut client, "hashtable");
    check(&mut client, "HDEL h more", ":1");
    encoding(&mut client, "hashtable");

    check(&mut client, "DEL h", ":1");
    let long = "x".repeat(65);
    check(&mut client, "HSET h a 1", ":1");
    check(&mut client, &format!("HINCRBY h {long} 1"), ":1");
    encoding(&mut client, "hashtable");

    check(&mut client, "DEL h", ":1");
    check(&mut client, "CONFIG SET hash-max-ziplist-value 3", "+OK");
    check(&mut client, "HSET h a 123", ":1");
    encoding(&mut client, "listpack");
    check(&mut client, "HSET h a 1234", ":0");
    encoding(&mut client, "hashtable");
    check(&mut client, "COPY h copy", ":1");
    check(&mut client, "OBJECT ENCODING copy", "$9 hashtable");

    // Limits are looked at whenever something is stored, and fields that are given twice count twice.
    check(&mut client, "DEL h", ":1");
    check(&mut client, "HSET h a 1 b 2 c 3", ":3");
    check(&mut client, "CONFIG SET hash-max-listpack-entries 2", "+OK");
    encoding(&mut client, "listpack");
    check(&mut client, "HSET h a 4", ":0");
    encoding(&mut client, "hashtable");
    check(&mut client, "DEL h", ":1");
    check(&mut client, "HSET h a 1 a 2 a 3", ":1");
    encoding(&mut client, "hashtable");

    check(&mut client, "DEL h", ":1");
    check(&mut client, "HSET h a 1", ":1");
    check(&mut client, "HEXPIRE h 100 FIELDS 1 a", "*1 :1");
    encoding(&mut client, "listpackex");
}

#[test]
fn fields_expire_and_cannot_be_seen_then() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    // Nobody removes them but who meets them.
    check(&mut client, "DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    check(&mut client, "HSET h a 1 b 2 c 3 d 4", ":4");
    check(&mut client, "HPEXPIRE h 1 FIELDS 3 a b c", "*3 :1 :1 :1");
    eventually(|| (client.command(&["HGET", "h", "a"]) == NULL).then_some(()));
    check(&mut client, "HMGET h a b d", "*3 $-1 $-1 $1 4");
    check(&mut client, "HGETALL h", "*2 $1 d $1 4");
    check(&mut client, "HKEYS h", "*1 $1 d");
    check(&mut client, "HVALS h", "*1 $1 4");
    check(&mut client, "HEXISTS h a", ":0");
    check(&mut client, "HSTRLEN h a", ":0");
    check(&mut client, "HRANDFIELD h", "$1 d");
    check(&mut client, "HRANDFIELD h 10", "*1 $1 d");
    check(&mut client, "HSCAN h 0", "*2 $1 0 *2 $1 d $1 4");
    check(&mut client, "HTTL h FIELDS 2 a d", "*2 :-2 :-1");
    check(&mut client, "HPERSIST h FIELDS 2 a d", "*2 :-2 :-1");
    // As in Redis, they count until somebody removes them; HPERSIST has removed one.
    check(&mut client, "HLEN h", ":3");
    check(&mut client, "HDEL h b", ":0");
    check(&mut client, "HLEN h", ":2");
    check(&mut client, "HSET h c 5", ":1");
    check(&mut client, "HTTL h FIELDS 1 c", "*1 :-1");
    check(&mut client, "HLEN h", ":2");
    check(&mut client, "HPEXPIREAT h 1 FIELDS 2 c d", "*2 :2 :2");
    check(&mut client, "EXISTS h", ":0");
}

#[test]
fn fields_go_by_themselves_and_the_hash_with_the_last() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    fill(&mut client, "big", 3000);
    check(&mut client, "HSET h a 1 b 2", ":2");
    check(
        &mut client,
        "HPEXPIRE big 1 FIELDS 3 f0 f1500 f2999",
        "*3 :1 :1 :1",
    );
    check(&mut client, "HPEXPIRE h 1 FIELDS 1 a", "*1 :1");
    check(&mut client, "HPEXPIRE h 30 FIELDS 1 b", "*1 :1");
    eventually(|| (client.command(&["HLEN", "big"]) == ":2997\r\n").then_some(()));
    eventually(|| (client.command(&["EXISTS", "h"]) == ":0\r\n").then_some(()));
    check(&mut client, "HGET big f1", "$1 1");
}

#[test]
fn fields_expire_under_other_names_and_after_a_restart() {
    // The keys go with their last fields; DBSIZE meets none of them.
    let gone = |client: &mut Connection, left: &str| {
        eventually(|| (client.command(&["DBSIZE"]) == left).then_some(()));
    };
    for killed in [true, false] {
        let mut server = Server::start(&DEBUG);
        let mut client = server.connect();
        check(&mut client, "DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
        check(&mut client, "HSET h a 1 b 2", ":2");
        check(&mut client, "HPEXPIRE h 1 FIELDS 2 a b", "*2 :1 :1");
        for command in ["COPY h copy", "COPY h moved", "MOVE moved 1"] {
            check(&mut client, command, ":1");
        }
        check(&mut client, "RENAME h renamed", "+OK");
        fill(&mut client, "big", 3000);
        check(&mut client, "HPEXPIRE big 1 FIELDS 2 f7 f2999", "*2 :1 :1");
        check(&mut client, "HEXPIRE big 10000 FIELDS 1 f8", "*1 :1");
        check(&mut client, "SET other 1", "+OK");
        if killed {
            check(&mut client, "SAVE", "+OK");
        }
        let dir = match killed {
            true => server.kill(),
            false => server.shut_down(&[]),
        };
        server = Server::start_in(dir, &DEBUG);
        let mut client = server.connect();
        gone(&mut client, ":2\r\n");
        check(&mut client, "SELECT 1", "+OK");
        gone(&mut client, ":0\r\n");
        check(&mut client, "SELECT 0", "+OK");
        eventually(|| (client.command(&["HLEN", "big"]) == ":2998\r\n").then_some(()));
        check(&mut client, "HMGET big f7 f8 f9", "*3 $-1 $1 8 $1 9");
        eventually(|| (info(&mut client, "stats", "expired_subkeys") >= 8).then_some(()));
    }
}

#[test]
fn a_hash_that_changes_while_it_is_looked_through_keeps_its_expiries() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    fill(&mut client, "h", 6000);
    // Some expire at once and some later, all over the hash, while others are stored.
    let (mut expiring, mut stored) = (std::collections::BTreeSet::new(), 0);
    for round in 0..20 {
        for i in 0..30 {
            let field = format!("f{}", round * 30 + i * 180);
            let time = (1 + i % 7 * 10).to_string();
            client.command(&["HPEXPIRE", "h", &time, "FIELDS", "1", &field]);
            client.command(&["HSET", "h", &format!("new {round} {i}"), "1"]);
            expiring.insert(field);
            stored += 1;
        }
    }
    let left = 6000 + stored - expiring.len();
    eventually(|| (client.command(&["HLEN", "h"]) == format!(":{left}\r\n")).then_some(()));
    let keys = client.command(&["HKEYS", "h"]);
    assert!(keys.starts_with(&format!("*{left}\r\n")), "{}", &keys[..9]);
    check(&mut client, "HPEXPIRE h 1 FIELDS 1 f5999", "*1 :1");
    let left = format!(":{}\r\n", left - 1);
    eventually(|| (client.command(&["HLEN", "h"]) == left).then_some(()));
}

#[test]
fn expiry_of_fields_has_conditions_and_limits() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let missing = "-ERR Mandatory argument FIELDS is missing or not at the right position";
    let too_many = "-ERR The `numfields` parameter must match the number of arguments";
    let not_positive = "-ERR Number of fields must be a positive integer";
    check(&mut client, "HSET h a 1 b 2", ":2");
    for (command, expected) in [
        (
            "HEXPIRE h -1 FIELDS 1 a",
            "-ERR invalid expire time, must be >= 0",
        ),
        (
            "HEXPIRE h 70368744178 FIELDS 1 a",
            "-ERR invalid expire time in 'hexpire' command",
        ),
        (
            "HPEXPIREAT h 70368744177664 FIELDS 1 a",
            "-ERR invalid expire time in 'hpexpireat' command",
        ),
        ("HEXPIRE h 10 XY FIELDS 1 a", missing),
        ("HEXPIRE h 10 NX 1 1 a", missing),
        (
            "HEXPIRE h 10 FIELDS 0 a",
            "-ERR Parameter `numFields` should be greater than 0",
        ),
        ("HEXPIRE h 10 FIELDS 2 a", too_many),
        ("HTTL h FIELDS 3 a b", too_many),
        ("HTTL h FIELDS x a", not_positive),
        ("HPERSIST h FELD 1 a", missing),
        ("HGETDEL h FIELDS -1 a", not_positive),
        ("HGETEX h EX 10 PERSIST FIELDS 1 a", missing),
        (
            "HSETEX h FIELDS 1 a",
            "-ERR wrong number of arguments for 'hsetex' command",
        ),
        ("HSETEX h FIELDS 0 a 1", "-ERR invalid number of fields"),
        ("HSETEX h NX FIELDS 1 a 1", "-ERR unknown argument: NX"),
        (
            "HSETEX h FNX FXX FIELDS 1 a 1",
            "-ERR Only one of FXX or FNX arguments can be specified",
        ),
        (
            "HSETEX h KEEPTTL PX 10 FIELDS 1 a 1",
            "-ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
        ),
    ] {
        check(&mut client, command, expected);
    }
    check(&mut client, "HEXPIRETIME none FIELDS 2 a b", "*2 :-2 :-2");
    check(
        &mut client,
        "HPEXPIREAT h 70368744177663 GT FIELDS 2 a b",
        "*2 :0 :0",
    );
    check(
        &mut client,
        "HPEXPIREAT h 70368744177663 LT FIELDS 1 a",
        "*1 :1",
    );
    check(
        &mut client,
        "HEXPIREAT h 70000000000 NX FIELDS 2 a b",
        "*2 :0 :1",
    );
    check(
        &mut client,
        "HEXPIREAT h 70000000001 GT FIELDS 2 a b",
        "*2 :0 :1",
    );
    check(
        &mut client,
        "HPEXPIRETIME h FIELDS 2 a b",
        "*2 :70368744177663 :70000000001000",
    );
    check(&mut client, "HINCRBY h b 5", ":7");
    check(&mut client, "HEXPIRETIME h FIELDS 1 b", "*1 :70000000001");
    check(&mut client, "HSET h b 8", ":0");
    check(&mut client, "HPERSIST h FIELDS 2 a b", "*2 :1 :-1");
}

#[test]
fn hgetex_hsetex_and_hgetdel_do_two_things_at_once() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(&mut client, "HSETEX h FXX FIELDS 1 a 1", ":0");
    check(
        &mut client,
        "HSETEX h FNX EXAT 70000000000 FIELDS 2 a 1 b 2",
        ":1",
    );
    check(&mut client, "HSETEX h FNX FIELDS 2 b 1 c 2", ":0");
    check(&mut client, "HSETEX h FXX KEEPTTL FIELDS 1 a 3", ":1");
    check(
        &mut client,
        "HEXPIRETIME h FIELDS 2 a b",
        "*2 :70000000000 :70000000000",
    );
    check(&mut client, "HGETEX h PERSIST FIELDS 2 a x", "*2 $1 3 $-1");
    check(
        &mut client,
        "HGETEX h PXAT 70000000001000 FIELDS 1 b",
        "*1 $1 2",
    );
    check(
        &mut client,
        "HEXPIRETIME h FIELDS 2 a b",
        "*2 :-1 :70000000001",
    );
    check(&mut client, "HGETDEL h FIELDS 3 b x b", "*3 $1 2 $-1 $-1");
    check(&mut client, "HGETALL h", "*2 $1 a $1 3");
    check(&mut client, "HGETEX h EX 0 FIELDS 1 a", "*1 $1 3");
    check(&mut client, "EXISTS h", ":0");
    check(&mut client, "HSETEX h PXAT 1 FIELDS 1 a 1", ":1");
    check(&mut client, "EXISTS h", ":0");
}

#[test]
fn every_command_finds_its_fields_on_the_disk() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    fill(&mut client, "big", 5000);
    for (command, expected) in [
        ("HLEN big", ":5000"),
        ("HGET big f4999", "$4 4999"),
        ("HMGET big f1 none f4000", "*3 $1 1 $-1 $4 4000"),
        ("HSET big f1 one new two", ":1"),
        ("HINCRBY big f2 40", ":42"),
        ("HDEL big f3 f4 none", ":2"),
        ("HSETNX big f5 x", ":0"),
        ("HEXPIREAT big 70000000000 FIELDS 1 f6", "*1 :1"),
        ("HEXPIRETIME big FIELDS 2 f6 f7", "*2 :70000000000 :-1"),
        ("HGETDEL big FIELDS 1 f6", "*1 $1 6"),
        ("TYPE big", "+hash"),
        ("RENAME big renamed", "+OK"),
        ("COPY renamed big", ":1"),
        ("HLEN big", ":4998"),
        ("DEL renamed", ":1"),
    ] {
        check_cold(&mut client, command, expected);
    }
    assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), OK);
    let all = client.command(&["HGETALL", "big"]);
    assert!(all.starts_with("*9996\r\n"), "{}", &all[..20]);
    let some = client.command(&["HRANDFIELD", "big", "100"]);
    assert!(some.starts_with("*100\r\n"), "{}", &some[..20]);
}

#[test]
fn restarts_find_hashes() {
    let directives = [&DEBUG[..], &["--appendfsync", "always"]].concat();
    let mut server = Server::start(&directives);
    let mut client = server.connect();
    fill(&mut client, "big", 3000);
    check(&mut client, "HSET small a 1 b 2", ":2");
    check(&mut client, "SAVE", "+OK");
    fill(&mut client, "later", 1000);
    check(&mut client, "HSET small c 3", ":1");
    check(
        &mut client,
        "HEXPIREAT small 70000000000 FIELDS 1 a",
        "*1 :1",
    );
    check(&mut client, "HDEL big f7 f2999", ":2");
    let digest = client.command(&["DEBUG", "DIGEST"]);
    for killed in [true, false] {
        let dir = if killed {
            server.kill()
        } else {
            server.shut_down(&[])
        };
        server = Server::start_in(dir, &directives);
        let mut client = server.connect();
        assert_eq!(client.command(&["DEBUG", "DIGEST"]), digest);
        check(&mut client, "HLEN big", ":2998");
        check(&mut client, "HLEN later", ":1000");
        check(&mut client, "OBJECT ENCODING later", "$9 hashtable");
        check(&mut client, "OBJECT ENCODING small", "$10 listpackex");
        check(
            &mut client,
            "HEXPIRETIME small FIELDS 2 a b",
            "*2 :70000000000 :-1",
        );
    }
}

#[test]
fn transactions_and_watches_see_hashes() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    check(&mut client, "HSET h a 1", ":1");
    for (change, is_seen) in [
        ("HGET h a", false),
        ("HDEL h none", false),
        ("HSETNX h a 2", false),
        ("HSET h a 1", true),
        ("HINCRBY h a 1", true),
        ("HEXPIRE h 100 FIELDS 1 a", true),
        ("HDEL h a", true),
    ] {
        check(&mut client, "WATCH h", "+OK");
        let words: Vec<&str> = change.split(' ').collect();
        other.command(&words);
        check(&mut client, "MULTI", "+OK");
        let expected = if is_seen { "*-1" } else { "*0" };
        check(&mut client, "EXEC", expected);
    }
    check(&mut client, "MULTI", "+OK");
    check(&mut client, "HSET h a 1 b 2", "+QUEUED");
    check(&mut client, "HGETDEL h FIELDS 1 a", "+QUEUED");
    check(&mut client, "GET h", "+QUEUED");
    check(&mut client, "HGETALL h", "+QUEUED");
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    let expected = format!("*4 :2 *1 $1 1 {wrong} *2 $1 b $1 2");
    check(&mut client, "EXEC", &expected);
}

/// A command of these words, and of those of `count` elements.
fn command(words: &[&str], count: usize, element: impl Fn(usize) -> Vec<String>) -> Vec<String> {
    let words = words.iter().map(|word| (*word).to_owned());
    words.chain((0..count).flat_map(element)).collect()
}

fn run(client: &mut Connection, words: &[String]) -> String {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    client.command(&words)
}

#[test]
fn one_command_on_very_many_fields_on_the_disk_takes_little_memory() {
    const FIELDS: usize = 40_000;
    const GIVEN: usize = 10_000;
    let server = Server::start(&["--enable-debug-command", "yes", "--maxmemory", "64mb"]);
    let mut client = server.connect();
    let value = "v".repeat(300);
    for from in (0..FIELDS).step_by(500) {
        let pair = |i: usize| vec![format!("f{}", from + i), value.clone()];
        assert_eq!(
            run(&mut client, &command(&["HSET", "h"], 500, pair)),
            ":500\r\n"
        );
    }
    // They are spread over all pages, which take more memory together than a command may have. Half of them are new.
    let field = |i: usize| format!("f{}", i * 8);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let put = command(&["HSET", "h"], GIVEN, |i| vec![field(i), i.to_string()]);
    assert_eq!(run(&mut client, &put), ":5000\r\n");
    check(&mut client, "HLEN h", ":45000");
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let got = run(
        &mut client,
        &command(&["HMGET", "h"], GIVEN, |i| vec![field(i)]),
    );
    let expected: String = (0..GIVEN)
        .map(|i| format!("${}\r\n{i}\r\n", i.to_string().len()))
        .collect();
    assert!(got == format!("*{GIVEN}\r\n{expected}"), "{}", &got[..80]);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let count = GIVEN.to_string();
    let asked = command(&["HTTL", "h", "FIELDS", &count], GIVEN, |i| vec![field(i)]);
    assert_eq!(
        run(&mut client, &asked),
        format!("*{GIVEN}\r\n{}", ":-1\r\n".repeat(GIVEN))
    );
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let taken = command(&["HGETDEL", "h", "FIELDS", &count], GIVEN, |i| {
        vec![field(i)]
    });
    assert!(run(&mut client, &taken) == got, "they are as they were");
    check(&mut client, "HLEN h", ":35000");
    check_peak_memory(&server, 64 << 20);
}

#[test]
fn long_values_are_not_read_to_be_asked_about_and_fetched_together() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    let value = |i: usize| format!("{i:04}").repeat(25_000);
    for i in 0..40 {
        check(&mut client, &format!("HSET h f{i} {}", value(i)), ":1");
    }
    check_cold(&mut client, "HSTRLEN h f7", ":100000");
    check_cold(&mut client, "HEXISTS h f8", ":1");
    check_cold(&mut client, "HTTL h FIELDS 1 f9", "*1 :-1");
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let got = run(
        &mut client,
        &command(&["HMGET", "h"], 40, |i| vec![format!("f{i}")]),
    );
    let expected: String = (0..40)
        .map(|i| format!("$100000\r\n{}\r\n", value(i)))
        .collect();
    assert!(got == format!("*40\r\n{expected}"), "{}", &got[..80]);
}

/// The value of a field of INFO.
fn info(client: &mut Connection, section: &str, field: &str) -> i64 {
    let text = client.command(&["INFO", section]);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = line.unwrap_or_else(|| panic!("no {field} in {text}"));
    value.parse().expect("a number")
}

#[test]
fn hits_and_changes_count_as_in_redis() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(&mut client, "HSET h a 1 b 2 c 3", ":3");
    check(&mut client, "SADD s a b", ":2");
    for (command, hits, misses) in [
        ("HMGET h a b c", 1, 0),
        ("HGETEX h FIELDS 2 a b", 1, 0),
        ("HGETEX h EX 100 FIELDS 2 a b", 1, 0),
        ("HGETEX none FIELDS 1 a", 0, 1),
        ("HGETDEL h FIELDS 2 a b", 0, 0),
        ("HSETEX h FIELDS 1 a 1", 0, 0),
        ("HEXPIRE h 100 FIELDS 1 a", 0, 0),
        ("SPOP s", 0, 0),
        ("SINTERSTORE to s none", 1, 1),
        ("SUNIONSTORE to s s", 2, 0),
        ("SMISMEMBER s a b c", 1, 0),
    ] {
        check(&mut client, "CONFIG RESETSTAT", "+OK");
        let words: Vec<&str> = command.split(' ').collect();
        client.command(&words);
        let counted = ["keyspace_hits", "keyspace_misses"];
        let counted = counted.map(|field| info(&mut client, "stats", field));
        assert_eq!(counted, [hits, misses], "{command}");
    }
    for (command, changes) in [
        ("HSET new a 1 b 2", 2),
        ("HSET new a 1", 1),
        ("HEXPIRE new 100 FIELDS 1 a", 1),
        ("SADD new-set 1 2", 2),
        ("SADD new-set 1", 0),
        ("HDEL new a", 1),
    ] {
        let before = info(&mut client, "persistence", "rdb_changes_since_last_save");
        let words: Vec<&str> = command.split(' ').collect();
        client.command(&words);
        let after = info(&mut client, "persistence", "rdb_changes_since_last_save");
        assert_eq!(after - before, changes, "{command}");
    }
}

#[test]
fn hscan_returns_some_long_values_at_a_time() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    let value = "v".repeat(100_000);
    for i in 0..60 {
        check(&mut client, &format!("HSET h f{i} {value}"), ":1");
    }
    let (mut cursor, mut fields) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        let reply = client.command(&["HSCAN", "h", &cursor, "COUNT", "1000"]);
        assert!(reply.len() < 3_000_000, "{} bytes at once", reply.len());
        let mut lines = reply.split("\r\n");
        cursor = lines.nth(2).expect("a cursor").to_owned();
        fields.extend(
            lines
                .filter(|line| line.starts_with('f'))
                .map(str::to_owned),
        );
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(fields.len(), 60);
}

#[test]
fn what_is_put_by_one_command_is_written_once() {
    const KEYS: i64 = 500;
    // The log is handed out in pieces of so many bytes, to each worker.
    const PIECES_BYTES: i64 = 2 * 64 * 1024;
    let server = Server::start(&["--io-threads", "1"]);
    let mut client = server.connect();
    let fields = |name: &str, i: usize| format!("{name}:{i:08} {i:016}");
    type Element<'e> = &'e dyn Fn(usize) -> String;
    let cases: [(&str, &str, Element<'_>); 4] = [
        ("HSET", "h", &|i| fields("some", i)),
        ("HSET", "h", &|i| fields("more", i)),
        ("SADD", "s", &|i| format!("member:{i:016}")),
        ("ZADD", "z", &|i| format!("{i} member:{i:016}")),
    ];
    for (command, key, element) in cases {
        let elements: Vec<String> = (0..20).map(element).collect();
        let before = info(&mut client, "tiers", "appended_bytes");
        for number in 0..KEYS {
            let text = format!("{command} {key}{number} {}", elements.join(" "));
            client.command(&text.split(' ').collect::<Vec<_>>());
        }
        let appended = info(&mut client, "tiers", "appended_bytes") - before;
        // Of the last record of a key, which is the only one but for those that were there before.
        let usage = client.command(&["MEMORY", "USAGE", &format!("{key}0")]);
        let usage: i64 = usage[1..].trim_end().parse().expect("a number");
        assert!(
            appended <= KEYS * usage + PIECES_BYTES,
            "{appended} bytes for {KEYS} of {usage}: {command}"
        );
    }
}
