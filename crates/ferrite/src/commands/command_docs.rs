//! COMMAND: what the command table says about itself.
//!
//! Everything here is read off the rows, but for one thing: which access a writing command makes to each of its keys.
//! The table [`ACCESS`] states it where the flags of the row do not imply it.

use std::iter;
use std::ops::Range;

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop, tip};
use crate::commands::command_syntax::{self, Argument, Kind};
use crate::commands::help::reply_help;
use crate::commands::parse::SYNTAX_ERROR;
use crate::ctx::Ctx;
use crate::glob;
use crate::output::Output;
use crate::server::Server;
use crate::table::{Command, CommandTable, Lookup};

const PLAIN: Flags = Flags::LOADING.and(Flags::STALE);

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "command",
    tips: tip::UNORDERED,
    arity: -1,
    flags: PLAIN,
    keys: Keys::None,
    categories: &["connection"],
    group: "server",
    since: "2.8.13",
    complexity: "O(N) where N is the total number of commands",
    summary: "Returns detailed information about all commands.",
    handler: Handler::Worker(command),
    subcommands: &[
        subcommand("count", 2, "O(1)", "Returns the number of commands.", count),
        subcommand(
            "docs",
            -2,
            "O(N) where N is the number of commands to look up",
            "Returns documentation of commands.",
            docs,
        )
        .with_tips(tip::UNORDERED),
        subcommand(
            "getkeys",
            -3,
            "O(N) where N is the number of arguments",
            "Extracts the key names from a command.",
            getkeys,
        ),
        subcommand(
            "getkeysandflags",
            -3,
            "O(N) where N is the number of arguments",
            "Extracts the key names and the access to each from a command.",
            getkeysandflags,
        ),
        subcommand(
            "help",
            2,
            "O(1)",
            "Returns helpful text about the different subcommands.",
            help,
        ),
        subcommand(
            "info",
            -2,
            "O(N) where N is the number of commands to look up",
            "Returns what the table says about commands.",
            info,
        )
        .with_tips(tip::UNORDERED),
        subcommand(
            "list",
            -2,
            "O(N) where N is the number of commands",
            "Returns the names of all commands.",
            list,
        )
        .with_tips(tip::UNORDERED),
    ],
}];

const fn subcommand(
    name: &'static str,
    arity: i32,
    complexity: &'static str,
    summary: &'static str,
    handler: fn(&mut Ctx<'_>, Args<'_>) -> Done,
) -> Row {
    Row {
        name,
        arity,
        flags: PLAIN,
        keys: Keys::None,
        categories: &["connection"],
        group: "server",
        since: "7.0.0",
        complexity,
        summary,
        handler: Handler::Worker(handler),
        subcommands: &[],
        tips: &[],
    }
}

fn command(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_all(cx);
    Ok(())
}

fn reply_all(cx: &mut Ctx<'_>) {
    let table = &cx.server.commands;
    cx.reply.array(table.iter().count());
    table
        .iter()
        .for_each(|command| reply_info(cx.reply, table, command));
}

fn count(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply.integer(cx.server.commands.iter().count() as i64);
    Ok(())
}

fn info(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if args.len() == 2 {
        reply_all(cx);
        return Ok(());
    }
    let table = &cx.server.commands;
    cx.reply.array(args.len() - 2);
    for name in args.from(2) {
        match table.find(name) {
            Some(command) => reply_info(cx.reply, table, command),
            None => cx.reply.null(),
        }
    }
    Ok(())
}

fn docs(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let table = &cx.server.commands;
    let wanted: Vec<_> = match args.len() {
        2 => table.iter().collect(),
        _ => args.from(2).filter_map(|name| table.find(name)).collect(),
    };
    cx.reply.map(wanted.len());
    wanted
        .iter()
        .for_each(|command| reply_docs(cx.reply, table, command));
    Ok(())
}

