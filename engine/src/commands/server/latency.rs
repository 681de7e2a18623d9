//! LATENCY: shows the delays that `observe/latency.rs` keeps, and how long calls took.

use std::fmt::Write;

use crate::commands::args::Args;
use crate::commands::docs::reply_help;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Merge, Route,
};
use crate::commands::table::{Command, table};
use crate::metrics::histogram::Histogram;
use crate::node::Node;
use crate::observe::graph::{self, Column};
use crate::observe::latency::Series;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::units::Ms;

const FLAGS: Flags = Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::LOADING).union(Flags::STALE);
const TIPS: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

/// Width of a chart, and of the line above it.
const GRAPH_COLUMNS: usize = 80;
/// Height of a chart.
const GRAPH_ROWS: usize = 4;

/// The commands of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "latency",
    family: Family::Server,
    since: "2.8.13",
    summary: "Holds the commands about delays",
    complexity: "Depends on the subcommand",
    arity: Arity::AtLeast(2),
    route: Route::Session,
    subcommands: &[
        CommandSpec {
            name: "latency|doctor",
            family: Family::Server,
            since: "2.8.13",
            summary: "Explains in words what delays were seen",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: FLAGS,
            tips: TIPS,
            route: Route::Session,
            handler: Handler::Session(doctor),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "latency|graph",
            family: Family::Server,
            since: "2.8.13",
            summary: "Draws the delays of an event",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: FLAGS,
            tips: TIPS,
            args: &[Arg::new("event", ArgKind::String)],
            route: Route::Session,
            handler: Handler::Session(graph),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "latency|help",
            family: Family::Server,
            since: "2.8.13",
            summary: "Describes the subcommands of LATENCY",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: Flags::LOADING.union(Flags::STALE),
            route: Route::Session,
            handler: Handler::Session(help),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "latency|histogram",
            family: Family::Server,
            since: "7.0.0",
            summary: "Returns how long calls took, by command",
            complexity: "O(N) with N commands returned",
            arity: Arity::AtLeast(2),
            flags: FLAGS,
            tips: TIPS,
            args: &[Arg::new("command", ArgKind::String).optional().multiple()],
            route: Route::Session,
            handler: Handler::Session(histogram),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "latency|history",
            family: Family::Server,
            since: "2.8.13",
            summary: "Returns the delays of an event over time",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: FLAGS,
            tips: TIPS,
            args: &[Arg::new("event", ArgKind::String)],
            route: Route::Session,
            handler: Handler::Session(history),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "latency|latest",
            family: Family::Server,
            since: "2.8.13",
            summary: "Returns the last delay of each event",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: FLAGS,
            tips: TIPS,
            route: Route::Session,
            handler: Handler::Session(latest),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "latency|reset",
            family: Family::Server,
            since: "2.8.13",
            summary: "Forgets the delays of events",
            complexity: "O(1)",
            arity: Arity::AtLeast(2),
            flags: FLAGS,
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            args: &[Arg::new("event", ArgKind::String).optional().multiple()],
            route: Route::Session,
            merge: Merge::AllOk,
            handler: Handler::Session(reset),
            ..CommandSpec::EMPTY
        },
    ],
    ..CommandSpec::EMPTY
}];

/// LATENCY LATEST
fn latest(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let all = ctx.node.delays.all();
    reply.array(all.len());
    for series in &all {
        let last = series.samples.back().copied();
        let (at, ms) = last.map_or((0, 0), |sample| (sample.at_seconds, sample.ms));
        reply.array(4);
        reply.bulk(series.event.name().as_bytes());
        reply.int(at);
        reply.int(ms as i64);
        reply.int(series.max_ms as i64);
    }
    Ok(())
}

/// LATENCY HISTORY event
fn history(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let samples = ctx.node.delays.of(args.at(2)).map(|series| series.samples).unwrap_or_default();
    reply.array(samples.len());
    for sample in samples {
        reply.array(2);
        reply.int(sample.at_seconds);
        reply.int(sample.ms as i64);
    }
    Ok(())
}

/// LATENCY RESET [event ...]
fn reset(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let delays = &ctx.node.delays;
    let count = match args.len() {
        2 => delays.reset(None),
        _ => args.iter_from(2).map(|event| delays.reset(Some(event))).sum(),
    };
    reply.count(count);
    Ok(())
}

