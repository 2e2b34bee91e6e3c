//! CLIENT: what is known about connections, and what can be done to them. Filters of LIST and KILL are in
//! [`client_filter`](super::client_filter).

use std::sync::atomic::Ordering::Relaxed;

use crate::args::Args;
use crate::blocking::End;
use crate::client::{After, ClientEntry, client_flags};
use crate::command::{Done, Flags, Handler, Keys, Row, tip};
use crate::commands::client_filter::{self, Filter};
use crate::commands::help::{reply_help, unknown_or_wrong_number};
use crate::commands::parse::{SYNTAX_ERROR, integer, strict_integer};
use crate::ctx::Ctx;
use crate::pause::Paused;
use crate::server::{Server, unix_ms};
use crate::table::CommandId;

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE);
const PLAIN: Flags = Flags::NOSCRIPT.and(ANY_TIME);
const ADMIN: Flags = Flags::ADMIN.and(PLAIN);

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "client",
    arity: -2,
    flags: Flags::NONE,
    keys: Keys::None,
    categories: &[],
    group: "connection",
    since: "2.4.0",
    complexity: "Depends on subcommand.",
    summary: "A container for client connection commands.",
    handler: Handler::Container,
    tips: &[],
    subcommands: &[
        row(
            "getname",
            2,
            PLAIN,
            "2.6.9",
            "Returns the name of the connection.",
            getname,
        ),
        row(
            "getredir",
            2,
            PLAIN,
            "6.0.0",
            "Returns the client ID to which the connection's tracking notifications go.",
            getredir,
        ),
        row(
            "help",
            2,
            ANY_TIME,
            "5.0.0",
            "Returns helpful text about the different subcommands.",
            help,
        ),
        row(
            "id",
            2,
            PLAIN,
            "5.0.0",
            "Returns the ID of the connection.",
            id,
        ),
        row(
            "info",
            2,
            PLAIN,
            "6.2.0",
            "Returns what is known about the connection.",
            info,
        )
        .with_tips(tip::NONDETERMINISTIC),
        row("kill", -3, ADMIN, "2.4.0", "Closes connections.", kill),
        row("list", -2, ADMIN, "2.4.0", "Lists connections.", list)
            .with_tips(tip::NONDETERMINISTIC),
        row(
            "no-evict",
            3,
            ADMIN,
            "7.0.0",
            "Sets whether the connection is spared when clients take too much memory.",
            no_evict,
        ),
        row(
            "no-touch",
            3,
            PLAIN,
            "7.2.0",
            "Sets whether the connection's reads count for which keys stay in memory.",
            no_touch,
        ),
        row(
            "pause",
            -3,
            ADMIN,
            "3.0.0",
            "Suspends the commands of all clients for a while.",
            pause,
        ),
        row(
            "reply",
            3,
            PLAIN,
            "3.2.0",
            "Sets whether the server replies to the connection's commands.",
            reply,
        ),
        row(
            "setinfo",
            4,
            PLAIN,
            "7.2.0",
            "Sets what the connection's client library says about itself.",
            setinfo,
        )
        .with_tips(tip::ALL_NODES_SUCCEED),
        row(
            "setname",
            3,
            PLAIN,
            "2.6.9",
            "Sets the name of the connection.",
            setname,
        )
        .with_tips(tip::ALL_NODES_SUCCEED),
        row(
            "trackinginfo",
            2,
            PLAIN,
            "6.2.0",
            "Returns how the connection's keys are tracked.",
            trackinginfo,
        ),
        row(
            "unblock",
            -3,
            ADMIN,
            "5.0.0",
            "Ends the waiting of another client for keys.",
            unblock,
        ),
        row(
            "unpause",
            2,
            ADMIN,
            "6.2.0",
            "Ends what CLIENT PAUSE began.",
            unpause,
        ),
    ],
}];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    since: &'static str,
    summary: &'static str,
    handler: fn(&mut Ctx<'_>, Args<'_>) -> Done,
) -> Row {
    Row {
        name,
        arity,
        flags,
        since,
        complexity: "O(1), of LIST, KILL and PAUSE O(N) where N is the number of connections",
        summary,
        handler: Handler::Worker(handler),
        ..Row::CONNECTION
    }
}

