//! What one core has recorded and nobody has written yet: frames, and what has to be put into frames
//! bit by bit because it is long. Knows no file.
//!
//! The core records whatever it runs, on its own shard or on one that it has borrowed. So what one
//! unit does to several shards stands in one place, and is there as a whole or not at all; and what
//! belongs together by time or by key stands in the tapes of several cores. Logical time puts it in
//! order, ties ([`frame`]) say what follows from what: a tie is noted when a
//! shard, or mail, comes from another core, and begins a new frame, so that no two frames can follow
//! from each other. Frames in the order of the time of their first record are in an order that
//! respects all ties.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::commands::args::OwnedArgs;
use crate::journal::frame::{self, FRAME_BYTES_AIM, Kind, TIES_MAX, Tie};
use crate::journal::state::{Progress, State};
use crate::units::{CoreId, DbIndex, SlotId};

/// Words that are longer are not copied when they are recorded, if they have memory of their own.
pub const LONG_WORD_BYTES_MIN: usize = 256 * 1024;
/// Bytes of a long word that go into a frame.
const PIECE_BYTES: usize = 256 * 1024;
/// Buffers that are kept for later, and their size.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// What waits to be written.
#[derive(Debug)]
enum Segment {
    /// Frames that have ended.
    Frames(Vec<u8>),
    /// The next bytes of a record: so many of this word are in frames already.
    Word(Arc<Vec<u8>>, usize, u64),
    /// What a key holds, and how much of that is in frames already.
    State(Box<KeyState>),
    /// All that follows belongs into the next set of files.
    Set(u32),
}

#[derive(Debug)]
struct KeyState {
    state: Box<State>,
    progress: Progress,
    slot: SlotId,
    db: DbIndex,
    clock: u64,
}

/// A piece of a tape.
#[derive(Debug)]
pub enum Piece {
    /// Frames that have ended, which have no place yet.
    Frames(Vec<u8>),
    /// From here on it belongs into this set of files.
    Set(u32),
}

/// A core's records that nobody has written.
#[derive(Debug, Default)]
pub struct Tape {
    /// The core.
    pub core: CoreId,
    /// The set of files that it records for; 0 is none.
    set: u32,
    /// Logical time of the last record.
    logged: u64,
    /// Frames, of which the last is under way if `open` says where it begins.
    bytes: Vec<u8>,
    open: Option<usize>,
    /// Older than `bytes`.
    queue: VecDeque<Segment>,
    queue_bytes: usize,
    /// A unit goes on since the last frame that ended.
    goes_on: bool,
    in_unit: bool,
    /// The unit that is under way has recorded something.
    has_begun: bool,
    /// By core: up to which time its records are what this tape follows from.
    seen: Vec<u64>,
    /// Ties of the next frame.
    ties: Vec<Tie>,
    /// Ties by the time of the record before them, for whoever waits until others are on disk.
    waits: Vec<(u64, Tie)>,
    spare: Vec<Vec<u8>>,
}

impl Tape {
    /// The tape of a core: it records nothing before [`switch`](Self::switch).
    pub fn of(core: CoreId) -> Self {
        Self { core, ..Self::default() }
    }

    /// Logical time of the last record; 0 before the first.
    #[inline]
    pub fn logged(&self) -> u64 {
        self.logged
    }

    /// The same if something has been recorded since it was `before`; else 0.
    #[inline]
    pub fn logged_since(&self, before: u64) -> u64 {
        if self.logged == before { 0 } else { self.logged }
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.queue.is_empty()
    }

