//! The number type that INCRBYFLOAT and HINCRBYFLOAT compute in: C's `long double` on x86, which
//! has 64 bits of precision and a 15-bit exponent. Reading, adding and printing are correctly
//! rounded, so results are Redis' to the last byte on every machine. Knows no command.
//!
//! A value is an integer of 64 bits times a power of two. All intermediate results are exact or
//! carry a flag for what was cut off; they are rounded once.

use num_bigint::BigUint;

use crate::resp::number::{self, Digits, Size, round_bits};

/// Bits of precision.
const WIDTH: u32 = 64;
/// Exponent of the last bit of the smallest values.
const EXPONENT_MIN: i64 = -16445;
/// Values reach up to 2 to this power, exclusively.
const TOP_MAX: i64 = 16384;
/// Longest text that Redis reads as a number: one byte less than its buffer has.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Digits that are printed after the point.
const DECIMALS: usize = 17;
/// 10 to the power of [`DECIMALS`].
const DECIMALS_SCALE: u128 = 10u128.pow(DECIMALS as u32);
/// Largest power of 5 that 64 bits hold: 5^27.
const POWER_OF_5_MAX: i64 = 27;

/// A number, finite or infinite; never NaN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongDouble {
    negative: bool,
    size: Magnitude,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Magnitude {
    Infinite,
    /// `bits * 2^exponent`, in any of its forms.
    Finite {
        bits: u64,
        exponent: i64,
    },
}

impl From<i64> for LongDouble {
    fn from(n: i64) -> Self {
        let size = Magnitude::Finite {
            bits: n.unsigned_abs(),
            exponent: 0,
        };
        Self {
            negative: n < 0,
            size,
        }
    }
}

impl LongDouble {
    /// Zero.
    pub const ZERO: Self = Self {
        negative: false,
        size: Magnitude::Finite {
            bits: 0,
            exponent: 0,
        },
    };

    /// The number that `text` spells as C's `strtold` reads all of it, where Redis accepts that: no
    /// NaN, no space, not empty, shorter than 5120 bytes, neither too large nor too small.
    ///
    /// # Complexity
    /// O(1) up to 19 digits and exponents to 27; else quadratic in the number of digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let written = number::read(text)?;
        let size = match written.size {
            Size::Infinite => Magnitude::Infinite,
            Size::Decimal(digits) => round_read(digits, read_decimal(digits)?)?,
            Size::Hex(digits) => round_read(digits, digits.hex_bits())?,
        };
        Some(Self {
            negative: written.negative,
            size,
        })
    }

    /// Whether it is no infinity.
    pub fn is_finite(self) -> bool {
        self.size != Magnitude::Infinite
    }

    /// The sum, rounded half to even; `None` if it is infinite or not a number.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let (a, b) = (Aligned::of(self)?, Aligned::of(other)?);
        let (a, b) = if (a.exponent, a.bits) < (b.exponent, b.bits) {
            (b, a)
        } else {
            (a, b)
        };
        // 62 bits below a's last one: more than a result can need of b, but for the flag.
        let shift = a.exponent - b.exponent;
        let exponent = a.exponent - 62;
        let a_bits = u128::from(a.bits) << 62;
        let b_bits = u128::from(b.bits) << 62;
        let cut = shift.min(127) as u32;
        let rest = b_bits >> cut << cut != b_bits;
        let b_bits = b_bits >> cut;
        let bits = if a.negative == b.negative {
            a_bits + b_bits
        } else {
            // What was cut off of b is taken away from the last bit, and most of it is left over.
            a_bits - b_bits - u128::from(rest)
        };
        let size = rounded(bits, exponent, rest);
        (size != Magnitude::Infinite).then_some(Self {
            negative: a.negative,
            size,
        })
    }

    /// Its text as Redis stores it: `%.17Lf` without zeros at the end, and never `-0`.
    ///
    /// # Complexity
    /// O(1) below 2^128; else quadratic in the number of digits.
    pub fn to_text(self) -> String {
        let (text, sign) = match self.size {
            Magnitude::Infinite => ("inf".to_owned(), "-"),
            Magnitude::Finite { bits, exponent } => {
                let text = finite_text(bits, exponent);
                let sign = if text == "0" { "" } else { "-" };
                (text, sign)
            }
        };
        if self.negative {
            format!("{sign}{text}")
        } else {
            text
        }
    }
}

/// A finite number with its highest bit at the top, so that exponents compare as sizes do.
struct Aligned {
    negative: bool,
    bits: u64,
    exponent: i64,
}

impl Aligned {
    fn of(x: LongDouble) -> Option<Self> {
        let Magnitude::Finite { bits, exponent } = x.size else {
            return None;
        };
        if bits == 0 {
            return Some(Self {
                negative: x.negative,
                bits,
                exponent: EXPONENT_MIN - 64,
            });
        }
        let up = bits.leading_zeros();
        Some(Self {
            negative: x.negative,
            bits: bits << up,
            exponent: exponent - i64::from(up),
        })
    }
}

