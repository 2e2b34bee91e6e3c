//! Generic key commands, OBJECT, and commands on whole databases.

use super::Generator;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};
use crate::wire::Reply;

/// What clocks may differ by, and what passes between the looks of two servers.
const SECONDS: Check = Check::Near(3);
const MILLISECONDS: Check = Check::Near(3_000);

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("del", |s| s.name_and_keys("DEL")),
    Generator::new("unlink", |s| s.name_and_keys("unlink")),
    Generator::new("exists", |s| s.name_and_keys("EXISTS")).weight(2),
    Generator::new("touch", |s| s.name_and_keys("TOUCH")),
    Generator::new("type", |s| command!["TYPE", s.any_key()]),
    Generator::new("rename", |s| {
        let (from, to) = s.two_keys();
        command!["RENAME", from, to]
    }),
    Generator::new("renamenx", |s| {
        let (from, to) = s.two_keys();
        let to = if s.random.one_in(2) {
            s.missing_key()
        } else {
            to
        };
        command!["RENAMENX", from, to]
    }),
    Generator::new("copy", copy).weight(2),
    Generator::new("move", |s| command!["MOVE", s.any_key(), database(s)]),
    Generator::new("expire", |s| {
        let time = if s.random.one_in(12) {
            s.integer()
        } else {
            s.ttl_seconds()
        };
        expire(s, "EXPIRE", time)
    })
    .weight(2),
    Generator::new("pexpire", |s| {
        let time = if s.random.one_in(12) {
            -s.random.between(0, 99)
        } else {
            s.ttl_ms()
        };
        expire(s, "PEXPIRE", time)
    }),
    Generator::new("expireat", |s| {
        let time = if s.random.one_in(12) {
            s.integer()
        } else {
            s.future_seconds()
        };
        expire(s, "EXPIREAT", time)
    }),
    Generator::new("pexpireat", |s| {
        let time = if s.random.one_in(12) {
            s.integer()
        } else {
            s.future_ms()
        };
        expire(s, "PEXPIREAT", time)
    }),
    Generator::new("ttl", |s| command!["TTL", s.any_key()]).check(SECONDS),
    Generator::new("pttl", |s| command!["PTTL", s.any_key()]).check(MILLISECONDS),
    Generator::new("expiretime", |s| command!["EXPIRETIME", s.any_key()]).check(SECONDS),
    Generator::new("pexpiretime", |s| command!["PEXPIRETIME", s.any_key()]).check(MILLISECONDS),
    Generator::new("persist", |s| command!["PERSIST", s.any_key()]),
    Generator::new("scan", scan)
        .check(Check::Scan)
        .undistorted(),
    Generator::new("keys", |s| command!["KEYS", pattern(s)]).check(Check::Unordered),
    Generator::new("randomkey", |_| command!["RANDOMKEY"]).check(Check::RandomKey),
    Generator::new("dbsize", |_| command!["DBSIZE"]),
    Generator::new("flushdb", |s| flush(s, "FLUSHDB")),
    Generator::new("flushall", |s| flush(s, "FLUSHALL")),
    Generator::new("swapdb", |s| {
        let (first, second) = (database(s), database(s));
        command!["SWAPDB", first, second]
    }),
    Generator::new("object|encoding", |s| {
        command!["OBJECT", "ENCODING", s.any_key()]
    })
    .check(Check::By(same_encoding))
    .weight(2),
    Generator::new("object|refcount", |s| {
        command!["OBJECT", "refcount", s.any_key()]
    })
    .check(Check::Type),
    Generator::new("object|idletime", |s| {
        command!["OBJECT", "IDLETIME", s.any_key()]
    })
    .check(Check::Type),
    Generator::new("object|freq", |s| {
        // An error for every key that exists.
        let key = if s.random.one_in(8) {
            s.any_key()
        } else {
            s.missing_key()
        };
        command!["OBJECT", "FREQ", key]
    }),
    Generator::new("object|help", |_| command!["OBJECT", "HELP"]).check(Check::Type),
];

