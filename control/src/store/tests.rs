//! The store against a medium that fails, tears and forgets.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::file::FileStore;
use super::medium::{Folder, Medium};
use super::{Store, StoreError};
use crate::model::Record;

/// Files in memory. What fails next, and how much of a failing write arrives all the same.
#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    writes: usize,
    fail_at: Option<(usize, usize)>,
}

#[derive(Clone, Debug, Default)]
struct Memory(Rc<RefCell<Disk>>);

impl Memory {
    fn with(files: &BTreeMap<String, Vec<u8>>) -> Self {
        Self(Rc::new(RefCell::new(Disk { files: files.clone(), ..Disk::default() })))
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.borrow().files.clone()
    }

    /// Whether this write fails, and how many of its bytes arrive.
    fn fails(&self) -> Option<usize> {
        let mut disk = self.0.borrow_mut();
        disk.writes += 1;
        disk.fail_at.filter(|(at, _)| *at == disk.writes - 1).map(|(_, bytes)| bytes)
    }
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl Medium for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.borrow().files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let torn = self.fails();
        let mut disk = self.0.borrow_mut();
        if let Some(count) = torn {
            let part = bytes[..count.min(bytes.len())].to_vec();
            disk.files.insert(format!("{name}.tmp"), part);
            return Err(full());
        }
        disk.files.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let torn = self.fails();
        let mut disk = self.0.borrow_mut();
        let file = disk.files.get_mut(name).ok_or_else(full)?;
        file.extend_from_slice(&bytes[..torn.unwrap_or(bytes.len()).min(bytes.len())]);
        if torn.is_some() { Err(full()) } else { Ok(()) }
    }

    fn truncate(&mut self, name: &str, bytes: usize) -> io::Result<()> {
        if self.fails().is_some() {
            return Err(full());
        }
        let mut disk = self.0.borrow_mut();
        disk.files.get_mut(name).ok_or_else(full)?.truncate(bytes);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if self.fails().is_some() {
            return Err(full());
        }
        self.0.borrow_mut().files.remove(name);
        Ok(())
    }
}

fn put(key: &str, value: &str) -> Record {
    Record { key: key.to_owned(), value: Some(value.to_owned()) }
}

fn batches() -> Vec<Vec<Record>> {
    vec![
        vec![put("a", "1"), put("b", "1")],
        vec![put("a", "2"), Record { key: "b".into(), value: None }, put("c", "2")],
        vec![put("b", "3"), put("c", "3")],
    ]
}

type Texts = Vec<(String, String)>;

/// What is there after each of the batches, the first being nothing.
fn states() -> Vec<Texts> {
    let mut now: BTreeMap<String, String> = BTreeMap::new();
    let mut states = vec![Vec::new()];
    for batch in batches() {
        for record in batch {
            match record.value {
                Some(value) => drop(now.insert(record.key, value)),
                None => drop(now.remove(&record.key)),
            }
        }
        states.push(now.clone().into_iter().collect());
    }
    states
}

fn written() -> BTreeMap<String, Vec<u8>> {
    let memory = Memory::default();
    let mut store = FileStore::on(memory.clone()).unwrap();
    batches().iter().for_each(|batch| store.put(batch).unwrap());
    memory.files()
}

#[test]
fn store_cut_at_every_byte_has_a_prefix_of_its_batches() {
    let files = written();
    let (name, whole) = files.first_key_value().unwrap();
    let states = states();
    let mut seen = 0;
    for length in 0..=whole.len() {
        let cut = BTreeMap::from([(name.clone(), whole[..length].to_vec())]);
        let memory = Memory::with(&cut);
        match FileStore::on(memory.clone()) {
            Ok(mut store) => {
                let at = states.iter().position(|state| *state == store.load());
                let at = at.unwrap_or_else(|| panic!("cut at {length}: half a batch"));
                assert!(at >= seen, "cut at {length}: fewer batches than with fewer bytes");
                seen = at;
                // And it goes on from there.
                store.put(&[put("z", "9")]).unwrap();
                let again = FileStore::on(Memory::with(&memory.files())).unwrap().load();
                assert_eq!(again, store.load(), "cut at {length}");
            }
            // The beginning is on disk before the file has its name: no crash cuts it.
            Err(StoreError::Corrupt { .. }) => assert_eq!(seen, 0, "cut at {length}"),
            Err(other) => panic!("cut at {length}: {other}"),
        }
    }
    assert_eq!(seen, states.len() - 1);
}

