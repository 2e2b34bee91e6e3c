//! What belongs to no family: TIME, ROLE, MODULE LIST.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, tip};
use crate::commands::help::reply_help;
use crate::ctx::Ctx;

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE);

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[
    Row {
        subcommands: &[
            row(
                "help",
                2,
                ANY_TIME,
                "5.0.0",
                "Returns helpful text about the different subcommands.",
                module_help,
            ),
            row(
                "list",
                2,
                Flags::ADMIN.and(Flags::NOSCRIPT),
                "4.0.0",
                "Returns the loaded modules, of which there are none.",
                module_list,
            )
            .with_tips(tip::UNORDERED),
        ],
        handler: Handler::Container,
        ..row(
            "module",
            -2,
            Flags::NONE,
            "4.0.0",
            "A container for module commands.",
            module_list,
        )
    },
    Row {
        categories: &["admin", "dangerous"],
        ..row(
            "role",
            1,
            Flags::NOSCRIPT.and(ANY_TIME).and(Flags::FAST),
            "2.8.12",
            "Returns the role of the server in replication.",
            role,
        )
    },
    row(
        "time",
        1,
        ANY_TIME.and(Flags::FAST),
        "2.6.0",
        "Returns the server's time.",
        time,
    )
    .with_tips(tip::NONDETERMINISTIC),
];

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
        complexity: "O(1)",
        summary,
        handler: Handler::Worker(handler),
        ..Row::SERVER
    }
}

fn time(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    cx.reply.array(2);
    cx.reply.bulk(now.as_secs().to_string().as_bytes());
    cx.reply.bulk(now.subsec_micros().to_string().as_bytes());
    Ok(())
}

fn role(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply.array(3);
    cx.reply.bulk(b"master");
    cx.reply.integer(0);
    cx.reply.array(0);
    Ok(())
}

fn module_list(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply.array(0);
    Ok(())
}

fn module_help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "MODULE",
        &[
            "LIST",
            "    Return the loaded modules, of which there are none.",
        ],
    );
    Ok(())
}
