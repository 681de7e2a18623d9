//! Every command of the admin protocol: its words, what it does, and how its arguments are read.
//! HELP and the README follow from this table.

use cordis_engine::slots::map::GroupId;

use crate::machine::{Cancelled, Command, Weight};
use crate::ranges::SlotSet;

/// What a call asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Asked {
    /// Something that changes, or has to be found out.
    Do(Command),
    /// Something that is known.
    Show(Show),
    /// The end of the process.
    Shutdown,
}

/// What can be shown.
#[derive(Clone, PartialEq, Debug)]
pub enum Show {
    /// That somebody is there.
    Ping,
    /// The table of commands, or those that begin with these words.
    Help(String),
    /// The process.
    Info,
    /// The cluster at a glance.
    Status,
    /// Groups.
    Groups,
    /// Servers.
    Servers,
    /// Slots.
    Slots,
    /// Proxies.
    Proxies,
    /// Operations: one, or the running and the last ended ones.
    Moves(Option<u64>),
    /// Events: so many at most, after a number.
    Events(usize, u64),
    /// The map.
    Map,
    /// Settings that match a pattern.
    Config(String),
}

/// One command.
pub struct AdminSpec {
    /// Its words.
    pub words: &'static str,
    /// Its arguments.
    pub args: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Reads its arguments.
    pub read: fn(&mut Words<'_>) -> Result<Asked, String>,
}

/// All commands, by words. AUTH, HELLO and QUIT belong to the session: see `session.rs`.
pub const COMMANDS: &[AdminSpec] = &[
    AdminSpec {
        words: "CONFIG GET",
        args: "pattern",
        summary: "Settings whose name matches the pattern, where * stands for anything.",
        read: |words| Ok(Asked::Show(Show::Config(words.text("a pattern")?))),
    },
    AdminSpec {
        words: "CONFIG SET",
        args: "name value",
        summary: "Changes a setting; kept over restarts.",
        read: |words| {
            let (name, value) = (words.text("a name")?, words.text("a value")?);
            Ok(Asked::Do(Command::ConfigSet { name, value }))
        },
    },
    AdminSpec {
        words: "EVENTS",
        args: "[COUNT n] [SINCE id]",
        summary: "What happened, oldest first: the last n events, or those after an id.",
        read: events,
    },
    AdminSpec {
        words: "GROUP ADD",
        args: "group",
        summary: "Makes a group with a number from 1 to 9999.",
        read: |words| Ok(Asked::Do(Command::GroupAdd(words.group()?))),
    },
    AdminSpec {
        words: "GROUP DEL",
        args: "group",
        summary: "Removes a group without servers.",
        read: |words| Ok(Asked::Do(Command::GroupDel(words.group()?))),
    },
    AdminSpec {
        words: "GROUP LIST",
        args: "",
        summary: "Groups, their servers and their slots.",
        read: |_| Ok(Asked::Show(Show::Groups)),
    },
    AdminSpec {
        words: "HELP",
        args: "[word ...]",
        summary: "This list, or the commands that begin with the words; in redis-cli: COMMAND HELP.",
        read: |words| Ok(Asked::Show(Show::Help(words.rest()))),
    },
    AdminSpec {
        words: "INFO",
        args: "",
        summary: "The control process itself.",
        read: |_| Ok(Asked::Show(Show::Info)),
    },
    AdminSpec {
        words: "MAP GET",
        args: "",
        summary: "The map as proxies and servers get it, as JSON.",
        read: |_| Ok(Asked::Show(Show::Map)),
    },
    AdminSpec {
        words: "MOVE STATUS",
        args: "[id]",
        summary: "Moves and rebalances: progress, rate and time left; the running and the last ones.",
        read: |words| {
            let id = if words.is_empty() { None } else { Some(words.number("an id")?) };
            Ok(Asked::Show(Show::Moves(id)))
        },
    },
    AdminSpec { words: "PING", args: "", summary: "PONG.", read: |_| Ok(Asked::Show(Show::Ping)) },
    AdminSpec {
        words: "PROXY ADD",
        args: "admin-addr",
        summary: "Takes a proxy in; it gets the map. Again for a known one: its number.",
        read: |words| Ok(Asked::Do(Command::ProxyAdd { addr: words.text("an address")? })),
    },
    AdminSpec {
        words: "PROXY DEL",
        args: "id|token|addr [FORCE]",
        summary: "Forgets a proxy; FORCE if it does not answer while slots move by lease.",
        read: |words| {
            let name = words.text("a proxy")?;
            let is_forced = words.is_next("FORCE");
            Ok(Asked::Do(Command::ProxyDel { name, is_forced }))
        },
    },
    AdminSpec {
        words: "PROXY LIST",
        args: "",
        summary: "Proxies, whether they answer, and which map they have.",
        read: |_| Ok(Asked::Show(Show::Proxies)),
    },
    AdminSpec {
        words: "SERVER ADD",
        args: "group addr [DATACENTER name] [IMPORT]",
        summary: "Asks a server what it is and takes it into a group; IMPORT: even if it has keys, \
                  or is a plain Redis.",
        read: server_add,
    },
    AdminSpec {
        words: "SERVER DEL",
        args: "[group] addr",
        summary: "Takes a server out of a group that has no slots.",
        read: |words| {
            let first = words.text("an address")?;
            let addr = if words.is_empty() { first } else { words.text("an address")? };
            Ok(Asked::Do(Command::ServerDel { addr }))
        },
    },
    AdminSpec {
        words: "SERVER LIST",
        args: "",
        summary: "Servers, whether they answer, and which map they have.",
        read: |_| Ok(Asked::Show(Show::Servers)),
    },
    AdminSpec {
        words: "SHUTDOWN",
        args: "",
        summary: "Ends the control process; the cluster goes on serving.",
        read: |_| Ok(Asked::Shutdown),
    },
    AdminSpec {
        words: "SLOTS ASSIGN",
        args: "slots [TO] group",
        summary: "Gives offline slots to a group.",
        read: |words| {
            let slots = words.slots()?;
            words.is_next("TO");
            Ok(Asked::Do(Command::SlotsAssign { slots, group: words.group()? }))
        },
    },
    AdminSpec {
        words: "SLOTS CANCEL",
        args: "id | SLOTS slots | ALL",
        summary: "Stops a move or rebalance; what has not been handed over stays where it is.",
        read: cancel,
    },
    AdminSpec {
        words: "SLOTS LIST",
        args: "",
        summary: "Who serves which slots, and what happens with them.",
        read: |_| Ok(Asked::Show(Show::Slots)),
    },
    AdminSpec {
        words: "SLOTS MOVE",
        args: "slots [TO] group",
        summary: "Moves slots with their keys to a group while they are in use.",
        read: |words| {
            let slots = words.slots()?;
            words.is_next("TO");
            Ok(Asked::Do(Command::SlotsMove { slots, to: words.group()? }))
        },
    },
    AdminSpec {
        words: "SLOTS PAUSE",
        args: "",
        summary: "Lets no slot begin to move; those under way stay where they are. Kept over restarts.",
        read: |_| Ok(Asked::Do(Command::Pause)),
    },
    AdminSpec {
        words: "SLOTS REBALANCE",
        args: "[BY SLOTS|KEYS|MEMORY|LOAD] [CONFIRM]",
        summary: "Shows which slots would move for groups to be even; with CONFIRM moves them.",
        read: rebalance,
    },
    AdminSpec {
        words: "SLOTS RESUME",
        args: "",
        summary: "Ends a pause.",
        read: |_| Ok(Asked::Do(Command::Resume)),
    },
    AdminSpec {
        words: "STATUS",
        args: "",
        summary: "The cluster at a glance.",
        read: |_| Ok(Asked::Show(Show::Status)),
    },
    AdminSpec {
        words: "TOP",
        args: "",
        summary: "One look at every server and proxy: cores, slots, keys, commands, memory, latency.",
        read: |_| Ok(Asked::Do(Command::Top)),
    },
];

/// Words of a call that have not been read.
pub struct Words<'w>(&'w [&'w str]);

impl Words<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn text(&mut self, what: &str) -> Result<String, String> {
        self.next().map(str::to_owned).ok_or_else(|| format!("{what} is missing"))
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let text = self.text(what)?;
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_plain);
        number.ok_or_else(|| format!("'{text}' is not {what}"))
    }

