//! What fixtures cannot show: effects, long commands, chance, and encodings after a choice of ours.

use std::collections::{BTreeSet, HashMap};

use crate::commands::bare::Bare;
use crate::commands::set::SPECS;
use crate::commands::string::tests::{effects, run};

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

fn members(bare: &mut Bare, key: &str) -> BTreeSet<String> {
    bulks(&run(bare, &format!("SMEMBERS {key}"))).into_iter().collect()
}

fn encoding(bare: &mut Bare, key: &str) -> String {
    bulks(&run(bare, &format!("OBJECT ENCODING {key}"))).remove(0)
}

/// Makes a set of `{prefix}{from}` and so on.
fn fill(bare: &mut Bare, key: &str, prefix: &str, numbers: std::ops::Range<usize>) {
    let numbers: Vec<usize> = numbers.collect();
    for some in numbers.chunks(500) {
        let members: Vec<String> = some.iter().map(|n| format!("{prefix}{n}")).collect();
        run(bare, &format!("SADD {key} {}", members.join(" ")));
    }
}

fn words_of(effects: &[String]) -> Vec<Vec<&str>> {
    effects.iter().map(|effect| effect.split(' ').collect()).collect()
}

#[test]
fn specs_of_the_family_are_sorted() {
    assert!(SPECS.is_sorted_by_key(|spec| spec.name));
}

#[test]
fn every_command_with_odd_words_answers_something() {
    let mut bare = Bare::new(3, 1);
    let words = ["\"\"", "0", "-1", "x", "k", "9223372036854775807", "LIMIT", "\"\\xff\"", "COUNT"];
    for spec in SPECS {
        for a in words {
            for b in words {
                let name = spec.name;
                // A count of which each is answered takes for ever.
                if name == "srandmember" && b.starts_with('-') {
                    continue;
                }
                for call in [name.into(), format!("{name} {a}"), format!("{name} {a} {b}")] {
                    assert!(run(&mut bare, &call).ends_with("\\r\\n"), "{call}");
                    let call = format!("{name} k {a} {b} {a}");
                    assert!(run(&mut bare, &call).ends_with("\\r\\n"), "{call}");
                    run(&mut bare, "SADD k 1 2 k x");
                }
            }
        }
    }
}

