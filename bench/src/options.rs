//! The words of command lines: lists of processors, ratios, times, and the options of `load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::fault::Fault;
use crate::link::{Address, Target};
use crate::load::{Limit, Plan};
use crate::sample::Distribution;
use crate::workload::{Workload, WorkloadSpec};

const REQUESTS_DEFAULT: u64 = 100_000;
const CPU_MAX: usize = 1023;
/// Buffers of requests are made once and hold a whole pipeline; together they must fit in memory.
const OUT_BYTES_MAX: usize = 1 << 32;

/// The processors that a list such as `0-3,8` names.
pub(crate) fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("expected a list such as 0-3,8 of processors up to {CPU_MAX}");
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        if first > last || last > CPU_MAX {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

/// The shortest list that names these processors.
pub(crate) fn format_cpus(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let text = |(first, last): (usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// A list of processors as an option's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cpus(pub(crate) Vec<usize>);

impl std::str::FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_cpus(text).map(Self)
    }
}

/// `SET:GET` weights.
fn parse_ratio(text: &str) -> Result<(u64, u64), String> {
    let (set, get) = text.split_once(':').ok_or("expected SET:GET, such as 1:10")?;
    match (set.parse::<u32>(), get.parse::<u32>()) {
        (Ok(0), Ok(0)) => Err("one side of the ratio must be above 0".into()),
        (Ok(set), Ok(get)) => Ok((set.into(), get.into())),
        _ => Err("expected SET:GET, such as 1:10".into()),
    }
}

/// A time in seconds, with an optional `s` or `ms`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit_s) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1e-3),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text, 1.0),
    };
    match number.parse::<f64>() {
        Ok(value) if (0.0..=1e6).contains(&value) => Ok(Duration::from_secs_f64(value * unit_s)),
        _ => Err("expected a time such as 10, 2.5s or 200ms".into()),
    }
}

/// A number above 0.
pub(crate) fn parse_positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e9 => Ok(value),
        _ => Err("expected a number above 0 and up to a thousand million".into()),
    }
}

