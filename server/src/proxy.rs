//! The proxy within the server's process, if there is one: its settings, what must be right before
//! the cores start, its parts for the cores, its admin port. Everything it does with requests is
//! `cordis_proxy`'s.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use cordis_engine::commands::table::table;
use cordis_engine::process::random;
use cordis_engine::runtime::tenant::Maker;
use cordis_engine::sys::socket;
use cordis_proxy::admin::{AdminPort, announce};
use cordis_proxy::config::spec::{KeySpec, Kind, SPECS};
use cordis_proxy::config::{Settings, Values, is_product_name};
use cordis_proxy::process::{self, Process};
use cordis_proxy::shared::Shared;
use cordis_proxy::tenant::{InServer, OwnAddrs};
use cordis_proxy::{listen, local};

use crate::log::Log;

/// The proxy's file of settings.
pub(crate) const FILE: &str = "proxy-config";
/// The flag of the address that administrators connect to.
const ADMIN_ADDR: &str = "--proxy-admin-addr";
/// Files that a proxy has open whoever connects: admin connections, and per core its letter box and
/// links to some servers.
const FILES: u64 = 96;
const CORE_FILES: u64 = 256;
/// Keys that are the server's own business.
const OF_SERVER: &[&str] = &["cores", "dir", "log", "log_level", "log_format", "pidfile"];

/// The keys of the proxy that are flags of the server.
pub(crate) fn keys() -> impl Iterator<Item = &'static KeySpec> {
    let is_one = |spec: &&KeySpec| {
        !matches!(spec.kind, Kind::Ignored(_) | Kind::Unbuilt) && !OF_SERVER.contains(&spec.name)
    };
    SPECS.iter().filter(is_one)
}

/// The flag of a key of the proxy, without the two dashes: the key's name, behind `proxy-`.
pub(crate) fn flag(spec: &KeySpec) -> String {
    let dashed = spec.name.replace('_', "-");
    if dashed.starts_with("proxy-") { dashed } else { format!("proxy-{dashed}") }
}

/// The settings of the proxy: those of its file, if one is named, overridden by flags. Nothing if
/// no flag concerns it.
///
/// # Errors
/// One line that says what is wrong.
pub(crate) fn settings(
    file: Option<&String>,
    flag_of: impl Fn(&str) -> Option<String>,
) -> Result<Option<Box<Settings>>, String> {
    let mut values = Values::default();
    if let Some(path) = file {
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        values.load_toml(&text).map_err(|why| format!("{path}: {why}"))?;
    }
    let mut has_flags = false;
    let mut has_addr = file.is_some();
    for spec in keys() {
        let flag = flag(spec);
        if let Some(text) = flag_of(&flag) {
            values.set(spec, &text).map_err(|why| format!("--{flag}: {why}"))?;
            has_flags = true;
            has_addr |= spec.name == "proxy_addr";
        }
    }
    if !has_addr {
        let why = "the proxy within the server has no address: set --proxy-addr";
        return if has_flags { Err(why.to_owned()) } else { Ok(None) };
    }
    let settings = Settings::of(values);
    if !is_product_name(&settings.product_name) {
        let name = &settings.product_name;
        return Err(format!(
            "--proxy-product-name: '{name}' is not a name of letters, digits, '_', '.' and '-'"
        ));
    }
    Ok(Some(Box::new(settings)))
}

/// Files that it may have open on this many cores.
pub(crate) fn files(settings: &Settings, core_count: usize) -> u64 {
    settings.proxy_max_clients as u64 + FILES + CORE_FILES * core_count as u64
}

/// A proxy whose sockets are there, but that does not run yet.
#[derive(Debug)]
pub(crate) struct Proxy {
    settings: Box<Settings>,
    /// Sockets that its clients connect to.
    pub(crate) listeners: Vec<OwnedFd>,
    proxy_addr: String,
    admin: TcpListener,
}

