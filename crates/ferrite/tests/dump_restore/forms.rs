//! Values in forms that Ferrite does not write: of older servers, and of newer ones. The real servers read them too, where
//! they can.

use crate::payload::{self, listpack, string, ziplist};
use crate::servers::{Kind, Running};
use crate::wire::Reply;

/// A value, and what makes the same of commands.
struct Form {
    name: &'static str,
    value: Vec<u8>,
    made_by: &'static [&'static str],
    encoding: &'static str,
}

fn of(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[kind], parts.concat().as_slice()].concat()
}

const LIST: &[&str] = &["RPUSH made a 300 -1 bc"];
const SET: &[&str] = &["SADD made a 300 -1"];
const INTEGERS: &[&str] = &["SADD made -2 70000 5"];
const ZSET: &[&str] = &["ZADD made 2 b 1.5 a 1e3 c inf d -inf e"];
const HASH: &[&str] = &["HSET made a 1 b xy"];
const STREAM: &[&str] = &[
    "XADD made 5-1 f v g w",
    "XADD made 5-3 f x g y",
    "XADD made 6-0 h z",
];

fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    let mut add = |name, value, made_by, encoding| {
        forms.push(Form {
            name,
            value,
            made_by,
            encoding,
        });
    };
    // "ab" many times, compressed.
    let compressed = b"\xc3\x06\x18\x01ab\xe0\x0d\x01";
    add(
        "a compressed string",
        of(0, &[compressed]),
        &["SET made abababababababababababab"],
        "embstr",
    );
    let lp: &[&[u8]] = &[b"\x81a", b"\xc1\x2c", b"\xdf\xff", b"\x82bc"];
    let zl: &[&[u8]] = &[b"\x01a", b"\xc0\x2c\x01", b"\xfe\xff", b"\x02bc"];
    let loose = [
        string(b"a"),
        b"\xc1\x2c\x01".to_vec(),
        b"\xc0\xff".to_vec(),
        string(b"bc"),
    ]
    .concat();
    add("a linked list", of(1, &[b"\x04", &loose]), LIST, "listpack");
    add(
        "a list in a ziplist",
        of(10, &[&string(&ziplist(zl))]),
        LIST,
        "quicklist",
    );
    let halves = [string(&ziplist(&zl[..2])), string(&ziplist(&zl[2..]))];
    add(
        "a list of ziplists",
        of(14, &[b"\x02", &halves.concat()]),
        LIST,
        "quicklist",
    );
    add(
        "a list of one ziplist",
        of(14, &[b"\x01", &string(&ziplist(zl))]),
        LIST,
        "listpack",
    );
    let halves = [
        b"\x02".to_vec(),
        string(&listpack(&lp[..2])),
        b"\x02".to_vec(),
        string(&listpack(&lp[2..])),
    ];
    add(
        "a list of listpacks",
        of(18, &[b"\x02", &halves.concat()]),
        LIST,
        "quicklist",
    );
    add(
        "a list of one listpack",
        of(18, &[b"\x01\x02", &string(&listpack(lp))]),
        LIST,
        "listpack",
    );
    let empty = [
        b"\x02".to_vec(),
        string(&listpack(&[])),
        b"\x02".to_vec(),
        string(&listpack(lp)),
    ];
    add(
        "a list with an empty listpack",
        of(18, &[b"\x02", &empty.concat()]),
        LIST,
        "listpack",
    );
    let single = [
        b"\x01".to_vec(),
        string(b"a"),
        b"\x02".to_vec(),
        string(&listpack(&lp[1..])),
    ];
    add(
        "a list with an element of its own",
        of(18, &[b"\x02", &single.concat()]),
        LIST,
        "quicklist",
    );
    let loose = [string(b"a"), string(b"300"), string(b"-1")].concat();
    add("a set", of(2, &[b"\x03", &loose]), SET, "listpack");
    add(
        "a set in a listpack",
        of(20, &[&string(&listpack(&lp[..3]))]),
        SET,
        "listpack",
    );
    let of_integers = [string(b"5"), string(b"-2"), string(b"70000")].concat();
    add(
        "a set of integers",
        of(2, &[b"\x03", &of_integers]),
        INTEGERS,
        "intset",
    );
    let intset = b"\x04\0\0\0\x03\0\0\0\xfe\xff\xff\xff\x05\0\0\0\x70\x11\x01\0";
    add("an intset", of(11, &[&string(intset)]), INTEGERS, "intset");
    let text = b"\x05\x01b\x012\x01a\x031.5\x01c\x031e3\x01d\xfe\x01e\xff";
    add("a sorted set with text", of(3, &[text]), ZSET, "listpack");
    let mut binary = b"\x05".to_vec();
    for (member, score) in [
        (b"\x01d", f64::INFINITY),
        (b"\x01c", 1e3),
        (b"\x01b", 2.0),
        (b"\x01a", 1.5),
        (b"\x01e", f64::NEG_INFINITY),
    ] {
        binary.extend_from_slice(member);
        binary.extend_from_slice(&score.to_le_bytes());
    }
    add("a sorted set", of(5, &[&binary]), ZSET, "listpack");
    let zl: &[&[u8]] = &[
        b"\x01e",
        b"\x04-inf",
        b"\x01a",
        b"\x031.5",
        b"\x01b",
        b"\xf3",
        b"\x01c",
        b"\xc0\xe8\x03",
        b"\x01d",
        b"\x03inf",
    ];
    add(
        "a sorted set in a ziplist",
        of(12, &[&string(&ziplist(zl))]),
        ZSET,
        "listpack",
    );
    let lp: &[&[u8]] = &[
        b"\x81e",
        b"\x84-inf",
        b"\x81a",
        b"\x831.5",
        b"\x81b",
        b"\x02",
        b"\x81c",
        b"\xc3\xe8",
        b"\x81d",
        b"\x83inf",
    ];
    add(
        "a sorted set in a listpack",
        of(17, &[&string(&listpack(lp))]),
        ZSET,
        "listpack",
    );
    let loose = [
        string(b"a"),
        b"\xc0\x01".to_vec(),
        string(b"b"),
        string(b"xy"),
    ]
    .concat();
    add("a hash", of(4, &[b"\x02", &loose]), HASH, "listpack");
    add(
        "a hash in a zipmap",
        of(9, &[&string(b"\x02\x01a\x01\x001\x01b\x02\x03xy???\xff")]),
        HASH,
        "listpack",
    );
    let zl: &[&[u8]] = &[b"\x01a", b"\xf2", b"\x01b", b"\x02xy"];
    add(
        "a hash in a ziplist",
        of(13, &[&string(&ziplist(zl))]),
        HASH,
        "listpack",
    );
    let lp: &[&[u8]] = &[b"\x81a", b"\x01", b"\x81b", b"\x82xy"];
    add(
        "a hash in a listpack",
        of(16, &[&string(&listpack(lp))]),
        HASH,
        "listpack",
    );
    add(
        "a stream of Redis 5",
        of(15, &[&stream_entries(), b"\x03\x06\x00\x00"]),
        STREAM,
        "stream",
    );
    add(
        "a stream of Redis 7",
        of(
            19,
            &[&stream_entries(), b"\x03\x06\x00\x05\x01\x00\x00\x03\x00"],
        ),
        STREAM,
        "stream",
    );
    forms
}

