//! Commands about the server: configuration, statistics, COMMAND, DEBUG.

use super::Generator;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};
use crate::wire::Reply;

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("info", |s| match s.random.below(3) {
        0 => command!["INFO"],
        1 => command!["INFO", "server", "MEMORY"],
        _ => command![
            "INFO",
            s.word(&["all", "everything", "clients", "keyspace", "odd"])
        ],
    })
    .check(Check::Type),
    Generator::new("config|get", |s| {
        command!["CONFIG", "GET", parameter(s), parameter(s)]
    })
    .check(Check::Names)
    .undistorted(),
    Generator::new("config|set", |s| {
        let value = if s.random.one_in(4) {
            s.oddity()
        } else {
            s.random.between(1, 500).encoded()
        };
        command!["CONFIG", "SET", s.word(CHANGED), value]
    }),
    Generator::new("config|resetstat", |_| command!["CONFIG", "RESETSTAT"]),
    // Both run without a configuration file, so every call is an error.
    Generator::new("config|rewrite", |_| command!["CONFIG", "REWRITE"]),
    Generator::new("config|help", |_| command!["CONFIG", "HELP"]).check(Check::Type),
    Generator::new("command", |_| command!["COMMAND"]).check(Check::Type),
    Generator::new("command|count", |_| command!["COMMAND", "COUNT"]).check(Check::Type),
    Generator::new("command|info", |s| {
        command!["COMMAND", "INFO", s.word(NAMES), s.word(NAMES), "nonsense"]
    })
    .check(Check::By(same_shapes))
    .undistorted(),
    Generator::new("command|docs", |s| {
        command!["COMMAND", "DOCS", s.word(NAMES)]
    })
    .check(Check::Type),
    Generator::new("command|list", |s| match s.random.below(3) {
        0 => command!["COMMAND", "LIST", "FILTERBY", "PATTERN", "x*x"],
        1 => command!["COMMAND", "LIST", "FILTERBY", "MODULE", "none"],
        _ => command!["COMMAND", "LIST"],
    })
    .check(Check::Type),
    Generator::new("command|getkeys", |s| {
        [command!["COMMAND", "GETKEYS"], some_command(s)].concat()
    })
    .undistorted(),
    Generator::new("command|getkeysandflags", |s| {
        [command!["COMMAND", "GETKEYSANDFLAGS"], some_command(s)].concat()
    })
    .undistorted(),
    Generator::new("command|help", |_| command!["COMMAND", "HELP"]).check(Check::Type),
    Generator::new("time", |_| command!["TIME"]).check(Check::Type),
    Generator::new("role", |_| command!["ROLE"]).check(Check::Type),
    Generator::new("lolwut", |s| match s.random.below(3) {
        0 => command!["LOLWUT", "VERSION", 99],
        _ => command!["LOLWUT"],
    })
    .check(Check::Type)
    .undistorted(),
    Generator::new("module|list", |_| command!["MODULE", "LIST"]),
    Generator::new("module|help", |_| command!["MODULE", "HELP"]).check(Check::Type),
    Generator::new("memory|usage", |s| {
        let command = command!["MEMORY", "USAGE", s.any_key()];
        if s.random.one_in(3) {
            [command, command!["SAMPLES", 5]].concat()
        } else {
            command
        }
    })
    .check(Check::Type),
    Generator::new("memory|stats", |_| command!["MEMORY", "STATS"]).check(Check::Type),
    Generator::new("memory|doctor", |_| command!["MEMORY", "DOCTOR"]).check(Check::Type),
    // A verbatim string with jemalloc, else a bulk string.
    Generator::new("memory|malloc-stats", |_| {
        command!["MEMORY", "MALLOC-STATS"]
    })
    .check(Check::By(|ferrite, oracle| {
        ferrite.bytes().and(oracle.bytes()).is_some()
    }))
    .undistorted(),
    Generator::new("memory|purge", |_| command!["MEMORY", "PURGE"]),
    Generator::new("memory|help", |_| command!["MEMORY", "HELP"]).check(Check::Type),
    Generator::new("slowlog|get", |s| match s.random.below(4) {
        0 => command!["SLOWLOG", "GET", s.random.between(-2, 5)],
        _ => command!["SLOWLOG", "GET"],
    })
    .check(Check::Type),
    Generator::new("slowlog|len", |_| command!["SLOWLOG", "LEN"]).check(Check::Type),
    Generator::new("slowlog|reset", |_| command!["SLOWLOG", "RESET"]),
    Generator::new("slowlog|help", |_| command!["SLOWLOG", "HELP"]).check(Check::Type),
    Generator::new("commandlog|get", |s| {
        command!["COMMANDLOG", "GET", s.random.between(-2, 5), log_kind(s)]
    })
    .newer()
    .check(Check::Type),
    Generator::new("commandlog|len", |s| {
        command!["COMMANDLOG", "LEN", log_kind(s)]
    })
    .newer()
    .check(Check::Type),
    Generator::new("commandlog|reset", |s| {
        command!["COMMANDLOG", "RESET", log_kind(s)]
    })
    .newer(),
    Generator::new("commandlog|help", |_| command!["COMMANDLOG", "HELP"])
        .newer()
        .check(Check::Type),
    Generator::new("latency|latest", |_| command!["LATENCY", "LATEST"]),
    Generator::new("latency|history", |_| {
        command!["LATENCY", "HISTORY", "command"]
    }),
    Generator::new("latency|graph", |s| command!["LATENCY", "GRAPH", s.text(4)]),
    Generator::new("latency|reset", |s| match s.random.below(2) {
        0 => command!["LATENCY", "RESET", "command", "fork"],
        _ => command!["LATENCY", "RESET"],
    }),
    Generator::new("latency|doctor", |_| command!["LATENCY", "DOCTOR"]).check(Check::Type),
    Generator::new("latency|histogram", |s| {
        command!["LATENCY", "HISTOGRAM", s.word(&["set", "get", "odd"])]
    })
    .check(Check::Type),
    Generator::new("latency|help", |_| command!["LATENCY", "HELP"]).check(Check::Type),
    Generator::new("debug|digest", |_| command!["DEBUG", "DIGEST"]).undistorted(),
    Generator::new("debug|digest-value", |s| {
        [command!["DEBUG"], s.name_and_keys("DIGEST-VALUE")].concat()
    }),
    Generator::new("debug|error", |s| command!["DEBUG", "ERROR", s.text(20)]).undistorted(),
    Generator::new("debug|object", |s| command!["DEBUG", "OBJECT", s.any_key()]).check(Check::Type),
    Generator::new("debug|populate", |s| match s.random.below(4) {
        0 => command!["DEBUG", "POPULATE", 2],
        1 => command![
            "DEBUG",
            "POPULATE",
            s.random.between(0, 3),
            "s",
            s.random.between(0, 99)
        ],
        2 => command!["DEBUG", "POPULATE", -1],
        _ => command!["DEBUG", "POPULATE", 3, "n"],
    })
    .undistorted(),
    Generator::new("debug|protocol", |s| {
        let kind = s.word(&[
            "string", "integer", "double", "bignum", "null", "array", "set", "MAP", "attrib",
            "push", "verbatim", "true", "false", "odd",
        ]);
        command!["DEBUG", "PROTOCOL", kind]
    })
    .undistorted(),
    Generator::new("debug|set-active-expire", |_| {
        command!["DEBUG", "SET-ACTIVE-EXPIRE", 1]
    })
    .undistorted(),
    Generator::new("debug|sleep", |_| command!["DEBUG", "SLEEP", "0"]).undistorted(),
    Generator::new("debug|help", |_| command!["DEBUG", "HELP"])
        .check(Check::Type)
        .undistorted(),
    Generator::new("debug|tier", |s| command!["DEBUG", "TIER", s.any_key()]).alone(|reply| {
        let tiers: &[&[u8]] = &[b"hot", b"warm", b"cold"];
        match reply {
            Reply::Simple(tier) => tiers.contains(&tier.as_slice()),
            reply => matches!(reply, Reply::Null(_)),
        }
    }),
    Generator::new("debug|force-warm", |_| command!["DEBUG", "FORCE-WARM"])
        .alone(|reply| *reply == Reply::Simple(b"OK".to_vec())),
    Generator::new("debug|force-cold", |_| command!["DEBUG", "FORCE-COLD"])
        .alone(|reply| *reply == Reply::Simple(b"OK".to_vec())),
];

