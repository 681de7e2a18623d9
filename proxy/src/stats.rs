//! What the proxy counts, gathered from all cores as plain numbers: for STATS, INFO and whoever else
//! asks. Cores count for themselves; what only a core can tell comes by letter.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use cordis_engine::commands::table::{Command, table};
use cordis_engine::metrics::Cell;
use cordis_engine::metrics::histogram::Histogram;
use cordis_engine::sys::{malloc, usage};

use crate::backend::BackendStats;
use crate::hub::Hub;
use crate::shared::{CommandStats, CoreStats, Shared};

/// Shares of calls whose latency is shown.
pub const SHARES: [f64; 3] = [0.5, 0.99, 0.999];
/// How long a core may take to answer a letter.
const LETTER_LIMIT: Duration = Duration::from_secs(2);

/// Latencies of [`SHARES`] in microseconds.
pub type Percentiles = [u64; 3];

/// One command, over all cores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandRow {
    /// Its name.
    pub name: &'static str,
    /// Calls answered.
    pub calls: u64,
    /// Calls that the proxy answered with an error of its own.
    pub failed: u64,
    /// From a request's arrival to its reply, summed: as exact as the histogram's buckets.
    pub usec: u64,
    /// The same by shares.
    pub percentiles: Percentiles,
}

/// One backend, over all cores.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackendRow {
    /// Where it listens.
    pub addr: String,
    /// Links to it.
    pub links: u64,
    /// Requests without a reply so far.
    pub in_flight: u64,
    /// Requests that it answered.
    pub calls: u64,
    /// Requests that it refused because of their slots.
    pub refused: u64,
    /// Requests that got no reply.
    pub failed: u64,
    /// Links that were lost.
    pub links_lost: u64,
    /// From a request's arrival to its reply.
    pub percentiles: Percentiles,
}

/// One core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreRow {
    /// Sessions.
    pub sessions: u64,
    /// Calls answered.
    pub calls: u64,
    /// Requests that wait for their slots.
    pub held: u64,
    /// Turns.
    pub turns: u64,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Sessions.
    pub sessions: u64,
    /// Sessions there have ever been.
    pub connections: u64,
    /// Connections that were refused.
    pub rejected_connections: u64,
    /// Calls answered.
    pub calls: u64,
    /// Those of them that ran in the server that hosts this proxy: no latencies are kept of them here.
    pub local: u64,
    /// Calls that the proxy answered with an error of its own.
    pub failed: u64,
    /// Requests that a server refused and that were sent again.
    pub redirected: u64,
    /// Links that were lost.
    pub links_lost: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
    /// Processor time of the process.
    pub cpu_ms: u64,
    /// Memory of the process.
    pub resident_bytes: u64,
    /// Latency of all calls.
    pub percentiles: Percentiles,
    /// Commands that were called.
    pub commands: Vec<CommandRow>,
    /// Backends that were met.
    pub backends: Vec<BackendRow>,
    /// Cores.
    pub cores: Vec<CoreRow>,
}

/// What one core knows of one backend.
pub(crate) struct BackendPart {
    addr: String,
    links: u64,
    in_flight: u64,
    stats: Arc<BackendStats>,
}

/// What this core knows of its backends.
pub(crate) fn backend_parts(hub: &Hub) -> Vec<BackendPart> {
    let part = |(id, backend): (_, &crate::backend::Backend)| {
        let own = hub.links.iter().filter(|(_, link)| link.backend == id);
        let (mut links, mut in_flight) = (0, 0);
        for (_, link) in own {
            links += 1;
            in_flight += link.flights.len() as u64;
        }
        BackendPart { addr: backend.addr.clone(), links, in_flight, stats: backend.stats.clone() }
    };
    hub.backends().iter().map(part).collect()
}

fn percentiles(histograms: &[&Histogram]) -> Percentiles {
    let shares = Histogram::merged_percentiles_ns(histograms, &SHARES);
    std::array::from_fn(|i| shares.get(i).copied().unwrap_or(0) / 1000)
}

/// The mean of all durations: that of their hundredths, for a histogram keeps no sum.
fn mean_ns(histograms: &[&Histogram]) -> u64 {
    const STEPS: usize = 100;
    let shares: Vec<f64> = (0..STEPS).map(|i| (i as f64 + 0.5) / STEPS as f64).collect();
    let all = Histogram::merged_percentiles_ns(histograms, &shares);
    all.iter().sum::<u64>() / STEPS as u64
}

fn backend_rows(parts: &[BackendPart]) -> Vec<BackendRow> {
    let mut addrs: Vec<&str> = parts.iter().map(|part| part.addr.as_str()).collect();
    addrs.sort_unstable();
    addrs.dedup();
    let row = |addr: &str| {
        let own: Vec<&BackendPart> = parts.iter().filter(|part| part.addr == addr).collect();
        let sum = |cell: fn(&BackendStats) -> &Cell| own.iter().map(|p| cell(&p.stats).get()).sum();
        let times: Vec<&Histogram> = own.iter().map(|part| &part.stats.time).collect();
        BackendRow {
            addr: addr.to_owned(),
            links: own.iter().map(|part| part.links).sum(),
            in_flight: own.iter().map(|part| part.in_flight).sum(),
            calls: sum(|stats| &stats.calls),
            refused: sum(|stats| &stats.refused),
            failed: sum(|stats| &stats.failed),
            links_lost: sum(|stats| &stats.links_lost),
            percentiles: percentiles(&times),
        }
    };
    addrs.into_iter().map(row).collect()
}

