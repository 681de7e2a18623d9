//! The set family: members, random choices, and sets made of other sets.
//!
//! Knows no form of a set: what it is stored as is the type's business. Handlers run on the core that
//! holds the shards of their keys; what is long works on snapshots and holds none.

mod members;
mod ops;
mod random;
mod reply;

use crate::commands::spec::*;

/// How often a long command begins because what it read has changed meanwhile. After that it runs to
/// its end at once: somebody who never stops writing must not keep it from ever ending.
const TRIES_MAX: u32 = 8;

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "sadd",
        family: Family::Set,
        since: "1.0.0",
        summary: "Adds members to a set, and makes the set if it is missing",
        complexity: "O(N) with N members given",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::SET,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Insert, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("member", ArgKind::String).multiple()],
        history: &[("2.4.0", "Takes several members.")],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(members::sadd),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "scard",
        family: Family::Set,
        since: "1.0.0",
        summary: "Counts the members of a set",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::SET,
        keys: &[KeySpec::range(Access::Read, Purpose::None, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        handler: Handler::Data(members::scard),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sdiff",
        family: Family::Set,
        since: "1.0.0",
        summary: "Returns the members of a set that are in none of the other sets",
        complexity: "O(N) with N members in all sets",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Acl::SET,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, -1, 1)],
        args: &[Arg::key("key", 0).multiple()],
        deferral: Deferral::Always,
        handler: Handler::Data(ops::sdiff),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sdiffstore",
        family: Family::Set,
        since: "1.0.0",
        summary: "Stores the members of a set that are in none of the other sets",
        complexity: "O(N) with N members in all sets",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::SET,
        keys: &[
            KeySpec::range(Access::Overwrite, Purpose::Update, 1, 0, 1),
            KeySpec::range(Access::Read, Purpose::Access, 2, -1, 1),
        ],
        args: &[Arg::key("destination", 0), Arg::key("key", 1).multiple()],
        propagate: Propagate::Rewritten,
        deferral: Deferral::Always,
        handler: Handler::Data(ops::sdiffstore),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sinter",
        family: Family::Set,
        since: "1.0.0",
        summary: "Returns the members that all sets have in common",
        complexity: "O(N*M) with N members in the smallest of M sets",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Acl::SET,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, -1, 1)],
        args: &[Arg::key("key", 0).multiple()],
        deferral: Deferral::Always,
        handler: Handler::Data(ops::sinter),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sintercard",
        family: Family::Set,
        since: "7.0.0",
        summary: "Counts the members that all sets have in common",
        complexity: "O(N*M) with N members in the smallest of M sets",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY.union(Flags::MOVABLE_KEYS),
        acl: Acl::SET,
        keys: &[KeySpec {
            begin: Begin::Index(1),
            find: Find::Count { count_index: 0, first: 1, step: 1 },
            ..KeySpec::range(Access::Read, Purpose::Access, 0, 0, 1)
        }],
        args: &[
            Arg::new("numkeys", ArgKind::Integer),
            Arg::key("key", 0).multiple(),
            Arg::new("limit", ArgKind::Integer).with_token("LIMIT").optional(),
        ],
        deferral: Deferral::Always,
        handler: Handler::Data(ops::sintercard),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sinterstore",
        family: Family::Set,
        since: "1.0.0",
        summary: "Stores the members that all sets have in common",
        complexity: "O(N*M) with N members in the smallest of M sets",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::SET,
        keys: &[
            KeySpec::range(Access::ReadWrite, Purpose::Update, 1, 0, 1),
            KeySpec::range(Access::Read, Purpose::Access, 2, -1, 1),
        ],
        args: &[Arg::key("destination", 0), Arg::key("key", 1).multiple()],
        propagate: Propagate::Rewritten,
        deferral: Deferral::Always,
        handler: Handler::Data(ops::sinterstore),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sismember",
        family: Family::Set,
        since: "1.0.0",
        summary: "Tells whether a member is in a set",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::SET,
        keys: &[KeySpec::range(Access::Read, Purpose::None, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("member", ArgKind::String)],
        handler: Handler::Data(members::sismember),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "smembers",
        family: Family::Set,
        since: "1.0.0",
        summary: "Returns all members of a set",
        complexity: "O(N) with N members",
        arity: Arity::Exact(2),
        flags: Flags::READONLY,
        acl: Acl::SET,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0)],
        handler: Handler::Data(members::smembers),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "smismember",
        family: Family::Set,
        since: "6.2.0",
        summary: "Tells for each of several members whether it is in a set",
        complexity: "O(N) with N members asked about",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::SET,
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("member", ArgKind::String).multiple()],
        handler: Handler::Data(members::smismember),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "smove",
        family: Family::Set,
        since: "1.0.0",
        summary: "Moves a member from one set to another",
        complexity: "O(1)",
        arity: Arity::Exact(4),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Acl::SET,
        keys: &[
            KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 1, 0, 1),
            KeySpec::range(Access::ReadWrite, Purpose::Insert, 2, 0, 1),
        ],
        args: &[
            Arg::key("source", 0),
            Arg::key("destination", 1),
            Arg::new("member", ArgKind::String),
        ],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(members::smove),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "spop",
        family: Family::Set,
        since: "1.0.0",
        summary: "Takes random members out of a set, which is deleted when it has no more",
        complexity: "O(N) with N members taken",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Acl::SET,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("count", ArgKind::Integer).optional().since("3.2.0")],
        history: &[("3.2.0", "Takes `count`.")],
        propagate: Propagate::Rewritten,
        deferral: Deferral::FromWords(3),
        handler: Handler::Data(random::spop),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "srandmember",
        family: Family::Set,
        since: "1.0.0",
        summary: "Returns random members of a set, which keeps them",
        complexity: "O(N) with N members returned",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Acl::SET,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("count", ArgKind::Integer).optional().since("2.6.0")],
        history: &[("2.6.0", "Takes `count`.")],
        handler: Handler::Data(random::srandmember),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "srem",
        family: Family::Set,
        since: "1.0.0",
        summary: "Removes members from a set, which is deleted when it has no more",
        complexity: "O(N) with N members given",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Acl::SET,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Delete, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("member", ArgKind::String).multiple()],
        history: &[("2.4.0", "Takes several members.")],
        propagate: Propagate::Verbatim,
        handler: Handler::Data(members::srem),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sscan",
        family: Family::Set,
        since: "2.8.0",
        summary: "Lists some members of a set and a cursor at which the next call goes on",
        complexity: "O(1) for a call, O(N) for all calls until the cursor is 0 again, with N members",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Acl::SET,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
        args: &[
            Arg::key("key", 0),
            Arg::new("cursor", ArgKind::Integer),
            Arg::new("pattern", ArgKind::Pattern).with_token("MATCH").optional(),
            Arg::new("count", ArgKind::Integer).with_token("COUNT").optional(),
        ],
        handler: Handler::Data(members::sscan),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sunion",
        family: Family::Set,
        since: "1.0.0",
        summary: "Returns the members that any of the sets has",
        complexity: "O(N) with N members in all sets",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Acl::SET,
        tips: &["nondeterministic_output_order"],
        keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, -1, 1)],
        args: &[Arg::key("key", 0).multiple()],
        deferral: Deferral::Always,
        handler: Handler::Data(ops::sunion),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "sunionstore",
        family: Family::Set,
        since: "1.0.0",
        summary: "Stores the members that any of the sets has",
        complexity: "O(N) with N members in all sets",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::SET,
        keys: &[
            KeySpec::range(Access::Overwrite, Purpose::Update, 1, 0, 1),
            KeySpec::range(Access::Read, Purpose::Access, 2, -1, 1),
        ],
        args: &[Arg::key("destination", 0), Arg::key("key", 1).multiple()],
        propagate: Propagate::Rewritten,
        deferral: Deferral::Always,
        handler: Handler::Data(ops::sunionstore),
        ..CommandSpec::EMPTY
    },
];

#[cfg(test)]
mod tests;
