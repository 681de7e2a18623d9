//! The keys of one slot in one database: an extendible hash table of small sorted segments.
//!
//! # Layout
//!
//! A directory of `2^depth` words, indexed by the top bits of a key's hash, points to segments. A
//! segment is one allocation of an allocator size class (64 to 4096 bytes): a word with its length,
//! then cells. A cell is an entry's address with a 16-bit fingerprint, the low bits of the hash, in
//! the 16 bits that addresses do not use. Cells are kept in order of fingerprint by linear probing
//! from `fingerprint * span / 2^16`, so a lookup reads one or two cache lines and stops at the first
//! larger fingerprint, and a segment can be made larger or smaller in one sweep without a look at
//! any key. A full segment of the largest size splits in two by the next bit of the hash.
//!
//! So growth costs at most one segment's work per insert (and a copy of the directory, 8 bytes per
//! 250 keys, when it doubles), and a cell per key is occupied to 5/6 on average: 9.7 bytes per key.
//!
//! # Scan
//!
//! A position is (top 32 bits of the hash, fingerprint). Segments never merge, so everything before
//! a position stays before it: a scan sees each key that is there from its beginning to its end.
//!
//! Unsafe: the segments and their cells. Each pointer in a cell is an entry that the table owns.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::store::entry::{EntryBox, EntryMut, EntryRef, prefetch_read, size_class};

/// Cells of a segment, per allocation of 8 bytes more.
const CELL_COUNTS: [u16; CELL_CLASS_COUNT] = [
    7, 11, 15, 19, 23, 27, 31, 39, 47, 55, 63, 79, 95, 111, 127, 159, 191, 223, 255, 319, 383, 447,
    511,
];
const CELL_CLASS_COUNT: usize = 23;
const CELLS_MAX: usize = 511;
/// Most bits that the directory may use of a hash.
const DEPTH_MAX: u32 = 32;
/// Share of the cells that may be taken before a segment grows, in 1/32.
const LOAD_MAX_32NDS: usize = 31;

const ADDRESS_MASK: u64 = (1 << 48) - 1;

/// A directory word: address of the segment, its number of cells and its depth.
#[derive(Clone, Copy, PartialEq, Eq)]
struct DirWord(u64);

impl DirWord {
    fn new(segment: NonNull<u64>, cells: usize, depth: u32) -> Self {
        let address = segment.as_ptr().expose_provenance() as u64;
        invariant!(address & !ADDRESS_MASK == 0, "address {address:#x} has more than 48 bits");
        Self(address | (cells as u64) << 48 | u64::from(depth) << 58)
    }
    #[inline]
    fn cells(self) -> usize {
        (self.0 >> 48) as usize & 0x1ff
    }
    #[inline]
    fn depth(self) -> u32 {
        (self.0 >> 58) as u32
    }
    #[inline]
    fn segment(self) -> Segment {
        let ptr = std::ptr::with_exposed_provenance_mut((self.0 & ADDRESS_MASK) as usize);
        Segment { ptr, cells: self.cells() }
    }
}

const _: () = assert!(CELLS_MAX < 1 << 10 && DEPTH_MAX < 1 << 6);

/// A view of one segment. The table that made it owns the memory.
#[derive(Clone, Copy)]
struct Segment {
    ptr: *mut u64,
    cells: usize,
}

impl Segment {
    fn layout(cells: usize) -> Layout {
        Layout::array::<u64>(cells + 1).expect("a segment has at most 512 words")
    }

    fn new(class: usize) -> (Self, NonNull<u64>) {
        let cells = usize::from(CELL_COUNTS[class]);
        let layout = Self::layout(cells);
        // SAFETY: the layout has at least 8 words.
        let ptr = unsafe { alloc_zeroed(layout) }.cast::<u64>();
        let ptr = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
        (Self { ptr: ptr.as_ptr(), cells }, ptr)
    }

    fn free(self) {
        // SAFETY: allocated by `new` with the same number of cells; the table drops its last word
        // for this segment at the same time.
        unsafe { dealloc(self.ptr.cast(), Self::layout(self.cells)) };
    }

