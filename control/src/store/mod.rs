//! Where the model is kept: a few verbs that embedded files offer, and that etcd or ZooKeeper can.
//!
//! A store holds texts by name. Its verbs: all of them ([`Store::load`]), and some of them changed,
//! all or none, on disk when it returns ([`Store::put`]). Who opens it holds it alone until it is
//! dropped. Knows nothing of what the texts mean.

use std::fmt;

use crate::model::Record;

pub mod file;
pub mod frame;
pub mod medium;
#[cfg(test)]
mod tests;

/// Why a store cannot be read or written.
#[derive(Debug)]
pub enum StoreError {
    /// The operating system refuses something.
    Io {
        /// What was tried, and on what.
        what: String,
        /// Why not.
        why: std::io::Error,
    },
    /// Another process holds it.
    Held(String),
    /// What is there cannot be what was written, and no crash explains it.
    Corrupt {
        /// The file.
        file: String,
        /// Where in it.
        offset: usize,
        /// What is wrong.
        why: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, why } => write!(f, "{what}: {why}"),
            Self::Held(file) => write!(f, "{file}: another control process holds this store"),
            Self::Corrupt { file, offset, why } => {
                write!(f, "{file} is damaged at byte {offset}: {why}")
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// Texts by name, kept.
pub trait Store {
    /// All texts, by name: what the last successful put left.
    fn load(&self) -> Vec<(String, String)>;

    /// Changes texts, all or none. When it returns without an error they survive a loss of power;
    /// with an error [`Store::load`] is as before, and a later put may succeed.
    ///
    /// # Errors
    /// If they could not be written.
    fn put(&mut self, records: &[Record]) -> Result<(), StoreError>;
}
