//! What the commands are that read sorted sets.

use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, Begin, CommandSpec, Deferral, Family, Find, Flags, Handler,
    KeySpec, Purpose,
};
use crate::commands::zset::{combine, random, range, read, scan};

pub(super) const ZCARD: CommandSpec = CommandSpec {
    name: "zcard",
    family: Family::SortedSet,
    since: "1.2.0",
    summary: "Counts the members",
    complexity: "O(1)",
    arity: Arity::Exact(2),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::None, 1, 0, 1)],
    args: &[Arg::key("key", 0)],
    handler: Handler::Data(read::zcard),
    ..CommandSpec::EMPTY
};

pub(super) const ZCOUNT: CommandSpec = CommandSpec {
    name: "zcount",
    family: Family::SortedSet,
    since: "2.0.0",
    summary: "Counts the members whose scores are within a range",
    complexity: "O(log N) with N members in the set",
    arity: Arity::Exact(4),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("min", ArgKind::Double), Arg::new("max", ArgKind::Double)],
    handler: Handler::Data(read::zcount),
    ..CommandSpec::EMPTY
};

pub(super) const ZDIFF: CommandSpec = CommandSpec {
    name: "zdiff",
    family: Family::SortedSet,
    since: "6.2.0",
    summary: "Returns the members of the first set that are in no other",
    complexity: "O(N log M) with N members in all sets and M in the first",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY.union(Flags::MOVABLE_KEYS),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec {
        begin: Begin::Index(1),
        find: Find::Count { count_index: 0, first: 1, step: 1 },
        ..KeySpec::range(Access::Read, Purpose::Access, 0, 0, 1)
    }],
    args: &[
        Arg::new("numkeys", ArgKind::Integer),
        Arg::key("key", 0).multiple(),
        Arg::token("withscores", "WITHSCORES").optional(),
    ],
    deferral: Deferral::Always,
    handler: Handler::Data(combine::zdiff),
    ..CommandSpec::EMPTY
};

pub(super) const ZINTER: CommandSpec = CommandSpec {
    name: "zinter",
    family: Family::SortedSet,
    since: "6.2.0",
    summary: "Returns the members that several sets share",
    complexity: "O(N K + M log M) with N members in the smallest of K sets and M in the result",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY.union(Flags::MOVABLE_KEYS),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec {
        begin: Begin::Index(1),
        find: Find::Count { count_index: 0, first: 1, step: 1 },
        ..KeySpec::range(Access::Read, Purpose::Access, 0, 0, 1)
    }],
    args: &[
        Arg::new("numkeys", ArgKind::Integer),
        Arg::key("key", 0).multiple(),
        Arg::new("weight", ArgKind::Integer).with_token("WEIGHTS").optional().multiple(),
        Arg::one_of(
            "aggregate",
            &[Arg::token("sum", "SUM"), Arg::token("min", "MIN"), Arg::token("max", "MAX")],
        )
        .with_token("AGGREGATE")
        .optional(),
        Arg::token("withscores", "WITHSCORES").optional(),
    ],
    deferral: Deferral::Always,
    handler: Handler::Data(combine::zinter),
    ..CommandSpec::EMPTY
};

pub(super) const ZINTERCARD: CommandSpec = CommandSpec {
    name: "zintercard",
    family: Family::SortedSet,
    since: "7.0.0",
    summary: "Counts the members that several sets share",
    complexity: "O(N K) with N members in the smallest of K sets",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY.union(Flags::MOVABLE_KEYS),
    acl: Acl::SORTEDSET,
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
    handler: Handler::Data(combine::zintercard),
    ..CommandSpec::EMPTY
};

pub(super) const ZLEXCOUNT: CommandSpec = CommandSpec {
    name: "zlexcount",
    family: Family::SortedSet,
    since: "2.8.9",
    summary: "Counts the members within a range of names",
    complexity: "O(log N) with N members in the set",
    arity: Arity::Exact(4),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("min", ArgKind::String), Arg::new("max", ArgKind::String)],
    handler: Handler::Data(read::zlexcount),
    ..CommandSpec::EMPTY
};

pub(super) const ZMSCORE: CommandSpec = CommandSpec {
    name: "zmscore",
    family: Family::SortedSet,
    since: "6.2.0",
    summary: "Tells the scores of several members",
    complexity: "O(M log N) with M members asked for and N in the set",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("member", ArgKind::String).multiple()],
    deferral: Deferral::ManyWords,
    handler: Handler::Data(read::zmscore),
    ..CommandSpec::EMPTY
};

