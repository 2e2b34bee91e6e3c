//! Adding and removing members of sets, and looking at them: SADD, SREM, SMOVE, SISMEMBER, SMISMEMBER, SMEMBERS, SCARD,
//! SSCAN; and what the commands on sets share.
//!
//! A set is a collection of one tree, whose elements are its members.

use hybridlog::{Collection, Layout, Needed, Order, Put, TreeLayout};

use super::KIND_SET;
use super::collection::{
    ELEMENTS, Encoding, PackedLimits, check_room, find, foresee_growth, remove_if_empty, walk,
    want_next, want_next_of,
};
use super::collection_scan::{ScanOptions, Values, cursor_of, scan};
use super::parse::{INTEGER_MAX_BYTES, strict_integer};
use super::string::{GROW_FAST, READ, READ_FAST, STRING_ROW, WRITE_FAST};
use crate::args::Args;
use crate::command::{Done, Handler, Keys, Row, Stop, tip};
use crate::ctx::Ctx;

pub(super) static SET: Layout = Layout {
    kind: KIND_SET,
    trees: &[TreeLayout {
        order: Order::Hash,
        has_values: false,
    }],
};

/// What most rows of set commands have in common.
pub(super) const SET_ROW: Row = Row {
    categories: &["set"],
    group: "set",
    ..STRING_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "sadd",
        arity: -3,
        flags: GROW_FAST,
        complexity: "O(N), N being the number of members given",
        summary: "Adds members to a set.",
        handler: Handler::Worker(sadd),
        ..SET_ROW
    },
    Row {
        name: "srem",
        arity: -3,
        flags: WRITE_FAST,
        complexity: "O(N), N being the number of members given",
        summary: "Removes members of a set, and the set with its last member.",
        handler: Handler::Worker(srem),
        ..SET_ROW
    },
    Row {
        name: "smove",
        arity: 4,
        flags: WRITE_FAST,
        keys: Keys::Range {
            first: 1,
            last: 2,
            step: 1,
        },
        summary: "Moves a member from one set to another.",
        handler: Handler::Worker(smove),
        ..SET_ROW
    },
    Row {
        name: "sismember",
        arity: 3,
        flags: READ_FAST,
        summary: "Tells whether a set has a member.",
        handler: Handler::Worker(sismember),
        ..SET_ROW
    },
    Row {
        name: "smismember",
        arity: -3,
        flags: READ_FAST,
        since: "6.2.0",
        complexity: "O(N), N being the number of members asked for",
        summary: "Tells which of several members a set has.",
        handler: Handler::Worker(smismember),
        ..SET_ROW
    },
    Row {
        name: "smembers",
        tips: tip::UNORDERED,
        arity: 2,
        flags: READ,
        complexity: "O(N), N being the number of members",
        summary: "Returns all members of a set.",
        handler: Handler::Worker(smembers),
        ..SET_ROW
    },
    Row {
        name: "scard",
        arity: 2,
        flags: READ_FAST,
        summary: "Counts the members of a set.",
        handler: Handler::Worker(scard),
        ..SET_ROW
    },
    Row {
        name: "sscan",
        tips: tip::NONDETERMINISTIC,
        arity: -3,
        flags: READ,
        since: "2.8.0",
        complexity: "O(1) a call, O(N) for a full iteration over N members",
        summary: "Iterates over the members of a set, some at a time.",
        handler: Handler::Worker(sscan),
        ..SET_ROW
    },
];

/// What has to be known of a set while members are added.
pub(super) struct Growth {
    encoding: Encoding,
    /// What the set says; with its first new member it says what its encoding is then.
    stored: Encoding,
    len: u64,
    /// Bytes of the longest member, where that may count.
    longest: u64,
    limits: PackedLimits,
}

impl Growth {
    /// Of a set that is made for `count` members.
    fn of_new(limits: PackedLimits, first: &[u8], count: u64) -> Growth {
        let encoding = if strict_integer(first).is_some() && count <= limits.intset_entries {
            Encoding::Intset
        } else if count <= limits.set.entries {
            Encoding::Listpack
        } else {
            Encoding::Hashtable
        };
        Growth::of_empty(limits, encoding)
    }

