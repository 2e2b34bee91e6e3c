//! What the commands on streams share: what a stream is made of; and those that concern it as a whole: XLEN, XDEL, XSETID.
//!
//! A stream is a collection of two trees by key. The elements of the first are its entries: the ID, 16 bytes that are ordered
//! as IDs are, and the fields with their values. The second holds its consumer groups (`stream_group.rs`).
//!
//! An entry that is added changes nothing but its tree: the last ID is that of the last entry, unless the header says a
//! greater one, and so many entries were added as there are and as the header says are gone. So what removes entries
//! changes the header, and does so first: from then on it only removes what it has counted, however often it has to wait.

use std::ops::{ControlFlow, Range};

use hybridlog::{Collection, Direction, Element, Layout, Namespace, Operation, Order, TreeLayout};

use super::KIND_STREAM;
use super::collection::{find, walk_range};
use super::parse::{SYNTAX_ERROR, integer};
use super::stream_id::Id;
use super::string::{GROW_FAST, READ_FAST, STRING_ROW, WRITE_FAST};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, Stop};
use crate::ctx::Ctx;
use crate::memory::Allowance;
use crate::output::Output;

pub(super) static STREAM: Layout = Layout {
    kind: KIND_STREAM,
    trees: &[
        TreeLayout {
            order: Order::Key,
            has_values: true,
        },
        TreeLayout {
            order: Order::Key,
            has_values: true,
        },
    ],
};

/// The tree of the entries.
pub(super) const ENTRIES: usize = 0;
/// The tree of the consumer groups.
pub(super) const GROUPS: usize = 1;

/// What most rows of stream commands have in common.
pub(super) const STREAM_ROW: Row = Row {
    categories: &["stream"],
    group: "stream",
    since: "5.0.0",
    ..STRING_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "xlen",
        arity: 2,
        flags: READ_FAST,
        summary: "Counts the entries of a stream.",
        handler: Handler::Worker(xlen),
        ..STREAM_ROW
    },
    Row {
        name: "xdel",
        arity: -3,
        flags: WRITE_FAST.and(Flags::WAKES_NOBODY),
        complexity: "O(N), N being the number of IDs given",
        summary: "Removes entries of a stream by their IDs.",
        handler: Handler::Worker(xdel),
        ..STREAM_ROW
    },
    Row {
        name: "xsetid",
        arity: -3,
        flags: GROW_FAST.and(Flags::WAKES_NOBODY),
        summary: "Sets what a stream remembers of entries that were added or removed.",
        handler: Handler::Worker(xsetid),
        ..STREAM_ROW
    },
];

/// What a stream remembers besides its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Header {
    /// The last ID, unless there is an entry with a greater one.
    pub(super) last_id: Id,
    /// The greatest ID that XDEL has removed.
    pub(super) max_deleted_id: Id,
    /// How many entries were added that are not there any more.
    pub(super) removed: u64,
}

impl Header {
    const BYTES: usize = 1 + 2 * Id::BYTES + 8;

    fn of(collection: &Collection<'_>) -> Header {
        let header = collection.header();
        let Some([_, rest @ ..]) = header.first_chunk::<{ Header::BYTES }>() else {
            return Header::default();
        };
        let (ids, removed) = rest.split_at(2 * Id::BYTES);
        Header {
            last_id: Id::of_end(&ids[..Id::BYTES]),
            max_deleted_id: Id::of_end(ids),
            removed: removed.try_into().map_or(0, u64::from_le_bytes),
        }
    }

    /// The first byte is that of the encoding, of which there is one.
    pub(super) fn to_bytes(self) -> [u8; Header::BYTES] {
        let mut bytes = [0; Header::BYTES];
        bytes[1..17].copy_from_slice(&self.last_id.to_bytes());
        bytes[17..33].copy_from_slice(&self.max_deleted_id.to_bytes());
        bytes[33..].copy_from_slice(&self.removed.to_le_bytes());
        bytes
    }

    pub(super) fn store(self, cx: &mut Ctx<'_>, key: &[u8]) -> Result<(), Stop> {
        let bytes = self.to_bytes();
        Ok(cx.op.set_header(cx.namespace, key, &STREAM, &bytes)?)
    }
}

