//! MEMORY: what memory is used for.

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, tip};
use crate::commands::help::reply_help;
use crate::commands::object::value_bytes;
use crate::commands::parse::{SYNTAX_ERROR, integer};
use crate::ctx::Ctx;
use crate::server::Server;
use crate::usage;

/// What a key costs besides the bytes of its name and value: a record's header, with an expiry, and its share of the
/// index.
const RECORD_HEADER_BYTES: u64 = 16;
const EXPIRY_BYTES: u64 = 8;
const INDEX_BYTES_PER_KEY: u64 = 12;

const PLAIN: Flags = Flags::NONE;

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[Row {
    subcommands: &[
        row(
            "doctor",
            2,
            PLAIN,
            "O(1)",
            "Returns a report about memory in words.",
            doctor,
        )
        .with_tips(tip::ALL_SHARDS_SPECIAL),
        row(
            "help",
            2,
            Flags::LOADING.and(Flags::STALE),
            "O(1)",
            "Returns helpful text about the different subcommands.",
            help,
        ),
        row(
            "malloc-stats",
            2,
            PLAIN,
            "O(1)",
            "Returns statistics of the memory allocator.",
            malloc_stats,
        )
        .with_tips(tip::ALL_SHARDS_SPECIAL),
        row(
            "purge",
            2,
            PLAIN,
            "O(1)",
            "Asks the memory allocator to give memory back.",
            purge,
        )
        .with_tips(tip::ALL_SHARDS_SUCCEED),
        row(
            "stats",
            2,
            PLAIN,
            "O(N) where N is the number of clients",
            "Returns what memory is used for.",
            stats,
        )
        .with_tips(tip::ALL_SHARDS_SPECIAL),
        Row {
            keys: Keys::Range {
                first: 2,
                last: 2,
                step: 1,
            },
            ..row(
                "usage",
                -3,
                Flags::READONLY,
                "O(1)",
                "Estimates what a key costs.",
                usage,
            )
        },
    ],
    handler: Handler::Container,
    ..row(
        "memory",
        -2,
        PLAIN,
        "Depends on subcommand.",
        "A container for memory diagnostics commands.",
        usage,
    )
}];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    complexity: &'static str,
    summary: &'static str,
    handler: fn(&mut Ctx<'_>, Args<'_>) -> Done,
) -> Row {
    Row {
        name,
        arity,
        flags,
        since: "4.0.0",
        complexity,
        summary,
        handler: Handler::Worker(handler),
        ..Row::SERVER
    }
}

fn usage(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    // Nothing is sampled: the size of a collection is known.
    match args.len() {
        3 => {}
        5 if args.is(3, "samples") => {
            if integer(&args[4])? < 0 {
                return Err(SYNTAX_ERROR.into());
            }
        }
        _ => return Err(SYNTAX_ERROR.into()),
    }
    match cx.op.read(cx.namespace, &args[2])? {
        None => cx.reply.null(),
        Some(record) => {
            let expiry_bytes = record.meta().expires_at_ms.map_or(0, |_| EXPIRY_BYTES);
            let value_bytes = value_bytes(&cx.op, &record)?;
            let record_bytes =
                RECORD_HEADER_BYTES + expiry_bytes + args[2].len() as u64 + value_bytes;
            cx.reply
                .integer((record_bytes.next_multiple_of(8) + INDEX_BYTES_PER_KEY) as i64);
        }
    }
    Ok(())
}

fn purge(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply.ok();
    Ok(())
}

fn malloc_stats(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.reply
        .bulk(b"Stats not supported for the current allocator");
    Ok(())
}

fn doctor(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let figures = Figures::now(cx.server);
    let maxmemory_bytes = cx.server.config.settings().maxmemory_bytes;
    let mut report = format!(
        "{} bytes are in use, of which {} are no data; maxmemory allows {maxmemory_bytes}.\n",
        figures.used_bytes,
        figures.overhead_bytes()
    );
    if figures.clients_bytes > maxmemory_bytes / 10 {
        report.push_str("- The buffers of clients take over a tenth of it: CLIENT LIST shows which (tot-mem).\n");
    }
    if figures.peak_bytes > figures.used_bytes / 2 * 3 {
        report.push_str("- There has been a peak of over one and a half times as much.\n");
    }
    cx.reply.verbatim("txt", report.as_bytes());
    Ok(())
}

/// A value of MEMORY STATS.
enum Figure {
    Bytes(u64),
    Ratio(f64),
}

