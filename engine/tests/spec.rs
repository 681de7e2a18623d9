//! Checks of the whole command table: that its parts agree with each other, with the fixtures, with
//! `engine/COMMANDS.md`, and with what Redis says of the same commands.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::rng::Rng;
use cordis_engine::commands::args::OwnedArgs;
use cordis_engine::commands::docs::{commands_page, syntax};
use cordis_engine::commands::keys::find_keys;
use cordis_engine::commands::spec::{
    Arg, ArgKind, Arity, Begin, CommandSpec, Find, Flags, Propagate, Route,
};
use cordis_engine::commands::table::{Command, KeyRule, table};

/// Commands whose arity is not what their arguments add up to, and why.
const ARITY_EXCEPTIONS: &[(&str, &str)] = &[
    ("client|kill", "Redis documents the filters as optional, but wants one"),
    ("command|getkeys", "the arguments are those of any other call and are not documented"),
    ("command|getkeysandflags", "as above"),
    ("debug|", "checked by the handlers, for Redis' error"),
    ("pfmerge", "Redis documents one source at least, but takes none"),
];

/// Commands with keys that neither read nor write data, or do it for servers and tests.
const ACCESS_EXCEPTIONS: &[(&str, &str)] = &[
    ("debug|", "for tests; allowed while data is loading"),
    ("watch", "looks at no value and is allowed while data is loading"),
];

fn is_excepted(list: &[(&str, &str)], name: &str) -> bool {
    let hit = |n: &str| n == name || (n.ends_with('|') && name.starts_with(n));
    list.iter().any(|(n, _)| hit(n))
}

/// Every command and subcommand.
fn each() -> impl Iterator<Item = &'static Command> {
    table().all().iter().flat_map(|command| std::iter::once(command).chain(&command.subcommands))
}

fn each_spec() -> impl Iterator<Item = &'static CommandSpec> {
    each().map(|command| command.spec)
}

/// Fails with all complaints at once.
fn report(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

fn engine_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn names_are_sorted_unique_and_within_their_container() {
    let names: Vec<&str> = table().all().iter().map(|command| command.spec.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    for command in table().all() {
        let name = command.spec.name;
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b"-_".contains(&b)), "{name}");
        let subs: Vec<&str> = command.subcommands.iter().map(|sub| sub.spec.name).collect();
        assert!(subs.is_sorted_by(|a, b| a < b), "{subs:?}");
        for sub in &command.subcommands {
            assert!(
                sub.spec.name.strip_prefix(name).is_some_and(|s| s.starts_with('|')),
                "{subs:?}"
            );
            assert!(sub.subcommands.is_empty(), "{} has subcommands of its own", sub.spec.name);
        }
        assert!(!command.is_container() || !subs.is_empty(), "{name} is an empty container");
    }
}

#[test]
fn sentences_are_well_formed() {
    let mut complaints = Vec::new();
    for spec in each_spec() {
        let mut complain = |what: &str| complaints.push(format!("{}: {what}", spec.name));
        if !spec.summary.starts_with(|c: char| c.is_uppercase()) {
            complain("the summary does not begin with a capital letter");
        }
        for text in [spec.summary, spec.complexity, spec.since] {
            if text.ends_with('.') {
                complain(&format!("a full stop ends {text:?}"));
            }
        }
        let texts = [spec.summary, spec.complexity, spec.since];
        let texts = texts.into_iter().chain(spec.history.iter().flat_map(|(v, t)| [*v, *t]));
        let texts = texts.chain(spec.deprecated.iter().flat_map(|(v, t)| [*v, *t]));
        for text in texts.chain(spec.keys.iter().map(|key| key.notes)) {
            if text.contains("FIXME") || text.contains('\n') {
                complain(&format!("not ready for readers: {text:?}"));
            }
        }
        if spec.summary.len() > 100 || spec.complexity.is_empty() || spec.since.is_empty() {
            complain("a long summary, or no complexity, or no version");
        }
    }
    report(complaints);
}

