//! Sets: what is not compared with a real server elsewhere: encodings, members picked at random, restarts, and all of it from
//! the disk.

mod common;

use std::collections::BTreeSet;

use common::{Connection, Server, check, check_peak_memory};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// The bulk strings of the reply to `command`, in its order.
fn members(client: &mut Connection, command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split(' ').collect();
    let reply = client.command(&words);
    let lines = reply.split("\r\n").skip(1);
    let bulks = lines.filter(|line| !line.is_empty() && !line.starts_with('$'));
    bulks.map(str::to_owned).collect()
}

/// SADD of `prefix` with the numbers below `count`.
fn fill(client: &mut Connection, key: &str, prefix: &str, count: usize) {
    for from in (0..count).step_by(500) {
        let mut words = vec!["SADD".to_owned(), key.to_owned()];
        words.extend((from..count.min(from + 500)).map(|i| format!("{prefix}{i}")));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        client.command(&words);
    }
}

#[test]
fn encodings_follow_the_limits_and_never_go_back() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let encoding = |client: &mut Connection, key: &str, expected: &str| {
        let shown = format!("${} {expected}", expected.len());
        check(client, &format!("OBJECT ENCODING {key}"), &shown);
    };
    fill(&mut client, "s", "", 500);
    for number in 500..512 {
        check(&mut client, &format!("SADD s {number}"), ":1");
    }
    encoding(&mut client, "s", "intset");
    check(&mut client, "SADD s 7", ":0");
    encoding(&mut client, "s", "intset");
    check(&mut client, "SADD s 512", ":1");
    encoding(&mut client, "s", "hashtable");
    check(&mut client, "SREM s 512", ":1");
    encoding(&mut client, "s", "hashtable");

    fill(&mut client, "few", "", 127);
    encoding(&mut client, "few", "intset");
    check(&mut client, "SADD few x", ":1");
    encoding(&mut client, "few", "listpack");
    check(&mut client, "SADD few y", ":1");
    encoding(&mut client, "few", "hashtable");

    check(&mut client, "SADD words a b c", ":3");
    encoding(&mut client, "words", "listpack");
    check(&mut client, &format!("SADD words {}", "x".repeat(65)), ":1");
    encoding(&mut client, "words", "hashtable");
    check(&mut client, "SADD mixed 1 a", ":2");
    check(&mut client, "SREM mixed a", ":1");
    encoding(&mut client, "mixed", "listpack");

    check(&mut client, "SINTERSTORE both words words", ":4");
    encoding(&mut client, "both", "hashtable");
    check(&mut client, "SUNIONSTORE both mixed mixed", ":1");
    encoding(&mut client, "both", "intset");
    check(&mut client, "CONFIG SET set-max-intset-entries 2", "+OK");
    check(&mut client, "SADD three 1 2 3", ":3");
    encoding(&mut client, "three", "listpack");
    check(&mut client, "SADD two 1 2", ":2");
    encoding(&mut client, "two", "intset");
    check(&mut client, "SADD two 3", ":1");
    encoding(&mut client, "two", "hashtable");
}

#[test]
fn what_is_picked_is_there_and_different() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    fill(&mut client, "s", "m", 1000);
    for is_cold in [false, true] {
        if is_cold {
            check(&mut client, "DEBUG FORCE-COLD", "+OK");
        }
        let all: BTreeSet<_> = members(&mut client, "SMEMBERS s").into_iter().collect();
        assert_eq!(all.len(), 1000);
        for count in [1, 10, 999, 1000, 2000] {
            let picked = members(&mut client, &format!("SRANDMEMBER s {count}"));
            let once: BTreeSet<_> = picked.iter().cloned().collect();
            assert_eq!(once.len(), picked.len(), "{count}");
            assert_eq!(once.len(), count.min(1000));
            assert!(once.is_subset(&all));
        }
        assert_eq!(members(&mut client, "SRANDMEMBER s -3000").len(), 3000);
    }
    let mut left: BTreeSet<_> = members(&mut client, "SMEMBERS s").into_iter().collect();
    for (count, stay) in [(1, 999), (300, 699), (620, 79), (70, 9), (9, 0)] {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        let popped = members(&mut client, &format!("SPOP s {count}"));
        assert_eq!(popped.len(), count);
        assert!(popped.iter().all(|member| left.remove(member)), "{count}");
        assert_eq!(left.len(), stay);
        let stays: BTreeSet<_> = members(&mut client, "SMEMBERS s").into_iter().collect();
        assert_eq!(stays, left);
    }
    check(&mut client, "EXISTS s", ":0");
}

