//! HyperLogLog: how many different elements were added, in 12 KiB at most, 0.81 % off on average.
//! The algorithms over the bytes of a string, in Redis' layout to the bit: a string made here is one
//! that Redis goes on with, and the other way round.
//!
//! # Layout
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `HYLL` |
//! | 4 | 0 dense, 1 sparse |
//! | 5..8 | not used |
//! | 8..16 | the last count, little endian; its highest bit says that it is stale |
//! | 16.. | 16384 registers: see `dense` and `sparse` |
//!
//! Any client can store any bytes under these four letters: nothing here trusts them. Knows no key
//! and no command.

mod dense;
mod estimate;
mod sparse;

/// Bits of a hash that choose the register.
const INDEX_BITS: u32 = 14;
/// Bits of a hash that the register counts zeros in.
const RANK_BITS: u32 = u64::BITS - INDEX_BITS;
/// Number of registers.
pub const REGISTER_COUNT: usize = 1 << INDEX_BITS;
/// Values that a register of 6 bits can have.
const REGISTER_VALUES: usize = 64;

const MAGIC: &[u8; 4] = b"HYLL";
const HEADER_BYTES: usize = 16;
const ENCODING_AT: usize = 4;
const COUNT_AT: usize = 8;
/// Bit of the last byte of the header: the count is stale.
const STALE: u8 = 0x80;

/// Length of a dense string.
pub const DENSE_BYTES: usize = HEADER_BYTES + dense::BYTES;
/// Length beyond which a sparse string cannot be whole: no register takes more than two bytes.
const SPARSE_BYTES_MAX: usize = HEADER_BYTES + 2 * REGISTER_COUNT;

/// How the registers are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// 6 bits each.
    Dense,
    /// Runs of equal ones.
    Sparse,
}

/// The registers do not add up to 16384.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corrupted;

/// What an element does: it lifts one register to a rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    register: usize,
    rank: u8,
}

impl Mark {
    /// The mark of an element.
    ///
    /// # Complexity
    /// O(N) with N bytes.
    pub fn of(element: &[u8]) -> Self {
        let hash = murmur64a(element);
        let register = (hash % REGISTER_COUNT as u64) as usize;
        // The bit behind the last one ends the count if all are zero.
        let rest = hash >> INDEX_BITS | 1 << RANK_BITS;
        Self { register, rank: rest.trailing_zeros() as u8 + 1 }
    }
}

/// Hash of an element.
///
/// # Source
/// MurmurHash64A, Austin Appleby, public domain; words are read as little endian.
fn murmur64a(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xadc8_3b19;
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, &byte| tail << 8 | u64::from(byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ hash >> R).wrapping_mul(M);
    hash ^ hash >> R
}

/// How a string stores its registers; `None` if it is no HyperLogLog.
pub fn encoding(bytes: &[u8]) -> Option<Encoding> {
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
        return None;
    }
    match bytes[ENCODING_AT] {
        0 if bytes.len() == DENSE_BYTES => Some(Encoding::Dense),
        1 => Some(Encoding::Sparse),
        _ => None,
    }
}

/// A HyperLogLog without elements: sparse, with a valid count of 0.
pub fn empty() -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    bytes[ENCODING_AT] = 1;
    sparse::push_zeros(&mut bytes, REGISTER_COUNT);
    bytes
}

/// The count that the header remembers, unless it is stale. `bytes` have an [`encoding`].
pub fn cached_count(bytes: &[u8]) -> Option<u64> {
    let count = bytes[COUNT_AT..].first_chunk::<8>()?;
    (count[7] & STALE == 0).then(|| u64::from_le_bytes(*count))
}

