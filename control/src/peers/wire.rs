//! Questions as calls, and replies as answers. A question may take several calls; which one comes
//! next depends on the replies so far. Pure: knows no socket.

use cordis_engine::resp::value::Value;

use crate::machine::request::{
    Answer, Hello, MoveReport, Probed, ProxyModel, Request, Sample, SlotReport, SlotState,
};
use crate::ranges::SlotSet;

/// Databases that a server may have at most.
const DATABASES_MAX: u8 = 16;

/// A question under way.
#[derive(Debug)]
pub struct Talk<'r> {
    request: &'r Request,
    /// What the replies so far have told, for questions of several calls.
    sample: Sample,
    hello: Option<Hello>,
    run_id: String,
    keys: SlotSet,
    has_slots: bool,
    dbs: Vec<(u8, u64)>,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    First,
    Info,
    Select(usize),
    SlotsInfo(usize),
    Carry,
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Send these words, and come back with the reply.
    Call(Vec<Vec<u8>>),
    /// That was it.
    Done(Answer),
}

fn words(words: &[&str]) -> Next {
    Next::Call(words.iter().map(|word| word.as_bytes().to_vec()).collect())
}

fn lost(what: &str) -> Next {
    Next::Done(Answer::Lost(format!("a reply to {what} that makes no sense")))
}

impl<'r> Talk<'r> {
    /// A question, and its first call.
    pub fn new(request: &'r Request) -> (Self, Next) {
        let talk = Self {
            request,
            sample: Sample::default(),
            hello: None,
            run_id: String::new(),
            keys: SlotSet::new(),
            has_slots: true,
            dbs: Vec::new(),
            step: Step::First,
        };
        let first = first_call(request);
        (talk, first)
    }

    /// Takes a reply in.
    pub fn reply(&mut self, reply: &Value) -> Next {
        match self.request {
            Request::Probe => self.probe(reply),
            Request::Sample => self.sample(reply),
            Request::Carry { .. } => self.carry(reply),
            Request::NextDb { after } => match info_of(reply) {
                Some(info) => {
                    let mut dbs = dbs_of(&info).into_iter().map(|(db, _)| db);
                    Next::Done(Answer::Db(dbs.find(|db| db > after)))
                }
                None => Next::Done(refusal(reply, "INFO")),
            },
            Request::Ping if matches!(reply, Value::Error(_)) => {
                // It is there, whatever it thinks of us.
                Next::Done(refusal(reply, "PING"))
            }
            Request::Ping => Next::Done(Answer::Ok),
            _ => Next::Done(single(self.request, reply)),
        }
    }

    fn probe(&mut self, reply: &Value) -> Next {
        match self.step {
            Step::First => {
                self.hello = hello_of(reply);
                if self.hello.is_none() && !matches!(reply, Value::Error(_)) {
                    return lost("CORDIS HELLO");
                }
                self.step = Step::Info;
                words(&["INFO"])
            }
            Step::Info => match info_of(reply) {
                None => Next::Done(refusal(reply, "INFO")),
                Some(info) => {
                    let run_id = info.iter().find(|(name, _)| name == "run_id");
                    self.run_id = run_id.map(|(_, id)| id.clone()).unwrap_or_default();
                    self.dbs = dbs_of(&info);
                    if self.dbs.is_empty() {
                        // Asked once all the same: whether it has slots shows what it is.
                        self.dbs.push((0, 0));
                    }
                    self.select(0)
                }
            },
            Step::Select(at) => self.selected(at, reply),
            Step::SlotsInfo(at) => {
                match slots_info(reply) {
                    Some(slots) => slots.into_iter().for_each(|(slot, _)| self.keys.insert(slot)),
                    None if matches!(reply, Value::Error(_)) => self.has_slots = false,
                    None => return lost("SLOTSINFO"),
                }
                self.select(at + 1)
            }
            Step::Carry => lost("CORDIS HELLO"),
        }
    }

    fn select(&mut self, at: usize) -> Next {
        match self.dbs.get(at) {
            Some((db, _)) if self.has_slots => {
                self.step = Step::Select(at);
                words(&["SELECT", &db.to_string()])
            }
            _ => Next::Done(self.all_selected()),
        }
    }