/// A node with three entries and one that is deleted, behind how many nodes there are.
fn stream_entries() -> Vec<u8> {
    let entries: &[&[u8]] = &[
        b"\x03",
        b"\x01",
        b"\x02",
        b"\x81f",
        b"\x81g",
        b"\x00", // The fields f and g.
        b"\x02",
        b"\x00",
        b"\x00",
        b"\x81v",
        b"\x81w",
        b"\x05", // 5-1
        b"\x03",
        b"\x00",
        b"\x01",
        b"\x81-",
        b"\x81-",
        b"\x05", // 5-2, deleted
        b"\x02",
        b"\x00",
        b"\x02",
        b"\x81x",
        b"\x81y",
        b"\x05", // 5-3
        b"\x00",
        b"\x01",
        b"\xdf\xff",
        b"\x01",
        b"\x81h",
        b"\x81z",
        b"\x06", // 6-0
    ];
    let id = (5u128 << 64 | 1).to_be_bytes();
    [vec![1], string(&id), string(&listpack(entries))].concat()
}

#[test]
fn older_forms_are_read_as_real_servers_read_them() {
    for mut server in Running::all() {
        for form in forms() {
            // Redis 7.0 has no listpacks of sets.
            if server.kind == Kind::Redis && form.value[0] == 20 {
                continue;
            }
            server.must("FLUSHALL");
            for command in form.made_by {
                server.must(command);
            }
            let reply = server.restore("key", &payload::of(&form.value, 10));
            let context = format!("{:?}: {}", server.kind, form.name);
            assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{context}");
            assert_eq!(server.contents("key"), server.contents("made"), "{context}");
            if server.kind != Kind::Redis {
                assert_eq!(server.encoding("key"), form.encoding, "{context}");
            }
        }
    }
}