/// Fewest words that an argument takes, and most; `None` if there is no end.
fn words_of(arg: &Arg) -> (usize, Option<usize>) {
    let parts: Vec<_> = arg.args.iter().map(words_of).collect();
    let (least, most) = match arg.kind {
        ArgKind::PureToken => (0, Some(0)),
        ArgKind::OneOf => (
            parts.iter().map(|(least, _)| *least).min().unwrap_or(0),
            parts.iter().map(|(_, most)| *most).try_fold(0, |a, b| Some(a.max(b?))),
        ),
        ArgKind::Block => words_of_all(arg.args),
        _ => (1, Some(1)),
    };
    let token = usize::from(arg.token.is_some());
    let least = if arg.optional { 0 } else { least + token };
    (least, if arg.multiple { None } else { most.map(|most| most + token) })
}

fn words_of_all(args: &[Arg]) -> (usize, Option<usize>) {
    args.iter().map(words_of).fold((0, Some(0)), |(least, most), (l, m)| {
        (least + l, most.and_then(|most| Some(most + m?)))
    })
}

#[test]
fn arity_agrees_with_the_argument_tree() {
    let mut complaints = Vec::new();
    for command in each().filter(|c| c.subcommands.is_empty()) {
        let spec = command.spec;
        let name_words = 1 + usize::from(spec.name.contains('|'));
        let (least, most) = words_of_all(spec.args);
        let fits = match spec.arity {
            Arity::Exact(n) => {
                least + name_words == usize::from(n) && most == Some(usize::from(n) - name_words)
            }
            Arity::AtLeast(n) => {
                let varies = most != Some(least) || spec.args.is_empty();
                least + name_words == usize::from(n) && varies
            }
        };
        if !fits && !is_excepted(ARITY_EXCEPTIONS, spec.name) {
            complaints.push(format!(
                "{:?}, but {} takes {least} to {most:?}",
                spec.arity,
                syntax(spec)
            ));
        }
    }
    report(complaints);
}

fn key_indexes(args: &[Arg], found: &mut BTreeSet<usize>, complaints: &mut Vec<String>) {
    for arg in args {
        match (arg.kind, arg.key_spec) {
            (ArgKind::Key, Some(index)) => {
                found.insert(usize::from(index));
            }
            (ArgKind::Key, None) => complaints.push(format!("{} is a key without spec", arg.name)),
            // A pattern that names keys.
            (ArgKind::Pattern, Some(_)) => {}
            (_, Some(_)) => complaints.push(format!("{} is no key and has a spec", arg.name)),
            (_, None) => {}
        }
        key_indexes(arg.args, found, complaints);
    }
}

#[test]
fn key_arguments_and_key_specs_belong_together() {
    let mut complaints = Vec::new();
    for spec in each_spec() {
        let mut found = BTreeSet::new();
        let mut of_spec = Vec::new();
        key_indexes(spec.args, &mut found, &mut of_spec);
        // Rules that say "somewhere" have no argument of their own.
        // Shard channels are found like keys and are none.
        let declared: BTreeSet<usize> = (0..spec.keys.len())
            .filter(|&i| spec.keys[i].begin != Begin::Unknown && !spec.keys[i].not_key)
            .collect();
        let known: BTreeSet<usize> = found
            .iter()
            .copied()
            .filter(|i| declared.contains(i) || *i >= spec.keys.len())
            .collect();
        if known != declared {
            of_spec.push(format!("arguments use key specs {known:?} of {declared:?}"));
        }
        complaints.extend(of_spec.into_iter().map(|what| format!("{}: {what}", spec.name)));
    }
    report(complaints);
}

#[test]
fn commands_with_keys_either_read_or_write() {
    let mut complaints = Vec::new();
    for spec in each_spec() {
        let access = spec.flags.intersection(Flags::READONLY.union(Flags::WRITE));
        if access == Flags::READONLY.union(Flags::WRITE) {
            complaints.push(format!("{} reads only and writes", spec.name));
        }
        let is_excepted = is_excepted(ACCESS_EXCEPTIONS, spec.name);
        if spec.keys.iter().all(|key| key.not_key) {
            continue;
        }
        if !spec.keys.is_empty() && access.is_empty() && !is_excepted {
            complaints.push(format!("{} has keys and neither reads nor writes", spec.name));
        }
        if !spec.keys.is_empty() && !matches!(spec.route, Route::ByKey | Route::SplitKeys) {
            complaints.push(format!("{} has keys and does not run on their shards", spec.name));
        }
    }
    report(complaints);
}