fn stats(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    use Figure::{Bytes, Ratio};
    let figures = Figures::now(cx.server);
    let fragmentation_bytes = figures.fragmentation_bytes().unsigned_abs();
    let fields = [
        ("peak.allocated", Bytes(figures.peak_bytes)),
        ("total.allocated", Bytes(figures.used_bytes)),
        ("startup.allocated", Bytes(0)),
        ("replication.backlog", Bytes(0)),
        ("clients.slaves", Bytes(0)),
        ("clients.normal", Bytes(figures.clients_bytes)),
        ("cluster.links", Bytes(0)),
        ("aof.buffer", Bytes(0)),
        ("lua.caches", Bytes(0)),
        ("functions.caches", Bytes(0)),
        ("overhead.total", Bytes(figures.overhead_bytes())),
        ("keys.count", Bytes(figures.keys)),
        (
            "keys.bytes-per-key",
            Bytes(figures.dataset_bytes() / figures.keys.max(1)),
        ),
        ("dataset.bytes", Bytes(figures.dataset_bytes())),
        ("dataset.percentage", Ratio(figures.dataset_percent())),
        ("peak.percentage", Ratio(figures.peak_percent())),
        ("allocator.allocated", Bytes(figures.used_bytes)),
        ("allocator.active", Bytes(figures.system.resident_bytes)),
        ("allocator.resident", Bytes(figures.system.resident_bytes)),
        ("allocator-fragmentation.ratio", Ratio(1.0)),
        ("allocator-fragmentation.bytes", Bytes(0)),
        ("allocator-rss.ratio", Ratio(1.0)),
        ("allocator-rss.bytes", Bytes(0)),
        ("rss-overhead.ratio", Ratio(1.0)),
        ("rss-overhead.bytes", Bytes(0)),
        ("fragmentation", Ratio(figures.fragmentation_ratio())),
        ("fragmentation.bytes", Bytes(fragmentation_bytes)),
    ];
    cx.reply.map(fields.len());
    for (name, figure) in fields {
        cx.reply.bulk(name.as_bytes());
        match figure {
            Bytes(bytes) => cx.reply.integer(bytes as i64),
            Ratio(ratio) => cx.reply.double(ratio),
        }
    }
    Ok(())
}

fn help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "MEMORY",
        &[
            "DOCTOR",
            "    Return a report in words.",
            "MALLOC-STATS",
            "    Return statistics of the memory allocator.",
            "PURGE",
            "    Ask the memory allocator to give memory back.",
            "STATS",
            "    Return what memory is used for.",
            "USAGE <key> [SAMPLES <count>]",
            "    Return the bytes that a key with its value takes, in whichever tier.",
        ],
    );
    Ok(())
}

/// Figures about memory, in bytes.
pub(crate) struct Figures {
    pub(crate) system: usage::Memory,
    /// What counts against `maxmemory`.
    pub(crate) used_bytes: u64,
    pub(crate) peak_bytes: u64,
    /// Of it, what finds the records.
    index_bytes: u64,
    /// Buffers of clients.
    pub(crate) clients_bytes: u64,
    pub(crate) keys: u64,
}

impl Figures {
    pub(crate) fn now(server: &Server) -> Figures {
        let system = usage::Memory::now();
        let store = server.store.stats();
        let segments = store.mutable_segments + store.warm_segments;
        let clients_bytes = server
            .clients
            .all()
            .iter()
            .map(|entry| entry.memory_bytes())
            .sum::<u64>();
        let used_bytes = segments * store.segment_bytes + store.index_bytes + clients_bytes;
        let databases = 0..server.databases.count();
        Figures {
            used_bytes,
            peak_bytes: system.resident_peak_bytes.max(used_bytes),
            clients_bytes,
            index_bytes: store.index_bytes,
            keys: databases
                .map(|database| server.store.len(server.databases.namespace(database)))
                .sum(),
            system,
        }
    }

    /// What is no data: the index, and the buffers of clients.
    pub(crate) fn overhead_bytes(&self) -> u64 {
        self.index_bytes + self.clients_bytes
    }

    pub(crate) fn dataset_bytes(&self) -> u64 {
        self.used_bytes.saturating_sub(self.overhead_bytes())
    }

    pub(crate) fn dataset_percent(&self) -> f64 {
        percent(self.dataset_bytes(), self.used_bytes)
    }

    pub(crate) fn peak_percent(&self) -> f64 {
        percent(self.used_bytes, self.peak_bytes)
    }

    pub(crate) fn fragmentation_ratio(&self) -> f64 {
        self.system.resident_bytes as f64 / self.used_bytes.max(1) as f64
    }

    pub(crate) fn fragmentation_bytes(&self) -> i64 {
        self.system.resident_bytes as i64 - self.used_bytes as i64
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}
