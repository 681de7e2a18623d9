//! The commands on a bare server: replies, journal, corrupt values.

use crate::commands::bare::Bare;
use crate::commands::string::tests::{effects, run};

#[test]
fn pfadd_is_journalled_if_it_changed_something() {
    let mut bare = Bare::new(1, 1);
    assert_eq!(effects(&mut bare, "PFADD k a b"), ["PFADD k a b"]);
    assert_eq!(effects(&mut bare, "PFADD k b a"), Vec::<String>::new());
    assert_eq!(effects(&mut bare, "PFADD empty"), ["PFADD empty"]);
    assert_eq!(effects(&mut bare, "PFADD empty"), Vec::<String>::new());
}

#[test]
fn pfcount_is_journalled_once() {
    let mut bare = Bare::new(1, 1);
    run(&mut bare, "PFADD k a b");
    assert_eq!(effects(&mut bare, "PFCOUNT k"), ["PFCOUNT k"]);
    assert_eq!(effects(&mut bare, "PFCOUNT k"), Vec::<String>::new());
    assert_eq!(effects(&mut bare, "PFCOUNT k none"), Vec::<String>::new());
}

#[test]
fn pfcount_keeps_the_deadline() {
    let mut bare = Bare::new(1, 1);
    run(&mut bare, "PFADD k a b");
    run(&mut bare, "EXPIRE k 100");
    for call in ["PFCOUNT k", "PFADD k c", "PFMERGE k k", "PFDEBUG TODENSE k"] {
        run(&mut bare, call);
        assert_eq!(run(&mut bare, "TTL k"), ":100\\r\\n", "{call}");
    }
}

#[test]
fn pfmerge_over_shards_journals_the_union() {
    let mut bare = Bare::new(3, 1);
    for key in ["a", "b", "c", "d"] {
        run(&mut bare, &format!("PFADD {key} {key} 1 2"));
    }
    let records = effects(&mut bare, "PFMERGE to a b c d");
    assert_eq!(records.len(), 1);
    assert!(records[0].starts_with("SET to HYLL"), "{}", records[0]);
    assert_eq!(run(&mut bare, "PFCOUNT to"), ":6\\r\\n");
    assert_eq!(run(&mut bare, "PFCOUNT a b c d"), ":6\\r\\n");
}

#[test]
fn pfcount_makes_watchers_lose_only_if_it_counted() {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    run(&mut bare, "PFADD k a b");
    for (call, reply) in [("PFCOUNT k", &b"*-1\r\n"[..]), ("PFCOUNT k", b"*1\r\n+PONG\r\n")] {
        bare.call(&mut client, &[b"WATCH", b"k"]);
        run(&mut bare, call);
        bare.call(&mut client, &[b"MULTI"]);
        bare.call(&mut client, &[b"PING"]);
        assert_eq!(bare.call(&mut client, &[b"EXEC"]), reply);
    }
}

#[test]
fn broken_hll_is_left_alone() {
    let mut bare = Bare::new(1, 1);
    let corrupted = "-INVALIDOBJ Corrupted HLL object detected\\r\\n";
    run(
        &mut bare,
        "SET k \"HYLL\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x80\\x7f\"",
    );
    let before = run(&mut bare, "GET k");
    for call in ["PFCOUNT k", "PFCOUNT k k", "PFMERGE to k", "PFDEBUG TODENSE k", "PFADD k a b"] {
        assert_eq!(run(&mut bare, call), corrupted, "{call}");
        assert_eq!(run(&mut bare, "GET k"), before, "{call}");
    }
    assert_eq!(run(&mut bare, "EXISTS to"), ":0\\r\\n");
}

#[test]
fn long_string_that_cannot_be_whole_is_refused_at_once() {
    let mut bare = Bare::new(1, 1);
    run(&mut bare, "PFADD k a");
    run(&mut bare, "SETRANGE k 1000000 x");
    let corrupted = "-INVALIDOBJ Corrupted HLL object detected\\r\\n";
    for call in ["PFCOUNT k", "PFADD k b", "PFMERGE k k", "PFDEBUG DECODE k", "PFDEBUG GETREG k"] {
        assert_eq!(run(&mut bare, call), corrupted, "{call}");
    }
    assert_eq!(run(&mut bare, "PFDEBUG ENCODING k"), "+sparse\\r\\n");
}
