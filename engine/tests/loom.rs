//! Every interleaving of small cases: doors, mailboxes and sleep flags under loom.
//!
//! The sources are compiled into this test a second time, with loom's atomics and cells for
//! `crate::sync`; so what is explored is the code that runs, in every `cargo test`. Loom plays the
//! threads one step at a time, takes every order of steps and every value that a load may return
//! under its memory ordering, and fails on an access to a cell that another one does not happen
//! before, on a panic, and when nobody can go on: a lost wake or hand-over is a deadlock here.
//!
//! By default each thread may be preempted a few times at most, which is where errors are found and
//! takes seconds. Without that bound, which takes minutes to hours:
//!
//! ```sh
//! LOOM_MAX_PREEMPTIONS=9 cargo test -p cordis-engine --test loom [NAME]
//! ```
//!
//! `LOOM_LOCATION=1` names the lines at which the threads of a failing case stand.
//!
//! No harness, because `#[test]` functions at the foot of the sources cannot run outside a model.

// Parts of the sources that no model needs; they are documented and used where they belong.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub)]

#[macro_use]
#[path = "../src/units.rs"]
mod units;
#[path = "../src/shard/door.rs"]
mod door;
#[path = "../src/runtime/mailbox.rs"]
mod mailbox;
#[path = "../src/slots/owner.rs"]
mod owner;
#[path = "../src/runtime/sleep.rs"]
mod sleep;

/// What the sources find under the name of `engine/src/sync.rs`.
mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};
use std::time::Instant;

use door::{Guarded, Held};
use loom::sync::{Arc, Notify};
use loom::thread;
use mailbox::{Receiver, Sender, mailbox};
use owner::SlotOwners;
use sleep::SleepFlag;
use units::{CoreId, ShardId, SlotId};

/// A case, and how many times each of its threads may be preempted by default.
struct Model {
    name: &'static str,
    preemptions_max: usize,
    run: fn(),
}

const MODELS: &[Model] = &[
    Model {
        name: "door_wanted_by_three_cores_lets_each_in_alone",
        preemptions_max: 2,
        run: door_wanted_by_three_cores,
    },
    Model {
        name: "door_tried_by_two_cores_shows_the_second_what_the_first_wrote",
        preemptions_max: 9,
        run: door_tried_by_two_cores,
    },
    Model {
        name: "doors_taken_in_ascending_order_by_three_cores_never_lock_up",
        preemptions_max: 1,
        run: doors_taken_in_ascending_order,
    },
    Model {
        name: "mailbox_smaller_than_its_traffic_keeps_order",
        preemptions_max: 5,
        run: mailbox_smaller_than_its_traffic,
    },
    Model {
        name: "mailbox_dropped_while_in_use_frees_every_value_once",
        preemptions_max: 9,
        run: mailbox_dropped_while_in_use,
    },
    Model {
        name: "mail_to_a_core_that_goes_to_sleep_is_read_or_rung_for",
        preemptions_max: 3,
        run: mail_to_a_core_that_goes_to_sleep,
    },
    Model {
        name: "requests_borrowed_or_mailed_run_in_the_order_of_their_sender",
        preemptions_max: 3,
        run: requests_borrowed_or_mailed,
    },
    Model {
        name: "mail_and_a_waiting_borrower_both_reach_a_shard_whose_owner_sleeps",
        preemptions_max: 2,
        run: mail_and_a_waiting_borrower,
    },
    Model {
        name: "mail_while_a_borrower_is_in_reaches_an_owner_that_looks_after_parking",
        preemptions_max: 3,
        run: mail_while_a_borrower_is_in,
    },
    Model {
        name: "core_that_stops_waiting_never_keeps_the_door_shut",
        preemptions_max: 3,
        run: core_that_stops_waiting,
    },
    Model {
        name: "requests_pipelined_around_a_slot_that_moves_run_in_order_where_it_is",
        preemptions_max: 2,
        run: requests_around_a_slot_that_moves,
    },
    Model {
        name: "call_over_two_slots_one_of_which_moves_finds_both_and_is_whole",
        preemptions_max: 2,
        run: call_over_two_slots_one_of_which_moves,
    },
    Model {
        name: "replies_of_mailed_requests_are_there_when_their_shard_is_borrowed",
        preemptions_max: 3,
        run: replies_when_their_shard_is_borrowed,
    },
];

