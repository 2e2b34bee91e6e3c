//! Storing and removing fields of hashes: HSET, HMSET, HSETNX, HDEL; and what the commands on hashes share.
//!
//! A hash is a collection of one tree, whose elements are its fields. It is due at the time before which no field expires, once
//! one may: so a hash whose fields do not expire is not searched for those that have, and the engine names those that are due,
//! wherever they are ([`crate::field_expiry`]).

use hybridlog::{
    Collection, Element, ElementInfo, Layout, Namespace, Needed, Operation, Order, Put, TreeLayout,
};

use super::KIND_HASH;
use super::collection::{
    ELEMENTS, Encoding, PackedLimits, check_room, find, foresee_growth, remove_if_empty, want_next,
};
use super::string::{GROW_FAST, STRING_ROW, WRITE_FAST};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;

pub(super) static HASH: Layout = Layout {
    kind: KIND_HASH,
    trees: &[TreeLayout {
        order: Order::Hash,
        has_values: true,
    }],
};

/// What most rows of hash commands have in common.
pub(super) const HASH_ROW: Row = Row {
    categories: &["hash"],
    group: "hash",
    since: "2.0.0",
    ..STRING_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "hset",
        arity: -4,
        flags: GROW_FAST,
        complexity: "O(N), N being the number of fields",
        summary: "Stores values in fields of a hash, whatever they held.",
        handler: Handler::Worker(hset),
        ..HASH_ROW
    },
    Row {
        name: "hmset",
        arity: -4,
        flags: GROW_FAST,
        complexity: "O(N), N being the number of fields",
        summary: "Stores values in fields of a hash; the former form of HSET.",
        handler: Handler::Worker(hmset),
        ..HASH_ROW
    },
    Row {
        name: "hsetnx",
        arity: 4,
        flags: GROW_FAST,
        summary: "Stores a value in a field of a hash that does not exist yet.",
        handler: Handler::Worker(hsetnx),
        ..HASH_ROW
    },
    Row {
        name: "hdel",
        arity: -3,
        flags: WRITE_FAST,
        complexity: "O(N), N being the number of fields",
        summary: "Removes fields of a hash, and the hash with its last field.",
        handler: Handler::Worker(hdel),
        ..HASH_ROW
    },
];

/// A hash that has been found.
pub(super) struct Hash<'r> {
    pub(super) collection: Collection<'r>,
    now_ms: u64,
}

impl<'r> Hash<'r> {
    /// Finds the hash stored under `key`; an error if the key holds something else.
    pub(super) fn find(
        op: &'r Operation<'_>,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Hash<'r>>, Stop> {
        let found = find(op, namespace, key, KIND_HASH)?;
        Ok(found.map(|collection| Hash::of(collection, op)))
    }

    pub(super) fn of(collection: Collection<'r>, op: &Operation<'_>) -> Hash<'r> {
        // Few fields expire, and reading the clock takes time.
        let now_ms = if earliest_expiry(&collection).is_some() {
            op.now_ms()
        } else {
            0
        };
        Hash { collection, now_ms }
    }

    /// How many fields it has; among them may be some that have expired.
    pub(super) fn len(&self) -> u64 {
        self.collection.len(ELEMENTS)
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            encoding: Encoding::of(&self.collection),
            len: self.len(),
            earliest_expiry_ms: earliest_expiry(&self.collection),
            has_expired: self.has_expired(),
            are_many: false,
        }
    }

    /// The field, unless it has expired.
    pub(super) fn get(&self, field: &[u8]) -> Result<Option<Element<'r>>, Stop> {
        let found = self.collection.get(ELEMENTS, field)?;
        Ok(found.filter(|element| self.is_live(element)))
    }

    /// What is known of the field without reading its value, unless it has expired.
    pub(super) fn info(&self, field: &[u8]) -> Result<Option<ElementInfo>, Stop> {
        let found = self.collection.info(ELEMENTS, field)?;
        Ok(found.filter(|info| self.is_ahead(info.expires_at_ms)))
    }

    pub(super) fn is_live(&self, element: &Element<'_>) -> bool {
        self.is_ahead(element.expires_at_ms)
    }

    fn is_ahead(&self, expires_at_ms: Option<u64>) -> bool {
        expires_at_ms.is_none_or(|at| at > self.now_ms)
    }

    /// Whether there may be fields that expire.
    pub(super) fn may_expire(&self) -> bool {
        earliest_expiry(&self.collection).is_some()
    }

    /// Whether there may be fields that have expired.
    pub(super) fn has_expired(&self) -> bool {
        earliest_expiry(&self.collection).is_some_and(|at| at <= self.now_ms)
    }
}

