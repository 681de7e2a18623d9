//! Queues: what some clients push others pop, by calls that wait and calls that do not, from several
//! keys on two cores. Each element goes to one client, and those that one client pushed to a queue
//! leave it in that order.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::actor::{Actor, Part, Run, key_on, locked, two};
use crate::checks::{Check, done, exactly, number, words};
use crate::common::shared::reply::{bulk, elements};

/// Queues that are filled and emptied.
const QUEUE_COUNT: usize = 4;
/// Elements that may wait before producers pause.
const WAITING_MAX: usize = 400;

fn queues() -> Vec<String> {
    (0..QUEUE_COUNT).map(|i| key_on(i, &format!("queue:{i}"))).collect()
}

/// What has been pushed, by producer, and all that was popped.
#[derive(Default)]
struct Flow {
    pushed: [AtomicUsize; 8],
    popped: Mutex<Vec<String>>,
    waiting: AtomicUsize,
}

/// Pushes numbered elements.
fn producer_part(run: &Run, id: usize, flow: &Flow) {
    let mut actor = Actor::new(run, id);
    let (all, stage) = (queues(), two(&format!("stage:{id}")));
    let mut count = 0;
    while !run.is_over() {
        if flow.waiting.load(Ordering::Relaxed) > WAITING_MAX {
            std::thread::park_timeout(std::time::Duration::from_millis(1));
            continue;
        }
        let before = count;
        let mut next = || {
            count += 1;
            format!("{id}:{}", count - 1)
        };
        for _ in 0..=actor.rng.below(6) {
            let queue = actor.rng.pick(&all).clone();
            let (other, stage) = (actor.rng.pick(&all).clone(), &stage[actor.rng.below(2)]);
            match actor.rng.below(5) {
                0 => actor.say(&format!("RPUSH {queue} {}", next()), done()),
                1 => actor.say(&format!("RPUSH {queue} {} {} {}", next(), next(), next()), done()),
                2 => {
                    let lines =
                        [format!("RPUSH {queue} {}", next()), format!("RPUSH {other} {}", next())];
                    actor.say_all(&lines, done());
                }
                3 => {
                    let word = next();
                    actor.say(&format!("RPUSH {stage} {word}"), number(1));
                    let moved = exactly(&format!("${}\r\n{word}\r\n", word.len()));
                    actor.say(&format!("LMOVE {stage} {queue} RIGHT RIGHT"), moved);
                }
                _ => {
                    // Both keys at once: the element is never elsewhere.
                    let lines = [
                        format!("RPUSH {stage} {}", next()),
                        format!("BLMOVE {stage} {queue} LEFT RIGHT 1"),
                    ];
                    actor.say_all(&lines, done());
                }
            }
        }
        flow.waiting.fetch_add(count - before, Ordering::Relaxed);
        flow.pushed[id].store(count, Ordering::Relaxed);
        actor.play();
    }
}

/// The queue and the elements that a reply to a pop names; none if there were none.
fn popped(reply: &[u8], queue: Option<&str>) -> Option<(String, Vec<String>)> {
    if let Some(queue) = queue {
        let one = bulk(reply).map(|word| vec![String::from_utf8_lossy(word).into_owned()]);
        return Some((queue.to_owned(), one.or_else(|| words(reply))?));
    }
    let parts = elements(reply).filter(|parts| parts.len() == 2)?;
    let name = String::from_utf8_lossy(bulk(parts[0])?).into_owned();
    let one = bulk(parts[1]).map(|word| vec![String::from_utf8_lossy(word).into_owned()]);
    Some((name, one.or_else(|| words(parts[1]))?))
}

/// Pops in any way, and looks whether the order is that of the producers.
fn consumer_part(run: &Run, id: usize, flow: &Flow) {
    let mut actor = Actor::new(run, id);
    let (all, own) = (queues(), two(&format!("taken:{id}")));
    let keys = all.join(" ");
    let mut last: HashMap<(String, String), usize> = HashMap::new();
    while !run.is_over() {
        let queue = actor.rng.pick(&all).clone();
        let own = &own[actor.rng.below(2)];
        let anything = || -> Check { done() };
        let (reply, queue) = match actor.rng.below(7) {
            0 | 1 => (actor.ask(&format!("BLPOP {keys} 0.05"), anything()), None),
            2 => (
                actor.ask(&format!("BLMPOP 0.03 {QUEUE_COUNT} {keys} LEFT COUNT 3"), anything()),
                None,
            ),
            3 => (actor.ask(&format!("LMPOP {QUEUE_COUNT} {keys} LEFT COUNT 4"), anything()), None),
            4 => (actor.ask(&format!("LPOP {queue} 2"), anything()), Some(queue)),
            5 => (actor.ask(&format!("LPOP {queue}"), anything()), Some(queue)),
            _ => {
                // Waits for one element, which may come from a client of the other core.
                let moved = actor.ask(&format!("BLMOVE {queue} {own} LEFT RIGHT 0.02"), anything());
                let taken = actor.ask(&format!("LPOP {own}"), anything());
                if bulk(&moved).is_some() && moved != taken {
                    actor.fail("what was moved is not there");
                }
                (taken, Some(queue))
            }
        };
        let Some((queue, found)) = popped(&reply, queue.as_deref()) else { continue };
        flow.waiting.fetch_sub(found.len(), Ordering::Relaxed);
        for word in &found {
            let Some((producer, n)) = word.split_once(':') else { actor.fail("what is that?") };
            let n: usize = n.parse().expect("elements are numbered");
            let before = last.insert((queue.clone(), producer.to_owned()), n);
            if before.is_some_and(|before| before >= n) {
                actor.fail(&format!("{queue}: {word} comes behind {before:?}"));
            }
        }
        locked(&flow.popped).extend(found);
    }
}

pub(crate) fn run_queues(run: Run, slots_move: bool) {
    let flow = Flow::default();
    let flow_ref = &flow;
    let keys = [queues(), (0..3).flat_map(|id| two(&format!("stage:{id}"))).collect()].concat();
    let keys = &keys;
    let mut parts: Vec<Part<'_>> = Vec::new();
    for id in 0..3 {
        parts.push(Box::new(move |run| producer_part(run, id, flow_ref)));
        parts.push(Box::new(move |run| consumer_part(run, id + 10, flow_ref)));
    }
    for id in 20..23 {
        parts.push(Box::new(move |run| consumer_part(run, id, flow_ref)));
    }
    if slots_move {
        parts.push(Box::new(move |run| run.mover_part(30, keys)));
    }
    run.act(parts);
    // What is left, and what was popped: all that was pushed, once.
    let mut whole = Actor::new(&run, 99);
    let mut found = std::mem::take(&mut *locked(&flow.popped));
    for queue in queues() {
        let left = whole.ask(&format!("LRANGE {queue} 0 -1"), done());
        found.extend(words(&left).expect("LRANGE answers with an array"));
    }
    found.sort_unstable();
    let numbered =
        |id: usize| (0..flow.pushed[id].load(Ordering::Relaxed)).map(move |n| format!("{id}:{n}"));
    let mut pushed: Vec<String> = (0..3).flat_map(numbered).collect();
    pushed.sort_unstable();
    let lost: Vec<_> = pushed.iter().filter(|word| found.binary_search(word).is_err()).collect();
    assert!(lost.is_empty(), "SEED={:#x}: never popped: {lost:?}", run.seed);
    assert_eq!(found.len(), pushed.len(), "SEED={:#x}: popped twice", run.seed);
    assert!(found.len() > 200, "only {} elements went through", found.len());
    drop(whole);
    run.finish();
}