fn id(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply.integer(cx.client.id() as i64);
    Ok(())
}

fn getname(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let details = cx.client.entry.details.lock();
    match details.name.as_slice() {
        b"" => cx.reply.null(),
        name => cx.reply.bulk(name),
    }
    Ok(())
}

fn setname(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_name(&args[2])?;
    args[2].clone_into(&mut cx.client.entry.details.lock().name);
    cx.reply.ok();
    Ok(())
}

fn setinfo(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let mut details = cx.client.entry.details.lock();
    let option = String::from_utf8_lossy(&args[2]);
    let target = if args.is(2, "lib-name") {
        &mut details.lib_name
    } else if args.is(2, "lib-ver") {
        &mut details.lib_ver
    } else {
        return Err(format!("ERR Unrecognized option '{option}'").into());
    };
    if !is_one_printable_word(&args[3]) {
        return Err(
            format!("ERR {option} cannot contain spaces, newlines or special characters.").into(),
        );
    }
    args[3].clone_into(target);
    drop(details);
    cx.reply.ok();
    Ok(())
}

/// Checks the name that a connection wants to be given.
pub(crate) fn check_name(name: &[u8]) -> Done {
    if is_one_printable_word(name) {
        return Ok(());
    }
    Err("ERR Client names cannot contain spaces, newlines or special characters.".into())
}

fn is_one_printable_word(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

fn info(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let line = describe(&cx.client.entry, cx.server);
    cx.reply.verbatim("txt", &line);
    Ok(())
}

fn list(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let filter = client_filter::parse_list(args, cx.server)?;
    let mut lines = Vec::new();
    for entry in matching(cx, &filter) {
        lines.extend_from_slice(&describe(&entry, cx.server));
    }
    cx.reply.verbatim("txt", &lines);
    Ok(())
}

fn kill(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if args.len() == 3 {
        return kill_address(cx, &args[2]);
    }
    let filter = client_filter::parse_kill(args, cx.server)?;
    let victims = matching(cx, &filter);
    victims.iter().for_each(|entry| kill_one(cx, entry));
    cx.reply.integer(victims.len() as i64);
    Ok(())
}

/// The old form: one address, of the own connection too.
fn kill_address(cx: &mut Ctx<'_>, address: &[u8]) -> Done {
    let victim = cx
        .server
        .clients
        .all()
        .into_iter()
        .find(|entry| entry.addr.as_bytes() == address);
    let Some(victim) = victim else {
        return Err("ERR No such client".into());
    };
    kill_one(cx, &victim);
    cx.reply.ok();
    Ok(())
}

/// The own connection is still told the result.
fn kill_one(cx: &mut Ctx<'_>, entry: &ClientEntry) {
    if entry.id == cx.client.id() {
        cx.client.after = After::Close;
    } else {
        entry.kill();
    }
}

fn matching(cx: &Ctx<'_>, filter: &Filter) -> Vec<std::sync::Arc<ClientEntry>> {
    let mut entries = cx.server.clients.all();
    let me = cx.client.id();
    entries.retain(|entry| filter.matches(entry, me, cx.server));
    entries
}

fn unblock(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let by_error = match args.len() {
        3 => false,
        4 if args.is(3, "timeout") => false,
        4 if args.is(3, "error") => true,
        4 => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()),
        _ => return Err(unknown_or_wrong_number("CLIENT", args)),
    };
    let id = integer(&args[2])?;
    let entry = u64::try_from(id).ok();
    let entry = entry.and_then(|id| cx.server.clients.get(id));
    let waiter = entry.and_then(|entry| entry.waiter.lock().clone());
    let end = if by_error {
        End::Unblocked
    } else {
        End::TimedOut
    };
    let is_unblocked = waiter.is_some_and(|waiter| waiter.try_end(end));
    cx.reply.integer(i64::from(is_unblocked));
    Ok(())
}

