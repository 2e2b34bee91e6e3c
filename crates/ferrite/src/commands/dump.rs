//! DUMP: a value as a payload that RESTORE takes, here or in another server.
//!
//! Of the forms that a type may have, one is written that Redis has read since 7.0, and that leaves it to the server that
//! reads it how it holds the value: elements one by one; lists in nodes as long as `list-max-listpack-size` says, for by
//! them Redis tells whether a list is a listpack. Strings are not compressed. A hash with fields that expire can only be
//! read by Redis from 7.4 on.

use std::ops::ControlFlow;

use hybridlog::{Collection, Direction, Operation, Record};

use super::collection::{ELEMENTS, walk, walk_range};
use super::dump_stream::put_stream;
use super::hash::Hash;
use super::list_encoding::NodeLimit;
use super::stream::Stream;
use super::string::STRING_ROW;
use super::zset::Zset;
use super::{KIND_HASH, KIND_LIST, KIND_SET, KIND_STREAM, KIND_STRING, KIND_ZSET};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, Stop, tip};
use crate::ctx::Ctx;
use crate::memory::Allowance;
use crate::output::Output;
use crate::rdb::envelope::{FIELD_EXPIRY_VERSION, FOOTER_BYTES, Footer, VERSION};
use crate::rdb::kind;
use crate::rdb::listpack::Builder;
use crate::rdb::write::{Sink, append_length};

pub(crate) const ROWS: &[Row] = &[Row {
    name: "dump",
    tips: tip::NONDETERMINISTIC,
    arity: 2,
    flags: Flags::READONLY,
    categories: &["keyspace"],
    group: "generic",
    since: "2.6.0",
    complexity: "O(N), N being the number of elements or bytes",
    summary: "Returns a value as RESTORE takes it.",
    handler: Handler::Worker(dump),
    ..STRING_ROW
}];

/// What comes before the elements of a value, and cannot be told before those are written.
pub(super) struct Head {
    version: u16,
    bytes: Vec<u8>,
}

impl Head {
    pub(super) fn new(kind: u8, count: u64) -> Head {
        let mut bytes = vec![kind];
        append_length(&mut bytes, count);
        Head {
            version: VERSION,
            bytes,
        }
    }
}

/// What comes after it: it goes to the reply.
pub(super) struct Body<'o> {
    reply: &'o mut Output,
    pub(super) memory: &'o mut Allowance,
}

impl Sink for Body<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.reply.ask_for_room(self.memory, bytes.len())?;
        self.reply.raw(bytes);
        Ok(())
    }
}

fn dump(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let limit = NodeLimit::now(cx);
    let Some(record) = cx.op.read(cx.namespace, &args[1])? else {
        cx.reply.null();
        return Ok(());
    };
    let kind = record.meta().kind;
    if kind == KIND_STRING {
        return dump_string(&cx.op, &mut cx.client.allowance, cx.reply, &record);
    }
    let collection = cx.op.open_collection(&record)?;
    let mark = cx.reply.mark();
    let body = &mut Body {
        reply: &mut *cx.reply,
        memory: &mut cx.client.allowance,
    };
    let head = match kind {
        KIND_HASH => put_hash(&Hash::of(collection, &cx.op), body)?,
        KIND_LIST => Some(put_list(&collection, limit, body)?),
        KIND_SET => Some(put_set(&collection, body)?),
        KIND_ZSET => Some(put_zset(&Zset::of(collection), body)?),
        KIND_STREAM => Some(put_stream(&Stream::of(collection), body)?),
        _ => return Err(format!("ERR values of type {kind} cannot be dumped").into()),
    };
    let Some(Head { version, bytes }) = head else {
        cx.reply.null();
        return Ok(());
    };
    let mut footer = Footer::new();
    footer.update(&bytes);
    footer.update(body.reply.encoded_since(mark));
    body.put(&footer.finish(version))?;
    let len = bytes.len() + body.reply.encoded_since(mark).len();
    cx.reply.insert(mark, |encoder| {
        encoder.bulk_header(len);
        encoder.raw(&bytes);
    });
    cx.reply.bulk_end();
    Ok(())
}

