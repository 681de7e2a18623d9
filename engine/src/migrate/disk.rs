//! The cluster as this server knew it, on disk: `cluster.json` in its directory.
//!
//! Written by a thread of its own, never on a core: to a temporary file that is flushed and renamed, so
//! that a crash leaves the old state or the new one. Many changes share one write. A server that was
//! never in a cluster writes nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::migrate::cluster::{Cluster, Inbound, Inner, Membership, MoveId, Outbound, SlotEntry};
use crate::migrate::machine::Attempt;
use crate::slots::map::ClusterMap;
use crate::slots::state::{SlotSet, SlotState};

/// Version of the file's form.
const FORM: u32 = 1;
/// How long the writer waits after a failure.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Slots that are alike.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct SavedSlots {
    slots: SlotSet,
    state: SlotState,
    epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<Box<str>>,
    #[serde(default)]
    move_id: MoveId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    noted: Option<Attempt>,
}

impl SavedSlots {
    fn is_alike(&self, other: &Self) -> bool {
        self.state == other.state
            && self.epoch == other.epoch
            && self.peer == other.peer
            && self.move_id == other.move_id
            && self.noted == other.noted
    }
}

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    form: u32,
    membership: Option<Membership>,
    map: Option<ClusterMap>,
    slots: Vec<SavedSlots>,
    outbound: BTreeMap<MoveId, Outbound>,
    inbound: BTreeMap<MoveId, Inbound>,
}

impl Saved {
    /// What is kept of the books.
    pub fn of(inner: &Inner) -> Self {
        let mut slots: Vec<SavedSlots> = Vec::new();
        for (index, entry) in inner.slots.iter().enumerate() {
            let slot = crate::units::SlotId::new(index as u64).expect("there is one entry a slot");
            let one = SavedSlots {
                slots: std::iter::once(slot).collect(),
                state: entry.state,
                epoch: entry.epoch,
                peer: entry.peer.as_deref().map(Box::from),
                move_id: entry.move_id,
                noted: entry.noted,
            };
            match slots.iter_mut().find(|like| like.is_alike(&one)) {
                Some(like) => _ = like.slots.insert(slot),
                None => slots.push(one),
            }
        }
        Self {
            form: FORM,
            membership: inner.membership.clone(),
            map: inner.map.clone(),
            slots,
            outbound: inner.outbound.clone(),
            inbound: inner.inbound.clone(),
        }
    }

