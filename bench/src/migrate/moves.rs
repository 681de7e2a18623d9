//! Slots that move: how long it takes, and what clients feel meanwhile; and a cluster at rest.
//!
//! One cluster serves all of it. Half of the slots goes to the other group and back, first without
//! load, then under an open loop whose latencies are told apart by what happens at the moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Bench, Check};
use crate::cluster::{Cluster, Moved};
use crate::drive::{Stages, Tally};
use crate::fault::Fault;
use crate::load::{self, Limit, Plan};
use crate::measure::fill;
use crate::process::CpuTime;
use crate::report;
use crate::sample::Distribution;
use crate::workload::WorkloadSpec;

const VALUE_BYTES: usize = 100;
/// The slots that move: those of the first group.
const SLOTS: &str = "0-511";
const CLIENTS: usize = 50;
/// Most unanswered requests of a client; further ones wait, and their wait counts.
const WINDOW: u64 = 64;
/// Load before anything is counted, and then before each move.
const START_UP: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_secs(3);
/// Replies that come so long after a move still count to it.
const AFTERMATH: Duration = Duration::from_millis(200);
/// How long each step of the search for a rate takes, and how many there are.
const TRIAL_TIME: Duration = Duration::from_millis(1500);
const TRIALS: usize = 5;
/// The share of all processors that cluster and load take at the rate that is looked for.
const BUSY_WANTED: f64 = 0.5;
const BUSY_CLOSE: f64 = 0.03;
/// Longer than all moves together take.
const LOAD_TIME_MAX: Duration = Duration::from_secs(3600);
/// What a cluster may still have to do before it is at rest, and how long it is watched then.
const SETTLE_TIME: Duration = Duration::from_secs(3);
const REST_TIME: Duration = Duration::from_secs(10);

const IDLE_SECONDS_BUDGET: f64 = 3.0;
const LOADED_SECONDS_BUDGET: f64 = 5.0;
const P99_RATIO_BUDGET: f64 = 2.0;
const LONGEST_MS_BUDGET: f64 = 50.0;
const REST_PERCENT_BUDGET: f64 = 0.5;

/// The load under which slots moved.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Load {
    requests_per_second: f64,
    cpu_count: usize,
    /// Share of all processors that the cluster took in the quiet before the first move.
    cluster_percent: f64,
    /// The same of the load itself.
    load_percent: f64,
    replies: u64,
    unsent: u64,
    errors: BTreeMap<String, u64>,
}

impl Load {
    /// The load for a reader.
    pub(super) fn text(&self) -> String {
        let Self { requests_per_second, cpu_count, cluster_percent, load_percent, .. } = self;
        let mut text = format!(
            "load: open loop of {requests_per_second:.0} requests/s, GET:SET 1:1, {CLIENTS} \
             clients.\nBefore the first move the cluster took {cluster_percent:.0} % of {cpu_count} \
             processors, the load {load_percent:.0} %."
        );
        // The end of the load overtakes what is due at that moment.
        if self.unsent > CLIENTS as u64 {
            text.push_str(&format!("\n{} requests never left", self.unsent));
        }
        for (error, count) in &self.errors {
            text.push_str(&format!("\n{count} errors: {error}"));
        }
        text
    }
}

/// What was measured.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) moves: Vec<Check>,
    pub(super) load: Option<Load>,
    pub(super) idle: Vec<Check>,
    /// Why something was not.
    pub(super) failures: Vec<String>,
}

/// Measures moves, a cluster at rest, or both.
pub(super) fn measure(bench: &Bench<'_>, moves: bool, rest: bool) -> Seen {
    let mut seen = Seen::default();
    let cluster = match Cluster::start(&bench.cordis) {
        Ok(cluster) => cluster,
        Err(fault) => {
            seen.failures.push(format!("cordis up: {fault}"));
            return seen;
        }
    };
    if moves && let Err(fault) = measure_moves(bench, &cluster, &mut seen) {
        seen.failures.push(format!("move: {fault}"));
    }
    if rest {
        match at_rest(&cluster) {
            Ok(checks) => seen.idle = checks,
            Err(fault) => seen.failures.push(format!("idle: {fault}")),
        }
    }
    seen
}

