//! The proxy's settings: read once, from a file and from flags, and never changed afterwards.

pub mod spec;
pub mod value;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::spec::{KeySpec, Kind, SPECS};

/// What every key holds, as text in the form that it is shown in.
#[derive(Clone, Debug)]
pub struct Values {
    texts: Vec<String>,
    is_set: Vec<bool>,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            texts: SPECS.iter().map(|spec| spec.default.to_owned()).collect(),
            is_set: vec![false; SPECS.len()],
        }
    }
}

/// What a key is set to, in its usual form, or why it cannot be.
fn normal(spec: &KeySpec, text: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("'{text}' is not {what}"));
    match spec.kind {
        Kind::Text | Kind::Secret | Kind::Ignored(_) => Ok(text.to_owned()),
        Kind::Name if text.is_empty() => Err("must not be empty".to_owned()),
        Kind::Name => Ok(text.to_owned()),
        Kind::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Ok("true".to_owned()),
            "false" | "no" | "0" => Ok("false".to_owned()),
            _ => wrong("true or false"),
        },
        Kind::Int(min, max) => match text.trim().parse::<u64>() {
            Ok(n) if (min..=max).contains(&n) => Ok(n.to_string()),
            _ => wrong(&format!("a number from {min} to {max}")),
        },
        Kind::Size => match value::parse_size(text) {
            Some(bytes) => Ok(value::print_size(bytes)),
            None => wrong("a size, such as 128kb"),
        },
        Kind::Span => match value::parse_span(text) {
            Some(span) => Ok(value::print_span(span)),
            None => wrong("a span of time, such as 30s"),
        },
        Kind::Cpus => value::parse_cpus(text).map(|_| text.to_owned()),
        Kind::Word(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => Ok((*word).to_owned()),
            None => wrong(&format!("one of {}", words.join(", "))),
        },
        Kind::Address => match text.rsplit_once(':').map(|(_, port)| port.parse::<u16>()) {
            Some(Ok(_)) => Ok(text.to_owned()),
            _ => wrong("an address, such as 127.0.0.1:19000"),
        },
        Kind::Unbuilt if text == spec.default => Ok(text.to_owned()),
        Kind::Unbuilt => Err("not built in yet".to_owned()),
    }
}

impl Values {
    /// Sets a key.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn set(&mut self, spec: &'static KeySpec, text: &str) -> Result<(), String> {
        let at = index(spec.name);
        self.texts[at] = normal(spec, text)?;
        self.is_set[at] = true;
        Ok(())
    }

    /// What a key holds.
    ///
    /// # Panics
    /// If there is no such key: names are ours.
    pub fn text(&self, name: &str) -> &str {
        &self.texts[index(name)]
    }

    /// What a key holds as it may be shown.
    pub fn shown(&self, spec: &KeySpec) -> &str {
        match (spec.kind, self.text(spec.name)) {
            (Kind::Secret, text) if !text.is_empty() => "(hidden)",
            (_, text) => text,
        }
    }

    /// Keys that were set although they change nothing, and why they do not.
    pub fn ignored(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        SPECS.iter().zip(&self.is_set).filter_map(|(spec, is_set)| match spec.kind {
            Kind::Ignored(why) if *is_set => Some((spec.name, why)),
            _ => None,
        })
    }

    /// Reads a file of settings.
    ///
    /// # Errors
    /// One line: which key, and what is wrong with it.
    pub fn load_toml(&mut self, text: &str) -> Result<(), String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            format!("line {line}: {}", error.message())
        })?;
        for (name, value) in &table {
            let spec = spec::find(name).ok_or_else(|| format!("there is no key '{name}'"))?;
            let text = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(n) => n.to_string(),
                toml::Value::Float(n) => n.to_string(),
                toml::Value::Boolean(yes) => yes.to_string(),
                _ => return Err(format!("{name}: a table or list is not expected here")),
            };
            self.set(spec, &text).map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }

    /// Every key with what it holds, as a file; secrets are not shown.
    pub fn to_toml(&self) -> String {
        let mut section = "";
        let mut out = String::new();
        for spec in SPECS.iter().filter(|s| !matches!(s.kind, Kind::Ignored(_) | Kind::Unbuilt)) {
            if spec.section != section {
                section = spec.section;
                out.push_str(&format!("\n# {section}\n"));
            }
            let text = match spec.kind {
                Kind::Secret => "\"\"".to_owned(),
                Kind::Int(..) | Kind::Bool => self.text(spec.name).to_owned(),
                _ => toml::Value::String(self.text(spec.name).to_owned()).to_string(),
            };
            out.push_str(&format!("# {}\n{} = {text}\n", spec.doc, spec.name));
        }
        out
    }
}

