//! INFO: the proxy's own sections in Redis' form, and the keyspace as the sum of all servers.

use std::fmt::Write;

use cordis_engine::node::REDIS_VERSION;
use cordis_engine::sys::{malloc, usage};

use crate::asks::To;
use crate::census;
use crate::encode;
use crate::hub::Hub;
use crate::link::LinkError;
use crate::local::{Pause, tour};
use crate::shared::Shared;
use crate::stats::{self, Stats};
use crate::ways::{Call, Flow};
use crate::wide;

/// A part of the reply, in the order in which they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Section {
    Server,
    Clients,
    Memory,
    Stats,
    Replication,
    Cpu,
    Proxy,
    Backends,
    Commandstats,
    Latencystats,
    Cluster,
    Keyspace,
}

/// All, with their headings; in lower case, the names that select them.
const SECTIONS: [(Section, &str); 12] = [
    (Section::Server, "Server"),
    (Section::Clients, "Clients"),
    (Section::Memory, "Memory"),
    (Section::Stats, "Stats"),
    (Section::Replication, "Replication"),
    (Section::Cpu, "CPU"),
    (Section::Proxy, "Proxy"),
    (Section::Backends, "Backends"),
    (Section::Commandstats, "Commandstats"),
    (Section::Latencystats, "Latencystats"),
    (Section::Cluster, "Cluster"),
    (Section::Keyspace, "Keyspace"),
];

fn is_default(section: Section) -> bool {
    !matches!(section, Section::Commandstats | Section::Latencystats)
}

fn wants(words: &[String], section: Section, title: &str) -> bool {
    if words.is_empty() {
        return is_default(section);
    }
    words.iter().any(|word| {
        word.eq_ignore_ascii_case(title)
            || word.eq_ignore_ascii_case("all")
            || word.eq_ignore_ascii_case("everything")
            || (word.eq_ignore_ascii_case("default") && is_default(section))
    })
}

/// Keys of one database, over all servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DbSum {
    keys: u64,
    expires: u64,
    /// Sum of what each server says times its keys with a deadline.
    ttl_sum_ms: u128,
}

/// Adds the lines of one server's `INFO keyspace`.
pub(crate) fn add_keyspace(sums: &mut Vec<DbSum>, text: &str) {
    for line in text.lines() {
        let Some((db, facts)) = line.strip_prefix("db").and_then(|rest| rest.split_once(':'))
        else {
            continue;
        };
        // A server that says strange things is not believed much.
        let Some(db) = db.parse::<usize>().ok().filter(|&db| db < 256) else {
            continue;
        };
        if sums.len() <= db {
            sums.resize(db + 1, DbSum::default());
        }
        let fact = |name: &str| {
            let found = facts.split(',').find_map(|fact| fact.trim().strip_prefix(name));
            found.and_then(|n| n.strip_prefix('=')?.parse::<u64>().ok()).unwrap_or(0)
        };
        let (keys, expires, ttl) = (fact("keys"), fact("expires"), fact("avg_ttl"));
        sums[db].keys = sums[db].keys.saturating_add(keys);
        sums[db].expires = sums[db].expires.saturating_add(expires);
        sums[db].ttl_sum_ms += u128::from(expires) * u128::from(ttl);
    }
}

/// Asks all servers for their keyspace. A server that does not answer and a slot that nobody serves
/// are an error for all, because a sum without them would be wrong.
fn keyspace(hub: &mut Hub, done: impl FnOnce(&mut Hub, Result<Vec<DbSum>, LinkError>) + 'static) {
    let request = encode::to_vec(&[b"INFO", b"keyspace"]);
    census::ask(hub, 0, vec![request], move |hub, answers| {
        let sums = answers.and_then(|answers| {
            let mut sums = Vec::new();
            for answer in answers {
                let bytes = answer?;
                add_keyspace(&mut sums, &String::from_utf8_lossy(wide::bulk_of(&bytes)?));
            }
            Ok(sums)
        });
        done(hub, sums);
    });
}

/// Makes the text of INFO and hands it on, on the core that asked.
pub(crate) fn make(
    hub: &mut Hub,
    words: Vec<String>,
    done: impl FnOnce(&mut Hub, String) + Send + 'static,
) {
    let gather = |hub: &mut Hub, parts: &mut Vec<_>| parts.append(&mut stats::backend_parts(hub));
    tour(hub, Vec::new(), gather, move |hub, parts| {
        let stats = stats::gather(&hub.shared, &parts);
        let needs_keyspace = wants(&words, Section::Keyspace, "Keyspace");
        if !needs_keyspace {
            let text = text(hub, &words, &stats, &Ok(Vec::new()));
            return done(hub, text);
        }
        keyspace(hub, move |hub, sums| {
            let text = text(hub, &words, &stats, &sums);
            done(hub, text);
        });
    });
}

