//! A running proxy as its admin port sees it, whichever process it runs in: its map, its counters, its
//! log.

use std::path::Path;
use std::sync::{Arc, Mutex};

use cordis_engine::node::Node;
use cordis_engine::slots::map::ClusterMap;

use crate::admin::{Admin, Host};
use crate::config::Settings;
use crate::info;
use crate::map_file::MapStore;
use crate::shared::Shared;
use crate::stats::{self, Stats};

/// The map that `dir` holds; whoever is given another tells all cores.
///
/// # Errors
/// One line: the file cannot be used.
pub fn open_maps(
    settings: &Settings,
    dir: &Path,
    shared: &Arc<Shared>,
) -> Result<MapStore, String> {
    let cores = shared.clone();
    let adopt = move |map: &Arc<ClusterMap>| {
        tracing::info!(epoch = map.epoch, groups = map.groups.len(), "going by this cluster map");
        cores.set_map(map.clone());
    };
    MapStore::open(dir, &settings.product_name, Box::new(adopt))
}

/// The running proxy, for its admin port.
pub struct Process {
    shared: Arc<Shared>,
    set_level: Box<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

impl Process {
    /// A proxy of these cores, in a process whose log's least severity this sets.
    pub fn new(shared: Arc<Shared>, set_level: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { shared, set_level: Box::new(set_level) }
    }
}

impl Host for Process {
    fn clock_ms(&self) -> u64 {
        self.shared.clock_ms().max(0) as u64
    }

    fn lease_until(&self, clock_ms: u64) {
        self.shared.renew_lease(i64::try_from(clock_ms).unwrap_or(i64::MAX));
    }

    fn lease_ends_ms(&self) -> u64 {
        self.shared.lease_until_ms().max(0) as u64
    }

    fn adopted_epoch(&self) -> u64 {
        self.shared.applied_epoch()
    }

    fn node(&self) -> &'static Node {
        self.shared.node
    }

    fn stats(&self) -> Stats {
        stats::collect(&self.shared)
    }

    fn reset_stats(&self) {
        for core in 0..self.shared.cores.len() {
            self.shared.run_on(core, Box::new(|hub| stats::reset_core(hub)));
        }
    }

    fn info(&self, sections: Vec<String>) -> String {
        info::from_outside(&self.shared, sections)
    }

    fn set_log_level(&self, word: &str) {
        (self.set_level)(word);
    }

    fn stop(&self) {
        self.shared.stop();
    }
}

/// What the admin port of a proxy serves that listens at these two addresses, for clients and for
/// administrators. `token` names this run.
pub fn admin_of(
    settings: Settings,
    maps: MapStore,
    host: Process,
    token: String,
    (proxy_addr, admin_addr): (String, String),
) -> Arc<Admin> {
    let or = |wanted: &str, own: String| if wanted.is_empty() { own } else { wanted.to_owned() };
    Arc::new(Admin {
        proxy_addr: or(&settings.host_proxy, proxy_addr),
        admin_addr: or(&settings.host_admin, admin_addr),
        log_level: Mutex::new(settings.log_level.clone()),
        rate: Mutex::default(),
        settings: Arc::new(settings),
        maps: Arc::new(maps),
        host: Box::new(host),
        token,
    })
}
