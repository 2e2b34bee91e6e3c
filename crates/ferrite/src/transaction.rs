//! What a client has queued since MULTI.

use std::ops::Range;

use crate::args::{ArgRange, Args};
use crate::command::Flags;
use crate::commands::connection::selected_database;
use crate::dispatch::Call;
use crate::server::Server;
use crate::table::{Command, CommandId};

/// A transaction that has not been executed yet. Its commands lie one behind the other in one buffer, since there may be
/// very many and most are short.
#[derive(Default)]
pub(crate) struct Transaction {
    bytes: Vec<u8>,
    ranges: Vec<ArgRange>,
    commands: Vec<Queued>,
    /// Flags that any of the commands has.
    flags: u32,
    /// Bytes of the arguments of commands that write.
    written_bytes: u64,
    /// A command was refused, so that EXEC will refuse all of them.
    pub(crate) is_broken: bool,
}

/// One queued command.
struct Queued {
    command: CommandId,
    /// Its arguments, as a range of the transaction's `ranges`.
    args: Range<usize>,
}

impl Transaction {
    /// Adds a command.
    pub(crate) fn push(&mut self, command: &Command, args: Args<'_>) {
        let first = self.ranges.len();
        for arg in args.from(0) {
            self.ranges.push(ArgRange {
                start: self.bytes.len(),
                len: arg.len(),
            });
            self.bytes.extend_from_slice(arg);
        }
        self.commands.push(Queued {
            command: command.id,
            args: first..self.ranges.len(),
        });
        let Flags(flags) = command.row.flags;
        self.flags |= flags;
        if command.row.flags.has(Flags::WRITE) {
            self.written_bytes += args.total_bytes() as u64;
        }
    }

    /// By how many bytes its memory grows when a command with these arguments is added.
    pub(crate) fn growth_for(&self, args: Args<'_>) -> usize {
        growth(&self.bytes, args.total_bytes())
            + growth(&self.ranges, args.len())
            + growth(&self.commands, 1)
    }

    /// Number of commands.
    pub(crate) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether any of the commands has this flag.
    pub(crate) fn has(&self, flag: Flags) -> bool {
        Flags(self.flags).has(flag)
    }

    /// Bytes that its commands may add to the log, about.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.ranges.capacity() * size_of::<ArgRange>()
            + self.commands.capacity() * size_of::<Queued>()
    }

    /// Command `i`.
    pub(crate) fn call<'t>(&'t self, server: &'t Server, i: usize) -> Call<'t> {
        let queued = &self.commands[i];
        Call {
            command: server.commands.get(queued.command),
            args: Args::new(&self.bytes, &self.ranges[queued.args.clone()]),
        }
    }

    /// All commands, each with the number of the database it will run in if it begins in `database`.
    pub(crate) fn calls<'t>(
        &'t self,
        server: &'t Server,
        database: usize,
    ) -> impl Iterator<Item = (Call<'t>, usize)> + Clone {
        (0..self.len()).scan(database, move |database, i| {
            let call = self.call(server, i);
            let runs_in = *database;
            if call.command.row.flags.has(Flags::SELECTS) {
                *database = selected_database(call.args, server).unwrap_or(runs_in);
            }
            Some((call, runs_in))
        })
    }
}

/// Bytes by which `more` elements make the vector grow, which doubles.
fn growth<T>(vector: &Vec<T>, more: usize) -> usize {
    let needed = vector.len() + more;
    if needed <= vector.capacity() {
        return 0;
    }
    needed.max(2 * vector.capacity()) * size_of::<T>()
}
