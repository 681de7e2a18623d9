//! What the cores of a process know of each other: their shards behind doors, whether they sleep,
//! where their doorbells are, and the letters they send.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::commands::blocking::Woken;
use crate::commands::session_ctx::SessionAction;
use crate::net::session::Session;
use crate::node::Node;
use crate::pubsub::message::Message;
use crate::runtime::ask::Answer;
use crate::runtime::mailbox::{Receiver, Sender, mailbox};
use crate::runtime::replay::Replay;
use crate::runtime::sleep::SleepFlag;
use crate::runtime::slots::{SlotDone, SlotJob};
use crate::shard::batch::MailBatch;
use crate::shard::door::Guarded;
use crate::shard::state::Shard;
use crate::shard::waiters::BlockedCall;
use crate::units::{CoreId, ShardId};

/// Batches of requests that may wait between two cores.
const REQUEST_MAIL_COUNT: usize = 64;
/// Letters that may wait between two cores.
const LETTER_COUNT: usize = 256;

/// All cores.
#[derive(Debug)]
pub struct Peers {
    /// The process.
    pub node: &'static Node,
    /// Processors by core.
    pub cpus: Box<[usize]>,
    /// Shards by id.
    pub shards: Box<[Guarded<Shard>]>,
    /// Sleep flags by core.
    pub sleep: Box<[SleepFlag]>,
    /// Descriptors of the cores' rings; negative until the core runs.
    doorbells: Box<[AtomicI32]>,
    /// The process is to end.
    pub stop: AtomicBool,
}

/// A blocked call, and which of its words is the key.
pub type Registration = (Arc<BlockedCall>, u32);

/// What one core tells another besides requests.
#[derive(Debug)]
pub enum Letter {
    /// Requests have run; their replies.
    Replies(Box<MailBatch>),
    /// A connection to serve.
    Connection {
        /// Its socket.
        fd: OwnedFd,
        /// Whether it is a unix socket.
        is_unix: bool,
        /// Whether it is the tenant's.
        is_tenants: bool,
    },
    /// A connection to go on with.
    Session(Box<Session>),
    /// Do this about a slot of yours.
    SlotJob(Box<SlotJob>),
    /// What came of it.
    SlotDone(Box<SlotDone>),
    /// A blocked call of yours has been served, or could be; logical time of what that did.
    Woken(Woken, u64),
    /// Blocked calls that have ended, and which of their words are keys of yours that they still
    /// wait for.
    Ended(Vec<Registration>),
    /// Messages for your subscribers.
    Published(Vec<Arc<Message>>),
    /// Do this to your clients and answer.
    Ask {
        /// The asking core's number of the question.
        id: u32,
        /// What to do.
        action: SessionAction,
    },
    /// The answer.
    Answer {
        /// The question.
        id: u32,
        /// A part of it.
        answer: Answer,
    },
}

/// One core's ways to another.
#[derive(Debug)]
pub struct Post {
    /// Requests for its shard.
    pub requests: Sender<Box<MailBatch>>,
    /// Everything else.
    pub letters: Sender<Letter>,
}

/// What a core takes along when it starts.
#[derive(Debug)]
pub struct Seat {
    /// Which core.
    pub id: CoreId,
    /// Ways to the others; none to itself.
    pub posts: Vec<Option<Post>>,
    /// Letters from the others, by core; an unused one from itself.
    pub letters: Vec<Receiver<Letter>>,
    /// What it has to load.
    pub replay: Replay,
}

impl Peers {
    /// The cores of a process, one per processor given, and the seats to hand to them.
    pub fn new(node: &'static Node, cpus: &[usize], seed: u64) -> (Self, Vec<Seat>) {
        let core_count = cpus.len();
        let ids = || (0..core_count as u16).map(CoreId);
        let mut seats: Vec<Seat> = ids()
            .map(|id| {
                let posts = ids().map(|_| None).collect();
                Seat { id, posts, letters: Vec::new(), replay: Replay::default() }
            })
            .collect();
        let mut inboxes: Vec<Vec<Receiver<Box<MailBatch>>>> = ids().map(|_| Vec::new()).collect();
        for to in ids() {
            for from in ids() {
                let (requests, inbox) = mailbox(REQUEST_MAIL_COUNT);
                let (letters, letterbox) = mailbox(LETTER_COUNT);
                inboxes[to.index()].push(inbox);
                seats[to.index()].letters.push(letterbox);
                if from != to {
                    seats[from.index()].posts[to.index()] = Some(Post { requests, letters });
                }
            }
        }
        let shards = ids().zip(inboxes).map(|(id, inbox)| {
            let mut shard = Shard::new(ShardId(id.0), seed);
            shard.inbox = inbox;
            Guarded::new(id, shard)
        });
        let peers = Self {
            node,
            cpus: cpus.into(),
            shards: shards.collect(),
            sleep: ids().map(|_| SleepFlag::default()).collect(),
            doorbells: ids().map(|_| AtomicI32::new(-1)).collect(),
            stop: AtomicBool::new(false),
        };
        (peers, seats)
    }

    /// Number of cores.
    pub fn core_count(&self) -> usize {
        self.shards.len()
    }

    /// Makes a core's doorbell known.
    pub fn set_doorbell(&self, core: CoreId, fd: i32) {
        // Ordering: release, so that whoever sees the descriptor may ring it.
        self.doorbells[core.index()].store(fd, Ordering::Release);
    }

    /// The descriptor to ring, if the core runs.
    pub fn doorbell(&self, core: CoreId) -> Option<i32> {
        let fd = self.doorbells[core.index()].load(Ordering::Acquire);
        (fd >= 0).then_some(fd)
    }
}