#[test]
fn spop_journals_what_it_popped() {
    let mut bare = Bare::new(2, 3);
    fill(&mut bare, "s", "m", 0..20);
    let before = members(&mut bare, "s");
    let one = effects(&mut bare, "SPOP s");
    let some = effects(&mut bare, "SPOP s 5");
    let gone: BTreeSet<String> = words_of(&[one, some].concat())
        .into_iter()
        .flat_map(|words| {
            assert_eq!(words[..2], ["SREM", "s"]);
            words[2..].iter().map(|&word| word.to_owned()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(gone.len(), 6);
    let after = members(&mut bare, "s");
    assert_eq!(after, &before - &gone);
    assert_eq!(effects(&mut bare, "SPOP s 0"), Vec::<String>::new());
    assert_eq!(effects(&mut bare, "SPOP s 14"), ["DEL s"]);
    assert_eq!(effects(&mut bare, "SPOP s 14"), Vec::<String>::new());
    run(&mut bare, "SADD s only");
    assert_eq!(effects(&mut bare, "SPOP s"), ["SREM s only"]);
    assert_eq!(run(&mut bare, "EXISTS s"), ":0\\r\\n");
}

#[test]
fn smove_journals_one_effect_per_key_that_changes() {
    let mut bare = Bare::new(1, 1);
    run(&mut bare, "SADD a 1 2 x");
    run(&mut bare, "SADD b 2");
    assert_eq!(effects(&mut bare, "SMOVE a b 1"), ["SREM a 1", "SADD b 1"]);
    assert_eq!(effects(&mut bare, "SMOVE a b 2"), ["SREM a 2"]);
    assert_eq!(effects(&mut bare, "SMOVE a b 2"), Vec::<String>::new());
    assert_eq!(effects(&mut bare, "SMOVE a a x"), Vec::<String>::new());
    assert_eq!(effects(&mut bare, "SMOVE a new x"), ["SREM a x", "SADD new x"]);
    assert_eq!(run(&mut bare, "EXISTS a b new"), ":2\\r\\n");
}

#[test]
fn sadd_and_srem_are_journalled_only_if_they_change() {
    let mut bare = Bare::new(1, 1);
    assert_eq!(effects(&mut bare, "SADD s a a b"), ["SADD s a a b"]);
    assert_eq!(effects(&mut bare, "SADD s a"), Vec::<String>::new());
    assert_eq!(effects(&mut bare, "SREM s x"), Vec::<String>::new());
    assert_eq!(effects(&mut bare, "SREM s x b"), ["SREM s x b"]);
}

#[test]
fn stores_of_nothing_journal_the_end_of_the_key() {
    let mut bare = Bare::new(3, 1);
    run(&mut bare, "SET to x");
    assert_eq!(effects(&mut bare, "SUNIONSTORE to none nothing"), ["DEL to"]);
    assert_eq!(effects(&mut bare, "SUNIONSTORE to none nothing"), Vec::<String>::new());
}

/// The same calls on sets below and above the size from which commands are long.
#[test]
fn combinations_of_every_size_agree_with_std_sets() {
    for size in [6, 300, 1200, 6000] {
        let mut bare = Bare::new(3, 1);
        for prefix in ["", "m"] {
            run(&mut bare, "FLUSHALL");
            let ranges = [("a", 0..size), ("b", size / 3..size), ("c", size / 2..size + size / 2)];
            for (key, range) in ranges.clone() {
                fill(&mut bare, key, prefix, range);
            }
            let of = |range: std::ops::Range<usize>| -> BTreeSet<String> {
                range.map(|n| format!("{prefix}{n}")).collect()
            };
            let [a, b, c] = ranges.map(|(_, range)| of(range));
            let cases = [
                ("INTER", "a b c", &(&a & &b) & &c),
                ("INTER", "c", c.clone()),
                ("INTER", "a none", BTreeSet::new()),
                ("UNION", "a b c", &(&a | &b) | &c),
                ("UNION", "none a", a.clone()),
                ("DIFF", "a b c", &(&a - &b) - &c),
                ("DIFF", "c a", &c - &a),
                ("DIFF", "a none", a.clone()),
                ("DIFF", "none a", BTreeSet::new()),
                ("DIFF", "a a", BTreeSet::new()),
            ];
            for (kind, keys, want) in cases {
                let reply = run(&mut bare, &format!("S{kind} {keys}"));
                let got: Vec<String> = bulks(&reply);
                assert_eq!(got.len(), want.len(), "{kind} {keys} of {size}");
                assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), want);
                let stored = run(&mut bare, &format!("S{kind}STORE to {keys}"));
                assert_eq!(stored, format!(":{}\\r\\n", want.len()));
                assert_eq!(members(&mut bare, "to"), want);
                if kind == "INTER" {
                    let n = keys.split(' ').count();
                    let count = run(&mut bare, &format!("SINTERCARD {n} {keys}"));
                    assert_eq!(count, format!(":{}\\r\\n", want.len()));
                    let count = run(&mut bare, &format!("SINTERCARD {n} {keys} LIMIT 4"));
                    assert_eq!(count, format!(":{}\\r\\n", want.len().min(4)));
                }
            }
        }
    }
}

#[test]
fn results_take_the_encoding_that_redis_gives_them() {
    let mut bare = Bare::new(1, 1);
    run(&mut bare, "SADD mixed 1 2 3 a");
    run(&mut bare, "SADD ints 1 2 3");
    run(&mut bare, "SADD spoilt 1 2 x");
    run(&mut bare, "SREM spoilt x");
    fill(&mut bare, "many", "", 0..512);
    for (call, want) in [
        ("SINTERSTORE to mixed ints", "intset"),
        ("SUNIONSTORE to spoilt", "intset"),
        ("SUNIONSTORE to spoilt mixed", "hashtable"),
        ("SUNIONSTORE to many ints", "intset"),
        ("SUNIONSTORE to many mixed", "hashtable"),
        ("SINTERSTORE to many", "intset"),
        ("SDIFFSTORE to mixed none", "hashtable"),
        ("SDIFFSTORE to spoilt none", "intset"),
    ] {
        run(&mut bare, call);
        assert_eq!(encoding(&mut bare, "to"), want, "{call}");
    }
    run(&mut bare, "SADD last a");
    // Two small sets out of a large one: members are taken out of a copy, which keeps its form.
    fill(&mut bare, "large", "", 0..100);
    run(&mut bare, "SADD large a");
    run(&mut bare, "SDIFFSTORE to large last last");
    assert_eq!(encoding(&mut bare, "to"), "hashtable");
    run(&mut bare, "SDIFFSTORE to large mixed large");
    assert_eq!(run(&mut bare, "EXISTS to"), ":0\\r\\n");
}

#[test]
fn spop_that_leaves_few_integers_leaves_a_set_of_integers() {
    let mut bare = Bare::new(1, 1);
    for (count, want) in [(8, "hashtable"), (9, "intset")] {
        run(&mut bare, "DEL s");
        fill(&mut bare, "s", "", 0..10);
        run(&mut bare, "SADD s x");
        run(&mut bare, "SREM s x");
        run(&mut bare, &format!("SPOP s {count}"));
        assert_eq!(encoding(&mut bare, "s"), want);
    }
}

#[test]
fn spop_of_many_takes_each_once() {
    let mut bare = Bare::new(2, 5);
    for prefix in ["", "m"] {
        fill(&mut bare, "s", prefix, 0..9000);
        run(&mut bare, "EXPIRE s 100");
        let mut popped = BTreeSet::new();
        for count in [3, 2500, 1, 6000] {
            let some = bulks(&run(&mut bare, &format!("SPOP s {count}")));
            assert_eq!(some.len(), count);
            popped.extend(some);
            assert_eq!(run(&mut bare, "SCARD s"), format!(":{}\\r\\n", 9000 - popped.len()));
            assert_eq!(run(&mut bare, "TTL s"), ":100\\r\\n");
        }
        assert!(popped.is_disjoint(&members(&mut bare, "s")));
        assert_eq!(bulks(&run(&mut bare, "SPOP s 1000")).len(), 496);
        assert_eq!(run(&mut bare, "EXISTS s"), ":0\\r\\n");
    }
}

#[test]
fn srandmember_of_every_count_gives_members_of_the_set() {
    let mut bare = Bare::new(2, 5);
    for size in [1, 100, 600, 5000] {
        run(&mut bare, "DEL s");
        fill(&mut bare, "s", "m", 0..size);
        let all = members(&mut bare, "s");
        for count in [1, 2, size / 2, size - 1, size, size + 1, 3 * size] {
            let some = bulks(&run(&mut bare, &format!("SRANDMEMBER s {count}")));
            assert_eq!(some.len(), count.min(size));
            let distinct: BTreeSet<String> = some.iter().cloned().collect();
            assert_eq!(distinct.len(), some.len());
            assert!(distinct.is_subset(&all));
            if count > 0 {
                let some = bulks(&run(&mut bare, &format!("SRANDMEMBER s -{count}")));
                assert_eq!(some.len(), count);
                assert!(some.into_iter().all(|member| all.contains(&member)));
            }
        }
    }
}

#[test]
fn random_members_are_about_equally_likely() {
    let mut bare = Bare::new(1, 11);
    for (size, prefix) in [(50, ""), (50, "m"), (300, "m")] {
        run(&mut bare, "DEL s");
        fill(&mut bare, "s", prefix, 0..size);
        for count in ["", " 10", " -10"] {
            let mut counts: HashMap<String, usize> = HashMap::new();
            let calls = size * 200 / if count.is_empty() { 1 } else { 10 };
            for _ in 0..calls {
                for member in bulks(&run(&mut bare, &format!("SRANDMEMBER s{count}"))) {
                    *counts.entry(member).or_default() += 1;
                }
            }
            assert_eq!(counts.len(), size);
            // Six standard deviations around 200.
            assert!(counts.values().all(|n| (115..285).contains(n)), "{counts:?}");
        }
    }
}

#[test]
fn sscan_sees_every_lasting_member_while_others_come_and_go() {
    let mut bare = Bare::new(1, 1);
    fill(&mut bare, "s", "m", 0..1000);
    let (mut cursor, mut seen, mut churn) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let mut reply = bulks(&run(&mut bare, &format!("SSCAN s {cursor} COUNT 20")));
        cursor = reply.remove(0);
        seen.extend(reply);
        for _ in 0..40 {
            run(&mut bare, &format!("SADD s churn{churn}"));
            run(&mut bare, &format!("SREM s churn{}", churn / 2));
            churn += 1;
        }
        if cursor == "0" {
            break;
        }
    }
    assert!((0..1000).all(|n| seen.contains(&format!("m{n}"))));
}
