//! Numbers in Redis' exact text, both ways. Redis reads and prints them with the C library
//! (`strtod`, `strtold`, `printf`), so its rules are theirs. `longdouble` holds the type that
//! INCRBYFLOAT computes in. Knows no command.

/// The integer that `text` spells, if it spells one canonically: no sign `+`, no leading zero, no
/// space, within 64 bits.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'0', ..] => return None,
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut n: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits stay below 10^19 < 2^64.
        n = n * 10 + u64::from(digit);
    }
    if negative {
        (n <= i64::MAX as u64 + 1).then(|| (n as i64).wrapping_neg())
    } else {
        i64::try_from(n).ok()
    }
}

/// A number as it is written, before it is rounded to any type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Written<'a> {
    pub(super) negative: bool,
    pub(super) size: Size<'a>,
}

/// A number without its sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Size<'a> {
    Infinite,
    Decimal(Digits<'a>),
    Hex(Digits<'a>),
}

/// Digits around a point, and an exponent: of 10 for decimal, of 2 for hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Digits<'a> {
    pub(super) whole: &'a [u8],
    pub(super) fraction: &'a [u8],
    /// Clamped to what no number of digits in a request can outweigh.
    pub(super) exponent: i64,
}

const EXPONENT_MAX: i64 = 1 << 40;

impl<'a> Digits<'a> {
    /// The digits in order, the point left out.
    pub(super) fn all(self) -> impl Iterator<Item = u8> + use<'a> {
        self.whole.iter().chain(self.fraction).copied()
    }

    /// Whether every digit is 0.
    pub(super) fn is_zero(self) -> bool {
        self.all().all(|digit| digit == b'0')
    }

    /// Up to 124 bits of hexadecimal digits from the first that is not 0, the exponent of 2 that
    /// belongs to them, and whether anything but zeros follows.
    pub(super) fn hex_bits(self) -> (u128, i64, bool) {
        let mut exponent = self.exponent - 4 * self.fraction.len() as i64;
        let (mut bits, mut rest) = (0u128, false);
        for digit in self.all() {
            let value = char::from(digit).to_digit(16).unwrap_or(0);
            if bits >> 120 == 0 {
                bits = bits << 4 | u128::from(value);
            } else {
                rest |= value != 0;
                exponent += 4;
            }
        }
        (bits, exponent, rest)
    }
}

/// Reads all of `text` as `strtod` would, but for what Redis refuses: nothing at all, space before
/// it, and NaN.
pub(super) fn read(text: &[u8]) -> Option<Written<'_>> {
    let (negative, size) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let size = if size.eq_ignore_ascii_case(b"inf") || size.eq_ignore_ascii_case(b"infinity") {
        Size::Infinite
    } else if let [b'0', b'x' | b'X', digits @ ..] = size {
        Size::Hex(read_digits(digits, b'p', u8::is_ascii_hexdigit)?)
    } else {
        Size::Decimal(read_digits(size, b'e', u8::is_ascii_digit)?)
    };
    Some(Written { negative, size })
}

fn read_digits(text: &[u8], mark: u8, is_digit: fn(&u8) -> bool) -> Option<Digits<'_>> {
    let run = |text: &[u8]| text.iter().position(|b| !is_digit(b)).unwrap_or(text.len());
    let (whole, mut rest) = text.split_at(run(text));
    let mut fraction = &[][..];
    if let [b'.', after @ ..] = rest {
        (fraction, rest) = after.split_at(run(after));
    }
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let exponent = match rest {
        [] => 0,
        [first, exponent @ ..] if first.to_ascii_lowercase() == mark => read_exponent(exponent)?,
        _ => return None,
    };
    Some(Digits { whole, fraction, exponent })
}

fn read_exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size =
        digits.iter().fold(0, |n: i64, digit| (n * 10 + i64::from(digit - b'0')).min(EXPONENT_MAX));
    Some(sign * size)
}