#[expect(clippy::print_stdout, reason = "the report of a test without a harness")]
#[expect(clippy::disallowed_methods, reason = "how long a model took is worth knowing")]
fn main() {
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for model in MODELS {
        if !filters.is_empty() && !filters.iter().any(|filter| model.name.contains(filter)) {
            continue;
        }
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(model.preemptions_max));
        let (cases, start) = (std::sync::Arc::new(Count::new(0)), Instant::now());
        let (counter, run) = (std::sync::Arc::clone(&cases), model.run);
        builder.check(move || {
            counter.fetch_add(1, Relaxed);
            run();
        });
        println!(
            "model {} ... ok, {} cases, {:?}",
            model.name,
            cases.load(Relaxed),
            start.elapsed()
        );
    }
}

/// A core's flag, and the ring where it sleeps and where doorbells arrive.
#[derive(Default)]
struct Core {
    flag: SleepFlag,
    ring: Notify,
    sleeps: Count,
    doorbells: Count,
}

impl Core {
    /// Wakes this core after something was put down for it.
    fn notify(&self) {
        if self.flag.needs_doorbell() {
            self.doorbells.fetch_add(1, Relaxed);
            self.ring.notify();
        }
    }

    /// Sleeps, unless `is_due` after the flag is up.
    fn sleep_unless(&self, is_due: impl FnOnce() -> bool) {
        self.sleeps.fetch_add(1, Relaxed);
        self.flag.prepare();
        if !is_due() {
            self.ring.wait();
        }
        self.flag.awake();
    }
}

fn cores(count: usize) -> Arc<Vec<Core>> {
    Arc::new((0..count).map(|_| Core::default()).collect())
}

const fn id(core: usize) -> CoreId {
    CoreId(core as u16)
}

/// Takes a door; sleeps while it waits.
fn take<'d, T>(cores: &[Core], door: &'d Guarded<T>, me: usize) -> Held<'d, T> {
    loop {
        if let Some(held) = door.take_or_wait(id(me)) {
            return held;
        }
        cores[me].sleep_unless(|| door.door.is_granted_to(id(me)));
    }
}

/// Lets go of a door and wakes the heir.
fn release<T>(cores: &[Core], held: Held<'_, T>) {
    if let Some(heir) = held.release() {
        cores[heir.index()].notify();
    }
}

/// Runs `core` on a thread for each of `1..count`, and for 0 on this one.
fn run_cores(count: usize, core: impl Fn(usize) + Clone + Send + 'static) {
    let threads: Vec<_> = (1..count)
        .map(|me| {
            let core = core.clone();
            thread::spawn(move || core(me))
        })
        .collect();
    core(0);
    for thread in threads {
        thread.join().expect("a failing thread fails the model first");
    }
}

/// Mutual exclusion, no lost hand-over, and each holder sees what the last one wrote.
fn door_wanted_by_three_cores() {
    let cores = cores(3);
    let door = Arc::new(Guarded::new(id(0), 0));
    let shared = Arc::clone(&door);
    run_cores(3, move |me| {
        let mut held = take(&cores, &shared, me);
        *held += 1;
        release(&cores, held);
    });
    assert_eq!(*door.try_take(id(0)).expect("nobody is left behind the door"), 3);
}

/// The way in by one swap.
fn door_tried_by_two_cores() {
    let door = Arc::new(Guarded::new(id(0), 0));
    let entries = std::sync::Arc::new(Count::new(0));
    let (shared, counter) = (Arc::clone(&door), std::sync::Arc::clone(&entries));
    run_cores(2, move |me| {
        for _ in 0..2 {
            if let Some(mut held) = shared.try_take(id(me)) {
                *held += 1;
                counter.fetch_add(1, Relaxed);
                assert_eq!(held.release(), None);
            }
        }
    });
    let held = door.try_take(id(1)).expect("nobody is left behind the door");
    assert_eq!(*held, entries.load(Relaxed));
}