/// Parameters that take a number and change nothing that is compared.
const CHANGED: &[&str] = &[
    "slowlog-max-len",
    "hash-max-listpack-entries",
    "lfu-log-factor",
    "lfu-decay-time",
    "set-max-intset-entries",
    "active-defrag-cycle-min",
    "nonsense",
];

fn parameter(s: &mut Source) -> &'static str {
    s.word(&[
        "databases",
        "slowlog-max-len",
        "maxmemory-policy",
        "timeout",
        "APPENDONLY",
        "hash-max-listpack-*",
        "set-max-intset-entries",
        "proto-max-bulk-len",
        "nonsense",
    ])
}

/// Commands whose description is compared.
const NAMES: &[&str] = &[
    "get",
    "SET",
    "mget",
    "mset",
    "del",
    "copy",
    "rename",
    "expire",
    "scan",
    "bitop",
    "lcs",
    "incrbyfloat",
    "ping",
    "append",
    "move",
    "swapdb",
    "dbsize",
    "getrange",
    "setrange",
    "type",
];

/// Name, arity, first key, last key and step of each are the same.
fn same_shapes(ferrite: &Reply, oracle: &Reply) -> bool {
    let shape = |reply: &Reply| {
        let fields = reply.elements().unwrap_or_default();
        [0, 1, 3, 4, 5].map(|at| fields.get(at).cloned())
    };
    let shapes = |reply: &Reply| Some(reply.elements()?.iter().map(shape).collect::<Vec<_>>());
    shapes(ferrite) == shapes(oracle)
}

fn some_command(s: &mut Source) -> Command {
    match s.random.below(10) {
        0 => command!["MSET", s.key(), "1", s.key(), "2"],
        1 => s.name_and_keys("DEL"),
        2 => command!["COPY", s.key(), s.key(), "REPLACE"],
        3 => command!["BITOP", "AND", s.key(), s.key(), s.key()],
        4 => command!["GET", s.key()],
        5 => command!["RENAME", s.key(), s.key()],
        6 => command!["OBJECT", "ENCODING", s.key()],
        7 => command!["MEMORY", "USAGE", s.key()],
        8 => command![
            s.word(&["TTL", "TYPE", "STRLEN", "TOUCH", "PERSIST", "INCR"]),
            s.key()
        ],
        // Of one word alone Redis 7.0 says something else than 7.2.
        _ => match s.random.below(3) {
            0 => command!["PING", "x"],
            1 => command!["NONSENSE", "x"],
            _ => command!["GET", "x", "y"],
        },
    }
}

fn log_kind(s: &mut Source) -> &'static str {
    s.word(&["slow", "large-request", "LARGE-REPLY", "odd"])
}
