//! Hashes: fields with values.
//!
//! A small hash is packed: field, value, field, value, in the order in which the fields came. It
//! becomes a table when a field or a value is longer, or the fields are more, than the limits say,
//! and stays one. Knows no key and no command.

use crate::store::entry::size_class;
use crate::types::pack::{self, Item};
use crate::types::table::HashTable;
use crate::types::{Collection, Limits, Object, Packed, Trash, Type};

/// Longest run of packed elements, whatever the limits say.
const PACKED_BYTES_MAX: usize = 1 << 30;

/// A hash.
#[derive(Clone, Debug)]
pub enum Hash {
    /// Elements in the entry, or in a buffer of their own.
    Packed(Vec<u8>),
    /// A tree of leaves.
    Tree(HashTable),
}

/// A view of a hash.
#[derive(Clone, Copy, Debug)]
pub enum HashView<'a> {
    /// Packed elements.
    Packed(&'a [u8]),
    /// A tree of leaves.
    Tree(&'a HashTable),
}

/// Where the value of a field begins in packed elements, and where it ends.
#[inline]
fn find_packed(bytes: &[u8], field: Item<'_>) -> Option<(usize, usize)> {
    let (_, begin) = pack::find(bytes, field, 2)?;
    let at = begin + pack::skip(bytes, begin);
    Some((at, at + pack::skip(bytes, at)))
}

impl<'a> HashView<'a> {
    /// Number of fields.
    ///
    /// # Complexity
    /// O(n) if packed, else O(1).
    pub fn len(self) -> usize {
        match self {
            Self::Packed(bytes) => pack::count(bytes) / 2,
            Self::Tree(table) => table.len(),
        }
    }

    /// Whether it has no field.
    pub fn is_empty(self) -> bool {
        match self {
            Self::Packed(bytes) => bytes.is_empty(),
            Self::Tree(table) => table.is_empty(),
        }
    }

    /// Memory behind it; about the length of its text.
    pub fn heap_bytes(self) -> usize {
        match self {
            Self::Packed(bytes) => bytes.len(),
            Self::Tree(table) => table.heap_bytes(),
        }
    }

    /// The value of a field.
    ///
    /// # Complexity
    /// O(n) if packed, else O(log n).
    #[inline]
    pub fn get(self, field: &[u8]) -> Option<Item<'a>> {
        match self {
            Self::Packed(bytes) => {
                let (at, _) = find_packed(bytes, Item::new(field))?;
                Some(pack::decode(bytes, at).0)
            }
            Self::Tree(table) => table.get(field),
        }
    }

    /// Whether a field is there.
    #[inline]
    pub fn contains(self, field: &[u8]) -> bool {
        match self {
            Self::Packed(bytes) => pack::find(bytes, Item::new(field), 2).is_some(),
            Self::Tree(table) => table.contains(field),
        }
    }

    /// The field at a position and its value.
    ///
    /// # Complexity
    /// O(n) if packed, else O(log n).
    pub fn at(self, position: usize) -> Option<(Item<'a>, Item<'a>)> {
        match self {
            Self::Packed(bytes) => {
                let begin = pack::offset_of(bytes, position * 2);
                (begin < bytes.len()).then(|| pair(bytes, begin).0)
            }
            Self::Tree(table) => table.at(position).and_then(with_value),
        }
    }

    /// The mark of each field, as [`walk`](Self::walk) has it, if it is packed. (In a table the mark is
    /// the position.)
    pub fn packed_marks(self) -> Vec<usize> {
        let Self::Packed(bytes) = self else {
            return Vec::new();
        };
        let (mut at, mut marks) = (0, Vec::new());
        while at < bytes.len() {
            marks.push(at);
            at = pair(bytes, at).1;
        }
        marks
    }

    /// The field at a mark and its value.
    ///
    /// # Complexity
    /// O(1) if packed, else O(log n).
    pub fn at_mark(self, mark: usize) -> Option<(Item<'a>, Item<'a>)> {
        match self {
            Self::Packed(bytes) => (mark < bytes.len()).then(|| pair(bytes, mark).0),
            Self::Tree(table) => table.at(mark).and_then(with_value),
        }
    }

    /// Visits some fields with their values, from the mark `from` on: 0 at first, then what the last
    /// call returned; none at the end. In the order of insertion if it is packed. Marks are worth
    /// nothing after a change.
    ///
    /// # Complexity
    /// O(n) over a whole walk; one call visits some tens of fields.
    pub fn walk(self, from: usize, mut visit: impl FnMut(Item<'a>, Item<'a>)) -> Option<usize> {
        match self {
            Self::Packed(bytes) => {
                let mut at = from;
                for _ in 0..PAIRS_PER_STEP {
                    if at >= bytes.len() {
                        return None;
                    }
                    let ((field, value), next) = pair(bytes, at);
                    visit(field, value);
                    at = next;
                }
                Some(at)
            }
            Self::Tree(table) => {
                let next = table.walk(from, |field, value| {
                    if let Some(value) = value {
                        visit(field, value);
                    }
                });
                (next != from).then_some(next)
            }
        }
    }

    /// Visits all fields with their values, in the order of [`walk`](Self::walk).
    pub fn each(self, mut visit: impl FnMut(Item<'a>, Item<'a>)) {
        let mut from = Some(0);
        while let Some(mark) = from {
            from = self.walk(mark, &mut visit);
        }
    }

    /// Whether two hashes are equal for sure: the same bytes, or a table that has not changed since one
    /// was cloned from the other.
    pub fn is_same(self, other: HashView<'_>) -> bool {
        match (self, other) {
            (Self::Packed(a), HashView::Packed(b)) => a == b,
            (Self::Tree(a), HashView::Tree(b)) => a.is_same(b),
            _ => false,
        }
    }

    /// The hash as it is now, to keep. Shared if it is a table, copied if it is packed.
    pub fn to_hash(self) -> Hash {
        match self {
            Self::Packed(bytes) => Hash::Packed(bytes.to_vec()),
            Self::Tree(table) => Hash::Tree(table.clone()),
        }
    }
}

