//! Commands that wait for keys: the same scripts of several clients on Ferrite and on a real `redis-server`, and what only more
//! than one worker can get wrong.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

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
fn readers_of_streams_wait_for_entries() {
    compare(
        "a> XREAD BLOCK 0 STREAMS s $
         b> XREAD COUNT 1 BLOCK 0 STREAMS t s 0 0
         c> XREAD BLOCK 0 STREAMS s 5
         d: XADD s 1-1 f v
         a<
         b<
         d: XADD s 5-1 g w
         c<

         d: XADD s 3-0 f v
         a> XREAD BLOCK 0 STREAMS s $
         b: XREAD BLOCK 0 STREAMS s 0
         d: XADD s 3-1 f v
         a<
         a> XREAD BLOCK 0 STREAMS s t $ $
         d: XADD t 2-0 f v
         a<
         a> XREAD BLOCK 0 STREAMS s $
         d: DEL s
         d: SET s x
         d: DEL s
         d: XGROUP CREATE s g 0 MKSTREAM
         d: XADD s 1-0 f v
         d: XADD s 4-0 f v
         a<

         a: XREAD BLOCK 1 STREAMS s $
         a: XREAD BLOCK 1 STREAMS s t 0 0
         a: XREAD COUNT 2 BLOCK x STREAMS s 0
         a: XREAD BLOCK -1 STREAMS s 0
         a: SET s x
         a: XREAD BLOCK 0 STREAMS t s 0 0
         a: XREAD BLOCK 0 STREAMS t s 0 $
         a3
         a: XREAD BLOCK 1 STREAMS t $
         a> XREAD BLOCK 0 STREAMS t $
         b: XADD t 1 f v
         a<

         a> XREAD BLOCK 0 STREAMS s $
         b: MULTI
         b: XREAD BLOCK 0 STREAMS s $
         b: XADD s 1 f v
         b: XADD s 2 f w
         b: XDEL s 1
         b: EXEC
         a<

         a> XREAD BLOCK 0 STREAMS s $
         b: XADD other 7 f v
         b: RENAME other s
         a<
         a> XREAD BLOCK 0 STREAMS s $
         b: SELECT 1
         b: XADD s 9 f v
         b: SWAPDB 0 1
         a<",
    );
}

#[test]
fn consumers_wait_for_entries() {
    compare(
        "x: XGROUP CREATE s g $ MKSTREAM
         a> XREADGROUP GROUP g one BLOCK 0 STREAMS s >
         b> XREADGROUP GROUP g two COUNT 1 BLOCK 0 STREAMS s >
         x: XADD s 1 f v
         a<
         x: XPENDING s g
         x: XADD s 2 f v
         b<
         x: XACK s g 1 2
         x: XINFO GROUPS s

         x: XGROUP CREATE s g $ MKSTREAM
         a> XREADGROUP GROUP g one COUNT 1 BLOCK 0 STREAMS s >
         b> XREADGROUP GROUP g two NOACK BLOCK 0 STREAMS s >
         c> XREAD BLOCK 0 STREAMS s 0
         x: MULTI
         x: XADD s 1 f v
         x: XADD s 2 f v
         x: XADD s 3 f v
         x: XPENDING s g
         x: EXEC
         a<
         b<
         c<
         x: XPENDING s g
         x: XINFO GROUPS s

         x: XGROUP CREATE s g $ MKSTREAM
         x: XADD s 1 f v
         a: XREADGROUP GROUP g one BLOCK 0 STREAMS s 0
         a: XREADGROUP GROUP g one BLOCK 0 STREAMS s >
         a: XREADGROUP GROUP g one BLOCK 1 STREAMS s >
         a: XREADGROUP GROUP h one BLOCK 1 STREAMS s >
         a: XREADGROUP GROUP g one BLOCK 1 STREAMS t >
         a: XREADGROUP GROUP g one BLOCK 0 STREAMS s 0
         a: MULTI
         a: XREADGROUP GROUP g one BLOCK 0 STREAMS s >
         a: EXEC
         a> XREADGROUP GROUP g one BLOCK 0 STREAMS s >
         x: XGROUP CREATE s h 0
         x: XGROUP SETID s h 1
         x: XGROUP DESTROY s h
         x: XDEL s 1
         x: XTRIM s MAXLEN 0
         x: XSETID s 8
         x: CLIENT UNBLOCK @a
         a<
         a> XREADGROUP GROUP g one BLOCK 0 STREAMS s >
         x: XADD s 8-1 f v
         a<",
    );
}

