//! From words to values: what each kind of directive accepts, and the words in which it refuses,
//! which are Redis's own where Redis has some.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::syntax::{parse_integer, parse_memory};
use super::value::{
    BufferLimit, INT_MAX, Kind, MAX_BIND_ADDRESSES, SEGMENT_BYTES, SIGNED_MAX, SaveRule,
    TITLE_VARIABLES, Value,
};

const MAX_HOSTNAME_BYTES: usize = 255;
/// Every class of keyspace notification, in the order in which they are printed.
const KEYSPACE_CLASSES: &[u8] = b"g$lshzxetd";

impl Kind {
    /// Reads a value from `words`. `previous` is what a value of which only a part is named, or to
    /// which lines add up, starts from. The error is Redis's own text where Redis has one.
    pub(crate) fn parse(&self, words: &[Vec<u8>], previous: &Value) -> Result<Value, String> {
        if self.takes_many_words() {
            return self.parse_many(words, previous);
        }
        match words {
            [word] => self.parse_one(word),
            _ => Err("wrong number of arguments".to_owned()),
        }
    }

    fn parse_one(&self, word: &[u8]) -> Result<Value, String> {
        match *self {
            Kind::YesNo => match word.to_ascii_lowercase().as_slice() {
                b"yes" => Ok(Value::YesNo(true)),
                b"no" => Ok(Value::YesNo(false)),
                _ => Err("argument must be 'yes' or 'no'".to_owned()),
            },
            Kind::Integer { min, max } => integer_between(word, min, max).map(Value::Integer),
            Kind::Clamped { lowest, highest } => {
                let number = integer_between(word, 0, INT_MAX)?;
                Ok(Value::Integer(number.clamp(lowest, highest)))
            }
            Kind::Octal { max } => octal_up_to(word, max).map(Value::Octal),
            Kind::Memory { min, max } => match parse_memory(word) {
                None => Err("argument must be a memory value".to_owned()),
                Some(bytes) if (min..=max).contains(&bytes) => Ok(Value::Bytes(bytes)),
                Some(_) => Err(format!(
                    "argument must be between {min} and {max} inclusive"
                )),
            },
            Kind::MemoryOrPercent => memory_or_percent(word),
            Kind::SegmentSize => match parse_memory(word) {
                Some(bytes)
                    if bytes == 0 || bytes.is_power_of_two() && SEGMENT_BYTES.contains(&bytes) =>
                {
                    Ok(Value::Bytes(bytes))
                }
                _ => Err(format!("argument must be {}", self.allowed())),
            },
            Kind::Choice(names) => choice(word, names).map(Value::Choice),
            Kind::FileName if word.is_empty() || word.contains(&b'/') => {
                Err("argument can't be a path, just a file name".to_owned())
            }
            Kind::Hostname => hostname(word),
            Kind::TitleTemplate if !is_title_template(word) => {
                Err("template format is invalid or contains unknown variables".to_owned())
            }
            Kind::Directory => absolute_path(word),
            Kind::KeyspaceEvents => keyspace_events(word),
            _ => Ok(Value::Text(word.to_vec())),
        }
    }

    fn parse_many(&self, words: &[Vec<u8>], previous: &Value) -> Result<Value, String> {
        if let Kind::Choices(names) = self {
            return choices(words, names);
        }
        // `directive ""` is how an empty list is written.
        let words = if matches!(words, [word] if word.is_empty()) {
            &[]
        } else {
            words
        };
        match self {
            Kind::Bind if words.len() > MAX_BIND_ADDRESSES => {
                Err("Too many bind addresses specified.".to_owned())
            }
            Kind::ReplicaOf => replica_of(words),
            Kind::Save => save_rules(words, previous),
            Kind::BufferLimits => buffer_limits(words, previous),
            Kind::Percentiles => percentiles(words),
            Kind::OomScores => oom_scores(words),
            _ => Ok(Value::Words(words.to_vec())),
        }
    }
}

