//! The command line: every option of the engine's table is a flag, and a file may come first.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use cordis_engine::config::Config;
use cordis_engine::config::spec::{ConfigSpec, Kind, SPECS};
use cordis_proxy::config::Settings;
use cordis_proxy::config::spec::{KeySpec, Kind as ProxyKind};

use crate::proxy;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// To run with these settings, and to host a proxy with these. Boxed: they are many.
    Run(Box<Config>, Option<Box<Settings>>),
    /// To print this and leave.
    Show(String),
    /// To look at the append log in this directory, and leave.
    Check(PathBuf),
}

/// Name of the positional argument.
const FILE: &str = "CONFIG.toml";
const PRINT: &str = "print-config";
const CHECK: &str = "check";
/// Where help lists what concerns the proxy within.
const PROXY: &str = "Proxy within the server";

fn flag(spec: &'static ConfigSpec) -> Arg {
    let value = match spec.kind {
        Kind::Bool => "yes|no",
        Kind::Int { .. } => "N",
        Kind::Octal => "MODE",
        Kind::Memory { .. } => "BYTES",
        Kind::Enum(_) => "WORD",
        Kind::Events => "LETTERS",
        Kind::Text(_) => "TEXT",
        Kind::Secret => "SECRET",
    };
    let help = match spec.default {
        "" => spec.doc.to_owned(),
        default => format!("{} [default: {default}]", spec.doc),
    };
    let arg = Arg::new(spec.name)
        .long(spec.name)
        .value_name(value)
        .help(help)
        .help_heading(spec.section)
        .allow_negative_numbers(true);
    let arg = match spec.alias {
        Some(alias) => arg.alias(alias),
        None => arg,
    };
    // Several addresses may be given one by one, and an optional one begins with `-`.
    if spec.name == "bind" { arg.action(ArgAction::Append).allow_hyphen_values(true) } else { arg }
}

fn proxy_file() -> Arg {
    Arg::new(proxy::FILE)
        .long(proxy::FILE)
        .value_name("FILE")
        .help("File with settings of the proxy within, as cordis-proxy has it; flags override it")
        .help_heading(PROXY)
}

fn proxy_flag(spec: &'static KeySpec) -> Arg {
    let help = match (spec.name, spec.default) {
        ("proxy_addr", default) => {
            format!(
                "Where clients of the whole cluster connect, if this server hosts a proxy; \
                     there is one on {default} if only --{} is given",
                proxy::FILE
            )
        }
        (_, "") => spec.doc.to_owned(),
        (_, default) => format!("{} [default: {default}]", spec.doc),
    };
    let flag = proxy::flag(spec);
    Arg::new(flag.clone())
        .long(flag)
        .value_name(if spec.kind == ProxyKind::Secret { "SECRET" } else { "VALUE" })
        .help(help)
        .help_heading(PROXY)
        .allow_negative_numbers(true)
}

fn command() -> Command {
    let print = Arg::new(PRINT)
        .long(PRINT)
        .action(ArgAction::SetTrue)
        .help("Print every option with its value, as a configuration file, and leave");
    let check = Arg::new(CHECK)
        .long(CHECK)
        .value_name("DIR")
        .value_parser(clap::value_parser!(PathBuf))
        .help(
            "Look at the append log in a directory, say what is in it and what is wrong, and leave",
        );
    let file = Arg::new(FILE).help("File with settings in TOML; flags override it");
    Command::new("cordis-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A server of Cordis, the distributed Redis on pinned cores")
        .arg(file)
        .arg(print)
        .arg(check)
        .args(SPECS.iter().map(flag))
        .arg(proxy_file())
        .args(proxy::keys().map(proxy_flag))
}

/// Reads a command line, the program's name first, and the file that it names.
///
/// # Errors
/// One line that says what is wrong.
pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let matches = match command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return Ok(Request::Show(error.to_string())),
        Err(error) => return Err(one_line(&error)),
    };
    if let Some(dir) = matches.get_one::<PathBuf>(CHECK) {
        return Ok(Request::Check(dir.clone()));
    }
    let config = settings(&matches)?;
    let proxy = proxy::settings(matches.get_one(proxy::FILE), |flag| {
        matches.get_one::<String>(flag).cloned()
    })?;
    if matches.get_flag(PRINT) {
        return Ok(Request::Show(config.to_toml()));
    }
    Ok(Request::Run(config, proxy))
}

