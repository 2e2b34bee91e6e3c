//! The command table: finds the row of a command by the name a client sent.
//!
//! Built once at start from the rows of all families; `rename-command` renames or removes entries. Every command and
//! subcommand has a number ([`CommandId`]), which its statistics go by.

use std::fmt::Write as _;

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row};
use crate::config::RenamedCommand;
use crate::ctx::Ctx;

/// The number of a command or subcommand in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CommandId(pub(crate) u16);

/// A command or subcommand in the table.
pub(crate) struct Command {
    pub(crate) id: CommandId,
    pub(crate) row: &'static Row,
    /// "get", or "config|get" of a subcommand.
    pub(crate) full_name: String,
    /// Whether the keys it finds or misses count in `keyspace_hits` and `keyspace_misses`: those of commands that read
    /// data, and not of those about the server (MEMORY USAGE).
    pub(crate) counts_hits: bool,
    subcommands: Names,
}

/// What [`CommandTable::lookup`] found.
pub(crate) enum Lookup<'t> {
    Found(&'t Command),
    /// The container exists, but has no such subcommand.
    NoSubcommand,
    Unknown,
}

/// All commands.
pub(crate) struct CommandTable {
    commands: Vec<Command>,
    names: Names,
}

impl CommandTable {
    /// Builds the table. An error names the `rename-command` that cannot be.
    pub(crate) fn new(
        families: &[&'static [Row]],
        renames: &[RenamedCommand],
    ) -> Result<Self, String> {
        let mut table = CommandTable {
            commands: Vec::new(),
            names: Names::default(),
        };
        for row in families.iter().copied().flatten() {
            let id = table.add(row, None);
            table.names.insert(row.name, id, &table.commands);
        }
        for rename in renames {
            table.rename(rename).map_err(|reason| {
                let (from, to) = (
                    String::from_utf8_lossy(&rename.from),
                    String::from_utf8_lossy(&rename.to),
                );
                format!("{}: rename-command {from} \"{to}\": {reason}", rename.place)
            })?;
        }
        Ok(table)
    }

    fn add(&mut self, row: &'static Row, container: Option<CommandId>) -> CommandId {
        let id = CommandId(self.commands.len() as u16);
        let full_name = match container {
            Some(container) => format!("{}|{}", self.get(container).row.name, row.name),
            None => row.name.to_owned(),
        };
        self.commands.push(Command {
            id,
            row,
            full_name,
            counts_hits: row.group != "server"
                && (row.flags.has(Flags::READONLY) || row.flags.has(Flags::COUNTS_HITS)),
            subcommands: Names::default(),
        });
        let help = (!row.subcommands.is_empty()
            && row.subcommands.iter().all(|sub| sub.name != HELP.name))
        .then_some(&HELP);
        for subcommand in row.subcommands.iter().chain(help) {
            let sub_id = self.add(subcommand, Some(id));
            let mut names = std::mem::take(&mut self.commands[id.0 as usize].subcommands);
            names.insert(subcommand.name, sub_id, &self.commands);
            self.commands[id.0 as usize].subcommands = names;
        }
        id
    }

    fn rename(&mut self, rename: &RenamedCommand) -> Result<(), &'static str> {
        let id = self.names.find(&rename.from).ok_or("no such command")?;
        let new_name = str::from_utf8(&rename.to)
            .map_err(|_| "the new name must be UTF-8")?
            .to_ascii_lowercase();
        if !new_name.is_empty() && self.names.find(new_name.as_bytes()).is_some() {
            return Err("the new name is taken by another command");
        }
        self.names.remove(&rename.from);
        if !new_name.is_empty() {
            self.names.insert(&new_name, id, &self.commands);
        }
        Ok(())
    }

    /// The command with this number.
    pub(crate) fn get(&self, id: CommandId) -> &Command {
        &self.commands[id.0 as usize]
    }

    /// Finds the command, or subcommand, that `args` (at least the name) call.
    #[inline]
    pub(crate) fn lookup(&self, args: Args<'_>) -> Lookup<'_> {
        let Some(id) = self.names.find(&args[0]) else {
            return Lookup::Unknown;
        };
        let command = self.get(id);
        if command.row.subcommands.is_empty() || args.len() == 1 {
            return Lookup::Found(command);
        }
        match command.subcommands.find(&args[1]) {
            Some(id) => Lookup::Found(self.get(id)),
            // The handler of COMMAND is for the call without a subcommand.
            None if matches!(command.row.handler, Handler::Container) || command.row.takes(1) => {
                Lookup::NoSubcommand
            }
            // DEBUG answers for subcommands it does not have in words of its own.
            None => Lookup::Found(command),
        }
    }

    /// The command with this name ("get", "config", "config|get"), letter case aside.
    pub(crate) fn find(&self, name: &[u8]) -> Option<&Command> {
        let mut parts = name.splitn(2, |byte| *byte == b'|');
        let command = self.get(self.names.find(parts.next()?)?);
        match parts.next() {
            None => Some(command),
            Some(subcommand) => Some(self.get(command.subcommands.find(subcommand)?)),
        }
    }

    /// All commands that can be called, without subcommands, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Command> {
        self.names.ids().map(|id| self.get(id))
    }

