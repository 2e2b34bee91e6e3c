//! Commands about the connection and the clients.

use super::Generator;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("client|unblock", |s| {
        let mut command = command!["CLIENT", "UNBLOCK", s.random.between(1_000_000, 2_000_000)];
        if s.random.one_in(2) {
            command.extend(command![s.word(&["TIMEOUT", "ERROR", "error", "NOW"])]);
        }
        command
    }),
    Generator::new("ping", |s| match s.random.below(3) {
        0 => command!["PING", s.value()],
        _ => command!["PING"],
    }),
    Generator::new("echo", |s| command!["ECHO", s.value()]),
    Generator::new("select", |s| {
        let database = if s.random.one_in(8) {
            s.oddity()
        } else {
            s.database().encoded()
        };
        command!["SELECT", database]
    }),
    Generator::new("auth", |s| match s.random.below(6) {
        0 => command!["AUTH", "secret"],
        1 => command!["AUTH", "nobody", "secret"],
        _ => command!["AUTH", "default", s.text(5)],
    }),
    Generator::new("hello", hello)
        .check(Check::Names)
        .undistorted(),
    Generator::new("reset", |s| {
        s.then.push_back(command!["HELLO", s.protocol]);
        command!["RESET"]
    })
    .undistorted(),
    Generator::new("quit", |_| command!["QUIT"])
        .check(Check::Closes)
        .undistorted(),
    Generator::new("readonly", |_| command!["READONLY"]),
    Generator::new("readwrite", |_| command!["READWRITE"]),
    Generator::new("wait", |s| {
        let replicas = match s.random.below(4) {
            0 => s.oddity(),
            1 => 1i64.encoded(),
            _ => 0i64.encoded(),
        };
        // Never 0, which would be for ever.
        command!["WAIT", replicas, s.word(&["-1", "x", "1", "5"])]
    })
    .undistorted(),
    Generator::new("client|getname", |_| command!["CLIENT", "GETNAME"]),
    Generator::new("client|setname", |s| {
        let name = if s.random.one_in(6) {
            b"two words".to_vec()
        } else {
            s.text(6)
        };
        command!["CLIENT", "SETNAME", name]
    }),
    Generator::new("client|id", |_| command!["CLIENT", "ID"]).check(Check::Type),
    Generator::new("client|info", |_| command!["CLIENT", "INFO"]).check(Check::Type),
    Generator::new("client|list", |s| match s.random.below(5) {
        0 => command![
            "CLIENT",
            "LIST",
            "TYPE",
            s.word(&["normal", "pubsub", "odd"])
        ],
        1 => command!["CLIENT", "LIST", "ID", 1, 2],
        2 => command!["CLIENT", "LIST", "ID", "x"],
        _ => command!["CLIENT", "LIST"],
    })
    .check(Check::Type)
    .undistorted(),
    Generator::new("client|kill", |s| match s.random.below(6) {
        0 => command!["CLIENT", "KILL", "192.0.2.1:80"],
        1 => command!["CLIENT", "KILL", "ID", "x"],
        2 => command!["CLIENT", "KILL", "SKIPME", "maybe", "ID", 1],
        3 => command!["CLIENT", "KILL", "TYPE", "pubsub"],
        _ => command!["CLIENT", "KILL", "ID", 1_i64 << 40],
    })
    .undistorted(),
    Generator::new("client|pause", |s| match s.random.below(6) {
        0 => command!["CLIENT", "PAUSE", "soon"],
        1 => command!["CLIENT", "PAUSE", -1],
        2 => command!["CLIENT", "PAUSE", 1, "READ"],
        3 => command!["CLIENT", "PAUSE", 1, "WRITE"],
        _ => command!["CLIENT", "PAUSE", 1],
    })
    .undistorted(),
    Generator::new("client|unpause", |_| command!["CLIENT", "UNPAUSE"]),
    // OFF and SKIP would leave nothing to compare.
    Generator::new("client|reply", |s| match s.random.below(5) {
        0 => command!["CLIENT", "REPLY", "never"],
        _ => command!["CLIENT", "REPLY", "ON"],
    })
    .undistorted(),
    Generator::new("client|no-evict", on_or_off),
    Generator::new("client|getredir", |_| command!["CLIENT", "GETREDIR"]),
    Generator::new("client|trackinginfo", |_| {
        command!["CLIENT", "TRACKINGINFO"]
    }),
    Generator::new("client|help", |_| command!["CLIENT", "HELP"]).check(Check::Type),
    Generator::new("client|no-touch", |s| {
        command!["CLIENT", "NO-TOUCH", s.word(&["ON", "off", "off", "x"])]
    })
    .newer(),
    Generator::new("client|setinfo", |s| {
        let what = s.word(&["LIB-NAME", "lib-ver", "LIB-NAME", "lib-ver", "LIB-X"]);
        let value = if s.random.one_in(6) {
            b"a b".to_vec()
        } else {
            s.text(5)
        };
        command!["CLIENT", "SETINFO", what, value]
    })
    .newer(),
    Generator::new("acl|whoami", |_| command!["ACL", "WHOAMI"]),
    Generator::new("acl|users", |_| command!["ACL", "USERS"]),
    Generator::new("acl|list", |_| command!["ACL", "LIST"]).check(Check::Type),
    Generator::new("acl|getuser", |s| {
        command!["ACL", "GETUSER", s.word(&["default", "default", "nobody"])]
    })
    .check(Check::Type),
    Generator::new("acl|cat", |s| match s.random.below(4) {
        0 => command!["ACL", "CAT", "nonsense"],
        1 => command!["ACL", "CAT", "string"],
        _ => command!["ACL", "CAT"],
    })
    .check(Check::Type),
    Generator::new("acl|help", |_| command!["ACL", "HELP"]).check(Check::Type),
];

fn hello(s: &mut Source) -> Command {
    let protocol = s.protocol;
    match s.random.below(8) {
        0 => command!["HELLO", 4],
        1 => command!["HELLO", "three"],
        2 => command!["HELLO", protocol, "AUTH", "nobody", "x"],
        3 => command![
            "HELLO", protocol, "AUTH", "default", "x", "SETNAME", "named"
        ],
        4 => command!["HELLO", protocol, "SETNAME", "named"],
        5 => command!["HELLO"],
        _ => command!["HELLO", protocol],
    }
}

fn on_or_off(s: &mut Source) -> Command {
    command!["CLIENT", "NO-EVICT", s.word(&["ON", "off", "off", "x"])]
}
