//! RESTORE: storing a value from a payload, as DUMP makes them here and in other servers.
//!
//! A payload is read and checked whole before anything changes, whatever `sanitize-dump-payload` says. Then the value is
//! stored at once, with the encoding that Redis would give it: by the number of its elements and, where they did not lie in
//! one piece, by their lengths.

use std::borrow::Cow;

use hybridlog::{Element, Meta, NewCollection};

use super::KIND_STRING;
use super::collection::{ELEMENTS, Encoding, PackedLimits, check_room};
use super::hash::HASH;
use super::list::LIST;
use super::list_encoding::encoding_of_value;
use super::parse::{SYNTAX_ERROR, integer, strict_integer};
use super::restore_stream::store_stream;
use super::set::SET;
use super::string::{GROW, STRING_ROW};
use super::zset_result::{ScoredMembers, build};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, Stop};
use crate::ctx::Ctx;
use crate::rdb::envelope::Payload;
use crate::rdb::{Error, HashValue, ListValue, Packing, SetValue, Value, ZsetValue};

const BUSY_KEY: &str = "BUSYKEY Target key name already exists.";
const INVALID_TTL: &str = "ERR Invalid TTL value, must be >= 0";
const WRONG_PAYLOAD: &str = "ERR DUMP payload version or checksum are wrong";
const MALFORMED: &str = "ERR Bad data format";

/// What a collection takes while it is planned: for each element, and so many times its bytes.
const PLANNED_ELEMENT_BYTES: u64 = 140;
const PLANNED_FACTOR: u64 = 3;

const RESTORE_ROW: Row = Row {
    arity: -4,
    flags: GROW,
    categories: &["keyspace", "dangerous"],
    group: "generic",
    complexity: "O(N*log(N)), N being the number of elements, or O(N) for N bytes",
    handler: Handler::Worker(restore),
    ..STRING_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "restore",
        since: "2.6.0",
        summary: "Stores a value that DUMP has returned.",
        ..RESTORE_ROW
    },
    Row {
        name: "restore-asking",
        flags: GROW.and(Flags::ASKING),
        group: "server",
        since: "3.0.0",
        summary: "Does what RESTORE does, for servers of a cluster.",
        ..RESTORE_ROW
    },
];

/// What RESTORE is told besides the payload. How much a value has been used is not kept.
#[derive(Default)]
struct Options {
    replaces: bool,
    ttl_is_time: bool,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Options, Stop> {
        let mut options = Options::default();
        let (mut has_idle_time, mut has_frequency) = (false, false);
        let mut words = args.from(4);
        while let Some(word) = words.next() {
            let is = |option: &[u8]| word.eq_ignore_ascii_case(option);
            if is(b"replace") {
                options.replaces = true;
            } else if is(b"absttl") {
                options.ttl_is_time = true;
            } else if is(b"idletime") && words.len() > 0 && !has_frequency {
                let seconds = integer(words.next().unwrap_or_default())?;
                if seconds < 0 {
                    return Err("ERR Invalid IDLETIME value, must be >= 0".into());
                }
                has_idle_time = true;
            } else if is(b"freq") && words.len() > 0 && !has_idle_time {
                let frequency = integer(words.next().unwrap_or_default())?;
                if !(0..=255).contains(&frequency) {
                    return Err("ERR Invalid FREQ value, must be >= 0 and <= 255".into());
                }
                has_frequency = true;
            } else {
                return Err(SYNTAX_ERROR.into());
            }
        }
        Ok(options)
    }

    /// When the value expires, Unix milliseconds.
    fn expiry(&self, ttl: &[u8], now_ms: u64) -> Result<Option<u64>, Stop> {
        let ttl_ms = u64::try_from(integer(ttl)?).map_err(|_| INVALID_TTL)?;
        match (ttl_ms, self.ttl_is_time) {
            (0, _) => Ok(None),
            (at_ms, true) => Ok(Some(at_ms)),
            (after_ms, false) => now_ms
                .checked_add(after_ms)
                .filter(|at_ms| i64::try_from(*at_ms).is_ok())
                .map(Some)
                .ok_or(INVALID_TTL.into()),
        }
    }
}

