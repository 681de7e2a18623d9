//! Settings of the process: every core reads them, CONFIG SET and the boot change them.
//! What options there are is in `spec`, what their texts mean in `value`, the configuration file
//! in `load`. Knows no session and no shard. Any thread may enter.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{array, fmt};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::commands::glob;
use crate::config::spec::{Change, ConfigSpec, OPTION_COUNT, SPECS, at, find};
use crate::config::value::{OutputLimit, Value, parse, parse_output_limits, print};
use crate::persist::files::Place;
use crate::persist::writer::Policy as FlushPolicy;
use crate::shard::evict::Policy;
use crate::types::Limits;

pub mod load;
pub mod spec;
pub mod value;

/// Called after an option has changed, with its spec and its new text.
pub type OnChange = Box<dyn Fn(&'static ConfigSpec, &str) + Send + Sync>;

/// The settings. Numbers, words and sizes cost one relaxed load each; texts are shared.
pub struct Config {
    /// By position in [`SPECS`]; unused for texts.
    numbers: [AtomicI64; OPTION_COUNT],
    /// By position in [`SPECS`]; empty for the rest.
    texts: Box<[ArcSwap<Arc<str>>]>,
    /// Limits of output of normal clients and of subscribers, from their text.
    output_limits: [[AtomicU64; 3]; 2],
    /// Most clients for which the process may open files.
    maxclients_ceiling: AtomicU64,
    /// DEBUG SET-ACTIVE-EXPIRE.
    active_expire: AtomicBool,
    /// Where the settings were read from.
    file: ArcSwapOption<PathBuf>,
    /// Serialises writers, so that a set of changes is whole. No core waits for it: it is taken by
    /// CONFIG SET and REWRITE alone, and CONFIG SET holds it for microseconds.
    writer: Mutex<()>,
    on_change: OnceLock<OnChange>,
}

/// Shows no value: one of them is a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        let empty: Arc<Arc<str>> = Arc::new("".into());
        let config = Self {
            numbers: array::from_fn(|_| AtomicI64::new(0)),
            texts: SPECS.iter().map(|_| ArcSwap::new(empty.clone())).collect(),
            output_limits: Default::default(),
            maxclients_ceiling: AtomicU64::new(u64::MAX),
            active_expire: AtomicBool::new(true),
            file: ArcSwapOption::empty(),
            writer: Mutex::new(()),
            on_change: OnceLock::new(),
        };
        for (index, spec) in SPECS.iter().enumerate() {
            let value = parse(spec, spec.default, "");
            config.store(index, value.expect("a test parses the default of every option"));
        }
        config
    }
}

