//! SHUTDOWN: checks what is asked; the core ends the process.

use crate::commands::args::{Args, is_token};
use crate::commands::session_ctx::{SessionAction, SessionCtx};
use crate::commands::spec::{
    Arg, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Route,
};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

/// The command of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "shutdown",
    family: Family::Server,
    since: "1.0.0",
    summary: "Ends the server in good order",
    complexity: "O(1)",
    arity: Arity::AtLeast(1),
    flags: Flags::ADMIN
        .union(Flags::NOSCRIPT)
        .union(Flags::LOADING)
        .union(Flags::STALE)
        .union(Flags::NO_MULTI)
        .union(Flags::ALLOW_BUSY),
    args: &[
        Arg::one_of("nosave_save", &[Arg::token("nosave", "NOSAVE"), Arg::token("save", "SAVE")])
            .optional(),
        Arg::token("now", "NOW").optional().since("7.0.0"),
        Arg::token("force", "FORCE").optional().since("7.0.0"),
        Arg::token("abort", "ABORT").optional().since("7.0.0"),
    ],
    history: &[("7.0.0", "`NOW`, `FORCE` and `ABORT`")],
    route: Route::Session,
    handler: Handler::Session(shutdown),
    ..CommandSpec::EMPTY
}];

/// What SHUTDOWN's options ask for.
#[derive(Default)]
struct Options {
    save: bool,
    no_save: bool,
    force: bool,
    now: bool,
    abort: bool,
}

fn options(args: &Args<'_>) -> Result<Options, CommandError> {
    let mut options = Options::default();
    for word in args.iter_from(1) {
        let option = match word {
            _ if is_token(word, "save") => &mut options.save,
            _ if is_token(word, "nosave") => &mut options.no_save,
            _ if is_token(word, "now") => &mut options.now,
            _ if is_token(word, "force") => &mut options.force,
            _ if is_token(word, "abort") => &mut options.abort,
            _ => return Err(CommandError::SYNTAX),
        };
        *option = true;
    }
    let Options { save, no_save, force, now, abort } = options;
    if (save && no_save) || (abort && (save || no_save || force || now)) {
        return Err(CommandError::SYNTAX);
    }
    Ok(options)
}

/// SHUTDOWN [NOSAVE|SAVE] [NOW] [FORCE] [ABORT]
///
/// Nothing is waited for, so NOW changes nothing and ABORT always comes too late.
fn shutdown(ctx: &mut SessionCtx<'_>, args: &Args<'_>, _reply: &mut Reply<'_>) -> CommandResult {
    let options = options(args)?;
    if options.abort {
        return Err(CommandError::NO_SHUTDOWN);
    }
    if options.save && !options.force {
        // There is no snapshot to write yet: as in Redis, a failed save keeps the server up.
        tracing::warn!("SHUTDOWN SAVE refused: snapshots are not built in; FORCE ends without");
        return Err(CommandError::SHUTDOWN_FAILED);
    }
    ctx.action = Some(SessionAction::Shutdown);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn options_that_contradict_are_syntax_errors() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let calls: [&[&[u8]]; 5] = [
            &[b"SHUTDOWN", b"FOO"],
            &[b"SHUTDOWN", b"SAVE", b"NOSAVE"],
            &[b"SHUTDOWN", b"ABORT", b"NOW"],
            &[b"SHUTDOWN", b"NOSAVE", b"ABORT"],
            &[b"SHUTDOWN", b"FORCE", b"ABORT"],
        ];
        for call in calls {
            assert_eq!(bare.call(&mut client, call), b"-ERR syntax error\r\n");
        }
    }

    #[test]
    fn abort_without_a_shutdown_is_an_error() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let reply = bare.call(&mut client, &[b"shutdown", b"abort", b"abort"]);
        assert_eq!(reply, b"-ERR No shutdown in progress.\r\n");
    }

    #[test]
    fn save_that_cannot_be_done_keeps_the_server_up_unless_forced() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let refused = b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n";
        assert_eq!(bare.call(&mut client, &[b"shutdown", b"save"]), refused);
        assert_eq!(bare.call(&mut client, &[b"shutdown", b"save", b"force"]), b"+OK\r\n");
    }
}
