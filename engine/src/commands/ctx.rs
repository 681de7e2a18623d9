//! What a data handler may touch: the shards it holds, time, chance and counters. All reads and
//! writes of keys go through here, so that expiry, statistics, access clocks, watches and the
//! journal cannot be forgotten. Knows no session and no socket.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::commands::args::{Args, OwnedArgs};
use crate::commands::generic::dump::dump_value;
use crate::commands::long::{LONG_ELEMENTS_MIN, LongOp};
use crate::commands::spec::CommandSpec;
use crate::journal::{LogicalClock, State};
use crate::node::{CoreStats, Node};
pub use crate::pubsub::event::Event;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::{Protocol, Reply};
use crate::shard::door::Held;
use crate::shard::evict::access;
use crate::shard::state::{KeyRef, Shard};
use crate::store::entry::{EntryBox, EntryRef, INLINE_BYTES_MAX, Payload, Value};
use crate::store::keyspace::Db;
use crate::store::table::CellIndex;
use crate::types::Object;
use crate::units::{DbIndex, Ms, ShardId, SlotId};

/// Longest string that `OBJECT ENCODING` calls `embstr`.
pub const EMBSTR_BYTES_MAX: usize = 44;

/// Keys that a call over many looks ahead.
pub const KEYS_AHEAD: usize = 16;

/// Collections of so many bytes go into the journal as snapshots, however few elements they have.
const LONG_STATE_BYTES_MIN: usize = 256 * 1024;

/// Doors held by a core, by shard; `None` for those it does not hold.
pub type HeldSet = Vec<Option<Held<'static, Shard>>>;

/// The shards that a call may reach.
#[derive(Debug)]
pub enum Shards<'a> {
    /// One: all keys of the call are there.
    One(&'a mut Shard),
    /// Several.
    Many(&'a mut HeldSet),
}

impl Shards<'_> {
    /// The shard that owns `slot`.
    #[inline]
    pub fn of_slot(&mut self, node: &Node, slot: SlotId) -> &mut Shard {
        match self {
            Self::One(shard) => shard,
            Self::Many(held) => {
                let owner = node.owners.of(slot);
                held[owner.index()].as_mut().expect("the plan of a call covers all of its keys")
            }
        }
    }

    /// Every shard held, in ascending order.
    pub fn each(&mut self, mut visit: impl FnMut(&mut Shard)) {
        match self {
            Self::One(shard) => visit(shard),
            Self::Many(held) => held.iter_mut().flatten().for_each(|shard| visit(shard)),
        }
    }

    /// Whether anybody reads the journal of a shard that is held.
    #[inline]
    pub fn is_journalled(&self) -> bool {
        match self {
            Self::One(shard) => shard.journal.is_read(),
            Self::Many(held) => held.iter().flatten().any(|shard| shard.journal.is_read()),
        }
    }

    /// Two shards, if both are held.
    pub fn pair(&mut self, a: ShardId, b: ShardId) -> Option<(&mut Shard, &mut Shard)> {
        let Self::Many(held) = self else {
            return None;
        };
        let [a, b] = held.get_disjoint_mut([a.index(), b.index()]).ok()?;
        Some((a.as_deref_mut()?, b.as_deref_mut()?))
    }

    /// A shard, if it is held.
    pub fn get(&mut self, id: ShardId) -> Option<&mut Shard> {
        match self {
            Self::One(shard) => (shard.id == id).then_some(&mut **shard),
            Self::Many(held) => held.get_mut(id.index())?.as_deref_mut(),
        }
    }
}

/// What happens to a key's deadline when its value is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// It stays.
    Keep,
    /// It ends.
    Clear,
    /// It becomes this.
    At(Ms),
}

/// How a new string is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encode {
    /// As an integer if it is one in canonical form; else as `NoInt`.
    Auto,
    /// As text: `embstr` or `raw` by its length.
    NoInt,
    /// As text that `OBJECT ENCODING` calls `raw`.
    Raw,
}

