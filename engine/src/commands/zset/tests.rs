//! What fixtures cannot show: effects, long commands, streams, and walks while members come and go.

use std::collections::BTreeMap;

use crate::commands::args::OwnedArgs;
use crate::commands::bare::Bare;
use crate::commands::ctx::{Ctx, Later, Shards};
use crate::commands::dispatch;
use crate::commands::long::LongOp;
use crate::commands::string::tests::{effects, run};
use crate::commands::table::{Command, table};
use crate::commands::zset::SPECS;
use crate::resp::reply::{OutBuf, Protocol, Reply};
use crate::units::{CoreId, DbIndex};

/// Runs `work` on a call as a core does that may leave the end of it to later.
fn deferring<R>(
    bare: &mut Bare,
    line: &str,
    work: impl FnOnce(&'static Command, &mut Ctx<'_>, &OwnedArgs, &mut Reply<'_>) -> R,
) -> (R, String) {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let command = table().get(words[0]).expect("the command exists");
    let shards = Shards::Many(&mut bare.held);
    let (clock, now) = (&mut bare.clock, bare.now);
    let mut ctx = dispatch::ctx(bare.node, CoreId(0), shards, clock, now, DbIndex(0), command);
    ctx.may_defer = true;
    ctx.may_leave_reads = true;
    let mut out = OutBuf::default();
    let mut reply = Reply::new(&mut out, Protocol::Resp2);
    let result = work(command, &mut ctx, &OwnedArgs::of(&words), &mut reply);
    (result, String::from_utf8(out.to_vec()).expect("replies here are ASCII"))
}

fn begin(bare: &mut Bare, line: &str) -> Box<dyn LongOp> {
    let (later, _) = deferring(bare, line, |command, ctx, words, reply| {
        dispatch::run_data(command, ctx, &words.args(), reply);
        std::mem::take(&mut ctx.later)
    });
    match later {
        Later::Long(op) => op,
        other => panic!("`{line}` is not long: {other:?}"),
    }
}

/// Ends a long call. What it says, or that it begins anew.
fn end(bare: &mut Bare, line: &str, mut op: Box<dyn LongOp>) -> Result<String, Box<dyn LongOp>> {
    while !op.step() {}
    let (later, reply) = deferring(bare, line, |command, ctx, words, reply| {
        dispatch::finish_long(command, op, ctx, &words.args(), reply);
        std::mem::take(&mut ctx.later)
    });
    match later {
        Later::Long(op) => Err(op),
        _ => Ok(reply),
    }
}

/// Runs a call that is long, to its end.
fn run_long(bare: &mut Bare, line: &str) -> String {
    let op = begin(bare, line);
    end(bare, line, op).unwrap_or_else(|_| panic!("`{line}` begins anew")).replace("\r\n", "\\r\\n")
}

/// A member's name and score for each number.
fn fill(bare: &mut Bare, key: &str, len: usize, score: impl Fn(usize) -> usize) {
    let pairs: Vec<String> = (0..len).map(|n| format!("{} m{n:05}", score(n))).collect();
    for some in pairs.chunks(500) {
        run(bare, &format!("ZADD {key} {}", some.join(" ")));
    }
}

/// The bulk strings of an escaped reply.
fn bulks(reply: &str) -> Vec<String> {
    let mut lines = reply.split("\\r\\n");
    let mut bulks = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('$') {
            bulks.push(lines.next().expect("a length is followed by its bytes").to_owned());
        }
    }
    bulks
}

#[test]
fn specs_of_the_family_are_sorted() {
    assert!(SPECS.is_sorted_by_key(|spec| spec.name));
}

#[test]
fn every_command_with_odd_words_answers_something() {
    let mut bare = Bare::new(3, 1);
    let words = ["\"\"", "0", "-1", "x", "k", "9223372036854775807", "LIMIT", "\"\\xff\"", "nan"];
    let is_endless = |name: &str, count: &str| name == "zrandmember" && count.starts_with('-');
    for spec in SPECS {
        for a in words {
            for b in words {
                let name = spec.name;
                if is_endless(name, a) || is_endless(name, b) {
                    continue;
                }
                for call in [
                    format!("{name} {a}"),
                    format!("{name} {a} {b}"),
                    format!("{name} k {a} {b}"),
                    format!("{name} k {a} {b} {a} {b}"),
                    format!("{name} 1 k {a} {b}"),
                    format!("{name} k 1 k {a} {b}"),
                ] {
                    assert!(run(&mut bare, &call).ends_with("\\r\\n"), "{call}");
                    run(&mut bare, "ZADD k 1 a 2 b 3 k 4 x");
                }
            }
        }
    }
}

