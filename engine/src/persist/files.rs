//! The directory of the log: names, the header of a file, and making files so that they are there
//! after a loss of power.
//!
//! # Layout
//! A file begins with 64 bytes, little-endian; frames ([`journal::frame`](crate::journal::frame))
//! follow, and zero bytes up to its end.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0..8 | `CORDISLG` |
//! | 8..12 | version of the form, 1 |
//! | 12..16 | set |
//! | 16..18 | core |
//! | 18..20 | cores of the set |
//! | 20..24 | zero |
//! | 24..32 | number of the file, by chance: what seeds the checksums of its frames |
//! | 32..40 | when it was made, in milliseconds since the Unix epoch |
//! | 40..56 | zero |
//! | 56..64 | xxh3-64 of the bytes before |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::persist::LogError;
use crate::units::{CoreId, Ms};

/// Length of the header.
pub const HEADER_BYTES: u64 = 64;
const MAGIC: &[u8; 8] = b"CORDISLG";
const VERSION: u32 = 1;

/// The directory of a log and the name that its files begin with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
    /// `appendfilename`.
    pub name: String,
}

impl Place {
    /// Path of the file of a core.
    pub fn file(&self, set: u32, core: CoreId) -> PathBuf {
        self.dir.join(format!("{}.{set}.{}.log", self.name, core.0))
    }

    /// Path of the manifest.
    pub fn manifest(&self) -> PathBuf {
        self.dir.join(format!("{}.cordis", self.name))
    }

    /// Set and core of a file of this log, by its name.
    pub fn parse(&self, name: &str) -> Option<(u32, CoreId)> {
        let rest = name.strip_prefix(&self.name)?.strip_prefix('.')?.strip_suffix(".log")?;
        let (set, core) = rest.split_once('.')?;
        Some((set.parse().ok()?, CoreId(core.parse().ok()?)))
    }

    /// Makes the directory if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_dir(&self) -> Result<(), LogError> {
        fs::create_dir_all(&self.dir).map_err(|e| LogError::io(&self.dir, "made", e))?;
        match self.dir.parent() {
            Some(above) if !above.as_os_str().is_empty() => sync_dir(above),
            _ => Ok(()),
        }
    }

    /// Files of this log that are in its directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn list(&self) -> Result<Vec<(u32, CoreId)>, LogError> {
        let unreadable = |error| LogError::io(&self.dir, "read", error);
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(unreadable)?.file_name();
            found.extend(name.to_str().and_then(|name| self.parse(name)));
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Makes what was done to a directory's names durable.
///
/// # Errors
/// The disk does not take it.
pub fn sync_dir(dir: &Path) -> Result<(), LogError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| LogError::io(dir, "flushed", e))
}

/// What a file says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileHeader {
    /// The set that it belongs to.
    pub set: u32,
    /// The core that writes it.
    pub core: CoreId,
    /// Cores of the set.
    pub core_count: u16,
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub made_at: Ms,
}

impl FileHeader {
    fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.set.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.core.0.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.core_count.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.made_at.0.to_le_bytes());
        let sum = xxh3_64(&bytes[..56]);
        bytes[56..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Result<Self, &'static str> {
        let number = |from: usize, len: usize| {
            bytes[from..from + len].iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte))
        };
        if bytes[..8] != *MAGIC {
            return Err("it is no file of an append log");
        }
        if xxh3_64(&bytes[..56]) != number(56, 8) {
            return Err("the checksum of its header is wrong");
        }
        if number(8, 4) != u64::from(VERSION) {
            return Err("it is of a version that this server does not know");
        }
        Ok(Self {
            set: number(12, 4) as u32,
            core: CoreId(number(16, 2) as u16),
            core_count: number(18, 2) as u16,
            number: number(24, 8),
            made_at: Ms(number(32, 8) as i64),
        })
    }

    /// Reads the header of a file.
    ///
    /// # Errors
    /// The file cannot be read, or it is none of a log, or not this one.
    pub fn read(file: &mut File, path: &Path, set: u32, core: CoreId) -> Result<Self, LogError> {
        let mut bytes = [0; HEADER_BYTES as usize];
        file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => LogError::damaged(path, 0, "its header is cut off"),
            _ => LogError::io(path, "read", error),
        })?;
        let header = Self::decode(&bytes).map_err(|why| LogError::damaged(path, 0, why))?;
        if (header.set, header.core) != (set, core) {
            let Self { set, core, .. } = header;
            let why = format!("it is the file of set {set}, core {}, under another name", core.0);
            return Err(LogError::damaged(path, 0, why));
        }
        Ok(header)
    }
}

/// A file of the log that is written to.
#[derive(Debug)]
pub struct LogFile {
    /// The file.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// Its header.
    pub header: FileHeader,
}

impl LogFile {
    /// Makes a file with its header, durably; its name is when the directory is.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn create(place: &Place, header: FileHeader) -> Result<Self, LogError> {
        let path = place.file(header.set, header.core);
        let made = || -> io::Result<File> {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            file.write_all(&header.encode())?;
            file.sync_all()?;
            Ok(file)
        };
        let file = made().map_err(|error| LogError::io(&path, "made", error))?;
        Ok(Self { file, path, header })
    }
}

/// Cuts a file where what was read of it ends, durably.
///
/// # Errors
/// The disk does not take it.
pub fn cut(path: &Path, len: u64) -> Result<(), LogError> {
    let cut = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    };
    cut().map_err(|error| LogError::io(path, "cut", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_with_any_byte_changed_is_refused() {
        let header = FileHeader {
            set: 7,
            core: CoreId(3),
            core_count: 4,
            number: 0x1234_5678_9abc_def0,
            made_at: Ms(1_700_000_000_000),
        };
        let bytes = header.encode();
        assert_eq!(FileHeader::decode(&bytes), Ok(header));
        for index in 0..bytes.len() {
            let mut bad = bytes;
            bad[index] ^= 1;
            assert!(FileHeader::decode(&bad).is_err(), "byte {index}");
        }
    }

    #[test]
    fn names_of_files_are_read_back() {
        let place = Place { dir: "d".into(), name: "a.aof".into() };
        let name = |set, core| {
            let path = place.file(set, CoreId(core));
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        assert_eq!(place.parse(&name(12, 3)), Some((12, CoreId(3))));
        for other in ["a.aof.1.log", "a.aof.x.1.log", "a.aof.1.1.log.tmp", "b.1.1.log", "a.aof"] {
            assert_eq!(place.parse(other), None, "{other}");
        }
    }
}
