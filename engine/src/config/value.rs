//! The text of a setting and what it means: parsing with Redis' error texts, and printing in
//! Redis' form. Pure functions; knows no [`Config`](super::Config).

use std::fmt::Write as _;

use crate::config::spec::{CORES_MAX, ConfigSpec, Kind};
use crate::resp::number::parse_i64;

/// A setting as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Of everything but text. Memory beyond `i64::MAX` keeps its bits.
    Number(i64),
    /// Of [`Kind::Text`] and [`Kind::Secret`].
    Text(String),
}

/// The value that `text` spells. `old` is the text that a [`Kind::Text`] option has now.
///
/// # Errors
/// What is wrong with it, in Redis' words where Redis has some.
pub fn parse(spec: &ConfigSpec, text: &str, old: &str) -> Result<Value, String> {
    let value = match spec.kind {
        Kind::Bool => Value::Number(parse_bool(text)?.into()),
        Kind::Int { min, max } => Value::Number(parse_int(text, min, max)?),
        Kind::Octal => Value::Number(parse_octal(text)?),
        Kind::Memory { min, max } => Value::Number(parse_memory_between(text, min, max)? as i64),
        Kind::Enum(words) => Value::Number(parse_word(text, words)?),
        Kind::Events => Value::Number(parse_events(text)?.into()),
        Kind::Text(keep) => Value::Text(keep(old, text)?),
        Kind::Secret => Value::Text(text.to_owned()),
    };
    if let Some((only, why)) = spec.only
        && print(spec, &value) != only
    {
        return Err(why.to_owned());
    }
    Ok(value)
}

/// The text of a value, as CONFIG GET shows it.
pub fn print(spec: &ConfigSpec, value: &Value) -> String {
    let number = match value {
        Value::Text(text) => return text.clone(),
        Value::Number(number) => *number,
    };
    match spec.kind {
        Kind::Bool => (if number != 0 { "yes" } else { "no" }).to_owned(),
        Kind::Octal => format!("{number:o}"),
        Kind::Memory { .. } => (number as u64).to_string(),
        Kind::Enum(words) => {
            let word = words.iter().find(|(_, n)| *n == number);
            word.map_or_else(String::new, |(word, _)| (*word).to_owned())
        }
        Kind::Events => print_events(number as u32),
        Kind::Int { .. } | Kind::Text(_) | Kind::Secret => number.to_string(),
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        _ if text.eq_ignore_ascii_case("yes") => Ok(true),
        _ if text.eq_ignore_ascii_case("no") => Ok(false),
        _ => Err("argument must be 'yes' or 'no'".to_owned()),
    }
}

fn parse_int(text: &str, min: i64, max: i64) -> Result<i64, String> {
    let n = parse_i64(text.as_bytes())
        .ok_or_else(|| "argument couldn't be parsed into an integer".to_owned())?;
    if n < min || n > max {
        return Err(format!("argument must be between {min} and {max} inclusive"));
    }
    Ok(n)
}

fn parse_octal(text: &str) -> Result<i64, String> {
    let n = u32::from_str_radix(text, 8)
        .map_err(|_| "argument couldn't be parsed as an octal number".to_owned())?;
    if n > 0o777 {
        return Err("argument must be between 0 and 777 inclusive".to_owned());
    }
    Ok(n.into())
}

