//! What the commands on collections share: finding one, its encoding, room and memory, and replies with many elements.
//!
//! An encoding is only a name here: `OBJECT ENCODING` answers what Redis would, which depends on what a collection has
//! held since it was made. So it is kept, as the first byte of the collection's header.

use std::ops::{ControlFlow, Range};

use hybridlog::{Collection, Direction, Element, Layout, Namespace, Needed, Operation, WalkFrom};

use super::WRONG_TYPE;
use crate::command::Stop;
use crate::config::Settings;
use crate::ctx::Ctx;

/// The only tree of a hash, a set or a list.
pub(super) const ELEMENTS: usize = 0;

/// Elements of a walk that are read, and whose pages are fetched, together.
const WALKED_TOGETHER: u64 = 8 * 1024;
/// And so many at least.
const WALKED_TOGETHER_LEAST: u64 = 64;

/// Room that is made sure of for the pages that a command changes.
const PAGE_BYTES: u64 = 4 * 1024;
const PAGES_FORESEEN: u64 = 32;
/// So much is always there for a command that has changed something.
const FEW_BYTES: u64 = 64 * 1024;

/// How Redis would hold a collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Encoding {
    Listpack = 0,
    Hashtable = 1,
    /// A listpack with room for expiries.
    ListpackEx = 2,
    Intset = 3,
    Skiplist = 4,
    /// Of a list.
    Quicklist = 5,
}

impl Encoding {
    /// What the header of a collection says; without one it is a listpack.
    pub(crate) fn of(collection: &Collection<'_>) -> Encoding {
        match collection.header().first() {
            Some(1) => Encoding::Hashtable,
            Some(2) => Encoding::ListpackEx,
            Some(3) => Encoding::Intset,
            Some(4) => Encoding::Skiplist,
            Some(5) => Encoding::Quicklist,
            _ => Encoding::Listpack,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Encoding::Listpack => "listpack",
            Encoding::Hashtable => "hashtable",
            Encoding::ListpackEx => "listpackex",
            Encoding::Intset => "intset",
            Encoding::Skiplist => "skiplist",
            Encoding::Quicklist => "quicklist",
        }
    }

    pub(super) fn header(self) -> [u8; 1] {
        [self as u8]
    }

    /// Whether it is one of those that hold everything in one piece.
    pub(super) fn is_packed(self) -> bool {
        !matches!(
            self,
            Encoding::Hashtable | Encoding::Skiplist | Encoding::Quicklist
        )
    }

    /// Notes it as that of the collection, of whose first elements it is known.
    pub(super) fn store(self, cx: &mut Ctx<'_>, key: &[u8], layout: &Layout) -> Result<(), Stop> {
        Ok(cx
            .op
            .set_header(cx.namespace, key, layout, &self.header())?)
    }
}

/// How large a collection with one of the packed encodings may be.
#[derive(Clone, Copy)]
pub(super) struct PackedLimits {
    pub(super) hash: PackedLimit,
    pub(super) set: PackedLimit,
    pub(super) zset: PackedLimit,
    pub(super) intset_entries: u64,
}

#[derive(Clone, Copy)]
pub(super) struct PackedLimit {
    pub(super) entries: u64,
    /// Bytes of an element.
    pub(super) element_bytes: u64,
}

impl PackedLimits {
    pub(super) fn now(cx: &Ctx<'_>) -> PackedLimits {
        cx.worker.settings(|settings: &Settings| PackedLimits {
            hash: PackedLimit {
                entries: settings.hash_max_listpack_entries,
                element_bytes: settings.hash_max_listpack_value_bytes,
            },
            set: PackedLimit {
                entries: settings.set_max_listpack_entries,
                element_bytes: settings.set_max_listpack_value_bytes,
            },
            zset: PackedLimit {
                entries: settings.zset_max_listpack_entries,
                element_bytes: settings.zset_max_listpack_value_bytes,
            },
            // As in Redis, whatever the setting says.
            intset_entries: settings.set_max_intset_entries.min(1 << 30),
        })
    }
}

/// Finds the collection stored under `key`; an error if the key holds something else.
pub(super) fn find<'r>(
    op: &'r Operation<'_>,
    namespace: Namespace,
    key: &[u8],
    kind: u8,
) -> Result<Option<Collection<'r>>, Stop> {
    match op.read(namespace, key)? {
        None => Ok(None),
        Some(record) if record.meta().kind != kind => Err(WRONG_TYPE.into()),
        Some(record) => Ok(Some(op.open_collection(&record)?)),
    }
}

/// As [`check_room`], for elements that are about to be put into the collection under `key`: it gets room for them at once.
pub(super) fn foresee_growth(
    cx: &Ctx<'_>,
    key: &[u8],
    elements: usize,
    bytes: usize,
) -> Result<(), Stop> {
    check_room(cx, elements, bytes)?;
    cx.op.foresee_growth(cx.namespace, key, elements, bytes);
    Ok(())
}

