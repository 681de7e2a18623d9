//! `--slot-balance yes`: hot slots of a busy core move to an idle one, and nothing is lost.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::time::Duration;

use common::process::Process;
use common::shared::words::encoded;
use common::{alone, eventually};

/// Hot keys, all on the first of two cores when the server starts.
const KEY_COUNT: usize = 4;
/// Increments of each key per burst.
const BURST_COUNT: usize = 50;

#[test]
fn hot_slots_of_one_core_are_shared_with_an_idle_one() {
    let _alone = alone();
    let ours = Process::cordis(2, &["--slot-balance", "yes"]);
    let mut client = ours.client();
    let (keys, share) = keys_of_first_core(&mut client);
    let burst: Vec<u8> = (0..BURST_COUNT)
        .flat_map(|_| keys.iter().flat_map(|key| encoded(&["INCR", key])))
        .collect();
    let mut bursts = 0;
    eventually(Duration::from_secs(20), "a hot slot moves to the other core", || {
        client.send(&burst).expect("the server reads");
        for _ in 0..BURST_COUNT * keys.len() {
            client.read_reply().expect("every call is answered");
        }
        bursts += 1;
        (slots_of_first_core(&mut client) < share).then_some(())
    });
    for key in &keys {
        let want = (bursts * BURST_COUNT).to_string();
        let got = client.text(&format!("GET {key}"));
        assert_eq!(got.lines().nth(1), Some(&*want), "{key} after {bursts} bursts");
    }
}

/// Keys in different slots of the first core, and the number of slots that it has.
fn keys_of_first_core(client: &mut common::client::Client) -> (Vec<String>, u64) {
    let slot = |client: &mut common::client::Client, key: &str| -> u64 {
        let reply = client.text(&format!("SLOTSHASHKEY {key}"));
        let slot = reply.lines().nth(1).and_then(|line| line.strip_prefix(':'));
        slot.and_then(|n| n.parse().ok()).expect("SLOTSHASHKEY answers slots")
    };
    let share = slots_of_first_core(client);
    let keys = (0..).map(|n| format!("{{b{n}}}")).filter(|key| slot(client, key) < share);
    (keys.take(KEY_COUNT).collect(), share)
}

fn slots_of_first_core(client: &mut common::client::Client) -> u64 {
    let info = client.text("INFO cores");
    let count = info.split("core0:slots=").nth(1).and_then(|rest| rest.split(',').next());
    count.and_then(|n| n.parse().ok()).expect("INFO shows the slots of each core")
}
