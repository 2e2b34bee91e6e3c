//! The values of directives: which kinds there are, and how a value is printed for `CONFIG GET` and
//! written to a file.

use std::ops::RangeInclusive;

use super::syntax::{format_memory, quote};

/// The largest value of a C `int`, the limit of most of Redis's numbers.
pub(crate) const INT_MAX: i64 = i32::MAX as i64;
/// The largest size that Redis keeps in a signed number.
pub(crate) const SIGNED_MAX: u64 = i64::MAX as u64;

pub(crate) const MAX_BIND_ADDRESSES: usize = 16;
/// The sizes that a segment of the log may have.
pub(crate) const SEGMENT_BYTES: RangeInclusive<u64> = 1 << 20..=32 << 20;
/// What a title template may name in braces.
pub(crate) const TITLE_VARIABLES: [&str; 7] = [
    "title",
    "listen-addr",
    "server-mode",
    "port",
    "tls-port",
    "config-file",
    "unixsocket",
];

/// What a directive's value looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    YesNo,
    Integer {
        min: i64,
        max: i64,
    },
    /// Any integer from 0 up; what lies outside the bounds is moved to the nearer one.
    Clamped {
        lowest: i64,
        highest: i64,
    },
    /// A file mode.
    Octal {
        max: u32,
    },
    /// A size in bytes.
    Memory {
        min: u64,
        max: u64,
    },
    /// A size in bytes or a share of `maxmemory`.
    MemoryOrPercent,
    /// 0 (automatic) or a power of two.
    SegmentSize,
    Choice(&'static [&'static str]),
    /// Any number of the words.
    Choices(&'static [&'static str]),
    Text,
    FileName,
    /// A path, made absolute.
    Directory,
    Hostname,
    TitleTemplate,
    KeyspaceEvents,
    /// Addresses to listen on.
    Bind,
    /// `host port`, or `no one`.
    ReplicaOf,
    /// Pairs of seconds and changes; lines add up.
    Save,
    /// Class, hard limit, soft limit, soft seconds; each line changes the classes it names.
    BufferLimits,
    Percentiles,
    /// Three numbers.
    OomScores,
    /// Lines of a file that are no setting (`include`), each of so many words; they add up.
    Lines {
        min_words: usize,
        max_words: usize,
    },
}

/// A directive's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    YesNo(bool),
    Integer(i64),
    Octal(u32),
    Bytes(u64),
    Percent(u8),
    Choice(&'static str),
    Choices(Vec<&'static str>),
    Text(Vec<u8>),
    Words(Vec<Vec<u8>>),
    Save(Vec<SaveRule>),
    BufferLimits([BufferLimit; 3]),
    Percentiles(Vec<f64>),
    OomScores([i32; 3]),
    Lines(Vec<Line>),
}

/// Snapshot after so many seconds if so many keys changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SaveRule {
    pub(crate) seconds: u64,
    pub(crate) changes: u64,
}

/// How much may be waiting for a client that does not read its replies; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferLimit {
    /// The client is cut off at once above this.
    pub(crate) hard_bytes: u64,
    /// The client is cut off when it stays above this for `soft_seconds`.
    pub(crate) soft_bytes: u64,
    pub(crate) soft_seconds: u32,
}

/// The classes of clients in [`Value::BufferLimits`], in its order, by their printed names.
const CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// A line of a file or of the command line: its words after the directive's name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Where it stands, for messages: `ferrite.conf line 7`.
    pub(crate) place: String,
    pub(crate) words: Vec<Vec<u8>>,
}

impl Kind {
    /// Whether the directive takes any number of words rather than exactly one.
    pub(crate) fn takes_many_words(&self) -> bool {
        use Kind::*;
        matches!(
            self,
            Choices(_)
                | Bind
                | ReplicaOf
                | Save
                | BufferLimits
                | Percentiles
                | OomScores
                | Lines { .. }
        )
    }