/// Fields that one step of a walk over packed elements visits.
const PAIRS_PER_STEP: usize = 64;

/// The field that begins at `at`, its value, and where the next field begins.
#[inline]
fn pair(bytes: &[u8], at: usize) -> ((Item<'_>, Item<'_>), usize) {
    let (field, at) = pack::decode(bytes, at);
    let (value, next) = pack::decode(bytes, at);
    ((field, value), next)
}

fn with_value<'a>((field, value): (Item<'a>, Option<Item<'a>>)) -> Option<(Item<'a>, Item<'a>)> {
    value.map(|value| (field, value))
}

impl Hash {
    /// Number of fields.
    ///
    /// # Complexity
    /// O(n) if packed, else O(1).
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether it has no field.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// Memory behind it.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Packed(bytes) => size_class(bytes.capacity()),
            Self::Tree(table) => table.heap_bytes(),
        }
    }

    /// What `OBJECT ENCODING` answers.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Packed(_) => Packed::Hash.encoding(),
            Self::Tree(_) => "hashtable",
        }
    }

    /// Sets the value of a field. Whether the field is new.
    ///
    /// # Complexity
    /// O(n) if packed, else O(log n).
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        self.make_room([field, value].into_iter(), limits);
        match self {
            Self::Packed(bytes) => {
                let is_new = set_packed(bytes, field, value);
                // An element takes a byte at least: most hashes need not be counted.
                if bytes.len() / 2 > limits.hash_entries_max
                    && pack::count(bytes) / 2 > limits.hash_entries_max
                {
                    self.make_table();
                }
                is_new
            }
            Self::Tree(table) => table.insert(field, Some(value)),
        }
    }

    /// Becomes a table if these fields and values may not be packed.
    pub fn make_room<'w>(&mut self, words: impl Iterator<Item = &'w [u8]>, limits: &Limits) {
        let Self::Packed(bytes) = self else {
            return;
        };
        let (mut total, mut longest) = (bytes.len(), 0);
        for word in words {
            total += word.len();
            longest = longest.max(word.len());
        }
        if longest > limits.hash_value_bytes_max || total > PACKED_BYTES_MAX {
            self.make_table();
        }
    }

    fn make_table(&mut self) {
        let mut table = HashTable::new(true);
        self.view().each(|field, value| {
            table.insert(&field.text(), Some(&value.text()));
        });
        *self = Self::Tree(table);
    }

    /// Removes a field. Whether it was there.
    ///
    /// # Complexity
    /// O(n) if packed, else O(log n).
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self {
            Self::Packed(bytes) => {
                let Some((_, begin)) = pack::find(bytes, Item::new(field), 2) else {
                    return false;
                };
                let end = pair(bytes, begin).1;
                bytes.drain(begin..end);
                true
            }
            Self::Tree(table) => table.remove(field),
        }
    }

    /// Gives it up to be freed in steps.
    pub fn into_trash(self) -> Trash {
        match self {
            Self::Packed(_) => Trash::default(),
            Self::Tree(table) => Trash { tables: table.into_trash(), ..Trash::default() },
        }
    }
}

fn set_packed(bytes: &mut Vec<u8>, field: &[u8], value: &[u8]) -> bool {
    let (field, value) = (Item::new(field), Item::new(value));
    match find_packed(bytes, field) {
        Some((at, end)) if end - at == value.encoded_len() => {
            value.encode_to(&mut bytes[at..end]);
            false
        }
        Some((at, end)) => {
            pack::splice(bytes, at, end, &[value]);
            false
        }
        None => {
            let end = bytes.len();
            pack::splice(bytes, end, end, &[field, value]);
            true
        }
    }
}

impl Collection for Hash {
    type View<'a> = HashView<'a>;

    const TYPE: Type = Type::Hash;

    fn new() -> Self {
        Self::Packed(Vec::new())
    }

