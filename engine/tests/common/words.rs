//! Command lines as `redis-cli` reads them, and bytes as text that a person can read and edit.

/// Splits a line into words: plain, `"..."` with escapes, or `'...'`. `None` if a quote is left
/// open or is followed by anything but a space.
pub(crate) fn split(line: &str) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start().as_bytes();
    while !rest.is_empty() {
        let (word, used) = match rest[0] {
            b'"' => quoted(&rest[1..], b'"')?,
            b'\'' => quoted(&rest[1..], b'\'')?,
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                (rest[..end].to_vec(), end)
            }
        };
        words.push(word);
        rest = &rest[used..];
        if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return None;
        }
        rest = rest.trim_ascii_start();
    }
    Some(words)
}

/// The word up to the closing quote, and how many bytes it took with both quotes.
fn quoted(text: &[u8], quote: u8) -> Option<(Vec<u8>, usize)> {
    let mut word = Vec::new();
    let mut i = 0;
    loop {
        match *text.get(i)? {
            byte if byte == quote => return Some((word, i + 2)),
            b'\\' if quote == b'"' => {
                let (byte, used) = escape(&text[i + 1..])?;
                word.push(byte);
                i += 1 + used;
            }
            b'\\' if text.get(i + 1) == Some(&b'\'') => {
                word.push(b'\'');
                i += 2;
            }
            byte => {
                word.push(byte);
                i += 1;
            }
        }
    }
}

/// The byte that an escape (without its backslash) stands for, and its length.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    Some(match *text.first()? {
        b'x' => {
            let digits = std::str::from_utf8(text.get(1..3)?).ok()?;
            return u8::from_str_radix(digits, 16).ok().map(|byte| (byte, 3));
        }
        b'n' => (b'\n', 1),
        b'r' => (b'\r', 1),
        b't' => (b'\t', 1),
        b'0' => (0, 1),
        b'a' => (7, 1),
        b'b' => (8, 1),
        other => (other, 1),
    })
}

/// Bytes as one line of text: `\r`, `\n`, `\t`, `\\` and `\xNN` for what cannot be printed.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// The bytes that [`escaped`] made this text of. `None` if no such bytes exist.
pub(crate) fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'\\' {
            let (byte, used) = escape(tail)?;
            bytes.push(byte);
            rest = &tail[used..];
        } else {
            bytes.push(first);
        }
    }
    Some(bytes)
}

/// A call as a line that [`split`] reads back.
pub(crate) fn line_of(words: &[Vec<u8>]) -> String {
    let word = |word: &Vec<u8>| {
        let plain = !word.is_empty()
            && word.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'));
        let text = escaped(word);
        if plain { text } else { format!("\"{}\"", text.replace('"', "\\\"")) }
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A call as the bytes that a client sends.
pub(crate) fn encoded<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
