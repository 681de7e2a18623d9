//! Publish and subscribe, keyspace events and MONITOR on one core: carries out what handlers left in
//! the outbox, mails messages to the cores that have receivers, and hands those that arrive to the
//! sessions.
//!
//! A message waits in the inbox of each core that has a receiver, and is delivered within a budget
//! per turn; delivery goes on with the next subscriber in the next turn. What publishers put in faster
//! than it is taken out is bounded by the registry's backlog: publishers wait, subscribers that do
//! not read are closed. Messages of one publisher reach a subscriber in order, because mail does.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use crate::commands::args::Args;
use crate::commands::pubsub::steps::NameWork;
use crate::commands::session_ctx::{Micros, SessionCtx};
use crate::commands::spec::{Flags, Handler};
use crate::commands::table::Command;
use crate::config::value::OutputLimit;
use crate::net::client::ReplyMode;
use crate::net::session::{OUT_STALL_BYTES, Session};
use crate::node::Node;
use crate::pubsub::event::{self, Event};
use crate::pubsub::message::{Class, Message};
use crate::pubsub::outbox::{Cores, Item, Outbox};
use crate::pubsub::table::{Subscriber, Table};
use crate::pubsub::{Kind, Leaving, Name, monitor};
use crate::resp::reply::Reply;
use crate::runtime::clock::Clock;
use crate::runtime::peers::Letter;
use crate::runtime::ring::Token;
use crate::runtime::turn::Core;
use crate::shard::batch::Target;
use crate::units::{CoreId, DbIndex, Ms};

/// Time of a turn that deliveries may take.
const DELIVERY_BUDGET_NS: u64 = 300_000;
/// Subscriptions of an ended session that are forgotten in one go.
const FORGOTTEN_PER_STEP: usize = 256;
/// Time of a turn that calls over many names may take.
const NAMES_BUDGET_NS: u64 = 100_000;
/// Deliveries between two looks at the clock.
const DELIVERIES_PER_LOOK: usize = 32;

/// A message that is being delivered on this core.
#[derive(Debug)]
struct Delivery {
    message: Arc<Message>,
    /// What its subscribers are subscribed to, and how they see it: found when its turn comes.
    routes: Option<VecDeque<Route>>,
    /// The subscriber that had it last.
    after: Option<Subscriber>,
}

/// One way from a message to subscribers.
#[derive(Debug)]
struct Route {
    /// The pattern; none for subscribers of the channel itself, and monitors.
    pattern: Option<Name>,
    /// The encoding.
    body: Arc<Vec<u8>>,
}

/// A call over many names that is under way.
#[derive(Debug)]
struct Job {
    token: Token,
    target: Target,
    work: NameWork,
}

/// A core's part of publish and subscribe.
#[derive(Debug)]
pub struct PubSub {
    table: Table,
    inbox: VecDeque<Delivery>,
    /// Sessions that have ended with more subscriptions than could be forgotten at once.
    leaving: VecDeque<(Subscriber, Leaving)>,
    /// Calls over many names.
    jobs: VecDeque<Job>,
    /// One of them can go on at once.
    jobs_are_ready: bool,
    /// Messages for other cores, mailed at the end of the turn.
    outgoing: Vec<Vec<Arc<Message>>>,
}

impl PubSub {
    /// Nobody is subscribed to anything.
    pub fn new(core_count: usize) -> Self {
        Self {
            table: Table::default(),
            inbox: VecDeque::new(),
            leaving: VecDeque::new(),
            jobs: VecDeque::new(),
            jobs_are_ready: false,
            outgoing: (0..core_count).map(|_| Vec::new()).collect(),
        }
    }

    /// Whether messages wait to be delivered, or subscriptions to be forgotten.
    pub fn has_work(&self) -> bool {
        !self.inbox.is_empty() || !self.leaving.is_empty() || self.jobs_are_ready
    }

    /// Begins a call over many names. Its session waits.
    pub(super) fn begin(&mut self, token: Token, target: Target, work: NameWork) {
        self.jobs.push_back(Job { token, target, work });
        self.jobs_are_ready = true;
    }

    fn receive(&mut self, message: Arc<Message>) {
        self.inbox.push_back(Delivery { message, routes: None, after: None });
    }

