//! The manifest: which sets of files are the log. A text of one line each; the last one holds the
//! checksum of those before it.
//!
//! ```text
//! cordis-log 1
//! set 7 cores 2 base
//! set 8 cores 4
//! check 5c3f09aa21b0d4e7
//! ```
//!
//! `base`: what the set holds has taken the place of all older ones.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::persist::LogError;
use crate::persist::files::{Place, sync_dir};

const FIRST_LINE: &str = "cordis-log 1";

/// A set of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetLine {
    /// Its number: larger than that of all older ones.
    pub set: u32,
    /// Cores that write to it, one file each.
    pub core_count: u16,
    /// It was made by rewriting: it says what each key held, too.
    pub is_base: bool,
}

/// The sets of a log, the oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Manifest {
    /// The sets.
    pub sets: Vec<SetLine>,
}

impl Manifest {
    /// Number of the next set.
    pub fn next_set(&self) -> u32 {
        self.sets.last().map_or(1, |line| line.set + 1)
    }

    fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        for SetLine { set, core_count, is_base } in &self.sets {
            let base = if *is_base { " base" } else { "" };
            text.push_str(&format!("set {set} cores {core_count}{base}\n"));
        }
        let sum = xxh3_64(text.as_bytes());
        text.push_str(&format!("check {sum:016x}\n"));
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        let end = text.rfind("check ").ok_or("its last line is missing")?;
        let sum = text[end + "check ".len()..].trim_end_matches('\n');
        if u64::from_str_radix(sum, 16).ok() != Some(xxh3_64(&text.as_bytes()[..end])) {
            return Err("its checksum is wrong".to_owned());
        }
        let mut lines = text[..end].lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err("it is of a version that this server does not know".to_owned());
        }
        let sets: Option<Vec<SetLine>> = lines.map(parse_line).collect();
        let sets = sets.ok_or("it has a line that is none")?;
        if sets.windows(2).any(|pair| pair[0].set >= pair[1].set) {
            return Err("its sets are out of order".to_owned());
        }
        if sets.iter().skip(1).any(|line| line.is_base) {
            return Err("it names sets that are older than its base".to_owned());
        }
        Ok(Self { sets })
    }

    /// Reads the manifest; nothing if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn read(place: &Place) -> Result<Option<Self>, LogError> {
        let path = place.manifest();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io(&path, "read", error)),
        };
        let text = std::str::from_utf8(&bytes);
        let parsed = text.map_err(|_| "it is no text".to_owned()).and_then(Self::parse);
        parsed.map(Some).map_err(|why| LogError::damaged(&path, 0, why))
    }

    /// Puts the manifest in the place of the one that is there, durably: after a crash there is one
    /// or the other.
    ///
    /// # Errors
    /// The disk does not take it: the old one stays.
    pub fn write(&self, place: &Place) -> Result<(), LogError> {
        let path = place.manifest();
        let new = path.with_extension("cordis.new");
        let write = |new: &Path| -> io::Result<()> {
            let mut file = File::create(new)?;
            file.write_all(self.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(new, &path)
        };
        write(&new).map_err(|error| LogError::io(&path, "written", error))?;
        sync_dir(&place.dir)
    }
}

fn parse_line(line: &str) -> Option<SetLine> {
    let words: Vec<&str> = line.split(' ').collect();
    let (head, is_base) = match words.as_slice() {
        [head @ .., "base"] => (head, true),
        head => (head, false),
    };
    let ["set", set, "cores", count] = head else { return None };
    let (set, core_count) = (set.parse().ok()?, count.parse().ok()?);
    (set > 0 && core_count > 0).then_some(SetLine { set, core_count, is_base })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_is_read_as_it_was_written_and_refused_if_anything_changed() {
        let line = |set, core_count, is_base| SetLine { set, core_count, is_base };
        let manifest = Manifest { sets: vec![line(7, 2, true), line(8, 4, false)] };
        let text = manifest.to_text();
        assert_eq!(Manifest::parse(&text), Ok(manifest));
        for index in 0..text.len() - 1 {
            let mut bad = text.clone().into_bytes();
            bad[index] ^= 1;
            let bad = String::from_utf8(bad).expect("it stays ASCII");
            assert!(Manifest::parse(&bad).is_err(), "byte {index}: {bad}");
            assert!(Manifest::parse(&text[..index]).is_err(), "{index} bytes");
        }
    }

    #[test]
    fn manifest_of_sets_out_of_order_is_refused() {
        let line = |set, is_base| SetLine { set, core_count: 1, is_base };
        for sets in [vec![line(2, false), line(1, false)], vec![line(1, false), line(2, true)]] {
            assert!(Manifest::parse(&Manifest { sets }.to_text()).is_err());
        }
    }
}
