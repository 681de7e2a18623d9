//! CLIENT's subcommands. Those about other clients only say what is meant; the core asks them.

use std::borrow::Cow;
use std::collections::HashMap;

use super::line::client_line;
use super::login::check_name;
use crate::commands::args::{Args, is_token};
use crate::commands::docs::reply_help;
use crate::commands::session_ctx::{ClientFilter, SessionAction, SessionCtx};
use crate::commands::spec::CommandResult;
use crate::net::client::{ClientState, ReplyMode};
use crate::node::Pause;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::units::Ms;

/// CLIENT CACHING YES|NO. Keys are never tracked, so it is always too early for it.
pub(super) fn caching(
    _ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    _reply: &mut Reply<'_>,
) -> CommandResult {
    Err(CommandError::NOT_TRACKING)
}

/// CLIENT GETNAME
pub(super) fn getname(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    match &*ctx.client.name {
        b"" => reply.null(),
        name => reply.bulk(name),
    }
    Ok(())
}

/// CLIENT SETNAME connection-name
pub(super) fn setname(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    check_name(args.at(2))?;
    ctx.client.name = args.at(2).into();
    reply.ok();
    Ok(())
}

/// CLIENT GETREDIR
pub(super) fn getredir(
    _ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply.int(-1);
    Ok(())
}

/// CLIENT TRACKINGINFO
pub(super) fn trackinginfo(
    _ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(1);
    reply.bulk(b"off");
    reply.bulk(b"redirect");
    reply.int(-1);
    reply.bulk(b"prefixes");
    reply.array(0);
    Ok(())
}

/// CLIENT HELP
pub(super) fn help(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply_help(args, reply);
    Ok(())
}

/// CLIENT ID
pub(super) fn id(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply.int(ctx.client.id as i64);
    Ok(())
}

/// CLIENT INFO
pub(super) fn info(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let line = client_line(ctx.client, ctx.now) + "\n";
    reply.verbatim(line.as_bytes());
    Ok(())
}

/// CLIENT NO-EVICT ON|OFF
pub(super) fn no_evict(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    ctx.client.no_evict = match args.at(2) {
        word if is_token(word, "on") => true,
        word if is_token(word, "off") => false,
        _ => return Err(CommandError::SYNTAX),
    };
    reply.ok();
    Ok(())
}

/// CLIENT REPLY ON|OFF|SKIP. Only ON is answered.
pub(super) fn reply(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let mode = &mut ctx.client.reply_mode;
    match args.at(2) {
        word if is_token(word, "on") => {
            *mode = ReplyMode::On;
            reply.ok();
        }
        word if is_token(word, "off") => *mode = ReplyMode::Off,
        word if is_token(word, "skip") => {
            if *mode != ReplyMode::Off {
                *mode = ReplyMode::SkipNext;
            }
        }
        _ => return Err(CommandError::SYNTAX),
    }
    Ok(())
}

/// CLIENT PAUSE timeout [WRITE|ALL]
pub(super) fn pause(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let mode = match (args.get(3), args.len()) {
        (None, _) => Pause::All,
        (Some(word), 4) if is_token(word, "write") => Pause::Write,
        (Some(word), 4) if is_token(word, "all") => Pause::All,
        (_, 4) => return Err(CommandError::PAUSE_MODE),
        _ => return Err(CommandError::subcommand_syntax(args.at(1), "CLIENT")),
    };
    let timeout = parse_i64(args.at(2)).ok_or(CommandError::TIMEOUT_NOT_INTEGER)?;
    if timeout < 0 {
        return Err(CommandError::TIMEOUT_NEGATIVE);
    }
    let (old_mode, old_until) = ctx.node.pause(ctx.now);
    // Redis: a timeout beyond the end of time wraps around, and there is no pause.
    let until = Ms(ctx.now.0.wrapping_add(timeout));
    // A pause that is on already gets neither weaker nor shorter.
    match old_mode {
        Pause::Off => ctx.node.set_pause(mode, until),
        Pause::All => ctx.node.set_pause(Pause::All, until.max(old_until)),
        Pause::Write => ctx.node.set_pause(mode, until.max(old_until)),
    }
    reply.ok();
    Ok(())
}

/// CLIENT UNPAUSE
pub(super) fn unpause(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    ctx.node.set_pause(Pause::Off, Ms(0));
    reply.ok();
    Ok(())
}

/// CLIENT UNBLOCK client-id [TIMEOUT|ERROR]
pub(super) fn unblock(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let error = match (args.get(3), args.len()) {
        (None, _) => false,
        (Some(word), 4) if is_token(word, "timeout") => false,
        (Some(word), 4) if is_token(word, "error") => true,
        (_, 4) => return Err(CommandError::UNBLOCK_REASON),
        _ => return Err(CommandError::subcommand_syntax(args.at(1), "CLIENT")),
    };
    match u64::try_from(args.int(2)?) {
        Ok(id) => ctx.action = Some(SessionAction::Unblock { id, error }),
        Err(_) => reply.int(0),
    }
    Ok(())
}