#[test]
fn groups_of_all_versions_are_read() {
    let pending = (5u128 << 64 | 1).to_be_bytes();
    let at_ms = 1_700_000_000_000u64.to_le_bytes();
    let active_ms = 1_600_000_000_000u64.to_le_bytes();
    // One group with one entry pending, and its consumer.
    let group = |entries_read: &[u8], active_ms: &[u8]| {
        [
            b"\x01\x01g\x05\x01",
            entries_read,
            b"\x01",
            &pending,
            &at_ms,
            b"\x03\x01\x04carl",
            &at_ms,
            active_ms,
            b"\x01",
            &pending,
        ]
        .concat()
    };
    let newer = b"\x03\x06\x00\x05\x01\x05\x02\x04";
    let values = [
        of(15, &[&stream_entries(), b"\x03\x06\x00", &group(b"", b"")]),
        of(19, &[&stream_entries(), newer, &group(b"\x01", b"")]),
        of(21, &[&stream_entries(), newer, &group(b"\x01", &active_ms)]),
    ];
    for mut server in Running::all() {
        for value in &values {
            if server.kind == Kind::Redis && value[0] == 21 {
                continue;
            }
            let reply = server.restore("key", &payload::of(value, 10));
            let context = format!("{:?}: type {}", server.kind, value[0]);
            assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{context}");
            let groups = server.must("XINFO GROUPS key");
            let group = groups.elements().unwrap()[0].elements().unwrap();
            let shown = format!("{:?}", &group[..10]);
            let expected = "[$name, $g, $consumers, :1, $pending, :1, $last-delivered-id, $5-1, $entries-read, :1]";
            assert_eq!(shown, expected, "{context}");
            let pending = server.must("XPENDING key g - + 10");
            let pending = pending.elements().unwrap()[0].elements().unwrap();
            assert_eq!(pending[0].bytes(), Some(&b"5-1"[..]), "{context}");
            assert_eq!(pending[1].bytes(), Some(&b"carl"[..]), "{context}");
            assert_eq!(pending[3], Reply::Integer(3), "{context}");
            if server.kind != Kind::Redis {
                let consumers = server.must("XINFO CONSUMERS key g");
                let fields = consumers.elements().unwrap()[0].elements().unwrap();
                let (Reply::Integer(idle), Reply::Integer(inactive)) = (&fields[5], &fields[7])
                else {
                    panic!("{context}: {fields:?}");
                };
                let earlier = if value[0] == 21 { 100_000_000_000 } else { 0 };
                // The clock may go on between the two.
                assert!(
                    (earlier..earlier + 10_000).contains(&(inactive - idle)),
                    "{context}: {fields:?}"
                );
            }
        }
    }
}

