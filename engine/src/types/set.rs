//! Sets: integers side by side, a packed run of any members, or a table.
//!
//! | form | holds | `OBJECT ENCODING` |
//! |---|---|---|
//! | [`Set::Ints`] | integers only, as many as `set-max-intset-entries` ([`intset`]) | `intset` |
//! | [`Set::Packed`] | few and short members in no order: their count (a byte), then [`pack`] elements | `hashtable` |
//! | [`Set::Tree`] | anything | `hashtable` |
//!
//! A set moves down this list when it must, never up, so that `OBJECT ENCODING` answers as Redis
//! does, which has no form for few short members. Knows no key and no command.

use crate::store::entry::{PACKED_BYTES_MAX as ENTRY_BYTES_MAX, size_class};
use crate::types::pack::{self, Item};
use crate::types::table::HashTable;
use crate::types::{Collection, Limits, Object, Packed, Trash, Type, intset};

/// Most members of the packed form.
const PACKED_MEMBERS_MAX: usize = 128;
/// Longest member of the packed form.
const PACKED_MEMBER_BYTES_MAX: usize = 64;
/// Most bytes of the packed form: a lookup reads all of them.
const PACKED_BYTES_MAX: usize = 2048;
/// Integers that [`SetView::walk`] visits at a time.
const WALK_INTS: usize = 128;
/// Where elements begin in the packed form.
const PACKED_HEAD_BYTES: usize = 1;

// The count of the packed form is one byte.
const _: () = assert!(PACKED_MEMBERS_MAX <= u8::MAX as usize);

/// A set.
#[derive(Clone, Debug)]
pub enum Set {
    /// Sorted integers.
    Ints(Vec<u8>),
    /// Few and short members.
    Packed(Vec<u8>),
    /// A tree of leaves.
    Tree(HashTable),
}