    /// What a server that starts makes of it. Its keys are gone, or are loaded later.
    pub fn restore(self, inner: &mut Inner) {
        for saved in self.slots {
            for slot in saved.slots.iter() {
                let state = match saved.state {
                    // It may have been handed over: the other side knows.
                    SlotState::Leaving | SlotState::Frozen | SlotState::Handed
                        if saved.noted.is_some() =>
                    {
                        SlotState::InDoubt
                    }
                    SlotState::Leaving | SlotState::Frozen => SlotState::Owned,
                    // What had come is gone with the memory that it was in.
                    SlotState::Importing | SlotState::Ready => SlotState::Away,
                    state => state,
                };
                *inner.slot_mut(slot) = SlotEntry {
                    state,
                    epoch: saved.epoch,
                    peer: saved.peer.as_deref().map(Arc::from),
                    move_id: if state == SlotState::InDoubt { saved.move_id } else { 0 },
                    noted: saved.noted.filter(|_| state == SlotState::InDoubt),
                    ..SlotEntry::default()
                };
            }
        }
        inner.membership = self.membership;
        inner.map = self.map;
        inner.outbound = self.outbound;
        inner.inbound = self.inbound;
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

/// Reads what there is, if anything is.
///
/// # Errors
/// A line for the operator: the file cannot be read, or is none of ours.
pub fn load(dir: &Path, cluster: &Cluster) -> Result<(), String> {
    let path = path_in(dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
    };
    let advice = "move it away to start as a server on its own";
    let saved: Saved = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{} is damaged ({error}): {advice}", path.display()))?;
    if saved.form != FORM {
        let form = saved.form;
        return Err(format!("{} is of another version ({form}): {advice}", path.display()));
    }
    if let Some(map) = &saved.map {
        map.check().map_err(|error| format!("{}: {error}: {advice}", path.display()))?;
    }
    saved.restore(&mut cluster.lock());
    Ok(())
}

fn write(dir: &Path, text: &[u8]) -> io::Result<()> {
    let (path, new) = (path_in(dir), dir.join("cluster.json.new"));
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    // The rename is on disk when the folder is.
    File::open(dir)?.sync_all()
}

/// Saves every change until the process ends. `tell` is called after each save: cores may wait for it.
pub fn keep_saving(dir: &Path, cluster: &Cluster, mut tell: impl FnMut()) {
    let mut has_file = path_in(dir).exists();
    loop {
        let number = cluster.changed();
        if number == cluster.saved() {
            std::thread::park();
            continue;
        }
        let saved = Saved::of(&cluster.lock());
        let is_needed = has_file || saved.membership.is_some();
        let text = serde_json::to_vec(&saved).expect("plain data with string keys");
        match if is_needed { write(dir, &text) } else { Ok(()) } {
            Ok(()) => {
                has_file |= is_needed;
                cluster.set_saved(number);
                if let Some(error) = cluster.lock().disk_error.take() {
                    tracing::info!(error, "cluster.json can be written again");
                }
                tell();
            }
            Err(error) => {
                let text = format!("cluster.json cannot be written: {error}");
                if cluster.lock().disk_error.replace(text.clone()).as_ref() != Some(&text) {
                    tracing::error!(dir = %dir.display(), "{text}; no slot changes hands until it can");
                }
                std::thread::park_timeout(AGAIN_AFTER);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SlotId;

    fn folder(name: &str) -> PathBuf {
        let name = format!("cordis-cluster-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the folder for temporary files is writable");
        path
    }

    fn slot(n: u64) -> SlotId {
        SlotId::new(n).expect("there is such a slot")
    }

    #[test]
    fn cluster_is_after_a_restart_what_it_can_be_sure_of() {
        let dir = folder("restart");
        let before = Cluster::default();
        {
            let mut inner = before.lock();
            let product = "demo".to_owned();
            let addr = "127.0.0.1:1".to_owned();
            inner.membership = Some(Membership { product, group: 3, addr });
            let states = [
                (SlotState::Owned, None),
                (SlotState::Leaving, None),
                (SlotState::Leaving, Some(7)),
                (SlotState::Frozen, Some(7)),
                (SlotState::Handed, Some(7)),
                (SlotState::Away, None),
                (SlotState::Importing, None),
                (SlotState::Ready, None),
                (SlotState::InDoubt, Some(7)),
            ];
            for (index, (state, noted)) in states.into_iter().enumerate() {
                let entry = inner.slot_mut(slot(index as u64));
                *entry = SlotEntry { state, noted, epoch: 9, move_id: 5, ..SlotEntry::default() };
                entry.peer = Some(Arc::from("127.0.0.1:2"));
            }
        }
        let text = serde_json::to_vec(&Saved::of(&before.lock())).expect("plain data");
        write(&dir, &text).expect("the folder is writable");
        let after = Cluster::default();
        load(&dir, &after).expect("it was written by this version");
        let inner = after.lock();
        let got: Vec<SlotState> = (0..10).map(|n| inner.slot(slot(n)).state).collect();
        use SlotState::{Away, InDoubt, Owned};
        let want = [Owned, Owned, InDoubt, InDoubt, InDoubt, Away, Away, Away, InDoubt, Owned];
        assert_eq!(got, want);
        let entry = inner.slot(slot(4));
        assert_eq!((entry.noted, entry.epoch, entry.move_id), (Some(7), 9, 5));
        assert_eq!(inner.slot(slot(7)).peer.as_deref(), Some("127.0.0.1:2"));
        assert_eq!(inner.membership.as_ref().map(|me| me.group), Some(3));
        drop(inner);
        fs::remove_dir_all(&dir).expect("it is ours");
    }

    #[test]
    fn damaged_file_stops_the_start_with_advice() {
        let dir = folder("damaged");
        assert_eq!(load(&dir, &Cluster::default()), Ok(()), "no file is no error");
        for text in [&b"{"[..], b"", b"{\"form\":1}", b"[]"] {
            fs::write(path_in(&dir), text).expect("the folder is writable");
            let error = load(&dir, &Cluster::default()).expect_err("it is damaged");
            assert!(error.contains("cluster.json") && error.contains("move it away"), "{error}");
        }
        fs::remove_dir_all(&dir).expect("it is ours");
    }
}