/// The time before which no field of a hash expires, Unix milliseconds; none if none ever does.
fn earliest_expiry(hash: &Collection<'_>) -> Option<u64> {
    hash.due_at_ms()
}

/// What has to be known of a hash while it is changed.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    encoding: Encoding,
    len: u64,
    /// No field expires before this, Unix milliseconds; none if none ever does.
    earliest_expiry_ms: Option<u64>,
    /// Whether there may be fields that have expired.
    has_expired: bool,
    /// More fields are to be stored at once than a packed encoding may have.
    are_many: bool,
}

impl Facts {
    const OF_NONE: Facts = Facts {
        encoding: Encoding::Listpack,
        len: 0,
        earliest_expiry_ms: None,
        has_expired: false,
        are_many: false,
    };

    /// So many fields are to be stored: as in Redis, they count as if they were different.
    pub(super) fn foresee(&mut self, cx: &Ctx<'_>, count: usize) {
        self.are_many = count as u64 > PackedLimits::now(cx).hash.entries;
    }

    pub(super) fn has_expired(&self) -> bool {
        self.has_expired
    }

    /// Those of the hash stored under `key`, which need not be there.
    pub(super) fn gather(cx: &Ctx<'_>, key: &[u8]) -> Result<Facts, Stop> {
        let hash = Hash::find(&cx.op, cx.namespace, key)?;
        Ok(hash.map_or(Facts::OF_NONE, |hash| hash.facts()))
    }
}

/// Stores a field, with what the header of the hash says then. Whether the field is new.
pub(super) fn put(
    cx: &mut Ctx<'_>,
    key: &[u8],
    facts: &mut Facts,
    (field, value): (&[u8], &[u8]),
    expires_at_ms: Option<u64>,
) -> Result<bool, Stop> {
    // A change that is made half is made again from the start: the encoding comes first.
    let is_revived = facts.has_expired && is_expired(cx, key, field)?;
    let mut header = (facts.encoding, facts.earliest_expiry_ms);
    if facts.encoding.is_packed() && outgrows(cx, key, facts, field, value)? {
        header.0 = Encoding::Hashtable;
    }
    if let Some(at_ms) = expires_at_ms {
        header.1 = Some(match header.1 {
            None => at_ms,
            // Who looks for the earliest must know that this one has come.
            Some(LOOKED_THROUGH) => CHANGED,
            Some(earliest) => earliest.min(at_ms),
        });
        if header.0 == Encoding::Listpack {
            header.0 = Encoding::ListpackEx;
        }
    }
    if header != (facts.encoding, facts.earliest_expiry_ms) {
        set_header(cx, key, header)?;
        (facts.encoding, facts.earliest_expiry_ms) = header;
    }
    let put = cx.op.put_element(
        cx.namespace,
        key,
        &HASH,
        ELEMENTS,
        field,
        value,
        expires_at_ms,
    )?;
    facts.len += u64::from(put == Put::Added);
    if is_revived {
        cx.server.field_expiry.count_removed(1);
    }
    Ok(put == Put::Added || is_revived)
}

/// Whether a hash in a packed encoding does not stay in it if the field is stored.
fn outgrows(
    cx: &Ctx<'_>,
    key: &[u8],
    facts: &Facts,
    field: &[u8],
    value: &[u8],
) -> Result<bool, Stop> {
    let limit = PackedLimits::now(cx).hash;
    if facts.are_many {
        return Ok(true);
    }
    if field.len().max(value.len()) as u64 > limit.element_bytes {
        return Ok(true);
    }
    if facts.len != limit.entries {
        return Ok(facts.len > limit.entries);
    }
    let hash = Hash::find(&cx.op, cx.namespace, key)?;
    Ok(match hash {
        Some(hash) => hash.collection.info(ELEMENTS, field)?.is_none(),
        None => true,
    })
}