/// A stream that has been found.
pub(super) struct Stream<'r> {
    pub(super) collection: Collection<'r>,
    pub(super) header: Header,
}

impl<'r> Stream<'r> {
    /// Finds the stream stored under `key`; an error if the key holds something else.
    pub(super) fn find(
        op: &'r Operation<'_>,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Stream<'r>>, Stop> {
        let found = find(op, namespace, key, KIND_STREAM)?;
        Ok(found.map(Stream::of))
    }

    pub(super) fn of(collection: Collection<'r>) -> Stream<'r> {
        Stream {
            header: Header::of(&collection),
            collection,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.collection.len(ENTRIES)
    }

    /// How many entries have ever been added.
    pub(super) fn entries_added(&self) -> u64 {
        self.len().wrapping_add(self.header.removed)
    }

    /// The ID of the first entry; the least there is without one.
    pub(super) fn first_id(&self) -> Result<Id, Stop> {
        self.id_at(0)
    }

    /// The ID of the last entry; the least there is without one.
    pub(super) fn top_id(&self) -> Result<Id, Stop> {
        self.id_at(self.len().saturating_sub(1))
    }

    /// The greatest ID that an entry has had, or that XSETID has set.
    pub(super) fn last_id(&self) -> Result<Id, Stop> {
        Ok(self.top_id()?.max(self.header.last_id))
    }

    fn id_at(&self, position: u64) -> Result<Id, Stop> {
        let key = self.collection.key_at(ENTRIES, position)?;
        Ok(key.map_or(Id::MIN, |key| Id::of_end(&key)))
    }

    pub(super) fn has(&self, id: Id) -> Result<bool, Stop> {
        Ok(self.collection.rank(ENTRIES, &id.to_bytes())?.1)
    }

    /// The positions of the entries from one ID to another, both included.
    pub(super) fn positions(&self, from: Id, to: Id) -> Result<Range<u64>, Stop> {
        let (start, _) = self.collection.rank(ENTRIES, &from.to_bytes())?;
        let (end, is_there) = self.collection.rank(ENTRIES, &to.to_bytes())?;
        Ok(start..(end + u64::from(is_there)).max(start))
    }

    /// Writes the entry with this ID; `false` if there is none.
    pub(super) fn reply_one(
        &self,
        id: Id,
        memory: &mut Allowance,
        reply: &mut Output,
    ) -> Result<bool, Stop> {
        match self.collection.get(ENTRIES, &id.to_bytes())? {
            Some(entry) => reply_entry(&entry, memory, reply).map(|()| true),
            None => Ok(false),
        }
    }

    /// Writes an array of the entries at `positions`.
    pub(super) fn reply_range(
        &self,
        positions: Range<u64>,
        direction: Direction,
        memory: &mut Allowance,
        reply: &mut Output,
    ) -> Result<(), Stop> {
        reply.array((positions.end - positions.start) as usize);
        walk_range(&self.collection, ENTRIES, positions, direction, |entry| {
            reply_entry(&entry, memory, reply).map(ControlFlow::Continue)
        })
    }
}

pub(super) fn reply_id(reply: &mut Output, id: Id) {
    reply.bulk(id.to_string().as_bytes());
}

/// Writes an entry: its ID, and its fields and values.
pub(super) fn reply_entry(
    entry: &Element<'_>,
    memory: &mut Allowance,
    reply: &mut Output,
) -> Result<(), Stop> {
    // Lengths take at most so much more than their numbers.
    let bytes = 64 + 16 * entry.value.len();
    reply.ask_for_room(memory, bytes.min(entry.value.len() + 64 * 1024))?;
    reply.array(2);
    reply_id(reply, Id::of_end(&entry.key));
    let strings = Strings::of(&entry.value);
    reply.array(strings.count);
    for string in strings {
        reply.bulk_within(memory, string)?;
    }
    Ok(())
}

/// The fields and values of an entry, as they are stored: how many strings there are, then each behind its length.
#[derive(Clone)]
pub(super) struct Strings<'v> {
    /// How many are left.
    pub(super) count: usize,
    bytes: &'v [u8],
}

impl<'v> Strings<'v> {
    pub(super) fn of(value: &'v [u8]) -> Strings<'v> {
        let mut strings = Strings {
            count: 0,
            bytes: value,
        };
        strings.count = strings.number();
        strings
    }

    /// What is stored for these strings.
    pub(super) fn store<'a>(strings: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut value = Vec::new();
        put_number(&mut value, strings.len());
        for string in strings {
            put_number(&mut value, string.len());
            value.extend_from_slice(string);
        }
        value
    }

