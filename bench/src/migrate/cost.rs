//! CPU time of a proxy per request, with the same servers behind both proxies, row by row in turn.

use std::time::Duration;

use super::{Bench, KEYS, VALUE_BYTES, program_name};
use crate::cluster::Proxy;
use crate::compare::Line;
use crate::fault::Fault;
use crate::link::Target;
use crate::load::{self, Plan};
use crate::measure::Sample;
use crate::process::{CpuTime, Launch};
use crate::report;
use crate::workload::WorkloadSpec;

pub(super) const CLIENTS: usize = 50;
const WARMUP: Duration = Duration::from_millis(200);

/// Pipeline, requests before `--scale`, and the budget.
const DEPTHS: [(u64, u64, f64); 3] =
    [(1, 200_000, 0.80), (16, 1_000_000, 0.45), (100, 2_000_000, 0.18)];
pub(super) const COMMANDS: [(&str, &str); 2] =
    [("set", "SET __key__ __data__"), ("get", "GET __key__")];

/// A load of one row.
pub(super) struct Row {
    pub(super) command: &'static str,
    pub(super) pipeline: u64,
    pub(super) requests: u64,
}

/// Measures both proxies in front of each kind of servers.
///
/// # Errors
/// A program that does not start. A load that fails is a note of its row.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Vec<Line>, Fault> {
    let mut lines = Vec::new();
    for launch in &bench.backends {
        lines.extend(measure_before(bench, launch)?);
    }
    Ok(lines)
}

fn measure_before(bench: &Bench<'_>, launch: &Launch) -> Result<Vec<Line>, Fault> {
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    let servers = program_name(launch);
    for (pipeline, requests, budget) in DEPTHS {
        for (name, command) in COMMANDS {
            rows.push(Row { command, pipeline, requests: bench.requests(requests) });
            lines.push(Line::new(&format!("{servers}, {name} P{pipeline}"), Some(budget)));
        }
    }
    for number in 0..bench.args.repeats {
        let (now, of) = (number + 1, bench.args.repeats);
        report::progress(&format!("proxies before {servers}, repeat {now} of {of}"));
        let (_servers, [peer, cordis]) = bench.stage(launch, &bench.proxy_cpus)?;
        for (row, line) in rows.iter().zip(&mut lines) {
            let measure = |proxy: &Proxy| {
                let sample = drive(bench, proxy.target(), row, || proxy.cpu());
                sample.map_err(|fault| fault.to_string())
            };
            // They change places, so that a drift of the machine hits both.
            if number % 2 == 0 {
                line.peer.take(measure(&peer));
                line.cordis.take(measure(&cordis));
            } else {
                line.cordis.take(measure(&cordis));
                line.peer.take(measure(&peer));
            }
        }
    }
    lines.iter_mut().for_each(Line::sum_up);
    Ok(lines)
}

/// Loads a target with a row; the cost is that of the process whose CPU time `cpu` tells.
///
/// # Errors
/// A load that fails.
pub(super) fn drive(
    bench: &Bench<'_>,
    target: Target,
    row: &Row,
    cpu: impl FnMut() -> CpuTime,
) -> Result<Sample, Fault> {
    let workload = WorkloadSpec::uniform(row.command, KEYS, VALUE_BYTES);
    let plan = Plan {
        clients: CLIENTS,
        pipeline: row.pipeline,
        cpus: bench.args.pair.load_cpu.0.clone(),
        warmup: WARMUP,
        ..Plan::new(target, workload, row.requests)
    };
    let (tally, before, after) = load::run(&plan, cpu)?;
    let quantile_us = |q| tally.latencies_ns.value_at_quantile(q) as f64 / 1e3;
    let missing = (tally.nulls > 0).then(|| format!("{} keys were not found", tally.nulls));
    let error = tally.errors.first().map(|(text, count)| format!("{count} errors: {text}"));
    Ok(Sample {
        requests_per_second: Some(tally.replies as f64 * 1e9 / tally.elapsed_ns as f64),
        p50_us: Some(quantile_us(0.5)),
        p99_us: Some(quantile_us(0.99)),
        cost: after.since_ns(&before) as f64 / 1e3 / row.requests as f64,
        note: error.or(missing),
    })
}
