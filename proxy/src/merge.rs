//! Several partial replies as one. Pure: bytes in, bytes out.

use cordis_engine::commands::spec::Merge;
use cordis_engine::resp::number::parse_i64;
use cordis_engine::resp::scan::{Scanned, Scanner};

use crate::link::LinkError;
use crate::request::{error_reply, link_error_reply};

/// A partial reply, or why there is none, and which of the keys it answers for.
#[derive(Debug)]
pub(crate) struct Partial {
    /// Positions of its keys among those of the call.
    pub(crate) positions: Vec<u32>,
    /// Its keys, for writes: to be named if they were not applied.
    pub(crate) keys: Vec<Vec<u8>>,
    /// What the backend said.
    pub(crate) reply: Option<Result<Vec<u8>, LinkError>>,
}

/// Keys that an error names before it only counts the rest.
const NAMED_KEYS_MAX: usize = 16;
/// Longest beginning of a key that an error shows.
const NAMED_KEY_BYTES_MAX: usize = 64;

/// The reply to a call that was split. `name` is the command's, in upper case.
pub(crate) fn merge(rule: Merge, name: &str, key_count: usize, parts: &[Partial]) -> Vec<u8> {
    let merged = match rule {
        Merge::Sum => sum(parts),
        Merge::AllOk => {
            parts.iter().all(|part| part.reply_is(b"+OK\r\n")).then(|| b"+OK\r\n".to_vec())
        }
        _ => in_key_order(key_count, parts),
    };
    merged.unwrap_or_else(|| failure(name, parts))
}

impl Partial {
    fn bytes(&self) -> Option<&[u8]> {
        self.reply.as_ref()?.as_ref().ok().map(Vec::as_slice)
    }

    fn reply_is(&self, expected: &[u8]) -> bool {
        self.bytes() == Some(expected)
    }

    /// Why it failed; none if it is a reply and no error.
    fn error(&self) -> Option<Vec<u8>> {
        match &self.reply {
            Some(Ok(bytes)) if bytes.first() == Some(&b'-') => Some(bytes.clone()),
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(link_error_reply(error)),
            None => Some(error_reply("ERR handle response, no answer")),
        }
    }
}

fn sum(parts: &[Partial]) -> Option<Vec<u8>> {
    let mut total = 0i64;
    for part in parts {
        let digits = part.bytes()?.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
        total = total.checked_add(parse_i64(digits)?)?;
    }
    Some(format!(":{total}\r\n").into_bytes())
}

/// Elements of arrays back in the order of the keys.
fn in_key_order(key_count: usize, parts: &[Partial]) -> Option<Vec<u8>> {
    let mut elements: Vec<&[u8]> = vec![&[]; key_count];
    let mut len = 16;
    for part in parts {
        let bytes = part.bytes()?;
        len += bytes.len();
        let line_end = memchr::memchr(b'\n', bytes)? + 1;
        let header = bytes[..line_end].strip_prefix(b"*")?.strip_suffix(b"\r\n")?;
        if parse_i64(header)? != part.positions.len() as i64 {
            return None;
        }
        let mut at = line_end;
        let mut scanner = Scanner::default();
        for &position in &part.positions {
            let Ok(Scanned::Done(end)) = scanner.scan(bytes, at) else {
                return None;
            };
            *elements.get_mut(position as usize)? = &bytes[at..end];
            at = end;
        }
    }
    let mut merged = Vec::with_capacity(len);
    crate::encode::array(&mut merged, key_count);
    elements.iter().for_each(|element| merged.extend_from_slice(element));
    Some(merged)
}