pub(super) const ZRANDMEMBER: CommandSpec = CommandSpec {
    name: "zrandmember",
    family: Family::SortedSet,
    since: "6.2.0",
    summary: "Picks members at random",
    complexity: "O(M log N) with N members in the set and M in the reply",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    tips: &["nondeterministic_output"],
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::block(
            "options",
            &[
                Arg::new("count", ArgKind::Integer),
                Arg::token("withscores", "WITHSCORES").optional(),
            ],
        )
        .optional(),
    ],
    handler: Handler::Data(random::zrandmember),
    ..CommandSpec::EMPTY
};

pub(super) const ZRANGE: CommandSpec = CommandSpec {
    name: "zrange",
    family: Family::SortedSet,
    since: "1.2.0",
    summary: "Lists members within a range of ranks, scores or names",
    complexity: "O(log N + M) with N members in the set and M in the reply",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("start", ArgKind::String),
        Arg::new("stop", ArgKind::String),
        Arg::one_of("sortby", &[Arg::token("byscore", "BYSCORE"), Arg::token("bylex", "BYLEX")])
            .optional()
            .since("6.2.0"),
        Arg::token("rev", "REV").optional().since("6.2.0"),
        Arg::block(
            "offset_count",
            &[Arg::new("offset", ArgKind::Integer), Arg::new("count", ArgKind::Integer)],
        )
        .with_token("LIMIT")
        .optional()
        .since("6.2.0"),
        Arg::token("withscores", "WITHSCORES").optional(),
    ],
    history: &[("6.2.0", "Takes `REV`, `BYSCORE`, `BYLEX` and `LIMIT`.")],
    handler: Handler::Data(range::zrange),
    ..CommandSpec::EMPTY
};

pub(super) const ZRANGEBYLEX: CommandSpec = CommandSpec {
    name: "zrangebylex",
    family: Family::SortedSet,
    since: "2.8.9",
    summary: "Lists members within a range of names, where all scores are equal",
    complexity: "O(log N + M) with N members in the set and M in the reply",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("min", ArgKind::String),
        Arg::new("max", ArgKind::String),
        Arg::block(
            "offset_count",
            &[Arg::new("offset", ArgKind::Integer), Arg::new("count", ArgKind::Integer)],
        )
        .with_token("LIMIT")
        .optional(),
    ],
    deprecated: Some(("6.2.0", "`ZRANGE` with the `BYLEX` argument")),
    handler: Handler::Data(range::zrangebylex),
    ..CommandSpec::EMPTY
};

pub(super) const ZRANGEBYSCORE: CommandSpec = CommandSpec {
    name: "zrangebyscore",
    family: Family::SortedSet,
    since: "1.0.5",
    summary: "Lists members within a range of scores",
    complexity: "O(log N + M) with N members in the set and M in the reply",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("min", ArgKind::Double),
        Arg::new("max", ArgKind::Double),
        Arg::token("withscores", "WITHSCORES").optional().since("2.0.0"),
        Arg::block(
            "offset_count",
            &[Arg::new("offset", ArgKind::Integer), Arg::new("count", ArgKind::Integer)],
        )
        .with_token("LIMIT")
        .optional(),
    ],
    history: &[("2.0.0", "Takes `WITHSCORES`.")],
    deprecated: Some(("6.2.0", "`ZRANGE` with the `BYSCORE` argument")),
    handler: Handler::Data(range::zrangebyscore),
    ..CommandSpec::EMPTY
};

pub(super) const ZRANK: CommandSpec = CommandSpec {
    name: "zrank",
    family: Family::SortedSet,
    since: "2.0.0",
    summary: "Tells how many members come before one",
    complexity: "O(log N)",
    arity: Arity::Exact(3),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("member", ArgKind::String)],
    handler: Handler::Data(read::zrank),
    ..CommandSpec::EMPTY
};

pub(super) const ZREVRANGE: CommandSpec = CommandSpec {
    name: "zrevrange",
    family: Family::SortedSet,
    since: "1.2.0",
    summary: "Lists members within a range of ranks, from the highest down",
    complexity: "O(log N + M) with N members in the set and M in the reply",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("start", ArgKind::Integer),
        Arg::new("stop", ArgKind::Integer),
        Arg::token("withscores", "WITHSCORES").optional(),
    ],
    deprecated: Some(("6.2.0", "`ZRANGE` with the `REV` argument")),
    handler: Handler::Data(range::zrevrange),
    ..CommandSpec::EMPTY
};