/// Stores what the header of a hash says, which may be one that is made with it.
fn set_header(
    cx: &mut Ctx<'_>,
    key: &[u8],
    (encoding, earliest_expiry_ms): (Encoding, Option<u64>),
) -> Result<(), Stop> {
    if let Some(at_ms) = earliest_expiry_ms {
        cx.server.field_expiry.note(cx.namespace, key, at_ms);
    }
    let header = encoding.header();
    let stored = cx
        .op
        .set_header_due(cx.namespace, key, &HASH, &header, earliest_expiry_ms);
    Ok(stored?)
}

/// The arguments from `first` on as fields with their values.
pub(super) fn pairs<'a>(
    args: Args<'a>,
    first: usize,
) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
    let (fields, values) = (args.from(first), args.from(first + 1));
    fields.step_by(2).zip(values.step_by(2))
}

fn hset(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    set_fields(cx, args, "hset")?;
    let added = cx.progress.count;
    cx.reply.integer(added);
    Ok(())
}

fn hmset(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    set_fields(cx, args, "hmset")?;
    cx.reply.ok();
    Ok(())
}

fn set_fields(cx: &mut Ctx<'_>, args: Args<'_>, command: &str) -> Done {
    if !args.len().is_multiple_of(2) {
        return Err(format!("ERR wrong number of arguments for '{command}' command").into());
    }
    let (key, pairs) = (&args[1], pairs(args, 2));
    let mut facts = Facts::gather(cx, key)?;
    facts.foresee(cx, pairs.len());
    let mut bytes = 0;
    for (field, value) in pairs.clone() {
        cx.op
            .check_element(key, (field.len() + value.len()) as u64)?;
        bytes += field.len() + value.len();
    }
    foresee_growth(cx, key, pairs.len(), bytes)?;
    let mut ready = cx.progress.done;
    for pair in pairs.clone().skip(cx.progress.done) {
        if cx.progress.done == ready {
            let left = pairs.clone().skip(ready).map(|(field, _)| field);
            ready += want_next(cx, key, KIND_HASH, left, Needed::Whole)?;
        }
        let is_new = put(cx, key, &mut facts, pair, None)?;
        cx.progress.done += 1;
        cx.progress.count += i64::from(is_new);
    }
    Ok(())
}

fn hsetnx(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let found = Hash::find(&cx.op, cx.namespace, key)?;
    let is_there = match &found {
        Some(hash) => hash.info(&args[2])?.is_some(),
        None => false,
    };
    // What it finds after it has begun is its own.
    let stores = cx.progress.has_begun || !is_there;
    if stores {
        let mut facts = Facts::gather(cx, key)?;
        let bytes = args[2].len() + args[3].len();
        cx.op.check_element(key, bytes as u64)?;
        check_room(cx, 1, bytes)?;
        put(cx, key, &mut facts, (&args[2], &args[3]), None)?;
    }
    cx.reply.integer(i64::from(stores));
    Ok(())
}

fn hdel(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let facts = Facts::gather(cx, key)?;
    let mut ready = cx.progress.done;
    for field in args.from(2).skip(cx.progress.done) {
        if cx.progress.done == ready {
            ready += want_next(cx, key, KIND_HASH, args.from(2 + ready), Needed::Whole)?;
        }
        let was_live = remove(cx, key, &facts, field)?;
        cx.progress.done += 1;
        cx.progress.count += i64::from(was_live);
    }
    if cx.op.changes() > 0 {
        remove_if_empty(cx, key, KIND_HASH)?;
    }
    let removed = cx.progress.count;
    cx.reply.integer(removed);
    Ok(())
}

/// Removes a field. Whether it was there, and had not expired.
pub(super) fn remove(
    cx: &mut Ctx<'_>,
    key: &[u8],
    facts: &Facts,
    field: &[u8],
) -> Result<bool, Stop> {
    let is_live = !facts.has_expired || !is_expired(cx, key, field)?;
    let is_removed = cx.op.remove_element(cx.namespace, key, ELEMENTS, field)?;
    if is_removed && !is_live {
        cx.server.field_expiry.count_removed(1);
    }
    Ok(is_removed && is_live)
}

/// Whether a field is still there, but has expired.
fn is_expired(cx: &Ctx<'_>, key: &[u8], field: &[u8]) -> Result<bool, Stop> {
    let Some(hash) = Hash::find(&cx.op, cx.namespace, key)? else {
        return Ok(false);
    };
    let found = hash.collection.info(ELEMENTS, field)?;
    Ok(found.is_some_and(|info| !hash.is_ahead(info.expires_at_ms)))
}

