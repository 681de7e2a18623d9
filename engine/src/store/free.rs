//! Lazy freeing: what has left the keyspace but whose memory is returned in slices.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::store::entry::{EntryBox, EntryRef, Value};
use crate::store::keyspace::Db;
use crate::store::table::Table;
use crate::types::Trash;

/// Values from here on are freed lazily.
const LAZY_BYTES_MIN: usize = 256 * 1024;

/// Collections, of many small pieces, from here on.
const LAZY_OBJECT_BYTES_MIN: usize = 32 * 1024;

/// Memory that waits to be returned.
#[derive(Debug, Default)]
pub struct FreeQueue {
    tables: VecDeque<Table>,
    entries: VecDeque<EntryBox>,
    /// Parts of collections.
    trash: Vec<Trash>,
    /// Keys freed lazily since start.
    freed_count: u64,
}

impl FreeQueue {
    /// Takes an entry; a small one is freed at once.
    #[inline]
    pub fn entry(&mut self, entry: EntryBox) {
        if is_large(entry.as_ref()) {
            self.entries.push_back(entry);
        }
    }

    /// Takes parts of a collection.
    pub fn trash(&mut self, trash: Trash) {
        if !trash.is_empty() {
            self.trash.push(trash);
        }
    }

    /// Takes all tables of a database.
    pub fn db(&mut self, db: Db) {
        self.tables.extend(db.into_tables().into_iter().filter(|t| !t.is_empty()));
    }

    /// Takes one table.
    pub fn table(&mut self, table: Table) {
        if !table.is_empty() {
            self.tables.push_back(table);
        }
    }

    /// Frees at most one segment, one large string or one node. `false` when there is nothing to do.
    pub fn step(&mut self) -> bool {
        if let Some(trash) = self.trash.last_mut() {
            if !trash.step() {
                self.trash.pop();
            }
            return true;
        }
        if let Some(mut entry) = self.entries.pop_front() {
            if let Some(object) = entry.as_mut().into_object() {
                self.trash(std::mem::take(object).into_trash());
            }
            self.freed_count += 1;
            return true;
        }
        let Some(table) = self.tables.front_mut() else {
            return false;
        };
        match table.drain_segment() {
            Some(entries) => {
                self.freed_count += entries.len() as u64;
                for entry in entries {
                    self.entry(entry);
                }
            }
            None => drop(self.tables.pop_front()),
        }
        true
    }

    /// Keys that wait.
    pub fn pending_count(&self) -> usize {
        self.entries.len() + self.trash.len() + self.tables.iter().map(Table::len).sum::<usize>()
    }

    /// Keys freed lazily since start.
    pub fn freed_count(&self) -> u64 {
        self.freed_count
    }
}

fn is_large(entry: EntryRef<'_>) -> bool {
    match entry.value() {
        Value::Big(data) => data.len() >= LAZY_BYTES_MIN && Arc::strong_count(data) == 1,
        Value::Object(object) => object.heap_bytes() >= LAZY_OBJECT_BYTES_MIN,
        _ => false,
    }
}
