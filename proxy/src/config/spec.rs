//! Every key of the configuration: its name, what it holds, its default, and a line about it.
//! Names, defaults and meaning are the original's where it has the key.

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that must not be empty.
    Name,
    /// Text that is never shown.
    Secret,
    /// `true` or `false`.
    Bool,
    /// A number between these bounds.
    Int(u64, u64),
    /// Bytes.
    Size,
    /// A span of time; 0 stands for none.
    Span,
    /// CPUs as `0-3,8`.
    Cpus,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An address `host:port`.
    Address,
    /// The original has it; here it changes nothing, for this reason.
    Ignored(&'static str),
    /// The original has it; it is refused unless it is left at its default.
    Unbuilt,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// As in the file; a flag may have dashes in the place of underscores.
    pub name: &'static str,
    /// Another name for it.
    pub alias: Option<&'static str>,
    /// What it holds.
    pub kind: Kind,
    /// What it is if nobody says.
    pub default: &'static str,
    /// Where help lists it.
    pub section: &'static str,
    /// What it is about.
    pub doc: &'static str,
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    section: &'static str,
    doc: &'static str,
) -> KeySpec {
    KeySpec { name, alias: None, kind, default, section, doc }
}

impl KeySpec {
    const fn or(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }
}

const PRODUCT: &str = "Product";
const NET: &str = "Addresses and clients";
const BACKEND: &str = "Backends";
const SESSION: &str = "Sessions";
const PROCESS: &str = "Process and log";
const ORIGINAL: &str = "Keys of the original without effect";

const NO_GC: &str = "there is no garbage collector to steer and no buffer off the heap";
const SIZED: &str = "buffers grow and shrink with what they hold";
const PARALLEL: &str = "there is one link per core here and core there, see backend_links_max";