/// The bytes of a string value, whatever its encoding.
#[derive(Clone, Debug)]
pub enum StrBytes<'a> {
    /// They are stored.
    Stored(&'a [u8]),
    /// They are written from an integer.
    Written([u8; 20], u8),
}

impl std::ops::Deref for StrBytes<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Stored(bytes) => bytes,
            Self::Written(bytes, len) => &bytes[..usize::from(*len)],
        }
    }
}

impl<'a> Value<'a> {
    /// The string's bytes; none for a collection.
    #[inline]
    pub fn bytes(self) -> StrBytes<'a> {
        match self {
            Value::Packed(..) | Value::Object(_) => StrBytes::Stored(b""),
            Value::Inline { bytes, .. } => StrBytes::Stored(bytes),
            Value::Big(data) => StrBytes::Stored(data),
            Value::Int(n) => {
                let mut text = [0; 20];
                let mut buffer = itoa::Buffer::new();
                let digits = buffer.format(n).as_bytes();
                text[..digits.len()].copy_from_slice(digits);
                StrBytes::Written(text, digits.len() as u8)
            }
        }
    }

    /// The string's length.
    pub fn byte_len(self) -> usize {
        self.bytes().len()
    }

    /// The string as an integer, if it spells one.
    #[inline]
    pub fn as_int(self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(n),
            Value::Inline { bytes, .. } => parse_i64(bytes),
            Value::Big(_) | Value::Packed(..) | Value::Object(_) => None,
        }
    }

    /// Writes the string as a bulk reply; a big one is shared, not copied.
    #[inline]
    pub fn reply(self, reply: &mut Reply<'_>) {
        match self {
            Value::Int(n) => reply.bulk_int(n),
            Value::Inline { bytes, .. } => reply.bulk(bytes),
            Value::Packed(..) | Value::Object(_) => reply.bulk(b""),
            Value::Big(data) if data.len() < SHARED_REPLY_BYTES_MIN => reply.bulk(data),
            Value::Big(data) => reply.bulk_shared(data),
        }
    }

    /// What `OBJECT ENCODING` answers.
    pub fn encoding(self) -> &'static str {
        match self {
            Value::Int(_) => "int",
            Value::Inline { raw: false, bytes } if bytes.len() <= EMBSTR_BYTES_MAX => "embstr",
            Value::Packed(packed, _) => packed.encoding(),
            Value::Object(object) => object.encoding(),
            _ => "raw",
        }
    }

    /// What `TYPE` answers.
    pub fn type_name(self) -> &'static str {
        self.type_of().name()
    }
}

/// Replies with longer strings share them: below, a copy is cheaper than a piece of its own.
const SHARED_REPLY_BYTES_MIN: usize = 32 * 1024;

/// Everything a data handler sees.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// The process.
    pub node: &'a Node,
    /// Counters of the core that runs the call.
    pub stats: &'a CoreStats,
    /// Time of the call: the same from its beginning to its end.
    pub now: Ms,
    /// The selected database.
    pub db: DbIndex,
    /// The shards held.
    pub shards: Shards<'a>,
    /// The running command.
    pub spec: &'static CommandSpec,
    /// Protocol of the reply.
    pub protocol: Protocol,
    /// Logical time of this core.
    pub clock: &'a mut LogicalClock,
    /// Slot and hash of the first key, computed when the call was planned.
    pub hint: Option<KeyHint>,
    /// Changes made by the running call: what decides whether a verbatim call is journalled.
    pub dirty: u64,
    /// Effects the running call has emitted.
    pub effect_count: u64,
    /// The last edit of a collection left it without elements, so its key is gone.
    pub emptied: bool,
    /// What the call leaves behind when its handler cannot reply yet.
    pub later: Later,
    /// The call may go on after its handler has returned ([`Later`]): its session waits for it, and it
    /// is not part of a transaction.
    pub may_defer: bool,
    /// Its words, to be kept by what it leaves behind, if it [may defer](Self::may_defer).
    pub words: Option<Arc<OwnedArgs>>,
    /// The call may leave work on a snapshot behind although its session does not wait for it.
    pub may_leave_reads: bool,
    /// The key for whose sake a blocked call runs.
    pub serving: Option<Box<[u8]>>,
}