/// Cores 0 and 1 are in a turn, with their own door held, when a call over both shards comes;
/// core 2 has such a call as well.
fn doors_taken_in_ascending_order() {
    let cores = cores(3);
    let doors = Arc::new([Guarded::new(id(0), 0), Guarded::new(id(1), 0)]);
    let shared = Arc::clone(&doors);
    run_cores(3, move |me| {
        if me == 1 {
            // Its turn; then it lets go, because its own door is not the lowest of the call.
            release(&cores, take(&cores, &shared[1], me));
        }
        let mut low = take(&cores, &shared[0], me);
        let mut high = take(&cores, &shared[1], me);
        assert_eq!(*low, *high, "half of a call is visible");
        *low += 1;
        *high += 1;
        release(&cores, low);
        release(&cores, high);
    });
    for door in doors.iter() {
        assert_eq!(*door.try_take(id(0)).expect("nobody is left behind the door"), 3);
    }
}

fn send<T>(sender: &mut Sender<T>, mut value: T) {
    while let Err(back) = sender.try_send(value) {
        value = back;
        thread::yield_now();
    }
}

/// Three values through two slots: full, empty, and around once.
fn mailbox_smaller_than_its_traffic() {
    let (mut sender, mut receiver) = mailbox(2);
    let thread = thread::spawn(move || (0..3).for_each(|n| send(&mut sender, Box::new(n))));
    for n in 0..3 {
        let got = loop {
            match receiver.try_recv() {
                Some(got) => break got,
                None => thread::yield_now(),
            }
        };
        assert_eq!(*got, n);
    }
    assert!(receiver.is_empty());
    thread.join().expect("a failing thread fails the model first");
}

fn mailbox_dropped_while_in_use() {
    let token = std::sync::Arc::new(());
    let (mut sender, mut receiver) = mailbox(2);
    let value = std::sync::Arc::clone(&token);
    let thread = thread::spawn(move || {
        (0..3).for_each(|_| drop(sender.try_send(std::sync::Arc::clone(&value))));
    });
    drop(receiver.try_recv());
    drop(receiver);
    thread.join().expect("a failing thread fails the model first");
    assert_eq!(std::sync::Arc::strong_count(&token), 1);
}

/// Two senders, one core that sleeps whenever it has no mail: it gets all of it, and no more
/// doorbells than it slept.
fn mail_to_a_core_that_goes_to_sleep() {
    let cores = cores(1);
    let mut receivers = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..2 {
        let (mut sender, receiver) = mailbox(1);
        let cores = Arc::clone(&cores);
        receivers.push(receiver);
        threads.push(thread::spawn(move || {
            assert!(sender.try_send(()).is_ok(), "there is room");
            cores[0].notify();
        }));
    }
    let mut got = 0;
    while got < 2 {
        got += receivers.iter_mut().filter_map(Receiver::try_recv).count();
        if got < 2 {
            cores[0].sleep_unless(|| receivers.iter().any(|receiver| !receiver.is_empty()));
        }
    }
    for thread in threads {
        thread.join().expect("a failing thread fails the model first");
    }
    assert!(cores[0].doorbells.load(Relaxed) <= cores[0].sleeps.load(Relaxed));
}

/// What is behind the door of core 0: requests that ran, by sender, and mail from cores 1, 2, …
struct Shard {
    ran: Vec<(usize, u32)>,
    inboxes: Vec<Receiver<u32>>,
}

impl Shard {
    fn run(&mut self, sender: usize, request: u32) {
        let last = self.ran.iter().rev().find(|(by, _)| *by == sender).map_or(0, |(_, n)| *n);
        assert_eq!(request, last + 1, "requests of core {sender} are out of order");
        self.ran.push((sender, request));
    }

    /// Runs what `sender` mailed and nobody has read.
    fn run_mail(&mut self, sender: usize) {
        while let Some(request) = self.inboxes[sender - 1].try_recv() {
            self.run(sender, request);
        }
    }
}

