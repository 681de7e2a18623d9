//! Counts heap allocations: a GET, and a SET of an existing key, make none in the steady state.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cordis_engine::commands::args::OwnedArgs;
use cordis_engine::commands::bare::Bare;
use cordis_engine::resp::reply::OutBuf;

thread_local! {
    /// Allocations of this thread: the harness' own threads do not count.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted.
struct Counting;

fn count() {
    // A thread that is ending has no counter any more, and nobody who would read it.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is handed on to `System` with the same arguments, and `System` keeps the
// contract of `GlobalAlloc`; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` by one of the functions here, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `ptr` came from `System` by one of the functions here, with this layout.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations that the last thousand of `2000` runs of these calls made.
fn steady_allocations(shard_count: usize, calls: &[&[&[u8]]]) -> u64 {
    let mut bare = Bare::new(shard_count, 3);
    let mut client = bare.client();
    let calls: Vec<OwnedArgs> = calls.iter().map(|words| OwnedArgs::of(words)).collect();
    let mut out = OutBuf::default();
    let mut before = 0;
    for round in 0..2000 {
        if round == 1000 {
            before = COUNT.get();
        }
        for call in &calls {
            out.clear(64 * 1024);
            bare.call_into(&mut client, call, &mut out);
            assert!(!out.bytes().starts_with(b"-"), "a call failed");
        }
        bare.now.0 += 1;
    }
    COUNT.get() - before
}

#[test]
fn counter_of_an_allocating_call_moves() {
    let before = COUNT.get();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert!(COUNT.get() > before, "the counter counts");
}

#[test]
fn get_in_the_steady_state_allocates_nothing() {
    let value = [b'v'; 64];
    let calls: &[&[&[u8]]] =
        &[&[b"SET", b"key:1", &value], &[b"GET", b"key:1"], &[b"get", b"none"]];
    for shard_count in [1, 2] {
        assert_eq!(steady_allocations(shard_count, calls), 0, "{shard_count} shards");
    }
}

#[test]
fn set_of_an_existing_key_allocates_nothing() {
    let (one, two) = ([b'1'; 64], [b'2'; 60]);
    let calls: &[&[&[u8]]] = &[
        &[b"SET", b"key:1", &one],
        &[b"SET", b"key:1", &two],
        &[b"SET", b"number", b"12345"],
        &[b"SET", b"number", b"-7"],
        &[b"SET", b"until", &one, b"EX", b"100"],
    ];
    assert_eq!(steady_allocations(1, calls), 0);
}

#[test]
fn counters_and_small_edits_allocate_nothing() {
    let calls: &[&[&[u8]]] = &[
        &[b"INCR", b"number"],
        &[b"DECRBY", b"number", b"3"],
        &[b"STRLEN", b"number"],
        &[b"TTL", b"number"],
        &[b"PING"],
    ];
    assert_eq!(steady_allocations(1, calls), 0);
}
