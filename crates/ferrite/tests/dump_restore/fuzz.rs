//! Payloads that are changed at random, with checksums that are right: a server takes them or refuses them, and what it takes
//! can be read, changed and dumped like anything else.

use crate::payload;
use crate::random::Random;
use crate::servers::Running;
use crate::wire::Reply;

const ROUNDS: usize = 3000;

/// What the payloads are of, each made by its commands.
const VALUES: &[&[&str]] = &[
    &["SET k value"],
    &["SET k 12345"],
    &[
        "RPUSH k a bb 300 -1 70000 cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
    ],
    &["SADD k a bb 300 -1 ccccccc"],
    &["ZADD k 1 a 2.5 bb inf c -7 d"],
    &["HSET k a 1 bb 22 ccc 333"],
    &["HSET k a 1 bb 22", "HPEXPIREAT k 4000000000000 FIELDS 1 a"],
    &[
        "XADD k 5-1 f v g w",
        "XADD k 5-2 f x g y",
        "XADD k 6-1 h z",
        "XGROUP CREATE k g 0",
        "XREADGROUP GROUP g alice COUNT 2 STREAMS k >",
        "XREADGROUP GROUP g bob COUNT 2 STREAMS k >",
        "XDEL k 5-2",
    ],
];

/// Values in forms that are not written by Ferrite.
const FORMS: &[&[u8]] = &[
    b"\x00\xc3\x09\x40\x46\x01xx\xe0\x39\x00\x01xx",
    b"\x0a\x1d\x1d\0\0\0\x17\0\0\0\x05\0\x00\x02ab\x04\xc0\x00\x80\x04\xfe\xff\x03\xf3\x02\xf0\x00\x00\x80\xff",
    b"\x09\x10\x02\x01a\x02\x00bc\x01d\x01\x03e...\xff",
    b"\x0b\x0e\x02\0\0\0\x03\0\0\0\x00\x80\xff\xff\x05\x00",
    b"\x10\x13\x13\0\0\0\x04\0\x81a\x02\x01\x01\x81b\x02\x82xy\x03\xff",
    b"\x11\x1c\x1c\x00\x00\x00\x06\x00\x81a\x02\x831.5\x04\x81c\x02\x03\x01\x81b\x02\x83inf\x04\xff",
    b"\x14\x0f\x0f\0\0\0\x03\0\x81a\x02\x01\x01\xdf\xfb\x02\xff",
    b"\x03\x02\x01b\x012\x01a\x031.5",
];

/// What is asked about a value of each type, and done to it.
fn uses(kind: &str) -> &'static [&'static str] {
    match kind {
        "string" => &["GET k", "STRLEN k", "APPEND k x"],
        "list" => &["LRANGE k 0 -1", "LPOS k a", "LPOP k", "RPUSH k x"],
        "set" => &["SMEMBERS k", "SSCAN k 0", "SADD k 5 x", "SPOP k"],
        "zset" => &[
            "ZRANGE k 0 -1 WITHSCORES",
            "ZRANK k a",
            "ZADD k 3 x 4 a",
            "ZPOPMIN k",
        ],
        "hash" => &[
            "HGETALL k",
            "HPEXPIRETIME k FIELDS 2 a bb",
            "HSET k x y",
            "HDEL k a",
        ],
        "stream" => &[
            "XRANGE k - +",
            "XINFO STREAM k FULL COUNT 0",
            "XINFO GROUPS k",
            "XTRIM k MAXLEN 1",
            "XADD k MAXLEN 2 * f v",
        ],
        _ => &[],
    }
}

fn mutate(random: &mut Random, value: &mut Vec<u8>) {
    for _ in 0..1 + random.below(3) {
        if value.is_empty() {
            return;
        }
        let at = random.below(value.len() as u64) as usize;
        match random.below(8) {
            0 => value[at] ^= 1 << random.below(8),
            1 => value[at] = random.next() as u8,
            2 => value[at] = *random.pick(&[0, 1, 0x3f, 0x7f, 0x80, 0x81, 0xc3, 0xfe, 0xff]),
            3 => value[at] = value[at].wrapping_add(1),
            4 => value[at] = value[at].wrapping_sub(1),
            5 => value.truncate(at),
            6 => value.insert(at, random.next() as u8),
            _ => {
                let end = (at + random.below(9) as usize).min(value.len());
                let part = value[at..end].to_vec();
                value.splice(at..at, part);
            }
        }
    }
}

#[test]
fn changed_payloads_are_refused_or_whole() {
    let seed = crate::seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut server = Running::ferrite(&[]);
    let mut values: Vec<Vec<u8>> = FORMS.iter().map(|form| form.to_vec()).collect();
    for commands in VALUES {
        server.must("DEL k");
        commands
            .iter()
            .for_each(|command| drop(server.must(command)));
        let payload = server.dump("k");
        values.push(payload::open(&payload).0.to_vec());
    }
    let mut taken = 0;
    for round in 0..ROUNDS {
        let mut value = random.pick(&values).clone();
        mutate(&mut random, &mut value);
        let version = *random.pick(&[10, 12, 80]);
        let context = format!("seed {seed}, round {round}: {}", value.escape_ascii());
        match server.restore("k", &payload::of(&value, version)) {
            Reply::Error(text) => {
                let text = String::from_utf8_lossy(&text);
                assert_eq!(text, "ERR Bad data format", "{context}");
            }
            _ => {
                taken += 1;
                check_use(&mut server, &context);
            }
        }
    }
    println!("{taken} of {ROUNDS} were taken");
    // Most changes within a string leave a value.
    assert!(taken > ROUNDS / 20 && taken < ROUNDS);
    for (at, value) in values.iter().enumerate() {
        let reply = server.restore("k", &payload::of(value, 12));
        assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{at}");
    }
}

/// What has been taken is dumped and restored as the same, read, and changed.
fn check_use(server: &mut Running, context: &str) {
    let kind = server.must("TYPE k");
    let kind = String::from_utf8_lossy(kind.bytes().unwrap()).into_owned();
    // A hash whose fields have expired is not stored.
    if kind == "none" {
        return;
    }
    let payload = server.dump("k");
    let reply = server.restore("again", &payload);
    assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{context}");
    for command in ["DEBUG DIGEST-VALUE", "OBJECT ENCODING"] {
        // They may have lain in other forms than they are dumped in.
        if command == "OBJECT ENCODING" && ["list", "set"].contains(&kind.as_str()) {
            continue;
        }
        let replies = ["k", "again"].map(|key| server.must(&format!("{command} {key}")));
        assert_eq!(replies[0], replies[1], "{command}: {context}");
    }
    for command in uses(&kind) {
        let reply = server.ask(command);
        // A stream that has had the last ID takes no other entry.
        let may_fail = command.starts_with("XADD");
        assert!(
            may_fail || !reply.is_error(),
            "{command}: {reply:?}: {context}"
        );
    }
}