fn parse_word(text: &str, words: &[(&'static str, i64)]) -> Result<i64, String> {
    if let Some((_, n)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        return Ok(*n);
    }
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(format!("argument(s) must be one of the following: {}", all.join(", ")))
}

fn parse_memory_between(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let n = parse_memory(text).ok_or_else(|| "argument must be a memory value".to_owned())?;
    if n < min || n > max {
        return Err(format!("argument must be between {min} and {max} inclusive"));
    }
    Ok(n)
}

/// Bytes that `text` spells: digits and a unit in any case.
///
/// # Source
/// Redis' rules: no digits are 0, `k` is 1000, `kb` is 1024. Redis: an amount beyond 64 bits wraps
/// around there when it has a unit; here it is the largest that fits.
pub fn parse_memory(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    let number = match number {
        "" => 0,
        // Only digits: what fails is too large.
        _ => number.parse().unwrap_or(u64::MAX),
    };
    Some(number.saturating_mul(factor))
}

/// Bits of `notify-keyspace-events` and their letters, in the order in which they are shown.
pub const EVENT_LETTERS: [(char, u32); 14] = [
    ('g', 1 << 2),
    ('$', 1 << 3),
    ('l', 1 << 4),
    ('s', 1 << 5),
    ('h', 1 << 6),
    ('z', 1 << 7),
    ('x', 1 << 8),
    ('e', 1 << 9),
    ('t', 1 << 10),
    ('d', 1 << 13),
    ('n', 1 << 14),
    ('K', 1 << 0),
    ('E', 1 << 1),
    ('m', 1 << 11),
];

/// What the letter `A` stands for: all classes but `m` and `n`.
const EVENTS_ALL: u32 = 0b0010_0111_1111_1100;

fn parse_events(text: &str) -> Result<u32, String> {
    let mut bits = 0;
    for letter in text.chars() {
        bits |= match EVENT_LETTERS.iter().find(|(l, _)| *l == letter) {
            _ if letter == 'A' => EVENTS_ALL,
            Some((_, bit)) => *bit,
            None => {
                let why = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
                return Err(why.to_owned());
            }
        };
    }
    Ok(bits)
}

fn print_events(bits: u32) -> String {
    let all = bits & EVENTS_ALL == EVENTS_ALL;
    let mut text = String::from(if all { "A" } else { "" });
    for (letter, bit) in EVENT_LETTERS {
        // Redis: `n` is not shown beside `A` either, although it is no part of it.
        let is_class = !matches!(letter, 'K' | 'E' | 'm');
        if bits & bit != 0 && !(all && is_class) {
            text.push(letter);
        }
    }
    text
}

/// Any text.
pub(super) fn keep_any(_old: &str, text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// A name of a file or directory, without a path.
pub(super) fn keep_file_name(_old: &str, text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('/') || text.starts_with('.') {
        return Err("must be the name of a file, without a path".to_owned());
    }
    Ok(text.to_owned())
}

/// Any text but none.
pub(super) fn keep_nonempty(_old: &str, text: &str) -> Result<String, String> {
    if text.is_empty() { Err("argument must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Addresses between spaces.
pub(super) fn keep_addresses(_old: &str, text: &str) -> Result<String, String> {
    let addresses: Vec<&str> = text.split_whitespace().collect();
    if addresses.len() > 16 {
        return Err("Too many bind addresses specified.".to_owned());
    }
    Ok(addresses.join(" "))
}

/// A list of CPUs.
pub(super) fn keep_cpus(_old: &str, text: &str) -> Result<String, String> {
    parse_cpus(text).map(|_| text.to_owned())
}

/// The CPUs of a list such as `0-3,8`, in its order; none if it is empty.
///
/// # Errors
/// What is wrong with it: its form, a CPU named twice, or more than [`CORES_MAX`].
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let form = || "argument must be a list of CPUs such as 0-3,8".to_owned();
    let number = |text: &str| text.trim().parse::<u16>().map(usize::from).map_err(|_| form());
    let mut cpus = Vec::new();
    if text.trim().is_empty() {
        return Ok(cpus);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(form());
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is listed twice"));
            }
            cpus.push(cpu);
            if cpus.len() > CORES_MAX {
                return Err(format!("at most {CORES_MAX} cores can be used"));
            }
        }
    }
    Ok(cpus)
}

/// When a new log file is begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rotation {
    /// Never.
    Never,
    /// At midnight UTC.
    Daily,
    /// When it has grown to this many bytes.
    AtBytes(u64),
}

/// The rotation that `text` spells.
///
/// # Errors
/// What would be accepted.
pub fn parse_rotation(text: &str) -> Result<Rotation, String> {
    match text.to_ascii_lowercase().as_str() {
        "no" | "" => Ok(Rotation::Never),
        "day" => Ok(Rotation::Daily),
        size => match parse_memory(size) {
            Some(bytes) if bytes >= 4096 => Ok(Rotation::AtBytes(bytes)),
            _ => Err("argument must be 'no', 'day' or a size of at least 4kb".to_owned()),
        },
    }
}

pub(super) fn keep_rotation(_old: &str, text: &str) -> Result<String, String> {
    parse_rotation(text).map(|_| text.to_owned())
}

/// Pairs of seconds and changes.
pub(super) fn keep_save_points(_old: &str, text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let invalid = || "Invalid save parameters".to_owned();
    let words: Vec<&str> = text.split(' ').collect();
    if !words.len().is_multiple_of(2) {
        return Err(invalid());
    }
    for (i, word) in words.iter().enumerate() {
        let n: i64 = word.parse().map_err(|_| invalid())?;
        // Words in turn are seconds, at least one, and changes, which may be none.
        if n < 1 - (i as i64 % 2) {
            return Err(invalid());
        }
    }
    Ok(words.join(" "))
}

/// Percentiles between spaces.
pub(super) fn keep_percentiles(_old: &str, text: &str) -> Result<String, String> {
    let name = "latency-tracking-info-percentiles";
    if text.is_empty() {
        return Ok(String::new());
    }
    let mut kept = String::new();
    for word in text.split(' ') {
        let percent = crate::resp::number::parse_f64(word.as_bytes())
            .ok_or_else(|| format!("Invalid {name} parameters"))?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("{name} parameters should sit between [0.0,100.0]"));
        }
        let digits = format!("{percent:.6}");
        let separator = if kept.is_empty() { "" } else { " " };
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        write!(kept, "{separator}{digits}").expect("writing to a string never fails");
    }
    Ok(kept)
}

