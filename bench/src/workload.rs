//! Requests: command templates compiled to bytes, with holes that each request fills in.
//!
//! Knows nothing of sockets and time. A request costs one copy of its template and one number per
//! hole; nothing is allocated once the output buffer has grown to its size.

use crate::sample::{Distribution, KeyPicker, Random};

/// Width of every number that goes into a hole, as in redis-benchmark.
pub(crate) const DIGITS: usize = 12;

/// The widest number out of order.
const MIXED_DIGITS_MAX: u64 = 7;

/// What a hole is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    /// A fresh draw of the key distribution.
    Draw,
    /// The number of this request, divided.
    Sequence { divisor: u64 },
    /// The number of this request, out of order: as many requests as there are numbers of this
    /// width have all of them.
    Mixed,
}

/// A place in a template that each request fills with a number.
#[derive(Clone, Copy, Debug)]
struct Hole {
    at: usize,
    /// Digits, at most [`DIGITS`].
    width: usize,
    fill: Fill,
}

/// One command as wire bytes and the places in them that change.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    holes: Vec<Hole>,
}

impl Template {
    /// Compiles a command line. Words are split at blanks; double quotes keep blanks in a word.
    /// In a word, `__key__` stands for `key:` and a drawn number, `__rand_int__` for a drawn number,
    /// `__seq__` for the number of the request, `__data__` for `data`. `__seq/100__` is the number
    /// of the request divided by 100, and `__mix:5__` five digits that neighbouring requests have
    /// far apart and that repeat only when all of that width have been.
    ///
    /// # Errors
    /// An empty command, or a quote that is not closed.
    pub(crate) fn compile(command: &str, data: &[u8]) -> Result<Self, String> {
        let words = split_words(command)?;
        if words.is_empty() {
            return Err("the command is empty".into());
        }
        let mut template = Self { bytes: Vec::new(), holes: Vec::new() };
        template.bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in &words {
            let (text, holes) = expand(word, data);
            template.bytes.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
            let start = template.bytes.len();
            let placed = holes.into_iter().map(|hole| Hole { at: start + hole.at, ..hole });
            template.holes.extend(placed);
            template.bytes.extend_from_slice(&text);
            template.bytes.extend_from_slice(b"\r\n");
        }
        Ok(template)
    }

    fn append(&self, out: &mut Vec<u8>, sequence: u64, picker: &KeyPicker, random: &mut Random) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for hole in &self.holes {
            let number = match hole.fill {
                Fill::Draw => picker.pick(random),
                Fill::Sequence { divisor } => sequence / divisor,
                Fill::Mixed => mixed(sequence),
            };
            let at = start + hole.at;
            write_digits(&mut out[at..at + hole.width], number);
        }
    }
}

/// The words of a command line.
pub(crate) fn split_words(command: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in command.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err(format!("a quote is not closed in '{command}'"));
    }
    words.extend(word);
    Ok(words)
}

/// The bytes of one word, with zeros where the holes are.
fn expand(word: &str, data: &[u8]) -> (Vec<u8>, Vec<Hole>) {
    let (mut text, mut holes, mut rest) = (Vec::new(), Vec::new(), word);
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix("__key__") {
            text.extend_from_slice(b"key:");
            holes.push(Hole { at: text.len(), width: DIGITS, fill: Fill::Draw });
            text.extend_from_slice(&[b'0'; DIGITS]);
            rest = tail;
        } else if let Some((width, fill, tail)) = hole_at(rest) {
            holes.push(Hole { at: text.len(), width, fill });
            text.extend_from_slice(&[b'0'; DIGITS][..width]);
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("__data__") {
            text.extend_from_slice(data);
            rest = tail;
        } else {
            let step = rest.chars().next().map_or(1, char::len_utf8);
            text.extend_from_slice(&rest.as_bytes()[..step]);
            rest = &rest[step..];
        }
    }
    (text, holes)
}

/// The number that a text begins with the name of: its width, its source, and the text behind.
fn hole_at(text: &str) -> Option<(usize, Fill, &str)> {
    let (name, tail) = text.strip_prefix("__")?.split_once("__")?;
    let argument = |prefix| name.strip_prefix(prefix).and_then(|number| number.parse().ok());
    if name == "rand_int" {
        return Some((DIGITS, Fill::Draw, tail));
    }
    if name == "seq" {
        return Some((DIGITS, Fill::Sequence { divisor: 1 }, tail));
    }
    if let Some(divisor) = argument("seq/").filter(|&divisor| divisor > 0) {
        return Some((DIGITS, Fill::Sequence { divisor }, tail));
    }
    let width = argument("mix:").filter(|width| (1..=MIXED_DIGITS_MAX).contains(width))?;
    Some((width as usize, Fill::Mixed, tail))
}