#[test]
fn store_damaged_at_every_byte_is_refused_or_loses_only_its_last_batch() {
    let files = written();
    let (name, whole) = files.first_key_value().unwrap();
    let states = states();
    let before_last = &states[states.len() - 2];
    let (mut refused, mut cut) = (0, 0);
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            match FileStore::on(Memory::with(&BTreeMap::from([(name.clone(), damaged)]))) {
                Ok(store) => {
                    assert_eq!(store.load(), *before_last, "byte {at}");
                    assert!(store.cut_bytes() > 0);
                    cut += 1;
                }
                Err(StoreError::Corrupt { .. }) => refused += 1,
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
    }
    assert!(cut > 0 && refused > cut, "{cut} {refused}");
}

#[test]
fn store_on_a_full_disk_keeps_what_was_acknowledged_and_recovers() {
    // Each write in turn fails, with some or all of its bytes written all the same.
    for fail_at in 0..8 {
        for bytes in [0, 1, 9, 30, usize::MAX] {
            let memory = Memory::default();
            memory.0.borrow_mut().fail_at = Some((fail_at, bytes));
            let mut store = FileStore::on(memory.clone()).unwrap();
            let mut expected: BTreeMap<String, String> = BTreeMap::new();
            for (turn, batch) in batches().into_iter().enumerate() {
                let is_done = store.put(&batch).is_ok();
                if is_done {
                    for record in batch {
                        match record.value {
                            Some(value) => drop(expected.insert(record.key, value)),
                            None => drop(expected.remove(&record.key)),
                        }
                    }
                }
                let acknowledged: Texts = expected.clone().into_iter().collect();
                assert_eq!(store.load(), acknowledged, "write {fail_at}, batch {turn}");
                // After a crash now: what was acknowledged, or with it what was refused last.
                let found = FileStore::on(Memory::with(&memory.files())).unwrap().load();
                assert!(!is_done || found == acknowledged, "write {fail_at}, batch {turn}");
            }
            // One write fails, so of two puts one succeeds.
            if store.put(&[put("z", "9")]).is_err() {
                store.put(&[put("z", "9")]).unwrap();
            }
            let found = FileStore::on(Memory::with(&memory.files())).unwrap().load();
            assert_eq!(found, store.load(), "write {fail_at}");
        }
    }
}

#[test]
fn store_that_grows_is_rewritten_small() {
    let memory = Memory::default();
    let mut store = FileStore::on(memory.clone()).unwrap();
    let value = "x".repeat(10_000);
    for n in 0..200 {
        store.put(&[put("key", &format!("{value}{n}"))]).unwrap();
    }
    let bytes: usize = memory.files().values().map(Vec::len).sum();
    assert!(bytes < 400_000 && memory.files().len() == 1, "{bytes}");
    let found = FileStore::on(Memory::with(&memory.files())).unwrap().load();
    assert_eq!(found, [("key".to_owned(), format!("{value}199"))]);
}

#[test]
fn store_in_a_folder_survives_and_is_held_by_one() {
    let path = std::env::temp_dir().join(format!("cordis-store-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&path));
    let mut store = FileStore::open(path.clone()).unwrap();
    batches().iter().for_each(|batch| store.put(batch).unwrap());
    assert!(matches!(FileStore::open(path.clone()), Err(StoreError::Held(_))));
    let all = store.load();
    drop(store);
    // A name that a crash in the middle of a rewrite leaves behind.
    std::fs::write(path.join("control-0000000009.log.tmp"), b"half").unwrap();
    let store = FileStore::open(path.clone()).unwrap();
    assert_eq!(store.load(), all);
    let names = Medium::list(store.medium()).unwrap();
    assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
    drop(store);
    std::fs::remove_dir_all(&path).unwrap();
    assert!(Folder::take("/proc/none/such".into()).is_err());
}
