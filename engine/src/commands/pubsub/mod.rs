//! The pubsub family: channels, patterns and shard channels. Handlers change the session's own list
//! and the registry of the process, and leave the rest to their core (`pubsub::outbox`).

mod publish;
mod show;
pub mod steps;
mod subscribe;
#[cfg(test)]
mod tests;

pub use subscribe::leave;

use crate::commands::spec::{
    Access, Arg, ArgKind, Arity, CommandSpec, Family, Flags, Handler, KeySpec, Purpose, Route,
};

/// Flags of all of them.
const SHOW: Flags = Flags::PUBSUB.union(Flags::LOADING).union(Flags::STALE);
/// Flags of what publishes.
const PUBLISH: Flags = SHOW.union(Flags::FAST).union(Flags::MAY_REPLICATE);
/// Flags of what changes subscriptions.
const SUBSCRIBE: Flags = SHOW.union(Flags::NOSCRIPT);

/// Shard channels decide the slot of a call, as keys do, and are no keys.
const SHARD_CHANNELS: KeySpec =
    KeySpec { not_key: true, ..KeySpec::range(Access::Read, Purpose::None, 1, -1, 1) };

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "psubscribe",
        family: Family::PubSub,
        since: "2.0.0",
        summary: "Subscribes the connection to all channels that match a pattern",
        complexity: "O(N) with N patterns",
        arity: Arity::AtLeast(2),
        flags: SUBSCRIBE,
        args: &[Arg::block("pattern", &[Arg::new("pattern", ArgKind::Pattern)]).multiple()],
        route: Route::Session,
        handler: Handler::Session(subscribe::psubscribe),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "publish",
        family: Family::PubSub,
        since: "2.0.0",
        summary: "Sends a message to all subscribers of a channel",
        complexity: "O(N + M) with N subscribers of the channel and M patterns in use",
        arity: Arity::Exact(3),
        flags: PUBLISH,
        args: &[Arg::new("channel", ArgKind::String), Arg::new("message", ArgKind::String)],
        route: Route::Session,
        handler: Handler::Session(publish::publish),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pubsub",
        family: Family::PubSub,
        since: "2.8.0",
        summary: "Shows channels and how many are subscribed to them",
        complexity: "Depends on the subcommand",
        arity: Arity::AtLeast(2),
        route: Route::Session,
        subcommands: PUBSUB,
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "punsubscribe",
        family: Family::PubSub,
        since: "2.0.0",
        summary: "Ends subscriptions to patterns, or all of them",
        complexity: "O(N) with N patterns",
        arity: Arity::AtLeast(1),
        flags: SUBSCRIBE,
        args: &[Arg::new("pattern", ArgKind::Pattern).optional().multiple()],
        route: Route::Session,
        handler: Handler::Session(subscribe::punsubscribe),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "spublish",
        family: Family::PubSub,
        since: "7.0.0",
        summary: "Sends a message to all subscribers of a shard channel",
        complexity: "O(N) with N subscribers of the shard channel",
        arity: Arity::Exact(3),
        flags: PUBLISH,
        keys: &[KeySpec { not_key: true, ..KeySpec::range(Access::Read, Purpose::None, 1, 0, 1) }],
        args: &[Arg::new("shardchannel", ArgKind::String), Arg::new("message", ArgKind::String)],
        route: Route::Session,
        handler: Handler::Session(publish::spublish),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "ssubscribe",
        family: Family::PubSub,
        since: "7.0.0",
        summary: "Subscribes the connection to shard channels",
        complexity: "O(N) with N shard channels",
        arity: Arity::AtLeast(2),
        flags: SUBSCRIBE,
        keys: &[SHARD_CHANNELS],
        args: &[Arg::new("shardchannel", ArgKind::String).multiple()],
        route: Route::Session,
        handler: Handler::Session(subscribe::ssubscribe),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "subscribe",
        family: Family::PubSub,
        since: "2.0.0",
        summary: "Subscribes the connection to channels",
        complexity: "O(N) with N channels",
        arity: Arity::AtLeast(2),
        flags: SUBSCRIBE,
        args: &[Arg::new("channel", ArgKind::String).multiple()],
        route: Route::Session,
        handler: Handler::Session(subscribe::subscribe),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sunsubscribe",
        family: Family::PubSub,
        since: "7.0.0",
        summary: "Ends subscriptions to shard channels, or all of them",
        complexity: "O(N) with N shard channels",
        arity: Arity::AtLeast(1),
        flags: SUBSCRIBE,
        keys: &[SHARD_CHANNELS],
        args: &[Arg::new("shardchannel", ArgKind::String).optional().multiple()],
        route: Route::Session,
        handler: Handler::Session(subscribe::sunsubscribe),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "unsubscribe",
        family: Family::PubSub,
        since: "2.0.0",
        summary: "Ends subscriptions to channels, or all of them",
        complexity: "O(N) with N channels",
        arity: Arity::AtLeast(1),
        flags: SUBSCRIBE,
        args: &[Arg::new("channel", ArgKind::String).optional().multiple()],
        route: Route::Session,
        handler: Handler::Session(subscribe::unsubscribe),
        ..CommandSpec::EMPTY
    },
];

/// Subcommands of PUBSUB.
const PUBSUB: &[CommandSpec] = &[
    CommandSpec {
        name: "pubsub|channels",
        family: Family::PubSub,
        since: "2.8.0",
        summary: "Lists the channels that have subscribers",
        complexity: "O(N) with N channels",
        arity: Arity::AtLeast(2),
        flags: SHOW,
        args: &[Arg::new("pattern", ArgKind::Pattern).optional()],
        route: Route::Session,
        handler: Handler::Session(show::channels),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pubsub|help",
        family: Family::PubSub,
        since: "6.2.0",
        summary: "Lists the subcommands",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::LOADING.union(Flags::STALE),
        route: Route::Session,
        handler: Handler::Session(show::help),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pubsub|numpat",
        family: Family::PubSub,
        since: "2.8.0",
        summary: "Counts the patterns that have subscribers",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: SHOW,
        route: Route::Session,
        handler: Handler::Session(show::numpat),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pubsub|numsub",
        family: Family::PubSub,
        since: "2.8.0",
        summary: "Counts the subscribers of channels",
        complexity: "O(N) with N channels asked for",
        arity: Arity::AtLeast(2),
        flags: SHOW,
        args: &[Arg::new("channel", ArgKind::String).optional().multiple()],
        route: Route::Session,
        handler: Handler::Session(show::numsub),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pubsub|shardchannels",
        family: Family::PubSub,
        since: "7.0.0",
        summary: "Lists the shard channels that have subscribers",
        complexity: "O(N) with N shard channels",
        arity: Arity::AtLeast(2),
        flags: SHOW,
        args: &[Arg::new("pattern", ArgKind::Pattern).optional()],
        route: Route::Session,
        handler: Handler::Session(show::shardchannels),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pubsub|shardnumsub",
        family: Family::PubSub,
        since: "7.0.0",
        summary: "Counts the subscribers of shard channels",
        complexity: "O(N) with N shard channels asked for",
        arity: Arity::AtLeast(2),
        flags: SHOW,
        args: &[Arg::new("shardchannel", ArgKind::String).optional().multiple()],
        route: Route::Session,
        handler: Handler::Session(show::shardnumsub),
        ..CommandSpec::EMPTY
    },
];