/// A number whose last digits, up to [`MIXED_DIGITS_MAX`], are a permutation of those of
/// `sequence`.
fn mixed(sequence: u64) -> u64 {
    // It has no divisor in common with ten, so multiplying by it loses nothing; and none of its
    // ends is near a power of ten, so what was side by side comes to lie far apart.
    const FACTOR: u64 = 3_819_661;
    sequence % 10_000_000 * FACTOR
}

/// Writes the last digits of a number into a slot of up to [`DIGITS`] bytes, with leading zeros.
fn write_digits(slot: &mut [u8], number: u64) {
    if slot.len() != DIGITS {
        let mut left = number;
        for digit in slot.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        return;
    }
    // Two halves of 32 bits divide faster than one of 64.
    let halves = [(number / 1_000_000 % 1_000_000) as u32, (number % 1_000_000) as u32];
    for (half, part) in halves.into_iter().zip(slot.chunks_exact_mut(DIGITS / 2)) {
        let mut left = half;
        for digit in part.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
    }
}

/// A mix of commands and how often each comes.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadSpec {
    /// Command templates with their weights.
    pub(crate) mix: Vec<(String, u64)>,
    /// Distribution of the drawn numbers.
    pub(crate) distribution: Distribution,
    /// Number of keys drawn from.
    pub(crate) keys: u64,
    /// Size of `__data__`.
    pub(crate) value_bytes: usize,
    /// Seed of everything random.
    pub(crate) seed: u64,
}

impl WorkloadSpec {
    /// One command, keys drawn uniformly.
    pub(crate) fn uniform(command: &str, keys: u64, value_bytes: usize) -> Self {
        Self {
            mix: vec![(command.to_owned(), 1)],
            distribution: Distribution::Uniform,
            keys,
            value_bytes,
            seed: 1,
        }
    }

    /// The value that `__data__` stands for: printable, not compressible by repetition.
    pub(crate) fn data(&self) -> Vec<u8> {
        const ALPHABET: &[u8; 64] =
            b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-.";
        let mut random = Random::new(self.seed, u64::MAX);
        (0..self.value_bytes).map(|_| ALPHABET[random.below(64) as usize]).collect()
    }
}

/// The requests of one thread, in order.
#[derive(Debug)]
pub(crate) struct Workload {
    templates: Vec<(Template, u64)>,
    weight_sum: u64,
    picker: KeyPicker,
    random: Random,
    sequence: u64,
}

impl Workload {
    /// The requests of thread number `thread`.
    ///
    /// # Errors
    /// As [`Template::compile`].
    pub(crate) fn new(spec: &WorkloadSpec, thread: usize) -> Result<Self, String> {
        let data = spec.data();
        let mut templates = Vec::new();
        for (command, weight) in spec.mix.iter().filter(|(_, weight)| *weight > 0) {
            templates.push((Template::compile(command, &data)?, *weight));
        }
        if templates.is_empty() {
            return Err("the mix of commands is empty".into());
        }
        Ok(Self {
            weight_sum: templates.iter().map(|(_, weight)| weight).sum(),
            templates,
            picker: KeyPicker::new(spec.distribution, spec.keys),
            random: Random::new(spec.seed, thread as u64),
            sequence: 0,
        })
    }

