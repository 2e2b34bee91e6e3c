//! Reading values of all types but streams. What is read is complete and unique: it can be stored as it is.

use std::borrow::Cow;

use super::envelope::is_of_valkey;
use super::listpack::Listpack;
use super::packed::{Entries, Ziplist, read_intset, read_zipmap};
use super::read::{Reader, parse_double};
use super::stream::StreamValue;
use super::{Ask, Error, Strings, kind, push_within};

/// The greatest time that a field can expire at in Redis, Unix milliseconds.
const EXPIRY_MAX_MS: u64 = (1 << 48) - 1;

/// A value.
pub(crate) enum Value<'p> {
    String(Cow<'p, [u8]>),
    List(ListValue),
    Set(SetValue),
    Zset(ZsetValue),
    Hash(HashValue),
    Stream(StreamValue),
}

/// How elements lay in the payload, by which Redis decides how it holds them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packing {
    /// Each for itself.
    Loose,
    /// In one piece; of a list, in one that may be so again.
    Whole,
    /// Of a list: in several pieces. Of a set: in one of integers.
    Other,
}

pub(crate) struct ListValue {
    pub(crate) elements: Strings,
    pub(crate) packing: Packing,
}

pub(crate) struct SetValue {
    pub(crate) members: Strings,
    pub(crate) packing: Packing,
}

/// None of its scores is NaN.
pub(crate) struct ZsetValue {
    pub(crate) members: Strings,
    pub(crate) scores: Vec<f64>,
    pub(crate) packing: Packing,
}

pub(crate) struct HashValue {
    /// Each field followed by its value.
    pub(crate) pairs: Strings,
    /// When each field expires, Unix milliseconds; 0 if never. Empty for a hash without fields that expire.
    pub(crate) expiries_ms: Vec<u64>,
    pub(crate) packing: Packing,
}

impl<'p> Value<'p> {
    /// Reads a value behind the number of its type, of a payload of this version.
    pub(crate) fn read(
        bytes: &'p [u8],
        version: u16,
        ask: &mut Ask<'_>,
    ) -> Result<Value<'p>, Error> {
        let mut reader = Reader::new(bytes);
        let from = &mut reader;
        let value = match from.byte()? {
            kind::STRING => Value::String(from.string(ask)?),
            kind @ (kind::LIST
            | kind::LIST_ZIPLIST
            | kind::LIST_QUICKLIST
            | kind::LIST_QUICKLIST_2) => Value::List(ListValue::read(kind, from, ask)?),
            kind @ (kind::SET | kind::SET_INTSET | kind::SET_LISTPACK) => {
                Value::Set(SetValue::read(kind, from, ask)?)
            }
            kind @ (kind::ZSET | kind::ZSET_2 | kind::ZSET_ZIPLIST | kind::ZSET_LISTPACK) => {
                Value::Zset(ZsetValue::read(kind, from, ask)?)
            }
            kind @ (kind::HASH
            | kind::HASH_ZIPMAP
            | kind::HASH_ZIPLIST
            | kind::HASH_LISTPACK
            | kind::HASH_METADATA_OLD..=kind::HASH_LISTPACK_EX) => {
                Value::Hash(HashValue::read(kind, version, from, ask)?)
            }
            kind @ (kind::STREAM_LISTPACKS
            | kind::STREAM_LISTPACKS_2
            | kind::STREAM_LISTPACKS_3) => Value::Stream(StreamValue::read(kind, from, ask)?),
            _ => return Err(Error::Malformed),
        };
        match reader.is_at_end() {
            true => Ok(value),
            false => Err(Error::Malformed),
        }
    }
}

/// The elements of a listpack or ziplist, by the type that they are of.
fn entries<'a>(kind: u8, bytes: &'a [u8]) -> Result<Entries<'a>, Error> {
    match kind {
        kind::LIST_ZIPLIST | kind::LIST_QUICKLIST | kind::ZSET_ZIPLIST | kind::HASH_ZIPLIST => {
            Ziplist::open(bytes).map(Entries::Ziplist)
        }
        _ => Listpack::open(bytes).map(Entries::Listpack),
    }
}

