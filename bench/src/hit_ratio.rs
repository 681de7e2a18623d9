//! `hit-ratio`: how well a server chooses what to evict.
//!
//! A cache in front of a slow store: read a key, and set it when it is not there. One connection
//! sends everything in a fixed order, so both servers see the same requests of the same seed.

use std::io::{Read, Write};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::compare::PairArgs;
use crate::fault::Fault;
use crate::link::{Link, Stream, Value};
use crate::options::parse_positive;
use crate::process::{Launch, Server, pin_this_thread, version};
use crate::report::{self, Setting};
use crate::resp::{Reply, ReplySkipper};
use crate::sample::{Distribution, KeyPicker, Random, THETA_DEFAULT, zipf_share};

/// Reads sent together. A key missed twice in one batch is set twice.
const BATCH: usize = 64;

/// Options of `hit-ratio`.
#[derive(Args, Clone, Debug)]
pub(crate) struct HitRatioArgs {
    #[command(flatten)]
    pair: PairArgs,
    /// Policies, separated by commas
    #[arg(long, default_value = "allkeys-lru,allkeys-lfu,allkeys-random", value_delimiter = ',')]
    policies: Vec<String>,
    /// Memory of the server
    #[arg(long, default_value = "50mb")]
    maxmemory: String,
    /// Number of keys read
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=1_048_576))]
    value_size: u64,
    /// Reads that are counted
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Reads before the counted ones
    #[arg(long, default_value_t = 1_000_000)]
    warmup_requests: u64,
    /// Exponent of the zipf distribution of reads
    #[arg(long, default_value_t = THETA_DEFAULT, value_parser = parse_positive)]
    theta: f64,
    /// Seed of the reads
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How one server did under one policy.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    hit_ratio: f64,
    keys_held: u64,
    /// Hit ratio over that of a cache that holds as many keys and always the hottest ones.
    of_ideal: f64,
    seconds: f64,
}

/// What came of one server under one policy.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Side {
    Measured(Outcome),
    Missing { error: String },
}

#[derive(Debug, Serialize)]
struct Line {
    policy: String,
    peer: Side,
    cordis: Side,
    ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Comparison<'a> {
    setting: &'a Setting,
    peer_version: String,
    cordis_version: String,
    lines: &'a [Line],
}

/// Runs the comparison of all policies.
pub(crate) fn run(args: &HitRatioArgs) -> Result<(), Fault> {
    let [peer, cordis] = args.pair.launches(false)?;
    let mut lines = Vec::new();
    for policy in &args.policies {
        let measure = |launch: &Launch| {
            report::progress(&format!("{policy}: {}", launch.program.display()));
            match server_outcome(args, launch, policy) {
                Ok(outcome) => Side::Measured(outcome),
                Err(fault) => Side::Missing { error: fault.to_string() },
            }
        };
        let (peer, cordis) = (measure(&peer), measure(&cordis));
        let ratio = match (&peer, &cordis) {
            (Side::Measured(peer), Side::Measured(cordis)) => {
                Some(cordis.hit_ratio / peer.hit_ratio)
            }
            _ => None,
        };
        lines.push(Line { policy: policy.clone(), peer, cordis, ratio });
    }
    let setting = Setting::read();
    let comparison = Comparison {
        setting: &setting,
        peer_version: version(&peer.program),
        cordis_version: version(&cordis.program),
        lines: &lines,
    };
    args.pair.publish(&setting, "hit-ratio", &text(args, &comparison), &comparison)
}

fn text(args: &HitRatioArgs, comparison: &Comparison<'_>) -> String {
    let HitRatioArgs { requests, keys, value_size, maxmemory, theta, seed, .. } = args;
    let mut text = comparison.setting.text();
    text.push_str(&format!("peer: {}\n", comparison.peer_version));
    text.push_str(&format!("cordis: {}\n\n", comparison.cordis_version));
    let mut cells = Vec::new();
    for line in comparison.lines {
        let mut row = vec![line.policy.clone()];
        let cell = |value: fn(&Outcome) -> String, side: &Side| match side {
            Side::Measured(outcome) => value(outcome),
            Side::Missing { .. } => "n/a".to_owned(),
        };
        for value in [
            (|o: &Outcome| format!("{:.4}", o.hit_ratio)) as fn(&Outcome) -> String,
            |o| o.keys_held.to_string(),
            |o| format!("{:.3}", o.of_ideal),
        ] {
            row.extend([cell(value, &line.peer), cell(value, &line.cordis)]);
        }
        row.push(line.ratio.map_or_else(|| "n/a".into(), |ratio| format!("{ratio:.3}")));
        cells.push(row);
    }
    let header = [
        "policy",
        "hits peer",
        "cordis",
        "keys peer",
        "cordis",
        "of ideal peer",
        "cordis",
        "ratio",
    ];
    text.push_str(&report::table(&header, &cells));
    text.push_str(&format!(
        "\n{requests} zipf({theta}) reads of {keys} keys of {value_size} bytes, maxmemory \
         {maxmemory}, seed {seed}\nof ideal: hits over those of as many keys, always the hottest\n"
    ));
    for line in comparison.lines {
        for (who, side) in [("peer", &line.peer), ("cordis", &line.cordis)] {
            if let Side::Missing { error } = side {
                text.push_str(&format!("{}, {who}: {error}\n", line.policy));
            }
        }
    }
    text
}

