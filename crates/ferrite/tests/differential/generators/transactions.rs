//! MULTI, EXEC and DISCARD with few commands in between, WATCH and UNWATCH; transactions of all kinds of commands, and keys
//! that others watch meanwhile, are made in `session`.

use super::Generator;
use crate::command;
use crate::source::Source;

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("multi", |s| {
        queue_some(s);
        s.then.push_back(command!["EXEC"]);
        command!["MULTI"]
    }),
    Generator::new("exec", |s| {
        // The one that is made finds no transaction; that which follows may.
        if s.random.one_in(3) {
            s.then.push_back(command!["MULTI"]);
            queue_some(s);
        }
        s.then.push_back(command!["EXEC"]);
        command!["EXEC"]
    }),
    Generator::new("discard", |s| {
        if s.random.one_in(3) {
            s.then.push_back(command!["MULTI"]);
            queue_some(s);
        }
        s.then.push_back(command!["DISCARD"]);
        command!["DISCARD"]
    }),
    Generator::new("watch", |s| {
        // What follows may or may not touch one of the keys.
        if s.random.one_in(2) {
            let (touched, value) = (s.any_key(), s.value());
            s.then.push_back(command!["SET", touched, value]);
        }
        if s.random.one_in(8) {
            s.then.push_back(command!["UNWATCH"]);
        }
        s.then.push_back(command!["MULTI"]);
        queue_some(s);
        s.then.push_back(command!["EXEC"]);
        s.name_and_keys("WATCH")
    }),
    Generator::new("unwatch", |_| command!["UNWATCH"]),
];

/// Commands to be queued, some of which cannot be.
fn queue_some(s: &mut Source) {
    for _ in 0..s.random.below(6) {
        let command = match s.random.below(20) {
            0 => command!["MULTI"],
            1 if s.random.one_in(4) => command!["WATCH", s.key()],
            2 if s.random.one_in(4) => command!["UNWATCH"],
            3 if s.random.one_in(8) => command!["GET"],
            4 if s.random.one_in(8) => command!["NOSUCHCOMMAND", s.key()],
            5 if s.random.one_in(4) => command!["SHUTDOWN", "ABORT"],
            6 => command!["SELECT", s.database()],
            7 => command!["INCR", s.key()],
            8 => command!["COPY", s.key(), s.key(), "DB", s.database()],
            9 => command!["GETDEL", s.key()],
            10 => command!["APPEND", s.key(), s.value()],
            _ => command!["SET", s.key(), s.value()],
        };
        s.then.push_back(command);
    }
}
