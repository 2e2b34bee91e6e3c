//! Large values: from the disk, in transactions, over a restart; and what stands for more than there is memory for.

use std::sync::Arc;

use crate::common::{Connection, Server, check, encode, eventually};
use crate::payload;
use crate::servers::Running;
use crate::wire::{self, Address, Reply};

const DURABLE: [&str; 4] = ["--enable-debug-command", "yes", "--appendfsync", "always"];

/// Commands that make a value of each type, of tens of thousands of elements, under its name.
fn fill(client: &mut Connection) {
    let long = "x".repeat(20_000);
    for part in 0..20 {
        let numbers = || (0..1000).map(move |at| (part * 1000 + at).to_string());
        let mut commands: Vec<Vec<String>> = ["RPUSH list", "SADD set", "ZADD zset", "HSET hash"]
            .map(|command| command.split(' ').map(str::to_owned).collect())
            .into();
        for number in numbers() {
            commands[0].push(format!("element {number}"));
            commands[1].push(format!("member {number}"));
            commands[2].extend([number.clone(), format!("member {number}")]);
            commands[3].extend([format!("field {number}"), format!("value {number}")]);
        }
        commands[0].push(long.clone());
        for command in commands {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            client.command(&words);
        }
    }
    for id in 1..=3000 {
        client.command(&["XADD", "stream", &id.to_string(), "field", "some value"]);
    }
    client.command(&["XGROUP", "CREATE", "stream", "group", "0"]);
    let read = "XREADGROUP GROUP group me COUNT 2000 STREAMS stream >";
    client.command(&read.split(' ').collect::<Vec<_>>());
    client.command(&["SETRANGE", "string", "3000000", "end"]);
}

const KEYS: [&str; 6] = ["list", "set", "zset", "hash", "stream", "string"];

#[test]
fn large_values_are_restored_in_a_transaction_and_after_a_restart() {
    let server = Server::start(&DURABLE);
    let mut client = server.connect();
    fill(&mut client);
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let mut raw = wire::Connection::open(&Address::Tcp(server.port)).unwrap();
    assert_eq!(raw.call(&["MULTI"]).unwrap(), Reply::Simple(b"OK".to_vec()));
    for key in KEYS {
        raw.call(&["DUMP", key]).unwrap();
    }
    let payloads = raw.call(&["EXEC"]).unwrap();
    raw.call(&["MULTI"]).unwrap();
    for (key, payload) in KEYS.iter().zip(payloads.elements().unwrap()) {
        let key = format!("copy of {key}");
        let args: [&[u8]; 5] = [
            b"RESTORE",
            key.as_bytes(),
            b"4000000000000",
            payload.bytes().unwrap(),
            b"ABSTTL",
        ];
        assert_eq!(raw.call(&args).unwrap(), Reply::Simple(b"QUEUED".to_vec()));
    }
    let done = raw.call(&["EXEC"]).unwrap();
    assert!(
        done.elements()
            .unwrap()
            .iter()
            .all(|reply| !reply.is_error()),
        "{done:?}"
    );
    compare(&mut client);
    let dir = server.kill();
    let server = Server::start_in(Arc::clone(&dir), &DURABLE);
    compare(&mut server.connect());
}

