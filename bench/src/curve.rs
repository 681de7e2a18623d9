//! The curve of memory: resident bytes per element of a type over the number of elements of a key.
//!
//! Owns the points and how one is measured. Each point has a server of its own, so that neither the
//! tables nor the freed pages of another are in its figure. All points have about as many elements
//! in all, so what a server needs once is the same small share of each.
//!
//! Elements of a key come in no order: a structure that keeps them sorted would otherwise be filled
//! only at its end, which no client but a clock does.

use crate::compare::CompareArgs;
use crate::fault::Fault;
use crate::measure::{Results, SETTLE_TIME, Sample, fill_in_pipelines};
use crate::process::{Launch, Server};
use crate::workload::{Workload, WorkloadSpec};

/// The bound on the ratio of any point: no type takes more than in Redis, at any size.
pub(crate) const BUDGET: f64 = 1.0;

/// Elements of a point before `--scale`.
const ELEMENTS: u64 = 1_000_000;

/// Digits of the number that makes an element different from the others of its key.
const NUMBER_DIGITS: usize = 7;

/// Elements in one request.
const REQUEST_ELEMENTS_MAX: u64 = 100;

/// Scores are drawn below this.
const SCORES: u64 = 1_000_000;

/// Requests that a connection has under way, in bytes: what a server keeps of them when all is
/// loaded must not show.
const UNDER_WAY_BYTES: usize = 64 << 10;

/// A value that is set again and again before anything is measured.
const WARM_UP_VALUE_BYTES: usize = 1 << 10;

/// How often it is set: more bytes than a server has for receiving. Cordis goes through 2 MiB of
/// buffers per core in turn; touched during the measurement, they would be 2 B per element.
const WARM_UP_REQUESTS: u64 = 16 << 10;

/// One point of the curve.
#[derive(Clone, Debug)]
pub(crate) struct CurveRow {
    /// Its name in tables and in `--rows`.
    pub(crate) name: String,
    /// The command that adds some elements of a key.
    pub(crate) command: String,
    /// Elements that it adds.
    request_elements: u64,
    /// Elements of a key.
    key_elements: u64,
}

/// A type and what one of its elements is in a request. `#` is the number that makes the element
/// different from others of its key: eight digits of which the first is 1.
struct Shape {
    name: &'static str,
    command: &'static str,
    element: String,
}

fn shapes() -> Vec<Shape> {
    let shape = |name, command, element: &str| Shape { name, command, element: element.into() };
    // 64 bytes with the number.
    let long = "x".repeat(56);
    vec![
        shape("list", "RPUSH", "item#"),
        shape("list64", "RPUSH", &format!("#{long}")),
        shape("hash", "HSET", "field# value#"),
        shape("hash64", "HSET", &format!("field# #{long}")),
        shape("ints", "SADD", "#"),
        shape("set", "SADD", "member#"),
        shape("zset", "ZADD", "__rand_int__ member#"),
    ]
}

/// All points: of each type, keys of one element to a hundred thousand.
pub(crate) fn rows() -> Vec<CurveRow> {
    let sizes = [(1, "1"), (10, "10"), (100, "100"), (1000, "1k"), (10_000, "10k")];
    let sizes = sizes.into_iter().chain([(100_000, "100k")]);
    let of_shape = |shape: Shape| {
        sizes.clone().map(move |(key_elements, size)| {
            let request_elements = key_elements.min(REQUEST_ELEMENTS_MAX);
            CurveRow {
                name: format!("curve {} {size}", shape.name),
                command: command(&shape, request_elements, key_elements / request_elements),
                request_elements,
                key_elements,
            }
        })
    };
    shapes().into_iter().flat_map(of_shape).collect()
}

/// The request that adds `elements` elements to a key that `requests` such requests fill.
fn command(shape: &Shape, elements: u64, requests: u64) -> String {
    // Digits that tell the elements of one request apart; the request has the others.
    let own_digits = elements.ilog10() as usize;
    let request_digits = NUMBER_DIGITS - own_digits;
    let mut command = format!("{} curve:__seq/{requests}__", shape.command);
    for index in 0..elements {
        // 37 has no divisor in common with a power of ten: all indexes come, in no order.
        let own = index * 37 % elements;
        let own = if own_digits == 0 { String::new() } else { format!("{own:0own_digits$}") };
        let number = format!("1{own}__mix:{request_digits}__");
        command.push(' ');
        command.push_str(&shape.element.replace('#', &number));
    }
    command
}