fn server_outcome(args: &HitRatioArgs, launch: &Launch, policy: &str) -> Result<Outcome, Fault> {
    let mut launch = launch.clone();
    let memory = ["--maxmemory", &args.maxmemory, "--maxmemory-policy", policy];
    launch.arguments.extend(memory.map(str::to_owned));
    let server = Server::start(&launch)?;
    let started = Instant::now();
    // A thread of its own, because the pin must not stay on the caller, who starts servers.
    let hits = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            pin_this_thread(&args.pair.load_cpu.0)?;
            let mut reader = Reader::new(args, server.link()?.into_stream());
            reader.read(args.warmup_requests)?;
            reader.read(args.requests)
        });
        reader.join().map_err(|_| Fault::failed("the reading thread panicked"))?
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let keys_held = key_count(&mut server.link()?)?;
    let hit_ratio = hits as f64 / args.requests as f64;
    let ideal = zipf_share(args.keys, keys_held, args.theta);
    Ok(Outcome { hit_ratio, keys_held, of_ideal: hit_ratio / ideal, seconds })
}

fn key_count(link: &mut Link) -> Result<u64, Fault> {
    let reply = link.call(&["DBSIZE"])?;
    let text = match &reply {
        Value::Text(text) => String::from_utf8_lossy(text),
        _ => return Err(Fault::failed(format!("DBSIZE replied {reply:?}"))),
    };
    text.parse().map_err(|_| Fault::failed(format!("DBSIZE replied '{text}'")))
}

/// A client that reads through the cache.
struct Reader {
    stream: Stream,
    skipper: ReplySkipper,
    picker: KeyPicker,
    random: Random,
    value: Vec<u8>,
    keys: Vec<u64>,
    missed: Vec<bool>,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Reader {
    fn new(args: &HitRatioArgs, stream: Stream) -> Self {
        Self {
            stream,
            skipper: ReplySkipper::new(),
            picker: KeyPicker::new(Distribution::Zipf { theta: args.theta }, args.keys),
            random: Random::new(args.seed, 0),
            value: vec![b'x'; args.value_size as usize],
            keys: Vec::with_capacity(BATCH),
            missed: Vec::with_capacity(BATCH),
            out: Vec::new(),
            buffer: vec![0; 1 << 16],
        }
    }

    /// Reads a number of keys, sets those that are missing, and returns the number of hits.
    fn read(&mut self, requests: u64) -> Result<u64, Fault> {
        let (mut left, mut hits) = (requests, 0);
        while left > 0 {
            let batch = left.min(BATCH as u64) as usize;
            self.read_batch(batch)?;
            hits += self.missed.iter().filter(|missed| !**missed).count() as u64;
            self.set_missed()?;
            left -= batch as u64;
        }
        Ok(hits)
    }

    fn read_batch(&mut self, batch: usize) -> Result<(), Fault> {
        self.out.clear();
        self.keys.clear();
        for _ in 0..batch {
            let key = self.picker.pick(&mut self.random);
            self.keys.push(key);
            put(&mut self.out, format_args!("*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n"));
        }
        self.exchange(batch)
    }

    fn set_missed(&mut self) -> Result<(), Fault> {
        self.out.clear();
        let mut sets = 0;
        for (key, _) in self.keys.iter().zip(&self.missed).filter(|(_, missed)| **missed) {
            let bytes = self.value.len();
            put(
                &mut self.out,
                format_args!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${bytes}\r\n"),
            );
            self.out.extend_from_slice(&self.value);
            self.out.extend_from_slice(b"\r\n");
            sets += 1;
        }
        if sets == 0 { Ok(()) } else { self.exchange(sets) }
    }

    /// Sends what is in `out` and notes which of its `count` replies were null.
    fn exchange(&mut self, count: usize) -> Result<(), Fault> {
        let failed = |error| Fault::failed(format!("the connection broke: {error}"));
        self.stream.write_all(&self.out).map_err(failed)?;
        self.missed.clear();
        let mut error_text = None;
        while self.missed.len() < count {
            let bytes = self.stream.read(&mut self.buffer).map_err(failed)?;
            if bytes == 0 {
                return Err(Fault::failed("the server closed the connection"));
            }
            let missed = &mut self.missed;
            let fed = self.skipper.feed(&self.buffer[..bytes], |reply| {
                missed.push(reply == Reply::Null);
                if let Reply::Error(text) = reply {
                    error_text = Some(String::from_utf8_lossy(text).into_owned());
                }
            });
            fed.map_err(|malformed| Fault::failed(malformed.to_string()))?;
        }
        error_text.map_or(Ok(()), |text| Err(Fault::failed(text)))
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}