    #[inline]
    fn len(self) -> usize {
        // SAFETY: word 0 of a live segment is its length.
        unsafe { self.ptr.read() as usize }
    }

    #[inline]
    fn set_len(self, len: usize) {
        // SAFETY: as `len`; the table is borrowed exclusively by every caller.
        unsafe { self.ptr.write(len as u64) };
    }

    /// Cell `i`; 0 past the end, so that searches need no bound of their own.
    #[inline]
    fn get(self, i: usize) -> u64 {
        if i >= self.cells {
            return 0;
        }
        // SAFETY: `i` is below the number of cells, which follow the length word.
        unsafe { self.ptr.add(1 + i).read() }
    }

    #[inline]
    fn set(self, i: usize, cell: u64) {
        invariant!(i < self.cells, "cell {i} of {}", self.cells);
        // SAFETY: checked above; the table is borrowed exclusively by every caller.
        unsafe { self.ptr.add(1 + i).write(cell) };
    }

    /// Cells that are homes; the rest takes what is pushed over the end.
    #[inline]
    fn span(self) -> usize {
        self.cells - (self.cells >> 5) - 2
    }

    #[inline]
    fn home(self, fingerprint: u16) -> usize {
        (usize::from(fingerprint) * self.span()) >> 16
    }

    fn class(self) -> usize {
        CELL_COUNTS
            .iter()
            .position(|&c| usize::from(c) == self.cells)
            .expect("segments are made with a class's number of cells")
    }

    /// Where a new cell belongs: after all smaller or equal fingerprints, not before its home.
    fn place_of(self, fingerprint: u16) -> usize {
        let mut i = self.home(fingerprint);
        while self.get(i) != 0 && fingerprint_of(self.get(i)) <= fingerprint {
            i += 1;
        }
        i
    }

    /// Puts `cell` in its place, shifting what follows; `false` if the end is reached.
    fn insert(self, cell: u64) -> bool {
        let place = self.place_of(fingerprint_of(cell));
        let mut free = place;
        while free < self.cells && self.get(free) != 0 {
            free += 1;
        }
        if free >= self.cells {
            return false;
        }
        for i in (place..free).rev() {
            self.set(i + 1, self.get(i));
        }
        self.set(place, cell);
        self.set_len(self.len() + 1);
        true
    }

    /// Appends `cell` while cells arrive in order; `next` is the first cell still free.
    fn append(self, cell: u64, next: &mut usize) -> bool {
        let place = self.home(fingerprint_of(cell)).max(*next);
        if place >= self.cells {
            return false;
        }
        self.set(place, cell);
        *next = place + 1;
        self.set_len(self.len() + 1);
        true
    }

    /// Takes the cell at `i` out and closes the gap.
    fn remove(self, i: usize) {
        let mut gap = i;
        loop {
            let next = self.get(gap + 1);
            // A cell at its home stays: lookups for it begin there.
            if next == 0 || self.home(fingerprint_of(next)) > gap {
                break;
            }
            self.set(gap, next);
            gap += 1;
        }
        self.set(gap, 0);
        self.set_len(self.len() - 1);
    }
}

#[inline]
fn fingerprint_of(cell: u64) -> u16 {
    (cell >> 48) as u16
}

#[inline]
fn entry_of(cell: u64) -> NonNull<u8> {
    let ptr = std::ptr::with_exposed_provenance_mut((cell & ADDRESS_MASK) as usize);
    NonNull::new(ptr).expect("a cell that is not empty holds an address")
}

fn cell_of(fingerprint: u16, entry: NonNull<u8>) -> u64 {
    let address = entry.as_ptr().expose_provenance() as u64;
    invariant!(address & !ADDRESS_MASK == 0, "address {address:#x} has more than 48 bits");
    address | u64::from(fingerprint) << 48
}

