//! Commands on one element of a collection that is wholly on the device: how often they read it.

use super::data::{Arguments, Kind, Shape};
use crate::connection::Connection;
use crate::contender::{Contender, Cores};
use crate::info::Info;
use crate::pipelines::Pipelines;
use crate::random::Random;

/// How often each is asked.
const TIMES: u64 = 30;

/// A command, and the most reads of the device that one may take.
pub(crate) struct Case {
    pub(crate) command: &'static str,
    kind: Kind,
    pub(crate) goal: u64,
}

pub(crate) const CASES: [Case; 8] = [
    Case::new("HGET", Kind::Hash, 3),
    Case::new("HSET", Kind::Hash, 3),
    Case::new("SISMEMBER", Kind::Set, 3),
    Case::new("LINDEX", Kind::List, 3),
    Case::new("ZSCORE", Kind::SortedSet, 3),
    Case::new("ZRANGE", Kind::SortedSet, 4),
    Case::new("ZRANK", Kind::SortedSet, 5),
    Case::new("ZADD", Kind::SortedSet, 5),
];

/// What the calls of one command took at most.
#[derive(Clone, Copy, Default)]
pub(crate) struct Most {
    pub(crate) reads: u64,
    /// Submissions to the device: reads that are asked for together are one.
    pub(crate) rounds: u64,
    pub(crate) bytes: u64,
}

impl Case {
    const fn new(command: &'static str, kind: Kind, goal: u64) -> Case {
        Case {
            command,
            kind,
            goal,
        }
    }

    /// Asks for random elements of one key with so many, everything on the device before each call.
    pub(crate) fn measure(
        &self,
        ferrite: &Contender,
        cores: Cores,
        elements: u64,
    ) -> Result<Most, String> {
        let server = ferrite.start(cores, "--enable-debug-command yes", None)?;
        let mut pipelines = Pipelines::open(server.port, 1)?;
        self.kind
            .fill(&mut pipelines, Shape { keys: 1, elements })?;
        let mut connection = server.connect()?;
        let (mut random, mut most) = (Random::new(1), Most::default());
        let mut arguments = Arguments::default();
        for _ in 0..TIMES {
            connection.order(&[b"DEBUG", b"FORCE-COLD"])?;
            let before = Device::ask(&mut connection)?;
            self.prepare(&mut arguments, random.below(elements), elements);
            let mut bytes = Vec::new();
            arguments.append_to(&mut bytes);
            connection.send(&bytes)?;
            if let resp::Reply::Error(error) = connection.reply()? {
                let error = String::from_utf8_lossy(&error).into_owned();
                return Err(format!("{} was answered {error}", self.command));
            }
            let after = Device::ask(&mut connection)?;
            most.reads = most.reads.max(after.reads - before.reads);
            most.rounds = most.rounds.max(after.submissions - before.submissions);
            most.bytes = most.bytes.max(after.bytes - before.bytes);
        }
        Ok(most)
    }

    fn prepare(&self, arguments: &mut Arguments, at: u64, elements: u64) {
        let arguments = arguments.begin(self.command).key(0);
        match self.command {
            "HSET" => arguments.element(at).value(),
            "LINDEX" => arguments.push(at.to_string().as_bytes()),
            "ZRANGE" => {
                let first = at.min(elements.saturating_sub(10));
                let last = first + 9;
                arguments
                    .push(first.to_string().as_bytes())
                    .push(last.to_string().as_bytes())
            }
            "ZADD" => arguments.score(at + elements).element(at),
            // HGET, SISMEMBER, ZSCORE and ZRANK.
            _ => arguments.element(at),
        };
    }
}

/// What the server has asked of the device so far.
struct Device {
    submissions: u64,
    reads: u64,
    bytes: u64,
}

impl Device {
    fn ask(connection: &mut Connection) -> Result<Device, String> {
        let info = Info::ask(connection)?;
        Ok(Device {
            submissions: info.number("device_submissions")?,
            reads: info.number("device_reads")?,
            bytes: info.number("device_read_bytes")?,
        })
    }
}
