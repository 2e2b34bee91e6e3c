//! The table of generators: for each command a function that makes it, and how its replies are
//! compared.

mod bits;
mod connection;
mod field_expiry;
mod geo;
mod groups;
mod hashes;
mod hyperloglogs;
mod keys;
mod lists;
mod server;
mod sets;
mod sorted_sets;
mod streams;
mod strings;
mod transactions;

use crate::check::Check;
use crate::source::{Command, Source};

/// Which real server has the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Knows {
    /// redis-server 7.0 and newer.
    Redis,
    /// Newer than Redis 7.0: compared with valkey-server 9 where there is one.
    Valkey,
    /// Only Ferrite.
    Nobody,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Generator {
    /// "get", or "object|encoding" of a subcommand.
    pub(crate) name: &'static str,
    pub(crate) knows: Knows,
    pub(crate) make: fn(&mut Source) -> Command,
    pub(crate) check: Check,
    /// How many times as often as the least it runs.
    pub(crate) weight: usize,
    /// Whether arguments may be dropped, added and replaced at random.
    pub(crate) distort: bool,
}

impl Generator {
    /// A command of Redis 7.0 whose replies must be the same.
    const fn new(name: &'static str, make: fn(&mut Source) -> Command) -> Generator {
        let (knows, check) = (Knows::Redis, Check::Exact);
        Generator {
            name,
            knows,
            make,
            check,
            weight: 1,
            distort: true,
        }
    }

    /// Whether the command may be sent together with others: they do not change what its reply is to be compared by.
    pub(crate) fn can_be_pipelined(&self) -> bool {
        self.check.can_be_pipelined() && !["multi", "watch"].contains(&self.name)
    }

    /// Whether the command may be put between MULTI and EXEC: it is queued then.
    pub(crate) fn can_be_queued(&self) -> bool {
        // Some are run at once, and DEBUG PROTOCOL PUSH sends more than one reply.
        let others = [
            "reset",
            "quit",
            "multi",
            "exec",
            "discard",
            "watch",
            "debug|protocol",
        ];
        self.check.can_be_pipelined() && !others.contains(&self.name)
    }

    const fn check(self, check: Check) -> Generator {
        Generator { check, ..self }
    }

    const fn weight(self, weight: usize) -> Generator {
        Generator { weight, ..self }
    }

    /// A command of Valkey 9 that Redis 7.0 does not have.
    const fn newer(self) -> Generator {
        Generator {
            knows: Knows::Valkey,
            ..self
        }
    }

    /// A command that only Ferrite has, with a reply that `accepts`.
    const fn alone(self, accepts: fn(&crate::wire::Reply) -> bool) -> Generator {
        Generator {
            knows: Knows::Nobody,
            check: Check::Alone(accepts),
            distort: false,
            ..self
        }
    }

    /// A command that does harm when its arguments are changed.
    const fn undistorted(self) -> Generator {
        Generator {
            distort: false,
            ..self
        }
    }
}

/// All generators.
pub(crate) fn all() -> impl Iterator<Item = Generator> {
    [
        strings::TABLE,
        bits::TABLE,
        hashes::TABLE,
        field_expiry::TABLE,
        sets::TABLE,
        sorted_sets::TABLE,
        lists::TABLE,
        streams::TABLE,
        groups::TABLE,
        hyperloglogs::TABLE,
        geo::TABLE,
        keys::TABLE,
        connection::TABLE,
        server::TABLE,
        transactions::TABLE,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Those of commands about data alone: what they do does not end with the connection or the server.
pub(crate) fn of_data() -> impl Iterator<Item = Generator> {
    let tables = [
        strings::TABLE,
        bits::TABLE,
        hashes::TABLE,
        sets::TABLE,
        sorted_sets::TABLE,
        lists::TABLE,
        streams::TABLE,
        groups::TABLE,
        hyperloglogs::TABLE,
        geo::TABLE,
        keys::TABLE,
    ];
    tables.into_iter().flatten().copied()
}

/// Commands that are not compared, with the reason.
pub(crate) const EXCLUDED: &[(&str, &str)] = &[
    ("shutdown", "ends the server"),
    (
        "save",
        "fails while a BGSAVE runs, which takes another time on each side",
    ),
    ("bgsave", "as SAVE"),
    ("bgrewriteaof", "as SAVE"),
    ("compact", "a command of ours"),
    (
        "sort",
        "changes the encoding of sorted sets in Redis: sort.rs compares it",
    ),
    ("sort_ro", "as SORT"),
    ("waitaof", "the oracle has no append-only file"),
    ("debug|reload", "as SAVE"),
    (
        "debug|loadaof",
        "the oracle has no append-only file, and would be empty",
    ),
    (
        "dump",
        "payloads differ: tests/dump_restore compares what they hold",
    ),
    ("restore", "as DUMP"),
    ("restore-asking", "as DUMP"),
    ("lastsave", "a time that is not the same on both sides"),
    (
        "pfselftest",
        "takes Redis a second or two, and has nothing to compare",
    ),
    ("delex", "neither Redis 7.0 nor Valkey 9 has it"),
    ("digest", "neither Redis 7.0 nor Valkey 9 has it"),
];
