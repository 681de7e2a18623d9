//! MEMORY: what the data, the process and the allocator take.

use tikv_jemalloc_ctl::{Access, AsName, arenas, epoch, stats, stats_print};

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::docs::reply_help;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Access as KeyAccess, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler,
    KeySpec, Merge, Purpose, Route,
};
use crate::node::Node;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::units::DATABASES_MAX;

/// Bytes of table that a key takes on average over growth.
///
/// # Source
/// The header of `store/table.rs`: 9.7.
const CELL_BYTES: usize = 10;

/// The commands of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "memory",
    family: Family::Server,
    since: "4.0.0",
    summary: "Tells what memory is used for",
    complexity: "Depends on the subcommand",
    arity: Arity::AtLeast(2),
    route: Route::Session,
    subcommands: &[
        CommandSpec {
            name: "memory|doctor",
            family: Family::Server,
            since: "4.0.0",
            summary: "Looks for problems with memory and says what to do about them",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            tips: ALL_SHARDS,
            route: Route::Session,
            handler: Handler::Session(memory_doctor),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "memory|help",
            family: Family::Server,
            since: "4.0.0",
            summary: "Lists the subcommands",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: Flags::LOADING.union(Flags::STALE),
            route: Route::Session,
            handler: Handler::Session(memory_help),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "memory|malloc-stats",
            family: Family::Server,
            since: "4.0.0",
            summary: "Returns the allocator's own report",
            complexity: "O(N) with N arenas and size classes",
            arity: Arity::Exact(2),
            tips: ALL_SHARDS,
            route: Route::Session,
            handler: Handler::Session(memory_malloc_stats),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "memory|purge",
            family: Family::Server,
            since: "4.0.0",
            summary: "Gives pages that the allocator keeps unused back to the system",
            complexity: "O(N) with N unused pages",
            arity: Arity::Exact(2),
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            route: Route::Session,
            merge: Merge::AllOk,
            handler: Handler::Session(memory_purge),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "memory|stats",
            family: Family::Server,
            since: "4.0.0",
            summary: "Returns how much memory each part of the server takes",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            tips: ALL_SHARDS,
            route: Route::AllSlots,
            handler: Handler::Data(memory_stats),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "memory|usage",
            family: Family::Server,
            since: "4.0.0",
            summary: "Estimates the bytes that a key and its value take",
            complexity: "O(N) with N samples",
            arity: Arity::AtLeast(3),
            flags: Flags::READONLY,
            keys: &[KeySpec::range(KeyAccess::Read, Purpose::None, 2, 0, 1)],
            args: &[
                Arg::key("key", 0),
                Arg::new("count", ArgKind::Integer).with_token("SAMPLES").optional(),
            ],
            handler: Handler::Data(memory_usage),
            ..CommandSpec::EMPTY
        },
    ],
    ..CommandSpec::EMPTY
}];

const ALL_SHARDS: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

/// What INFO memory and MEMORY STATS are made of, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemoryFacts {
    /// In use, data and all else.
    pub used: u64,
    /// The most ever in use.
    pub peak: u64,
    /// Keys and values with their tables.
    pub dataset: u64,
    /// In use, but not for data.
    pub overhead: u64,
    /// Resident pages of the process.
    pub resident: u64,
    /// Requested from the allocator.
    pub allocated: u64,
    /// Pages that hold it.
    pub active: u64,
    /// Resident pages of the allocator.
    pub allocator_resident: u64,
}

impl MemoryFacts {
    pub(super) fn of(node: &Node) -> Self {
        use std::sync::atomic::Ordering::Relaxed;
        // The allocator's statistics are copies that this renews.
        let _ = epoch::advance();
        let used = node.used_bytes();
        let dataset = node.data_bytes().max(0) as u64;
        let resident = stats::resident::read().unwrap_or(0) as u64;
        Self {
            used,
            peak: node.used_peak_bytes.load(Relaxed).max(used),
            dataset: dataset.min(used),
            overhead: used.saturating_sub(dataset),
            // Before it was measured for the first time, the allocator's pages are the best guess.
            resident: match node.resident_bytes.load(Relaxed) {
                0 => resident,
                measured => measured,
            },
            allocated: stats::allocated::read().unwrap_or(0) as u64,
            active: stats::active::read().unwrap_or(0) as u64,
            allocator_resident: resident,
        }
    }
}

