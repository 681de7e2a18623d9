//! Connections that a core has dialled to other servers.
//!
//! An owner (a move of slots, say) dials, writes calls into the link's output and is handed each
//! reply in the order of its calls. What is written in a turn leaves in one send. A link that owes
//! replies and says nothing until its deadline is closed, and its owner is told why; so is a link
//! whose peer goes away or talks nonsense. Knows no call and no owner but by its number.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use slab::Slab;

use crate::resp::answer::{Answer, parse_answer};
use crate::resp::reply::{OutBuf, Protocol, Reply};
use crate::runtime::ring::{BufferId, Ring, Token};
use crate::sys::socket;
use crate::units::Ms;

/// Set in the index of every token of a link: sessions have none that high.
pub const LINK_BIT: u32 = 1 << 31;
/// Memory that an output buffer keeps while its link lives.
const OUT_KEEP_BYTES: usize = 256 * 1024;
/// Longer output may well fill the socket's buffer.
const PROMPT_SEND_BYTES_MAX: usize = 16 * 1024;

/// Names a link of this core. Of no use once the link is closed: it never names another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkId(Token);

/// Who gets what comes in on a link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LinkOwner {
    /// A move of slots to another Cordis server, by the core's own number of it.
    Move(u64),
    /// A migration by the original's commands, by the core's own number of it.
    Dialect(u64),
}

/// Something that an owner is told of.
#[derive(Debug)]
pub enum LinkEvent {
    /// The connection is there. (Output may be written before: it leaves then.)
    Up,
    /// The next reply.
    Answer(Answer),
    /// The link is gone, and replies that are owed will not come. Not sent for a link that its owner
    /// has closed.
    Down(LinkFault),
}

/// Why a link went down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkFault {
    /// It could not be dialled: an errno.
    Unreachable(i32),
    /// The peer ended it.
    Ended,
    /// Receiving or sending failed: an errno.
    Broken(i32),
    /// The peer owed a reply and has said nothing for too long.
    Silent,
    /// What the peer says is no reply, or more than was asked for.
    Nonsense(&'static str),
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(libc::ECANCELED) => write!(f, "cannot connect: no answer in time"),
            Self::Unreachable(errno) => {
                write!(f, "cannot connect: {}", io::Error::from_raw_os_error(*errno))
            }
            Self::Ended => write!(f, "the peer closed the connection"),
            Self::Broken(errno) => {
                write!(f, "the connection broke: {}", io::Error::from_raw_os_error(*errno))
            }
            Self::Silent => write!(f, "no reply in time"),
            Self::Nonsense(what) => write!(f, "the peer talks nonsense: {what}"),
        }
    }
}

/// How far a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Dialling,
    Up,
    /// Nobody is told of anything any more; it is gone when the kernel has let go of its socket.
    Closing,
}

#[derive(Debug)]
struct Link {
    fd: OwnedFd,
    owner: LinkOwner,
    generation: u32,
    stage: Stage,
    /// Output that is not sent yet.
    out: OutBuf,
    /// Bytes of the send that is under way; 0 if none is.
    sending_bytes: usize,
    /// Its last send did not complete at once.
    slow: bool,
    receiving: bool,
    in_flush: bool,
    /// The beginning of a reply.
    tail: Vec<u8>,
    /// Replies owed.
    awaited: usize,
    /// When it last gave a sign of life, or began to owe.
    heard_at: Ms,
    silence_ms: i64,
}

/// All links of a core.
#[derive(Debug, Default)]
pub struct Links {
    links: Slab<Link>,
    generation: u32,
    events: VecDeque<(LinkOwner, LinkId, LinkEvent)>,
    flush: Vec<Token>,
}

/// Writes a call into a link's output.
pub fn write_call(out: &mut OutBuf, words: &[&[u8]]) {
    let mut reply = Reply::new(out, Protocol::Resp2);
    reply.array(words.len());
    words.iter().for_each(|word| reply.bulk(word));
}

impl Links {
    /// Whether a token is of a link.
    #[inline]
    pub fn owns(token: Token) -> bool {
        token.index & LINK_BIT != 0
    }

