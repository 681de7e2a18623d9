//! The cluster map of this proxy: the newest one that control has given, kept on disk so that the
//! proxy serves with it after a restart while control is down. Knows no socket and no core: whoever
//! starts it says what follows when the map changes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use cordis_engine::slots::map::{ClusterMap, MapError};

/// The file's name within the proxy's folder.
pub const FILE_NAME: &str = "proxy-map.json";

/// The largest file that is read: a map of 1024 ranges and thousands of groups is far below.
const FILE_BYTES_MAX: u64 = 16 << 20;

const HEAD: &str = "{\"crc32\":\"";
const MIDDLE: &str = "\",\"map\":";
const TAIL: &str = "}\n";

/// Why a map is not taken.
#[derive(Debug)]
pub enum Refusal {
    /// It is not a map.
    Form(MapError),
    /// It is another product's.
    Product(String),
    /// This epoch is held already.
    Stale(u64),
    /// Another map of the same epoch is held already.
    Conflict(u64),
    /// It cannot be kept on disk, and a map that would be forgotten is not used.
    Disk(io::Error),
}

impl std::fmt::Display for Refusal {
    /// As an error reply, its prefix first.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(error) => write!(f, "ERR {error}"),
            Self::Product(ours) => write!(f, "ERR this proxy belongs to product '{ours}'"),
            Self::Stale(epoch) => write!(f, "STALE map epoch is {epoch}"),
            Self::Conflict(epoch) => {
                write!(f, "STALE map epoch is {epoch}, and it is held with other content")
            }
            Self::Disk(error) => write!(f, "ERR the map cannot be kept on disk: {error}"),
        }
    }
}

/// What follows when the map changes.
pub type OnChange = Box<dyn Fn(&Arc<ClusterMap>) + Send + Sync>;

/// The map and the file that holds it.
pub struct MapStore {
    current: ArcSwap<ClusterMap>,
    path: PathBuf,
    on_change: OnChange,
    /// Held while a map is compared, written and published, so that the newest wins.
    writer: Mutex<()>,
}

impl std::fmt::Debug for MapStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl MapStore {
    /// The map that `dir` holds, or one in which no slot is served. `on_change` hears of this one
    /// too.
    ///
    /// # Errors
    /// One line: the file is there and cannot be used.
    pub fn open(dir: &Path, product: &str, on_change: OnChange) -> Result<Self, String> {
        let path = dir.join(FILE_NAME);
        let map = match read(&path)? {
            Some(map) if map.product != product => {
                return Err(format!(
                    "{} is of product '{}' and this proxy is told to serve '{product}': correct \
                     --product-name, or choose another --dir",
                    path.display(),
                    map.product
                ));
            }
            Some(map) => map,
            None => ClusterMap::offline(product),
        };
        let map = Arc::new(map);
        on_change(&map);
        Ok(Self { current: ArcSwap::new(map), path, on_change, writer: Mutex::new(()) })
    }