    fn from_packed(packed: Packed, bytes: Vec<u8>) -> Option<Self> {
        (packed == Packed::Hash).then_some(Self::Packed(bytes))
    }

    fn packed(&self) -> Option<(Packed, &[u8])> {
        match self {
            Self::Packed(bytes) => Some((Packed::Hash, bytes)),
            Self::Tree(_) => None,
        }
    }

    fn into_buffer(self) -> Vec<u8> {
        match self {
            Self::Packed(bytes) => bytes,
            Self::Tree(_) => Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    fn view_packed(packed: Packed, bytes: &[u8]) -> Option<HashView<'_>> {
        (packed == Packed::Hash).then_some(HashView::Packed(bytes))
    }

    fn view(&self) -> HashView<'_> {
        match self {
            Self::Packed(bytes) => HashView::Packed(bytes),
            Self::Tree(table) => HashView::Tree(table),
        }
    }

    fn into_object(self) -> Object {
        Object::Hash(self)
    }

    fn of(object: &Object) -> Option<&Self> {
        match object {
            Object::Hash(this) => Some(this),
            _ => None,
        }
    }

    fn of_mut(object: &mut Object) -> Option<&mut Self> {
        match object {
            Object::Hash(this) => Some(this),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::types::tree::tests::Rng;

    const LIMITS: Limits = Limits {
        hash_entries_max: 20,
        hash_value_bytes_max: 16,
        set_ints_max: 0,
        zset_entries_max: 0,
        zset_value_bytes_max: 0,
    };

    fn text(n: usize) -> Vec<u8> {
        match n % 3 {
            0 => n.to_string().into_bytes(),
            1 => format!("0{n}").into_bytes(),
            _ => format!("text {n}").into_bytes(),
        }
    }

    fn check(hash: &Hash, model: &HashMap<Vec<u8>, Vec<u8>>) {
        assert_eq!(hash.len(), model.len());
        let mut all = HashMap::new();
        hash.view().each(|field, value| {
            assert!(all.insert(field.to_vec(), value.to_vec()).is_none());
        });
        assert_eq!(all, *model);
        for position in 0..model.len() {
            let (field, value) = hash.view().at(position).expect("there are so many");
            assert_eq!(model[&field.to_vec()], value.to_vec());
        }
        assert!(hash.view().at(model.len()).is_none());
        for (position, mark) in hash.view().packed_marks().into_iter().enumerate() {
            assert_eq!(hash.view().at_mark(mark), hash.view().at(position));
        }
    }

    #[test]
    fn hash_under_random_edits_is_what_its_model_is() {
        for seed in 0..20 {
            let mut rng = Rng(seed);
            let (mut hash, mut model) = (Hash::new(), HashMap::new());
            // Some seeds never leave the packed form, the others soon do.
            let range = if seed % 2 == 0 { 20 } else { 400 };
            for _ in 0..1_000 {
                let field = text(rng.below(range));
                if rng.below(3) < 2 {
                    let value = text(rng.below(100_000));
                    let is_new = hash.set(&field, &value, &LIMITS);
                    assert_eq!(model.insert(field.clone(), value).is_none(), is_new);
                } else {
                    assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                }
                let got = hash.view().get(&field).map(Item::to_vec);
                assert_eq!(got.as_ref(), model.get(&field));
                assert_eq!(hash.view().contains(&field), model.contains_key(&field));
            }
            assert_eq!(hash.encoding(), if range == 20 { "listpack" } else { "hashtable" });
            check(&hash, &model);
        }
    }

    #[test]
    fn hash_at_each_limit_becomes_a_table_and_stays_one() {
        let (at_limit, beyond) = ([b'x'; 16], [b'x'; 17]);
        let mut hash = Hash::new();
        hash.set(&at_limit, &at_limit, &LIMITS);
        for n in 1..20 {
            hash.set(&text(n), b"1", &LIMITS);
        }
        assert_eq!((hash.len(), hash.encoding()), (20, "listpack"));
        let mut more = hash.clone();
        more.set(b"21st", b"", &LIMITS);
        assert_eq!((more.len(), more.encoding()), (21, "hashtable"));
        assert!(more.remove(b"21st"));
        assert_eq!((more.len(), more.encoding()), (20, "hashtable"));
        for (field, value) in [(&beyond[..], &b"v"[..]), (b"f", &beyond)] {
            let mut longer = hash.clone();
            assert!(longer.remove(&at_limit));
            longer.set(field, value, &LIMITS);
            assert_eq!(longer.encoding(), "hashtable");
            assert_eq!(longer.view().get(field).map(Item::to_vec).as_deref(), Some(value));
        }
    }

    #[test]
    fn packed_hash_keeps_the_order_in_which_fields_came() {
        let mut hash = Hash::new();
        for field in [b"c", b"a", b"b", b"a"] {
            hash.set(field, b"a value", &LIMITS);
        }
        hash.set(b"a", b"", &LIMITS);
        let mut fields = Vec::new();
        hash.view().each(|field, _| fields.extend(field.to_vec()));
        assert_eq!(fields, b"cab");
    }
}
