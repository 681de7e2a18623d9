//! `huge`: what others feel while a client does things to a value of millions of elements.
//!
//! One connection makes, reads, renames, copies, overwrites, expires and deletes a list, a hash, a
//! set and a sorted set, makes calls of very many words, and works on a long string; another sends
//! PING all the time and measures. Beside its latencies stand the turn times that Cordis itself
//! counts (`INFO cores`), and how long its threads waited for their processor: a turn lasts that
//! much longer on a machine that does something else as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::compare::PairArgs;
use crate::fault::Fault;
use crate::link::{Link, Target, Value};
use crate::process::{Launch, Server, pin_this_thread, version};
use crate::report::{self, Setting};

/// Words of the widest calls: nearly as many as there can be.
const WORDS_MAX: u64 = 1_000_000;
/// Length of the long string.
const TEXT_BYTES: u64 = 100_000_000;
/// Elements that one call of the preparation adds.
const BATCH: u64 = 100;
/// Lazy work after a call counts to it: so long is waited, and measured.
const AFTERMATH: Duration = Duration::from_millis(300);

/// Options of `huge`.
#[derive(Args, Clone, Debug)]
pub(crate) struct HugeArgs {
    #[command(flatten)]
    pair: PairArgs,
    /// Elements of a value
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    elements: u64,
    /// Types, separated by commas; `words` are calls of many words, `text` is a long string
    #[arg(long, default_value = "list,hash,set,zset,words,text", value_delimiter = ',')]
    types: Vec<String>,
    /// Leave the peer out
    #[arg(long)]
    alone: bool,
}

/// What one step cost.
#[derive(Clone, Debug, Serialize)]
struct Cost {
    step: String,
    seconds: f64,
    ping_p9999_us: f64,
    ping_max_us: f64,
    /// `turn_usec_p99.99` and `_max` of the busiest core.
    turn_p9999_us: Option<f64>,
    turn_max_us: Option<f64>,
    /// How long the server's threads waited for a processor that something else had.
    waited_us: f64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    setting: &'a Setting,
    elements: u64,
    peer_version: String,
    cordis_version: String,
    peer: Vec<Cost>,
    cordis: Vec<Cost>,
}

/// Runs the subcommand.
pub(crate) fn run(args: &HugeArgs) -> Result<(), Fault> {
    let [peer, cordis] = args.pair.launches(false)?;
    let ours = measure(args, &cordis)?;
    let theirs = if args.alone { Vec::new() } else { measure(args, &peer)? };
    let setting = Setting::read();
    let report = Report {
        setting: &setting,
        elements: args.elements,
        peer_version: version(&peer.program),
        cordis_version: version(&cordis.program),
        peer: theirs,
        cordis: ours,
    };
    args.pair.publish(&setting, "huge", &text(&report), &report)
}

fn text(report: &Report<'_>) -> String {
    let mut text = report.setting.text();
    text.push_str(&format!("peer: {}\n", report.peer_version));
    text.push_str(&format!("cordis: {}\n", report.cordis_version));
    text.push_str(&format!("values of {} elements\n\n", report.elements));
    let header = [
        "step",
        "s peer",
        "cordis",
        "ping max us peer",
        "cordis",
        "ping p99.99 us peer",
        "cordis",
        "turn p99.99 us",
        "max us",
        "waited us",
    ];
    let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.0}"));
    let rows: Vec<Vec<String>> = report
        .cordis
        .iter()
        .enumerate()
        .map(|(i, ours)| {
            let peer = report.peer.get(i);
            vec![
                ours.step.clone(),
                peer.map_or_else(|| "-".to_owned(), |peer| format!("{:.2}", peer.seconds)),
                format!("{:.2}", ours.seconds),
                number(peer.map(|peer| peer.ping_max_us)),
                number(Some(ours.ping_max_us)),
                number(peer.map(|peer| peer.ping_p9999_us)),
                number(Some(ours.ping_p9999_us)),
                number(ours.turn_p9999_us),
                number(ours.turn_max_us),
                number(Some(ours.waited_us)),
            ]
        })
        .collect();
    text + &report::table(&header, &rows)
}

