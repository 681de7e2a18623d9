//! A command's declaration as COMMAND, COMMAND INFO and COMMAND DOCS encode it.

use crate::commands::docs::shown_subcommands;
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Begin, CommandSpec, Find, Flags, KeySpec, Purpose,
};
use crate::commands::table::Command;
use crate::resp::reply::Reply;

/// Names of flags, in Redis' order. Redis: `may_replicate` is not shown.
const FLAG_NAMES: [(Flags, &str); 19] = [
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::BLOCKING, "blocking"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_MONITOR, "skip_monitor"),
    (Flags::SKIP_SLOWLOG, "skip_slowlog"),
    (Flags::ASKING, "asking"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::NO_MANDATORY_KEYS, "no_mandatory_keys"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::MOVABLE_KEYS, "movablekeys"),
    (Flags::ALLOW_BUSY, "allow_busy"),
];

/// Names of ACL categories, in Redis' order.
const ACL_NAMES: [(Acl, &str); 21] = [
    (Acl::KEYSPACE, "keyspace"),
    (Acl::READ, "read"),
    (Acl::WRITE, "write"),
    (Acl::SET, "set"),
    (Acl::SORTEDSET, "sortedset"),
    (Acl::LIST, "list"),
    (Acl::HASH, "hash"),
    (Acl::STRING, "string"),
    (Acl::BITMAP, "bitmap"),
    (Acl::HYPERLOGLOG, "hyperloglog"),
    (Acl::GEO, "geo"),
    (Acl::STREAM, "stream"),
    (Acl::PUBSUB, "pubsub"),
    (Acl::ADMIN, "admin"),
    (Acl::FAST, "fast"),
    (Acl::SLOW, "slow"),
    (Acl::BLOCKING, "blocking"),
    (Acl::DANGEROUS, "dangerous"),
    (Acl::CONNECTION, "connection"),
    (Acl::TRANSACTION, "transaction"),
    (Acl::SCRIPTING, "scripting"),
];

/// All ACL categories of a command: those declared and those that its flags imply.
pub fn acl_of(spec: &CommandSpec) -> Acl {
    let implied = [
        (Flags::WRITE, Acl::WRITE),
        (Flags::ADMIN, Acl::ADMIN.union(Acl::DANGEROUS)),
        (Flags::PUBSUB, Acl::PUBSUB),
        (Flags::FAST, Acl::FAST),
        (Flags::BLOCKING, Acl::BLOCKING),
    ];
    let mut acl = spec.acl;
    for (flag, category) in implied {
        if spec.flags.contains(flag) {
            acl |= category;
        }
    }
    // Redis: scripts that promise to read only are not in `@read`.
    if spec.flags.contains(Flags::READONLY) && !acl.contains(Acl::SCRIPTING) {
        acl |= Acl::READ;
    }
    if !spec.flags.contains(Flags::FAST) {
        acl |= Acl::SLOW;
    }
    acl
}

/// The names of ACL categories, without `@`.
pub fn acl_names(acl: Acl) -> impl Iterator<Item = &'static str> {
    ACL_NAMES.iter().filter(move |(category, _)| acl.contains(*category)).map(|(_, name)| *name)
}

/// The category of this name, in any case.
pub(super) fn acl_by_name(name: &[u8]) -> Option<Acl> {
    let hit = ACL_NAMES.iter().find(|(_, n)| name.eq_ignore_ascii_case(n.as_bytes()));
    hit.map(|(category, _)| *category)
}

/// The names of flags, in Redis' order.
pub(super) fn flag_names(flags: Flags) -> Vec<&'static str> {
    FLAG_NAMES.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect()
}

/// First key, last key and step as COMMAND told it before there were key specs: (0, 0, 0) if no
/// range says it.
///
/// # Source
/// Redis 7.0: ranges that follow each other with step 1 are joined, others are left out.
pub fn legacy_range(keys: &[KeySpec]) -> (i64, i64, i64) {
    let ranges = keys.iter().filter_map(|key| match (key.begin, key.find) {
        (Begin::Index(first), Find::Range { last, step, .. }) => {
            let first = i64::from(first);
            let last = i64::from(last);
            Some((first, if last >= 0 { first + last } else { last }, i64::from(step)))
        }
        _ => None,
    });
    let ranges: Vec<_> = ranges.collect();
    if let ([range], 1) = (&ranges[..], keys.len()) {
        return *range;
    }
    let mut joined: Option<(i64, i64)> = None;
    for (first, last, step) in ranges {
        match joined {
            _ if step != 1 => {}
            None => joined = Some((first, last)),
            // Unsigned, so that an end counted from the last word is behind every other.
            Some((from, to)) if to == first - 1 => {
                joined = Some((from.min(first), (to as u64).max(last as u64) as i64));
            }
            Some(_) => {}
        }
    }
    joined.map_or((0, 0, 0), |(first, last)| (first, last, 1))
}