/// Why settings were not changed, read or written. Shown without `ERR`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// CONFIG SET of an option that does not exist.
    Unknown(String),
    /// CONFIG SET of an option, and why it cannot have that value.
    Refused(String, String),
    /// CONFIG REWRITE without a file.
    NoFile,
    /// CONFIG REWRITE failed to write.
    Write(String),
    /// The file or a flag is wrong: where, and how.
    Load(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "Unknown option or number of arguments for CONFIG SET - '{name}'")
            }
            Self::Refused(name, why) => {
                write!(f, "CONFIG SET failed (possibly related to argument '{name}') - {why}")
            }
            Self::NoFile => f.write_str("The server is running without a config file"),
            Self::Write(why) => write!(f, "Rewriting config file: {why}"),
            Self::Load(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ConfigError {}

/// CONFIG GET, SET and what they rest on.
impl Config {
    /// Names and values of the options that any of the patterns matches, in the order of
    /// [`SPECS`]. A name without wildcards is given back as it was asked for.
    pub fn get_matching(&self, patterns: &[&[u8]]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (index, spec) in SPECS.iter().enumerate() {
            for name in [Some(spec.name), spec.alias].into_iter().flatten() {
                if let Some(shown) = patterns.iter().find_map(|pattern| shown_as(name, pattern)) {
                    found.push((shown, self.text_at(index)));
                }
            }
        }
        found
    }

    /// Changes all of these options, or none.
    ///
    /// # Errors
    /// What Redis says of the first that cannot be changed: names are looked at before values.
    pub fn set_all(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), ConfigError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let indexes = check_names(pairs)?;
        let mut staged: Vec<(usize, Value)> = Vec::with_capacity(pairs.len());
        for (&index, (name, text)) in indexes.iter().zip(pairs) {
            let value = self.parse_at(index, text).map_err(|why| refused(name, why))?;
            staged.push((index, value));
        }
        for ((index, value), (name, _)) in staged.iter().zip(pairs) {
            self.check_system(*index, value).map_err(|why| refused(name, why))?;
        }
        for (index, value) in staged {
            self.change(index, value);
        }
        Ok(())
    }

    /// Sets an option at start, whether or not it may change later.
    ///
    /// # Errors
    /// What is wrong with the value; that there is no such option.
    pub fn set_at_start(&self, name: &str, text: &str) -> Result<(), String> {
        let index = find(name.as_bytes()).ok_or_else(|| load::unknown_option(name))?;
        let value = self.parse_at(index, text.as_bytes())?;
        self.store(index, value);
        Ok(())
    }

    /// The value of an option as text; `None` if there is no such option.
    pub fn get(&self, name: &str) -> Option<String> {
        find(name.as_bytes()).map(|index| self.text_at(index))
    }

    /// Has `f` called after each change with CONFIG SET. Only the first call counts.
    pub fn on_change(&self, f: OnChange) {
        // A second listener would be a mistake of ours that a test of the boot shows.
        let _ = self.on_change.set(f);
    }

    fn parse_at(&self, index: usize, text: &[u8]) -> Result<Value, String> {
        let text =
            std::str::from_utf8(text).map_err(|_| "argument must be UTF-8 text".to_owned())?;
        let value = parse(&SPECS[index], text, &self.texts[index].load())?;
        Ok(match value {
            // Redis: any number is accepted and pulled into this range.
            Value::Number(hz) if index == HZ => Value::Number(hz.clamp(1, 500)),
            value => value,
        })
    }

    /// Whether the machine allows a value that is fine in itself.
    fn check_system(&self, index: usize, value: &Value) -> Result<(), String> {
        let ceiling = self.maxclients_ceiling.load(Relaxed);
        match value {
            Value::Number(n) if index == MAXCLIENTS && *n as u64 > ceiling => Err(format!(
                "The operating system is not able to handle the specified number of clients, \
                 try with {ceiling}"
            )),
            _ => Ok(()),
        }
    }

    fn change(&self, index: usize, value: Value) {
        let old = self.value_at(index);
        if old == value {
            return;
        }
        self.store(index, value);
        if let Some(on_change) = self.on_change.get() {
            on_change(&SPECS[index], &self.text_at(index));
        }
    }

    fn store(&self, index: usize, value: Value) {
        match value {
            // Ordering: relaxed; settings are independent of each other and of data.
            Value::Number(n) => self.numbers[index].store(n, Relaxed),
            Value::Text(text) => {
                if index == OUTPUT_LIMIT {
                    let [normal, _, pubsub] = output_limits(&text);
                    for (kept, limit) in self.output_limits.iter().zip([normal, pubsub]) {
                        kept[0].store(limit.hard_bytes, Relaxed);
                        kept[1].store(limit.soft_bytes, Relaxed);
                        kept[2].store(limit.soft_seconds, Relaxed);
                    }
                }
                self.texts[index].store(Arc::new(text.into()));
            }
        }
    }

    fn value_at(&self, index: usize) -> Value {
        match SPECS[index].kind {
            spec::Kind::Text(_) | spec::Kind::Secret => {
                Value::Text(self.texts[index].load().to_string())
            }
            _ => Value::Number(self.number(index)),
        }
    }

    fn text_at(&self, index: usize) -> String {
        print(&SPECS[index], &self.value_at(index))
    }

    #[inline]
    fn number(&self, index: usize) -> i64 {
        self.numbers[index].load(Relaxed)
    }

    #[inline]
    fn is_on(&self, index: usize) -> bool {
        self.number(index) != 0
    }

    fn text(&self, index: usize) -> Arc<str> {
        Arc::clone(&self.texts[index].load())
    }
}

fn refused(name: &[u8], why: String) -> ConfigError {
    ConfigError::Refused(String::from_utf8_lossy(name).into_owned(), why)
}

/// How CONFIG GET shows an option that `pattern` selects.
fn shown_as(name: &str, pattern: &[u8]) -> Option<String> {
    let has_wildcard = pattern.iter().any(|byte| b"[*?".contains(byte));
    if !has_wildcard {
        let same = name.as_bytes().eq_ignore_ascii_case(pattern);
        return same.then(|| String::from_utf8_lossy(pattern).into_owned());
    }
    glob::matches(pattern, name.as_bytes(), glob::Case::Ignore).then(|| name.to_owned())
}

