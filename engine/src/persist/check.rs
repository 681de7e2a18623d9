//! Looking at a log without loading it: what it consists of, whether it can be loaded, and if not, why.

use std::fmt::Write as _;
use std::path::Path;

use crate::journal::frame::{self, Kind};
use crate::persist::LogError;
use crate::persist::files::Place;
use crate::persist::manifest::Manifest;
use crate::persist::merge::Merge;

/// How the name of a manifest ends.
const MANIFEST_ENDING: &str = ".cordis";

/// Reads a log from its beginning to its end, without carrying anything out. `dir` is its directory,
/// or the one that holds that. Says in some lines what is in it, and what of it would be cut off.
///
/// # Errors
/// There is no log, or it is damaged: file, offset, reason.
pub fn check(dir: &Path) -> Result<String, LogError> {
    let place = find(dir)?;
    let manifest = Manifest::read(&place)?.unwrap_or_default();
    let mut text = format!("{}\n", place.manifest().display());
    for line in &manifest.sets {
        let base = if line.is_base { ", says all that was before it" } else { "" };
        let _ = writeln!(text, "  set {}: {} files{base}", line.set, line.core_count);
    }
    let mut merge = Merge::open(&place, &manifest)?;
    let (mut unit_count, mut call_count, mut ranges) = (0u64, 0u64, Vec::new());
    while let Some((unit, reader, _)) = merge.next_unit()? {
        unit_count += 1;
        let mut rest = &unit.records[..];
        while let Some((record, len)) = frame::read(rest, &mut ranges) {
            call_count += u64::from(record.kind == Kind::Call);
            rest = &rest[len..];
        }
        if !rest.is_empty() {
            let why = "a frame holds something that is no record";
            return Err(LogError::damaged(reader.path(), unit.offset, why));
        }
    }
    let bytes = merge.read_bytes();
    let _ = writeln!(text, "  {bytes} bytes, {unit_count} writes to disk, {call_count} effects");
    for cut in merge.cuts() {
        let path = cut.path.display();
        let _ = writeln!(
            text,
            "  {path} ends at offset {}: {}. aof-load-truncated says whether a server starts \
             without what is behind",
            cut.offset, cut.reason
        );
    }
    let is_unnamed = |(set, _): &&(u32, _)| !manifest.sets.iter().any(|line| line.set == *set);
    for (set, core) in place.list()?.iter().filter(is_unnamed) {
        let path = place.file(*set, *core);
        let _ = writeln!(text, "  {} is no part of it", path.display());
    }
    let verdict = if merge.cuts().is_empty() { "whole" } else { "whole but for its end" };
    let _ = writeln!(text, "The log is {verdict}.");
    Ok(text)
}

/// The log in a directory, or in one below it.
fn find(dir: &Path) -> Result<Place, LogError> {
    let entries = |dir: &Path| -> Result<Vec<std::path::PathBuf>, LogError> {
        let unreadable = |error| LogError::io(dir, "read", error);
        let entries = std::fs::read_dir(dir).map_err(unreadable)?;
        entries.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable)).collect()
    };
    let here = entries(dir)?;
    let below = here.iter().filter(|path| path.is_dir());
    let mut all = here.clone();
    for folder in below {
        // One that may not be read is none of ours.
        all.extend(entries(folder).unwrap_or_default());
    }
    for path in all {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if let Some(name) = name.as_deref().and_then(|name| name.strip_suffix(MANIFEST_ENDING)) {
            let dir = path.parent().unwrap_or(dir).to_owned();
            return Ok(Place { dir, name: name.to_owned() });
        }
    }
    Err(LogError::damaged(dir, 0, "there is no append log, and none below it"))
}
