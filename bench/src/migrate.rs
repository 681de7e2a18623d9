//! `migrate`: what a proxy costs beside nutcracker, and what moving slots costs the clients.
//!
//! Owns the options, the verdicts and the report. Its parts: CPU time of the proxy (`cost`), the
//! latency of one hop (`hop`), slots that move with and without load, and a cluster at rest
//! (`moves`), a server that is a proxy too (`fused`).

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cluster::Proxy;
use crate::compare::{HEADER, Line, PairArgs, text_cells};
use crate::fault::Fault;
use crate::link::Target;
use crate::measure::fill;
use crate::options::parse_positive;
use crate::process::{Launch, Server, version};
use crate::report::{self, Setting, Spread};
use crate::workload::WorkloadSpec;

mod cost;
mod fused;
mod hop;
mod moves;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Part {
    /// CPU time of the proxy per request
    Proxy,
    /// Latency that a proxy adds
    Hop,
    /// Slots that move, idle and under load
    Move,
    /// CPU time of a cluster at rest
    Idle,
    /// CPU time of a server per request, by the port of the proxy within it
    Fused,
}

const PARTS: [Part; 5] = [Part::Proxy, Part::Hop, Part::Move, Part::Idle, Part::Fused];
/// Keys behind a proxy, and the size of their values.
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 64;

/// Options of `migrate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    pair: PairArgs,
    /// Parts, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Cordis proxy [default: cordis-proxy beside this program]
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,
    /// nutcracker, to compare with
    #[arg(long, value_name = "PATH", default_value = "nutcracker")]
    peer_proxy: PathBuf,
    /// Program that starts clusters [default: cordis beside this program]
    #[arg(long, value_name = "PATH")]
    cordis: Option<PathBuf>,
    /// How often each figure is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Factor on the number of requests
    #[arg(long, default_value_t = 1.0, value_parser = parse_positive)]
    scale: f64,
    /// Keys in the slots that move; the cluster holds twice as many
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Requests per second while slots move [default: what keeps the machine half busy]
    #[arg(long, value_parser = parse_positive)]
    rate: Option<f64>,
    /// Exit with 1 when a figure is over its budget
    #[arg(long)]
    strict: bool,
}

/// A figure and its budget.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: String,
    value: Spread,
    budget: Option<f64>,
    verdict: &'static str,
}

impl Check {
    /// A figure measured several times. The largest must keep the budget where `worst` says so,
    /// the median otherwise.
    fn new(name: &str, values: &[f64], budget: Option<f64>, worst: bool) -> Option<Self> {
        let value = Spread::of(values.iter().copied())?;
        let judged = if worst { value.max } else { value.median };
        let verdict = verdict(Some(judged), budget);
        Some(Self { name: name.to_owned(), value, budget, verdict })
    }

    fn cells(&self) -> Vec<String> {
        let decimals = if self.value.max < 100.0 { 2 } else { 0 };
        let budget = self.budget.map_or_else(|| "-".to_owned(), |budget| format!("{budget}"));
        vec![self.name.clone(), self.value.text(decimals), budget, self.verdict.to_owned()]
    }
}

fn verdict(value: Option<f64>, budget: Option<f64>) -> &'static str {
    match (value, budget) {
        (None, _) => "n/a",
        (_, None) => "-",
        (Some(value), Some(budget)) if value <= budget => "ok",
        _ => "OVER",
    }
}

/// The whole report, as written to JSON.
#[derive(Debug, Serialize)]
struct Report {
    setting: Setting,
    peer_version: String,
    peer_proxy_version: String,
    cordis_version: String,
    repeats: u32,
    proxy: Vec<Line>,
    hop: Vec<hop::HopLine>,
    moves: Vec<Check>,
    load: Option<moves::Load>,
    idle: Vec<Check>,
    fused: Vec<Line>,
    /// Parts that could not be measured, and why.
    failures: Vec<String>,
}

