//! What the commands are that change sorted sets.

use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, Begin, CommandSpec, Deferral, Family, Find, Flags, Handler,
    KeySpec, Propagate, Purpose,
};
use crate::commands::zset::{add, blocking, combine, range, remove};

pub(super) const BZMPOP: CommandSpec = CommandSpec {
    name: "bzmpop",
    family: Family::SortedSet,
    since: "7.0.0",
    summary: "Pops members off an end of the first of several sets that has any, or waits",
    complexity: "O(K + M log N) with K keys, N members in the set and M removed",
    arity: Arity::AtLeast(5),
    flags: Flags::WRITE.union(Flags::BLOCKING).union(Flags::MOVABLE_KEYS),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec {
        begin: Begin::Index(2),
        find: Find::Count { count_index: 0, first: 1, step: 1 },
        ..KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 0, 0, 1)
    }],
    args: &[
        Arg::new("timeout", ArgKind::Double),
        Arg::new("numkeys", ArgKind::Integer),
        Arg::key("key", 0).multiple(),
        Arg::one_of("where", &[Arg::token("min", "MIN"), Arg::token("max", "MAX")]),
        Arg::new("count", ArgKind::Integer).with_token("COUNT").optional(),
    ],
    propagate: Propagate::Rewritten,
    handler: Handler::Data(blocking::bzmpop),
    ..CommandSpec::EMPTY
};

pub(super) const BZPOPMAX: CommandSpec = CommandSpec {
    name: "bzpopmax",
    family: Family::SortedSet,
    since: "5.0.0",
    summary: "Pops the member with the highest score off the first of several sets that has any, or waits",
    complexity: "O(log N) with N members in the set",
    arity: Arity::AtLeast(3),
    flags: Flags::WRITE.union(Flags::NOSCRIPT).union(Flags::BLOCKING).union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 1, -2, 1)],
    args: &[Arg::key("key", 0).multiple(), Arg::new("timeout", ArgKind::Double)],
    history: &[("6.0.0", "Takes a fraction of a second as `timeout`.")],
    propagate: Propagate::Rewritten,
    handler: Handler::Data(blocking::bzpopmax),
    ..CommandSpec::EMPTY
};

pub(super) const BZPOPMIN: CommandSpec = CommandSpec {
    name: "bzpopmin",
    family: Family::SortedSet,
    since: "5.0.0",
    summary: "Pops the member with the lowest score off the first of several sets that has any, or waits",
    complexity: "O(log N) with N members in the set",
    arity: Arity::AtLeast(3),
    flags: Flags::WRITE.union(Flags::NOSCRIPT).union(Flags::BLOCKING).union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 1, -2, 1)],
    args: &[Arg::key("key", 0).multiple(), Arg::new("timeout", ArgKind::Double)],
    history: &[("6.0.0", "Takes a fraction of a second as `timeout`.")],
    propagate: Propagate::Rewritten,
    handler: Handler::Data(blocking::bzpopmin),
    ..CommandSpec::EMPTY
};

pub(super) const ZADD: CommandSpec = CommandSpec {
    name: "zadd",
    family: Family::SortedSet,
    since: "1.2.0",
    summary: "Adds members with their scores, or changes the scores of members",
    complexity: "O(log N) for each member, with N members in the set",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::Update, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::one_of("condition", &[Arg::token("nx", "NX"), Arg::token("xx", "XX")])
            .optional()
            .since("3.0.2"),
        Arg::one_of("comparison", &[Arg::token("gt", "GT"), Arg::token("lt", "LT")])
            .optional()
            .since("6.2.0"),
        Arg::token("change", "CH").optional().since("3.0.2"),
        Arg::token("increment", "INCR").optional().since("3.0.2"),
        Arg::block(
            "score_member",
            &[Arg::new("score", ArgKind::Double), Arg::new("member", ArgKind::String)],
        )
        .multiple(),
    ],
    history: &[
        ("2.4.0", "Takes several members."),
        ("3.0.2", "Takes `XX`, `NX`, `CH` and `INCR`."),
        ("6.2.0", "Takes `GT` and `LT`."),
    ],
    propagate: Propagate::Verbatim,
    deferral: Deferral::ManyWords,
    handler: Handler::Data(add::zadd),
    ..CommandSpec::EMPTY
};

pub(super) const ZDIFFSTORE: CommandSpec = CommandSpec {
    name: "zdiffstore",
    family: Family::SortedSet,
    since: "6.2.0",
    summary: "Stores the members of the first set that are in no other under a key",
    complexity: "O(N log M) with N members in all sets and M in the first",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::MOVABLE_KEYS),
    acl: Acl::SORTEDSET,
    keys: &[
        KeySpec::range(Access::Overwrite, Purpose::Update, 1, 0, 1),
        KeySpec {
            begin: Begin::Index(2),
            find: Find::Count { count_index: 0, first: 1, step: 1 },
            ..KeySpec::range(Access::Read, Purpose::Access, 0, 0, 1)
        },
    ],
    args: &[
        Arg::key("destination", 0),
        Arg::new("numkeys", ArgKind::Integer),
        Arg::key("key", 1).multiple(),
    ],
    propagate: Propagate::Rewritten,
    deferral: Deferral::Always,
    handler: Handler::Data(combine::zdiffstore),
    ..CommandSpec::EMPTY
};

