//! One key with its value in one allocation.
//!
//! # Layout
//!
//! | bytes | what | when |
//! |---|---|---|
//! | 0 | kind (low 4 bits), `HAS_EXPIRY`, `LONG_KEY` | always |
//! | 1..4 | access clock: LRU seconds or LFU minutes and counter | always |
//! | 4..6 | key length | always (0 for a long key) |
//! | 6..8 | length of an inline value | always |
//! | 8 | expiry, milliseconds since the epoch | `HAS_EXPIRY` |
//! | 8 | key length | `LONG_KEY` |
//! | 8 | integer, or pointer to the value | kinds `Int`, `Big`, `Object` |
//! | … | key bytes, then the inline value: a string or a packed collection | |
//!
//! The allocation is rounded up to the allocator's size class, so that a value can change within
//! its class without a new allocation, and so that the size counted is the size taken.
//!
//! Unsafe: raw memory with a self-describing layout. Every pointer is made and freed here; the
//! [`EntryBox`] owns, [`EntryRef`] and [`EntryMut`] borrow. Used by the core that holds the shard.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::types::{Object, Packed, Type};
use crate::units::Ms;

const KIND_MASK: u8 = 0x0f;
const HAS_EXPIRY: u8 = 0x10;
const LONG_KEY: u8 = 0x20;

const HEADER_BYTES: usize = 8;
const WORD_BYTES: usize = 8;

/// Longest string that lives inside the entry.
pub const INLINE_BYTES_MAX: usize = 4096;
/// Longest packed collection that lives inside the entry.
pub const PACKED_BYTES_MAX: usize = 8192;

/// Longest key whose length fits the header.
const SHORT_KEY_BYTES_MAX: usize = u16::MAX as usize;

const _: () = assert!(INLINE_BYTES_MAX <= PACKED_BYTES_MAX);
const _: () = assert!(PACKED_BYTES_MAX <= u16::MAX as usize);

/// How a value is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Int = 0,
    Inline = 1,
    /// As `Inline`, but Redis would have made it a string of its own: `OBJECT ENCODING` says raw.
    InlineRaw = 2,
    Big = 3,
    /// A collection of its own.
    Object = 4,
    // From here on packed collections, in the order of `Packed`.
    PackedList = 5,
    PackedHash = 6,
    PackedSet = 7,
    PackedSetInts = 8,
    PackedZset = 9,
}

impl Kind {
    const fn of_packed(packed: Packed) -> Self {
        match packed {
            Packed::List => Self::PackedList,
            Packed::Hash => Self::PackedHash,
            Packed::Set => Self::PackedSet,
            Packed::SetInts => Self::PackedSetInts,
            Packed::Zset => Self::PackedZset,
        }
    }
}

/// The packed form that a kind stands for; none for other kinds.
#[inline]
fn packed_of(kind: u8) -> Option<Packed> {
    const FORMS: [Packed; 5] =
        [Packed::List, Packed::Hash, Packed::Set, Packed::SetInts, Packed::Zset];
    FORMS.get(usize::from(kind.wrapping_sub(Kind::PackedList as u8))).copied()
}

/// Whether the entry holds a word that is, or points to, the value.
#[inline]
const fn has_word(kind: u8) -> bool {
    kind == Kind::Int as u8 || kind == Kind::Big as u8 || kind == Kind::Object as u8
}

/// A value to store.
#[derive(Debug)]
pub enum Payload<'a> {
    /// An integer.
    Int(i64),
    /// A string of at most [`INLINE_BYTES_MAX`] bytes.
    Inline {
        /// Its bytes.
        bytes: &'a [u8],
        /// Whether `OBJECT ENCODING` calls it raw whatever its length.
        raw: bool,
    },
    /// A longer string.
    Big(Arc<Vec<u8>>),
    /// A collection of at most [`PACKED_BYTES_MAX`] bytes.
    Packed(Packed, &'a [u8]),
    /// A larger one.
    Object(Box<Object>),
}

