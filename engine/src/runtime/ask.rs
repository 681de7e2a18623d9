//! Questions of a session to all cores about their clients: CLIENT LIST, KILL and UNBLOCK.
//!
//! A core may have thousands of clients: it looks at some of them in each turn and sends what it finds
//! as it goes. The asking core puts the lines in order, and writes the reply while it is sent. Clients
//! that come after the question are not meant; those that leave before they are looked at are not
//! found.

use std::collections::{BTreeMap, VecDeque, btree_map};

use crate::commands::connection;
use crate::commands::session_ctx::SessionAction;
use crate::resp::error::CommandError;
use crate::resp::reply::{OutBuf, Reply, Stream};
use crate::runtime::peers::Letter;
use crate::runtime::ring::Token;
use crate::runtime::turn::{Core, Input};
use crate::shard::batch::Target;
use crate::units::CoreId;

/// Time that answers may take in a turn.
const ANSWER_BUDGET_NS: u64 = 100_000;
/// Places of sessions that are looked at in one step, and lines after which it ends.
const PLACES_PER_STEP: usize = 256;
const LINES_PER_STEP: usize = 32;
/// A longer list is written while it is sent, so much at a time.
const LIST_CHUNK_BYTES: usize = 32 * 1024;

/// A line about a client, and the client's number.
pub type ClientLine = (u64, String);

/// A question to all cores.
#[derive(Debug)]
pub struct Ask {
    token: Token,
    target: Target,
    action: SessionAction,
    /// Cores that have not answered to the end.
    waiting: usize,
    /// In the order of the ids that were asked for, else as the clients connected.
    lines: BTreeMap<(Option<usize>, u64), String>,
    /// Their bytes, each with its line end.
    line_bytes: usize,
    count: usize,
}

/// A question that this core is answering.
#[derive(Debug)]
pub struct Answering {
    /// The asking core's number of it.
    id: u32,
    from: CoreId,
    action: SessionAction,
    /// The place of the session to look at next.
    next: usize,
    /// Clients with this number or a higher one came later.
    client_id_end: u64,
}

/// A part of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Lines about clients.
    pub lines: Vec<ClientLine>,
    /// How many clients it concerned.
    pub count: usize,
    /// No part follows.
    pub is_last: bool,
}

/// The lines of a long list.
#[derive(Debug)]
struct Lines(btree_map::IntoValues<(Option<usize>, u64), String>);

impl Stream for Lines {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let end = reply.out().mark().0 + LIST_CHUNK_BYTES;
        for line in self.0.by_ref() {
            reply.raw(line.as_bytes());
            reply.raw(b"\n");
            if reply.out().mark().0 >= end {
                break;
            }
        }
        self.0.len() > 0
    }
}

impl Ask {
    fn add(&mut self, (id, line): ClientLine) {
        let place = match &self.action {
            SessionAction::ListClients(filter) => {
                filter.ids.as_ref().and_then(|ids| ids.get(&id).copied())
            }
            _ => None,
        };
        self.line_bytes += line.len() + 1;
        self.lines.insert((place, id), line);
    }

    fn reply(self, reply: &mut Reply<'_>) {
        match self.action {
            SessionAction::ListClients(_) if self.line_bytes > LIST_CHUNK_BYTES => {
                reply.verbatim_head(self.line_bytes);
                reply.stream(Lines(self.lines.into_values()));
                reply.raw(b"\r\n");
            }
            SessionAction::ListClients(_) => {
                let text: String = self.lines.into_values().map(|line| line + "\n").collect();
                reply.verbatim(text.as_bytes());
            }
            SessionAction::KillClients { old_form: true, .. } if self.count == 0 => {
                reply.error(&CommandError::NO_SUCH_CLIENT);
            }
            SessionAction::KillClients { old_form: true, .. } => reply.ok(),
            _ => reply.count(self.count),
        }
    }
}

impl Core {
    /// Asks all cores on behalf of a session, which waits.
    pub(super) fn ask(&mut self, token: Token, target: Target, action: SessionAction) {
        let waiting = self.peers.core_count();
        let count = usize::from(self.kills_asker(&action, token));
        let (lines, line_bytes) = (BTreeMap::new(), 0);
        let ask = Ask { token, target, action: action.clone(), waiting, lines, line_bytes, count };
        let id = self.asks.insert(ask) as u32;
        for core in (0..waiting).map(|i| CoreId(i as u16)) {
            if core != self.id {
                self.post(core, Letter::Ask { id, action: action.clone() });
            }
        }
        self.be_asked(id, self.id, action);
        self.step_answers();
    }

