//! What happens to a call: one entry per command, derived from the command table's specs, with the
//! commands that a proxy answers itself or refuses put in their place by whoever implements them.

use cordis_engine::commands::args::Args;
use cordis_engine::commands::spec::{Flags, Handler, Merge, Route};
use cordis_engine::commands::table::{Command, KeyRule, table};
use cordis_engine::runtime::ring::Token;

use crate::hub::Hub;

/// A call on its way.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who sent it.
    pub session: Token,
    /// Its words.
    pub args: &'a Args<'a>,
    /// What it calls: the subcommand, if it has one.
    pub command: &'static Command,
    /// The request as it is sent on.
    pub bytes: &'a [u8],
}

/// What follows for the session's next call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// The call was taken; look at the next.
    Go,
    /// The call was taken; the next waits until [`Hub::resume`].
    Stop,
    /// The call was not taken: it is looked at again when all earlier calls have been answered.
    Hold,
}

/// Answers a call, now or later.
pub type LocalHandler = fn(&mut Hub, &Call<'_>) -> Flow;
/// Sees every call of a session that is marked as special first. `None`: not its business.
pub type Gate = fn(&mut Hub, &Call<'_>) -> Option<Flow>;
/// Answers a call of a name that is in no table.
pub type Unknown = fn(&mut Hub, Token, &Args<'_>) -> Flow;

/// What happens to the calls of one command.
#[derive(Clone, Copy)]
pub enum Way {
    /// Forwarded by word 1.
    Key,
    /// Forwarded by its keys, which must be served by one backend.
    Keys,
    /// Split per backend, and the replies merged.
    Split,
    /// Answered by this handler.
    Local(LocalHandler),
    /// Refused, for this reason.
    Refused(&'static str),
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key => f.write_str("Key"),
            Self::Keys => f.write_str("Keys"),
            Self::Split => f.write_str("Split"),
            Self::Local(_) => f.write_str("Local"),
            Self::Refused(why) => write!(f, "Refused({why})"),
        }
    }
}

/// The ways of all commands.
#[derive(Debug)]
pub struct Ways {
    ways: Vec<Way>,
    pub(crate) gate: Option<Gate>,
    pub(crate) unknown: Option<Unknown>,
}

const NOT_HERE: &str = "it is not served through a proxy";
const INTERNAL: &str = "it is for servers among themselves";

impl Default for Ways {
    fn default() -> Self {
        Self::new()
    }
}

impl Ways {
    /// The ways that follow from the specs alone.
    pub fn new() -> Self {
        let mut ways = vec![Way::Refused(NOT_HERE); table().id_count()];
        for command in table().all() {
            ways[usize::from(command.id)] = by_spec(command);
            for sub in &command.subcommands {
                ways[usize::from(sub.id)] = by_spec(sub);
            }
        }
        Self { ways, gate: None, unknown: None }
    }

    /// The way of a command.
    #[inline]
    pub fn of(&self, command: &Command) -> Way {
        self.ways[usize::from(command.id)]
    }

    /// Has a command answered by a handler. `container|sub` names a subcommand; the name of a
    /// container stands for all of its subcommands.
    ///
    /// # Panics
    /// If the table has no such command.
    pub fn local(&mut self, name: &str, handler: LocalHandler) {
        self.set(name, Way::Local(handler));
    }

    /// Has a command refused.
    ///
    /// # Panics
    /// If the table has no such command.
    pub fn refuse(&mut self, name: &str, why: &'static str) {
        self.set(name, Way::Refused(why));
    }

    /// Sets the way of a command.
    ///
    /// # Panics
    /// If the table has no such command.
    pub fn set(&mut self, name: &str, way: Way) {
        let (container, sub) = name.split_once('|').unwrap_or((name, ""));
        let command = table().get(container.as_bytes());
        let command = command.unwrap_or_else(|| panic!("there is no command `{container}`"));
        if sub.is_empty() {
            self.ways[usize::from(command.id)] = way;
            for sub in &command.subcommands {
                self.ways[usize::from(sub.id)] = way;
            }
        } else {
            let sub = command.subcommand(sub.as_bytes());
            let sub = sub.unwrap_or_else(|| panic!("there is no command `{name}`"));
            self.ways[usize::from(sub.id)] = way;
        }
    }

    /// Has the calls of special sessions looked at first.
    pub fn gate(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// Has calls of unknown names answered by this.
    pub fn unknown(&mut self, unknown: Unknown) {
        self.unknown = Some(unknown);
    }
}

fn by_spec(command: &Command) -> Way {
    let spec = command.spec;
    if spec.is_internal {
        return Way::Refused(INTERNAL);
    }
    let is_data = matches!(spec.handler, Handler::Data(_) | Handler::Sliced(_));
    if !is_data || spec.flags.contains(Flags::BLOCKING) {
        return Way::Refused(NOT_HERE);
    }
    match (spec.route, spec.merge) {
        (Route::SplitKeys, Merge::Sum | Merge::AllOk | Merge::InKeyOrder) => Way::Split,
        (Route::ByKey | Route::SplitKeys, _) if command.keys == KeyRule::First => Way::Key,
        (Route::ByKey | Route::SplitKeys, _) => Way::Keys,
        (Route::Denied(why), _) => Way::Refused(why),
        _ => Way::Refused(NOT_HERE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(name: &str) -> String {
        let command = table().get(name.as_bytes()).expect("it exists");
        format!("{:?}", Ways::new().of(command))
    }

    #[test]
    fn ways_follow_from_the_specs() {
        for name in ["get", "set", "incr", "lpush", "hgetall", "zadd"] {
            assert_eq!(way(name), "Key", "{name}");
        }
        for name in ["mget", "mset", "del", "unlink", "exists", "touch"] {
            assert_eq!(way(name), "Split", "{name}");
        }
        for name in ["rename", "sinterstore", "zunion", "lmpop", "pfmerge", "msetnx"] {
            assert_eq!(way(name), "Keys", "{name}");
        }
        for name in ["blpop", "subscribe", "exec", "watch", "shutdown"] {
            assert!(way(name).starts_with("Refused"), "{name}");
        }
    }
}