    pub(super) fn of_empty(limits: PackedLimits, encoding: Encoding) -> Growth {
        Growth {
            encoding,
            stored: Encoding::Listpack,
            len: 0,
            longest: 0,
            limits,
        }
    }

    /// Of a set to which `count` members are to be added.
    fn of_found(limits: PackedLimits, set: &Collection<'_>, count: u64) -> Result<Growth, Stop> {
        let stored = Encoding::of(set);
        let encoding = match stored {
            Encoding::Intset if count > limits.intset_entries => Encoding::Hashtable,
            Encoding::Listpack if count > limits.set.entries => Encoding::Hashtable,
            encoding => encoding,
        };
        let mut growth = Growth {
            stored,
            len: set.len(ELEMENTS),
            ..Growth::of_empty(limits, encoding)
        };
        // Integers are short: their lengths count only where hardly anything is allowed.
        if encoding == Encoding::Intset && limits.set.element_bytes < INTEGER_MAX_BYTES as u64 {
            walk(set, |member| {
                growth.longest = growth.longest.max(member.key.len() as u64);
                Ok(())
            })?;
        }
        Ok(growth)
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The encoding of the set with `member`, which is not in it yet.
    fn encoding_with(&self, member: &[u8]) -> Encoding {
        let (set, bytes) = (self.limits.set, member.len() as u64);
        let is_integer = || strict_integer(member).is_some();
        match self.encoding {
            Encoding::Intset if is_integer() && self.len < self.limits.intset_entries => {
                Encoding::Intset
            }
            Encoding::Intset if is_integer() => Encoding::Hashtable,
            Encoding::Intset | Encoding::Listpack
                if self.len < set.entries && bytes.max(self.longest) <= set.element_bytes =>
            {
                Encoding::Listpack
            }
            _ => Encoding::Hashtable,
        }
    }

    /// Adds a member that is not in the set yet.
    pub(super) fn add(&mut self, member: &[u8]) {
        self.encoding = self.encoding_with(member);
        self.len += 1;
        self.longest = self.longest.max(member.len() as u64);
    }
}

/// What has to be known to add `members` to the set stored under `key`, which need not be there. There is room for them.
fn begin_adding<'a>(
    cx: &mut Ctx<'_>,
    key: &[u8],
    members: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) -> Result<Growth, Stop> {
    let limits = PackedLimits::now(cx);
    let count = members.len() as u64;
    let growth = match find(&cx.op, cx.namespace, key, KIND_SET)? {
        Some(set) => Growth::of_found(limits, &set, count)?,
        None => {
            let first = members.clone().next().unwrap_or_default();
            Growth::of_new(limits, first, count)
        }
    };
    for member in members.clone() {
        cx.op.check_element(key, member.len() as u64)?;
    }
    let bytes = members.clone().map(<[u8]>::len).sum();
    foresee_growth(cx, key, members.len(), bytes)?;
    Ok(growth)
}

/// Adds a member, with the encoding that the set has then. Whether it is new.
fn add(cx: &mut Ctx<'_>, key: &[u8], growth: &mut Growth, member: &[u8]) -> Result<bool, Stop> {
    // A change that is made half is made again from the start: the encoding comes first.
    let encoding = growth.encoding_with(member);
    if encoding != growth.stored {
        let set = find(&cx.op, cx.namespace, key, KIND_SET)?;
        if let Some(set) = set
            && set.info(ELEMENTS, member)?.is_some()
        {
            return Ok(false);
        }
        encoding.store(cx, key, &SET)?;
        (growth.encoding, growth.stored) = (encoding, encoding);
    }
    let put = cx
        .op
        .put_element(cx.namespace, key, &SET, ELEMENTS, member, b"", None)?;
    if put == Put::Added {
        growth.add(member);
    }
    Ok(put == Put::Added)
}

fn sadd(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    let mut growth = begin_adding(cx, key, args.from(2))?;
    let mut ready = cx.progress.done;
    for member in args.from(2).skip(cx.progress.done) {
        if cx.progress.done == ready {
            ready += want_next(cx, key, KIND_SET, args.from(2 + ready), Needed::Whole)?;
        }
        let is_new = add(cx, key, &mut growth, member)?;
        cx.progress.done += 1;
        cx.progress.count += i64::from(is_new);
    }
    let added = cx.progress.count;
    cx.reply.integer(added);
    Ok(())
}