/// What HPEXPIRETIME says of the fields a, b and c.
fn expiries(server: &mut Running, key: &str) -> Reply {
    server.must(&format!("HPEXPIRETIME {key} FIELDS 3 a b c"))
}

const LATER: u64 = 4_000_000_000_000;

#[test]
fn fields_keep_when_they_expire() {
    let later = LATER.to_le_bytes();
    let long_later = [b"\x81".as_slice(), &LATER.to_be_bytes()].concat();
    let lp_later = [b"\xf4".as_slice(), &later].concat();
    let never = [0xff; 8];
    let triples = listpack(&[b"\x81a", b"\x81x", &lp_later, b"\x81b", b"\x81y", b"\x00"]);
    let forms = [
        (
            "metadata",
            of(24, &[&later, b"\x02\x01\x01a\x01x\x00\x01b\x01y"]),
            12,
        ),
        ("listpack", of(25, &[&later, &string(&triples)]), 12),
        (
            "older metadata",
            of(22, &[b"\x02", &long_later, b"\x01a\x01x\x00\x01b\x01y"]),
            12,
        ),
        ("older listpack", of(23, &[&string(&triples)]), 12),
        (
            "of Valkey",
            of(22, &[b"\x02\x01a\x01x", &later, b"\x01b\x01y", &never]),
            80,
        ),
    ];
    let mut server = Running::ferrite(&[]);
    let expected = Reply::Array([LATER as i64, -1, -2].map(Reply::Integer).into());
    for (name, value, version) in forms {
        let reply = server.restore(name, &payload::of(&value, version));
        assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{name}");
        assert_eq!(server.encoding(name), "listpackex", "{name}");
        server.must("DEBUG FORCE-COLD");
        for key in [name, "again"] {
            assert_eq!(
                server.call(&["HGET", key, "a"]).bytes(),
                Some(&b"x"[..]),
                "{name}"
            );
            assert_eq!(
                server.call(&["HGET", key, "b"]).bytes(),
                Some(&b"y"[..]),
                "{name}"
            );
            let reply = server.call(&["HPEXPIRETIME", key, "FIELDS", "3", "a", "b", "c"]);
            assert_eq!(reply, expected, "{name}");
            let payload = server.dump(name);
            assert_eq!(payload::open(&payload).1, 12);
            server.restore("again", &payload);
        }
    }
    // Fields that have expired are left out; where there are no others, the hash is.
    let past = of(
        24,
        &[
            &[1, 0, 0, 0, 0, 0, 0, 0],
            b"\x02\x01\x01a\x01x\x00\x01b\x01y",
        ],
    );
    server.restore("past", &payload::of(&past, 12));
    let expected = Reply::Array([-2, -1, -2].map(Reply::Integer).into());
    assert_eq!(expiries(&mut server, "past"), expected);
    assert_eq!(payload::open(&server.dump("past")).1, 10);
    let all_past = of(24, &[&[1, 0, 0, 0, 0, 0, 0, 0], b"\x01\x01\x01a\x01x"]);
    let reply = server.restore("past", &payload::of(&all_past, 12));
    assert_eq!(reply, Reply::Simple(b"OK".to_vec()));
    assert_eq!(server.must("EXISTS past"), Reply::Integer(0));
}

#[test]
fn fields_of_a_valkey_keep_when_they_expire() {
    let mut servers = Running::all();
    let Some(valkey) = servers
        .iter()
        .position(|server| server.kind == Kind::Valkey)
    else {
        return;
    };
    let valkey = &mut servers[valkey];
    valkey.must("HSET h a x b y");
    valkey.must(&format!("HPEXPIREAT h {LATER} FIELDS 1 a"));
    let payload = valkey.dump("h");
    let expected = expiries(valkey, "h");
    assert_eq!(
        servers[0].restore("h", &payload),
        Reply::Simple(b"OK".to_vec())
    );
    assert_eq!(expiries(&mut servers[0], "h"), expected);
}