    /// The subcommands of a container, in no particular order.
    pub(crate) fn subcommands(&self, command: &Command) -> impl Iterator<Item = &Command> {
        command.subcommands.ids().map(|id| self.get(id))
    }

    /// All commands and subcommands, by number.
    pub(crate) fn all(&self) -> &[Command] {
        &self.commands
    }
}

/// Open-addressed table from lower-case names to numbers. At most half of it is in use.
#[derive(Default)]
struct Names {
    slots: Vec<Option<(Box<str>, CommandId)>>,
    len: usize,
}

impl Names {
    #[inline]
    fn find(&self, name: &[u8]) -> Option<CommandId> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash(name) & mask;
        while let Some((slot_name, id)) = &self.slots[at] {
            if slot_name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(*id);
            }
            at = (at + 1) & mask;
        }
        None
    }

    fn insert(&mut self, name: &str, id: CommandId, commands: &[Command]) {
        assert!(
            self.find(name.as_bytes()).is_none(),
            "two rows are named {name:?} ({})",
            commands[id.0 as usize].full_name
        );
        if self.slots.len() < (self.len + 1) * 2 {
            let old = std::mem::take(&mut self.slots);
            self.slots.resize_with((old.len() * 2).max(8), || None);
            old.into_iter()
                .flatten()
                .for_each(|entry| self.place(entry));
        }
        self.place((name.into(), id));
        self.len += 1;
    }

    fn place(&mut self, entry: (Box<str>, CommandId)) {
        let mask = self.slots.len() - 1;
        let mut at = hash(entry.0.as_bytes()) & mask;
        while self.slots[at].is_some() {
            at = (at + 1) & mask;
        }
        self.slots[at] = Some(entry);
    }

    fn remove(&mut self, name: &[u8]) {
        let entries: Vec<_> = std::mem::take(&mut self.slots)
            .into_iter()
            .map(|slot| {
                slot.filter(|(slot_name, _)| !slot_name.as_bytes().eq_ignore_ascii_case(name))
            })
            .collect();
        self.slots.resize_with(entries.len(), || None);
        entries
            .into_iter()
            .flatten()
            .for_each(|entry| self.place(entry));
        self.len -= 1;
    }

    fn ids(&self) -> impl Iterator<Item = CommandId> {
        self.slots.iter().flatten().map(|(_, id)| *id)
    }
}

/// A hash that is the same for upper and lower case letters.
#[inline]
fn hash(name: &[u8]) -> usize {
    let mut hash = name.len() as u64;
    for &byte in name {
        hash = (hash ^ u64::from(byte | 0x20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (hash >> 32) as usize
}

/// The HELP subcommand of every container that has none of its own.
const HELP: Row = Row {
    name: "help",
    arity: 2,
    flags: Flags::LOADING.and(Flags::STALE),
    keys: Keys::None,
    categories: &[],
    group: "server",
    since: "5.0.0",
    complexity: "O(1)",
    summary: "Describes the subcommands.",
    handler: Handler::Worker(help),
    subcommands: &[],
    tips: &[],
};

fn help(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let name = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
    let mut lines = vec![format!(
        "{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    )];
    if let Some(container) = cx.server.commands.find(&args[0]) {
        let mut rows: Vec<_> = cx
            .server
            .commands
            .subcommands(container)
            .map(|command| command.row)
            .collect();
        rows.sort_unstable_by_key(|row| row.name);
        for row in rows.iter().filter(|row| row.name != HELP.name) {
            let mut line = row.name.to_ascii_uppercase();
            if row.arity != 2 {
                let _ = write!(line, " ...");
            }
            lines.push(line);
            lines.push(format!("    {}", row.summary));
        }
    }
    lines.push("HELP".to_owned());
    lines.push("    Print this help.".to_owned());
    cx.reply.array(lines.len());
    for line in &lines {
        cx.reply.simple(line);
    }
    Ok(())
}