/// A view of a set.
#[derive(Clone, Copy, Debug)]
pub enum SetView<'a> {
    /// Sorted integers.
    Ints(&'a [u8]),
    /// Few and short members.
    Packed(&'a [u8]),
    /// A tree of leaves.
    Tree(&'a HashTable),
}

/// The elements of the packed form, without its head.
#[inline]
fn elements(packed: &[u8]) -> &[u8] {
    packed.get(PACKED_HEAD_BYTES..).unwrap_or_default()
}

/// The member at a position of the packed form, and where its element begins.
fn packed_at(packed: &[u8], position: usize) -> Option<(Item<'_>, usize)> {
    let data = elements(packed);
    let at = pack::offset_of(data, position);
    (at < data.len()).then(|| (pack::decode(data, at).0, at))
}

impl<'a> SetView<'a> {
    /// Number of members.
    ///
    /// # Complexity
    /// O(1)
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Ints(bytes) => intset::len(bytes),
            Self::Packed(bytes) => bytes.first().map_or(0, |&count| usize::from(count)),
            Self::Tree(tree) => tree.len(),
        }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether it is a set of integers.
    pub fn is_ints(self) -> bool {
        matches!(self, Self::Ints(_))
    }

    /// Whether a member is there.
    ///
    /// # Complexity
    /// O(log n)
    #[inline]
    pub fn contains(self, member: Item<'_>) -> bool {
        match (self, member) {
            (Self::Ints(bytes), Item::Int(n)) => intset::contains(bytes, n),
            (Self::Ints(_), Item::Str(_)) => false,
            (Self::Packed(bytes), _) => pack::find(elements(bytes), member, 1).is_some(),
            (Self::Tree(tree), _) => tree.contains(&member.text()),
        }
    }

    /// The member at a position, for a random choice or a walk. Positions shift with every change.
    ///
    /// # Complexity
    /// O(log n)
    pub fn at(self, position: usize) -> Option<Item<'a>> {
        match self {
            Self::Ints(bytes) => {
                (position < intset::len(bytes)).then(|| Item::Int(intset::get(bytes, position)))
            }
            Self::Packed(bytes) => packed_at(bytes, position).map(|(item, _)| item),
            Self::Tree(tree) => tree.at(position).map(|(member, _)| member),
        }
    }

    /// Visits some members from a position on: about a leaf. Returns the position behind them; equal
    /// to `position` at the end. Integers of [`Ints`](Self::Ints) come in ascending order.
    ///
    /// # Complexity
    /// O(log n) and those members: a whole walk is O(n).
    pub fn walk(self, position: usize, mut visit: impl FnMut(Item<'a>)) -> usize {
        match self {
            Self::Ints(bytes) => {
                let end = intset::len(bytes).min(position.saturating_add(WALK_INTS));
                (position..end).for_each(|at| visit(Item::Int(intset::get(bytes, at))));
                end.max(position)
            }
            Self::Packed(bytes) => {
                let data = elements(bytes);
                let from = pack::offset_of(data, position);
                pack::items(&data[from..]).for_each(visit);
                self.len().max(position)
            }
            Self::Tree(tree) if position >= tree.len() => position,
            Self::Tree(tree) => tree.walk(position, |member, _| visit(member)),
        }
    }

    /// Visits all members.
    pub fn each(self, mut visit: impl FnMut(Item<'a>)) {
        let mut position = 0;
        while position < self.len() {
            position = self.walk(position, &mut visit);
        }
    }

    /// Visits at least `count` members from a cursor on, all of them in the small forms. Returns the
    /// cursor to go on from; none at the end. A member that is there all the time is visited.
    ///
    /// # Complexity
    /// O(log n + count)
    pub fn scan(self, cursor: u64, count: usize, mut visit: impl FnMut(Item<'a>)) -> Option<u64> {
        match self {
            Self::Tree(tree) => tree.scan(cursor, count, |member, _| visit(member)),
            small => {
                small.each(visit);
                None
            }
        }
    }

    /// Memory behind it; what lies inside an entry counts as well.
    pub fn heap_bytes(self) -> usize {
        match self {
            Self::Ints(bytes) | Self::Packed(bytes) => bytes.len(),
            Self::Tree(tree) => tree.heap_bytes(),
        }
    }

    /// A set of the same members, in the same form.
    ///
    /// # Complexity
    /// O(1) for a tree, a copy of the small forms.
    pub fn to_set(self) -> Set {
        match self {
            Self::Ints(bytes) => Set::Ints(bytes.to_vec()),
            Self::Packed(bytes) => Set::Packed(bytes.to_vec()),
            Self::Tree(tree) => Set::Tree(tree.clone()),
        }
    }

    /// Whether two sets are equal for sure: the same bytes, or a table that has not changed since one
    /// was cloned from the other.
    pub fn is_same(self, other: SetView<'_>) -> bool {
        match (self, other) {
            (Self::Ints(a), SetView::Ints(b)) | (Self::Packed(a), SetView::Packed(b)) => a == b,
            (Self::Tree(a), SetView::Tree(b)) => a.is_same(b),
            _ => false,
        }
    }
}

impl Set {
    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory behind it.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Ints(bytes) | Self::Packed(bytes) => size_class(bytes.capacity()),
            Self::Tree(tree) => tree.heap_bytes(),
        }
    }

    /// What `OBJECT ENCODING` answers.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Ints(_) => Packed::SetInts.encoding(),
            Self::Packed(_) | Self::Tree(_) => Packed::Set.encoding(),
        }
    }

    /// Gives it up to be freed in steps.
    pub fn into_trash(self) -> Trash {
        match self {
            Self::Ints(_) | Self::Packed(_) => Trash::default(),
            Self::Tree(tree) => Trash { tables: tree.into_trash(), ..Trash::default() },
        }
    }

    /// Adds a member. Whether it is new. The form becomes what `limits` say.
    ///
    /// # Complexity
    /// O(log n) in a tree, O(n) in the small forms.
    #[inline]
    pub fn insert(&mut self, member: &[u8], limits: &Limits) -> bool {
        self.insert_item(Item::new(member), limits)
    }

    /// The same with a member of another set.
    pub fn insert_item(&mut self, member: Item<'_>, limits: &Limits) -> bool {
        if let (Self::Ints(bytes), Item::Int(n)) = (&mut *self, member) {
            let is_new = intset::insert(bytes, n);
            if is_new && intset::len(bytes) > limits.set_ints_max {
                self.leave_ints();
            }
            return is_new;
        }
        self.leave_ints();
        if let Self::Packed(bytes) = &mut *self {
            if pack::find(elements(bytes), member, 1).is_some() {
                return false;
            }
            if push(bytes, member) {
                return true;
            }
            self.become_tree();
        }
        match self {
            Self::Tree(tree) => tree.insert(&member.text(), None),
            Self::Ints(_) | Self::Packed(_) => unreachable!("both forms have been left above"),
        }
    }

    /// Makes a set of integers one of any members, as Redis does when it must.
    pub fn leave_ints(&mut self) {
        let Self::Ints(bytes) = &*self else {
            return;
        };
        let mut packed = Vec::new();
        let fits = intset::len(bytes) <= PACKED_MEMBERS_MAX
            && intset::iter_from(bytes, 0).all(|n| push(&mut packed, Item::Int(n)));
        if fits {
            *self = Self::Packed(packed);
        } else {
            self.become_tree();
        }
    }

    fn become_tree(&mut self) {
        let mut tree = HashTable::new(false);
        self.view().each(|member| {
            tree.insert(&member.text(), None);
        });
        *self = Self::Tree(tree);
    }

    /// Removes a member. Whether it was there.
    ///
    /// # Complexity
    /// As [`insert`](Self::insert).
    #[inline]
    pub fn remove(&mut self, member: &[u8]) -> bool {
        self.remove_item(Item::new(member))
    }

    /// The same with a member of another set.
    pub fn remove_item(&mut self, member: Item<'_>) -> bool {
        match (self, member) {
            (Self::Ints(bytes), Item::Int(n)) => intset::remove(bytes, n),
            (Self::Ints(_), Item::Str(_)) => false,
            (Self::Packed(bytes), _) => match pack::find(elements(bytes), member, 1) {
                Some((_, at)) => {
                    cut(bytes, at);
                    true
                }
                None => false,
            },
            (Self::Tree(tree), _) => tree.remove(&member.text()),
        }
    }

    /// Takes out the member at a position; `show` sees it first. Whether there is one.
    ///
    /// # Complexity
    /// As [`remove`](Self::remove).
    pub fn take_at(&mut self, position: usize, show: impl FnOnce(Item<'_>)) -> bool {
        match self {
            Self::Packed(bytes) => match packed_at(bytes, position) {
                Some((member, at)) => {
                    show(member);
                    cut(bytes, at);
                    true
                }
                None => false,
            },
            Self::Ints(bytes) if position < intset::len(bytes) => {
                let n = intset::get(bytes, position);
                show(Item::Int(n));
                intset::remove(bytes, n)
            }
            Self::Ints(_) => false,
            Self::Tree(tree) => match tree.at(position) {
                Some((member, _)) => {
                    show(member);
                    let member = member.to_vec();
                    tree.remove(&member)
                }
                None => false,
            },
        }
    }
}

