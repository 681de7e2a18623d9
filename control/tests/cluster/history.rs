//! Clients at full rate while slots move back and forth. Each key is written by one client only, so
//! every reply is known before it comes: nothing may be lost, stale, doubled, refused or out of
//! order. Keys that several clients count up must add up, and may never be seen to go back.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cordis_engine::resp::value::{Value, encode_call};

use super::harness::{Client, Cluster, eventually};

/// Databases that workers write to.
const DATABASES: usize = 4;
/// Database of keys that end.
const ENDING_DATABASE: usize = 9;
/// Keys that all workers count up.
const SHARED: usize = 24;
/// Fields of the big hash.
const BIG_FIELDS: usize = 100_000;
/// Key of the big hash.
const BIG: &str = "{big}hash";

/// Random numbers that a seed repeats (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.roll() % count as u64) as usize
    }
}

/// The seed of this run: given, or new. It is printed.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("CORDIS_CLUSTER_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() as u64
    });
    // Shown by the test runner when the test fails.
    let _ = writeln!(std::io::stderr(), "CORDIS_CLUSTER_SEED={seed}");
    seed
}

/// How long a history lasts.
fn span() -> Duration {
    let given = std::env::var("CORDIS_CLUSTER_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(6))
}

/// Sets a flag when the thread that holds it ends, also by a panic.
pub(crate) struct Ends<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Text(String),
    List(VecDeque<String>),
    Hash(BTreeMap<String, String>),
}

impl Kept {
    /// The call that reads it all.
    fn read(&self, key: &str) -> Vec<String> {
        match self {
            Self::Text(_) => call(&["GET", key]),
            Self::List(_) => call(&["LRANGE", key, "0", "-1"]),
            Self::Hash(_) => call(&["HGETALL", key]),
        }
    }

    /// Whether the reply to that call shows this.
    fn is_shown_by(&self, reply: &Value) -> bool {
        match self {
            Self::Text(text) => *reply == Value::text(text),
            Self::List(list) => *reply == Value::Array(list.iter().map(Value::text).collect()),
            Self::Hash(hash) => {
                let flat = reply.as_array().unwrap_or_default();
                let word = |value: &Value| value.as_text().unwrap_or_default().to_owned();
                let found: BTreeMap<_, _> =
                    flat.chunks_exact(2).map(|pair| (word(&pair[0]), word(&pair[1]))).collect();
                // Compared without a difference: it would fill the screen.
                flat.len() == 2 * hash.len() && found == *hash
            }
        }
    }
}

/// What one client's keys must hold.
#[derive(Default)]
struct Model {
    db: usize,
    keys: BTreeMap<(usize, String), Kept>,
}

impl Model {
    fn at(&self, key: &str) -> Option<&Kept> {
        self.keys.get(&(self.db, key.to_owned()))
    }

    fn entry(&mut self, key: &str, empty: Kept) -> &mut Kept {
        self.keys.entry((self.db, key.to_owned())).or_insert(empty)
    }

    fn text(&self, key: &str) -> Value {
        match self.at(key) {
            Some(Kept::Text(text)) => Value::text(text),
            None => Value::Null,
            other => unreachable!("keys keep their kind: {key} {other:?}"),
        }
    }

    fn list(&mut self, key: &str) -> &mut VecDeque<String> {
        match self.entry(key, Kept::List(VecDeque::new())) {
            Kept::List(list) => list,
            other => unreachable!("keys keep their kind: {key} {other:?}"),
        }
    }

    fn hash(&mut self, key: &str) -> &mut BTreeMap<String, String> {
        match self.entry(key, Kept::Hash(BTreeMap::new())) {
            Kept::Hash(hash) => hash,
            other => unreachable!("keys keep their kind: {key} {other:?}"),
        }
    }

    fn set(&mut self, key: &str, text: String) {
        self.keys.insert((self.db, key.to_owned()), Kept::Text(text));
    }

    fn count_up(&mut self, key: &str, by: i64) -> Value {
        let before = self.text(key).as_text().map_or(0, |text| text.parse().expect("a number"));
        self.set(key, (before + by).to_string());
        Value::Int(before + by)
    }