/// A shard of core 0, and a sender for each of cores 1, 2, …
fn shard(sender_count: usize) -> (Arc<Guarded<Shard>>, Vec<Sender<u32>>) {
    let (senders, inboxes) = (0..sender_count).map(|_| mailbox(4)).unzip();
    (Arc::new(Guarded::new(id(0), Shard { ran: Vec::new(), inboxes })), senders)
}

/// The turns of core 0 until `count` requests have run.
fn own(cores: &[Core], shard: &Guarded<Shard>, count: usize) {
    loop {
        let mut held = take(cores, shard, 0);
        (1..=held.inboxes.len()).for_each(|sender| held.run_mail(sender));
        if held.ran.len() == count {
            return release(cores, held);
        }
        cores[0].flag.prepare();
        let is_due = held.inboxes.iter().any(|inbox| !inbox.is_empty());
        release(cores, held);
        if !is_due {
            cores[0].ring.wait();
        }
        cores[0].flag.awake();
    }
}

/// Sends a request by mail.
fn mail(cores: &[Core], sender: &mut Sender<u32>, request: u32) {
    assert!(sender.try_send(request).is_ok(), "there is room");
    cores[0].notify();
}

/// Core 1 runs its requests itself when the door is open, else mails them; the last one is always
/// mailed, so that the owner must wake for it.
fn requests_borrowed_or_mailed() {
    let cores = cores(2);
    let (shard, mut senders) = shard(1);
    let (shared, borrower) = (Arc::clone(&shard), Arc::clone(&cores));
    let mut sender = senders.remove(0);
    let thread = thread::spawn(move || {
        for request in [1, 2] {
            match shared.try_take(id(1)) {
                Some(mut held) => {
                    held.run_mail(1);
                    held.run(1, request);
                    release(&borrower, held);
                }
                None => mail(&borrower, &mut sender, request),
            }
        }
        mail(&borrower, &mut sender, 3);
    });
    own(&cores, &shard, 3);
    thread.join().expect("a failing thread fails the model first");
}

/// Core 1 waits for the door and then mails, core 2 mails.
fn mail_and_a_waiting_borrower() {
    let cores = cores(3);
    let (shard, mut senders) = shard(2);
    let (mut second, mut first) = (senders.remove(1), senders.remove(0));
    let (shared, borrower) = (Arc::clone(&shard), Arc::clone(&cores));
    let waits = thread::spawn(move || {
        let mut held = take(&borrower, &shared, 1);
        held.run(1, 1);
        release(&borrower, held);
        mail(&borrower, &mut first, 2);
    });
    let sender = Arc::clone(&cores);
    let mails = thread::spawn(move || mail(&sender, &mut second, 1));
    own(&cores, &shard, 3);
    for thread in [waits, mails] {
        thread.join().expect("a failing thread fails the model first");
    }
}

/// The owner parks before it raises its flag, and looks at its mail by taking the door once more.
/// Core 1 is behind the door now and then; core 2 mails.
fn mail_while_a_borrower_is_in() {
    let cores = cores(3);
    let (shard, mut senders) = shard(2);
    let mut second = senders.remove(1);
    let (shared, borrower) = (Arc::clone(&shard), Arc::clone(&cores));
    let borrows = thread::spawn(move || {
        if let Some(mut held) = shared.try_take(id(1)) {
            held.run(1, 1);
            release(&borrower, held);
        }
    });
    let sender = Arc::clone(&cores);
    let mails = thread::spawn(move || mail(&sender, &mut second, 1));
    loop {
        let mut held = take(&cores, &shard, 0);
        held.run_mail(2);
        let is_done = held.ran.iter().any(|(by, _)| *by == 2);
        release(&cores, held);
        if is_done {
            break;
        }
        cores[0].sleep_unless(|| match shard.take_or_wait(id(0)) {
            Some(held) => {
                let is_due = !held.inboxes[1].is_empty();
                release(&cores, held);
                is_due
            }
            None => shard.door.is_granted_to(id(0)),
        });
    }
    for thread in [borrows, mails] {
        thread.join().expect("a failing thread fails the model first");
    }
}

