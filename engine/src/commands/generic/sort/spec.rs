//! What SORT and SORT_RO are.

use crate::commands::generic::sort::{sort, sort_ro};
use crate::commands::spec::*;

/// `SORT`
pub(in crate::commands::generic) const SORT: CommandSpec = CommandSpec {
    name: "sort",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Sorts a list, a set or a sorted set, and returns or stores what it holds",
    complexity: "O(N + M * log(M)) with N elements, M of them returned; O(N) without sorting",
    arity: Arity::AtLeast(2),
    flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::MOVABLE_KEYS),
    acl: Acl::DANGEROUS.union(Acl::LIST).union(Acl::SET).union(Acl::SORTEDSET),
    keys: &[
        KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1),
        KeySpec {
            begin: Begin::Unknown,
            find: Find::Named(&["BY", "GET"]),
            notes: "BY and GET read keys that the elements name, so no rule can tell them",
            ..KeySpec::range(Access::Read, Purpose::Access, 0, 0, 1)
        },
        KeySpec {
            begin: Begin::Unknown,
            find: Find::Behind("STORE"),
            notes: "STORE may stand anywhere among the options",
            ..KeySpec::range(Access::Overwrite, Purpose::Update, 0, 0, 1)
        },
    ],
    args: &[
        Arg::key("key", 0),
        Arg {
            key_spec: Some(1),
            ..Arg::new("pattern", ArgKind::Pattern).with_token("BY").optional()
        },
        Arg::block(
            "offset_count",
            &[Arg::new("offset", ArgKind::Integer), Arg::new("count", ArgKind::Integer)],
        )
        .with_token("LIMIT")
        .optional(),
        Arg {
            key_spec: Some(1),
            ..Arg::new("pattern", ArgKind::Pattern).with_token("GET").optional().multiple_token()
        },
        Arg::one_of("order", &[Arg::token("asc", "ASC"), Arg::token("desc", "DESC")]).optional(),
        Arg::token("sorting", "ALPHA").optional(),
        Arg::key("destination", 2).with_token("STORE").optional(),
    ],
    propagate: Propagate::Rewritten,
    deferral: Deferral::Always,
    handler: Handler::Data(sort),
    ..CommandSpec::EMPTY
};

/// `SORT_RO`
pub(in crate::commands::generic) const SORT_RO: CommandSpec = CommandSpec {
    name: "sort_ro",
    family: Family::Generic,
    since: "7.0.0",
    summary: "Sorts a list, a set or a sorted set, and returns what it holds",
    complexity: "O(N + M * log(M)) with N elements, M of them returned; O(N) without sorting",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY.union(Flags::MOVABLE_KEYS),
    acl: Acl::DANGEROUS.union(Acl::LIST).union(Acl::SET).union(Acl::SORTEDSET),
    keys: &[
        KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1),
        KeySpec {
            begin: Begin::Unknown,
            find: Find::Named(&["BY", "GET"]),
            notes: "BY and GET read keys that the elements name, so no rule can tell them",
            ..KeySpec::range(Access::Read, Purpose::Access, 0, 0, 1)
        },
    ],
    args: &[
        Arg::key("key", 0),
        Arg {
            key_spec: Some(1),
            ..Arg::new("pattern", ArgKind::Pattern).with_token("BY").optional()
        },
        Arg::block(
            "offset_count",
            &[Arg::new("offset", ArgKind::Integer), Arg::new("count", ArgKind::Integer)],
        )
        .with_token("LIMIT")
        .optional(),
        Arg {
            key_spec: Some(1),
            ..Arg::new("pattern", ArgKind::Pattern).with_token("GET").optional().multiple_token()
        },
        Arg::one_of("order", &[Arg::token("asc", "ASC"), Arg::token("desc", "DESC")]).optional(),
        Arg::token("sorting", "ALPHA").optional(),
    ],
    deferral: Deferral::Always,
    handler: Handler::Data(sort_ro),
    ..CommandSpec::EMPTY
};
