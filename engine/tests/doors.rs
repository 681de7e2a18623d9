//! Doors, mailboxes and sleep flags under load: a machine of threads that behave like cores.
//!
//! Each takes turns: takes its own door, reads its mail, sends requests to random shards (through
//! the door if it is open, else by mail), makes calls that need several doors at once, changes its
//! mind while it waits for one, and sleeps without a timeout when it has nothing to do. Checked:
//! requests of a core run on a shard in the order of their numbers, each once; counters and sums
//! under the doors are exact; and it ends, so no wake, no hand-over and no mail was lost.
//!
//! `SEED=n cargo test -p cordis-engine --test doors` starts from another seed. The interleavings are
//! the machine's own; `tests/loom.rs` takes all of those of small cases. Under ThreadSanitizer, with
//! a nightly compiler (reports that name nothing but `std`'s channels and `Arc` are false: the
//! standard library is compiled without it, and its fences are not seen):
//!
//! ```sh
//! RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" cargo +nightly test \
//!     --target x86_64-unknown-linux-gnu -p cordis-engine --test doors
//! ```

#[path = "common/rng.rs"]
#[expect(dead_code, reason = "tests share it, and none uses all of it")]
mod rng;

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

use cordis_engine::runtime::mailbox::{Receiver, Sender, mailbox};
use cordis_engine::runtime::sleep::SleepFlag;
use cordis_engine::shard::door::{Guarded, Held};
use cordis_engine::units::CoreId;
use rng::{Rng, seed_or};

/// More than most machines that test have processors, so that holders get preempted.
const CORE_COUNT: usize = 4;
/// Requests and calls of one core.
const WORK_COUNT: usize = 30_000;
/// Of so many times behind a door, a core is preempted there once.
const HOLDER_YIELDS: usize = 100;
/// Small, so that mailboxes are full now and then.
const MAIL_COUNT: usize = 4;
/// A machine that takes longer has stopped.
const DEADLINE: Duration = Duration::from_secs(120);

/// The `number`-th thing that a core does on a shard.
#[derive(Debug)]
struct Request {
    number: u64,
    amount: i64,
}

/// Requests that ran.
#[derive(Debug)]
struct Replies(u64);

/// What is behind a door. Plain numbers: only the door makes them exact.
#[derive(Debug)]
struct Shard {
    /// Number of the last request, by core.
    last: [u64; CORE_COUNT],
    ran_count: u64,
    balance: i64,
    inboxes: Inboxes,
}

impl Shard {
    fn run(&mut self, from: usize, request: &Request) {
        assert_eq!(request.number, self.last[from] + 1, "core {from}: out of order");
        self.last[from] = request.number;
        self.ran_count += 1;
        self.balance += request.amount;
    }
}

/// What the cores share.
struct Machine {
    shards: Vec<Guarded<Shard>>,
    sleep: Vec<SleepFlag>,
    threads: Vec<OnceLock<Thread>>,
    /// Cores whose work is done.
    done_count: AtomicUsize,
}

impl Machine {
    /// Wakes a core for which something was put down.
    fn notify(&self, core: usize) {
        if self.sleep[core].needs_doorbell() {
            self.threads[core].get().expect("who sleeps has started").unpark();
        }
    }

    fn release(&self, held: Held<'_, Shard>) {
        if let Some(heir) = held.release() {
            self.notify(heir.index());
        }
    }

    fn is_done(&self) -> bool {
        // Ordering: acquire, so that what the cores mailed before is seen.
        self.done_count.load(Ordering::Acquire) == CORE_COUNT
    }
}

/// One core's ways to another, and from it.
struct Post {
    requests: Sender<Request>,
    replies: Sender<Replies>,
    answers: Receiver<Replies>,
}

/// By core; none to itself.
type Posts = Vec<Option<Post>>;
/// By core.
type Inboxes = Vec<Receiver<Request>>;
/// Number of things that a core did on each shard, and the sum of their amounts.
type Sent = ([u64; CORE_COUNT], i64);

