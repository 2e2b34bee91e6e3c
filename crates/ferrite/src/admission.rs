//! May this client run this command now ([`admit`]), and the error reply if not ([`refuse`]).

use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;

use crate::args::Args;
use crate::client::Client;
use crate::command::{Flags, Handler};
use crate::output::Output;
use crate::pause::Paused;
use crate::server::Server;
use crate::stats::WorkerStats;
use crate::table::{Command, CommandId, Lookup};

/// The longest part of an unknown command, and of its arguments, that is sent back, in bytes.
const QUOTED_MAX_BYTES: usize = 128;

pub(crate) const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

const DEBUG_NOT_ALLOWED: &[u8] = b"ERR DEBUG command not allowed. If the enable-debug-command \
    option is set to \"local\", you can run it from a local connection, otherwise you need to set this \
    option in the configuration file, and then restart the server.";

const LOADING: &[u8] = b"LOADING Redis is loading the dataset in memory";

/// Why a command is refused before it runs.
pub(crate) struct Refusal<'t> {
    /// The command, if it exists.
    pub(crate) command: Option<&'t Command>,
    pub(crate) error: Cow<'static, [u8]>,
}

/// Checks that this client may call the command this way; in Redis's order. `command` is what the command table has
/// under the name in `args`.
#[inline]
pub(crate) fn admit<'t>(
    server: &'t Server,
    client: &Client,
    args: Args<'_>,
    command: Option<CommandId>,
) -> Result<&'t Command, Refusal<'t>> {
    let Some(command) = command.map(|id| server.commands.get(id)) else {
        let is_container = matches!(server.commands.lookup(args), Lookup::NoSubcommand);
        let error = if is_container {
            unknown_subcommand(args)
        } else {
            unknown_command(args)
        };
        return Err(Refusal {
            command: None,
            error: error.into(),
        });
    };
    if !command.row.takes(args.len()) {
        let name = &command.full_name;
        let error = format!("ERR wrong number of arguments for '{name}' command").into_bytes();
        return Err(Refusal {
            command: Some(command),
            error: error.into(),
        });
    }
    if command.row.flags.has(Flags::PROTECTED) && !debug_allowed(server, client) {
        return Err(Refusal {
            command: Some(command),
            error: DEBUG_NOT_ALLOWED.into(),
        });
    }
    if !client.authenticated && !command.row.flags.has(Flags::NO_AUTH) {
        let error = b"NOAUTH Authentication required.".as_slice();
        return Err(Refusal {
            command: Some(command),
            error: error.into(),
        });
    }
    if client.transaction.is_some()
        && let Some(error) = refused_in_transaction(server, command)
    {
        return Err(Refusal {
            command: Some(command),
            error: error.into(),
        });
    }
    if (server.store.is_out_of_memory() || server.store.is_disk_full())
        && takes_memory(client, command)
    {
        return Err(Refusal {
            command: Some(command),
            error: OUT_OF_MEMORY.as_bytes().into(),
        });
    }
    if let Some(error) = refused_for_want_of_disk(server, client, command) {
        return Err(Refusal {
            command: Some(command),
            error: error.into(),
        });
    }
    if server.persistence.is_loading() && !may_run_while_loading(command) {
        return Err(Refusal {
            command: Some(command),
            error: LOADING.into(),
        });
    }
    Ok(command)
}

/// Whether a command that does not exist is a line of an HTTP request. A web page can make its reader's browser send one
/// here, whose body would be commands; so it is cut off before the body, at a line that such a request cannot do without.
pub(crate) fn is_http(args: Args<'_>) -> bool {
    args.is(0, "post") || args.is(0, "host:")
}

/// Whether the command may need memory, by its flags or those of what is queued for it.
fn takes_memory(client: &Client, command: &Command) -> bool {
    let row = command.row;
    row.flags.has(Flags::DENYOOM)
        || matches!(row.handler, Handler::Exec) && client.has_queued(Flags::DENYOOM)
}

/// Why nothing can be changed now, if the command might. As in Redis, PING tells whoever watches the server, too.
fn refused_for_want_of_disk(
    server: &Server,
    client: &Client,
    command: &Command,
) -> Option<Vec<u8>> {
    let row = command.row;
    let changes = row.flags.has(Flags::WRITE)
        || matches!(row.handler, Handler::Exec) && client.has_queued(Flags::WRITE)
        || row.name == "ping";
    let refusal = changes.then(|| server.persistence.refusal());
    refusal.flatten().map(String::into_bytes)
}

