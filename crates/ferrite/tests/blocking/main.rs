//! Commands that wait for keys: the same scripts of several clients on Ferrite and on a real `redis-server`, and what only more
//! than one worker can get wrong.

#[path = "../common/mod.rs"]
mod common;
mod many;
mod streams;

use std::collections::BTreeMap;

use common::redis::Redis;
use common::{Connection, Server, Stream, check, encode, eventually};

const WORKERS: [&str; 2] = ["--io-threads", "4"];

/// How many clients wait.
fn blocked<S: Stream>(control: &mut Connection<S>) -> usize {
    let info = control.command(&["INFO", "clients"]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("blocked_clients:"));
    line.expect("blocked_clients").trim().parse().unwrap()
}

/// Plays a script and returns what the clients were told. A line is one of
/// `a: COMMAND`, which client `a` sends, and is answered;
/// `a> COMMAND`, which waits from then on;
/// `a| COMMAND`, which is sent, and nothing more;
/// `a<`, which reads what `a` is told next;
/// `a!`, which closes the connection of `a`;
/// `a3`, which has it speak RESP3.
/// `@a` in a command stands for the number of client `a`.
fn play<S: Stream>(connect: impl Fn() -> Connection<S>, script: &str) -> Vec<String> {
    let mut control = connect();
    wait_for_blocked(&mut control, 0);
    control.command(&["FLUSHALL"]);
    let mut clients: BTreeMap<&str, Connection<S>> = BTreeMap::new();
    let mut ids: BTreeMap<&str, String> = BTreeMap::new();
    let mut told = Vec::new();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (name, rest) = line.split_at(1);
        let (action, command) = rest.split_at(1);
        if !clients.contains_key(name) {
            let mut client = connect();
            let id = client.command(&["CLIENT", "ID"]);
            ids.insert(name, id[1..].trim().to_owned());
            clients.insert(name, client);
        }
        let words: Vec<String> = command
            .split_whitespace()
            .map(|word| match word.strip_prefix('@') {
                Some(name) => ids[name].clone(),
                None => word.to_owned(),
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let client = clients.get_mut(name).unwrap();
        match action {
            ":" => {
                let reply = client.command(&words);
                told.push(format!("{line}  {}", reply.trim_end().replace("\r\n", " ")));
            }
            ">" => {
                let before = blocked(&mut control);
                client.send(encode(&words));
                eventually(|| (blocked(&mut control) == before + 1).then_some(()));
            }
            "|" => client.send(encode(&words)),
            "3" => drop(client.command(&["HELLO", "3"])),
            "<" => {
                let reply = client.reply();
                told.push(format!("{line}  {}", reply.trim_end().replace("\r\n", " ")));
            }
            "!" => {
                let before = blocked(&mut control);
                clients.remove(name);
                eventually(|| (blocked(&mut control) + 1 == before).then_some(()));
            }
            _ => panic!("{line}"),
        }
    }
    told
}

/// Plays scripts, separated by empty lines, on Ferrite and on a `redis-server`.
fn compare(scripts: &str) {
    compare_with("redis-server", scripts);
}

fn compare_with(program: &str, scripts: &str) {
    let Some(redis) = Redis::start(program) else {
        return;
    };
    let server = Server::start(&WORKERS);
    for script in scripts.split("\n\n") {
        let theirs = play(|| redis.connect(), script);
        let ours = play(|| server.connect(), script);
        assert_eq!(ours, theirs, "{script}");
    }
}

#[test]
fn clients_are_served_as_in_redis() {
    compare(
        "a> BLPOP k 0
         b: RPUSH k x
         b: LLEN k
         a<

         a> BLPOP k 0
         b> BRPOP k 0
         c> BLPOP k 0
         d: RPUSH k 1 2
         d: LLEN k
         d: RPUSH k 3 4
         d: LRANGE k 0 -1
         a<
         b<
         c<

         a> BLPOP one two three 0
         b> BLPOP two one 0
         c: RPUSH two x
         c: RPUSH one y
         c: EXISTS one two
         a<
         b<

         a> BLPOP k k k 0
         b: RPUSH k 1 2
         a<
         b: LRANGE k 0 -1

         a> BLMPOP 0 2 j k LEFT COUNT 2
         b> BLMPOP 0 1 k RIGHT COUNT 10
         c: RPUSH k 1 2 3 4 5
         a<
         b<
         c: EXISTS k

         a: RPUSH k 1 2 3
         a: BLPOP j k 0
         a: BRPOP k 0
         a: BLMPOP 0 1 k LEFT COUNT 5
         a: EXISTS k",
    );
}

#[test]
fn whatever_makes_a_list_wakes_those_who_wait_for_it() {
    compare(
        "a> BLPOP k 0
         b: RPUSH other x y
         b: RENAME other k
         b: LRANGE k 0 -1
         a<

         a> BLPOP k 0
         b: RPUSH other x y
         b: COPY other k
         b: LRANGE k 0 -1
         b: LRANGE other 0 -1
         a<

         a> BLPOP k 0
         b: SELECT 1
         b: RPUSH k x y
         b: MOVE k 0
         b: SELECT 0
         b: LRANGE k 0 -1
         a<

         a> BLPOP k 0
         b: SELECT 1
         b: RPUSH k x y
         b: SWAPDB 0 1
         a<
         b: LRANGE k 0 -1
         b: SELECT 0
         b: LRANGE k 0 -1

         a: SELECT 1
         a> BLPOP k 0
         b: SWAPDB 0 1
         b: RPUSH k x
         b: SELECT 1
         b: RPUSH k y
         a<

         a> BLPOP k 0
         b: FLUSHALL
         b: RPUSH k x
         a<
         b> BLPOP k 0
         a: FLUSHDB
         a: RPUSH k y
         b<

         a> BLPOP k 0
         b: RPUSH other 3 1 2
         b: SORT other STORE k
         a<
         b: LRANGE k 0 -1

         a> BLPOP k 0
         b: RPUSH other x
         b: LMOVE other k LEFT RIGHT
         a<
         b: EXISTS k other

         a> BLPOP k 0
         b: SET k x
         b: DEL k
         b: SADD k x
         b: DEL k
         b: LPUSHX k x
         b: RPUSH k y
         a<",
    );
}

#[test]
fn transactions_serve_at_their_end() {
    compare(
        "a> BLPOP k 0
         b: MULTI
         b: RPUSH k x
         b: LLEN k
         b: RPUSH k y
         b: LPUSH k z
         b: EXEC
         a<
         b: LRANGE k 0 -1

         a> BLPOP k 0
         b: MULTI
         b: RPUSH k x
         b: DEL k
         b: EXEC
         b: RPUSH k y
         a<

         a> BLPOP one two 0
         b> BLPOP two one 0
         c: MULTI
         c: RPUSH two 2
         c: RPUSH one 1
         c: EXEC
         a<
         b<

         a> BLPOP k 0
         b: MULTI
         b: SELECT 3
         b: RPUSH k x
         b: SELECT 0
         b: RPUSH other y
         b: RENAME other k
         b: EXEC
         a<

         a: MULTI
         a: BLPOP k 0
         a: BRPOP k 0
         a: BLMPOP 0 1 k LEFT
         a: BLMOVE k j LEFT LEFT 0
         a: BRPOPLPUSH k j 0
         a: RPUSH k x
         a: BLPOP k 0
         a: EXEC",
    );
}

#[test]
fn moves_wait_and_wake_others() {
    compare(
        "a> BLMOVE s t LEFT RIGHT 0
         b: RPUSH s x y
         a<
         b: LRANGE s 0 -1
         b: LRANGE t 0 -1

         a> BLMOVE s t LEFT RIGHT 0
         b> BLPOP t 0
         c: RPUSH s x
         a<
         b<
         c: EXISTS s t

         a> BLMOVE s t LEFT RIGHT 0
         b> BRPOPLPUSH t s 0
         c> BLPOP s 0
         d: RPUSH s x
         a<
         b<
         c<
         d: EXISTS s t

         a> BLMOVE s s LEFT RIGHT 0
         b> BLMOVE s s LEFT RIGHT 0
         c: RPUSH s x y z
         a<
         b<
         c: LRANGE s 0 -1

         a> BLMOVE s t LEFT RIGHT 0
         b> BLPOP s 0
         c: SET t string
         c: RPUSH s x
         a<
         b<
         c: EXISTS s

         a: SET t string
         a: RPUSH s x
         a: BLMOVE s t LEFT RIGHT 0
         a: BRPOPLPUSH t s 0
         a: BLMOVE s t UP DOWN x
         a: BLPOP t 0
         a: LRANGE s 0 -1",
    );
}

#[test]
fn times_are_over_and_clients_are_unblocked() {
    compare(
        "a: BLPOP k 0.01
         a: BLMOVE k j LEFT LEFT 0.01
         a: BLMPOP 0.01 1 k LEFT
         a3
         a: BLPOP k 1e-2
         a: BLMOVE k j LEFT LEFT 0.01
         a: BLPOP k -1
         a: BLPOP k -0.5
         a: BLPOP k x
         a: BLPOP k nan
         a: BLPOP k -inf
         a: BLPOP k 0x1p-7
         a: BLMPOP x 0 k LEFT
         a: BLMPOP x 1 k LEFT
         a: BLMPOP 0 0 k LEFT
         a: BLMPOP 0 1 k UP
         a: BLMPOP 0 1 k LEFT COUNT 0
         a: BLMPOP 0 3 k LEFT

         a> BLPOP k 0
         b: CLIENT UNBLOCK @a
         a<
         a> BLPOP k 0
         b: CLIENT UNBLOCK @a TIMEOUT
         a<
         a> BLPOP k 0
         b: CLIENT UNBLOCK @a error
         a<
         b: CLIENT UNBLOCK @a error
         b: CLIENT UNBLOCK @b
         b: CLIENT UNBLOCK 999999
         b: CLIENT UNBLOCK x
         b: CLIENT UNBLOCK @a soon
         b: RPUSH k x
         a: BLPOP k 0

         a> BLPOP k 0
         b> BLPOP k 0
         c: CLIENT UNBLOCK @a
         a<
         c: RPUSH k x
         c: LLEN k
         b<",
    );
}

#[test]
fn what_is_sent_meanwhile_is_run_afterwards() {
    compare(
        "a> BLPOP k 0
         a| SET s 1
         a| GET s
         a| BLPOP k 0
         b: GET s
         b: RPUSH k x
         a<
         a<
         a<
         b: GET s
         b: RPUSH k y
         a<

         a> BLPOP k 0
         b> BLPOP k 0
         a!
         c: RPUSH k x
         c: LLEN k
         b<",
    );
}

/// Waits until so many clients wait.
fn wait_for_blocked<S: Stream>(control: &mut Connection<S>, count: usize) {
    eventually(|| (blocked(control) == count).then_some(()));
}

/// The server reads no more from it while it waits: what it has sent is more than is read ahead.
#[test]
fn who_has_left_takes_nothing_though_not_all_it_sent_was_read() {
    let server = Server::start(&WORKERS);
    let mut control = server.connect();
    let mut client = server.connect();
    let behind = encode(&["PING"]).repeat(6_000);
    client.send([encode(&["BLPOP", "k", "0"]), behind].concat());
    wait_for_blocked(&mut control, 1);
    drop(client);
    wait_for_blocked(&mut control, 0);
    check(&mut control, "RPUSH k x", ":1");
    check(&mut control, "LRANGE k 0 -1", "*1 $1 x");
}

#[test]
fn what_was_served_survives_with_the_push() {
    let directives = [&WORKERS[..], &["--appendfsync", "always"]].concat();
    let server = Server::start(&directives);
    let (mut waiting, mut client) = (server.connect(), server.connect());
    waiting.send(encode(&["BLMOVE", "s", "t", "LEFT", "RIGHT", "0"]));
    wait_for_blocked(&mut client, 1);
    check(&mut client, "RPUSH s x y", ":2");
    assert_eq!(waiting.reply(), "$1\r\nx\r\n");
    waiting.send(encode(&["BLPOP", "k", "0"]));
    wait_for_blocked(&mut client, 1);
    check(&mut client, "RPUSH k z", ":1");
    assert_eq!(waiting.reply(), "*2\r\n$1\r\nk\r\n$1\r\nz\r\n");
    let server = Server::start_in(server.kill(), &directives);
    let mut client = server.connect();
    check(&mut client, "LRANGE s 0 -1", "*1 $1 y");
    check(&mut client, "LRANGE t 0 -1", "*1 $1 x");
    check(&mut client, "EXISTS k", ":0");
}

/// A list that comes to its name from the disk is read before anybody is served of it.
#[test]
fn lists_on_the_disk_are_served() {
    let directives = [&WORKERS[..], &["--enable-debug-command", "yes"]].concat();
    let server = Server::start(&directives);
    let (mut one, mut two, mut client) = (server.connect(), server.connect(), server.connect());
    let filler = "f".repeat(100);
    let mut words = vec!["RPUSH", "other"];
    words.extend(std::iter::repeat_n(filler.as_str(), 5000));
    words.push("last");
    client.command(&words);
    one.send(encode(&["BRPOP", "k", "0"]));
    wait_for_blocked(&mut client, 1);
    two.send(encode(&["BLMPOP", "0", "1", "k", "RIGHT", "COUNT", "2"]));
    wait_for_blocked(&mut client, 2);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "RENAME other k", "+OK");
    assert_eq!(one.reply(), "*2\r\n$1\r\nk\r\n$4\r\nlast\r\n");
    let bulk = format!("$100\r\n{filler}\r\n");
    assert_eq!(two.reply(), format!("*2\r\n$1\r\nk\r\n*2\r\n{bulk}{bulk}"));
    check(&mut client, "LLEN k", ":4998");
    one.send(encode(&["BLPOP", "l", "0"]));
    wait_for_blocked(&mut client, 1);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "MULTI", "+OK");
    check(&mut client, "RENAME k l", "+QUEUED");
    check(&mut client, "EXEC", "*1 +OK");
    assert_eq!(one.reply(), format!("*2\r\n$1\r\nl\r\n{bulk}"));
}

#[test]
fn pauses_hold_pushes_back_and_not_timeouts() {
    let server = Server::start(&WORKERS);
    let (mut waiting, mut short) = (server.connect(), server.connect());
    let (mut pusher, mut control) = (server.connect(), server.connect());
    waiting.send(encode(&["BLPOP", "k", "0"]));
    wait_for_blocked(&mut control, 1);
    short.send(encode(&["BLPOP", "k", "0.2"]));
    // That it waits may not be seen before its time is over, but that it has begun to.
    eventually(|| {
        let stats = control.command(&["INFO", "commandstats"]);
        stats.contains("cmdstat_blpop:calls=2,").then_some(())
    });
    check(&mut control, "CLIENT PAUSE 100000 WRITE", "+OK");
    pusher.send(encode(&["RPUSH", "k", "x"]));
    assert_eq!(short.reply(), "*-1\r\n");
    assert_eq!(blocked(&mut control), 1);
    check(&mut control, "CLIENT UNPAUSE", "+OK");
    assert_eq!(waiting.reply(), "*2\r\n$1\r\nk\r\n$1\r\nx\r\n");
    assert_eq!(pusher.reply(), ":1\r\n");
}
