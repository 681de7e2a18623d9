//! A gentle load on the cluster of `cordis up --demo`, so that there is something to see: a small
//! shop of sessions, counters, queues, sets and a score board, a few hundred calls a second.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::talk::Talk;

/// Calls per second.
const CALLS_PER_SECOND: u64 = 200;
/// Different names of each kind: large enough to reach every slot.
const NAMES: u64 = 5_000;

/// Runs until it is aborted; a proxy that is away is tried again.
pub(crate) async fn run(port: u16) {
    let mut n = 0_u64;
    loop {
        if let Ok(mut talk) = Talk::open(port).await {
            let mut ticks = interval(Duration::from_millis(1000 / CALLS_PER_SECOND));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                n = n.wrapping_add(1);
                let words = call(n);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                if talk.call(&words).await.is_err() {
                    break;
                }
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// The words of call `n`.
fn call(n: u64) -> Vec<String> {
    // A multiplier that is odd and far from a power of two spreads the names.
    let name = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % NAMES;
    let text = match n % 8 {
        0 => format!("SET session:{name} user-{n} EX 3600"),
        1 => format!("GET session:{name}"),
        2 => format!("INCR visits:{name}"),
        3 => format!("LPUSH queue:{} job-{n}", name % 50),
        4 => format!("RPOP queue:{}", name % 50),
        5 => format!("SADD likes:{name} user-{}", n % 97),
        6 => format!("ZINCRBY scores:{} 1 player-{}", name % 10, n % 211),
        _ => format!("HSET cart:{name} item-{} {}", n % 13, n % 5),
    };
    text.split(' ').map(str::to_owned).collect()
}