fn index(name: &str) -> usize {
    let found = SPECS.iter().position(|spec| spec.name == name);
    found.unwrap_or_else(|| panic!("`{name}` is not in the table of keys"))
}

/// The settings in the form that code uses. Names are those of the keys.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "`config::spec` says what each is about")]
pub struct Settings {
    pub product_name: String,
    pub product_auth: String,
    pub cluster_secret: String,
    pub session_auth: String,
    pub admin_auth: String,
    pub control: Vec<String>,
    pub proxy_addr: String,
    pub admin_addr: String,
    pub host_proxy: String,
    pub host_admin: String,
    pub proto_type: String,
    pub proxy_datacenter: String,
    pub proxy_max_clients: usize,
    pub tcp_backlog: i32,
    pub backend_ping_period: Duration,
    pub backend_recv_timeout: Duration,
    pub backend_send_timeout: Duration,
    pub backend_max_pipeline: usize,
    pub backend_keepalive_period: Duration,
    pub backend_number_databases: u8,
    pub backend_links_max: usize,
    pub backend_primary_only: bool,
    pub session_recv_timeout: Duration,
    pub session_send_timeout: Duration,
    pub session_max_pipeline: usize,
    pub session_keepalive_period: Duration,
    pub session_break_on_failure: bool,
    pub session_output_max: usize,
    pub slowlog_log_slower_than_us: i64,
    pub slowlog_max_len: usize,
    pub cores: Vec<usize>,
    pub dir: PathBuf,
    pub log: String,
    pub log_level: String,
    pub log_json: bool,
    pub pidfile: String,
    /// The same as text, for those who ask.
    pub values: Values,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(Values::default())
    }
}

impl Settings {
    /// Settings from texts, which have been checked when they were set.
    pub fn of(values: Values) -> Self {
        let text = |name| values.text(name).to_owned();
        let int = |name| values.text(name).parse::<u64>().expect("checked when it was set");
        let flag = |name| values.text(name) == "true";
        let span = |name| value::parse_span(values.text(name)).expect("checked when it was set");
        let bytes = |name| value::parse_size(values.text(name)).expect("checked when it was set");
        let list = values.text("control").split(',').map(str::trim).filter(|word| !word.is_empty());
        Self {
            product_name: text("product_name"),
            product_auth: text("product_auth"),
            cluster_secret: text("cluster_secret"),
            session_auth: text("session_auth"),
            admin_auth: text("admin_auth"),
            control: list.map(str::to_owned).collect(),
            proxy_addr: text("proxy_addr"),
            admin_addr: text("admin_addr"),
            host_proxy: text("host_proxy"),
            host_admin: text("host_admin"),
            proto_type: text("proto_type"),
            proxy_datacenter: text("proxy_datacenter"),
            proxy_max_clients: int("proxy_max_clients") as usize,
            tcp_backlog: int("tcp_backlog") as i32,
            backend_ping_period: span("backend_ping_period"),
            backend_recv_timeout: span("backend_recv_timeout"),
            backend_send_timeout: span("backend_send_timeout"),
            backend_max_pipeline: int("backend_max_pipeline") as usize,
            backend_keepalive_period: span("backend_keepalive_period"),
            backend_number_databases: int("backend_number_databases") as u8,
            backend_links_max: int("backend_links_max") as usize,
            backend_primary_only: flag("backend_primary_only"),
            session_recv_timeout: span("session_recv_timeout"),
            session_send_timeout: span("session_send_timeout"),
            session_max_pipeline: int("session_max_pipeline") as usize,
            session_keepalive_period: span("session_keepalive_period"),
            session_break_on_failure: flag("session_break_on_failure"),
            session_output_max: bytes("session_output_max") as usize,
            slowlog_log_slower_than_us: int("slowlog_log_slower_than") as i64,
            slowlog_max_len: int("slowlog_max_len") as usize,
            cores: value::parse_cpus(values.text("cores")).expect("checked when it was set"),
            dir: PathBuf::from(values.text("dir")),
            log: text("log"),
            log_level: text("log_level"),
            log_json: values.text("log_format") == "json",
            pidfile: text("pidfile"),
            values,
        }
    }
}

