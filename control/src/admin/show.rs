//! What is known, as replies. Tables are arrays of maps with the same keys; units are in the names.

use std::collections::BTreeMap;

use cordis_engine::resp::value::Value;
use cordis_engine::units::SLOT_COUNT;

use super::table::{COMMANDS, Show};
use crate::machine::peer::Peer;
use crate::machine::plan::Step;
use crate::machine::request::Sample;
use crate::machine::{Machine, Outcome};
use crate::model::{Model, Op, OpState};
use crate::ranges::SlotSet;
use crate::settings::SETTINGS;

/// The process around the machine.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Where it takes commands.
    pub admin_addr: String,
    /// Where it keeps things.
    pub store: String,
    /// When it began.
    pub started_ms: i64,
    /// Why the store cannot be written; empty: it can.
    pub store_error: String,
}

fn row(fields: Vec<(&str, Value)>) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (Value::text(name), value)).collect())
}

fn int(n: impl TryInto<i64>) -> Value {
    Value::Int(n.try_into().unwrap_or(i64::MAX))
}

fn text(text: impl Into<String>) -> Value {
    Value::text(text)
}

fn yes(yes: bool) -> Value {
    text(if yes { "yes" } else { "no" })
}

/// What is asked to be shown.
pub fn show(machine: &Machine, process: &Process, now_ms: i64, what: &Show) -> Value {
    let model = machine.model();
    match what {
        Show::Ping => Value::simple("PONG"),
        Show::Help(words) => help(words),
        Show::Info => info(machine, process, now_ms),
        Show::Status => status(machine, process),
        Show::Groups => groups(machine),
        Show::Servers => servers(machine, now_ms),
        Show::Slots => slots(model),
        Show::Proxies => proxies(machine, now_ms),
        Show::Moves(id) => moves(machine, now_ms, *id),
        Show::Events(count, since) => events(model, *count, *since),
        Show::Map => text(machine.map().to_json()),
        Show::Config(pattern) => config(model, pattern),
    }
}

fn help(words: &str) -> Value {
    let session = [
        ("AUTH secret", "Proves that you may be here."),
        ("HELLO [2|3] [AUTH user secret]", "Chooses the protocol of the replies."),
        ("QUIT", "Closes the connection."),
    ];
    let mut lines: Vec<String> = COMMANDS
        .iter()
        .map(|spec| (format!("{} {}", spec.words, spec.args).trim_end().to_owned(), spec.summary))
        .chain(session.map(|(usage, summary)| (usage.to_owned(), summary)))
        .filter(|(usage, _)| usage.starts_with(words))
        .map(|(usage, summary)| format!("{usage} - {summary}"))
        .collect();
    lines.sort();
    Value::Array(lines.into_iter().map(Value::Simple).collect())
}

fn info(machine: &Machine, process: &Process, now_ms: i64) -> Value {
    let meta = &machine.model().meta;
    row(vec![
        ("version", text(env!("CARGO_PKG_VERSION"))),
        ("process_id", int(std::process::id())),
        ("uptime_seconds", int((now_ms - process.started_ms) / 1000)),
        ("admin_addr", text(&process.admin_addr)),
        ("product", text(&meta.product)),
        ("store", text(&process.store)),
        ("store_error", text(&process.store_error)),
        ("epoch", int(meta.epoch)),
        ("map_epoch", int(meta.map_epoch)),
        ("events", int(meta.event_id)),
    ])
}

fn status(machine: &Machine, process: &Process) -> Value {
    let model = machine.model();
    let is_up = |addr: &str| machine.peer(addr).is_some_and(Peer::is_up);
    let servers: Vec<bool> = model.servers().map(|(_, server)| is_up(&server.addr)).collect();
    let proxies: Vec<bool> = model.proxies.values().map(|p| is_up(&p.admin_addr)).collect();
    let up = |members: &[bool]| members.iter().filter(|up| **up).count();
    let offline = model.slots_where(|slot| slot.group == 0);
    let moving = model.slots_where(|slot| slot.action.is_some());
    let state = match () {
        () if !process.store_error.is_empty() => "store cannot be written",
        () if up(&servers) < servers.len() => "a server is down",
        () if !offline.is_empty() => "slots are offline",
        () if up(&proxies) < proxies.len() => "a proxy is down",
        () if model.meta.is_paused && !moving.is_empty() => "paused",
        () if !moving.is_empty() => "moving",
        () => "ok",
    };
    row(vec![
        ("product", text(&model.meta.product)),
        ("state", text(state)),
        ("map_epoch", int(model.meta.map_epoch)),
        ("groups", Value::count(model.groups.len())),
        ("servers", Value::count(servers.len())),
        ("servers_up", Value::count(up(&servers))),
        ("proxies", Value::count(proxies.len())),
        ("proxies_up", Value::count(up(&proxies))),
        ("slots_served", Value::count(SLOT_COUNT - offline.len())),
        ("slots_offline", text(offline.to_string())),
        ("slots_moving", Value::count(moving.len())),
        ("paused", yes(model.meta.is_paused)),
        ("last_event", text(model.events.back().map_or("", |event| event.text.as_str()))),
    ])
}

