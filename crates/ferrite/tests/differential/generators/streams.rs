//! Stream commands. IDs are explicit and ascend in all streams together, so that both servers have the same.

use super::Generator;
use super::keys::same_encoding;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};
use crate::wire::Reply;

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("xadd", |s| {
        let key = s.stream_key();
        let mut command = command!["XADD", key];
        if s.random.one_in(8) {
            command.push(b"NoMkStream".to_vec());
        }
        if s.random.one_in(5) {
            command.extend(trim(s));
        }
        command.push(new_id(s));
        let mut command = with_fields(s, command);
        if s.random.one_in(25) {
            command.pop();
        }
        command
    })
    // The IDs that `*` stands for differ.
    .undistorted()
    .weight(12),
    Generator::new("xadd", |s| {
        // IDs of their own, which differ, and are gone before anything else is asked.
        let key = format!("auto:{}", s.random.below(3));
        s.then.push_back(command!["XLEN", key.clone()]);
        s.then.push_back(command!["DEL", key.clone()]);
        command!["XADD", key, "*", "field", "value"]
    })
    .check(Check::Shape)
    .undistorted(),
    Generator::new("xadd", |s| {
        // Behind the greatest ID there is none.
        let key = format!("full:{}", s.random.below(3));
        let greatest = "18446744073709551615";
        let (id, next) = match s.random.one_in(2) {
            true => (format!("{greatest}-{greatest}"), format!("{greatest}-*")),
            false => (format!("5-{greatest}"), "4-*".to_owned()),
        };
        s.then
            .push_back(command!["XADD", key.clone(), next, "a", "b"]);
        s.then.push_back(command!["XRANGE", key.clone(), "-", "+"]);
        s.then.push_back(command![
            "XREAD",
            "STREAMS",
            key.clone(),
            format!("{greatest}-{greatest}")
        ]);
        s.then
            .push_back(command!["XRANGE", key.clone(), format!("({greatest}"), "+"]);
        s.then.push_back(command!["DEL", key.clone()]);
        command!["XADD", key, id, "a", "b"]
    })
    .undistorted(),
    Generator::new("xlen", |s| command!["XLEN", s.stream_key()]).weight(2),
    Generator::new("xrange", |s| {
        let (key, from, to) = (s.stream_key(), s.interval_end("-"), s.interval_end("+"));
        with_count(s, command!["XRANGE", key, from, to])
    })
    .weight(5),
    Generator::new("xrevrange", |s| {
        let (key, from, to) = (s.stream_key(), s.interval_end("-"), s.interval_end("+"));
        with_count(s, command!["XREVRANGE", key, to, from])
    })
    .weight(4),
    Generator::new("xdel", |s| {
        let mut command = command!["XDEL", s.stream_key()];
        for _ in 0..s.random.between(1, 5) {
            command.push(s.stream_id());
        }
        command
    })
    .weight(5),
    Generator::new("xtrim", |s| {
        let key = s.stream_key();
        [command!["XTRIM", key], trim(s)].concat()
    })
    .weight(2),
    Generator::new("xtrim", approximately).weight(2),
    Generator::new("xread", |s| read(s, &["$"]))
        .check(Check::By(same_but_of_7_2))
        .weight(5),
    Generator::new("xadd", |s| {
        let (key, id) = (s.stream_key(), new_id(s));
        command!["XADD", key, id, "field", s.short_value()]
    })
    .newer()
    .undistorted()
    .weight(2),
    Generator::new("xread", |s| read(s, &["$"]))
        .newer()
        .weight(3),
    Generator::new("xsetid", |s| {
        // Never less than what has been deleted: only since Redis 7.2 that is an error.
        s.clock += s.random.between(1, 3);
        let mut command = command!["XSETID", s.stream_key(), s.clock];
        if s.random.one_in(2) {
            command.extend(command!["ENTRIESADDED", s.random.between(-1, 300)]);
        }
        if s.random.one_in(3) {
            command.extend(command!["maxdeletedid", s.stream_id()]);
        }
        command
    })
    .check(Check::By(same_but_of_7_2))
    .undistorted()
    .weight(2),
    Generator::new("object|encoding", |s| {
        command!["OBJECT", "ENCODING", s.stream_key()]
    })
    .check(Check::By(same_encoding)),
    Generator::new("debug|digest-value", |s| {
        command!["DEBUG", "DIGEST-VALUE", s.stream_key()]
    })
    .weight(2),
    Generator::new("copy", |s| {
        command!["COPY", s.stream_key(), s.stream_key(), "REPLACE"]
    }),
    Generator::new("rename", |s| {
        command!["RENAME", s.stream_key(), s.stream_key()]
    }),
];

