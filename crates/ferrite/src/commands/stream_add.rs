//! Adding entries to streams: XADD.

use super::collection::check_room;
use super::stream::{ENTRIES, STREAM, STREAM_ROW, Stream, Strings, reply_id};
use super::stream_id::{Id, NewId};
use super::stream_trim::{TrimOf, TrimOptions, trim};
use super::string::GROW_FAST;
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop, tip};
use crate::ctx::Ctx;

pub(crate) const ROWS: &[Row] = &[Row {
    name: "xadd",
    tips: tip::NONDETERMINISTIC,
    arity: -5,
    flags: GROW_FAST,
    complexity: "O(1) for the entry, O(N) for N entries that are trimmed",
    summary: "Adds an entry to a stream, and trims it.",
    handler: Handler::Worker(xadd),
    ..STREAM_ROW
}];

fn xadd(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let options = TrimOptions::parse(args, TrimOf::Xadd)?;
    let fields = args.from(options.end);
    if fields.len() < 2 || !fields.len().is_multiple_of(2) {
        return Err("ERR wrong number of arguments for 'xadd' command".into());
    }
    if options.id == NewId::Given(Id::MIN) {
        return Err("ERR The ID specified in XADD must be greater than 0-0".into());
    }
    let key = &args[1];
    let stream = Stream::find(&cx.op, cx.namespace, key)?;
    if stream.is_none() && options.makes_no_stream {
        cx.reply.null();
        return Ok(());
    }
    let last_id = match &stream {
        Some(stream) => stream.last_id()?,
        None => Id::MIN,
    };
    // An entry that an earlier run has added is the last.
    let id = match cx.progress.has_begun {
        true => last_id,
        false => next_id(options.id, last_id, cx.now_ms())?,
    };
    if !cx.progress.has_begun {
        if let (Some(stream), Some(_)) = (&stream, options.trim) {
            // Where it is trimmed is read as well.
            stream.first_id()?;
        }
        let bytes: usize = fields.clone().map(<[u8]>::len).sum();
        cx.client.allowance.ask(bytes as u64)?;
        let value = Strings::store(fields);
        cx.op.check_element(key, (Id::BYTES + value.len()) as u64)?;
        check_room(cx, 1, value.len())?;
        cx.op.put_element(
            cx.namespace,
            key,
            &STREAM,
            ENTRIES,
            &id.to_bytes(),
            &value,
            None,
        )?;
    }
    if let Some(how) = options.trim {
        trim(cx, key, how)?;
    }
    reply_id(cx.reply, id);
    Ok(())
}

/// The ID of an entry that is added behind `last`.
fn next_id(wanted: NewId, last: Id, now_ms: u64) -> Result<Id, Stop> {
    if last == Id::MAX {
        return Err(
            "ERR The stream has exhausted the last possible ID, unable to add more items".into(),
        );
    }
    let id = match wanted {
        NewId::Given(id) => Some(id),
        NewId::Auto if now_ms > last.ms => Some(Id {
            ms: now_ms,
            sequence: 0,
        }),
        NewId::Auto => last.next(),
        NewId::AutoSequence(ms) if ms == last.ms => last.next().filter(|next| next.ms == ms),
        NewId::AutoSequence(ms) => Some(Id { ms, sequence: 0 }),
    };
    id.filter(|id| *id > last).ok_or(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item".into(),
    )
}
