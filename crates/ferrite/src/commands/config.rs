//! CONFIG: the configuration of the running server.

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, tip};
use crate::commands::help::reply_help;
use crate::commands::parse::SYNTAX_ERROR;
use crate::ctx::Ctx;
use crate::log;

const ADMIN: Flags = Flags::ADMIN
    .and(Flags::NOSCRIPT)
    .and(Flags::LOADING)
    .and(Flags::STALE);

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "config",
    arity: -2,
    flags: Flags::NONE,
    keys: Keys::None,
    categories: &[],
    group: "server",
    since: "2.0.0",
    complexity: "Depends on subcommand.",
    summary: "A container for server configuration commands.",
    handler: Handler::Container,
    tips: &[],
    subcommands: &[
        row(
            "get",
            -3,
            ADMIN,
            "2.0.0",
            "O(N) where N is the number of directives",
            "Returns the values of directives.",
            get,
        ),
        row(
            "help",
            2,
            Flags::LOADING.and(Flags::STALE),
            "5.0.0",
            "O(1)",
            "Returns helpful text about the different subcommands.",
            help,
        ),
        row(
            "resetstat",
            2,
            ADMIN,
            "2.0.0",
            "O(N) where N is the number of commands",
            "Sets the statistics back to zero.",
            resetstat,
        )
        .with_tips(tip::ALL_NODES_SUCCEED),
        row(
            "rewrite",
            2,
            ADMIN,
            "2.8.0",
            "O(N) where N is the number of directives",
            "Writes the current values to the configuration file.",
            rewrite,
        )
        .with_tips(tip::ALL_NODES_SUCCEED),
        row(
            "set",
            -4,
            ADMIN,
            "2.0.0",
            "O(N) where N is the number of directives set",
            "Sets directives while the server runs.",
            set,
        )
        .with_tips(tip::ALL_NODES_SUCCEED),
    ],
}];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
    handler: fn(&mut Ctx<'_>, Args<'_>) -> Done,
) -> Row {
    Row {
        name,
        arity,
        flags,
        since,
        complexity,
        summary,
        handler: Handler::Worker(handler),
        ..Row::SERVER
    }
}

fn get(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let patterns: Vec<_> = args.from(2).collect();
    let found = cx.server.config.get(&patterns);
    cx.reply.map(found.len());
    for (name, value) in &found {
        cx.reply.bulk(name.as_bytes());
        cx.reply.bulk(value);
    }
    Ok(())
}

fn set(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if !args.len().is_multiple_of(2) {
        return Err(SYNTAX_ERROR.into());
    }
    let names = args.from(2).step_by(2);
    let pairs: Vec<_> = names.zip(args.from(3).step_by(2)).collect();
    let server = cx.server;
    let origin = cx.client.entry.origin();
    let notices = server.config.set(&pairs, origin, |settings, changed| {
        server.apply(settings, changed)
    })?;
    notices.iter().for_each(log::notice);
    cx.reply.ok();
    Ok(())
}

fn resetstat(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.server.stats.reset();
    cx.reply.ok();
    Ok(())
}

fn rewrite(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.server.config.rewrite()?;
    cx.reply.ok();
    Ok(())
}

fn help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "CONFIG",
        &[
            "GET <pattern> [<pattern> [...]]",
            "    Return the directives that match one of the glob-like patterns, and their",
            "    values.",
            "RESETSTAT",
            "    Set the statistics back to zero.",
            "REWRITE",
            "    Write the current values to the configuration file.",
            "SET <directive> <value> [<directive> <value> [...]]",
            "    Set directives, all or none.",
        ],
    );
    Ok(())
}