/// Positions of the options named, if all of them may change now.
fn check_names(pairs: &[(&[u8], &[u8])]) -> Result<Vec<usize>, ConfigError> {
    let mut indexes = Vec::with_capacity(pairs.len());
    for (i, (name, _)) in pairs.iter().enumerate() {
        let unknown = || ConfigError::Unknown(String::from_utf8_lossy(name).into_owned());
        let index = find(name).ok_or_else(unknown)?;
        let why = match SPECS[index].change {
            Change::AtStart => Some("can't set immutable config"),
            Change::Protected => Some("can't set protected config"),
            // Redis: an option and its alias are not the same parameter; the later one wins.
            Change::AtRunTime => pairs[..i]
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name))
                .then_some("duplicate parameter"),
        };
        if let Some(why) = why {
            return Err(refused(name, why.to_owned()));
        }
        indexes.push(index);
    }
    Ok(indexes)
}

fn output_limits(text: &str) -> [OutputLimit; 3] {
    let mut limits = [OutputLimit::default(); 3];
    // The text was checked when it was set.
    let _ = parse_output_limits(text, &mut limits);
    limits
}

const HZ: usize = at("hz");
const MAXCLIENTS: usize = at("maxclients");
const OUTPUT_LIMIT: usize = at("client-output-buffer-limit");

/// What the data path reads.
impl Config {
    /// Bytes that data may take; 0 is no limit.
    #[inline]
    pub fn maxmemory(&self) -> u64 {
        self.number(const { at("maxmemory") }) as u64
    }

    /// What is evicted beyond that.
    #[inline]
    pub fn maxmemory_policy(&self) -> Policy {
        let number = self.number(const { at("maxmemory-policy") });
        Policy::ALL[number as usize % Policy::ALL.len()]
    }

    /// Keys looked at per eviction.
    pub fn maxmemory_samples(&self) -> usize {
        self.number(const { at("maxmemory-samples") }) as usize
    }

    /// LFU decay.
    pub fn lfu_decay_minutes(&self) -> u64 {
        self.number(const { at("lfu-decay-time") }) as u64
    }

    /// LFU growth.
    pub fn lfu_log_factor(&self) -> u64 {
        self.number(const { at("lfu-log-factor") }) as u64
    }

    /// Limits of packed collections.
    pub fn limits(&self) -> Limits {
        let number = |at| usize::try_from(self.number(at)).unwrap_or(usize::MAX);
        Limits {
            hash_entries_max: number(const { at("hash-max-listpack-entries") }),
            hash_value_bytes_max: number(const { at("hash-max-listpack-value") }),
            set_ints_max: number(const { at("set-max-intset-entries") }),
            zset_entries_max: number(const { at("zset-max-listpack-entries") }),
            zset_value_bytes_max: number(const { at("zset-max-listpack-value") }),
        }
    }

    /// Slow log threshold in microseconds; negative is off.
    #[inline]
    pub fn slowlog_slower_than_us(&self) -> i64 {
        self.number(const { at("slowlog-log-slower-than") })
    }

    /// Entries that the slow log keeps.
    pub fn slowlog_max_len(&self) -> usize {
        self.number(const { at("slowlog-max-len") }) as usize
    }

    /// Duration in milliseconds beyond which LATENCY keeps an event; 0 is off.
    #[inline]
    pub fn latency_monitor_threshold_ms(&self) -> u64 {
        self.number(const { at("latency-monitor-threshold") }) as u64
    }

    /// Whether run times per command are counted.
    #[inline]
    pub fn latency_tracking(&self) -> bool {
        self.is_on(const { at("latency-tracking") })
    }

    /// Percentiles that INFO latencystats shows.
    pub fn latency_percentiles(&self) -> Vec<f64> {
        let text = self.text(const { at("latency-tracking-info-percentiles") });
        text.split(' ').filter_map(|word| word.parse().ok()).collect()
    }

    /// Bits of `notify-keyspace-events`; see [`value::EVENT_LETTERS`].
    #[inline]
    pub fn notify_keyspace_events(&self) -> u32 {
        self.number(const { at("notify-keyspace-events") }) as u32
    }