    fn group(&mut self) -> Result<GroupId, String> {
        let id = self.number("a group")?;
        GroupId::try_from(id).map_err(|_| format!("invalid group id = {id}, out of range"))
    }

    fn slots(&mut self) -> Result<SlotSet, String> {
        SlotSet::parse(&self.text("slots")?).map_err(|why| why.to_string())
    }

    /// Whether a word comes next; then it is read.
    fn is_next(&mut self, word: &str) -> bool {
        let is_it = self.0.first().is_some_and(|first| first.eq_ignore_ascii_case(word));
        if is_it {
            self.0 = &self.0[1..];
        }
        is_it
    }

    fn rest(&mut self) -> String {
        let rest = self.0.join(" ").to_ascii_uppercase();
        self.0 = &[];
        rest
    }
}

fn events(words: &mut Words<'_>) -> Result<Asked, String> {
    let (mut count, mut since) = (None, 0);
    while !words.is_empty() {
        if words.is_next("COUNT") {
            count = Some(words.number("a count")?);
        } else if words.is_next("SINCE") {
            since = words.number("an id")?;
        } else {
            return Err("EVENTS takes COUNT n and SINCE id".into());
        }
    }
    // All that came after an id, or what fits a screen.
    let count = count.unwrap_or(if since > 0 { u64::MAX } else { 50 });
    Ok(Asked::Show(Show::Events(usize::try_from(count).unwrap_or(usize::MAX), since)))
}

