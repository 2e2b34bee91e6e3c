//! What a connection sends: random writes of all kinds to its own keys, each entered into the
//! oracle as it is made.
//!
//! Keys are of three kinds, so that every reply can be foreseen: counters; keys that expire soon,
//! which are written and removed without looking; and strings, which everything else works on.

use std::fmt::Write;
use std::ops::Range;

use resp::Reply;

use super::oracle::{Content, Expiry, Oracle};
use crate::connection::append_command;
use crate::random::Random;

/// One in this many strings that are written is big.
const BIG_ONE_IN: u64 = 400;

/// The length of a big value, in bytes; so that engines that cut values in pieces do.
const BIG_BYTES: (u64, u64) = (70_000, 1_500_000);

/// The longest pipeline.
const MAX_PIPELINE: u64 = 32;

/// A longer argument is not shown in a message.
const SHOWN_BYTES: usize = 32;

/// What a reply must be.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Ok,
    Queued,
    Integer(i64),
    AnyInteger,
    /// Of EXEC.
    All(Vec<Expected>),
}

impl Expected {
    fn is(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Expected::Ok, Reply::Simple(text)) => text == b"OK",
            (Expected::Queued, Reply::Simple(text)) => text == b"QUEUED",
            (Expected::Integer(expected), Reply::Integer(number)) => number == expected,
            (Expected::AnyInteger, Reply::Integer(_)) => true,
            (Expected::All(expected), Reply::Array(replies)) => {
                replies.len() == expected.len()
                    && expected
                        .iter()
                        .zip(replies)
                        .all(|(expected, reply)| expected.is(reply))
            }
            _ => false,
        }
    }
}

/// Of a step, what a reply acknowledges.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing yet: the step has further commands.
    Begin,
    All,
}

/// A command that is sent, and the reply that it must get.
struct Request {
    /// Where it is in the batch.
    bytes: Range<usize>,
    expected: Expected,
    step: usize,
    acknowledges: Part,
}

/// Requests that are sent at once, with the replies to come.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    requests: Vec<Request>,
}

impl Batch {
    fn command(&mut self, arguments: &[&[u8]]) {
        append_command(&mut self.bytes, arguments);
    }

    /// The command that has just been appended is of this step and must be answered so.
    fn expect(&mut self, expected: Expected, step: usize, acknowledges: Part) {
        let begin = self.requests.last().map_or(0, |request| request.bytes.end);
        self.requests.push(Request {
            bytes: begin..self.bytes.len(),
            expected,
            step,
            acknowledges,
        });
    }

    /// How many replies there are to come.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Which step the reply to the request at this place acknowledges, if one; the error is one line about a reply that is wrong.
    pub(crate) fn acknowledged(&self, at: usize, reply: &Reply) -> Result<Option<usize>, String> {
        let request = &self.requests[at];
        if !request.expected.is(reply) {
            return Err(self.wrong(at, reply));
        }
        Ok((request.acknowledges == Part::All).then_some(request.step))
    }

    fn wrong(&self, at: usize, reply: &Reply) -> String {
        let Request { expected, step, .. } = &self.requests[at];
        // Of a transaction the first command that was answered wrongly.
        if let (Expected::All(all), Reply::Array(replies)) = (expected, reply)
            && all.len() == replies.len()
            && let Some(wrong) = (0..all.len()).find(|&wrong| !all[wrong].is(&replies[wrong]))
        {
            let (command, of) = (self.command_text(at - all.len() + wrong), all.len());
            let (reply, expected) = (&replies[wrong], &all[wrong]);
            return format!(
                "step {step}: command {} of {of} in a transaction, {command}, was answered {reply:?} instead of {expected:?}",
                wrong + 1
            );
        }
        let command = self.command_text(at);
        format!("step {step}: {command} was answered {reply:?} instead of {expected:?}")
    }

    /// A command, with the lengths of arguments that are long.
    fn command_text(&self, at: usize) -> String {
        let mut text = String::new();
        let request = resp::decode(&self.bytes[self.requests[at].bytes.clone()]);
        if let Ok(Some((Reply::Array(arguments), _))) = request {
            for argument in arguments {
                let Reply::Bulk(argument) = argument else {
                    continue;
                };
                let gap = if text.is_empty() { "" } else { " " };
                let written = match argument.len() {
                    0..=SHOWN_BYTES => write!(text, "{gap}{}", argument.escape_ascii()),
                    len => write!(text, "{gap}<{len} bytes>"),
                };
                written.expect("a string takes any text");
            }
        }
        text
    }
}

/// What the connection may do beside writing to its keys.
#[derive(Clone, Copy)]
pub(crate) struct Abilities {
    /// MULTI and EXEC.
    pub(crate) transactions: bool,
    /// FLUSHDB: nobody else's keys are in the database.
    pub(crate) flushes: bool,
}

/// What a key is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    ExpiresSoon,
    String,
}

fn kind_of(key: usize) -> Kind {
    match key % 8 {
        0 => Kind::Counter,
        1 => Kind::ExpiresSoon,
        _ => Kind::String,
    }
}