/// Core 1 asks for the door and loses interest, core 2 and the owner want it.
fn core_that_stops_waiting() {
    let cores = cores(3);
    let door = Arc::new(Guarded::new(id(0), 0));
    let shared = Arc::clone(&door);
    run_cores(3, move |me| {
        if me == 1 {
            let held = shared.take_or_wait(id(1)).or_else(|| shared.stop_waiting(id(1)));
            if let Some(held) = held {
                release(&cores, held);
            }
        } else {
            let mut held = take(&cores, &shared, me);
            *held += 1;
            release(&cores, held);
        }
    });
    assert_eq!(*door.try_take(id(0)).expect("nobody is left behind the door"), 2);
}

/// The tables of a shard, by slot: what was written, in order.
type Tables = Vec<Option<Vec<u32>>>;

/// Two shards of two slots each, the first slot's table on the first shard, and who owns what.
struct Slots {
    owners: SlotOwners,
    shards: [Guarded<Tables>; 2],
}

impl Slots {
    fn dealt() -> Arc<Self> {
        let (first, second) = (vec![Some(Vec::new()), None], vec![None, Some(Vec::new())]);
        let shards = [Guarded::new(id(0), first), Guarded::new(id(1), second)];
        Arc::new(Self { owners: SlotOwners::dealt_of(2, 2), shards })
    }

    fn owner(&self, slot: usize) -> usize {
        self.owners.of(slot_id(slot)).index()
    }

    /// Moves a slot's table behind both doors, as the balancer does.
    fn give(&self, cores: &[Core], me: usize, slot: usize, to: usize) {
        let mut low = take(cores, &self.shards[0], me);
        let mut high = take(cores, &self.shards[1], me);
        let (from, into) = if to == 1 { (&mut low, &mut high) } else { (&mut high, &mut low) };
        into[slot] = from[slot].take();
        self.owners.give(slot_id(slot), ShardId(to as u16));
        release(cores, low);
        release(cores, high);
    }

    /// What the slot's table holds in the end.
    fn table(&self, slot: usize) -> Vec<u32> {
        let held = self.shards[self.owner(slot)].try_take(id(0));
        held.expect("nobody is left behind the door")[slot].clone().expect("its owner has it")
    }
}

fn slot_id(slot: usize) -> SlotId {
    SlotId::all().nth(slot).expect("a model has few slots")
}

/// Core 0 plans two requests of a session on one slot before it runs either, the one that goes to the
/// higher shard first; core 1 moves the slot away and back. As `runtime/intake.rs` plans, as
/// `shard/batch.rs` checks behind the door, and as `runtime/exclusive.rs` runs again what has moved.
fn requests_around_a_slot_that_moves() {
    let cores = cores(2);
    let slots = Slots::dealt();
    let (moved, mover) = (Arc::clone(&slots), Arc::clone(&cores));
    let thread = thread::spawn(move || {
        moved.give(&mover, 1, 0, 1);
        moved.give(&mover, 1, 0, 0);
    });
    let mut next = 1;
    let mut version = 0;
    while next <= 2 {
        // A round: what can be planned together.
        let mut batches = [Vec::new(), Vec::new()];
        let mut is_settled = true;
        while next <= 2 {
            let now = slots.owners.version();
            if now != version && !is_settled {
                break;
            }
            version = now;
            let owner = slots.owner(0);
            if slots.owners.version() != version && !is_settled {
                break;
            }
            batches[owner].push((next, version));
            is_settled = false;
            next += 1;
        }
        let mut again = Vec::new();
        for shard in [1, 0] {
            if batches[shard].is_empty() {
                continue;
            }
            let mut held = take(&cores, &slots.shards[shard], 0);
            for &(request, planned_by) in &batches[shard] {
                if planned_by == slots.owners.version() {
                    held[0].as_mut().expect("the slot is where it was planned").push(request);
                } else {
                    again.push(request);
                }
            }
            release(&cores, held);
        }
        again.sort_unstable();
        for request in again {
            run_again(&cores, &slots, request);
        }
    }
    thread.join().expect("a failing thread fails the model first");
    assert_eq!(slots.table(0), [1, 2]);
}

