//! Replays journals: what a random run has left in the journals of its shards must build the same
//! data anew, wherever and whenever it is replayed. Prints the seed of a run that fails; `SEED`
//! replays it, `ROUNDS` runs more of them.
#![allow(clippy::print_stderr, reason = "the runner of the tests shows it with a failure")]

mod common;

use std::collections::BTreeMap;

use common::calls::Calls;
use common::rng::seed_or;
use common::words::{escaped, line_of};
use cordis_engine::commands::args::OwnedArgs;
use cordis_engine::commands::bare::Bare;
use cordis_engine::commands::dispatch;
use cordis_engine::commands::keys::find_keys;
use cordis_engine::journal::Record;
use cordis_engine::net::client::ClientState;
use cordis_engine::shard::evict::{EvictParams, Policy};
use cordis_engine::slots::hash::slot_of;
use cordis_engine::store::entry::Value;
use cordis_engine::store::table::Position;
use cordis_engine::types::hash::Hash;
use cordis_engine::types::list::List;
use cordis_engine::types::set::Set;
use cordis_engine::types::zset::Zset;
use cordis_engine::types::{Collection, Object, Packed};
use cordis_engine::units::{DbIndex, Ms, SlotId};

/// Calls of one run.
const CALL_COUNT: usize = 1500;