/// A stored value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// An integer.
    Int(i64),
    /// A string within the entry.
    Inline {
        /// Its bytes.
        bytes: &'a [u8],
        /// Whether `OBJECT ENCODING` calls it raw whatever its length.
        raw: bool,
    },
    /// A string of its own, possibly shared with replies that are being sent.
    Big(&'a Arc<Vec<u8>>),
    /// A collection within the entry.
    Packed(Packed, &'a [u8]),
    /// A collection of its own.
    Object(&'a Object),
}

impl Value<'_> {
    /// The type.
    #[inline]
    pub fn type_of(self) -> Type {
        match self {
            Self::Int(_) | Self::Inline { .. } | Self::Big(_) => Type::String,
            Self::Packed(packed, _) => packed.type_of(),
            Self::Object(object) => object.type_of(),
        }
    }
}

/// Rounds up to the allocator's size class: multiples of 16 up to 128, then four classes per
/// doubling.
///
/// # Source
/// jemalloc's documented size classes.
pub const fn size_class(bytes: usize) -> usize {
    if bytes <= 8 {
        return 8;
    }
    if bytes <= 128 {
        return (bytes + 15) & !15;
    }
    // Between 2^k exclusive and 2^(k+1) inclusive, classes are 2^(k-2) apart.
    let k = usize::BITS - 1 - (bytes - 1).leading_zeros();
    let step = 1 << (k - 2);
    (bytes + step - 1) & !(step - 1)
}

/// Offsets within an entry, derived from its first byte and lengths.
#[derive(Clone, Copy)]
struct Shape {
    word_at: usize,
    key_at: usize,
    key_bytes: usize,
    value_bytes: usize,
}

impl Shape {
    fn new(tag: u8, key_bytes: usize, value_bytes: usize) -> Self {
        let mut at = HEADER_BYTES;
        at += if tag & HAS_EXPIRY != 0 { WORD_BYTES } else { 0 };
        at += if tag & LONG_KEY != 0 { WORD_BYTES } else { 0 };
        let word_at = at;
        let kind = tag & KIND_MASK;
        at += if has_word(kind) { WORD_BYTES } else { 0 };
        Self { word_at, key_at: at, key_bytes, value_bytes }
    }

    fn total(self) -> usize {
        size_class(self.key_at + self.key_bytes + self.value_bytes)
    }
}

/// Owner of one entry.
#[derive(Debug)]
pub struct EntryBox(NonNull<u8>);

// SAFETY: an entry is plain memory (and an `Arc<Vec<u8>>` or a `Box<Object>`, which are `Send`) reached only through
// its owner; the shard that holds it moves between cores with the door.
unsafe impl Send for EntryBox {}

impl EntryBox {
    /// An entry of `key` and `payload`.
    pub fn new(key: &[u8], expires_at: Option<Ms>, access: u32, payload: Payload<'_>) -> Self {
        let (kind, inline): (Kind, &[u8]) = match &payload {
            Payload::Int(_) => (Kind::Int, &[]),
            Payload::Inline { bytes, raw: false } => (Kind::Inline, bytes),
            Payload::Inline { bytes, raw: true } => (Kind::InlineRaw, bytes),
            Payload::Big(_) => (Kind::Big, &[]),
            Payload::Packed(packed, bytes) => (Kind::of_packed(*packed), bytes),
            Payload::Object(_) => (Kind::Object, &[]),
        };
        invariant!(inline.len() <= PACKED_BYTES_MAX, "inline value of {} bytes", inline.len());
        let mut tag = kind as u8;
        tag |= if expires_at.is_some() { HAS_EXPIRY } else { 0 };
        tag |= if key.len() > SHORT_KEY_BYTES_MAX { LONG_KEY } else { 0 };
        let shape = Shape::new(tag, key.len(), inline.len());
        let ptr = allocate(shape.total());
        let mut entry = Self(ptr);
        let mut this = entry.as_mut();
        let short_key = if tag & LONG_KEY != 0 { 0 } else { key.len() as u16 };
        let mut header = [0; HEADER_BYTES];
        header[0] = tag;
        header[1..4].copy_from_slice(&access.to_le_bytes()[..3]);
        header[4..6].copy_from_slice(&short_key.to_le_bytes());
        header[6..8].copy_from_slice(&(inline.len() as u16).to_le_bytes());
        this.put(0, &header);
        let mut at = HEADER_BYTES;
        if let Some(ms) = expires_at {
            this.put(at, &ms.0.to_ne_bytes());
            at += WORD_BYTES;
        }
        if tag & LONG_KEY != 0 {
            this.put(at, &(key.len() as u64).to_ne_bytes());
        }
        match payload {
            Payload::Int(n) => this.put(shape.word_at, &n.to_ne_bytes()),
            Payload::Inline { .. } | Payload::Packed(..) => {}
            Payload::Object(object) => {
                // SAFETY: as for `Big` below.
                unsafe { this.as_ref().object_slot(shape).write(object) };
            }
            Payload::Big(data) => {
                // SAFETY: `word_at` is within the allocation of `shape.total()` bytes, 8-aligned as
                // the allocation and every field before it, and holds no live value yet.
                unsafe { this.big_slot(shape).write(data) };
            }
        }
        this.put(shape.key_at, key);
        this.put(shape.key_at + key.len(), inline);
        entry
    }

    /// Borrows it.
    #[inline]
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef { ptr: self.0, _borrow: PhantomData }
    }

    /// Borrows it to change it.
    #[inline]
    pub fn as_mut(&mut self) -> EntryMut<'_> {
        EntryMut { ptr: self.0, _borrow: PhantomData }
    }

    /// A copy under another key or with another deadline. A big value is shared until one of the
    /// two changes.
    pub fn copy(&self, key: &[u8], deadline: Option<Ms>) -> Self {
        let this = self.as_ref();
        this.copy(key, deadline)
    }

    /// The same value with another deadline.
    pub fn with_deadline(self, deadline: Option<Ms>) -> Self {
        let this = self.as_ref();
        this.copy(this.key(), deadline)
    }

    /// Gives up ownership.
    #[inline]
    pub(super) fn into_raw(self) -> NonNull<u8> {
        let ptr = self.0;
        std::mem::forget(self);
        ptr
    }

    /// Takes ownership back.
    ///
    /// # Safety
    /// `ptr` came from [`into_raw`](Self::into_raw) and nothing else owns it.
    #[inline]
    pub(super) unsafe fn from_raw(ptr: NonNull<u8>) -> Self {
        Self(ptr)
    }
}

