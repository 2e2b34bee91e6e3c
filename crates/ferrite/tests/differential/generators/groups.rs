//! Consumer groups of streams. When something was delivered is as near as the servers are; XCLAIM sets times that are far
//! apart, so that it can be asked for what is idle.

use super::Generator;
use super::streams::same_but_of_7_2;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Source};
use crate::wire::Reply;

/// Times of delivery may differ by so many milliseconds.
const NEAR_MS: u64 = 60_000;

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("xgroup|create", create).weight(5),
    Generator::new("xgroup|setid", |s| {
        let mut command = command!["XGROUP", "SETID", s.stream_key(), group(s), start(s)];
        if s.random.one_in(3) {
            command.extend(command!["ENTRIESREAD", s.random.between(-2, 60)]);
        }
        command
    })
    .weight(2),
    Generator::new("xgroup|destroy", |s| {
        let (key, group) = (s.stream_key(), group(s));
        if s.random.one_in(2) {
            s.then.push_back(command![
                "XGROUP",
                "CREATE",
                key.clone(),
                group.clone(),
                "0"
            ]);
        }
        command!["XGROUP", "DESTROY", key, group]
    }),
    Generator::new("xgroup|delconsumer", |s| {
        command![
            "XGROUP",
            "DELCONSUMER",
            s.stream_key(),
            group(s),
            consumer(s)
        ]
    }),
    Generator::new("xreadgroup", read)
        .check(Check::By(same_but_of_7_2))
        .weight(10),
    Generator::new("xack", |s| {
        let mut command = command!["XACK", s.stream_key(), group(s)];
        for _ in 0..s.random.between(1, 5) {
            command.push(s.stream_id());
        }
        command
    })
    .weight(4),
    Generator::new("xpending", pending)
        .check(Check::By(near))
        .weight(6),
    Generator::new("xclaim", claim).weight(5),
    Generator::new("xautoclaim", autoclaim).weight(3),
    Generator::new("xinfo|stream", |s| {
        command!["XINFO", "STREAM", s.stream_key()]
    })
    .check(Check::By(same_but_nodes))
    .weight(3),
    Generator::new("xgroup|help", |_| command!["XGROUP", "HELP"]).check(Check::Type),
    Generator::new("xinfo|help", |_| command!["XINFO", "HELP"]).check(Check::Type),
    // What Redis 7.2 has changed: consumers are there once they have asked, and tell when they got something; the lag.
    Generator::new("xadd", |s| {
        s.clock += 1;
        s.sequence += 1;
        let id = format!("{}-{}", s.clock, s.sequence);
        command!["XADD", s.stream_key(), id, "field", s.short_value()]
    })
    .newer()
    .undistorted()
    .weight(8),
    Generator::new("xdel", |s| {
        command!["XDEL", s.stream_key(), s.stream_id(), s.stream_id()]
    })
    .newer()
    .weight(3),
    Generator::new("xtrim", |s| {
        command!["XTRIM", s.stream_key(), "MAXLEN", s.random.between(0, 9)]
    })
    .newer(),
    Generator::new("xgroup|create", create).newer().weight(5),
    Generator::new("xgroup|createconsumer", |s| {
        command![
            "XGROUP",
            "CREATECONSUMER",
            s.stream_key(),
            group(s),
            consumer(s)
        ]
    })
    .newer(),
    Generator::new("xgroup|delconsumer", |s| {
        command![
            "XGROUP",
            "DELCONSUMER",
            s.stream_key(),
            group(s),
            consumer(s)
        ]
    })
    .newer(),
    Generator::new("xgroup|setid", |s| {
        let mut command = command!["XGROUP", "SETID", s.stream_key(), group(s), start(s)];
        if s.random.one_in(3) {
            command.extend(command!["ENTRIESREAD", s.random.between(-2, 60)]);
        }
        command
    })
    .newer(),
    Generator::new("xgroup|destroy", |s| {
        command!["XGROUP", "DESTROY", s.stream_key(), group(s)]
    })
    .newer(),
    Generator::new("xreadgroup", read).newer().weight(8),
    Generator::new("xack", |s| {
        command![
            "XACK",
            s.stream_key(),
            group(s),
            s.stream_id(),
            s.stream_id()
        ]
    })
    .newer()
    .weight(2),
    Generator::new("xclaim", claim).newer().weight(4),
    Generator::new("xautoclaim", autoclaim).newer().weight(2),
    Generator::new("xpending", pending)
        .newer()
        .check(Check::By(near))
        .weight(3),
    Generator::new("xinfo|groups", |s| {
        command!["XINFO", "GROUPS", s.stream_key()]
    })
    .newer()
    .check(Check::By(near))
    .weight(6),
    Generator::new("xinfo|consumers", |s| {
        command!["XINFO", "CONSUMERS", s.stream_key(), group(s)]
    })
    .newer()
    .check(Check::By(near))
    .weight(4),
    Generator::new("xinfo|stream", |s| {
        let mut command = command!["XINFO", "STREAM", s.stream_key(), "FULL"];
        if s.random.one_in(2) {
            command.extend(command!["count", s.random.between(-1, 12)]);
        }
        command
    })
    .newer()
    .check(Check::By(same_but_nodes))
    .weight(4),
];

