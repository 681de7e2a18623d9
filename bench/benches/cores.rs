//! What cores do to meet: doors, mailboxes, the sleep flag, and reading the clock.

mod common;

use std::hint::{black_box, spin_loop};
use std::thread;
use std::time::Duration;

use cordis_engine::runtime::clock::Clock;
use cordis_engine::runtime::mailbox::{Receiver, Sender, mailbox};
use cordis_engine::runtime::sleep::SleepFlag;
use cordis_engine::shard::door::Guarded;
use cordis_engine::units::CoreId;
use criterion::measurement::{Measurement, WallTime};
use criterion::{Criterion, Throughput};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The core whose shard it is.
const OWNER: CoreId = CoreId(0);
/// A core that borrows it.
const OTHER: CoreId = CoreId(1);

/// Values that a mailbox holds.
const CAPACITY: usize = 64;

fn main() {
    common::run(&[door, mail, hop, sleep, clock]);
}

/// Doors that nobody else wants.
fn door(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("door");
    let shard = Guarded::new(OWNER, 0u64);
    group.bench_function("take_and_release", |bencher| {
        bencher.iter(|| {
            let held = black_box(&shard).take_or_wait(OWNER).expect("the door is parked");
            black_box(held.release())
        });
    });
    group.bench_function("try_take_and_release", |bencher| {
        bencher.iter(|| {
            let mut held = black_box(&shard).try_take(OTHER).expect("the door is parked");
            *held += 1;
            black_box(held.release())
        });
    });
    let held = shard.try_take(OWNER).expect("the door is parked");
    group.bench_function("try_take_of_a_held_door", |bencher| {
        bencher.iter(|| black_box(&shard).try_take(OTHER).is_some());
    });
    assert_eq!(held.release(), None);
    group.finish();
}

/// A mailbox between a core and itself: the price without the transfer of lines.
fn mail(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox/one_thread");
    for count in [1u64, 16] {
        let (mut sender, mut receiver) = mailbox(CAPACITY);
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("send_and_receive_{count}"), |bencher| {
            bencher.iter(|| {
                for n in 0..count {
                    sender.try_send(black_box(n)).expect("the mailbox is empty");
                }
                (0..count).filter_map(|_| receiver.try_recv()).sum::<u64>()
            });
        });
    }
    let (_sender, mut empty) = mailbox::<u64>(CAPACITY);
    group.throughput(Throughput::Elements(1));
    group.bench_function("receive_of_nothing", |bencher| bencher.iter(|| empty.try_recv()));
    group.finish();
}

/// What ends the echo. No hop carries it otherwise.
const STOP: u64 = u64::MAX;

/// Turns of the loop that a receiver waits before it lets another thread run: on a machine with
/// one processor free, the sender may be what it keeps from running.
const SPINS_MAX: u32 = 1 << 14;

fn receive(receiver: &mut Receiver<u64>) -> u64 {
    let mut spin_count = 0;
    loop {
        if let Some(n) = receiver.try_recv() {
            return n;
        }
        spin_count += 1;
        if spin_count % SPINS_MAX == 0 {
            thread::yield_now();
        }
        spin_loop();
    }
}

fn send(sender: &mut Sender<u64>, n: u64) {
    sender.try_send(n).expect("one value is under way at a time");
}

/// Sends back what arrives.
fn echo(mut receiver: Receiver<u64>, mut sender: Sender<u64>) {
    loop {
        let n = receive(&mut receiver);
        if n == STOP {
            return;
        }
        send(&mut sender, n);
    }
}

/// Half of `trips` round trips between this thread and another one.
fn hops(trips: u64, cpus: &[CpuSet]) -> Duration {
    let (mut there, at_there) = mailbox(CAPACITY);
    let (from_there, mut back) = mailbox(CAPACITY);
    let other = thread::spawn({
        let cpu = cpus.get(1).copied();
        move || {
            pin(cpu);
            echo(at_there, from_there);
        }
    });
    let start = WallTime.start();
    for n in 0..trips {
        send(&mut there, n);
        black_box(receive(&mut back));
    }
    let total = WallTime.end(start);
    send(&mut there, STOP);
    other.join().expect("the echo does not panic");
    total / 2
}

/// Keeps this thread on the processors of a set. Without leave to, it runs where it may: the figure is
/// then less steady.
fn pin(cpus: Option<CpuSet>) {
    if let Some(cpus) = cpus {
        let _ = sched_setaffinity(None, &cpus);
    }
}

/// One set for each of the first two processors of `allowed`; none if there is only one.
fn two_cpus(allowed: &CpuSet) -> Vec<CpuSet> {
    let alone = |cpu| {
        let mut set = CpuSet::new();
        set.set(cpu);
        set
    };
    let sets: Vec<CpuSet> =
        (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).take(2).map(alone).collect();
    if sets.len() == 2 { sets } else { Vec::new() }
}

/// One value from one thread to another one that polls, each on a processor of its own.
fn hop(criterion: &mut Criterion) {
    let allowed = sched_getaffinity(None).ok();
    let cpus = allowed.as_ref().map(two_cpus).unwrap_or_default();
    criterion.bench_function("mailbox/hop_between_two_threads", |bencher| {
        bencher.iter_custom(|trips| {
            pin(cpus.first().copied());
            let took = hops(trips, &cpus);
            pin(allowed);
            took
        });
    });
}

fn sleep(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sleep_flag");
    let flag = SleepFlag::default();
    group.bench_function("prepare_and_awake", |bencher| {
        bencher.iter(|| {
            black_box(&flag).prepare();
            black_box(&flag).awake();
        });
    });
    group.bench_function("needs_doorbell_of_an_awake_core", |bencher| {
        bencher.iter(|| black_box(&flag).needs_doorbell());
    });
    group.bench_function("prepare_and_needs_doorbell", |bencher| {
        bencher.iter(|| {
            black_box(&flag).prepare();
            black_box(&flag).needs_doorbell()
        });
    });
    group.finish();
}

fn clock(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("clock");
    let clock = Clock::new();
    group.bench_function("ticks", |bencher| bencher.iter(|| clock.ticks()));
    let from = clock.ticks();
    group.bench_function("ns_between", |bencher| {
        bencher.iter(|| clock.ns_between(black_box(from), black_box(from + 3000)));
    });
    group.bench_function("now", |bencher| bencher.iter(|| clock.now()));
    group.finish();
}
