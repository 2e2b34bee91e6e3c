//! A ring of remarkable commands: the slow ones (SLOWLOG), or those with large requests or replies (COMMANDLOG).

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::args::Args;
use crate::config::is_sensitive;

/// The most arguments of a command that are kept, and the most bytes of each; the rest is counted in words.
const MAX_ARGS: usize = 32;
const MAX_ARG_BYTES: usize = 128;

/// One remarkable command.
#[derive(Clone, Debug)]
pub(crate) struct LogEntry {
    /// Counts up from 0 from the server's start on.
    pub(crate) id: u64,
    /// When the command ended, Unix seconds.
    pub(crate) unix_seconds: u64,
    /// Microseconds it took, or the bytes of its request or reply.
    pub(crate) amount: u64,
    /// Its arguments, shortened.
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) client_addr: String,
    pub(crate) client_name: Vec<u8>,
}

/// The latest remarkable commands.
#[derive(Default)]
pub(crate) struct CommandLog {
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    entries: VecDeque<LogEntry>,
    next_id: u64,
}

impl CommandLog {
    /// Adds an entry (its `id` is given here) and drops the oldest beyond `max_len`.
    pub(crate) fn push(&self, mut entry: LogEntry, max_len: usize) {
        let mut ring = self.ring.lock();
        entry.id = ring.next_id;
        ring.next_id += 1;
        ring.entries.push_front(entry);
        ring.entries.truncate(max_len);
    }

    /// The latest `count` entries, the newest first.
    pub(crate) fn latest(&self, count: usize) -> Vec<LogEntry> {
        self.ring
            .lock()
            .entries
            .iter()
            .take(count)
            .cloned()
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.lock().entries.len()
    }

    pub(crate) fn clear(&self) {
        self.ring.lock().entries.clear();
    }
}

/// The arguments of `command` as the log keeps them: shortened, and without passwords.
pub(crate) fn kept_args(command: &str, args: Args<'_>) -> Vec<Vec<u8>> {
    let keep = if args.len() > MAX_ARGS {
        MAX_ARGS - 1
    } else {
        args.len()
    };
    let mut kept: Vec<Vec<u8>> = (0..keep)
        .map(|i| match is_secret(command, args, i) {
            true => b"(redacted)".to_vec(),
            false => shortened(&args[i]),
        })
        .collect();
    if keep < args.len() {
        kept.push(format!("... ({} more arguments)", args.len() - keep).into_bytes());
    }
    kept
}

/// Whether argument `i` is, or may be, a password.
fn is_secret(command: &str, args: Args<'_>, i: usize) -> bool {
    match command {
        "auth" => i >= 1,
        "hello" => i >= 2 && (1..=2).any(|back| i > back && args.is(i - back, "auth")),
        "config|set" => i >= 3 && is_sensitive(&args[i - 1]),
        _ => false,
    }
}

fn shortened(arg: &[u8]) -> Vec<u8> {
    if arg.len() <= MAX_ARG_BYTES {
        return arg.to_vec();
    }
    let mut kept = arg[..MAX_ARG_BYTES].to_vec();
    kept.extend_from_slice(format!("... ({} more bytes)", arg.len() - MAX_ARG_BYTES).as_bytes());
    kept
}
