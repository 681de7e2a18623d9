//! Key extraction: which words of a call are keys, by the specs' rules.

use crate::commands::args::{Args, is_token};
use crate::commands::spec::{Begin, CommandSpec, Find, KeySpec};
use crate::commands::table::table;
use crate::resp::number::parse_i64;

/// Index of a key among the words, with the rule that found it.
#[derive(Clone, Copy, Debug)]
pub struct FoundKey {
    /// Which word.
    pub index: usize,
    /// By which rule.
    pub spec: &'static KeySpec,
}

/// Appends the keys of a call to `found`; `false` if the words break a rule (a count that is no
/// number, or larger than the call).
pub fn find_keys(spec: &'static CommandSpec, args: &Args<'_>, found: &mut Vec<FoundKey>) -> bool {
    spec.keys.iter().all(|rule| find_by_rule(rule, args, found))
}

fn find_by_rule(rule: &'static KeySpec, args: &Args<'_>, found: &mut Vec<FoundKey>) -> bool {
    let words = args.len();
    let begin = match rule.begin {
        Begin::Index(index) => usize::from(index),
        Begin::Keyword { keyword, start_from } => match keyword_at(args, keyword, start_from) {
            Some(index) => index + 1,
            None => return true,
        },
        Begin::Unknown => {
            if let Find::Behind(token) = rule.find {
                let behind = (2..words).filter(|&i| is_token(args.at(i - 1), token));
                found.extend(behind.map(|index| FoundKey { index, spec: rule }));
            }
            if let Find::Wrapped(at) = rule.find {
                return find_wrapped(usize::from(at), args, found);
            }
            return true;
        }
    };
    if begin >= words {
        return true;
    }
    let (first, last, step) = match rule.find {
        Find::Range { last, step, limit } => {
            let last = if last >= 0 {
                begin + last as usize
            } else if limit > 1 {
                let rest = words - begin;
                (begin + rest / usize::from(limit)).saturating_sub(1)
            } else {
                match words.checked_sub(last.unsigned_abs() as usize) {
                    Some(last) => last,
                    None => return true,
                }
            };
            (begin, last, usize::from(step).max(1))
        }
        Find::Count { count_index, first, step } => {
            let Some(word) = args.get(begin + usize::from(count_index)) else {
                return false;
            };
            let Some(count) = parse_i64(word).and_then(|n| usize::try_from(n).ok()) else {
                return false;
            };
            let first = begin + usize::from(first);
            let step = usize::from(step).max(1);
            if count == 0 || count > words || first + (count - 1) * step >= words {
                return count == 0;
            }
            (first, first + (count - 1) * step, step)
        }
        Find::Behind(_) | Find::Named(_) | Find::Wrapped(_) | Find::Unknown => return true,
    };
    if last >= words {
        return false;
    }
    found.extend((first..=last).step_by(step).map(|index| FoundKey { index, spec: rule }));
    true
}

/// The keys of the call that begins at word `at`; none if there is no such command.
fn find_wrapped(at: usize, args: &Args<'_>, found: &mut Vec<FoundKey>) -> bool {
    let Some(spec) = wrapped_spec(at, args) else { return true };
    let before = found.len();
    let is_whole = find_keys(spec, &args.behind(at), found);
    found[before..].iter_mut().for_each(|key| key.index += at);
    is_whole
}

/// What the call at word `at` is a call of. Calls that wrap others are not wrapped themselves.
fn wrapped_spec(at: usize, args: &Args<'_>) -> Option<&'static CommandSpec> {
    let command = table().get(args.get(at)?)?;
    let sub = args.get(at + 1).and_then(|word| command.subcommand(word));
    let spec = sub.unwrap_or(command).spec;
    let wraps = spec.keys.iter().any(|rule| matches!(rule.find, Find::Wrapped(_)));
    (!wraps).then_some(spec)
}

/// Whether the data of a call names further keys, which may be anywhere.
pub fn names_keys(spec: &'static CommandSpec, args: &Args<'_>) -> bool {
    spec.keys.iter().any(|rule| match rule.find {
        Find::Named(tokens) => (2..args.len()).any(|i| {
            args.at(i).contains(&b'*') && tokens.iter().any(|token| is_token(args.at(i - 1), token))
        }),
        Find::Wrapped(at) => wrapped_spec(usize::from(at), args)
            .is_some_and(|spec| names_keys(spec, &args.behind(usize::from(at)))),
        _ => false,
    })
}

fn keyword_at(args: &Args<'_>, keyword: &str, start_from: i32) -> Option<usize> {
    let words = args.len();
    if start_from >= 0 {
        (start_from as usize..words).find(|&i| is_token(args.at(i), keyword))
    } else {
        let from = words.checked_sub(start_from.unsigned_abs() as usize)?;
        (1..=from).rev().find(|&i| is_token(args.at(i), keyword))
    }
}
