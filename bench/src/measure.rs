//! One server under the rows of a comparison: start, prepare, load, read the kernel's counts.
//!
//! A row that fails is a result, not the end: it says why, and a server that died of it is started
//! again for the next row.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;

use crate::compare::{CompareArgs, Tool};
use crate::fault::Fault;
use crate::link::{Target, Value};
use crate::load::{self, Plan};
use crate::process::{Launch, Server, spawn_pinned};
use crate::rows::{MemoryRow, Prepare, SpeedRow};
use crate::workload::{Workload, WorkloadSpec, split_words};

/// Uncounted load before a row of a server, where it does not use up what was prepared.
const WARMUP: Duration = Duration::from_millis(200);
/// Time for a server to give back what it needed only for loading.
pub(crate) const SETTLE_TIME: Duration = Duration::from_secs(1);
const KEYS_DEFAULT: u64 = 100_000;
const MEMORY_KEYS_DEFAULT: u64 = 2_000_000;
/// Shape of the loads that prepare: quick for any server.
const FILL_CLIENTS: usize = 10;
const FILL_PIPELINE: u64 = 100;

/// One measurement of one row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// Replies per second.
    pub(crate) requests_per_second: Option<f64>,
    /// Median latency.
    pub(crate) p50_us: Option<f64>,
    /// The latency that one request in a hundred exceeds.
    pub(crate) p99_us: Option<f64>,
    /// CPU microseconds per request, or resident bytes per element.
    pub(crate) cost: f64,
    /// Why it is doubtful.
    pub(crate) note: Option<String>,
}

/// Results in the order of the rows: a sample, or why there is none.
pub(crate) type Results = Vec<Result<Sample, String>>;

/// Measures rows of speed, one after another, on one server.
pub(crate) fn speed(
    launch: &Launch,
    rows: &[SpeedRow],
    args: &CompareArgs,
) -> Result<Results, Fault> {
    let mut bench = Bench { server: Server::start(launch)?, keys_loaded: false, args };
    let mut results = Results::new();
    for row in rows {
        let result = bench.row(row).map_err(|fault| fault.to_string());
        if result.is_err() && bench.server.link().and_then(|mut link| link.call(&["PING"])).is_err()
        {
            bench.server = Server::start(launch)?;
            bench.keys_loaded = false;
        }
        results.push(result);
    }
    Ok(results)
}

struct Bench<'a> {
    server: Server,
    keys_loaded: bool,
    args: &'a CompareArgs,
}

impl Bench<'_> {
    fn row(&mut self, row: &SpeedRow) -> Result<Sample, Fault> {
        let scaled = (row.requests as f64 * self.args.scale) as u64;
        let requests = scaled.max(row.clients as u64 * row.pipeline);
        self.prepare(row.prepare, requests)?;
        self.probe(row.command)?;
        match self.args.tool {
            Tool::Builtin => self.drive(row, requests),
            Tool::RedisBenchmark => self.drive_redis_benchmark(row, requests),
        }
    }

    fn workload(&self, command: &str) -> WorkloadSpec {
        let keys = self.args.keys.unwrap_or(KEYS_DEFAULT);
        WorkloadSpec::uniform(command, keys, self.args.value_size as usize)
    }

    fn prepare(&mut self, prepare: Prepare, requests: u64) -> Result<(), Fault> {
        let cpus = &self.args.pair.load_cpu.0;
        match prepare {
            Prepare::Nothing => Ok(()),
            Prepare::Keys if self.keys_loaded => Ok(()),
            Prepare::Keys => {
                let workload = self.workload("SET key:__seq__ __data__");
                let keys = workload.keys;
                fill(self.server.target(), workload, keys, cpus)?;
                self.keys_loaded = true;
                Ok(())
            }
            Prepare::Fill { key, command } => {
                self.server.link()?.call(&["DEL", key])?;
                fill(self.server.target(), self.workload(command), requests, cpus)
            }
        }
    }

    /// Tries the command once: a server that does not know it would only measure its errors.
    fn probe(&self, command: &str) -> Result<(), Fault> {
        let mut wire = Vec::new();
        Workload::new(&self.workload(command), 0).map_err(Fault::failed)?.append(&mut wire);
        match self.server.link()?.exchange(&wire, 1)?.first() {
            Some(Value::Error(text)) => Err(Fault::failed(text.clone())),
            _ => Ok(()),
        }
    }

    fn drive(&self, row: &SpeedRow, requests: u64) -> Result<Sample, Fault> {
        let plan = Plan {
            clients: row.clients,
            pipeline: row.pipeline,
            cpus: self.args.pair.load_cpu.0.clone(),
            warmup: match row.prepare {
                Prepare::Fill { .. } => Duration::ZERO,
                Prepare::Nothing | Prepare::Keys => WARMUP,
            },
            ..Plan::new(self.server.target(), self.workload(row.command), requests)
        };
        let (tally, before, after) = load::run(&plan, || self.server.cpu())?;
        let quantile_us = |q| tally.latencies_ns.value_at_quantile(q) as f64 / 1e3;
        let error = tally.errors.first().map(|(text, count)| format!("{count} errors: {text}"));
        Ok(Sample {
            requests_per_second: Some(tally.replies as f64 * 1e9 / tally.elapsed_ns as f64),
            p50_us: Some(quantile_us(0.5)),
            p99_us: Some(quantile_us(0.99)),
            cost: after.since_ns(&before) as f64 / 1e3 / requests as f64,
            note: error,
        })
    }

    fn drive_redis_benchmark(&self, row: &SpeedRow, requests: u64) -> Result<Sample, Fault> {
        let workload = self.workload(row.command);
        let data = String::from_utf8_lossy(&workload.data()).into_owned();
        let number = |n: u64| n.to_string();
        let mut command = Command::new("redis-benchmark");
        command.args(["-h", "127.0.0.1", "--csv", "-p", &number(self.server.port().into())]);
        command.args(["-c", &number(row.clients as u64), "-P", &number(row.pipeline)]);
        command.args(["-n", &number(requests), "-r", &number(workload.keys)]);
        for word in split_words(row.command).map_err(Fault::failed)? {
            command.arg(word.replace("__key__", "key:__rand_int__").replace("__data__", &data));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let before = self.server.cpu();
        let child = spawn_pinned(&mut command, &self.args.pair.load_cpu.0)?;
        let output = child
            .wait_with_output()
            .map_err(|error| Fault::failed(format!("redis-benchmark: {error}")))?;
        let after = self.server.cpu();
        let text = String::from_utf8_lossy(&output.stdout);
        let [rps, p50_ms, p99_ms] = parse_csv(&text).ok_or_else(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            let why = errors.lines().chain(text.lines()).last().unwrap_or("no output");
            Fault::failed(format!("redis-benchmark: {}", why.trim()))
        })?;
        Ok(Sample {
            requests_per_second: Some(rps),
            p50_us: Some(p50_ms * 1e3),
            p99_us: Some(p99_ms * 1e3),
            cost: after.since_ns(&before) as f64 / 1e3 / requests as f64,
            note: None,
        })
    }
}

