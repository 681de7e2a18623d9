//! The latency that a proxy adds for a client that waits for each reply.
//!
//! Direct, through nutcracker and through Cordis in short turns of the same run, because latencies
//! of a machine drift by more than a proxy adds. Twice: with the proxies on a processor of their
//! own, where waking it and being woken by it is most of what they add, and on the one that client
//! and servers share, where it is their work.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Bench, KEYS, VALUE_BYTES, program_name, verdict};
use crate::drive::latencies;
use crate::fault::Fault;
use crate::link::Target;
use crate::load::{self, Plan};
use crate::process::Launch;
use crate::report::{self, Spread};
use crate::workload::WorkloadSpec;

const ROUNDS: usize = 12;
/// Requests of a round on each way, before `--scale`.
const REQUESTS: u64 = 1_000;
const WARMUP: Duration = Duration::from_millis(20);
/// What our hop adds over what nutcracker adds.
const BUDGET: f64 = 0.9;
const COMMANDS: [(&str, &str); 2] = [("get", "GET __key__"), ("set", "SET __key__ __data__")];

/// One row: medians of latency on the three ways, and what the proxies add.
#[derive(Clone, Debug, Serialize)]
pub(super) struct HopLine {
    name: String,
    direct_us: Option<Spread>,
    peer_us: Option<Spread>,
    cordis_us: Option<Spread>,
    peer_adds_us: Option<Spread>,
    cordis_adds_us: Option<Spread>,
    /// Of the medians, and the range over the repeats.
    ratio: Option<Spread>,
    budget: f64,
    /// `ok`, `OVER` or `n/a`.
    pub(super) verdict: &'static str,
}

impl HopLine {
    /// A row from the medians of its repeats: direct, through nutcracker, through Cordis.
    fn new(name: String, repeats: &[[f64; 3]]) -> Self {
        let spread = |value: fn(&[f64; 3]) -> f64| Spread::of(repeats.iter().map(value));
        let peer_adds_us = spread(|[direct, peer, _]| peer - direct);
        let cordis_adds_us = spread(|[direct, _, cordis]| cordis - direct);
        let ratio = spread(|[direct, peer, cordis]| (cordis - direct) / (peer - direct));
        let ratio = match (ratio, peer_adds_us, cordis_adds_us) {
            (Some(ratio), Some(peer), Some(cordis)) => {
                Some(Spread { median: cordis.median / peer.median, ..ratio })
            }
            _ => None,
        };
        Self {
            name,
            direct_us: spread(|us| us[0]),
            peer_us: spread(|us| us[1]),
            cordis_us: spread(|us| us[2]),
            peer_adds_us,
            cordis_adds_us,
            ratio,
            budget: BUDGET,
            verdict: verdict(ratio.map(|ratio| ratio.median), Some(BUDGET)),
        }
    }

    fn cells(&self) -> Vec<String> {
        let cell = |spread: Option<Spread>, decimals| {
            spread.map_or_else(|| "n/a".to_owned(), |spread| spread.text(decimals))
        };
        vec![
            self.name.clone(),
            cell(self.direct_us, 1),
            cell(self.peer_us, 1),
            cell(self.cordis_us, 1),
            cell(self.peer_adds_us, 1),
            cell(self.cordis_adds_us, 1),
            cell(self.ratio, 2),
            format!("{:.2}", self.budget),
            self.verdict.to_owned(),
        ]
    }
}

/// The rows as a table.
pub(super) fn table(lines: &[HopLine]) -> String {
    let header = [
        "row",
        "direct",
        "nutcracker",
        "cordis",
        "nutcracker adds",
        "cordis",
        "ratio",
        "budget",
        "",
    ];
    report::table(&header, &lines.iter().map(HopLine::cells).collect::<Vec<_>>())
}

/// Measures the three ways in front of each kind of servers.
///
/// # Errors
/// A program that does not start, or a load that fails.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Vec<HopLine>, Fault> {
    let apart = (&bench.proxy_cpus, "apart");
    let together = (&bench.args.pair.load_cpu.0, "together");
    let mut lines = Vec::new();
    for launch in &bench.backends {
        for (cpus, place) in [apart, together] {
            lines.extend(measure_placed(bench, launch, cpus, place)?);
        }
    }
    Ok(lines)
}

/// Measures the three ways with the proxies on some processors.
fn measure_placed(
    bench: &Bench<'_>,
    launch: &Launch,
    cpus: &[usize],
    place: &str,
) -> Result<Vec<HopLine>, Fault> {
    let servers = program_name(launch);
    let mut seen = COMMANDS.map(|_| Vec::new());
    for number in 1..=bench.args.repeats {
        let of = bench.args.repeats;
        report::progress(&format!("one client, {servers} {place}, repeat {number} of {of}"));
        let ([direct, _other], [peer, cordis]) = bench.stage(launch, cpus)?;
        let ways = [direct.target(), peer.target(), cordis.target()];
        for ((_, command), seen) in COMMANDS.iter().zip(&mut seen) {
            seen.push(medians_us(bench, &ways, command)?);
        }
    }
    let rows = COMMANDS.iter().zip(&seen);
    let line = |name: &str, seen| HopLine::new(format!("{servers}, {name}, {place}"), seen);
    Ok(rows.map(|((name, _), seen)| line(name, seen)).collect())
}

/// The median latency of each way over all rounds.
fn medians_us(bench: &Bench<'_>, ways: &[Target; 3], command: &str) -> Result<[f64; 3], Fault> {
    let mut sums = [latencies(), latencies(), latencies()];
    for round in 0..ROUNDS {
        for step in 0..ways.len() {
            // Each way comes first, second and last equally often.
            let way = (round + step) % ways.len();
            sums[way] += &round_trip(bench, &ways[way], command)?;
        }
    }
    Ok(sums.map(|sum| sum.value_at_quantile(0.5) as f64 / 1e3))
}

fn round_trip(bench: &Bench<'_>, target: &Target, command: &str) -> Result<Histogram<u64>, Fault> {
    let workload = WorkloadSpec::uniform(command, KEYS, VALUE_BYTES);
    let plan = Plan {
        cpus: bench.args.pair.load_cpu.0.clone(),
        warmup: WARMUP,
        ..Plan::new(target.clone(), workload, bench.requests(REQUESTS))
    };
    let (tally, (), ()) = load::run(&plan, || ())?;
    match tally.errors.first() {
        Some((text, count)) => Err(Fault::failed(format!("{count} errors: {text}"))),
        None => Ok(tally.latencies_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_ratio_is_of_what_is_added() {
        let line = HopLine::new("x".into(), &[[20.0, 60.0, 50.0], [30.0, 70.0, 60.0]]);
        assert_eq!(line.peer_adds_us.map(|us| us.median), Some(40.0));
        assert_eq!(line.ratio.map(|ratio| ratio.median), Some(0.75));
        assert_eq!(line.verdict, "ok");
        assert_eq!(HopLine::new("x".into(), &[[20.0, 30.0, 30.0]]).verdict, "OVER");
        assert_eq!(HopLine::new("x".into(), &[]).verdict, "n/a");
    }
}