/// LATENCY GRAPH event
fn graph(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let series = ctx.node.delays.of(args.at(2));
    let series = series.ok_or_else(|| CommandError::no_samples(args.at(2)))?;
    let now_seconds = ctx.now.0.div_euclid(1000);
    let columns: Vec<Column> = series
        .samples
        .iter()
        .map(|s| Column { value: s.ms, label: age(now_seconds - s.at_seconds) })
        .collect();
    let low = series.samples.iter().map(|s| s.ms).min().unwrap_or(0);
    let high = series.samples.iter().map(|s| s.ms).max().unwrap_or(0);
    let text = format!(
        "{} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n{}",
        series.event.name(),
        series.max_ms,
        "-".repeat(GRAPH_COLUMNS),
        graph::render(&columns, GRAPH_COLUMNS, GRAPH_ROWS),
    );
    reply.verbatim(text.as_bytes());
    Ok(())
}

/// How long ago, in the largest unit that gives a whole number.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// LATENCY DOCTOR
fn doctor(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.verbatim(diagnosis(ctx.node, ctx.now).as_bytes());
    Ok(())
}

fn diagnosis(node: &Node, now: Ms) -> String {
    let threshold_ms = node.config.latency_monitor_threshold_ms();
    if threshold_ms == 0 {
        return "The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> \
                makes it keep every delay of at least that long.\n"
            .to_owned();
    }
    let all = node.delays.all();
    if all.is_empty() {
        return format!("Nothing has taken {threshold_ms} ms or more. All is well.\n");
    }
    let mut text = format!("Delays of {threshold_ms} ms or more were seen:\n\n");
    for (i, series) in all.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}. {}", i + 1, findings(series, now));
    }
    text.push_str("\nWhat may help:\n\n");
    for series in &all {
        let _ = writeln!(text, "- {}: {}.", series.event.name(), series.event.advice());
    }
    text
}

fn findings(series: &Series, now: Ms) -> String {
    let count = series.samples.len().max(1) as f64;
    let mean = series.samples.iter().map(|s| s.ms as f64).sum::<f64>() / count;
    let deviation = series.samples.iter().map(|s| (s.ms as f64 - mean).abs()).sum::<f64>() / count;
    let first = series.samples.front().map_or(0, |sample| sample.at_seconds);
    let period = (now.0.div_euclid(1000) - first).max(0) as f64 / count;
    format!(
        "{}: {} spikes, {mean:.0} ms on average (mean deviation {deviation:.0} ms), one in \
         {period:.2} s, the worst ever {} ms.",
        series.event.name(),
        series.samples.len(),
        series.max_ms,
    )
}

/// LATENCY HELP
fn help(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply_help(args, reply);
    Ok(())
}

/// LATENCY HISTOGRAM [command ...]
fn histogram(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut chosen: Vec<&Command> = Vec::new();
    let mut choose = |command: &'static Command| {
        chosen.extend(std::iter::once(command).chain(&command.subcommands));
    };
    if args.len() == 2 {
        table().all().iter().for_each(choose);
    } else {
        for name in args.iter_from(2) {
            if let Some(command) = command_of(name) {
                choose(command);
            }
        }
    }
    let measured: Vec<(&Command, Vec<&Histogram>)> = chosen
        .into_iter()
        .map(|command| (command, durations(ctx.node, command)))
        .filter(|(_, histograms)| histograms.iter().any(|h| h.count() > 0))
        .collect();
    reply.map(measured.len());
    for (command, histograms) in measured {
        show(command, &histograms, reply);
    }
    Ok(())
}

/// The command of this name; `container|sub` is a subcommand.
fn command_of(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|&byte| byte == b'|') {
        None => table().get(name),
        Some(at) => table().get(&name[..at])?.subcommand(&name[at + 1..]),
    }
}

/// How long calls of a command took, by core.
fn durations<'a>(node: &'a Node, command: &Command) -> Vec<&'a Histogram> {
    let id = usize::from(command.id);
    node.cores.iter().filter_map(|core| core.commands[id].durations()).collect()
}

fn show(command: &Command, histograms: &[&Histogram], reply: &mut Reply<'_>) {
    let total: u64 = histograms.iter().map(|h| h.count()).sum();
    let steps = cumulative(histograms, total);
    reply.bulk(command.spec.name.as_bytes());
    reply.map(2);
    reply.bulk(b"calls");
    reply.int(total as i64);
    reply.bulk(b"histogram_usec");
    reply.map(steps.len());
    for (us, count) in steps {
        reply.int(us as i64);
        reply.int(count as i64);
    }
}

