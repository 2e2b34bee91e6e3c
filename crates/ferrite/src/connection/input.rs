//! The requests that a connection has read, parsed slice by slice.

use std::ops::Range;

use resp::{Authentication, Limits, Parsed, ProtocolError, RequestParser};

use super::SLICE_COMMANDS;
use crate::args::{ArgRange, Args};
use crate::table::{CommandId, CommandTable, Lookup};
use crate::worker::Worker;

/// The least room offered to a read, and the most at first for a request that announced that it is longer.
const READ_MIN_BYTES: usize = 4 * 1024;
const READ_STEP_BYTES: usize = 1024 * 1024;
/// So much needs no large buffer while its client waits.
const FEW_BYTES: usize = 512;
/// Argument ranges that are kept for the next slice; one command may have a million.
const RANGES_KEPT: usize = 16 * 1024;

/// Requests that have been read.
#[derive(Default)]
pub(super) struct Input {
    pub(super) buffer: Vec<u8>,
    /// Where in the buffer the first command that has not been parsed starts.
    parsed: usize,
    parser: RequestParser,
    /// How many more bytes the unfinished command needs at least.
    pub(super) need: usize,
    /// The parsed commands.
    commands: Vec<Request>,
    ranges: Vec<ArgRange>,
}

/// One parsed command.
struct Request {
    /// Its arguments, as a range of the input's `ranges`.
    args: Range<usize>,
    /// Its number in the command table once that has been looked up; none if there is no such command.
    command: Option<CommandId>,
}

/// Whether the input may hold more whole commands than were parsed.
pub(super) enum More {
    Yes,
    No,
}

impl Input {
    /// How many commands the slice has.
    pub(super) fn command_count(&self) -> usize {
        self.commands.len()
    }

    /// Command `i` of the slice.
    #[inline]
    pub(super) fn args(&self, i: usize) -> Args<'_> {
        Args::new(&self.buffer, &self.ranges[self.commands[i].args.clone()])
    }

    /// The number of command `i` of the slice, if there is such a command.
    #[inline]
    pub(super) fn command(&self, i: usize) -> Option<CommandId> {
        self.commands[i].command
    }

    /// Looks the commands of the slice up.
    pub(super) fn resolve(&mut self, table: &CommandTable) {
        for request in &mut self.commands {
            let args = Args::new(&self.buffer, &self.ranges[request.args.clone()]);
            if let Lookup::Found(command) = table.lookup(args) {
                request.command = Some(command.id);
            }
        }
    }

    /// Parses commands up to the size of a slice. Those of the previous slice are done with.
    pub(super) fn parse(&mut self, limits: Limits) -> Result<More, ProtocolError> {
        self.commands.clear();
        self.ranges.clear();
        if self.parsed == self.buffer.len() {
            return Ok(More::No);
        }
        self.parser.set_limits(limits);
        let most = match limits.authentication {
            // The first command may be the one that authenticates.
            Authentication::Pending => 1,
            Authentication::Done => SLICE_COMMANDS,
        };
        while self.commands.len() < most {
            match self
                .parser
                .parse(&mut self.buffer, self.parsed, &mut self.ranges)?
            {
                Parsed::Complete { end, args } => {
                    self.commands.push(Request {
                        args,
                        command: None,
                    });
                    self.parsed = end;
                }
                Parsed::Incomplete { keep_from, need } => {
                    self.parsed = keep_from;
                    self.need = need;
                    return Ok(More::No);
                }
            }
        }
        Ok(More::Yes)
    }

    /// By how much the buffer has to grow for the next read.
    pub(super) fn growth(&self) -> usize {
        // A request that announced a length gets room step by step: a quarter of what has come, so that what is merely
        // announced takes little and moving what has come costs little.
        let step = READ_STEP_BYTES.max(self.buffer.len() / 4);
        let room = self.buffer.capacity() - self.buffer.len();
        match self.need.clamp(READ_MIN_BYTES, step) {
            wanted if wanted <= room => 0,
            wanted => self.buffer.len() + wanted - self.buffer.capacity(),
        }
    }

    /// Lets the buffer grow by [`Self::growth`].
    pub(super) fn grow(&mut self) {
        let capacity = self.buffer.capacity() + self.growth();
        self.buffer.reserve_exact(capacity - self.buffer.len());
    }

    /// The buffer, if there is little in it; that goes on in one of its size.
    pub(super) fn take_large_buffer(&mut self) -> Option<Vec<u8>> {
        let is_large = self.buffer.len() <= FEW_BYTES && self.buffer.capacity() > 2 * FEW_BYTES;
        is_large.then(|| {
            let few = self.buffer.as_slice().to_vec();
            std::mem::replace(&mut self.buffer, few)
        })
    }

    /// Bytes that [`Self::drop_run`] will free, at most.
    pub(super) fn run_bytes(&self) -> usize {
        self.buffer.capacity() - (self.buffer.len() - self.parsed)
    }

    /// Drops the bytes of commands that have been run, and the buffer if none are left.
    pub(super) fn drop_run(&mut self, worker: &Worker) {
        if self.parsed == self.buffer.len() {
            worker.give_buffer(std::mem::take(&mut self.buffer));
        } else {
            self.buffer.drain(..self.parsed);
            // One long request does not make the buffer large for ever.
            if self.parsed > 0 && self.buffer.capacity() / 4 > self.buffer.len() {
                self.buffer.shrink_to(worker.buffer_bytes);
            }
        }
        self.parsed = 0;
        if self.ranges.capacity() > RANGES_KEPT {
            self.ranges = Vec::new();
        }
    }
}
