//! Streams: what is not compared with a real server elsewhere: IDs from the clock, restarts, large streams from the disk.

mod common;

use common::{Connection, Server, check};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// XADD of entries 1 to `count`, with a field of `len` bytes.
fn fill(client: &mut Connection, key: &str, count: usize, len: usize) {
    let value = "v".repeat(len);
    for id in 1..=count {
        let id = id.to_string();
        client.command(&["XADD", key, &id, "field", &value]);
    }
}

/// The reply to `command` in one line.
fn reply(client: &mut Connection, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    client.command(&words).trim_end().replace("\r\n", " ")
}

/// The IDs among the strings of the reply to `command`.
fn ids(client: &mut Connection, command: &str) -> Vec<String> {
    let reply = reply(client, command);
    let is_id = |word: &&str| word.contains('-') && !word.starts_with(['$', '*', ':']);
    let words = reply.split(' ').filter(is_id);
    words.map(str::to_owned).collect()
}

fn milliseconds(id: &str) -> u64 {
    id.split('-').next().unwrap().parse().unwrap()
}

#[test]
fn ids_follow_the_clock_and_never_go_back() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let first = ids(&mut client, "XADD s * a b").remove(0);
    let second = ids(&mut client, "XADD s * a b").remove(0);
    assert!(
        milliseconds(&first) > 1_700_000_000_000 && milliseconds(&second) >= milliseconds(&first)
    );
    check(
        &mut client,
        "XADD s 9999999999999-5 a b",
        "$15 9999999999999-5",
    );
    check(&mut client, "XADD s * a b", "$15 9999999999999-6");
    check(
        &mut client,
        "XADD s 9999999999999-* a b",
        "$15 9999999999999-7",
    );
    check(&mut client, "XTRIM s MAXLEN 0", ":5");
    check(&mut client, "XADD s * a b", "$15 9999999999999-8");
    check(&mut client, "XDEL s 9999999999999-8", ":1");
    check(&mut client, "XADD s * a b", "$15 9999999999999-9");
    let top = "-ERR The ID specified in XADD is equal or smaller than the target stream top item";
    check(&mut client, "XADD s 9999999999999-9 a b", top);
    check(
        &mut client,
        "XADD t 5-18446744073709551615 a b",
        "$22 5-18446744073709551615",
    );
    check(&mut client, "XADD t 5-* a b", top);
    check(&mut client, "XADD t 5 a b", top);
    let greatest = "18446744073709551615-18446744073709551615";
    check(
        &mut client,
        &format!("XADD u {greatest} a b"),
        &format!("$41 {greatest}"),
    );
    let exhausted = "-ERR The stream has exhausted the last possible ID, unable to add more items";
    check(&mut client, "XADD u * a b", exhausted);
    check(&mut client, "OBJECT ENCODING t", "$6 stream");
    check(&mut client, "TYPE t", "+stream");
    check(
        &mut client,
        "SCAN 0 TYPE stream COUNT 100 MATCH t",
        "*2 $1 0 *1 $1 t",
    );
}

#[test]
fn a_stream_survives_restarts_with_what_it_remembers() {
    let mut server = Server::start(&["--appendfsync", "always"]);
    for round in 0..2 {
        let mut client = server.connect();
        if round == 0 {
            fill(&mut client, "s", 300, 100);
            check(&mut client, "XTRIM s MAXLEN 250", ":50");
            check(&mut client, "XDEL s 300 299 60", ":3");
            check(&mut client, "XADD empty 7 a b", "$3 7-0");
            check(&mut client, "XTRIM empty MAXLEN 0", ":1");
        }
        check(&mut client, "XLEN s", ":247");
        check(&mut client, "XLEN empty", ":0");
        check(&mut client, "TYPE empty", "+stream");
        assert!(reply(&mut client, "XADD s 300 a b").starts_with("-ERR The ID"));
        assert!(reply(&mut client, "XADD empty 7 a b").starts_with("-ERR The ID"));
        let shown = ids(&mut client, "XREVRANGE s + - COUNT 2");
        assert_eq!(shown, ["298-0", "297-0"]);
        let shown = ids(&mut client, "XRANGE s - + COUNT 10");
        assert_eq!((shown[0].as_str(), shown[9].as_str()), ("51-0", "61-0"));
        let dir = server.kill();
        server = Server::start_in(dir, &["--appendfsync", "always"]);
    }
}

