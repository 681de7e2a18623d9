//! A message on its way to its subscribers: encoded once, shared by all of them on all cores.

use std::ops::Range;
use std::sync::Arc;

use crate::pubsub::Kind;
use crate::pubsub::registry::Receivers;
use crate::resp::reply::{OutBuf, Protocol};

/// Longer messages are shared by the outputs that they wait in: below, a copy is cheaper than a
/// piece of its own.
const SHARED_BYTES_MIN: usize = 4 * 1024;

/// What is delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// To subscribers of a channel, and of the patterns that match it.
    Channel,
    /// To subscribers of a shard channel.
    Shard,
    /// A line for MONITOR.
    Line,
}

/// A message.
///
/// RESP2 and RESP3 differ in the first byte of it only, so one encoding serves both: `body` is all
/// that follows.
#[derive(Debug)]
pub struct Message {
    class: Class,
    body: Arc<Vec<u8>>,
    /// Where in `body` the channel is, as a bulk string and without its frame. The message follows.
    bulks_at: usize,
    channel: Range<usize>,
    /// Who is meant: see `Receivers`.
    channel_until: u64,
    patterns_until: u64,
    /// The client that published it and has had its own copy; no client has the id 0.
    publisher: u64,
}

fn push_bulk(body: &mut Vec<u8>, bytes: &[u8]) {
    body.push(b'$');
    body.extend_from_slice(itoa::Buffer::new().format(bytes.len()).as_bytes());
    body.extend_from_slice(b"\r\n");
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n");
}

impl Message {
    /// A message for subscribers of a channel or shard channel.
    pub fn new(kind: Kind, channel: &[u8], message: &[u8], publisher: u64, to: &Receivers) -> Self {
        let (class, head): (_, &[u8]) = match kind {
            Kind::Shard => (Class::Shard, b"3\r\n$8\r\nsmessage\r\n"),
            Kind::Channel | Kind::Pattern => (Class::Channel, b"3\r\n$7\r\nmessage\r\n"),
        };
        let mut body = Vec::with_capacity(head.len() + channel.len() + message.len() + 50);
        body.extend_from_slice(head);
        push_bulk(&mut body, channel);
        let end = body.len() - 2;
        push_bulk(&mut body, message);
        let (bulks_at, channel) = (head.len(), end - channel.len()..end);
        let (channel_until, patterns_until) = (to.channel_until, to.patterns_until);
        let body = Arc::new(body);
        Self { class, body, bulks_at, channel, channel_until, patterns_until, publisher }
    }

    /// A line for MONITOR, with its line end.
    pub fn line(line: Vec<u8>, to: &Receivers) -> Self {
        Self {
            class: Class::Line,
            body: Arc::new(line),
            bulks_at: 0,
            channel: 0..0,
            channel_until: to.channel_until,
            patterns_until: 0,
            publisher: 0,
        }
    }

    /// What is delivered.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The client that has had it already; 0 if there is none.
    pub const fn publisher(&self) -> u64 {
        self.publisher
    }

    /// It is for those who subscribed before this time: to a pattern, or to the channel itself.
    pub const fn until(&self, by_pattern: bool) -> u64 {
        if by_pattern { self.patterns_until } else { self.channel_until }
    }

    /// The channel.
    pub fn channel(&self) -> &[u8] {
        &self.body[self.channel.clone()]
    }

    /// Bytes that it takes while it waits.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.body.capacity()
    }

    /// The encoding for subscribers of the channel itself.
    pub const fn body(&self) -> &Arc<Vec<u8>> {
        &self.body
    }

    /// The encoding for subscribers of a pattern: once for all of them.
    pub fn body_for_pattern(&self, pattern: &[u8]) -> Arc<Vec<u8>> {
        let bulks = &self.body[self.bulks_at..];
        let mut body = Vec::with_capacity(40 + pattern.len() + bulks.len());
        body.extend_from_slice(b"4\r\n$8\r\npmessage\r\n");
        push_bulk(&mut body, pattern);
        body.extend_from_slice(bulks);
        Arc::new(body)
    }

    /// Writes an encoding of this message to a client's output.
    #[inline]
    pub fn write(&self, body: &Arc<Vec<u8>>, out: &mut OutBuf, protocol: Protocol) {
        match (self.class, protocol) {
            // A simple string in both.
            (Class::Line, _) => {}
            (_, Protocol::Resp2) => out.extend(b"*"),
            (_, Protocol::Resp3) => out.extend(b">"),
        }
        if body.len() < SHARED_BYTES_MIN {
            out.extend(body);
        } else {
            out.extend_shared(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(message: &Message, body: &Arc<Vec<u8>>, protocol: Protocol) -> Vec<u8> {
        let mut out = OutBuf::default();
        message.write(body, &mut out, protocol);
        out.to_vec()
    }

    #[test]
    fn message_is_a_push_in_resp3_and_an_array_in_resp2() {
        let message = Message::new(Kind::Channel, b"ch", b"hi", 1, &Receivers::default());
        let want = b"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n";
        assert_eq!(written(&message, message.body(), Protocol::Resp2), want);
        let resp3 = written(&message, message.body(), Protocol::Resp3);
        assert_eq!((resp3[0], &resp3[1..]), (b'>', &want[1..]));
        assert_eq!(message.channel(), b"ch");
    }

    #[test]
    fn message_for_a_pattern_names_it() {
        let message = Message::new(Kind::Channel, b"ch", b"", 1, &Receivers::default());
        let body = message.body_for_pattern(b"c*");
        let want = b"*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\nch\r\n$0\r\n\r\n";
        assert_eq!(written(&message, &body, Protocol::Resp2), want);
    }

    #[test]
    fn long_message_is_shared_by_all_outputs() {
        let message = Message::new(Kind::Shard, b"ch", &[b'x'; 10_000], 1, &Receivers::default());
        let mut out = OutBuf::default();
        for _ in 0..100 {
            message.write(message.body(), &mut out, Protocol::Resp2);
        }
        assert!(out.bytes().len() < 1000 && out.len() > 1_000_000);
        assert!(out.to_vec().starts_with(b"*3\r\n$8\r\nsmessage\r\n$2\r\nch\r\n$10000\r\nxx"));
    }
}