pub(super) const ZINCRBY: CommandSpec = CommandSpec {
    name: "zincrby",
    family: Family::SortedSet,
    since: "1.2.0",
    summary: "Adds a number to the score of a member",
    complexity: "O(log N) with N members in the set",
    arity: Arity::Exact(4),
    flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("increment", ArgKind::Integer),
        Arg::new("member", ArgKind::String),
    ],
    propagate: Propagate::Verbatim,
    handler: Handler::Data(add::zincrby),
    ..CommandSpec::EMPTY
};

pub(super) const ZINTERSTORE: CommandSpec = CommandSpec {
    name: "zinterstore",
    family: Family::SortedSet,
    since: "2.0.0",
    summary: "Stores the members that several sets share under a key",
    complexity: "O(N K + M log M) with N members in the smallest of K sets and M in the result",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::MOVABLE_KEYS),
    acl: Acl::SORTEDSET,
    keys: &[
        KeySpec::range(Access::Overwrite, Purpose::Update, 1, 0, 1),
        KeySpec {
            begin: Begin::Index(2),
            find: Find::Count { count_index: 0, first: 1, step: 1 },
            ..KeySpec::range(Access::Read, Purpose::Access, 0, 0, 1)
        },
    ],
    args: &[
        Arg::key("destination", 0),
        Arg::new("numkeys", ArgKind::Integer),
        Arg::key("key", 1).multiple(),
        Arg::new("weight", ArgKind::Integer).with_token("WEIGHTS").optional().multiple(),
        Arg::one_of(
            "aggregate",
            &[Arg::token("sum", "SUM"), Arg::token("min", "MIN"), Arg::token("max", "MAX")],
        )
        .with_token("AGGREGATE")
        .optional(),
    ],
    propagate: Propagate::Rewritten,
    deferral: Deferral::Always,
    handler: Handler::Data(combine::zinterstore),
    ..CommandSpec::EMPTY
};

pub(super) const ZMPOP: CommandSpec = CommandSpec {
    name: "zmpop",
    family: Family::SortedSet,
    since: "7.0.0",
    summary: "Pops members off an end of the first of several sets that has any",
    complexity: "O(K + M log N) with K keys, N members in the set and M removed",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE.union(Flags::MOVABLE_KEYS),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec {
        begin: Begin::Index(1),
        find: Find::Count { count_index: 0, first: 1, step: 1 },
        ..KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 0, 0, 1)
    }],
    args: &[
        Arg::new("numkeys", ArgKind::Integer),
        Arg::key("key", 0).multiple(),
        Arg::one_of("where", &[Arg::token("min", "MIN"), Arg::token("max", "MAX")]),
        Arg::new("count", ArgKind::Integer).with_token("COUNT").optional(),
    ],
    propagate: Propagate::Rewritten,
    handler: Handler::Data(remove::zmpop),
    ..CommandSpec::EMPTY
};

pub(super) const ZPOPMAX: CommandSpec = CommandSpec {
    name: "zpopmax",
    family: Family::SortedSet,
    since: "5.0.0",
    summary: "Removes and returns the members with the highest scores",
    complexity: "O(M log N) with N members in the set and M removed",
    arity: Arity::AtLeast(2),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("count", ArgKind::Integer).optional()],
    propagate: Propagate::Verbatim,
    handler: Handler::Data(remove::zpopmax),
    ..CommandSpec::EMPTY
};

pub(super) const ZPOPMIN: CommandSpec = CommandSpec {
    name: "zpopmin",
    family: Family::SortedSet,
    since: "5.0.0",
    summary: "Removes and returns the members with the lowest scores",
    complexity: "O(M log N) with N members in the set and M removed",
    arity: Arity::AtLeast(2),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("count", ArgKind::Integer).optional()],
    propagate: Propagate::Verbatim,
    handler: Handler::Data(remove::zpopmin),
    ..CommandSpec::EMPTY
};

