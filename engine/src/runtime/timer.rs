//! A wheel of deadlines: timeouts of blocked clients, of links and of sessions.
//!
//! Levels of 64 buckets; a bucket of level `n` spans 64ⁿ milliseconds. A timer lies at the level of
//! the highest base-64 digit in which its deadline differs from the wheel's time, in the bucket of
//! that digit, so all that is in a level comes before all that is in the levels above. When the
//! wheel's time enters a bucket above the lowest level, its timers cascade: each goes to the level
//! that is right now. Eleven levels hold every deadline that 64 bits can say, so there is no list of
//! those too far away.
//!
//! Timers live in one slab and are linked through it; a bucket is a circle of them.
//!
//! One core uses it. Knows no clock: the caller says what time it is.
//!
//! # Source
//! Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987: scheme 7.

use crate::units::Ms;

/// Binary digits per level.
const LEVEL_BITS: u32 = 6;
/// Buckets of a level: as many as a word has bits.
const BUCKET_COUNT: usize = 1 << LEVEL_BITS;
/// Levels that cover 64 bits.
const LEVEL_COUNT: usize = 64_usize.div_ceil(LEVEL_BITS as usize);
/// No node.
const NIL: u32 = u32::MAX;

const _: () = assert!(BUCKET_COUNT == u64::BITS as usize, "a word says which buckets are in use");

/// Names a timer. Of no use once the timer has fired or was cancelled: it never names another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

/// A timer, or a free place of the slab.
#[derive(Debug)]
struct Node<T> {
    deadline: Ms,
    /// Neighbours in the bucket's circle. A free node's `next` is the next free node.
    prev: u32,
    next: u32,
    /// Goes up whenever the node is freed, so that ids of its former timers are recognised.
    generation: u32,
    bucket: Bucket,
    /// None if the node is free.
    value: Option<T>,
}

/// A bucket by level and digit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bucket {
    level: u8,
    digit: u8,
}

impl Bucket {
    /// Where a deadline that is not before `elapsed` lies.
    fn of(deadline: u64, elapsed: u64) -> Self {
        debug_invariant!(deadline >= elapsed, "{deadline} is over at {elapsed}");
        let level = (deadline ^ elapsed).checked_ilog2().unwrap_or(0) / LEVEL_BITS;
        let digit = deadline >> (level * LEVEL_BITS) & (BUCKET_COUNT as u64 - 1);
        Self { level: level as u8, digit: digit as u8 }
    }

    /// The first millisecond that the bucket spans, seen from `elapsed`.
    fn start(self, elapsed: u64) -> u64 {
        let shift = u32::from(self.level) * LEVEL_BITS;
        // Digits above this level are those of `elapsed`; above the highest one there are none.
        let above = u64::MAX.checked_shl(shift + LEVEL_BITS).unwrap_or(0);
        elapsed & above | u64::from(self.digit) << shift
    }
}

/// Timers of one level.
#[derive(Debug)]
struct Level {
    /// A bit for each bucket that is not empty.
    used: u64,
    /// The oldest timer of each bucket.
    heads: [u32; BUCKET_COUNT],
}

/// The wheel.
#[derive(Debug)]
pub struct TimerWheel<T> {
    /// The time of the last [`advance`](Self::advance): whatever was due then has fired.
    elapsed: u64,
    levels: Box<[Level; LEVEL_COUNT]>,
    nodes: Vec<Node<T>>,
    /// First free node.
    free: u32,
    len: usize,
    /// A bucket above the lowest level that was entered and is not empty yet.
    cascading: Option<Bucket>,
}

/// A deadline as a point of the wheel's time, which begins at zero.
fn point(at: Ms) -> u64 {
    at.0.max(0) as u64
}

impl<T> TimerWheel<T> {
    /// An empty wheel. Allocates its buckets, 3 KiB.
    pub fn new(now: Ms) -> Self {
        let level = || Level { used: 0, heads: [NIL; BUCKET_COUNT] };
        Self {
            elapsed: point(now),
            levels: Box::new(std::array::from_fn(|_| level())),
            nodes: Vec::new(),
            free: NIL,
            len: 0,
            cascading: None,
        }
    }

    /// Number of timers that have neither fired nor been cancelled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no timer.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer. One whose deadline has passed fires at the next [`advance`](Self::advance).
    ///
    /// # Panics
    /// With 2³² timers.
    ///
    /// # Complexity
    /// O(1).
    pub fn insert(&mut self, deadline: Ms, value: T) -> TimerId {
        let index = self.take_free();
        let node = &mut self.nodes[index as usize];
        node.deadline = deadline;
        node.value = Some(value);
        let id = TimerId { index, generation: node.generation };
        self.len += 1;
        self.link(index);
        id
    }