pub(super) const ZREVRANGEBYLEX: CommandSpec = CommandSpec {
    name: "zrevrangebylex",
    family: Family::SortedSet,
    since: "2.8.9",
    summary: "Lists members within a range of names from the last up, where all scores are equal",
    complexity: "O(log N + M) with N members in the set and M in the reply",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("max", ArgKind::String),
        Arg::new("min", ArgKind::String),
        Arg::block(
            "offset_count",
            &[Arg::new("offset", ArgKind::Integer), Arg::new("count", ArgKind::Integer)],
        )
        .with_token("LIMIT")
        .optional(),
    ],
    deprecated: Some(("6.2.0", "`ZRANGE` with the `REV` and `BYLEX` arguments")),
    handler: Handler::Data(range::zrevrangebylex),
    ..CommandSpec::EMPTY
};

pub(super) const ZREVRANGEBYSCORE: CommandSpec = CommandSpec {
    name: "zrevrangebyscore",
    family: Family::SortedSet,
    since: "2.2.0",
    summary: "Lists members within a range of scores, from the highest down",
    complexity: "O(log N + M) with N members in the set and M in the reply",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("max", ArgKind::Double),
        Arg::new("min", ArgKind::Double),
        Arg::token("withscores", "WITHSCORES").optional(),
        Arg::block(
            "offset_count",
            &[Arg::new("offset", ArgKind::Integer), Arg::new("count", ArgKind::Integer)],
        )
        .with_token("LIMIT")
        .optional(),
    ],
    history: &[("2.1.6", "Takes bounds that are not part of the range.")],
    deprecated: Some(("6.2.0", "`ZRANGE` with the `REV` and `BYSCORE` arguments")),
    handler: Handler::Data(range::zrevrangebyscore),
    ..CommandSpec::EMPTY
};

pub(super) const ZREVRANK: CommandSpec = CommandSpec {
    name: "zrevrank",
    family: Family::SortedSet,
    since: "2.0.0",
    summary: "Tells how many members come after one",
    complexity: "O(log N)",
    arity: Arity::Exact(3),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("member", ArgKind::String)],
    handler: Handler::Data(read::zrevrank),
    ..CommandSpec::EMPTY
};

pub(super) const ZSCAN: CommandSpec = CommandSpec {
    name: "zscan",
    family: Family::SortedSet,
    since: "2.8.0",
    summary: "Lists some members with their scores and a cursor at which the next call goes on",
    complexity: "O(1) for a call, O(N) for all calls until the cursor is 0 again, with N members",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY,
    acl: Acl::SORTEDSET,
    tips: &["nondeterministic_output"],
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("cursor", ArgKind::Integer),
        Arg::new("pattern", ArgKind::Pattern).with_token("MATCH").optional(),
        Arg::new("count", ArgKind::Integer).with_token("COUNT").optional(),
    ],
    handler: Handler::Data(scan::zscan),
    ..CommandSpec::EMPTY
};

pub(super) const ZSCORE: CommandSpec = CommandSpec {
    name: "zscore",
    family: Family::SortedSet,
    since: "1.2.0",
    summary: "Tells the score of a member",
    complexity: "O(log N) with N members in the set",
    arity: Arity::Exact(3),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("member", ArgKind::String)],
    handler: Handler::Data(read::zscore),
    ..CommandSpec::EMPTY
};

pub(super) const ZUNION: CommandSpec = CommandSpec {
    name: "zunion",
    family: Family::SortedSet,
    since: "6.2.0",
    summary: "Returns the members of any of several sets",
    complexity: "O(N log M) with N members in all sets and M in the result",
    arity: Arity::AtLeast(3),
    flags: Flags::READONLY.union(Flags::MOVABLE_KEYS),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec {
        begin: Begin::Index(1),
        find: Find::Count { count_index: 0, first: 1, step: 1 },
        ..KeySpec::range(Access::Read, Purpose::Access, 0, 0, 1)
    }],
    args: &[
        Arg::new("numkeys", ArgKind::Integer),
        Arg::key("key", 0).multiple(),
        Arg::new("weight", ArgKind::Integer).with_token("WEIGHTS").optional().multiple(),
        Arg::one_of(
            "aggregate",
            &[Arg::token("sum", "SUM"), Arg::token("min", "MIN"), Arg::token("max", "MAX")],
        )
        .with_token("AGGREGATE")
        .optional(),
        Arg::token("withscores", "WITHSCORES").optional(),
    ],
    deferral: Deferral::Always,
    handler: Handler::Data(combine::zunion),
    ..CommandSpec::EMPTY
};