/// INFO [section ...]
pub(crate) fn info(hub: &mut Hub, call: &Call<'_>) -> Flow {
    if wide::must_wait(hub, call.session) {
        return Flow::Hold;
    }
    let words: Vec<String> =
        call.args.iter_from(1).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    // Codis: a word that is the address of a server asks that server.
    if let Some(addr) = words.first()
        && let Some(flow) = of_server(hub, call, addr)
    {
        return flow;
    }
    let place = hub.reserve(call.session);
    let pause = Pause::new(hub, call.session, call.command);
    let end = pause.clone();
    make(hub, words, move |hub, text| {
        hub.fill(place, |reply| reply.verbatim(text.as_bytes()));
        end.end(hub);
    });
    pause.flow()
}

fn of_server(hub: &mut Hub, call: &Call<'_>, addr: &str) -> Option<Flow> {
    let (id, _) = hub.backends().iter().find(|(_, backend)| backend.addr == addr)?;
    let mut words: Vec<&[u8]> = vec![b"INFO"];
    words.extend(call.args.iter_from(2));
    let request = encode::to_vec(&words);
    Some(wide::ask_one(hub, call, To::Backend(id), &request))
}

fn text(
    hub: &Hub,
    words: &[String],
    stats: &Stats,
    sums: &Result<Vec<DbSum>, LinkError>,
) -> String {
    let mut page = String::new();
    for (section, title) in SECTIONS {
        if !wants(words, section, title) {
            continue;
        }
        if !page.is_empty() {
            page.push_str("\r\n");
        }
        page.push_str(&format!("# {title}\r\n"));
        write_section(hub, section, stats, sums, &mut page);
    }
    page
}

/// Appends `name:value`.
fn line(page: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(page, "{name}:{value}\r\n");
}

fn write_section(
    hub: &Hub,
    section: Section,
    stats: &Stats,
    sums: &Result<Vec<DbSum>, LinkError>,
    page: &mut String,
) {
    match section {
        Section::Server => server(hub, page),
        Section::Clients => {
            line(page, "connected_clients", stats.sessions);
            line(page, "maxclients", hub.shared.settings.proxy_max_clients);
        }
        Section::Memory => memory(page),
        Section::Stats => counters(stats, page),
        Section::Replication => {
            line(page, "role", "master");
            line(page, "connected_slaves", 0);
        }
        Section::Cpu => {
            let cpu = usage::process();
            line(page, "used_cpu_sys", format_args!("{:.6}", cpu.system.as_secs_f64()));
            line(page, "used_cpu_user", format_args!("{:.6}", cpu.user.as_secs_f64()));
        }
        Section::Proxy => proxy(hub, stats, page),
        Section::Backends => backends(stats, page),
        Section::Commandstats => commands(stats, page),
        Section::Latencystats => latencies(stats, page),
        Section::Cluster => line(page, "cluster_enabled", 0),
        Section::Keyspace => match sums {
            Ok(sums) => databases(sums, page),
            Err(why) => line(page, "error", why),
        },
    }
}

fn server(hub: &Hub, page: &mut String) {
    let node = hub.shared.node;
    let uptime = (hub.now().0 - node.started_at.0).max(0) / 1000;
    line(page, "redis_version", REDIS_VERSION);
    line(page, "redis_mode", "standalone");
    line(page, "cordis_version", env!("CARGO_PKG_VERSION"));
    line(page, "os", std::env::consts::OS);
    line(page, "arch_bits", usize::BITS);
    line(page, "process_id", std::process::id());
    line(page, "run_id", &node.run_id);
    line(page, "uptime_in_seconds", uptime);
    line(page, "uptime_in_days", uptime / 86_400);
}

fn memory(page: &mut String) {
    if let Some(memory) = malloc::memory() {
        line(page, "used_memory", memory.used_bytes);
        line(page, "used_memory_rss", memory.resident_bytes);
    }
    line(page, "maxmemory", 0);
    line(page, "maxmemory_policy", "noeviction");
}

