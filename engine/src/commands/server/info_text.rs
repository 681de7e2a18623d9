//! The sections of INFO that need no data: each a list of fields, named as Redis names them so that
//! exporters and client libraries find what they look for. Fields of what the server does not have
//! are there with the value that says so.

use std::fmt::{Display, Write as _};
use std::sync::OnceLock;

use crate::commands::server::info::Section;
use crate::commands::server::memory::{MemoryFacts, ratio};
use crate::commands::table::{Command, table};
use crate::gates::Gate;
use crate::metrics::histogram::Histogram;
use crate::node::{CommandStats, Node};
use crate::persist::desk::CoreLog;
use crate::pubsub::Kind;
use crate::shard::evict::access;
use crate::sys::usage;
use crate::units::{Ms, ShardId, SlotId};

/// The Redis version whose behaviour the server has, for clients that ask.
const REDIS_VERSION: &str = "7.0.15";

/// The text of the reply.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// Begins a section.
    pub(super) fn heading(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push_str("\r\n");
        }
        let _ = write!(self.text, "# {title}\r\n");
    }

    /// Adds `name:value`.
    pub(super) fn field(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.text, "{name}:{value}\r\n");
    }

    /// The text so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn fields(&mut self, fields: &[(&str, &dyn Display)]) {
        fields.iter().for_each(|(name, value)| self.field(name, value));
    }

    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.field(name, 0));
    }

    /// A size, and the same for people.
    fn size(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), human(bytes));
    }
}

/// Bytes as Redis shows them to people.
fn human(bytes: u64) -> String {
    const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let exponent = (63 - bytes.leading_zeros()) / 10;
    let unit = UNITS[exponent as usize - 1];
    format!("{:.2}{unit}", bytes as f64 / (1u64 << (10 * exponent)) as f64)
}

/// Writes the fields of a section.
pub(super) fn section(section: Section, node: &Node, now: Ms, page: &mut Page) {
    match section {
        Section::Server => server(node, now, page),
        Section::Clients => clients(node, page),
        Section::Memory => memory(node, page),
        Section::Persistence => persistence(node, now, page),
        Section::Stats => stats(node, page),
        Section::Replication => replication(node, page),
        Section::Cpu => cpu(page),
        Section::Cores => cores(node, page),
        Section::CommandStats => command_stats(node, page),
        Section::ErrorStats => error_stats(node, page),
        Section::LatencyStats => latency_stats(node, page),
        Section::Cluster => page.field("cluster_enabled", 0),
        // There are no modules; the keyspace needs data and is written elsewhere.
        Section::Modules | Section::Keyspace => {}
    }
}

/// Facts of the machine that do not change.
struct Machine {
    os: String,
    executable: String,
    memory_bytes: u64,
}

fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        let meminfo = read("/proc/meminfo");
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let total_kib = total.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
        let executable = std::env::current_exe().unwrap_or_default();
        Machine {
            os: format!("Linux {} {}", release.trim(), std::env::consts::ARCH),
            executable: executable.to_string_lossy().into_owned(),
            memory_bytes: total_kib.unwrap_or(0u64) * 1024,
        }
    })
}

fn server(node: &Node, now: Ms, page: &mut Page) {
    let uptime_seconds = (now.0 - node.started_at.0).max(0) / 1000;
    let config_file = node.config.file().unwrap_or_default();
    let setting = |name: &str| node.config.get(name).unwrap_or_default();
    page.fields(&[
        ("redis_version", &REDIS_VERSION),
        ("cordis_version", &env!("CARGO_PKG_VERSION")),
        ("redis_git_sha1", &"00000000"),
        ("redis_git_dirty", &0),
        ("redis_build_id", &"0"),
        ("redis_mode", &"standalone"),
        ("os", &machine().os),
        ("arch_bits", &usize::BITS),
        ("monotonic_clock", &"time-stamp counter"),
        ("multiplexing_api", &"io_uring"),
        ("process_id", &std::process::id()),
        ("process_supervised", &"no"),
        ("run_id", &node.run_id),
        ("tcp_port", &setting("port")),
        ("server_time_usec", &(now.0 * 1000)),
        ("uptime_in_seconds", &uptime_seconds),
        ("uptime_in_days", &(uptime_seconds / 86_400)),
        ("hz", &setting("hz")),
        ("configured_hz", &setting("hz")),
        ("lru_clock", &access::lru_now(now)),
        ("executable", &machine().executable),
        ("config_file", &config_file.to_string_lossy()),
        ("io_threads_active", &0),
        ("cordis_cores", &node.cores.len()),
    ]);
}

