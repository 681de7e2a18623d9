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
#[path = "../src/runtime/sleep.rs"]
mod sleep;

/// What the sources find under the name of `engine/src/sync.rs`.
mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}

use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};
use std::time::Instant;

use door::{Guarded, Held};
use loom::sync::{Arc, Notify};
use loom::thread;
use mailbox::{Receiver, Sender, mailbox};
use sleep::SleepFlag;
use units::CoreId;

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
