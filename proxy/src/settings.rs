//! What the data path has to know of the configuration: plain numbers and secrets, in its own units.
//! Made from the configuration file by the process; knows no file and no command line.

/// Settings of the data path. Names and defaults are those of the configuration keys.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The product that this proxy serves.
    pub product_name: String,
    /// The password that servers ask for; empty: none.
    pub product_auth: String,
    /// What servers of ours ask of each other and of proxies; empty: nothing.
    pub cluster_secret: String,
    /// The password that clients must give; empty: none.
    pub session_auth: String,
    /// Most sessions at a time.
    pub proxy_max_clients: usize,
    /// How long a connection to a server may be silent before it is asked for a sign of life.
    pub backend_ping_period_ms: i64,
    /// How long a request may take, from its arrival to its reply, retries included.
    pub backend_recv_timeout_ms: i64,
    /// Unanswered requests of one link beyond which its sessions wait.
    pub backend_max_pipeline: usize,
    /// Bytes of unanswered requests of one link beyond which its sessions wait.
    pub backend_pending_bytes_max: usize,
    /// Links to one backend, all cores of this process together.
    pub backend_links_max: usize,
    /// Seconds between probes of a silent connection to a server.
    pub backend_keepalive_seconds: u32,
    /// Databases that clients may select.
    pub backend_number_databases: u8,
    /// Unanswered requests of one session beyond which its input waits.
    pub session_max_pipeline: usize,
    /// Silence after which a session is closed; 0: never.
    pub session_recv_timeout_ms: i64,
    /// How long a session may take nothing of the output that waits for it; 0: for ever.
    pub session_send_timeout_ms: i64,
    /// Output of one session beyond which it is closed.
    pub session_out_bytes_max: usize,
    /// An unfinished request of one session beyond which it is closed.
    pub session_query_bytes_max: usize,
    /// Seconds between probes of a silent client.
    pub session_keepalive_seconds: u32,
    /// Whether a session is closed when a backend fails it.
    pub session_break_on_failure: bool,
    /// Longest word of a request.
    pub word_bytes_max: usize,
    /// Calls that took longer go to the slow log; negative: none.
    pub slowlog_slower_than_us: i64,
    /// Slow calls that are kept.
    pub slowlog_max_len: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            product_name: "codis-demo".to_owned(),
            product_auth: String::new(),
            cluster_secret: String::new(),
            session_auth: String::new(),
            proxy_max_clients: 1000,
            backend_ping_period_ms: 5_000,
            backend_recv_timeout_ms: 30_000,
            backend_max_pipeline: 20_480,
            backend_pending_bytes_max: 16 << 20,
            backend_links_max: 64,
            backend_keepalive_seconds: 75,
            backend_number_databases: 16,
            session_max_pipeline: 10_000,
            session_recv_timeout_ms: 30 * 60_000,
            session_send_timeout_ms: 30_000,
            session_out_bytes_max: 256 << 20,
            session_query_bytes_max: 1 << 30,
            session_keepalive_seconds: 75,
            session_break_on_failure: false,
            word_bytes_max: 512 << 20,
            slowlog_slower_than_us: 10_000,
            slowlog_max_len: 128,
        }
    }
}