#[test]
fn a_large_stream_is_read_and_trimmed_from_the_disk() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    fill(&mut client, "s", 3000, 200);
    // An element of its own pages.
    let long = "x".repeat(200_000);
    client.command(&["XADD", "s", "3001", "long", &long]);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let shown = ids(&mut client, "XRANGE s 1500 + COUNT 3");
    assert_eq!(shown, ["1500-0", "1501-0", "1502-0"]);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    assert_eq!(ids(&mut client, "XRANGE s - 3000").len(), 3000);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let shown = ids(&mut client, "XREAD COUNT 2 STREAMS s missing s 2998 0 3001");
    assert_eq!(shown, ["2999-0", "3000-0"]);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "XADD s MAXLEN = 2000 3002 a b", "$6 3002-0");
    check(&mut client, "XLEN s", ":2000");
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "XDEL s 2000 2000 1 2500 3002", ":3");
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "XTRIM s MINID 2500", ":1496");
    assert_eq!(
        ids(&mut client, "XREVRANGE s (3001-0 - COUNT 1"),
        ["3000-0"]
    );
    let found = client.command(&["XRANGE", "s", "3001", "3001"]);
    assert!(found.contains(&long));
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "XTRIM s MAXLEN 0", ":501");
    check(
        &mut client,
        "XADD s 3002 a b",
        "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
    );
    check(&mut client, "XADD s 3003 a b", "$6 3003-0");
}

#[test]
fn approximate_trimming_leaves_at_least_what_is_asked_for() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client, "s", 1000, 10);
    check(&mut client, "XTRIM s MAXLEN ~ 950", ":0");
    check(&mut client, "CONFIG SET stream-node-max-entries 20", "+OK");
    check(&mut client, "XTRIM s MAXLEN ~ 950", ":40");
    check(&mut client, "XTRIM s MAXLEN ~ 100 LIMIT 50", ":40");
    check(&mut client, "XTRIM s MAXLEN ~ 100 LIMIT 10", ":0");
    check(&mut client, "XTRIM s MINID ~ 200", ":100");
    check(&mut client, "CONFIG SET stream-node-max-entries 0", "+OK");
    check(&mut client, "CONFIG SET stream-node-max-bytes 0", "+OK");
    check(&mut client, "XTRIM s MAXLEN ~ 0 LIMIT 819", ":800");
    check(&mut client, "XTRIM s MAXLEN ~ 0", ":20");
    check(&mut client, "XLEN s", ":0");
}

#[test]
fn nothing_to_read_is_told_at_once() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(&mut client, "XADD s 1 a b", "$3 1-0");
    check(
        &mut client,
        "XREAD BLOCK 100 STREAMS s 0",
        "*1 *2 $1 s *1 *2 $3 1-0 *2 $1 a $1 b",
    );
    check(
        &mut client,
        "XREAD STREAMS s +",
        "*1 *2 $1 s *1 *2 $3 1-0 *2 $1 a $1 b",
    );
    check(&mut client, "XREAD STREAMS s $", "*-1");
    let wrong = [
        (
            "XREAD BLOCK x STREAMS s 0",
            "-ERR timeout is not an integer or out of range",
        ),
        ("XREAD BLOCK -1 STREAMS s 0", "-ERR timeout is negative"),
        (
            "XREAD BLOCK 9223372036854775807 STREAMS s 0",
            "-ERR timeout is out of range",
        ),
        (
            "XREAD STREAMS s t 0",
            "-ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified.",
        ),
    ];
    for (command, error) in wrong {
        check(&mut client, command, error);
    }
}

