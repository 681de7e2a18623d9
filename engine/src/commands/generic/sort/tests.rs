//! SORT on a bare server: long collections and journals. Fixtures compare replies with Redis.

use super::*;
use crate::commands::bare::Bare;
use crate::commands::string::tests::{effects, run};

fn row(text: &mut Text, element: &str, weight: &str) -> Row {
    let element = text.push(element.as_bytes());
    Row { element, weight: Weight::Text(text.push(weight.as_bytes())) }
}

/// Rows of which many are equal.
fn rows(text: &mut Text, len: usize) -> Vec<Row> {
    (0..len).map(|n| row(text, &n.to_string(), &(n * 7919 % 101).to_string())).collect()
}

#[test]
fn merge_sort_in_steps_is_stable() {
    for len in [0, 1, 511, 512, 513, 1024, 1025, 5_000, 20_000] {
        for descending in [false, true] {
            let order = Order { descending, exact: true };
            let mut text = Text::default();
            let mut rows = rows(&mut text, len);
            let mut model = rows.clone();
            model.sort_by(|a, b| order.compare(&text, a, b));
            let mut merge = MergeSort::default();
            while !merge.step(&mut rows, &text, order) {}
            assert!(rows.iter().zip(&model).all(|(a, b)| a.element == b.element), "{len}");
        }
    }
}

#[test]
fn sorted_part_is_where_a_whole_sort_puts_it() {
    let order = Order { descending: false, exact: true };
    for len in [1, 6, 7, 8, 40, 41, 500, 1_999] {
        let mut text = Text::default();
        let unsorted = rows(&mut text, len);
        let mut whole = unsorted.clone();
        whole.sort_by(|a, b| order.compare(&text, a, b));
        for (first, last) in [(0, len - 1), (len / 3, len / 2), (0, 0), (len - 1, len - 1)] {
            let mut part = unsorted.clone();
            sort_part(&mut part, first, last, &|a, b| order.compare(&text, a, b));
            for (a, b) in part[first..=last].iter().zip(&whole[first..=last]) {
                assert!(order.compare(&text, a, b).is_eq(), "{len} {first} {last}");
            }
        }
    }
}

#[test]
fn score_is_read_as_c_reads_it() {
    for (text, score) in [
        (&b""[..], Some(0.0)),
        (b" \t12", Some(12.0)),
        (b"12 ", None),
        (b" ", None),
        (b"1\0abc", Some(1.0)),
        (b"\0", Some(0.0)),
        (b"0x10", Some(16.0)),
        (b"-inf", Some(f64::NEG_INFINITY)),
        (b"nan", None),
        (b"1e400", None),
        (b"abc", None),
    ] {
        assert_eq!(score_of(text), score, "{text:?}");
    }
}

#[test]
fn pattern_of_a_hash_needs_a_field() {
    let key = |prefix: &str, suffix: &str, field: Option<&str>| Pattern::Key {
        prefix: prefix.into(),
        suffix: suffix.into(),
        field: field.map(Into::into),
    };
    for (word, pattern) in [
        (&b"#"[..], Pattern::Element),
        (b"fixed", Pattern::Nothing),
        (b"a->b*", key("a->b", "", None)),
        (b"w_*_x->f", key("w_", "_x", Some("f"))),
        (b"w_*->", key("w_", "->", None)),
        (b"w_*->a->b", key("w_", "", Some("a->b"))),
        (b"a\0*", Pattern::Nothing),
        (b"*->\0f", key("", "->\0f", None)),
    ] {
        assert_eq!(Pattern::new(word), pattern, "{word:?}");
    }
}

#[test]
fn keys_of_patterns_may_be_on_any_shard() {
    let mut bare = Bare::new(8, 1);
    for n in 0..40 {
        run(&mut bare, &format!("RPUSH l {n}"));
        run(&mut bare, &format!("SET w_{n} {}", 100 - n));
        run(&mut bare, &format!("HSET h_{n} f v{n}"));
    }
    let reply = run(&mut bare, "SORT l BY w_* GET h_*->f LIMIT 0 2");
    assert_eq!(reply, "*2\\r\\n$3\\r\\nv39\\r\\n$3\\r\\nv38\\r\\n");
    let reply = run(&mut bare, "SORT l GET STORE LIMIT 0 1 STORE elsewhere STORE d");
    assert_eq!(reply, ":1\\r\\n");
}

#[test]
fn store_leaves_the_value_in_the_journal() {
    let mut bare = Bare::new(1, 1);
    run(&mut bare, "RPUSH l 2 1");
    assert!(effects(&mut bare, "SORT l").is_empty());
    let stored = effects(&mut bare, "SORT l STORE d");
    assert_eq!(stored.len(), 1);
    assert!(stored[0].starts_with("RESTORE d"), "{stored:?}");
    assert_eq!(effects(&mut bare, "SORT none STORE d"), ["DEL d"]);
    assert!(effects(&mut bare, "SORT none STORE d").is_empty());
}

#[test]
fn long_list_is_sorted_stored_and_streamed() {
    let mut bare = Bare::new(1, 1);
    for n in 0..9_000 {
        run(&mut bare, &format!("RPUSH l {}", (n * 7919) % 9_000));
    }
    assert_eq!(run(&mut bare, "SORT l STORE d"), ":9000\\r\\n");
    for n in [0, 1, 4_711, 8_999] {
        let digits = n.to_string();
        let bulk = format!("${}\\r\\n{n}\\r\\n", digits.len());
        assert_eq!(run(&mut bare, &format!("LINDEX d {n}")), bulk);
    }
    assert_eq!(run(&mut bare, "SORT l"), run(&mut bare, "LRANGE d 0 -1"));
    assert_eq!(run(&mut bare, "SORT d DESC BY nosort"), run(&mut bare, "SORT l DESC"));
}
