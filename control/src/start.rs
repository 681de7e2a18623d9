//! From a command line to a running control process: options, the settings file, logging.
//!
//! A file has the flags' names as keys, with `-` or, as in Codis' dashboard.toml, `_`. Secrets stand
//! in the file only: arguments can be read by everybody on the host.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde::Deserialize;

use crate::run::{Options, run};

/// Wrong options or settings.
const WRONG_OPTIONS: u8 = 2;

/// Runs the control process of a Cordis cluster.
#[derive(Debug, Parser)]
#[command(name = "cordis-control", version, max_term_width = 100)]
struct Flags {
    /// File with settings in TOML; flags override it.
    #[arg(value_name = "CONFIG.toml")]
    file: Option<PathBuf>,
    /// Where it takes commands [default: 127.0.0.1:18080].
    #[arg(long, value_name = "ADDR")]
    admin_addr: Option<String>,
    /// Where a web page would be. This version has none: nothing listens there.
    #[arg(long, value_name = "ADDR")]
    http_addr: Option<String>,
    /// Where the cluster's state is kept: file:PATH [default: file:control].
    #[arg(long, value_name = "file:PATH")]
    store: Option<String>,
    /// The product that it controls [default: cordis-demo].
    #[arg(long, value_name = "NAME")]
    product_name: Option<String>,
    /// What is logged: error, warn, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

/// The settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    #[serde(alias = "admin_addr")]
    admin_addr: Option<String>,
    #[serde(alias = "http_addr")]
    http_addr: Option<String>,
    store: Option<String>,
    #[serde(alias = "product_name")]
    product_name: Option<String>,
    /// What servers want to hear: AUTH.
    #[serde(alias = "product_auth")]
    product_auth: Option<String>,
    /// What servers want to hear before commands of the cluster.
    #[serde(alias = "cluster_secret")]
    cluster_secret: Option<String>,
    /// What the admin ports of proxies want to hear.
    #[serde(alias = "proxy_secret")]
    proxy_secret: Option<String>,
    /// What this process wants to hear.
    #[serde(alias = "admin_secret")]
    admin_secret: Option<String>,
    #[serde(alias = "log_level")]
    log_level: Option<String>,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&first_line(&error), ExitCode::from(WRONG_OPTIONS)),
    };
    let (options, level) = match options(flags) {
        Ok(options) => options,
        Err(line) => return fail(&line, ExitCode::from(WRONG_OPTIONS)),
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => fail(&line, ExitCode::FAILURE),
    }
}

fn fail(line: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "cordis-control: {line}");
    code
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn options(flags: Flags) -> Result<(Options, tracing::Level), String> {
    let kept = match &flags.file {
        Some(path) => read(path)?,
        None => Settings::default(),
    };
    let defaults = Options::default();
    let store = flags.store.or(kept.store).unwrap_or(defaults.store);
    match store.split_once(':') {
        Some(("file", path)) if !path.is_empty() => {}
        Some(("etcd" | "zookeeper", _)) => {
            return Err(format!("--store {store}: this version keeps its state in files only"));
        }
        _ => return Err(format!("--store takes file:PATH, not '{store}'")),
    }
    let admin_addr = flags.admin_addr.or(kept.admin_addr).unwrap_or(defaults.admin_addr);
    if admin_addr.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(format!("--admin-addr takes ip:port, not '{admin_addr}'"));
    }
    let level = flags.log_level.or(kept.log_level).unwrap_or_else(|| "info".to_owned());
    let level = level.parse().map_err(|_| {
        format!("--log-level takes error, warn, info, debug or trace, not '{level}'")
    })?;
    if flags.http_addr.or(kept.http_addr).is_some() {
        let _ = writeln!(
            std::io::stderr(),
            "cordis-control: this version has no web page: --http-addr is not used"
        );
    }
    let options = Options {
        admin_addr,
        store,
        product_name: flags.product_name.or(kept.product_name).unwrap_or(defaults.product_name),
        product_auth: kept.product_auth.unwrap_or_default(),
        cluster_secret: kept.cluster_secret.unwrap_or_default(),
        proxy_secret: kept.proxy_secret.unwrap_or_default(),
        admin_secret: kept.admin_secret.unwrap_or_default(),
    };
    Ok((options, level))
}

fn read(path: &PathBuf) -> Result<Settings, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        // The first line of the crate's error says where; the message says what.
        let what = error.message().lines().next().unwrap_or_default().to_owned();
        format!("{}: {what}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Options, String> {
        let words = std::iter::once("cordis-control").chain(words.iter().copied());
        let flags = Flags::try_parse_from(words).map_err(|error| first_line(&error))?;
        options(flags).map(|(options, _)| options)
    }

    #[test]
    fn flags_override_the_file() {
        let dir = std::env::temp_dir().join(format!("cordis-start-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder can be made");
        let path = dir.join("control.toml");
        let text = "product_name = \"shop\"\nadmin-addr = \"127.0.0.1:1\"\nadmin_secret = \"s\"\n";
        std::fs::write(&path, text).expect("a file can be written");
        let file = path.to_string_lossy().into_owned();
        let options = parsed(&[&file, "--admin-addr", "127.0.0.1:2"]).expect("all is right");
        assert_eq!((options.product_name.as_str(), options.admin_secret.as_str()), ("shop", "s"));
        assert_eq!(options.admin_addr, "127.0.0.1:2");
        std::fs::write(&path, "speed = 3\n").expect("a file can be written");
        let error = parsed(&[&file]).expect_err("there is no such setting");
        assert!(error.contains("speed") && !error.contains('\n'), "{error}");
        std::fs::remove_dir_all(&dir).expect("it is there");
    }

    #[test]
    fn wrong_options_give_one_line() {
        for words in [
            &["--store", "etcd:a"][..],
            &["--store", "x"],
            &["--admin-addr", "nowhere"],
            &["--log-level", "loud"],
            &["--speed", "1"],
        ] {
            let error = parsed(words).expect_err("it is wrong");
            assert!(!error.contains('\n') && !error.is_empty(), "{error}");
        }
    }
}