#[test]
fn writes_say_how_they_are_journalled() {
    let mut complaints = Vec::new();
    for command in each() {
        let spec = command.spec;
        if spec.is_write() == (spec.propagate == Propagate::Never) {
            complaints.push(format!(
                "{} is a write and never journalled, or no write and journalled",
                spec.name
            ));
        }
        if spec.propagate == Propagate::Verbatim && command.keys != KeyRule::First {
            complaints.push(format!(
                "{} is journalled as it came, but has other keys than word 1",
                spec.name
            ));
        }
    }
    report(complaints);
}

/// Writes a call by the argument tree and remembers which words are keys.
struct Writer<'r> {
    rng: &'r mut Rng,
    /// How likely optional words and repetitions are.
    percent: usize,
    words: Vec<Vec<u8>>,
    keys: Vec<usize>,
    /// A word holds the number of keys: then there is one key.
    counted: bool,
}

impl Writer<'_> {
    fn args(&mut self, args: &[Arg]) {
        for arg in args {
            if !arg.optional || self.rng.percent(self.percent) {
                self.one(arg, true);
                while arg.multiple && !self.counted && self.rng.percent(self.percent) {
                    self.one(arg, arg.multiple_token);
                }
            }
        }
    }

    fn one(&mut self, arg: &Arg, with_token: bool) {
        if let Some(token) = arg.token.filter(|_| with_token) {
            self.words.push(token.as_bytes().to_vec());
        }
        match arg.kind {
            ArgKind::PureToken => {}
            ArgKind::OneOf => {
                let choice = *self.rng.pick(arg.args);
                self.one(&choice, true);
            }
            ArgKind::Block => self.args(arg.args),
            ArgKind::Key => {
                self.keys.push(self.words.len());
                self.words.push(format!("key{}", self.keys.len()).into_bytes());
            }
            _ => self.words.push(b"1".to_vec()),
        }
    }
}

fn written(spec: &CommandSpec, rng: &mut Rng, percent: usize) -> (Vec<Vec<u8>>, Vec<usize>) {
    let words = spec.name.split('|').map(|word| word.as_bytes().to_vec()).collect();
    let counted = spec.keys.iter().any(|key| matches!(key.find, Find::Count { .. }));
    let mut writer = Writer { rng, percent, words, keys: Vec::new(), counted };
    writer.args(spec.args);
    (writer.words, writer.keys)
}

#[test]
fn calls_written_by_the_argument_tree_are_accepted_and_their_keys_found() {
    let mut rng = Rng::new(11);
    for command in each().filter(|c| c.subcommands.is_empty()) {
        let spec = command.spec;
        let unknown = spec.keys.iter().any(|key| key.begin == Begin::Unknown || key.not_key);
        for round in 0..200 {
            let (words, want) = written(spec, &mut rng, round % 70);
            let call = OwnedArgs::of(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let args = call.args();
            let shown = || common::words::line_of(&words);
            let is_excepted = is_excepted(ARITY_EXCEPTIONS, spec.name);
            assert!(spec.arity.accepts(words.len()) || is_excepted, "{}", shown());
            let mut found = Vec::new();
            assert!(find_keys(spec, &args, &mut found), "keys of {}", shown());
            let mut found: Vec<usize> = found.iter().map(|key| key.index).collect();
            found.sort_unstable();
            assert!(found == want || unknown, "keys of {}: {found:?}", shown());
        }
        // The shortest: forms that exclude each other need not be of one length.
        let calls = (0..20).map(|_| written(spec, &mut rng, 0).0);
        let mut words = calls.min_by_key(Vec::len).expect("there are some");
        words.pop();
        let is_excepted = is_excepted(ARITY_EXCEPTIONS, spec.name);
        assert!(!spec.arity.accepts(words.len()) || is_excepted, "{} takes too few", spec.name);
    }
}

#[test]
fn every_command_is_in_a_fixture() {
    let mut called = BTreeSet::new();
    for fixture in common::fixture::all() {
        for (_, step) in &fixture.steps {
            if let common::fixture::Step::Call(call) = step {
                let words: Vec<String> = call
                    .words
                    .iter()
                    .take(2)
                    .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
                    .collect();
                called.insert(words.join("|"));
                called.extend(words.into_iter().next());
            }
        }
    }
    let missing = each_spec().map(|spec| spec.name).filter(|name| !called.contains(*name));
    let missing: Vec<String> = missing.map(|name| format!("{name} is in no fixture")).collect();
    report(missing);
}

#[test]
fn commands_page_is_current() {
    let path = engine_file("COMMANDS.md");
    let want = commands_page();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &want).expect("the page can be written");
    }
    let got = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(got == want, "{} is old: run with UPDATE_EXPECT=1", path.display());
}