    /// Takes a timer back; nothing if it has fired or was cancelled before.
    ///
    /// # Complexity
    /// O(1).
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let node = self.nodes.get(id.index as usize)?;
        if node.generation != id.generation || node.value.is_none() {
            return None;
        }
        self.unlink(id.index);
        self.put_free(id.index)
    }

    /// Moves the values of all timers that are due at `now` to the end of `fired`, earliest deadline
    /// first, and of equal ones the older first. One that was overdue when it was set counts as due
    /// at that moment.
    ///
    /// A time before the last one means that the clock was set back: nothing fires that is not due
    /// by the new time.
    ///
    /// # Complexity
    /// O(timers that fire + timers that cascade), however far the time has moved; a timer cascades
    /// at most once per level, at most `log64(time left)` times in its life. O(all timers) if the
    /// clock was set back.
    pub fn advance(&mut self, now: Ms, fired: &mut Vec<T>) {
        while !self.advance_some(now, fired, usize::MAX) {}
    }

    /// The same, but touches `count_max` timers at most; returns whether it is done. Until it is, the
    /// wheel's time stands still between two calls, and a timer set then may fire before an older one
    /// of the same deadline.
    ///
    /// # Complexity
    /// O(`count_max`), and O(all timers) if the clock was set back.
    pub fn advance_some(&mut self, now: Ms, fired: &mut Vec<T>, count_max: usize) -> bool {
        let now = point(now);
        if now < self.elapsed {
            self.rewind(now);
        }
        let mut left = count_max;
        while let Some((bucket, start)) = self.next_bucket() {
            if start > now {
                break;
            }
            if left == 0 {
                return false;
            }
            invariant!(start >= self.elapsed, "bucket of {start} at {}", self.elapsed);
            self.elapsed = start;
            self.empty(bucket, fired, &mut left);
        }
        self.elapsed = now;
        true
    }

    /// A time before which [`advance`](Self::advance) has nothing to do, and by which it is worth
    /// calling: the earliest deadline if that is at most 64 ms away, else less, by at most the
    /// width of a bucket at that distance. A caller who sleeps until then and calls again reaches
    /// any deadline in `log64(time left)` wakes. None without timers.
    ///
    /// # Complexity
    /// O(levels).
    pub fn next_deadline(&self) -> Option<Ms> {
        self.next_bucket().map(|(_, start)| Ms(start.min(i64::MAX as u64) as i64))
    }

    /// The bucket that is entered next, and when. Levels come one after another in time.
    fn next_bucket(&self) -> Option<(Bucket, u64)> {
        // What is left of it lies before everything that has come down from it.
        if let Some(bucket) = self.cascading {
            return Some((bucket, self.elapsed));
        }
        let (level, used) = self
            .levels
            .iter()
            .enumerate()
            .find_map(|(n, l)| (l.used != 0).then_some((n, l.used)))?;
        let bucket = Bucket { level: level as u8, digit: used.trailing_zeros() as u8 };
        Some((bucket, bucket.start(self.elapsed)))
    }

    /// Fires the timers of a bucket of the lowest level; sends those of another one further down. As
    /// many as are `left` to be touched: the rest stays in the bucket.
    fn empty(&mut self, bucket: Bucket, fired: &mut Vec<T>, left: &mut usize) {
        let mut index = self.levels[usize::from(bucket.level)].heads[usize::from(bucket.digit)];
        let last = self.nodes[index as usize].prev;
        self.cascading = (bucket.level > 0).then_some(bucket);
        while *left > 0 {
            *left -= 1;
            let next = self.nodes[index as usize].next;
            self.unlink(index);
            if bucket.level == 0 {
                fired.extend(self.put_free(index));
            } else {
                self.link(index);
            }
            if index == last {
                return;
            }
            index = next;
        }
    }

    /// Takes all timers out and puts them in again as of an earlier time.
    fn rewind(&mut self, now: u64) {
        self.elapsed = now;
        self.cascading = None;
        for level in self.levels.iter_mut() {
            *level = Level { used: 0, heads: [NIL; BUCKET_COUNT] };
        }
        for index in 0..self.nodes.len() as u32 {
            if self.nodes[index as usize].value.is_some() {
                self.link(index);
            }
        }
    }
}

