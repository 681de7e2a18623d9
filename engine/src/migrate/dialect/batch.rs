//! A batch of keys on their way to one target: what is written next, what the answers mean, and when
//! all of it has arrived.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::migrate::dialect::call::Form;
use crate::migrate::dialect::payload::Dumper;
use crate::migrate::dialect::snapshot::Snapshot;
use crate::migrate::dialect::stream::{KeyStream, Params, Stage, ttl_ms};
use crate::migrate::dialect::wire;
use crate::resp::answer::Answer;
use crate::resp::reply::{OutBuf, Protocol, Reply};
use crate::units::{DbIndex, Ms};

/// What a batch can do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Take the value of [`Batch::next_key`].
    Load,
    /// Work on a value: [`Batch::work`].
    Work,
    /// Write a message.
    Write,
    /// Nothing before an answer comes.
    Await,
    /// Nothing at all: everything was answered.
    Settled,
}

/// What an answer that is due belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Auth,
    Select,
    Restore,
    Delete,
    Message,
}

/// Why an answer ends a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// A synchronous target refused: which part of it.
    Part(&'static str),
    /// An asynchronous target refused, and says why.
    Message(String),
    /// It is no answer that a target gives.
    NoTarget(String),
}

/// A value ready to be sent by a synchronous move; none if the key is gone.
type Dumped = (Box<[u8]>, Option<(Arc<Vec<u8>>, Option<Ms>)>);

/// The batch.
#[derive(Debug)]
pub struct Batch {
    form: Form,
    params: Params,
    todo: VecDeque<Box<[u8]>>,
    /// The key that is being sent, message by message.
    current: Option<KeyStream>,
    /// The key that is being dumped.
    dumping: Option<(Box<[u8]>, Dumper, Option<Ms>)>,
    /// Keys that wait for the one SLOTSRESTORE.
    dumped: Vec<Dumped>,
    /// Keys of which everything was written.
    sent: Vec<Box<[u8]>>,
    due: VecDeque<Due>,
    /// Bytes that the answers that are due stand for.
    due_bytes: VecDeque<usize>,
    unanswered_bytes: usize,
    chunked_count: usize,
    removed_count: usize,
}

impl Batch {
    /// A batch of these keys.
    pub fn new(form: Form, params: Params, keys: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        Self {
            form,
            params,
            todo: keys.into_iter().collect(),
            current: None,
            dumping: None,
            dumped: Vec::new(),
            sent: Vec::new(),
            due: VecDeque::new(),
            due_bytes: VecDeque::new(),
            unanswered_bytes: 0,
            chunked_count: 0,
            removed_count: 0,
        }
    }

    /// Writes what makes a connection ready: a password if it is new, the database if it is another
    /// than before. How many answers follow.
    pub fn hello(
        &mut self,
        out: &mut OutBuf,
        db: DbIndex,
        password: Option<&str>,
        is_new: bool,
    ) -> usize {
        let password = password.filter(|_| is_new);
        let before = self.due.len();
        match self.form {
            Form::Async => {
                let count = wire::hello_async(out, db, password);
                self.due.extend(std::iter::repeat_n(Due::Message, count));
            }
            Form::Sync => {
                if let Some(password) = password {
                    wire::command(out, &[b"AUTH", password.as_bytes()]);
                    self.due.push_back(Due::Auth);
                }
                wire::command(out, &[b"SELECT", &wire::number(i64::from(db.0))]);
                self.due.push_back(Due::Select);
            }
        }
        self.due.len() - before
    }

    /// What it can do now.
    pub fn next(&self) -> Next {
        if self.dumping.is_some() {
            return Next::Work;
        }
        if self.current.is_some() {
            return Next::Write;
        }
        if !self.todo.is_empty() {
            return Next::Load;
        }
        match (self.dumped.is_empty(), self.due.is_empty()) {
            (false, _) => Next::Write,
            (true, false) => Next::Await,
            (true, true) => Next::Settled,
        }
    }

    /// The key whose value is needed.
    pub fn next_key(&self) -> Option<&[u8]> {
        self.todo.front().map(|key| &**key)
    }