fn groups(machine: &Machine) -> Value {
    let model = machine.model();
    let group = |group: &crate::model::Group| {
        let slots = model.slots_of(group.id);
        let coming =
            model.slots_where(|slot| slot.action.is_some_and(|action| action.target == group.id));
        let addrs: Vec<&str> = group.servers.iter().map(|server| server.addr.as_str()).collect();
        row(vec![
            ("id", int(group.id)),
            ("servers", text(addrs.join(" "))),
            ("slot_count", Value::count(slots.len())),
            ("slots", text(slots.to_string())),
            ("slots_coming", Value::count(coming.len())),
        ])
    };
    Value::Array(model.groups.values().map(group).collect())
}

/// Whether a member answers, how long ago it did, and the map that it has.
fn health(machine: &Machine, now_ms: i64, addr: &str) -> Vec<(&'static str, Value)> {
    let peer = machine.peer(addr);
    let heard = peer.filter(|peer| peer.heard_ms > 0).map(|peer| now_ms - peer.heard_ms);
    vec![
        ("up", yes(peer.is_some_and(Peer::is_up))),
        ("heard_ms", heard.map_or(Value::Null, int)),
        ("map_epoch", int(peer.map_or(0, |peer| peer.map_acked))),
        ("error", text(peer.filter(|p| !p.is_up()).map_or("", |peer| peer.error.as_str()))),
    ]
}

fn servers(machine: &Machine, now_ms: i64) -> Value {
    let server = |(group, server): (&crate::model::Group, &crate::model::Server)| {
        let hello = machine.peer(&server.addr).and_then(|peer| peer.hello.as_ref());
        let mut fields = vec![
            ("addr", text(&server.addr)),
            ("group", int(group.id)),
            ("kind", text(format!("{:?}", server.kind).to_lowercase())),
            ("datacenter", text(&server.datacenter)),
            ("joined", yes(server.is_joined)),
            ("version", text(hello.map_or("", |hello| hello.version.as_str()))),
            ("cores", hello.map_or(Value::Null, |hello| int(hello.cores))),
        ];
        fields.extend(health(machine, now_ms, &server.addr));
        row(fields)
    };
    Value::Array(machine.model().servers().map(server).collect())
}

fn proxies(machine: &Machine, now_ms: i64) -> Value {
    let proxy = |proxy: &crate::model::Proxy| {
        let mut fields = vec![
            ("id", int(proxy.id)),
            ("proxy_addr", text(&proxy.proxy_addr)),
            ("admin_addr", text(&proxy.admin_addr)),
            ("token", text(&proxy.token)),
        ];
        fields.extend(health(machine, now_ms, &proxy.admin_addr));
        row(fields)
    };
    Value::Array(machine.model().proxies.values().map(proxy).collect())
}

fn slots(model: &Model) -> Value {
    let of = |slot: u16| {
        let now = model.slot(slot);
        (now.group, now.epoch, model.action_state(slot), now.action.map_or(0, |a| a.target))
    };
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for slot in 0..SLOT_COUNT as u16 {
        match ranges.last_mut() {
            Some(last) if of(last.0) == of(slot) => last.1 = slot,
            _ => ranges.push((slot, slot)),
        }
    }
    let range = |(from, to): (u16, u16)| {
        let (group, epoch, state, target) = of(from);
        row(vec![
            ("from", int(from)),
            ("to", int(to)),
            ("group", int(group)),
            ("epoch", int(epoch)),
            ("state", text(if group == 0 { "offline" } else { state })),
            ("target", if target == 0 { Value::Null } else { int(target) }),
        ])
    };
    Value::Array(ranges.into_iter().map(range).collect())
}