fn group(s: &mut Source) -> Vec<u8> {
    match s.random.below(20) {
        0 => b"missing".to_vec(),
        1 => Vec::new(),
        _ => format!("g{}", s.random.below(2)).into_bytes(),
    }
}

fn consumer(s: &mut Source) -> Vec<u8> {
    format!("c{}", s.random.below(3)).into_bytes()
}

/// Behind which ID a group begins.
fn start(s: &mut Source) -> Vec<u8> {
    match s.random.below(4) {
        0 => b"$".to_vec(),
        1 => s.stream_id(),
        _ => b"0".to_vec(),
    }
}

fn create(s: &mut Source) -> Command {
    let key = if s.random.one_in(12) {
        s.missing_key()
    } else {
        s.stream_key()
    };
    let mut command = command!["XGROUP", "CREATE", key.clone(), group(s), start(s)];
    if s.random.one_in(4) {
        command.push(b"MkStream".to_vec());
    }
    if s.random.one_in(4) {
        command.extend(command!["entriesread", s.random.between(-2, 60)]);
    }
    if s.random.one_in(3) {
        s.then
            .push_back(command!["XGROUP", "CREATE", key, "g1", "0"]);
    }
    command
}

fn read(s: &mut Source) -> Command {
    let mut command = command!["XREADGROUP", "GROUP", group(s), consumer(s)];
    if s.random.one_in(2) {
        command.extend(command!["COUNT", s.random.between(-1, 5)]);
    }
    if s.random.one_in(6) {
        command.push(b"NoAck".to_vec());
    }
    command.push(b"STREAMS".to_vec());
    let streams = if s.random.one_in(4) { 2 } else { 1 };
    for _ in 0..streams {
        command.push(s.stream_key());
    }
    for _ in 0..streams {
        let id = match s.random.below(12) {
            0 => b"$".to_vec(),
            1 | 2 => b"0".to_vec(),
            3 => s.stream_id(),
            _ => b">".to_vec(),
        };
        command.push(id);
    }
    command
}

fn pending(s: &mut Source) -> Command {
    let mut command = command!["XPENDING", s.stream_key(), group(s)];
    if s.random.one_in(3) {
        return command;
    }
    if s.random.one_in(3) {
        command.extend(command!["IDLE", s.random.between(0, 2) * 500_000_000]);
    }
    let (from, to) = (s.interval_end("-"), s.interval_end("+"));
    command.extend(command![from, to, s.random.between(-1, 9)]);
    if s.random.one_in(2) {
        command.push(consumer(s));
    }
    command
}

