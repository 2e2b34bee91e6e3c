//! MULTI, EXEC and DISCARD with few commands in between; transactions of all kinds of commands are made in `session`.

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
];

/// Commands to be queued, some of which cannot be.
fn queue_some(s: &mut Source) {
    for _ in 0..s.random.below(6) {
        let command = match s.random.below(12) {
            0 => command!["MULTI"],
            1 if s.random.one_in(4) => command!["GET"],
            2 if s.random.one_in(4) => command!["NOSUCHCOMMAND", s.key()],
            3 if s.random.one_in(4) => command!["SHUTDOWN", "ABORT"],
            4 => command!["SELECT", s.database()],
            5 => command!["INCR", s.key()],
            6 => command!["COPY", s.key(), s.key(), "DB", s.database()],
            7 => command!["GETDEL", s.key()],
            8 => command!["APPEND", s.key(), s.value()],
            _ => command!["SET", s.key(), s.value()],
        };
        s.then.push_back(command);
    }
}