/// How much unread output a client of one class may let pile up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OutputLimit {
    /// Disconnected at once beyond this; 0 is no limit.
    pub hard_bytes: u64,
    /// Disconnected after `soft_seconds` beyond this; 0 is no limit.
    pub soft_bytes: u64,
    /// See `soft_bytes`.
    pub soft_seconds: u64,
}

/// Classes of `client-output-buffer-limit`, in the order in which they are shown.
const OUTPUT_CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// The limits that `text` gives to normal clients, replicas and subscribers; those it does not
/// name stay as in `limits`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_output_limits(text: &str, limits: &mut [OutputLimit; 3]) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let words: Vec<&str> = text.split(' ').collect();
    let (groups, rest) = words.as_chunks::<4>();
    if !rest.is_empty() {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    for [class, hard, soft, seconds] in groups {
        let name = if class.eq_ignore_ascii_case("replica") { "slave" } else { *class };
        let index = OUTPUT_CLASSES.iter().position(|c| c.eq_ignore_ascii_case(name));
        let index = index.ok_or_else(|| {
            "Invalid client class specified in buffer limit configuration.".to_owned()
        })?;
        let (hard, soft) = (parse_memory(hard), parse_memory(soft));
        let (Some(hard_bytes), Some(soft_bytes), Ok(soft_seconds)) = (hard, soft, seconds.parse())
        else {
            let why = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
            return Err(why.to_owned());
        };
        limits[index] = OutputLimit { hard_bytes, soft_bytes, soft_seconds };
    }
    Ok(())
}

