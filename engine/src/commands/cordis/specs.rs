//! The specs of CORDIS and its subcommands.

use crate::commands::cordis::{auth, help, member, moves, stream};
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Route,
};

/// What the subcommands have in common.
const SUB: CommandSpec = CommandSpec {
    family: Family::Slots,
    since: "cordis 0.1",
    flags: Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::NO_MULTI),
    acl: Acl::DANGEROUS,
    route: Route::Session,
    is_internal: true,
    ..CommandSpec::EMPTY
};

const O_1: &str = "O(1)";
const O_SLOTS: &str = "O(S) with S slots";

const ID: Arg = Arg::new("move-id", ArgKind::Integer);
const EPOCH: Arg = Arg::new("epoch", ArgKind::Integer);
const SLOT: Arg = Arg::new("slot", ArgKind::Integer);
const ATTEMPT: Arg = Arg::new("attempt", ArgKind::Integer);
const RANGES: Arg = Arg::new("ranges", ArgKind::String);

type SessionHandler = fn(
    &mut SessionCtx<'_>,
    &crate::commands::args::Args<'_>,
    &mut crate::resp::reply::Reply<'_>,
) -> CommandResult;

const fn run(handler: SessionHandler) -> Handler {
    Handler::Session(handler)
}

/// The commands of this family.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "cordis",
    family: Family::Slots,
    since: "cordis 0.1",
    summary: "Holds what the parts of a cluster say to each other",
    complexity: "Depends on the subcommand",
    arity: Arity::AtLeast(2),
    route: Route::Session,
    is_internal: true,
    subcommands: &[
        CommandSpec {
            name: "cordis|abort",
            summary: "Drops what an attempt to move a slot here has brought, for good",
            complexity: O_1,
            arity: Arity::Exact(6),
            args: &[ID, SLOT, EPOCH, ATTEMPT],
            handler: run(stream::abort),
            ..SUB
        },
        CommandSpec {
            name: "cordis|auth",
            summary: "Shows that the client knows the cluster's secret",
            complexity: O_1,
            arity: Arity::Exact(3),
            args: &[Arg::new("secret", ArgKind::String)],
            handler: run(auth),
            ..SUB
        },
        CommandSpec {
            name: "cordis|cancel",
            summary: "Calls a move off: slots that have not changed hands stay where they are",
            complexity: O_SLOTS,
            arity: Arity::Exact(3),
            args: &[ID],
            handler: run(moves::cancel),
            ..SUB
        },
        CommandSpec {
            name: "cordis|commit",
            summary: "Serves a slot that a move has brought, under its new epoch",
            complexity: O_1,
            arity: Arity::Exact(6),
            args: &[ID, SLOT, EPOCH, ATTEMPT],
            handler: run(stream::commit),
            ..SUB
        },
        CommandSpec {
            name: "cordis|expect",
            summary: "Allows a move to bring slots here",
            complexity: O_SLOTS,
            arity: Arity::Exact(6),
            args: &[ID, EPOCH, Arg::new("source-addr", ArgKind::String), RANGES],
            handler: run(moves::expect),
            ..SUB
        },
        CommandSpec {
            name: "cordis|hello",
            summary: "Tells who this server is and which core owns which slot",
            complexity: O_SLOTS,
            arity: Arity::AtLeast(2),
            args: &[
                Arg::new("core", ArgKind::Integer).with_token("CORE").optional(),
                Arg::new("text", ArgKind::String).with_token("NAME").optional(),
                Arg::token("sticky", "STICKY").optional(),
            ],
            handler: run(member::hello),
            ..SUB
        },
        CommandSpec {
            name: "cordis|help",
            summary: "Describes the subcommands of CORDIS",
            complexity: O_1,
            arity: Arity::Exact(2),
            handler: run(help),
            ..SUB
        },
        CommandSpec {
            name: "cordis|import",
            summary: "Begins an attempt to move a slot here: the connection fills it from now on",
            complexity: O_1,
            arity: Arity::AtLeast(6),
            args: &[
                ID,
                EPOCH,
                SLOT,
                ATTEMPT,
                Arg::new("ms", ArgKind::Integer).with_token("NOW").optional(),
            ],
            handler: run(stream::import),
            ..SUB
        },
        CommandSpec {
            name: "cordis|join",
            summary: "Makes this server one of a cluster; it serves what the map gives it",
            complexity: O_SLOTS,
            arity: Arity::Exact(5),
            args: &[
                Arg::new("product", ArgKind::String),
                Arg::new("group", ArgKind::Integer),
                Arg::new("own-addr", ArgKind::String),
            ],
            handler: run(member::join),
            ..SUB
        },
        CommandSpec {
            name: "cordis|leave",
            summary: "Makes this server one of its own again, which serves all slots",
            complexity: O_SLOTS,
            arity: Arity::Exact(3),
            args: &[Arg::new("product", ArgKind::String)],
            handler: run(member::leave),
            ..SUB
        },
        CommandSpec {
            name: "cordis|map",
            summary: "Sets the cluster's map, or shows it",
            complexity: O_SLOTS,
            arity: Arity::AtLeast(3),
            args: &[Arg::one_of(
                "operation",
                &[Arg::token("get", "GET"), Arg::new("json", ArgKind::String).with_token("SET")],
            )],
            handler: run(member::map),
            ..SUB
        },
        CommandSpec {
            name: "cordis|move",
            summary: "Moves slots to another server, and goes on trying until it is done",
            complexity: O_SLOTS,
            arity: Arity::AtLeast(6),
            args: &[
                ID,
                EPOCH,
                Arg::new("target-addr", ArgKind::String),
                RANGES,
                Arg::new("bytes-per-second", ArgKind::Integer).with_token("RATE").optional(),
                Arg::new("count", ArgKind::Integer).with_token("PARALLEL").optional(),
            ],
            handler: run(moves::begin),
            ..SUB
        },
        CommandSpec {
            name: "cordis|moves",
            summary: "Shows the moves that this server takes part in",
            complexity: "O(M+S) with M moves and S slots",
            arity: Arity::Exact(2),
            handler: run(moves::list),
            ..SUB
        },
        CommandSpec {
            name: "cordis|ready",
            summary: "Compares what an attempt has brought with what its source has",
            complexity: "O(N) with N keys in the slot, in steps",
            arity: Arity::Exact(5),
            args: &[SLOT, Arg::new("keys", ArgKind::Integer), Arg::new("digest", ArgKind::String)],
            handler: run(stream::ready),
            ..SUB
        },
        CommandSpec {
            name: "cordis|resolve",
            summary: "Tells what this server is to a slot that a move was to bring",
            complexity: O_1,
            arity: Arity::Exact(5),
            args: &[ID, SLOT, EPOCH],
            handler: run(stream::resolve),
            ..SUB
        },
        CommandSpec {
            name: "cordis|retry",
            summary: "Ends the refusals of slots on a sticky link: what follows is sent again in order",
            complexity: "O(N) with N slots",
            arity: Arity::AtLeast(3),
            args: &[Arg::new("slot", ArgKind::Integer).multiple()],
            handler: run(member::retry),
            ..SUB
        },
        CommandSpec {
            name: "cordis|slots",
            summary: "Shows what this server is to each slot",
            complexity: O_SLOTS,
            arity: Arity::Exact(2),
            handler: run(member::slots),
            ..SUB
        },
    ],
    ..CommandSpec::EMPTY
}];
