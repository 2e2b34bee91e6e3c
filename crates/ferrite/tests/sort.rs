//! SORT and SORT_RO: the same commands on Ferrite, with everything in memory and on the disk, and on a real `redis-server`.

mod common;

use common::redis::Redis;
use common::{Connection, Server, Stream, check, encode};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// What is sorted, and what that is sorted by. Each `w_` and each field `f` is another, so that nothing is left to chance.
const DATA: &str = "RPUSH numbers 5 3 -2 10 3 1.5 0 7 22 1e2
    RPUSH words pear apple fig kiwi date plum lime
    SADD integers 4 17 9 -3 8
    SADD names pear apple fig kiwi date
    ZADD scores 3 apple 1 pear 2 fig 9 date -1 kiwi
    ZADD digits 3 30 1 4 2 -5
    RPUSH mixed 3 x 1
    RPUSH odd 3 0x10 1e3 -inf
    SET string x
    HSET hash f v
    XADD stream 1-0 f v
    MSET w_5 70 w_3 31 w_-2 2.5 w_10 1 w_1.5 4 w_0 -4 w_7 9 w_22 6 w_1e2 7
    MSET w_pear 10 w_apple 9 w_fig -3 w_kiwi 5 w_date 77 w_plum 0.5 w_lime 1e1
    MSET w_4 1 w_17 9 w_9 5 w_-3 3 w_8 2 w_30 8 w_-5 4
    MSET v_5 1 v_3 1 v_pear 4 v_apple -1 v_4 6 v_30 2 v_x word
    HSET h_5 f 8 g five
    HSET h_3 f 2
    HSET h_10 f -3 g ten
    HSET h_pear f 4 g green
    HSET h_fig f 5
    HSET h_4 f 1 g four";

/// Calls `each` with every combination of one of each of `parts`.
fn combine(parts: &[&[&str]], command: &str, each: &mut dyn FnMut(&str)) {
    match parts.split_first() {
        None => each(command.trim_end()),
        Some((first, rest)) => {
            for part in *first {
                combine(rest, &format!("{command}{part} "), each);
            }
        }
    }
}

fn commands() -> Vec<String> {
    let keys = [
        "numbers", "words", "integers", "names", "scores", "digits", "mixed", "odd", "missing",
        "string", "hash", "stream",
    ];
    let by = [
        "",
        "BY w_*",
        "BY v_*",
        "BY h_*->f",
        "BY nosort",
        "BY none_*",
    ];
    let limits = [
        "",
        "LIMIT 0 3",
        "LIMIT 2 100",
        "LIMIT -1 2",
        "LIMIT 4 -1",
        "LIMIT 100 1",
        "LIMIT 1 0",
    ];
    let gets = [
        "",
        "GET #",
        "GET w_* GET # GET h_*->g",
        "GET fixed GET words GET h_*",
    ];
    let mut all = Vec::new();
    for name in ["SORT", "SORT_RO"] {
        let targets: &[&str] = match name {
            "SORT" => &["", "STORE out"],
            _ => &[""],
        };
        let parts: [&[&str]; 7] = [
            &keys,
            &by,
            &limits,
            &gets,
            &["", "DESC"],
            &["", "ALPHA"],
            targets,
        ];
        combine(&parts, &format!("{name} "), &mut |command| {
            // Where several are equal by bytes, or a set is left as it is, their order is up to the server.
            let ties = ["BY v_*", "BY h_*->f", "BY none_*"];
            let has_ties = ties.iter().any(|tie| command.contains(tie));
            let is_set = command.contains("integers") || command.contains("names");
            let stays = command.contains("nosort") && !command.contains("STORE");
            if !(has_ties && command.contains("ALPHA") || is_set && stays) {
                all.push(command.to_owned());
            }
        });
    }
    all
}

fn words(command: &str) -> Vec<&str> {
    command.split_whitespace().collect()
}

fn fill<S: Stream>(client: &mut Connection<S>) {
    for command in DATA.lines() {
        let reply = client.command(&words(command));
        assert!(!reply.starts_with('-'), "{command}: {reply}");
    }
}

/// What is replied to `commands`, and what is stored under `out` after each.
fn replies<S: Stream>(client: &mut Connection<S>, commands: &[String]) -> Vec<String> {
    let mut replies = Vec::new();
    // So many that those on the way fit into the sockets' buffers.
    for some in commands.chunks(64) {
        for command in some {
            client.send(encode(&words(command)));
            client.send(encode(&["LRANGE", "out", "0", "-1"]));
        }
        for _ in some {
            let reply = client.reply();
            replies.push(reply + &client.reply());
        }
    }
    replies
}