fn integer_between(word: &[u8], min: i64, max: i64) -> Result<i64, String> {
    match parse_integer(word) {
        None => Err("argument couldn't be parsed into an integer".to_owned()),
        Some(number) if (min..=max).contains(&number) => Ok(number),
        Some(_) => Err(format!(
            "argument must be between {min} and {max} inclusive"
        )),
    }
}

fn octal_up_to(word: &[u8], max: u32) -> Result<u32, String> {
    let digits = str::from_utf8(word)
        .ok()
        .filter(|text| !text.starts_with('+'));
    match digits.and_then(|text| u32::from_str_radix(text, 8).ok()) {
        None => Err("argument couldn't be parsed as an octal number".to_owned()),
        Some(mode) if mode <= max => Ok(mode),
        Some(_) => Err(format!("argument must be between 0 and {max:o} inclusive")),
    }
}

fn memory_or_percent(word: &[u8]) -> Result<Value, String> {
    if let Some(bytes) = parse_memory(word).filter(|bytes| *bytes <= SIGNED_MAX) {
        return Ok(Value::Bytes(bytes));
    }
    match word.strip_suffix(b"%").and_then(parse_integer) {
        Some(percent @ 0..=100) => Ok(Value::Percent(percent as u8)),
        Some(101..) => Err("percentage argument must be less or equal to 100".to_owned()),
        _ => Err("argument must be a memory or percent value".to_owned()),
    }
}

fn choice(word: &[u8], names: &[&'static str]) -> Result<&'static str, String> {
    let found = names
        .iter()
        .find(|name| name.as_bytes().eq_ignore_ascii_case(word));
    found.copied().ok_or_else(|| {
        format!(
            "argument(s) must be one of the following: {}",
            names.join(", ")
        )
    })
}

fn choices(words: &[Vec<u8>], names: &[&'static str]) -> Result<Value, String> {
    let given: Vec<&str> = words
        .iter()
        .map(|word| choice(word, names))
        .collect::<Result<_, String>>()?;
    if given.contains(&"save") && given.contains(&"nosave") {
        return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".to_owned());
    }
    if given.is_empty() {
        return Err("wrong number of arguments".to_owned());
    }
    // `default` is the absence of the others, in whatever company it is named.
    let chosen: Vec<&str> = names
        .iter()
        .filter(|n| **n != "default" && given.contains(n))
        .copied()
        .collect();
    Ok(Value::Choices(if chosen.is_empty() {
        vec!["default"]
    } else {
        chosen
    }))
}

fn hostname(word: &[u8]) -> Result<Value, String> {
    if word.len() > MAX_HOSTNAME_BYTES {
        return Err("Hostnames must be less than 256 characters".to_owned());
    }
    if !word
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte))
    {
        return Err(
            "Hostnames may only contain alphanumeric characters, hyphens or dots".to_owned(),
        );
    }
    Ok(Value::Text(word.to_vec()))
}

/// Whether every `{name}` is a variable and every brace belongs to one.
fn is_title_template(word: &[u8]) -> bool {
    let Ok(mut rest) = str::from_utf8(word) else {
        return false;
    };
    while let Some((_, after)) = rest.split_once('{') {
        let Some((name, tail)) = after.split_once('}') else {
            return false;
        };
        if !TITLE_VARIABLES.contains(&name) {
            return false;
        }
        rest = tail;
    }
    true
}

fn absolute_path(word: &[u8]) -> Result<Value, String> {
    if word.is_empty() {
        return Err("argument must name a directory".to_owned());
    }
    let path = Path::new(OsStr::from_bytes(word));
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    // `components` drops the `.` of `./data` that `absolute` keeps at the end.
    let clean: PathBuf = absolute.components().collect();
    Ok(Value::Text(clean.into_os_string().into_vec()))
}

/// The canonical spelling of a set of notification classes: all of them are `A`.
fn keyspace_events(word: &[u8]) -> Result<Value, String> {
    let known = |byte: &u8| KEYSPACE_CLASSES.contains(byte) || b"AKEmn".contains(byte);
    if !word.iter().all(known) {
        return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned());
    }
    let all = word.contains(&b'A') || KEYSPACE_CLASSES.iter().all(|class| word.contains(class));
    let classes = if all { b"A" } else { KEYSPACE_CLASSES };
    let printed = classes.iter().chain(b"nKEm");
    let present = |class: &&u8| all && **class == b'A' || word.contains(class);
    Ok(Value::Text(printed.filter(present).copied().collect()))
}

