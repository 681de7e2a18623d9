//! All commands: the families' specs in one lookup table, built once.

use std::sync::OnceLock;

use crate::commands::spec::{Begin, CommandSpec, Find, Handler};
use crate::commands::{
    bitmap, connection, cordis, docs, generic, hash, hyperloglog, list, pubsub, server, set, slots,
    string, txn, zset,
};

/// A spec with what the data path derives from it.
#[derive(Debug)]
pub struct Command {
    /// The declaration.
    pub spec: &'static CommandSpec,
    /// Dense number, for counters.
    pub id: u16,
    /// Where its keys are.
    pub keys: KeyRule,
    /// Subcommands.
    pub subcommands: Vec<Command>,
}

/// How the data path finds keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyRule {
    /// There are none.
    None,
    /// Word 1, and only that.
    First,
    /// As the spec's key specs say.
    Specs,
}

/// All families.
static FAMILIES: &[&[CommandSpec]] = &[
    connection::SPECS,
    string::SPECS,
    bitmap::SPECS,
    generic::SPECS,
    hash::SPECS,
    list::SPECS,
    hyperloglog::SPECS,
    pubsub::SPECS,
    txn::SPECS,
    set::SPECS,
    zset::SPECS,
    slots::SPECS,
    slots::dump::SPECS,
    slots::moves::SPECS,
    slots::receive::SPECS,
    slots::restore::SPECS,
    slots::wrapper::SPECS,
    cordis::SPECS,
    docs::SPECS,
    server::config::SPECS,
    server::debug::SPECS,
    server::info::SPECS,
    server::latency::SPECS,
    server::lolwut::SPECS,
    server::memory::SPECS,
    server::monitor::SPECS,
    server::append::SPECS,
    server::process::SPECS,
    server::shutdown::SPECS,
    server::slowlog::SPECS,
];

/// The table.
#[derive(Debug)]
pub struct CommandTable {
    commands: Vec<Command>,
    /// Open addressing by [`name_hash`]: index into `commands` plus one.
    cells: Box<[u16]>,
    id_count: usize,
}

const CELL_COUNT: usize = 2048;

/// Hash of a name in any case: its length and up to eight bytes of it.
#[inline]
fn name_hash(name: &[u8]) -> usize {
    let mut word = name.len() as u64;
    let head = &name[..name.len().min(8)];
    for &byte in head {
        word = word << 8 ^ (word >> 56) ^ u64::from(byte | 0x20);
    }
    if let [.., last] = name {
        word ^= u64::from(last | 0x20) << 3;
    }
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize
}

impl CommandTable {
    fn build() -> Self {
        let mut id = 0;
        let mut commands: Vec<Command> =
            FAMILIES.iter().flat_map(|specs| specs.iter()).map(|s| command(s, &mut id)).collect();
        commands.sort_by_key(|c| c.spec.name);
        let mut cells = vec![0u16; CELL_COUNT].into_boxed_slice();
        for (i, command) in commands.iter().enumerate() {
            let mut cell = name_hash(command.spec.name.as_bytes());
            while cells[cell] != 0 {
                cell = (cell + 1) % CELL_COUNT;
            }
            cells[cell] = i as u16 + 1;
        }
        Self { commands, cells, id_count: usize::from(id) }
    }

    /// The command of this name, in any case.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Command> {
        let mut cell = name_hash(name);
        loop {
            let index = usize::from(self.cells[cell]).checked_sub(1)?;
            let command = &self.commands[index];
            if name.eq_ignore_ascii_case(command.spec.name.as_bytes()) {
                return Some(command);
            }
            cell = (cell + 1) % CELL_COUNT;
        }
    }

    /// All commands by name; subcommands are inside.
    pub fn all(&self) -> &[Command] {
        &self.commands
    }

    /// How many ids there are, subcommands included.
    pub fn id_count(&self) -> usize {
        self.id_count
    }
}

impl Command {
    /// The subcommand of this name, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&Command> {
        self.subcommands.iter().find(|c| name.eq_ignore_ascii_case(c.spec.short_name().as_bytes()))
    }

    /// Whether it has subcommands instead of a handler.
    pub fn is_container(&self) -> bool {
        matches!(self.spec.handler, Handler::Container)
    }
}

fn command(spec: &'static CommandSpec, id: &mut u16) -> Command {
    let this = *id;
    *id += 1;
    let keys = match spec.keys {
        [] => KeyRule::None,
        [one] => match (one.begin, one.find) {
            (Begin::Index(1), Find::Range { last: 0, .. }) => KeyRule::First,
            _ => KeyRule::Specs,
        },
        _ => KeyRule::Specs,
    };
    let subcommands = spec.subcommands.iter().map(|sub| command(sub, id)).collect();
    Command { spec, id: this, keys, subcommands }
}

/// The table of this process.
#[inline]
pub fn table() -> &'static CommandTable {
    static TABLE: OnceLock<CommandTable> = OnceLock::new();
    TABLE.get_or_init(CommandTable::build)
}