    /// Runs a call, and says what its reply must be.
    fn apply(&mut self, call: &[String]) -> Value {
        let words: Vec<&str> = call.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["SELECT", db] => {
                self.db = db.parse().expect("a number");
                Value::simple("OK")
            }
            ["SET", key, text] => {
                self.set(key, (*text).to_owned());
                Value::simple("OK")
            }
            ["GET", key] => self.text(key),
            ["APPEND", key, more] => {
                let text = format!("{}{more}", self.text(key).as_text().unwrap_or(""));
                let len = text.len();
                self.set(key, text);
                Value::count(len)
            }
            ["STRLEN", key] => Value::count(self.text(key).as_text().unwrap_or("").len()),
            ["INCR", key] => self.count_up(key, 1),
            ["DECRBY", key, by] => self.count_up(key, -by.parse::<i64>().expect("a number")),
            ["DEL" | "UNLINK", keys @ ..] => {
                let db = self.db;
                let gone = |key: &&&str| self.keys.remove(&(db, (**key).to_owned())).is_some();
                Value::count(keys.iter().filter(gone).count())
            }
            ["EXISTS", keys @ ..] => {
                Value::count(keys.iter().filter(|key| self.at(key).is_some()).count())
            }
            ["MGET", keys @ ..] => Value::Array(keys.iter().map(|key| self.text(key)).collect()),
            ["MSET", pairs @ ..] => {
                pairs.chunks(2).for_each(|pair| self.set(pair[0], pair[1].to_owned()));
                Value::simple("OK")
            }
            ["LPUSH", key, text] => {
                let list = self.list(key);
                list.push_front((*text).to_owned());
                Value::count(list.len())
            }
            ["RPOP", key] => {
                let last = self.list(key).pop_back();
                if self.list(key).is_empty() {
                    self.keys.remove(&(self.db, (*key).to_owned()));
                }
                last.map_or(Value::Null, Value::text)
            }
            ["LRANGE", key, "0", "-1"] => match self.at(key) {
                Some(Kept::List(list)) => Value::Array(list.iter().map(Value::text).collect()),
                _ => Value::Array(Vec::new()),
            },
            ["HSET", key, pairs @ ..] => {
                let hash = self.hash(key);
                let new = |pair: &&[&str]| hash.insert(pair[0].into(), pair[1].into()).is_none();
                Value::count(pairs.chunks(2).filter(new).count())
            }
            ["HGET", key, field] => self.hash(key).get(*field).map_or(Value::Null, Value::text),
            ["HLEN", key] => Value::count(self.hash(key).len()),
            other => unreachable!("the model does not know {other:?}"),
        }
    }
}