fn replica_of(words: &[Vec<u8>]) -> Result<Value, String> {
    match words {
        [] => Ok(Value::Words(Vec::new())),
        [no, one] if no.eq_ignore_ascii_case(b"no") && one.eq_ignore_ascii_case(b"one") => {
            Ok(Value::Words(Vec::new()))
        }
        [_, port] => match parse_integer(port) {
            Some(0..=65535) => Ok(Value::Words(words.to_vec())),
            _ => Err("Invalid master port".to_owned()),
        },
        _ => Err("wrong number of arguments".to_owned()),
    }
}

fn save_rules(words: &[Vec<u8>], previous: &Value) -> Result<Value, String> {
    let invalid = || "Invalid save parameters".to_owned();
    let (pairs, []) = words.as_chunks::<2>() else {
        return Err(invalid());
    };
    if pairs.is_empty() {
        return Ok(Value::Save(Vec::new()));
    }
    let mut rules = match previous {
        Value::Save(rules) => rules.clone(),
        _ => Vec::new(),
    };
    for [seconds, changes] in pairs {
        let seconds = integer_between(seconds, 1, i64::MAX).map_err(|_| invalid())?;
        let changes = integer_between(changes, 0, INT_MAX).map_err(|_| invalid())?;
        rules.push(SaveRule {
            seconds: seconds.unsigned_abs(),
            changes: changes.unsigned_abs(),
        });
    }
    Ok(Value::Save(rules))
}

fn buffer_limits(words: &[Vec<u8>], previous: &Value) -> Result<Value, String> {
    let (groups, []) = words.as_chunks::<4>() else {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    };
    let mut limits = match previous {
        Value::BufferLimits(limits) => *limits,
        _ => {
            [BufferLimit {
                hard_bytes: 0,
                soft_bytes: 0,
                soft_seconds: 0,
            }; 3]
        }
    };
    for [class, hard, soft, seconds] in groups {
        let class = match class.to_ascii_lowercase().as_slice() {
            b"normal" => 0,
            b"slave" | b"replica" => 1,
            b"pubsub" => 2,
            _ => {
                return Err(
                    "Invalid client class specified in buffer limit configuration.".to_owned(),
                );
            }
        };
        let limit = || {
            Some(BufferLimit {
                hard_bytes: parse_memory(hard)?,
                soft_bytes: parse_memory(soft)?,
                soft_seconds: u32::try_from(parse_integer(seconds)?).ok()?,
            })
        };
        limits[class] = limit().ok_or_else(|| {
            "Error in hard, soft or soft_seconds setting in buffer limit configuration.".to_owned()
        })?;
    }
    Ok(Value::BufferLimits(limits))
}

fn percentiles(words: &[Vec<u8>]) -> Result<Value, String> {
    let number = |word: &Vec<u8>| str::from_utf8(word).ok()?.parse::<f64>().ok();
    let numbers: Option<Vec<f64>> = words.iter().map(number).collect();
    let numbers = numbers.ok_or("Invalid latency-tracking-info-percentiles parameters")?;
    if !numbers.iter().all(|number| (0.0..=100.0).contains(number)) {
        let range = "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]";
        return Err(range.to_owned());
    }
    Ok(Value::Percentiles(numbers))
}

fn oom_scores(words: &[Vec<u8>]) -> Result<Value, String> {
    let [a, b, c] = words else {
        return Err("wrong number of arguments".to_owned());
    };
    let mut scores = [0; 3];
    for (score, word) in scores.iter_mut().zip([a, b, c]) {
        *score = integer_between(word, -2000, 2000)
            .map_err(|_| "Invalid oom-score-adj-values, elements must be between -2000 and 2000.")?
            as i32;
    }
    Ok(Value::OomScores(scores))
}