pub(super) fn keep_output_limits(old: &str, text: &str) -> Result<String, String> {
    let mut limits = [OutputLimit::default(); 3];
    parse_output_limits(old, &mut limits)?;
    parse_output_limits(text, &mut limits)?;
    let shown = OUTPUT_CLASSES
        .iter()
        .zip(limits)
        .map(|(class, l)| format!("{class} {} {} {}", l.hard_bytes, l.soft_bytes, l.soft_seconds));
    Ok(shown.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spec::{SPECS, find};

    /// What CONFIG GET shows after CONFIG SET, or the error.
    fn kept(name: &str, text: &str) -> Result<String, String> {
        let spec = &SPECS[find(name.as_bytes()).expect("the test names an option")];
        parse(spec, text, "").map(|value| print(spec, &value))
    }

    fn refused(name: &str, text: &str) -> String {
        kept(name, text).expect_err("the test gives a bad value")
    }

    #[test]
    fn bool_other_than_yes_or_no_is_refused() {
        assert_eq!(kept("slot-balance", "YES").as_deref(), Ok("yes"));
        assert_eq!(refused("slot-balance", "1"), "argument must be 'yes' or 'no'");
    }

    #[test]
    fn integer_out_of_range_names_the_range() {
        assert_eq!(kept("maxclients", "4294967295").as_deref(), Ok("4294967295"));
        let range = "argument must be between 1 and 4294967295 inclusive";
        assert_eq!(refused("maxclients", "0"), range);
        let range = "argument must be between -1 and 9223372036854775807 inclusive";
        assert_eq!(refused("slowlog-log-slower-than", "-2"), range);
        for text in ["", "abc", " 10", "1.5", "1k", "99999999999999999999"] {
            assert_eq!(refused("timeout", text), "argument couldn't be parsed into an integer");
        }
        assert_eq!(refused("databases", "17"), "argument must be between 1 and 16 inclusive");
    }

    #[test]
    fn memory_units_count_as_in_redis() {
        let cases = [
            ("", 0),
            ("007", 7),
            ("1b", 1),
            ("1k", 1000),
            ("1Kb", 1024),
            ("2m", 2_000_000),
            ("2MB", 2 << 20),
            ("1g", 1_000_000_000),
            ("1GB", 1 << 30),
            ("99999999999999999999", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(kept("maxmemory", text), Ok(bytes.to_string()), "{text}");
        }
        for text in ["-1", "+1", "1t", "1.5gb", "10%", " 1", "1 kb", "1\u{e9}"] {
            assert_eq!(refused("maxmemory", text), "argument must be a memory value", "{text}");
        }
        let range = "argument must be between 1048576 and 9223372036854775807 inclusive";
        assert_eq!(refused("proto-max-bulk-len", "99999999999gb"), range);
    }

    #[test]
    fn enum_unknown_word_lists_all() {
        let all = "argument(s) must be one of the following: debug, verbose, notice, warning";
        assert_eq!(refused("loglevel", "loud"), all);
        assert_eq!(kept("maxmemory-policy", "ALLKEYS-lru").as_deref(), Ok("allkeys-lru"));
    }

    #[test]
    fn octal_other_than_permissions_is_refused() {
        assert_eq!(kept("unixsocketperm", "755").as_deref(), Ok("755"));
        let why = "argument couldn't be parsed as an octal number";
        assert_eq!(refused("unixsocketperm", "888"), why);
        assert!(kept("unixsocketperm", "7777").is_err());
    }

    #[test]
    fn events_are_shown_in_order() {
        let cases = [
            ("KEA", "AKE"),
            ("Kg$x", "g$xK"),
            ("Kgdlshzxetn", "glshzxetdnK"),
            ("AKEnm", "AKEm"),
            ("mKz", "zKm"),
            ("K$lshzxegtdmn", "AKm"),
            ("", ""),
        ];
        for (text, shown) in cases {
            assert_eq!(kept("notify-keyspace-events", text).as_deref(), Ok(shown), "{text}");
        }
        let why = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
        assert_eq!(refused("notify-keyspace-events", "q"), why);
    }

    #[test]
    fn save_points_are_refused_clearly() {
        assert_eq!(kept("save", "").as_deref(), Ok(""));
        for text in ["a b", "900", "900 -1", "0 1", " "] {
            assert_eq!(refused("save", text), "Invalid save parameters", "{text}");
        }
        assert!(refused("save", "900 1 300 10").starts_with("persistence is not built in yet"));
        assert_eq!(kept("appendonly", "yes").as_deref(), Ok("yes"));
        for name in ["", "a/b", "..", ".hidden"] {
            assert!(refused("appendfilename", name).contains("name of a file"), "{name}");
        }
        assert!(refused("daemonize", "yes").contains("foreground"));
    }

    #[test]
    fn percentiles_are_trimmed_and_checked() {
        let name = "latency-tracking-info-percentiles";
        assert_eq!(kept(name, "50.0 99 99.9 1e1").as_deref(), Ok("50 99 99.9 10"));
        assert_eq!(kept(name, "0 100").as_deref(), Ok("0 100"));
        assert_eq!(refused(name, "50  99"), format!("Invalid {name} parameters"));
        let range = format!("{name} parameters should sit between [0.0,100.0]");
        assert_eq!(refused(name, "101"), range);
    }

    #[test]
    fn output_limits_keep_the_classes_not_named() {
        let old = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        let new = keep_output_limits(old, "normal 1mb 2k 3 replica 1 2 4");
        let want = "normal 1048576 2000 3 slave 1 2 4 pubsub 33554432 8388608 60";
        assert_eq!(new.as_deref(), Ok(want));
        for (text, why) in [
            ("normal 1 2", "Wrong number of arguments"),
            (" slave 1 1 1", "Wrong number of arguments"),
            ("master 1 2 3", "Invalid client class"),
            ("normal x 2 3", "Error in hard, soft or soft_seconds"),
            ("normal 1 2 -3", "Error in hard, soft or soft_seconds"),
        ] {
            assert!(keep_output_limits(old, text).is_err_and(|e| e.starts_with(why)), "{text}");
        }
    }

    #[test]
    fn cpu_lists_are_checked() {
        assert_eq!(parse_cpus("0-2,8"), Ok(vec![0, 1, 2, 8]));
        assert_eq!(parse_cpus(""), Ok(vec![]));
        assert_eq!(parse_cpus("0-1,1"), Err("CPU 1 is listed twice".to_owned()));
        assert_eq!(parse_cpus("0-48"), Err("at most 48 cores can be used".to_owned()));
        for text in ["a", "3-1", "0,,1", "-1", "0-", "99999999"] {
            assert!(parse_cpus(text).is_err_and(|e| e.contains("such as 0-3,8")), "{text}");
        }
    }

    #[test]
    fn rotation_takes_a_day_or_a_size() {
        assert_eq!(parse_rotation("no"), Ok(Rotation::Never));
        assert_eq!(parse_rotation("Day"), Ok(Rotation::Daily));
        assert_eq!(parse_rotation("1mb"), Ok(Rotation::AtBytes(1 << 20)));
        assert!(parse_rotation("week").is_err() && parse_rotation("1").is_err());
    }
}
