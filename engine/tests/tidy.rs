//! House rules that a machine can check: who may import whom, where unsafe code may be, how long
//! files and functions get, what may not be left lying about.

use std::fs;
use std::path::{Path, PathBuf};

/// Files that may hold unsafe code. Each argues every block.
const UNSAFE_FILES: &[&str] = &[
    "engine/src/runtime/ring.rs",
    "engine/src/runtime/mailbox.rs",
    "engine/src/shard/door.rs",
    "engine/src/store/entry.rs",
    "engine/src/store/table.rs",
    "engine/src/store/keyspace.rs",
    // A counting allocator cannot be written without.
    "engine/tests/alloc.rs",
];

/// Folders that may hold unsafe code: the system calls.
const UNSAFE_FOLDERS: &[&str] = &["engine/src/sys/"];

/// Longest file, tests included.
const FILE_LINES_MAX: usize = 1000;

/// Longest function.
const FUNCTION_LINES_MAX: usize = 120;

/// Folders with a README of their own.
const FOLDERS: &[&str] = &["engine", "proxy", "server", "control", "bench", "tuning"];

/// A rule: files below `within` must not hold any of `words`, because of `why`.
struct Ban {
    within: &'static str,
    words: &'static [&'static str],
    why: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        within: "engine/",
        words: &["cordis_proxy", "cordis_control", "cordis_server", "cordis_bench"],
        why: "the engine knows no other crate of ours",
    },
    Ban {
        within: "engine/src/store/",
        words: &["crate::net", "crate::resp::parse", "crate::runtime", "crate::commands"],
        why: "storage knows neither sockets nor commands",
    },
    Ban {
        within: "engine/src/resp/",
        words: &["crate::net", "crate::runtime", "crate::store", "crate::shard"],
        why: "the protocol knows no data and no session",
    },
    Ban {
        within: "engine/src/slots/",
        words: &["crate::net", "crate::runtime", "crate::store", "crate::shard", "crate::commands"],
        why: "slots are arithmetic",
    },
    Ban {
        within: "engine/src/commands/",
        words: &["crate::runtime", "std::net::Tcp", "std::thread"],
        why: "a handler has no thread and no socket",
    },
    Ban {
        within: "proxy/",
        words: &[
            "cordis_engine::store",
            "cordis_engine::persist",
            "cordis_engine::replication",
            "cordis_engine::migrate",
            "cordis_control",
        ],
        why: "the proxy touches no data",
    },
    Ban {
        within: "control/",
        words: &[
            "cordis_engine::store",
            "cordis_engine::shard",
            "cordis_engine::commands",
            "cordis_engine::runtime",
            "cordis_engine::net",
            "cordis_engine::journal",
        ],
        why: "control uses slots, resp, metrics and units, and nothing else of the engine",
    },
    Ban {
        within: "control/src/",
        words: &["cordis_proxy", "cordis_engine::migrate"],
        why: "control asks servers and proxies, it is not one: only its simulator knows their machines",
    },
    Ban { within: "server/", words: &["cordis_control"], why: "a server runs without control" },
];

/// One source file.
struct Source {
    /// Relative to the top folder.
    path: String,
    text: String,
}

fn top() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    top.canonicalize().expect("the workspace is where its crate was built")
}

/// All files of the tree that are ours, as paths relative to the top.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder that can be opened can be listed").path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "corpus" | "artifacts" | "results") {
                files(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

/// Files with one of these endings.
fn sources(endings: &[&str]) -> Vec<Source> {
    let top = top();
    let mut paths = Vec::new();
    files(&top, &mut paths);
    paths.sort();
    let is_wanted = |path: &PathBuf| {
        path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending))
    };
    let read = |path: PathBuf| {
        let relative = path.strip_prefix(&top).expect("it was found below").to_string_lossy();
        // What is no text is nobody's source.
        let text = fs::read_to_string(&path).unwrap_or_default();
        Source { path: relative.replace('\\', "/"), text }
    };
    paths.into_iter().filter(is_wanted).map(read).collect()
}

/// This file names what it forbids, and so does the check of the command table.
fn names_what_it_forbids(source: &Source) -> bool {
    matches!(source.path.as_str(), "engine/tests/tidy.rs" | "engine/tests/spec.rs")
}

/// Fails with all findings at once.
fn none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// Code without line comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
}

#[test]
fn imports_between_parts_keep_to_the_map() {
    let mut findings = Vec::new();
    for source in sources(&["rs"]).iter().filter(|s| !names_what_it_forbids(s)) {
        for ban in BANS.iter().filter(|ban| source.path.starts_with(ban.within)) {
            for (line, code) in code_lines(&source.text) {
                for word in ban.words.iter().filter(|word| code.contains(**word)) {
                    findings.push(format!("{}:{line}: {word}: {}", source.path, ban.why));
                }
            }
        }
    }
    none(&findings);
}