struct Core<'m> {
    me: usize,
    rng: Rng,
    machine: &'m Machine,
    posts: Posts,
    held: Vec<Option<Held<'m, Shard>>>,
    /// Number of the last thing sent, by shard.
    sent: [u64; CORE_COUNT],
    /// Sum of all amounts.
    amount: i64,
    /// Requests mailed to each shard, or late, whose replies are not here.
    under_way: [u64; CORE_COUNT],
    /// Requests that found the mailbox full.
    late: [VecDeque<Request>; CORE_COUNT],
    /// Replies that did.
    late_replies: [u64; CORE_COUNT],
    /// Doors of the call that waits, and the one it waits for.
    call: Option<Vec<usize>>,
    waiting: Option<usize>,
    work_left: usize,
    is_done: bool,
}

impl<'m> Core<'m> {
    fn id(&self) -> CoreId {
        CoreId(self.me as u16)
    }

    /// Takes turns until all cores are done; returns what it sent.
    fn run(mut self) -> Sent {
        loop {
            self.machine.sleep[self.me].awake();
            let is_last = self.machine.is_done();
            self.take_own(is_last);
            self.read_answers();
            self.run_own_mail();
            for _ in 0..self.rng.below(4) {
                self.work();
            }
            self.run_call();
            self.send_late();
            let keep_below = self.waiting.unwrap_or(0);
            for index in keep_below..CORE_COUNT {
                self.let_go(index);
            }
            self.note_done();
            if is_last {
                return (self.sent, self.amount);
            }
            self.sleep();
        }
    }

    fn take_own(&mut self, must: bool) {
        let mut spins = 0;
        while self.held[self.me].is_none() && (must || spins < 20) {
            self.held[self.me] = self.machine.shards[self.me].take_or_wait(self.id());
            spins += 1;
            std::hint::spin_loop();
        }
    }

    fn let_go(&mut self, index: usize) {
        if let Some(held) = self.held[index].take() {
            self.machine.release(held);
        }
    }

    fn read_answers(&mut self) {
        for (from, post) in self.posts.iter_mut().enumerate() {
            let Some(post) = post else { continue };
            while let Some(Replies(count)) = post.answers.try_recv() {
                self.under_way[from] -= count;
            }
        }
    }

    /// Runs what others mailed to this core's shard.
    fn run_own_mail(&mut self) {
        let Some(held) = &mut self.held[self.me] else {
            return;
        };
        for from in 0..CORE_COUNT {
            while let Some(request) = held.inboxes[from].try_recv() {
                held.run(from, &request);
                self.late_replies[from] += 1;
            }
        }
    }

    /// Sends a request, or begins a call over several shards.
    fn work(&mut self) {
        if self.work_left == 0 || self.call.is_some() {
            return;
        }
        self.work_left -= 1;
        if self.rng.percent(10) {
            let all = self.rng.percent(30);
            let doors = (0..CORE_COUNT).filter(|_| all || self.rng.percent(60)).collect();
            self.call = Some(doors);
            return;
        }
        let to = self.rng.below(CORE_COUNT);
        let amount = self.rng.below(100) as i64;
        if self.held[to].is_some() || to == self.me {
            let Some(mut held) = self.held[to].take() else {
                return;
            };
            self.amount += amount;
            self.run_through(to, &mut held, amount);
            self.held[to] = Some(held);
            return;
        }
        self.amount += amount;
        if let Some(mut held) = self.machine.shards[to].try_take(self.id()) {
            self.run_through(to, &mut held, amount);
            self.machine.release(held);
        } else {
            self.mail(to, amount);
        }
    }

    fn mail(&mut self, to: usize, amount: i64) {
        self.sent[to] += 1;
        self.under_way[to] += 1;
        self.late[to].push_back(Request { number: self.sent[to], amount });
        if self.rng.percent(50) {
            self.send_late();
        }
    }

    /// Runs a request on a shard that is held, after what was mailed there before.
    fn run_through(&mut self, to: usize, held: &mut Shard, amount: i64) {
        // Now and then the system takes the processor from a core behind a door.
        if self.rng.below(HOLDER_YIELDS) == 0 {
            thread::yield_now();
        }
        while let Some(request) = held.inboxes[self.me].try_recv() {
            held.run(self.me, &request);
            self.under_way[to] -= 1;
        }
        while let Some(request) = self.late[to].pop_front() {
            held.run(self.me, &request);
            self.under_way[to] -= 1;
        }
        self.sent[to] += 1;
        held.run(self.me, &Request { number: self.sent[to], amount });
    }