/// Makes sure, before the first of `elements` with so many bytes together is changed, that there is room: a command that
/// has to wait after that keeps its keys latched meanwhile.
pub(super) fn check_room(cx: &Ctx<'_>, elements: usize, bytes: usize) -> Result<(), Stop> {
    let pages = (elements as u64).min(PAGES_FORESEEN);
    let bytes = bytes as u64 / 8 * 9 + pages * PAGE_BYTES;
    if bytes < FEW_BYTES || cx.progress.has_begun || cx.server.store.has_room(bytes) {
        return Ok(());
    }
    Err(hybridlog::Stop::NoRoom { bytes }.into())
}

/// Makes sure, for a command on several elements, that the first of those that are left need nothing cold; returns how many
/// of them. What is cold is asked for together, for some elements at a time, so that a command on very many takes no more
/// memory than one on some.
pub(super) fn want_next<'a>(
    cx: &Ctx<'_>,
    key: &[u8],
    kind: u8,
    left: impl ExactSizeIterator<Item = &'a [u8]>,
    needed: Needed,
) -> Result<usize, Stop> {
    match find(&cx.op, cx.namespace, key, kind)? {
        Some(collection) => want_next_of(&collection, left, needed),
        None => Ok(left.len()),
    }
}

/// As [`want_next`], of a collection that has been found.
pub(super) fn want_next_of<'a>(
    collection: &Collection<'_>,
    left: impl ExactSizeIterator<Item = &'a [u8]>,
    needed: Needed,
) -> Result<usize, Stop> {
    // One alone finds out by itself what it needs.
    match left.len() {
        count @ ..=1 => Ok(count),
        _ => Ok(collection.want_next(ELEMENTS, left, needed)?),
    }
}

/// Removes a collection that has no elements any more.
pub(super) fn remove_if_empty(cx: &mut Ctx<'_>, key: &[u8], kind: u8) -> Result<(), Stop> {
    let collection = find(&cx.op, cx.namespace, key, kind)?;
    if collection.is_some_and(|collection| collection.is_empty()) {
        cx.op.remove(cx.namespace, key)?;
    }
    Ok(())
}

/// How far a walk looks ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All elements will be needed: all that is cold is asked for together.
    Everything,
    /// It may end early: what is cold in one part is fetched before the next one is looked at. The first part has so many
    /// elements, each has twice as many as the one before.
    Growing(u64),
}

/// Hands all elements to `each`, in the order of the tree. Cold pages are all fetched before it ends.
pub(super) fn walk<'r>(
    collection: &Collection<'r>,
    mut each: impl FnMut(Element<'r>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    walk_until(collection, Reach::Everything, |element| {
        each(element).map(ControlFlow::Continue)
    })
}

/// As [`walk`], until `each` breaks.
pub(super) fn walk_until<'r>(
    collection: &Collection<'r>,
    reach: Reach,
    each: impl FnMut(Element<'r>) -> Result<ControlFlow<()>, Stop>,
) -> Result<(), Stop> {
    let all = 0..collection.len(ELEMENTS);
    walk_parts(collection, ELEMENTS, all, Direction::Forward, reach, each)
}

/// Hands the elements at these positions of a tree to `each`, from the first on or from the last back, until it breaks. Cold
/// pages are all fetched before it ends.
pub(super) fn walk_range<'r>(
    collection: &Collection<'r>,
    tree: usize,
    range: Range<u64>,
    direction: Direction,
    each: impl FnMut(Element<'r>) -> Result<ControlFlow<()>, Stop>,
) -> Result<(), Stop> {
    let reach = Reach::Everything;
    walk_parts(collection, tree, range, direction, reach, each)
}

fn walk_parts<'r>(
    collection: &Collection<'r>,
    tree: usize,
    range: Range<u64>,
    direction: Direction,
    reach: Reach,
    mut each: impl FnMut(Element<'r>) -> Result<ControlFlow<()>, Stop>,
) -> Result<(), Stop> {
    let (mut left, mut cold) = (range.end.saturating_sub(range.start), None);
    let mut together = match reach {
        Reach::Everything => WALKED_TOGETHER,
        Reach::Growing(first) => first.clamp(WALKED_TOGETHER_LEAST, WALKED_TOGETHER),
    };
    while left > 0 {
        let position = match direction {
            Direction::Forward => range.end - left,
            Direction::Backward => range.start + left - 1,
        };
        let part = left.min(together);
        let mut ended = None;
        let walked = collection.walk(
            tree,
            WalkFrom::Position(position),
            direction,
            part,
            &mut |element| {
                // What has met something cold only looks for more of that.
                if cold.is_some() {
                    return ControlFlow::Break(());
                }
                match each(element) {
                    Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
                    end => {
                        ended = Some(end.map(drop));
                        ControlFlow::Break(())
                    }
                }
            },
        );
        if let Some(end) = ended {
            return end;
        }
        match walked {
            Err(stop @ hybridlog::Stop::Cold) => cold = Some(stop),
            done => done?,
        }
        if cold.is_some() && reach != Reach::Everything {
            break;
        }
        left -= part;
        if reach != Reach::Everything {
            together = (2 * together).min(WALKED_TOGETHER);
        }
    }
    cold.map_or(Ok(()), |stop| Err(stop.into()))
}