/// Microseconds, and how many calls took no longer, for each power of two at which that grows.
fn cumulative(histograms: &[&Histogram], total: u64) -> Vec<(u64, u64)> {
    /// Redis: the longest duration that it tells apart.
    const NS_MAX: u64 = (1 << 30) - 1;
    let mut steps = Vec::new();
    let mut before = 0;
    for exponent in 10..=30 {
        let edge = 1u64 << exponent;
        let below = histograms.iter().map(|h| h.count_below(edge)).sum();
        let count = if exponent == 30 { total } else { below };
        if count > before {
            // Redis: an edge is named after the last duration of its own narrow bucket.
            steps.push(((edge + edge / 128 - 1).min(NS_MAX) / 1000, count));
            before = count;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::observe::latency::Event;

    fn text(bare: &mut Bare, words: &[&[u8]]) -> String {
        let mut client = bare.client();
        String::from_utf8(bare.call(&mut client, words)).expect("these replies are text")
    }

    #[test]
    fn delays_are_listed_drawn_and_reset() {
        let mut bare = Bare::new(1, 1);
        for (second, ms) in [(-4, 20), (-3, 1050), (-1, 1500), (0, 1010)] {
            bare.node.delays.note(Event::Command, Ms(bare.now.0 + second * 1000), ms);
        }
        let latest = "*1\r\n*4\r\n$7\r\ncommand\r\n:1700000000\r\n:1010\r\n:1500\r\n";
        assert_eq!(text(&mut bare, &[b"latency", b"latest"]), latest);
        let history = text(&mut bare, &[b"latency", b"history", b"command"]);
        assert!(history.starts_with("*4\r\n*2\r\n:1699999996\r\n:20\r\n"), "{history}");
        assert_eq!(text(&mut bare, &[b"latency", b"history", b"COMMAND"]), "*0\r\n");
        let graph = text(&mut bare, &[b"latency", b"graph", b"command"]);
        let want = "$174\r\ncommand - high 1500 ms, low 20 ms (all time high 1500 ms)\n";
        assert!(graph.starts_with(want), "{graph}");
        assert!(graph.ends_with("\n  # \n #|#\n |||\n_|||\n    \n4310\nssss\n\r\n"), "{graph}");
        assert_eq!(text(&mut bare, &[b"latency", b"reset", b"x", b"COMMAND"]), ":1\r\n");
        let none = "-ERR No samples available for event 'command'\r\n";
        assert_eq!(text(&mut bare, &[b"latency", b"graph", b"command"]), none);
    }

    #[test]
    fn doctor_says_what_was_seen() {
        let mut bare = Bare::new(1, 1);
        assert!(text(&mut bare, &[b"latency", b"doctor"]).contains("is off"));
        text(&mut bare, &[b"config", b"set", b"latency-monitor-threshold", b"10"]);
        assert!(text(&mut bare, &[b"latency", b"doctor"]).contains("All is well"));
        bare.node.note_delay(Event::Turn, 9_999_999, bare.now);
        assert!(bare.node.delays.all().is_empty());
        bare.node.note_delay(Event::Turn, 12_000_000, bare.now);
        let report = text(&mut bare, &[b"latency", b"doctor"]);
        assert!(report.contains("1. turn: 1 spikes, 12 ms on average"), "{report}");
    }

    #[test]
    fn histogram_counts_calls_up_to_each_power_of_two() {
        let mut bare = Bare::new(1, 1);
        let id = usize::from(table().get(b"get").expect("GET exists").id);
        for ns in [500, 1_500, 1_600, 40_000, 3_000_000_000] {
            bare.node.cores[0].commands[id].note_call(ns, true);
        }
        let want = "*2\r\n$3\r\nget\r\n*4\r\n$5\r\ncalls\r\n:5\r\n$14\r\nhistogram_usec\r\n\
                    *8\r\n:1\r\n:1\r\n:2\r\n:3\r\n:66\r\n:4\r\n:1073741\r\n:5\r\n";
        assert_eq!(text(&mut bare, &[b"latency", b"histogram", b"GET", b"nothing"]), want);
        assert_eq!(text(&mut bare, &[b"latency", b"histogram", b"client"]), "*0\r\n");
    }
}
