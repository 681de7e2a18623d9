//! Replies as raw bytes: where one ends, and what its parts are. RESP2 and RESP3.

/// Length of the first reply in `bytes`; `Ok(None)` while it is not there to its end.
///
/// # Errors
/// The text says what no server may send.
pub(crate) fn frame_len(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    let mut left = 1u64;
    while left > 0 {
        let Some((line, end)) = line_at(bytes, at) else {
            return Ok(None);
        };
        left -= 1;
        let Some(&kind) = line.first() else {
            return Err("an empty line".into());
        };
        at = end;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'=' | b'!' => {
                if let Some(len) = count(line)? {
                    at += len as usize + 2;
                    if bytes.len() < at {
                        return Ok(None);
                    }
                    if &bytes[at - 2..at] != b"\r\n" {
                        return Err(format!("a bulk of {len} bytes without line end"));
                    }
                }
            }
            b'*' | b'~' | b'>' => left += count(line)?.unwrap_or(0),
            b'%' => left += 2 * count(line)?.unwrap_or(0),
            // An attribute precedes what it describes.
            b'|' => left += 2 * count(line)?.unwrap_or(0) + 1,
            other => return Err(format!("a reply that begins with {other:#04x}")),
        }
    }
    Ok(Some(at))
}

/// The line at `at` without its end, and where the next one begins.
fn line_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let len = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&rest[..len], at + len + 2))
}

/// The number of a header; `None` for -1.
fn count(line: &[u8]) -> Result<Option<u64>, String> {
    let text = String::from_utf8_lossy(&line[1..]);
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(n) if n >= 0 => Ok(Some(n as u64)),
        _ => Err(format!("a header with the number {text:?}")),
    }
}

/// Splits `bytes` into whole replies.
///
/// # Errors
/// The text says what is wrong or missing.
pub(crate) fn split(mut bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let len = frame_len(bytes)?.ok_or("a reply that ends too early")?;
        replies.push(&bytes[..len]);
        bytes = &bytes[len..];
    }
    Ok(replies)
}

/// The elements of an array, set, push or map reply, each as raw bytes; `None` if it is none.
pub(crate) fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    matches!(reply.first()?, b'*' | b'~' | b'>' | b'%').then_some(())?;
    let (_, start) = line_at(reply, 0)?;
    split(&reply[start..]).ok()
}

/// The bytes of a bulk reply; `None` if it is none.
pub(crate) fn bulk(reply: &[u8]) -> Option<&[u8]> {
    let (line, start) = line_at(reply, 0)?;
    (line.first()? == &b'$' && line != b"$-1").then(|| &reply[start..reply.len() - 2])
}

/// The number of an integer reply; `None` if it is none.
pub(crate) fn integer(reply: &[u8]) -> Option<i64> {
    let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