impl Settings {
    /// What the data path has to know of them.
    pub fn data_path(&self) -> crate::settings::Settings {
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let seconds = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
        crate::settings::Settings {
            product_name: self.product_name.clone(),
            product_auth: self.product_auth.clone(),
            cluster_secret: self.cluster_secret.clone(),
            session_auth: self.session_auth.clone(),
            proxy_max_clients: self.proxy_max_clients,
            backend_ping_period_ms: ms(self.backend_ping_period),
            backend_recv_timeout_ms: ms(self.backend_recv_timeout),
            backend_max_pipeline: self.backend_max_pipeline,
            backend_links_max: self.backend_links_max,
            backend_keepalive_seconds: seconds(self.backend_keepalive_period),
            backend_number_databases: self.backend_number_databases,
            session_max_pipeline: self.session_max_pipeline,
            session_recv_timeout_ms: ms(self.session_recv_timeout),
            session_send_timeout_ms: ms(self.session_send_timeout),
            session_out_bytes_max: self.session_output_max,
            session_keepalive_seconds: seconds(self.session_keepalive_period),
            session_break_on_failure: self.session_break_on_failure,
            slowlog_slower_than_us: self.slowlog_log_slower_than_us,
            slowlog_max_len: self.slowlog_max_len,
            ..crate::settings::Settings::default()
        }
    }
}

/// Whether a product may have this name.
pub fn is_product_name(name: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(is_word) && bytes.all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file that the original ships, with its defaults.
    const ORIGINAL: &str = r#"
product_name = "codis-demo"
product_auth = ""
session_auth = ""
admin_addr = "0.0.0.0:11080"
proto_type = "tcp4"
proxy_addr = "0.0.0.0:19000"
jodis_name = ""
jodis_addr = ""
jodis_auth = ""
jodis_timeout = "20s"
jodis_compatible = false
proxy_datacenter = ""
proxy_max_clients = 1000
proxy_max_offheap_size = "1024mb"
proxy_heap_placeholder = "256mb"
backend_ping_period = "5s"
backend_recv_bufsize = "128kb"
backend_recv_timeout = "30s"
backend_send_bufsize = "128kb"
backend_send_timeout = "30s"
backend_max_pipeline = 20480
backend_primary_only = false
backend_primary_parallel = 1
backend_replica_parallel = 1
backend_keepalive_period = "75s"
backend_number_databases = 16
session_recv_bufsize = "128kb"
session_recv_timeout = "30m"
session_send_bufsize = "64kb"
session_send_timeout = "30s"
session_max_pipeline = 10000
session_keepalive_period = "75s"
session_break_on_failure = false
metrics_report_server = ""
metrics_report_period = "1s"
metrics_report_influxdb_server = ""
metrics_report_influxdb_period = "1s"
metrics_report_influxdb_username = ""
metrics_report_influxdb_password = ""
metrics_report_influxdb_database = ""
metrics_report_statsd_server = ""
metrics_report_statsd_period = "1s"
metrics_report_statsd_prefix = ""
"#;

    #[test]
    fn file_of_the_original_is_taken() {
        let mut values = Values::default();
        values.load_toml(ORIGINAL).expect("every key of the original is known");
        let settings = Settings::of(values.clone());
        assert_eq!(settings.proxy_addr, "0.0.0.0:19000");
        assert_eq!(settings.session_recv_timeout, Duration::from_secs(30 * 60));
        assert!(values.ignored().any(|(name, _)| name == "proxy_heap_placeholder"));
        let defaults = Settings::default();
        assert_eq!(settings.backend_max_pipeline, defaults.backend_max_pipeline);
        assert_eq!(settings.backend_recv_timeout, defaults.backend_recv_timeout);
    }

    #[test]
    fn wrong_file_is_told_with_its_key() {
        let wrong = |text: &str| Values::default().load_toml(text).expect_err("it is wrong");
        assert_eq!(wrong("nonsense = 1"), "there is no key 'nonsense'");
        assert!(wrong("backend_ping_period = \"5x\"").contains("backend_ping_period: '5x' is not"));
        assert!(wrong("proxy_max_clients = 0").contains("a number from 1 to"));
        assert!(wrong("jodis_addr = \"127.0.0.1:2181\"").contains("jodis_addr: not built in yet"));
        assert!(wrong("product_name = \"\"").contains("must not be empty"));
        assert!(wrong("x = [").starts_with("line 1: "));
        assert!(wrong("[table]\na = 1").contains("'table'"));
    }

    #[test]
    fn printed_settings_are_read_back() {
        let mut values = Values::default();
        values.set(spec::find("session-auth").expect("known"), "hunter2").expect("any text");
        values.set(spec::find("dir").expect("known"), "/a \"b\"").expect("any text");
        let text = values.to_toml();
        assert!(!text.contains("hunter2"));
        let mut again = Values::default();
        again.load_toml(&text).expect("it was printed");
        assert_eq!(again.text("dir"), "/a \"b\"");
        assert_eq!(values.shown(spec::find("session_auth").expect("known")), "(hidden)");
    }

    #[test]
    fn product_names_are_those_of_the_original() {
        for good in ["codis-demo", "a", "_x.y-1"] {
            assert!(is_product_name(good), "{good}");
        }
        for bad in ["", "-a", "a b", "ä"] {
            assert!(!is_product_name(bad), "{bad}");
        }
    }
}