/// All keys, in the order in which they are listed.
pub const SPECS: &[KeySpec] = &[
    key("product_name", Kind::Name, "codis-demo", PRODUCT, "Name of the product that is served"),
    key("product_auth", Kind::Secret, "", PRODUCT, "Password that backends ask for"),
    key("cluster_secret", Kind::Secret, "", PRODUCT, "The cluster-secret of the servers"),
    key("session_auth", Kind::Secret, "", PRODUCT, "Password that clients must give"),
    key("admin_auth", Kind::Secret, "", PRODUCT, "Secret of the admin port; none: loopback only"),
    key("control", Kind::Text, "", PRODUCT, "Admin addresses of control processes, by commas")
        .or("dashboard"),
    key("proxy_addr", Kind::Address, "127.0.0.1:19000", NET, "Where clients connect"),
    key("admin_addr", Kind::Address, "127.0.0.1:11080", NET, "Where administrators connect"),
    key("host_proxy", Kind::Text, "", NET, "Client address as others reach it, if another"),
    key("host_admin", Kind::Text, "", NET, "Admin address as others reach it, if another"),
    key("proto_type", Kind::Word(&["tcp", "tcp4", "tcp6"]), "tcp4", NET, "Kind of the addresses"),
    key("proxy_datacenter", Kind::Text, "", NET, "Where this proxy stands"),
    key("proxy_max_clients", Kind::Int(1, 1_000_000), "1000", NET, "Clients at the same time"),
    key(
        "tcp_backlog",
        Kind::Int(1, 65_535),
        "511",
        NET,
        "Connections that may wait to be accepted",
    ),
    key("backend_ping_period", Kind::Span, "5s", BACKEND, "How often an idle link is tried"),
    key("backend_recv_timeout", Kind::Span, "30s", BACKEND, "How long a reply may take"),
    key("backend_send_timeout", Kind::Span, "30s", BACKEND, "How long a request may wait to leave"),
    key(
        "backend_max_pipeline",
        Kind::Int(1, 1 << 24),
        "20480",
        BACKEND,
        "Requests in flight per link",
    ),
    key("backend_keepalive_period", Kind::Span, "75s", BACKEND, "Keepalive of a link's socket"),
    key(
        "backend_number_databases",
        Kind::Int(1, 16),
        "16",
        BACKEND,
        "Databases offered to clients",
    ),
    key("backend_links_max", Kind::Int(1, 4096), "64", BACKEND, "Links to one backend, all cores"),
    key("backend_primary_only", Kind::Bool, "false", BACKEND, "Whether replicas are never read"),
    key("session_recv_timeout", Kind::Span, "30m", SESSION, "An idle client is closed after this"),
    key(
        "session_send_timeout",
        Kind::Span,
        "30s",
        SESSION,
        "A client that does not read is closed",
    ),
    key(
        "session_max_pipeline",
        Kind::Int(1, 1 << 24),
        "10000",
        SESSION,
        "Unanswered calls of a client",
    ),
    key("session_keepalive_period", Kind::Span, "75s", SESSION, "Keepalive of a client's socket"),
    key("session_break_on_failure", Kind::Bool, "false", SESSION, "Close a client after a failure"),
    key("session_output_max", Kind::Size, "256mb", SESSION, "Replies that may wait for a client"),
    key(
        "slowlog_log_slower_than",
        Kind::Int(0, i64::MAX as u64),
        "10000",
        PROCESS,
        "In microseconds",
    ),
    key("slowlog_max_len", Kind::Int(0, 1 << 20), "128", PROCESS, "Slow calls that are kept"),
    key("cores", Kind::Cpus, "", PROCESS, "CPUs to run on; empty: the first that is allowed"),
    key("dir", Kind::Name, ".", PROCESS, "Folder of the last map"),
    key("log", Kind::Text, "", PROCESS, "File of the log; empty: standard error").or("logfile"),
    key("log_level", Kind::Word(LEVELS), "info", PROCESS, "Least severity that is logged")
        .or("loglevel"),
    key("log_format", Kind::Word(&["text", "json"]), "text", PROCESS, "Form of the log's lines"),
    key("pidfile", Kind::Text, "", PROCESS, "File that holds the process id"),
    key("proxy_max_offheap_size", Kind::Ignored(NO_GC), "1024mb", ORIGINAL, "-"),
    key("proxy_heap_placeholder", Kind::Ignored(NO_GC), "256mb", ORIGINAL, "-"),
    key("backend_recv_bufsize", Kind::Ignored(SIZED), "128kb", ORIGINAL, "-"),
    key("backend_send_bufsize", Kind::Ignored(SIZED), "128kb", ORIGINAL, "-"),
    key("session_recv_bufsize", Kind::Ignored(SIZED), "128kb", ORIGINAL, "-"),
    key("session_send_bufsize", Kind::Ignored(SIZED), "64kb", ORIGINAL, "-"),
    key("backend_primary_parallel", Kind::Ignored(PARALLEL), "1", ORIGINAL, "-"),
    key("backend_replica_parallel", Kind::Ignored(PARALLEL), "1", ORIGINAL, "-"),
    key("ncpu", Kind::Ignored("cores are named with `cores`"), "1", ORIGINAL, "-"),
    key("max_ncpu", Kind::Ignored("cores are named with `cores`"), "1", ORIGINAL, "-"),
    key("jodis_name", Kind::Unbuilt, "", ORIGINAL, "-"),
    key("jodis_addr", Kind::Unbuilt, "", ORIGINAL, "-"),
    key("jodis_auth", Kind::Ignored("it belongs to jodis_addr"), "", ORIGINAL, "-"),
    key("jodis_timeout", Kind::Ignored("it belongs to jodis_addr"), "20s", ORIGINAL, "-"),
    key("jodis_compatible", Kind::Ignored("it belongs to jodis_addr"), "false", ORIGINAL, "-"),
    key("metrics_report_server", Kind::Unbuilt, "", ORIGINAL, "-"),
    key("metrics_report_period", Kind::Ignored(REPORT), "1s", ORIGINAL, "-"),
    key("metrics_report_influxdb_server", Kind::Unbuilt, "", ORIGINAL, "-"),
    key("metrics_report_influxdb_period", Kind::Ignored(REPORT), "1s", ORIGINAL, "-"),
    key("metrics_report_influxdb_username", Kind::Ignored(REPORT), "", ORIGINAL, "-"),
    key("metrics_report_influxdb_password", Kind::Ignored(REPORT), "", ORIGINAL, "-"),
    key("metrics_report_influxdb_database", Kind::Ignored(REPORT), "", ORIGINAL, "-"),
    key("metrics_report_statsd_server", Kind::Unbuilt, "", ORIGINAL, "-"),
    key("metrics_report_statsd_period", Kind::Ignored(REPORT), "1s", ORIGINAL, "-"),
    key("metrics_report_statsd_prefix", Kind::Ignored(REPORT), "", ORIGINAL, "-"),
];

const REPORT: &str = "it belongs to a server that reports go to";

/// Words of `log_level`, the original's among them.
pub const LEVELS: &[&str] = &["trace", "debug", "info", "warn", "error"];

/// The key of this name, with dashes or underscores.
pub fn find(name: &str) -> Option<&'static KeySpec> {
    let name = name.replace('-', "_");
    SPECS.iter().find(|spec| spec.name == name || spec.alias == Some(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_plain() {
        for (i, spec) in SPECS.iter().enumerate() {
            assert!(
                spec.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{}",
                spec.name
            );
            assert!(SPECS[..i].iter().all(|other| other.name != spec.name), "{}", spec.name);
        }
        assert_eq!(find("proxy-addr").map(|spec| spec.name), Some("proxy_addr"));
        assert_eq!(find("dashboard").map(|spec| spec.name), Some("control"));
        assert!(find("nonsense").is_none());
    }
}