/// What Redis 7.0 says of the same commands: the Debian package `redis-server` must be installed.
#[expect(clippy::disallowed_methods, reason = "waits for a process, looking every 10 ms")]
mod redis {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command as Process, Stdio};
    use std::time::{Duration, Instant};

    use cordis_engine::commands::bare::Bare;
    use cordis_engine::resp::reply::Protocol;

    use super::common;

    /// Where the two differ on purpose: name, field, and why.
    const DIFFERENCES: &[(&str, &str, &str)] = &[];

    /// A reply as a tree.
    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
    enum Value {
        Text(String),
        List(char, Vec<Value>),
        Map(Vec<(Value, Value)>),
    }

    impl Value {
        fn decode(bytes: &mut &[u8]) -> Self {
            let end = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a whole reply");
            let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
            *bytes = &bytes[end + 2..];
            let kind = line.chars().next().expect("a reply begins with its kind");
            let count = || line[1..].parse::<i64>().expect("a count").max(0) as usize;
            match kind {
                '$' => {
                    let text = String::from_utf8_lossy(&bytes[..count()]).into_owned();
                    *bytes = &bytes[count() + 2..];
                    Self::Text(text)
                }
                '*' | '~' => Self::List(kind, (0..count()).map(|_| Self::decode(bytes)).collect()),
                '%' => Self::Map(
                    (0..count()).map(|_| (Self::decode(bytes), Self::decode(bytes))).collect(),
                ),
                _ => Self::Text(line),
            }
        }

        fn list(&self) -> &[Value] {
            if let Self::List(_, values) = self { values } else { &[] }
        }

        fn text(&self) -> &str {
            if let Self::Text(text) = self { text } else { "" }
        }

        fn get(&self, name: &str) -> Option<&Value> {
            let Self::Map(pairs) = self else { return None };
            pairs.iter().find(|(key, _)| key.text() == name).map(|(_, value)| value)
        }

        /// The same without the entries of maps called `name`, at any depth.
        fn without(&self, names: &[&str]) -> Self {
            match self {
                Self::Text(_) => self.clone(),
                Self::List(kind, values) => {
                    Self::List(*kind, values.iter().map(|value| value.without(names)).collect())
                }
                Self::Map(pairs) => Self::Map(
                    pairs
                        .iter()
                        .filter(|(key, _)| !names.contains(&key.text()))
                        .map(|(key, value)| (key.clone(), value.without(names)))
                        .collect(),
                ),
            }
        }
    }

    /// A Redis of our own, ended with the test.
    struct Redis {
        process: Child,
        stream: TcpStream,
    }

    impl Drop for Redis {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    impl Redis {
        fn start() -> Self {
            let port = {
                let probe = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
                probe.local_addr().expect("a bound socket has an address").port()
            };
            let process = Process::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
                .args(["--dir", env!("CARGO_TARGET_TMPDIR")])
                .stdout(Stdio::null())
                .spawn();
            let process = process.expect("redis-server 7.0 is installed");
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                match TcpStream::connect(("127.0.0.1", port)) {
                    Ok(stream) => return Self { process, stream },
                    Err(error) => assert!(Instant::now() < deadline, "no redis-server: {error}"),
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }

        fn call(&mut self, words: &[&[u8]]) -> Vec<u8> {
            self.stream.write_all(&common::words::encoded(words)).expect("redis-server reads");
            let mut reply = Vec::new();
            let mut chunk = [0; 64 * 1024];
            while common::reply::frame_len(&reply).expect("a reply of Redis").is_none() {
                let len = self.stream.read(&mut chunk).expect("redis-server answers");
                assert!(len > 0, "redis-server hung up");
                reply.extend_from_slice(&chunk[..len]);
            }
            reply
        }
    }

    /// Both answers to a call in RESP3, ours first.
    fn answers(words: &[&[u8]]) -> [Value; 2] {
        let mut redis = Redis::start();
        let hello = redis.call(&[b"HELLO", b"3"]);
        let hello = Value::decode(&mut &hello[..]);
        let version = hello.get("version").expect("HELLO names a version").text().to_owned();
        assert!(version.starts_with("7.0."), "this compares with Redis 7.0, not {version}");
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        client.protocol = Protocol::Resp3;
        let ours = bare.call(&mut client, words);
        let theirs = redis.call(words);
        [&ours, &theirs].map(|reply| Value::decode(&mut &reply[..]))
    }

    fn complain(
        complaints: &mut Vec<String>,
        name: &str,
        field: &str,
        ours: &Value,
        theirs: &Value,
    ) {
        let known = DIFFERENCES.iter().any(|(n, f, _)| *n == name && *f == field);
        if ours != theirs && !known {
            complaints.push(format!("{name}, {field}:\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }

    /// Fields of an element of COMMAND.
    const INFO_FIELDS: [&str; 9] =
        ["name", "arity", "flags", "first", "last", "step", "acl", "tips", "keys"];

    fn compare_infos(ours: &[Value], theirs: &[Value], complaints: &mut Vec<String>) -> usize {
        let name = |info: &Value| info.list().first().map(|n| n.text().to_owned());
        let mut compared = 0;
        for our in ours {
            let Some(their) = theirs.iter().find(|their| name(their) == name(our)) else {
                continue;
            };
            compared += 1;
            // Notes are sentences, and ours.
            let [o, t] = [our, their].map(|info| info.without(&["notes"]));
            for (i, field) in INFO_FIELDS.iter().enumerate() {
                let name = name(our).unwrap_or_default();
                complain(complaints, &name, field, &o.list()[i], &t.list()[i]);
            }
            compared += compare_infos(o.list()[9].list(), t.list()[9].list(), complaints);
        }
        compared
    }

    #[test]
    fn command_says_what_redis_says() {
        let [ours, theirs] = answers(&[b"COMMAND"]);
        let mut complaints = Vec::new();
        let compared = compare_infos(ours.list(), theirs.list(), &mut complaints);
        super::report(complaints);
        assert!(compared > 50, "only {compared} commands are in both");
    }

    fn compare_docs(ours: &Value, theirs: &Value, complaints: &mut Vec<String>) -> usize {
        let Value::Map(pairs) = ours else { return 0 };
        let mut compared = 0;
        for (name, our) in pairs {
            let Some(their) = theirs.get(name.text()) else {
                continue;
            };
            compared += 1;
            // Sentences are ours.
            let sentences = ["summary", "complexity", "history", "replaced_by", "subcommands"];
            let [o, t] = [our, their].map(|docs| docs.without(&sentences));
            complain(complaints, name.text(), "docs", &o, &t);
            let versions = |docs: &Value| -> Value {
                let history = docs.get("history").map(Value::list).unwrap_or_default();
                Value::List('*', history.iter().map(|change| change.list()[0].clone()).collect())
            };
            complain(complaints, name.text(), "history", &versions(our), &versions(their));
            if let (Some(o), Some(t)) = (our.get("subcommands"), their.get("subcommands")) {
                compared += compare_docs(o, t, complaints);
            }
        }
        compared
    }

    #[test]
    fn command_docs_says_what_redis_says() {
        let [ours, theirs] = answers(&[b"COMMAND", b"DOCS"]);
        let mut complaints = Vec::new();
        let compared = compare_docs(&ours, &theirs, &mut complaints);
        super::report(complaints);
        assert!(compared > 50, "only {compared} commands are in both");
    }
}