fn srem(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let key = &args[1];
    // What is found to be no set is not asked for members.
    find(&cx.op, cx.namespace, key, KIND_SET)?;
    let mut ready = cx.progress.done;
    for member in args.from(2).skip(cx.progress.done) {
        if cx.progress.done == ready {
            ready += want_next(cx, key, KIND_SET, args.from(2 + ready), Needed::Whole)?;
        }
        let was_there = cx.op.remove_element(cx.namespace, key, ELEMENTS, member)?;
        cx.progress.done += 1;
        cx.progress.count += i64::from(was_there);
    }
    if cx.progress.count > 0 {
        remove_if_empty(cx, key, KIND_SET)?;
    }
    let removed = cx.progress.count;
    cx.reply.integer(removed);
    Ok(())
}

fn smove(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (source, target, member) = (&args[1], &args[2], &args[3]);
    if !cx.progress.has_begun {
        let is_there = find_both(cx, args)?;
        if !is_there || source == target {
            cx.reply.integer(i64::from(is_there));
            return Ok(());
        }
        check_room(cx, 2, member.len())?;
    }
    if cx.progress.done == 0 {
        cx.op
            .remove_element(cx.namespace, source, ELEMENTS, member)?;
        cx.progress.done = 1;
    }
    remove_if_empty(cx, source, KIND_SET)?;
    let mut growth = begin_adding(cx, target, std::iter::once(member))?;
    add(cx, target, &mut growth, member)?;
    cx.reply.integer(1);
    Ok(())
}

/// Whether the source of SMOVE has the member. All that will be needed is read.
fn find_both(cx: &Ctx<'_>, args: Args<'_>) -> Result<bool, Stop> {
    let Some(source) = find(&cx.op, cx.namespace, &args[1], KIND_SET)? else {
        return Ok(false);
    };
    if let Some(target) = find(&cx.op, cx.namespace, &args[2], KIND_SET)? {
        target.want(ELEMENTS, [&args[3]])?;
    }
    Ok(source.info(ELEMENTS, &args[3])?.is_some())
}

fn sismember(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let is_there = match find(&cx.op, cx.namespace, &args[1], KIND_SET)? {
        Some(set) => set.info(ELEMENTS, &args[2])?.is_some(),
        None => false,
    };
    cx.reply.integer(i64::from(is_there));
    Ok(())
}

fn smismember(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let set = find(&cx.op, cx.namespace, &args[1], KIND_SET)?;
    if !cx.progress.has_begun {
        cx.reply.array(args.len() - 2);
    }
    let Some(set) = set else {
        args.from(2).for_each(|_| cx.reply.integer(0));
        return Ok(());
    };
    let mut ready = cx.progress.done;
    for member in args.from(2).skip(cx.progress.done) {
        if cx.progress.done == ready {
            ready += want_next_of(&set, args.from(2 + ready), Needed::Keys)?;
        }
        let is_there = set.info(ELEMENTS, member)?.is_some();
        cx.reply.integer(i64::from(is_there));
        cx.progress.done += 1;
    }
    Ok(())
}

fn smembers(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let Some(set) = find(&cx.op, cx.namespace, &args[1], KIND_SET)? else {
        cx.reply.set(0);
        return Ok(());
    };
    cx.reply.set(set.len(ELEMENTS) as usize);
    let (memory, reply) = (&mut cx.client.allowance, &mut *cx.reply);
    walk(&set, |member| reply.bulk_within(memory, &member.key))
}

fn scard(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let set = find(&cx.op, cx.namespace, &args[1], KIND_SET)?;
    cx.reply
        .integer(set.map_or(0, |set| set.len(ELEMENTS) as i64));
    Ok(())
}

fn sscan(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let cursor = cursor_of(&args[2])?;
    let set = find(&cx.op, cx.namespace, &args[1], KIND_SET)?;
    let (members, cursor) = match set {
        Some(set) => scan(&set, cursor, &ScanOptions::parse(args, 3, Values::AreNone)?)?,
        None => (Vec::new(), 0),
    };
    cx.reply.array(2);
    cx.reply.bulk(cursor.to_string().as_bytes());
    cx.reply.array(members.len());
    for member in &members {
        cx.reply
            .bulk_within(&mut cx.client.allowance, &member.key)?;
    }
    Ok(())
}
