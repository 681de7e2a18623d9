//! What a core does between requests: expiry, freeing, idle clients, memory, and levelling load.
//! Each job is stepped by the turn within a budget of its own.

use crate::commands::ctx::Shards;
use crate::commands::dispatch;
use crate::gates::Gate;
use crate::net::session::Stall;
use crate::observe::latency::Event;
use crate::persist::desk::Wish;
use crate::runtime::pubsub::is_over_limit;
use crate::runtime::ring::Token;
use crate::runtime::turn::Core;
use crate::sys::malloc;
use crate::types::yard;
use crate::units::{Ms, SLOT_COUNT, ShardId, SlotId};

/// Time that the jobs of a turn may take together.
const STEP_BUDGET_NS: u64 = 100_000;
/// Keys that are evicted of a shard before others have their turn.
const EVICTIONS_PER_SHARD: usize = 8;
/// Time that a turn frees what was let go of on its thread.
const YARD_BUDGET_NS: u64 = 100_000;
/// Records fired per look at the clock.
const EXPIRE_COUNT: usize = 32;
/// How often deadlines are looked at while keys expire.
const EXPIRE_EVERY_MS: i64 = 25;
/// How often the rest is looked at.
const CRON_EVERY_MS: i64 = 100;
/// How often an idle core looks at anything.
const IDLE_EVERY_MS: i64 = 1_000;
/// Sessions looked at in one go for those that are idle.
const IDLE_CLIENTS_MAX: usize = 1_000;
/// How often the balancer compares loads.
const BALANCE_EVERY_MS: i64 = 1_000;
/// Slots move when the busiest shard has this much more load than the idlest, in percent.
const BALANCE_MARGIN_PERCENT: u64 = 20;
/// Fewer requests than this per period are no load to level.
const BALANCE_LOAD_MIN: u64 = 1_000;

/// When the jobs are due.
#[derive(Debug)]
pub struct Background {
    expire_at: Ms,
    cron_at: Ms,
    memory_at: Ms,
    balance_at: Ms,
    stop_at: Option<Ms>,
    /// More expired keys or memory to free than one step could do.
    pending: bool,
    /// Where the look at idle clients goes on.
    idle_cursor: usize,
    commands_seen: u64,
}

impl Background {
    /// Jobs that begin at `now`.
    pub fn new(now: Ms) -> Self {
        Self {
            expire_at: now,
            cron_at: now,
            memory_at: now,
            balance_at: Ms(now.0 + BALANCE_EVERY_MS),
            stop_at: None,
            pending: false,
            idle_cursor: 0,
            commands_seen: 0,
        }
    }

    /// Whether a job wants another step at once.
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    /// A job wants another step at once.
    pub(super) fn go_on(&mut self) {
        self.pending = true;
    }

    /// When the next job is due.
    pub fn next_at(&self) -> Ms {
        let at = self.expire_at.min(self.cron_at);
        self.stop_at.map_or(at, |stop| stop.min(at))
    }

    /// The process waits for clients no longer than this.
    pub fn stop_at(&mut self, at: Ms) {
        self.stop_at = Some(at);
    }

    /// Whether that time has come.
    pub fn must_stop(&self, now: Ms) -> bool {
        self.stop_at.is_some_and(|at| at <= now)
    }
}

impl Core {
    /// Steps every job that is due.
    pub(super) fn step_background(&mut self) {
        let now = self.now;
        self.clear_yard();
        if self.background.pending || self.background.expire_at <= now {
            self.expire_and_free();
        }
        self.step_ended();
        self.step_waiters_scan();
        if self.background.cron_at <= now {
            self.cron();
        }
    }

    /// Evicts while memory is over its limit. A call evicts only on the shards that it holds, and there
    /// may be nothing, or not the right keys: here all have their turn, those of sleeping cores too.
    pub(super) fn step_eviction(&mut self) {
        if !self.node.must_evict() {
            return;
        }
        let begun = self.clock.ticks();
        let own = self.id.index();
        let mut more = true;
        while more && self.clock.ns_between(begun, self.clock.ticks()) <= STEP_BUDGET_NS {
            more = false;
            for index in 0..self.held.len() {
                let borrowed = self.held[index].is_none() && index != own;
                if borrowed {
                    self.held[index] = self.peers.shards[index].try_take(self.id);
                }
                let Some(shard) = &mut self.held[index] else { continue };
                for _ in 0..EVICTIONS_PER_SHARD {
                    more |= dispatch::evict_one(self.node, shard, &mut self.logical, self.now);
                }
                if borrowed && let Some(held) = self.held[index].take() {
                    self.release(held);
                }
            }
        }
        // There is more to evict, and nobody may ask for anything.
        self.background.pending |= more;
    }

