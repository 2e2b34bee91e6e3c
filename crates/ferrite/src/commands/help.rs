//! HELP of the container commands.

use crate::output::Output;

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