/// When a hash is due that is being looked through, some fields at a time; and if a field that expires has been stored
/// meanwhile. Both are past, so they are before any field expires.
const LOOKED_THROUGH: u64 = 1;
const CHANGED: u64 = 0;

/// Fields that are looked at while the hash is latched.
const FIELDS_TOGETHER: u64 = 1024;

/// A hash that is being looked through for fields that have expired.
pub(crate) struct Look {
    pub(crate) namespace: Namespace,
    pub(crate) key: Vec<u8>,
    /// Where it goes on: 0 at first and at the end.
    cursor: u64,
    /// When the first of those fields expires that have been met and have not expired.
    earliest_ms: Option<u64>,
}

/// What a step of a look has come to.
pub(crate) enum Looked {
    /// There are more fields; so many have been removed.
    GoesOn { removed: u64 },
    /// It is over. The hash is due again at `next_ms`, if at some time.
    Over { removed: u64, next_ms: Option<u64> },
}

impl Look {
    pub(crate) fn new(namespace: Namespace, key: Vec<u8>) -> Look {
        Look {
            namespace,
            key,
            cursor: 0,
            earliest_ms: None,
        }
    }

    /// Removes those of the next fields that have expired, and the hash with its last field. The scan meets every field that
    /// is there all the time; and of those that are stored meanwhile and expire, the time that the hash is due tells.
    pub(crate) fn go_on(&mut self, op: &mut Operation<'_>) -> Result<Looked, hybridlog::Stop> {
        let (namespace, key) = (self.namespace, self.key.as_slice());
        let over = |removed, next_ms| Ok(Looked::Over { removed, next_ms });
        let (mut expired, mut earliest_ms) = (Vec::new(), self.earliest_ms);
        let (due_ms, encoding, len, cursor) = {
            let record = op.read(namespace, key)?;
            let Some(record) = record.filter(|record| record.meta().kind == KIND_HASH) else {
                return over(0, None);
            };
            let hash = Hash::of(op.open_collection(&record)?, op);
            let due_ms = earliest_expiry(&hash.collection);
            if !hash.has_expired() {
                return over(0, due_ms);
            }
            let scanned = hash
                .collection
                .scan(ELEMENTS, self.cursor, FIELDS_TOGETHER)?;
            for element in scanned.elements {
                if hash.is_live(&element) {
                    let times = earliest_ms.into_iter().chain(element.expires_at_ms);
                    earliest_ms = times.min();
                } else {
                    expired.push(element.key.into_owned());
                }
            }
            let encoding = Encoding::of(&hash.collection);
            (due_ms, encoding, hash.len(), scanned.cursor)
        };
        let is_all = self.cursor == 0 && cursor == 0;
        let next_ms = match due_ms {
            // All at once, or nothing that expires has come since it began.
            due_ms if cursor == 0 && (is_all || due_ms == Some(LOOKED_THROUGH)) => earliest_ms,
            _ if self.cursor == 0 => Some(LOOKED_THROUGH),
            due_ms => due_ms,
        };
        let changes_before = op.changes();
        for (removed, field) in (0..).zip(&expired) {
            match op.remove_element(namespace, key, ELEMENTS, field) {
                // What has been done stays; the rest is looked at again.
                Err(_) if op.changes() > changes_before => return Ok(Looked::GoesOn { removed }),
                removed => removed?,
            };
        }
        let removed = expired.len() as u64;
        let ended = if removed == len {
            op.remove(namespace, key).map(drop)
        } else if next_ms != due_ms {
            op.set_header_due(namespace, key, &HASH, &encoding.header(), next_ms)
        } else {
            Ok(())
        };
        match ended {
            Err(_) if op.changes() > changes_before => return Ok(Looked::GoesOn { removed }),
            ended => ended?,
        }
        (self.cursor, self.earliest_ms) = (cursor, earliest_ms);
        if cursor == 0 || removed == len {
            let next_ms = next_ms.filter(|_| removed < len);
            self.earliest_ms = None;
            return over(removed, next_ms);
        }
        Ok(Looked::GoesOn { removed })
    }
}
