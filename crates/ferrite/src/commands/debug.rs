//! DEBUG: looks inside and makes rare situations happen, for tests and experts. Refused unless
//! `enable-debug-command` allows it.

use std::time::Duration;

use hybridlog::{KeyRef, LatchMode, Meta, Tier};
use resp::Protocol;

use crate::args::Args;
use crate::client::After;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::commands::debug_digest::Digest;
use crate::commands::generic_keys::NO_SUCH_KEY;
use crate::commands::help::{reply_help, unknown_or_wrong_number};
use crate::commands::object::{encoding, value_bytes};
use crate::commands::parse::strict_integer;
use crate::commands::persistence::cannot_save;
use crate::commands::{KIND_STRING, read_each};
use crate::ctx::{Ctx, SlowCtx};

const NOT_POSITIVE: &str = "ERR value is out of range, must be positive";
/// Longest value DEBUG POPULATE makes, as in Redis's `proto-max-bulk-len`.
const VALUE_MAX_BYTES: usize = 512 << 20;
/// Longest key DEBUG POPULATE makes; Redis formats them in a buffer of 128 bytes.
const POPULATE_KEY_MAX_BYTES: usize = 127;

/// Flags that every row here has.
const FLAGS: Flags = Flags::ADMIN
    .and(Flags::NOSCRIPT)
    .and(Flags::LOADING)
    .and(Flags::STALE)
    .and(Flags::PROTECTED);

/// Redis counts the arguments of DEBUG's subcommands itself and has one error for wrong names and
/// wrong numbers, so the rows allow any number and the handlers look.
const SUBCOMMAND: Row = Row {
    name: "",
    arity: -2,
    flags: FLAGS,
    keys: Keys::None,
    categories: &[],
    group: "server",
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    handler: Handler::Container,
    subcommands: &[],
    tips: &[],
};

pub(crate) const ROWS: &[Row] = &[Row {
    name: "debug",
    complexity: "Depends on subcommand.",
    summary: "A container for commands that test and inspect the server.",
    handler: Handler::Worker(unknown),
    subcommands: &[
        Row {
            name: "digest",
            complexity: "O(N) for N bytes of data",
            summary: "Computes a fingerprint of all data.",
            handler: Handler::Slow(digest),
            ..SUBCOMMAND
        },
        Row {
            name: "digest-value",
            keys: Keys::Range {
                first: 2,
                last: -1,
                step: 1,
            },
            complexity: "O(N) for N bytes of values",
            summary: "Computes fingerprints of values.",
            handler: Handler::Worker(digest_value),
            ..SUBCOMMAND
        },
        Row {
            name: "error",
            summary: "Replies an error of the client's choice.",
            handler: Handler::Worker(error),
            ..SUBCOMMAND
        },
        Row {
            name: "force-cold",
            complexity: "O(N) for N bytes in memory",
            summary: "Moves everything in memory to the cold tier.",
            handler: Handler::Slow(force_cold),
            ..SUBCOMMAND
        },
        Row {
            name: "force-warm",
            complexity: "O(N) for N bytes in the hot tier",
            summary: "Moves everything in the hot tier to the warm tier.",
            handler: Handler::Slow(force_warm),
            ..SUBCOMMAND
        },
        Row {
            name: "help",
            summary: "Lists the subcommands.",
            handler: Handler::Worker(help),
            ..SUBCOMMAND
        },
        Row {
            name: "loadaof",
            flags: FLAGS.and(Flags::NO_MULTI),
            complexity: "O(N) for N bytes in memory",
            summary: "Lets everything leave memory, so that what is read comes from the files.",
            handler: Handler::Slow(reload),
            ..SUBCOMMAND
        },
        Row {
            name: "object",
            keys: Keys::Range {
                first: 2,
                last: 2,
                step: 1,
            },
            summary: "Tells how a value is held.",
            handler: Handler::Worker(object),
            ..SUBCOMMAND
        },
        Row {
            name: "populate",
            complexity: "O(N) for N keys",
            summary: "Creates keys with values.",
            handler: Handler::Slow(populate),
            ..SUBCOMMAND
        },
        Row {
            name: "protocol",
            summary: "Replies a value of one type of the protocol.",
            handler: Handler::Worker(protocol),
            ..SUBCOMMAND
        },
        Row {
            name: "reload",
            flags: FLAGS.and(Flags::NO_MULTI),
            complexity: "O(N) for N bytes in memory",
            summary: "Makes a checkpoint and lets everything leave memory, so that what is read comes from the files.",
            handler: Handler::Slow(save_and_reload),
            ..SUBCOMMAND
        },
        Row {
            name: "set-active-expire",
            summary: "Switches the removal of expired keys that nobody asks for.",
            handler: Handler::Worker(set_active_expire),
            ..SUBCOMMAND
        },
        Row {
            name: "sleep",
            summary: "Lets the client wait for the reply.",
            handler: Handler::Worker(sleep),
            ..SUBCOMMAND
        },
        Row {
            name: "tier",
            keys: Keys::Range {
                first: 2,
                last: 2,
                step: 1,
            },
            summary: "Tells in which tier a key's record lies.",
            handler: Handler::Worker(tier),
            ..SUBCOMMAND
        },
    ],
    ..SUBCOMMAND
}];