/// As in Redis from 7.2 on.
const STREAMS_THAT_GO: &str = "x: XGROUP CREATE s g $ MKSTREAM
     a> XREADGROUP GROUP g one BLOCK 0 STREAMS s >
     b> XREAD BLOCK 0 STREAMS s $
     c> XREADGROUP GROUP g two BLOCK 0 STREAMS s >
     x: DEL s
     a<
     c<
     x: XGROUP CREATE s g $ MKSTREAM
     a> XREADGROUP GROUP g one BLOCK 0 STREAMS s >
     x: SET s x
     a<
     x: DEL s
     x: XGROUP CREATE s g $ MKSTREAM
     x: XGROUP CREATE s h $
     a> XREADGROUP GROUP g one BLOCK 0 STREAMS s >
     c> XREADGROUP GROUP h two BLOCK 0 STREAMS s >
     x: XGROUP DESTROY s g
     a<
     x: RENAME s t
     c<
     x: RENAME t s
     a> XREADGROUP GROUP h two BLOCK 0 STREAMS s >
     x: MULTI
     x: DEL s
     x: XADD s 1 f v
     x: EXEC
     a<
     b<
     x: XGROUP CREATE s g $ MKSTREAM
     a> XREADGROUP GROUP g one BLOCK 0 STREAMS s >
     x: FLUSHALL
     a<
     x: XGROUP CREATE s g $ MKSTREAM
     a> XREADGROUP GROUP g one BLOCK 0 STREAMS s >
     x: SWAPDB 0 1
     a<
     x: FLUSHALL
     x: XGROUP CREATE s g $ MKSTREAM
     x: XGROUP CREATE t g $ MKSTREAM
     a> XREADGROUP GROUP g one BLOCK 0 STREAMS s t > >
     b> XREAD BLOCK 0 STREAMS s t $ $
     x: MULTI
     x: XADD t 2 f v
     x: XADD s 1 f v
     x: EXEC
     a<
     b<
     x: FLUSHALL
     a> XREAD BLOCK 0 STREAMS s $
     x: MULTI
     x: XADD s 1 f v
     x: XDEL s 1
     x: EXEC
     x: XADD s 7 f v
     a<";

#[test]
fn consumers_are_told_of_streams_that_go() {
    let server = Server::start(&WORKERS);
    let told = play(|| server.connect(), STREAMS_THAT_GO);
    let replies = told.iter().filter(|line| line.contains("<  "));
    let replies: Vec<&str> = replies
        .filter_map(|line| line.split("<  ").nth(1))
        .collect();
    let gone = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option";
    let other = "-NOGROUP No such key 's' or consumer group 'h' in XREADGROUP with GROUP option";
    let (one, two) = (
        "*2 $1 s *1 *2 $3 1-0 *2 $1 f $1 v",
        "*2 $1 t *1 *2 $3 2-0 *2 $1 f $1 v",
    );
    let (only, both) = (format!("*1 {one}"), format!("*2 {one} {two}"));
    let late = only.replace("1-0", "7-0");
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    let expected = [
        gone, gone, wrong_type, gone, other, other, &only, gone, gone, &both, &both, &late,
    ];
    assert_eq!(replies, expected);
    compare_with("valkey-server", STREAMS_THAT_GO);
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

#[test]
fn clients_of_several_workers_are_served_in_the_order_in_which_they_came() {
    let server = Server::start(&WORKERS);
    let mut control = server.connect();
    let mut clients: Vec<Connection> = (0..40).map(|_| server.connect()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(encode(&["BLPOP", "none", "k", "0"]));
            wait_for_blocked(&mut control, number + 1);
        }
        match round {
            0 => {
                let numbers: Vec<String> = (0..40).map(|number| number.to_string()).collect();
                let mut words = vec!["RPUSH", "k"];
                words.extend(numbers.iter().map(String::as_str));
                control.command(&words);
            }
            _ => {
                for number in 0..40 {
                    check(&mut control, &format!("RPUSH k {number}"), ":1");
                }
            }
        }
        check(&mut control, "EXISTS k", ":0");
        for (number, client) in clients.iter_mut().enumerate() {
            let shown = number.to_string();
            let expected = format!("*2\r\n$1\r\nk\r\n${}\r\n{shown}\r\n", shown.len());
            assert_eq!(client.reply(), expected, "round {round}");
        }
        wait_for_blocked(&mut control, 0);
    }
}

