//! A server without sockets, cores or clocks: shards, one client, and time that the caller sets.
//! Fixtures, journal replays, fuzzers and benches run commands through it.

use crate::commands::args::OwnedArgs;
use crate::commands::connection;
use crate::commands::ctx::{HeldSet, Shards};
use crate::commands::dispatch::{self, Plan};
use crate::commands::session_ctx::{Micros, SessionCtx};
use crate::commands::spec::Handler;
use crate::commands::table::{Command, table};
use crate::config::Config;
use crate::journal::LogicalClock;
use crate::net::client::{ClientState, ReplyMode};
use crate::node::Node;
use crate::pubsub::outbox::Item;
use crate::resp::reply::{OutBuf, Reply};
use crate::shard::door::Guarded;
use crate::shard::state::Shard;
use crate::units::{CoreId, DbIndex, Ms, ShardId};

/// The server.
#[derive(Debug)]
pub struct Bare {
    /// What the cores would share.
    pub node: &'static Node,
    /// All shards, held for good.
    pub held: HeldSet,
    /// Logical time.
    pub clock: LogicalClock,
    /// Time.
    pub now: Ms,
}

impl Bare {
    /// A server of `shard_count` shards. Leaks them: for tests and benches.
    pub fn new(shard_count: usize, seed: u64) -> Self {
        let now = Ms(1_700_000_000_000);
        let node =
            Node::new(Config::default(), shard_count, table().id_count(), now, "0".repeat(40));
        let held = (0..shard_count).map(|i| {
            let shard = Shard::new(ShardId(i as u16), seed);
            let guarded: &'static Guarded<Shard> =
                Box::leak(Box::new(Guarded::new(CoreId(i as u16), shard)));
            guarded.try_take(CoreId(0))
        });
        Self {
            held: held.collect(),
            node: Box::leak(Box::new(node)),
            clock: LogicalClock::default(),
            now,
        }
    }

    /// A client that has just connected: it may do everything, unless a password is set.
    pub fn client(&self) -> ClientState {
        let mut client = ClientState::new(self.node.new_client_id(), CoreId(0), 8, self.now);
        client.authenticated = self.node.config.requirepass().is_none();
        client
    }

    /// Runs one call and returns its encoded reply.
    pub fn call(&mut self, client: &mut ClientState, words: &[&[u8]]) -> Vec<u8> {
        let mut out = OutBuf::default();
        self.call_into(client, &OwnedArgs::of(words), &mut out);
        out.to_vec()
    }

    /// Runs one call; its reply is appended to `out`.
    pub fn call_into(&mut self, client: &mut ClientState, call: &OwnedArgs, out: &mut OutBuf) {
        let args = call.args();
        let mark = out.mark();
        client.last_at = self.now;
        self.begin_outbox();
        let mut pushed = None;
        let mut reply = Reply::new(out, client.protocol);
        match dispatch::admit(&args, client, self.node) {
            Err(error) => {
                self.node.core(CoreId(0)).note_error(&error);
                reply.error(&error);
            }
            Ok(command) if client.multi.is_some() && dispatch::is_queued_in_multi(command) => {
                dispatch::queue(command, &args, client);
                reply.simple("QUEUED");
            }
            Ok(command) => {
                client.last_command = Some(command);
                pushed = self.run(client, command, call, out);
                self.count_memory();
            }
        }
        match client.reply_mode {
            ReplyMode::On => return,
            ReplyMode::Off => {}
            ReplyMode::SkipNext => client.reply_mode = ReplyMode::Skip,
            ReplyMode::Skip => client.reply_mode = ReplyMode::On,
        }
        out.truncate(pushed.unwrap_or(mark));
    }

    /// Forgets what the last call had to tell others: nobody is there to hear of it.
    fn begin_outbox(&mut self) {
        let outbox = &mut self.clock.outbox;
        let items = outbox.take();
        outbox.restore(items);
        outbox.event_flags = match self.node.pubsub.has_subscribers() {
            true => self.node.config.notify_keyspace_events(),
            false => 0,
        };
    }

    /// The keyspace events of the last call, as `<database> <event> <key>`.
    pub fn events(&mut self) -> Vec<String> {
        let items = self.clock.outbox.take();
        let events = items.iter().filter_map(|item| match item {
            Item::Event(db, key, event) => {
                let key = String::from_utf8_lossy(key);
                Some(format!("{} {} {key}", db.0, event.name()))
            }
            _ => None,
        });
        events.collect()
    }

    /// What each core does at the end of its turn, for `maxmemory`.
    fn count_memory(&self) {
        for shard in self.held.iter().flatten() {
            self.node.note_shard(shard);
        }
    }

    fn run(
        &mut self,
        client: &mut ClientState,
        command: &'static Command,
        call: &OwnedArgs,
        out: &mut OutBuf,
    ) -> Option<(usize, usize)> {
        let args = call.args();
        let node = self.node;
        let mut found = Vec::new();
        let plan = dispatch::plan(command, &args, client, node, ShardId(0), &mut found);
        let mark = out.mark();
        let mut reply = Reply::new(out, client.protocol);
        if let (Plan::Session, Handler::Session(handler)) = (plan, command.spec.handler) {
            let mut ctx = SessionCtx {
                client,
                node,
                stats: node.core(CoreId(0)),
                now: self.now,
                micros: Micros::Fixed(self.now.0 * 1000),
                in_exec: false,
                may_defer: false,
                action: None,
                outbox: &mut self.clock.outbox,
                pushed: None,
            };
            let result = handler(&mut ctx, &args, &mut reply);
            let pushed = ctx.pushed;
            let result = result.and_then(|()| match ctx.action.take() {
                Some(action) => connection::act_alone(&action, ctx.client, self.now, &mut reply),
                None => Ok(()),
            });
            if let Err(error) = result {
                reply.out().truncate(mark);
                reply.error(&error);
                node.core(CoreId(0)).note_error(&error);
            }
            return pushed;
        }
        let db = client.db;
        let shards = match plan {
            Plan::One(shard, _) => {
                let shard = self.held[shard.index()].as_deref_mut();
                Shards::One(shard.expect("a bare server holds all doors"))
            }
            _ => Shards::Many(&mut self.held),
        };
        let mut ctx =
            dispatch::ctx(node, CoreId(0), shards, &mut self.clock, self.now, db, command);
        ctx.protocol = client.protocol;
        if let Plan::One(_, hint) = plan {
            ctx.hint = hint;
        }
        if let Handler::Held(handler) = command.spec.handler {
            let result = handler(&mut ctx, client, &args, &mut reply);
            dispatch::finish(command, &mut ctx, &args, &mut reply, mark, result);
        } else {
            ctx.begin_unit();
            dispatch::run_data(command, &mut ctx, &args, &mut reply);
            ctx.clock.end_unit();
        }
        None
    }

    /// Deletes every key whose time has come.
    pub fn expire_all(&mut self) {
        for shard in self.held.iter_mut().flatten() {
            while shard.expire_step(&mut self.clock, self.now, 1000).more {}
        }
    }

    /// Number of keys of a database.
    pub fn len(&self, db: DbIndex) -> usize {
        self.held.iter().flatten().filter_map(|s| s.keys.db(db)).map(|d| d.len()).sum()
    }

    /// Whether a database holds no key.
    pub fn is_empty(&self, db: DbIndex) -> bool {
        self.len(db) == 0
    }
}