    /// Whether expired keys are deleted in the background (DEBUG SET-ACTIVE-EXPIRE).
    pub fn active_expire(&self) -> bool {
        self.active_expire.load(Relaxed)
    }

    /// Sets that.
    pub fn set_active_expire(&self, on: bool) {
        self.active_expire.store(on, Relaxed);
    }

    /// Longest string, and longest word of a request.
    #[inline]
    pub fn proto_max_bulk_bytes(&self) -> usize {
        self.number(const { at("proto-max-bulk-len") }) as usize
    }

    /// Limit of output of subscribers, or of normal clients.
    #[inline]
    pub fn client_output_limit(&self, is_subscriber: bool) -> OutputLimit {
        let kept = &self.output_limits[usize::from(is_subscriber)];
        OutputLimit {
            hard_bytes: kept[0].load(Relaxed),
            soft_bytes: kept[1].load(Relaxed),
            soft_seconds: kept[2].load(Relaxed),
        }
    }

    /// Limits of output of normal clients, replicas and subscribers, in this order.
    pub fn client_output_limits(&self) -> [OutputLimit; 3] {
        output_limits(&self.text(OUTPUT_LIMIT))
    }

    /// Most bytes of an unfinished request.
    #[inline]
    pub fn client_query_bytes_max(&self) -> usize {
        self.number(const { at("client-query-buffer-limit") }) as usize
    }

    /// Whether evicted values are freed in the background.
    pub fn lazyfree_lazy_eviction(&self) -> bool {
        self.is_on(const { at("lazyfree-lazy-eviction") })
    }

    /// Whether expired values are freed in the background.
    pub fn lazyfree_lazy_expire(&self) -> bool {
        self.is_on(const { at("lazyfree-lazy-expire") })
    }

    /// Whether overwritten values are freed in the background.
    pub fn lazyfree_lazy_server_del(&self) -> bool {
        self.is_on(const { at("lazyfree-lazy-server-del") })
    }

    /// Whether DEL means UNLINK.
    pub fn lazyfree_lazy_user_del(&self) -> bool {
        self.is_on(const { at("lazyfree-lazy-user-del") })
    }

    /// Whether FLUSHALL and FLUSHDB mean ASYNC.
    pub fn lazyfree_lazy_user_flush(&self) -> bool {
        self.is_on(const { at("lazyfree-lazy-user-flush") })
    }
}

/// What sessions and the turn read.
impl Config {
    /// Number of databases.
    pub fn databases(&self) -> u8 {
        self.number(const { at("databases") }) as u8
    }

    /// Password of the default user; none if it needs none.
    pub fn requirepass(&self) -> Option<Arc<str>> {
        let text = self.text(const { at("requirepass") });
        (!text.is_empty()).then_some(text)
    }

    /// What CORDIS AUTH asks for; none if anybody may.
    pub fn cluster_secret(&self) -> Option<Arc<str>> {
        let text = self.text(const { at("cluster-secret") });
        (!text.is_empty()).then_some(text)
    }

    /// Bytes per second that a move may send; 0 is without limit.
    pub fn migrate_rate_bytes(&self) -> u64 {
        self.number(const { at("migrate-rate") }) as u64
    }

    /// Slots that a core moves at once.
    pub fn migrate_parallel(&self) -> usize {
        self.number(const { at("migrate-parallel") }) as usize
    }

    /// Most clients at once.
    pub fn maxclients(&self) -> usize {
        self.number(MAXCLIENTS) as usize
    }

    /// Says for how many clients the process may open files, and lowers `maxclients` to that.
    pub fn limit_maxclients(&self, ceiling: u32) {
        self.maxclients_ceiling.store(ceiling.into(), Relaxed);
        self.numbers[MAXCLIENTS].fetch_min(ceiling.into(), Relaxed);
    }

    /// Seconds after which an idle client is closed; 0 is never.
    pub fn timeout_seconds(&self) -> u64 {
        self.number(const { at("timeout") }) as u64
    }

    /// Seconds between TCP keep-alive probes; 0 is off.
    pub fn tcp_keepalive_seconds(&self) -> u32 {
        self.number(const { at("tcp-keepalive") }) as u32
    }

    /// Whether clients from other hosts are refused while there is no password.
    pub fn protected_mode(&self) -> bool {
        self.is_on(const { at("protected-mode") })
    }