fn unknown(_cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    Err(unknown_or_wrong_number("DEBUG", args))
}

fn check_arguments(args: Args<'_>, correct: bool) -> Result<(), Stop> {
    if correct {
        Ok(())
    } else {
        Err(unknown_or_wrong_number("DEBUG", args))
    }
}

fn digest(cx: &mut SlowCtx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 2)?;
    let digest = Digest::of_everything(cx)?;
    cx.reply.simple(&digest.to_string());
    Ok(())
}

fn digest_value(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    cx.reply.array(args.len() - 2);
    read_each(args.from(2), |key| {
        let digest = Digest::of_value(&cx.op, cx.namespace, key)?;
        cx.reply.simple(&digest.to_string());
        Ok(())
    })?;
    Ok(())
}

fn error(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 3)?;
    // Not `Err`: the text is the client's own, need not be UTF-8, and counts as no command's error.
    let one_line = args[2].iter().map(|&byte| {
        if matches!(byte, b'\r' | b'\n') {
            b' '
        } else {
            byte
        }
    });
    let line: Vec<u8> = b"-"
        .iter()
        .copied()
        .chain(one_line)
        .chain(*b"\r\n")
        .collect();
    cx.reply.raw(&line);
    Ok(())
}

fn force_cold(cx: &mut SlowCtx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 2)?;
    cx.store.force_cold()?;
    cx.reply.ok();
    Ok(())
}

fn force_warm(cx: &mut SlowCtx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 2)?;
    cx.store.seal_all()?;
    cx.reply.ok();
    Ok(())
}

/// DEBUG RELOAD. With MERGE and NOFLUSH Redis keeps what is in memory, which is what it reads back here; with NOSAVE it
/// does not save first.
fn save_and_reload(cx: &mut SlowCtx<'_>, args: Args<'_>) -> Done {
    let mut saves = true;
    for i in 2..args.len() {
        if args.is(i, "nosave") {
            saves = false;
        } else if !args.is(i, "merge") && !args.is(i, "noflush") {
            return Err(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.".into(),
            );
        }
    }
    // A checkpoint waits for the transaction that this is part of, so it cannot be waited for in there.
    let saves = saves && cx.transaction.is_none();
    if saves {
        cx.server
            .store
            .checkpoint()
            .map_err(|why| cannot_save(&why))?;
    }
    reload(cx, args)
}

fn reload(cx: &mut SlowCtx<'_>, _args: Args<'_>) -> Done {
    cx.store.force_cold()?;
    cx.reply.ok();
    Ok(())
}

fn object(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 3)?;
    let Some(record) = cx.op.read(cx.namespace, &args[2])? else {
        return Err(NO_SUCH_KEY.into());
    };
    let encoding = encoding(&cx.op, &record)?;
    let number = if encoding == "int" {
        strict_integer(&cx.op.value(&record)?)
    } else {
        None
    };
    let serialized_bytes = serialized_bytes(value_bytes(&cx.op, &record)?, number);
    // The address means nothing to a client and would differ from run to run.
    cx.reply.simple(&format!(
        "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{serialized_bytes} lru:0 \
         lru_seconds_idle:0"
    ));
    Ok(())
}

/// Bytes that a string takes in an RDB file without compression: a header and the bytes, or for a
/// small number the number. A collection is taken for a string of all it holds.
fn serialized_bytes(len: u64, number: Option<i64>) -> u64 {
    match number {
        Some(number) if i8::try_from(number).is_ok() => 2,
        Some(number) if i16::try_from(number).is_ok() => 3,
        Some(number) if i32::try_from(number).is_ok() => 5,
        _ => match len {
            0..0x40 => 1 + len,
            0x40..0x4000 => 2 + len,
            _ => 5 + len,
        },
    }
}