fn claim(s: &mut Source) -> Command {
    let min_idle = s.random.between(0, 2) * 500_000_000;
    let mut command = command!["XCLAIM", s.stream_key(), group(s), consumer(s), min_idle];
    for _ in 0..s.random.between(1, 4) {
        command.push(s.stream_id());
    }
    for _ in 0..s.random.between(0, 2) {
        let option = match s.random.below(7) {
            0 => command!["IDLE", s.random.between(0, 3) * 400_000_000],
            1 => command!["TIME", s.random.between(-1, 1_600_000_000_000)],
            2 => command!["retrycount", s.random.between(-1, 9)],
            3 => command!["FORCE"],
            4 => command!["JustID"],
            5 => command!["LASTID", s.stream_id()],
            _ => command![s.oddity()],
        };
        command.extend(option);
    }
    command
}

fn autoclaim(s: &mut Source) -> Command {
    let min_idle = s.random.between(0, 2) * 500_000_000;
    let mut command = command![
        "XAUTOCLAIM",
        s.stream_key(),
        group(s),
        consumer(s),
        min_idle
    ];
    command.push(if s.random.one_in(3) {
        s.interval_end("-")
    } else {
        b"0".to_vec()
    });
    if s.random.one_in(2) {
        command.extend(command!["COUNT", s.random.between(0, 5)]);
    }
    if s.random.one_in(3) {
        command.push(b"justid".to_vec());
    }
    command
}

/// The same, but for times, which may be some seconds apart.
fn near(ferrite: &Reply, oracle: &Reply) -> bool {
    let (Some(ours), Some(theirs)) = (ferrite.elements(), oracle.elements()) else {
        return ferrite == oracle;
    };
    ours.len() == theirs.len()
        && (0..ours.len()).all(|at| match (&ours[at], &theirs[at]) {
            (Reply::Integer(a), Reply::Integer(b)) if is_time(theirs, at) => {
                a == b || *a.min(b) >= 0 && a.abs_diff(*b) < NEAR_MS
            }
            _ if is_lag(theirs, at) => true,
            (ours, theirs) => near(ours, theirs),
        })
}

/// Whether an element is the lag of a group. Of one that is before the first entry, with nothing deleted behind that, it is the
/// length of the stream since Redis 7.4; Valkey tells what the group's counter says, or nothing.
fn is_lag(elements: &[Reply], at: usize) -> bool {
    at.checked_sub(1)
        .is_some_and(|name| elements[name].bytes() == Some(b"lag"))
}

/// Whether an element is a time: behind a name that says so, or of a pending entry, behind its ID and the consumer.
fn is_time(elements: &[Reply], at: usize) -> bool {
    const NAMES: [&[u8]; 4] = [b"idle", b"inactive", b"seen-time", b"active-time"];
    match elements {
        [
            Reply::Bulk(_),
            Reply::Bulk(_),
            Reply::Integer(_),
            Reply::Integer(_),
        ] => at == 2,
        [Reply::Bulk(_), Reply::Integer(_), Reply::Integer(_)] => at == 1,
        _ => {
            let name = at.checked_sub(1).and_then(|name| elements[name].bytes());
            name.is_some_and(|name| NAMES.contains(&name))
        }
    }
}

/// The same but for times, and for how many nodes the tree has that Redis holds a stream in.
fn same_but_nodes(ferrite: &Reply, oracle: &Reply) -> bool {
    let (Some(ours), Some(theirs)) = (ferrite.elements(), oracle.elements()) else {
        return ferrite == oracle;
    };
    let is_node = |name: &Reply| {
        name.bytes()
            .is_some_and(|name| name.starts_with(b"radix-tree"))
    };
    ours.len() == theirs.len()
        && ours.chunks(2).zip(theirs.chunks(2)).all(|(ours, theirs)| {
            ours[0] == theirs[0] && (is_node(&ours[0]) || near(&ours[1], &theirs[1]))
        })
}