    /// Whether a new client is refused by the protected mode: it comes from another host, and
    /// there is no password. `addr` as a socket prints it.
    pub fn refuses_peer(&self, addr: &str, is_unix: bool) -> bool {
        // An address of no family belongs to a client that has gone again.
        let is_local = is_unix || addr.starts_with("127.") || addr.starts_with("[::1]:");
        self.protected_mode() && !is_local && self.requirepass().is_none()
    }

    /// Whether slots move between shards to level load.
    pub fn slot_balance(&self) -> bool {
        self.is_on(const { at("slot-balance") })
    }

    /// What `hz` says: INFO shows it.
    pub fn hz(&self) -> u32 {
        self.number(HZ) as u32
    }
}

/// What the append log reads.
impl Config {
    /// Whether writes are logged.
    #[inline]
    pub fn appendonly(&self) -> bool {
        self.is_on(const { at("appendonly") })
    }

    /// When the log is flushed.
    pub fn appendfsync(&self) -> FlushPolicy {
        match self.number(const { at("appendfsync") }) {
            0 => FlushPolicy::EverySecond,
            1 => FlushPolicy::Always,
            _ => FlushPolicy::Never,
        }
    }

    /// Whether it is not flushed each second while it is rewritten.
    pub fn no_appendfsync_on_rewrite(&self) -> bool {
        self.is_on(const { at("no-appendfsync-on-rewrite") })
    }

    /// Growth in percent after which it is rewritten; 0 is never.
    pub fn auto_aof_rewrite_percent(&self) -> u64 {
        self.number(const { at("auto-aof-rewrite-percentage") }) as u64
    }

    /// Size below which it is not.
    pub fn auto_aof_rewrite_bytes_min(&self) -> u64 {
        self.number(const { at("auto-aof-rewrite-min-size") }) as u64
    }

    /// Whether the server starts without a lost end of it.
    pub fn aof_load_truncated(&self) -> bool {
        self.is_on(const { at("aof-load-truncated") })
    }
}

/// What the boot reads.
impl Config {
    /// TCP port; 0 is none.
    pub fn port(&self) -> u16 {
        self.number(const { at("port") }) as u16
    }

    /// Addresses to listen on, between spaces.
    pub fn bind(&self) -> Arc<str> {
        self.text(const { at("bind") })
    }

    /// Path of the unix socket; empty is none.
    pub fn unixsocket(&self) -> Arc<str> {
        self.text(const { at("unixsocket") })
    }

    /// Permission bits of the unix socket; 0 leaves them.
    pub fn unixsocketperm(&self) -> u32 {
        self.number(const { at("unixsocketperm") }) as u32
    }

    /// Connections that may wait to be accepted.
    pub fn tcp_backlog(&self) -> i32 {
        self.number(const { at("tcp-backlog") }) as i32
    }

    /// CPUs to run on; empty is all.
    pub fn cpus(&self) -> Vec<usize> {
        let text = self.text(const { at("cores") });
        value::parse_cpus(&text).expect("the list was checked when it was set")
    }

    /// Directory of the server's files.
    pub fn dir(&self) -> PathBuf {
        PathBuf::from(&*self.text(const { at("dir") }))
    }

    /// Where the append log is.
    pub fn log_place(&self) -> Place {
        Place {
            dir: self.dir().join(&*self.text(const { at("appenddirname") })),
            name: self.text(const { at("appendfilename") }).to_string(),
        }
    }

    /// Least severity that is logged, from 0 (debug) to 3 (warning).
    pub fn loglevel(&self) -> u8 {
        self.number(const { at("loglevel") }) as u8
    }

    /// File to log to; empty is standard error.
    pub fn logfile(&self) -> Arc<str> {
        self.text(const { at("logfile") })
    }

    /// Whether log lines are JSON.
    pub fn log_is_json(&self) -> bool {
        self.is_on(const { at("log-format") })
    }

    /// When a new log file is begun.
    pub fn log_rotation(&self) -> value::Rotation {
        let text = self.text(const { at("log-rotate") });
        value::parse_rotation(&text).expect("the text was checked when it was set")
    }
}

/// Thresholds at which values change their encoding.
impl Config {
    /// Most fields of a hash in one block.
    #[inline]
    pub fn hash_max_listpack_entries(&self) -> usize {
        self.number(const { at("hash-max-listpack-entries") }) as usize
    }

    /// Longest field or value of a hash in one block.
    #[inline]
    pub fn hash_max_listpack_value_bytes(&self) -> usize {
        self.number(const { at("hash-max-listpack-value") }) as usize
    }

