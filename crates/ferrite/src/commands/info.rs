//! INFO: the state of the server as text in sections. What the sections say is in
//! [`info_sections`](super::info_sections).

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, tip};
use crate::commands::{info_persistence, info_sections as sections};
use crate::ctx::Ctx;
use crate::server::Server;

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "info",
    tips: tip::ALL_SHARDS_SPECIAL,
    arity: -1,
    flags: Flags::LOADING.and(Flags::STALE),
    keys: Keys::None,
    categories: &["dangerous"],
    group: "server",
    since: "1.0.0",
    complexity: "O(N) where N is the number of commands, for the sections about them, else O(1)",
    summary: "Returns information and statistics about the server.",
    handler: Handler::Worker(info),
    subcommands: &[],
}];

/// Which arguments show a section besides its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// "default", "all" and "everything"; and without arguments.
    ByDefault,
    /// "all" and "everything".
    WithAll,
}

/// Writes the lines of a section.
type Section = fn(&mut sections::Lines, &Server);

/// All sections in the order in which they are shown.
const SECTIONS: &[(&str, Shown, Section)] = &[
    ("Server", Shown::ByDefault, sections::server),
    ("Clients", Shown::ByDefault, sections::clients),
    ("Memory", Shown::ByDefault, sections::memory),
    (
        "Persistence",
        Shown::ByDefault,
        info_persistence::persistence,
    ),
    ("Stats", Shown::ByDefault, sections::stats),
    ("Replication", Shown::ByDefault, sections::replication),
    ("CPU", Shown::ByDefault, sections::cpu),
    ("Modules", Shown::ByDefault, sections::modules),
    ("Commandstats", Shown::WithAll, sections::commandstats),
    ("Errorstats", Shown::ByDefault, sections::errorstats),
    ("Latencystats", Shown::WithAll, sections::latencystats),
    ("Cluster", Shown::ByDefault, sections::cluster),
    ("Keyspace", Shown::ByDefault, sections::keyspace),
    ("Tiers", Shown::ByDefault, sections::tiers),
];

fn info(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let mut text = sections::Lines::default();
    for (name, shown, write) in SECTIONS {
        if is_wanted(name, *shown, args) {
            text.heading(name);
            write(&mut text, cx.server);
        }
    }
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn is_wanted(name: &str, shown: Shown, args: Args<'_>) -> bool {
    let by_default = shown == Shown::ByDefault;
    args.len() == 1 && by_default
        || (1..args.len()).any(|i| {
            args.is(i, name)
                || args.is(i, "all")
                || args.is(i, "everything")
                || args.is(i, "default") && by_default
        })
}
