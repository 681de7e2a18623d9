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
        let size = Magnitude::Finite { bits: n.unsigned_abs(), exponent: 0 };
        Self { negative: n < 0, size }
    }
}

impl LongDouble {
    /// Zero.
    pub const ZERO: Self =
        Self { negative: false, size: Magnitude::Finite { bits: 0, exponent: 0 } };

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
        Some(Self { negative: written.negative, size })
    }

    /// Whether it is no infinity.
    pub fn is_finite(self) -> bool {
        self.size != Magnitude::Infinite
    }

    /// The sum, rounded half to even; `None` if it is infinite or not a number.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let (a, b) = (Aligned::of(self)?, Aligned::of(other)?);
        let (a, b) = if (a.exponent, a.bits) < (b.exponent, b.bits) { (b, a) } else { (a, b) };
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
        (size != Magnitude::Infinite).then_some(Self { negative: a.negative, size })
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
        if self.negative { format!("{sign}{text}") } else { text }
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
            return Some(Self { negative: x.negative, bits, exponent: EXPONENT_MIN - 64 });
        }
        let up = bits.leading_zeros();
        Some(Self { negative: x.negative, bits: bits << up, exponent: exponent - i64::from(up) })
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
    Magnitude::Finite { bits, exponent: if bits == 0 { 0 } else { exponent } }
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
        let n = text.iter().fold(0, |n: u64, digit| n * 10 + u64::from(digit - b'0'));
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
    (dividend / fives, power - i64::from(up), dividend % fives != 0)
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
    let bits =
        top.iter_u64_digits().rev().fold(0, |bits: u128, limb| bits << 64 | u128::from(limb));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let (a, b) = (LongDouble::parse(a.as_bytes())?, LongDouble::parse(b.as_bytes())?);
        Some(a.checked_add(b)?.to_text())
    }

    #[test]
    fn sum_is_what_redis_replies() {
        // Recorded: SET k a, INCRBYFLOAT k b.
        let cases = [
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("3", "1e-17", "3.00000000000000001"),
            ("3", "5e-18", "3"),
            ("3", "4.9e-18", "3"),
            ("0", "-0", "0"),
            ("0", "-1e-18", "0"),
            ("1", "-1", "0"),
            ("-5.5", "5.5", "0"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("18446744073709551615", "0.5", "18446744073709551616"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("9223372036854775807", "0.5", "9223372036854775807.5"),
            ("-9223372036854775808", "-0.25", "-9223372036854775808"),
            ("123456789012345678901234567890", "0", "123456789012345678899921813504"),
            ("0.000000000000000005", "0", "0"),
            ("0.000000000000000015", "0", "0.00000000000000002"),
            ("0.00000762939453125", "0", "0.00000762939453125"),
            ("0.000003814697265625", "0", "0.00000381469726562"),
            ("1.0000000000000000000271", "0", "1"),
            ("3.6e-4951", "0", "0"),
            ("1e22", "1e-22", "10000000000000000000000"),
            ("1e19", "0.5", "10000000000000000000"),
            (
                "340282366920938463463374607431768211456",
                "-1",
                "340282366920938463463374607431768211456",
            ),
            ("1e27", "0", "1000000000000000000000000000"),
            ("1e-27", "1", "1"),
            ("1e28", "0", "9999999999999999999731564544"),
            ("0x1p-3", "0", "0.125"),
            ("0x.8p1", "1", "2"),
            ("0x1.8000000000000001p0", "0", "1.5"),
            ("0x1.80000000000000018p0", "0", "1.5"),
            ("0xfffffffffffffffffp0", "0", "295147905179352825856"),
            ("-0x10", "0X1P4", "0"),
            ("1.5E3", "+.5", "1500.5"),
            ("5.", "-.25", "4.75"),
            ("0e99999999999999999999", "1", "1"),
            (
                "3.14159265358979323846264338327950288",
                "2.71828182845904523536028747135266249",
                "5.85987448204883847",
            ),
            ("0.3", "-0.1", "0.2"),
            ("1000000000000000000000000000000000000", "-999999999999999999999999999999999999", "0"),
        ];
        for (a, b, want) in cases {
            assert_eq!(sum(a, b).as_deref(), Some(want), "{a} + {b}");
        }
    }

    #[test]
    fn largest_numbers_are_printed_to_the_last_digit() {
        let text = sum("1e4932", "0").expect("it is finite");
        assert_eq!(text.len(), 4933);
        assert!(text.starts_with("100000000000000000000601"), "{text}");
        assert!(text.ends_with("38418113791886622720"), "{text}");
        let max = sum("1.18973149535723176502e4932", "0").expect("it is finite");
        assert!(max.starts_with("118973149535723176502126"), "{max}");
        assert!(max.ends_with("19552086811989770240"), "{max}");
        assert_eq!(LongDouble::parse(max.as_bytes()).map(LongDouble::to_text), Some(max));
    }

    #[test]
    fn number_out_of_range_is_refused() {
        let refused = [
            "1e4933",
            "1.18973149535723176509e4932",
            "0xffffffffffffffff.8p16320",
            "1e-4952",
            "0x1p-16446",
            "1e999999999999999999999",
            "-1e-999999999999999999999",
            "nan",
            "",
            " 1",
            "1 ",
        ];
        for text in refused {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        for text in ["0xffffffffffffffff.7p16320", "0x1p-16445", "0x1.8p-16446", "1.9e-4951"] {
            assert!(LongDouble::parse(text.as_bytes()).is_some(), "{text:?}");
        }
        assert!(LongDouble::parse(&[b'9'; 4933]).is_none());
        let mut long = vec![b'0'; TEXT_BYTES_MAX];
        assert!(LongDouble::parse(&long).is_some());
        long.push(b'0');
        assert_eq!(LongDouble::parse(&long), None);
    }

    #[test]
    fn infinity_is_read_but_no_sum() {
        for (a, b) in [("inf", "1"), ("inf", "-inf"), ("1", "-Infinity"), ("1e4932", "inf")] {
            assert_eq!(sum(a, b), None);
        }
        let max = "1.18973149535723176502e4932";
        assert_eq!(sum(max, max), None);
        let infinite = LongDouble::parse(b"-INF").expect("it is a number");
        assert!(!infinite.is_finite());
        assert_eq!(infinite.to_text(), "-inf");
    }

    proptest::proptest! {
        #[test]
        fn short_and_long_way_of_reading_agree(n in 1u64.., power in -27i64..=27) {
            let short = read_short(n, power);
            let long = read_long(n.to_string().as_bytes(), power);
            assert_eq!(rounded(short.0, short.1, short.2), rounded(long.0, long.1, long.2));
        }

        #[test]
        fn double_is_printed_as_the_standard_library_prints_it(bits: u64) {
            let x = f64::from_bits(bits);
            let text = format!("{x:.17}");
            let want = match number::trim_zeros(&text) {
                "-0" => "0",
                want => want,
            };
            // 17 digits name a double, but are read here with more precision: its exact text.
            let exact = format!("{x:.1100}");
            if let Some(read) = LongDouble::parse(exact.as_bytes()) {
                assert_eq!(read.to_text(), want);
            }
        }

        #[test]
        fn sum_that_fits_is_exact(
            a in -1i64 << 62..1 << 62,
            b in -1i64 << 62..1 << 62,
            bits in 0i64..60,
        ) {
            let scaled = |n: i64| LongDouble {
                negative: n < 0,
                size: Magnitude::Finite { bits: n.unsigned_abs(), exponent: -bits },
            };
            let sum = scaled(a).checked_add(scaled(b)).map(LongDouble::to_text);
            assert_eq!(sum, Some(scaled(a + b).to_text()));
            assert_eq!(sum, scaled(b).checked_add(scaled(a)).map(LongDouble::to_text));
        }
    }
}
