//! ACL of the one user there is, "default", who may do everything.

use sha2::{Digest, Sha256};

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row};
use crate::commands::command_docs::{CATEGORIES, categories};
use crate::commands::connection::DEFAULT_USER;
use crate::commands::help::{reply_help, unknown_or_wrong_number};
use crate::ctx::Ctx;

const PLAIN: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);
const ADMIN: Flags = Flags::ADMIN.and(PLAIN);

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[Row {
    subcommands: &[
        row(
            "cat",
            -2,
            PLAIN,
            "Returns the categories, or the commands in one.",
            cat,
        ),
        row("getuser", 3, ADMIN, "Returns the rules of a user.", getuser),
        row(
            "help",
            2,
            Flags::LOADING.and(Flags::STALE),
            "Returns helpful text about the different subcommands.",
            help,
        ),
        row(
            "list",
            2,
            ADMIN,
            "Returns the rules of all users as text.",
            list,
        ),
        row("users", 2, ADMIN, "Returns the names of all users.", users),
        row(
            "whoami",
            2,
            PLAIN,
            "Returns the user that the connection authenticated as.",
            whoami,
        ),
    ],
    handler: Handler::Container,
    ..row(
        "acl",
        -2,
        Flags::NONE,
        "A container for access list commands.",
        whoami,
    )
}];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    summary: &'static str,
    handler: fn(&mut Ctx<'_>, Args<'_>) -> Done,
) -> Row {
    Row {
        name,
        arity,
        flags,
        since: "6.0.0",
        complexity: "O(1), of CAT O(N) where N is the number of commands",
        summary,
        handler: Handler::Worker(handler),
        ..Row::SERVER
    }
}

fn whoami(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply
        .bulk(cx.client.entry.details.lock().user.as_bytes());
    Ok(())
}

fn users(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply.array(1);
    cx.reply.bulk(DEFAULT_USER.as_bytes());
    Ok(())
}

fn list(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let password = match cx.server.config.settings().requirepass.as_slice() {
        b"" => "nopass".to_owned(),
        password => format!("#{}", password_digest(password)),
    };
    cx.reply.array(1);
    cx.reply
        .bulk(format!("user {DEFAULT_USER} on {password} ~* &* +@all").as_bytes());
    Ok(())
}

fn getuser(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if &args[2] != DEFAULT_USER.as_bytes() {
        cx.reply.null();
        return Ok(());
    }
    let settings = cx.server.config.settings();
    let has_password = !settings.requirepass.is_empty();
    let reply = &mut *cx.reply;
    reply.map(6);
    reply.bulk(b"flags");
    reply.set(if has_password { 1 } else { 2 });
    reply.bulk(b"on");
    if !has_password {
        reply.bulk(b"nopass");
    }
    reply.bulk(b"passwords");
    reply.array(usize::from(has_password));
    if has_password {
        reply.bulk(password_digest(&settings.requirepass).as_bytes());
    }
    for (rule, value) in [("commands", "+@all"), ("keys", "~*"), ("channels", "&*")] {
        reply.bulk(rule.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"selectors");
    reply.array(0);
    Ok(())
}

/// SHA-256 in hexadecimal, as Redis shows passwords.
fn password_digest(password: &[u8]) -> String {
    Sha256::digest(password)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn cat(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let names: Vec<&str> = match args.len() {
        2 => CATEGORIES.to_vec(),
        3 if CATEGORIES.iter().any(|known| args.is(2, known)) => {
            let commands = cx.server.commands.all().iter();
            let in_category = commands
                .filter(|command| categories(command.row).any(|category| args.is(2, category)));
            in_category
                .map(|command| command.full_name.as_str())
                .collect()
        }
        3 => {
            return Err(format!(
                "ERR Unknown category '{}'",
                String::from_utf8_lossy(&args[2])
            )
            .into());
        }
        _ => {
            return Err(unknown_or_wrong_number("ACL", args));
        }
    };
    cx.reply.array(names.len());
    names.iter().for_each(|name| cx.reply.bulk(name.as_bytes()));
    Ok(())
}

fn help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "ACL",
        &[
            "CAT [<category>]",
            "    Return the categories of commands, or the commands in one.",
            "GETUSER <username>",
            "    Return the rules of a user.",
            "LIST",
            "    Return the rules of all users as text.",
            "USERS",
            "    Return the names of all users.",
            "WHOAMI",
            "    Return the user that the connection authenticated as.",
        ],
    );
    Ok(())
}