/// XREAD of up to three streams, which now and then begins at one of these `places`.
fn read(s: &mut Source, places: &[&'static str]) -> Command {
    let mut command = command!["XREAD"];
    if s.random.one_in(2) {
        command.extend(command!["count", s.random.between(-1, 6)]);
    }
    let streams = s.random.between(1, 3);
    command.push(b"STREAMS".to_vec());
    for _ in 0..streams {
        command.push(s.stream_key());
    }
    for _ in 0..streams {
        let id = match s.random.below(6) {
            0 => s.word(places).encoded(),
            1 | 2 => b"0".to_vec(),
            _ => s.stream_id(),
        };
        command.push(id);
    }
    command
}

/// Redis 7.2 names the command where 7.0 does not, and finds mistakes in another order.
pub(super) fn same_but_of_7_2(ferrite: &Reply, oracle: &Reply) -> bool {
    let is_newer = |reply: &Reply| {
        let begins = ["ERR Unbalanced ", "ERR The ID specified in XSETID "];
        let begins_so = |text: &[u8]| {
            begins
                .iter()
                .any(|begin| text.starts_with(begin.as_bytes()))
        };
        matches!(reply, Reply::Error(text) if begins_so(text))
    };
    ferrite == oracle || is_newer(ferrite) && is_newer(oracle)
}

/// The ID of an entry that is added, mostly a new one.
fn new_id(s: &mut Source) -> Vec<u8> {
    match s.random.below(24) {
        0 => s.stream_id(),
        1 => s
            .word(&["0-0", "0", "0-*", "1-*", "-", "+", "$", "1-1-1", " 7", "x"])
            .encoded(),
        2..6 => format!("{}-*", s.clock).into_bytes(),
        _ => {
            s.clock += s.random.between(0, 1);
            s.sequence += 1;
            format!("{}-{}", s.clock, s.sequence).into_bytes()
        }
    }
}

/// `command` with some fields and values.
fn with_fields(s: &mut Source, mut command: Command) -> Command {
    for _ in 0..s.random.between(1, 4) {
        let value = match s.random.below(10) {
            0 => s.element_value(),
            _ => s.short_value(),
        };
        command.extend([s.element(), value]);
    }
    command
}

fn with_count(s: &mut Source, mut command: Command) -> Command {
    if s.random.one_in(2) {
        let count = if s.random.one_in(8) {
            s.oddity()
        } else {
            s.random.between(-1, 8).encoded()
        };
        command.extend(command!["COUNT", count]);
    }
    command
}

/// Options that trim exactly.
fn trim(s: &mut Source) -> Command {
    let mut command = match s.random.below(3) {
        0 => command!["MINID"],
        _ => command!["maxlen"],
    };
    if s.random.one_in(2) {
        command.push(b"=".to_vec());
    }
    let bound = match command[0].as_slice() {
        _ if s.random.one_in(20) => s.oddity(),
        b"MINID" => s.stream_id(),
        _ => s.random.between(0, 12).encoded(),
    };
    command.push(bound);
    if s.random.one_in(20) {
        command.extend(command!["LIMIT", s.random.between(-1, 5)]);
    }
    command
}

/// Trims a stream that is one node in Redis.
fn approximately(s: &mut Source) -> Command {
    let key = format!("trimmed:{}", s.random.below(3)).into_bytes();
    s.then.push_back(command!["DEL", key.clone()]);
    let entries = s.random.between(0, 30);
    for entry in 1..=entries {
        let value = s.text(3);
        s.then
            .push_back(command!["XADD", key.clone(), entry, "field", value]);
    }
    s.then.push_back(command!["XLEN", key.clone()]);
    let mut command = command!["XTRIM", key.clone()];
    match s.random.below(2) {
        0 => command.extend(command![
            "MAXLEN",
            "~",
            s.random.between(0, 3) * s.random.between(0, 12)
        ]),
        _ => command.extend(command!["MINID", "~", s.random.between(1, 40)]),
    }
    if s.random.one_in(2) {
        command.extend(command!["LIMIT", s.random.between(0, 35)]);
    }
    s.then.push_back(command.clone());
    s.then.push_back(command!["XRANGE", key.clone(), "-", "+"]);
    s.then.push_back(command![
        "XADD",
        key,
        "NOMKSTREAM",
        "MAXLEN",
        "~",
        0,
        "LIMIT",
        s.random.between(0, 35),
        100,
        "a",
        "b"
    ]);
    command
}