fn measure(args: &HugeArgs, launch: &Launch) -> Result<Vec<Cost>, Fault> {
    report::progress(&format!("{}: {} elements", launch.program.display(), args.elements));
    let server = Server::start(launch)?;
    let cpus = args.pair.load_cpu.0.clone();
    // A thread of its own, because the pin must not stay on the caller, who starts servers.
    std::thread::scope(|scope| {
        let server = &server;
        let worker = scope.spawn(move || {
            pin_this_thread(&cpus)?;
            let mut costs = Vec::new();
            for kind in &args.types {
                for (step, calls) in steps(kind, args.elements)? {
                    costs.push(measure_step(server, &format!("{kind}: {step}"), &calls)?);
                }
            }
            Ok(costs)
        });
        worker.join().map_err(|_| Fault::failed("the load has panicked"))?
    })
}

/// What is sent in one step.
enum Calls {
    /// So many calls that add elements, made by this function.
    Fill(u64, fn(u64) -> Vec<String>),
    /// These calls, one after another.
    Each(Vec<Vec<String>>),
}

fn call(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// The words of a call that adds the `n`th batch.
fn batch(n: u64, head: &str, words: impl Fn(u64) -> Vec<String>) -> Vec<String> {
    let mut all = call(head);
    all.extend((n * BATCH..(n + 1) * BATCH).flat_map(words));
    all
}

/// A call of `line` and so many words for each number below `count`.
fn wide(line: &str, count: u64, words: impl Fn(u64) -> Vec<String>) -> Calls {
    let mut all = call(line);
    all.extend((0..count).flat_map(words));
    Calls::Each(vec![all])
}

/// Calls of as many words as a server takes, on one key each and on many.
fn wide_steps() -> Vec<(&'static str, Calls)> {
    const COUNT: u64 = WORDS_MAX / 2;
    let one = |n: u64| vec![format!("member:{n}")];
    let pair = |n: u64| vec![format!("member:{n}"), "v".to_owned()];
    let scored = |n: u64| vec![(n * 7_919 % 1_000_003).to_string(), format!("member:{n}")];
    vec![
        ("SADD", wide("SADD s", WORDS_MAX, one)),
        ("SADD to a set that is there", wide("SADD s", WORDS_MAX, |n| one(n + COUNT))),
        ("SMISMEMBER", wide("SMISMEMBER s", WORDS_MAX, one)),
        ("SREM", wide("SREM s", WORDS_MAX, one)),
        ("HSET", wide("HSET h", COUNT, pair)),
        ("HMGET", wide("HMGET h", WORDS_MAX, one)),
        ("HDEL", wide("HDEL h", WORDS_MAX, one)),
        ("RPUSH", wide("RPUSH l", WORDS_MAX, one)),
        ("ZADD", wide("ZADD z", COUNT, scored)),
        ("ZREM", wide("ZREM z", WORDS_MAX, one)),
        ("PFADD", wide("PFADD p", WORDS_MAX, one)),
        ("MSET", wide("MSET", COUNT, pair)),
        ("MGET", wide("MGET", WORDS_MAX, one)),
        ("EXISTS", wide("EXISTS", WORDS_MAX, one)),
        ("DEL", wide("DEL", WORDS_MAX, one)),
    ]
}

/// What is done to one string of `len` bytes.
fn text_steps(len: u64) -> Vec<(&'static str, Calls)> {
    let one = |line: &str| Calls::Each(vec![call(line)]);
    let letters = (0..len).map(|n| char::from(b'a' + ((n * 7_919) >> 7) as u8 % 13)).collect();
    vec![
        ("SET", Calls::Each(vec![vec!["SET".into(), "text".into(), letters]])),
        ("DUMP", one("DUMP text")),
        ("GETRANGE", one("GETRANGE text 1000 -1000")),
        ("BITCOUNT", one("BITCOUNT text")),
        ("BITOP", one("BITOP NOT other text")),
        ("COPY", one("COPY text copied")),
        ("APPEND", one("APPEND copied x")),
        ("SETRANGE", one("SETRANGE copied 1000 x")),
        ("overwrite", one("SET copied x")),
        ("delete", one("DEL text other")),
    ]
}

fn steps(kind: &str, elements: u64) -> Result<Vec<(&'static str, Calls)>, Fault> {
    match kind {
        "words" => return Ok(wide_steps()),
        "text" => return Ok(text_steps(TEXT_BYTES)),
        _ => {}
    }
    let fill: fn(u64) -> Vec<String> = match kind {
        "list" => |n| batch(n, "RPUSH big", |i| vec![format!("element:{i}")]),
        "hash" => |n| batch(n, "HSET big", |i| vec![format!("field:{i}"), format!("value:{i}")]),
        "set" => |n| batch(n, "SADD big", |i| vec![format!("member:{i}")]),
        "zset" => |n| {
            batch(n, "ZADD big", |i| vec![(i * 7_919 % 1_000_003).to_string(), format!("m:{i}")])
        },
        other => return Err(Fault::usage(format!("there is no type '{other}'"))),
    };
    let (read, store) = match kind {
        "list" => ("LRANGE big 0 -1", "SORT big BY nosort STORE stored"),
        "hash" => ("HGETALL big", "COPY big stored"),
        "set" => ("SMEMBERS big", "SUNIONSTORE stored big"),
        _ => ("ZRANGE big 0 -1 WITHSCORES", "ZUNIONSTORE stored 1 big"),
    };
    let one = |line: &str| Calls::Each(vec![call(line)]);
    Ok(vec![
        ("create", Calls::Fill(elements / BATCH, fill)),
        ("read all", one(read)),
        ("rename", Calls::Each(vec![call("RENAME big other"), call("RENAME other big")])),
        ("store", one(store)),
        ("expire", one("PEXPIRE stored 1")),
        ("copy", one("COPY big copied")),
        ("overwrite", one("SET copied text")),
        ("delete", one("DEL big")),
    ])
}

fn measure_step(server: &Server, step: &str, calls: &Calls) -> Result<Cost, Fault> {
    let mut target = server.target();
    target.timeout = Duration::from_secs(300);
    let mut link = Link::open(&target)?;
    // A server without this command has no turns to count either.
    link.call(&["CONFIG", "RESETSTAT"])?;
    let stop = AtomicBool::new(false);
    let waited_ns = server.waited_ns();
    let (seconds, latencies) = std::thread::scope(|scope| {
        let pinger = scope.spawn(|| ping(&target, &stop));
        let begun = Instant::now();
        let sent = send(&mut link, calls);
        let seconds = begun.elapsed().as_secs_f64();
        std::thread::sleep(AFTERMATH);
        stop.store(true, Ordering::Relaxed);
        let latencies = pinger.join().map_err(|_| Fault::failed("the pinger has panicked"))?;
        sent.and(latencies).map(|latencies| (seconds, latencies))
    })?;
    let turn = |name: &str, link: &mut Link| turn_us(link, name);
    Ok(Cost {
        step: step.to_owned(),
        seconds,
        ping_p9999_us: latencies.value_at_quantile(0.9999) as f64 / 1e3,
        ping_max_us: latencies.max() as f64 / 1e3,
        turn_p9999_us: turn("turn_usec_p99.99=", &mut link),
        turn_max_us: turn("turn_usec_max=", &mut link),
        waited_us: server.waited_ns().saturating_sub(waited_ns) as f64 / 1e3,
    })
}

fn send(link: &mut Link, calls: &Calls) -> Result<(), Fault> {
    let made;
    let all: Box<dyn Iterator<Item = Vec<String>>> = match calls {
        Calls::Each(all) => Box::new(all.iter().cloned()),
        Calls::Fill(count, make) => {
            made = *make;
            Box::new((0..*count).map(made))
        }
    };
    for call in all {
        let words: Vec<&str> = call.iter().map(String::as_str).collect();
        if let Value::Error(text) = link.call(&words)? {
            return Err(Fault::failed(format!("{} refused: {text}", words[0])));
        }
    }
    Ok(())
}

/// Sends PING until told to stop. Latencies in nanoseconds.
fn ping(target: &Target, stop: &AtomicBool) -> Result<Histogram<u64>, Fault> {
    let mut link = Link::open(target)?;
    let mut latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .map_err(|e| Fault::failed(e.to_string()))?;
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        link.call(&["PING"])?;
        latencies.saturating_record(sent.elapsed().as_nanos() as u64);
    }
    Ok(latencies)
}

/// The largest number behind `name` in `INFO cores`.
fn turn_us(link: &mut Link, name: &str) -> Option<f64> {
    let Ok(Value::Text(info)) = link.call(&["INFO", "cores"]) else {
        return None;
    };
    let info = String::from_utf8_lossy(&info).into_owned();
    let numbers =
        info.split([',', '\r', '\n']).filter_map(|part| part.strip_prefix(name)?.parse().ok());
    numbers.fold(None, |max: Option<f64>, n: f64| Some(max.map_or(n, |max| max.max(n))))
}