    /// What may be written, for messages and for the documentation.
    pub(crate) fn allowed(&self) -> String {
        match self {
            Kind::YesNo => "yes or no".to_owned(),
            Kind::Integer { min, max: i64::MAX } => format!("a whole number from {min} up"),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Clamped { lowest, highest } => {
                format!("a whole number from {lowest} to {highest}")
            }
            Kind::Octal { max } => format!("an octal number from 0 to {max:o}"),
            Kind::Memory { min, max } if *max >= SIGNED_MAX => {
                format!("a size from {} up, such as 64mb", format_memory(*min))
            }
            Kind::Memory { min, max } => {
                format!(
                    "a size from {} to {}",
                    format_memory(*min),
                    format_memory(*max)
                )
            }
            Kind::MemoryOrPercent => {
                "a size such as 64mb, or a percentage from 0% to 100%".to_owned()
            }
            Kind::SegmentSize => format!(
                "0 (automatic) or a power of two from {} to {}",
                format_memory(*SEGMENT_BYTES.start()),
                format_memory(*SEGMENT_BYTES.end())
            ),
            Kind::Choice(names) => format!("one of {}", names.join(", ")),
            Kind::Choices(names) => format!("any of {}", names.join(", ")),
            Kind::Text => "one word, quoted if it has blanks".to_owned(),
            Kind::FileName => "a file name without directories".to_owned(),
            Kind::Directory => "a directory".to_owned(),
            Kind::Hostname => "a host name, or nothing".to_owned(),
            Kind::TitleTemplate => {
                format!("text with any of {{{}}}", TITLE_VARIABLES.join("}, {"))
            }
            Kind::KeyspaceEvents => "letters of Ag$lshzxeKEtmdn, or nothing".to_owned(),
            Kind::Bind => format!("up to {MAX_BIND_ADDRESSES} addresses, each may begin with -"),
            Kind::ReplicaOf => "a host and a port, or no one".to_owned(),
            Kind::Save => "pairs of seconds (from 1) and changes (from 0), or nothing".to_owned(),
            Kind::BufferLimits => {
                "normal, replica or pubsub, a hard limit, a soft limit, seconds; more of these four"
                    .to_owned()
            }
            Kind::Percentiles => "numbers from 0 to 100, or nothing".to_owned(),
            Kind::OomScores => "three whole numbers from -2000 to 2000".to_owned(),
            Kind::Lines {
                min_words,
                max_words,
            } => {
                let count = match *max_words {
                    usize::MAX => format!("{min_words} or more"),
                    max if max == *min_words => max.to_string(),
                    max => format!("{min_words} to {max}"),
                };
                let noun = if *max_words == 1 { "value" } else { "values" };
                format!("{count} {noun}")
            }
        }
    }
}

impl Value {
    /// The value as `CONFIG GET` shows it.
    pub(crate) fn print(&self) -> Vec<u8> {
        match self {
            Value::Text(text) => text.clone(),
            Value::Words(words) => words.join(&b' '),
            Value::Bytes(bytes) => bytes.to_string().into_bytes(),
            Value::Save(rules) => {
                let pairs: Vec<String> = rules.iter().map(SaveRule::to_string).collect();
                pairs.join(" ").into_bytes()
            }
            Value::BufferLimits(limits) => {
                let classes = CLASSES.iter().zip(limits).map(|(class, limit)| {
                    let BufferLimit {
                        hard_bytes,
                        soft_bytes,
                        soft_seconds,
                    } = limit;
                    format!("{class} {hard_bytes} {soft_bytes} {soft_seconds}")
                });
                classes.collect::<Vec<String>>().join(" ").into_bytes()
            }
            Value::Lines(_) => Vec::new(),
            plain => plain.plain_text().into_bytes(),
        }
    }

    /// The lines of a configuration file that give this value, without the directive's name.
    /// Empty where only the absence of a line does.
    pub(crate) fn file_lines(&self) -> Vec<Vec<u8>> {
        match self {
            Value::Text(text) => vec![quote(text)],
            Value::Words(words) if words.is_empty() => vec![quote(b"")],
            Value::Words(words) => {
                let words: Vec<Vec<u8>> = words.iter().map(|word| quote_if_needed(word)).collect();
                vec![words.join(&b' ')]
            }
            Value::Bytes(bytes) => vec![format_memory(*bytes).into_bytes()],
            Value::Save(rules) if rules.is_empty() => vec![quote(b"")],
            Value::Save(rules) => rules
                .iter()
                .map(|rule| rule.to_string().into_bytes())
                .collect(),
            Value::BufferLimits(limits) => {
                let classes = ["normal", "replica", "pubsub"].iter().zip(limits);
                let line = |(class, limit): (&&str, &BufferLimit)| {
                    let hard = format_memory(limit.hard_bytes);
                    let soft = format_memory(limit.soft_bytes);
                    format!("{class} {hard} {soft} {}", limit.soft_seconds).into_bytes()
                };
                classes.map(line).collect()
            }
            Value::Percentiles(numbers) if numbers.is_empty() => vec![quote(b"")],
            Value::Lines(_) => Vec::new(),
            plain => vec![plain.plain_text().into_bytes()],
        }
    }

    /// The spelling of a value that looks the same everywhere.
    fn plain_text(&self) -> String {
        match self {
            Value::YesNo(true) => "yes".to_owned(),
            Value::YesNo(false) => "no".to_owned(),
            Value::Integer(number) => number.to_string(),
            Value::Octal(mode) => format!("{mode:o}"),
            Value::Percent(percent) => format!("{percent}%"),
            Value::Choice(name) => (*name).to_owned(),
            Value::Choices(names) => names.join(" "),
            Value::Percentiles(numbers) => numbers
                .iter()
                .map(|number| trimmed(*number))
                .collect::<Vec<String>>()
                .join(" "),
            Value::OomScores(scores) => scores.map(|score| score.to_string()).join(" "),
            other => unreachable!("{other:?} has spellings of its own"),
        }
    }
}

impl std::fmt::Display for SaveRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.seconds, self.changes)
    }
}

/// A number with at most six decimals and no trailing zeros.
fn trimmed(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn quote_if_needed(word: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\#".contains(byte);
    if !word.is_empty() && word.iter().all(plain) {
        word.to_vec()
    } else {
        quote(word)
    }
}