/// Whether two keys are equal. Eight bytes at a time: keys are too short for a call to pay off.
#[inline]
fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (a_words, a_rest) = a.as_chunks::<8>();
    let (b_words, b_rest) = b.as_chunks::<8>();
    a_words.iter().zip(b_words).all(|(x, y)| u64::from_ne_bytes(*x) == u64::from_ne_bytes(*y))
        && a_rest.iter().zip(b_rest).all(|(x, y)| x == y)
}

/// Where an entry is, until the table changes.
#[derive(Clone, Copy, Debug)]
pub struct CellIndex {
    dir: usize,
    cell: usize,
}

/// A position of a scan: everything before it has been seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position(pub u64);

impl Position {
    /// Number of bits that a position uses.
    pub const BITS: u32 = 48;

    fn new(prefix: u64, fingerprint: u16) -> Self {
        Self(prefix << 16 | u64::from(fingerprint))
    }

    /// The position of a key with this hash.
    pub fn of_hash(hash: u64) -> Self {
        Self::new(hash >> 32, hash as u16)
    }

    fn prefix(self) -> u64 {
        (self.0 >> 16) & 0xffff_ffff
    }

    fn fingerprint(self) -> u16 {
        self.0 as u16
    }
}

/// The table.
#[derive(Default)]
pub struct Table {
    dir: Vec<DirWord>,
    depth: u32,
    len: usize,
    heap_bytes: usize,
}

// SAFETY: a table owns its segments and entries outright; `&mut` is needed to change anything, and
// the shard it belongs to passes between cores only through a door.
unsafe impl Send for Table {}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("len", &self.len).field("depth", &self.depth).finish()
    }
}

impl Table {
    /// An empty table: no memory yet.
    pub const fn new() -> Self {
        Self { dir: Vec::new(), depth: 0, len: 0, heap_bytes: 0 }
    }

    /// Number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of directory, segments and entries.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    #[inline]
    fn dir_index(&self, hash: u64) -> usize {
        // Shifted twice because a shift by 64 is not defined, and depth may be 0.
        ((hash >> 32) >> (32 - self.depth)) as usize
    }

    /// Asks for the segment line in which `hash` is looked up.
    #[inline]
    pub fn prefetch_cell(&self, hash: u64) {
        if let Some(word) = self.dir.get(self.dir_index(hash)) {
            let segment = word.segment();
            prefetch_read(segment.ptr.wrapping_add(1 + segment.home(hash as u16)).cast());
        }
    }