    /// Elements per node of a list, or a class of sizes if negative.
    #[inline]
    pub fn list_max_listpack_size(&self) -> i64 {
        self.number(const { at("list-max-listpack-size") })
    }

    /// Nodes at each end of a list that are not compressed; 0 compresses none.
    #[inline]
    pub fn list_compress_depth(&self) -> usize {
        self.number(const { at("list-compress-depth") }) as usize
    }

    /// Most integers of a set in one array.
    #[inline]
    pub fn set_max_intset_entries(&self) -> usize {
        self.number(const { at("set-max-intset-entries") }) as usize
    }

    /// Most members of a sorted set in one block.
    #[inline]
    pub fn zset_max_listpack_entries(&self) -> usize {
        self.number(const { at("zset-max-listpack-entries") }) as usize
    }

    /// Longest member of a sorted set in one block.
    #[inline]
    pub fn zset_max_listpack_value_bytes(&self) -> usize {
        self.number(const { at("zset-max-listpack-value") }) as usize
    }

    /// Size at which a HyperLogLog becomes dense.
    #[inline]
    pub fn hll_sparse_max_bytes(&self) -> usize {
        self.number(const { at("hll-sparse-max-bytes") }) as usize
    }

    /// Most bytes of a node of a stream; 0 is no limit.
    #[inline]
    pub fn stream_node_max_bytes(&self) -> usize {
        self.number(const { at("stream-node-max-bytes") }) as usize
    }

    /// Most entries of a node of a stream; 0 is no limit.
    #[inline]
    pub fn stream_node_max_entries(&self) -> usize {
        self.number(const { at("stream-node-max-entries") }) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<(), String> {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        config.set_all(&pairs).map_err(|error| error.to_string())
    }

    fn failed(name: &str, why: &str) -> Result<(), String> {
        Err(format!("CONFIG SET failed (possibly related to argument '{name}') - {why}"))
    }

    #[test]
    fn config_defaults_are_those_of_the_table() {
        let config = Config::default();
        assert_eq!(config.maxmemory(), 0);
        assert_eq!(config.maxmemory_policy(), Policy::NoEviction);
        assert_eq!(config.maxmemory_samples(), 5);
        assert_eq!((config.lfu_decay_minutes(), config.lfu_log_factor()), (1, 10));
        assert_eq!(config.slowlog_slower_than_us(), 10_000);
        assert_eq!(config.databases(), 16);
        assert!(config.active_expire() && config.requirepass().is_none());
        assert_eq!(config.proto_max_bulk_bytes(), 512 << 20);
        assert_eq!(config.client_output_limit(false).hard_bytes, 1 << 30);
        assert_eq!(config.client_output_limit(true).soft_bytes, 8 << 20);
        assert_eq!(config.client_query_bytes_max(), 1 << 30);
        assert_eq!(config.latency_percentiles(), [50.0, 99.0, 99.9]);
        assert_eq!(&*config.bind(), "127.0.0.1 -::1");
        assert!(config.protected_mode() && !config.slot_balance());
    }

    #[test]
    fn set_all_changes_every_option() {
        let config = Config::default();
        let pairs = [("maxmemory", "1gb"), ("maxmemory-policy", "allkeys-lfu"), ("HZ", "501")];
        assert_eq!(set(&config, &pairs), Ok(()));
        assert_eq!(config.maxmemory(), 1 << 30);
        assert_eq!(config.maxmemory_policy(), Policy::AllKeysLfu);
        assert_eq!(config.hz(), 500);
        assert_eq!(set(&config, &[("requirepass", "secret")]), Ok(()));
        assert_eq!(config.requirepass().as_deref(), Some("secret"));
        assert!(!format!("{config:?}").contains("secret"));
        let limit = [("client-output-buffer-limit", "normal 0 0 0")];
        assert_eq!(set(&config, &limit), Ok(()));
        assert_eq!(config.client_output_limit(false).hard_bytes, 0);
    }

    #[test]
    fn set_all_with_one_bad_value_changes_nothing() {
        let config = Config::default();
        let why = "argument must be between 1 and 4294967295 inclusive";
        let pairs = [("hz", "20"), ("requirepass", "x"), ("maxclients", "0")];
        assert_eq!(set(&config, &pairs), failed("maxclients", why));
        assert_eq!(config.hz(), 10);
        assert_eq!(config.requirepass(), None);
    }

    #[test]
    fn set_all_looks_at_names_before_values() {
        let config = Config::default();
        let unknown =
            Err("Unknown option or number of arguments for CONFIG SET - 'nosuch'".to_owned());
        assert_eq!(set(&config, &[("hz", "x"), ("nosuch", "1")]), unknown);
        let immutable = "can't set immutable config";
        assert_eq!(
            set(&config, &[("hz", "x"), ("databases", "1")]),
            failed("databases", immutable)
        );
        assert_eq!(
            set(&config, &[("databases", "2"), ("nosuch", "1")]),
            failed("databases", immutable)
        );
        assert_eq!(set(&config, &[("dir", "/")]), failed("dir", "can't set protected config"));
        assert_eq!(
            set(&config, &[("hz", "1"), ("HZ", "2"), ("nosuch", "3")]),
            failed("HZ", "duplicate parameter")
        );
        let pairs = [("hash-max-ziplist-entries", "10"), ("hash-max-listpack-entries", "11")];
        assert_eq!(set(&config, &pairs), Ok(()));
        assert_eq!(config.hash_max_listpack_entries(), 11);
    }

    #[test]
    fn set_all_of_bytes_that_are_no_text_is_refused() {
        let config = Config::default();
        let error = config.set_all(&[(b"requirepass", b"\xff")]).expect_err("no UTF-8");
        assert!(error.to_string().ends_with("argument must be UTF-8 text"));
        assert!(config.set_all(&[(b"\xff", b"1")]).is_err());
    }

    #[test]
    fn maxclients_beyond_the_open_files_is_refused() {
        let config = Config::default();
        config.limit_maxclients(100);
        assert_eq!(config.maxclients(), 100);
        let why = "The operating system is not able to handle the specified number of clients, \
                   try with 100";
        assert_eq!(set(&config, &[("maxclients", "101")]), failed("maxclients", why));
        assert_eq!(set(&config, &[("maxclients", "100")]), Ok(()));
    }

    #[test]
    fn refuses_peer_from_outside_without_a_password() {
        let config = Config::default();
        for addr in ["10.0.0.7:1", "[fe80::1]:1", "[::10]:1"] {
            assert!(config.refuses_peer(addr, false), "{addr}");
        }
        for addr in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1"] {
            assert!(!config.refuses_peer(addr, false), "{addr}");
        }
        assert!(!config.refuses_peer("/run/cordis.sock:0", true));
        assert_eq!(set(&config, &[("protected-mode", "no")]), Ok(()));
        assert!(!config.refuses_peer("10.0.0.7:1", false));
        let pairs = [("protected-mode", "yes"), ("requirepass", "secret")];
        assert_eq!(set(&config, &pairs), Ok(()));
        assert!(!config.refuses_peer("10.0.0.7:1", false));
    }

