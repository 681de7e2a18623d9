//! The configuration file: reading it at start, printing one, and CONFIG REWRITE, which keeps the
//! comments and the order of what is there. Keys are the names of the options.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use toml_edit::{Document, DocumentMut, Formatted, Item, Table, Value as TomlValue};

use crate::config::spec::{Change, ConfigSpec, Kind, SPECS, find, similar};
use crate::config::value::{parse, print};
use crate::config::{Config, ConfigError};

/// Bytes of a configuration file beyond which it cannot be one.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Config {
    /// Takes the settings of a TOML file, which CONFIG REWRITE will write to.
    ///
    /// # Errors
    /// One line with the file, the line in it, and what is wrong.
    pub fn load(&self, path: &Path) -> Result<(), ConfigError> {
        let fail = |why: String| ConfigError::Load(format!("{}: {why}", path.display()));
        let text = read(path).map_err(|error| fail(error.to_string()))?;
        self.load_text(&text).map_err(|(line, why)| {
            ConfigError::Load(format!("{}:{line}: {why}", path.display()))
        })?;
        let path = fs::canonicalize(path).map_err(|error| fail(error.to_string()))?;
        self.file.store(Some(Arc::new(path)));
        Ok(())
    }

    /// Takes settings from TOML text; on error says in which line, and what is wrong.
    fn load_text(&self, text: &str) -> Result<(), (usize, String)> {
        let document = Document::parse(text).map_err(|error| {
            let line = line_at(text, error.span().map_or(0, |span| span.start));
            (line, error.message().to_owned())
        })?;
        let table = document.as_table();
        for (name, item) in table {
            let key_span = table.key(name).and_then(|key| key.span());
            let at = key_span.or_else(|| item.span()).map_or(0, |span| span.start);
            let text_of = setting_text(item).ok_or_else(|| {
                if find(name.as_bytes()).is_some() {
                    format!("'{name}': a number, a text or yes/no is expected")
                } else if item.is_table() {
                    format!("section [{name}]: options stand at the top level")
                } else {
                    unknown_option(name)
                }
            });
            text_of
                .and_then(|value| self.set_named(name, &value))
                .map_err(|why| (line_at(text, at), why))?;
        }
        Ok(())
    }

    /// Like [`set_at_start`](Self::set_at_start), but an error names the option.
    fn set_named(&self, name: &str, text: &str) -> Result<(), String> {
        if find(name.as_bytes()).is_none() {
            return Err(unknown_option(name));
        }
        self.set_at_start(name, text).map_err(|why| format!("'{name}': {why}"))
    }

    /// Takes a setting of the command line.
    ///
    /// # Errors
    /// One line that names the flag and says what is wrong.
    pub fn load_flag(&self, name: &str, text: &str) -> Result<(), ConfigError> {
        self.set_at_start(name, text).map_err(|why| ConfigError::Load(format!("--{name}: {why}")))
    }

    /// The file that the settings were read from, if any.
    pub fn file(&self) -> Option<std::path::PathBuf> {
        self.file.load().as_deref().cloned()
    }

    /// Every option with its value, its default and what it does, as a configuration file.
    /// Secrets are left out.
    pub fn to_toml(&self) -> String {
        let mut text = String::from("# Configuration of cordis-server. Every key is a flag too.\n");
        let mut section = "";
        for (index, spec) in SPECS.iter().enumerate() {
            if spec.section != section {
                section = spec.section;
                // Writing to a string never fails, here and below.
                let _ = write!(text, "\n# ---- {section} ----\n");
            }
            let default = toml_value(spec, spec.default);
            let unit = match default {
                TomlValue::Integer(_) if !spec.unit.is_empty() => format!(" {}", spec.unit),
                _ => String::new(),
            };
            let change = match spec.change {
                Change::AtRunTime => "changes at run time",
                Change::AtStart | Change::Protected => "set at start",
            };
            let _ = writeln!(text, "\n# {}\n# Default {default}{unit}; {change}.", spec.doc);
            if matches!(spec.kind, Kind::Secret) {
                let _ = writeln!(text, "# {} = \"...\"", spec.name);
            } else {
                let value = toml_value(spec, &self.text_at(index));
                let _ = writeln!(text, "{} = {value}", spec.name);
            }
        }
        text
    }

    /// Writes the settings back to the file that they came from: changed ones where they stand,
    /// new ones at the end. The file is replaced as a whole or not at all.
    ///
    /// # Errors
    /// That there is no file; what the system says.
    ///
    /// # Complexity
    /// One small file, written and forced to disk: milliseconds, on the core that runs the call.
    pub fn rewrite(&self) -> Result<(), ConfigError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.file().ok_or(ConfigError::NoFile)?;
        let fail = |error: io::Error| ConfigError::Write(error.to_string());
        let text = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(fail)?,
        };
        let mut document: DocumentMut = text
            .parse()
            .map_err(|_| ConfigError::Write("the file is no longer valid TOML".to_owned()))?;
        self.update(document.as_table_mut());
        replace(&path, &document.to_string()).map_err(fail)
    }

    /// Brings a table of settings up to date. What already means the same is left as it is
    /// written, what is the default and not there stays out.
    fn update(&self, table: &mut Table) {
        for (index, spec) in SPECS.iter().enumerate() {
            let value = self.text_at(index);
            let names = [Some(spec.name), spec.alias];
            let there: Vec<&str> =
                names.into_iter().flatten().filter(|name| table.contains_key(name)).collect();
            for name in &there {
                if let Some(item) = table.get_mut(name) {
                    update_item(spec, item, &value);
                }
            }
            if there.is_empty() && canonical(spec, spec.default).as_deref() != Some(&value) {
                table.insert(spec.name, Item::Value(toml_value(spec, &value)));
            }
        }
    }
}