    /// Frees what was let go of on this thread until the budget is spent.
    fn clear_yard(&mut self) {
        if yard::is_empty() {
            return;
        }
        let begun = self.clock.ticks();
        while yard::step() && self.clock.ns_between(begun, self.clock.ticks()) <= YARD_BUDGET_NS {}
    }

    /// Deletes expired keys and frees memory until the budget is spent.
    fn expire_and_free(&mut self) {
        let begun = self.clock.ticks();
        self.background.pending = false;
        let own = self.id.index();
        let Some(mut shard) = self.held[own].take() else {
            // Borrowed: in the next turn.
            return;
        };
        // What is being loaded says itself what has expired.
        let active = self.node.config.active_expire() && !self.log.replay.is_under_way();
        loop {
            let mut more = false;
            if active {
                let expired = shard.expire_step(&mut self.logical, self.now, EXPIRE_COUNT);
                self.stats.expired_keys.add(expired.key_count as u64);
                more |= expired.more;
            }
            more |= shard.free.step();
            if !more {
                break;
            }
            if self.clock.ns_between(begun, self.clock.ticks()) > STEP_BUDGET_NS {
                self.background.pending = true;
                break;
            }
        }
        let ns = self.clock.ns_between(begun, self.clock.ticks());
        self.node.note_delay(Event::ExpireCycle, ns, self.now);
        let due = if active { shard.next_due() } else { Ms(i64::MAX) };
        let soonest = Ms(self.now.0 + EXPIRE_EVERY_MS);
        let latest = Ms(self.now.0 + IDLE_EVERY_MS);
        self.background.expire_at = due.clamp(soonest, latest);
        self.stats.lazyfree_pending.set(shard.free.pending_count() as i64);
        self.stats.lazyfreed.set(shard.free.freed_count() as i64);
        self.held[own] = Some(shard);
    }

    fn cron(&mut self) {
        let commands = self.stats.commands_run.get();
        let idle = commands == self.background.commands_seen && self.sessions.is_empty();
        self.background.commands_seen = commands;
        let every = if idle { IDLE_EVERY_MS } else { CRON_EVERY_MS };
        self.background.cron_at = Ms(self.now.0 + every);
        if self.id.0 == 0 && self.background.memory_at <= self.now {
            if let Some(memory) = malloc::memory() {
                self.node.note_memory(memory.used_bytes, memory.resident_bytes);
            }
            // Where memory is not limited, nobody needs it fresh.
            let every =
                if self.node.config.maxmemory() > 0 { CRON_EVERY_MS } else { IDLE_EVERY_MS };
            self.background.memory_at = Ms(self.now.0 + every);
            self.node.sample_rates(self.now);
        }
        self.close_idle_clients();
        if self.id.0 == 0 {
            self.rewrite_grown_log();
        }
        if let Some(shard) = &mut self.held[self.id.index()]
            && !shard.watches.is_empty()
        {
            shard.watches.sweep();
        }
        if self.id.0 == 0 && self.background.balance_at <= self.now {
            self.background.balance_at = Ms(self.now.0 + BALANCE_EVERY_MS);
            let is_loading = self.node.gates.is_closed(Gate::Loading);
            if self.node.config.slot_balance() && self.peers.core_count() > 1 && !is_loading {
                self.balance();
            }
        }
    }

    /// Has the append log rewritten once it has grown by so much.
    fn rewrite_grown_log(&self) {
        let (config, log) = (&self.node.config, &self.node.log);
        let percent = config.auto_aof_rewrite_percent();
        if log.target() == 0 || percent == 0 || log.errno() != 0 || log.is_rewriting() {
            return;
        }
        let (size, base) = log.sizes();
        let growth = size.saturating_sub(base).saturating_mul(100) / base.max(1);
        if size > config.auto_aof_rewrite_bytes_min() && growth >= percent {
            log.wish(Wish::Rewrite);
        }
    }

