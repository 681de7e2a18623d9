//! The line that MONITOR shows for a call.

use std::io::Write as _;
use std::sync::Arc;

use crate::commands::args::{Args, is_token};
use crate::commands::spec::Flags;
use crate::commands::table::Command;
use crate::net::client::ClientState;
use crate::node::Node;
use crate::pubsub::message::Message;
use crate::pubsub::outbox::Item;

/// What shows a call to those who monitor, if it is shown.
#[cold]
pub fn item(
    node: &Node,
    client: &ClientState,
    command: &Command,
    args: &Args<'_>,
    now_us: i64,
) -> Option<Item> {
    let line = line(node, client, command, args, now_us)?;
    let to = node.pubsub.monitor_receivers();
    Some(Item::Publish(Arc::new(Message::line(line, &to)), to.cores))
}

/// The line for a call with its line end, if the call is shown: what administrators do is not, and
/// passwords are not.
pub fn line(
    node: &Node,
    client: &ClientState,
    command: &Command,
    args: &Args<'_>,
    now_us: i64,
) -> Option<Vec<u8>> {
    if command.spec.flags.intersects(Flags::ADMIN.union(Flags::SKIP_MONITOR)) {
        return None;
    }
    let mut line = Vec::with_capacity(128);
    let (seconds, micros) = (now_us / 1_000_000, now_us % 1_000_000);
    // Writing to memory cannot fail.
    let _ = write!(line, "+{seconds}.{micros:06} [{} ", client.db.0);
    let _ = match client.is_unix {
        true => write!(line, "unix:{}]", node.config.unixsocket()),
        false => write!(line, "{}]", client.addr),
    };
    let secrets = secrets(command.spec.name, args);
    for (index, word) in args.iter_from(0).enumerate() {
        line.push(b' ');
        let is_secret = secrets.contains(&index);
        push_quoted(&mut line, if is_secret { b"(redacted)" } else { word });
    }
    line.extend_from_slice(b"\r\n");
    Some(line)
}

/// Which words of a call are nobody else's business.
fn secrets(name: &str, args: &Args<'_>) -> std::ops::Range<usize> {
    match name {
        "auth" => 1..args.len(),
        "hello" => {
            let auth = args.iter_from(2).position(|word| is_token(word, "auth"));
            auth.map_or(0..0, |at| at + 3..at + 5)
        }
        _ => 0..0,
    }
}

/// Appends a word in quotes, with what is not printable escaped.
fn push_quoted(line: &mut Vec<u8>, word: &[u8]) {
    line.push(b'"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => line.extend_from_slice(&[b'\\', byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            0x07 => line.extend_from_slice(b"\\a"),
            0x08 => line.extend_from_slice(b"\\b"),
            b' '..=b'~' => line.push(byte),
            _ => {
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
    line.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;
    use crate::commands::dispatch;

    fn shown(words: &[&[u8]]) -> Option<String> {
        let bare = Bare::new(1, 1);
        let mut client = bare.client();
        client.addr = "1.2.3.4:5".into();
        let call = OwnedArgs::of(words);
        let command = dispatch::resolve(&call.args()).expect("the call is good");
        let line = line(bare.node, &client, command, &call.args(), 1_700_000_000_000_042)?;
        Some(String::from_utf8(line).expect("a line is ASCII"))
    }

    #[test]
    fn line_shows_time_client_and_quoted_words() {
        let line = shown(&[b"set", b"k", b"a\"\\\n\x01\xff ~"]);
        let want =
            "+1700000000.000042 [0 1.2.3.4:5] \"set\" \"k\" \"a\\\"\\\\\\n\\x01\\xff ~\"\r\n";
        assert_eq!(line.as_deref(), Some(want));
    }

    #[test]
    fn passwords_are_redacted_and_administration_is_not_shown() {
        let words = |words| shown(words).map(|line| line.split("] ").nth(1).map(str::to_owned));
        let auth = words(&[b"AUTH", b"u", b"p"]);
        let want = "\"AUTH\" \"(redacted)\" \"(redacted)\"\r\n".to_owned();
        assert_eq!(auth, Some(Some(want)));
        let hello = words(&[b"HELLO", b"3", b"AUTH", b"u", b"p", b"SETNAME", b"n"]);
        let want = "\"HELLO\" \"3\" \"AUTH\" \"(redacted)\" \"(redacted)\" \"SETNAME\" \"n\"\r\n";
        assert_eq!(hello, Some(Some(want.to_owned())));
        assert_eq!(shown(&[b"CONFIG", b"SET", b"a", b"b"]), None);
    }
}