    fn selected(&mut self, at: usize, reply: &Value) -> Next {
        if matches!(reply, Value::Error(_)) {
            return Next::Done(refusal(reply, "SELECT"));
        }
        self.step = Step::SlotsInfo(at);
        words(&["SLOTSINFO"])
    }

    fn all_selected(&mut self) -> Answer {
        if matches!(self.request, Request::Sample) {
            return Answer::Sample(Box::new(std::mem::take(&mut self.sample)));
        }
        let run_id = std::mem::take(&mut self.run_id);
        Answer::Probed(Box::new(match self.hello.take() {
            Some(hello) => Probed::Cordis(hello, self.keys),
            None if self.has_slots => Probed::Codis(run_id, self.keys),
            None => Probed::Redis(run_id, self.dbs.iter().map(|(_, keys)| keys).sum()),
        }))
    }

    fn sample(&mut self, reply: &Value) -> Next {
        match self.step {
            Step::First | Step::Info | Step::Carry => match info_of(reply) {
                None => Next::Done(refusal(reply, "INFO")),
                Some(info) => {
                    self.dbs = dbs_of(&info);
                    self.sample.fields = info;
                    self.select(0)
                }
            },
            Step::Select(at) => self.selected(at, reply),
            Step::SlotsInfo(at) => {
                match slots_info(reply) {
                    Some(slots) => self.sample.keys.extend(slots),
                    // A Redis: it has keys, and no slots.
                    None => self.has_slots = false,
                }
                self.select(at + 1)
            }
        }
    }

    fn carry(&mut self, reply: &Value) -> Next {
        if let Value::Error(_) = reply {
            return Next::Done(refusal(reply, "SLOTSMGRTTAGSLOT"));
        }
        match self.step {
            Step::Carry => {
                let pair = reply.as_array().map(|pair| (pair.first(), pair.get(1)));
                let Some((Some(moved), Some(left))) = pair else {
                    return lost("SLOTSMGRTTAGSLOT");
                };
                let number = |value: &Value| value.as_int().and_then(|n| u64::try_from(n).ok());
                match (number(moved), number(left)) {
                    (Some(moved), Some(left)) => Next::Done(Answer::Carried { moved, left }),
                    _ => lost("SLOTSMGRTTAGSLOT"),
                }
            }
            _ => {
                self.step = Step::Carry;
                carry_call(self.request)
            }
        }
    }
}

fn carry_call(request: &Request) -> Next {
    let Request::Carry { slot, target, is_sync, timeout_ms, maxbulks, maxbytes, numkeys, .. } =
        request
    else {
        return lost("SELECT");
    };
    let Some((host, port)) = target.rsplit_once(':') else {
        return Next::Done(Answer::Refused(format!("no address: {target}")));
    };
    let (timeout, slot) = (timeout_ms.to_string(), slot.to_string());
    if *is_sync {
        return words(&["SLOTSMGRTTAGSLOT", host, port, &timeout, &slot]);
    }
    let (maxbulks, maxbytes) = (maxbulks.to_string(), maxbytes.to_string());
    let keys = numkeys.to_string();
    words(&["SLOTSMGRTTAGSLOT-ASYNC", host, port, &timeout, &maxbulks, &maxbytes, &slot, &keys])
}

fn first_call(request: &Request) -> Next {
    match request {
        Request::Probe | Request::Hello => words(&["CORDIS", "HELLO"]),
        Request::Join { product, group, addr } => {
            words(&["CORDIS", "JOIN", product, &group.to_string(), addr])
        }
        Request::Leave { product } => words(&["CORDIS", "LEAVE", product]),
        // Which of the two a peer understands is known to whoever connects: see `link.rs`.
        Request::MapSet(map) => words(&["MAP", "SET", &map.to_json()]),
        Request::Slots => words(&["CORDIS", "SLOTS"]),
        Request::Expect { id, epoch, source, slots } => words(&[
            "CORDIS",
            "EXPECT",
            &id.to_string(),
            &epoch.to_string(),
            source,
            &slots.to_string(),
        ]),
        Request::Move { id, epoch, target, slots, rate, parallel } => words(&[
            "CORDIS",
            "MOVE",
            &id.to_string(),
            &epoch.to_string(),
            target,
            &slots.to_string(),
            "RATE",
            &rate.to_string(),
            "PARALLEL",
            &parallel.to_string(),
        ]),
        Request::Moves => words(&["CORDIS", "MOVES"]),
        Request::Cancel { id } => words(&["CORDIS", "CANCEL", &id.to_string()]),
        Request::Ping => words(&["PING"]),
        Request::Sample | Request::NextDb { .. } => words(&["INFO"]),
        Request::Carry { db, .. } => words(&["SELECT", &db.to_string()]),
        Request::ProxyModel => words(&["MODEL"]),
        Request::Lease(None) => words(&["LEASE"]),
        Request::Lease(Some(lease)) => {
            words(&["LEASE", &lease.ms.to_string(), &lease.since.to_string()])
        }
        Request::ProxyStats => words(&["STATS"]),
    }
}

