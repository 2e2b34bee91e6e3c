//! What collections take in memory: the growth of the process's resident memory while they are written.

use super::data::{Kind, Shape};
use crate::contender::{Contender, Cores};
use crate::pipelines::Pipelines;
use crate::server_process::ProcessUsage;

/// What is written.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    /// The most that Ferrite is to take, against Redis.
    pub(crate) goal: f64,
}

/// The cases, with `elements` elements in each large key, and as many small ones.
pub(crate) fn cases(elements: u64) -> [Case; 4] {
    let one = Shape { keys: 1, elements };
    let small = Shape {
        keys: elements,
        elements: 5,
    };
    let case = |kind, shape, goal| Case { kind, shape, goal };
    [
        case(Kind::Hash, small, 1.0),
        case(Kind::Hash, one, 1.0),
        case(Kind::SortedSet, one, 1.0),
        case(Kind::List, one, 1.1),
    ]
}

impl Case {
    /// Bytes that a new server's resident memory grows by.
    pub(crate) fn measure(self, contender: &Contender, cores: Cores) -> Result<u64, String> {
        let server = contender.start(cores, "", None)?;
        let mut pipelines = Pipelines::open(server.port, 1)?;
        // What the first commands of all take is not the data's.
        pipelines.run(1000, 1, |out| {
            out.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        })?;
        let before = ProcessUsage::of(server.pid())?.rss_bytes;
        self.kind.fill(&mut pipelines, self.shape)?;
        let after = ProcessUsage::of(server.pid())?.rss_bytes;
        Ok(after.saturating_sub(before))
    }
}