fn pause(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let paused = match args.len() {
        3 => Paused::All,
        _ if args.is(3, "write") => Paused::Writes,
        _ if args.is(3, "all") => Paused::All,
        _ => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
    };
    if args.len() > 4 {
        return Err(unknown_or_wrong_number("CLIENT", args));
    }
    let timeout_ms = match strict_integer(&args[2]).map(u64::try_from) {
        Some(Ok(timeout_ms)) => timeout_ms,
        Some(Err(_)) => return Err("ERR timeout is negative".into()),
        None => return Err("ERR timeout is not an integer or out of range".into()),
    };
    cx.server
        .pause
        .start(paused, unix_ms().saturating_add(timeout_ms));
    cx.reply.ok();
    Ok(())
}

fn unpause(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.server.pause.end();
    cx.reply.ok();
    Ok(())
}

/// OFF and SKIP are not answered themselves.
fn reply(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let mode = &mut cx.client.reply_mode;
    if args.is(2, "on") {
        mode.off = false;
        mode.skip = false;
        cx.reply.ok();
    } else if args.is(2, "off") {
        mode.off = true;
    } else if !args.is(2, "skip") {
        return Err(SYNTAX_ERROR.into());
    } else if !mode.off {
        mode.skip_next = true;
    }
    Ok(())
}

fn no_evict(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    set_flag(cx, args, client_flags::NO_EVICT)
}

fn no_touch(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    set_flag(cx, args, client_flags::NO_TOUCH)
}

fn set_flag(cx: &mut Ctx<'_>, args: Args<'_>, flag: u32) -> Done {
    let on = args.is(2, "on");
    if !on && !args.is(2, "off") {
        return Err(SYNTAX_ERROR.into());
    }
    cx.client.entry.set_flag(flag, on);
    cx.reply.ok();
    Ok(())
}

fn getredir(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply.integer(-1);
    Ok(())
}

fn trackinginfo(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let reply = &mut *cx.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(1);
    reply.bulk(b"off");
    reply.bulk(b"redirect");
    reply.integer(-1);
    reply.bulk(b"prefixes");
    reply.array(0);
    Ok(())
}

/// The line that CLIENT LIST and CLIENT INFO show of a connection: Redis 7.4's fields in their order, then what was
/// sent, received and executed.
fn describe(entry: &ClientEntry, server: &Server) -> Vec<u8> {
    let idle_ms = server
        .uptime_ms()
        .saturating_sub(entry.last_interaction_ms.load(Relaxed));
    let details = entry.details.lock().clone();
    let output_bytes = entry.output_bytes.load(Relaxed);
    let capacity = entry.output_capacity_bytes.load(Relaxed);
    let events = if output_bytes > 0 { "rw" } else { "r" };
    let mut line = format!(
        "id={} addr={} laddr={} fd={} name=",
        entry.id, entry.addr, entry.laddr, entry.fd
    )
    .into_bytes();
    line.extend_from_slice(&details.name);
    line.extend_from_slice(
        format!(
            " age={} idle={} flags={} db={} sub=0 psub=0 ssub=0 multi={} watch={} qbuf={} qbuf-free={} argv-mem={} \
             multi-mem={} rbs={capacity} rbp={capacity} obl={} oll={} omem={} tot-mem={} events={events} cmd={} user={} \
             redir=-1 resp={} lib-name=",
            entry.connected_at.elapsed().as_secs(),
            idle_ms / 1000,
            flag_letters(entry),
            entry.database.load(Relaxed),
            entry.queued.load(Relaxed),
            entry.watched_keys(),
            entry.query_bytes.load(Relaxed),
            entry.query_free_bytes.load(Relaxed),
            entry.args_bytes.load(Relaxed),
            entry.queued_bytes.load(Relaxed),
            output_bytes,
            entry.output_pieces.load(Relaxed),
            output_bytes,
            entry.memory_bytes(),
            last_command(entry, server),
            details.user,
            entry.protocol.load(Relaxed),
        )
        .as_bytes(),
    );
    line.extend_from_slice(&details.lib_name);
    line.extend_from_slice(b" lib-ver=");
    line.extend_from_slice(&details.lib_ver);
    let (input, output) = (
        entry.net_input_bytes.load(Relaxed),
        entry.net_output_bytes.load(Relaxed),
    );
    let commands = entry.commands.load(Relaxed);
    line.extend_from_slice(
        format!(" tot-net-in={input} tot-net-out={output} tot-cmds={commands}\n").as_bytes(),
    );
    line
}