/// An error reply, or one that makes no sense.
fn refusal(reply: &Value, what: &str) -> Answer {
    match reply {
        Value::Error(why) => Answer::Refused(why.clone()),
        _ => Answer::Lost(format!("a reply to {what} that makes no sense")),
    }
}

/// The answer to a question of one call.
fn single(request: &Request, reply: &Value) -> Answer {
    if let (Request::MapSet(_), Value::Error(why)) = (request, reply)
        && let Some(epoch) = why.strip_prefix("STALE ").and_then(|text| text.rsplit(' ').next())
        && let Ok(epoch) = epoch.parse()
    {
        return Answer::Stale(epoch);
    }
    if let Value::Error(why) = reply {
        return Answer::Refused(why.clone());
    }
    let number = || reply.as_int().and_then(|n| u64::try_from(n).ok());
    let answer = match request {
        Request::Hello => hello_of(reply).map(Answer::Hello),
        Request::MapSet(_) => number().map(Answer::Epoch),
        Request::Lease(_) => number().map(Answer::Clock),
        Request::Slots => slots_of(reply).map(Answer::Slots),
        Request::Moves => moves_of(reply).map(Answer::Moves),
        Request::ProxyModel => model_of(reply).map(Answer::ProxyModel),
        Request::ProxyStats => fields_of(reply)
            .map(|fields| Answer::Sample(Box::new(Sample { fields, keys: Vec::new() }))),
        _ => (reply.as_text() == Some("OK")).then_some(Answer::Ok),
    };
    answer.unwrap_or_else(|| Answer::Lost(format!("a reply that makes no sense: {}", brief(reply))))
}

/// The beginning of what a reply looks like, for a log line.
fn brief(reply: &Value) -> String {
    format!("{reply:?}").chars().take(120).collect()
}

fn text(value: &Value, name: &str) -> Option<String> {
    Some(value.field(name)?.as_text()?.to_owned())
}

fn number(value: &Value, name: &str) -> Option<u64> {
    value.field(name)?.as_int().and_then(|n| u64::try_from(n).ok())
}

fn hello_of(reply: &Value) -> Option<Hello> {
    Some(Hello {
        version: text(reply, "version")?,
        run_id: text(reply, "run_id")?,
        cores: number(reply, "cores")?,
        product: text(reply, "product")?,
        group: u16::try_from(number(reply, "group")?).ok()?,
        epoch: number(reply, "epoch")?,
    })
}

fn slots_of(reply: &Value) -> Option<Vec<SlotReport>> {
    let range = |range: &Value| {
        let [from, to, state, epoch, core, peer] = range.as_array()? else { return None };
        let slot = |value: &Value| value.as_int().and_then(|n| u16::try_from(n).ok());
        let (from, to) = (slot(from)?, slot(to)?);
        (from <= to && to < 1024).then_some(())?;
        Some(SlotReport {
            from,
            to,
            state: SlotState::named(state.as_text()?)?,
            epoch: u64::try_from(epoch.as_int()?).ok()?,
            // A slot that is not here lies on no core.
            core: u64::try_from(core.as_int()?).unwrap_or(0),
            peer: peer.as_text().unwrap_or_default().to_owned(),
        })
    };
    reply.as_array()?.iter().map(range).collect()
}

fn moves_of(reply: &Value) -> Option<Vec<MoveReport>> {
    let one = |report: &Value| {
        Some(MoveReport {
            id: number(report, "id")?,
            is_source: text(report, "role")? == "source",
            peer: text(report, "peer")?,
            slots: number(report, "slots")?,
            done: number(report, "done")?,
            failed: number(report, "failed")?,
            keys: number(report, "keys")?,
            bytes: number(report, "bytes")?,
            done_slots: SlotSet::parse(&text(report, "done_slots")?).ok()?,
            error: text(report, "error").unwrap_or_default(),
            pause_max_us: number(report, "pause_max_us")?,
        })
    };
    reply.as_array()?.iter().map(one).collect()
}

