//! Reading one file of the log: units, one after another, and what is at its end.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memchr::memmem;

use crate::journal::frame::{self, Bad, Header, Tie};
use crate::persist::LogError;
use crate::persist::files::{FileHeader, HEADER_BYTES, Place};
use crate::units::CoreId;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Frames that belong together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unit {
    /// Logical time of its first record.
    pub first: u64,
    /// Logical time of its last record.
    pub last: u64,
    /// What it follows from.
    pub ties: Vec<Tie>,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its records.
    pub records: Vec<u8>,
}

/// How a file ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// As it was closed, or with zero bytes that were laid out ahead.
    Whole,
    /// With bytes that are no unit, or half of one: what was written last did not reach the disk.
    Torn(String),
}

/// A file of the log.
#[derive(Debug)]
pub struct Reader {
    file: File,
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: FileHeader,
    /// Bytes that were read and are not behind `offset`.
    buffer: Vec<u8>,
    from: usize,
    /// Of the first byte in `buffer` that is ahead.
    offset: u64,
    is_at_end: bool,
    last: u64,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, or is not the one that its name says.
    pub fn open(place: &Place, set: u32, core: CoreId) -> Result<Self, LogError> {
        let path = place.file(set, core);
        let mut file = File::open(&path).map_err(|error| LogError::io(&path, "opened", error))?;
        let header = FileHeader::read(&mut file, &path, set, core)?;
        Ok(Self {
            file,
            path,
            header,
            buffer: Vec::new(),
            from: 0,
            offset: HEADER_BYTES,
            is_at_end: false,
            last: 0,
        })
    }

    /// Where the next unit begins: all before it has been read and is right.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn ahead(&self) -> &[u8] {
        &self.buffer[self.from..]
    }

    /// Reads on until `len` bytes are ahead, or the file ends.
    fn fill(&mut self, len: usize) -> Result<(), LogError> {
        while self.ahead().len() < len && !self.is_at_end {
            self.buffer.drain(..std::mem::take(&mut self.from));
            // In steps: a length that is wrong must not take memory that no byte is there for.
            let mut chunk = (&mut self.file).take(CHUNK_BYTES as u64);
            let count = chunk.read_to_end(&mut self.buffer);
            let count = count.map_err(|error| LogError::io(&self.path, "read", error))?;
            self.is_at_end = count == 0;
        }
        Ok(())
    }

    /// The frame at `skip` bytes ahead.
    fn frame_at(&mut self, skip: usize) -> Result<Result<Header, Bad>, LogError> {
        self.fill(skip + frame::HEADER_BYTES)?;
        let ahead = self.ahead();
        if let Some(bytes) = ahead.get(skip..)
            && bytes.len() >= frame::HEADER_BYTES
            && bytes.starts_with(&frame::MAGIC)
        {
            let len = frame::len_of(bytes);
            self.fill(skip + len)?;
        }
        let at = self.offset + skip as u64;
        let bytes = self.ahead().get(skip..).unwrap_or_default();
        Ok(frame::check(bytes, self.header.number, at).and_then(|header| {
            if header.first < self.last { Err(Bad::Header) } else { Ok(header) }
        }))
    }

    /// The next unit; at the end of the file, how that ends.
    ///
    /// # Errors
    /// The file cannot be read, or it is damaged before a place that was known to be on disk.
    pub fn next_unit(&mut self) -> Result<Result<Unit, End>, LogError> {
        let mut unit = Unit { offset: self.offset, ..Unit::default() };
        let mut len = 0;
        loop {
            match self.frame_at(len)? {
                Ok(header) => {
                    if len == 0 {
                        unit.first = header.first;
                    }
                    unit.last = header.last;
                    unit.ties.extend_from_slice(&header.ties);
                    let frame = &self.buffer[self.from + len..];
                    unit.records.extend_from_slice(&frame[header.records()]);
                    len += header.len;
                    if !header.goes_on {
                        self.from += len;
                        self.offset += len as u64;
                        self.last = unit.last;
                        return Ok(Ok(unit));
                    }
                }
                Err(bad) => return self.end(len, bad).map(Err),
            }
        }
    }

    /// What bytes that are no frame say, `len` bytes ahead.
    fn end(&mut self, len: usize, bad: Bad) -> Result<End, LogError> {
        let bad_at = self.offset + len as u64;
        let mut skip = len;
        let mut is_zero = true;
        loop {
            self.fill(skip + CHUNK_BYTES)?;
            let ahead = self.ahead().get(skip..).unwrap_or_default();
            is_zero &= ahead.iter().all(|&byte| byte == 0);
            let found = memmem::find(ahead, &frame::MAGIC);
            match found {
                Some(at) => {
                    skip += at;
                    if let Ok(header) = self.frame_at(skip)?
                        && header.synced > bad_at
                    {
                        return Err(LogError::damaged(&self.path, bad_at, bad.to_string()));
                    }
                    skip += frame::MAGIC.len();
                }
                None if self.is_at_end => break,
                // A frame may begin in one chunk and end in the next.
                None => skip += ahead.len().saturating_sub(frame::MAGIC.len() - 1),
            }
        }
        let is_whole = len == 0 && bad == Bad::Nothing && is_zero;
        Ok(if is_whole { End::Whole } else { End::Torn(bad.to_string()) })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