fn call(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

enum Expect {
    /// Exactly this.
    Is(Value),
    /// More than this client has seen of a shared key.
    More(usize),
}

/// One client with keys of its own.
pub(crate) struct Worker {
    name: String,
    dice: Dice,
    model: Model,
    seen: [i64; SHARED],
    batch: Vec<(Vec<String>, Expect)>,
    /// Calls that were answered.
    pub(crate) answered: u64,
    /// The longest that a batch took.
    pub(crate) slowest: Duration,
}

impl Worker {
    /// A client whose keys no other has.
    pub(crate) fn new(name: &str, seed: u64) -> Self {
        let salt = name.bytes().fold(seed, |salt, byte| salt.rotate_left(9) ^ u64::from(byte));
        Self {
            name: name.to_owned(),
            dice: Dice(salt),
            model: Model::default(),
            seen: [0; SHARED],
            batch: Vec::new(),
            answered: 0,
            slowest: Duration::ZERO,
        }
    }

    fn push(&mut self, words: &[&str]) {
        let call = call(words);
        let reply = self.model.apply(&call);
        self.batch.push((call, Expect::Is(reply)));
    }

    fn key(&mut self, kind: &str, count: usize) -> String {
        format!("{}:{kind}:{}", self.name, self.dice.below(count))
    }

    /// Some keys of the same kind.
    fn keys(&mut self, kind: &str) -> Vec<String> {
        let count = 2 + self.dice.below(7);
        (0..count).map(|_| self.key(kind, 300)).collect()
    }

    fn one_call(&mut self, shared: &[AtomicU64]) {
        let text = format!("{:x}", self.dice.roll());
        match self.dice.below(20) {
            0..=2 => {
                let key = self.key("t", 300);
                self.push(&["SET", &key, &text]);
            }
            3..=6 => {
                let key = self.key("t", 300);
                let verb = ["GET", "GET", "STRLEN", "EXISTS"][self.dice.below(4)];
                self.push(&[verb, &key]);
            }
            7 => {
                let key = self.key("t", 300);
                self.push(&["DEL", &key]);
            }
            8 => {
                let key = self.key("a", 50);
                self.push(&["APPEND", &key, &text]);
                if self.dice.below(8) == 0 {
                    self.push(&["UNLINK", &key]);
                }
            }
            9..=11 => {
                let key = self.key("n", 200);
                let down = self.dice.below(9).to_string();
                match self.dice.below(3) {
                    0 => self.push(&["DECRBY", &key, &down]),
                    _ => self.push(&["INCR", &key]),
                }
            }
            12 | 13 => self.list_call(&text),
            14 => {
                let keys = self.keys("t");
                let verb = ["MGET", "EXISTS", "DEL"][self.dice.below(3)];
                let words = [&[verb.to_owned()], keys.as_slice()].concat();
                self.push(&words.iter().map(String::as_str).collect::<Vec<_>>());
            }
            15 => {
                let mut words = vec!["MSET".to_owned()];
                for key in self.keys("t") {
                    words.extend([key, text.clone()]);
                }
                self.push(&words.iter().map(String::as_str).collect::<Vec<_>>());
            }
            16 => self.tagged(&text),
            17 => self.transaction(&text),
            18 if self.dice.below(3) == 0 => {
                let db = self.dice.below(DATABASES).to_string();
                self.push(&["SELECT", &db]);
            }
            _ if self.model.db == 0 && !shared.is_empty() => {
                let at = self.dice.below(SHARED);
                self.batch.push((call(&["INCR", &format!("shared:{at}")]), Expect::More(at)));
            }
            _ => {
                let key = self.key("n", 200);
                self.push(&["GET", &key]);
            }
        }
    }

    fn list_call(&mut self, text: &str) {
        let key = self.key("l", 40);
        match self.dice.below(5) {
            0 | 1 => self.push(&["LPUSH", &key, text]),
            2 | 3 => self.push(&["RPOP", &key]),
            _ => self.push(&["LRANGE", &key, "0", "-1"]),
        }
    }

    fn tagged(&mut self, text: &str) {
        let tag = format!("{{{}}}", self.key("g", 60));
        let names = ["a", "b", "c"].map(|name| format!("{tag}{name}"));
        let [a, b, c] = names.each_ref().map(String::as_str);
        match self.dice.below(2) {
            0 => self.push(&["MSET", a, text, b, text, c, text]),
            _ => self.push(&["MGET", a, b, c]),
        }
    }

    fn transaction(&mut self, text: &str) {
        let tag = format!("{{{}}}", self.key("g", 60));
        let [a, n, l] = ["a", "n", "l"].map(|name| format!("{tag}{name}"));
        let calls = [
            call(&["SET", &a, text]),
            call(&["INCR", &n]),
            call(&["GET", &a]),
            call(&["LPUSH", &l, text]),
            call(&["RPOP", &l]),
        ];
        let calls = &calls[..1 + self.dice.below(calls.len())];
        self.batch.push((call(&["MULTI"]), Expect::Is(Value::simple("OK"))));
        let mut replies = Vec::new();
        for call in calls {
            replies.push(self.model.apply(call));
            self.batch.push((call.clone(), Expect::Is(Value::simple("QUEUED"))));
        }
        self.batch.push((call(&["EXEC"]), Expect::Is(Value::Array(replies))));
    }

    /// Sends what has been gathered at once, and checks the replies.
    fn flush(&mut self, client: &mut Client, shared: &[AtomicU64]) {
        let mut bytes = Vec::new();
        self.batch.iter().for_each(|(call, _)| encode_call(call, &mut bytes));
        let begun = Instant::now();
        client.send(&bytes).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        for (at, (call, expect)) in std::mem::take(&mut self.batch).into_iter().enumerate() {
            let took =
                || format!("{} call {} (number {at} of its batch)", self.name, self.answered);
            let reply = client.read().unwrap_or_else(|error| {
                panic!("{}: {call:?}: {error} after {:?}", took(), begun.elapsed())
            });
            match expect {
                Expect::Is(expected) => assert_eq!(reply, expected, "{}: {call:?}", took()),
                Expect::More(key) => {
                    let value = reply.as_int();
                    let value = value.unwrap_or_else(|| panic!("{}: {call:?}: {reply:?}", took()));
                    assert!(value > self.seen[key], "{}: {call:?} went back: {value}", took());
                    self.seen[key] = value;
                    shared[key].fetch_add(1, Ordering::SeqCst);
                }
            }
            self.answered += 1;
        }
        self.slowest = self.slowest.max(begun.elapsed());
    }

    /// A transaction that may be called off, which must then have done nothing. A wait that ends at
    /// once.
    fn optimistic(&mut self, client: &mut Client) {
        let key = self.key("t", 300);
        let text = format!("{:x}", self.dice.roll());
        client.ok(&format!("WATCH {key}"));
        assert_eq!(client.call(&format!("GET {key}")), self.model.text(&key), "{key}");
        client.ok("MULTI");
        assert_eq!(client.call(&format!("SET {key} {text}")), Value::simple("QUEUED"));
        match client.call("EXEC") {
            // The slot moved meanwhile.
            Value::Null => {}
            reply => {
                let set = self.model.apply(&call(&["SET", &key, &text]));
                assert_eq!(reply, Value::Array(vec![set]), "{}: EXEC on {key}", self.name);
            }
        }
        assert_eq!(client.call(&format!("GET {key}")), self.model.text(&key), "{key}");
        let list = self.key("wait", 30);
        assert_eq!(client.call(&format!("LPUSH {list} {text}")), Value::Int(1));
        let popped = Value::Array(vec![Value::text(&list), Value::text(&text)]);
        assert_eq!(client.call(&format!("BRPOP {list} 30")), popped);
        self.answered += 8;
    }

    /// Works until told to end. `shared` counts what was acknowledged for the keys that all write;
    /// none: those are left alone.
    pub(crate) fn run(&mut self, port: u16, shared: &[AtomicU64], until: &AtomicBool) {
        let _ends = PanicEnds(until);
        let mut client = Client::connect(port).expect("the proxy listens");
        let db = self.model.db.to_string();
        self.push(&["SELECT", &db]);
        while !until.load(Ordering::SeqCst) {
            for _ in 0..1 + self.dice.below(60) {
                self.one_call(shared);
            }
            self.flush(&mut client, shared);
            if self.dice.below(16) == 0 {
                self.optimistic(&mut client);
            }
        }
    }

    /// Fills the big hash.
    fn fill_big(&mut self, client: &mut Client) {
        for first in (0..BIG_FIELDS).step_by(500) {
            let mut words = vec!["HSET".to_owned(), BIG.to_owned()];
            (first..first + 500).for_each(|n| words.extend([format!("f{n}"), format!("old{n}")]));
            self.push(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        self.flush(client, &[]);
    }

    /// Writes and reads the big hash until told to end.
    fn run_big(&mut self, port: u16, until: &AtomicBool) {
        let _ends = PanicEnds(until);
        let mut client = Client::connect(port).expect("the proxy listens");
        while !until.load(Ordering::SeqCst) {
            for _ in 0..1 + self.dice.below(60) {
                let field = format!("f{}", self.dice.below(BIG_FIELDS + 500));
                let text = format!("{:x}", self.dice.roll());
                match self.dice.below(8) {
                    0 => self.push(&["HLEN", BIG]),
                    1..=3 => self.push(&["HGET", BIG, &field]),
                    _ => self.push(&["HSET", BIG, &field, &text]),
                }
            }
            self.flush(&mut client, &[]);
        }
    }

    /// Reads all keys and compares them.
    pub(crate) fn check_all(&mut self, port: u16) {
        let mut client = Client::connect(port).expect("the proxy listens");
        for db in 0..DATABASES {
            client.ok(&format!("SELECT {db}"));
            let own: Vec<_> = self.model.keys.iter().filter(|((at, _), _)| *at == db).collect();
            let reads: Vec<_> = own.iter().map(|((_, key), kept)| kept.read(key)).collect();
            let replies = client.pipeline(&reads).expect("the proxy answers");
            for (((_, key), kept), reply) in own.into_iter().zip(replies) {
                let (name, is_it) = (&self.name, kept.is_shown_by(&reply));
                let shown: String = format!("{reply:?}").chars().take(300).collect();
                assert!(is_it, "{name} {key} in database {db} at the end: {shown}");
            }
        }
    }

    fn count(&self, db: usize) -> usize {
        self.model.keys.keys().filter(|(at, _)| *at == db).count()
    }
}

/// Sets a flag when the thread that holds it panics.
struct PanicEnds<'a>(&'a AtomicBool);

impl Drop for PanicEnds<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// How long keys that end are there.
const LIFE: Duration = Duration::from_millis(400);
/// How much later than its time a key may be seen: the machine is shared, clocks are read once a
/// turn.
const LATE: Duration = Duration::from_secs(3);

/// Keys that end: there as long as they should be, and gone afterwards. Returns how many were seen
/// to end.
fn run_ending(port: u16, until: &AtomicBool) -> u64 {
    let _ends = PanicEnds(until);
    let mut client = Client::connect(port).expect("the proxy listens");
    client.ok(&format!("SELECT {ENDING_DATABASE}"));
    let life = LIFE.as_millis().to_string();
    let mut alive: Vec<(String, Instant, Instant)> = Vec::new();
    let (mut next, mut ended) = (0, 0);
    while !until.load(Ordering::SeqCst) {
        let new: Vec<String> = (next..next + 20).map(|number| format!("end:{number}")).collect();
        next += 20;
        let sets: Vec<_> = new.iter().map(|key| call(&["SET", key, key, "PX", &life])).collect();
        let sent = Instant::now();
        let replies = client.pipeline(&sets).expect("the proxy answers");
        assert!(replies.iter().all(|reply| *reply == Value::simple("OK")), "{replies:?}");
        alive.extend(new.into_iter().map(|key| (key, sent, Instant::now())));
        let gets: Vec<_> = alive.iter().map(|(key, ..)| call(&["GET", key])).collect();
        let asked = Instant::now();
        let replies = client.pipeline(&gets).expect("the proxy answers");
        let answered = Instant::now();
        let mut replies = replies.into_iter();
        alive.retain(|(key, sent, acked)| match replies.next() {
            Some(Value::Null) => {
                assert!(answered >= *sent + LIFE - Duration::from_millis(5), "{key} ended early");
                ended += 1;
                false
            }
            Some(value) => {
                assert_eq!(value, Value::text(key), "{key}");
                assert!(asked < *acked + LIFE + LATE, "{key} is there after its time");
                true
            }
            None => unreachable!("as many replies as calls"),
        });
    }
    ended
}

/// Loads keys that stay, each with its name as part of the value.
pub(crate) fn load(client: &mut Client, keys: &[String]) {
    let calls: Vec<_> = keys.iter().map(|key| call(&["SET", key, &value_of(key)])).collect();
    let replies = client.pipeline(&calls).expect("the proxy answers");
    let wrong = replies.iter().find(|reply| **reply != Value::simple("OK"));
    assert_eq!(wrong, None, "a key cannot be set");
}

/// The value of a loaded key.
pub(crate) fn value_of(key: &str) -> String {
    format!("value of {key} {}", "v".repeat(80))
}

/// Reads loaded keys: those that are missing. None may have another value.
pub(crate) fn missing(client: &mut Client, keys: &[String]) -> Vec<String> {
    let calls: Vec<_> = keys.iter().map(|key| call(&["GET", key])).collect();
    let replies = client.pipeline(&calls).expect("the proxy answers");
    let mut missing = Vec::new();
    for (key, reply) in keys.iter().zip(replies) {
        match reply {
            Value::Null => missing.push(key.clone()),
            reply => assert_eq!(reply, Value::text(value_of(key)), "{key}"),
        }
    }
    missing
}

/// Everything at the end of a history: values through both proxies, and the number of keys.
fn check_end(cluster: &Cluster, workers: &mut [Worker], loaded: &[String], shared: &[AtomicU64]) {
    cluster.whole();
    cluster.all_arrived_whole();
    let ports = [cluster.proxies[0].port, cluster.proxies[1].port];
    for (index, worker) in workers.iter_mut().enumerate() {
        worker.check_all(ports[index % 2]);
    }
    for proxy in &cluster.proxies {
        let mut client = proxy.client();
        assert_eq!(missing(&mut client, loaded), [""; 0]);
        for (at, count) in shared.iter().enumerate() {
            let count = count.load(Ordering::SeqCst);
            let reply = client.call(&format!("GET shared:{at}"));
            assert_eq!(reply.as_text().unwrap_or("0"), count.to_string(), "shared:{at}");
        }
        for db in 0..DATABASES {
            client.ok(&format!("SELECT {db}"));
            let own: usize = workers.iter().map(|worker| worker.count(db)).sum();
            let used = shared.iter().filter(|count| count.load(Ordering::SeqCst) > 0).count();
            let expected = own + if db == 0 { loaded.len() + used } else { 0 };
            assert_eq!(client.call("DBSIZE"), Value::count(expected), "keys of database {db}");
        }
        client.ok(&format!("SELECT {ENDING_DATABASE}"));
        eventually("keys that end are gone", || {
            (client.call("DBSIZE") == Value::Int(0)).then_some(())
        });
    }
}

/// Moves two sets of slots to and fro, until the time is over; how often.
fn move_to_and_fro(cluster: &Cluster, until: &AtomicBool) -> u64 {
    let _ends = Ends(until);
    let end = Instant::now() + span();
    let mut moves = 0;
    let mut to = [2, 1];
    while (Instant::now() < end || moves < 2) && !until.load(Ordering::SeqCst) {
        let ids = [cluster.begin_move("0-511", to[0]), cluster.begin_move("600-799", to[1])];
        for id in ids {
            let status = cluster.until(id, "it ends", |status| status.is_over());
            assert_eq!(status.state, "finished", "{status:?}");
            assert_eq!(status.done, status.total, "{status:?}");
        }
        to = to.map(|group| 3 - group);
        moves += 1;
    }
    moves
}

#[test]
fn history_while_slots_move_is_exact() {
    exact_history(&Cluster::start());
}

#[test]
fn history_by_a_process_that_is_server_and_proxy_is_exact() {
    exact_history(&Cluster::start_fused());
}

fn exact_history(cluster: &Cluster) {
    let seed = seed();
    let ports = [cluster.proxies[0].port, cluster.proxies[1].port];
    let loaded: Vec<String> = (0..20_000).map(|number| format!("load:{number}")).collect();
    load(&mut cluster.proxies[0].client(), &loaded);
    let mut workers: Vec<Worker> =
        (0..6).map(|number| Worker::new(&format!("w{number}"), seed)).collect();
    let mut big = Worker::new("big", seed);
    big.fill_big(&mut cluster.proxies[1].client());
    let shared: Vec<AtomicU64> = (0..SHARED).map(|_| AtomicU64::new(0)).collect();
    let until = AtomicBool::new(false);
    let (moves, ended) = std::thread::scope(|scope| {
        for (index, worker) in workers.iter_mut().enumerate() {
            let (shared, until) = (&shared, &until);
            scope.spawn(move || worker.run(ports[index % 2], shared, until));
        }
        scope.spawn(|| big.run_big(ports[0], &until));
        let ending = scope.spawn(|| run_ending(ports[1], &until));
        let moves = move_to_and_fro(cluster, &until);
        (moves, ending.join().expect("keys end when they should"))
    });
    workers.push(big);
    check_end(cluster, &mut workers, &loaded, &shared);
    let answered: Vec<u64> = workers.iter().map(|worker| worker.answered).collect();
    let slowest = workers.iter().map(|worker| worker.slowest).max();
    let _ = writeln!(
        std::io::stderr(),
        "{moves} moves, calls answered {answered:?}, {ended} keys ended, slowest {slowest:?}"
    );
    assert!(moves >= 2 && answered.iter().all(|count| *count > 0) && ended > 0);
}
