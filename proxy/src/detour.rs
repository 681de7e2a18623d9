//! Requests on slots that are being moved by the original's commands: a key may still be with the
//! source, or be with the target already. Both ways of the original are spoken:
//!
//! - *sync*: SLOTSMGRTTAGONE at the source first (it moves the key if it is there), then the request
//!   at the target;
//! - *semi-async*: the request goes to the source within SLOTSMGRT-EXEC-WRAPPER, which answers `:0`
//!   (the key is not here: ask the target), `:1` (it is on its way: try again) or `:2` and the reply.
//!
//! The routes let one request at a time through on such a slot, so order holds across the detour. A
//! request on several keys is always done the first way: the wrapper looks at one key only.

use cordis_engine::commands::keys::find_keys;
use cordis_engine::resp::number::parse_i64;
use cordis_engine::resp::scan::{Scanned, Scanner};
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::Ms;

use crate::asks::Answer;
use crate::encode;
use crate::hub::Hub;
use crate::link::{Consumer, LinkError};
use crate::request::Request;
use crate::route::{Lane, SlotList, Via};
use crate::split::words_of;

/// How long the source may take to move a key, as the original asks for.
const MOVE_TIMEOUT_MS: &[u8] = b"3000";
/// Tries before the first pause, and the longest pause, in milliseconds.
const TRIES_AT_ONCE: u32 = 5;
const PAUSE_MS_MAX: i64 = 20;

/// A request on its way over the source.
#[derive(Debug)]
pub(crate) struct Detour {
    request: Box<Request>,
    lane: Lane,
    via: Via,
    /// Keys on slots that are being moved; the last is asked for next.
    keys: Vec<Vec<u8>>,
    is_wrapped: bool,
    tries: u32,
}

impl Hub {
    /// Begins the detour of a request that the routes have let go.
    pub(crate) fn begin_detour(&mut self, request: Box<Request>, lane: Lane, via: Via) {
        let keys = self.moving_keys(&request);
        if keys.is_empty() {
            return self.send_on_lane(request, lane);
        }
        let is_wrapped = via.method == 1 && keys.len() == 1 && request.replies == 1;
        let detour = Detour { request, lane, via, keys, is_wrapped, tries: 0 };
        let index = self.detours.insert(detour) as u32;
        self.ask_source(index);
    }

