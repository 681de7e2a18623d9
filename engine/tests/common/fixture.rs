//! Fixture files: calls with their replies, as text.
//!
//! ```text
//! # a comment
//! > SET k v          a call; its reply follows
//! < +OK\r\n          raw bytes of the reply, escaped
//! ? CLIENT ID        a call whose reply is not compared
//! ! CLIENT LIST      like `>`, but only against a server with sockets
//! ~ SLOTSINFO        like `>`, but ours alone: expected by hand, skipped against Redis
//! - CLIENT REPLY OFF a call that is answered by nothing
//! @resp3  @resp2     sends HELLO
//! @client NAME       goes on as another connection, made on first use
//! @reset             flushes all data and closes all connections
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::words;

/// One step of a fixture.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A call.
    Call(Call),
    /// HELLO with this number.
    Protocol(u8),
    /// Another connection.
    Client(String),
    /// No data, no connection.
    Reset,
}

/// How a call is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `>`
    Compared,
    /// `?`
    NotCompared,
    /// `!`
    ServerOnly,
    /// `~`
    Ours,
    /// `-`
    Silent,
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// How it is judged.
    pub(crate) kind: Kind,
    /// Its words.
    pub(crate) words: Vec<Vec<u8>>,
    /// The reply; none if there is no line for it (or it is not compared).
    pub(crate) expected: Option<Vec<u8>>,
}

/// A file.
#[derive(Debug)]
pub(crate) struct Fixture {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its steps with their line numbers, from 1.
    pub(crate) steps: Vec<(usize, Step)>,
}

impl Fixture {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut fixture = Self { path: path.to_owned(), steps: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            if let Err(what) = fixture.line(index + 1, line) {
                panic!("{}:{}: {what}: {line}", path.display(), index + 1);
            }
        }
        fixture
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), &'static str> {
        // An expected reply keeps its blanks: errors may end in one.
        if let Some(reply) = line.strip_prefix("< ") {
            return self.expected(reply);
        }
        let line = line.trim();
        let mut marks = line.chars();
        let (mark, rest) = (marks.next(), marks.as_str());
        let kind = match mark {
            None | Some('#') => return Ok(()),
            Some('@') => {
                self.steps.push((number, directive(rest)?));
                return Ok(());
            }
            Some('>') => Kind::Compared,
            Some('?') => Kind::NotCompared,
            Some('!') => Kind::ServerOnly,
            Some('~') => Kind::Ours,
            Some('-') => Kind::Silent,
            Some(_) => return Err("a line that begins with none of #><?!~-@"),
        };
        let words = words::split(rest).filter(|words| !words.is_empty()).ok_or("bad quotes")?;
        self.steps.push((number, Step::Call(Call { kind, words, expected: None })));
        Ok(())
    }

    fn expected(&mut self, reply: &str) -> Result<(), &'static str> {
        let Some((_, Step::Call(call))) = self.steps.last_mut() else {
            return Err("a reply without a call");
        };
        if call.expected.is_some() || !call.kind.has_reply() {
            return Err("a reply that nobody compares");
        }
        call.expected = Some(words::unescaped(reply).ok_or("a bad escape")?);
        Ok(())
    }

    /// Writes the file again with `replies` as expectations, by line number of the call.
    pub(crate) fn rewrite(&self, replies: &[(usize, Vec<u8>)]) {
        let old = std::fs::read_to_string(&self.path).expect("it has just been read");
        let mut new = String::with_capacity(old.len() * 2);
        let mut replaced = false;
        for (index, line) in old.lines().enumerate() {
            if line.starts_with("< ") && replaced {
                continue;
            }
            let reply = replies.iter().find(|(number, _)| *number == index + 1);
            replaced = reply.is_some();
            let _ = writeln!(new, "{}", if line.starts_with('<') { line } else { line.trim_end() });
            if let Some((_, bytes)) = reply {
                let _ = writeln!(new, "< {}", words::escaped(bytes));
            }
        }
        if new != old {
            std::fs::write(&self.path, new)
                .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        }
    }
}

impl Kind {
    /// Whether a reply line may follow.
    pub(crate) fn has_reply(self) -> bool {
        !matches!(self, Self::NotCompared | Self::Silent)
    }
}

fn directive(text: &str) -> Result<Step, &'static str> {
    match text.trim().split_once(' ') {
        None if text.trim() == "resp2" => Ok(Step::Protocol(2)),
        None if text.trim() == "resp3" => Ok(Step::Protocol(3)),
        None if text.trim() == "reset" => Ok(Step::Reset),
        Some(("client", name)) => Ok(Step::Client(name.trim().to_owned())),
        _ => Err("a directive that does not exist"),
    }
}

/// All files, or those whose name contains `FIXTURE` from the environment.
pub(crate) fn all() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/commands");
    let only = std::env::var("FIXTURE").unwrap_or_default();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder that can be opened can be listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .filter(|path| path.to_string_lossy().contains(&only))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no fixture in {} matches {only:?}", folder.display());
    paths.iter().map(|path| Fixture::read(path)).collect()
}

/// What runs fixtures: a server, or something like it.
pub(crate) trait Target {
    /// Whether it is Redis itself.
    fn is_redis(&self) -> bool;
    /// Whether it has sockets.
    fn is_server(&self) -> bool;
    /// Makes all data and connections go.
    fn reset(&mut self);
    /// Runs a call as a client and returns the raw reply.
    fn call(&mut self, client: &str, words: &[Vec<u8>]) -> Vec<u8>;
    /// Runs a call that is answered by nothing.
    fn send(&mut self, client: &str, words: &[Vec<u8>]);
}

/// Runs a fixture; every call's reply goes to `visit`, with its line.
pub(crate) fn run(
    fixture: &Fixture,
    target: &mut dyn Target,
    visit: &mut dyn FnMut(usize, &Call, &[u8]),
) {
    target.reset();
    let mut client = "first".to_owned();
    for (line, step) in &fixture.steps {
        match step {
            Step::Client(name) => client.clone_from(name),
            Step::Reset => target.reset(),
            Step::Protocol(version) => {
                let hello = [b"HELLO".to_vec(), version.to_string().into_bytes()];
                target.call(&client, &hello);
            }
            Step::Call(call) if call.kind == Kind::ServerOnly && !target.is_server() => {}
            Step::Call(call) if call.kind == Kind::Ours && target.is_redis() => {}
            Step::Call(call) if call.kind == Kind::Silent => target.send(&client, &call.words),
            Step::Call(call) => {
                let reply = target.call(&client, &call.words);
                visit(*line, call, &reply);
            }
        }
    }
}

/// Runs all fixtures and fails with every difference.
pub(crate) fn check(target: &mut dyn Target) {
    let mut wrong = String::new();
    let mut wrong_count = 0;
    for fixture in all() {
        run(&fixture, target, &mut |line, call, reply| {
            if call.kind.has_reply() && call.expected.as_deref() != Some(reply) {
                wrong_count += 1;
                if wrong_count <= 60 {
                    describe(&mut wrong, &fixture.path, line, call, reply);
                }
            }
        });
    }
    assert!(wrong_count == 0, "{wrong_count} replies differ:\n{wrong}");
}

fn describe(text: &mut String, path: &Path, line: usize, call: &Call, reply: &[u8]) {
    let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let expected = match &call.expected {
        Some(bytes) => words::escaped(bytes),
        None => "(not recorded: run with UPDATE_EXPECT=1)".to_owned(),
    };
    let _ = writeln!(
        text,
        "{file}:{line}: {}\n  expected {expected}\n  got      {}",
        words::line_of(&call.words),
        words::escaped(reply)
    );
}
