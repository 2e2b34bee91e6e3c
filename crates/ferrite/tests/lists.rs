//! Lists: what is not compared with a real server elsewhere: encodings, long lists past the limits, all of it from the disk,
//! restarts, and what those who watch are told.

mod common;

use common::{Connection, Server, check};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// `command` with `prefix` and the numbers of `range`.
fn push(client: &mut Connection, command: &str, prefix: &str, range: std::ops::Range<usize>) {
    for from in range.clone().step_by(500) {
        let mut words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        words.extend((from..range.end.min(from + 500)).map(|i| format!("{prefix}{i}")));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        client.command(&words);
    }
}

/// The bulk strings of the reply to `command`.
fn elements(client: &mut Connection, command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split(' ').collect();
    let reply = client.command(&words);
    let lines = reply.split("\r\n").skip(1);
    let bulks = lines.filter(|line| !line.is_empty() && !line.starts_with(['$', '*']));
    bulks.map(str::to_owned).collect()
}

fn check_encoding(client: &mut Connection, key: &str, expected: &str) {
    let shown = format!("${} {expected}", expected.len());
    check(client, &format!("OBJECT ENCODING {key}"), &shown);
}

#[test]
fn encodings_follow_the_limit() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    // A listpack has 7 bytes, and an element of 100 takes 103 of it: 79 of them fit in 8 KiB, the last one counted without
    // what stands beside it.
    let element = "x".repeat(100);
    for count in 1..=80 {
        check(
            &mut client,
            &format!("RPUSH l {element}"),
            &format!(":{count}"),
        );
        check_encoding(
            &mut client,
            "l",
            if count < 80 { "listpack" } else { "quicklist" },
        );
    }
    // Half as long it is a listpack again.
    check(&mut client, "LTRIM l 0 44", "+OK");
    check_encoding(&mut client, "l", "quicklist");
    check(&mut client, "LTRIM l 0 34", "+OK");
    check_encoding(&mut client, "l", "listpack");

    let long = "y".repeat(9000);
    check(&mut client, "RPUSH one a", ":1");
    check(&mut client, &format!("LSET one 0 {long}"), "+OK");
    check_encoding(&mut client, "one", "quicklist");
    check(&mut client, "LSET one 0 a", "+OK");
    check_encoding(&mut client, "one", "listpack");
    check(&mut client, &format!("LPUSH new {long}"), ":1");
    check_encoding(&mut client, "new", "quicklist");
    check(&mut client, "COPY new copied", ":1");
    check_encoding(&mut client, "copied", "quicklist");

    check(&mut client, "CONFIG SET list-max-listpack-size 4", "+OK");
    check(&mut client, "RPUSH few 1 2 3 4", ":4");
    check_encoding(&mut client, "few", "listpack");
    check(&mut client, "LINSERT few BEFORE 3 x", ":5");
    check_encoding(&mut client, "few", "quicklist");
    check(&mut client, "RPOP few 2", "*2 $1 4 $1 3");
    check_encoding(&mut client, "few", "quicklist");
    check(&mut client, "LPOP few", "$1 1");
    check_encoding(&mut client, "few", "listpack");
    check(&mut client, "RPUSH pair a b c d", ":4");
    check(&mut client, "LMOVE pair pair LEFT RIGHT", "$1 a");
    check_encoding(&mut client, "pair", "listpack");
}

#[test]
fn long_lists_are_pushed_and_popped_at_both_ends() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    push(&mut client, "RPUSH l", "r", 0..20_000);
    push(&mut client, "LPUSH l", "l", 0..20_000);
    check(&mut client, "LLEN l", ":40000");
    for (index, expected) in [
        ("0", "$6 l19999"),
        ("19999", "$2 l0"),
        ("20000", "$2 r0"),
        ("-1", "$6 r19999"),
        ("40000", "$-1"),
        ("-40001", "$-1"),
    ] {
        check(&mut client, &format!("LINDEX l {index}"), expected);
    }
    let middle = elements(&mut client, "LRANGE l 19998 20001");
    assert_eq!(middle, ["l1", "l0", "r0", "r1"]);
    let popped = elements(&mut client, "RPOP l 9000");
    assert_eq!(popped.len(), 9000);
    assert_eq!(popped[0], "r19999");
    assert_eq!(popped[8999], "r11000");
    let popped = elements(&mut client, "LPOP l 9000");
    assert_eq!(
        (&popped[0], &popped[8999]),
        (&"l19999".to_owned(), &"l11000".to_owned())
    );
    check(&mut client, "LTRIM l 10999 -10999", "+OK");
    let left = elements(&mut client, "LRANGE l 0 -1");
    assert_eq!(left, ["l0", "r0", "r1"]);
    check(&mut client, "LTRIM l 5 1", "+OK");
    check(&mut client, "EXISTS l", ":0");
}