fn clients(node: &Node, page: &mut Page) {
    let blocked: i64 = node.cores.iter().map(|core| core.blocked_clients.get()).sum();
    page.field("connected_clients", node.session_count());
    page.field("cluster_connections", 0);
    page.field("maxclients", node.config.maxclients());
    page.zeros(&["client_recent_max_input_buffer", "client_recent_max_output_buffer"]);
    page.field("blocked_clients", blocked);
    page.zeros(&["tracking_clients", "clients_in_timeout_table"]);
}

fn percent(a: u64, b: u64) -> String {
    format!("{:.2}%", 100.0 * ratio(a, b))
}

fn memory(node: &Node, page: &mut Page) {
    let facts = MemoryFacts::of(node);
    page.size("used_memory", facts.used);
    page.size("used_memory_rss", facts.resident);
    page.size("used_memory_peak", facts.peak);
    page.field("used_memory_peak_perc", percent(facts.used, facts.peak));
    page.field("used_memory_overhead", facts.overhead);
    page.field("used_memory_startup", 0);
    page.field("used_memory_dataset", facts.dataset);
    page.field("used_memory_dataset_perc", percent(facts.dataset, facts.used));
    page.field("allocator_allocated", facts.allocated);
    page.field("allocator_active", facts.active);
    page.field("allocator_resident", facts.allocator_resident);
    page.size("total_system_memory", machine().memory_bytes);
    scripts_memory(page);
    page.size("maxmemory", node.config.maxmemory());
    page.field("maxmemory_policy", node.config.maxmemory_policy().name());
    memory_ratios(&facts, page);
    page.zeros(&[
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
        "mem_clients_normal",
        "mem_cluster_links",
        "mem_aof_buffer",
    ]);
    let version = tikv_jemalloc_ctl::version::read().unwrap_or("unknown");
    let version = version.split('-').next().unwrap_or(version);
    page.field("mem_allocator", format_args!("jemalloc-{version}"));
    page.field("active_defrag_running", 0);
    let pending: i64 = node.cores.iter().map(|core| core.lazyfree_pending.get()).sum();
    let freed: i64 = node.cores.iter().map(|core| core.lazyfreed.get()).sum();
    page.field("lazyfree_pending_objects", pending);
    page.field("lazyfreed_objects", freed);
}

/// Memory of script engines, of which there is none.
fn scripts_memory(page: &mut Page) {
    page.zeros(&["used_memory_lua", "used_memory_vm_eval"]);
    page.field("used_memory_lua_human", human(0));
    page.zeros(&[
        "used_memory_scripts_eval",
        "number_of_cached_scripts",
        "number_of_functions",
        "number_of_libraries",
        "used_memory_vm_functions",
    ]);
    page.size("used_memory_vm_total", 0);
    page.field("used_memory_functions", 0);
    page.size("used_memory_scripts", 0);
}

