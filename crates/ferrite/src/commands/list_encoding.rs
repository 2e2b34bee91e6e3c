//! Whether `OBJECT ENCODING` calls a list a listpack or a quicklist, by `list-max-listpack-size` as Redis 7.2 does.
//!
//! A list that grows over the limit is a quicklist from then on. One that has shrunk to half of it is a listpack again: in
//! Redis only if a single node of it is left, which depends on where its elements were pushed and popped; here by its size,
//! that is all there is.

use hybridlog::Collection;

use super::KIND_LIST;
use super::collection::{ELEMENTS, Encoding, find, walk};
use super::list::LIST;
use super::parse::strict_integer;
use crate::command::Stop;
use crate::config::Settings;
use crate::ctx::Ctx;
use crate::rdb::listpack::Builder;
use crate::rdb::{ListValue, Packing};

/// What -1 to -5 stand for, bytes.
const SIZES: [u64; 5] = [4096, 8192, 16384, 32768, 65536];
/// However few its elements are, a listpack is no longer than this, bytes.
const COUNTED_MAX_BYTES: u64 = 8192;
/// Bytes of a listpack without elements.
const EMPTY_BYTES: u64 = 7;

/// What an element that is pushed is taken to need in a listpack beside its own bytes.
const PUSHED_BESIDE_BYTES: u64 = 8;

/// How long a listpack may be.
#[derive(Clone, Copy)]
pub(super) enum NodeLimit {
    Bytes(u64),
    Entries(u64),
}

impl NodeLimit {
    pub(super) fn now(cx: &Ctx<'_>) -> NodeLimit {
        let size = cx
            .worker
            .settings(|settings: &Settings| settings.list_max_listpack_size);
        match u64::try_from(size) {
            Ok(entries) => NodeLimit::Entries(entries.max(1)),
            Err(_) => {
                let at = (size.unsigned_abs() as usize - 1).min(SIZES.len() - 1);
                NodeLimit::Bytes(SIZES[at])
            }
        }
    }

    fn max_bytes(self) -> u64 {
        match self {
            NodeLimit::Bytes(bytes) => bytes,
            NodeLimit::Entries(_) => COUNTED_MAX_BYTES,
        }
    }

    /// Whether a listpack may have so many elements and bytes.
    fn allows(self, count: u64, bytes: u64) -> bool {
        let is_few = !matches!(self, NodeLimit::Entries(entries) if count > entries);
        is_few && bytes <= self.max_bytes()
    }

    /// Whether `node` may have `element` as well.
    pub(super) fn takes(self, node: &Builder, element: &[u8]) -> bool {
        let bytes = node.len() as u64 + entry_bytes(element);
        self.allows(node.count() as u64 + 1, bytes)
    }
}

/// Makes a list a quicklist, if it is to be one with `count` elements more that have `bytes` together. It need not exist.
pub(super) fn note_growth(
    cx: &mut Ctx<'_>,
    key: &[u8],
    count: u64,
    bytes: u64,
) -> Result<(), Stop> {
    let limit = NodeLimit::now(cx);
    let list = find(&cx.op, cx.namespace, key, KIND_LIST)?;
    let (len, is_over) = match &list {
        Some(list) if Encoding::of(list) == Encoding::Quicklist => return Ok(()),
        Some(list) => (list.len(ELEMENTS), is_over(list, limit.max_bytes(), bytes)?),
        None => (0, EMPTY_BYTES + bytes > limit.max_bytes()),
    };
    if is_over || matches!(limit, NodeLimit::Entries(entries) if len + count > entries) {
        Encoding::Quicklist.store(cx, key, &LIST)?;
    }
    Ok(())
}

/// Makes a quicklist a listpack again if it has shrunk so far.
pub(super) fn note_shrinking(cx: &mut Ctx<'_>, key: &[u8]) -> Result<(), Stop> {
    note_smaller_than(cx, key, 2)
}

/// Makes a quicklist a listpack again if it has become one by an element that was replaced.
pub(super) fn note_replacement(cx: &mut Ctx<'_>, key: &[u8]) -> Result<(), Stop> {
    note_smaller_than(cx, key, 1)
}

fn note_smaller_than(cx: &mut Ctx<'_>, key: &[u8], part: u64) -> Result<(), Stop> {
    let Some(list) = find(&cx.op, cx.namespace, key, KIND_LIST)? else {
        return Ok(());
    };
    if Encoding::of(&list) != Encoding::Quicklist {
        return Ok(());
    }
    let limit = NodeLimit::now(cx);
    let is_small = match limit {
        NodeLimit::Bytes(bytes) => bytes_at_most(&list) <= bytes / part,
        NodeLimit::Entries(entries) => list.len(ELEMENTS) <= entries / part,
    };
    if is_small {
        Encoding::Listpack.store(cx, key, &LIST)?;
    }
    Ok(())
}

/// The encoding of a list that RESTORE has read.
pub(super) fn encoding_of_value(cx: &Ctx<'_>, list: &ListValue) -> Encoding {
    let limit = NodeLimit::now(cx);
    let mut bytes = EMPTY_BYTES;
    let is_one_node = match list.packing {
        Packing::Other => false,
        Packing::Whole => {
            bytes += list.elements.iter().map(entry_bytes).sum::<u64>();
            limit.allows(list.elements.len() as u64, bytes)
        }
        // As Redis decides it, when it pushes one after the other.
        Packing::Loose => (1..).zip(list.elements.iter()).all(|(count, element)| {
            let pushed = bytes + element.len() as u64 + PUSHED_BESIDE_BYTES;
            bytes += entry_bytes(element);
            limit.allows(count, if count == 1 { bytes } else { pushed })
        }),
    };
    match is_one_node {
        true => Encoding::Listpack,
        false => Encoding::Quicklist,
    }
}

/// Whether the list, as a listpack, would be longer than `limit` with `more` bytes.
fn is_over(list: &Collection<'_>, limit: u64, more: u64) -> Result<bool, Stop> {
    if bytes_at_most(list).saturating_add(more) <= limit {
        return Ok(false);
    }
    let mut bytes = EMPTY_BYTES + more;
    walk(list, |element| {
        bytes += entry_bytes(&element.value);
        Ok(())
    })?;
    Ok(bytes > limit)
}

/// Bytes that the list takes as a listpack, at most: found without looking at its elements.
fn bytes_at_most(list: &Collection<'_>) -> u64 {
    // An element of under 32 bytes takes one more in a listpack, one of 64 and more takes two or three.
    let bytes = list.bytes();
    bytes + list.len(ELEMENTS) + bytes / 16
}

/// Bytes of an element in a listpack.
fn entry_bytes(value: &[u8]) -> u64 {
    let len = value.len() as u64;
    let content = match strict_integer(value) {
        Some(0..=127) => 1,
        Some(-4096..=4095) => 2,
        Some(-0x8000..=0x7fff) => 3,
        Some(-0x80_0000..=0x7f_ffff) => 4,
        Some(-0x8000_0000..=0x7fff_ffff) => 5,
        Some(_) => 9,
        None if len < 64 => 1 + len,
        None if len < 4096 => 2 + len,
        None => 5 + len,
    };
    let behind = match content {
        0..128 => 1,
        128..16383 => 2,
        16383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    content + behind
}