    fn number(&mut self) -> usize {
        let mut number = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let Some((&byte, rest)) = self.bytes.split_first() else {
                break;
            };
            self.bytes = rest;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }
}

/// Ends early, with empty strings, if the value is damaged.
impl<'v> Iterator for Strings<'v> {
    type Item = &'v [u8];
    fn next(&mut self) -> Option<&'v [u8]> {
        self.count = self.count.checked_sub(1)?;
        let len = self.number().min(self.bytes.len());
        let (string, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        Some(string)
    }
}

/// Appends a number as 7 bits a byte, lowest first, the high bit on all but the last.
fn put_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn xlen(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let stream = Stream::find(&cx.op, cx.namespace, &args[1])?;
    cx.reply
        .integer(stream.map_or(0, |stream| stream.len()) as i64);
    Ok(())
}

fn xdel(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let Some(stream) = Stream::find(&cx.op, cx.namespace, key)? else {
        cx.reply.integer(0);
        return Ok(());
    };
    let ids = parse_ids(args, 2)?;
    if !cx.progress.has_begun {
        let keys: Vec<_> = ids.iter().map(|id| id.to_bytes()).collect();
        let wanted = keys.iter().map(<[u8; Id::BYTES]>::as_slice);
        stream.collection.want(ENTRIES, wanted)?;
        let mut there = Vec::new();
        for &id in &ids {
            if stream.has(id)? {
                there.push(id);
            }
        }
        there.sort_unstable();
        there.dedup();
        let Some(&greatest) = there.last() else {
            cx.reply.integer(0);
            return Ok(());
        };
        let header = Header {
            last_id: stream.last_id()?,
            max_deleted_id: stream.header.max_deleted_id.max(greatest),
            removed: stream.header.removed.wrapping_add(there.len() as u64),
        };
        cx.progress.count = there.len() as i64;
        header.store(cx, key)?;
    }
    for id in ids.iter().skip(cx.progress.done) {
        cx.op
            .remove_element(cx.namespace, key, ENTRIES, &id.to_bytes())?;
        cx.progress.done += 1;
    }
    let removed = cx.progress.count;
    cx.reply.integer(removed);
    Ok(())
}

/// The arguments from `first` on as IDs.
pub(super) fn parse_ids(args: Args<'_>, first: usize) -> Result<Vec<Id>, Stop> {
    args.from(first)
        .map(|arg| Id::parse_strict(arg, 0))
        .collect()
}

fn xsetid(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let id = Id::parse_strict(&args[2], 0)?;
    let (mut entries_added, mut max_deleted_id) = (None, Id::MIN);
    let mut at = 3;
    while at < args.len() {
        match args.get(at + 1) {
            Some(value) if args.is(at, "entriesadded") => {
                let count = u64::try_from(integer(value)?);
                entries_added = Some(count.map_err(|_| "ERR entries_added must be positive")?);
            }
            Some(value) if args.is(at, "maxdeletedid") => {
                max_deleted_id = Id::parse_strict(value, 0)?;
                if id < max_deleted_id {
                    return Err("ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id".into());
                }
            }
            _ => return Err(SYNTAX_ERROR.into()),
        }
        at += 2;
    }
    let key = &args[1];
    let stream = Stream::find(&cx.op, cx.namespace, key)?.ok_or("ERR no such key")?;
    let mut header = stream.header;
    if id < header.max_deleted_id {
        return Err(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id".into(),
        );
    }
    if id < stream.top_id()? {
        return Err(
            "ERR The ID specified in XSETID is smaller than the target stream top item".into(),
        );
    }
    if let Some(added) = entries_added {
        let removed = added.checked_sub(stream.len());
        header.removed = removed.ok_or(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        )?;
    }
    header.last_id = id;
    if max_deleted_id != Id::MIN {
        header.max_deleted_id = max_deleted_id;
    }
    header.store(cx, key)?;
    cx.reply.ok();
    Ok(())
}
