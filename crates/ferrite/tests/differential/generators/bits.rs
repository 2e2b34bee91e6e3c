//! Bit commands on strings.

use super::Generator;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};
use crate::wire::Reply;

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("setbit", |s| {
        command!["SETBIT", s.bit_key(), offset(s), s.random.between(0, 1)]
    })
    .weight(2),
    Generator::new("getbit", |s| command!["GETBIT", s.bit_key(), offset(s)]),
    Generator::new("bitcount", |s| {
        let command = command!["BITCOUNT", s.bit_key()];
        with_range(s, command)
    })
    .check(Check::By(syntax_first))
    .weight(2),
    Generator::new("bitpos", |s| {
        let command = command!["BITPOS", s.bit_key(), s.random.between(0, 1)];
        with_range(s, command)
    })
    .check(Check::By(syntax_first))
    .weight(2),
    Generator::new("bitop", bitop),
    Generator::new("bitfield", bitfield).weight(2),
    Generator::new("bitfield_ro", |s| {
        let mut command = command!["BITFIELD_RO", s.bit_key()];
        for _ in 0..s.random.between(1, 3) {
            command.extend(command!["GET", bit_type(s), bit_offset(s)]);
        }
        command
    }),
];

/// Redis 7.0 looks for the key before it looks at the other arguments; 7.2 does as Ferrite does.
fn syntax_first(ferrite: &Reply, oracle: &Reply) -> bool {
    let is_other_type = matches!(oracle, Reply::Error(text) if text.starts_with(b"WRONGTYPE"));
    ferrite.is_error() && (is_other_type || matches!(oracle, Reply::Integer(0 | -1)))
}

fn offset(s: &mut Source) -> i64 {
    match s.random.below(20) {
        0 => -1,
        1 => 1 << 32,
        2 => s.random.between(0, 100_000),
        _ => s.random.between(0, 200),
    }
}

fn with_range(s: &mut Source, mut command: Command) -> Command {
    match s.random.below(4) {
        0 => command.push(s.index().encoded()),
        1 => command.extend(command![s.index(), s.index()]),
        2 => command.extend(command![
            s.index(),
            s.index(),
            s.word(&["BIT", "byte", "x"])
        ]),
        _ => {}
    }
    command
}

fn bitop(s: &mut Source) -> Command {
    let operation = s.word(&["AND", "or", "XOR", "NOT"]);
    let mut command = command!["BITOP", operation, s.bit_key()];
    let sources = if operation == "NOT" && !s.random.one_in(6) {
        1
    } else {
        s.random.between(1, 4)
    };
    for _ in 0..sources {
        command.push(s.bit_key());
    }
    command
}

fn bitfield(s: &mut Source) -> Command {
    let mut command = command!["BITFIELD", s.bit_key()];
    for _ in 0..s.random.between(0, 4) {
        let (kind, offset) = (bit_type(s), bit_offset(s));
        match s.random.below(4) {
            0 => command.extend(command!["GET", kind, offset]),
            1 => command.extend(command!["SET", kind, offset, s.integer()]),
            2 => command.extend(command!["INCRBY", kind, offset, s.integer()]),
            _ => {
                let overflow = s.word(&["WRAP", "sat", "FAIL"]);
                command.extend(command!["OVERFLOW", overflow]);
                command.extend(command!["INCRBY", kind, offset, s.integer()]);
            }
        }
    }
    command
}

fn bit_type(s: &mut Source) -> String {
    if s.random.one_in(25) {
        return s.word(&["u64", "i65", "u0", "x8", "u", "i-1"]).to_owned();
    }
    let sign = s.word(&["i", "u"]);
    format!("{sign}{}", s.random.between(1, 63))
}

fn bit_offset(s: &mut Source) -> String {
    match s.random.below(20) {
        0 => "-1".to_owned(),
        1 => "#x".to_owned(),
        2..8 => format!("#{}", s.random.between(0, 10)),
        _ => s.random.between(0, 150).to_string(),
    }
}
