//! What a cluster on this machine consists of: its processes, their ports, processors and folders.
//! Kept in `DIR/up.json`, so that starting again finds everything as it was. Starts nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Options;

/// The shape of a cluster on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// The product's name.
    pub(crate) product: String,
    /// Port that applications connect to.
    pub(crate) proxy_port: u16,
    /// Port of the proxy's administration.
    pub(crate) proxy_admin_port: u16,
    /// Port of the control process.
    pub(crate) control_port: u16,
    /// Ports of the servers, one group each, in the order of their groups.
    pub(crate) server_ports: Vec<u16>,
}

/// One process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Name of its folder and in messages.
    pub(crate) name: String,
    /// The program.
    pub(crate) program: &'static str,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Where it answers PING once it is ready.
    pub(crate) port: u16,
}

/// The proxy's administration is this far above its port by default: as in Codis, 19000 and 11080.
const PROXY_ADMIN_PORT: u16 = 11080;
/// Most groups that `cordis up` starts.
const GROUPS_MAX: u16 = 64;

impl Layout {
    /// The cluster that `options` ask for.
    ///
    /// # Errors
    /// One line that says what cannot be.
    pub(crate) fn new(options: &Options) -> Result<Self, String> {
        let groups = options.groups.unwrap_or(2);
        if groups == 0 || groups > GROUPS_MAX {
            return Err(format!("--groups takes 1 to {GROUPS_MAX}, not {groups}"));
        }
        let first = options.server_port.unwrap_or(6380);
        let server_ports: Option<Vec<u16>> = (0..groups).map(|i| first.checked_add(i)).collect();
        let Some(server_ports) = server_ports else {
            return Err(format!("--server-port {first} leaves no room for {groups} servers"));
        };
        let proxy_port = options.port.unwrap_or(19000);
        // A second cluster beside the first needs ports of its own.
        let proxy_admin_port = match options.port {
            None | Some(19000) => PROXY_ADMIN_PORT,
            Some(port) => port.checked_add(1).ok_or("--port 65535 leaves no room beside it")?,
        };
        let layout = Self {
            product: "demo".to_owned(),
            proxy_port,
            proxy_admin_port,
            control_port: options.admin_port.unwrap_or(18080),
            server_ports,
        };
        let mut ports = layout.ports();
        ports.sort_unstable();
        if let Some(twice) = ports.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("port {} would be used twice: choose others", twice[0]));
        }
        Ok(layout)
    }

    fn ports(&self) -> Vec<u16> {
        let mut ports = vec![self.proxy_port, self.proxy_admin_port, self.control_port];
        ports.extend(&self.server_ports);
        ports
    }

    /// The cluster kept in `dir`, which flags must not contradict; or a new one, which is kept.
    ///
    /// # Errors
    /// One line: the file cannot be read or written, or a flag says otherwise.
    pub(crate) fn load_or_new(dir: &Path, options: &Options) -> Result<Self, String> {
        let path = dir.join("up.json");
        match std::fs::read(&path) {
            Ok(bytes) => {
                let kept: Self = serde_json::from_slice(&bytes)
                    .map_err(|error| format!("{} is damaged: {error}", path.display()))?;
                kept.check_flags(options, dir)?;
                Ok(kept)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let layout = Self::new(options)?;
                let text = serde_json::to_string_pretty(&layout)
                    .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                crate::up::write_durably(&path, text.as_bytes())
                    .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                Ok(layout)
            }
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }

    fn check_flags(&self, options: &Options, dir: &Path) -> Result<(), String> {
        let groups = self.server_ports.len() as u16;
        let pairs = [
            ("--groups", options.groups, groups),
            ("--port", options.port, self.proxy_port),
            ("--admin-port", options.admin_port, self.control_port),
            ("--server-port", options.server_port, self.server_ports[0]),
        ];
        for (flag, asked, kept) in pairs {
            if asked.is_some_and(|asked| asked != kept) {
                return Err(format!(
                    "{} holds a cluster with {flag} {kept}: leave the flag out, or choose another \
                     --dir",
                    dir.display()
                ));
            }
        }
        Ok(())
    }

    /// Its processes in the order of their start.
    pub(crate) fn processes(&self, dir: &Path, cpus: &[usize]) -> Vec<Process> {
        let control = format!("127.0.0.1:{}", self.control_port);
        let folder = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let shares = share_cpus(cpus, self.server_ports.len());
        let mut processes = vec![Process {
            name: "control".to_owned(),
            program: "cordis-control",
            args: vec![
                "--admin-addr".to_owned(),
                control.clone(),
                "--store".to_owned(),
                format!("file:{}", folder("control")),
                "--product-name".to_owned(),
                self.product.clone(),
            ],
            port: self.control_port,
        }];
        for (port, cpus) in self.server_ports.iter().zip(&shares.servers) {
            let name = format!("server-{port}");
            let args = ["--port", &port.to_string(), "--dir", &folder(&name), "--cores", cpus];
            let mut args: Vec<String> = args.map(str::to_owned).into();
            args.extend(["--save".to_owned(), String::new()]);
            processes.push(Process { name, program: "cordis-server", args, port: *port });
        }
        let name = "proxy".to_owned();
        let args = [
            "--proxy-addr",
            &format!("127.0.0.1:{}", self.proxy_port),
            "--admin-addr",
            &format!("127.0.0.1:{}", self.proxy_admin_port),
            "--cores",
            &shares.proxy,
            "--control",
            &control,
            "--product-name",
            &self.product,
            "--dir",
            &folder(&name),
        ];
        processes.push(Process {
            name,
            program: "cordis-proxy",
            args: args.map(str::to_owned).into(),
            port: self.proxy_admin_port,
        });
        processes
    }
}