#[test]
fn effects_touch_one_key_each_and_replay() {
    let mut bare = Bare::new(3, 1);
    let none: &[&str] = &[];
    let cases: [(&str, &[&str]); 14] = [
        ("ZADD k 1 a 2 b 3 c 4 d 5 e", &["ZADD k 1 a 2 b 3 c 4 d 5 e"]),
        ("ZADD k 1 a", none),
        ("ZADD k GT INCR 1 a", &["ZADD k GT INCR 1 a"]),
        ("ZINCRBY k -1 a", &["ZINCRBY k -1 a"]),
        ("ZREM k nope", none),
        ("ZREMRANGEBYSCORE k 9 10", none),
        ("ZPOPMIN k 0", none),
        ("ZPOPMIN k", &["ZPOPMIN k"]),
        ("ZMPOP 2 none k MAX COUNT 2", &["ZPOPMAX k 2"]),
        ("ZMPOP 1 none MIN", none),
        ("BZPOPMIN none k 0", &["ZPOPMIN k 1"]),
        ("BZMPOP 0 2 none k MIN COUNT 9", &["ZPOPMIN k 1"]),
        ("ZUNIONSTORE d 2 none k", none),
        ("ZRANGESTORE d k 0 -1", none),
    ];
    for (line, expected) in cases {
        assert_eq!(effects(&mut bare, line), expected, "{line}");
    }
    assert!(bare.is_empty(DbIndex(0)));
    run(&mut bare, "SET d v");
    assert_eq!(effects(&mut bare, "ZINTERSTORE d 2 none k"), ["DEL d"]);
}

#[test]
fn long_ranges_are_streamed_whole_in_either_direction() {
    let mut bare = Bare::new(2, 1);
    fill(&mut bare, "z", 10_000, |n| n / 3);
    let all: Vec<String> = (0..10_000).map(|n| format!("m{n:05}")).collect();
    assert_eq!(bulks(&run(&mut bare, "ZRANGE z 0 -1")), all);
    assert_eq!(bulks(&run(&mut bare, "ZRANGEBYSCORE z 1 (3000")), all[3..9000]);
    let mut down = bulks(&run(&mut bare, "ZREVRANGEBYSCORE z +inf -inf LIMIT 7 9000"));
    down.reverse();
    assert_eq!(down, all[993..9993]);
    let pairs = bulks(&run(&mut bare, "ZPOPMAX z 6000"));
    assert_eq!((&pairs[0][..], &pairs[1][..], pairs.len()), ("m09999", "3333", 12_000));
    assert_eq!(run(&mut bare, "ZCARD z"), ":4000\\r\\n");
    let once = bulks(&run(&mut bare, "ZRANDMEMBER z 3999"));
    assert_eq!(once.iter().collect::<std::collections::BTreeSet<_>>().len(), 3999);
}

#[test]
fn long_removals_agree_with_short_ones() {
    for (line, left) in [
        ("ZREMRANGEBYSCORE z 10 (5000", 1_010),
        ("ZREMRANGEBYRANK z 1 -2", 2),
        ("ZREMRANGEBYLEX z [m00100 (m05000", 1_100),
        ("ZPOPMIN z 5500", 500),
        ("ZPOPMAX z 5999", 1),
    ] {
        let (mut short, mut long) = (Bare::new(2, 1), Bare::new(2, 1));
        for bare in [&mut short, &mut long] {
            fill(bare, "z", 6_000, |n| if line.contains("LEX") { 0 } else { n });
        }
        assert_eq!(run_long(&mut long, line), run(&mut short, line), "{line}");
        assert_eq!(run(&mut long, "ZCARD z"), format!(":{left}\\r\\n"), "{line}");
        let rest = run(&mut short, "ZRANGE z 0 -1 WITHSCORES");
        assert_eq!(run(&mut long, "ZRANGE z 0 -1 WITHSCORES"), rest, "{line}");
    }
}