    /// Its value and deadline; without a value the target's copy is deleted.
    pub fn load(&mut self, value: Option<(Snapshot, Option<Ms>)>) {
        let Some(key) = self.todo.pop_front() else { return };
        match (self.form, value) {
            (Form::Async, value) => {
                let (value, expires_at) = value.unzip();
                let stream = KeyStream::new(key, value, expires_at.flatten());
                self.chunked_count += usize::from(stream.is_chunked(&self.params));
                self.current = Some(stream);
            }
            (Form::Sync, None) => self.dumped.push((key, None)),
            (Form::Sync, Some((value, expires_at))) => {
                self.dumping = Some((key, Dumper::new(value), expires_at));
            }
        }
    }

    /// Leaves the next key out: there is nothing to send, and nothing to delete.
    pub fn skip(&mut self) {
        self.todo.pop_front();
    }

    /// Sends a key once more: it has changed since.
    pub fn again(&mut self, key: Box<[u8]>) {
        self.todo.push_back(key);
    }

    /// Does some 100 µs of work on the value that is being dumped.
    pub fn work(&mut self) {
        let Some((key, mut dumper, expires_at)) = self.dumping.take() else { return };
        if dumper.step() {
            self.dumped.push((key, Some((Arc::new(dumper.finish()), expires_at))));
        } else {
            self.dumping = Some((key, dumper, expires_at));
        }
    }

    /// Writes a message, behind `backlog_bytes` that wait to be sent; how many answers follow.
    pub fn write(&mut self, out: &mut OutBuf, backlog_bytes: usize, now: Ms) -> usize {
        let before = self.due.len();
        if let Some(stream) = &mut self.current {
            if stream.write_next(out, &self.params, backlog_bytes, now) {
                self.due.push_back(Due::Message);
            }
            // Looked at now, so that the last message is known to be the last.
            if stream.stage() == Stage::Done {
                self.removed_count += 1;
                self.sent.extend(self.current.take().map(KeyStream::into_key));
            }
        } else if !self.dumped.is_empty() {
            self.write_dumped(out, now);
        }
        self.due.len() - before
    }

    /// All that was dumped in one SLOTSRESTORE; what is gone in one DEL before it.
    fn write_dumped(&mut self, out: &mut OutBuf, now: Ms) {
        let dumped = std::mem::take(&mut self.dumped);
        let gone: Vec<&[u8]> =
            dumped.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| &**key).collect();
        if !gone.is_empty() {
            wire::command(out, &[&[&b"DEL"[..]], &gone[..]].concat());
            self.due.push_back(Due::Delete);
        }
        let count = dumped.len() - gone.len();
        if count > 0 {
            let mut reply = Reply::new(out, Protocol::Resp2);
            reply.array(1 + 3 * count);
            reply.bulk(b"SLOTSRESTORE");
            for (key, value) in &dumped {
                if let Some((payload, expires_at)) = value {
                    reply.bulk(key);
                    reply.bulk_int(ttl_ms(*expires_at, now));
                    wire::bulk(&mut reply, payload);
                }
            }
            self.due.push_back(Due::Restore);
        }
        self.sent.extend(dumped.into_iter().map(|(key, _)| key));
    }

    /// Notes that so many bytes went out for which so many answers follow.
    pub fn note_written(&mut self, answers: usize, bytes: usize) {
        self.due_bytes.extend((0..answers).map(|at| if at == 0 { bytes } else { 0 }));
        self.unanswered_bytes += bytes;
    }

    /// Bytes on their way, or with a target that has not answered them.
    pub fn unanswered_bytes(&self) -> usize {
        self.unanswered_bytes
    }

    /// Takes the next answer.
    ///
    /// # Errors
    /// The target refuses; or it is none.
    pub fn answer(&mut self, answer: &Answer) -> Result<(), Refused> {
        let Some(due) = self.due.pop_front() else {
            return Err(Refused::NoTarget("an answer to nothing".to_owned()));
        };
        self.unanswered_bytes -= self.due_bytes.pop_front().unwrap_or(0);
        let (is_good, part) = match due {
            Due::Message => return acked(answer),
            Due::Auth => (matches!(answer, Answer::Simple(_)), "auth failed"),
            Due::Select => (matches!(answer, Answer::Simple(_)), "select failed"),
            Due::Restore | Due::Delete => (answer.error().is_none(), "migration failed"),
        };
        if is_good { Ok(()) } else { Err(Refused::Part(part)) }
    }

    /// Takes the keys that are completely written. After [`Next::Settled`]: they have arrived.
    pub fn take_sent(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.sent)
    }

    /// Keys of which the target may have something, beyond [`take_sent`](Self::take_sent).
    pub fn begun(&self) -> Option<&[u8]> {
        self.current.as_ref().map(KeyStream::key)
    }

    /// Answers that are due.
    pub fn due_count(&self) -> usize {
        self.due.len()
    }

    /// Keys not begun, the one that is being sent included.
    pub fn left_count(&self) -> usize {
        self.todo.len() + usize::from(self.current.is_some())
    }

    /// Keys sent in chunks.
    pub fn chunked_count(&self) -> usize {
        self.chunked_count
    }

    /// Keys that were completely written.
    pub fn removed_count(&self) -> usize {
        self.removed_count
    }

    /// The key that is being sent.
    pub fn head(&self) -> Option<&KeyStream> {
        self.current.as_ref()
    }
}