/// Many push and many wait, on keys that they share: each element is told to one of them, and none is left.
#[test]
fn every_element_is_delivered_once() {
    const CLIENTS: usize = 12;
    const PUSHERS: usize = 4;
    const EACH: usize = 1500;
    let server = Server::start(&WORKERS);
    let keys = ["a", "b", "c"];
    let taken: Vec<String> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = server.connect();
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    loop {
                        let reply = match number % 4 {
                            0 => client.command(&["BLPOP", "a", "b", "c", "0"]),
                            1 => client.command(&["BRPOP", "c", "a", "0"]),
                            2 => client.command(&["BLMOVE", "b", "moved", "LEFT", "RIGHT", "0"]),
                            _ => client.command(&["BLPOP", "moved", "c", "0.05"]),
                        };
                        let last = reply.trim_end().rsplit("\r\n").next().unwrap().to_owned();
                        match last.as_str() {
                            "end" => return taken,
                            "*-1" => {}
                            _ if number % 4 == 2 => {}
                            _ => taken.push(last),
                        }
                    }
                })
            })
            .collect();
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|number| {
                let mut client = server.connect();
                scope.spawn(move || {
                    for i in 0..EACH {
                        let element = format!("{number}-{i}");
                        let key = keys[(number + i) % keys.len()];
                        if i % 7 == 0 {
                            client.send(encode(&["MULTI"]));
                            client.send(encode(&["RPUSH", key, &element]));
                            client.send(encode(&["EXEC"]));
                            (0..3).for_each(|_| drop(client.reply()));
                        } else {
                            client.command(&["RPUSH", key, &element]);
                        }
                    }
                })
            })
            .collect();
        pushers
            .into_iter()
            .for_each(|pusher| pusher.join().unwrap());
        // All that has been pushed is taken before the ends are.
        let mut control = server.connect();
        eventually(|| {
            let left = control.command(&["EXISTS", "a", "b", "c", "moved"]);
            (left == ":0\r\n").then_some(())
        });
        // Each end is the end of the one that gets it, whichever that is.
        let mut taken = Vec::new();
        let mut left: Vec<_> = takers.into_iter().collect();
        while !left.is_empty() {
            for key in ["a", "b", "c", "moved"] {
                check_push(&mut control, key);
            }
            std::thread::yield_now();
            let (ended, others): (Vec<_>, Vec<_>) =
                left.into_iter().partition(ScopedJoinHandle::is_finished);
            for taker in ended {
                taken.extend(taker.join().unwrap());
            }
            left = others;
        }
        taken
    });
    assert_eq!(taken.len(), PUSHERS * EACH);
    let once: BTreeSet<_> = taken.iter().collect();
    assert_eq!(once.len(), taken.len(), "something was delivered twice");
}

/// Consumers of a group who wait, on all workers: each entry is delivered to one of them.
#[test]
fn every_entry_is_delivered_to_one_consumer() {
    const CONSUMERS: usize = 8;
    const PRODUCERS: usize = 3;
    const EACH: usize = 500;
    let server = Server::start(&WORKERS);
    let mut control = server.connect();
    check(&mut control, "XGROUP CREATE s g $ MKSTREAM", "+OK");
    let told: Vec<String> = std::thread::scope(|scope| {
        let consumers: Vec<_> = (0..CONSUMERS)
            .map(|number| {
                let (mut client, name) = (server.connect(), number.to_string());
                let read = [
                    "XREADGROUP",
                    "GROUP",
                    "g",
                    &name,
                    "COUNT",
                    "2",
                    "BLOCK",
                    "0",
                    "STREAMS",
                    "s",
                    ">",
                ]
                .map(str::to_owned);
                scope.spawn(move || {
                    let read = read.each_ref().map(String::as_str);
                    let mut told = Vec::new();
                    loop {
                        let reply = client.command(&read);
                        if reply.starts_with("-NOGROUP") {
                            return told;
                        }
                        let values = reply.split("\r\n").filter(|line| line.starts_with("value"));
                        told.extend(values.map(str::to_owned));
                    }
                })
            })
            .collect();
        for number in 0..PRODUCERS {
            let mut client = server.connect();
            scope.spawn(move || {
                for i in 0..EACH {
                    client.command(&["XADD", "s", "*", "f", &format!("value{number}-{i}")]);
                }
            });
        }
        // All has been delivered before the group goes.
        let all = format!("*4\r\n:{}\r\n", PRODUCERS * EACH);
        eventually(|| {
            let pending = control.command(&["XPENDING", "s", "g"]);
            pending.starts_with(&all).then_some(())
        });
        check(&mut control, "XGROUP DESTROY s g", ":1");
        let told = consumers.into_iter().map(ScopedJoinHandle::join);
        told.flat_map(Result::unwrap).collect()
    });
    assert_eq!(told.len(), PRODUCERS * EACH);
    let once: BTreeSet<_> = told.iter().collect();
    assert_eq!(once.len(), told.len(), "something was delivered twice");
}