    /// Dials. The link is [`LinkEvent::Up`] or [`LinkEvent::Down`] after at most `silence_ms`, which
    /// is also how long it may owe a reply and say nothing.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn dial(
        &mut self,
        ring: &mut Ring,
        owner: LinkOwner,
        to: SocketAddr,
        silence_ms: i64,
        now: Ms,
    ) -> io::Result<LinkId> {
        let fd = socket::dialler(to)?;
        self.generation = (self.generation + 1) & 0x00ff_ffff;
        let raw = fd.as_raw_fd();
        let index = self.links.insert(Link {
            fd,
            owner,
            generation: self.generation,
            stage: Stage::Dialling,
            out: OutBuf::default(),
            sending_bytes: 0,
            slow: false,
            receiving: false,
            in_flush: false,
            tail: Vec::new(),
            awaited: 0,
            heard_at: now,
            silence_ms,
        });
        let token = Token { index: index as u32 | LINK_BIT, generation: self.generation };
        ring.connect(token, raw, to, Duration::from_millis(silence_ms.max(1) as u64));
        Ok(LinkId(token))
    }

    /// Writes to a link that owes `replies` replies for it. `false` if there is no such link any more:
    /// nothing was written.
    pub fn write(
        &mut self,
        id: LinkId,
        replies: usize,
        now: Ms,
        write: impl FnOnce(&mut OutBuf),
    ) -> bool {
        let Some(link) = Self::get_mut(&mut self.links, id.0) else {
            return false;
        };
        if link.stage == Stage::Closing {
            return false;
        }
        write(&mut link.out);
        if link.awaited == 0 {
            link.heard_at = now;
        }
        link.awaited += replies;
        if !link.in_flush && link.stage == Stage::Up {
            link.in_flush = true;
            self.flush.push(id.0);
        }
        true
    }

    /// Changes how long a link may owe a reply and say nothing.
    pub fn set_silence(&mut self, id: LinkId, silence_ms: i64) {
        if let Some(link) = Self::get_mut(&mut self.links, id.0) {
            link.silence_ms = silence_ms;
        }
    }

    /// Writes calls, each of which has one reply; `write` says how many. Returns how many bytes they
    /// have, and how many calls; nothing if there is no such link any more.
    pub fn write_counted(
        &mut self,
        id: LinkId,
        now: Ms,
        write: impl FnOnce(&mut OutBuf) -> u32,
    ) -> (usize, u32) {
        let mut result = (0, 0);
        self.write(id, 0, now, |out| {
            let before = out.len();
            let count = write(out);
            result = (out.len() - before, count);
        });
        if let Some(link) = Self::get_mut(&mut self.links, id.0) {
            if link.awaited == 0 {
                link.heard_at = now;
            }
            link.awaited += result.1 as usize;
        }
        result
    }

    /// Writes one call, which has one reply.
    pub fn call(&mut self, id: LinkId, now: Ms, words: &[&[u8]]) -> bool {
        self.write(id, 1, now, |out| write_call(out, words))
    }

    /// Bytes that the kernel has not taken yet; 0 if there is no such link.
    pub fn backlog_bytes(&self, id: LinkId) -> usize {
        self.get(id.0).map_or(0, |link| link.out.len() + link.sending_bytes)
    }

    /// Replies that a link owes.
    pub fn awaited(&self, id: LinkId) -> usize {
        self.get(id.0).map_or(0, |link| link.awaited)
    }

    /// Whether the connection is there.
    pub fn is_up(&self, id: LinkId) -> bool {
        self.get(id.0).is_some_and(|link| link.stage == Stage::Up)
    }

    /// Closes a link. Its owner hears no more of it: events that wait are dropped.
    pub fn close(&mut self, id: LinkId) {
        self.events.retain(|(_, link, _)| *link != id);
        self.begin_close(id.0);
    }

    /// The next thing that an owner has to be told.
    pub fn next_event(&mut self) -> Option<(LinkOwner, LinkId, LinkEvent)> {
        self.events.pop_front()
    }

    /// Whether owners have to be told of something, or output waits to be sent.
    pub fn has_work(&self) -> bool {
        !self.events.is_empty() || !self.flush.is_empty()
    }

    /// When the next link will have been silent for too long.
    pub fn next_deadline(&self) -> Option<Ms> {
        self.owing().map(|(_, link)| Ms(link.heard_at.0 + link.silence_ms)).min()
    }

    /// Closes the links that have been silent for too long.
    pub fn check_deadlines(&mut self, now: Ms) {
        let is_late = |link: &Link| link.heard_at.0 + link.silence_ms <= now.0;
        let late: Vec<Token> =
            self.owing().filter(|(_, link)| is_late(link)).map(|(token, _)| token).collect();
        late.into_iter().for_each(|token| self.fail(token, LinkFault::Silent));
    }

    fn owing(&self) -> impl Iterator<Item = (Token, &Link)> {
        let token = |index: usize, link: &Link| Token {
            index: index as u32 | LINK_BIT,
            generation: link.generation,
        };
        let links = self.links.iter().filter(|(_, l)| l.stage == Stage::Up && l.awaited > 0);
        links.map(move |(index, link)| (token(index, link), link))
    }

    // ---- what the ring reports ----

    /// A dialled connection is there, or is not.
    pub fn connected(&mut self, ring: &mut Ring, token: Token, errno: i32, now: Ms) {
        let Some(link) = Self::get_mut(&mut self.links, token) else {
            return;
        };
        if link.stage == Stage::Closing {
            self.links.remove(index_of(token));
            return;
        }
        // Where nobody listens, a port of the range that the kernel deals out may be dealt to this very
        // connection: it is then one to itself.
        let is_to_itself =
            errno == 0 && socket::local_name(&link.fd) == socket::peer_name(&link.fd);
        let errno = if is_to_itself { libc::ECONNREFUSED } else { errno };
        if errno != 0 {
            let owner = link.owner;
            self.links.remove(index_of(token));
            let fault = LinkFault::Unreachable(errno);
            return self.events.push_back((owner, LinkId(token), LinkEvent::Down(fault)));
        }
        socket::configure(&link.fd, 60, true);
        link.stage = Stage::Up;
        link.heard_at = now;
        link.receiving = true;
        ring.receive(token, link.fd.as_raw_fd());
        self.events.push_back((link.owner, LinkId(token), LinkEvent::Up));
        if !link.out.is_empty() && !link.in_flush {
            link.in_flush = true;
            self.flush.push(token);
        }
    }

    /// Bytes arrived. The buffer is given back.
    pub fn received(
        &mut self,
        ring: &mut Ring,
        token: Token,
        buffer: BufferId,
        len: usize,
        armed: bool,
        now: Ms,
    ) {
        if let Some(link) = Self::get_mut(&mut self.links, token)
            && link.stage == Stage::Up
        {
            link.heard_at = now;
            let bytes = ring.bytes(&buffer, len);
            if let Err(what) = take_in(link, bytes, LinkId(token), &mut self.events) {
                self.fail(token, LinkFault::Nonsense(what));
            }
        }
        ring.recycle(buffer);
        if !armed {
            self.receive_ended(ring, token, libc::ENOBUFS);
        }
    }

    /// Receiving ended.
    pub fn receive_ended(&mut self, ring: &mut Ring, token: Token, errno: i32) {
        let Some(link) = Self::get_mut(&mut self.links, token) else {
            return;
        };
        link.receiving = false;
        match errno {
            libc::ENOBUFS if link.stage == Stage::Up => {
                link.receiving = true;
                ring.receive(token, link.fd.as_raw_fd());
            }
            _ if link.stage == Stage::Closing => self.remove_if_quiet(token),
            0 => self.fail(token, LinkFault::Ended),
            errno => self.fail(token, LinkFault::Broken(errno)),
        }
    }

    /// A send has completed.
    pub fn sent(&mut self, token: Token, mut buffer: OutBuf, errno: i32, late: bool) {
        let Some(link) = Self::get_mut(&mut self.links, token) else {
            return;
        };
        link.sending_bytes = 0;
        link.slow = late;
        if link.stage == Stage::Closing {
            return self.remove_if_quiet(token);
        }
        if errno != 0 {
            return self.fail(token, LinkFault::Broken(errno));
        }
        buffer.clear(OUT_KEEP_BYTES);
        if link.out.is_empty() {
            link.out = buffer;
        } else if !link.in_flush {
            link.in_flush = true;
            self.flush.push(token);
        }
    }

    /// Sends what was written: at the end of a turn.
    pub fn flush(&mut self, ring: &mut Ring) {
        for token in std::mem::take(&mut self.flush) {
            let Some(link) = Self::get_mut(&mut self.links, token) else {
                continue;
            };
            link.in_flush = false;
            if link.stage == Stage::Up && link.sending_bytes == 0 && !link.out.is_empty() {
                let buffer = link.out.take_sendable();
                link.sending_bytes = buffer.len();
                let prompt = !link.slow && link.sending_bytes <= PROMPT_SEND_BYTES_MAX;
                ring.send(token, link.fd.as_raw_fd(), buffer, prompt);
            }
        }
    }

    // ---- the end of a link ----

    fn fail(&mut self, token: Token, fault: LinkFault) {
        if let Some(link) = self.get(token)
            && link.stage != Stage::Closing
        {
            self.events.push_back((link.owner, LinkId(token), LinkEvent::Down(fault)));
        }
        self.begin_close(token);
    }

    fn begin_close(&mut self, token: Token) {
        let Some(link) = Self::get_mut(&mut self.links, token) else {
            return;
        };
        let was = std::mem::replace(&mut link.stage, Stage::Closing);
        link.out.clear(0);
        // Ends the receive and a send that are under way.
        socket::shutdown(&link.fd);
        if was != Stage::Dialling {
            // While the kernel connects it holds on to the socket: `connected` will end it.
            self.remove_if_quiet(token);
        }
    }

    fn remove_if_quiet(&mut self, token: Token) {
        if let Some(link) = self.get(token)
            && !link.receiving
            && link.sending_bytes == 0
        {
            self.links.remove(index_of(token));
        }
    }

    fn get(&self, token: Token) -> Option<&Link> {
        self.links.get(index_of(token)).filter(|link| link.generation == token.generation)
    }

    fn get_mut(links: &mut Slab<Link>, token: Token) -> Option<&mut Link> {
        links.get_mut(index_of(token)).filter(|link| link.generation == token.generation)
    }
}