    /// Sets the number that the next request's `__seq__` stands for.
    pub(crate) fn number_from(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    /// The longest request.
    pub(crate) fn request_bytes_max(&self) -> usize {
        self.templates.iter().map(|(template, _)| template.bytes.len()).max().unwrap_or(0)
    }

    /// Appends the next request.
    pub(crate) fn append(&mut self, out: &mut Vec<u8>) {
        let mut index = 0;
        if self.templates.len() > 1 {
            let mut ticket = self.random.below(self.weight_sum);
            while ticket >= self.templates[index].1 {
                ticket -= self.templates[index].1;
                index += 1;
            }
        }
        let template = &self.templates[index].0;
        template.append(out, self.sequence, &self.picker, &mut self.random);
        self.sequence += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mix: &[(&str, u64)]) -> WorkloadSpec {
        WorkloadSpec {
            mix: mix.iter().map(|(c, w)| ((*c).to_owned(), *w)).collect(),
            distribution: Distribution::Uniform,
            keys: 1000,
            value_bytes: 5,
            seed: 9,
        }
    }

    fn requests(spec: &WorkloadSpec, thread: usize, count: usize) -> Vec<u8> {
        let mut workload = Workload::new(spec, thread).unwrap();
        let mut out = Vec::new();
        (0..count).for_each(|_| workload.append(&mut out));
        out
    }

    #[test]
    fn template_becomes_wire_bytes_with_holes() {
        let template = Template::compile("SET k:__key__! \"a b\" __data__", b"xyz").unwrap();
        let picker = KeyPicker::new(Distribution::Uniform, 1);
        let mut out = b"before".to_vec();
        template.append(&mut out, 0, &picker, &mut Random::new(1, 0));
        let want =
            b"before*4\r\n$3\r\nSET\r\n$19\r\nk:key:000000000000!\r\n$3\r\na b\r\n$3\r\nxyz\r\n";
        assert_eq!(out, want);
    }

    #[test]
    fn template_sequence_counts_requests_not_holes() {
        let mut workload = Workload::new(&spec(&[("SET __seq__ __seq__", 1)]), 0).unwrap();
        workload.number_from(123_456_789_011);
        let mut out = Vec::new();
        workload.append(&mut out);
        workload.append(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("123456789011").count(), 2);
        assert_eq!(text.matches("123456789012").count(), 2);
    }

    #[test]
    fn template_of_parts_fills_one_key_with_different_elements() {
        let mut workload =
            Workload::new(&spec(&[("SADD k:__seq/10__ 1__mix:2__ x__mix:1__", 1)]), 0).unwrap();
        let mut members = std::collections::BTreeSet::new();
        for number in 0..100 {
            let mut out = Vec::new();
            workload.append(&mut out);
            let text = String::from_utf8(out).unwrap();
            let words: Vec<&str> = text.split("\r\n").skip(4).step_by(2).collect();
            assert_eq!(words[0], format!("k:{:012}", number / 10));
            assert_eq!((words[1].len(), words[2].len()), (3, 2));
            members.insert(words[1].to_owned());
        }
        assert_eq!(members.len(), 100);
    }

    #[test]
    fn template_keeps_what_only_looks_like_a_number() {
        for word in ["__seq/0__", "__mix:0__", "__mix:8__", "__mix:x__", "__seq", "____", "__a__"] {
            let (text, holes) = expand(word, b"");
            assert_eq!((String::from_utf8(text).unwrap().as_str(), holes.len()), (word, 0));
        }
    }

    #[test]
    fn workload_same_seed_same_bytes() {
        let spec = spec(&[("SET __key__ __data__", 1), ("GET __key__", 3)]);
        assert_eq!(requests(&spec, 0, 200), requests(&spec, 0, 200));
        assert_ne!(requests(&spec, 0, 200), requests(&spec, 1, 200));
        let other = WorkloadSpec { seed: 10, ..spec.clone() };
        assert_ne!(requests(&spec, 0, 200), requests(&other, 0, 200));
    }

    #[test]
    fn workload_mix_follows_the_weights() {
        let out = requests(&spec(&[("SET a b", 1), ("GET a", 3), ("DEL a", 0)]), 0, 40_000);
        let text = String::from_utf8(out).unwrap();
        let sets = text.matches("SET").count();
        assert!((9_500..10_500).contains(&sets), "{sets}");
        assert_eq!(text.matches("GET").count(), 40_000 - sets);
    }

    #[test]
    fn workload_never_reallocates_a_grown_buffer() {
        let mut workload = Workload::new(&spec(&[("SET __key__ __data__", 1)]), 0).unwrap();
        let mut out = Vec::with_capacity(workload.request_bytes_max());
        let capacity = out.capacity();
        for _ in 0..100 {
            out.clear();
            workload.append(&mut out);
        }
        assert_eq!(out.capacity(), capacity);
    }

    #[test]
    fn command_text_is_checked() {
        assert!(Template::compile("", b"").is_err());
        assert!(Template::compile("   ", b"").is_err());
        assert!(Template::compile("GET \"a", b"").is_err());
        assert_eq!(split_words("SET a \"\"").unwrap(), ["SET", "a", ""]);
    }
}
