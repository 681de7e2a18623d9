//! Dense registers: 6 bits each, from the lowest bit of the first byte on. Four of them fill three
//! bytes.

use super::{Mark, REGISTER_COUNT};

/// Memory of all registers.
pub(super) const BYTES: usize = REGISTER_COUNT / 4 * 3;

/// The registers, four at a time.
pub(super) fn quads(registers: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    registers.as_chunks::<3>().0.iter().map(unpack)
}

fn unpack(&[a, b, c]: &[u8; 3]) -> [u8; 4] {
    [a & 63, (a >> 6 | b << 2) & 63, (b >> 4 | c << 4) & 63, c >> 2]
}

/// Writes registers of a byte each.
pub(super) fn pack(values: &[u8; REGISTER_COUNT], registers: &mut [u8]) {
    let (quads, _) = values.as_chunks::<4>();
    let (threes, _) = registers.as_chunks_mut::<3>();
    for (three, &[a, b, c, d]) in threes.iter_mut().zip(quads) {
        *three = [a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2];
    }
}

/// Lifts a register to a rank; whether it was lower.
pub(super) fn lift(registers: &mut [u8], mark: Mark) -> bool {
    let three = &mut registers.as_chunks_mut::<3>().0[mark.register / 4];
    let mut values = unpack(three);
    let value = &mut values[mark.register % 4];
    if *value >= mark.rank {
        return false;
    }
    *value = mark.rank;
    let [a, b, c, d] = values;
    *three = [a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2];
    true
}