/// How a call goes on after its handler has returned without a reply.
#[derive(Debug, Default)]
pub enum Later {
    /// It does not: the reply is written.
    #[default]
    Nothing,
    /// In steps, then under its doors again.
    Long(Box<dyn LongOp>),
    /// When one of its keys can serve it, or this many milliseconds from now (0: never).
    Block(i64),
}

/// A key whose slot and hash are known already.
#[derive(Clone, Copy, Debug)]
pub struct KeyHint {
    /// Address of its bytes: the same word of the same request.
    pub address: usize,
    /// Which word it is.
    pub word: u32,
    /// Its length.
    pub len: u32,
    /// Its hash.
    pub hash: u64,
    /// Its slot.
    pub slot: SlotId,
}

fn string_of(entry: Option<EntryRef<'_>>) -> Result<Option<Value<'_>>, CommandError> {
    match entry.map(EntryRef::value) {
        Some(Value::Packed(..) | Value::Object(_)) => Err(CommandError::WRONG_TYPE),
        value => Ok(value),
    }
}

impl<'a> Ctx<'a> {
    /// A key with its hash and slot.
    #[inline]
    pub fn key<'k>(&self, bytes: &'k [u8]) -> KeyRef<'k> {
        match self.hint {
            // The length as well: where words lie side by side, an empty one begins where the next
            // one does.
            Some(hint)
                if hint.address == bytes.as_ptr().addr() && hint.len as usize == bytes.len() =>
            {
                KeyRef { bytes, hash: hint.hash, slot: hint.slot }
            }
            _ => KeyRef::new(bytes),
        }
    }

    /// The first keys of a call over many, whose places in memory are asked for at once: their lines
    /// come while the first are worked on.
    pub fn keys_ahead<'k>(
        &mut self,
        words: impl Iterator<Item = &'k [u8]>,
    ) -> SmallVec<[KeyRef<'k>; KEYS_AHEAD]> {
        let db = self.db;
        let keys: SmallVec<[KeyRef<'k>; KEYS_AHEAD]> =
            words.take(KEYS_AHEAD).map(|word| self.key(word)).collect();
        for key in &keys {
            if let Some(db) = self.shard(key.slot).keys.db(db) {
                db.table(key.slot).prefetch_cell(key.hash);
            }
        }
        for key in &keys {
            if let Some(db) = self.shard(key.slot).keys.db(db) {
                db.table(key.slot).prefetch_entry(key.hash);
            }
        }
        keys
    }

    /// The shard of a key.
    #[inline]
    pub fn shard(&mut self, slot: SlotId) -> &mut Shard {
        self.shards.of_slot(self.node, slot)
    }

    /// This database of the shard of `slot`, if it was ever used.
    pub fn db_of(&mut self, slot: SlotId) -> Option<&Db> {
        let db = self.db;
        self.shard(slot).keys.db(db)
    }

    /// A random number from the shard of `slot`.
    pub fn random(&mut self, slot: SlotId) -> u64 {
        self.shard(slot).random()
    }

    /// Where a key is; an expired key is deleted and not there.
    #[inline]
    pub(super) fn find(&mut self, db: DbIndex, key: KeyRef<'_>) -> Option<CellIndex> {
        let now = self.now;
        let shard = self.shards.of_slot(self.node, key.slot);
        let at = shard.find(db, key)?;
        if shard.entry(db, key.slot, at).is_expired(now) {
            shard.remove_dead(self.clock, db, key.slot, at, Event::Expired);
            self.stats.expired_keys.add(1);
            return None;
        }
        Some(at)
    }

    /// Marks a key as accessed now.
    #[inline]
    pub(super) fn touch_at(&mut self, key: KeyRef<'_>, at: CellIndex) {
        let (db, now) = (self.db, self.now);
        let config = &self.node.config;
        let shard = self.shards.of_slot(self.node, key.slot);
        let old = shard.entry(db, key.slot, at).access();
        let new = if config.maxmemory_policy().is_lfu() {
            let random = shard.random();
            access::lfu_touch(old, now, config.lfu_decay_minutes(), config.lfu_log_factor(), random)
        } else {
            access::lru_now(now)
        };
        // A line that is only read stays shared: most accesses fall into the same second.
        if new != old {
            let dbase = shard.keys.db_mut(db).expect("the key was found in it");
            dbase.table_mut(key.slot).entry_mut(at).set_access(new);
        }
    }

    pub(super) fn new_access(&self) -> u32 {
        if self.node.config.maxmemory_policy().is_lfu() {
            access::lfu_new(self.now)
        } else {
            access::lru_now(self.now)
        }
    }

    /// Looks a key up to read it: counts a hit or a miss and marks it as accessed.
    #[inline]
    pub fn read(&mut self, key: KeyRef<'_>) -> Option<EntryRef<'_>> {
        let Some(at) = self.find(self.db, key) else {
            self.stats.keyspace_misses.add(1);
            self.notify(key, Event::Miss);
            return None;
        };
        self.stats.keyspace_hits.add(1);
        self.touch_at(key, at);
        let db = self.db;
        Some(self.shard(key.slot).entry(db, key.slot, at))
    }

    /// Looks a key up to change it: marks it as accessed, counts nothing.
    #[inline]
    pub fn lookup_write(&mut self, key: KeyRef<'_>) -> Option<EntryRef<'_>> {
        let at = self.find(self.db, key)?;
        self.touch_at(key, at);
        let db = self.db;
        Some(self.shard(key.slot).entry(db, key.slot, at))
    }

    /// Looks a key up without a trace (TTL, OBJECT, TYPE); counts a hit or miss if `count` is set.
    pub fn peek(&mut self, key: KeyRef<'_>, count: bool) -> Option<EntryRef<'_>> {
        let found = self.find(self.db, key);
        if count {
            self.count_lookup(found);
            if found.is_none() {
                self.notify(key, Event::Miss);
            }
        }
        let (db, at) = (self.db, found?);
        Some(self.shard(key.slot).entry(db, key.slot, at))
    }

    /// The same with counting, but no event tells of a miss (OBJECT).
    pub fn inspect(&mut self, key: KeyRef<'_>) -> Option<EntryRef<'_>> {
        let found = self.find(self.db, key);
        self.count_lookup(found);
        let (db, at) = (self.db, found?);
        Some(self.shard(key.slot).entry(db, key.slot, at))
    }

    fn count_lookup(&self, found: Option<CellIndex>) {
        let stats = self.stats;
        let cell = if found.is_some() { &stats.keyspace_hits } else { &stats.keyspace_misses };
        cell.add(1);
    }

    /// The same in another database, without counting.
    pub fn peek_in(&mut self, db: DbIndex, key: KeyRef<'_>) -> Option<EntryRef<'_>> {
        let at = self.find(db, key)?;
        Some(self.shard(key.slot).entry(db, key.slot, at))
    }

    /// A string to read; an error if the key holds another type.
    #[inline]
    pub fn read_string(&mut self, key: KeyRef<'_>) -> Result<Option<Value<'_>>, CommandError> {
        string_of(self.read(key))
    }

    /// A string to change; an error if the key holds another type.
    #[inline]
    pub fn write_string(&mut self, key: KeyRef<'_>) -> Result<Option<Value<'_>>, CommandError> {
        string_of(self.lookup_write(key))
    }

    fn deadline(&mut self, key: KeyRef<'_>, at: Option<CellIndex>, expiry: Expiry) -> Option<Ms> {
        match (expiry, at) {
            (Expiry::At(ms), _) => Some(ms),
            (Expiry::Clear, _) | (Expiry::Keep, None) => None,
            (Expiry::Keep, Some(at)) => {
                let db = self.db;
                self.shard(key.slot).entry(db, key.slot, at).expires_at()
            }
        }
    }

    /// Stores a string under a key, whatever was there.
    ///
    /// # Complexity
    /// O(1) lookups; no allocation when the new value fits the old entry.
    #[inline]
    pub fn set_string(&mut self, key: KeyRef<'_>, bytes: &[u8], encode: Encode, expiry: Expiry) {
        if encode == Encode::Auto
            && bytes.len() <= 20
            && let Some(n) = parse_i64(bytes)
        {
            return self.set_int(key, n, expiry);
        }
        let db = self.db;
        let at = self.find(db, key);
        self.note_new(at, key);
        let deadline = self.deadline(key, at, expiry);
        let access = self.new_access();
        let raw = encode == Encode::Raw;
        let now = self.now;
        let shard = self.shards.of_slot(self.node, key.slot);
        if let Some(at) = at {
            let dbase = shard.keys.db_mut(db).expect("the key was found in it");
            let mut entry = dbase.table_mut(key.slot).entry_mut(at);
            let old_deadline = entry.as_ref().expires_at();
            if old_deadline.is_some() == deadline.is_some() && entry.set_inline(bytes, raw) {
                entry.set_access(access);
                if let (Some(old), Some(new)) = (old_deadline, deadline) {
                    entry.set_expires_at(new);
                    shard.file(db, key, Some(old), new, now);
                }
                return;
            }
        }
        let payload = if bytes.len() <= INLINE_BYTES_MAX {
            Payload::Inline { bytes, raw }
        } else {
            Payload::Big(Arc::new(bytes.to_vec()))
        };
        let entry = EntryBox::new(key.bytes, deadline, access, payload);
        shard.put(db, key, at, entry, now);
    }

    /// Stores word `index` of a call under a key, whatever was there: without a copy if the word has
    /// memory of its own.
    #[inline]
    pub fn set_word(
        &mut self,
        key: KeyRef<'_>,
        args: &Args<'_>,
        index: usize,
        encode: Encode,
        expiry: Expiry,
    ) {
        match args.shared(index) {
            Some(word) => self.set_big(key, Arc::clone(word), expiry),
            None => self.set_string(key, args.at(index), encode, expiry),
        }
    }

    /// Stores a string of more than [`INLINE_BYTES_MAX`] bytes under a key, whatever was there.
    pub fn set_big(&mut self, key: KeyRef<'_>, data: Arc<Vec<u8>>, expiry: Expiry) {
        invariant!(data.len() > INLINE_BYTES_MAX, "{} bytes belong into the entry", data.len());
        let (db, now) = (self.db, self.now);
        let at = self.find(db, key);
        self.note_new(at, key);
        let deadline = self.deadline(key, at, expiry);
        let entry = EntryBox::new(key.bytes, deadline, self.new_access(), Payload::Big(data));
        self.shard(key.slot).put(db, key, at, entry, now);
    }

    /// Stores an integer under a key, whatever was there.
    pub fn set_int(&mut self, key: KeyRef<'_>, n: i64, expiry: Expiry) {
        let db = self.db;
        let at = self.find(db, key);
        self.note_new(at, key);
        let deadline = self.deadline(key, at, expiry);
        let access = self.new_access();
        let now = self.now;
        let shard = self.shards.of_slot(self.node, key.slot);
        if let Some(at) = at {
            let dbase = shard.keys.db_mut(db).expect("the key was found in it");
            let mut entry = dbase.table_mut(key.slot).entry_mut(at);
            let old_deadline = entry.as_ref().expires_at();
            if old_deadline.is_some() == deadline.is_some() && entry.set_int(n) {
                entry.set_access(access);
                if let (Some(old), Some(new)) = (old_deadline, deadline) {
                    entry.set_expires_at(new);
                    shard.file(db, key, Some(old), new, now);
                }
                return;
            }
        }
        let entry = EntryBox::new(key.bytes, deadline, access, Payload::Int(n));
        shard.put(db, key, at, entry, now);
    }

    /// The bytes of a string to change in place, made as long as `len` with zero bytes if shorter.
    /// The key is made if it is not there; its deadline stays. `OBJECT ENCODING` becomes `raw`.
    ///
    /// # Complexity
    /// O(1) amortised in the growth of one string; a copy if a reply still shares a big value.
    pub fn edit_string(&mut self, key: KeyRef<'_>, len: usize) -> &mut [u8] {
        let db = self.db;
        let now = self.now;
        let access = self.new_access();
        let at = self.find(db, key);
        self.note_new(at, key);
        let shard = self.shards.of_slot(self.node, key.slot);
        let needs_new = at.is_none_or(|at| match shard.entry(db, key.slot, at).value() {
            Value::Inline { bytes, .. } => bytes.len() < len,
            Value::Big(_) => false,
            Value::Int(_) | Value::Packed(..) | Value::Object(_) => true,
        });
        if needs_new {
            let (old, deadline) = match at {
                Some(at) => {
                    let entry = shard.entry(db, key.slot, at);
                    (entry.value().bytes(), entry.expires_at())
                }
                None => (StrBytes::Stored(b""), None),
            };
            // Zeroed by the allocator: pages of a long string are not touched before they are used.
            let mut bytes = vec![0; len.max(old.len())];
            bytes[..old.len()].copy_from_slice(&old);
            let entry = if bytes.len() <= INLINE_BYTES_MAX {
                let payload = Payload::Inline { bytes: &bytes, raw: true };
                EntryBox::new(key.bytes, deadline, access, payload)
            } else {
                EntryBox::new(key.bytes, deadline, access, Payload::Big(Arc::new(bytes)))
            };
            shard.put(db, key, at, entry, now);
        }
        let at = shard.find(db, key).expect("it was there or has just been stored");
        let table = shard.keys.db_or_new(db).table_mut(key.slot);
        if matches!(table.entry(at).value(), Value::Big(_)) {
            let before = table.entry(at).heap_bytes();
            let data = Arc::make_mut(table.entry_mut(at).into_big().expect("it is big"));
            if data.len() < len {
                data.resize(len, 0);
            }
            let after = table.entry(at).heap_bytes();
            table.adjust_heap(before, after);
            shard.data_bytes += after as i64 - before as i64;
            let data: &mut Vec<u8> =
                Arc::make_mut(table.entry_mut(at).into_big().expect("it is big"));
            return data;
        }
        table.entry_mut(at).into_inline_bytes().expect("it is inline if it is not big")
    }

    /// Deletes a key; `false` if it was not there.
    pub fn delete(&mut self, key: KeyRef<'_>) -> bool {
        self.take(key).map(|(entry, free)| free.entry(entry)).is_some()
    }

    /// Takes a key out with its entry, and the queue that frees it if it is not kept.
    pub fn take(
        &mut self,
        key: KeyRef<'_>,
    ) -> Option<(EntryBox, &mut crate::store::free::FreeQueue)> {
        let db = self.db;
        let at = self.find(db, key)?;
        let shard = self.shards.of_slot(self.node, key.slot);
        let entry = shard.remove(db, key.slot, at);
        Some((entry, &mut shard.free))
    }

    /// Stores an entry that was made elsewhere (RENAME, COPY, MOVE), whatever was under its key.
    pub fn put_in(&mut self, db: DbIndex, key: KeyRef<'_>, entry: EntryBox) {
        let now = self.now;
        let at = self.find(db, key);
        // Redis: what was there is deleted first, so the key is new in any case.
        self.notify_in(db, key, Event::New);
        self.shard(key.slot).put(db, key, at, entry, now);
    }

    /// Sets or ends a key's deadline; `false` if there is no such key.
    pub fn set_deadline(&mut self, key: KeyRef<'_>, deadline: Option<Ms>) -> bool {
        let (db, now) = (self.db, self.now);
        let Some(at) = self.find(db, key) else {
            return false;
        };
        let shard = self.shards.of_slot(self.node, key.slot);
        let old = shard.entry(db, key.slot, at).expires_at();
        if let (Some(_), Some(new)) = (old, deadline) {
            let dbase = shard.keys.db_mut(db).expect("the key was found in it");
            dbase.table_mut(key.slot).entry_mut(at).set_expires_at(new);
            shard.file(db, key, old, new, now);
        } else if old != deadline {
            let entry = shard.remove(db, key.slot, at);
            shard.put(db, key, None, entry.with_deadline(deadline), now);
        }
        true
    }

    /// Says that a key has changed: watchers lose, subscribers of keyspace events hear of it, and
    /// the call counts as a write.
    #[inline]
    pub fn modified(&mut self, key: KeyRef<'_>, event: Event) {
        self.modified_in(self.db, key, event);
    }

    /// The same in another database.
    #[inline]
    pub fn modified_in(&mut self, db: DbIndex, key: KeyRef<'_>, event: Event) {
        self.dirty += 1;
        self.notify_in(db, key, event);
        let shard = self.shards.of_slot(self.node, key.slot);
        if !shard.watches.is_empty() {
            shard.watches.touch(db, key.bytes);
        }
    }

    /// Raises the event of a key that is about to be made, if it is not there (`at`).
    #[inline]
    pub(super) fn note_new(&mut self, at: Option<CellIndex>, key: KeyRef<'_>) {
        if at.is_none() {
            self.notify(key, Event::New);
        }
    }

    /// Tells subscribers of keyspace events of one that is no change, or a further one of a change
    /// that [`modified`](Self::modified) has been told of.
    #[inline]
    pub fn notify(&mut self, key: KeyRef<'_>, event: Event) {
        self.notify_in(self.db, key, event);
    }

    /// The same in another database.
    #[inline]
    pub fn notify_in(&mut self, db: DbIndex, key: KeyRef<'_>, event: Event) {
        let flags = self.node.config.notify_keyspace_events();
        // Cost: one relaxed load while the setting is empty.
        if flags != 0 && self.node.pubsub.has_subscribers() {
            self.clock.outbox.raise(flags, db, key.bytes, event);
        }
    }

    /// Says that a read has changed what is stored, not what it means: watchers lose, nobody else
    /// hears of it, and the call counts as no write.
    pub fn touch_watchers(&mut self, key: KeyRef<'_>) {
        let db = self.db;
        let shard = self.shards.of_slot(self.node, key.slot);
        if !shard.watches.is_empty() {
            shard.watches.touch(db, key.bytes);
        }
    }

    /// Opens a unit of effects on all shards held: each is later than all that is recorded of any.
    pub fn begin_unit(&mut self) {
        let clock = &mut *self.clock;
        self.shards.each(|shard| clock.see(&shard.journal));
        clock.begin_unit();
    }

    /// Whether anybody reads the journal of a key's shard: effects need not be built otherwise.
    #[inline]
    pub fn is_journalled(&mut self, slot: SlotId) -> bool {
        self.shard(slot).journal.is_slot_read(slot)
    }

    /// Emits an effect on one key: the call of a `Rewritten` command.
    pub fn effect(&mut self, key: KeyRef<'_>, words: &[&[u8]]) {
        self.effect_in(self.db, key, words);
    }

    /// Emits the running call as it is.
    #[inline]
    pub fn effect_verbatim(&mut self, key: KeyRef<'_>, args: &Args<'_>) {
        self.effect_count += 1;
        let db = self.db;
        let shard = self.shards.of_slot(self.node, key.slot);
        if args.has_apart() {
            return shard.journal.emit_call(self.clock, Some(key.slot), db, args.to_owned());
        }
        shard.journal.emit(self.clock, Some(key.slot), db, args.iter_from(0));
    }

    /// The same in another database.
    pub fn effect_in(&mut self, db: DbIndex, key: KeyRef<'_>, words: &[&[u8]]) {
        self.effect_count += 1;
        let shard = self.shards.of_slot(self.node, key.slot);
        shard.journal.emit(self.clock, Some(key.slot), db, words.iter().copied());
    }

    /// Emits an effect on one key whose words are made only if somebody reads them.
    pub fn effect_call(&mut self, key: KeyRef<'_>, call: impl FnOnce() -> OwnedArgs) {
        self.effect_count += 1;
        let db = self.db;
        let shard = self.shards.of_slot(self.node, key.slot);
        if shard.journal.is_read() {
            shard.journal.emit_call(self.clock, Some(key.slot), db, call());
        }
    }

    /// Emits an effect on a whole database of every shard held.
    pub fn effect_all(&mut self, db: DbIndex, words: &[&[u8]]) {
        self.effect_count += 1;
        let clock = &mut *self.clock;
        let mut is_first = true;
        self.shards.each(|shard| {
            shard.journal.emit_whole(clock, db, words, std::mem::take(&mut is_first));
        });
    }

    /// Emits the whole value of a key as an effect: `SET key value [PXAT ms]`, `RESTORE key ms payload
    /// REPLACE ABSTTL` for a collection, a snapshot ([`State`]) of one that is large, or `DEL key` if it
    /// is not there. What a command over several keys does to one of them.
    pub fn effect_state(&mut self, db: DbIndex, key: KeyRef<'_>) {
        self.effect_count += 1;
        let shard = self.shards.of_slot(self.node, key.slot);
        if !shard.journal.is_slot_read(key.slot) {
            return;
        }
        let Some(at) = shard.find(db, key) else {
            let words = [&b"DEL"[..], key.bytes];
            return shard.journal.emit(self.clock, Some(key.slot), db, words.into_iter());
        };
        match kept_of(shard.entry(db, key.slot, at)) {
            Kept::State(state) => shard.journal.emit_state(self.clock, key.slot, db, state),
            Kept::Call(call) => shard.journal.emit_call(self.clock, Some(key.slot), db, call),
        }
    }
}

/// What makes a key, whatever was there.
#[derive(Debug)]
pub enum Kept {
    /// A call.
    Call(OwnedArgs),
    /// Calls that are made when they are needed, behind a DEL.
    State(State),
}

/// What makes the key of an entry as it is now.
pub fn kept_of(entry: EntryRef<'_>) -> Kept {
    let (key, deadline) = (entry.key(), entry.expires_at());
    Kept::Call(match entry.value() {
        Value::Object(value) if is_long(value) => {
            return Kept::State(State { key: key.into(), value: value.clone(), deadline });
        }
        value @ (Value::Packed(..) | Value::Object(_)) => {
            let ms = deadline.map_or(0, |at| at.0).to_string();
            let payload = dump_value(value);
            OwnedArgs::of(&[b"RESTORE", key, ms.as_bytes(), &payload, b"REPLACE", b"ABSTTL"])
        }
        value => set_call(key, value, deadline),
    })
}

/// Whether a collection is too large to be written into the journal in one turn.
fn is_long(value: &Object) -> bool {
    value.len() >= LONG_ELEMENTS_MIN || value.heap_bytes() >= LONG_STATE_BYTES_MIN
}

/// The call that stores a string. A big one is shared, not copied.
fn set_call(key: &[u8], value: Value<'_>, deadline: Option<Ms>) -> OwnedArgs {
    let mut call = OwnedArgs::of(&[b"SET", key]);
    match value {
        Value::Big(data) => call.push_shared(data),
        value => call.extend(std::iter::once(&*value.bytes())),
    }
    if let Some(at) = deadline {
        call.extend([&b"PXAT"[..], at.0.to_string().as_bytes()].into_iter());
    }
    call
}
