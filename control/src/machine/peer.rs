//! What is known of a server or a proxy while this process runs. Nothing of it is kept: after a
//! restart, and after a lost connection, everything is asked again.

use std::collections::VecDeque;

use super::RequestId;
use super::request::{Hello, MoveReport, ProxyModel, Request, SlotReport};

/// What a lease's end is waited for beyond its length: requests that were on their way to a server
/// when it ended arrive within this time or never.
pub const GRACE_MS: i64 = 1_000;

/// How long after it was given up a call of the original's may still do something: its own timeout, and
/// what keeps it on its way.
pub(super) fn carry_max_ms(timeout_ms: u64) -> i64 {
    timeout_ms as i64 + 2 * GRACE_MS
}

/// The longest wait before a peer that does not answer is asked again.
const BACKOFF_MS_MAX: i64 = 2_000;
const BACKOFF_MS_MIN: i64 = 50;

/// What a peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// No member yet.
    Stranger,
    /// A Cordis server.
    Cordis,
    /// Another server.
    Other,
    /// A proxy.
    Proxy,
}

/// A server or a proxy.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What it is.
    pub role: Role,
    /// The question that it has not answered.
    pub in_flight: Option<(RequestId, Request)>,
    /// Questions that it did not answer, one after the other.
    pub fails: u32,
    /// It is not asked before.
    pub retry_at_ms: i64,
    /// When it last answered; 0: never.
    pub heard_ms: i64,
    /// Why it did not answer, or what it refused.
    pub error: String,
    /// Who it is, asked on this connection.
    pub hello: Option<Hello>,
    /// Who it is, if it is a proxy, asked on this connection.
    pub model: Option<ProxyModel>,
    /// The epoch of the map that it has, as far as this connection tells.
    pub map_acked: u64,
    /// Its slots, and when they were reported; 0: not on this connection.
    pub slots: Vec<SlotReport>,
    /// When.
    pub slots_ms: i64,
    /// Its moves.
    pub moves: Vec<MoveReport>,
    /// When; 0: not on this connection.
    pub moves_ms: i64,
    /// When it was last asked whether it is there.
    pub pinged_ms: i64,
    /// Questions that are asked once, before all others.
    pub errands: VecDeque<Request>,
    /// A reading of the proxy's clock, and when it was heard.
    pub clock: Option<(u64, i64)>,
    /// When the last lease was sent.
    pub leased_ms: i64,
    /// Whether it has confirmed a lease on this connection.
    pub is_leased: bool,
    /// When its last lease has surely ended, and what it sent before that has arrived.
    pub lease_end_ms: i64,
    /// Until when a call of the original's that it has not answered may still arrive.
    pub quiet_ms: i64,
    /// Whether it has been said that it belongs to somebody else.
    pub is_foreign: bool,
}

impl Peer {
    /// A peer that nothing is known of.
    pub fn new(role: Role, lease_end_ms: i64) -> Self {
        Self {
            role,
            in_flight: None,
            fails: 0,
            retry_at_ms: 0,
            heard_ms: 0,
            error: String::new(),
            hello: None,
            model: None,
            map_acked: 0,
            slots: Vec::new(),
            slots_ms: 0,
            moves: Vec::new(),
            moves_ms: 0,
            pinged_ms: 0,
            errands: VecDeque::new(),
            clock: None,
            leased_ms: 0,
            is_leased: false,
            lease_end_ms,
            quiet_ms: 0,
            is_foreign: false,
        }
    }

    /// Whether it answers.
    pub fn is_up(&self) -> bool {
        self.fails == 0 && self.heard_ms > 0
    }

    /// It has answered; whether it had not before.
    pub(super) fn hear(&mut self, now: i64) -> bool {
        let was_down = self.fails > 0;
        self.fails = 0;
        self.retry_at_ms = 0;
        self.heard_ms = now;
        was_down
    }

    /// It has not answered; whether it had before. What was known of it may be of another life.
    pub(super) fn lose(&mut self, now: i64, why: &str) -> bool {
        let was_up = self.fails == 0;
        self.fails = self.fails.saturating_add(1);
        self.retry_at_ms = now + backoff_ms(self.fails);
        why.clone_into(&mut self.error);
        self.hello = None;
        self.model = None;
        self.map_acked = 0;
        self.slots_ms = 0;
        self.moves_ms = 0;
        self.clock = None;
        self.is_leased = false;
        was_up
    }

    /// It has refused something that it must be asked again.
    pub(super) fn refuse(&mut self, now: i64, why: &str) {
        self.retry_at_ms = now + BACKOFF_MS_MAX / 2;
        why.clone_into(&mut self.error);
    }

    /// Whether no call of the original's can still do anything there.
    pub(super) fn is_quiet(&self, now: i64) -> bool {
        let is_asked = matches!(&self.in_flight, Some((_, Request::Carry { .. })));
        !is_asked && now >= self.quiet_ms
    }

    /// Whether its slots and moves are known on this connection.
    pub(super) fn is_known(&self) -> bool {
        self.hello.is_some() && self.slots_ms > 0 && self.moves_ms > 0
    }
}

/// How long to wait after so many failures.
pub(super) fn backoff_ms(fails: u32) -> i64 {
    (BACKOFF_MS_MIN << fails.saturating_sub(1).min(10)).min(BACKOFF_MS_MAX)
}