/// The slab and the circles in it.
impl<T> TimerWheel<T> {
    /// Appends a node to the circle of the bucket where its deadline lies now.
    fn link(&mut self, index: u32) {
        let due = point(self.nodes[index as usize].deadline).max(self.elapsed);
        let bucket = Bucket::of(due, self.elapsed);
        let level = &mut self.levels[usize::from(bucket.level)];
        let head = &mut level.heads[usize::from(bucket.digit)];
        level.used |= 1 << bucket.digit;
        let (prev, next) = if *head == NIL {
            *head = index;
            (index, index)
        } else {
            (self.nodes[*head as usize].prev, *head)
        };
        let node = &mut self.nodes[index as usize];
        (node.prev, node.next, node.bucket) = (prev, next, bucket);
        self.nodes[prev as usize].next = index;
        self.nodes[next as usize].prev = index;
    }

    /// Takes a node out of its circle.
    fn unlink(&mut self, index: u32) {
        let Node { prev, next, bucket, .. } = self.nodes[index as usize];
        if next == index {
            self.take_bucket(bucket);
            return;
        }
        self.nodes[prev as usize].next = next;
        self.nodes[next as usize].prev = prev;
        let head = &mut self.levels[usize::from(bucket.level)].heads[usize::from(bucket.digit)];
        if *head == index {
            *head = next;
        }
    }

    /// Takes the last timer of a circle out; returns it.
    fn take_bucket(&mut self, bucket: Bucket) -> u32 {
        let level = &mut self.levels[usize::from(bucket.level)];
        level.used &= !(1 << bucket.digit);
        let head = std::mem::replace(&mut level.heads[usize::from(bucket.digit)], NIL);
        invariant!(head != NIL, "an empty bucket is marked as used: {bucket:?}");
        if self.cascading == Some(bucket) {
            // It will mean another time when it is used again.
            self.cascading = None;
        }
        head
    }

    fn take_free(&mut self) -> u32 {
        if self.free != NIL {
            let index = self.free;
            self.free = self.nodes[index as usize].next;
            return index;
        }
        let index = self.nodes.len() as u32;
        invariant!(self.nodes.len() < NIL as usize, "no more than {NIL} timers");
        let bucket = Bucket { level: 0, digit: 0 };
        let node =
            Node { deadline: Ms(0), prev: NIL, next: NIL, generation: 0, bucket, value: None };
        self.nodes.push(node);
        index
    }

