//! Entries that are pending and given to another consumer: XCLAIM, XAUTOCLAIM.
//!
//! Both first find out what is to become of which entry, and then do it, entry by entry. So what a run leaves half done
//! is gone on with by the plan that the first one has made.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::collection::check_room;
use super::parse::{SYNTAX_ERROR, strict_integer};
use super::stream::{STREAM_ROW, Stream, reply_id};
use super::stream_group::{Consumer, Group, Pending, no_group};
use super::stream_id::Id;
use super::stream_pending::PendingList;
use super::string::WRITE_FAST;
use crate::args::Args;
use crate::command::{Done, Flags, Handler, Row, Stop, tip};
use crate::ctx::Ctx;

/// Entries that XAUTOCLAIM looks at for each that it may return.
const ATTEMPTS: u64 = 10;
const COUNT_DEFAULT: u64 = 100;
const COUNT_MAX: i64 = i64::MAX / 16;

const CLAIM: Flags = WRITE_FAST.and(Flags::COUNTS_HITS).and(Flags::WAKES_NOBODY);

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "xclaim",
        tips: tip::NONDETERMINISTIC,
        arity: -6,
        flags: CLAIM,
        complexity: "O(N), N being the number of IDs given",
        summary: "Gives entries that are pending in a group to another consumer.",
        handler: Handler::Worker(xclaim),
        ..STREAM_ROW
    },
    Row {
        name: "xautoclaim",
        tips: tip::NONDETERMINISTIC,
        arity: -6,
        flags: CLAIM,
        since: "6.2.0",
        complexity: "O(N), N being the number of entries looked at",
        summary: "Gives entries that have been pending for long to another consumer.",
        handler: Handler::Worker(xautoclaim),
        ..STREAM_ROW
    },
];

/// What is to become of pending entries.
#[derive(Default)]
pub(crate) struct Claims {
    steps: Vec<(Id, Step)>,
    /// Where XAUTOCLAIM goes on.
    cursor: Id,
}

#[derive(Clone, Copy)]
enum Step {
    /// It is given to the consumer, if `former` had it from that one.
    Claim {
        pending: Pending,
        former: Option<u32>,
    },
    /// It is not in the stream any more, and is forgotten.
    Forget(Pending),
}

impl Claims {
    fn claimed(&self) -> usize {
        let is_claim = |(_, step): &&(Id, Step)| matches!(step, Step::Claim { .. });
        self.steps.iter().filter(is_claim).count()
    }

    fn forgotten(&self) -> impl Iterator<Item = Id> + Clone {
        let steps = self.steps.iter();
        steps.filter_map(|(id, step)| matches!(step, Step::Forget(_)).then_some(*id))
    }
}

/// Who claims entries, and how.
struct Claimer<'a> {
    key: &'a [u8],
    group_name: &'a [u8],
    group: Group,
    /// What it was found as.
    stored_group: Group,
    consumer_name: &'a [u8],
    consumer: Consumer,
    /// The IDs are all that is returned.
    only_ids: bool,
}

impl<'a> Claimer<'a> {
    /// The claimer that the first arguments name.
    fn find(cx: &Ctx<'_>, args: Args<'a>) -> Result<Self, Stop> {
        let (key, group_name) = (
            args.get(1).unwrap_or_default(),
            args.get(2).unwrap_or_default(),
        );
        let consumer_name = args.get(3).unwrap_or_default();
        let stream = Stream::find(&cx.op, cx.namespace, key)?;
        let group = match &stream {
            Some(stream) => Group::find(stream, group_name)?,
            None => None,
        };
        let (Some(stream), Some(group)) = (stream, group) else {
            return Err(no_group(key, group_name));
        };
        let now_ms = cx.now_ms() as i64;
        Ok(Claimer {
            key,
            group_name,
            group,
            stored_group: group,
            consumer_name,
            consumer: Consumer::find_or_new(&stream, group.number, consumer_name, now_ms)?,
            only_ids: false,
        })
    }

    /// Does what is planned, and replies about what is claimed.
    fn claim(&mut self, cx: &mut Ctx<'_>, claims: &Claims) -> Result<(), Stop> {
        if cx.progress.done == 0 {
            if claims.claimed() > 0 {
                self.consumer.active_ms = self.consumer.seen_ms;
            }
            check_room(cx, claims.steps.len(), 0)?;
            if self.group != self.stored_group {
                self.group.store(cx, self.key, self.group_name)?;
            }
            let group = self.group.number;
            self.consumer
                .store(cx, self.key, group, self.consumer_name)?;
        }
        for &(id, step) in claims.steps.iter().skip(cx.progress.done) {
            let mark = cx.reply.mark();
            if let Err(stop) = self.step(cx, id, step) {
                cx.reply.rewind(mark);
                return Err(stop);
            }
            cx.progress.done += 1;
        }
        Ok(())
    }

