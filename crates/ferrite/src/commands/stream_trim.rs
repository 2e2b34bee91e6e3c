//! Removing the oldest entries of streams: XTRIM, and the options that XADD has for it.
//!
//! Redis trims exactly, or with `~` by whole nodes, which are so many entries as `stream-node-max-entries` and
//! `stream-node-max-bytes` allow. Here pages have nothing to do with that: with `~` as many entries go as whole nodes of the
//! stream would hold if each had that number of average entries; and all of them where all may go.

use super::parse::{SYNTAX_ERROR, integer};
use super::stream::{ENTRIES, Header, STREAM_ROW, Stream};
use super::stream_id::{Id, NewId};
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, Stop, tip};
use crate::config::Settings;
use crate::ctx::Ctx;

/// So many entries are removed by one change.
const REMOVED_TOGETHER: u64 = 8 * 1024;
/// Of a node, if the settings do not limit it.
const NODE_ENTRIES: u64 = 100;
/// Nodes that `~` removes at most if no LIMIT is given, and the least and the most that this may come to.
const NODES_PER_TRIM: u64 = 100;
const LIMIT_UNLIMITED_NODES: u64 = 10_000;
const LIMIT_MAX: u64 = 1_000_000;

pub(crate) const ROWS: &[Row] = &[Row {
    name: "xtrim",
    tips: tip::NONDETERMINISTIC,
    arity: -4,
    flags: Flags::WRITE.and(Flags::WAKES_NOBODY),
    complexity: "O(N), N being the number of entries removed",
    summary: "Removes the oldest entries of a stream.",
    handler: Handler::Worker(xtrim),
    ..STREAM_ROW
}];

/// What is to stay.
#[derive(Clone, Copy)]
enum Strategy {
    MaxLen(u64),
    MinId(Id),
}

/// How a stream is to be trimmed.
#[derive(Clone, Copy)]
pub(super) struct Trim {
    strategy: Strategy,
    is_approximate: bool,
    /// The most entries to remove; none if that has not been said.
    limit: Option<u64>,
}

/// Which command has the options.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TrimOf {
    Xadd,
    Xtrim,
}

/// The options of XADD, or XTRIM, which has neither an ID nor NOMKSTREAM.
pub(super) struct TrimOptions {
    pub(super) trim: Option<Trim>,
    pub(super) makes_no_stream: bool,
    pub(super) id: NewId,
    /// The argument behind the last option.
    pub(super) end: usize,
}

impl TrimOptions {
    /// Reads the options from argument 2 on, up to the ID if there is one.
    pub(super) fn parse(args: Args<'_>, of: TrimOf) -> Result<TrimOptions, Stop> {
        let mut options = TrimOptions {
            trim: None,
            makes_no_stream: false,
            id: NewId::Auto,
            end: 2,
        };
        let (mut limit, mut at) = (None, 2);
        while at < args.len() {
            let value = args.get(at + 1);
            if of == TrimOf::Xadd && &args[at] == b"*" {
                at += 1;
                break;
            } else if let Some(value) = value
                && (args.is(at, "maxlen") || args.is(at, "minid"))
            {
                if options.trim.is_some() {
                    return Err("ERR syntax error, MAXLEN and MINID options at the same time are not compatible".into());
                }
                let behind = args.get(at + 2);
                let (is_approximate, bound) = match (value, behind) {
                    (b"~", Some(bound)) => (true, bound),
                    (b"=", Some(bound)) => (false, bound),
                    _ => (false, value),
                };
                let is_short = std::ptr::eq(bound, value);
                let strategy = match args.is(at, "maxlen") {
                    true => Strategy::MaxLen(not_negative(bound, "MAXLEN")?),
                    false => Strategy::MinId(Id::parse_strict(bound, 0)?),
                };
                options.trim = Some(Trim {
                    strategy,
                    is_approximate,
                    limit: None,
                });
                at += if is_short { 2 } else { 3 };
            } else if let Some(value) = value
                && args.is(at, "limit")
            {
                limit = Some(not_negative(value, "LIMIT")?);
                at += 2;
            } else if of == TrimOf::Xtrim {
                return Err(SYNTAX_ERROR.into());
            } else if args.is(at, "nomkstream") {
                options.makes_no_stream = true;
                at += 1;
            } else {
                options.id = NewId::parse(&args[at])?;
                at += 1;
                break;
            }
        }
        options.end = at;
        options.set_limit(limit)?;
        Ok(options)
    }

