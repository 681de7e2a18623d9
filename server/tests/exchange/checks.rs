//! What a reply may be.

use crate::common::shared::reply::{bulk, elements, integer};

/// Whether a reply may be.
pub(crate) type Check = Box<dyn Fn(&[u8]) -> bool + Send>;

pub(crate) fn exactly(text: &str) -> Check {
    let text = text.to_owned();
    Box::new(move |got| got == text.as_bytes())
}

pub(crate) fn number(n: usize) -> Check {
    exactly(&format!(":{n}\r\n"))
}

pub(crate) fn done() -> Check {
    Box::new(|got| !got.starts_with(b"-"))
}

/// `RENAME` and `RENAMENX`: done, not done, or there is no such key.
pub(crate) fn renamed() -> Check {
    Box::new(|got| !got.starts_with(b"-") || got == b"-ERR no such key\r\n")
}

/// The words of an array, if it is one of bulks.
pub(crate) fn words(reply: &[u8]) -> Option<Vec<String>> {
    let text = |word| Some(String::from_utf8_lossy(bulk(word)?).into_owned());
    elements(reply)?.into_iter().map(text).collect()
}

/// Whether these are all of the first `count` tokens, each once.
pub(crate) fn is_all(mut found: Vec<String>, count: usize) -> bool {
    found.sort_unstable();
    found.len() == count && found.into_iter().eq((0..count).map(token))
}

/// An array with the first `count` tokens, in any order.
pub(crate) fn tokens(count: usize) -> Check {
    Box::new(move |got| words(got).is_some_and(|found| is_all(found, count)))
}

/// The replies of a transaction, of which each is a number: this together.
pub(crate) fn sum(of: usize) -> Check {
    Box::new(move |got| {
        let all: Option<Vec<i64>> =
            elements(got).map(|all| all.into_iter().filter_map(integer).collect());
        all.is_some_and(|all| all.iter().sum::<i64>() == of as i64)
    })
}

/// The replies of a transaction: those at these places hold the same words, in any order.
pub(crate) fn same_words(places: &'static [usize]) -> Check {
    Box::new(move |got| {
        let Some(all) = elements(got) else { return false };
        let sorted = |at: &usize| {
            let mut found = words(all.get(*at)?)?;
            found.sort_unstable();
            Some(found)
        };
        let found: Vec<_> = places.iter().map(sorted).collect();
        found.iter().all(|words| words.is_some() && *words == found[0])
    })
}

/// The replies of a transaction: those at these places are the same.
pub(crate) fn same(places: &'static [usize]) -> Check {
    Box::new(move |got| {
        let Some(all) = elements(got) else { return false };
        places.iter().all(|&at| all.get(at).is_some_and(|reply| *reply == all[places[0]]))
    })
}

/// A number between these, both included.
pub(crate) fn within_range(least: usize, most: usize) -> Check {
    Box::new(move |got| integer(got).is_some_and(|n| (least as i64..=most as i64).contains(&n)))
}

/// The name of a token.
pub(crate) fn token(i: usize) -> String {
    format!("t{i:04}")
}
