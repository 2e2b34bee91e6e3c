//! Set commands.

use super::Generator;
use super::keys::same_encoding;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("sadd", |s| {
        let key = s.set_key();
        if s.random.one_in(25) && key.starts_with(b"S:") {
            s.refill_set(key.clone());
        }
        s.with_elements(command!["SADD", key])
    })
    .weight(6),
    Generator::new("srem", |s| {
        let key = s.set_key();
        s.with_elements(command!["SREM", key])
    })
    .weight(3),
    Generator::new("smove", |s| {
        command!["SMOVE", s.set_key(), s.set_key(), s.element()]
    })
    .weight(3),
    Generator::new("sismember", |s| {
        command!["SISMEMBER", s.set_key(), s.element()]
    })
    .weight(2),
    Generator::new("smismember", |s| {
        let key = s.set_key();
        s.with_elements(command!["SMISMEMBER", key])
    }),
    Generator::new("smembers", |s| command!["SMEMBERS", s.set_key()])
        .check(Check::Unordered)
        .weight(3),
    Generator::new("scard", |s| command!["SCARD", s.set_key()]).weight(2),
    Generator::new("srandmember", |s| {
        let mut command = command!["SRANDMEMBER", s.set_key()];
        if !s.random.one_in(4) {
            command.push(s.random.between(-9, 9).encoded());
        }
        command
    })
    .check(Check::Shape)
    .weight(2),
    Generator::new("spop", |s| {
        let key = s.set_key();
        let mut command = command!["SPOP", key.clone()];
        if !s.random.one_in(3) {
            command.push(s.random.between(0, 9).encoded());
        }
        // What is left is not the same on both sides.
        s.then.push_back(command!["SCARD", key.clone()]);
        s.refill_set(key);
        command
    })
    .check(Check::Shape)
    .undistorted()
    .weight(2),
    Generator::new("spop", |s| command!["SPOP", s.set_key(), 100_000])
        .check(Check::Unordered)
        .undistorted(),
    Generator::new("sinter", |s| sets(s, "SINTER"))
        .check(Check::Unordered)
        .weight(2),
    Generator::new("sunion", |s| sets(s, "SUNION"))
        .check(Check::Unordered)
        .weight(2),
    Generator::new("sdiff", |s| sets(s, "SDIFF"))
        .check(Check::Unordered)
        .weight(2),
    Generator::new("sinterstore", |s| sets(s, "SINTERSTORE")).weight(2),
    Generator::new("sunionstore", |s| sets(s, "SUNIONSTORE")).weight(2),
    Generator::new("sdiffstore", |s| sets(s, "SDIFFSTORE")).weight(2),
    Generator::new("sintercard", |s| {
        let count = s.random.between(1, 3);
        let mut command = command!["SINTERCARD", count];
        for _ in 0..count {
            command.push(s.set_key());
        }
        if s.random.one_in(3) {
            command.extend(command!["LIMIT", s.random.between(-1, 5)]);
        }
        command
    })
    .weight(2),
    Generator::new("sscan", |s| {
        let key = s.set_key();
        s.scan_elements("SSCAN", key)
    })
    .check(Check::Scan)
    .undistorted(),
    Generator::new("object|encoding", |s| {
        command!["OBJECT", "ENCODING", s.set_key()]
    })
    .check(Check::By(same_encoding))
    .weight(3),
    Generator::new("copy", |s| {
        command!["COPY", s.set_key(), s.set_key(), "REPLACE"]
    }),
    Generator::new("rename", |s| command!["RENAME", s.set_key(), s.set_key()]),
];

/// `name` with one to four keys of sets.
fn sets(s: &mut Source, name: &str) -> Command {
    let mut command = command![name];
    let least = if name.ends_with("STORE") { 2 } else { 1 };
    for _ in 0..s.random.between(least, 4) {
        command.push(s.set_key());
    }
    command
}