fn model_of(reply: &Value) -> Option<ProxyModel> {
    Some(ProxyModel {
        token: text(reply, "token")?,
        proxy_addr: text(reply, "proxy_addr")?,
        product: text(reply, "product").unwrap_or_default(),
        version: text(reply, "version").unwrap_or_default(),
    })
}

/// The numbers and texts of a map, those of maps within it with a dot in their names.
fn fields_of(reply: &Value) -> Option<Vec<(String, String)>> {
    fn add(prefix: &str, value: &Value, fields: &mut Vec<(String, String)>) -> Option<()> {
        match value {
            Value::Map(pairs) => {
                for (name, value) in pairs {
                    let name = name.as_text()?;
                    let dot = if prefix.is_empty() { "" } else { "." };
                    add(&format!("{prefix}{dot}{name}"), value, fields)?;
                }
            }
            Value::Double(x) => fields.push((prefix.to_owned(), x.to_string())),
            Value::Array(_) | Value::Set(_) | Value::Push(_) | Value::Null => {}
            other => {
                let text = other.as_text().map(str::to_owned);
                let text = text.or_else(|| other.as_int().map(|n| n.to_string()))?;
                fields.push((prefix.to_owned(), text));
            }
        }
        Some(())
    }
    let mut fields = Vec::new();
    match reply {
        Value::Map(_) => add("", reply, &mut fields)?,
        // INFO-like text, or the flat array of a map.
        Value::Bulk(_) | Value::Verbatim(..) => return info_of(reply),
        other => {
            for pair in other.as_array()?.chunks_exact(2) {
                add(pair[0].as_text()?, &pair[1], &mut fields)?;
            }
        }
    }
    Some(fields)
}

fn info_of(reply: &Value) -> Option<Vec<(String, String)>> {
    let (Value::Bulk(_) | Value::Verbatim(..)) = reply else { return None };
    let lines = reply.as_text()?.lines().filter(|line| !line.starts_with('#'));
    Some(
        lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect(),
    )
}

/// The databases with keys, ascending, and how many.
fn dbs_of(info: &[(String, String)]) -> Vec<(u8, u64)> {
    let db = |(name, value): &(String, String)| {
        let db: u8 = name.strip_prefix("db")?.parse().ok().filter(|db| *db < DATABASES_MAX)?;
        let keys = value.split(',').find_map(|part| part.strip_prefix("keys="))?;
        Some((db, keys.parse().ok()?))
    };
    let mut dbs: Vec<(u8, u64)> = info.iter().filter_map(db).collect();
    dbs.sort_unstable();
    dbs
}

