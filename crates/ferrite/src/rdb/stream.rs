//! Streams: reading them, and the listpacks that their entries lie in.
//!
//! A node is the ID of a first entry and a listpack. In that stand: how many entries there are, how many of those behind
//! them are marked as deleted, the number of fields of the first entry, its fields, and 0; then the entries. Each is flags,
//! the two numbers of its ID less those of the node's, the number of its fields unless they are the node's, fields and
//! values, or values alone, and how many elements that was.

use super::listpack::{Builder, Listpack};
use super::read::Reader;
use super::{Ask, Error, Strings, kind, push_within};

/// An ID: its first number in the upper half.
pub(crate) type RawId = u128;

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
/// How many entries a group has read, if that is not known.
const UNKNOWN: u64 = u64::MAX;
/// When a consumer last got something, if it never did.
const NEVER_MS: i64 = -1;
/// Greater numbers of entries or deliveries are not shown as what they are.
const NUMBER_MAX: u64 = i64::MAX as u64;

/// A stream.
#[derive(Default)]
pub(crate) struct StreamValue {
    /// In ascending order, each with the end of its fields and values among `strings`.
    pub(crate) entries: Vec<(RawId, usize)>,
    /// Fields, each followed by its value, of all entries.
    pub(crate) strings: Strings,
    /// Not less than the ID of any entry.
    pub(crate) last_id: RawId,
    pub(crate) max_deleted_id: RawId,
    /// Not less than the number of entries.
    pub(crate) entries_added: u64,
    pub(crate) groups: Vec<GroupValue>,
}

/// A consumer group. No two have the same name.
pub(crate) struct GroupValue {
    pub(crate) name: Vec<u8>,
    pub(crate) last_id: RawId,
    pub(crate) entries_read: Option<u64>,
    /// In ascending order.
    pub(crate) pending: Vec<PendingValue>,
    /// No two have the same name.
    pub(crate) consumers: Vec<ConsumerValue>,
}

/// An entry that has been delivered.
pub(crate) struct PendingValue {
    pub(crate) id: RawId,
    pub(crate) delivered_ms: i64,
    pub(crate) deliveries: u64,
    /// Which of the consumers has it.
    pub(crate) consumer: usize,
}

pub(crate) struct ConsumerValue {
    pub(crate) name: Vec<u8>,
    pub(crate) seen_ms: i64,
    pub(crate) active_ms: i64,
}

impl StreamValue {
    pub(super) fn read(
        kind: u8,
        from: &mut Reader<'_>,
        ask: &mut Ask<'_>,
    ) -> Result<StreamValue, Error> {
        let mut stream = StreamValue::default();
        for _ in 0..from.count()? {
            let id = from.string(ask)?;
            let id = id.as_ref().try_into().map_err(|_| Error::Malformed)?;
            let node = from.string(ask)?;
            stream.read_node(RawId::from_be_bytes(id), &node, ask)?;
        }
        let len = from.length()?;
        stream.last_id = read_id(from)?;
        stream.entries_added = len;
        if kind != kind::STREAM_LISTPACKS {
            // That of the first entry, which is known.
            read_id(from)?;
            stream.max_deleted_id = read_id(from)?;
            stream.entries_added = from.length()?;
        }
        let top_id = stream.entries.last().map_or(0, |(id, _)| *id);
        let counts = len == stream.entries.len() as u64
            && (len..=NUMBER_MAX).contains(&stream.entries_added);
        if !counts || stream.last_id < top_id {
            return Err(Error::Malformed);
        }
        let mut names = Strings::default();
        for _ in 0..from.count()? {
            let group = stream.read_group(kind, from, ask)?;
            names.push(&group.name, ask)?;
            push_within(&mut stream.groups, group, ask)?;
        }
        match names.repeat(1, ask)? {
            true => Err(Error::Malformed),
            false => Ok(stream),
        }
    }

