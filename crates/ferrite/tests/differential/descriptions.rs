//! COMMAND says of each command what Redis says of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::oracle::Oracle;
use crate::wire::{Connection, Reply};

/// What has changed in Redis after 7.0, which is what there is to compare with: command and field.
const NEWER: &[(&str, &str)] = &[
    ("client|setname", "tips"),
    ("command|getkeys", "arity"),
    ("command|getkeysandflags", "arity"),
    ("config|resetstat", "tips"),
    ("config|rewrite", "tips"),
    ("latency|reset", "tips"),
    ("wait", "flags"),
    ("wait", "categories"),
    ("blmove", "flags"),
    ("blpop", "flags"),
    ("brpop", "flags"),
    ("brpoplpush", "flags"),
    ("bzpopmax", "flags"),
    ("bzpopmin", "flags"),
    ("zrank", "arity"),
    ("zrevrank", "arity"),
];

const ORACLE: &str = "redis-server";

/// Name, arity, first and last key and step, flags, categories and tips, by the name of the field.
type Description = BTreeMap<&'static str, BTreeSet<String>>;

/// Compares what the server behind `ferrite` says of its commands with what Redis says of those it has, too.
pub(crate) fn compare(ferrite: &mut Connection) {
    let Some(oracle) = Oracle::start(ORACLE) else {
        println!("skipped: no {ORACLE}");
        return;
    };
    let mut redis = Connection::open(&oracle.address).expect("a connection");
    let theirs = describe(&mut redis);
    let (mut compared, mut differences) = (0, Vec::new());
    for (name, ours) in describe(ferrite) {
        let Some(theirs) = theirs.get(&name) else {
            continue;
        };
        compared += 1;
        for (field, what) in ours {
            if what != theirs[field] && !NEWER.contains(&(name.as_str(), field)) {
                differences.push(format!(
                    "{field} of {name}: {what:?}, in Redis {:?}",
                    theirs[field]
                ));
            }
        }
    }
    println!("{compared} commands compared");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 100, "only {compared} commands are known to both");
}

fn describe(connection: &mut Connection) -> BTreeMap<String, Description> {
    let reply = connection.call(&["COMMAND"]).expect("a reply");
    let mut all = BTreeMap::new();
    let commands = reply.elements().expect("an array of commands");
    commands.iter().for_each(|command| add(command, &mut all));
    all
}

fn add(command: &Reply, all: &mut BTreeMap<String, Description>) {
    let fields = command.elements().expect("the fields of a command");
    let set = |at: usize| -> BTreeSet<String> {
        let elements = fields[at].elements().expect("a set");
        elements.iter().map(text).collect()
    };
    let one = |at: usize| BTreeSet::from([text(&fields[at])]);
    let description = BTreeMap::from([
        ("arity", one(1)),
        ("flags", set(2)),
        ("first key", one(3)),
        ("last key", one(4)),
        ("step", one(5)),
        ("categories", set(6)),
        ("tips", set(7)),
    ]);
    all.insert(text(&fields[0]), description);
    let subcommands = fields[9].elements().expect("an array of subcommands");
    subcommands
        .iter()
        .for_each(|subcommand| add(subcommand, all));
}

fn text(reply: &Reply) -> String {
    match reply.bytes() {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => format!("{reply:?}"),
    }
}
