//! The table for people: the syntax of a call, HELP, and the reference page `engine/COMMANDS.md`.

use std::fmt::Write as _;

use crate::commands::docs::{shown_subcommands, wire};
use crate::commands::spec::{Arg, ArgKind, CommandSpec, Family, Route};
use crate::commands::table::{Command, table};

/// How a call is written: `SET key value [NX | XX] [GET] ...`.
pub fn syntax(spec: &CommandSpec) -> String {
    let mut text = spec.name.to_ascii_uppercase().replace('|', " ");
    for arg in spec.args {
        text.push(' ');
        text.push_str(&arg_syntax(arg));
    }
    text
}

fn arg_syntax(arg: &Arg) -> String {
    let text = required_syntax(arg);
    if arg.optional { format!("[{text}]") } else { text }
}

/// The same without a word about whether it may be left out.
fn required_syntax(arg: &Arg) -> String {
    let body = match arg.kind {
        ArgKind::PureToken => String::new(),
        ArgKind::OneOf => {
            let choices: Vec<String> = arg.args.iter().map(required_syntax).collect();
            let choices = choices.join(" | ");
            let is_bracketed = arg.optional && arg.token.is_none() && !arg.multiple;
            if is_bracketed { choices } else { format!("<{choices}>") }
        }
        ArgKind::Block => arg.args.iter().map(arg_syntax).collect::<Vec<_>>().join(" "),
        _ => arg.name.to_owned(),
    };
    repeated(arg, &body)
}

/// The body with its token, and the repetitions that are allowed.
fn repeated(arg: &Arg, body: &str) -> String {
    let with_token = |body: &str| match arg.token {
        // An empty token is written as two quotes.
        Some("") => format!("\"\" {body}").trim_end().to_owned(),
        Some(token) => format!("{token} {body}").trim_end().to_owned(),
        None => body.to_owned(),
    };
    match (arg.multiple, arg.multiple_token) {
        (false, _) => with_token(body),
        (true, false) => with_token(&format!("{body} [{body} ...]")),
        (true, true) => {
            let one = with_token(body);
            format!("{one} [{one} ...]")
        }
    }
}

/// What `<container> HELP` answers.
pub fn help_lines(container: &Command) -> Vec<String> {
    let name = container.spec.name.to_ascii_uppercase();
    let mut lines = vec![format!("{name} is called with one of these:")];
    for sub in &container.subcommands {
        let call = syntax(sub.spec);
        let call = call.strip_prefix(&name).unwrap_or(&call);
        lines.push(call.trim_start().to_owned());
        lines.push(format!("    {}.", sub.spec.summary));
    }
    lines
}

const PAGE_HEAD: &str = "\
# Commands

Generated from the command table; do not edit. `UPDATE_EXPECT=1 cargo test -p cordis-engine --test
spec` writes it anew.

*Where* says what a call touches: `keys` the shards of its keys, `split` the same, and a proxy may
split the call per backend, `all` every shard at once, `any` one shard, `session` no data, `queue`
what the session has queued.
";

/// The whole of `engine/COMMANDS.md`.
pub fn commands_page() -> String {
    let mut page = PAGE_HEAD.to_owned();
    let mut families: Vec<Family> = Vec::new();
    for command in table().all() {
        if !families.contains(&command.spec.family) {
            families.push(command.spec.family);
        }
    }
    families.sort_by_key(|family| family.name());
    for family in families {
        let _ = write!(page, "\n## {}\n\n", family.name());
        page.push_str(
            "| Call | What it does | Cost | Since | Flags | Where |\n|---|---|---|---|---|---|\n",
        );
        let commands = table().all().iter().filter(|c| c.spec.family == family);
        for command in commands {
            let subcommands: Vec<&Command> = if command.spec.is_internal {
                command.subcommands.iter().collect()
            } else {
                shown_subcommands(command).collect()
            };
            if subcommands.is_empty() || !command.is_container() {
                page.push_str(&row(command.spec));
            }
            subcommands.iter().for_each(|sub| page.push_str(&row(sub.spec)));
        }
    }
    page
}

fn row(spec: &CommandSpec) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let place = match spec.route {
        Route::ByKey => "keys",
        Route::SplitKeys => "split",
        Route::AllSlots => "all",
        Route::AnySlot => "any",
        Route::Session => "session",
        Route::Queued => "queue",
        Route::Denied(_) => "refused",
    };
    format!(
        "| `{}` | {} | {} | {} | {} | {place} |\n",
        cell(&syntax(spec)),
        cell(spec.summary),
        cell(spec.complexity),
        spec.since,
        wire::flag_names(spec.flags).join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syntax_of(name: &str) -> String {
        let (name, sub) = name.split_once(' ').map_or((name, None), |(n, s)| (n, Some(s)));
        let mut command = table().get(name.as_bytes()).expect("a command of the table");
        if let Some(sub) = sub {
            command = command.subcommand(sub.as_bytes()).expect("a subcommand of the table");
        }
        syntax(command.spec)
    }

    #[test]
    fn syntax_shows_choices_repetitions_and_options() {
        let cases = [
            (
                "command list",
                "COMMAND LIST [FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
            ),
            ("config set", "CONFIG SET parameter value [parameter value ...]"),
            ("info", "INFO [section [section ...]]"),
            ("time", "TIME"),
            ("memory usage", "MEMORY USAGE key [SAMPLES count]"),
        ];
        for (name, want) in cases {
            assert_eq!(syntax_of(name), want);
        }
    }

    #[test]
    fn help_names_every_subcommand_with_its_summary() {
        let lines = help_lines(table().get(b"config").expect("CONFIG is in the table"));
        assert_eq!(lines.len(), 1 + 2 * 5);
        assert_eq!(lines[1], "GET parameter [parameter ...]");
        assert_eq!(lines[2], "    Returns the settings whose names match.");
    }

    #[test]
    fn page_has_a_row_per_command_and_no_unescaped_bar() {
        let page = commands_page();
        for line in page.lines().filter(|line| line.starts_with("| ")) {
            let bars = line.replace("\\|", "").matches('|').count();
            assert_eq!(bars, 7, "{line}");
        }
        assert!(page.contains("| `INFO [section [section ...]]` |"));
    }
}