    fn routes(&self, message: &Message) -> VecDeque<Route> {
        let itself = Route { pattern: None, body: Arc::clone(message.body()) };
        let mut routes = VecDeque::from([itself]);
        if message.class() == Class::Channel {
            for pattern in self.table.matching_patterns(message.channel()) {
                let body = message.body_for_pattern(&pattern);
                routes.push_back(Route { pattern: Some(pattern), body });
            }
        }
        routes
    }
}

const fn subscriber(token: Token) -> Subscriber {
    Subscriber { index: token.index, generation: token.generation }
}

impl Core {
    /// Notes what events are asked for, at the beginning of a round: expiry and eviction cannot read
    /// the settings themselves.
    #[inline]
    pub(super) fn note_event_flags(&mut self) {
        let flags = self.node.config.notify_keyspace_events();
        let heard = flags != 0 && self.node.pubsub.has_subscribers();
        self.logical.outbox.event_flags = if heard { flags } else { 0 };
    }

    /// Carries out what handlers have left to do. `caller` is the session of the call that has just
    /// run, if it may have changed what it listens to.
    #[inline]
    pub(super) fn settle_outbox(&mut self, caller: Option<Token>) {
        if !self.logical.outbox.is_empty() {
            self.carry_out(caller);
        }
    }

    #[cold]
    fn carry_out(&mut self, caller: Option<Token>) {
        let mut items = self.logical.outbox.take();
        for item in items.drain(..) {
            match item {
                Item::Publish(message, cores) => self.send_message(message, cores),
                Item::Event(db, key, event) => self.tell(db, &key, event),
                Item::Subscribe(kind, name, at) => {
                    let who = caller.expect("only calls that name their session subscribe");
                    self.pubsub.table.subscribe(kind, &name, subscriber(who), at);
                }
                Item::Unsubscribe(kind, name) => {
                    let who = caller.expect("only calls that name their session unsubscribe");
                    self.pubsub.table.unsubscribe(kind, &name, subscriber(who));
                }
                Item::Monitor(at) => {
                    let who = caller.expect("only calls that name their session monitor");
                    self.pubsub.table.monitor(subscriber(who), at);
                }
                Item::Unmonitor => {
                    let who = caller.expect("only calls that name their session stop to");
                    self.pubsub.table.unmonitor(subscriber(who));
                }
            }
        }
        self.logical.outbox.restore(items);
    }

    /// Publishes a keyspace event on the channels that hear of it.
    fn tell(&mut self, db: DbIndex, key: &[u8], event: Event) {
        let flags = self.node.config.notify_keyspace_events();
        let name = event.name().as_bytes();
        for (by, about, message) in [(event::BY_KEY, key, name), (event::BY_EVENT, name, key)] {
            if flags & by == 0 {
                continue;
            }
            let channel = event::channel(by, db, about);
            let to = self.node.pubsub.receivers(Kind::Channel, &channel);
            if to.count > 0 {
                let message = Message::new(Kind::Channel, &channel, message, 0, &to);
                self.send_message(Arc::new(message), to.cores);
            }
        }
    }

    fn send_message(&mut self, message: Arc<Message>, cores: Cores) {
        let bytes = message.heap_bytes();
        let mut left = cores;
        while left != 0 {
            let core = CoreId(left.trailing_zeros() as u16);
            left &= left - 1;
            self.node.pubsub.add_backlog(core, bytes);
            if core == self.id {
                self.pubsub.receive(Arc::clone(&message));
            } else {
                self.pubsub.outgoing[core.index()].push(Arc::clone(&message));
            }
        }
    }

    /// Mails what was published: one letter per core. Before replies leave, so that who hears that a
    /// message was published, and subscribes then, does not get it.
    pub(super) fn post_messages(&mut self) {
        for to in (0..self.pubsub.outgoing.len()).map(|i| CoreId(i as u16)) {
            if !self.pubsub.outgoing[to.index()].is_empty() {
                let messages = std::mem::take(&mut self.pubsub.outgoing[to.index()]);
                self.post(to, Letter::Published(messages));
            }
        }
    }

    /// Takes in what another core has mailed.
    pub(super) fn take_messages(&mut self, messages: Vec<Arc<Message>>) {
        for message in messages {
            self.pubsub.receive(message);
        }
    }

