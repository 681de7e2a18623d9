//! Collections under races: what several clients do to the same lists, sets, sorted sets and hashes
//! on two cores, with calls over several keys, transactions, long calls and blocking ones, while
//! slots move. Whatever they do, some things hold at every moment, and are looked at all the time:
//! what is moved is in one place, what is stored is what its sources held at one moment, what is
//! written together is seen together, and a session sees its own calls in order.
//!
//! Every client draws its calls from a seed; a failure prints it. `SEED` replays the calls of a run
//! (how the clients interleave is the machine's own), `ROUND_SECONDS` makes each test longer.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod actor;
mod big;
mod checks;
#[path = "../common/mod.rs"]
mod common;
mod queues;
mod tokens;

use actor::Run;
use big::run_big;
use common::alone;
use queues::run_queues;
use tokens::run_tokens;

#[test]
fn tokens_that_move_between_collections_are_in_one_place() {
    let _alone = alone();
    run_tokens(Run::new(0x4558_0001), false);
}

#[test]
fn tokens_are_in_one_place_while_slots_move() {
    let _alone = alone();
    run_tokens(Run::new(0x4558_0002), true);
}

#[test]
fn elements_of_queues_go_to_one_client_in_order() {
    let _alone = alone();
    run_queues(Run::new(0x4558_0003), false);
}

#[test]
fn elements_of_queues_go_to_one_client_while_slots_move() {
    let _alone = alone();
    run_queues(Run::new(0x4558_0004), true);
}

#[test]
fn long_calls_see_one_moment_of_what_others_write() {
    let _alone = alone();
    run_big(Run::new(0x4558_0005), false);
}

#[test]
fn long_calls_see_one_moment_while_slots_move() {
    let _alone = alone();
    run_big(Run::new(0x4558_0006), true);
}