/// `a / b`, 0 if there is no `b`.
pub(super) fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// MEMORY USAGE key [SAMPLES count]
fn memory_usage(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut cursor = args.cursor(3);
    while cursor.left() > 0 {
        let samples = cursor.take_value("SAMPLES").ok_or(CommandError::SYNTAX)?;
        let count = parse_i64(samples).ok_or(CommandError::NOT_INTEGER)?;
        if count < 0 {
            return Err(CommandError::SYNTAX);
        }
    }
    let key = ctx.key(args.at(2));
    match ctx.peek(key, false) {
        Some(entry) => reply.count(entry.heap_bytes() + CELL_BYTES),
        None => reply.null(),
    }
    Ok(())
}

/// MEMORY STATS
fn memory_stats(ctx: &mut Ctx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut lens = [(0usize, 0usize); DATABASES_MAX];
    ctx.shards.each(|shard| {
        for (db, dbase) in shard.keys.dbs() {
            lens[db.index()].0 += dbase.len();
            lens[db.index()].1 += dbase.expiring();
        }
    });
    let facts = MemoryFacts::of(ctx.node);
    let used_dbs: Vec<_> = lens.iter().enumerate().filter(|(_, (len, _))| *len > 0).collect();
    let key_count: usize = lens.iter().map(|(len, _)| len).sum();
    reply.map(STATS_FIELD_COUNT + used_dbs.len());
    stats_parts(&facts, reply);
    for (db, (len, expiring)) in used_dbs {
        reply.bulk(format!("db.{db}").as_bytes());
        reply.map(3);
        field("overhead.hashtable.main", (len * CELL_BYTES) as u64, reply);
        field("overhead.hashtable.expires", (expiring * size_of::<u64>()) as u64, reply);
        field("overhead.hashtable.slot-to-keys", 0, reply);
    }
    stats_totals(&facts, key_count as u64, reply);
    Ok(())
}

/// Fields of MEMORY STATS besides those of databases.
const STATS_FIELD_COUNT: usize = 27;

fn field(name: &str, n: u64, reply: &mut Reply<'_>) {
    reply.bulk(name.as_bytes());
    reply.int(n as i64);
}

fn stats_parts(facts: &MemoryFacts, reply: &mut Reply<'_>) {
    field("peak.allocated", facts.peak, reply);
    field("total.allocated", facts.used, reply);
    // What the server has no such thing for, or does not tell apart, is 0.
    let absent = [
        "startup.allocated",
        "replication.backlog",
        "clients.slaves",
        "clients.normal",
        "cluster.links",
        "aof.buffer",
        "lua.caches",
        "functions.caches",
    ];
    absent.iter().for_each(|name| field(name, 0, reply));
}

fn stats_totals(facts: &MemoryFacts, key_count: u64, reply: &mut Reply<'_>) {
    let double = |name: &str, x: f64, reply: &mut Reply<'_>| {
        reply.bulk(name.as_bytes());
        // Redis: these pass through a `float`.
        reply.double(f64::from(x as f32));
    };
    let difference = |name: &str, a: u64, b: u64, reply: &mut Reply<'_>| {
        reply.bulk(name.as_bytes());
        reply.int(a as i64 - b as i64);
    };
    field("overhead.total", facts.overhead, reply);
    field("keys.count", key_count, reply);
    field("keys.bytes-per-key", facts.dataset.checked_div(key_count).unwrap_or(0), reply);
    field("dataset.bytes", facts.dataset, reply);
    double("dataset.percentage", 100.0 * ratio(facts.dataset, facts.used), reply);
    double("peak.percentage", 100.0 * ratio(facts.used, facts.peak), reply);
    field("allocator.allocated", facts.allocated, reply);
    field("allocator.active", facts.active, reply);
    field("allocator.resident", facts.allocator_resident, reply);
    double("allocator-fragmentation.ratio", ratio(facts.active, facts.allocated), reply);
    difference("allocator-fragmentation.bytes", facts.active, facts.allocated, reply);
    double("allocator-rss.ratio", ratio(facts.allocator_resident, facts.active), reply);
    difference("allocator-rss.bytes", facts.allocator_resident, facts.active, reply);
    double("rss-overhead.ratio", ratio(facts.resident, facts.allocator_resident), reply);
    difference("rss-overhead.bytes", facts.resident, facts.allocator_resident, reply);
    double("fragmentation", ratio(facts.resident, facts.used), reply);
    difference("fragmentation.bytes", facts.resident, facts.used, reply);
}

/// Below this much memory in use, ratios say nothing.
const DOCTOR_USED_BYTES_MIN: u64 = 5 << 20;