/// Runs the subcommand; false when a part could not be measured, or `--strict` finds a figure over
/// its budget.
pub(crate) fn run(args: &MigrateArgs) -> Result<bool, Fault> {
    let parts = if args.parts.is_empty() { PARTS.to_vec() } else { args.parts.clone() };
    let bench = Bench::new(args, &parts)?;
    let is_wanted = |part| parts.contains(&part);
    let mut report = Report {
        setting: Setting::read(),
        peer_version: version(&bench.backends[0].program),
        peer_proxy_version: version_of_nutcracker(&args.peer_proxy),
        cordis_version: version(&bench.backends[1].program),
        repeats: args.repeats,
        proxy: Vec::new(),
        hop: Vec::new(),
        moves: Vec::new(),
        load: None,
        idle: Vec::new(),
        fused: Vec::new(),
        failures: Vec::new(),
    };
    if is_wanted(Part::Proxy) {
        match cost::measure(&bench) {
            Ok(lines) => report.proxy = lines,
            Err(fault) => report.failures.push(format!("proxy: {fault}")),
        }
    }
    if is_wanted(Part::Hop) {
        match hop::measure(&bench) {
            Ok(lines) => report.hop = lines,
            Err(fault) => report.failures.push(format!("hop: {fault}")),
        }
    }
    if is_wanted(Part::Move) || is_wanted(Part::Idle) {
        let seen = moves::measure(&bench, is_wanted(Part::Move), is_wanted(Part::Idle));
        (report.moves, report.load, report.idle) = (seen.moves, seen.load, seen.idle);
        report.failures.extend(seen.failures);
    }
    if is_wanted(Part::Fused) {
        match fused::measure(&bench) {
            Ok(lines) => report.fused = lines,
            Err(fault) => report.failures.push(format!("fused: {fault}")),
        }
    }
    let stem = stem(&parts);
    args.pair.publish(&report.setting, &stem, &text(&report), &report)?;
    Ok(report.failures.is_empty() && !(args.strict && is_over(&report)))
}

/// The name of the files of results: of all parts, or of some.
fn stem(parts: &[Part]) -> String {
    if PARTS.iter().all(|part| parts.contains(part)) {
        return "migrate".to_owned();
    }
    let named = PARTS.iter().filter(|part| parts.contains(part));
    let names = named.filter_map(|part| part.to_possible_value()).map(|n| n.get_name().to_owned());
    format!("migrate-{}", names.collect::<Vec<_>>().join("-"))
}

fn is_over(report: &Report) -> bool {
    let lines = report.proxy.iter().chain(&report.fused).map(|line| line.verdict);
    let hops = report.hop.iter().map(|line| line.verdict);
    let checks = report.moves.iter().chain(&report.idle).map(|check| check.verdict);
    lines.chain(hops).chain(checks).any(|verdict| verdict == "OVER" || verdict == "n/a")
}

/// The programs and where they run.
struct Bench<'a> {
    args: &'a MigrateArgs,
    /// The servers behind proxies: of the peer, and of Cordis. They share the load's processors.
    backends: [Launch; 2],
    proxy_cpus: Vec<usize>,
    proxy: PathBuf,
    cordis: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(args: &'a MigrateArgs, parts: &[Part]) -> Result<Self, Fault> {
        let mut backends = args.pair.launches(false)?;
        let proxy_cpus = backends[0].cpus.clone();
        for launch in &mut backends {
            launch.cpus.clone_from(&args.pair.load_cpu.0);
        }
        let needs = |part: &[Part]| parts.iter().any(|wanted| part.contains(wanted));
        let (proxy, cordis) = (args.proxy.as_deref(), args.cordis.as_deref());
        let proxy = program("--proxy", proxy, "cordis-proxy", needs(&[Part::Proxy, Part::Hop]))?;
        let cordis = program("--cordis", cordis, "cordis", needs(&[Part::Move, Part::Idle]))?;
        Ok(Self { args, backends, proxy_cpus, proxy, cordis })
    }

    /// Two servers with all keys each, and both proxies in front of them, nutcracker first, on some
    /// processors. Whichever server a proxy chooses for a key, it is there.
    fn stage(&self, launch: &Launch, cpus: &[usize]) -> Result<([Server; 2], [Proxy; 2]), Fault> {
        let servers = [Server::start(launch)?, Server::start(launch)?];
        for server in &servers {
            self.fill(server.target(), KEYS, VALUE_BYTES)?;
        }
        let ports: Vec<u16> = servers.iter().map(Server::port).collect();
        let kind = kind_name(launch);
        let proxies = [
            Proxy::nutcracker(&self.args.peer_proxy, cpus, &ports)?,
            Proxy::cordis(&self.proxy, cpus, &ports, kind)?,
        ];
        Ok((servers, proxies))
    }

    /// Sets every key once.
    fn fill(&self, target: Target, keys: u64, value_bytes: usize) -> Result<(), Fault> {
        let workload = WorkloadSpec::uniform("SET key:__seq__ __data__", keys, value_bytes);
        fill(target, workload, keys, &self.args.pair.load_cpu.0)
    }

    /// A number of requests, scaled.
    fn requests(&self, requests: u64) -> u64 {
        ((requests as f64 * self.args.scale) as u64).max(1)
    }
}