fn simple_set(names: &[&str], reply: &mut Reply<'_>) {
    reply.set(names.len());
    names.iter().for_each(|name| reply.simple(name));
}

fn bulk(text: &str, reply: &mut Reply<'_>) {
    reply.bulk(text.as_bytes());
}

/// One element of COMMAND INFO.
pub(super) fn info(command: &Command, reply: &mut Reply<'_>) {
    let spec = command.spec;
    let (first, last, step) = legacy_range(spec.keys);
    reply.array(10);
    bulk(spec.name, reply);
    reply.int(spec.arity.wire());
    simple_set(&flag_names(spec.flags), reply);
    [first, last, step].into_iter().for_each(|n| reply.int(n));
    let categories: Vec<String> = acl_names(acl_of(spec)).map(|name| format!("@{name}")).collect();
    reply.set(categories.len());
    categories.iter().for_each(|category| reply.simple(category));
    reply.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| bulk(tip, reply));
    reply.set(spec.keys.len());
    spec.keys.iter().for_each(|key| key_spec(key, reply));
    let subcommands: Vec<&Command> = shown_subcommands(command).collect();
    if subcommands.is_empty() {
        reply.set(0);
    } else {
        reply.array(subcommands.len());
        subcommands.into_iter().for_each(|sub| info(sub, reply));
    }
}

/// COMMAND's words for an access.
pub(super) fn access_names(access: Access, purpose: Purpose) -> Vec<&'static str> {
    let access = match access {
        Access::Read => "RO",
        Access::ReadWrite => "RW",
        Access::Overwrite => "OW",
        Access::Remove => "RM",
    };
    let purposes: &[&str] = match purpose {
        Purpose::None => &[],
        Purpose::Access => &["access"],
        Purpose::Update => &["update"],
        Purpose::AccessUpdate => &["access", "update"],
        Purpose::AccessInsert => &["access", "insert"],
        Purpose::Insert => &["insert"],
        Purpose::Delete => &["delete"],
        Purpose::AccessDelete => &["access", "delete"],
    };
    std::iter::once(access).chain(purposes.iter().copied()).collect()
}

fn key_spec(key: &KeySpec, reply: &mut Reply<'_>) {
    reply.map(3 + usize::from(!key.notes.is_empty()));
    if !key.notes.is_empty() {
        bulk("notes", reply);
        bulk(key.notes, reply);
    }
    bulk("flags", reply);
    let mut flags = if key.not_key { vec![] } else { access_names(key.access, key.purpose) };
    let more = [
        (key.not_key, "not_key"),
        (key.incomplete, "incomplete"),
        (key.variable, "variable_flags"),
    ];
    flags.extend(more.iter().filter(|(set, _)| *set).map(|(_, name)| *name));
    simple_set(&flags, reply);
    bulk("begin_search", reply);
    begin_search(key.begin, reply);
    bulk("find_keys", reply);
    find_keys(key.find, reply);
}