/// Runs a request wherever its slot is when the door is held.
fn run_again(cores: &[Core], slots: &Slots, request: u32) {
    loop {
        let owner = slots.owner(0);
        let mut held = take(cores, &slots.shards[owner], 0);
        let stays = slots.owner(0) == owner;
        if stays {
            held[0].as_mut().expect("who holds its owner's door has the slot").push(request);
        }
        release(cores, held);
        if stays {
            return;
        }
    }
}

/// Core 0 runs a call over both slots, core 1 moves the second slot to the first shard, and core 2
/// reads both behind whatever doors they are: it sees all of the call or nothing.
fn call_over_two_slots_one_of_which_moves() {
    let cores = cores(3);
    let slots = Slots::dealt();
    let shared = Arc::clone(&slots);
    run_cores(3, move |me| match me {
        0 => over_both(&cores, &shared, me, |tables| tables.iter_mut().for_each(|t| t.push(1))),
        1 => shared.give(&cores, me, 1, 0),
        _ => over_both(&cores, &shared, me, |tables| assert_eq!(tables[0], tables[1])),
    });
    assert_eq!((slots.table(0), slots.table(1)), (vec![1], vec![1]));
}

/// Takes the doors of both slots' owners in ascending order, and looks again whether they are that:
/// as `Core::run_exclusive` does.
fn over_both(cores: &[Core], slots: &Slots, me: usize, call: impl Fn(&mut [&mut Vec<u32>; 2])) {
    loop {
        let mut planned = [slots.owner(0), slots.owner(1)];
        let owners = planned;
        planned.sort_unstable();
        let mut held: Vec<_> = Vec::new();
        for (at, &shard) in planned.iter().enumerate() {
            if at == 0 || planned[0] != shard {
                held.push((shard, take(cores, &slots.shards[shard], me)));
            }
        }
        let is_planned = [slots.owner(0), slots.owner(1)] == owners;
        if is_planned {
            let mut tables: Vec<_> = held
                .iter_mut()
                .flat_map(|(shard, tables)| {
                    let shard = *shard;
                    tables.iter_mut().enumerate().filter(move |(slot, _)| owners[*slot] == shard)
                })
                .collect();
            tables.sort_by_key(|(slot, _)| *slot);
            let [(_, first), (_, second)] = &mut tables[..] else {
                panic!("one table per slot");
            };
            let here = "who holds its owner's door has the slot";
            call(&mut [first.as_mut().expect(here), second.as_mut().expect(here)]);
        }
        held.into_iter().for_each(|(_, held)| release(cores, held));
        if is_planned {
            return;
        }
    }
}

/// Core 1 mails a request to core 0 and later borrows that shard for another one. The owner posts the
/// reply of what it ran before it lets go of the door, so whoever has the door finds either the
/// request or the reply: as `Core::catch_up` relies on.
fn replies_when_their_shard_is_borrowed() {
    let cores = cores(2);
    let (shard, mut senders) = shard(1);
    let (mut replies, mut answers) = mailbox(4);
    let (shared, borrower) = (Arc::clone(&shard), Arc::clone(&cores));
    let mut sender = senders.remove(0);
    let thread = thread::spawn(move || {
        mail(&borrower, &mut sender, 1);
        let mut held = take(&borrower, &shared, 1);
        let mut answered = 0;
        while let Some(request) = held.inboxes[0].try_recv() {
            held.run(1, request);
            answered += 1;
        }
        while answers.try_recv().is_some() {
            answered += 1;
        }
        assert_eq!(answered, 1, "the reply to what was mailed is not here");
        held.run(1, 2);
        release(&borrower, held);
    });
    loop {
        let mut held = take(&cores, &shard, 0);
        while let Some(request) = held.inboxes[0].try_recv() {
            held.run(1, request);
            assert!(replies.try_send(request).is_ok(), "there is room");
        }
        let is_done = held.ran.len() == 2;
        release(&cores, held);
        if is_done {
            break;
        }
        thread::yield_now();
    }
    thread.join().expect("a failing thread fails the model first");
}
