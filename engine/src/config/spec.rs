//! Every option of the server, once: what the configuration file, the command line, CONFIG GET and
//! SET, and `--print-config` know of it comes from [`SPECS`]. Add an option by adding a literal
//! here, and an accessor in `config/mod.rs` if the server acts on it.

use crate::config::value;
use crate::shard::evict::Policy;

/// Most cores that one server may have: mailboxes are one per ordered pair.
pub const CORES_MAX: usize = 48;

/// What an option may be set to.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// A decimal integer from a range.
    Int {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Permission bits of a file.
    Octal,
    /// Bytes, with an optional unit (`kb`, `mb`, `gb`: powers of 1024; `k`, `m`, `g`: of 1000).
    Memory {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// One of these words, kept as the number beside it.
    Enum(&'static [(&'static str, i64)]),
    /// Letters that select classes of keyspace events, kept as bits.
    Events,
    /// Text. The function gets the old and the new text and returns the one to keep.
    Text(fn(&str, &str) -> Result<String, String>),
    /// Text that no log and no listing shows.
    Secret,
}

/// When an option may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// At any time, with CONFIG SET.
    AtRunTime,
    /// Only at start.
    AtStart,
    /// Only at start, because a client that may change it could write files anywhere.
    Protected,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct ConfigSpec {
    /// Its name: the TOML key, the flag without `--`, and the word of CONFIG. Redis' name where
    /// Redis has one.
    pub name: &'static str,
    /// Redis' older name for it.
    pub alias: Option<&'static str>,
    /// Heading that it stands under.
    pub section: &'static str,
    /// What it may be set to.
    pub kind: Kind,
    /// Its value if nobody sets it, as a user would write it.
    pub default: &'static str,
    /// When it may change.
    pub change: Change,
    /// Unit of its number; empty if it has none.
    pub unit: &'static str,
    /// What it does, in one sentence.
    pub doc: &'static str,
    /// The only value accepted so far, and why.
    pub only: Option<(&'static str, &'static str)>,
}

/// What most options have in common.
const BASE: ConfigSpec = ConfigSpec {
    name: "",
    alias: None,
    section: "",
    kind: Kind::Bool,
    default: "no",
    change: Change::AtRunTime,
    unit: "",
    doc: "",
    only: None,
};
const NETWORK: ConfigSpec = ConfigSpec { section: "Network", change: Change::AtStart, ..BASE };
const PROCESS: ConfigSpec = ConfigSpec { section: "Process", change: Change::AtStart, ..BASE };
const CLIENTS: ConfigSpec = ConfigSpec { section: "Clients", ..BASE };
const MEMORY: ConfigSpec = ConfigSpec { section: "Memory", ..BASE };
const FREEING: ConfigSpec = ConfigSpec { section: "Freeing", ..BASE };
const OBSERVE: ConfigSpec = ConfigSpec { section: "Observing", ..BASE };
const LOG: ConfigSpec = ConfigSpec { section: "Log", change: Change::AtStart, ..BASE };
const DISK: ConfigSpec = ConfigSpec { section: "Persistence", ..BASE };
const TYPES: ConfigSpec =
    ConfigSpec { section: "Encodings", kind: Kind::Int { min: 0, max: i64::MAX }, ..BASE };

/// An `int` of C that is not negative.
const INT: Kind = Kind::Int { min: 0, max: i32::MAX as i64 };
/// A `long long` of C that is not negative.
const LONG: Kind = Kind::Int { min: 0, max: i64::MAX };
/// Any amount of memory.
const BYTES: Kind = Kind::Memory { min: 0, max: u64::MAX };
/// Memory that one value may take.
const BYTES_OF_VALUE: Kind = Kind::Memory { min: 0, max: i64::MAX as u64 };
/// An amount of memory that holds a request of reasonable size.
const BYTES_FROM_1MB: Kind = Kind::Memory { min: 1 << 20, max: i64::MAX as u64 };

const NO_PERSISTENCE: &str =
    "persistence is not built in yet by snapshots: `appendonly` keeps data on disk";

