//! From registers to a count.
//!
//! # Source
//! Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6:
//! no tables, no correction of bias, one formula for all sizes. The order of the floating point
//! operations is part of the wire: another one would round to other counts than Redis now and then.

use super::{RANK_BITS, REGISTER_COUNT, REGISTER_VALUES};

/// 1 / (2 ln 2).
const ALPHA: f64 = 0.721_347_520_444_481_7;

/// The number of different elements, by how many registers have each value.
pub(super) fn estimate(histogram: &[u32; REGISTER_VALUES]) -> u64 {
    let m = REGISTER_COUNT as f64;
    let top = RANK_BITS as usize + 1;
    let mut z = m * tau((m - f64::from(histogram[top])) / m);
    for &count in histogram[1..top].iter().rev() {
        z = (z + f64::from(count)) * 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    let estimate = (ALPHA * m * m / z).round();
    // Redis: what no elements can bring about, all registers full, overflows to this.
    if estimate < i64::MAX as f64 { estimate as u64 } else { 1 << 63 }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let mut y = 1.0;
    let mut z = 1.0 - x;
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let mut y = 1.0;
    let mut z = x;
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}
