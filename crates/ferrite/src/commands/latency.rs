//! LATENCY: the events that took longer than `latency-monitor-threshold` (see [`latency`](crate::latency)), and
//! histograms of what commands took.

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, tip};
use crate::commands::help::reply_help;
use crate::ctx::Ctx;
use crate::latency::{Event, Sample};
use crate::output::Output;
use crate::server::unix_ms;
use crate::stats::CommandTotals;
use crate::table::Command;

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE);
const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(ANY_TIME);

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "latency",
    arity: -2,
    flags: Flags::NONE,
    keys: Keys::None,
    categories: &[],
    group: "server",
    since: "2.8.13",
    complexity: "Depends on subcommand.",
    summary: "A container for latency diagnostics commands.",
    handler: Handler::Container,
    tips: &[],
    subcommands: &[
        row(
            "doctor",
            2,
            ADMIN,
            "2.8.13",
            "Returns a report about latency in words.",
            doctor,
        )
        .with_tips(tip::ALL_NODES_SPECIAL),
        row(
            "graph",
            3,
            ADMIN,
            "2.8.13",
            "Returns a graph of the latest samples of an event.",
            graph,
        )
        .with_tips(tip::ALL_NODES_SPECIAL),
        row(
            "help",
            2,
            ANY_TIME,
            "2.8.13",
            "Returns helpful text about the different subcommands.",
            help,
        ),
        row(
            "histogram",
            -2,
            ADMIN,
            "7.0.0",
            "Returns how often commands took how long.",
            histogram,
        )
        .with_tips(tip::ALL_NODES_SPECIAL),
        row(
            "history",
            3,
            ADMIN,
            "2.8.13",
            "Returns the samples of an event.",
            history,
        )
        .with_tips(tip::ALL_NODES_SPECIAL),
        row(
            "latest",
            2,
            ADMIN,
            "2.8.13",
            "Returns the latest sample of every event.",
            latest,
        )
        .with_tips(tip::ALL_NODES_SPECIAL),
        row("reset", -2, ADMIN, "2.8.13", "Forgets events.", reset).with_tips(tip::ALL_NODES_SUM),
    ],
}];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    since: &'static str,
    summary: &'static str,
    handler: fn(&mut Ctx<'_>, Args<'_>) -> Done,
) -> Row {
    Row {
        name,
        arity,
        flags,
        since,
        complexity: "O(1), of HISTOGRAM O(N) where N is the number of commands",
        summary,
        handler: Handler::Worker(handler),
        ..Row::SERVER
    }
}

fn latest(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let events = cx.server.latency.events();
    cx.reply.array(events.len());
    for (name, event) in &events {
        let latest = latest_of(event);
        cx.reply.array(4);
        cx.reply.bulk(name.as_bytes());
        cx.reply.integer(latest.unix_seconds as i64);
        cx.reply.integer(latest.latency_ms as i64);
        cx.reply.integer(event.max_ms as i64);
    }
    Ok(())
}

fn latest_of(event: &Event) -> Sample {
    *event.samples.back().expect("an event begins with a sample")
}

fn history(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let samples = cx
        .server
        .latency
        .event(&args[2])
        .unwrap_or_default()
        .samples;
    cx.reply.array(samples.len());
    for sample in &samples {
        cx.reply.array(2);
        cx.reply.integer(sample.unix_seconds as i64);
        cx.reply.integer(sample.latency_ms as i64);
    }
    Ok(())
}

fn reset(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let named =
        |name: &str| args.len() == 2 || args.from(2).any(|wanted| wanted == name.as_bytes());
    let forgotten = cx.server.latency.reset(named);
    cx.reply.integer(forgotten as i64);
    Ok(())
}

/// Rows of the graph above its time axis.
const GRAPH_ROWS: u64 = 4;
/// The latest samples that fit on a terminal's line.
const GRAPH_COLUMNS: usize = 70;

