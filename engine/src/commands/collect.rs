//! Collections behind keys: how handlers look at lists, hashes, sets and sorted sets, and change
//! them, whether they lie inside the key's entry or apart from it.

use crate::commands::ctx::{Ctx, Event};
use crate::resp::error::CommandError;
use crate::shard::state::KeyRef;
use crate::store::entry::{EntryBox, EntryRef, PACKED_BYTES_MAX, Payload, Value};
use crate::store::table::CellIndex;
use crate::types::{Collection, Limits, Trash};
use crate::units::SlotId;

/// Memory that the edit buffer keeps.
const SCRATCH_KEEP_BYTES: usize = 64 * 1024;

fn view_of<T: Collection>(
    entry: Option<EntryRef<'_>>,
) -> Result<Option<T::View<'_>>, CommandError> {
    let Some(entry) = entry else {
        return Ok(None);
    };
    let view = match entry.value() {
        Value::Packed(packed, bytes) => T::view_packed(packed, bytes),
        Value::Object(object) => T::of(object).map(T::view),
        Value::Int(_) | Value::Inline { .. } | Value::Big(_) => None,
    };
    view.map(Some).ok_or(CommandError::WRONG_TYPE)
}

fn owned_of<T: Collection + Clone>(entry: Option<EntryRef<'_>>) -> Result<Option<T>, CommandError> {
    let Some(entry) = entry else {
        return Ok(None);
    };
    let value = match entry.value() {
        Value::Packed(packed, bytes) => T::from_packed(packed, bytes.to_vec()),
        Value::Object(object) => T::of(object).cloned(),
        Value::Int(_) | Value::Inline { .. } | Value::Big(_) => None,
    };
    value.map(Some).ok_or(CommandError::WRONG_TYPE)
}