fn counters(stats: &Stats, page: &mut String) {
    line(page, "total_connections_received", stats.connections);
    line(page, "total_commands_processed", stats.calls);
    line(page, "total_net_input_bytes", stats.received_bytes);
    line(page, "total_net_output_bytes", stats.sent_bytes);
    line(page, "rejected_connections", stats.rejected_connections);
    line(page, "total_error_replies", stats.failed);
}

fn proxy(hub: &Hub, stats: &Stats, page: &mut String) {
    let map = hub.map();
    let served: usize =
        map.slots.iter().filter(|r| r.group != 0).map(|r| usize::from(r.to - r.from) + 1).sum();
    line(page, "product_name", &map.product);
    line(page, "map_epoch", map.epoch);
    line(page, "slots_served", served);
    line(page, "groups", map.groups.len());
    line(page, "cores", stats.cores.len());
    line(page, "redirected_requests", stats.redirected);
    line(page, "local_calls", stats.local);
    line(page, "failed_requests", stats.failed);
    line(page, "links_lost", stats.links_lost);
    line(page, "held_requests", stats.cores.iter().map(|core| core.held).sum::<u64>());
}

fn backends(stats: &Stats, page: &mut String) {
    for (i, row) in stats.backends.iter().enumerate() {
        let [p50, p99, p999] = row.percentiles;
        line(
            page,
            &format!("backend{i}"),
            format_args!(
                "addr={},links={},in_flight={},calls={},refused={},failed={},links_lost={},\
                 p50_us={p50},p99_us={p99},p999_us={p999}",
                row.addr,
                row.links,
                row.in_flight,
                row.calls,
                row.refused,
                row.failed,
                row.links_lost
            ),
        );
    }
}

fn commands(stats: &Stats, page: &mut String) {
    for row in &stats.commands {
        let per_call = row.usec as f64 / row.calls.max(1) as f64;
        line(
            page,
            &format!("cmdstat_{}", row.name),
            format_args!(
                "calls={},usec={},usec_per_call={per_call:.2},rejected_calls=0,failed_calls={}",
                row.calls, row.usec, row.failed
            ),
        );
    }
}

fn latencies(stats: &Stats, page: &mut String) {
    for row in &stats.commands {
        let [p50, p99, p999] = row.percentiles;
        line(
            page,
            &format!("latency_percentiles_usec_{}", row.name),
            format_args!("p50={p50}.000,p99={p99}.000,p99.9={p999}.000"),
        );
    }
}

fn databases(sums: &[DbSum], page: &mut String) {
    for (db, sum) in sums.iter().enumerate().filter(|(_, sum)| sum.keys > 0) {
        let ttl = sum.ttl_sum_ms / u128::from(sum.expires.max(1));
        line(
            page,
            &format!("db{db}"),
            format_args!("keys={},expires={},avg_ttl={ttl}", sum.keys, sum.expires),
        );
    }
}

/// The text of INFO for a thread that is no core; empty if the core does not answer in time.
pub fn from_outside(shared: &Shared, words: Vec<String>) -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    let ask = move |hub: &mut Hub| {
        make(hub, words, move |_, text| {
            // Whoever asked may have given up.
            let _ = sender.send(text);
        });
    };
    shared.run_on(0, Box::new(ask));
    receiver.recv_timeout(std::time::Duration::from_secs(5)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyspace_of_several_servers_is_summed() {
        let mut sums = Vec::new();
        add_keyspace(&mut sums, "# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=100\r\n");
        add_keyspace(&mut sums, "# Keyspace\r\ndb0:keys=3,expires=3,avg_ttl=500\r\ndb3:keys=1\r\n");
        add_keyspace(&mut sums, "db99999:keys=1\r\ndbx:keys=7\r\nnonsense\r\n");
        let mut page = String::new();
        databases(&sums, &mut page);
        assert_eq!(page, "db0:keys=5,expires=4,avg_ttl=400\r\ndb3:keys=1,expires=0,avg_ttl=0\r\n");
    }

    #[test]
    fn sections_are_chosen_as_redis_does() {
        let some = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(wants(&[], Section::Server, "Server"));
        assert!(!wants(&[], Section::Commandstats, "Commandstats"));
        assert!(wants(&some(&["ALL"]), Section::Commandstats, "Commandstats"));
        assert!(wants(&some(&["x", "keyspace"]), Section::Keyspace, "Keyspace"));
        assert!(!wants(&some(&["server"]), Section::Keyspace, "Keyspace"));
    }
}