fn check_push(control: &mut Connection, key: &str) {
    let reply = control.command(&["RPUSH", key, "end"]);
    assert!(reply.starts_with(':'), "{reply}");
}

#[test]
fn thousands_of_waiting_clients_cost_nothing() {
    let server = Server::start(&WORKERS);
    let mut control = server.connect();
    let mut clients = Vec::new();
    for _ in 0..500 {
        let mut client = server.connect();
        client.send(encode(&["BLPOP", "k", "1000"]));
        if clients.is_empty() {
            wait_for_blocked(&mut control, 1);
        }
        clients.push(client);
    }
    wait_for_blocked(&mut control, 500);
    // The last one is counted before its flag is set.
    eventually(|| {
        let list = control.command(&["CLIENT", "LIST"]);
        (list.matches(" flags=b ").count() == 500).then_some(())
    });
    let info = control.command(&["INFO", "clients"]);
    assert!(info.contains("total_blocking_keys:1\r\n"), "{info}");
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (before, started) = (ticks(), Instant::now());
    eventually(|| (started.elapsed() > Duration::from_millis(500)).then_some(()));
    let (used, elapsed) = (ticks() - before, started.elapsed());
    assert!(
        Duration::from_millis(10 * used) <= elapsed / 3,
        "{used} hundredths of a second of processor time in {elapsed:?}"
    );
    // Those who leave are forgotten.
    clients.truncate(100);
    wait_for_blocked(&mut control, 100);
    check(&mut control, "RPUSH k x", ":1");
    check(&mut control, "EXISTS k", ":0");
    server.signal("TERM");
    for client in &mut clients[1..] {
        assert_eq!(client.read_to_end(), "");
    }
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

/// An entry that is added to a stream on the disk goes to those who wait for it.
#[test]
fn streams_on_the_disk_are_read() {
    let directives = [&WORKERS[..], &["--enable-debug-command", "yes"]].concat();
    let server = Server::start(&directives);
    let (mut reader, mut consumer) = (server.connect(), server.connect());
    let mut client = server.connect();
    for id in 1..=500 {
        let (id, value) = (id.to_string(), "v".repeat(100));
        client.send(encode(&["XADD", "s", &id, "f", &value]));
    }
    (1..=500).for_each(|_| drop(client.reply()));
    check(&mut client, "XGROUP CREATE s g 499", "+OK");
    reader.send(encode(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]));
    let group = ["XREADGROUP", "GROUP", "g", "me"];
    consumer.send(encode(&[&group[..], &["STREAMS", "s", ">"]].concat()));
    assert!(consumer.reply().contains("500-0"));
    consumer.send(encode(
        &[&group[..], &["BLOCK", "0", "STREAMS", "s", ">"]].concat(),
    ));
    wait_for_blocked(&mut client, 2);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    check(&mut client, "XADD s 501 f v", "$5 501-0");
    let entry = "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$5\r\n501-0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
    assert_eq!(reader.reply(), entry);
    assert_eq!(consumer.reply(), entry);
    check(
        &mut client,
        "XPENDING s g",
        "*4 :2 $5 500-0 $5 501-0 *1 *2 $2 me $1 2",
    );
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
