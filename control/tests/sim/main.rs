//! The seeded simulator: control, proxies and servers in one thread under virtual time, with loss,
//! delay, reordering, partitions, stops, crashes and torn writes. One seed is one run.
//!
//! A failing seed is printed; `CORDIS_SIM_SEED=n cargo test -p cordis-control --test sim` runs it
//! again, with `CORDIS_SIM_TRACE=1` step by step. `CORDIS_SIM_FROM=n` and
//! `CORDIS_SIM_SEEDS=n` set which are run.

mod client;
mod dice;
mod disk;
mod net;
mod proxy;
mod server;
mod time;
mod world;

use world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs every `step`-th seed from `first`.
fn run(first: u64, step: u64, end: u64) -> Result<(usize, usize), String> {
    let (mut done, mut ran) = (0, 0);
    for seed in (first..end).step_by(step as usize) {
        let mut world = World::new(seed);
        world.run().map_err(|why| format!("CORDIS_SIM_SEED={seed}: {why}"))?;
        let deeds = world.deeds();
        done += deeds.0;
        ran += deeds.1;
    }
    Ok((done, ran))
}

#[test]
fn sim_promises_hold_whatever_happens() {
    if let Some(seed) = number("CORDIS_SIM_SEED") {
        let mut world = World::new(seed);
        return world.run().unwrap_or_else(|why| panic!("CORDIS_SIM_SEED={seed}: {why}"));
    }
    let begin = number("CORDIS_SIM_FROM").unwrap_or(0);
    let seeds = number("CORDIS_SIM_SEEDS").unwrap_or(SEEDS);
    let end = begin + seeds;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let results: Vec<_> = std::thread::scope(|scope| {
        let start = |first| scope.spawn(move || run(first, threads, end));
        let handles: Vec<_> = (begin..begin + threads).map(start).collect();
        handles.into_iter().map(|handle| handle.join().expect("a run ends")).collect()
    });
    let mut done = 0;
    for result in results {
        let (moves, _) = result.unwrap_or_else(|why| panic!("{why}"));
        done += moves;
    }
    // A world in which nothing ever moves would keep every promise.
    assert!(done as u64 >= seeds, "only {done} operations were completed in {seeds} runs");
}

#[test]
fn sim_of_one_seed_is_the_same_each_time() {
    let one = |seed| {
        let mut world = World::new(seed);
        (world.run(), world.deeds())
    };
    for seed in 0..5 {
        assert_eq!(one(seed), one(seed));
    }
}