    /// Asks for the first entry that `hash` may mean. The cell should be in the cache already.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        let Some(word) = self.dir.get(self.dir_index(hash)) else {
            return;
        };
        let segment = word.segment();
        let fingerprint = hash as u16;
        let mut i = segment.home(fingerprint);
        loop {
            let cell = segment.get(i);
            if cell == 0 || fingerprint_of(cell) > fingerprint {
                return;
            }
            if fingerprint_of(cell) == fingerprint {
                return EntryRef::prefetch(entry_of(cell));
            }
            i += 1;
        }
    }

    /// The entry of `key`.
    ///
    /// # Complexity
    /// One directory word, one or two lines of cells, one entry.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<CellIndex> {
        let dir = self.dir_index(hash);
        let segment = self.dir.get(dir)?.segment();
        let fingerprint = hash as u16;
        let mut i = segment.home(fingerprint);
        loop {
            let cell = segment.get(i);
            if cell == 0 || fingerprint_of(cell) > fingerprint {
                return None;
            }
            if fingerprint_of(cell) == fingerprint {
                // SAFETY: the cell holds a live entry of this table, borrowed with it.
                let entry = unsafe { EntryRef::from_raw(entry_of(cell)) };
                if equal(entry.key(), key) {
                    return Some(CellIndex { dir, cell: i });
                }
            }
            i += 1;
        }
    }

    #[inline]
    fn cell(&self, at: CellIndex) -> u64 {
        let cell = self.dir[at.dir].segment().get(at.cell);
        invariant!(cell != 0, "a cell index outlived its entry");
        cell
    }

    /// The entry at `at`.
    #[inline]
    pub fn entry(&self, at: CellIndex) -> EntryRef<'_> {
        // SAFETY: a taken cell holds a live entry, borrowed with the table.
        unsafe { EntryRef::from_raw(entry_of(self.cell(at))) }
    }

    /// The entry at `at`, to change in place. Its size must stay; big values report through
    /// [`adjust_heap`](Self::adjust_heap).
    #[inline]
    pub fn entry_mut(&mut self, at: CellIndex) -> EntryMut<'_> {
        // SAFETY: a taken cell holds a live entry, borrowed exclusively with the table.
        unsafe { EntryMut::from_raw(entry_of(self.cell(at))) }
    }

    /// Accounts for memory that a big value gained or lost in place.
    pub fn adjust_heap(&mut self, before: usize, after: usize) {
        invariant!(self.heap_bytes + after >= before, "heap account of a table below zero");
        self.heap_bytes = self.heap_bytes + after - before;
    }

    /// Adds an entry whose key is not there.
    pub fn insert(&mut self, hash: u64, entry: EntryBox, hash_of: impl Fn(&[u8]) -> u64) {
        debug_invariant!(self.find(hash, entry.as_ref().key()).is_none(), "key inserted twice");
        if self.dir.is_empty() {
            let (segment, ptr) = Segment::new(0);
            self.dir.push(DirWord::new(ptr, segment.cells, 0));
            self.heap_bytes += 8 + 64;
        }
        self.heap_bytes += entry.as_ref().heap_bytes();
        let cell = cell_of(hash as u16, entry.into_raw());
        self.len += 1;
        loop {
            let dir = self.dir_index(hash);
            let segment = self.dir[dir].segment();
            let room = segment.len() * 32 < segment.cells * LOAD_MAX_32NDS;
            if room && segment.insert(cell) {
                return;
            }
            self.grow(dir, &hash_of);
        }
    }

    /// Puts another entry of the same key in the place of one.
    pub fn replace(&mut self, at: CellIndex, entry: EntryBox) -> EntryBox {
        let old = self.cell(at);
        self.heap_bytes += entry.as_ref().heap_bytes();
        let cell = cell_of(fingerprint_of(old), entry.into_raw());
        self.dir[at.dir].segment().set(at.cell, cell);
        // SAFETY: the cell owned the old entry and does not hold it any more.
        let old = unsafe { EntryBox::from_raw(entry_of(old)) };
        self.heap_bytes -= old.as_ref().heap_bytes();
        old
    }

    /// Takes an entry out.
    pub fn remove(&mut self, at: CellIndex) -> EntryBox {
        let cell = self.cell(at);
        let segment = self.dir[at.dir].segment();
        segment.remove(at.cell);
        self.len -= 1;
        // SAFETY: the cell owned the entry and is gone.
        let entry = unsafe { EntryBox::from_raw(entry_of(cell)) };
        self.heap_bytes -= entry.as_ref().heap_bytes();
        if self.len == 0 {
            self.release_segments();
        } else if segment.cells > 7 && segment.len() * 32 < segment.cells * 11 {
            self.resize(at.dir, segment.class() - 1);
        }
        entry
    }

    /// Takes every entry out of one segment, for freeing in slices. `None` when nothing is left.
    pub fn drain_segment(&mut self) -> Option<Vec<EntryBox>> {
        let word = self.dir.pop()?;
        let segment = word.segment();
        // All directory words of a segment are neighbours.
        while self.dir.last() == Some(&word) {
            self.dir.pop();
        }
        let mut entries = Vec::with_capacity(segment.len());
        for i in 0..segment.cells {
            let cell = segment.get(i);
            if cell != 0 {
                // SAFETY: the cell owns the entry, and the segment is freed below.
                entries.push(unsafe { EntryBox::from_raw(entry_of(cell)) });
            }
        }
        self.len -= entries.len();
        segment.free();
        Some(entries)
    }

    /// Visits entries from `from` on until about `count` have been seen; returns where to go on, or
    /// `None` at the end. Entries of one fingerprint in one segment are never split.
    pub fn scan<'t>(
        &'t self,
        from: Position,
        count: usize,
        mut visit: impl FnMut(EntryRef<'t>),
    ) -> Option<Position> {
        let mut seen = 0;
        let mut prefix = from.prefix();
        let mut fingerprint = from.fingerprint();
        while !self.dir.is_empty() {
            let dir = self.dir_index(prefix << 32);
            let word = self.dir[dir];
            let segment = word.segment();
            let mut i = segment.home(fingerprint);
            let mut last = None;
            while i < segment.cells {
                let cell = segment.get(i);
                i += 1;
                if cell == 0 || fingerprint_of(cell) < fingerprint {
                    continue;
                }
                if seen >= count && last.is_some_and(|l| l != fingerprint_of(cell)) {
                    return Some(Position::new(prefix, fingerprint_of(cell)));
                }
                last = Some(fingerprint_of(cell));
                seen += 1;
                // SAFETY: a taken cell holds a live entry, borrowed with the table.
                visit(unsafe { EntryRef::from_raw(entry_of(cell)) });
            }
            // The first prefix after this segment.
            let width = 32 - word.depth();
            let next = ((prefix >> width) + 1) << width;
            if next >> 32 != 0 {
                return None;
            }
            prefix = next;
            fingerprint = 0;
            if seen >= count {
                return Some(Position::new(prefix, 0));
            }
        }
        None
    }

    /// The segment that holds keys whose hashes have these upper 32 bits: the first such bits beyond
    /// it, and its number of entries. None if the table has no segment.
    pub fn segment_at(&self, prefix: u64) -> Option<(u64, usize)> {
        let word = self.dir.get(self.dir_index(prefix << 32))?;
        let width = 32 - word.depth();
        Some((((prefix >> width) + 1) << width, word.segment().len()))
    }

    /// Visits the entries whose hashes have their upper 32 and their lower 16 bits within these ranges,
    /// ends excluded.
    ///
    /// # Complexity
    /// O(entries visited + segments that the upper range touches), if it is one or more whole segments.
    pub fn visit_window<'t>(
        &'t self,
        prefixes: (u64, u64),
        fingerprints: (u32, u32),
        hash_of: impl Fn(&[u8]) -> u64,
        mut visit: impl FnMut(EntryRef<'t>),
    ) {
        let mut prefix = prefixes.0;
        while prefix < prefixes.1 && fingerprints.0 < fingerprints.1 {
            let Some(word) = self.dir.get(self.dir_index(prefix << 32)) else {
                return;
            };
            let (width, segment) = (32 - word.depth(), word.segment());
            let (first, end) = (prefix >> width << width, ((prefix >> width) + 1) << width);
            // A table that was empty meanwhile begins again with one segment for all.
            let is_whole = prefixes.0 <= first && end <= prefixes.1;
            let last_home = segment.home((fingerprints.1 - 1) as u16);
            let mut i = segment.home(fingerprints.0 as u16);
            while i < segment.cells {
                let cell = segment.get(i);
                let fingerprint = u32::from(fingerprint_of(cell));
                if cell != 0 && fingerprint >= fingerprints.1 || cell == 0 && i >= last_home {
                    break;
                }
                i += 1;
                if cell == 0 || fingerprint < fingerprints.0 {
                    continue;
                }
                // SAFETY: a taken cell holds a live entry, borrowed with the table.
                let entry = unsafe { EntryRef::from_raw(entry_of(cell)) };
                let is_in = is_whole || {
                    let prefix = hash_of(entry.key()) >> 32;
                    (prefixes.0..prefixes.1).contains(&prefix)
                };
                if is_in {
                    visit(entry);
                }
            }
            prefix = end;
        }
    }

    /// Visits up to `count` entries that lie next to each other at a place chosen by `random`.
    pub fn sample<'t>(&'t self, random: u64, count: usize, mut visit: impl FnMut(EntryRef<'t>)) {
        if self.len == 0 {
            return;
        }
        let mut left = count;
        let start = (random as u32 as usize * self.dir.len()) >> 32;
        for step in 0..self.dir.len() {
            let segment = self.dir[(start + step) % self.dir.len()].segment();
            if segment.len() == 0 {
                continue;
            }
            let from = ((random >> 32) as usize * segment.cells) >> 32;
            for i in 0..segment.cells {
                let cell = segment.get((from + i) % segment.cells);
                if cell != 0 {
                    // SAFETY: a taken cell holds a live entry, borrowed with the table.
                    visit(unsafe { EntryRef::from_raw(entry_of(cell)) });
                    left -= 1;
                    if left == 0 {
                        return;
                    }
                }
            }
            if left < count {
                return;
            }
        }
    }

    /// Entries that may have this position (see [`Position::of_hash`]).
    pub fn find_position(
        &self,
        position: Position,
        mut matches: impl FnMut(EntryRef<'_>) -> bool,
    ) -> Option<CellIndex> {
        let dir = self.dir_index(position.prefix() << 32);
        let segment = self.dir.get(dir)?.segment();
        let mut i = segment.home(position.fingerprint());
        loop {
            let cell = segment.get(i);
            if cell == 0 || fingerprint_of(cell) > position.fingerprint() {
                return None;
            }
            // SAFETY: a taken cell holds a live entry, borrowed with the table.
            let entry = unsafe { EntryRef::from_raw(entry_of(cell)) };
            if fingerprint_of(cell) == position.fingerprint() && matches(entry) {
                return Some(CellIndex { dir, cell: i });
            }
            i += 1;
        }
    }

    /// First directory index and number of directory words of the segment at `dir`.
    fn words_of(&self, dir: usize) -> (usize, usize) {
        let count = 1usize << (self.depth - self.dir[dir].depth());
        (dir & !(count - 1), count)
    }

    fn grow(&mut self, dir: usize, hash_of: &impl Fn(&[u8]) -> u64) {
        let segment = self.dir[dir].segment();
        let class = segment.class();
        if class + 1 < CELL_CLASS_COUNT {
            self.resize(dir, class + 1);
        } else {
            self.split(dir, hash_of);
        }
    }

    /// Moves the cells of a segment into one of another class, or the next larger that takes them.
    fn resize(&mut self, dir: usize, class: usize) {
        let old = self.dir[dir].segment();
        let depth = self.dir[dir].depth();
        for class in class..CELL_CLASS_COUNT {
            let (new, ptr) = Segment::new(class);
            let mut next = 0;
            let fits = (0..old.cells)
                .map(|i| old.get(i))
                .filter(|&cell| cell != 0)
                .all(|cell| new.append(cell, &mut next));
            if !fits {
                new.free();
                continue;
            }
            invariant!(new.len() == old.len(), "a resize lost cells");
            let (first, count) = self.words_of(dir);
            self.dir[first..first + count].fill(DirWord::new(ptr, new.cells, depth));
            self.heap_bytes += size_class((new.cells + 1) * 8);
            self.heap_bytes -= size_class((old.cells + 1) * 8);
            old.free();
            return;
        }
        // Only a shrink can come here: a larger class always takes what a smaller one held, but a
        // tail of equal fingerprints may not fit the class below. The segment then stays.
    }

    /// Splits a segment by the next bit of its keys' hashes.
    fn split(&mut self, dir: usize, hash_of: &impl Fn(&[u8]) -> u64) {
        let old = self.dir[dir].segment();
        let depth = self.dir[dir].depth();
        invariant!(depth < DEPTH_MAX, "a segment of {depth} bits cannot split");
        let dir = if depth == self.depth {
            let doubled = self.dir.iter().flat_map(|&word| [word, word]).collect::<Vec<_>>();
            self.heap_bytes += size_class(doubled.len() * 8);
            self.heap_bytes -= size_class(self.dir.len() * 8);
            self.dir = doubled;
            self.depth += 1;
            dir * 2
        } else {
            dir
        };
        let cells: Vec<u64> = (0..old.cells).map(|i| old.get(i)).filter(|&c| c != 0).collect();
        for &cell in &cells {
            EntryRef::prefetch(entry_of(cell));
        }
        let bit = 63 - depth;
        let halves = [false, true].map(|high| {
            let mine = cells.iter().copied().filter(|&cell| {
                // SAFETY: a taken cell holds a live entry, borrowed with the table.
                let entry = unsafe { EntryRef::from_raw(entry_of(cell)) };
                (hash_of(entry.key()) >> bit & 1 == 1) == high
            });
            let mine: Vec<u64> = mine.collect();
            let class = (0..CELL_CLASS_COUNT)
                .find(|&c| usize::from(CELL_COUNTS[c]) * 29 > mine.len() * 32)
                .unwrap_or(CELL_CLASS_COUNT - 1);
            (class..CELL_CLASS_COUNT)
                .find_map(|class| {
                    let (new, ptr) = Segment::new(class);
                    let mut next = 0;
                    if mine.iter().all(|&cell| new.append(cell, &mut next)) {
                        return Some((new, ptr));
                    }
                    new.free();
                    None
                })
                .expect("half of a segment fits the largest class")
        });
        let (first, count) = self.words_of(dir);
        let half = count / 2;
        for (n, (new, ptr)) in halves.into_iter().enumerate() {
            let range = first + n * half..first + (n + 1) * half;
            self.dir[range].fill(DirWord::new(ptr, new.cells, depth + 1));
            self.heap_bytes += size_class((new.cells + 1) * 8);
        }
        self.heap_bytes -= size_class((old.cells + 1) * 8);
        old.free();
    }

    fn release_segments(&mut self) {
        let mut last = None;
        for word in std::mem::take(&mut self.dir) {
            if last != Some(word) {
                word.segment().free();
            }
            last = Some(word);
        }
        self.depth = 0;
        self.heap_bytes = 0;
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        while self.drain_segment().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::store::entry::{Payload, Value};
    use xxhash_rust::xxh3::xxh3_64;

    fn entry(key: &[u8], n: i64) -> EntryBox {
        EntryBox::new(key, None, 0, Payload::Int(n))
    }

    fn get(table: &Table, key: &[u8]) -> Option<i64> {
        let at = table.find(xxh3_64(key), key)?;
        match table.entry(at).value() {
            Value::Int(n) => Some(n),
            _ => None,
        }
    }

    /// The structure's own promises: order, homes, lengths, and the account of memory.
    fn check(table: &Table) {
        let mut len = 0;
        let mut heap = size_class(table.dir.len() * 8) * usize::from(!table.dir.is_empty());
        let mut dir = 0;
        while dir < table.dir.len() {
            let (first, count) = table.words_of(dir);
            assert_eq!(first, dir, "a segment's words are aligned");
            assert!(table.dir[dir..dir + count].iter().all(|w| *w == table.dir[dir]));
            let segment = table.dir[dir].segment();
            let mut previous = 0;
            let mut taken = 0;
            for i in 0..segment.cells {
                let cell = segment.get(i);
                if cell == 0 {
                    continue;
                }
                assert!(fingerprint_of(cell) >= previous, "fingerprints are in order");
                previous = fingerprint_of(cell);
                let home = segment.home(previous);
                assert!(home <= i, "no cell lies before its home");
                assert!((home..i).all(|j| segment.get(j) != 0), "no gap between home and cell");
                // SAFETY: the cell is taken, and the table is borrowed.
                heap += unsafe { EntryRef::from_raw(entry_of(cell)) }.heap_bytes();
                taken += 1;
            }
            assert_eq!(taken, segment.len());
            heap += size_class((segment.cells + 1) * 8);
            len += taken;
            dir += count;
        }
        assert_eq!(len, table.len());
        assert_eq!(heap, table.heap_bytes());
    }

    #[test]
    fn table_against_std_map_under_random_changes() {
        let seed = 0x5eed_u64;
        let mut random = seed;
        let mut next = move || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 33
        };
        let mut table = Table::new();
        let mut model = HashMap::new();
        for round in 0..120_000u64 {
            // Phases of growth and of shrinking.
            let grow = (round / 20_000) % 2 == 0;
            let key = format!("key:{}", next() % 12_000).into_bytes();
            let hash = xxh3_64(&key);
            if next() % 4 != 0 && grow || next() % 4 == 0 {
                let n = next() as i64;
                match table.find(hash, &key) {
                    Some(at) => drop(table.replace(at, entry(&key, n))),
                    None => table.insert(hash, entry(&key, n), xxh3_64),
                }
                model.insert(key, n);
            } else {
                let at = table.find(hash, &key);
                assert_eq!(at.is_some(), model.remove(&key).is_some(), "seed {seed:#x}");
                if let Some(at) = at {
                    table.remove(at);
                }
            }
            if round % 5_000 == 0 {
                check(&table);
            }
        }
        assert_eq!(table.len(), model.len());
        for (key, n) in &model {
            assert_eq!(get(&table, key), Some(*n));
        }
        let keys: Vec<_> = model.into_keys().collect();
        for key in keys {
            let at = table.find(xxh3_64(&key), &key).expect("it was just there");
            table.remove(at);
        }
        check(&table);
        assert_eq!(table.heap_bytes(), 0);
    }

    #[test]
    fn cost_of_the_table_stays_below_14_bytes_per_key_over_growth() {
        let mut table = Table::new();
        let (mut sum, mut samples, mut worst) = (0.0, 0, 0.0f64);
        for n in 0..60_000u64 {
            let key = n.to_le_bytes();
            table.insert(xxh3_64(&key), entry(&key, 0), xxh3_64);
            if n >= 1000 && n % 100 == 0 {
                let cost = table.heap_bytes() as f64 / (n + 1) as f64 - 32.0;
                (sum, samples, worst) = (sum + cost, samples + 1, worst.max(cost));
            }
        }
        check(&table);
        let mean = sum / f64::from(samples);
        assert!(mean <= 11.0 && worst <= 14.0, "{mean:.1} bytes on average, {worst:.1} at worst");
    }

    #[test]
    fn scan_sees_every_key_that_stays_while_others_come_and_go() {
        let mut table = Table::new();
        let put = |table: &mut Table, n: u64| {
            let key = n.to_le_bytes();
            if table.find(xxh3_64(&key), &key).is_none() {
                table.insert(xxh3_64(&key), entry(&key, 0), xxh3_64);
            }
        };
        for n in 0..3_000 {
            put(&mut table, n);
        }
        let mut seen = HashSet::new();
        let mut from = Position::default();
        let mut churn = 3_000u64;
        loop {
            let next = table.scan(from, 10, |e| {
                seen.insert(u64::from_le_bytes(e.key().try_into().expect("keys have 8 bytes")));
            });
            // Growth past several splits, and removals, while the scan is under way.
            for _ in 0..40 {
                put(&mut table, churn);
                if churn.is_multiple_of(3) {
                    let key = (churn - 20).to_le_bytes();
                    if churn > 3_020
                        && let Some(at) = table.find(xxh3_64(&key), &key)
                    {
                        table.remove(at);
                    }
                }
                churn += 1;
            }
            match next {
                Some(position) => {
                    assert!(position > from, "a scan moves forward");
                    from = position;
                }
                None => break,
            }
        }
        assert!((0..3_000).all(|n| seen.contains(&n)));
    }

    #[test]
    fn keys_of_equal_fingerprint_live_side_by_side() {
        let mut table = Table::new();
        // All hashes equal in the fingerprint, different above.
        let hash_of = |key: &[u8]| (u64::from(key[0]) << 56) | (u64::from(key[1]) << 48) | 7;
        for a in 0..=255u8 {
            for b in 0..4u8 {
                table.insert(hash_of(&[a, b]), entry(&[a, b], 0), hash_of);
            }
        }
        check(&table);
        for a in 0..=255u8 {
            assert!(table.find(hash_of(&[a, 3]), &[a, 3]).is_some());
        }
    }
}