/// Name of the latest command, as in "client|list".
fn last_command<'s>(entry: &ClientEntry, server: &'s Server) -> &'s str {
    match entry.last_command.load(Relaxed) {
        u16::MAX => "NULL",
        id => &server.commands.get(CommandId(id)).full_name,
    }
}

/// The letters that stand for a connection's state; "N" for none.
pub(crate) fn flag_letters(entry: &ClientEntry) -> String {
    let is_dirty = entry.watch.get().is_some_and(|watch| watch.has_changed(0));
    let is_blocked = entry.has_flag(client_flags::PAUSED) || entry.has_flag(client_flags::BLOCKED);
    let letters = [
        (entry.queued.load(Relaxed) >= 0, 'x'),
        (is_blocked, 'b'),
        (is_dirty, 'd'),
        (entry.has_flag(client_flags::CLOSE_AFTER_REPLY), 'c'),
        (entry.has_flag(client_flags::UNIX_SOCKET), 'U'),
        (entry.has_flag(client_flags::NO_EVICT), 'e'),
        (entry.has_flag(client_flags::NO_TOUCH), 'T'),
    ];
    let letters = letters.iter().filter(|(is_set, _)| *is_set);
    let letters: String = letters.map(|(_, letter)| letter).collect();
    if letters.is_empty() {
        "N".to_owned()
    } else {
        letters
    }
}

fn help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "CLIENT",
        &[
            "GETNAME",
            "    Return the name of the connection.",
            "GETREDIR",
            "    Return the client ID to which tracking notifications go, -1 for none.",
            "ID",
            "    Return the ID of the connection.",
            "INFO",
            "    Return what is known about the connection.",
            "KILL <ip:port>",
            "    Close the connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Close all connections that every option selects. Options are those of LIST",
            "    (SKIPME: default yes).",
            "LIST [<option> <value> [...]]",
            "    Return a line for each connection that every option selects. Options are:",
            "    * ID <id> [<id> [...]], ADDR <ip:port>, LADDR <ip:port>, IP <ip>",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB), USER <name>, NAME <name>",
            "    * LIB-NAME <name>, LIB-VER <version>, DB <number>, FLAGS <letters>",
            "    * MAXAGE <seconds>: as old or older; IDLE <seconds>: as long idle or longer",
            "    * SKIPME (YES|NO): leave out the own connection (default no)",
            "    * NOT-<option> <value>: selects what <option> <value> does not",
            "NO-EVICT (ON|OFF)",
            "    Spare the connection when clients take too much memory.",
            "NO-TOUCH (ON|OFF)",
            "    Reads of the connection do not count for which keys stay in memory.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Suspend all commands, or those that write, for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Set whether the connection gets replies; SKIP leaves out the next one.",
            "SETINFO (LIB-NAME|LIB-VER) <value>",
            "    Set the name or version of the client library.",
            "SETNAME <name>",
            "    Set the name of the connection.",
            "TRACKINGINFO",
            "    Return how the connection's keys are tracked.",
            "UNBLOCK <client-id> [TIMEOUT|ERROR]",
            "    End the waiting of a connection for keys, as if its time were over, or with an error.",
            "UNPAUSE",
            "    End what PAUSE began.",
        ],
    );
    Ok(())
}
