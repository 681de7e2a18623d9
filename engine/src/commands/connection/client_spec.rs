//! What CLIENT and its subcommands are.

use super::client::{
    caching, getname, getredir, help, id, info, kill, list, no_evict, pause, reply, setname,
    trackinginfo, unblock, unpause,
};
use crate::commands::spec::{Acl, Arg, ArgKind, Arity, CommandSpec, Family, Flags, Handler, Route};

const FLAGS: Flags = Flags::NOSCRIPT.union(Flags::LOADING).union(Flags::STALE);
const ADMIN_FLAGS: Flags = FLAGS.union(Flags::ADMIN);

/// CLIENT.
pub(super) const CLIENT: CommandSpec = CommandSpec {
    name: "client",
    family: Family::Connection,
    since: "2.4.0",
    summary: "Holds the commands about client connections",
    complexity: "Depends on the subcommand",
    arity: Arity::AtLeast(2),
    route: Route::Session,
    subcommands: &[
        CommandSpec {
            name: "client|caching",
            family: Family::Connection,
            since: "6.0.0",
            summary: "Says whether the next call's keys are tracked, in the opt-in and opt-out modes of tracking",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: FLAGS,
            acl: Acl::CONNECTION,
            args: &[Arg::one_of("mode", &[Arg::token("yes", "YES"), Arg::token("no", "NO")])],
            route: Route::Session,
            handler: Handler::Session(caching),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|getname",
            family: Family::Connection,
            since: "2.6.9",
            summary: "Returns the name of the connection",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: FLAGS,
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(getname),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|getredir",
            family: Family::Connection,
            since: "6.0.0",
            summary: "Returns the id of the client that invalidation messages go to",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: FLAGS,
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(getredir),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|help",
            family: Family::Connection,
            since: "5.0.0",
            summary: "Describes the subcommands of CLIENT",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(help),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|id",
            family: Family::Connection,
            since: "5.0.0",
            summary: "Returns the id of the connection",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: FLAGS,
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(id),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|info",
            family: Family::Connection,
            since: "6.2.0",
            summary: "Describes the connection",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: FLAGS,
            acl: Acl::CONNECTION,
            tips: &["nondeterministic_output"],
            route: Route::Session,
            handler: Handler::Session(info),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|kill",
            family: Family::Connection,
            since: "2.4.0",
            summary: "Closes connections",
            complexity: "O(N) with N connections",
            arity: Arity::AtLeast(3),
            flags: ADMIN_FLAGS,
            acl: Acl::CONNECTION,
            args: &[Arg::one_of(
                "filter",
                &[
                    Arg::new("ip:port", ArgKind::String).deprecated("2.8.12"),
                    Arg::one_of(
                        "new-format",
                        &[
                            Arg::new("client-id", ArgKind::Integer)
                                .with_token("ID")
                                .optional()
                                .since("2.8.12"),
                            Arg::one_of(
                                "normal_master_slave_pubsub",
                                &[
                                    Arg::token("normal", "NORMAL"),
                                    Arg::token("master", "MASTER").since("3.2.0"),
                                    Arg::token("slave", "SLAVE"),
                                    Arg::token("replica", "REPLICA").since("5.0.0"),
                                    Arg::token("pubsub", "PUBSUB"),
                                ],
                            )
                            .with_token("TYPE")
                            .optional()
                            .since("2.8.12"),
                            Arg::new("username", ArgKind::String).with_token("USER").optional(),
                            Arg::new("ip:port", ArgKind::String).with_token("ADDR").optional(),
                            Arg::new("ip:port", ArgKind::String)
                                .with_token("LADDR")
                                .optional()
                                .since("6.2.0"),
                            Arg::new("yes/no", ArgKind::String).with_token("SKIPME").optional(),
                        ],
                    )
                    .multiple(),
                ],
            )],
            history: &[
                ("2.8.12", "Filters by option and value"),
                ("2.8.12", "The `ID` filter"),
                ("3.2.0", "`TYPE master`"),
                ("5.0.0", "`TYPE replica`; `slave` means the same"),
                ("6.2.0", "The `LADDR` filter"),
            ],
            route: Route::Session,
            handler: Handler::Session(kill),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|list",
            family: Family::Connection,
            since: "2.4.0",
            summary: "Describes open connections, one per line",
            complexity: "O(N) with N connections",
            arity: Arity::AtLeast(2),
            flags: ADMIN_FLAGS,
            acl: Acl::CONNECTION,
            tips: &["nondeterministic_output"],
            args: &[
                Arg::one_of(
                    "normal_master_replica_pubsub",
                    &[
                        Arg::token("normal", "NORMAL"),
                        Arg::token("master", "MASTER"),
                        Arg::token("replica", "REPLICA"),
                        Arg::token("pubsub", "PUBSUB"),
                    ],
                )
                .with_token("TYPE")
                .optional()
                .since("5.0.0"),
                Arg::block("id", &[Arg::new("client-id", ArgKind::Integer).multiple()])
                    .with_token("ID")
                    .optional()
                    .since("6.2.0"),
            ],
            history: &[
                ("2.8.12", "The field `id`"),
                ("5.0.0", "The `TYPE` filter"),
                ("6.0.0", "The field `user`"),
                (
                    "6.2.0",
                    "The fields `argv-mem`, `tot-mem`, `laddr` and `redir`, and the `ID` filter",
                ),
                ("7.0.0", "The fields `resp`, `multi-mem`, `rbs` and `rbp`"),
                ("7.0.3", "The field `ssub`"),
            ],
            route: Route::Session,
            handler: Handler::Session(list),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|no-evict",
            family: Family::Connection,
            since: "7.0.0",
            summary: "Keeps the connection from being closed when clients take too much memory",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: ADMIN_FLAGS,
            acl: Acl::CONNECTION,
            args: &[Arg::one_of("enabled", &[Arg::token("on", "ON"), Arg::token("off", "OFF")])],
            route: Route::Session,
            handler: Handler::Session(no_evict),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|pause",
            family: Family::Connection,
            since: "2.9.50",
            summary: "Holds back commands of all clients for some time",
            complexity: "O(1)",
            arity: Arity::AtLeast(3),
            flags: ADMIN_FLAGS,
            acl: Acl::CONNECTION,
            args: &[
                Arg::new("timeout", ArgKind::Integer),
                Arg::one_of("mode", &[Arg::token("write", "WRITE"), Arg::token("all", "ALL")])
                    .optional()
                    .since("6.2.0"),
            ],
            history: &[("6.2.0", "The mode, and `WRITE` as one")],
            route: Route::Session,
            handler: Handler::Session(pause),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|reply",
            family: Family::Connection,
            since: "3.2.0",
            summary: "Chooses which replies the connection gets",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: FLAGS,
            acl: Acl::CONNECTION,
            args: &[Arg::one_of(
                "on_off_skip",
                &[Arg::token("on", "ON"), Arg::token("off", "OFF"), Arg::token("skip", "SKIP")],
            )],
            route: Route::Session,
            handler: Handler::Session(reply),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|setname",
            family: Family::Connection,
            since: "2.6.9",
            summary: "Names the connection",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: FLAGS,
            acl: Acl::CONNECTION,
            args: &[Arg::new("connection-name", ArgKind::String)],
            route: Route::Session,
            handler: Handler::Session(setname),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|trackinginfo",
            family: Family::Connection,
            since: "6.2.0",
            summary: "Returns how the connection's keys are tracked",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: FLAGS,
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(trackinginfo),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|unblock",
            family: Family::Connection,
            since: "5.0.0",
            summary: "Wakes a client that a blocking command holds",
            complexity: "O(N) with N connections",
            arity: Arity::AtLeast(3),
            flags: ADMIN_FLAGS,
            acl: Acl::CONNECTION,
            args: &[
                Arg::new("client-id", ArgKind::Integer),
                Arg::one_of(
                    "timeout_error",
                    &[Arg::token("timeout", "TIMEOUT"), Arg::token("error", "ERROR")],
                )
                .optional(),
            ],
            route: Route::Session,
            handler: Handler::Session(unblock),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "client|unpause",
            family: Family::Connection,
            since: "6.2.0",
            summary: "Ends a pause at once",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: ADMIN_FLAGS,
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(unpause),
            ..CommandSpec::EMPTY
        },
    ],
    ..CommandSpec::EMPTY
};