/// The reply to `command`, where numbers of 13 digits, which are times, are `T`.
fn timeless(client: &mut Connection, command: &str) -> String {
    let reply = reply(client, command);
    let words = reply.split(' ').map(|word| match word.strip_prefix(':') {
        Some(number) if number.len() == 13 => ":T",
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn consumers_tell_when_they_were_seen_and_when_they_got_something() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(&mut client, "XGROUP CREATE s g $ MKSTREAM", "+OK");
    // Who finds nothing is a consumer all the same, seen but not active.
    check(&mut client, "XREADGROUP GROUP g idle STREAMS s >", "*-1");
    check(&mut client, "XGROUP CREATECONSUMER s g idle", ":0");
    let idle = reply(&mut client, "XINFO CONSUMERS s g");
    assert!(
        idle.starts_with("*1 *8 $4 name $4 idle $7 pending :0 $4 idle :"),
        "{idle}"
    );
    assert!(idle.ends_with("$8 inactive :-1"), "{idle}");
    check(&mut client, "XADD s 1 a b", "$3 1-0");
    let read = "*1 *2 $1 s *1 *2 $3 1-0 *2 $1 a $1 b";
    check(&mut client, "XREADGROUP GROUP g busy STREAMS s >", read);
    let full = timeless(&mut client, "XINFO STREAM s FULL");
    let consumers = "$9 consumers *2 \
        *10 $4 name $4 busy $9 seen-time :T $11 active-time :T $9 pel-count :1 $7 pending *1 *3 $3 1-0 :T :1 \
        *10 $4 name $4 idle $9 seen-time :T $11 active-time :-1 $9 pel-count :0 $7 pending *0";
    assert!(full.ends_with(consumers), "{full}");
    let group = "$6 groups *1 *14 $4 name $1 g $17 last-delivered-id $3 1-0 $12 entries-read :1 $3 lag :0 \
        $9 pel-count :1 $7 pending *1 *4 $3 1-0 $4 busy :T :1";
    assert!(full.contains(group), "{full}");
    // A claim of nothing makes a consumer, too.
    check(&mut client, "XCLAIM s g other 1000000 1", "*0");
    check(&mut client, "XGROUP CREATECONSUMER s g other", ":0");
    check(
        &mut client,
        "XAUTOCLAIM s g another 1000000 0",
        "*3 $3 0-0 *0 *0",
    );
    check(&mut client, "XGROUP CREATECONSUMER s g another", ":0");
}

#[test]
fn the_lag_of_a_group_is_told_where_it_can_be() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let lag = |client: &mut Connection, read: &str, lag: &str| {
        let shown = reply(client, "XINFO GROUPS s");
        let expected = format!("$12 entries-read {read} $3 lag {lag}");
        assert!(shown.ends_with(&expected), "{shown}, not {expected}");
    };
    fill(&mut client, "s", 5, 1);
    check(&mut client, "XGROUP CREATE s g 0", "+OK");
    lag(&mut client, "$-1", ":5");
    assert_eq!(
        ids(&mut client, "XREADGROUP GROUP g c COUNT 2 STREAMS s >").len(),
        2
    );
    lag(&mut client, ":2", ":3");
    check(&mut client, "XDEL s 4", ":1");
    lag(&mut client, ":2", "$-1");
    assert_eq!(
        ids(&mut client, "XREADGROUP GROUP g c STREAMS s >").len(),
        2
    );
    lag(&mut client, ":5", ":0");
    check(&mut client, "XADD s 6 a b", "$3 6-0");
    lag(&mut client, ":5", ":1");
    check(&mut client, "XTRIM s MAXLEN 0", ":5");
    lag(&mut client, ":5", ":0");
    check(&mut client, "XGROUP SETID s g 3 ENTRIESREAD 3", "+OK");
    check(&mut client, "XADD s 7 a b", "$3 7-0");
    lag(&mut client, ":3", ":1");
}

#[test]
fn a_stream_that_is_named_twice_is_read_once_behind_the_other() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client, "s", 5, 1);
    check(&mut client, "XGROUP CREATE s g 0", "+OK");
    let read = ids(
        &mut client,
        "XREADGROUP GROUP g c COUNT 2 STREAMS s s s > > >",
    );
    assert_eq!(read, ["1-0", "2-0", "3-0", "4-0", "5-0"]);
    let read = ids(&mut client, "XREADGROUP GROUP g c COUNT 2 STREAMS s s 2 0");
    assert_eq!(read, ["3-0", "4-0", "1-0", "2-0"]);
}