/// Latency of all calls of all cores.
fn all_percentiles(shared: &Shared) -> Percentiles {
    let all = shared.cores.iter().flat_map(|seat| &seat.stats.commands);
    let times: Vec<&Histogram> =
        all.filter(|command| command.calls.get() > 0).map(|command| &command.time).collect();
    percentiles(&times)
}

fn command_rows(shared: &Shared) -> Vec<CommandRow> {
    let mut rows = Vec::new();
    let mut look = |command: &'static Command| {
        let id = usize::from(command.id);
        let parts: Vec<&CommandStats> =
            shared.cores.iter().filter_map(|seat| seat.stats.commands.get(id)).collect();
        let sum = |cell: fn(&CommandStats) -> &Cell| parts.iter().map(|p| cell(p).get()).sum();
        let (calls, failed): (u64, u64) = (sum(|part| &part.calls), sum(|part| &part.failed));
        if calls + failed > 0 {
            let times: Vec<&Histogram> = parts.iter().map(|part| &part.time).collect();
            let (percentiles, usec) = (percentiles(&times), calls * mean_ns(&times) / 1000);
            rows.push(CommandRow { name: command.spec.name, calls, failed, usec, percentiles });
        }
    };
    for command in table().all() {
        look(command);
        command.subcommands.iter().for_each(&mut look);
    }
    rows
}

/// All numbers, with what the cores told of their backends.
pub(crate) fn gather(shared: &Shared, parts: &[BackendPart]) -> Stats {
    let sum = |cell: fn(&CoreStats) -> &Cell| {
        shared.cores.iter().map(|seat| cell(&seat.stats).get()).sum::<u64>()
    };
    let cpu = usage::process();
    let core = |seat: &crate::shared::CoreSeat| CoreRow {
        sessions: seat.stats.sessions.get().max(0) as u64,
        calls: seat.stats.calls.get(),
        held: seat.stats.held.get().max(0) as u64,
        turns: seat.stats.turns.get(),
    };
    Stats {
        sessions: shared.session_count().max(0) as u64,
        connections: sum(|stats| &stats.connections),
        rejected_connections: sum(|stats| &stats.rejected_connections),
        calls: sum(|stats| &stats.calls),
        local: sum(|stats| &stats.local),
        failed: sum(|stats| &stats.failed),
        redirected: sum(|stats| &stats.redirected),
        links_lost: sum(|stats| &stats.links_lost),
        received_bytes: sum(|stats| &stats.net_in_bytes),
        sent_bytes: sum(|stats| &stats.net_out_bytes),
        cpu_ms: (cpu.user + cpu.system).as_millis() as u64,
        resident_bytes: malloc::memory().map_or(0, |memory| memory.resident_bytes),
        percentiles: all_percentiles(shared),
        commands: command_rows(shared),
        backends: backend_rows(parts),
        cores: shared.cores.iter().map(core).collect(),
    }
}

/// All numbers, for a thread that is no core. A core that does not answer in time is left out of the
/// backends' rows.
pub fn collect(shared: &Shared) -> Stats {
    let (sender, receiver) = channel();
    for core in 0..shared.cores.len() {
        let sender = sender.clone();
        shared.run_on(
            core,
            Box::new(move |hub| {
                // Whoever asked may have given up.
                let _ = sender.send(backend_parts(hub));
            }),
        );
    }
    drop(sender);
    let mut parts = Vec::new();
    while let Ok(mut more) = receiver.recv_timeout(LETTER_LIMIT) {
        parts.append(&mut more);
    }
    gather(shared, &parts)
}

/// Counts a call that the proxy answered itself.
pub(crate) fn note_own(hub: &Hub, command: &Command, began: u64, failed: bool) {
    let stats = hub.stats();
    let of_command = &stats.commands[usize::from(command.id)];
    of_command.calls.add(1);
    of_command.time.record(hub.clock.ns_between(began, hub.clock.ticks()));
    stats.calls.add(1);
    if failed {
        of_command.failed.add(1);
        stats.failed.add(1);
    }
}

/// Sets what this core counts to zero; levels stay.
pub fn reset_core(hub: &Hub) {
    let stats = hub.stats();
    let cells = [
        &stats.connections,
        &stats.rejected_connections,
        &stats.calls,
        &stats.local,
        &stats.failed,
        &stats.redirected,
        &stats.net_in_bytes,
        &stats.net_out_bytes,
        &stats.links_lost,
        &stats.turns,
    ];
    cells.into_iter().for_each(|cell| cell.set(0));
    for command in &stats.commands {
        command.calls.set(0);
        command.failed.set(0);
        command.time.reset();
    }
    for (_, backend) in hub.backends().iter() {
        let stats = &backend.stats;
        for cell in [&stats.calls, &stats.refused, &stats.failed, &stats.links_lost] {
            cell.set(0);
        }
        stats.time.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_of_all_cores_are_summed_by_address() {
        let part = |addr: &str, calls, ns| {
            let stats = BackendStats::default();
            stats.calls.add(calls);
            stats.time.record(ns);
            BackendPart { addr: addr.to_owned(), links: 1, in_flight: 2, stats: Arc::new(stats) }
        };
        let rows = backend_rows(&[part("b:1", 1, 1_000), part("a:1", 5, 9), part("b:1", 2, 9_000)]);
        let shown: Vec<_> = rows.iter().map(|row| (row.addr.as_str(), row.calls)).collect();
        assert_eq!(shown, [("a:1", 5), ("b:1", 3)]);
        assert_eq!((rows[1].links, rows[1].in_flight), (2, 4));
        assert_eq!(rows[1].percentiles[2], 9);
    }
}