    /// Gives each call over many names a step, within the turn's budget.
    pub(super) fn step_names(&mut self) {
        let begun = self.clock.ticks();
        self.pubsub.jobs_are_ready = false;
        for _ in 0..self.pubsub.jobs.len() {
            if self.clock.ns_between(begun, self.clock.ticks()) > NAMES_BUDGET_NS {
                self.pubsub.jobs_are_ready = true;
                return;
            }
            let Some(job) = self.pubsub.jobs.pop_front() else {
                return;
            };
            self.step_name_job(job);
        }
    }

    fn step_name_job(&mut self, mut job: Job) {
        let Self { node, stats, now, sessions, flush, logical, pubsub, .. } = self;
        let Some(session) = sessions
            .get_mut(job.token.index as usize)
            .filter(|s| s.generation == job.token.generation && !s.closing)
        else {
            return;
        };
        if session.pending_out_bytes() > OUT_STALL_BYTES {
            // It goes on when they have left; that is an event.
            return pubsub.jobs.push_back(job);
        }
        let protocol = session.client.protocol;
        let mut ctx = SessionCtx {
            client: &mut session.client,
            node,
            stats,
            now: *now,
            micros: Micros::Clock(Clock::now_us),
            in_exec: false,
            may_defer: false,
            action: None,
            outbox: &mut logical.outbox,
            pushed: None,
        };
        let is_done = job.work.step(&mut ctx, &mut Reply::new(&mut session.out, protocol));
        Self::flush_later(flush, job.token.index, session);
        self.settle_outbox(Some(job.token));
        if is_done {
            self.complete(job.token, job.target, job.work.into_reply(protocol));
        } else {
            self.pubsub.jobs.push_back(job);
            self.pubsub.jobs_are_ready = true;
        }
    }

    /// Hands messages to their subscribers, within the turn's budget.
    pub(super) fn deliver_messages(&mut self) {
        self.forget_some();
        if self.pubsub.inbox.is_empty() {
            return;
        }
        let begun = self.clock.ticks();
        while let Some(mut delivery) = self.pubsub.inbox.pop_front() {
            let routes = match delivery.routes.take() {
                Some(routes) => routes,
                None => self.pubsub.routes(&delivery.message),
            };
            delivery.routes = Some(routes);
            if !self.deliver(&mut delivery, begun) {
                return self.pubsub.inbox.push_front(delivery);
            }
            self.node.pubsub.sub_backlog(self.id, delivery.message.heap_bytes());
            if self.clock.ns_between(begun, self.clock.ticks()) > DELIVERY_BUDGET_NS {
                return;
            }
        }
        if self.pubsub.inbox.capacity() > 4096 {
            self.pubsub.inbox.shrink_to(256);
        }
    }

    /// Delivers a message until it is done (`true`) or the time is up.
    fn deliver(&mut self, delivery: &mut Delivery, begun: u64) -> bool {
        let Self { pubsub, sessions, flush, clock, .. } = self;
        let routes = delivery.routes.get_or_insert_default();
        while let Some(route) = routes.front() {
            let message = &delivery.message;
            let until = message.until(route.pattern.is_some());
            let subscribers = match (message.class(), &route.pattern) {
                (Class::Line, _) => Some(pubsub.table.monitors()),
                (Class::Shard, _) => pubsub.table.subscribers(Kind::Shard, message.channel()),
                (Class::Channel, None) => {
                    pubsub.table.subscribers(Kind::Channel, message.channel())
                }
                (Class::Channel, Some(pattern)) => pubsub.table.subscribers(Kind::Pattern, pattern),
            };
            let left = subscribers.map(|s| s.behind(delivery.after, until));
            for (count, who) in left.into_iter().flatten().enumerate() {
                if count % DELIVERIES_PER_LOOK == DELIVERIES_PER_LOOK - 1 && is_late(clock, begun) {
                    return false;
                }
                hand_over(sessions, flush, who, message, &route.body);
                delivery.after = Some(who);
            }
            delivery.after = None;
            routes.pop_front();
        }
        true
    }