    /// Frees a node that is in no circle; returns its value.
    fn put_free(&mut self, index: u32) -> Option<T> {
        let node = &mut self.nodes[index as usize];
        let value = node.value.take();
        invariant!(value.is_some(), "timer {index} is freed twice");
        node.generation = node.generation.wrapping_add(1);
        node.next = self.free;
        self.free = index;
        self.len -= 1;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const START: i64 = 1_700_000_000_123;

    /// In portions of one: nothing may depend on where they end.
    fn fired(wheel: &mut TimerWheel<u32>, now: i64) -> Vec<u32> {
        let mut fired = Vec::new();
        while !wheel.advance_some(Ms(now), &mut fired, 1) {}
        fired
    }

    #[test]
    fn timer_fires_at_its_millisecond_and_not_before() {
        for left in [0, 1, 63, 64, 65, 4095, 4096, 262_144, 86_400_000, 40_000_000_000] {
            let mut wheel = TimerWheel::new(Ms(START));
            wheel.insert(Ms(START + left), 7);
            if left > 0 {
                assert_eq!(fired(&mut wheel, START + left - 1), [0_u32; 0], "{left}");
            }
            assert_eq!(fired(&mut wheel, START + left), [7], "{left}");
            assert!(wheel.is_empty() && wheel.next_deadline().is_none());
        }
    }

    #[test]
    fn overdue_timer_fires_at_once_even_if_the_time_stands_still() {
        let mut wheel = TimerWheel::new(Ms(START));
        assert_eq!(fired(&mut wheel, START), [0_u32; 0]);
        for (deadline, value) in [(START, 1), (START - 9, 2), (-5, 3), (i64::MIN, 4)] {
            wheel.insert(Ms(deadline), value);
        }
        assert_eq!(wheel.next_deadline(), Some(Ms(START)));
        assert_eq!(fired(&mut wheel, START), [1, 2, 3, 4]);
    }

    #[test]
    fn timers_fire_by_deadline_and_equal_ones_by_age_over_any_jump() {
        let mut wheel = TimerWheel::new(Ms(START));
        let deadlines = [70_000, 5, 70_000, 64, 1_000_000, 5, 70_001];
        for (value, left) in deadlines.into_iter().enumerate() {
            wheel.insert(Ms(START + left), value as u32);
        }
        assert_eq!(fired(&mut wheel, START + 50_000), [1, 5, 3]);
        wheel.insert(Ms(START + 70_000), 7);
        assert_eq!(fired(&mut wheel, START + 100_000_000), [0, 2, 7, 6, 4]);
    }

    #[test]
    fn id_of_a_timer_that_is_gone_names_no_other() {
        let mut wheel = TimerWheel::new(Ms(START));
        let first = wheel.insert(Ms(START + 10), 1);
        assert_eq!(wheel.cancel(first), Some(1));
        assert_eq!(wheel.cancel(first), None);
        let second = wheel.insert(Ms(START + 10), 2);
        assert_eq!(wheel.cancel(first), None, "the node was used again");
        assert_eq!(fired(&mut wheel, START + 10), [2]);
        assert_eq!(wheel.cancel(second), None);
        assert_eq!(wheel.nodes.len(), 1, "one timer at a time needs one node");
    }

    #[test]
    fn deadline_at_the_end_of_time_fires_there() {
        let mut wheel = TimerWheel::new(Ms(0));
        wheel.insert(Ms(i64::MAX), 1);
        wheel.insert(Ms(0), 0);
        assert_eq!(fired(&mut wheel, i64::MAX - 1), [0]);
        assert_eq!(fired(&mut wheel, i64::MAX), [1]);
        wheel.insert(Ms(i64::MAX), 2);
        assert_eq!(fired(&mut wheel, i64::MAX), [2]);
    }

    #[test]
    fn clock_set_back_fires_nothing_that_is_not_due_by_it() {
        let mut wheel = TimerWheel::new(Ms(START));
        wheel.insert(Ms(START + 100), 1);
        assert_eq!(fired(&mut wheel, START + 50), [0_u32; 0]);
        assert_eq!(fired(&mut wheel, START - 3_600_000), [0_u32; 0]);
        wheel.insert(Ms(START - 3_599_000), 2);
        assert_eq!(fired(&mut wheel, START - 3_599_001), [0_u32; 0]);
        assert_eq!(fired(&mut wheel, START - 3_599_000), [2]);
        assert_eq!(fired(&mut wheel, START + 99), [0_u32; 0]);
        assert_eq!(fired(&mut wheel, START + 100), [1]);
    }

    #[test]
    fn sleeping_until_next_deadline_reaches_a_timer_in_few_wakes() {
        for left in [1, 64, 100, 5_000, 86_400_000, 31_536_000_000] {
            let mut wheel = TimerWheel::new(Ms(START));
            wheel.insert(Ms(START + left), 1);
            let mut wakes = 0;
            let mut now = START;
            while let Some(next) = wheel.next_deadline() {
                assert!(next.0 > now || wakes == 0, "no wake without progress");
                now = next.0;
                fired(&mut wheel, now);
                wakes += 1;
            }
            assert_eq!(now, START + left);
            // One per digit of the time left, and one for a carry into the digit above.
            assert!(wakes <= left.ilog2() / LEVEL_BITS + 2, "{wakes} wakes for {left} ms");
        }
    }

    #[test]
    fn crowd_of_one_deadline_fires_in_portions_and_in_order() {
        let mut wheel = TimerWheel::new(Ms(START));
        // Far enough that all of them cascade, and so near each other that they do it together.
        for value in 0..10_000 {
            wheel.insert(Ms(START + 70_000 + i64::from(value % 2)), value);
        }
        let (mut got, mut portions) = (Vec::new(), 0);
        loop {
            let before = got.len();
            let is_done = wheel.advance_some(Ms(START + 80_000), &mut got, 100);
            assert!(got.len() - before <= 100, "no portion is larger than it was asked for");
            if is_done {
                break;
            }
            assert!(wheel.next_deadline().is_some_and(|due| due <= Ms(START + 80_000)));
            // Timers come and go meanwhile, also out of the bucket that is being emptied.
            let gone = wheel.insert(Ms(START + 70_000), 99_999);
            assert_eq!(wheel.cancel(gone), Some(99_999));
            portions += 1;
        }
        let want: Vec<u32> = (0..10_000).step_by(2).chain((1..10_000).step_by(2)).collect();
        assert_eq!(got, want);
        assert!((200..600).contains(&portions), "{portions}");
        assert!(wheel.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Call {
        Insert { left: i64 },
        Cancel { which: prop::sample::Index },
        Advance { by: i64 },
        AdvanceToNext,
    }

    /// Spans of every magnitude; a few negative.
    fn span() -> impl Strategy<Value = i64> {
        (0u32..44, any::<i64>(), 0..20).prop_map(|(bits, random, sign)| {
            let span = random & ((1 << bits) - 1);
            if sign == 0 { -span } else { span }
        })
    }

    fn call() -> impl Strategy<Value = Call> {
        prop_oneof![
            4 => span().prop_map(|left| Call::Insert { left }),
            2 => any::<prop::sample::Index>().prop_map(|which| Call::Cancel { which }),
            2 => span().prop_map(|by| Call::Advance { by }),
            2 => Just(Call::AdvanceToNext),
        ]
    }

    /// The twin: a sorted map by due time and age.
    struct Twin {
        wheel: TimerWheel<u32>,
        model: BTreeMap<(i64, u32), (TimerId, i64)>,
        ids: Vec<(TimerId, (i64, u32))>,
        now: i64,
        /// The clock was set back once: age among equal deadlines is forgotten.
        was_set_back: bool,
    }

    impl Twin {
        fn insert(&mut self, deadline: i64) {
            let value = self.ids.len() as u32;
            let id = self.wheel.insert(Ms(deadline), value);
            let key = (deadline.max(self.now), value);
            self.model.insert(key, (id, deadline));
            self.ids.push((id, key));
        }

        fn cancel(&mut self, which: prop::sample::Index) {
            if self.ids.is_empty() {
                return;
            }
            let (id, key) = self.ids[which.index(self.ids.len())];
            let is_live = self.model.get(&key).is_some_and(|(live, _)| *live == id);
            assert_eq!(self.wheel.cancel(id), is_live.then_some(key.1));
            if is_live {
                self.model.remove(&key);
            }
        }

        fn advance(&mut self, now: i64) {
            let mut got = fired(&mut self.wheel, now);
            if now < self.now {
                self.was_set_back = true;
                // Set back: due times that were moved to "now" when set are the deadlines again,
                // and age among them is forgotten. What fires is what is due.
                let (due, left): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.model).into_iter().partition(|(_, v)| v.1 <= now);
                let mut want: Vec<u32> = due.iter().map(|((_, value), _)| *value).collect();
                got.sort_unstable();
                want.sort_unstable();
                assert_eq!(got, want);
                for ((_, value), (id, deadline)) in left {
                    self.model.insert((deadline, value), (id, deadline));
                    self.ids[value as usize].1 = (deadline, value);
                }
            } else {
                let later = self.model.split_off(&(now + 1, 0));
                let due = std::mem::replace(&mut self.model, later);
                let due_of = |value: &u32| self.ids[*value as usize].1.0;
                if self.was_set_back {
                    assert!(got.is_sorted_by_key(due_of), "{got:?} {due:?}");
                    got.sort_unstable_by_key(|value| (due_of(value), *value));
                }
                assert!(got.iter().eq(due.keys().map(|(_, value)| value)), "{got:?} {due:?}");
            }
            self.now = now;
        }

        /// `next_deadline` is never late, and early by less than what is left.
        fn check(&self) {
            assert_eq!(self.wheel.len(), self.model.len());
            let due = self.model.first_key_value().map(|((due, _), _)| *due);
            let next = self.wheel.next_deadline().map(|next| next.0);
            assert_eq!(next.is_some(), due.is_some());
            if let (Some(next), Some(due)) = (next, due) {
                assert!(self.now <= next && next <= due, "{} <= {next} <= {due}", self.now);
                assert!(next > self.now || due == self.now, "{next} brings nothing, {due} is due");
            }
        }
    }

    proptest! {
        #[test]
        fn wheel_with_any_calls_behaves_like_a_sorted_map(
            calls in prop::collection::vec(call(), 0..150),
        ) {
            let wheel = TimerWheel::new(Ms(START));
            let mut twin = Twin { wheel, model: BTreeMap::new(), ids: Vec::new(), now: START, was_set_back: false };
            for call in calls {
                match call {
                    Call::Insert { left } => twin.insert(twin.now.saturating_add(left)),
                    Call::Cancel { which } => twin.cancel(which),
                    Call::Advance { by } => twin.advance(twin.now.saturating_add(by).max(0)),
                    Call::AdvanceToNext => {
                        let next = twin.wheel.next_deadline().map_or(twin.now, |next| next.0);
                        twin.advance(next);
                    }
                }
                twin.check();
            }
        }
    }
}
