//! The family on a bare server: what fixtures cannot compare with Redis to the byte.

use super::*;
use crate::commands::args::OwnedArgs;
use crate::commands::bare::Bare;
use crate::commands::ctx::{Ctx, Later, Shards};
use crate::commands::dispatch;
use crate::commands::long::LongOp;
use crate::commands::string::tests::{effects, run};
use crate::commands::table::{Command, table};
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

/// A list `l` of the numbers below `len`.
fn filled(len: usize) -> Bare {
    let mut bare = Bare::new(2, 1);
    let mut client = bare.client();
    for n in 0..len {
        bare.call(&mut client, &[b"RPUSH", b"l", n.to_string().as_bytes()]);
    }
    bare
}

fn range(bare: &mut Bare, line: &str) -> Vec<String> {
    let reply = run(bare, line);
    let mut lines = reply.split("\\r\\n").skip(1);
    let mut all = Vec::new();
    while let (Some(_), Some(text)) = (lines.next(), lines.next()) {
        all.push(text.to_owned());
    }
    all
}

#[test]
fn specs_of_the_family_are_sorted() {
    assert!(SPECS.is_sorted_by_key(|spec| spec.name));
}

#[test]
fn long_ranges_are_streamed_whole_in_either_direction() {
    for len in [3_999, 4_000, 30_000] {
        let mut bare = filled(len);
        let all = range(&mut bare, "LRANGE l 0 -1");
        assert!(all.iter().enumerate().all(|(n, text)| *text == n.to_string()));
        assert_eq!(all.len(), len);
        let part = range(&mut bare, "LRANGE l 1 -2");
        assert_eq!(part, all[1..len - 1]);
        let popped = range(&mut bare, &format!("RPOP l {}", len - 1));
        assert!(popped.iter().eq(all[1..].iter().rev()));
        assert_eq!(range(&mut bare, "LPOP l 4000"), ["0"]);
        assert!(bare.is_empty(DbIndex(0)));
    }
}

#[test]
fn long_elements_are_streamed_however_few() {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    let element = vec![b'x'; 100_000];
    for _ in 0..20 {
        bare.call(&mut client, &[b"RPUSH", b"l", &element]);
    }
    let reply = bare.call(&mut client, &[b"LRANGE", b"l", b"0", b"-1"]);
    assert_eq!(reply.len(), "*20\r\n".len() + 20 * ("$100000\r\n".len() + 100_000 + 2));
}

#[test]
fn effects_touch_one_key_each_and_replay() {
    let mut bare = Bare::new(1, 1);
    let cases: [(&str, &[&str]); 12] = [
        ("RPUSH l a b c d e f", &["RPUSH l a b c d e f"]),
        ("LMOVE l m LEFT RIGHT", &["RPUSH m a", "LPOP l"]),
        ("RPOPLPUSH l m", &["LPUSH m f", "RPOP l"]),
        ("LMOVE m m LEFT RIGHT", &["LMOVE m m LEFT RIGHT"]),
        ("BLMOVE l m LEFT LEFT 0", &["LPUSH m b", "LPOP l"]),
        ("LMPOP 2 none l RIGHT COUNT 2", &["RPOP l 2"]),
        ("BLPOP none l 0", &["LPOP l"]),
        ("BLMPOP 0 1 m LEFT COUNT 9", &["LPOP m 9"]),
        ("LPUSHX l a", &[]),
        ("LREM l 0 a", &[]),
        ("LINSERT l BEFORE a b", &[]),
        ("LTRIM l 0 1", &[]),
    ];
    for (line, expected) in cases {
        assert_eq!(effects(&mut bare, line), expected, "{line}");
    }
    assert!(bare.is_empty(DbIndex(0)));
}

#[test]
fn search_that_changes_nothing_leaves_no_effect() {
    let mut bare = filled(10);
    for line in ["LREM l 0 a", "LINSERT l BEFORE a b", "LPOP l 0", "LMOVE none l LEFT LEFT"] {
        assert!(effects(&mut bare, line).is_empty(), "{line}");
    }
}

#[test]
fn long_change_begins_anew_when_the_list_has_changed() {
    let mut bare = filled(5_000);
    for (line, reply) in [("LREM l 0 77", ":2\r\n"), ("LINSERT l AFTER 4000 x", ":5001\r\n")] {
        let op = begin(&mut bare, line);
        run(&mut bare, "RPUSH l 77");
        let op = end(&mut bare, line, op).expect_err("the list has changed");
        assert_eq!(end(&mut bare, line, op).expect("it has not changed again"), reply);
    }
    assert_eq!(run(&mut bare, "LPOS l x"), ":4000\\r\\n");
    assert_eq!(run(&mut bare, "LPOS l 77 COUNT 0"), "*1\\r\\n:5000\\r\\n");
}

#[test]
fn long_change_of_a_busy_list_ends_all_the_same() {
    let mut bare = filled(5_000);
    let line = "LREM l -1 9";
    let mut op = begin(&mut bare, line);
    for _ in 0..10 {
        run(&mut bare, "RPUSH l 9");
        match end(&mut bare, line, op) {
            Ok(reply) => return assert_eq!(reply, ":1\r\n"),
            Err(again) => op = again,
        }
    }
    panic!("it never ends");
}

#[test]
fn long_change_of_a_list_that_is_gone_replies_as_for_none() {
    let mut bare = filled(5_000);
    let op = begin(&mut bare, "LREM l 0 1");
    run(&mut bare, "DEL l");
    assert_eq!(end(&mut bare, "LREM l 0 1", op).expect("there is nothing to begin"), ":0\r\n");
}

#[test]
fn long_search_agrees_with_a_short_one() {
    let mut bare = filled(5_000);
    for word in 0..100 {
        run(&mut bare, &format!("RPUSH l {word}"));
    }
    for (options, reply) in [
        ("", ":7\r\n"),
        (" RANK 2", ":5007\r\n"),
        (" RANK -1 MAXLEN 93", ":5007\r\n"),
        (" RANK -1 MAXLEN 92", "$-1\r\n"),
        (" RANK 2 MAXLEN 5007", "$-1\r\n"),
        (" RANK -1 COUNT 0", "*2\r\n:5007\r\n:7\r\n"),
    ] {
        let line = format!("LPOS l 7{options}");
        let op = begin(&mut bare, &line);
        assert_eq!(end(&mut bare, &line, op).expect("a read ends"), reply, "{line}");
        assert_eq!(run(&mut bare, &line), reply.as_bytes().escape_ascii().to_string(), "{line}");
    }
}

#[test]
fn removal_of_all_deletes_the_key_at_once_or_later() {
    for len in [3, 5_000] {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        for _ in 0..len {
            bare.call(&mut client, &[b"RPUSH", b"l", b"same"]);
        }
        let line = "LREM l 0 same";
        let reply = match len {
            3 => run(&mut bare, line).replace("\\r\\n", "\r\n"),
            _ => {
                let op = begin(&mut bare, line);
                end(&mut bare, line, op).expect("nobody has changed it")
            }
        };
        assert_eq!(reply, format!(":{len}\r\n"));
        assert!(bare.is_empty(DbIndex(0)));
    }
}