fn slots_info(reply: &Value) -> Option<Vec<(u16, u64)>> {
    let one = |pair: &Value| {
        let [slot, keys] = pair.as_array()? else { return None };
        Some((u16::try_from(slot.as_int()?).ok()?, u64::try_from(keys.as_int()?).ok()?))
    };
    reply.as_array()?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(request: &Request, replies: &[Value]) -> (Vec<String>, Answer) {
        let (mut talk, mut next) = Talk::new(request);
        let mut calls = Vec::new();
        let mut replies = replies.iter();
        loop {
            match next {
                Next::Done(answer) => return (calls, answer),
                Next::Call(words) => {
                    calls.push(String::from_utf8(words.join(&b' ')).unwrap());
                    next = talk.reply(replies.next().expect("a reply for each call"));
                }
            }
        }
    }

    fn error(text: &str) -> Value {
        Value::Error(text.to_owned())
    }

    #[test]
    fn probe_tells_a_codis_server_from_a_redis() {
        let info = Value::text("# Server\r\nrun_id:abc\r\n# Keyspace\r\ndb0:keys=3,expires=0\r\n");
        let unknown = error("ERR unknown command 'CORDIS'");
        let ok = Value::simple("OK");
        let slots = Value::Array(vec![Value::Array(vec![Value::Int(7), Value::Int(3)])]);
        let (calls, answer) =
            said(&Request::Probe, &[unknown.clone(), info.clone(), ok.clone(), slots]);
        assert_eq!(calls, ["CORDIS HELLO", "INFO", "SELECT 0", "SLOTSINFO"]);
        let keys = SlotSet::parse("7").unwrap();
        assert_eq!(answer, Answer::Probed(Box::new(Probed::Codis("abc".into(), keys))));
        let (_, answer) = said(&Request::Probe, &[unknown.clone(), info, ok, unknown]);
        assert_eq!(answer, Answer::Probed(Box::new(Probed::Redis("abc".into(), 3))));
        let (_, answer) = said(&Request::Probe, &[error("NOAUTH"), error("NOAUTH no")]);
        assert_eq!(answer, Answer::Refused("NOAUTH no".into()));
    }

    #[test]
    fn map_refused_as_old_names_the_epoch() {
        let request = Request::MapSet(crate::model::Model::new("p").map());
        let (_, answer) = said(&request, &[error("STALE map epoch is 17")]);
        assert_eq!(answer, Answer::Stale(17));
        let (_, answer) = said(&request, &[error("ERR not a cluster map")]);
        assert_eq!(answer, Answer::Refused("ERR not a cluster map".into()));
        let (_, answer) = said(&request, &[Value::Int(17)]);
        assert_eq!(answer, Answer::Epoch(17));
    }

    #[test]
    fn carry_selects_and_counts() {
        let request = Request::Carry {
            db: 3,
            slot: 9,
            target: "10.0.0.1:6379".into(),
            is_sync: false,
            timeout_ms: 5000,
            maxbulks: 200,
            maxbytes: 1000,
            numkeys: 500,
        };
        let pair = Value::Array(vec![Value::Int(3), Value::Int(12)]);
        let (calls, answer) = said(&request, &[Value::simple("OK"), pair]);
        assert_eq!(calls, ["SELECT 3", "SLOTSMGRTTAGSLOT-ASYNC 10.0.0.1 6379 5000 200 1000 9 500"]);
        assert_eq!(answer, Answer::Carried { moved: 3, left: 12 });
        let (_, answer) = said(&request, &[Value::simple("OK"), error("ERR interrupted")]);
        assert_eq!(answer, Answer::Refused("ERR interrupted".into()));
    }

    #[test]
    fn reports_of_slots_and_moves_are_read_or_refused_whole() {
        let range = |state: &str| {
            Value::Array(vec![
                Value::Int(0),
                Value::Int(511),
                Value::text(state),
                Value::Int(4),
                Value::Int(0),
                Value::text(""),
            ])
        };
        let (_, answer) = said(&Request::Slots, &[Value::Array(vec![range("in-doubt")])]);
        let Answer::Slots(ranges) = answer else { panic!("{answer:?}") };
        assert_eq!((ranges[0].state, ranges[0].epoch), (SlotState::InDoubt, 4));
        let (_, answer) = said(&Request::Slots, &[Value::Array(vec![range("strange")])]);
        assert!(matches!(answer, Answer::Lost(_)));
        let pairs: Vec<Value> = [
            ("id", "5"),
            ("role", "source"),
            ("peer", "a:1"),
            ("epoch", "9"),
            ("slots", "2"),
            ("done", "1"),
            ("streaming", "1"),
            ("frozen", "0"),
            ("failed", "0"),
            ("keys", "10"),
            ("bytes", "99"),
            ("done_slots", "7"),
            ("error", ""),
            ("pause_max_us", "300"),
        ]
        .iter()
        .flat_map(|(name, value)| [Value::text(*name), Value::text(*value)])
        .collect();
        let (_, answer) = said(&Request::Moves, &[Value::Array(vec![Value::Array(pairs)])]);
        let Answer::Moves(moves) = answer else { panic!("{answer:?}") };
        assert_eq!(moves[0].done_slots.to_string(), "7");
        assert!(moves[0].is_source && moves[0].pause_max_us == 300);
    }

    #[test]
    fn info_and_databases_are_read() {
        let info = Value::text("# Keyspace\r\ndb0:keys=2,expires=0\r\ndb5:keys=1,expires=1\r\n");
        let (_, answer) = said(&Request::NextDb { after: 0 }, std::slice::from_ref(&info));
        assert_eq!(answer, Answer::Db(Some(5)));
        let (_, answer) = said(&Request::NextDb { after: 5 }, &[info]);
        assert_eq!(answer, Answer::Db(None));
    }
}
