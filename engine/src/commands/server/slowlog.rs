//! SLOWLOG: shows what `observe/slowlog.rs` keeps.

use crate::commands::args::Args;
use crate::commands::docs::reply_help;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Merge, Route,
};
use crate::observe::slowlog::SlowCall;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;

/// Entries that SLOWLOG GET returns if nobody says how many.
const DEFAULT_COUNT: usize = 10;

/// The commands of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "slowlog",
    family: Family::Server,
    since: "2.2.12",
    summary: "Holds the commands about slow calls",
    complexity: "Depends on the subcommand",
    arity: Arity::AtLeast(2),
    route: Route::Session,
    subcommands: &[
        CommandSpec {
            name: "slowlog|get",
            family: Family::Server,
            since: "2.2.12",
            summary: "Returns the newest slow calls",
            complexity: "O(N) with N entries returned",
            arity: Arity::AtLeast(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
            tips: &["request_policy:all_nodes", "nondeterministic_output"],
            args: &[Arg::new("count", ArgKind::Integer).optional()],
            history: &[("4.0.0", "Entries show the client's address and name")],
            route: Route::Session,
            handler: Handler::Session(get),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "slowlog|help",
            family: Family::Server,
            since: "6.2.0",
            summary: "Describes the subcommands of SLOWLOG",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: Flags::LOADING.union(Flags::STALE),
            route: Route::Session,
            handler: Handler::Session(help),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "slowlog|len",
            family: Family::Server,
            since: "2.2.12",
            summary: "Counts the slow calls that are kept",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
            tips: &[
                "request_policy:all_nodes",
                "response_policy:agg_sum",
                "nondeterministic_output",
            ],
            route: Route::Session,
            merge: Merge::Sum,
            handler: Handler::Session(len),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "slowlog|reset",
            family: Family::Server,
            since: "2.2.12",
            summary: "Forgets all slow calls",
            complexity: "O(N) with N entries kept",
            arity: Arity::Exact(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            route: Route::Session,
            merge: Merge::AllOk,
            handler: Handler::Session(reset),
            ..CommandSpec::EMPTY
        },
    ],
    ..CommandSpec::EMPTY
}];

/// SLOWLOG GET [count]
fn get(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let count = match args.len() {
        2 => DEFAULT_COUNT,
        3 => match parse_i64(args.at(2)) {
            Some(-1) => usize::MAX,
            Some(count) => usize::try_from(count).map_err(|_| CommandError::SLOWLOG_COUNT)?,
            None => return Err(CommandError::SLOWLOG_COUNT),
        },
        _ => return Err(CommandError::subcommand_syntax(args.at(1), "SLOWLOG")),
    };
    let calls = ctx.node.slowlog.latest(count, ctx.node.config.slowlog_max_len());
    reply.array(calls.len());
    calls.iter().for_each(|call| show(call, reply));
    Ok(())
}

fn show(call: &SlowCall, reply: &mut Reply<'_>) {
    reply.array(6);
    reply.int(call.id as i64);
    reply.int(call.at.0 / 1000);
    reply.int(call.us as i64);
    reply.array(call.words.len());
    call.words.iter().for_each(|word| reply.bulk(word));
    reply.bulk(call.addr.as_bytes());
    reply.bulk(&call.name);
}

/// SLOWLOG LEN
fn len(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(ctx.node.slowlog.len(ctx.node.config.slowlog_max_len()));
    Ok(())
}

/// SLOWLOG RESET
fn reset(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    ctx.node.slowlog.reset();
    reply.ok();
    Ok(())
}

/// SLOWLOG HELP
fn help(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply_help(args, reply);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;
    use crate::commands::table::table;

    #[test]
    fn get_shows_noted_calls_newest_first() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        client.addr = "1.2.3.4:5".into();
        client.name = (*b"joe").into();
        let get = table().get(b"get").expect("GET exists");
        let call = OwnedArgs::of(&[b"GET", b"k"]);
        bare.node.note_slow(get, &call.args(), 12_000_000, bare.now, &client);
        // Below the threshold of 10 ms: not kept.
        bare.node.note_slow(get, &call.args(), 9_999_999, bare.now, &client);
        let shown = bare.call(&mut client, &[b"SLOWLOG", b"GET"]);
        let want = "*1\r\n*6\r\n:0\r\n:1700000000\r\n:12000\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\
                    $9\r\n1.2.3.4:5\r\n$3\r\njoe\r\n";
        assert_eq!(String::from_utf8_lossy(&shown), want);
        assert_eq!(bare.call(&mut client, &[b"SLOWLOG", b"LEN"]), b":1\r\n");
        assert_eq!(bare.call(&mut client, &[b"SLOWLOG", b"RESET"]), b"+OK\r\n");
        assert_eq!(bare.call(&mut client, &[b"SLOWLOG", b"GET", b"-1"]), b"*0\r\n");
    }

    #[test]
    fn get_with_a_bad_count_is_an_error() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let want = b"-ERR count should be greater than or equal to -1\r\n";
        for count in [&b"-2"[..], b"x", b"9999999999999999999"] {
            assert_eq!(bare.call(&mut client, &[b"slowlog", b"get", count]), want);
        }
    }
}
