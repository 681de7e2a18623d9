//! Requests as bytes.

/// Appends a request of these words.
pub fn request(out: &mut Vec<u8>, words: &[&[u8]]) {
    header(out, b'*', words.len());
    for word in words {
        bulk(out, word);
    }
}

/// Appends the announcement of `count` words.
pub fn array(out: &mut Vec<u8>, count: usize) {
    header(out, b'*', count);
}

/// Appends one word.
pub fn bulk(out: &mut Vec<u8>, word: &[u8]) {
    header(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn header(out: &mut Vec<u8>, kind: u8, n: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A request of these words.
pub fn to_vec(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    request(&mut out, words);
    out
}