/// Adds a member that is not there to the packed form. `false` if it does not fit.
fn push(packed: &mut Vec<u8>, member: Item<'_>) -> bool {
    let len = member.encoded_len();
    let count = packed.first().map_or(0, |&count| usize::from(count));
    // An element of a short member is at most two bytes longer than it.
    if count >= PACKED_MEMBERS_MAX
        || len > PACKED_MEMBER_BYTES_MAX + 2
        || packed.len() + len > PACKED_BYTES_MAX
    {
        return false;
    }
    if packed.is_empty() {
        packed.reserve_exact(PACKED_HEAD_BYTES + len);
        packed.push(0);
    }
    let end = packed.len();
    pack::splice(packed, end, end, &[member]);
    packed[0] += 1;
    true
}

/// Removes the member whose element begins at `at`.
fn cut(packed: &mut Vec<u8>, at: usize) {
    let from = PACKED_HEAD_BYTES + at;
    let len = pack::skip(packed, from);
    packed.drain(from..from + len);
    packed[0] -= 1;
}

impl Collection for Set {
    type View<'a> = SetView<'a>;

    const TYPE: Type = Type::Set;

    fn new() -> Self {
        // Whatever comes first decides what becomes of it.
        Self::Ints(Vec::new())
    }

    fn from_packed(packed: Packed, bytes: Vec<u8>) -> Option<Self> {
        match packed {
            Packed::SetInts => Some(Self::Ints(bytes)),
            Packed::Set => Some(Self::Packed(bytes)),
            _ => None,
        }
    }

