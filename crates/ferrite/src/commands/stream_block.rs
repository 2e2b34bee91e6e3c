//! Streams: waiting for entries: XREAD and XREADGROUP with BLOCK.
//!
//! What waits are the arguments of the command, with the IDs that `$` stood for when it came. When one of its streams has got
//! an entry, it reads those that the operation which has added it may have changed: in others it would find nothing.
//! Who reads in the name of a group is told as well when the group, or the stream, has gone.

use tokio::time::{Duration, Instant};

use super::KIND_STREAM;
use super::read_each;
use super::stream::Stream;
use super::stream_deliver::deliver_new;
use super::stream_id::Id;
use super::stream_read::{ReadOptions, read};
use crate::args::{Args, OwnedArgs};
use crate::blocking::{Request, Served, block, may_block};
use crate::command::{Done, Stop};
use crate::ctx::Ctx;

/// What an argument takes beside its bytes, at most; and the ID that takes its place.
const ARGUMENT_BYTES: usize = 128;

/// Entries that a client waits for.
struct AwaitedEntries {
    args: OwnedArgs,
    of_group: bool,
}

impl Request for AwaitedEntries {
    fn kind(&self) -> u8 {
        KIND_STREAM
    }

    fn on_removal(&self) -> bool {
        self.of_group
    }

    fn serve(&self, cx: &mut Ctx<'_>, _key: &[u8]) -> Result<Served, Stop> {
        let args = self.args.as_args();
        let options = ReadOptions::parse(args, self.of_group, cx.now_ms())?;
        let mut streams = options.numbers();
        streams.retain(|stream| {
            let (key, _) = options.stream(args, *stream);
            cx.op.is_latched_exclusively(cx.namespace, key)
        });
        let is_served = match self.of_group {
            true => deliver_new(cx, &options, args, &streams)?,
            false => read(cx, &options, args, &streams)?,
        };
        Ok(if is_served {
            Served::Yes
        } else {
            Served::NotYet
        })
    }

    fn args(&self) -> Option<Args<'_>> {
        Some(self.args.as_args())
    }
}

/// There is nothing to read: the client begins to wait for it, or is told so.
pub(super) fn wait_for_entries(
    cx: &mut Ctx<'_>,
    options: &ReadOptions<'_>,
    args: Args<'_>,
) -> Done {
    let Some(timeout_ms) = options.block_ms.filter(|_| may_block(cx)) else {
        cx.reply.null_array();
        return Ok(());
    };
    let bytes = args.total_bytes() + args.len() * ARGUMENT_BYTES;
    cx.client.allowance.ask(bytes as u64)?;
    let awaited = AwaitedEntries {
        args: with_ids(cx, options, args)?,
        of_group: options.group.is_some(),
    };
    let keys = args.range(options.first..options.first + options.streams);
    let deadline = match timeout_ms {
        0 => None,
        // A time beyond what the clock can tell is never reached either.
        _ => Instant::now().checked_add(Duration::from_millis(timeout_ms)),
    };
    block(cx, Box::new(awaited), keys.from(0), deadline)
}

/// The arguments, with the last IDs of those streams of which it is the next that is asked for.
fn with_ids(cx: &Ctx<'_>, options: &ReadOptions<'_>, args: Args<'_>) -> Result<OwnedArgs, Stop> {
    let mut owned = OwnedArgs::default();
    let first_id = options.first + options.streams;
    args.range(0..first_id)
        .from(0)
        .for_each(|arg| owned.push(arg));
    let ids = read_each(0..options.streams, |stream| {
        match options.stream(args, stream) {
            (key, b"$" | b"+") => {
                let stream = Stream::find(&cx.op, cx.namespace, key)?;
                let last_id = stream.map_or(Ok(Id::MIN), |stream| stream.last_id())?;
                Ok(last_id.to_string().into_bytes())
            }
            (_, id) => Ok(id.to_vec()),
        }
    })?;
    ids.iter().for_each(|id| owned.push(id));
    Ok(owned)
}
