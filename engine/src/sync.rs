//! Atomics and cells for the few files in which cores meet without a lock: a leaf that knows nothing.
//!
//! `shard/door.rs`, `runtime/mailbox.rs`, `runtime/sleep.rs` and `slots/owner.rs` name these types by
//! this path and no other. `tests/loom.rs` compiles the same four files with a `crate::sync` of its
//! own, made of loom's types, and so checks the very code that runs here, in every interleaving of
//! small cases.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

/// A cell whose user argues who may touch it when. Lends its address only to a closure, because
/// that is where loom's cell checks that no other thread is at it.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// A cell around a value.
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Runs `f` on the address, for reading.
    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Runs `f` on the address, for writing.
    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