/// Redis's encoding of a string also depends on how the value came about (APPEND leaves it raw, INCRBYFLOAT
/// never makes it an int); Ferrite tells it by the value alone. Sets and lists are no listpacks before Redis 7.2.
pub(super) fn same_encoding(ferrite: &Reply, oracle: &Reply) -> bool {
    if ferrite.bytes() == Some(b"listpack") {
        return oracle
            .bytes()
            .is_some_and(|name| [&b"hashtable"[..], b"intset", b"quicklist"].contains(&name));
    }
    let by_value: &[&[u8]] = &[b"int", b"embstr"];
    let by_history: &[&[u8]] = &[b"embstr", b"raw"];
    ferrite.bytes().is_some_and(|name| by_value.contains(&name))
        && oracle
            .bytes()
            .is_some_and(|name| by_history.contains(&name))
}

fn copy(s: &mut Source) -> Command {
    let (from, to) = s.two_keys();
    let mut command = command!["COPY", from, to];
    if s.random.one_in(3) {
        command.extend(command!["DB", database(s)]);
    }
    s.with_options(command, &["REPLACE"])
}

/// A database number; most exist.
fn database(s: &mut Source) -> Vec<u8> {
    match s.random.below(20) {
        0 => b"99".to_vec(),
        1 => s.oddity(),
        _ => s.database().encoded(),
    }
}

fn expire(s: &mut Source, name: &str, time: i64) -> Command {
    let time = if s.random.one_in(15) {
        s.oddity()
    } else {
        time.encoded()
    };
    let command = command![name, s.any_key(), time];
    match s.random.below(12) {
        0 => s.with_options(command, &["NX", "XX", "GT", "LT"]),
        1 => s.with_options(command, &["xx", "GT"]),
        2 => s.with_options(command, &["LT"]),
        3 => s.with_options(command, &["NX"]),
        4 => s.with_options(command, &["NO", "nx"]),
        _ => command,
    }
}

fn scan(s: &mut Source) -> Command {
    let mut command = command!["SCAN", if s.random.one_in(15) { "x" } else { "0" }];
    if s.random.one_in(2) {
        command.extend(command!["MATCH", pattern(s)]);
    }
    if s.random.one_in(2) {
        let count = if s.random.one_in(10) {
            s.oddity()
        } else {
            s.random.between(1, 50).encoded()
        };
        command.extend(command!["COUNT", count]);
    }
    if s.random.one_in(4) {
        command.extend(command![
            "TYPE",
            s.word(&["string", "STRING", "hash", "set", "list", "nonsense"])
        ]);
    }
    if s.random.one_in(30) {
        command.push(s.oddity());
    }
    command
}

fn pattern(s: &mut Source) -> Vec<u8> {
    let fixed: &[&[u8]] = &[
        b"*",
        b"s:*",
        b"n:[0-2]",
        b"?:?",
        b"[^s]:*",
        b"*:1",
        b"",
        b"**",
        b"L*",
        b"bin*",
        b"f:\\0",
        b"[a-n]:[3-0]",
        b"[",
        b"[^",
        b"s:[",
        b"*[",
        b"b:[0-",
        b"\\",
        b"*\xff\x80\\*\\[",
        b"bin\x00*",
        b"*\r\n*",
        b"[\x80-\xff]*",
        b"missing:*[13579]",
        b"*i*s*g*:*",
    ];
    if s.random.one_in(4) {
        let len = s.random.between(1, 7);
        return (0..len)
            .map(|_| *s.random.pick(b"s:n[]^-*?\\0123fb"))
            .collect();
    }
    s.random.pick(fixed).to_vec()
}

fn flush(s: &mut Source, name: &str) -> Command {
    s.refill();
    match s.random.below(5) {
        0 => command![name, "ASYNC"],
        1 => command![name, "sync"],
        2 => command![name, "now"],
        _ => command![name],
    }
}