    /// Bytes that wait, roughly: a state counts for nothing.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.len() + self.queue_bytes
    }

    /// The set that it records for; 0 is none.
    pub fn set(&self) -> u32 {
        self.set
    }

    /// From now on it records for another set of files, or for none.
    #[cold]
    pub fn switch(&mut self, set: u32) {
        if self.set == set {
            return;
        }
        invariant!(!self.has_begun, "a unit is cut in two");
        self.close(false);
        self.push_bytes();
        let goes_on = self.set != 0;
        self.set = set;
        self.queue.push_back(Segment::Set(set));
        if set != 0 {
            // The files of a core are one stream: what is in the next one follows from this one. Each
            // begins with a frame that says where the one before has ended.
            // It is older than what others are waited for: that is for the next one to say.
            let ties = std::mem::take(&mut self.ties);
            if goes_on && self.logged > 0 {
                self.ties.push(Tie { core: self.core, clock: self.logged });
            }
            self.open_frame(self.logged);
            self.ties = ties;
            frame::put_head(&mut self.bytes, Kind::Nothing, None, DbIndex(0), 0);
            self.close(false);
        }
    }

    /// Notes that what is recorded from now on follows from what another core has recorded up to a
    /// time.
    #[inline]
    pub fn follow(&mut self, core: CoreId, clock: u64) {
        let is_known = self.seen.get(core.index()).is_some_and(|&seen| seen >= clock);
        if core != self.core && clock > 0 && !is_known {
            self.tie(Tie { core, clock });
        }
    }

    #[cold]
    fn tie(&mut self, tie: Tie) {
        if self.seen.len() <= tie.core.index() {
            self.seen.resize(tie.core.index() + 1, 0);
        }
        self.seen[tie.core.index()] = tie.clock;
        if self.set == 0 {
            return;
        }
        // Whoever knows of several shards says so before their unit begins: this is between units.
        self.close(self.has_begun);
        self.waits.push((self.logged, tie));
        match self.ties.iter_mut().find(|old| old.core == tie.core) {
            Some(old) => *old = tie,
            None => self.ties.push(tie),
        }
        invariant!(self.ties.len() <= TIES_MAX, "more ties than cores");
    }

    /// Up to which time another core's records are what this tape follows from.
    pub fn seen(&self, core: CoreId) -> u64 {
        self.seen.get(core.index()).copied().unwrap_or(0)
    }

    /// Appends what the records behind a time follow from, since the last call.
    pub fn take_waits(&mut self, into: &mut VecDeque<(u64, Tie)>) {
        into.extend(self.waits.drain(..));
    }

    /// Records that follow belong together, until [`end_unit`](Self::end_unit).
    #[inline]
    pub fn begin_unit(&mut self) {
        self.in_unit = true;
        self.has_begun = false;
    }

    /// Ends that.
    #[inline]
    pub fn end_unit(&mut self) {
        self.in_unit = false;
        self.has_begun = false;
        if self.goes_on && self.open.is_none() {
            // Its last frame says that there is more: an empty one says that there is not.
            self.open_frame(self.logged);
            self.close(false);
        }
    }

    /// Adds a record: a call.
    #[inline]
    pub fn record<'w>(
        &mut self,
        clock: u64,
        slot: Option<SlotId>,
        db: DbIndex,
        words: impl Iterator<Item = &'w [u8]> + Clone,
    ) {
        let (mut count, mut byte_count) = (0, 0);
        for word in words.clone() {
            count += 1;
            byte_count += word.len() + 5;
        }
        self.head(clock, Kind::Call, slot, db, count, byte_count);
        for word in words {
            frame::put_word(&mut self.bytes, word);
        }
    }

    /// The same; words that are long and have memory of their own are shared, not copied.
    pub fn record_call(&mut self, clock: u64, slot: Option<SlotId>, db: DbIndex, call: &OwnedArgs) {
        let args = call.args();
        self.head(clock, Kind::Call, slot, db, args.len(), call.bytes().len() + 5 * args.len());
        for index in 0..args.len() {
            match args.shared(index).filter(|word| word.len() >= LONG_WORD_BYTES_MIN) {
                None => frame::put_word(&mut self.bytes, args.at(index)),
                Some(word) => {
                    frame::put_varint(&mut self.bytes, word.len() as u64);
                    self.close(true);
                    self.push_bytes();
                    self.queue_bytes += word.len();
                    self.queue.push_back(Segment::Word(Arc::clone(word), 0, clock));
                    self.open_frame(clock);
                }
            }
        }
    }

    /// Adds what a key holds from now on: calls that are made when they are written.
    pub fn record_state(&mut self, clock: u64, slot: SlotId, db: DbIndex, state: Box<State>) {
        let is_alone = !self.in_unit;
        if is_alone {
            self.begin_unit();
        }
        self.record(clock, Some(slot), db, [&b"DEL"[..], &state.key].into_iter());
        self.close(true);
        self.push_bytes();
        let progress = state.begin();
        let kept = KeyState { state, progress, slot, db, clock };
        self.queue.push_back(Segment::State(Box::new(kept)));
        if is_alone {
            self.end_unit();
        }
    }

    /// Adds a record: all of a slot is gone.
    pub fn record_cleared(&mut self, clock: u64, slot: SlotId) {
        self.head(clock, Kind::Cleared, Some(slot), DbIndex(0), 0, 0);
    }

    /// Adds a record that says nothing.
    pub fn record_nothing(&mut self, clock: u64) {
        self.head(clock, Kind::Nothing, None, DbIndex(0), 0, 0);
    }

    #[inline]
    fn head(
        &mut self,
        clock: u64,
        kind: Kind,
        slot: Option<SlotId>,
        db: DbIndex,
        word_count: usize,
        byte_count: usize,
    ) {
        match self.open {
            Some(at) if self.bytes.len() - at > FRAME_BYTES_AIM => {
                self.close(self.has_begun);
                self.open_frame(clock);
            }
            Some(_) => {}
            None => self.open_frame(clock),
        }
        self.logged = clock;
        self.has_begun = self.in_unit;
        self.bytes.reserve(byte_count + 16);
        frame::put_head(&mut self.bytes, kind, slot, db, word_count);
    }

    fn open_frame(&mut self, first: u64) {
        if self.bytes.capacity() == 0 {
            self.bytes = self.spare.pop().unwrap_or_default();
        }
        self.open = Some(self.bytes.len());
        frame::begin(&mut self.bytes, first, &self.ties);
        self.ties.clear();
    }

    /// Ends the frame that is under way.
    fn close(&mut self, goes_on: bool) {
        if let Some(at) = self.open.take() {
            frame::end(&mut self.bytes, at, self.logged, goes_on);
            self.goes_on = goes_on;
        }
    }

    fn push_bytes(&mut self) {
        invariant!(self.open.is_none(), "a frame is under way");
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            self.queue_bytes += bytes.len();
            self.queue.push_back(Segment::Frames(bytes));
        }
    }

    /// Takes the next piece to be written, of about `bytes_max` bytes if it has to be made first.
    /// No unit is under way.
    pub fn take(&mut self, bytes_max: usize) -> Option<Piece> {
        invariant!(!self.in_unit, "a unit is cut in two");
        self.close(false);
        let Some(segment) = self.queue.pop_front() else {
            if self.bytes.is_empty() {
                return None;
            }
            return Some(Piece::Frames(std::mem::take(&mut self.bytes)));
        };
        Some(match segment {
            Segment::Frames(bytes) => {
                self.queue_bytes -= bytes.len();
                Piece::Frames(bytes)
            }
            Segment::Set(set) => Piece::Set(set),
            Segment::Word(word, from, clock) => Piece::Frames(self.pieces_of(&word, from, clock)),
            Segment::State(state) => Piece::Frames(self.frames_of(state, bytes_max)),
        })
    }

    /// The next piece of a long word.
    fn pieces_of(&mut self, word: &Arc<Vec<u8>>, from: usize, clock: u64) -> Vec<u8> {
        let to = word.len().min(from + PIECE_BYTES);
        let mut out = self.spare.pop().unwrap_or_default();
        frame::begin(&mut out, clock, &[]);
        out.extend_from_slice(&word[from..to]);
        frame::end(&mut out, 0, clock, true);
        self.queue_bytes -= to - from;
        if to < word.len() {
            self.queue.push_front(Segment::Word(Arc::clone(word), to, clock));
        }
        out
    }

    /// The next calls that build a large value.
    fn frames_of(&mut self, mut kept: Box<KeyState>, bytes_max: usize) -> Vec<u8> {
        let mut out = self.spare.pop().unwrap_or_default();
        frame::begin(&mut out, kept.clock, &[]);
        let mut calls = kept.state.calls_from(kept.progress);
        while out.len() < bytes_max
            && let Some(call) = calls.next()
        {
            let args = call.args();
            frame::put_head(&mut out, Kind::Call, Some(kept.slot), kept.db, args.len());
            args.iter_from(0).for_each(|word| frame::put_word(&mut out, word));
        }
        frame::end(&mut out, 0, kept.clock, true);
        kept.progress = calls.progress();
        if !kept.progress.is_done() {
            self.queue.push_front(Segment::State(kept));
        }
        out
    }

    /// Takes back a buffer whose bytes have been written.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < 4 && (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::frame::check;
    use crate::resp::number;
    use crate::types::{Collection, list::End, list::List};

    const SLOT: Option<SlotId> = SlotId::new(5);

    fn tape() -> Tape {
        let mut tape = Tape::of(CoreId(1));
        tape.switch(1);
        assert!(matches!(tape.take(1), Some(Piece::Set(1))));
        assert!(matches!(tape.take(1), Some(Piece::Frames(_))));
        tape
    }

    fn add(tape: &mut Tape, clock: u64, words: &[&[u8]]) {
        tape.record(clock, SLOT, DbIndex(0), words.iter().copied());
    }

    /// A unit: first time, ties, calls.
    type UnitParts = (u64, Vec<Tie>, Vec<Vec<Vec<u8>>>);

    /// All units that wait.
    fn units(tape: &mut Tape) -> Vec<UnitParts> {
        let (mut units, mut bytes, mut head) = (Vec::new(), Vec::new(), None);
        while let Some(piece) = tape.take(4096) {
            let Piece::Frames(mut frames) = piece else { continue };
            let mut at = 0;
            while at < frames.len() {
                let len = frame::len_of(&frames[at..]);
                frame::place(&mut frames[at..at + len], 1, 0, 0);
                let header = check(&frames[at..], 1, 0).expect("a frame");
                bytes.extend_from_slice(&frames[at..][header.records()]);
                let (first, ties) = head.take().unwrap_or((header.first, Vec::new()));
                let ties = [ties, header.ties].concat();
                at += len;
                if header.goes_on {
                    head = Some((first, ties));
                    continue;
                }
                let (mut calls, mut ranges, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
                while let Some((record, len)) = frame::read(rest, &mut ranges) {
                    assert_eq!(record.kind, Kind::Call);
                    let word = |r: &crate::commands::args::ArgRange| {
                        rest[r.start as usize..r.end as usize].to_vec()
                    };
                    calls.push(ranges.iter().map(word).collect());
                    rest = &rest[len..];
                }
                assert!(rest.is_empty());
                units.push((first, ties, calls));
                bytes.clear();
            }
        }
        assert!(head.is_none() && bytes.is_empty(), "a unit does not end");
        units
    }

    #[test]
    fn tie_begins_a_frame_and_is_told_once() {
        let mut tape = tape();
        add(&mut tape, 5, &[b"DEL", b"a"]);
        tape.follow(CoreId(1), 4);
        tape.follow(CoreId(0), 0);
        add(&mut tape, 6, &[b"DEL", b"b"]);
        tape.follow(CoreId(0), 3);
        tape.follow(CoreId(0), 4);
        add(&mut tape, 7, &[b"DEL", b"c"]);
        tape.follow(CoreId(0), 4);
        add(&mut tape, 8, &[b"DEL", b"d"]);
        let mut waits = VecDeque::new();
        tape.take_waits(&mut waits);
        let tie = |clock| Tie { core: CoreId(0), clock };
        assert_eq!(waits, [(6, tie(3)), (6, tie(4))]);
        let units = units(&mut tape);
        let head =
            |(first, ties, calls): &(u64, Vec<Tie>, Vec<_>)| (*first, ties.clone(), calls.len());
        assert_eq!(
            units.iter().map(head).collect::<Vec<_>>(),
            [(5, vec![], 2), (7, vec![tie(4)], 2)]
        );
    }

    #[test]
    fn long_words_and_states_go_out_in_pieces_of_one_unit() {
        let mut tape = tape();
        let word = Arc::new(vec![b'x'; 3 * PIECE_BYTES + 1]);
        let mut call = OwnedArgs::of(&[b"SET", b"k"]);
        call.push_shared(&word);
        call.extend([&b"PXAT"[..], b"5"].into_iter());
        let mut list = List::new();
        (0..3000).for_each(|n| list.push(End::Back, n.to_string().as_bytes()));
        let state = State { key: b"l"[..].into(), value: list.into_object(), deadline: None };
        add(&mut tape, 2, &[b"DEL", b"before"]);
        tape.begin_unit();
        tape.record_call(3, SLOT, DbIndex(0), &call);
        let slot = SLOT.expect("there is such a slot");
        tape.record_state(4, slot, DbIndex(0), Box::new(state));
        tape.end_unit();
        add(&mut tape, 5, &[b"DEL", b"after"]);
        assert!(tape.waiting_bytes() > word.len());
        let units = units(&mut tape);
        assert!(tape.is_empty() && tape.waiting_bytes() == 0);
        let calls: Vec<_> = units.iter().flat_map(|(_, _, calls)| calls).collect();
        assert_eq!(calls[1], &call.args().iter_from(0).map(<[u8]>::to_vec).collect::<Vec<_>>());
        assert_eq!(calls[2], &[b"DEL".to_vec(), b"l".to_vec()]);
        let elements: Vec<&Vec<u8>> =
            calls[3..calls.len() - 1].iter().flat_map(|call| &call[2..]).collect();
        assert_eq!(elements.len(), 3000);
        assert!(elements.iter().enumerate().all(|(n, e)| number::parse_i64(e) == Some(n as i64)));
        // What came before shares the unit's first frame: that is one piece with it.
        assert_eq!(units.len(), 2, "{units:.300?}");
        assert_eq!(units[1].2.len(), 1);
    }

    #[test]
    fn state_that_is_alone_is_a_unit_that_ends() {
        let mut tape = tape();
        let mut list = List::new();
        list.push(End::Back, b"x");
        let state = State { key: b"l"[..].into(), value: list.into_object(), deadline: None };
        let slot = SLOT.expect("there is such a slot");
        tape.record_state(4, slot, DbIndex(0), Box::new(state));
        assert_eq!(units(&mut tape).len(), 1);
    }

    #[test]
    fn switch_stands_between_the_frames_of_two_sets() {
        let mut tape = tape();
        add(&mut tape, 2, &[b"DEL", b"a"]);
        tape.switch(2);
        add(&mut tape, 3, &[b"DEL", b"b"]);
        let pieces: Vec<_> = std::iter::from_fn(|| tape.take(1)).collect();
        assert!(matches!(pieces[..], [Piece::Frames(_), Piece::Set(2), Piece::Frames(_)]));
    }
}
