//! What stands in front of servers: proxies, and whole clusters as `cordis up` makes them.
//!
//! Everything listens on free loopback ports and writes into a directory that goes with it. Knows
//! nothing of loads and tables.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fault::Fault;
use crate::link::{Link, Target, Value};
use crate::process::{CpuTime, Daemon, free_port};

/// Slots of a cluster.
const SLOT_COUNT: usize = 1024;
/// How often a move is asked how far it is.
const STATUS_INTERVAL: Duration = Duration::from_millis(10);
/// Time after which a move has failed.
const MOVE_TIME_MAX: Duration = Duration::from_secs(120);

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    daemon: Daemon,
    port: u16,
}

impl Proxy {
    /// Starts nutcracker in front of servers.
    ///
    /// # Errors
    /// A program that does not start or does not answer.
    pub(crate) fn nutcracker(
        program: &Path,
        cpus: &[usize],
        backends: &[u16],
    ) -> Result<Self, Fault> {
        let (port, stats_port) = (free_port()?, free_port()?);
        let daemon = Daemon::start(program, cpus, |dir| {
            let config = dir.join("nutcracker.yml");
            fs::write(&config, nutcracker_config(port, backends))?;
            // It writes its log and its number where a service would, unless it is told not to.
            let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
            let words = [
                ("--conf-file", config.to_string_lossy().into_owned()),
                ("--output", path("output")),
                ("--pid-file", path("pid")),
                ("--stats-addr", "127.0.0.1".to_owned()),
                ("--stats-port", stats_port.to_string()),
            ];
            Ok(flags(&words))
        })?;
        Self::ready(daemon, port)
    }

    /// Starts a Cordis proxy in front of servers of a kind that maps know, which share the slots.
    ///
    /// # Errors
    /// A program that does not start, does not answer, or refuses its map.
    pub(crate) fn cordis(
        program: &Path,
        cpus: &[usize],
        backends: &[u16],
        kind: &str,
    ) -> Result<Self, Fault> {
        let (port, admin_port) = (free_port()?, free_port()?);
        let mut daemon = Daemon::start(program, cpus, |dir| {
            let list = crate::options::format_cpus(cpus);
            let words = [
                ("--proxy-addr", format!("127.0.0.1:{port}")),
                ("--admin-addr", format!("127.0.0.1:{admin_port}")),
                ("--cores", list),
                ("--product-name", PRODUCT.to_owned()),
                ("--dir", dir.to_string_lossy().into_owned()),
            ];
            Ok(flags(&words))
        })?;
        let admin = Target::loopback(admin_port);
        daemon.wait_for(&admin)?;
        set_map(&admin, &map(backends, kind))?;
        Self::ready(daemon, port)
    }

    fn ready(mut daemon: Daemon, port: u16) -> Result<Self, Fault> {
        daemon.wait_for(&Target::loopback(port))?;
        Ok(Self { daemon, port })
    }

    /// Where clients connect.
    pub(crate) fn target(&self) -> Target {
        Target::loopback(self.port)
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> CpuTime {
        self.daemon.cpu()
    }
}

/// Gives a proxy its map.
///
/// # Errors
/// It is not there, or refuses it.
pub(crate) fn set_map(admin: &Target, map: &str) -> Result<(), Fault> {
    match Link::open(admin)?.call(&["MAP", "SET", map])? {
        Value::Error(text) => Err(Fault::failed(format!("the proxy refuses its map: {text}"))),
        _ => Ok(()),
    }
}

/// Flags and their values as words of a command line.
pub(crate) fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), value.clone()]).collect()
}

/// The product of the maps made here.
pub(crate) const PRODUCT: &str = "bench";

/// A map in which servers share the slots evenly, one group each.
pub(crate) fn map(backends: &[u16], kind: &str) -> String {
    let count = backends.len();
    let groups = backends.iter().enumerate().map(|(at, port)| {
        json!({ "id": at + 1, "servers": [{ "addr": format!("127.0.0.1:{port}"), "kind": kind }] })
    });
    let slots = (0..count).map(|at| {
        let (from, to) = (at * SLOT_COUNT / count, (at + 1) * SLOT_COUNT / count - 1);
        json!({ "from": from, "to": to, "group": at + 1, "epoch": 1 })
    });
    let (groups, slots): (Vec<_>, Vec<_>) = (groups.collect(), slots.collect());
    json!({ "product": PRODUCT, "epoch": 1, "groups": groups, "slots": slots }).to_string()
}

