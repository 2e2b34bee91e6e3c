//! docs/compatibility.md lists every command there is, with what differs from Redis. After a change, run this test with
//! FERRITE_BLESS=1 to bring the page up to date.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::Server;

const BEGIN: &str = "<!-- commands -->\n";
const END: &str = "<!-- end of commands -->";

/// The groups of the table in their order, with their headings.
const GROUPS: [(&str, &str); 13] = [
    ("string", "Strings"),
    ("bitmap", "Bits"),
    ("hash", "Hashes"),
    ("list", "Lists"),
    ("set", "Sets"),
    ("sorted-set", "Sorted sets"),
    ("stream", "Streams"),
    ("hyperloglog", "HyperLogLogs"),
    ("geo", "Places"),
    ("generic", "Keys"),
    ("transactions", "Transactions"),
    ("connection", "Connections"),
    ("server", "Server"),
];

const ONE_USER: &str = "there is one user, `default`, with the password of `requirepass`";
const TRIMMED: &str = "with `~` entries go by the number of those that a node of Redis would hold, so other ones may stay; never more go than may";
const SORTS: &str = "what BY and GET name is read key by key, each value as of some moment while the command runs (in a transaction, of one moment); ALPHA orders by bytes; the encoding of a sorted set stays";
const MOVES_TWO: &str =
    "who has waited longest may come second if another command has the target list at that moment";
const OWN_WORDS: &str = "the text is our own";

/// What is not as in Redis: the command, and how it differs and why.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "acl",
        "only what clients ask about the one user there is, `default`",
    ),
    ("acl|getuser", ONE_USER),
    ("acl|help", OWN_WORDS),
    ("acl|list", ONE_USER),
    ("acl|users", ONE_USER),
    (
        "bgrewriteaof",
        "makes a checkpoint, as `BGSAVE` does: with it the command log begins anew",
    ),
    (
        "bgsave",
        "makes a checkpoint of the data directory, not an RDB file; `CANCEL` as in Valkey 9",
    ),
    ("blmove", MOVES_TWO),
    ("brpoplpush", MOVES_TWO),
    (
        "client",
        "`CACHING` and `TRACKING` are missing: there is no client tracking",
    ),
    ("client|getredir", "always -1: there is no client tracking"),
    ("client|help", OWN_WORDS),
    (
        "client|info",
        "as in Redis 7.4, then `tot-net-in`, `tot-net-out` and `tot-cmds`; sizes are as of the latest batch of commands",
    ),
    ("client|kill", "more filters: those of Valkey 9 but `CAPA`"),
    (
        "client|list",
        "lines as of `CLIENT INFO`; more filters: those of Valkey 9 but `CAPA`",
    ),
    (
        "client|no-touch",
        "reads do not count for which records stay in memory",
    ),
    (
        "client|trackinginfo",
        "always off: there is no client tracking",
    ),
    ("client|unblock", "does not end `WAIT` and `WAITAOF`"),
    ("command|docs", "summaries are our own; no history"),
    ("command|help", OWN_WORDS),
    ("commandlog|help", OWN_WORDS),
    (
        "config|get",
        "the directives of Redis 7.2 and our own, see [configuration](configuration.md)",
    ),
    ("config|help", OWN_WORDS),
    (
        "config|set",
        "some directives are fixed at start, see [configuration](configuration.md)",
    ),
    (
        "dbsize",
        "a new key may, about once in 15,000 times, be taken for one that is cold, and counts half a second after the last such write",
    ),
    (
        "debug",
        "only the subcommands listed here; `TIER` and `FORCE-COLD` are our own",
    ),
    (
        "debug|force-cold",
        "our own: moves all data to the cold tier",
    ),
    ("debug|help", OWN_WORDS),
    ("debug|object", "the fields that have a meaning here"),
    (
        "debug|tier",
        "our own: where a key lies, `hot`, `warm` or `cold`",
    ),
    (
        "dump",
        "payloads of RDB version 10, uncompressed, which Redis from 7.0 on and Valkey read; of a hash with fields that expire version 12, for Redis from 7.4 on. When a consumer of a stream last got something is not in them",
    ),
    (
        "flushall",
        "SYNC and ASYNC are the same: the databases are empty at once, what was in them is swept in the background",
    ),
    (
        "flushdb",
        "SYNC and ASYNC are the same: the database is empty at once, what was in it is swept in the background",
    ),
    (
        "hello",
        "says `redis` 7.4.2, by which clients choose what to send",
    ),
    (
        "info",
        "figures that mean nothing here are zero; COPY does not count in `keyspace_hits`; `ferrite_version` and the section `Tiers` are our own",
    ),
    ("keys", "another order"),
    ("latency|doctor", OWN_WORDS),
    ("latency|graph", "the graph is drawn in our own way"),
    ("latency|help", OWN_WORDS),
    (
        "lolwut",
        "a picture of our own: `LOLWUT [VERSION 1] [columns] [rows] [rounds]`",
    ),
    ("memory|doctor", OWN_WORDS),
    ("memory|help", OWN_WORDS),
    ("memory|malloc-stats", "says that the allocator has none"),
    (
        "memory|purge",
        "there is nothing to give back: memory is handed out and taken back in whole segments",
    ),
    (
        "memory|stats",
        "Redis's fields; figures are those of the tiers in memory",
    ),
    (
        "memory|usage",
        "what the record takes, in whichever tier, with its part of the index",
    ),
    (
        "module",
        "there are no modules: `LOAD`, `LOADEX` and `UNLOAD` are missing",
    ),
    ("module|help", OWN_WORDS),
    (
        "object|encoding",
        "tells by the value alone, not by how it came about: a list that has shrunk is a listpack again by its size",
    ),
    (
        "object|freq",
        "always the error of a policy that counts no accesses: none are counted",
    ),
    ("object|help", OWN_WORDS),
    (
        "object|idletime",
        "always 0: no time of use is stored beside a record",
    ),
    ("object|refcount", "always 1: no two keys share a value"),
    (
        "restore",
        "also what Valkey 9 and newer versions of Redis dump, as far as there are such types; all of a payload is checked, whatever `sanitize-dump-payload` says, also that nothing follows the value; a time to live beyond all times is an error; IDLETIME and FREQ are taken, and not kept",
    ),
    ("restore-asking", "as `RESTORE`"),
    ("scan", "another order, and cursors of another kind"),
    ("save", "nobody waits for it but the client that asked"),
    (
        "shutdown",
        "with a command log it makes a checkpoint too, unless `NOSAVE` is given, so that the next start is fast",
    ),
    ("slowlog|help", OWN_WORDS),
    ("sort", SORTS),
    ("sort_ro", SORTS),
    (
        "wait",
        "there are no replicas: answers 0 when the timeout is over",
    ),
    (
        "waitaof",
        "syncs at once, whatever `appendfsync` says; there are no replicas",
    ),
    ("xadd", TRIMMED),
    ("xgroup|help", OWN_WORDS),
    ("xinfo|help", OWN_WORDS),
    (
        "xinfo|stream",
        "there is no radix tree: `radix-tree-keys` and `radix-tree-nodes` are what one would have about",
    ),
    ("xread", "`+` as in Redis 7.4"),
    (
        "xreadgroup",
        "who waits for a stream that expires is told when a command writes to it",
    ),
    (
        "xsetid",
        "clients that watch the key are told, which they are not in Redis",
    ),
    ("xtrim", TRIMMED),
    ("zadd", "a score of -0 is 0"),
    (
        "zscan",
        "scores are printed as by ZSCORE; Redis prints those of a skiplist with 17 digits",
    ),
];