impl Drop for EntryBox {
    fn drop(&mut self) {
        let this = self.as_ref();
        let shape = this.shape();
        if this.kind_bits() == Kind::Big as u8 {
            // SAFETY: the word of a `Big` entry is an `Arc` that `new` wrote; the entry owns it and
            // ends here.
            unsafe { this.big_slot(shape).drop_in_place() };
        }
        if this.kind_bits() == Kind::Object as u8 {
            // SAFETY: the word of an `Object` entry is a `Box` that `new` wrote; the entry owns it and
            // ends here.
            unsafe { this.object_slot(shape).drop_in_place() };
        }
        // SAFETY: allocated by `allocate` with the same size: the shape is derived from the same
        // header, and in-place changes keep the size class.
        unsafe { dealloc(self.0.as_ptr(), layout(shape.total())) };
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("an entry is far smaller than the address space")
}

fn allocate(bytes: usize) -> NonNull<u8> {
    let layout = layout(bytes);
    // SAFETY: the size is not zero: a size class is at least 8.
    let ptr = unsafe { alloc(layout) };
    NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout))
}

/// A shared borrow of an entry.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    ptr: NonNull<u8>,
    _borrow: PhantomData<&'a EntryBox>,
}

impl<'a> EntryRef<'a> {
    /// Borrows the entry behind a pointer.
    ///
    /// # Safety
    /// `ptr` is a live entry that nobody changes during `'a`.
    #[inline]
    pub(super) unsafe fn from_raw(ptr: NonNull<u8>) -> Self {
        Self { ptr, _borrow: PhantomData }
    }

    #[inline]
    fn header(self) -> u64 {
        // SAFETY: every entry begins with an initialised, 8-aligned header of 8 bytes.
        unsafe { self.ptr.as_ptr().cast::<u64>().read() }
    }

    #[inline]
    fn tag(self) -> u8 {
        self.header() as u8
    }

    #[inline]
    fn kind_bits(self) -> u8 {
        self.tag() & KIND_MASK
    }

    #[inline]
    fn shape(self) -> Shape {
        let header = self.header();
        let tag = header as u8;
        let mut key_bytes = usize::from((header >> 32) as u16);
        if tag & LONG_KEY != 0 {
            let at = if tag & HAS_EXPIRY != 0 { 16 } else { 8 };
            key_bytes = self.word(at) as usize;
        }
        Shape::new(tag, key_bytes, usize::from((header >> 48) as u16))
    }

