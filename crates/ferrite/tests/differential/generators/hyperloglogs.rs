//! HyperLogLog commands. Their values are compared byte by byte: GET returns them, and DEBUG DIGEST looks at all.

use super::Generator;
use crate::command;
use crate::source::{Command, Part, Source};

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("pfadd", |s| {
        let command = command!["PFADD", s.hyperloglog_key()];
        with_counted(s, command)
    })
    .weight(4),
    Generator::new("pfadd", |s| {
        command!["PFADD", odd_key(s), s.random.between(0, 100_000)]
    })
    .undistorted(),
    Generator::new("pfcount", |s| command!["PFCOUNT", read_key(s)]).weight(3),
    Generator::new("pfcount", |s| with_keys(s, command!["PFCOUNT"])),
    Generator::new("pfmerge", |s| {
        let command = command!["PFMERGE", s.hyperloglog_key()];
        with_keys(s, command)
    })
    .weight(2),
    Generator::new("pfdebug", |s| {
        let what = s.word(&[
            "GETREG", "decode", "DECODE", "Encoding", "ENCODING", "TODENSE", "SIMD",
        ]);
        command!["PFDEBUG", what, read_key(s)]
    })
    .weight(2),
    Generator::new("get", |s| command!["GET", s.hyperloglog_key()]).weight(2),
    Generator::new("set", |s| command!["SET", odd_key(s), odd_value(s)]),
    Generator::new("copy", |s| {
        command!["COPY", s.hyperloglog_key(), s.hyperloglog_key(), "REPLACE"]
    }),
    Generator::new("unlink", |s| command!["UNLINK", s.hyperloglog_key()]),
];

/// A key of values that are no HyperLogLogs, or corrupted ones.
fn odd_key(s: &mut Source) -> Vec<u8> {
    format!("po:{}", s.random.below(3)).into_bytes()
}

fn read_key(s: &mut Source) -> Vec<u8> {
    if s.random.one_in(8) {
        odd_key(s)
    } else {
        s.hyperloglog_key()
    }
}

/// `command` with some elements to count, now and then so many that they do not fit in a sparse one.
fn with_counted(s: &mut Source, mut command: Command) -> Command {
    let (count, most) = match s.random.below(20) {
        0 => (s.random.between(1000, 3000), 1_000_000),
        1..4 => (s.random.between(30, 300), 2000),
        _ => (s.random.between(0, 5), 100_000),
    };
    for _ in 0..count {
        command.push(s.random.between(0, most).encoded());
    }
    if s.random.one_in(8) {
        command.push(s.element());
    }
    command
}

fn with_keys(s: &mut Source, mut command: Command) -> Command {
    for _ in 0..s.random.between(0, 3) {
        command.push(read_key(s));
    }
    command
}

/// What is wrong with each of them, Redis finds out.
fn odd_value(s: &mut Source) -> Vec<u8> {
    let (header, rest): (&[u8], &[u8]) = match s.random.below(9) {
        0 => (b"HYLL", b""),
        1 => (b"HYLK\x01\0\0\0\0\0\0\0\0\0\0\x80", b"\x7f\xff"),
        2 => (b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\x80", b"\x7f\xff"),
        3 => (b"HYLL\0\0\0\0\0\0\0\0\0\0\0\x80", b"\x7f\xff"),
        4 => (b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80", b""),
        // One register too few, one too many, and a count of its own.
        5 => (b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80", b"\x7f\xfe"),
        6 => (b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80", b"\x7f\xff\0"),
        7 => (b"HYLL\x01\x01\x02\x03\x07\0\0\0\0\0\0\0", b"\x7f\xff"),
        // Equals that are not joined.
        _ => (
            b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80",
            b"\x80\x80\x80\x90\x41\0\x7e\xfa",
        ),
    };
    [header, rest].concat()
}