#[test]
fn the_page_lists_every_command() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let names = bulk_strings(&client.command(&["COMMAND", "LIST"]));
    let mut groups: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for name in &names {
        let docs = bulk_strings(&client.command(&["COMMAND", "DOCS", name]));
        let field = |field: &str| {
            let at = docs.iter().position(|text| text == field);
            docs[at.unwrap_or_else(|| panic!("{name} has no {field}")) + 1].clone()
        };
        let row = row(name, &field("since"), &field("summary"));
        groups
            .entry(field("group"))
            .or_default()
            .insert(name.clone(), row);
    }
    for (name, _) in DIFFERENCES {
        assert!(
            names.iter().any(|known| known == name),
            "there is no {name}"
        );
    }
    compare(&table(groups));
}

/// One line of the table.
fn row(name: &str, since: &str, summary: &str) -> String {
    let written = name.to_ascii_uppercase().replace('|', " ");
    let difference = DIFFERENCES.iter().find(|(differing, _)| *differing == name);
    let compatibility = difference.map_or("same".to_owned(), |(_, how)| format!("differs: {how}"));
    format!("| `{written}` | {since} | {summary} | {compatibility} |\n")
}

fn table(mut groups: BTreeMap<String, BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (group, heading) in GROUPS {
        let rows = groups
            .remove(group)
            .unwrap_or_else(|| panic!("no commands of group {group}"));
        let _ = write!(
            text,
            "\n## {heading}\n\n| Command | Since | What it does | As in Redis |\n|---|---|---|---|\n"
        );
        text.extend(rows.into_values());
    }
    assert!(
        groups.is_empty(),
        "groups without a heading: {:?}",
        groups.keys()
    );
    text.push('\n');
    text
}

/// Compares the page with `table`, or puts that into it.
fn compare(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let old = fs::read_to_string(&path).unwrap();
    let from = old.find(BEGIN).expect("the marker before the tables") + BEGIN.len();
    let to = old.find(END).expect("the marker after the tables");
    let mut new = old.clone();
    new.replace_range(from..to, table);
    if std::env::var_os("FERRITE_BLESS").is_some() {
        fs::write(&path, new).unwrap();
    } else {
        assert!(
            old == new,
            "docs/compatibility.md is out of date; run this test with FERRITE_BLESS=1"
        );
    }
}

/// The bulk strings of a reply, in order. None of them holds a line break.
fn bulk_strings(reply: &str) -> Vec<String> {
    let mut lines = reply.split("\r\n");
    let mut texts = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('$') {
            texts.extend(lines.next().map(str::to_owned));
        }
    }
    texts
}