/// Whether the command needs no data. What walks all of it would find a part.
fn may_run_while_loading(command: &Command) -> bool {
    let is_walk = matches!(command.row.handler, Handler::Slow(_)) && command.row.name != "shutdown";
    command.row.flags.has(Flags::LOADING) && !is_walk
}

/// Why a command cannot be queued, or executed, between MULTI and EXEC.
fn refused_in_transaction(server: &Server, command: &Command) -> Option<&'static [u8]> {
    if command.row.flags.has(Flags::NO_MULTI) {
        return Some(b"ERR Command not allowed inside a transaction");
    }
    // What is queued takes memory, whatever it does; what ends the transaction gives it back.
    if !command.row.flags.has(Flags::AT_ONCE) && server.store.is_out_of_memory() {
        return Some(OUT_OF_MEMORY.as_bytes());
    }
    None
}

/// Whether `enable-debug-command` lets this client use DEBUG.
fn debug_allowed(server: &Server, client: &Client) -> bool {
    server
        .config
        .settings()
        .debug_command
        .admits(client.entry.origin())
}

fn unknown_command(args: Args<'_>) -> Vec<u8> {
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(quoted(&args[0], QUOTED_MAX_BYTES));
    text.extend_from_slice(b"', with args beginning with: ");
    let quoted_from = text.len();
    for arg in args.from(1) {
        let left = QUOTED_MAX_BYTES.saturating_sub(text.len() - quoted_from);
        if left == 0 {
            break;
        }
        text.push(b'\'');
        text.extend_from_slice(quoted(arg, left));
        text.extend_from_slice(b"' ");
    }
    text
}

fn unknown_subcommand(args: Args<'_>) -> Vec<u8> {
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend_from_slice(quoted(&args[1], QUOTED_MAX_BYTES));
    text.extend_from_slice(b"'. Try ");
    text.extend_from_slice(&args[0].to_ascii_uppercase());
    text.extend_from_slice(b" HELP.");
    text
}

/// The start of `arg` that an error text quotes: at most `max` bytes and, as in Redis, nothing from a NUL byte on.
fn quoted(arg: &[u8], max: usize) -> &[u8] {
    let arg = &arg[..arg.len().min(max)];
    arg.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether CLIENT PAUSE holds this command back.
#[inline]
pub(crate) fn is_paused(server: &Server, client: &Client, command: &Command) -> bool {
    match server.pause.now() {
        Paused::Nothing => false,
        Paused::Writes => {
            let writes = |flag| {
                let is_exec = matches!(command.row.handler, Handler::Exec);
                command.row.flags.has(flag) || is_exec && client.has_queued(flag)
            };
            writes(Flags::WRITE) || writes(Flags::NOTES)
        }
        Paused::All => true,
    }
}

/// The error of an EXEC that is refused for the reason that `error` gives.
pub(crate) fn aborted(error: &[u8]) -> Vec<u8> {
    let reason = error.strip_prefix(b"ERR ").unwrap_or(error);
    [
        b"EXECABORT Transaction discarded because of: ".as_slice(),
        reason,
    ]
    .concat()
}

/// Writes the error reply of a refused command and counts it.
pub(crate) fn refuse(
    refusal: &Refusal<'_>,
    stats: &WorkerStats,
    client: &mut Client,
    output: &mut Output,
) {
    if let Some(command) = refusal.command {
        stats.command(command.id).reject();
    }
    let is_exec = refusal
        .command
        .is_some_and(|command| matches!(command.row.handler, Handler::Exec));
    let error = if is_exec {
        client.end_transaction();
        Cow::Owned(aborted(&refusal.error))
    } else {
        client.break_transaction();
        Cow::Borrowed(&*refusal.error)
    };
    stats.count_error(&error);
    let reply_start = output.mark();
    output.error_bytes(&error);
    if !client.wants_reply() {
        output.rewind(reply_start);
    }
    client.entry.last_command.store(u16::MAX, Relaxed);
}