fn settings(matches: &ArgMatches) -> Result<Box<Config>, String> {
    let config = Box::new(Config::default());
    if let Some(path) = matches.get_one::<String>(FILE) {
        config.load(Path::new(path)).map_err(|error| error.to_string())?;
    }
    for spec in SPECS {
        let Some(values) = matches.get_many::<String>(spec.name) else {
            continue;
        };
        let text = values.map(String::as_str).collect::<Vec<_>>().join(" ");
        config.load_flag(spec.name, &text).map_err(|error| error.to_string())?;
    }
    Ok(config)
}

/// What clap says over several lines, in one.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let mut line = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    if error.kind() == ErrorKind::UnknownArgument {
        let similar = match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(flag)) => Some(flag.clone()),
            Some(ContextValue::Strings(flags)) => flags.first().cloned(),
            _ => None,
        };
        if let Some(flag) = similar {
            line.push_str(&format!(", did you mean '{flag}'?"));
        }
    }
    line
}

/// Flags whose values are secrets, as they are given.
pub(crate) fn secret_flags() -> Vec<String> {
    let of_proxy = proxy::keys().filter(|spec| spec.kind == ProxyKind::Secret).map(proxy::flag);
    ["requirepass".to_owned()].into_iter().chain(of_proxy).map(|flag| format!("--{flag}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Result<Request, String> {
        let words = std::iter::once("cordis-server").chain(words.iter().copied());
        read(words.map(OsString::from))
    }

    fn config(words: &[&str]) -> Box<Config> {
        match run(words) {
            Ok(Request::Run(config, _)) => config,
            other => panic!("the test gives a good command line: {other:?}"),
        }
    }

    fn wrong(words: &[&str]) -> String {
        let line = run(words).expect_err("the test gives a bad command line");
        assert!(!line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_set_options() {
        let words = ["--port", "7000", "--save", "", "--maxmemory=1gb", "--slot-balance", "yes"];
        let config = config(&words);
        assert_eq!((config.port(), config.maxmemory()), (7000, 1 << 30));
        assert!(config.slot_balance());
    }

    #[test]
    fn flags_take_negative_numbers_aliases_and_several_addresses() {
        let words = ["--slowlog-log-slower-than", "-1", "--list-max-ziplist-size", "-3"];
        let got = config(&words);
        assert_eq!((got.slowlog_slower_than_us(), got.list_max_listpack_size()), (-1, -3));
        assert_eq!(&*config(&["--bind", "10.0.0.7", "--bind", "-::1"]).bind(), "10.0.0.7 -::1");
    }

    #[test]
    fn wrong_command_lines_are_told_in_one_line() {
        assert!(wrong(&["--prot", "1"]).contains("did you mean '--port'?"));
        assert!(wrong(&["--port"]).contains("a value is required"));
        let port = "--port: argument couldn't be parsed into an integer";
        assert_eq!(wrong(&["--port", "x"]), port);
        assert!(wrong(&["--port", "1", "--port", "2"]).contains("cannot be used multiple times"));
        assert!(wrong(&["--save", "900 1"]).contains("not built in yet"));
        let databases = "--databases: argument must be between 1 and 16 inclusive";
        assert_eq!(wrong(&["--databases", "17"]), databases);
        assert!(wrong(&["--cores", "0,0"]).contains("CPU 0 is listed twice"));
        assert!(wrong(&["/nosuch/file.toml"]).contains("/nosuch/file.toml: No such file"));
        assert!(wrong(&["--proxy-adr", "x:1"]).contains("did you mean '--proxy-addr'?"));
        assert!(wrong(&["--proxy-session-auth", "x"]).contains("set --proxy-addr"));
        assert!(wrong(&["--", "a", "b"]).contains("unexpected argument"));
    }

    #[test]
    fn print_config_shows_no_secret() {
        let words = ["--requirepass", "hunter2", "--port", "7000", "--print-config"];
        let Ok(Request::Show(text)) = run(&words) else { panic!("it is asked to print") };
        assert!(text.contains("port = 7000\n") && !text.contains("hunter2"));
        for spec in SPECS {
            assert!(text.contains(&format!("{} = ", spec.name)), "{}", spec.name);
        }
    }

    #[test]
    fn help_and_version_are_shown() {
        let Ok(Request::Show(help)) = run(&["--help"]) else { panic!("it is asked for help") };
        assert!(proxy::keys().all(|spec| help.contains(&format!("--{}", proxy::flag(spec)))));
        assert!(SPECS.iter().all(|spec| help.contains(&format!("--{}", spec.name))));
        let Ok(Request::Show(version)) = run(&["--version"]) else { panic!("it is asked") };
        assert_eq!(version, format!("cordis-server {}\n", env!("CARGO_PKG_VERSION")));
    }
}