fn list(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let selected: Box<dyn Fn(&Command) -> bool + '_> = match args.len() {
        2 => Box::new(|_| true),
        5 if args.is(2, "filterby") && args.is(3, "module") => Box::new(|_| false),
        5 if args.is(2, "filterby") && args.is(3, "aclcat") => {
            Box::new(|command| categories(command.row).any(|category| args.is(4, category)))
        }
        5 if args.is(2, "filterby") && args.is(3, "pattern") => {
            Box::new(|command| glob::matches_nocase(&args[4], command.full_name.as_bytes()))
        }
        _ => return Err(SYNTAX_ERROR.into()),
    };
    let table = &cx.server.commands;
    let with_subcommands = table
        .iter()
        .flat_map(|command| iter::once(command).chain(table.subcommands(command)));
    let names: Vec<_> = with_subcommands
        .filter(|command| selected(command))
        .map(|command| &command.full_name)
        .collect();
    cx.reply.array(names.len());
    names.iter().for_each(|name| cx.reply.bulk(name.as_bytes()));
    Ok(())
}

fn getkeys(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let quoted = args.tail(2);
    let row = row_with_keys(cx.server, quoted)?;
    let positions = key_positions(row, quoted)?;
    cx.reply.array(positions.len());
    positions
        .iter()
        .for_each(|&position| cx.reply.bulk(&quoted[position]));
    Ok(())
}

fn getkeysandflags(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let quoted = args.tail(2);
    let row = row_with_keys(cx.server, quoted)?;
    let positions = key_positions(row, quoted)?;
    let specs = key_specs(row);
    cx.reply.array(positions.len());
    for (nth, &position) in positions.iter().enumerate() {
        cx.reply.array(2);
        cx.reply.bulk(&quoted[position]);
        reply_access(cx.reply, access_of_key(row, &specs, quoted, nth));
    }
    Ok(())
}

fn help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "COMMAND",
        &[
            "(no subcommand)",
            "    Return what the table says about all commands.",
            "COUNT",
            "    Return the number of commands.",
            "DOCS [<command-name> [...]]",
            "    Return documentation of the given commands, or of all.",
            "GETKEYS <full-command>",
            "    Return the keys in a full command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys in a full command and the access to each.",
            "INFO [<command-name> [...]]",
            "    Return what the table says about the given commands, or about all.",
            "LIST [FILTERBY (MODULE <module>|ACLCAT <category>|PATTERN <glob>)]",
            "    Return the names of commands.",
        ],
    );
    Ok(())
}

/// Whether `argc` arguments, the name among them, satisfy the row's arity.
fn takes(row: &Row, argc: usize) -> bool {
    let required = row.arity.unsigned_abs() as usize;
    if row.arity < 0 {
        argc >= required
    } else {
        argc == required
    }
}

// ---- keys -----------------------------------------------------------------------------------------------------------