#[test]
fn equal_elements_are_removed_from_either_end() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    for is_cold in [false, true] {
        // Runs of equal elements, more of them than are removed at once, and a run over many pages.
        for _ in 0..3 {
            push(&mut client, "RPUSH l", "n", 0..3000);
            push(&mut client, "RPUSH l x", "m", 0..2000);
        }
        for _ in 0..20 {
            let same = ["x"; 500].join(" ");
            push(&mut client, &format!("RPUSH l {same}"), "k", 0..100);
        }
        let cool = |client: &mut Connection| {
            if is_cold {
                check(client, "DEBUG FORCE-COLD", "+OK");
            }
        };
        let all = elements(&mut client, "LRANGE l 0 -1");
        let x = all.iter().filter(|element| *element == "x").count();
        assert_eq!(x, 3 * 4 + 20 * 500);
        let mut len = all.len();
        for (count, removed) in [(5, 5), (-600, 600), (0, x - 605)] {
            cool(&mut client);
            let shown = format!(":{removed}");
            check(&mut client, &format!("LREM l {count} x"), &shown);
            len -= removed;
            cool(&mut client);
            check(&mut client, "LLEN l", &format!(":{len}"));
        }
        let expected: Vec<_> = all.into_iter().filter(|element| element != "x").collect();
        assert_eq!(elements(&mut client, "LRANGE l 0 -1"), expected);
        cool(&mut client);
        check(&mut client, "LREM l 0 k99", ":20");
        check(&mut client, "LREM l 0 none", ":0");
        check(&mut client, "DEL l", ":1");
    }
}

#[test]
fn every_command_finds_its_elements_on_the_disk() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    push(&mut client, "RPUSH a", "m", 0..30_000);
    push(&mut client, "RPUSH b", "n", 0..3000);
    for (command, expected) in [
        ("LLEN a", ":30000"),
        ("LINDEX a 15000", "$6 m15000"),
        ("LINDEX a -1", "$6 m29999"),
        ("LSET a 15000 changed", "+OK"),
        ("LINSERT a AFTER m29000 new", ":30001"),
        ("LINSERT a BEFORE none new", ":-1"),
        ("LPOS a new", ":29001"),
        ("LPOS a new RANK -1", ":29001"),
        ("LPOS a none COUNT 0", "*0"),
        ("LPOS a m20000 MAXLEN 20000", "$-1"),
        ("LPOS a m20000 MAXLEN 20001", ":20000"),
        ("LREM a 1 new", ":1"),
        ("LPUSH a first", ":30001"),
        ("RPUSH a last", ":30002"),
        ("LPOP a", "$5 first"),
        ("RPOP a 2", "*2 $4 last $6 m29999"),
        ("LMOVE a b RIGHT LEFT", "$6 m29998"),
        ("RPOPLPUSH b a", "$5 n2999"),
        ("LMOVE a a LEFT RIGHT", "$5 n2999"),
        ("LMPOP 2 none b LEFT COUNT 2", "*2 $1 b *2 $6 m29998 $2 n0"),
        ("LRANGE a 29997 -1", "*2 $6 m29997 $5 n2999"),
        ("LTRIM a 100 200", "+OK"),
        ("LRANGE a 0 1", "*2 $4 m100 $4 m101"),
        ("RENAME a c", "+OK"),
        ("COPY c d", ":1"),
        ("LRANGE d -1 -1", "*1 $4 m200"),
        ("TYPE d", "+list"),
        ("SCAN 0 TYPE list COUNT 100 MATCH d", "*2 $1 0 *1 $1 d"),
    ] {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        check(&mut client, command, expected);
    }
}