    /// Forgets what a session that ends was subscribed to: the most at once, the rest in later turns.
    pub(super) fn forget_listener(&mut self, token: Token) {
        let Some(session) = self.session_mut(token) else {
            return;
        };
        let subs = session.client.subs.take();
        let was_monitor = std::mem::take(&mut session.client.is_monitor);
        let who = subscriber(token);
        if was_monitor {
            self.node.pubsub.unmonitor(self.id);
            self.pubsub.table.unmonitor(who);
        }
        if let Some(subs) = subs {
            self.pubsub.leaving.push_back((who, subs.leave()));
            self.forget_some();
        }
    }

    /// Ends some subscriptions of the session that ended first.
    fn forget_some(&mut self) {
        let Self { pubsub, node, id, .. } = self;
        let Some((who, names)) = pubsub.leaving.front_mut() else {
            return;
        };
        for _ in 0..FORGOTTEN_PER_STEP {
            let Some((kind, name)) = names.next() else {
                pubsub.leaving.pop_front();
                return;
            };
            node.pubsub.unsubscribe(kind, *id, &name);
            pubsub.table.unsubscribe(kind, &name, *who);
        }
    }

    /// Shows a call of one of this core's sessions to those who monitor.
    pub(super) fn show_call(&mut self, index: u32, command: &Command, args: &Args<'_>) {
        if self.node.pubsub.has_monitors() {
            let client = &self.sessions[index as usize].client;
            let item = monitor::item(self.node, client, command, args, Clock::now_us());
            self.logical.outbox.extend(item);
        }
    }
}

/// Whether MONITOR shows a call when it is taken: not if it runs at once, or shows others before
/// itself.
pub(super) fn is_shown_first(command: &Command) -> bool {
    !matches!(command.spec.handler, Handler::Session(_)) && command.spec.name != "exec"
}

/// Whether a call has to wait: because the session's earlier calls have to have run before others
/// hear of this one, or because more has been published than could be delivered yet.
#[inline]
pub(super) fn waits_for_listeners(
    node: &Node,
    outbox: &Outbox,
    command: &Command,
    session: &mut Session,
) -> bool {
    let spec = command.spec;
    let is_heard = match &session.client.multi {
        None => {
            spec.flags.contains(Flags::PUBSUB)
                || (spec.flags.contains(Flags::ADMIN) && spec.name == "monitor")
        }
        Some(multi) => {
            let mut queued = multi.queued.iter();
            spec.name == "exec" && queued.any(|(c, _)| c.spec.flags.contains(Flags::PUBSUB))
        }
    };
    if !is_heard {
        let tells = outbox.event_flags != 0 && spec.flags.contains(Flags::WRITE);
        return tells && node.pubsub.is_congested();
    }
    session.awaits_replies = !session.is_settled();
    session.awaits_replies || node.pubsub.is_congested()
}

fn is_late(clock: &Clock, begun: u64) -> bool {
    clock.ns_between(begun, clock.ticks()) > DELIVERY_BUDGET_NS
}

/// Writes a message to a session's output.
#[inline]
fn hand_over(
    sessions: &mut Slab<Session>,
    flush: &mut Vec<u32>,
    who: Subscriber,
    message: &Message,
    body: &Arc<Vec<u8>>,
) {
    let Some(session) =
        sessions.get_mut(who.index as usize).filter(|s| s.generation == who.generation)
    else {
        return;
    };
    let client = &session.client;
    let has_had_it = client.id == message.publisher();
    // Redis: messages come in spite of CLIENT REPLY OFF, the lines of MONITOR do not.
    let is_silent = message.class() == Class::Line && client.reply_mode != ReplyMode::On;
    if has_had_it || is_silent || session.closing || client.close_after_reply {
        return;
    }
    message.write(body, &mut session.out, session.client.protocol);
    Core::flush_later(flush, who.index, session);
}

/// Whether a session has more output waiting than it may.
pub(super) fn is_over_limit(session: &mut Session, limit: OutputLimit, now: Ms) -> bool {
    let pending = session.pending_out_bytes() as u64;
    if limit.hard_bytes > 0 && pending > limit.hard_bytes {
        return true;
    }
    if limit.soft_bytes == 0 || pending <= limit.soft_bytes {
        session.over_soft_limit_since = None;
        return false;
    }
    let since = *session.over_soft_limit_since.get_or_insert(now);
    now.0 - since.0 > limit.soft_seconds.saturating_mul(1000) as i64
}
