//! Expiry of hash fields. The oracle is Valkey, whose error texts are not those of Redis, which Ferrite has.

use super::Generator;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};
use crate::wire::Reply;

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("hset", |s| {
        let key = s.hash_key();
        if s.random.one_in(8) && key.starts_with(b"h:") {
            s.refill_hash(key.clone());
        }
        command!["HSET", key, s.element(), s.short_value()]
    })
    .newer()
    .weight(5),
    Generator::new("hgetall", |s| command!["HGETALL", s.hash_key()])
        .newer()
        .check(Check::UnorderedPairs)
        .weight(2),
    Generator::new("hincrby", |s| {
        command!["HINCRBY", s.hash_key(), s.element(), 1]
    })
    .newer(),
    Generator::new("hdel", |s| command!["HDEL", s.hash_key(), s.element()]).newer(),
    Generator::new("hlen", |s| command!["HLEN", s.hash_key()]).newer(),
    generator("hexpire", |s| {
        let time = s.ttl_seconds();
        expire(s, "HEXPIRE", time)
    }),
    generator("hpexpire", |s| {
        let time = s.ttl_ms();
        expire(s, "HPEXPIRE", time)
    }),
    generator("hexpireat", |s| {
        let time = s.future_seconds();
        expire(s, "HEXPIREAT", time)
    })
    .weight(3),
    generator("hpexpireat", |s| {
        let time = s.future_ms();
        expire(s, "HPEXPIREAT", time)
    })
    .weight(3),
    generator("hpersist", |s| ask(s, "HPERSIST")),
    generator("httl", |s| ask(s, "HTTL")),
    generator("hpttl", |s| ask(s, "HPTTL")),
    generator("hexpiretime", |s| ask(s, "HEXPIRETIME")),
    generator("hpexpiretime", |s| ask(s, "HPEXPIRETIME")).weight(3),
    generator("hgetdel", |s| ask(s, "HGETDEL")),
    generator("hgetex", |s| {
        let command = command!["HGETEX", s.hash_key()];
        let command = match s.random.below(4) {
            0 => [command, command!["PERSIST"]].concat(),
            1 => [command, command!["PXAT", s.future_ms()]].concat(),
            2 => [command, command!["EX", s.random.between(-1, 1) * 100_000]].concat(),
            _ => command,
        };
        with_fields(s, command)
    })
    .weight(2),
    generator("hsetex", hsetex).weight(3),
];

const fn generator(name: &'static str, make: fn(&mut Source) -> Command) -> Generator {
    Generator::new(name, make)
        .newer()
        .check(Check::By(near_or_both_errors))
        .undistorted()
}

/// What depends on the moment at which a server looks may differ by some seconds.
fn near_or_both_errors(ferrite: &Reply, oracle: &Reply) -> bool {
    match (ferrite, oracle) {
        (Reply::Error(_), Reply::Error(_)) => true,
        (Reply::Integer(ours), Reply::Integer(theirs)) => {
            ours == theirs || *ours > 2 && *theirs > 2 && ours.abs_diff(*theirs) <= 3_000
        }
        (Reply::Array(ours), Reply::Array(theirs)) => {
            ours.len() == theirs.len()
                && ours
                    .iter()
                    .zip(theirs)
                    .all(|(ours, theirs)| near_or_both_errors(ours, theirs))
        }
        _ => ferrite == oracle,
    }
}

fn expire(s: &mut Source, name: &str, time: i64) -> Command {
    let time = match s.random.below(20) {
        0 => -1,
        1 => 0,
        _ => time,
    };
    let mut command = command![name, s.hash_key(), time];
    if s.random.one_in(2) {
        command.push(s.word(&["NX", "xx", "GT", "lt", "XY"]).encoded());
    }
    with_fields(s, command)
}

fn ask(s: &mut Source, name: &str) -> Command {
    let command = command![name, s.hash_key()];
    with_fields(s, command)
}

/// `command` with FIELDS, their number, which is wrong now and then, and themselves.
fn with_fields(s: &mut Source, mut command: Command) -> Command {
    let count = s.random.between(1, 5);
    let told = if s.random.one_in(30) {
        s.random.between(-1, 6)
    } else {
        count
    };
    command.extend(command!["FIELDS", told]);
    for _ in 0..count {
        command.push(s.element());
    }
    command
}

fn hsetex(s: &mut Source) -> Command {
    let mut command = command!["HSETEX", s.hash_key()];
    if s.random.one_in(3) {
        command.push(s.word(&["FNX", "fxx"]).encoded());
    }
    match s.random.below(4) {
        0 => command.push(b"KEEPTTL".to_vec()),
        1 => command.extend(command!["exat", s.future_seconds()]),
        2 => command.extend(command!["PX", s.random.between(-1, 1) * 100_000_000]),
        _ => {}
    }
    let count = s.random.between(1, 3);
    command.extend(command!["FIELDS", count]);
    for _ in 0..count {
        command.extend([s.element(), s.short_value()]);
    }
    command
}