    fn read_node(&mut self, first: RawId, node: &[u8], ask: &mut Ask<'_>) -> Result<(), Error> {
        let mut from = Listpack::open(node)?;
        let (mut live, mut deleted) = (from.integer()?, from.integer()?);
        let mut fields = Strings::default();
        for _ in 0..field_count(&mut from)? {
            fields.push(&from.required()?.text(), ask)?;
        }
        if from.integer()? != 0 || live < 0 || deleted < 0 || (live, deleted) == (0, 0) {
            return Err(Error::Malformed);
        }
        while let Some(flags) = from.next()? {
            let flags = flags.integer()?;
            let is_deleted = flags & DELETED != 0;
            match is_deleted {
                true => deleted -= 1,
                false => live -= 1,
            }
            let fields = (flags & SAME_FIELDS != 0).then_some(&fields);
            if is_deleted {
                skip_entry(fields, &mut from)?;
                continue;
            }
            let id = self.read_entry(first, fields, &mut from, ask)?;
            if self.entries.last().is_some_and(|(last, _)| *last >= id) || id == 0 {
                return Err(Error::Malformed);
            }
            push_within(&mut self.entries, (id, self.strings.len()), ask)?;
        }
        match (live, deleted) {
            (0, 0) => Ok(()),
            _ => Err(Error::Malformed),
        }
    }

    /// Reads an entry behind its flags, its fields and values to `strings`. `fields` are those that it shares, if it does.
    fn read_entry(
        &mut self,
        first: RawId,
        fields: Option<&Strings>,
        from: &mut Listpack<'_>,
        ask: &mut Ask<'_>,
    ) -> Result<RawId, Error> {
        let (ms, sequence) = (from.integer()?, from.integer()?);
        let ms = ((first >> 64) as u64).wrapping_add_signed(ms);
        let sequence = (first as u64).wrapping_add_signed(sequence);
        let elements = if let Some(fields) = fields {
            for field in fields.iter() {
                self.strings.push(field, ask)?;
                self.strings.push(&from.required()?.text(), ask)?;
            }
            fields.len() + 3
        } else {
            let count = field_count(from)?;
            for _ in 0..2 * count {
                self.strings.push(&from.required()?.text(), ask)?;
            }
            2 * count + 4
        };
        end_entry(from, elements)?;
        Ok(u128::from(ms) << 64 | u128::from(sequence))
    }

    fn read_group(
        &self,
        kind: u8,
        from: &mut Reader<'_>,
        ask: &mut Ask<'_>,
    ) -> Result<GroupValue, Error> {
        let name = read_name(from, ask)?;
        let last_id = read_id(from)?;
        let entries_read = match kind {
            kind::STREAM_LISTPACKS => self.entries_up_to(last_id),
            _ => Some(from.length()?).filter(|read| *read != UNKNOWN),
        };
        let mut group = GroupValue {
            name,
            last_id,
            entries_read,
            pending: Vec::new(),
            consumers: Vec::new(),
        };
        for _ in 0..from.count()? {
            let pending = PendingValue {
                id: RawId::from_be_bytes(from.array()?),
                delivered_ms: from.milliseconds()?,
                deliveries: from.length()?,
                consumer: usize::MAX,
            };
            let ascends = group.pending.last().is_none_or(|last| last.id < pending.id);
            if !ascends || pending.delivered_ms < 0 || pending.deliveries > NUMBER_MAX {
                return Err(Error::Malformed);
            }
            push_within(&mut group.pending, pending, ask)?;
        }
        group.read_consumers(kind, from, ask)?;
        Ok(group)
    }

    /// How many entries a group has read, of a stream of which it is only known what it holds.
    fn entries_up_to(&self, id: RawId) -> Option<u64> {
        let Some((first_id, _)) = self.entries.first() else {
            return Some(0);
        };
        match id {
            id if id == self.last_id => Some(self.entries.len() as u64),
            id if id < *first_id => Some(0),
            id if id == *first_id => Some(1),
            _ => None,
        }
    }
}

impl GroupValue {
    fn read_consumers(
        &mut self,
        kind: u8,
        from: &mut Reader<'_>,
        ask: &mut Ask<'_>,
    ) -> Result<(), Error> {
        let (mut names, mut owned) = (Strings::default(), 0);
        for number in 0..from.count()? {
            let name = read_name(from, ask)?;
            names.push(&name, ask)?;
            let seen_ms = from.milliseconds()?;
            let active_ms = match kind {
                kind::STREAM_LISTPACKS_3 => from.milliseconds()?,
                _ => seen_ms,
            };
            if seen_ms < 0 || active_ms < NEVER_MS {
                return Err(Error::Malformed);
            }
            let consumer = ConsumerValue {
                name,
                seen_ms,
                active_ms,
            };
            push_within(&mut self.consumers, consumer, ask)?;
            for _ in 0..from.count()? {
                let id = RawId::from_be_bytes(from.array()?);
                let found = self.pending.binary_search_by_key(&id, |pending| pending.id);
                let pending = &mut self.pending[found.map_err(|_| Error::Malformed)?];
                if pending.consumer != usize::MAX {
                    return Err(Error::Malformed);
                }
                pending.consumer = number;
                owned += 1;
            }
        }
        // Each has a consumer.
        match owned == self.pending.len() && !names.repeat(1, ask)? {
            true => Ok(()),
            false => Err(Error::Malformed),
        }
    }
}