    /// The map.
    pub fn current(&self) -> Arc<ClusterMap> {
        self.current.load_full()
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards nothing that a panic could leave half done.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a map as JSON and returns its epoch. The same map again changes nothing.
    ///
    /// # Errors
    /// Why it is not taken; the old one holds on.
    pub fn offer(&self, json: &[u8]) -> Result<u64, Refusal> {
        let map = ClusterMap::from_json(json).map_err(Refusal::Form)?;
        let _writer = self.lock();
        let held = self.current.load();
        if map.product != held.product {
            return Err(Refusal::Product(held.product.clone()));
        }
        if map.epoch < held.epoch {
            return Err(Refusal::Stale(held.epoch));
        }
        if map == **held {
            return Ok(map.epoch);
        }
        if map.epoch == held.epoch {
            return Err(Refusal::Conflict(held.epoch));
        }
        write(&self.path, &map).map_err(Refusal::Disk)?;
        let map = Arc::new(map);
        self.current.store(map.clone());
        (self.on_change)(&map);
        Ok(map.epoch)
    }
}

/// Replaces the file as a whole: after a crash it holds the old map or the new one.
fn write(path: &Path, map: &ClusterMap) -> io::Result<()> {
    let json = map.to_json();
    let crc = crc32fast::hash(json.as_bytes());
    let new = path.with_extension("json.new");
    let mut file = File::create(&new)?;
    file.write_all(format!("{HEAD}{crc:08x}{MIDDLE}{json}{TAIL}").as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// The map of a file; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<ClusterMap>, String> {
    let unusable = |why: &dyn std::fmt::Display| {
        format!("{} cannot be used: {why}; remove it and control gives a new one", path.display())
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(&error)),
        Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(unusable(&"it is too large")),
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).map_err(|error| unusable(&error))?;
    let json = checked(&text).ok_or_else(|| unusable(&"its checksum does not fit"))?;
    let map = ClusterMap::from_json(json.as_bytes()).map_err(|error| unusable(&error))?;
    Ok(Some(map))
}

/// The map's text, if the checksum before it is that of the text.
fn checked(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(HEAD)?.strip_suffix(TAIL)?;
    let (crc, json) = rest.split_once(MIDDLE)?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    (crc == crc32fast::hash(json.as_bytes())).then_some(json)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let name = format!("cordis-map-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("the directory is writable");
        dir
    }

    fn json(epoch: u64) -> String {
        ClusterMap { epoch, ..ClusterMap::offline("demo") }.to_json()
    }

    fn open(dir: &Path) -> Result<MapStore, String> {
        MapStore::open(dir, "demo", Box::new(|_| {}))
    }

    #[test]
    fn map_of_a_higher_epoch_is_taken_and_survives() {
        let dir = fresh("survive");
        let seen = Arc::new(AtomicU64::new(99));
        let told = seen.clone();
        let on_change = Box::new(move |map: &Arc<ClusterMap>| {
            told.store(map.epoch, Ordering::Relaxed);
        });
        let store = MapStore::open(&dir, "demo", on_change).expect("there is no file");
        assert_eq!((store.current().epoch, seen.load(Ordering::Relaxed)), (0, 0));
        assert!(matches!(store.offer(json(5).as_bytes()), Ok(5)));
        assert_eq!(seen.load(Ordering::Relaxed), 5);
        assert!(matches!(store.offer(json(5).as_bytes()), Ok(5)), "the same again is no change");
        let stale = store.offer(json(4).as_bytes()).expect_err("it is older");
        assert_eq!(stale.to_string(), "STALE map epoch is 5");
        let mut other = ClusterMap { epoch: 5, ..ClusterMap::offline("demo") };
        other.lease_ms = 1;
        let other = store.offer(other.to_json().as_bytes());
        assert!(matches!(other, Err(Refusal::Conflict(5))));
        assert!(matches!(store.offer(b"{"), Err(Refusal::Form(_))));
        let product = ClusterMap { epoch: 9, ..ClusterMap::offline("other") }.to_json();
        assert!(matches!(store.offer(product.as_bytes()), Err(Refusal::Product(_))));
        assert_eq!(open(&dir).expect("it was written").current().epoch, 5);
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[test]
    fn file_damaged_at_any_byte_is_refused() {
        let dir = fresh("damage");
        let store = open(&dir).expect("there is no file");
        store.offer(json(5).as_bytes()).expect("it is newer");
        let path = dir.join(FILE_NAME);
        let whole = fs::read(&path).expect("it was written");
        for at in 0..whole.len() {
            fs::write(&path, &whole[..at]).expect("the directory is writable");
            assert!(open(&dir).is_err(), "cut at {at}");
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).expect("the directory is writable");
            // The case of a checksum's letter changes nothing; no other byte may change.
            assert!(open(&dir).is_err(), "changed at {at}");
        }
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[test]
    fn map_that_cannot_be_written_is_not_used() {
        let dir = fresh("disk");
        let store = open(&dir).expect("there is no file");
        fs::remove_dir_all(&dir).expect("it is there");
        assert!(matches!(store.offer(json(5).as_bytes()), Err(Refusal::Disk(_))));
        assert_eq!(store.current().epoch, 0);
    }

    #[test]
    fn file_of_another_product_is_refused() {
        let dir = fresh("product");
        let store = open(&dir).expect("there is no file");
        store.offer(json(5).as_bytes()).expect("it is newer");
        let error = MapStore::open(&dir, "other", Box::new(|_| {})).expect_err("not its own");
        assert!(error.contains("of product 'demo'") && error.contains("--product-name"), "{error}");
        fs::remove_dir_all(dir).expect("it is there");
    }
}