impl ListValue {
    fn read(kind: u8, from: &mut Reader<'_>, ask: &mut Ask<'_>) -> Result<ListValue, Error> {
        let count = match kind {
            kind::LIST => from.elements()?,
            _ => 0,
        };
        let mut elements = Strings::with_room(count, from.left(), ask)?;
        let packing = match kind {
            kind::LIST => {
                for _ in 0..count {
                    elements.push(&from.string(ask)?, ask)?;
                }
                Packing::Loose
            }
            kind::LIST_ZIPLIST => {
                entries(kind, &from.string(ask)?)?.append_to(&mut elements, ask)?;
                Packing::Other
            }
            _ => read_nodes(kind, from, &mut elements, ask)?,
        };
        if elements.len() == 0 {
            return Err(Error::Malformed);
        }
        Ok(ListValue { elements, packing })
    }
}

/// Reads the nodes of a quicklist.
fn read_nodes(
    kind: u8,
    from: &mut Reader<'_>,
    elements: &mut Strings,
    ask: &mut Ask<'_>,
) -> Result<Packing, Error> {
    const SINGLE: u64 = 1;
    const LISTPACK: u64 = 2;
    let (mut packed, mut single) = (0, 0);
    for _ in 0..from.elements()? {
        let container = match kind {
            kind::LIST_QUICKLIST_2 => from.length()?,
            _ => LISTPACK,
        };
        let node = from.string(ask)?;
        match container {
            SINGLE if !node.is_empty() => {
                elements.push(&node, ask)?;
                single += 1;
            }
            LISTPACK => {
                let count = entries(kind, &node)?.append_to(elements, ask)?;
                packed += usize::from(count > 0);
            }
            _ => return Err(Error::Malformed),
        }
    }
    Ok(match (packed, single) {
        (1, 0) => Packing::Whole,
        _ => Packing::Other,
    })
}

impl SetValue {
    fn read(kind: u8, from: &mut Reader<'_>, ask: &mut Ask<'_>) -> Result<SetValue, Error> {
        let count = match kind {
            kind::SET => from.elements()?,
            _ => 0,
        };
        let mut members = Strings::with_room(count, from.left(), ask)?;
        let packing = match kind {
            kind::SET => {
                for _ in 0..count {
                    members.push(&from.string(ask)?, ask)?;
                }
                Packing::Loose
            }
            kind::SET_INTSET => {
                read_intset(&from.string(ask)?, &mut members, ask)?;
                Packing::Other
            }
            _ => {
                entries(kind, &from.string(ask)?)?.append_to(&mut members, ask)?;
                Packing::Whole
            }
        };
        if members.len() == 0 || members.repeat(1, ask)? {
            return Err(Error::Malformed);
        }
        Ok(SetValue { members, packing })
    }
}

impl ZsetValue {
    fn read(kind: u8, from: &mut Reader<'_>, ask: &mut Ask<'_>) -> Result<ZsetValue, Error> {
        let is_loose = matches!(kind, kind::ZSET | kind::ZSET_2);
        let count = if is_loose { from.elements()? } else { 0 };
        let mut zset = ZsetValue {
            members: Strings::with_room(count, from.left(), ask)?,
            scores: Vec::new(),
            packing: Packing::Whole,
        };
        if is_loose {
            zset.packing = Packing::Loose;
            for _ in 0..count {
                zset.members.push(&from.string(ask)?, ask)?;
                let score = match kind {
                    kind::ZSET => from.text_double()?,
                    _ => from.double()?,
                };
                push_within(&mut zset.scores, score, ask)?;
            }
        } else {
            let bytes = from.string(ask)?;
            let mut entries = entries(kind, &bytes)?;
            while let Some(member) = entries.next()? {
                zset.members.push(&member.text(), ask)?;
                let score = parse_double(&entries.required()?.text())?;
                push_within(&mut zset.scores, score, ask)?;
            }
        }
        let is_wrong = zset.scores.is_empty() || zset.scores.iter().any(|score| score.is_nan());
        if is_wrong || zset.members.repeat(1, ask)? {
            return Err(Error::Malformed);
        }
        Ok(zset)
    }
}