fn read_id(from: &mut Reader<'_>) -> Result<RawId, Error> {
    let (ms, sequence) = (from.length()?, from.length()?);
    Ok(u128::from(ms) << 64 | u128::from(sequence))
}

fn read_name(from: &mut Reader<'_>, ask: &mut Ask<'_>) -> Result<Vec<u8>, Error> {
    let name = from.string(ask)?;
    ask(name.len() as u64)?;
    Ok(name.into_owned())
}

/// Skips a deleted entry behind its flags. The fields that it shares are not touched: a long one, copied for each of very many
/// entries, would take hours.
fn skip_entry(fields: Option<&Strings>, from: &mut Listpack<'_>) -> Result<(), Error> {
    let _id = (from.integer()?, from.integer()?);
    let (strings, beside) = match fields {
        Some(fields) => (fields.len(), 3),
        None => (2 * field_count(from)?, 4),
    };
    for _ in 0..strings {
        from.required()?;
    }
    end_entry(from, strings + beside)
}

/// Reads the end of an entry: of how many elements it is, its flags not counted.
fn end_entry(from: &mut Listpack<'_>, elements: usize) -> Result<(), Error> {
    match from.integer()? == elements as i64 {
        true => Ok(()),
        false => Err(Error::Malformed),
    }
}

/// How many fields follow: one at least.
fn field_count(from: &mut Listpack<'_>) -> Result<usize, Error> {
    let count = usize::try_from(from.integer()?).ok();
    count
        .filter(|count| *count > 0 && *count < usize::MAX / 4)
        .ok_or(Error::Malformed)
}

/// A node that is being made.
pub(crate) struct Node {
    first: RawId,
    /// The fields of the first entry.
    fields: Vec<Vec<u8>>,
    entries: usize,
    body: Builder,
}

impl Node {
    /// A node that begins with an entry of this ID and these fields, which is still to be added.
    pub(crate) fn new<'f>(first: RawId, fields: impl Iterator<Item = &'f [u8]>) -> Node {
        Node {
            first,
            fields: fields.map(<[u8]>::to_vec).collect(),
            entries: 0,
            body: Builder::new(),
        }
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes of the entries, about.
    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// Adds an entry behind the others; `strings` are its fields, each followed by its value.
    pub(crate) fn add<'f>(&mut self, id: RawId, strings: impl Iterator<Item = &'f [u8]> + Clone) {
        let fields = strings.clone().step_by(2);
        let has_same_fields = fields.clone().eq(self.fields.iter().map(Vec::as_slice));
        let flags = if has_same_fields { SAME_FIELDS } else { 0 };
        let (ms, sequence) = ((id >> 64) as u64, id as u64);
        let (first_ms, first_sequence) = ((self.first >> 64) as u64, self.first as u64);
        self.body.push_integer(flags);
        self.body.push_integer(ms.wrapping_sub(first_ms) as i64);
        self.body
            .push_integer(sequence.wrapping_sub(first_sequence) as i64);
        let count = fields.count();
        if has_same_fields {
            strings
                .skip(1)
                .step_by(2)
                .for_each(|value| self.body.push(value));
            self.body.push_integer(count as i64 + 3);
        } else {
            self.body.push_integer(count as i64);
            strings.for_each(|string| self.body.push(string));
            self.body.push_integer(2 * count as i64 + 4);
        }
        self.entries += 1;
    }

    /// The ID of the node, and its listpack.
    pub(crate) fn finish(self) -> ([u8; 16], Vec<u8>) {
        let mut head = Builder::new();
        head.push_integer(self.entries as i64);
        head.push_integer(0);
        head.push_integer(self.fields.len() as i64);
        self.fields.iter().for_each(|field| head.push(field));
        head.push_integer(0);
        head.append(self.body);
        (self.first.to_be_bytes(), head.finish())
    }
}