#[test]
fn unsafe_code_is_only_where_it_may_be() {
    let mut findings = Vec::new();
    for source in sources(&["rs"]).iter().filter(|s| !names_what_it_forbids(s)) {
        let allowed = UNSAFE_FILES.contains(&source.path.as_str())
            || UNSAFE_FOLDERS.iter().any(|folder| source.path.starts_with(folder));
        if allowed {
            continue;
        }
        for (line, code) in code_lines(&source.text) {
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.any(|word| word == "unsafe") {
                findings.push(format!("{}:{line}: unsafe code", source.path));
            }
        }
    }
    none(&findings);
}

#[test]
fn files_that_may_be_unsafe_exist() {
    // `runtime/ring.rs` and its kin come and go with their parts; a stale name would hide a new one.
    let stale: Vec<String> = UNSAFE_FILES
        .iter()
        .filter(|path| !top().join(path).exists())
        .map(|path| format!("{path} is on the list of files with unsafe code and does not exist"))
        .collect();
    none(&stale);
}

#[test]
fn nothing_unfinished_or_private_is_left() {
    let words = ["TODO", "FIXME", "XXX:", "todo!(", "unimplemented!(", "dbg!("];
    let paths = ["/work/", "/home/", "/root/", "/Users/"];
    let mut findings = Vec::new();
    for source in sources(&["rs", "md", "toml", "sh", "txt", "json"]).iter() {
        if names_what_it_forbids(source) {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            for word in words.iter().chain(&paths).filter(|word| line.contains(**word)) {
                findings.push(format!("{}:{}: {word}", source.path, index + 1));
            }
        }
    }
    none(&findings);
}

#[test]
fn files_and_lines_keep_their_length() {
    let mut findings = Vec::new();
    for source in sources(&["rs"]) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines", source.path));
        }
        for (index, line) in source.text.lines().enumerate() {
            // Texts, attributes and tables have no better place to break.
            let may_be_long = ['"', '|', '#'].iter().any(|mark| line.contains(*mark));
            if line.chars().count() > 120 && !may_be_long {
                findings.push(format!("{}:{}: a long line", source.path, index + 1));
            }
        }
    }
    none(&findings);
}

#[test]
fn functions_keep_their_length() {
    let mut findings = Vec::new();
    for source in sources(&["rs"]) {
        for (start, name, lines) in functions(&source.text) {
            if lines > FUNCTION_LINES_MAX {
                findings.push(format!("{}:{start}: `{name}` has {lines} lines", source.path));
            }
        }
    }
    none(&findings);
}

/// Functions of a formatted file: first line, name, number of lines. A function ends at the first
/// closing brace that stands as far to the left as its beginning.
fn functions(text: &str) -> Vec<(usize, &str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let end = lines[index..].iter().enumerate().position(|(below, l)| {
            let body = l.trim_start();
            let closes = body == "}" || body.ends_with(';') || below == 0 && body.ends_with('}');
            closes && l.len() - body.len() == indent
        });
        found.push((index + 1, name, end.map_or(1, |end| end + 1)));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.trim_start().split(' ');
    let before = ["pub", "pub(crate)", "pub(super)", "const", "unsafe", "async"];
    let word = words.find(|word| !before.contains(word))?;
    let name = (word == "fn").then(|| words.next())??;
    name.split(['(', '<']).next()
}

#[test]
fn lengths_of_functions_are_measured_right() {
    let text = "pub fn one() {}\n\nfn two(\n    a: u8,\n) -> u8 {\n    a\n}\n";
    let found = functions(text);
    assert_eq!(
        found.iter().map(|f| (f.0, f.1, f.2)).collect::<Vec<_>>(),
        [(1, "one", 1), (3, "two", 5)]
    );
}

#[test]
fn folders_have_a_readme() {
    let missing: Vec<String> = FOLDERS
        .iter()
        .filter(|folder| !top().join(folder).join("README.md").is_file())
        .map(|folder| format!("{folder}/README.md is missing"))
        .collect();
    none(&missing);
}

#[test]
fn modules_say_what_they_are() {
    let findings: Vec<String> = sources(&["rs"])
        .iter()
        .filter(|source| !source.text.starts_with("//!") && !source.text.starts_with("#!"))
        .map(|source| format!("{}: no `//!` header", source.path))
        .collect();
    none(&findings);
}