fn index_of(token: Token) -> usize {
    (token.index & !LINK_BIT) as usize
}

/// Hands out the replies that are whole and keeps the beginning of the next.
fn take_in(
    link: &mut Link,
    bytes: &[u8],
    id: LinkId,
    events: &mut VecDeque<(LinkOwner, LinkId, LinkEvent)>,
) -> Result<(), &'static str> {
    let mut tail = std::mem::take(&mut link.tail);
    let input = if tail.is_empty() {
        bytes
    } else {
        tail.extend_from_slice(bytes);
        &tail
    };
    let mut at = 0;
    while at < input.len() {
        match parse_answer(&input[at..]) {
            Ok(Some((answer, used))) => {
                at += used;
                link.awaited = link.awaited.checked_sub(1).ok_or("a reply to no call")?;
                events.push_back((link.owner, id, LinkEvent::Answer(answer)));
            }
            Ok(None) => break,
            Err(_) => return Err("no Redis protocol, or a reply that is too long"),
        }
    }
    link.tail = input[at..].to_vec();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::runtime::ring::Event;

    const OWNER: LinkOwner = LinkOwner::Move(7);

    /// A ring with links, and time.
    struct Desk {
        ring: Ring,
        links: Links,
        now: Ms,
    }

    impl Desk {
        fn new() -> Self {
            let ring = Ring::new().expect("io_uring is allowed");
            Self { ring, links: Links::default(), now: Ms(1_000) }
        }

        fn turn(&mut self) {
            self.links.flush(&mut self.ring);
            self.ring.submit(1, Duration::from_millis(5)).expect("the ring works");
            let mut events = Vec::new();
            self.ring.reap(&mut events);
            let (ring, links, now) = (&mut self.ring, &mut self.links, self.now);
            for event in events {
                match event {
                    Event::Connected { token, errno } => links.connected(ring, token, errno, now),
                    Event::Received { token, buffer, len, armed } => {
                        links.received(ring, token, buffer, len, armed, now);
                    }
                    Event::ReceiveEnded { token, errno } => links.receive_ended(ring, token, errno),
                    Event::Sent { token, buffer, errno, late, .. } => {
                        links.sent(token, buffer, errno, late);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }

        fn next(&mut self) -> LinkEvent {
            for _ in 0..2_000 {
                if let Some((owner, _, event)) = self.links.next_event() {
                    assert_eq!(owner, OWNER);
                    return event;
                }
                self.turn();
            }
            panic!("nothing happens")
        }
    }

    #[test]
    fn link_hands_out_replies_in_order_and_says_when_its_peer_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let to = listener.local_addr().expect("it is bound");
        let mut desk = Desk::new();
        let id = desk.links.dial(&mut desk.ring, OWNER, to, 5_000, desk.now).expect("a socket");
        // Written before it is up.
        assert!(desk.links.call(id, desk.now, &[b"PING"]));
        assert!(matches!(desk.next(), LinkEvent::Up));
        let (mut peer, _) = listener.accept().expect("it dialled");
        assert!(desk.links.call(id, desk.now, &[b"GET", b"k"]));
        let want = b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let mut got = vec![0; want.len()];
        desk.turn();
        desk.turn();
        peer.read_exact(&mut got).expect("all of it arrives");
        assert_eq!(got, want);
        peer.write_all(b"+PONG\r\n$2\r\nv").expect("the link reads");
        assert!(matches!(desk.next(), LinkEvent::Answer(Answer::Simple(_))));
        assert_eq!(desk.links.awaited(id), 1);
        peer.write_all(b"w\r\n").expect("the link reads");
        let LinkEvent::Answer(answer) = desk.next() else { panic!("no reply") };
        assert_eq!(answer, Answer::Bulk(b"vw".to_vec()));
        drop(peer);
        assert!(matches!(desk.next(), LinkEvent::Down(LinkFault::Ended)));
        assert!(!desk.links.call(id, desk.now, &[b"PING"]) && desk.links.links.is_empty());
    }

    #[test]
    fn link_that_owes_and_is_silent_goes_down_at_its_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let to = listener.local_addr().expect("it is bound");
        let mut desk = Desk::new();
        let id = desk.links.dial(&mut desk.ring, OWNER, to, 5_000, desk.now).expect("a socket");
        assert!(matches!(desk.next(), LinkEvent::Up));
        assert_eq!(desk.links.next_deadline(), None, "it owes nothing");
        desk.now = Ms(10_000);
        desk.links.call(id, desk.now, &[b"PING"]);
        assert_eq!(desk.links.next_deadline(), Some(Ms(15_000)));
        desk.links.check_deadlines(Ms(14_999));
        assert!(desk.links.is_up(id));
        desk.links.check_deadlines(Ms(15_000));
        assert!(matches!(desk.next(), LinkEvent::Down(LinkFault::Silent)));
    }

    #[test]
    fn link_to_nobody_and_link_that_talks_nonsense_say_so() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let to = listener.local_addr().expect("it is bound");
        let mut desk = Desk::new();
        for text in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"+OK\r\n+OK\r\n"] {
            let id = desk.links.dial(&mut desk.ring, OWNER, to, 5_000, desk.now).expect("a socket");
            desk.links.call(id, desk.now, &[b"PING"]);
            assert!(matches!(desk.next(), LinkEvent::Up));
            let (mut peer, _) = listener.accept().expect("it dialled");
            peer.write_all(text).expect("the link reads");
            let down = loop {
                match desk.next() {
                    LinkEvent::Answer(_) => {}
                    other => break other,
                }
            };
            assert!(matches!(down, LinkEvent::Down(LinkFault::Nonsense(_))), "{down:?}");
        }
        drop(listener);
        desk.links.dial(&mut desk.ring, OWNER, to, 5_000, desk.now).expect("a socket");
        assert!(matches!(desk.next(), LinkEvent::Down(LinkFault::Unreachable(_))));
    }
}