    /// Looks at a tenth of the sessions, but not at too many, for one that has been idle too long, or
    /// has let memory go unused.
    fn close_idle_clients(&mut self) {
        let timeout_ms = self.node.config.timeout_seconds() as i64 * 1000;
        let capacity = self.sessions.capacity();
        let count = (self.sessions.len() / 10 + 10).min(capacity).min(IDLE_CLIENTS_MAX);
        for _ in 0..count {
            self.background.idle_cursor = (self.background.idle_cursor + 1) % capacity.max(1);
            let index = self.background.idle_cursor;
            let Some(session) = self.sessions.get_mut(index) else {
                continue;
            };
            let idle_ms = self.now.0 - session.client.last_at.0;
            if idle_ms > 1_000 && session.out.is_empty() && session.sending_bytes == 0 {
                session.out.clear(0);
                session.tail.shrink_to_fit();
            }
            let limit = self.node.config.client_output_limit(session.client.subs.is_some());
            if !session.closing && is_over_limit(session, limit, self.now) {
                let token = Token { index: index as u32, generation: session.generation };
                self.stats.overflow_disconnections.add(1);
                self.close(token, Some("output is over client-output-buffer-limit"));
                continue;
            }
            // Who listens has nothing to say; the tenant looks after its own.
            let listens = session.client.subs.is_some()
                || session.client.is_monitor
                || !session.role.is_client();
            if timeout_ms > 0 && idle_ms > timeout_ms && session.stall == Stall::None && !listens {
                let token = Token { index: index as u32, generation: session.generation };
                self.close(token, None);
            }
        }
    }

    /// Moves a slot from the busiest shard to the idlest one, if that levels their load.
    fn balance(&mut self) {
        let count = self.peers.core_count();
        let set = crate::commands::dispatch::ShardSet::all(count);
        if !self.acquire_now(set) {
            return;
        }
        let loads: Vec<u64> = self
            .held
            .iter()
            .flatten()
            .map(|shard| shard.slot_load.iter().map(|&n| u64::from(n)).sum())
            .collect();
        let busiest = (0..count).max_by_key(|&i| loads[i]).unwrap_or(0);
        let idlest = (0..count).min_by_key(|&i| loads[i]).unwrap_or(0);
        let gap = loads[busiest] - loads[idlest];
        if loads[busiest] >= BALANCE_LOAD_MIN && gap * 100 > loads[busiest] * BALANCE_MARGIN_PERCENT
        {
            let shard = self.held[busiest].as_ref().expect("all doors are held");
            // The hottest slot that narrows the gap: at most half of it moves over.
            let slot = SlotId::all()
                .filter(|&s| {
                    let home = self.node.owners.home(s);
                    home.shard().index() == busiest && !home.is_pinned()
                })
                .map(|s| (u64::from(shard.slot_load[s.index()]), s))
                .filter(|(load, _)| *load > 0 && *load <= gap / 2)
                .max();
            if let Some((load, slot)) = slot {
                self.move_slot(slot, ShardId(idlest as u16));
                // Its new core may have looked already for what is to be done about its slots.
                self.announce_cluster();
                tracing::info!(
                    slot = slot.index(),
                    from = busiest,
                    to = idlest,
                    load,
                    "slot moved to level the load"
                );
            }
        }
        for shard in self.held.iter_mut().flatten() {
            shard.slot_load.fill(0);
        }
        self.release_foreign();
    }

    /// Takes all doors of a set if every one can be had now.
    fn acquire_now(&mut self, set: crate::commands::dispatch::ShardSet) -> bool {
        for shard in set.iter() {
            let index = shard.index();
            if self.held[index].is_none() {
                self.held[index] = self.peers.shards[index].try_take(self.id);
            }
            if self.held[index].is_none() {
                self.release_foreign();
                return false;
            }
        }
        true
    }

    fn release_foreign(&mut self) {
        let own = self.id.index();
        let keep_below = self.waiting.map_or(0, ShardId::index);
        for index in (keep_below..self.held.len()).filter(|&index| index != own) {
            if let Some(held) = self.held[index].take() {
                self.release(held);
            }
        }
    }

    /// Moves all tables of a slot between two shards that are held.
    fn move_slot(&mut self, slot: SlotId, to: ShardId) {
        let from = self.node.owners.of(slot);
        invariant!(slot.index() < SLOT_COUNT && from != to, "a slot moves to another shard");
        let mut shards = Shards::Many(&mut self.held);
        let (source, target) = shards.pair(from, to).expect("both doors are held");
        source.give_slot(slot, target, &mut self.logical);
        self.node.owners.give(slot, to);
    }
}