#[test]
fn what_is_left_of_a_popped_set_keeps_its_expiry_and_encoding() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (prefix, encoding) in [("", "intset"), ("m", "listpack")] {
        fill(&mut client, "s", prefix, 100);
        check(&mut client, "EXPIRE s 1000", ":1");
        assert_eq!(members(&mut client, "SPOP s 95").len(), 95);
        let left: u64 = client.command(&["TTL", "s"])[1..].trim().parse().unwrap();
        assert!((900..=1000).contains(&left), "{left} s");
        let shown = format!("${} {encoding}", encoding.len());
        check(&mut client, "OBJECT ENCODING s", &shown);
        check(&mut client, "DEL s", ":1");
    }
}

/// Of so many picks from the disk only some are looked ahead; and the reply is refused when it outgrows the memory.
#[test]
fn more_picks_than_there_is_memory_for_are_refused() {
    let server = Server::start(&[&DEBUG[..], &["--maxmemory", "64mb"]].concat());
    let mut client = server.connect();
    fill(&mut client, "s", "m", 10_000);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    assert_eq!(members(&mut client, "SRANDMEMBER s -5000").len(), 5000);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let refused = client.command(&["SRANDMEMBER", "s", "-4000000000000000000"]);
    assert!(refused.starts_with("-OOM "), "{refused}");
}

#[test]
fn a_member_that_is_too_long_leaves_no_set_behind() {
    let server = Server::start(&["--maxmemory", "64mb"]);
    let mut client = server.connect();
    let long = "x".repeat((16 << 20) + 1);
    for command in [
        &["SADD", "s", "m", &long][..],
        &["HSET", "s", "f", "1", "g", &long],
        &["HSETNX", "s", "f", &long],
    ] {
        let refused = client.command(command);
        assert!(refused.starts_with("-ERR "), "{refused}");
        check(&mut client, "EXISTS s", ":0");
    }
}

#[test]
fn every_command_finds_its_members_on_the_disk() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    fill(&mut client, "a", "m", 4000);
    fill(&mut client, "b", "m", 3000);
    fill(&mut client, "c", "n", 100);
    for (command, expected) in [
        ("SISMEMBER a m3999", ":1"),
        ("SMISMEMBER a m1 n1 m2", "*3 :1 :0 :1"),
        ("SADD a m1 n1 n2", ":2"),
        ("SREM a n2 none", ":1"),
        ("SMOVE a c m3500", ":1"),
        ("SMOVE a c m3500", ":0"),
        ("SCARD a", ":4000"),
        ("SINTERCARD 2 a b", ":3000"),
        ("SINTERCARD 3 a b c", ":0"),
        ("SINTERCARD 2 a b LIMIT 17", ":17"),
        ("SINTER a c", "*1 $2 n1"),
        ("SDIFFSTORE d a b", ":1000"),
        ("SUNIONSTORE d a b c", ":4100"),
        ("SINTERSTORE a a b", ":3000"),
        ("SDIFFSTORE a none b", ":0"),
        ("EXISTS a", ":0"),
        ("TYPE d", "+set"),
        ("RENAME d e", "+OK"),
        ("COPY e f", ":1"),
        ("SCARD f", ":4100"),
    ] {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        check(&mut client, command, expected);
    }
    let (mut seen, mut cursor) = (BTreeSet::new(), "0".to_owned());
    loop {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        let mut step = members(&mut client, &format!("SSCAN f {cursor} COUNT 300"));
        // Behind the cursor stands the header of an array.
        cursor = step.remove(0);
        seen.extend(step.into_iter().skip(1));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 4100);
}