/// What maps call a server.
fn kind_name(launch: &Launch) -> &'static str {
    match launch.kind {
        crate::process::Kind::Peer => "redis",
        crate::process::Kind::Cordis => "cordis",
    }
}

/// What tables call a server.
fn program_name(launch: &Launch) -> String {
    launch.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn program(
    option: &str,
    given: Option<&Path>,
    name: &str,
    is_needed: bool,
) -> Result<PathBuf, Fault> {
    let beside = std::env::current_exe().unwrap_or_default().with_file_name(name);
    let path = given.map_or(beside, Path::to_owned);
    // A bare name is looked up in PATH when it starts.
    if is_needed && path.components().count() > 1 && !path.exists() {
        let path = path.display();
        return Err(Fault::usage(format!("{option}: there is no program '{path}'")));
    }
    Ok(path)
}

/// Nutcracker tells its version to who looks at errors.
fn version_of_nutcracker(program: &Path) -> String {
    let output = std::process::Command::new(program).arg("-V").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim_start_matches("This is ").to_owned()
}

fn text(report: &Report) -> String {
    let mut text = report.setting.text();
    text.push_str(&format!("peer: {}, {}\n", report.peer_proxy_version, report.peer_version));
    text.push_str(&format!("cordis: {}\n", report.cordis_version));
    let repeats = report.repeats;
    if !report.proxy.is_empty() {
        let rows: Vec<_> = report.proxy.iter().map(|line| text_cells(line, 3)).collect();
        text.push_str(&format!(
            "\nProxies in front of two servers, 50 clients. Peer: nutcracker.\n\n{}\n\
             cost: CPU us of the proxy per request, median and range of {repeats} runs\n",
            report::table(&HEADER, &rows)
        ));
        report.proxy.iter().flat_map(Line::notes).for_each(|note| text.push_str(&note));
    }
    if !report.hop.is_empty() {
        text.push_str(&format!(
            "\nOne client without pipeline: p50 of latency, us, median and range of {repeats} \
             runs\n\n{}",
            hop::table(&report.hop)
        ));
    }
    let header = ["figure", "value", "budget", ""];
    let table = |checks: &[Check]| {
        report::table(&header, &checks.iter().map(Check::cells).collect::<Vec<_>>())
    };
    if !report.moves.is_empty() {
        text.push_str(&format!(
            "\nSlots 0-511 of a cluster that `cordis up` has started, to group 2 and back, {repeats} \
             times\n\n{}",
            table(&report.moves)
        ));
    }
    if let Some(load) = &report.load {
        text.push_str(&format!("\n{}\n", load.text()));
    }
    if !report.idle.is_empty() {
        text.push_str(&format!("\nA cluster at rest\n\n{}", table(&report.idle)));
    }
    if !report.fused.is_empty() {
        let rows: Vec<_> = report.fused.iter().map(|line| text_cells(line, 3)).collect();
        text.push_str(&format!(
            "\nA server that hosts a proxy, 50 clients, by the proxy's port. Peer: one without.\n\n\
             {}\ncost: CPU us of the server per request, median and range of {repeats} runs\n",
            report::table(&HEADER, &rows)
        ));
        report.fused.iter().flat_map(Line::notes).for_each(|note| text.push_str(&note));
    }
    if !report.failures.is_empty() {
        text.push_str(&format!("\nnot measured:\n{}\n", report.failures.join("\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_judges_the_median_or_the_worst() {
        let check = |values: &[f64], worst| Check::new("x", values, Some(3.0), worst).unwrap();
        assert_eq!(check(&[1.0, 2.0, 9.0], false).verdict, "ok");
        assert_eq!(check(&[1.0, 2.0, 9.0], true).verdict, "OVER");
        assert_eq!(check(&[3.0], true).verdict, "ok");
        assert_eq!(Check::new("x", &[9.0], None, true).unwrap().verdict, "-");
        assert!(Check::new("x", &[], None, true).is_none());
    }

    #[test]
    fn stem_names_the_parts_unless_all() {
        assert_eq!(stem(&PARTS), "migrate");
        assert_eq!(stem(&[Part::Hop, Part::Proxy]), "migrate-proxy-hop");
    }
}