/// Makes batches.
pub(crate) struct Work<'a> {
    pub(crate) oracle: &'a mut Oracle,
    pub(crate) random: &'a mut Random,
    pub(crate) abilities: Abilities,
}

impl Work<'_> {
    /// The next batch: a single step, or a pipeline.
    pub(crate) fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        let steps = if self.one_in(3) {
            1
        } else {
            2 + self.random.below(MAX_PIPELINE - 1)
        };
        for _ in 0..steps {
            let step = self.oracle.begin_step();
            if self.abilities.transactions && self.one_in(10) {
                self.transaction(&mut batch, step);
            } else if self.abilities.flushes && self.one_in(2_000) {
                self.flush(&mut batch, step);
            } else {
                let expected = self.write(&mut batch, step);
                batch.expect(expected, step, Part::All);
            }
        }
        batch
    }

    fn transaction(&mut self, batch: &mut Batch, step: usize) {
        batch.command(&[b"MULTI"]);
        batch.expect(Expected::Ok, step, Part::Begin);
        let mut replies = Vec::new();
        for _ in 0..2 + self.random.below(6) {
            replies.push(self.write(batch, step));
            batch.expect(Expected::Queued, step, Part::Begin);
        }
        batch.command(&[b"EXEC"]);
        batch.expect(Expected::All(replies), step, Part::All);
    }

    fn flush(&mut self, batch: &mut Batch, step: usize) {
        batch.command(&[b"FLUSHDB"]);
        batch.expect(Expected::Ok, step, Part::All);
        let keys: Vec<usize> = self.oracle.existing().collect();
        keys.into_iter()
            .for_each(|key| self.oracle.change(key, None));
    }

    /// One write of a random kind.
    fn write(&mut self, batch: &mut Batch, step: usize) -> Expected {
        let key = self.random.below(self.oracle.key_count() as u64) as usize;
        match kind_of(key) {
            Kind::Counter => self.write_counter(batch, key),
            Kind::ExpiresSoon => self.write_expiring_soon(batch, step, key),
            Kind::String => match self.random.below(10) {
                0..3 => self.set(batch, key),
                3 => self.setex(batch, step, key),
                4 => self.delete(batch, key),
                5 => self.mset(batch, key),
                6 => self.rename(batch, key),
                7 => self.setrange(batch, key),
                _ => self.append(batch, key),
            },
        }
    }

    fn write_counter(&mut self, batch: &mut Batch, key: usize) -> Expected {
        if self.one_in(8) {
            return self.delete(batch, key);
        }
        let content = self.oracle.content(key);
        let before = content.map_or(0, |content| integer(&content.bytes));
        let after = if self.one_in(2) {
            batch.command(&[b"INCR", self.oracle.name(key)]);
            before + 1
        } else {
            let by = self.random.below(2_000_001) as i64 - 1_000_000;
            let name = self.oracle.name(key);
            batch.command(&[b"INCRBY", name, by.to_string().as_bytes()]);
            before + by
        };
        self.change(key, after.to_string().into_bytes(), Expiry::Never);
        Expected::Integer(after)
    }

    /// Whether such a key is still there when the command comes, nobody knows.
    fn write_expiring_soon(&mut self, batch: &mut Batch, step: usize, key: usize) -> Expected {
        match self.random.below(8) {
            0 => self.set(batch, key),
            1 => {
                batch.command(&[b"DEL", self.oracle.name(key)]);
                self.oracle.change(key, None);
                Expected::AnyInteger
            }
            _ => {
                let ttl_ms = 20 + self.random.below(1_500);
                let value = self.value();
                let (name, ttl) = (self.oracle.name(key), ttl_ms.to_string());
                batch.command(&[b"PSETEX", name, ttl.as_bytes(), &value]);
                self.change(key, value, Expiry::After { step, ttl_ms });
                Expected::Ok
            }
        }
    }

    fn set(&mut self, batch: &mut Batch, key: usize) -> Expected {
        let value = self.value();
        batch.command(&[b"SET", self.oracle.name(key), &value]);
        self.change(key, value, Expiry::Never);
        Expected::Ok
    }

    fn setex(&mut self, batch: &mut Batch, step: usize, key: usize) -> Expected {
        // Longer than any run.
        let ttl_seconds = 100_000 + self.random.below(100_000);
        let value = self.value();
        let (name, ttl) = (self.oracle.name(key), ttl_seconds.to_string());
        batch.command(&[b"SETEX", name, ttl.as_bytes(), &value]);
        let ttl_ms = ttl_seconds * 1000;
        self.change(key, value, Expiry::After { step, ttl_ms });
        Expected::Ok
    }

    fn delete(&mut self, batch: &mut Batch, key: usize) -> Expected {
        batch.command(&[b"DEL", self.oracle.name(key)]);
        let existed = self.oracle.content(key).is_some();
        self.oracle.change(key, None);
        Expected::Integer(i64::from(existed))
    }

    fn mset(&mut self, batch: &mut Batch, key: usize) -> Expected {
        let mut pairs = vec![(key, self.value())];
        for _ in 0..1 + self.random.below(4) {
            let other = self.string_key();
            if pairs.iter().all(|(key, _)| *key != other) {
                pairs.push((other, self.value()));
            }
        }
        let mut arguments: Vec<&[u8]> = vec![b"MSET"];
        for (key, value) in &pairs {
            arguments.push(self.oracle.name(*key));
            arguments.push(value);
        }
        batch.command(&arguments);
        for (key, value) in pairs {
            self.change(key, value, Expiry::Never);
        }
        Expected::Ok
    }

    fn rename(&mut self, batch: &mut Batch, from: usize) -> Expected {
        let Some(content) = self.oracle.content(from).cloned() else {
            return self.set(batch, from);
        };
        let to = self.string_key();
        batch.command(&[b"RENAME", self.oracle.name(from), self.oracle.name(to)]);
        self.oracle.change(from, None);
        self.oracle.change(to, Some(content));
        Expected::Ok
    }

    fn append(&mut self, batch: &mut Batch, key: usize) -> Expected {
        let piece = self.bytes(1, 60);
        batch.command(&[b"APPEND", self.oracle.name(key), &piece]);
        let offset = self
            .oracle
            .content(key)
            .map_or(0, |content| content.bytes.len());
        self.write_range(key, offset, &piece)
    }

    fn setrange(&mut self, batch: &mut Batch, key: usize) -> Expected {
        let piece = self.bytes(1, 60);
        let len = self
            .oracle
            .content(key)
            .map_or(0, |content| content.bytes.len());
        // Sometimes behind the end: zeros fill the gap.
        let offset = self.random.below(len as u64 + 20) as usize;
        let name = self.oracle.name(key);
        batch.command(&[b"SETRANGE", name, offset.to_string().as_bytes(), &piece]);
        self.write_range(key, offset, &piece)
    }

    fn write_range(&mut self, key: usize, offset: usize, piece: &[u8]) -> Expected {
        let (mut bytes, expiry) = match self.oracle.content(key).cloned() {
            Some(Content { bytes, expiry }) => (bytes, expiry),
            None => (Vec::new(), Expiry::Never),
        };
        let end = offset + piece.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[offset..end].copy_from_slice(piece);
        let len = bytes.len() as i64;
        self.change(key, bytes, expiry);
        Expected::Integer(len)
    }

    fn change(&mut self, key: usize, bytes: Vec<u8>, expiry: Expiry) {
        self.oracle.change(key, Some(Content { bytes, expiry }));
    }

    fn string_key(&mut self) -> usize {
        loop {
            let key = self.random.below(self.oracle.key_count() as u64) as usize;
            if kind_of(key) == Kind::String {
                return key;
            }
        }
    }

    fn value(&mut self) -> Vec<u8> {
        if self.one_in(BIG_ONE_IN) {
            return self.bytes(BIG_BYTES.0, BIG_BYTES.1);
        }
        self.bytes(8, 300)
    }

    /// Random bytes, between `min` and `max` of them.
    fn bytes(&mut self, min: u64, max: u64) -> Vec<u8> {
        let len = (min + self.random.below(max - min + 1)) as usize;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.random.next_u64().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.random.below(times) == 0
    }
}

