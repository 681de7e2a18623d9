//! CONFIG: a thin layer over `config`, which knows every option.

use crate::commands::args::Args;
use crate::commands::docs::reply_help;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Merge, Route,
};
use crate::node::CoreStats;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

const FLAGS: Flags = Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::LOADING).union(Flags::STALE);

/// The commands of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "config",
    family: Family::Server,
    since: "2.0.0",
    summary: "Shows and changes settings",
    complexity: "Depends on the subcommand",
    arity: Arity::AtLeast(2),
    route: Route::Session,
    subcommands: &[
        CommandSpec {
            name: "config|get",
            family: Family::Server,
            since: "2.0.0",
            summary: "Returns the settings whose names match",
            complexity: "O(N) with N patterns",
            arity: Arity::AtLeast(3),
            flags: FLAGS,
            args: &[Arg::block("parameter", &[Arg::new("parameter", ArgKind::String)]).multiple()],
            history: &[("7.0.0", "Takes several patterns in one call")],
            route: Route::Session,
            handler: Handler::Session(config_get),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "config|help",
            family: Family::Server,
            since: "5.0.0",
            summary: "Lists the subcommands",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: Flags::LOADING.union(Flags::STALE),
            route: Route::Session,
            handler: Handler::Session(config_help),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "config|resetstat",
            family: Family::Server,
            since: "2.0.0",
            summary: "Sets the counters that INFO shows to zero",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: FLAGS,
            route: Route::Session,
            handler: Handler::Session(config_resetstat),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "config|rewrite",
            family: Family::Server,
            since: "2.8.0",
            summary: "Writes the settings in force to the configuration file",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: FLAGS,
            route: Route::Session,
            handler: Handler::Session(config_rewrite),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "config|set",
            family: Family::Server,
            since: "2.0.0",
            summary: "Changes settings while the server runs, all or none",
            complexity: "O(N) with N settings",
            arity: Arity::AtLeast(4),
            flags: FLAGS,
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            args: &[Arg::block(
                "parameter_value",
                &[Arg::new("parameter", ArgKind::String), Arg::new("value", ArgKind::String)],
            )
            .multiple()],
            history: &[("7.0.0", "Takes several settings in one call")],
            route: Route::Session,
            merge: Merge::AllOk,
            handler: Handler::Session(config_set),
            ..CommandSpec::EMPTY
        },
    ],
    ..CommandSpec::EMPTY
}];

/// CONFIG GET pattern [pattern ...]
fn config_get(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let patterns: Vec<&[u8]> = args.iter_from(2).collect();
    let found = ctx.node.config.get_matching(&patterns);
    reply.map(found.len());
    for (name, value) in &found {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Ok(())
}

/// CONFIG SET name value [name value ...]
fn config_set(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    let words: Vec<&[u8]> = args.iter_from(2).collect();
    let pairs: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    ctx.node.config.set_all(&pairs).map_err(|error| CommandError::of_config(&error))?;
    ctx.node.follow_config();
    reply.ok();
    Ok(())
}

/// CONFIG RESETSTAT
fn config_resetstat(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    ctx.node.cores.iter().for_each(CoreStats::reset);
    reply.ok();
    Ok(())
}

/// CONFIG REWRITE
fn config_rewrite(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    ctx.node.config.rewrite().map_err(|error| CommandError::of_config(&error))?;
    reply.ok();
    Ok(())
}

/// CONFIG HELP
fn config_help(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply_help(args, reply);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn set_then_get_returns_the_new_value() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let set = bare.call(&mut client, &[b"CONFIG", b"SET", b"maxmemory", b"1mb"]);
        assert_eq!(set, b"+OK\r\n");
        let get = bare.call(&mut client, &[b"config", b"get", b"maxmemory"]);
        assert_eq!(get, b"*2\r\n$9\r\nmaxmemory\r\n$7\r\n1048576\r\n");
    }

    #[test]
    fn set_with_a_name_without_value_is_a_syntax_error() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let words: [&[u8]; 5] = [b"CONFIG", b"SET", b"maxmemory", b"1", b"maxmemory"];
        assert_eq!(bare.call(&mut client, &words), b"-ERR syntax error\r\n");
    }

    #[test]
    fn resetstat_forgets_errors_and_hits() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"NOSUCH"]);
        assert_eq!(bare.node.sum(|core| &core.error_replies), 1);
        assert_eq!(bare.call(&mut client, &[b"CONFIG", b"RESETSTAT"]), b"+OK\r\n");
        assert_eq!(bare.node.sum(|core| &core.error_replies), 0);
        assert_eq!(bare.node.cores[0].errors.each().count(), 0);
    }
}