/// Everything that a server holds: type, value as text and deadline by database and key.
type Contents = BTreeMap<(u8, Vec<u8>), (&'static str, String, Option<Ms>)>;

/// What the data is, whatever shard it is on.
fn contents(bare: &Bare) -> Contents {
    let mut all = Contents::new();
    for shard in bare.held.iter().flatten() {
        for (db, dbase) in shard.keys.dbs() {
            for slot in SlotId::all() {
                let _ = dbase.table(slot).scan(Position::default(), usize::MAX, |entry| {
                    assert_eq!(slot_of(entry.key()), slot, "a key in the table of another slot");
                    let text = escaped(&value_of(entry.value()));
                    let value = (entry.value().type_name(), text, entry.expires_at());
                    let old = all.insert((db.0, entry.key().to_vec()), value);
                    assert!(old.is_none(), "a key on two shards: {}", escaped(entry.key()));
                });
            }
        }
    }
    all
}

/// The bytes of a string; the elements of a collection, whatever form it has, each with its length.
/// Those without an order are sorted. (A digest would do, but not say what is wrong.)
fn value_of(value: Value<'_>) -> Vec<u8> {
    match value {
        Value::Packed(Packed::List, bytes) => of_list(&packed::<List>(Packed::List, bytes)),
        Value::Packed(Packed::Hash, bytes) => of_hash(&packed::<Hash>(Packed::Hash, bytes)),
        Value::Packed(Packed::Zset, bytes) => of_zset(&packed::<Zset>(Packed::Zset, bytes)),
        Value::Packed(form @ (Packed::Set | Packed::SetInts), bytes) => {
            of_set(&packed::<Set>(form, bytes))
        }
        Value::Object(Object::List(list)) => of_list(list),
        Value::Object(Object::Hash(hash)) => of_hash(hash),
        Value::Object(Object::Set(set)) => of_set(set),
        Value::Object(Object::Zset(zset)) => of_zset(zset),
        string => string.bytes().to_vec(),
    }
}

fn packed<T: Collection>(form: Packed, bytes: &[u8]) -> T {
    T::from_packed(form, bytes.to_vec()).expect("the form is one of the type")
}

fn listed(elements: Vec<Vec<u8>>) -> Vec<u8> {
    let mut text = Vec::new();
    for element in elements {
        text.extend_from_slice(format!(" {}:", element.len()).as_bytes());
        text.extend_from_slice(&element);
    }
    text
}

fn of_list(list: &List) -> Vec<u8> {
    let mut elements = Vec::new();
    list.view().for_each(0, list.len(), |element| elements.push(element.to_vec()));
    listed(elements)
}

fn of_hash(hash: &Hash) -> Vec<u8> {
    let mut fields = Vec::new();
    hash.view().each(|field, value| {
        fields.push([field.to_vec(), value.to_vec()].join(&b'='));
    });
    fields.sort_unstable();
    listed(fields)
}

fn of_set(set: &Set) -> Vec<u8> {
    let mut members = Vec::new();
    set.view().each(|member| members.push(member.to_vec()));
    members.sort_unstable();
    listed(members)
}

fn of_zset(zset: &Zset) -> Vec<u8> {
    let scored = zset.view().range(0, zset.len()).map(|(member, score)| {
        let mut text = score.to_string().into_bytes();
        text.push(b'=');
        text.extend_from_slice(&member.text());
        text
    });
    listed(scored.collect())
}

/// A run in progress.
struct Run {
    seed: u64,
    bare: Bare,
    clients: Vec<ClientState>,
    calls: Calls,
    log: Vec<String>,
}

impl Run {
    fn new(seed: u64, shard_count: usize) -> Self {
        let mut bare = Bare::new(shard_count, seed);
        for shard in bare.held.iter_mut().flatten() {
            shard.journal.attach();
        }
        let clients = (0..2).map(|_| bare.client()).collect();
        Self { seed, bare, clients, calls: Calls::new(seed), log: Vec::new() }
    }

    /// The last calls, as text.
    fn tail(&self) -> String {
        self.log[self.log.len().saturating_sub(30)..].join("\n")
    }

    /// One call, and now and then what time and memory do to keys.
    fn step(&mut self) {
        let who = self.calls.rng().below(2);
        let words = match self.calls.rng().below(24) {
            0 | 1 => self.near_deadline(),
            2 => self.random_pop(),
            _ => self.calls.next(),
        };
        self.log.push(format!("{who}> {}", line_of(&words)));
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        self.bare.call(&mut self.clients[who], &words);
        match self.calls.rng().below(60) {
            0..6 => self.bare.now.0 += self.calls.rng().below(3000) as i64,
            6 => self.bare.now.0 += 200_000_000,
            7 => self.bare.expire_all(),
            8 => self.evict(),
            _ => {}
        }
    }

    /// A call whose effect is up to chance.
    fn random_pop(&mut self) -> Vec<Vec<u8>> {
        let count = *self.calls.rng().pick(&["", " 1", " 3", " 40", " 500"]);
        let words = format!("SPOP{count}");
        let mut words: Vec<Vec<u8>> = words.split(' ').map(|word| word.into()).collect();
        words.insert(1, self.calls.key());
        words
    }

    /// A call that sets a deadline which this run will see.
    fn near_deadline(&mut self) -> Vec<Vec<u8>> {
        let seconds = 1 + self.calls.rng().below(4);
        let key = ["a", "b", "{t}1", "{t}2"][self.calls.rng().below(4)];
        let line = match self.calls.rng().below(5) {
            0 => format!("SET {key} gone PXAT 1000"),
            1 => format!("SET {key} brief EX {seconds}"),
            2 => format!("EXPIRE {key} {seconds}"),
            3 => format!("GETEX {key} PX {seconds}000"),
            _ => format!("PSETEX {key} {seconds}500 brief"),
        };
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn evict(&mut self) {
        let policies = &Policy::ALL[1..];
        let policy = *self.calls.rng().pick(policies);
        let params = EvictParams { policy, sample_count: 5, lfu_decay_minutes: 1 };
        self.log.push(format!("evict {}", policy.name()));
        for shard in self.bare.held.iter_mut().flatten() {
            shard.evict_one(&mut self.bare.clock, params, self.bare.now);
        }
    }

    /// Records of all shards in the order of their logical time, with the shard of each.
    fn take_records(&mut self) -> Vec<(usize, Record)> {
        let mut all = Vec::new();
        for (index, shard) in self.bare.held.iter_mut().enumerate() {
            let records = shard.as_mut().expect("a bare server holds all doors").journal.take();
            assert!(
                records.windows(2).all(|pair| pair[0].clock < pair[1].clock),
                "the journal of a shard is in the order of its clock"
            );
            all.extend(records.into_iter().map(|record| (index, record)));
        }
        all.sort_by_key(|(_, record)| (record.unit, record.clock));
        all
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={:#x} after {} calls:\n{}", self.seed, self.log.len(), self.tail());
        }
    }
}

/// An effect touches one key, the one whose slot it names; or a whole database.
fn check_effect(record: &Record) {
    let args = record.call.args();
    let text = text_of(&record.call);
    let command = dispatch::resolve(&args)
        .unwrap_or_else(|error| panic!("an effect that is no call: {text}: {}", error.text()));
    // PFCOUNT is no write, and stores what it has counted all the same.
    let may_write = command.spec.is_write() || command.spec.name == "pfcount";
    assert!(may_write, "an effect that writes nothing: {text}");
    assert!(
        record.slot.is_none() || dispatch::is_effect_on_one_key(command, &args),
        "an effect that the target of a move refuses: {text}"
    );
    let mut keys = Vec::new();
    find_keys(command.spec, &args, &mut keys);
    // A list that is rotated is named twice.
    keys.dedup_by_key(|key| args.at(key.index));
    let slots: Vec<SlotId> = keys.iter().map(|key| slot_of(args.at(key.index))).collect();
    match record.slot {
        Some(slot) => {
            assert_eq!(slots, [slot], "an effect is on one key, in the slot it names: {text}")
        }
        None => assert!(slots.is_empty(), "an effect on a database that names a key: {text}"),
    }
    let name = command.spec.name;
    let is_relative = matches!(name, "expire" | "pexpire" | "setex" | "psetex")
        || name == "set"
            && (3..args.len())
                .any(|i| [&b"ex"[..], b"px"].contains(&&*args.at(i).to_ascii_lowercase()));
    assert!(!is_relative, "an effect that depends on the time of its replay: {text}");
}

fn text_of(call: &OwnedArgs) -> String {
    let words: Vec<Vec<u8>> = call.args().iter_from(0).map(<[u8]>::to_vec).collect();
    line_of(&words)
}

/// Replays records into an empty server. Its time stands still at the start of the run: only the
/// journal may say that a key has expired.
fn replay(records: &[(usize, Record)], shard_count: usize) -> Contents {
    let mut bare = Bare::new(shard_count, 99);
    bare.now = Ms(1_600_000_000_000);
    let mut client = bare.client();
    for (shard, record) in records {
        // What concerns a whole database is in the journal of every shard, for its own part.
        if record.slot.is_none() && *shard != 0 {
            continue;
        }
        client.db = record.db;
        let further = record.state.iter().flat_map(|state| state.calls());
        for call in std::iter::once(record.call.clone()).chain(further) {
            let words: Vec<&[u8]> = call.args().iter_from(0).collect();
            let reply = bare.call(&mut client, &words);
            assert!(
                !reply.starts_with(b"-"),
                "replay of {} ended in {}",
                text_of(&call),
                escaped(&reply)
            );
        }
    }
    contents(&bare)
}

/// The first difference, as text.
fn difference(want: &Contents, got: &Contents) -> Option<String> {
    let keys = want.keys().chain(got.keys());
    let wrong = keys.into_iter().find(|key| want.get(*key) != got.get(*key))?;
    let show = |side: &Contents| match side.get(wrong) {
        None => "nothing".to_owned(),
        Some((kind, digest, deadline)) => format!("{kind} {digest} until {deadline:?}"),
    };
    let (db, key) = wrong;
    Some(format!("db {db} \"{}\": run {}, replay {}", escaped(key), show(want), show(got)))
}

/// Replays what `lines` leave behind, in a server that holds large values under `l`, `h`, `s`, `z`.
#[test]
fn effects_on_large_values_are_bounded_and_build_the_same_data() {
    let lines = [
        "SPOP s 7000",
        "SUNIONSTORE s2 s other",
        "ZUNIONSTORE z2 1 z",
        "COPY h h2",
        "PEXPIREAT h2 1700000900000",
        "RENAME h2 h3",
        "SORT l BY nosort STORE l2",
        "ZRANGESTORE z3 z 0 -1",
        "MOVE l 1",
    ];
    let mut bare = Bare::new(2, 1);
    let mut client = bare.client();
    bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
    for n in 0..100 {
        for (head, of) in [
            ("RPUSH l", "element:{}"),
            ("HSET h", "field:{} value:{}"),
            ("SADD s", "member:{}"),
            ("ZADD z", "{}.5 member:{}"),
        ] {
            let elements = (n * 100..(n + 1) * 100).map(|n| of.replace("{}", &n.to_string()));
            let line = format!("{head} {}", elements.collect::<Vec<_>>().join(" "));
            bare.call(&mut client, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        }
    }
    for line in lines {
        let reply = bare.call(&mut client, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        assert!(!reply.starts_with(b"-"), "{line}: {}", escaped(&reply));
    }
    let mut records: Vec<(usize, Record)> = Vec::new();
    for (index, shard) in bare.held.iter_mut().enumerate() {
        let taken = shard.as_mut().expect("all doors are held").journal.take();
        records.extend(taken.into_iter().map(|record| (index, record)));
    }
    records.sort_by_key(|(_, record)| (record.unit, record.clock));
    assert!(records.iter().filter(|(_, record)| record.state.is_some()).count() >= 7);
    for (_, record) in &records {
        check_effect(record);
        let further = record.state.iter().flat_map(|state| state.calls());
        for call in std::iter::once(record.call.clone()).chain(further) {
            let byte_count = call.args().iter_from(0).map(<[u8]>::len).sum::<usize>();
            assert!(byte_count <= 128 * 1024, "{}: {byte_count} bytes", text_of(&call).len());
        }
    }
    if let Some(difference) = difference(&contents(&bare), &replay(&records, 3)) {
        panic!("{} bytes of difference: {difference:.200}", difference.len());
    }
}

/// One run; `Err` tells what is wrong.
fn round(seed: u64, call_count: usize) -> Result<(), String> {
    let mut run = Run::new(seed, 2);
    let mut records = Vec::new();
    for _ in 0..call_count {
        run.step();
        records.extend(run.take_records());
    }
    run.bare.expire_all();
    records.extend(run.take_records());
    records.sort_by_key(|(_, record)| (record.unit, record.clock));
    records.iter().for_each(|(_, record)| check_effect(record));
    let want = contents(&run.bare);
    for shard_count in [1, 3] {
        if let Some(what) = difference(&want, &replay(&records, shard_count)) {
            return Err(format!("{what}\nlast calls:\n{}", run.tail()));
        }
    }
    Ok(())
}

#[test]
fn journal_of_random_runs_replayed_builds_the_same_data() {
    let rounds = std::env::var("ROUNDS").map_or(150, |n| n.parse().expect("ROUNDS is a number"));
    let first = seed_or(0x5eed);
    for seed in (first..).take(rounds) {
        let Err(what) = round(seed, CALL_COUNT) else {
            continue;
        };
        // The shortest prefix that fails says most.
        let (mut good, mut bad) = (0, CALL_COUNT);
        while bad - good > 1 {
            let middle = good.midpoint(bad);
            if round(seed, middle).is_err() { bad = middle } else { good = middle }
        }
        let shortest = round(seed, bad).err().unwrap_or_default();
        panic!("SEED={seed:#x}: {what}\nafter {bad} calls: {shortest}");
    }
}

#[test]
fn journal_of_a_transaction_is_one_unit() {
    let mut run = Run::new(1, 2);
    for line in ["MULTI", "SET a 1", "SET b 2", "INCR c", "EXEC", "SET d 4"] {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        run.bare.call(&mut run.clients[0], &words);
    }
    let records = run.take_records();
    let units: Vec<u64> = records.iter().map(|(_, record)| record.unit).collect();
    assert_eq!(units.len(), 4, "one effect for each write");
    assert!(units[..3].iter().all(|unit| *unit == units[0]), "{units:?}");
    assert!(units[3] > units[0], "{units:?}");
    assert!(records.iter().all(|(_, record)| record.db == DbIndex(0)));
}