/// Requests per second, p50 and p99 of the last line of redis-benchmark's `--csv`.
///
/// # Layout
/// `"test","rps","avg","min","p50","p95","p99","max"`, latencies in milliseconds; the name of the
/// test may hold anything.
fn parse_csv(text: &str) -> Option<[f64; 3]> {
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    let mut fields = line.trim().trim_matches('"').rsplit("\",\"");
    let mut next = || fields.next().and_then(|field| field.parse::<f64>().ok());
    let (_max, p99, _p95, p50, _min, _avg, rps) =
        (next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    Some([rps, p50, p99])
}

/// Sends a number of requests as fast as the server takes them.
pub(crate) fn fill(
    target: Target,
    workload: WorkloadSpec,
    requests: u64,
    cpus: &[usize],
) -> Result<(), Fault> {
    fill_in_pipelines(target, workload, requests, cpus, FILL_PIPELINE)
}

/// Sends a number of requests as fast as the server takes them, at most some at once on each of the
/// connections.
pub(crate) fn fill_in_pipelines(
    target: Target,
    workload: WorkloadSpec,
    requests: u64,
    cpus: &[usize],
    pipeline: u64,
) -> Result<(), Fault> {
    let plan = Plan {
        clients: FILL_CLIENTS,
        pipeline,
        cpus: cpus.to_vec(),
        ..Plan::new(target, workload, requests)
    };
    let (tally, (), ()) = load::run(&plan, || ())?;
    match tally.errors.first() {
        Some((text, _)) => Err(Fault::failed(text.clone())),
        None => Ok(()),
    }
}

/// Measures rows of memory, one after another, on one server.
pub(crate) fn memory(
    launch: &Launch,
    rows: &[MemoryRow],
    args: &CompareArgs,
) -> Result<Results, Fault> {
    let server = Server::start(launch)?;
    std::thread::sleep(SETTLE_TIME);
    let mut results = Results::new();
    for row in rows {
        let keys = row.keys.or(args.keys).unwrap_or(MEMORY_KEYS_DEFAULT);
        let before_bytes = server.rss_bytes()?;
        // Values are part of the command; the size of data does not matter.
        let workload = WorkloadSpec::uniform(&row.command, keys, 0);
        let filled = fill(server.target(), workload, keys, &args.pair.load_cpu.0);
        results.push(filled.map_err(|fault| fault.to_string()).and_then(|()| {
            std::thread::sleep(SETTLE_TIME);
            let after_bytes = server.rss_bytes().map_err(|fault| fault.to_string())?;
            Ok(Sample {
                requests_per_second: None,
                p50_us: None,
                p99_us: None,
                cost: after_bytes.saturating_sub(before_bytes) as f64
                    / (keys * row.elements) as f64,
                note: None,
            })
        }));
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_of_redis_benchmark_is_read_from_its_end() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
                    \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"SET a,\"b\"\",\"1000.50\",\"0.1\",\"0.2\",\"0.3\",\"0.4\",\"0.5\",\"0.6\"\n";
        assert_eq!(parse_csv(text), Some([1000.5, 0.3, 0.5]));
        assert_eq!(parse_csv("Could not connect"), None);
    }
}
