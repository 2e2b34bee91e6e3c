//! List commands.

use super::Generator;
use super::keys::same_encoding;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("lpush", |s| push(s, "LPUSH")).weight(4),
    Generator::new("rpush", |s| push(s, "RPUSH")).weight(4),
    Generator::new("lpushx", |s| push(s, "LPUSHX")),
    Generator::new("rpushx", |s| push(s, "RPUSHX")),
    Generator::new("lpop", |s| pop(s, "LPOP")).weight(2),
    Generator::new("rpop", |s| pop(s, "RPOP")).weight(2),
    Generator::new("llen", |s| command!["LLEN", s.list_key()]).weight(2),
    Generator::new("lindex", |s| {
        let key = s.list_key();
        command!["LINDEX", key, index(s)]
    })
    .weight(2),
    Generator::new("lset", |s| {
        let key = s.list_key();
        command!["LSET", key, index(s), s.list_element()]
    })
    .weight(3),
    Generator::new("lrange", |s| {
        let key = s.list_key();
        command!["LRANGE", key, index(s), index(s)]
    })
    .weight(3),
    Generator::new("lrange", |s| command!["LRANGE", s.list_key(), 0, -1]).weight(2),
    Generator::new("ltrim", |s| {
        let key = s.list_key();
        let (start, end) = if s.random.one_in(3) {
            (index(s), index(s))
        } else {
            (s.random.between(0, 3), s.random.between(-4, -1))
        };
        command!["LTRIM", key, start, end]
    })
    .weight(2),
    Generator::new("linsert", |s| {
        let key = s.list_key();
        let place = s.word(&["BEFORE", "after", "AFTER", "before", "AFTER", "BEHIND"]);
        command!["LINSERT", key, place, s.element(), s.list_element()]
    })
    .weight(3),
    Generator::new("lrem", |s| {
        let key = s.list_key();
        let count = match s.random.below(6) {
            0 => index(s),
            1 => 0,
            _ => s.random.between(-3, 3),
        };
        command!["LREM", key, count, s.element()]
    })
    .weight(3),
    Generator::new("lpos", |s| {
        let mut command = command!["LPOS", s.list_key(), s.element()];
        if s.random.one_in(2) {
            // The least number is an error only from Redis 7.2 on.
            let rank = if s.random.one_in(20) {
                i64::MAX
            } else {
                s.random.between(-4, 4)
            };
            command.extend(command!["RANK", rank]);
        }
        if s.random.one_in(2) {
            command.extend(command!["COUNT", s.random.between(-1, 4)]);
        }
        if s.random.one_in(3) {
            command.extend(command!["MAXLEN", s.random.between(-1, 12)]);
        }
        command
    })
    .undistorted()
    .weight(3),
    Generator::new("lmove", |s| {
        let (from, to) = (s.list_key(), s.list_key());
        let sides = &["LEFT", "RIGHT", "left", "right", "LEFT", "UP"];
        command!["LMOVE", from, to, s.word(sides), s.word(sides)]
    })
    .weight(3),
    Generator::new("rpoplpush", |s| {
        command!["RPOPLPUSH", s.list_key(), s.list_key()]
    })
    .weight(2),
    Generator::new("lmpop", |s| {
        let count = if s.random.one_in(15) {
            s.random.between(-1, 9)
        } else {
            s.random.between(1, 3)
        };
        let mut command = command!["LMPOP", count];
        for _ in 0..count.clamp(1, 3) {
            command.push(s.list_key());
        }
        command.extend(command![s.word(&["LEFT", "RIGHT", "right"])]);
        if s.random.one_in(2) {
            command.extend(command!["COUNT", s.random.between(0, 9)]);
        }
        command
    })
    .weight(2),
    Generator::new("blpop", |s| {
        command!["BLPOP", s.list_key(), s.list_key(), timeout(s)]
    })
    .undistorted(),
    Generator::new("brpop", |s| command!["BRPOP", s.list_key(), timeout(s)]).undistorted(),
    Generator::new("blmove", |s| {
        let (from, to) = (s.list_key(), s.list_key());
        let sides = &["LEFT", "RIGHT", "left", "right", "LEFT", "UP"];
        command!["BLMOVE", from, to, s.word(sides), s.word(sides), timeout(s)]
    })
    .undistorted(),
    Generator::new("brpoplpush", |s| {
        command!["BRPOPLPUSH", s.list_key(), s.list_key(), timeout(s)]
    })
    .undistorted(),
    Generator::new("blmpop", |s| {
        let count = s.random.between(1, 3);
        let mut command = command!["BLMPOP", timeout(s), count];
        for _ in 0..count {
            command.push(s.list_key());
        }
        command.extend(command![s.word(&["LEFT", "RIGHT", "MIN"])]);
        if s.random.one_in(2) {
            command.extend(command!["COUNT", s.random.between(0, 9)]);
        }
        command
    })
    .undistorted(),
    Generator::new("object|encoding", |s| {
        command!["OBJECT", "ENCODING", s.list_key()]
    })
    .check(Check::By(same_encoding)),
    Generator::new("copy", |s| {
        command!["COPY", s.list_key(), s.list_key(), "REPLACE"]
    }),
    Generator::new("rename", |s| command!["RENAME", s.list_key(), s.list_key()]),
    Generator::new("debug|digest-value", |s| {
        command!["DEBUG", "DIGEST-VALUE", s.list_key(), s.list_key()]
    }),
];

fn push(s: &mut Source, name: &str) -> Command {
    let key = s.list_key();
    if s.random.one_in(12) && key.starts_with(b"l:") {
        s.refill_list(key.clone());
    }
    let mut command = command![name, key];
    if s.random.one_in(3) {
        command.push(s.list_element());
        return command;
    }
    s.with_elements(command)
}

fn pop(s: &mut Source, name: &str) -> Command {
    let mut command = command![name, s.list_key()];
    if s.random.one_in(2) {
        let count = match s.random.below(12) {
            0 => s.integer(),
            1 => s.random.between(100, 900),
            _ => s.random.between(0, 6),
        };
        command.push(count.encoded());
    }
    command
}

/// A timeout that is soon over, or none.
pub(super) fn timeout(s: &mut Source) -> &'static str {
    s.word(&["0.001", "0.002", "1e-3", "0.001", "-1", "soon"])
}

/// A position in a list, also from its end, also outside.
fn index(s: &mut Source) -> i64 {
    match s.random.below(12) {
        0 => s.index(),
        1 => s.random.between(-700, 700),
        _ => s.random.between(-12, 12),
    }
}