/// MEMORY DOCTOR
fn memory_doctor(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let facts = MemoryFacts::of(ctx.node);
    let limit = ctx.node.config.maxmemory();
    let mut findings: Vec<&str> = Vec::new();
    if facts.used < DOCTOR_USED_BYTES_MIN {
        findings.push("The server uses so little memory that there is nothing to examine yet.");
    } else {
        if ratio(facts.peak, facts.used) > 1.5 {
            findings.push(
                "The peak was more than 1.5 times of what is used now; pages of that time may be \
                 resident still. MEMORY PURGE gives back what is unused.",
            );
        }
        if ratio(facts.active, facts.allocated) > 1.1 && facts.active - facts.allocated > 10 << 20 {
            findings.push(
                "Pages are more than 10 % emptier than they could be: values of changing sizes \
                 leave gaps. New values fill them; a restart closes them.",
            );
        }
        if ratio(facts.resident, facts.used) > 1.4 && facts.resident - facts.used > 10 << 20 {
            findings.push(
                "The process takes more than 1.4 times of what is in use. If MEMORY PURGE does not \
                 help, look at INFO clients for large buffers.",
            );
        }
        if limit > 0 && facts.used > limit {
            findings
                .push("More is in use than `maxmemory` allows: keys are evicted or writes fail.");
        }
        if findings.is_empty() {
            findings.push("Nothing is wrong with the memory of this server.");
        }
    }
    reply.verbatim((findings.join("\n") + "\n").as_bytes());
    Ok(())
}

/// MEMORY MALLOC-STATS
fn memory_malloc_stats(
    _ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let mut report = Vec::new();
    // Writing to a vector cannot fail; without statistics built in, the report is short.
    let _ = stats_print::stats_print(&mut report, stats_print::Options::default());
    reply.verbatim(&report);
    Ok(())
}

/// MEMORY PURGE
fn memory_purge(
    _ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    // Setting an arena's decay time, even to what it is, decays all of its unused pages at once.
    let arena_count = arenas::narenas::read().unwrap_or(0) as usize;
    for name in [&b"arena.0.dirty_decay_ms\0"[..], b"arena.0.muzzy_decay_ms\0"] {
        let Ok(mut mib) = name.name().mib::<[usize; 3]>() else {
            continue;
        };
        for arena in 0..arena_count {
            mib[1] = arena;
            // An arena that was never used refuses; it has nothing to give back.
            let decay_ms: Result<isize, _> = mib.read();
            if let Ok(decay_ms) = decay_ms {
                let _ = mib.write(decay_ms);
            }
        }
    }
    reply.ok();
    Ok(())
}

/// MEMORY HELP
fn memory_help(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply_help(args, reply);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;
    use crate::resp::reply::Protocol;

    #[test]
    fn usage_of_a_longer_value_is_larger() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"short", b"v"]);
        bare.call(&mut client, &[b"SET", b"long", &[b'v'; 1000]]);
        let mut usage = |key: &[u8]| -> i64 {
            let reply = bare.call(&mut client, &[b"MEMORY", b"USAGE", key, b"SAMPLES", b"0"]);
            String::from_utf8_lossy(&reply[1..]).trim().parse().expect("an integer reply")
        };
        assert!((10..100).contains(&usage(b"short")));
        assert!((1000..1200).contains(&usage(b"long")));
    }

    #[test]
    fn usage_of_a_missing_key_is_null() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        assert_eq!(bare.call(&mut client, &[b"MEMORY", b"USAGE", b"no"]), b"$-1\r\n");
    }

    #[test]
    fn stats_announces_as_many_fields_as_it_has() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        client.protocol = Protocol::Resp3;
        bare.call(&mut client, &[b"SET", b"k", b"v"]);
        let reply = bare.call(&mut client, &[b"MEMORY", b"STATS"]);
        let text = String::from_utf8(reply).expect("text");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("%28"));
        // 27 fields of three lines (length, name, value), and one map of three such fields.
        assert_eq!(lines.count(), 27 * 3 + 3 + 3 * 3);
    }

    #[test]
    fn purge_doctor_and_malloc_stats_answer() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        assert_eq!(bare.call(&mut client, &[b"MEMORY", b"PURGE"]), b"+OK\r\n");
        for sub in [&b"DOCTOR"[..], b"MALLOC-STATS"] {
            assert_eq!(bare.call(&mut client, &[b"MEMORY", sub])[0], b'$');
        }
    }
}
