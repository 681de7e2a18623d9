//! COMMAND and its subcommands: what the table says, told to clients. Holds no fact of its own; a
//! command added to the table shows up here, in `engine/COMMANDS.md` and in HELP.

use crate::commands::args::{Args, OwnedArgs};
use crate::commands::glob::{Case, matches};
use crate::commands::keys::{FoundKey, find_keys};
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Purpose,
    Route,
};
use crate::commands::table::{Command, table};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

mod page;
mod wire;

pub use page::{commands_page, help_lines, syntax};
pub use wire::{acl_names, acl_of, legacy_range};

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "command",
    family: Family::Server,
    since: "2.8.13",
    summary: "Describes every command to clients",
    complexity: "O(N) with N commands",
    arity: Arity::AtLeast(1),
    flags: LOOKUP,
    acl: Acl::CONNECTION,
    tips: &["nondeterministic_output_order"],
    route: Route::Session,
    subcommands: &[
        CommandSpec {
            name: "command|count",
            family: Family::Server,
            since: "2.8.13",
            summary: "Counts the commands",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: LOOKUP,
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(command_count),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "command|docs",
            family: Family::Server,
            since: "7.0.0",
            summary: "Returns the documentation of commands",
            complexity: "O(N) with N commands asked for",
            arity: Arity::AtLeast(2),
            flags: LOOKUP,
            acl: Acl::CONNECTION,
            tips: &["nondeterministic_output_order"],
            args: &[Arg::new("command-name", ArgKind::String).optional().multiple()],
            route: Route::Session,
            handler: Handler::Session(command_docs),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "command|getkeys",
            family: Family::Server,
            since: "2.8.13",
            summary: "Finds the keys among the words of a call",
            complexity: "O(N) with N words",
            arity: Arity::AtLeast(4),
            flags: LOOKUP,
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(command_getkeys),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "command|getkeysandflags",
            family: Family::Server,
            since: "7.0.0",
            summary: "Finds the keys among the words of a call and says how each is accessed",
            complexity: "O(N) with N words",
            arity: Arity::AtLeast(4),
            flags: LOOKUP,
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(command_getkeysandflags),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "command|help",
            family: Family::Server,
            since: "5.0.0",
            summary: "Lists the subcommands",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: LOOKUP,
            acl: Acl::CONNECTION,
            route: Route::Session,
            handler: Handler::Session(command_help),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "command|info",
            family: Family::Server,
            since: "2.8.13",
            summary: "Returns arity, flags and key positions of commands",
            complexity: "O(N) with N commands asked for",
            arity: Arity::AtLeast(2),
            flags: LOOKUP,
            acl: Acl::CONNECTION,
            tips: &["nondeterministic_output_order"],
            args: &[Arg::new("command-name", ArgKind::String).optional().multiple()],
            history: &[("7.0.0", "Without a name it describes every command")],
            route: Route::Session,
            handler: Handler::Session(command_info),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "command|list",
            family: Family::Server,
            since: "7.0.0",
            summary: "Lists the names of commands, all or a choice",
            complexity: "O(N) with N commands",
            arity: Arity::AtLeast(2),
            flags: LOOKUP,
            acl: Acl::CONNECTION,
            tips: &["nondeterministic_output_order"],
            args: &[Arg::one_of(
                "filterby",
                &[
                    Arg::new("module-name", ArgKind::String).with_token("MODULE"),
                    Arg::new("category", ArgKind::String).with_token("ACLCAT"),
                    Arg::new("pattern", ArgKind::Pattern).with_token("PATTERN"),
                ],
            )
            .with_token("FILTERBY")
            .optional()],
            route: Route::Session,
            handler: Handler::Session(command_list),
            ..CommandSpec::EMPTY
        },
    ],
    handler: Handler::Session(command),
    ..CommandSpec::EMPTY
}];

const LOOKUP: Flags = Flags::LOADING.union(Flags::STALE);

/// Whether clients are told of it. Subcommands that Redis parses itself (DEBUG's) are not shown.
fn is_shown(command: &Command) -> bool {
    !(command.spec.is_internal && command.spec.name.contains('|'))
}

/// The subcommands that clients are told of.
fn shown_subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.subcommands.iter().filter(|sub| is_shown(sub))
}