impl Ctx<'_> {
    /// A collection to read: counts a hit or a miss and marks it as accessed.
    ///
    /// # Errors
    /// The key holds another type.
    #[inline]
    pub fn view<T: Collection>(
        &mut self,
        key: KeyRef<'_>,
    ) -> Result<Option<T::View<'_>>, CommandError> {
        view_of::<T>(self.read(key))
    }

    /// A collection to look at before it is changed: counts nothing.
    ///
    /// # Errors
    /// The key holds another type.
    #[inline]
    pub fn view_to_write<T: Collection>(
        &mut self,
        key: KeyRef<'_>,
    ) -> Result<Option<T::View<'_>>, CommandError> {
        view_of::<T>(self.lookup_write(key))
    }

    /// A collection as it is now, to keep: shared if it is large, copied if it is not. Counts as a
    /// read.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn snapshot<T: Collection + Clone>(
        &mut self,
        key: KeyRef<'_>,
    ) -> Result<Option<T>, CommandError> {
        owned_of(self.read(key))
    }

    /// The same of one that is about to be changed: counts nothing.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn snapshot_to_write<T: Collection + Clone>(
        &mut self,
        key: KeyRef<'_>,
    ) -> Result<Option<T>, CommandError> {
        owned_of(self.lookup_write(key))
    }

    /// Changes a collection that is there. One that is left without elements is deleted.
    ///
    /// # Errors
    /// The key holds another type.
    #[inline]
    pub fn edit<T: Collection, R>(
        &mut self,
        key: KeyRef<'_>,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<Option<R>, CommandError> {
        let at = self.find(self.db, key);
        self.emptied = false;
        at.map(|at| self.edit_found(key, at, edit)).transpose()
    }

    /// The same; a key that is not there is made, unless it would have no element.
    ///
    /// # Errors
    /// The key holds another type.
    #[inline]
    pub fn edit_or_new<T: Collection, R>(
        &mut self,
        key: KeyRef<'_>,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<R, CommandError> {
        let at = self.find(self.db, key);
        self.emptied = false;
        if let Some(at) = at {
            return self.edit_found(key, at, edit);
        }
        let mut value = T::new();
        let result = edit(&mut value);
        if !value.is_empty() {
            self.note_new(None, key);
            self.write_back(key, None, value);
        }
        Ok(result)
    }

    #[inline]
    fn edit_found<T: Collection, R>(
        &mut self,
        key: KeyRef<'_>,
        at: CellIndex,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<R, CommandError> {
        self.touch_at(key, at);
        let db = self.db;
        let shard = self.shards.of_slot(self.node, key.slot);
        let table = shard.keys.db_or_new(db).table_mut(key.slot);
        match table.entry(at).value() {
            Value::Packed(packed, bytes) => {
                let mut buffer = std::mem::take(&mut shard.scratch);
                buffer.clear();
                buffer.extend_from_slice(bytes);
                let mut value = T::from_packed(packed, buffer).ok_or(CommandError::WRONG_TYPE)?;
                let result = edit(&mut value);
                self.write_back(key, Some(at), value);
                Ok(result)
            }
            Value::Object(_) => {
                let object = table.entry_mut(at).into_object().expect("it is an object");
                let before = object.heap_bytes();
                let value = T::of_mut(object).ok_or(CommandError::WRONG_TYPE)?;
                let result = edit(value);
                let is_empty = value.is_empty();
                let after = object.heap_bytes();
                table.adjust_heap(before, after);
                shard.data_bytes += after as i64 - before as i64;
                if is_empty {
                    self.remove_emptied(key, at);
                }
                Ok(result)
            }
            Value::Int(_) | Value::Inline { .. } | Value::Big(_) => Err(CommandError::WRONG_TYPE),
        }
    }

    /// Stores a collection under a key, whatever was there; the deadline ends. An empty one deletes
    /// the key.
    pub fn put<T: Collection>(&mut self, key: KeyRef<'_>, value: T) {
        let is_new = !self.delete(key);
        if !value.is_empty() {
            if is_new {
                self.note_new(None, key);
            }
            self.write_back(key, None, value);
        }
    }

    /// Stores what an edit left, in the place of the entry at `at` if there is one.
    fn write_back<T: Collection>(&mut self, key: KeyRef<'_>, at: Option<CellIndex>, value: T) {
        let (db, now) = (self.db, self.now);
        if let (Some(at), true) = (at, value.is_empty()) {
            self.keep_buffer(key.slot, value);
            return self.remove_emptied(key, at);
        }
        let access = self.new_access();
        let shard = self.shards.of_slot(self.node, key.slot);
        let mut deadline = None;
        if let Some(at) = at {
            let mut entry = shard.keys.db_or_new(db).table_mut(key.slot).entry_mut(at);
            if let Some((packed, bytes)) = value.packed()
                && entry.set_packed(packed, bytes)
            {
                return self.keep_buffer(key.slot, value);
            }
            deadline = entry.as_ref().expires_at();
        }
        match value.packed().filter(|(_, bytes)| bytes.len() <= PACKED_BYTES_MAX) {
            Some((packed, bytes)) => {
                let payload = Payload::Packed(packed, bytes);
                let entry = EntryBox::new(key.bytes, deadline, access, payload);
                shard.put(db, key, at, entry, now);
                self.keep_buffer(key.slot, value);
            }
            None => {
                let payload = Payload::Object(Box::new(value.into_object()));
                let entry = EntryBox::new(key.bytes, deadline, access, payload);
                shard.put(db, key, at, entry, now);
            }
        }
    }

    fn keep_buffer<T: Collection>(&mut self, slot: SlotId, value: T) {
        let buffer = value.into_buffer();
        if buffer.capacity() <= SCRATCH_KEEP_BYTES {
            self.shard(slot).scratch = buffer;
        }
    }

    fn remove_emptied(&mut self, key: KeyRef<'_>, at: CellIndex) {
        let db = self.db;
        let shard = self.shards.of_slot(self.node, key.slot);
        let entry = shard.remove(db, key.slot, at);
        shard.free.entry(entry);
        self.emptied = true;
    }

    /// Says that an edit has changed a key; if it left it without elements, that the key is gone.
    #[inline]
    pub fn changed(&mut self, key: KeyRef<'_>, event: Event) {
        self.modified(key, event);
        if std::mem::take(&mut self.emptied) {
            self.modified(key, Event::Generic("del"));
        }
    }

    /// Gives parts of a collection to the shard's lazy freeing.
    pub fn free_later(&mut self, slot: SlotId, trash: Trash) {
        self.shard(slot).free.trash(trash);
    }

    /// The configured limits of packed forms.
    pub fn limits(&self) -> Limits {
        self.node.config.limits()
    }
}
