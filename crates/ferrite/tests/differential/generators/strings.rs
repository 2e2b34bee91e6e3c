//! String commands.

use super::Generator;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Source};

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("set", set).weight(8),
    Generator::new("get", |s| command!["GET", s.any_key()]).weight(8),
    Generator::new("setnx", |s| command!["SETNX", s.key(), s.value()]),
    Generator::new("setex", |s| {
        command!["SETEX", s.key(), s.ttl_seconds(), s.value()]
    }),
    Generator::new("psetex", |s| {
        command!["PSETEX", s.key(), s.ttl_ms(), s.value()]
    }),
    Generator::new("getset", |s| command!["GETSET", s.key(), s.value()]),
    Generator::new("getdel", |s| command!["GETDEL", s.any_key()]),
    Generator::new("getex", getex).weight(2),
    Generator::new("mget", |s| s.name_and_keys("MGET")).weight(2),
    Generator::new("strlen", |s| command!["STRLEN", s.any_key()]),
    Generator::new("getrange", |s| {
        command!["GETRANGE", s.any_key(), s.index(), s.index()]
    })
    .weight(3),
    Generator::new("substr", |s| {
        command!["SUBSTR", s.any_key(), s.index(), s.index()]
    }),
    Generator::new("append", |s| command!["APPEND", s.key(), s.short_value()]).weight(2),
    Generator::new("setrange", setrange).weight(2),
    Generator::new("incr", |s| command!["INCR", s.number_key()]).weight(2),
    Generator::new("decr", |s| command!["DECR", s.number_key()]),
    Generator::new("incrby", |s| {
        command!["INCRBY", s.number_key(), s.integer()]
    }),
    Generator::new("decrby", |s| {
        command!["DECRBY", s.number_key(), s.integer()]
    }),
    Generator::new("incrbyfloat", incrbyfloat).weight(2),
    Generator::new("mset", |s| pairs(s, "MSET")).weight(2),
    Generator::new("msetnx", |s| pairs(s, "MSETNX")),
    Generator::new("lcs", lcs).weight(2),
    Generator::new("msetex", msetex).newer(),
    Generator::new("delifeq", delifeq).newer(),
    Generator::new("set", set_if_equal).newer().weight(4),
    Generator::new("get", |s| command!["GET", s.any_key()])
        .newer()
        .weight(3),
    Generator::new("pttl", |s| command!["PTTL", s.any_key()])
        .newer()
        .check(Check::Near(3_000)),
];

fn set(s: &mut Source) -> Command {
    let key = if s.random.one_in(4) {
        s.number_key()
    } else {
        s.any_key()
    };
    let value = if key.starts_with(b"n:") {
        s.integer().to_string().into_bytes()
    } else {
        s.value()
    };
    let mut command = command!["SET", key, value];
    match s.random.below(8) {
        0 => command = s.with_options(command, &["NX", "GET"]),
        1 => command = s.with_options(command, &["xx", "get", "KEEPTTL"]),
        2 => command = s.with_options(command, &["NX", "XX", "GET", "KEEPTTL"]),
        3 => command.extend(s.expiry_option()),
        4 => {
            command = s.with_options(command, &["GET", "XX"]);
            command.extend(s.expiry_option());
        }
        _ => {}
    }
    command
}

fn set_if_equal(s: &mut Source) -> Command {
    let key = s.number_key();
    let mut command = command!["SET", key, s.random.between(0, 3)];
    if !s.random.one_in(3) {
        command.extend(command!["IFEQ", s.random.between(0, 3)]);
    }
    if s.random.one_in(4) {
        command.extend(s.expiry_option());
    }
    s.with_options(command, &["GET", "NX"])
}

fn getex(s: &mut Source) -> Command {
    let mut command = command!["GETEX", s.any_key()];
    match s.random.below(4) {
        0 => command.extend(s.expiry_option()),
        1 => command.extend(command!["PERSIST"]),
        _ => {}
    }
    command
}

fn setrange(s: &mut Source) -> Command {
    let offset = match s.random.below(10) {
        0 => -1,
        1 => s.random.between(0, 5_000),
        2 => 600 << 20,
        _ => s.random.between(0, 60),
    };
    command!["SETRANGE", s.key(), offset, s.short_value()]
}

fn incrbyfloat(s: &mut Source) -> Command {
    let key = if s.random.one_in(8) {
        s.number_key()
    } else {
        s.float_key()
    };
    let amount = if s.random.one_in(12) {
        s.oddity()
    } else {
        s.float()
    };
    command!["INCRBYFLOAT", key, amount]
}

fn pairs(s: &mut Source, name: &str) -> Command {
    let mut command = command![name];
    for _ in 0..s.random.between(1, 4) {
        let key = if name == "MSETNX" && !s.random.one_in(3) {
            s.missing_key()
        } else {
            s.key()
        };
        command.push(key);
        let value = s.value();
        command.push(value);
    }
    command
}

fn lcs(s: &mut Source) -> Command {
    // Short ones: the table of LCS is as large as the product of both lengths.
    let (first, second) = (s.text(12), s.text(15));
    s.then.push_back(command!["LCS", "lcs:0", "lcs:1"]);
    s.then
        .push_back(command!["MSET", "lcs:0", first, "lcs:1", second]);
    let command = command!["LCS", "lcs:0", "lcs:1"];
    let mut command = s.with_options(command, &["IDX", "WITHMATCHLEN", "LEN"]);
    if s.random.one_in(4) {
        command.extend(command!["MINMATCHLEN", s.random.between(-1, 4)]);
    }
    command
}

fn msetex(s: &mut Source) -> Command {
    let count = s.random.between(1, 3);
    let mut command = command!["MSETEX", count];
    for _ in 0..count {
        command.push(s.key());
        let value = s.short_value();
        command.push(value);
    }
    if s.random.one_in(2) {
        command.extend(s.expiry_option());
    }
    s.with_options(command, &["NX", "XX", "KEEPTTL"])
}

fn delifeq(s: &mut Source) -> Command {
    command!["DELIFEQ", s.number_key(), s.random.between(0, 3)]
}