    /// Runs the call that waits, if its doors can be had.
    fn run_call(&mut self) {
        let Some(doors) = self.call.take() else {
            return;
        };
        if self.waiting.is_some() && self.rng.percent(1) {
            return self.abandon_call();
        }
        self.waiting = None;
        for &door in &doors {
            if self.held[door].is_none() {
                self.held[door] = self.machine.shards[door].take_or_wait(self.id());
            }
            if self.held[door].is_none() {
                self.waiting = Some(door);
                self.call = Some(doors);
                return;
            }
        }
        let sum = self.shards(&doors).map(|shard| shard.balance).sum::<i64>();
        for (index, &door) in doors.iter().enumerate() {
            let Some(mut held) = self.held[door].take() else {
                continue;
            };
            let before = held.balance;
            // Everything goes to the first one.
            self.run_through(door, &mut held, 0);
            let late = held.balance - before;
            held.balance = late + if index == 0 { sum } else { 0 };
            self.held[door] = Some(held);
        }
        self.let_go_of_foreign();
    }

    fn shards(&self, doors: &[usize]) -> impl Iterator<Item = &Held<'m, Shard>> {
        doors.iter().filter_map(|&door| self.held[door].as_ref())
    }

    /// The client of the call has gone.
    fn abandon_call(&mut self) {
        // It may wait for its own door, and have got it at the beginning of the turn.
        if let Some(door) = self.waiting.take().filter(|&door| self.held[door].is_none())
            && let Some(held) = self.machine.shards[door].stop_waiting(self.id())
        {
            self.machine.release(held);
        }
        self.let_go_of_foreign();
    }

    fn let_go_of_foreign(&mut self) {
        let me = self.me;
        (0..CORE_COUNT).filter(|&index| index != me).for_each(|index| self.let_go(index));
    }

    /// Mails what is late, requests and replies.
    fn send_late(&mut self) {
        for (to, post) in self.posts.iter_mut().enumerate() {
            let Some(post) = post else { continue };
            let mut is_sent = false;
            while let Some(request) = self.late[to].pop_front() {
                if let Err(request) = post.requests.try_send(request) {
                    self.late[to].push_front(request);
                    break;
                }
                is_sent = true;
            }
            let replies = std::mem::take(&mut self.late_replies[to]);
            if replies > 0 {
                match post.replies.try_send(Replies(replies)) {
                    Ok(()) => is_sent = true,
                    Err(Replies(count)) => self.late_replies[to] = count,
                }
            }
            if is_sent {
                self.machine.notify(to);
            }
        }
    }

    fn note_done(&mut self) {
        let is_busy = self.work_left > 0
            || self.call.is_some()
            || self.under_way.iter().any(|&count| count > 0);
        if self.is_done || is_busy {
            return;
        }
        self.is_done = true;
        // Ordering: release, paired with `is_done`.
        if self.machine.done_count.fetch_add(1, Ordering::AcqRel) + 1 == CORE_COUNT {
            (0..CORE_COUNT).for_each(|core| self.machine.notify(core));
        }
    }

    /// Sleeps until a doorbell, if there is nothing to do before.
    fn sleep(&mut self) {
        let waits_for_others = self.waiting.is_some()
            || self.is_done
            || self.under_way.iter().sum::<u64>() > self.rng.below(8) as u64;
        let is_late = self.late.iter().any(|late| !late.is_empty())
            || self.late_replies.iter().any(|&count| count > 0);
        if !waits_for_others || is_late {
            return;
        }
        self.machine.sleep[self.me].prepare();
        if !self.has_mail() {
            thread::park();
        }
    }

    /// The second look.
    fn has_mail(&mut self) -> bool {
        let (id, shards) = (self.id(), &self.machine.shards);
        self.machine.is_done()
            || self.posts.iter().flatten().any(|post| !post.answers.is_empty())
            || self.waiting.is_some_and(|door| shards[door].door.is_granted_to(id))
            || self.has_own_mail()
    }

    fn has_own_mail(&mut self) -> bool {
        let is_due = |shard: &Shard| shard.inboxes.iter().any(|inbox| !inbox.is_empty());
        if let Some(held) = &self.held[self.me] {
            return is_due(held);
        }
        // If a borrower is in, it hands the door over and rings.
        let own = &self.machine.shards[self.me];
        let Some(held) = own.take_or_wait(self.id()) else {
            return own.door.is_granted_to(self.id());
        };
        let is_due = is_due(&held);
        self.machine.release(held);
        is_due
    }
}