    fn step(&self, cx: &mut Ctx<'_>, id: Id, step: Step) -> Result<(), Stop> {
        let group = self.group.number;
        let (pending, former) = match step {
            Step::Forget(pending) => return pending.remove(cx, self.key, group, id),
            Step::Claim { pending, former } => (pending, former),
        };
        if self.only_ids {
            cx.reply.ask_for_room(&mut cx.client.allowance, 64)?;
            reply_id(cx.reply, id);
        } else if let Some(stream) = Stream::find(&cx.op, cx.namespace, self.key)? {
            stream.reply_one(id, &mut cx.client.allowance, cx.reply)?;
        }
        pending.store(cx, self.key, group, id, former)
    }
}

/// What XCLAIM is given behind the IDs.
struct ClaimOptions {
    ids: Vec<Id>,
    delivered_ms: i64,
    deliveries: Option<u64>,
    is_forced: bool,
    only_ids: bool,
    last_id: Id,
}

impl ClaimOptions {
    fn parse(args: Args<'_>, now_ms: i64) -> Result<Self, Stop> {
        let ids: Vec<_> = args.from(5).map_while(|arg| Id::parse_if(arg, 0)).collect();
        let mut options = ClaimOptions {
            delivered_ms: now_ms,
            deliveries: None,
            is_forced: false,
            only_ids: false,
            last_id: Id::MIN,
            ids,
        };
        let mut at = 5 + options.ids.len();
        while at < args.len() {
            let value = args.get(at + 1);
            let number = |value, name| {
                strict_integer(value)
                    .ok_or_else(|| format!("ERR Invalid {name} option argument for XCLAIM"))
            };
            match value {
                _ if args.is(at, "force") => {
                    options.is_forced = true;
                    at += 1;
                    continue;
                }
                _ if args.is(at, "justid") => {
                    options.only_ids = true;
                    at += 1;
                    continue;
                }
                Some(value) if args.is(at, "idle") => {
                    options.delivered_ms = now_ms.wrapping_sub(number(value, "IDLE")?);
                }
                Some(value) if args.is(at, "time") => {
                    options.delivered_ms = number(value, "TIME")?;
                }
                Some(value) if args.is(at, "retrycount") => {
                    options.deliveries = u64::try_from(number(value, "RETRYCOUNT")?).ok();
                }
                Some(value) if args.is(at, "lastid") => {
                    options.last_id = Id::parse_strict(value, 0)?;
                }
                _ => {
                    let option = super::stream_group::shown(&args[at]);
                    return Err(format!("ERR Unrecognized XCLAIM option '{option}'").into());
                }
            }
            at += 2;
        }
        // A time that cannot be is now.
        if !(0..=now_ms).contains(&options.delivered_ms) {
            options.delivered_ms = now_ms;
        }
        Ok(options)
    }
}

fn min_idle(arg: &[u8], command: &str) -> Result<i64, Stop> {
    let min_idle_ms = strict_integer(arg)
        .ok_or_else(|| format!("ERR Invalid min-idle-time argument for {command}"))?;
    Ok(min_idle_ms.max(0))
}

fn xclaim(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let mut claimer = Claimer::find(cx, args)?;
    let min_idle_ms = min_idle(&args[4], "XCLAIM")?;
    let now_ms = cx.now_ms() as i64;
    let options = ClaimOptions::parse(args, now_ms)?;
    claimer.only_ids = options.only_ids;
    claimer.group.last_id = claimer.group.last_id.max(options.last_id);
    let claims = match cx.progress.claims.take() {
        Some(claims) => claims,
        None => {
            let claims = plan_claim(cx, &claimer, &options, min_idle_ms)?;
            cx.reply.array(claims.claimed());
            claims
        }
    };
    let done = claimer.claim(cx, &claims);
    if done.is_err() {
        cx.progress.claims = Some(claims);
    }
    done
}