/// The row of a quoted command that has keys.
fn row_with_keys(server: &Server, quoted: Args<'_>) -> Result<&'static Row, Stop> {
    let Lookup::Found(command) = server.commands.lookup(quoted) else {
        return Err("ERR Invalid command specified".into());
    };
    let row = command.row;
    if matches!(row.keys, Keys::None | Keys::Everything) {
        return Err("ERR The command has no key arguments".into());
    }
    if !takes(row, quoted.len()) {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    Ok(row)
}

/// Where the keys of a quoted command are among its arguments.
fn key_positions(row: &Row, quoted: Args<'_>) -> Result<Vec<usize>, Stop> {
    let positions: Vec<_> = row.keys.positions(quoted).collect();
    if positions.is_empty() {
        return Err("ERR Invalid arguments specified for command".into());
    }
    Ok(positions)
}

/// What a command does with some of its keys, in Redis's terms.
struct Access {
    /// "RO", "RW", "OW" (overwritten without being read) or "RM" (removed without being read).
    mode: &'static str,
    /// Of "access", "update", "insert", "delete", "variable_flags".
    to_value: &'static [&'static str],
}

const READ: Access = Access {
    mode: "RO",
    to_value: &["access"],
};
const LOOK: Access = Access {
    mode: "RO",
    to_value: &[],
};
const OVERWRITE: Access = Access {
    mode: "OW",
    to_value: &["update"],
};
const EDIT: Access = Access {
    mode: "RW",
    to_value: &["update"],
};
const READ_AND_EDIT: Access = Access {
    mode: "RW",
    to_value: &["access", "update"],
};
const INSERT: Access = Access {
    mode: "OW",
    to_value: &["insert"],
};
const APPEND: Access = Access {
    mode: "RW",
    to_value: &["insert"],
};
/// Of what is read, and noted with what was found out.
const READ_AND_NOTE: Access = Access {
    mode: "RW",
    to_value: &["access"],
};
const READ_AND_APPEND: Access = Access {
    mode: "RW",
    to_value: &["access", "insert"],
};
const TAKE: Access = Access {
    mode: "RW",
    to_value: &["access", "delete"],
};
const DELETE: Access = Access {
    mode: "RW",
    to_value: &["delete"],
};
const REMOVE: Access = Access {
    mode: "RM",
    to_value: &["delete"],
};
const DISCARD: Access = Access {
    mode: "RW",
    to_value: &["delete"],
};
const ANY: Access = Access {
    mode: "RW",
    to_value: &["access", "update", "variable_flags"],
};

/// Access to the keys, one entry for each run of keys treated alike, where the row's flags do not imply it: READONLY
/// implies "RO access", WRITE implies "RW access update".
const ACCESS: &[(&str, &[Access])] = &[
    ("append", &[APPEND]),
    ("bitfield", &[ANY]),
    ("bitop", &[OVERWRITE, READ]),
    ("blmove", &[TAKE, APPEND]),
    ("blmpop", &[TAKE]),
    ("blpop", &[TAKE]),
    ("brpop", &[TAKE]),
    ("brpoplpush", &[TAKE, APPEND]),
    ("bzmpop", &[TAKE]),
    ("bzpopmax", &[TAKE]),
    ("bzpopmin", &[TAKE]),
    ("copy", &[READ, OVERWRITE]),
    ("del", &[REMOVE]),
    ("delifeq", &[TAKE]),
    ("encoding", &[LOOK]),
    ("exists", &[LOOK]),
    ("expire", &[EDIT]),
    ("expireat", &[EDIT]),
    ("freq", &[LOOK]),
    ("geoadd", &[EDIT]),
    ("georadius", &[READ, OVERWRITE]),
    ("georadiusbymember", &[READ, OVERWRITE]),
    ("geosearchstore", &[OVERWRITE, READ]),
    ("getdel", &[TAKE]),
    ("idletime", &[LOOK]),
    ("linsert", &[APPEND]),
    ("llen", &[LOOK]),
    ("lmove", &[TAKE, APPEND]),
    ("lmpop", &[TAKE]),
    ("lpop", &[TAKE]),
    ("lpush", &[APPEND]),
    ("lpushx", &[APPEND]),
    ("lrem", &[DISCARD]),
    ("lset", &[EDIT]),
    ("ltrim", &[DISCARD]),
    ("move", &[TAKE]),
    ("mset", &[OVERWRITE]),
    ("msetex", &[OVERWRITE]),
    ("msetnx", &[INSERT]),
    ("persist", &[EDIT]),
    ("pexpire", &[EDIT]),
    ("pexpireat", &[EDIT]),
    ("pfadd", &[APPEND]),
    ("pfcount", &[READ_AND_NOTE]),
    ("pfdebug", &[READ_AND_NOTE]),
    ("pfmerge", &[READ_AND_APPEND, READ]),
    ("psetex", &[OVERWRITE]),
    ("refcount", &[LOOK]),
    ("rename", &[TAKE, OVERWRITE]),
    ("renamenx", &[TAKE, INSERT]),
    ("restore", &[OVERWRITE]),
    ("restore-asking", &[OVERWRITE]),
    ("rpop", &[TAKE]),
    ("rpoplpush", &[TAKE, APPEND]),
    ("rpush", &[APPEND]),
    ("rpushx", &[APPEND]),
    ("set", &[ANY]),
    ("setex", &[OVERWRITE]),
    ("setnx", &[INSERT]),
    ("setrange", &[EDIT]),
    ("sort", &[READ]),
    ("strlen", &[LOOK]),
    ("touch", &[LOOK]),
    ("type", &[LOOK]),
    ("unlink", &[REMOVE]),
    ("usage", &[LOOK]),
    ("xack", &[EDIT]),
    ("xadd", &[EDIT]),
    ("xautoclaim", &[DELETE]),
    ("xclaim", &[EDIT]),
    ("xdel", &[DELETE]),
    ("create", &[APPEND]),
    ("createconsumer", &[APPEND]),
    ("delconsumer", &[DELETE]),
    ("destroy", &[DELETE]),
    ("setid", &[EDIT]),
    ("xlen", &[LOOK]),
    ("xreadgroup", &[READ]),
    ("xsetid", &[EDIT]),
    ("xtrim", &[DELETE]),
    ("zadd", &[EDIT]),
    ("zcard", &[LOOK]),
    ("zdiffstore", &[OVERWRITE, READ]),
    ("zinterstore", &[OVERWRITE, READ]),
    ("zmpop", &[TAKE]),
    ("zpopmax", &[TAKE]),
    ("zpopmin", &[TAKE]),
    ("zrangestore", &[OVERWRITE, READ]),
    ("zrem", &[DELETE]),
    ("zremrangebylex", &[DELETE]),
    ("zremrangebyrank", &[DELETE]),
    ("zremrangebyscore", &[DELETE]),
    ("zunionstore", &[OVERWRITE, READ]),
];

/// A run of keys treated alike: where, relative to the command name, and what is done with them.
struct KeySpec {
    keys: Keys,
    access: &'static Access,
}

const FIRST_ARGUMENT: Keys = Keys::Range {
    first: 1,
    last: 1,
    step: 1,
};

/// The keys as a range where they are one.
fn range_of(keys: Keys) -> Keys {
    match keys {
        Keys::TwoDatabases { first, last, .. } => Keys::Range {
            first,
            last,
            step: 1,
        },
        Keys::FirstAndStore => FIRST_ARGUMENT,
        other => other,
    }
}

fn key_specs(row: &Row) -> Vec<KeySpec> {
    let implied: &[Access] = if row.flags.has(Flags::WRITE) {
        &[READ_AND_EDIT]
    } else {
        &[READ]
    };
    let stated = ACCESS
        .iter()
        .find(|(name, _)| *name == row.name)
        .map_or(implied, |(_, access)| *access);
    match (range_of(row.keys), stated) {
        (Keys::None | Keys::Everything, _) => Vec::new(),
        (Keys::TargetAndCounted, [target, sources]) => vec![
            KeySpec {
                keys: FIRST_ARGUMENT,
                access: target,
            },
            KeySpec {
                keys: Keys::Counted { count: 2, step: 1 },
                access: sources,
            },
        ],
        (Keys::FirstAndAnyStore { from }, [source, target]) => {
            let mut specs = vec![KeySpec {
                keys: FIRST_ARGUMENT,
                access: source,
            }];
            let words = ["STORE", "STOREDIST"];
            specs.extend(words.map(|word| KeySpec {
                keys: Keys::AfterWord { word, from },
                access: target,
            }));
            specs
        }
        (Keys::Range { first, last, step }, [one, rest]) => vec![
            KeySpec {
                keys: Keys::Range {
                    first,
                    last: first,
                    step,
                },
                access: one,
            },
            KeySpec {
                keys: Keys::Range {
                    first: first + step,
                    last,
                    step,
                },
                access: rest,
            },
        ],
        (keys, _) => vec![KeySpec {
            keys,
            access: &stated[0],
        }],
    }
}

/// Access to the `nth` key of a quoted command. SET with GET is the one whose arguments decide.
fn access_of_key(row: &Row, specs: &[KeySpec], quoted: Args<'_>, nth: usize) -> &'static Access {
    if row.name == "set" {
        let reads = (3..quoted.len()).any(|option| quoted.is(option, "get"));
        return if reads { &READ_AND_EDIT } else { &OVERWRITE };
    }
    if row.keys == Keys::FirstAndStore && nth > 0 {
        return &OVERWRITE;
    }
    specs[nth.min(specs.len() - 1)].access
}

// ---- replies --------------------------------------------------------------------------------------------------------

fn reply_info(reply: &mut Output, table: &CommandTable, command: &Command) {
    let row = command.row;
    reply.array(10);
    reply.bulk(command.full_name.as_bytes());
    reply.integer(i64::from(row.arity));
    let flags: Vec<_> = FLAG_NAMES
        .iter()
        .filter(|(flag, _)| flags_of(row).has(*flag))
        .collect();
    reply.set(flags.len());
    flags.iter().for_each(|(_, name)| reply.simple(name));
    let (first, last, step) = match range_of(row.keys) {
        Keys::Range { first, last, step } => (first, last, step),
        Keys::TargetAndCounted | Keys::FirstAndAnyStore { .. } => (1, 1, 1),
        _ => (0, 0, 0),
    };
    [first, last, step]
        .iter()
        .for_each(|&position| reply.integer(i64::from(position)));
    let in_categories: Vec<_> = categories(row).collect();
    reply.set(in_categories.len());
    in_categories
        .iter()
        .for_each(|category| reply.simple(&format!("@{category}")));
    reply.set(row.tips.len());
    row.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    let specs = key_specs(row);
    reply.set(specs.len());
    specs.iter().for_each(|spec| reply_key_spec(reply, spec));
    reply.set(table.subcommands(command).count());
    table
        .subcommands(command)
        .for_each(|subcommand| reply_info(reply, table, subcommand));
}

fn reply_key_spec(reply: &mut Output, spec: &KeySpec) {
    reply.map(3);
    reply.bulk(b"flags");
    reply_access(reply, spec.access);
    let (first, kind, fields) = match spec.keys {
        Keys::Counted { count, step } => (
            count as i32,
            "keynum",
            [("keynumidx", 0), ("firstkey", 1), ("keystep", step as i32)],
        ),
        Keys::Range { first, last, step } => {
            let last_from_first = if last < 0 { last } else { last - first };
            (
                first,
                "range",
                [
                    ("lastkey", last_from_first),
                    ("keystep", step),
                    ("limit", 0),
                ],
            )
        }
        Keys::AfterWord { from, .. } => (
            from as i32,
            "range",
            [("lastkey", 0), ("keystep", 1), ("limit", 0)],
        ),
        // Half of what follows the word: the other half are their IDs.
        Keys::Streams { from } => (
            from,
            "range",
            [("lastkey", -1), ("keystep", 1), ("limit", 2)],
        ),
        _ => unreachable!("key specifications are ranges, counted, behind a word or of streams"),
    };
    reply.bulk(b"begin_search");
    match spec.keys {
        Keys::Streams { .. } => reply_after_word(reply, "STREAMS", first),
        Keys::AfterWord { word, .. } => reply_after_word(reply, word, first),
        _ => reply_typed(reply, "index", &[("index", first)]),
    }
    reply.bulk(b"find_keys");
    reply_typed(reply, kind, &fields);
}

/// Keys are searched behind a word, which is looked for from argument `from` on.
fn reply_after_word(reply: &mut Output, word: &str, from: i32) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"keyword");
    reply.bulk(b"spec");
    reply.map(2);
    reply.bulk(b"keyword");
    reply.bulk(word.as_bytes());
    reply.bulk(b"startfrom");
    reply.integer(i64::from(from));
}