/// Rounds `bits * 2^exponent`, to which less than one more is due if `rest` says so, half to even:
/// to at most `width` bits, and to no bit below `2^exponent_min`.
pub(super) fn round_bits(
    bits: u128,
    exponent: i64,
    rest: bool,
    width: u32,
    exponent_min: i64,
) -> (u64, i64) {
    let used = u128::BITS - bits.leading_zeros();
    let drop = i64::from(used.saturating_sub(width)).max(exponent_min - exponent);
    if drop <= 0 {
        // Callers give more bits than `width` when something is cut off, so `rest` is false.
        return (bits as u64, exponent);
    }
    if drop > i64::from(used) {
        return (0, exponent_min);
    }
    let drop = drop as u32;
    // `drop` may be all of 128 bits, a shift that is not defined.
    let kept = bits.checked_shr(drop).unwrap_or(0) as u64;
    let cut = bits << (u128::BITS - drop);
    let half = 1 << (u128::BITS - 1);
    let up = cut > half || (cut == half && (rest || kept & 1 == 1));
    let exponent = exponent + i64::from(drop);
    match kept.checked_add(u64::from(up)) {
        Some(kept) if width == u64::BITS || kept >> width == 0 => (kept, exponent),
        // A carry out of the top: a power of two.
        _ => (1 << (width - 1), exponent + 1),
    }
}

/// The double that `text` spells as C's `strtod` reads all of it; no NaN, no space, not empty, and
/// neither too large nor too small for a double.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let written = read(text)?;
    let size = match written.size {
        Size::Infinite => f64::INFINITY,
        Size::Decimal(digits) => {
            // Only ASCII gets here, in a form that the standard library reads alike.
            let x: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
            in_range(x.abs(), digits)?
        }
        Size::Hex(digits) => {
            let (bits, exponent, rest) = digits.hex_bits();
            let (bits, exponent) = round_bits(bits, exponent, rest, f64::MANTISSA_DIGITS, -1074);
            in_range(scale_f64(bits, exponent), digits)?
        }
    };
    Some(if written.negative { -size } else { size })
}

/// `x`, unless it has become infinite, or 0 although a digit is not: `strtod` calls that ERANGE.
fn in_range(x: f64, digits: Digits<'_>) -> Option<f64> {
    let underflow = x == 0.0 && !digits.is_zero();
    (x.is_finite() && !underflow).then_some(x)
}

/// `bits * 2^exponent`, which rounding has left exact, or infinity.
fn scale_f64(bits: u64, exponent: i64) -> f64 {
    let top = exponent + i64::from(u64::BITS - bits.leading_zeros());
    if bits == 0 {
        return 0.0;
    }
    if top > 1024 {
        return f64::INFINITY;
    }
    // In two steps, because 2^exponent alone may be out of range: the first is exact, and so is
    // the second, as the result is known to be a double.
    let exponent = exponent as i32;
    let half = exponent / 2;
    bits as f64 * 2f64.powi(half) * 2f64.powi(exponent - half)
}

/// `x` as C prints it with `%.17g`.
pub fn format_g17(x: f64) -> String {
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if x.is_nan() {
        return if x.is_sign_negative() { "-nan".into() } else { "nan".into() };
    }
    if x == 0.0 {
        return if x.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    // Most scores are integers, and those below 2^53 need no search for digits.
    if x.abs() < (1u64 << f64::MANTISSA_DIGITS) as f64 && x.trunc() == x {
        return itoa::Buffer::new().format(x as i64).to_owned();
    }
    let text = format!("{x:.16e}");
    let (mantissa, exponent) = text.split_once('e').expect("`e` is in every `{:e}`");
    let exponent: i32 = exponent.parse().expect("the exponent of `{:e}` is an integer");
    if (-4..17).contains(&exponent) {
        trim_zeros(&format!("{x:.*}", (16 - exponent) as usize)).to_owned()
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.abs())
    }
}

