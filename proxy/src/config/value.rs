//! The text of a setting and what it means, in the original's forms: sizes as `128kb`, spans of time
//! as `1m30s`. Pure functions.

use std::fmt::Write;
use std::time::Duration;

/// Bytes that `text` spells: a number, perhaps with a fraction, and a unit of 1024's powers.
///
/// # Source
/// The original's `bytesize`: `b`, `k` or `kb` up to `p` or `pb`, in any case.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        "p" | "pb" => 50,
        _ => return None,
    };
    if let Ok(n) = number.parse::<u64>() {
        return n.checked_mul(1 << shift).filter(|&n| n <= i64::MAX as u64);
    }
    let n: f64 = number.parse().ok()?;
    let bytes = n * (1u64 << shift) as f64;
    (bytes.is_finite() && bytes < i64::MAX as f64).then_some(bytes as u64)
}

/// A size in the largest unit that divides it.
pub fn print_size(bytes: u64) -> String {
    let units = ["", "kb", "mb", "gb", "tb", "pb"];
    let step = (0..units.len()).rev().find(|i| bytes.is_multiple_of(1 << (10 * i))).unwrap_or(0);
    match bytes {
        0 => "0".to_owned(),
        _ => format!("{}{}", bytes >> (10 * step), units[step]),
    }
}

const NANOS: [(&str, u64); 7] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

/// The span of time that `text` spells: plain seconds, or numbers that each have a unit.
///
/// # Source
/// Go's `time.ParseDuration` without a sign.
pub fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return nanos(seconds, 1_000_000_000).map(Duration::from_nanos);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let factor = NANOS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(nanos(number.parse().ok()?, factor)?)?;
        rest = next;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(total))
}

fn nanos(n: f64, factor: u64) -> Option<u64> {
    let ns = (n * factor as f64).round();
    (n.is_sign_positive() && ns < i64::MAX as f64).then_some(ns as u64)
}

/// A span as `1h30m`, `30s`, `250ms`; `0` for none.
pub fn print_span(span: Duration) -> String {
    let mut left = span.as_nanos() as u64;
    let mut text = String::new();
    for (unit, factor) in NANOS.into_iter().filter(|(unit, _)| *unit != "µs") {
        if left >= factor {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{unit}", left / factor);
            left %= factor;
        }
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

/// Numbers as `0-3,8`, each once.
///
/// # Errors
/// What is wrong with them.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    let number = |word: &str| {
        let n = word.trim().parse::<usize>().ok().filter(|&n| n < 4096);
        n.ok_or_else(|| format!("'{word}' is not the number of a CPU"))
    };
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(format!("'{part}' ends before it begins"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is listed twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_original() {
        let cases = [
            ("128kb", 128 << 10),
            ("1024mb", 1 << 30),
            ("1g", 1 << 30),
            ("1.5K", 1536),
            ("77", 77),
            ("0", 0),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for wrong in ["", "kb", "-1", "1x", "1..5k", "99999999pb", "nan"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
        for (bytes, text) in [(0, "0"), (131_072, "128kb"), (1 << 30, "1gb"), (1025, "1025")] {
            assert_eq!(print_size(bytes), text);
        }
    }

    #[test]
    fn spans_are_those_of_go_or_seconds() {
        let cases = [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("250ms", 250),
            ("75", 75_000),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_span(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "s", "-1s", "1x", "1s2", "inf", "nan", "1e400"] {
            assert_eq!(parse_span(wrong), None, "{wrong}");
        }
        for text in ["1h30m", "30s", "250ms", "0"] {
            assert_eq!(parse_span(text).map(print_span).as_deref(), Some(text));
        }
    }

    #[test]
    fn cpus_are_listed_once() {
        assert_eq!(parse_cpus("0-2,5"), Ok(vec![0, 1, 2, 5]));
        assert_eq!(parse_cpus(""), Ok(vec![]));
        assert!(parse_cpus("1,1").is_err_and(|line| line.contains("twice")));
        assert!(parse_cpus("3-1").is_err_and(|line| line.contains("ends before")));
        assert!(parse_cpus("x").is_err_and(|line| line.contains("not the number")));
    }
}
