//! The family on a bare server: what fixtures cannot compare with Redis to the byte.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::commands::bare::Bare;
use crate::commands::string::tests::{effects, run};
use crate::net::client::ClientState;
use crate::resp::reply::Protocol;
use crate::units::DbIndex;

/// A hash `h` of this many fields `f<n>` with values `v<n>`.
fn filled(len: usize) -> (Bare, ClientState) {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    for n in 0..len {
        let (field, value) = (format!("f{n}"), format!("v{n}"));
        bare.call(&mut client, &[b"HSET", b"h", field.as_bytes(), value.as_bytes()]);
    }
    (bare, client)
}

fn call(bare: &mut Bare, client: &mut ClientState, line: &str) -> String {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    String::from_utf8(bare.call(client, &words)).expect("replies here are ASCII")
}

/// The bulk strings of a reply, in order.
fn bulks(reply: &str) -> Vec<String> {
    let mut lines = reply.split("\r\n");
    let mut bulks = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('$') {
            bulks.push(lines.next().expect("a length is followed by its bytes").to_owned());
        }
    }
    bulks
}

fn pairs(bulks: &[String]) -> BTreeMap<String, String> {
    bulks.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

fn is_filled_with(all: &BTreeMap<String, String>, len: usize) -> bool {
    all.len() == len && (0..len).all(|n| all.get(&format!("f{n}")) == Some(&format!("v{n}")))
}

#[test]
fn specs_of_the_family_are_sorted() {
    assert!(SPECS.is_sorted_by_key(|spec| spec.name));
}

#[test]
fn whole_hash_of_any_size_is_replied_in_both_protocols() {
    for len in [1, 5, 512, 513, 3_999, 4_000, 20_000] {
        let (mut bare, mut client) = filled(len);
        let reply = call(&mut bare, &mut client, "HGETALL h");
        assert!(reply.starts_with(&format!("*{}\r\n", len * 2)));
        assert!(is_filled_with(&pairs(&bulks(&reply)), len), "{len}");
        client.protocol = Protocol::Resp3;
        let reply = call(&mut bare, &mut client, "HGETALL h");
        assert!(reply.starts_with(&format!("%{len}\r\n")));
        assert!(is_filled_with(&pairs(&bulks(&reply)), len), "{len}");
        for (name, letter) in [("HKEYS", "f"), ("HVALS", "v")] {
            let reply = call(&mut bare, &mut client, &format!("{name} h"));
            assert!(reply.starts_with(&format!("*{len}\r\n")));
            let all: BTreeSet<String> = bulks(&reply).into_iter().collect();
            assert!((0..len).all(|n| all.contains(&format!("{letter}{n}"))));
        }
        assert_eq!(call(&mut bare, &mut client, "HLEN h"), format!(":{len}\r\n"));
    }
}

#[test]
fn hash_of_few_long_values_is_replied_as_a_stream() {
    let (mut bare, mut client) = filled(0);
    for n in 0..40 {
        let field = format!("f{n}");
        bare.call(&mut client, &[b"HSET", b"h", field.as_bytes(), &vec![b'x'; 30_000]]);
    }
    let reply = bulks(&call(&mut bare, &mut client, "HVALS h"));
    assert_eq!(reply.len(), 40);
    assert!(reply.iter().all(|value| value.len() == 30_000));
}

#[test]
fn hdel_of_the_last_field_deletes_the_key() {
    let mut bare = Bare::new(1, 1);
    for line in ["HSET h a 1 b 2", "HDEL h a x", "HDEL h b"] {
        assert_eq!(effects(&mut bare, line), [line]);
    }
    assert!(bare.is_empty(DbIndex(0)));
    // A table as well.
    let (mut bare, mut client) = filled(600);
    for n in 0..600 {
        assert_eq!(call(&mut bare, &mut client, &format!("HDEL h f{n} f{n}")), ":1\r\n");
    }
    assert!(bare.is_empty(DbIndex(0)));
    assert!(effects(&mut bare, "HDEL h f1").is_empty());
}

#[test]
fn refused_counter_leaves_no_trace() {
    let mut bare = Bare::new(1, 1);
    run(&mut bare, "HSET h text x max 9223372036854775807 ld 1.1e4932");
    for line in [
        "HINCRBY h text 1",
        "HINCRBY h max 1",
        "HINCRBYFLOAT h text 1",
        "HINCRBYFLOAT h ld 1.1e4932",
        "HINCRBYFLOAT h new inf",
        "HINCRBYFLOAT other new -inf",
        "HSETNX h text y",
    ] {
        assert!(effects(&mut bare, line).is_empty(), "{line}");
    }
    assert_eq!(run(&mut bare, "HGET h text"), "$1\\r\\nx\\r\\n");
    assert_eq!(bare.len(DbIndex(0)), 1);
}

#[test]
fn hincrbyfloat_journals_the_value() {
    let mut bare = Bare::new(1, 1);
    run(&mut bare, "HSET h f 10");
    assert_eq!(effects(&mut bare, "HINCRBYFLOAT h f 0.1"), ["HSET h f 10.1"]);
    assert_eq!(effects(&mut bare, "HINCRBY h g 3"), ["HINCRBY h g 3"]);
    assert_eq!(effects(&mut bare, "HMSET h a 1 b 2"), ["HMSET h a 1 b 2"]);
}

#[test]
fn random_fields_that_are_distinct_are_each_there_once() {
    for len in [10, 600, 9_000] {
        let (mut bare, mut client) = filled(len);
        for count in [1, 2, len / 2, len - 1, len, len + 1] {
            let reply = call(&mut bare, &mut client, &format!("HRANDFIELD h {count} WITHVALUES"));
            let wanted = count.min(len);
            assert!(reply.starts_with(&format!("*{}\r\n", wanted * 2)));
            let all = pairs(&bulks(&reply));
            assert_eq!(all.len(), wanted, "{count} of {len}");
            assert!(all.iter().all(|(field, value)| field[1..] == value[1..]));
            let reply = call(&mut bare, &mut client, &format!("HRANDFIELD h {count}"));
            assert_eq!(bulks(&reply).into_iter().collect::<BTreeSet<_>>().len(), wanted);
        }
    }
}

#[test]
fn random_fields_that_may_repeat_are_as_many_as_asked() {
    for len in [3, 600] {
        let (mut bare, mut client) = filled(len);
        for count in [1, 2, 50, 9_000] {
            let reply = call(&mut bare, &mut client, &format!("HRANDFIELD h -{count} withvalues"));
            let all = bulks(&reply);
            assert_eq!(all.len(), count * 2);
            assert!(all.chunks(2).all(|pair| pair[0][1..] == pair[1][1..]));
        }
        let reply = call(&mut bare, &mut client, "HRANDFIELD h -9000");
        assert_eq!(bulks(&reply).into_iter().collect::<BTreeSet<_>>().len(), len);
        client.protocol = Protocol::Resp3;
        let reply = call(&mut bare, &mut client, "HRANDFIELD h -2 WITHVALUES");
        assert!(reply.starts_with("*2\r\n*2\r\n$"), "{reply}");
        let reply = call(&mut bare, &mut client, "HRANDFIELD h 2 WITHVALUES");
        assert!(reply.starts_with("*2\r\n*2\r\n$"), "{reply}");
    }
}

#[test]
fn random_field_of_a_packed_hash_is_any() {
    let (mut bare, mut client) = filled(20);
    let mut seen = BTreeSet::new();
    for _ in 0..400 {
        seen.extend(bulks(&call(&mut bare, &mut client, "HRANDFIELD h")));
        seen.extend(bulks(&call(&mut bare, &mut client, "HRANDFIELD h 1")));
    }
    assert_eq!(seen.len(), 20);
}

#[test]
fn hscan_until_the_cursor_is_zero_gives_each_field_once() {
    for len in [3, 512, 513, 5_000] {
        let (mut bare, mut client) = filled(len);
        for count in [1, 10, 700, 2_000, 3_000, usize::MAX / 2] {
            let (mut cursor, mut all) = ("0".to_owned(), Vec::new());
            loop {
                let line = format!("HSCAN h {cursor} COUNT {count}");
                let mut reply = bulks(&call(&mut bare, &mut client, &line));
                let fields = reply.split_off(1);
                assert!(reply[0] == "0" || fields.len() >= count * 2);
                all.extend(fields);
                cursor = reply.remove(0);
                if cursor == "0" {
                    break;
                }
            }
            assert_eq!(all.len(), len * 2);
            assert!(is_filled_with(&pairs(&all), len));
        }
        let line = "HSCAN h 0 MATCH f?[0-4] COUNT 100000";
        let some = bulks(&call(&mut bare, &mut client, line)).split_off(1);
        assert_eq!(some.len() / 2, (10..len.min(100)).filter(|n| n % 10 < 5).count());
    }
}

#[test]
fn every_command_with_odd_words_answers_something() {
    let mut bare = Bare::new(3, 1);
    let mut client = bare.client();
    let words: [&[u8]; 9] =
        [b"", b"0", b"-1", b"x", b"k", b"9223372036854775807", b"COUNT", b"1", b"\xff"];
    for spec in SPECS {
        for a in words {
            for b in words {
                let name = spec.name.as_bytes();
                let calls = [
                    &[name][..],
                    &[name, a],
                    &[name, a, b],
                    &[name, b"k", a, b],
                    &[name, a, a, b, a],
                ];
                for call in calls {
                    // A reply of that many elements would never end.
                    if spec.name == "hrandfield" && a.len() == 19 {
                        continue;
                    }
                    let reply = bare.call(&mut client, call);
                    assert!(reply.ends_with(b"\r\n"), "{}: {reply:?}", spec.name);
                }
            }
        }
    }
}
