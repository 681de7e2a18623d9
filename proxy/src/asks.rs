//! Questions that the proxy itself asks backends, and links that belong to one session.

use cordis_engine::resp::reply::Protocol;
use cordis_engine::runtime::ring::Token;
use cordis_engine::units::SlotId;

use crate::hub::Hub;
use crate::link::{Consumer, Dedicated, Flight, LinkError, LinkId, Slots};
use crate::request::Request;
use crate::route::{BackendId, Lane, SlotList};

/// The id of no command: what the proxy asks for itself.
pub(crate) const OWN: u16 = u16::MAX;

/// Where a question goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// To whoever serves a slot, wherever it moves meanwhile.
    Slot(SlotId),
    /// To this backend.
    Backend(BackendId),
}

/// The reply to a question, whole, or why there is none.
pub type Answer<'a> = Result<&'a [u8], &'a LinkError>;
/// Takes the answer. Called once.
pub type Done = Box<dyn FnOnce(&mut Hub, Answer<'_>)>;
/// Takes the answers to several questions, in the order of the questions.
pub type AllDone = Box<dyn FnOnce(&mut Hub, Vec<Result<Vec<u8>, LinkError>>)>;

/// A question under way.
pub(crate) enum Ask {
    /// Alone.
    One(Done),
    /// One of several: the index of what they are gathered in, and which.
    Of(usize, usize),
    /// Several.
    All { left: usize, answers: Vec<Result<Vec<u8>, LinkError>>, done: AllDone },
}

impl Hub {
    /// Asks a backend something. `bytes` is one request.
    pub fn ask(&mut self, to: To, db: u8, protocol: Protocol, bytes: &[u8], done: Done) {
        let ask = self.asks.insert(Ask::One(done));
        self.send_ask(to, db, protocol, bytes, ask);
    }

    /// Asks several things at once.
    pub fn ask_all(
        &mut self,
        questions: &[(To, Vec<u8>)],
        db: u8,
        protocol: Protocol,
        done: AllDone,
    ) {
        if questions.is_empty() {
            return done(self, Vec::new());
        }
        let nothing = LinkError::new("handle response, no answer");
        let answers = vec![Err(nothing); questions.len()];
        let all = self.asks.insert(Ask::All { left: questions.len(), answers, done });
        let asks: Vec<usize> =
            (0..questions.len()).map(|which| self.asks.insert(Ask::Of(all, which))).collect();
        for (ask, (to, bytes)) in asks.into_iter().zip(questions) {
            self.send_ask(*to, db, protocol, bytes, ask);
        }
    }

    fn send_ask(&mut self, to: To, db: u8, protocol: Protocol, bytes: &[u8], ask: usize) {
        self.seq += 1;
        let request = Request {
            bytes: bytes.to_vec(),
            consumer: Consumer::Ask(ask as u32),
            slots: SlotList::new(),
            seq: self.seq,
            at: self.ticks,
            command: OWN,
            replies: 1,
            db,
            protocol,
        };
        match to {
            To::Slot(slot) => {
                let slots = SlotList::from_slice(&[slot.index() as u16]);
                self.send_now(Box::new(Request { slots, ..request }));
            }
            To::Backend(backend) => {
                self.send_on_lane(Box::new(request), Lane { backend, index: 0 });
            }
        }
    }

    /// A question has been answered.
    pub(crate) fn ask_done(&mut self, ask: u32, answer: Answer<'_>) {
        match self.asks.remove(ask as usize) {
            Ask::One(done) => done(self, answer),
            Ask::Of(all, which) => {
                let Some(Ask::All { left, answers, .. }) = self.asks.get_mut(all) else {
                    return;
                };
                answers[which] = answer.map(<[u8]>::to_vec).map_err(Clone::clone);
                *left -= 1;
                if *left == 0
                    && let Ask::All { answers, done, .. } = self.asks.remove(all)
                {
                    done(self, answers);
                }
            }
            Ask::All { .. } => {}
        }
    }

    // ---- dedicated links ----

    /// Opens a link that belongs to one session. It ends with the session.
    ///
    /// # Errors
    /// No more descriptors, or the backend has no address, or the session is about to end.
    pub fn dedicate(
        &mut self,
        owner: Token,
        backend: BackendId,
        protocol: Protocol,
        dedicated: Dedicated,
    ) -> Result<LinkId, LinkError> {
        if self.session(owner).is_none_or(|session| session.closing) {
            return Err(LinkError::new("handle request, its client has left"));
        }
        let index = self.dial(Lane { backend, index: 0 }, protocol)?;
        let link = &mut self.links[index as usize];
        link.owner = Some((owner, dedicated));
        link.is_dedicated = true;
        let id = LinkId { index, generation: link.generation };
        if let Some(session) = self.session(owner) {
            session.links.push(id);
        }
        Ok(id)
    }

    /// Sends requests on a dedicated link. `done` gets the last of their `replies`; with none of them
    /// it is never called: all that comes is unsolicited. Refusals are not looked at. A reply that
    /// takes longer than any may is an error, and the end of the link.
    pub fn send_on(&mut self, id: LinkId, db: u8, bytes: &[u8], replies: u16, done: Done) {
        self.put_on_dedicated(id, db, bytes, (replies, false), done);
    }

    /// Sends a request on a dedicated link whose reply may take as long as it likes.
    pub(crate) fn send_blocking_on(&mut self, id: LinkId, db: u8, bytes: &[u8], done: Done) {
        self.put_on_dedicated(id, db, bytes, (1, true), done);
    }

    fn put_on_dedicated(
        &mut self,
        id: LinkId,
        db: u8,
        bytes: &[u8],
        (replies, is_patient): (u16, bool),
        done: Done,
    ) {
        if self.link_of(id).is_none() {
            return done(self, Err(&LinkError::new("handle response, backend conn reset")));
        }
        let ask = self.asks.insert(Ask::One(done)) as u32;
        let (seq, at, now) = (self.seq, self.ticks, self.now);
        let Some(link) = self.link_of(id) else {
            return;
        };
        link.heard_at = now;
        link.push(
            bytes,
            Flight {
                consumer: Consumer::Ask(ask),
                start: 0,
                seq,
                at,
                len: 0,
                slots: Slots::None,
                command: OWN,
                replies,
                replies_left: replies,
                is_refused: false,
                is_patient,
                db,
            },
        );
        self.flush_link_later(id.index);
    }

    /// Sends bytes on a dedicated link whose replies all are unsolicited.
    pub fn send_raw_on(&mut self, id: LinkId, bytes: &[u8]) {
        if let Some(link) = self.link_of(id) {
            link.push_unasked(bytes);
            self.flush_link_later(id.index);
        }
    }

    /// Closes a dedicated link. Nobody is told; questions under way on it are answered with an error.
    pub fn close_link(&mut self, id: LinkId) {
        if let Some(link) = self.link_of(id) {
            let owner = link.owner.take();
            self.forget_link(owner, id);
            self.lose_link(id.index, &LinkError::new("handle response, backend conn reset"));
        }
    }

    /// Closes all links that belong to a session.
    pub(crate) fn close_links_of(&mut self, token: Token) {
        let ids = self.session(token).map(|session| std::mem::take(&mut session.links));
        ids.into_iter().flatten().for_each(|id| self.close_link(id));
    }

    /// A link belongs to its session no more.
    pub(crate) fn forget_link(&mut self, owner: Option<(Token, Dedicated)>, id: LinkId) {
        if let Some(session) = owner.and_then(|(owner, _)| self.session(owner)) {
            session.links.retain(|link| *link != id);
        }
    }
}