fn populate(cx: &mut SlowCtx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, (3..=5).contains(&args.len()))?;
    let count = positive(&args[2])?;
    let prefix = args.get(3).unwrap_or(b"key");
    let size = match args.get(4) {
        Some(size) => usize::try_from(positive(size)?).unwrap_or(usize::MAX),
        None => 0,
    };
    if size > VALUE_MAX_BYTES {
        return Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".into());
    }
    let meta = Meta {
        kind: KIND_STRING,
        expires_at_ms: None,
    };
    let namespace = cx.namespace;
    for number in 0..count {
        let mut key = [prefix, format!(":{number}").as_bytes()].concat();
        key.truncate(POPULATE_KEY_MAX_BYTES);
        let mut value = format!("value:{number}").into_bytes();
        if size > 0 {
            value.resize(size, 0);
        }
        let latch = KeyRef {
            namespace,
            key: &key,
            mode: LatchMode::Exclusive,
        };
        // It may take long: what would refuse a SET meanwhile ends it.
        if let Some(refusal) = cx.server.persistence.refusal() {
            return Err(refusal.into());
        }
        cx.step(&[latch], |op| {
            if op.read(namespace, &key)?.is_none() {
                op.set(namespace, &key, &value, meta)?;
            }
            Ok(())
        })?;
    }
    cx.reply.ok();
    Ok(())
}

fn positive(arg: &[u8]) -> Result<i64, Stop> {
    strict_integer(arg)
        .filter(|&number| number >= 0)
        .ok_or(NOT_POSITIVE.into())
}

fn protocol(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 3)?;
    let reply = &mut *cx.reply;
    match args[2].to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        // 3.141 as Redis writes it, which is no attempt at pi.
        b"double" => reply.double(3141.0 / 1000.0),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"attrib" => {
            if reply.protocol() == Protocol::Resp3 {
                reply.attribute(1);
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if reply.protocol() == Protocol::Resp2 {
                return Err("ERR RESP2 is not supported by this command".into());
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            reply.bulk(b"Some real reply following the push reply");
        }
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        b"verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        b"bignum" => reply.big_number("1234567999999999999999999999999999999"),
        _ => {
            return Err(
                "ERR Wrong protocol type name. Please use one of the following: \
                string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false"
                    .into(),
            );
        }
    }
    Ok(())
}

fn set_active_expire(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 3)?;
    let on = strict_integer(&args[2]).is_some_and(|number| number != 0);
    cx.server.set_active_expire(on);
    cx.reply.ok();
    Ok(())
}

fn sleep(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 3)?;
    let seconds = std::str::from_utf8(&args[2])
        .ok()
        .and_then(|text| text.parse().ok());
    let time = Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default();
    cx.client.after = After::Sleep(time);
    cx.reply.ok();
    Ok(())
}

fn tier(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 3)?;
    match cx
        .op
        .read(cx.namespace, &args[2])?
        .map(|record| record.tier())
    {
        Some(Tier::Hot) => cx.reply.simple("hot"),
        Some(Tier::Warm) => cx.reply.simple("warm"),
        Some(Tier::Cold) => cx.reply.simple("cold"),
        None => cx.reply.null(),
    }
    Ok(())
}

fn help(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    check_arguments(args, args.len() == 2)?;
    reply_help(
        cx.reply,
        "DEBUG",
        &[
            "DIGEST",
            "    Compute a fingerprint of all data.",
            "DIGEST-VALUE <key> [<key> ...]",
            "    Compute fingerprints of the values of the keys.",
            "ERROR <string>",
            "    Reply <string> as an error.",
            "FORCE-COLD",
            "    Move everything in memory to the cold tier.",
            "FORCE-WARM",
            "    Move everything in the hot tier to the warm tier.",
            "LOADAOF",
            "    Let everything leave memory, so that what is read comes from the files.",
            "OBJECT <key>",
            "    Tell how the value of <key> is held.",
            "POPULATE <count> [<prefix>] [<size>]",
            "    Create <count> strings named key:<number>, or <prefix>:<number>.",
            "PROTOCOL <type>",
            "    Reply a value of one type: string, integer, double, bignum, null, array, set,",
            "    map, attrib, push, verbatim, true, false.",
            "RELOAD [MERGE | NOFLUSH | NOSAVE]",
            "    Make a checkpoint, then as LOADAOF. NOSAVE leaves out the checkpoint.",
            "SET-ACTIVE-EXPIRE <0|1>",
            "    Switch the removal of expired keys that nobody asks for.",
            "SLEEP <seconds>",
            "    Let this client wait for the reply. Decimals allowed.",
            "TIER <key>",
            "    Tell in which tier the record of <key> lies: hot, warm or cold.",
        ],
    );
    Ok(())
}