/// Every option, by section.
pub const SPECS: &[ConfigSpec] = &[
    ConfigSpec {
        name: "port",
        kind: Kind::Int { min: 0, max: 65_535 },
        default: "6379",
        doc: "TCP port for clients; 0 listens on no TCP port.",
        ..NETWORK
    },
    ConfigSpec {
        name: "bind",
        kind: Kind::Text(value::keep_addresses),
        default: "127.0.0.1 -::1",
        doc: "Addresses to listen on; `*` and `::*` mean all, a leading `-` makes one optional.",
        ..NETWORK
    },
    ConfigSpec {
        name: "unixsocket",
        kind: Kind::Text(value::keep_any),
        default: "",
        doc: "Path of a unix socket to listen on as well; empty is none.",
        ..NETWORK
    },
    ConfigSpec {
        name: "unixsocketperm",
        kind: Kind::Octal,
        default: "0",
        doc: "Permission bits of the unix socket in octal; 0 leaves what the umask gives.",
        ..NETWORK
    },
    ConfigSpec {
        name: "tcp-backlog",
        kind: INT,
        default: "511",
        unit: "connections",
        doc: "Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.",
        ..NETWORK
    },
    ConfigSpec {
        name: "tcp-keepalive",
        kind: INT,
        default: "300",
        change: Change::AtRunTime,
        unit: "seconds",
        doc: "Silence after which a client's connection is probed; 0 never probes.",
        ..NETWORK
    },
    ConfigSpec {
        name: "protected-mode",
        default: "yes",
        change: Change::AtRunTime,
        doc: "Refuses clients from other hosts while no password is set.",
        ..NETWORK
    },
    ConfigSpec {
        name: "cores",
        kind: Kind::Text(value::keep_cpus),
        default: "",
        doc: "CPUs to run on, one pinned thread each, as `0-3,8`; empty takes all it may use.",
        ..PROCESS
    },
    ConfigSpec {
        name: "dir",
        kind: Kind::Text(value::keep_nonempty),
        default: ".",
        change: Change::Protected,
        doc: "Directory of the server's files; one server at a time may use it.",
        ..PROCESS
    },
    ConfigSpec {
        name: "databases",
        kind: Kind::Int { min: 1, max: crate::units::DATABASES_MAX as i64 },
        default: "16",
        doc: "Number of logical databases that SELECT can choose from.",
        ..PROCESS
    },
    ConfigSpec {
        name: "daemonize",
        doc: "Stays in the foreground, whatever started it.",
        only: Some((
            "no",
            "cordis-server stays in the foreground: start it from systemd, or with `&`",
        )),
        ..PROCESS
    },
    ConfigSpec {
        name: "hz",
        kind: INT,
        default: "10",
        unit: "per second",
        doc: "Kept for tools that ask for it, between 1 and 500; background work follows turns.",
        change: Change::AtRunTime,
        ..PROCESS
    },
    ConfigSpec {
        name: "slot-balance",
        change: Change::AtRunTime,
        doc: "Moves slots between the cores of this server to level their load.",
        ..PROCESS
    },
    ConfigSpec {
        name: "cluster-secret",
        kind: Kind::Secret,
        default: "",
        doc: "What CORDIS AUTH asks for before any other CORDIS command; empty asks for nothing.",
        ..PROCESS
    },
    ConfigSpec {
        name: "migrate-rate",
        kind: BYTES,
        default: "0",
        unit: "bytes per second",
        change: Change::AtRunTime,
        doc: "Most that a move of slots to another server sends; 0 is as fast as it can.",
        ..PROCESS
    },
    ConfigSpec {
        name: "migrate-parallel",
        kind: Kind::Int { min: 1, max: 1024 },
        default: "16",
        unit: "slots",
        change: Change::AtRunTime,
        doc: "Slots that each core moves to another server at the same time.",
        ..PROCESS
    },
    ConfigSpec {
        name: "requirepass",
        kind: Kind::Secret,
        default: "",
        doc: "Password of the default user; empty lets everybody in.",
        ..CLIENTS
    },
    ConfigSpec {
        name: "maxclients",
        kind: Kind::Int { min: 1, max: u32::MAX as i64 },
        default: "10000",
        unit: "clients",
        doc: "Clients connected at once; more are refused.",
        ..CLIENTS
    },
    ConfigSpec {
        name: "timeout",
        kind: INT,
        default: "0",
        unit: "seconds",
        doc: "Idle time after which a client is disconnected; 0 is never.",
        ..CLIENTS
    },
    ConfigSpec {
        name: "proto-max-bulk-len",
        kind: BYTES_FROM_1MB,
        default: "512mb",
        unit: "bytes",
        doc: "Longest string, and longest word of a request.",
        ..CLIENTS
    },
    ConfigSpec {
        name: "client-query-buffer-limit",
        kind: BYTES_FROM_1MB,
        default: "1gb",
        unit: "bytes",
        doc: "Unfinished request beyond which a client is disconnected.",
        ..CLIENTS
    },
    ConfigSpec {
        name: "client-output-buffer-limit",
        kind: Kind::Text(value::keep_output_limits),
        default: "normal 1073741824 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        doc: "Unread output beyond which a client is disconnected, by class: hard limit, soft \
              limit, and seconds above the soft one; 0 is no limit.",
        ..CLIENTS
    },
    ConfigSpec {
        name: "sanitize-dump-payload",
        kind: Kind::Enum(&[("no", 0), ("yes", 1), ("clients", 2)]),
        default: "no",
        doc: "Kept for tools that set it; what RESTORE is given is always checked to the last byte.",
        ..CLIENTS
    },
    ConfigSpec {
        name: "notify-keyspace-events",
        kind: Kind::Events,
        default: "",
        doc: "Classes of keyspace events to publish, as letters; empty is none.",
        ..CLIENTS
    },
    ConfigSpec {
        name: "maxmemory",
        kind: BYTES,
        default: "0",
        unit: "bytes",
        doc: "Memory that data and clients may take before keys are evicted; 0 is no limit.",
        ..MEMORY
    },
    ConfigSpec {
        name: "maxmemory-policy",
        kind: Kind::Enum(&[
            ("volatile-lru", Policy::VolatileLru as i64),
            ("volatile-lfu", Policy::VolatileLfu as i64),
            ("volatile-random", Policy::VolatileRandom as i64),
            ("volatile-ttl", Policy::VolatileTtl as i64),
            ("allkeys-lru", Policy::AllKeysLru as i64),
            ("allkeys-lfu", Policy::AllKeysLfu as i64),
            ("allkeys-random", Policy::AllKeysRandom as i64),
            ("noeviction", Policy::NoEviction as i64),
        ]),
        default: "noeviction",
        doc: "Which keys go when memory is short.",
        ..MEMORY
    },
    ConfigSpec {
        name: "maxmemory-samples",
        kind: Kind::Int { min: 1, max: i32::MAX as i64 },
        default: "5",
        unit: "keys",
        doc: "Keys looked at per eviction: more come closer to the true order and cost more.",
        ..MEMORY
    },
    ConfigSpec {
        name: "maxmemory-eviction-tenacity",
        kind: Kind::Int { min: 0, max: 100 },
        default: "10",
        doc: "Kept for tools that set it; eviction works within the time budget of a turn.",
        ..MEMORY
    },
    ConfigSpec {
        name: "lfu-log-factor",
        kind: INT,
        default: "10",
        doc: "How much harder it gets for a popular key to raise its LFU counter.",
        ..MEMORY
    },
    ConfigSpec {
        name: "lfu-decay-time",
        kind: INT,
        default: "1",
        unit: "minutes",
        doc: "Idle time that lowers a key's LFU counter by one; 0 never lowers it.",
        ..MEMORY
    },
    ConfigSpec {
        name: "active-expire-effort",
        kind: Kind::Int { min: 1, max: 10 },
        default: "1",
        doc: "Kept for tools that set it; keys are deleted in the order of their deadlines.",
        ..FREEING
    },
    ConfigSpec {
        name: "lazyfree-lazy-eviction",
        doc: "Frees the values of evicted keys in slices in the background.",
        ..FREEING
    },
    ConfigSpec {
        name: "lazyfree-lazy-expire",
        doc: "Frees the values of expired keys in slices in the background.",
        ..FREEING
    },
    ConfigSpec {
        name: "lazyfree-lazy-server-del",
        doc: "Frees values that commands overwrite in slices in the background.",
        ..FREEING
    },
    ConfigSpec {
        name: "lazyfree-lazy-user-del",
        doc: "Makes DEL free values as UNLINK does.",
        ..FREEING
    },
    ConfigSpec {
        name: "lazyfree-lazy-user-flush",
        doc: "Makes FLUSHDB and FLUSHALL without an option mean ASYNC.",
        ..FREEING
    },
    ConfigSpec {
        name: "slowlog-log-slower-than",
        kind: Kind::Int { min: -1, max: i64::MAX },
        default: "10000",
        unit: "microseconds",
        doc: "Run time beyond which a command enters the slow log; -1 turns it off.",
        ..OBSERVE
    },
    ConfigSpec {
        name: "slowlog-max-len",
        kind: LONG,
        default: "128",
        unit: "entries",
        doc: "Entries that the slow log keeps.",
        ..OBSERVE
    },
    ConfigSpec {
        name: "latency-monitor-threshold",
        kind: LONG,
        default: "0",
        unit: "milliseconds",
        doc: "Duration beyond which an event is kept for LATENCY; 0 turns it off.",
        ..OBSERVE
    },
    ConfigSpec {
        name: "latency-tracking",
        default: "yes",
        doc: "Counts run times per command for INFO latencystats and LATENCY HISTOGRAM.",
        ..OBSERVE
    },
    ConfigSpec {
        name: "latency-tracking-info-percentiles",
        kind: Kind::Text(value::keep_percentiles),
        default: "50 99 99.9",
        unit: "percent",
        doc: "Percentiles of run time that INFO latencystats shows.",
        ..OBSERVE
    },
    ConfigSpec {
        name: "loglevel",
        kind: Kind::Enum(&[("debug", 0), ("verbose", 1), ("notice", 2), ("warning", 3)]),
        default: "notice",
        change: Change::AtRunTime,
        doc: "Least severity that is logged.",
        ..LOG
    },
    ConfigSpec {
        name: "logfile",
        kind: Kind::Text(value::keep_any),
        default: "",
        doc: "File to log to; empty is standard error. SIGHUP opens it anew.",
        ..LOG
    },
    ConfigSpec {
        name: "log-format",
        kind: Kind::Enum(&[("text", 0), ("json", 1)]),
        default: "text",
        doc: "Form of a log line.",
        ..LOG
    },
    ConfigSpec {
        name: "log-rotate",
        kind: Kind::Text(value::keep_rotation),
        default: "no",
        doc: "When a new log file is begun: `day`, a size as `100mb`, or `no`; eight old ones stay.",
        ..LOG
    },
    ConfigSpec {
        name: "save",
        kind: Kind::Text(value::keep_save_points),
        default: "",
        doc: "When to write a snapshot, as pairs of seconds and changes; empty is never.",
        only: Some(("", NO_PERSISTENCE)),
        ..DISK
    },
    ConfigSpec {
        name: "appendonly",
        doc: "Logs every write to disk; turned on later, the log begins with what there is then.",
        ..DISK
    },
    ConfigSpec {
        name: "appenddirname",
        kind: Kind::Text(value::keep_file_name),
        default: "appendonlydir",
        change: Change::AtStart,
        doc: "Directory of the log of writes, within `dir`.",
        ..DISK
    },
    ConfigSpec {
        name: "appendfilename",
        kind: Kind::Text(value::keep_file_name),
        default: "appendonly.aof",
        change: Change::AtStart,
        doc: "What the names of the files of the log of writes begin with.",
        ..DISK
    },
    ConfigSpec {
        name: "appendfsync",
        kind: Kind::Enum(&[("everysec", 0), ("always", 1), ("no", 2)]),
        default: "everysec",
        doc: "When the log of writes is forced to disk; takes effect with `appendonly`.",
        ..DISK
    },
    ConfigSpec {
        name: "no-appendfsync-on-rewrite",
        doc: "Does not force the log of writes to disk each second while it is rewritten.",
        ..DISK
    },
    ConfigSpec {
        name: "auto-aof-rewrite-percentage",
        kind: INT,
        default: "100",
        unit: "percent",
        doc: "Growth of the log of writes after which it is rewritten; 0 never does that.",
        ..DISK
    },
    ConfigSpec {
        name: "auto-aof-rewrite-min-size",
        kind: Kind::Memory { min: 0, max: i64::MAX as u64 },
        default: "64mb",
        unit: "bytes",
        doc: "Size that the log of writes has at least when that is done.",
        ..DISK
    },
    ConfigSpec {
        name: "aof-load-truncated",
        default: "yes",
        doc: "Starts without the end of the log of writes if that was lost, and says so.",
        ..DISK
    },
    ConfigSpec {
        name: "hash-max-listpack-entries",
        alias: Some("hash-max-ziplist-entries"),
        default: "512",
        unit: "fields",
        doc: "Hashes up to this many fields are kept as one compact block.",
        ..TYPES
    },
    ConfigSpec {
        name: "hash-max-listpack-value",
        alias: Some("hash-max-ziplist-value"),
        kind: BYTES_OF_VALUE,
        default: "64",
        unit: "bytes",
        doc: "Hashes with a longer field or value are not.",
        ..TYPES
    },
    ConfigSpec {
        name: "list-max-listpack-size",
        alias: Some("list-max-ziplist-size"),
        kind: Kind::Int { min: i32::MIN as i64, max: i32::MAX as i64 },
        default: "-2",
        doc: "Elements of one node of a list; -1 to -5 mean 4, 8, 16, 32 and 64 KiB instead.",
        ..TYPES
    },
    ConfigSpec {
        name: "list-compress-depth",
        kind: INT,
        default: "0",
        unit: "nodes",
        doc: "Nodes at each end of a list that stay uncompressed; 0 compresses none.",
        ..TYPES
    },
    ConfigSpec {
        name: "set-max-intset-entries",
        default: "512",
        unit: "members",
        doc: "Sets of up to this many integers are kept as one sorted array.",
        ..TYPES
    },
    ConfigSpec {
        name: "zset-max-listpack-entries",
        alias: Some("zset-max-ziplist-entries"),
        default: "128",
        unit: "members",
        doc: "Sorted sets up to this many members are kept as one compact block.",
        ..TYPES
    },
    ConfigSpec {
        name: "zset-max-listpack-value",
        alias: Some("zset-max-ziplist-value"),
        kind: BYTES_OF_VALUE,
        default: "64",
        unit: "bytes",
        doc: "Sorted sets with a longer member are not.",
        ..TYPES
    },
    ConfigSpec {
        name: "hll-sparse-max-bytes",
        kind: BYTES_OF_VALUE,
        default: "3000",
        unit: "bytes",
        doc: "Size at which a HyperLogLog turns from sparse to dense.",
        ..TYPES
    },
    ConfigSpec {
        name: "stream-node-max-bytes",
        kind: BYTES_OF_VALUE,
        default: "4096",
        unit: "bytes",
        doc: "Size of one node of a stream; 0 is no limit.",
        ..TYPES
    },
    ConfigSpec {
        name: "stream-node-max-entries",
        default: "100",
        unit: "entries",
        doc: "Entries of one node of a stream; 0 is no limit.",
        ..TYPES
    },
];