/// Leaves out zeros at the end of a fraction, and a point that nothing follows.
pub(super) fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_is_read_only_in_canonical_form() {
        for n in [0, 1, -1, 10, i64::MAX, i64::MIN, 999_999_999_999_999_999] {
            assert_eq!(parse_i64(n.to_string().as_bytes()), Some(n));
        }
        let refused = [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "00",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "10000000000000000000",
            "99999999999999999999",
            "1\0",
        ];
        for text in refused {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn double_is_read_as_strtod_reads_it() {
        let cases: [(&str, f64); 26] = [
            ("0", 0.0),
            ("5.", 5.0),
            (".5", 0.5),
            ("+1.5E3", 1500.0),
            ("1e+05", 100_000.0),
            ("0e999999999999999999999", 0.0),
            ("0x1p3", 8.0),
            ("0X.8", 0.5),
            ("-0x1.8P+1", -3.0),
            ("0x1.", 1.0),
            ("0xfFp-4", 15.9375),
            ("inf", f64::INFINITY),
            ("+Infinity", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
            ("4.9e-324", f64::from_bits(1)),
            ("3e-324", f64::from_bits(1)),
            ("1.7976931348623157e308", f64::MAX),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1.fffffffffffff7ffp1023", f64::MAX),
            ("0x1p-1074", f64::from_bits(1)),
            ("0x1.8p-1074", f64::from_bits(2)),
            ("0x2.8p-1074", f64::from_bits(2)),
            ("0x0.8000000000000001p-1074", f64::from_bits(1)),
            ("0x1p-1022", f64::MIN_POSITIVE),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080000000000000000000000000000000001p0", 1.0 + f64::EPSILON),
        ];
        for (text, x) in cases {
            assert_eq!(parse_f64(text.as_bytes()), Some(x), "{text:?}");
        }
    }

    #[test]
    fn double_is_refused_where_redis_refuses_it() {
        let refused = [
            "",
            " 1",
            "1 ",
            "\t1",
            "nan",
            "-NaN",
            "nan(1)",
            ".",
            "-",
            "+",
            "1e",
            "1e+",
            "e5",
            "0x",
            "0x.",
            "0x1p",
            "0x1p+",
            "1e400",
            "-1e400",
            "1e-400",
            "2e-324",
            "0x1p1024",
            "0x1p-1075",
            "0x1.fffffffffffff8p1023",
            "infinit",
            "infx",
            "1_000",
            "1,5",
            "1\0",
            "--1",
            "\u{0663}",
            "0x1p99999999999999999999",
            "1f",
        ];
        for text in refused {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn double_is_printed_with_seventeen_digits() {
        let cases = [
            (0.1, "0.10000000000000001"),
            (0.5, "0.5"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-17.0, "-17"),
            (std::f64::consts::PI, "3.1415926535897931"),
            (1e15, "1000000000000000"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.5e300, "1.5000000000000001e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (f64::from_bits(1), "4.9406564584124654e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            // Ties in the 17th digit go to the even one.
            (2f64.powi(50) + 0.25, "1125899906842624.2"),
            (2f64.powi(50) + 0.75, "1125899906842624.8"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (x, text) in cases {
            assert_eq!(format_g17(x), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn double_survives_being_printed_and_read(bits: u64) {
            let x = f64::from_bits(bits);
            if x.is_finite() {
                assert_eq!(parse_f64(format_g17(x).as_bytes()), Some(x));
            }
        }

        #[test]
        fn hexadecimal_is_read_exactly(bits: u64, exponent in -1000i32..900) {
            let text = format!("0x{bits:x}p{exponent}");
            // Rounded once, by the conversion from an integer: no case here is subnormal.
            let half = exponent / 2;
            let expected = bits as f64 * 2f64.powi(half) * 2f64.powi(exponent - half);
            assert_eq!(parse_f64(text.as_bytes()), Some(expected));
        }
    }
}
