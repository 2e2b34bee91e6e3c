//! What the collections hold, and the commands that make them.

use std::io::Write;

use crate::connection::append_command;
use crate::pipelines::Pipelines;
use crate::random::{Permutation, mix64};

/// A type of collection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hash,
    List,
    Set,
    SortedSet,
    Stream,
}

/// Many keys with some elements each, or one with many.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) keys: u64,
    /// Of each key.
    pub(crate) elements: u64,
}

/// Elements that are written by one command.
const AT_ONCE: u64 = 100;

const VALUE: &[u8; 32] = b"a value of thirty-two bytes here";

/// Arguments of one command after the other, in one buffer that is used again.
#[derive(Default)]
pub(crate) struct Arguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Arguments {
    pub(crate) fn begin(&mut self, command: &str) -> &mut Self {
        self.bytes.clear();
        self.ends.clear();
        self.push(command.as_bytes())
    }

    pub(crate) fn push(&mut self, argument: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(argument);
        self.ends.push(self.bytes.len());
        self
    }

    fn push_formatted(&mut self, argument: std::fmt::Arguments<'_>) -> &mut Self {
        // Writing to a vector does not fail.
        let _ = self.bytes.write_fmt(argument);
        self.ends.push(self.bytes.len());
        self
    }

    /// The name of a key, of 12 bytes.
    pub(crate) fn key(&mut self, key: u64) -> &mut Self {
        self.push_formatted(format_args!("key:{key:08}"))
    }

    /// The name of a field or member, of 16 bytes.
    pub(crate) fn element(&mut self, element: u64) -> &mut Self {
        self.push_formatted(format_args!("element:{element:08}"))
    }

    /// What stands in a field, in an element of a list, or in an entry of a stream: 32 bytes.
    pub(crate) fn value(&mut self) -> &mut Self {
        self.push(VALUE)
    }

    /// A score below a million.
    pub(crate) fn score(&mut self, seed: u64) -> &mut Self {
        self.push_formatted(format_args!("{}", mix64(seed) % 1_000_000))
    }

    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let parts: Vec<&[u8]> = starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[start..*end])
            .collect();
        append_command(out, &parts);
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Hash => "hash",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::SortedSet => "sorted set",
            Kind::Stream => "stream",
        }
    }

    /// Writes all elements of all keys, those of each in an order that looks random.
    pub(crate) fn fill(self, pipelines: &mut Pipelines, shape: Shape) -> Result<(), String> {
        let at_once = match self {
            // XADD takes one.
            Kind::Stream => 1,
            _ => AT_ONCE.min(shape.elements),
        };
        let commands_a_key = shape.elements.div_ceil(at_once);
        let order = Permutation::new(shape.elements, 1);
        let mut arguments = Arguments::default();
        let mut turn = 0;
        let append = |out: &mut Vec<u8>| {
            let (key, part) = (turn / commands_a_key, turn % commands_a_key);
            let first = part * at_once;
            let elements = first..(first + at_once).min(shape.elements);
            self.begin_fill(&mut arguments, key);
            for element in elements {
                self.push_element(&mut arguments, order.nth(element));
            }
            arguments.append_to(out);
            turn += 1;
        };
        let filled = pipelines.run(shape.keys * commands_a_key, 16, append);
        filled.map(drop)
    }

    fn begin_fill(self, arguments: &mut Arguments, key: u64) {
        let command = match self {
            Kind::Hash => "HSET",
            Kind::List => "RPUSH",
            Kind::Set => "SADD",
            Kind::SortedSet => "ZADD",
            Kind::Stream => "XADD",
        };
        arguments.begin(command).key(key);
        if self == Kind::Stream {
            arguments.push(b"*");
        }
    }

    fn push_element(self, arguments: &mut Arguments, element: u64) {
        match self {
            Kind::Hash => arguments.element(element).value(),
            Kind::List => arguments.value(),
            Kind::Set => arguments.element(element),
            Kind::SortedSet => arguments.score(element).element(element),
            Kind::Stream => arguments.push(b"field").value(),
        };
    }
}
