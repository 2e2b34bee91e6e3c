//! What DUMP and RESTORE refuse, and what they take besides the value.

use crate::payload;
use crate::servers::Running;
use crate::wire::Reply;

const STRING: &[u8] = b"\x00\x05value";

fn error(reply: &Reply) -> String {
    match reply {
        Reply::Error(text) => String::from_utf8_lossy(text).into_owned(),
        other => format!("{other:?}"),
    }
}

/// Everything that is compared, with what all servers reply.
fn cases() -> Vec<(Vec<Vec<u8>>, &'static str)> {
    let right = payload::of(STRING, 10);
    let mut wrong_sum = right.clone();
    wrong_sum[2] ^= 1;
    let syntax = "ERR syntax error";
    let not_integer = "ERR value is not an integer or out of range";
    let wrong = "ERR DUMP payload version or checksum are wrong";
    let malformed = "ERR Bad data format";
    let mut cases: Vec<(Vec<Vec<u8>>, &str)> = Vec::new();
    let mut add = |key: &str, ttl: &str, payload: &[u8], options: &str, expected| {
        let mut args: Vec<Vec<u8>> = [b"RESTORE", key.as_bytes(), ttl.as_bytes(), payload]
            .map(<[u8]>::to_vec)
            .into();
        args.extend(
            options
                .split_terminator(' ')
                .map(|word| word.as_bytes().to_vec()),
        );
        cases.push((args, expected));
    };
    add(
        "there",
        "0",
        &right,
        "",
        "BUSYKEY Target key name already exists.",
    );
    add(
        "there",
        "-1",
        b"",
        "",
        "BUSYKEY Target key name already exists.",
    );
    add("new", "x", b"", "", not_integer);
    add("new", "-1", b"", "", "ERR Invalid TTL value, must be >= 0");
    add("new", "-1", b"", "replaced", syntax);
    add("new", "0", &right, "IDLETIME", syntax);
    add("new", "0", &right, "IDLETIME x", not_integer);
    add(
        "new",
        "0",
        &right,
        "idletime -1",
        "ERR Invalid IDLETIME value, must be >= 0",
    );
    add(
        "new",
        "0",
        &right,
        "FREQ 256",
        "ERR Invalid FREQ value, must be >= 0 and <= 255",
    );
    add(
        "new",
        "0",
        &right,
        "FREQ -1",
        "ERR Invalid FREQ value, must be >= 0 and <= 255",
    );
    add("new", "0", &right, "IDLETIME 1 FREQ 1", syntax);
    add("new", "0", &right, "FREQ 1 IDLETIME 1", syntax);
    for payload in [b"".to_vec(), b"123456789".to_vec(), wrong_sum] {
        add("there", "0", &payload, "REPLACE", wrong);
    }
    add("new", "0", &payload::of(STRING, u16::MAX), "", wrong);
    for value in [
        &b""[..],
        b"\x00",
        b"\x00\x3fvalue",
        b"\x08\x05value",
        b"\xff\x05value",
        b"\x01\x00",
        b"\x02\x02\x01a\x01a",
        b"\x04\x01\x01a",
        b"\x03\x01\x01a\xfd",
        b"\x05\x01\x01a\0\0\0\0\0\0\xf8\x7f",
        b"\x0b\x08\x02\0\0\0\0\0\0\0",
        b"\x00\xc3\x02\x80\x01\0\0\0\x00a",
        b"\x02\x80\0\x01\0\0\x01a",
    ] {
        add("there", "0", &payload::of(value, 10), "REPLACE", malformed);
    }
    cases
}

#[test]
fn errors_are_those_of_redis_and_change_nothing() {
    for mut server in Running::all() {
        server.must("SET there before");
        for (args, expected) in cases() {
            let reply = server.call(&args);
            let shown: Vec<_> = args
                .iter()
                .map(|arg| arg.escape_ascii().to_string())
                .collect();
            assert_eq!(error(&reply), expected, "{:?}: {shown:?}", server.kind);
        }
        assert_eq!(server.must("GET there").bytes(), Some(&b"before"[..]));
        assert_eq!(server.must("DBSIZE"), Reply::Integer(1));
    }
}

#[test]
fn what_is_not_there_has_no_payload() {
    let mut server = Running::ferrite(&[]);
    assert_eq!(server.must("DUMP missing"), Reply::Null(b'$'));
    server.must("HSET hash a b");
    server.must("DEBUG SET-ACTIVE-EXPIRE 0");
    server.must("HPEXPIREAT hash 1 FIELDS 1 a");
    assert_eq!(server.must("DUMP hash"), Reply::Null(b'$'));
    let reply = server.ask("DUMP a b");
    assert_eq!(
        error(&reply),
        "ERR wrong number of arguments for 'dump' command"
    );
    let reply = server.ask("RESTORE a 0");
    assert_eq!(
        error(&reply),
        "ERR wrong number of arguments for 'restore' command"
    );
}

#[test]
fn a_value_is_restored_with_its_expiry() {
    let right = payload::of(STRING, 10);
    let list = payload::of(b"\x01\x02\x01a\x01b", 10);
    for mut server in Running::all() {
        for payload in [&right, &list] {
            let mut restore = |ttl: &str, options: &str| {
                let mut args: Vec<&[u8]> = vec![b"RESTORE", b"key", ttl.as_bytes(), payload];
                args.extend(options.split(' ').map(str::as_bytes));
                let reply = server.call(&args);
                assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{ttl} {options}");
                match server.must("PEXPIRETIME key") {
                    Reply::Integer(at_ms) => at_ms,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(restore("0", "REPLACE IDLETIME 5"), -1);
            assert_eq!(
                restore("4000000000000", "absttl replace"),
                4_000_000_000_000
            );
            assert!(restore("1000000000", "replace FREQ 255") > 1_700_000_000_000);
            assert_eq!(restore("0", "REPLACE ABSTTL"), -1);
            // What has expired takes the place of nothing, and is not there.
            assert_eq!(restore("1000", "REPLACE ABSTTL"), -2);
            assert_eq!(restore("1000", "ABSTTL"), -2);
            assert_eq!(server.must("DBSIZE"), Reply::Integer(0));
        }
    }
    let mut server = Running::ferrite(&[]);
    let forever = i64::MAX.to_string();
    let args: [&[u8]; 4] = [b"RESTORE", b"key", forever.as_bytes(), &right];
    assert_eq!(
        error(&server.call(&args)),
        "ERR Invalid TTL value, must be >= 0"
    );
    let args: [&[u8]; 4] = [b"RESTORE-ASKING", b"key", b"0", &right];
    assert_eq!(server.call(&args), Reply::Simple(b"OK".to_vec()));
    assert_eq!(server.must("GET key").bytes(), Some(&b"value"[..]));
}