/// Bits, the exponent of the last one, and whether there is more below it.
type Exact = (u128, i64, bool);

fn rounded(bits: u128, exponent: i64, rest: bool) -> Magnitude {
    let (bits, exponent) = round_bits(bits, exponent, rest, WIDTH, EXPONENT_MIN);
    let top = exponent + i64::from(u64::BITS - bits.leading_zeros());
    if bits != 0 && top > TOP_MAX {
        return Magnitude::Infinite;
    }
    Magnitude::Finite {
        bits,
        exponent: if bits == 0 { 0 } else { exponent },
    }
}

/// Rounds what was read; `None` if it gets infinite, or 0 although a digit is not.
fn round_read(digits: Digits<'_>, (bits, exponent, rest): Exact) -> Option<Magnitude> {
    match rounded(bits, exponent, rest) {
        Magnitude::Infinite => None,
        Magnitude::Finite { bits: 0, .. } if !digits.is_zero() => None,
        finite => Some(finite),
    }
}

/// The number that decimal digits spell: at least 65 bits of it if they do not hold all. `None` if
/// its exponent alone puts it out of range.
fn read_decimal(digits: Digits<'_>) -> Option<Exact> {
    let mut text: Vec<u8> = digits.all().skip_while(|&digit| digit == b'0').collect();
    let mut power = digits.exponent - digits.fraction.len() as i64;
    while text.last() == Some(&b'0') {
        text.pop();
        power += 1;
    }
    if text.is_empty() {
        return Some((0, 0, false));
    }
    // Values lie between 10^-4951 and 10^4933.
    let magnitude = power + text.len() as i64;
    if !(-4960..=4940).contains(&magnitude) {
        return None;
    }
    if text.len() <= 19 && power.abs() <= POWER_OF_5_MAX {
        let n = text
            .iter()
            .fold(0, |n: u64, digit| n * 10 + u64::from(digit - b'0'));
        return Some(read_short(n, power));
    }
    Some(read_long(&text, power))
}

/// `n * 10^power` for powers whose part of 5 fits 64 bits.
fn read_short(n: u64, power: i64) -> Exact {
    let fives = 5u64.pow(power.unsigned_abs() as u32);
    if power >= 0 {
        return (u128::from(n) * u128::from(fives), power, false);
    }
    // The dividend has its highest bit at the top, so the quotient has 65 bits or more.
    let up = u128::from(n).leading_zeros();
    let dividend = u128::from(n) << up;
    let fives = u128::from(fives);
    (
        dividend / fives,
        power - i64::from(up),
        dividend % fives != 0,
    )
}

/// The same for any number of digits and any power.
fn read_long(digits: &[u8], power: i64) -> Exact {
    let n = BigUint::parse_bytes(digits, 10).expect("they are digits, and not none");
    let fives = BigUint::from(5u32).pow(power.unsigned_abs() as u32);
    if power >= 0 {
        return top_bits(&(n * fives), power, false);
    }
    let up = (fives.bits() + 70).saturating_sub(n.bits());
    let dividend = n << up;
    let quotient = &dividend / &fives;
    let rest = &quotient * &fives != dividend;
    top_bits(&quotient, power - up as i64, rest)
}

/// The highest 128 bits of `n * 2^exponent`.
fn top_bits(n: &BigUint, exponent: i64, rest: bool) -> Exact {
    let cut = n.bits().saturating_sub(128);
    let top = n >> cut;
    let bits = top
        .iter_u64_digits()
        .rev()
        .fold(0, |bits: u128, limb| bits << 64 | u128::from(limb));
    let rest = rest || n.trailing_zeros().is_some_and(|zeros| zeros < cut);
    (bits, exponent + cut as i64, rest)
}

/// `bits * 2^exponent` with 17 decimals, zeros at the end left out.
fn finite_text(bits: u64, exponent: i64) -> String {
    if exponent >= 0 {
        // At most 2^16384.
        return match exponent {
            0..=64 => (u128::from(bits) << exponent).to_string(),
            _ => (BigUint::from(bits) << exponent as u64).to_string(),
        };
    }
    // Below 2^64 * 2^57.
    let scaled = u128::from(bits) * DECIMALS_SCALE;
    let units = round_shift(scaled, exponent.unsigned_abs());
    let (whole, decimals) = (units / DECIMALS_SCALE, units % DECIMALS_SCALE);
    let text = format!("{whole}.{decimals:0DECIMALS$}");
    number::trim_zeros(&text).to_owned()
}

/// `n / 2^shift`, rounded half to even. `n` is below 2^127.
fn round_shift(n: u128, shift: u64) -> u128 {
    if shift >= 128 {
        return 0;
    }
    let kept = n >> shift;
    let cut = n - (kept << shift);
    let half = 1u128 << (shift - 1);
    kept + u128::from(cut > half || (cut == half && kept & 1 == 1))
}