pub(super) const ZRANGESTORE: CommandSpec = CommandSpec {
    name: "zrangestore",
    family: Family::SortedSet,
    since: "6.2.0",
    summary: "Stores members within a range of ranks, scores or names under another key",
    complexity: "O(log N + M) with N members in the set and M stored",
    arity: Arity::AtLeast(5),
    flags: Flags::WRITE.union(Flags::DENYOOM),
    acl: Acl::SORTEDSET,
    keys: &[
        KeySpec::range(Access::Overwrite, Purpose::Update, 1, 0, 1),
        KeySpec::range(Access::Read, Purpose::Access, 2, 0, 1),
    ],
    args: &[
        Arg::key("dst", 0),
        Arg::key("src", 1),
        Arg::new("min", ArgKind::String),
        Arg::new("max", ArgKind::String),
        Arg::one_of("sortby", &[Arg::token("byscore", "BYSCORE"), Arg::token("bylex", "BYLEX")])
            .optional(),
        Arg::token("rev", "REV").optional(),
        Arg::block(
            "offset_count",
            &[Arg::new("offset", ArgKind::Integer), Arg::new("count", ArgKind::Integer)],
        )
        .with_token("LIMIT")
        .optional(),
    ],
    propagate: Propagate::Rewritten,
    deferral: Deferral::Always,
    handler: Handler::Data(range::zrangestore),
    ..CommandSpec::EMPTY
};

pub(super) const ZREM: CommandSpec = CommandSpec {
    name: "zrem",
    family: Family::SortedSet,
    since: "1.2.0",
    summary: "Removes members",
    complexity: "O(M log N) with M members to remove and N in the set",
    arity: Arity::AtLeast(3),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::Delete, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("member", ArgKind::String).multiple()],
    history: &[("2.4.0", "Takes several members.")],
    propagate: Propagate::Verbatim,
    deferral: Deferral::ManyWords,
    handler: Handler::Data(add::zrem),
    ..CommandSpec::EMPTY
};

pub(super) const ZREMRANGEBYLEX: CommandSpec = CommandSpec {
    name: "zremrangebylex",
    family: Family::SortedSet,
    since: "2.8.9",
    summary: "Removes members within a range of names, where all scores are equal",
    complexity: "O(M log N) with N members in the set and M removed",
    arity: Arity::Exact(4),
    flags: Flags::WRITE,
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::Delete, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("min", ArgKind::String), Arg::new("max", ArgKind::String)],
    propagate: Propagate::Verbatim,
    deferral: Deferral::Always,
    handler: Handler::Data(remove::zremrangebylex),
    ..CommandSpec::EMPTY
};

pub(super) const ZREMRANGEBYRANK: CommandSpec = CommandSpec {
    name: "zremrangebyrank",
    family: Family::SortedSet,
    since: "2.0.0",
    summary: "Removes members within a range of ranks",
    complexity: "O(M log N) with N members in the set and M removed",
    arity: Arity::Exact(4),
    flags: Flags::WRITE,
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::Delete, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("start", ArgKind::Integer),
        Arg::new("stop", ArgKind::Integer),
    ],
    propagate: Propagate::Verbatim,
    deferral: Deferral::Always,
    handler: Handler::Data(remove::zremrangebyrank),
    ..CommandSpec::EMPTY
};

pub(super) const ZREMRANGEBYSCORE: CommandSpec = CommandSpec {
    name: "zremrangebyscore",
    family: Family::SortedSet,
    since: "1.2.0",
    summary: "Removes members within a range of scores",
    complexity: "O(M log N) with N members in the set and M removed",
    arity: Arity::Exact(4),
    flags: Flags::WRITE,
    acl: Acl::SORTEDSET,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::Delete, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("min", ArgKind::Double), Arg::new("max", ArgKind::Double)],
    propagate: Propagate::Verbatim,
    deferral: Deferral::Always,
    handler: Handler::Data(remove::zremrangebyscore),
    ..CommandSpec::EMPTY
};

pub(super) const ZUNIONSTORE: CommandSpec = CommandSpec {
    name: "zunionstore",
    family: Family::SortedSet,
    since: "2.0.0",
    summary: "Stores the members of any of several sets under a key",
    complexity: "O(N log M) with N members in all sets and M in the result",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::MOVABLE_KEYS),
    acl: Acl::SORTEDSET,
    keys: &[
        KeySpec::range(Access::Overwrite, Purpose::Update, 1, 0, 1),
        KeySpec {
            begin: Begin::Index(2),
            find: Find::Count { count_index: 0, first: 1, step: 1 },
            ..KeySpec::range(Access::Read, Purpose::Access, 0, 0, 1)
        },
    ],
    args: &[
        Arg::key("destination", 0),
        Arg::new("numkeys", ArgKind::Integer),
        Arg::key("key", 1).multiple(),
        Arg::new("weight", ArgKind::Integer).with_token("WEIGHTS").optional().multiple(),
        Arg::one_of(
            "aggregate",
            &[Arg::token("sum", "SUM"), Arg::token("min", "MIN"), Arg::token("max", "MAX")],
        )
        .with_token("AGGREGATE")
        .optional(),
    ],
    propagate: Propagate::Rewritten,
    deferral: Deferral::Always,
    handler: Handler::Data(combine::zunionstore),
    ..CommandSpec::EMPTY
};