    #[inline]
    fn word(self, at: usize) -> u64 {
        // SAFETY: callers pass the offset of a word that the header says is there; words are
        // 8-aligned and initialised by `EntryBox::new`.
        unsafe { self.ptr.as_ptr().add(at).cast::<u64>().read() }
    }

    #[inline]
    fn slice(self, at: usize, len: usize) -> &'a [u8] {
        // SAFETY: callers pass a range within the allocation, as the shape says; the bytes are
        // initialised and not changed during `'a`.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr().add(at), len) }
    }

    #[inline]
    fn big_slot(self, shape: Shape) -> *mut Arc<Vec<u8>> {
        const { assert!(size_of::<Arc<Vec<u8>>>() == WORD_BYTES) };
        // SAFETY: the word lies within the allocation.
        unsafe { self.ptr.as_ptr().add(shape.word_at).cast() }
    }

    #[inline]
    fn object_slot(self, shape: Shape) -> *mut Box<Object> {
        const { assert!(size_of::<Box<Object>>() == WORD_BYTES) };
        // SAFETY: the word lies within the allocation.
        unsafe { self.ptr.as_ptr().add(shape.word_at).cast() }
    }

    /// The key.
    #[inline]
    pub fn key(self) -> &'a [u8] {
        let shape = self.shape();
        self.slice(shape.key_at, shape.key_bytes)
    }

    /// The value.
    #[inline]
    pub fn value(self) -> Value<'a> {
        let shape = self.shape();
        let kind = self.kind_bits();
        if kind == Kind::Int as u8 {
            return Value::Int(self.word(shape.word_at) as i64);
        }
        if kind == Kind::Big as u8 {
            // SAFETY: the word of a `Big` entry is a live `Arc`; nobody changes it during `'a`.
            return Value::Big(unsafe { &*self.big_slot(shape) });
        }
        if kind == Kind::Object as u8 {
            // SAFETY: the word of an `Object` entry is a live `Box`; nobody changes it during `'a`.
            return Value::Object(unsafe { &*self.object_slot(shape) });
        }
        let bytes = self.slice(shape.key_at + shape.key_bytes, shape.value_bytes);
        if let Some(packed) = packed_of(kind) {
            return Value::Packed(packed, bytes);
        }
        Value::Inline { bytes, raw: kind == Kind::InlineRaw as u8 }
    }

    /// When it expires.
    #[inline]
    pub fn expires_at(self) -> Option<Ms> {
        (self.tag() & HAS_EXPIRY != 0).then(|| Ms(self.word(HEADER_BYTES) as i64))
    }

    /// Whether it has expired at `now`.
    #[inline]
    pub fn is_expired(self, now: Ms) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// The access clock: 24 bits.
    #[inline]
    pub fn access(self) -> u32 {
        (self.header() >> 8) as u32 & 0x00ff_ffff
    }

    /// A copy under another key or with another deadline. A big value is shared until one of the
    /// two changes.
    pub fn copy(self, key: &[u8], deadline: Option<Ms>) -> EntryBox {
        let payload = match self.value() {
            Value::Int(n) => Payload::Int(n),
            Value::Inline { bytes, raw } => Payload::Inline { bytes, raw },
            Value::Big(data) => Payload::Big(Arc::clone(data)),
            Value::Packed(packed, bytes) => Payload::Packed(packed, bytes),
            // The nodes are shared until one of the two changes.
            Value::Object(object) => Payload::Object(Box::new(object.clone())),
        };
        EntryBox::new(key, deadline, self.access(), payload)
    }

    /// Memory of the entry, a value of its own included.
    pub fn heap_bytes(self) -> usize {
        let own = self.shape().total();
        match self.value() {
            Value::Big(data) => own + size_class(data.capacity()) + size_class(BIG_BOX_BYTES),
            Value::Object(object) => own + size_class(size_of::<Object>()) + object.heap_bytes(),
            _ => own,
        }
    }

    /// Asks the processor for the lines of a small entry.
    #[inline]
    pub(super) fn prefetch(ptr: NonNull<u8>) {
        prefetch_read(ptr.as_ptr());
        prefetch_read(ptr.as_ptr().wrapping_add(64));
    }
}

