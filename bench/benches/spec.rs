//! Finding a command by its name, and planning where its call runs.

mod common;

use std::hint::black_box;

use cordis_engine::commands::args::OwnedArgs;
use cordis_engine::commands::bare::Bare;
use cordis_engine::commands::dispatch;
use cordis_engine::commands::table::table;
use cordis_engine::units::ShardId;
use criterion::{Criterion, Throughput};

use crate::common::key;

fn main() {
    common::run(&[lookup, resolve, plan]);
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    let names: [(&str, &[u8]); 6] = [
        ("hit_upper_case", b"GET"),
        ("hit_lower_case", b"get"),
        ("hit_mixed_case", b"gEt"),
        ("hit_long_name", b"INCRBYFLOAT"),
        ("miss", b"GTE"),
        ("miss_long_name", b"no-such-command-anywhere"),
    ];
    for (name, word) in names {
        assert_eq!(table().get(word).is_some(), name.starts_with("hit"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(table().get(black_box(word))));
        });
    }
    let all: Vec<String> =
        table().all().iter().map(|command| command.spec.name.to_uppercase()).collect();
    group.throughput(Throughput::Elements(all.len() as u64));
    group.bench_function("every_command", |bencher| {
        bencher.iter(|| all.iter().filter_map(|name| table().get(name.as_bytes())).count());
    });
    group.finish();
}

/// Lookup and arity, and the subcommand where there is one.
fn resolve(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resolve");
    let key = key(7);
    let calls: [(&str, &[&[u8]]); 2] =
        [("get", &[b"GET", &key]), ("config_get", &[b"CONFIG", b"GET", b"maxmemory"])];
    for (name, words) in calls {
        let call = OwnedArgs::of(words);
        assert!(dispatch::resolve(&call.args()).is_ok());
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(dispatch::resolve(black_box(&call.args())).is_ok()));
        });
    }
    group.finish();
}

/// Slot, hash and shard of a call's keys.
fn plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    let bare = Bare::new(2, 1);
    let client = bare.client();
    let keys: Vec<_> = (0..16).map(key).collect();
    let mut mget: Vec<&[u8]> = vec![b"MGET"];
    mget.extend(keys.iter().map(|key| &key[..]));
    let calls: [(&str, &[&[u8]]); 4] = [
        ("get", &[b"GET", &keys[0]]),
        ("mget_16_keys", &mget),
        ("ping", &[b"PING"]),
        ("randomkey", &[b"RANDOMKEY"]),
    ];
    for (name, words) in calls {
        let call = OwnedArgs::of(words);
        let command = dispatch::resolve(&call.args()).expect("the call is well formed");
        let mut found = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (args, own) = (call.args(), ShardId(0));
                dispatch::plan(command, black_box(&args), &client, bare.node, own, &mut found)
            });
        });
    }
    group.finish();
}