/// Mailboxes between all cores: each core's posts, and the inboxes behind each door.
fn connect() -> (Vec<Posts>, Vec<Inboxes>) {
    let mut posts: Vec<Posts> = Vec::new();
    let mut inboxes: Vec<Inboxes> = (0..CORE_COUNT).map(|_| Vec::new()).collect();
    let mut answers: Vec<Vec<_>> = (0..CORE_COUNT).map(|_| Vec::new()).collect();
    let mut ways = Vec::new();
    for from in 0..CORE_COUNT {
        for to in 0..CORE_COUNT {
            let (requests, inbox) = mailbox(MAIL_COUNT);
            let (replies, answer) = mailbox(MAIL_COUNT);
            inboxes[to].push(inbox);
            answers[to].push(Some(answer));
            ways.push((from, to, requests, replies));
        }
        posts.push(Vec::new());
    }
    for (from, to, requests, replies) in ways {
        let answers = answers[from][to].take().expect("one way there, one way back");
        posts[from].push((from != to).then_some(Post { requests, replies, answers }));
    }
    (posts, inboxes)
}

fn machine(inboxes: Vec<Inboxes>) -> Arc<Machine> {
    let shard = |(id, inboxes)| {
        let last = [0; CORE_COUNT];
        let shard = Shard { last, ran_count: 0, balance: 0, inboxes };
        Guarded::new(CoreId(id as u16), shard)
    };
    Arc::new(Machine {
        shards: inboxes.into_iter().enumerate().map(shard).collect(),
        sleep: (0..CORE_COUNT).map(|_| SleepFlag::default()).collect(),
        threads: (0..CORE_COUNT).map(|_| OnceLock::new()).collect(),
        done_count: AtomicUsize::new(0),
    })
}

/// Runs a machine to its end; returns what each core sent to each shard.
fn run(seed: u64, machine: &Arc<Machine>, posts: Vec<Posts>) -> Vec<Sent> {
    let (ended, ends) = mpsc::channel();
    let start = Arc::new(Barrier::new(CORE_COUNT));
    for (me, posts) in posts.into_iter().enumerate() {
        let (machine, start) = (Arc::clone(machine), Arc::clone(&start));
        let ended = ended.clone();
        thread::spawn(move || {
            machine.threads[me].get_or_init(thread::current);
            start.wait();
            let core = Core {
                me,
                rng: Rng::new(seed ^ ((me as u64 + 1) << 32)),
                machine: &machine,
                posts,
                held: (0..CORE_COUNT).map(|_| None).collect(),
                sent: [0; CORE_COUNT],
                amount: 0,
                under_way: [0; CORE_COUNT],
                late: Default::default(),
                late_replies: [0; CORE_COUNT],
                call: None,
                waiting: None,
                work_left: WORK_COUNT,
                is_done: false,
            };
            let sent = panic::catch_unwind(AssertUnwindSafe(|| core.run())).ok();
            let _ = ended.send((me, sent));
        });
    }
    drop(ended);
    let mut sent = vec![([0; CORE_COUNT], 0); CORE_COUNT];
    for _ in 0..CORE_COUNT {
        let (me, sent_by_it) = ends
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|e| panic!("seed {seed:#x}: a core sleeps for good: {e}"));
        sent[me] = sent_by_it.unwrap_or_else(|| panic!("seed {seed:#x}: core {me} failed"));
    }
    sent
}

fn check(seed: u64) {
    let (posts, inboxes) = connect();
    let machine = machine(inboxes);
    let sent = run(seed, &machine, posts);
    let mut balance = 0;
    for (index, guarded) in machine.shards.iter().enumerate() {
        let held = guarded.try_take(CoreId(0)).expect("nobody is left behind a door");
        let want: Vec<u64> = sent.iter().map(|(by_shard, _)| by_shard[index]).collect();
        assert_eq!(held.last[..], want, "seed {seed:#x}, shard {index}");
        assert_eq!(held.ran_count, want.iter().sum::<u64>(), "seed {seed:#x}, shard {index}");
        balance += held.balance;
        assert_eq!(held.release(), None);
    }
    assert_eq!(balance, sent.iter().map(|(_, amount)| amount).sum::<i64>(), "seed {seed:#x}");
}

#[test]
fn machine_under_random_load_loses_and_reorders_nothing() {
    let seed = seed_or(0xd00e);
    (0..4).for_each(|run| check(seed + run));
}