impl Proxy {
    /// Takes the addresses of its settings.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) fn prepare(settings: Box<Settings>) -> Result<Self, String> {
        let listeners = listen::clients(&settings)?;
        let admin = listen::admin(&settings, ADMIN_ADDR)?;
        let proxy_addr = listeners.first().map(socket::local_name).unwrap_or_default();
        Ok(Self { settings, listeners, proxy_addr, admin })
    }

    /// Its parts for the cores of a server that listens at `own` and keeps its files in `dir`, and
    /// what comes to life once these run.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) fn house(
        self,
        core_count: usize,
        own: Vec<SocketAddr>,
        dir: &Path,
    ) -> Result<(Vec<Maker>, Housed), String> {
        let data_path = self.settings.data_path();
        let made = Shared::new(data_path, core_count, table().id_count());
        let (shared, mailboxes) = made.map_err(|error| error.to_string())?;
        let maps = process::open_maps(&self.settings, dir, &shared)?;
        let ways = Arc::new(local::ways());
        let own = OwnAddrs::new(own);
        let makers = mailboxes.into_iter().enumerate().map(|(core, mailbox)| {
            let (shared, ways, own) = (shared.clone(), ways.clone(), own.clone());
            let maker: Maker =
                Box::new(move || Box::new(InServer::new(core, shared, ways, mailbox, own)));
            maker
        });
        let makers = makers.collect();
        let Self { settings, proxy_addr, admin, .. } = self;
        Ok((makers, Housed { settings, shared, maps, proxy_addr, admin }))
    }
}

/// A proxy that runs on the server's cores, without its admin port.
pub(crate) struct Housed {
    settings: Box<Settings>,
    shared: Arc<Shared>,
    maps: cordis_proxy::map_file::MapStore,
    proxy_addr: String,
    admin: TcpListener,
}

impl Housed {
    /// Opens the admin port, and has control hear of it.
    ///
    /// # Errors
    /// There is no thread to be had, or no random bytes.
    pub(crate) fn open(self, log: &Arc<Log>) -> Result<AdminPort, String> {
        let text = |error: std::io::Error| error.to_string();
        for (key, why) in self.settings.values.ignored() {
            tracing::info!(key, "this key of the proxy changes nothing here: {why}");
        }
        let level = log.clone();
        let host = Process::new(self.shared, move |word| level.set_level(level_of(word)));
        let token = random::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let admin_addr = self.admin.local_addr().map_err(text)?.to_string();
        let addrs = (self.proxy_addr, admin_addr);
        let state = process::admin_of(*self.settings, self.maps, host, token, addrs);
        let port = AdminPort::start(self.admin, state.clone()).map_err(text)?;
        announce(state.clone()).map_err(text)?;
        tracing::info!(
            proxy_addr = state.proxy_addr,
            proxy_admin_addr = state.admin_addr,
            product = state.settings.product_name,
            "the proxy within is ready"
        );
        Ok(port)
    }
}

/// The server's word for a severity that the proxy's admin port names.
fn level_of(word: &str) -> &'static str {
    match word {
        "trace" | "debug" => "debug",
        "info" => "notice",
        _ => "warning",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(flags: &[(&str, &str)]) -> Result<Option<Box<Settings>>, String> {
        settings(None, |flag| {
            flags.iter().find(|(name, _)| *name == flag).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn keys_are_flags_behind_one_prefix() {
        let flags: Vec<String> = keys().map(flag).collect();
        for name in ["proxy-addr", "proxy-admin-addr", "proxy-session-auth", "proxy-max-clients"] {
            assert!(flags.iter().any(|flag| flag == name), "{name}");
        }
        assert!(!flags.iter().any(|flag| flag == "proxy-dir" || flag == "proxy-cores"));
    }

    #[test]
    fn proxy_is_there_if_it_has_an_address() {
        assert!(given(&[]).expect("nothing is wrong").is_none());
        let error = given(&[("proxy-session-auth", "x")]).expect_err("it has no address");
        assert!(error.contains("set --proxy-addr"), "{error}");
        let flags = [("proxy-addr", "127.0.0.1:1"), ("proxy-product-name", "p")];
        let got = given(&flags).expect("nothing is wrong").expect("it has an address");
        assert_eq!((&*got.proxy_addr, &*got.product_name), ("127.0.0.1:1", "p"));
        let error = given(&[("proxy-addr", "x")]).expect_err("it is no address");
        assert!(error.starts_with("--proxy-addr: 'x' is not an address"), "{error}");
    }
}