#[test]
fn long_removal_begins_anew_when_the_set_has_changed_and_ends_all_the_same() {
    let mut bare = Bare::new(2, 1);
    fill(&mut bare, "z", 6_000, |n| n);
    let line = "ZREMRANGEBYSCORE z 0 4999";
    let mut op = begin(&mut bare, line);
    for n in 0..20 {
        run(&mut bare, &format!("ZADD z 1.5 new{n}"));
        match end(&mut bare, line, op) {
            Ok(reply) => {
                assert_eq!(reply, format!(":{}\r\n", 5_001 + n));
                return assert_eq!(run(&mut bare, "ZCARD z"), ":1000\\r\\n");
            }
            Err(again) => op = again,
        }
    }
    panic!("it never ends");
}

#[test]
fn long_removal_from_a_set_that_is_gone_replies_as_for_none() {
    for (line, reply) in [("ZREMRANGEBYRANK z 0 4000", ":0\r\n"), ("ZPOPMIN z 4000", "*0\r\n")] {
        let mut bare = Bare::new(2, 1);
        fill(&mut bare, "z", 6_000, |n| n);
        let op = begin(&mut bare, line);
        run(&mut bare, "DEL z");
        assert_eq!(end(&mut bare, line, op).expect("there is nothing to begin"), reply);
    }
}

#[test]
fn long_stores_begin_anew_when_a_source_has_changed() {
    let mut bare = Bare::new(2, 1);
    fill(&mut bare, "a", 5_000, |n| n);
    fill(&mut bare, "b", 6_000, |_| 1);
    for (line, reply) in [
        ("ZUNIONSTORE d 2 a b", ":6001\r\n"),
        ("ZINTERSTORE d 2 a b", ":5000\r\n"),
        ("ZDIFFSTORE d 2 b a", ":1001\r\n"),
        ("ZRANGESTORE d a 0 -2", ":4999\r\n"),
    ] {
        let op = begin(&mut bare, line);
        run(&mut bare, "ZADD a 7 m00003");
        run(&mut bare, "ZADD b 1 new");
        let op = end(&mut bare, line, op).expect_err("a source has changed");
        assert_eq!(end(&mut bare, line, op).expect("none has changed again"), reply, "{line}");
        run(&mut bare, "ZADD a 3 m00003");
        run(&mut bare, "ZREM b new");
        run(&mut bare, "ZADD b 1 new");
    }
    assert_eq!(run(&mut bare, "ZCARD d"), ":4999\\r\\n");
}

/// Members and scores of a walk with ZSCAN. Between its calls the set changes.
fn scan(
    bare: &mut Bare,
    count: usize,
    mut change: impl FnMut(&mut Bare),
) -> BTreeMap<String, String> {
    let (mut cursor, mut seen) = ("0".to_owned(), BTreeMap::new());
    loop {
        let mut reply = bulks(&run(bare, &format!("ZSCAN z {cursor} COUNT {count}")));
        let rest = reply.split_off(1);
        cursor.clone_from(&reply[0]);
        seen.extend(rest.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())));
        if cursor == "0" {
            return seen;
        }
        change(bare);
    }
}

#[test]
fn zscan_sees_every_lasting_member_while_scores_change_and_others_come_and_go() {
    for scores in [1, 7, 3_000] {
        for count in [10, 999] {
            let mut bare = Bare::new(1, 1);
            fill(&mut bare, "z", 3_000, |n| n % scores);
            assert_eq!(scan(&mut bare, count, |_| {}).len(), 3_000);
            let mut n = 0;
            let seen = scan(&mut bare, count, |bare| {
                n += 1;
                run(bare, &format!("ZADD z {n} extra{n}"));
                run(bare, &format!("ZREM z extra{}", n / 2));
                run(bare, &format!("ZADD z {} m{:05}", n * 17 % 50, n * 31 % 3_000));
            });
            assert!((0..3_000).all(|n| seen.contains_key(&format!("m{n:05}"))), "{scores} {count}");
        }
    }
}

#[test]
fn zscan_of_many_equal_scores_works_in_steps() {
    let mut bare = Bare::new(1, 1);
    fill(&mut bare, "z", 20_000, |_| 5);
    let reply = run_long(&mut bare, "ZSCAN z 0");
    // A call that has to look through so many gives more than the ten that it was asked for.
    assert!((100..1_000).contains(&bulks(&reply).len()), "{}", bulks(&reply).len());
    assert_eq!(scan(&mut bare, 10, |_| {}).len(), 20_000);
    assert_eq!(run(&mut bare, "ZSCAN z 4294967296"), "*2\\r\\n$1\\r\\n0\\r\\n*0\\r\\n");
}