/// What an unknown option is answered with.
pub(super) fn unknown_option(name: &str) -> String {
    match similar(name) {
        Some(other) => format!("unknown option '{name}', did you mean '{other}'?"),
        None => format!("unknown option '{name}'"),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a configuration file"));
    }
    fs::read_to_string(path)
}

/// Puts a file in the place of another: what a crash leaves is the old one or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        // The file may hold a password: the new one is as private as the old one.
        if let Ok(meta) = fs::metadata(path) {
            file.set_permissions(meta.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // It may not even have been made.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Number of the line that holds a byte of `text`, from 1.
fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// The text that a TOML value stands for; `None` if it cannot be a setting.
fn setting_text(item: &Item) -> Option<String> {
    let scalar = |value: &TomlValue| match value {
        TomlValue::String(text) => Some(text.value().clone()),
        TomlValue::Integer(n) => Some(n.value().to_string()),
        TomlValue::Boolean(on) => Some((if *on.value() { "yes" } else { "no" }).to_owned()),
        TomlValue::Float(x) => Some(x.value().to_string()),
        _ => None,
    };
    match item.as_value()? {
        // `bind = ["127.0.0.1", "::1"]` and the like.
        TomlValue::Array(parts) => {
            parts.iter().map(scalar).collect::<Option<Vec<_>>>().map(|words| words.join(" "))
        }
        value => scalar(value),
    }
}

/// The form in which CONFIG GET shows a value.
fn canonical(spec: &ConfigSpec, text: &str) -> Option<String> {
    parse(spec, text, spec.default).ok().map(|value| print(spec, &value))
}

/// A value as it stands in a file: numbers bare, the rest in quotes.
fn toml_value(spec: &ConfigSpec, text: &str) -> TomlValue {
    match (spec.kind, text.parse::<i64>()) {
        (Kind::Int { .. } | Kind::Memory { .. }, Ok(n)) => TomlValue::Integer(Formatted::new(n)),
        _ => TomlValue::String(Formatted::new(text.to_owned())),
    }
}

/// Gives an item of the file a new value, unless it means the same already.
fn update_item(spec: &ConfigSpec, item: &mut Item, text: &str) {
    let old = setting_text(item).and_then(|old| canonical(spec, &old));
    if old.as_deref() == Some(text) {
        return;
    }
    let mut new = match item.as_value() {
        Some(TomlValue::Boolean(_)) => TomlValue::Boolean(Formatted::new(text == "yes")),
        _ => toml_value(spec, text),
    };
    // The comment at the end of the line stays.
    if let Some(value) = item.as_value() {
        *new.decor_mut() = value.decor().clone();
    }
    *item = Item::Value(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Result<Config, (usize, String)> {
        let config = Config::default();
        config.load_text(text).map(|()| config)
    }

    fn wrong(text: &str) -> (usize, String) {
        loaded(text).expect_err("the test gives a bad file")
    }

    /// A configuration read from a file of its own, and that file.
    fn from_file(name: &str, text: &str) -> (Config, std::path::PathBuf) {
        let name = format!("cordis-{name}-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("the directory is writable");
        let config = Config::default();
        config.load(&path).expect("the test gives a good file");
        (config, path)
    }

    #[test]
    fn load_takes_numbers_texts_words_and_lists() {
        let text = "port = 7000 # ours\nmaxmemory = \"1gb\"\nslot-balance = true\n\
                    appendonly = \"no\"\nbind = [\"127.0.0.1\", \"::1\"]\nhz = 20\n\
                    unixsocketperm = 700\nhash-max-ziplist-entries = 7\n";
        let config = loaded(text).expect("it is a good file");
        assert_eq!((config.port(), config.maxmemory(), config.hz()), (7000, 1 << 30, 20));
        assert!(config.slot_balance());
        assert_eq!(&*config.bind(), "127.0.0.1 ::1");
        assert_eq!(config.unixsocketperm(), 0o700);
        assert_eq!(config.hash_max_listpack_entries(), 7);
    }

    #[test]
    fn load_error_names_the_line() {
        let range = "'hz': argument must be between 0 and 2147483647 inclusive";
        assert_eq!(wrong("\n# x\nhz = -1\n"), (3, range.to_owned()));
        let unknown = "unknown option 'maxmemry', did you mean 'maxmemory'?";
        assert_eq!(wrong("hz = 1\nmaxmemry = 1"), (2, unknown.to_owned()));
        assert_eq!(wrong("hz = 1\nport 6379\n").0, 2);
        assert_eq!(
            wrong("[network]\nport = 1").1,
            "section [network]: options stand at the top level"
        );
        assert!(wrong("port = {}").1.contains("is expected"));
        assert!(wrong("zzz = {}").1.contains("unknown option"));
        assert!(wrong("port = 1\nport = 2").1.contains("duplicate key"));
        assert!(wrong("maxmemory = 1.5").1.contains("memory value"));
    }

    #[test]
    fn load_of_a_file_that_is_not_there_says_so() {
        let config = Config::default();
        let error = config.load(Path::new("/nosuch/cordis.toml")).expect_err("it is not there");
        assert!(error.to_string().starts_with("/nosuch/cordis.toml: No such file"));
        assert!(config.load(Path::new("/")).is_err());
    }

    #[test]
    fn to_toml_loads_to_the_same_settings() {
        let config = Config::default();
        let pairs: [(&[u8], &[u8]); 4] = [
            (b"maxmemory", b"18446744073709551615"),
            (b"requirepass", b"sesame"),
            (b"notify-keyspace-events", b"KEA"),
            (b"slowlog-log-slower-than", b"-1"),
        ];
        config.set_all(&pairs).expect("all of them are fine");
        let text = config.to_toml();
        assert!(!text.contains("sesame"));
        assert!(text.contains("\n# Default 511 connections; set at start.\ntcp-backlog = 511\n"));
        let again = loaded(&text).expect("its own output is a good file");
        assert_eq!(again.requirepass(), None);
        let shown = |config: &Config| {
            let mut all = config.get_matching(&[b"*"]);
            all.retain(|(name, _)| name != "requirepass");
            all
        };
        assert_eq!(shown(&again), shown(&config));
    }

    #[test]
    fn rewrite_without_a_file_is_refused() {
        let error = Config::default().rewrite().expect_err("there is no file");
        assert_eq!(error.to_string(), "The server is running without a config file");
    }

    #[test]
    fn rewrite_keeps_comments_order_and_spelling() {
        let text = "# mine\nmaxmemory = \"1gb\" # plenty\n\nhz = 10 # ticks\n\
                    slot-balance = false\nhash-max-ziplist-entries = 7\n";
        let (config, path) = from_file("rewrite", text);
        config.rewrite().expect("the directory is writable");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
        let pairs: [(&[u8], &[u8]); 4] = [
            (b"hz", b"50"),
            (b"slot-balance", b"yes"),
            (b"hash-max-listpack-entries", b"8"),
            (b"requirepass", b"a\"b"),
        ];
        config.set_all(&pairs).expect("all of them are fine");
        config.rewrite().expect("the directory is writable");
        let want = "# mine\nmaxmemory = \"1gb\" # plenty\n\nhz = 50 # ticks\n\
                    slot-balance = true\nhash-max-ziplist-entries = 8\nrequirepass = 'a\"b'\n";
        assert_eq!(fs::read_to_string(&path).expect("it is there"), want);
        let again = Config::default();
        again.load(&path).expect("it is a good file");
        assert_eq!(again.get_matching(&[b"*"]), config.get_matching(&[b"*"]));
        fs::remove_file(&path).expect("it is there");
    }

    #[test]
    fn rewrite_of_a_broken_file_leaves_it_alone() {
        let (config, path) = from_file("broken", "hz = 10\n");
        fs::write(&path, "hz = \n").expect("the directory is writable");
        assert!(matches!(config.rewrite(), Err(ConfigError::Write(_))));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "hz = \n");
        fs::remove_file(&path).expect("it is there");
    }
}