fn acked(answer: &Answer) -> Result<(), Refused> {
    match wire::ack_of(answer) {
        Some((0, _)) => Ok(()),
        Some((_, text)) => Err(Refused::Message(String::from_utf8_lossy(text).into_owned())),
        // Answering this would begin a quarrel that never ends; it is no target.
        None => Err(Refused::NoTarget(format!("{answer:?}").chars().take(200).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::answer::parse_answer;

    const PARAMS: Params = Params { timeout_ms: 1000, bulks_max: 200, bytes_max: 512 * 1024 };

    fn key(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    fn answer(bytes: &[u8]) -> Answer {
        parse_answer(bytes).expect("it is a reply").expect("it is whole").0
    }

    fn ack(text: &str) -> Answer {
        let mut out = OutBuf::default();
        wire::ack(&mut Reply::new(&mut out, Protocol::Resp2), 0, text.as_bytes());
        answer(out.bytes())
    }

    /// Steps a batch as far as it goes, with these values in the order of its keys.
    fn run(batch: &mut Batch, values: &mut Vec<Option<Snapshot>>, out: &mut OutBuf) -> Next {
        loop {
            match batch.next() {
                Next::Load => {
                    let value = values.remove(0);
                    batch.load(value.map(|value| (value, None)));
                }
                Next::Work => batch.work(),
                Next::Write => drop(batch.write(out, 0, Ms(0))),
                next => return next,
            }
        }
    }

    #[test]
    fn async_batch_writes_what_was_recorded_and_is_settled_by_its_last_answer() {
        let mut batch = Batch::new(Form::Async, PARAMS, [key("k1"), key("n1")]);
        let mut out = OutBuf::default();
        assert_eq!(batch.hello(&mut out, DbIndex(0), None, true), 1);
        let mut values = vec![Some(Snapshot::Text(b"hello".to_vec())), Some(Snapshot::Int(5))];
        assert_eq!(run(&mut batch, &mut values, &mut out), Next::Await);
        let want = b"*2\r\n$25\r\nSLOTSRESTORE-ASYNC-SELECT\r\n$1\r\n0\r\n\
            *3\r\n$18\r\nSLOTSRESTORE-ASYNC\r\n$6\r\ndelete\r\n$2\r\nk1\r\n\
            *5\r\n$18\r\nSLOTSRESTORE-ASYNC\r\n$6\r\nstring\r\n$2\r\nk1\r\n$1\r\n0\r\n$5\r\nhello\r\n\
            *3\r\n$18\r\nSLOTSRESTORE-ASYNC\r\n$6\r\ndelete\r\n$2\r\nn1\r\n\
            *5\r\n$18\r\nSLOTSRESTORE-ASYNC\r\n$6\r\nstring\r\n$2\r\nn1\r\n$1\r\n0\r\n$1\r\n5\r\n";
        assert_eq!(out.bytes(), want);
        for (left, text) in [(4, "OK"), (3, "0"), (2, "1"), (1, "0")] {
            assert_eq!(batch.answer(&ack(text)), Ok(()));
            assert_eq!((batch.due_count(), batch.next()), (left, Next::Await));
        }
        assert_eq!(batch.answer(&ack("1")), Ok(()));
        assert_eq!(batch.next(), Next::Settled);
        assert_eq!(batch.take_sent(), [key("k1"), key("n1")]);
    }

    #[test]
    fn sync_batch_writes_one_command_as_recorded() {
        let mut batch = Batch::new(Form::Sync, PARAMS, [key("w")]);
        let mut out = OutBuf::default();
        assert_eq!(batch.hello(&mut out, DbIndex(0), None, true), 1);
        assert_eq!(run(&mut batch, &mut vec![Some(Snapshot::Int(2))], &mut out), Next::Await);
        let want = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n\
            *4\r\n$12\r\nSLOTSRESTORE\r\n$1\r\nw\r\n$1\r\n0\r\n$13\r\n\
            \x00\xc0\x02\x07\x00\x70\x90\x65\x4f\xf0\x1e\xab\xd1\r\n";
        assert_eq!(out.to_vec(), want);
        assert_eq!(batch.answer(&answer(b"+OK\r\n")), Ok(()));
        assert_eq!(batch.answer(&answer(b"+OK\r\n")), Ok(()));
        assert_eq!(batch.next(), Next::Settled);
        let mut out = OutBuf::default();
        assert_eq!(batch.hello(&mut out, DbIndex(3), Some("pw"), true), 2);
        assert!(out.bytes().starts_with(b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n"));
    }

    #[test]
    fn key_that_changed_is_sent_again_and_one_that_went_is_deleted() {
        for form in [Form::Sync, Form::Async] {
            let mut batch = Batch::new(form, PARAMS, [key("a"), key("b")]);
            let mut out = OutBuf::default();
            let mut values = vec![Some(Snapshot::Int(1)), Some(Snapshot::Int(2))];
            run(&mut batch, &mut values, &mut out);
            while batch.due_count() > 0 {
                let good = if form == Form::Sync { answer(b"+OK\r\n") } else { ack("1") };
                assert_eq!(batch.answer(&good), Ok(()));
            }
            assert_eq!(batch.take_sent(), [key("a"), key("b")]);
            batch.again(key("a"));
            batch.again(key("b"));
            let mut out = OutBuf::default();
            run(&mut batch, &mut vec![Some(Snapshot::Int(3)), None], &mut out);
            let text = String::from_utf8_lossy(&out.to_vec()).into_owned();
            let deleted = if form == Form::Sync { "DEL\r\n$1\r\nb" } else { "delete\r\n$1\r\nb" };
            assert!(text.contains(deleted), "{text}");
            assert!(!text.contains("b\r\n$1\r\n0"), "{text}");
        }
    }

    #[test]
    fn answer_that_refuses_says_what_failed() {
        let refused = |answers: &[&[u8]]| {
            let mut batch = Batch::new(Form::Sync, PARAMS, [key("w")]);
            let mut out = OutBuf::default();
            batch.hello(&mut out, DbIndex(0), Some("pw"), true);
            run(&mut batch, &mut vec![Some(Snapshot::Int(2))], &mut out);
            let mut last = None;
            answers.iter().for_each(|bytes| last = Some(batch.answer(&answer(bytes))));
            last
        };
        let (ok, no) = (&b"+OK\r\n"[..], &b"-ERR no\r\n"[..]);
        assert_eq!(refused(&[no]), Some(Err(Refused::Part("auth failed"))));
        assert_eq!(refused(&[ok, no]), Some(Err(Refused::Part("select failed"))));
        assert_eq!(refused(&[ok, ok, no]), Some(Err(Refused::Part("migration failed"))));
        assert_eq!(refused(&[ok, ok, ok]), Some(Ok(())));
        let mut batch = Batch::new(Form::Async, PARAMS, [key("w")]);
        batch.hello(&mut OutBuf::default(), DbIndex(0), None, true);
        assert!(matches!(batch.answer(&answer(no)), Err(Refused::NoTarget(_))));
        assert!(matches!(batch.answer(&answer(ok)), Err(Refused::NoTarget(_))), "nothing is due");
    }
}