/// Measures points, each on a server of its own. A point that fails says why.
pub(crate) fn measure(launch: &Launch, rows: &[CurveRow], args: &CompareArgs) -> Results {
    let point = |row| measure_point(launch, row, args).map_err(|fault| fault.to_string());
    rows.iter().map(point).collect()
}

fn measure_point(launch: &Launch, row: &CurveRow, args: &CompareArgs) -> Result<Sample, Fault> {
    let server = Server::start(launch)?;
    let workload = WorkloadSpec::uniform(&row.command, SCORES, 0);
    let keys = (ELEMENTS as f64 * args.scale / row.key_elements as f64).round().max(1.0) as u64;
    let requests = keys * row.key_elements / row.request_elements;
    let send = |workload: &WorkloadSpec, requests| {
        let request_bytes = Workload::new(workload, 0).map_err(Fault::usage)?.request_bytes_max();
        let pipeline = (UNDER_WAY_BYTES / request_bytes).clamp(1, 100) as u64;
        let cpus = &args.pair.load_cpu.0;
        fill_in_pipelines(server.target(), workload.clone(), requests, cpus, pipeline)
    };
    let load = |requests| send(&workload, requests);
    // The first requests make a server grow what it keeps for any: buffers, code, connections. They
    // must leave no freed memory behind, which what is measured would use.
    let warm_up = WorkloadSpec::uniform("SET curve:warm __data__", 1, WARM_UP_VALUE_BYTES);
    send(&warm_up, WARM_UP_REQUESTS)?;
    load(requests.div_ceil(50))?;
    server.link()?.call(&["FLUSHALL"])?;
    std::thread::sleep(SETTLE_TIME);
    let before_bytes = server.rss_bytes()?;
    load(requests)?;
    std::thread::sleep(SETTLE_TIME);
    let grown_bytes = server.rss_bytes()?.saturating_sub(before_bytes);
    Ok(Sample {
        requests_per_second: None,
        p50_us: None,
        p99_us: None,
        cost: grown_bytes as f64 / (keys * row.key_elements) as f64,
        note: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// The members of each key that so many requests make.
    fn members(row: &CurveRow, requests: u64) -> BTreeMap<String, BTreeSet<String>> {
        let mut workload =
            Workload::new(&WorkloadSpec::uniform(&row.command, SCORES, 0), 0).unwrap();
        let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for _ in 0..requests {
            let mut out = Vec::new();
            workload.append(&mut out);
            let text = String::from_utf8(out).unwrap();
            let mut words = text.split("\r\n").skip(4).step_by(2).filter(|word| !word.is_empty());
            let key = words.next().unwrap().to_owned();
            members.entry(key).or_default().extend(words.map(str::to_owned));
        }
        members
    }

    #[test]
    fn point_fills_each_key_with_as_many_different_elements_as_it_says() {
        for (size, requests, keys) in
            [("1", 50, 50), ("10", 30, 30), ("100", 20, 20), ("1k", 20, 2), ("10k", 200, 2)]
        {
            let name = format!("curve ints {size}");
            let row = rows().into_iter().find(|row| row.name == name).unwrap();
            let members = members(&row, requests);
            assert_eq!(members.len(), keys, "{name}");
            for set in members.values() {
                assert_eq!(set.len() as u64, row.key_elements, "{name}");
                assert!(set.iter().all(|member| member.len() == 1 + NUMBER_DIGITS), "{name}");
            }
        }
    }

    #[test]
    fn elements_have_the_size_that_the_name_says() {
        let of = |name: &str| {
            let row = rows().into_iter().find(|row| row.name == name).unwrap();
            members(&row, 1).into_values().next().unwrap()
        };
        assert!(of("curve list64 100").iter().all(|item| item.len() == 64));
        assert!(of("curve list 100").iter().all(|item| item.len() == 12));
        assert!(of("curve hash 10").iter().all(|word| word.len() == 13));
    }
}