#[test]
fn groups_survive_restarts_and_are_read_from_the_disk() {
    let directives = ["--appendfsync", "always", "--enable-debug-command", "yes"];
    let mut server = Server::start(&directives);
    let mut client = server.connect();
    fill(&mut client, "s", 2000, 50);
    check(&mut client, "XGROUP CREATE s g 0", "+OK");
    check(&mut client, "XGROUP CREATE s other 1000", "+OK");
    for (consumer, count) in [("a", "700"), ("b", "800")] {
        let read = [
            "XREADGROUP",
            "GROUP",
            "g",
            consumer,
            "COUNT",
            count,
            "STREAMS",
            "s",
            ">",
        ];
        client.command(&read);
    }
    for round in 0..3 {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        check(
            &mut client,
            "XPENDING s g",
            "*4 :1500 $3 1-0 $6 1500-0 *2 *2 $1 a $3 700 *2 $1 b $3 800",
        );
        assert_eq!(ids(&mut client, "XPENDING s g - + 2000").len(), 1500);
        assert_eq!(
            ids(&mut client, "XPENDING s g IDLE 0 (690 + 20 a").len(),
            10
        );
        assert_eq!(
            ids(&mut client, "XPENDING s g IDLE 100000000 - + 20").len(),
            0
        );
        if round == 0 {
            check(&mut client, "SAVE", "+OK");
        }
        let dir = server.kill();
        server = Server::start_in(dir, &directives);
        client = server.connect();
    }
    check(&mut client, "XDEL s 3 4", ":2");
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let history = reply(&mut client, "XREADGROUP GROUP g a COUNT 3 STREAMS s 2");
    assert!(
        history.ends_with("*2 $3 3-0 *-1 *2 $3 4-0 *-1 *2 $3 5-0 *2 $5 field $50 ")
            || history.contains("*2 $3 3-0 *-1 *2 $3 4-0 *-1 *2 $3 5-0 *2 $5 field"),
        "{history}"
    );
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "XACK s g 1 2 2 3000 701", ":3");
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let claimed = reply(&mut client, "XAUTOCLAIM s g b 0 0 COUNT 4 JUSTID");
    assert_eq!(claimed, "*3 $3 7-0 *2 $3 5-0 $3 6-0 *2 $3 3-0 $3 4-0");
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(
        &mut client,
        "XCLAIM s g new 0 7 8 9999 702 JUSTID",
        "*3 $3 7-0 $3 8-0 $5 702-0",
    );
    check(
        &mut client,
        "XPENDING s g",
        "*4 :1495 $3 5-0 $6 1500-0 *3 *2 $1 a $3 692 *2 $1 b $3 800 *2 $3 new $1 3",
    );
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "XGROUP DELCONSUMER s g b", ":800");
    // The others have what they had.
    check(&mut client, "XGROUP DELCONSUMER s g new", ":3");
    check(&mut client, "XPENDING s g - + 1 b", "*0");
    check(&mut client, "XGROUP DELCONSUMER s g a", ":692");
    check(&mut client, "XPENDING s g", "*4 :0 $-1 $-1 *-1");
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "XGROUP DESTROY s g", ":1");
    assert!(reply(&mut client, "XPENDING s g").starts_with("-NOGROUP"));
    // Nothing is left of it for the next group.
    check(&mut client, "XGROUP CREATE s next 1998", "+OK");
    check(&mut client, "XPENDING s next", "*4 :0 $-1 $-1 *-1");
    assert_eq!(
        ids(&mut client, "XREADGROUP GROUP next a STREAMS s >").len(),
        2
    );
    check(
        &mut client,
        "XPENDING s next",
        "*4 :2 $6 1999-0 $6 2000-0 *1 *2 $1 a $1 2",
    );
    check(&mut client, "XGROUP DESTROY s other", ":1");
    check(&mut client, "COPY s t", ":1");
    check(
        &mut client,
        "XPENDING t next",
        "*4 :2 $6 1999-0 $6 2000-0 *1 *2 $1 a $1 2",
    );
}