/// Nutcracker's configuration: no server is ever left out, and links are made beforehand, as a
/// Cordis proxy does.
fn nutcracker_config(port: u16, backends: &[u16]) -> String {
    let mut text = format!(
        "{PRODUCT}:\n  listen: 127.0.0.1:{port}\n  hash: crc32\n  distribution: modula\n  \
         redis: true\n  preconnect: true\n  auto_eject_hosts: false\n  servers:\n"
    );
    for backend in backends {
        text.push_str(&format!("   - 127.0.0.1:{backend}:1\n"));
    }
    text
}

/// A running cluster: control, a proxy, and two groups of one server.
#[derive(Debug)]
pub(crate) struct Cluster {
    daemon: Daemon,
    proxy_port: u16,
    control_port: u16,
}

/// How a move went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// From the order until it was known to be finished.
    pub(crate) seconds: f64,
    /// Keys that went over.
    pub(crate) keys: u64,
    /// Longest time for which a slot answered nothing, as the servers tell.
    pub(crate) pause_max_us: u64,
}

impl Cluster {
    /// Starts a cluster with `cordis up` and waits until all slots are served.
    ///
    /// # Errors
    /// A program that does not start, or a cluster that does not serve.
    pub(crate) fn start(program: &Path) -> Result<Self, Fault> {
        let [proxy_port, control_port, server_port] = free_pairs()?;
        let daemon = Daemon::start(program, &[], |dir| {
            let words = [
                ("--dir", dir.join("up").to_string_lossy().into_owned()),
                ("--port", proxy_port.to_string()),
                ("--admin-port", control_port.to_string()),
                ("--server-port", server_port.to_string()),
            ];
            Ok(std::iter::once("up".to_owned()).chain(flags(&words)).collect())
        })?;
        let mut cluster = Self { daemon, proxy_port, control_port };
        let target = cluster.target();
        cluster.daemon.wait_until("serves nothing", || {
            let size = Link::open(&target).and_then(|mut link| link.call(&["DBSIZE"]));
            matches!(size, Ok(Value::Text(_)))
        })?;
        Ok(cluster)
    }

    /// Where clients connect.
    pub(crate) fn target(&self) -> Target {
        Target::loopback(self.proxy_port)
    }

    /// Number of keys, as the proxy tells.
    pub(crate) fn keys(&self) -> Result<u64, Fault> {
        let reply = Link::open(&self.target())?.call(&["DBSIZE"])?;
        number(&reply).ok_or_else(|| Fault::failed(format!("DBSIZE answers {reply:?}")))
    }

    /// CPU time so far of its processes, by name. Servers are numbered by their ports, which say
    /// nothing, so their names are their order.
    pub(crate) fn cpu(&self) -> Result<BTreeMap<String, CpuTime>, Fault> {
        let dir = self.daemon.dir().join("up");
        let folders = fs::read_dir(&dir)
            .map_err(|error| Fault::failed(format!("cannot read {}: {error}", dir.display())))?;
        let mut names: Vec<String> =
            folders.flatten().map(|entry| entry.file_name().to_string_lossy().into()).collect();
        names.sort();
        let mut times = BTreeMap::new();
        let mut servers = 0;
        for name in names {
            // What has no number is no process.
            let Some(pid) = pid(&dir.join(&name)) else {
                continue;
            };
            let program = if name.starts_with("server-") {
                servers += 1;
                format!("cordis-server {servers}")
            } else {
                format!("cordis-{name}")
            };
            times.insert(program, CpuTime::of(pid));
        }
        Ok(times)
    }