/// The number a counter holds.
fn integer(bytes: &[u8]) -> i64 {
    let number = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok());
    number.expect("a counter holds a number: only INCR and INCRBY write it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_wrong_reply_names_step_command_and_key() {
        let mut batch = Batch::default();
        batch.command(&[b"MULTI"]);
        batch.expect(Expected::Ok, 7, Part::Begin);
        batch.command(&[b"SET", b"3:17", &[b'v'; 100]]);
        batch.expect(Expected::Queued, 7, Part::Begin);
        batch.command(&[b"INCR", b"3:8"]);
        batch.expect(Expected::Queued, 7, Part::Begin);
        batch.command(&[b"EXEC"]);
        let all = vec![Expected::Ok, Expected::Integer(5)];
        batch.expect(Expected::All(all), 7, Part::All);

        let queued = Reply::Simple(b"QUEUED".to_vec());
        assert_eq!(batch.acknowledged(1, &queued), Ok(None));
        let wrong = batch.acknowledged(1, &Reply::Null).unwrap_err();
        assert!(
            wrong.starts_with("step 7: SET 3:17 <100 bytes> was"),
            "{wrong}"
        );
        let replies = |number| {
            let ok = Reply::Simple(b"OK".to_vec());
            Reply::Array(vec![ok, Reply::Integer(number)])
        };
        assert_eq!(batch.acknowledged(3, &replies(5)), Ok(Some(7)));
        let wrong = batch.acknowledged(3, &replies(4)).unwrap_err();
        assert!(
            wrong.contains("step 7: command 2 of 2 in a transaction, INCR 3:8, was"),
            "{wrong}"
        );
    }
}
