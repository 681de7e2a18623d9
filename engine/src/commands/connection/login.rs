//! AUTH and HELLO: who the client is, and which protocol it speaks.

use crate::commands::args::{Args, is_token};
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::CommandResult;
use crate::node::REDIS_VERSION;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::{Protocol, Reply};

/// The only user there is.
const DEFAULT_USER: &[u8] = b"default";

/// AUTH [username] password
pub(super) fn auth(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let (user, password) = match args.len() {
        2 if ctx.node.config.requirepass().is_none() => {
            return Err(CommandError::AUTH_WITHOUT_PASSWORD);
        }
        2 => (DEFAULT_USER, args.at(1)),
        3 => (args.at(1), args.at(2)),
        _ => return Err(CommandError::SYNTAX),
    };
    log_in(ctx, user, password)?;
    reply.ok();
    Ok(())
}

/// Logs the client in, or leaves it as it was.
fn log_in(ctx: &mut SessionCtx<'_>, user: &[u8], password: &[u8]) -> CommandResult {
    // Without a password set, the default user takes any: that is how Redis treats `nopass`.
    let fits = ctx
        .node
        .config
        .requirepass()
        .is_none_or(|secret| is_same_secret(secret.as_bytes(), password));
    if user != DEFAULT_USER || !fits {
        return Err(CommandError::WRONG_PASS);
    }
    ctx.client.authenticated = true;
    Ok(())
}

/// Compares in a time that depends on the length of `given` alone, so that answers do not tell how
/// much of a guess was right.
fn is_same_secret(secret: &[u8], given: &[u8]) -> bool {
    let mut difference = secret.len() ^ given.len();
    for (i, byte) in given.iter().enumerate() {
        let expected = secret.get(i % secret.len().max(1)).copied().unwrap_or(0);
        difference |= usize::from(std::hint::black_box(byte ^ expected));
    }
    difference == 0
}

/// Does what HELLO's options ask for, one after the other: Redis too has done the first when the
/// second turns out to be wrong.
fn apply_options(ctx: &mut SessionCtx<'_>, args: &Args<'_>) -> CommandResult {
    let mut cursor = args.cursor(2);
    while let Some(word) = cursor.next() {
        if is_token(word, "auth")
            && cursor.left() >= 2
            && let Some((user, password)) = cursor.next().zip(cursor.next())
        {
            log_in(ctx, user, password)?;
        } else if is_token(word, "setname")
            && let Some(name) = cursor.next()
        {
            check_name(name)?;
            ctx.client.name = name.into();
        } else {
            return Err(CommandError::hello_option(word));
        }
    }
    Ok(())
}

/// HELLO [protover [AUTH username password] [SETNAME clientname]]
pub(super) fn hello(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let protocol = match args.get(1).map(parse_i64) {
        None => None,
        Some(None) => return Err(CommandError::PROTOCOL_NOT_INTEGER),
        Some(Some(2)) => Some(Protocol::Resp2),
        Some(Some(3)) => Some(Protocol::Resp3),
        Some(Some(_)) => return Err(CommandError::NO_PROTO),
    };
    apply_options(ctx, args)?;
    if !ctx.client.authenticated {
        return Err(CommandError::HELLO_NO_AUTH);
    }
    if let Some(protocol) = protocol {
        ctx.client.protocol = protocol;
    }
    // The reply is in the protocol that it announces.
    describe(ctx, &mut Reply::new(reply.out(), ctx.client.protocol));
    Ok(())
}

fn describe(ctx: &SessionCtx<'_>, reply: &mut Reply<'_>) {
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.int(if reply.is_resp3() { 3 } else { 2 });
    reply.bulk(b"id");
    reply.int(ctx.client.id as i64);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
}

/// Whether a connection may have this name: printable ASCII without spaces.
pub(super) fn check_name(name: &[u8]) -> CommandResult {
    if name.iter().all(u8::is_ascii_graphic) { Ok(()) } else { Err(CommandError::CLIENT_NAME) }
}
