//! What handlers want their core to do once they have returned, in order: changes of subscriptions,
//! messages to mail, events to tell. It travels with the core's logical clock, so that everything
//! that writes to the journal can raise events as well.

use std::sync::Arc;

use crate::commands::session_ctx::Micros;
use crate::pubsub::event::Event;
use crate::pubsub::message::Message;
use crate::pubsub::{Kind, Name};
use crate::units::DbIndex;

/// Cores, one bit each.
pub type Cores = u64;

/// One thing to do.
#[derive(Debug)]
pub enum Item {
    /// The calling session has subscribed, at this time.
    Subscribe(Kind, Name, u64),
    /// The calling session has unsubscribed.
    Unsubscribe(Kind, Name),
    /// The calling session monitors, since this time.
    Monitor(u64),
    /// It has stopped.
    Unmonitor,
    /// A message for these cores.
    Publish(Arc<Message>, Cores),
    /// A keyspace event.
    Event(DbIndex, Box<[u8]>, Event),
}

/// The list.
#[derive(Debug, Default)]
pub struct Outbox {
    items: Vec<Item>,
    /// `notify-keyspace-events`, as of the beginning of this round; 0 if nobody listens. For those
    /// who cannot read the settings: expiry and eviction.
    pub event_flags: u32,
    /// Where microseconds come from, for those who run without their core's clock: calls of a
    /// transaction. None where time is given, in tests.
    pub micros: Option<Micros>,
}

impl Outbox {
    /// Whether there is nothing to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds something.
    pub fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    /// Adds something, if there is something.
    pub fn extend(&mut self, item: Option<Item>) {
        self.items.extend(item);
    }

    /// Takes everything; the memory comes back with [`restore`](Self::restore).
    pub fn take(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.items)
    }

    /// Gives an empty list back that `take` gave.
    pub fn restore(&mut self, mut items: Vec<Item>) {
        items.clear();
        items.shrink_to(1024);
        if self.items.is_empty() {
            self.items = items;
        }
    }

    /// Notes an event, if `flags` ask for its class.
    #[cold]
    pub fn raise(&mut self, flags: u32, db: DbIndex, key: &[u8], event: Event) {
        if event.is_wanted(flags) {
            self.items.push(Item::Event(db, key.into(), event));
        }
    }

    /// The same by the flags of this round.
    #[inline]
    pub fn raise_now(&mut self, db: DbIndex, key: &[u8], event: Event) {
        if self.event_flags != 0 {
            self.raise(self.event_flags, db, key, event);
        }
    }
}