/// The error of a call of which at least one part has none of the expected replies.
fn failure(name: &str, parts: &[Partial]) -> Vec<u8> {
    let mut errors = parts.iter().filter_map(Partial::error);
    let Some(first) = errors.next() else {
        return error_reply(&format!("ERR handle response, bad {name} resp"));
    };
    let failed = || parts.iter().filter(|part| part.error().is_some());
    let has_applied = failed().count() < parts.len();
    let keys: Vec<&Vec<u8>> = failed().flat_map(|part| &part.keys).collect();
    if !has_applied || keys.is_empty() {
        return first;
    }
    // A write was applied in part: the client has to know to which keys it was not.
    let text = String::from_utf8_lossy(&first);
    let text = text.trim_start_matches('-').trim_end();
    let mut message = format!("{text} ({name} was not applied to");
    for key in keys.iter().take(NAMED_KEYS_MAX) {
        let shown = &key[..key.len().min(NAMED_KEY_BYTES_MAX)];
        message.push_str(&format!(" '{}'", shown.escape_ascii()));
    }
    if keys.len() > NAMED_KEYS_MAX {
        message.push_str(&format!(" and {} more", keys.len() - NAMED_KEYS_MAX));
    }
    message.push(')');
    error_reply(&message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(positions: &[u32], reply: Result<&[u8], &str>) -> Partial {
        let keys = positions.iter().map(|p| format!("k{p}").into_bytes()).collect();
        let reply = Some(reply.map(<[u8]>::to_vec).map_err(LinkError::new));
        Partial { positions: positions.to_vec(), keys, reply }
    }

    fn merged(rule: Merge, count: usize, parts: &[Partial]) -> String {
        String::from_utf8_lossy(&merge(rule, "MSET", count, parts)).into_owned()
    }

    #[test]
    fn elements_return_to_the_order_of_the_keys() {
        let parts = [
            part(&[0, 3], Ok(b"*2\r\n$1\r\na\r\n$-1\r\n")),
            part(&[1, 2], Ok(b"*2\r\n$1\r\nb\r\n$2\r\ncc\r\n")),
        ];
        let expected = "*4\r\n$1\r\na\r\n$1\r\nb\r\n$2\r\ncc\r\n$-1\r\n";
        assert_eq!(merged(Merge::InKeyOrder, 4, &parts), expected);
    }

    #[test]
    fn sums_and_oks_are_merged() {
        let sums = [part(&[0], Ok(b":2\r\n")), part(&[1], Ok(b":1\r\n"))];
        assert_eq!(merged(Merge::Sum, 2, &sums), ":3\r\n");
        let oks = [part(&[0], Ok(b"+OK\r\n")), part(&[1], Ok(b"+OK\r\n"))];
        assert_eq!(merged(Merge::AllOk, 2, &oks), "+OK\r\n");
    }

    #[test]
    fn write_applied_in_part_names_the_keys_that_were_left_out() {
        let parts = [
            part(&[0], Ok(b"+OK\r\n")),
            part(&[1, 2], Err("handle response, backend conn reset")),
            part(&[3], Ok(b"-OOM full\r\n")),
        ];
        assert_eq!(
            merged(Merge::AllOk, 4, &parts),
            "-ERR handle response, backend conn reset (MSET was not applied to 'k1' 'k2' 'k3')\r\n"
        );
        // Nothing was applied: the error is the server's.
        let parts = [part(&[0], Ok(b"-OOM full\r\n")), part(&[1], Ok(b"-OOM full\r\n"))];
        assert_eq!(merged(Merge::AllOk, 2, &parts), "-OOM full\r\n");
    }

    #[test]
    fn reply_of_another_shape_is_an_error_not_a_guess() {
        let parts = [part(&[0], Ok(b"*2\r\n:1\r\n:2\r\n")), part(&[1], Ok(b"*1\r\n:1\r\n"))];
        assert_eq!(merged(Merge::InKeyOrder, 2, &parts), "-ERR handle response, bad MSET resp\r\n");
        let parts = [part(&[0], Ok(b"+OK\r\n")), part(&[1], Ok(b":1\r\n"))];
        assert_eq!(merged(Merge::Sum, 2, &parts), "-ERR handle response, bad MSET resp\r\n");
    }
}