fn graph(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let Some(event) = cx.server.latency.event(&args[2]) else {
        let name = String::from_utf8_lossy(&args[2]);
        return Err(format!("ERR No samples available for event '{name}'").into());
    };
    let text = draw(&String::from_utf8_lossy(&args[2]), &event, unix_ms() / 1000);
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// A column for each of the latest samples: its height shows the latency, the letters below how long ago it was.
fn draw(name: &str, event: &Event, now_seconds: u64) -> String {
    let skipped = event.samples.len().saturating_sub(GRAPH_COLUMNS);
    let samples: Vec<Sample> = event.samples.iter().skip(skipped).copied().collect();
    let low = samples
        .iter()
        .map(|sample| sample.latency_ms)
        .min()
        .unwrap_or(0);
    let high = samples
        .iter()
        .map(|sample| sample.latency_ms)
        .max()
        .unwrap_or(0);
    let mut text = format!(
        "{name} - high {high} ms, low {low} ms (all time high {} ms)\n",
        event.max_ms
    );
    text.push_str(&"-".repeat(80));
    text.push('\n');
    let span = (high - low).max(1);
    for row in (0..GRAPH_ROWS).rev() {
        text.extend(samples.iter().map(|sample| {
            // Eighths of a row that the column fills; the lowest sample still shows.
            let filled = ((sample.latency_ms - low) * (GRAPH_ROWS * 8 - 1) / span + 1)
                .saturating_sub(row * 8);
            [' ', '.', '.', ':', ':', '|', '|', '#', '#'][filled.min(8) as usize]
        }));
        text.push('\n');
    }
    text.push('\n');
    let ages: Vec<_> = samples
        .iter()
        .map(|sample| age(now_seconds.saturating_sub(sample.unix_seconds)))
        .collect();
    let longest = ages.iter().map(String::len).max().unwrap_or(0);
    for line in 0..longest {
        text.extend(ages.iter().map(|age| {
            age.as_bytes()
                .get(line)
                .map_or(' ', |byte| char::from(*byte))
        }));
        text.push('\n');
    }
    text
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn doctor(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    let events = cx.server.latency.events();
    let threshold = cx.server.config.settings().latency_monitor_threshold;
    let mut report = match threshold {
        None => "The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> turns it on.\n".to_owned(),
        Some(threshold) => format!("The latency monitor notes what takes {} ms or longer.\n", threshold.as_millis()),
    };
    if events.is_empty() {
        report.push_str(
            "No event was over the threshold since the start or the latest LATENCY RESET.\n",
        );
    }
    for (name, event) in &events {
        report.push_str(&describe(name, event));
    }
    if events.contains_key("command") {
        report
            .push_str("- SLOWLOG GET shows which commands were slow, and with which arguments.\n");
    }
    cx.reply.verbatim("txt", report.as_bytes());
    Ok(())
}

fn describe(name: &str, event: &Event) -> String {
    let count = event.samples.len() as u64;
    let mean_ms = event
        .samples
        .iter()
        .map(|sample| sample.latency_ms)
        .sum::<u64>()
        / count.max(1);
    let first = event
        .samples
        .front()
        .map_or(0, |sample| sample.unix_seconds);
    let period = (latest_of(event).unix_seconds - first) / count.max(1);
    format!(
        "- {name}: {count} samples, {mean_ms} ms on average, {} ms at worst, one every {period} s.\n",
        event.max_ms
    )
}

fn histogram(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let table = &cx.server.commands;
    let wanted: Vec<&Command> = match args.len() {
        2 => table.all().iter().collect(),
        // A container stands for its subcommands too.
        _ => args
            .from(2)
            .filter_map(|name| table.find(name))
            .flat_map(|command| std::iter::once(command).chain(table.subcommands(command)))
            .collect(),
    };
    let called: Vec<_> = wanted
        .iter()
        .map(|command| (command, cx.server.stats.command(command.id)))
        .filter(|(_, totals)| !totals.latency.is_empty())
        .collect();
    cx.reply.map(called.len());
    for (command, totals) in &called {
        cx.reply.bulk(command.full_name.as_bytes());
        reply_histogram(cx.reply, totals);
    }
    Ok(())
}

/// Cumulative counts below powers of two of 1,024 ns; only where the count rises.
fn reply_histogram(reply: &mut Output, totals: &CommandTotals) {
    let mut rows = Vec::new();
    let mut counted = 0;
    let mut buckets = totals.latency.iter().peekable();
    for power in 0..u64::BITS - 10 {
        let limit_nanos = 1024u64 << power;
        let before = counted;
        while let Some((_, count)) = buckets.next_if(|(nanos, _)| *nanos <= limit_nanos) {
            counted += count;
        }
        if counted > before {
            // The upper end of the bucket of Redis's histogram, in which the limit lies.
            rows.push(((limit_nanos + (limit_nanos >> 7) - 1) / 1000, counted));
        }
        if buckets.peek().is_none() {
            break;
        }
    }
    reply.map(2);
    reply.bulk(b"calls");
    reply.integer(counted as i64);
    reply.bulk(b"histogram_usec");
    reply.map(rows.len());
    for (micros, count) in rows {
        reply.integer(micros as i64);
        reply.integer(count as i64);
    }
}

fn help(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    reply_help(
        cx.reply,
        "LATENCY",
        &[
            "DOCTOR",
            "    Return a report in words.",
            "GRAPH <event>",
            "    Return a graph of the latest samples of <event>.",
            "HISTOGRAM [<command> [...]]",
            "    Return how often commands took how long: for each the number of calls, and",
            "    of calls that took at most so many microseconds.",
            "HISTORY <event>",
            "    Return the samples of <event>: Unix time and milliseconds.",
            "LATEST",
            "    Return for every event the latest sample and the largest.",
            "RESET [<event> [...]]",
            "    Forget the given events, or all.",
        ],
    );
    Ok(())
}