/// CLIENT LIST [TYPE type] [ID id ...]
pub(super) fn list(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    _reply: &mut Reply<'_>,
) -> CommandResult {
    let mut filter = ClientFilter::default();
    match args.get(2) {
        None => {}
        Some(word) if is_token(word, "type") && args.len() == 4 => {
            filter.kind = Some(client_kind(args.at(3))?);
        }
        Some(word) if is_token(word, "id") && args.len() > 3 => {
            let mut ids = HashMap::new();
            for (place, word) in args.iter_from(3).enumerate() {
                let id = parse_i64(word).ok_or(CommandError::CLIENT_ID)?;
                // No client has an id below 1: asked for, and not found.
                if let Ok(id) = u64::try_from(id) {
                    ids.entry(id).or_insert(place);
                }
            }
            filter.ids = Some(ids);
        }
        Some(_) => return Err(CommandError::SYNTAX),
    }
    ctx.action = Some(SessionAction::ListClients(filter));
    Ok(())
}

/// CLIENT KILL ip:port | [ID id] [TYPE type] [USER name] [ADDR a] [LADDR a] [SKIPME yes|no]
pub(super) fn kill(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    _reply: &mut Reply<'_>,
) -> CommandResult {
    let old_form = args.len() == 3;
    let filter = if old_form {
        ClientFilter { addr: Some(text(args.at(2)).into()), ..ClientFilter::default() }
    } else {
        kill_filter(args, ctx.client.id)?
    };
    ctx.action = Some(SessionAction::KillClients { filter, old_form });
    Ok(())
}

fn kill_filter(args: &Args<'_>, own_id: u64) -> Result<ClientFilter, CommandError> {
    let mut filter = ClientFilter { skip_id: Some(own_id), ..ClientFilter::default() };
    let mut cursor = args.cursor(2);
    while let Some(option) = cursor.next() {
        let value = cursor.next().ok_or(CommandError::SYNTAX)?;
        if is_token(option, "id") {
            let id = parse_i64(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
            let id = id.ok_or(CommandError::CLIENT_ID_NOT_POSITIVE)?;
            filter.ids = Some(HashMap::from([(id, 0)]));
        } else if is_token(option, "type") {
            filter.kind = Some(client_kind(value)?);
        } else if is_token(option, "addr") {
            filter.addr = Some(text(value).into());
        } else if is_token(option, "laddr") {
            filter.laddr = Some(text(value).into());
        } else if is_token(option, "user") {
            if value != b"default" {
                return Err(CommandError::no_such_user(value));
            }
            filter.user = Some("default".into());
        } else if is_token(option, "skipme") && is_token(value, "yes") {
            filter.skip_id = Some(own_id);
        } else if is_token(option, "skipme") && is_token(value, "no") {
            filter.skip_id = None;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(filter)
}

/// An address as the client wrote it. No address of ours holds a replacement character.
fn text(word: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(word)
}

fn client_kind(word: &[u8]) -> Result<&'static str, CommandError> {
    let kinds = [
        ("normal", "normal"),
        ("slave", "replica"),
        ("replica", "replica"),
        ("pubsub", "pubsub"),
        ("master", "master"),
    ];
    let kind = kinds.iter().find(|(name, _)| is_token(word, name)).map(|(_, kind)| *kind);
    kind.ok_or_else(|| CommandError::unknown_client_type(word))
}

/// Carries an action out where `client` is the only client there is: a server without sockets, and
/// a transaction, which cannot ask other cores.
///
/// # Errors
/// What the call replies if nobody fits, or if it cannot be done here.
pub fn act_alone(
    action: &SessionAction,
    client: &mut ClientState,
    now: Ms,
    reply: &mut Reply<'_>,
) -> CommandResult {
    match action {
        SessionAction::ListClients(filter) => {
            let mut lines = String::new();
            if filter.matches(client) {
                lines = client_line(client, now) + "\n";
            }
            reply.verbatim(lines.as_bytes());
        }
        SessionAction::KillClients { filter, old_form } => {
            let hit = filter.matches(client);
            client.close_after_reply |= hit;
            match (old_form, hit) {
                (true, true) => reply.ok(),
                (true, false) => return Err(CommandError::NO_SUCH_CLIENT),
                (false, _) => reply.int_bool(hit),
            }
        }
        // It runs a command, so nothing blocks it.
        SessionAction::Unblock { .. } => reply.int(0),
        SessionAction::Shutdown | SessionAction::Sleep(_) | SessionAction::Names(_) => reply.ok(),
        SessionAction::Dialect(_) | SessionAction::Slots(_) => {
            return Err(CommandError::NO_NETWORK);
        }
    }
    Ok(())
}
