//! Commands on collections in memory: how many a second, and what they cost the server.

use serde_json::{Value, json};

use super::data::{Arguments, Kind, Shape};
use crate::contender::Running;
use crate::figure::median;
use crate::pipelines::Pipelines;
use crate::random::Random;
use crate::server_process::ProcessUsage;

/// Connections of the client.
const CONNECTIONS: usize = 50;

/// Commands that each connection sends at once.
const PIPELINE: u64 = 16;

/// One command that is measured.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    command: &'static str,
    kind: Kind,
}

pub(crate) const ROWS: [Row; 7] = [
    Row::new("HSET", Kind::Hash),
    Row::new("HGET", Kind::Hash),
    Row::new("LPUSH", Kind::List),
    Row::new("LPOP", Kind::List),
    Row::new("SADD", Kind::Set),
    Row::new("ZADD", Kind::SortedSet),
    Row::new("XADD", Kind::Stream),
];

/// What the rounds of one server have shown.
#[derive(Clone, Default)]
pub(crate) struct Measured {
    per_second: Vec<f64>,
    cpu_micros: Vec<f64>,
}

/// One row on one shape of data, of all servers.
pub(crate) struct Outcome {
    pub(crate) command: &'static str,
    pub(crate) shape: Shape,
    /// In the order of the servers.
    pub(crate) measured: Vec<Measured>,
}

impl Row {
    const fn new(command: &'static str, kind: Kind) -> Row {
        Row { command, kind }
    }

    pub(crate) fn command(self) -> &'static str {
        self.command
    }

    /// Measures it on all servers in turns.
    pub(crate) fn measure(
        self,
        servers: &[Running],
        shape: Shape,
        rounds: u64,
        commands: u64,
    ) -> Result<Outcome, String> {
        let mut measured = vec![Measured::default(); servers.len()];
        for round in 0..rounds {
            for (server, measured) in servers.iter().zip(&mut measured) {
                server.connect()?.order(&[b"FLUSHALL", b"SYNC"])?;
                let mut pipelines = Pipelines::open(server.port, CONNECTIONS)?;
                self.kind.fill(&mut pipelines, shape)?;
                let mut random = Random::new(round);
                let mut arguments = Arguments::default();
                let before = ProcessUsage::of(server.pid())?;
                let elapsed = pipelines.run(commands, PIPELINE, |out| {
                    self.prepare(&mut arguments, &mut random, shape);
                    arguments.append_to(out);
                })?;
                let after = ProcessUsage::of(server.pid())?;
                let per_second = commands as f64 / elapsed.as_secs_f64();
                let cpu = (after.cpu_micros - before.cpu_micros) / commands as f64;
                measured.per_second.push(per_second);
                measured.cpu_micros.push(cpu);
            }
        }
        Ok(Outcome {
            command: self.command,
            shape,
            measured,
        })
    }

    /// One command: of a random key, on a random element where it names one. Half of those that SADD and ZADD add are new.
    fn prepare(self, arguments: &mut Arguments, random: &mut Random, shape: Shape) {
        let key = random.below(shape.keys);
        let arguments = arguments.begin(self.command).key(key);
        match self.command {
            "HSET" => arguments.element(random.below(shape.elements)).value(),
            "HGET" => arguments.element(random.below(shape.elements)),
            "LPUSH" => arguments.value(),
            "SADD" => arguments.element(random.below(2 * shape.elements)),
            "ZADD" => arguments
                .score(random.next_u64())
                .element(random.below(2 * shape.elements)),
            "XADD" => arguments.push(b"*").push(b"field").value(),
            // LPOP.
            _ => arguments,
        };
    }
}

impl Measured {
    /// Commands a second, of the round in the middle.
    pub(crate) fn per_second(&self) -> f64 {
        median(self.per_second.iter().copied())
    }

    /// The server's processor time a command in microseconds, of the round in the middle.
    pub(crate) fn cpu_micros(&self) -> f64 {
        median(self.cpu_micros.iter().copied())
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({ "per_second": self.per_second, "cpu_micros": self.cpu_micros })
    }
}