    #[test]
    fn get_matching_takes_patterns_in_any_case() {
        let config = Config::default();
        let get = |patterns: &[&[u8]]| config.get_matching(patterns);
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(get(&[b"HZ"]), [pair("HZ", "10")]);
        assert_eq!(get(&[b"HZ", b"h?"]), [pair("HZ", "10")]);
        assert_eq!(get(&[b"ZSET-*-ziplist-v*"]), [pair("zset-max-ziplist-value", "64")]);
        assert_eq!(get(&[b"nosuch", b"\xff*"]), []);
        let all = get(&[b"*"]);
        let names = SPECS.iter().map(|spec| 1 + usize::from(spec.alias.is_some()));
        assert_eq!(all.len(), names.sum::<usize>());
        assert!(all.contains(&pair("maxmemory-policy", "noeviction")));
    }

    #[test]
    fn on_change_hears_of_changes_only() {
        let config = Config::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = heard.clone();
        config.on_change(Box::new(move |spec, text| {
            ears.lock().expect("nobody panicked").push((spec.name, text.to_owned()));
        }));
        assert!(set(&config, &[("loglevel", "notice"), ("loglevel", "debug")]).is_err());
        assert_eq!(set(&config, &[("loglevel", "notice"), ("hz", "11")]), Ok(()));
        assert_eq!(set(&config, &[("loglevel", "debug")]), Ok(()));
        let want = [("hz", "11".to_owned()), ("loglevel", "debug".to_owned())];
        assert_eq!(*heard.lock().expect("nobody panicked"), want);
    }
}