/// Writes a count into the header. `bytes` have an [`encoding`].
pub fn cache_count(bytes: &mut [u8], count: u64) {
    bytes[COUNT_AT..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
}

/// Says in the header that the registers have changed since they were counted.
pub fn forget_count(bytes: &mut [u8]) {
    bytes[HEADER_BYTES - 1] |= STALE;
}

/// Lifts a register of a dense string; whether it was lower. `bytes` are [`Encoding::Dense`].
pub fn add_dense(bytes: &mut [u8], mark: Mark) -> bool {
    dense::lift(&mut bytes[HEADER_BYTES..], mark)
}

/// Adds a mark; whether it made a difference. The string becomes dense if it would be longer than
/// `sparse_bytes_max`, or if a run cannot hold the rank. The cached count is left as it is.
///
/// # Errors
/// [`Corrupted`], and the string is as it was.
///
/// # Complexity
/// O(1) dense, O(N) with N bytes sparse.
pub fn add(bytes: &mut Vec<u8>, mark: Mark, sparse_bytes_max: usize) -> Result<bool, Corrupted> {
    match encoding(bytes).ok_or(Corrupted)? {
        Encoding::Dense => Ok(add_dense(bytes, mark)),
        Encoding::Sparse => {
            let mut cursor = sparse::Cursor::default();
            add_sparse(bytes, mark, sparse_bytes_max, &mut cursor)
        }
    }
}

fn add_sparse(
    bytes: &mut Vec<u8>,
    mark: Mark,
    sparse_bytes_max: usize,
    cursor: &mut sparse::Cursor,
) -> Result<bool, Corrupted> {
    if bytes.len() > SPARSE_BYTES_MAX {
        return Err(Corrupted);
    }
    match sparse::lift(bytes, mark, sparse_bytes_max, cursor)? {
        sparse::Lift::AsHigh => Ok(false),
        sparse::Lift::Done => Ok(true),
        sparse::Lift::Full => {
            make_dense(bytes)?;
            Ok(add_dense(bytes, mark))
        }
    }
}

/// Makes a sparse string dense; whether it was not yet. The header stays, cached count included.
///
/// # Errors
/// [`Corrupted`], and the string is as it was.
pub fn make_dense(bytes: &mut Vec<u8>) -> Result<bool, Corrupted> {
    if encoding(bytes) == Some(Encoding::Dense) {
        return Ok(false);
    }
    let mut registers = Registers::default();
    registers.merge(bytes)?;
    bytes.resize(DENSE_BYTES, 0);
    bytes[ENCODING_AT] = 0;
    dense::pack(&registers.0, &mut bytes[HEADER_BYTES..]);
    Ok(true)
}

/// Counts, whatever the header remembers.
///
/// # Errors
/// [`Corrupted`], also if it is no HyperLogLog at all.
///
/// # Complexity
/// O(1) dense, O(N) with N bytes sparse.
pub fn count(bytes: &[u8]) -> Result<u64, Corrupted> {
    let mut histogram = [0; REGISTER_VALUES];
    match encoding(bytes).ok_or(Corrupted)? {
        Encoding::Dense => {
            for registers in dense::quads(&bytes[HEADER_BYTES..]) {
                registers.iter().for_each(|&value| histogram[usize::from(value)] += 1);
            }
        }
        Encoding::Sparse => {
            let mut total = 0;
            for run in runs(bytes)? {
                histogram[usize::from(run.value)] += run.len as u32;
                total += run.len;
            }
            if total != REGISTER_COUNT {
                return Err(Corrupted);
            }
        }
    }
    Ok(estimate::estimate(&histogram))
}

/// The runs of a sparse string, if there may be that many.
fn runs(bytes: &[u8]) -> Result<impl Iterator<Item = sparse::Run>, Corrupted> {
    if bytes.len() > SPARSE_BYTES_MAX { Err(Corrupted) } else { Ok(sparse::runs(bytes)) }
}

/// The runs of a sparse string as text: `Z:n` and `z:n` for n registers that are 0, in two bytes and
/// in one, `v:r,n` for n registers of rank r.
///
/// # Errors
/// [`Corrupted`] if it is longer than any whole one.
pub fn describe_runs(bytes: &[u8]) -> Result<String, Corrupted> {
    let words: Vec<String> = runs(bytes)?
        .map(|run| match (run.value, run.size_bytes) {
            (0, 1) => format!("z:{}", run.len),
            (0, _) => format!("Z:{}", run.len),
            (value, _) => format!("v:{value},{}", run.len),
        })
        .collect();
    Ok(words.join(" "))
}

/// All registers, a byte each: the union of what is merged into it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registers(Box<[u8; REGISTER_COUNT]>);

impl Default for Registers {
    fn default() -> Self {
        Self(Box::new([0; REGISTER_COUNT]))
    }
}

impl Registers {
    /// Lifts each register to what it is in `bytes`.
    ///
    /// # Errors
    /// [`Corrupted`], also if they are no HyperLogLog at all; then this is of no use any more.
    pub fn merge(&mut self, bytes: &[u8]) -> Result<(), Corrupted> {
        match encoding(bytes).ok_or(Corrupted)? {
            Encoding::Dense => {
                let (mine, _) = self.0.as_chunks_mut::<4>();
                for (mine, theirs) in mine.iter_mut().zip(dense::quads(&bytes[HEADER_BYTES..])) {
                    mine.iter_mut().zip(theirs).for_each(|(mine, other)| *mine = other.max(*mine));
                }
            }
            Encoding::Sparse => self.merge_runs(bytes)?,
        }
        Ok(())
    }

    fn merge_runs(&mut self, bytes: &[u8]) -> Result<(), Corrupted> {
        let mut first = 0;
        for run in runs(bytes)? {
            if run.value > 0 {
                // Redis: ranks behind the last register end the walk and do no harm.
                let Some(mine) = self.0.get_mut(first..first + run.len) else { break };
                mine.iter_mut().for_each(|mine| *mine = run.value.max(*mine));
            }
            first += run.len;
        }
        if first == REGISTER_COUNT { Ok(()) } else { Err(Corrupted) }
    }

    /// Counts the union.
    pub fn count(&self) -> u64 {
        let mut histogram = [0; REGISTER_VALUES];
        self.0.iter().for_each(|&value| histogram[usize::from(value)] += 1);
        estimate::estimate(&histogram)
    }

    /// Each register in order.
    pub fn values(&self) -> &[u8; REGISTER_COUNT] {
        &self.0
    }

    /// Lifts the registers of `bytes`, which have been merged into this. A sparse string becomes
    /// dense as with [`add`].
    ///
    /// # Errors
    /// [`Corrupted`] if `bytes` are.
    pub fn write_to(&self, bytes: &mut Vec<u8>, sparse_bytes_max: usize) -> Result<(), Corrupted> {
        // One walk over the runs, not one per register: registers come in order.
        let mut cursor = sparse::Cursor::default();
        for (register, &rank) in self.0.iter().enumerate().filter(|&(_, &rank)| rank > 0) {
            if encoding(bytes) == Some(Encoding::Dense) {
                dense::pack(&self.0, &mut bytes[HEADER_BYTES..]);
                break;
            }
            add_sparse(bytes, Mark { register, rank }, sparse_bytes_max, &mut cursor)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