    /// Moves slots to a group and waits until all of them are there.
    ///
    /// # Errors
    /// A move that is refused, fails, or does not end.
    pub(crate) fn move_slots(&self, slots: &str, group: u16) -> Result<Moved, Fault> {
        let mut link = Link::open(&Target::loopback(self.control_port))?;
        let begun = Instant::now();
        let reply = link.call(&["SLOTS", "MOVE", slots, "TO", &group.to_string()])?;
        let id = field(&reply, "id").and_then(number);
        let id = id.ok_or_else(|| Fault::failed(format!("SLOTS MOVE answers {}", text(&reply))))?;
        let id = id.to_string();
        // Told of what is under way only, so the largest that was seen is kept.
        let mut pause_max_us = 0;
        loop {
            let reply = link.call(&["MOVE", "STATUS", &id])?;
            let seconds = begun.elapsed().as_secs_f64();
            let Value::List(rows) = &reply else {
                return Err(Fault::failed(format!("MOVE STATUS answers {}", text(&reply))));
            };
            let of = |name| rows.first().and_then(|row| field(row, name));
            let count = |name| of(name).and_then(number).unwrap_or(0);
            pause_max_us = pause_max_us.max(count("pause_max_us"));
            match of("state").map(text).as_deref() {
                Some("finished") => {
                    return Ok(Moved { seconds, keys: count("keys"), pause_max_us });
                }
                Some("failed" | "cancelled") | None => {
                    let why = of("error").map(text).unwrap_or_default();
                    return Err(Fault::failed(format!("the move of {slots} failed: {why}")));
                }
                Some(state) if begun.elapsed() > MOVE_TIME_MAX => {
                    let why = of("error").map(text).unwrap_or_default();
                    return Err(Fault::failed(format!(
                        "the move of {slots} is {state} after {seconds:.0} s: {why}"
                    )));
                }
                Some(_) => std::thread::sleep(STATUS_INTERVAL),
            }
        }
    }
}

/// The process that a folder of `cordis up` belongs to.
fn pid(folder: &Path) -> Option<u32> {
    fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok()
}

/// Ports with nothing listening on them and on the next one.
fn free_pairs<const N: usize>() -> Result<[u16; N], Fault> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let pair = (0..100).find_map(|_| {
            let first = TcpListener::bind(("127.0.0.1", 0)).ok()?;
            let port = first.local_addr().ok()?.port();
            let second = TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok()?;
            Some((port, [first, second]))
        });
        let Some((first, listeners)) = pair else {
            return Err(Fault::failed("cannot find two free ports side by side"));
        };
        // All are held until all are found, so that none is found twice.
        held.extend(listeners);
        *port = first;
    }
    Ok(ports)
}

/// The value of a name in a map.
fn field<'v>(map: &'v Value, name: &str) -> Option<&'v Value> {
    let Value::List(parts) = map else {
        return None;
    };
    let mut pairs = parts.chunks_exact(2);
    pairs.find(|pair| text(&pair[0]) == name).map(|pair| &pair[1])
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Error(text) => text.clone(),
        Value::Null => String::new(),
        Value::List(_) => format!("{value:?}"),
    }
}

fn number(value: &Value) -> Option<u64> {
    text(value).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_of_two_servers_has_every_slot_once() {
        let map: serde_json::Value = serde_json::from_str(&map(&[7001, 7002], "redis")).unwrap();
        let bounds = |at: usize| {
            let range = &map["slots"][at];
            [&range["from"], &range["to"], &range["group"]].map(|n| n.as_u64().unwrap())
        };
        assert_eq!([bounds(0), bounds(1)], [[0, 511, 1], [512, 1023, 2]]);
        let server = &map["groups"][1]["servers"][0];
        assert_eq!((&server["addr"], &server["kind"]), (&"127.0.0.1:7002".into(), &"redis".into()));
    }

    #[test]
    fn nutcracker_config_lists_every_backend() {
        let text = nutcracker_config(7000, &[7001, 7002]);
        assert!(text.starts_with("bench:\n  listen: 127.0.0.1:7000\n  hash: crc32\n"), "{text}");
        assert!(
            text.ends_with("servers:\n   - 127.0.0.1:7001:1\n   - 127.0.0.1:7002:1\n"),
            "{text}"
        );
    }

    #[test]
    fn field_finds_names_not_values() {
        let word = |text: &str| Value::Text(text.into());
        let map = Value::List(vec![word("a"), word("keys"), word("keys"), word("7")]);
        assert_eq!(field(&map, "keys").and_then(number), Some(7));
        assert_eq!(field(&map, "b"), None);
        assert_eq!(field(&Value::Null, "a"), None);
    }

    #[test]
    fn free_pairs_differ() {
        let mut ports: Vec<u16> =
            free_pairs::<3>().unwrap().iter().flat_map(|&port| [port, port + 1]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }
}