/// A command or `container|sub` by name, in any case.
fn lookup(name: &[u8]) -> Option<&'static Command> {
    match memchr::memchr(b'|', name) {
        None => table().get(name),
        Some(bar) => {
            table().get(&name[..bar])?.subcommand(&name[bar + 1..]).filter(|sub| is_shown(sub))
        }
    }
}

/// COMMAND
fn command(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 1 {
        return Err(CommandError::unknown_subcommand(args.at(1), "command"));
    }
    all_info(reply);
    Ok(())
}

fn all_info(reply: &mut Reply<'_>) {
    let all = table().all();
    reply.array(all.len());
    all.iter().for_each(|command| wire::info(command, reply));
}

/// COMMAND COUNT
fn command_count(
    _ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply.count(table().all().len());
    Ok(())
}

/// COMMAND INFO [name ...]
fn command_info(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    if args.len() == 2 {
        all_info(reply);
        return Ok(());
    }
    reply.array(args.len() - 2);
    for name in args.iter_from(2) {
        match lookup(name) {
            Some(command) => wire::info(command, reply),
            None => reply.null(),
        }
    }
    Ok(())
}

/// COMMAND DOCS [name ...]
fn command_docs(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let asked: Vec<&Command> = if args.len() == 2 {
        table().all().iter().collect()
    } else {
        args.iter_from(2).filter_map(lookup).collect()
    };
    reply.map(asked.len());
    for command in asked {
        reply.bulk(command.spec.name.as_bytes());
        wire::docs(command, reply);
    }
    Ok(())
}

/// COMMAND HELP
fn command_help(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply_help(args, reply);
    Ok(())
}

/// Answers `<container> HELP` from the table; the container is the call's first word.
pub fn reply_help(args: &Args<'_>, reply: &mut Reply<'_>) {
    let lines = table().get(args.at(0)).map(help_lines).unwrap_or_default();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    reply.help(&lines);
}

/// How COMMAND LIST chooses.
enum Filter<'a> {
    All,
    Nothing,
    Category(Acl),
    Pattern(&'a [u8]),
}

impl<'a> Filter<'a> {
    fn parse(args: &Args<'a>) -> Result<Self, CommandError> {
        let mut cursor = args.cursor(2);
        if cursor.left() == 0 {
            return Ok(Self::All);
        }
        if cursor.left() != 3 || !cursor.take("FILTERBY") {
            return Err(CommandError::SYNTAX);
        }
        if cursor.take_value("MODULE").is_some() {
            // There are no modules.
            return Ok(Self::Nothing);
        }
        if let Some(name) = cursor.take_value("ACLCAT") {
            return Ok(wire::acl_by_name(name).map_or(Self::Nothing, Self::Category));
        }
        cursor.take_value("PATTERN").map(Self::Pattern).ok_or(CommandError::SYNTAX)
    }

    fn accepts(&self, spec: &CommandSpec) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Category(category) => acl_of(spec).contains(*category),
            Self::Pattern(pattern) => matches(pattern, spec.name.as_bytes(), Case::Ignore),
        }
    }
}

/// COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]
fn command_list(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let filter = Filter::parse(args)?;
    let all = table().all().iter();
    let all = all.flat_map(|command| std::iter::once(command).chain(shown_subcommands(command)));
    let chosen: Vec<&str> =
        all.map(|command| command.spec).filter(|s| filter.accepts(s)).map(|s| s.name).collect();
    reply.array(chosen.len());
    chosen.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

/// COMMAND GETKEYS call...
fn command_getkeys(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let mut call = OwnedArgs::default();
    call.extend(args.iter_from(2));
    let call = call.args();
    let keys = keys_of_call(&call)?.1;
    reply.array(keys.len());
    keys.iter().for_each(|key| reply.bulk(call.at(key.index)));
    Ok(())
}

/// COMMAND GETKEYSANDFLAGS call...
fn command_getkeysandflags(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let mut call = OwnedArgs::default();
    call.extend(args.iter_from(2));
    let call = call.args();
    let (spec, keys) = keys_of_call(&call)?;
    reply.array(keys.len());
    for key in keys {
        reply.array(2);
        reply.bulk(call.at(key.index));
        let (access, purpose) = access_of_call(spec, &key, &call);
        let flags = wire::access_names(access, purpose);
        reply.set(flags.len());
        flags.iter().for_each(|flag| reply.simple(flag));
    }
    Ok(())
}

/// The command of a call and its keys, or Redis' error.
fn keys_of_call(call: &Args<'_>) -> Result<(&'static CommandSpec, Vec<FoundKey>), CommandError> {
    let command = table().get(call.at(0)).ok_or(CommandError::INVALID_COMMAND)?;
    let sub = call.get(1).and_then(|word| command.subcommand(word)).filter(|sub| is_shown(sub));
    let command = match sub {
        Some(sub) => sub,
        None if shown_subcommands(command).next().is_some() && call.len() > 1 => {
            return Err(CommandError::INVALID_COMMAND);
        }
        None => command,
    };
    let spec = command.spec;
    if spec.keys.iter().all(|key| key.not_key) {
        return Err(CommandError::NO_KEY_ARGUMENTS);
    }
    if !spec.arity.accepts(call.len()) {
        return Err(CommandError::INVALID_ARGUMENT_COUNT);
    }
    let mut keys = Vec::new();
    let found = find_keys(spec, call, &mut keys) && !keys.is_empty();
    if !found {
        if !spec.flags.contains(Flags::NO_MANDATORY_KEYS) {
            return Err(CommandError::INVALID_ARGUMENTS);
        }
        keys.clear();
    }
    Ok((spec, keys))
}

/// How a call accesses a key. Rules marked `variable` state the most that may happen; for those two
/// commands Redis says what this call does.
fn access_of_call(spec: &CommandSpec, key: &FoundKey, call: &Args<'_>) -> (Access, Purpose) {
    let has =
        |word: &str, from| call.iter_from(from).any(|w| w.eq_ignore_ascii_case(word.as_bytes()));
    match spec.name {
        "set" if !has("GET", 3) => (Access::Overwrite, Purpose::Update),
        "bitfield" if !has("SET", 2) && !has("INCRBY", 2) => (Access::Read, Purpose::Access),
        _ => (key.spec.access, key.spec.purpose),
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    fn check(cases: &[(&str, &str)]) {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        for (call, want) in cases {
            let words: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
            let got = String::from_utf8(bare.call(&mut client, &words)).expect("text");
            assert_eq!(got.replace("\r\n", " ").trim_end(), *want, "{call}");
        }
    }

    #[test]
    fn getkeys_finds_keys_or_says_why_not() {
        check(&[
            ("COMMAND GETKEYS get a", "*1 $1 a"),
            ("COMMAND GETKEYS mset a 1 b 2", "*2 $1 a $1 b"),
            ("COMMAND GETKEYS nosuch a", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS config nosuch", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS ping a", "-ERR The command has no key arguments"),
            ("COMMAND GETKEYS debug object", "-ERR The command has no key arguments"),
            ("COMMAND GETKEYS get a b", "-ERR Invalid number of arguments specified for command"),
        ]);
    }

    #[test]
    fn getkeysandflags_depends_on_the_call() {
        check(&[
            ("COMMAND GETKEYSANDFLAGS set a b", "*1 *2 $1 a *2 +OW +update"),
            ("COMMAND GETKEYSANDFLAGS set a b get", "*1 *2 $1 a *3 +RW +access +update"),
            ("COMMAND GETKEYSANDFLAGS get a", "*1 *2 $1 a *2 +RO +access"),
        ]);
    }

    #[test]
    fn list_is_filtered_by_category_and_pattern() {
        check(&[
            ("COMMAND LIST FILTERBY PATTERN *|RESETSTAT", "*1 $16 config|resetstat"),
            ("COMMAND LIST FILTERBY PATTERN debug|*", "*0"),
            ("COMMAND LIST FILTERBY MODULE x", "*0"),
            ("COMMAND LIST FILTERBY ACLCAT nosuch", "*0"),
            ("COMMAND LIST FILTERBY", "-ERR syntax error"),
            ("COMMAND LIST x", "-ERR syntax error"),
        ]);
    }

    #[test]
    fn unknown_names_are_null_in_info_and_left_out_of_docs() {
        check(&[
            ("COMMAND INFO nosuch config|nosuch", "*2 $-1 $-1"),
            ("COMMAND DOCS nosuch", "*0"),
            ("COMMAND nosuch", "-ERR unknown subcommand 'nosuch'. Try COMMAND HELP."),
        ]);
    }
}
