//! `cordis-bench`: a load generator, and comparisons of Cordis with its peers.
//!
//! A request's way through the modules: `options` make a plan, `load` connects and starts threads,
//! each `drive`s its connections with requests from a `workload` (keys from `sample`), at the times
//! of `pace`, and skips replies with `resp`. `compare` and `hit_ratio` start servers (`process`) and
//! load them row by row (`rows`, `measure`, `curve`); `migrate` does so with proxies and clusters
//! (`cluster`). Only `report` prints. No module knows the
//! engine: what is measured is what a client sees, and what the kernel counts.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod cluster;
mod compare;
mod curve;
mod drive;
mod fault;
mod hit_ratio;
mod huge;
mod link;
mod load;
mod measure;
mod migrate;
mod options;
mod pace;
mod process;
mod report;
mod resp;
mod rows;
mod sample;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::fault::Fault;

/// Load generator and comparisons with peers
#[derive(Parser)]
#[command(name = "cordis-bench", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a server and report rates and latencies
    Load(Box<options::LoadArgs>),
    /// Start Cordis and a peer in turn and compare CPU time per request, or memory per key
    Compare(Box<compare::CompareArgs>),
    /// Compare how well Cordis and a peer choose what to evict
    HitRatio(Box<hit_ratio::HitRatioArgs>),
    /// Measure what others feel while one client works on values of millions of elements
    Huge(Box<huge::HugeArgs>),
    /// Measure proxies beside nutcracker, and what clients feel while slots move
    Migrate(Box<migrate::MigrateArgs>),
}

fn main() -> ExitCode {
    let parsed = match CommandLine::try_parse() {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() => {
            return fail(&Fault::Usage(one_line(&error.to_string())));
        }
        Err(help) => {
            report::print(&help.to_string());
            return ExitCode::SUCCESS;
        }
    };
    match run(&parsed.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => fail(&fault),
    }
}

fn run(command: &Command) -> Result<bool, Fault> {
    match command {
        Command::Load(args) => {
            let plan = args.plan()?;
            let (tally, (), ()) = load::run(&plan, || ())?;
            let report = report::LoadReport::new(&plan, &tally);
            let text = if args.json { report::json(&report)? } else { report.text() };
            report::print(&text);
            Ok(true)
        }
        Command::Compare(args) => compare::run(args),
        Command::HitRatio(args) => hit_ratio::run(args).map(|()| true),
        Command::Huge(args) => huge::run(args).map(|()| true),
        Command::Migrate(args) => migrate::run(args),
    }
}

fn fail(fault: &Fault) -> ExitCode {
    report::progress(&format!("cordis-bench: {fault}"));
    ExitCode::from(fault.exit_code())
}

/// The message of a parse error without its hints and its repetition of the usage.
fn one_line(message: &str) -> String {
    let told = message.split("\n\n").next().unwrap_or(message);
    if told.starts_with("Load generator") {
        return "a command is needed: load, compare, hit-ratio, huge or migrate (see --help)"
            .into();
    }
    let words: Vec<&str> = told.split_whitespace().collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}