    /// The keys of a request whose slots are being moved, or of all requests of a block.
    fn moving_keys(&self, request: &Request) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut rest = &request.bytes[..];
        while !rest.is_empty() {
            let (mut ranges, mut found) = (Vec::new(), Vec::new());
            let Some(args) = words_of(rest, &mut ranges) else {
                break;
            };
            if let Some(command) = self.table.get(args.at(0)) {
                let sub = args.get(1).and_then(|word| command.subcommand(word));
                find_keys(sub.unwrap_or(command).spec, &args, &mut found);
            }
            for key in &found {
                let key = args.at(key.index);
                if self.routes.via(slot_of(key)).is_some() && !keys.iter().any(|k| k == key) {
                    keys.push(key.to_vec());
                }
            }
            let Ok(Scanned::Done(end)) = Scanner::default().scan(rest, 0) else {
                break;
            };
            rest = &rest[end..];
        }
        keys
    }

    /// Asks the source for the next key.
    fn ask_source(&mut self, index: u32) {
        let detour = &self.detours[index as usize];
        let Some(key) = detour.keys.last() else {
            return self.end_detour(index, None);
        };
        let mut bytes = Vec::new();
        if detour.is_wrapped {
            let mut ranges = Vec::new();
            let Some(args) = words_of(&detour.request.bytes, &mut ranges) else {
                return self.end_detour(index, None);
            };
            encode::array(&mut bytes, 2 + args.len());
            encode::bulk(&mut bytes, b"SLOTSMGRT-EXEC-WRAPPER");
            encode::bulk(&mut bytes, key);
            args.iter_from(0).for_each(|word| encode::bulk(&mut bytes, word));
        } else {
            let target = self.backends.get(detour.lane.backend).addr.as_bytes();
            let colon = target.iter().rposition(|&b| b == b':').unwrap_or(target.len());
            let (host, port) = (&target[..colon], target.get(colon + 1..).unwrap_or_default());
            let host = host.strip_prefix(b"[").and_then(|h| h.strip_suffix(b"]")).unwrap_or(host);
            let words = [b"SLOTSMGRTTAGONE", host, port, MOVE_TIMEOUT_MS, key];
            encode::request(&mut bytes, &words);
        }
        let question = Request {
            bytes,
            consumer: Consumer::Detour(index),
            slots: SlotList::new(),
            seq: detour.request.seq,
            at: self.ticks,
            command: detour.request.command,
            replies: 1,
            db: detour.request.db,
            protocol: detour.request.protocol,
        };
        let lane = Lane { backend: detour.via.source, index: 0 };
        self.send_on_lane(Box::new(question), lane);
    }

    /// The source has answered.
    pub(crate) fn detour_step(&mut self, index: u32, answer: Answer<'_>) {
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(error) => return self.end_detour(index, Some(Err(error.clone()))),
        };
        if self.detours[index as usize].is_wrapped {
            return self.wrapped_answer(index, bytes);
        }
        if bytes.first() == Some(&b':') {
            self.detours[index as usize].keys.pop();
            return self.ask_source(index);
        }
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_start_matches('-').trim_end();
        let why = LinkError::new(format!("handle request, bad slotsmgrt resp: {text}"));
        self.end_detour(index, Some(Err(why)));
    }

    fn wrapped_answer(&mut self, index: u32, bytes: &[u8]) {
        let bad = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]);
            let text = text.trim_start_matches('-').trim_end().replace("\r\n", " ");
            LinkError::new(format!("handle request, bad slotsmgrt-exec-wrapper resp: {text}"))
        };
        match wrapped(bytes) {
            Some((0, _)) => self.end_detour(index, None),
            Some((1, _)) => self.try_later(index),
            Some((2, reply)) => self.end_detour(index, Some(Ok(reply.to_vec()))),
            _ => self.end_detour(index, Some(Err(bad(bytes)))),
        }
    }

    /// The key is on its way.
    fn try_later(&mut self, index: u32) {
        let deadline = self.deadline_of(self.detours[index as usize].request.at);
        let detour = &mut self.detours[index as usize];
        detour.tries += 1;
        if self.now >= deadline {
            let why = "handle request, the key is being migrated for too long";
            return self.end_detour(index, Some(Err(LinkError::new(why))));
        }
        let pause = match detour.tries {
            tries if tries <= TRIES_AT_ONCE => 1,
            tries => i64::from(tries).min(PAUSE_MS_MAX),
        };
        self.pauses.push((Ms(self.now.0 + pause), index));
    }

    /// Goes on with the detours whose pause is over.
    pub(crate) fn end_pauses(&mut self) {
        let now = self.now;
        let due: Vec<u32> =
            self.pauses.iter().filter(|&&(at, _)| at <= now).map(|&(_, index)| index).collect();
        self.pauses.retain(|&(at, _)| at > now);
        due.into_iter().for_each(|index| self.ask_source(index));
    }

    /// The detour is over: with the reply or an error, or the request goes to the target.
    fn end_detour(&mut self, index: u32, end: Option<Result<Vec<u8>, LinkError>>) {
        let Detour { request, lane, .. } = self.detours.remove(index as usize);
        let Some(result) = end else {
            return self.send_on_lane(request, lane);
        };
        let call = Some((request.command, request.at));
        match result {
            Ok(reply) => {
                self.routes.answered_many(&request.slots, self.now);
                self.finish(request.consumer, call, Ok(&reply));
            }
            Err(error) => {
                self.routes.lost(&request.slots, self.now);
                self.finish(request.consumer, call, Err(&error));
            }
        }
        self.run_actions();
    }
}

/// What the wrapper says, and the rest of it.
fn wrapped(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let rest = bytes.strip_prefix(b"*2\r\n:")?;
    let line_end = memchr::memchr(b'\r', rest)?;
    let code = parse_i64(&rest[..line_end])?;
    Some((code, rest.get(line_end + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_reply_is_taken_apart() {
        assert_eq!(wrapped(b"*2\r\n:2\r\n$1\r\nx\r\n"), Some((2, &b"$1\r\nx\r\n"[..])));
        assert_eq!(wrapped(b"*2\r\n:-1\r\n-ERR x\r\n").map(|(code, _)| code), Some(-1));
        assert_eq!(wrapped(b"-NOAUTH x\r\n"), None);
    }
}