    fn packed(&self) -> Option<(Packed, &[u8])> {
        match self {
            // More integers, which a configuration may ask for, get a buffer of their own.
            Self::Ints(bytes) if bytes.len() <= ENTRY_BYTES_MAX => Some((Packed::SetInts, bytes)),
            Self::Packed(bytes) => Some((Packed::Set, bytes)),
            Self::Ints(_) | Self::Tree(_) => None,
        }
    }

    fn into_buffer(self) -> Vec<u8> {
        match self {
            Self::Ints(bytes) | Self::Packed(bytes) => bytes,
            Self::Tree(_) => Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn view_packed(packed: Packed, bytes: &[u8]) -> Option<SetView<'_>> {
        match packed {
            Packed::SetInts => Some(SetView::Ints(bytes)),
            Packed::Set => Some(SetView::Packed(bytes)),
            _ => None,
        }
    }

    fn view(&self) -> SetView<'_> {
        match self {
            Self::Ints(bytes) => SetView::Ints(bytes),
            Self::Packed(bytes) => SetView::Packed(bytes),
            Self::Tree(tree) => SetView::Tree(tree),
        }
    }

    fn into_object(self) -> Object {
        Object::Set(self)
    }

    fn of(object: &Object) -> Option<&Self> {
        match object {
            Object::Set(this) => Some(this),
            _ => None,
        }
    }

    fn of_mut(object: &mut Object) -> Option<&mut Self> {
        match object {
            Object::Set(this) => Some(this),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn limits(set_ints_max: usize) -> Limits {
        Limits {
            hash_entries_max: 128,
            hash_value_bytes_max: 64,
            set_ints_max,
            zset_entries_max: 128,
            zset_value_bytes_max: 64,
        }
    }

    fn next(state: &mut u64, end: usize) -> usize {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*state >> 33) as usize) % end
    }

    fn members(set: &Set) -> BTreeSet<Vec<u8>> {
        let mut all = BTreeSet::new();
        set.view().each(|member| assert!(all.insert(member.to_vec()), "{member:?} comes twice"));
        all
    }

    /// Through bytes, as a set within an entry goes from call to call.
    fn stored(set: Set) -> Set {
        match set.packed() {
            Some((packed, bytes)) => {
                let bytes = bytes.to_vec();
                assert_eq!(Set::view_packed(packed, &bytes).map(SetView::len), Some(set.len()));
                Set::from_packed(packed, bytes).expect("the bytes are a set's")
            }
            None => set,
        }
    }

    fn check(set: &Set, model: &BTreeSet<Vec<u8>>) {
        assert_eq!(set.len(), model.len());
        assert_eq!(members(set), *model);
        let view = set.view();
        for position in 0..set.len() {
            let member = view.at(position).expect("the position is below the length");
            assert!(model.contains(&member.to_vec()));
        }
        assert!(view.at(set.len()).is_none());
        assert_eq!(view.walk(set.len(), |_| panic!("there is none")), set.len());
    }

    fn member(state: &mut u64, kind: usize) -> Vec<u8> {
        let n = next(state, 400);
        match kind {
            0 => n.to_string().into_bytes(),
            1 => (n as i64 - 200).wrapping_mul(1 << (n % 60)).to_string().into_bytes(),
            2 => format!("member:{n}").into_bytes(),
            3 => format!("{n:0>70}").into_bytes(),
            _ => vec![b'x'; n % 66],
        }
    }