fn memory_ratios(facts: &MemoryFacts, page: &mut Page) {
    let mut pair = |name: &str, ratio_name: &str, a: u64, b: u64| {
        page.field(&format!("{name}_{ratio_name}"), format_args!("{:.2}", ratio(a, b)));
        page.field(&format!("{name}_bytes"), a as i64 - b as i64);
    };
    pair("allocator_frag", "ratio", facts.active, facts.allocated);
    pair("allocator_rss", "ratio", facts.allocator_resident, facts.active);
    pair("rss_overhead", "ratio", facts.resident, facts.allocator_resident);
    pair("mem_fragmentation", "ratio", facts.resident, facts.used);
}

fn persistence(node: &Node, now: Ms, page: &mut Page) {
    page.field("loading", u8::from(node.gates.is_closed(Gate::Loading)));
    page.zeros(&["async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    page.field("current_fork_perc", "0.00");
    page.zeros(&[
        "current_save_keys_processed",
        "current_save_keys_total",
        "rdb_changes_since_last_save",
        "rdb_bgsave_in_progress",
    ]);
    page.field("rdb_last_save_time", node.started_at.0 / 1000);
    page.field("rdb_last_bgsave_status", "ok");
    page.field("rdb_last_bgsave_time_sec", -1);
    page.field("rdb_current_bgsave_time_sec", -1);
    page.zeros(&[
        "rdb_saves",
        "rdb_last_cow_size",
        "rdb_last_load_keys_expired",
        "rdb_last_load_keys_loaded",
    ]);
    append_log(node, now, page);
}

/// The log of writes, as Redis tells of its AOF.
fn append_log(node: &Node, now: Ms, page: &mut Page) {
    let rewrites = node.log.rewrites();
    let is_on = node.log.target() != 0;
    let current = rewrites.begun.map_or(-1, |begun| (now.0 - begun.0).max(0) / 1000);
    let status = |is_good: bool| if is_good { "ok" } else { "err" };
    page.field("aof_enabled", u8::from(node.log.is_wanted()));
    page.field("aof_rewrite_in_progress", u8::from(rewrites.begun.is_some()));
    page.field("aof_rewrite_scheduled", 0);
    page.field("aof_last_rewrite_time_sec", rewrites.last_seconds.unwrap_or(-1));
    page.field("aof_current_rewrite_time_sec", current);
    page.field("aof_last_bgrewrite_status", status(!rewrites.has_failed));
    page.field("aof_rewrites", rewrites.count);
    page.field("aof_rewrites_consecutive_failures", rewrites.failed_count);
    page.field("aof_last_write_status", status(node.log.errno() == 0));
    page.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if is_on {
        let (size, base) = node.log.sizes();
        let sum = |gauge: fn(&CoreLog) -> i64| node.log.cores.iter().map(gauge).sum::<i64>();
        page.field("aof_current_size", size);
        page.field("aof_base_size", base);
        page.field("aof_pending_rewrite", 0);
        page.field("aof_buffer_length", sum(|core| core.waiting_bytes.get()));
        page.field("aof_pending_bio_fsync", sum(|core| core.flushes.get()));
        page.field("aof_delayed_fsync", sum(|core| core.late_flushes.get() as i64));
    }
}

fn stats(node: &Node, page: &mut Page) {
    let kbps = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    page.fields(&[
        ("total_connections_received", &node.sum(|c| &c.connections)),
        ("total_commands_processed", &node.sum(|c| &c.commands_run)),
        ("instantaneous_ops_per_sec", &node.rates.commands()),
        ("total_net_input_bytes", &node.sum(|c| &c.net_in_bytes)),
        ("total_net_output_bytes", &node.sum(|c| &c.net_out_bytes)),
        ("total_net_repl_input_bytes", &0),
        ("total_net_repl_output_bytes", &0),
        ("instantaneous_input_kbps", &kbps(node.rates.in_bytes())),
        ("instantaneous_output_kbps", &kbps(node.rates.out_bytes())),
        ("instantaneous_input_repl_kbps", &"0.00"),
        ("instantaneous_output_repl_kbps", &"0.00"),
        ("rejected_connections", &node.sum(|c| &c.rejected_connections)),
    ]);
    page.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    page.field("expired_keys", node.sum(|c| &c.expired_keys));
    page.field("expired_stale_perc", "0.00");
    page.zeros(&["expired_time_cap_reached_count", "expire_cycle_cpu_milliseconds"]);
    page.field("evicted_keys", node.sum(|c| &c.evicted_keys));
    page.field("evicted_clients", node.sum(|c| &c.overflow_disconnections));
    page.zeros(&["total_eviction_exceeded_time", "current_eviction_exceeded_time"]);
    page.field("keyspace_hits", node.sum(|c| &c.keyspace_hits));
    page.field("keyspace_misses", node.sum(|c| &c.keyspace_misses));
    page.field("pubsub_channels", node.pubsub.name_count(Kind::Channel));
    page.field("pubsub_patterns", node.pubsub.name_count(Kind::Pattern));
    page.field("pubsubshard_channels", node.pubsub.name_count(Kind::Shard));
    page.zeros(&[
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
        "tracking_total_keys",
        "tracking_total_items",
        "tracking_total_prefixes",
        "unexpected_error_replies",
    ]);
    page.field("total_error_replies", node.sum(|c| &c.error_replies));
    page.zeros(&["dump_payload_sanitizations"]);
    page.field("io_threaded_reads_processed", 0);
    page.field("io_threaded_writes_processed", 0);
}

fn replication(node: &Node, page: &mut Page) {
    page.fields(&[
        ("role", &"master"),
        ("connected_slaves", &0),
        ("master_failover_state", &"no-failover"),
        ("master_replid", &node.run_id),
        ("master_replid2", &"0".repeat(40)),
        ("master_repl_offset", &0),
        ("second_repl_offset", &-1),
        ("repl_backlog_active", &0),
        ("repl_backlog_size", &(1 << 20)),
        ("repl_backlog_first_byte_offset", &0),
        ("repl_backlog_histlen", &0),
    ]);
}

fn cpu(page: &mut Page) {
    let mut pair = |suffix: &str, time: usage::CpuTime| {
        let seconds = |d: std::time::Duration| format!("{:.6}", d.as_secs_f64());
        page.field(&format!("used_cpu_sys{suffix}"), seconds(time.system));
        page.field(&format!("used_cpu_user{suffix}"), seconds(time.user));
    };
    pair("", usage::process());
    pair("_children", usage::children());
    // Redis' main thread is the one that runs commands: here, this core's.
    pair("_main_thread", usage::thread());
}

fn cores(node: &Node, page: &mut Page) {
    let mut slot_counts = vec![0usize; node.cores.len()];
    {
        // Those that are served: a member of a cluster has a core for each slot, also of others.
        let cluster = node.cluster.lock();
        for slot in SlotId::all().filter(|slot| cluster.slot(*slot).state.is_visible()) {
            let ShardId(owner) = node.owners.of(slot);
            slot_counts[usize::from(owner)] += 1;
        }
    }
    for (i, (core, slots)) in node.cores.iter().zip(slot_counts).enumerate() {
        let micros = |ns: u64| format!("{:.3}", ns as f64 / 1000.0);
        let shares = [0.5, 0.99, 0.999, 0.9999];
        let turns = Histogram::merged_percentiles_ns(&[&core.turns], &shares);
        let value = format!(
            "slots={slots},sessions={},commands={},data_bytes={},door_requests={},\
             mail_requests={},turns={},turn_usec_p50={},turn_usec_p99={},turn_usec_p99.9={},\
             turn_usec_p99.99={},turn_usec_max={}",
            core.sessions.get(),
            core.commands_run.get(),
            core.data_bytes.get(),
            core.door_requests.get(),
            core.mail_requests.get(),
            core.turns.count(),
            micros(turns[0]),
            micros(turns[1]),
            micros(turns[2]),
            micros(turns[3]),
            micros(core.turns.max_ns()),
        );
        page.field(&format!("core{i}"), value);
    }
}

/// Visits every command and subcommand with its counters on every core.
fn each_command(node: &Node, mut visit: impl FnMut(&Command, &[&CommandStats])) {
    let all = table().all().iter().flat_map(|c| std::iter::once(c).chain(&c.subcommands));
    for command in all {
        let id = usize::from(command.id);
        let stats: Vec<_> = node.cores.iter().filter_map(|c| c.commands.get(id)).collect();
        visit(command, &stats);
    }
}

fn command_stats(node: &Node, page: &mut Page) {
    each_command(node, |command, stats| {
        let sum = |cell: fn(&CommandStats) -> u64| stats.iter().map(|s| cell(s)).sum::<u64>();
        let calls = sum(|s| s.calls.get());
        let (rejected, failed) = (sum(|s| s.rejected.get()), sum(|s| s.failed.get()));
        if calls + rejected + failed == 0 {
            return;
        }
        let micros = sum(|s| s.ns.get()) / 1000;
        page.field(
            &format!("cmdstat_{}", command.spec.name),
            format_args!(
                "calls={calls},usec={micros},usec_per_call={:.2},rejected_calls={rejected},\
                 failed_calls={failed}",
                ratio(micros, calls)
            ),
        );
    });
}

fn error_stats(node: &Node, page: &mut Page) {
    let mut counts = std::collections::BTreeMap::new();
    for (prefix, count) in node.cores.iter().flat_map(|core| core.errors.each()) {
        *counts.entry(prefix).or_insert(0) += count;
    }
    for (prefix, count) in counts {
        // A client may choose the word (scripts, DEBUG ERROR): nothing in it may break a line.
        let prefix: String =
            prefix.chars().map(|c| if c.is_control() || c == ':' { '_' } else { c }).collect();
        page.field(&format!("errorstat_{prefix}"), format_args!("count={count}"));
    }
}

fn latency_stats(node: &Node, page: &mut Page) {
    if !node.config.latency_tracking() {
        return;
    }
    let percentiles = node.config.latency_percentiles();
    let shares: Vec<f64> = percentiles.iter().map(|p| p / 100.0).collect();
    each_command(node, |command, stats| {
        let histograms: Vec<&Histogram> = stats.iter().filter_map(|s| s.durations()).collect();
        if histograms.iter().all(|histogram| histogram.count() == 0) {
            return;
        }
        let found = Histogram::merged_percentiles_ns(&histograms, &shares);
        let parts: Vec<String> = percentiles
            .iter()
            .zip(found)
            .map(|(p, ns)| format!("p{p}={:.3}", ns as f64 / 1000.0))
            .collect();
        let name = format!("latency_percentiles_usec_{}", command.spec.name);
        page.field(&name, parts.join(","));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_sizes_are_those_of_redis() {
        let cases = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_114_464, "1.06M"),
            (25_276_502_016, "23.54G"),
            (u64::MAX, "16.00E"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn latency_percentiles_are_those_of_all_cores() {
        let bare = crate::commands::bare::Bare::new(2, 1);
        let id = usize::from(table().get(b"time").expect("TIME is in the table").id);
        bare.node.cores[0].commands[id].note_call(3_000, true);
        bare.node.cores[1].commands[id].note_call(11_000, true);
        let mut page = Page::default();
        latency_stats(bare.node, &mut page);
        let text = page.text();
        assert!(text.starts_with("latency_percentiles_usec_time:p50=3."), "{text}");
        assert!(text.ends_with("p99=11.000,p99.9=11.000\r\n"), "{text}");
        let mut page = Page::default();
        command_stats(bare.node, &mut page);
        let want = "cmdstat_time:calls=2,usec=14,usec_per_call=7.00,rejected_calls=0,\
                    failed_calls=0\r\n";
        assert_eq!(page.text(), want);
    }
}
