//! `compare`: two servers under the same loads in turn, and the ratio of what they cost.
//!
//! Owns the options and the order of runs; what a row is stands in `rows`, how one is measured in
//! `measure`. In each repeat the servers change places, so that a slow drift of the machine hits
//! both.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::curve::{self, CurveRow};
use crate::fault::Fault;
use crate::measure::{self, Sample};
use crate::options::{Cpus, parse_positive};
use crate::process::{Kind, Launch, version};
use crate::report::{self, Setting, Spread};
use crate::rows::{self, MemoryRow, SpeedRow};

const MEMORY_UNIT: &str = "RSS bytes per element";

/// The header over [`text_cells`].
pub(crate) const HEADER: [&str; 12] = [
    "row",
    "rps peer",
    "cordis",
    "p50 us peer",
    "cordis",
    "p99 us peer",
    "cordis",
    "cost peer",
    "cordis",
    "ratio",
    "budget",
    "",
];

/// What drives the servers.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Tool {
    /// The load generator of this program.
    Builtin,
    /// redis-benchmark, found in PATH.
    RedisBenchmark,
}

/// The two servers and where they run.
#[derive(Args, Clone, Debug)]
pub(crate) struct PairArgs {
    /// Cordis server
    #[arg(long, value_name = "PATH", default_value = "target/release/cordis-server")]
    server: PathBuf,
    /// Server to compare with, which takes the flags of redis-server
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    peer: PathBuf,
    /// Further argument for the Cordis server; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    server_arg: Vec<String>,
    /// Further argument for the peer; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    peer_arg: Vec<String>,
    /// Processors of the servers [default: 0]
    #[arg(long, value_name = "LIST")]
    server_cpu: Option<Cpus>,
    /// Processors of the load
    #[arg(long, value_name = "LIST", default_value = "1")]
    pub(crate) load_cpu: Cpus,
    /// Folder of results
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    out: PathBuf,
    /// Print only, write no files
    #[arg(long)]
    no_save: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PairArgs {
    /// The peer and the Cordis server, in this order.
    ///
    /// # Errors
    /// A program that is not there.
    pub(crate) fn launches(&self, two_cores: bool) -> Result<[Launch; 2], Fault> {
        let cpus_default = if two_cores { vec![0, 1] } else { vec![0] };
        let cpus = self.server_cpu.clone().map_or(cpus_default, |cpus| cpus.0);
        if two_cores && cpus.len() < 2 {
            return Err(Fault::usage("--two-cores needs two processors in --server-cpu"));
        }
        let launch = |kind, option: &str, program: &Path, arguments: &[String]| {
            // A bare name is looked up in PATH when it starts.
            if program.components().count() > 1 && !program.exists() {
                let path = program.display();
                return Err(Fault::usage(format!("{option}: there is no program '{path}'")));
            }
            let program = program.to_owned();
            Ok(Launch { kind, program, cpus: cpus.clone(), arguments: arguments.to_vec() })
        };
        Ok([
            launch(Kind::Peer, "--peer", &self.peer, &self.peer_arg)?,
            launch(Kind::Cordis, "--server", &self.server, &self.server_arg)?,
        ])
    }

    /// Prints a report and writes it into the folder of results.
    pub(crate) fn publish(
        &self,
        setting: &Setting,
        stem: &str,
        text: &str,
        data: &impl Serialize,
    ) -> Result<(), Fault> {
        let json = report::json(data)?;
        report::print(if self.json { &json } else { text });
        if !self.no_save {
            let path = report::save(&setting.folder(&self.out), stem, text, &json)?;
            report::progress(&format!("written to {}.{{txt,json}}", path.display()));
        }
        Ok(())
    }
}

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) pair: PairArgs,
    /// Rows: perf, suite, memory, all, memory-curve, or names and parts of names, separated by commas
    #[arg(long, default_value = "perf")]
    rows: String,
    /// How often each server is started and measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Number of keys [default: 100000; 2000000 for string memory]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=999_999_999_999))]
    pub(crate) keys: Option<u64>,
    /// Bytes of a value in the rows of speed
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=1_048_576))]
    pub(crate) value_size: u64,
    /// Factor on the number of requests of each row
    #[arg(long, default_value_t = 1.0, value_parser = parse_positive)]
    pub(crate) scale: f64,
    /// What drives the servers
    #[arg(long, value_enum, default_value_t = Tool::Builtin)]
    pub(crate) tool: Tool,
    /// Give the servers two processors, one of them shared with the load
    #[arg(long)]
    two_cores: bool,
    /// Exit with 1 when a row is over its budget or could not be measured
    #[arg(long)]
    strict: bool,
}

