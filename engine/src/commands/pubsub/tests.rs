//! Tests of the family on a server without sockets, where the only messages that arrive are those
//! that a client publishes to itself.

use crate::commands::bare::Bare;
use crate::pubsub::Kind;

const REFUSED: &str = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                       this context";

#[test]
fn subscribe_counts_channels_and_patterns_together_and_shard_channels_apart() {
    let mut bare = Bare::new(2, 1);
    let mut client = bare.client();
    let reply = bare.call(&mut client, &[b"SUBSCRIBE", b"a", b"a"]);
    let one = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
    assert_eq!(reply, [&one[..], one].concat());
    let reply = bare.call(&mut client, &[b"PSUBSCRIBE", b"p*"]);
    assert_eq!(reply, b"*3\r\n$10\r\npsubscribe\r\n$2\r\np*\r\n:2\r\n");
    let reply = bare.call(&mut client, &[b"SSUBSCRIBE", b"s"]);
    assert_eq!(reply, b"*3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n");
    let registry = &bare.node.pubsub;
    assert_eq!(registry.count(Kind::Channel, b"a"), 1);
    assert_eq!(registry.name_count(Kind::Pattern), 1);
}

#[test]
fn subscribed_resp2_client_may_only_listen() {
    let mut bare = Bare::new(2, 1);
    let mut client = bare.client();
    bare.call(&mut client, &[b"SSUBSCRIBE", b"s"]);
    let refused = bare.call(&mut client, &[b"CLIENT", b"LIST"]);
    assert_eq!(refused, format!("-ERR Can't execute 'client|list': {REFUSED}\r\n").into_bytes());
    assert_eq!(bare.call(&mut client, &[b"PING"]), b"*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    bare.call(&mut client, &[b"SUNSUBSCRIBE"]);
    assert_eq!(bare.call(&mut client, &[b"PING"]), b"+PONG\r\n");
}

#[test]
fn unsubscribe_of_nothing_names_nothing() {
    let mut bare = Bare::new(2, 1);
    let mut client = bare.client();
    let reply = bare.call(&mut client, &[b"UNSUBSCRIBE"]);
    assert_eq!(reply, b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    let reply = bare.call(&mut client, &[b"PUNSUBSCRIBE", b"x"]);
    assert_eq!(reply, b"*3\r\n$12\r\npunsubscribe\r\n$1\r\nx\r\n:0\r\n");
}

#[test]
fn reset_ends_all_subscriptions() {
    let mut bare = Bare::new(2, 1);
    let mut client = bare.client();
    bare.call(&mut client, &[b"SUBSCRIBE", b"a", b"b"]);
    bare.call(&mut client, &[b"PSUBSCRIBE", b"c"]);
    assert_eq!(bare.call(&mut client, &[b"RESET"]), b"+RESET\r\n");
    assert!(client.subs.is_none() && !bare.node.pubsub.has_subscribers());
}

#[test]
fn publisher_gets_its_own_message_before_the_count() {
    let mut bare = Bare::new(2, 1);
    let (mut client, mut other) = (bare.client(), bare.client());
    bare.call(&mut other, &[b"PSUBSCRIBE", b"*"]);
    bare.call(&mut client, &[b"HELLO", b"3"]);
    bare.call(&mut client, &[b"SUBSCRIBE", b"a"]);
    let message = b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n";
    let reply = bare.call(&mut client, &[b"PUBLISH", b"a", b"m"]);
    assert_eq!(reply, [&message[..], b":2\r\n"].concat());
    assert_eq!(bare.call(&mut other, &[b"SPUBLISH", b"a", b"m"])[..4], b"-ERR"[..]);
    assert_eq!(bare.call(&mut client, &[b"SPUBLISH", b"a", b"m"]), b":0\r\n");
}

#[test]
fn transaction_subscribes_and_publishes_in_order() {
    let mut bare = Bare::new(2, 1);
    let mut client = bare.client();
    bare.call(&mut client, &[b"MULTI"]);
    let calls: [&[&[u8]]; 3] =
        [&[b"SUBSCRIBE", b"a"], &[b"PUBLISH", b"a", b"m"], &[b"SSUBSCRIBE", b"s"]];
    for call in calls {
        assert_eq!(bare.call(&mut client, call), b"+QUEUED\r\n");
    }
    let want = b"*3\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n\
                 *3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n:1\r\n\
                 -ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client\r\n";
    assert_eq!(bare.call(&mut client, &[b"EXEC"]), want);
}

#[test]
fn events_are_raised_if_asked_for_and_heard() {
    let mut bare = Bare::new(2, 1);
    let (mut client, mut listener) = (bare.client(), bare.client());
    bare.call(&mut client, &[b"CONFIG", b"SET", b"notify-keyspace-events", b"KEAmn"]);
    bare.call(&mut client, &[b"SET", b"k", b"v"]);
    assert!(bare.events().is_empty(), "nobody listens");
    bare.call(&mut listener, &[b"PSUBSCRIBE", b"__key*"]);
    bare.call(&mut client, &[b"SET", b"new", b"v"]);
    assert_eq!(bare.events(), ["0 new new", "0 set new"]);
    bare.call(&mut client, &[b"RENAME", b"new", b"k"]);
    assert_eq!(bare.events(), ["0 new k", "0 rename_from new", "0 rename_to k"]);
    bare.call(&mut client, &[b"GET", b"nothing"]);
    assert_eq!(bare.events(), ["0 keymiss nothing"]);
    bare.call(&mut client, &[b"CONFIG", b"SET", b"notify-keyspace-events", b"Kx"]);
    bare.call(&mut client, &[b"SET", b"k", b"v", b"PX", b"1"]);
    assert!(bare.events().is_empty());
    bare.now.0 += 10;
    bare.call(&mut client, &[b"GET", b"k"]);
    assert_eq!(bare.events(), ["0 expired k"]);
}