/// Processors by process, as lists that `--cores` takes.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    servers: Vec<String>,
    proxy: String,
}

/// Deals processors: each server its own as far as they go, the proxy a quarter of them.
fn share_cpus(cpus: &[usize], server_count: usize) -> Shares {
    let list = |cpus: &[usize]| cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let for_proxy = (cpus.len() / 4).max(1);
    let left = cpus.len() - for_proxy;
    if left < server_count {
        // Fewer processors than processes: they share.
        let one = |i: usize| cpus[i % cpus.len()].to_string();
        let servers = (0..server_count).map(one).collect();
        return Shares { servers, proxy: cpus[cpus.len() - 1].to_string() };
    }
    let servers = (0..server_count)
        .map(|i| list(&cpus[i * left / server_count..(i + 1) * left / server_count]))
        .collect();
    Shares { servers, proxy: list(&cpus[left..]) }
}

/// The folder of a process.
pub(crate) fn folder(dir: &Path, process: &Process) -> PathBuf {
    dir.join(&process.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(servers: &[&str], proxy: &str) -> Shares {
        Shares { servers: servers.iter().map(|s| (*s).to_owned()).collect(), proxy: proxy.into() }
    }

    #[test]
    fn processors_are_shared_when_they_are_few_and_dealt_when_they_are_many() {
        assert_eq!(share_cpus(&[0], 2), shares(&["0", "0"], "0"));
        assert_eq!(share_cpus(&[0, 1], 2), shares(&["0", "1"], "1"));
        assert_eq!(share_cpus(&[0, 1, 2], 2), shares(&["0", "1"], "2"));
        let eight: Vec<usize> = (0..8).collect();
        assert_eq!(share_cpus(&eight, 2), shares(&["0,1,2", "3,4,5"], "6,7"));
    }

    #[test]
    fn flags_that_contradict_what_is_kept_are_refused() {
        let options = Options { groups: Some(3), ..Options::default() };
        let layout = Layout::new(&options).expect("three groups can be");
        assert_eq!(layout.server_ports, [6380, 6381, 6382]);
        assert!(layout.check_flags(&options, Path::new("d")).is_ok());
        assert!(layout.check_flags(&Options::default(), Path::new("d")).is_ok());
        let other = Options { groups: Some(2), ..Options::default() };
        let error = layout.check_flags(&other, Path::new("d")).expect_err("it has three");
        assert!(error.contains("--groups 3"), "{error}");
    }

    #[test]
    fn ports_that_collide_are_refused() {
        let options = Options { server_port: Some(18079), ..Options::default() };
        let error = Layout::new(&options).expect_err("18080 is taken");
        assert!(error.contains("port 18080"), "{error}");
        let options = Options { server_port: Some(65535), ..Options::default() };
        assert!(Layout::new(&options).is_err());
    }
}
