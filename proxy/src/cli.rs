//! The command line: every key of the configuration is a flag, and a file may come first.

use std::ffi::OsString;
use std::fs;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use cordis_proxy::config::spec::{KeySpec, Kind, SPECS, find};
use cordis_proxy::config::{Settings, Values, is_product_name};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// To run with these settings. Boxed: they are many.
    Run(Box<Settings>),
    /// To print this and leave.
    Show(String),
}

/// Name of the positional argument.
const FILE: &str = "CONFIG.toml";
/// The file, as the original's scripts give it.
const FILE_FLAG: &str = "config";
const PRINT: &str = "print-config";
const DEFAULT: &str = "default-config";

fn flag(spec: &'static KeySpec) -> Arg {
    let value = match spec.kind {
        Kind::Bool => "true|false",
        Kind::Int(..) => "N",
        Kind::Size => "BYTES",
        Kind::Span => "SPAN",
        Kind::Cpus => "CPUS",
        Kind::Address => "ADDR",
        Kind::Word(_) => "WORD",
        Kind::Secret => "SECRET",
        Kind::Text | Kind::Name | Kind::Ignored(_) | Kind::Unbuilt => "TEXT",
    };
    let help = match (spec.kind, spec.default) {
        (Kind::Ignored(why), _) => format!("Ignored: {why}"),
        (Kind::Unbuilt, _) => "Not built in yet".to_owned(),
        (_, "") => spec.doc.to_owned(),
        (_, default) => format!("{} [default: {default}]", spec.doc),
    };
    let dashed = spec.name.replace('_', "-");
    let alias = spec.alias.map(|alias| alias.replace('_', "-"));
    let mut arg = Arg::new(spec.name)
        .value_name(value)
        .help(help)
        .help_heading(spec.section)
        .hide_short_help(matches!(spec.kind, Kind::Ignored(_) | Kind::Unbuilt))
        .allow_negative_numbers(true);
    if dashed != spec.name {
        arg = arg.alias(spec.name);
    }
    if let Some(alias) = alias {
        arg = arg.alias(alias);
    }
    arg.long(dashed)
}

fn command() -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("cordis-proxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A proxy of Cordis, the distributed Redis: clients see one server of endless memory")
        .arg(Arg::new(FILE).help("File with settings in TOML; flags override it"))
        .arg(
            Arg::new(FILE_FLAG)
                .long(FILE_FLAG)
                .short('c')
                .value_name("FILE")
                .conflicts_with(FILE)
                .help("The same file, as codis-proxy is given it"),
        )
        .arg(switch(PRINT, "Print every key with its value, as a configuration file, and leave"))
        .arg(switch(
            DEFAULT,
            "Print every key with its default, as a configuration file, and leave",
        ))
        .args(SPECS.iter().map(flag))
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
    if matches.get_flag(DEFAULT) {
        return Ok(Request::Show(Values::default().to_toml()));
    }
    let values = values(&matches)?;
    if matches.get_flag(PRINT) {
        return Ok(Request::Show(values.to_toml()));
    }
    let settings = Settings::of(values);
    if !is_product_name(&settings.product_name) {
        return Err(format!(
            "product_name: '{}' is not a name of letters, digits, '_', '.' and '-'",
            settings.product_name
        ));
    }
    Ok(Request::Run(Box::new(settings)))
}

fn values(matches: &ArgMatches) -> Result<Values, String> {
    let mut values = Values::default();
    let file = matches.get_one::<String>(FILE).or_else(|| matches.get_one::<String>(FILE_FLAG));
    if let Some(path) = file {
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        values.load_toml(&text).map_err(|why| format!("{path}: {why}"))?;
    }
    for spec in SPECS {
        if let Some(text) = matches.get_one::<String>(spec.name) {
            let flag = spec.name.replace('_', "-");
            values.set(spec, text).map_err(|why| format!("--{flag}: {why}"))?;
        }
    }
    Ok(values)
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

/// Flags whose value must not be seen in process lists, in all their spellings.
pub(crate) fn secret_flags() -> Vec<String> {
    let secrets = SPECS.iter().filter(|spec| spec.kind == Kind::Secret);
    let names = secrets.flat_map(|spec| [spec.name.to_owned(), spec.name.replace('_', "-")]);
    debug_assert!(find("session_auth").is_some());
    names.map(|name| format!("--{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Result<Request, String> {
        let words = std::iter::once("cordis-proxy").chain(words.iter().copied());
        read(words.map(OsString::from))
    }

    fn settings(words: &[&str]) -> Box<Settings> {
        match run(words) {
            Ok(Request::Run(settings)) => settings,
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
    fn flags_set_keys_in_both_spellings() {
        let got = settings(&["--proxy-addr", "127.0.0.1:7000", "--product_name=x", "--cores", "1"]);
        assert_eq!(got.proxy_addr, "127.0.0.1:7000");
        assert_eq!((got.product_name.as_str(), got.cores.as_slice()), ("x", &[1][..]));
        let got = settings(&["--dashboard", "a:1, b:2", "--session-recv-timeout", "5m"]);
        assert_eq!(got.control, ["a:1", "b:2"]);
        assert_eq!(got.session_recv_timeout.as_secs(), 300);
    }

    #[test]
    fn wrong_command_lines_are_told_in_one_line() {
        assert!(wrong(&["--proxy-adr", "x:1"]).contains("did you mean '--proxy-addr'?"));
        assert!(wrong(&["--proxy-addr"]).contains("a value is required"));
        assert!(wrong(&["--proxy-addr", "x"]).starts_with("--proxy-addr: 'x' is not an address"));
        assert!(wrong(&["--jodis-addr", "x:1"]).contains("not built in yet"));
        assert!(wrong(&["--product-name", "a b"]).contains("is not a name"));
        assert!(wrong(&["--cores", "0,0"]).contains("CPU 0 is listed twice"));
        assert!(wrong(&["/nosuch/file.toml"]).contains("/nosuch/file.toml: No such file"));
        assert!(wrong(&["a", "b"]).contains("unexpected argument"));
        assert!(wrong(&["a", "-c", "b"]).contains("cannot be used with"));
    }

    #[test]
    fn help_version_and_defaults_are_shown() {
        let show = |words: &[&str]| match run(words) {
            Ok(Request::Show(text)) => text,
            other => panic!("it is asked to show something: {other:?}"),
        };
        let help = show(&["--help"]);
        let dashed = |spec: &KeySpec| format!("--{}", spec.name.replace('_', "-"));
        assert!(SPECS.iter().all(|spec| help.contains(&dashed(spec))));
        assert_eq!(show(&["--version"]), format!("cordis-proxy {}\n", env!("CARGO_PKG_VERSION")));
        assert!(show(&["--default-config"]).contains("proxy_addr = \"127.0.0.1:19000\""));
        let shown = show(&["--print-config", "--session-auth", "hunter2", "--dir", "/x"]);
        assert!(shown.contains("dir = \"/x\"") && !shown.contains("hunter2"));
    }
}