/// Options of `load`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// Host name or address of the server
    #[arg(long, default_value = "127.0.0.1", conflicts_with = "unix")]
    host: String,
    /// Port of the server
    #[arg(long, default_value_t = 6379, conflicts_with = "unix")]
    port: u16,
    /// Unix socket of the server, instead of host and port
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Credentials: PASSWORD or USER:PASSWORD
    #[arg(long)]
    auth: Option<String>,
    /// Database
    #[arg(long, default_value_t = 0)]
    db: u32,
    /// Speak RESP3
    #[arg(long)]
    resp3: bool,
    /// Threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Processors to pin the threads to, in turn, such as 1 or 2-3
    #[arg(long, value_name = "LIST")]
    cpu: Option<Cpus>,
    /// Connections over all threads
    #[arg(long, short = 'c', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    clients: u32,
    /// Requests sent together on a connection; with --rate, the most unanswered ones
    #[arg(long, short = 'P', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pipeline: u32,
    /// Requests over all connections [default: 100000]
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "duration")]
    requests: Option<u64>,
    /// Time to run for instead of a number of requests, such as 10 or 500ms
    #[arg(long, value_parser = parse_time)]
    duration: Option<Duration>,
    /// Time of load before the counted one
    #[arg(long, default_value = "0", value_parser = parse_time)]
    warmup: Duration,
    /// Longest wait for a reply
    #[arg(long, default_value = "30", value_parser = parse_time)]
    timeout: Duration,
    /// Requests per second over all connections: an open loop, timed from the intended send time
    #[arg(long, short = 'R', value_parser = parse_positive)]
    rate: Option<f64>,
    /// Number of keys
    #[arg(long, short = 'k', default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=999_999_999_999))]
    keys: u64,
    /// How keys are drawn: uniform, zipf or zipf:THETA
    #[arg(long, default_value = "uniform")]
    distribution: Distribution,
    /// Bytes of a value
    #[arg(long, short = 'd', default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=536_870_912))]
    value_size: u64,
    /// SET:GET weights of the mix
    #[arg(long, default_value = "1:10", value_parser = parse_ratio, conflicts_with = "command")]
    ratio: (u64, u64),
    /// Command to send instead of the mix; several are mixed evenly. __key__, __rand_int__, __seq__
    /// and __data__ are filled in
    #[arg(long)]
    command: Vec<String>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl LoadArgs {
    /// The load that the options describe.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub(crate) fn plan(&self) -> Result<Plan, Fault> {
        if u32::from(self.threads) > self.clients {
            let (threads, clients) = (self.threads, self.clients);
            return Err(Fault::usage(format!(
                "--threads {threads} needs at least as many --clients, not {clients}"
            )));
        }
        if self.duration.is_some_and(|duration| duration.is_zero()) {
            return Err(Fault::usage("--duration must be above 0"));
        }
        if self.timeout.is_zero() {
            return Err(Fault::usage("--timeout must be above 0"));
        }
        let address = match &self.unix {
            Some(path) => Address::Unix(path.clone()),
            None => Address::Tcp(self.host.clone(), self.port),
        };
        let target = Target {
            address,
            auth: self.auth.clone(),
            db: self.db,
            resp3: self.resp3,
            timeout: self.timeout,
        };
        let workload = self.workload()?;
        let requests = self.requests.unwrap_or(REQUESTS_DEFAULT);
        Ok(Plan {
            clients: self.clients as usize,
            pipeline: self.pipeline.into(),
            threads: self.threads.into(),
            cpus: self.cpu.clone().map_or_else(Vec::new, |cpus| cpus.0),
            limit: self.duration.map_or(Limit::Requests(requests), Limit::Duration),
            rate: self.rate,
            warmup: self.warmup,
            ..Plan::new(target, workload, requests)
        })
    }

    fn workload(&self) -> Result<WorkloadSpec, Fault> {
        let mix = if self.command.is_empty() {
            let (set, get) = self.ratio;
            vec![("SET __key__ __data__".into(), set), ("GET __key__".into(), get)]
        } else {
            self.command.iter().map(|command| (command.clone(), 1)).collect()
        };
        let spec = WorkloadSpec {
            mix,
            distribution: self.distribution,
            keys: self.keys,
            value_bytes: self.value_size as usize,
            seed: self.seed,
        };
        let request_bytes = Workload::new(&spec, 0)
            .map_err(|why| Fault::usage(format!("--command: {why}")))?
            .request_bytes_max();
        let out_bytes = request_bytes
            .saturating_mul(self.pipeline as usize)
            .saturating_mul(self.clients as usize);
        if out_bytes > OUT_BYTES_MAX {
            return Err(Fault::usage(format!(
                "--clients x --pipeline x the size of a request is {out_bytes} bytes, over 4 GiB"
            )));
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("load").chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        parsed.load.plan().map_err(|fault| {
            assert_eq!(fault.exit_code(), 2);
            fault.to_string()
        })
    }

    #[test]
    fn load_without_options_is_bounded() {
        let plan = plan("").unwrap();
        assert_eq!(plan.limit, Limit::Requests(REQUESTS_DEFAULT));
        assert_eq!(plan.rate, None);
    }

    #[test]
    fn load_options_reach_the_plan() {
        let plan = plan("--duration 1500ms --threads 2 --cpu 1,3-4 -c 8 -P 4 --rate 1e4").unwrap();
        assert_eq!(plan.limit, Limit::Duration(Duration::from_millis(1500)));
        assert_eq!((plan.threads, plan.clients, plan.pipeline), (2, 8, 4));
        assert_eq!(plan.cpus, [1, 3, 4]);
        assert_eq!(plan.rate, Some(10_000.0));
    }

    #[test]
    fn load_wrong_options_are_refused() {
        for (line, part) in [
            ("--threads 4 --clients 2", "--threads 4 needs"),
            ("--requests 10 --duration 1", "cannot be used with"),
            ("--requests 0", "0 is not in"),
            ("--clients 0", "0 is not in"),
            ("--pipeline 0", "0 is not in"),
            ("--threads 0", "0 is not in"),
            ("--keys 0", "0 is not in"),
            ("--rate 0", "above 0"),
            ("--rate -5", "unexpected argument"),
            ("--duration 0", "--duration must be above 0"),
            ("--duration soon", "expected a time"),
            ("--ratio 0:0", "above 0"),
            ("--ratio 3", "expected SET:GET"),
            ("--ratio 1:1 --command PING", "cannot be used with"),
            ("--distribution normal", "expected uniform"),
            ("--cpu 3-1", "expected a list"),
            ("--cpu x", "expected a list"),
            ("--unix /s --port 1", "cannot be used with"),
            ("--command \"", "a quote is not closed"),
            ("--value-size 500000000 --pipeline 1000", "over 4 GiB"),
            ("--speed 3", "unexpected argument"),
        ] {
            let error = plan(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn cpu_list_round_trips() {
        for text in ["0", "0-1", "1,3-5,8"] {
            assert_eq!(format_cpus(&parse_cpus(text).unwrap()), text);
        }
    }
}