    /// Whether a session is among those that it asks to be killed: it still gets its reply.
    fn kills_asker(&mut self, action: &SessionAction, asker: Token) -> bool {
        let SessionAction::KillClients { filter, .. } = action else {
            return false;
        };
        let session = self.session_mut(asker).filter(|session| filter.matches(&session.client));
        session.map(|session| session.client.close_after_reply = true).is_some()
    }

    /// Takes a question on.
    pub(super) fn be_asked(&mut self, id: u32, from: CoreId, action: SessionAction) {
        let client_id_end = self.node.client_id_end();
        self.answering.push_back(Answering { id, from, action, next: 0, client_id_end });
    }

    /// Goes on with the answers to questions, within the turn's budget.
    pub(super) fn step_answers(&mut self) {
        let begun = self.clock.ticks();
        while let Some(mut question) = self.answering.pop_front() {
            let answer = self.answer_some(&mut question);
            let (id, from) = (question.id, question.from);
            if !answer.is_last {
                self.answering.push_back(question);
            }
            if answer.is_last || !answer.lines.is_empty() || answer.count > 0 {
                if from == self.id {
                    self.answered(id, answer);
                } else {
                    self.post(from, Letter::Answer { id, answer });
                }
            }
            if self.clock.ns_between(begun, self.clock.ticks()) > ANSWER_BUDGET_NS {
                break;
            }
        }
    }

    /// What some of this core's clients have to do with a question.
    fn answer_some(&mut self, question: &mut Answering) -> Answer {
        let mut answer = Answer::default();
        if let SessionAction::Unblock { id, error } = question.action {
            answer.count = usize::from(self.unblock_client(id, error));
            answer.is_last = true;
            return answer;
        }
        let end = self.sessions.capacity().min(question.next + PLACES_PER_STEP);
        while question.next < end && answer.lines.len() < LINES_PER_STEP {
            self.answer_one(question, &mut answer);
            question.next += 1;
        }
        answer.is_last = question.next >= self.sessions.capacity();
        answer
    }

    fn answer_one(&mut self, question: &Answering, answer: &mut Answer) {
        let Some(session) = self.sessions.get_mut(question.next) else {
            return;
        };
        let is_shown = session.role.is_client() && !session.closing;
        if !is_shown || session.client.id >= question.client_id_end {
            return;
        }
        match &question.action {
            SessionAction::ListClients(filter) => {
                session.client.out_bytes = session.out.len() + session.sending_bytes;
                session.client.query_bytes = session.tail.len();
                if filter.matches(&session.client) {
                    let line = connection::client_line(&session.client, self.now);
                    answer.lines.push((session.client.id, line));
                }
            }
            SessionAction::KillClients { filter, .. }
                if !session.client.close_after_reply && filter.matches(&session.client) =>
            {
                // From now on it runs nothing; many are not closed in one go.
                session.client.close_after_reply = true;
                let token = Token { index: question.next as u32, generation: session.generation };
                self.inputs.push_back(Input::Lost(token));
                answer.count += 1;
            }
            _ => {}
        }
    }

    /// A core has answered, or a part of it.
    pub(super) fn answered(&mut self, id: u32, answer: Answer) {
        let Some(ask) = self.asks.get_mut(id as usize) else {
            return;
        };
        answer.lines.into_iter().for_each(|line| ask.add(line));
        ask.count += answer.count;
        ask.waiting -= usize::from(answer.is_last);
        if ask.waiting > 0 {
            return;
        }
        let ask = self.asks.remove(id as usize);
        let (token, target) = (ask.token, ask.target);
        let Some(session) = self.session_mut(token) else {
            return;
        };
        let mut out = OutBuf::default();
        ask.reply(&mut Reply::new(&mut out, session.client.protocol));
        self.complete(token, target, out);
    }
}

/// Questions that a core has to answer.
pub type Questions = VecDeque<Answering>;