fn restore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let options = Options::parse(args)?;
    if !options.replaces && cx.op.read(cx.namespace, key)?.is_some() {
        return Err(BUSY_KEY.into());
    }
    let now_ms = cx.now_ms();
    let expires_at_ms = options.expiry(&args[2], now_ms)?;
    let payload = Payload::open(&args[3]).ok_or(WRONG_PAYLOAD)?;
    let memory = &mut cx.client.allowance;
    let value = Value::read(payload.value, payload.version, &mut |bytes| {
        memory.ask(bytes)
    });
    let value = value.map_err(|error| match error {
        Error::Malformed => MALFORMED.into(),
        Error::Stop(stop) => stop,
    })?;
    let is_past = expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
    if is_past || has_expired(&value, now_ms) {
        if options.replaces {
            cx.op.remove(cx.namespace, key)?;
        }
        cx.reply.ok();
        return Ok(());
    }
    store(cx, key, value, expires_at_ms)?;
    cx.reply.ok();
    Ok(())
}

/// Whether it is a hash whose fields have all expired.
fn has_expired(value: &Value<'_>, now_ms: u64) -> bool {
    match value {
        Value::Hash(hash) => hash.live_fields(now_ms).next().is_none(),
        _ => false,
    }
}

/// Stores a value with its expiry in one change, whatever the key holds.
fn store(
    cx: &mut Ctx<'_>,
    key: &[u8],
    value: Value<'_>,
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    match value {
        Value::String(value) => {
            let meta = Meta {
                kind: KIND_STRING,
                expires_at_ms,
            };
            Ok(cx.op.set(cx.namespace, key, &value, meta)?)
        }
        Value::List(list) => store_list(cx, key, &list, expires_at_ms),
        Value::Set(set) => store_set(cx, key, &set, expires_at_ms),
        Value::Zset(zset) => store_zset(cx, key, zset, expires_at_ms),
        Value::Hash(hash) => store_hash(cx, key, &hash, expires_at_ms),
        Value::Stream(stream) => store_stream(cx, key, stream, expires_at_ms),
    }
}

/// Makes sure that there is the memory and the room for a collection of so many elements with so many bytes together.
pub(super) fn prepare(cx: &mut Ctx<'_>, count: usize, bytes: usize) -> Result<(), Stop> {
    let planned = count as u64 * PLANNED_ELEMENT_BYTES + bytes as u64 * PLANNED_FACTOR;
    cx.client.allowance.ask(planned)?;
    check_room(cx, count, bytes + 16 * count)
}

/// Stores a collection of one tree.
fn store_elements<'e>(
    cx: &mut Ctx<'_>,
    key: &[u8],
    new: NewCollection<'_>,
    elements: impl Iterator<Item = Element<'e>>,
) -> Result<(), Stop> {
    let elements = &mut elements.map(|element| (ELEMENTS, element));
    Ok(cx.op.build_collection(cx.namespace, key, new, elements)?)
}

pub(super) fn element<'e>(
    key: &'e [u8],
    value: &'e [u8],
    expires_at_ms: Option<u64>,
) -> Element<'e> {
    Element {
        key: Cow::Borrowed(key),
        value: Cow::Borrowed(value),
        expires_at_ms,
    }
}

fn store_list(
    cx: &mut Ctx<'_>,
    key: &[u8],
    list: &ListValue,
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    prepare(cx, list.elements.len(), list.elements.total_bytes())?;
    let encoding = encoding_of_value(cx, list);
    let elements = list.elements.iter().map(|value| element(b"", value, None));
    let new = NewCollection {
        layout: &LIST,
        header: &encoding.header(),
        due_at_ms: None,
        expires_at_ms,
    };
    store_elements(cx, key, new, elements)
}