/// A value in the map of a key spec.
enum Fact {
    Number(i64),
    Text(&'static str),
}

fn typed_facts(kind: &str, facts: &[(&str, Fact)], reply: &mut Reply<'_>) {
    reply.map(2);
    bulk("type", reply);
    bulk(kind, reply);
    bulk("spec", reply);
    reply.map(facts.len());
    for (name, fact) in facts {
        bulk(name, reply);
        match fact {
            Fact::Number(n) => reply.int(*n),
            Fact::Text(text) => bulk(text, reply),
        }
    }
}

fn begin_search(begin: Begin, reply: &mut Reply<'_>) {
    match begin {
        Begin::Index(index) => {
            typed_facts("index", &[("index", Fact::Number(index.into()))], reply);
        }
        Begin::Keyword { keyword, start_from } => {
            let start = Fact::Number(start_from.into());
            typed_facts(
                "keyword",
                &[("keyword", Fact::Text(keyword)), ("startfrom", start)],
                reply,
            );
        }
        Begin::Unknown => typed_facts("unknown", &[], reply),
    }
}

fn find_keys(find: Find, reply: &mut Reply<'_>) {
    match find {
        Find::Range { last, step, limit } => {
            let facts = [
                ("lastkey", Fact::Number(last.into())),
                ("keystep", Fact::Number(step.into())),
                ("limit", Fact::Number(limit.into())),
            ];
            typed_facts("range", &facts, reply);
        }
        Find::Count { count_index, first, step } => {
            let facts = [
                ("keynumidx", Fact::Number(count_index.into())),
                ("firstkey", Fact::Number(first.into())),
                ("keystep", Fact::Number(step.into())),
            ];
            typed_facts("keynum", &facts, reply);
        }
        Find::Behind(_) | Find::Named(_) | Find::Wrapped(_) | Find::Unknown => {
            typed_facts("unknown", &[], reply);
        }
    }
}

/// One value of COMMAND DOCS.
pub(super) fn docs(command: &Command, reply: &mut Reply<'_>) {
    let spec = command.spec;
    let subcommands: Vec<&Command> = shown_subcommands(command).collect();
    let mut doc_flags = Vec::new();
    doc_flags.extend(spec.deprecated.map(|_| "deprecated"));
    doc_flags.extend(spec.is_internal.then_some("syscmd"));
    let texts = [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", spec.family.name()),
        ("complexity", spec.complexity),
    ];
    let texts = texts.iter().filter(|(_, text)| !text.is_empty());
    let parts = texts.clone().count()
        + usize::from(!doc_flags.is_empty())
        + 2 * usize::from(spec.deprecated.is_some())
        + usize::from(!spec.history.is_empty())
        + usize::from(!spec.args.is_empty())
        + usize::from(!subcommands.is_empty());
    reply.map(parts);
    for (name, text) in texts {
        bulk(name, reply);
        bulk(text, reply);
    }
    if !doc_flags.is_empty() {
        bulk("doc_flags", reply);
        simple_set(&doc_flags, reply);
    }
    if let Some((version, instead)) = spec.deprecated {
        [("deprecated_since", version), ("replaced_by", instead)].iter().for_each(
            |(name, text)| {
                bulk(name, reply);
                bulk(text, reply);
            },
        );
    }
    history(spec, reply);
    if !spec.args.is_empty() {
        bulk("arguments", reply);
        arguments(spec.args, reply);
    }
    if !subcommands.is_empty() {
        bulk("subcommands", reply);
        reply.map(subcommands.len());
        for sub in subcommands {
            bulk(sub.spec.name, reply);
            docs(sub, reply);
        }
    }
}

fn history(spec: &CommandSpec, reply: &mut Reply<'_>) {
    if spec.history.is_empty() {
        return;
    }
    bulk("history", reply);
    reply.set(spec.history.len());
    for (version, change) in spec.history {
        reply.array(2);
        bulk(version, reply);
        bulk(change, reply);
    }
}

/// Redis' name for a kind of argument.
pub(super) fn kind_name(kind: ArgKind) -> &'static str {
    match kind {
        ArgKind::String => "string",
        ArgKind::Integer => "integer",
        ArgKind::Double => "double",
        ArgKind::Key => "key",
        ArgKind::Pattern => "pattern",
        ArgKind::UnixTime => "unix-time",
        ArgKind::PureToken => "pure-token",
        ArgKind::OneOf => "oneof",
        ArgKind::Block => "block",
    }
}

fn arguments(args: &[Arg], reply: &mut Reply<'_>) {
    reply.array(args.len());
    args.iter().for_each(|arg| argument(arg, reply));
}

fn argument(arg: &Arg, reply: &mut Reply<'_>) {
    let flags = [
        (arg.optional, "optional"),
        (arg.multiple, "multiple"),
        (arg.multiple_token, "multiple_token"),
    ];
    let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    let texts =
        [("token", arg.token), ("since", arg.since), ("deprecated_since", arg.deprecated_since)];
    let texts = texts.iter().filter_map(|(name, text)| Some((*name, (*text)?)));
    let parts = 2
        + usize::from(arg.key_spec.is_some())
        + texts.clone().count()
        + usize::from(!flags.is_empty())
        + usize::from(!arg.args.is_empty());
    reply.map(parts);
    for (name, text) in [("name", arg.name), ("type", kind_name(arg.kind))] {
        bulk(name, reply);
        bulk(text, reply);
    }
    if let Some(index) = arg.key_spec {
        bulk("key_spec_index", reply);
        reply.int(index.into());
    }
    for (name, text) in texts {
        bulk(name, reply);
        bulk(text, reply);
    }
    if !flags.is_empty() {
        bulk("flags", reply);
        simple_set(&flags, reply);
    }
    if !arg.args.is_empty() {
        bulk("arguments", reply);
        arguments(arg.args, reply);
    }
}