    #[test]
    fn set_under_random_changes_agrees_with_a_model() {
        for seed in 0..60 {
            let (mut state, mut model) = (seed, BTreeSet::new());
            let limits = limits([0, 1, 20, 512][next(&mut state, 4)]);
            let (kinds, grow) = (1 + next(&mut state, 5), 40 + next(&mut state, 40));
            let mut set = Set::new();
            for step in 0..600 {
                let kind = next(&mut state, kinds);
                let member = member(&mut state, kind);
                match next(&mut state, 100) {
                    chance if chance < grow => {
                        assert_eq!(set.insert(&member, &limits), model.insert(member));
                    }
                    chance if chance < 95 => assert_eq!(set.remove(&member), model.remove(&member)),
                    _ => {
                        let position = next(&mut state, set.len() + 1);
                        let mut taken = None;
                        let took = set.take_at(position, |member| taken = Some(member.to_vec()));
                        assert_eq!(took, taken.is_some_and(|member| model.remove(&member)));
                    }
                }
                set = stored(set);
                if step % 20 == 0 {
                    check(&set, &model);
                }
            }
            check(&set, &model);
            for kind in 0..5 {
                let member = member(&mut state, kind);
                let item = Item::new(&member);
                assert_eq!(set.view().contains(item), model.contains(&member));
            }
        }
    }

    #[test]
    fn integers_stay_integers_up_to_the_limit() {
        for max in [0, 1, 5, 512, 5000] {
            let mut set = Set::new();
            for n in 0..max {
                set.insert(n.to_string().as_bytes(), &limits(max));
                assert_eq!(set.encoding(), "intset");
            }
            set.insert(b"-7", &limits(max));
            assert_eq!(set.encoding(), "hashtable");
            set.remove(b"-7");
            assert_eq!((set.encoding(), set.len()), ("hashtable", max));
        }
    }

    #[test]
    fn members_beside_integers_end_the_integers() {
        for other in [&b""[..], b"a", b"01", b"9223372036854775808", &[b'x'; 65]] {
            let mut set = Set::new();
            for n in 0..300 {
                set.insert(n.to_string().as_bytes(), &limits(512));
            }
            assert!(set.insert(other, &limits(512)));
            assert_eq!((set.encoding(), set.len()), ("hashtable", 301));
            assert!(matches!(set, Set::Tree(_)));
        }
    }

    #[test]
    fn packed_form_ends_at_each_of_its_limits() {
        let fill = |count: usize, len: usize| {
            let mut set = Set::new();
            for n in 0..count {
                set.insert(format!("{n:x>len$}").as_bytes(), &limits(512));
            }
            set
        };
        for (count, len, packed) in [
            (128, 4, true),
            (129, 4, false),
            (1, 64, true),
            (1, 65, false),
            (31, 64, true),
            (32, 64, false),
        ] {
            let set = fill(count, len);
            assert_eq!(matches!(set, Set::Packed(_)), packed, "{count} of {len}");
            assert_eq!((set.len(), set.encoding()), (count, "hashtable"));
        }
    }

    #[test]
    fn scan_of_every_form_sees_all() {
        for count in [0, 1, 100, 600, 5000] {
            let mut set = Set::new();
            for n in 0..count {
                set.insert(format!("m{n}").as_bytes(), &limits(512));
            }
            let (mut seen, mut cursor) = (BTreeSet::new(), Some(0));
            while let Some(from) = cursor {
                cursor = set.view().scan(from, 10, |member| {
                    seen.insert(member.to_vec());
                });
            }
            assert_eq!(seen.len(), count);
        }
    }

    #[test]
    fn copies_are_the_same_until_one_changes() {
        for count in [3, 300, 3000] {
            for prefix in ["", "m"] {
                let mut set = Set::new();
                for n in 0..count {
                    set.insert(format!("{prefix}{n}").as_bytes(), &limits(512));
                }
                let copy = set.view().to_set();
                assert!(copy.view().is_same(set.view()));
                set.remove(format!("{prefix}1").as_bytes());
                assert!(!copy.view().is_same(set.view()));
                assert_eq!(copy.len(), count);
            }
        }
    }
}
