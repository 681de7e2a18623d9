//! The embedded store: one log file that begins with everything and goes on with changes.
//!
//! A put is one frame, appended and synced. When the log has grown well beyond what it says, a new
//! generation is written beside it, under its own name only when it is whole on disk, and the old
//! one goes. After a write that failed nobody knows what the disk holds of it, so the next put
//! begins a new generation too: whatever was left behind is never read again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::frame::{self, HEADER_BYTES};
use super::medium::{Folder, Medium};
use super::{Store, StoreError};
use crate::model::Record;

/// A log is not rewritten below this size.
const COMPACT_BYTES_MIN: usize = 256 * 1024;
/// Nor before it is so many times larger than what it says.
const COMPACT_RATIO: usize = 4;

/// Texts by name in a log file.
#[derive(Debug)]
pub struct FileStore<M> {
    medium: M,
    texts: BTreeMap<String, String>,
    generation: u64,
    log_bytes: usize,
    /// Size of the frame that the log begins with.
    base_bytes: usize,
    /// A write failed: the log may hold something that was never acknowledged.
    is_spoiled: bool,
    /// Bytes of a torn end that were cut when it was opened.
    cut_bytes: usize,
}

fn name(generation: u64) -> String {
    format!("control-{generation:010}.log")
}

fn generation_of(name: &str) -> Option<u64> {
    name.strip_prefix("control-")?.strip_suffix(".log")?.parse().ok()
}

impl FileStore<Folder> {
    /// Opens the store in a folder.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or another process holds it.
    pub fn open(path: PathBuf) -> Result<Self, StoreError> {
        Self::on(Folder::take(path)?)
    }
}

impl<M: Medium> FileStore<M> {
    /// Opens the store on a medium.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn on(medium: M) -> Result<Self, StoreError> {
        let names = medium.list().map_err(|why| io("cannot list the store", why))?;
        let newest = names.iter().filter_map(|name| generation_of(name)).max();
        let mut store = Self {
            medium,
            texts: BTreeMap::new(),
            generation: newest.unwrap_or(0),
            log_bytes: 0,
            base_bytes: 0,
            is_spoiled: newest.is_none(),
            cut_bytes: 0,
        };
        if newest.is_some() {
            store.read()?;
        }
        // What a crash left of other generations.
        for stale in names.iter().filter(|stale| is_stale(stale, store.generation)) {
            store.medium.remove(stale).map_err(|why| io(&format!("cannot remove {stale}"), why))?;
        }
        Ok(store)
    }

    fn read(&mut self) -> Result<(), StoreError> {
        let file = name(self.generation);
        let bytes =
            self.medium.read(&file).map_err(|why| io(&format!("cannot read {file}"), why))?;
        let contents =
            frame::decode(self.generation, &bytes).map_err(|damage| StoreError::Corrupt {
                file: file.clone(),
                offset: damage.offset,
                why: damage.why.to_owned(),
            })?;
        self.cut_bytes = bytes.len() - contents.good_bytes;
        if self.cut_bytes > 0 {
            let cut = self.medium.truncate(&file, contents.good_bytes);
            cut.map_err(|why| io(&format!("cannot cut the torn end of {file}"), why))?;
        }
        self.log_bytes = contents.good_bytes;
        self.texts = contents.texts;
        self.base_bytes = self.snapshot(0).len();
        Ok(())
    }

    /// Bytes of a torn end that were cut when it was opened.
    pub fn cut_bytes(&self) -> usize {
        self.cut_bytes
    }

    /// What it lies on.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Gives the medium back.
    pub fn into_medium(self) -> M {
        self.medium
    }

    fn snapshot(&self, generation: u64) -> Vec<u8> {
        let all: Vec<Record> = self
            .texts
            .iter()
            .map(|(key, value)| Record { key: key.clone(), value: Some(value.clone()) })
            .collect();
        frame::encode(generation, HEADER_BYTES, &all)
    }

    /// Writes everything into a new generation.
    fn renew(&mut self) -> Result<(), StoreError> {
        let generation = self.generation + 1;
        // A generation that failed half-way may be there: its name is not used twice.
        self.generation = generation;
        let file = name(generation);
        let base = self.snapshot(generation);
        let bytes = [frame::header(generation), base].concat();
        self.medium
            .create(&file, &bytes)
            .map_err(|why| io(&format!("cannot write {file}"), why))?;
        self.is_spoiled = false;
        self.base_bytes = bytes.len() - HEADER_BYTES;
        self.log_bytes = bytes.len();
        let Ok(names) = self.medium.list() else { return Ok(()) };
        for stale in names.iter().filter(|stale| is_stale(stale, generation)) {
            // Left behind it costs space only, and goes when the store is opened next.
            drop(self.medium.remove(stale));
        }
        Ok(())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let file = name(self.generation);
        let bytes = frame::encode(self.generation, self.log_bytes, records);
        let done = self.medium.append(&file, &bytes);
        if let Err(why) = done {
            self.is_spoiled = true;
            return Err(io(&format!("cannot write {file}"), why));
        }
        self.log_bytes += bytes.len();
        Ok(())
    }
}

fn is_stale(name: &str, generation: u64) -> bool {
    let log = name.strip_suffix(".tmp").unwrap_or(name);
    generation_of(log).is_some_and(|of| of != generation || log.len() != name.len())
}

fn io(what: &str, why: std::io::Error) -> StoreError {
    StoreError::Io { what: what.to_owned(), why }
}

impl<M: Medium> Store for FileStore<M> {
    fn load(&self) -> Vec<(String, String)> {
        self.texts.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn put(&mut self, records: &[Record]) -> Result<(), StoreError> {
        if self.is_spoiled {
            self.renew()?;
        }
        self.append(records)?;
        for record in records {
            match &record.value {
                Some(value) => drop(self.texts.insert(record.key.clone(), value.clone())),
                None => drop(self.texts.remove(&record.key)),
            }
        }
        let is_large = self.log_bytes > COMPACT_BYTES_MIN.max(self.base_bytes * COMPACT_RATIO);
        if is_large && self.renew().is_err() {
            // The put itself is on disk; the next one tries again.
            self.is_spoiled = true;
        }
        Ok(())
    }
}