/// Writes a string; a large one as pieces, of which only what may change is copied.
fn dump_string(
    op: &Operation<'_>,
    memory: &mut Allowance,
    reply: &mut Output,
    record: &Record<'_>,
) -> Done {
    let mut head = vec![kind::STRING];
    let mut footer = Footer::new();
    if record.len() < Output::PIECE_MIN_BYTES {
        let value = op.value(record)?;
        head.put_string(&value)?;
        footer.update(&head);
        head.extend_from_slice(&footer.finish(VERSION));
        return reply.bulk_within(memory, &head);
    }
    let pieces = op.pieces(record, |bytes| memory.ask(bytes))?;
    append_length(&mut head, record.len());
    footer.update(&head);
    reply.bulk_header(head.len() + record.len() as usize + FOOTER_BYTES);
    reply.raw(&head);
    for piece in pieces {
        footer.update(&piece);
        reply.piece(piece);
    }
    reply.raw(&footer.finish(VERSION));
    reply.bulk_end();
    Ok(())
}

fn put_list(list: &Collection<'_>, limit: NodeLimit, body: &mut Body<'_>) -> Result<Head, Stop> {
    const LISTPACK: u64 = 2;
    let mut nodes = 0;
    let mut put = |node: Builder, body: &mut Body<'_>| {
        nodes += 1;
        body.put_length(LISTPACK)?;
        let node = node.finish();
        body.put_length(node.len() as u64)?;
        body.put(&node)
    };
    let mut node = Builder::new();
    walk(list, |element| {
        let element = &element.value;
        if node.count() > 0 && !limit.takes(&node, element) {
            put(std::mem::replace(&mut node, Builder::new()), body)?;
        }
        // A long one is alone, and copied when it is appended.
        body.memory.ask(element.len() as u64)?;
        node.push(element);
        Ok(())
    })?;
    put(node, body)?;
    Ok(Head::new(kind::LIST_QUICKLIST_2, nodes))
}

fn put_set(set: &Collection<'_>, body: &mut Body<'_>) -> Result<Head, Stop> {
    walk(set, |member| body.put_string(&member.key))?;
    Ok(Head::new(kind::SET, set.len(ELEMENTS)))
}

/// The last member comes first: in this order Redis builds a sorted set without searching it.
fn put_zset(zset: &Zset<'_>, body: &mut Body<'_>) -> Result<Head, Stop> {
    zset.walk(0..zset.len(), Direction::Backward, |member, score| {
        body.put_string(member)?;
        body.put(&score.to_le_bytes())
    })?;
    Ok(Head::new(kind::ZSET_2, zset.len()))
}

/// Fields that have expired do not count; a hash without others is none.
fn put_hash(hash: &Hash<'_>, body: &mut Body<'_>) -> Result<Option<Head>, Stop> {
    let least_ms = match hash.may_expire() {
        true => least_expiry(hash)?,
        false => None,
    };
    let mut count = 0;
    walk(&hash.collection, |field| {
        if !hash.is_live(&field) {
            return Ok(());
        }
        count += 1;
        if let Some(least_ms) = least_ms {
            let after = field.expires_at_ms.map(|at_ms| at_ms - least_ms + 1);
            body.put_length(after.unwrap_or_default())?;
        }
        body.put_string(&field.key)?;
        body.put_string(&field.value)
    })?;
    let head = match least_ms {
        None => Head::new(kind::HASH, count),
        Some(least_ms) => {
            let mut bytes = vec![kind::HASH_METADATA];
            bytes.extend_from_slice(&least_ms.to_le_bytes());
            append_length(&mut bytes, count);
            Head {
                version: FIELD_EXPIRY_VERSION,
                bytes,
            }
        }
    };
    Ok((count > 0).then_some(head))
}

/// When the first of the fields that have not expired does so; none if none ever does.
fn least_expiry(hash: &Hash<'_>) -> Result<Option<u64>, Stop> {
    let mut least_ms = None;
    let all = 0..hash.len();
    walk_range(
        &hash.collection,
        ELEMENTS,
        all,
        Direction::Forward,
        |field| {
            if hash.is_live(&field) {
                least_ms = least_ms.into_iter().chain(field.expires_at_ms).min();
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(least_ms)
}