fn server_add(words: &mut Words<'_>) -> Result<Asked, String> {
    let (group, addr) = (words.group()?, words.text("an address")?);
    let (mut datacenter, mut is_import) = (String::new(), false);
    while !words.is_empty() {
        if words.is_next("IMPORT") {
            is_import = true;
        } else if words.is_next("DATACENTER") {
            datacenter = words.text("a datacenter")?;
        } else {
            return Err("SERVER ADD takes DATACENTER name and IMPORT".into());
        }
    }
    Ok(Asked::Do(Command::ServerAdd { group, addr, datacenter, is_import }))
}

fn cancel(words: &mut Words<'_>) -> Result<Asked, String> {
    let what = if words.is_next("ALL") {
        Cancelled::All
    } else if words.is_next("SLOTS") {
        Cancelled::Slots(words.slots()?)
    } else {
        Cancelled::Op(words.number("an id, SLOTS or ALL")?)
    };
    Ok(Asked::Do(Command::Cancel(what)))
}

fn rebalance(words: &mut Words<'_>) -> Result<Asked, String> {
    let (mut by, mut is_preview) = (Weight::Slots, true);
    while !words.is_empty() {
        if words.is_next("CONFIRM") {
            is_preview = false;
        } else if words.is_next("PREVIEW") {
            is_preview = true;
        } else if words.is_next("BY") {
            by = match words.text("a measure")?.to_ascii_uppercase().as_str() {
                "SLOTS" => Weight::Slots,
                "KEYS" => Weight::Keys,
                "MEMORY" => Weight::Memory,
                "LOAD" => Weight::Load,
                other => return Err(format!("'{other}' is not SLOTS, KEYS, MEMORY or LOAD")),
            };
        } else {
            return Err("SLOTS REBALANCE takes BY measure and CONFIRM".into());
        }
    }
    Ok(Asked::Do(Command::Rebalance { by, is_preview }))
}

/// What a call asks for.
///
/// # Errors
/// What is wrong with it, as the text of an error reply.
pub fn read(call: &[&str]) -> Result<Asked, String> {
    for spec in COMMANDS {
        let count = spec.words.split(' ').count();
        let is_it = call.len() >= count
            && spec
                .words
                .split(' ')
                .zip(call)
                .all(|(word, given)| word.eq_ignore_ascii_case(given));
        if is_it {
            let mut rest = Words(&call[count..]);
            let asked = (spec.read)(&mut rest);
            let usage = || format!("usage: {} {}", spec.words, spec.args);
            let asked = asked.map_err(|why| format!("ERR {why}; {}", usage().trim_end()))?;
            return match rest.is_empty() {
                true => Ok(asked),
                false => Err(format!("ERR too many words; {}", usage().trim_end())),
            };
        }
    }
    let first: String = call.first().unwrap_or(&"").chars().take(64).collect();
    Err(format!("ERR unknown command '{first}'; HELP lists all of them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_each_has_a_line_and_stands_in_order() {
        for (at, spec) in COMMANDS.iter().enumerate() {
            assert!(spec.summary.ends_with('.') && spec.summary.len() < 120, "{}", spec.words);
            assert!(at == 0 || COMMANDS[at - 1].words < spec.words, "{}", spec.words);
        }
    }

    #[test]
    fn calls_are_read() {
        let slots = SlotSet::parse("0-511").unwrap();
        let moved = Asked::Do(Command::SlotsMove { slots, to: 2 });
        assert_eq!(read(&["slots", "move", "0-511", "to", "2"]), Ok(moved.clone()));
        assert_eq!(read(&["SLOTS", "MOVE", "0-511", "2"]), Ok(moved));
        assert_eq!(
            read(&["EVENTS", "SINCE", "7", "COUNT", "3"]),
            Ok(Asked::Show(Show::Events(3, 7)))
        );
        assert_eq!(
            read(&["SLOTS", "REBALANCE", "BY", "keys", "CONFIRM"]),
            Ok(Asked::Do(Command::Rebalance { by: Weight::Keys, is_preview: false }))
        );
        assert_eq!(
            read(&["SLOTS", "CANCEL", "SLOTS", "0-511"]),
            Ok(Asked::Do(Command::Cancel(Cancelled::Slots(slots))))
        );
    }

    #[test]
    fn wrong_calls_say_how_it_is_done() {
        let wrong: [&[&str]; 8] = [
            &[],
            &["FOO"],
            &["SLOTS"],
            &["SLOTS", "MOVE", "0-9999", "TO", "2"],
            &["SLOTS", "MOVE", "0"],
            &["GROUP", "ADD", "70000"],
            &["GROUP", "ADD", "-1"],
            &["PING", "PING"],
        ];
        for call in wrong {
            let why = read(call).unwrap_err();
            assert!(why.starts_with("ERR ") && !why.contains('\n'), "{why}");
        }
    }
}
