//! What the user reads: tables, figures, and the files of results. The only module that prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "reports are this program's output")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::drive::Tally;
use crate::fault::Fault;
use crate::load::Plan;

/// Prints a report.
pub(crate) fn print(text: &str) {
    println!("{}", text.trim_end());
}

/// Tells what goes on, beside the report.
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

/// Several measurements of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of some measurements; none of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Self { median, min, max })
    }

    /// `median min..max`, with a number of decimals; the median alone of a single measurement.
    pub(crate) fn text(&self, decimals: usize) -> String {
        let Self { median, min, max } = self;
        if min == max {
            return format!("{median:.decimals$}");
        }
        format!("{median:.decimals$} {min:.decimals$}..{max:.decimals$}")
    }
}

/// The machine and the moment of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    /// UTC date of the start, `YYYY-MM-DD`.
    pub(crate) date: String,
    host: String,
    kernel: String,
    cpu_model: String,
    cpu_count: usize,
    command_line: String,
}

impl Setting {
    /// Reads the setting of this process.
    pub(crate) fn read() -> Self {
        let proc = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let cpu_info = proc("/proc/cpuinfo");
        let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name"));
        Self {
            date: date(seconds / 86_400),
            host: proc("/proc/sys/kernel/hostname"),
            kernel: proc("/proc/sys/kernel/osrelease"),
            cpu_model: model.unwrap_or("unknown").trim_start_matches([' ', '\t', ':']).to_owned(),
            cpu_count: cpu_info.lines().filter(|line| line.starts_with("processor")).count(),
            command_line: std::env::args().map(quoted).collect::<Vec<_>>().join(" "),
        }
    }

    /// The lines above a table.
    pub(crate) fn text(&self) -> String {
        let Self { date, host, kernel, cpu_model, cpu_count, command_line } = self;
        format!("{command_line}\n{date}, {host}: Linux {kernel}, {cpu_count} x {cpu_model}\n")
    }

    /// The folder of this day's results of this machine.
    pub(crate) fn folder(&self, out: &Path) -> PathBuf {
        out.join(format!("{}-{}", self.date, file_name(&self.host)))
    }
}

fn quoted(word: String) -> String {
    if word.is_empty() || word.contains(char::is_whitespace) { format!("'{word}'") } else { word }
}

/// Text as a part of a file's name: words joined by dashes.
pub(crate) fn file_name(text: &str) -> String {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// The Gregorian date of a day counted from 1970-01-01.
///
/// # Source
/// Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March, so that
/// the leap day is the last.
fn date(day: u64) -> String {
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

/// Lines of cells under a header; the first column to the left, the others to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (index, (cell, width)) in cells.into_iter().zip(&widths).enumerate() {
            if index == 0 {
                text.push_str(&format!("{cell:<width$}"));
            } else {
                text.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    };
    let rule: usize = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
    let mut text = line(header.to_vec()) + &"-".repeat(rule) + "\n";
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Writes a report as text and as JSON and returns the path without its ending.
pub(crate) fn save(folder: &Path, stem: &str, text: &str, json: &str) -> Result<PathBuf, Fault> {
    let path = folder.join(stem);
    let write = || {
        fs::create_dir_all(folder)?;
        fs::write(path.with_extension("txt"), text)?;
        fs::write(path.with_extension("json"), json)
    };
    write().map_err(|error| Fault::failed(format!("cannot write {}: {error}", path.display())))?;
    Ok(path)
}

/// A report as JSON.
pub(crate) fn json(report: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string_pretty(report)
        .map(|text| text + "\n")
        .map_err(|error| Fault::failed(format!("cannot write JSON: {error}")))
}

/// The quantiles that a load reports.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// What `load` reports.
#[derive(Debug, Serialize)]
pub(crate) struct LoadReport {
    target: String,
    commands: Vec<String>,
    clients: usize,
    pipeline: u64,
    threads: usize,
    seed: u64,
    /// Open loops only.
    rate_wanted: Option<f64>,
    replies: u64,
    seconds: f64,
    replies_per_second: f64,
    nulls: u64,
    unsent: u64,
    sent_bytes: u64,
    received_bytes: u64,
    latency_us: Map<String, Value>,
    errors: Map<String, Value>,
}

impl LoadReport {
    /// The report of a finished load.
    pub(crate) fn new(plan: &Plan, tally: &Tally) -> Self {
        let seconds = tally.elapsed_ns as f64 / 1e9;
        let mut latency_us = Map::new();
        let mut put = |name: &str, ns: f64| latency_us.insert(name.into(), Value::from(ns / 1e3));
        put("mean", tally.latencies_ns.mean().round());
        put("min", tally.latencies_ns.min() as f64);
        for (name, quantile) in QUANTILES {
            put(name, tally.latencies_ns.value_at_quantile(quantile) as f64);
        }
        put("max", tally.latencies_ns.max() as f64);
        let mix = plan.workload.mix.iter().filter(|(_, weight)| *weight > 0);
        Self {
            target: plan.target.address.to_string(),
            commands: mix.map(|(command, weight)| format!("{weight} x {command}")).collect(),
            clients: plan.clients,
            pipeline: plan.pipeline,
            threads: plan.threads,
            seed: plan.workload.seed,
            rate_wanted: plan.rate,
            replies: tally.replies,
            seconds,
            replies_per_second: tally.replies as f64 / seconds,
            nulls: tally.nulls,
            unsent: tally.unsent,
            sent_bytes: tally.sent_bytes,
            received_bytes: tally.received_bytes,
            latency_us,
            errors: tally.errors.iter().map(|(text, n)| (text.clone(), Value::from(*n))).collect(),
        }
    }

    /// The report for a reader.
    pub(crate) fn text(&self) -> String {
        let Self { target, clients, pipeline, threads, replies, seconds, nulls, .. } = self;
        let loop_kind = match self.rate_wanted {
            None => "closed loop".into(),
            Some(rate) => format!("open loop at {rate:.0} requests/s"),
        };
        let mut text = format!(
            "{target}: {clients} clients, pipeline {pipeline}, {threads} threads, {loop_kind}\n\
             {}\n\n\
             {replies} replies in {seconds:.3} s, {:.0} per second, {nulls} null, \
             {:.1} MB sent, {:.1} MB received\n\nlatency, us",
            self.commands.join(", "),
            self.replies_per_second,
            self.sent_bytes as f64 / 1e6,
            self.received_bytes as f64 / 1e6,
        );
        for (name, _) in QUANTILES.iter().chain([&("max", 1.0), &("mean", 0.0)]) {
            let value = self.latency_us.get(*name).and_then(Value::as_f64).unwrap_or(0.0);
            text.push_str(&format!("  {name} {value:.1}"));
        }
        text.push('\n');
        if self.unsent > 0 {
            text.push_str(&format!("{} scheduled requests never left in time\n", self.unsent));
        }
        for (error, count) in &self.errors {
            text.push_str(&format!("{count} errors: {error}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_of_known_days() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(20_779), "2026-11-22");
    }

    #[test]
    fn spread_takes_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).unwrap().text(1), "2.0 1.0..3.0");
        assert_eq!(Spread::of([4.0, 1.0]).unwrap().median, 2.5);
    }

    #[test]
    fn table_aligns_columns() {
        let rows =
            [vec!["a".to_owned(), "100".to_owned()], vec!["long".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["row", "n"], &rows), "row     n\n---------\na     100\nlong    1\n");
    }

    #[test]
    fn file_name_keeps_words() {
        assert_eq!(file_name("get c50 P16, ../x"), "get-c50-P16-x");
    }
}