/// Counts, length and pointer of a big value's `Arc<Vec<u8>>`.
const BIG_BOX_BYTES: usize = 40;

/// Asks the processor to load the line at `ptr`; harmless for any address.
#[inline]
pub(super) fn prefetch_read(ptr: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it neither faults nor changes memory, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}

/// An exclusive borrow of an entry.
#[derive(Debug)]
pub struct EntryMut<'a> {
    ptr: NonNull<u8>,
    _borrow: PhantomData<&'a mut EntryBox>,
}

impl<'a> EntryMut<'a> {
    /// Borrows the entry behind a pointer to change it.
    ///
    /// # Safety
    /// `ptr` is a live entry that nobody else reaches during `'a`.
    #[inline]
    pub(super) unsafe fn from_raw(ptr: NonNull<u8>) -> Self {
        Self { ptr, _borrow: PhantomData }
    }

    /// The same entry, to read.
    #[inline]
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef { ptr: self.ptr, _borrow: PhantomData }
    }

    fn big_slot(&mut self, shape: Shape) -> *mut Arc<Vec<u8>> {
        self.as_ref().big_slot(shape)
    }

    #[inline]
    fn put(&mut self, at: usize, bytes: &[u8]) {
        // SAFETY: callers pass a range within the allocation, as the shape says, and this borrow is
        // the only one; `bytes` comes from elsewhere, as it is borrowed at the same time.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.ptr.as_ptr().add(at), bytes.len());
        }
    }

    /// Sets the access clock.
    #[inline]
    pub fn set_access(&mut self, access: u32) {
        self.put(1, &access.to_le_bytes()[..3]);
    }

    /// Replaces the expiry of an entry that has one; `false` if it has none (a new entry is due).
    #[inline]
    pub fn set_expires_at(&mut self, at: Ms) -> bool {
        let has = self.as_ref().tag() & HAS_EXPIRY != 0;
        if has {
            self.put(HEADER_BYTES, &at.0.to_ne_bytes());
        }
        has
    }

    /// Replaces the integer of an integer entry; `false` if it is none.
    #[inline]
    pub fn set_int(&mut self, n: i64) -> bool {
        let this = self.as_ref();
        let is_int = this.kind_bits() == Kind::Int as u8;
        if is_int {
            let at = this.shape().word_at;
            self.put(at, &n.to_ne_bytes());
        }
        is_int
    }

    /// Replaces the value by an inline string if the entry keeps its size class; `false` if not.
    #[inline]
    pub fn set_inline(&mut self, bytes: &[u8], raw: bool) -> bool {
        let this = self.as_ref();
        let kind = this.kind_bits();
        if bytes.len() > INLINE_BYTES_MAX
            || (kind != Kind::Inline as u8 && kind != Kind::InlineRaw as u8)
        {
            return false;
        }
        let old = this.shape();
        let new = Shape { value_bytes: bytes.len(), ..old };
        if new.total() != old.total() {
            return false;
        }
        let kind = if raw { Kind::InlineRaw } else { Kind::Inline };
        let tag = (this.tag() & !KIND_MASK) | kind as u8;
        self.put(0, &[tag]);
        self.put(6, &(bytes.len() as u16).to_le_bytes());
        self.put(old.key_at + old.key_bytes, bytes);
        true
    }

    /// Replaces the packed collection of an entry that keeps its size class; `false` if not.
    #[inline]
    pub fn set_packed(&mut self, packed: Packed, bytes: &[u8]) -> bool {
        let this = self.as_ref();
        if bytes.len() > PACKED_BYTES_MAX || packed_of(this.kind_bits()).is_none() {
            return false;
        }
        let old = this.shape();
        let new = Shape { value_bytes: bytes.len(), ..old };
        if new.total() != old.total() {
            return false;
        }
        let tag = (this.tag() & !KIND_MASK) | Kind::of_packed(packed) as u8;
        self.put(0, &[tag]);
        self.put(6, &(bytes.len() as u16).to_le_bytes());
        self.put(old.key_at + old.key_bytes, bytes);
        true
    }

    /// The collection, to change in place.
    pub fn into_object(self) -> Option<&'a mut Object> {
        let this = self.as_ref();
        if this.kind_bits() != Kind::Object as u8 {
            return None;
        }
        let shape = this.shape();
        // SAFETY: the word of an `Object` entry is a live `Box`, and this borrow is the only one.
        Some(unsafe { &mut *this.object_slot(shape) })
    }

    /// The bytes of an inline string, to change in place. It is raw from now on.
    pub fn into_inline_bytes(mut self) -> Option<&'a mut [u8]> {
        let this = self.as_ref();
        let kind = this.kind_bits();
        if kind != Kind::Inline as u8 && kind != Kind::InlineRaw as u8 {
            return None;
        }
        let shape = this.shape();
        let tag = (this.tag() & !KIND_MASK) | Kind::InlineRaw as u8;
        self.put(0, &[tag]);
        // SAFETY: the range is the inline value, initialised, and this borrow is the only one.
        Some(unsafe {
            std::slice::from_raw_parts_mut(
                self.ptr.as_ptr().add(shape.key_at + shape.key_bytes),
                shape.value_bytes,
            )
        })
    }

    /// The big string, to change in place.
    pub fn into_big(mut self) -> Option<&'a mut Arc<Vec<u8>>> {
        let this = self.as_ref();
        if this.kind_bits() != Kind::Big as u8 {
            return None;
        }
        let shape = this.shape();
        // SAFETY: the word of a `Big` entry is a live `Arc`, and this borrow is the only one.
        Some(unsafe { &mut *self.big_slot(shape) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(entry: &EntryBox) -> Vec<u8> {
        match entry.as_ref().value() {
            Value::Inline { bytes, .. } => bytes.to_vec(),
            Value::Int(n) => n.to_string().into_bytes(),
            Value::Big(data) => data.to_vec(),
            other => panic!("no string: {other:?}"),
        }
    }

    #[test]
    fn entry_keeps_key_value_and_expiry_for_every_shape() {
        let long_key = vec![b'k'; SHORT_KEY_BYTES_MAX + 1];
        for key in [&b""[..], b"k", b"key:000000000001", &long_key] {
            for expiry in [None, Some(Ms(12345))] {
                let int = EntryBox::new(key, expiry, 7, Payload::Int(-5));
                assert_eq!((int.as_ref().key(), inline(&int)), (key, b"-5".to_vec()));
                let text = Payload::Inline { bytes: b"value", raw: false };
                let text = EntryBox::new(key, expiry, 0x00ff_ffff, text);
                assert_eq!((text.as_ref().key(), inline(&text)), (key, b"value".to_vec()));
                assert_eq!(text.as_ref().access(), 0x00ff_ffff);
                let big = Arc::new(vec![b'x'; 10_000]);
                let entry = EntryBox::new(key, expiry, 1, Payload::Big(Arc::clone(&big)));
                assert_eq!((entry.as_ref().key(), inline(&entry)), (key, big.to_vec()));
                for entry in [&int, &text, &entry] {
                    assert_eq!(entry.as_ref().expires_at(), expiry);
                }
                drop(entry);
                assert_eq!(Arc::strong_count(&big), 1);
            }
        }
    }

    #[test]
    fn set_inline_changes_only_within_the_size_class() {
        let payload = Payload::Inline { bytes: b"0123456789", raw: false };
        let mut entry = EntryBox::new(b"key", None, 0, payload);
        assert!(entry.as_mut().set_inline(b"01234567890", true));
        assert_eq!(inline(&entry), b"01234567890");
        assert!(!entry.as_mut().set_inline(&[b'x'; 100], false));
        assert_eq!(inline(&entry), b"01234567890");
        assert_eq!(entry.as_ref().key(), b"key");
    }

    #[test]
    fn size_class_is_what_the_allocator_documents() {
        let cases = [(1, 8), (9, 16), (88, 96), (113, 128), (129, 160), (161, 192), (257, 320)];
        for (bytes, class) in cases {
            assert_eq!(size_class(bytes), class, "{bytes} bytes");
        }
        assert_eq!(size_class(4097), 5120);
    }

    #[test]
    fn pair_of_80_bytes_takes_96() {
        let payload = Payload::Inline { bytes: &[b'v'; 64], raw: false };
        let entry = EntryBox::new(&[b'k'; 16], None, 0, payload);
        assert_eq!(entry.as_ref().heap_bytes(), 96);
    }
}