impl HashValue {
    fn read(
        kind: u8,
        version: u16,
        from: &mut Reader<'_>,
        ask: &mut Ask<'_>,
    ) -> Result<HashValue, Error> {
        let mut hash = HashValue {
            pairs: Strings::with_room(0, from.left(), ask)?,
            expiries_ms: Vec::new(),
            packing: Packing::Loose,
        };
        match kind {
            kind::HASH => {
                for _ in 0..from.elements()? {
                    hash.pairs.push(&from.string(ask)?, ask)?;
                    hash.pairs.push(&from.string(ask)?, ask)?;
                }
            }
            kind::HASH_ZIPMAP => read_zipmap(&from.string(ask)?, &mut hash.pairs, ask)?,
            kind::HASH_METADATA_OLD if is_of_valkey(version) => {
                hash.read_with_times(from, ask)?;
            }
            kind::HASH_METADATA_OLD => hash.read_with_expiries(from, None, ask)?,
            kind::HASH_METADATA => {
                let least_ms = from.milliseconds()?;
                hash.read_with_expiries(from, Some(least_ms as u64), ask)?;
            }
            kind::HASH_LISTPACK_EX => {
                from.milliseconds()?;
                hash.read_triples(&from.string(ask)?, ask)?;
            }
            kind::HASH_LISTPACK_EX_OLD => hash.read_triples(&from.string(ask)?, ask)?,
            _ => {
                hash.packing = Packing::Whole;
                entries(kind, &from.string(ask)?)?.append_to(&mut hash.pairs, ask)?;
            }
        }
        let len = hash.pairs.len();
        if len == 0 || !len.is_multiple_of(2) || hash.pairs.repeat(2, ask)? {
            return Err(Error::Malformed);
        }
        Ok(hash)
    }

    /// Reads fields and values behind the times at which they expire, which count from `least_ms` on, but for 0: never.
    fn read_with_expiries(
        &mut self,
        from: &mut Reader<'_>,
        least_ms: Option<u64>,
        ask: &mut Ask<'_>,
    ) -> Result<(), Error> {
        for _ in 0..from.elements()? {
            let expires = match (from.length()?, least_ms) {
                (0, _) => Some(0),
                (at_ms, None) => Some(at_ms),
                (after, Some(least_ms)) => least_ms.checked_add(after - 1),
            };
            self.push_expiry(expires, ask)?;
            self.pairs.push(&from.string(ask)?, ask)?;
            self.pairs.push(&from.string(ask)?, ask)?;
        }
        Ok(())
    }

    /// Reads fields and values with the times behind them, as Valkey writes them: -1 for never.
    fn read_with_times(&mut self, from: &mut Reader<'_>, ask: &mut Ask<'_>) -> Result<(), Error> {
        for _ in 0..from.elements()? {
            self.pairs.push(&from.string(ask)?, ask)?;
            self.pairs.push(&from.string(ask)?, ask)?;
            let expires = match from.milliseconds()? {
                -1 => Some(0),
                at_ms => u64::try_from(at_ms).ok().filter(|at_ms| *at_ms > 0),
            };
            self.push_expiry(expires, ask)?;
        }
        Ok(())
    }

    /// Reads a listpack of fields, values and times.
    fn read_triples(&mut self, bytes: &[u8], ask: &mut Ask<'_>) -> Result<(), Error> {
        self.packing = Packing::Whole;
        let mut listpack = Listpack::open(bytes)?;
        while let Some(field) = listpack.next()? {
            self.pairs.push(&field.text(), ask)?;
            self.pairs.push(&listpack.required()?.text(), ask)?;
            let expires = u64::try_from(listpack.integer()?).ok();
            self.push_expiry(expires, ask)?;
        }
        Ok(())
    }

    fn push_expiry(&mut self, at_ms: Option<u64>, ask: &mut Ask<'_>) -> Result<(), Error> {
        let at_ms = at_ms.filter(|at_ms| *at_ms <= EXPIRY_MAX_MS);
        let at_ms = at_ms.ok_or(Error::Malformed)?;
        Ok(push_within(&mut self.expiries_ms, at_ms, ask)?)
    }
}