#[test]
fn restarts_find_sets() {
    let directives = [&DEBUG[..], &["--appendfsync", "always"]].concat();
    let mut server = Server::start(&directives);
    let mut client = server.connect();
    fill(&mut client, "big", "m", 3000);
    check(&mut client, "SADD numbers 3 1 2", ":3");
    check(&mut client, "SAVE", "+OK");
    fill(&mut client, "later", "m", 1000);
    check(&mut client, "SDIFFSTORE difference big later", ":2000");
    check(&mut client, "SREM big m7 m2999", ":2");
    assert_eq!(members(&mut client, "SPOP later 950").len(), 950);
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
        check(&mut client, "SCARD big", ":2998");
        check(&mut client, "SCARD later", ":50");
        check(&mut client, "SCARD difference", ":2000");
        check(&mut client, "OBJECT ENCODING numbers", "$6 intset");
    }
}

#[test]
fn watches_see_what_changes_a_set() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    check(&mut client, "SADD s a b", ":2");
    check(&mut client, "SADD t a", ":1");
    for (change, is_seen) in [
        ("SADD s a", false),
        ("SREM s none", false),
        ("SMOVE t s none", false),
        ("SMOVE t s a", false),
        ("SINTER s t", false),
        ("SADD s c", true),
        ("SPOP s", true),
        ("SINTERSTORE s s", true),
        ("COPY s u", false),
        ("DEL s", true),
    ] {
        check(&mut client, "WATCH s", "+OK");
        let words: Vec<&str> = change.split(' ').collect();
        other.command(&words);
        check(&mut client, "MULTI", "+OK");
        let expected = if is_seen { "*-1" } else { "*0" };
        check(&mut client, "EXEC", expected);
    }
}

#[test]
fn one_command_on_very_many_members_on_the_disk_takes_little_memory() {
    const MEMBERS: usize = 40_000;
    const GIVEN: usize = 10_000;
    let server = Server::start(&["--enable-debug-command", "yes", "--maxmemory", "64mb"]);
    let mut client = server.connect();
    let member = |i: usize| format!("{i}-{}", "m".repeat(300));
    let mut run = |words: &[&str], numbers: &mut dyn Iterator<Item = usize>| {
        let members: Vec<String> = numbers.map(member).collect();
        let all: Vec<&str> = words
            .iter()
            .copied()
            .chain(members.iter().map(String::as_str))
            .collect();
        client.command(&all)
    };
    for from in (0..MEMBERS).step_by(500) {
        assert_eq!(run(&["SADD", "s"], &mut (from..from + 500)), ":500\r\n");
    }
    // Spread over all pages, which take more memory together than a command may have. Half of them are new.
    let given = || (0..GIVEN).map(|i| i * 8);
    for (words, expected) in [
        (&["SADD", "s"][..], ":5000\r\n".to_owned()),
        (
            &["SMISMEMBER", "s"],
            format!("*{GIVEN}\r\n{}", ":1\r\n".repeat(GIVEN)),
        ),
        (&["SREM", "s"], format!(":{GIVEN}\r\n")),
        (
            &["SMISMEMBER", "s"],
            format!("*{GIVEN}\r\n{}", ":0\r\n".repeat(GIVEN)),
        ),
    ] {
        assert_eq!(run(&["DEBUG", "FORCE-COLD"], &mut (0..0)), "+OK\r\n");
        assert!(run(words, &mut given()) == expected, "{words:?}");
    }
    assert_eq!(run(&["SCARD", "s"], &mut (0..0)), ":35000\r\n");
    assert_eq!(run(&["DEBUG", "FORCE-COLD"], &mut (0..0)), "+OK\r\n");
    let popped = run(&["SPOP", "s", "10000"], &mut (0..0));
    let popped: BTreeSet<&str> = popped.lines().filter(|line| line.ends_with('m')).collect();
    assert_eq!(popped.len(), GIVEN);
    assert_eq!(run(&["SCARD", "s"], &mut (0..0)), ":25000\r\n");
    assert_eq!(run(&["DEBUG", "FORCE-COLD"], &mut (0..0)), "+OK\r\n");
    let limited = ["SINTERCARD", "2", "s", "s", "LIMIT", "3"];
    assert_eq!(run(&limited, &mut (0..0)), ":3\r\n");
    check_peak_memory(&server, 64 << 20);
}
