//! The bytes of the dialect: commands to the target, and what its acknowledgements say.

use std::sync::Arc;

use crate::resp::answer::Answer;
use crate::resp::number::parse_i64;
use crate::resp::reply::{OutBuf, Protocol, Reply};
use crate::units::DbIndex;

/// The command of every message of an asynchronous move.
pub const RESTORE_ASYNC: &[u8] = b"SLOTSRESTORE-ASYNC";
/// What the target answers to each.
pub const ACK: &[u8] = b"SLOTSRESTORE-ASYNC-ACK";

/// Strings from here on are shared with the output, not copied.
const SHARED_BYTES_MIN: usize = 32 * 1024;

/// Writes a command of these words.
pub fn command(out: &mut OutBuf, words: &[&[u8]]) {
    let mut reply = Reply::new(out, Protocol::Resp2);
    reply.array(words.len());
    for word in words {
        reply.bulk(word);
    }
}

/// Writes a command whose last word may be long.
pub fn command_with(out: &mut OutBuf, words: &[&[u8]], last: &Arc<Vec<u8>>) {
    let mut reply = Reply::new(out, Protocol::Resp2);
    reply.array(words.len() + 1);
    for word in words {
        reply.bulk(word);
    }
    bulk(&mut reply, last);
}

/// Writes a bulk that is shared if that is worth it.
pub fn bulk(reply: &mut Reply<'_>, data: &Arc<Vec<u8>>) {
    if data.len() < SHARED_BYTES_MIN { reply.bulk(data) } else { reply.bulk_shared(data) }
}

/// A number as a word.
pub fn number(n: i64) -> Vec<u8> {
    itoa::Buffer::new().format(n).as_bytes().to_vec()
}

/// What a new connection of an asynchronous move begins with; how many answers it makes due.
pub fn hello_async(out: &mut OutBuf, db: DbIndex, password: Option<&str>) -> usize {
    if let Some(password) = password {
        command(out, &[b"SLOTSRESTORE-ASYNC-AUTH", password.as_bytes()]);
    }
    command(out, &[b"SLOTSRESTORE-ASYNC-SELECT", &number(i64::from(db.0))]);
    1 + usize::from(password.is_some())
}

/// Writes an acknowledgement.
pub fn ack(reply: &mut Reply<'_>, errno: i64, text: &[u8]) {
    reply.array(3);
    reply.bulk(ACK);
    reply.bulk_int(errno);
    reply.bulk(text);
}

/// What an acknowledgement says: 0 if the message was carried out, and a text; none if the answer is
/// no acknowledgement.
pub fn ack_of(answer: &Answer) -> Option<(i64, &[u8])> {
    let [name, errno, text] = answer.elements()? else {
        return None;
    };
    let is_ack = name.bytes()?.eq_ignore_ascii_case(ACK);
    is_ack.then_some((parse_i64(errno.bytes()?)?, text.bytes()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::answer::parse_answer;

    fn parsed(bytes: &[u8]) -> Answer {
        parse_answer(bytes).expect("it is a reply").expect("it is whole").0
    }

    #[test]
    fn acknowledgement_is_known_by_its_name_and_number() {
        let mut out = OutBuf::default();
        ack(&mut Reply::new(&mut out, Protocol::Resp2), 0, b"OK");
        let recorded = b"*3\r\n$22\r\nSLOTSRESTORE-ASYNC-ACK\r\n$1\r\n0\r\n$2\r\nOK\r\n";
        assert_eq!(out.bytes(), recorded);
        assert_eq!(ack_of(&parsed(recorded)), Some((0, &b"OK"[..])));
        let others: [&[u8]; 5] = [
            b"-ERR unknown command\r\n",
            b"+OK\r\n",
            b"*2\r\n$22\r\nSLOTSRESTORE-ASYNC-ACK\r\n$1\r\n0\r\n",
            b"*3\r\n$5\r\nOTHER\r\n$1\r\n0\r\n$1\r\n0\r\n",
            b"*3\r\n$22\r\nSLOTSRESTORE-ASYNC-ACK\r\n$1\r\nx\r\n$1\r\n0\r\n",
        ];
        for bytes in others {
            assert_eq!(ack_of(&parsed(bytes)), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn hello_has_a_password_only_if_there_is_one() {
        let mut out = OutBuf::default();
        assert_eq!(hello_async(&mut out, DbIndex(0), None), 1);
        assert_eq!(out.bytes(), b"*2\r\n$25\r\nSLOTSRESTORE-ASYNC-SELECT\r\n$1\r\n0\r\n");
        let mut out = OutBuf::default();
        assert_eq!(hello_async(&mut out, DbIndex(12), Some("pw")), 2);
        let want = b"*2\r\n$23\r\nSLOTSRESTORE-ASYNC-AUTH\r\n$2\r\npw\r\n\
            *2\r\n$25\r\nSLOTSRESTORE-ASYNC-SELECT\r\n$2\r\n12\r\n";
        assert_eq!(out.bytes(), want);
    }
}