fn moves(machine: &Machine, now_ms: i64, id: Option<u64>) -> Value {
    let ops = machine.model().ops.values().filter(|op| id.is_none_or(|id| id == op.id));
    let rows: Vec<Value> = ops.map(|op| operation(machine, now_ms, op)).collect();
    match id {
        Some(id) if rows.is_empty() => Value::Error(format!("ERR no operation {id}")),
        _ => Value::Array(rows),
    }
}

/// The state of an operation in the words of its slots.
fn state_of(machine: &Machine, op: &Op) -> &'static str {
    match op.state {
        OpState::Done => "finished",
        OpState::Failed => "failed",
        OpState::Cancelled => "cancelled",
        OpState::Running => {
            let mut carriers = machine.model().moves.values().filter(|m| m.op == op.id);
            carriers.next_back().map_or("pending", |carrier| carrier.state.name())
        }
    }
}

fn operation(machine: &Machine, now_ms: i64, op: &Op) -> Value {
    let (mut keys, mut bytes, mut pause_max_us) = (op.keys, op.bytes, op.pause_max_us);
    let mut error = op.reason.clone();
    for carrier in machine.model().moves.values().filter(|carrier| carrier.op == op.id) {
        if let Some((report, _)) = machine.report(carrier.id) {
            keys += report.keys;
            bytes += report.bytes;
            pause_max_us = pause_max_us.max(report.pause_max_us);
            if error.is_empty() {
                error.clone_from(&report.error);
            }
        }
    }
    let until_ms = if op.ended_ms > 0 { op.ended_ms } else { now_ms };
    let elapsed_ms = (until_ms - op.created_ms).max(1);
    let rate = keys.saturating_mul(1000) / elapsed_ms as u64;
    let over = i64::from(op.done + op.failed);
    let left = i64::from(op.total) - over;
    let eta = match (op.state, over) {
        (OpState::Running, 0) => Value::Null,
        (OpState::Running, over) => int((elapsed_ms * left / over + 999) / 1000),
        _ => Value::Int(0),
    };
    let list =
        |groups: &[u16]| text(groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    row(vec![
        ("id", int(op.id)),
        ("kind", text(&op.kind)),
        ("state", text(state_of(machine, op))),
        ("from_group", list(&op.from)),
        ("to_group", list(&op.to)),
        ("slots", text(op.slots.to_string())),
        ("total_slots", int(op.total)),
        ("done_slots", int(op.done)),
        ("failed_slots", int(op.failed)),
        ("keys", int(keys)),
        ("bytes", int(bytes)),
        ("rate_keys_per_second", int(rate)),
        ("eta_seconds", eta),
        ("pause_max_us", int(pause_max_us)),
        ("error", text(error)),
    ])
}

fn events(model: &Model, count: usize, since: u64) -> Value {
    let chosen: Vec<_> = model.events.iter().filter(|event| event.id > since).collect();
    let skipped = chosen.len().saturating_sub(count);
    let event = |event: &&crate::model::LogEvent| {
        row(vec![
            ("id", int(event.id)),
            ("at_ms", int(event.at_ms)),
            ("kind", text(&event.kind)),
            ("text", text(&event.text)),
        ])
    };
    Value::Array(chosen[skipped..].iter().map(event).collect())
}

fn config(model: &Model, pattern: &str) -> Value {
    let matching = SETTINGS.iter().filter(|spec| is_match(pattern, spec.name));
    let pair = |spec: &crate::settings::SettingSpec| {
        (text(spec.name), text(spec.get(&model.settings).to_string()))
    };
    Value::Map(matching.map(pair).collect())
}

/// Whether a name matches a pattern in which `*` stands for anything.
fn is_match(pattern: &str, name: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// What came of a wish, as a reply.
pub fn outcome(machine: &Machine, outcome: &Result<Outcome, String>) -> Value {
    match outcome {
        Err(why) => Value::Error(format!("ERR {why}")),
        Ok(Outcome::Done) => Value::simple("OK"),
        Ok(Outcome::Begun { op, slots }) => {
            row(vec![("id", int(*op)), ("slots", Value::count(*slots))])
        }
        Ok(Outcome::Plan(steps)) => plan(steps),
        Ok(Outcome::Proxy { id, token }) => row(vec![("id", int(*id)), ("token", text(token))]),
        Ok(Outcome::Top(samples)) => top(machine, samples),
    }
}

fn plan(steps: &[Step]) -> Value {
    let mut pairs: BTreeMap<(u16, u16), SlotSet> = BTreeMap::new();
    for step in steps {
        pairs.entry((step.from, step.to)).or_default().insert(step.slot);
    }
    let pair = |((from, to), slots): ((u16, u16), SlotSet)| {
        row(vec![
            ("from_group", int(from)),
            ("to_group", int(to)),
            ("slot_count", Value::count(slots.len())),
            ("slots", text(slots.to_string())),
        ])
    };
    Value::Array(pairs.into_iter().map(pair).collect())
}

fn top(machine: &Machine, samples: &BTreeMap<String, Option<Sample>>) -> Value {
    let model = machine.model();
    let member = |(addr, sample): (&String, &Option<Sample>)| {
        let group = model.group_of(addr);
        let empty = Sample::default();
        let look = sample.as_ref().unwrap_or(&empty);
        let number = |names: &[&str]| {
            let known = names.iter().find(|name| look.field(name).is_some());
            known.map_or(Value::Null, |name| int(look.number(name)))
        };
        let keys: u64 = look.keys.iter().map(|(_, keys)| keys).sum();
        let latency = look.field("latency_percentiles_usec_all").unwrap_or_default();
        row(vec![
            ("addr", text(addr)),
            ("role", text(if group.is_some() { "server" } else { "proxy" })),
            ("group", group.map_or(Value::Null, int)),
            ("up", yes(sample.is_some())),
            (
                "cores",
                machine
                    .peer(addr)
                    .and_then(|p| p.hello.as_ref())
                    .map_or_else(|| number(&["cores"]), |hello| int(hello.cores)),
            ),
            ("slots", group.map_or(Value::Null, |g| Value::count(model.slots_of(g).len()))),
            ("keys", if group.is_some() { int(keys) } else { Value::Null }),
            ("clients", number(&["connected_clients", "sessions_alive", "sessions.alive"])),
            ("commands_per_second", number(&["instantaneous_ops_per_sec", "ops_qps", "ops.qps"])),
            ("commands", number(&["total_commands_processed", "ops_total", "ops.total"])),
            ("memory_bytes", number(&["used_memory", "memory_bytes"])),
            (
                "p99_us",
                percentile(latency).unwrap_or_else(|| number(&["p99_us", "latency.p99_us"])),
            ),
        ])
    };
    Value::Array(samples.iter().map(member).collect())
}

/// `p99=` of a list of percentiles.
fn percentile(list: &str) -> Option<Value> {
    let p99 = list.split(',').find_map(|part| part.strip_prefix("p99="))?;
    p99.parse::<f64>().ok().map(|us| Value::Int(us as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Event;
    use crate::machine::{Command, Machine};

    #[test]
    fn pattern_matches_as_people_expect() {
        for (pattern, name, expected) in [
            ("*", "lease-ms", true),
            ("lease*", "lease-ms", true),
            ("*ms", "lease-ms", true),
            ("LEASE-MS", "lease-ms", true),
            ("l*a*s", "lease-ms", true),
            ("lease", "lease-ms", false),
            ("*x*", "lease-ms", false),
            ("", "lease-ms", false),
        ] {
            assert_eq!(is_match(pattern, name), expected, "{pattern}");
        }
    }

    #[test]
    fn everything_can_be_shown_of_an_empty_product() {
        let mut machine = Machine::new(Model::new("demo"), 1);
        machine.step(2, Event::Command { id: 1, command: Command::GroupAdd(1) });
        let process = Process::default();
        let all = [
            Show::Ping,
            Show::Help(String::new()),
            Show::Info,
            Show::Status,
            Show::Groups,
            Show::Servers,
            Show::Slots,
            Show::Proxies,
            Show::Moves(None),
            Show::Events(10, 0),
            Show::Map,
            Show::Config("*".into()),
        ];
        for what in all {
            let value = show(&machine, &process, 3, &what);
            assert!(!matches!(value, Value::Error(_)), "{what:?}");
        }
        let status = show(&machine, &process, 3, &Show::Status);
        assert_eq!(status.field("state").and_then(Value::as_text), Some("slots are offline"));
        let missing = show(&machine, &process, 3, &Show::Moves(Some(9)));
        assert!(matches!(missing, Value::Error(_)));
    }
}
