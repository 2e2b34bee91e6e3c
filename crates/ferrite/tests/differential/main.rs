//! Differential tests: the same random commands go to Ferrite and to a real server, and every
//! reply must be the same.
//!
//! Each run prints its seed; `FERRITE_TEST_SEED=<seed>` repeats it. The commands come from the
//! table in `generators`; a test fails if Ferrite has a command that is neither there nor among
//! the few exclusions. Where there is no `redis-server` (or, for commands newer than Redis 7.0,
//! `valkey-server`) the tests say so and pass.

mod check;
#[path = "../common/mod.rs"]
mod common;
mod coverage;
mod descriptions;
mod generators;
mod oracle;
mod random;
mod session;
mod source;
mod wire;

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use common::Server;
use generators::{Generator, Knows};
use oracle::Oracle;
use session::{Ferrite, Plan, Session};
use wire::{Address, Connection, Reply};

/// Redis's defaults where Ferrite's own differ and replies show it.
const FERRITE: &[&str] = &["--enable-debug-command", "yes"];
/// The least memory that two workers start with.
const SMALL_MEMORY: &[&str] = &["--enable-debug-command", "yes", "--maxmemory", "36mb"];

/// A write that has been acknowledged survives everything.
const ALWAYS: &[&str] = &["--enable-debug-command", "yes", "--appendfsync", "always"];
const ALWAYS_SMALL_MEMORY: &[&str] = &[
    "--enable-debug-command",
    "yes",
    "--appendfsync",
    "always",
    "--maxmemory",
    "36mb",
];

#[test]
fn replies_as_redis_in_resp2() {
    compare("redis-server", Knows::Redis, "2", FERRITE);
}

#[test]
fn replies_as_redis_in_resp3() {
    compare("redis-server", Knows::Redis, "3", FERRITE);
}

#[test]
fn replies_as_redis_in_resp2_from_disk() {
    compare("redis-server", Knows::Redis, "2", SMALL_MEMORY);
}

#[test]
fn replies_as_redis_in_resp3_from_disk() {
    compare("redis-server", Knows::Redis, "3", SMALL_MEMORY);
}

#[test]
fn newer_commands_reply_as_valkey() {
    compare("valkey-server", Knows::Valkey, "2", FERRITE);
    compare("valkey-server", Knows::Valkey, "3", SMALL_MEMORY);
}

#[test]
fn restarts_change_nothing() {
    for directives in [ALWAYS, ALWAYS_SMALL_MEMORY] {
        let generators: Vec<_> = generators::of_data().collect();
        run("redis-server", Knows::Redis, "3", directives, &generators);
    }
}

fn compare(program: &str, knows: Knows, protocol: &'static str, directives: &[&'static str]) {
    let generators: Vec<_> = generators::all().collect();
    run(program, knows, protocol, directives, &generators);
}

fn run(
    program: &str,
    knows: Knows,
    protocol: &'static str,
    directives: &[&'static str],
    generators: &[Generator],
) {
    let Some(oracle) = Oracle::start(program) else {
        println!("skipped: no {program}");
        return;
    };
    let seed = seed();
    println!("seed {seed}, RESP{protocol}, {program}, ferrite {directives:?}");
    let plan = Plan {
        ferrite: Ferrite::start(directives),
        oracle: oracle.address.clone(),
        seed,
        protocol,
        knows,
        force_cold: directives.contains(&"36mb"),
        restart: directives.contains(&"always"),
    };
    let result = Session::open(plan).and_then(|session| session.run(generators));
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn seed() -> u64 {
    if let Ok(seed) = std::env::var("FERRITE_TEST_SEED") {
        return seed.parse().expect("FERRITE_TEST_SEED is a number");
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970");
    now.as_nanos() as u64
}

#[test]
fn commands_are_described_as_in_redis() {
    let ferrite = Server::start(FERRITE);
    let address = Address::Tcp(ferrite.port);
    descriptions::compare(&mut Connection::open(&address).expect("a connection"));
}

#[test]
fn every_command_has_a_generator() {
    let ferrite = Server::start(FERRITE);
    let mut connection = Connection::open(&Address::Tcp(ferrite.port)).expect("a connection");
    let reply = connection.call(&["COMMAND"]).expect("a reply");
    let commands = reply.elements().expect("an array of commands");
    assert!(!commands.is_empty());
    let mut covered: BTreeSet<&str> = generators::all().map(|generator| generator.name).collect();
    covered.extend(generators::EXCLUDED.iter().map(|(name, _)| *name));
    let mut names = BTreeSet::new();
    commands
        .iter()
        .for_each(|command| collect_names(command, &mut names));
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !covered.contains(name.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "commands without a generator: {missing:?}"
    );
    let unknown: Vec<_> = covered
        .iter()
        .filter(|name| !names.contains(**name))
        .collect();
    assert!(
        unknown.is_empty(),
        "generators without a command: {unknown:?}"
    );
}

/// Adds the name of a command that COMMAND describes, or those of its subcommands.
fn collect_names(command: &Reply, names: &mut BTreeSet<String>) {
    let fields = command.elements().expect("a command's fields");
    let subcommands = fields.last().and_then(Reply::elements).unwrap_or_default();
    subcommands
        .iter()
        .for_each(|subcommand| collect_names(subcommand, names));
    let name = String::from_utf8_lossy(fields[0].bytes().expect("a name")).into_owned();
    if subcommands.is_empty() || name == "command" {
        names.insert(name);
    }
}
