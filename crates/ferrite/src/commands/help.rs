//! HELP of the container commands, and the error that points to it.

use crate::args::Args;
use crate::command::Stop;
use crate::output::Output;

/// The most of a subcommand's name that is sent back, in bytes.
const QUOTED_MAX_BYTES: usize = 128;

/// Writes what `<container> HELP` answers: the usage line, `lines` (a line for each subcommand with its arguments,
/// then indented lines of explanation), and HELP itself.
pub(crate) fn reply_help(reply: &mut Output, container: &str, lines: &[&str]) {
    reply.array(lines.len() + 3);
    reply.simple(&format!(
        "{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    lines.iter().for_each(|line| reply.simple(line));
    reply.simple("HELP");
    reply.simple("    Print this help.");
}

/// The error of subcommands that find out by themselves that they do not exist or do not take so many arguments.
pub(crate) fn unknown_or_wrong_number(container: &str, args: Args<'_>) -> Stop {
    let name = &args[1][..args[1].len().min(QUOTED_MAX_BYTES)];
    let name = String::from_utf8_lossy(name);
    format!(
        "ERR unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP."
    )
    .into()
}