#[test]
fn elements_are_sorted_as_in_redis() {
    let Some(redis) = Redis::start("redis-server") else {
        return;
    };
    let mut oracle = redis.connect();
    fill(&mut oracle);
    let commands = commands();
    let expected = replies(&mut oracle, &commands);
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    fill(&mut client);
    let ours = replies(&mut client, &commands);
    for ((command, ours), theirs) in commands.iter().zip(&ours).zip(&expected) {
        assert_eq!(ours, theirs, "{command}");
    }
    // Some of them with all that they need on the disk.
    for (command, expected) in commands.iter().zip(&expected).step_by(199) {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        let reply = client.command(&words(command));
        let out = client.command(&["LRANGE", "out", "0", "-1"]);
        assert!(expected.starts_with(&reply), "{command}: {reply}");
        if reply.starts_with(':') {
            assert_eq!(reply + &out, *expected, "{command}");
        }
    }
}

#[test]
fn mistakes_are_told_as_in_redis() {
    let Some(redis) = Redis::start("redis-server") else {
        return;
    };
    let server = Server::start(&[]);
    let (mut oracle, mut client) = (redis.connect(), server.connect());
    fill(&mut oracle);
    fill(&mut client);
    let commands = "SORT
        SORT numbers BY
        SORT numbers LIMIT 1
        SORT numbers LIMIT x 1
        SORT numbers LIMIT 1 x FOO
        SORT numbers LIMIT 1 9223372036854775807
        SORT numbers LIMIT 9223372036854775807 9223372036854775807
        SORT numbers LIMIT -9223372036854775808 -9223372036854775808
        SORT numbers GET
        SORT numbers STORE
        SORT numbers FOO
        SORT string FOO
        SORT_RO numbers STORE out
        SORT_RO numbers STORE
        SORT mixed BY h_* STORE numbers
        SORT numbers BY v_x* STORE numbers
        SORT numbers STORE a STORE b BY store STORE c
        EXISTS a b c store
        SORT c DESC STORE c
        SORT missing STORE c
        EXISTS c
        SORT numbers STORE string
        TYPE string
        MULTI
        SORT numbers BY w_* GET w_* GET #
        SET w_5 -100
        SORT_RO numbers BY w_* LIMIT 0 1 GET w_*
        SORT numbers BY w_* STORE out
        LRANGE out 0 -1
        EXEC
        COMMAND GETKEYS SORT numbers BY x LIMIT 0 STORE GET STORE STORE a STORE b
        COMMAND GETKEYS SORT_RO numbers BY x";
    for command in commands.lines() {
        let words = words(command);
        assert_eq!(client.command(&words), oracle.command(&words), "{command}");
    }
}

/// Many elements, whose values are on the disk and are read many at a time, while others write.
#[test]
fn very_many_are_sorted_by_what_is_on_the_disk() {
    const COUNT: usize = 12_000;
    let server = Server::start(&DEBUG);
    let (mut client, mut other) = (server.connect(), server.connect());
    for first in (0..COUNT).step_by(1000) {
        let (mut push, mut set) = (
            vec!["RPUSH".to_owned(), "l".to_owned()],
            vec!["MSET".to_owned()],
        );
        for i in first..first + 1000 {
            push.push(i.to_string());
            // Each element has a weight of its own, from the last one up.
            set.extend([format!("w{i}"), (COUNT - i).to_string()]);
        }
        for command in [push, set] {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            assert!(!client.command(&words).starts_with('-'));
        }
    }
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    client.send(encode(&words("SORT l BY w* GET w* STORE out")));
    for i in 0..200 {
        check(&mut other, &format!("APPEND other{i} x"), ":1");
    }
    assert_eq!(client.reply(), format!(":{COUNT}\r\n"));
    let list = client.command(&["LRANGE", "out", "0", "-1"]);
    let numbers: Vec<usize> = list
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.parse().ok())
        .collect();
    assert!(numbers.iter().copied().eq(1..=COUNT), "{list}");
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(
        &mut client,
        "SORT l BY w* DESC LIMIT 0 2 GET w* GET #",
        "*4 $5 12000 $1 0 $5 11999 $1 1",
    );
}