/// Number of options.
pub const OPTION_COUNT: usize = SPECS.len();

/// Position of an option in [`SPECS`].
///
/// # Panics
/// When the program is built, if there is no such option.
pub(super) const fn at(name: &str) -> usize {
    let mut i = 0;
    while i < SPECS.len() {
        if same_bytes(SPECS[i].name.as_bytes(), name.as_bytes()) {
            return i;
        }
        i += 1;
    }
    panic!("no such option")
}

const fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Position of the option that `name` names in any case, by its name or its alias.
pub fn find(name: &[u8]) -> Option<usize> {
    let same = |other: &str| other.as_bytes().eq_ignore_ascii_case(name);
    SPECS.iter().position(|spec| same(spec.name) || spec.alias.is_some_and(same))
}

/// The name closest to a misspelt one, if any is close.
pub fn similar(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let distances = SPECS.iter().map(|spec| (edit_distance(spec.name, &name), spec.name));
    // A third of the letters wrong is a different word.
    distances.min().filter(|(distance, _)| *distance <= 1 + name.len() / 4).map(|(_, name)| name)
}

/// Letters to insert, delete or replace to get from one word to the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::{Value, parse};

    #[test]
    fn specs_all_have_unique_names_and_good_defaults() {
        let mut names: Vec<&str> =
            SPECS.iter().flat_map(|spec| [Some(spec.name), spec.alias]).flatten().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for spec in SPECS {
            assert!(parse(spec, spec.default, "").is_ok(), "{}", spec.name);
            assert!(spec.doc.ends_with('.') && spec.doc.len() > 15, "{}", spec.name);
            assert!(!spec.section.is_empty(), "{}", spec.name);
        }
    }

    #[test]
    fn policies_all_appear_by_their_own_name() {
        let Kind::Enum(words) = SPECS[at("maxmemory-policy")].kind else { panic!("an enum") };
        assert_eq!(words.len(), Policy::ALL.len());
        for (word, number) in words {
            assert_eq!(Policy::ALL[*number as usize].name(), *word);
        }
        let default = parse(&SPECS[at("maxmemory-policy")], "noeviction", "");
        assert_eq!(default, Ok(Value::Number(Policy::default() as i64)));
    }

    #[test]
    fn find_takes_any_case_and_aliases() {
        assert_eq!(find(b"MaxMemory"), Some(at("maxmemory")));
        assert_eq!(find(b"hash-max-ziplist-value"), Some(at("hash-max-listpack-value")));
        assert_eq!(find(b"nosuch"), None);
    }

    #[test]
    fn similar_offers_only_close_names() {
        assert_eq!(similar("max-memory"), Some("maxmemory"));
        assert_eq!(similar("maxclient"), Some("maxclients"));
        assert_eq!(similar("tcp_backlog"), Some("tcp-backlog"));
        assert_eq!(similar("zzzzzz"), None);
    }
}