    fn set_limit(&mut self, limit: Option<u64>) -> Result<(), Stop> {
        let trim = match &mut self.trim {
            Some(trim) => trim,
            None if limit.is_some_and(|limit| limit > 0) => {
                return Err(
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy"
                        .into(),
                );
            }
            None => return Ok(()),
        };
        if limit.is_some() && !trim.is_approximate {
            return Err(
                "ERR syntax error, LIMIT cannot be used without the special ~ option".into(),
            );
        }
        trim.limit = limit;
        Ok(())
    }
}

fn not_negative(arg: &[u8], option: &str) -> Result<u64, Stop> {
    u64::try_from(integer(arg)?)
        .map_err(|_| format!("ERR The {option} argument must be >= 0.").into())
}

fn xtrim(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let options = TrimOptions::parse(args, TrimOf::Xtrim)?;
    let Some(how) = options.trim else {
        return Err("ERR syntax error, XTRIM must be called with a trimming strategy".into());
    };
    trim(cx, &args[1], how)?;
    let removed = cx.progress.count;
    cx.reply.integer(removed);
    Ok(())
}

/// Removes what is to go of the stream stored under `key`, if there is one. In `cx.progress`, `count` is then how many
/// entries that were, and `done` how many of them are gone.
pub(super) fn trim(cx: &mut Ctx<'_>, key: &[u8], how: Trim) -> Result<(), Stop> {
    if cx.progress.count == 0 {
        let Some(stream) = Stream::find(&cx.op, cx.namespace, key)? else {
            return Ok(());
        };
        let count = how.count(cx, &stream)?;
        if count == 0 {
            return Ok(());
        }
        let header = Header {
            last_id: stream.last_id()?,
            removed: stream.header.removed.wrapping_add(count),
            ..stream.header
        };
        cx.progress.count = count as i64;
        if let Err(stop) = header.store(cx, key) {
            cx.progress.count = 0;
            return Err(stop);
        }
    }
    while cx.progress.done < cx.progress.count as usize {
        let left = cx.progress.count as u64 - cx.progress.done as u64;
        let removed =
            cx.op
                .remove_range(cx.namespace, key, ENTRIES, 0, left.min(REMOVED_TOGETHER))?;
        if removed == 0 {
            break;
        }
        cx.progress.done += removed as usize;
    }
    Ok(())
}

impl Trim {
    /// How many entries are to go.
    pub(super) fn count(&self, cx: &Ctx<'_>, stream: &Stream<'_>) -> Result<u64, Stop> {
        let len = stream.len();
        let may_go = match self.strategy {
            Strategy::MaxLen(stay) => len.saturating_sub(stay),
            Strategy::MinId(least) => stream.collection.rank(ENTRIES, &least.to_bytes())?.0,
        };
        if !self.is_approximate || may_go == 0 {
            return Ok(may_go);
        }
        let (node_entries, limit) = cx.worker.settings(|settings: &Settings| {
            let node_entries = settings.stream_node_max_entries;
            let limit = match node_entries.saturating_mul(NODES_PER_TRIM) {
                0 => LIMIT_UNLIMITED_NODES,
                limit => limit.min(LIMIT_MAX),
            };
            (
                node_entries_of(settings, stream),
                self.limit.unwrap_or(limit),
            )
        });
        let limit = if limit == 0 { u64::MAX } else { limit };
        if may_go == len && len <= limit {
            return Ok(len);
        }
        Ok(may_go.min(limit) / node_entries * node_entries)
    }
}

/// How many entries a node of the stream would hold.
pub(super) fn node_entries_of(settings: &Settings, stream: &Stream<'_>) -> u64 {
    let entry_bytes = stream.collection.bytes().div_ceil(stream.len().max(1));
    let by_bytes = settings.stream_node_max_bytes / entry_bytes.max(1);
    match (
        settings.stream_node_max_entries,
        settings.stream_node_max_bytes,
    ) {
        (0, 0) => NODE_ENTRIES,
        (entries, 0) => entries,
        (0, _) => by_bytes.max(1),
        (entries, _) => entries.min(by_bytes).max(1),
    }
}
