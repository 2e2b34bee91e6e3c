//! Hash commands.

use super::Generator;
use super::keys::same_encoding;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("hset", |s| {
        let key = s.hash_key();
        if s.random.one_in(25) && key.starts_with(b"h:") {
            s.refill_hash(key.clone());
        }
        with_pairs(s, command!["HSET", key])
    })
    .weight(6),
    Generator::new("hmset", |s| {
        let key = s.hash_key();
        with_pairs(s, command!["HMSET", key])
    })
    .weight(2),
    Generator::new("hsetnx", |s| {
        command!["HSETNX", s.hash_key(), s.element(), s.element_value()]
    })
    .weight(2),
    Generator::new("hget", |s| command!["HGET", s.hash_key(), s.element()]).weight(4),
    Generator::new("hmget", |s| {
        let key = s.hash_key();
        s.with_elements(command!["HMGET", key])
    })
    .weight(2),
    Generator::new("hgetall", |s| command!["HGETALL", s.hash_key()])
        .check(Check::UnorderedPairs)
        .weight(3),
    Generator::new("hkeys", |s| command!["HKEYS", s.hash_key()]).check(Check::Unordered),
    Generator::new("hvals", |s| command!["HVALS", s.hash_key()]).check(Check::Unordered),
    Generator::new("hlen", |s| command!["HLEN", s.hash_key()]).weight(2),
    Generator::new("hexists", |s| {
        command!["HEXISTS", s.hash_key(), s.element()]
    }),
    Generator::new("hstrlen", |s| {
        command!["HSTRLEN", s.hash_key(), s.element()]
    }),
    Generator::new("hdel", |s| {
        let key = s.hash_key();
        s.with_elements(command!["HDEL", key])
    })
    .weight(3),
    Generator::new("hincrby", |s| {
        command!["HINCRBY", s.hash_key(), s.element(), s.integer()]
    })
    .weight(3),
    Generator::new("hincrbyfloat", |s| {
        let amount = if s.random.one_in(12) {
            s.oddity()
        } else {
            s.float()
        };
        command!["HINCRBYFLOAT", s.hash_key(), s.element(), amount]
    })
    .weight(2),
    Generator::new("hrandfield", |s| {
        let mut command = command!["HRANDFIELD", s.hash_key()];
        if !s.random.one_in(4) {
            command.push(s.random.between(-9, 9).encoded());
            if s.random.one_in(2) {
                command.push(b"WithValues".to_vec());
            }
        }
        command
    })
    .check(Check::Shape)
    .weight(2),
    Generator::new("hscan", |s| {
        let key = s.hash_key();
        s.scan_elements("HSCAN", key)
    })
    .check(Check::Scan)
    .undistorted(),
    Generator::new("object|encoding", |s| {
        command!["OBJECT", "ENCODING", s.hash_key()]
    })
    .check(Check::By(same_encoding))
    .weight(3),
    Generator::new("debug|digest-value", |s| {
        command!["DEBUG", "DIGEST-VALUE", s.hash_key(), s.set_key()]
    })
    .weight(2),
    Generator::new("copy", |s| {
        command!["COPY", s.hash_key(), s.hash_key(), "REPLACE"]
    }),
    Generator::new("rename", |s| command!["RENAME", s.hash_key(), s.hash_key()]),
];

/// `command` with one to five fields and values, now and then many.
fn with_pairs(s: &mut Source, command: Command) -> Command {
    let head = command.len();
    let fields = s.with_elements(command);
    let is_long = fields.len() > 50;
    let mut command = Command::new();
    for (at, part) in fields.into_iter().enumerate() {
        command.push(part);
        if at >= head {
            let value = match s.random.below(4) {
                0 => s.integer().encoded(),
                1 => s.float(),
                2 if !is_long => s.element_value(),
                _ => s.short_value(),
            };
            command.push(value);
        }
    }
    command
}
