//! Those who wait for entries of streams.

use std::collections::BTreeSet;
use std::thread::ScopedJoinHandle;

use crate::common::{Server, check, encode, eventually};
use crate::{WORKERS, compare, compare_with, play, wait_for_blocked};

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
