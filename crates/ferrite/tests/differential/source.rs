//! What the generators draw arguments from: a small key space whose keys mostly hold what their
//! name says, values of all kinds, and times that are far enough apart for two servers to agree.

use std::collections::VecDeque;

use crate::random::Random;

/// One command: its name and arguments.
pub(crate) type Command = Vec<Vec<u8>>;

/// Makes a [`Command`] of strings, byte strings and numbers.
#[macro_export]
macro_rules! command {
    ($($part:expr),* $(,)?) => {
        vec![$($crate::source::Part::encoded(&$part)),*]
    };
}

/// What can be part of a command.
pub(crate) trait Part {
    fn encoded(&self) -> Vec<u8>;
}

impl Part for &str {
    fn encoded(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Part for String {
    fn encoded(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }
}

impl Part for Vec<u8> {
    fn encoded(&self) -> Vec<u8> {
        self.clone()
    }
}

impl Part for i64 {
    fn encoded(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

/// The number of databases the commands go to.
const DATABASES: u64 = 3;

/// A seeded source of arguments.
pub(crate) struct Source {
    pub(crate) random: Random,
    /// The protocol of the connections: "2" or "3".
    pub(crate) protocol: &'static str,
    /// Commands to be sent after the one being made, such as values for an emptied database.
    pub(crate) then: VecDeque<Command>,
    /// The two numbers of the last ID of a stream's entry that has been made.
    pub(crate) clock: i64,
    pub(crate) sequence: i64,
}

impl Source {
    pub(crate) fn new(seed: u64, protocol: &'static str) -> Source {
        Source {
            random: Random::new(seed),
            protocol,
            then: VecDeque::new(),
            clock: 1,
            sequence: 0,
        }
    }

    /// A key that mostly holds a string of any kind.
    pub(crate) fn key(&mut self) -> Vec<u8> {
        match self.random.below(40) {
            0 => Vec::new(),
            1 => b"bin\x00\r\n\xff\x80*[".to_vec(),
            2 => vec![b'L'; 300],
            3 => self.number_key(),
            4 => self.missing_key(),
            _ => format!("s:{}", self.random.below(8)).into_bytes(),
        }
    }

    /// A key that mostly holds an integer.
    pub(crate) fn number_key(&mut self) -> Vec<u8> {
        format!("n:{}", self.random.below(4)).into_bytes()
    }

    /// A key that mostly holds a floating-point number.
    pub(crate) fn float_key(&mut self) -> Vec<u8> {
        format!("f:{}", self.random.below(3)).into_bytes()
    }

    /// A key that mostly holds a bitmap.
    pub(crate) fn bit_key(&mut self) -> Vec<u8> {
        format!("b:{}", self.random.below(5)).into_bytes()
    }

    /// A key that mostly holds a hash.
    pub(crate) fn hash_key(&mut self) -> Vec<u8> {
        self.collection_key("h")
    }

    /// A key that mostly holds a set.
    pub(crate) fn set_key(&mut self) -> Vec<u8> {
        self.collection_key("S")
    }

    /// A key that mostly holds a sorted set.
    pub(crate) fn zset_key(&mut self) -> Vec<u8> {
        self.collection_key("z")
    }

    /// A key that mostly holds a list.
    pub(crate) fn list_key(&mut self) -> Vec<u8> {
        self.collection_key("l")
    }

    /// A key that mostly holds a stream.
    pub(crate) fn stream_key(&mut self) -> Vec<u8> {
        self.collection_key("x")
    }

    /// A key that mostly holds a HyperLogLog.
    pub(crate) fn hyperloglog_key(&mut self) -> Vec<u8> {
        self.collection_key("p")
    }

    /// A key that mostly holds places.
    pub(crate) fn geo_key(&mut self) -> Vec<u8> {
        self.collection_key("g")
    }

    /// The ID of an entry that may be in a stream.
    pub(crate) fn stream_id(&mut self) -> Vec<u8> {
        let back = self.random.between(0, 20).min(self.clock);
        let (ms, sequence) = (self.clock - back, self.sequence);
        match self.random.below(6) {
            0 => ms.encoded(),
            1 => format!("{ms}-0").into_bytes(),
            _ => {
                // In this millisecond there are entries with sequences of this size.
                let sequence = (sequence - 2 * back + self.random.between(-3, 1)).max(0);
                format!("{ms}-{sequence}").into_bytes()
            }
        }
    }

    /// Where an interval of IDs begins or ends: `edge` is the usual place.
    pub(crate) fn interval_end(&mut self, edge: &str) -> Vec<u8> {
        match self.random.below(20) {
            0 => self.oddity(),
            1 => b"(".to_vec(),
            2 => b"(0-0".to_vec(),
            3 => b"(18446744073709551615-18446744073709551615".to_vec(),
            4..8 => [b"(".to_vec(), self.stream_id()].concat(),
            8..13 => self.stream_id(),
            _ => edge.encoded(),
        }
    }

    fn collection_key(&mut self, kind: &str) -> Vec<u8> {
        match self.random.below(60) {
            0 => self.any_key(),
            1 => self.missing_key(),
            _ => format!("{kind}:{}", self.random.below(6)).into_bytes(),
        }
    }

    /// As [`Source::value`], no longer than an element may be.
    pub(crate) fn element_value(&mut self) -> Vec<u8> {
        let mut value = self.value();
        value.truncate(25_000);
        value
    }

    /// A field of a hash or a member of a set.
    pub(crate) fn element(&mut self) -> Vec<u8> {
        match self.random.below(40) {
            0 => Vec::new(),
            1 => self.binary(20),
            2 => self.text(70),
            3 => self.element_value(),
            4..20 => self.random.between(0, 12).encoded(),
            _ => format!("e{}", self.random.below(12)).into_bytes(),
        }
    }

    /// An element of a list, now and then a long one.
    pub(crate) fn list_element(&mut self) -> Vec<u8> {
        if self.random.one_in(5) {
            self.value()
        } else {
            self.element()
        }
    }

    /// `command` with one to six elements, now and then many.
    pub(crate) fn with_elements(&mut self, mut command: Command) -> Command {
        // Since 7.2 Redis makes room for as many as are given: where some of them are the same, that must not matter.
        let count = match self.random.below(160) {
            0 => self.random.between(100, 500),
            1 => 700,
            _ => self.random.between(1, 6),
        };
        for _ in 0..count {
            let element = if count > 6 {
                self.random.between(0, 2000).encoded()
            } else {
                self.element()
            };
            command.push(element);
        }
        command
    }

    pub(crate) fn missing_key(&mut self) -> Vec<u8> {
        format!("missing:{}", self.random.below(1000)).into_bytes()
    }

    /// A key of any kind.
    pub(crate) fn any_key(&mut self) -> Vec<u8> {
        match self.random.below(10) {
            0 => self.number_key(),
            1 => self.float_key(),
            2 => self.bit_key(),
            3 => format!("h:{}", self.random.below(6)).into_bytes(),
            4 => format!("S:{}", self.random.below(6)).into_bytes(),
            5 => format!("z:{}", self.random.below(6)).into_bytes(),
            6 => format!("l:{}", self.random.below(6)).into_bytes(),
            7 => format!("x:{}", self.random.below(6)).into_bytes(),
            _ => self.key(),
        }
    }

    /// A key, and another (now and then the same) of the same kind.
    pub(crate) fn two_keys(&mut self) -> (Vec<u8>, Vec<u8>) {
        match self.random.below(10) {
            8 => (self.zset_key(), self.zset_key()),
            9 => (self.list_key(), self.list_key()),
            6 => (self.hash_key(), self.hash_key()),
            7 => (self.set_key(), self.set_key()),
            0 => (self.number_key(), self.number_key()),
            1 => (self.float_key(), self.float_key()),
            2 => (self.bit_key(), self.bit_key()),
            _ => (self.key(), self.key()),
        }
    }

    /// `name` with one to five keys, some of them more than once.
    pub(crate) fn name_and_keys(&mut self, name: &str) -> Command {
        let mut command = command![name];
        for _ in 0..self.random.between(1, 5) {
            command.push(self.any_key());
        }
        command
    }

    /// A value: text, a number, binary, nothing, or long.
    pub(crate) fn value(&mut self) -> Vec<u8> {
        match self.random.below(30) {
            0 => Vec::new(),
            1 => self.binary(40),
            2 => self.binary(300),
            3 => self.text(44),
            4 => self.text(45),
            5 => self.text(2000),
            6 => self.text(20_000),
            7 if self.random.one_in(8) => self.text(150_000),
            8..12 => self.integer().encoded(),
            12 => self.float(),
            13 => b" 12".to_vec(),
            14 => b"0012".to_vec(),
            _ => {
                let len = self.random.between(1, 30) as usize;
                self.text(len)
            }
        }
    }

    /// A short value for a key whose value grows.
    pub(crate) fn short_value(&mut self) -> Vec<u8> {
        let len = self.random.between(0, 12) as usize;
        if self.random.one_in(4) {
            self.binary(len)
        } else {
            self.text(len)
        }
    }

    pub(crate) fn text(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| b'a' + self.random.below(6) as u8)
            .collect()
    }

    pub(crate) fn binary(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.random.next() as u8).collect()
    }

    /// An integer, mostly small, now and then at an edge of what 64 bits hold.
    pub(crate) fn integer(&mut self) -> i64 {
        match self.random.below(30) {
            0 => i64::MAX,
            1 => i64::MIN,
            2 => 0,
            3 => self.random.next() as i64,
            _ => self.random.between(-1000, 1000),
        }
    }

    pub(crate) fn float(&mut self) -> Vec<u8> {
        match self.random.below(12) {
            0 => b"3.0e3".to_vec(),
            1 => b"-0.5".to_vec(),
            2 => self.random.between(-99, 99).encoded(),
            _ => {
                let (whole, part) = (self.random.between(-500, 500), self.random.between(1, 99));
                format!("{whole}.{part}").into_bytes()
            }
        }
    }

    /// A position in a string, also from its end, also outside.
    pub(crate) fn index(&mut self) -> i64 {
        match self.random.below(12) {
            0 => i64::MAX,
            1 => i64::MIN,
            2 => self.random.between(-3000, 3000),
            _ => self.random.between(-30, 30),
        }
    }

    /// What is hardly ever a right argument.
    pub(crate) fn oddity(&mut self) -> Vec<u8> {
        let text = *self.random.pick(&[
            "",
            "-1",
            "0",
            "x",
            "1.5",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "18446744073709551616",
            "nan",
            "inf",
            "-0",
            "+1",
            " 1",
            "1 ",
            "NX",
            "GET",
            "*",
        ]);
        text.encoded()
    }

    /// One of `words`.
    pub(crate) fn word(&mut self, words: &[&'static str]) -> &'static str {
        words[self.random.below(words.len() as u64) as usize]
    }

    pub(crate) fn database(&mut self) -> i64 {
        self.random.below(DATABASES) as i64
    }

    /// A time to live in seconds, at least 1000; two of them are hardly ever the same, so that it
    /// does not matter in which millisecond each of the servers draws the line.
    pub(crate) fn ttl_seconds(&mut self) -> i64 {
        self.random.between(1_000, 100_000_000)
    }

    pub(crate) fn ttl_ms(&mut self) -> i64 {
        self.random.between(1_000_000, 100_000_000_000)
    }

    /// Unix time in seconds, years ahead.
    pub(crate) fn future_seconds(&mut self) -> i64 {
        self.random.between(4_000_000_000, 9_000_000_000)
    }

    pub(crate) fn future_ms(&mut self) -> i64 {
        self.random.between(4_000_000_000_000, 9_000_000_000_000)
    }

    /// Options of a command that stores a value and takes an expiry.
    pub(crate) fn expiry_option(&mut self) -> Command {
        match self.random.below(5) {
            0 => command!["EX", self.ttl_seconds()],
            1 => command!["PX", self.ttl_ms()],
            2 => command!["exat", self.future_seconds()],
            3 => command!["PXAT", self.future_ms()],
            _ => match self.random.below(3) {
                0 => command!["EX", 0],
                1 => command!["PX", -5],
                _ => command!["EX", self.oddity()],
            },
        }
    }

    /// `command` with some of `options` behind it.
    pub(crate) fn with_options(&mut self, mut command: Command, options: &[&str]) -> Command {
        for option in options {
            if self.random.one_in(options.len() as u64 + 1) {
                command.push(option.encoded());
            }
        }
        command
    }

    /// Commands that fill the selected database again.
    pub(crate) fn refill(&mut self) {
        for number in 0..8 {
            let value = self.value();
            self.then
                .push_back(command!["SET", format!("s:{number}"), value]);
        }
        let number = self.random.between(-1000, 1000);
        self.then.push_back(command![
            "MSET", "n:0", number, "n:1", 7, "f:0", "1.5", "b:0", "\x05ab"
        ]);
        for number in 0..6 {
            self.refill_hash(format!("h:{number}").into_bytes());
            self.refill_set(format!("S:{number}").into_bytes());
            self.refill_zset(format!("z:{number}").into_bytes());
            self.refill_list(format!("l:{number}").into_bytes());
            self.refill_stream(format!("x:{number}").into_bytes());
        }
    }
}

impl Source {
    /// The first call of an iteration over the elements of a collection.
    pub(crate) fn scan_elements(&mut self, name: &str, key: Vec<u8>) -> Command {
        let cursor = if self.random.one_in(15) { "x" } else { "0" };
        let mut command = command![name, key, cursor];
        if self.random.one_in(2) {
            let pattern = self.word(&["*", "e*", "[0-5]*", "?", "*\\*"]);
            command.extend(command!["MATCH", pattern]);
        }
        if self.random.one_in(2) {
            let count = if self.random.one_in(10) {
                self.oddity()
            } else {
                self.random.between(1, 50).encoded()
            };
            command.extend(command!["COUNT", count]);
        }
        if self.random.one_in(30) {
            command.push(self.oddity());
        }
        command
    }

    /// Commands that make a hash of what the key holds.
    pub(crate) fn refill_hash(&mut self, key: Vec<u8>) {
        let mut command = command!["HSET", key.clone()];
        for _ in 0..self.random.between(1, 8) {
            let (field, value) = (self.element(), self.short_value());
            command.extend([field, value]);
        }
        self.then.push_back(command!["DEL", key]);
        self.then.push_back(command);
    }

    /// Commands that make a list of what the key holds.
    pub(crate) fn refill_list(&mut self, key: Vec<u8>) {
        let mut command = command!["RPUSH", key.clone()];
        for _ in 0..self.random.between(1, 10) {
            command.push(self.element());
        }
        self.then.push_back(command!["DEL", key]);
        self.then.push_back(command);
    }

    /// Commands that make a stream of what the key holds.
    pub(crate) fn refill_stream(&mut self, key: Vec<u8>) {
        self.then.push_back(command!["DEL", key.clone()]);
        for _ in 0..self.random.between(1, 4) {
            self.clock += 1;
            self.sequence += 1;
            let id = format!("{}-{}", self.clock, self.sequence);
            let (field, value) = (self.element(), self.short_value());
            self.then
                .push_back(command!["XADD", key.clone(), id, field, value]);
        }
    }

    /// Commands that make a set of what the key holds.
    pub(crate) fn refill_set(&mut self, key: Vec<u8>) {
        let mut command = command!["SADD", key.clone()];
        let only_integers = self.random.one_in(3);
        for _ in 0..self.random.between(1, 8) {
            let member = if only_integers {
                self.random.between(-5, 40).encoded()
            } else {
                self.element()
            };
            command.push(member);
        }
        self.then.push_back(command!["DEL", key]);
        self.then.push_back(command);
    }
}

impl Source {
    /// Commands that make a sorted set of what the key holds.
    pub(crate) fn refill_zset(&mut self, key: Vec<u8>) {
        let mut command = command!["ZADD", key.clone()];
        for _ in 0..self.random.between(1, 8) {
            let (score, member) = (self.random.between(-9, 9), self.element());
            command.extend([score.encoded(), member]);
        }
        self.then.push_back(command!["DEL", key]);
        self.then.push_back(command);
    }
}

impl Part for i32 {
    fn encoded(&self) -> Vec<u8> {
        i64::from(*self).encoded()
    }
}