/// What one server, or one proxy, showed in one row.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Side {
    requests_per_second: Option<Spread>,
    p50_us: Option<Spread>,
    p99_us: Option<Spread>,
    /// CPU microseconds per request, or resident bytes per element.
    pub(crate) cost: Option<Spread>,
    samples: Vec<Sample>,
    /// Why a measurement is missing or doubtful.
    note: Option<String>,
}

impl Side {
    pub(crate) fn take(&mut self, result: Result<Sample, String>) {
        match result {
            Ok(sample) => {
                self.note = self.note.take().or_else(|| sample.note.clone());
                self.samples.push(sample);
            }
            Err(why) => self.note = Some(why),
        }
    }

    fn sum_up(&mut self) {
        let spread =
            |value: fn(&Sample) -> Option<f64>| Spread::of(self.samples.iter().filter_map(value));
        self.requests_per_second = spread(|sample| sample.requests_per_second);
        self.p50_us = spread(|sample| sample.p50_us);
        self.p99_us = spread(|sample| sample.p99_us);
        self.cost = spread(|sample| Some(sample.cost));
    }
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    name: String,
    pub(crate) peer: Side,
    pub(crate) cordis: Side,
    /// Cost of Cordis over cost of the peer: of the medians, and the range over the repeats.
    ratio: Option<Spread>,
    budget: Option<f64>,
    pub(crate) verdict: &'static str,
}

impl Line {
    pub(crate) fn new(name: &str, budget: Option<f64>) -> Self {
        let (peer, cordis) = (Side::default(), Side::default());
        Self { name: name.into(), peer, cordis, ratio: None, budget, verdict: "n/a" }
    }

    pub(crate) fn sum_up(&mut self) {
        self.peer.sum_up();
        self.cordis.sum_up();
        let pairs = self.peer.samples.iter().zip(&self.cordis.samples);
        let ratios = Spread::of(pairs.map(|(peer, cordis)| cordis.cost / peer.cost));
        if let (Some(ratios), Some(peer), Some(cordis)) = (ratios, self.peer.cost, self.cordis.cost)
        {
            let median = cordis.median / peer.median;
            self.ratio = Some(Spread { median, ..ratios });
            self.verdict = match self.budget {
                None => "-",
                Some(budget) if median <= budget => "ok",
                Some(_) => "OVER",
            };
        }
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        let note = |who, side: &Side| {
            side.note.as_ref().map(|note| format!("{}, {who}: {note}\n", self.name))
        };
        [note("peer", &self.peer), note("cordis", &self.cordis)].into_iter().flatten()
    }
}

/// The whole comparison, as written to JSON.
#[derive(Debug, Serialize)]
struct Comparison<'a> {
    setting: &'a Setting,
    peer_version: String,
    cordis_version: String,
    unit: &'static str,
    repeats: u32,
    two_cores: bool,
    lines: &'a [Line],
}

/// Runs the comparison; false when `--strict` finds a row not met.
pub(crate) fn run(args: &CompareArgs) -> Result<bool, Fault> {
    let selection =
        rows::select(&args.rows).map_err(|why| Fault::usage(format!("--rows: {why}")))?;
    if args.two_cores && selection.speed.is_empty() {
        return Err(Fault::usage("--two-cores is for rows of speed"));
    }
    let launches = args.pair.launches(args.two_cores)?;
    let mut met = true;
    if !selection.speed.is_empty() {
        let row_line = |row: &SpeedRow| Line::new(row.name, row.budget(args.two_cores));
        let mut lines: Vec<Line> = selection.speed.iter().map(row_line).collect();
        repeat(args, &launches, &mut lines, |launch| {
            measure::speed(launch, &selection.speed, args)
        })?;
        let suffix = if args.two_cores { "-two-cores" } else { "" };
        let stem = format!("compare-{}{suffix}", report::file_name(&args.rows));
        met &= finish(args, &launches, &stem, "CPU us per request", 3, &lines)?;
    }
    if !selection.memory.is_empty() {
        let row_line = |row: &MemoryRow| Line::new(row.name, Some(row.budget));
        let mut lines: Vec<Line> = selection.memory.iter().map(row_line).collect();
        repeat(args, &launches, &mut lines, |launch| {
            measure::memory(launch, &selection.memory, args)
        })?;
        met &= finish(args, &launches, "compare-memory", MEMORY_UNIT, 1, &lines)?;
    }
    if !selection.curve.is_empty() {
        let row_line = |row: &CurveRow| Line::new(&row.name, Some(curve::BUDGET));
        let mut lines: Vec<Line> = selection.curve.iter().map(row_line).collect();
        repeat(args, &launches, &mut lines, |launch| {
            Ok(curve::measure(launch, &selection.curve, args))
        })?;
        met &= finish(args, &launches, "compare-memory-curve", MEMORY_UNIT, 1, &lines)?;
    }
    Ok(met || !args.strict)
}