fn measure_moves(bench: &Bench<'_>, cluster: &Cluster, seen: &mut Seen) -> Result<(), Fault> {
    let keys = 2 * bench.args.keys;
    report::progress(&format!("filling a cluster with {keys} keys"));
    let workload = WorkloadSpec::uniform("SET key:__seq__ __data__", keys, VALUE_BYTES);
    fill(cluster.target(), workload, keys, &[])?;
    let mut moved = Vec::new();
    for number in 1..=bench.args.repeats {
        report::progress(&format!("moving, repeat {number} of {}", bench.args.repeats));
        moved.push(cluster.move_slots(SLOTS, 2)?);
        moved.push(cluster.move_slots(SLOTS, 1)?);
    }
    seen.moves.extend(checks_of_moves("idle", &moved, IDLE_SECONDS_BUDGET));
    seen.moves.extend(missing("idle", keys, cluster)?);

    let rate = match bench.args.rate {
        Some(rate) => rate,
        None => half_busy(cluster, keys)?,
    };
    report::progress(&format!("moving under {rate:.0} requests/s"));
    let loaded = move_under_load(bench, cluster, rate, keys)?;
    seen.moves.extend(checks_of_moves("load", &loaded.moved, LOADED_SECONDS_BUDGET));
    seen.moves.extend(checks_of_latency(&loaded.tally.stages_ns[1..]));
    let tally = &loaded.tally;
    let errors: u64 = tally.errors.iter().map(|(_, count)| count).sum();
    seen.moves.extend(Check::new("load: errors", &[errors as f64], Some(0.0), true));
    seen.moves.extend(Check::new("load: keys not found", &[tally.nulls as f64], Some(0.0), true));
    seen.moves.extend(missing("load", keys, cluster)?);
    seen.load = Some(Load {
        requests_per_second: rate,
        cpu_count: cpu_count(),
        cluster_percent: loaded.cluster_percent,
        load_percent: loaded.load_percent,
        replies: tally.replies,
        unsent: tally.unsent,
        errors: tally.errors.iter().cloned().collect(),
    });
    Ok(())
}

fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn checks_of_moves(when: &str, moved: &[Moved], budget: f64) -> Vec<Check> {
    let of = |value: fn(&Moved) -> f64| moved.iter().map(value).collect::<Vec<_>>();
    [
        Check::new(&format!("{when}: seconds"), &of(|m| m.seconds), Some(budget), false),
        Check::new(&format!("{when}: keys moved"), &of(|m| m.keys as f64), None, false),
        Check::new(
            &format!("{when}: longest pause of a slot, ms"),
            &of(|m| m.pause_max_us as f64 / 1e3),
            None,
            false,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn missing(when: &str, keys: u64, cluster: &Cluster) -> Result<Option<Check>, Fault> {
    let missing = keys.abs_diff(cluster.keys()?);
    let name = format!("{when}: keys missing or too many");
    Ok(Check::new(&name, &[missing as f64], Some(0.0), true))
}

/// Checks of stages that are a quiet one and a move in turn.
fn checks_of_latency(stages: &[Histogram<u64>]) -> Vec<Check> {
    let pairs: Vec<[&Histogram<u64>; 2]> =
        stages.chunks_exact(2).map(|pair| [&pair[0], &pair[1]]).collect();
    let of = |value: &dyn Fn(&[&Histogram<u64>; 2]) -> f64| -> Vec<f64> {
        pairs.iter().map(value).collect()
    };
    let p99_us = |stage: &Histogram<u64>| stage.value_at_quantile(0.99) as f64 / 1e3;
    let max_ms = |stage: &Histogram<u64>| stage.max() as f64 / 1e6;
    let rows = [
        ("load: p99 before, us", of(&|pair| p99_us(pair[0])), None, false),
        ("load: p99 during, us", of(&|pair| p99_us(pair[1])), None, false),
        (
            "load: p99 during / before",
            of(&|pair| p99_us(pair[1]) / p99_us(pair[0])),
            Some(P99_RATIO_BUDGET),
            false,
        ),
        ("load: longest request before, ms", of(&|pair| max_ms(pair[0])), None, true),
        (
            "load: longest request during, ms",
            of(&|pair| max_ms(pair[1])),
            Some(LONGEST_MS_BUDGET),
            true,
        ),
    ];
    rows.into_iter()
        .filter_map(|(name, values, budget, worst)| Check::new(name, &values, budget, worst))
        .collect()
}

/// Reads and writes in equal parts, over all keys.
fn mix(keys: u64) -> WorkloadSpec {
    WorkloadSpec {
        mix: vec![("SET __key__ __data__".into(), 1), ("GET __key__".into(), 1)],
        distribution: Distribution::Uniform,
        keys,
        value_bytes: VALUE_BYTES,
        seed: 1,
    }
}

/// CPU time at one moment.
struct Reading {
    cluster: BTreeMap<String, CpuTime>,
    load: CpuTime,
    at: Instant,
}

impl Reading {
    fn take(cluster: &Cluster) -> Result<Self, Fault> {
        let (cluster, load) = (cluster.cpu()?, CpuTime::of(std::process::id()));
        Ok(Self { cluster, load, at: Instant::now() })
    }

    /// The shares of all processors that cluster and load took from here on.
    fn shares_until(&self, later: &Self) -> [f64; 2] {
        let all_ns = later.at.duration_since(self.at).as_nanos() as f64 * cpu_count() as f64;
        let cluster: u64 = spent_since(&self.cluster, &later.cluster).values().sum();
        [cluster, later.load.since_ns(&self.load)].map(|ns| ns as f64 / all_ns)
    }
}

/// The rate at which cluster and load take half of the machine. It is not half of the highest rate:
/// the busier, the more requests a turn of a core holds, and the less each costs.
fn half_busy(cluster: &Cluster, keys: u64) -> Result<f64, Fault> {
    let open = Plan {
        clients: CLIENTS,
        limit: Limit::Duration(TRIAL_TIME),
        ..Plan::new(cluster.target(), mix(keys), 1)
    };
    let (tally, (), ()) = load::run(&open, || ())?;
    let mut rate = tally.replies as f64 * 1e9 / tally.elapsed_ns as f64 / 2.0;
    for _ in 0..TRIALS {
        let plan = Plan { pipeline: WINDOW, rate: Some(rate), ..open.clone() };
        let (_, before, after) = load::run(&plan, || Reading::take(cluster))?;
        let share: f64 = before?.shares_until(&after?).iter().sum();
        report::progress(&format!("{:.0} % busy at {rate:.0} requests/s", share * 100.0));
        if (share - BUSY_WANTED).abs() <= BUSY_CLOSE {
            break;
        }
        rate *= (BUSY_WANTED / share).clamp(0.25, 2.0);
    }
    Ok((rate / 100.0).ceil() * 100.0)
}

/// Moves under load.
struct Loaded {
    tally: Tally,
    moved: Vec<Moved>,
    cluster_percent: f64,
    load_percent: f64,
}

/// What happened beside the load.
struct Conducted {
    moved: Vec<Moved>,
    cluster_percent: f64,
    load_percent: f64,
}

fn move_under_load(
    bench: &Bench<'_>,
    cluster: &Cluster,
    rate: f64,
    keys: u64,
) -> Result<Loaded, Fault> {
    let move_count = 2 * bench.args.repeats as usize;
    let stages = Arc::new(Stages::new(1 + 2 * move_count));
    let plan = Plan {
        clients: CLIENTS,
        pipeline: WINDOW,
        limit: Limit::Duration(LOAD_TIME_MAX),
        rate: Some(rate),
        stages: Some(Arc::clone(&stages)),
        ..Plan::new(cluster.target(), mix(keys), 1)
    };
    std::thread::scope(|scope| {
        let conductor = scope.spawn(|| {
            let conducted = conduct(cluster, &stages, move_count);
            stages.end();
            conducted
        });
        let loaded = load::run(&plan, || ());
        let conducted = conductor.join().map_err(|_| Fault::failed("the mover has panicked"))?;
        let (tally, (), ()) = loaded?;
        let Conducted { moved, cluster_percent, load_percent } = conducted?;
        Ok(Loaded { tally, moved, cluster_percent, load_percent })
    })
}

fn conduct(cluster: &Cluster, stages: &Stages, move_count: usize) -> Result<Conducted, Fault> {
    std::thread::sleep(START_UP);
    let mut moved = Vec::new();
    let mut shares = None;
    for number in 0..move_count {
        stages.enter(1 + 2 * number);
        let before = Reading::take(cluster)?;
        std::thread::sleep(QUIET);
        if shares.is_none() {
            shares = Some(before.shares_until(&Reading::take(cluster)?));
        }
        stages.enter(2 + 2 * number);
        moved.push(cluster.move_slots(SLOTS, if number % 2 == 0 { 2 } else { 1 })?);
        std::thread::sleep(AFTERMATH);
    }
    let [cluster_percent, load_percent] = shares.unwrap_or_default().map(|share| share * 100.0);
    Ok(Conducted { moved, cluster_percent, load_percent })
}

/// CPU time between two readings, of the processes that lived through both.
fn spent_since(
    before: &BTreeMap<String, CpuTime>,
    after: &BTreeMap<String, CpuTime>,
) -> BTreeMap<String, u64> {
    let spent = after.iter().filter_map(|(name, after)| {
        let before = before.get(name)?;
        Some((name.clone(), after.since_ns(before)))
    });
    spent.collect()
}

/// What each process of a quiet cluster takes of a processor.
fn at_rest(cluster: &Cluster) -> Result<Vec<Check>, Fault> {
    report::progress("watching the cluster at rest");
    std::thread::sleep(SETTLE_TIME);
    let (before, begun) = (cluster.cpu()?, Instant::now());
    std::thread::sleep(REST_TIME);
    let spent = spent_since(&before, &cluster.cpu()?);
    let all_ns = begun.elapsed().as_nanos() as f64;
    if spent.is_empty() {
        return Err(Fault::failed("the cluster has no processes"));
    }
    let check = |(name, ns): (&String, &u64)| {
        let percent = *ns as f64 * 100.0 / all_ns;
        Check::new(&format!("{name}, % of a core"), &[percent], Some(REST_PERCENT_BUDGET), true)
    };
    Ok(spent.iter().filter_map(check).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::latencies;

    #[test]
    fn latency_checks_take_the_worst_pair_for_the_longest_request() {
        let stage = |values_us: &[u64]| {
            let mut stage = latencies();
            values_us.iter().for_each(|us| stage.saturating_record(us * 1000));
            stage
        };
        let stages = [
            stage(&[100]),
            stage(&[150]),
            stage(&[100]),
            stage(&[170]),
            stage(&[100]),
            stage(&[60_000]),
        ];
        let checks = checks_of_latency(&stages);
        let verdict = |name: &str| checks.iter().find(|c| c.name == name).unwrap().verdict;
        assert_eq!(verdict("load: p99 during / before"), "ok");
        assert_eq!(verdict("load: longest request during, ms"), "OVER");
        assert_eq!(verdict("load: longest request before, ms"), "-");
    }
}
