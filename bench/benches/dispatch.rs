//! From the words of a call to its reply, without a socket: all of it, the handler with its context
//! alone, and batches as a turn runs them. Buffers are reused, so nothing is allocated.

mod common;

use std::hint::black_box;

use cordis_engine::commands::args::OwnedArgs;
use cordis_engine::commands::bare::Bare;
use cordis_engine::commands::ctx::{KeyHint, Shards};
use cordis_engine::commands::dispatch::{self, Plan};
use cordis_engine::commands::table::Command;
use cordis_engine::net::client::ClientState;
use cordis_engine::resp::reply::{OutBuf, Protocol, Reply};
use cordis_engine::runtime::clock::Clock;
use cordis_engine::shard::batch::{MailBatch, Origin, Request, Runner, Target};
use cordis_engine::units::{CoreId, ShardId};
use criterion::{Criterion, Throughput};

use crate::common::{DB, Key, VALUE, key};

/// Keys that calls go round: few enough for the cache.
const KEYS: usize = 1024;

/// Requests of a batch.
const BATCH: usize = 16;

/// Memory that a reused buffer may keep.
const KEPT_BYTES: usize = 64 * 1024;

fn main() {
    common::run(&[whole, handler, batch]);
}

/// A kind of call, and how its reply begins.
struct Kind {
    name: &'static str,
    call: fn(&Key) -> OwnedArgs,
    /// The first key's number: from [`KEYS`] on there is nothing stored.
    first: usize,
    reply: &'static [u8],
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "get_hit",
        call: |key| OwnedArgs::of(&[b"GET", key]),
        first: 0,
        reply: b"$64\r\n",
    },
    Kind {
        name: "get_miss",
        call: |key| OwnedArgs::of(&[b"GET", key]),
        first: KEYS,
        reply: b"$-1\r\n",
    },
    Kind {
        name: "set_existing",
        call: |key| OwnedArgs::of(&[b"SET", key, VALUE]),
        first: 0,
        reply: b"+OK\r\n",
    },
    Kind { name: "incr", call: |key| OwnedArgs::of(&[b"INCR", key]), first: 2 * KEYS, reply: b":" },
];

/// A server with its keys, one client, and the calls of one kind.
struct Setting {
    bare: Bare,
    client: ClientState,
    calls: Vec<OwnedArgs>,
    out: OutBuf,
}

impl Setting {
    fn new(kind: &Kind) -> Self {
        let bare = Bare::new(1, 1);
        let client = bare.client();
        let calls = (0..KEYS).map(|n| (kind.call)(&key(kind.first + n))).collect();
        let mut this = Self { bare, client, calls, out: OutBuf::default() };
        for n in 0..KEYS {
            let reply = this.bare.call(&mut this.client, &[b"SET", &key(n), VALUE]);
            assert_eq!(reply, b"+OK\r\n");
        }
        // Each call once: what a first call makes is there, and the replies are those expected.
        for call in &this.calls {
            this.out.clear(KEPT_BYTES);
            this.bare.call_into(&mut this.client, call, &mut this.out);
            assert!(this.out.bytes().starts_with(kind.reply), "{}", kind.name);
        }
        this
    }

    /// What planning finds out about every call.
    fn planned(&self) -> Vec<(&'static Command, Option<KeyHint>)> {
        let (own, mut found) = (ShardId(0), Vec::new());
        let plan = |call: &OwnedArgs| {
            let args = call.args();
            let command = dispatch::resolve(&args).expect("the call is well formed");
            let node = self.bare.node;
            match dispatch::plan(command, &args, &self.client, node, own, &mut found) {
                Plan::One(_, hint) => (command, hint),
                other => panic!("a call on one key is not planned as {other:?}"),
            }
        };
        self.calls.iter().map(plan).collect()
    }
}

/// Lookup, gates, plan, handler, reply.
fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch/whole");
    for kind in KINDS {
        let mut setting = Setting::new(&kind);
        let mut n = 0;
        group.bench_function(kind.name, |bencher| {
            let Setting { bare, client, calls, out } = &mut setting;
            bencher.iter(|| {
                out.clear(KEPT_BYTES);
                bare.call_into(client, black_box(&calls[n]), out);
                n = (n + 1) % KEYS;
                black_box(out.bytes().len())
            });
        });
    }
    group.finish();
}

/// Context, handler, reply.
fn handler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch/handler");
    for kind in KINDS {
        let mut setting = Setting::new(&kind);
        let planned = setting.planned();
        let mut n = 0;
        group.bench_function(kind.name, |bencher| {
            let Setting { bare, calls, out, .. } = &mut setting;
            let shard = bare.held[0].as_deref_mut().expect("a bare server holds all doors");
            bencher.iter(|| {
                out.clear(KEPT_BYTES);
                let ((command, hint), args) = (planned[n], calls[n].args());
                n = (n + 1) % KEYS;
                let (clock, shards) = (&mut bare.clock, Shards::One(&mut *shard));
                let now = bare.now;
                let mut ctx = dispatch::ctx(bare.node, CoreId(0), shards, clock, now, DB, command);
                ctx.hint = hint;
                let mut reply = Reply::new(out, Protocol::Resp2);
                dispatch::run_data(command, &mut ctx, black_box(&args), &mut reply)
            });
        });
    }
    group.finish();
}

/// Prefetch, contexts, handlers, replies, and statistics with one reading of the clock per call.
fn batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch/batch_of_16");
    group.throughput(Throughput::Elements(BATCH as u64));
    let clock = Clock::new();
    for kind in KINDS {
        let mut setting = Setting::new(&kind);
        let mut batches = batches(&setting);
        let batch_count = batches.len();
        let mut n = 0;
        group.bench_function(kind.name, |bencher| {
            let bare = &mut setting.bare;
            let shard = bare.held[0].as_deref_mut().expect("a bare server holds all doors");
            // Nobody is blocked, so it stays empty.
            let mut woken = Vec::new();
            bencher.iter(|| {
                let batch = &mut batches[n];
                n = (n + 1) % batch_count;
                batch.ends.clear();
                batch.replies.clear(KEPT_BYTES);
                let mut runner = Runner {
                    node: bare.node,
                    core: CoreId(0),
                    clock: &clock,
                    logical: &mut bare.clock,
                    now: bare.now,
                    left: None,
                    woken: &mut woken,
                };
                batch.run(&mut runner, shard);
                black_box(batch.replies.bytes().len())
            });
        });
    }
    group.finish();
}

/// The calls of a setting, as one core mails them to another.
fn batches(setting: &Setting) -> Vec<MailBatch> {
    let planned = setting.planned();
    let origin = Origin { session: 0, generation: 0, target: Target::Direct, ns: 0 };
    let mut batches = Vec::new();
    for (calls, planned) in setting.calls.chunks(BATCH).zip(planned.chunks(BATCH)) {
        let mut batch = MailBatch::default();
        for (call, &(command, hint)) in calls.iter().zip(planned) {
            let protocol = Protocol::Resp2;
            // As in a process whose slots never moved.
            let version = 0;
            let request = Request {
                command,
                hint,
                version,
                db: DB,
                protocol,
                words: (0, 0),
                chunk: 0,
                import_at: None,
            };
            batch.push(&request, &call.args(), origin);
        }
        batches.push(batch);
    }
    batches
}