/// Measures both servers as often as asked, changing places each time.
fn repeat(
    args: &CompareArgs,
    launches: &[Launch; 2],
    lines: &mut [Line],
    measure: impl Fn(&Launch) -> Result<Vec<Result<Sample, String>>, Fault>,
) -> Result<(), Fault> {
    for number in 0..args.repeats {
        let [peer, cordis] = launches;
        let turn = if number % 2 == 0 { [peer, cordis] } else { [cordis, peer] };
        for launch in turn {
            let name = launch.program.display();
            report::progress(&format!("repeat {} of {}: {name}", number + 1, args.repeats));
            for (line, result) in lines.iter_mut().zip(measure(launch)?) {
                match launch.kind {
                    Kind::Peer => line.peer.take(result),
                    Kind::Cordis => line.cordis.take(result),
                }
            }
        }
    }
    lines.iter_mut().for_each(Line::sum_up);
    Ok(())
}

fn finish(
    args: &CompareArgs,
    launches: &[Launch; 2],
    stem: &str,
    unit: &'static str,
    decimals: usize,
    lines: &[Line],
) -> Result<bool, Fault> {
    let setting = Setting::read();
    let comparison = Comparison {
        setting: &setting,
        peer_version: version(&launches[0].program),
        cordis_version: version(&launches[1].program),
        unit,
        repeats: args.repeats,
        two_cores: args.two_cores,
        lines,
    };
    let mut text = setting.text();
    text.push_str(&format!("peer: {}\n", comparison.peer_version));
    text.push_str(&format!("cordis: {}\n\n", comparison.cordis_version));
    let body = |line: &Line| text_cells(line, decimals);
    let speed = decimals == 3;
    let cells: Vec<Vec<String>> = lines
        .iter()
        .map(|line| if speed { body(line) } else { without_speed(body(line)) })
        .collect();
    let header = if speed { HEADER.to_vec() } else { without_speed(HEADER.to_vec()) };
    text.push_str(&report::table(&header, &cells));
    text.push_str(&format!("\ncost: {unit}, median and range of {} runs\n", args.repeats));
    lines.iter().flat_map(Line::notes).for_each(|note| text.push_str(&note));
    args.pair.publish(&setting, stem, &text, &comparison)?;
    Ok(lines.iter().all(|line| line.verdict != "OVER" && line.verdict != "n/a"))
}

pub(crate) fn text_cells(line: &Line, decimals: usize) -> Vec<String> {
    let missing = || "n/a".to_owned();
    let median = |spread: Option<Spread>, decimals: usize| {
        spread.map_or_else(missing, |spread| format!("{:.decimals$}", spread.median))
    };
    let whole = |spread: Option<Spread>, decimals: usize| {
        spread.map_or_else(missing, |spread| spread.text(decimals))
    };
    let (peer, cordis) = (&line.peer, &line.cordis);
    vec![
        line.name.clone(),
        median(peer.requests_per_second, 0),
        median(cordis.requests_per_second, 0),
        median(peer.p50_us, 0),
        median(cordis.p50_us, 0),
        median(peer.p99_us, 0),
        median(cordis.p99_us, 0),
        whole(peer.cost, decimals),
        whole(cordis.cost, decimals),
        whole(line.ratio, 2),
        line.budget.map_or_else(|| "-".into(), |budget| format!("{budget:.2}")),
        line.verdict.to_owned(),
    ]
}

/// Memory has no rates and latencies.
fn without_speed<T>(mut cells: Vec<T>) -> Vec<T> {
    cells.drain(1..7);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cost: f64) -> Result<Sample, String> {
        Ok(Sample { requests_per_second: None, p50_us: None, p99_us: None, cost, note: None })
    }

    fn line(budget: Option<f64>, peer: &[f64], cordis: &[f64]) -> Line {
        let mut line = Line::new("row", budget);
        peer.iter().for_each(|&cost| line.peer.take(sample(cost)));
        cordis.iter().for_each(|&cost| line.cordis.take(sample(cost)));
        line.sum_up();
        line
    }

    #[test]
    fn line_ratio_is_of_the_medians_and_decides() {
        let met = line(Some(0.6), &[1.0, 2.0, 9.0], &[1.0, 1.1, 1.2]);
        assert_eq!(met.ratio.map(|ratio| ratio.median), Some(0.55));
        assert_eq!(met.verdict, "ok");
        assert_eq!(line(Some(0.5), &[2.0], &[1.1]).verdict, "OVER");
        assert_eq!(line(None, &[2.0], &[1.1]).verdict, "-");
    }

    #[test]
    fn line_without_a_measurement_is_not_available() {
        let mut line = line(Some(0.6), &[1.0], &[]);
        line.cordis.take(Err("ERR unknown command".into()));
        assert_eq!(line.verdict, "n/a");
        let notes: Vec<String> = line.notes().collect();
        assert_eq!(notes, ["row, cordis: ERR unknown command\n"]);
    }
}