fn store_set(
    cx: &mut Ctx<'_>,
    key: &[u8],
    set: &SetValue,
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    prepare(cx, set.members.len(), set.members.total_bytes())?;
    let encoding = set_encoding(&PackedLimits::now(cx), set);
    let members = set.members.iter().map(|member| element(member, b"", None));
    let new = NewCollection {
        layout: &SET,
        header: &encoding.header(),
        due_at_ms: None,
        expires_at_ms,
    };
    store_elements(cx, key, new, members)
}

fn set_encoding(limits: &PackedLimits, set: &SetValue) -> Encoding {
    let len = set.members.len() as u64;
    let longest_bytes = set.members.longest_bytes() as u64;
    let are_integers = || {
        set.members
            .iter()
            .all(|member| strict_integer(member).is_some())
    };
    let (is_few, are_short) = (
        len <= limits.set.entries,
        longest_bytes <= limits.set.element_bytes,
    );
    match set.packing {
        Packing::Whole if is_few => Encoding::Listpack,
        Packing::Other if len <= limits.intset_entries => Encoding::Intset,
        Packing::Loose if len > limits.intset_entries => Encoding::Hashtable,
        Packing::Loose if are_integers() => Encoding::Intset,
        Packing::Loose if is_few && are_short => Encoding::Listpack,
        _ => Encoding::Hashtable,
    }
}

fn store_zset(
    cx: &mut Ctx<'_>,
    key: &[u8],
    zset: ZsetValue,
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    let (count, bytes) = (zset.members.len(), zset.members.total_bytes());
    check_room(cx, 2 * count, 2 * (bytes + 16 * count))?;
    let limit = PackedLimits::now(cx).zset;
    let is_few = zset.members.len() as u64 <= limit.entries;
    let are_short = || zset.members.longest_bytes() as u64 <= limit.element_bytes;
    let encoding = match is_few && (zset.packing == Packing::Whole || are_short()) {
        true => Encoding::Listpack,
        false => Encoding::Skiplist,
    };
    let mut scored = ScoredMembers::with_room(count, bytes, &mut cx.client.allowance)?;
    for (member, score) in zset.members.iter().zip(&zset.scores) {
        scored.push(member, *score, &mut cx.client.allowance)?;
    }
    drop(zset);
    scored.sort();
    build(cx, key, (&scored, scored.len()), encoding, expires_at_ms)
}

fn store_hash(
    cx: &mut Ctx<'_>,
    key: &[u8],
    hash: &HashValue,
    expires_at_ms: Option<u64>,
) -> Result<(), Stop> {
    prepare(cx, hash.len(), hash.pairs.total_bytes())?;
    let limit = PackedLimits::now(cx).hash;
    let is_few = hash.len() as u64 <= limit.entries;
    let are_short = || hash.pairs.longest_bytes() as u64 <= limit.element_bytes;
    let live = || hash.live_fields(cx.now_ms());
    let earliest_ms = live().filter_map(|field| field.expires_at_ms).min();
    let encoding = match is_few && (hash.packing == Packing::Whole || are_short()) {
        true if earliest_ms.is_some() => Encoding::ListpackEx,
        true => Encoding::Listpack,
        false => Encoding::Hashtable,
    };
    if let Some(at_ms) = earliest_ms {
        cx.server.field_expiry.note(cx.namespace, key, at_ms);
    }
    let new = NewCollection {
        layout: &HASH,
        header: &encoding.header(),
        due_at_ms: earliest_ms,
        expires_at_ms,
    };
    let fields = hash.live_fields(cx.now_ms());
    store_elements(cx, key, new, fields)
}

impl HashValue {
    /// How many fields it has.
    fn len(&self) -> usize {
        self.pairs.len() / 2
    }

    /// The fields that have not expired, as elements.
    fn live_fields(&self, now_ms: u64) -> impl Iterator<Item = Element<'_>> {
        (0..self.len()).filter_map(move |at| {
            let expires_at_ms = self.expiries_ms.get(at).copied().filter(|at_ms| *at_ms > 0);
            let is_live = expires_at_ms.is_none_or(|at_ms| at_ms > now_ms);
            let (field, value) = (self.pairs.get(2 * at), self.pairs.get(2 * at + 1));
            is_live.then(|| element(field, value, expires_at_ms))
        })
    }
}
