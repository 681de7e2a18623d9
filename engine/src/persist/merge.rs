//! Reading all files of a log as one stream, in the order of logical time.
//!
//! A unit whose ties are not met is cut off with all that its file, and the later files of its core,
//! hold behind it. Whatever followed from that comes later in time, so its own ties are not met when
//! it is reached: one pass finds all of it.

use std::path::PathBuf;

use crate::persist::LogError;
use crate::persist::files::Place;
use crate::persist::manifest::{Manifest, SetLine};
use crate::persist::read::{End, Reader, Unit};
use crate::units::CoreId;

/// A file in the merge.
#[derive(Debug)]
struct Stream {
    reader: Reader,
    line: SetLine,
    core: CoreId,
    /// Its next unit; none at its end.
    next: Option<Unit>,
}

/// A file whose end is not part of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The file.
    pub path: PathBuf,
    /// Where what is right of it ends.
    pub offset: u64,
    /// Why it does.
    pub reason: String,
}

/// All files of a log.
#[derive(Debug)]
pub struct Merge {
    streams: Vec<Stream>,
    /// By core: up to which time its records have come.
    reached: Vec<u64>,
    cuts: Vec<Cut>,
    last: u64,
}

impl Merge {
    /// Opens the files of a log.
    ///
    /// # Errors
    /// One of them is missing, or is none.
    pub fn open(place: &Place, manifest: &Manifest) -> Result<Self, LogError> {
        let mut merge =
            Self { streams: Vec::new(), reached: Vec::new(), cuts: Vec::new(), last: 0 };
        for &line in &manifest.sets {
            for core in (0..line.core_count).map(CoreId) {
                let reader = Reader::open(place, line.set, core)?;
                if reader.header.core_count != line.core_count {
                    let why = "it says another number of cores than the manifest";
                    return Err(LogError::damaged(&reader.path, 0, why));
                }
                merge.reached.resize(merge.reached.len().max(core.index() + 1), 0);
                merge.streams.push(Stream { reader, line, core, next: None });
                let index = merge.streams.len() - 1;
                merge.advance(index)?;
                if line.is_base {
                    // What came before is not there any more, and all of it was.
                    let first = merge.streams[index].next.as_ref().map_or(0, |unit| unit.first);
                    merge.reached[core.index()] = first;
                }
            }
        }
        Ok(merge)
    }

    fn advance(&mut self, index: usize) -> Result<(), LogError> {
        let stream = &mut self.streams[index];
        stream.next = match stream.reader.next_unit()? {
            Ok(unit) => Some(unit),
            Err(End::Whole) => None,
            Err(End::Torn(reason)) => {
                let (path, offset) = (stream.reader.path.clone(), stream.reader.offset());
                self.cuts.push(Cut { path, offset, reason });
                None
            }
        };
        Ok(())
    }

    /// The next unit, and the file that it stands in.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged where it was known to be right.
    pub fn next_unit(&mut self) -> Result<Option<(Unit, &Reader, SetLine)>, LogError> {
        loop {
            // Few files: a look at each costs less than a heap. Of equals, the older file comes first.
            let heads = self.streams.iter().enumerate();
            let first = heads.filter_map(|(i, s)| s.next.as_ref().map(|unit| (unit.first, i)));
            let Some((_, index)) = first.min() else { return Ok(None) };
            let reached = &self.reached;
            let stream = &mut self.streams[index];
            let unit = stream.next.take().expect("it has a unit: it was just looked at");
            let is_met = |tie: &crate::journal::frame::Tie| {
                reached.get(tie.core.index()).is_some_and(|&reached| reached >= tie.clock)
            };
            if let Some(tie) = unit.ties.iter().find(|tie| !is_met(tie)) {
                let reason = format!("it follows from what core {} has lost", tie.core.0);
                let (path, offset) = (stream.reader.path.clone(), unit.offset);
                self.cuts.push(Cut { path, offset, reason });
                continue;
            }
            let reached = &mut self.reached[stream.core.index()];
            *reached = unit.last.max(*reached);
            self.last = self.last.max(unit.last);
            self.advance(index)?;
            let stream = &self.streams[index];
            return Ok(Some((unit, &stream.reader, stream.line)));
        }
    }

    /// Files whose end is not part of the log. All units have been read.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Logical time of the last record of all.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Bytes of all files that have been read.
    pub fn read_bytes(&self) -> u64 {
        self.streams.iter().map(|stream| stream.reader.offset()).sum()
    }
}
