//! The hash family: fields with values under one key.
//!
//! Knows no encoding: `types::hash` has it. Handlers run on the core that holds the shard of their
//! key; replies that are long are written while they are sent, from a snapshot.

mod counter;
mod random;
mod read;
mod scan;
#[cfg(test)]
mod tests;
mod write;

use crate::commands::spec::*;

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "hdel",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Removes fields from a hash; a hash without fields is no more",
        complexity: "O(N) with N fields named",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Delete, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("field", ArgKind::String).multiple()],
        history: &[("2.4.0", "Takes several fields")],
        propagate: Propagate::Verbatim,
        deferral: Deferral::ManyWords,
        handler: Handler::Data(write::hdel),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hexists",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Tells whether a hash has a field",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::Read, Purpose::None, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("field", ArgKind::String)],
        handler: Handler::Data(read::hexists),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hget",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Returns the value of one field of a hash",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("field", ArgKind::String)],
        handler: Handler::Data(read::hget),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hgetall",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Returns all fields of a hash with their values",
        complexity: "O(N) with N fields in the hash",
        arity: Arity::Exact(2),
        flags: Flags::READONLY,
        acl: Acl::HASH,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        handler: Handler::Data(read::hgetall),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hincrby",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Adds a number to an integer in a hash; a missing field counts as 0",
        complexity: "O(1)",
        arity: Arity::Exact(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("field", ArgKind::String),
            Arg::new("increment", ArgKind::Integer),
        ],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(counter::hincrby),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hincrbyfloat",
        family: Family::Hash,
        since: "2.6.0",
        summary: "Adds a number with a fraction to a number in a hash; a missing field counts as 0",
        complexity: "O(1)",
        arity: Arity::Exact(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("field", ArgKind::String),
            Arg::new("increment", ArgKind::Double),
        ],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(counter::hincrbyfloat),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hkeys",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Returns all fields of a hash without their values",
        complexity: "O(N) with N fields in the hash",
        arity: Arity::Exact(2),
        flags: Flags::READONLY,
        acl: Acl::HASH,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        handler: Handler::Data(read::hkeys),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hlen",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Counts the fields of a hash",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::Read, Purpose::None, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        handler: Handler::Data(read::hlen),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hmget",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Returns the values of several fields of a hash",
        complexity: "O(N) with N fields asked for",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("field", ArgKind::String).multiple()],
        deferral: Deferral::ManyWords,
        handler: Handler::Data(read::hmget),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hmset",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Sets several fields of a hash: the old form of HSET",
        complexity: "O(N) with N fields set",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Update, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::block(
                "field_value",
                &[Arg::new("field", ArgKind::String), Arg::new("value", ArgKind::String)],
            )
            .multiple(),
        ],
        deprecated: Some(("4.0.0", "`HSET` with several fields")),
        propagate: Propagate::Verbatim,
        deferral: Deferral::ManyWords,
        handler: Handler::Data(write::hmset),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hrandfield",
        family: Family::Hash,
        since: "6.2.0",
        summary: "Returns random fields of a hash, with their values if asked",
        complexity: "O(N) with N fields returned",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Acl::HASH,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::block(
                "options",
                &[
                    Arg::new("count", ArgKind::Integer),
                    Arg::token("withvalues", "WITHVALUES").optional(),
                ],
            )
            .optional(),
        ],
        handler: Handler::Data(random::hrandfield),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hscan",
        family: Family::Hash,
        since: "2.8.0",
        summary: "Lists some fields of a hash with their values, and a cursor at which the next call goes on",
        complexity: "O(1) for a call, O(N) for all calls until the cursor is 0 again, with N fields",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Acl::HASH,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("cursor", ArgKind::Integer),
            Arg::new("pattern", ArgKind::Pattern).with_token("MATCH").optional(),
            Arg::new("count", ArgKind::Integer).with_token("COUNT").optional(),
        ],
        deferral: Deferral::FromWords(5),
        handler: Handler::Data(scan::hscan),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hset",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Sets fields of a hash, and makes the hash if it is missing",
        complexity: "O(N) with N fields set",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Update, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::block(
                "field_value",
                &[Arg::new("field", ArgKind::String), Arg::new("value", ArgKind::String)],
            )
            .multiple(),
        ],
        history: &[("4.0.0", "Takes several fields with their values")],
        propagate: Propagate::Verbatim,
        deferral: Deferral::ManyWords,
        handler: Handler::Data(write::hset),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hsetnx",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Sets a field of a hash unless it is there",
        complexity: "O(1)",
        arity: Arity::Exact(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Insert, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("field", ArgKind::String),
            Arg::new("value", ArgKind::String),
        ],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(write::hsetnx),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hstrlen",
        family: Family::Hash,
        since: "3.2.0",
        summary: "Returns the length of the value of one field of a hash",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::HASH,
        keys: &[KeySpec::range(Access::Read, Purpose::None, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("field", ArgKind::String)],
        handler: Handler::Data(read::hstrlen),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hvals",
        family: Family::Hash,
        since: "2.0.0",
        summary: "Returns the values of all fields of a hash",
        complexity: "O(N) with N fields in the hash",
        arity: Arity::Exact(2),
        flags: Flags::READONLY,
        acl: Acl::HASH,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        handler: Handler::Data(read::hvals),
        ..CommandSpec::EMPTY
    },
];