/// What a search has looked at is let go of: it takes no more memory than a window of it.
#[test]
fn searches_go_through_lists_larger_than_memory() {
    let server = Server::start(&[&DEBUG[..], &["--maxmemory", "36mb"]].concat());
    let mut client = server.connect();
    let filler = "f".repeat(400);
    let same: Vec<&str> = [filler.as_str(); 250].to_vec();
    for _ in 0..500 {
        client.command(&[&["RPUSH", "l"], &same[..]].concat());
    }
    check(&mut client, "RPUSH l needle", ":125001");
    for (command, expected) in [
        ("LPOS l needle", ":125000"),
        ("LPOS l nothing RANK -1", "$-1"),
        ("LINSERT l BEFORE needle x", ":125002"),
        ("LREM l 1 needle", ":1"),
        ("LREM l 0 nothing", ":0"),
    ] {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        check(&mut client, command, expected);
    }
    check(&mut client, "MULTI", "+OK");
    check(&mut client, "LREM l 0 x", "+QUEUED");
    check(&mut client, "EXEC", "*1 :1");
}

#[test]
fn restarts_find_lists() {
    let directives = [&DEBUG[..], &["--appendfsync", "always"]].concat();
    let mut server = Server::start(&directives);
    let mut client = server.connect();
    push(&mut client, "RPUSH big", "m", 0..3000);
    check(&mut client, "RPUSH small 3 1 2", ":3");
    check(&mut client, "SAVE", "+OK");
    push(&mut client, "LPUSH later", "m", 0..1000);
    let long = "x".repeat(200_000);
    check(&mut client, &format!("LSET later 500 {long}"), "+OK");
    check(&mut client, "LINSERT big AFTER m7 m7", ":3001");
    check(&mut client, "LREM big -1 m7", ":1");
    check(&mut client, "LMOVE big later LEFT RIGHT", "$2 m0");
    check(&mut client, "LTRIM big 10 -11", "+OK");
    assert_eq!(elements(&mut client, "LPOP later 100").len(), 100);
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
        check(&mut client, "LLEN big", ":2979");
        check(&mut client, "LLEN later", ":901");
        check(&mut client, "LRANGE small 0 -1", "*3 $1 3 $1 1 $1 2");
    }
}

#[test]
fn watches_see_what_changes_a_list() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    check(&mut client, "RPUSH l a b c", ":3");
    check(&mut client, "RPUSH t a", ":1");
    for (change, is_seen) in [
        ("LPUSHX none a", false),
        ("LPOP l 0", false),
        ("LREM l 0 x", false),
        ("LINSERT l BEFORE x y", false),
        ("LRANGE l 0 -1", false),
        ("LTRIM l 0 -1", true),
        ("LSET l 0 a", true),
        ("LMOVE l l LEFT LEFT", true),
        ("LMOVE t l LEFT LEFT", true),
        ("LMPOP 2 t l RIGHT", true),
        ("RPUSH l x", true),
        ("LREM l 0 x", true),
        ("COPY l u", false),
        ("LPOP l 10", true),
    ] {
        check(&mut client, "WATCH l", "+OK");
        let words: Vec<&str> = change.split(' ').collect();
        other.command(&words);
        check(&mut client, "MULTI", "+OK");
        let expected = if is_seen { "*-1" } else { "*0" };
        let exec = client.command(&["EXEC"]);
        assert_eq!(exec.trim_end(), expected, "{change}");
    }
}

#[test]
fn an_element_that_is_too_long_leaves_no_list_behind() {
    let server = Server::start(&["--maxmemory", "64mb"]);
    let mut client = server.connect();
    let long = "x".repeat((16 << 20) + 1);
    for command in [&["RPUSH", "l", "a", &long][..], &["LPUSH", "l", &long]] {
        let refused = client.command(command);
        assert!(refused.starts_with("-ERR "), "{refused}");
        check(&mut client, "EXISTS l", ":0");
    }
}