fn reply_typed(reply: &mut Output, kind: &str, fields: &[(&str, i32)]) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(fields.len());
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.integer(i64::from(*value));
    }
}

fn reply_access(reply: &mut Output, access: &Access) {
    reply.set(1 + access.to_value.len());
    reply.simple(access.mode);
    access.to_value.iter().for_each(|name| reply.simple(name));
}

fn reply_docs(reply: &mut Output, table: &CommandTable, command: &Command) {
    let row = command.row;
    let subcommands: Vec<_> = table.subcommands(command).collect();
    let arguments = command_syntax::arguments(&command.full_name);
    let fields = [
        ("summary", row.summary),
        ("since", row.since),
        ("group", row.group),
        ("complexity", row.complexity),
    ];
    reply.bulk(command.full_name.as_bytes());
    let lists = [arguments.is_empty(), subcommands.is_empty()];
    reply.map(fields.len() + lists.iter().filter(|is_empty| !**is_empty).count());
    for (field, text) in fields {
        reply.bulk(field.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !arguments.is_empty() {
        let mut key_specs = 0..key_specs(row).len();
        reply_arguments(reply, &arguments, &mut key_specs);
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        for subcommand in subcommands {
            reply_docs(reply, table, subcommand);
        }
    }
}

/// Writes the field "arguments". `key_specs` are the key specifications that no argument has been given yet; keys
/// beyond them belong to the last.
fn reply_arguments(reply: &mut Output, arguments: &[Argument], key_specs: &mut Range<usize>) {
    reply.bulk(b"arguments");
    reply.array(arguments.len());
    for argument in arguments {
        let is_key = argument.kind == Kind::Key;
        let flags: Vec<&str> = [
            (argument.optional, "optional"),
            (argument.multiple, "multiple"),
        ]
        .iter()
        .filter_map(|(is_set, flag)| is_set.then_some(*flag))
        .collect();
        let is_shown = argument.parts.is_empty();
        reply.map(
            2 + usize::from(is_shown)
                + usize::from(is_key)
                + usize::from(argument.token.is_some())
                + usize::from(!flags.is_empty())
                + usize::from(!is_shown),
        );
        let name = argument.name.as_bytes();
        [
            b"name".as_slice(),
            name,
            b"type",
            argument.kind.name().as_bytes(),
        ]
        .iter()
        .for_each(|text| reply.bulk(text));
        if is_shown {
            reply.bulk(b"display_text");
            reply.bulk(name);
        }
        if is_key {
            let last = key_specs.end.saturating_sub(1);
            reply.bulk(b"key_spec_index");
            reply.integer(key_specs.next().unwrap_or(last) as i64);
        }
        if let Some(token) = argument.token {
            reply.bulk(b"token");
            reply.bulk(token.as_bytes());
        }
        if !flags.is_empty() {
            reply.bulk(b"flags");
            reply.set(flags.len());
            flags.iter().for_each(|flag| reply.simple(flag));
        }
        if !is_shown {
            reply_arguments(reply, &argument.parts, key_specs);
        }
    }
}

/// The row's flags with the one that follows from where its keys are.
fn flags_of(row: &Row) -> Flags {
    match row.keys {
        Keys::Counted { .. }
        | Keys::TargetAndCounted
        | Keys::FirstAndStore
        | Keys::FirstAndAnyStore { .. }
        | Keys::Streams { .. } => row.flags.and(Flags::MOVABLEKEYS),
        _ => row.flags,
    }
}

const FLAG_NAMES: &[(Flags, &str)] = &[
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::BLOCKING, "blocking"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_MONITOR, "skip_monitor"),
    (Flags::SKIP_SLOWLOG, "skip_slowlog"),
    (Flags::ASKING, "asking"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::MOVABLEKEYS, "movablekeys"),
    (Flags::ALLOW_BUSY, "allow_busy"),
];

/// All ACL categories, in Redis's order.
pub(crate) const CATEGORIES: &[&str] = &[
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// The ACL categories of a row: those it names and those its flags imply.
pub(crate) fn categories(row: &Row) -> impl Iterator<Item = &'static str> {
    CATEGORIES.iter().copied().filter(move |&category| {
        row.categories.contains(&category)
            || match category {
                "read" => row.flags.has(Flags::READONLY),
                "write" => row.flags.has(Flags::WRITE),
                "admin" | "dangerous" => row.flags.has(Flags::ADMIN),
                "pubsub" => row.flags.has(Flags::PUBSUB),
                "blocking" => row.flags.has(Flags::BLOCKING),
                "fast" => row.flags.has(Flags::FAST),
                "slow" => !row.flags.has(Flags::FAST),
                _ => false,
            }
    })
}
