//! Settings of the allocator that have no safe wrapper. Entered at start, before there are cores.

use tikv_jemalloc_ctl::raw;

/// Time after which freed pages go back to the kernel.
///
/// Long enough that a value that is overwritten again and again reuses its pages, short enough
/// that memory of deleted keys is seen to come back.
const DIRTY_DECAY_MS: isize = 500;

/// Sets the allocator up: decay of freed pages, for the first arena and those to come, and a thread
/// that gives them back. Each core gets an arena of its own as long as there are fewer threads than
/// arenas (four per CPU), so the cores share none.
///
/// Returns `false` if the allocator is another one or knows no such setting; the server runs with
/// its defaults then.
pub fn tune() -> bool {
    let settings: [&[u8]; 4] = [
        b"arenas.dirty_decay_ms\0",
        b"arenas.muzzy_decay_ms\0",
        b"arena.0.dirty_decay_ms\0",
        b"arena.0.muzzy_decay_ms\0",
    ];
    // Frees pages beside the cores: giving back 2 GB took turns of 36 ms when the cores did it, and an
    // idle server would keep what it has freed. The thread sleeps while there is nothing to give back.
    // SAFETY: the name ends in a zero byte, and the setting is of type `bool`.
    let has_thread = unsafe { raw::write(b"background_thread\0", true) }.is_ok();
    has_thread
        & settings.into_iter().all(|name| {
            let is_dirty = name.windows(5).any(|part| part == b"dirty");
            let ms = if is_dirty { DIRTY_DECAY_MS } else { 0 };
            // SAFETY: the name ends in a zero byte, and the setting is of type `ssize_t`.
            unsafe { raw::write(name, ms) }.is_ok()
        })
}

/// Settings that the allocator reads before `main`. Small classes get slabs of twelve pages instead of
/// three: a quarter of the records about slabs, which are 1 byte per key otherwise. The classes of full
/// and nearly full list leaves get slabs of several: one record of 128 bytes for each leaf otherwise.
#[used]
// SAFETY: the name is the allocator's own, and is defined nowhere else; it reads a pointer to a text
// that ends in a zero byte.
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 46] = b"slab_sizes:96-96:12|8192-8192:16|6144-6144:12\0";

/// What the allocator has in use.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Bytes that the program holds.
    pub allocated_bytes: u64,
    /// Bytes that the program holds, and the allocator's own records. Not the gaps in pages that hold
    /// something: deleting keys here and there does not close them, new ones do.
    pub used_bytes: u64,
    /// Bytes of pages that are resident.
    pub resident_bytes: u64,
}

/// Asks the allocator. Nothing if it is another one.
///
/// # Complexity
/// It adds up its arenas: some tens of microseconds.
pub fn memory() -> Option<Memory> {
    use tikv_jemalloc_ctl::{epoch, stats};
    epoch::advance().ok()?;
    Some(Memory {
        allocated_bytes: stats::allocated::read().ok()? as u64,
        used_bytes: (stats::allocated::read().ok()? + stats::metadata::read().ok()?) as u64,
        resident_bytes: stats::resident::read().ok()? as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tune_sets_the_decay_of_new_arenas() {
        assert!(tune());
        // SAFETY: the name ends in a zero byte, and the setting is of type `ssize_t`.
        let got = unsafe { raw::read::<isize>(b"arenas.dirty_decay_ms\0") };
        assert_eq!(got.ok(), Some(DIRTY_DECAY_MS));
    }
}