fn plan_claim(
    cx: &Ctx<'_>,
    claimer: &Claimer<'_>,
    options: &ClaimOptions,
    min_idle_ms: i64,
) -> Result<Claims, Stop> {
    let mut claims = Claims::default();
    let Some(stream) = Stream::find(&cx.op, cx.namespace, claimer.key)? else {
        return Ok(claims);
    };
    let group = claimer.group.number;
    let found = super::read_each(options.ids.iter(), |&id| {
        // Both are asked for, whichever is cold.
        let (pending, is_there) = (Pending::find(&stream, group, id), stream.has(id));
        Ok((pending?, is_there?))
    })?;
    let now_ms = cx.now_ms() as i64;
    // An ID that is given again meets what has become of it.
    let mut changed: HashMap<Id, Option<Pending>> = HashMap::new();
    for (&id, (pending, is_there)) in options.ids.iter().zip(found) {
        let pending = changed.get(&id).copied().unwrap_or(pending);
        if !is_there {
            if let Some(pending) = pending {
                claims.steps.push((id, Step::Forget(pending)));
                changed.insert(id, None);
            }
            continue;
        }
        let known = match pending {
            Some(pending) => {
                let idle_ms = now_ms.wrapping_sub(pending.delivered_ms);
                if min_idle_ms > 0 && idle_ms < min_idle_ms {
                    continue;
                }
                pending
            }
            None if options.is_forced => Pending {
                consumer: claimer.consumer.number,
                delivered_ms: now_ms,
                deliveries: 1,
            },
            None => continue,
        };
        let more = u64::from(!options.only_ids);
        let claimed = Pending {
            consumer: claimer.consumer.number,
            delivered_ms: options.delivered_ms,
            deliveries: options
                .deliveries
                .unwrap_or(known.deliveries.wrapping_add(more)),
        };
        let former = pending.map(|pending| pending.consumer);
        let step = Step::Claim {
            pending: claimed,
            former,
        };
        claims.steps.push((id, step));
        changed.insert(id, Some(claimed));
    }
    Ok(claims)
}

fn xautoclaim(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let min_idle_ms = min_idle(&args[4], "XAUTOCLAIM")?;
    let start = Id::interval_start(&args[5])?;
    let (mut count, mut only_ids, mut at) = (COUNT_DEFAULT, false, 6);
    while at < args.len() {
        match args.get(at + 1) {
            Some(value) if args.is(at, "count") => {
                let wanted = strict_integer(value).filter(|count| (1..=COUNT_MAX).contains(count));
                count = wanted.ok_or("ERR COUNT must be > 0")? as u64;
                at += 2;
            }
            _ if args.is(at, "justid") => {
                only_ids = true;
                at += 1;
            }
            _ => return Err(SYNTAX_ERROR.into()),
        }
    }
    let mut claimer = Claimer::find(cx, args)?;
    claimer.only_ids = only_ids;
    let claims = match cx.progress.claims.take() {
        Some(claims) => claims,
        None => {
            let claims = plan_autoclaim(cx, &claimer, start, count, min_idle_ms)?;
            cx.reply.array(3);
            reply_id(cx.reply, claims.cursor);
            cx.reply.array(claims.claimed());
            claims
        }
    };
    if let Err(stop) = claimer.claim(cx, &claims) {
        cx.progress.claims = Some(claims);
        return Err(stop);
    }
    let forgotten = claims.forgotten();
    cx.reply.array(forgotten.clone().count());
    forgotten.for_each(|id| reply_id(cx.reply, id));
    Ok(())
}

fn plan_autoclaim(
    cx: &mut Ctx<'_>,
    claimer: &Claimer<'_>,
    start: Id,
    count: u64,
    min_idle_ms: i64,
) -> Result<Claims, Stop> {
    let mut claims = Claims::default();
    let now_ms = cx.now_ms() as i64;
    let Some(stream) = Stream::find(&cx.op, cx.namespace, claimer.key)? else {
        return Ok(claims);
    };
    let memory = &mut cx.client.allowance;
    let list = PendingList {
        group: claimer.group.number,
        owner: None,
    };
    let positions = list.positions(&stream, start, Id::MAX)?;
    let (mut attempts, mut left) = (count.saturating_mul(ATTEMPTS), count);
    let more = u64::from(!claimer.only_ids);
    let mut cold = None;
    list.walk(&stream, positions, &mut |id, pending| {
        if attempts == 0 || left == 0 {
            claims.cursor = id;
            return Ok(ControlFlow::Break(()));
        }
        attempts -= 1;
        let is_there = match stream.has(id) {
            Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) => {
                cold = Some(stop);
                true
            }
            found => found?,
        };
        let is_idle = min_idle_ms == 0 || now_ms.wrapping_sub(pending.delivered_ms) >= min_idle_ms;
        let step = match is_there {
            false => Step::Forget(pending),
            true if !is_idle => return Ok(ControlFlow::Continue(())),
            true => Step::Claim {
                pending: Pending {
                    consumer: claimer.consumer.number,
                    delivered_ms: now_ms,
                    deliveries: pending.deliveries.wrapping_add(more),
                },
                former: Some(pending.consumer),
            },
        };
        if claims.steps.len() == claims.steps.capacity() {
            let bytes = 2 * claims.steps.len().max(64) * size_of::<(Id, Step)>();
            memory.ask(bytes as u64)?;
        }
        claims.steps.push((id, step));
        left -= 1;
        Ok(ControlFlow::Continue(()))
    })?;
    cold.map_or(Ok(claims), Err)
}
