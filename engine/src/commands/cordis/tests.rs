//! CORDIS without a network: what is refused, and to whom.

use crate::commands::args::OwnedArgs;
use crate::commands::bare::Bare;
use crate::commands::dispatch::{self, Plan};
use crate::net::client::ClientState;
use crate::slots::hash::slot_of;
use crate::slots::owner::Access;
use crate::units::ShardId;

#[test]
fn secret_is_asked_for_where_there_is_one() {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    let call = |bare: &mut Bare, client: &mut _, line: &str| {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        String::from_utf8(bare.call(client, &words)).expect("replies here are ASCII")
    };
    assert!(call(&mut bare, &mut client, "CORDIS SLOTS").starts_with("*1\r\n*6\r\n:0\r\n:1023"));
    assert_eq!(call(&mut bare, &mut client, "CORDIS MOVES"), "*0\r\n");
    bare.node.config.set_at_start("cluster-secret", "sesame").expect("it is a setting");
    let refused = "-NOAUTH CORDIS AUTH with the cluster-secret first\r\n";
    for line in [
        "CORDIS SLOTS",
        "CORDIS HELLO",
        "CORDIS MOVE 1 1 127.0.0.1:1 0",
        "CORDIS IMPORT 1 1 0 1",
        "CORDIS COMMIT 1 0 1 1",
    ] {
        assert_eq!(call(&mut bare, &mut client, line), refused, "{line}");
    }
    for wrong in ["sesam", "sesame1", "sesamf"] {
        let reply = call(&mut bare, &mut client, &format!("CORDIS AUTH {wrong}"));
        assert_eq!(reply, "-WRONGPASS that is not the cluster-secret\r\n");
    }
    assert_eq!(call(&mut bare, &mut client, "CORDIS AUTH sesame"), "+OK\r\n");
    assert!(call(&mut bare, &mut client, "CORDIS SLOTS").starts_with("*1\r\n"));
    let mut other = bare.client();
    assert_eq!(call(&mut bare, &mut other, "CORDIS SLOTS"), refused);
}

#[test]
fn words_that_are_wrong_are_refused_before_anything_changes() {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    let cases = [
        ("HELLO CORE 1", "ERR there is no such core"),
        ("HELLO CORE -1", "ERR there is no such core"),
        ("HELLO CORE", "ERR syntax error"),
        ("HELLO BELL", "ERR syntax error"),
        ("JOIN p 0 127.0.0.1:1", "ERR value is out of range"),
        ("JOIN p 10000 127.0.0.1:1", "ERR value is out of range"),
        ("MAP GET", "ERR no map has been set"),
        ("MAP SET {}", "ERR not a cluster map: missing field `product` at line 1 column 2"),
        ("MAP DEL", "ERR syntax error"),
        ("RETRY 1024", "ERR invalid slot number = 1024"),
        ("RETRY 1 x", "ERR value is not an integer or out of range"),
        ("EXPECT 1 1 127.0.0.1:1 0-5", "ERR this server is in no cluster: CORDIS JOIN"),
        ("EXPECT 0 1 127.0.0.1:1 0-5", "ERR value is out of range"),
        ("EXPECT 1 1 somewhere 0-5", "ERR an address is written as ip:port"),
        ("EXPECT 1 1 127.0.0.1:1 5-0", "ERR slots are written as 0-511,600"),
        ("MOVE 1 1 127.0.0.1:1 0-5", "ERR this server is in no cluster: CORDIS JOIN"),
        ("MOVE 1 1 127.0.0.1:1 0-5 RATE -1", "ERR value is out of range"),
        ("MOVE 1 1 127.0.0.1:1 0-5 PARALLEL 0", "ERR value is out of range"),
        ("MOVE 1 1 127.0.0.1:1 0-5 FAST", "ERR syntax error"),
        ("IMPORT 1 1 1024 1", "ERR invalid slot number = 1024"),
        ("IMPORT 1 1 0 0", "ERR value is out of range"),
        ("IMPORT 1 1 0 1 THEN 3", "ERR syntax error"),
        ("READY 0 1 full:1:00", "ERR this connection imports no slot"),
    ];
    for (line, error) in cases {
        let words: Vec<&[u8]> =
            std::iter::once(&b"CORDIS"[..]).chain(line.split(' ').map(str::as_bytes)).collect();
        let reply = String::from_utf8(bare.call(&mut client, &words)).expect("ASCII");
        assert_eq!(reply, format!("-{error}\r\n"), "{line}");
    }
    assert!(bare.node.cluster.lock().membership.is_none());
}

#[test]
fn sticky_link_goes_on_refusing_a_slot_until_it_is_told_to_try_again() {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    let (mut keys, own) = (Vec::new(), ShardId(0));
    let mut plan = |bare: &Bare, client: &mut ClientState, words: &[&[u8]]| {
        let call = OwnedArgs::of(words);
        let args = call.args();
        let command = dispatch::resolve(&args).expect("it is a command");
        dispatch::plan_call(command, &args, client, bare.node, own, &mut keys).expect("no import")
    };
    let [get, set, both]: [&[&[u8]]; 3] =
        [&[b"GET", b"{a}1"], &[b"SET", b"{a}2", b"x"], &[b"MGET", b"b", b"{a}1"]];
    let slot = slot_of(b"a");
    let is_refused =
        |plan: Plan| matches!(plan, Plan::Closed(closed, Access::Refused) if closed == slot);
    // Who has not asked for it is not treated so.
    client.refuse(slot);
    assert!(!is_refused(plan(&bare, &mut client, get)));
    assert!(bare.call(&mut client, &[b"CORDIS", b"HELLO", b"STICKY"]).starts_with(b"*14\r\n"));
    client.refuse(slot);
    for call in [get, set, both] {
        assert!(is_refused(plan(&bare, &mut client, call)), "{call:?}");
    }
    assert!(!is_refused(plan(&bare, &mut client, &[b"GET", b"b"])));
    assert!(!is_refused(plan(&bare, &mut client, &[b"SLOTSINFO"])));
    // A transaction as a whole.
    bare.call(&mut client, &[b"MULTI"]);
    bare.call(&mut client, set);
    assert!(is_refused(plan(&bare, &mut client, &[b"EXEC"])));
    bare.call(&mut client, &[b"DISCARD"]);
    let text = slot.index().to_string();
    let retry = [&b"CORDIS"[..], b"RETRY", b"1", text.as_bytes()];
    assert_eq!(bare.call(&mut client, &retry), b"+OK\r\n");
    assert!(!is_refused(plan(&bare, &mut client, get)));
    assert!(client.refused.is_none(), "a link without refusals pays nothing");
}