#[test]
fn fields_of_a_restored_hash_expire_by_themselves() {
    for restarts in [false, true] {
        let mut server = Server::start(&DURABLE);
        let mut client = server.connect();
        check(&mut client, "DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
        check(&mut client, "HSET hash a 1 b 2", ":2");
        check(&mut client, "HPEXPIRE hash 3000 FIELDS 2 a b", "*2 :1 :1");
        let mut raw = wire::Connection::open(&Address::Tcp(server.port)).unwrap();
        let payload = raw.call(&["DUMP", "hash"]).unwrap();
        check(&mut client, "DEL hash", ":1");
        // On a machine that has taken 3 seconds for this there is nothing to restore any more.
        let args: [&[u8]; 4] = [b"RESTORE", b"copy", b"0", payload.bytes().unwrap()];
        assert_eq!(raw.call(&args).unwrap(), Reply::Simple(b"OK".to_vec()));
        if restarts {
            let dir = server.kill();
            server = Server::start_in(dir, &DURABLE);
            client = server.connect();
        } else {
            check(&mut client, "DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
        }
        eventually(|| (client.command(&["DBSIZE"]) == ":0\r\n").then_some(()));
    }
}

/// The copies are what the originals are, and expire.
fn compare(client: &mut Connection) {
    for key in KEYS {
        let copy = format!("copy of {key}");
        check_same(client, &["PERSIST", &copy], &["EXISTS", key]);
        check_same(
            client,
            &["DEBUG", "DIGEST-VALUE", key],
            &["DEBUG", "DIGEST-VALUE", &copy],
        );
        check_same(
            client,
            &["OBJECT", "ENCODING", key],
            &["OBJECT", "ENCODING", &copy],
        );
        client.command(&["PEXPIREAT", &copy, "4000000000000"]);
    }
    check_same(
        client,
        &["XPENDING", "stream", "group"],
        &["XPENDING", "copy of stream", "group"],
    );
    check_same(
        client,
        &["ZRANK", "zset", "member 7777"],
        &["ZRANK", "copy of zset", "member 7777"],
    );
    check_same(
        client,
        &["LINDEX", "list", "-7777"],
        &["LINDEX", "copy of list", "-7777"],
    );
    check_same(
        client,
        &["HGET", "hash", "field 7777"],
        &["HGET", "copy of hash", "field 7777"],
    );
}

fn check_same(client: &mut Connection, one: &[&str], other: &[&str]) {
    let (reply, expected) = (client.command(one), client.command(other));
    assert_eq!(reply, expected, "{one:?} and {other:?}");
}

#[test]
fn who_waits_for_a_list_is_served_by_its_restoration() {
    let server = Server::start(&[]);
    let (mut waiting, mut client) = (server.connect(), server.connect());
    waiting.send(encode(&["BLPOP", "list", "0"]));
    eventually(|| {
        let clients = client.command(&["INFO", "clients"]);
        clients.contains("blocked_clients:1\r\n").then_some(())
    });
    let list = payload::of(b"\x01\x02\x01a\x01b", 10);
    let mut raw = wire::Connection::open(&Address::Tcp(server.port)).unwrap();
    let args: [&[u8]; 4] = [b"RESTORE", b"list", b"0", &list];
    assert_eq!(raw.call(&args).unwrap(), Reply::Simple(b"OK".to_vec()));
    assert_eq!(waiting.reply(), "*2\r\n$4\r\nlist\r\n$1\r\na\r\n");
    check(&mut client, "LRANGE list 0 -1", "*1 $1 b");
}

#[test]
fn what_stands_for_more_than_there_is_memory_for_is_refused() {
    let maxmemory = 64 << 20;
    let mut server = Running::ferrite(&["--maxmemory", "64mb"]);
    // A byte, and copies of it: of three bytes each makes 264.
    let copies = 400_000;
    let mut compressed = b"\x00x".to_vec();
    compressed.extend_from_slice(&b"\xe0\xff\x00".repeat(copies));
    let length = |len: usize| [b"\x80".as_slice(), &(len as u32).to_be_bytes()].concat();
    let bomb = [
        b"\xc3".to_vec(),
        length(compressed.len()),
        length(1 + 264 * copies),
        compressed,
    ]
    .concat();
    let string = [b"\x00".as_slice(), &bomb].concat();
    let list = [b"\x01\x01".as_slice(), &bomb].concat();
    let hash = [b"\x04\x01\x01a".as_slice(), &bomb].concat();
    for value in [string, list, hash] {
        let reply = server.restore("bomb", &payload::of(&value, 10));
        assert!(reply.is_error(), "{reply:?}");
    }
    server.must("SET after 1");
    server.check_peak_memory(maxmemory);
}
